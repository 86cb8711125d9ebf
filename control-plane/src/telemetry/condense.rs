//! Hours of five minutes, days of hours.
//!
//! - **What**: ingest notes each hour that it wrote into. Once an hour is over it is made of its twelve
//!   parts, and its day is noted; once a day is over it is made of its hours. What comes late is noted
//!   again, and made again.
//! - **Sealed**: retention drops parts, and marks what was made of them. What comes later for a sealed
//!   length of time is added to it, and used up, since the parts before are in it and gone.
//! - **Steps**: one length of time of one agent a transaction, so that ingest goes on between them.
//! - **Recovery**: what is noted stays noted until it is made, in the same transaction.

use super::rollups::{self, BUCKET, DAY, HOUR, bucket_of};
use super::sums::AgentSums;
use crate::args;
use crate::error::Result;
use crate::store::{Db, Tx};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::units::{DurationMs, Millis};

/// An hour is made this long after its end: most of what is on its way has come.
const GRACE: DurationMs = DurationMs::from_minutes(6);

/// The next lengths of time to be made, hours first.
///
/// # Errors
/// The database fails; so for all below.
pub async fn due(db: &Db, now: Millis, most: u32) -> Result<Vec<(AgentId, DurationMs, Millis)>> {
    db.fetch_all(
        "select agent_id, length, bucket from rollups_due where bucket + length <= $1
         order by length, bucket, agent_id limit $2",
        args![Millis(now.0.saturating_sub(GRACE.0 as i64)), most],
    )
    .await
}

/// Makes one length of time of its parts.
pub async fn make(db: &Db, agent: AgentId, length: DurationMs, bucket: Millis) -> Result<()> {
    let mut tx = db.begin_for([agent]).await?;
    let part = if length == HOUR { BUCKET } else { HOUR };
    let end = Millis(bucket.0.saturating_add(length.0 as i64));
    let parts: Vec<(Vec<u8>,)> = tx
        .fetch_all(
            "select body from rollups where agent_id = $1 and length = $2 and bucket >= $3 and bucket < $4",
            args![agent, part, bucket, end],
        )
        .await?;
    let stored = rollups::read(&mut tx, agent, length, bucket).await?;
    let use_up = stored.as_ref().is_some_and(|(sealed, _)| *sealed)
        || length == HOUR && is_sealed(&mut tx, agent, DAY, bucket_of(DAY, bucket)).await?;
    let mut sums = match stored {
        Some((_, stored)) if use_up => stored,
        _ => AgentSums::default(),
    };
    for (body,) in &parts {
        sums.merge(&AgentSums::decode(body)?);
    }
    if !parts.is_empty() {
        rollups::write(&mut tx, agent, length, bucket, &sums).await?;
    }
    if use_up {
        drop_parts(&mut tx, agent, part, bucket, end).await?;
    }
    tx.execute(
        "delete from rollups_due where agent_id = $1 and length = $2 and bucket = $3",
        args![agent, length, bucket],
    )
    .await?;
    if length == HOUR {
        rollups::note_due(&mut tx, agent, DAY, bucket_of(DAY, bucket)).await?;
    }
    tx.commit().await
}

async fn is_sealed(tx: &mut Tx, agent: AgentId, length: DurationMs, bucket: Millis) -> Result<bool> {
    let row: Option<(bool,)> = tx
        .fetch_optional(
            "select sealed from rollups where agent_id = $1 and length = $2 and bucket = $3",
            args![agent, length, bucket],
        )
        .await?;
    Ok(row.is_some_and(|(sealed,)| sealed))
}

/// Drops parts that are in what was made of them; how many.
pub async fn drop_parts(
    tx: &mut Tx,
    agent: AgentId,
    length: DurationMs,
    from: Millis,
    to: Millis,
) -> Result<u64> {
    tx.execute(
        "delete from rollups where agent_id = $1 and length = $2 and bucket >= $3 and bucket < $4",
        args![agent, length, from, to],
    )
    .await
}
