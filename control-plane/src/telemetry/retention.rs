//! How long telemetry is kept: raw, five-minute, hourly and daily values each have their own age.
//!
//! - **Steps**: at most [`BATCHES`] batches, or one day of one agent's rollups, a transaction; ingest
//!   goes on between them ([`super::upkeep`] waits after each).
//! - **Raw**: a batch goes when its time, as its agent's clock says, is past the age; one whose time
//!   can't be goes by its arrival. A key batch stays until no batch leans on it.
//! - **Rollups** go by whole days (UTC), once what is made of them is made and no more is due; what was
//!   made of them is sealed in the same transaction ([`super::condense`]).
//! - **Never dropped** here: the ledger (a batch that was dropped does not come again), gaps, latest,
//!   and all of the business database.
//! - **Counted**: what was dropped is added up by kind and agent in the transaction that drops it.

use super::condense::drop_parts;
use super::rollups::{BUCKET, DAY, HOUR, bucket_of};
use crate::error::Result;
use crate::store::{Db, Tx, Value};
use crate::{args, row};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::units::{DurationMs, Millis};

/// Batches dropped in one transaction.
const BATCHES: u32 = 64;

/// The age at which each kind of telemetry is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// Batches as they came.
    pub raw: DurationMs,
    pub five_minutes: DurationMs,
    pub hourly: DurationMs,
    pub daily: DurationMs,
}

impl Default for Ages {
    fn default() -> Self {
        let days = |days: u64| DurationMs(days * DAY.0);
        Self { raw: days(90), five_minutes: days(180), hourly: days(1100), daily: days(3660) }
    }
}

row! {
    /// What was dropped of one kind of one agent since the beginning.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Dropped {
        pub agent: AgentId,
        /// `raw`, `five_minutes`, `hourly`, `daily`, and `sites` for the five-minute sums of charts.
        pub kind: String,
        /// Batches, or lengths of time.
        pub pieces: u64,
        /// Samples of the batches; 0 for rollups.
        pub samples: u64,
        /// All of this kind before this time is gone.
        pub before: Millis,
    }
}

row! {
    /// What there is of one agent's raw telemetry.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Kept {
        pub agent: AgentId,
        pub batches: u64,
        pub samples: u64,
    }
}

/// What raw telemetry there is, by agent.
///
/// # Errors
/// The database fails; so for all below.
pub async fn kept(db: &Db) -> Result<Vec<Kept>> {
    db.fetch_all(
        "select agent_id, count(*), cast(coalesce(sum(samples), 0) as bigint) from batches
         group by agent_id order by agent_id",
        args![],
    )
    .await
}

/// What was dropped since the beginning.
///
/// # Errors
/// The database fails; so for all below.
pub async fn dropped(db: &Db) -> Result<Vec<Dropped>> {
    db.fetch_all(
        "select agent_id, kind, pieces, samples, before from dropped order by agent_id, kind",
        args![],
    )
    .await
}

/// Drops the next few things that are past their age; `None` when there are no more.
pub async fn step(db: &Db, ages: &Ages, now: Millis) -> Result<Option<u64>> {
    if let Some(pieces) = raw(db, before(now, ages.raw)).await? {
        return Ok(Some(pieces));
    }
    for (kind, lengths, age) in [
        ("five_minutes", Lengths { part: None, own: BUCKET, made: Some(HOUR) }, ages.five_minutes),
        ("hourly", Lengths { part: Some(BUCKET), own: HOUR, made: Some(DAY) }, ages.hourly),
        ("daily", Lengths { part: Some(HOUR), own: DAY, made: None }, ages.daily),
    ] {
        if let Some(pieces) = day(db, kind, lengths, before(now, age)).await? {
            return Ok(Some(pieces));
        }
    }
    sites(db, before(now, ages.five_minutes)).await
}

/// A kind of rollup, what it is made of, and what is made of it.
#[derive(Clone, Copy)]
struct Lengths {
    part: Option<DurationMs>,
    own: DurationMs,
    made: Option<DurationMs>,
}

fn before(now: Millis, age: DurationMs) -> Millis {
    Millis(now.0.saturating_sub(age.0 as i64))
}

row! {
    struct Old {
        agent: AgentId,
        epoch: String,
        stream: u8,
        seq: u64,
        samples: u64,
    }
}

/// Followers first: a key has its own time, which is the oldest of its group.
const OLD: &str = "select b.agent_id, b.epoch, b.stream, b.seq, b.samples from batches b
     where b.agent_id = $1 and b.at < $2
       and (b.absurd_time = 0 or b.received_at < $2)
       and (b.key_seq <> b.seq or not exists (
            select 1 from batches f where f.agent_id = b.agent_id and f.epoch = b.epoch
                and f.key_seq = b.seq and f.seq <> b.seq))
     order by b.at limit $3";

/// The same for times that can't be, by their arrival.
const OLD_ABSURD: &str = "select b.agent_id, b.epoch, b.stream, b.seq, b.samples from batches b
     where b.absurd_time = 1 and b.agent_id = $1 and b.received_at < $2
       and (b.key_seq <> b.seq or not exists (
            select 1 from batches f where f.agent_id = b.agent_id and f.epoch = b.epoch
                and f.key_seq = b.seq and f.seq <> b.seq))
     order by b.received_at limit $3";

async fn raw(db: &Db, before: Millis) -> Result<Option<u64>> {
    let agents: Vec<(AgentId,)> = db
        .fetch_all("select distinct agent_id from ledger where stream = 1 order by agent_id", args![])
        .await?;
    for (agent,) in agents {
        for sql in [OLD, OLD_ABSURD] {
            // Looked for outside of the transaction: looking may take a while.
            let old: Vec<Old> = db.fetch_all(sql, args![agent, before, BATCHES]).await?;
            if old.is_empty() {
                continue;
            }
            let mut tx = db.begin_for([agent]).await?;
            let (mut pieces, mut samples) = (0, 0);
            for batch in &old {
                let gone = tx
                    .execute(
                        "delete from batches where agent_id = $1 and epoch = $2 and stream = $3 and seq = $4",
                        args![batch.agent, &batch.epoch, batch.stream, batch.seq],
                    )
                    .await?;
                pieces += gone;
                samples += if gone > 0 { batch.samples } else { 0 };
            }
            count(&mut tx, agent, "raw", pieces, samples, before).await?;
            tx.commit().await?;
            return Ok(Some(pieces));
        }
    }
    Ok(None)
}

/// The oldest day of an agent that is past its age, has no parts left and nothing due.
async fn day(db: &Db, kind: &str, lengths: Lengths, before: Millis) -> Result<Option<u64>> {
    let Lengths { part, own, made } = lengths;
    // A day goes when all of it is past the age.
    let before = bucket_of(DAY, before);
    let old: Vec<(AgentId, Millis)> = db
        .fetch_all(
            "select agent_id, min(bucket) from rollups where length = $1 and bucket < $2
             group by agent_id order by agent_id",
            args![own, before],
        )
        .await?;
    for (agent, oldest) in old {
        let mut tx = db.begin_for([agent]).await?;
        let (from, to) = (bucket_of(DAY, oldest), Millis(bucket_of(DAY, oldest).0 + DAY.0 as i64));
        // What is in parts still there would be added once more to what is sealed.
        if let Some(part) = part
            && any(&mut tx, PART_OF, args![agent, part, from, to]).await?
        {
            continue;
        }
        if let Some(made) = made {
            if any(&mut tx, DUE_OF, args![agent, made, from, to]).await? {
                continue;
            }
            tx.execute(
                "update rollups set sealed = 1
                 where agent_id = $1 and length = $2 and bucket >= $3 and bucket < $4",
                args![agent, made, from, to],
            )
            .await?;
        }
        let pieces = drop_parts(&mut tx, agent, own, from, to).await?;
        count(&mut tx, agent, kind, pieces, 0, to).await?;
        tx.commit().await?;
        return Ok(Some(pieces));
    }
    Ok(None)
}

const PART_OF: &str =
    "select 1 from rollups where agent_id = $1 and length = $2 and bucket >= $3 and bucket < $4 limit 1";
const DUE_OF: &str =
    "select 1 from rollups_due where agent_id = $1 and length = $2 and bucket >= $3 and bucket < $4 limit 1";

async fn any(tx: &mut Tx, sql: &'static str, args: Vec<Value>) -> Result<bool> {
    Ok(tx.fetch_optional::<(i64,)>(sql, args).await?.is_some())
}

/// Whole agents' five-minute sums, which nothing is made of.
async fn sites(db: &Db, before: Millis) -> Result<Option<u64>> {
    let before = bucket_of(DAY, before);
    let old: Option<(AgentId, Millis)> = db
        .fetch_optional(
            "select agent_id, min(bucket) from site_rollups where bucket < $1
             group by agent_id order by agent_id limit 1",
            args![before],
        )
        .await?;
    let Some((agent, oldest)) = old else { return Ok(None) };
    let to = Millis(bucket_of(DAY, oldest).0 + DAY.0 as i64);
    let mut tx = db.begin_for([agent]).await?;
    let pieces =
        tx.execute("delete from site_rollups where agent_id = $1 and bucket < $2", args![agent, to]).await?;
    count(&mut tx, agent, "sites", pieces, 0, to).await?;
    tx.commit().await?;
    Ok(Some(pieces))
}

async fn count(
    tx: &mut Tx,
    agent: AgentId,
    kind: &str,
    pieces: u64,
    samples: u64,
    before: Millis,
) -> Result<()> {
    tx.execute(
        "insert into dropped (agent_id, kind, pieces, samples, before) values ($1, $2, $3, $4, $5)
         on conflict (agent_id, kind) do update set pieces = dropped.pieces + excluded.pieces,
             samples = dropped.samples + excluded.samples,
             before = case when excluded.before > dropped.before then excluded.before else dropped.before end",
        args![agent, kind, pieces, samples, before],
    )
    .await?;
    Ok(())
}
