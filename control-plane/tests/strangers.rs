//! The stranger's table: whoever has no business here is refused, counted and audited, and disturbs nobody.

#![allow(clippy::unwrap_used)]

mod support;

use hashinsight_broker::Refusal;
use hashinsight_control_plane::agents::ca::Request;
use hashinsight_control_plane::agents::{certificates, tokens};
use hashinsight_control_plane::args;
use hashinsight_protocol::clock::{ClockStateV1, MomentV1};
use hashinsight_protocol::envelope::{Body as _, seal_up};
use hashinsight_protocol::events::{AgentStartedV1, EventV1, EventsV1};
use hashinsight_protocol::ids::{AgentId, BootId};
use hashinsight_protocol::limits;
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::topics::{Stream, Topic, down_filter};
use hashinsight_protocol::units::{BootMillis, DurationMs, Millis};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Agent, Plane, SOON, client, enrol_body};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

const YEAR: DurationMs = DurationMs::from_minutes(365 * 24 * 60);
const ACCEPTED: u8 = 0;
const BAD_VERSION: u8 = 1;
const NOT_AUTHORIZED: u8 = 5;

fn roots(plane: &Plane) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(plane.app.agents.held().authority.certificate().clone()).unwrap();
    roots
}

fn shown(plane: &Plane, chain: &str, key: &KeyPair) -> Arc<ClientConfig> {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Arc::new(client(roots(plane)).with_client_auth_cert(chain, key).unwrap())
}

/// A certificate for the agent by our own authority, as of another time; the database doesn't know it.
fn issued_at(plane: &Plane, agent: AgentId, at: Millis) -> Arc<ClientConfig> {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let request = Request::from_pem(&csr).unwrap();
    let issued = plane.app.agents.held().authority.issue(&request, agent, at).unwrap();
    shown(plane, &issued.pem, &key)
}

/// A certificate for the agent by an authority of the stranger's own.
fn foreign(plane: &Plane, agent: AgentId) -> Arc<ClientConfig> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, agent.to_string());
    params.distinguished_name.push(DnType::OrganizationName, agent.to_string());
    let key = KeyPair::generate().unwrap();
    let pem = params.signed_by(&key, &authority).unwrap().pem();
    shown(plane, &pem, &key)
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        out.push((length & 0x7f) as u8 | if length > 0x7f { 0x80 } else { 0 });
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn connect(protocol: (&str, u8), id: &str, will: Option<&str>) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, protocol.0.as_bytes());
    body.push(protocol.1);
    body.push(if will.is_some() { 0b0000_1110 } else { 2 });
    body.extend_from_slice(&[0, 30]);
    text(&mut body, id.as_bytes());
    if let Some(topic) = will {
        text(&mut body, topic.as_bytes());
        text(&mut body, b"gone");
    }
    packet(0x10, &body)
}

fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic.as_bytes());
    body.extend_from_slice(&[0, 1]);
    body.extend_from_slice(payload);
    packet(0x32, &body)
}

fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(&mut body, filter.as_bytes());
    body.push(1);
    packet(0x82, &body)
}

/// Says all of it, and hears what comes until the other side closes or is quiet for a second.
async fn say(plane: &Plane, tls: &Arc<ClientConfig>, bytes: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(plane.app.addresses.mqtt).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut heard = Vec::new();
    let Ok(mut tls) = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await else { return heard };
    // Whoever is refused half way may find nobody who reads.
    let _ = tls.write_all(bytes).await;
    let _ = tls.flush().await;
    let mut part = [0; 1024];
    while let Ok(Ok(1..)) = timeout(Duration::from_secs(1), tls.read(&mut part)).await.map(|read| {
        if let Ok(n) = read {
            heard.extend_from_slice(&part[..n]);
        }
        read
    }) {}
    heard
}

fn event(agent: &Agent, seq: u64) -> Vec<u8> {
    let boot_id = BootId::from_random([0; 16]);
    let at = MomentV1 { wall: Millis(1), boot: BootMillis(1), boot_id, state: ClockStateV1::Synced };
    let started = EventV1::Started(AgentStartedV1 { version: "test".to_owned(), clean: true });
    let body = EventsV1 { events: vec![started.raw(at).unwrap()] }.encode().unwrap();
    agent.seal(Stream::Events, seq, &body)
}

fn refused(plane: &Plane, why: Refusal) -> u64 {
    let name = format!("hashinsight_door_refused_total{{reason=\"{}\"}} ", why.name());
    let text = plane.app.metrics.text();
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).expect("counted")
}

async fn until_refused(plane: &Plane, why: Refusal, times: u64) {
    let begun = Instant::now();
    while refused(plane, why) < times {
        assert!(begun.elapsed() < SOON, "{why:?}: {}, not {times}", refused(plane, why));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(refused(plane, why), times, "{why:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_no_business_here_is_refused_counted_and_audited() {
    let plane = Plane::start().await;
    let (victim, bad, gone) = (plane.agent(3).await, plane.agent(4).await, plane.agent(5).await);
    let now = plane.app.clock.now();
    let mut line = victim.connect(&plane, 1).await.unwrap();
    let (id, other) = (bad.id.to_string(), victim.id.to_string());
    let mqtt = ("MQTT", 4);
    let come_in = connect(mqtt, &id, None);
    let gone_line = gone.connect(&plane, 1).await.unwrap();
    assert!(certificates::revoke(&plane.app.stores.business, gone.id, "test", now).await.unwrap());
    let cut = Instant::now();
    gone_line.ended().await;
    assert!(cut.elapsed() < Duration::from_secs(3), "an open connection is cut: {:?}", cut.elapsed());

    let nothing = Arc::new(client(roots(&plane)).with_no_client_auth());
    let expired = issued_at(&plane, bad.id, Millis(now.0 - YEAR.0 as i64 - 3 * 86_400_000));
    let unknown = issued_at(&plane, bad.id, now);
    let stolen = foreign(&plane, victim.id);
    let theirs = Topic::Up(victim.id, Stream::Events).to_string();
    let presence = Topic::Up(victim.id, Stream::Presence).to_string();
    let after = |more: Vec<u8>| [come_in.clone(), more].concat();
    let oversized = publish(&Topic::Up(bad.id, Stream::Events).to_string(), &vec![0; limits::UP_BYTES + 1]);
    let refuses = |code: u8| vec![0x20, 2, 0, code];
    let no_filter = [refuses(ACCEPTED), vec![0x90, 3, 0, 1, 0x80]].concat();
    let closed = || refuses(ACCEPTED);
    // What is shown, what is said, what is heard, and what it counts as.
    let table = [
        (&nothing, come_in.clone(), vec![], Refusal::Handshake),
        (&stolen, connect(mqtt, &other, None), vec![], Refusal::Handshake),
        (&expired, come_in.clone(), vec![], Refusal::Handshake),
        (&unknown, come_in.clone(), refuses(NOT_AUTHORIZED), Refusal::Unknown),
        (&gone.tls, connect(mqtt, &gone.id.to_string(), None), refuses(NOT_AUTHORIZED), Refusal::Revoked),
        (&bad.tls, connect(mqtt, &other, None), refuses(NOT_AUTHORIZED), Refusal::ClientId),
        (&bad.tls, connect(mqtt, &id, Some(&presence)), refuses(NOT_AUTHORIZED), Refusal::Will),
        (&bad.tls, connect(("MQIsdp", 3), &id, None), refuses(BAD_VERSION), Refusal::ProtocolVersion),
        (&bad.tls, connect(("MQTT", 5), &id, None), refuses(BAD_VERSION), Refusal::ProtocolVersion),
        (&bad.tls, after(publish(&theirs, b"x")), closed(), Refusal::Topic),
        (
            &bad.tls,
            after(publish(&Topic::Down(bad.id, hashinsight_protocol::topics::Down::Order).to_string(), b"x")),
            closed(),
            Refusal::Topic,
        ),
        (&bad.tls, after(oversized), closed(), Refusal::Oversized),
        (&bad.tls, after(subscribe(&down_filter(victim.id))), no_filter.clone(), Refusal::Filter),
        (&bad.tls, after(subscribe("/tenants/+/down/#")), no_filter.clone(), Refusal::Filter),
        (&bad.tls, after(subscribe("#")), no_filter.clone(), Refusal::Filter),
        (
            &bad.tls,
            after(subscribe(&format!("$share/g/{}", down_filter(bad.id)))),
            no_filter,
            Refusal::Filter,
        ),
    ];
    for (tls, said, expect, why) in table {
        let before = refused(&plane, why);
        assert_eq!(say(&plane, tls, &said).await, expect, "{why:?}");
        until_refused(&plane, why, before + 1).await;
    }

    // A peer that says a byte now and then.
    let mut slow = TcpStream::connect(plane.app.addresses.mqtt).await.unwrap();
    for byte in [0x16, 3, 1, 2] {
        slow.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    until_refused(&plane, Refusal::HandshakeDeadline, 1).await;
    assert!(matches!(timeout(SOON, slow.read(&mut [0])).await.unwrap(), Ok(0) | Err(_)));

    // A word that another key has signed, on the agent's own topic; and one that comes twice.
    let forged =
        seal_up(&SigningKey::from_seed(&[9; 32]).unwrap(), victim.id, victim.epoch, Stream::Events, 7, b"x");
    line.send(Stream::Events, forged.unwrap()).await;
    for _ in 0..2 {
        line.send(Stream::Events, event(&victim, 1)).await;
        line.acked(Stream::Events, &BTreeSet::from([1])).await;
    }
    assert_eq!(plane.number("select count(*) from event_batches").await, 1);

    // The enrolment port.
    let (key, tls_key) = (SigningKey::from_seed(&[8; 32]).unwrap(), KeyPair::generate().unwrap());
    let used = plane.token().await;
    let body = |secret: &str| enrol_body(secret, &tls_key, &key);
    assert_eq!(plane.request("POST /enrol", &body(used.secret())).await.0, 200);
    let db = &plane.app.stores.business;
    let late = plane.token().await;
    db.execute("update enrolment_tokens set expires_at = $1 where used_at is null", args![now])
        .await
        .unwrap();
    for secret in [used.secret(), late.secret(), "guessed"] {
        let (status, answer) = plane.request("POST /enrol", &body(secret)).await;
        assert_eq!(status, 403, "{answer}");
    }
    for _ in 3..tokens::FAILURES {
        assert_eq!(plane.request("POST /enrol", &body("guessed")).await.0, 403);
    }
    assert_eq!(plane.request("POST /enrol", &body("guessed")).await.0, 429);

    let text = plane.app.metrics.text();
    assert!(text.contains("hashinsight_messages_refused_total 1\n"), "{text}");
    assert!(text.contains("hashinsight_enrolments_total{outcome=\"refused\"} 11\n"), "{text}");
    assert!(text.contains("hashinsight_door_router_restarts_total 0\n"), "{text}");
    line.send(Stream::Events, event(&victim, 2)).await;
    line.acked(Stream::Events, &BTreeSet::from([2])).await;
    drop(line);

    let (_folder, app) = plane.stop().await;
    let rows: Vec<(String, String, String)> = app
        .stores
        .business
        .fetch_all("select who, subject, detail from audit_log where what like 'agent.%refused'", args![])
        .await
        .unwrap();
    let audited = |who: &str, subject: &str, word: &str| {
        rows.iter().any(|(w, s, detail)| w == who && s == subject && detail.contains(word))
    };
    for (subject, why) in [
        ("127.0.0.1", Refusal::Handshake),
        ("127.0.0.1", Refusal::HandshakeDeadline),
        (&id, Refusal::Unknown),
        (&gone.id.to_string(), Refusal::Revoked),
        (&id, Refusal::ClientId),
        (&id, Refusal::Will),
        (&id, Refusal::ProtocolVersion),
        (&id, Refusal::Topic),
        (&id, Refusal::Oversized),
        (&id, Refusal::Filter),
    ] {
        assert!(
            audited("front door", subject, &format!(" x {} from 127.0.0.1", why.name())),
            "{why:?}: {rows:#?}"
        );
    }
    assert!(audited("ingest", &other, "signature"), "{rows:#?}");
    let tries = rows.iter().filter(|(who, ..)| who == "enrolment").count();
    assert_eq!(tries, tokens::FAILURES as usize, "{rows:#?}");
}

/// One hostile connection, in one of eight ways; how long it lasts is the door's to say.
async fn hostile(n: usize, door: SocketAddr, tls: [Arc<ClientConfig>; 3]) {
    let socket = TcpSocket::new_v4().unwrap();
    // From a few addresses, none of them the agents'.
    socket.bind(SocketAddr::from(([127, 0, 0, 2 + (n % 4) as u8], 0))).unwrap();
    let Ok(Ok(mut stream)) = timeout(SOON, socket.connect(door)).await else { return };
    let name = ServerName::try_from("localhost").unwrap();
    match n % 8 {
        0 => {}
        1 => drop(stream.set_zero_linger()),
        2 => drop(stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await),
        3 => {
            for byte in [0x16, 3, 1, 2, 0, 1] {
                let _ = stream.write_all(&[byte]).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        4 => drop(stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await),
        which => {
            let connector = TlsConnector::from(Arc::clone(&tls[which - 5]));
            let Ok(mut tls) = connector.connect(name, stream).await else { return };
            let _ = tls.write_all(&connect(("MQTT", 4), "a/b", None)).await;
            let _ = tls.flush().await;
            let _ = timeout(SOON, tls.read(&mut [0; 64])).await;
            return;
        }
    }
    if n % 8 != 1 {
        let _ = timeout(SOON, stream.read(&mut [0; 64])).await;
    }
}

/// Hostile connections, 200 a second; `HASHINSIGHT_HOSTILE_SECONDS` says for how long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_hostile_connections_a_second_disturb_nobody() {
    const AGENTS: u8 = 8;
    const A_SECOND: u64 = 200;
    let seconds = std::env::var("HASHINSIGHT_HOSTILE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(6);
    let plane = Arc::new(Plane::start().await);
    let mut agents = Vec::new();
    for n in 1..=AGENTS {
        agents.push(plane.agent(n).await);
    }
    let (bad, gone) = (plane.agent(20).await, plane.agent(21).await);
    let now = plane.app.clock.now();
    certificates::revoke(&plane.app.stores.business, gone.id, "test", now).await.unwrap();
    let nothing = Arc::new(client(roots(&plane)).with_no_client_auth());
    let tls = [nothing, foreign(&plane, bad.id), Arc::clone(&gone.tls)];
    let over = Instant::now() + Duration::from_secs(seconds);

    let mut healthy = JoinSet::new();
    for agent in agents {
        let plane = Arc::clone(&plane);
        let mut line = agent.connect(&plane, 1).await.unwrap();
        healthy.spawn(async move {
            let mut took = Vec::new();
            for seq in 1.. {
                if Instant::now() >= over {
                    break;
                }
                let sealed = event(&agent, seq);
                let sent = Instant::now();
                line.send(Stream::Events, sealed).await;
                line.acked(Stream::Events, &BTreeSet::from([seq])).await;
                took.push(sent.elapsed());
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            (took, line)
        });
    }
    let started = Arc::new(AtomicUsize::new(0));
    let mut strangers = JoinSet::new();
    let mut turns = tokio::time::interval(Duration::from_micros(1_000_000 / A_SECOND));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    while Instant::now() < over {
        turns.tick().await;
        let n = started.fetch_add(1, Ordering::Relaxed);
        strangers.spawn(hostile(n, plane.app.addresses.mqtt, tls.clone()));
        while strangers.try_join_next().is_some() {}
        if n as u64 == A_SECOND * 2 {
            // Somebody new comes in while they knock.
            let asked = Instant::now();
            let late = plane.agent(30).await;
            assert!(late.connect(&plane, 1).await.is_some());
            assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        }
    }
    let tried = started.load(Ordering::Relaxed);
    let mut took = Vec::new();
    let mut lines = Vec::new();
    for (times, line) in healthy.join_all().await {
        took.extend(times);
        lines.push(line);
    }
    took.sort_unstable();
    let p99 = took[(took.len() - 1) * 99 / 100];
    let half = took[took.len() / 2];
    println!(
        "{tried} hostile connections in {seconds} s; {} acknowledgements: median {half:?}, p99 {p99:?}, longest {:?}",
        took.len(),
        took[took.len() - 1]
    );
    assert!(tried as u64 >= A_SECOND * seconds * 9 / 10, "only {tried} were made");
    assert!(p99 < Duration::from_secs(1), "p99 {p99:?}");
    let text = plane.app.metrics.text();
    // The healthy ones and the late one, each once: none was dropped and came again.
    let admitted = format!("hashinsight_door_admitted_total {}\n", AGENTS + 1);
    assert!(text.contains(&admitted), "{text}");
    assert!(text.contains("hashinsight_door_router_restarts_total 0\n"), "{text}");
    for why in [Refusal::Silent, Refusal::Handshake, Refusal::Revoked] {
        assert!(refused(&plane, why) > 0, "{why:?}");
    }
    drop(lines);
}
