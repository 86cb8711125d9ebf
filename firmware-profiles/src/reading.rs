//! What a device says about itself, in our units.
//!
//! What is unknown is absent, never zero. Every figure says where it comes from where that is not
//! plain, and every repair of a broken reply is named.

use hashinsight_protocol::device::{ModeV1, PowerSourceV1};
use hashinsight_protocol::units::{Celsius, DurationMs, Hashrate, Watts};
use serde_json::{Value, json};

/// One device's state at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The profile's name.
    pub firmware: String,
    pub model: Option<String>,
    /// The shortest real-time window that the device reports.
    pub hashrate: Option<Hashrate>,
    pub power: Option<Watts>,
    pub power_source: Option<PowerSourceV1>,
    /// Power limit or target that the device holds; some firmwares exceed it.
    pub limit: Option<Watts>,
    /// Every sensor on the boards, chips, inlets and outlets.
    pub temps: Vec<Celsius>,
    pub fans_rpm: Vec<u32>,
    pub is_mining: Option<bool>,
    /// The mode, where the replies of a reading carry it.
    pub mode: Option<ModeV1>,
    /// The vendor's own value of the mode.
    pub vendor_mode: Option<i64>,
    /// Name of the tuning profile or preset.
    pub profile: Option<String>,
    /// Whether the device's locating light is on.
    pub locating: Option<bool>,
    pub pools: Vec<Pool>,
    pub accepted: Option<u64>,
    pub rejected: Option<u64>,
    pub uptime: Option<DurationMs>,
    pub boards: Vec<Board>,
    pub errors: Vec<DeviceFault>,
    /// What a person should know about this reading.
    pub warnings: Vec<String>,
    /// What had to be put right in the replies.
    pub repairs: Vec<String>,
}

/// One pool as the device has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    pub url: String,
    pub worker: Option<String>,
    pub accepted: Option<u64>,
    pub rejected: Option<u64>,
    pub stale: Option<u64>,
    pub alive: Option<bool>,
}

/// One hashboard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Board {
    /// The device's own number of it.
    pub index: u32,
    pub hashrate: Option<Hashrate>,
    pub temps: Vec<Celsius>,
}

/// A fault that the device reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFault {
    pub code: String,
    pub text: Option<String>,
}

impl Reading {
    /// The reading as `probe --json` prints it; what is unknown is null.
    pub fn to_json(&self) -> Value {
        json!({
            "firmware": self.firmware,
            "model": self.model,
            "hashrate_hs": self.hashrate.map(Hashrate::get),
            "power_w": self.power.map(Watts::get),
            "power_source": self.power_source,
            "power_limit_w": self.limit.map(Watts::get),
            "temps_c": self.temps.iter().map(|t| t.get()).collect::<Vec<_>>(),
            "fans_rpm": self.fans_rpm,
            "is_mining": self.is_mining,
            "mode": self.mode,
            "profile": self.profile,
            "locating": self.locating,
            "pools": self.pools.iter().map(|pool| json!({
                "url": pool.url,
                "worker": pool.worker,
                "accepted": pool.accepted,
                "rejected": pool.rejected,
                "stale": pool.stale,
                "alive": pool.alive,
            })).collect::<Vec<_>>(),
            "accepted": self.accepted,
            "rejected": self.rejected,
            "uptime_s": self.uptime.map(DurationMs::seconds),
            "boards": self.boards.iter().map(|board| json!({
                "index": board.index,
                "hashrate_hs": board.hashrate.map(Hashrate::get),
                "temps_c": board.temps.iter().map(|t| t.get()).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "errors": self.errors.iter().map(|fault| json!({
                "code": fault.code,
                "text": fault.text,
            })).collect::<Vec<_>>(),
            "warnings": self.warnings,
            "repairs": self.repairs,
        })
    }
}
