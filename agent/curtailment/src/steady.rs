//! A clock for durations that goes on across reboots.
//!
//! Within a boot it advances with the boot clock, whatever the wall clock does. After a reboot it goes on
//! from the last stored record; the time in between counts when both ends of it are known in UTC, else
//! only what the new boot has lasted: what was left of a hold at the last record is the most that is left
//! of it. The rest isn't made up for later, which would shorten the dwell times that have begun since.

use crate::book::ClockRecord;
use crate::input::Now;
use hashinsight_protocol::clock::ClockStateV1;
use hashinsight_protocol::units::{BootMillis, DurationMs};
use serde::{Deserialize, Serialize};

/// A point on the steady clock, in milliseconds; comparable for as long as the book lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steady(pub u64);

impl Steady {
    /// Where the clock of a new book begins; leaves room for readings from before.
    const FIRST: Self = Self(1_000_000_000);
    /// Later than anything.
    pub const NEVER: Self = Self(u64::MAX);

    pub fn plus(self, by: DurationMs) -> Self {
        Self(self.0.saturating_add(by.0))
    }

    /// The time from `earlier` to this one; zero when `earlier` is the later one.
    pub fn since(self, earlier: Self) -> DurationMs {
        DurationMs(self.0.saturating_sub(earlier.0))
    }
}

/// The clock as it stands at one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SteadyClock {
    pub now: Steady,
    boot: BootMillis,
}

impl SteadyClock {
    /// Reads the clock, and says what has to be stored at once, if anything.
    pub fn read(record: Option<&ClockRecord>, now: &Now) -> (Self, Option<ClockRecord>) {
        let synced = |clock: ClockStateV1| clock.is_sure();
        let steady = match record {
            None => Steady::FIRST,
            Some(r) if r.boot_id == now.boot_id => r.steady.plus(now.boot.since(r.boot)),
            // What this boot has lasted so far has passed for certain.
            Some(r) => {
                let sure = DurationMs(now.boot.0);
                let known = synced(r.clock) && synced(now.clock);
                r.steady.plus(if known { now.wall.since(r.wall).max(sure) } else { sure })
            }
        };
        let clock = Self { now: steady, boot: now.boot };
        let new_boot = record.is_none_or(|r| r.boot_id != now.boot_id);
        (clock, new_boot.then(|| clock.record(now)))
    }

    /// The record of this moment.
    pub fn record(&self, now: &Now) -> ClockRecord {
        ClockRecord {
            boot_id: now.boot_id,
            boot: now.boot,
            wall: now.wall,
            clock: now.clock,
            steady: self.now,
        }
    }

    /// A point of this boot; `None` for one in the future, which is none of this boot.
    pub fn at(&self, boot: BootMillis) -> Option<Steady> {
        (boot <= self.boot).then(|| Steady(self.now.0.saturating_sub(self.boot.since(boot).0)))
    }

    /// The boot clock at a point to come.
    pub fn boot_at(&self, at: Steady) -> BootMillis {
        self.boot.plus(at.since(self.now))
    }
}
