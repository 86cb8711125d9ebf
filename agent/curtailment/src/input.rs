//! What the engine is told: the time, the site's policy, plans, miners, and what came back from devices.

use hashinsight_protocol::clock::ClockStateV1;
use hashinsight_protocol::device::{FactV1, ModeV1, PowerSourceV1, PreStateV1};
use hashinsight_protocol::ids::{BootId, MinerId};
use hashinsight_protocol::plan::{PlanV1, RampV1};
use hashinsight_protocol::readiness::BlockerV1;
use hashinsight_protocol::recovery::HeldMinerV1;
use hashinsight_protocol::units::{BootMillis, DurationMs, Hashrate, Millis, Watts};
use serde::{Deserialize, Serialize};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    pub wall: Millis,
    pub boot: BootMillis,
    pub boot_id: BootId,
    /// How far `wall` can be trusted.
    pub clock: ClockStateV1,
}

/// What a site decides for all of its plans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// A reading older than this says nothing.
    pub reading_max_age: DurationMs,
    /// A stop shows its effect this long after the write, or has failed.
    pub confirm_within: DurationMs,
    /// A wake-up shows its effect this long after the miner's own restart time, or has failed.
    pub restored_within: DurationMs,
    /// A write without an outcome for this long has an unknown one.
    pub write_timeout: DurationMs,
    /// A write of unknown outcome may still take effect for this long.
    pub late_write: DurationMs,
    /// Pause before the second try of a stop; it doubles up to [`Self::stop_retry_max`].
    pub stop_retry: DurationMs,
    pub stop_retry_max: DurationMs,
    /// Pause before the second try of a wake-up; it doubles up to [`Self::wake_retry_max`], for ever.
    pub wake_retry: DurationMs,
    pub wake_retry_max: DurationMs,
    /// Stops without effect before a miner counts as refusing.
    pub stop_tries: u16,
    /// Wake-ups without effect before a dispatch ends without the miner.
    pub wake_tries: u16,
    /// A miner that was let go of before any write isn't taken again by the same dispatch for this long.
    pub again_after: DurationMs,
    /// Share of the target that is stopped beyond it, for expected failures.
    pub over_shed: f64,
    /// A miner that saves less isn't taken for a goal in watts.
    pub candidate_floor: Watts,
    /// Share below a cap to which draw has to fall before miners are woken within the dispatch.
    pub cap_headroom: f64,
    /// Whether a miner that is known by its address alone may be curtailed.
    pub take_weak_identity: bool,
    /// The book's clock is stored this often while something is held.
    pub heartbeat: DurationMs,
    /// The longest time between two steps while a plan is held, so that a jump of the wall clock is seen.
    pub longest_wait: DurationMs,
    /// How miners are woken whose dispatch is lost from the book.
    pub orphan_ramp: RampV1,
    /// Seeds the random parts of ramps; each agent has its own.
    pub seed: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            reading_max_age: DurationMs::from_minutes(3),
            // Stock Antminers need minutes until their hashrate is down.
            confirm_within: DurationMs::from_minutes(3),
            restored_within: DurationMs::from_minutes(5),
            // They answer a sleep write after up to 35 s.
            write_timeout: DurationMs::from_secs(60),
            late_write: DurationMs::from_minutes(2),
            stop_retry: DurationMs::from_secs(10),
            stop_retry_max: DurationMs::from_minutes(5),
            wake_retry: DurationMs::from_secs(15),
            wake_retry_max: DurationMs::from_minutes(10),
            stop_tries: 2,
            wake_tries: 3,
            again_after: DurationMs::from_minutes(5),
            over_shed: 0.0,
            candidate_floor: watts(100.0),
            cap_headroom: 0.05,
            take_weak_identity: false,
            heartbeat: DurationMs::from_secs(30),
            longest_wait: DurationMs::from_secs(5),
            orphan_ramp: RampV1 { batch: 50, every: DurationMs::from_secs(30), jitter: DurationMs::ZERO },
            seed: 0,
        }
    }
}

/// A computed power; what a finite sum of watts can't be is taken as zero.
pub(crate) fn watts(value: f64) -> Watts {
    Watts::new(value.max(0.0)).unwrap_or(Watts::ZERO)
}

/// One miner as the engine sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Miner {
    pub id: MinerId,
    /// Whether its profile allows to stop it.
    pub can_sleep: bool,
    /// What is known to stand against a write now, beside what is judged here.
    #[serde(default)]
    pub blocker: Option<BlockerV1>,
    /// The newest reading of this boot.
    pub reading: Option<MinerReading>,
    /// What its family draws asleep.
    pub standby: Watts,
    pub locks: Locks,
    pub identity: Identity,
    /// From a wake-up to full hashrate, as its profile says.
    pub restart_time: DurationMs,
}

/// What a technician has decided about a miner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    /// Nobody writes to it, nobody wakes it.
    pub out_of_service: bool,
    /// Never curtailed.
    pub protected: bool,
}

/// How sure it is that a device is the miner it's taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// By serial number or MAC.
    Strong,
    /// By its address alone.
    Weak,
}

/// One reading, judged by the rules of the miner's family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MinerReading {
    pub at: Millis,
    /// When the read began.
    pub boot: BootMillis,
    pub power: Option<Watts>,
    pub power_source: Option<PowerSourceV1>,
    /// Over the shortest window that the device has; no lifetime average.
    pub hashrate: Option<Hashrate>,
    pub is_mining: Option<bool>,
    pub mode: Option<ModeV1>,
    /// Whether it's stopped: by its mode, by power and hashrate. The baseline is the hold's power.
    pub stopped: (FactV1, FactV1),
    /// Whether it runs as its hold's pre-state says: by its mode, by power and hashrate.
    pub running: (FactV1, FactV1),
}

/// A plan as the agent holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldPlan {
    pub plan: PlanV1,
    /// Ends what runs and lets nothing of this revision start again.
    pub stop: Option<StopOrder>,
    /// The control plane's last sign of life, in this boot; `None` when there was none yet.
    pub lease_from: Option<BootMillis>,
    /// Cancelled before its start; as a stop without `force` where it runs already.
    pub cancelled: bool,
    /// Miners that an admin lets go of as they are, asleep or not.
    pub released: Vec<MinerId>,
}

impl HeldPlan {
    pub fn new(plan: PlanV1) -> Self {
        Self { plan, stop: None, lease_from: None, cancelled: false, released: Vec::new() }
    }
}

/// An order to end a plan now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopOrder {
    /// Wakes miners before their shortest time asleep is over.
    pub force: bool,
    pub by: String,
    pub at: Millis,
}

/// What came back since the last step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Observation {
    /// The process has started: nothing that was under way is under way any more.
    Restarted,
    /// A read that was asked for, the identity checked.
    Prepared {
        miner: MinerId,
        pre: PreStateV1,
        /// When the read began.
        at: BootMillis,
    },
    /// No answer, or none that can be understood; or another device answered.
    PrepareFailed { miner: MinerId, why: String, identity_mismatch: bool },
    /// The device's reply to a write; `accepted: Unknown` when the reply was lost.
    Written { miner: MinerId, wake: bool, accepted: FactV1, mode: FactV1, detail: String },
    /// An earlier journal of this agent held a miner, says the control plane.
    HeldBefore(HeldMinerV1),
    /// The write failed, or wasn't sent; whether it took effect is unknown.
    WriteFailed { miner: MinerId, wake: bool, why: String, identity_mismatch: bool },
}
