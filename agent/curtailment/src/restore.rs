//! The restore queue: who is woken when, and when it has worked.
//!
//! Waking runs the order of stopping backwards, at the dispatch's ramp up. A miner in the queue is woken
//! when no dispatch holds it and its shortest time asleep is over. It is read first; one that is back
//! already is not written to. It leaves the queue by evidence alone, however many tries that takes.

use crate::book::{Change, DispatchKey, HoldRecord, Intent, Phase, TargetRecord};
use crate::draft::{Draft, power_text};
use crate::input::MinerReading;
use crate::ramp::{self, back_off};
use crate::steady::Steady;
use crate::step::Write;
use hashinsight_protocol::device::{EvidenceV1, FactV1, ModeV1, PreStateV1};
use hashinsight_protocol::evidence::TargetStateV1;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Draft<'_> {
    /// One step of a ramp up.
    pub fn ramp_up(&mut self, key: DispatchKey) {
        let Some(mut dispatch) = self.book.dispatches.get(&key).filter(|d| !d.is_done()).cloned() else {
            return;
        };
        let mut queue = self.queue(key);
        if queue.is_empty() {
            return self.report_recovery(key);
        }
        let ramp = dispatch.terms.ramp_up;
        let most = ramp::allowance(&ramp, dispatch.last_up, self.at);
        if most == 0 {
            self.call_at(ramp::next(&ramp, dispatch.last_up, self.at));
            return self.report_recovery(key);
        }
        queue.sort_by_key(|(target, _)| std::cmp::Reverse(target.rank));
        let breaks = dispatch.stop_force || dispatch.terms.may_break_dwell();
        let mut woken = Vec::new();
        let mut forced = BTreeSet::new();
        for (target, hold) in queue {
            let until = hold.stopped.plus(dispatch.terms.rules.min_off);
            let asleep = matches!(hold.phase, Phase::Curtailed | Phase::Unreachable | Phase::Stopping);
            let dwells = asleep && until > self.at;
            if dwells && !breaks {
                self.call_at(until);
                continue;
            }
            if woken.len() < most {
                if dwells {
                    forced.insert(target.miner);
                }
                woken.push((target, hold));
            }
        }
        if woken.is_empty() {
            return self.report_recovery(key);
        }
        dispatch.last_up = Some(self.at);
        dispatch.forced |= !forced.is_empty();
        let count = woken.len();
        let broken = match forced.len() {
            0 => String::new(),
            broken => format!(", {broken} of them before their shortest time asleep is over (forced)"),
        };
        // The pace is stored before the miners: a crash in between costs a ramp step, not a double one.
        self.report(&mut dispatch, format!("waking {count} miners{broken}"));
        self.put_dispatch(&dispatch);
        for (target, hold) in woken {
            if forced.contains(&target.miner) {
                self.put_target(TargetRecord { forced: true, ..(*target).clone() });
            }
            let mut hold = (*hold).clone();
            hold.tries = 0;
            hold.awaits = None;
            // What is proven of the stop says nothing about the way back.
            hold.evidence = EvidenceV1::default();
            // What is in doubt is a stop.
            hold.write_after = self.at;
            hold.retry_at = self.at.plus(ramp::jitter(&ramp, self.policy.seed, key, hold.miner, true));
            self.turn(&mut hold, Phase::Waking, "its turn in the ramp up".to_owned());
            if let Err(why) = self.may_write(hold.miner) {
                self.turn(&mut hold, Phase::RestoreFailed, why.to_owned());
            }
            self.put_hold(hold);
        }
    }

    /// Miners that are let go of and whose turn has not come.
    fn queue(&mut self, key: DispatchKey) -> Vec<(Arc<TargetRecord>, Arc<HoldRecord>)> {
        let mut queue = Vec::new();
        let left: Vec<_> = self.book.targets_of(key).filter(|t| t.left && !t.done).cloned().collect();
        for target in left {
            let Some(hold) = self.book.holds.get(&target.miner).cloned() else { continue };
            if matches!(hold.phase, Phase::Waking | Phase::RestoreFailed) {
                continue;
            }
            if let Some(other) = self.is_claimed_besides(target.miner, key) {
                let mut target = (*target).clone();
                self.hand_over(&mut target, other);
                self.put_target(target);
            } else if hold.intent.is_none() {
                queue.push((target, hold));
            }
        }
        queue
    }

    fn report_recovery(&mut self, key: DispatchKey) {
        if let Some(mut dispatch) =
            self.book.dispatches.get(&key).filter(|d| !d.holds() && !d.is_done()).cloned()
        {
            self.report_progress(&mut dispatch);
        }
    }

    /// A miner to be woken was read: it's written to unless it's back already.
    pub fn wake(&mut self, mut hold: HoldRecord, now: &PreStateV1) {
        let restart = self.miner(hold.miner).map(|miner| miner.restart_time).unwrap_or_default();
        if is_back(now, &hold.pre) {
            hold.evidence.mode = FactV1::Yes;
            hold.awaits = Some(self.at.plus(restart).plus(self.policy.restored_within));
            hold.why = "back in its pre-state by its own settings; its effect is awaited".to_owned();
            return self.put_hold(hold);
        }
        if hold.woken && now.mode == ModeV1::Starting {
            hold.awaits = Some(self.at.plus(restart).plus(self.policy.restored_within));
            hold.why = "on its way up".to_owned();
            return self.put_hold(hold);
        }
        if self.puts_off(&mut hold) {
            return self.put_hold(hold);
        }
        let dispatch = self.book.dispatches_of(hold.miner).next().unwrap_or(hold.owner);
        if let Some((until, breaks)) = self.dwells(dispatch, &hold).filter(|_| now.mode.is_asleep()) {
            if !breaks {
                // It seemed to run when its turn came, and sleeps after all.
                hold.retry_at = until;
                hold.why = "asleep after all; stays so for its shortest time".to_owned();
                return self.put_hold(hold);
            }
            self.mark_forced(dispatch, hold.miner, "is woken before its shortest time asleep is over");
        }
        hold.intent = Some(Intent { wake: true, at: self.at });
        hold.last_write = self.at;
        hold.woken = true;
        hold.evidence = EvidenceV1::default();
        hold.why = format!("wake-up sent, {} tries before", hold.tries);
        let write = Write::Wake { dispatch, miner: hold.miner, pre: hold.pre.clone() };
        // From the write on it may run: it's left running for its time whatever becomes of the outcome.
        self.count_wake(&hold);
        self.put_hold(hold);
        self.out.writes.push(write);
    }

    /// Until when a miner's shortest time asleep stands against waking it, and whether that may be broken.
    fn dwells(&self, key: DispatchKey, hold: &HoldRecord) -> Option<(Steady, bool)> {
        let dispatch = self.book.dispatches.get(&key)?;
        let until = hold.stopped.plus(dispatch.terms.rules.min_off);
        (until > self.at).then_some((until, dispatch.stop_force || dispatch.terms.may_break_dwell()))
    }

    /// A wake-up was accepted.
    pub fn woken(&mut self, hold: &mut HoldRecord, detail: &str) {
        let restart = self.miner(hold.miner).map(|miner| miner.restart_time).unwrap_or_default();
        hold.awaits = Some(self.at.plus(restart).plus(self.policy.restored_within));
        hold.retry_at = self.at;
        hold.why = format!("accepted: {detail}");
    }

    /// A wake-up has not worked yet. It's tried on, for as long as it takes.
    pub fn fail_wake(&mut self, hold: &mut HoldRecord, why: String) {
        hold.awaits = None;
        let pause = back_off(self.policy.wake_retry, self.policy.wake_retry_max, hold.tries.max(1));
        hold.retry_at = self.at.plus(pause);
        let why = format!("{why}; try {} follows in {:.0} s", hold.tries.saturating_add(1), pause.seconds());
        self.turn(hold, Phase::RestoreFailed, why);
    }

    /// Whether a reading that began after the last write proves a miner back.
    pub fn is_restored(&self, hold: &HoldRecord, reading: &MinerReading) -> bool {
        // A stop of unknown outcome could still land on a miner that is forgotten.
        if self.at < hold.unsure_until {
            return false;
        }
        let known = reading.running.0 == FactV1::Yes || hold.evidence.mode == FactV1::Yes;
        match reading.running {
            (FactV1::No, _) => false,
            // Without the mode in the reading it takes a read of the settings.
            _ if !known => false,
            (_, FactV1::Yes) => true,
            // One that drew power without mining before shows nothing but its mode.
            (FactV1::Yes, FactV1::NotApplicable) => true,
            (FactV1::Yes, effect) => !hold.was_mining && effect != FactV1::No,
            _ => false,
        }
    }

    /// Whether a miner runs again and only its settings are yet to be read: the reading doesn't tell them.
    pub fn wants_check(&self, hold: &HoldRecord) -> bool {
        let waking = matches!(hold.phase, Phase::Waking | Phase::RestoreFailed);
        let reading = self.miner(hold.miner).and_then(|miner| self.reading(miner));
        waking
            && hold.awaits.is_some()
            && hold.evidence.mode != FactV1::Yes
            && self.may_write(hold.miner).is_ok()
            && reading.is_some_and(|(reading, at)| {
                at > hold.last_write && reading.running.1 == FactV1::Yes && reading.running.0 != FactV1::Yes
            })
    }

    /// The settings of a miner that runs again were read. Others than its own are not written over before
    /// the wake-up has had its time.
    pub fn check(&mut self, mut hold: HoldRecord, now: &PreStateV1) {
        if is_back(now, &hold.pre) {
            hold.evidence.mode = FactV1::Yes;
            hold.why = "runs, and its settings are back".to_owned();
        } else {
            hold.retry_at = self.at.plus(self.policy.wake_retry);
        }
        self.put_hold(hold);
    }

    /// A miner is back.
    pub fn restored(&mut self, mut hold: HoldRecord, reading: &MinerReading) {
        hold.evidence.mode = reading.running.0;
        hold.evidence.effect = reading.running.1;
        if hold.woken {
            self.count_wake(&hold);
        }
        let why = format!(
            "back at {}, {} before the stop",
            power_text(reading.power),
            power_text(hold.power_before)
        );
        let keys: Vec<_> = self.book.dispatches_of(hold.miner).collect();
        for key in keys {
            let Some(target) = self.book.target(key, hold.miner) else { continue };
            let mut target = (**target).clone();
            target.done = true;
            target.state = TargetStateV1::Restored;
            target.evidence = hold.evidence;
            self.report_target(&target, None, &why);
            self.put_target(target);
        }
        self.put(Change::HoldGone(hold.miner));
    }

    fn count_wake(&mut self, hold: &HoldRecord) {
        let mut wear = self.wear(hold.miner);
        wear.woken = Some(self.at);
        self.put(Change::Wear(wear));
    }
}

/// Whether a device's settings are those of its pre-state. The vendor's own value decides where there is
/// one: the mode that we name may pass through "starting".
fn is_back(now: &PreStateV1, pre: &PreStateV1) -> bool {
    let mode = match (now.vendor_mode, pre.vendor_mode) {
        (Some(now), Some(pre)) => now == pre,
        _ => now.mode == pre.mode,
    };
    mode && !now.mode.is_asleep() && now.limit == pre.limit && now.profile == pre.profile
}
