//! Amounts: all that is sent arrives, and who is slow makes others wait instead of losing anything.

use crate::common::*;
use bytes::Bytes;
use hashinsight_broker::SendError;
use hashinsight_protocol::limits;
use hashinsight_protocol::topics::{Down, Stream, Topic, down_filter};
use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS, Transport};
use std::time::Duration;
use tokio::time::{Instant, timeout};

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

fn numbered(n: u32, bytes: usize) -> Vec<u8> {
    let mut payload = vec![0; bytes.max(4)];
    payload[..4].copy_from_slice(&n.to_be_bytes());
    payload
}

/// The agent's own client, over a private socket and our TLS, as agents use it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_each_way_with_rumqttc() {
    let mut site = site(|_| {}).await;
    let (me, address) = (agent(1), site.broker.local_addr());
    let tls = site.admitted(me);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = Client::open(address, tls.clone()).await.unwrap().tls;
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let mut options = MqttOptions::new(me.to_string(), path.to_str().unwrap(), 0);
    options.set_transport(Transport::Unix).set_max_packet_size(limits::PACKET_BYTES, limits::PACKET_BYTES);
    let topic = Topic::Up(me, Stream::Telemetry).to_string();
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe(down_filter(me), QoS::AtLeastOnce).await.unwrap();
    let sending = client.clone();
    let publishing = tokio::spawn(async move {
        for n in 0..1000 {
            sending.publish(&topic, QoS::AtLeastOnce, false, numbered(n, 1000)).await.unwrap();
        }
    });
    let broker = site.broker.clone();
    let polling = tokio::spawn(async move {
        let (mut acked, mut got, mut sent) = (0, Vec::new(), 0);
        while acked < 1000 || got.len() < 1000 {
            while sent < 1000 && broker.try_send(me, Down::Ack, numbered(sent, 200).into()).is_ok() {
                sent += 1;
            }
            match timeout(SOON, events.poll()).await.unwrap().unwrap() {
                Event::Incoming(Incoming::PubAck(_)) => acked += 1,
                Event::Incoming(Incoming::Publish(publish)) => got.push(number(&publish.payload)),
                _ => {}
            }
        }
        client.disconnect().await.unwrap();
        while events.poll().await.is_ok() {}
        got
    });
    for n in 0..1000 {
        let up = site.next_up().await;
        assert_eq!((up.agent, up.stream, number(&up.payload)), (me, Stream::Telemetry, n));
    }
    publishing.await.unwrap();
    let got = timeout(SOON, polling).await.unwrap().unwrap();
    assert_eq!(got, (0..1000).collect::<Vec<_>>());
    site.until_connected(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_control_plane_makes_agents_wait_and_loses_nothing() {
    let mut site = site(|limits| limits.up_queue = 2).await;
    // Far more than the router's ring holds: 3 x 100 x 60 kB.
    let (agents, each) = ([agent(1), agent(2), agent(3)], 100u32);
    let mut sending = tokio::task::JoinSet::new();
    for me in agents {
        let mut client = site.connect(me).await;
        sending.spawn(async move {
            for n in 0..each {
                client.publish(me, Stream::Telemetry, n as u16 + 1, &numbered(n, 60_000)).await;
            }
            let mut acked = 0;
            while acked < each {
                assert!(matches!(client.next().await, Some(rumqttd::protocol::Packet::PubAck(..))));
                acked += 1;
            }
            client
        });
    }
    // Nothing is taken for a while; what is on the way stays bounded, and others are served.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(site.broker.counters().up_messages <= 4);
    assert!(sending.try_join_next().is_none(), "all of it went somewhere");
    site.connect(agent(4)).await.expect_alive().await;
    let mut next = [0; 3];
    for _ in 0..agents.len() as u32 * each {
        let up = site.next_up().await;
        let at = agents.iter().position(|a| *a == up.agent).unwrap();
        assert_eq!(number(&up.payload), next[at]);
        next[at] += 1;
    }
    assert_eq!(next, [each; 3]);
    for mut client in sending.join_all().await {
        client.expect_alive().await;
    }
    site.no_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_does_not_acknowledge_fills_its_own_queue_only() {
    let site = site(|limits| limits.down_queue = 100).await;
    let (me, other) = (agent(1), agent(2));
    let mut client = site.connect(me).await;
    let mut bystander = site.connect(other).await;
    let mut sent = 0;
    while site.broker.try_send(me, Down::Ack, numbered(sent, 4).into()).is_ok() {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // What is in the window, and what waits.
    assert!((110..=140).contains(&sent), "{sent}");
    assert_eq!(site.broker.try_send(me, Down::Order, Bytes::new()), Err(SendError::Full));
    site.broker.try_send(other, Down::Order, Bytes::from_static(b"x")).unwrap();
    assert_eq!(bystander.message().await.2, "x");
    for n in 0..sent {
        let (_, id, payload) = client.message().await;
        assert_eq!(number(&payload), n);
        client.puback(id).await;
    }
    client.expect_alive().await;
    assert!(site.broker.counters().down_full >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_documents_pass_between_small_messages() {
    let site = site(|limits| limits.down_queue_bytes = 8 * limits::DOWN_BYTES).await;
    let me = agent(1);
    let mut client = site.connect(me).await;
    let sizes =
        [10, limits::DOWN_BYTES, 10, 10, limits::DOWN_BYTES, 5000, 3000, 3000, limits::DOWN_BYTES, 10];
    for (n, size) in sizes.iter().enumerate() {
        site.broker.try_send(me, Down::Desired, numbered(n as u32, *size).into()).unwrap();
    }
    for (n, size) in sizes.iter().enumerate() {
        let (_, id, payload) = client.message().await;
        assert_eq!((number(&payload), payload.len()), (n as u32, *size));
        client.puback(id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_at_once_with_full_buffers() {
    let mut site = site(|limits| limits.down_queue_bytes = 64 * limits::DOWN_BYTES).await;
    let me = agent(1);
    let client = site.connect(me).await;
    for _ in 0..40 {
        site.broker.try_send(me, Down::Desired, vec![0; limits::DOWN_BYTES].into()).unwrap();
    }
    // An agent that writes all it has before it reads: the door must read meanwhile.
    let (mut reader, mut writer) = tokio::io::split(client.tls);
    let topic = Topic::Up(me, Stream::Telemetry).to_string();
    let writing = tokio::spawn(async move {
        for n in 0..60 {
            let packet = publish_packet(0x30, &topic, None, &numbered(n, 200_000));
            tokio::io::AsyncWriteExt::write_all(&mut writer, &packet).await.unwrap();
            tokio::io::AsyncWriteExt::flush(&mut writer).await.unwrap();
        }
        writer
    });
    for n in 0..60 {
        assert_eq!(number(&site.next_up().await.payload), n);
    }
    let _writer = timeout(SOON, writing).await.unwrap().unwrap();
    let mut some = vec![0; limits::DOWN_BYTES];
    timeout(SOON, tokio::io::AsyncReadExt::read_exact(&mut reader, &mut some)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_publishes_too_fast_is_read_slower() {
    let mut site = site(|limits| limits.up_messages_per_second = 50).await;
    let (me, other) = (agent(1), agent(2));
    let mut client = site.connect(me).await;
    let mut bystander = site.connect(other).await;
    let begun = Instant::now();
    for n in 0..150 {
        client.publish(me, Stream::Events, n + 1, b"x").await;
    }
    bystander.publish(other, Stream::Events, 1, b"y").await;
    let mut at = None;
    for n in 0..151 {
        if site.next_up().await.agent == other {
            at = Some(n);
        }
    }
    // A burst of 100, then 50 a second.
    assert!((900..3000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert!(at.unwrap() < 140, "{at:?}");
    assert!(site.broker.counters().throttled > 20);
    client.next().await.unwrap();
}

/// No write waits for the other side's delayed acknowledgement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_messages_go_out_at_once() {
    let mut site = site(|_| {}).await;
    let me = agent(1);
    let mut client = site.connect(me).await;
    let begun = Instant::now();
    for n in 1..=50 {
        client.publish(me, Stream::Events, n, b"ping").await;
        site.next_up().await;
        assert!(matches!(client.next().await, Some(rumqttd::protocol::Packet::PubAck(..))));
        site.broker.try_send(me, Down::Ack, Bytes::from_static(b"pong")).unwrap();
        let (_, id, _) = client.message().await;
        client.puback(id).await;
    }
    // With Nagle's algorithm on it would be 43 ms a round at least.
    assert!(begun.elapsed() < Duration::from_millis(1000), "{:?}", begun.elapsed());
}
