//! What polling costs the agent.
//!
//! Three processes: the devices ([`peer`]), the agent's poller ([`field`]), and a loop that does the same
//! exchanges and nothing else ([`bare`]). Poller and loop take turns at the same devices, and the ratio
//! of each pair is taken before the middle one is chosen. The loop has to reach
//! [`BARE_LEAST`] connections per CPU-second, or it is no measure and the ratio is void.
//!
//! Beside the ratio: a burst over miners that take 50 to 200 ms, and a cycle with a share of miners that
//! take the connection and say nothing, which may last no longer than their deadline and what the rest
//! needs.

mod bare;
mod field;
mod peer;
mod replies;

use crate::Result;
use crate::child::Part as Child;
use crate::figure::{Bound, Figure, Report, median};
use crate::measure::{Cost, Stopwatch};
use clap::Subcommand;
use hashinsight_firmware::decode::read_known;
use hashinsight_firmware::{Profiles, Request};
use peer::{Doors, Tally};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Connections per CPU-second below which the bare loop is no measure.
const BARE_LEAST: f64 = 12_000.0;
/// The share of the bare loop that must be reached, and should be.
const SHARE_LEAST: f64 = 55.0;
const SHARE_AIM: f64 = 65.0;
/// How long a burst of [`LATE_MINERS`] that take 50 to 200 ms may last, in seconds.
const LATE_MOST_S: f64 = 0.35;
const LATE_MINERS: usize = 1000;
/// Sizes of a site, and how many pairs are measured of each.
const SITES: [(usize, usize); 2] = [(1000, 25), (10_000, 7)];
/// A site's cycle of 10 s, as while somebody watches it: its window and its deadline.
const WINDOW_MS: u64 = 1667;
const DEADLINE_MS: u64 = 5000;
/// Every so manieth miner hangs.
const HANGING: usize = 20;
/// What a busy machine may add to the end of a cycle, in seconds.
const SLACK_S: f64 = 0.1;

/// What to measure and how to print it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object a figure
    #[arg(long)]
    json: bool,
    /// Only the ratio, in fewer pairs: for work on the code
    #[arg(long)]
    quick: bool,
}

/// The processes of a measurement.
#[derive(Debug, Subcommand)]
pub enum Part {
    Peer,
    Bare(bare::BareArgs),
    Field(field::FieldArgs),
}

impl Part {
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Peer => peer::run(),
            Self::Bare(args) => bare::run(args),
            Self::Field(args) => field::run(args),
        }
    }
}

/// The address of the nth device.
fn device(nth: usize) -> IpAddr {
    let [.., high, low] = (nth as u32 + 1).to_be_bytes();
    Ipv4Addr::new(127, 20, high, low).into()
}

/// Measures, prints, and says whether all figures keep their bounds.
pub fn run(args: &Args) -> Result<bool> {
    let mut report = Report::new(args.json);
    decode(&mut report)?;
    let (mut peer, doors) = Child::start::<Doors>("peer", &[])?;
    for (miners, pairs) in SITES {
        let pairs = if args.quick { pairs.div_ceil(3) } else { pairs };
        compare(miners, pairs, &mut peer, doors, &mut report)?;
    }
    if !args.quick {
        late(doors, &mut report)?;
        hanging(doors, &mut report)?;
    }
    Ok(report.is_ok())
}

/// What a reply costs the decoder alone, over and over: the part of the agent's work that is its own.
fn decode(report: &mut Report) -> Result<()> {
    let profiles = Profiles::builtin();
    let command = "stats+pools+summary";
    let asked = format!("{{\"command\":\"{command}\"}}");
    let replies: Vec<Vec<u8>> =
        (0..replies::VARIANTS).map(|variant| replies::reply(asked.as_bytes(), variant)).collect();
    let mut costs = Vec::new();
    for _ in 0..20 {
        let watch = Stopwatch::start();
        for reply in &replies {
            let bytes = reply.strip_suffix(b"\0").unwrap_or(reply);
            let reading = read_known(&profiles, "antminer-stock", &[(Request::cgminer(command), bytes)]);
            if reading.and_then(|reading| reading.hashrate).is_none() {
                return Err("a reply of the measurement is not read".into());
            }
        }
        costs.push(watch.stop().cpu_s * 1e6 / replies.len() as f64);
    }
    report.add(
        &Figure::new("poll.decode", 1, median(costs), "us").note("one reply to a reading, nothing else"),
    );
    Ok(())
}

/// The agent's poller, with every device recognised.
fn agent(data: &Path, port: u16, miners: usize, more: &[&str]) -> Result<Child> {
    let mut args = vec!["--data".to_owned(), data.display().to_string()];
    args.extend([format!("--port={port}"), format!("--miners={miners}")]);
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    let (mut agent, _) = Child::start::<bool>("field", &args)?;
    // The first cycle recognises, the second has its memory warm.
    for _ in 0..2 {
        burst(&mut agent, 0, miners)?;
    }
    Ok(agent)
}

fn burst(agent: &mut Child, window_ms: u64, expected: usize) -> Result<field::Done> {
    let done: field::Done = agent.ask(&field::Order::Burst { window_ms, deadline_ms: DEADLINE_MS })?;
    if done.answered != expected {
        return Err(format!("the agent has read {} of {expected} miners", done.answered).into());
    }
    Ok(done)
}

/// The ratio, for a number of miners.
fn compare(miners: usize, pairs: usize, peer: &mut Child, doors: Doors, report: &mut Report) -> Result<()> {
    let data = tempfile::tempdir()?;
    let mut agent = agent(data.path(), doors.prompt, miners, &[])?;
    let _: Tally = peer.ask(&peer::Order::Tally)?;
    burst(&mut agent, 0, miners)?;
    let asked: Tally = peer.ask(&peer::Order::Tally)?;
    let one = asked.requests.iter().next().filter(|(_, n)| asked.requests.len() == 1 && **n == miners as u64);
    let Some((request, _)) = one else {
        return Err(format!("not one exchange a miner, so nothing to compare: {:?}", asked.requests).into());
    };
    let bare_args =
        [format!("--port={}", doors.prompt), format!("--miners={miners}"), format!("--request={request}")];
    let (mut bare, _) = Child::start::<bool>("bare", &bare_args)?;
    let mut rates: [Vec<f64>; 5] = Default::default();
    let mut memory = Vec::new();
    let per_s = |cost: Cost| miners as f64 / cost.wall_s;
    let per_cpu_s = |cost: Cost| miners as f64 / cost.cpu_s;
    for _ in 0..pairs {
        let floor: bare::Done = bare.ask(&bare::Order::Cycle)?;
        if floor.answered != miners {
            return Err(format!("the bare loop has read {} of {miners} miners", floor.answered).into());
        }
        let done = burst(&mut agent, 0, miners)?;
        let share = 100.0 * per_cpu_s(done.cost) / per_cpu_s(floor.cost);
        let values =
            [per_cpu_s(floor.cost), per_s(floor.cost), per_cpu_s(done.cost), per_s(done.cost), share];
        for (list, value) in rates.iter_mut().zip(values) {
            list.push(value);
        }
        memory.push(done.memory.now_mib);
    }
    let [bare_cpu, bare_wall, agent_cpu, agent_wall, share] = rates.map(median);
    let bytes = asked.bytes as f64 / miners as f64;
    let figure = |name, value, unit| Figure::new(name, miners, value, unit);
    let void = if bare_cpu < BARE_LEAST { "VOID: the bare loop is too slow to compare with; " } else { "" };
    for figure in [
        figure("poll.reply", bytes, "bytes")
            .note("summary, statistics and pools in one exchange; 3 in 10 broken"),
        figure("poll.bare.per_cpu_s", bare_cpu, "connections/cpu-s").bound(Bound::AtLeast(BARE_LEAST)),
        figure("poll.bare.per_s", bare_wall, "connections/s").note("one thread"),
        figure("poll.agent.per_cpu_s", agent_cpu, "miners/cpu-s"),
        figure("poll.agent.per_s", agent_wall, "miners/s").note("with the devices beside it"),
        figure("poll.agent.share", share, "%")
            .bound(Bound::AtLeast(SHARE_LEAST))
            .aim(Bound::AtLeast(SHARE_AIM))
            .note(format!("{void}of the bare loop per CPU-second, middle of {pairs} pairs")),
        figure("poll.agent.memory", median(memory), "MiB")
            .note("resident, after a cycle; without the uplink"),
    ] {
        report.add(&figure);
    }
    Ok(())
}

/// A burst over miners that take their time.
fn late(doors: Doors, report: &mut Report) -> Result<()> {
    let data = tempfile::tempdir()?;
    let mut agent = agent(data.path(), doors.late, LATE_MINERS, &["--concurrency=1000"])?;
    let bursts = (0..7).map(|_| burst(&mut agent, 0, LATE_MINERS)).collect::<Result<Vec<_>>>()?;
    let took = median(bursts.iter().map(|done| done.cost.wall_s).collect());
    let peak = median(bursts.iter().map(|done| done.memory.peak_mib).collect());
    let figure = |name, value, unit| Figure::new(name, LATE_MINERS, value, unit);
    report.add(
        &figure("poll.late.burst", took, "s")
            .bound(Bound::AtMost(LATE_MOST_S))
            .note("devices take 50 to 200 ms; middle of 7"),
    );
    report.add(&figure("poll.late.peak_memory", peak, "MiB").note("with all of them in flight"));
    Ok(())
}

/// A cycle with miners that hang.
fn hanging(doors: Doors, report: &mut Report) -> Result<()> {
    let miners = 10_000;
    let data = tempfile::tempdir()?;
    let mut agent = agent(data.path(), doors.prompt, miners, &[])?;
    let rest =
        (0..3).map(|_| Ok(burst(&mut agent, WINDOW_MS, miners)?.cost.wall_s)).collect::<Result<Vec<_>>>()?;
    let rest = median(rest);
    let _: field::Done = agent.ask(&field::Order::Move { every: HANGING, port: doors.silent })?;
    let well = miners - miners.div_ceil(HANGING);
    let first = burst(&mut agent, WINDOW_MS, well)?;
    let next = burst(&mut agent, WINDOW_MS, well)?;
    let deadline = DEADLINE_MS as f64 / 1000.0;
    let most = Bound::AtMost(deadline + rest + SLACK_S);
    let figure = |name, value, unit| Figure::new(name, miners, value, unit);
    report.add(
        &figure("poll.hanging.rest", rest, "s")
            .note("a cycle in which all answer, paced over a sixth of 10 s"),
    );
    report.add(
        &figure("poll.hanging.cycle", first.cost.wall_s, "s")
            .bound(most)
            .note(format!("the first in which 1 in {HANGING} hangs; their deadline is {deadline} s")),
    );
    report.add(&figure("poll.hanging.next_cycle", next.cost.wall_s, "s").bound(most));
    report.add(&figure("poll.hanging.peak_memory", first.memory.peak_mib, "MiB"));
    Ok(())
}
