//! A gateway that is lost in the middle of a plan and replaced by an empty one.

use hashinsight_demo::farm;
use hashinsight_demo::process::until;
use hashinsight_demo::script::wait_for_readings;
use hashinsight_demo::world::{World, reduction};
use hashinsight_tests::{SITE, one_site};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::time::Duration;

fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

/// Loses the only agent's gateway with all that was on it, and sets a new one up in its place.
fn replace_gateway(world: &mut World) {
    let agent = world.summary(SITE).unwrap()["agents"][0]["id"].as_str().unwrap().to_owned();
    let plan = world.plan.clone();
    let config = world.agents[0].config.clone();
    let folder = config.parent().unwrap().to_owned();
    world.agents[0].process.kill();
    fs::remove_dir_all(folder.join("data")).unwrap();

    let mut admin = plan.program("hashinsight");
    admin
        .args(["admin", "replace-token", "--agent", &agent, "--data"])
        .arg(plan.folder.join("control-plane"));
    let said = run(admin);
    let token = said.split_whitespace().find(|word| word.starts_with("hi1.")).unwrap();
    let ready = fs::read_to_string(plan.folder.join("control-plane.ready")).unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let (_, port) = ready["enrol"].as_str().unwrap().rsplit_once(':').unwrap();
    let call = |args: &[&str]| {
        let mut command = plan.program("hashinsight-agent");
        command.args(args).arg("--config").arg(&config);
        command
    };
    run(call(&["enroll", "--url", &format!("https://localhost:{port}"), "--token", token, "--name", "new"]));
    run(call(&["miners", "import", folder.join("miners.csv").to_str().unwrap()]));
    world.agents[0].restart(&plan).unwrap();
}

#[test]
fn a_replaced_gateway_holds_what_the_old_one_held_and_wakes_it() {
    let mut sandbox = one_site(&[("gateway", 40)], 2, 10.0).unwrap();
    let world = &mut sandbox.world;
    wait_for_readings(world).unwrap();
    let control = world.agents[0].control;
    let before = farm::settings(control).unwrap();
    let asleep = |settings: &std::collections::BTreeMap<String, farm::Settings>| {
        let of = settings.values().filter(|s| s.mode == "sleep").map(|s| s.id.clone());
        of.collect::<std::collections::BTreeSet<_>>()
    };
    let power = world.summary(SITE).unwrap()["power_w"].as_f64().unwrap();
    let order = reduction(world.site_id(SITE).unwrap(), (power * 0.4 / 1e3).floor(), 2);
    let plan = world.api.post("/api/v1/plans", &json!({"plan": order})).unwrap();
    let id = plan["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/plans/{id}");
    world.api.post(&format!("{path}/approve"), &json!({})).unwrap();
    until("the plan to hold", Duration::from_secs(60), || {
        world.check()?;
        Ok((world.api.get(&path)?["state"] == "executed").then_some(()))
    })
    .unwrap();
    let held = asleep(&farm::settings(control).unwrap());
    assert!(held.len() > asleep(&before).len() + 5, "{held:?}");

    let told_at = |plan: &Value| plan["dispatches"][0]["at"].as_i64();
    let last = told_at(&world.api.get(&path).unwrap());
    replace_gateway(world);
    // The new one has taken them over: it tells of them by its own journal, and nothing moves.
    until("the new gateway to hold them", Duration::from_secs(60), || {
        world.check()?;
        let plan = world.api.get(&path)?;
        let reached = plan["reached_w"].as_f64() >= plan["target_w"].as_f64();
        Ok((plan["state"] == "executed" && reached && told_at(&plan) > last).then_some(()))
    })
    .unwrap();
    let now = asleep(&farm::settings(control).unwrap());
    assert!(held.is_subset(&now), "woken before the end: {:?}", held.difference(&now));

    until("the end of the plan", Duration::from_secs(180), || {
        world.check()?;
        Ok((world.api.get(&path)?["state"] == "completed").then_some(()))
    })
    .unwrap();
    let after = farm::settings(control).unwrap();
    for (miner, settings) in &before {
        let now = &after[miner];
        assert_eq!(
            (&now.mode, now.vendor_mode, now.limit_w, &now.profile, &now.config_hash),
            (
                &settings.mode,
                settings.vendor_mode,
                settings.limit_w,
                &settings.profile,
                &settings.config_hash
            ),
            "{miner}"
        );
    }
}
