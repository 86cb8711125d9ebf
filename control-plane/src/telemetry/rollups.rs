//! Five-minute sums of each agent, kept up in the transaction that stores a batch.

use crate::args;
use crate::error::Result;
use crate::store::Tx;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::telemetry::{PollV1, SampleV1};
use hashinsight_protocol::units::{DurationMs, Hashrate, Millis, Watts};
use std::collections::BTreeMap;

/// Length of a bucket.
pub const BUCKET: DurationMs = DurationMs::from_minutes(5);

/// The start of the bucket that a time is in.
pub fn bucket(at: Millis) -> Millis {
    let length = BUCKET.0 as i64;
    Millis(at.0.div_euclid(length).saturating_mul(length))
}

/// The sums of a group of batches.
#[derive(Debug, Default)]
pub struct Rollups(BTreeMap<(AgentId, Millis), Sums>);

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    samples: u64,
    answered: u64,
    hashrate: Hashrate,
    power: Watts,
}

impl Rollups {
    /// Adds a sample that was taken at `at`.
    pub fn fold(&mut self, agent: AgentId, at: Millis, sample: &SampleV1) {
        let sums = self.0.entry((agent, bucket(at))).or_default();
        sums.samples += 1;
        sums.answered += u64::from(sample.poll == PollV1::Answered);
        sums.hashrate += sample.hashrate.unwrap_or_default();
        sums.power += sample.power.unwrap_or_default();
    }

    /// # Errors
    /// The database fails.
    pub async fn save(self, tx: &mut Tx) -> Result<()> {
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
        }
        Ok(())
    }
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
        let first = rollups.0[&(agent, Millis(0))];
        assert_eq!((first.samples, first.answered, first.power.get()), (4, 3, 9000.0));
        assert_eq!(rollups.0.len(), 2);
    }
}
