//! What a machine does with electricity over time.
//!
//! Power and hashrate run along straight lines between a machine's phases; temperature and averages
//! follow with a time constant. All of it is a closed formula of the time since the last event (a
//! write, the end of a phase), so that a reading at a time is the same however often, or seldom, the
//! machine was asked before. Time is in seconds since the farm started.

use crate::models::{Model, Times};
use crate::rng::{Channel, Draws};

/// A vendor's modes of hashing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Normal,
    /// Better J/TH ("HEM").
    HighEfficiency,
    LowPower,
    HighPower,
}

impl Level {
    /// Share of nameplate power and hashrate.
    fn factors(self) -> (f64, f64) {
        match self {
            Self::Normal => (1.0, 1.0),
            Self::HighEfficiency => (0.78, 0.86),
            Self::LowPower => (0.62, 0.70),
            Self::HighPower => (1.12, 1.06),
        }
    }
}

/// What a machine is configured to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub asleep: bool,
    pub level: Level,
    /// Power limit in W.
    pub limit: Option<u32>,
    /// Steps below (or above) the default profile.
    pub profile: i8,
}

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Mining,
    Stopping,
    Asleep,
    /// The mining process starts; no hash yet.
    Booting,
    Ramping,
    /// Gone: the whole machine reboots.
    Down,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Mining => "mining",
            Self::Stopping => "stopping",
            Self::Asleep => "asleep",
            Self::Booting => "booting",
            Self::Ramping => "ramping",
            Self::Down => "down",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Enter(Phase),
    Fall,
    Rise,
}

/// Lagging quantities at one moment.
#[derive(Clone, Copy, Debug)]
struct Moment {
    t: f64,
    chip: f64,
    m1: f64,
    m5: f64,
    m15: f64,
    /// Hashes since the mining process started.
    work: f64,
}

/// A straight way from one power and hashrate to another, then level.
#[derive(Clone, Copy, Debug)]
struct Line {
    from: (f64, f64),
    to: (f64, f64),
    over: f64,
}

impl Line {
    fn at(&self, dt: f64) -> (f64, f64) {
        if dt >= self.over {
            return self.to;
        }
        let x = (dt / self.over).max(0.0);
        (self.from.0 + (self.to.0 - self.from.0) * x, self.from.1 + (self.to.1 - self.from.1) * x)
    }
}

/// One machine's body.
#[derive(Clone, Debug)]
pub struct Plant {
    pub settings: Settings,
    pub phase: Phase,
    /// When the present phase began.
    pub since: f64,
    /// When the mining process started, for "Elapsed".
    pub started: f64,
    /// When the machine booted.
    pub booted: f64,
    /// The API does not answer before this time.
    pub api_back: f64,
    hash_plate: f64,
    watt_plate: f64,
    standby: f64,
    ambient: f64,
    rise: f64,
    survives: bool,
    times: Times,
    scale: f64,
    draws: Draws,
    line: Line,
    base: Moment,
    /// Later steps, soonest first. At most a handful.
    steps: Vec<(f64, Step)>,
}

/// What sensors say at one moment, noise included.
#[derive(Clone, Copy, Debug)]
pub struct Sensed {
    /// The shortest real-time window, H/s.
    pub rate: f64,
    /// Without noise.
    pub true_rate: f64,
    pub m1: f64,
    pub m5: f64,
    pub m15: f64,
    /// Since the mining process started.
    pub average: f64,
    /// At the wall, whole watts.
    pub watts: f64,
    pub chip: f64,
    pub board: f64,
    pub ambient: f64,
    pub fan_rpm: u32,
    pub elapsed: u64,
    pub uptime: u64,
    /// Hashes since the mining process started.
    pub work: f64,
}

/// How long temperature takes to follow power, seconds before `time_scale`.
const THERMAL: f64 = 90.0;
/// How long a change of limit or profile takes, seconds before `time_scale`.
const ADJUST: f64 = 30.0;
/// Noise changes this often, seconds.
const NOISE_PERIOD: f64 = 2.0;

impl Plant {
    pub fn new(model: &Model, settings: Settings, draws: Draws, scale: f64) -> Self {
        let hash_plate = model.terahash * 1e12 * draws.between(Channel::HashFactor, 0, 0.97, 1.03);
        let watt_plate = model.watts * draws.between(Channel::PowerFactor, 0, 0.98, 1.04);
        let ambient = draws.between(Channel::Ambient, 0, 18.0, 33.0);
        let uptime = draws.between(Channel::Uptime, 0, 7_200.0, 40.0 * 86_400.0).floor();
        let mut plant = Self {
            settings,
            phase: if settings.asleep { Phase::Asleep } else { Phase::Mining },
            since: -uptime,
            started: -uptime,
            booted: -uptime - 60.0,
            api_back: f64::NEG_INFINITY,
            hash_plate,
            watt_plate,
            standby: model.standby,
            ambient,
            rise: model.hot - 25.0,
            survives: model.sleep_survives_reboot,
            times: model.times,
            scale: scale.max(1e-6),
            draws,
            line: Line { from: (0.0, 0.0), to: (0.0, 0.0), over: 0.0 },
            base: Moment { t: 0.0, chip: ambient, m1: 0.0, m5: 0.0, m15: 0.0, work: 0.0 },
            steps: Vec::new(),
        };
        let (watts, hash) = if settings.asleep { (plant.standby, 0.0) } else { plant.target() };
        plant.line = Line { from: (watts, hash), to: (watts, hash), over: 0.0 };
        // A machine that sleeps from the start has mined before: its averages stay positive.
        let lived = if settings.asleep { 0.2 * hash_plate } else { hash };
        plant.base = Moment {
            t: 0.0,
            chip: plant.chip_at(watts),
            m1: hash,
            m5: hash,
            m15: hash,
            work: lived * uptime,
        };
        plant
    }

    /// Power and hashrate that the settings lead to.
    fn target(&self) -> (f64, f64) {
        let (mut power, mut hash) = self.settings.level.factors();
        let mut cap = |limit: f64| {
            if limit < power {
                // A machine below its power works more efficiently.
                hash *= (limit / power).powf(0.85);
                power = limit;
            }
        };
        if let Some(limit) = self.settings.limit {
            cap((f64::from(limit) / self.watt_plate).max(0.3));
        }
        if self.settings.profile != 0 {
            let share = profile_share(self.settings.profile);
            cap(share);
            if share > power {
                hash *= (share / power).powf(0.9);
                power = share;
            }
        }
        (self.watt_plate * power, self.hash_plate * hash)
    }

    fn chip_at(&self, watts: f64) -> f64 {
        self.ambient + self.rise * watts / self.watt_plate
    }

    fn scaled(&self, seconds: f64) -> f64 {
        seconds / self.scale
    }

    /// The lagging quantities at `t`, from the last event on.
    fn moment(&self, t: f64) -> Moment {
        let dt = (t - self.base.t).max(0.0);
        let sloped = dt.min(self.line.over);
        let mut m = self.base;
        if sloped > 0.0 {
            let slope = |from: f64, to: f64| (to - from) / self.line.over;
            let (w0, h0) = self.line.from;
            let (ws, hs) = (slope(w0, self.line.to.0), slope(h0, self.line.to.1));
            m = self.follow(m, (w0, h0), (ws, hs), sloped);
        }
        if dt > sloped {
            m = self.follow(m, self.line.to, (0.0, 0.0), dt - sloped);
        }
        m
    }

    fn follow(&self, m: Moment, from: (f64, f64), slope: (f64, f64), dt: f64) -> Moment {
        let chip_slope = self.rise * slope.0 / self.watt_plate;
        Moment {
            t: m.t + dt,
            chip: lag(m.chip, self.scaled(THERMAL), self.chip_at(from.0), chip_slope, dt),
            m1: lag(m.m1, 60.0, from.1, slope.1, dt),
            m5: lag(m.m5, 300.0, from.1, slope.1, dt),
            m15: lag(m.m15, 900.0, from.1, slope.1, dt),
            work: m.work + from.1 * dt + 0.5 * slope.1 * dt * dt,
        }
    }

    /// Starts a new line at `t`.
    fn head_for(&mut self, t: f64, to: (f64, f64), over: f64) {
        let from = self.line.at(t - self.base.t);
        self.base = self.moment(t);
        self.line = Line { from, to, over };
    }

    fn enter(&mut self, t: f64, phase: Phase) {
        let woken_while_down = self.phase == Phase::Down && phase == Phase::Asleep && !self.settings.asleep;
        let phase = if woken_while_down { Phase::Booting } else { phase };
        self.steps.retain(|(_, s)| !matches!(s, Step::Enter(_)));
        match phase {
            Phase::Stopping => {
                let over = self.scaled(self.times.stop_ramp);
                self.head_for(t, (self.standby, 0.0), over);
                self.plan(t + over, Step::Enter(Phase::Asleep));
            }
            Phase::Asleep => self.head_for(t, (self.standby, 0.0), 0.0),
            Phase::Booting => {
                self.head_for(t, (self.standby + 0.05 * self.watt_plate, 0.0), self.scaled(1.0));
                self.base = Moment { m1: 0.0, m5: 0.0, m15: 0.0, work: 0.0, ..self.base };
                self.started = t;
                self.plan(t + self.scaled(self.times.boot), Step::Enter(Phase::Ramping));
            }
            Phase::Ramping => {
                let over = self.scaled(self.times.ramp);
                self.head_for(t, self.target(), over);
                self.plan(t + over, Step::Enter(Phase::Mining));
            }
            Phase::Mining => self.head_for(t, self.target(), 0.0),
            Phase::Down => {
                self.head_for(t, (0.4 * self.standby, 0.0), self.scaled(1.0));
                let next = if self.settings.asleep && self.survives { Phase::Asleep } else { Phase::Booting };
                self.plan(t + self.scaled(self.times.down), Step::Enter(next));
            }
        }
        if self.phase == Phase::Down {
            self.booted = t;
            self.started = t;
            self.base.work = 0.0;
            if phase == Phase::Booting {
                self.settings.asleep = false;
            }
        }
        self.phase = phase;
        self.since = t;
    }

    fn plan(&mut self, at: f64, step: Step) {
        let place = self.steps.partition_point(|(t, _)| *t <= at);
        self.steps.insert(place, (at, step));
    }

    /// Takes every step that is due at `t`. Idempotent.
    pub fn advance(&mut self, t: f64) {
        while let Some((at, step)) = self.steps.first().copied().filter(|(at, _)| *at <= t) {
            self.steps.remove(0);
            match step {
                Step::Enter(phase) => self.enter(at, phase),
                Step::Fall => self.fall(at),
                Step::Rise => self.rise_up(at),
            }
        }
    }

    fn fall(&mut self, t: f64) {
        self.settings.asleep = true;
        if !matches!(self.phase, Phase::Asleep | Phase::Stopping | Phase::Down) {
            self.enter(t, Phase::Stopping);
        }
    }

    fn rise_up(&mut self, t: f64) {
        self.settings.asleep = false;
        if matches!(self.phase, Phase::Asleep | Phase::Stopping) {
            self.enter(t, Phase::Booting);
        }
    }

    /// Stops after the machine's own delay, plus `late` seconds.
    pub fn stop(&mut self, t: f64, late: f64) {
        self.unplan();
        self.settings.asleep = true;
        self.plan(t + self.scaled(self.times.stop_delay) + late, Step::Fall);
        self.gap(t);
    }

    /// Wakes after the machine's own delay, plus `late` seconds.
    pub fn wake(&mut self, t: f64, late: f64) {
        self.unplan();
        self.settings.asleep = false;
        self.plan(t + self.scaled(self.times.wake_delay) + late, Step::Rise);
        self.gap(t);
    }

    /// Falls asleep at a time of its own, as an Avalon's `softoff` with a time does.
    pub fn stop_at(&mut self, at: f64) {
        self.steps.retain(|(_, s)| *s != Step::Fall);
        self.plan(at, Step::Fall);
    }

    /// Wakes at a time of its own.
    pub fn wake_at(&mut self, at: f64) {
        self.steps.retain(|(_, s)| *s != Step::Rise);
        self.plan(at, Step::Rise);
    }

    /// Follows changed level, limit or profile. A machine that restarts its mining process for that
    /// boots and ramps again.
    pub fn adjust(&mut self, t: f64, restart: bool, late: f64) {
        if !matches!(self.phase, Phase::Mining | Phase::Ramping) || self.settings.asleep {
            return;
        }
        if restart {
            self.gap(t);
            self.steps.retain(|(_, s)| !matches!(s, Step::Enter(_)));
            self.plan(t + self.scaled(self.times.wake_delay) + late, Step::Enter(Phase::Booting));
        } else {
            let now = self.line.at(t - self.base.t);
            self.enter(t, Phase::Ramping);
            // The same way as a ramp, only short, and from where the machine stands.
            self.line = Line { from: now, to: self.target(), over: self.scaled(ADJUST) + late };
            self.steps.retain(|(_, s)| !matches!(s, Step::Enter(_)));
            self.plan(t + self.line.over, Step::Enter(Phase::Mining));
        }
    }

    pub fn reboot(&mut self, t: f64) {
        self.unplan();
        self.enter(t, Phase::Down);
    }

    fn unplan(&mut self) {
        self.steps.retain(|(_, s)| matches!(s, Step::Enter(_)));
    }

    fn gap(&mut self, t: f64) {
        if self.times.api_gap > 0.0 {
            self.api_back = t + self.scaled(self.times.reply + self.times.api_gap);
        }
    }

    /// Whether the mining program's API answers at `t`.
    pub fn api_up(&self, t: f64) -> bool {
        let in_gap = t < self.api_back && t >= self.api_back - self.scaled(self.times.api_gap);
        self.phase != Phase::Down && !in_gap
    }

    /// Seconds from a write to its reply, scaled.
    pub fn reply_delay(&self) -> f64 {
        self.scaled(self.times.reply)
    }

    /// Nameplate power of this very machine, W.
    pub fn plate_watts(&self) -> f64 {
        self.watt_plate
    }

    /// Nameplate hashrate of this very machine, H/s.
    pub fn plate_hash(&self) -> f64 {
        self.hash_plate
    }

    /// The sensors at `t`. `advance` must have been called for `t`.
    pub fn sense(&self, t: f64) -> Sensed {
        let m = self.moment(t);
        let (watts, hash) = self.line.at(t - self.base.t);
        let bucket = (t / NOISE_PERIOD).floor() as i64 as u64;
        let noise = |channel| self.draws.normal(channel, bucket);
        let elapsed = (t - self.started).max(0.0);
        let spinning = watts > 2.0 * self.standby;
        let rpm = if spinning {
            2400.0 + 55.0 * (m.chip - 35.0).max(0.0) + 40.0 * noise(Channel::FanNoise)
        } else {
            0.0
        };
        Sensed {
            rate: (hash * (1.0 + 0.012 * noise(Channel::HashNoise))).max(0.0),
            true_rate: hash,
            m1: m.m1,
            m5: m.m5,
            m15: m.m15,
            average: if elapsed >= 1.0 { m.work / elapsed } else { 0.0 },
            watts: (watts * (1.0 + 0.004 * noise(Channel::PowerNoise))).round().max(0.0),
            chip: m.chip + 0.3 * noise(Channel::TempNoise),
            board: self.ambient + (m.chip - self.ambient) * 0.8,
            ambient: self.ambient,
            fan_rpm: (rpm / 30.0).round().max(0.0) as u32 * 30,
            elapsed: elapsed as u64,
            uptime: (t - self.booted).max(0.0) as u64,
            work: m.work,
        }
    }

    /// The part of the rate that board `board` of `boards` does, noise of its own included; all parts
    /// add up to `rate`.
    pub fn board_rate(&self, rate: f64, board: u8, boards: u8) -> f64 {
        let weight = |b: u8| 1.0 + 0.03 * self.draws.normal(Channel::BoardNoise, u64::from(b));
        let all: f64 = (0..boards).map(weight).sum();
        rate * weight(board) / all
    }
}

/// Share of nameplate power that a profile step stands for.
pub fn profile_share(step: i8) -> f64 {
    (1.0 + 0.05 * f64::from(step)).clamp(0.35, 1.2)
}

/// A first-order lag with time constant `tau` behind an input that starts at `from` and rises by
/// `slope` a second: the exact solution after `dt`.
fn lag(value: f64, tau: f64, from: f64, slope: f64, dt: f64) -> f64 {
    from + slope * (dt - tau) + (value - from + slope * tau) * (-dt / tau).exp()
}

#[cfg(test)]
mod tests;
