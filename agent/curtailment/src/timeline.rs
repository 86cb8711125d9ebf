//! When intervals start and end.
//!
//! An interval has one chance: it starts while the wall clock is within it, or expires. Its start is read
//! from the wall clock; its end is fixed on the steady clock when it starts, so no jump of the wall clock
//! shortens or lengthens it. A clock that becomes certain later corrects the end, never beyond the
//! interval's length, and after a reboot never to later.

use crate::book::{DispatchRecord, Fired};
use crate::input::Now;
use crate::steady::Steady;
use hashinsight_protocol::clock::ClockStateV1;
use hashinsight_protocol::plan::{IntervalV1, UncertainClockV1};
use hashinsight_protocol::units::Millis;

/// What an interval may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chance {
    Start,
    NotYet(Millis),
    /// The wall clock is uncertain, and the plan says to wait, or the end can't be told from the start.
    Waits,
    Expired,
}

pub(crate) fn chance(now: &Now, interval: &IntervalV1, uncertain: UncertainClockV1) -> Chance {
    let sure = now.clock.is_sure();
    if now.wall < interval.start {
        Chance::NotYet(interval.start)
    } else if interval.end.is_some_and(|end| now.wall >= end) {
        // Nothing expires by a clock that may be wrong.
        if sure { Chance::Expired } else { Chance::Waits }
    } else if sure || uncertain == UncertainClockV1::Start {
        Chance::Start
    } else {
        Chance::Waits
    }
}

/// The intervals that have their chance still to come.
pub(crate) fn open<'a>(
    intervals: &'a [IntervalV1],
    fired: Option<&'a Fired>,
) -> impl Iterator<Item = &'a IntervalV1> {
    intervals.iter().filter(move |interval| !fired.is_some_and(|fired| fired.contains(interval.number)))
}

/// The end on the steady clock of an interval that starts now.
pub(crate) fn end_at(now: &Now, at: Steady, end: Option<Millis>) -> Option<Steady> {
    end.map(|end| at.plus(end.since(now.wall)))
}

/// Moves the end by what is known of the clock now; true when anything has changed.
pub(crate) fn anchor(now: &Now, at: Steady, dispatch: &mut DispatchRecord) -> bool {
    let rebooted = dispatch.boot_id != now.boot_id;
    if rebooted {
        dispatch.boot_id = now.boot_id;
        dispatch.rebooted = true;
        dispatch.anchored = ClockStateV1::Uncertain;
    }
    if dispatch.anchored.is_sure() || !now.clock.is_sure() {
        return rebooted;
    }
    dispatch.anchored = now.clock;
    if let (Some(end), Some(ends)) = (dispatch.end, dispatch.ends) {
        let latest = if dispatch.rebooted { ends } else { dispatch.fired.plus(end.since(dispatch.start)) };
        dispatch.ends = Some(at.plus(end.since(now.wall)).min(latest));
    }
    true
}

/// Moves the end as a new revision of the plan says.
pub(crate) fn move_end(now: &Now, at: Steady, dispatch: &mut DispatchRecord, interval: &IntervalV1) {
    if dispatch.end == interval.end {
        return;
    }
    dispatch.ends = match (dispatch.end, dispatch.ends, interval.end) {
        (Some(old), Some(ends), Some(new)) if new >= old => Some(ends.plus(new.since(old))),
        (Some(old), Some(ends), Some(new)) => Some(Steady(ends.0.saturating_sub(old.since(new).0))),
        (_, _, new) => end_at(now, at, new),
    };
    dispatch.end = interval.end;
}
