//! What agents are told that have lost their journal: the miners that an earlier one held.
//!
//! A target that was last told of by another journal than the agent's present one, and may still be asleep,
//! is sent until the present journal has told of it. With it goes the version of the document that the agent
//! should hold: a plan that goes on takes its miners back, all others are woken.

use crate::App;
use crate::error::Result;
use crate::{args, row};
use hashinsight_protocol::device::PreStateV1;
use hashinsight_protocol::ids::{AgentId, MinerId, PlanId};
use hashinsight_protocol::limits::HELD_MINERS;
use hashinsight_protocol::recovery::{HeldMinerV1, HeldMinersV1};
use hashinsight_protocol::units::Watts;

/// Targets of another journal that may be asleep, with what is known of how they were before.
macro_rules! orphaned {
    ($columns:literal, $rest:literal) => {
        concat!(
            "select ",
            $columns,
            " from targets t
              join agent_presence p on p.agent_id = t.agent_id and p.journal is not null and p.journal <> t.epoch
              join dispatches d on d.plan_id = t.plan_id and d.agent_id = t.agent_id
                  and d.interval_number = t.interval_number
              where t.state in ('stopping', 'curtailed', 'drifted', 'refused', 'unreachable', 'waking',
                                'restore_failed')
                and t.pre_state is not null and d.state not in ('completed', 'cancelled', 'expired')
                and p.online = 1 ",
            $rest
        )
    };
}

/// The agents that have to be told.
///
/// # Errors
/// The database fails; so below.
pub async fn agents(app: &App) -> Result<Vec<AgentId>> {
    let sql = orphaned!("distinct t.agent_id", "");
    let agents: Vec<(AgentId,)> = app.stores.business.fetch_all(sql, args![]).await?;
    Ok(agents.into_iter().map(|(agent,)| agent).collect())
}

row! {
    struct HeldRow {
        miner: MinerId,
        plan: PlanId,
        interval: u32,
        pre: String,
        power_before_w: Option<i64>,
    }
}

/// What one agent is told, in as many messages as it takes.
///
/// # Errors
/// A pre-state can't be read.
pub async fn of(app: &App, agent: AgentId) -> Result<Vec<HeldMinersV1>> {
    let sql = orphaned!(
        "t.miner_id, t.plan_id, t.interval_number, t.pre_state, t.power_before_w",
        "and t.agent_id = $1 order by t.miner_id, t.plan_id, t.interval_number"
    );
    let rows: Vec<HeldRow> = app.stores.business.fetch_all(sql, args![agent]).await?;
    let held: Vec<HeldMinerV1> = rows
        .into_iter()
        .map(|row| {
            let pre: PreStateV1 = serde_json::from_str(&row.pre)?;
            let power_before = row.power_before_w.and_then(|w| Watts::new(w as f64));
            Ok(HeldMinerV1 { miner: row.miner, plan: row.plan, interval: row.interval, pre, power_before })
        })
        .collect::<Result<_>>()?;
    let sql = "select version from desired_documents where agent_id = $1";
    let document: Option<(u64,)> = app.stores.business.fetch_optional(sql, args![agent]).await?;
    let document = document.map_or(0, |(version,)| version);
    Ok(held.chunks(HELD_MINERS).map(|miners| HeldMinersV1 { document, miners: miners.to_vec() }).collect())
}
