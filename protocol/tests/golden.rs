//! The bytes of every frozen type, as first released: an agent that was off for a year still speaks them.
//!
//! A file of `golden/` is never edited. A new type adds a file; with `GOLDEN=write` in the environment
//! missing files are written, and existing ones still must match.

use hashinsight_protocol::clock::{ClockStateV1, MomentV1};
use hashinsight_protocol::device::{CapabilitiesV1, EvidenceV1, FactV1, ModeV1, PowerSourceV1, PreStateV1};
use hashinsight_protocol::document::{DesiredDocumentV1, SignedPartV1};
use hashinsight_protocol::enrolment::{from_hex, hex};
use hashinsight_protocol::envelope::{Body, Envelope, seal_down, seal_up};
use hashinsight_protocol::events::*;
use hashinsight_protocol::evidence::*;
use hashinsight_protocol::ids::*;
use hashinsight_protocol::order::{CommandV1, OrderV1};
use hashinsight_protocol::plan::*;
use hashinsight_protocol::presence::*;
use hashinsight_protocol::readiness::*;
use hashinsight_protocol::recovery::*;
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::telemetry::{PollV1, SampleV1, TelemetryV1};
use hashinsight_protocol::topics::{Down, Stream, Topic};
use hashinsight_protocol::trust::{SignedTrustV1, TrustListV1};
use hashinsight_protocol::units::*;
use std::fmt::Debug;
use std::path::PathBuf;

fn golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"));
    let now = hex(bytes);
    match std::fs::read_to_string(&path) {
        Ok(kept) => assert_eq!(kept.trim(), now, "{name} is encoded in another way than when it was frozen"),
        Err(_) if std::env::var_os("GOLDEN").is_some_and(|v| v == "write") => {
            std::fs::write(&path, now + "\n").expect("the golden file can be written");
        }
        Err(error) => panic!("{name} has no golden bytes ({error}); it should be {now}"),
    }
}

fn body<T: Body + PartialEq + Debug>(name: &str, value: &T) {
    let bytes = value.encode().expect("within the limits");
    golden(name, &bytes);
    assert_eq!(T::decode(&bytes).as_ref(), Ok(value));
    let mut longer = bytes;
    longer.push(0);
    assert!(T::decode(&longer).is_err(), "{name}: trailing bytes are an error");
}

fn event(name: &str, value: &EventV1) {
    let raw = value.raw(moment()).expect("within the limits");
    golden(name, &raw.body);
    assert_eq!(EventV1::from_raw(&raw).as_ref(), Ok(value));
}

fn moment() -> MomentV1 {
    MomentV1 {
        wall: Millis(1_795_000_000_123),
        boot: BootMillis(86_400_000),
        boot_id: BootId::from_random([0xb0; 16]),
        state: ClockStateV1::Synced,
    }
}

fn agent() -> AgentId {
    AgentId::from_random([0xa6; 16])
}

fn miner(n: u8) -> MinerId {
    MinerId::from_random([n; 16])
}

fn epoch() -> Epoch {
    Epoch::from_random([0xee; 16])
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[0x51; 32]).expect("a seed")
}

fn watts(w: f64) -> Watts {
    Watts::new(w).expect("in range")
}

fn plan() -> PlanV1 {
    PlanV1 {
        id: PlanId::from_random([0x97; 16]),
        revision: 3,
        scope: ScopeV1::AllExcept(vec![miner(1)]),
        goal: GoalV1::ReduceBy { target: watts(250_000.0), reserve: watts(25_000.0) },
        order: SelectionOrderV1::LeastEfficientFirst,
        level: LevelV1::Sleep,
        intervals: vec![IntervalV1 {
            number: 1,
            start: Millis(1_795_000_600_000),
            end: Some(Millis(1_795_004_200_000)),
        }],
        ramp_down: RampV1 { batch: 50, every: DurationMs(5_000), jitter: DurationMs(1_000) },
        ramp_up: RampV1 { batch: 50, every: DurationMs(30_000), jitter: DurationMs(5_000) },
        rules: RulesV1 {
            min_off: DurationMs::from_minutes(15),
            min_on: DurationMs::from_minutes(30),
            max_off: Some(DurationMs::from_minutes(480)),
            starts_a_day: Some(4),
        },
        precedence: PrecedenceV1::Grid,
        on_lost_contact: LostContactV1::ReleaseAfter(DurationMs::from_minutes(60)),
        recovery: RecoveryV1::Automatic,
        uncertain_clock: UncertainClockV1::Start,
        force: false,
        reason: "peak".into(),
    }
}

fn dispatch() -> DispatchV1 {
    DispatchV1 { plan: plan().id, revision: 3, interval: 1 }
}

fn samples() -> Vec<SampleV1> {
    let full = SampleV1 {
        hashrate: Hashrate::from_terahash(104.25),
        power: Watts::new(3_250.5),
        power_source: Some(PowerSourceV1::Device),
        hottest: Celsius::new(71.5),
        fan_max: Some(6_120),
        fan_min: Some(5_880),
        accepted: Some(12_345),
        rejected: Some(6),
        uptime: Some(DurationMs::from_secs(86_400)),
        is_mining: Some(true),
        mode: Some(ModeV1::Normal),
        warnings: Some(1),
        ..SampleV1::empty(miner(1), DurationMs(420), PollV1::Answered)
    };
    vec![full, SampleV1::empty(miner(2), DurationMs(5_000), PollV1::TimedOut)]
}

#[test]
fn telemetry() {
    let first = TelemetryV1::new(7, moment(), &samples(), None).expect("few");
    body("telemetry-v1-key", &first);
    let key = first.as_key(41, 0xdead_beef).expect("well formed").expect("a key");
    let mut later = samples();
    later[0].hashrate = Hashrate::from_terahash(103.75);
    let second = TelemetryV1::new(8, moment(), &later, Some(&key)).expect("the same miners");
    body("telemetry-v1-follower", &second);
    assert_eq!(second.samples(Some(&key)), Ok(later));
}

#[test]
fn the_ends_of_a_poll_and_the_states_of_a_clock() {
    use PollV1::*;
    let ends =
        [Answered, Refused, TimedOut, NotUnderstood, OtherDevice, BackedOff, Reset, SignInRefused, Busy];
    let samples: Vec<_> =
        (1..).zip(ends).map(|(n, end)| SampleV1::empty(miner(n), DurationMs(u64::from(n)), end)).collect();
    let measured = MomentV1 { state: ClockStateV1::Measured, ..moment() };
    body("telemetry-v1-polls", &TelemetryV1::new(7, measured, &samples, None).expect("few"));
}

#[test]
fn presence_and_acknowledgement() {
    let stream = StreamStateV1 { stream: Stream::Telemetry.number(), epoch: epoch(), next: 42, lowest: 17 };
    body(
        "hello-v1",
        &HelloV1 {
            session: 5,
            version: "0.1.0".into(),
            understands: UnderstandsV1 { envelope: 1, plan: 1, order: 1 },
            clock: moment(),
            streams: vec![stream],
            document: 9,
        },
    );
    body("will-v1", &WillV1 { session: 5 });
    body("goodbye-v1", &GoodbyeV1 { session: 5 });
    body(
        "welcome-v1",
        &WelcomeV1 {
            session: 5,
            received: Millis(1_795_000_000_200),
            held: vec![HeldV1 { stream: 1, epoch: epoch(), up_to: 16 }],
            document: 9,
            watched: true,
        },
    );
    body("ack-v1", &AckV1 { stream: 1, epoch: epoch(), ranges: vec![(1, 16), (18, 20)] });
}

#[test]
fn trust() {
    let list = TrustListV1 {
        version: 2,
        issued: moment().wall,
        signing_keys: vec![key().verifying_key()],
        authorities: vec![vec![0x30, 0x03, 0x02, 0x01, 0x05]],
    };
    body("trust-list-v1", &list);
    body("signed-trust-v1", &SignedTrustV1::sign(&key(), &list).expect("small"));
}

#[test]
fn orders_and_plans() {
    body("plan-v1", &plan());
    let mut only = plan();
    only.scope = ScopeV1::Only(vec![miner(1), miner(2)]);
    only.goal = GoalV1::CapAt(watts(1_000_000.0));
    body("plan-v1-only", &only);
    let part = SignedPartV1::plan(&key(), agent(), &plan()).expect("within the limits");
    assert_eq!(part.open(&[key().verifying_key()], agent()), Ok(plan()));
    assert!(part.open(&[key().verifying_key()], AgentId::from_random([1; 16])).is_err());
    body(
        "document-v1",
        &DesiredDocumentV1 { agent: agent(), version: 9, issued: moment().wall, parts: vec![part] },
    );
    let order = |command| OrderV1 {
        id: OrderId::from_random([0x0d; 16]),
        issued: moment().wall,
        expires: Millis(moment().wall.0 + 60_000),
        by: "owner".into(),
        command,
    };
    body("order-v1-stop", &order(CommandV1::Stop { plan: plan().id, force: true }));
    body("order-v1-cancel", &order(CommandV1::Cancel { plan: plan().id }));
    body("order-v1-lease", &order(CommandV1::Lease { plan: plan().id, seq: 2 }));
    let set_point = CommandV1::SetPoint {
        plan: plan().id,
        seq: 2,
        target: watts(90_000.0),
        valid_until: Millis(1_795_000_060_000),
    };
    body("order-v1-set-point", &order(set_point));
    body("order-v1-watch", &order(CommandV1::Watch { cycle_s: 10, until: Millis(1_795_000_060_000) }));
}

#[test]
fn events() {
    event("event-started-v1", &EventV1::Started(AgentStartedV1 { version: "0.1.0".into(), clean: true }));
    event(
        "event-gap-v1",
        &EventV1::Gap(GapV1 {
            epoch: epoch(),
            cause: GapCauseV1::BurstLost,
            first_cycle: 7,
            last_cycle: 7,
            seqs: Some((41, 42)),
            polls: 300,
        }),
    );
    event(
        "event-miner-v1",
        &EventV1::Miner(MinerSeenV1 {
            miner: miner(1),
            firmware: Some("antminer-stock".into()),
            model: Some("Antminer S19j Pro".into()),
            version: None,
            serial: Some("SN1".into()),
            mac: Some("02:00:00:00:00:01".into()),
            weak_identity: false,
            rack: Some("R01".into()),
            position: Some("4".into()),
            customer: None,
            capabilities: CapabilitiesV1 { sleep: true, reboot: true, ..CapabilitiesV1::default() },
            standby: Watts::new(25.0),
            nameplate_power: Watts::new(3_050.0),
            nameplate_hashrate: Hashrate::from_terahash(100.0),
            restart: Some(DurationMs::from_minutes(8)),
            out_of_service: false,
            protected: true,
        }),
    );
    event("event-miner-gone-v1", &EventV1::MinerGone(MinerGoneV1 { miner: miner(1) }));
    let held = DocumentHeldV1 { version: 9, plans: vec![(plan().id, 3)] };
    event("event-document-v1", &EventV1::Document(held));
    let refused = PartRefusedV1 { version: 9, plan: Some(plan().id), part: 0, reason: "no".into() };
    event("event-refused-v1", &EventV1::Refused(refused));
    event(
        "event-dispatch-v1",
        &EventV1::Dispatch(DispatchStepV1 {
            dispatch: dispatch(),
            state: DispatchStateV1::Holding,
            target: watts(250_000.0),
            reached: watts(251_300.0),
            targets: 80,
            forced: false,
            why: "251.3 kW of 250.0 kW".into(),
        }),
    );
    event(
        "event-target-v1",
        &EventV1::Target(TargetStepV1 {
            dispatch: dispatch(),
            miner: miner(2),
            state: TargetStateV1::Curtailed,
            evidence: EvidenceV1 { accepted: FactV1::Yes, mode: FactV1::Unknown, effect: FactV1::Yes },
            power_before: Watts::new(3_250.0),
            power_now: Watts::new(25.0),
            hashrate_now: Hashrate::new(0.0),
            pre_state: Some(PreStateV1 {
                mode: ModeV1::HighEfficiency,
                vendor_mode: Some(2),
                limit: None,
                profile: None,
                config_hash: Some([0xc0; 32]),
            }),
            why: "36.2 J/TH".into(),
        }),
    );
    let result =
        OrderResultV1 { order: OrderId::from_random([0x0d; 16]), taken: false, reason: "late".into() };
    event("event-order-v1", &EventV1::Order(result));
    let ready = MinerReadyV1 {
        miner: miner(1),
        blockers: vec![],
        access: AccessV1::Proven,
        proven: Some(ProvenWriteV1 {
            at: Millis(1_794_900_000_000),
            wake: true,
            shape: Some("work-mode-integer".into()),
        }),
    };
    let blockers = vec![BlockerV1::Unreachable, BlockerV1::CredentialRefused];
    let blocked = MinerReadyV1 { miner: miner(2), blockers, access: AccessV1::Refused, proven: None };
    event("event-readiness-v1", &EventV1::Readiness(ReadinessV1 { miners: vec![ready, blocked] }));
    let alarm = AlarmV1 { kind: AlarmKindV1::Journal, miner: None, text: "the disk is full".into() };
    event("event-alarm-v1", &EventV1::Alarm(alarm));
    let changed = MinerChangedV1 {
        miner: miner(1),
        what: "reboot".into(),
        by: "li (uid 0)".into(),
        evidence: Some(EvidenceV1 {
            accepted: FactV1::Yes,
            mode: FactV1::NotApplicable,
            effect: FactV1::Unknown,
        }),
        detail: "accepted, after 1.2 s".into(),
    };
    event("event-changed-v1", &EventV1::Changed(changed));
    let raw = EventV1::MinerGone(MinerGoneV1 { miner: miner(1) }).raw(moment()).expect("small");
    body("events-v1", &EventsV1 { events: vec![raw] });
}

#[test]
fn recovery() {
    let held = HeldMinerV1 {
        miner: miner(1),
        plan: PlanId::from_random([0x9a; 16]),
        interval: 3,
        pre: PreStateV1 {
            mode: ModeV1::Normal,
            vendor_mode: Some(0),
            limit: Some(watts(3_250.0)),
            profile: Some("default".into()),
            config_hash: Some([0xc0; 32]),
        },
        power_before: Some(watts(3_240.0)),
    };
    body("held-miners-v1", &HeldMinersV1 { document: 7, miners: vec![held] });
}

#[test]
fn envelopes() {
    let up = seal_up(&key(), agent(), epoch(), Stream::Events, 7, b"\x01\x00").expect("small");
    golden("envelope-1-up", &up);
    let opened = Envelope::open(Topic::Up(agent(), Stream::Events), &up).expect("ours");
    assert_eq!(opened.verify_up(&key().verifying_key()), Ok(()));
    let down = seal_down(&key(), agent(), epoch(), Down::Ack, 0, b"\x01\x00").expect("small");
    golden("envelope-1-down", &down);
    let opened = Envelope::open(Topic::Down(agent(), Down::Ack), &down).expect("ours");
    assert_eq!(opened.verify_down(&[key().verifying_key()]), Ok(()));
}

/// What was frozen is read from the files alone, without the encoder.
#[test]
fn the_frozen_bytes_are_read() {
    let read = |name: &str| {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"));
        let text = std::fs::read_to_string(path).expect("the file is there");
        let bytes: Vec<u8> = text
            .trim()
            .as_bytes()
            .chunks(2)
            .map(|p| from_hex::<1>(std::str::from_utf8(p).expect("hex")).expect("hex")[0])
            .collect();
        bytes
    };
    let batch = TelemetryV1::decode(&read("telemetry-v1-key")).expect("frozen");
    assert_eq!(batch.samples(None), Ok(samples()));
    assert_eq!(PlanV1::decode(&read("plan-v1")), Ok(plan()));
}

/// A document that names 20,000 miners fits a downward envelope.
#[test]
fn the_largest_scope_fits() {
    let mut plan = plan();
    plan.scope = ScopeV1::Only(
        (0..20_000u32)
            .map(|n| {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&n.to_le_bytes());
                MinerId::from_random(bytes)
            })
            .collect(),
    );
    let part = SignedPartV1::plan(&key(), agent(), &plan).expect("within the limits");
    let document = DesiredDocumentV1 { agent: agent(), version: 1, issued: moment().wall, parts: vec![part] };
    let sealed =
        seal_down(&key(), agent(), epoch(), Down::Desired, 1, &document.encode().expect("few parts"));
    assert!(sealed.is_ok_and(|bytes| bytes.len() > 320_000));
}
