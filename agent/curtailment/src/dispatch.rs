//! A dispatch from its start to its end: what starts it, what ends it, and how it takes its miners.

use crate::book::{Change, DispatchKey, DispatchRecord, Ending, Phase, PlanRecord, TargetRecord, Terms};
use crate::draft::{Draft, Scope, power_text};
use crate::goal::Need;
use crate::input::{HeldPlan, watts};
use crate::ramp;
use crate::selection::{Candidate, Skipped, candidates, choose, skipped_text, sum_saves};
use crate::steady::Steady;
use crate::timeline::{self, Chance};
use hashinsight_protocol::clock::ClockStateV1;
use hashinsight_protocol::device::EvidenceV1;
use hashinsight_protocol::evidence::{DispatchStateV1, DispatchStepV1, TargetStateV1};
use hashinsight_protocol::ids::PlanId;
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::plan::{GoalV1, IntervalV1, LostContactV1, RecoveryV1};
use hashinsight_protocol::units::{DurationMs, Watts};
use std::collections::BTreeSet;

/// A plan that isn't held any more is remembered this long, so that its intervals don't fire again should
/// it come back.
const REMEMBER_PLAN: DurationMs = DurationMs::from_minutes(60 * 24 * 60);
/// How long a finished dispatch stays in the book.
const KEEP_DONE: DurationMs = DurationMs::from_minutes(24 * 60);
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
        let live = self.plans.get(&plan).and_then(|held| held.lease_from).and_then(|boot| self.clock.at(boot));
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
        for target in self.targets(dispatch.key) {
            if target.left {
                continue;
            }
            if self.miner(target.miner).is_some_and(|miner| miner.locks.protected) {
                self.let_go(&target, Steady::NEVER, "a technician protects it from curtailment");
                continue;
            }
            let (Some(max_off), Some(hold)) =
                (dispatch.terms.rules.max_off, self.book.holds.get(&target.miner))
            else {
                continue;
            };
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
                self.never_started(held, next, DispatchStateV1::Cancelled, "stopped or cancelled before its start");
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

    fn mark_fired(&mut self, key: DispatchKey) {
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
        let dispatch = hashinsight_protocol::evidence::DispatchV1 {
            plan: key.plan,
            revision: held.plan.revision,
            interval: key.interval,
        };
        self.out.events.push(crate::step::Event::Dispatch(DispatchStepV1 {
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
            ClockStateV1::Synced => "",
            ClockStateV1::Uncertain => ", by an uncertain clock, as the plan says",
        };
        self.put_dispatch(&dispatch);
        self.mark_fired(key);
        self.report(&mut dispatch, format!("starts {late:.1} s after its time{clock}: {}", goal_text(&terms.goal)));
    }

    /// One step of a ramp down: chooses as many miners as the goal needs and the ramp allows.
    pub fn ramp_down(&mut self, key: DispatchKey) {
        let Some(mut dispatch) = self.book.dispatches.get(&key).filter(|d| d.stops()).cloned() else { return };
        let Some(held) = self.plans.get(&key.plan).copied() else { return };
        self.trim(&mut dispatch);
        let tally = self.tally(key);
        let need = self.need(&dispatch, &tally);
        let mut exhausted = None;
        if matches!(need, Need::Nothing) {
            self.drop_failed(key);
        } else {
            let ramp = dispatch.terms.ramp_down;
            let most = ramp::allowance(&ramp, dispatch.last_down, self.at);
            if most == 0 {
                self.call_at(ramp::next(&ramp, dispatch.last_down, self.at));
            } else {
                let scope = Scope::of(&held.plan);
                let (found, skipped) = candidates(self, Some(key), &dispatch.terms, &scope);
                let chosen = choose(&need, &found, most);
                let picks: Vec<_> =
                    found.iter().zip(&chosen).filter(|(_, chosen)| **chosen).map(|(c, _)| c).collect();
                if picks.is_empty() {
                    exhausted = Some(skipped);
                } else {
                    self.take(&mut dispatch, &picks, &need, &skipped);
                }
            }
        }
        let tally = self.tally(key);
        let pending = tally.pending_count > 0;
        if dispatch.state == DispatchStateV1::Executing {
            let reached = self.is_reached(&dispatch, &tally);
            let why = match exhausted {
                _ if reached => Some("the goal is reached".to_owned()),
                Some(skipped) if !pending => {
                    Some(format!("nothing more can be stopped now ({})", skipped_text(&skipped)))
                }
                _ => None,
            };
            if let Some(why) = why {
                dispatch.state = DispatchStateV1::Holding;
                self.report(&mut dispatch, format!("{why}: {} proven", tally.held));
                self.put_dispatch(&dispatch);
            }
        }
        self.report_progress(&mut dispatch);
    }

    /// Chosen miners become targets.
    fn take(&mut self, dispatch: &mut DispatchRecord, picks: &[&Candidate<'a>], need: &Need, skipped: &[Skipped]) {
        dispatch.steps_down += 1;
        dispatch.last_down = Some(self.at);
        let first = dispatch.ranks;
        dispatch.ranks = dispatch.ranks.saturating_add(u32::try_from(picks.len()).unwrap_or(u32::MAX));
        dispatch.forced |= picks.iter().any(|pick| pick.breaks.is_some());
        let saves = sum_saves(picks.iter().copied());
        let missing = match *need {
            Need::Watts { want, .. } => format!("{} missing", watts(want)),
            Need::Miners(count) => format!("{count} miners missing"),
            Need::All | Need::Nothing => "all that can be stopped".to_owned(),
        };
        let (state, step, count) = (dispatch.state, dispatch.steps_down, picks.len());
        // The pace is stored before the miners: a crash in between costs a ramp step, not a double one.
        self.put_dispatch(dispatch);
        for (place, pick) in picks.iter().enumerate() {
            let rank = first.saturating_add(u32::try_from(place).unwrap_or(u32::MAX));
            self.add_target(dispatch, pick, rank, place + 1);
        }
        let what = if state == DispatchStateV1::Holding { "top-up, step" } else { "step" };
        // Of all that isn't taken once is told; the rest is in the preview.
        let others = if step == 1 { format!("; {}", skipped_text(skipped)) } else { String::new() };
        self.report(dispatch, format!("{what} {step}: {count} miners for {saves}, {missing}{others}"));
        self.put_dispatch(dispatch);
    }

    fn add_target(&mut self, dispatch: &DispatchRecord, pick: &Candidate<'a>, rank: u32, place: usize) {
        let miner = pick.miner.id;
        let key = dispatch.key;
        let ramp = dispatch.terms.ramp_down;
        let mut target = TargetRecord {
            dispatch: key,
            miner,
            state: TargetStateV1::Planned,
            evidence: EvidenceV1::default(),
            rank,
            step: dispatch.steps_down,
            due: self.at.plus(ramp::jitter(&ramp, self.policy.seed, key, miner, false)),
            saves: pick.saves,
            power_before: pick.power,
            hashrate_before: pick.hashrate,
            was_mining: pick.is_mining,
            tries: 0,
            retry_at: self.at,
            left: false,
            done: false,
            forced: pick.breaks.is_some(),
        };
        let why = pick.why(dispatch.terms.order, place);
        let others: Vec<_> = self.book.dispatches_of(miner).filter(|other| *other != key).collect();
        let hold = self.hold(miner);
        if let Some(hold) = &hold {
            target.state = crate::target::state_of(hold.phase);
            target.evidence = hold.evidence;
        }
        self.report_target(&target, hold.as_ref().map(|hold| hold.pre.clone()), &why);
        self.put_target(target);
        if let Some(hold) = hold {
            self.rejoin(hold);
        }
        for other in others {
            let Some(theirs) = self.book.target(other, miner) else { continue };
            // One that still wants it asleep shares it, unless it's taken away.
            if theirs.left || pick.takes_from == Some(other) {
                let mut theirs = (**theirs).clone();
                self.hand_over(&mut theirs, key);
                self.put_target(theirs);
            }
        }
    }

    /// Lets go of what exceeds a goal that was lowered, or a cap that has become roomy.
    fn trim(&mut self, dispatch: &mut DispatchRecord) {
        let roomy = match dispatch.terms.goal {
            GoalV1::CapAt(cap) => {
                let keep = cap.get() * (1.0 - self.policy.cap_headroom.clamp(0.0, 1.0));
                Some(keep - self.draw().get())
            }
            _ => None,
        };
        if !dispatch.trim && roomy.is_none_or(|roomy| roomy <= 0.0) {
            return;
        }
        let mut targets = self.targets(dispatch.key);
        targets.retain(|target| !target.left);
        targets.sort_by_key(|target| std::cmp::Reverse(target.rank));
        let tally = self.tally(dispatch.key);
        let (mut spare, mut count) = match dispatch.terms.goal {
            GoalV1::ReduceBy { target, .. } => {
                (tally.held.get() + tally.pending.get() - target.get(), u32::MAX)
            }
            GoalV1::CapAt(_) => (roomy.unwrap_or(0.0), u32::MAX),
            GoalV1::Count(count) => {
                (f64::INFINITY, (tally.curtailed + tally.pending_count).saturating_sub(count))
            }
            GoalV1::All => (0.0, 0),
        };
        for target in targets {
            if count == 0 {
                break;
            }
            if target.saves.get() <= spare {
                spare -= target.saves.get();
                count -= 1;
                // A cap may need it again.
                let why = format!("the goal is met without its {}", target.saves);
                self.let_go(&target, self.at.plus(self.policy.again_after), &why);
            }
        }
        if dispatch.trim {
            dispatch.trim = false;
            self.put_dispatch(dispatch);
        }
    }

    /// Forgets chosen miners that could not be read, once the goal doesn't need them.
    fn drop_failed(&mut self, key: DispatchKey) {
        for target in self.targets(key) {
            if target.tries > 0 && !target.left && !self.book.holds.contains_key(&target.miner) {
                let why = format!("the goal is met without its {}", target.saves);
                self.let_go(&target, self.at.plus(self.policy.again_after), &why);
            }
        }
    }

    /// Reports a change of what is proven when it's worth a line: 2 % of the target, or the whole.
    pub fn report_progress(&mut self, dispatch: &mut DispatchRecord) {
        let tally = self.tally(dispatch.key);
        let moved = (tally.reached.get() - dispatch.reported.get()).abs();
        let all = tally.expected.get().max(dispatch.target.get());
        if moved >= (all * 0.02).max(1.0) {
            let (reached, before) = (tally.reached, dispatch.reported);
            self.report(dispatch, format!("proven {reached}, {before} before"));
            self.put_dispatch(dispatch);
        }
    }

    /// What a hold without any dispatch is woken by: a dispatch made for it.
    pub fn adopt_orphans(&mut self) {
        let orphans: Vec<_> = self
            .book
            .holds
            .values()
            .filter(|hold| {
                let mut keys = self.book.dispatches_of(hold.miner);
                !keys.any(|key| self.book.dispatches.contains_key(&key))
            })
            .cloned()
            .collect();
        let mut made = BTreeSet::new();
        for hold in orphans {
            let key = hold.owner;
            if made.insert(key) {
                self.revive(key);
            }
            let target = TargetRecord {
                dispatch: key,
                miner: hold.miner,
                state: crate::target::state_of(hold.phase),
                evidence: hold.evidence,
                rank: 0,
                step: 0,
                due: self.at,
                saves: hold.power_before.map_or(Watts::ZERO, |power| power.saturating_sub(hold.standby)),
                power_before: hold.power_before,
                hashrate_before: hold.hashrate_before,
                was_mining: hold.was_mining,
                tries: 0,
                retry_at: Steady::NEVER,
                left: true,
                done: false,
                forced: false,
            };
            let why = format!("found held without a dispatch, at {}", power_text(hold.power_before));
            self.report_target(&target, None, &why);
            self.put_target(target);
        }
    }

    /// A dispatch that wakes: the one there was, or one in the place of one that is lost.
    fn revive(&mut self, key: DispatchKey) {
        let mut dispatch = self.book.dispatches.get(&key).cloned().unwrap_or_else(|| {
            let ramp = self.policy.orphan_ramp;
            DispatchRecord {
                key,
                revision: 0,
                state: DispatchStateV1::Recovering,
                terms: Terms {
                    goal: GoalV1::Count(0),
                    order: hashinsight_protocol::plan::SelectionOrderV1::LeastEfficientFirst,
                    level: hashinsight_protocol::plan::LevelV1::Sleep,
                    ramp_down: ramp,
                    ramp_up: ramp,
                    rules: hashinsight_protocol::plan::RulesV1 {
                        min_off: DurationMs::ZERO,
                        min_on: DurationMs::ZERO,
                        max_off: None,
                        starts_a_day: None,
                    },
                    precedence: hashinsight_protocol::plan::PrecedenceV1::Default,
                    on_lost_contact: LostContactV1::HoldToEnd,
                    recovery: RecoveryV1::Automatic,
                    force: false,
                },
                start: self.now.wall,
                end: Some(self.now.wall),
                fired: self.at,
                ends: Some(self.at),
                anchored: self.now.clock,
                boot_id: self.now.boot_id,
                rebooted: true,
                over: false,
                ending: Some(Ending::Orphaned),
                ended: Some(self.at),
                stop_force: false,
                forced: false,
                trim: false,
                target: Watts::ZERO,
                reported: Watts::ZERO,
                steps_down: 0,
                last_down: None,
                last_up: None,
                ranks: 0,
            }
        });
        if dispatch.is_done() {
            dispatch.state = DispatchStateV1::Recovering;
        }
        self.put_dispatch(&dispatch);
        self.report(&mut dispatch, "holds were found without their dispatch; waking begins".to_owned());
    }

    /// Removes what no decision needs any more.
    fn forget(&mut self) {
        let done: Vec<_> = self
            .book
            .dispatches
            .values()
            .filter(|d| d.is_done() && d.ended.is_none_or(|ended| self.at.since(ended) >= KEEP_DONE))
            .map(|d| d.key)
            .collect();
        for key in done {
            self.mark_fired(key);
            self.put(Change::DispatchGone(key));
        }
        let plans: Vec<_> = self
            .book
            .plans
            .values()
            .filter(|r| !self.plans.contains_key(&r.plan) && self.at.since(r.held) >= REMEMBER_PLAN)
            .filter(|r| self.book.dispatches.keys().all(|key| key.plan != r.plan))
            .map(|r| r.plan)
            .collect();
        for plan in plans {
            self.put(Change::PlanGone(plan));
        }
        let spent: Vec<_> =
            self.book.wear.values().filter(|wear| wear.is_spent(self.at)).map(|wear| wear.miner).collect();
        for miner in spent {
            self.put(Change::WearGone(miner));
        }
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
