//! What events do to the business database.
//!
//! - **Order**: streams are independent, and a batch may come after later ones. A row remembers the
//!   journal (epoch) and the place in it that it was read from; of two reports of one journal the later
//!   place stands, of two journals the later time.
//! - **Whose**: an agent speaks of its own miners and of plans it has a share of. What it says beyond
//!   that is kept as an event and applied to nothing. A miner passes to another agent of its site when
//!   its agent has given it up or was revoked.

use super::wire::{Event, EventBatch};
use crate::args;
use crate::curtailment::service;
use crate::error::Result;
use crate::fleet::readiness;
use crate::store::Tx;
use crate::telemetry::latest::name;
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::enrolment::hex;
use hashinsight_protocol::envelope::tag_of;
use hashinsight_protocol::events::{DocumentHeldV1, EventV1, MinerGoneV1, MinerSeenV1, OrderResultV1};
use hashinsight_protocol::evidence::{DispatchStepV1, TargetStepV1};
use hashinsight_protocol::ids::{AgentId, Epoch, MinerId, PlanId, SiteId};
use hashinsight_protocol::units::{Millis, Watts};
use std::collections::{BTreeMap, BTreeSet};

/// Where an event comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub agent: AgentId,
    pub site: SiteId,
    pub epoch: Epoch,
    /// Rises with every event of a journal.
    pub place: u64,
    pub received_at: Millis,
}

impl Origin {
    /// The event with this index in its batch.
    pub fn new(batch: &EventBatch, site: SiteId, index: usize) -> Self {
        Self {
            agent: batch.key.agent,
            site,
            epoch: batch.key.epoch,
            // A batch holds at most 512 events.
            place: batch.seq.saturating_mul(1024).saturating_add(index as u64),
            received_at: batch.received_at,
        }
    }
}

/// What the events of a transaction touched.
#[derive(Debug, Default)]
pub struct Effects {
    pub sites: BTreeSet<SiteId>,
    /// Plans whose dispatches moved, with the last reason and when it came.
    plans: BTreeMap<PlanId, (String, Millis)>,
}

impl Effects {
    /// Moves the plans whose dispatches moved.
    ///
    /// # Errors
    /// The database fails; so for all below.
    pub async fn settle(&mut self, tx: &mut Tx) -> Result<()> {
        for (plan, (why, received_at)) in std::mem::take(&mut self.plans) {
            self.sites.extend(service::reported(tx, plan, received_at, &why).await?);
        }
        Ok(())
    }
}

/// Applies one event.
pub async fn apply(tx: &mut Tx, origin: &Origin, event: &Event, effects: &mut Effects) -> Result<()> {
    effects.sites.insert(origin.site);
    let at = event.raw.at;
    let read = match &event.read {
        Ok(read) => read,
        Err(error) => {
            let tag = tag_of(&event.raw.body).map(|(tag, _)| tag);
            let body = serde_json::json!({
                "tag": tag, "why": error.to_string(), "place": origin.place, "hex": hex(&event.raw.body),
            });
            return list(tx, origin, at, "unknown", &body).await;
        }
    };
    match read {
        EventV1::Miner(miner) => miner_seen(tx, origin, at, miner).await,
        EventV1::MinerGone(gone) => miner_gone(tx, origin, gone).await,
        EventV1::Dispatch(step) => dispatch(tx, origin, at, step, effects).await,
        EventV1::Target(step) => target(tx, origin, at, step).await,
        EventV1::Document(held) => {
            document(tx, origin, held).await?;
            list(tx, origin, at, "document_held", held).await
        }
        EventV1::Order(result) => {
            // Orders to watch are not kept, so there is nothing to say of them.
            if order(tx, origin, result).await? {
                list(tx, origin, at, "order_result", result).await?;
            }
            Ok(())
        }
        EventV1::Started(started) => list(tx, origin, at, "started", started).await,
        // What is missing was counted beside the readings before this transaction.
        EventV1::Gap(gap) => list(tx, origin, at, "gap", gap).await,
        EventV1::Refused(refused) => list(tx, origin, at, "part_refused", refused).await,
        EventV1::Readiness(told) => readiness::store(tx, origin, at, told).await,
        EventV1::Alarm(alarm) => list(tx, origin, at, "alarm", alarm).await,
        EventV1::Changed(changed) => list(tx, origin, at, "miner_changed", changed).await,
    }
}

/// Lists an event for people to see.
async fn list(
    tx: &mut Tx,
    origin: &Origin,
    at: MomentV1,
    kind: &str,
    body: &impl serde::Serialize,
) -> Result<()> {
    let body = serde_json::to_string(body)?;
    tx.execute(
        "insert into agent_events (agent_id, kind, at, received_at, body) values ($1, $2, $3, $4, $5)",
        args![origin.agent, kind, at.wall, origin.received_at, body],
    )
    .await?;
    Ok(())
}

fn whole_watts(watts: Watts) -> i64 {
    watts.get().round() as i64
}

const MINER: &str = "insert into miners (id, agent_id, site_id, firmware, model, version, serial, mac, weak_identity,
         rack, position, customer, can_sleep, can_limit, standby_w, nameplate_w, nameplate_hs, restart_ms,
         out_of_service, protected, seen_at, gone_at, epoch, place, can_reboot, can_locate, can_set_pools)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, null,
         $22, $23, $24, $25, $26)
     on conflict (id) do update set agent_id = excluded.agent_id, firmware = excluded.firmware,
         model = excluded.model, version = excluded.version, serial = excluded.serial, mac = excluded.mac,
         weak_identity = excluded.weak_identity, rack = excluded.rack, position = excluded.position,
         customer = excluded.customer, can_sleep = excluded.can_sleep, can_limit = excluded.can_limit,
         standby_w = excluded.standby_w, nameplate_w = excluded.nameplate_w, nameplate_hs = excluded.nameplate_hs,
         restart_ms = excluded.restart_ms, out_of_service = excluded.out_of_service,
         protected = excluded.protected, seen_at = excluded.seen_at, gone_at = null, epoch = excluded.epoch,
         place = excluded.place, can_reboot = excluded.can_reboot, can_locate = excluded.can_locate,
         can_set_pools = excluded.can_set_pools
     where miners.site_id = excluded.site_id
       and (miners.agent_id = excluded.agent_id
            and (miners.epoch = excluded.epoch and excluded.place > miners.place
                 or miners.epoch <> excluded.epoch and excluded.seen_at >= miners.seen_at)
         or miners.agent_id <> excluded.agent_id
            and (miners.gone_at is not null
                 or exists (select 1 from agents a where a.id = miners.agent_id and a.revoked_at is not null)))";

async fn miner_seen(tx: &mut Tx, origin: &Origin, at: MomentV1, miner: &MinerSeenV1) -> Result<()> {
    let changed = tx
        .execute(
            MINER,
            args![
                miner.miner,
                origin.agent,
                origin.site,
                miner.firmware.as_deref(),
                miner.model.as_deref(),
                miner.version.as_deref(),
                miner.serial.as_deref(),
                miner.mac.as_deref(),
                miner.weak_identity,
                miner.rack.as_deref(),
                miner.position.as_deref(),
                miner.customer.as_deref(),
                miner.capabilities.sleep,
                miner.capabilities.power_limit,
                miner.standby.map(whole_watts),
                miner.nameplate_power.map(whole_watts),
                miner.nameplate_hashrate,
                miner.restart,
                miner.out_of_service,
                miner.protected,
                at.wall,
                origin.epoch,
                origin.place,
                miner.capabilities.reboot,
                miner.capabilities.locate,
                miner.capabilities.set_pools,
            ],
        )
        .await?;
    if changed == 0 {
        let owner: Option<(AgentId,)> =
            tx.fetch_optional("select agent_id from miners where id = $1", args![miner.miner]).await?;
        if owner.is_some_and(|(owner,)| owner != origin.agent) {
            tracing::warn!(agent = %origin.agent, miner = %miner.miner, "An agent claims another agent's miner.");
            return list(tx, origin, at, "miner_claim_refused", miner).await;
        }
    }
    Ok(())
}

async fn miner_gone(tx: &mut Tx, origin: &Origin, gone: &MinerGoneV1) -> Result<()> {
    tx.execute(
        "update miners set gone_at = $3, epoch = $4, place = $5 where id = $1 and agent_id = $2
         and (epoch <> $4 or place < $5)",
        args![gone.miner, origin.agent, origin.received_at, origin.epoch, origin.place],
    )
    .await?;
    Ok(())
}

async fn document(tx: &mut Tx, origin: &Origin, held: &DocumentHeldV1) -> Result<()> {
    // A lower version is an old event that comes late; a restored disk says so in its hello.
    tx.execute(
        "update agent_presence set document_held = $2 where agent_id = $1 and document_held < $2",
        args![origin.agent, held.version],
    )
    .await?;
    Ok(())
}

/// False when there is no such order, or its result came before.
async fn order(tx: &mut Tx, origin: &Origin, result: &OrderResultV1) -> Result<bool> {
    let changed = tx
        .execute(
            "update orders set taken = $3, result = $4, result_at = $5
             where id = $1 and agent_id = $2 and result_at is null",
            args![result.order, origin.agent, result.taken, &result.reason, origin.received_at],
        )
        .await?;
    Ok(changed > 0)
}

async fn has_share(tx: &mut Tx, origin: &Origin, plan: PlanId) -> Result<bool> {
    let row: Option<(i64,)> = tx
        .fetch_optional(
            "select 1 from plan_allotments where plan_id = $1 and agent_id = $2",
            args![plan, origin.agent],
        )
        .await?;
    Ok(row.is_some())
}

/// Keeps a step as evidence, whatever becomes of it.
async fn keep(
    tx: &mut Tx,
    origin: &Origin,
    at: MomentV1,
    plan: (PlanId, u32),
    miner: Option<MinerId>,
    state: String,
    step: &impl serde::Serialize,
) -> Result<()> {
    let body = serde_json::to_string(step)?;
    tx.execute(
        "insert into evidence (plan_id, agent_id, interval_number, miner_id, state, at, boot_ms, received_at, body)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        args![
            plan.0, origin.agent, plan.1, miner, state, at.wall, at.boot.0, origin.received_at, body
        ],
    )
    .await?;
    Ok(())
}

const DISPATCH: &str =
    "insert into dispatches (plan_id, agent_id, interval_number, state, target_w, reached_w, targets,
         forced, why, at, epoch, place)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
     on conflict (plan_id, agent_id, interval_number) do update set state = excluded.state,
         target_w = excluded.target_w, reached_w = excluded.reached_w, targets = excluded.targets,
         forced = case when dispatches.forced = 1 then 1 else excluded.forced end, why = excluded.why,
         at = excluded.at, epoch = excluded.epoch, place = excluded.place
     where dispatches.epoch = excluded.epoch and excluded.place > dispatches.place
        or dispatches.epoch <> excluded.epoch and excluded.at >= dispatches.at";

async fn dispatch(
    tx: &mut Tx,
    origin: &Origin,
    at: MomentV1,
    step: &DispatchStepV1,
    effects: &mut Effects,
) -> Result<()> {
    let of = step.dispatch;
    keep(tx, origin, at, (of.plan, of.interval), None, name(step.state), step).await?;
    if !has_share(tx, origin, of.plan).await? {
        return list(tx, origin, at, "stray_step", step).await;
    }
    let changed = tx
        .execute(
            DISPATCH,
            args![
                of.plan,
                origin.agent,
                of.interval,
                name(step.state),
                whole_watts(step.target),
                whole_watts(step.reached),
                step.targets,
                step.forced,
                &step.why,
                at.wall,
                origin.epoch,
                origin.place,
            ],
        )
        .await?;
    if changed > 0 {
        effects.plans.insert(of.plan, (step.why.clone(), origin.received_at));
    }
    Ok(())
}

const TARGET: &str =
    "insert into targets (plan_id, interval_number, miner_id, agent_id, state, accepted, mode, effect,
         power_before_w, power_now_w, hashrate_now_hs, pre_state, why, at, epoch, place)
     select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16
     where not exists (select 1 from miners m where m.id = $3 and m.agent_id <> $4)
     on conflict (plan_id, interval_number, miner_id) do update set state = excluded.state,
         accepted = excluded.accepted, mode = excluded.mode, effect = excluded.effect,
         power_before_w = coalesce(excluded.power_before_w, targets.power_before_w),
         power_now_w = excluded.power_now_w, hashrate_now_hs = excluded.hashrate_now_hs,
         pre_state = coalesce(excluded.pre_state, targets.pre_state), why = excluded.why, at = excluded.at,
         epoch = excluded.epoch, place = excluded.place
     where targets.agent_id = excluded.agent_id
       and (targets.epoch = excluded.epoch and excluded.place > targets.place
            or targets.epoch <> excluded.epoch and excluded.at >= targets.at)";

async fn target(tx: &mut Tx, origin: &Origin, at: MomentV1, step: &TargetStepV1) -> Result<()> {
    let of = step.dispatch;
    keep(tx, origin, at, (of.plan, of.interval), Some(step.miner), name(step.state), step).await?;
    if !has_share(tx, origin, of.plan).await? {
        return list(tx, origin, at, "stray_step", step).await;
    }
    let pre_state = step.pre_state.as_ref().map(serde_json::to_string).transpose()?;
    let power_before = step.power_before.map(whole_watts);
    let changed = tx
        .execute(
            TARGET,
            args![
                of.plan,
                of.interval,
                step.miner,
                origin.agent,
                name(step.state),
                name(step.evidence.accepted),
                name(step.evidence.mode),
                name(step.evidence.effect),
                power_before,
                step.power_now.map(whole_watts),
                step.hashrate_now,
                pre_state.clone(),
                &step.why,
                at.wall,
                origin.epoch,
                origin.place,
            ],
        )
        .await?;
    if changed == 0 && pre_state.is_some() {
        // The first step came after later ones: what it alone says is not lost.
        tx.execute(
            "update targets set pre_state = coalesce(pre_state, $5), power_before_w = coalesce(power_before_w, $6)
             where plan_id = $1 and interval_number = $2 and miner_id = $3 and agent_id = $4",
            args![of.plan, of.interval, step.miner, origin.agent, pre_state, power_before],
        )
        .await?;
    }
    Ok(())
}
