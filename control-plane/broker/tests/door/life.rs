//! How connections end, and what remains of them.

use crate::common::*;
use bytes::Bytes;
use hashinsight_broker::{Admission, Refusal, Up};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::topics::{Down, Stream, Topic, down_filter};
use rumqttd::protocol::ConnectReturnCode;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// An agent with a will, connected and subscribed.
async fn with_will(site: &Site, agent: AgentId, will: &[u8], keep_alive: u16) -> Client {
    let tls = site.admitted(agent);
    let mut client = Client::open(site.broker.local_addr(), tls).await.unwrap();
    let topic = Topic::Up(agent, Stream::Presence).to_string();
    let packet = connect_packet(&agent.to_string(), keep_alive, Some((topic, will, false)));
    assert_eq!(client.connect(&packet).await, ConnectReturnCode::Success);
    assert_eq!(client.subscribe(&[&down_filter(agent)]).await, [true]);
    client
}

fn will_of(agent: AgentId, will: &'static str) -> Up {
    Up { agent, stream: Stream::Presence, payload: Bytes::from_static(will.as_bytes()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_is_published_at_an_abnormal_end_only() {
    let mut site = site(|_| {}).await;
    let me = agent(1);

    let mut client = with_will(&site, me, b"disconnected", 30).await;
    client.send(&[0xe0, 0]).await;
    client.expect_closed().await;
    site.no_up().await;

    // Closed, by TLS close or by reset.
    drop(with_will(&site, me, b"dropped", 30).await);
    assert_eq!(site.next_up().await, will_of(me, "dropped"));
    let client = with_will(&site, me, b"reset", 30).await;
    client.tls.get_ref().0.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(site.next_up().await, will_of(me, "reset"));

    // Thrown out.
    let mut client = with_will(&site, me, b"thrown out", 30).await;
    client.send(&publish_packet(0x30, "elsewhere", None, b"x")).await;
    assert_eq!(site.next_up().await, will_of(me, "thrown out"));
    site.no_up().await;
    assert_eq!(site.broker.counters().wills, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_agent_is_given_up_after_its_keep_alive() {
    let mut site = site(|_| {}).await;
    let me = agent(1);
    let mut client = with_will(&site, me, b"silent", 1).await;
    // The beginning of a packet is not a sign of life.
    let begun = Instant::now();
    for byte in [0x30, 200, 1, 0, 5] {
        client.send(&[byte]).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(site.next_up().await, will_of(me, "silent"));
    assert!((1400..3000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!(site.refused(Refusal::KeepAlive), 1);
    client.expect_closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_ends_the_old_connection_first() {
    let mut site = site(|_| {}).await;
    let me = agent(1);
    let mut old = with_will(&site, me, b"1", 30).await;
    for n in ["2", "3", "4"] {
        let mut new = with_will(&site, me, n.as_bytes(), 30).await;
        old.expect_closed().await;
        new.publish(me, Stream::Presence, 1, format!("hello {n}").as_bytes()).await;
        site.broker.try_send(me, Down::Welcome, Bytes::from_static(b"welcome")).unwrap();
        // The old will comes before anything that the new connection says.
        let before = (n.parse::<u8>().unwrap() - 1).to_string();
        assert_eq!(site.next_up().await.payload, before);
        assert_eq!(site.next_up().await.payload, format!("hello {n}"));
        let mut heard = Vec::new();
        for _ in 0..2 {
            heard.push(format!("{:?}", new.next().await.unwrap()));
        }
        assert!(heard.iter().any(|packet| packet.contains("welcome")), "{heard:?}");
        assert_eq!(site.broker.connected(), [me]);
        old = new;
    }
    assert_eq!(site.broker.counters().taken_over, 3);
    site.no_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_takeovers_at_once_leave_one() {
    let mut site = site(|_| {}).await;
    let me = agent(1);
    let tls = site.admitted(me);
    let mut bystander = site.connect(agent(2)).await;
    let address = site.broker.local_addr();
    let mut storm = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let tls = tls.clone();
        storm.spawn(async move {
            let mut client = Client::open(address, tls).await.ok()?;
            client.send(&connect_packet(&me.to_string(), 30, None)).await;
            match client.next().await {
                Some(rumqttd::protocol::Packet::ConnAck(ack, _)) => {
                    (ack.code == ConnectReturnCode::Success).then_some(client)
                }
                _ => None,
            }
        });
    }
    let admitted: Vec<_> = storm.join_all().await.into_iter().flatten().collect();
    assert!(!admitted.is_empty());
    site.until_connected(2).await;
    until("one is left", || site.broker.counters().connected == 2).await;
    bystander.expect_alive().await;
    let mut last = site.connect(me).await;
    last.publish(me, Stream::Events, 1, b"still works").await;
    assert_eq!(site.next_up().await.payload, "still works");
    assert_eq!(site.broker.counters().router_restarts, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_around_the_connack_hurt_nobody() {
    let mut site = site(|_| {}).await;
    let me = agent(1);
    let tls = site.admitted(me);
    let packet = connect_packet(&me.to_string(), 30, None);
    let mut bystander = site.connect(agent(2)).await;
    for n in 0..100 {
        let mut client = Client::open(site.broker.local_addr(), tls.clone()).await.unwrap();
        // Whole, cut short, and with a pause in which the CONNACK may be on its way.
        let end = if n % 3 == 0 { packet.len() / 2 } else { packet.len() };
        client.send(&packet[..end]).await;
        if n % 5 == 0 {
            tokio::time::sleep(Duration::from_millis(n / 10)).await;
        }
        client.tls.get_ref().0.set_zero_linger().unwrap();
        drop(client);
    }
    let mut client = site.connect(me).await;
    client.publish(me, Stream::Events, 1, b"here").await;
    assert_eq!(site.next_up().await.payload, "here");
    bystander.expect_alive().await;
    until("two are left", || site.broker.counters().connected == 2).await;
    assert_eq!(site.broker.counters().router_restarts, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cutting_closes_at_once_and_revocation_keeps_out() {
    let mut site = site(|_| {}).await;
    let me = agent(1);
    let mut client = with_will(&site, me, b"cut", 30).await;
    let mut bystander = site.connect(agent(2)).await;
    site.gate.set(me, Admission::Revoked);
    let begun = Instant::now();
    site.broker.cut(me);
    assert_eq!(site.broker.connected(), [agent(2)]);
    client.expect_closed().await;
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(site.next_up().await, will_of(me, "cut"));
    let tls = site.ca.client(Some(&site.ca.agent(me)));
    let mut again = Client::open(site.broker.local_addr(), tls).await.unwrap();
    let code = again.connect(&connect_packet(&me.to_string(), 30, None)).await;
    assert_eq!(code, ConnectReturnCode::NotAuthorized);
    bystander.expect_alive().await;
    assert_eq!((site.broker.counters().cut, site.broker.counters().taken_over), (1, 0));
    // Someone who was never here.
    site.broker.cut(agent(9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_nothing_is_closed_at_the_write_deadline() {
    let site = site(|limits| limits.write_deadline = Duration::from_millis(300)).await;
    let me = agent(1);
    let mut client = site.connect(me).await;
    // At QoS 0, so that nothing waits for acknowledgements. Then it never reads again.
    let mut subscribe = subscribe_packet(1, &[&down_filter(me)]);
    *subscribe.last_mut().unwrap() = 0;
    client.send(&subscribe).await;
    assert!(client.next().await.is_some());
    let large = Bytes::from(vec![0; 1 << 20]);
    while site.refused(Refusal::WriteDeadline) == 0 {
        let _ = site.broker.try_send(me, Down::Desired, large.clone());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    site.until_refused(Refusal::WriteDeadline, 1).await;
    site.until_connected(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_closes_without_wills() {
    let mut site = site(|_| {}).await;
    let mut client = with_will(&site, agent(1), b"no", 30).await;
    timeout(SOON, site.broker.shutdown()).await.unwrap();
    client.expect_closed().await;
    assert!(timeout(SOON, site.up.recv()).await.unwrap().is_none());
    assert!(tokio::net::TcpStream::connect(site.broker.local_addr()).await.is_err());
    // Once more does nothing.
    timeout(SOON, site.broker.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_receiver_closes_the_door() {
    let mut site = site(|_| {}).await;
    let mut client = site.connect(agent(1)).await;
    let (_, empty) = tokio::sync::mpsc::channel(1);
    drop(std::mem::replace(&mut site.up, empty));
    client.expect_closed().await;
    site.until_connected(0).await;
    assert_eq!(site.broker.counters().router_restarts, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_certificate_serves_new_connections() {
    let site = site(|_| {}).await;
    let mut old = site.connect(agent(1)).await;
    let next = Ca::new();
    site.broker.set_tls(next.server());
    let tls = next.client(Some(&next.agent(agent(2))));
    site.gate.set(agent(2), Admission::Admit);
    let mut new = Client::open(site.broker.local_addr(), tls).await.unwrap();
    new.come_in(agent(2)).await;
    old.expect_alive().await;
}
