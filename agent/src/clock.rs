//! The one place that reads clocks.
//!
//! A moment is wall time, boot time (CLOCK_BOOTTIME, suspend included) and how far the wall time can
//! be trusted. The wall time is the system's while the kernel says that it is kept in step; else,
//! once the control plane has told its time in this boot, that time carried on by the boot clock;
//! else the system's, uncertain. So a gateway without a clock battery and without time
//! synchronisation has the right time as soon as it has had contact.
//!
//! For TLS the time is never earlier than the last one known to be good, nor than the build: a clock
//! that starts in 1970 must not keep an agent from the contact that would set it right.
//!
//! With the feature `fault-injection` (no release has it) the file that `HASHINSIGHT_CLOCK_FILE` names
//! holds `wall boot synced`: milliseconds added to each clock, and 0 or 1.

use hashinsight_protocol::clock::{ClockStateV1, MomentV1};
use hashinsight_protocol::ids::BootId;
use hashinsight_protocol::units::{BootMillis, DurationMs, Millis};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use thiserror::Error;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A measurement with a longer round trip says too little.
const LONGEST_ROUND_TRIP: DurationMs = DurationMs::from_secs(5);
/// Quartz strays up to 50 ppm: 30 s in this time.
const ANCHOR_HOLDS: DurationMs = DurationMs::from_minutes(7 * 24 * 60);
const BUILT: &str = env!("HASHINSIGHT_BUILD_TIME");

#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    boot_id: BootId,
    anchor: Mutex<Option<Anchor>>,
    /// Latest wall time known to be good, in milliseconds.
    last_good: AtomicI64,
}

/// The control plane's time at a boot time.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    wall: Millis,
    boot: BootMillis,
}

#[derive(Debug, Error)]
pub enum ClockError {
    #[error("cannot read the machine's boot id from {BOOT_ID}: {0}")]
    BootId(String),
}

/// What the operating system says.
struct System {
    wall: Millis,
    boot: BootMillis,
    synced: bool,
}

impl Clock {
    /// The machine's clocks.
    ///
    /// # Errors
    /// The kernel doesn't name this boot.
    pub fn system() -> Result<Self, ClockError> {
        let text = std::fs::read_to_string(BOOT_ID).map_err(|e| ClockError::BootId(e.to_string()))?;
        let boot_id = text.trim().parse().map_err(|_| ClockError::BootId("not a UUID".to_owned()))?;
        let built = BUILT.parse::<i64>().unwrap_or(0).saturating_mul(1000);
        let last_good = AtomicI64::new(built);
        Ok(Self(Arc::new(Inner { boot_id, anchor: Mutex::new(None), last_good })))
    }

    /// This moment.
    pub fn now(&self) -> MomentV1 {
        let system = read();
        let anchor = *self.0.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, state) = judge(&system, anchor);
        if state.is_sure() {
            self.0.last_good.fetch_max(wall.0, Ordering::Relaxed);
        }
        MomentV1 { wall, boot: system.boot, boot_id: self.0.boot_id, state }
    }

    /// Takes the control plane's word for the time: a question sent at `sent` arrived there at
    /// `received`, and the answer is here now. Returns how far the system's clock is ahead, in
    /// milliseconds; `None` when the answer took too long to say.
    pub fn measured(&self, sent: BootMillis, received: Millis) -> Option<i64> {
        let system = read();
        let round_trip = system.boot.since(sent);
        if round_trip > LONGEST_ROUND_TRIP {
            return None;
        }
        let wall = received.plus(DurationMs(round_trip.0 / 2));
        let anchor = Anchor { wall, boot: system.boot };
        *self.0.anchor.lock().unwrap_or_else(PoisonError::into_inner) = Some(anchor);
        Some(system.wall.0.saturating_sub(wall.0))
    }

    /// A wall time that was good once, remembered from an earlier run.
    pub fn remember_good(&self, wall: Millis) {
        self.0.last_good.fetch_max(wall.0, Ordering::Relaxed);
    }

    /// The time to check certificates by.
    pub fn for_tls(&self) -> Millis {
        let now = self.now().wall;
        now.max(Millis(self.0.last_good.load(Ordering::Relaxed)))
    }
}

fn judge(system: &System, anchor: Option<Anchor>) -> (Millis, ClockStateV1) {
    if system.synced {
        return (system.wall, ClockStateV1::Synced);
    }
    match anchor {
        Some(anchor) if system.boot.since(anchor.boot) <= ANCHOR_HOLDS => {
            (anchor.wall.plus(system.boot.since(anchor.boot)), ClockStateV1::Measured)
        }
        _ => (system.wall, ClockStateV1::Uncertain),
    }
}

fn read() -> System {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let boot = u64::try_from(boot.tv_sec).unwrap_or(0) * 1000 + boot.tv_nsec.unsigned_abs() / 1_000_000;
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    let wall = SystemTime::now();
    let wall = match wall.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    };
    let system = System { wall: Millis(wall), boot: BootMillis(boot), synced: is_synced(boot) };
    #[cfg(feature = "fault-injection")]
    let system = faults::apply(system);
    system
}

/// How long the kernel's word on its clock holds: a moment is taken several times a contact, and the question
/// costs the kernel more than a moment does.
const SYNC_HOLDS_MS: u64 = 1000;

/// As [`kernel_synced`], asked once a second at most.
fn is_synced(boot: u64) -> bool {
    /// When it was asked, in milliseconds plus one, and the answer in the lowest bit.
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let known = ASKED.load(Ordering::Relaxed);
    if known != 0 && boot.saturating_sub((known >> 1) - 1) < SYNC_HOLDS_MS {
        return known & 1 == 1;
    }
    let synced = kernel_synced();
    ASKED.store((boot + 1) << 1 | u64::from(synced), Ordering::Relaxed);
    synced
}

/// Whether the kernel's clock is disciplined: whoever keeps it (timesyncd, chrony, ntpd) tells the
/// kernel. A sandbox that forbids the question leaves it open.
fn kernel_synced() -> bool {
    // SAFETY: `timex` is plain integers, for which all zeros are valid; `modes` of 0 asks and sets
    // nothing, and the call writes within the struct that it's given.
    #[expect(unsafe_code, reason = "no safe wrapper of adjtimex is among our dependencies")]
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    // 5 is TIME_ERROR: not synchronised. -1: not allowed to ask.
    (0..5).contains(&state)
}

#[cfg(feature = "fault-injection")]
mod faults {
    use super::{BootMillis, Millis, System};

    /// Moves the clocks as the file says; leaves them as they are without one.
    pub fn apply(system: System) -> System {
        let Some(text) =
            std::env::var_os("HASHINSIGHT_CLOCK_FILE").and_then(|path| std::fs::read_to_string(path).ok())
        else {
            return system;
        };
        let mut parts = text.split_ascii_whitespace().map(|part| part.parse::<i64>().unwrap_or(0));
        let mut next = || parts.next();
        let (wall, boot, synced) = (next().unwrap_or(0), next().unwrap_or(0), next());
        System {
            wall: Millis(system.wall.0.saturating_add(wall)),
            boot: BootMillis(system.boot.0.saturating_add_signed(boot)),
            synced: synced.map_or(system.synced, |s| s != 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(wall: i64, boot: u64, synced: bool) -> System {
        System { wall: Millis(wall), boot: BootMillis(boot), synced }
    }

    #[test]
    fn the_wall_time_is_the_best_that_is_known() {
        let anchor = Some(Anchor { wall: Millis(1_000_000), boot: BootMillis(500) });
        for (system, anchor, expect) in [
            (system(7, 600, true), anchor, (7, ClockStateV1::Synced)),
            (system(7, 600, false), anchor, (1_000_100, ClockStateV1::Measured)),
            (system(7, 600, false), None, (7, ClockStateV1::Uncertain)),
            (system(7, 501 + ANCHOR_HOLDS.0, false), anchor, (7, ClockStateV1::Uncertain)),
        ] {
            let (wall, state) = judge(&system, anchor);
            assert_eq!((wall.0, state), expect);
        }
    }

    #[test]
    fn a_slow_answer_says_nothing() {
        let clock = Clock::system().expect("a boot id");
        let now = clock.now();
        let received = Millis(now.wall.0 - 3_600_000);
        assert_eq!(clock.measured(BootMillis(now.boot.0.saturating_sub(6000)), received), None);
        let ahead = clock.measured(now.boot, received).expect("quick");
        assert!((3_590_000..=3_610_000).contains(&ahead), "{ahead}");
    }

    #[test]
    fn tls_time_never_falls_behind_what_was_good() {
        let clock = Clock::system().expect("a boot id");
        let later = Millis(clock.now().wall.0 + 86_400_000);
        assert!(clock.for_tls() < later);
        clock.remember_good(later);
        assert_eq!(clock.for_tls(), later);
    }
}
