//! Braiins OS on the CGMiner port: reads, `pause` and `resume`. JSON only.

use super::{Ask, Outcome, Scene, Shares, host, status};
use crate::device::{Change, WriteResult};
use crate::physics::Phase;
use crate::reply::{Reply, rounded};

pub fn report(scene: &mut Scene<'_>, command: &str, reply: &mut Reply) -> Outcome {
    match command {
        "version" => {
            status(scene, reply, 'S', 22, "BOSer versions");
            reply.rows("VERSION");
            reply.row("VERSION");
            reply.str("API", "3.7");
            reply.str("BOSer", scene.dev.model.build);
        }
        "summary" => summary(scene, reply),
        "devs" | "edevs" => return devs(scene, reply),
        "temps" => return temps(scene, reply),
        "fans" => return fans(scene, reply),
        "tunerstatus" => tunerstatus(scene, reply),
        "pools" => return pools(scene, reply),
        "devdetails" => return devdetails(scene, reply),
        "tempctrl" => {
            status(scene, reply, 'S', 200, "Temperature control");
            reply.rows("TEMPCTRL");
            reply.row("TEMPCTRL");
            reply.num("Dangerous", 110.0, 1);
            reply.num("Hot", 100.0, 1);
            reply.str("Mode", "Automatic");
            reply.num("Target", 89.0, 1);
        }
        "config" => {
            status(scene, reply, 'S', 33, "BOSer config");
            reply.rows("CONFIG");
            reply.row("CONFIG");
            reply.int("ASC Count", scene.dev.model.boards);
            reply.int("PGA Count", 0);
            reply.int("Pool Count", 3);
            reply.str("Strategy", "Failover");
            reply.int("Log Interval", 0);
            reply.str("Device Code", "");
            reply.str("OS", "Braiins OS");
            reply.str("Hotplug", "None");
        }
        _ => return Outcome::Unknown,
    }
    close(reply)
}

fn close(reply: &mut Reply) -> Outcome {
    reply.end_row();
    close_rows(reply)
}

fn close_rows(reply: &mut Reply) -> Outcome {
    reply.end_rows();
    reply.end();
    Outcome::Done
}

fn summary(scene: &mut Scene<'_>, reply: &mut Reply) {
    let s = scene.sensed;
    let now = rounded(s.rate / 1e6, 6);
    scene.sampled(now * 1e6);
    let shares = Shares::of(scene);
    status(scene, reply, 'S', 11, "Summary");
    reply.rows("SUMMARY");
    reply.row("SUMMARY");
    reply.int("Elapsed", s.elapsed);
    reply.num("MHS av", s.average / 1e6, 6);
    reply.num("MHS 5s", now, 6);
    reply.num("MHS 1m", s.m1 / 1e6, 6);
    reply.num("MHS 5m", s.m5 / 1e6, 6);
    reply.num("MHS 15m", s.m15 / 1e6, 6);
    reply.int("Found Blocks", 0);
    reply.int("Getworks", s.elapsed / 30);
    reply.int("Accepted", shares.accepted);
    reply.int("Rejected", shares.rejected);
    reply.int("Hardware Errors", s.elapsed / 50);
    reply.num("Utility", shares.utility(s.elapsed), 6);
    reply.int("Discarded", 0);
    reply.int("Stale", shares.stale);
    reply.int("Get Failures", 0);
    reply.int("Local Work", s.elapsed * 20);
    reply.int("Remote Failures", 0);
    reply.int("Network Blocks", 0);
    reply.num("Total MH", s.work / 1e6, 6);
    reply.num("Work Utility", s.average / 4_294_967_296.0 * 60.0, 6);
    reply.num("Difficulty Accepted", shares.accepted as f64 * shares.difficulty, 1);
    reply.num("Difficulty Rejected", shares.rejected as f64 * shares.difficulty, 1);
    reply.num("Difficulty Stale", 0.0, 1);
    reply.int("Best Share", 512_343_200);
    reply.num("Device Hardware%", 0.0015, 4);
    reply.num("Device Rejected%", 0.0, 4);
    reply.num("Pool Rejected%", shares.rejected_percent(), 4);
    reply.num("Pool Stale%", 0.0, 4);
    reply.int("Last getwork", scene.when());
}

fn devs(scene: &Scene<'_>, reply: &mut Reply) -> Outcome {
    let (model, s) = (scene.dev.model, &scene.sensed);
    status(scene, reply, 'S', 9, &format!("{} ASC(s)", model.boards));
    reply.rows("DEVS");
    for board in 0..model.boards {
        let part = |rate: f64| scene.dev.plant.board_rate(rate, board, model.boards) / 1e6;
        reply.row_n("ASC", board.into());
        reply.str("Name", "");
        reply.int("ID", board + 1);
        reply.str("Enabled", "Y");
        reply.str("Status", if s.rate > 0.0 { "Alive" } else { "Dead" });
        reply.num("Temperature", 0.0, 1);
        reply.num("MHS av", part(s.average), 6);
        reply.num("MHS 5s", part(s.rate), 6);
        reply.num("MHS 1m", part(s.m1), 6);
        reply.num("MHS 5m", part(s.m5), 6);
        reply.num("MHS 15m", part(s.m15), 6);
        reply.int("Accepted", 0);
        reply.int("Rejected", 0);
        reply.int("Hardware Errors", s.elapsed / 150);
        reply.num("Utility", 0.0, 1);
        reply.int("Last Share Pool", -1);
        reply.int("Last Share Time", scene.when());
        reply.num("Total MH", part(s.work), 6);
        reply.num("Difficulty Accepted", 0.0, 1);
        reply.num("Difficulty Rejected", 0.0, 1);
        reply.num("Last Share Difficulty", 2607.0, 1);
        reply.int("Last Valid Work", scene.when());
        reply.num("Device Hardware%", 0.0015, 4);
        reply.num("Device Rejected%", 0.0, 1);
        reply.int("Device Elapsed", s.elapsed);
        reply.num("Hardware Error MHS 15m", 0.0, 1);
        reply.num("Nominal MHS", part(scene.dev.plant.plate_hash()), 6);
        reply.end_row();
    }
    close_rows(reply)
}

fn temps(scene: &Scene<'_>, reply: &mut Reply) -> Outcome {
    let boards = scene.dev.model.boards;
    status(scene, reply, 'S', 201, &format!("{boards} Temp(s)"));
    reply.rows("TEMPS");
    for board in 0..boards {
        // Sensors count in sixteenths of a degree.
        let sixteenth = |t: f64| (t * 16.0).round() / 16.0;
        reply.row_n("TEMP", board.into());
        reply.int("ID", board + 1);
        reply.num("Board", sixteenth(scene.sensed.board - f64::from(board)), 4);
        reply.num("Chip", sixteenth(scene.sensed.chip - f64::from(board)), 4);
        reply.end_row();
    }
    close_rows(reply)
}

fn fans(scene: &Scene<'_>, reply: &mut Reply) -> Outcome {
    let fans = scene.dev.model.fans;
    status(scene, reply, 'S', 202, &format!("{fans} Fan(s)"));
    reply.rows("FANS");
    for fan in 0..fans {
        reply.row_n("FAN", fan.into());
        reply.int("ID", fan);
        reply.int("RPM", scene.sensed.fan_rpm.saturating_sub(u32::from(fan / 2) * 90));
        reply.int("Speed", (scene.sensed.fan_rpm / 60).min(100));
        reply.end_row();
    }
    close_rows(reply)
}

fn tunerstatus(scene: &mut Scene<'_>, reply: &mut Reply) {
    let s = scene.sensed;
    let boards = scene.dev.model.boards;
    let running = !matches!(scene.dev.plant.phase, Phase::Asleep | Phase::Stopping | Phase::Down);
    let chains = if running { (s.watts * 0.96).round() } else { 0.0 };
    let limit = scene.dev.plant.settings.limit.unwrap_or(scene.dev.plant.plate_watts() as u32);
    scene.power = Some(s.watts);
    status(scene, reply, 'S', 203, "Tuner Status");
    reply.rows("TUNERSTATUS");
    reply.row("TUNERSTATUS");
    reply.int("ApproximateChainPowerConsumption", chains);
    reply.int("ApproximateMinerPowerConsumption", s.watts);
    reply.str("DynamicPowerScaling", "Disabled");
    reply.int("PowerLimit", limit);
    reply.raw("TunerChainStatus", format_args!("["));
    for board in 0..boards {
        let state = match (running, scene.dev.plant.phase) {
            (false, _) => "Paused",
            (true, Phase::Mining) => "Stable",
            (true, _) => "Tuning individual chips",
        };
        reply.put(format_args!(
            "{}{{\"ApproximatePowerConsumptionWatt\":{:.0},\"HashchainIndex\":{},\"Iteration\":0,\"LoadedProfileCreatedOn\":1595938289,\"PowerLimitWatt\":{},\"StageElapsed\":{},\"Status\":\"{state}\",\"TunerRunning\":{running},\"TuningElapsed\":{}}}",
            if board > 0 { "," } else { "" },
            (chains / f64::from(boards)).floor(),
            board + 1,
            limit / u32::from(boards),
            s.elapsed,
            s.elapsed,
        ));
    }
    reply.put(format_args!("]"));
}

fn pools(scene: &Scene<'_>, reply: &mut Reply) -> Outcome {
    let shares = Shares::of(scene);
    let paused = scene.dev.plant.phase == Phase::Asleep;
    status(scene, reply, 'S', 7, "3 Pool(s)");
    reply.rows("POOLS");
    for n in 0..3 {
        let pool = scene.dev.pool(n);
        let mine = |v: u64| if n == 0 { v } else { 0 };
        reply.row_n("POOL", n);
        reply.str("URL", &pool.url);
        reply.str("Status", if n < 2 { "Alive" } else { "Dead" });
        reply.int("Priority", n);
        reply.int("Quota", 1);
        reply.str("Long Poll", "N");
        reply.int("Getworks", mine(scene.sensed.elapsed / 30));
        reply.int("Accepted", mine(shares.accepted));
        reply.int("Rejected", mine(shares.rejected));
        reply.int("Works", mine(scene.sensed.elapsed * 20));
        reply.int("Discarded", 0);
        reply.int("Stale", mine(shares.stale));
        reply.int("Get Failures", 0);
        reply.int("Remote Failures", 0);
        reply.str("User", &pool.user);
        reply.int("Last Share Time", if n == 0 { scene.when() - 5 } else { 0 });
        reply.int("Diff1 Shares", 0);
        reply.str("Proxy Type", "");
        reply.str("Proxy", "");
        reply.num("Difficulty Accepted", mine(shares.accepted) as f64 * shares.difficulty, 1);
        reply.num("Difficulty Rejected", mine(shares.rejected) as f64 * shares.difficulty, 1);
        reply.num("Difficulty Stale", 0.0, 1);
        reply.num("Last Share Difficulty", shares.difficulty, 1);
        reply.num("Work Difficulty", shares.difficulty, 1);
        reply.bool("Has Stratum", true);
        reply.bool("Stratum Active", n == 0 && !paused);
        reply.str("Stratum URL", host(&pool.url));
        reply.num("Stratum Difficulty", shares.difficulty, 1);
        reply.bool("Has Vmask", true);
        reply.bool("Has GBT", false);
        reply.int("Best Share", mine(512_343_200));
        reply.num("Pool Rejected%", if n == 0 { shares.rejected_percent() } else { 0.0 }, 4);
        reply.num("Pool Stale%", 0.0, 4);
        reply.int("Bad Work", 0);
        reply.int("Current Block Height", 0);
        reply.int("Current Block Version", 536_870_912);
        reply.bool("AsicBoost", true);
        reply.end_row();
    }
    close_rows(reply)
}

fn devdetails(scene: &Scene<'_>, reply: &mut Reply) -> Outcome {
    let model = scene.dev.model;
    status(scene, reply, 'S', 69, "Device Details");
    reply.rows("DEVDETAILS");
    for board in 0..model.boards {
        reply.row_n("DEVDETAILS", board.into());
        reply.str("Name", &format!("HashchainManager {}", board + 1));
        reply.int("ID", board + 1);
        reply.str("Driver", "");
        reply.str("Kernel", "");
        reply.str("Model", model.name);
        reply.str("Device Path", "");
        reply.num("Voltage", 13.8, 1);
        reply.int("Frequency", u64::from(model.mhz) * 1_000_000);
        reply.int("Chips", model.chips_per_board);
        reply.int("Cores", u32::from(model.chips_per_board) * 672);
        reply.end_row();
    }
    close_rows(reply)
}

pub fn control(scene: &mut Scene<'_>, ask: Ask<'_>, reply: &mut Reply) -> Outcome {
    let (pause, code, word, list) = match ask.command {
        "pause" => (true, 204, "Pause", "PAUSE"),
        "resume" => (false, 205, "Resume", "RESUME"),
        _ => return Outcome::Unknown,
    };
    let asleep = scene.dev.plant.settings.asleep;
    let result = scene.write(if pause { Change::Sleep } else { Change::Wake });
    // What was paused already says false; a device that lies says true like any other.
    let said = result == WriteResult::Ignored || asleep != pause;
    status(scene, reply, 'S', code, word);
    reply.put(format_args!(",\"{list}\":[{said}]"));
    reply.end();
    Outcome::Done
}
