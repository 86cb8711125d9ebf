//! A dispatch from its start to its end: what starts it, what changes it and what ends it.

use crate::book::{Change, DispatchKey, DispatchRecord, Ending, Phase, PlanRecord, TargetRecord, Terms};
use crate::draft::{Draft, Scope};
use crate::input::HeldPlan;
use crate::steady::Steady;
use crate::step::Event;
use crate::timeline::{self, Chance};
use hashinsight_protocol::clock::ClockStateV1;
use hashinsight_protocol::evidence::{DispatchStateV1, DispatchStepV1, DispatchV1, TargetStateV1};
use hashinsight_protocol::ids::PlanId;
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::plan::{GoalV1, IntervalV1, LostContactV1, RecoveryV1};
use hashinsight_protocol::units::{DurationMs, Watts};
use std::sync::Arc;

/// How often it's stored that a plan is still held.
const STORE_HELD: DurationMs = DurationMs::from_minutes(24 * 60);

impl<'a> Draft<'a> {
    /// Everything that plans, their orders and the time say now.
    pub fn take_orders(&mut self) {
        self.remember_plans();
        for key in self.dispatches() {
            self.review(key);
        }
        self.release();
        let mut held: Vec<&'a HeldPlan> = self.plans.values().copied().collect();
        held.sort_by_key(|held| (std::cmp::Reverse(held.plan.precedence), held.plan.id));
        for held in held {
            self.start_intervals(held);
        }
        self.forget();
    }

    fn remember_plans(&mut self) {
        let held: Vec<&'a HeldPlan> = self.plans.values().copied().collect();
        for held in held {
            let id = held.plan.id;
            let contact = held.lease_from.and_then(|boot| self.clock.at(boot));
            let Some(old) = self.book.plans.get(&id) else {
                // A plan that comes for the first time comes with contact.
                let contact = contact.unwrap_or(self.at);
                let record =
                    PlanRecord { plan: id, fired: Default::default(), contact, closed: None, held: self.at };
                self.put(Change::Plan(record));
                continue;
            };
            let mut record = old.clone();
            if self.at.since(record.held) >= STORE_HELD {
                record.held = self.at;
            }
            if let (LostContactV1::ReleaseAfter(lease), Some(contact)) = (held.plan.on_lost_contact, contact)
                && contact.since(record.contact) >= self.policy.heartbeat.min(DurationMs(lease.0 / 4))
            {
                record.contact = contact;
            }
            if record != *old {
                self.put(Change::Plan(record));
            }
        }
    }

    /// When the lease of a plan runs out; never for one that holds without contact.
    fn lease_end(&self, plan: PlanId, terms: LostContactV1) -> Steady {
        let LostContactV1::ReleaseAfter(lease) = terms else { return Steady::NEVER };
        let stored = self.book.plans.get(&plan).map_or(Steady::default(), |record| record.contact);
        let live =
            self.plans.get(&plan).and_then(|held| held.lease_from).and_then(|boot| self.clock.at(boot));
        stored.max(live.unwrap_or_default()).plus(lease)
    }

    /// What has become of a dispatch that is not done.
    fn review(&mut self, key: DispatchKey) {
        let Some(mut dispatch) = self.book.dispatches.get(&key).cloned() else { return };
        if dispatch.is_done() {
            return;
        }
        let held = self.plans.get(&key.plan).copied();
        if let Some(held) = held {
            self.revise(&mut dispatch, held);
        }
        if dispatch.holds() {
            if timeline::anchor(&self.now, self.at, &mut dispatch) {
                self.put_dispatch(&dispatch);
            }
            self.review_end(&mut dispatch, held);
        }
        let stop = held.and_then(|held| held.stop.as_ref());
        if let Some(stop) = stop
            && stop.force
            && !dispatch.holds()
            && !dispatch.stop_force
        {
            dispatch.stop_force = true;
            let why = format!("stop with force by {}: minimum time asleep is broken", stop.by);
            self.report(&mut dispatch, why);
            self.put_dispatch(&dispatch);
        }
        // Also what a crash has left half done.
        if !dispatch.stops() {
            self.let_go_all(&dispatch);
        }
        if dispatch.holds() {
            self.let_go_protected(&dispatch);
        }
    }

    /// Takes over a new revision of the plan.
    fn revise(&mut self, dispatch: &mut DispatchRecord, held: &HeldPlan) {
        if dispatch.revision == held.plan.revision {
            return;
        }
        let Some(interval) = held.plan.intervals.iter().find(|i| i.number == dispatch.key.interval) else {
            return;
        };
        let terms = Terms::of(&held.plan);
        let old = dispatch.revision;
        dispatch.revision = held.plan.revision;
        dispatch.trim |= terms.goal != dispatch.terms.goal;
        if let GoalV1::ReduceBy { target, .. } = terms.goal {
            dispatch.target = target;
        }
        dispatch.terms = terms;
        timeline::move_end(&self.now, self.at, dispatch, interval);
        self.report(dispatch, format!("revision {} of the plan replaces {old}", held.plan.revision));
        self.put_dispatch(dispatch);
        let scope = Scope::of(&held.plan);
        for target in self.targets(dispatch.key) {
            if !target.left && !scope.covers(target.miner) {
                self.let_go(&target, Steady::NEVER, "the new revision leaves it out");
            }
        }
    }

    fn review_end(&mut self, dispatch: &mut DispatchRecord, held: Option<&HeldPlan>) {
        let key = dispatch.key;
        let Some(held) = held else {
            return self.end(dispatch, Ending::Removed, "the plan was withdrawn".to_owned());
        };
        if let Some(stop) = &held.stop {
            dispatch.stop_force = stop.force;
            let force = if stop.force { " with force" } else { "" };
            return self.end(dispatch, Ending::Stopped, format!("stopped{force} by {}", stop.by));
        }
        if held.cancelled {
            return self.end(dispatch, Ending::Stopped, "the plan was cancelled".to_owned());
        }
        if !held.plan.intervals.iter().any(|interval| interval.number == key.interval) {
            return self.end(dispatch, Ending::Removed, "the interval was withdrawn".to_owned());
        }
        let lease = self.lease_end(key.plan, dispatch.terms.on_lost_contact);
        if lease <= self.at {
            let why = "out of contact for the length of the lease".to_owned();
            return self.end(dispatch, Ending::LeaseOut, why);
        }
        self.call_at(lease);
        let Some(ends) = dispatch.ends else { return };
        if ends > self.at {
            return self.call_at(ends);
        }
        if dispatch.terms.recovery == RecoveryV1::Automatic {
            return self.end(dispatch, Ending::Time, "its time is over".to_owned());
        }
        if !dispatch.over {
            dispatch.over = true;
            dispatch.state = DispatchStateV1::Holding;
            self.report(dispatch, "its time is over; asleep until somebody stops the plan".to_owned());
            self.put_dispatch(dispatch);
        }
    }

    /// Ends a dispatch; its miners are let go of in the same step.
    fn end(&mut self, dispatch: &mut DispatchRecord, ending: Ending, why: String) {
        dispatch.state = DispatchStateV1::Recovering;
        dispatch.ending = Some(ending);
        dispatch.ended = Some(self.at);
        self.report(dispatch, format!("{why}; waking begins"));
        self.put_dispatch(dispatch);
    }

    fn let_go_all(&mut self, dispatch: &DispatchRecord) {
        for target in self.targets(dispatch.key) {
            if target.left {
                continue;
            }
            let phase = self.book.holds.get(&target.miner).map(|hold| hold.phase);
            // One that waits for somebody to wake it keeps what is asleep, or may be.
            let stays = dispatch.holds() && matches!(phase, Some(Phase::Curtailed | Phase::Unreachable));
            if !stays {
                self.let_go(&target, Steady::NEVER, "the dispatch is over");
            }
        }
    }

    fn let_go_protected(&mut self, dispatch: &DispatchRecord) {
        let max_off = dispatch.terms.rules.max_off;
        let concerned = |target: &&Arc<TargetRecord>| {
            let protected = || self.miner(target.miner).is_some_and(|miner| miner.locks.protected);
            !target.done && !target.left && (max_off.is_some() || protected())
        };
        let concerned: Vec<_> = self.book.targets_of(dispatch.key).filter(concerned).cloned().collect();
        for target in concerned {
            if self.miner(target.miner).is_some_and(|miner| miner.locks.protected) {
                self.let_go(&target, Steady::NEVER, "a technician protects it from curtailment");
                continue;
            }
            let (Some(max_off), Some(hold)) = (max_off, self.book.holds.get(&target.miner)) else { continue };
            if !matches!(hold.phase, Phase::Curtailed | Phase::Unreachable) {
                continue;
            }
            let until = hold.stopped.plus(max_off);
            if until <= self.at {
                let why = format!("asleep for its longest time, {:.0} s", max_off.seconds());
                self.let_go(&target, Steady::NEVER, &why);
            } else {
                self.call_at(until);
            }
        }
    }

    /// A dispatch lets go of a miner: to be woken, unless another holds it or nothing was written yet. The
    /// dispatch may take it again from `again`.
    pub fn let_go(&mut self, target: &TargetRecord, again: Steady, why: &str) {
        let mut target = target.clone();
        target.retry_at = again;
        if !self.book.holds.contains_key(&target.miner) {
            target.done = true;
            target.state = TargetStateV1::Restored;
            // Another may be needed in its place.
            self.call_at(self.at);
            self.report_target(&target, None, &format!("let go before any write: {why}"));
        } else if let Some(other) = self.is_claimed_besides(target.miner, target.dispatch) {
            self.hand_over(&mut target, other);
        } else {
            target.left = true;
            if self.book.dispatches.get(&target.dispatch).is_some_and(|d| d.stops()) {
                self.report_target(&target, None, &format!("let go to be woken: {why}"));
            }
        }
        self.put_target(target);
    }

    /// Another dispatch keeps the miner asleep; this one has nothing left to do for it.
    pub fn hand_over(&mut self, target: &mut TargetRecord, to: DispatchKey) {
        target.done = true;
        target.left = true;
        self.report_target(target, None, &format!("stays with plan {}, interval {}", to.plan, to.interval));
    }

    /// Admins let go of miners as they are.
    fn release(&mut self) {
        let held: Vec<&'a HeldPlan> = self.plans.values().copied().collect();
        for held in held {
            for miner in &held.released {
                let keys: Vec<_> =
                    self.book.dispatches_of(*miner).filter(|key| key.plan == held.plan.id).collect();
                for key in keys {
                    let Some(target) = self.book.target(key, *miner) else { continue };
                    let mut target = (**target).clone();
                    target.done = true;
                    target.retry_at = Steady::NEVER;
                    target.state = TargetStateV1::Released;
                    self.report_target(&target, None, "an admin let go of it as it is");
                    self.put_target(target);
                    if self.book.dispatches_of(*miner).next().is_none() {
                        self.put(Change::HoldGone(*miner));
                    }
                }
            }
        }
    }

    fn start_intervals(&mut self, held: &'a HeldPlan) {
        let plan = &held.plan;
        let Some(record) = self.book.plans.get(&plan.id).cloned() else { return };
        let closed = held.stop.is_some() || held.cancelled;
        if closed && record.closed != Some(plan.revision) {
            // The next one stands for all that will not come.
            if let Some(next) = timeline::open(&plan.intervals, Some(&record.fired)).next() {
                self.never_started(
                    held,
                    next,
                    DispatchStateV1::Cancelled,
                    "stopped or cancelled before its start",
                );
            }
            let record = PlanRecord { closed: Some(plan.revision), ..record.clone() };
            self.put(Change::Plan(record));
        }
        if closed || record.closed == Some(plan.revision) {
            return;
        }
        let open: Vec<IntervalV1> = timeline::open(&plan.intervals, Some(&record.fired)).copied().collect();
        for interval in open {
            let key = DispatchKey { plan: plan.id, interval: interval.number };
            if self.book.dispatches.contains_key(&key) {
                // A crash came between the dispatch and its mark.
                self.mark_fired(key);
                continue;
            }
            match timeline::chance(&self.now, &interval, plan.uncertain_clock) {
                Chance::NotYet(start) => {
                    // The rest starts later still.
                    self.call_at_wall(start);
                    break;
                }
                Chance::Waits => {}
                Chance::Expired => {
                    let why = "its time passed before it could start";
                    self.never_started(held, &interval, DispatchStateV1::Expired, why);
                    self.mark_fired(key);
                }
                Chance::Start => {
                    // Without contact for longer than the lease it would be released at once.
                    if self.lease_end(plan.id, plan.on_lost_contact) > self.at {
                        self.fire(held, &interval);
                    }
                }
            }
        }
    }

    pub fn mark_fired(&mut self, key: DispatchKey) {
        if let Some(record) = self.book.plans.get(&key.plan) {
            let mut record = record.clone();
            record.fired.insert(key.interval);
            self.put(Change::Plan(record));
        }
    }

    fn never_started(&mut self, held: &HeldPlan, interval: &IntervalV1, state: DispatchStateV1, why: &str) {
        let key = DispatchKey { plan: held.plan.id, interval: interval.number };
        let target = match held.plan.goal {
            GoalV1::ReduceBy { target, .. } => target,
            _ => Watts::ZERO,
        };
        let dispatch = DispatchV1 { plan: key.plan, revision: held.plan.revision, interval: key.interval };
        self.out.events.push(Event::Dispatch(DispatchStepV1 {
            dispatch,
            state,
            target,
            reached: Watts::ZERO,
            targets: 0,
            forced: false,
            why: bounded_text(why),
        }));
    }

    fn fire(&mut self, held: &HeldPlan, interval: &IntervalV1) {
        let key = DispatchKey { plan: held.plan.id, interval: interval.number };
        let terms = Terms::of(&held.plan);
        let target = match terms.goal {
            GoalV1::ReduceBy { target, .. } => target,
            GoalV1::CapAt(cap) => self.draw().saturating_sub(cap),
            GoalV1::Count(_) | GoalV1::All => Watts::ZERO,
        };
        let mut dispatch = DispatchRecord {
            key,
            revision: held.plan.revision,
            state: DispatchStateV1::Executing,
            terms,
            start: interval.start,
            end: interval.end,
            fired: self.at,
            ends: timeline::end_at(&self.now, self.at, interval.end),
            anchored: self.now.clock,
            boot_id: self.now.boot_id,
            rebooted: false,
            over: false,
            ending: None,
            ended: None,
            stop_force: false,
            forced: false,
            trim: false,
            target,
            reported: Watts::ZERO,
            steps_down: 0,
            last_down: None,
            last_up: None,
            ranks: 0,
        };
        if let Some(ends) = dispatch.ends {
            self.call_at(ends);
        }
        self.call_at(self.lease_end(key.plan, terms.on_lost_contact));
        let late = self.now.wall.since(interval.start).seconds();
        let clock = match self.now.clock {
            ClockStateV1::Synced | ClockStateV1::Measured => "",
            ClockStateV1::Uncertain => ", by an uncertain clock, as the plan says",
        };
        self.put_dispatch(&dispatch);
        self.mark_fired(key);
        self.report(
            &mut dispatch,
            format!("starts {late:.1} s after its time{clock}: {}", goal_text(&terms.goal)),
        );
    }
}

/// A goal in words.
pub(crate) fn goal_text(goal: &GoalV1) -> String {
    match goal {
        GoalV1::ReduceBy { target, reserve } if *reserve > Watts::ZERO => {
            format!("reduce by {target}, {reserve} in reserve")
        }
        GoalV1::ReduceBy { target, .. } => format!("reduce by {target}"),
        GoalV1::CapAt(cap) => format!("draw no more than {cap}"),
        GoalV1::Count(count) => format!("stop {count} miners"),
        GoalV1::All => "stop all that can be stopped".to_owned(),
    }
}
