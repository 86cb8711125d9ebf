mod broker;

use super::wire::{Incoming, Wire};
use super::*;
use crate::store::tests_support::{at, plan, sealer};
use hashinsight_protocol::document::{DesiredDocumentV1, SignedPartV1};
use hashinsight_protocol::envelope::{Body, Envelope, seal_down};
use hashinsight_protocol::events::{AlarmKindV1, AlarmV1, EventV1, EventsV1};
use hashinsight_protocol::ids::{Epoch, MinerId, OrderId};
use hashinsight_protocol::limits;
use hashinsight_protocol::order::{CommandV1, OrderV1};
use hashinsight_protocol::presence::{AckV1, GoodbyeV1, HeldV1, HelloV1, WelcomeV1};
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::telemetry::{PollV1, SampleV1};
use hashinsight_protocol::topics::{Down, Stream, Topic, down_filter};
use hashinsight_protocol::trust::{SignedTrustV1, TrustListV1};
use hashinsight_protocol::units::DurationMs;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// The agent's end of a connection without a broker.
struct FakeWire {
    incoming: mpsc::Receiver<Incoming>,
    outgoing: mpsc::Sender<(Topic, Vec<u8>)>,
    filters: mpsc::Sender<String>,
}

/// The control plane's end.
struct Cloud {
    tell: mpsc::Sender<Incoming>,
    heard: mpsc::Receiver<(Topic, Vec<u8>)>,
    filters: mpsc::Receiver<String>,
    key: SigningKey,
    agent: AgentId,
    session: u64,
}

struct FakeConnector(mpsc::Sender<Cloud>);

impl Wire for FakeWire {
    async fn next(&mut self) -> Incoming {
        self.incoming.recv().await.unwrap_or(Incoming::Down("cut".to_owned()))
    }

    fn publish(&mut self, topic: Topic, payload: Vec<u8>) -> bool {
        self.outgoing.try_send((topic, payload)).is_ok()
    }

    fn subscribe(&mut self, filter: String) -> bool {
        self.filters.try_send(filter).is_ok()
    }

    fn leave(&mut self) {}
}

impl Connect for FakeConnector {
    type Wire = FakeWire;

    async fn connect(&self, _will: Vec<u8>) -> Result<FakeWire, LinkError> {
        let (tell, incoming) = mpsc::channel(64);
        let (outgoing, heard) = mpsc::channel(100);
        let (subscribe, filters) = mpsc::channel(4);
        let key = SigningKey::from_seed(&[7; 32]).expect("a seed");
        let cloud = Cloud { tell, heard, filters, key, agent: sealer(1).agent, session: 0 };
        self.0.send(cloud).await.expect("the test goes on");
        Ok(FakeWire { incoming, outgoing, filters: subscribe })
    }
}

impl Cloud {
    async fn hear(&mut self) -> (Stream, Vec<u8>) {
        let (topic, bytes) =
            timeout(Duration::from_secs(5), self.heard.recv()).await.expect("in time").expect("connected");
        let _ = self.tell.send(Incoming::Moved).await;
        let Topic::Up(agent, stream) = topic else { panic!("{topic:?}") };
        assert_eq!(agent, self.agent);
        (stream, bytes)
    }

    /// Plays the broker up to the hello.
    async fn hello(&mut self) -> HelloV1 {
        self.tell.send(Incoming::Connected).await.expect("open");
        assert_eq!(self.filters.recv().await, Some(down_filter(self.agent)));
        assert!(self.heard.try_recv().is_err(), "nothing is said before the subscription stands");
        self.tell.send(Incoming::Subscribed).await.expect("open");
        let (stream, bytes) = self.hear().await;
        let envelope = Envelope::open(Topic::Up(self.agent, stream), &bytes).expect("ours");
        let hello = HelloV1::decode(envelope.body).expect("a hello");
        self.session = hello.session;
        hello
    }

    async fn say(&self, kind: Down, body: &[u8]) {
        self.say_as(&self.key, kind, body).await;
    }

    async fn say_as(&self, key: &SigningKey, kind: Down, body: &[u8]) {
        let epoch = Epoch::from_random([1; 16]);
        let payload = seal_down(key, self.agent, epoch, kind, 0, body).expect("small");
        let topic = Topic::Down(self.agent, kind).to_string();
        self.tell.send(Incoming::Message { topic, payload }).await.expect("open");
    }

    async fn welcome(&self, session: u64, received: Millis, held: Vec<HeldV1>) {
        let welcome = WelcomeV1 { session, received, held, document: 0, watched: false };
        self.say(Down::Welcome, &welcome.encode().expect("small")).await;
    }

    /// The next batch of a stream; others are let pass.
    async fn batch(&mut self, wanted: Stream) -> (Epoch, u64) {
        loop {
            let (stream, bytes) = self.hear().await;
            if stream == wanted {
                let envelope = Envelope::open(Topic::Up(self.agent, stream), &bytes).expect("ours");
                return (envelope.header.epoch, envelope.header.seq);
            }
        }
    }

    async fn ack(&self, stream: Stream, epoch: Epoch, first: u64, last: u64) {
        let ack = AckV1 { stream: stream.number(), epoch, ranges: vec![(first, last)] };
        self.say(Down::Ack, &ack.encode().expect("small")).await;
    }

    async fn silent(&mut self) -> bool {
        timeout(Duration::from_millis(300), self.heard.recv()).await.is_err()
    }
}

struct Site {
    _dir: TempDir,
    outbox: Outbox,
    journal: Journal,
    clock: Clock,
    watched: watch::Receiver<Option<Watched>>,
    connections: mpsc::Receiver<Cloud>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    cycle: u64,
}

fn root() -> SigningKey {
    SigningKey::from_seed(&[3; 32]).expect("a seed")
}

/// A list that names the signing key of this seed.
fn trust_list(version: u64, key: u8) -> TrustListV1 {
    let signing_keys = vec![SigningKey::from_seed(&[key; 32]).expect("a seed").verifying_key()];
    TrustListV1 { version, issued: Millis(0), signing_keys, authorities: vec![vec![1]] }
}

impl Site {
    async fn new() -> Self {
        Self::with_backlog(0).await
    }

    async fn with_backlog(bursts: u64) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(dir.path(), sealer(1)).expect("opens");
        let outbox =
            Outbox::open(dir.path(), 1 << 30, sealer(1), journal.clone(), at(0)).await.expect("opens");
        let (clock, stop) = (Clock::system().expect("a boot id"), CancellationToken::new());
        let watched = watch::Sender::new(None);
        let (connect, connections) = mpsc::channel(4);
        let uplink = Uplink {
            agent: sealer(1).agent,
            sealer: sealer(1),
            trust: Trust::new(root().verifying_key(), trust_list(1, 7), None),
            doubted: Arc::default(),
            refused: Mutex::default(),
            clock: clock.clone(),
            outbox: outbox.clone(),
            journal: journal.clone(),
            held_before: mpsc::channel(1).0,
            watched,
            watched_cycle_s: 10,
            stop: stop.clone(),
        };
        let watched = uplink.watched.subscribe();
        let mut site = Self {
            _dir: dir,
            outbox,
            journal,
            clock,
            watched,
            connections,
            stop,
            task: tokio::spawn(async {}),
            cycle: 0,
        };
        for _ in 0..bursts {
            site.burst().await;
        }
        site.task = tokio::spawn(async move { keep_up(&uplink, &FakeConnector(connect)).await });
        site
    }

    async fn burst(&mut self) {
        self.cycle += 1;
        let miner = MinerId::from_random([self.cycle as u8; 16]);
        let sample = SampleV1::empty(miner, DurationMs(1), PollV1::Answered);
        self.outbox.commit_burst(self.cycle, at(self.cycle), vec![sample]).await.expect("stored");
    }

    async fn connection(&mut self) -> Cloud {
        timeout(Duration::from_secs(5), self.connections.recv()).await.expect("in time").expect("running")
    }

    /// A connection up to the welcome, with nothing held.
    async fn welcomed(&mut self) -> Cloud {
        let mut cloud = self.connection().await;
        let hello = cloud.hello().await;
        cloud.welcome(hello.session, self.clock.now().wall, Vec::new()).await;
        cloud
    }

    async fn kept(&self) -> Vec<u64> {
        self.outbox.pending(0, u64::MAX, 1000).await.expect("readable").iter().map(|k| k.seq).collect()
    }

    async fn eventually(&self, expect: &[u64]) {
        for _ in 0..100 {
            if self.kept().await == expect {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("kept: {:?}, expected: {expect:?}", self.kept().await);
    }
}

#[tokio::test]
async fn batches_are_kept_until_the_control_plane_has_them() {
    let mut site = Site::with_backlog(2).await;
    let mut cloud = site.connection().await;
    let hello = cloud.hello().await;
    assert_eq!(hello.session, 1);
    let telemetry = hello.streams.iter().find(|s| s.stream == Stream::Telemetry.number()).expect("told");
    assert_eq!((telemetry.lowest, telemetry.next), (1, 3));
    assert!(cloud.silent().await, "nothing is sent before the welcome");
    cloud.welcome(hello.session + 1, site.clock.now().wall, Vec::new()).await;
    assert!(cloud.silent().await, "another session's welcome says nothing");
    cloud.welcome(hello.session, site.clock.now().wall, Vec::new()).await;
    let (epoch, first) = cloud.batch(Stream::Telemetry).await;
    assert_eq!((first, cloud.batch(Stream::Telemetry).await.1), (1, 2));
    cloud.ack(Stream::Telemetry, epoch, 1, 1).await;
    site.eventually(&[2]).await;
    cloud.ack(Stream::Telemetry, Epoch::from_random([9; 16]), 2, 2).await;
    drop(cloud);
    let mut cloud = site.connection().await;
    let hello = cloud.hello().await;
    assert_eq!(hello.session, 2);
    let held = HeldV1 { stream: Stream::Telemetry.number(), epoch, up_to: 2 };
    cloud.welcome(hello.session, site.clock.now().wall, vec![held]).await;
    site.eventually(&[]).await;
    site.burst().await;
    assert_eq!(cloud.batch(Stream::Telemetry).await, (epoch, 3));
    site.stop.cancel();
    let (stream, bytes) = cloud.hear().await;
    let envelope = Envelope::open(Topic::Up(cloud.agent, stream), &bytes).expect("ours");
    assert_eq!(GoodbyeV1::decode(envelope.body), Ok(GoodbyeV1 { session: 2 }));
    drop(cloud);
    timeout(Duration::from_secs(5), site.task).await.expect("in time").expect("no panic");
}

#[tokio::test]
async fn the_window_holds_and_the_present_goes_first() {
    let backlog = 40;
    let mut site = Site::with_backlog(backlog).await;
    let mut cloud = site.welcomed().await;
    let mut epoch = Epoch::from_random([0; 16]);
    for expect in 1..=limits::WINDOW as u64 {
        let (of, seq) = cloud.batch(Stream::Telemetry).await;
        assert_eq!(seq, expect);
        epoch = of;
    }
    assert!(cloud.silent().await, "no more than the window");
    site.burst().await;
    cloud.ack(Stream::Telemetry, epoch, 3, 4).await;
    assert_eq!(cloud.batch(Stream::Telemetry).await.1, backlog + 1);
    assert_eq!(cloud.batch(Stream::Telemetry).await.1, limits::WINDOW as u64 + 1);
    assert!(cloud.silent().await);
}

#[tokio::test]
async fn events_are_sent_and_deleted_on_their_own() {
    let mut site = Site::new().await;
    let mut cloud = site.welcomed().await;
    let alarm = EventV1::Alarm(AlarmV1 { kind: AlarmKindV1::Clock, miner: None, text: String::new() });
    for stream in [Stream::Events, Stream::Evidence, Stream::Audit] {
        site.journal.record(stream, at(1), vec![alarm.clone()]).await.expect("stored");
        let (epoch, seq) = cloud.batch(stream).await;
        assert_eq!(seq, 1);
        cloud.ack(stream, epoch, 1, 1).await;
    }
    for _ in 0..100 {
        let left = site.journal.pending(Stream::Audit, 0, u64::MAX, 9).await.expect("readable");
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still kept");
}

#[tokio::test]
async fn a_stop_reaches_the_engine_at_once_even_before_the_welcome() {
    let mut site = Site::new().await;
    let mut plans = site.journal.plans();
    let mut cloud = site.connection().await;
    cloud.hello().await;
    let parts = vec![SignedPartV1::plan(&cloud.key, cloud.agent, &plan(1, 1)).expect("small")];
    let document = DesiredDocumentV1 { agent: cloud.agent, version: 1, issued: Millis(0), parts };
    let document = document.encode().expect("small");
    let now = site.clock.now().wall;
    let stop = OrderV1 {
        id: OrderId::from_random([1; 16]),
        issued: now,
        expires: now.plus(DurationMs::from_secs(60)),
        by: "ops".to_owned(),
        command: CommandV1::Stop { plan: plan(1, 1).id, force: false },
    };
    let stop = stop.encode().expect("small");
    let forger = SigningKey::from_seed(&[8; 32]).expect("a seed");
    cloud.say_as(&forger, Down::Desired, &document).await;
    cloud.say(Down::Desired, &document).await;
    timeout(Duration::from_secs(5), plans.wait_for(|p| p.len() == 1)).await.expect("in time").expect("open");
    cloud.say_as(&forger, Down::Order, &stop).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(plans.borrow().iter().all(|held| held.stop.is_none()), "a forged stop is no stop");
    let before = Instant::now();
    cloud.say(Down::Order, &stop).await;
    let stopped = plans.wait_for(|p| p.iter().any(|held| held.stop.is_some()));
    timeout(Duration::from_secs(5), stopped).await.expect("in time").expect("open");
    assert!(before.elapsed() < Duration::from_millis(500), "{:?}", before.elapsed());
}

/// Alarms in the audit stream.
async fn alarms(site: &Site) -> Vec<String> {
    let kept = site.journal.pending(Stream::Audit, 0, u64::MAX, 100).await.expect("readable");
    let mut texts = Vec::new();
    for kept in kept {
        let envelope =
            Envelope::open(Topic::Up(sealer(1).agent, Stream::Audit), &kept.envelope).expect("ours");
        for raw in EventsV1::decode(envelope.body).expect("events").events {
            if let Ok(EventV1::Alarm(alarm)) = EventV1::from_raw(&raw) {
                texts.push(alarm.text);
            }
        }
    }
    texts
}

#[tokio::test]
async fn forged_and_replayed_words_change_nothing_and_are_audited() {
    let mut site = Site::new().await;
    let mut plans = site.journal.plans();
    let cloud = site.welcomed().await;
    let document = |version, plans: &[u8]| {
        let part = |n: &u8| SignedPartV1::plan(&cloud.key, cloud.agent, &plan(*n, 1));
        let parts = plans.iter().map(|n| part(n).expect("small")).collect();
        let document = DesiredDocumentV1 { agent: cloud.agent, version, issued: Millis(0), parts };
        document.encode().expect("small")
    };
    let (old, new) = (document(1, &[1]), document(2, &[1, 2]));
    cloud.say(Down::Desired, &old).await;
    cloud.say(Down::Desired, &new).await;
    timeout(Duration::from_secs(5), plans.wait_for(|p| p.len() == 2)).await.expect("in time").expect("open");
    // What was said before comes again: the newer document stays.
    cloud.say(Down::Desired, &old).await;
    let forger = SigningKey::from_seed(&[8; 32]).expect("a seed");
    for _ in 0..5 {
        cloud.say_as(&forger, Down::Desired, &document(3, &[])).await;
        cloud.say_as(&forger, Down::Welcome, &[1, 2, 3]).await;
    }
    // A list by another root, and an older one.
    let signed =
        |root: &SigningKey, list| SignedTrustV1::sign(root, &list).and_then(|s| s.encode()).expect("small");
    cloud.say_as(&forger, Down::Keys, &signed(&forger, trust_list(9, 8))).await;
    cloud.say(Down::Keys, &signed(&root(), trust_list(0, 8))).await;
    cloud.say_as(&forger, Down::Desired, &document(4, &[])).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(plans.borrow().len(), 2);
    assert_eq!(site.journal.document().await.expect("readable"), 2);
    let alarms = alarms(&site).await;
    assert_eq!(alarms.len(), 1, "not one a message: {alarms:?}");
    assert!(alarms[0].contains("were refused") && alarms[0].contains("signature"), "{alarms:?}");
}

#[tokio::test]
async fn a_new_signing_key_is_taken_from_the_root_alone() {
    let mut site = Site::new().await;
    let mut plans = site.journal.plans();
    let cloud = site.connection().await;
    cloud.tell.send(Incoming::Connected).await.expect("open");
    cloud.tell.send(Incoming::Subscribed).await.expect("open");
    // All that comes is signed by a key that this agent has never heard of.
    let next = SigningKey::from_seed(&[9; 32]).expect("a seed");
    let list = SignedTrustV1::sign(&root(), &trust_list(2, 9)).and_then(|s| s.encode()).expect("small");
    cloud.say_as(&next, Down::Keys, &list).await;
    let parts = vec![SignedPartV1::plan(&next, cloud.agent, &plan(1, 1)).expect("small")];
    let document = DesiredDocumentV1 { agent: cloud.agent, version: 1, issued: Millis(0), parts };
    cloud.say_as(&next, Down::Desired, &document.encode().expect("small")).await;
    timeout(Duration::from_secs(5), plans.wait_for(|p| p.len() == 1)).await.expect("in time").expect("open");
    // The old key counts no more.
    let parts = vec![SignedPartV1::plan(&cloud.key, cloud.agent, &plan(2, 1)).expect("small")];
    let document = DesiredDocumentV1 { agent: cloud.agent, version: 2, issued: Millis(0), parts };
    cloud.say(Down::Desired, &document.encode().expect("small")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(site.journal.document().await.expect("readable"), 1);
}

#[tokio::test]
async fn a_restored_disk_comes_back_with_a_new_epoch() {
    let mut site = Site::with_backlog(2).await;
    let mut cloud = site.connection().await;
    let hello = cloud.hello().await;
    let telemetry = hello.streams.iter().find(|s| s.stream == Stream::Telemetry.number()).expect("told");
    let held = HeldV1 { stream: telemetry.stream, epoch: telemetry.epoch, up_to: 500 };
    cloud.welcome(hello.session, site.clock.now().wall, vec![held]).await;
    let mut cloud = site.connection().await;
    let hello = cloud.hello().await;
    let renewed = hello.streams.iter().find(|s| s.stream == Stream::Telemetry.number()).expect("told");
    assert_ne!(renewed.epoch, telemetry.epoch);
    cloud.welcome(hello.session, site.clock.now().wall, Vec::new()).await;
    assert_eq!(cloud.batch(Stream::Telemetry).await, (renewed.epoch, 1));
}

#[tokio::test]
async fn somebody_watches() {
    let mut site = Site::new().await;
    let cloud = site.welcomed().await;
    let now = site.clock.now().wall;
    let until = now.plus(DurationMs::from_secs(60));
    let watch = OrderV1 {
        id: OrderId::from_random([1; 16]),
        issued: now,
        expires: until,
        by: String::new(),
        command: CommandV1::Watch { cycle_s: 5, until },
    };
    cloud.say(Down::Order, &watch.encode().expect("small")).await;
    let watched = timeout(Duration::from_secs(5), site.watched.wait_for(Option::is_some));
    assert_eq!(*watched.await.expect("in time").expect("open"), Some((5, until)));
}

#[test]
fn pauses_are_spread() {
    for _ in 0..100 {
        let pause = jittered(Duration::from_secs(8));
        assert!((4.0..=8.001).contains(&pause.as_secs_f64()), "{pause:?}");
    }
}
