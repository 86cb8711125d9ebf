//! AxeOS: one JSON page without sign-in. A Bitaxe pauses; a NerdQAxe shuts its chips down and comes
//! back by a restart alone.

use super::antminer_web::{WebAnswer, WebRequest};
use super::web::{self, body, json, page, phase_said, text};
use super::{Scene, Shares};
use crate::device::{Change, Pool};
use crate::physics::Phase;
use crate::reply::rounded;
use serde_json::{Value, json as value};

fn is_nerd(scene: &Scene<'_>) -> bool {
    scene.dev.model.name.starts_with("NerdQAxe")
}

pub fn answer(scene: &mut Scene<'_>, request: &WebRequest<'_>) -> WebAnswer {
    let path = request.path.split('?').next().unwrap_or_default();
    let nerd = is_nerd(scene);
    match (request.method, path) {
        ("GET", "/api/system/info") => json(info(scene)),
        ("POST", "/api/system/pause") if !nerd => {
            scene.write(Change::Sleep);
            json(value!({"message": "Mining paused"}))
        }
        ("POST", "/api/system/resume") if !nerd => {
            scene.write(Change::Wake);
            json(value!({"message": "Mining resumed"}))
        }
        ("POST", "/api/system/shutdown") if nerd => {
            scene.write(Change::Sleep);
            page(200, "System will shutdown shortly.")
        }
        ("POST", "/api/system/restart") => {
            // The boot forgets that it was stopped.
            scene.write(Change::Reboot);
            page(200, "System will restart shortly.")
        }
        ("PATCH", "/api/system") => {
            let asked = body(request);
            let pool = |prefix: &str, old: Pool| {
                let key = |name: &str| {
                    if prefix.is_empty() {
                        format!("stratum{name}")
                    } else {
                        format!("fallbackStratum{name}")
                    }
                };
                let Some(host) = asked.get(key("URL")).and_then(Value::as_str) else { return old };
                let port = asked.get(key("Port")).and_then(Value::as_u64).unwrap_or(3333);
                Pool {
                    url: if host.is_empty() { String::new() } else { format!("stratum+tcp://{host}:{port}") },
                    user: text(&asked, &key("User")).to_owned(),
                    pass: text(&asked, &key("Password")).to_owned(),
                }
            };
            let pools = [pool("", scene.dev.pool(0)), pool("fallback", scene.dev.pool(1))];
            web::set_pools(scene, &pools);
            page(200, "")
        }
        _ => page(404, "Nothing matches the given URI"),
    }
}

fn info(scene: &mut Scene<'_>) -> Value {
    let phase = phase_said(scene);
    let s = scene.sensed;
    let now = rounded(s.rate / 1e9, 4);
    scene.sampled(now * 1e9);
    let watts = web::watts(scene);
    let stands = matches!(phase, Phase::Asleep | Phase::Stopping);
    let (dev, shares) = (&*scene.dev, Shares::of(scene));
    let part = |n: usize| {
        let url = dev.pool(n).url;
        let bare = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).to_owned();
        match bare.rsplit_once(':') {
            Some((host, port)) => (host.to_owned(), port.parse::<u16>().unwrap_or(0)),
            None => (bare, 0),
        }
    };
    let ((host, port), (host2, port2)) = (part(0), part(1));
    let mut info = value!({
        "ASICModel": "BM1370",
        "asicCount": dev.model.chips_per_board,
        "boardVersion": "601",
        "deviceModel": dev.model.name,
        "version": dev.model.build,
        "macAddr": dev.mac().to_string(),
        "hashRate": now,
        "power": watts,
        "temp": rounded(s.chip, 2),
        "vrTemp": s.board.round(),
        "fanrpm": s.fan_rpm,
        "frequency": dev.model.mhz,
        "coreVoltage": 1166,
        "uptimeSeconds": s.uptime,
        "sharesAccepted": shares.accepted,
        "sharesRejected": shares.rejected,
        "isUsingFallbackStratum": 0,
        "stratumURL": host,
        "stratumPort": port,
        "stratumUser": dev.pool(0).user,
        "fallbackStratumURL": host2,
        "fallbackStratumPort": port2,
        "fallbackStratumUser": dev.pool(1).user,
    });
    info[if is_nerd(scene) { "shutdown" } else { "miningPaused" }] = stands.into();
    info
}
