//! Which batches of a stream are on the wire, and which go next. Pure; time is passed in.

use hashinsight_protocol::limits;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::time::Instant;

/// A batch that isn't acknowledged is sent again after this; then after twice as long.
const FIRST_RESEND: Duration = Duration::from_secs(10);
const LONGEST_RESEND: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
struct Flight {
    due: Instant,
    pause: Duration,
}

/// The window of one stream during one connection.
#[derive(Debug)]
pub(crate) struct Window {
    flights: BTreeMap<u64, Flight>,
    /// Numbers from here on are the present; they go first.
    present_from: u64,
    present_sent: u64,
    past_sent: u64,
}

impl Window {
    /// `present_from`: the number that the next batch will get; 1 for a stream without a present.
    pub fn new(present_from: u64) -> Self {
        let before = present_from.saturating_sub(1);
        Self { flights: BTreeMap::new(), present_from, present_sent: before, past_sent: 0 }
    }

    pub fn room(&self) -> usize {
        limits::WINDOW.saturating_sub(self.flights.len())
    }

    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// The numbers to look at for the next batch: the present, and where that has none, the past.
    pub fn next(&self) -> [RangeInclusive<u64>; 2] {
        let present = self.present_sent + 1..=u64::MAX;
        [present, self.past_sent + 1..=self.present_from.saturating_sub(1)]
    }

    /// A batch went out for the first time.
    pub fn sent(&mut self, seq: u64, now: Instant) {
        self.flights.insert(seq, Flight { due: now + FIRST_RESEND, pause: FIRST_RESEND });
        let mark = if seq >= self.present_from { &mut self.present_sent } else { &mut self.past_sent };
        *mark = seq.max(*mark);
    }

    /// Batches whose acknowledgement is overdue.
    pub fn due(&self, now: Instant) -> Vec<u64> {
        self.flights.iter().filter(|(_, flight)| flight.due <= now).map(|(seq, _)| *seq).collect()
    }

    /// A batch went out again.
    pub fn sent_again(&mut self, seq: u64, now: Instant) {
        if let Some(flight) = self.flights.get_mut(&seq) {
            flight.pause = (flight.pause * 2).min(LONGEST_RESEND);
            flight.due = now + flight.pause;
        }
    }

    /// A batch that isn't kept any more.
    pub fn gone(&mut self, seq: u64) {
        self.flights.remove(&seq);
    }

    /// Batches that need not be sent any more. Says whether any of them was on the wire.
    pub fn acked(&mut self, ranges: &[(u64, u64)]) -> bool {
        let before = self.flights.len();
        for (first, last) in ranges {
            self.flights.retain(|seq, _| !(*first..=*last).contains(seq));
        }
        before != self.flights.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// What a connection would send next of these kept batches.
    fn next(window: &Window, kept: &BTreeSet<u64>) -> Option<u64> {
        (window.room() > 0)
            .then(|| {
                window
                    .next()
                    .into_iter()
                    .find_map(|r| (r.start() <= r.end()).then(|| kept.range(r).next())?)
            })?
            .copied()
    }

    #[test]
    fn the_present_goes_first_and_the_past_in_order() {
        let now = Instant::now();
        let mut kept: BTreeSet<u64> = (1..=5).collect();
        let mut window = Window::new(6);
        let mut order = Vec::new();
        for step in 0..8 {
            if step == 2 {
                kept.extend([6, 7]);
            }
            if let Some(seq) = next(&window, &kept) {
                window.sent(seq, now);
                order.push(seq);
            }
        }
        assert_eq!(order, [1, 2, 6, 7, 3, 4, 5]);
    }

    #[test]
    fn what_is_overdue_goes_again_more_and_more_rarely() {
        let start = Instant::now();
        let mut window = Window::new(1);
        window.sent(1, start);
        let mut at = Vec::new();
        for second in 0..400 {
            let now = start + Duration::from_secs(second);
            if window.due(now) == [1] {
                window.sent_again(1, now);
                at.push(second);
            }
        }
        assert_eq!(at, [10, 30, 70, 150, 270, 390]);
        assert!(window.acked(&[(1, 1)]));
        assert!(!window.acked(&[(1, 1)]));
    }

    proptest! {
        #[test]
        fn everything_kept_is_sent_and_the_window_is_never_exceeded(
            backlog in 0u64..60,
            steps in proptest::collection::vec((0u8..3, any::<u8>()), 0..300),
        ) {
            let now = Instant::now();
            let mut kept: BTreeSet<u64> = (1..=backlog).collect();
            let mut newest = backlog;
            let mut window = Window::new(backlog + 1);
            let mut first_sent = BTreeSet::new();
            for (what, which) in steps {
                match what {
                    0 => { newest += 1; kept.insert(newest); }
                    1 => if let Some(seq) = next(&window, &kept) {
                        prop_assert!(first_sent.insert(seq), "{seq} was sent as new twice");
                        window.sent(seq, now);
                    },
                    _ => if let Some(seq) = window.flights.keys().nth(usize::from(which) % limits::WINDOW).copied() {
                        kept.remove(&seq);
                        window.acked(&[(seq, seq)]);
                    },
                }
                prop_assert!(window.in_flight() <= limits::WINDOW);
            }
            for _ in 0..1000 {
                while let Some(seq) = next(&window, &kept) {
                    window.sent(seq, now);
                    first_sent.insert(seq);
                }
                window.acked(&[(1, u64::MAX)]);
            }
            prop_assert_eq!(first_sent.len() as u64, newest);
        }
    }
}
