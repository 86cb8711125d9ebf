//! Rollups and retention against a plain count, with time passed in: whatever comes when, each sample is
//! in its day once, and what is past its age goes.

#![allow(clippy::unwrap_used)]

use super::batches::{self, Batch, Memory};
use super::ledger::StreamKey;
use super::once::Arrived;
use super::readings::{Pages, Range};
use super::retention::{Ages, dropped, step};
use super::rollups::{BUCKET, DAY, HOUR, of_miner};
use super::{condense, keys::Keys};
use crate::args;
use crate::store::{Db, testing};
use hashinsight_protocol::clock::{ClockStateV1, MomentV1};
use hashinsight_protocol::envelope::{Body as _, Envelope, seal_up};
use hashinsight_protocol::ids::{AgentId, BootId, Epoch, MinerId};
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::telemetry::{KeyBatch, PollV1, SampleV1, TelemetryV1};
use hashinsight_protocol::topics::{Stream, Topic};
use hashinsight_protocol::units::{BootMillis, DurationMs, Millis, Watts};
use proptest::prelude::*;

/// A midnight.
const START: Millis = Millis(20_700 * DAY.0 as i64);
const MINERS: u8 = 2;

fn stream() -> StreamKey {
    let agent = AgentId::from_random([1; 16]);
    StreamKey { agent, epoch: Epoch::from_random([2; 16]), stream: Stream::Telemetry }
}

fn miner(n: u8) -> MinerId {
    MinerId::from_random([n; 16])
}

fn after(hours: u64, minutes: u64) -> Millis {
    START.plus(DurationMs::from_minutes(hours * 60 + minutes))
}

fn batch(seq: u64, at: Millis, power: u32, key: Option<&KeyBatch>) -> (TelemetryV1, Batch) {
    let started = MomentV1 {
        wall: at,
        boot: BootMillis(seq),
        boot_id: BootId::from_random([0; 16]),
        state: ClockStateV1::Synced,
    };
    let sample = |n: u8| SampleV1 {
        power: Watts::new(f64::from(power)),
        ..SampleV1::empty(miner(n), DurationMs(1), PollV1::Answered)
    };
    let samples: Vec<_> = (0..MINERS).map(sample).collect();
    let body = TelemetryV1::new(seq, started, &samples, key).unwrap();
    let signer = SigningKey::from_seed(&[1; 32]).unwrap();
    let StreamKey { agent, epoch, stream } = stream();
    let sealed = seal_up(&signer, agent, epoch, stream, seq, &body.encode().unwrap()).unwrap();
    let opened = Envelope::open(Topic::Up(agent, stream), &sealed).unwrap();
    let (checksum, read) = (opened.header.checksum, batches::read(opened.body));
    // All of it arrives at the end, as a backlog does.
    let received_at = after(30 * 24, 0);
    let key = self::stream();
    (body, Arrived { key, seq, checksum, received_at, envelope: sealed.into(), body: read })
}

async fn database() -> (tempfile::TempDir, Db) {
    let folder = tempfile::tempdir().unwrap();
    let db = testing::stores(folder.path()).await.telemetry;
    (folder, db)
}

async fn store(db: &Db, memory: &mut Memory, batches: &[Batch]) {
    let mut tx = db.begin_for([stream().agent]).await.unwrap();
    batches::store(&mut tx, memory, batches).await.unwrap();
    tx.commit().await.unwrap();
}

async fn make_all(db: &Db, now: Millis) {
    loop {
        let due = condense::due(db, now, 100).await.unwrap();
        if due.is_empty() {
            break;
        }
        for (agent, length, bucket) in due {
            condense::make(db, agent, length, bucket).await.unwrap();
        }
    }
}

async fn number(db: &Db, sql: &'static str) -> i64 {
    let (number,): (i64,) = db.fetch_one(sql, args![]).await.unwrap();
    number
}

/// Polls and mean power of a miner, by bucket.
async fn sums(db: &Db, length: DurationMs) -> Vec<(Millis, i64, f64)> {
    let all = of_miner(db, stream().agent, miner(1), length, Millis(0), Millis(i64::MAX)).await.unwrap();
    all.into_iter().map(|(at, sums)| (at, sums.polls, sums.power().unwrap().get())).collect()
}

#[tokio::test]
async fn hours_and_days_are_made_when_they_are_over() {
    let (_folder, db) = database().await;
    let mut memory = Memory::default();
    for (seq, at, power) in
        [(1, after(0, 1), 1000), (2, after(0, 4), 2000), (3, after(0, 59), 3000), (4, after(1, 0), 4000)]
    {
        store(&db, &mut memory, &[batch(seq, at, power, None).1]).await;
    }
    let fives = [(after(0, 0), 2, 1500.0), (after(0, 55), 1, 3000.0), (after(1, 0), 1, 4000.0)];
    assert_eq!(sums(&db, BUCKET).await, fives);
    make_all(&db, after(1, 5)).await;
    assert_eq!(sums(&db, HOUR).await, [], "not over for long enough");
    make_all(&db, after(1, 6)).await;
    assert_eq!(sums(&db, HOUR).await, [(after(0, 0), 3, 2000.0)]);
    make_all(&db, after(24, 6)).await;
    assert_eq!(sums(&db, HOUR).await, [(after(0, 0), 3, 2000.0), (after(1, 0), 1, 4000.0)]);
    assert_eq!(sums(&db, DAY).await, [(after(0, 0), 4, 2500.0)]);
    // What comes late is in all of them at the next turn.
    store(&db, &mut memory, &[batch(5, after(0, 30), 5000, None).1]).await;
    make_all(&db, after(24, 7)).await;
    assert_eq!(sums(&db, DAY).await, [(after(0, 0), 5, 3000.0)]);
    assert_eq!(sums(&db, HOUR).await[0], (after(0, 0), 4, 2750.0));
    assert_eq!(number(&db, "select count(*) from rollups_due").await, 0);
}

#[tokio::test]
async fn raw_goes_by_its_age_and_a_key_stays_for_its_followers() {
    let (_folder, db) = database().await;
    let mut memory = Memory::default();
    let (mut group, mut key) = (Vec::new(), None);
    // Groups of three, an hour from batch to batch.
    for seq in 1..=300u64 {
        if seq % 3 == 1 {
            key = None;
        }
        let (body, arrived) = batch(seq, after(seq, 0), 1000, key.as_ref());
        key = key.or_else(|| body.as_key(seq, arrived.checksum).unwrap());
        group.push(arrived);
    }
    store(&db, &mut memory, &group).await;
    let ages = Ages { raw: DurationMs(DAY.0), ..Ages::default() };
    // Those before 251 are past their age; 250 is the key of 251 and 252.
    let now = after(251, 0).plus(DurationMs(DAY.0));
    let mut steps = 0;
    while let Some(pieces) = step(&db, &ages, now).await.unwrap() {
        assert!((1..=64).contains(&pieces));
        steps += 1;
    }
    assert!(steps >= 4);
    assert_eq!(number(&db, "select min(seq) from batches").await, 250);
    assert_eq!(number(&db, "select count(*) from batches").await, 51);
    let gone = dropped(&db).await.unwrap();
    assert_eq!((gone[0].kind.as_str(), gone[0].pieces, gone[0].samples, gone.len()), ("raw", 249, 498, 1));
    // What is left can be read, and what is gone does not come again.
    let range = Range { from: Millis(0), to: Millis(i64::MAX), miner: None };
    let (mut pages, mut keys, mut left) = (Pages::new(stream().agent, range), Keys::default(), 0);
    while let Some(page) = pages.next(&db, &mut keys).await.unwrap() {
        left += page.len();
    }
    assert_eq!(left, 102);
    store(&db, &mut Memory::default(), &group[..20]).await;
    assert_eq!(number(&db, "select min(seq) from batches").await, 250);
    assert_eq!(number(&db, "select cast(sum(samples) as bigint) from site_rollups").await, 600);
}

#[derive(Clone, Debug)]
enum Event {
    /// A batch of this minute since the start.
    Comes(u32),
    Makes,
    Drops,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0u32..6 * 24 * 60).prop_map(Event::Comes),
        2 => Just(Event::Makes),
        1 => Just(Event::Drops),
    ]
}

/// Time goes on by half a day an event; days are never dropped here.
async fn check(events: Vec<Event>) {
    let (_folder, db) = database().await;
    let ages = Ages {
        raw: DurationMs(DAY.0),
        five_minutes: DurationMs(DAY.0),
        hourly: DurationMs(2 * DAY.0),
        ..Ages::default()
    };
    let (mut memory, mut came) = (Memory::default(), 0);
    for (n, event) in events.iter().chain([&Event::Makes, &Event::Drops, &Event::Makes]).enumerate() {
        let now = after(n as u64 * 12, 0);
        match event {
            Event::Comes(minute) => {
                came += 1;
                store(&db, &mut memory, &[batch(came, after(0, u64::from(*minute)), 1000, None).1]).await;
            }
            Event::Makes => make_all(&db, now).await,
            Event::Drops => while step(&db, &ages, now).await.unwrap().is_some() {},
        }
    }
    make_all(&db, after(60 * 24, 0)).await;
    while step(&db, &ages, after(60 * 24, 0)).await.unwrap().is_some() {}
    let days: i64 = sums(&db, DAY).await.iter().map(|(_, polls, _)| polls).sum();
    assert_eq!(days, came as i64);
    assert_eq!(number(&db, "select count(*) from rollups where length < 86400000").await, 0);
    assert_eq!(number(&db, "select count(*) from batches").await, 0);
    assert_eq!(number(&db, "select count(*) from site_rollups").await, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// However late readings come, and whatever was dropped before, each is in its day once.
    #[test]
    fn each_sample_is_in_its_day_once(events in proptest::collection::vec(event(), 0..24)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check(events));
    }
}
