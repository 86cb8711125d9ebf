//! VNish: a REST API under a token, and Bitmain's manner on 4028.
//!
//! A stop is "shutting-down" for as long as the boards take, then "stopped". Hydro models with water
//! below the least start temperature say yes to a start and stay stopped.

use super::antminer_web::{WebAnswer, WebRequest};
use super::web::{self, body, has, json, json_status, page, phase_said, set, text};
use super::{Outcome, Scene, Shares, host, status};
use crate::device::{Change, Device, Pool};
use crate::faults::FaultKind;
use crate::physics::{Phase, profile_share};
use crate::reply::{Reply, rounded};
use serde_json::{Map, Value, json as value};

pub const PASSWORD: &str = "admin";
/// Steps from the default preset that there are presets for.
const PRESETS: std::ops::RangeInclusive<i8> = -8..=3;
/// The step below which nothing was tuned yet.
const TUNED_FROM: i8 = -5;
/// Least temperature of the water at which a hydro model starts, in degrees Celsius.
const MIN_WATER: f64 = 15.0;

/// The name of a preset: its power.
pub fn preset_name(dev: &Device, step: i8) -> String {
    format!("{:.0}", (dev.model.watts * profile_share(step) / 10.0).round() * 10.0)
}

fn preset_of(dev: &Device, name: &str) -> Option<i8> {
    PRESETS.into_iter().find(|step| preset_name(dev, *step) == name)
}

fn preset(dev: &Device, step: i8) -> Value {
    let name = preset_name(dev, step);
    let share = profile_share(step);
    let status = if step >= TUNED_FROM { "tuned" } else { "untuned" };
    value!({
        "name": name,
        "pretty": format!("{name} watt ~ {:.0} TH", dev.model.terahash * share),
        "status": status,
        "modded_psu_required": false,
    })
}

fn state(scene: &Scene<'_>) -> &'static str {
    match phase_said(scene) {
        Phase::Mining => "mining",
        Phase::Ramping => "auto-tuning",
        Phase::Stopping => "shutting-down",
        Phase::Asleep => "stopped",
        Phase::Booting => "initializing",
        Phase::Down => "restarting",
    }
}

fn is_hydro(dev: &Device) -> bool {
    dev.model.fans == 0
}

fn water(scene: &Scene<'_>) -> f64 {
    if has(scene, FaultKind::ColdWater) { 8.0 } else { scene.sensed.ambient.round() }
}

pub fn answer(scene: &mut Scene<'_>, request: &WebRequest<'_>) -> WebAnswer {
    let Some(path) = request.path.split('?').next().and_then(|path| path.strip_prefix("/api/v1/")) else {
        return page(
            if request.path == "/" { 200 } else { 404 },
            "<html><head><title>AnthillOS</title></head></html>",
        );
    };
    match (request.method, path) {
        ("GET", "info") => json(info(scene)),
        ("GET", "summary") => json(summary(scene)),
        ("GET", "perf-summary") => json(value!({
            "current_preset": preset(scene.dev, scene.dev.plant.settings.profile),
            "preset_switcher": {"enabled": false},
        })),
        ("GET", "status") => json(value!({
            "miner_state": state(scene),
            "miner_state_time": state_time(scene),
            "find_miner": web::light(scene.dev),
            "unlocked": false,
            "restart_required": false,
            "reboot_required": false,
        })),
        ("POST", "unlock") => {
            if web::takes_password(scene, text(&body(request), "pw"), PASSWORD) {
                json(value!({"token": web::issue(scene)}))
            } else {
                json_status(403, value!({"unlock_timeout": null}))
            }
        }
        _ if !web::knows(scene, request.authorization) => page(401, ""),
        ("GET", "settings") => json(settings(scene.dev)),
        ("GET", "autotune/presets") => {
            let disabled = value!({"name": "disabled", "pretty": "Disabled", "status": "untuned", "modded_psu_required": false});
            let rest = PRESETS.map(|step| preset(scene.dev, step));
            json(Value::Array(std::iter::once(disabled).chain(rest).collect()))
        }
        ("POST", "mining/stop") => {
            scene.write(Change::Sleep);
            done()
        }
        ("POST", "mining/start") => {
            if is_hydro(scene.dev) && water(scene) < MIN_WATER {
                web::ignore(scene);
            } else {
                scene.write(Change::Wake);
            }
            done()
        }
        ("POST", "mining/restart") => {
            scene.write(Change::Restart);
            done()
        }
        ("POST", "system/reboot") => {
            scene.write(Change::Reboot);
            json(value!({"after": 3}))
        }
        ("POST", "find-miner") => {
            let on = body(request).get("on").and_then(Value::as_bool);
            web::set_light(scene, on.unwrap_or(!web::light(scene.dev)));
            json(value!({"on": web::light(scene.dev)}))
        }
        ("POST", "settings") => {
            let posted = body(request);
            match posted.get("miner").and_then(Value::as_object) {
                Some(miner) => take_settings(scene, miner),
                None => json_status(500, value!({"err": "nothing to save"})),
            }
        }
        _ => page(404, ""),
    }
}

fn done() -> WebAnswer {
    json(value!({"success": true}))
}

fn state_time(scene: &Scene<'_>) -> u64 {
    (scene.t - scene.dev.plant.since).max(0.0) as u64
}

fn info(scene: &Scene<'_>) -> Value {
    let dev = &*scene.dev;
    value!({
        "miner": dev.model.name,
        "model": dev.model.name.to_lowercase().replace("antminer ", "").replace(' ', ""),
        "fw_name": "Vnish",
        "fw_version": dev.model.build,
        "build_name": "vnishus",
        "platform": "aml",
        "install_type": "nand",
        "algorithm": "sha256d",
        "hr_measure": "GH/s",
        "system": {
            "os": "GNU/Linux",
            "network_status": {"mac": dev.mac().to_string(), "dhcp": true, "ip": dev.ip.to_string(), "hostname": "Antminer"},
            "uptime": format!("{}:{:02}", scene.sensed.uptime / 3600, scene.sensed.uptime / 60 % 60),
        },
        "serial": "N/A",
    })
}

fn summary(scene: &mut Scene<'_>) -> Value {
    let miner_type = format!("{} (Vnish {})", scene.dev.model.name, scene.dev.model.build);
    let mut status = Map::new();
    status.insert("miner_state".into(), state(scene).into());
    status.insert("miner_state_time".into(), state_time(scene).into());
    if phase_said(scene) == Phase::Asleep && !has(scene, FaultKind::NoEffect) {
        let mut miner = Map::new();
        miner.insert("miner_status".into(), Value::Object(status));
        miner.insert("miner_type".into(), miner_type.into());
        if is_hydro(scene.dev) {
            miner.insert("chains".into(), value!([{"id": 1, "inlet_water_temp": water(scene)}]));
        } else {
            miner.insert("chains".into(), value!([]));
        }
        return value!({"miner": miner});
    }
    let s = scene.sensed;
    let now = rounded(s.rate / 1e9, 2);
    scene.sampled(now * 1e9);
    let watts = web::watts(scene);
    let (dev, shares) = (&*scene.dev, Shares::of(scene));
    let model = dev.model;
    let chip = |board: u8| (s.chip - 4.0 - f64::from(board)).round();
    let chains: Vec<Value> = (0..model.boards)
        .map(|board| {
            let mut chain = value!({
                "id": board + 1,
                "frequency": model.mhz,
                "voltage": 13000,
                "power_consumption": (watts / f64::from(model.boards)).round(),
                "hashrate_ideal": dev.plant.plate_hash() / 1e9 / f64::from(model.boards),
                "hashrate_rt": rounded(dev.plant.board_rate(s.rate, board, model.boards) / 1e9, 2),
                "pcb_temp": {"min": (s.board - 8.0).round(), "max": s.board.round()},
                "chip_temp": {"min": chip(board), "max": (s.chip - f64::from(board)).round()},
                "status": {"state": "mining"},
            });
            if model.fans == 0 {
                chain["inlet_water_temp"] = water(scene).into();
                chain["outlet_water_temp"] = (water(scene) + 9.0).into();
            }
            chain
        })
        .collect();
    let pools: Vec<Value> = (0..3)
        .map(|n| (n, dev.pool(n)))
        .filter(|(_, pool)| !pool.url.is_empty())
        .map(|(n, pool)| {
            let mine = |v: u64| if n == 0 { v } else { 0 };
            value!({
                "id": n, "url": bare(&pool.url), "pool_type": "UserPool", "user": pool.user,
                "status": if n == 0 { "active" } else { "working" },
                "accepted": mine(shares.accepted), "rejected": mine(shares.rejected), "stale": mine(shares.stale),
            })
        })
        .chain([value!({"id": 9, "url": "DevFee", "pool_type": "DevFee", "user": "DevFee", "status": "active", "accepted": shares.accepted / 40, "rejected": 0, "stale": 0})])
        .collect();
    let fans: Vec<Value> = (0..model.fans)
        .map(|id| value!({"id": id, "rpm": s.fan_rpm, "status": "ok", "max_rpm": 6500}))
        .collect();
    value!({"miner": {
        "miner_status": status,
        "miner_type": miner_type,
        "average_hashrate": s.average / 1e12,
        "instant_hashrate": rounded(s.rate / 1e12, 5),
        "hr_realtime": now,
        "hr_nominal": dev.plant.plate_hash() / 1e9,
        "hr_average": s.average / 1e9,
        "pcb_temp": {"min": (s.board - 8.0).round(), "max": s.board.round()},
        "chip_temp": {"min": chip(model.boards), "max": s.chip.round()},
        "power_consumption": watts,
        "power_usage": watts,
        "pools": pools,
        "cooling": {"fan_num": model.fans, "fans": fans, "settings": {"mode": {"name": "auto"}}, "fan_duty": 90},
        "chains": chains,
    }})
}

/// The device keeps a pool's address without its scheme.
fn bare(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest)
}

/// The settings as the device shows them.
fn settings(dev: &Device) -> Value {
    let mut all = as_delivered(dev);
    for (key, own) in dev.document.iter().flat_map(|map| map.iter()) {
        all["miner"][key.as_str()] = own.clone();
    }
    all
}

/// The settings without what was written to `cooling` and `misc`.
fn as_delivered(dev: &Device) -> Value {
    let pools: Vec<Value> = (0..3)
        .map(|n| dev.pool(n))
        .map(|pool| value!({"url": bare(&pool.url), "user": pool.user, "pass": pool.pass}))
        .collect();
    let mut miner = value!({
        "cooling": {"mode": {"name": "auto", "param": 65}, "fan_min_count": dev.model.fans, "fan_min_duty": 10, "fan_max_duty": 100},
        "misc": {"asic_boost": false, "restart_hashrate": 0, "restart_temp": 90, "remain_stopped_on_reboot": true, "min_operational_chains": 3},
        "overclock": {
            "modded_psu": false,
            "preset": preset_name(dev, dev.plant.settings.profile),
            "globals": {"volt": 1270, "freq": dev.model.mhz},
            "preset_switcher": {"enabled": false},
        },
        "pools": pools,
    });
    if is_hydro(dev) {
        miner["cooling"]["min_startup_water_temp"] = (MIN_WATER as i64).into();
    }
    value!({
        "miner": miner,
        "ui": {"theme": "auto", "locale": "en", "timezone": "GMT"},
        "network": {"hostname": "Antminer", "dhcp": true},
        "password": null,
        "layout": null,
    })
}

fn take_settings(scene: &mut Scene<'_>, posted: &Map<String, Value>) -> WebAnswer {
    let now = settings(scene.dev);
    if let Some(pools) = posted.get("pools").and_then(Value::as_array) {
        let url = |pool: &Value| match text(pool, "url") {
            "" => String::new(),
            url => format!("stratum+tcp://{}", bare(url)),
        };
        let list: Vec<Pool> = pools
            .iter()
            .map(|p| Pool { url: url(p), user: text(p, "user").to_owned(), pass: text(p, "pass").to_owned() })
            .collect();
        if (0..3).any(|n| list.get(n).is_none_or(|pool| *pool != scene.dev.pool(n))) {
            web::set_pools(scene, &list);
        }
    }
    if let Some(overclock) = posted.get("overclock") {
        let Some(step) = preset_of(scene.dev, text(overclock, "preset")) else {
            scene.refused();
            return json_status(500, value!({"err": "no such preset"}));
        };
        if step != scene.dev.plant.settings.profile {
            scene.write(Change::Profile(step));
        }
    }
    for key in ["cooling", "misc"] {
        if let Some(own) = posted.get(key).filter(|own| **own != now["miner"][key]) {
            let own = own.clone();
            let plain = as_delivered(scene.dev)["miner"][key] == own;
            set(scene, |dev| {
                let document = dev.document.get_or_insert_default();
                if plain {
                    document.remove(key);
                } else {
                    document.insert(key.to_owned(), own);
                }
                if document.is_empty() {
                    dev.document = None;
                }
            });
        }
    }
    if scene.write.is_none() {
        set(scene, |_| {});
    }
    json(value!({"restart_required": false, "reboot_required": false}))
}

/// Moves a setting that no write named, as a fault has it.
pub fn move_a_setting(dev: &mut Device) {
    let mut misc = settings(dev)["miner"]["misc"].clone();
    misc["restart_temp"] = 80.into();
    dev.document.get_or_insert_default().insert("misc".to_owned(), misc);
}

/// The CGMiner port.
pub fn report(scene: &mut Scene<'_>, command: &str, reply: &mut Reply) -> Outcome {
    match command {
        "version" => super::plain(scene, reply, 'E', 0, "Invalid command"),
        "stats" => {
            let s = scene.sensed;
            let now = rounded(s.rate / 1e9, 2);
            scene.sampled(now * 1e9);
            status(scene, reply, 'S', 70, "CGMiner stats");
            reply.rows("STATS");
            reply.row("STATS");
            reply.str("Type", &format!("{} (Vnish {})", scene.dev.model.name, scene.dev.model.build));
            reply.str("Miner", "0.0.0");
            reply.str("CompileTime", "2025-12-22 19:12:30");
            reply.end_row();
            reply.row("STATS");
            reply.int("Elapsed", s.elapsed);
            reply.quoted("GHS 5s", format_args!("{now:.2}"));
            reply.num("GHS av", s.average / 1e9, 2);
            reply.int("fan_num", scene.dev.model.fans);
            reply.str("state", state(scene));
            reply.num("total_rate", now, 2);
            reply.end_row();
            reply.end_rows();
            reply.end();
        }
        "pools" => {
            let shares = Shares::of(scene);
            status(scene, reply, 'S', 7, "3 Pool(s)");
            reply.rows("POOLS");
            for n in 0..3 {
                let pool = scene.dev.pool(n);
                let mine = |v: u64| if n == 0 { v } else { 0 };
                reply.row_n("POOL", n);
                reply.str("URL", bare(&pool.url));
                reply.str("User", &pool.user);
                reply.str("Status", "Alive");
                reply.int("Accepted", mine(shares.accepted));
                reply.int("Rejected", mine(shares.rejected));
                reply.int("Stale", mine(shares.stale));
                reply.str("Stratum URL", host(&pool.url));
                reply.end_row();
            }
            reply.end_rows();
            reply.end();
        }
        _ => return Outcome::Unknown,
    }
    Outcome::Done
}
