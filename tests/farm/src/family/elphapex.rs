//! Elphapex DG: Bitmain's pages with keys of its own, and no CGMiner API.

use super::{Scene, Shares};
use crate::physics::Phase;
use crate::reply::rounded;
use serde_json::{Map, Value, json};

/// The settings beside the pools, as `get_miner_conf.cgi` shows them.
pub fn settings(map: &mut Map<String, Value>, mode: i64) {
    for (key, value) in [
        ("algo", json!("ltc")),
        ("fc-fan-ctrl", json!(false)),
        ("fc-fan-pwm", json!("20")),
        ("fc-freq", json!("1850")),
        ("fc-freq-level", json!("100")),
        ("fc-voltage", json!("1470")),
        ("fc-work-mode", json!(mode)),
    ] {
        map.insert(key.into(), value);
    }
}

/// The pages that differ from Bitmain's; rates are in MH/s, chip temperatures in thousandths.
pub fn page(scene: &mut Scene<'_>, path: &str) -> Option<String> {
    let name = path.strip_prefix("/cgi-bin/")?;
    let asleep = scene.dev.plant.phase == Phase::Asleep;
    let s = scene.sensed;
    let mega = |rate: f64| if asleep { 0.0 } else { rounded(rate / 1e6, 2) };
    let status = json!({"STATUS": "S", "when": scene.when(), "Msg": "x", "api_version": "1.0.0"});
    let info = json!({"miner_version": "DG1_SW_V1.0.2", "CompileTime": "", "dev_sn": scene.dev.serial(0, 17), "type": scene.dev.model.name, "hw_version": "DG1"});
    let page = match name {
        "summary.cgi" => {
            // The five-second rate swings by a third: what counts is the average, and that it stands still.
            scene.sampled(if mega(s.rate) > 0.0 { mega(s.average) * 1e6 } else { 0.0 });
            json!({"STATUS": status, "INFO": info, "SUMMARY": [{
                "elapsed": s.elapsed, "rate_5s": mega(s.rate), "rate_30m": mega(s.m15), "rate_avg": mega(s.average),
                "rate_ideal": rounded(scene.dev.plant.plate_hash() / 1e6, 0), "rate_unit": "MH/s", "status": [],
            }]})
        }
        "stats.cgi" => {
            let boards = scene.dev.model.boards;
            let chain: Vec<Value> = (0..boards)
                .map(|n| json!({
                    "index": n, "rate_real": mega(scene.dev.plant.board_rate(s.rate, n, boards)),
                    "temp_pcb": [s.board as i32 - 9, s.board as i32], "temp_chip": ["", format!("{:.0}", s.chip * 1e3)],
                    "sn": scene.dev.serial(1 + u64::from(n), 17),
                }))
                .collect();
            json!({"STATUS": status, "INFO": info, "STATS": [{
                "elapsed": s.elapsed, "rate_5s": mega(s.rate), "rate_avg": mega(s.average), "rate_unit": "MH/s",
                "chain_num": boards, "fan_num": 4, "fan": vec![s.fan_rpm; 4], "chain": chain,
            }]})
        }
        "pools.cgi" => {
            let shares = Shares::of(scene);
            let pools: Vec<Value> = (0..3)
                .map(|n| (n, scene.dev.pool(n)))
                .map(|(n, pool)| json!({
                    "index": n, "url": pool.url, "user": pool.user, "status": if n == 0 { "Alive" } else { "Dead" },
                    "accepted": if n == 0 { shares.accepted } else { 0 }, "rejected": if n == 0 { shares.rejected } else { 0 },
                    "stale": 0,
                }))
                .collect();
            json!({"STATUS": status, "INFO": info, "POOLS": pools})
        }
        "get_power.cgi" => {
            scene.power = Some(s.watts);
            json!({"power_output": s.watts})
        }
        "get_system_info.cgi" => json!({
            "minertype": scene.dev.model.name, "macaddr": scene.dev.mac().to_string(), "hostname": "DG1",
            "system_filesystem_version": scene.dev.model.build, "serinum": scene.dev.serial(0, 17),
        }),
        _ => return None,
    };
    Some(page.to_string())
}
