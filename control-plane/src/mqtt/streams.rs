//! Batches of events, evidence and audit into the business database.
//!
//! One transaction holds ledger, batch and all that its events say, so that a plan's state never shows
//! what is not stored, nor the other way round. Batches are kept as they were signed: they are the
//! evidence. An event that this version doesn't know is kept in its batch and listed; the others apply.

use super::apply::{Effects, apply};
use super::wire::EventBatch;
use crate::args;
use crate::error::Result;
use crate::store::Tx;
use crate::telemetry::ledger::StreamKey;
use crate::telemetry::once::{Acks, Counts, Ledgers, Tables, Verdict};
use crate::telemetry::parked;
use hashinsight_protocol::ids::{AgentId, SiteId};

const TABLES: Tables = Tables {
    checksum: "select checksum from event_batches where agent_id = $1 and epoch = $2 and stream = $3 and seq = $4",
    given_up: None,
};

/// What a transaction did, for after its commit.
#[derive(Debug)]
pub struct Stored {
    pub acks: Acks,
    pub counts: Counts,
    pub effects: Effects,
}

/// Stores a group of batches; `site_of` knows the agents.
///
/// # Errors
/// The database fails.
pub async fn store(
    tx: &mut Tx,
    batches: &[EventBatch],
    site_of: impl Fn(AgentId) -> Option<SiteId>,
) -> Result<Stored> {
    let mut ledgers = Ledgers::default();
    let mut effects = Effects::default();
    for batch in batches {
        let Some(site) = site_of(batch.key.agent) else { continue };
        if ledgers.judge(tx, TABLES, batch).await? != Verdict::Store {
            continue;
        }
        let events = match &batch.body {
            Ok(events) => events,
            Err(why) => {
                ledgers.park_for_good(tx, batch, why).await?;
                continue;
            }
        };
        let StreamKey { agent, epoch, stream } = batch.key;
        let inserted = tx
            .execute(
                "insert into event_batches (agent_id, epoch, stream, seq, checksum, received_at, envelope)
                 values ($1, $2, $3, $4, $5, $6, $7) on conflict (agent_id, epoch, stream, seq) do nothing",
                args![
                    agent,
                    epoch,
                    stream.number(),
                    batch.seq,
                    batch.checksum,
                    batch.received_at,
                    &batch.envelope[..]
                ],
            )
            .await?;
        if inserted > 0 {
            for (index, event) in events.iter().enumerate() {
                let origin = super::apply::Origin::new(batch, site, index);
                apply(tx, &origin, event, &mut effects).await?;
            }
        }
        if ledgers.holds(tx, batch.key, batch.seq).await? {
            parked::release(tx, batch.key, batch.seq, batch.checksum).await?;
        }
        ledgers.stored(tx, batch.key, batch.seq).await?;
    }
    effects.settle(tx).await?;
    let (acks, counts) = ledgers.save(tx).await?;
    Ok(Stored { acks, counts, effects })
}
