//! A site, live: sums, chart, and the table of its miners.

use crate::App;
use crate::error::Result;
use crate::fleet::chart::{self, Chart};
use crate::fleet::readiness;
use crate::fleet::sites::Site;
use crate::fleet::status::{STALE, Status};
use crate::fleet::summary::Summary;
use crate::fleet::table::{self, PAGE, Query, Sort};
use crate::fleet::view::{Agent, Miner, View};
use crate::web::format::{self, Quantity, UNKNOWN};
use crate::web::i18n::Language;
use crate::web::input::Params;
use crate::web::layout::{Page, Section, html};
use askama::Template;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use hashinsight_protocol::readiness::BlockerV1;
use hashinsight_protocol::units::Millis;
use serde::Deserialize;
use std::fmt::Write as _;
use std::sync::Arc;

#[derive(Template)]
#[template(path = "site.html")]
struct SitePage {
    page: Page,
    site: Site,
    tiles: Tiles,
    agents: Vec<AgentLine>,
    table: Table,
}

/// The sums, in words.
struct Tiles {
    power: Quantity,
    /// Hundredths of the grid connection, and the connection.
    load: Option<(u32, Quantity)>,
    hashrate: Quantity,
    efficiency: Option<Quantity>,
    hottest: Option<Quantity>,
    hottest_place: Option<String>,
    miners: String,
    answered: String,
    statuses: Vec<StatusCount>,
    /// Miners that could be stopped now, and what that would save; `None` when nobody has said.
    ready: Option<(String, Quantity)>,
    as_of: Option<i64>,
    age: String,
    is_old: bool,
}

struct StatusCount {
    name: &'static str,
    count: String,
    /// Thousandths of all miners, and of those before it: a bar's part.
    share: f64,
    before: f64,
    is_chosen: bool,
    href: String,
}

struct AgentLine {
    hostname: String,
    version: String,
    online: bool,
    clock_is_uncertain: bool,
    /// The key of the words for where its time comes from.
    clock: Option<&'static str>,
    seen_at: Option<i64>,
    age: String,
}

/// The table, in words.
struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
    query: Query,
    /// This page's own address, for what is live.
    href: String,
    path: String,
    is_filtered: bool,
    has_miners: bool,
    total: String,
    first: String,
    last: String,
    pages: usize,
    number: usize,
    previous: Option<String>,
    next: Option<String>,
}

struct Column {
    sort: Sort,
    is_number: bool,
    href: String,
    /// As in `aria-sort`.
    order: &'static str,
}

struct Row {
    id: String,
    status: &'static str,
    place: String,
    model: String,
    firmware: String,
    /// Keys of words about the miner.
    marks: Vec<&'static str>,
    /// The key of what stands against stopping it.
    blocker: Option<&'static str>,
    hashrate: Option<Quantity>,
    power: Option<Quantity>,
    power_is_modelled: bool,
    efficiency: Option<Quantity>,
    hottest: Option<Quantity>,
    fans: Option<Quantity>,
    uptime: String,
    answered_at: Option<i64>,
    age: String,
    is_old: bool,
}

#[derive(Default, Deserialize)]
pub struct SiteParams {
    q: Option<String>,
    status: Option<String>,
    sort: Option<String>,
    page: Option<usize>,
}

pub async fn show(
    State(app): State<Arc<App>>,
    page: Page,
    Path(site): Path<String>,
    Params(params): Params<SiteParams>,
) -> Result<Response> {
    let view = app.fleet.view(&app, site.parse()?).await?;
    let now = app.clock.now();
    let title = view.site.name.clone();
    let query = query(&params);
    let address = Address { path: format!("/sites/{}", view.site.id), query };
    Ok(html(&SitePage {
        tiles: tiles(&view, &Summary::of(&view, now), &address, page.t, now),
        agents: view.agents.iter().map(|agent| agent_line(agent, page.t, now)).collect(),
        table: table(&view, address, params.page.unwrap_or(1), page.t, now),
        site: view.site.clone(),
        page: page.titled(Section::Sites, title),
    }))
}

#[derive(Default, Deserialize)]
pub struct ChartParams {
    hours: Option<u32>,
}

pub async fn chart(
    State(app): State<Arc<App>>,
    Path(site): Path<String>,
    Params(params): Params<ChartParams>,
) -> Result<Json<Chart>> {
    let view = app.fleet.view(&app, site.parse()?).await?;
    Ok(Json(chart::chart(&app, &view, params.hours.unwrap_or(6), app.clock.now()).await?))
}

/// What an address asks for; what makes no sense is left out.
fn query(params: &SiteParams) -> Query {
    let sort = params.sort.as_deref().unwrap_or_default();
    let (name, descending) = sort.strip_prefix('-').map_or((sort, false), |name| (name, true));
    let sort = Sort::parse(name);
    Query {
        search: params.q.as_deref().unwrap_or_default().chars().take(100).collect(),
        status: params.status.as_deref().and_then(Status::parse),
        sort: sort.unwrap_or_default(),
        descending: descending && sort.is_some(),
    }
}

/// Addresses of the same site with another query.
struct Address {
    path: String,
    query: Query,
}

impl Address {
    fn of(&self, query: &Query, page: usize) -> String {
        let mut out = self.path.clone();
        let mut add = |name: &str, value: &str| {
            let mark = if out.contains('?') { '&' } else { '?' };
            // Writing to a string never fails.
            let _ = write!(out, "{mark}{name}={value}");
        };
        if !query.search.is_empty() {
            add("q", &format::encoded(&query.search));
        }
        if let Some(status) = query.status {
            add("status", status.name());
        }
        if query.sort != Sort::default() || query.descending {
            add("sort", &sort_value(query));
        }
        if page > 1 {
            add("page", &page.to_string());
        }
        out
    }
}

/// A sort as in an address: `-` before the name means the greatest first.
fn sort_value(query: &Query) -> String {
    let minus = if query.descending { "-" } else { "" };
    format!("{minus}{}", query.sort.name())
}

fn tiles(view: &View, summary: &Summary, address: &Address, t: Language, now: Millis) -> Tiles {
    let mut before = 0.0;
    let all = summary.miners.max(1) as f64;
    let statuses = Status::ALL
        .into_iter()
        .filter(|status| summary.by_status.of(*status) > 0 || address.query.status == Some(*status))
        .map(|status| {
            let is_chosen = address.query.status == Some(status);
            let query = Query { status: (!is_chosen).then_some(status), ..address.query.clone() };
            let count = summary.by_status.of(status);
            let share = count as f64 / all * 1000.0;
            before += share;
            StatusCount {
                name: status.name(),
                count: format::grouped(count as i64),
                share,
                before: before - share,
                is_chosen,
                href: address.of(&query, 1),
            }
        })
        .collect();
    let hottest = summary.hottest_miner.and_then(|id| view.miners.iter().find(|m| m.id == id));
    let age = summary.as_of.map(|at| now.since(at));
    Tiles {
        power: format::power(summary.power_w),
        load: view.site.capacity().map(|capacity| {
            let hundredths = (summary.power_w.get() / capacity.get() * 100.0).round() as u32;
            (hundredths, format::power(capacity))
        }),
        hashrate: format::hashrate(summary.hashrate_hs),
        efficiency: summary.efficiency_j_th.map(format::efficiency),
        hottest: summary.hottest_c.map(format::celsius),
        hottest_place: hottest.map(Miner::place),
        miners: format::grouped(summary.miners as i64),
        answered: format::grouped(summary.answered as i64),
        statuses,
        ready: (summary.readiness_unknown < summary.miners)
            .then(|| (format::grouped(summary.ready as i64), format::power(summary.ready_w))),
        as_of: summary.as_of.map(|at| at.0),
        age: age.map_or_else(|| UNKNOWN.to_owned(), |age| format::age(t, age)),
        is_old: age.is_none_or(|age| age >= STALE),
    }
}

fn agent_line(agent: &Agent, t: Language, now: Millis) -> AgentLine {
    AgentLine {
        hostname: agent.hostname.clone(),
        version: agent.version.clone(),
        online: agent.is_online(),
        clock_is_uncertain: agent.clock_is_uncertain(),
        clock: match agent.clock_state.as_deref() {
            Some("synced") => Some("agent-clock-synced"),
            Some("measured") => Some("agent-clock-measured"),
            _ => None,
        },
        seen_at: agent.seen_at.map(|at| at.0),
        age: agent.seen_at.map_or_else(|| UNKNOWN.to_owned(), |at| format::age(t, now.since(at))),
    }
}

fn table(view: &View, address: Address, number: usize, t: Language, now: Millis) -> Table {
    let query = address.query.clone();
    let found = table::find(view, &query, now);
    let total = found.len();
    let pages = total.div_ceil(PAGE).max(1);
    let number = number.clamp(1, pages);
    let first = (number - 1) * PAGE;
    let shown = &found[first..total.min(first + PAGE)];
    Table {
        columns: Sort::ALL.into_iter().map(|sort| column(sort, &address)).collect(),
        rows: shown.iter().map(|(miner, status)| row(miner, *status, t, now)).collect(),
        href: address.of(&query, number),
        is_filtered: query.status.is_some() || !query.search.is_empty(),
        has_miners: !view.miners.is_empty(),
        total: format::grouped(total as i64),
        first: format::grouped((first + 1).min(total) as i64),
        last: format::grouped((first + shown.len()) as i64),
        pages,
        number,
        previous: (number > 1).then(|| address.of(&query, number - 1)),
        next: (number < pages).then(|| address.of(&query, number + 1)),
        path: address.path,
        query,
    }
}

fn column(sort: Sort, address: &Address) -> Column {
    let now = &address.query;
    let is_sorted = now.sort == sort;
    let descending = if is_sorted { !now.descending } else { sort.starts_descending() };
    Column {
        sort,
        is_number: !matches!(sort, Sort::Place | Sort::Model | Sort::Firmware | Sort::Status),
        href: address.of(&Query { sort, descending, ..now.clone() }, 1),
        order: match (is_sorted, now.descending) {
            (false, _) => "none",
            (true, false) => "ascending",
            (true, true) => "descending",
        },
    }
}

fn row(miner: &Miner, status: Status, t: Language, now: Millis) -> Row {
    let ready = miner.readiness.as_deref();
    // What the status or another mark says already is not said twice.
    let blocker = ready.and_then(|ready| {
        let is_told = |b: BlockerV1| {
            matches!(
                b,
                BlockerV1::Unreachable
                    | BlockerV1::WeakIdentity
                    | BlockerV1::OutOfService
                    | BlockerV1::Protected
            )
        };
        ready.blockers.iter().copied().find(|b| !is_told(*b))
    });
    let marks = [
        (miner.held, "mark-held"),
        (miner.out_of_service, "mark-out-of-service"),
        (miner.protected, "mark-protected"),
        (miner.weak_identity, "mark-weak"),
    ];
    let age = miner.age(now);
    Row {
        id: miner.id.to_string(),
        status: status.name(),
        place: miner.place(),
        model: miner.model.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        firmware: match (&miner.firmware, &miner.version) {
            (Some(firmware), Some(version)) => format!("{firmware} {version}"),
            (Some(one), None) | (None, Some(one)) => one.clone(),
            (None, None) => UNKNOWN.to_owned(),
        },
        marks: marks.into_iter().filter(|(is, _)| *is).map(|(_, key)| key).collect(),
        blocker: blocker.map(readiness::key),
        hashrate: miner.hashrate.map(format::terahash),
        power: miner.power.map(format::watts),
        power_is_modelled: miner.power_is_modelled,
        efficiency: miner.efficiency().map(format::efficiency),
        hottest: miner.hottest.map(format::celsius),
        fans: fans(miner),
        uptime: miner.uptime.map_or_else(|| UNKNOWN.to_owned(), |up| format::duration(t, up)),
        answered_at: miner.answered_at.map(|at| at.0),
        age: age.map_or_else(|| UNKNOWN.to_owned(), |age| format::age(t, age)),
        is_old: !status.is_known(),
    }
}

fn fans(miner: &Miner) -> Option<Quantity> {
    let turns = |n: u32| format::grouped(i64::from(n));
    let number = match (miner.fan_min, miner.fan_max) {
        (Some(min), Some(max)) if min != max => format!("{}–{}", turns(min), turns(max)),
        (_, Some(one)) | (Some(one), None) => turns(one),
        (None, None) => return None,
    };
    Some(Quantity { number, unit: "rpm" })
}
