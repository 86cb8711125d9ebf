//! All that is durable: a map of small records, and the changes that make it.
//!
//! A change puts or removes one whole record, so applying it twice is applying it once, a journal may keep
//! either the log of changes or a row a record ([`Change::row`]), and any prefix of the changes is a valid
//! book: a target is put before its hold, a dispatch before its number is marked as fired, and the last
//! target is removed before its dispatch is completed.

use crate::steady::Steady;
use hashinsight_protocol::clock::ClockStateV1;
use hashinsight_protocol::device::{EvidenceV1, PreStateV1};
use hashinsight_protocol::evidence::{DispatchStateV1, DispatchV1, TargetStateV1};
use hashinsight_protocol::ids::{BootId, MinerId, PlanId};
use hashinsight_protocol::plan::{
    GoalV1, LevelV1, LostContactV1, PlanV1, PrecedenceV1, RampV1, RecoveryV1, RulesV1, SelectionOrderV1,
};
use hashinsight_protocol::units::{BootMillis, DurationMs, Hashrate, Millis, Watts};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One run of a plan, whatever its revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DispatchKey {
    pub plan: PlanId,
    pub interval: u32,
}

/// The last stored point of the steady clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRecord {
    pub boot_id: BootId,
    pub boot: BootMillis,
    pub wall: Millis,
    pub clock: ClockStateV1,
    pub steady: Steady,
}

/// Interval numbers that have had their one chance, as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired(Vec<(u32, u32)>);

impl Fired {
    pub fn contains(&self, number: u32) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&number))
    }

    pub fn insert(&mut self, number: u32) {
        if self.contains(number) {
            return;
        }
        let at = self.0.partition_point(|&(first, _)| first < number);
        self.0.insert(at, (number, number));
        self.0.dedup_by(|next, before| {
            let joined = before.1.checked_add(1) == Some(next.0);
            if joined {
                before.1 = next.1;
            }
            joined
        });
    }
}

/// What is remembered of a plan beyond its runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRecord {
    pub plan: PlanId,
    pub fired: Fired,
    /// The control plane's last sign of life, stored now and then.
    pub contact: Steady,
    /// The revision that was stopped or cancelled.
    pub closed: Option<u32>,
    /// When it was last among the held plans, stored now and then.
    pub held: Steady,
}

/// What a dispatch needs of its plan, kept beside it: a plan that is gone is still undone by its terms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    pub goal: GoalV1,
    pub order: SelectionOrderV1,
    pub level: LevelV1,
    pub ramp_down: RampV1,
    pub ramp_up: RampV1,
    pub rules: RulesV1,
    pub precedence: PrecedenceV1,
    pub on_lost_contact: LostContactV1,
    pub recovery: RecoveryV1,
    pub force: bool,
}

impl Terms {
    pub fn of(plan: &PlanV1) -> Self {
        Self {
            goal: plan.goal,
            order: plan.order,
            level: plan.level,
            ramp_down: plan.ramp_down,
            ramp_up: plan.ramp_up,
            rules: plan.rules,
            precedence: plan.precedence,
            on_lost_contact: plan.on_lost_contact,
            recovery: plan.recovery,
            force: plan.force,
        }
    }

    /// Whether dwell times may be broken.
    pub fn may_break_dwell(&self) -> bool {
        self.force || self.precedence == PrecedenceV1::GridEmergency
    }
}

/// Why a dispatch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Its interval is over.
    Time,
    /// Somebody stopped or cancelled it.
    Stopped,
    /// The plan, or this interval of it, isn't held any more.
    Removed,
    /// The control plane was out of contact for the length of the lease.
    LeaseOut,
    /// Its record was lost; what it held is woken.
    Orphaned,
}

/// One run of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DispatchRecord {
    pub key: DispatchKey,
    pub revision: u32,
    pub state: DispatchStateV1,
    pub terms: Terms,
    pub start: Millis,
    pub end: Option<Millis>,
    pub fired: Steady,
    /// The end on the steady clock; moved by orders, and by a clock that becomes certain.
    pub ends: Option<Steady>,
    /// How certain the wall clock was when `ends` was fixed.
    pub anchored: ClockStateV1,
    pub boot_id: BootId,
    /// A reboot has happened since: `ends` is not moved back any more.
    pub rebooted: bool,
    /// Its interval is over and it waits for somebody to stop it ([`RecoveryV1::ByHand`]).
    pub over: bool,
    pub ending: Option<Ending>,
    pub ended: Option<Steady>,
    /// The stop order breaks dwell times.
    pub stop_force: bool,
    /// A dwell time was broken.
    pub forced: bool,
    /// The goal was changed: what exceeds it is let go.
    pub trim: bool,
    /// What there is to reduce, fixed at the start.
    pub target: Watts,
    /// The last report of what is proven.
    pub reported: Watts,
    pub steps_down: u32,
    pub last_down: Option<Steady>,
    pub last_up: Option<Steady>,
    /// Targets so far; their ranks are drawn from it.
    pub ranks: u32,
}

impl DispatchRecord {
    /// Whether it still wants its miners asleep.
    pub fn holds(&self) -> bool {
        matches!(self.state, DispatchStateV1::Executing | DispatchStateV1::Holding)
    }

    /// Whether it still stops miners.
    pub fn stops(&self) -> bool {
        self.holds() && !self.over
    }

    /// Whether nothing is left to do for it.
    pub fn is_done(&self) -> bool {
        matches!(
            self.state,
            DispatchStateV1::Completed | DispatchStateV1::Cancelled | DispatchStateV1::Expired
        )
    }

    pub fn wire(&self) -> DispatchV1 {
        DispatchV1 { plan: self.key.plan, revision: self.revision, interval: self.key.interval }
    }
}

/// A miner of a dispatch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetRecord {
    pub dispatch: DispatchKey,
    pub miner: MinerId,
    /// As last reported.
    pub state: TargetStateV1,
    pub evidence: EvidenceV1,
    /// Place in the order of stopping; waking runs backwards.
    pub rank: u32,
    /// Ramp step.
    pub step: u32,
    /// Its step's time and its own random part.
    pub due: Steady,
    /// What stopping it is expected to save.
    pub saves: Watts,
    pub power_before: Option<Watts>,
    pub hashrate_before: Option<Hashrate>,
    pub was_mining: bool,
    /// Reads before the first write that failed.
    pub tries: u16,
    pub retry_at: Steady,
    /// The dispatch lets it go: it's to be woken, unless another holds it.
    pub left: bool,
    /// Nothing is left to do for it in this dispatch; it may be taken again from `retry_at`.
    pub done: bool,
    /// Breaks a dwell time.
    pub forced: bool,
}

/// Where a device stands between its pre-state and the wanted state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    Stopping,
    Curtailed,
    Drifted,
    Refused,
    Unreachable,
    Waking,
    RestoreFailed,
}

/// A write that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub wake: bool,
    pub at: Steady,
}

/// A miner that a write of ours may have changed, and how to put it back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HoldRecord {
    pub miner: MinerId,
    /// The dispatch that stopped it.
    pub owner: DispatchKey,
    /// As it was before the first write; never read again while the hold lasts.
    pub pre: PreStateV1,
    pub power_before: Option<Watts>,
    pub hashrate_before: Option<Hashrate>,
    pub was_mining: bool,
    pub standby: Watts,
    pub phase: Phase,
    pub since: Steady,
    pub intent: Option<Intent>,
    /// Evidence is awaited until then.
    pub awaits: Option<Steady>,
    /// Failed tries in a row.
    pub tries: u16,
    /// How often it woke by itself.
    pub drifts: u16,
    /// No read or write before.
    pub retry_at: Steady,
    /// The last stop write; dwell counts from it.
    pub stopped: Steady,
    pub last_write: Steady,
    /// A write may still take effect until then.
    pub unsure_until: Steady,
    /// No write before: the last one had no reply and may be slow rather than lost.
    pub write_after: Steady,
    pub woken: bool,
    pub evidence: EvidenceV1,
    /// Why it's in this phase.
    pub why: String,
}

/// What spares a machine: its stops of the last day, and when it was last woken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WearRecord {
    pub miner: MinerId,
    /// Stop writes that were not refused, oldest first; at most [`WearRecord::STOPS`].
    pub stops: Vec<Steady>,
    pub woken: Option<Steady>,
}

impl WearRecord {
    /// More stops than any rule allows a day.
    pub const STOPS: usize = 64;
    const DAY: DurationMs = DurationMs::from_minutes(24 * 60);
    /// No miner is kept on for longer.
    const WOKEN: DurationMs = DurationMs::from_minutes(7 * 24 * 60);

    pub fn stops_today(&self, now: Steady) -> usize {
        self.stops.iter().filter(|&&at| now.since(at) < Self::DAY).count()
    }

    /// Counts a stop and forgets those of yesterday.
    pub(crate) fn stop(&mut self, now: Steady) {
        self.stops.retain(|&at| now.since(at) < Self::DAY);
        if self.stops.len() >= Self::STOPS {
            self.stops.remove(0);
        }
        self.stops.push(now);
    }

    /// Whether it says anything any more.
    pub(crate) fn is_spent(&self, now: Steady) -> bool {
        self.stops_today(now) == 0 && self.woken.is_none_or(|at| now.since(at) >= Self::WOKEN)
    }
}

/// One change of the book.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    Clock(ClockRecord),
    Plan(PlanRecord),
    PlanGone(PlanId),
    Dispatch(Box<DispatchRecord>),
    DispatchGone(DispatchKey),
    Target(Box<TargetRecord>),
    TargetGone(DispatchKey, MinerId),
    Hold(Box<HoldRecord>),
    HoldGone(MinerId),
    Wear(WearRecord),
    WearGone(MinerId),
}

impl Change {
    /// The row that it replaces, or deletes when the flag is false.
    pub fn row(&self) -> (String, bool) {
        let dispatch = |k: &DispatchKey| format!("dispatch/{}/{}", k.plan, k.interval);
        let target = |k: &DispatchKey, m: &MinerId| format!("target/{}/{}/{m}", k.plan, k.interval);
        match self {
            Self::Clock(_) => ("clock".to_owned(), true),
            Self::Plan(r) => (format!("plan/{}", r.plan), true),
            Self::PlanGone(plan) => (format!("plan/{plan}"), false),
            Self::Dispatch(r) => (dispatch(&r.key), true),
            Self::DispatchGone(key) => (dispatch(key), false),
            Self::Target(r) => (target(&r.dispatch, &r.miner), true),
            Self::TargetGone(key, miner) => (target(key, miner), false),
            Self::Hold(r) => (format!("hold/{}", r.miner), true),
            Self::HoldGone(miner) => (format!("hold/{miner}"), false),
            Self::Wear(r) => (format!("wear/{}", r.miner), true),
            Self::WearGone(miner) => (format!("wear/{miner}"), false),
        }
    }
}

/// All that is durable. Serialised as the changes that make it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Change>", into = "Vec<Change>")]
pub struct Book {
    pub clock: Option<ClockRecord>,
    pub plans: BTreeMap<PlanId, PlanRecord>,
    pub dispatches: BTreeMap<DispatchKey, DispatchRecord>,
    pub targets: BTreeMap<DispatchKey, BTreeMap<MinerId, Arc<TargetRecord>>>,
    pub holds: BTreeMap<MinerId, Arc<HoldRecord>>,
    pub wear: BTreeMap<MinerId, Arc<WearRecord>>,
    /// Targets that are not done, by miner; follows from `targets`.
    by_miner: BTreeSet<(MinerId, DispatchKey)>,
}

impl Book {
    /// Applies one change; again is the same as once.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Clock(r) => self.clock = Some(*r),
            Change::Plan(r) => _ = self.plans.insert(r.plan, r.clone()),
            Change::PlanGone(plan) => _ = self.plans.remove(plan),
            Change::Dispatch(r) => _ = self.dispatches.insert(r.key, (**r).clone()),
            Change::DispatchGone(key) => _ = self.dispatches.remove(key),
            Change::Target(r) => {
                if r.done {
                    self.by_miner.remove(&(r.miner, r.dispatch));
                } else {
                    self.by_miner.insert((r.miner, r.dispatch));
                }
                self.targets.entry(r.dispatch).or_default().insert(r.miner, Arc::new((**r).clone()));
            }
            Change::TargetGone(key, miner) => {
                self.by_miner.remove(&(*miner, *key));
                if let Some(targets) = self.targets.get_mut(key) {
                    targets.remove(miner);
                    if targets.is_empty() {
                        self.targets.remove(key);
                    }
                }
            }
            Change::Hold(r) => _ = self.holds.insert(r.miner, Arc::new((**r).clone())),
            Change::HoldGone(miner) => _ = self.holds.remove(miner),
            Change::Wear(r) => _ = self.wear.insert(r.miner, Arc::new(r.clone())),
            Change::WearGone(miner) => _ = self.wear.remove(miner),
        }
    }

    /// The dispatches in which a miner is a target that isn't done.
    pub fn dispatches_of(&self, miner: MinerId) -> impl Iterator<Item = DispatchKey> + '_ {
        let first = DispatchKey { plan: PlanId::from_bytes([0; 16]), interval: 0 };
        let last = DispatchKey { plan: PlanId::from_bytes([255; 16]), interval: u32::MAX };
        self.by_miner.range((miner, first)..=(miner, last)).map(|&(_, key)| key)
    }

    /// The dispatches that want a miner asleep.
    pub fn claims(&self, miner: MinerId) -> impl Iterator<Item = DispatchKey> + '_ {
        self.dispatches_of(miner).filter(move |key| {
            self.dispatches.get(key).is_some_and(DispatchRecord::holds)
                && self.target(*key, miner).is_some_and(|t| !t.left)
        })
    }

    pub fn target(&self, key: DispatchKey, miner: MinerId) -> Option<&Arc<TargetRecord>> {
        self.targets.get(&key)?.get(&miner)
    }

    /// The targets of a dispatch, those that are done included.
    pub fn targets_of(&self, key: DispatchKey) -> impl Iterator<Item = &Arc<TargetRecord>> {
        self.targets.get(&key).into_iter().flat_map(BTreeMap::values)
    }
}

impl From<Vec<Change>> for Book {
    fn from(changes: Vec<Change>) -> Self {
        let mut book = Self::default();
        for change in &changes {
            book.apply(change);
        }
        book
    }
}

impl From<Book> for Vec<Change> {
    fn from(book: Book) -> Self {
        let targets = book.targets.into_values().flat_map(BTreeMap::into_values);
        let mut changes: Self = book.clock.into_iter().map(Change::Clock).collect();
        changes.extend(book.plans.into_values().map(Change::Plan));
        changes.extend(book.dispatches.into_values().map(|r| Change::Dispatch(Box::new(r))));
        changes.extend(targets.map(|r| Change::Target(Box::new(Arc::unwrap_or_clone(r)))));
        changes.extend(book.holds.into_values().map(|r| Change::Hold(Box::new(Arc::unwrap_or_clone(r)))));
        changes.extend(book.wear.into_values().map(|r| Change::Wear(Arc::unwrap_or_clone(r))));
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fired_numbers_are_kept_as_ranges() {
        let mut fired = Fired::default();
        for number in [5, 1, 3, 2, 9, 4, 2, u32::MAX] {
            fired.insert(number);
        }
        assert_eq!(fired.0, [(1, 5), (9, 9), (u32::MAX, u32::MAX)]);
        assert!(fired.contains(4) && !fired.contains(6) && !fired.contains(0));
    }
}
