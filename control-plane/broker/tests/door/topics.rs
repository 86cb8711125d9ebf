//! What an admitted agent may say and hear.

use crate::common::*;
use bytes::Bytes;
use hashinsight_broker::{Refusal, SendError, Up};
use hashinsight_protocol::limits;
use hashinsight_protocol::topics::{Down, Stream, Topic, down_filter};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_topics_pass_both_ways() {
    let mut site = site(|_| {}).await;
    let me = agent(1);
    let mut client = site.connect(me).await;
    let mut other = site.connect(agent(2)).await;
    for (n, stream) in Stream::ALL.into_iter().enumerate() {
        let payload = vec![n as u8; 10 * n];
        client.publish(me, stream, n as u16 + 1, &payload).await;
        assert_eq!(site.next_up().await, Up { agent: me, stream, payload: payload.into() });
        let ack = client.next().await;
        assert!(matches!(ack, Some(rumqttd::protocol::Packet::PubAck(a, _)) if a.pkid == n as u16 + 1));
    }
    // QoS 0 as well, without an answer.
    let topic = Topic::Up(me, Stream::Events).to_string();
    client.send(&publish_packet(0x30, &topic, None, b"q0")).await;
    assert_eq!(site.next_up().await.payload, "q0");
    for kind in Down::ALL {
        site.broker.try_send(me, kind, Bytes::from_static(b"down")).unwrap();
        let (topic, id, payload) = client.message().await;
        assert_eq!((topic, &payload[..]), (Topic::Down(me, kind).to_string(), &b"down"[..]));
        client.puback(id).await;
    }
    client.expect_alive().await;
    other.expect_alive().await;
    let counters = site.broker.counters();
    assert_eq!((counters.up_messages, counters.up_bytes), (6, 102));
    assert_eq!((counters.down_messages, counters.down_bytes), (6, 24));
    assert_eq!((counters.connected, counters.admitted), (2, 2));
    assert!(counters.refusals().all(|(_, count)| count == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_published_closes_the_connection() {
    let mut site = site(|_| {}).await;
    let (me, other) = (agent(1), agent(2));
    let own = Topic::Up(me, Stream::Telemetry).to_string();
    let foreign = Topic::Up(other, Stream::Telemetry).to_string();
    let large = vec![0; limits::UP_BYTES + 1];
    let mut witness = site.connect(other).await;
    let plain = |topic: &str| publish_packet(0x32, topic, Some(1), b"x");
    for (bytes, why) in [
        (plain(&foreign), Refusal::Topic),
        (plain(&down_filter(me)), Refusal::Topic),
        (plain(&Topic::Down(me, Down::Ack).to_string()), Refusal::Topic),
        (plain(&format!("{own}/more")), Refusal::Topic),
        (plain("é/up"), Refusal::Topic),
        (plain("/door/ping"), Refusal::Topic),
        (plain(""), Refusal::Topic),
        (publish_packet(0x33, &own, Some(1), b"x"), Refusal::Retained),
        (publish_packet(0x31, &own, None, b""), Refusal::Retained),
        (publish_packet(0x34, &own, Some(1), b"x"), Refusal::Qos2),
        (publish_packet(0x32, &own, Some(1), &large), Refusal::Oversized),
        (publish_packet(0x32, &own, Some(0), b"x"), Refusal::Malformed),
        (connect_packet(&me.to_string(), 30, None), Refusal::Unexpected),
        // UNSUBSCRIBE and the second half of QoS 2.
        (bytes::BytesMut::from(&[0xa2, 4, 0, 1, 0, 0][..]), Refusal::Unexpected),
        (bytes::BytesMut::from(&[0x62, 2, 0, 1][..]), Refusal::Qos2),
    ] {
        let before = site.refused(why);
        let mut client = site.connect(me).await;
        client.tls.get_mut().0.set_nodelay(true).unwrap();
        // The door closes as soon as it has seen enough, so the rest may find no reader.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.tls, &bytes).await;
        let _ = tokio::io::AsyncWriteExt::flush(&mut client.tls).await;
        client.expect_closed().await;
        site.until_refused(why, before + 1).await;
    }
    site.no_up().await;
    witness.expect_alive().await;
    // The largest payload that is allowed passes.
    let mut client = site.connect(me).await;
    client.publish(me, Stream::Telemetry, 1, &large[1..]).await;
    assert_eq!(site.next_up().await.payload.len(), limits::UP_BYTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_filters_are_refused_one_by_one() {
    let site = site(|_| {}).await;
    let (me, other) = (agent(1), agent(2));
    let mut client = site.connect(me).await;
    let own = down_filter(me);
    let (foreign, all, shared) = (down_filter(other), format!("/tenants/{me}/#"), format!("$share/g/{own}"));
    let filters =
        [foreign.as_str(), "#", "+/+/+/+/+", "/tenants/+/down/#", &shared, &all, "$SYS/#", "/door/ping"];
    for (n, filter) in filters.iter().enumerate() {
        assert_eq!(client.subscribe(&[filter]).await, [false], "{filter}");
        assert_eq!(site.refused(Refusal::Filter), n as u64 + 1);
    }
    assert_eq!(client.subscribe(&["#", &own, &foreign]).await, [false, true, false]);
    let _witness = site.connect(other).await;
    site.broker.try_send(other, Down::Order, Bytes::from_static(b"secret")).unwrap();
    site.broker.try_send(me, Down::Order, Bytes::from_static(b"mine")).unwrap();
    assert_eq!(client.message().await.2, "mine");
    client.expect_alive().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_wait_for_the_subscription() {
    let site = site(|_| {}).await;
    let me = agent(1);
    let send =
        |text: &'static str| site.broker.try_send(me, Down::Welcome, Bytes::from_static(text.as_bytes()));
    assert_eq!(send("too early"), Err(SendError::NotConnected));
    let tls = site.admitted(me);
    let mut client = Client::open(site.broker.local_addr(), tls).await.unwrap();
    client.connect(&connect_packet(&me.to_string(), 30, None)).await;
    site.until_connected(1).await;
    send("waits").unwrap();
    // Nothing comes before the subscription: the next packet is the answer to the ping.
    client.expect_alive().await;
    client.send(&subscribe_packet(1, &[&down_filter(me)])).await;
    let mut heard = Vec::new();
    for _ in 0..2 {
        heard.push(format!("{:?}", client.next().await.unwrap()));
    }
    assert!(heard.iter().any(|p| p.starts_with("SubAck")) && heard.iter().any(|p| p.contains("waits")));
    drop(client);
    site.until_connected(0).await;
    assert_eq!(send("too late"), Err(SendError::NotConnected));
    let large = Bytes::from(vec![0; limits::DOWN_BYTES + 1]);
    assert_eq!(site.broker.try_send(me, Down::Desired, large), Err(SendError::TooLarge));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_in_one_write() {
    let mut site = site(|_| {}).await;
    let me = agent(1);
    let tls = site.admitted(me);
    let mut client = Client::open(site.broker.local_addr(), tls).await.unwrap();
    let mut all = connect_packet(&me.to_string(), 30, None);
    all.extend_from_slice(&subscribe_packet(1, &[&down_filter(me)]));
    let topic = Topic::Up(me, Stream::Presence).to_string();
    all.extend_from_slice(&publish_packet(0x32, &topic, Some(2), b"hello"));
    all.extend_from_slice(&[0xc0, 0]);
    client.send(&all).await;
    for expected in ["ConnAck", "SubAck", "PubAck", "PingResp"] {
        let packet = format!("{:?}", client.next().await.unwrap());
        assert!(packet.starts_with(expected), "{packet}");
    }
    // By the time the hello is seen, an answer can be sent.
    assert_eq!(site.next_up().await.payload, "hello");
    site.broker.try_send(me, Down::Welcome, Bytes::from_static(b"welcome")).unwrap();
    assert_eq!(client.message().await.2, "welcome");
}
