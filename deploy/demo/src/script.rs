//! The unattended demonstration: a plan over both agents of a site, one of them out of contact in the
//! middle, and the books at the end.

use crate::books::{Answer, Books, Stored, TOLERANCE_MS, compare};
use crate::farm::{self, Settings};
use crate::process::until;
use crate::world::{World, reduction};
use crate::{Failure, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Share of the site's power that the plan takes off.
const SHARE: f64 = 0.3;
/// Waking has to begin this soon after the plan's end, seconds. The agent's own steps are much finer.
const ON_TIME_S: f64 = 5.0;
/// Miners that could not be woken at once have to be back by then.
const LATE_AT_MOST: Duration = Duration::from_secs(60);

/// What the demonstration measured.
pub struct Report {
    pub lines: Vec<String>,
    pub failures: Vec<String>,
}

/// Runs the demonstration on a fresh world; `say` is told each step.
///
/// # Errors
/// Something broke before the end; what was wrong at the end is in the report.
pub fn run(world: &mut World, site: &str, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut report = Report { lines: Vec::new(), failures: Vec::new() };
    let miners: u64 = world.at_site(site).map(|a| u64::from(a.miners)).sum();
    say("waiting for readings of every miner");
    wait_for_readings(world)?;
    let before = settings(world)?;
    let asleep = before.values().filter(|s| s.mode == "sleep").count();
    say(&format!("{} miners report, {asleep} of them were asleep before", before.len()));

    let power_before = world.summary(site)?["power_w"].as_f64().unwrap_or(0.0);
    // Some devices don't say what they draw: their own knowledge is what the plan is judged by.
    let drawn_before: f64 = world.at_site(site).map(|a| a.power_w()).sum::<Result<f64>>()?;
    let order = reduction(world.site_id(site)?, (power_before * SHARE / 1e3).round(), 1);
    let target_w = order["goal"]["reduce_kw"].as_f64().unwrap_or(0.0) * 1e3;
    let preview = world.api.post("/api/v1/plans/preview", &order)?;
    say(&format!(
        "ordering {:.0} kW less of {:.0} kW for a minute: the preview stops {} of {miners} miners",
        target_w / 1e3,
        power_before / 1e3,
        preview["miners"],
    ));
    let created =
        world.api.post("/api/v1/plans", &json!({"idempotency_key": "demonstration", "plan": order}))?;
    let id = text(&created, "id")?;
    let plan = world.api.post(&format!("/api/v1/plans/{id}/approve"), &json!({}))?;
    let (starts, ends) = (number(&plan, "starts_at")?, number(&plan, "ends_at")?);

    let path = format!("/api/v1/plans/{id}");
    let holding = until("the target is reached", Duration::from_secs(50), || {
        world.check()?;
        let plan = world.api.get(&path)?;
        Ok((plan["state"] == "executed" && number(&plan, "reached_w")? >= target_w).then_some(plan))
    })?;
    let reached_w = number(&holding, "reached_w")?;
    let reached_at = holding["dispatches"].as_array().into_iter().flatten().filter_map(|d| d["at"].as_f64());
    let reached_after = (reached_at.fold(0.0, f64::max) - starts) / 1e3;
    say(&format!("{:.1} kW are proven off; cutting the second agent from the broker", reached_w / 1e3));
    let cut = world.at_site(site).nth(1).map(|a| a.name.clone()).unwrap_or_default();
    link(world, &cut, true);
    // The simulated devices know what they draw, whoever claims what.
    let power_held: f64 = world.at_site(site).map(|a| a.power_w()).sum::<Result<f64>>()?;

    say("waiting for the plan's end at the site that nobody can reach");
    until("waking under a cut link", Duration::from_secs(150), || {
        world.check()?;
        let now = settings_of(world, &cut)?;
        Ok(now.iter().all(|(id, s)| before.get(id) == Some(s)).then_some(()))
    })?;
    let online = |world: &World| -> Result<usize> {
        let summary = world.summary(site)?;
        Ok(summary["agents"].as_array().into_iter().flatten().filter(|a| a["online"] == true).count())
    };
    let seen_away = online(world)? < world.at_site(site).count();
    let first_wake = first_wake(world, &cut, ends)?;
    say("every miner there is back; mending the link");
    link(world, &cut, false);
    let mut plan_in = |states: &[&str], most| {
        until("the plan's completion", most, || {
            world.check()?;
            let plan = world.api.get(&path)?;
            Ok(states.iter().any(|state| plan["state"] == *state).then_some(plan))
        })
    };
    let ended = plan_in(&["completed", "completed_with_failures"], Duration::from_secs(180))?;
    // Some firmwares let their chips cool before they wake; the plan says so, and goes on with them.
    let done = plan_in(&["completed"], LATE_AT_MOST).unwrap_or(ended);

    let after = settings(world)?;
    let changed: Vec<_> = before.iter().filter(|(id, s)| after.get(*id) != Some(s)).map(|(_, s)| s).collect();
    say("comparing the books");
    let books = settle_books(world)?;

    report.line(format!(
        "miners              {} at {} agents, {asleep} asleep beforehand",
        before.len(),
        world.agents.len()
    ));
    report.line(format!(
        "plan                target {:.1} kW, reached {:.1} kW after {reached_after:.1} s",
        target_w / 1e3,
        reached_w / 1e3
    ));
    report.line(format!(
        "site power          {:.1} kW before ({:.1} kW of it known), {:.1} kW held",
        drawn_before / 1e3,
        power_before / 1e3,
        power_held / 1e3
    ));
    report.line(format!(
        "link of {cut}   cut in mid-plan; waking began {first_wake:.1} s after the plan's end"
    ));
    let targets = done["targets"].as_array().map_or(0, Vec::len);
    let restored =
        done["targets"].as_array().into_iter().flatten().filter(|t| t["state"] == "restored").count();
    report.line(format!(
        "targets             {targets}, restored {restored}; {} miners in another state than before",
        changed.len()
    ));
    report.line(format!(
        "samples             sent {} = stored {}; lost {}, duplicates {}, other figures {}",
        books.answered, books.stored, books.lost, books.surplus, books.wrong
    ));
    report.demand(done["state"] == "completed", format!("the plan ended as {}", done["state"]));
    report.demand(reached_w >= target_w, "the target was not reached");
    report.demand(
        drawn_before - power_held >= target_w * 0.97,
        format!("the devices draw only {:.1} kW less", (drawn_before - power_held) / 1e3),
    );
    report.demand(seen_away, "the control plane did not notice that the link was cut");
    report.demand((0.0..=ON_TIME_S).contains(&first_wake), "the plan did not end on time without its link");
    report.demand(restored == targets && targets > 0, "not every target is reported as restored");
    for s in changed.iter().take(5) {
        report.failures.push(format!("{} ({} {}) is not as it was before", s.device, s.family, s.model));
    }
    report.demand(books.balance(), format!("the books do not balance: {books:?}"));
    report.demand(books.answered == books.stored, "answered and stored polls differ in number");
    Ok(report)
}

impl Report {
    fn line(&mut self, text: String) {
        self.lines.push(text);
    }

    fn demand(&mut self, holds: bool, otherwise: impl Into<String>) {
        if !holds {
            self.failures.push(otherwise.into());
        }
    }
}

/// Waits until every miner of every site has answered, and for one more cycle.
///
/// # Errors
/// They don't, within a minute.
pub fn wait_for_readings(world: &mut World) -> Result<()> {
    let sites: Vec<_> = world.sites.keys().cloned().collect();
    for site in &sites {
        let expected: u64 = world.at_site(site).map(|a| u64::from(a.miners)).sum();
        until(&format!("readings of {site}"), Duration::from_secs(90), || {
            world.check()?;
            Ok((world.summary(site)?["answered"].as_u64() == Some(expected)).then_some(()))
        })?;
    }
    std::thread::sleep(Duration::from_secs(u64::from(world.plan.cycle_s)));
    Ok(())
}

/// What every device is set to, by miner id.
fn settings(world: &World) -> Result<BTreeMap<String, Settings>> {
    let mut all = BTreeMap::new();
    for agent in &world.agents {
        all.extend(farm::settings(agent.control)?);
    }
    Ok(all)
}

fn settings_of(world: &World, agent: &str) -> Result<BTreeMap<String, Settings>> {
    let agent = world.agents.iter().find(|a| a.name == agent);
    agent.map_or_else(|| Ok(BTreeMap::new()), |a| farm::settings(a.control))
}

fn link(world: &World, agent: &str, cut: bool) {
    for agent in world.agents.iter().filter(|a| a.name == agent) {
        if cut { agent.link.cut() } else { agent.link.mend() }
    }
}

/// Seconds from the plan's end to the first device woken there.
fn first_wake(world: &World, agent: &str, ends: f64) -> Result<f64> {
    let agent = world.agents.iter().find(|a| a.name == agent);
    let agent = agent.ok_or_else(|| Failure::new("the agent is gone"))?;
    let log = farm::read_log(&agent.truth)?;
    let first = log.writes.iter().filter(|w| w.woke).map(|w| w.at).min();
    let first = first.ok_or_else(|| Failure::new("no device was woken"))?;
    Ok((first as f64 - ends) / 1e3)
}

/// Waits until all that was answered by now must have been stored, and compares.
///
/// # Errors
/// The readings can't be had.
pub fn settle_books(world: &mut World) -> Result<Books> {
    let mut answers = BTreeMap::<String, Vec<Answer>>::new();
    let read = |answers: &mut BTreeMap<String, Vec<Answer>>, world: &World| -> Result<i64> {
        answers.clear();
        let mut last = 0;
        for agent in &world.agents {
            for answer in farm::read_log(&agent.truth)?.answers {
                last = last.max(answer.at);
                if let Some(miner) = agent.inventory.get(&answer.device) {
                    answers.entry(miner.clone()).or_default().push(answer);
                }
            }
        }
        Ok(last)
    };
    let bound = read(&mut answers, world)?;
    // A few cycles later everything up to the bound has been acknowledged.
    std::thread::sleep(Duration::from_millis(TOLERANCE_MS.unsigned_abs()));
    std::thread::sleep(Duration::from_secs(u64::from(world.plan.cycle_s) * 2));
    world.check()?;
    read(&mut answers, world)?;
    let mut stored = BTreeMap::<String, Vec<Stored>>::new();
    for id in world.sites.values() {
        world.api.lines(&format!("/api/v1/sites/{id}/readings?from=0&to={}", i64::MAX), |line| {
            if line["poll"] == "answered" {
                let at = line["at"].as_i64().ok_or_else(|| Failure::new("a reading without a time"))?;
                let reading = Stored { at, hashrate_hs: line["hashrate_hs"].as_f64() };
                stored.entry(text(&line, "miner")?).or_default().push(reading);
            }
            Ok(())
        })?;
    }
    Ok(compare(&answers, &stored, bound))
}

fn text(value: &Value, key: &str) -> Result<String> {
    let found = value[key].as_str().map(str::to_owned);
    found.ok_or_else(|| Failure::new(format!("the API's answer has no {key}")))
}

fn number(value: &Value, key: &str) -> Result<f64> {
    value[key].as_f64().ok_or_else(|| Failure::new(format!("the API's answer has no {key}")))
}
