//! Avalons: everything of interest is in one string of `NAME[value]` pairs in `estats`.
//!
//! `softoff` bare acts at once (S 119); with `1:<time>` it acts at that time of the device's own clock
//! (I 118), and a time that has passed means at once. The device's clock is off by some seconds, or
//! counts from its boot: the one to go by is the `When` of its replies. Averages stay positive asleep.

use super::{Ask, Outcome, Scene, Shares, host, plain, status};
use crate::device::{Change, Own, Pool};
use crate::models::{Family, of};
use crate::physics::Phase;
use crate::reply::{Reply, rounded};
use std::fmt::Write as _;

pub fn report(scene: &mut Scene<'_>, command: &str, reply: &mut Reply) -> Outcome {
    match command {
        "version" => version(scene, reply),
        "summary" => summary(scene, reply),
        "estats" | "stats" => stats(scene, reply),
        "devs" | "edevs" => devs(scene, reply),
        "pools" => pools(scene, reply),
        "config" => config(scene, reply),
        "devdetails" => devdetails(scene, reply),
        _ => return Outcome::Unknown,
    }
    Outcome::Done
}

/// Some products write their boards' temperatures and rates in one form, some in another.
fn is_newest(scene: &Scene<'_>) -> bool {
    scene.dev.model.name.starts_with("15")
}

fn is_first(scene: &Scene<'_>) -> bool {
    of(Family::Avalon).next().is_some_and(|m| m.name == scene.dev.model.name)
}

fn version(scene: &Scene<'_>, reply: &mut Reply) {
    let model = scene.dev.model;
    let (hardware, software) = if is_newest(scene) { ("MM4v2_X3", "MM319") } else { ("MM4v1_X3", "MM317") };
    status(scene, reply, 'S', 22, "CGMiner versions");
    reply.rows("VERSION");
    reply.row("VERSION");
    reply.str("CGMiner", "4.11.1");
    reply.str("API", "3.7");
    reply.str("STM8", "20.08.01");
    reply.str("PROD", &format!("AvalonMiner {}", model.name));
    reply.str("MODEL", model.name);
    reply.str("HWTYPE", hardware);
    reply.str("SWTYPE", software);
    reply.str("VERSION", model.build);
    reply.str("LOADER", "d0d779de.00");
    reply.str("DNA", &format!("0201{:#}", scene.dev.mac()));
    reply.str("MAC", &format!("{:#}", scene.dev.mac()));
    reply.str("UPAPI", "2");
    reply.end_row();
    reply.end_rows();
    reply.end();
}

/// The averages that all replies share. Unlike the real-time rate they outlive a stop.
fn averages(scene: &Scene<'_>, reply: &mut Reply) {
    let s = &scene.sensed;
    reply.num("MHS av", s.average / 1e6, 2);
    reply.num("MHS 30s", s.m1 / 1e6, 2);
    reply.num("MHS 1m", s.m1 / 1e6, 2);
    reply.num("MHS 5m", s.m5 / 1e6, 2);
    reply.num("MHS 15m", s.m15 / 1e6, 2);
}

fn summary(scene: &Scene<'_>, reply: &mut Reply) {
    let s = &scene.sensed;
    let shares = Shares::of(scene);
    status(scene, reply, 'S', 11, "Summary");
    reply.rows("SUMMARY");
    reply.row("SUMMARY");
    reply.int("Elapsed", s.elapsed);
    averages(scene, reply);
    reply.int("Found Blocks", 0);
    reply.int("Getworks", s.elapsed / 30);
    reply.int("Accepted", shares.accepted);
    reply.int("Rejected", shares.rejected);
    reply.int("Hardware Errors", 0);
    reply.num("Utility", shares.utility(s.elapsed), 2);
    reply.int("Discarded", 0);
    reply.int("Stale", shares.stale);
    reply.int("Get Failures", 0);
    reply.int("Local Work", s.elapsed * 732);
    reply.int("Remote Failures", 0);
    reply.int("Network Blocks", s.elapsed / 600);
    reply.num("Total MH", s.work / 1e6, 4);
    reply.num("Work Utility", s.average / 4_294_967_296.0 * 60.0, 2);
    reply.num("Difficulty Accepted", shares.accepted as f64 * shares.difficulty, 8);
    reply.num("Difficulty Rejected", shares.rejected as f64 * shares.difficulty, 8);
    reply.num("Difficulty Stale", 0.0, 8);
    reply.int("Best Share", 727_920_402);
    reply.num("Device Hardware%", 0.0, 4);
    reply.num("Device Rejected%", shares.rejected_percent(), 4);
    reply.num("Pool Rejected%", shares.rejected_percent(), 4);
    reply.num("Pool Stale%", 0.0, 4);
    reply.int("Last getwork", scene.when());
    reply.end_row();
    reply.end_rows();
    reply.end();
}

fn stats(scene: &mut Scene<'_>, reply: &mut Reply) {
    let spd = rounded(scene.sensed.rate / 1e9, 2);
    scene.sampled(spd * 1e9);
    scene.power = Some(scene.sensed.watts);
    status(scene, reply, 'S', 70, "CGMiner stats");
    reply.rows("STATS");
    reply.row_n("STATS", 0);
    reply.str("ID", "AVA100");
    reply.int("Elapsed", scene.sensed.elapsed);
    reply.int("Calls", 0);
    reply.num("Wait", 0.0, 6);
    reply.num("Max", 0.0, 6);
    reply.raw("Min", format_args!("99999999.000000"));
    // The string is not escaped, and its blanks and brackets need none.
    if reply.is_json() {
        reply.raw("MM ID0", format_args!("\""));
    } else {
        reply.raw("MM ID0", format_args!(""));
    }
    mm(scene, spd, &mut reply.buf);
    if reply.is_json() {
        reply.buf.push('"');
    }
    reply.int("MM Count", 1);
    reply.int("Smart Speed", 1);
    reply.int("Voltage Level Offset", 0);
    reply.int("Nonce Mask", 25);
    reply.end_row();
    pool_stats(scene, reply);
    reply.end_rows();
    reply.end();
}

fn mm(scene: &Scene<'_>, spd: f64, out: &mut String) {
    // Writing into a String cannot fail.
    let _ = try_mm(scene, spd, out);
}

fn try_mm(scene: &Scene<'_>, spd: f64, out: &mut String) -> std::fmt::Result {
    let dev = &*scene.dev;
    let (model, s) = (dev.model, &scene.sensed);
    let boards = model.boards;
    let work = match dev.plant.phase {
        Phase::Asleep => "In Idle",
        Phase::Booting | Phase::Down => "",
        _ => "In Work",
    };
    let hashing = spd > 0.0;
    let wall = s.watts;
    let hash_power = if hashing { (wall * 0.935).round() } else { 0.0 };
    let percent = (f64::from(s.fan_rpm) / 73.0).min(100.0);
    write!(out, "Ver[{}-{}] DNA[0201{:#}] MEMFREE[1392832.1381104] ", model.name, model.build, dev.mac())?;
    write!(
        out,
        "NETFAIL[0 0 0 0 0 0 0 0] SYSTEMSTATU[Work: {work}, Hash Board: {boards} ] Elapsed[{}] ",
        s.elapsed
    )?;
    write!(out, "BOOTBY[0x01.00000000] LW[{}] MH[0 0 0] DHW[0] HW[0] DH[1.299%] ", s.elapsed * 732)?;
    let (max, avg) = (s.chip + 4.0, s.chip - 3.0);
    write!(out, "Temp[{:.0}] TMax[{max:.0}] TAvg[{avg:.0}] ", s.ambient)?;
    for fan in 1..=model.fans {
        write!(out, "Fan{fan}[{}] ", s.fan_rpm.saturating_sub(u32::from(fan) * 7))?;
    }
    write!(out, "FanR[{percent:.0}%] Vo[{}] ", if hashing { 296 } else { 0 })?;
    // Control board voltage, hash voltage and current, hash power, set voltage (never watts), wall.
    let current = if hashing { (hash_power / 11.9).round() } else { 0.0 };
    let volts = if hashing { 1391 } else { 0 };
    write!(out, "PS[0 1209 {volts} {current:.0} {hash_power:.0} 1393 {wall:.0}] ")?;
    if is_newest(scene) {
        write!(out, "WALLPOWER[{wall:.0}] ")?;
    }
    for board in 0..boards {
        write!(out, "PLL{board}[2384 1150 2381 10885] ")?;
    }
    write!(out, "GHSspd[{spd:.2}] DHspd[1.299%] GHSmm[{:.2}] GHSavg[{:.2}] ", s.m5 / 1e9, s.average / 1e9)?;
    write!(out, "WU[{:.2}] ", s.average / 4_294_967_296.0 * 60.0)?;
    if hashing {
        write!(out, "Freq[{}.94] ", model.mhz)?;
    } else {
        write!(out, "Freq[nan] ")?;
    }
    write!(out, "Led[{}] MGHS[", u8::from(dev.locating))?;
    for board in 0..boards {
        let gap = if board > 0 { " " } else { "" };
        write!(out, "{gap}{:.2}", dev.plant.board_rate(s.average, board, boards) / 1e9)?;
    }
    write!(out, "] ")?;
    if hashing {
        write!(
            out,
            "MTmax[{max:.0} {:.0} {:.0}] MTavg[{avg:.0} {avg:.0} {:.0}] ",
            max - 1.0,
            max - 2.0,
            avg - 1.0
        )?;
    } else {
        write!(out, "MTmax[] MTavg[] ")?;
    }
    let chips = model.chips_per_board;
    write!(out, "TA[{}] Core[A3200C] PING[131] POWS[0] ", u32::from(chips) * u32::from(boards))?;
    write!(out, "EEPROM[{chips} {chips} {chips}] HASHS[0 0 0] POOLS[0] SoftOFF[{}] ", soft_off(scene))?;
    write!(out, "ECHU[0 0 0] ECMM[0] ")?;
    for board in 0..boards {
        let f = model.mhz;
        write!(out, "SF{board}[{} {} {f} {}] ", f - 40, f - 20, f + 20)?;
    }
    let chip_list = |out: &mut String, name: &str, board: u8, value: &dyn Fn(i32) -> i32| {
        write!(out, "{name}{board}[")?;
        if hashing {
            for chip in 0..i32::from(chips) {
                let gap = if chip > 0 { " " } else { "" };
                write!(out, "{gap}{}", value(chip))?;
            }
        }
        write!(out, "] ")
    };
    // The chips in the middle of a board are the hot ones.
    let middle = i32::from(chips) / 2;
    let hot = s.chip as i32 + 3;
    for board in 0..boards {
        chip_list(out, "PVT_T", board, &|chip| hot - (chip - middle).abs() / 8)?;
    }
    for board in 0..boards {
        chip_list(out, "PVT_V", board, &|chip| 296 + (chip * 7 + i32::from(board)) % 15)?;
    }
    let total = s.elapsed * 244;
    write!(out, "MW[{total} {total} {total}] ")?;
    for board in 0..boards {
        chip_list(out, "MW", board, &|chip| 600 + (chip * 31 + i32::from(board) * 17) % 90)?;
    }
    write!(out, "CRC[0 0 0] COMCRC[0 0 0] FACOPTS0[] FACOPTS1[] FACOPTS2[] ")?;
    for board in 0..boards {
        write!(
            out,
            "ATAOPTS{board}[--avalon10-freq {0}:{0}:{0}:{0} --avalon10-voltage-level 1188 --hash-asic {chips}] ",
            model.mhz
        )?;
    }
    let limit = dev.plant.settings.limit.unwrap_or(dev.plant.plate_watts() as u32);
    write!(out, "ADJ[1] COP[0 0 0] MPO[{limit}] MVL[87] ")?;
    for board in 0..boards {
        let f = model.mhz;
        write!(out, "ATABD{board}[{} {} {f} {}] ", f - 40, f - 20, f + 20)?;
    }
    write!(out, "WORKMODE[{}]", dev.work_mode())
}

/// 0 while running; asleep, the number differs by product.
fn soft_off(scene: &Scene<'_>) -> u8 {
    match (scene.dev.plant.phase, is_first(scene)) {
        (Phase::Asleep | Phase::Stopping, true) => 6,
        (Phase::Asleep | Phase::Stopping, false) => 5,
        _ => 0,
    }
}

fn pool_stats(scene: &Scene<'_>, reply: &mut Reply) {
    let difficulty = scene.dev.model.difficulty;
    for n in 0..3 {
        let diff = if n == 0 { difficulty } else { 0.0 };
        reply.row_n("STATS", n + 1);
        reply.str("ID", ["POOL0", "POOL1", "POOL2"][n]);
        reply.int("Elapsed", scene.sensed.elapsed);
        reply.int("Calls", 0);
        reply.num("Wait", 0.0, 6);
        reply.num("Max", 0.0, 6);
        reply.raw("Min", format_args!("99999999.000000"));
        reply.int("Pool Calls", 0);
        reply.int("Pool Attempts", 0);
        reply.num("Pool Wait", 0.0, 6);
        reply.num("Pool Max", 0.0, 6);
        reply.raw("Pool Min", format_args!("99999999.000000"));
        reply.num("Pool Av", 0.0, 6);
        reply.bool("Work Had Roll Time", false);
        reply.bool("Work Can Roll", false);
        reply.bool("Work Had Expire", false);
        reply.int("Work Roll Time", 0);
        reply.num("Work Diff", diff, 8);
        reply.num("Min Diff", diff, 8);
        reply.num("Max Diff", diff, 8);
        reply.end_row();
    }
}

fn devs(scene: &Scene<'_>, reply: &mut Reply) {
    let s = &scene.sensed;
    let shares = Shares::of(scene);
    status(scene, reply, 'S', 9, "1 ASC(s)");
    reply.rows("DEVS");
    reply.row_n("ASC", 0);
    reply.str("Name", "AVA10");
    reply.int("ID", 0);
    reply.str("Enabled", "Y");
    reply.str("Status", "Alive");
    // No sensor is behind this field.
    reply.num("Temperature", -273.0, 2);
    averages(scene, reply);
    reply.int("Accepted", shares.accepted);
    reply.int("Rejected", shares.rejected);
    reply.int("Hardware Errors", 0);
    reply.num("Utility", shares.utility(s.elapsed), 2);
    reply.int("Last Share Pool", 0);
    reply.int("Last Share Time", scene.when() - 4);
    reply.num("Total MH", s.work / 1e6, 4);
    reply.num("Difficulty Accepted", shares.accepted as f64 * shares.difficulty, 8);
    reply.num("Difficulty Rejected", shares.rejected as f64 * shares.difficulty, 8);
    reply.num("Last Share Difficulty", shares.difficulty, 8);
    reply.int("Last Valid Work", scene.when());
    reply.num("Device Hardware%", 0.0, 4);
    reply.num("Device Rejected%", shares.rejected_percent(), 4);
    reply.int("Device Elapsed", s.elapsed);
    reply.end_row();
    reply.end_rows();
    reply.end();
}

fn pools(scene: &Scene<'_>, reply: &mut Reply) {
    super::cgminer::pool_rows(scene, reply, Shares::of(scene), host);
}

fn config(scene: &Scene<'_>, reply: &mut Reply) {
    super::cgminer::config_row(scene, reply, "AVA10", 1);
}

fn devdetails(scene: &Scene<'_>, reply: &mut Reply) {
    status(scene, reply, 'S', 69, "Device Details");
    reply.rows("DEVDETAILS");
    reply.row_n("DEVDETAILS", 0);
    reply.str("Name", "AVA10");
    reply.int("ID", 0);
    reply.str("Driver", "avalon10");
    reply.str("Kernel", "");
    reply.str("Model", "");
    reply.str("Device Path", "");
    reply.end_row();
    reply.end_rows();
    reply.end();
}

pub fn control(scene: &mut Scene<'_>, ask: Ask<'_>, reply: &mut Reply) -> Outcome {
    match ask.command {
        "ascset" => ascset(scene, ask.param.unwrap_or_default(), reply),
        "privileged" => plain(scene, reply, 'S', 46, "Privileged access OK"),
        "setpool" => set_pool(scene, ask.param.unwrap_or_default(), reply),
        "ascdisable" | "ascenable" | "switchpool" | "quit" | "restart" => return Outcome::Denied,
        _ => return Outcome::Unknown,
    }
    Outcome::Done
}

fn ascset(scene: &mut Scene<'_>, param: &str, reply: &mut Reply) {
    let mut parts = param.splitn(3, ',');
    let (id, option, value) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next());
    if id != "0" {
        scene.refused();
        return plain(
            scene,
            reply,
            'E',
            107,
            &format!("Invalid ASC id {} - range is 0 - 0", id.parse().unwrap_or(0)),
        );
    }
    let said = match (option, value) {
        ("help", _) => {
            let text = "help|voltage|fan-spd|workmode|worklevel|reboot|softon|softoff|facopts|loop|time|";
            return plain(scene, reply, 'I', 118, &format!("ASC 0 set info: {text}"));
        }
        ("softoff", time) => timed(scene, time, true),
        ("softon", time) => timed(scene, time, false),
        ("hashpower", Some("0")) => {
            scene.write(Change::Sleep);
            Some(format!("PS[0 1209 0 0 0 1393 {:.0}]", scene.dev.model.standby))
        }
        ("hashpower", Some("1")) => {
            scene.write(Change::Wake);
            Some(format!("PS[0 1209 1391 0 0 1393 {:.0}]", scene.dev.model.standby))
        }
        ("led", Some(word)) => {
            scene.dev.locating = word.ends_with("-1");
            None
        }
        ("reboot", _) => {
            scene.write(Change::Reboot);
            None
        }
        ("workmode" | "worklevel", Some(value)) => {
            let number = value.strip_prefix("set,").unwrap_or(value);
            let level = number.trim().parse().ok().and_then(|mode| scene.dev.work_level(mode));
            match level {
                Some(level) => {
                    scene.write(Change::Level(level));
                    (!value.starts_with("set,")).then(|| format!("WORKMODE[{number}] success"))
                }
                None => return failed(scene, reply, option),
            }
        }
        _ => return failed(scene, reply, option),
    };
    match said {
        Some(text) => plain(scene, reply, 'I', 118, &format!("ASC 0 set info: {text}")),
        None => plain(scene, reply, 'S', 119, "ASC 0 set OK"),
    }
}

/// `setpool|user,password,number,url,worker,password`.
fn set_pool(scene: &mut Scene<'_>, param: &str, reply: &mut Reply) {
    let parts: Vec<&str> = param.splitn(6, ',').collect();
    let number = parts.get(2).and_then(|n| n.parse::<usize>().ok()).filter(|n| *n < 3);
    let (Some(number), 6, true) = (number, parts.len(), param.starts_with("root,root,")) else {
        scene.refused();
        return plain(scene, reply, 'E', 120, "setpool failed");
    };
    let mut pools = [0, 1, 2].map(|n| scene.dev.pool(n));
    pools[number] = Pool { url: parts[3].into(), user: parts[4].into(), pass: parts[5].into() };
    scene.set_pools(pools);
    plain(scene, reply, 'S', 119, "setpool OK");
}

fn failed(scene: &mut Scene<'_>, reply: &mut Reply, option: &str) {
    scene.refused();
    plain(scene, reply, 'E', 120, &format!("ASC 0 set failed: Unknown option: {option}"));
}

/// `softoff` and `softon`, bare or with a time of the device's clock.
fn timed(scene: &mut Scene<'_>, time: Option<&str>, off: bool) -> Option<String> {
    let at = time.and_then(|t| t.strip_prefix("1:")).and_then(|t| t.trim().parse::<i64>().ok());
    let Some(at) = at else {
        scene.write(if off { Change::Sleep } else { Change::Wake });
        return None;
    };
    let in_seconds = (at.saturating_sub(scene.when())) as f64;
    let t = scene.t + in_seconds.clamp(0.0, 1e9);
    scene.write(if off { Change::SleepAt(t) } else { Change::WakeAt(t) });
    debug_assert!(matches!(scene.dev.own, Own::Avalon { .. }));
    Some(format!("success {}:{at}", if off { "softoff" } else { "softon" }))
}
