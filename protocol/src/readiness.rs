//! Whether miners could be stopped and woken right now, as their agent has found out without writing.

use crate::envelope::WireError;
use crate::ids::MinerId;
use crate::limits;
use crate::units::Millis;
use serde::{Deserialize, Serialize};

/// What is known of the right to write to a device, proven without writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessV1 {
    /// Not found out yet.
    #[default]
    Unknown,
    /// The firmware asks for no sign-in.
    NotNeeded,
    /// The device took the sign-in.
    Proven,
    /// Only a write can prove it, and nothing speaks against one.
    ByWriteOnly,
    /// The device refuses the user name or password.
    Refused,
    /// Writes are switched off on the device, or not allowed from the agent's address.
    WritesOff,
}

/// One thing that stands against stopping or waking a miner now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockerV1 {
    /// The device has not been recognised.
    NotRecognised,
    /// It has not answered lately.
    Unreachable,
    /// Another device answers at its address.
    OtherDevice,
    /// It is known by its address alone, and the agent does not take such miners.
    WeakIdentity,
    /// Its firmware can't be put to sleep by us.
    NoCapability,
    /// It refuses the user name or password.
    CredentialRefused,
    /// It takes no writes, or none from here.
    WritesOff,
    /// Its present settings can't be read, so it could not be put back.
    SettingsUnreadable,
    /// Out of service: nobody writes to it.
    OutOfService,
    /// Protected: never curtailed.
    Protected,
    /// The agent's journal can't be written, so it stops nothing new.
    Journal,
}

impl BlockerV1 {
    /// In words, with what to do.
    pub fn words(self) -> &'static str {
        match self {
            Self::NotRecognised => "the device has not been recognised yet",
            Self::Unreachable => "it has not answered lately; is it on, and is its network up?",
            Self::OtherDevice => "another device answers at its address; run discover",
            Self::WeakIdentity => "known by its address alone, and such miners are not taken",
            Self::NoCapability => "its firmware can't be put to sleep from here",
            Self::CredentialRefused => "it refuses the user name or password; set the miner's credentials",
            Self::WritesOff => "it takes no writes from here; switch them on at the device",
            Self::SettingsUnreadable => "its settings can't be read, so it could not be put back",
            Self::OutOfService => "out of service; unlock it when the work on it is done",
            Self::Protected => "protected from curtailment",
            Self::Journal => "the agent's journal can't be written, so nothing new is stopped",
        }
    }

    /// Whether nothing that a plan's own rules judge (identity, capability, locks) covers it.
    pub fn is_passing(self) -> bool {
        !matches!(self, Self::WeakIdentity | Self::NoCapability | Self::OutOfService | Self::Protected)
    }
}

/// The last write to a miner that was proven by its effect on power or hashrate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenWriteV1 {
    pub at: Millis,
    /// A wake; a stop otherwise.
    pub wake: bool,
    /// Which form of the write worked.
    pub shape: Option<String>,
}

/// One miner's readiness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinerReadyV1 {
    pub miner: MinerId,
    /// What stands against it; ready when nothing does.
    pub blockers: Vec<BlockerV1>,
    pub access: AccessV1,
    pub proven: Option<ProvenWriteV1>,
}

impl MinerReadyV1 {
    pub fn is_ready(&self) -> bool {
        self.blockers.is_empty()
    }
}

/// The miners whose readiness is new or has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadinessV1 {
    pub miners: Vec<MinerReadyV1>,
}

/// Miners of one event: with the longest texts they fit [`limits::EVENT_BYTES`] by half.
pub const MINERS: usize = 250;
/// Bytes of a write's shape.
pub const SHAPE_BYTES: usize = 64;
/// More than there are kinds of blockers.
const BLOCKERS: usize = 32;

impl ReadinessV1 {
    pub(crate) fn check(&self) -> Result<(), WireError> {
        use crate::envelope::at_most;
        at_most("the miners of a readiness", self.miners.len(), MINERS)?;
        self.miners.iter().try_for_each(|miner| {
            at_most("a miner's blockers", miner.blockers.len(), BLOCKERS)?;
            let shape = miner.proven.as_ref().and_then(|proven| proven.shape.as_ref());
            at_most("a write's shape", shape.map_or(0, String::len), limits::TEXT_BYTES)
        })
    }
}
