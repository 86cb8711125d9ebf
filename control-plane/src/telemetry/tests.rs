//! The store of telemetry against a plain twin: whatever the wire does to the order, each sample
//! counts once.

#![allow(clippy::unwrap_used)]

use super::batches::{self, Batch, Memory, Stored, is_absurd};
use super::gaps;
use super::keys::Keys;
use super::ledger::StreamKey;
use super::once::Arrived;
use super::readings::{Pages, Range};
use crate::args;
use crate::store::{Db, testing};
use hashinsight_protocol::clock::{ClockStateV1, MomentV1};
use hashinsight_protocol::envelope::{Body as _, Envelope, seal_up};
use hashinsight_protocol::events::{GapCauseV1, GapV1};
use hashinsight_protocol::ids::{AgentId, BootId, Epoch, MinerId};
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::telemetry::{KeyBatch, PollV1, SampleV1, TelemetryV1};
use hashinsight_protocol::topics::{Stream, Topic};
use hashinsight_protocol::units::{BootMillis, DurationMs, Hashrate, Millis};
use proptest::prelude::*;
use std::collections::BTreeSet;

const NOW: Millis = Millis(1_790_000_000_000);
const MINERS: u8 = 3;

fn agent() -> AgentId {
    AgentId::from_random([1; 16])
}

fn stream() -> StreamKey {
    StreamKey { agent: agent(), epoch: Epoch::from_random([2; 16]), stream: Stream::Telemetry }
}

fn at_cycle(cycle: u64) -> Millis {
    NOW.plus(DurationMs::from_minutes(cycle))
}

fn batch(seq: u64, key: Option<&KeyBatch>) -> TelemetryV1 {
    let started = MomentV1 {
        wall: at_cycle(seq),
        boot: BootMillis(seq),
        boot_id: BootId::from_random([0; 16]),
        state: ClockStateV1::Synced,
    };
    let sample = |miner: u8| SampleV1 {
        hashrate: Hashrate::new(f64::from(miner) * 1e12 + seq as f64),
        ..SampleV1::empty(MinerId::from_random([miner; 16]), DurationMs(u64::from(miner)), PollV1::Answered)
    };
    TelemetryV1::new(seq, started, &(0..MINERS).map(sample).collect::<Vec<_>>(), key).unwrap()
}

fn arrived(seq: u64, body: &[u8], received_at: Millis) -> Batch {
    let key = SigningKey::from_seed(&[1; 32]).unwrap();
    let stream = stream();
    let sealed = seal_up(&key, stream.agent, stream.epoch, Stream::Telemetry, seq, body).unwrap();
    let opened = Envelope::open(Topic::Up(agent(), Stream::Telemetry), &sealed).unwrap();
    let (checksum, body) = (opened.header.checksum, batches::read(opened.body));
    Arrived { key: stream, seq, checksum, received_at, envelope: sealed.into(), body }
}

/// Batches 1 to `count`, in groups of `group`.
fn outbox(count: u64, group: u64) -> Vec<Batch> {
    let mut key: Option<KeyBatch> = None;
    (1..=count)
        .map(|seq| {
            if (seq - 1).is_multiple_of(group) {
                key = None;
            }
            let body = batch(seq, key.as_ref());
            let arrived = arrived(seq, &body.encode().unwrap(), at_cycle(count));
            if key.is_none() {
                key = body.as_key(seq, arrived.checksum).unwrap();
            }
            arrived
        })
        .collect()
}

async fn database() -> (tempfile::TempDir, Db) {
    let folder = tempfile::tempdir().unwrap();
    let db = testing::stores(folder.path()).await.telemetry;
    (folder, db)
}

async fn store(db: &Db, memory: &mut Memory, batches: &[Batch], commit: bool) -> Stored {
    let mut tx = db.begin().await.unwrap();
    let stored = batches::store(&mut tx, memory, batches).await.unwrap();
    if commit {
        tx.commit().await.unwrap();
    } else {
        memory.clear();
    }
    stored
}

fn acked(stored: &Stored) -> BTreeSet<u64> {
    stored.acks.iter().flat_map(|(_, ranges)| ranges.iter().flat_map(|(a, b)| *a..=*b)).collect()
}

async fn number(db: &Db, sql: &'static str) -> i64 {
    let (number,): (i64,) = db.fetch_one(sql, args![]).await.unwrap();
    number
}

/// Every sample of the batches with these numbers is stored once, and nothing else.
async fn check_samples(db: &Db, seqs: &BTreeSet<u64>) {
    let range = Range { from: Millis(0), to: Millis(i64::MAX), miner: None };
    let mut pages = Pages::new(agent(), range);
    let (mut keys, mut seen) = (Keys::default(), Vec::new());
    while let Some(page) = pages.next(db, &mut keys).await.unwrap() {
        seen.extend(page.into_iter().map(|r| (r.at, r.miner, r.hashrate_hs.map(|h| h.get() as u64))));
    }
    let expect: Vec<_> = seqs
        .iter()
        .flat_map(|seq| (0..MINERS).map(move |miner| (*seq, miner)))
        .map(|(seq, miner)| {
            let at = at_cycle(seq).plus(DurationMs(u64::from(miner)));
            let id = MinerId::from_random([miner; 16]);
            (at, id, Some(u64::from(miner) * 1_000_000_000_000 + seq))
        })
        .collect();
    assert_eq!(seen, expect);
    let one = MinerId::from_random([1; 16]);
    let mut pages = Pages::new(agent(), Range { miner: Some(one), ..range });
    let mut seen_of_one = Vec::new();
    while let Some(page) = pages.next(db, &mut keys).await.unwrap() {
        seen_of_one.extend(page.into_iter().map(|r| (r.at, r.miner, r.hashrate_hs.map(|h| h.get() as u64))));
    }
    assert!(seen_of_one.iter().eq(expect.iter().filter(|(_, miner, _)| *miner == one)));
    let samples = number(db, "select cast(coalesce(sum(samples), 0) as bigint) from site_rollups").await;
    assert_eq!(samples as usize, expect.len());
}

#[derive(Clone, Debug)]
struct Delivery {
    /// Indices into the outbox.
    batches: Vec<prop::sample::Index>,
    commit: bool,
}

fn delivery() -> impl Strategy<Value = Delivery> {
    (prop::collection::vec(any::<prop::sample::Index>(), 1..8), prop::bool::weighted(0.8))
        .prop_map(|(batches, commit)| Delivery { batches, commit })
}

async fn deliver(deliveries: Vec<Delivery>) {
    let (_folder, db) = database().await;
    let outbox = outbox(17, 4);
    let (mut memory, mut done) = (Memory::default(), BTreeSet::new());
    for delivery in deliveries {
        let group: Vec<_> = delivery.batches.iter().map(|i| i.get(&outbox).clone()).collect();
        let stored = store(&db, &mut memory, &group, delivery.commit).await;
        if delivery.commit {
            done.extend(acked(&stored));
        }
        check_samples(&db, &done).await;
    }
    // The agent sends what is not acknowledged until it is.
    let left: Vec<_> = outbox.iter().filter(|b| !done.contains(&b.seq)).rev().cloned().collect();
    for batch in &left {
        done.extend(acked(&store(&db, &mut memory, std::slice::from_ref(batch), true).await));
    }
    assert_eq!(done, (1..=17).collect());
    check_samples(&db, &done).await;
    assert_eq!(number(&db, "select count(*) from parked").await, 0);
    assert_eq!(number(&db, "select count(*) from ledger_ahead").await, 0);
    let newest = at_cycle(17).plus(DurationMs(u64::from(MINERS) - 1));
    assert_eq!(number(&db, "select max(at) from latest").await, newest.0);
    assert_eq!(number(&db, "select count(*) from latest").await, i64::from(MINERS));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn each_sample_counts_once(deliveries in prop::collection::vec(delivery(), 0..8)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(deliver(deliveries));
    }
}

#[tokio::test]
async fn a_follower_waits_for_its_key_unacknowledged() {
    let (_folder, db) = database().await;
    let (outbox, mut memory) = (outbox(3, 3), Memory::default());
    let early =
        store(&db, &mut memory, &[outbox[2].clone(), outbox[1].clone(), outbox[2].clone()], true).await;
    assert!(early.acks.is_empty());
    assert_eq!(number(&db, "select count(*) from parked").await, 2);
    let whole = store(&db, &mut memory, &outbox[..1], true).await;
    assert_eq!((acked(&whole), whole.counts.stored), ((1..=3).collect(), 3));
    check_samples(&db, &(1..=3).collect()).await;
}

#[tokio::test]
async fn other_content_under_a_number_is_quarantined_and_blocks_nothing() {
    let (_folder, db) = database().await;
    let (outbox, mut memory) = (outbox(2, 2), Memory::default());
    store(&db, &mut memory, &outbox, true).await;
    let other = arrived(1, &batch(9, None).encode().unwrap(), NOW);
    let garbage = arrived(3, &[1, 2, 3], NOW);
    for _ in 0..2 {
        let stored = store(&db, &mut memory, &[other.clone(), garbage.clone()], true).await;
        assert_eq!(acked(&stored), (1..=3).collect(), "so that they are not sent for ever");
    }
    assert_eq!(number(&db, "select count(*) from parked where quarantined = 1").await, 2);
    check_samples(&db, &(1..=2).collect()).await;
}

#[tokio::test]
async fn a_kind_that_is_not_known_yet_is_kept_and_applied_once_it_is() {
    let (_folder, db) = database().await;
    let (outbox, mut memory) = (outbox(1, 1), Memory::default());
    let mut unknown = outbox[0].clone();
    unknown.body = Err(super::parked::Why::NotKnown("tag 9".to_owned()));
    let stored = store(&db, &mut memory, &[unknown.clone(), unknown.clone()], true).await;
    assert_eq!((acked(&stored), stored.counts.parked), (BTreeSet::from([1]), 1));
    check_samples(&db, &BTreeSet::new()).await;
    // The same bytes, read by a version that knows them.
    store(&db, &mut memory, &outbox, true).await;
    check_samples(&db, &BTreeSet::from([1])).await;
    assert_eq!(number(&db, "select count(*) from parked").await, 0);
}

#[tokio::test]
async fn what_was_given_up_is_counted_and_welcome_when_it_comes_after_all() {
    let (_folder, db) = database().await;
    let (outbox, mut memory) = (outbox(6, 3), Memory::default());
    let gap = GapV1 {
        epoch: stream().epoch,
        cause: GapCauseV1::Quota,
        first_cycle: 1,
        last_cycle: 3,
        seqs: Some((1, 3)),
        polls: 9,
    };
    for _ in 0..2 {
        let mut tx = db.begin().await.unwrap();
        gaps::record(&mut tx, &[(agent(), gap.clone(), NOW)], NOW).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(number(&db, "select cast(sum(polls) as bigint) from gaps").await, 9);
    let stored = store(&db, &mut memory, &outbox[3..], true).await;
    assert_eq!(acked(&stored), (1..=6).collect());
    // A follower whose key was given up can't be read: kept, and acknowledged.
    let lost = store(&db, &mut memory, &outbox[1..2], true).await;
    assert_eq!(lost.counts.parked, 1);
    check_samples(&db, &(4..=6).collect()).await;
    // Then the group comes after all.
    store(&db, &mut memory, &outbox[..3], true).await;
    check_samples(&db, &(1..=6).collect()).await;
}

#[tokio::test]
async fn what_an_agent_no_longer_keeps_is_given_up() {
    let (_folder, db) = database().await;
    let (outbox, mut memory) = (outbox(9, 3), Memory::default());
    store(&db, &mut memory, &outbox[3..4], true).await;
    let mut tx = db.begin().await.unwrap();
    assert!(gaps::give_up_below(&mut tx, agent(), stream().epoch, 7, NOW).await.unwrap());
    assert!(!gaps::give_up_below(&mut tx, agent(), stream().epoch, 7, NOW).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(number(&db, "select count(*) from gaps where cause = 'not_kept'").await, 2);
    let stored = store(&db, &mut memory, &outbox[6..], true).await;
    assert_eq!(acked(&stored), (1..=9).collect());
}

#[tokio::test]
async fn an_absurd_time_is_kept_and_not_believed() {
    assert!(is_absurd(NOW.plus(DurationMs::from_minutes(6)), NOW) && is_absurd(Millis(0), NOW));
    assert!(!is_absurd(NOW.plus(DurationMs::from_minutes(4)), NOW));
    let (_folder, db) = database().await;
    let future = arrived(1, &batch(60, None).encode().unwrap(), NOW);
    let stored = store(&db, &mut Memory::default(), &[future], true).await;
    assert_eq!(acked(&stored), BTreeSet::from([1]));
    assert_eq!(number(&db, "select count(*) from latest").await, 0);
    assert_eq!(number(&db, "select count(*) from site_rollups").await, 0);
    assert_eq!(number(&db, "select count(*) from rollups").await, 0);
    assert_eq!(number(&db, "select absurd_time from batches").await, 1);
    // It is there for who asks for raw readings, and says that its time is not to be believed.
    let range = Range { from: Millis(0), to: Millis(i64::MAX), miner: None };
    let page = Pages::new(agent(), range).next(&db, &mut Keys::default()).await.unwrap().unwrap();
    assert!(page.len() == usize::from(MINERS) && page.iter().all(|reading| reading.absurd_time));
}

#[tokio::test]
async fn a_replay_of_everything_changes_nothing() {
    let (_folder, db) = database().await;
    let (outbox, mut memory) = (outbox(9, 3), Memory::default());
    store(&db, &mut memory, &outbox, true).await;
    let rolled = "select cast(sum(miners * 1000000 + length) as bigint) from rollups";
    let before = number(&db, rolled).await;
    for _ in 0..2 {
        let again: Vec<_> = outbox.iter().rev().cloned().collect();
        let stored = store(&db, &mut Memory::default(), &again, true).await;
        assert_eq!((stored.counts.stored, stored.counts.duplicates), (0, 9));
        assert_eq!(acked(&stored), (1..=9).collect(), "so that the agent forgets it");
    }
    assert_eq!(number(&db, rolled).await, before);
    check_samples(&db, &(1..=9).collect()).await;
}
