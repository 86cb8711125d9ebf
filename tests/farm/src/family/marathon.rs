//! MARA's firmware: pages under `/kaonsu/v1`, the mode a word in a document with much else in it.

use super::antminer_web::WebRequest;
use super::{Scene, Shares, WriteNote};
use crate::device::{Change, Own, Pool, WriteResult};
use crate::faults::FaultKind;
use crate::physics::Phase;
use crate::reply::rounded;
use serde_json::{Value, json};

/// One page; `None` where there is none of this name.
pub fn page(scene: &mut Scene<'_>, request: &WebRequest<'_>, path: &str) -> Option<String> {
    let name = path.strip_prefix("/kaonsu/v1/")?;
    let body = || serde_json::from_slice::<Value>(request.body).unwrap_or_default();
    let page = match (request.method, name) {
        ("GET", "overview") => json!({
            "control_board": "CVCtrl", "model": scene.dev.model.name, "version_firmware": scene.dev.model.build,
            "mac": scene.dev.mac().to_string(), "serial_number": scene.dev.serial(0, 17),
        }),
        ("GET", "brief") => brief(scene),
        ("GET", "fans") => {
            let fan = json!({"current_speed": scene.sensed.fan_rpm, "max_speed": 6000});
            json!({"fans": vec![fan; scene.dev.model.fans.into()]})
        }
        ("GET", "hashboards") => {
            let boards = scene.dev.model.boards;
            let board = |n| {
                json!({
                    "index": n, "hashrate_average": rounded(scene.dev.plant.board_rate(scene.sensed.rate, n, boards) / 1e9, 2),
                    "temperature_pcb": [scene.sensed.board], "temperature_chip": [scene.sensed.chip],
                })
            };
            json!({"hashboards": (0..boards).map(board).collect::<Vec<_>>()})
        }
        ("GET", "pools") => {
            let shares = Shares::of(scene);
            let pool = |n: usize| {
                let pool = scene.dev.pool(n);
                let mine = |v: u64| if n == 0 { v } else { 0 };
                json!({"url": pool.url, "user": pool.user, "status": if n == 0 { "Alive" } else { "Dead" },
                       "accepted": mine(shares.accepted), "rejected": mine(shares.rejected), "stale": 0})
            };
            json!((0..3).map(pool).collect::<Vec<_>>())
        }
        ("GET", "miner_config") => config(scene),
        ("POST", "miner_config") => set_config(scene, &body()),
        ("GET", "locate_miner") => json!({"blinking": scene.dev.locating}),
        ("POST", "locate_miner") => {
            scene.dev.locating = body().get("blinking") == Some(&json!(true));
            json!({"blinking": scene.dev.locating})
        }
        ("POST", "maintenance") if body().get("type") == Some(&json!("reboot")) => {
            scene.write(Change::Reboot);
            json!({"error": false})
        }
        _ => return None,
    };
    Some(page.to_string())
}

fn selector(scene: &Scene<'_>) -> String {
    match &scene.dev.own {
        _ if scene.dev.plant.settings.asleep => "Sleep".to_owned(),
        Own::Marathon { selector } => selector.clone(),
        _ => "Stock".to_owned(),
    }
}

fn brief(scene: &mut Scene<'_>) -> Value {
    let s = scene.sensed;
    let rate = rounded(s.rate / 1e9, 2);
    scene.sampled(rate * 1e9);
    scene.power = Some(s.watts);
    let status = match scene.dev.plant.phase {
        Phase::Asleep => "Sleep",
        Phase::Booting | Phase::Down => "Initializing",
        _ => "Mining",
    };
    json!({
        "elapsed": s.elapsed, "hashrate_realtime": rate, "hashrate_average": rounded(s.average / 1e9, 2),
        "hashrate_unit": "GH/s", "power_consumption_estimated": s.watts, "status": status,
        "work_mode": selector(scene),
    })
}

fn config(scene: &Scene<'_>) -> Value {
    let pool = |n: usize| {
        let pool = scene.dev.pool(n);
        json!({"url": pool.url, "user": pool.user, "pass": pool.pass, "gid": 0})
    };
    json!({
        "mode": {
            "work-mode-selector": selector(scene),
            "concorde": {"mode-select": "PowerTarget", "power-target": scene.dev.plant.settings.limit.unwrap_or(3000)},
            "fixed": {"frequency": "545", "voltage": 13.8},
        },
        "fans": {"mode": "auto", "target": 60},
        "pool-group": [{"gid": 0, "alias": "", "percent": 100}],
        "pools": (0..3).map(pool).collect::<Vec<_>>(),
    })
}

/// Takes the whole document or nothing.
fn set_config(scene: &mut Scene<'_>, posted: &Value) -> Value {
    let wanted = posted.pointer("/mode/work-mode-selector").and_then(Value::as_str);
    let pools = posted.get("pools").and_then(Value::as_array);
    let (Some(wanted), Some(pools)) = (wanted, pools) else {
        scene.refused();
        return json!({"error": true, "msg": "incomplete configuration"});
    };
    if !["Sleep", "Stock", "Auto", "Fixed"].contains(&wanted) {
        scene.refused();
        return json!({"error": true, "msg": "unknown mode"});
    }
    let (before, hash) = (scene.dev.mode(), scene.dev.config_hash());
    if scene.dev.faults.active(FaultKind::Lie, scene.t).is_none() {
        let text = |n: usize, key: &str| {
            pools.get(n).and_then(|p| p.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let pools =
            [0, 1, 2].map(|n| Pool { url: text(n, "url"), user: text(n, "user"), pass: text(n, "pass") });
        if pools.iter().enumerate().any(|(n, pool)| *pool != scene.dev.pool(n)) {
            scene.dev.pools = Some(Box::new(pools));
        }
        let limit = posted.pointer("/mode/concorde/power-target").and_then(Value::as_u64);
        let limit = limit.and_then(|limit| u32::try_from(limit).ok()).filter(|limit| *limit != 3000);
        scene.dev.plant.settings.limit = limit;
        if wanted != "Sleep"
            && let Own::Marathon { selector } = &mut scene.dev.own
        {
            wanted.clone_into(selector);
        }
    }
    match (wanted, scene.dev.plant.settings.asleep) {
        ("Sleep", false) => _ = scene.write(Change::Sleep),
        ("Sleep", true) => {}
        (_, true) => _ = scene.write(Change::Wake),
        (_, false) => {}
    }
    if scene.write.is_none() {
        let moved = scene.dev.config_hash() != hash || scene.dev.mode() != before;
        let result = if moved { WriteResult::Taken } else { WriteResult::Ignored };
        scene.write = Some(WriteNote { result, before, after: scene.dev.mode() });
    }
    json!({"error": false})
}
