//! Five-minute sums, kept up in the transaction that stores a batch: of each miner in one blob an agent
//! and bucket ([`super::sums`]), and of the whole agent in a row that charts add up.
//!
//! Hours and days are made of them later ([`super::condense`]); what is to be made is noted here.

use super::numbers::Numbers;
use super::sums::AgentSums;
use crate::args;
use crate::error::Result;
use crate::store::{Db, Tx};
use hashinsight_protocol::ids::{AgentId, MinerId};
use hashinsight_protocol::telemetry::{PollV1, SampleV1};
use hashinsight_protocol::units::{DurationMs, Hashrate, Millis, Watts};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Length of a bucket.
pub const BUCKET: DurationMs = DurationMs::from_minutes(5);
pub const HOUR: DurationMs = DurationMs::from_minutes(60);
pub const DAY: DurationMs = DurationMs::from_minutes(24 * 60);

/// The start of the five minutes that a time is in.
pub fn bucket(at: Millis) -> Millis {
    bucket_of(BUCKET, at)
}

/// The start of the length of time (UTC) that a time is in.
pub fn bucket_of(length: DurationMs, at: Millis) -> Millis {
    let length = length.0 as i64;
    Millis(at.0.div_euclid(length).saturating_mul(length))
}

/// The sums of a group of batches.
#[derive(Debug, Default)]
pub struct Rollups(BTreeMap<(AgentId, Millis), Bucket>);

#[derive(Clone, Debug, Default)]
struct Bucket {
    samples: u64,
    answered: u64,
    hashrate: Hashrate,
    power: Watts,
    miners: HashMap<MinerId, super::sums::Sums>,
}

impl Rollups {
    /// Adds a sample that was taken at `at`.
    pub fn fold(&mut self, agent: AgentId, at: Millis, sample: &SampleV1) {
        let sums = self.0.entry((agent, bucket(at))).or_default();
        sums.samples += 1;
        sums.answered += u64::from(sample.poll == PollV1::Answered);
        sums.hashrate += sample.hashrate.unwrap_or_default();
        sums.power += sample.power.unwrap_or_default();
        sums.miners.entry(sample.miner).or_default().add(sample);
    }

    /// # Errors
    /// The database fails.
    pub async fn save(self, tx: &mut Tx, numbers: &mut Numbers) -> Result<()> {
        let mut hours = BTreeSet::new();
        for ((agent, bucket), sums) in self.0 {
            tx.execute(
                "insert into site_rollups (agent_id, bucket, samples, answered, hashrate_sum, power_sum)
                 values ($1, $2, $3, $4, $5, $6)
                 on conflict (agent_id, bucket) do update set samples = site_rollups.samples + excluded.samples,
                     answered = site_rollups.answered + excluded.answered,
                     hashrate_sum = site_rollups.hashrate_sum + excluded.hashrate_sum,
                     power_sum = site_rollups.power_sum + excluded.power_sum",
                args![agent, bucket, sums.samples, sums.answered, sums.hashrate, sums.power],
            )
            .await?;
            let numbers = numbers.of(tx, agent, sums.miners.keys().copied()).await?;
            let numbered =
                sums.miners.into_iter().filter_map(|(miner, sums)| Some((*numbers.get(&miner)?, sums)));
            let mut all = AgentSums(numbered.collect());
            if let Some((_, stored)) = read(tx, agent, BUCKET, bucket).await? {
                all.merge(&stored);
            }
            write(tx, agent, BUCKET, bucket, &all).await?;
            hours.insert((agent, bucket_of(HOUR, bucket)));
        }
        for (agent, hour) in hours {
            note_due(tx, agent, HOUR, hour).await?;
        }
        Ok(())
    }
}

/// The sums of a length of time, and whether its parts are dropped.
///
/// # Errors
/// The database fails; so for all below.
pub async fn read(
    tx: &mut Tx,
    agent: AgentId,
    length: DurationMs,
    bucket: Millis,
) -> Result<Option<(bool, AgentSums)>> {
    let row: Option<(bool, Vec<u8>)> = tx
        .fetch_optional(
            "select sealed, body from rollups where agent_id = $1 and length = $2 and bucket = $3",
            args![agent, length, bucket],
        )
        .await?;
    row.map(|(sealed, body)| Ok((sealed, AgentSums::decode(&body)?))).transpose()
}

/// Writes the sums of a length of time; what is sealed stays so.
pub async fn write(
    tx: &mut Tx,
    agent: AgentId,
    length: DurationMs,
    bucket: Millis,
    sums: &AgentSums,
) -> Result<()> {
    tx.execute(
        "insert into rollups (agent_id, length, bucket, miners, body) values ($1, $2, $3, $4, $5)
         on conflict (agent_id, length, bucket) do update set miners = excluded.miners, body = excluded.body",
        args![agent, length, bucket, sums.0.len() as u64, &sums.encode()[..]],
    )
    .await?;
    Ok(())
}

/// Notes that a length of time is to be made of its parts again.
pub async fn note_due(tx: &mut Tx, agent: AgentId, length: DurationMs, bucket: Millis) -> Result<()> {
    tx.execute(
        "insert into rollups_due (agent_id, length, bucket) values ($1, $2, $3) on conflict do nothing",
        args![agent, length, bucket],
    )
    .await?;
    Ok(())
}

/// One miner's sums over a range, oldest first: [`BUCKET`], [`HOUR`] or [`DAY`] each.
pub async fn of_miner(
    db: &Db,
    agent: AgentId,
    miner: MinerId,
    length: DurationMs,
    from: Millis,
    to: Millis,
) -> Result<Vec<(Millis, super::sums::Sums)>> {
    let number: Option<(u32,)> = db
        .fetch_optional(
            "select number from miner_numbers where agent_id = $1 and miner_id = $2",
            args![agent, miner],
        )
        .await?;
    let Some((number,)) = number else { return Ok(Vec::new()) };
    let rows: Vec<(Millis, Vec<u8>)> = db
        .fetch_all(
            "select bucket, body from rollups where agent_id = $1 and length = $2 and bucket >= $3 and bucket < $4
             order by bucket",
            args![agent, length, from, to],
        )
        .await?;
    let mut out = Vec::new();
    for (bucket, body) in rows {
        out.extend(AgentSums::decode(&body)?.0.get(&number).map(|sums| (bucket, *sums)));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::ids::MinerId;

    #[test]
    fn sums_fall_into_their_five_minutes() {
        assert_eq!(bucket(Millis(299_999)), Millis(0));
        assert_eq!(bucket(Millis(300_000)), Millis(300_000));
        assert_eq!(bucket(Millis(-1)), Millis(-300_000));
        let agent = AgentId::from_random([1; 16]);
        let mut sample = SampleV1::empty(MinerId::from_random([2; 16]), DurationMs::ZERO, PollV1::Answered);
        sample.power = Watts::new(3000.0);
        let mut rollups = Rollups::default();
        for at in [0, 60_000, 299_999, 300_000] {
            rollups.fold(agent, Millis(at), &sample);
        }
        rollups.fold(agent, Millis(5), &SampleV1::empty(sample.miner, DurationMs::ZERO, PollV1::TimedOut));
        let first = &rollups.0[&(agent, Millis(0))];
        assert_eq!((first.samples, first.answered, first.power.get()), (4, 3, 9000.0));
        assert_eq!(rollups.0.len(), 2);
    }
}
