//! Stopping one miner, and stopping it again.
//!
//! Before each write the device is read: its identity, and the settings to put back. The first read is the
//! pre-state and is kept for as long as the hold lasts; a later one only tells whether a write that is in
//! doubt has taken effect. Intent and pre-state are put into the book in the step that asks for the write.

use crate::book::{Change, DispatchKey, HoldRecord, Intent, Phase, TargetRecord};
use crate::draft::Draft;
use crate::input::Observation;
use crate::ramp::back_off;
use crate::selection::{SkipReason, dwell};
use crate::steady::Steady;
use crate::step::Write;
use hashinsight_protocol::device::{EvidenceV1, FactV1, ModeV1, PreStateV1};
use hashinsight_protocol::evidence::TargetStateV1;
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::units::DurationMs;

/// What is reported of a phase.
pub(crate) fn state_of(phase: Phase) -> TargetStateV1 {
    match phase {
        Phase::Stopping => TargetStateV1::Stopping,
        Phase::Curtailed => TargetStateV1::Curtailed,
        Phase::Drifted => TargetStateV1::Drifted,
        Phase::Refused => TargetStateV1::Refused,
        Phase::Unreachable => TargetStateV1::Unreachable,
        Phase::Waking => TargetStateV1::Waking,
        Phase::RestoreFailed => TargetStateV1::RestoreFailed,
    }
}

impl Draft<'_> {
    /// Outcomes of writes, and the start of the process.
    pub fn take_outcome(&mut self, seen: &Observation) {
        match seen {
            Observation::Restarted => {
                let open = self.book.holds.values().filter(|hold| hold.intent.is_some());
                for mut hold in open.map(|hold| (**hold).clone()).collect::<Vec<_>>() {
                    self.lose_intent(&mut hold, "the agent was restarted during a write; read again");
                    self.put_hold(hold);
                }
            }
            Observation::Written { miner, wake, accepted, mode, detail } => {
                let Some(mut hold) = self.take_intent(*miner, *wake) else { return };
                if self.overtaken(&mut hold, *wake) {
                    return self.put_hold(hold);
                }
                hold.evidence = EvidenceV1 { accepted: *accepted, mode: *mode, effect: FactV1::Unknown };
                match (*accepted, *wake) {
                    (FactV1::Unknown, _) => {
                        self.lose_intent(&mut hold, &format!("no reply to the write: {detail}"));
                        self.wait_for_late(&mut hold);
                    }
                    (FactV1::No, true) => {
                        hold.tries = hold.tries.saturating_add(1);
                        self.fail_wake(&mut hold, format!("refused: {detail}"));
                    }
                    // Nothing was written and it still sleeps: a guard of the device's own stands against
                    // it, and is asked again soon.
                    (FactV1::NotApplicable, true) if *mode == FactV1::No => {
                        hold.tries = hold.tries.saturating_add(1);
                        self.fail_wake(&mut hold, detail.clone());
                    }
                    (FactV1::No, false) => {
                        self.uncount_stop(*miner);
                        hold.unsure_until = self.at;
                        self.refused(&mut hold, format!("refused: {detail}"));
                    }
                    (_, true) => self.woken(&mut hold, detail),
                    (_, false) => {
                        hold.awaits = Some(self.at.plus(self.policy.confirm_within));
                        hold.why = format!("accepted: {detail}");
                    }
                }
                self.put_hold(hold);
            }
            Observation::WriteFailed { miner, wake, why, identity_mismatch } => {
                let Some(mut hold) = self.take_intent(*miner, *wake) else { return };
                if self.overtaken(&mut hold, *wake) {
                    return self.put_hold(hold);
                }
                hold.evidence = EvidenceV1::default();
                if !identity_mismatch {
                    self.lose_intent(&mut hold, why);
                }
                hold.tries = hold.tries.saturating_add(1);
                let why = not_done(why, *identity_mismatch);
                match (*wake, *identity_mismatch) {
                    (true, _) => self.fail_wake(&mut hold, why),
                    (false, true) => {
                        self.uncount_stop(*miner);
                        hold.unsure_until = self.at;
                        self.refused(&mut hold, why);
                    }
                    (false, false) => self.silent(&mut hold, why),
                }
                self.put_hold(hold);
            }
            Observation::Prepared { .. } | Observation::PrepareFailed { .. } | Observation::HeldBefore(_) => {
            }
        }
    }

    /// The hold whose write this is the outcome of; late outcomes of writes given up change nothing.
    fn take_intent(&self, miner: MinerId, wake: bool) -> Option<HoldRecord> {
        let mut hold = self.hold(miner)?;
        hold.intent.take_if(|intent| intent.wake == wake)?;
        hold.last_write = self.at;
        Some(hold)
    }

    /// The write may be slow rather than lost: the device is read, and written to again later.
    pub fn wait_for_late(&self, hold: &mut HoldRecord) {
        hold.tries = hold.tries.saturating_add(1);
        hold.retry_at = self.at.plus(self.policy.stop_retry);
        hold.write_after = hold.unsure_until;
    }

    /// Until when a stop that is sent now may show its effect, accepted or not.
    fn lands_until(&self) -> Steady {
        self.at.plus(self.policy.confirm_within.max(self.policy.late_write))
    }

    /// Puts off a write that may be under way still; true when it was put off.
    pub fn puts_off(&self, hold: &mut HoldRecord) -> bool {
        let early = self.at < hold.write_after;
        if early {
            let pause = back_off(self.policy.stop_retry, self.policy.stop_retry_max, hold.tries);
            hold.retry_at = self.at.plus(pause).min(hold.write_after);
            hold.why = "the last write had no reply and may still take effect; read again".to_owned();
        }
        early
    }

    /// A wake-up that came to its end after another dispatch took the miner: it's read and stopped again.
    fn overtaken(&self, hold: &mut HoldRecord, wake: bool) -> bool {
        let overtaken = wake && !matches!(hold.phase, Phase::Waking | Phase::RestoreFailed);
        if overtaken {
            hold.evidence = EvidenceV1::default();
            hold.awaits = None;
            hold.retry_at = self.at;
        }
        overtaken
    }

    fn refused(&mut self, hold: &mut HoldRecord, why: String) {
        hold.awaits = None;
        hold.tries = hold.tries.saturating_add(1);
        hold.retry_at = self.at.plus(self.stop_pause(hold.tries));
        self.turn(hold, Phase::Refused, why);
    }

    fn silent(&mut self, hold: &mut HoldRecord, why: String) {
        hold.retry_at = self.at.plus(self.stop_pause(hold.tries));
        self.turn(hold, Phase::Unreachable, format!("{why}; counts as consuming"));
    }

    fn stop_pause(&self, tries: u16) -> DurationMs {
        back_off(self.policy.stop_retry, self.policy.stop_retry_max, tries)
    }

    /// Reads that came back.
    pub fn take_read(&mut self, seen: &Observation) {
        match seen {
            Observation::Prepared { miner, pre, at } => {
                let Some(at) = self.clock.at(*at) else { return };
                match self.hold(*miner) {
                    Some(hold) => self.read_again(hold, pre, at),
                    None => self.read_first(*miner, pre),
                }
            }
            Observation::PrepareFailed { miner, why, identity_mismatch } => {
                let why = not_done(why, *identity_mismatch);
                match self.hold(*miner) {
                    Some(hold) => self.read_failed(hold, why, *identity_mismatch),
                    None => self.first_read_failed(*miner, &why, *identity_mismatch),
                }
            }
            _ => {}
        }
    }

    /// Whether a held miner waits for a write, in either direction.
    pub fn wants_write(&self, hold: &HoldRecord) -> bool {
        if hold.intent.is_some() || hold.awaits.is_some() || self.may_write(hold.miner).is_err() {
            return false;
        }
        match hold.phase {
            Phase::Waking | Phase::RestoreFailed => true,
            Phase::Curtailed => false,
            Phase::Stopping | Phase::Drifted | Phase::Refused | Phase::Unreachable => {
                self.stopper(hold.miner).is_some()
            }
        }
    }

    /// The dispatch in whose name a miner may be stopped now.
    fn stopper(&self, miner: MinerId) -> Option<DispatchKey> {
        self.book.claims(miner).find(|key| self.book.dispatches.get(key).is_some_and(|d| d.stops()))
    }

    /// The dispatch whose dwell times let a miner be stopped once more, and the one that it breaks.
    fn stopper_by_dwell(&self, miner: MinerId) -> Result<(DispatchKey, Option<SkipReason>), SkipReason> {
        let mut refused = SkipReason::NotNeeded;
        for key in self.book.claims(miner) {
            let Some(dispatch) = self.book.dispatches.get(&key).filter(|d| d.stops()) else { continue };
            match dwell(self, &dispatch.terms, miner) {
                Ok(breaks) => return Ok((key, breaks)),
                Err(reason) => refused = reason,
            }
        }
        Err(refused)
    }

    fn read_again(&mut self, hold: HoldRecord, now: &PreStateV1, read: Steady) {
        if hold.retry_at > self.at || read <= hold.last_write {
            return;
        }
        if self.wants_check(&hold) {
            return self.check(hold, now);
        }
        if !self.wants_write(&hold) {
            return;
        }
        match hold.phase {
            Phase::Waking | Phase::RestoreFailed => self.wake(hold, now),
            _ => self.stop_again(hold, now),
        }
    }

    fn read_failed(&mut self, mut hold: HoldRecord, why: String, mismatch: bool) {
        if !self.wants_write(&hold) || hold.retry_at > self.at {
            return;
        }
        hold.tries = hold.tries.saturating_add(1);
        match hold.phase {
            Phase::Waking | Phase::RestoreFailed => self.fail_wake(&mut hold, why),
            _ if mismatch => self.refused(&mut hold, why),
            _ => self.silent(&mut hold, why),
        }
        self.put_hold(hold);
    }

    /// The read before the first write: the pre-state. Higher precedence goes first.
    fn read_first(&mut self, miner: MinerId, pre: &PreStateV1) {
        for key in self.dispatches() {
            let Some(target) = self.book.target(key, miner).cloned() else { continue };
            let stops = self.book.dispatches.get(&key).is_some_and(|d| d.stops());
            if target.done || target.left || !stops || target.due.max(target.retry_at) > self.at {
                continue;
            }
            if self.may_write(miner).is_err() {
                return;
            }
            let again = self.at.plus(self.policy.again_after);
            match pre.mode {
                ModeV1::Sleep => self.let_go(&target, again, "it's asleep already, and not by us"),
                ModeV1::Failed => self.let_go(&target, again, "it's stopped by a fault of its own"),
                _ => return self.stop(&target, pre),
            }
        }
    }

    fn stop(&mut self, target: &TargetRecord, pre: &PreStateV1) {
        let Some(miner) = self.miner(target.miner) else { return };
        self.count_stop(target.miner);
        self.put_hold(HoldRecord {
            miner: target.miner,
            owner: target.dispatch,
            pre: pre.clone(),
            power_before: target.power_before,
            hashrate_before: target.hashrate_before,
            was_mining: target.was_mining,
            standby: miner.standby,
            phase: Phase::Stopping,
            since: self.at,
            intent: Some(Intent { wake: false, at: self.at }),
            awaits: None,
            tries: 0,
            drifts: 0,
            retry_at: self.at,
            stopped: self.at,
            last_write: self.at,
            unsure_until: self.lands_until(),
            write_after: self.at,
            woken: false,
            evidence: EvidenceV1::default(),
            why: "its pre-state is kept, the stop is sent".to_owned(),
        });
        self.out.writes.push(Write::Stop {
            dispatch: target.dispatch,
            miner: target.miner,
            pre: pre.clone(),
        });
    }

    /// A held miner that should sleep was read again.
    fn stop_again(&mut self, mut hold: HoldRecord, now: &PreStateV1) {
        // Asleep by its settings, yet seen to draw power: only another write can help.
        let consumes = hold.phase == Phase::Drifted || hold.evidence.effect == FactV1::No;
        if now.mode.is_asleep() && !consumes {
            // An earlier write has landed; only its effect is awaited.
            hold.evidence.mode = FactV1::Yes;
            hold.awaits = Some(self.at.plus(self.policy.confirm_within));
            hold.why = "asleep by its own settings; its effect is awaited".to_owned();
            return self.put_hold(hold);
        }
        if self.puts_off(&mut hold) {
            return self.put_hold(hold);
        }
        let (key, breaks) = match self.stopper_by_dwell(hold.miner) {
            Ok(allowed) => allowed,
            Err(reason) => {
                hold.retry_at = self.at.plus(self.policy.stop_retry_max);
                self.turn(&mut hold, Phase::Refused, format!("not stopped again: {reason}"));
                return self.put_hold(hold);
            }
        };
        if let Some(reason) = breaks {
            self.mark_forced(key, hold.miner, &format!("is stopped again although {reason}"));
        }
        self.count_stop(hold.miner);
        hold.intent = Some(Intent { wake: false, at: self.at });
        hold.last_write = self.at;
        hold.stopped = self.at;
        hold.unsure_until = self.lands_until();
        hold.woken = false;
        hold.evidence = EvidenceV1::default();
        hold.why = format!("stop sent again, {} tries before without effect", hold.tries);
        if hold.phase != Phase::Drifted {
            hold.phase = Phase::Stopping;
        }
        let write = Write::Stop { dispatch: key, miner: hold.miner, pre: hold.pre.clone() };
        self.put_hold(hold);
        self.out.writes.push(write);
    }

    /// A dispatch takes over a miner that was on its way back.
    pub fn rejoin(&mut self, mut hold: HoldRecord) {
        if hold.phase == Phase::Curtailed {
            return;
        }
        if matches!(hold.phase, Phase::Waking | Phase::RestoreFailed) {
            hold.tries = 0;
            hold.awaits = None;
            hold.evidence = EvidenceV1::default();
            hold.retry_at = self.at;
            hold.write_after = self.at;
            self.turn(&mut hold, Phase::Stopping, "kept for another dispatch; read again".to_owned());
            self.put_hold(hold);
        }
    }

    /// Records that a dwell time was broken.
    pub fn mark_forced(&mut self, key: DispatchKey, miner: MinerId, why: &str) {
        let Some(mut dispatch) = self.book.dispatches.get(&key).cloned() else { return };
        if !dispatch.forced {
            dispatch.forced = true;
            self.report(&mut dispatch, format!("forced: miner {miner} {why}"));
            self.put_dispatch(&dispatch);
        }
        if let Some(target) = self.book.target(key, miner) {
            let forced = TargetRecord { forced: true, ..(**target).clone() };
            self.put_target(forced);
        }
    }

    fn first_read_failed(&mut self, miner: MinerId, why: &str, mismatch: bool) {
        let keys: Vec<_> = self.book.claims(miner).collect();
        for key in keys {
            let Some(target) = self.book.target(key, miner) else { continue };
            if target.due.max(target.retry_at) > self.at {
                continue;
            }
            let mut target = (**target).clone();
            target.tries = target.tries.saturating_add(1);
            target.retry_at = self.at.plus(self.stop_pause(target.tries));
            let state = if mismatch { TargetStateV1::Refused } else { TargetStateV1::Unreachable };
            if target.state != state {
                target.state = state;
                self.report_target(&target, None, why);
            }
            self.put_target(target);
        }
    }

    /// Counted before the write: a crash in between counts one too many, never one too few.
    fn count_stop(&mut self, miner: MinerId) {
        let mut wear = self.wear(miner);
        wear.stop(self.at);
        self.put(Change::Wear(wear));
    }

    fn uncount_stop(&mut self, miner: MinerId) {
        let mut wear = self.wear(miner);
        wear.stops.pop();
        self.put(Change::Wear(wear));
    }
}

fn not_done(why: &str, mismatch: bool) -> String {
    if mismatch { format!("another device answers at its address: {why}") } else { why.to_owned() }
}
