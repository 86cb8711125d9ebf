//! What a technician does at a site: find the miners, keep their list, look at one, prove that all of them
//! would obey.

use hashinsight_demo::farm;
use hashinsight_demo::process::{Process, until};
use hashinsight_demo::script::wait_for_readings;
use hashinsight_tests::{SITE, one_site, programs};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

fn agent(args: &[&str], config: &Path) -> Output {
    let mut command = Command::new(programs().join("hashinsight-agent"));
    command.args(args).arg("--config").arg(config).output().unwrap()
}

fn json(output: &Output) -> Value {
    let words = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {words}"))
}

/// Ports that are free on every address.
fn ports() -> [u16; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("0.0.0.0:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// A farm whose devices alone have open ports, and the configuration of a gateway that is not enrolled.
fn lone_farm(folder: &Path, net: &str, miners: u32, mix: &str) -> (Process, BTreeMap<String, String>) {
    let [api, web] = ports();
    let (inventory, ready) = (folder.join("miners.csv"), folder.join("farm.ready"));
    let mut command = Command::new(programs().join("hashinsight-farm"));
    command.args(["--miners", &miners.to_string(), "--net", net, "--mix", mix, "--own-listeners"]);
    command.args(["--api-port", &api.to_string(), "--web-port", &web.to_string(), "--time-scale", "10"]);
    command.arg("--inventory-out").arg(&inventory).arg("--ready-file").arg(&ready);
    let mut farm = Process::start("hashinsight-farm", command, &folder.join("farm.log")).unwrap();
    until("the farm", Duration::from_secs(20), || {
        farm.check()?;
        Ok(ready.exists().then_some(()))
    })
    .unwrap();
    let config = format!("data_dir = \"data\"\napi_port = {api}\nweb_port = {web}\n");
    fs::write(folder.join("agent.toml"), config).unwrap();
    let text = fs::read_to_string(inventory).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let mut fields = line.split(',');
        let miner = fields.next().unwrap().to_owned();
        (fields.next().unwrap().to_owned(), miner)
    });
    (farm, rows.collect())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures how long a program takes")]
fn a_slash_20_is_searched_within_a_minute_and_nothing_is_claimed() {
    let folder = TempDir::new().unwrap();
    let mix = "antminer-stock,whatsminer-v2,avalon,braiins,luxos,cgminer";
    let (_farm, devices) = lone_farm(folder.path(), "127.60.0.0/20", 36, mix);
    let config = folder.path().join("agent.toml");
    let began = SystemTime::now();
    let output = agent(&["discover", "127.60.0.0/20", "--json"], &config);
    let took = began.elapsed().unwrap();
    let found = json(&output);
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert_eq!(found["asked"], 4094, "{found}");
    let list = found["found"].as_array().unwrap();
    let seen: BTreeSet<&str> = list.iter().map(|d| d["address"].as_str().unwrap()).collect();
    let there: BTreeSet<&str> = devices.keys().map(String::as_str).collect();
    assert_eq!(seen, there);
    assert!(list.iter().all(|d| d["standing"] == "new"), "{found}");
    let families: BTreeSet<&str> = list.iter().map(|d| d["firmware"].as_str().unwrap()).collect();
    assert!(families.len() >= 6, "{families:?}");
    assert!(!folder.path().join("data").exists(), "a search has written something");

    // What makes no sense is one clear line.
    for (args, part) in [
        (&["discover", "10.0.0.0/8"][..], "more than 65536"),
        (&["discover", "127.60.0.1", "--add"], "not enrolled"),
        (&["discover", "127.60.0.1", "--credentials", "none"], "credentials.toml"),
    ] {
        let output = agent(args, &config);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && words.contains(part), "{args:?}: {words}");
    }
}

#[test]
fn a_capture_that_is_saved_reads_as_the_device_did_and_holds_no_secret() {
    let firmwares =
        captures("127.61.0.0/24", "antminer-stock=2,whatsminer-v2,avalon,braiins,luxos,cgminer", 14);
    assert!(firmwares.len() >= 6, "{firmwares:?}");
}

#[test]
fn captures_of_web_interfaces_read_as_well() {
    let mix = "vnish,epic,auradine,axeos,goldshell,futurebit,sealminer,marathon,hiveon,hammer,elphapex";
    let firmwares = captures("127.62.0.0/24", mix, 11);
    assert_eq!(firmwares.len(), 11, "{firmwares:?}");
}

/// Probes each device of a farm, saves what it said and reads it back; the firmwares recognised.
fn captures(net: &str, mix: &str, miners: u32) -> BTreeSet<String> {
    let folder = TempDir::new().unwrap();
    let (_farm, devices) = lone_farm(folder.path(), net, miners, mix);
    let config = fs::read_to_string(folder.path().join("agent.toml")).unwrap();
    let port = |key: &str| {
        let line = config.lines().find(|line| line.starts_with(key)).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    let (api, web) = (port("api_port"), port("web_port"));
    let mut firmwares = BTreeSet::new();
    for (n, address) in devices.keys().enumerate() {
        let saved = folder.path().join(format!("capture-{n}"));
        let mut command = Command::new(programs().join("hashinsight-agent"));
        command
            .args(["probe", &format!("{address}:{api}"), "--web-port", &web, "--json", "--save"])
            .arg(&saved);
        let live = command.output().unwrap();
        let words = String::from_utf8_lossy(&live.stderr);
        assert!(live.status.success(), "{address}: {words}");
        assert!(!words.contains("another way"), "{address}: {words}");
        let live = json(&live);
        let mut command = Command::new(programs().join("hashinsight-agent"));
        let again = command.args(["probe", "--json", "--replay"]).arg(&saved).output().unwrap();
        let again = json(&again);
        for key in [
            "firmware",
            "model",
            "hashrate_hs",
            "power_w",
            "temps_c",
            "fans_rpm",
            "is_mining",
            "pools",
            "boards",
            "uptime_s",
            "mode",
            "accepted",
            "serial",
            "mac",
        ] {
            // The settings that were read beside it say more than the reading did.
            assert!(
                live[key].is_null() || live[key] == again[key],
                "{address} {key}: {} {}",
                live[key],
                again[key]
            );
        }
        let firmware = live["firmware"].as_str().unwrap().to_owned();
        if firmware == "antminer-stock" {
            assert_eq!(
                (&live["access"], &live["sign_in"]),
                (&"proven".into(), &"the factory default".into())
            );
        }
        firmwares.insert(firmware);
        for entry in fs::read_dir(&saved).unwrap() {
            let path = entry.unwrap().path();
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            for after in text.split("\"pass\"").skip(1) {
                let value = after.trim_start_matches([' ', ':']);
                assert!(
                    value.starts_with("\"***\"") || value.starts_with("\"\""),
                    "{}: {text}",
                    path.display()
                );
            }
        }
        let mut command = Command::new(programs().join("hashinsight-agent"));
        let corpus = command.args(["corpus", "--json"]).arg(&saved).output().unwrap();
        assert_eq!(json(&corpus)["reading"]["hashrate_hs"], live["hashrate_hs"], "{address}");
    }
    firmwares
}

/// Miner ids by address, as the inventory has them.
fn inventory(config: &Path) -> BTreeMap<String, String> {
    let output = agent(&["miners", "export"], config);
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let mut fields = line.split(',');
        let miner = fields.next().unwrap().to_owned();
        (fields.next().unwrap().to_owned(), miner)
    });
    rows.collect()
}

#[test]
fn miners_are_found_followed_and_proven_ready() {
    let mut sandbox = one_site(&[("gateway", 30)], 2, 10.0).unwrap();
    let world = &mut sandbox.world;
    wait_for_readings(world).unwrap();
    let config = world.agents[0].config.clone();
    let before = inventory(&config);
    let states = farm::settings(world.agents[0].control).unwrap();

    // Every miner is asked anew by the running agent, and nothing is written to any.
    let output = agent(&["ready", "--json"], &config);
    let report = json(&output);
    assert_eq!(report["miners"], 30, "{report}");
    let list = report["list"].as_array().unwrap();
    for line in list {
        let blockers: Vec<_> = line["blockers"].as_array().unwrap().iter().collect();
        // By nature alone, as with a generic cgminer; nothing is wrong with any.
        assert!(blockers.iter().all(|b| *b == "weak_identity" || *b == "no_capability"), "{line}");
        let is_antminer = line["firmware"].as_str().unwrap().contains("Bitmain");
        assert!(!is_antminer || line["access"] == "proven", "{line}");
    }
    assert!(report["ready"].as_u64() > Some(15) && report["ready_kw"].as_f64() > Some(20.0), "{report}");
    assert_eq!(output.status.code(), Some(if report["ready"] == 30 { 0 } else { 2 }));
    assert_eq!(farm::settings(world.agents[0].control).unwrap(), states, "a look has changed a miner");

    // The control plane knows it too.
    let ready = report["ready"].clone();
    until("the readiness of all miners at the control plane", Duration::from_secs(90), || {
        world.check()?;
        let summary = world.summary(SITE)?;
        Ok((summary["readiness_unknown"] == 0 && summary["ready"] == ready).then_some(()))
    })
    .unwrap();

    // A sign-in that is wrong shows before an event, here and in the preview.
    let antminer = list.iter().find(|l| l["firmware"].as_str().unwrap().contains("Bitmain")).unwrap();
    let antminer_id = antminer["miner"].as_str().unwrap().to_owned();
    let credentials = config.parent().unwrap().join("data/credentials.toml");
    fs::write(&credentials, "[antminer-root]\nuser = \"root\"\npassword = \"wrong\"\n").unwrap();
    private(&credentials);
    until("the refused sign-in in the preview", Duration::from_secs(60), || {
        world.check()?;
        let order = hashinsight_demo::world::reduction(world.site_id(SITE)?, 20.0, 5);
        let preview = world.api.post("/api/v1/plans/preview", &order)?;
        let skipped = preview["skipped"].to_string();
        Ok((skipped.contains(&antminer_id) && skipped.contains("credential_refused")).then_some(()))
    })
    .unwrap();
    fs::remove_file(&credentials).unwrap();

    // Two miners change places, and two are given up.
    let strong: Vec<&Value> = list.iter().filter(|l| l["strong_identity"] == true).collect();
    let id = |line: &Value| line["miner"].as_str().unwrap().to_owned();
    let (one, two, gone) = (id(strong[0]), id(strong[1]), [id(strong[2]), id(strong[3])]);
    let text = String::from_utf8(agent(&["miners", "export"], &config).stdout).unwrap();
    let swapped: Vec<String> = text
        .lines()
        .filter(|line| !gone.iter().any(|id| line.starts_with(id)))
        .map(|line| {
            let other = if line.starts_with(&one) {
                &two
            } else if line.starts_with(&two) {
                &one
            } else {
                return line.to_owned();
            };
            line.replacen(line.split(',').next().unwrap(), other, 1)
        })
        .collect();
    let file = sandbox.folder.path().join("swapped.csv");
    fs::write(&file, swapped.join("\n") + "\n").unwrap();
    let output = agent(&["miners", "import", file.to_str().unwrap()], &config);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let address = |of: &str, all: &BTreeMap<String, String>| {
        all.iter().find(|(_, id)| *id == of).map(|(address, _)| address.clone())
    };
    assert_eq!(
        address(&one, &inventory(&config)),
        address(&two, &before),
        "they are listed in the wrong places"
    );
    until("the agent to follow both", Duration::from_secs(60), || {
        let now = inventory(&config);
        let right = [&one, &two].iter().all(|id| address(id, &now) == address(id, &before));
        Ok(right.then_some(()))
    })
    .unwrap();

    // Those given up are found again as new ones; only a yes takes them.
    let range = format!("{}-60", before.keys().next().unwrap());
    let found = json(&agent(&["discover", &range, "--json"], &config));
    let new = found["found"].as_array().unwrap().iter().filter(|d| d["standing"] == "new").count();
    assert_eq!(new, 2, "{found}");
    assert_eq!(inventory(&config).len(), 28);
    let output = agent(&["discover", &range, "--add"], &config);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let now = inventory(&config);
    assert_eq!(now.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert!(gone.iter().all(|id| address(id, &now).is_none()), "an id was made up again");

    // A lock is taken at once, and known above.
    let output = agent(&["miners", "lock", "--protected", &one], &config);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    until("the lock at the control plane", Duration::from_secs(30), || {
        let path = format!("/api/v1/sites/{}/miners?q={one}", world.site_id(SITE)?);
        let miners = world.api.get(&path)?;
        Ok((miners["miners"][0]["protected"] == true).then_some(()))
    })
    .unwrap();

    // A file with a mistake changes nothing.
    fs::write(&file, "address,rack\n127.0.0.1,A\n999.0.0.1,B\n").unwrap();
    let output = agent(&["miners", "import", file.to_str().unwrap()], &config);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("line 3"), "{words}");
    assert_eq!(inventory(&config).len(), 30);
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
