//! The present: one row a miner, written only when newer.
//!
//! A group of batches is folded to one row a miner first, so that a backlog costs one write a miner and
//! commit. A row says how the last poll ended, and what the miner said when it last answered: a miner
//! that fell silent keeps its last values, with their age.

use crate::error::Result;
use crate::store::{Bulk, Tx, Value};
use hashinsight_protocol::ids::{AgentId, MinerId};
use hashinsight_protocol::telemetry::{PollV1, SampleV1};
use hashinsight_protocol::units::Millis;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

static UPSERT: LazyLock<Bulk> = LazyLock::new(upsert);

/// What was said with the last answer, as against how the last poll ended.
const ANSWER: [&str; 13] = [
    "answered_at",
    "hashrate_hs",
    "power_w",
    "power_source",
    "hottest_c",
    "fan_max",
    "fan_min",
    "accepted",
    "rejected",
    "uptime_ms",
    "is_mining",
    "mode",
    "warnings",
];

/// The newest of each miner in a group of batches.
#[derive(Debug, Default)]
pub struct Latest(HashMap<(AgentId, MinerId), Newest>);

#[derive(Debug)]
struct Newest {
    at: Millis,
    received_at: Millis,
    poll: PollV1,
    answer: Option<(Millis, SampleV1)>,
}

impl Latest {
    /// Adds a sample that was taken at `at`.
    pub fn fold(&mut self, agent: AgentId, at: Millis, received_at: Millis, sample: &SampleV1) {
        let answer = (sample.poll == PollV1::Answered).then_some((at, *sample));
        let newest = Newest { at, received_at, poll: sample.poll, answer };
        match self.0.entry((agent, sample.miner)) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(newest);
            }
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                let before = entry.get_mut();
                if at > before.at {
                    (before.at, before.received_at, before.poll) = (at, received_at, sample.poll);
                }
                if answer.is_some() && before.answer.is_none_or(|(before, _)| at > before) {
                    before.answer = answer;
                }
            }
        }
    }

    /// Writes what is newer than what is stored.
    ///
    /// # Errors
    /// The database fails.
    pub async fn save(self, tx: &mut Tx) -> Result<()> {
        let mut rows: Vec<_> = self.0.into_iter().collect();
        // In the order of the key, so that neighbours are written together.
        rows.sort_unstable_by_key(|(key, _)| *key);
        let rows = rows.iter().map(|((agent, miner), newest)| newest.args(*agent, *miner)).collect();
        UPSERT.run(tx, rows).await
    }
}

impl Newest {
    fn args(&self, agent: AgentId, miner: MinerId) -> Vec<Value> {
        let (answered_at, sample) = match &self.answer {
            Some((at, sample)) => (Some(*at), *sample),
            None => (None, SampleV1::empty(miner, Default::default(), self.poll)),
        };
        vec![
            agent.into(),
            miner.into(),
            self.at.into(),
            self.received_at.into(),
            name(self.poll).into(),
            answered_at.into(),
            sample.hashrate.into(),
            sample.power.into(),
            sample.power_source.map(name).into(),
            sample.hottest.into(),
            sample.fan_max.into(),
            sample.fan_min.into(),
            sample.accepted.into(),
            sample.rejected.into(),
            sample.uptime.into(),
            sample.is_mining.into(),
            sample.mode.map(name).into(),
            sample.warnings.into(),
        ]
    }
}

/// The name of a value of a fieldless enum, as JSON has it.
pub fn name<T: serde::Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

fn upsert() -> Bulk {
    let mut sql = "on conflict (agent_id, miner_id) do update set ".to_owned();
    for column in ["received_at", "poll"] {
        // Writing to a string never fails.
        let _ = write!(
            sql,
            "{column} = case when excluded.at > latest.at then excluded.{column} else latest.{column} end, "
        );
    }
    let answer_is_newer = "excluded.answered_at is not null and (latest.answered_at is null or excluded.answered_at > latest.answered_at)";
    for column in ANSWER {
        let _ = write!(
            sql,
            "{column} = case when {answer_is_newer} then excluded.{column} else latest.{column} end, "
        );
    }
    let _ = write!(
        sql,
        "at = case when excluded.at > latest.at then excluded.at else latest.at end \
         where excluded.at > latest.at or ({answer_is_newer})"
    );
    let columns: Vec<_> =
        ["agent_id", "miner_id", "at", "received_at", "poll"].into_iter().chain(ANSWER).collect();
    Bulk::new("latest", &columns, &sql)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;
    use crate::store::testing;
    use hashinsight_protocol::units::{DurationMs, Hashrate};
    use proptest::prelude::*;

    type Seen = (Millis, String, Option<Millis>, Option<Hashrate>);

    /// Time and outcome of the last poll, and the last answer.
    type Twin = (i64, bool, Option<(i64, u32)>);

    fn sample(miner: u8, answered: Option<u32>) -> SampleV1 {
        let poll = if answered.is_some() { PollV1::Answered } else { PollV1::TimedOut };
        let mut sample = SampleV1::empty(MinerId::from_random([miner; 16]), DurationMs::ZERO, poll);
        sample.hashrate = answered.and_then(|h| Hashrate::new(h.into()));
        sample
    }

    async fn check(groups: &[Vec<(u8, i64, Option<u32>)>]) {
        let folder = tempfile::tempdir().unwrap();
        let db = testing::stores(folder.path()).await.telemetry;
        let agent = AgentId::from_random([1; 16]);
        let mut expect: HashMap<u8, Twin> = HashMap::new();
        for group in groups {
            let mut latest = Latest::default();
            for (miner, at, answered) in group {
                latest.fold(agent, Millis(*at), Millis(9), &sample(*miner, *answered));
                let row = expect.entry(*miner).or_insert((i64::MIN, false, None));
                if *at > row.0 {
                    (row.0, row.1) = (*at, answered.is_some());
                }
                if let Some(value) = answered
                    && row.2.is_none_or(|(before, _)| *at > before)
                {
                    row.2 = Some((*at, *value));
                }
            }
            let mut tx = db.begin().await.unwrap();
            latest.save(&mut tx).await.unwrap();
            tx.commit().await.unwrap();
        }
        for (miner, (at, answered, last)) in expect {
            let id = MinerId::from_random([miner; 16]);
            let row: Seen = db
                .fetch_one(
                    "select at, poll, answered_at, hashrate_hs from latest where miner_id = $1",
                    args![id],
                )
                .await
                .unwrap();
            let poll = if answered { "answered" } else { "timed_out" };
            let value = last.and_then(|(_, value)| Hashrate::new(value.into()));
            assert_eq!(row, (Millis(at), poll.to_owned(), last.map(|(at, _)| Millis(at)), value));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Whatever the order and the grouping, the newest stands.
        #[test]
        fn the_newest_stands(
            groups in proptest::collection::vec(
                proptest::collection::vec((0u8..5, 0i64..50, proptest::option::of(any::<u32>())), 0..20), 1..5)
        ) {
            // One time is one sample.
            let mut seen = std::collections::HashSet::new();
            let groups: Vec<Vec<_>> = groups
                .into_iter()
                .map(|g| g.into_iter().filter(|(miner, at, _)| seen.insert((*miner, *at))).collect())
                .collect();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check(&groups));
        }
    }

    #[tokio::test]
    async fn many_rows_take_few_statements() {
        let group: Vec<_> = (0..=200u8).map(|miner| (miner, 5, Some(7))).collect();
        check(&[group.clone(), group]).await;
    }
}
