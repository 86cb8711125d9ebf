//! What people get wrong gives one clear line, a non-zero exit, and leaves nothing half-made.

use hashinsight_tests::programs;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

fn program(name: &str, args: &[&str]) -> Output {
    Command::new(programs().join(name)).args(args).output().unwrap()
}

fn refused(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it went on: {said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "\"{word}\" is missing in: {said}");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_taken_port() {
    let folder = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = folder.path().join("data");
    let data_arg = data.display().to_string();
    let free = "127.0.0.1:0";
    for (http, mqtt, enrol) in [(&*address, free, free), (free, &*address, free), (free, free, &*address)] {
        let args = ["serve", "--data", &data_arg, "--http", http, "--mqtt", mqtt, "--enrol", enrol];
        refused(&program("hashinsight", &args), &[&address]);
        assert!(!data.exists(), "a data folder was made all the same");
    }
}

#[test]
fn a_folder_that_cannot_be_written() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a file");
    fs::write(&file, "in the way").unwrap();
    let data = file.join("data").display().to_string();
    let free = "127.0.0.1:0";
    let args = ["serve", "--data", &data, "--http", free, "--mqtt", free, "--enrol", free];
    refused(&program("hashinsight", &args), &[&data]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "in the way");
}

#[test]
fn a_configuration_with_a_mistake() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("agent.toml");
    for (text, words) in [
        ("data_dir = \"data\"\ncycle_s = \"soon\"\n", ["line 2", "agent.toml"]),
        ("data_dir = \"data\"\ncycles = 60\n", ["line 2", "cycles"]),
        ("data_dir = \"data\"\ncycle_s = 0\n", ["cycle_s", "agent.toml"]),
    ] {
        fs::write(&config, text).unwrap();
        let path = config.display().to_string();
        refused(&program("hashinsight-agent", &["run", "--config", &path]), &words);
        assert_eq!(names(folder.path()), ["agent.toml"]);
    }
    let missing = folder.path().join("none.toml").display().to_string();
    refused(&program("hashinsight-agent", &["run", "--config", &missing]), &["none.toml"]);
}

#[test]
fn a_wrong_token() {
    let mut sandbox = hashinsight_tests::one_site(&[("gateway", 12)], 5, 10.0).unwrap();
    let world = &mut sandbox.world;
    let ready = fs::read_to_string(world.plan.folder.join("control-plane.ready")).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    let port = ready["enrol"].as_str().unwrap().rsplit(':').next().unwrap();
    let url = format!("https://localhost:{port}");

    let folder = TempDir::new().unwrap();
    let config = folder.path().join("agent.toml");
    fs::write(&config, "data_dir = \"data\"\n").unwrap();
    let path = config.display().to_string();
    let enrol = |token: &str| {
        program("hashinsight-agent", &["enroll", "--config", &path, "--url", &url, "--token", token])
    };
    let mut admin = world.plan.program("hashinsight");
    admin.args(["admin", "enrol-token", "--site", hashinsight_tests::SITE]);
    let output = admin.arg("--data").arg(world.plan.folder.join("control-plane")).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let good = output.split_whitespace().find(|w| w.starts_with("hi1.")).unwrap().to_owned();
    let (secret, fingerprint) = good["hi1.".len()..].split_once('.').unwrap();
    let other_secret = format!("hi1.{}.{fingerprint}", "a".repeat(secret.len()));
    let other_authority = format!("hi1.{secret}.{}", "0".repeat(64));

    refused(&enrol("hi1.nonsense"), &["token"]);
    refused(&enrol(&other_secret), &["token"]);
    // A server that is not the one the token names learns nothing and is not believed.
    refused(&enrol(&other_authority), &[]);
    assert!(!folder.path().join("data").exists() || names(&folder.path().join("data")).is_empty());

    let taken = enrol(&good);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let again = TempDir::new().unwrap();
    let config = again.path().join("agent.toml");
    fs::write(&config, "data_dir = \"data\"\n").unwrap();
    let path = config.display().to_string();
    let second =
        program("hashinsight-agent", &["enroll", "--config", &path, "--url", &url, "--token", &good]);
    refused(&second, &["token"]);
}
