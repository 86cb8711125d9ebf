//! ePIC PowerPlay: HTTP on port 4028, the password in the body of each write.
//!
//! A wrong password is answered with status 200 and `"result": false`.

use super::antminer_web::{WebAnswer, WebRequest};
use super::web::{self, body, json, page, phase_said, text};
use super::{Scene, Shares};
use crate::device::{Change, Pool};
use crate::physics::Phase;
use crate::reply::rounded;
use serde_json::{Map, Value, json as value};

pub const PASSWORD: &str = "letmein";

pub fn answer(scene: &mut Scene<'_>, request: &WebRequest<'_>) -> WebAnswer {
    let path = request.path.split('?').next().unwrap_or_default();
    match (request.method, path) {
        ("GET", "/summary") => json(summary(scene)),
        ("GET", "/capabilities") => json(capabilities(scene)),
        ("GET", "/network") => json(value!({"dhcp": {
            "address": scene.dev.ip.to_string(), "dns": "8.8.8.8", "gateway": "127.10.0.1",
            "mac_address": scene.dev.mac().to_string(), "netmask": "255.255.0.0",
        }})),
        ("GET", "/temps") => {
            let s = scene.sensed;
            let boards = (0..scene.dev.model.boards).map(|board| {
                let lower = f64::from(board);
                value!({"Data": [rounded(s.board - lower, 3), rounded(s.chip - lower, 3)], "Index": board, "Total": 0.0})
            });
            json(Value::Array(boards.collect()))
        }
        ("POST", _) => post(scene, path, &body(request)),
        _ => page(404, ""),
    }
}

fn post(scene: &mut Scene<'_>, path: &str, body: &Value) -> WebAnswer {
    let says = |result: bool, error: Value| json(value!({"result": result, "error": error}));
    if !matches!(path, "/miner" | "/identify" | "/reboot" | "/softreboot" | "/coin") {
        return page(404, "");
    }
    if !web::takes_password(scene, text(body, "password"), PASSWORD) {
        scene.refused();
        return says(false, "Authentication failed".into());
    }
    let param = body.get("param").cloned().unwrap_or_default();
    match (path, &param) {
        ("/miner", Value::String(state)) if state == "Stop" => {
            scene.write(Change::Sleep);
        }
        ("/miner", Value::String(state)) if state == "Autostart" => {
            scene.write(Change::Wake);
        }
        ("/identify", Value::Bool(on)) => web::set_light(scene, *on),
        ("/reboot", Value::Number(_)) => {
            scene.write(Change::Reboot);
        }
        ("/softreboot", _) => {
            scene.write(Change::Restart);
        }
        ("/coin", Value::Object(map)) => {
            let Some(list) = map.get("stratum_configs").and_then(Value::as_array) else {
                scene.refused();
                return says(false, "Missing param".into());
            };
            let pools: Vec<Pool> = list
                .iter()
                .map(|p| Pool {
                    url: text(p, "pool").to_owned(),
                    user: text(p, "login").to_owned(),
                    pass: text(p, "password").to_owned(),
                })
                .collect();
            web::set_pools(scene, &pools);
        }
        _ => {
            scene.refused();
            return says(false, "Missing param".into());
        }
    }
    says(true, Value::Null)
}

fn summary(scene: &mut Scene<'_>) -> Value {
    let phase = phase_said(scene);
    let s = scene.sensed;
    let stands = matches!(phase, Phase::Asleep | Phase::Booting | Phase::Down);
    let state = match phase {
        Phase::Asleep => "Idling",
        Phase::Stopping => "Stopping",
        Phase::Booting | Phase::Down => "Initializing",
        Phase::Ramping | Phase::Mining => "Mining",
    };
    let boards = scene.dev.model.boards;
    let part = |board: u8| rounded(scene.dev.plant.board_rate(s.rate, board, boards) / 1e6, 1);
    let rates: Vec<f64> = (0..boards).map(part).collect();
    scene.sampled(rates.iter().sum::<f64>() * 1e6);
    let watts = web::watts(scene);
    let (dev, shares) = (&*scene.dev, Shares::of(scene));
    let hbs: Vec<Value> = rates
        .iter()
        .enumerate()
        .map(|(board, rate)| {
            value!({"Hashrate": [rate, 100.0, 0.8], "Index": board, "Input Voltage": 12.6, "Input Power": 0.0,
                "Temperature": rounded(s.chip - board as f64, 3)})
        })
        .collect();
    let mut fans = Map::new();
    for fan in 1..=12 {
        let rpm = if fan <= dev.model.fans { Value::from(s.fan_rpm) } else { Value::Null };
        fans.insert(format!("Fans Speed {fan}"), rpm);
    }
    let configs: Vec<Value> = (0..3)
        .map(|n| dev.pool(n))
        .filter(|pool| !pool.url.is_empty())
        .map(|pool| value!({"login": pool.user, "password": pool.pass, "pool": pool.url}))
        .collect();
    let pool = dev.pool(0);
    let bare = pool.url.split_once("://").map_or(pool.url.as_str(), |(_, rest)| rest);
    value!({
        "Software": dev.model.build,
        "Hostname": "epic",
        "OS Type": "umcOS",
        "Fans Rpm": fans,
        // A stopped miner lists its boards without a rate.
        "HBs": if stands { value!([]) } else { Value::Array(hbs) },
        "Mining": {"Algorithm": "SHA-256", "Coin": "BTC"},
        "Misc": {"Critical Temp": 100.0, "Locate Miner State": web::light(dev), "Shutdown Temp": 85.0},
        "Power Supply Stats": {"Input Power": watts, "Output Voltage": 12.595, "Target Voltage": 12600},
        "Session": {
            "Accepted": shares.accepted, "Rejected": shares.rejected, "Submitted": shares.accepted + shares.rejected,
            "Average MHs": if stands { 0.0 } else { s.average / 1e6 }, "Active HBs": dev.model.boards, "Uptime": s.elapsed,
        },
        "Status": {"Last Command": null, "Last Command Result": null, "Last Error": null, "Operating State": state},
        "Stratum": {
            "Config Id": 0, "Current Pool": bare, "Current User": pool.user, "IsPoolConnected": !stands,
            "Worker Unique Id": true, "Worker Unique Id Variant": "IpAddress",
        },
        "StratumConfigs": configs,
    })
}

fn capabilities(scene: &Scene<'_>) -> Value {
    let model = scene.dev.model;
    value!({
        "Model": model.name,
        "Chip Type": "BM1366",
        "Coins": ["BTC"],
        "Control Board Version": {"cpuHardware": "STM32 (Device Tree Support)", "cpuSerial": scene.dev.serial(0, 24)},
        "Default Hashrate": model.terahash,
        "Max HBs": model.boards,
        "Performance Estimator": {"Chip Count": model.chips_per_board},
    })
}
