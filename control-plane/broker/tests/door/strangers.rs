//! Who may not come in, and that nobody else is disturbed by their trying.

use crate::common::*;
use hashinsight_broker::{Admission, Refusal};
use hashinsight_protocol::topics::{Stream, Topic};
use rcgen::{DnType, date_time_ymd};
use rumqttd::protocol::ConnectReturnCode;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_are_not_ours_end_the_handshake() {
    let site = site(|_| {}).await;
    let id = agent(1).to_string();
    let names = [(DnType::CommonName, id.as_str()), (DnType::OrganizationName, id.as_str())];
    let expired = site.ca.issue(&names, |params| params.not_after = date_time_ymd(2020, 1, 1));
    let foreign = Ca::new().agent(agent(1));
    for identity in [None, Some(&expired), Some(&foreign)] {
        let mut client = match Client::open(site.broker.local_addr(), site.ca.client(identity)).await {
            // With TLS 1.3 the client learns of it at its first read.
            Ok(client) => client,
            Err(_) => continue,
        };
        assert!(client.next().await.is_none());
    }
    site.until_refused(Refusal::Handshake, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_ours_that_name_no_agent_are_refused() {
    let site = site(|_| {}).await;
    let id = agent(1).to_string();
    let other = agent(2).to_string();
    let (cn, o) = (DnType::CommonName, DnType::OrganizationName);
    let names = [
        vec![],
        vec![(cn.clone(), "localhost")],
        vec![(cn.clone(), id.as_str())],
        vec![(cn, id.as_str()), (o, other.as_str())],
    ];
    for (n, names) in names.iter().enumerate() {
        let tls = site.ca.client(Some(&site.ca.issue(names, |_| {})));
        let mut client = Client::open(site.broker.local_addr(), tls).await.unwrap();
        client.expect_closed().await;
        site.until_refused(Refusal::Identity, n as u64 + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_told_in_the_connack() {
    let site = site(|_| {}).await;
    let (me, other) = (agent(1), agent(2));
    let (id, presence) = (me.to_string(), Topic::Up(me, Stream::Presence).to_string());
    let mut mqtt5 = connect_packet(&id, 30, None);
    mqtt5[8] = 5;
    let will = |topic: String, retain| connect_packet(&id, 30, Some((topic, b"gone", retain)));
    let denied = ConnectReturnCode::NotAuthorized;
    use Admission::{Admit, Revoked, Unknown};
    let table = [
        (Unknown, connect_packet(&id, 30, None), denied, Refusal::Unknown, 1),
        (Revoked, connect_packet(&id, 30, None), denied, Refusal::Revoked, 1),
        (Admit, connect_packet("", 30, None), denied, Refusal::ClientId, 1),
        (Admit, connect_packet("a/b", 30, None), denied, Refusal::ClientId, 2),
        (Admit, connect_packet(&other.to_string(), 30, None), denied, Refusal::ClientId, 3),
        (Admit, connect_packet(&id.to_uppercase(), 30, None), denied, Refusal::ClientId, 4),
        (Admit, will(Topic::Up(other, Stream::Presence).to_string(), false), denied, Refusal::Will, 1),
        (Admit, will(Topic::Up(me, Stream::Telemetry).to_string(), false), denied, Refusal::Will, 2),
        (Admit, will(presence.clone(), true), denied, Refusal::Will, 3),
        (Admit, mqtt5, ConnectReturnCode::RefusedProtocolVersion, Refusal::ProtocolVersion, 1),
    ];
    site.gate.set(other, Admit);
    let tls = site.ca.client(Some(&site.ca.agent(me)));
    for (admission, packet, code, why, times) in table {
        site.gate.set(me, admission);
        let mut client = Client::open(site.broker.local_addr(), tls.clone()).await.unwrap();
        assert_eq!(client.connect(&packet).await, code, "{why:?}");
        client.expect_closed().await;
        site.until_refused(why, times).await;
    }
    assert!(site.broker.connected().is_empty());
    let mut client = Client::open(site.broker.local_addr(), tls).await.unwrap();
    assert_eq!(client.connect(&will(presence, false)).await, ConnectReturnCode::Success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_connect_is_closed() {
    let site = site(|limits| limits.connect_deadline = Duration::from_millis(300)).await;
    let tls = site.admitted(agent(1));
    let large = connect_packet(&"x".repeat(5000), 30, None);
    for (bytes, why) in [
        (&b"\xc0\x00"[..], Refusal::Unexpected),
        (b"GET / HTTP/1.1\r\n\r\n", Refusal::Malformed),
        (b"\x10\x05\x00\x04HTTP", Refusal::Malformed),
        (&large, Refusal::Oversized),
        (b"\x10\x0c\x00", Refusal::NoConnect),
    ] {
        let before = site.refused(why);
        let mut client = Client::open(site.broker.local_addr(), tls.clone()).await.unwrap();
        client.send(bytes).await;
        client.expect_closed().await;
        site.until_refused(why, before + 1).await;
    }
    site.connect(agent(1)).await.expect_alive().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_peers_delay_nobody() {
    let site = site(|limits| limits.handshake_deadline = Duration::from_millis(1500)).await;
    let mut crowd = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(site.broker.local_addr()).await.unwrap();
        if n % 2 == 1 {
            // The beginning of a ClientHello, and then nothing.
            stream.write_all(&[0x16, 3, 1, 0]).await.unwrap();
        }
        crowd.push(stream);
    }
    until("all are waiting", || site.broker.counters().handshakes >= 200).await;
    let begun = Instant::now();
    let mut client = site.connect(agent(1)).await;
    client.expect_alive().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    site.until_refused(Refusal::Silent, 100).await;
    site.until_refused(Refusal::HandshakeDeadline, 100).await;
    for mut stream in crowd {
        assert!(matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)));
    }
    client.expect_alive().await;
    assert_eq!(site.broker.counters().handshakes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_peers_make_room_when_the_crowd_is_full() {
    let site = site(|limits| {
        limits.handshakes = 8;
        limits.silence = Duration::from_millis(200);
        limits.handshake_deadline = Duration::from_secs(60);
    })
    .await;
    let mut crowd = Vec::new();
    for _ in 0..40 {
        crowd.push(TcpStream::connect(site.broker.local_addr()).await.unwrap());
    }
    // 40 before it, 8 at once, 200 ms each.
    let begun = Instant::now();
    site.connect(agent(1)).await.expect_alive().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(site.refused(Refusal::Crowded) >= 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connects_of_one_agent_are_limited() {
    let site = site(|limits| {
        limits.connect_burst = 3;
        limits.connect_every = Duration::from_secs(3600);
    })
    .await;
    let tls = site.admitted(agent(1));
    let packet = connect_packet(&agent(1).to_string(), 30, None);
    for n in 0..5 {
        let mut client = Client::open(site.broker.local_addr(), tls.clone()).await.unwrap();
        let code = client.connect(&packet).await;
        let expected = if n < 3 { ConnectReturnCode::Success } else { ConnectReturnCode::ServiceUnavailable };
        assert_eq!(code, expected);
    }
    assert_eq!(site.refused(Refusal::ConnectRate), 2);
    site.connect(agent(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_in_all_are_limited_but_a_takeover_finds_its_seat() {
    let site = site(|limits| {
        limits.connections = 2;
        limits.takeover_deadline = Duration::from_millis(300);
    })
    .await;
    let mut first = site.connect(agent(1)).await;
    let _second = site.connect(agent(2)).await;
    let tls = site.admitted(agent(3));
    let mut third = Client::open(site.broker.local_addr(), tls).await.unwrap();
    let packet = connect_packet(&agent(3).to_string(), 30, None);
    assert_eq!(third.connect(&packet).await, ConnectReturnCode::ServiceUnavailable);
    assert_eq!(site.refused(Refusal::ConnectionLimit), 1);
    let mut again = site.connect(agent(1)).await;
    first.expect_closed().await;
    again.expect_alive().await;
}
