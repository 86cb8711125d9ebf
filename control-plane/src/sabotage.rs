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

/// From an acknowledgement that comes too early to its commit.
pub const LATE: std::time::Duration = std::time::Duration::from_secs(4);
