//! Whether an agent is there, and what it said when it came.
//!
//! Every connection of an agent has a session number, which its hello and its will carry: a will of
//! another session than the present one is late and changes nothing. The number rises; one that falls
//! comes from a restored disk and counts as well, since its sender holds the agent's key.
//! Presence is a cache of what the wire said: after a restart everybody is away until heard of, and
//! whoever is not connected any more is away, should its will be lost.

use crate::args;
use crate::error::Result;
use crate::store::{Db, Tx};
use hashinsight_protocol::clock::ClockStateV1;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::presence::{HelloV1, StreamStateV1};
use hashinsight_protocol::topics::Stream;
use hashinsight_protocol::units::Millis;

/// A skew above this is a wrong clock: readings of that time are kept and not believed.
pub const WORST_SKEW_MS: i64 = 5 * 60 * 1000;

/// An agent came.
///
/// # Errors
/// The database fails; so for all below.
pub async fn hello(tx: &mut Tx, agent: AgentId, hello: &HelloV1, now: Millis) -> Result<()> {
    let state = match hello.clock.state {
        ClockStateV1::Synced => "synced",
        ClockStateV1::Uncertain => "uncertain",
        ClockStateV1::Measured => "measured",
    };
    // Ahead is positive. An absurd clock must not overflow the difference.
    let skew = hello.clock.wall.0.saturating_sub(now.0);
    let of_evidence = |s: &&StreamStateV1| s.stream == Stream::Evidence.number();
    let journal = hello.streams.iter().find(of_evidence).map(|state| state.epoch);
    tx.execute(
        "insert into agent_presence
             (agent_id, session, online, seen_at, clock_skew_ms, clock_state, document_held, journal)
         values ($1, $2, 1, $3, $4, $5, $6, $7)
         on conflict (agent_id) do update set session = excluded.session, online = 1,
             seen_at = excluded.seen_at, clock_skew_ms = excluded.clock_skew_ms,
             clock_state = excluded.clock_state, document_held = excluded.document_held,
             journal = excluded.journal",
        args![agent, hello.session, now, skew, state, hello.document, journal],
    )
    .await?;
    tx.execute("update agents set version = $2 where id = $1", args![agent, bounded_text(&hello.version)])
        .await?;
    Ok(())
}

/// An agent left, in order or not. False when it was another session.
pub async fn left(db: &Db, agent: AgentId, session: u64) -> Result<bool> {
    let changed = db
        .execute(
            "update agent_presence set online = 0 where agent_id = $1 and session = $2 and online = 1",
            args![agent, session],
        )
        .await?;
    Ok(changed > 0)
}

/// The agents that are said to be there.
pub async fn online(db: &Db) -> Result<Vec<AgentId>> {
    let agents: Vec<(AgentId,)> =
        db.fetch_all("select agent_id from agent_presence where online = 1", args![]).await?;
    Ok(agents.into_iter().map(|(agent,)| agent).collect())
}

/// An agent is not connected, whatever its session was.
pub async fn away(db: &Db, agent: AgentId) -> Result<()> {
    db.execute("update agent_presence set online = 0 where agent_id = $1", args![agent]).await?;
    Ok(())
}

/// Something came from these agents. `are_there`: that alone says that they are connected, as with a broker
/// that does not tell us.
pub async fn seen(
    tx: &mut Tx,
    agents: impl IntoIterator<Item = AgentId>,
    are_there: bool,
    now: Millis,
) -> Result<()> {
    for agent in agents {
        tx.execute(
            "update agent_presence set seen_at = $2, online = case when $3 = 1 then 1 else online end
             where agent_id = $1",
            args![agent, now, are_there],
        )
        .await?;
    }
    Ok(())
}

/// Nobody is connected to a server that has just started.
pub async fn all_away(db: &Db) -> Result<()> {
    db.execute("update agent_presence set online = 0 where online = 1", args![]).await?;
    Ok(())
}
