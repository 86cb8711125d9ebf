//! One simulated device: its identity, what it is set to, its body and its faults.

use crate::family::vnish;
use crate::family::web::WebState;
use crate::faults::{Fault, FaultKind, Faults};
use crate::models::{Family, Model};
use crate::physics::{Level, Phase, Plant, Sensed, Settings};
use crate::rng::{Channel, Draws};
use hashinsight_protocol::device::ModeV1;
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::units::Millis;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::fmt;
use std::net::Ipv4Addr;

/// A pool as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub url: String,
    pub user: String,
    pub pass: String,
}

/// A Whatsminer write token.
#[derive(Clone, Debug)]
pub struct Token {
    pub sign: String,
    pub key: String,
    pub expires: Millis,
}

/// What only some families remember.
#[derive(Clone, Debug)]
pub enum Own {
    None,
    Whatsminer {
        tokens: VecDeque<Token>,
        issued: u64,
    },
    Luxos {
        session: Option<(String, Millis)>,
        opened: u64,
        /// Pools beyond the third, while they are changed.
        added: Vec<Pool>,
    },
    /// Seconds by which the device's clock is off; `None`: it counts from its own boot.
    Avalon {
        clock_offset: Option<i64>,
    },
    Web(WebState),
    /// The name of the mode in which a MARA device hashes.
    Marathon {
        selector: String,
    },
}

/// Mode, limit and profile as they stand in the device's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ModeView {
    pub mode: ModeV1,
    pub vendor_mode: Option<i64>,
    pub limit_w: Option<u32>,
    pub profile: Option<String>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteResult {
    Taken,
    /// Answered with success and dropped.
    Ignored,
    /// Answered with an error.
    Refused,
}

impl WriteResult {
    pub fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
        }
    }
}

/// A change that a write asks for.
#[derive(Clone, Debug)]
pub enum Change {
    Sleep,
    Wake,
    /// Sleep or wake at this time, seconds since the farm started.
    SleepAt(f64),
    WakeAt(f64),
    Level(Level),
    /// `None` takes the limit away.
    Limit(Option<u32>),
    Profile(i8),
    Reboot,
    /// Restart of the mining program alone.
    Restart,
}

/// One device of a farm.
#[derive(Debug)]
pub struct Device {
    pub index: u32,
    pub ip: Ipv4Addr,
    pub id: MinerId,
    pub model: &'static Model,
    pub draws: Draws,
    pub plant: Plant,
    pub faults: Faults,
    pub own: Own,
    /// Fields of an Antminer's configuration that a write has changed.
    pub document: Option<Box<Map<String, Value>>>,
    /// Pools that a write has changed.
    pub pools: Option<Box<[Pool; 3]>>,
    /// The locating light.
    pub locating: bool,
    /// Answered samples.
    pub samples: u64,
    pub reads: u64,
    pub writes: u64,
}

impl Device {
    pub fn new(
        index: u32,
        ip: Ipv4Addr,
        model: &'static Model,
        settings: Settings,
        seed: u64,
        scale: f64,
    ) -> Self {
        let draws = Draws::new(seed, u64::from(index) + 1);
        let mut random = [0; 16];
        random[..8].copy_from_slice(&draws.bits(Channel::Identity, 0).to_le_bytes());
        random[8..].copy_from_slice(&draws.bits(Channel::Identity, 1).to_le_bytes());
        let own = match model.family {
            Family::Whatsminer => Own::Whatsminer { tokens: VecDeque::new(), issued: 0 },
            Family::Luxos => Own::Luxos { session: None, opened: 0, added: Vec::new() },
            Family::Avalon => {
                let counts_from_boot = draws.unit(Channel::ClockOffset, 0) < 0.2;
                let offset = draws.between(Channel::ClockOffset, 1, -20.0, 20.0).round() as i64;
                Own::Avalon { clock_offset: (!counts_from_boot).then_some(offset) }
            }
            family if family.has_web_api() => Own::Web(WebState::default()),
            Family::Marathon => Own::Marathon { selector: "Stock".to_owned() },
            _ => Own::None,
        };
        Self {
            index,
            ip,
            id: MinerId::from_random(random),
            model,
            draws,
            plant: Plant::new(model, settings, draws, scale),
            faults: Faults::default(),
            own,
            document: None,
            pools: None,
            locating: false,
            samples: 0,
            reads: 0,
            writes: 0,
        }
    }

    /// Brings the device to time `t`: due steps of its body, and the faults that act by themselves.
    /// What fired is passed to `fired` with the time it happened.
    pub fn advance(&mut self, t: f64, mut fired: impl FnMut(FaultKind, f64)) {
        // A fault that fires ever so often still ends: time moves on by at least a second a turn.
        for _ in 0..10_000 {
            let Some((kind, at)) = self.next_fault(t) else { break };
            self.plant.advance(at);
            match kind {
                FaultKind::Reboot => self.plant.reboot(at),
                _ if self.plant.phase == Phase::Asleep => {
                    self.plant.wake_at(at);
                    self.plant.advance(at);
                }
                _ => {}
            }
            if let Some(fault) = self.faults.get_mut(kind) {
                fault.fired = at;
            }
            fired(kind, at);
        }
        self.plant.advance(t);
    }

    fn next_fault(&mut self, t: f64) -> Option<(FaultKind, f64)> {
        let due = |f: &Fault, at: f64| (at <= t && at < f.until).then_some((f.kind, at));
        let reboot = self.faults.iter().find(|f| f.kind == FaultKind::Reboot).and_then(|f| {
            if f.fired == f64::NEG_INFINITY {
                due(f, f.from)
            } else if f.value > 0.0 {
                due(f, f.fired + f.value.max(1.0))
            } else {
                None
            }
        });
        if reboot.is_some() {
            return reboot;
        }
        let wake = *self.faults.iter().find(|f| f.kind == FaultKind::Wake)?;
        self.plant.advance(t.min(wake.until));
        let asleep_since = (self.plant.phase == Phase::Asleep).then_some(self.plant.since)?;
        due(&wake, (asleep_since + wake.value.max(1.0)).max(wake.from).max(wake.fired + 1.0))
    }

    /// Applies what a write asks for, unless the device lies.
    pub fn apply(&mut self, t: f64, change: Change) -> WriteResult {
        if self.faults.active(FaultKind::Lie, t).is_some() {
            return WriteResult::Ignored;
        }
        let late = self.faults.active(FaultKind::Late, t).map_or(0.0, |f| f.value.max(0.0));
        // A preset of VNish's is taken by a restart of the mining program too.
        let restarts = self.model.family.has_pages() || self.model.family == Family::Vnish;
        if matches!(change, Change::Sleep | Change::Wake) && self.faults.active(FaultKind::Moves, t).is_some()
        {
            match self.model.family {
                Family::Vnish => vnish::move_a_setting(self),
                Family::Antminer | Family::Hiveon | Family::Hammer => {
                    self.document.get_or_insert_default().insert("bitmain-freq-level".into(), "80".into());
                }
                _ => self.plant.settings.limit = Some((self.plant.plate_watts() * 0.8) as u32),
            }
        }
        match change {
            // The mode is taken, and the boards go on.
            Change::Sleep if self.faults.active(FaultKind::NoEffect, t).is_some() => {
                self.plant.settings.asleep = true;
            }
            Change::Sleep => self.plant.stop(t, late),
            Change::Wake => self.plant.wake(t, late),
            Change::SleepAt(at) => self.plant.stop_at(at.max(t) + late),
            Change::WakeAt(at) => self.plant.wake_at(at.max(t) + late),
            Change::Level(level) => {
                if self.plant.settings.level != level {
                    self.plant.settings.level = level;
                    self.plant.adjust(t, restarts, late);
                }
            }
            Change::Limit(limit) => {
                self.plant.settings.limit = limit;
                self.plant.adjust(t, false, late);
            }
            Change::Profile(step) => {
                self.plant.settings.profile = step;
                self.plant.adjust(t, restarts, late);
            }
            Change::Reboot => {
                self.plant.reboot(t);
                // No session outlives a boot.
                if let Own::Luxos { session, .. } = &mut self.own {
                    *session = None;
                }
            }
            Change::Restart => self.plant.adjust(t, true, late),
        }
        WriteResult::Taken
    }

    pub fn sense(&self, t: f64) -> Sensed {
        let mut sensed = self.plant.sense(t);
        if self.faults.active(FaultKind::Die, t).is_some() {
            (sensed.watts, sensed.rate, sensed.true_rate) = (0.0, 0.0, 0.0);
        }
        sensed
    }

    pub fn mode(&self) -> ModeView {
        let s = self.plant.settings;
        let mode = match (s.asleep, s.level) {
            (true, _) => ModeV1::Sleep,
            (false, Level::Normal) => ModeV1::Normal,
            (false, Level::HighEfficiency) => ModeV1::HighEfficiency,
            (false, Level::LowPower) => ModeV1::LowPower,
            (false, Level::HighPower) => ModeV1::HighPower,
        };
        let vendor_mode = match self.model.family {
            Family::Antminer | Family::Hiveon | Family::Hammer | Family::Elphapex => {
                Some(self.antminer_mode())
            }
            Family::Whatsminer | Family::WhatsminerV3 => Some(match s.level {
                Level::LowPower => 0,
                Level::HighPower => 2,
                _ => 1,
            }),
            Family::Avalon => Some(self.work_mode()),
            Family::Goldshell => Some(match (s.asleep, s.level) {
                (true, _) => 2,
                (false, Level::LowPower) => 1,
                (false, _) => 0,
            }),
            _ => None,
        };
        let profile = match (self.model.family, &self.own) {
            (Family::Luxos, _) => Some(self.profile_name(s.profile)),
            (Family::Vnish, _) => Some(vnish::preset_name(self, s.profile)),
            (_, Own::Marathon { selector }) => Some(selector.clone()),
            _ => None,
        };
        ModeView { mode, vendor_mode, limit_w: s.limit, profile }
    }

    /// The value of an Antminer's mode key.
    pub fn antminer_mode(&self) -> i64 {
        match (self.plant.settings.asleep, self.plant.settings.level) {
            (true, _) => 1,
            (false, Level::HighEfficiency) => 2,
            (false, Level::LowPower) => 3,
            (false, _) => 0,
        }
    }

    /// Whether an Avalon's work modes begin with an economical one.
    fn eco_first(&self) -> bool {
        self.model.name.starts_with("15")
    }

    /// An Avalon's `WORKMODE`.
    pub fn work_mode(&self) -> i64 {
        let step = match self.plant.settings.level {
            Level::LowPower | Level::HighEfficiency => -1,
            Level::Normal => 0,
            Level::HighPower => 1,
        };
        (step + i64::from(self.eco_first())).max(0)
    }

    /// The level of an Avalon's work mode.
    pub fn work_level(&self, mode: i64) -> Option<Level> {
        match mode - i64::from(self.eco_first()) {
            -1 => Some(Level::LowPower),
            0 => Some(Level::Normal),
            1 => Some(Level::HighPower),
            _ => None,
        }
    }

    /// Name of a LuxOS profile, by its distance from the default.
    pub fn profile_name(&self, step: i8) -> String {
        format!("{}MHz", i32::from(self.model.mhz) + 25 * i32::from(step))
    }

    /// Pool `n` of three as configured.
    pub fn pool(&self, n: usize) -> Pool {
        if let Some(pools) = &self.pools {
            return pools[n % 3].clone();
        }
        let host = ["btc.pool-a.example:3333", "btc.pool-b.example:3333", "btc.pool-c.example:443"][n % 3];
        let account = self.draws.bits(Channel::Pool, 0) % 3;
        Pool {
            url: format!("stratum+tcp://{host}"),
            user: format!("hosting{account}.m{:05}", self.index + 1),
            pass: "x".into(),
        }
    }

    /// A made-up hardware address, locally administered.
    pub fn mac(&self) -> Mac {
        let b = self.draws.bits(Channel::Identity, 2).to_le_bytes();
        Mac([0x02 | (b[0] & 0xfc), b[1], b[2], b[3], b[4], b[5]])
    }

    /// A made-up serial number of `length` characters.
    pub fn serial(&self, part: u64, length: usize) -> String {
        const SYMBOLS: &[u8] = b"0123456789ABCDEFGHJKLMNPQRSTUVWX";
        (0..length as u64)
            .map(|i| {
                let bits = self.draws.bits(Channel::Identity, 16 + part * 64 + i);
                char::from(SYMBOLS[(bits % 32) as usize])
            })
            .collect()
    }

    /// SHA-256 over all that is configured, except the mode: what must not move when a device is
    /// stopped and woken.
    pub fn config_hash(&self) -> [u8; 32] {
        let mut text = String::new();
        for n in 0..3 {
            let p = self.pool(n);
            text.push_str(&format!("pool{n}={}|{}|{}\n", p.url, p.user, p.pass));
        }
        let s = self.plant.settings;
        text.push_str(&format!("limit={:?}\nprofile={}\n", s.limit, s.profile));
        if let Some(document) = &self.document {
            text.push_str(&Value::Object((**document).clone()).to_string());
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        hash
    }

    /// The device's own idea of the time, in seconds.
    pub fn device_time(&self, now: Millis, t: f64) -> i64 {
        let wall = now.0.div_euclid(1000);
        match self.own {
            Own::Avalon { clock_offset: Some(offset) } => wall + offset,
            Own::Avalon { clock_offset: None } => (t - self.plant.booted).max(0.0) as i64,
            _ => wall,
        }
    }
}

/// A hardware address; printed with colons, or plain with `{:#}`.
#[derive(Clone, Copy, Debug)]
pub struct Mac([u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if f.alternate() {
                write!(f, "{byte:02x}")?;
            } else {
                write!(f, "{}{byte:02X}", if i == 0 { "" } else { ":" })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::FaultOrder;
    use crate::models::of;

    fn device(family: Family) -> Device {
        let model = of(family).next().expect("every family has a model");
        let settings = Settings { asleep: false, level: Level::Normal, limit: None, profile: 0 };
        Device::new(4, Ipv4Addr::new(127, 10, 0, 5), model, settings, 7, 1.0)
    }

    #[test]
    fn identity_comes_from_the_seed() {
        let (a, b) = (device(Family::Luxos), device(Family::Luxos));
        assert_eq!(
            (a.id, a.mac().to_string(), a.serial(0, 12)),
            (b.id, b.mac().to_string(), b.serial(0, 12))
        );
        assert_eq!(a.id.to_string().as_bytes()[14], b'4');
        assert_eq!(a.config_hash(), b.config_hash());
    }

    #[test]
    fn a_lying_device_changes_nothing() {
        let mut d = device(Family::Luxos);
        d.faults.set(&FaultOrder::on(FaultKind::Lie, d.ip), 0.0);
        assert_eq!(d.apply(1.0, Change::Sleep), WriteResult::Ignored);
        d.faults.set(&FaultOrder::off(FaultKind::Lie, d.ip), 2.0);
        assert_eq!(d.apply(3.0, Change::Sleep), WriteResult::Taken);
        d.advance(30.0, |_, _| {});
        assert_eq!((d.mode().mode, d.plant.phase), (ModeV1::Sleep, Phase::Asleep));
    }

    #[test]
    fn faults_act_by_themselves_at_their_own_time() {
        let mut d = device(Family::Luxos);
        d.faults.set(&FaultOrder { value: Some(60.0), ..FaultOrder::on(FaultKind::Wake, d.ip) }, 0.0);
        d.apply(0.0, Change::Sleep);
        let mut fired = Vec::new();
        d.advance(500.0, |kind, at| fired.push((kind, at)));
        assert_eq!(fired, [(FaultKind::Wake, 64.0)], "asleep after 4 s, awake 60 s later");
        assert_eq!(d.mode().mode, ModeV1::Normal);

        let mut d = device(Family::Whatsminer);
        d.faults.set(&FaultOrder { value: Some(200.0), ..FaultOrder::on(FaultKind::Reboot, d.ip) }, 10.0);
        let mut times = Vec::new();
        d.advance(300.0, |_, at| times.push(at));
        d.advance(420.0, |_, at| times.push(at));
        assert_eq!(times, [10.0, 210.0, 410.0]);
        assert_eq!(d.plant.phase, Phase::Down);
    }

    #[test]
    fn a_limit_moves_the_config_hash_and_a_sleep_does_not() {
        let mut d = device(Family::Whatsminer);
        let hash = d.config_hash();
        d.apply(0.0, Change::Sleep);
        assert_eq!(d.config_hash(), hash);
        d.apply(0.0, Change::Limit(Some(2500)));
        assert_ne!(d.config_hash(), hash);
    }
}
