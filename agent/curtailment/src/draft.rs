//! The working copy of a step: the book as it becomes, and what the step will say.

use crate::book::{Book, Change, DispatchKey, DispatchRecord, HoldRecord, TargetRecord, WearRecord};
use crate::goal::Tally;
use crate::input::{HeldPlan, Miner, MinerReading, Now, Policy};
use crate::steady::{Steady, SteadyClock};
use crate::step::{Event, Step};
use hashinsight_protocol::device::PreStateV1;
use hashinsight_protocol::evidence::{DispatchStepV1, TargetStepV1};
use hashinsight_protocol::ids::{MinerId, PlanId};
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::plan::{GoalV1, PlanV1, ScopeV1};
use hashinsight_protocol::units::{Millis, Watts};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

pub(crate) struct Draft<'a> {
    pub now: Now,
    pub clock: SteadyClock,
    pub at: Steady,
    pub policy: &'a Policy,
    pub plans: BTreeMap<PlanId, &'a HeldPlan>,
    pub miners: &'a [Miner],
    pub index: HashMap<MinerId, usize>,
    /// Copied when the first change comes.
    pub book: Cow<'a, Book>,
    pub out: Step,
    next: Option<Steady>,
    /// Sums of dispatches, each with the number of changes at which it was made.
    pub tallies: RefCell<BTreeMap<DispatchKey, (usize, Tally)>>,
}

impl<'a> Draft<'a> {
    pub fn new(
        now: Now,
        policy: &'a Policy,
        plans: &'a [HeldPlan],
        miners: &'a [Miner],
        book: &'a Book,
    ) -> Self {
        let (clock, store) = SteadyClock::read(book.clock.as_ref(), &now);
        let mut draft = Self {
            now,
            clock,
            at: clock.now,
            policy,
            plans: plans.iter().map(|held| (held.plan.id, held)).collect(),
            miners,
            index: miners.iter().enumerate().map(|(at, miner)| (miner.id, at)).collect(),
            book: Cow::Borrowed(book),
            out: Step::default(),
            next: None,
            tallies: RefCell::default(),
        };
        if let Some(record) = store {
            draft.put(Change::Clock(record));
        }
        draft
    }

    pub fn put(&mut self, change: Change) {
        self.book.to_mut().apply(&change);
        self.out.changes.push(change);
    }

    pub fn put_dispatch(&mut self, dispatch: &DispatchRecord) {
        self.put(Change::Dispatch(Box::new(dispatch.clone())));
    }

    pub fn put_target(&mut self, target: TargetRecord) {
        self.put(Change::Target(Box::new(target)));
    }

    pub fn put_hold(&mut self, hold: HoldRecord) {
        self.put(Change::Hold(Box::new(hold)));
    }

    /// Asks for a step at that time at the latest.
    pub fn call_at(&mut self, at: Steady) {
        if at != Steady::NEVER {
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
    }

    /// Asks for a step at that time of the wall clock at the latest.
    pub fn call_at_wall(&mut self, at: Millis) {
        self.call_at(self.at.plus(at.since(self.now.wall)));
    }

    pub fn finish(mut self) -> Step {
        let busy = !self.plans.is_empty() || !self.book.holds.is_empty();
        if busy {
            self.call_at(self.at.plus(self.policy.longest_wait));
        }
        self.out.next = self.next.map(|at| self.clock.boot_at(at));
        self.out
    }

    /// `None` for a miner that isn't ours any more: it's never written to.
    pub fn miner(&self, id: MinerId) -> Option<&'a Miner> {
        self.index.get(&id).map(|&at| &self.miners[at])
    }

    /// A miner's reading that is young enough to say something, and when it began.
    pub fn reading(&self, miner: &'a Miner) -> Option<(&'a MinerReading, Steady)> {
        let reading = miner.reading.as_ref()?;
        let at = self.clock.at(reading.boot)?;
        (self.at.since(at) <= self.policy.reading_max_age).then_some((reading, at))
    }

    pub fn hold(&self, miner: MinerId) -> Option<HoldRecord> {
        self.book.holds.get(&miner).map(|hold| (**hold).clone())
    }

    pub fn wear(&self, miner: MinerId) -> WearRecord {
        match self.book.wear.get(&miner) {
            Some(wear) => (**wear).clone(),
            None => WearRecord { miner, stops: Vec::new(), woken: None },
        }
    }

    pub fn is_claimed(&self, miner: MinerId) -> bool {
        self.book.claims(miner).next().is_some()
    }

    /// Whether a dispatch besides this one wants the miner asleep.
    pub fn is_claimed_besides(&self, miner: MinerId, key: DispatchKey) -> Option<DispatchKey> {
        self.book.claims(miner).find(|other| *other != key)
    }

    /// Dispatches in the order in which they choose: higher precedence first, then the older.
    pub fn dispatches(&self) -> Vec<DispatchKey> {
        let mut all: Vec<&DispatchRecord> = self.book.dispatches.values().collect();
        all.sort_by_key(|d| (std::cmp::Reverse(d.terms.precedence), d.fired, d.key));
        all.into_iter().map(|d| d.key).collect()
    }

    pub fn targets(&self, key: DispatchKey) -> Vec<Arc<TargetRecord>> {
        self.book.targets_of(key).filter(|t| !t.done).cloned().collect()
    }

    /// Reports a dispatch, with what is proven of it.
    pub fn report(&mut self, dispatch: &mut DispatchRecord, why: String) {
        let tally = self.tally(dispatch.key);
        dispatch.reported = tally.reached;
        let target = match dispatch.terms.goal {
            GoalV1::ReduceBy { .. } | GoalV1::CapAt(_) => dispatch.target,
            GoalV1::Count(_) | GoalV1::All => tally.expected,
        };
        self.out.events.push(Event::Dispatch(DispatchStepV1 {
            dispatch: dispatch.wire(),
            state: dispatch.state,
            target,
            reached: tally.reached,
            targets: tally.targets,
            forced: dispatch.forced,
            why: bounded_text(&why),
        }));
    }

    /// Reports a target; `pre` when it tells for the first time what to put back.
    pub fn report_target(&mut self, target: &TargetRecord, pre: Option<PreStateV1>, why: &str) {
        let Some(dispatch) = self.book.dispatches.get(&target.dispatch) else { return };
        let reading = self.miner(target.miner).and_then(|m| self.reading(m)).map(|(reading, _)| reading);
        let step = TargetStepV1 {
            dispatch: dispatch.wire(),
            miner: target.miner,
            state: target.state,
            evidence: target.evidence,
            power_before: target.power_before,
            power_now: reading.and_then(|r| r.power),
            hashrate_now: reading.and_then(|r| r.hashrate),
            pre_state: pre,
            why: bounded_text(why),
        };
        self.out.events.push(Event::Target(step));
    }
}

/// A plan's scope that is asked about many miners.
pub(crate) struct Scope {
    except: bool,
    miners: HashSet<MinerId>,
}

impl Scope {
    pub fn of(plan: &PlanV1) -> Self {
        match &plan.scope {
            ScopeV1::AllExcept(miners) => Self { except: true, miners: miners.iter().copied().collect() },
            ScopeV1::Only(miners) => Self { except: false, miners: miners.iter().copied().collect() },
        }
    }

    pub fn covers(&self, miner: MinerId) -> bool {
        self.miners.contains(&miner) != self.except
    }
}

/// "3.2 kW" or "unknown power".
pub(crate) fn power_text(power: Option<Watts>) -> String {
    power.map_or_else(|| "unknown power".to_owned(), |power| power.to_string())
}
