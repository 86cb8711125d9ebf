//! Drivers against devices made here: small servers that keep a state and lie as real ones do.
#![allow(clippy::unwrap_used)]

use hashinsight_firmware::{
    Credentials, Device, DeviceError, Identified, Limits, Profiles, Secret, identify, judge_running,
    judge_stopped, pre_state, read, stop, wake,
};
use hashinsight_protocol::device::{FactV1, ModeV1};
use hashinsight_protocol::units::{Millis, Watts};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const LIMITS: Limits = Limits { deadline: Duration::from_secs(3), max_reply: 1 << 18 };

/// Profiles that wait no longer than a test should.
fn profiles() -> Profiles {
    let folder = tempfile::tempdir().unwrap();
    for name in ["antminer-stock", "whatsminer-v2", "avalon", "braiins", "luxos"] {
        let text =
            std::fs::read_to_string(format!("{}/profiles/{name}.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let text: String =
            text.lines()
                .map(|line| {
                    if line.starts_with("settle_s") {
                        "settle_s = 1\n".to_owned()
                    } else {
                        format!("{line}\n")
                    }
                })
                .collect();
        std::fs::write(folder.path().join(format!("{name}.toml")), text).unwrap();
    }
    Profiles::with_folder(folder.path()).unwrap()
}

/// Serves the CGMiner API: `answer` gets each request and gives the reply, or nothing.
async fn api(answer: impl Fn(Value) -> Option<String> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut buffer = vec![0; 8192];
                let n = stream.read(&mut buffer).await.unwrap_or(0);
                let request = serde_json::from_slice(&buffer[..n]).unwrap_or(Value::Null);
                if let Some(reply) = answer(request) {
                    let _ = stream.write_all(reply.as_bytes()).await;
                    let _ = stream.write_all(&[0]).await;
                }
            });
        }
    });
    port
}

/// Serves HTTP behind a digest challenge: `answer` gets (path, body) once signed in.
async fn web(answer: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                let mut buffer = vec![0; 8192];
                let text = loop {
                    let n = stream.read(&mut buffer).await.unwrap_or(0);
                    bytes.extend_from_slice(&buffer[..n]);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    if n == 0 || is_whole(&text) {
                        break text;
                    }
                };
                let path = text.split(' ').nth(1).unwrap_or("").to_owned();
                let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                let reply = if text.to_lowercase().contains("authorization: digest username=\"root\"") {
                    let body = answer(&path, body);
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                } else {
                    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"antMiner Configuration\", \
                     nonce=\"n\", qop=\"auth\"\r\nContent-Length: 0\r\n\r\n"
                        .to_owned()
                };
                let _ = stream.write_all(reply.as_bytes()).await;
            });
        }
    });
    port
}

fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .to_lowercase()
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next()?.trim().parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}

fn device(api_port: u16, web_port: u16) -> Device {
    let credentials = Some(Credentials { user: "root".to_owned(), password: Secret::new("root") });
    Device { api_port, web_port, credentials, ..Device::at(Ipv4Addr::LOCALHOST.into()) }
}

/// Which writes a simulated Antminer honours.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    MinerModeAlone,
    WholeWithMinerMode,
    WholeWithBothNumbers,
    Nothing,
    AnythingButMovesAField,
}

struct Antminer {
    conf: Value,
    takes: Takes,
    writes: Vec<Value>,
}

/// A stock Antminer whose API answers with the `}{` of its family.
async fn antminer(mode: &str, takes: Takes) -> (Device, Arc<Mutex<Antminer>>) {
    let state = Arc::new(Mutex::new(Antminer {
        conf: json!({
            "pools": [{"url": "stratum+tcp://pool.example:3333", "user": "a.b", "pass": "hush"}],
            "bitmain-fan-ctrl": false, "bitmain-fan-pwm": "100", "bitmain-work-mode": mode,
            "bitmain-freq-level": "90", "bitmain-user-ip-cat": null,
        }),
        takes,
        writes: Vec::new(),
    }));
    let shared = Arc::clone(&state);
    let api_port = api(move |request| {
        let asleep = shared.lock().unwrap().conf["bitmain-work-mode"] == "1";
        let row = if asleep {
            String::new()
        } else {
            r#"{"STATS":0,"Elapsed":100,"GHS 5s":"110566.89","GHS av":111834.63,"rate_unit":"GH","fan_num":4,"fan1":6000,"fan2":5880,"fan3":5040,"fan4":5040,"temp_chip1":"78-50-69-70","temp_chip2":"0-0-0-0","chain_rate1":"37603.30","chain_power":"3250 W"}"#.to_owned()
        };
        Some(match request["command"].as_str()? {
            "version" => r#"{"STATUS":[{"STATUS":"S","When":1,"Code":22,"Msg":"CGMiner versions","Description":"cgminer 1.0.0"}],"VERSION":[{"BMMiner":"1.0.0","API":"3.1","CompileTime":"Mon Dec 26 17:10:01 CST 2022","Type":"Antminer S19 Pro"}],"id":1}"#.to_owned(),
            "stats" => format!(r#"{{"STATUS":[{{"STATUS":"S","Code":70,"Msg":"CGMiner stats"}}],"STATS":[{{"BMMiner":"1.0.0","Type":"Antminer S19 Pro"}}{row}],"id":1}}"#),
            "summary" => r#"{"STATUS":[{"STATUS":"S","Code":11}],"SUMMARY":[{"Elapsed":1,"GHS 5s":0.0,"GHS av":0.0}],"id":1}"#.to_owned(),
            "pools" => r#"{"STATUS":[{"STATUS":"S","Code":7}],"POOLS":[{"POOL":0,"URL":"stratum+tcp://pool.example:3333","User":"a.b","Accepted":5,"Rejected":1,"Stale":0,"Status":"Alive"},{"POOL":1,"URL":"","Status":"Deed"}],"id":1}"#.to_owned(),
            _ => r#"{"STATUS":[{"STATUS":"E","Code":14,"Msg":"Invalid command"}],"id":1}"#.to_owned(),
        })
    })
    .await;
    let shared = Arc::clone(&state);
    let web_port = web(move |path, body| {
        let mut state = shared.lock().unwrap();
        match path {
            "/cgi-bin/get_miner_conf.cgi" => state.conf.to_string(),
            "/cgi-bin/get_system_info.cgi" => {
                json!({"minertype": "Antminer S19 Pro", "macaddr": "02:00:00:00:00:01", "serinum": "SN1"})
                    .to_string()
            }
            _ => {
                let body: Value = serde_json::from_str(body).unwrap();
                state.writes.push(body.clone());
                let whole = body.get("pools").is_some();
                let number = |key: &str| body.get(key).and_then(Value::as_i64);
                let mode = match state.takes {
                    Takes::MinerModeAlone if !whole => number("miner-mode"),
                    Takes::WholeWithMinerMode if whole && body.get("bitmain-work-mode").is_none() => {
                        number("miner-mode")
                    }
                    Takes::WholeWithBothNumbers if whole => {
                        number("miner-mode").and(number("bitmain-work-mode"))
                    }
                    Takes::AnythingButMovesAField if !whole => {
                        state.conf["bitmain-freq-level"] = "100".into();
                        number("miner-mode")
                    }
                    _ => None,
                };
                if let Some(mode) = mode {
                    state.conf["bitmain-work-mode"] = mode.to_string().into();
                }
                if whole && state.takes == Takes::AnythingButMovesAField {
                    state.conf = body;
                }
                r#"{"stats":"success","code":"M000","msg":"OK!"}"#.to_owned()
            }
        }
    })
    .await;
    (device(api_port, web_port), state)
}

#[tokio::test]
async fn an_antminer_is_read_stopped_and_woken_to_its_own_mode() {
    let profiles = profiles();
    for takes in [Takes::MinerModeAlone, Takes::WholeWithMinerMode, Takes::WholeWithBothNumbers] {
        // The high-efficiency mode must come back, not the ordinary one.
        let (device, state) = antminer("2", takes).await;
        let before = state.lock().unwrap().conf.clone();
        let who = identify(&profiles, &device, &LIMITS).await.unwrap();
        assert_eq!(
            (who.firmware.as_str(), who.mac.as_deref()),
            ("antminer-stock", Some("02:00:00:00:00:01"))
        );
        assert!(!who.joins);
        let running = read(&profiles, &device, &who, &LIMITS).await.unwrap();
        assert_eq!(running.hashrate.unwrap().get(), 110_566.89e9);
        assert_eq!(running.power, Watts::new(3250.0));
        assert_eq!(running.fans_rpm, [6000, 5880, 5040, 5040]);
        assert_eq!(running.pools.len(), 1);
        assert!(running.repairs.iter().any(|r| r.contains("comma")));

        let pre = pre_state(&profiles, &device, &who, &LIMITS).await.unwrap();
        assert_eq!((pre.mode, pre.vendor_mode), (ModeV1::HighEfficiency, Some(2)));
        let stopped = stop(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap();
        assert_eq!((stopped.accepted, stopped.mode), (FactV1::Yes, FactV1::Yes), "{}", stopped.detail);
        assert!(!stopped.detail.contains("hush"));

        let asleep = read(&profiles, &device, &who, &LIMITS).await.unwrap();
        assert_eq!(asleep.is_mining, Some(false));
        let back = pre_state(&profiles, &device, &who, &LIMITS).await.unwrap();
        assert_eq!(
            judge_stopped(&profiles, &who, &asleep, Some(&back), running.power),
            (FactV1::Yes, FactV1::Yes)
        );
        // Stopped again: nothing is written.
        let writes = state.lock().unwrap().writes.len();
        let again = stop(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap();
        assert_eq!(again.accepted, FactV1::NotApplicable);
        assert_eq!(state.lock().unwrap().writes.len(), writes);

        // The shape that worked is the first one now.
        let woken = wake(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap();
        assert_eq!((woken.accepted, woken.mode), (FactV1::Yes, FactV1::Yes), "{}", woken.detail);
        assert_eq!(woken.shape, stopped.shape);
        assert_eq!(state.lock().unwrap().writes.len(), writes + 1);
        assert_eq!(state.lock().unwrap().conf, before);
        let reading = read(&profiles, &device, &who, &LIMITS).await.unwrap();
        let back = pre_state(&profiles, &device, &who, &LIMITS).await.unwrap();
        assert_eq!(judge_running(&profiles, &who, &reading, Some(&back), &pre), (FactV1::Yes, FactV1::Yes));
    }
}

#[tokio::test]
async fn success_that_changes_nothing_is_not_success() {
    let profiles = profiles();
    let (device, state) = antminer("0", Takes::Nothing).await;
    let who = identify(&profiles, &device, &LIMITS).await.unwrap();
    let pre = pre_state(&profiles, &device, &who, &LIMITS).await.unwrap();
    let outcome = stop(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap();
    assert_eq!((outcome.accepted, outcome.mode), (FactV1::Yes, FactV1::No));
    // No default that the device did not report is ever sent.
    for body in &state.lock().unwrap().writes {
        assert!(body.get("bitmain-hashrate-percent").is_none());
        assert!(body.get("freq-level").is_none());
    }
    let reading = read(&profiles, &device, &who, &LIMITS).await.unwrap();
    assert_eq!(judge_stopped(&profiles, &who, &reading, Some(&pre), reading.power), (FactV1::No, FactV1::No));
}

#[tokio::test]
async fn a_field_that_moves_is_put_back_and_ends_the_attempt() {
    let profiles = profiles();
    let (device, state) = antminer("0", Takes::AnythingButMovesAField).await;
    let before = state.lock().unwrap().conf.clone();
    let who = identify(&profiles, &device, &LIMITS).await.unwrap();
    let pre = pre_state(&profiles, &device, &who, &LIMITS).await.unwrap();
    let error = stop(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap_err();
    assert!(
        matches!(&error, DeviceError::FieldMoved { fields, restored: true, .. } if fields == "bitmain-freq-level"),
        "{error}"
    );
    assert_eq!(state.lock().unwrap().conf, before);
    assert_eq!(state.lock().unwrap().writes.len(), 2);
}

#[tokio::test]
async fn another_device_at_the_address_is_not_written_to() {
    let profiles = profiles();
    let (device, state) = antminer("0", Takes::MinerModeAlone).await;
    let who = identify(&profiles, &device, &LIMITS).await.unwrap();
    let pre = pre_state(&profiles, &device, &who, &LIMITS).await.unwrap();
    let other = Identified { mac: Some("02:00:00:00:00:99".to_owned()), ..who };
    let error = stop(&profiles, &device, &other, &pre, &LIMITS, Millis(0)).await.unwrap_err();
    assert!(matches!(error, DeviceError::Changed { .. }));
    assert!(state.lock().unwrap().writes.is_empty());
}

#[tokio::test]
async fn an_avalon_sleeps_by_its_own_clock() {
    let profiles = profiles();
    let asleep = Arc::new(Mutex::new(false));
    let shared = Arc::clone(&asleep);
    let port = api(move |request| {
        let mut asleep = shared.lock().unwrap();
        let status = |letter: &str, code: i64, msg: &str| {
            format!(r#"{{"STATUS":[{{"STATUS":"{letter}","When":478,"Code":{code},"Msg":"{msg}","Description":"cgminer 4.11.1"}}],"id":1}}"#)
        };
        Some(match (request["command"].as_str()?, request["parameter"].as_str()) {
            ("version", _) => r#"{"STATUS":[{"STATUS":"S","When":478,"Code":22,"Msg":"CGMiner versions"}],"VERSION":[{"CGMiner":"4.11.1","API":"3.7","PROD":"AvalonMiner 1346-110","MODEL":"1346-110","DNA":"0201","MAC":"AA:BB:CC:DD:EE:FF"}],"id":1}"#.to_owned(),
            ("estats", _) => {
                let (work, rate, ps) = if *asleep { ("In Idle", "0.00", "0 1197 0 0 0 1393 11") } else { ("In Work", "110778.38", "0 1199 1391 225 3126 1393 3348") };
                format!(r#"{{"STATUS":[{{"STATUS":"S","When":478,"Code":70}}],"STATS":[{{"STATS":0,"ID":"AVA100","MM ID0":"Ver[1346-110-24041001_08b0955_0196aba] SYSTEMSTATU[Work: {work}, Hash Board: 3 ] Elapsed[474] Fan1[5344] MTmax[77 77 76] Freq[nan] PS[{ps}] GHSspd[{rate}] GHSavg[70967.1] WORKMODE[1]"}}],"id":1}}"#)
            }
            ("summary", _) => r#"{"STATUS":[{"STATUS":"S"}],"SUMMARY":[{"Elapsed":474,"MHS av":22622399.47}],"id":1}"#.to_owned(),
            ("pools", _) => r#"{"STATUS":[{"STATUS":"S"}],"POOLS":[],"id":1}"#.to_owned(),
            ("ascset", Some("0,softoff,1:480")) => {
                *asleep = true;
                status("I", 118, "ASC 0 set info: success softoff:480")
            }
            // This one wakes by a restart alone.
            ("ascset", Some("0,softon,1:480")) => status("I", 118, "ASC 0 set info: success softon:480"),
            ("ascset", Some("0,reboot,1")) => {
                *asleep = false;
                status("S", 119, "ASC 0 set OK")
            }
            _ => status("E", 14, "Invalid command"),
        })
    })
    .await;
    let device = device(port, 1);
    let who = identify(&profiles, &device, &LIMITS).await.unwrap();
    assert_eq!((who.firmware.as_str(), who.model.as_deref()), ("avalon", Some("AvalonMiner 1346-110")));
    let running = read(&profiles, &device, &who, &LIMITS).await.unwrap();
    assert_eq!((running.hashrate.unwrap().terahash(), running.power), (110.778_38, Watts::new(3348.0)));
    let pre = pre_state(&profiles, &device, &who, &LIMITS).await.unwrap();
    assert_eq!((pre.mode, pre.vendor_mode), (ModeV1::Normal, Some(1)));
    let stopped = stop(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap();
    assert_eq!((stopped.accepted, stopped.mode), (FactV1::Yes, FactV1::Yes), "{}", stopped.detail);
    let reading = read(&profiles, &device, &who, &LIMITS).await.unwrap();
    assert_eq!((reading.hashrate.unwrap().get(), reading.power), (0.0, Watts::new(11.0)));
    assert_eq!(judge_stopped(&profiles, &who, &reading, None, running.power), (FactV1::Yes, FactV1::Yes));
    let woken = wake(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap();
    assert_eq!((woken.mode, woken.shape.as_deref()), (FactV1::Yes, Some("0,reboot,1")), "{}", woken.detail);
}

#[tokio::test]
async fn a_luxos_session_is_always_given_back() {
    #[derive(Default)]
    struct Luxos {
        session: Option<String>,
        asleep: bool,
        refuse: bool,
    }
    let profiles = profiles();
    let state = Arc::new(Mutex::new(Luxos::default()));
    let shared = Arc::clone(&state);
    let port = api(move |request| {
        let mut state = shared.lock().unwrap();
        let reply = |letter: &str, code: i64, rest: &str| {
            format!(r#"{{"STATUS":[{{"STATUS":"{letter}","Code":{code},"Description":"LUXminer 2025.4.8","Msg":"m"}}]{rest},"id":1}}"#)
        };
        Some(match (request["command"].as_str()?, request["parameter"].as_str()) {
            ("version", _) => reply("S", 22, r#","VERSION":[{"API":"3.7","LUXminer":"2025.4.8","Type":"Antminer S19k Pro"}]"#),
            ("config", _) => {
                let mode = if state.asleep { "Sleep" } else { "None" };
                reply("S", 33, &format!(r#","CONFIG":[{{"OS":"LuxOS","CurtailMode":"{mode}","Profile":"290MHz","Model":"Antminer S19k Pro","SerialNumber":"X"}}]"#))
            }
            ("power", _) => reply("S", 311, &format!(r#","POWER":[{{"Watts":{}}}]"#, if state.asleep { 24 } else { 2700 })),
            ("summary", _) => reply("S", 11, &format!(r#","SUMMARY":[{{"GHS 5s":{}}}]"#, if state.asleep { 0 } else { 118_000 })),
            ("logon", _) if state.session.is_some() => reply("E", 402, ""),
            ("logon", _) => {
                state.session = Some("abc".to_owned());
                reply("S", 316, r#","SESSION":[{"SessionID":"abc"}]"#)
            }
            ("logoff", Some(id)) => {
                if state.session.as_deref() == Some(id) {
                    state.session = None;
                }
                reply("S", 317, "")
            }
            ("curtail", Some("abc,sleep")) if !state.refuse => {
                state.asleep = true;
                reply("S", 335, "")
            }
            ("curtail", Some("abc,wakeup")) => {
                state.asleep = false;
                reply("S", 335, "")
            }
            ("temps" | "fans" | "devs" | "pools", _) => reply("S", 1, ""),
            _ => reply("E", 14, ""),
        })
    })
    .await;
    let device = device(port, 1);
    let who = identify(&profiles, &device, &LIMITS).await.unwrap();
    assert_eq!(who.firmware, "luxos");
    let pre = pre_state(&profiles, &device, &who, &LIMITS).await.unwrap();
    state.lock().unwrap().refuse = true;
    let refused = stop(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap();
    assert_eq!((refused.accepted, refused.mode), (FactV1::No, FactV1::No));
    assert!(state.lock().unwrap().session.is_none());
    state.lock().unwrap().refuse = false;
    let stopped = stop(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap();
    assert_eq!((stopped.accepted, stopped.mode), (FactV1::Yes, FactV1::Yes));
    let reading = read(&profiles, &device, &who, &LIMITS).await.unwrap();
    assert_eq!(
        judge_stopped(&profiles, &who, &reading, None, Watts::new(2700.0)),
        (FactV1::Yes, FactV1::Yes)
    );
    assert!(state.lock().unwrap().session.is_none());
    let woken = wake(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap();
    assert_eq!((woken.accepted, woken.mode), (FactV1::Yes, FactV1::Yes));
    // Somebody else's session is not taken over.
    state.lock().unwrap().session = Some("theirs".to_owned());
    let error = stop(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap_err();
    assert!(error.to_string().contains("402"), "{error}");
}

#[tokio::test]
async fn a_lost_reply_to_a_write_is_neither_success_nor_failure() {
    let profiles = profiles();
    let off = Arc::new(Mutex::new(false));
    let shared = Arc::clone(&off);
    let port = api(move |request| {
        let mut off = shared.lock().unwrap();
        if request.get("enc").is_some() {
            // As firmware 20230208: it does what it is told and says nothing.
            *off = true;
            return None;
        }
        let name = request["command"].as_str().or_else(|| request["cmd"].as_str())?;
        Some(match name {
            "version" | "get_version" => r#"{"STATUS":"S","When":1,"Code":131,"Msg":{"api_ver":"2.0.5","fw_ver":"20230803.11.REL"},"Description":""}"#.to_owned(),
            "get_token" => r#"{"STATUS":"S","When":1,"Code":134,"Msg":{"time":"1741505626","salt":"BQ5hoXV9","newsalt":"jbzkfQls"},"Description":""}"#.to_owned(),
            "status" => format!(r#"{{"STATUS":"S","Code":131,"Msg":{{"mineroff":"{off}","power_mode":"low","power_limit_set":"3300"}}}}"#),
            "summary" => format!(r#"{{"STATUS":[{{"STATUS":"S"}}],"SUMMARY":[{{"HS RT":{},"Power":{},"Elapsed":5}}]}}"#, if *off { 0.0 } else { 124_500_000.0 }, if *off { 13 } else { 3200 }),
            _ => r#"{"STATUS":"E","Code":14,"Msg":"invalid cmd"}"#.to_owned(),
        })
    })
    .await;
    let device = device(port, 1);
    let who = identify(&profiles, &device, &LIMITS).await.unwrap();
    assert_eq!(who.firmware, "whatsminer-v2");
    let pre = pre_state(&profiles, &device, &who, &LIMITS).await.unwrap();
    assert_eq!(
        (pre.mode, pre.profile.as_deref(), pre.limit),
        (ModeV1::LowPower, Some("low"), Watts::new(3300.0))
    );
    let stopped = stop(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap();
    assert_eq!((stopped.accepted, stopped.mode), (FactV1::Unknown, FactV1::Yes), "{}", stopped.detail);
}

#[tokio::test]
async fn a_generic_device_is_read_and_says_that_it_cannot_be_stopped() {
    let profiles = Profiles::builtin();
    let port = api(|request| {
        Some(match request["command"].as_str()? {
            "version" => r#"{"STATUS":[{"STATUS":"S","Code":22,"Msg":"CGMiner versions","Description":"cgminer 4.13.6"}],"VERSION":[{"CGMiner":"4.13.6","API":"3.7"}],"id":1}"#,
            "summary" => r#"{"STATUS":[{"STATUS":"S","Code":11}],"SUMMARY":[{"Elapsed":9,"MHS av":1.5,"MHS 5s":2.5,"Accepted":1,"Rejected":0}],"id":1}"#,
            "devs" => r#"{"STATUS":[{"STATUS":"E","Code":10,"Msg":"No ASCs/PGAs"}],"id":1}"#,
            "summary+devs+pools" => r#"{"STATUS":[{"STATUS":"E","Code":14}],"id":1}"#,
            _ => r#"{"STATUS":[{"STATUS":"S","Code":7}],"POOLS":[],"id":1}"#,
        }.to_owned())
    })
    .await;
    let device = device(port, 1);
    let who = identify(&profiles, &device, &LIMITS).await.unwrap();
    assert_eq!(who.firmware, "cgminer");
    let reading = read(&profiles, &device, &who, &LIMITS).await.unwrap();
    assert_eq!(reading.hashrate.unwrap().get(), 2.5e6);
    assert_eq!(reading.power, None);
    let pre = hashinsight_protocol::device::PreStateV1 {
        mode: ModeV1::Normal,
        vendor_mode: None,
        limit: None,
        profile: None,
        config_hash: None,
    };
    let error = stop(&profiles, &device, &who, &pre, &LIMITS, Millis(0)).await.unwrap_err();
    assert!(matches!(error, DeviceError::Unsupported { .. }), "{error}");
}

/// The agent runs each write as a task of its own.
#[test]
fn every_call_may_move_between_threads() {
    fn movable<T: Send>(_: &T) {}
    let (profiles, device) = (Profiles::builtin(), device(1, 1));
    let who = Identified {
        firmware: "antminer-stock".to_owned(),
        model: None,
        version: None,
        serial: None,
        mac: None,
        capabilities: Default::default(),
        standby: None,
        nameplate: None,
        joins: false,
    };
    let pre = hashinsight_protocol::device::PreStateV1 {
        mode: ModeV1::Normal,
        vendor_mode: None,
        limit: None,
        profile: None,
        config_hash: None,
    };
    let reboot = hashinsight_firmware::Change::Reboot;
    movable(&identify(&profiles, &device, &LIMITS));
    movable(&read(&profiles, &device, &who, &LIMITS));
    movable(&pre_state(&profiles, &device, &who, &LIMITS));
    movable(&stop(&profiles, &device, &who, &pre, &LIMITS, Millis(0)));
    movable(&wake(&profiles, &device, &who, &pre, &LIMITS, Millis(0)));
    movable(&hashinsight_firmware::change(&profiles, &device, &who, &reboot, &LIMITS, Millis(0)));
}
