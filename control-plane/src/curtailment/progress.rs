//! What the console shows of plans beyond what is stored of each: how far they are, what has reached
//! whom, and their targets a page at a time.

use super::store::Target;
use crate::error::Result;
use crate::store::Db;
use crate::{args, row};
use hashinsight_protocol::evidence::DispatchStepV1;
use hashinsight_protocol::ids::{AgentId, PlanId, SiteId};
use hashinsight_protocol::units::Millis;
use std::collections::HashMap;

/// Steps that are read to find what a plan reached at most.
const STEPS: u32 = 20_000;

row! {
    /// What a plan of a site wants reduced, and what its agents have proven.
    #[derive(Clone, Copy, Debug)]
    pub struct Reached {
        pub plan: PlanId,
        pub target_w: i64,
        pub reached_w: i64,
    }
}

/// How far the plans of a site are that agents work on.
///
/// # Errors
/// The database fails; so for all below.
pub async fn running(db: &Db, site: SiteId) -> Result<Vec<Reached>> {
    db.fetch_all(
        "select p.id, \
         (select cast(coalesce(sum(a.target_w), 0) as bigint) from plan_allotments a where a.plan_id = p.id), \
         (select cast(coalesce(sum(d.reached_w), 0) as bigint) from dispatches d where d.plan_id = p.id) from plans p \
         where p.site_id = $1 and p.state in ('approved', 'executing', 'executed', 'recovering')",
        args![site],
    )
    .await
}

row! {
    /// Whether a plan's document has reached an agent.
    #[derive(Clone, Copy, Debug)]
    pub struct Delivery {
        pub agent: AgentId,
        /// The agent's present document.
        pub version: Option<i64>,
        /// The one that the agent says it holds.
        pub held: Option<i64>,
    }
}

impl Delivery {
    pub fn is_done(&self) -> bool {
        self.version.is_some_and(|version| self.held.is_some_and(|held| held >= version))
    }
}

/// One for each agent with a share.
pub async fn deliveries(db: &Db, id: PlanId) -> Result<Vec<Delivery>> {
    db.fetch_all(
        "select a.agent_id, d.version, p.document_held from plan_allotments a \
         left join desired_documents d on d.agent_id = a.agent_id \
         left join agent_presence p on p.agent_id = a.agent_id where a.plan_id = $1",
        args![id],
    )
    .await
}

row! {
    /// A stop order on its way to an agent, or its answer.
    #[derive(Clone, Debug)]
    pub struct StopOrder {
        pub agent: AgentId,
        pub issued_at: Millis,
        pub taken: Option<bool>,
        pub result: Option<String>,
        pub result_at: Option<Millis>,
    }
}

/// The latest stop order of a plan for each agent.
pub async fn stop_orders(db: &Db, id: PlanId) -> Result<HashMap<AgentId, StopOrder>> {
    let sql = "select agent_id, issued_at, taken, result, result_at from orders where plan_id = $1 \
               order by issued_at, id";
    let orders: Vec<StopOrder> = db.fetch_all(sql, args![id]).await?;
    Ok(orders.into_iter().map(|order| (order.agent, order)).collect())
}

/// How many targets are in each state, by its stored name.
pub async fn target_counts(db: &Db, id: PlanId) -> Result<HashMap<String, i64>> {
    let sql = "select state, count(*) from targets where plan_id = $1 group by state";
    let rows: Vec<(String, i64)> = db.fetch_all(sql, args![id]).await?;
    Ok(rows.into_iter().collect())
}

/// A part of a plan's targets: those that need a look first, then by rack and position. An empty `state`
/// is any.
pub async fn targets_page(db: &Db, id: PlanId, state: &str, limit: u32, offset: u32) -> Result<Vec<Target>> {
    db.fetch_all(
        "select t.miner_id, t.agent_id, t.interval_number, t.state, t.accepted, t.mode, t.effect, \
         t.power_before_w, t.power_now_w, t.hashrate_now_hs, t.why, t.at, m.rack, m.position, m.model, m.firmware \
         from targets t left join miners m on m.id = t.miner_id \
         where t.plan_id = $1 and ($2 = '' or t.state = $2) \
         order by case t.state when 'restore_failed' then 0 when 'drifted' then 1 when 'refused' then 2 \
         when 'unreachable' then 3 when 'stopping' then 4 when 'waking' then 5 when 'planned' then 6 \
         when 'curtailed' then 7 when 'released' then 8 else 9 end, \
         coalesce(length(m.rack), 0), m.rack, coalesce(length(m.position), 0), m.position, t.miner_id limit $3 offset $4",
        args![id, state, limit, offset],
    )
    .await
}

/// The most that all agents together had proven reduced at one time, from the evidence.
pub async fn most_reached(db: &Db, id: PlanId) -> Result<i64> {
    let sql = "select agent_id, body from evidence where plan_id = $1 and miner_id is null \
               order by at, id limit $2";
    let steps: Vec<(AgentId, String)> = db.fetch_all(sql, args![id, STEPS]).await?;
    let mut reached: HashMap<AgentId, f64> = HashMap::new();
    let mut most = 0.0_f64;
    for (agent, body) in steps {
        let step: DispatchStepV1 = serde_json::from_str(&body)?;
        reached.insert(agent, step.reached.get());
        most = most.max(reached.values().sum());
    }
    Ok(most.round() as i64)
}
