//! Stock Antminers on the CGMiner port: read-only. Mode and pools are set over HTTP alone.
//!
//! The older style prints a second STATS row without a comma before it and numbers as strings; the
//! newer one is valid JSON and takes `a+b` for an unknown command. Asleep, the older one keeps a row
//! with Mode 1 and zeros, the newer one drops the row.

use super::{Outcome, Scene, Shares, host, status};
use crate::device::Device;
use crate::models::Family;
use crate::physics::{Phase, Sensed};
use crate::reply::{Reply, rounded};

/// The version of the mining program that the device names.
fn miner_version(dev: &Device) -> &'static str {
    if dev.model.old_style { "49.0.1.3" } else { "uart_trans.1.3" }
}

/// What counts as asleep for the reports: the mining program is up, the boards are off.
pub fn at_rest(dev: &Device) -> bool {
    dev.plant.phase == Phase::Asleep
}

pub fn report(scene: &mut Scene<'_>, command: &str, reply: &mut Reply) -> Outcome {
    match command {
        "version" => version(scene, reply),
        "summary" => summary(scene, reply),
        "stats" => stats(scene, reply),
        "pools" => pools(scene, reply),
        "devs" => devs(scene, reply),
        "config" => config(scene, reply),
        _ => return Outcome::Unknown,
    }
    Outcome::Done
}

fn identity(scene: &Scene<'_>, reply: &mut Reply) {
    reply.str("Miner", miner_version(scene.dev));
    reply.str("CompileTime", scene.dev.model.build);
    reply.str("Type", scene.dev.model.name);
}

fn version(scene: &Scene<'_>, reply: &mut Reply) {
    status(scene, reply, 'S', 22, "CGMiner versions");
    reply.rows("VERSION");
    reply.row("VERSION");
    reply.str("BMMiner", "1.0.0");
    reply.str("API", "3.1");
    identity(scene, reply);
    reply.end_row();
    reply.end_rows();
    reply.end();
}

/// The unit that the device counts in, in H/s, and how it names the rates of 5 s and since the start.
fn unit(dev: &Device) -> (f64, &'static str, &'static str) {
    match dev.model.family {
        Family::Hammer => (1e6, "MHS 5s", "MHS av"),
        _ => (1e9, "GHS 5s", "GHS av"),
    }
}

/// Elapsed, and GH/s of 5 s, since the start and of half an hour, as all replies report them.
pub fn rates(scene: &Scene<'_>) -> (u64, f64, f64, f64) {
    if at_rest(scene.dev) {
        return (0, 0.0, 0.0, 0.0);
    }
    let s = &scene.sensed;
    let unit = unit(scene.dev).0;
    (s.elapsed, s.rate / unit, s.average / unit, s.m15 / unit)
}

fn summary(scene: &Scene<'_>, reply: &mut Reply) {
    let (elapsed, now, average, half_hour) = rates(scene);
    let (_, now_key, average_key) = unit(scene.dev);
    let shares = Shares::of(scene);
    status(scene, reply, 'S', 11, "Summary");
    reply.rows("SUMMARY");
    reply.row("SUMMARY");
    reply.int("Elapsed", elapsed);
    if scene.dev.model.old_style {
        reply.quoted(now_key, format_args!("{now:.2}"));
    } else {
        reply.num(now_key, now, 2);
    }
    reply.num(average_key, average, 2);
    if !at_rest(scene.dev) {
        reply.num("GHS 30m", half_hour, 2);
        reply.int("Found Blocks", 0);
        reply.int("Getwork", elapsed / 10);
        reply.int("Accepted", shares.accepted);
        reply.int("Rejected", shares.rejected);
        reply.int("Hardware Errors", elapsed / 900);
        reply.num("Utility", shares.utility(elapsed), 2);
        reply.int("Discarded", elapsed * 94);
        reply.int("Stale", shares.stale);
        reply.int("Get Failures", 0);
        reply.int("Local Work", elapsed * 95);
        reply.int("Remote Failures", 0);
        reply.int("Network Blocks", elapsed / 600);
        reply.num("Total MH", scene.sensed.work / 1e6, 4);
        reply.num("Work Utility", shares.utility(elapsed) * shares.difficulty, 2);
        reply.num("Difficulty Accepted", shares.accepted as f64 * shares.difficulty, 8);
        reply.num("Difficulty Rejected", shares.rejected as f64 * shares.difficulty, 8);
        reply.num("Difficulty Stale", shares.stale as f64 * shares.difficulty, 8);
        reply.int("Best Share", 5_254_813_688u64);
        reply.num("Device Hardware%", 0.0, 4);
        reply.num("Device Rejected%", 0.0, 4);
        reply.num("Pool Rejected%", shares.rejected_percent(), 4);
        reply.num("Pool Stale%", 0.0, 4);
        reply.int("Last getwork", scene.when());
    }
    reply.end_row();
    reply.end_rows();
    reply.end();
}

/// Temperatures of a board's four corners: pcb, then chip.
pub fn corners(s: &Sensed, board: usize) -> ([i32; 4], [i32; 4]) {
    let cooler = board as f64;
    let (inlet, outlet) = (s.board - 14.0 - cooler, s.board - cooler);
    let chip = (s.chip - 14.0 - cooler, s.chip - cooler);
    let four = |a: f64, b: f64| [a as i32, a as i32, b as i32, b as i32];
    (four(inlet, outlet), four(chip.0, chip.1))
}

fn stats(scene: &mut Scene<'_>, reply: &mut Reply) {
    let model = scene.dev.model;
    let (elapsed, now, average, half_hour) = rates(scene);
    let (unit, now_key, average_key) = unit(scene.dev);
    scene.sampled(rounded(now, 2) * unit);
    status(scene, reply, 'S', 70, "CGMiner stats");
    reply.rows("STATS");
    reply.glued_rows = model.old_style;
    reply.row("BMMiner=1.0.0");
    if reply.is_json() {
        reply.str("BMMiner", "1.0.0");
    }
    identity(scene, reply);
    reply.end_row();
    if at_rest(scene.dev) && !model.old_style {
        reply.end_rows();
        reply.end();
        return;
    }
    reply.row_n("STATS", 0);
    reply.str("ID", "BTM_SOC0");
    reply.int("Elapsed", elapsed);
    reply.int("Calls", 0);
    if model.old_style {
        reply.raw("Wait", format_args!("0.000000"));
        reply.raw("Max", format_args!("0.000000"));
        reply.raw("Min", format_args!("99999999.000000"));
        reply.quoted(now_key, format_args!("{now:.2}"));
    } else {
        reply.int("Wait", 0);
        reply.int("Max", 0);
        reply.int("Min", 99_999_999);
        reply.num(now_key, now, 2);
    }
    reply.num(average_key, average, 2);
    reply.num("rate_30m", half_hour, 2);
    // The newer API says 2 here whatever the mode; the older one follows it.
    reply.int("Mode", if model.old_style { scene.dev.antminer_mode() } else { 2 });
    reply.int("miner_count", model.boards);
    let mhz = if now > 0.0 { model.mhz } else { 0 };
    if model.old_style {
        reply.quoted("frequency", format_args!("{mhz}"));
    } else {
        reply.int("frequency", mhz);
    }
    reply.int("fan_num", model.fans);
    for fan in 1..=4 {
        reply.int(["fan1", "fan2", "fan3", "fan4"][fan - 1], fan_rpm(scene, fan));
    }
    reply.int("temp_num", model.boards);
    chains(scene, now, reply);
    reply.num("total_rateideal", scene.dev.plant.plate_hash() / 1e9, 2);
    reply.str("rate_unit", "GH");
    reply.int("total_freqavg", mhz);
    reply.int("total_acn", u32::from(model.boards) * u32::from(model.chips_per_board));
    reply.num("total rate", average, 2);
    if !model.old_style {
        let watts = scene.sensed.watts;
        reply.str("chain_power", &format!("{watts:.0} W"));
        scene.power = Some(watts);
    }
    reply.int("temp_max", 0);
    reply.int("no_matching_work", elapsed / 90);
    reply.str("miner_version", miner_version(scene.dev));
    reply.str("miner_id", &format!("{:#}dd48", scene.dev.mac()));
    reply.end_row();
    reply.end_rows();
    reply.end();
}

/// The speed of a fan, the rear ones a little slower.
pub fn fan_rpm(scene: &Scene<'_>, fan: usize) -> u32 {
    if at_rest(scene.dev) || fan > usize::from(scene.dev.model.fans) {
        return 0;
    }
    scene.sensed.fan_rpm.saturating_sub(if fan > 2 { 120 } else { 0 })
}

fn chains(scene: &Scene<'_>, now: f64, reply: &mut Reply) {
    const TEMP: [(&str, &str, &str); 3] =
        [("temp1", "temp2_1", "temp3_1"), ("temp2", "temp2_2", "temp3_2"), ("temp3", "temp2_3", "temp3_3")];
    const PCB: [&str; 4] = ["temp_pcb1", "temp_pcb2", "temp_pcb3", "temp_pcb4"];
    const CHIP: [&str; 4] = ["temp_chip1", "temp_chip2", "temp_chip3", "temp_chip4"];
    const PIC: [&str; 4] = ["temp_pic1", "temp_pic2", "temp_pic3", "temp_pic4"];
    const ACN: [&str; 4] = ["chain_acn1", "chain_acn2", "chain_acn3", "chain_acn4"];
    const ACS: [&str; 4] = ["chain_acs1", "chain_acs2", "chain_acs3", "chain_acs4"];
    const HW: [&str; 4] = ["chain_hw1", "chain_hw2", "chain_hw3", "chain_hw4"];
    const RATE: [&str; 4] = ["chain_rate1", "chain_rate2", "chain_rate3", "chain_rate4"];
    const IDEAL: [&str; 4] = ["chain_rateideal1", "chain_rateideal2", "chain_rateideal3", "chain_rateideal4"];
    const FREQ: [&str; 4] = ["freq1", "freq2", "freq3", "freq4"];
    let dev = &*scene.dev;
    let boards = usize::from(dev.model.boards);
    for (board, (pcb_key, chip_key, old_key)) in TEMP.iter().enumerate().take(boards) {
        let (pcb, chip) = corners(&scene.sensed, board);
        reply.int(pcb_key, pcb[3]);
        reply.int(chip_key, chip[3]);
        if dev.model.old_style {
            reply.int(old_key, chip[3]);
        }
    }
    for board in 0..4 {
        let (pcb, chip) = if board < boards { corners(&scene.sensed, board) } else { ([0; 4], [0; 4]) };
        reply.str(PCB[board], &dashed(pcb));
        reply.str(CHIP[board], &dashed(chip));
        if !dev.model.old_style {
            reply.str(PIC[board], &dashed(pcb.map(|t| (t - 10).max(0))));
        }
    }
    let chips = dev.model.chips_per_board;
    for (board, key) in ACN.iter().enumerate() {
        reply.int(key, if board < boards { chips } else { 0 });
    }
    for (board, key) in ACS.iter().enumerate() {
        reply.str(key, &if board < boards { circles(chips) } else { String::new() });
    }
    for (board, key) in HW.iter().enumerate() {
        reply.int(key, if board < boards { scene.sensed.elapsed / 2_700 } else { 0 });
    }
    for (board, key) in RATE.iter().enumerate() {
        if board < boards {
            let rate = dev.plant.board_rate(now, board as u8, dev.model.boards);
            reply.quoted(key, format_args!("{rate:.2}"));
        } else {
            reply.str(key, "");
        }
    }
    for (board, key) in FREQ.iter().enumerate() {
        let mhz = if board < boards && now > 0.0 { dev.model.mhz } else { 0 };
        if dev.model.old_style {
            reply.quoted(key, format_args!("{mhz}"));
        } else {
            reply.int(key, mhz);
        }
    }
    if dev.model.old_style {
        for (board, key) in IDEAL.iter().enumerate() {
            let share = if board < boards { dev.plant.plate_hash() / 1e9 / boards as f64 } else { 0.0 };
            reply.num(key, share, 2);
        }
    }
}

fn dashed(four: [i32; 4]) -> String {
    format!("{}-{}-{}-{}", four[0], four[1], four[2], four[3])
}

/// One `o` a chip, in groups.
fn circles(chips: u16) -> String {
    let mut out = String::with_capacity(usize::from(chips) * 3 / 2);
    for chip in 0..chips {
        if chip % 3 == 0 {
            out.push(' ');
        }
        out.push('o');
    }
    out
}

/// The newer form of `stats`, asked for by `new_api`.
pub fn new_api_stats(scene: &mut Scene<'_>, reply: &mut Reply) {
    let (elapsed, now, average, _) = rates(scene);
    let model = scene.dev.model;
    reply.put(format_args!(
        "{{\"INFO\":{{\"CompileTime\":\"{}\",\"miner_version\":\"{}\",\"type\":\"{}\"}},\"STATS\":[",
        model.build,
        miner_version(scene.dev),
        model.name
    ));
    scene.sampled(rounded(now, 2) * 1e9);
    if !at_rest(scene.dev) {
        reply.put(format_args!("{{\"chain\":["));
        for board in 0..usize::from(model.boards) {
            let (pcb, chip) = corners(&scene.sensed, board);
            reply.put(format_args!(
                "{}{{\"asic_num\":{},\"freq_avg\":{},\"index\":{board},\"rate_ideal\":{:.1},\"rate_real\":{:.2},\"sn\":\"{}\",\"temp_chip\":{chip:?},\"temp_pcb\":{pcb:?}}}",
                if board > 0 { "," } else { "" },
                model.chips_per_board,
                model.mhz,
                scene.dev.plant.plate_hash() / 1e9 / f64::from(model.boards),
                scene.dev.plant.board_rate(now, board as u8, model.boards),
                scene.dev.serial(1 + board as u64, 17),
            ));
        }
        let fan = [1, 2, 3, 4].map(|n| fan_rpm(scene, n));
        let watts = scene.sensed.watts;
        scene.power = Some(watts);
        reply.put(format_args!(
            "],\"chain_num\":{},\"elapsed\":{elapsed},\"fan\":{fan:?},\"fan_num\":{},\"rate_5s\":{now:.2},\"rate_avg\":{average:.2},\"rate_ideal\":{:.1},\"rate_unit\":\"GH/s\",\"watt\":{watts:.0}}}",
            model.boards,
            model.fans,
            scene.dev.plant.plate_hash() / 1e9,
        ));
    }
    reply.put(format_args!(
        "],\"STATUS\":{{\"Msg\":\"stats\",\"STATUS\":\"S\",\"api_version\":\"1.0.0\",\"when\":{}}}}}",
        scene.when()
    ));
}

fn pools(scene: &Scene<'_>, reply: &mut Reply) {
    let shares = Shares::of(scene);
    let old = scene.dev.model.old_style;
    status(scene, reply, 'S', 7, "3 Pool(s)");
    reply.rows("POOLS");
    for n in 0..3 {
        let pool = scene.dev.pool(n);
        let active = n == 0 && !at_rest(scene.dev);
        let mine = |v: u64| if n == 0 { v } else { 0 };
        let accepted = mine(shares.accepted);
        reply.row_n("POOL", n);
        reply.str("URL", &pool.url);
        // The firmware's own spelling of "Dead" in the newer style.
        reply.str(
            "Status",
            if n < 2 {
                "Alive"
            } else if old {
                "Dead"
            } else {
                "Deed"
            },
        );
        reply.int("Priority", n);
        reply.int("Quota", 1);
        reply.str("Long Poll", "N");
        reply.int("Getworks", mine(scene.sensed.elapsed / 10));
        reply.int("Accepted", accepted);
        reply.int("Rejected", mine(shares.rejected));
        reply.int("Discarded", mine(scene.sensed.elapsed * 94));
        reply.int("Stale", mine(shares.stale));
        reply.int("Get Failures", 0);
        reply.int("Remote Failures", 0);
        reply.str("User", &pool.user);
        reply.str("Last Share Time", if active { "0:00:04" } else { "0" });
        reply.str("Diff", if active { "262K" } else { "" });
        reply.int("Diff1 Shares", 0);
        reply.str("Proxy Type", "");
        reply.str("Proxy", "");
        reply.num("Difficulty Accepted", accepted as f64 * shares.difficulty, 8);
        reply.num("Difficulty Rejected", mine(shares.rejected) as f64 * shares.difficulty, 8);
        reply.num("Difficulty Stale", mine(shares.stale) as f64 * shares.difficulty, 8);
        reply.num("Last Share Difficulty", if active { shares.difficulty } else { 0.0 }, 8);
        reply.bool("Has Stratum", true);
        reply.bool("Stratum Active", active);
        reply.str("Stratum URL", if active { host(&pool.url) } else { "" });
        reply.bool("Has GBT", false);
        reply.num("Best Share", if n == 0 { 5_254_813_688.0 } else { 0.0 }, 1);
        reply.num("Pool Rejected%", if n == 0 { shares.rejected_percent() } else { 0.0 }, 4);
        reply.num(if old { "Pool Stale%" } else { "Pool Stale%%" }, 0.0, 4);
        reply.end_row();
    }
    reply.end_rows();
    reply.end();
}

fn devs(scene: &Scene<'_>, reply: &mut Reply) {
    let shares = Shares::of(scene);
    let (elapsed, now, average, _) = rates(scene);
    status(scene, reply, 'S', 9, "1 ASC(s)");
    reply.rows("DEVS");
    reply.row_n("ASC", 0);
    reply.str("Name", "BTM_SOC");
    reply.int("ID", 0);
    reply.str("Enabled", "Y");
    reply.str("Status", "Alive");
    reply.num("Temperature", scene.sensed.board, 2);
    // Gigahashes under a name that says megahashes: so do the real ones.
    reply.num("MHS av", average, 2);
    reply.num("MHS 5s", now, 2);
    reply.int("Accepted", shares.accepted);
    reply.int("Rejected", shares.rejected);
    reply.int("Hardware Errors", 0);
    reply.num("Utility", 0.0, 2);
    reply.int("Last Share Pool", 0);
    reply.int("Last Share Time", scene.when() - 4);
    reply.num("Total MH", 0.0, 4);
    reply.int("Diff1 Work", 0);
    reply.num("Difficulty Accepted", shares.accepted as f64 * shares.difficulty, 8);
    reply.num("Difficulty Rejected", shares.rejected as f64 * shares.difficulty, 8);
    reply.num("Last Share Difficulty", shares.difficulty, 8);
    reply.int("Last Valid Work", scene.when() - 4);
    reply.num("Device Hardware%", 0.0, 4);
    reply.num("Device Rejected%", 0.0, 4);
    reply.int("Device Elapsed", elapsed);
    reply.end_row();
    reply.end_rows();
    reply.end();
}

fn config(scene: &Scene<'_>, reply: &mut Reply) {
    status(scene, reply, 'S', 33, "CGMiner config");
    reply.rows("CONFIG");
    reply.row("CONFIG");
    reply.int("ASC Count", scene.dev.model.boards);
    reply.int("PGA Count", 0);
    reply.int("Pool Count", 3);
    reply.str("Strategy", "Failover");
    reply.int("Log Interval", 5);
    reply.str("Device Code", "BTM_SOC");
    reply.str("OS", "Linux");
    reply.bool("Failover-Only", true);
    reply.int("ScanTime", 60);
    reply.int("Queue", 1);
    reply.int("Expiry", 120);
    reply.end_row();
    reply.end_rows();
    reply.end();
}
