//! Proto Rig: a REST API under a token; it has no CGMiner port.

use super::antminer_web::{WebAnswer, WebRequest};
use super::web::{self, body, json, json_status, page, phase_said, text};
use super::{Scene, Shares};
use crate::device::{Change, Pool};
use crate::physics::Phase;
use crate::reply::rounded;
use serde_json::{Value, json as value};

pub const PASSWORD: &str = "proto-rig-1";

pub fn answer(scene: &mut Scene<'_>, request: &WebRequest<'_>) -> WebAnswer {
    let path = request.path.split('?').next().unwrap_or_default();
    let Some(path) = path.strip_prefix("/api/v1/") else { return page(404, "") };
    match (request.method, path) {
        ("GET", "system") => json(value!({"system-info": {
            "board": "C3", "cb_sn": scene.dev.serial(0, 12), "manufacturer": "Proto", "model": "Rig",
            "os": {"name": "ProtoOS", "variant": "release", "version": scene.dev.model.build},
            "product_name": scene.dev.model.name, "uptime_seconds": scene.sensed.uptime,
        }})),
        ("GET", "network") => json(value!({"network-info": {
            "dhcp": true, "ip_address": scene.dev.ip.to_string(), "mac": scene.dev.mac().to_string(),
        }})),
        ("GET", "hardware") => {
            json(value!({"hardware-info": {"cb-info": {"serial_number": scene.dev.serial(0, 12)}}}))
        }
        ("POST", "auth/login") => {
            if web::takes_password(scene, text(&body(request), "password"), PASSWORD) {
                json(value!({"access_token": web::issue(scene), "refresh_token": "r"}))
            } else {
                json_status(401, value!({"error": {"code": "UNAUTHORIZED", "message": "invalid password"}}))
            }
        }
        _ if !web::knows(scene, request.authorization) => json_status(
            401,
            value!({"error": {"code": "UNAUTHORIZED", "message": "token is missing or expired"}}),
        ),
        ("GET", "mining") => json(value!({"mining-status": mining(scene)})),
        ("GET", "telemetry") => json(telemetry(scene)),
        ("GET", "cooling") => {
            let fans: Vec<Value> = (1..=scene.dev.model.fans)
                .map(|slot| value!({"slot": slot, "rpm": scene.sensed.fan_rpm}))
                .collect();
            json(value!({"cooling-status": {"fan_mode": "Auto", "fans": fans}}))
        }
        ("GET", "pools") => {
            let shares = Shares::of(scene);
            let pools: Vec<Value> = (0..3)
                .map(|n| (n, scene.dev.pool(n)))
                .filter(|(_, pool)| !pool.url.is_empty())
                .map(|(n, pool)| value!({"id": n, "priority": n, "url": pool.url, "user": pool.user, "status": if n == 0 { "Active" } else { "Idle" },
                    "accepted": if n == 0 { shares.accepted } else { 0 }, "rejected": if n == 0 { shares.rejected } else { 0 }}))
                .collect();
            json(value!({"pools": pools}))
        }
        ("POST", "mining/stop") => {
            scene.write(Change::Sleep);
            json_status(200, value!({"message": "Mining stopped"}))
        }
        ("POST", "mining/start") => {
            scene.write(Change::Wake);
            json_status(200, value!({"message": "Mining started"}))
        }
        ("POST", "system/reboot") => {
            scene.write(Change::Reboot);
            json(value!({"message": "Rebooting"}))
        }
        ("PUT", "mining/target") => match body(request).get("power_target_watts").and_then(Value::as_u64) {
            Some(watts) => {
                scene.write(Change::Limit(u32::try_from(watts).ok()));
                json(value!({"power_target_watts": watts}))
            }
            None => json_status(400, value!({"error": {"message": "power_target_watts is missing"}})),
        },
        ("POST", "pools") => {
            let pool = |p: &Value| Pool {
                url: text(p, "url").to_owned(),
                user: text(p, "username").to_owned(),
                pass: text(p, "password").to_owned(),
            };
            let list: Vec<Pool> = body(request).as_array().into_iter().flatten().map(pool).collect();
            web::set_pools(scene, &list);
            json(value!({"message": "ok"}))
        }
        _ => page(404, ""),
    }
}

fn mining(scene: &mut Scene<'_>) -> Value {
    let state = match phase_said(scene) {
        Phase::Asleep => "Stopped",
        Phase::Stopping => "Stopping",
        Phase::Booting | Phase::Down => "PoweringOn",
        Phase::Ramping | Phase::Mining => "Mining",
    };
    let s = scene.sensed;
    let watts = web::watts(scene);
    let plate = scene.dev.plant.plate_watts().round();
    value!({
        "status": state,
        "hashrate_ghs": s.rate / 1e9,
        "average_hashrate_ghs": s.average / 1e9,
        "power_usage_watts": watts,
        "power_target_watts": scene.dev.plant.settings.limit.map_or(plate, f64::from),
        "mining_uptime_s": s.elapsed,
        "reboot_uptime_s": s.uptime,
    })
}

fn telemetry(scene: &mut Scene<'_>) -> Value {
    let s = scene.sensed;
    let now = rounded(s.rate / 1e12, 4);
    scene.sampled(now * 1e12);
    let watts = web::watts(scene);
    let dev = &*scene.dev;
    let boards: Vec<Value> = (0..dev.model.boards)
        .map(|board| value!({
            "index": board,
            "hashrate": {"value": rounded(dev.plant.board_rate(s.rate, board, dev.model.boards) / 1e12, 4), "unit": "TH/s"},
            "temperature": {"inlet": rounded(s.board - 8.0, 1), "average": rounded(s.board, 1), "outlet": rounded(s.chip, 1)},
        }))
        .collect();
    value!({
        "miner": {"hashrate": {"value": now, "unit": "TH/s"}, "power": {"value": watts, "unit": "W"}, "temperature": {"value": rounded(s.board, 1), "unit": "C"}},
        "hashboards": boards,
    })
}
