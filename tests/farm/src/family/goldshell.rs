//! Goldshell: the CGMiner port for reading, pages under /mcb with a token for settings.
//!
//! It is stopped by choosing the power plan of level 3; the settings are posted whole.

use super::antminer_web::{WebAnswer, WebRequest};
use super::web::{self, body, json, page};
use super::{Outcome, Scene, Shares, host, status};
use crate::device::{Change, WriteResult};
use crate::physics::Level;
use crate::reply::{Reply, rounded};
use serde_json::{Value, json as value};

pub const USER: &str = "admin";
pub const PASSWORD: &str = "123456789";
/// The plans' levels, in the order of the list.
const LEVELS: [u64; 3] = [0, 1, 3];

fn query<'a>(path: &'a str, name: &str) -> &'a str {
    let pairs = path.split_once('?').map_or("", |(_, query)| query).split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

pub fn answer(scene: &mut Scene<'_>, request: &WebRequest<'_>) -> WebAnswer {
    let path = request.path.split('?').next().unwrap_or_default();
    if path == "/user/login" {
        let known = query(request.path, "username") == USER
            && web::takes_password(scene, query(request.path, "password"), PASSWORD);
        return if known {
            json(value!({"JWT Token": web::issue(scene)}))
        } else {
            json(value!({"code": 1, "message": "login failed"}))
        };
    }
    if path == "/mcb/status" {
        return json(
            value!({"model": scene.dev.model.name, "hardware": "40.40.HA", "mcbversion": "MCB_V5_4", "firmware": scene.dev.model.build}),
        );
    }
    if !web::knows(scene, request.authorization) {
        return page(401, "");
    }
    match (request.method, path) {
        ("GET", "/mcb/setting") => json(setting(scene)),
        ("PUT", "/mcb/setting") => {
            let select = body(request).get("select").and_then(Value::as_u64).unwrap_or(0) as usize;
            let changed = setting(scene)["select"] != select;
            match LEVELS.get(select) {
                Some(3) if changed => {
                    scene.write(Change::Sleep);
                }
                Some(level) if changed => {
                    let level = if *level == 1 { Level::LowPower } else { Level::Normal };
                    let woken = scene.write(Change::Wake) == WriteResult::Taken;
                    if woken {
                        scene.dev.plant.settings.level = level;
                    }
                }
                Some(_) => web::set(scene, |_| {}),
                None => {
                    scene.refused();
                    return json(value!({"code": 1, "message": "no such plan"}));
                }
            }
            json(value!({"code": 0}))
        }
        ("PUT", "/mcb/restart") => {
            scene.write(Change::Reboot);
            json(value!({"code": 0}))
        }
        _ => page(404, ""),
    }
}

fn setting(scene: &Scene<'_>) -> Value {
    let s = scene.dev.plant.settings;
    let select = match (s.asleep, s.level) {
        (true, _) => 2,
        (false, Level::LowPower) => 1,
        (false, _) => 0,
    };
    let plans = [
        (0, "725 MHz 0.41 V 70 RPM 70 RPM"),
        (1, "600 MHz 0.39 V 60 RPM 60 RPM"),
        (3, "0 MHz 0 V 70 RPM 70 RPM"),
    ];
    let plans: Vec<Value> =
        plans.iter().map(|(level, info)| value!({"level": level, "info": info})).collect();
    value!({
        "select": select, "tempcontrol": true, "ledcontrol": true, "manualPowerplan": "725 MHz 0.41 V 70 RPM 70 RPM",
        "name": scene.dev.mac().to_string(), "powerplans": plans, "manual": false, "temp_targets": [65.0, 75.0],
        "version": "v2.1", "temp_target": 65,
    })
}

/// The CGMiner port.
pub fn report(scene: &mut Scene<'_>, command: &str, reply: &mut Reply) -> Outcome {
    let (s, shares) = (scene.sensed, Shares::of(scene));
    match command {
        "summary" => {
            let now = rounded(s.rate / 1e6, 4);
            scene.sampled(now * 1e6);
            status(scene, reply, 'S', 11, "Summary");
            reply.rows("SUMMARY");
            reply.row("SUMMARY");
            reply.int("Elapsed", s.elapsed);
            reply.num("MHS av", s.average / 1e6, 4);
            reply.num("MHS 20s", now, 4);
            reply.int("Accepted", shares.accepted);
            reply.int("Rejected", shares.rejected);
            reply.end_row();
        }
        "devs" => {
            let boards = scene.dev.model.boards;
            status(scene, reply, 'S', 9, "ASCs");
            reply.rows("DEVS");
            for board in 0..boards {
                reply.row_n("ASC", board.into());
                reply.num("MHS 20s", scene.dev.plant.board_rate(s.rate, board, boards) / 1e6, 4);
                reply.num("tstemp-1", s.chip, 1);
                reply.num("tstemp-2", s.board, 1);
                reply.int("fan0", s.fan_rpm);
                reply.end_row();
            }
        }
        "pools" => {
            status(scene, reply, 'S', 7, "3 Pool(s)");
            reply.rows("POOLS");
            for n in 0..3 {
                let pool = scene.dev.pool(n);
                reply.row_n("POOL", n);
                reply.str("URL", &pool.url);
                reply.str("User", &pool.user);
                reply.str("Status", "Alive");
                reply.int("Accepted", if n == 0 { shares.accepted } else { 0 });
                reply.int("Rejected", if n == 0 { shares.rejected } else { 0 });
                reply.str("Stratum URL", host(&pool.url));
                reply.end_row();
            }
        }
        _ => return Outcome::Unknown,
    }
    reply.end_rows();
    reply.end();
    Outcome::Done
}
