//! A site's curtailment: the order form, its preview, and the list of plans.
//!
//! One address serves all of it. The form's button says what is wanted: a preview, another look at the
//! form, or the order itself. Nothing is kept between these steps but what the form carries.

use super::order_form::{Faults, OrderForm};
use super::preview::PreviewView;
use super::words;
use crate::App;
use crate::curtailment::state::PlanState;
use crate::curtailment::store::{self, StoredPlan};
use crate::curtailment::{progress, service, usual};
use crate::error::{Error, Kind, Result};
use crate::fleet::sites::{self, Site};
use crate::fleet::status::STALE;
use crate::fleet::summary::Summary;
use crate::fleet::view::View;
use crate::identity::{Caller, Permission};
use crate::random;
use crate::web::format::{self, Quantity, UNKNOWN};
use crate::web::i18n::Message;
use crate::web::input::Fields;
use crate::web::layout::{Page, Section, html};
use crate::web::when;
use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use hashinsight_protocol::ids::SiteId;
use hashinsight_protocol::units::{DurationMs, Millis};
use std::sync::Arc;

/// The newest plans of a site.
const MOST: u32 = 100;
/// Digits of a preview's key: too many to be met twice.
const KEY_DIGITS: usize = 32;

#[derive(Template)]
#[template(path = "curtailment.html")]
struct CurtailmentPage {
    page: Page,
    site: Site,
    may_order: bool,
    /// Sending it is approving it.
    may_run: bool,
    present: Present,
    form: OrderForm,
    faults: Faults,
    is_advanced: bool,
    preview: Option<PreviewView>,
    running: Vec<PlanLine>,
    plans: Vec<PlanLine>,
}

/// The site as it is before any order.
struct Present {
    power: Quantity,
    answered: String,
    miners: String,
    has_miners: bool,
    as_of: Option<i64>,
    age: String,
    is_old: bool,
    zone: String,
    /// The site's clock.
    clock: String,
    away: Vec<Away>,
}

/// An agent that is out of contact.
pub struct Away {
    pub hostname: String,
    pub seen_at: Option<i64>,
    pub age: String,
    pub miners: String,
}

struct PlanLine {
    href: String,
    state: &'static str,
    goal: String,
    time: String,
    by: String,
    reason: String,
    bar: Option<words::Bar>,
    /// When its next moment comes, and what that is.
    until: Option<(i64, String, &'static str)>,
}

pub async fn show(State(app): State<Arc<App>>, page: Page, Path(site): Path<String>) -> Result<Response> {
    let site = sites::get(&app.stores.business, site.parse::<SiteId>()?).await?;
    let usual = usual::of(&app.stores.business, site.id).await?;
    let form = OrderForm::fresh(&site, &usual, app.clock.now());
    respond(&app, page, site, form, Faults::default(), None).await
}

pub async fn submit(
    State(app): State<Arc<App>>,
    caller: Caller,
    page: Page,
    Path(site): Path<String>,
    Fields(form): Fields<OrderForm>,
) -> Result<Response> {
    let site = sites::get(&app.stores.business, site.parse::<SiteId>()?).await?;
    match form.act.as_str() {
        "edit" => respond(&app, page, site, form, Faults::default(), None).await,
        "send" => send(&app, &caller, page, site, form).await,
        _ => preview(&app, page, site, form, Faults::default()).await,
    }
}

async fn preview(app: &App, page: Page, site: Site, mut form: OrderForm, faults: Faults) -> Result<Response> {
    let request = match form.read(&site, app.clock.now()) {
        Ok(request) => request,
        Err(faults) => return respond(app, page, site, form, faults, None).await,
    };
    let seen = service::preview_request(app, &request).await?;
    let view = app.fleet.view(app, site.id).await?;
    let preview = PreviewView::new(&request, &seen, &view, page.t, app.clock.now());
    form.key = random::secret(KEY_DIGITS);
    respond(app, page, site, form, faults, Some(preview)).await
}

/// Writes the order down and approves it, once for each preview however often it is sent.
async fn send(app: &App, caller: &Caller, page: Page, site: Site, form: OrderForm) -> Result<Response> {
    if form.key.is_empty() || form.key.len() > 128 {
        return preview(app, page, site, form, Faults::default()).await;
    }
    let plan = match store::plan_of_key(&app.stores.business, &form.key).await? {
        Some(before) if before.site == site.id => before,
        Some(_) => return Err(Error::conflict(Message::key("error-plan-key"))),
        None => match form.read(&site, app.clock.now()) {
            Ok(request) => service::create(app, request, Some(&form.key), &caller.name).await?,
            // A start may have passed while somebody read the preview.
            Err(faults) => return respond(app, page, site, form, faults, None).await,
        },
    };
    let href = format!("/plans/{}", plan.id);
    let approvals = store::approvals(&app.stores.business, plan.id).await?;
    let is_mine = approvals.iter().any(|approval| approval.user == caller.user);
    if plan.state == PlanState::Pending && caller.may(Permission::RunPlans) && !is_mine {
        match service::approve(app, plan.id, caller).await {
            // Whoever came first has approved it; or it can't be now, which its own page says.
            Ok(_) => {}
            // It is for somebody else to approve: its page says so.
            Err(error) if error.kind() == Kind::Forbidden => {}
            Err(error) if error.kind() == Kind::Conflict => {
                let is_pending =
                    store::plan(&app.stores.business, plan.id).await?.state == PlanState::Pending;
                if is_pending {
                    service::stop(app, plan.id, false, &caller.name).await?;
                    return preview(app, page, site, form, Faults::of("form", error.message())).await;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Redirect::to(&href).into_response())
}

async fn respond(
    app: &App,
    page: Page,
    site: Site,
    form: OrderForm,
    faults: Faults,
    preview: Option<PreviewView>,
) -> Result<Response> {
    let view = app.fleet.view(app, site.id).await?;
    let now = app.clock.now();
    let usual = usual::of(&app.stores.business, site.id).await?;
    let plans = store::plans_of_site(&app.stores.business, site.id, MOST).await?;
    let reached = progress::running(&app.stores.business, site.id).await?;
    let (running, plans): (Vec<_>, Vec<_>) =
        plans.iter().partition(|plan| plan.state.is_with_agents() || plan.state == PlanState::Pending);
    let line = |plan: &&StoredPlan| {
        let reached = reached.iter().find(|r| r.plan == plan.id).copied();
        plan_line(&page, &site, plan, reached, now)
    };
    let status = if faults.any() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let may = |permission| page.caller.as_ref().is_some_and(|caller| caller.may(permission));
    let title = format!("{} · {}", page.t.t("tab-curtailment"), site.name);
    let template = CurtailmentPage {
        may_order: may(Permission::OrderPlans),
        may_run: may(Permission::RunPlans),
        present: present(&page, &site, &view, now),
        is_advanced: form.is_advanced(&usual, &faults),
        running: running.iter().map(line).collect(),
        plans: plans.iter().map(line).collect(),
        form,
        faults,
        preview,
        site,
        page: page.titled(Section::Sites, title),
    };
    Ok((status, html(&template)).into_response())
}

fn present(page: &Page, site: &Site, view: &View, now: Millis) -> Present {
    let summary = Summary::of(view, now);
    let zone = when::zone(&site.time_zone);
    let age = summary.as_of.map(|at| now.since(at));
    Present {
        power: words::kilowatts(summary.power_w.get()),
        answered: format::grouped(summary.answered as i64),
        miners: format::grouped(summary.miners as i64),
        has_miners: summary.miners > 0,
        as_of: summary.as_of.map(|at| at.0),
        age: age.map_or_else(|| UNKNOWN.to_owned(), |age| format::age(page.t, age)),
        is_old: age.is_none_or(|age| age >= STALE),
        clock: when::date_time(now, &zone),
        zone: site.time_zone.clone(),
        away: away(page, view, now),
    }
}

/// The site's agents that are out of contact.
fn away(page: &Page, view: &View, now: Millis) -> Vec<Away> {
    let agents = view.agents.iter().filter(|agent| !agent.is_online());
    agents
        .map(|agent| Away {
            hostname: agent.hostname.clone(),
            seen_at: agent.seen_at.map(|at| at.0),
            age: agent.seen_at.map_or_else(|| UNKNOWN.to_owned(), |at| format::age(page.t, now.since(at))),
            miners: format::grouped(view.miners.iter().filter(|m| m.agent == agent.id).count() as i64),
        })
        .collect()
}

fn plan_line(
    page: &Page,
    site: &Site,
    plan: &StoredPlan,
    reached: Option<progress::Reached>,
    now: Millis,
) -> PlanLine {
    let zone = when::zone(&site.time_zone);
    let end = plan.ends_at.unwrap_or(plan.starts_at);
    let until = match plan.state {
        PlanState::Approved if plan.starts_at > now => Some((plan.starts_at, "run-starts-in")),
        PlanState::Approved | PlanState::Executing | PlanState::Executed
            if end > now && plan.stopped_at.is_none() =>
        {
            Some((end, "run-ends-in"))
        }
        _ => None,
    };
    PlanLine {
        href: format!("/plans/{}", plan.id),
        state: plan.state.name(),
        goal: words::goal(page.t, plan.request.goal),
        time: match plan.state {
            PlanState::Pending if plan.request.start.is_none() => {
                let length = DurationMs::from_minutes(u64::from(plan.request.minutes));
                page.t.with1("order-once-approved", "length", format::duration(page.t, length))
            }
            _ => when::span(plan.starts_at, end, &zone),
        },
        by: plan.created_by.clone(),
        reason: plan.request.reason.clone(),
        bar: reached.map(|r| words::Bar::new(r.reached_w, r.target_w)),
        until: until.map(|(at, key)| (at.0, when::countdown(at.since(now)), key)),
    }
}
