//! Prints how long it takes to choose among 20,000 miners, and a step with all of them held.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use hashinsight_curtailment::*;
use hashinsight_protocol::clock::ClockStateV1;
use hashinsight_protocol::device::{FactV1, ModeV1, PowerSourceV1, PreStateV1};
use hashinsight_protocol::ids::{BootId, MinerId, PlanId};
use hashinsight_protocol::plan::*;
use hashinsight_protocol::units::{BootMillis, DurationMs, Hashrate, Millis, Watts};
use std::time::Instant;

fn main() {
    let count = 20_000u64;
    let at = |boot: u64| Now {
        wall: Millis(1_800_000_000_000 + boot as i64),
        boot: BootMillis(boot),
        boot_id: BootId::from_bytes([1; 16]),
        clock: ClockStateV1::Synced,
    };
    let miners_at = |boot: u64, asleep: bool| -> Vec<Miner> {
        (0..count)
            .map(|n| {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
                let spread = (n * 7919 % 1000) as f64;
                let fact = |yes: bool| if yes { FactV1::Yes } else { FactV1::No };
                Miner {
                    id: MinerId::from_bytes(id),
                    can_sleep: true,
                    blocker: None,
                    reading: Some(MinerReading {
                        at: Millis(0),
                        boot: BootMillis(boot),
                        power: Watts::new(if asleep { 15.0 } else { 3000.0 + spread }),
                        power_source: Some(PowerSourceV1::Device),
                        hashrate: Hashrate::from_terahash(if asleep { 0.0 } else { 100.0 + spread / 7.0 }),
                        is_mining: Some(!asleep),
                        mode: Some(if asleep { ModeV1::Sleep } else { ModeV1::Normal }),
                        stopped: (fact(asleep), fact(asleep)),
                        running: (fact(!asleep), fact(!asleep)),
                    }),
                    standby: Watts::new(15.0).unwrap(),
                    locks: Locks::default(),
                    identity: Identity::Strong,
                    restart_time: DurationMs::from_secs(300),
                }
            })
            .collect()
    };
    let free = RampV1 { batch: 1, every: DurationMs::ZERO, jitter: DurationMs::ZERO };
    let plan = PlanV1 {
        id: PlanId::from_bytes([1; 16]),
        revision: 1,
        scope: ScopeV1::AllExcept(Vec::new()),
        goal: GoalV1::ReduceBy { target: Watts::new(50e6).unwrap(), reserve: Watts::ZERO },
        order: SelectionOrderV1::LeastEfficientFirst,
        level: LevelV1::Sleep,
        intervals: vec![IntervalV1 { number: 1, start: Millis(1_800_000_000_000), end: None }],
        ramp_down: free,
        ramp_up: free,
        rules: RulesV1 {
            min_off: DurationMs::ZERO,
            min_on: DurationMs::ZERO,
            max_off: None,
            starts_a_day: None,
        },
        precedence: PrecedenceV1::Market,
        on_lost_contact: LostContactV1::HoldToEnd,
        recovery: RecoveryV1::Automatic,
        uncertain_clock: UncertainClockV1::Start,
        force: false,
        reason: String::new(),
    };
    let policy = Policy::default();
    let miners = miners_at(10_000, false);
    let timed = |what: &str, run: &mut dyn FnMut() -> usize| {
        let start = Instant::now();
        let n = run();
        println!("{what}: {n} in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    };
    for _ in 0..3 {
        let mut run = || preview(at(10_000), &policy, &plan, &miners, &Book::default()).taken.len();
        timed("preview, miners taken", &mut run);
    }
    let held = [HeldPlan::new(PlanV1 { goal: GoalV1::All, ..plan.clone() })];
    let mut book = Book::default();
    let mut seen = Vec::new();
    for (what, boot, asleep) in [
        ("first step, reads asked", 10_000, false),
        ("all read, writes asked", 11_000, false),
        ("all written", 12_000, false),
        ("all curtailed", 20_000, true),
        ("nothing new", 21_000, true),
    ] {
        let miners = miners_at(boot, asleep);
        let mut last = Step::default();
        timed(what, &mut || {
            last = step(at(boot), &policy, &held, &miners, &book, &seen);
            last.prepare.len() + last.writes.len() + last.events.len()
        });
        for change in &last.changes {
            book.apply(change);
        }
        let pre = PreStateV1 {
            mode: ModeV1::Normal,
            vendor_mode: Some(0),
            limit: None,
            profile: None,
            config_hash: None,
        };
        seen = last
            .prepare
            .iter()
            .map(|miner| Observation::Prepared { miner: *miner, pre: pre.clone(), at: BootMillis(boot + 1) })
            .chain(last.writes.iter().map(|write| Observation::Written {
                miner: write.miner(),
                wake: false,
                accepted: FactV1::Yes,
                mode: FactV1::Yes,
                detail: String::new(),
            }))
            .collect();
    }
}
