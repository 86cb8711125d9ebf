//! What a technician changes of a miner by hand, through the running agent.

use hashinsight_demo::farm;
use hashinsight_demo::process::until;
use hashinsight_demo::script::wait_for_readings;
use hashinsight_tests::{SITE, one_site, programs};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

fn miners(config: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(programs().join("hashinsight-agent"));
    command.arg("miners").args(args).arg("--config").arg(config).output().unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The one line that a change of one miner prints.
fn proven(output: &Output) -> Value {
    let line: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", words(output)));
    assert!(output.status.success() && line["proven"] == true, "{line}");
    line
}

#[test]
fn a_miner_is_found_limited_and_restarted_by_hand_but_not_under_a_plan() {
    let mut sandbox = one_site(&[("gateway", 24)], 2, 10.0).unwrap();
    let world = &mut sandbox.world;
    wait_for_readings(world).unwrap();
    let config = world.agents[0].config.clone();
    let site = world.site_id(SITE).unwrap().to_owned();
    let path = format!("/api/v1/sites/{site}/miners?limit=100");
    let list = world.api.get(&path).unwrap();
    let list = list["miners"].as_array().unwrap();
    let able = |what: &str, firmware: &str| {
        let is = |m: &&Value| {
            m["capabilities"][what] == true && m["firmware"] == firmware && m["is_mining"] == true
        };
        list.iter().find(is).unwrap_or_else(|| panic!("no {firmware} with {what}"))["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };

    // The light, there and back.
    let antminer = able("locate", "antminer-stock");
    let lit = proven(&miners(&config, &["locate", &antminer, "--json"]));
    assert_eq!(
        (&lit["evidence"]["accepted"], &lit["evidence"]["effect"]),
        (&json!("yes"), &json!("not_applicable"))
    );
    proven(&miners(&config, &["locate", "--off", &antminer, "--json"]));

    // A limit shows in the device and in its power.
    let tuned = able("power_limit", "braiins");
    let limited = proven(&miners(&config, &["limit", "--watts", "2000", &tuned, "--json"]));
    assert_eq!(limited["evidence"]["effect"], "yes");
    assert_eq!(farm::settings(world.agents[0].control).unwrap()[&tuned].limit_w, Some(2000));

    // Pools: the password comes from a file and is shown nowhere.
    let whatsminer = able("set_pools", "whatsminer-v2");
    let secrets = sandbox.folder.path().join("passwords");
    fs::write(&secrets, "hidden-word\n").unwrap();
    let pool = ["--pool", "stratum+tcp://pool.example:3333", "site.w1"];
    let file = ["--passwords", secrets.to_str().unwrap(), "--json", &whatsminer];
    let set = miners(&config, &[&["pools"], &pool[..], &file[..]].concat());
    proven(&set);

    // A restart is proven by the device's clock.
    let restarted = proven(&miners(&config, &["reboot", &antminer, "--json"]));
    assert_eq!(restarted["evidence"]["effect"], "yes");

    // All of it is on record above, before and after, with who asked.
    until("the record of the changes", Duration::from_secs(30), || {
        world.check()?;
        let told = world.api.get(&format!("/api/v1/sites/{site}/events?kind=miner_changed"))?;
        assert!(!told.to_string().contains("hidden-word"), "{told}");
        let told = told.as_array().unwrap();
        let of = |what: &str, ended: bool| {
            told.iter().any(|e| {
                let body = &e["body"];
                body["what"] == what
                    && body["evidence"].is_object() == ended
                    && body["by"].to_string().contains("uid")
            })
        };
        let all =
            ["light on", "light off", "power limit 2000 W", "pools pool.example:3333 as site.w1", "reboot"];
        Ok(all.iter().all(|what| of(what, false) && of(what, true)).then_some(()))
    })
    .unwrap();
    let log = fs::read_to_string(config.parent().unwrap().join("agent.log")).unwrap_or_default();
    assert!(!log.contains("hidden-word"));

    // What makes no sense, or can't be done, is one clear line and nothing is sent.
    let read_only =
        list.iter().find(|m| m["capabilities"]["reboot"] == false).unwrap()["id"].as_str().unwrap();
    for (args, code, part) in [
        (&["reboot", "10.9.9.9"][..], 1, "not in the inventory"),
        (&["limit", "--watts=-4", &tuned], 1, "at least 1 W"),
        (&["pools", "--pool", "me:pw@pool:1", "w", &whatsminer], 1, "no sign-in"),
        (&["reboot", read_only], 2, "did not show on 1 of 1"),
    ] {
        let output = miners(&config, args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", words(&output));
        assert!(words(&output).contains(part), "{args:?}: {}", words(&output));
    }

    // A miner that a plan holds is left to the plan.
    let mut order = hashinsight_demo::world::reduction(&site, 20.0, 5);
    order["goal"] = json!("all");
    let plan = world.api.post("/api/v1/plans", &json!({"plan": order})).unwrap();
    let id = plan["id"].as_str().unwrap();
    world.api.post(&format!("/api/v1/plans/{id}/approve"), &json!({})).unwrap();
    until("the plan to take the miner", Duration::from_secs(60), || {
        world.check()?;
        let settings = farm::settings(world.agents[0].control)?;
        Ok((settings[&antminer].mode == "sleep").then_some(()))
    })
    .unwrap();
    let output = miners(&config, &["reboot", &antminer]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(2) && said.contains("stop the plan first"), "{said}");
}
