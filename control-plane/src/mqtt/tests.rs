//! What events do to the database, in whatever order they come.

#![allow(clippy::unwrap_used)]

use super::streams::{self, Stored};
use super::wire::{EventBatch, events};
use crate::args;
use crate::store::{Db, Value, testing};
use crate::telemetry::ledger::StreamKey;
use crate::telemetry::once::Arrived;
use hashinsight_protocol::clock::{ClockStateV1, MomentV1};
use hashinsight_protocol::device::{CapabilitiesV1, EvidenceV1, FactV1, ModeV1, PreStateV1};
use hashinsight_protocol::envelope::{Body as _, Envelope, seal_up};
use hashinsight_protocol::events::{EventV1, EventsV1, MinerGoneV1, MinerSeenV1, RawEventV1};
use hashinsight_protocol::evidence::{
    DispatchStateV1, DispatchStepV1, DispatchV1, TargetStateV1, TargetStepV1,
};
use hashinsight_protocol::ids::{AgentId, BootId, Epoch, MinerId, PlanId, SiteId};
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::topics::{Stream, Topic};
use hashinsight_protocol::units::{BootMillis, Millis, Watts};

const NOW: Millis = Millis(1_790_000_000_000);

fn agent(n: u8) -> AgentId {
    AgentId::from_random([n; 16])
}

fn site() -> SiteId {
    SiteId::from_random([1; 16])
}

fn miner() -> MinerId {
    MinerId::from_random([5; 16])
}

fn plan() -> PlanId {
    PlanId::from_random([6; 16])
}

fn moment() -> MomentV1 {
    MomentV1 {
        wall: NOW,
        boot: BootMillis(1),
        boot_id: BootId::from_random([0; 16]),
        state: ClockStateV1::Synced,
    }
}

fn raw(event: &EventV1) -> RawEventV1 {
    event.raw(moment()).unwrap()
}

fn batch(n: u8, stream: Stream, seq: u64, raws: Vec<RawEventV1>) -> EventBatch {
    let key = StreamKey { agent: agent(n), epoch: Epoch::from_random([n; 16]), stream };
    let signer = SigningKey::from_seed(&[n; 32]).unwrap();
    let body = EventsV1 { events: raws }.encode().unwrap();
    let sealed = seal_up(&signer, key.agent, key.epoch, stream, seq, &body).unwrap();
    let opened = Envelope::open(Topic::Up(key.agent, stream), &sealed).unwrap();
    let (checksum, body) = (opened.header.checksum, events(opened.body));
    Arrived { key, seq, checksum, received_at: NOW, envelope: sealed.into(), body }
}

fn evidence(seq: u64, list: &[EventV1]) -> EventBatch {
    batch(2, Stream::Evidence, seq, list.iter().map(raw).collect())
}

/// A site with two agents, and a plan in which the first has a share.
async fn database() -> (tempfile::TempDir, Db) {
    let folder = tempfile::tempdir().unwrap();
    let db = testing::stores(folder.path()).await.business;
    let run = async |sql: &'static str, args: Vec<Value>| {
        db.execute(sql, args).await.unwrap();
    };
    run("insert into sites (id, name, created_at) values ($1, 'A', 1)", args![site()]).await;
    for n in [2, 3] {
        run(
            "insert into agents (id, site_id, hostname, version, batch_key, enrolled_at) values ($1, $2, '', '', '', 1)",
            args![agent(n), site()],
        )
        .await;
    }
    let body = format!("{{\"site\":\"{}\",\"goal\":{{\"reduce_kw\":10.0}},\"minutes\":60}}", site());
    run(
        "insert into plans (id, site_id, body, state, revision, version, created_by, created_at, starts_at)
         values ($1, $2, $3, 'approved', 1, 1, 'test', 1, 1)",
        args![plan(), site(), body],
    )
    .await;
    run("insert into plan_allotments values ($1, $2, 10000, 0)", args![plan(), agent(2)]).await;
    (folder, db)
}

async fn store(db: &Db, batches: &[EventBatch]) -> Stored {
    let mut tx = db.begin().await.unwrap();
    let stored = streams::store(&mut tx, batches, |_| Some(site())).await.unwrap();
    tx.commit().await.unwrap();
    stored
}

async fn text(db: &Db, sql: &'static str) -> String {
    let row: Option<(Option<String>,)> = db.fetch_optional(sql, args![]).await.unwrap();
    row.and_then(|(text,)| text).unwrap_or_default()
}

async fn number(db: &Db, sql: &'static str) -> i64 {
    let (number,): (i64,) = db.fetch_one(sql, args![]).await.unwrap();
    number
}

fn step(state: DispatchStateV1) -> EventV1 {
    EventV1::Dispatch(DispatchStepV1 {
        dispatch: DispatchV1 { plan: plan(), revision: 1, interval: 1 },
        state,
        target: Watts::new(10_000.0).unwrap(),
        reached: Watts::ZERO,
        targets: 1,
        forced: false,
        why: "because".to_owned(),
    })
}

fn target(state: TargetStateV1, first: bool) -> EventV1 {
    let pre_state = PreStateV1 {
        mode: ModeV1::HighEfficiency,
        vendor_mode: Some(2),
        limit: None,
        profile: None,
        config_hash: None,
    };
    EventV1::Target(TargetStepV1 {
        dispatch: DispatchV1 { plan: plan(), revision: 1, interval: 1 },
        miner: miner(),
        state,
        evidence: EvidenceV1 { accepted: FactV1::Yes, ..EvidenceV1::default() },
        power_before: first.then(|| Watts::new(3250.4).unwrap()),
        power_now: Watts::new(20.0),
        hashrate_now: None,
        pre_state: first.then_some(pre_state),
        why: String::new(),
    })
}

fn seen(rack: &str) -> EventV1 {
    EventV1::Miner(MinerSeenV1 {
        miner: miner(),
        firmware: Some("stock".to_owned()),
        model: None,
        version: None,
        serial: None,
        mac: None,
        weak_identity: false,
        rack: Some(rack.to_owned()),
        position: None,
        customer: None,
        capabilities: CapabilitiesV1::default(),
        standby: None,
        nameplate_power: None,
        nameplate_hashrate: None,
        restart: None,
        out_of_service: false,
        protected: false,
    })
}

#[tokio::test]
async fn steps_apply_once_and_the_latest_stands_in_any_order() {
    use DispatchStateV1::{Completed, Executing, Holding};
    use TargetStateV1::{Curtailed, Restored, Stopping};
    let batches = [
        evidence(1, &[step(Executing), target(Stopping, true)]),
        evidence(2, &[target(Curtailed, false), step(Holding)]),
        evidence(3, &[target(Restored, false), step(Completed)]),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let (_folder, db) = database().await;
        for n in order {
            // Together with one that came before.
            store(&db, &[evidence_copy(&batches[n]), evidence_copy(&batches[order[0]])]).await;
        }
        assert_eq!(text(&db, "select state from dispatches").await, "completed");
        assert_eq!(text(&db, "select state from targets").await, "restored");
        assert!(text(&db, "select pre_state from targets").await.contains("\"vendor_mode\":2"), "{order:?}");
        assert_eq!(number(&db, "select power_before_w from targets").await, 3250);
        assert_eq!(number(&db, "select count(*) from evidence").await, 6);
        assert_eq!(text(&db, "select state from plans").await, "completed");
    }
}

/// A batch that comes again is read again.
fn evidence_copy(batch: &EventBatch) -> EventBatch {
    let opened = Envelope::open(Topic::Up(batch.key.agent, batch.key.stream), &batch.envelope).unwrap();
    let body = events(opened.body);
    Arrived { body, envelope: batch.envelope.clone(), ..*batch }
}

#[tokio::test]
async fn a_plan_follows_its_dispatch() {
    let (_folder, db) = database().await;
    store(&db, &[evidence(1, &[step(DispatchStateV1::Executing)])]).await;
    assert_eq!(text(&db, "select state from plans").await, "executing");
    let stored = store(&db, &[evidence(2, &[step(DispatchStateV1::Holding)])]).await;
    assert_eq!(text(&db, "select state from plans").await, "executed");
    assert!(stored.effects.sites.contains(&site()));
    assert_eq!(number(&db, "select count(*) from plan_history").await, 2);
}

#[tokio::test]
async fn an_agent_speaks_of_its_own_alone() {
    let (_folder, db) = database().await;
    store(&db, &[batch(2, Stream::Events, 1, vec![raw(&seen("A"))])]).await;
    // The other agent has no share of the plan, and the miner is not its own.
    let steps = vec![raw(&step(DispatchStateV1::Completed)), raw(&target(TargetStateV1::Restored, true))];
    store(&db, &[batch(3, Stream::Evidence, 1, steps), batch(3, Stream::Events, 1, vec![raw(&seen("B"))])])
        .await;
    assert_eq!(number(&db, "select count(*) from dispatches").await, 0);
    assert_eq!(number(&db, "select count(*) from targets").await, 0);
    assert_eq!(text(&db, "select rack from miners").await, "A");
    assert_eq!(number(&db, "select count(*) from agent_events where kind = 'stray_step'").await, 2);
    assert_eq!(number(&db, "select count(*) from agent_events where kind = 'miner_claim_refused'").await, 1);
    // Once its agent has given it up, another agent of the site may have it.
    let gone = EventV1::MinerGone(MinerGoneV1 { miner: miner() });
    store(&db, &[batch(2, Stream::Events, 2, vec![raw(&gone)])]).await;
    store(&db, &[batch(3, Stream::Events, 2, vec![raw(&seen("C"))])]).await;
    assert_eq!(text(&db, "select rack from miners where gone_at is null").await, "C");
    assert_eq!(text(&db, "select agent_id from miners").await, agent(3).to_string());
}

#[tokio::test]
async fn a_late_report_of_a_miner_does_not_undo_a_newer_one() {
    let (_folder, db) = database().await;
    store(&db, &[batch(2, Stream::Events, 2, vec![raw(&seen("new"))])]).await;
    store(&db, &[batch(2, Stream::Events, 1, vec![raw(&seen("old"))])]).await;
    assert_eq!(text(&db, "select rack from miners").await, "new");
}

#[tokio::test]
async fn an_event_that_is_not_known_is_listed_and_the_others_apply() {
    let (_folder, db) = database().await;
    let unknown = RawEventV1 { at: moment(), body: vec![0x7f, 1, 2, 3] };
    let stored = store(&db, &[batch(2, Stream::Events, 1, vec![unknown, raw(&seen("A"))])]).await;
    assert_eq!(stored.counts.stored, 1);
    assert_eq!(text(&db, "select rack from miners").await, "A");
    assert!(text(&db, "select body from agent_events where kind = 'unknown'").await.contains("7f010203"));
}
