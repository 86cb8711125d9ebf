//! What both sides say about one device: its mode, what it can do, and what is proven of a change.

use crate::units::Watts;
use serde::{Deserialize, Serialize};

/// Whether a device hashes, as its firmware says; derived from no rate and no average.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModeV1 {
    /// Hashing in the ordinary mode.
    Normal,
    /// Stopped or asleep by command.
    Sleep,
    /// A mode of less power that the vendor calls low power.
    LowPower,
    /// A mode of better J/TH ("HEM" on some Antminers).
    HighEfficiency,
    /// A mode of more power.
    HighPower,
    /// On its way up: boot, tuning, self-test.
    Starting,
    /// Stopped by a fault of its own; not curtailed.
    Failed,
}

impl ModeV1 {
    /// Stopped on purpose.
    pub fn is_asleep(self) -> bool {
        self == Self::Sleep
    }
}

/// What a device was set to before a plan touched it: all that is needed to put it back, and no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreStateV1 {
    pub mode: ModeV1,
    /// The vendor's own value of the mode, to be written back exactly (an S19K Pro in HEM says 2).
    pub vendor_mode: Option<i64>,
    /// Power limit that the device held.
    pub limit: Option<Watts>,
    /// Name of the profile or preset that the device held.
    pub profile: Option<String>,
    /// SHA-256 of the configuration that must not move, credentials included but not readable from it.
    pub config_hash: Option<[u8; 32]>,
}

/// One fact about a change. No fact waits for another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactV1 {
    #[default]
    Unknown,
    Yes,
    No,
    /// The device has no way to tell.
    NotApplicable,
}

/// The three independent facts about a change. The family's rule derives "curtailed" from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EvidenceV1 {
    /// The device's reply to the write.
    pub accepted: FactV1,
    /// The mode read back.
    pub mode: FactV1,
    /// Power and hashrate.
    pub effect: FactV1,
}

/// What can be done to a device, as its firmware profile and its credentials say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CapabilitiesV1 {
    pub sleep: bool,
    pub power_limit: bool,
    pub reboot: bool,
    pub locate: bool,
    pub set_pools: bool,
}

/// Where a power figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerSourceV1 {
    /// The device measures or estimates it itself.
    Device,
    /// From the model's J/TH and the hashrate, or its standby power.
    Model,
}
