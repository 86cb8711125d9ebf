//! A site's curtailment plans.

use crate::App;
use crate::curtailment::request::Goal;
use crate::curtailment::store::{self, StoredPlan};
use crate::error::Result;
use crate::fleet::sites::{self, Site};
use crate::web::format;
use crate::web::layout::{Page, Section, html};
use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use hashinsight_protocol::ids::SiteId;
use hashinsight_protocol::units::{Millis, Watts};
use std::sync::Arc;

/// The newest plans of a site.
const MOST: u32 = 100;

#[derive(Template)]
#[template(path = "plans.html")]
struct PlansPage {
    page: Page,
    site: Site,
    plans: Vec<Line>,
}

struct Line {
    state: &'static str,
    goal: String,
    starts_at: String,
    minutes: u32,
    by: String,
    reason: String,
}

pub async fn show(State(app): State<Arc<App>>, page: Page, Path(site): Path<String>) -> Result<Response> {
    let site = sites::get(&app.stores.business, site.parse::<SiteId>()?).await?;
    let plans = store::plans_of_site(&app.stores.business, site.id, MOST).await?;
    let plans = plans.iter().map(|plan| line(&page, &site, plan)).collect();
    let title = site.name.clone();
    Ok(html(&PlansPage { page: page.titled(Section::Sites, title), site, plans }))
}

fn line(page: &Page, site: &Site, plan: &StoredPlan) -> Line {
    let goal = match plan.request.goal {
        Goal::ReduceKw(kw) => {
            let power = Watts::from_kilowatts(kw).map(format::power);
            page.t.with1("plan-goal-reduce", "power", power.map_or_else(String::new, |p| p.to_string()))
        }
        Goal::All => page.t.t("plan-goal-all"),
    };
    Line {
        state: plan.state.name(),
        goal,
        starts_at: local(plan.starts_at, &site.time_zone),
        minutes: plan.request.minutes,
        by: plan.created_by.clone(),
        reason: plan.request.reason.clone(),
    }
}

/// A time on the site's own clock.
pub fn local(at: Millis, time_zone: &str) -> String {
    let utc = jiff::tz::TimeZone::UTC;
    let zone = jiff::tz::TimeZone::get(time_zone).unwrap_or(utc);
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(time) => time.to_zoned(zone).strftime("%Y-%m-%d %H:%M %Z").to_string(),
        // Beyond what a calendar has.
        Err(_) => format::UNKNOWN.to_owned(),
    }
}
