//! An agent that was off for more than a year, while everything but the root was replaced.

use hashinsight_control_plane::agents::ceremony::{self, Wanted};
use hashinsight_control_plane::agents::{self, tokens};
use hashinsight_control_plane::clock::Clock;
use hashinsight_control_plane::config::{Addresses, Settings};
use hashinsight_control_plane::store::Stores;
use hashinsight_control_plane::{App, args, mqtt};
use hashinsight_demo::process::{Process, run};
use hashinsight_protocol::ids::SiteId;
use hashinsight_protocol::units::{DurationMs, Millis};
use hashinsight_tests::programs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DAY: i64 = 86_400_000;
const SITE: &str = "00000000-0000-4000-8000-000000000001";

/// A control plane without its console, at a time of our choice.
struct Plane {
    app: Arc<App>,
    parts: JoinSet<()>,
    stop: CancellationToken,
}

impl Plane {
    async fn start(data: &Path, clock: Clock, enrol: SocketAddr, mqtt: SocketAddr) -> Self {
        let (enrol, wire) = (TcpListener::bind(enrol).await.unwrap(), TcpListener::bind(mqtt).await.unwrap());
        let settings = Settings { data: Some(data.to_owned()), ..Settings::default() };
        let config = settings.finish(None).unwrap();
        let addresses = Addresses {
            http: config.http,
            mqtt: wire.local_addr().unwrap(),
            enrol: enrol.local_addr().unwrap(),
        };
        let stores = Stores::open(data).await.unwrap();
        let app = App::open(config, addresses, clock, stores).await.unwrap();
        let (stop, mut parts) = (CancellationToken::new(), JoinSet::new());
        let (a, b, stop_a, stop_b) = (Arc::clone(&app), Arc::clone(&app), stop.clone(), stop.clone());
        parts.spawn(async move { agents::serve(a, enrol, stop_a).await.unwrap() });
        parts.spawn(async move { mqtt::serve(b, Some(wire), stop_b).await.unwrap() });
        Self { app, parts, stop }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = timeout(Duration::from_secs(20), self.parts.join_next()).await.unwrap() {
            ended.unwrap();
        }
        self.app.stores.close().await;
    }

    async fn number(&self, sql: &'static str) -> i64 {
        let (number,): (i64,) = self.app.stores.business.fetch_one(sql, args![]).await.unwrap();
        number
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_off_for_a_year_comes_back_without_a_visit() {
    let folder = tempfile::tempdir().unwrap();
    let (data, usb) = (folder.path().join("control-plane"), folder.path().join("usb"));
    std::fs::create_dir_all(&data).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let now = Clock::system().now();
    // Its certificate lives for 365 days, and has ended 15 days ago.
    let then = Clock::standing_at(Millis(now.0 - 380 * DAY));
    let plane = Plane::start(&data, then, any, any).await;
    let (enrol, mqtt) = (plane.app.addresses.enrol, plane.app.addresses.mqtt);
    let db = &plane.app.stores.business;
    let site: SiteId = SITE.parse().unwrap();
    let insert = "insert into sites (id, name, created_at) values ($1, 'North', $2)";
    db.execute(insert, args![site, plane.app.clock.now()]).await.unwrap();
    let (held, hour) = (plane.app.agents.held(), DurationMs::from_minutes(60));
    let token = tokens::create(db, &held.authority, site, "test", hour, plane.app.clock.now()).await.unwrap();
    let config = folder.path().join("agent.toml");
    std::fs::write(&config, "data_dir = \"agent\"\n").unwrap();
    let agent = |args: &[&str]| {
        let mut command = Command::new(programs().join("hashinsight-agent"));
        command.args(args).arg("--config").arg(&config);
        command
    };
    let url = format!("https://localhost:{}", enrol.port());
    let enrolling = agent(&["enroll", "--url", &url, "--token", &token.reveal()]);
    tokio::task::spawn_blocking(move || run(enrolling)).await.unwrap().unwrap();
    plane.stop().await;

    // Meanwhile every key but the root is replaced, and the old ones are trusted no more.
    ceremony::take_root(&data, &usb).unwrap();
    for wanted in [
        Wanted { signing_key: true, authority: true, retire: false },
        Wanted { retire: true, ..Wanted::default() },
    ] {
        let (_, proposal) = ceremony::propose(&data, wanted, now).unwrap();
        let (_, signed) = ceremony::sign(&usb, &proposal).unwrap();
        ceremony::install(&data, &signed).unwrap();
        if wanted.signing_key {
            ceremony::activate(&data).unwrap();
        }
    }

    let plane = Plane::start(&data, Clock::system(), enrol, mqtt).await;
    let old = std::fs::read(folder.path().join("agent/identity/tls.pem")).unwrap();
    let log = folder.path().join("agent.log");
    let _agent = Process::start("hashinsight-agent", agent(&["run"]), &log).unwrap();
    let back = async {
        while plane.number("select count(*) from agent_presence where online = 1").await == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let came = timeout(Duration::from_secs(60), back).await;
    assert!(came.is_ok(), "it did not come back: {}", std::fs::read_to_string(&log).unwrap());
    let renewed = "select count(*) from audit_log where what = 'agent.renew' and detail like 'expired %'";
    assert_eq!(plane.number(renewed).await, 1);
    assert_ne!(std::fs::read(folder.path().join("agent/identity/tls.pem")).unwrap(), old);
    plane.stop().await;
}
