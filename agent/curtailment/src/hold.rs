//! What readings and elapsed time say of the devices that are held.
//!
//! A miner is curtailed when a reading that began after the last write shows the effect and no fact speaks
//! against it; it has drifted when one shows the opposite; it's unreachable when there is no young reading.
//! Averages and echoes are sorted out before: the facts come from the family's own rules.

use crate::book::{Change, DispatchKey, HoldRecord, Phase, TargetRecord};
use crate::draft::{Draft, power_text};
use crate::input::MinerReading;
use crate::ramp::back_off;
use crate::target::state_of;
use hashinsight_protocol::device::FactV1;
use hashinsight_protocol::evidence::{DispatchStateV1, TargetStateV1};
use hashinsight_protocol::units::DurationMs;
use std::sync::Arc;

impl Draft<'_> {
    pub fn take_readings(&mut self) {
        let loud: Vec<Arc<HoldRecord>> =
            self.book.holds.values().filter(|hold| !self.is_quiet(hold)).cloned().collect();
        for hold in loud {
            self.observe(Arc::unwrap_or_clone(hold));
        }
    }

    /// Asleep as it should be: nothing to decide. Most are, most of the time.
    fn is_quiet(&self, hold: &HoldRecord) -> bool {
        hold.phase == Phase::Curtailed
            && hold.intent.is_none()
            && hold.awaits.is_none()
            && self
                .miner(hold.miner)
                .and_then(|miner| self.reading(miner))
                .is_some_and(|(reading, _)| reading.stopped.1 != FactV1::No)
    }

    fn observe(&mut self, mut hold: HoldRecord) {
        if let Some(intent) = hold.intent {
            if self.at < intent.at.plus(self.policy.write_timeout) {
                return;
            }
            let what = if intent.wake { "wake-up" } else { "stop" };
            let why = format!(
                "no outcome of the {what} for {:.0} s; read again",
                self.policy.write_timeout.seconds()
            );
            self.lose_intent(&mut hold, &why);
            self.wait_for_late(&mut hold);
            return self.put_hold(hold);
        }
        let waking = matches!(hold.phase, Phase::Waking | Phase::RestoreFailed);
        if waking && self.is_claimed(hold.miner) {
            // Taken by another dispatch just before a crash.
            return self.rejoin(hold);
        }
        let miner = self.miner(hold.miner);
        let reading = miner.and_then(|miner| self.reading(miner)).filter(|(_, at)| *at > hold.last_write);
        let young = miner.is_some_and(|miner| self.reading(miner).is_some());
        match hold.phase {
            Phase::Waking | Phase::RestoreFailed => match reading {
                Some((reading, _)) if self.is_restored(&hold, reading) => {
                    return self.restored(hold, reading);
                }
                Some((reading, at))
                    if hold.awaits.is_some() && !hold.woken && at > hold.since && is_stopped(reading) =>
                {
                    // It was found awake, and an earlier stop has landed since.
                    hold.awaits = None;
                    hold.retry_at = self.at;
                    hold.why = "sleeps again by an earlier stop; read again".to_owned();
                    return self.put_hold(hold);
                }
                _ => {}
            },
            Phase::Curtailed => match reading {
                Some((reading, _)) if reading.stopped.1 == FactV1::No => {
                    self.drifted(&mut hold, reading);
                    return self.put_hold(hold);
                }
                None if !young => {
                    self.turn(
                        &mut hold,
                        Phase::Unreachable,
                        "no reading any more; counts as consuming".to_owned(),
                    );
                    hold.retry_at = self.at.plus(self.policy.stop_retry);
                    return self.put_hold(hold);
                }
                _ => {}
            },
            Phase::Stopping | Phase::Drifted | Phase::Refused | Phase::Unreachable => match reading {
                Some((reading, _)) if is_stopped(reading) => {
                    hold.evidence.mode = reading.stopped.0;
                    hold.evidence.effect = FactV1::Yes;
                    hold.awaits = None;
                    hold.tries = 0;
                    hold.unsure_until = self.at;
                    let why = format!(
                        "draws {} after {}",
                        power_text(reading.power),
                        power_text(hold.power_before)
                    );
                    self.turn(&mut hold, Phase::Curtailed, why);
                    return self.put_hold(hold);
                }
                _ => {}
            },
        }
        if let (Phase::Waking, None, Err(why)) = (hold.phase, hold.awaits, self.may_write(hold.miner)) {
            self.turn(&mut hold, Phase::RestoreFailed, why.to_owned());
            return self.put_hold(hold);
        }
        if hold.awaits.is_some_and(|until| until <= self.at) {
            let effect = reading.map(|(reading, _)| reading.stopped.1).filter(|_| young);
            self.overdue(&mut hold, effect);
            self.put_hold(hold);
        }
    }

    /// The effect did not show in time.
    fn overdue(&mut self, hold: &mut HoldRecord, effect: Option<FactV1>) {
        hold.awaits = None;
        hold.tries = hold.tries.saturating_add(1);
        if matches!(hold.phase, Phase::Waking | Phase::RestoreFailed) {
            hold.evidence.effect = FactV1::No;
            return self.fail_wake(hold, "does not run in its old state in time".to_owned());
        }
        let tries = hold.tries;
        hold.retry_at = self.at.plus(back_off(self.policy.stop_retry, self.policy.stop_retry_max, tries));
        let Some(effect) = effect else {
            hold.evidence.effect = FactV1::Unknown;
            return self.turn(
                hold,
                Phase::Unreachable,
                "no reading since the stop; counts as consuming".to_owned(),
            );
        };
        hold.evidence.effect = effect;
        let waited = self.policy.confirm_within.seconds();
        let phase = if tries >= self.policy.stop_tries { Phase::Refused } else { Phase::Stopping };
        self.turn(hold, phase, format!("no effect {waited:.0} s after try {tries}; tried again"));
    }

    fn drifted(&mut self, hold: &mut HoldRecord, reading: &MinerReading) {
        hold.evidence.effect = FactV1::No;
        hold.evidence.mode = reading.stopped.0;
        hold.awaits = None;
        hold.tries = 0;
        // The first time at once; a miner that keeps waking by itself less and less often.
        let pause = match hold.drifts {
            0 => DurationMs::ZERO,
            drifts => back_off(self.policy.stop_retry, self.policy.stop_retry_max, drifts),
        };
        hold.retry_at = self.at.plus(pause);
        hold.drifts = hold.drifts.saturating_add(1);
        let why = format!("draws {} again though we stopped it", power_text(reading.power));
        self.turn(hold, Phase::Drifted, why);
    }

    /// A write's outcome will not come: the device is read before anything else.
    pub fn lose_intent(&mut self, hold: &mut HoldRecord, why: &str) {
        hold.intent = None;
        hold.awaits = None;
        hold.evidence.accepted = FactV1::Unknown;
        hold.last_write = self.at;
        hold.unsure_until = hold.unsure_until.max(self.at.plus(self.policy.late_write));
        hold.retry_at = self.at;
        hold.why = why.to_owned();
    }

    /// Enters a phase.
    pub fn turn(&self, hold: &mut HoldRecord, phase: Phase, why: String) {
        if hold.phase != phase {
            hold.since = self.at;
        }
        hold.phase = phase;
        hold.why = why;
    }

    /// Brings targets and dispatches into line with the devices, and reports what has changed.
    pub fn settle(&mut self) {
        for key in self.dispatches() {
            let news: Vec<Arc<TargetRecord>> = self
                .book
                .targets_of(key)
                .filter(|target| !target.done)
                .filter(|target| match self.book.holds.get(&target.miner) {
                    Some(hold) => target.state != state_of(hold.phase) || target.evidence != hold.evidence,
                    None => target.left,
                })
                .cloned()
                .collect();
            for target in news {
                self.settle_target(&target);
            }
            self.settle_dispatch(key);
        }
    }

    fn settle_target(&mut self, target: &TargetRecord) {
        let Some(hold) = self.book.holds.get(&target.miner).cloned() else {
            if target.left {
                // The hold went just before a crash.
                let mut target = target.clone();
                target.done = true;
                target.state = TargetStateV1::Restored;
                self.report_target(&target, None, "back in its pre-state");
                self.put_target(target);
            }
            return;
        };
        let state = state_of(hold.phase);
        let first = target.state == TargetStateV1::Planned || target.tries > 0;
        let mut target = target.clone();
        target.tries = 0;
        target.state = state;
        target.evidence = hold.evidence;
        self.report_target(&target, first.then(|| hold.pre.clone()), &hold.why);
        self.put_target(target);
    }

    fn settle_dispatch(&mut self, key: DispatchKey) {
        let Some(mut dispatch) = self.book.dispatches.get(&key).cloned() else { return };
        if dispatch.holds() || dispatch.is_done() {
            return;
        }
        let targets = || self.book.targets_of(key).filter(|target| !target.done);
        let lost = |target: &TargetRecord| {
            self.book.holds.get(&target.miner).is_some_and(|hold| {
                hold.phase == Phase::RestoreFailed
                    && (hold.tries >= self.policy.wake_tries || self.may_write(hold.miner).is_err())
            })
        };
        let open = targets().count();
        if open == 0 {
            let all: Vec<_> = self.book.targets_of(key).map(|target| target.miner).collect();
            let count = all.len();
            for miner in all {
                self.put(Change::TargetGone(key, miner));
            }
            let late = dispatch.state == DispatchStateV1::CompletedWithFailures;
            dispatch.state = DispatchStateV1::Completed;
            let why = if late { "the last miner is back after all" } else { "every miner is let go or back" };
            self.report(&mut dispatch, format!("{why} ({count} in all)"));
            self.put_dispatch(&dispatch);
        } else if dispatch.state == DispatchStateV1::Recovering && targets().all(|target| lost(target)) {
            dispatch.state = DispatchStateV1::CompletedWithFailures;
            let why = format!("{open} miners could not be woken yet; they are tried on");
            self.report(&mut dispatch, why);
            self.put_dispatch(&dispatch);
        }
    }
}

/// The effect is there and no fact speaks against it.
fn is_stopped(reading: &MinerReading) -> bool {
    reading.stopped.1 == FactV1::Yes && reading.stopped.0 != FactV1::No
}
