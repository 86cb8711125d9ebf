//! What the journal holds of one miner: where it is, what a technician said of it, what was learned.

use hashinsight_protocol::device::CapabilitiesV1;
use hashinsight_protocol::events::MinerSeenV1;
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::readiness::ProvenWriteV1;
use hashinsight_protocol::units::{DurationMs, Hashrate, Watts};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A miner that this agent owns. Stored as JSON: a field may be added when absent means its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InventoryMiner {
    pub id: MinerId,
    pub ip: IpAddr,
    /// `None` for the configuration's.
    #[serde(default)]
    pub api_port: Option<u16>,
    #[serde(default)]
    pub rack: Option<String>,
    #[serde(default)]
    pub position: Option<String>,
    #[serde(default)]
    pub customer: Option<String>,
    /// A name in `credentials.toml`.
    #[serde(default)]
    pub credentials: Option<String>,
    /// Nobody writes to it, nobody wakes it; cleared on site.
    #[serde(default)]
    pub out_of_service: bool,
    /// Never curtailed.
    #[serde(default)]
    pub protected: bool,
    /// `None` while the device has not been recognised.
    #[serde(default)]
    pub learned: Option<Learned>,
}

/// What the device itself said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learned {
    /// Name of the firmware profile.
    pub firmware: String,
    pub model: Option<String>,
    pub version: Option<String>,
    pub serial: Option<String>,
    pub mac: Option<String>,
    pub capabilities: CapabilitiesV1,
    /// What it draws asleep.
    pub standby: Option<Watts>,
    pub nameplate_power: Option<Watts>,
    pub nameplate_hashrate: Option<Hashrate>,
    /// From wake-up to full hashrate.
    pub restart: Option<DurationMs>,
    /// Whether the device answers joined commands.
    pub joins: bool,
    /// The form of write that worked last.
    pub write_shape: Option<String>,
    /// The last write that showed its effect.
    pub proven: Option<ProvenWriteV1>,
}

/// What people, or a device that moves, change of a miner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinerEdit {
    /// It's reached elsewhere now.
    Move {
        ip: IpAddr,
        api_port: Option<u16>,
    },
    OutOfService(bool),
    Protected(bool),
}

impl MinerEdit {
    pub(super) fn apply(&self, miner: &mut InventoryMiner) {
        match *self {
            Self::Move { ip, api_port } => (miner.ip, miner.api_port) = (ip, api_port),
            Self::OutOfService(is) => miner.out_of_service = is,
            Self::Protected(is) => miner.protected = is,
        }
    }
}

impl InventoryMiner {
    /// Known by address alone.
    pub fn is_weak(&self) -> bool {
        self.learned.as_ref().is_none_or(|l| l.serial.is_none() && l.mac.is_none())
    }

    /// What the control plane is told of it: all but address and credentials.
    pub fn seen(&self) -> MinerSeenV1 {
        let learned = self.learned.clone().unwrap_or_default();
        MinerSeenV1 {
            miner: self.id,
            firmware: self.learned.as_ref().map(|l| l.firmware.clone()),
            model: learned.model,
            version: learned.version,
            serial: learned.serial,
            mac: learned.mac,
            weak_identity: self.is_weak(),
            rack: self.rack.clone(),
            position: self.position.clone(),
            customer: self.customer.clone(),
            capabilities: learned.capabilities,
            standby: learned.standby,
            nameplate_power: learned.nameplate_power,
            nameplate_hashrate: learned.nameplate_hashrate,
            restart: learned.restart,
            out_of_service: self.out_of_service,
            protected: self.protected,
        }
    }
}
