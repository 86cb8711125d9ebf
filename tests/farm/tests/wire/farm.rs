//! What holds for the farm as a whole: its log, its faults, its control socket, its errors.

use crate::site::{START, free_port, of, site, status};
use hashinsight_farm::{Config, Family, Farm, FaultKind, FaultOrder};
use hashinsight_protocol::device::ModeV1;
use serde_json::{Value, json};
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn the_log_has_a_line_for_every_answer_and_what_it_said() {
    let mix = "antminer-stock,whatsminer,avalon,braiins,luxos,cgminer";
    let s = site(Config {
        miners: 60,
        mix: mix.parse().unwrap(),
        pre: "asleep=10%,limited=10%,hem=10%".parse().unwrap(),
        ..Config::default()
    })
    .await;
    let mut samples = 0;
    for turn in 0..3 {
        for d in s.farm.state() {
            let command = match d.family {
                Family::Antminer => "stats",
                Family::Whatsminer => "summary+pools",
                Family::Avalon => "estats",
                Family::Braiins => "summary+tunerstatus",
                Family::Luxos => "summary+power",
                _ => "summary",
            };
            let reply = s.raw(d.device, json!({"command": command}).to_string().as_bytes()).await.unwrap();
            assert!(reply.len() > 100 && reply.ends_with(b"\0"));
            samples += 1;
            s.raw(d.device, br#"{"command":"version"}"#).await.unwrap();
        }
        s.pass(60 * (turn + 1));
    }
    let state = s.farm.state();
    assert_eq!(state.iter().map(|d| d.samples).sum::<u64>(), samples);
    let log = s.log().await;
    let of_kind = |kind: &str| log.iter().filter(|l| l["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(of_kind("sample").len() as u64, samples);
    assert_eq!(of_kind("read").len() as u64, samples);
    assert!(of_kind("write").is_empty() && of_kind("unread").is_empty());
    for d in &state {
        let mine: Vec<_> =
            of_kind("sample").into_iter().filter(|l| l["device"] == d.device.to_string()).collect();
        let numbers: Vec<_> = mine.iter().map(|l| l["n"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let rate = mine[2]["hashrate_hs"].as_f64().unwrap();
        assert_eq!(rate > 0.0, d.mode != ModeV1::Sleep, "{d:?}");
        if !matches!(d.family, Family::Antminer | Family::Cgminer) {
            assert!(mine[2]["power_w"].as_f64().unwrap() > 5.0, "{:?}", mine[2]);
        }
        assert_eq!(mine[2]["t"].as_i64().unwrap(), START.0 + 180_000);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_read_is_marked() {
    let s = of("braiins", 10).await;
    let devices: Vec<_> = s.farm.state().iter().map(|d| d.device).collect();
    for device in &devices {
        let mut stream = TcpStream::connect(SocketAddrV4::new(*device, s.api)).await.unwrap();
        stream.write_all(br#"{"command":"summary"}"#).await.unwrap();
        // The answer lies in our socket when it is closed, or comes after.
        drop(stream);
    }
    s.raw(devices[0], br#"{"command":"summary"}"#).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let log = s.log().await;
    let of_kind = |kind: &str| -> Vec<_> {
        log.iter().filter(|l| l["kind"] == kind).map(|l| (l["device"].to_string(), l["n"].as_u64())).collect()
    };
    let (samples, unread) = (of_kind("sample"), of_kind("unread"));
    assert_eq!(samples.len(), unread.len() + 1);
    assert!(unread.iter().all(|u| samples.contains(u)));
}

#[tokio::test]
async fn a_seed_says_the_same_whoever_polls() {
    let say = async |others: bool| {
        let s = of("antminer-stock,whatsminer,avalon,braiins,luxos", 10).await;
        if others {
            for d in s.farm.state() {
                s.raw(d.device, b"{\"command\":\"summary\"}").await.unwrap();
            }
        }
        s.pass(33);
        let mut all = Vec::new();
        for d in s.farm.state() {
            all.push(s.raw(d.device, b"{\"command\":\"summary\"}").await.unwrap());
        }
        all
    };
    assert_eq!(say(false).await, say(true).await);
}

#[tokio::test]
async fn faults_spoil_answers_and_are_logged() {
    let s = of("luxos", 8).await;
    let d: Vec<_> = s.states(Family::Luxos).iter().map(|d| d.device).collect();
    for (kind, device) in [
        (FaultKind::Hang, d[0]),
        (FaultKind::Refuse, d[1]),
        (FaultKind::Lie, d[2]),
        (FaultKind::Reset, d[3]),
        (FaultKind::Truncated, d[4]),
        (FaultKind::Die, d[5]),
    ] {
        assert_eq!(s.farm.fault(&FaultOrder::on(kind, device)), Ok(1));
    }
    s.farm.fault(&FaultOrder { value: Some(400.0), ..FaultOrder::on(FaultKind::Slow, d[6]) }).unwrap();
    let summary = br#"{"command":"summary"}"#;
    for silent in [d[0], d[5]] {
        let wait = timeout(Duration::from_millis(300), s.raw(silent, summary)).await;
        assert!(wait.is_err(), "no answer, no end");
    }
    assert!(
        s.raw(d[1], summary)
            .await
            .map_or_else(|e| e.kind() == io::ErrorKind::ConnectionReset, |r| r.is_empty())
    );
    assert_eq!(s.raw(d[3], summary).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let cut = s.raw(d[4], summary).await.unwrap();
    assert!(cut.len() > 100 && !cut.ends_with(b"\0"));
    let begun = tokio::time::Instant::now();
    assert!(s.raw(d[6], summary).await.unwrap().ends_with(b"\0"));
    assert!(begun.elapsed() > Duration::from_millis(350));

    let sid = s.ask(d[2], "logon", None).await["SESSION"][0]["SessionID"].as_str().unwrap().to_owned();
    assert_eq!(status(&s.ask(d[2], "curtail", Some(&format!("{sid},sleep"))).await), ("S", 335));
    s.pass(30);
    assert_eq!((s.state(d[2]).mode, s.state(d[2]).phase), (ModeV1::Normal, "mining"));
    s.farm.clear_faults();
    assert!(s.ask(d[0], "summary", None).await["SUMMARY"][0]["GHS 5s"].as_f64().unwrap() > 1.0);

    // A device that reboots by itself is away, and then back.
    s.farm.fault(&FaultOrder::on(FaultKind::Reboot, d[7])).unwrap();
    assert!(s.raw(d[7], summary).await.map_or(true, |r| r.is_empty()));
    s.pass(5);
    assert_eq!(s.state(d[7]).phase, "mining");
    assert!(s.state(d[7]).uptime_s < 10);

    let log = s.log().await;
    let fault = |kind: &str, event: &str| {
        log.iter().filter(|l| l["kind"] == "fault" && l["fault"] == kind && l["event"] == event).count()
    };
    for kind in ["hang", "refuse", "lie", "reset", "truncated", "die", "slow"] {
        assert_eq!((fault(kind, "set"), fault(kind, "cleared")), (1, 1), "{kind}");
    }
    assert_eq!((fault("reset", "hit"), fault("truncated", "hit"), fault("reboot", "hit")), (1, 1, 1));
    let lied = log.iter().find(|l| l["request"] == "curtail").unwrap();
    assert_eq!(
        (&lied["kind"], &lied["result"], &lied["answered"]),
        (&json!("write"), &json!("ignored"), &json!(true))
    );
    let samples = log.iter().filter(|l| l["kind"] == "sample").count();
    assert_eq!(samples, 2, "the slow one and the one after all faults were cleared");
}

#[tokio::test]
async fn with_its_own_listener_a_device_truly_refuses() {
    let s =
        site(Config { miners: 3, own_listeners: true, mix: "luxos".parse().unwrap(), ..Config::default() })
            .await;
    let d = s.first();
    assert_eq!(s.ask(d, "version", None).await["id"], 1);
    s.farm.fault(&FaultOrder::on(FaultKind::Refuse, d)).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let error = TcpStream::connect(SocketAddrV4::new(d, s.api)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    s.farm.clear_faults();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(s.ask(d, "version", None).await["id"], 1);
}

#[tokio::test]
async fn the_control_socket_tells_and_obeys() {
    let control: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut s = site(Config { miners: 20, control: Some(control), ..Config::default() }).await;
    let stream = TcpStream::connect(s.farm.control().unwrap()).await.unwrap();
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut say = async |line: &str| -> Value {
        write.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap()
    };
    let state = say(r#"{"cmd":"state"}"#).await;
    assert_eq!(state["devices"].as_array().unwrap().len(), 20);
    let first = &state["devices"][0];
    assert_eq!(first["device"], "127.10.0.1");
    assert_eq!(first["config_hash"].as_str().unwrap().len(), 64);
    assert_eq!(first["mode"], "normal");
    let one = say(r#"{"cmd":"state","device":"127.10.0.7"}"#).await;
    assert_eq!(one["devices"].as_array().unwrap().len(), 1);
    assert_eq!(say(r#"{"cmd":"fault","kind":"lie","share":0.25}"#).await, json!({"ok": true, "devices": 5}));
    assert_eq!(say(r#"{"cmd":"clear"}"#).await, json!({"ok": true}));
    assert!(say(r#"{"cmd":"totals"}"#).await["power_w"].as_f64().unwrap() > 40_000.0);
    for bad in
        ["nonsense", r#"{"cmd":"fault","kind":"x"}"#, r#"{"cmd":"fault","kind":"lie","device":"127.1.1.1"}"#]
    {
        let reply = say(bad).await;
        assert_eq!(reply["ok"], false);
        assert!(reply["error"].is_string());
    }
    assert_eq!(say(r#"{"cmd":"stop"}"#).await, json!({"ok": true}));
    timeout(Duration::from_secs(2), s.farm.asked_to_stop()).await.unwrap();
    s.farm.stop().await;
}

#[tokio::test]
async fn what_cannot_be_served_is_said_in_one_line() {
    let s = of("luxos", 1).await;
    let taken = Config { api_port: s.api, web_port: free_port().await, miners: 1, ..Config::default() };
    let error = Farm::start(taken).await.err().unwrap().to_string();
    assert!(error.contains("the port is taken; choose another with --api-port"), "{error}");
    let open = Config { control: Some("0.0.0.0:4000".parse().unwrap()), ..Config::default() };
    assert!(Farm::start(open).await.err().unwrap().to_string().contains("loopback only"));
    let folder = Config {
        api_port: free_port().await,
        web_port: free_port().await,
        log: Some("/nonexistent/farm.jsonl".into()),
        ..Config::default()
    };
    assert!(Farm::start(folder).await.err().unwrap().to_string().contains("cannot write /nonexistent"));
}
