//! A plain cgminer 4.13 (API 3.7) with a USB stick: the baseline of the protocol.

use super::{Ask, Outcome, Scene, Shares, host, plain, status};
use crate::device::Change;
use crate::physics::Phase;
use crate::reply::{Reply, rounded};

pub fn report(scene: &mut Scene<'_>, command: &str, reply: &mut Reply) -> Outcome {
    match command {
        "version" => {
            status(scene, reply, 'S', 22, "CGMiner versions");
            reply.rows("VERSION");
            reply.row("VERSION");
            reply.str("CGMiner", scene.dev.model.build);
            reply.str("API", "3.7");
            reply.end_row();
            reply.end_rows();
            reply.end();
        }
        "summary" => summary(scene, reply),
        "devs" | "edevs" => devs(scene, reply),
        "pools" => pool_rows(scene, reply, Shares::of(scene), host),
        "stats" | "estats" => stats(scene, reply),
        "config" => config_row(scene, reply, "GSX", 1),
        _ => return Outcome::Unknown,
    }
    Outcome::Done
}

fn rates(scene: &Scene<'_>, reply: &mut Reply) {
    let s = &scene.sensed;
    reply.num("MHS av", s.average / 1e6, 2);
    reply.num("MHS 5s", s.rate / 1e6, 2);
    reply.num("MHS 1m", s.m1 / 1e6, 2);
    reply.num("MHS 5m", s.m5 / 1e6, 2);
    reply.num("MHS 15m", s.m15 / 1e6, 2);
}

fn summary(scene: &mut Scene<'_>, reply: &mut Reply) {
    let s = scene.sensed;
    scene.sampled(rounded(s.rate / 1e6, 2) * 1e6);
    let shares = Shares::of(scene);
    status(scene, reply, 'S', 11, "Summary");
    reply.rows("SUMMARY");
    reply.row("SUMMARY");
    reply.int("Elapsed", s.elapsed);
    rates(scene, reply);
    reply.int("Found Blocks", 0);
    reply.int("Getworks", s.elapsed / 30);
    reply.int("Accepted", shares.accepted);
    reply.int("Rejected", shares.rejected);
    reply.int("Hardware Errors", s.elapsed / 3_600);
    reply.num("Utility", shares.utility(s.elapsed), 2);
    reply.int("Discarded", s.elapsed / 2);
    reply.int("Stale", shares.stale);
    reply.int("Get Failures", 0);
    reply.int("Local Work", s.elapsed);
    reply.int("Remote Failures", 0);
    reply.int("Network Blocks", s.elapsed / 600);
    reply.num("Total MH", s.work / 1e6, 4);
    reply.num("Work Utility", s.average / 4_294_967_296.0 * 60.0, 2);
    reply.num("Difficulty Accepted", shares.accepted as f64 * shares.difficulty, 8);
    reply.num("Difficulty Rejected", shares.rejected as f64 * shares.difficulty, 8);
    reply.num("Difficulty Stale", 0.0, 8);
    reply.int("Best Share", 7_279_204);
    reply.num("Device Hardware%", 0.0, 4);
    reply.num("Device Rejected%", shares.rejected_percent(), 4);
    reply.num("Pool Rejected%", shares.rejected_percent(), 4);
    reply.num("Pool Stale%", 0.0, 4);
    reply.int("Last getwork", scene.when());
    reply.end_row();
    reply.end_rows();
    reply.end();
}

fn devs(scene: &Scene<'_>, reply: &mut Reply) {
    let s = &scene.sensed;
    let shares = Shares::of(scene);
    status(scene, reply, 'S', 9, "1 ASC(s)");
    reply.rows("DEVS");
    reply.row_n("ASC", 0);
    reply.str("Name", scene.dev.model.name);
    reply.int("ID", 0);
    reply.str("Enabled", if scene.dev.plant.settings.asleep { "N" } else { "Y" });
    reply.str("Status", "Alive");
    reply.num("Temperature", s.chip, 2);
    rates(scene, reply);
    reply.int("Accepted", shares.accepted);
    reply.int("Rejected", shares.rejected);
    reply.int("Hardware Errors", s.elapsed / 3_600);
    reply.num("Utility", shares.utility(s.elapsed), 2);
    reply.int("Last Share Pool", 0);
    reply.int("Last Share Time", scene.when() - 9);
    reply.num("Total MH", s.work / 1e6, 4);
    reply.int("Diff1 Work", (s.work / 4_294_967_296.0) as u64);
    reply.num("Difficulty Accepted", shares.accepted as f64 * shares.difficulty, 8);
    reply.num("Difficulty Rejected", shares.rejected as f64 * shares.difficulty, 8);
    reply.num("Last Share Difficulty", shares.difficulty, 8);
    reply.bool("No Device", false);
    reply.int("Last Valid Work", scene.when());
    reply.num("Device Hardware%", 0.0, 4);
    reply.num("Device Rejected%", shares.rejected_percent(), 4);
    reply.int("Device Elapsed", s.elapsed);
    reply.end_row();
    reply.end_rows();
    reply.end();
}

fn stats(scene: &Scene<'_>, reply: &mut Reply) {
    let s = &scene.sensed;
    status(scene, reply, 'S', 70, "CGMiner stats");
    reply.rows("STATS");
    reply.row_n("STATS", 0);
    reply.str("ID", "GSX0");
    reply.int("Elapsed", s.elapsed);
    reply.int("Calls", 0);
    reply.num("Wait", 0.0, 6);
    reply.num("Max", 0.0, 6);
    reply.raw("Min", format_args!("99999999.000000"));
    reply.str("Serial", &scene.dev.serial(0, 8));
    reply.str("Chip", "BM1397");
    reply.num("Frequency", f64::from(scene.dev.model.mhz), 6);
    reply.num("Ramp", 100.0, 6);
    reply.end_row();
    reply.end_rows();
    reply.end();
}

/// `pools` as cgminer 4.13 words it; Avalon's cgminer 4.11 is the same.
pub fn pool_rows(scene: &Scene<'_>, reply: &mut Reply, shares: Shares, host: fn(&str) -> &str) {
    status(scene, reply, 'S', 7, "3 Pool(s)");
    reply.rows("POOLS");
    for n in 0..3 {
        let pool = scene.dev.pool(n);
        if pool.url.is_empty() {
            continue;
        }
        let mine = |v: u64| if n == 0 { v } else { 0 };
        let diff = if n == 0 { shares.difficulty } else { 0.0 };
        reply.row_n("POOL", n);
        reply.str("URL", &pool.url);
        reply.str("Status", if n < 2 { "Alive" } else { "Dead" });
        reply.int("Priority", n);
        reply.int("Quota", 1);
        reply.str("Long Poll", "N");
        reply.int("Getworks", mine(scene.sensed.elapsed / 30));
        reply.int("Accepted", mine(shares.accepted));
        reply.int("Rejected", mine(shares.rejected));
        reply.int("Works", mine(scene.sensed.elapsed));
        reply.int("Discarded", mine(scene.sensed.elapsed / 2));
        reply.int("Stale", mine(shares.stale));
        reply.int("Get Failures", 0);
        reply.int("Remote Failures", 0);
        reply.str("User", &pool.user);
        reply.int("Last Share Time", if n == 0 { scene.when() - 9 } else { 0 });
        reply.int("Diff1 Shares", 0);
        reply.str("Proxy Type", "");
        reply.str("Proxy", "");
        reply.num("Difficulty Accepted", mine(shares.accepted) as f64 * shares.difficulty, 8);
        reply.num("Difficulty Rejected", mine(shares.rejected) as f64 * shares.difficulty, 8);
        reply.num("Difficulty Stale", 0.0, 8);
        reply.num("Last Share Difficulty", diff, 8);
        reply.num("Work Difficulty", diff, 8);
        reply.bool("Has Stratum", true);
        reply.bool("Stratum Active", n == 0);
        reply.str("Stratum URL", if n == 0 { host(&pool.url) } else { "" });
        reply.num("Stratum Difficulty", diff, 8);
        reply.bool("Has Vmask", false);
        reply.bool("Has GBT", false);
        reply.int("Best Share", mine(7_279_204));
        reply.num("Pool Rejected%", if n == 0 { shares.rejected_percent() } else { 0.0 }, 4);
        reply.num("Pool Stale%", 0.0, 4);
        reply.int("Bad Work", 0);
        reply.int("Current Block Height", mine(899_999));
        reply.int("Current Block Version", mine(536_870_912));
        reply.end_row();
    }
    reply.end_rows();
    reply.end();
}

/// `config` of a cgminer with this many ASCs.
pub fn config_row(scene: &Scene<'_>, reply: &mut Reply, code: &str, ascs: u8) {
    status(scene, reply, 'S', 33, "CGMiner config");
    reply.rows("CONFIG");
    reply.row("CONFIG");
    reply.int("ASC Count", ascs);
    reply.int("PGA Count", 0);
    reply.int("Pool Count", 3);
    reply.str("Strategy", "Failover");
    reply.int("Log Interval", 5);
    reply.str("Device Code", code);
    reply.str("OS", "Linux");
    reply.int("Hotplug", 5);
    reply.end_row();
    reply.end_rows();
    reply.end();
}

pub fn control(scene: &mut Scene<'_>, ask: Ask<'_>, reply: &mut Reply) -> Outcome {
    match ask.command {
        "privileged" => plain(scene, reply, 'S', 46, "Privileged access OK"),
        "check" => check(scene, ask.param, reply),
        "asccount" => {
            status(scene, reply, 'S', 104, "ASC count");
            reply.rows("ASCS");
            reply.row("ASCS");
            reply.int("Count", 1);
            reply.end_row();
            reply.end_rows();
            reply.end();
        }
        "asc" => match asc_id(scene, ask.param, reply) {
            Some(_) => devs(scene, reply),
            None => return Outcome::Done,
        },
        "ascdisable" | "ascenable" => enable(scene, ask, reply),
        "ascset" => {
            scene.refused();
            plain(scene, reply, 'W', 117, "ASC 0 does not support pgaset");
        }
        "pga" | "pgaenable" | "pgadisable" | "pgaset" => plain(scene, reply, 'E', 56, "No PGAs"),
        "quit" | "restart" => {
            let word = if ask.command == "quit" { "BYE" } else { "RESTART" };
            scene.write(Change::Reboot);
            if reply.is_json() {
                reply.put(format_args!("{{\"STATUS\":\"{word}\",\"id\":1}}"));
            } else {
                reply.put(format_args!("{word}"));
            }
        }
        "addpool" | "switchpool" | "enablepool" | "disablepool" | "removepool" | "setconfig" | "save"
        | "zero" | "debug" | "failover-only" | "hotplug" | "poolpriority" | "poolquota" | "lockstats" => {
            return Outcome::Denied;
        }
        _ => return Outcome::Unknown,
    }
    Outcome::Done
}

fn check(scene: &mut Scene<'_>, param: Option<&str>, reply: &mut Reply) {
    let Some(command) = param.filter(|p| !p.is_empty()) else {
        return plain(scene, reply, 'E', 71, "Missing check cmd");
    };
    let known = matches!(report(scene, command, &mut Reply::new(true)), Outcome::Done);
    scene.sample = None;
    let yes = |b: bool| if b { "Y" } else { "N" };
    status(scene, reply, 'S', 72, "Check command");
    reply.rows("CHECK");
    reply.row("CHECK");
    reply.str("Exists", yes(known));
    reply.str("Access", yes(known));
    reply.end_row();
    reply.end_rows();
    reply.end();
}

/// The ASC meant by a parameter; anything else is answered. Text is read as C's atoi does.
fn asc_id(scene: &mut Scene<'_>, param: Option<&str>, reply: &mut Reply) -> Option<i64> {
    let Some(text) = param.filter(|p| !p.is_empty()) else {
        plain(scene, reply, 'E', 15, "Missing device id parameter");
        return None;
    };
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let id = digits.parse().unwrap_or(0);
    if id != 0 {
        plain(scene, reply, 'E', 107, &format!("Invalid ASC id {id} - range is 0 - 0"));
        return None;
    }
    Some(id)
}

fn enable(scene: &mut Scene<'_>, ask: Ask<'_>, reply: &mut Reply) {
    if asc_id(scene, ask.param, reply).is_none() {
        return scene.refused();
    }
    let off = ask.command == "ascdisable";
    let asleep = scene.dev.plant.settings.asleep || scene.dev.plant.phase == Phase::Asleep;
    match (off, asleep) {
        (true, true) => plain(scene, reply, 'I', 109, "ASC 0 already disabled"),
        (false, false) => plain(scene, reply, 'I', 108, "ASC 0 already enabled"),
        (true, false) => {
            scene.write(Change::Sleep);
            plain(scene, reply, 'I', 111, "ASC 0 set disable flag");
        }
        (false, true) => {
            scene.write(Change::Wake);
            plain(scene, reply, 'I', 110, "ASC 0 sent enable message");
        }
    }
}
