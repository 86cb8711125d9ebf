//! Single situations, each with what has to come of it.
#![allow(clippy::unwrap_used)]

mod sim;

use hashinsight_curtailment::*;
use hashinsight_protocol::evidence::{DispatchStateV1, TargetStateV1};
use hashinsight_protocol::ids::PlanId;
use hashinsight_protocol::plan::*;
use hashinsight_protocol::recovery::HeldMinerV1;
use hashinsight_protocol::units::{DurationMs, Millis, Watts};
use sim::device::{ASLEEP, EFFICIENT, Kind, NORMAL, Spec};
use sim::scenario::{Fault, PlanSpec, Scenario, miner_id};
use sim::{BASE, World};

fn watts(w: f64) -> Watts {
    Watts::new(w).unwrap()
}

/// A miner of 3,000 W and ever better J/TH.
fn good(at: usize) -> Spec {
    Spec {
        kind: Kind::Obeys,
        setting: NORMAL,
        failed: false,
        power: 3000.0,
        terahash: 100.0 + at as f64,
        delay: 0,
        wakes_at: None,
        silent: None,
        tells_mode: true,
        weak: false,
        protected: false,
    }
}

/// From second 10 to 600, without ramps and rules.
fn plan(number: u8, goal: GoalV1) -> PlanV1 {
    let free = RampV1 { batch: 1, every: DurationMs::ZERO, jitter: DurationMs::ZERO };
    PlanV1 {
        id: PlanId::from_bytes([number; 16]),
        revision: 1,
        scope: ScopeV1::AllExcept(Vec::new()),
        goal,
        order: SelectionOrderV1::LeastEfficientFirst,
        level: LevelV1::Sleep,
        intervals: vec![interval(0, 10, Some(600))],
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
        reason: "a test".to_owned(),
    }
}

fn interval(number: u32, from: i64, to: Option<i64>) -> IntervalV1 {
    let at = |second: i64| Millis(BASE + second * 1000);
    IntervalV1 { number, start: at(from), end: to.map(at) }
}

fn reduce(kilowatts: f64, reserve: f64) -> GoalV1 {
    GoalV1::ReduceBy { target: watts(kilowatts * 1e3), reserve: watts(reserve * 1e3) }
}

fn world(devices: Vec<Spec>, plans: Vec<PlanV1>) -> World {
    let plans = plans.into_iter().map(|plan| PlanSpec { plan, stop: None, removed: None }).collect();
    World::new(Scenario { devices, plans, faults: Vec::new() })
}

fn key(plan: u8, interval: u32) -> DispatchKey {
    DispatchKey { plan: PlanId::from_bytes([plan; 16]), interval }
}

/// Miners of a dispatch that it wants asleep and that are.
fn asleep(world: &World) -> Vec<usize> {
    (0..world.devices.len()).filter(|at| world.devices[*at].power() < 100.0).collect()
}

fn state(world: &World, plan: u8) -> DispatchStateV1 {
    world.book.dispatches[&key(plan, 0)].state
}

/// The last dispatch step of a plan with its second.
fn last(world: &World, plan: u8) -> (u64, hashinsight_protocol::evidence::DispatchStepV1) {
    let of = |event: &(u64, Event)| match event {
        (second, Event::Dispatch(step)) if step.dispatch.plan == PlanId::from_bytes([plan; 16]) => {
            Some((*second, step.clone()))
        }
        _ => None,
    };
    world.events.iter().rev().find_map(of).expect("a step of the plan was reported")
}

fn states(world: &World, at: usize) -> Vec<TargetStateV1> {
    let of = |event: &(u64, Event)| match event {
        (_, Event::Target(step)) if step.miner == miner_id(at) => Some(step.state),
        _ => None,
    };
    let mut states: Vec<_> = world.events.iter().filter_map(of).collect();
    states.dedup();
    states
}

fn ends_clean(world: World) -> World {
    let world = world.run();
    assert!(world.violations.is_empty(), "{:#?}\n{}", world.violations, world.log.join("\n"));
    world
}

#[test]
fn the_least_efficient_are_stopped_held_and_woken() {
    let mut w = world((0..10).map(good).collect(), vec![plan(1, reduce(8.9, 0.0))]);
    w.run_to(30);
    assert_eq!(asleep(&w), [0, 1, 2]);
    assert_eq!(state(&w, 1), DispatchStateV1::Holding);
    let (_, step) = last(&w, 1);
    assert_eq!((step.reached, step.targets), (watts(3.0 * 2985.0), 3));
    w.run_to(640);
    assert_eq!(asleep(&w), [0usize; 0]);
    assert_eq!(state(&w, 1), DispatchStateV1::Completed);
    use TargetStateV1::*;
    assert_eq!(states(&w, 0), [Planned, Stopping, Curtailed, Waking, Restored]);
    ends_clean(w);
}

#[test]
fn shortfall_is_topped_up_from_the_next_in_order() {
    let mut devices: Vec<_> = (0..10).map(good).collect();
    devices[0].kind = Kind::Refuses;
    devices[1].kind = Kind::Lies;
    let mut w = world(devices, vec![plan(1, reduce(8.9, 0.0))]);
    w.run_to(300);
    assert_eq!(asleep(&w), [2, 3, 4]);
    assert!(states(&w, 0).contains(&TargetStateV1::Refused));
    ends_clean(w);
}

#[test]
fn top_up_for_what_may_be_asleep_stays_within_the_reserve() {
    let silent = |reserve: f64| {
        let mut devices: Vec<_> = (0..10).map(good).collect();
        devices[0].silent = Some((20, 500));
        let mut w = world(devices, vec![plan(1, reduce(8.9, reserve))]);
        w.run_to(200);
        let count = asleep(&w).len();
        ends_clean(w);
        count
    };
    assert_eq!(silent(0.0), 3, "the silent one may be asleep; there is no reserve for another");
    assert_eq!(silent(3.1), 4);
}

#[test]
fn a_stop_by_hand_wakes_in_the_next_step_by_its_ramp() {
    let mut stopped = plan(1, GoalV1::All);
    stopped.ramp_up = RampV1 { batch: 3, every: DurationMs::from_secs(20), jitter: DurationMs::ZERO };
    let mut w = world((0..10).map(good).collect(), vec![stopped]);
    w.edit = Some(Box::new(|held, second| {
        if second >= 100 {
            held.stop = Some(StopOrder { force: false, by: "ann".to_owned(), at: Millis(0) });
        }
    }));
    w.run_to(100);
    assert_eq!(asleep(&w).len(), 10);
    let waking = |w: &World| w.book.holds.values().filter(|hold| hold.phase == Phase::Waking).count();
    assert_eq!(waking(&w), 3);
    w.run_to(110);
    // The most efficient first: the order of stopping backwards.
    assert_eq!(asleep(&w), [0, 1, 2, 3, 4, 5, 6]);
    w.run_to(130);
    assert_eq!(asleep(&w), [0, 1, 2, 3]);
    ends_clean(w);
}

#[test]
fn the_shortest_time_asleep_holds_a_stop_back_unless_forced() {
    let with = |force: bool| {
        let mut dwells = plan(1, GoalV1::All);
        dwells.rules.min_off = DurationMs::from_secs(300);
        let mut w = world((0..4).map(good).collect(), vec![dwells]);
        w.edit = Some(Box::new(move |held, second| {
            if second >= 100 {
                held.stop = Some(StopOrder { force, by: "ann".to_owned(), at: Millis(0) });
            }
        }));
        w.run_to(120);
        let result = (asleep(&w).len(), last(&w, 1).1.forced);
        w.run_to(330);
        assert_eq!(asleep(&w).len(), 0);
        ends_clean(w);
        result
    };
    assert_eq!(with(false), (4, false));
    assert_eq!(with(true), (0, true));
}

#[test]
fn cancelled_before_its_start() {
    let mut w = world((0..4).map(good).collect(), vec![plan(1, GoalV1::All)]);
    w.edit = Some(Box::new(|held, _| held.cancelled = true));
    w.run_to(60);
    let w = ends_clean(w);
    assert_eq!(last(&w, 1).1.state, DispatchStateV1::Cancelled);
    assert_eq!(w.counts.stops, 0);
}

#[test]
fn expired_before_it_could_start() {
    let mut late = plan(1, GoalV1::All);
    late.intervals = vec![interval(0, -500, Some(-100))];
    let w = ends_clean(world((0..4).map(good).collect(), vec![late]));
    assert_eq!(last(&w, 1).1.state, DispatchStateV1::Expired);
    assert_eq!(w.counts.stops, 0);
}

#[test]
fn a_lease_that_runs_out_releases() {
    let mut leased = plan(1, GoalV1::All);
    leased.on_lost_contact = LostContactV1::ReleaseAfter(DurationMs::from_secs(60));
    let held = plan(2, reduce(2.0, 0.0));
    let faults = vec![(100, Fault::Contact(false))];
    let plans = [leased, held].map(|plan| PlanSpec { plan, stop: None, removed: None }).to_vec();
    let mut w = World::new(Scenario { devices: (0..4).map(good).collect(), plans, faults });
    w.run_to(158);
    assert_eq!(asleep(&w).len(), 4);
    w.run_to(180);
    // The other plan holds without contact, and keeps the one that both held.
    assert_eq!(asleep(&w).len(), 1);
    assert_eq!(w.book.dispatches[&key(1, 0)].ending, Some(Ending::LeaseOut));
    ends_clean(w);
}

#[test]
fn an_uncertain_clock_starts_or_waits_as_the_plan_says() {
    let mut waits = plan(1, GoalV1::Count(1));
    waits.uncertain_clock = UncertainClockV1::Wait;
    let starts = plan(2, GoalV1::Count(1));
    let plans = [waits, starts].map(|plan| PlanSpec { plan, stop: None, removed: None }).to_vec();
    let faults = vec![(4, Fault::Jump { by: 0, back_after: 100 })];
    let mut w = World::new(Scenario { devices: (0..4).map(good).collect(), plans, faults });
    w.run_to(90);
    assert_eq!(asleep(&w).len(), 1);
    w.run_to(120);
    assert_eq!(asleep(&w).len(), 2);
    ends_clean(w);
}

#[test]
fn a_miner_of_two_plans_wakes_when_neither_holds_it() {
    let mut long = plan(1, GoalV1::All);
    long.intervals = vec![interval(0, 10, Some(900))];
    let mut w = world((0..4).map(good).collect(), vec![long, plan(2, GoalV1::All)]);
    w.run_to(640);
    assert_eq!(state(&w, 2), DispatchStateV1::Completed);
    assert_eq!(asleep(&w).len(), 4);
    w.run_to(940);
    assert_eq!(asleep(&w).len(), 0);
    let w = ends_clean(w);
    assert_eq!(w.counts.stops, 4, "nobody is stopped twice");
}

#[test]
fn back_to_back_intervals_keep_their_miners_asleep() {
    let mut twice = plan(1, reduce(8.9, 0.0));
    twice.intervals = vec![interval(0, 10, Some(300)), interval(1, 300, Some(600))];
    twice.ramp_up = RampV1 { batch: 1, every: DurationMs::from_secs(30), jitter: DurationMs::ZERO };
    let mut w = world((0..10).map(good).collect(), vec![twice]);
    w.run_to(330);
    assert_eq!(asleep(&w), [0, 1, 2]);
    let w = ends_clean(w);
    assert_eq!((w.counts.stops, w.counts.wakes), (3, 3));
}

#[test]
fn what_was_off_or_efficient_before_is_so_after() {
    let mut devices: Vec<_> = (0..6).map(good).collect();
    devices[0].setting = ASLEEP;
    devices[1].setting = EFFICIENT;
    devices[2].failed = true;
    let mut w = world(devices, vec![plan(1, GoalV1::All)]);
    w.run_to(60);
    assert_eq!(asleep(&w).len(), 6);
    let w = ends_clean(w);
    assert_eq!(w.counts.stops, 4);
    assert_eq!((w.devices[0].setting, w.devices[1].setting), (ASLEEP, EFFICIENT));
}

#[test]
fn a_miner_that_wakes_by_itself_is_stopped_again() {
    let mut devices: Vec<_> = (0..4).map(good).collect();
    devices[0].wakes_at = Some(100);
    devices[0].setting = EFFICIENT;
    let mut w = world(devices, vec![plan(1, GoalV1::Count(1))]);
    w.run_to(140);
    assert_eq!(asleep(&w), [0]);
    use TargetStateV1::*;
    assert_eq!(states(&w, 0), [Planned, Stopping, Curtailed, Drifted, Curtailed]);
    let w = ends_clean(w);
    assert_eq!(w.devices[0].setting, EFFICIENT);
}

#[test]
fn what_will_not_wake_is_seen_and_tried_on() {
    let mut devices: Vec<_> = (0..3).map(good).collect();
    devices[1].kind = Kind::HardToWake(6);
    let mut w = world(devices, vec![plan(1, GoalV1::All)]);
    w.run_to(1100);
    assert_eq!(state(&w, 1), DispatchStateV1::CompletedWithFailures);
    assert!(states(&w, 1).contains(&TargetStateV1::RestoreFailed));
    let w = ends_clean(w);
    assert_eq!(state(&w, 1), DispatchStateV1::Completed);
}

#[test]
fn a_guard_that_puts_a_wake_up_off_is_asked_again_soon() {
    let mut devices: Vec<_> = (0..3).map(good).collect();
    devices[1].kind = Kind::Guarded(700);
    let w = ends_clean(world(devices, vec![plan(1, GoalV1::All)]));
    assert_eq!(state(&w, 1), DispatchStateV1::Completed);
    // Not after the time that a wake-up which was taken is given: nothing was written.
    let late = w.devices[1].wakes[0] - 700_000;
    assert!(late <= 70_000, "woken {late} ms after its guard had gone");
}

#[test]
fn a_released_miner_is_left_asleep_and_listed() {
    let mut w = world((0..3).map(good).collect(), vec![plan(1, GoalV1::All)]);
    w.edit = Some(Box::new(|held, second| {
        if second >= 100 {
            held.released = vec![miner_id(1)];
        }
    }));
    w.run_to(700);
    assert_eq!(asleep(&w), [1]);
    assert_eq!(states(&w, 1).last(), Some(&TargetStateV1::Released));
    assert!(w.book.holds.is_empty());
    assert_eq!(w.devices[1].wakes.len(), 0);
}

#[test]
fn by_hand_stays_asleep_until_somebody_stops_it() {
    let mut by_hand = plan(1, GoalV1::All);
    by_hand.recovery = RecoveryV1::ByHand;
    let mut w = world((0..3).map(good).collect(), vec![by_hand]);
    w.edit = Some(Box::new(|held, second| {
        if second >= 800 {
            held.stop = Some(StopOrder { force: false, by: "ann".to_owned(), at: Millis(0) });
        }
    }));
    w.run_to(798);
    assert_eq!((asleep(&w).len(), state(&w, 1)), (3, DispatchStateV1::Holding));
    w.run_to(820);
    assert_eq!(asleep(&w).len(), 0);
    ends_clean(w);
}

#[test]
fn the_longest_time_asleep_rotates_miners() {
    let mut limited = plan(1, GoalV1::Count(2));
    limited.rules.max_off = Some(DurationMs::from_secs(120));
    let mut w = world((0..6).map(good).collect(), vec![limited]);
    w.run_to(100);
    assert_eq!(asleep(&w), [0, 1]);
    w.run_to(180);
    assert_eq!(asleep(&w), [2, 3]);
    ends_clean(w);
}

#[test]
fn a_cap_is_kept_and_lifted_by_a_revision() {
    let mut w = world((0..10).map(good).collect(), vec![plan(1, GoalV1::CapAt(watts(20_000.0)))]);
    w.edit = Some(Box::new(|held, second| {
        if second >= 200 {
            held.plan.revision = 2;
            held.plan.goal = GoalV1::CapAt(watts(27_000.0));
        }
    }));
    w.run_to(60);
    // Seven run at 3,000 W were 21 kW, six and four on standby are 18.06.
    assert_eq!(asleep(&w), [0, 1, 2, 3]);
    w.run_to(260);
    // Within 5 % below the new cap nothing more is woken.
    assert_eq!(asleep(&w), [0, 1]);
    ends_clean(w);
}

#[test]
fn a_lowered_goal_wakes_the_last_that_were_stopped() {
    let mut w = world((0..10).map(good).collect(), vec![plan(1, reduce(14.9, 0.0))]);
    w.edit = Some(Box::new(|held, second| {
        if second >= 200 {
            held.plan.revision = 2;
            held.plan.goal = reduce(5.9, 0.0);
        }
    }));
    w.run_to(60);
    assert_eq!(asleep(&w), [0, 1, 2, 3, 4]);
    w.run_to(260);
    assert_eq!(asleep(&w), [0, 1]);
    ends_clean(w);
}

#[test]
fn a_withdrawn_plan_is_a_stopped_one() {
    let plans = vec![PlanSpec { plan: plan(1, GoalV1::All), stop: None, removed: Some(100) }];
    let mut w = World::new(Scenario { devices: (0..3).map(good).collect(), plans, faults: Vec::new() });
    w.run_to(120);
    assert_eq!(asleep(&w).len(), 0);
    assert_eq!(w.book.dispatches[&key(1, 0)].ending, Some(Ending::Removed));
    ends_clean(w);
}

#[test]
fn holds_whose_dispatch_is_lost_are_woken() {
    let mut w = world((0..3).map(good).collect(), vec![plan(1, GoalV1::All)]);
    w.run_to(60);
    let changes: Vec<Change> = w.book.clone().into();
    w.book = changes
        .into_iter()
        .filter(|c| matches!(c, Change::Hold(_) | Change::Clock(_)))
        .collect::<Vec<_>>()
        .into();
    w.edit = Some(Box::new(|held, _| held.cancelled = true));
    w.run_to(120);
    assert_eq!(asleep(&w).len(), 0);
    assert!(w.book.holds.is_empty());
}

/// Loses the journal, and is told by the control plane what it held.
fn lose_the_journal(w: &mut World) {
    let holds: Vec<_> = w.book.holds.values().cloned().collect();
    w.book = Book::default();
    w.outcomes.extend(holds.iter().map(|hold| {
        let held = HeldMinerV1 {
            miner: hold.miner,
            plan: hold.owner.plan,
            interval: hold.owner.interval,
            pre: hold.pre.clone(),
            power_before: hold.power_before,
        };
        (0, Observation::HeldBefore(held))
    }));
}

#[test]
fn what_a_lost_journal_held_goes_on_with_its_plan_and_is_woken_at_its_end() {
    let mut w = world((0..10).map(good).collect(), vec![plan(1, reduce(8.9, 0.0))]);
    w.run_to(60);
    assert_eq!(asleep(&w), [0, 1, 2]);
    lose_the_journal(&mut w);
    w.run_to(120);
    assert_eq!(asleep(&w), [0, 1, 2], "no other is stopped for them, none is woken early");
    let (_, step) = last(&w, 1);
    assert_eq!((step.reached, step.targets), (watts(3.0 * 2985.0), 3));
    assert!(w.devices.iter().all(|device| device.stops.len() <= 1), "none is stopped again");
    w.run_to(660);
    assert_eq!(asleep(&w), [0usize; 0]);
    assert!(w.devices.iter().all(|device| device.setting == NORMAL));
    assert!(w.book.holds.is_empty());
}

#[test]
fn what_a_lost_journal_held_for_a_plan_that_is_over_is_woken() {
    let mut w = world((0..4).map(good).collect(), vec![plan(1, GoalV1::All)]);
    w.run_to(60);
    lose_the_journal(&mut w);
    w.edit = Some(Box::new(|held, _| held.cancelled = true));
    w.run_to(120);
    assert_eq!(asleep(&w), [0usize; 0]);
    assert!(w.book.holds.is_empty());
}

#[test]
fn a_thousand_miners_without_a_ramp_are_written_to_in_one_step() {
    let mut w = world((0..1000).map(good).collect(), vec![plan(1, GoalV1::All)]);
    w.run_to(12);
    assert_eq!(w.devices.iter().filter(|device| device.stops.len() == 1).count(), 1000);
}

#[test]
fn the_ramp_down_takes_a_batch_a_step() {
    let mut ramped = plan(1, GoalV1::All);
    ramped.ramp_down = RampV1 { batch: 4, every: DurationMs::from_secs(20), jitter: DurationMs::ZERO };
    let mut w = world((0..10).map(good).collect(), vec![ramped]);
    for (second, count) in [(16, 4), (28, 4), (36, 8), (60, 10)] {
        w.run_to(second);
        assert_eq!(asleep(&w).len(), count, "at {second} s");
    }
    ends_clean(w);
}
