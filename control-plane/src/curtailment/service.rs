//! What operators do with plans: preview, order, approve, stop.

use super::approval;
use super::fleet_view::{self, FleetView};
use super::request::{PlanRequest, Share};
use super::share::divide;
use super::state::{PlanState, after_report};
use super::store::{self, Approval, StoredPlan};
use super::usual;
use crate::App;
use crate::error::{Error, Result};
use crate::identity::Caller;
use crate::store::Tx;
use crate::web::i18n::Message;
use hashinsight_curtailment::{Book, Policy, Preview, preview};
use hashinsight_protocol::ids::{AgentId, PlanId, SiteId};
use hashinsight_protocol::order::CommandV1;
use hashinsight_protocol::units::{DurationMs, Millis};
use std::collections::BTreeMap;

/// A stop order is repeated for this long after its plan's end: an agent that comes back that late has
/// ended the plan by itself.
const STOP_ORDER_LIVES: DurationMs = DurationMs::from_minutes(24 * 60);

/// What a plan would do, whole and divided.
pub struct SitePreview {
    pub at: Millis,
    pub preview: Preview,
    pub shares: BTreeMap<AgentId, Share>,
    pub fleet: FleetView,
}

/// What `request` would do if it started now, by the same engine that agents run.
///
/// # Errors
/// The request can't be meant, or a database fails.
pub async fn preview_request(app: &App, request: &PlanRequest) -> Result<SitePreview> {
    let at = app.clock.now();
    request.check(at)?;
    let request = &request.clone().settled(&usual::of(&app.stores.business, request.site).await?);
    let fleet = FleetView::of(app, request.site).await?;
    let id = PlanId::from_bytes([0; 16]);
    let plan = request.plan(id, 1, request.start.unwrap_or(at), None);
    let preview = preview(fleet_view::now(at), &Policy::default(), &plan, &fleet.miners, &Book::default());
    let shares = divide(request.target(), &preview, &fleet.agent_of);
    Ok(SitePreview { at, preview, shares, fleet })
}

/// Writes an order down; it does nothing until it is approved. The same key again returns the same plan.
///
/// # Errors
/// The request can't be meant, the key stands for another request, or a database fails.
pub async fn create(app: &App, request: PlanRequest, key: Option<&str>, who: &str) -> Result<StoredPlan> {
    let now = app.clock.now();
    if key.is_some_and(|k| k.is_empty() || k.len() > 128) {
        return Err(Error::invalid("an idempotency key has 1 to 128 characters"));
    }
    let usual = usual::of(&app.stores.business, request.site).await?;
    let mut tx = app.stores.business.begin().await?;
    // Before all else: what was ordered once is found again when its start has passed, too.
    if let Some(key) = key
        && let Some(before) = store::plan_by_key(&mut tx, key).await?
    {
        // What it leaves open is as it was then, whatever has become usual since.
        return if before.request == request.settled(&before.request.usual()) {
            Ok(before)
        } else {
            Err(Error::conflict(Message::key("error-plan-key")))
        };
    }
    request.check(now)?;
    let request = request.settled(&usual);
    let starts_at = request.start.unwrap_or(now);
    let plan = StoredPlan {
        id: PlanId::from_random(crate::random::bytes()),
        site: request.site,
        state: PlanState::Pending,
        revision: 1,
        version: 1,
        created_by: who.to_owned(),
        created_at: now,
        approved_by: None,
        approved_at: None,
        starts_at,
        ends_at: Some(request.end(starts_at)),
        stopped_by: None,
        stopped_at: None,
        stopped_force: false,
        ended_at: None,
        request,
    };
    let site: Option<(SiteId,)> =
        tx.fetch_optional("select id from sites where id = $1", crate::args![plan.site]).await?;
    if site.is_none() {
        return Err(Error::not_found());
    }
    store::insert(&mut tx, &plan, key).await?;
    store::begin_history(&mut tx, &plan).await?;
    crate::audit::record(&mut tx, now, who, "plan.create", &plan.id.to_string(), &plan.request.reason)
        .await?;
    tx.commit().await?;
    app.live.changed(plan.site);
    Ok(plan)
}

/// Takes somebody's approval of a pending plan. With the last one that it takes, it is divided among the
/// site's agents by the present readings and handed to them; until then it stays pending.
///
/// # Errors
/// The plan isn't pending, its time is over, nothing can be stopped, the caller's word does not count
/// ([`approval`]), or a database fails.
pub async fn approve(app: &App, id: PlanId, caller: &Caller) -> Result<StoredPlan> {
    let who = caller.name.as_str();
    let plan = store::plan(&app.stores.business, id).await?;
    let now = app.clock.now();
    // A plan that was to start at once starts when it is approved, and lasts as long as was asked.
    let start = plan.request.start.unwrap_or(now);
    let end = plan.request.end(start);
    if plan.state != PlanState::Pending {
        return Err(Error::conflict(Message::key("error-plan-not-pending")));
    }
    if end <= now {
        return Err(Error::conflict(Message::key("error-plan-over")));
    }
    let mut request = plan.request.clone();
    request.start = None;
    let seen = preview_request(app, &request).await?;
    if seen.shares.is_empty() {
        return Err(Error::conflict(Message::key("error-plan-nothing")));
    }
    let rule = approval::rule(&app.stores.business, plan.site).await?;
    let size = plan.request.target().unwrap_or(seen.preview.reduces);
    let mut tx = app.stores.business.begin().await?;
    let plan = store::plan_in(&mut tx, id).await?;
    if plan.state != PlanState::Pending {
        return Err(Error::conflict(Message::key("error-plan-not-pending")));
    }
    let is_enough = rule.judge(size, caller, &store::approvals_in(&mut tx, id).await?)?;
    let approval = Approval { user: caller.user, who: who.to_owned(), at: now };
    store::add_approval(&mut tx, id, &approval).await?;
    if !is_enough {
        store::approved_by_one(&mut tx, &plan, now, who).await?;
        crate::audit::record(&mut tx, now, who, "plan.approve.one", &id.to_string(), "").await?;
        tx.commit().await?;
        app.live.changed(plan.site);
        return store::plan(&app.stores.business, id).await;
    }
    store::set_shares(&mut tx, id, &seen.shares).await?;
    store::approve(&mut tx, &plan, now, who, start, end).await?;
    crate::audit::record(&mut tx, now, who, "plan.approve", &id.to_string(), "").await?;
    tx.commit().await?;
    super::documents::refresh(app, seen.shares.keys().copied()).await?;
    app.live.changed(plan.site);
    store::plan(&app.stores.business, id).await
}

/// Ends a plan now. One that no agent has yet is cancelled; a running one begins to wake its miners.
/// `force` breaks the shortest time asleep, and is recorded.
///
/// # Errors
/// The plan has ended already, or a database fails.
pub async fn stop(app: &App, id: PlanId, force: bool, who: &str) -> Result<StoredPlan> {
    let now = app.clock.now();
    let mut tx = app.stores.business.begin().await?;
    let plan = store::plan_in(&mut tx, id).await?;
    // A second press of the button changes neither who it was nor when.
    if plan.state.is_with_agents() && plan.stopped_at.is_some() && (plan.stopped_force || !force) {
        return Ok(plan);
    }
    let mut ordered = Vec::new();
    if plan.state == PlanState::Pending {
        store::change_state(&mut tx, &plan, PlanState::Cancelled, now, who, "").await?;
    } else if plan.state.is_with_agents() {
        store::mark_stopped(&mut tx, &plan, now, who, force).await?;
        let expires = plan.ends_at.unwrap_or(now).max(now).plus(STOP_ORDER_LIVES);
        for agent in store::allotted(&mut tx, id).await? {
            let command = CommandV1::Stop { plan: id, force };
            super::documents::order(app, &mut tx, agent, Some(id), command, expires, who).await?;
            ordered.push(agent);
        }
    } else {
        return Err(Error::conflict(Message::key("error-plan-nothing-to-stop")));
    }
    let what = if force { "plan.stop.force" } else { "plan.stop" };
    crate::audit::record(&mut tx, now, who, what, &id.to_string(), "").await?;
    tx.commit().await?;
    ordered.into_iter().for_each(|agent| app.nudge.agent(agent));
    app.live.changed(plan.site);
    store::plan(&app.stores.business, id).await
}

/// Moves a plan to where its agents' reports say it stands, within the transaction that stores a report.
///
/// # Errors
/// A database fails.
pub async fn reported(tx: &mut Tx, id: PlanId, now: Millis, why: &str) -> Result<Option<SiteId>> {
    let plan = match store::plan_in(tx, id).await {
        Ok(plan) => plan,
        // An agent may report of a plan that a restored database has never seen.
        Err(error) if error.kind() == crate::error::Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let states: Vec<_> = store::dispatch_states(tx, id)
        .await?
        .into_iter()
        .map(|state| state.as_deref().and_then(fleet_view::named))
        .collect();
    let state = after_report(plan.state, &states);
    if state != plan.state {
        store::change_state(tx, &plan, state, now, "agents", why).await?;
    }
    Ok(Some(plan.site))
}
