//! What could not be written to the journal yet. Pure.
//!
//! While the journal fails, the engine goes on from memory: wake-ups must not wait for a disk. What
//! they change is kept here, one change a row, and the events in their order, until the journal takes
//! them. Both are bounded: rows by what the book can hold, events by [`MAX_EVENTS`], the oldest of
//! which are dropped and counted.

use hashinsight_curtailment::Change;
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::events::EventV1;
use std::collections::{HashMap, VecDeque};

/// Events that are kept; about 10 MB.
const MAX_EVENTS: usize = 20_000;

/// The changes and events that are owed to the journal.
#[derive(Debug, Default)]
pub struct Backlog {
    changes: Vec<Option<Change>>,
    rows: HashMap<String, usize>,
    events: VecDeque<(MomentV1, EventV1)>,
    dropped: u64,
}

impl Backlog {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.events.is_empty()
    }

    /// Adds what a step has changed. A row that is owed already is owed in its new form, in the place
    /// of the newest change.
    pub fn add(&mut self, changes: Vec<Change>, at: MomentV1, events: Vec<EventV1>) {
        for change in changes {
            let (row, _) = change.row();
            if let Some(old) = self.rows.insert(row, self.changes.len()) {
                self.changes[old] = None;
            }
            self.changes.push(Some(change));
        }
        // Each row leaves one gap a change; they go before they outnumber what is owed.
        if self.changes.len() > 2 * self.rows.len() + 64 {
            self.compact();
        }
        for event in events {
            if self.events.len() >= MAX_EVENTS {
                self.events.pop_front();
                self.dropped += 1;
            }
            self.events.push_back((at, event));
        }
    }

    fn compact(&mut self) {
        self.changes.retain(Option::is_some);
        self.rows = self
            .changes
            .iter()
            .enumerate()
            .filter_map(|(at, change)| change.as_ref().map(|change| (change.row().0, at)))
            .collect();
    }

    /// All changes owed, oldest first.
    pub fn changes(&self) -> Vec<Change> {
        self.changes.iter().flatten().cloned().collect()
    }

    /// The oldest events owed that share a moment.
    pub fn next_events(&self) -> Option<(MomentV1, Vec<EventV1>)> {
        let at = self.events.front()?.0;
        let same = self.events.iter().take_while(|(moment, _)| *moment == at);
        Some((at, same.map(|(_, event)| event.clone()).collect()))
    }

    /// The events that [`Self::next_events`] gave are told.
    pub fn told(&mut self, count: usize) {
        self.events.drain(..count.min(self.events.len()));
    }

    /// Everything is written; how many events were dropped meanwhile.
    pub fn paid(&mut self) -> u64 {
        self.changes.clear();
        self.rows.clear();
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_curtailment::{Book, WearRecord};
    use hashinsight_protocol::clock::ClockStateV1;
    use hashinsight_protocol::events::MinerGoneV1;
    use hashinsight_protocol::ids::{BootId, MinerId};
    use hashinsight_protocol::units::{BootMillis, Millis};
    use proptest::prelude::*;

    fn moment(at: u64) -> MomentV1 {
        MomentV1 {
            wall: Millis(0),
            boot: BootMillis(at),
            boot_id: BootId::from_bytes([1; 16]),
            state: ClockStateV1::Synced,
        }
    }

    fn event(n: u8) -> EventV1 {
        EventV1::MinerGone(MinerGoneV1 { miner: MinerId::from_bytes([n; 16]) })
    }

    #[test]
    fn events_are_told_in_their_order() {
        let mut backlog = Backlog::default();
        backlog.add(vec![], moment(1), vec![event(1), event(2)]);
        backlog.add(vec![], moment(2), vec![event(3)]);
        assert_eq!(backlog.next_events(), Some((moment(1), vec![event(1), event(2)])));
        backlog.told(2);
        assert_eq!(backlog.next_events(), Some((moment(2), vec![event(3)])));
        backlog.told(1);
        assert!(backlog.is_empty());
    }

    #[test]
    fn the_oldest_events_go_when_there_are_too_many() {
        let mut backlog = Backlog::default();
        backlog.add(vec![], moment(1), vec![event(1); MAX_EVENTS]);
        backlog.add(vec![], moment(2), vec![event(2); 3]);
        assert_eq!(backlog.events.len(), MAX_EVENTS);
        assert_eq!(backlog.paid(), 3);
    }

    proptest! {
        /// What is owed makes the same book as the changes themselves, and is no more than a row each.
        #[test]
        fn what_is_owed_is_what_was_changed(steps in proptest::collection::vec((0u8..6, any::<bool>(), 1usize..4), 0..200)) {
            let mut backlog = Backlog::default();
            let mut whole = Book::default();
            for (n, is_there, stops) in steps {
                let miner = MinerId::from_bytes([n; 16]);
                let change = if is_there {
                    Change::Wear(WearRecord { miner, stops: vec![Default::default(); stops], woken: None })
                } else {
                    Change::WearGone(miner)
                };
                whole.apply(&change);
                backlog.add(vec![change], moment(1), vec![]);
                prop_assert!(backlog.changes.len() <= 2 * 6 + 65);
            }
            let mut owed = Book::default();
            backlog.changes().iter().for_each(|change| owed.apply(change));
            prop_assert_eq!(owed, whole);
            prop_assert!(backlog.changes().len() <= 6);
        }
    }
}
