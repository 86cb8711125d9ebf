//! Who is taken and who isn't, by the preview.
#![allow(clippy::unwrap_used)]

use hashinsight_curtailment::*;
use hashinsight_protocol::clock::ClockStateV1;
use hashinsight_protocol::device::{FactV1, ModeV1, PowerSourceV1};
use hashinsight_protocol::ids::{BootId, MinerId, PlanId};
use hashinsight_protocol::plan::*;
use hashinsight_protocol::readiness::BlockerV1;
use hashinsight_protocol::units::{BootMillis, DurationMs, Hashrate, Millis, Watts};

const NOW: Now = Now {
    wall: Millis(1_800_000_000_000),
    boot: BootMillis(10_000_000),
    boot_id: BootId::from_bytes([1; 16]),
    clock: ClockStateV1::Synced,
};

fn watts(w: f64) -> Watts {
    Watts::new(w).unwrap()
}

fn id(n: usize) -> MinerId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
    MinerId::from_bytes(bytes)
}

fn miner(n: usize, power: f64, terahash: f64, standby: f64) -> Miner {
    Miner {
        id: id(n),
        can_sleep: true,
        blocker: None,
        reading: Some(MinerReading {
            at: NOW.wall,
            boot: BootMillis(NOW.boot.0 - 5_000),
            power: Watts::new(power),
            power_source: Some(PowerSourceV1::Device),
            hashrate: Hashrate::from_terahash(terahash),
            is_mining: Some(true),
            mode: Some(ModeV1::Normal),
            stopped: (FactV1::No, FactV1::No),
            running: (FactV1::Yes, FactV1::Yes),
        }),
        standby: watts(standby),
        locks: Locks::default(),
        identity: Identity::Strong,
        restart_time: DurationMs::from_secs(60),
    }
}

fn plan(goal: GoalV1, order: SelectionOrderV1) -> PlanV1 {
    PlanV1 {
        id: PlanId::from_bytes([1; 16]),
        revision: 1,
        scope: ScopeV1::AllExcept(vec![id(900)]),
        goal,
        order,
        level: LevelV1::Sleep,
        intervals: vec![IntervalV1 { number: 1, start: NOW.wall, end: None }],
        ramp_down: RampV1 { batch: 100, every: DurationMs::from_secs(10), jitter: DurationMs::ZERO },
        ramp_up: RampV1 { batch: 50, every: DurationMs::from_secs(30), jitter: DurationMs::ZERO },
        rules: RulesV1 {
            min_off: DurationMs::from_minutes(15),
            min_on: DurationMs::from_minutes(30),
            max_off: None,
            starts_a_day: Some(4),
        },
        precedence: PrecedenceV1::Market,
        on_lost_contact: LostContactV1::HoldToEnd,
        recovery: RecoveryV1::Automatic,
        uncertain_clock: UncertainClockV1::Start,
        force: false,
        reason: String::new(),
    }
}

fn reduce(target: f64) -> GoalV1 {
    GoalV1::ReduceBy { target: watts(target), reserve: Watts::ZERO }
}

/// 3,000 S19 Pro of 110 TH/s at 3,250 W and 3,000 S21 Pro of 234 TH/s at 3,510 W: 20.28 MW.
fn worked_site(standby: f64) -> Vec<Miner> {
    let old = (0..3000).map(|n| miner(2 * n, 3250.0, 110.0, standby));
    let new = (0..3000).map(|n| miner(2 * n + 1, 3510.0, 234.0, standby));
    old.chain(new).collect()
}

#[test]
fn five_megawatts_of_the_worked_site() {
    let plan = plan(reduce(5e6), SelectionOrderV1::LeastEfficientFirst);
    for (standby, units, megawatts) in [(0.0, 1539, 5.00175), (25.0, 1551, 5.001_975)] {
        let miners = worked_site(standby);
        let shown = preview(NOW, &Policy::default(), &plan, &miners, &Book::default());
        assert_eq!(shown.taken.len(), units);
        assert!((shown.reduces.get() / 1e6 - megawatts).abs() < 1e-9);
        assert!(shown.reaches_target);
        assert!(shown.taken.iter().all(|taken| taken.power == Some(watts(3250.0))));
        assert_eq!(shown.taken.len() + shown.skipped.len(), miners.len());
    }
    let shown = preview(NOW, &Policy::default(), &plan, &worked_site(0.0), &Book::default());
    assert!((shown.hashrate_lost.petahash() - 169.29).abs() < 1e-9);
    // 16 steps of 100: the last begins after 150 s.
    assert_eq!((shown.taken[1538].step, shown.ramp), (16, DurationMs::from_secs(150)));
}

#[test]
fn most_power_first_takes_the_fewest() {
    let plan = plan(reduce(5e6), SelectionOrderV1::MostPowerFirst);
    let shown = preview(NOW, &Policy::default(), &plan, &worked_site(0.0), &Book::default());
    assert_eq!(shown.taken.len(), 1425);
}

#[test]
fn the_preview_is_what_the_first_step_does() {
    let mut plan = plan(reduce(1e6), SelectionOrderV1::LeastEfficientFirst);
    plan.ramp_down.every = DurationMs::ZERO;
    let miners = worked_site(25.0);
    let shown = preview(NOW, &Policy::default(), &plan, &miners, &Book::default());
    let step = step(NOW, &Policy::default(), &[HeldPlan::new(plan)], &miners, &Book::default(), &[]);
    let mut taken: Vec<_> = shown.taken.iter().map(|taken| taken.miner).collect();
    taken.sort();
    assert_eq!(step.prepare, taken);
    assert!(step.writes.is_empty(), "nothing is written to before it was read");
}

/// A miner, a change of it, and why it isn't taken then.
type Case = (usize, fn(&mut Miner), SkipReason);

fn reading(miner: &mut Miner) -> &mut MinerReading {
    miner.reading.as_mut().unwrap()
}

#[test]
fn every_miner_that_is_skipped_has_its_reason() {
    let floor = Policy::default().candidate_floor;
    let cases: Vec<Case> = vec![
        (900, |_| {}, SkipReason::OutOfScope),
        (1, |m| m.locks.out_of_service = true, SkipReason::OutOfService),
        (2, |m| m.locks.protected = true, SkipReason::Protected),
        (3, |m| m.can_sleep = false, SkipReason::NoCapability),
        (4, |m| m.identity = Identity::Weak, SkipReason::WeakIdentity),
        (5, |m| m.reading = None, SkipReason::NoReading),
        (
            6,
            |m| reading(m).boot = BootMillis(NOW.boot.0 - 181_000),
            SkipReason::StaleReading { age: DurationMs::from_secs(181) },
        ),
        (7, |m| reading(m).mode = Some(ModeV1::Sleep), SkipReason::AsleepBefore),
        (8, |m| reading(m).stopped = (FactV1::Unknown, FactV1::Yes), SkipReason::AsleepBefore),
        (9, |m| reading(m).mode = Some(ModeV1::Failed), SkipReason::Failed),
        (10, |m| reading(m).power = None, SkipReason::PowerUnknown),
        (11, |m| reading(m).power = Watts::new(90.0), SkipReason::BelowFloor { saves: watts(90.0), floor }),
        (
            14,
            |m| m.blocker = Some(BlockerV1::CredentialRefused),
            SkipReason::NotReady { blocker: BlockerV1::CredentialRefused },
        ),
        (15, |m| (reading(m).power, reading(m).is_mining) = (None, Some(false)), SkipReason::AsleepBefore),
        (12, |_| {}, SkipReason::MinOn { left: DurationMs::from_minutes(20) }),
        (13, |_| {}, SkipReason::StartsADay { stops: 4 }),
    ];
    let steady = Steady(5_000_000_000);
    let mut book = Book::default();
    let wear = |n: usize, stops: usize, woken| {
        Change::Wear(WearRecord { miner: id(n), stops: vec![steady; stops], woken })
    };
    book.apply(&Change::Clock(ClockRecord {
        boot_id: NOW.boot_id,
        boot: NOW.boot,
        wall: NOW.wall,
        clock: NOW.clock,
        steady,
    }));
    book.apply(&wear(12, 1, Some(Steady(steady.0 - 600_000))));
    book.apply(&wear(13, 4, None));
    let miners: Vec<Miner> = cases
        .iter()
        .map(|(n, change, _)| {
            let mut miner = miner(*n, 3000.0, 100.0, 0.0);
            change(&mut miner);
            miner
        })
        .collect();
    let greedy = plan(reduce(1e9), SelectionOrderV1::LeastEfficientFirst);
    let shown = preview(NOW, &Policy::default(), &greedy, &miners, &book);
    assert_eq!(shown.taken, []);
    for (n, _, reason) in &cases {
        let found: Vec<_> = shown.skipped.iter().filter(|skip| skip.miner == id(*n)).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].reason, *reason, "miner {n}");
    }
    // "All" needs no watts and no floor; a grid emergency breaks dwell times.
    let all = PlanV1 { precedence: PrecedenceV1::GridEmergency, goal: GoalV1::All, ..greedy };
    let shown = preview(NOW, &Policy::default(), &all, &miners, &book);
    let mut taken: Vec<_> = shown.taken.iter().map(|taken| taken.miner).collect();
    taken.sort();
    // One that only seems to sleep is stopped too: it may begin to hash in the midst of it.
    assert_eq!(taken, [10, 11, 12, 13, 15].map(id));
    let late = shown.taken.last().unwrap();
    assert!(late.why.contains("although"), "{}", late.why);
}

#[test]
fn a_book_survives_its_serialisation() {
    let plan = plan(reduce(1e5), SelectionOrderV1::LeastEfficientFirst);
    let miners = worked_site(25.0);
    let step = step(NOW, &Policy::default(), &[HeldPlan::new(plan)], &miners, &Book::default(), &[]);
    let book = Book::from(step.changes.clone());
    let text = serde_json::to_string(&book).unwrap();
    assert_eq!(serde_json::from_str::<Book>(&text).unwrap(), book);
    let mut rows: Vec<_> = step.changes.iter().map(Change::row).collect();
    rows.sort();
    rows.dedup();
    assert_eq!(rows.len(), Vec::<Change>::from(book).len(), "a row a record");
}
