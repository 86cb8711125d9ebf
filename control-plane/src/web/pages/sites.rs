//! The list of sites.

use crate::App;
use crate::error::Result;
use crate::fleet::overview::{self, Overview};
use crate::web::format::{self, Quantity};
use crate::web::layout::{Page, Section, html};
use askama::Template;
use axum::extract::State;
use axum::response::{Redirect, Response};
use hashinsight_protocol::units::{Hashrate, JoulesPerTerahash, Watts};
use std::sync::Arc;

#[derive(Template)]
#[template(path = "sites.html")]
struct SitesPage {
    page: Page,
    sites: Vec<Line>,
    power: Quantity,
    hashrate: Quantity,
    efficiency: Option<Quantity>,
    miners: String,
    answered: String,
}

/// One site, in words.
struct Line {
    id: String,
    name: String,
    power: Quantity,
    /// Hundredths of the grid connection.
    load: Option<u32>,
    hashrate: Quantity,
    efficiency: Option<Quantity>,
    hottest: Option<Quantity>,
    miners: String,
    answered: String,
    all_answer: bool,
    agents: usize,
    agents_online: usize,
    as_of: Option<i64>,
    age: String,
    is_old: bool,
}

pub async fn home() -> Redirect {
    Redirect::to("/sites")
}

pub async fn show(State(app): State<Arc<App>>, page: Page) -> Result<Response> {
    let sites = overview::all(&app).await?;
    let power: Watts = sites.iter().map(|s| s.power_w).sum();
    let hashrate: Hashrate = sites.iter().map(|s| s.hashrate_hs).sum();
    let count = |f: fn(&Overview) -> i64| format::grouped(sites.iter().map(f).sum());
    let title = page.t.t("sites-title");
    Ok(html(&SitesPage {
        power: format::power(power),
        hashrate: format::hashrate(hashrate),
        efficiency: JoulesPerTerahash::of(power, hashrate).map(format::efficiency),
        miners: count(|s| s.miners),
        answered: count(|s| s.answered),
        sites: sites.iter().map(|s| line(&page, s)).collect(),
        page: page.titled(Section::Sites, title),
    }))
}

fn line(page: &Page, site: &Overview) -> Line {
    let now = hashinsight_protocol::units::Millis(page.now);
    let age = site.as_of.map(|at| now.since(at));
    Line {
        id: site.site.id.to_string(),
        name: site.site.name.clone(),
        power: format::power(site.power_w),
        load: site.site.capacity().map(|c| (site.power_w.get() / c.get() * 100.0).round() as u32),
        hashrate: format::hashrate(site.hashrate_hs),
        efficiency: site.efficiency().map(format::efficiency),
        hottest: site.hottest_c.map(format::celsius),
        miners: format::grouped(site.miners),
        answered: format::grouped(site.answered),
        all_answer: site.answered == site.miners,
        agents: site.agents,
        agents_online: site.agents_online,
        as_of: site.as_of.map(|at| at.0),
        age: age.map_or_else(|| format::UNKNOWN.to_owned(), |age| format::age(page.t, age)),
        is_old: site.miners > 0 && age.is_none_or(|age| age >= crate::fleet::status::STALE),
    }
}
