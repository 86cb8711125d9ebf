//! What an operator asks for, validated once.

use super::usual::Usual;
use crate::error::Error;
use hashinsight_protocol::ids::{MinerId, SiteId};
use hashinsight_protocol::limits::{TEXT_BYTES, bounded_text};
use hashinsight_protocol::plan::{
    GoalV1, IntervalV1, LevelV1, LostContactV1, PlanV1, PrecedenceV1, RampV1, RecoveryV1, RulesV1, ScopeV1,
    SelectionOrderV1, UncertainClockV1,
};
use hashinsight_protocol::units::{DurationMs, Millis, Watts};
use serde::{Deserialize, Serialize};

/// Longest plan that can be ordered by hand.
pub const MAX_MINUTES: u32 = 7 * 24 * 60;
/// A start may lie this far ahead.
pub const MAX_AHEAD: DurationMs = DurationMs::from_minutes(60 * 24 * 35);
/// Reserve for top-up beyond an agent's share, as a part of it.
const RESERVE: f64 = 0.1;

/// An order as it comes from the console or the API, and as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    pub site: SiteId,
    pub goal: Goal,
    /// `None`: as soon as it is approved.
    #[serde(default)]
    pub start: Option<Millis>,
    pub minutes: u32,
    #[serde(default)]
    pub order: Order,
    /// Miners that are left alone.
    #[serde(default)]
    pub exclude: Vec<MinerId>,
    #[serde(default)]
    pub ramp_down: Option<Ramp>,
    #[serde(default)]
    pub ramp_up: Option<Ramp>,
    /// `None`: what is usual at the site; so for the ramps.
    #[serde(default)]
    pub rules: Option<Rules>,
    #[serde(default)]
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Goal {
    /// Draw this many kilowatts less than just before the start.
    ReduceKw(f64),
    /// Stop all that can be stopped.
    All,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    #[default]
    LeastEfficientFirst,
    MostPowerFirst,
}

/// Miners a step, and seconds from one step to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    pub batch: u16,
    pub every_s: u32,
}

impl Ramp {
    /// # Errors
    /// It would stand still.
    pub fn check(self) -> Result<(), Error> {
        if self.batch == 0 || self.every_s > 3600 {
            let text = "a ramp needs at least one miner a step and at most an hour between steps";
            return Err(Error::invalid(text));
        }
        Ok(())
    }
}

/// What spares the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    pub min_off_s: u32,
    pub min_on_s: u32,
    pub starts_a_day: Option<u16>,
}

impl Default for Rules {
    /// Minimum off 15 min and on 30 min, four starts a day: common practice for machines put to sleep.
    fn default() -> Self {
        Self { min_off_s: 15 * 60, min_on_s: 30 * 60, starts_a_day: Some(4) }
    }
}

/// Down fast: 6,000 machines in nine minutes, for a ten-minute product.
pub const RAMP_DOWN: Ramp = Ramp { batch: 50, every_s: 4 };
/// Up slowly: 6,000 machines in an hour.
pub const RAMP_UP: Ramp = Ramp { batch: 50, every_s: 30 };

impl PlanRequest {
    /// # Errors
    /// The first thing that can't be ordered, in words.
    pub fn check(&self, now: Millis) -> Result<(), Error> {
        let refuse = |text: &str| Err(Error::invalid(text));
        if let Goal::ReduceKw(kw) = self.goal
            && !(kw.is_finite() && (0.1..=10_000_000.0).contains(&kw))
        {
            return refuse("the reduction must lie between 0.1 kW and 10,000,000 kW");
        }
        if self.minutes == 0 || self.minutes > MAX_MINUTES {
            return refuse("the duration must lie between 1 minute and 7 days");
        }
        if self.start.is_some_and(|start| start < now || start > now.plus(MAX_AHEAD)) {
            return refuse("the start must lie between now and 35 days from now");
        }
        for ramp in [self.ramp_down, self.ramp_up].into_iter().flatten() {
            ramp.check()?;
        }
        if self.exclude.len() > hashinsight_protocol::limits::SCOPE_MINERS {
            return refuse("too many excluded miners");
        }
        if self.reason.len() > TEXT_BYTES {
            return refuse("the reason is too long");
        }
        Ok(())
    }

    /// The order with all that it leaves open put in.
    pub fn settled(self, usual: &Usual) -> Self {
        Self {
            rules: self.rules.or(Some(usual.rules)),
            ramp_down: self.ramp_down.or(Some(usual.ramp_down)),
            ramp_up: self.ramp_up.or(Some(usual.ramp_up)),
            ..self
        }
    }

    /// What a settled order keeps to.
    pub fn usual(&self) -> Usual {
        Usual {
            rules: self.rules.unwrap_or_default(),
            ramp_down: self.ramp_down.unwrap_or(RAMP_DOWN),
            ramp_up: self.ramp_up.unwrap_or(RAMP_UP),
        }
    }

    /// The whole site's target; `None` for all that can be stopped.
    pub fn target(&self) -> Option<Watts> {
        match self.goal {
            Goal::ReduceKw(kw) => Watts::from_kilowatts(kw),
            Goal::All => None,
        }
    }

    /// The plan for one agent, or for the whole site in a preview.
    pub fn plan(
        &self,
        id: hashinsight_protocol::ids::PlanId,
        revision: u32,
        start: Millis,
        share: Option<Share>,
    ) -> PlanV1 {
        let usual = self.usual();
        let ramp = |ramp: Ramp| {
            let every = DurationMs::from_secs(u64::from(ramp.every_s));
            RampV1 { batch: ramp.batch, every, jitter: DurationMs(every.0 / 4) }
        };
        let goal = match (self.goal, share) {
            (_, Some(share)) => GoalV1::ReduceBy { target: share.target, reserve: share.reserve },
            (Goal::ReduceKw(_), None) => {
                GoalV1::ReduceBy { target: self.target().unwrap_or_default(), reserve: Watts::ZERO }
            }
            (Goal::All, None) => GoalV1::All,
        };
        PlanV1 {
            id,
            revision,
            scope: ScopeV1::AllExcept(self.exclude.clone()),
            goal,
            order: match self.order {
                Order::LeastEfficientFirst => SelectionOrderV1::LeastEfficientFirst,
                Order::MostPowerFirst => SelectionOrderV1::MostPowerFirst,
            },
            level: LevelV1::Sleep,
            intervals: vec![IntervalV1 { number: 1, start, end: Some(self.end(start)) }],
            ramp_down: ramp(usual.ramp_down),
            ramp_up: ramp(usual.ramp_up),
            rules: RulesV1 {
                min_off: DurationMs::from_secs(u64::from(usual.rules.min_off_s)),
                min_on: DurationMs::from_secs(u64::from(usual.rules.min_on_s)),
                max_off: None,
                starts_a_day: usual.rules.starts_a_day,
            },
            precedence: PrecedenceV1::Market,
            on_lost_contact: LostContactV1::HoldToEnd,
            recovery: RecoveryV1::Automatic,
            uncertain_clock: UncertainClockV1::Start,
            force: false,
            reason: bounded_text(&self.reason),
        }
    }

    pub fn end(&self, start: Millis) -> Millis {
        start.plus(DurationMs::from_minutes(u64::from(self.minutes)))
    }
}

/// One agent's part of a site's target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    pub target: Watts,
    /// For top-up when miners refuse or drift.
    pub reserve: Watts,
}

impl Share {
    /// A share of `target` watts with the usual reserve, in whole watts.
    pub fn of(target: Watts) -> Self {
        let whole = |w: f64| Watts::new(w.round()).unwrap_or_default();
        Self { target: whole(target.get()), reserve: whole(target.get() * RESERVE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> PlanRequest {
        PlanRequest {
            site: SiteId::from_random([1; 16]),
            goal: Goal::ReduceKw(100.0),
            start: None,
            minutes: 30,
            order: Order::default(),
            exclude: Vec::new(),
            ramp_down: None,
            ramp_up: None,
            rules: None,
            reason: String::new(),
        }
    }

    #[test]
    fn what_cannot_be_ordered_is_refused() {
        let now = Millis(1_000_000);
        assert!(request().check(now).is_ok());
        for broken in [
            PlanRequest { goal: Goal::ReduceKw(f64::NAN), ..request() },
            PlanRequest { goal: Goal::ReduceKw(-5.0), ..request() },
            PlanRequest { minutes: 0, ..request() },
            PlanRequest { start: Some(Millis(1)), ..request() },
            PlanRequest { ramp_up: Some(Ramp { batch: 0, every_s: 1 }), ..request() },
            PlanRequest { reason: "x".repeat(600), ..request() },
        ] {
            assert!(broken.check(now).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn a_plan_keeps_the_bounds_of_the_wire() {
        use hashinsight_protocol::envelope::Body as _;
        let id = hashinsight_protocol::ids::PlanId::from_random([2; 16]);
        let plan = request().plan(id, 1, Millis(5), Some(Share::of(Watts::ZERO)));
        assert!(plan.encode().is_ok());
    }
}
