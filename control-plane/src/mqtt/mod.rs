//! The wire to the agents: the broker behind its front door or one of the operator's, what comes in, what
//! goes out.

pub mod apply;
pub mod downlink;
mod heard;
pub mod ingest;
mod link;
mod nudge;
mod recovery;
mod refusals;
pub mod remote;
pub mod streams;
#[cfg(test)]
mod tests;
pub mod wire;

pub use heard::Heard;
pub use link::Link;
pub use nudge::Nudge;

use crate::agents::{Held, certificates, presence};
use crate::curtailment::documents;
use crate::error::{Error, Kind, Result};
use crate::{App, args};
use hashinsight_broker::{Broker, BrokerError, DoorLimits, Up, server_tls};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::topics::Down;
use hashinsight_protocol::units::DurationMs;
use remote::Remote;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A revocation list is written at every change, and this often, so that it never runs out.
const LIST_EVERY: DurationMs = DurationMs::from_minutes(24 * 60);

/// Serves agents until `shutdown`: behind the front door on `listener`, or by the configured broker.
///
/// # Errors
/// The broker can't start, or one of the parts ends before it should.
pub async fn serve(app: Arc<App>, listener: Option<TcpListener>, shutdown: CancellationToken) -> Result<()> {
    certificates::write_crl(&app).await?;
    let (link, up) = match (app.config.broker.clone(), listener) {
        // Agents stay connected to it while we were away: who is there is as it was.
        (Some(address), _) => {
            let (remote, up) = Remote::start(Arc::clone(&app), address, ingest::MOST);
            (Link::Remote(remote), up)
        }
        (None, Some(listener)) => {
            presence::all_away(&app.stores.business).await?;
            let (broker, up) = open_door(&app, listener).await.map_err(|e| {
                Error::new(Kind::Unavailable, format!("the broker did not start: {e}")).because(e)
            })?;
            (Link::Embedded(broker), up)
        }
        (None, None) => return Err(Error::internal("there is neither a broker nor a port for one")),
    };
    app.metrics.watch(link.clone());

    let heard = Arc::new(Heard::default());
    let mut parts = JoinSet::new();
    parts.spawn(ingest::Ingest::new(Arc::clone(&app), link.clone(), Arc::clone(&heard)).run(up));
    parts.spawn(downlink::run(Arc::clone(&app), link.clone(), shutdown.clone()));
    parts.spawn(keep_in_step(Arc::clone(&app), link.clone(), heard, shutdown.clone()));
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = parts.join_next() => ended.unwrap_or_else(|e| Err(Error::internal(e))),
    };
    // What is in flight is not acknowledged and comes again.
    link.shutdown().await;
    parts.shutdown().await;
    // What was refused since the last summary.
    refusals::Audit::default().write(&app, &link).await?;
    outcome
}

async fn open_door(
    app: &App,
    listener: TcpListener,
) -> Result<(Broker, tokio::sync::mpsc::Receiver<Up>), BrokerError> {
    let limits = DoorLimits { up_queue: ingest::MOST, ..DoorLimits::default() };
    let gate = Arc::clone(&app.agents.directory);
    Broker::start_on(listener, limits, tls_of(&app.agents.held())?, gate).await
}

/// The door's TLS: agents show certificates of any authority that the trust list names.
fn tls_of(held: &Held) -> Result<Arc<rustls::ServerConfig>, BrokerError> {
    let authorities: Vec<_> = held.keys.list().authorities.iter().map(|der| der.clone().into()).collect();
    server_tls(&authorities, held.server.chain.clone(), held.server.key.clone_key())
}

/// Takes up new keys, cuts off who was revoked, and notes who is there.
async fn keep_in_step(
    app: Arc<App>,
    link: Link,
    heard: Arc<Heard>,
    shutdown: CancellationToken,
) -> Result<()> {
    let mut refusals = refusals::Audit::default();
    let mut list_due = app.clock.now().plus(LIST_EVERY);
    let mut turns = tokio::time::interval(certificates::EVERY.into());
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = turns.tick() => {}
        }
        let turn = async {
            take_up_keys(&app, &link).await?;
            if app.clock.now() >= list_due {
                list_due = app.clock.now().plus(LIST_EVERY);
                certificates::write_crl(&app).await?;
            }
            cut_off_revoked(&app, &link, &heard).await?;
            note_presence(&app, &link, &heard).await?;
            refusals.write(&app, &link).await
        };
        if let Err(error) = turn.await {
            tracing::error!(error = error.chain(), "The agents' access could not be brought up to date.");
        }
    }
}

/// What the key ceremony has put into the folder: shown, told to agents, and signed with from now on.
async fn take_up_keys(app: &App, link: &Link) -> Result<()> {
    if !app.agents.refresh(app.clock.now())? {
        return Ok(());
    }
    let held = app.agents.held();
    if let Some(door) = link.door() {
        door.set_tls(tls_of(&held).map_err(Error::internal)?);
    }
    tracing::info!(version = held.keys.list().version, "Keys and certificates were taken up.");
    for agent in link.connected() {
        downlink::send(app, link, agent, Down::Keys, held.keys.trust());
    }
    certificates::write_crl(app).await?;
    // Parts are signed by themselves, so documents of the old key are composed anew.
    let agents: Vec<(AgentId,)> =
        app.stores.business.fetch_all("select agent_id from desired_documents", args![]).await?;
    documents::refresh(app, agents.into_iter().map(|(agent,)| agent)).await
}

async fn cut_off_revoked(app: &App, link: &Link, heard: &Heard) -> Result<()> {
    let db = &app.stores.business;
    let revoked = app.agents.directory.refresh(db, app.clock.now()).await?;
    if !revoked.is_empty() {
        certificates::write_crl(app).await?;
    }
    for agent in revoked {
        link.cut(agent);
        heard.remove(agent);
        tracing::warn!(%agent, "An agent's access was taken away.");
        away(app, agent).await?;
    }
    Ok(())
}

async fn note_presence(app: &App, link: &Link, heard: &Heard) -> Result<()> {
    let db = &app.stores.business;
    // First who is said to be there, then who is: one that comes meanwhile is not mistaken.
    let said = presence::online(db).await?;
    let connected: HashSet<AgentId> = link.connected().into_iter().collect();
    if link.knows_who_is_away() {
        for agent in said.into_iter().filter(|agent| !connected.contains(agent)) {
            away(app, agent).await?;
        }
    }
    let agents = heard.due();
    if !agents.is_empty() {
        let mut tx = db.begin().await?;
        presence::seen(&mut tx, agents, link.door().is_none(), app.clock.now()).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn away(app: &App, agent: AgentId) -> Result<()> {
    presence::away(&app.stores.business, agent).await?;
    if let Some(known) = app.agents.directory.known(agent) {
        app.live.changed(known.site);
    }
    Ok(())
}
