//! Curtailment plans: ordered, previewed and divided here, executed at the sites.
//!
//! # Rules
//! - A preview runs the agents' own engine over the latest readings; it writes nothing.
//! - A plan does nothing until it is approved, by as many people as its site asks for. Approval divides it
//!   among the site's agents, and what each gets is signed.
//! - Where a plan stands follows from its agents' reports alone; the control plane never assumes that
//!   something has happened because it was sent.
//! - Stopping is an order of its own: it reaches an agent at once, and its ramp is the agent's to keep.
//! - [`serve`] takes no input: it reads what is open and brings documents in line, after a crash too.

pub mod approval;
pub mod documents;
pub mod fleet_view;
pub mod progress;
pub mod request;
pub mod service;
pub mod share;
pub mod state;
pub mod store;
pub mod usual;
pub mod web;

use crate::App;
use crate::error::Result;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::units::DurationMs;
use state::PlanState;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Why a plan expired that waited for approval, as its history keeps it.
pub const NOT_APPROVED: &str = "nobody approved it in time";

/// From one look at all open plans to the next.
const EVERY: DurationMs = DurationMs::from_secs(5);

/// Keeps plans and documents up to date until `shutdown`.
///
/// # Errors
/// None that ends the work; it goes on with the next turn.
pub async fn serve(app: Arc<App>, shutdown: CancellationToken) -> Result<()> {
    let mut turns = tokio::time::interval(EVERY.into());
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = turns.tick() => {}
        }
        if let Err(error) = reconcile(&app).await {
            tracing::error!(error = error.chain(), "Plans could not be reconciled; trying again.");
        }
    }
}

/// Expires what nobody approved in time and brings every agent's document in line.
async fn reconcile(app: &App) -> Result<()> {
    let now = app.clock.now();
    for plan in store::open_plans(&app.stores.business).await? {
        if plan.state == PlanState::Pending && plan.ends_at.is_some_and(|end| end <= now) {
            let mut tx = app.stores.business.begin().await?;
            let plan = store::plan_in(&mut tx, plan.id).await?;
            if plan.state == PlanState::Pending {
                store::change_state(&mut tx, &plan, PlanState::Expired, now, "hashinsight", NOT_APPROVED)
                    .await?;
                tx.commit().await?;
                app.live.changed(plan.site);
            }
        }
    }
    let agents: Vec<(AgentId,)> = app
        .stores
        .business
        .fetch_all("select id from agents where revoked_at is null", crate::args![])
        .await?;
    documents::refresh(app, agents.into_iter().map(|(agent,)| agent).collect::<BTreeSet<_>>()).await
}
