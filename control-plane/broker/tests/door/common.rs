//! A CA, a gate that tests can change, and a client that says exactly what it is told to.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part of this; a panic is a failed test"
)]

use bytes::{BufMut, Bytes, BytesMut};
use hashinsight_broker::{
    Admission, Broker, CertificateId, DoorLimits, Gate, Refusal, Settings, Up, server_tls,
};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::topics::{Stream, Topic, down_filter};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rumqttd::protocol::{self, ConnectReturnCode, Packet, Protocol, v4::V4};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longer than anything here takes on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

pub fn agent(n: u8) -> AgentId {
    // With letters, so that upper case is another spelling.
    AgentId::from_random([0xa0 | n; 16])
}

pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn der(&self) -> CertificateDer<'static> {
        let certificate: &rcgen::Certificate = self.0.as_ref();
        certificate.der().clone()
    }

    pub fn issue(&self, names: &[(DnType, &str)], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity { chain: vec![certificate.der().clone()], key: key.serialize_der().try_into().unwrap() }
    }

    pub fn agent(&self, agent: AgentId) -> Identity {
        let id = agent.to_string();
        self.issue(&[(DnType::CommonName, &id), (DnType::OrganizationName, &id)], |_| {})
    }

    pub fn server(&self) -> Arc<ServerConfig> {
        let Identity { chain, key } = self.issue(&[(DnType::CommonName, "localhost")], |_| {});
        server_tls(&[self.der()], chain, key).unwrap()
    }

    pub fn client(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        Arc::new(match identity {
            Some(i) => config.with_client_auth_cert(i.chain.clone(), i.key.clone_key()).unwrap(),
            None => config.with_no_client_auth(),
        })
    }
}

#[derive(Default)]
pub struct TestGate(Mutex<HashMap<AgentId, Admission>>);

impl TestGate {
    pub fn set(&self, agent: AgentId, admission: Admission) {
        self.0.lock().unwrap().insert(agent, admission);
    }
}

impl Gate for TestGate {
    fn admit(&self, agent: AgentId, certificate: &CertificateId) -> Admission {
        assert!(!certificate.serial.is_empty());
        self.0.lock().unwrap().get(&agent).copied().unwrap_or(Admission::Unknown)
    }
}

/// A running broker and all that is needed to reach it.
pub struct Site {
    pub ca: Ca,
    pub gate: Arc<TestGate>,
    pub broker: Broker,
    pub up: mpsc::Receiver<Up>,
}

pub async fn site(change: impl FnOnce(&mut DoorLimits)) -> Site {
    let mut limits = DoorLimits { connect_burst: 10_000, ..DoorLimits::default() };
    change(&mut limits);
    let (ca, gate) = (Ca::new(), Arc::new(TestGate::default()));
    let settings = Settings { listen: SocketAddr::from(([127, 0, 0, 1], 0)), limits };
    let (broker, up) = Broker::start(settings, ca.server(), gate.clone()).await.unwrap();
    Site { ca, gate, broker, up }
}

impl Site {
    /// What an admitted agent connects with.
    pub fn admitted(&self, agent: AgentId) -> Arc<ClientConfig> {
        self.gate.set(agent, Admission::Admit);
        self.ca.client(Some(&self.ca.agent(agent)))
    }

    /// An agent that is connected and subscribed.
    pub async fn connect(&self, agent: AgentId) -> Client {
        let tls = self.admitted(agent);
        let mut client = Client::open(self.broker.local_addr(), tls).await.unwrap();
        client.come_in(agent).await;
        client
    }

    pub async fn next_up(&mut self) -> Up {
        timeout(SOON, self.up.recv()).await.expect("a message soon").expect("the broker runs")
    }

    pub async fn no_up(&mut self) {
        let more = timeout(Duration::from_millis(300), self.up.recv()).await;
        assert!(more.is_err(), "unexpected {more:?}");
    }

    pub fn refused(&self, why: Refusal) -> u64 {
        self.broker.counters().refused(why)
    }

    /// Waits until a refusal was counted so often.
    pub async fn until_refused(&self, why: Refusal, times: u64) {
        until(&format!("{why:?} x {times}"), || self.refused(why) >= times).await;
        assert_eq!(self.refused(why), times);
    }

    pub async fn until_connected(&self, count: usize) {
        until(&format!("{count} connected"), || self.broker.connected().len() == count).await;
    }
}

pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not reached: {what}"));
}

pub struct Client {
    pub tls: TlsStream<TcpStream>,
    pub buffer: BytesMut,
}

pub fn connect_packet(client_id: &str, keep_alive: u16, will: Option<(String, &[u8], bool)>) -> BytesMut {
    let connect = protocol::Connect { keep_alive, client_id: client_id.to_owned(), clean_session: true };
    let will = will.map(|(topic, message, retain)| protocol::LastWill {
        topic: topic.into(),
        message: Bytes::copy_from_slice(message),
        qos: protocol::QoS::AtLeastOnce,
        retain,
    });
    let mut out = BytesMut::new();
    V4.write(Packet::Connect(connect, None, will, None, None), &mut out).unwrap();
    out
}

/// `first` is the whole first byte: kind, QoS and retain.
pub fn publish_packet(first: u8, topic: &str, id: Option<u16>, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u8(first);
    let mut length = 2 + topic.len() + if id.is_some() { 2 } else { 0 } + payload.len();
    loop {
        let digit = (length & 0x7f) as u8;
        length >>= 7;
        out.put_u8(digit | if length > 0 { 0x80 } else { 0 });
        if length == 0 {
            break;
        }
    }
    out.put_u16(topic.len() as u16);
    out.put_slice(topic.as_bytes());
    if let Some(id) = id {
        out.put_u16(id);
    }
    out.put_slice(payload);
    out
}

pub fn subscribe_packet(id: u16, filters: &[&str]) -> BytesMut {
    let filters = filters.iter().map(|path| protocol::Filter {
        path: (*path).to_owned(),
        qos: protocol::QoS::AtLeastOnce,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: protocol::RetainForwardRule::Never,
    });
    let subscribe = protocol::Subscribe { pkid: id, filters: filters.collect() };
    let mut out = BytesMut::new();
    V4.write(Packet::Subscribe(subscribe, None), &mut out).unwrap();
    out
}

impl Client {
    pub async fn open(address: SocketAddr, tls: Arc<ClientConfig>) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(tls).connect(name, stream).await?;
        Ok(Self { tls, buffer: BytesMut::new() })
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(SOON, async {
            self.tls.write_all(bytes).await.unwrap();
            self.tls.flush().await.unwrap();
        })
        .await
        .expect("written soon");
    }

    pub async fn next(&mut self) -> Option<Packet> {
        loop {
            match V4.read_mut(&mut self.buffer, 2 << 20) {
                Ok(packet) => return Some(packet),
                Err(protocol::Error::InsufficientBytes(_)) => {}
                Err(e) => panic!("{e}"),
            }
            match timeout(SOON, self.tls.read_buf(&mut self.buffer)).await.expect("an answer soon") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The code of the CONNACK.
    pub async fn connect(&mut self, packet: &[u8]) -> ConnectReturnCode {
        self.send(packet).await;
        match self.next().await {
            Some(Packet::ConnAck(ack, _)) => {
                assert!(!ack.session_present);
                ack.code
            }
            other => panic!("{other:?}"),
        }
    }

    /// CONNECT without a will, and SUBSCRIBE.
    pub async fn come_in(&mut self, agent: AgentId) {
        let code = self.connect(&connect_packet(&agent.to_string(), 30, None)).await;
        assert_eq!(code, ConnectReturnCode::Success);
        assert_eq!(self.subscribe(&[&down_filter(agent)]).await, [true]);
    }

    /// Which filters were granted.
    pub async fn subscribe(&mut self, filters: &[&str]) -> Vec<bool> {
        self.send(&subscribe_packet(77, filters)).await;
        match self.next().await {
            Some(Packet::SubAck(ack, _)) => {
                assert_eq!(ack.pkid, 77);
                ack.return_codes.iter().map(|c| *c != protocol::SubscribeReasonCode::Failure).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    pub async fn publish(&mut self, agent: AgentId, stream: Stream, id: u16, payload: &[u8]) {
        let topic = Topic::Up(agent, stream).to_string();
        self.send(&publish_packet(0x32, &topic, Some(id), payload)).await;
    }

    pub async fn puback(&mut self, id: u16) {
        self.send(&[0x40, 2, (id >> 8) as u8, id as u8]).await;
    }

    /// The next message: topic, packet id and payload.
    pub async fn message(&mut self) -> (String, u16, Bytes) {
        match self.next().await {
            Some(Packet::Publish(publish, _)) => {
                let raw = publish.serialize();
                let id = u16::from_be_bytes([raw[1], raw[2]]);
                (String::from_utf8(publish.topic.to_vec()).unwrap(), id, publish.payload)
            }
            other => panic!("{other:?}"),
        }
    }

    pub async fn expect_closed(&mut self) {
        let next = self.next().await;
        assert!(next.is_none(), "{next:?}");
    }

    /// Still served: a ping is answered.
    pub async fn expect_alive(&mut self) {
        self.send(&[0xc0, 0]).await;
        let next = self.next().await;
        assert!(matches!(next, Some(Packet::PingResp(_))), "{next:?}");
    }
}
