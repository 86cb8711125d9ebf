//! Random sites, plans and troubles.

use super::BASE;
use super::device::{ASLEEP, EFFICIENT, Kind, NORMAL, Spec};
use hashinsight_protocol::ids::{MinerId, PlanId};
use hashinsight_protocol::plan::*;
use hashinsight_protocol::units::{DurationMs, Millis, Watts};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub struct PlanSpec {
    pub plan: PlanV1,
    /// Second, and whether with force.
    pub stop: Option<(u64, bool)>,
    pub removed: Option<u64>,
}

#[derive(Clone, Debug)]
pub enum Fault {
    /// Shares of 255 of the changes that are stored, and of the writes that go out.
    Crash {
        changes: u8,
        writes: u8,
    },
    Reboot {
        down: u64,
        sync_after: Option<u64>,
        wall_error: i64,
    },
    /// The wall clock is off and known to be uncertain.
    Jump {
        by: i64,
        back_after: u64,
    },
    /// The wall clock is off and nobody knows.
    SureJump {
        by: i64,
        back_after: u64,
    },
    Contact(bool),
    OutOfService(usize, bool),
    OperatorSleeps(usize),
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub devices: Vec<Spec>,
    pub plans: Vec<PlanSpec>,
    pub faults: Vec<(u64, Fault)>,
}

pub fn miner_id(at: usize) -> MinerId {
    let mut bytes = [0; 16];
    bytes[14] = (at / 256) as u8;
    bytes[15] = (at % 256) as u8;
    MinerId::from_bytes(bytes)
}

pub fn spec() -> impl Strategy<Value = Spec> {
    let kind = prop_oneof![
        8 => Just(Kind::Obeys),
        1 => Just(Kind::Ignores),
        1 => Just(Kind::Lies),
        1 => Just(Kind::Refuses),
        2 => Just(Kind::Late),
        1 => Just(Kind::Loses),
        1 => (1u8..6).prop_map(Kind::HardToWake),
        1 => (100u64..1600).prop_map(Kind::Guarded),
    ];
    let setting = prop_oneof![6 => Just(NORMAL), 2 => Just(EFFICIENT), 1 => Just(ASLEEP)];
    let odd = |weight: u32| prop::bool::weighted(1.0 / f64::from(weight));
    let silent = (0u64..1600, 4u64..400).prop_map(|(from, long)| (from, from + long));
    (
        (kind, setting, odd(15), 900.0..4000.0, 40.0..300.0),
        (0u64..20, prop::option::weighted(0.2, 100u64..1600), prop::option::weighted(0.2, silent)),
        (prop::bool::weighted(0.7), odd(15), odd(15)),
    )
        .prop_map(
            |(
                (kind, setting, failed, power, terahash),
                (delay, wakes_at, silent),
                (tells, weak, protected),
            )| {
                let power = f64::round(power);
                // One that is asleep can't have failed as well.
                let failed = failed && setting != ASLEEP;
                Spec {
                    kind,
                    setting,
                    failed,
                    power,
                    terahash,
                    delay,
                    wakes_at,
                    silent,
                    tells_mode: tells,
                    weak,
                    protected,
                }
            },
        )
}

fn ramp() -> impl Strategy<Value = RampV1> {
    (1u16..8, prop_oneof![Just(0u64), 2u64..60], 0u64..10).prop_map(|(batch, every, jitter)| RampV1 {
        batch,
        every: DurationMs::from_secs(every),
        jitter: DurationMs::from_secs(jitter),
    })
}

fn goal() -> impl Strategy<Value = GoalV1> {
    let watts = |w: f64| Watts::new(w).unwrap();
    prop_oneof![
        4 => (500.0..30_000.0, 0.0..5000.0)
            .prop_map(move |(t, r)| GoalV1::ReduceBy { target: watts(t), reserve: watts(r) }),
        2 => (0.0..30_000.0).prop_map(move |w| GoalV1::CapAt(watts(w))),
        1 => (0u32..12).prop_map(GoalV1::Count),
        2 => Just(GoalV1::All),
    ]
}

fn rules() -> impl Strategy<Value = RulesV1> {
    (
        prop_oneof![Just(0u64), 1u64..400],
        prop_oneof![Just(0u64), 1u64..400],
        prop::option::weighted(0.2, 60u64..600),
        prop::option::weighted(0.4, 1u16..5),
    )
        .prop_map(|(off, on, max, starts)| RulesV1 {
            min_off: DurationMs::from_secs(off),
            min_on: DurationMs::from_secs(on),
            max_off: max.map(DurationMs::from_secs),
            starts_a_day: starts,
        })
}

fn intervals() -> impl Strategy<Value = Vec<IntervalV1>> {
    (prop::collection::vec((0u64..400, 30u64..700), 1..4), prop::bool::weighted(0.1)).prop_map(
        |(parts, open)| {
            let mut at = 0;
            let mut out = Vec::new();
            for (number, (gap, length)) in parts.iter().enumerate() {
                let start = at + gap;
                at = start + length;
                out.push(IntervalV1 {
                    number: number as u32,
                    start: Millis(BASE + start as i64 * 1000),
                    end: Some(Millis(BASE + at as i64 * 1000)),
                });
            }
            if open && let Some(last) = out.last_mut() {
                last.end = None;
            }
            out
        },
    )
}

pub fn plan(number: u8, miners: usize) -> impl Strategy<Value = PlanSpec> {
    let scope = (prop::collection::vec(0..miners, 0..4), prop::bool::ANY).prop_map(move |(named, except)| {
        let named: Vec<MinerId> = named.into_iter().map(miner_id).collect();
        // A scope that names few miners would test little.
        let rest = (0..miners).map(miner_id).filter(|miner| !named.contains(miner)).collect();
        if except { ScopeV1::AllExcept(named) } else { ScopeV1::Only(rest) }
    });
    let order =
        prop_oneof![Just(SelectionOrderV1::LeastEfficientFirst), Just(SelectionOrderV1::MostPowerFirst)];
    let precedence = prop_oneof![
        Just(PrecedenceV1::Default),
        Just(PrecedenceV1::Market),
        Just(PrecedenceV1::Grid),
        Just(PrecedenceV1::GridEmergency),
    ];
    let lost = prop_oneof![
        3 => Just(LostContactV1::HoldToEnd),
        1 => (20u64..200).prop_map(|s| LostContactV1::ReleaseAfter(DurationMs::from_secs(s))),
    ];
    let recovery = prop_oneof![5 => Just(RecoveryV1::Automatic), 1 => Just(RecoveryV1::ByHand)];
    let uncertain = prop_oneof![Just(UncertainClockV1::Start), Just(UncertainClockV1::Wait)];
    (
        (scope, goal(), order, intervals(), ramp(), ramp(), rules()),
        (precedence, lost, recovery, uncertain, prop::bool::weighted(0.1)),
        (
            prop::option::weighted(0.3, (0u64..1700, prop::bool::ANY)),
            prop::option::weighted(0.15, 0u64..1700),
        ),
    )
        .prop_map(move |(a, b, (stop, removed))| {
            let (scope, goal, order, intervals, ramp_down, ramp_up, rules) = a;
            let (precedence, on_lost_contact, recovery, uncertain_clock, force) = b;
            let plan = PlanV1 {
                id: PlanId::from_bytes([number; 16]),
                revision: 1,
                scope,
                goal,
                order,
                level: LevelV1::Sleep,
                intervals,
                ramp_down,
                ramp_up,
                rules,
                precedence,
                on_lost_contact,
                recovery,
                uncertain_clock,
                force,
                reason: String::new(),
            };
            PlanSpec { plan, stop, removed }
        })
}

fn fault() -> impl Strategy<Value = Fault> {
    let reboot = (10u64..600, prop::option::of(5u64..300), -4000i64..4000)
        .prop_map(|(down, sync_after, wall_error)| Fault::Reboot { down, sync_after, wall_error });
    let jump = (-4000i64..4000, 10u64..300);
    prop_oneof![
        6 => (any::<u8>(), any::<u8>()).prop_map(|(changes, writes)| Fault::Crash { changes, writes }),
        // All stored, some sent: the worst moment.
        4 => any::<u8>().prop_map(|writes| Fault::Crash { changes: 255, writes }),
        1 => reboot,
        1 => jump.clone().prop_map(|(by, back_after)| Fault::Jump { by, back_after }),
        1 => jump.prop_map(|(by, back_after)| Fault::SureJump { by, back_after }),
        2 => any::<bool>().prop_map(Fault::Contact),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(at, on)| Fault::OutOfService(at, on)),
        1 => any::<usize>().prop_map(Fault::OperatorSleeps),
    ]
}

pub fn scenario() -> impl Strategy<Value = Scenario> {
    (3usize..14).prop_flat_map(|miners| {
        let devices = prop::collection::vec(spec(), miners);
        let plans = (1usize..4)
            .prop_flat_map(move |count| (0..count).map(|n| plan(n as u8 + 1, miners)).collect::<Vec<_>>());
        let faults = prop::collection::vec((0u64..1700, fault()), 0..12);
        (devices, plans, faults).prop_map(|(devices, plans, faults)| Scenario { devices, plans, faults })
    })
}
