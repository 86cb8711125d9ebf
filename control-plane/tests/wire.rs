//! Agents over the real wire: enrolment, the broker behind its door, ingest, downlink.

#![allow(clippy::unwrap_used)]

mod support;

use hashinsight_control_plane::agents::{certificates, tokens};
use hashinsight_control_plane::args;
use hashinsight_control_plane::clock::Clock;
use hashinsight_control_plane::telemetry::keys::Keys;
use hashinsight_control_plane::telemetry::readings::{Pages, Range};
use hashinsight_protocol::document::DesiredDocumentV1;
use hashinsight_protocol::envelope::{Body as _, checksum, seal_up};
use hashinsight_protocol::events::{DocumentHeldV1, EventV1, EventsV1, GapCauseV1, GapV1, OrderResultV1};
use hashinsight_protocol::ids::{AgentId, MinerId, OrderId, PlanId};
use hashinsight_protocol::order::{CommandV1, OrderV1};
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::telemetry::{KeyBatch, PollV1, SampleV1, TelemetryV1};
use hashinsight_protocol::topics::{Down, Stream};
use hashinsight_protocol::units::{DurationMs, Hashrate, Millis};
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;
use support::{Agent, On, Plane, SOON, enrol_body, moment};

crate::on_both_brokers![
    every_sample_is_stored_once_whatever_the_wire_does,
    what_is_acknowledged_outlives_the_server,
    a_revoked_agent_is_cut_off_and_refused,
    documents_and_orders_are_sent_until_they_are_held,
    gaps_are_counted_and_the_watched_are_quick,
];

const MINERS: u8 = 40;
const BATCHES: u64 = 60;

/// A batch a minute, the last one now, in groups of 20.
fn outbox(agent: &Agent, now: Millis) -> Vec<Vec<u8>> {
    let mut key: Option<KeyBatch> = None;
    (1..=BATCHES)
        .map(|seq| {
            let started = Millis(now.0 - (BATCHES - seq) as i64 * 60_000);
            let sample = |miner: u8| SampleV1 {
                hashrate: Hashrate::new(f64::from(miner) * 1e12 + seq as f64),
                ..SampleV1::empty(
                    MinerId::from_random([miner; 16]),
                    DurationMs(u64::from(miner)),
                    PollV1::Answered,
                )
            };
            let samples: Vec<_> = (0..MINERS).map(sample).collect();
            if (seq - 1).is_multiple_of(20) {
                key = None;
            }
            let batch = TelemetryV1::new(seq, moment(started), &samples, key.as_ref()).unwrap();
            let body = batch.encode().unwrap();
            if key.is_none() {
                key = batch.as_key(seq, checksum(&body)).unwrap();
            }
            agent.seal(Stream::Telemetry, seq, &body)
        })
        .collect()
}

/// Numbers in an order that looks random and is the same each time.
fn shuffled(numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut numbers: Vec<_> = numbers.into_iter().collect();
    numbers.sort_by_key(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17));
    numbers
}

async fn every_sample_is_stored_once_whatever_the_wire_does(on: On) {
    let plane = Plane::start_on(on).await;
    let (agent, other) = (plane.agent(3).await, plane.agent(4).await);
    let now = plane.app.clock.now();
    let outbox = outbox(&agent, now);
    let sealed = |seq: u64| outbox[seq as usize - 1].clone();
    let streams = [(Stream::Telemetry, 1, BATCHES + 1)];

    let mut line = agent.connect(&plane, 1).await.unwrap();
    line.send(Stream::Presence, agent.hello(1, &streams, 0, now)).await;
    let welcome = line.welcome().await;
    assert_eq!((welcome.session, welcome.held.len(), welcome.held[0].up_to), (1, 1, 0));

    // Followers before their keys, repeats, and what is not ours in between.
    let first: Vec<_> = shuffled(1..=BATCHES).into_iter().filter(|seq| seq % 3 != 0).collect();
    for (n, seq) in first.iter().chain(&first[..10]).enumerate() {
        line.send(Stream::Telemetry, sealed(*seq)).await;
        match n % 12 {
            3 => line.send(Stream::Telemetry, other.seal(Stream::Telemetry, 3, b"another's")).await,
            5 => {
                let stranger = SigningKey::from_seed(&[9; 32]).unwrap();
                let forged =
                    seal_up(&stranger, agent.id, agent.epoch, Stream::Telemetry, 3, b"forged").unwrap();
                line.send(Stream::Telemetry, forged).await;
            }
            7 => line.send(Stream::Telemetry, vec![1, 2, 3]).await,
            9 => {
                let mut broken = sealed(*seq);
                *broken.last_mut().unwrap() ^= 1;
                line.send(Stream::Telemetry, broken).await;
            }
            _ => {}
        }
    }
    let mut acked = line.acked_within(Stream::Telemetry, Duration::from_millis(300)).await;
    assert!(acked.iter().all(|seq| first.contains(seq)), "only what was sent is acknowledged");
    drop(line);

    let mut line = agent.connect(&plane, 2).await.unwrap();
    line.send(Stream::Presence, agent.hello(2, &streams, 0, now)).await;
    let welcome = line.welcome().await;
    let up_to = welcome.held[0].up_to;
    assert!((1..=up_to).all(|seq| first.contains(&seq)));
    acked.extend(1..=up_to);
    for seq in (1..=BATCHES).rev().filter(|seq| !acked.contains(seq)) {
        line.send(Stream::Telemetry, sealed(seq)).await;
    }
    let all: BTreeSet<u64> = (1..=BATCHES).collect();
    let left = all.difference(&acked).copied().collect();
    assert!(line.acked(Stream::Telemetry, &left).await.is_subset(&all));

    // The same number with other content: kept aside, acknowledged, counted nowhere.
    let again = TelemetryV1::new(9, moment(now), &[], None).unwrap().encode().unwrap();
    line.send(Stream::Telemetry, agent.seal(Stream::Telemetry, 5, &again)).await;
    line.acked(Stream::Telemetry, &BTreeSet::from([5])).await;

    let samples = BATCHES as i64 * i64::from(MINERS);
    assert_eq!(plane.telemetry_number("select count(*) from batches").await, BATCHES as i64);
    assert_eq!(
        plane.telemetry_number("select cast(sum(samples) as bigint) from site_rollups").await,
        samples
    );
    assert_eq!(plane.telemetry_number("select count(*) from latest").await, i64::from(MINERS));
    assert_eq!(plane.telemetry_number("select min(at) from latest").await, now.0);
    assert_eq!(plane.telemetry_number("select count(*) from parked").await, 1);
    assert_eq!(plane.telemetry_number("select quarantined from parked").await, 1);
    let mut pages = Pages::new(agent.id, Range { from: Millis(0), to: Millis(i64::MAX), miner: None });
    let (mut keys, mut seen) = (Keys::default(), HashSet::new());
    while let Some(page) = pages.next(&plane.app.stores.telemetry, &mut keys).await.unwrap() {
        for reading in page {
            assert!(seen.insert((reading.miner, reading.at)), "twice: {reading:?}");
        }
    }
    assert_eq!(seen.len() as i64, samples);
    assert!(plane.number("select count(*) from agent_events where kind = 'refused'").await > 0);

    // The will of the first connection came late and changed nothing; that of the second one counts.
    assert_eq!(plane.number("select session * 10 + online from agent_presence").await, 21);
    drop(line);
    plane.becomes("select session * 10 + online from agent_presence", 20).await;
}

async fn what_is_acknowledged_outlives_the_server(on: On) {
    let mut plane = Plane::start_on(on).await;
    let agent = plane.agent(3).await;
    let now = plane.app.clock.now();
    let outbox = outbox(&agent, now);
    let streams = [(Stream::Telemetry, 1, BATCHES + 1)];
    let mut acked = BTreeSet::new();
    for (session, part) in [(1, 1..=25), (2, 20..=45), (3, 1..=60)] {
        let mut line = agent.connect(&plane, session).await.unwrap();
        line.send(Stream::Presence, agent.hello(session, &streams, 0, now)).await;
        let held = line.welcome().await.held[0].up_to;
        assert!((1..=held).all(|seq| acked.contains(&seq)) || held > 0);
        let send: BTreeSet<u64> = part.collect();
        for seq in send.iter().copied() {
            line.send(Stream::Telemetry, outbox[seq as usize - 1].clone()).await;
        }
        // Some of it is in flight when the server goes.
        let expect =
            if session == 3 { (1..=BATCHES).collect() } else { send.iter().copied().take(5).collect() };
        acked.extend(line.acked(Stream::Telemetry, &expect).await);
        if session == 3 {
            break;
        }
        drop(line);
        let (folder, broker) = plane.kill().await;
        plane = Plane::start_in(folder, broker, Clock::system()).await;
        let stored = plane.telemetry_number("select count(*) from batches").await;
        assert!(stored as usize >= acked.len(), "{stored} of {} acknowledged", acked.len());
    }
    let samples = BATCHES as i64 * i64::from(MINERS);
    assert_eq!(plane.telemetry_number("select count(*) from batches").await, BATCHES as i64);
    assert_eq!(
        plane.telemetry_number("select cast(sum(samples) as bigint) from site_rollups").await,
        samples
    );
}

async fn a_revoked_agent_is_cut_off_and_refused(on: On) {
    let plane = Plane::start_on(on).await;
    let (agent, other) = (plane.agent(3).await, plane.agent(4).await);
    let now = plane.app.clock.now();
    let line = agent.connect(&plane, 1).await.unwrap();
    let mut others = other.connect(&plane, 1).await.unwrap();
    line.send(Stream::Presence, agent.hello(1, &[], 0, now)).await;
    plane.becomes("select count(*) from agent_presence where online = 1", 1).await;
    // As the command line does it, in another process.
    let stores = support::stores(plane.folder.path()).await;
    assert!(certificates::revoke(&stores.business, agent.id, "test", now).await.unwrap());
    assert!(!certificates::revoke(&stores.business, agent.id, "test", now).await.unwrap());
    match on {
        On::Embedded => {
            tokio::time::timeout(Duration::from_secs(3), line.ended()).await.expect("cut off within seconds");
        }
        On::Mosquitto => {
            // Not cut off, but not listened to.
            plane.becomes("select count(*) from agent_presence where online = 1", 0).await;
            let mut line = line;
            events(
                &agent,
                &line,
                1,
                now,
                &[EventV1::Document(DocumentHeldV1 { version: 1, plans: Vec::new() })],
            )
            .await;
            let acked = line.acked_within(Stream::Events, Duration::from_secs(1)).await;
            assert!(acked.is_empty(), "what it says is not taken: {acked:?}");
            assert_eq!(plane.number("select count(*) from event_batches").await, 0);
            drop(line);
            plane.bring_revocations_to_the_broker().await;
        }
    }
    plane.becomes("select count(*) from agent_presence where online = 1", 0).await;
    // Another broker takes its revocation list up a moment after it was told.
    let mut tries = 0..50;
    while agent.connect(&plane, 2).await.is_some() {
        assert!(on == On::Mosquitto && tries.next().is_some(), "let in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    others.send(Stream::Presence, other.hello(1, &[], 0, now)).await;
    assert_eq!(others.welcome().await.session, 1, "nobody else is disturbed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enrolment_opens_to_a_fresh_token_alone() {
    let plane = Plane::start().await;
    let (tls_key, key) = (rcgen::KeyPair::generate().unwrap(), SigningKey::from_seed(&[1; 32]).unwrap());
    let token = plane.token().await;
    let good = enrol_body(token.secret(), &tls_key, &key);
    let broken = String::from_utf8(good.clone()).unwrap().replace("-----BEGIN", "-----BEGAN").into_bytes();
    for (head, body, status) in [
        ("GET /enrol", &b""[..], 404),
        ("POST /other", &good, 404),
        ("POST /enrol", b"{", 400),
        ("POST /enrol", &[b' '; 70_000], 400),
        ("POST /enrol", &broken, 400),
        ("POST /enrol", &good, 200),
        ("POST /enrol", &good, 403),
        ("POST /enrol", &enrol_body("guessed", &tls_key, &key), 403),
    ] {
        let (got, answer) = plane.request(head, body).await;
        assert_eq!(got, status, "{head}: {answer}");
        assert!(status == 200 || answer.starts_with("{\"error\":\""), "{answer}");
    }
    assert_eq!(plane.number("select count(*) from agents").await, 1);
    for _ in 2..tokens::FAILURES {
        assert_eq!(plane.request("POST /enrol", &enrol_body("guessed", &tls_key, &key)).await.0, 403);
    }
    let fresh = plane.token().await;
    let refused = plane.request("POST /enrol", &enrol_body(fresh.secret(), &tls_key, &key)).await;
    assert_eq!(refused.0, 429, "{}", refused.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_peers_do_not_keep_enrolment_from_others() {
    let plane = Plane::start().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(tokio::net::TcpStream::connect(plane.app.addresses.enrol).await.unwrap());
    }
    tokio::time::timeout(SOON, plane.agent(3)).await.expect("enrolled meanwhile");
}

async fn events(agent: &Agent, line: &support::Line, seq: u64, now: Millis, events: &[EventV1]) {
    let events = events.iter().map(|event| event.raw(moment(now)).unwrap()).collect();
    let body = EventsV1 { events }.encode().unwrap();
    line.send(Stream::Events, agent.seal(Stream::Events, seq, &body)).await;
}

async fn keep_document(plane: &Plane, agent: AgentId, version: u64) {
    let now = plane.app.clock.now();
    let body = DesiredDocumentV1 { agent, version, issued: now, parts: Vec::new() }.encode().unwrap();
    let sealed = plane.app.agents.seal(agent, Down::Desired, version, &body).unwrap();
    let insert = "insert into desired_documents (agent_id, version, content_hash, envelope, issued_at)
         values ($1, $2, '', $3, $4) on conflict (agent_id) do update set version = excluded.version,
         envelope = excluded.envelope";
    plane.app.stores.business.execute(insert, args![agent, version, sealed, now]).await.unwrap();
    plane.app.nudge.agent(agent);
}

async fn documents_and_orders_are_sent_until_they_are_held(on: On) {
    let plane = Plane::start_on(on).await;
    let agent = plane.agent(3).await;
    let now = plane.app.clock.now();
    let mut line = agent.connect(&plane, 1).await.unwrap();
    line.send(Stream::Presence, agent.hello(1, &[], 0, now)).await;
    assert_eq!(line.welcome().await.document, 0);

    let issued = tokio::time::Instant::now();
    keep_document(&plane, agent.id, 1).await;
    let document = DesiredDocumentV1::decode(&line.next(Down::Desired).await).unwrap();
    assert_eq!(document.version, 1);
    assert!(issued.elapsed() < Duration::from_secs(1), "a nudge goes at once");
    // Lost on the way, as far as the server can tell: it comes again.
    line.next(Down::Desired).await;
    events(&agent, &line, 1, now, &[EventV1::Document(DocumentHeldV1 { version: 1, plans: Vec::new() })])
        .await;
    line.acked(Stream::Events, &BTreeSet::from([1])).await;
    assert_eq!(plane.number("select document_held from agent_presence").await, 1);

    let order = OrderV1 {
        id: OrderId::from_random([8; 16]),
        issued: now,
        expires: now.plus(DurationMs::from_minutes(5)),
        by: "test".to_owned(),
        command: CommandV1::Stop { plan: PlanId::from_random([9; 16]), force: false },
    };
    let sealed = plane.app.agents.seal(agent.id, Down::Order, 0, &order.encode().unwrap()).unwrap();
    let insert =
        "insert into orders (id, agent_id, envelope, issued_at, expires_at) values ($1, $2, $3, $4, $5)";
    let args = args![order.id, agent.id, sealed, order.issued, order.expires];
    plane.app.stores.business.execute(insert, args).await.unwrap();
    plane.app.nudge.agent(agent.id);
    for _ in 0..2 {
        assert_eq!(OrderV1::decode(&line.next(Down::Order).await).unwrap(), order);
    }
    let result = OrderResultV1 { order: order.id, taken: true, reason: String::new() };
    events(&agent, &line, 2, now, &[EventV1::Order(result)]).await;
    plane.becomes("select count(*) from orders where taken = 1 and result_at is not null", 1).await;

    // The agent remembers more than the server, which was restored from a backup.
    line.send(Stream::Presence, agent.hello(2, &[], 7, now)).await;
    assert_eq!(line.welcome().await.document, 8);
    assert_eq!(DesiredDocumentV1::decode(&line.next(Down::Desired).await).unwrap().version, 8);
}

async fn gaps_are_counted_and_the_watched_are_quick(on: On) {
    let plane = Plane::start_on(on).await;
    let agent = plane.agent(3).await;
    let now = plane.app.clock.now();
    let mut line = agent.connect(&plane, 1).await.unwrap();
    line.send(Stream::Presence, agent.hello(1, &[(Stream::Events, 1, 2)], 0, now)).await;
    assert!(!line.welcome().await.watched);
    let gap = GapV1 {
        epoch: agent.epoch,
        cause: GapCauseV1::Quota,
        first_cycle: 1,
        last_cycle: 20,
        seqs: Some((1, 20)),
        polls: 800,
    };
    for _ in 0..2 {
        events(&agent, &line, 1, now, &[EventV1::Gap(gap.clone())]).await;
    }
    line.acked(Stream::Events, &BTreeSet::from([1])).await;
    assert_eq!(plane.telemetry_number("select cast(sum(polls) as bigint) from gaps").await, 800);
    line.send(Stream::Telemetry, outbox(&agent, now)[20].clone()).await;
    line.acked(Stream::Telemetry, &(1..=21).collect()).await;

    let watcher = plane.app.live.subscribe(plane.site);
    let order = OrderV1::decode(&line.next(Down::Order).await).unwrap();
    assert!(matches!(order.command, CommandV1::Watch { cycle_s: 10, .. }));
    line.send(Stream::Presence, agent.hello(2, &[], 0, now)).await;
    assert!(line.welcome().await.watched);
    drop(watcher);
}

/// A batch of its own, of the first `miners` miners.
fn alone(agent: &Agent, seq: u64, now: Millis, miners: u8) -> Vec<u8> {
    let sample = |n: u8| SampleV1::empty(MinerId::from_random([n; 16]), DurationMs(0), PollV1::Answered);
    let samples: Vec<_> = (0..miners).map(sample).collect();
    let batch = TelemetryV1::new(seq, moment(now), &samples, None).unwrap();
    agent.seal(Stream::Telemetry, seq, &batch.encode().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_can_never_be_stored_is_quarantined_and_blocks_nobody() {
    let plane = Plane::start().await;
    let (agent, other) = (plane.agent(3).await, plane.agent(4).await);
    let now = plane.app.clock.now();
    // The database refuses a batch with as many samples as one before it.
    let poison = "create unique index poison on batches (agent_id, samples)";
    plane.app.stores.telemetry.execute(poison, args![]).await.unwrap();
    let mut line = agent.connect(&plane, 1).await.unwrap();
    let mut others = other.connect(&plane, 1).await.unwrap();
    for (seq, miners) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4)] {
        line.send(Stream::Telemetry, alone(&agent, seq, now, miners)).await;
        others.send(Stream::Telemetry, alone(&other, seq, now, seq as u8)).await;
    }
    let all: BTreeSet<u64> = (1..=5).collect();
    assert_eq!(line.acked(Stream::Telemetry, &all).await, all);
    assert_eq!(others.acked(Stream::Telemetry, &all).await, all);
    assert_eq!(plane.telemetry_number("select count(*) from batches").await, 9);
    assert_eq!(plane.telemetry_number("select cast(sum(samples) as bigint) from site_rollups").await, 25);
    assert_eq!(plane.telemetry_number("select seq from parked where quarantined = 1").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_while_the_database_stands_still() {
    let plane = Plane::start().await;
    let agent = plane.agent(3).await;
    let now = plane.app.clock.now();
    let mut line = agent.connect(&plane, 1).await.unwrap();
    let stall = plane.app.stores.telemetry.begin().await.unwrap();
    for seq in 1..=3 {
        line.send(Stream::Telemetry, alone(&agent, seq, now, 2)).await;
    }
    assert!(line.acked_within(Stream::Telemetry, Duration::from_millis(700)).await.is_empty());
    drop(stall);
    let all: BTreeSet<u64> = (1..=3).collect();
    assert_eq!(line.acked(Stream::Telemetry, &all).await, all);
    assert_eq!(plane.telemetry_number("select count(*) from batches").await, 3);
}

#[test]
fn the_same_tests_pass_on_postgresql() {
    hashinsight_test_postgres::same_tests("the wire to the agents on PostgreSQL");
}
