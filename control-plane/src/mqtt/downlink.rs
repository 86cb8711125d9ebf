//! What agents are sent: acknowledgements, welcomes, documents, orders.
//!
//! The database says what an agent should hold, the agent says what it holds; [`run`] sends the
//! difference until there is none. It takes no input but nudges, reads the present state at every turn,
//! and may send anything twice: documents have versions and orders ids.
//!
//! - **At once** on a nudge and on a hello, then again after [`FIRST`], doubling up to [`LAST`].
//! - **The trust list** goes before everything else on a connection: an agent that was away may know none
//!   of the keys that sign the rest.
//! - **An order** is repeated until its result comes or it expires.
//! - **What an earlier journal held** is told to an agent that has lost it ([`super::recovery`]).
//! - **Watching** a site asks its agents for short cycles, a few minutes at a time; such orders are not
//!   kept, since they run out by themselves.
//! - **After a restored backup** an agent may hold a higher version than the database knows: the
//!   document is issued again above it, so that the agent takes it.

use super::{Link, recovery};
use crate::agents::presence;
use crate::error::{Error, Result};
use crate::random;
use crate::store::Tx;
use crate::telemetry::gaps;
use crate::telemetry::ledger::{self, StreamKey};
use crate::telemetry::once::Ledgers;
use crate::{App, args, row};
use bytes::Bytes;
use hashinsight_broker::SendError;
use hashinsight_protocol::document::DesiredDocumentV1;
use hashinsight_protocol::envelope::{Body, Envelope};
use hashinsight_protocol::ids::{AgentId, OrderId};
use hashinsight_protocol::order::{CommandV1, OrderV1};
use hashinsight_protocol::presence::{HeldV1, HelloV1, WelcomeV1};
use hashinsight_protocol::topics::{Down, Stream, Topic};
use hashinsight_protocol::units::{DurationMs, Millis};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// From one look to the next when nobody nudges.
const EVERY: Duration = Duration::from_secs(2);
/// Until the first repeat, and the longest time between repeats.
const FIRST: Duration = Duration::from_secs(2);
const LAST: Duration = Duration::from_secs(60);
/// How long agents keep short cycles by one order, and when the next is due.
const WATCH_FOR: DurationMs = DurationMs::from_minutes(5);
const WATCH_AGAIN: Duration = Duration::from_secs(4 * 60);
/// Seconds a cycle while a site is watched.
const WATCHED_CYCLE_S: u16 = 10;

/// The version after both that the database knows and that the agent reports.
pub fn next_version(own: u64, reported: u64) -> u64 {
    own.max(reported).saturating_add(1)
}

/// Sends a message that is not kept; false when the agent is away or slow.
pub fn send<B: Body>(app: &App, link: &Link, agent: AgentId, kind: Down, body: &B) -> bool {
    let sealed =
        body.encode().map_err(Error::internal).and_then(|body| app.agents.seal(agent, kind, 0, &body));
    match sealed {
        Ok(sealed) => try_send(link, agent, kind, sealed.into()),
        Err(error) => {
            tracing::error!(%agent, error = error.chain(), "A message could not be sealed.");
            false
        }
    }
}

fn try_send(link: &Link, agent: AgentId, kind: Down, sealed: Bytes) -> bool {
    match link.try_send(agent, kind, sealed) {
        Ok(()) => true,
        Err(error @ SendError::TooLarge) => {
            tracing::error!(%agent, kind = kind.name(), %error, "A message can't be sent.");
            false
        }
        Err(error) => {
            tracing::debug!(%agent, kind = kind.name(), %error, "A message was not taken.");
            false
        }
    }
}

/// Answers a hello: what is held of each stream, and which document should be.
///
/// # Errors
/// A database fails.
pub async fn welcome(
    app: &App,
    link: &Link,
    agent: AgentId,
    hello: &HelloV1,
    received: Millis,
) -> Result<()> {
    // First, since all that follows may be signed by a key that the agent has not heard of.
    send(app, link, agent, Down::Keys, app.agents.held().keys.trust());
    let mut held = Vec::new();
    for state in &hello.streams {
        let Some(stream) = Stream::from_number(state.stream).filter(|s| Stream::KEPT.contains(s)) else {
            continue;
        };
        let key = StreamKey { agent, epoch: state.epoch, stream };
        let db = if stream == Stream::Telemetry { &app.stores.telemetry } else { &app.stores.business };
        let lowest = state.lowest.min(state.next);
        let mut up_to = ledger::up_to(db, key).await?;
        if up_to.saturating_add(1) < lowest {
            let mut tx = db.begin().await?;
            give_up_below(&mut tx, key, lowest, received).await?;
            tx.commit().await?;
            up_to = ledger::up_to(db, key).await?;
        }
        held.push(HeldV1 { stream: state.stream, epoch: state.epoch, up_to });
    }
    let mut tx = app.stores.business.begin().await?;
    presence::hello(&mut tx, agent, hello, received).await?;
    let document = issue_above(app, &mut tx, agent, hello.document).await?;
    tx.commit().await?;
    let site = app.agents.directory.known(agent).map(|known| known.site);
    let watched = site.is_some_and(|site| app.live.is_watched(site));
    let welcome = WelcomeV1 { session: hello.session, received, held, document, watched };
    send(app, link, agent, Down::Welcome, &welcome);
    app.nudge.agent(agent);
    Ok(())
}

/// What an agent no longer keeps and is not here will never come.
async fn give_up_below(tx: &mut Tx, key: StreamKey, lowest: u64, now: Millis) -> Result<()> {
    if key.stream == Stream::Telemetry {
        gaps::give_up_below(tx, key.agent, key.epoch, lowest, now).await?;
        return Ok(());
    }
    let mut ledgers = Ledgers::default();
    for (first, last) in ledgers.holes(tx, key, lowest).await? {
        ledgers.give_up(tx, key, first, last).await?;
        let body = serde_json::json!({
            "stream": key.stream.name(), "epoch": key.epoch, "first": first, "last": last,
        });
        tx.execute(
            "insert into agent_events (agent_id, kind, at, received_at, body) values ($1, 'batches_lost', $2, $2, $3)",
            args![key.agent, now, body.to_string()],
        )
        .await?;
        tracing::error!(agent = %key.agent, stream = key.stream.name(), first, last, "Batches are lost for good.");
    }
    ledgers.save(tx).await?;
    Ok(())
}

row! {
    struct DocumentRow {
        version: u64,
        content_hash: String,
        envelope: Vec<u8>,
    }
}

/// The version that an agent should hold, issued again when the agent reports a higher one.
async fn issue_above(app: &App, tx: &mut Tx, agent: AgentId, reported: u64) -> Result<u64> {
    let row: Option<DocumentRow> = tx
        .fetch_optional(
            "select version, content_hash, envelope from desired_documents where agent_id = $1",
            args![agent],
        )
        .await?;
    let own = row.as_ref().map_or(0, |row| row.version);
    if own >= reported {
        return Ok(own);
    }
    let (content, parts) = match row {
        Some(row) => {
            let envelope =
                Envelope::open(Topic::Down(agent, Down::Desired), &row.envelope).map_err(Error::internal)?;
            (row.content_hash, DesiredDocumentV1::decode(envelope.body).map_err(Error::internal)?.parts)
        }
        // The database knows of no plan of this agent.
        None => (random::sha256_hex(b""), Vec::new()),
    };
    let version = next_version(own, reported);
    let issued = app.clock.now();
    let body = DesiredDocumentV1 { agent, version, issued, parts }.encode().map_err(Error::internal)?;
    let envelope = app.agents.seal(agent, Down::Desired, version, &body)?;
    tx.execute(
        "insert into desired_documents (agent_id, version, content_hash, envelope, issued_at)
         values ($1, $2, $3, $4, $5) on conflict (agent_id) do update set version = excluded.version,
             envelope = excluded.envelope, issued_at = excluded.issued_at",
        args![agent, version, content, envelope, issued],
    )
    .await?;
    tracing::warn!(%agent, own, reported, version, "An agent holds a later document than is known here.");
    Ok(version)
}

/// Something that an agent lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Document(u64),
    Order(OrderId),
    /// Miners that an earlier journal held.
    Held,
}

/// When what was sent, and when it is due again.
#[derive(Debug, Default)]
struct Attempts(HashMap<(AgentId, What), (Instant, Duration)>);

impl Attempts {
    /// Whether it is due; counts as sent then.
    fn is_due(&mut self, agent: AgentId, what: What, now: Instant) -> bool {
        match self.0.entry((agent, what)) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert((now + FIRST, FIRST));
                true
            }
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                let (next, wait) = entry.get_mut();
                let due = *next <= now;
                if due {
                    *wait = (*wait * 2).min(LAST);
                    *next = now + *wait;
                }
                due
            }
        }
    }

    /// All of this agent is due.
    fn reset(&mut self, agent: AgentId) {
        self.0.retain(|(of, _), _| *of != agent);
    }

    /// Forgets what is not lacking any more.
    fn keep(&mut self, lacking: &HashSet<(AgentId, What)>) {
        self.0.retain(|what, _| lacking.contains(what));
    }
}

/// Sends what agents lack until `shutdown`.
///
/// # Errors
/// None that ends the work; it goes on with the next turn.
pub async fn run(app: Arc<App>, link: Link, shutdown: CancellationToken) -> Result<()> {
    let mut attempts = Attempts::default();
    let mut watches = HashMap::new();
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            agents = app.nudge.next() => agents.into_iter().for_each(|agent| attempts.reset(agent)),
            _ = turns.tick() => watch(&app, &link, &mut watches),
        }
        if let Err(error) = reconcile(&app, &link, &mut attempts).await {
            tracing::error!(error = error.chain(), "Documents and orders could not be looked up.");
        }
    }
}

async fn reconcile(app: &App, link: &Link, attempts: &mut Attempts) -> Result<()> {
    let db = &app.stores.business;
    let documents: Vec<(AgentId, u64)> = db
        .fetch_all(
            "select d.agent_id, d.version from desired_documents d join agent_presence p on p.agent_id = d.agent_id
             where p.online = 1 and d.version > p.document_held",
            args![],
        )
        .await?;
    let orders: Vec<(AgentId, OrderId)> = db
        .fetch_all(
            "select o.agent_id, o.id from orders o join agent_presence p on p.agent_id = o.agent_id
             where p.online = 1 and o.result_at is null and o.expires_at > $1 order by o.issued_at limit 10000",
            args![app.clock.now()],
        )
        .await?;
    // Orders first: a stop must not wait behind a large document.
    let lacking: Vec<_> = orders
        .into_iter()
        .map(|(agent, order)| (agent, What::Order(order)))
        // Known before the document starts what it says anew.
        .chain(recovery::agents(app).await?.into_iter().map(|agent| (agent, What::Held)))
        .chain(documents.into_iter().map(|(agent, version)| (agent, What::Document(version))))
        .collect();
    attempts.keep(&lacking.iter().copied().collect());
    let now = Instant::now();
    for (agent, what) in lacking {
        if !attempts.is_due(agent, what, now) {
            continue;
        }
        let (kind, row): (_, Option<(Vec<u8>,)>) = match what {
            What::Order(order) => {
                let sql = "select envelope from orders where id = $1";
                (Down::Order, db.fetch_optional(sql, args![order]).await?)
            }
            What::Held => {
                for held in recovery::of(app, agent).await? {
                    let count = held.miners.len();
                    tracing::warn!(%agent, count, "An agent is told what its earlier journal held.");
                    send(app, link, agent, Down::Held, &held);
                }
                continue;
            }
            What::Document(_) => {
                let sql = "select envelope from desired_documents where agent_id = $1";
                (Down::Desired, db.fetch_optional(sql, args![agent]).await?)
            }
        };
        if let Some((envelope,)) = row {
            try_send(link, agent, kind, envelope.into());
        }
    }
    Ok(())
}

/// Asks the agents of watched sites for short cycles.
fn watch(app: &App, link: &Link, sent: &mut HashMap<AgentId, Instant>) {
    let now = Instant::now();
    sent.retain(|_, at| now.duration_since(*at) < WATCH_AGAIN);
    for agent in link.connected() {
        let Some(known) = app.agents.directory.known(agent) else { continue };
        if sent.contains_key(&agent) || !app.live.is_watched(known.site) {
            continue;
        }
        let issued = app.clock.now();
        let until = issued.plus(WATCH_FOR);
        let order = OrderV1 {
            id: OrderId::from_random(random::bytes()),
            issued,
            expires: until,
            by: "console".to_owned(),
            command: CommandV1::Watch { cycle_s: WATCHED_CYCLE_S, until },
        };
        if send(app, link, agent, Down::Order, &order) {
            sent.insert(agent, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeats_come_at_once_then_ever_later() {
        let mut attempts = Attempts::default();
        let (agent, what) = (AgentId::from_random([1; 16]), What::Document(3));
        let start = Instant::now();
        let mut sent = Vec::new();
        for second in 0..300 {
            if attempts.is_due(agent, what, start + Duration::from_secs(second)) {
                sent.push(second);
            }
        }
        assert_eq!(sent, [0, 2, 6, 14, 30, 62, 122, 182, 242]);
        attempts.reset(agent);
        assert!(attempts.is_due(agent, what, start));
        attempts.keep(&HashSet::new());
        assert!(attempts.0.is_empty());
    }

    #[test]
    fn a_version_is_above_both() {
        assert_eq!(next_version(3, 7), 8);
        assert_eq!(next_version(7, 3), 8);
        assert_eq!(next_version(0, u64::MAX), u64::MAX);
    }
}
