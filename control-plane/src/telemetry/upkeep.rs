//! Telemetry's work in the background: hours and days are made, and what is past its age is dropped.
//!
//! Takes no input, reads the present state at every turn, and goes on where it stopped. Each step is a
//! short transaction, followed by a pause in which ingest has the database.

use super::{condense, retention};
use crate::App;
use crate::audit;
use crate::error::Result;
use hashinsight_protocol::units::{DurationMs, Millis};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(60);
/// What is past its age is looked for this often.
const DROP_EVERY: DurationMs = DurationMs::from_minutes(60);
/// After each step.
const PAUSE: Duration = Duration::from_millis(20);
/// Lengths of time looked up at once.
const PAGE: u32 = 256;

/// Works until `shutdown`.
///
/// # Errors
/// None that ends the work; it goes on with the next turn.
pub async fn serve(app: Arc<App>, shutdown: CancellationToken) -> Result<()> {
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut dropped_at = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = turns.tick() => {}
        }
        let now = app.clock.now();
        let work = async {
            make_due(&app, now).await?;
            if dropped_at.is_none_or(|last| now.since(last) >= DROP_EVERY || now < last) {
                drop_old(&app, now).await?;
                dropped_at = Some(now);
            }
            Ok::<_, crate::error::Error>(())
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            done = work => if let Err(error) = done {
                tracing::error!(error = error.chain(), "Telemetry's upkeep failed; trying again.");
            }
        }
    }
}

/// Makes all hours and days that are due.
///
/// # Errors
/// The database fails; so for all below.
pub async fn make_due(app: &App, now: Millis) -> Result<()> {
    let db = &app.stores.telemetry;
    loop {
        let due = condense::due(db, now, PAGE).await?;
        if due.is_empty() {
            return Ok(());
        }
        for (agent, length, bucket) in due {
            condense::make(db, agent, length, bucket).await?;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Drops all that is past its age, and says so in the audit log.
pub async fn drop_old(app: &App, now: Millis) -> Result<()> {
    let db = &app.stores.telemetry;
    let before = totals(app).await?;
    while retention::step(db, &app.config.keep, now).await?.is_some() {
        tokio::time::sleep(PAUSE).await;
    }
    for (kind, (pieces, samples)) in totals(app).await? {
        let (pieces_before, samples_before) = before.get(&kind).copied().unwrap_or_default();
        if pieces > pieces_before {
            let detail = format!("{} pieces, {} samples", pieces - pieces_before, samples - samples_before);
            tracing::info!(kind, detail, "Telemetry past its age was dropped.");
            let mut tx = app.stores.business.begin().await?;
            audit::record(&mut tx, now, "hashinsight", "telemetry.dropped", &kind, &detail).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Pieces and samples dropped since the beginning, by kind.
async fn totals(app: &App) -> Result<BTreeMap<String, (u64, u64)>> {
    let mut out: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in retention::dropped(&app.stores.telemetry).await? {
        let (pieces, samples) = out.entry(row.kind).or_default();
        (*pieces, *samples) = (*pieces + row.pieces, *samples + row.samples);
    }
    Ok(out)
}
