//! Who is taken, in which order, and why each of the others isn't.
//!
//! Every miner of the agent gets one verdict. A miner that is asleep for a plan that has let it go is
//! taken over before anything else: it saves without a stop. One that breaks a dwell time (only where the
//! plan may) comes last.

use crate::book::{DispatchKey, HoldRecord, Phase, Terms};
use crate::draft::{Draft, Scope, power_text};
use crate::goal::Need;
use crate::input::{Identity, Miner, watts};
use hashinsight_protocol::device::{FactV1, ModeV1};
use hashinsight_protocol::ids::{MinerId, PlanId};
use hashinsight_protocol::plan::{GoalV1, SelectionOrderV1};
use hashinsight_protocol::readiness::BlockerV1;
use hashinsight_protocol::units::{DurationMs, Hashrate, JoulesPerTerahash, Watts};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// Why a miner isn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    OutOfScope,
    OutOfService,
    Protected,
    NoCapability,
    /// A write would fail now: the sign-in is refused, or the device is not there.
    NotReady {
        blocker: BlockerV1,
    },
    WeakIdentity,
    NoReading,
    StaleReading {
        age: DurationMs,
    },
    /// Asleep or stopped before: not ours to stop, so not ours to wake.
    AsleepBefore,
    /// Stopped by a fault of its own.
    Failed,
    PowerUnknown,
    BelowFloor {
        saves: Watts,
        floor: Watts,
    },
    HeldByAnother {
        plan: PlanId,
    },
    /// A wake-up of it is under way.
    Waking,
    MinOn {
        left: DurationMs,
    },
    StartsADay {
        stops: u16,
    },
    /// This dispatch has let go of it.
    LetGo {
        again_in: DurationMs,
    },
    /// The goal is reached without it, or it's more than target and reserve leave.
    NotNeeded,
}

impl SkipReason {
    /// Its class in a few words, for counts.
    pub fn class(&self) -> &'static str {
        match self {
            Self::OutOfScope => "not in scope",
            Self::OutOfService => "out of service",
            Self::Protected => "protected",
            Self::NoCapability => "without the capability",
            Self::NotReady { .. } => "not ready for a write",
            Self::WeakIdentity => "known by address alone",
            Self::NoReading => "without a reading",
            Self::StaleReading { .. } => "with an old reading",
            Self::AsleepBefore => "stopped before",
            Self::Failed => "failed",
            Self::PowerUnknown => "of unknown power",
            Self::BelowFloor { .. } => "that save too little",
            Self::HeldByAnother { .. } => "held by another plan",
            Self::Waking => "being woken",
            Self::MinOn { .. } => "woken lately",
            Self::StartsADay { .. } => "stopped too often today",
            Self::LetGo { .. } => "let go",
            Self::NotNeeded => "not needed",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfScope => write!(f, "not in the plan's scope"),
            Self::OutOfService => write!(f, "out of service"),
            Self::Protected => write!(f, "protected from curtailment"),
            Self::NoCapability => write!(f, "its firmware doesn't allow to stop it"),
            Self::NotReady { blocker } => write!(f, "{}", blocker.words()),
            Self::WeakIdentity => write!(f, "known by its address alone"),
            Self::NoReading => write!(f, "no reading yet"),
            Self::StaleReading { age } => write!(f, "last reading {:.0} s ago", age.seconds()),
            Self::AsleepBefore => write!(f, "stopped before, and not by us"),
            Self::Failed => write!(f, "stopped by a fault of its own"),
            Self::PowerUnknown => write!(f, "its power is unknown"),
            Self::BelowFloor { saves, floor } => write!(f, "would save {saves}, less than {floor}"),
            Self::HeldByAnother { plan } => write!(f, "held by plan {plan}"),
            Self::Waking => write!(f, "being woken"),
            Self::MinOn { left } => write!(f, "woken lately, stays on for {:.0} s", left.seconds()),
            Self::StartsADay { stops } => write!(f, "stopped {stops} times in 24 hours"),
            Self::LetGo { again_in } => {
                write!(f, "let go by this dispatch, not again for {:.0} s", again_in.seconds())
            }
            Self::NotNeeded => write!(f, "not needed for the goal"),
        }
    }
}

/// A miner that isn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    pub miner: MinerId,
    pub reason: SkipReason,
}

/// A miner that can be taken.
pub(crate) struct Candidate<'a> {
    pub miner: &'a Miner,
    pub power: Option<Watts>,
    pub hashrate: Option<Hashrate>,
    pub is_mining: bool,
    /// Power less standby.
    pub saves: Watts,
    pub efficiency: Option<JoulesPerTerahash>,
    /// Stopped by us already.
    pub joins: bool,
    /// Chosen by a dispatch of lower precedence that has not written yet.
    pub takes_from: Option<DispatchKey>,
    /// The dwell time that it breaks.
    pub breaks: Option<SkipReason>,
    /// Larger goes first.
    cost: f64,
}

impl Candidate<'_> {
    /// Why this miner, with the figures that decided it.
    pub fn why(&self, order: SelectionOrderV1, place: usize) -> String {
        let by = match (order, self.efficiency) {
            (SelectionOrderV1::LeastEfficientFirst, Some(efficiency)) => efficiency.to_string(),
            (SelectionOrderV1::LeastEfficientFirst, None) => "efficiency unknown or not hashing".to_owned(),
            (SelectionOrderV1::MostPowerFirst, _) => power_text(self.power),
        };
        let mut why =
            format!("place {place} in its step by {by}; saves {} of {}", self.saves, power_text(self.power));
        if self.joins {
            why.push_str("; asleep already, kept so");
        }
        if let Some(breaks) = self.breaks {
            why.push_str(&format!("; taken although {breaks}"));
        }
        why
    }

    fn order(&self, other: &Self) -> Ordering {
        (self.breaks.is_some().cmp(&other.breaks.is_some()))
            .then(other.joins.cmp(&self.joins))
            .then(other.cost.total_cmp(&self.cost))
            .then(self.miner.id.cmp(&other.miner.id))
    }
}

/// All that can be taken, in order, and all that can't. `key` is the dispatch that asks, if there is one.
pub(crate) fn candidates<'a>(
    draft: &Draft<'a>,
    key: Option<DispatchKey>,
    terms: &Terms,
    scope: &Scope,
) -> (Vec<Candidate<'a>>, Vec<Skipped>) {
    let mut taken = Vec::new();
    let mut skipped = Vec::new();
    for (at, miner) in draft.miners.iter().enumerate() {
        // A miner that is listed twice counts once.
        if draft.index.get(&miner.id) != Some(&at) {
            continue;
        }
        match verdict(draft, key, terms, scope, miner) {
            Ok(Some(candidate)) => taken.push(candidate),
            Ok(None) => {}
            Err(reason) => skipped.push(Skipped { miner: miner.id, reason }),
        }
    }
    taken.sort_unstable_by(Candidate::order);
    (taken, skipped)
}

/// `Ok(None)`: it is in the dispatch that asks.
fn verdict<'a>(
    draft: &Draft<'a>,
    key: Option<DispatchKey>,
    terms: &Terms,
    scope: &Scope,
    miner: &'a Miner,
) -> Result<Option<Candidate<'a>>, SkipReason> {
    let id = miner.id;
    if !scope.covers(id) {
        return Err(SkipReason::OutOfScope);
    }
    if let Some(target) = key.and_then(|key| draft.book.target(key, id)) {
        if !target.done && !target.left {
            return Ok(None);
        }
        if draft.at < target.retry_at {
            return Err(SkipReason::LetGo { again_in: target.retry_at.since(draft.at) });
        }
    }
    if miner.locks.out_of_service {
        return Err(SkipReason::OutOfService);
    }
    if miner.locks.protected {
        return Err(SkipReason::Protected);
    }
    if !miner.can_sleep {
        return Err(SkipReason::NoCapability);
    }
    if miner.identity == Identity::Weak && !draft.policy.take_weak_identity {
        return Err(SkipReason::WeakIdentity);
    }
    let takes_from = claim_of_another(draft, key, terms, id)?;
    if let Some(hold) = draft.book.holds.get(&id) {
        return join(draft, terms, miner, hold).map(Some);
    }
    if let Some(blocker) = miner.blocker {
        return Err(SkipReason::NotReady { blocker });
    }
    let reading = miner.reading.as_ref().ok_or(SkipReason::NoReading)?;
    let (reading, _) =
        draft.reading(miner).ok_or(SkipReason::StaleReading { age: draft.now.boot.since(reading.boot) })?;
    match reading.mode {
        Some(ModeV1::Sleep) => return Err(SkipReason::AsleepBefore),
        Some(ModeV1::Failed) => return Err(SkipReason::Failed),
        _ => {}
    }
    // What draws no power before a stop can't show the effect of one.
    if reading.stopped.0 == FactV1::Yes || reading.stopped.1 == FactV1::Yes {
        return Err(SkipReason::AsleepBefore);
    }
    let saves = saving(draft, terms, reading.power, miner.standby).map_err(|reason| match reason {
        // Some firmwares say no more in their sleep than that they don't hash.
        SkipReason::PowerUnknown if reading.is_mining == Some(false) => SkipReason::AsleepBefore,
        reason => reason,
    })?;
    let breaks = dwell(draft, terms, id)?;
    Ok(Some(candidate(terms, miner, reading.power, reading.hashrate, reading.is_mining, saves))
        .map(|c| Candidate { breaks, takes_from, ..c }))
}

fn candidate<'a>(
    terms: &Terms,
    miner: &'a Miner,
    power: Option<Watts>,
    hashrate: Option<Hashrate>,
    is_mining: Option<bool>,
    saves: Watts,
) -> Candidate<'a> {
    let efficiency = power.zip(hashrate).and_then(|(power, hashrate)| JoulesPerTerahash::of(power, hashrate));
    let idle = is_mining == Some(false) || hashrate.is_some_and(|hashrate| hashrate == Hashrate::ZERO);
    let cost = match terms.order {
        SelectionOrderV1::LeastEfficientFirst => match efficiency {
            Some(efficiency) => efficiency.get(),
            // Power without work is the worst there is; unknown goes last.
            None if idle && power.is_some() => f64::INFINITY,
            None => -1.0,
        },
        SelectionOrderV1::MostPowerFirst => power.map_or(-1.0, Watts::get),
    };
    Candidate {
        miner,
        power,
        hashrate,
        is_mining: is_mining != Some(false),
        saves,
        efficiency,
        joins: false,
        takes_from: None,
        breaks: None,
        cost,
    }
}

/// Refuses what another dispatch has, unless this one may share it or take it.
fn claim_of_another(
    draft: &Draft<'_>,
    key: Option<DispatchKey>,
    terms: &Terms,
    miner: MinerId,
) -> Result<Option<DispatchKey>, SkipReason> {
    let Some(other) = draft.book.claims(miner).find(|other| Some(*other) != key) else { return Ok(None) };
    if terms.goal == GoalV1::All {
        return Ok(None);
    }
    let held = draft.book.holds.contains_key(&miner);
    let lower = draft.book.dispatches.get(&other).is_some_and(|d| d.terms.precedence < terms.precedence);
    // A plan keeps what its own earlier interval left asleep for somebody to wake.
    let own_past = key.is_some_and(|key| key.plan == other.plan)
        && draft.book.dispatches.get(&other).is_some_and(|d| d.over);
    if own_past || (lower && !held) {
        Ok(Some(other))
    } else {
        Err(SkipReason::HeldByAnother { plan: other.plan })
    }
}

/// A miner that one of our writes may have changed, and that is to be woken, or is shared.
fn join<'a>(
    draft: &Draft<'a>,
    terms: &Terms,
    miner: &'a Miner,
    hold: &HoldRecord,
) -> Result<Candidate<'a>, SkipReason> {
    let waking = matches!(hold.phase, Phase::Waking | Phase::RestoreFailed);
    let writing = hold.intent.is_some_and(|intent| intent.wake) || (waking && hold.woken);
    if writing && !terms.may_break_dwell() {
        return Err(SkipReason::Waking);
    }
    let saves = saving(draft, terms, hold.power_before, hold.standby)?;
    let was_mining = Some(hold.was_mining);
    let taken = candidate(terms, miner, hold.power_before, hold.hashrate_before, was_mining, saves);
    Ok(Candidate { joins: !writing, breaks: writing.then_some(SkipReason::Waking), ..taken })
}

/// What stopping saves; a goal in watts needs to know.
fn saving(
    draft: &Draft<'_>,
    terms: &Terms,
    power: Option<Watts>,
    standby: Watts,
) -> Result<Watts, SkipReason> {
    let in_watts = matches!(terms.goal, GoalV1::ReduceBy { .. } | GoalV1::CapAt(_));
    let floor = draft.policy.candidate_floor;
    match power {
        None if in_watts => Err(SkipReason::PowerUnknown),
        None => Ok(Watts::ZERO),
        Some(power) => {
            let saves = power.saturating_sub(standby);
            // The floor serves goals in watts alone: it must not thin out "all".
            if in_watts && (saves < floor || saves == Watts::ZERO) {
                Err(SkipReason::BelowFloor { saves, floor })
            } else {
                Ok(saves)
            }
        }
    }
}

/// The dwell time that stands against a stop now: refused, or noted where the plan may break it.
pub(crate) fn dwell(
    draft: &Draft<'_>,
    terms: &Terms,
    miner: MinerId,
) -> Result<Option<SkipReason>, SkipReason> {
    let Some(wear) = draft.book.wear.get(&miner) else { return Ok(None) };
    let mut stands = None;
    if let Some(woken) = wear.woken {
        let left = terms.rules.min_on - draft.at.since(woken);
        if left > DurationMs::ZERO {
            stands = Some(SkipReason::MinOn { left });
        }
    }
    if let Some(most) = terms.rules.starts_a_day {
        let stops = wear.stops_today(draft.at);
        if stops >= usize::from(most) {
            stands = Some(SkipReason::StartsADay { stops: u16::try_from(stops).unwrap_or(u16::MAX) });
        }
    }
    match stands {
        Some(reason) if !terms.may_break_dwell() => Err(reason),
        stands => Ok(stands),
    }
}

/// Marks which of the ordered candidates serve the need, at most `most`.
pub(crate) fn choose(need: &Need, candidates: &[Candidate<'_>], most: usize) -> Vec<bool> {
    let mut left = most;
    let mut saved = 0.0;
    let mut taken = 0_u32;
    candidates
        .iter()
        .map(|candidate| {
            let wanted = left > 0
                && match *need {
                    Need::Nothing => false,
                    Need::All => true,
                    Need::Miners(count) => taken < count,
                    Need::Watts { want, within } => {
                        saved < want && within.allows(saved, candidate.saves.get())
                    }
                };
            if wanted {
                left -= 1;
                taken += 1;
                saved += candidate.saves.get();
            }
            wanted
        })
        .collect()
}

/// How many are skipped for which reason, most first, in words.
pub(crate) fn skipped_text(skipped: &[Skipped]) -> String {
    let mut counts: Vec<(SkipReason, usize)> = Vec::new();
    for skip in skipped {
        let same = |(reason, _): &&mut (SkipReason, usize)| {
            std::mem::discriminant(reason) == std::mem::discriminant(&skip.reason)
        };
        match counts.iter_mut().find(same) {
            Some((_, count)) => *count += 1,
            None => counts.push((skip.reason, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let texts: Vec<String> =
        counts.iter().map(|(reason, count)| format!("{count} {}", reason.class())).collect();
    if texts.is_empty() { "none skipped".to_owned() } else { format!("skipped: {}", texts.join(", ")) }
}

/// The sum of savings.
pub(crate) fn sum_saves<'a, 'b: 'a>(candidates: impl Iterator<Item = &'a Candidate<'b>>) -> Watts {
    watts(candidates.map(|c| c.saves.get()).sum())
}
