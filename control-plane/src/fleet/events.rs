//! What the agents of a site have told: starts, gaps, alarms, refusals, changes by hand.

use crate::error::Result;
use crate::store::Db;
use crate::{args, row};
use hashinsight_protocol::ids::{AgentId, SiteId};
use hashinsight_protocol::units::Millis;
use serde::Serialize;

row! {
    struct EventRow {
        id: i64,
        agent: AgentId,
        kind: String,
        at: Millis,
        received_at: Millis,
        body: String,
    }
}

/// One event.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Rises with the order of arrival.
    pub id: i64,
    pub agent: AgentId,
    pub kind: String,
    /// By the gateway's clock.
    pub at: Millis,
    pub received_at: Millis,
    pub body: serde_json::Value,
}

/// The latest events of a site, newest first: of one kind, or of all; those that arrived before another.
///
/// # Errors
/// The database fails.
pub async fn latest(
    db: &Db,
    site: SiteId,
    kind: Option<&str>,
    before: Option<i64>,
    most: u32,
) -> Result<Vec<Event>> {
    let rows: Vec<EventRow> = db
        .fetch_all(
            "select e.id, e.agent_id, e.kind, e.at, e.received_at, e.body
             from agent_events e join agents a on a.id = e.agent_id
             where a.site_id = $1 and e.id < $2 and ($3 = '' or e.kind = $3)
             order by e.id desc limit $4",
            args![site, before.unwrap_or(i64::MAX), kind.unwrap_or_default(), i64::from(most)],
        )
        .await?;
    let event = |row: EventRow| {
        let EventRow { id, agent, kind, at, received_at, body } = row;
        let body = serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body));
        Event { id, agent, kind, at, received_at, body }
    };
    Ok(rows.into_iter().map(event).collect())
}
