//! `status`: what runs, which plans are held, and where each target stands.
//!
//! Read from the journal and from the poller's summary file, so it works beside a running agent and
//! without one.

use crate::cli::{ConfigArg, Failure};
use crate::clock::Clock;
use crate::inventory::address_of;
use crate::poller::Summary;
use crate::store::{InventoryMiner, Journal};
use clap::Args;
use hashinsight_curtailment::{Book, HeldPlan};
use hashinsight_protocol::clock::{ClockStateV1, MomentV1};
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::units::{DurationMs, Hashrate, Millis, Watts};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;

/// Intervals and targets shown of one plan, unless all are asked for.
const SHOWN: usize = 20;

#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Show every target and every miner that does not answer.
    #[arg(long)]
    all: bool,
}

/// # Errors
/// The gateway is not enrolled, or its journal can't be read.
pub async fn run(args: StatusArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    let journal = Journal::open_tool(&config.data_dir)?;
    let summary = Summary::read(&config.data_dir)?;
    let now = Clock::system()?.now();
    let view = View {
        now,
        summary,
        cycle: DurationMs::from_secs(u64::from(config.cycle_s)),
        miners: journal.miners().await?,
        plans: journal.plans().borrow().to_vec(),
        book: journal.book().await?,
        most: if args.all { usize::MAX } else { SHOWN },
    };
    // A reader that has closed its end has seen enough.
    let _ = std::io::stdout().write_all(view.text().as_bytes());
    Ok(())
}

struct View {
    now: MomentV1,
    summary: Option<Summary>,
    cycle: DurationMs,
    miners: Vec<InventoryMiner>,
    plans: Vec<HeldPlan>,
    book: Book,
    /// Lines of a list.
    most: usize,
}

impl View {
    fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string can't fail.
        let _ = self.agent(&mut out);
        let _ = self.plans(&mut out);
        let _ = self.dispatches(&mut out);
        let _ = self.sick(&mut out);
        out
    }

    fn agent(&self, out: &mut String) -> std::fmt::Result {
        match &self.summary {
            None => writeln!(out, "agent      has not polled yet")?,
            Some(s) => {
                let age = age(self.now, s.started);
                let running = s.started.boot_id == self.now.boot_id
                    && age.is_some_and(|age| age <= DurationMs(self.cycle.0 * 2 + s.took.0));
                let word = if running { "runs" } else { "does not poll" };
                let age =
                    age.map_or("before the last reboot".to_owned(), |age| format!("{} ago", length(age)));
                writeln!(out, "agent      {word}, version {}, pid {}; last burst {age}", s.version, s.pid)?;
                writeln!(
                    out,
                    "burst      cycle {}, every {:.0} s, took {}",
                    s.cycle,
                    s.cycle_s,
                    length(s.took)
                )?;
                let rate = Hashrate::new(s.hashrate_hs).unwrap_or_default();
                let power = Watts::new(s.power_w).unwrap_or_default();
                writeln!(
                    out,
                    "miners     {} in the inventory, {} answered, {} mining, {rate}, {power}",
                    self.miners.len(),
                    s.answered,
                    s.mining
                )?;
                let polls: Vec<String> =
                    s.polls.iter().map(|(poll, n)| format!("{n} {}", word_of(poll))).collect();
                writeln!(out, "polls      {}", polls.join(", "))?;
            }
        }
        // The running agent may know more of the time than this program does.
        let running = self.summary.as_ref().map(|s| s.started).filter(|s| s.boot_id == self.now.boot_id);
        let clock = match running.map_or(self.now.state, |started| started.state) {
            ClockStateV1::Synced => "kept by time synchronisation",
            ClockStateV1::Measured => "measured against the control plane",
            ClockStateV1::Uncertain => {
                "uncertain: neither kept by time synchronisation nor measured against the control plane"
            }
        };
        writeln!(out, "clock      {clock}")?;
        Ok(())
    }

    fn plans(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "plans      {} held", self.plans.len())?;
        for held in &self.plans {
            let plan = &held.plan;
            let state = match (&held.stop, held.cancelled) {
                (Some(stop), _) => format!("stopped by {}", plain(&stop.by)),
                (None, true) => "cancelled".to_owned(),
                (None, false) => "held".to_owned(),
            };
            writeln!(out, "  {} revision {}, {state}: {}", plan.id, plan.revision, plain(&plan.reason))?;
            let open = plan.intervals.iter().filter(|i| i.end.is_none_or(|end| end > self.now.wall));
            for interval in open.take(self.most.min(5)) {
                let begins = from_now(self.now.wall, interval.start);
                let ends = interval.end.map_or("open end".to_owned(), |end| from_now(self.now.wall, end));
                writeln!(out, "    interval {}: start {begins}, end {ends}", interval.number)?;
            }
        }
        Ok(())
    }

    fn dispatches(&self, out: &mut String) -> std::fmt::Result {
        let at: HashMap<MinerId, &InventoryMiner> = self.miners.iter().map(|m| (m.id, m)).collect();
        for dispatch in self.book.dispatches.values() {
            writeln!(
                out,
                "dispatch   {} interval {}: {}, target {}, proven {}",
                dispatch.key.plan,
                dispatch.key.interval,
                word_of(&dispatch.state),
                dispatch.target,
                dispatch.reported
            )?;
            let mut count = 0;
            for target in self.book.targets_of(dispatch.key) {
                count += 1;
                if count > self.most {
                    continue;
                }
                let place = at.get(&target.miner).map_or("not in the inventory".to_owned(), |m| {
                    let rack = [m.rack.as_deref(), m.position.as_deref()];
                    let rack: Vec<&str> = rack.into_iter().flatten().collect();
                    format!("{} {}", address_of(m), rack.join("/"))
                });
                let evidence = target.evidence;
                writeln!(
                    out,
                    "  {:<15} {:<24} accepted {}, mode {}, effect {}; {} before{}",
                    word_of(&target.state),
                    plain(&place),
                    word_of(&evidence.accepted),
                    word_of(&evidence.mode),
                    word_of(&evidence.effect),
                    target.power_before.map_or("unknown power".to_owned(), |w| w.to_string()),
                    self.why(target.miner),
                )?;
            }
            if count > self.most {
                writeln!(out, "  and {} more; --all shows them", count - self.most)?;
            }
        }
        Ok(())
    }

    fn why(&self, miner: MinerId) -> String {
        let why = self.book.holds.get(&miner).map(|hold| plain(&hold.why));
        why.filter(|why| !why.is_empty()).map_or(String::new(), |why| format!("; {why}"))
    }

    fn sick(&self, out: &mut String) -> std::fmt::Result {
        let Some(summary) = &self.summary else { return Ok(()) };
        for sick in summary.sick.iter().take(self.most) {
            let error = sick.error.as_deref().map_or(String::new(), |error| format!(": {}", plain(error)));
            writeln!(
                out,
                "sick       {} {}, {} times{error}",
                sick.address,
                word_of(&sick.poll),
                sick.failures
            )?;
        }
        if summary.sick.len() > self.most {
            writeln!(out, "  and {} more; --all shows them", summary.sick.len() - self.most)?;
        }
        Ok(())
    }
}

fn age(now: MomentV1, then: MomentV1) -> Option<DurationMs> {
    (now.boot_id == then.boot_id).then(|| now.boot.since(then.boot))
}

fn from_now(now: Millis, at: Millis) -> String {
    if at >= now { format!("in {}", length(at.since(now))) } else { format!("{} ago", length(now.since(at))) }
}

/// A length of time in its two largest units.
pub(crate) fn length(time: DurationMs) -> String {
    let seconds = time.0 / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, _) if time.0 < 10_000 => format!("{:.1} s", time.seconds()),
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// A text without what would disturb a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An enum's name as JSON has it.
fn word_of(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.replace('_', " "),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::ids::BootId;
    use hashinsight_protocol::units::BootMillis;

    #[test]
    fn an_empty_agent_has_a_status() {
        let now = MomentV1 {
            wall: Millis(1_000_000),
            boot: BootMillis(1000),
            boot_id: BootId::from_bytes([1; 16]),
            state: ClockStateV1::Uncertain,
        };
        let view = View {
            now,
            summary: None,
            cycle: DurationMs::from_secs(60),
            miners: vec![],
            plans: vec![],
            book: Book::default(),
            most: SHOWN,
        };
        let text = view.text();
        assert!(text.contains("has not polled yet") && text.contains("0 held"), "{text}");
        assert!(text.contains("clock      uncertain"), "{text}");
    }

    #[test]
    fn lengths_are_written_for_people() {
        let text = |s| length(DurationMs::from_secs(s));
        assert_eq!([text(3), text(42), text(61), text(7260)], ["3.0 s", "42 s", "1 min 1 s", "2 h 1 min"]);
        assert_eq!(from_now(Millis(0), Millis(30_000)), "in 30 s");
        assert_eq!(from_now(Millis(30_000), Millis(0)), "30 s ago");
    }
}
