//! What a plan would do, in words.

use super::words;
use crate::curtailment::request::{Order, PlanRequest};
use crate::curtailment::service::SitePreview;
use crate::fleet::summary::Summary;
use crate::fleet::view::{Miner, View};
use crate::web::format::{self, Quantity, UNKNOWN};
use crate::web::i18n::Language;
use crate::web::when;
use hashinsight_curtailment::{Skipped, Taken};
use hashinsight_protocol::ids::{AgentId, MinerId};
use hashinsight_protocol::units::{DurationMs, Millis};
use std::collections::HashMap;

/// Rows of the list of miners: enough to judge the choice by; the figures count all.
const ROWS: usize = 300;
/// Miners named for each reason.
const NAMED: usize = 60;

/// A preview as the page shows it.
pub struct PreviewView {
    pub goal: String,
    pub window: String,
    pub reason: String,
    pub miners: String,
    pub takes_none: bool,
    pub reduces: Quantity,
    pub bar: words::Bar,
    /// What the target lacks.
    pub shortfall: Option<Quantity>,
    pub lost: Quantity,
    pub standby: Quantity,
    /// The site's power when all of it has happened.
    pub after: Quantity,
    pub ramp: String,
    pub shares: Vec<ShareLine>,
    pub has_away: bool,
    pub taken: Vec<TakenLine>,
    /// How many more there are.
    pub more: Option<String>,
    pub skipped: Vec<SkipGroup>,
    pub skipped_all: String,
}

/// One agent's part.
pub struct ShareLine {
    pub hostname: String,
    pub online: bool,
    pub seen_at: Option<i64>,
    pub age: String,
    pub miners: String,
    pub target: Quantity,
    pub reserve: Quantity,
}

/// A miner that would be stopped.
pub struct TakenLine {
    pub number: String,
    pub place: String,
    pub model: String,
    pub efficiency: Option<Quantity>,
    pub power: Option<Quantity>,
    pub saves: Quantity,
    pub step: u32,
    pub why: String,
}

/// Miners that stay as they are for one reason.
pub struct SkipGroup {
    pub key: &'static str,
    pub count: String,
    /// It stands against the order, other than not being needed.
    pub is_obstacle: bool,
    pub places: Vec<(String, Option<String>)>,
    pub more: Option<String>,
}

impl PreviewView {
    pub fn new(request: &PlanRequest, seen: &SitePreview, view: &View, t: Language, now: Millis) -> Self {
        let preview = &seen.preview;
        let miners: HashMap<MinerId, &Miner> = view.miners.iter().map(|miner| (miner.id, miner)).collect();
        let place =
            |id: MinerId| miners.get(&id).map_or_else(|| id.to_string()[..8].to_owned(), |m| m.place());
        let zone = when::zone(&view.site.time_zone);
        let length = format::duration(t, DurationMs::from_minutes(u64::from(request.minutes)));
        let target = request.target().unwrap_or(preview.reduces);
        let missing = target.saturating_sub(preview.reduces);
        let power = Summary::of(view, now).power_w;
        let shares: Vec<_> = seen
            .shares
            .iter()
            .map(|(agent, share)| {
                let own =
                    preview.taken.iter().filter(|taken| seen.fleet.agent_of.get(&taken.miner) == Some(agent));
                let (miners, target, reserve) = (own.count(), share.target.get(), share.reserve.get());
                share_line(view, *agent, miners, (target, reserve), t, now)
            })
            .collect();
        Self {
            goal: words::goal(t, request.goal),
            window: match request.start {
                None => t.with1("preview-now", "length", length),
                Some(start) => when::span(start, request.end(start), &zone),
            },
            reason: request.reason.clone(),
            miners: format::grouped(preview.taken.len() as i64),
            takes_none: preview.taken.is_empty(),
            reduces: words::kilowatts(preview.reduces.get()),
            bar: words::Bar::new(preview.reduces.get().round() as i64, target.get().round() as i64),
            shortfall: (!preview.reaches_target).then(|| words::kilowatts(missing.get())),
            lost: format::hashrate(preview.hashrate_lost),
            standby: words::kilowatts(preview.standby.get()),
            after: words::kilowatts(power.saturating_sub(preview.reduces).get()),
            ramp: format::duration(t, preview.ramp),
            has_away: shares.iter().any(|share| !share.online),
            shares,
            taken: preview
                .taken
                .iter()
                .take(ROWS)
                .enumerate()
                .map(|(at, taken)| {
                    taken_line(at, taken, miners.get(&taken.miner).copied(), &place, request.order, t)
                })
                .collect(),
            more: more(preview.taken.len(), ROWS),
            skipped: groups(&preview.skipped, &place, t),
            skipped_all: format::grouped(preview.skipped.len() as i64),
        }
    }
}

fn more(all: usize, shown: usize) -> Option<String> {
    (all > shown).then(|| format::grouped((all - shown) as i64))
}

fn share_line(
    view: &View,
    agent: AgentId,
    miners: usize,
    (target, reserve): (f64, f64),
    t: Language,
    now: Millis,
) -> ShareLine {
    let known = view.agents.iter().find(|a| a.id == agent);
    let seen_at = known.and_then(|a| a.seen_at);
    ShareLine {
        hostname: known.map_or_else(|| agent.to_string(), |a| a.hostname.clone()),
        online: known.is_some_and(|a| a.is_online()),
        seen_at: seen_at.map(|at| at.0),
        age: seen_at.map_or_else(|| UNKNOWN.to_owned(), |at| format::age(t, now.since(at))),
        miners: format::grouped(miners as i64),
        target: words::kilowatts(target),
        reserve: words::kilowatts(reserve),
    }
}

fn taken_line(
    at: usize,
    taken: &Taken,
    miner: Option<&Miner>,
    place: &impl Fn(MinerId) -> String,
    order: Order,
    t: Language,
) -> TakenLine {
    let number = format::grouped(at as i64 + 1);
    let efficiency = taken.efficiency.map(format::efficiency);
    let power = taken.power.map(format::watts);
    let why = match (order, &efficiency, &power) {
        (Order::LeastEfficientFirst, Some(efficiency), _) => {
            t.with1("why-efficiency", "efficiency", efficiency.to_string())
        }
        (Order::LeastEfficientFirst, None, _) => t.t("why-idle"),
        (Order::MostPowerFirst, _, Some(power)) => t.with1("why-power", "power", power.to_string()),
        (Order::MostPowerFirst, _, None) => t.t("why-power-unknown"),
    };
    TakenLine {
        number,
        place: place(taken.miner),
        model: miner.and_then(|m| m.model.clone()).unwrap_or_else(|| UNKNOWN.to_owned()),
        efficiency,
        power,
        saves: format::watts(taken.saves),
        step: taken.step,
        why,
    }
}

/// The largest first; those that are merely not needed last.
fn groups(skipped: &[Skipped], place: &impl Fn(MinerId) -> String, t: Language) -> Vec<SkipGroup> {
    let mut by_key: HashMap<&'static str, Vec<&Skipped>> = HashMap::new();
    for one in skipped {
        by_key.entry(words::skipped(&one.reason)).or_default().push(one);
    }
    let mut groups: Vec<_> = by_key.into_iter().collect();
    let rank = |key: &str, count: usize| (key == "skip-not-needed", std::cmp::Reverse(count));
    groups.sort_by(|a, b| (rank(a.0, a.1.len()), a.0).cmp(&(rank(b.0, b.1.len()), b.0)));
    groups
        .into_iter()
        .map(|(key, all)| SkipGroup {
            key,
            count: format::grouped(all.len() as i64),
            is_obstacle: key != "skip-not-needed",
            places: all
                .iter()
                .take(NAMED)
                .map(|one| (place(one.miner), words::skip_figure(t, &one.reason)))
                .collect(),
            more: more(all.len(), NAMED),
        })
        .collect()
}
