//! Faults that can be planted in this program, to prove that the checks of its books would find them.
//!
//! With the feature `fault-injection` (no release has it) `HASHINSIGHT_SABOTAGE` names one.

/// Whether this fault is planted.
#[cfg(feature = "fault-injection")]
pub fn planted(fault: &str) -> bool {
    use std::sync::OnceLock;
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    PLANTED.get_or_init(|| std::env::var("HASHINSIGHT_SABOTAGE").ok()).as_deref() == Some(fault)
}

#[cfg(not(feature = "fault-injection"))]
pub const fn planted(_: &str) -> bool {
    false
}

/// From one time that a planted fault shows to the next, in cycles.
const EVERY: u64 = 4;

/// Whether this fault is planted and shows in this cycle.
pub fn planted_now(fault: &str, cycle: u64) -> bool {
    planted(fault) && cycle.is_multiple_of(EVERY)
}

/// The samples of a burst; one less where `drop` is planted.
pub fn one_lost<T>(cycle: u64, mut samples: Vec<T>) -> Vec<T> {
    if planted_now("drop", cycle) {
        samples.pop();
    }
    samples
}
