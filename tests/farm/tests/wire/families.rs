//! Each family's protocol: framing, reads, sleeping and waking.

use crate::site::{Site, exchange, of, status};
use hashinsight_farm::family::whatsminer_token::{decrypt, encrypt, md5crypt};
use hashinsight_farm::{Family, digest};
use hashinsight_protocol::device::ModeV1;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn cgminer_frames_its_replies_as_the_real_one() {
    let s = of("cgminer", 2).await;
    let d = s.first();
    let reply = s.raw(d, br#"{"command":"version"}"#).await.unwrap();
    assert_eq!(reply.iter().filter(|b| **b == 0).count(), 1);
    assert_eq!(reply.last(), Some(&0));
    assert!(reply.starts_with(br#"{"STATUS":[{"STATUS":"S","When":1800000000,"Code":22,"Msg":"CGMiner versions","Description":"cgminer 4.13.1"}],"VERSION":[{"CGMiner":"4.13.1","API":"3.7"}],"id":1}"#));

    let cases: [(&[u8], &str); 12] = [
        (
            b"version",
            "STATUS=S,When=1800000000,Code=22,Msg=CGMiner versions,Description=cgminer 4.13.1|VERSION,CGMiner=4.13.1,API=3.7|",
        ),
        (b"version\0", "STATUS=S,When=1800000000,Code=22"),
        (b"version\n", "STATUS=E,When=1800000000,Code=14,Msg=Invalid command|"),
        (b" {\"command\":\"version\"}", "STATUS=E,When=1800000000,Code=14"),
        (b"GET / HTTP/1.1\r\n\r\n", "STATUS=E,When=1800000000,Code=14"),
        (
            b"{\"command\":\"version\"}\0",
            "{\"STATUS\":[{\"STATUS\":\"E\",\"When\":1800000000,\"Code\":23,\"Msg\":\"Invalid JSON\"",
        ),
        (b"{\"command\":\"version\"}\n", "{\"STATUS\":[{\"STATUS\":\"S\""),
        (
            b"{\"command\":\"version\"}{\"command\":\"version\"}",
            "{\"STATUS\":[{\"STATUS\":\"E\",\"When\":1800000000,\"Code\":23",
        ),
        (
            b"{\"commands\":1}",
            "{\"STATUS\":[{\"STATUS\":\"E\",\"When\":1800000000,\"Code\":24,\"Msg\":\"Missing JSON 'command'\"",
        ),
        (
            b"{\"command\":\"VERSION\"}",
            "{\"STATUS\":[{\"STATUS\":\"E\",\"When\":1800000000,\"Code\":14,\"Msg\":\"Invalid command\"}],\"id\":1}",
        ),
        (b"{\"command\":7}", "{\"STATUS\":[{\"STATUS\":\"E\",\"When\":1800000000,\"Code\":14"),
        (b"{\"command\":\"asc\",\"parameter\":0}", "{\"STATUS\":[{\"STATUS\":\"S\""),
    ];
    for (request, begins) in cases {
        let reply = s.raw(d, request).await.unwrap();
        let text = String::from_utf8_lossy(&reply);
        assert!(text.starts_with(begins), "{}: {text}", String::from_utf8_lossy(request));
        assert!(text.ends_with('\0'));
    }
    let mut long = br#"{"command":"version","x":""#.to_vec();
    long.resize(5000, b'a');
    long.extend_from_slice(b"\"}");
    // The rest of a long request is never received, so the connection ends in a reset or an error reply.
    if let Ok(reply) = s.raw(d, &long).await {
        assert!(String::from_utf8_lossy(&reply).contains("Code\":23"), "{}", String::from_utf8_lossy(&reply));
    }

    let joined = s.ask(d, "summary+pools+nosuch+quit+summary", None).await;
    assert_eq!(
        joined.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["summary", "pools", "nosuch", "quit", "id"]
    );
    assert_eq!(status(&joined["nosuch"][0]), ("E", 14));
    assert_eq!(status(&joined["quit"][0]), ("E", 45));
    assert!(joined["summary"][0]["SUMMARY"][0]["MHS 5s"].as_f64().unwrap() > 250_000.0);
    assert!(s.text(d, "summary+pools").await.starts_with("CMD=summary|STATUS=S"));

    assert_eq!(status(&s.ask(d, "ascdisable", Some("99")).await), ("E", 107));
    assert_eq!(status(&s.ask(d, "ascdisable", Some("abc")).await), ("I", 111));
    assert_eq!(status(&s.ask(d, "ascdisable", Some("0")).await), ("I", 109));
    s.pass(5);
    assert_eq!(s.ask(d, "summary", None).await["SUMMARY"][0]["MHS 5s"], 0.0);
    assert_eq!(status(&s.ask(d, "ascenable", Some("0")).await), ("I", 110));
}

#[tokio::test]
async fn a_silent_client_blocks_its_device_and_no_other() {
    let s = of("cgminer", 2).await;
    let devices: Vec<_> = s.states(Family::Cgminer).iter().map(|d| d.device).collect();
    let silent = TcpStream::connect(SocketAddrV4::new(devices[0], s.api)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let blocked = s.raw(devices[0], b"version");
    assert!(timeout(Duration::from_millis(300), blocked).await.is_err());
    assert_eq!(s.ask(devices[1], "version", None).await["id"], 1);
    drop(silent);
    assert!(s.text(devices[0], "version").await.starts_with("STATUS=S"));
    // Where no device lives, the connection ends at once and without a byte.
    let nobody = exchange(SocketAddrV4::new(Ipv4Addr::new(127, 10, 9, 9), s.api), b"version").await;
    assert!(nobody.map_or(true, |reply| reply.is_empty()));
}

/// One HTTP request on a connection of its own.
async fn http(
    address: SocketAddrV4,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (u16, String, String) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: miner\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let reply = String::from_utf8(exchange(address, request.as_bytes()).await.unwrap()).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
}

impl Site {
    /// A request to the web server with the factory login.
    async fn web(&self, device: Ipv4Addr, method: &str, path: &str, kind: &str, body: &str) -> Value {
        let address = SocketAddrV4::new(device, self.web);
        let (code, head, _) = http(address, method, path, "", "").await;
        assert_eq!(code, 401);
        let challenge = head.lines().find_map(|l| l.strip_prefix("WWW-Authenticate: ")).unwrap();
        assert!(challenge.starts_with("Digest realm=\"antMiner Configuration\""), "{challenge}");
        let login = digest::authorize(challenge, method, path).unwrap();
        let headers = format!("Authorization: {login}\r\nContent-Type: {kind}\r\n");
        let (code, _, body) = http(address, method, path, &headers, body).await;
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn conf(&self, device: Ipv4Addr) -> Value {
        self.web(device, "GET", "/cgi-bin/get_miner_conf.cgi", "", "").await
    }

    async fn set_conf(&self, device: Ipv4Addr, kind: &str, body: &Value) {
        let path = "/cgi-bin/set_miner_conf.cgi";
        let reply = self.web(device, "POST", path, kind, &body.to_string()).await;
        assert_eq!(reply["code"], "M000");
    }
}

#[tokio::test]
async fn antminers_read_on_one_port_and_sleep_on_the_other() {
    let s = of("antminer-stock", 40).await;
    let old = s.model("Antminer S19j Pro");
    let new = s.model("Antminer S21");

    let text = String::from_utf8(s.raw(old, br#"{"command":"stats"}"#).await.unwrap()).unwrap();
    assert!(text.contains(r#""Type":"Antminer S19j Pro"}{"STATS":0"#), "{text}");
    assert!(text.contains(r#""GHS 5s":"10"#));
    let repaired = text.trim_end_matches('\0').replace("}{", "},{");
    let stats: Value = serde_json::from_str(&repaired).unwrap();
    assert_eq!(stats["STATS"][1]["temp_chip1"].as_str().unwrap().split('-').count(), 4);
    assert!(s.text(old, "stats").await.contains("|BMMiner=1.0.0,Miner=49.0.1.3,"));
    let stats = s.ask(new, "stats", None).await;
    assert!(stats["STATS"][1]["GHS 5s"].as_f64().unwrap() > 180_000.0);
    assert!(stats["STATS"][1]["chain_power"].as_str().unwrap().ends_with(" W"));
    let reply = s.raw(new, br#"{"command":"stats","new_api":true}"#).await.unwrap();
    let reply: Value = serde_json::from_slice(reply.strip_suffix(b"\0").unwrap()).unwrap();
    assert!(reply["STATS"][0]["watt"].as_i64().unwrap() > 3_000);

    assert_eq!(status(&s.ask(new, "summary+pools", None).await), ("E", 14));
    for command in ["ascdisable", "addpool", "restart", "privileged"] {
        assert_eq!(status(&s.ask(new, command, Some("0")).await), ("E", 45), "{command}");
    }
    assert_eq!(s.ask(new, "pools", None).await["POOLS"][2]["Status"], "Deed");

    // Every model sleeps by one shape alone; the wrong one is answered with success.
    for name in ["Antminer S19j Pro", "Antminer S21", "Antminer S19 XP", "Antminer S19K Pro", "Antminer S21+"]
    {
        let device = s.model(name);
        let before = s.state(device);
        let document = s.conf(device).await;
        let with = |mode: i64, keys: &[&str]| {
            let mut body = document.clone();
            let map = body.as_object_mut().unwrap();
            map.remove("bitmain-work-mode");
            map.values_mut().filter(|v| v.is_null()).for_each(|v| *v = json!("0"));
            keys.iter().for_each(|k| drop(map.insert((*k).into(), json!(mode))));
            body
        };
        let (kind, wrong, off, on) = match name {
            "Antminer S21" => (
                "application/json",
                json!({"miner-mode": 1}),
                json!({"bitmain-work-mode": "1"}),
                json!({"bitmain-work-mode": "0"}),
            ),
            "Antminer S19 XP" => (
                "text/plain;charset=UTF-8",
                with(1, &["miner-mode", "bitmain-work-mode"]),
                with(1, &["miner-mode"]),
                with(0, &["miner-mode"]),
            ),
            "Antminer S21+" => (
                "application/json",
                json!({"miner-mode": 1}),
                with(1, &["miner-mode", "bitmain-work-mode"]),
                with(0, &["miner-mode", "bitmain-work-mode"]),
            ),
            _ => (
                "application/json",
                json!({"bitmain-work-mode": 1}),
                json!({"miner-mode": 1}),
                json!({"miner-mode": 0}),
            ),
        };
        s.set_conf(device, kind, &wrong).await;
        assert_eq!(s.state(device).mode, ModeV1::Normal, "{name}");
        s.set_conf(device, kind, &off).await;
        let mode = s.conf(device).await["bitmain-work-mode"].clone();
        assert!(mode == json!("1") || mode == json!(1), "{name}: {mode}");
        s.pass(30);
        let asleep = s.state(device);
        assert_eq!(
            (asleep.mode, asleep.vendor_mode, asleep.phase),
            (ModeV1::Sleep, Some(1), "asleep"),
            "{name}"
        );
        assert!(asleep.power_w < 30.0 && asleep.hashrate_hs == 0.0);
        if name == "Antminer S19j Pro" {
            assert!(s.text(device, "stats").await.contains("Elapsed=0,"));
        } else {
            let stats = s.ask(device, "stats", None).await;
            assert_eq!(stats["STATS"].as_array().unwrap().len(), 1, "no data row asleep");
            assert_eq!(s.web(device, "GET", "/cgi-bin/stats.cgi", "", "").await["STATS"], json!([]));
        }
        s.set_conf(device, kind, &on).await;
        s.pass(60);
        assert_eq!(s.state(device).settings(), before.settings(), "{name} is as it was");
        assert_eq!(s.state(device).phase, "mining");
        let info = s.web(device, "GET", "/cgi-bin/get_system_info.cgi", "", "").await;
        assert_eq!(info["minertype"], name);
    }

    // A pool that moves is seen.
    let device = s.model("Antminer S21");
    let mut document = s.conf(device).await;
    document["pools"][0]["url"] = json!("stratum+tcp://elsewhere.example:3333");
    let before = s.state(device).config_hash;
    s.set_conf(device, "application/json", &document).await;
    assert_ne!(s.state(device).config_hash, before);
    assert_eq!(s.ask(device, "pools", None).await["POOLS"][0]["URL"], "stratum+tcp://elsewhere.example:3333");

    let log = s.log().await;
    let writes: Vec<_> = log.iter().filter(|l| l["kind"] == "write").collect();
    assert!(
        writes.iter().any(|w| w["result"] == "ignored") && writes.iter().any(|w| w["result"] == "refused")
    );
    let sleeps =
        writes.iter().filter(|w| w["before"]["mode"] == "normal" && w["after"]["mode"] == "sleep").count();
    assert_eq!(sleeps, 5);
}

#[tokio::test]
async fn a_login_that_is_wrong_is_refused() {
    let s = of("antminer-stock,luxos", 20).await;
    let device = s.states(Family::Antminer)[0].device;
    let address = SocketAddrV4::new(device, s.web);
    let path = "/cgi-bin/get_miner_conf.cgi";
    let (_, head, _) = http(address, "GET", path, "", "").await;
    let challenge = head.lines().find_map(|l| l.strip_prefix("WWW-Authenticate: ")).unwrap();
    let login = digest::authorize(challenge, "GET", path).unwrap();
    let wrong = login.replace("response=\"", "response=\"0");
    assert_eq!(http(address, "GET", path, &format!("Authorization: {wrong}\r\n"), "").await.0, 401);
    s.pass(600);
    assert_eq!(
        http(address, "GET", path, &format!("Authorization: {login}\r\n"), "").await.0,
        401,
        "stale nonce"
    );
    let luxos = s.states(Family::Luxos)[0].device;
    assert_eq!(http(SocketAddrV4::new(luxos, s.web), "GET", "/", "", "").await.0, 404);
}

struct Key {
    key: String,
    sign: String,
}

impl Site {
    async fn token(&self, device: Ipv4Addr) -> Key {
        let reply = self.raw(device, br#"{"cmd":"get_token"}"#).await.unwrap();
        let reply: Value = serde_json::from_slice(reply.strip_suffix(b"\0").unwrap()).unwrap();
        assert_eq!(status(&reply), ("S", 134));
        let part = |name: &str| reply["Msg"][name].as_str().unwrap().to_owned();
        assert_eq!((part("time").len(), part("salt").len(), part("newsalt").len()), (4, 8, 8));
        let key = md5crypt("admin", &part("salt"));
        let sign = md5crypt(&format!("{key}{}", part("time")), &part("newsalt"));
        Key { key, sign }
    }

    /// An encrypted command; `None` when it is never answered.
    async fn secret(&self, device: Ipv4Addr, key: &Key, mut command: Value) -> Option<Value> {
        command["token"] = json!(key.sign);
        let data = encrypt(&key.key, &command.to_string());
        let request = json!({"enc": 1, "data": data}).to_string();
        let reply = self.raw(device, request.as_bytes()).await.unwrap();
        if reply.is_empty() {
            return None;
        }
        let reply: Value = serde_json::from_slice(reply.strip_suffix(b"\0").unwrap()).unwrap();
        match reply["enc"].as_str() {
            Some(enc) => serde_json::from_str(&decrypt(&key.key, enc).unwrap()).ok(),
            None => Some(reply),
        }
    }
}

#[tokio::test]
async fn whatsminers_write_under_a_token() {
    // The vector: openssl passwd -1 -salt BQ5hoXV9 admin
    assert_eq!(md5crypt("admin", "BQ5hoXV9"), "RxmaDUO33TS7O26yeMHZ81");
    let s = of("whatsminer", 6).await;
    let d = s.first();
    let before = s.state(d);
    let summary = &s.ask(d, "summary", None).await["SUMMARY"][0];
    assert!(summary["HS RT"].as_f64().unwrap() > 100e6 && summary["Power"].as_f64().unwrap() > 3_000.0);
    for command in ["status", "get_version", "get_psu", "get_miner_info"] {
        let reply = s.raw(d, format!(r#"{{"cmd":"{command}"}}"#).as_bytes()).await.unwrap();
        let reply: Value = serde_json::from_slice(reply.strip_suffix(b"\0").unwrap()).unwrap();
        assert_eq!(status(&reply), ("S", 131), "{command}");
        assert!(reply["STATUS"].is_string());
    }
    assert_eq!(s.ask(d, "summary+edevs+pools", None).await["edevs"][0]["DEVS"].as_array().unwrap().len(), 3);
    assert_eq!(s.ask(d, "devdetails", None).await["DEVDETAILS"][0]["Model"], before.model);

    let plain = s.raw(d, br#"{"cmd":"power_off","respbefore":"true"}"#).await.unwrap();
    assert!(String::from_utf8_lossy(&plain).contains(r#""Code":45"#));
    let key = s.token(d).await;
    let stranger = Key { key: key.key.clone(), sign: "x".into() };
    let refused = s.secret(d, &stranger, json!({"cmd": "power_off"})).await.unwrap();
    assert_eq!(status(&refused), ("E", 135));
    assert_eq!(s.state(d).settings(), before.settings());

    let mut unanswered = 0;
    for _ in 0..12 {
        match s.secret(d, &key, json!({"cmd": "power_off", "respbefore": "true"})).await {
            Some(reply) => {
                assert_eq!((status(&reply), reply["Msg"].as_str()), (("S", 131), Some("API command OK")))
            }
            None => unanswered += 1,
        }
        s.pass(5);
        let off = s.state(d);
        assert_eq!((off.mode, off.phase), (ModeV1::Sleep, "asleep"), "it works, answered or not");
        assert!(off.power_w < 16.0);
        assert_eq!(s.ask(d, "summary", None).await["SUMMARY"][0]["HS RT"], 0.0);
        assert_eq!(status(&s.secret(d, &key, json!({"cmd": "power_on"})).await.unwrap()), ("S", 131));
        s.pass(10);
        assert_eq!(s.state(d).phase, "mining");
    }
    assert!((1..12).contains(&unanswered), "{unanswered} of 12 were not answered");
    assert_eq!(s.state(d).settings(), before.settings());

    assert!(s.secret(d, &key, json!({"cmd": "set_low_power"})).await.is_some());
    assert_eq!((s.state(d).mode, s.state(d).vendor_mode), (ModeV1::LowPower, Some(0)));
    s.secret(d, &key, json!({"cmd": "set_normal_power"})).await;
    s.secret(d, &key, json!({"cmd": "adjust_power_limit", "power_limit": "2500"})).await;
    s.pass(60);
    assert_eq!(s.state(d).limit_w, Some(2500));
    assert!(s.state(d).power_w < 2_560.0);
    let odd = s.secret(d, &key, json!({"cmd": "adjust_power_limit", "power_limit": "1"})).await.unwrap();
    assert_eq!(status(&odd), ("E", 132));

    s.pass(31 * 60);
    let late = s.secret(d, &key, json!({"cmd": "power_off"})).await.unwrap();
    assert_eq!(status(&late), ("E", 135), "the token has expired");
    for _ in 0..32 {
        s.token(d).await;
    }
    let reply = s.raw(d, br#"{"cmd":"get_token"}"#).await.unwrap();
    assert!(String::from_utf8_lossy(&reply).contains(r#""Code":136"#));
}

#[tokio::test]
async fn luxos_has_one_session_at_a_time() {
    let s = of("luxos", 2).await;
    let d = s.first();
    let before = s.state(d);
    let reply = s.ask(d, "logon", None).await;
    let sid = reply["SESSION"][0]["SessionID"].as_str().unwrap().to_owned();
    let busy = s.ask(d, "logon", None).await;
    assert_eq!(
        (status(&busy), busy["STATUS"][0]["Msg"].as_str()),
        (("E", 402), Some("Another session is active"))
    );
    assert_eq!(status(&s.ask(d, "curtail", Some("wrong,sleep")).await), ("E", 401));
    assert_eq!(s.state(d).mode, ModeV1::Normal);
    assert_eq!(status(&s.ask(d, "curtail", Some(&format!("{sid},sleep"))).await), ("S", 335));
    assert_eq!(status(&s.ask(d, "logoff", Some(&sid)).await), ("S", 317));
    s.pass(2);
    let power = s.ask(d, "power", None).await["POWER"][0]["Watts"].as_i64().unwrap();
    assert!((20..30).contains(&power), "{power} W asleep");
    assert_eq!(s.ask(d, "config", None).await["CONFIG"][0]["CurtailMode"], "Sleep");
    assert_eq!(s.ask(d, "summary", None).await["SUMMARY"][0]["GHS 5s"], 0.0);
    let sid = s.ask(d, "logon", None).await["SESSION"][0]["SessionID"].as_str().unwrap().to_owned();
    assert!(
        s.ask(d, "curtail", Some(&format!("{sid},sleep"))).await["STATUS"][0]["Msg"]
            .as_str()
            .unwrap()
            .contains("already")
    );
    assert_eq!(status(&s.ask(d, "curtail", Some(&format!("{sid},wakeup"))).await), ("S", 335));
    let name = s.ask(d, "profiles", None).await["PROFILES"][5]["Profile Name"].as_str().unwrap().to_owned();
    assert_eq!(status(&s.ask(d, "profileset", Some(&format!("{sid},{name}"))).await), ("S", 325));
    assert_eq!(s.state(d).profile, Some(name));
    s.pass(61);
    assert_eq!(status(&s.ask(d, "logon", None).await), ("S", 316), "an idle session ends by itself");
    assert_eq!(s.state(d).mode, before.mode);
}

#[tokio::test]
async fn avalons_sleep_by_their_own_clock_and_keep_their_averages() {
    let s = of("avalon", 12).await;
    for d in s.states(Family::Avalon) {
        let estats = s.ask(d.device, "estats", None).await;
        let mm = estats["STATS"][0]["MM ID0"].as_str().unwrap().to_owned();
        assert!(
            mm.contains("SYSTEMSTATU[Work: In Work, Hash Board: 3 ]") && mm.contains("SoftOFF[0]"),
            "{mm}"
        );
        let when = estats["STATUS"][0]["When"].as_i64().unwrap();
        let reply = s.ask(d.device, "ascset", Some(&format!("0,softoff,1:{}", when + 30))).await;
        assert_eq!(status(&reply), ("I", 118));
        assert!(
            reply["STATUS"][0]["Msg"].as_str().unwrap().ends_with(&format!("success softoff:{}", when + 30))
        );
        s.pass(20);
        assert_eq!(s.state(d.device).phase, "mining", "not yet");
        s.pass(15);
        assert_eq!((s.state(d.device).phase, s.state(d.device).mode), ("asleep", ModeV1::Sleep));
        let mm = s.text(d.device, "estats").await;
        assert!(
            mm.contains("Work: In Idle") && mm.contains("GHSspd[0.00]") && !mm.contains("SoftOFF[0]"),
            "{mm}"
        );
        assert!(mm.contains(" 0 0 0 1393 1"), "standby watts are the last figure of PS: {mm}");
        let average: f64 = mm.split_once("GHSavg[").unwrap().1.split(']').next().unwrap().parse().unwrap();
        assert!(average > 1_000.0);
        let past = s.ask(d.device, "ascset", Some("0,softon,1:5")).await;
        assert_eq!(status(&past), ("I", 118));
        s.pass(20);
        let awake = s.state(d.device);
        assert_eq!((awake.phase, awake.settings()), ("mining", d.settings()));
    }
    let d = s.first();
    assert!(s.text(d, "ascset|0,softoff").await.contains("STATUS=S,"));
    s.pass(10);
    assert_eq!(s.state(d).phase, "asleep");
    assert!(s.text(d, "ascset|0,reboot,1").await.contains("Code=119,Msg=ASC 0 set OK"));
    s.pass(10);
    assert_eq!(s.state(d).phase, "mining", "a reboot wakes it");
    assert_eq!(status(&s.ask(d, "ascset", Some("0,workmode,set,1")).await), ("S", 119));
    assert!(s.text(d, "ascset|0,workmode,0").await.contains("WORKMODE[0] success"));
    assert!(s.text(d, "ascset|0,nonsense").await.contains("STATUS=E,"));
    assert!(s.text(d, "version").await.contains("PROD=AvalonMiner "));
}

#[tokio::test]
async fn braiins_pauses_and_resumes() {
    let s = of("braiins", 3).await;
    let d = s.first();
    let before = s.state(d);
    assert!(s.ask(d, "version", None).await["VERSION"][0]["BOSer"].is_string());
    let joined = s.ask(d, "summary+temps+fans+tunerstatus+devs+pools", None).await;
    assert_eq!(joined["temps"][0]["TEMPS"].as_array().unwrap().len(), 3);
    assert!(
        joined["tunerstatus"][0]["TUNERSTATUS"][0]["ApproximateMinerPowerConsumption"].as_f64().unwrap()
            > 2_800.0
    );
    assert_eq!(s.ask(d, "pause", None).await["PAUSE"], json!([true]));
    s.pass(5);
    let summary = s.ask(d, "summary", None).await["SUMMARY"][0].clone();
    assert_eq!(summary["MHS 5s"], 0.0);
    assert!(summary["MHS av"].as_f64().unwrap() > 1e6, "the average lives on");
    assert!(s.state(d).power_w < 40.0);
    assert_eq!(s.ask(d, "resume", None).await["RESUME"], json!([true]));
    s.pass(1);
    assert_eq!(s.state(d).phase, "ramping");
    s.pass(10);
    assert_eq!((s.state(d).phase, s.state(d).settings()), ("mining", before.settings()));
}
