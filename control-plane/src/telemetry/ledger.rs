//! Once-only: which numbers of a stream are stored for good.
//!
//! A stream is one sequence of one file of one agent: (agent, epoch, stream), numbered from 1.
//!
//! - **Limits**: [`RUNS`] runs of numbers above the high-water mark, [`EPOCHS`] files an agent. What
//!   would go beyond waits at the sender: it is neither stored nor acknowledged.
//! - **Format**: `up_to`, below which nothing is missing, and the runs stored above it. Agents send the
//!   present first and the backlog after it, so the runs are few and long; no row a batch is kept.
//! - **Rules**: a number is taken in the transaction that stores its batch, once. Runs of numbers that
//!   an agent says will never come are taken as well, so that the mark moves on.
//! - **Recovery**: the rows are all there is; nothing is held in memory between transactions, so a
//!   crash or a second replica changes nothing.

use crate::args;
use crate::error::Result;
use crate::store::{Db, Tx};
use hashinsight_protocol::ids::{AgentId, Epoch};
use hashinsight_protocol::limits;
use hashinsight_protocol::topics::Stream;
use std::collections::BTreeMap;

/// Runs of numbers kept above the high-water mark.
pub const RUNS: usize = 4096;
/// Files of one agent that have a ledger; a gateway makes a new one when a file was lost.
pub const EPOCHS: u64 = 4096;
/// The largest number: databases count in i64.
pub const LAST_SEQ: u64 = i64::MAX as u64 - 1;

/// Which numbers are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// First and last of each run; disjoint, with a hole between any two. The first run starts at 1
    /// when 1 is stored.
    runs: BTreeMap<u64, u64>,
}

/// What the ledger says of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not seen before.
    New,
    /// Stored already.
    Held,
    /// Too far from what is stored, or no number at all: not now.
    NoRoom,
}

impl Ledger {
    /// A ledger as it was stored.
    pub fn new(up_to: u64, ahead: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut ledger = Self::default();
        if up_to > 0 {
            ledger.take_run(1, up_to);
        }
        for (first, last) in ahead {
            ledger.take_run(first, last);
        }
        ledger
    }

    /// All numbers up to this one are stored; 0 for none.
    pub fn up_to(&self) -> u64 {
        self.runs.get(&1).copied().unwrap_or(0)
    }

    /// The runs above [`Self::up_to`].
    pub fn ahead(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.range(2..).map(|(first, last)| (*first, *last))
    }

    /// The run that holds a number.
    pub fn run_of(&self, seq: u64) -> Option<(u64, u64)> {
        let (first, last) = self.runs.range(..=seq).next_back()?;
        (seq <= *last).then_some((*first, *last))
    }

    pub fn place(&self, seq: u64) -> Place {
        let touches = |seq: u64| self.run_of(seq).is_some();
        match seq {
            0 => Place::NoRoom,
            _ if touches(seq) => Place::Held,
            _ if seq > LAST_SEQ => Place::NoRoom,
            // A number beside a run makes no new one.
            _ if self.runs.len() <= RUNS || touches(seq - 1) || touches(seq + 1) || seq == 1 => Place::New,
            _ => Place::NoRoom,
        }
    }

    /// Takes a number that is [`Place::New`].
    pub fn take(&mut self, seq: u64) {
        self.take_run(seq, seq);
    }

    /// Takes all numbers from `first` to `last`. Numbers that can't be are left out.
    pub fn take_run(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first.max(1), last.min(LAST_SEQ));
        if last < first {
            return;
        }
        // Runs that overlap this one or stand right beside it become one with it.
        let beside = |ledger: &Self, first: u64, last: u64| {
            let (a, b) = ledger.runs.range(..=last + 1).next_back()?;
            (*b >= first - 1).then_some((*a, *b))
        };
        while let Some((a, b)) = beside(self, first, last) {
            self.runs.remove(&a);
            (first, last) = (first.min(a), last.max(b));
        }
        self.runs.insert(first, last);
    }

    /// Runs of numbers below `below` that are not stored.
    pub fn holes(&self, below: u64) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut next = 1;
        for (first, last) in &self.runs {
            if *first >= below {
                break;
            }
            if next < *first {
                holes.push((next, first - 1));
            }
            next = last + 1;
        }
        if next < below {
            holes.push((next, below - 1));
        }
        holes
    }

    /// What to acknowledge after these numbers were stored: the runs they are in, and all up to the
    /// mark, so that an acknowledgement that was lost is made good by the next. In pieces of at most
    /// [`limits::ACK_RANGES`].
    pub fn acknowledge(&self, stored: impl IntoIterator<Item = u64>) -> Vec<Vec<(u64, u64)>> {
        let mut runs: BTreeMap<u64, u64> = stored.into_iter().filter_map(|seq| self.run_of(seq)).collect();
        if self.up_to() > 0 {
            runs.insert(1, self.up_to());
        }
        let runs: Vec<_> = runs.into_iter().collect();
        runs.chunks(limits::ACK_RANGES).map(<[_]>::to_vec).collect()
    }
}

/// Names a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    pub agent: AgentId,
    pub epoch: Epoch,
    pub stream: Stream,
}

/// A ledger within a transaction.
#[derive(Debug)]
pub struct Open {
    stored: Ledger,
    pub now: Ledger,
}

impl Open {
    /// Reads a ledger; `None` when the agent has too many files to be given another.
    ///
    /// # Errors
    /// The database fails; so for all below.
    pub async fn load(tx: &mut Tx, key: StreamKey) -> Result<Option<Self>> {
        let up_to: Option<(u64,)> = tx
            .fetch_optional(
                "select up_to from ledger where agent_id = $1 and epoch = $2 and stream = $3",
                args![key.agent, key.epoch, key.stream.number()],
            )
            .await?;
        let Some((up_to,)) = up_to else {
            let (files,): (u64,) =
                tx.fetch_one("select count(*) from ledger where agent_id = $1", args![key.agent]).await?;
            // Four streams have a row each.
            return Ok(
                (files < EPOCHS * 4).then(|| Self { stored: Ledger::default(), now: Ledger::default() })
            );
        };
        let ahead: Vec<(u64, u64)> = tx
            .fetch_all(
                "select first, last from ledger_ahead where agent_id = $1 and epoch = $2 and stream = $3",
                args![key.agent, key.epoch, key.stream.number()],
            )
            .await?;
        let ledger = Ledger::new(up_to, ahead);
        Ok(Some(Self { stored: ledger.clone(), now: ledger }))
    }

    /// Writes what changed since it was read.
    pub async fn save(&self, tx: &mut Tx, key: StreamKey) -> Result<()> {
        if self.now == self.stored {
            return Ok(());
        }
        let stream = key.stream.number();
        tx.execute(
            "insert into ledger (agent_id, epoch, stream, up_to) values ($1, $2, $3, $4)
             on conflict (agent_id, epoch, stream) do update set up_to = excluded.up_to",
            args![key.agent, key.epoch, stream, self.now.up_to()],
        )
        .await?;
        let runs = |ledger: &Ledger| ledger.ahead().collect::<BTreeMap<_, _>>();
        let (before, after) = (runs(&self.stored), runs(&self.now));
        for first in before.keys().filter(|first| !after.contains_key(first)) {
            tx.execute(
                "delete from ledger_ahead where agent_id = $1 and epoch = $2 and stream = $3 and first = $4",
                args![key.agent, key.epoch, stream, *first],
            )
            .await?;
        }
        for (first, last) in after.iter().filter(|(first, last)| before.get(first) != Some(last)) {
            tx.execute(
                "insert into ledger_ahead (agent_id, epoch, stream, first, last) values ($1, $2, $3, $4, $5)
                 on conflict (agent_id, epoch, stream, first) do update set last = excluded.last",
                args![key.agent, key.epoch, stream, *first, *last],
            )
            .await?;
        }
        Ok(())
    }
}

/// The high-water mark of a stream, for a welcome.
pub async fn up_to(db: &Db, key: StreamKey) -> Result<u64> {
    let row: Option<(u64,)> = db
        .fetch_optional(
            "select up_to from ledger where agent_id = $1 and epoch = $2 and stream = $3",
            args![key.agent, key.epoch, key.stream.number()],
        )
        .await?;
    Ok(row.map_or(0, |(up_to,)| up_to))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::testing;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// What the ledger must be like: a plain set.
    fn check(ledger: &Ledger, set: &BTreeSet<u64>) {
        let up_to = (1..).take_while(|n| set.contains(n)).last().unwrap_or(0);
        assert_eq!(ledger.up_to(), up_to);
        for seq in 1..80 {
            assert_eq!(ledger.place(seq) == Place::Held, set.contains(&seq), "{seq} in {ledger:?}");
        }
        let ahead: BTreeSet<u64> = ledger.ahead().flat_map(|(a, b)| a..=b).collect();
        assert_eq!(ahead, set.range(up_to + 1..).copied().collect());
        let runs: Vec<_> = ledger.ahead().collect();
        assert!(runs.windows(2).all(|w| w[0].1 + 1 < w[1].0), "runs touch: {runs:?}");
        assert!(runs.iter().all(|(first, _)| *first > up_to + 1), "{runs:?} above {up_to}");
    }

    proptest! {
        /// Whatever the order, repeats and gaps, each number is new exactly once.
        #[test]
        fn each_number_is_taken_once(
            sends in proptest::collection::vec((1u64..70, 0u64..4), 0..200)
        ) {
            let (mut ledger, mut set, mut stored) = (Ledger::default(), BTreeSet::new(), 0);
            for (seq, run) in sends {
                if run == 3 {
                    ledger.take_run(seq, seq + run);
                    set.extend(seq..=seq + run);
                } else if ledger.place(seq) == Place::New {
                    prop_assert!(set.insert(seq));
                    ledger.take(seq);
                    stored += 1;
                }
                check(&ledger, &set);
            }
            prop_assert!(stored <= set.len());
            let holes: BTreeSet<u64> = ledger.holes(75).into_iter().flat_map(|(a, b)| a..=b).collect();
            prop_assert_eq!(holes, (1..75).filter(|n| !set.contains(n)).collect());
        }

        /// A backlog sent in any order, each batch several times, ends as one run from 1.
        #[test]
        fn a_backlog_in_any_order_ends_as_one_run(order in Just((1u64..60).collect::<Vec<_>>()).prop_shuffle()) {
            let mut ledger = Ledger::default();
            for seq in order.iter().chain(&order) {
                if ledger.place(*seq) == Place::New {
                    ledger.take(*seq);
                }
            }
            prop_assert_eq!(ledger.up_to(), 59);
            prop_assert_eq!(ledger.ahead().count(), 0);
        }

        #[test]
        fn acknowledgements_name_what_is_held_alone(
            held in proptest::collection::btree_set(1u64..70, 0..50),
            asked in proptest::collection::vec(1u64..70, 0..20),
        ) {
            let ledger = Ledger::new(0, held.iter().map(|n| (*n, *n)));
            let acked: BTreeSet<u64> =
                ledger.acknowledge(asked.clone()).into_iter().flatten().flat_map(|(a, b)| a..=b).collect();
            prop_assert!(acked.is_subset(&held));
            for seq in asked.iter().filter(|seq| held.contains(seq)) {
                prop_assert!(acked.contains(seq));
            }
            prop_assert!((1..=ledger.up_to()).all(|seq| acked.contains(&seq)));
        }
    }

    #[test]
    fn what_is_no_number_has_no_place() {
        let mut ledger = Ledger::default();
        for seq in [0, u64::MAX, LAST_SEQ + 1] {
            assert_eq!(ledger.place(seq), Place::NoRoom);
        }
        ledger.take_run(0, u64::MAX);
        assert_eq!(ledger.up_to(), LAST_SEQ);
        assert_eq!(ledger.place(u64::MAX), Place::NoRoom);
    }

    #[test]
    fn a_stream_in_too_many_pieces_waits_at_the_sender() {
        let mut ledger = Ledger::new(1, (1..=RUNS as u64).map(|n| (n * 10, n * 10)));
        assert_eq!(ledger.place(5), Place::NoRoom);
        // What closes a hole is taken all the same.
        assert_eq!(ledger.place(2), Place::New);
        assert_eq!(ledger.place(11), Place::New);
        ledger.take_run(2, 9);
        assert_eq!(ledger.place(15), Place::New);
    }

    #[tokio::test]
    async fn what_is_saved_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let db = testing::stores(folder.path()).await.telemetry;
        let key = StreamKey {
            agent: AgentId::from_random([1; 16]),
            epoch: Epoch::from_random([2; 16]),
            stream: Stream::Telemetry,
        };
        let mut expect = Ledger::default();
        for (first, last) in [(5, 5), (1, 1), (9, 12), (6, 6), (2, 4), (20, 20), (8, 8)] {
            let mut tx = db.begin().await.unwrap();
            let mut open = Open::load(&mut tx, key).await.unwrap().unwrap();
            assert_eq!(open.now, expect);
            open.now.take_run(first, last);
            open.save(&mut tx, key).await.unwrap();
            tx.commit().await.unwrap();
            expect.take_run(first, last);
        }
        assert_eq!(up_to(&db, key).await.unwrap(), 6);
        let (rows,): (u64,) = db.fetch_one("select count(*) from ledger_ahead", args![]).await.unwrap();
        assert_eq!(rows, 2);
    }
}
