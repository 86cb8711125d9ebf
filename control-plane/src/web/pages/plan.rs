//! One plan, live: where it stands, what is reached, who did what when, and every miner with its proof.

use super::plan_targets::{TargetParams, TargetTable};
use super::words::{self, Bar};
use crate::App;
use crate::curtailment::NOT_APPROVED;
use crate::curtailment::progress::{self, Delivery, StopOrder};
use crate::curtailment::request::{Goal, Order};
use crate::curtailment::service;
use crate::curtailment::state::PlanState;
use crate::curtailment::store::{self, Allotment, Dispatch, HistoryLine, StoredPlan};
use crate::error::{Kind, Result};
use crate::fleet::sites::Site;
use crate::fleet::view::View;
use crate::identity::{Caller, Permission};
use crate::web::format::{self, Quantity, UNKNOWN};
use crate::web::i18n::Language;
use crate::web::input::{Fields, Params};
use crate::web::layout::{Page, Section, html};
use crate::web::when;
use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use hashinsight_protocol::ids::PlanId;
use hashinsight_protocol::units::{DurationMs, Millis};
use jiff::tz::TimeZone;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;

/// Lines of a plan's life that are shown; of more, the middle is left out.
const LINES: usize = 40;

#[derive(Template)]
#[template(path = "plan.html")]
struct PlanPage {
    page: Page,
    site: Site,
    id: String,
    goal: String,
    state: &'static str,
    /// Words about the state, below it.
    note: Option<String>,
    error: Option<String>,
    may_approve: bool,
    may_stop: bool,
    is_pending: bool,
    /// When its next moment comes, and what that is.
    until: Option<(i64, String, &'static str)>,
    window: String,
    bar: Option<Bar>,
    /// What it reached at most, once it is on its way back.
    most: Option<Quantity>,
    is_final: bool,
    /// The target isn't reached although nothing more is being stopped.
    is_short: bool,
    stopped: Option<Stopped>,
    agents: Vec<AgentLine>,
    timeline: Vec<Step>,
    targets: TargetTable,
    terms: Vec<(&'static str, String)>,
}

struct Stopped {
    by: String,
    at: String,
    force: bool,
    is_over: bool,
}

/// One agent's part of the plan.
struct AgentLine {
    hostname: String,
    online: bool,
    /// Out of contact while the plan goes on.
    is_missed: bool,
    /// It holds the plan, or has begun it.
    has_plan: bool,
    seen_at: Option<i64>,
    age: String,
    clock_is_uncertain: bool,
    /// As in style sheets; the plan's states and the agents' share their colours.
    state: &'static str,
    word: &'static str,
    bar: Bar,
    reserve: Quantity,
    why: String,
    at: Option<String>,
    forced: bool,
    /// Where the stop order is.
    order: Option<(&'static str, String)>,
}

/// A line of the plan's life.
struct Step {
    state: &'static str,
    word: String,
    at: Option<String>,
    who: String,
    why: String,
    is_now: bool,
    is_ahead: bool,
}

pub async fn show(
    State(app): State<Arc<App>>,
    page: Page,
    Path(id): Path<String>,
    Params(params): Params<TargetParams>,
) -> Result<Response> {
    let plan = store::plan(&app.stores.business, id.parse::<PlanId>()?).await?;
    Ok(html(&load(&app, page, plan, &params, None).await?))
}

pub async fn approve(
    State(app): State<Arc<App>>,
    caller: Caller,
    page: Page,
    Path(id): Path<String>,
) -> Result<Response> {
    let id = id.parse::<PlanId>()?;
    answer(&app, page, id, service::approve(&app, id, &caller).await).await
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct StopForm {
    force: Option<String>,
}

pub async fn stop(
    State(app): State<Arc<App>>,
    caller: Caller,
    page: Page,
    Path(id): Path<String>,
    Fields(form): Fields<StopForm>,
) -> Result<Response> {
    let id = id.parse::<PlanId>()?;
    answer(&app, page, id, service::stop(&app, id, form.force.is_some(), &caller.name).await).await
}

/// The plan's page: by a redirect, so that reloading it sends nothing again; or with what went wrong.
async fn answer(app: &App, mut page: Page, id: PlanId, result: Result<StoredPlan>) -> Result<Response> {
    match result {
        Ok(_) => Ok(Redirect::to(&format!("/plans/{id}")).into_response()),
        Err(error) if matches!(error.kind(), Kind::Conflict | Kind::Forbidden) => {
            let plan = store::plan(&app.stores.business, id).await?;
            page.path = format!("/plans/{id}");
            let text = error.text(page.t);
            let template = load(app, page, plan, &TargetParams::default(), Some(text)).await?;
            let status = match error.kind() {
                Kind::Forbidden => StatusCode::FORBIDDEN,
                _ => StatusCode::CONFLICT,
            };
            Ok((status, html(&template)).into_response())
        }
        Err(error) => Err(error),
    }
}

async fn load(
    app: &App,
    page: Page,
    plan: StoredPlan,
    params: &TargetParams,
    error: Option<String>,
) -> Result<PlanPage> {
    let db = &app.stores.business;
    let view = app.fleet.view(app, plan.site).await?;
    let now = app.clock.now();
    let zone = when::zone(&view.site.time_zone);
    let t = page.t;
    let allotments = store::allotments(db, plan.id).await?;
    let dispatches = latest(store::dispatches(db, plan.id).await?);
    let deliveries = progress::deliveries(db, plan.id).await?;
    let orders = progress::stop_orders(db, plan.id).await?;
    let history = store::history_of(db, plan.id).await?;
    let reached: i64 = dispatches.iter().map(|d| d.reached_w).sum();
    let target: i64 = match plan.request.target() {
        _ if !allotments.is_empty() => allotments.iter().map(|a| a.target_w).sum(),
        Some(target) => target.get().round() as i64,
        None => 0,
    };
    let is_going_back = plan.state == PlanState::Recovering || plan.state.is_final();
    let most = if is_going_back && !allotments.is_empty() {
        progress::most_reached(db, plan.id).await?.max(reached)
    } else {
        reached
    };
    // Afterwards, what it did is what it reached at most.
    let bar = (target > 0).then(|| Bar::new(if plan.state.is_final() { most } else { reached }, target));
    let agent = AgentContext {
        view: &view,
        plan: &plan,
        deliveries: &deliveries,
        orders: &orders,
        zone: &zone,
        now,
        t,
    };
    let agents = allotments.iter().map(|share| agent.line(share, &dispatches)).collect();
    let may = |permission| page.caller.as_ref().is_some_and(|caller| caller.may(permission));
    let may_run = may(Permission::RunPlans);
    let approvals = store::approvals(db, plan.id).await?;
    let has_approved = |caller: &Caller| approvals.iter().any(|approval| approval.user == caller.user);
    let is_mine = page.caller.as_ref().is_some_and(has_approved);
    let goal = words::goal(t, plan.request.goal);
    Ok(PlanPage {
        id: plan.id.to_string(),
        state: plan.state.name(),
        note: match approvals.first() {
            Some(first) if plan.state == PlanState::Pending => {
                Some(t.with1("run-note-one-of-two", "by", first.who.as_str()))
            }
            _ => note(&plan, &agent, &dispatches),
        },
        error,
        may_approve: may_run && plan.state == PlanState::Pending && !is_mine,
        may_stop: may_run && is_stoppable(&plan),
        is_pending: plan.state == PlanState::Pending,
        until: until(&plan, now),
        window: window(&plan, &zone, t),
        is_final: plan.state.is_final(),
        is_short: plan.state == PlanState::Executed
            && plan.stopped_at.is_none()
            && bar.as_ref().is_some_and(|bar| bar.missing.is_some()),
        bar,
        most: (is_going_back && plan.approved_at.is_some()).then(|| words::kilowatts(most as f64)),
        stopped: plan.stopped_at.map(|at| Stopped {
            by: plan.stopped_by.clone().unwrap_or_default(),
            at: when::moment(at, now, &zone),
            force: plan.stopped_force,
            is_over: plan.state.is_final(),
        }),
        agents,
        timeline: timeline(&plan, &history, &zone, now, t),
        targets: TargetTable::load(db, &plan, &view, params, t, now).await?,
        terms: terms(&plan, t),
        goal: goal.clone(),
        site: view.site.clone(),
        page: page.titled(Section::Sites, format!("{goal} · {}", view.site.name)),
    })
}

/// One dispatch an agent: of several intervals, the last.
fn latest(dispatches: Vec<Dispatch>) -> Vec<Dispatch> {
    let mut by_agent = HashMap::new();
    for dispatch in dispatches {
        // They come by interval, so that the last one stays.
        by_agent.insert(dispatch.agent, dispatch);
    }
    by_agent.into_values().collect()
}

/// Whether pressing stop would still do something: a stop without force can be followed by one with it.
fn is_stoppable(plan: &StoredPlan) -> bool {
    plan.state == PlanState::Pending || (plan.state.is_with_agents() && !plan.stopped_force)
}

fn until(plan: &StoredPlan, now: Millis) -> Option<(i64, String, &'static str)> {
    let end = plan.ends_at.filter(|end| *end > now && plan.stopped_at.is_none());
    let (at, key) = match plan.state {
        PlanState::Approved if plan.starts_at > now => (plan.starts_at, "run-starts-in"),
        PlanState::Approved | PlanState::Executing | PlanState::Executed => (end?, "run-ends-in"),
        _ => return None,
    };
    Some((at.0, when::countdown(at.since(now)), key))
}

fn window(plan: &StoredPlan, zone: &TimeZone, t: Language) -> String {
    match plan.state {
        PlanState::Pending if plan.request.start.is_none() => {
            let length = DurationMs::from_minutes(u64::from(plan.request.minutes));
            t.with1("order-once-approved", "length", format::duration(t, length))
        }
        _ => when::span(plan.starts_at, plan.ends_at.unwrap_or(plan.starts_at), zone),
    }
}

/// What an operator should know about this state.
fn note(plan: &StoredPlan, agent: &AgentContext<'_>, dispatches: &[Dispatch]) -> Option<String> {
    let key = match plan.state {
        PlanState::Pending => "run-note-pending",
        PlanState::Approved | PlanState::Executing | PlanState::Executed if plan.stopped_at.is_some() => {
            "run-note-stopping"
        }
        PlanState::Approved if agent.deliveries.iter().all(Delivery::is_done) => "run-note-received",
        PlanState::Approved => "run-note-sent",
        PlanState::CompletedWithFailures => "run-note-failures",
        PlanState::Executing if dispatches.len() < agent.deliveries.len() => "run-note-some-silent",
        PlanState::Recovering => "run-note-recovering",
        _ => return None,
    };
    Some(agent.t.t(key))
}

struct AgentContext<'p> {
    view: &'p View,
    plan: &'p StoredPlan,
    deliveries: &'p [Delivery],
    orders: &'p HashMap<hashinsight_protocol::ids::AgentId, StopOrder>,
    zone: &'p TimeZone,
    now: Millis,
    t: Language,
}

impl AgentContext<'_> {
    fn line(&self, share: &Allotment, dispatches: &[Dispatch]) -> AgentLine {
        let known = self.view.agents.iter().find(|a| a.id == share.agent);
        let dispatch = dispatches.iter().find(|d| d.agent == share.agent);
        let is_delivered = self.deliveries.iter().any(|d| d.agent == share.agent && d.is_done());
        let (state, word) = match dispatch {
            Some(dispatch) => dispatch_words(&dispatch.state),
            None if self.plan.state.is_final() => ("expired", "dispatch-silent"),
            None if is_delivered => ("approved", "dispatch-received"),
            None => ("pending", "dispatch-sent"),
        };
        let seen_at = known.and_then(|a| a.seen_at);
        AgentLine {
            hostname: known.map_or_else(|| share.agent.to_string(), |a| a.hostname.clone()),
            online: known.is_some_and(|a| a.is_online()),
            is_missed: !known.is_some_and(|a| a.is_online())
                && (!self.plan.state.is_final() || self.plan.state == PlanState::CompletedWithFailures),
            has_plan: is_delivered || dispatch.is_some(),
            seen_at: seen_at.map(|at| at.0),
            age: seen_at.map_or_else(|| UNKNOWN.to_owned(), |at| format::age(self.t, self.now.since(at))),
            clock_is_uncertain: known.is_some_and(|a| a.clock_is_uncertain()),
            state,
            word,
            bar: Bar::new(dispatch.map_or(0, |d| d.reached_w), share.target_w),
            reserve: words::kilowatts(share.reserve_w as f64),
            why: dispatch.map(|d| d.why.clone()).unwrap_or_default(),
            at: dispatch.map(|d| when::moment(d.at, self.now, self.zone)),
            forced: dispatch.is_some_and(|d| d.forced),
            order: self.orders.get(&share.agent).map(|order| self.order(order)),
        }
    }

    fn order(&self, order: &StopOrder) -> (&'static str, String) {
        let at = |at| when::moment(at, self.now, self.zone);
        match (order.taken, order.result_at) {
            (Some(true), Some(answered)) => ("order-taken", at(answered)),
            (Some(false), Some(answered)) => {
                ("order-refused", format!("{} {}", at(answered), order.result.as_deref().unwrap_or_default()))
            }
            _ => ("order-under-way", at(order.issued_at)),
        }
    }
}

/// The look and the words of an agent's state.
fn dispatch_words(state: &str) -> (&'static str, &'static str) {
    match state {
        "executing" => ("executing", "dispatch-executing"),
        "holding" => ("executed", "dispatch-holding"),
        "recovering" => ("recovering", "dispatch-recovering"),
        "completed" => ("completed", "dispatch-completed"),
        "completed_with_failures" => ("completed_with_failures", "dispatch-completed_with_failures"),
        "cancelled" => ("cancelled", "dispatch-cancelled"),
        "expired" => ("expired", "dispatch-expired"),
        _ => ("pending", "dispatch-unknown"),
    }
}

/// The way of a plan that goes well.
const WAY: [PlanState; 6] = [
    PlanState::Pending,
    PlanState::Approved,
    PlanState::Executing,
    PlanState::Executed,
    PlanState::Recovering,
    PlanState::Completed,
];

/// What has happened, then what is to come.
fn timeline(
    plan: &StoredPlan,
    history: &[HistoryLine],
    zone: &TimeZone,
    now: Millis,
    t: Language,
) -> Vec<Step> {
    let last = history.len().saturating_sub(1);
    let mut steps: Vec<Step> = history
        .iter()
        .enumerate()
        .map(|(at, line)| Step {
            is_now: at == last && !plan.state.is_final(),
            ..step(plan, line, zone, now, t)
        })
        .collect();
    if steps.len() > LINES {
        let left_out = steps.len() - LINES;
        let word = t.with1("step-left-out", "count", left_out as i64);
        let gap = Step {
            state: "expired",
            word,
            at: None,
            who: String::new(),
            why: String::new(),
            is_now: false,
            is_ahead: true,
        };
        steps.splice(LINES / 2..LINES / 2 + left_out, [gap]);
    }
    let is_late = plan.stopped_at.is_some();
    let ahead = WAY.iter().position(|state| *state == plan.state).map_or(&[][..], |at| &WAY[at + 1..]);
    let ahead = ahead.iter().filter(|state| {
        // A plan that was stopped goes back from where it is.
        !is_late || matches!(state, PlanState::Recovering | PlanState::Completed)
    });
    steps.extend(ahead.map(|state| Step {
        state: state.name(),
        word: t.t(&format!("step-{}", state.name())),
        at: match state {
            PlanState::Executing if plan.state == PlanState::Approved => {
                Some(when::moment(plan.starts_at, now, zone))
            }
            PlanState::Recovering if !is_late && plan.state != PlanState::Pending => {
                plan.ends_at.map(|at| when::moment(at, now, zone))
            }
            _ => None,
        },
        who: String::new(),
        why: String::new(),
        is_now: false,
        is_ahead: true,
    }));
    steps
}

fn step(plan: &StoredPlan, line: &HistoryLine, zone: &TimeZone, now: Millis, t: Language) -> Step {
    let state = PlanState::parse(&line.state).map_or("expired", PlanState::name);
    // A stop is written down under the state that it came in.
    let is_stop = matches!(line.why.as_str(), store::STOPPED | store::STOPPED_BY_FORCE)
        && plan.stopped_at.is_some_and(|at| line.at <= at);
    let (state, word, why) = match line.why.as_str() {
        store::STOPPED if is_stop => ("stopped", t.t("step-stopped"), String::new()),
        store::STOPPED_BY_FORCE if is_stop => ("stopped", t.t("step-stopped-force"), String::new()),
        store::APPROVED_BY_ONE => (state, t.t("step-approved-by-one"), String::new()),
        why => (state, t.t(&format!("step-{state}")), why.to_owned()),
    };
    Step {
        state,
        word,
        at: Some(when::moment(line.at, now, zone)),
        who: match line.who.as_str() {
            "agents" => t.t("who-agents"),
            "hashinsight" => t.t("who-hashinsight"),
            name => name.to_owned(),
        },
        why: match why.as_str() {
            NOT_APPROVED => t.t("why-not-approved"),
            store::APPROVED_BY_ONE => String::new(),
            _ => why,
        },
        is_now: false,
        is_ahead: false,
    }
}

/// What was ordered, as names' keys and values.
fn terms(plan: &StoredPlan, t: Language) -> Vec<(&'static str, String)> {
    let request = &plan.request;
    let ramp = |ramp: crate::curtailment::request::Ramp| {
        t.with(
            "run-ramp",
            &[("batch", i64::from(ramp.batch).into()), ("seconds", i64::from(ramp.every_s).into())],
        )
    };
    let rest = |seconds: u32| format::duration(t, DurationMs::from_secs(u64::from(seconds)));
    let mut terms = vec![
        ("plan-goal", words::goal(t, request.goal)),
        ("plan-length", format::duration(t, DurationMs::from_minutes(u64::from(request.minutes)))),
    ];
    if request.goal != Goal::All {
        terms.push((
            "order-order",
            t.t(match request.order {
                Order::LeastEfficientFirst => "order-least-efficient",
                Order::MostPowerFirst => "order-most-power",
            }),
        ));
    }
    terms.extend([
        ("order-ramp-down", ramp(request.usual().ramp_down)),
        ("order-ramp-up", ramp(request.usual().ramp_up)),
        ("order-min-off", rest(request.usual().rules.min_off_s)),
        ("order-min-on", rest(request.usual().rules.min_on_s)),
        (
            "order-starts",
            request.usual().rules.starts_a_day.map_or_else(|| t.t("order-starts-any"), |n| n.to_string()),
        ),
    ]);
    if !request.exclude.is_empty() {
        terms.push(("run-excluded", format::grouped(request.exclude.len() as i64)));
    }
    if !request.reason.is_empty() {
        terms.push(("plan-reason", request.reason.clone()));
    }
    terms.push(("run-id", plan.id.to_string()));
    terms
}

#[derive(Template)]
#[template(path = "plan_stop.html")]
struct StopPage {
    page: Page,
    site: Site,
    id: String,
    goal: String,
    is_pending: bool,
    /// A stop without force was ordered already.
    is_stopped: bool,
    asleep: String,
    min_off: String,
    batch: i64,
    every: i64,
    away: Vec<String>,
}

/// The page that asks once more.
pub async fn confirm_stop(
    State(app): State<Arc<App>>,
    page: Page,
    Path(id): Path<String>,
) -> Result<Response> {
    let db = &app.stores.business;
    let plan = store::plan(db, id.parse::<PlanId>()?).await?;
    if !is_stoppable(&plan) {
        return Ok(Redirect::to(&format!("/plans/{}", plan.id)).into_response());
    }
    let view = app.fleet.view(&app, plan.site).await?;
    let counts = progress::target_counts(db, plan.id).await?;
    let asleep: i64 =
        ["curtailed", "stopping", "drifted"].iter().filter_map(|state| counts.get(*state)).sum();
    let shares = store::allotments(db, plan.id).await?;
    let away =
        view.agents.iter().filter(|a| !a.is_online() && shares.iter().any(|share| share.agent == a.id));
    let ramp = plan.request.usual().ramp_up;
    let title = page.t.t(if plan.state == PlanState::Pending { "stop-title-pending" } else { "stop-title" });
    Ok(html(&StopPage {
        id: plan.id.to_string(),
        goal: words::goal(page.t, plan.request.goal),
        is_pending: plan.state == PlanState::Pending,
        is_stopped: plan.stopped_at.is_some(),
        asleep: format::grouped(asleep),
        min_off: format::duration(
            page.t,
            DurationMs::from_secs(u64::from(plan.request.usual().rules.min_off_s)),
        ),
        batch: i64::from(ramp.batch),
        every: i64::from(ramp.every_s),
        away: away.map(|agent| agent.hostname.clone()).collect(),
        site: view.site.clone(),
        page: page.titled(Section::Sites, title),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::evidence::DispatchStateV1::*;

    #[test]
    fn every_state_of_an_agent_has_its_words() {
        for state in [Executing, Holding, Recovering, Completed, CompletedWithFailures, Cancelled, Expired] {
            let name = crate::curtailment::fleet_view::name_of(state);
            let (_, key) = dispatch_words(&name);
            assert_ne!(key, "dispatch-unknown", "{name}");
            for t in Language::ALL {
                assert_ne!(t.t(key), key);
            }
        }
        for state in PlanState::ALL {
            let key = format!("step-{}", state.name());
            assert_ne!(Language::Chinese.t(&key), key);
        }
    }
}
