//! Whatsminers with API 2: reads in the open, writes under a token.
//!
//! Replies of btminer's own commands have a flat STATUS; those inherited from cgminer have the list.
//! Only the latter can be joined.

use super::whatsminer_token::{Unreadable, decrypt, encrypt, md5crypt};
use super::{Ask, Outcome, Scene, Shares, host, status};
use crate::device::{Change, Own, Pool, Token, WriteResult};
use crate::faults::FaultKind;
use crate::physics::{Level, Phase};
use crate::reply::{Reply, rounded};
use crate::rng::Channel;
use hashinsight_protocol::units::DurationMs;
use serde_json::Value;
use std::fmt::Write as _;

const PASSWORD: &str = "admin";
const TOKEN_LIFE: DurationMs = DurationMs::from_minutes(30);
/// Tokens a device keeps at a time.
const TOKENS: usize = 32;
/// One power_off in so many is never answered, though it works.
const SILENT_OFF: f64 = 0.25;

pub fn report(scene: &mut Scene<'_>, command: &str, reply: &mut Reply) -> Outcome {
    match command {
        "summary" => summary(scene, reply),
        "devs" => devs(scene, reply, false),
        "edevs" => devs(scene, reply, true),
        "pools" => pools(scene, reply),
        "devdetails" => devdetails(scene, reply),
        _ => return Outcome::Unknown,
    }
    Outcome::Done
}

fn power_mode(level: Level) -> &'static str {
    match level {
        Level::LowPower | Level::HighEfficiency => "Low",
        Level::Normal => "Normal",
        Level::HighPower => "High",
    }
}

/// The power limit that the device holds: its own, or the model's.
fn limit(scene: &Scene<'_>) -> u32 {
    scene.dev.plant.settings.limit.unwrap_or(own_limit(scene))
}

fn own_limit(scene: &Scene<'_>) -> u32 {
    (scene.dev.plant.plate_watts() * 1.05 / 100.0).ceil() as u32 * 100
}

fn summary(scene: &mut Scene<'_>, reply: &mut Reply) {
    let s = scene.sensed;
    let off = scene.dev.plant.phase == Phase::Asleep;
    let rt = rounded(if off { 0.0 } else { s.rate / 1e6 }, 2);
    scene.sampled(rt * 1e6);
    scene.power = Some(s.watts);
    let shares = Shares::of(scene);
    let model = scene.dev.model;
    status(scene, reply, 'S', 11, "Summary");
    reply.rows("SUMMARY");
    reply.row("SUMMARY");
    if off {
        reply.int("Elapsed", 0);
        for key in ["MHS av", "MHS 5s", "MHS 1m", "MHS 5m", "MHS 15m", "HS RT"] {
            reply.num(key, 0.0, 2);
        }
        reply.num("Total MH", 0.0, 4);
        reply.int("freq_avg", 0);
        reply.int("Power", s.watts);
        reply.str("Power Mode", power_mode(scene.dev.plant.settings.level));
        reply.int("Power Limit", limit(scene));
        reply.int("Uptime", s.uptime);
        reply.str("MAC", &scene.dev.mac().to_string());
    } else {
        reply.int("Elapsed", s.elapsed);
        reply.num("MHS av", s.average / 1e6, 2);
        reply.num("MHS 5s", rt, 2);
        reply.num("MHS 1m", s.m1 / 1e6, 2);
        reply.num("MHS 5m", s.m5 / 1e6, 2);
        reply.num("MHS 15m", s.m15 / 1e6, 2);
        reply.num("HS RT", rt, 2);
        reply.int("Accepted", shares.accepted);
        reply.int("Rejected", shares.rejected);
        reply.num("Total MH", s.work / 1e6, 4);
        reply.num("Temperature", s.board, 2);
        reply.int("freq_avg", if rt > 0.0 { model.mhz } else { 0 });
        reply.int("Fan Speed In", s.fan_rpm);
        reply.int("Fan Speed Out", s.fan_rpm.saturating_sub(90));
        reply.int("Voltage", 1180);
        reply.int("Power", s.watts);
        reply.num("Power Rate", if rt > 0.0 { s.watts / (rt / 1e6) } else { 0.0 }, 2);
        reply.num("Pool Rejected%", shares.rejected_percent(), 4);
        reply.num("Pool Stale%", 0.0, 4);
        reply.int("Last getwork", 0);
        reply.int("Uptime", s.uptime);
        reply.bool("Hash Stable", scene.dev.plant.phase == Phase::Mining);
        reply.int("Hash Stable Cost Seconds", 627);
        reply.num("Hash Deviation%", 0.0023, 4);
        reply.int("Target Freq", model.mhz);
        reply.num("Target MHS", scene.dev.plant.plate_hash() / 1e6, 0);
        reply.num("Env Temp", s.ambient, 2);
        reply.str("Power Mode", power_mode(scene.dev.plant.settings.level));
        reply.num("Factory GHS", scene.dev.plant.plate_hash() / 1e9, 0);
        reply.int("Power Limit", limit(scene));
        reply.num("Chip Temp Min", s.chip - 12.0, 2);
        reply.num("Chip Temp Max", s.chip + 8.0, 2);
        reply.num("Chip Temp Avg", s.chip, 2);
        reply.str("Btminer Fast Boot", "disable");
        reply.int("Upfreq Complete", u8::from(scene.dev.plant.phase == Phase::Mining));
        reply.str("MAC", &scene.dev.mac().to_string());
    }
    reply.end_row();
    reply.end_rows();
    reply.end();
}

fn devs(scene: &Scene<'_>, reply: &mut Reply, extended: bool) {
    let model = scene.dev.model;
    let s = &scene.sensed;
    let off = scene.dev.plant.phase == Phase::Asleep;
    status(scene, reply, 'S', 9, &format!("{} ASC(s)", model.boards));
    reply.rows("DEVS");
    for board in 0..model.boards {
        let part = |rate: f64| scene.dev.plant.board_rate(rate, board, model.boards) / 1e6;
        reply.row_n("ASC", board.into());
        reply.str("Name", "SM");
        reply.int("Slot", board);
        reply.str("Enabled", "Y");
        reply.str("Status", if off { "Initialising" } else { "Alive" });
        reply.num("Temperature", s.board - f64::from(board), 2);
        reply.int("Chip Frequency", if s.rate > 0.0 { model.mhz } else { 0 });
        reply.num("MHS av", if off { 0.0 } else { part(s.average) }, 2);
        reply.num("MHS 5s", part(s.rate), 2);
        reply.num("MHS 1m", if off { 0.0 } else { part(s.m1) }, 2);
        reply.num("MHS 5m", if off { 0.0 } else { part(s.m5) }, 2);
        reply.num("MHS 15m", if off { 0.0 } else { part(s.m15) }, 2);
        reply.num("HS RT", part(s.rate), 2);
        reply.num("Factory GHS", scene.dev.plant.plate_hash() / 1e9 / f64::from(model.boards), 0);
        reply.int("Upfreq Complete", u8::from(scene.dev.plant.phase == Phase::Mining));
        reply.int("Effective Chips", if off { 0 } else { model.chips_per_board });
        reply.str("PCB SN", &scene.dev.serial(1 + u64::from(board), 20));
        if extended {
            reply.str("Chip Data", "H3LA02-22101901 T BINV02-196802D");
            reply.int("chip_vol_diff", 9);
        }
        reply.num("Chip Temp Min", s.chip - 12.0, 2);
        reply.num("Chip Temp Max", s.chip + 8.0 - f64::from(board), 2);
        reply.num("Chip Temp Avg", s.chip - f64::from(board), 2);
        reply.end_row();
    }
    reply.end_rows();
    reply.end();
}

fn pools(scene: &Scene<'_>, reply: &mut Reply) {
    let shares = Shares::of(scene);
    status(scene, reply, 'S', 7, "3 Pool(s)");
    reply.rows("POOLS");
    for n in 0..3 {
        let pool = scene.dev.pool(n);
        if pool.url.is_empty() {
            continue;
        }
        let mine = |v: u64| if n == 0 { v } else { 0 };
        // This firmware counts pools from one.
        reply.row_n("POOL", n + 1);
        reply.str("URL", &pool.url);
        reply.str("Status", "Alive");
        reply.int("Priority", n);
        reply.int("Quota", 1);
        reply.str("Long Poll", "N");
        reply.int("Getworks", mine(scene.sensed.elapsed / 12));
        reply.int("Accepted", mine(shares.accepted));
        reply.int("Rejected", mine(shares.rejected));
        reply.int("Works", mine(scene.sensed.elapsed * 80));
        reply.int("Discarded", 0);
        reply.int("Stale", mine(shares.stale));
        reply.int("Get Failures", 0);
        reply.int("Remote Failures", 0);
        reply.str("User", &pool.user);
        reply.int("Last Share Time", mine(3));
        reply.int("Diff1 Shares", 0);
        reply.str("Proxy Type", "");
        reply.str("Proxy", "");
        reply.num("Difficulty Accepted", mine(shares.accepted) as f64 * shares.difficulty, 8);
        reply.num("Difficulty Rejected", mine(shares.rejected) as f64 * shares.difficulty, 8);
        reply.num("Difficulty Stale", 0.0, 8);
        reply.bool("Stratum Active", n == 0);
        reply.str("Stratum URL", host(&pool.url));
        reply.num("Stratum Difficulty", shares.difficulty, 8);
        reply.num("Pool Rejected%", if n == 0 { shares.rejected_percent() } else { 0.0 }, 4);
        reply.num("Pool Stale%", 0.0, 4);
        reply.int("Bad Work", 0);
        reply.int("Current Block Height", 0);
        reply.int("Current Block Version", 536_870_912);
        reply.end_row();
    }
    reply.end_rows();
    reply.end();
}

fn devdetails(scene: &Scene<'_>, reply: &mut Reply) {
    status(scene, reply, 'S', 69, "Device Details");
    reply.rows("DEVDETAILS");
    for board in 0..scene.dev.model.boards {
        reply.row_n("DEVDETAILS", board.into());
        reply.str("Name", "SM");
        reply.int("ID", board);
        reply.str("Driver", "bitmicro");
        reply.str("Kernel", "");
        reply.str("Model", scene.dev.model.name);
        reply.end_row();
    }
    reply.end_rows();
    reply.end();
}

/// A reply of btminer's own: flat, its message JSON as given.
fn flat(scene: &Scene<'_>, out: &mut String, letter: char, code: u32, msg: &str) {
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        r#"{{"STATUS":"{letter}","When":{},"Code":{code},"Msg":{msg},"Description":""}}"#,
        scene.when()
    );
}

pub fn control(scene: &mut Scene<'_>, ask: Ask<'_>, reply: &mut Reply) -> Outcome {
    let model = scene.dev.model;
    let s = scene.sensed;
    let msg = match ask.command {
        "get_token" => return get_token(scene, &mut reply.buf),
        "get_version" | "version" => {
            format!(
                r#"{{"api_ver":"2.0.5","fw_ver":"{}","platform":"H616","chip":"K8EC374-2426 BINVE6-197806A"}}"#,
                model.build
            )
        }
        "status" => format!(
            r#"{{"mineroff":"{}","mineroff_reason":"","mineroff_time":"","FirmwareVersion":"{}","power_mode":"{}","power_limit_set":"{}","hash_percent":""}}"#,
            scene.dev.plant.settings.asleep,
            model.build,
            power_mode(scene.dev.plant.settings.level).to_lowercase(),
            scene.dev.plant.settings.limit.map_or(String::new(), |l| l.to_string()),
        ),
        "get_psu" => {
            let off = scene.dev.plant.phase == Phase::Asleep;
            // A PSU that is switched off keeps an old, large figure of input power.
            let pin = if off { 8_000.0 } else { s.watts };
            format!(
                r#"{{"name":"P222B","hw_version":"V01.00","sw_version":"230208.220429","model":"P222B","enable":"{}","iin":"{:.2}","vin":"23350","pin":"{pin:.0}","fan_speed":"{}","serial_no":"{}","vendor":"1","temp0":"{:.1}"}}"#,
                u8::from(!off),
                if off { 0.0 } else { s.watts / 233.5 * 1000.0 },
                if off { 0 } else { 6_300 },
                scene.dev.serial(8, 15),
                s.ambient + 9.0,
            )
        }
        "get_miner_info" => format!(
            r#"{{"ip":"{}","proto":"dhcp","netmask":"255.255.0.0","gateway":"","dns":"","hostname":"WhatsMiner","mac":"{}","ledstat":"{}","minersn":"{}","miner_type":"{}"}}"#,
            scene.dev.ip,
            scene.dev.mac(),
            if scene.dev.locating { "manual" } else { "auto" },
            scene.dev.serial(0, 20),
            model.name,
        ),
        "get_error_code" => r#"{"error_code":[]}"#.to_owned(),
        name if is_write(name) => {
            scene.refused();
            flat(scene, &mut reply.buf, 'E', 45, r#""permission denied""#);
            return Outcome::Done;
        }
        _ => {
            flat(scene, &mut reply.buf, 'E', 14, r#""invalid cmd""#);
            return Outcome::Done;
        }
    };
    flat(scene, &mut reply.buf, 'S', 131, &msg);
    Outcome::Done
}

fn is_write(command: &str) -> bool {
    matches!(
        command,
        "power_off"
            | "power_on"
            | "set_low_power"
            | "set_normal_power"
            | "set_high_power"
            | "adjust_power_limit"
            | "set_power_pct"
            | "restart_btminer"
            | "reboot"
            | "set_led"
            | "update_pools"
    )
}

fn get_token(scene: &mut Scene<'_>, out: &mut String) -> Outcome {
    let (now, draws) = (scene.now, scene.dev.draws);
    let busy = scene.dev.faults.active(FaultKind::Busy, scene.t).is_some();
    let life = scene.dev.faults.active(FaultKind::Expire, scene.t).map(|fault| fault.value.max(0.0));
    let life = life.map_or(TOKEN_LIFE, |seconds| DurationMs((seconds * 1e3) as u64));
    let Own::Whatsminer { tokens, issued } = &mut scene.dev.own else { return Outcome::Unknown };
    tokens.retain(|t| t.expires > now);
    if tokens.len() >= TOKENS || busy {
        flat(scene, out, 'E', 136, r#""over max token times""#);
        return Outcome::Done;
    }
    *issued += 1;
    let salt = word(draws.bits(Channel::Secret, 1));
    let new_salt = word(draws.bits(Channel::Secret, 2 + *issued));
    // Only the last four digits of the time are sent, and signed.
    let time = format!("{:04}", now.0.div_euclid(1000).rem_euclid(10_000));
    let key = md5crypt(PASSWORD, &salt);
    let sign = md5crypt(&format!("{key}{time}"), &new_salt);
    tokens.push_back(Token { sign, key, expires: now.plus(life) });
    let msg = format!(r#"{{"time":"{time}","salt":"{salt}","newsalt":"{new_salt}"}}"#);
    flat(scene, out, 'S', 134, &msg);
    Outcome::Done
}

/// Eight characters of md5crypt's alphabet.
fn word(mut bits: u64) -> String {
    const SYMBOLS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut out = String::with_capacity(8);
    for _ in 0..8 {
        out.push(char::from(SYMBOLS[(bits % 62) as usize]));
        bits /= 62;
    }
    out
}

/// An encrypted command: `{"enc":1,"data":"…"}`. The reply is encrypted under the same key. Gives the
/// command's name.
pub fn encrypted(scene: &mut Scene<'_>, data: &str, out: &mut String) -> String {
    let Own::Whatsminer { tokens, .. } = &scene.dev.own else { return "?".into() };
    let mut problem = (135, r#""check token error""#);
    let mut found = None;
    for token in tokens.iter().rev() {
        match decrypt(&token.key, data) {
            Err(Unreadable::Base64) => {
                problem = (137, r#""base64 decode error""#);
                break;
            }
            Err(Unreadable::Key) => {}
            Ok(text) => {
                if let Ok(Value::Object(command)) = serde_json::from_str::<Value>(&text) {
                    let signed = command.get("token").and_then(Value::as_str) == Some(&*token.sign);
                    if signed && token.expires > scene.now {
                        found = Some((token.key.clone(), command));
                        break;
                    }
                }
            }
        }
    }
    let Some((key, command)) = found else {
        scene.refused();
        flat(scene, out, 'E', problem.0, problem.1);
        return "enc".into();
    };
    let text = |name: &str| match command.get(name) {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Number(n)) => n.to_string(),
        _ => String::new(),
    };
    let name = text("cmd");
    let name = if name.is_empty() { text("command") } else { name };
    let (letter, code, msg) = match write(scene, &name, &text) {
        Some(_) => ('S', 131, r#""API command OK""#),
        None => {
            scene.refused();
            ('E', 132, r#""API command ERROR""#)
        }
    };
    let mut plain = String::new();
    flat(scene, &mut plain, letter, code, msg);
    // Writing into a String cannot fail.
    let _ = write!(out, r#"{{"enc":"{}"}}"#, encrypt(&key, &plain));
    scene.delay = scene.dev.plant.reply_delay();
    if name == "power_off" && scene.dev.draws.unit(Channel::Lost, scene.dev.writes) < SILENT_OFF {
        scene.silent = true;
    }
    name
}

fn write(scene: &mut Scene<'_>, name: &str, text: &dyn Fn(&str) -> String) -> Option<WriteResult> {
    let change = match name {
        "power_off" => Change::Sleep,
        "power_on" => Change::Wake,
        "set_low_power" => Change::Level(Level::LowPower),
        "set_normal_power" => Change::Level(Level::Normal),
        "set_high_power" => Change::Level(Level::HighPower),
        "adjust_power_limit" => {
            let watts: u32 = text("power_limit").parse().ok()?;
            let max = (scene.dev.plant.plate_watts() * 1.2) as u32;
            let watts = Some(watts).filter(|w| (500..=max).contains(w))?;
            // The model's own limit is no limit.
            Change::Limit(Some(watts).filter(|w| *w != own_limit(scene)))
        }
        "set_power_pct" => {
            let percent: u32 = text("percent").parse().ok().filter(|p| (0..=100).contains(p))?;
            let watts = (scene.dev.plant.plate_watts() * f64::from(percent) / 100.0) as u32;
            Change::Limit((percent < 100).then_some(watts))
        }
        "set_led" => {
            scene.dev.locating = text("param") != "auto";
            return Some(WriteResult::Taken);
        }
        "update_pools" => {
            let pool = |url: &str, user: &str, pass: &str| Pool {
                url: text(url),
                user: text(user),
                pass: text(pass),
            };
            scene.set_pools([
                pool("pool1", "worker1", "passwd1"),
                pool("pool2", "worker2", "passwd2"),
                pool("pool3", "worker3", "passwd3"),
            ]);
            return Some(WriteResult::Taken);
        }
        "restart_btminer" => Change::Restart,
        "reboot" => Change::Reboot,
        _ => return None,
    };
    Some(scene.write(change))
}
