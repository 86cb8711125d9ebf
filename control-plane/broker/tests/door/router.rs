//! The router stalls, and the router dies: the door goes on.
//!
//! rumqttd traces on its own thread whatever it does, so a subscriber can hold it there or make it
//! panic, as if by a fault of its own.

use crate::common::*;
use bytes::Bytes;
use hashinsight_protocol::topics::{Down, Stream, Topic, down_filter};
use rumqttd::protocol::ConnectReturnCode;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber, subscriber::Interest};

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Stall,
    Panic,
}

static FAULT: Mutex<Fault> = Mutex::new(Fault::None);
static CHANGED: Condvar = Condvar::new();
/// One test at a time: the fault hits every router of the process.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn set(fault: Fault) {
    *FAULT.lock().unwrap_or_else(|e| e.into_inner()) = fault;
    CHANGED.notify_all();
}

struct Saboteur;

impl Subscriber for Saboteur {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        if std::thread::current().name().is_some_and(|name| name.starts_with("router-")) {
            let mut fault: MutexGuard<'_, Fault> = FAULT.lock().unwrap_or_else(|e| e.into_inner());
            while *fault == Fault::Stall {
                fault = CHANGED.wait(fault).unwrap_or_else(|e| e.into_inner());
            }
            if *fault == Fault::Panic {
                *fault = Fault::None;
                drop(fault);
                panic!("the router's thread is made to panic");
            }
        }
        false
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn sabotage() {
    let _ = tracing::subscriber::set_global_default(Saboteur);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_router_is_replaced_and_wills_reach_the_next() {
    let _turn = TURN.lock().await;
    sabotage();
    let mut site = site(|limits| limits.ping_every = Duration::from_millis(200)).await;
    let (me, other) = (agent(1), agent(2));
    let tls = site.admitted(me);
    for round in 1..=3 {
        let mut client = Client::open(site.broker.local_addr(), tls.clone()).await.unwrap();
        let presence = Topic::Up(me, Stream::Presence).to_string();
        let packet = connect_packet(&me.to_string(), 30, Some((presence, b"lost", false)));
        assert_eq!(client.connect(&packet).await, ConnectReturnCode::Success);
        assert_eq!(client.subscribe(&[&down_filter(me)]).await, [true]);
        let mut bystander = site.connect(other).await;
        set(Fault::Panic);
        client.expect_closed().await;
        bystander.expect_closed().await;
        assert_eq!(site.next_up().await.payload, "lost");
        assert_eq!(site.broker.counters().router_restarts, round);
        let mut again = site.connect(me).await;
        again.publish(me, Stream::Events, 1, b"back").await;
        assert_eq!(site.next_up().await.payload, "back");
        site.broker.try_send(me, Down::Ack, Bytes::from_static(b"ack")).unwrap();
        again.next().await.unwrap();
        assert_eq!(again.message().await.2, "ack");
    }
    assert_eq!(site.broker.counters().wills, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_router_freezes_nothing_and_is_given_up() {
    let _turn = TURN.lock().await;
    sabotage();
    let mut site = site(|limits| {
        limits.ping_every = Duration::from_millis(200);
        limits.ping_deadline = Duration::from_secs(3);
        limits.takeover_deadline = Duration::from_secs(1);
        limits.up_messages_per_second = 1_000_000;
    })
    .await;
    let (me, other) = (agent(1), agent(2));
    let mut busy = site.connect(me).await;
    let mut idle = site.connect(other).await;
    set(Fault::Stall);
    let begun = Instant::now();
    // More than all queues in between hold.
    let flood = tokio::spawn(async move {
        let topic = Topic::Up(me, Stream::Telemetry).to_string();
        let packet = publish_packet(0x30, &topic, None, &[0; 100]);
        for _ in 0..100_000 {
            if tokio::io::AsyncWriteExt::write_all(&mut busy.tls, &packet).await.is_err() {
                break;
            }
        }
        busy
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..50 {
        let _ = site.broker.try_send(other, Down::Ack, Bytes::from_static(b"x"));
    }
    // The runtime turns, the door speaks TLS, idle agents are answered, newcomers hear why not.
    let asked = Instant::now();
    idle.expect_alive().await;
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    let tls = site.admitted(agent(3));
    let mut late = Client::open(site.broker.local_addr(), tls).await.unwrap();
    let code = late.connect(&connect_packet(&agent(3).to_string(), 30, None)).await;
    assert_eq!(code, ConnectReturnCode::ServiceUnavailable);
    site.broker.cut(other);
    idle.expect_closed().await;
    assert!(begun.elapsed() < Duration::from_millis(2800), "{:?}", begun.elapsed());
    // Then it is replaced, though its thread still hangs.
    until("a new router", || site.broker.counters().router_restarts == 1).await;
    drop(timeout(SOON, flood).await.expect("the flood ends").unwrap());
    let again = async {
        // The new router is held too, until the fault is over.
        set(Fault::None);
        let mut again = site.connect(me).await;
        again.publish(me, Stream::Events, 1, b"back").await;
        loop {
            let up = site.next_up().await;
            if up.stream == Stream::Events {
                return up;
            }
        }
    };
    assert_eq!(timeout(SOON, again).await.unwrap().payload, "back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_stall_loses_nothing() {
    let _turn = TURN.lock().await;
    sabotage();
    let mut site = site(|limits| limits.up_messages_per_second = 1_000_000).await;
    let me = agent(1);
    let mut client = site.connect(me).await;
    set(Fault::Stall);
    let sending = tokio::spawn(async move {
        for n in 1..=3000u16 {
            client.publish(me, Stream::Events, n, &n.to_be_bytes()).await;
        }
        for n in 1..=3000u16 {
            let next = client.next().await;
            assert!(
                matches!(next, Some(rumqttd::protocol::Packet::PubAck(ref a, _)) if a.pkid == n),
                "{next:?}"
            );
        }
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    set(Fault::None);
    for n in 1..=3000u16 {
        assert_eq!(site.next_up().await.payload[..], n.to_be_bytes());
    }
    timeout(SOON, sending).await.unwrap().unwrap();
    assert_eq!(site.broker.counters().router_restarts, 0);
}
