//! What the families with a web API share: tokens, writes, and what their faults do to a reply.

use super::antminer_web::{WebAnswer, WebRequest};
use super::{
    Scene, WriteNote, antminer_web, auradine, axeos, braiins_web, epic, futurebit, goldshell, proto, vnish,
};
use crate::device::{Device, Own, WriteResult};
use crate::faults::FaultKind;
use crate::models::Family;
use crate::physics::Phase;
use crate::rng::Channel;
use hashinsight_protocol::units::{DurationMs, Millis};
use serde_json::Value;
use std::collections::VecDeque;

/// How long a token is good for, where no fault says otherwise.
const TOKEN_LIFE: DurationMs = DurationMs::from_minutes(30);
/// Tokens of one device; the oldest goes first.
const MAX_TOKENS: usize = 16;

/// What a device with a web API remembers beside its settings.
#[derive(Clone, Debug, Default)]
pub struct WebState {
    tokens: VecDeque<(String, Millis)>,
    issued: u64,
    /// The locating light.
    pub light: bool,
}

/// Answers one request to the web server, or to ePIC's on the API port.
pub fn answer(scene: &mut Scene<'_>, request: &WebRequest<'_>) -> WebAnswer {
    let mut answer = match scene.dev.model.family {
        family if family.has_pages() => antminer_web::answer(scene, request),
        Family::Marathon | Family::Elphapex => antminer_web::answer(scene, request),
        Family::Vnish => vnish::answer(scene, request),
        Family::Epic => epic::answer(scene, request),
        Family::Braiins => braiins_web::answer(scene, request),
        Family::Auradine => auradine::answer(scene, request),
        Family::Axeos => axeos::answer(scene, request),
        Family::Proto => proto::answer(scene, request),
        Family::Goldshell => goldshell::answer(scene, request),
        Family::Futurebit => futurebit::answer(scene, request),
        _ => page(404, ""),
    };
    // The families that note their own write have taken it already.
    answer.write = answer.write.take().or_else(|| scene.write.take());
    answer.sample = scene.sample.take().map(|sample| super::Sample { power_w: scene.power, ..sample });
    answer
}

pub fn json(value: Value) -> WebAnswer {
    WebAnswer {
        status: 200,
        content_type: "application/json",
        body: value.to_string(),
        ..WebAnswer::default()
    }
}

pub fn json_status(status: u16, value: Value) -> WebAnswer {
    WebAnswer { status, ..json(value) }
}

pub fn page(status: u16, body: &str) -> WebAnswer {
    WebAnswer { status, content_type: "text/html", body: body.to_owned(), ..WebAnswer::default() }
}

/// The body of a request, or null.
pub fn body(request: &WebRequest<'_>) -> Value {
    serde_json::from_slice(request.body).unwrap_or_default()
}

/// A text of a body.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a password is the factory's, and the device takes it.
pub fn takes_password(scene: &Scene<'_>, given: &str, factory: &str) -> bool {
    given == factory && !has(scene, FaultKind::Locked)
}

pub fn has(scene: &Scene<'_>, kind: FaultKind) -> bool {
    scene.dev.faults.active(kind, scene.t).is_some()
}

/// A new token.
pub fn issue(scene: &mut Scene<'_>) -> String {
    let life = match scene.dev.faults.active(FaultKind::Expire, scene.t) {
        Some(fault) => DurationMs((fault.value.max(0.0) * 1e3) as u64),
        None => TOKEN_LIFE,
    };
    let until = Millis(scene.now.0 + i64::try_from(life.0).unwrap_or(i64::MAX));
    let draws = scene.dev.draws;
    let Own::Web(state) = &mut scene.dev.own else { return String::new() };
    state.issued += 1;
    let token = format!("{:016x}", draws.bits(Channel::Secret, 100 + state.issued));
    if state.tokens.len() >= MAX_TOKENS {
        state.tokens.pop_front();
    }
    state.tokens.push_back((token.clone(), until));
    token
}

/// Whether a header carries a token that is still good.
pub fn knows(scene: &Scene<'_>, header: Option<&str>) -> bool {
    let given = header.map(|h| h.strip_prefix("Bearer ").unwrap_or(h));
    let Own::Web(state) = &scene.dev.own else { return false };
    !has(scene, FaultKind::Locked)
        && state.tokens.iter().any(|(token, until)| Some(token.as_str()) == given && scene.now < *until)
}

pub fn light(dev: &Device) -> bool {
    matches!(&dev.own, Own::Web(state) if state.light)
}

/// A write of something beside the mode, unless the device lies.
pub fn set(scene: &mut Scene<'_>, work: impl FnOnce(&mut Device)) {
    let before = scene.dev.mode();
    let result = if has(scene, FaultKind::Lie) {
        WriteResult::Ignored
    } else {
        work(scene.dev);
        WriteResult::Taken
    };
    let before = scene.write.take().map_or(before, |write| write.before);
    scene.write = Some(WriteNote { result, before, after: scene.dev.mode() });
}

pub fn set_light(scene: &mut Scene<'_>, on: bool) {
    set(scene, |dev| {
        if let Own::Web(state) = &mut dev.own {
            state.light = on;
        }
    });
}

/// A write that the device answers with success and drops.
pub fn ignore(scene: &mut Scene<'_>) {
    let before = scene.dev.mode();
    scene.write = Some(WriteNote { result: WriteResult::Ignored, before, after: scene.dev.mode() });
}

/// What the device reports of its power.
pub fn watts(scene: &mut Scene<'_>) -> f64 {
    let watts = if has(scene, FaultKind::ZeroPower) { 0.0 } else { scene.sensed.watts };
    scene.power = Some(watts);
    watts
}

/// What the device says it does: one that only says it stopped says so at once.
pub fn phase_said(scene: &Scene<'_>) -> Phase {
    let plant = &scene.dev.plant;
    match plant.phase {
        Phase::Down => Phase::Down,
        _ if plant.settings.asleep && has(scene, FaultKind::NoEffect) => Phase::Asleep,
        Phase::Mining | Phase::Ramping | Phase::Booting if plant.settings.asleep => Phase::Stopping,
        Phase::Asleep if !plant.settings.asleep => Phase::Booting,
        phase => phase,
    }
}

/// Pools of a request as the device keeps them: three, the last ones empty.
pub fn set_pools(scene: &mut Scene<'_>, list: &[crate::device::Pool]) {
    let empty = || crate::device::Pool { url: String::new(), user: String::new(), pass: String::new() };
    let pool = |n: usize| list.get(n).cloned().unwrap_or_else(empty);
    let pools = [pool(0), pool(1), pool(2)];
    set(scene, |dev| dev.pools = Some(Box::new(pools)));
}
