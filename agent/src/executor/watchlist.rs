//! Which miners the executor visits now, and when it looks again. Pure.
//!
//! The engine lists everything it wants to read at each step; this keeps the pace: a miner that is
//! being visited or written to is left alone, one that was written to lately is read often, because
//! its effect is awaited, and later as often as the short poll cycle does.

use crate::poller::contact::Want;
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::units::{BootMillis, DurationMs};
use std::collections::{HashMap, HashSet};

/// From one read to the next while an effect is awaited.
const OFTEN: DurationMs = DurationMs::from_secs(2);
/// How long after a write that is.
const LATELY: DurationMs = DurationMs::from_secs(30);
/// And later.
const SELDOM: DurationMs = DurationMs::from_secs(10);
/// From one read of settings to the next.
const PREPARE_AGAIN: DurationMs = DurationMs(500);
/// A reading this young needs no other.
const FRESH: DurationMs = DurationMs(500);

/// What is remembered of the miners that are being worked on.
#[derive(Debug, Default)]
pub struct Watchlist {
    visiting: HashSet<MinerId>,
    writing: HashSet<MinerId>,
    visited: HashMap<MinerId, BootMillis>,
    prepared: HashMap<MinerId, BootMillis>,
    written: HashMap<MinerId, BootMillis>,
}

/// Who is visited now, and when to look again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub visits: Vec<(MinerId, Want)>,
    pub next: Option<BootMillis>,
}

impl Watchlist {
    /// Chooses among what the engine wants. `read` is when a miner's last reading began.
    pub fn choose(
        &self,
        now: BootMillis,
        prepare: &[MinerId],
        watch: &[MinerId],
        read: impl Fn(MinerId) -> Option<BootMillis>,
    ) -> Round {
        let mut round = Round::default();
        let mut taken = HashSet::new();
        let wanted =
            prepare.iter().map(|m| (*m, Want::Prepared)).chain(watch.iter().map(|m| (*m, Want::Reading)));
        for (miner, want) in wanted {
            if self.is_busy(miner) || !taken.insert(miner) {
                continue;
            }
            let due = match want {
                Want::Prepared => self.prepared.get(&miner).map(|at| at.plus(PREPARE_AGAIN)),
                Want::Reading => self.next_reading(now, miner, read(miner)),
            };
            match due.filter(|due| *due > now) {
                Some(due) => round.next = Some(round.next.map_or(due, |next| next.min(due))),
                None => round.visits.push((miner, want)),
            }
        }
        round
    }

    fn next_reading(&self, now: BootMillis, miner: MinerId, read: Option<BootMillis>) -> Option<BootMillis> {
        let written = self.written.get(&miner);
        let gap = if written.is_some_and(|at| now.since(*at) < LATELY) { OFTEN } else { SELDOM };
        // A reading from before the last write says nothing of it.
        let read = read.filter(|read| written.is_none_or(|written| read > written));
        let fresh = read.map(|at| at.plus(if written.is_some() { gap } else { FRESH }));
        let visited = self.visited.get(&miner).map(|at| at.plus(gap));
        fresh.max(visited)
    }

    pub fn is_busy(&self, miner: MinerId) -> bool {
        self.visiting.contains(&miner) || self.writing.contains(&miner)
    }

    pub fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    pub fn visit_begins(&mut self, miner: MinerId, want: Want, now: BootMillis) {
        self.visiting.insert(miner);
        self.visited.insert(miner, now);
        if want == Want::Prepared {
            self.prepared.insert(miner, now);
        }
    }

    pub fn visit_ends(&mut self, miner: MinerId) {
        self.visiting.remove(&miner);
    }

    /// False when a write to it is under way already.
    pub fn write_begins(&mut self, miner: MinerId) -> bool {
        self.writing.insert(miner)
    }

    pub fn write_ends(&mut self, miner: MinerId, now: BootMillis) {
        self.writing.remove(&miner);
        self.written.insert(miner, now);
        self.visited.remove(&miner);
    }

    /// Forgets those of whom nothing is wanted any more.
    pub fn keep(&mut self, is_wanted: impl Fn(MinerId) -> bool) {
        self.visited.retain(|miner, _| is_wanted(*miner));
        self.prepared.retain(|miner, _| is_wanted(*miner));
        self.written.retain(|miner, _| is_wanted(*miner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MinerId = MinerId::from_bytes([1; 16]);

    fn at(ms: u64) -> BootMillis {
        BootMillis(ms)
    }

    fn choose(
        list: &Watchlist,
        now: u64,
        prepare: &[MinerId],
        watch: &[MinerId],
        read: Option<u64>,
    ) -> Round {
        list.choose(at(now), prepare, watch, |_| read.map(BootMillis))
    }

    #[test]
    fn a_miner_is_visited_once_at_a_time() {
        let mut list = Watchlist::default();
        let both = choose(&list, 0, &[A], &[A], None);
        assert_eq!(both, Round { visits: vec![(A, Want::Prepared)], next: None });
        list.visit_begins(A, Want::Prepared, at(0));
        assert_eq!(choose(&list, 10, &[A], &[A], None), Round::default());
        list.visit_ends(A);
        assert_eq!(choose(&list, 10, &[A], &[A], None), Round { visits: vec![], next: Some(at(500)) });
        assert_eq!(choose(&list, 500, &[A], &[], None).visits.len(), 1);
        assert!(list.write_begins(A));
        assert!(!list.write_begins(A));
        assert_eq!(choose(&list, 900, &[A], &[A], None), Round::default());
    }

    #[test]
    fn an_effect_is_looked_for_often_and_then_seldom() {
        let mut list = Watchlist::default();
        list.write_begins(A);
        list.write_ends(A, at(1000));
        // The reading is from before the write.
        assert_eq!(choose(&list, 1000, &[], &[A], Some(900)).visits.len(), 1);
        list.visit_begins(A, Want::Reading, at(1000));
        list.visit_ends(A);
        assert_eq!(choose(&list, 1100, &[], &[A], Some(1001)).next, Some(at(3001)));
        assert_eq!(choose(&list, 40_000, &[], &[A], Some(39_000)).next, Some(at(49_000)));
        // A reading of the poll cycle stands for a visit.
        assert_eq!(choose(&list, 40_000, &[], &[A], Some(29_000)).visits.len(), 1);
    }

    #[test]
    fn one_that_does_not_answer_is_not_asked_without_a_pause() {
        let mut list = Watchlist::default();
        list.visit_begins(A, Want::Reading, at(0));
        list.visit_ends(A);
        assert_eq!(choose(&list, 5000, &[], &[A], None).next, Some(at(10_000)));
        list.keep(|_| false);
        assert_eq!(choose(&list, 5000, &[], &[A], None).visits.len(), 1);
    }
}
