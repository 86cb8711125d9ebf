//! Bitdeer Sealminers: BDMiner behind the CGMiner API, writes included and without a sign-in.
//!
//! `ascset 0,suspend` stops the boards; nothing but `restart` brings them back. The five-second rate
//! overshoots by half; asleep it is 0 and the averages stay.

use super::{Ask, Outcome, Scene, Shares, host, plain, status};
use crate::device::{Change, Pool};
use crate::physics::Phase;
use crate::reply::{Reply, rounded};
use serde_json::Value;

pub fn report(scene: &mut Scene<'_>, command: &str, reply: &mut Reply) -> Outcome {
    match command {
        "version" => {
            status(scene, reply, 'S', 22, "BDMiner versions");
            reply.rows("VERSION");
            reply.row("VERSION");
            reply.str("BDMiner", "4.11.1");
            reply.str("API", "3.7");
            reply.end_row();
            reply.end_rows();
            reply.end();
        }
        "summary" => summary(scene, reply),
        "stats" => stats(scene, reply),
        "pools" => super::cgminer::pool_rows(scene, reply, Shares::of(scene), host),
        _ => return Outcome::Unknown,
    }
    Outcome::Done
}

fn hashing(scene: &Scene<'_>) -> bool {
    scene.sensed.rate > 0.0
}

fn summary(scene: &mut Scene<'_>, reply: &mut Reply) {
    let s = scene.sensed;
    let average = rounded(s.average / 1e6, 2);
    scene.sampled(if hashing(scene) { average * 1e6 } else { 0.0 });
    let shares = Shares::of(scene);
    status(scene, reply, 'S', 11, "Summary");
    reply.rows("SUMMARY");
    reply.row("SUMMARY");
    reply.int("Elapsed", s.elapsed);
    reply.num("MHS av", average, 2);
    reply.num("MHS 5s", s.rate / 1e6 * 1.6, 2);
    reply.num("MHS 1m", s.m1 / 1e6, 2);
    reply.num("MHS 5m", s.m5 / 1e6, 2);
    reply.num("MHS 15m", s.m15 / 1e6, 2);
    reply.int("Accepted", shares.accepted);
    reply.int("Rejected", shares.rejected);
    reply.end_row();
    reply.end_rows();
    reply.end();
}

fn stats(scene: &mut Scene<'_>, reply: &mut Reply) {
    let s = scene.sensed;
    scene.power = Some(s.watts);
    // Alone it is a poll too; beside the summary that one's rate counts.
    if scene.sample.is_none() {
        scene.sampled(if hashing(scene) { rounded(s.m1 / 1e6, 6) * 1e6 } else { 0.0 });
    }
    let dev = &*scene.dev;
    let (model, hashing) = (dev.model, hashing(scene));
    let state = match dev.plant.phase {
        Phase::Asleep => "Suspended",
        Phase::Booting | Phase::Down => "Initializing",
        _ => "Running",
    };
    status(scene, reply, 'S', 70, "CGMiner stats");
    reply.rows("STATS");
    reply.row_n("STATS", 0);
    reply.str("ID", "A20");
    reply.int("Elapsed", s.elapsed);
    reply.str("ASIC", "Seal02-V1");
    reply.str("Model", model.name);
    reply.str("Firmware", model.build);
    reply.str("Ctrl Board SN", &dev.serial(0, 16));
    reply.str("MAC", &dev.mac().to_string().to_lowercase());
    for board in 0..model.boards {
        let rate = dev.plant.board_rate(s.rate, board, model.boards) / 1e6;
        reply.num(&format!("{board} MHS(Sample)"), rate, 6);
        for sensor in 0..4 {
            let temp = if sensor < 2 { s.board } else { s.chip };
            reply.num(&format!("{board} Temp {sensor}"), temp.round(), 0);
        }
    }
    for fan in 0..model.fans {
        reply.int(&format!("{fan} Speed"), s.fan_rpm);
    }
    reply.int("Fan Count", model.fans);
    reply.num("MHS(30s)", if hashing { s.m1 / 1e6 } else { 0.0 }, 6);
    reply.num("MHS(Avg)", s.average / 1e6, 6);
    reply.str("Mining Mode", "Normal");
    reply.str("PM State", state);
    reply.int("PSU Input Power", s.watts);
    reply.int("Power Limit", dev.plant.settings.limit.unwrap_or(model.watts as u32));
    reply.str("Error Code", "");
    reply.end_row();
    reply.end_rows();
    reply.end();
}

pub fn control(scene: &mut Scene<'_>, ask: Ask<'_>, reply: &mut Reply) -> Outcome {
    let param = ask.param.unwrap_or_default();
    match (ask.command, param.split_once(',').map(|(_, option)| option)) {
        ("ascset", Some("suspend")) => _ = scene.write(Change::Sleep),
        ("ascset", Some(option)) => match option.strip_prefix("powerlimit,").and_then(limit) {
            Some(watts) => {
                let own = scene.dev.model.watts as u32;
                _ = scene.write(Change::Limit(Some(watts).filter(|watts| *watts != own)));
            }
            None => {
                scene.refused();
                plain(scene, reply, 'E', 120, "ASC 0 set failed: Unknown option");
                return Outcome::Done;
            }
        },
        ("restart", _) => {
            let asleep = scene.dev.plant.settings.asleep;
            scene.write(if asleep { Change::Wake } else { Change::Restart });
            reply.put(format_args!("{{\"STATUS\":\"RESTART\",\"id\":1}}"));
            return Outcome::Done;
        }
        ("updatepools", _) => {
            let list: Value = serde_json::from_str(param).unwrap_or_default();
            let Some(list) = list.get("pools").and_then(Value::as_array) else {
                scene.refused();
                plain(scene, reply, 'E', 53, "Invalid pools");
                return Outcome::Done;
            };
            let text = |n: usize, key: &str| {
                list.get(n).and_then(|p| p.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let pools =
                [0, 1, 2].map(|n| Pool { url: text(n, "url"), user: text(n, "user"), pass: text(n, "pass") });
            scene.set_pools(pools);
        }
        _ => return Outcome::Unknown,
    }
    plain(scene, reply, 'S', 119, "ASC 0 set OK");
    Outcome::Done
}

fn limit(value: &str) -> Option<u32> {
    let value: Value = serde_json::from_str(value).ok()?;
    value.get("value")?.as_str()?.parse().ok().filter(|watts| (500..=10_000).contains(watts))
}
