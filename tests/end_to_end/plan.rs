//! Plans over the real programs, judged by what the simulated devices did.

use hashinsight_demo::farm;
use hashinsight_demo::process::until;
use hashinsight_demo::script::wait_for_readings;
use hashinsight_demo::world::{World, reduction};
use hashinsight_tests::{SITE, one_site};
use serde_json::{Value, json};
use std::time::Duration;

fn order(world: &World, kw: f64, minutes: u32, ramp_up: Value) -> String {
    let mut order = reduction(world.site_id(SITE).unwrap(), kw, minutes);
    order["ramp_up"] = ramp_up;
    let plan = world.api.post("/api/v1/plans", &json!({"plan": order})).unwrap();
    let id = plan["id"].as_str().unwrap().to_owned();
    world.api.post(&format!("/api/v1/plans/{id}/approve"), &json!({})).unwrap();
    id
}

fn wait_for_state(world: &mut World, id: &str, state: &str, most: u64) -> Value {
    let path = format!("/api/v1/plans/{id}");
    until(&format!("the plan {state}"), Duration::from_secs(most), || {
        world.check()?;
        let plan = world.api.get(&path)?;
        Ok((plan["state"] == state).then_some(plan))
    })
    .unwrap()
}

/// Stopped by hand, waking begins within 2 s and keeps its ramp; every miner is as before.
#[test]
fn a_plan_stopped_by_hand_wakes_at_once_and_in_steps() {
    let mut sandbox = one_site(&[("gateway", 60)], 5, 10.0).unwrap();
    let world = &mut sandbox.world;
    wait_for_readings(world).unwrap();
    let control = world.agents[0].control;
    let before = farm::settings(control).unwrap();
    let power = world.summary(SITE).unwrap()["power_w"].as_f64().unwrap();
    let id = order(world, (power * 0.4 / 1e3).floor(), 30, json!({"batch": 4, "every_s": 2}));
    let held = wait_for_state(world, &id, "executed", 60);
    assert!(held["reached_w"].as_f64() >= held["target_w"].as_f64(), "{held}");
    let stopped = held["targets"].as_array().unwrap().len();
    assert!(stopped > 8, "the ramp has too few steps to be seen: {stopped}");
    // Past the shortest time asleep, so that only the ramp is left to keep.
    std::thread::sleep(Duration::from_secs(6));

    let answer = world.api.post(&format!("/api/v1/plans/{id}/stop"), &json!({"force": false})).unwrap();
    let asked = answer["stopped_at"].as_i64().unwrap();
    let done = wait_for_state(world, &id, "completed", 120);
    assert_eq!(done["stopped_by"], answer["stopped_by"]);

    let log = farm::read_log(&world.agents[0].truth).unwrap();
    let wakes: Vec<i64> = log.writes.iter().filter(|w| w.woke).map(|w| w.at).collect();
    let first = wakes.iter().min().unwrap() - asked;
    assert!((0..2_000).contains(&first), "the first miner was woken {first} ms after the order");
    // A target that was let go before its write was never put to sleep.
    let slept = log.writes.iter().filter(|w| !w.woke).count();
    assert!(wakes.len() >= slept, "{} woken of {slept}", wakes.len());
    let took = wakes.iter().max().unwrap() - wakes.iter().min().unwrap();
    let steps = (wakes.len() as i64 - 1) / 4;
    assert!(took >= (steps - 1) * 2_000, "{stopped} miners woke within {took} ms: no ramp");
    assert_eq!(farm::settings(control).unwrap(), before, "a miner is not as it was");
}

/// The least efficient go first, by what the devices themselves reported.
#[test]
fn the_least_efficient_miners_are_stopped_first() {
    let mut sandbox = one_site(&[("gateway", 60)], 5, 10.0).unwrap();
    let world = &mut sandbox.world;
    wait_for_readings(world).unwrap();
    let power = world.summary(SITE).unwrap()["power_w"].as_f64().unwrap();
    let order = reduction(world.site_id(SITE).unwrap(), (power * 0.3 / 1e3).floor(), 5);
    let preview = world.api.post("/api/v1/plans/preview", &order).unwrap();
    assert_eq!(preview["reaches_target"], true, "{preview}");
    let taken: Vec<f64> =
        preview["taken"].as_array().unwrap().iter().filter_map(|t| t["efficiency"].as_f64()).collect();
    assert!(taken.len() > 5, "{preview}");
    assert!(taken.windows(2).all(|w| w[0] >= w[1] - 1e-6), "not in order of J/TH: {taken:?}");
    let skipped = preview["skipped"].to_string();
    assert!(
        skipped.contains("asleep") || skipped.contains("Asleep"),
        "nothing is said of sleepers: {skipped}"
    );
}
