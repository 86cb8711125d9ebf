//! The known defects of rumqttd 0.20, one by one: each is provoked as it was found, and must not hurt.
//!
//! Router death from within, by a stall or by a panic, is in `router.rs`.

use crate::common::*;
use bytes::Bytes;
use hashinsight_broker::Refusal;
use hashinsight_protocol::topics::{Down, Stream, Topic, down_filter};
use rumqttd::protocol::{ConnectReturnCode, Packet};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// After whatever was done: somebody who was there is served, somebody new comes in, messages pass both
/// ways, and the router is still the first one.
async fn unhurt(site: &mut Site, bystander: &mut Client) {
    bystander.expect_alive().await;
    let me = agent(14);
    let mut client = site.connect(me).await;
    client.publish(me, Stream::Events, 1, b"up").await;
    loop {
        let up = site.next_up().await;
        if up.agent == me {
            assert_eq!(up.payload, "up");
            break;
        }
    }
    assert!(matches!(client.next().await, Some(Packet::PubAck(..))));
    site.broker.try_send(me, Down::Ack, Bytes::from_static(b"down")).unwrap();
    assert_eq!(client.message().await.2, "down");
    assert_eq!(site.broker.counters().router_restarts, 0);
}

/// 1: the same bad client id twice poisoned a lock, and no connection was taken any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_client_ids() {
    let mut site = site(|_| {}).await;
    let mut bystander = site.connect(agent(1)).await;
    let tls = site.admitted(agent(2));
    for id in ["a/b", "a/b", "", "#", "+", "é", &"x".repeat(2000)] {
        let mut client = Client::open(site.broker.local_addr(), tls.clone()).await.unwrap();
        assert_eq!(client.connect(&connect_packet(id, 30, None)).await, ConnectReturnCode::NotAuthorized);
    }
    site.until_refused(Refusal::ClientId, 7).await;
    unhurt(&mut site, &mut bystander).await;
}

/// 2: so did resets between CONNECT and CONNACK, and reaching the limit of connections once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_before_the_connack_and_a_full_house() {
    let mut site = site(|limits| {
        limits.connections = 3;
        limits.takeover_deadline = Duration::from_millis(300);
    })
    .await;
    let mut bystander = site.connect(agent(1)).await;
    let tls = site.admitted(agent(2));
    for _ in 0..30 {
        let mut client = Client::open(site.broker.local_addr(), tls.clone()).await.unwrap();
        client.send(&connect_packet(&agent(2).to_string(), 30, None)).await;
        client.tls.get_ref().0.set_zero_linger().unwrap();
    }
    site.until_connected(1).await;
    let held = [site.connect(agent(3)).await, site.connect(agent(4)).await];
    let tls = site.admitted(agent(5));
    let mut late = Client::open(site.broker.local_addr(), tls).await.unwrap();
    let code = late.connect(&connect_packet(&agent(5).to_string(), 30, None)).await;
    assert_eq!(code, ConnectReturnCode::ServiceUnavailable);
    drop(held);
    site.until_connected(1).await;
    unhurt(&mut site, &mut bystander).await;
}

/// 3: one TCP connection that said nothing kept all others out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_tls_peers() {
    let mut site = site(|_| {}).await;
    let mut bystander = site.connect(agent(1)).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(site.broker.local_addr()).await.unwrap());
    }
    let begun = Instant::now();
    unhurt(&mut site, &mut bystander).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// 4: a topic that began with a character of several bytes killed the router.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_are_not_ascii() {
    let mut site = site(|_| {}).await;
    let mut bystander = site.connect(agent(1)).await;
    let own = Topic::Up(agent(2), Stream::Events).to_string();
    for topic in ["é", "日本/up", "\u{1f600}", &format!("é{own}"), &format!("{own}é")] {
        let mut client = site.connect(agent(2)).await;
        client.send(&publish_packet(0x32, topic, Some(1), b"x")).await;
        client.expect_closed().await;
    }
    let mut client = site.connect(agent(2)).await;
    assert_eq!(client.subscribe(&["é/#"]).await, [false]);
    unhurt(&mut site, &mut bystander).await;
}

/// 5: the last member of a shared subscription that left with unacknowledged messages killed the router.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_subscriptions() {
    let mut site = site(|_| {}).await;
    let mut bystander = site.connect(agent(1)).await;
    let me = agent(2);
    for _ in 0..3 {
        let mut client = site.connect(me).await;
        assert_eq!(client.subscribe(&[&format!("$share/g/{}", down_filter(me))]).await, [false]);
        for _ in 0..10 {
            site.broker.try_send(me, Down::Order, Bytes::from_static(b"x")).unwrap();
        }
        client.message().await;
    }
    unhurt(&mut site, &mut bystander).await;
}

/// 6: the router's log wraps and loses the oldest half, in silence. The door hands it no more than fits:
/// who does not read makes its sender wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrapped_log() {
    let mut site = site(|limits| {
        limits.up_queue = 1;
        limits.up_messages_per_second = 1_000_000;
    })
    .await;
    let me = agent(2);
    let mut client = site.connect(me).await;
    // Five times what the ring holds.
    let sending = tokio::spawn(async move {
        for n in 0..2000u16 {
            let mut payload = vec![0; 10_000];
            payload[..2].copy_from_slice(&n.to_be_bytes());
            client.publish(me, Stream::Telemetry, n + 1, &payload).await;
            assert!(matches!(client.next().await, Some(Packet::PubAck(..))));
        }
        client
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    for n in 0..2000u16 {
        assert_eq!(site.next_up().await.payload[..2], n.to_be_bytes());
    }
    sending.await.unwrap().expect_alive().await;
}

/// 7: retained messages are handed out in part, and an empty payload deletes them. None is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages() {
    let mut site = site(|_| {}).await;
    let mut bystander = site.connect(agent(1)).await;
    let me = agent(2);
    let own = Topic::Up(me, Stream::Events).to_string();
    for payload in [&b"kept"[..], b""] {
        let mut client = site.connect(me).await;
        client.send(&publish_packet(0x33, &own, Some(1), payload)).await;
        client.expect_closed().await;
    }
    site.until_refused(Refusal::Retained, 2).await;
    // An empty message that is not retained is a message like any other.
    let mut client = site.connect(me).await;
    client.publish(me, Stream::Events, 1, b"").await;
    assert!(site.next_up().await.payload.is_empty());
    unhurt(&mut site, &mut bystander).await;
}

/// 8: a PUBACK comes before a message is stored anywhere. It still does, so nobody may rely on it: what the
/// door has acknowledged and the control plane has not taken is gone with the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_puback_proves_nothing() {
    let mut site = site(|_| {}).await;
    let me = agent(2);
    let mut client = site.connect(me).await;
    client.publish(me, Stream::Events, 1, b"x").await;
    assert!(matches!(client.next().await, Some(Packet::PubAck(..))), "before anybody has taken it");
    site.broker.shutdown().await;
    let taken = site.up.recv().await;
    assert!(taken.is_none_or(|up| up.payload == "x"), "it may be there or not, and is never another");
}

/// 9: a reconnect while the old socket was open published the new connection's will, and lost it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn false_wills() {
    let mut site = site(|_| {}).await;
    let me = agent(2);
    let tls = site.admitted(me);
    let presence = Topic::Up(me, Stream::Presence).to_string();
    let mut lines = Vec::new();
    for will in [&b"first"[..], b"second"] {
        let mut client = Client::open(site.broker.local_addr(), tls.clone()).await.unwrap();
        let packet = connect_packet(&me.to_string(), 30, Some((presence.clone(), will, false)));
        assert_eq!(client.connect(&packet).await, ConnectReturnCode::Success);
        lines.push(client);
    }
    assert_eq!(site.next_up().await.payload, "first");
    site.no_up().await;
    drop(lines);
    assert_eq!(site.next_up().await.payload, "second");
    site.no_up().await;
}

/// 10: the router panics when it hears of a link that it has dropped, as with a slow reader that is taken
/// over while messages wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_that_are_taken_over() {
    let mut site = site(|_| {}).await;
    let mut bystander = site.connect(agent(1)).await;
    let me = agent(2);
    for _ in 0..20 {
        let slow = site.connect(me).await;
        // Nothing is acknowledged: the window fills, then the queue.
        while site.broker.try_send(me, Down::Desired, Bytes::from(vec![0; 4000])).is_ok() {
            tokio::task::yield_now().await;
        }
        let _next = site.connect(me).await;
        drop(slow);
    }
    unhurt(&mut site, &mut bystander).await;
}

/// 11: traffic towards a dead peer kept it "alive". Here only what it says counts, and writes have a
/// deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_peers_that_are_written_to() {
    let mut site = site(|_| {}).await;
    let mut bystander = site.connect(agent(1)).await;
    let me = agent(2);
    let tls = site.admitted(me);
    let mut dead = Client::open(site.broker.local_addr(), tls).await.unwrap();
    dead.connect(&connect_packet(&me.to_string(), 1, None)).await;
    dead.subscribe(&[&down_filter(me)]).await;
    let begun = Instant::now();
    while site.broker.connected().contains(&me) {
        let _ = site.broker.try_send(me, Down::Ack, Bytes::from_static(b"x"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(begun.elapsed() < SOON, "still there");
    }
    site.until_refused(Refusal::KeepAlive, 1).await;
    unhurt(&mut site, &mut bystander).await;
}

/// 12: every client id and every filter ever seen kept memory. Only admitted agents reach the router, each
/// under one name and with one filter, however often it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_pile_up() {
    let mut site = site(|_| {}).await;
    let mut bystander = site.connect(agent(1)).await;
    let me = agent(2);
    let mut client = site.connect(me).await;
    for n in 0..200 {
        assert_eq!(client.subscribe(&[&format!("{}{n}", down_filter(me))]).await, [false]);
    }
    let before = resident_kib();
    for _ in 0..300 {
        drop(std::mem::replace(&mut client, site.connect(me).await));
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB for 300 connections of one agent");
    unhurt(&mut site, &mut bystander).await;
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
