//! A pure model of a miner: settings, power, and ways to go wrong.

use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};
use hashinsight_protocol::units::Watts;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Obeys,
    /// Says yes to a stop and does nothing.
    Ignores,
    /// Takes the setting of a stop and goes on hashing.
    Lies,
    /// Says no to a stop.
    Refuses,
    /// The reply to a write is lost; it lands later.
    Late,
    /// The reply to a write is lost; it never lands.
    Loses,
    /// Does not come back from a wake-up for the first tries.
    HardToWake(u8),
    /// A guard of its own stands against waking it until so many seconds; nothing is written till then.
    Guarded(u64),
}

pub const NORMAL: i64 = 0;
pub const ASLEEP: i64 = 1;
pub const EFFICIENT: i64 = 2;

#[derive(Clone, Debug)]
pub struct Spec {
    pub kind: Kind,
    pub setting: i64,
    pub failed: bool,
    pub power: f64,
    pub terahash: f64,
    /// Seconds until a write has its effect.
    pub delay: u64,
    /// Seconds at which it wakes by itself.
    pub wakes_at: Option<u64>,
    /// Seconds between which it doesn't answer.
    pub silent: Option<(u64, u64)>,
    /// Whether its readings tell the mode.
    pub tells_mode: bool,
    pub weak: bool,
    pub protected: bool,
}

#[derive(Clone, Debug)]
pub struct Device {
    pub spec: Spec,
    pub setting: i64,
    hashing: bool,
    /// A write on its way: when it lands, the setting, whether hashing follows.
    landing: Option<(u64, i64, bool)>,
    woken_itself: bool,
    tries: u8,
    /// The setting that a person chose or found, and that has to be there in the end.
    pub wanted: i64,
    pub stops: Vec<u64>,
    pub wakes: Vec<u64>,
}

pub const STANDBY: f64 = 15.0;

impl Device {
    pub fn new(spec: Spec) -> Self {
        let hashing = spec.setting != ASLEEP && !spec.failed;
        Self {
            setting: spec.setting,
            wanted: spec.setting,
            spec,
            hashing,
            landing: None,
            woken_itself: false,
            tries: 0,
            stops: Vec::new(),
            wakes: Vec::new(),
        }
    }

    /// `ms` of true time.
    pub fn advance(&mut self, ms: u64) {
        if let Some((at, setting, hashing)) = self.landing
            && at <= ms
        {
            self.setting = setting;
            self.hashing = hashing;
            self.landing = None;
        }
        if self.spec.wakes_at.is_some_and(|at| at * 1000 <= ms) && !self.woken_itself {
            self.woken_itself = true;
            if self.setting == ASLEEP && self.wanted != ASLEEP {
                self.setting = NORMAL;
                self.hashing = true;
            }
        }
    }

    pub fn answers(&self, ms: u64) -> bool {
        self.spec.silent.is_none_or(|(from, to)| !(from * 1000..to * 1000).contains(&ms))
    }

    pub fn power(&self) -> f64 {
        if self.hashing { self.spec.power } else { STANDBY }
    }

    pub fn terahash(&self) -> f64 {
        if self.hashing { self.spec.terahash } else { 0.0 }
    }

    pub fn settings(&self) -> PreStateV1 {
        let mode = match self.setting {
            _ if self.spec.failed => ModeV1::Failed,
            ASLEEP => ModeV1::Sleep,
            EFFICIENT => ModeV1::HighEfficiency,
            _ => ModeV1::Normal,
        };
        let limit = Watts::new(self.spec.power.round());
        PreStateV1 { mode, vendor_mode: Some(self.setting), limit, profile: None, config_hash: None }
    }

    /// A person stops it.
    pub fn put_to_sleep(&mut self) {
        self.setting = ASLEEP;
        self.wanted = ASLEEP;
        self.hashing = false;
        self.landing = None;
    }

    fn is_guarded(&self, ms: u64) -> bool {
        self.setting == ASLEEP && matches!(self.spec.kind, Kind::Guarded(until) if ms < until * 1000)
    }

    pub fn stop(&mut self, ms: u64) -> FactV1 {
        self.stops.push(ms);
        let lands = ms + self.spec.delay * 1000;
        match self.spec.kind {
            Kind::Ignores => FactV1::Yes,
            Kind::Refuses => FactV1::No,
            Kind::Loses => FactV1::Unknown,
            Kind::Lies => {
                self.setting = ASLEEP;
                FactV1::Yes
            }
            Kind::Late => {
                self.landing = Some((lands + 20_000, ASLEEP, false));
                FactV1::Unknown
            }
            Kind::Obeys | Kind::HardToWake(_) | Kind::Guarded(_) => {
                self.landing = Some((lands, ASLEEP, false));
                FactV1::Yes
            }
        }
    }

    pub fn wake(&mut self, ms: u64, setting: i64) -> FactV1 {
        if self.is_guarded(ms) {
            return FactV1::NotApplicable;
        }
        self.wakes.push(ms);
        let lands = ms + self.spec.delay * 1000;
        match self.spec.kind {
            Kind::HardToWake(tries) if self.tries < tries => {
                self.tries += 1;
                FactV1::Yes
            }
            Kind::Late => {
                self.landing = Some((lands + 20_000, setting, true));
                FactV1::Unknown
            }
            _ => {
                self.landing = Some((lands, setting, true));
                FactV1::Yes
            }
        }
    }
}
