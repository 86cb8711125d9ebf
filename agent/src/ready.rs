//! `ready`: proves before an event that every miner could be stopped and woken now, without a write.
//!
//! A running agent does the asking, with the one connection that each miner has; without one this
//! program does it by itself.

use crate::cli::{ConfigArg, Failure};
use crate::clock::Clock;
use crate::config::Config;
use crate::live::Live;
use crate::poller::burst::Burst;
use crate::poller::contact::Contacts;
use crate::poller::credentials_or_builtin;
use crate::poller::devices::Devices;
use crate::readiness::{self, Line, Report, Terms};
use crate::status::length;
use crate::store::Journal;
use crate::supervisor;
use clap::Args;
use hashinsight_firmware::Profiles;
use hashinsight_protocol::readiness::{AccessV1, BlockerV1};
use hashinsight_protocol::units::{Millis, Watts};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Exit code when a miner is not ready, so that a script can tell.
const NOT_READY: u8 = 2;
/// Over how long the miners are asked when no agent runs.
const SPREAD: Duration = Duration::from_secs(5);
/// Lines of the list, unless all are asked for.
const SHOWN: usize = 40;

#[derive(Args, Debug)]
pub struct ReadyArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Show the ready miners too, and all of the others.
    #[arg(long)]
    all: bool,
    /// How long a running agent may take, in seconds.
    #[arg(long, value_name = "S", default_value_t = 180, value_parser = clap::value_parser!(u32).range(1..=3600))]
    wait_s: u32,
}

/// # Errors
/// The gateway is not enrolled, the agent does not answer, or a miner is not ready (exit code 2).
pub async fn run(args: ReadyArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    let journal = Journal::open_tool(&config.data_dir)?;
    let report = if supervisor::is_running(&config.data_dir) {
        of_the_agent(&config, Duration::from_secs(u64::from(args.wait_s))).await?
    } else {
        by_itself(&config, &journal).await?
    };
    let text = if args.json { format!("{:#}\n", to_json(&report)) } else { to_text(&report, args.all) };
    // A reader that has closed its end has seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let not_ready = report.miners.iter().filter(|line| !line.ready.is_ready()).count();
    match not_ready {
        0 => Ok(()),
        n => {
            let all = report.miners.len();
            Err(Failure::new(format!("{n} of {all} miners are not ready")).with_code(NOT_READY))
        }
    }
}

async fn of_the_agent(config: &Config, patience: Duration) -> Result<Report, Failure> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::new("the system gives no random numbers"))?;
    let number = u64::from_le_bytes(bytes);
    readiness::ask(&config.data_dir, number).map_err(|error| {
        Failure::new(format!("cannot ask the agent in {}: {error}", config.data_dir.display()))
    })?;
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if let Some(report) = readiness::read_answer(&config.data_dir)?.filter(|r| r.asked == number) {
            return Ok(report);
        }
        sleep(Duration::from_millis(200)).await;
    }
    let seconds = patience.as_secs();
    Err(Failure::new(format!(
        "the running agent has not answered within {seconds} s; see: hashinsight-agent status"
    )))
}

async fn by_itself(config: &Config, journal: &Journal) -> Result<Report, Failure> {
    let profiles = match &config.profiles {
        Some(folder) => Profiles::with_folder(folder)?,
        None => Profiles::builtin(),
    };
    let clock = Clock::system()?;
    let credentials = credentials_or_builtin(&config.data_dir);
    let contacts = Arc::new(
        Contacts::new(clock.clone(), profiles, credentials, config.api_port, config.web_port)
            .on_v3_port(config.v3_port),
    );
    let live = Live::default();
    live.set_inventory(journal.miners().await?);
    let concurrency = usize::try_from(config.concurrency).unwrap_or(usize::MAX).max(1);
    let devices = Devices::start()?;
    // The first visit recognises, the second one looks at the access.
    for _ in 0..2 {
        let stop = CancellationToken::new();
        let burst =
            Burst::new(contacts.clone(), live.roster(), config.deadline(), clock.now(), stop, &devices);
        burst.all(SPREAD, concurrency).await;
        live.recheck_access();
    }
    let terms = Terms {
        take_weak_identity: config.policy.take_weak_identity.unwrap_or(false),
        journal_is_writable: journal.is_writable(),
    };
    Ok(Report::of(&live, &contacts.profiles, terms, 0, clock.now().wall))
}

fn to_json(report: &Report) -> serde_json::Value {
    let ready = report.miners.iter().filter(|line| line.ready.is_ready()).count();
    json!({
        "at": report.at,
        "miners": report.miners.len(),
        "ready": ready,
        "ready_kw": report.ready_watts() / 1000.0,
        "list": report.miners,
    })
}

fn to_text(report: &Report, all: bool) -> String {
    let mut out = String::new();
    let ready = report.miners.iter().filter(|line| line.ready.is_ready()).count();
    let kw = report.ready_watts() / 1000.0;
    // Writing to a string can't fail.
    let _ = writeln!(out, "ready      {ready} of {} miners, {kw:.1} kW", report.miners.len());
    let mut reasons: BTreeMap<BlockerV1, usize> = BTreeMap::new();
    let mut unproven = 0;
    for line in &report.miners {
        line.ready.blockers.iter().for_each(|blocker| *reasons.entry(*blocker).or_default() += 1);
        unproven += usize::from(line.ready.is_ready() && line.ready.proven.is_none());
    }
    for (blocker, count) in &reasons {
        let _ = writeln!(out, "obstacle   {count:>5}  {}", blocker.words());
    }
    if unproven > 0 {
        let _ = writeln!(
            out,
            "note       {unproven} of the ready miners have never been stopped or woken from here"
        );
    }
    let most = if all { usize::MAX } else { SHOWN };
    let shown: Vec<&Line> = report.miners.iter().filter(|line| all || !line.ready.is_ready()).collect();
    for line in shown.iter().take(most) {
        let _ = writeln!(out, "{}", line_text(line, report.at));
    }
    if shown.len() > most {
        let _ = writeln!(out, "and {} more; --all shows them", shown.len() - most);
    }
    out
}

fn line_text(line: &Line, at: Millis) -> String {
    let place = [line.rack.as_deref(), line.position.as_deref()];
    let place = place.into_iter().flatten().collect::<Vec<_>>().join("/");
    let firmware = line.firmware.as_deref().unwrap_or("not recognised");
    let model = line.model.as_deref().unwrap_or("unknown model");
    let levels = match (line.sleep, line.power_limit) {
        (true, true) => "sleep, power limit",
        (true, false) => "sleep",
        (false, true) => "power limit only",
        (false, false) => "read only",
    };
    let access = match line.ready.access {
        AccessV1::Unknown => "access not checked",
        AccessV1::NotNeeded => "no sign-in needed",
        AccessV1::Proven => "sign-in proven",
        AccessV1::ByWriteOnly => "sign-in shows with a write",
        AccessV1::Refused => "sign-in refused",
        AccessV1::WritesOff => "writes off",
    };
    let identity = if line.strong_identity { "strong identity" } else { "weak identity" };
    let proven = match &line.ready.proven {
        None => "no proven write".to_owned(),
        Some(proven) => {
            let what = if proven.wake { "woken" } else { "stopped" };
            let shape = proven.shape.as_deref().map_or(String::new(), |shape| format!(" by {shape}"));
            format!("last {what}{shape} {} ago", length(at.since(proven.at)))
        }
    };
    let saves =
        line.saves_w.and_then(Watts::new).map_or("unknown power".to_owned(), |w| format!("saves {w}"));
    let verdict = if line.ready.is_ready() {
        "ready".to_owned()
    } else {
        let words: Vec<&str> = line.ready.blockers.iter().map(|blocker| blocker.words()).collect();
        format!("NOT READY: {}", words.join("; "))
    };
    let detail = line.detail.as_deref().map_or(String::new(), |detail| format!(" ({detail})"));
    let text = format!(
        "{:<16} {place:<8} {firmware}, {model}: {verdict}{detail}; {levels}, {access}, {identity}, {proven}, {saves}",
        line.address
    );
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
