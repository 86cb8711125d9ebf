//! The real wire against a real broker, mosquitto, where it's installed.

use super::super::wire::{Connect, Incoming, MqttConnector, Wire};
use crate::clock::Clock;
use crate::identity_files::{self, Identity, NewIdentity, Settings};
use crate::renewal::Holder;
use hashinsight_protocol::enrolment::hex;
use hashinsight_protocol::ids::{AgentId, SiteId};
use hashinsight_protocol::limits;
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::topics::{Down, Topic, down_filter};
use hashinsight_protocol::trust::{SignedTrustV1, TrustListV1};
use hashinsight_protocol::units::Millis;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const MOSQUITTO: &str = "/usr/sbin/mosquitto";

struct Authority {
    pem: String,
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let (pem, der) = (certificate.pem(), certificate.der().to_vec());
        Self { pem, der, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key.
    fn leaf(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

struct Broker {
    process: Child,
    port: u16,
    dir: TempDir,
    authority: Authority,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Broker {
    /// `None` where mosquitto isn't installed.
    fn start() -> Option<Self> {
        if !Path::new(MOSQUITTO).exists() {
            eprintln!("left out: {MOSQUITTO} is not installed");
            return None;
        }
        let (dir, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
        let (certificate, key) = authority.leaf("broker");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let at = dir.path().display();
        let config = format!(
            "listener {port} 127.0.0.1\ncafile {at}/ca\ncertfile {at}/crt\nkeyfile {at}/key\n\
             require_certificate true\nuse_identity_as_username true\nmax_inflight_messages 0\nuser root\n"
        );
        for (name, text) in [("ca", &authority.pem), ("crt", &certificate), ("key", &key), ("conf", &config)]
        {
            std::fs::write(dir.path().join(name), text).expect("writable");
        }
        let process = Command::new(MOSQUITTO)
            .arg("-c")
            .arg(dir.path().join("conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let broker = Self { process, port, dir, authority };
        let up = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            std::net::TcpStream::connect(("127.0.0.1", broker.port)).is_ok()
        });
        assert!(up, "mosquitto does not start");
        Some(broker)
    }

    /// An agent's connector; its certificate is by `authority`, its broker should be called `name`.
    fn connector(&self, authority: &Authority, name: &str) -> MqttConnector {
        let agent = AgentId::from_random([1; 16]);
        let (certificate_pem, tls_key_pem) = authority.leaf(&agent.to_string());
        let key = SigningKey::from_seed(&[1; 32]).expect("a seed");
        let list = TrustListV1 {
            version: 1,
            issued: Millis(0),
            signing_keys: vec![key.verifying_key()],
            authorities: vec![self.authority.der.clone()],
        };
        let trust = SignedTrustV1::sign(&key, &list).and_then(|signed| signed.to_text()).expect("small");
        let settings = Settings {
            agent,
            site: SiteId::from_random([2; 16]),
            site_name: String::new(),
            broker: format!("127.0.0.1:{}", self.port),
            broker_name: name.to_owned(),
            control: "127.0.0.1:1".to_owned(),
            root_key: hex(&key.verifying_key().0),
        };
        let data = tempfile::tempdir_in(self.dir.path()).expect("a folder").keep();
        let new = NewIdentity {
            settings: &settings,
            tls_key_pem: &tls_key_pem,
            certificate_pem: &certificate_pem,
            trust: &trust,
            batch_seed: &[1; 32],
        };
        identity_files::write(&data, &new).expect("written");
        let holder = Holder::new(&data, Identity::load(&data).expect("readable"), None);
        MqttConnector::new(holder, Clock::system().expect("a boot id"), &data)
    }
}

async fn hear(wire: &mut impl Wire) -> Incoming {
    tokio::time::timeout(Duration::from_secs(10), wire.next()).await.expect("in time")
}

#[tokio::test]
async fn the_wire_carries_the_largest_messages_both_ways() {
    let Some(broker) = Broker::start() else { return };
    let agent = AgentId::from_random([1; 16]);
    let connector = broker.connector(&broker.authority, "broker");
    for _ in 0..2 {
        let mut wire = connector.connect(vec![1, 2, 3]).await.expect("connected");
        assert_eq!(hear(&mut wire).await, Incoming::Connected);
        assert!(wire.subscribe(down_filter(agent)));
        assert_eq!(hear(&mut wire).await, Incoming::Subscribed);
        let topic = Topic::Down(agent, Down::Desired);
        let payload = vec![7; limits::DOWN_BYTES];
        assert!(wire.publish(topic, payload.clone()));
        let (mut moved, mut arrived) = (false, false);
        while !(moved && arrived) {
            match hear(&mut wire).await {
                Incoming::Moved => moved = true,
                Incoming::Message { topic: on, payload: bytes } => {
                    assert_eq!((on, bytes == payload), (topic.to_string(), true));
                    arrived = true;
                }
                other => panic!("{other:?}"),
            }
        }
        wire.leave();
        assert!(matches!(hear(&mut wire).await, Incoming::Down(_)));
    }
}

#[tokio::test]
async fn a_broker_or_an_agent_of_another_authority_is_refused() {
    let Some(broker) = Broker::start() else { return };
    let stranger = broker.connector(&Authority::new(), "broker");
    // In TLS 1.3 the client learns of it with its first read.
    let mut wire = stranger.connect(Vec::new()).await.expect("half way");
    let Incoming::Down(why) = hear(&mut wire).await else { panic!("let in") };
    assert!(why.contains("alert"), "{why}");
    let misnamed = broker.connector(&broker.authority, "another-broker");
    let error = misnamed.connect(Vec::new()).await.err().expect("refused").to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn the_end_of_the_broker_is_noticed() {
    let Some(mut broker) = Broker::start() else { return };
    let connector = broker.connector(&broker.authority, "broker");
    let mut wire = connector.connect(Vec::new()).await.expect("connected");
    assert_eq!(hear(&mut wire).await, Incoming::Connected);
    broker.process.kill().and_then(|()| broker.process.wait()).expect("it ran");
    assert!(matches!(hear(&mut wire).await, Incoming::Down(_)));
    let error = connector.connect(Vec::new()).await.err().expect("nobody there").to_string();
    assert!(error.starts_with("cannot reach the broker at 127.0.0.1:"), "{error}");
}
