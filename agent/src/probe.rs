//! `probe ADDR[:PORT]`: asks one device what it is, and shows what is understood of its answer, what had to
//! be repaired, and what can be done to it with which sign-in.
//!
//! It reads and never writes. Whatever the device does, it ends within the deadline, and within as much
//! again for its settings and its sign-in; a device that is none is one line on standard error and a
//! non-zero exit. `--save DIR` writes down what was answered, secrets masked; `--replay DIR` reads that
//! without a network.

use crate::cli::Failure;
use crate::inventory::Address;
use crate::poller::pace;
use clap::Args;
use hashinsight_firmware::{
    API_PORT, Access, Capture, Credentials, Decoded, Device, Ear, Identified, Limits, Profiles, Reading,
    Secret, check_access, identify, pre_state, read, replay,
};
use hashinsight_protocol::device::{PowerSourceV1, PreStateV1};
use hashinsight_protocol::readiness::AccessV1;
use hashinsight_protocol::units::{Celsius, DurationMs, Hashrate, JoulesPerTerahash, Watts};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Largest reply taken; the longest known is 67 kB.
const MAX_REPLY: usize = 1 << 20;
/// Longest password file.
const MAX_PASSWORD: u64 = 4096;

#[derive(Args, Debug)]
pub struct ProbeArgs {
    /// Address of the device; its CGMiner API is on port 4028 unless one is given.
    #[arg(value_name = "ADDR[:PORT]", required_unless_present = "replay", conflicts_with = "replay")]
    address: Option<Address>,
    /// Print one JSON object; what is unknown is null.
    #[arg(long)]
    json: bool,
    /// Port of the device's web server.
    #[arg(long, value_name = "N", default_value_t = 80)]
    web_port: u16,
    /// User to sign in with; the family's factory default otherwise.
    #[arg(long, requires = "password_file")]
    user: Option<String>,
    /// File that holds the password.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// The longest this may take, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(100..=60_000))]
    deadline_ms: u32,
    /// Folder of firmware profiles that override the built-in ones.
    #[arg(long, value_name = "DIR")]
    profiles: Option<PathBuf>,
    /// Write what the device answered into a new folder, passwords and tokens masked: for a bug report.
    #[arg(long, value_name = "DIR", conflicts_with = "replay")]
    save: Option<PathBuf>,
    /// Decode such a folder instead of asking a device.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["user", "password_file"])]
    replay: Option<PathBuf>,
}

/// No sign-in was used.
const NONE: &str = "none";

/// What was found out.
struct Found {
    identified: Identified,
    reading: Reading,
    /// Its settings, where it can be put to sleep; or why they could not be read.
    settings: Option<Result<PreStateV1, String>>,
    /// Whether it would take a write; `None` where nothing can be written, or nobody was asked.
    access: Option<Access>,
    /// Which sign-in was used.
    sign_in: &'static str,
    /// All that it answered.
    capture: Capture,
}

/// # Errors
/// No device, or none that can be understood; in one line.
pub async fn run(args: ProbeArgs) -> Result<(), Failure> {
    let profiles = match &args.profiles {
        Some(folder) => Profiles::with_folder(folder)?,
        None => Profiles::builtin(),
    };
    let Some(address) = args.address else {
        let folder = args.replay.as_deref().unwrap_or(Path::new("."));
        return show(&args, &folder.display().to_string(), &replayed(&profiles, folder)?);
    };
    let password = args.password_file.as_deref().map(password).transpose()?;
    let device = Device {
        api_port: address.api_port.unwrap_or(API_PORT),
        web_port: args.web_port,
        credentials: args.user.clone().zip(password).map(|(user, password)| Credentials { user, password }),
        ..Device::at(address.ip)
    };
    let deadline = Duration::from_millis(u64::from(args.deadline_ms));
    let found = probe(&profiles, &device, deadline).await?;
    let at = Address { ip: device.ip, api_port: Some(device.api_port) };
    show(&args, &at.to_string(), &found)?;
    match &args.save {
        Some(folder) => save(&profiles, folder, &found),
        None => Ok(()),
    }
}

fn show(args: &ProbeArgs, from: &str, found: &Found) -> Result<(), Failure> {
    let text = if args.json { format!("{:#}\n", to_json(found)) } else { to_text(from, found) };
    // A reader that has closed its end has seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Decodes a capture, by the same code as `corpus`.
fn replayed(profiles: &Profiles, folder: &Path) -> Result<Found, Failure> {
    let Decoded { identified, reading } = replay::replay(profiles, folder)?;
    Ok(Found {
        identified,
        reading,
        settings: None,
        access: None,
        sign_in: "none: nobody was asked",
        capture: Capture::default(),
    })
}

/// Writes a capture, and proves that it reads as the device did.
fn save(profiles: &Profiles, folder: &Path, found: &Found) -> Result<(), Failure> {
    let it = &found.identified;
    let about = json!({
        "firmware": it.firmware,
        "fw_version": it.version,
        "model": it.model,
        "notes": format!("saved by hashinsight-agent {}; secrets are masked with ***", env!("CARGO_PKG_VERSION")),
    });
    let secrets = found.capture.save(folder, &about)?;
    let (replies, shown) = (found.capture.len(), folder.display());
    eprintln!(
        "{replies} replies are saved in {shown}; {secrets} secrets were masked. Look them over before you pass them on."
    );
    let again = replay::replay(profiles, folder)?;
    let differs = differences(&found.reading, &again.reading);
    if again.identified.firmware != it.firmware || !differs.is_empty() {
        eprintln!("The capture reads in another way than the device did: {}", differs.join(", "));
    }
    Ok(())
}

/// The members in which another reading differs from what one says, warnings apart: a capture holds more
/// than a reading asked, so it may say more.
fn differences(one: &Reading, other: &Reading) -> Vec<String> {
    let (one, other) = (one.to_json(), other.to_json());
    let all = one.as_object().into_iter().flatten();
    all.filter(|(key, value)| {
        let counts = !value.is_null() && !matches!(key.as_str(), "warnings" | "repairs");
        counts && other.get(*key) != Some(value)
    })
    .map(|(key, _)| key.clone())
    .collect()
}

async fn probe(profiles: &Profiles, device: &Device, deadline: Duration) -> Result<Found, Failure> {
    let ends = Instant::now() + deadline;
    let left = || Limits {
        deadline: pace::whole_ms(ends.saturating_duration_since(Instant::now())),
        max_reply: MAX_REPLY,
    };
    let address = Address { ip: device.ip, api_port: Some(device.api_port) };
    let late = |_| Failure::new(format!("{address} did not finish within {} s", deadline.as_secs_f32()));
    let (beside, ear) = (Ear::default(), Ear::default());
    let limits = left();
    let identifying = beside.during(identify(profiles, device, &limits));
    let identified = timeout_at(ends, identifying).await.map_err(late)??;
    let limits = left();
    let reading = ear.during(read(profiles, device, &identified, &limits));
    let reading = timeout_at(ends, reading).await.map_err(late)??;
    let can = identified.capabilities;
    let (mut settings, mut access) = (None, None);
    // The device has been understood; what follows has a time of its own.
    let limits = Limits { deadline, max_reply: MAX_REPLY };
    if can.sleep {
        let reading = beside.during(pre_state(profiles, device, &identified, &limits));
        settings = Some(match timeout(deadline, reading).await {
            Ok(settings) => settings.map_err(|error| error.to_string()),
            Err(_) => Err("the device has not answered in time".to_owned()),
        });
    }
    if can.sleep || can.power_limit || can.reboot || can.locate || can.set_pools {
        let checking = check_access(profiles, device, &identified, &limits);
        access = Some(timeout(deadline, checking).await.unwrap_or_default());
    }
    let sign_in = match (&device.credentials, profiles.get(&identified.firmware)) {
        (Some(_), _) => "the one that was given",
        (None, Some(profile)) if profile.user.is_some() => "the factory default",
        (None, _) => NONE,
    };
    let capture = Capture::new(ear.take(), beside.take());
    Ok(Found { identified, reading, settings, access, sign_in, capture })
}

fn password(path: &Path) -> Result<Secret, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    File::open(path).map_err(failed)?.take(MAX_PASSWORD).read_to_string(&mut text).map_err(failed)?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

fn to_json(found: &Found) -> Value {
    let Found { identified, reading, settings, access, sign_in, .. } = found;
    let mut value = reading.to_json();
    if let Value::Object(fields) = &mut value {
        let (state, error) = match settings {
            None => (None, None),
            Some(Ok(state)) => (Some(state), None),
            Some(Err(error)) => (None, Some(error)),
        };
        // The hash of the configuration means nothing to a reader.
        let state = state.map(|state| {
            json!({
                "mode": state.mode,
                "vendor_mode": state.vendor_mode,
                "limit_w": state.limit.map(Watts::get),
                "profile": state.profile,
            })
        });
        let more = [
            ("version", json!(identified.version)),
            ("serial", json!(identified.serial)),
            ("mac", json!(identified.mac)),
            ("standby_w", json!(identified.standby.map(Watts::get))),
            ("capabilities", json!(identified.capabilities)),
            ("settings", json!(state)),
            ("settings_error", json!(error)),
            ("sign_in", json!(sign_in)),
            ("access", json!(access.as_ref().map(|access| access.state))),
            ("access_detail", json!(access.as_ref().and_then(|access| access.detail.as_deref()))),
        ];
        for (key, value) in more {
            fields.insert(key.to_owned(), value);
        }
        // A device may say its model only when it is asked who it is.
        if reading.model.is_none() {
            fields.insert("model".to_owned(), json!(identified.model));
        }
    }
    value
}

fn to_text(from: &str, found: &Found) -> String {
    let Found { identified, reading, settings, access, sign_in, .. } = found;
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        if !text.is_empty() {
            // Writing to a string can't fail.
            let _ = writeln!(out, "{name:<12}{text}");
        }
    };
    let model = identified.model.as_deref().or(reading.model.as_deref()).unwrap_or("an unknown model");
    line("device", format!("{} at {}", plain(model), plain(from)));
    line("firmware", join([Some(identified.firmware.clone()), identified.version.clone()], ", "));
    let serial = identified.serial.as_ref().map(|serial| format!("serial {serial}"));
    let mac = identified.mac.as_ref().map(|mac| format!("MAC {mac}"));
    let identity = join([serial, mac], ", ");
    line(
        "identity",
        if identity.is_empty() { "says neither serial number nor MAC".to_owned() } else { identity },
    );
    let mining = match reading.is_mining {
        Some(true) => "mining",
        Some(false) => "not mining",
        None => "doesn't say whether it mines",
    };
    let mode = reading.mode.map(word);
    let uptime = reading.uptime.map(|uptime| format!("up {}", hours(uptime)));
    line("state", join([Some(mining.to_owned()), mode.map(|m| format!("mode {m}")), uptime], ", "));
    line("hashrate", reading.hashrate.map_or("unknown".to_owned(), |rate| rate.to_string()));
    line("power", power(reading));
    let coldest = reading.temps.iter().copied().min_by(Celsius::total_cmp);
    let hottest = reading.temps.iter().copied().max_by(Celsius::total_cmp);
    if let (Some(coldest), Some(hottest)) = (coldest, hottest) {
        line("temperature", format!("{coldest} to {hottest}, {} sensors", reading.temps.len()));
    }
    if !reading.fans_rpm.is_empty() {
        let fans: Vec<String> = reading.fans_rpm.iter().map(u32::to_string).collect();
        line("fans", format!("{} rpm", fans.join(", ")));
    }
    for board in &reading.boards {
        let temps: Vec<String> = board.temps.iter().map(Celsius::to_string).collect();
        let rate = board.hashrate.map(|rate| rate.to_string());
        let text = join([rate, (!temps.is_empty()).then(|| temps.join(", "))], ", ");
        line("board", format!("{}: {}", board.index, if text.is_empty() { "says nothing" } else { &text }));
    }
    for pool in &reading.pools {
        let alive = pool.alive.map(|alive| if alive { "alive" } else { "dead" }.to_owned());
        let shares = pool.accepted.map(|n| format!("{n} accepted, {} rejected", pool.rejected.unwrap_or(0)));
        let worker = pool.worker.as_deref().map(plain);
        line("pool", join([Some(plain(&pool.url)), worker, alive, shares], ", "));
    }
    for fault in &reading.errors {
        line("fault", join([Some(plain(&fault.code)), fault.text.as_deref().map(plain)], ": "));
    }
    for warning in &reading.warnings {
        line("warning", plain(warning));
    }
    for repair in &reading.repairs {
        line("repaired", plain(repair));
    }
    line("control", control(identified));
    if let Some(access) = access {
        line(
            "sign-in",
            join([Some(access_text(access.state, sign_in)), access.detail.as_deref().map(plain)], ": "),
        );
    }
    match settings {
        Some(Ok(state)) => {
            let limit = state.limit.map(|limit| format!("limit {limit}"));
            let profile = state.profile.as_ref().map(|profile| format!("profile {}", plain(profile)));
            line("settings", join([Some(format!("mode {}", word(state.mode))), limit, profile], ", "));
        }
        Some(Err(error)) => line("settings", format!("cannot be read: {}", plain(error))),
        None => {}
    }
    out
}

fn power(reading: &Reading) -> String {
    let Some(power) = reading.power else { return "unknown".to_owned() };
    let source = match reading.power_source {
        Some(PowerSourceV1::Model) => "by its model's efficiency",
        _ => "by the device",
    };
    let rate = reading.hashrate.filter(|rate| *rate > Hashrate::ZERO);
    let efficiency = rate.and_then(|rate| JoulesPerTerahash::of(power, rate)).map(|e| e.to_string());
    join([Some(format!("{power} {source}")), efficiency], ", ")
}

fn access_text(state: AccessV1, sign_in: &str) -> String {
    match state {
        AccessV1::Unknown => format!("{sign_in}; whether it works could not be found out"),
        AccessV1::NotNeeded => "none is asked for".to_owned(),
        AccessV1::Proven if sign_in == NONE => "none is asked for; this computer may write".to_owned(),
        AccessV1::Proven => format!("{sign_in}; the device takes it"),
        AccessV1::ByWriteOnly => format!("{sign_in}; only a write can prove it"),
        AccessV1::Refused => format!("{sign_in}; the device REFUSES it"),
        AccessV1::WritesOff => format!("{sign_in}; the device takes NO WRITES from here"),
    }
}

fn control(identified: &Identified) -> String {
    let can = identified.capabilities;
    let all = [
        (can.sleep, "sleep and wake"),
        (can.power_limit, "power limit"),
        (can.reboot, "reboot"),
        (can.locate, "locate"),
        (can.set_pools, "pools"),
    ];
    let known: Vec<&str> = all.into_iter().filter(|(can, _)| *can).map(|(_, name)| name).collect();
    if known.is_empty() { "read only".to_owned() } else { known.join(", ") }
}

fn join<const N: usize>(parts: [Option<String>; N], between: &str) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(between)
}

/// A device's text without what would disturb a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An enum's name as JSON has it.
fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word.replace('_', " "),
        _ => String::new(),
    }
}

fn hours(uptime: DurationMs) -> String {
    let minutes = uptime.0 / 60_000;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, m) => format!("{m} min"),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    fn device(port: u16) -> Device {
        Device { api_port: port, web_port: 1, ..Device::at([127, 0, 0, 1].into()) }
    }

    async fn error(port: u16, deadline_ms: u64) -> (String, Duration) {
        let began = Instant::now();
        let found = probe(&Profiles::builtin(), &device(port), Duration::from_millis(deadline_ms)).await;
        let Err(failure) = found else { panic!("no device, and yet found") };
        (format!("{failure:?}"), began.elapsed())
    }

    /// A peer that answers every connection with these bytes; `None` says nothing and holds on.
    async fn peer(answer: Option<&'static [u8]>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if let Some(answer) = answer {
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                }
                held.push(stream);
            }
        });
        port
    }

    #[tokio::test]
    async fn what_is_no_miner_is_one_line_within_the_deadline() {
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            listener.local_addr().expect("bound").port()
        };
        for (port, what) in [
            (closed, "closed"),
            (peer(None).await, "silent"),
            (peer(Some(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")).await, "HTTP"),
            (peer(Some(b"\x00\xff\xfe\x01garbage\x7f\x80")).await, "garbage"),
            (peer(Some(b"")).await, "nothing"),
        ] {
            let (error, took) = error(port, 700).await;
            assert!(took < Duration::from_millis(1000), "{what}: {took:?} {error}");
            assert!(!error.contains("\\n"), "{what}: {error}");
        }
    }

    #[test]
    fn times_are_written_for_people() {
        let text = |minutes| hours(DurationMs::from_minutes(minutes));
        assert_eq!([text(5), text(61), text(1440 * 3 + 60)], ["5 min", "1 h 1 min", "3 d 1 h"]);
    }
}
