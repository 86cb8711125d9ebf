//! What is proven of a dispatch, and what its goal still needs.
//!
//! Only a miner with evidence of effect counts as reduced, by what it drew before less what it draws now
//! (its family's standby power where that is unknown). Nothing else does: one that doesn't answer counts
//! as consuming.

use crate::book::{DispatchKey, DispatchRecord, HoldRecord, Phase, TargetRecord};
use crate::draft::Draft;
use crate::input::{Miner, watts};
use hashinsight_protocol::evidence::TargetStateV1;
use hashinsight_protocol::plan::GoalV1;
use hashinsight_protocol::units::Watts;

/// Where the targets of a dispatch stand, together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Proven at this moment, with what is let go of and still asleep.
    pub reached: Watts,
    /// Proven of what is held.
    pub held: Watts,
    /// Expected of first tries that are under way.
    pub pending: Watts,
    /// Neither proven nor disproven: it may be saved, or not.
    pub open: Watts,
    /// Of all that are held, if all goes well.
    pub expected: Watts,
    pub targets: u32,
    pub curtailed: u32,
    pub pending_count: u32,
}

/// What is missing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    Nothing,
    Watts { want: f64, within: Within },
    Miners(u32),
    All,
}

/// How much more may be saved in all, in watts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within {
    /// Up to here one miner may exceed it: a target is rarely a sum of whole miners.
    pub target: f64,
    /// Up to here none may.
    pub limit: f64,
}

impl Within {
    pub const ANY: Self = Self { target: f64::INFINITY, limit: f64::INFINITY };

    pub fn allows(&self, saved: f64, more: f64) -> bool {
        saved < self.target || saved + more <= self.limit
    }
}

/// What a target means for the sums.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    Proven,
    Pending,
    Open,
    None,
}

impl Draft<'_> {
    /// The sums of a dispatch as the book stands.
    pub fn tally(&self, key: DispatchKey) -> Tally {
        let version = self.out.changes.len();
        if let Some((made, tally)) = self.tallies.borrow().get(&key)
            && *made == version
        {
            return *tally;
        }
        let tally = self.add_up(key);
        self.tallies.borrow_mut().insert(key, (version, tally));
        tally
    }

    fn add_up(&self, key: DispatchKey) -> Tally {
        let mut tally = Tally::default();
        for target in self.book.targets_of(key).filter(|t| !t.done) {
            tally.targets += 1;
            let hold = self.book.holds.get(&target.miner).map(|hold| &**hold);
            let share = self.share(target, hold);
            if share == Share::Proven {
                let saved = self.saved(target, hold);
                tally.reached += saved;
                if !target.left {
                    tally.held += saved;
                }
            }
            if target.left {
                continue;
            }
            tally.expected += target.saves;
            match share {
                Share::Proven => tally.curtailed += 1,
                Share::Pending => {
                    tally.pending += target.saves;
                    tally.pending_count += 1;
                }
                Share::Open => tally.open += target.saves,
                Share::None => {}
            }
        }
        tally
    }

    fn share(&self, target: &TargetRecord, hold: Option<&HoldRecord>) -> Share {
        let Some(hold) = hold else {
            let waits = target.state == TargetStateV1::Planned && target.tries == 0;
            return if waits { Share::Pending } else { Share::None };
        };
        match hold.phase {
            Phase::Curtailed => Share::Proven,
            Phase::Stopping | Phase::Drifted if hold.tries == 0 => Share::Pending,
            Phase::Stopping | Phase::Unreachable => Share::Open,
            _ if self.at < hold.unsure_until => Share::Open,
            _ => Share::None,
        }
    }

    /// What a curtailed miner saves at this moment.
    fn saved(&self, target: &TargetRecord, hold: Option<&HoldRecord>) -> Watts {
        let now = self
            .miner(target.miner)
            .and_then(|miner| self.reading(miner))
            .and_then(|(reading, _)| reading.power)
            .or(hold.map(|hold| hold.standby));
        target.power_before.zip(now).map_or(Watts::ZERO, |(before, now)| before.saturating_sub(now))
    }

    /// What the goal of a dispatch still needs.
    pub fn need(&self, dispatch: &DispatchRecord, tally: &Tally) -> Need {
        let sure = tally.held.get() + tally.pending.get();
        match dispatch.terms.goal {
            GoalV1::ReduceBy { target, reserve } => {
                let goal = target.get() * (1.0 + self.policy.over_shed.clamp(0.0, 1.0));
                let want = goal - sure;
                if want <= 0.0 {
                    return Need::Nothing;
                }
                let saved = sure + tally.open.get();
                let limit = goal.max(target.get() + reserve.get());
                Need::Watts { want, within: Within { target: goal - saved, limit: limit - saved } }
            }
            GoalV1::CapAt(cap) => {
                let want = self.draw().get() - cap.get();
                if want > 0.0 { Need::Watts { want, within: Within::ANY } } else { Need::Nothing }
            }
            GoalV1::Count(count) => match count.saturating_sub(tally.curtailed + tally.pending_count) {
                0 => Need::Nothing,
                missing => Need::Miners(missing),
            },
            GoalV1::All => Need::All,
        }
    }

    /// Whether what is proven is enough.
    pub fn is_reached(&self, dispatch: &DispatchRecord, tally: &Tally) -> bool {
        match dispatch.terms.goal {
            GoalV1::ReduceBy { target, .. } => tally.held >= target,
            GoalV1::CapAt(_) => {
                tally.pending_count == 0 && matches!(self.need(dispatch, tally), Need::Nothing)
            }
            GoalV1::Count(count) => tally.curtailed >= count,
            GoalV1::All => false,
        }
    }

    /// What all of the agent's miners draw once the stops under way have their effect and those that are
    /// let go are back.
    pub fn draw(&self) -> Watts {
        watts(self.miners.iter().map(|miner| self.draw_of(miner).get()).sum())
    }

    fn draw_of(&self, miner: &Miner) -> Watts {
        // A stale figure is better than none: what doesn't answer counts as consuming.
        let last = miner.reading.as_ref().and_then(|reading| reading.power);
        let Some(hold) = self.book.holds.get(&miner.id) else {
            let pending = self.book.claims(miner.id).any(|key| {
                self.book.target(key, miner.id).is_some_and(|t| self.share(t, None) == Share::Pending)
            });
            return if pending { miner.standby } else { last.unwrap_or(Watts::ZERO) };
        };
        let before = hold.power_before.unwrap_or(Watts::ZERO);
        let fresh = self.reading(miner).and_then(|(reading, _)| reading.power);
        if !self.is_claimed(miner.id) {
            return watts(before.get().max(fresh.map_or(0.0, Watts::get)));
        }
        match hold.phase {
            Phase::Curtailed => fresh.unwrap_or(hold.standby),
            Phase::Stopping | Phase::Drifted if hold.tries == 0 => hold.standby,
            _ => fresh.unwrap_or(before),
        }
    }
}
