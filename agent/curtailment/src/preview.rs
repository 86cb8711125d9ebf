//! What a plan would do, on these readings: the selection of the first ramp step, carried on to the goal.

use crate::book::{Book, Terms};
use crate::draft::{Draft, Scope};
use crate::goal::{Need, Within};
use crate::input::{Miner, Now, Policy, watts};
use crate::ramp;
use crate::selection::{SkipReason, Skipped, candidates, choose};
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::plan::{GoalV1, PlanV1};
use hashinsight_protocol::units::{DurationMs, Hashrate, JoulesPerTerahash, Watts};
use serde::{Deserialize, Serialize};

/// A miner that would be stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    pub miner: MinerId,
    pub power: Option<Watts>,
    pub standby: Watts,
    pub saves: Watts,
    pub hashrate: Option<Hashrate>,
    pub efficiency: Option<JoulesPerTerahash>,
    /// Ramp step, from 1.
    pub step: u32,
    pub why: String,
}

/// What a plan would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// In the order of stopping.
    pub taken: Vec<Taken>,
    pub skipped: Vec<Skipped>,
    pub reduces: Watts,
    pub hashrate_lost: Hashrate,
    /// What the stopped miners go on drawing.
    pub standby: Watts,
    /// Of the plan: what it wants reduced; the whole reduction for a goal that isn't in watts.
    pub target: Watts,
    pub reaches_target: bool,
    /// From the first stop to the last.
    pub ramp: DurationMs,
}

/// What a plan would do if it started now.
pub fn preview(now: Now, policy: &Policy, plan: &PlanV1, miners: &[Miner], book: &Book) -> Preview {
    let draft = Draft::new(now, policy, &[], miners, book);
    let terms = Terms::of(plan);
    let (found, mut skipped) = candidates(&draft, None, &terms, &Scope::of(plan));
    let (need, target) = match terms.goal {
        GoalV1::ReduceBy { target, .. } => {
            let want = target.get() * (1.0 + policy.over_shed.clamp(0.0, 1.0));
            (Need::Watts { want, within: Within { target: want, limit: want } }, Some(target))
        }
        GoalV1::CapAt(cap) => {
            let want = draft.draw().saturating_sub(cap);
            (Need::Watts { want: want.get(), within: Within::ANY }, Some(want))
        }
        GoalV1::Count(count) => (Need::Miners(count), None),
        GoalV1::All => (Need::All, None),
    };
    let chosen = choose(&need, &found, usize::MAX);
    let batch = match terms.ramp_down.every {
        DurationMs::ZERO => usize::MAX,
        _ => usize::from(terms.ramp_down.batch.max(1)),
    };
    let mut preview = Preview::default();
    let (mut reduces, mut lost) = (0.0, 0.0);
    for (candidate, chosen) in found.iter().zip(chosen) {
        if !chosen {
            skipped.push(Skipped { miner: candidate.miner.id, reason: SkipReason::NotNeeded });
            continue;
        }
        let place = preview.taken.len();
        reduces += candidate.saves.get();
        lost += candidate.hashrate.map_or(0.0, Hashrate::get);
        preview.standby += candidate.miner.standby;
        preview.taken.push(Taken {
            miner: candidate.miner.id,
            power: candidate.power,
            standby: candidate.miner.standby,
            saves: candidate.saves,
            hashrate: candidate.hashrate,
            efficiency: candidate.efficiency,
            step: u32::try_from(place / batch).unwrap_or(u32::MAX).saturating_add(1),
            why: candidate.why(terms.order, place % batch + 1),
        });
    }
    preview.reduces = watts(reduces);
    preview.hashrate_lost = Hashrate::new(lost).unwrap_or_default();
    preview.target = target.unwrap_or(preview.reduces);
    preview.reaches_target = match terms.goal {
        GoalV1::Count(count) => preview.taken.len() >= usize::try_from(count).unwrap_or(usize::MAX),
        GoalV1::All => true,
        GoalV1::ReduceBy { .. } | GoalV1::CapAt(_) => preview.reduces >= preview.target,
    };
    preview.ramp = ramp::duration(&terms.ramp_down, preview.taken.len());
    preview.skipped = skipped;
    preview
}
