//! LuxOS: reads in the open, writes under a session of which there is one at a time.
//!
//! A session lasts a minute without use. Asleep the machine keeps its sleep over a reboot, and only
//! `curtail <session>,wakeup` wakes it. JSON only; STATUS keys in alphabetical order.

use super::{Ask, Outcome, Scene, Shares, plain, status};
use crate::device::{Change, Own, Pool};
use crate::faults::FaultKind;
use crate::physics::{Phase, profile_share};
use crate::reply::{Reply, rounded};
use crate::rng::Channel;
use hashinsight_protocol::units::DurationMs;

const SESSION_LIFE: DurationMs = DurationMs::from_minutes(1);
/// Profiles below and above the default.
const PROFILES: std::ops::RangeInclusive<i8> = -12..=2;

pub fn report(scene: &mut Scene<'_>, command: &str, reply: &mut Reply) -> Outcome {
    match command {
        "version" => {
            status(scene, reply, 'S', 22, "LUXminer versions");
            reply.rows("VERSION");
            reply.row("VERSION");
            reply.str("API", "3.7");
            reply.str("CompileTime", "Tue Apr  8 22:05:35 UTC 2025");
            reply.str("LUXminer", scene.dev.model.build);
            reply.str("Miner", short_build(scene));
            reply.str("Type", scene.dev.model.name);
        }
        "config" => config(scene, reply),
        "summary" => summary(scene, reply),
        "power" => {
            scene.power = Some(scene.sensed.watts);
            status(scene, reply, 'S', 311, "Power usage");
            reply.rows("POWER");
            reply.row("POWER");
            reply.bool("PSU", false);
            reply.int("Watts", scene.sensed.watts);
        }
        "stats" => return stats(scene, reply),
        "pools" => return pools(scene, reply),
        "temps" => return temps(scene, reply),
        "fans" => return fans(scene, reply),
        "devs" => return devs(scene, reply),
        "profiles" => return profiles(scene, reply),
        "events" => {
            status(scene, reply, 'S', 357, "Miner Events");
            reply.rows("EVENTS");
            return close_rows(reply);
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

fn short_build<'a>(scene: &Scene<'a>) -> &'static str {
    scene.dev.model.build.split('-').next().unwrap_or_default()
}

fn asleep(scene: &Scene<'_>) -> bool {
    scene.dev.plant.phase == Phase::Asleep
}

fn config(scene: &Scene<'_>, reply: &mut Reply) {
    let dev = &*scene.dev;
    status(scene, reply, 'S', 33, "LUXminer config");
    reply.rows("CONFIG");
    reply.row("CONFIG");
    reply.int("ASC Count", dev.model.boards);
    reply.str("BcastAddr", "127.255.255.255");
    reply.str("ControlBoardType", "cvitek");
    reply.str("Cooling", "Air");
    reply.str("CurtailMode", if dev.plant.settings.asleep { "Sleep" } else { "None" });
    reply.bool("DHCP", true);
    reply.str("DNS Servers", "");
    reply.str("Device Code", "");
    reply.str("FeeStatus", "Ok");
    reply.str("Gateway", "");
    reply.str("GreenLed", "auto");
    reply.str("Hostname", "luxos");
    reply.str("Hotplug", "None");
    reply.str("IPAddr", &dev.ip.to_string());
    reply.bool("ImmersionMode", false);
    reply.bool("IsAtmEnabled", true);
    reply.bool("IsPowerSupplyOn", !asleep(scene));
    reply.bool("IsSingleVoltage", true);
    reply.bool("IsTuning", dev.plant.phase == Phase::Ramping);
    reply.int("Log Interval", 0);
    reply.str("MACAddr", &dev.mac().to_string().to_lowercase());
    reply.str("Model", dev.model.name);
    reply.num("NameplateTHS", dev.plant.plate_hash() / 1e12, 1);
    reply.str("Netmask", "255.255.0.0");
    reply.str("OS", "LuxOS");
    reply.int("PGA Count", 0);
    reply.str("PSULabel", "APW121215e");
    reply.int("Pool Count", 3);
    reply.str("Profile", &dev.profile_name(dev.plant.settings.profile));
    reply.str("ProfileStep", &dev.plant.settings.profile.to_string());
    reply.str("RedLed", if dev.locating { "blink" } else { "auto" });
    reply.str("SerialNumber", &dev.serial(0, 17));
    reply.str("Strategy", "Failover");
    reply.str("SystemStatus", if dev.plant.settings.asleep { "Sleep" } else { "Normal" });
    reply.int("UpdateTimeout", 60);
}

fn summary(scene: &mut Scene<'_>, reply: &mut Reply) {
    let s = scene.sensed;
    let now = rounded(s.rate / 1e9, 2);
    scene.sampled(now * 1e9);
    let shares = Shares::of(scene);
    status(scene, reply, 'S', 11, "Summary");
    reply.rows("SUMMARY");
    reply.row("SUMMARY");
    reply.int("Accepted", shares.accepted);
    reply.int("Best Share", 32_768_000);
    reply.num("Device Hardware%", 0.0, 1);
    reply.num("Device Rejected%", 0.0, 1);
    reply.num("Difficulty Accepted", shares.accepted as f64 * shares.difficulty, 0);
    reply.num("Difficulty Rejected", shares.rejected as f64 * shares.difficulty, 0);
    reply.int("Difficulty Stale", 0);
    reply.int("Discarded", 0);
    reply.int("Elapsed", s.elapsed);
    reply.int("Found Blocks", 0);
    reply.num("GHS 15m", s.m15 / 1e9, 2);
    reply.num("GHS 1m", s.m1 / 1e9, 2);
    reply.num("GHS 24h", s.average / 1e9, 2);
    reply.num("GHS 30m", s.m15 / 1e9, 2);
    reply.num("GHS 5m", s.m5 / 1e9, 2);
    reply.num("GHS 5s", now, 2);
    reply.num("GHS av", s.average / 1e9, 2);
    reply.int("Get Failures", 0);
    reply.int("Getworks", s.elapsed / 5);
    reply.int("Hardware Errors", 0);
    reply.int("Last getwork", scene.when() - 4);
    reply.int("Local Work", 0);
    reply.int("Network Blocks", 0);
    reply.num("Pool Rejected%", shares.rejected_percent(), 4);
    reply.num("Pool Stale%", 0.0, 1);
    reply.int("Rejected", shares.rejected);
    reply.int("Remote Failures", 0);
    reply.int("Stale", shares.stale);
    reply.num("Total MH", s.work / 1e6, 4);
    reply.num("Utility", shares.utility(s.elapsed), 2);
    reply.num("Work Utility", 11.5, 2);
}

fn stats(scene: &Scene<'_>, reply: &mut Reply) -> Outcome {
    let (dev, s) = (&*scene.dev, &scene.sensed);
    status(scene, reply, 'S', 70, "LUXminer stats");
    reply.rows("STATS");
    reply.row("STATS");
    reply.str("CompileTime", "Tue Apr  8 22:05:35 UTC 2025");
    reply.str("Miner", short_build(scene));
    reply.str("Type", dev.model.name);
    reply.end_row();
    reply.row("STATS");
    reply.int("Calls", 0);
    reply.int("Elapsed", s.elapsed);
    reply.num("GHS 5s", s.rate / 1e9, 2);
    reply.num("GHS av", s.average / 1e9, 2);
    reply.str("ID", "BTM_SOC0");
    reply.int("Mode", 2);
    reply.int("STATS", 0);
    for board in 0..dev.model.boards {
        let n = board + 1;
        reply.int(&format!("chain_acn{n}"), dev.model.chips_per_board);
        reply.str(
            &format!("chain_rate{n}"),
            &format!("{:.2}", dev.plant.board_rate(s.rate, board, dev.model.boards) / 1e9),
        );
        let (hot, cool) = (s.board as i32, s.ambient as i32 + 6);
        reply.str(&format!("temp_chip{n}"), &format!("{hot}-{cool}-{cool}-{hot}"));
        reply.str(&format!("temp_pcb{n}"), &format!("{hot}-{cool}-{cool}-{hot}"));
    }
    for fan in 1..=dev.model.fans {
        reply.int(&format!("fan{fan}"), fan_rpm(scene));
    }
    reply.int("fan_num", dev.model.fans);
    reply.int("frequency", dev.model.mhz);
    reply.int("miner_count", dev.model.boards);
    reply.str("miner_id", &format!("{:#}", dev.mac()));
    reply.num("rate_30m", s.m15 / 1e9, 2);
    reply.str("rate_unit", "GH");
    reply.num("total_rateideal", dev.plant.plate_hash() / 1e9, 1);
    close(reply)
}

/// Its fans never stand still.
fn fan_rpm(scene: &Scene<'_>) -> u32 {
    scene.sensed.fan_rpm.max(1_920)
}

fn pools(scene: &Scene<'_>, reply: &mut Reply) -> Outcome {
    let shares = Shares::of(scene);
    status(scene, reply, 'S', 7, "3 Pool(s)");
    reply.rows("POOLS");
    let added = match &scene.dev.own {
        Own::Luxos { added, .. } => added.clone(),
        _ => Vec::new(),
    };
    let configured = (0..3).map(|n| scene.dev.pool(n)).filter(|pool| !pool.url.is_empty());
    for (n, pool) in configured.chain(added).enumerate() {
        let mine = |v: u64| if n == 0 { v } else { 0 };
        let address = pool.url.split_once("://").map_or(&*pool.url, |(_, rest)| rest);
        reply.row("POOLS");
        reply.int("Accepted", mine(shares.accepted));
        reply.bool("AsicBoost", true);
        reply.int("Bad Work", 0);
        reply.int("Best Share", mine(32_768_000));
        reply.int("Current Block Height", 0);
        reply.int("Current Block Version", 536_870_912);
        reply.str("Diff", if n == 0 { "131K" } else { "0" });
        reply.int("Diff1 Shares", mine(shares.accepted * shares.difficulty as u64));
        reply.num("Difficulty Accepted", mine(shares.accepted) as f64 * shares.difficulty, 0);
        reply.num("Difficulty Rejected", mine(shares.rejected) as f64 * shares.difficulty, 0);
        reply.int("Difficulty Stale", 0);
        reply.int("Discarded", 0);
        reply.int("GROUP", 0);
        reply.int("Get Failures", 0);
        reply.int("Getworks", mine(scene.sensed.elapsed / 10));
        reply.bool("Has GBT", false);
        reply.bool("Has Stratum", true);
        reply.bool("Has Vmask", true);
        reply.num("Last Share Difficulty", if n == 0 { shares.difficulty } else { 0.0 }, 0);
        reply.str("Last Share Time", if n == 0 { "00:00:01" } else { "0" });
        reply.str("Long Pool", "N");
        reply.int("POOL", n);
        reply.num("Pool Rejected%", if n == 0 { shares.rejected_percent() } else { 0.0 }, 4);
        reply.num("Pool Stale%", 0.0, 1);
        reply.int("Priority", n);
        reply.str("Proxy", "");
        reply.str("Proxy Type", "");
        reply.num("Quota", 1.0, 1);
        reply.int("Rejected", mine(shares.rejected));
        reply.int("Remote Failures", 0);
        reply.int("Stale", mine(shares.stale));
        reply.str("Status", if n < 2 && !asleep(scene) { "Alive" } else { "Dead" });
        reply.bool("Stratum Active", n == 0 && !asleep(scene));
        reply.num("Stratum Difficulty", shares.difficulty, 0);
        reply.str("Stratum URL", address);
        reply.str("URL", &pool.url);
        reply.str("User", &pool.user);
        reply.num("Work Difficulty", shares.difficulty, 0);
        reply.int("Works", 0);
        reply.end_row();
    }
    close_rows(reply)
}

fn temps(scene: &Scene<'_>, reply: &mut Reply) -> Outcome {
    let (boards, s) = (scene.dev.model.boards, &scene.sensed);
    status(scene, reply, 'S', 201, &format!("{boards} Temp(s)"));
    reply.rows("TEMPS");
    for board in 0..boards {
        let (hot, cool) = ((s.board - f64::from(board)).round(), (s.ambient + 6.0).min(s.board).round());
        reply.row("TEMPS");
        reply.num("BottomLeft", hot, 1);
        reply.num("BottomRight", cool, 1);
        reply.int("ID", board);
        reply.int("TEMP", board);
        reply.num("TopLeft", hot, 1);
        reply.num("TopRight", cool, 1);
        reply.end_row();
    }
    close_rows(reply)
}

fn fans(scene: &Scene<'_>, reply: &mut Reply) -> Outcome {
    let fans = scene.dev.model.fans;
    status(scene, reply, 'S', 202, &format!("{fans} Fan(s)"));
    reply.rows("FANS");
    for fan in 0..fans {
        reply.row("FANS");
        reply.str("FAN", &format!("FAN{}", fan + 1));
        reply.int("ID", fan);
        reply.int("RPM", fan_rpm(scene) + u32::from(fan / 2) * 120);
        reply.int("Speed", (fan_rpm(scene) / 60).min(100));
        reply.end_row();
    }
    close_rows(reply)
}

fn devs(scene: &Scene<'_>, reply: &mut Reply) -> Outcome {
    let (dev, s) = (&*scene.dev, &scene.sensed);
    let boards = dev.model.boards;
    let shares = Shares::of(scene);
    let profile = dev.profile_name(dev.plant.settings.profile);
    status(scene, reply, 'S', 9, &format!("{boards} ASC(s)"));
    reply.rows("DEVS");
    for board in 0..boards {
        let part = |rate: f64| dev.plant.board_rate(rate, board, boards) / 1e6;
        reply.row("DEVS");
        reply.int("ASC", board);
        reply.int("Accepted", shares.accepted / u64::from(boards));
        reply.str("Board", "BHB56903");
        reply.int("Device Elapsed", s.elapsed);
        reply.str("Enabled", "Y");
        reply.int("Hardware Errors", 0);
        reply.int("ID", board);
        reply.bool("IsRamping", dev.plant.phase == Phase::Ramping);
        reply.bool("IsUserShutdown", false);
        reply.num("MHS 15m", part(s.m15), 4);
        reply.num("MHS 1m", part(s.m1), 4);
        reply.num("MHS 5m", part(s.m5), 4);
        reply.num("MHS 5s", part(s.rate), 4);
        reply.num("MHS av", part(s.average), 4);
        reply.str("Name", "");
        reply.num("Nominal MHS", part(dev.plant.plate_hash()), 1);
        reply.str("Profile", &profile);
        reply.int("Rejected", shares.rejected / u64::from(boards));
        reply.str("SerialNumber", &dev.serial(1 + u64::from(board), 17));
        reply.str("Status", if asleep(scene) { "Dead" } else { "Alive" });
        reply.num("Temperature", s.board.round(), 1);
        reply.num("Total MH", part(s.work), 4);
        reply.end_row();
    }
    close_rows(reply)
}

fn profiles(scene: &Scene<'_>, reply: &mut Reply) -> Outcome {
    let dev = &*scene.dev;
    status(scene, reply, 'S', 324, &format!("{} Profile(s)", PROFILES.count()));
    reply.rows("PROFILES");
    for step in PROFILES {
        let share = profile_share(step);
        reply.row("PROFILES");
        reply.int("Frequency", i32::from(dev.model.mhz) + 25 * i32::from(step));
        reply.num("Hashrate", dev.model.terahash * share.powf(0.85), 1);
        reply.bool("IsDynamic", step != 0);
        reply.bool("IsTuned", step == 0);
        reply.str("Profile Name", &dev.profile_name(step));
        reply.str("Step", &step.to_string());
        reply.num("Watts", dev.model.watts * share, 0);
        reply.end_row();
    }
    close_rows(reply)
}

pub fn control(scene: &mut Scene<'_>, ask: Ask<'_>, reply: &mut Reply) -> Outcome {
    match ask.command {
        "logon" => logon(scene, reply),
        "session" => {
            let open = session(scene);
            let code = if open.is_some() { (318, "Session information") } else { (319, "No session active") };
            status(scene, reply, 'S', code.0, code.1);
            reply.rows("SESSION");
            reply.row("SESSION");
            reply.str("SessionID", open.as_deref().unwrap_or(""));
            return close(reply);
        }
        "logoff" => match session(scene).filter(|open| ask.param == Some(&**open)) {
            Some(_) => {
                set_session(scene, None);
                plain(scene, reply, 'S', 317, "Session terminated");
            }
            None => no_session(scene, reply),
        },
        "profileget" => {
            let step = scene.dev.plant.settings.profile;
            status(scene, reply, 'S', 323, "Profile");
            reply.rows("PROFILE");
            reply.row("PROFILE");
            reply.str("Profile", &scene.dev.profile_name(step));
            reply.str("Step", &step.to_string());
            return close(reply);
        }
        "addpool" | "removepool" | "switchpool" => pool_list(scene, ask, reply),
        "curtail" | "profileset" | "ledset" => under_session(scene, ask, reply),
        "reboot" | "rebootdevice" => under_session(scene, Ask { command: "rebootdevice", ..ask }, reply),
        _ => return Outcome::Unknown,
    }
    Outcome::Done
}

/// The open session's id.
fn session(scene: &Scene<'_>) -> Option<String> {
    match &scene.dev.own {
        Own::Luxos { session: Some((id, until)), .. } if *until > scene.now => Some(id.clone()),
        _ => None,
    }
}

fn set_session(scene: &mut Scene<'_>, id: Option<String>) {
    let until = scene.now.plus(SESSION_LIFE);
    if let Own::Luxos { session, .. } = &mut scene.dev.own {
        *session = id.map(|id| (id, until));
    }
}

fn logon(scene: &mut Scene<'_>, reply: &mut Reply) {
    if session(scene).is_some() || scene.dev.faults.active(FaultKind::Busy, scene.t).is_some() {
        return plain(scene, reply, 'E', 402, "Another session is active");
    }
    let draws = scene.dev.draws;
    let Own::Luxos { opened, .. } = &mut scene.dev.own else { return };
    *opened += 1;
    let id = format!("{:08x}", draws.bits(Channel::Secret, *opened) as u32);
    set_session(scene, Some(id.clone()));
    status(scene, reply, 'S', 316, "Session created");
    reply.rows("SESSION");
    reply.row("SESSION");
    reply.str("SessionID", &id);
    close(reply);
}

/// `addpool url,user,password`, `removepool id`, `switchpool id`: without a session. The simulated
/// device has room for three, and while they are changed for three more.
fn pool_list(scene: &mut Scene<'_>, ask: Ask<'_>, reply: &mut Reply) {
    let param = ask.param.unwrap_or_default();
    let mut list: Vec<Pool> = (0..3).map(|n| scene.dev.pool(n)).filter(|pool| !pool.url.is_empty()).collect();
    if let Own::Luxos { added, .. } = &scene.dev.own {
        list.extend(added.iter().cloned());
    }
    let id = param.parse::<usize>().ok().filter(|id| *id < list.len());
    match (ask.command, id) {
        ("addpool", _) if param.split(',').count() >= 3 => {
            let mut parts = param.splitn(4, ',').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            list.push(Pool { url: next(), user: next(), pass: next() });
        }
        ("removepool", Some(id)) => drop(list.remove(id)),
        // It sets which one is used, not their order.
        ("switchpool", Some(_)) => {}
        _ => {
            scene.refused();
            return plain(scene, reply, 'E', 26, "Invalid pool id");
        }
    }
    if scene.dev.faults.active(FaultKind::Lie, scene.t).is_none() {
        let mut rest = list.into_iter();
        let none = || Pool { url: String::new(), user: String::new(), pass: String::new() };
        let mut place = || rest.next().unwrap_or_else(none);
        let three = [place(), place(), place()];
        scene.set_pools(three);
        if let Own::Luxos { added, .. } = &mut scene.dev.own {
            *added = rest.collect();
        }
    } else {
        scene.set_pools([0, 1, 2].map(|n| scene.dev.pool(n)));
    }
    plain(scene, reply, 'S', 55, "Pool list changed");
}

fn no_session(scene: &mut Scene<'_>, reply: &mut Reply) {
    scene.refused();
    plain(scene, reply, 'E', 401, "Invalid session id");
}

fn under_session(scene: &mut Scene<'_>, ask: Ask<'_>, reply: &mut Reply) {
    let mut parts = ask.param.unwrap_or_default().splitn(2, ',');
    let (given, what) = (parts.next().unwrap_or(""), parts.next().unwrap_or("").trim());
    let Some(open) = session(scene).filter(|open| *open == given) else {
        return no_session(scene, reply);
    };
    set_session(scene, Some(open));
    let off = scene.dev.plant.settings.asleep;
    match (ask.command, what) {
        ("curtail", "sleep") if off => plain(scene, reply, 'E', 336, "Miner is already sleeping"),
        ("curtail", "wakeup") if !off => plain(scene, reply, 'E', 336, "Miner is already awake"),
        ("curtail", "sleep" | "wakeup") => {
            scene.write(if what == "sleep" { Change::Sleep } else { Change::Wake });
            plain(scene, reply, 'S', 335, &format!("Curtail mode: {what}"));
        }
        ("profileset", name) => match PROFILES.into_iter().find(|step| scene.dev.profile_name(*step) == name)
        {
            Some(step) => {
                scene.write(Change::Profile(step));
                plain(scene, reply, 'S', 325, &format!("Profile set to {name}"));
            }
            None => {
                scene.refused();
                plain(scene, reply, 'E', 326, "Profile not found");
            }
        },
        ("ledset", word) => {
            scene.dev.locating = word.ends_with("blink");
            plain(scene, reply, 'S', 303, "LED set");
        }
        ("rebootdevice", _) => {
            scene.write(Change::Reboot);
            plain(scene, reply, 'S', 313, "Device rebooting");
        }
        _ => {
            scene.refused();
            plain(scene, reply, 'E', 304, "Invalid parameter");
        }
    }
}
