//! How a dispatch takes its miners: a ramp step at a time, and no more than its goal needs.

use crate::book::{DispatchKey, DispatchRecord, TargetRecord};
use crate::draft::{Draft, Scope};
use crate::goal::Need;
use crate::input::watts;
use crate::ramp;
use crate::selection::{Candidate, Skipped, candidates, choose, skipped_text, sum_saves};
use crate::target::state_of;
use hashinsight_protocol::device::EvidenceV1;
use hashinsight_protocol::evidence::{DispatchStateV1, TargetStateV1};
use hashinsight_protocol::plan::GoalV1;

impl<'a> Draft<'a> {
    /// One step of a ramp down: chooses as many miners as the goal needs and the ramp allows.
    pub fn ramp_down(&mut self, key: DispatchKey) {
        let Some(mut dispatch) = self.book.dispatches.get(&key).filter(|d| d.stops()).cloned() else {
            return;
        };
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
    fn take(
        &mut self,
        dispatch: &mut DispatchRecord,
        picks: &[&Candidate<'a>],
        need: &Need,
        skipped: &[Skipped],
    ) {
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
            target.state = state_of(hold.phase);
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
}
