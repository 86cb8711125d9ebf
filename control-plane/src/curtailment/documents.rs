//! Desired documents and orders: how plans reach their agents.
//!
//! A document is composed from the database whenever something may have changed, and gets a new version
//! only when its content did. It lists every plan that its agent has a share of and that has not ended; a
//! plan that is left out is over for the agent. What is composed is stored sealed; the downlink sends it
//! until the agent reports that it holds it.

use super::store;
use crate::App;
use crate::error::{Error, Result};
use crate::store::Tx;
use crate::{args, row};
use hashinsight_protocol::document::{DesiredDocumentV1, SignedPartV1};
use hashinsight_protocol::enrolment::hex;
use hashinsight_protocol::ids::{AgentId, OrderId, PlanId};
use hashinsight_protocol::order::{CommandV1, OrderV1};
use hashinsight_protocol::signing::VerifyingKey;
use hashinsight_protocol::topics::Down;
use hashinsight_protocol::units::Millis;

row! {
    struct ShareRow {
        plan: PlanId,
        target_w: i64,
        reserve_w: i64,
    }
}

row! {
    struct HeldRow {
        version: u64,
        content_hash: String,
    }
}

const OPEN_SHARES: &str = "select a.plan_id, a.target_w, a.reserve_w from plan_allotments a \
     join plans p on p.id = a.plan_id where a.agent_id = $1 \
     and p.state in ('approved', 'executing', 'executed', 'recovering', 'completed_with_failures') \
     order by p.created_at, p.id";

/// Composes the documents of these agents anew and nudges those whose content changed.
///
/// # Errors
/// A database fails, or a plan can't be encoded.
pub async fn refresh(app: &App, agents: impl IntoIterator<Item = AgentId>) -> Result<()> {
    for agent in agents {
        if refresh_one(app, agent).await? {
            app.nudge.agent(agent);
        }
    }
    Ok(())
}

async fn refresh_one(app: &App, agent: AgentId) -> Result<bool> {
    let db = &app.stores.business;
    let held = app.agents.held();
    let key = held.keys.signing();
    let shares: Vec<ShareRow> = db.fetch_all(OPEN_SHARES, args![agent]).await?;
    let mut parts = Vec::with_capacity(shares.len());
    for row in &shares {
        let plan = store::plan(db, row.plan).await?;
        let share = store::Allotment { agent, target_w: row.target_w, reserve_w: row.reserve_w }.share();
        let plan = plan.request.plan(plan.id, plan.revision, plan.starts_at, Some(share));
        parts.push(SignedPartV1::plan(key, agent, &plan).map_err(Error::internal)?);
    }
    let content = hash(&key.verifying_key(), &parts);
    let mut tx = db.begin().await?;
    let sql = "select version, content_hash from desired_documents where agent_id = $1";
    let stored: Option<HeldRow> = tx.fetch_optional(sql, args![agent]).await?;
    let unchanged = match &stored {
        Some(stored) => stored.content_hash == content,
        // An agent that never had a plan needs no empty document.
        None => parts.is_empty(),
    };
    if unchanged {
        return Ok(false);
    }
    // After a restored backup the agent may hold a higher version than the database remembers.
    let reported: Option<(u64,)> = tx
        .fetch_optional("select document_held from agent_presence where agent_id = $1", args![agent])
        .await?;
    let version = stored.map_or(0, |s| s.version).max(reported.map_or(0, |(v,)| v)) + 1;
    let now = app.clock.now();
    let document = DesiredDocumentV1 { agent, version, issued: now, parts };
    let envelope = seal(app, agent, Down::Desired, version, &document)?;
    tx.execute(
        "insert into desired_documents (agent_id, version, content_hash, envelope, issued_at) \
         values ($1, $2, $3, $4, $5) on conflict (agent_id) do update set version = excluded.version, \
         content_hash = excluded.content_hash, envelope = excluded.envelope, issued_at = excluded.issued_at",
        args![agent, version, content, envelope, now],
    )
    .await?;
    tx.commit().await?;
    Ok(true)
}

/// Equal parts have equal signatures: Ed25519 is deterministic. Of another key everything is another.
fn hash(key: &VerifyingKey, parts: &[SignedPartV1]) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    digest.update(&key.0);
    for part in parts {
        digest.update(&(part.body.len() as u64).to_le_bytes());
        digest.update(&part.body);
        digest.update(&part.signature.0);
    }
    hex(digest.finish().as_ref())
}

/// Writes an order down within a transaction; who commits it nudges the agent afterwards.
///
/// # Errors
/// A database fails.
pub async fn order(
    app: &App,
    tx: &mut Tx,
    agent: AgentId,
    plan: Option<PlanId>,
    command: CommandV1,
    expires: Millis,
    by: &str,
) -> Result<OrderId> {
    let issued = app.clock.now();
    let id = OrderId::from_random(crate::random::bytes());
    let by = hashinsight_protocol::limits::bounded_text(by);
    let order = OrderV1 { id, issued, expires, by, command };
    let envelope = seal(app, agent, Down::Order, 0, &order)?;
    tx.execute(
        "insert into orders (id, agent_id, plan_id, envelope, issued_at, expires_at) \
         values ($1, $2, $3, $4, $5, $6)",
        args![id, agent, plan, envelope, issued, expires],
    )
    .await?;
    Ok(id)
}

fn seal<B: hashinsight_protocol::envelope::Body>(
    app: &App,
    agent: AgentId,
    kind: Down,
    seq: u64,
    body: &B,
) -> Result<Vec<u8>> {
    let body = body.encode().map_err(Error::internal)?;
    app.agents.seal(agent, kind, seq, &body)
}
