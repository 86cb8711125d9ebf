//! Plans in the database.

use super::request::{PlanRequest, Share};
use super::state::PlanState;
use crate::error::{Error, Result};
use crate::store::{Db, Tx};
use crate::{args, row};
use hashinsight_protocol::ids::{AgentId, MinerId, PlanId, SiteId, UserId};
use hashinsight_protocol::units::{Hashrate, Millis, Watts};
use std::collections::BTreeMap;

/// Why a plan's history has a line for an approval that does not suffice alone.
pub const APPROVED_BY_ONE: &str = "approved by one of two";
/// Why a plan's history has a line for a stop by hand.
pub const STOPPED: &str = "stopped by hand";
pub const STOPPED_BY_FORCE: &str = "stopped by hand, dwell times broken";

row! {
    struct PlanRow {
        id: PlanId,
        site: SiteId,
        body: String,
        state: String,
        revision: u32,
        version: i64,
        created_by: String,
        created_at: Millis,
        approved_by: Option<String>,
        approved_at: Option<Millis>,
        starts_at: Millis,
        ends_at: Option<Millis>,
        stopped_by: Option<String>,
        stopped_at: Option<Millis>,
        stopped_force: bool,
        ended_at: Option<Millis>,
    }
}

/// A plan as kept.
#[derive(Clone, Debug)]
pub struct StoredPlan {
    pub id: PlanId,
    pub site: SiteId,
    pub request: PlanRequest,
    pub state: PlanState,
    pub revision: u32,
    /// Rises with every change: a change is made on the version that was read, or not at all.
    pub version: i64,
    pub created_by: String,
    pub created_at: Millis,
    pub approved_by: Option<String>,
    pub approved_at: Option<Millis>,
    pub starts_at: Millis,
    pub ends_at: Option<Millis>,
    pub stopped_by: Option<String>,
    pub stopped_at: Option<Millis>,
    pub stopped_force: bool,
    pub ended_at: Option<Millis>,
}

impl TryFrom<PlanRow> for StoredPlan {
    type Error = Error;
    fn try_from(row: PlanRow) -> Result<Self> {
        let state = PlanState::parse(&row.state)
            .ok_or_else(|| Error::internal(format!("plan {} has the unknown state {}", row.id, row.state)))?;
        Ok(Self {
            id: row.id,
            site: row.site,
            request: serde_json::from_str(&row.body)?,
            state,
            revision: row.revision,
            version: row.version,
            created_by: row.created_by,
            created_at: row.created_at,
            approved_by: row.approved_by,
            approved_at: row.approved_at,
            starts_at: row.starts_at,
            ends_at: row.ends_at,
            stopped_by: row.stopped_by,
            stopped_at: row.stopped_at,
            stopped_force: row.stopped_force,
            ended_at: row.ended_at,
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select id, site_id, body, state, revision, version, created_by, created_at, approved_by, ",
            "approved_at, starts_at, ends_at, stopped_by, stopped_at, stopped_force, ended_at from plans ",
            $rest
        )
    };
}

fn stored(row: Option<PlanRow>) -> Result<StoredPlan> {
    row.ok_or_else(Error::not_found)?.try_into()
}

pub async fn plan(db: &Db, id: PlanId) -> Result<StoredPlan> {
    stored(db.fetch_optional(select!("where id = $1"), args![id]).await?)
}

pub async fn plan_in(tx: &mut Tx, id: PlanId) -> Result<StoredPlan> {
    stored(tx.fetch_optional(select!("where id = $1"), args![id]).await?)
}

pub async fn plan_by_key(tx: &mut Tx, key: &str) -> Result<Option<StoredPlan>> {
    let row: Option<PlanRow> = tx.fetch_optional(select!("where idempotency_key = $1"), args![key]).await?;
    row.map(StoredPlan::try_from).transpose()
}

/// The plan that was ordered with this key, if there is one.
pub async fn plan_of_key(db: &Db, key: &str) -> Result<Option<StoredPlan>> {
    let row: Option<PlanRow> = db.fetch_optional(select!("where idempotency_key = $1"), args![key]).await?;
    row.map(StoredPlan::try_from).transpose()
}

/// A site's plans, the newest first.
pub async fn plans_of_site(db: &Db, site: SiteId, most: u32) -> Result<Vec<StoredPlan>> {
    let sql = select!("where site_id = $1 order by created_at desc, id limit $2");
    let rows: Vec<PlanRow> = db.fetch_all(sql, args![site, most]).await?;
    rows.into_iter().map(StoredPlan::try_from).collect()
}

/// Plans that wait or run; the final ones are left out.
pub async fn open_plans(db: &Db) -> Result<Vec<StoredPlan>> {
    let sql = select!(
        "where state in ('pending', 'approved', 'executing', 'executed', 'recovering', \
         'completed_with_failures') order by created_at, id"
    );
    let rows: Vec<PlanRow> = db.fetch_all(sql, args![]).await?;
    rows.into_iter().map(StoredPlan::try_from).collect()
}

pub async fn insert(tx: &mut Tx, plan: &StoredPlan, key: Option<&str>) -> Result<()> {
    let body = serde_json::to_string(&plan.request)?;
    tx.execute(
        "insert into plans (id, site_id, body, state, revision, version, idempotency_key, created_by, \
         created_at, starts_at, ends_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        args![
            plan.id,
            plan.site,
            body,
            plan.state.name(),
            plan.revision,
            plan.version,
            key,
            &plan.created_by,
            plan.created_at,
            plan.starts_at,
            plan.ends_at
        ],
    )
    .await?;
    Ok(())
}

/// Moves a plan to `state` if nobody changed it meanwhile.
///
/// # Errors
/// Somebody did: a conflict.
pub async fn change_state(
    tx: &mut Tx,
    plan: &StoredPlan,
    state: PlanState,
    at: Millis,
    who: &str,
    why: &str,
) -> Result<()> {
    let ended = state.is_final().then_some(at);
    let changed = tx
        .execute(
            "update plans set state = $3, version = version + 1, ended_at = $4 where id = $1 and version = $2",
            args![plan.id, plan.version, state.name(), ended],
        )
        .await?;
    if changed == 0 {
        return Err(Error::conflict("somebody else changed this plan at the same moment; look again"));
    }
    history(tx, plan.id, state, at, who, why).await
}

pub async fn approve(
    tx: &mut Tx,
    plan: &StoredPlan,
    at: Millis,
    who: &str,
    starts: Millis,
    ends: Millis,
) -> Result<()> {
    change_state(tx, plan, PlanState::Approved, at, who, "").await?;
    tx.execute(
        "update plans set approved_by = $2, approved_at = $3, starts_at = $4, ends_at = $5 where id = $1",
        args![plan.id, who, at, starts, ends],
    )
    .await?;
    Ok(())
}

row! {
    /// One person's approval of a plan.
    #[derive(Clone, Debug, serde::Serialize)]
    pub struct Approval {
        pub user: UserId,
        pub who: String,
        pub at: Millis,
    }
}

const APPROVALS: &str = "select user_id, who, at from plan_approvals where plan_id = $1 order by at, user_id";

pub async fn approvals(db: &Db, id: PlanId) -> Result<Vec<Approval>> {
    db.fetch_all(APPROVALS, args![id]).await
}

pub async fn approvals_in(tx: &mut Tx, id: PlanId) -> Result<Vec<Approval>> {
    tx.fetch_all(APPROVALS, args![id]).await
}

/// Keeps that one more person has approved; somebody who has before changes nothing.
pub async fn add_approval(tx: &mut Tx, id: PlanId, approval: &Approval) -> Result<()> {
    tx.execute(
        "insert into plan_approvals (plan_id, user_id, who, at) values ($1, $2, $3, $4)
         on conflict (plan_id, user_id) do nothing",
        args![id, approval.user, &approval.who, approval.at],
    )
    .await?;
    Ok(())
}

/// Writes down that the plan waits for another person still.
///
/// # Errors
/// Somebody changed the plan meanwhile: a conflict.
pub async fn approved_by_one(tx: &mut Tx, plan: &StoredPlan, at: Millis, who: &str) -> Result<()> {
    change_state(tx, plan, PlanState::Pending, at, who, APPROVED_BY_ONE).await
}

pub async fn mark_stopped(tx: &mut Tx, plan: &StoredPlan, at: Millis, who: &str, force: bool) -> Result<()> {
    tx.execute(
        "update plans set stopped_by = $2, stopped_at = $3, stopped_force = $4 where id = $1",
        args![plan.id, who, at, force],
    )
    .await?;
    let why = if force { STOPPED_BY_FORCE } else { STOPPED };
    history(tx, plan.id, plan.state, at, who, why).await
}

async fn history(tx: &mut Tx, id: PlanId, state: PlanState, at: Millis, who: &str, why: &str) -> Result<()> {
    tx.execute(
        "insert into plan_history (plan_id, number, state, at, who, why) select $1, \
         coalesce(max(number), 0) + 1, $2, $3, $4, $5 from plan_history where plan_id = $1",
        args![id, state.name(), at, who, why],
    )
    .await?;
    Ok(())
}

/// The first line of a plan's history.
pub async fn begin_history(tx: &mut Tx, plan: &StoredPlan) -> Result<()> {
    history(tx, plan.id, plan.state, plan.created_at, &plan.created_by, &plan.request.reason).await
}

pub async fn set_shares(tx: &mut Tx, id: PlanId, shares: &BTreeMap<AgentId, Share>) -> Result<()> {
    tx.execute("delete from plan_allotments where plan_id = $1", args![id]).await?;
    for (agent, share) in shares {
        tx.execute(
            "insert into plan_allotments (plan_id, agent_id, target_w, reserve_w) values ($1, $2, $3, $4)",
            args![id, *agent, share.target.get() as i64, share.reserve.get() as i64],
        )
        .await?;
    }
    Ok(())
}

row! {
    /// One agent's part of a plan.
    #[derive(Clone, Debug)]
    pub struct Allotment {
        pub agent: AgentId,
        pub target_w: i64,
        pub reserve_w: i64,
    }
}

impl Allotment {
    pub fn share(&self) -> Share {
        let watts = |w: i64| Watts::new(w as f64).unwrap_or_default();
        Share { target: watts(self.target_w), reserve: watts(self.reserve_w) }
    }
}

pub async fn allotments(db: &Db, id: PlanId) -> Result<Vec<Allotment>> {
    let sql =
        "select agent_id, target_w, reserve_w from plan_allotments where plan_id = $1 order by agent_id";
    db.fetch_all(sql, args![id]).await
}

/// The agents that have a share.
pub async fn allotted(tx: &mut Tx, id: PlanId) -> Result<Vec<AgentId>> {
    let sql = "select agent_id from plan_allotments where plan_id = $1 order by agent_id";
    let rows: Vec<(AgentId,)> = tx.fetch_all(sql, args![id]).await?;
    Ok(rows.into_iter().map(|(agent,)| agent).collect())
}

row! {
    /// A plan's run at one agent.
    #[derive(Clone, Debug, serde::Serialize)]
    pub struct Dispatch {
        pub agent: AgentId,
        pub interval: u32,
        pub state: String,
        pub target_w: i64,
        pub reached_w: i64,
        pub targets: i64,
        pub forced: bool,
        pub why: String,
        pub at: Millis,
    }
}

pub async fn dispatches(db: &Db, id: PlanId) -> Result<Vec<Dispatch>> {
    db.fetch_all(
        "select agent_id, interval_number, state, target_w, reached_w, targets, forced, why, at \
         from dispatches where plan_id = $1 order by interval_number, agent_id",
        args![id],
    )
    .await
}

/// The state of the dispatch of each allotted agent, for [`super::state::after_report`].
pub async fn dispatch_states(tx: &mut Tx, id: PlanId) -> Result<Vec<Option<String>>> {
    let rows: Vec<(AgentId, Option<String>)> = tx
        .fetch_all(
            "select a.agent_id, d.state from plan_allotments a left join dispatches d \
             on d.plan_id = a.plan_id and d.agent_id = a.agent_id where a.plan_id = $1",
            args![id],
        )
        .await?;
    Ok(rows.into_iter().map(|(_, state)| state).collect())
}

row! {
    /// A miner of a dispatch, with its proof.
    #[derive(Clone, Debug, serde::Serialize)]
    pub struct Target {
        pub miner: MinerId,
        pub agent: AgentId,
        pub interval: u32,
        pub state: String,
        pub accepted: String,
        pub mode: String,
        pub effect: String,
        pub power_before_w: Option<i64>,
        pub power_now_w: Option<i64>,
        pub hashrate_now_hs: Option<Hashrate>,
        pub why: String,
        pub at: Millis,
        pub rack: Option<String>,
        pub position: Option<String>,
        pub model: Option<String>,
        pub firmware: Option<String>,
    }
}

pub async fn targets(db: &Db, id: PlanId) -> Result<Vec<Target>> {
    db.fetch_all(
        "select t.miner_id, t.agent_id, t.interval_number, t.state, t.accepted, t.mode, t.effect, \
         t.power_before_w, t.power_now_w, t.hashrate_now_hs, t.why, t.at, m.rack, m.position, m.model, m.firmware \
         from targets t left join miners m on m.id = t.miner_id where t.plan_id = $1 \
         order by t.state, t.at desc, t.miner_id",
        args![id],
    )
    .await
}

row! {
    /// A step in a plan's life.
    #[derive(Clone, Debug, serde::Serialize)]
    pub struct HistoryLine {
        pub state: String,
        pub at: Millis,
        pub who: String,
        pub why: String,
    }
}

pub async fn history_of(db: &Db, id: PlanId) -> Result<Vec<HistoryLine>> {
    let sql = "select state, at, who, why from plan_history where plan_id = $1 order by number";
    db.fetch_all(sql, args![id]).await
}
