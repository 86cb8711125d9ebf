//! Ramps: so many miners a step, so long from step to step, a random part for each miner.

use crate::book::DispatchKey;
use crate::steady::Steady;
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::plan::RampV1;
use hashinsight_protocol::units::DurationMs;

/// How many miners may be taken now. A ramp without an interval has no limit.
pub(crate) fn allowance(ramp: &RampV1, last: Option<Steady>, now: Steady) -> usize {
    if ramp.every == DurationMs::ZERO {
        return usize::MAX;
    }
    match last {
        Some(last) if now.since(last) < ramp.every => 0,
        _ => usize::from(ramp.batch),
    }
}

/// When the next step may come.
pub(crate) fn next(ramp: &RampV1, last: Option<Steady>, now: Steady) -> Steady {
    last.map_or(now, |last| last.plus(ramp.every).max(now))
}

/// A miner's random part of a step. The same every time it is asked for; it's kept in the book all the
/// same, so that another seed moves nothing that is under way.
pub(crate) fn jitter(ramp: &RampV1, seed: u64, key: DispatchKey, miner: MinerId, wake: bool) -> DurationMs {
    if ramp.jitter == DurationMs::ZERO {
        return DurationMs::ZERO;
    }
    let mut hash = seed ^ u64::from(wake);
    let words = key.plan.as_bytes().chunks(8).chain(miner.as_bytes().chunks(8));
    for word in words {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        hash = mix(hash ^ u64::from_le_bytes(bytes));
    }
    DurationMs(mix(hash ^ u64::from(key.interval)) % ramp.jitter.0)
}

/// The finalizer of splitmix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// From the first step of so many miners to the end of the last.
pub(crate) fn duration(ramp: &RampV1, miners: usize) -> DurationMs {
    let steps = match ramp.every {
        DurationMs::ZERO => 0,
        _ => miners.saturating_sub(1) / usize::from(ramp.batch.max(1)),
    };
    DurationMs(ramp.every.0.saturating_mul(steps as u64).saturating_add(ramp.jitter.0))
}

/// The pause after so many failed tries: doubling from `first` to `most`.
pub(crate) fn back_off(first: DurationMs, most: DurationMs, tries: u16) -> DurationMs {
    let doublings = u32::from(tries.saturating_sub(1)).min(20);
    DurationMs(first.0.saturating_mul(1 << doublings).min(most.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::ids::PlanId;

    const RAMP: RampV1 = RampV1 { batch: 10, every: DurationMs(1000), jitter: DurationMs(300) };

    #[test]
    fn a_step_comes_no_sooner_than_its_interval() {
        assert_eq!(allowance(&RAMP, None, Steady(5)), 10);
        assert_eq!(allowance(&RAMP, Some(Steady(5)), Steady(1004)), 0);
        assert_eq!(allowance(&RAMP, Some(Steady(5)), Steady(1005)), 10);
        assert_eq!(next(&RAMP, Some(Steady(5)), Steady(500)), Steady(1005));
        let free = RampV1 { every: DurationMs::ZERO, ..RAMP };
        assert_eq!(allowance(&free, Some(Steady(5)), Steady(5)), usize::MAX);
    }

    #[test]
    fn the_random_part_is_drawn_once_and_stays_inside() {
        let key = DispatchKey { plan: PlanId::from_bytes([1; 16]), interval: 3 };
        let draws: Vec<_> =
            (0..50).map(|n| jitter(&RAMP, 7, key, MinerId::from_bytes([n; 16]), false)).collect();
        assert!(draws.iter().all(|d| *d < RAMP.jitter));
        assert!(draws.iter().any(|d| d != &draws[0]));
        assert_eq!(draws[4], jitter(&RAMP, 7, key, MinerId::from_bytes([4; 16]), false));
    }

    #[test]
    fn durations_and_pauses() {
        assert_eq!(duration(&RAMP, 0), DurationMs(300));
        assert_eq!(duration(&RAMP, 10), DurationMs(300));
        assert_eq!(duration(&RAMP, 11), DurationMs(1300));
        let pause = |tries| back_off(DurationMs(10), DurationMs(75), tries).0;
        assert_eq!([pause(1), pause(2), pause(3), pause(4), pause(u16::MAX)], [10, 20, 40, 75, 75]);
    }
}
