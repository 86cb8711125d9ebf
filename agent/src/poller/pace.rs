//! When each miner of a burst is asked, and how long a sick one is left alone. Pure.

use hashinsight_protocol::units::DurationMs;
use std::time::Duration;

/// The share of a cycle that a burst may be spread over.
const BURST_SHARE: u32 = 6;
/// Few miners are not spread thinner than this: their batch closes sooner.
const LONGEST_GAP: Duration = Duration::from_millis(20);
/// Failures in a row before a miner is left alone for a while.
const FAILURES_FORGIVEN: u32 = 2;
const FIRST_PAUSE: DurationMs = DurationMs::from_secs(60);
const LONGEST_PAUSE: DurationMs = DurationMs::from_minutes(5);

/// The times of one burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tempo {
    /// From its start to the start of the next.
    pub cycle: Duration,
    /// What it is spread over.
    pub window: Duration,
    /// How long one device may take.
    pub deadline: Duration,
}

impl Tempo {
    /// The times of a burst in a cycle; `deadline` is what is wished for one device.
    pub fn of(cycle: Duration, deadline: Duration) -> Self {
        Self { cycle, window: cycle / BURST_SHARE, deadline: self::deadline(deadline, cycle) }
    }
}

/// The even pace of one burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    gap: Duration,
}

impl Pace {
    pub fn of(miners: usize, window: Duration) -> Self {
        let miners = u32::try_from(miners).unwrap_or(u32::MAX).max(1);
        Self { gap: (window / miners).min(LONGEST_GAP) }
    }

    /// When the nth miner is asked, from the burst's start.
    pub fn start(self, nth: usize) -> Duration {
        self.gap.saturating_mul(u32::try_from(nth).unwrap_or(u32::MAX))
    }
}

/// How long one device may take, so that a burst with hanging devices in it ends within its cycle.
fn deadline(wished: Duration, cycle: Duration) -> Duration {
    wished.min(cycle / 2)
}

/// What is left of a deadline in whole milliseconds, rounded up: errors print it.
pub fn whole_ms(left: Duration) -> Duration {
    let ms = u64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
    Duration::from_millis(ms.max(1))
}

/// How many of the connections the miners that failed last time may hold.
pub fn sick_lane(concurrency: usize) -> usize {
    (concurrency / 4).max(1)
}

/// How long a miner that failed this many times in a row is not asked. One that refuses connections
/// answers at once, so asking it costs nothing and it is asked in every cycle.
pub fn pause(failures: u32, refuses: bool) -> DurationMs {
    if refuses || failures <= FAILURES_FORGIVEN {
        return DurationMs::ZERO;
    }
    let doublings = (failures - FAILURES_FORGIVEN - 1).min(16);
    DurationMs((FIRST_PAUSE.0 << doublings).min(LONGEST_PAUSE.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn few_miners_are_asked_quickly() {
        let pace = Pace::of(10, Duration::from_secs(10));
        assert_eq!(pace.start(9), Duration::from_millis(180));
    }

    #[test]
    fn a_sick_miner_is_asked_less_and_less() {
        let pauses: Vec<u64> = (0..8).map(|n| pause(n, false).0 / 1000).collect();
        assert_eq!(pauses, [0, 0, 0, 60, 120, 240, 300, 300]);
        assert_eq!(pause(u32::MAX, false), LONGEST_PAUSE);
        assert_eq!(pause(u32::MAX, true), DurationMs::ZERO);
    }

    #[test]
    fn what_is_left_reads_well() {
        assert_eq!(whole_ms(Duration::from_nanos(1_999_999_800)), Duration::from_secs(2));
        assert_eq!(whole_ms(Duration::ZERO), Duration::from_millis(1));
    }

    proptest! {
        #[test]
        fn a_burst_is_a_sixth_of_its_cycle_at_most(miners in 0usize..200_000, cycle_s in 1u64..3600) {
            let cycle = Duration::from_secs(cycle_s);
            let pace = Pace::of(miners, Tempo::of(cycle, cycle).window);
            prop_assert!(pace.start(miners.saturating_sub(1)) <= cycle / BURST_SHARE);
            prop_assert!(pace.start(1) <= LONGEST_GAP);
        }

        #[test]
        fn a_pause_never_shrinks(failures in 0u32..1000) {
            prop_assert!(pause(failures, false) <= pause(failures + 1, false));
        }

        #[test]
        fn a_burst_with_hanging_devices_ends_within_its_cycle(wished_ms in 1u64..600_000, cycle_s in 1u64..3600) {
            let (wished, cycle) = (Duration::from_millis(wished_ms), Duration::from_secs(cycle_s));
            let tempo = Tempo::of(cycle, wished);
            prop_assert!(tempo.deadline + tempo.window <= cycle);
            prop_assert!(tempo.deadline <= wished);
        }
    }
}
