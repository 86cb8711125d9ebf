//! What must always hold, over random sites, plans, clocks, faults and crashes: one property an invariant.
#![allow(clippy::unwrap_used)]

mod sim;

use proptest::prelude::*;
use sim::World;
use sim::scenario::{Scenario, scenario};

/// Runs a scenario and fails on violations of one invariant.
fn check(invariant: u8, scenario: Scenario) -> Result<(), TestCaseError> {
    let world = World::new(scenario).run();
    let broken: Vec<_> = world.violations.iter().filter(|v| v.invariant == invariant).collect();
    if broken.is_empty() {
        return Ok(());
    }
    let log = if std::env::var_os("SIM_LOG").is_some() { world.log.join("\n") } else { String::new() };
    Err(TestCaseError::fail(format!("{broken:#?}\n{log}")))
}

macro_rules! invariant {
    ($($number:literal $name:ident;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig { max_shrink_iters: 600, failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]
            $(
                #[test]
                fn $name(scenario in scenario()) {
                    check($number, scenario)?;
                }
            )*
        }
    };
}

/// A longer run by `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

invariant! {
    1 only_what_is_in_scope_and_ours_is_written_to;
    2 what_was_put_to_sleep_is_woken_to_its_pre_state;
    3 what_was_off_before_stays_off;
    4 a_miner_is_woken_only_when_no_dispatch_holds_it;
    5 ramps_dwell_times_and_starts_a_day_are_kept;
    6 intent_and_pre_state_are_durable_before_a_write_and_no_write_is_blind;
    7 a_plan_starts_and_ends_on_time_without_contact;
    8 nothing_counts_without_evidence_of_effect;
    9 no_interval_fires_twice_and_no_hold_outlasts_its_length;
    10 every_decision_says_why;
}

/// The scenarios reach what they are meant to reach.
#[test]
fn the_scenarios_are_not_idle() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut sum = [0usize; 11];
    for _ in 0..60 {
        let scenario = scenario().new_tree(&mut runner).unwrap().current();
        let c = World::new(scenario).run().counts;
        let counts = [
            c.stops,
            c.wakes,
            c.crashes,
            c.reboots,
            c.curtailed,
            c.drifted,
            c.refused,
            c.unreachable,
            c.restore_failed,
            c.forced,
            c.dispatches,
        ];
        for (sum, count) in sum.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    println!(
        "stops, wakes, crashes, reboots, curtailed, drifted, refused, unreachable, restore_failed, forced, dispatches: {sum:?}"
    );
    assert!(sum.iter().all(|count| *count >= 5), "{sum:?}");
}
