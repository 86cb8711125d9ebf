//! Auradine: GCMiner on 4028, FluxOS on the web port under a token in a header of its own.

use super::antminer_web::{WebAnswer, WebRequest};
use super::web::{self, body, json, page, phase_said, text};
use super::{Outcome, Scene, Shares, host, status};
use crate::device::{Change, Pool};
use crate::physics::Phase;
use crate::reply::{Reply, rounded};
use serde_json::{Value, json as value};

pub const USER: &str = "admin";
pub const PASSWORD: &str = "admin";

/// A reply of FluxOS: its status, and a list.
fn says(scene: &Scene<'_>, letter: &str, code: u32, words: &str, list: Option<(&str, Value)>) -> WebAnswer {
    let status = value!([{"STATUS": letter, "When": scene.when(), "Code": code, "Msg": words, "Description": scene.dev.model.build}]);
    let mut reply = value!({"STATUS": status, "id": 1});
    if let Some((name, list)) = list {
        reply[name] = list;
    }
    json(reply)
}

pub fn answer(scene: &mut Scene<'_>, request: &WebRequest<'_>) -> WebAnswer {
    let path = request.path.split('?').next().unwrap_or_default().trim_start_matches('/');
    if (request.method, path) == ("POST", "token") {
        let asked = body(request);
        let known =
            text(&asked, "user") == USER && web::takes_password(scene, text(&asked, "password"), PASSWORD);
        return if known {
            let token = web::issue(scene);
            says(scene, "S", 700, "Token", Some(("Token", value!([{"Token": token}]))))
        } else {
            says(scene, "E", 701, "Unauthorized user or password", None)
        };
    }
    if !web::knows(scene, request.token) {
        return says(scene, "E", 702, "Invalid token", None);
    }
    match (request.method, path) {
        ("GET", "mode") => {
            let sleeps = matches!(phase_said(scene), Phase::Asleep | Phase::Stopping);
            let limit = scene.dev.plant.settings.limit;
            let mut mode = value!({"Mode": if limit.is_some() { "custom" } else { "normal" }, "Sleep": if sleeps { "on" } else { "off" }});
            if let Some(limit) = limit {
                mode["Power"] = limit.into();
                mode["Tune"] = "power".into();
            }
            says(scene, "S", 540, "Operating mode", Some(("Mode", value!([mode]))))
        }
        ("GET", "psu") => {
            let watts = web::watts(scene);
            says(
                scene,
                "S",
                570,
                "PSU status",
                Some(("PSU", value!([{"PowerIn": format!("{watts:.2}W"), "Vin": "245.00V"}]))),
            )
        }
        ("GET", "fan") => {
            let fans: Vec<Value> = (1..=scene.dev.model.fans)
                .map(|id| value!({"ID": id, "Max": 7700, "Speed": scene.sensed.fan_rpm}))
                .collect();
            says(scene, "S", 510, "Total fans", Some(("Fan", fans.into())))
        }
        ("GET", "temperature") => {
            let s = scene.sensed;
            let boards: Vec<Value> = (1..=scene.dev.model.boards)
                .map(|id| value!({"ID": id, "Name": format!("Hash Board {id}"), "BoardTemp": [{"ID": 0, "Temperature": rounded(s.board, 4)}], "ChipTemp": [{"ID": 0, "Temperature": s.chip}]}))
                .collect();
            says(scene, "S", 590, "System temperature", Some(("Temperature", boards.into())))
        }
        ("GET", "led") => {
            let code = if web::light(scene.dev) { 3 } else { 2 };
            says(
                scene,
                "S",
                530,
                "Total LEDs 2",
                Some(("LED", value!([{"Code": code, "LED1": 1, "LED2": 1, "Msg": "Normal"}]))),
            )
        }
        ("GET", "ipreport") => {
            let dev = &*scene.dev;
            let report = value!([{"SerialNo": dev.serial(0, 10), "hostname": "teraflux", "ip": dev.ip.to_string(), "mac": dev.mac().to_string().to_lowercase(), "model": dev.model.name, "version": "2023-12.27"}]);
            says(scene, "S", 620, "IP Report", Some(("IPReport", report)))
        }
        ("POST", _) => post(scene, path, &body(request)),
        _ => page(404, ""),
    }
}

fn post(scene: &mut Scene<'_>, path: &str, asked: &Value) -> WebAnswer {
    match path {
        "mode" => match (text(asked, "sleep"), text(asked, "mode")) {
            ("on", _) => {
                scene.write(Change::Sleep);
            }
            ("off", _) => {
                scene.write(Change::Wake);
            }
            (_, "custom") => {
                let watts = asked.get("power").and_then(Value::as_u64).and_then(|w| u32::try_from(w).ok());
                let Some(watts) = watts else { return says(scene, "E", 541, "power is missing", None) };
                scene.write(Change::Limit(Some(watts)));
            }
            (_, "normal") => {
                scene.write(Change::Limit(None));
            }
            _ => return says(scene, "E", 541, "no such mode", None),
        },
        "led" => web::set_light(scene, asked.get("code").and_then(Value::as_u64) == Some(3)),
        "restart" => {
            scene.write(Change::Reboot);
        }
        "updatepools" => {
            let pool = |p: &Value| Pool {
                url: text(p, "url").to_owned(),
                user: text(p, "user").to_owned(),
                pass: text(p, "pass").to_owned(),
            };
            let list: Vec<Pool> =
                asked.get("pools").and_then(Value::as_array).into_iter().flatten().map(pool).collect();
            web::set_pools(scene, &list);
        }
        _ => return page(404, ""),
    }
    says(scene, "S", 600, "OK", None)
}

/// The CGMiner port.
pub fn report(scene: &mut Scene<'_>, command: &str, reply: &mut Reply) -> Outcome {
    let (s, shares) = (scene.sensed, Shares::of(scene));
    match command {
        "version" => {
            status(scene, reply, 'S', 22, "GCMiner versions");
            reply.rows("VERSION");
            reply.row("VERSION");
            reply.str("API", "1.0");
            reply.str("GCMiner", "0.5");
            reply.end_row();
        }
        "devdetails" => {
            status(scene, reply, 'S', 69, "Device Details");
            reply.rows("DEVDETAILS");
            reply.row_n("DEVDETAILS", 0);
            reply.str("Model", scene.dev.model.name);
            reply.end_row();
        }
        "summary" => {
            let now = rounded(s.rate / 1e6, 2);
            scene.sampled(now * 1e6);
            status(scene, reply, 'S', 11, "Summary");
            reply.rows("SUMMARY");
            reply.row("SUMMARY");
            reply.int("Elapsed", s.elapsed);
            reply.num("MHS av", s.average / 1e6, 2);
            reply.num("MHS 5s", now, 2);
            reply.num("MHS 1m", s.m1 / 1e6, 2);
            reply.int("Accepted", shares.accepted);
            reply.int("Rejected", shares.rejected);
            reply.end_row();
        }
        "devs" => {
            let boards = scene.dev.model.boards;
            status(scene, reply, 'S', 9, "ASCs");
            reply.rows("DEVS");
            for board in 0..boards {
                reply.row_n("DEV", usize::from(board) + 1);
                reply.num("MHS 5s", scene.dev.plant.board_rate(s.rate, board, boards) / 1e6, 2);
                reply.num("Temperature", s.board, 2);
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
