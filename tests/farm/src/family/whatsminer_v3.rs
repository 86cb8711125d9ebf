//! Whatsminers with API 3: a length of four bytes, then JSON, on a port of its own.
//!
//! Every write carries a token of its own; a wrong one is code -4. Port 4028 still answers, and says
//! only which API the device has.

use super::whatsminer_token::decrypt_with;
use super::{Answer, Outcome, Scene};
use crate::device::{Change, Device, Pool};
use crate::faults::FaultKind;
use crate::physics::{Level, Phase};
use crate::reply::{Reply, rounded};
use crate::rng::Channel;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hashinsight_protocol::units::Millis;
use serde_json::{Value, json};

const PASSWORD: &str = "super";
/// How far the time of a token may be from the device's, in seconds.
const TIME_SPREAD: i64 = 60;

/// What port 4028 says.
pub fn old_api(scene: &Scene<'_>, command: &str, reply: &mut Reply) -> Outcome {
    let (when, build) = (scene.when(), scene.dev.model.build);
    match command {
        "version" | "get_version" => reply.put(format_args!(
            r#"{{"STATUS":"S","When":{when},"Code":131,"Msg":{{"api_ver":"3.0.2","fw_ver":"{build}"}},"Description":""}}"#
        )),
        _ => reply.put(format_args!(
            r#"{{"STATUS":"E","When":{when},"Code":14,"Msg":"invalid cmd","Description":""}}"#
        )),
    }
    Outcome::Done
}

/// Answers one request, which came without its length.
pub fn answer(dev: &mut Device, now: Millis, t: f64, request: &[u8]) -> Answer {
    let mut scene = Scene::new(dev, now, t);
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let command = request.get("cmd").and_then(Value::as_str).unwrap_or_default().to_owned();
    let parameter = request.get("param").cloned().unwrap_or_default();
    let (code, msg) = match command.as_str() {
        "get.device.info" => (0, info(&scene)),
        "get.miner.status" => (0, miner_status(&mut scene, parameter.as_str().unwrap_or_default())),
        name if name.starts_with("set.") => match key(&scene, name, &request) {
            Some(key) => match write(&mut scene, name, &parameter, key) {
                Some(()) => (0, json!("ok")),
                None => {
                    scene.refused();
                    (-2, json!("invalid parameter"))
                }
            },
            None => {
                scene.refused();
                (-4, json!("token check error"))
            }
        },
        _ => (-1, json!("invalid command")),
    };
    let when = scene.when();
    let body = json!({"code": code, "when": when, "msg": msg, "desc": command}).to_string();
    scene.into_answer(body, false, &command)
}

fn salt(scene: &Scene<'_>) -> String {
    // It is another after every boot.
    let boot = scene.dev.plant.booted.to_bits();
    format!("{:08x}", scene.dev.draws.bits(Channel::Secret, boot) as u32)
}

/// The key of a write, if its token is good.
fn key(scene: &Scene<'_>, command: &str, request: &Value) -> Option<[u8; 32]> {
    if scene.dev.faults.active(FaultKind::Busy, scene.t).is_some() {
        return None;
    }
    let time = request.get("ts")?.as_i64()?;
    let account = request.get("account")?.as_str()?;
    let text = format!("{command}{PASSWORD}{}{time}", salt(scene));
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let key: [u8; 32] = digest.as_ref().try_into().ok()?;
    let good = STANDARD.encode(key).get(..8) == request.get("token")?.as_str();
    (good && account == "super" && (time - scene.when()).abs() <= TIME_SPREAD).then_some(key)
}

fn limit(scene: &Scene<'_>) -> u32 {
    scene.dev.plant.settings.limit.unwrap_or(scene.dev.model.watts as u32)
}

fn info(scene: &Scene<'_>) -> Value {
    let dev = &*scene.dev;
    let off = dev.plant.settings.asleep;
    let mode = match dev.plant.settings.level {
        Level::LowPower | Level::HighEfficiency => "0",
        Level::Normal => "1",
        Level::HighPower => "2",
    };
    json!({
        "network": {"ip": dev.ip.to_string(), "proto": "dhcp", "mac": dev.mac().to_string(), "hostname": "WhatsMiner"},
        "miner": {"working": (!off).to_string(), "type": dev.model.name, "hash-board": "K40", "miner-sn": dev.serial(0, 24),
                  "fast-boot": "disable", "board-num": dev.model.boards.to_string()},
        "system": {"api": "3.0.2", "platform": "H616", "fwversion": dev.model.build,
                   "ledstatus": if dev.locating { "manual" } else { "auto" }, "apiswitch": "1"},
        "power": {"type": "P221B", "mode": mode, "fanspeed": 6344, "pin": scene.sensed.watts, "sn": dev.serial(8, 15)},
        "salt": salt(scene),
        "error-code": [],
    })
}

fn miner_status(scene: &mut Scene<'_>, what: &str) -> Value {
    let s = scene.sensed;
    let off = scene.dev.plant.phase == Phase::Asleep;
    let tera = |rate: f64| if off { 0.0 } else { rounded(rate / 1e12, 3) };
    let boards = scene.dev.model.boards;
    match what {
        "summary" => {
            scene.sampled(tera(s.rate) * 1e12);
            scene.power = Some(s.watts);
            json!({"summary": {
                "elapsed": if off { 0 } else { s.elapsed }, "bootup-time": 1323,
                "hash-average": tera(s.average), "hash-1min": tera(s.m1), "hash-15min": tera(s.m15), "hash-realtime": tera(s.rate),
                "power-realtime": s.watts, "power-5min": s.watts, "power-limit": limit(scene),
                "fan-speed-in": s.fan_rpm, "fan-speed-out": s.fan_rpm.saturating_sub(90),
                "environment-temperature": rounded(s.ambient, 1), "board-temperature": vec![rounded(s.board, 1); boards.into()],
                "chip-temp-avg": rounded(s.chip, 1), "chip-temp-max": rounded(s.chip + 8.0, 1), "chip-temp-min": rounded(s.chip - 12.0, 1),
            }})
        }
        "pools" => {
            let shares = super::Shares::of(scene);
            let pool = |n: usize| {
                let pool = scene.dev.pool(n);
                json!({"id": n + 1, "url": pool.url, "account": pool.user, "status": "alive", "stratum-active": n == 0,
                       "accepted": if n == 0 { shares.accepted } else { 0 }, "rejected": if n == 0 { shares.rejected } else { 0 }})
            };
            json!({"pools": (0..3).map(pool).filter(|pool| pool["url"] != "").collect::<Vec<_>>()})
        }
        "edevs" => {
            let board = |n: u8| {
                json!({
                    "id": n, "slot": n, "hash-realtime": tera(scene.dev.plant.board_rate(s.rate, n, boards)),
                    "hash-average": tera(scene.dev.plant.board_rate(s.average, n, boards)),
                    "chip-temp-min": rounded(s.chip - 12.0, 1), "chip-temp-avg": rounded(s.chip, 1), "chip-temp-max": rounded(s.chip + 8.0, 1),
                })
            };
            json!({"edevs": (0..boards).map(board).collect::<Vec<_>>()})
        }
        _ => json!({}),
    }
}

fn write(scene: &mut Scene<'_>, command: &str, parameter: &Value, key: [u8; 32]) -> Option<()> {
    let change = match (command, parameter.as_str()) {
        ("set.miner.service", Some("stop" | "disable")) => Change::Sleep,
        ("set.miner.service", Some("start" | "enable")) => Change::Wake,
        ("set.miner.service", Some("restart")) => Change::Restart,
        ("set.miner.power_mode", Some("low")) => Change::Level(Level::LowPower),
        ("set.miner.power_mode", Some("normal")) => Change::Level(Level::Normal),
        ("set.miner.power_mode", Some("high")) => Change::Level(Level::HighPower),
        ("set.miner.power_limit", _) => {
            let watts =
                u32::try_from(parameter.as_i64()?).ok().filter(|watts| (500..=10_000).contains(watts))?;
            Change::Limit(Some(watts).filter(|watts| *watts != scene.dev.model.watts as u32))
        }
        ("set.system.reboot", _) => Change::Reboot,
        ("set.system.led", word) => {
            scene.dev.locating = word != Some("auto");
            return Some(());
        }
        ("set.miner.pools", Some(sealed)) => {
            let list: Value = serde_json::from_str(&decrypt_with(&key, sealed)?).ok()?;
            let list = list.as_array()?;
            let text = |n: usize, key: &str| {
                list.get(n).and_then(|p| p.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            scene.set_pools([0, 1, 2].map(|n| Pool {
                url: text(n, "pool"),
                user: text(n, "worker"),
                pass: text(n, "passwd"),
            }));
            return Some(());
        }
        _ => return None,
    };
    scene.write(change);
    Some(())
}
