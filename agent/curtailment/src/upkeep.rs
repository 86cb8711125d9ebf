//! The book's own upkeep: holds that have lost their dispatch, and records that no decision needs any more.

use crate::book::{Change, DispatchKey, DispatchRecord, Ending, TargetRecord, Terms};
use crate::draft::{Draft, power_text};
use crate::steady::Steady;
use crate::target::state_of;
use hashinsight_protocol::evidence::DispatchStateV1;
use hashinsight_protocol::plan::{
    GoalV1, LevelV1, LostContactV1, PrecedenceV1, RecoveryV1, RulesV1, SelectionOrderV1,
};
use hashinsight_protocol::units::{DurationMs, Watts};
use std::collections::BTreeSet;

/// A plan that isn't held any more is remembered this long, so that its intervals don't fire again should
/// it come back.
const REMEMBER_PLAN: DurationMs = DurationMs::from_minutes(60 * 24 * 60);
/// How long a finished dispatch stays in the book.
const KEEP_DONE: DurationMs = DurationMs::from_minutes(24 * 60);

impl Draft<'_> {
    /// What a hold without any dispatch is woken by: a dispatch made for it.
    pub fn adopt_orphans(&mut self) {
        let has_dispatch = |miner, key| {
            self.book.dispatches.contains_key(&key)
                && self.book.target(key, miner).is_some_and(|target| !target.done)
        };
        let orphans: Vec<_> = self
            .book
            .holds
            .values()
            // Nearly always its owner has it.
            .filter(|hold| !has_dispatch(hold.miner, hold.owner))
            .filter(|hold| !self.book.dispatches_of(hold.miner).any(|key| has_dispatch(hold.miner, key)))
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
                state: state_of(hold.phase),
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
    pub fn revive(&mut self, key: DispatchKey) {
        let mut dispatch = self.book.dispatches.get(&key).cloned().unwrap_or_else(|| {
            let ramp = self.policy.orphan_ramp;
            DispatchRecord {
                key,
                revision: 0,
                state: DispatchStateV1::Recovering,
                terms: Terms {
                    goal: GoalV1::Count(0),
                    order: SelectionOrderV1::LeastEfficientFirst,
                    level: LevelV1::Sleep,
                    ramp_down: ramp,
                    ramp_up: ramp,
                    rules: RulesV1 {
                        min_off: DurationMs::ZERO,
                        min_on: DurationMs::ZERO,
                        max_off: None,
                        starts_a_day: None,
                    },
                    precedence: PrecedenceV1::Default,
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
    pub fn forget(&mut self) {
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
