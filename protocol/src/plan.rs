//! A plan as one agent gets it: the agent's own share, times in UTC, nothing left to interpret.
//!
//! Frozen once released. A new goal or order is a new variant at the end; an agent that doesn't know
//! it refuses that plan alone, with a reason.

use crate::envelope::{Body, WireError, at_most};
use crate::ids::{MinerId, PlanId};
use crate::limits;
use crate::units::{DurationMs, Millis, Watts};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanV1 {
    pub id: PlanId,
    /// Rises with every change of this plan.
    pub revision: u32,
    pub scope: ScopeV1,
    pub goal: GoalV1,
    pub order: SelectionOrderV1,
    pub level: LevelV1,
    /// When to curtail, in rising order, without overlap. A recurrence arrives expanded.
    pub intervals: Vec<IntervalV1>,
    pub ramp_down: RampV1,
    pub ramp_up: RampV1,
    pub rules: RulesV1,
    pub precedence: PrecedenceV1,
    pub on_lost_contact: LostContactV1,
    pub recovery: RecoveryV1,
    pub uncertain_clock: UncertainClockV1,
    /// Whether dwell times and starts a day may be broken; recorded wherever it takes effect.
    pub force: bool,
    /// Why, in the operator's words.
    pub reason: String,
}

/// Which of the agent's miners a plan may touch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScopeV1 {
    /// All that the agent owns, except these.
    AllExcept(Vec<MinerId>),
    /// These alone.
    Only(Vec<MinerId>),
}

impl ScopeV1 {
    pub fn covers(&self, miner: MinerId) -> bool {
        match self {
            Self::AllExcept(miners) => !miners.contains(&miner),
            Self::Only(miners) => miners.contains(&miner),
        }
    }
}

/// What a plan wants of this agent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum GoalV1 {
    /// Draw this much less than just before the start. Top-up may use the reserve beside it.
    ReduceBy { target: Watts, reserve: Watts },
    /// Draw no more than this, standby power included.
    CapAt(Watts),
    /// Stop this many miners.
    Count(u32),
    /// Stop all that can be stopped.
    All,
}

/// Who is taken first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SelectionOrderV1 {
    /// Worst J/TH first.
    LeastEfficientFirst,
    /// Most power first: the fewest miners.
    MostPowerFirst,
}

/// How deep a miner is curtailed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LevelV1 {
    Sleep,
}

/// One run of a plan: a dispatch at each site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntervalV1 {
    /// Unique within the plan for ever: an interval fires once, whatever the clock does.
    pub number: u32,
    pub start: Millis,
    /// `None`: until stopped, or until the lease runs out.
    pub end: Option<Millis>,
}

/// How fast miners are stopped or woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RampV1 {
    /// Miners a step; at least 1.
    pub batch: u16,
    /// From one step to the next.
    pub every: DurationMs,
    /// Each miner of a step waits a random part of this, drawn once.
    pub jitter: DurationMs,
}

/// What spares the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesV1 {
    /// A stopped miner stays stopped this long.
    pub min_off: DurationMs,
    /// A woken miner is left running this long.
    pub min_on: DurationMs,
    /// A miner is woken after this long at the latest.
    pub max_off: Option<DurationMs>,
    /// Stops of one miner in 24 hours.
    pub starts_a_day: Option<u16>,
}

/// Which of two plans wins a miner; less power wins between equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PrecedenceV1 {
    Default,
    Market,
    Grid,
    /// As [`Self::Grid`], and free of dwell times; recorded.
    GridEmergency,
}

/// What a running dispatch does when the control plane is out of contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostContactV1 {
    HoldToEnd,
    /// Release when the last lease, this long, runs out; measured on the boot-time clock.
    ReleaseAfter(DurationMs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoveryV1 {
    /// Wake at the interval's end.
    Automatic,
    /// Stay asleep until somebody stops the plan.
    ByHand,
}

/// What an interval does when its start comes while the wall clock is uncertain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UncertainClockV1 {
    Start,
    Wait,
}

impl Body for PlanV1 {
    const TAG: u16 = 1;
    const WHAT: &'static str = "a plan";

    fn check(&self) -> Result<(), WireError> {
        let miners = match &self.scope {
            ScopeV1::AllExcept(miners) | ScopeV1::Only(miners) => miners.len(),
        };
        at_most("a plan's scope", miners, limits::SCOPE_MINERS)?;
        at_most("a plan's intervals", self.intervals.len(), limits::INTERVALS)?;
        at_most("a plan's reason", self.reason.len(), limits::TEXT_BYTES)?;
        if self.ramp_down.batch == 0 || self.ramp_up.batch == 0 {
            return Err(WireError::Malformed("a ramp without miners in its steps"));
        }
        let mut after = Millis(i64::MIN);
        for interval in &self.intervals {
            let end = interval.end.unwrap_or(Millis(i64::MAX));
            if interval.start < after || end <= interval.start {
                return Err(WireError::Malformed("intervals that overlap or end before they start"));
            }
            after = end;
        }
        Ok(())
    }
}
