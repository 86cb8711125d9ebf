//! A control plane on free ports and an agent that speaks to it over the real wire.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "each test file uses a part of this; a panic is a failed test"
)]

use hashinsight_control_plane::agents::{self, broker_files, tokens};
use hashinsight_control_plane::clock::Clock;
use hashinsight_control_plane::config::{Addresses, Config};
use hashinsight_control_plane::mqtt::remote::Address;
use hashinsight_control_plane::store::Stores;
use hashinsight_control_plane::{App, args, mqtt};
use hashinsight_protocol::clock::{ClockStateV1, MomentV1};
use hashinsight_protocol::enrolment::{EnrolRequest, EnrolResponse, EnrolmentToken, from_hex, hex};
use hashinsight_protocol::envelope::{Body, Envelope, seal_up};
use hashinsight_protocol::ids::{AgentId, BootId, Epoch, SiteId};
use hashinsight_protocol::limits;
use hashinsight_protocol::presence::{AckV1, HelloV1, StreamStateV1, UnderstandsV1, WelcomeV1, WillV1};
use hashinsight_protocol::signing::{SigningKey, VerifyingKey};
use hashinsight_protocol::topics::{Down, Stream, Topic, down_filter};
use hashinsight_protocol::trust::SignedTrustV1;
use hashinsight_protocol::units::{BootMillis, DurationMs, Millis};
use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, NetworkOptions, Packet, QoS};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

pub const SOON: Duration = Duration::from_secs(10);

mod mosquitto;

pub use mosquitto::Mosquitto;

/// Which broker is between agents and control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Embedded,
    Mosquitto,
}

/// A test of the wire, once on each broker. Where mosquitto is not installed its half is left out aloud, but
/// not where all tests are to run.
#[macro_export]
macro_rules! on_both_brokers {
    ($($test:ident),* $(,)?) => {
        mod on_the_embedded_broker {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                Box::pin(super::$test($crate::support::On::Embedded)).await;
            })*
        }
        mod on_mosquitto {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if $crate::support::Mosquitto::is_installed() {
                    Box::pin(super::$test($crate::support::On::Mosquitto)).await;
                }
            })*
        }
    };
}

/// A control plane without its console.
pub struct Plane {
    broker: Option<Mosquitto>,
    pub app: Arc<App>,
    pub site: SiteId,
    pub folder: Arc<tempfile::TempDir>,
    parts: JoinSet<()>,
    stop: DropGuard,
}

/// SQLite in the folder, or the PostgreSQL database that stands for it.
pub async fn stores(folder: &std::path::Path) -> Stores {
    match hashinsight_test_postgres::url_for(folder) {
        Some(url) => {
            let url = url.parse().unwrap();
            Stores::open_postgres(&url, &url).await.unwrap()
        }
        None => Stores::open(folder).await.unwrap(),
    }
}

impl Plane {
    pub async fn start() -> Self {
        Self::start_on(On::Embedded).await
    }

    pub async fn start_on(on: On) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let broker = (on == On::Mosquitto).then(|| Mosquitto::new(&folder.path().join("broker")));
        Self::start_in(folder, broker, Clock::system()).await
    }

    pub async fn start_in(
        folder: Arc<tempfile::TempDir>,
        mut broker: Option<Mosquitto>,
        clock: Clock,
    ) -> Self {
        let any = "127.0.0.1:0".parse::<SocketAddr>().unwrap();
        let (enrol, wire) = (TcpListener::bind(any).await.unwrap(), TcpListener::bind(any).await.unwrap());
        let addresses =
            Addresses { http: any, mqtt: wire.local_addr().unwrap(), enrol: enrol.local_addr().unwrap() };
        let config = Config {
            data: folder.path().to_owned(),
            http: any,
            mqtt: any,
            broker: broker.as_ref().map(|b| Address { host: "localhost".to_owned(), port: b.port() }),
            broker_user: "cloud".to_owned(),
            enrol: any,
            public_host: "localhost".to_owned(),
            https: false,
            store: None,
            keep: Default::default(),
            ready_file: None,
        };
        let stores = stores(folder.path()).await;
        let app = App::open(config, addresses, clock, stores).await.unwrap();
        if let Some(broker) = broker.as_mut().filter(|b| !b.runs()) {
            let (stores, now) = (&app.stores, app.clock.now());
            broker_files::write(folder.path(), stores, "localhost", broker.folder(), now).await.unwrap();
            broker.start();
        }
        let listener = broker.is_none().then_some(wire);
        let site = SiteId::from_random([1; 16]);
        let insert =
            "insert into sites (id, name, created_at) values ($1, 'Test', $2) on conflict (id) do nothing";
        app.stores.business.execute(insert, args![site, app.clock.now()]).await.unwrap();
        let stop = CancellationToken::new();
        let mut parts = JoinSet::new();
        let (a, b) = (Arc::clone(&app), Arc::clone(&app));
        let (stop_a, stop_b) = (stop.clone(), stop.clone());
        parts.spawn(async move { agents::serve(a, enrol, stop_a).await.unwrap() });
        parts.spawn(async move { mqtt::serve(b, listener, stop_b).await.unwrap() });
        let plane = Self { broker, app, site, folder, parts, stop: stop.drop_guard() };
        plane.until_the_broker_has_us().await;
        plane
    }

    /// Another broker takes a moment to let us in.
    async fn until_the_broker_has_us(&self) {
        if self.broker.is_none() {
            return;
        }
        for _ in 0..200 {
            if self.app.metrics.text().contains("hashinsight_broker_connected 1\n") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the broker does not take the control plane in");
    }

    /// Where agents connect.
    pub fn door(&self) -> SocketAddr {
        let port = self.broker.as_ref().map(Mosquitto::port);
        port.map_or(self.app.addresses.mqtt, |port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// As if the machine lost its power: nothing is said goodbye to. A broker of its own lives on.
    pub async fn kill(mut self) -> (Arc<tempfile::TempDir>, Option<Mosquitto>) {
        self.parts.shutdown().await;
        self.app.stores.close().await;
        (Arc::clone(&self.folder), self.broker.take())
    }

    /// The broker learns of what was revoked, as a site's own script would have it.
    pub async fn bring_revocations_to_the_broker(&self) {
        if let Some(broker) = &self.broker {
            let (data, now) = (self.folder.path(), self.app.clock.now());
            broker_files::write(data, &self.app.stores, "localhost", broker.folder(), now).await.unwrap();
            broker.reload();
        }
    }

    /// Ends it in order; its folder and databases stay.
    pub async fn stop(self) -> (Arc<tempfile::TempDir>, Arc<App>) {
        let Self { app, folder, mut parts, stop, .. } = self;
        drop(stop);
        while let Some(ended) = timeout(SOON, parts.join_next()).await.unwrap() {
            ended.unwrap();
        }
        (folder, app)
    }

    pub async fn token(&self) -> EnrolmentToken {
        let (db, held) = (&self.app.stores.business, self.app.agents.held());
        let hour = DurationMs::from_minutes(60);
        tokens::create(db, &held.authority, self.site, "test", hour, self.app.clock.now()).await.unwrap()
    }

    /// An HTTP request on the enrolment port: status and body of the answer.
    pub async fn request(&self, head: &str, body: &[u8]) -> (u16, String) {
        let mut roots = RootCertStore::empty();
        roots.add(self.app.agents.held().authority.certificate().clone()).unwrap();
        let config = Arc::new(client(roots).with_no_client_auth());
        let stream = TcpStream::connect(self.app.addresses.enrol).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
        let authority = stream.get_ref().1.peer_certificates().unwrap()[1].clone();
        assert_eq!(agents::ca::sha256(&authority), self.app.agents.held().authority.fingerprint());
        let length = body.len();
        let head = format!("{head} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has refused need not read all of it.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    /// An agent, enrolled over the wire.
    pub async fn agent(&self, n: u8) -> Agent {
        self.enrol(&self.token().await, n).await
    }

    /// An agent that enrols with this token.
    pub async fn enrol(&self, token: &EnrolmentToken, n: u8) -> Agent {
        let key = SigningKey::from_seed(&[n; 32]).unwrap();
        let tls_key = rcgen::KeyPair::generate().unwrap();
        let body = enrol_body(token.secret(), &tls_key, &key);
        let (status, body) = self.request("POST /enrol", &body).await;
        assert_eq!(status, 200, "{body}");
        let response: EnrolResponse = serde_json::from_str(&body).unwrap();
        assert_eq!((response.site, response.site_name.as_str()), (self.site, "Test"));
        assert_eq!(response.root_key, hex(&self.app.agents.held().keys.root().0));
        let mut roots = RootCertStore::empty();
        let root = VerifyingKey(from_hex(&response.root_key).unwrap());
        let trust = SignedTrustV1::from_text(&response.trust).unwrap().open(&root).unwrap();
        roots.add_parsable_certificates(trust.authorities.iter().map(|der| der.clone().into()));
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(response.certificate_pem.as_bytes()).map(Result::unwrap).collect();
        let key_der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(tls_key.serialize_der()));
        let tls = client(roots).with_client_auth_cert(chain, key_der).unwrap();
        Agent {
            id: response.agent,
            epoch: Epoch::from_random([n; 16]),
            key,
            tls: Arc::new(tls),
            signers: trust.signing_keys,
            chain: response.certificate_pem,
            tls_key,
        }
    }

    pub async fn number(&self, sql: &'static str) -> i64 {
        let (number,): (i64,) = self.app.stores.business.fetch_one(sql, args![]).await.unwrap();
        number
    }

    pub async fn telemetry_number(&self, sql: &'static str) -> i64 {
        let (number,): (i64,) = self.app.stores.telemetry.fetch_one(sql, args![]).await.unwrap();
        number
    }

    /// Waits until a query of the business database gives this number.
    pub async fn becomes(&self, sql: &'static str, expect: i64) {
        let mut last = None;
        for _ in 0..200 {
            last = Some(self.number(sql).await);
            if last == Some(expect) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{sql}: {last:?}, not {expect}");
    }
}

pub fn enrol_body(secret: &str, tls_key: &rcgen::KeyPair, key: &SigningKey) -> Vec<u8> {
    let csr = rcgen::CertificateParams::default().serialize_request(tls_key).unwrap().pem().unwrap();
    let request = EnrolRequest {
        secret: secret.to_owned(),
        csr_pem: csr,
        batch_key: hex(&key.verifying_key().0),
        hostname: "gateway".to_owned(),
        version: "test".to_owned(),
    };
    serde_json::to_vec(&request).unwrap()
}

pub fn client(roots: RootCertStore) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

pub fn moment(wall: Millis) -> MomentV1 {
    MomentV1 { wall, boot: BootMillis(1), boot_id: BootId::from_random([0; 16]), state: ClockStateV1::Synced }
}

/// What a gateway keeps.
pub struct Agent {
    pub id: AgentId,
    pub epoch: Epoch,
    pub key: SigningKey,
    pub tls: Arc<ClientConfig>,
    pub signers: Vec<VerifyingKey>,
    pub chain: String,
    pub tls_key: rcgen::KeyPair,
}

/// A connection; dropped, it is cut without a word.
pub struct Line {
    client: AsyncClient,
    down: mpsc::Receiver<(Down, Vec<u8>)>,
    tasks: JoinSet<()>,
    id: AgentId,
    signers: Vec<VerifyingKey>,
}

impl Agent {
    pub fn seal(&self, stream: Stream, seq: u64, body: &[u8]) -> Vec<u8> {
        seal_up(&self.key, self.id, self.epoch, stream, seq, body).unwrap()
    }

    /// Connects and subscribes; `None` when the door refuses.
    pub async fn connect(&self, plane: &Plane, session: u64) -> Option<Line> {
        // rumqttc speaks plain TCP to a relay, which speaks TLS to the door.
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options =
            MqttOptions::new(self.id.to_string(), "127.0.0.1", relay.local_addr().unwrap().port());
        options.set_max_packet_size(limits::PACKET_BYTES, limits::PACKET_BYTES);
        options.set_keep_alive(Duration::from_secs(5));
        let will = self.seal(Stream::Presence, 0, &WillV1 { session }.encode().unwrap());
        let presence = Topic::Up(self.id, Stream::Presence).to_string();
        options.set_last_will(LastWill::new(presence, will, QoS::AtLeastOnce, false));
        let (tls, door) = (TlsConnector::from(Arc::clone(&self.tls)), plane.door());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let Ok((mut near, _)) = relay.accept().await else { return };
            near.set_nodelay(true).unwrap();
            let mut far = None;
            for _ in 0..40 {
                let name = ServerName::try_from("localhost").unwrap();
                match TcpStream::connect(door).await {
                    Ok(stream) => {
                        stream.set_nodelay(true).unwrap();
                        far = tls.connect(name, stream).await.ok();
                    }
                    Err(_) => far = None,
                }
                if far.is_some() {
                    break;
                }
                // A server that has just started may not be ready.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let Some(mut far) = far else { return };
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        let (client, mut events) = AsyncClient::new(options, 64);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let (sender, down) = mpsc::channel(1024);
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let (agent, subscriber) = (self.id, client.clone());
        tasks.spawn(async move {
            let mut ready = Some(ready);
            while let Ok(event) = events.poll().await {
                match event {
                    Event::Incoming(Packet::ConnAck(_)) => {
                        subscriber.subscribe(down_filter(agent), QoS::AtLeastOnce).await.unwrap();
                    }
                    Event::Incoming(Packet::SubAck(_)) => {
                        let _ = ready.take().unwrap().send(());
                    }
                    Event::Incoming(Packet::Publish(publish)) => {
                        let Some(Topic::Down(of, kind)) = Topic::parse(&publish.topic) else {
                            panic!("a topic")
                        };
                        assert_eq!(of, agent);
                        sender.send((kind, publish.payload.to_vec())).await.unwrap();
                    }
                    _ => {}
                }
            }
        });
        timeout(SOON, is_ready).await.unwrap().ok()?;
        Some(Line { client, down, tasks, id: self.id, signers: self.signers.clone() })
    }

    pub fn hello(&self, session: u64, streams: &[(Stream, u64, u64)], document: u64, now: Millis) -> Vec<u8> {
        let state = |(stream, lowest, next): &(Stream, u64, u64)| StreamStateV1 {
            stream: stream.number(),
            epoch: self.epoch,
            next: *next,
            lowest: *lowest,
        };
        let hello = HelloV1 {
            session,
            version: "test".to_owned(),
            understands: UnderstandsV1 { envelope: 1, plan: 1, order: 1 },
            clock: moment(now),
            streams: streams.iter().map(state).collect(),
            document,
        };
        self.seal(Stream::Presence, 0, &hello.encode().unwrap())
    }
}

impl Line {
    pub async fn send(&self, stream: Stream, sealed: Vec<u8>) {
        let topic = Topic::Up(self.id, stream).to_string();
        self.client.publish(topic, QoS::AtLeastOnce, false, sealed).await.unwrap();
    }

    /// The next message of this kind, verified; others are passed over.
    pub async fn next(&mut self, kind: Down) -> Vec<u8> {
        let sealed = self.next_sealed(kind).await;
        Envelope::open(Topic::Down(self.id, kind), &sealed).unwrap().body.to_vec()
    }

    /// The same, as it came.
    pub async fn next_sealed(&mut self, kind: Down) -> Vec<u8> {
        timeout(SOON, async {
            loop {
                let (found, sealed) = self.down.recv().await.expect("connected");
                let envelope = Envelope::open(Topic::Down(self.id, found), &sealed).unwrap();
                envelope.verify_down(&self.signers).unwrap();
                if found == kind {
                    return sealed;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no {kind:?} came"))
    }

    /// Takes these keys' signatures from now on.
    pub fn trust(&mut self, signers: &[VerifyingKey]) {
        self.signers = signers.to_vec();
    }

    pub async fn welcome(&mut self) -> WelcomeV1 {
        WelcomeV1::decode(&self.next(Down::Welcome).await).unwrap()
    }

    /// Reads acknowledgements of a stream until all of these numbers are in them.
    pub async fn acked(&mut self, stream: Stream, expect: &BTreeSet<u64>) -> BTreeSet<u64> {
        let mut acked = BTreeSet::new();
        while !expect.is_subset(&acked) {
            acked.extend(self.ack(stream).await);
        }
        acked
    }

    async fn ack(&mut self, stream: Stream) -> BTreeSet<u64> {
        loop {
            let ack = AckV1::decode(&self.next(Down::Ack).await).unwrap();
            if ack.stream == stream.number() {
                return ack.ranges.iter().flat_map(|(first, last)| *first..=*last).collect();
            }
        }
    }

    /// What is acknowledged within this time.
    pub async fn acked_within(&mut self, stream: Stream, time: Duration) -> BTreeSet<u64> {
        let mut acked = BTreeSet::new();
        let _ = timeout(time, async {
            loop {
                acked.extend(self.ack(stream).await);
            }
        })
        .await;
        acked
    }

    /// Waits until the other side ends the connection.
    pub async fn ended(mut self) {
        timeout(SOON, async { while self.tasks.join_next().await.is_some() {} }).await.expect("cut off");
    }
}
