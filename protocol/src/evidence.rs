//! What is reported of a dispatch: its steps and its targets, each with its proof.

use crate::device::{EvidenceV1, PreStateV1};
use crate::ids::{MinerId, PlanId};
use crate::units::{Hashrate, Watts};
use serde::{Deserialize, Serialize};

/// One run of a plan at one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DispatchV1 {
    pub plan: PlanId,
    pub revision: u32,
    pub interval: u32,
}

/// Where a dispatch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DispatchStateV1 {
    /// Stopping miners.
    Executing,
    /// The target is reached, or nothing more can be stopped.
    Holding,
    /// Waking miners.
    Recovering,
    Completed,
    /// Ended, with miners that could not be woken.
    CompletedWithFailures,
    /// Ended before it started.
    Cancelled,
    /// Its time passed before it could start.
    Expired,
}

/// Where a miner of a dispatch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetStateV1 {
    /// Chosen; its ramp step has not come.
    Planned,
    /// Intent durable, write under way or waiting for evidence.
    Stopping,
    /// Stopped, with effect evidence.
    Curtailed,
    /// Was curtailed, and consumes again; it will be stopped again.
    Drifted,
    /// The device refuses or ignores the write.
    Refused,
    /// No answer; counts as consuming.
    Unreachable,
    Waking,
    /// Back in its pre-state, with evidence.
    Restored,
    /// Not back yet; it is retried for as long as it takes.
    RestoreFailed,
    /// An admin let go of it asleep.
    Released,
}

/// A step of a dispatch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DispatchStepV1 {
    pub dispatch: DispatchV1,
    pub state: DispatchStateV1,
    /// What the plan wants reduced here.
    pub target: Watts,
    /// What is proven reduced now.
    pub reached: Watts,
    pub targets: u32,
    /// Whether a dwell time was broken by `force` or a grid emergency.
    pub forced: bool,
    pub why: String,
}

/// A step of one miner in a dispatch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetStepV1 {
    pub dispatch: DispatchV1,
    pub miner: MinerId,
    pub state: TargetStateV1,
    pub evidence: EvidenceV1,
    /// Just before the stop.
    pub power_before: Option<Watts>,
    pub power_now: Option<Watts>,
    pub hashrate_now: Option<Hashrate>,
    /// With the first step of a miner: what it has to be put back to.
    pub pre_state: Option<PreStateV1>,
    pub why: String,
}
