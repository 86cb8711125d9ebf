//! Batches that can't be taken now, or never: kept as they came, with the reason.
//!
//! - **Waiting** for its key batch: not acknowledged, applied with the key.
//! - **Not known** to this version: acknowledged, since it is kept for good; applied by the first
//!   version that knows it ([`crate::mqtt`] tries at every start).
//! - **Quarantined**, because its content is wrong: acknowledged, so that the sender doesn't repeat it
//!   for ever; nothing applies it, a person may look at it.
//!
//! At most [`MOST`] an agent and database; beyond it batches stay with their sender, unacknowledged.

use super::ledger::StreamKey;
use crate::args;
use crate::error::Result;
use crate::row;
use crate::store::Tx;
use hashinsight_protocol::ids::Epoch;
use hashinsight_protocol::units::Millis;

/// Parked batches of one agent.
pub const MOST: u64 = 2000;

/// Why a batch is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// For the key batch with this number.
    Waits(u64),
    NotKnown(String),
    Wrong(String),
}

row! {
    /// A parked batch.
    #[derive(Debug)]
    pub struct Parked {
        pub epoch: Epoch,
        pub stream: u8,
        pub seq: u64,
        pub checksum: u32,
        pub quarantined: bool,
        pub received_at: Millis,
        pub envelope: Vec<u8>,
    }
}

/// Parks a batch, or changes the reason of one that is parked and not quarantined; false when there is
/// no room.
///
/// # Errors
/// The database fails; so for all below.
pub async fn park(
    tx: &mut Tx,
    key: StreamKey,
    seq: u64,
    checksum: u32,
    why: &Why,
    received_at: Millis,
    envelope: &[u8],
) -> Result<bool> {
    let (reason, quarantined, waits_for) = match why {
        Why::Waits(seq) => ("waits for its key batch".to_owned(), false, Some(*seq)),
        Why::NotKnown(reason) => (reason.clone(), false, None),
        Why::Wrong(reason) => (reason.clone(), true, None),
    };
    let stream = key.stream.number();
    let changed = tx
        .execute(
            "update parked set reason = case when quarantined = 1 then reason else $6 end,
                 waits_for = case when quarantined = 1 then waits_for else $8 end,
                 quarantined = case when quarantined = 1 then 1 else $7 end
             where agent_id = $1 and epoch = $2 and stream = $3 and seq = $4 and checksum = $5",
            args![key.agent, key.epoch, stream, seq, checksum, &reason, quarantined, waits_for],
        )
        .await?;
    if changed > 0 {
        return Ok(true);
    }
    let (count,): (u64,) = tx
        .fetch_one(
            "select count(*) from (select 1 from parked where agent_id = $1 limit $2) as some_of_them",
            args![key.agent, MOST],
        )
        .await?;
    if count >= MOST {
        return Ok(false);
    }
    tx.execute(
        "insert into parked (agent_id, epoch, stream, seq, checksum, reason, quarantined, waits_for,
                             received_at, envelope)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        args![
            key.agent,
            key.epoch,
            stream,
            seq,
            checksum,
            reason,
            quarantined,
            waits_for,
            received_at,
            envelope
        ],
    )
    .await?;
    Ok(true)
}

/// What is parked under a number: the checksum and whether it is quarantined.
pub async fn under(tx: &mut Tx, key: StreamKey, seq: u64) -> Result<Vec<(u32, bool)>> {
    tx.fetch_all(
        "select checksum, quarantined from parked where agent_id = $1 and epoch = $2 and stream = $3 and seq = $4",
        args![key.agent, key.epoch, key.stream.number(), seq],
    )
    .await
}

/// The batches that wait for a key batch.
pub async fn waiting_for(tx: &mut Tx, key: StreamKey, seq: u64) -> Result<Vec<Parked>> {
    tx.fetch_all(
        "select epoch, stream, seq, checksum, quarantined, received_at, envelope from parked
         where agent_id = $1 and epoch = $2 and waits_for = $4 and stream = $3 and quarantined = 0
         order by seq limit 1000",
        args![key.agent, key.epoch, key.stream.number(), seq],
    )
    .await
}

/// A batch is stored after all.
pub async fn release(tx: &mut Tx, key: StreamKey, seq: u64, checksum: u32) -> Result<()> {
    tx.execute(
        "delete from parked
         where agent_id = $1 and epoch = $2 and stream = $3 and seq = $4 and checksum = $5 and quarantined = 0",
        args![key.agent, key.epoch, key.stream.number(), seq, checksum],
    )
    .await?;
    Ok(())
}
