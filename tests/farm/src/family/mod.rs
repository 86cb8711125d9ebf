//! What a device says to a request, by family.
//!
//! One request in, one [`Answer`] out, no I/O and no clock. The server writes the answer's bytes and
//! then its line in the log.

pub mod antminer;
pub mod antminer_web;
pub mod auradine;
pub mod avalon;
pub mod axeos;
pub mod braiins;
pub mod braiins_web;
pub mod cgminer;
pub mod elphapex;
pub mod epic;
pub mod futurebit;
pub mod goldshell;
pub mod luxos;
pub mod marathon;
pub mod proto;
pub mod sealminer;
pub mod vnish;
pub mod web;
pub mod whatsminer;
pub mod whatsminer_token;
pub mod whatsminer_v3;

use crate::device::{Change, Device, ModeView, Pool, WriteResult};
use crate::faults::FaultKind;
use crate::models::Family;
use crate::physics::Sensed;
use crate::reply::{Dialect, Reply};
use hashinsight_protocol::units::Millis;
use serde::Deserialize;
use std::borrow::Cow;

/// cgminer receives once, this much; the rest of a longer request is lost.
pub const REQUEST_LIMIT: usize = 4095;

/// What was reported of the real-time rate, to the digit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub hashrate_hs: f64,
    /// What the same reply said of power, if it did.
    pub power_w: Option<f64>,
}

/// A write, for the log.
#[derive(Clone, Debug)]
pub struct WriteNote {
    pub result: WriteResult,
    pub before: ModeView,
    pub after: ModeView,
}

/// An answer to one request.
#[derive(Debug, Default)]
pub struct Answer {
    pub body: String,
    /// End with a NUL, as the CGMiner API does.
    pub nul: bool,
    /// The request as the log names it.
    pub request: String,
    pub sample: Option<Sample>,
    pub write: Option<WriteNote>,
    /// No byte is sent; the connection closes.
    pub silent: bool,
    /// Seconds before the first byte.
    pub delay: f64,
}

/// One device at one moment.
pub struct Scene<'a> {
    pub dev: &'a mut Device,
    pub now: Millis,
    pub t: f64,
    pub sensed: Sensed,
    pub sample: Option<Sample>,
    pub power: Option<f64>,
    pub write: Option<WriteNote>,
    pub silent: bool,
    pub delay: f64,
}

impl<'a> Scene<'a> {
    pub fn new(dev: &'a mut Device, now: Millis, t: f64) -> Self {
        let mut sensed = dev.sense(t);
        if dev.faults.active(FaultKind::ZeroPower, t).is_some() {
            (sensed.watts, sensed.fan_rpm) = (0.0, 0);
        }
        Self { dev, now, t, sensed, sample: None, power: None, write: None, silent: false, delay: 0.0 }
    }

    /// The time the device writes into `When`.
    pub fn when(&self) -> i64 {
        self.dev.device_time(self.now, self.t)
    }

    /// Says that this reply carries the family's real-time rate.
    pub fn sampled(&mut self, hashrate_hs: f64) {
        self.sample = Some(Sample { hashrate_hs, power_w: None });
    }

    /// Applies a write and keeps it for the log.
    pub fn write(&mut self, change: Change) -> WriteResult {
        let before = self.dev.mode();
        let result = self.dev.apply(self.t, change);
        self.note(before, result)
    }

    /// Takes other pools, unless the device lies, and keeps that for the log.
    pub fn set_pools(&mut self, pools: [Pool; 3]) {
        let before = self.dev.mode();
        let lies = self.dev.faults.active(FaultKind::Lie, self.t).is_some();
        if !lies {
            self.dev.pools = Some(Box::new(pools));
        }
        self.note(before, if lies { WriteResult::Ignored } else { WriteResult::Taken });
    }

    /// Keeps a write that was refused before it reached the device.
    pub fn refused(&mut self) {
        let before = self.dev.mode();
        self.note(before, WriteResult::Refused);
    }

    fn note(&mut self, before: ModeView, result: WriteResult) -> WriteResult {
        // Several changes of one request are one write: its first `before`, its last `after`.
        let before = self.write.take().map_or(before, |w| w.before);
        self.write = Some(WriteNote { result, before, after: self.dev.mode() });
        result
    }

    fn into_answer(self, body: String, nul: bool, request: &str) -> Answer {
        Answer {
            body,
            nul,
            request: request
                .chars()
                .filter(|c| c.is_ascii_graphic() && !"\"\\".contains(*c))
                .take(64)
                .collect(),
            sample: self.sample.map(|s| Sample { power_w: self.power, ..s }),
            write: self.write,
            silent: self.silent,
            delay: self.delay,
        }
    }
}

/// One command with its parameter.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub command: &'a str,
    pub param: Option<&'a str>,
}

/// What a family does with a command.
pub enum Outcome {
    Done,
    Unknown,
    /// Known, but not allowed to this caller or in a joined request.
    Denied,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Int(i64),
    Real(f64),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    command: Option<Scalar<'a>>,
    #[serde(borrow, default)]
    cmd: Option<Scalar<'a>>,
    #[serde(borrow, default)]
    parameter: Option<Scalar<'a>>,
    #[serde(borrow, default)]
    data: Option<Scalar<'a>>,
    #[serde(default)]
    new_api: bool,
}

/// Answers one request to the CGMiner port. `request` is what one receive brought.
pub fn answer(dev: &mut Device, now: Millis, t: f64, request: &[u8]) -> Answer {
    let request = &request[..request.len().min(REQUEST_LIMIT)];
    let family = dev.model.family;
    let mut scene = Scene::new(dev, now, t);
    let json = request.first() == Some(&b'{');
    let nul = true;
    if !json {
        if matches!(family, Family::Braiins | Family::Luxos) {
            let mut reply = Reply::new(true);
            invalid_json(&scene, &mut reply);
            return scene.into_answer(reply.buf, nul, "?");
        }
        // A C string: it ends at the first NUL, and nothing is trimmed.
        let text = request.split(|b| *b == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let (command, param) = match text.split_once('|') {
            Some((c, p)) => (c, Some(p)),
            None => (&*text, None),
        };
        let mut reply = Reply::new(false);
        run(&mut scene, Ask { command, param }, &mut reply);
        return scene.into_answer(reply.buf, nul, command);
    }
    let mut reply = Reply::new(true);
    let parsed =
        std::str::from_utf8(request).ok().and_then(|text| serde_json::from_str::<Request>(text).ok());
    let Some(parsed) = parsed else {
        invalid_json(&scene, &mut reply);
        return scene.into_answer(reply.buf, nul, "?");
    };
    if family == Family::Whatsminer
        && let Some(Scalar::Text(data)) = &parsed.data
    {
        let command = whatsminer::encrypted(&mut scene, data, &mut reply.buf);
        return scene.into_answer(reply.buf, nul, &command);
    }
    let command = match parsed.command.or(parsed.cmd) {
        Some(Scalar::Text(text)) => text,
        // A number is read as a name that no command has.
        Some(_) => Cow::Borrowed(""),
        None => {
            status(&scene, &mut reply, 'E', 24, "Missing JSON 'command'");
            reply.end();
            return scene.into_answer(reply.buf, nul, "?");
        }
    };
    let param = match parsed.parameter {
        Some(Scalar::Text(text)) => Some(text),
        Some(Scalar::Int(n)) => Some(Cow::Owned(n.to_string())),
        Some(Scalar::Real(n)) => Some(Cow::Owned(n.to_string())),
        Some(Scalar::Other(_)) | None => None,
    };
    if parsed.new_api && family == Family::Antminer && !scene.dev.model.old_style && command == "stats" {
        antminer::new_api_stats(&mut scene, &mut reply);
    } else {
        run(&mut scene, Ask { command: &command, param: param.as_deref() }, &mut reply);
    }
    scene.into_answer(reply.buf, nul, &command)
}

/// Whether `a+b` is understood. Newer Antminers take it for a name they do not know.
fn joins(dev: &Device) -> bool {
    !dev.model.family.has_pages() || dev.model.old_style
}

fn run(scene: &mut Scene<'_>, ask: Ask<'_>, reply: &mut Reply) {
    if ask.command.contains('+') && joins(scene.dev) {
        return joined(scene, ask.command, reply);
    }
    match report(scene, ask, reply) {
        Outcome::Done => {}
        Outcome::Denied => denied(scene, ask.command, reply),
        Outcome::Unknown => match control(scene, ask, reply) {
            Outcome::Done => {}
            Outcome::Denied => {
                scene.refused();
                denied(scene, ask.command, reply);
            }
            Outcome::Unknown => invalid(scene, reply),
        },
    }
}

/// Report commands joined by `+`: one list each, duplicates once, parameters ignored.
fn joined(scene: &mut Scene<'_>, commands: &str, reply: &mut Reply) {
    let json = reply.is_json();
    let mut seen: Vec<&str> = Vec::new();
    // A reply buffer holds some hundred parts at most, as the request is bounded.
    for command in commands.split('+').filter(|c| !c.is_empty()) {
        if seen.contains(&command) {
            continue;
        }
        let first = seen.is_empty();
        seen.push(command);
        let mut part = Reply::new(json);
        let ask = Ask { command, param: None };
        match report(scene, ask, &mut part) {
            Outcome::Done => {}
            Outcome::Unknown if !is_control(scene.dev.model.family, command) => invalid(scene, &mut part),
            _ => denied(scene, command, &mut part),
        }
        if json {
            reply.put(format_args!("{}\"{command}\":[{}]", if first { "{" } else { "," }, part.buf));
        } else {
            reply.put(format_args!("CMD={command}|{}", part.buf));
        }
    }
    if json {
        reply.put(format_args!("{}\"id\":1}}", if seen.is_empty() { "{" } else { "," }));
    }
}

fn report(scene: &mut Scene<'_>, ask: Ask<'_>, reply: &mut Reply) -> Outcome {
    match scene.dev.model.family {
        Family::Antminer | Family::Hiveon | Family::Hammer => antminer::report(scene, ask.command, reply),
        Family::WhatsminerV3 => Outcome::Unknown,
        Family::Sealminer => sealminer::report(scene, ask.command, reply),
        // Nothing listens there.
        Family::Marathon | Family::Elphapex => Outcome::Unknown,
        Family::Whatsminer => whatsminer::report(scene, ask.command, reply),
        Family::Avalon => avalon::report(scene, ask.command, reply),
        Family::Braiins => braiins::report(scene, ask.command, reply),
        Family::Luxos => luxos::report(scene, ask.command, reply),
        Family::Cgminer => cgminer::report(scene, ask.command, reply),
        Family::Vnish => vnish::report(scene, ask.command, reply),
        Family::Auradine => auradine::report(scene, ask.command, reply),
        Family::Goldshell => goldshell::report(scene, ask.command, reply),
        // They have no CGMiner port.
        Family::Epic | Family::Axeos | Family::Proto | Family::Futurebit => Outcome::Unknown,
    }
}

fn control(scene: &mut Scene<'_>, ask: Ask<'_>, reply: &mut Reply) -> Outcome {
    match scene.dev.model.family {
        Family::Whatsminer => whatsminer::control(scene, ask, reply),
        Family::Avalon => avalon::control(scene, ask, reply),
        Family::Braiins => braiins::control(scene, ask, reply),
        Family::Luxos => luxos::control(scene, ask, reply),
        Family::Cgminer => cgminer::control(scene, ask, reply),
        Family::WhatsminerV3 => whatsminer_v3::old_api(scene, ask.command, reply),
        Family::Sealminer => sealminer::control(scene, ask, reply),
        Family::Marathon | Family::Elphapex => Outcome::Unknown,
        // Everything that writes is in no group that a caller of port 4028 is in.
        family if is_control(family, ask.command) => Outcome::Denied,
        _ => Outcome::Unknown,
    }
}

/// Commands that cannot be joined to others.
fn is_control(family: Family, command: &str) -> bool {
    const CGMINER: &[&str] = &[
        "addpool",
        "ascdisable",
        "ascenable",
        "ascidentify",
        "ascset",
        "asc",
        "debug",
        "disablepool",
        "enablepool",
        "failover-only",
        "hotplug",
        "lockstats",
        "pga",
        "pgadisable",
        "pgaenable",
        "pgaidentify",
        "pgaset",
        "poolpriority",
        "poolquota",
        "privileged",
        "quit",
        "removepool",
        "restart",
        "save",
        "setconfig",
        "switchpool",
        "zero",
    ];
    const LUXOS: &[&str] =
        &["logon", "logoff", "session", "curtail", "profileset", "profileget", "ledset", "rebootdevice"];
    CGMINER.contains(&command)
        || match family {
            Family::Luxos => LUXOS.contains(&command),
            Family::Braiins => matches!(command, "pause" | "resume"),
            Family::Whatsminer => command.starts_with("get_") || command == "status",
            _ => false,
        }
}

/// How the device's firmware names itself in `Description`.
fn description(dev: &Device) -> Cow<'static, str> {
    match dev.model.family {
        Family::Antminer | Family::Hiveon => "cgminer 1.0.0".into(),
        Family::Hammer => "ccminer 2.3.3".into(),
        Family::Sealminer => "bdminer 4.11.1".into(),
        Family::WhatsminerV3 | Family::Marathon | Family::Elphapex => "cgminer 4.9.2".into(),
        Family::Whatsminer => "cgminer 4.9.2".into(),
        Family::Avalon => "cgminer 4.11.1".into(),
        Family::Braiins => format!("BOSer {}", dev.model.build).into(),
        Family::Luxos => format!("LUXminer {}", dev.model.build).into(),
        Family::Cgminer => format!("cgminer {}", dev.model.build).into(),
        Family::Auradine => "GCMiner-2023-05.24".into(),
        _ => "cgminer 4.11.1".into(),
    }
}

fn dialect(family: Family) -> Dialect {
    Dialect {
        sorted: family == Family::Luxos,
        bare_invalid: !matches!(family, Family::Luxos | Family::Braiins),
    }
}

/// Opens a reply with its STATUS part, in the device's own wording.
pub fn status(scene: &Scene<'_>, reply: &mut Reply, letter: char, code: u32, msg: &str) {
    let dialect = dialect(scene.dev.model.family);
    let desc = description(scene.dev);
    let desc = (code != 14 || !dialect.bare_invalid).then_some(&*desc);
    reply.status(dialect, letter, scene.when(), code, msg, desc);
}

/// A reply that is nothing but its STATUS part.
pub fn plain(scene: &Scene<'_>, reply: &mut Reply, letter: char, code: u32, msg: &str) {
    status(scene, reply, letter, code, msg);
    reply.end();
}

fn invalid(scene: &Scene<'_>, reply: &mut Reply) {
    plain(scene, reply, 'E', 14, "Invalid command");
}

fn invalid_json(scene: &Scene<'_>, reply: &mut Reply) {
    plain(scene, reply, 'E', 23, "Invalid JSON");
}

fn denied(scene: &Scene<'_>, command: &str, reply: &mut Reply) {
    plain(scene, reply, 'E', 45, &format!("Access denied to '{command}' command"));
}

/// Shares by the work done.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    pub accepted: u64,
    pub rejected: u64,
    pub stale: u64,
    pub difficulty: f64,
}

impl Shares {
    pub fn of(scene: &Scene<'_>) -> Self {
        let difficulty = scene.dev.model.difficulty;
        let all = (scene.sensed.work / (difficulty * 4_294_967_296.0)).max(0.0) as u64;
        let rejected = all / 450;
        Self { accepted: all - rejected, rejected, stale: all / 1_500, difficulty }
    }

    pub fn rejected_percent(self) -> f64 {
        let all = self.accepted + self.rejected;
        if all == 0 { 0.0 } else { 100.0 * self.rejected as f64 / all as f64 }
    }

    /// Accepted shares a minute.
    pub fn utility(self, elapsed: u64) -> f64 {
        if elapsed == 0 { 0.0 } else { self.accepted as f64 * 60.0 / elapsed as f64 }
    }
}

/// The host part of a pool's address.
pub fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.rsplit_once(':').map_or(rest, |(host, _)| host)
}
