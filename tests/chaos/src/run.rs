//! A run: the faults of a schedule over two agents with their simulated devices, then the books.

use crate::disk::Disk;
use crate::report::{KILLED, Report, Span};
use crate::schedule::{Fault, schedule};
use hashinsight_demo::books::{Answer, Stored, compare_each};
use hashinsight_demo::farm::{self, Settings};
use hashinsight_demo::link::Weather;
use hashinsight_demo::process::until;
use hashinsight_demo::script::wait_for_readings;
use hashinsight_demo::world::{AgentPlan, Plan, World, reduction};
use hashinsight_demo::{Failure, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const SITE: &str = "Chaos";
/// Agents of a run.
pub const AGENTS: usize = 2;
const CYCLE_S: u32 = 5;
/// Share of the site's power that an order takes off.
const SHARE: f64 = 0.2;
/// Everything must have come to rest this long after the last fault.
const REST: Duration = Duration::from_secs(240);

/// What to run.
pub struct Setup {
    pub seed: u64,
    pub length: Duration,
    pub miners: u32,
    pub sabotage: Option<String>,
    pub programs: PathBuf,
    pub folder: PathBuf,
}

/// The system and what has been done to it.
struct Chaos {
    world: World,
    disks: Vec<Option<Disk>>,
    clock: PathBuf,
    /// What ends when, milliseconds since the start.
    ends: Vec<(u64, End)>,
    report: Report,
    plans: Vec<String>,
    away: [bool; AGENTS],
    cloud_away: bool,
}

/// The end of a fault.
#[derive(Clone, Copy)]
enum End {
    Mend(usize),
    Start(usize),
    StartControlPlane,
    Clock,
    Relieve(usize),
}

/// Runs it; `say` is told each step.
///
/// # Errors
/// The system doesn't start, or a part of it ends by itself.
pub fn run(setup: &Setup, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let clock = setup.folder.join("clock");
    let agents: Vec<_> = (1..=AGENTS).map(|n| format!("gateway-{n}")).collect();
    let disks = agents
        .iter()
        .map(|name| Disk::mount(&setup.folder.join(name).join("data")))
        .collect::<Result<Vec<_>>>()?;
    let mut environment = vec![("HASHINSIGHT_CLOCK_FILE".to_owned(), clock.display().to_string())];
    environment.extend(setup.sabotage.clone().map(|fault| ("HASHINSIGHT_SABOTAGE".to_owned(), fault)));
    let plan = Plan {
        folder: setup.folder.clone(),
        programs: setup.programs.clone(),
        http_port: 0,
        agents: agents
            .into_iter()
            .map(|name| AgentPlan { name, site: SITE.to_owned(), miners: setup.miners / AGENTS as u32 })
            .collect(),
        cycle_s: CYCLE_S,
        time_scale: 10.0,
        mix: None,
        seed: setup.seed,
        environment,
    };
    let mut world = World::start(plan, say)?;
    say("waiting for readings of every miner");
    wait_for_readings(&mut world)?;
    let before = settings_of(&world)?;
    let has_disks = disks.iter().all(Option::is_some);
    let faults = schedule(setup.seed, setup.length, AGENTS, has_disks);
    let mut report = Report::new(setup.seed, setup.length, setup.sabotage.clone());
    if !has_disks {
        report.left_out.push("full disks: this user may not mount a memory disk");
    }
    let mut chaos = Chaos {
        world,
        disks,
        clock,
        ends: Vec::new(),
        report,
        plans: Vec::new(),
        away: [false; AGENTS],
        cloud_away: false,
    };
    say(&format!("{} faults in {} s", faults.len(), setup.length.as_secs()));
    chaos.play(&faults, setup.length, say)?;
    say("the last fault is over; waiting for rest");
    chaos.rest(&before)?;
    chaos.settle(say)?;
    Ok(chaos.report)
}

fn settings_of(world: &World) -> Result<BTreeMap<String, Settings>> {
    let mut all = BTreeMap::new();
    for agent in &world.agents {
        all.extend(farm::settings(agent.control)?);
    }
    Ok(all)
}

/// Milliseconds on the machine's boot clock.
fn boot_ms() -> i64 {
    millis(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
}

/// Milliseconds by which wall time is ahead of the boot clock.
fn wall_ahead_ms() -> i64 {
    millis(rustix::time::clock_gettime(rustix::time::ClockId::Realtime)) - boot_ms()
}

fn millis(time: rustix::time::Timespec) -> i64 {
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

impl Chaos {
    fn play(
        &mut self,
        faults: &[(Duration, Fault)],
        length: Duration,
        say: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let start = boot_ms();
        let mut next = faults.iter();
        let mut coming = next.next();
        loop {
            let now = u64::try_from(boot_ms() - start).unwrap_or(0);
            let over = u128::from(now) >= length.as_millis();
            let (due, later): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.ends).into_iter().partition(|(at, _)| over || *at <= now);
            self.ends = later;
            for (_, end) in due {
                self.end(end)?;
            }
            if over {
                return Ok(());
            }
            if let Some((_, fault)) = coming.filter(|(at, _)| at.as_millis() <= u128::from(now)) {
                say(&format!("{:>5.1} s  {fault:?}", now as f64 / 1e3));
                self.begin(*fault, now)?;
                coming = next.next();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn begin(&mut self, fault: Fault, now: u64) -> Result<()> {
        let after = |lasts: Duration| now + u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        match fault {
            Fault::Link { agent, weather, lasts } => {
                self.world.agents[agent].link.set(weather);
                if weather != Weather::Snap {
                    self.ends.push((after(lasts), End::Mend(agent)));
                }
            }
            Fault::KillAgent { agent, away } | Fault::StopAgent { agent, away } => {
                if self.away[agent] {
                    return Ok(());
                }
                let from = boot_ms();
                let process = &mut self.world.agents[agent].process;
                if matches!(fault, Fault::KillAgent { .. }) {
                    process.kill();
                } else {
                    process.stop();
                }
                self.report.spans.push(Span { agent, cause: KILLED, from, to: boot_ms() });
                self.away[agent] = true;
                self.ends.push((after(away), End::Start(agent)));
            }
            Fault::KillControlPlane { away } => {
                if !self.cloud_away {
                    self.world.control_plane.kill();
                    self.cloud_away = true;
                    self.ends.push((after(away), End::StartControlPlane));
                }
            }
            Fault::Clock { off_ms, trusted, lasts } => {
                let synced = if trusted { " 1" } else { "" };
                self.set_clock(&format!("{off_ms} 0{synced}"))?;
                self.ends.push((after(lasts), End::Clock));
            }
            Fault::DiskFull { agent, lasts } => {
                if let Some(disk) = &self.disks[agent] {
                    disk.fill()?;
                    let from = boot_ms();
                    self.report.spans.push(Span { agent, cause: "disk_full", from, to: i64::MAX });
                    self.ends.push((after(lasts), End::Relieve(agent)));
                }
            }
            Fault::Order => self.order(),
        }
        self.report.faults += 1;
        Ok(())
    }

    fn end(&mut self, end: End) -> Result<()> {
        match end {
            End::Mend(agent) => self.world.agents[agent].link.mend(),
            End::Start(agent) => {
                let plan = self.world.plan.clone();
                self.world.agents[agent].restart(&plan)?;
                self.away[agent] = false;
            }
            End::StartControlPlane => {
                self.world.restart_control_plane()?;
                self.cloud_away = false;
            }
            End::Clock => self.set_clock("0 0")?,
            End::Relieve(agent) => {
                if let Some(disk) = &self.disks[agent] {
                    disk.relieve();
                }
                for span in self.report.spans.iter_mut().filter(|s| s.agent == agent && s.to == i64::MAX) {
                    span.to = boot_ms();
                }
            }
        }
        Ok(())
    }

    fn set_clock(&self, text: &str) -> Result<()> {
        // Renamed into place: a reader finds the old or the new one, whole.
        let new = self.clock.with_extension("new");
        std::fs::write(&new, text).map_err(Failure::of(new.display()))?;
        std::fs::rename(&new, &self.clock).map_err(Failure::of(self.clock.display()))
    }

    /// An order that comes in the middle of it all; nobody minds if the control plane is away.
    fn order(&mut self) {
        let ordered = || -> Result<String> {
            let power = self.world.summary(SITE)?["power_w"].as_f64().unwrap_or(0.0);
            let site = self.world.site_id(SITE)?;
            let order = reduction(site, (power * SHARE / 1e3).round().max(1.0), 1);
            let plan = self.world.api.post("/api/v1/plans", &json!({ "plan": order }))?;
            let id = plan["id"].as_str().unwrap_or_default().to_owned();
            self.world.api.post(&format!("/api/v1/plans/{id}/approve"), &json!({}))?;
            Ok(id)
        };
        match ordered() {
            Ok(id) => self.plans.push(id),
            Err(failure) => self.report.refused_orders.push(failure.to_string()),
        }
    }

    /// Waits until no plan runs and every miner is as it was.
    fn rest(&mut self, before: &BTreeMap<String, Settings>) -> Result<()> {
        for agent in &self.world.agents {
            agent.link.mend();
        }
        let rest = until("rest", REST, || {
            self.world.check()?;
            for plan in &self.plans {
                let state = self.world.api.get(&format!("/api/v1/plans/{plan}"))?;
                let open = ["pending", "approved", "executing", "executed", "recovering"];
                if state["state"].as_str().is_some_and(|s| open.contains(&s)) {
                    return Ok(None);
                }
            }
            let now = settings_of(&self.world)?;
            Ok(before.iter().all(|(id, s)| now.get(id) == Some(s)).then_some(()))
        });
        if let Err(failure) = rest {
            self.world.check()?;
            self.report.unsettled = Some(failure.to_string());
        }
        let now = settings_of(&self.world)?;
        let moved = before.iter().filter(|(id, s)| now.get(*id) != Some(s));
        self.report.moved = moved.map(|(_, s)| format!("{} ({} {})", s.device, s.family, s.model)).collect();
        self.report.plans = self.plans.len();
        Ok(())
    }

    /// Compares what devices answered with what is stored, until it is as good as it gets.
    fn settle(&mut self, say: &mut dyn FnMut(&str)) -> Result<()> {
        let ahead = wall_ahead_ms();
        let bound = boot_ms();
        say("comparing the books");
        // Books with a planted fault never balance.
        let most = Duration::from_secs(if self.report.sabotage.is_some() { 15 } else { 60 });
        let settled = until("the books", most, || {
            self.world.check()?;
            std::thread::sleep(Duration::from_secs(u64::from(CYCLE_S)));
            self.look(ahead, bound)?;
            Ok(self.report.balances().then_some(()))
        });
        // What doesn't balance by now is in the report.
        if settled.is_err() {
            self.world.check()?;
        }
        Ok(())
    }

    fn look(&mut self, ahead: i64, bound: i64) -> Result<()> {
        let mut answers = BTreeMap::<String, Vec<Answer>>::new();
        let mut agent_of = BTreeMap::new();
        for (index, agent) in self.world.agents.iter().enumerate() {
            for mut answer in farm::read_log(&agent.truth)?.answers {
                if let Some(miner) = agent.inventory.get(&answer.device) {
                    answer.at -= ahead;
                    agent_of.insert(miner.clone(), index);
                    answers.entry(miner.clone()).or_default().push(answer);
                }
            }
        }
        let site = self.world.site_id(SITE)?.to_owned();
        let mut stored = BTreeMap::<String, Vec<Stored>>::new();
        // All of time: clocks were wrong.
        let all = format!("/api/v1/sites/{site}/readings?from={}&to={}", i64::MIN, i64::MAX);
        self.world.api.lines(&all, |line| {
            if line["poll"] == "answered" {
                let at = line["boot_ms"].as_i64().ok_or_else(|| Failure::new("a reading without a time"))?;
                let miner = line["miner"].as_str().unwrap_or_default().to_owned();
                let reading = Stored { at, hashrate_hs: line["hashrate_hs"].as_f64() };
                stored.entry(miner).or_default().push(reading);
            }
            Ok(())
        })?;
        let (books, missing) = compare_each(&answers, &stored, bound);
        self.report.books = books;
        self.report.missing =
            missing.into_iter().map(|m| (agent_of.get(&m.device).copied().unwrap_or(0), m.at)).collect();
        let gaps = self.world.api.get(&format!("/api/v1/sites/{site}/gaps"))?;
        self.report.gaps.clear();
        for gap in gaps.as_array().into_iter().flatten() {
            let cause = gap["cause"].as_str().unwrap_or("unknown").to_owned();
            *self.report.gaps.entry(cause).or_default() += gap["polls"].as_u64().unwrap_or(0);
        }
        Ok(())
    }
}
