//! The families with a web API, byte by byte where it matters: sign-ins, states, refusals.

use crate::site::{Site, exchange, of, status};
use hashinsight_farm::{FaultKind, FaultOrder};
use hashinsight_protocol::device::ModeV1;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddrV4};

impl Site {
    /// One request on a connection of its own: status, head and body.
    async fn http(
        &self,
        port: u16,
        device: Ipv4Addr,
        line: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String, String) {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: miner\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let reply = exchange(SocketAddrV4::new(device, port), request.as_bytes()).await.unwrap();
        let reply = String::from_utf8(reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
    }

    async fn page(&self, device: Ipv4Addr, line: &str, headers: &str, body: &str) -> (u16, Value) {
        let (code, _, body) = self.http(self.web, device, line, headers, body).await;
        (code, serde_json::from_str(&body).unwrap_or(Value::Null))
    }
}

#[tokio::test]
async fn vnish_shuts_down_before_it_is_stopped() {
    let s = of("vnish", 4).await;
    let d = s.model("Antminer S21 Pro");
    assert_eq!(status(&s.ask(d, "version", None).await), ("E", 0));
    let stats = s.ask(d, "stats", None).await;
    assert_eq!(stats["STATS"][0]["Type"], "Antminer S21 Pro (Vnish 1.2.7)");

    assert_eq!(s.page(d, "POST /api/v1/mining/stop", "", "").await.0, 401);
    let wrong = s.page(d, "POST /api/v1/unlock", "", r#"{"pw":"wrong"}"#).await;
    assert_eq!(wrong, (403, json!({"unlock_timeout": null})));
    let (code, unlocked) = s.page(d, "POST /api/v1/unlock", "", r#"{"pw":"admin"}"#).await;
    assert_eq!(code, 200);
    let bearer = format!("Authorization: Bearer {}\r\n", unlocked["token"].as_str().unwrap());

    let (_, settings) = s.page(d, "GET /api/v1/settings", &bearer, "").await;
    assert_eq!(settings["miner"]["pools"][0]["url"], "btc.pool-a.example:3333", "without its scheme");
    assert_eq!(s.page(d, "POST /api/v1/mining/stop", &bearer, "").await, (200, json!({"success": true})));
    let state = async || s.page(d, "GET /api/v1/summary", "", "").await.1["miner"].clone();
    assert_eq!(state().await["miner_status"]["miner_state"], "shutting-down");
    s.pass(30);
    let stopped = state().await;
    assert_eq!(stopped["miner_status"]["miner_state"], "stopped");
    assert_eq!((&stopped["chains"], &stopped["hr_realtime"]), (&json!([]), &Value::Null));
    // A token lasts half an hour.
    s.pass(1_800);
    assert_eq!(s.page(d, "POST /api/v1/mining/start", &bearer, "").await.0, 401);
    assert_eq!(s.state(d).mode, ModeV1::Sleep);
}

#[tokio::test]
async fn epic_speaks_http_where_others_speak_cgminer() {
    let s = of("epic", 2).await;
    let d = s.first();
    // A command of the CGMiner API is no HTTP.
    let reply = s.raw(d, br#"{"command":"version"}"#).await.unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 400 Bad Request\r\n"), "{}", String::from_utf8_lossy(&reply));
    let post = async |path: &str, body: Value| {
        let (code, _, body) = s.http(s.api, d, &format!("POST {path}"), "", &body.to_string()).await;
        (code, serde_json::from_str::<Value>(&body).unwrap())
    };
    let refused = post("/miner", json!({"param": "Stop", "password": "x"})).await;
    assert_eq!(refused, (200, json!({"result": false, "error": "Authentication failed"})));
    assert_eq!(s.state(d).mode, ModeV1::Normal);
    let taken = post("/miner", json!({"param": "Stop", "password": "letmein"})).await;
    assert_eq!(taken, (200, json!({"result": true, "error": null})));
    s.pass(30);
    let (_, _, summary) = s.http(s.api, d, "GET /summary", "", "").await;
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!((&summary["Status"]["Operating State"], &summary["HBs"]), (&json!("Idling"), &json!([])));
    let log = s.log().await;
    let writes: Vec<_> = log.iter().filter(|l| l["kind"] == "write").map(|l| l["result"].clone()).collect();
    assert_eq!(writes, [json!("refused"), json!("taken")]);
    assert_eq!(log.iter().filter(|l| l["kind"] == "sample").count(), 1, "the summary carries the rate");
}

#[tokio::test]
async fn each_sign_in_is_its_own() {
    let s = of("braiins,auradine,goldshell,proto,futurebit", 40).await;
    let bad = [
        ("Antminer S19J Pro", "POST /api/v1/auth/login", r#"{"username":"root","password":"x"}"#, 401),
        ("Antminer S19", "POST /graphql", r#"{"query":"mutation { auth { login(x) { void } } }"}"#, 200),
        ("AT1500", "POST /token", r#"{"command":"token","user":"admin","password":"x"}"#, 200),
        ("Goldshell-KD6", "GET /user/login?username=admin&password=x&cipher=false", "", 200),
        ("Proto Rig", "POST /api/v1/auth/login", r#"{"password":"x"}"#, 401),
        ("Apollo II", "POST /api/graphql", r#"{"query":"{ Auth { login(x) { result } } }"}"#, 200),
    ];
    for (model, line, body, code) in bad {
        let (found, head, reply) = s.http(s.web, s.model(model), line, "", body).await;
        assert_eq!(found, code, "{model}: {reply}");
        let gave = head.contains("Set-Cookie") || reply.contains("oken\":\"") || reply.contains("JWT Token");
        assert!(!gave, "{model}: {head} {reply}");
    }
    let cookie = s.model("Antminer S19");
    let login = json!({"query": "mutation { auth { login(x) { void } } }", "variables": {"username": "root", "password": "root"}});
    let (_, head, _) = s.http(s.web, cookie, "POST /graphql", "", &login.to_string()).await;
    assert!(head.contains("Set-Cookie: session_id="), "{head}");
    // Nothing listens on the CGMiner port of these.
    for model in ["Proto Rig", "Apollo II"] {
        assert!(s.raw(s.model(model), b"version").await.map_or(true, |reply| reply.is_empty()), "{model}");
    }
}

#[tokio::test]
async fn a_nerdqaxe_comes_back_by_a_restart_alone() {
    let s = of("axeos", 8).await;
    let (bitaxe, nerd) = (s.model("Gamma"), s.model("NerdQAxe++"));
    assert_eq!(s.page(nerd, "POST /api/system/pause", "", "").await.0, 404);
    assert_eq!(s.page(bitaxe, "POST /api/system/shutdown", "", "").await.0, 404);
    assert_eq!(s.page(nerd, "POST /api/system/shutdown", "", "").await.0, 200);
    assert_eq!(s.page(bitaxe, "POST /api/system/pause", "", "").await.0, 200);
    s.pass(10);
    assert_eq!(s.page(nerd, "GET /api/system/info", "", "").await.1["shutdown"], true);
    assert_eq!(s.page(bitaxe, "GET /api/system/info", "", "").await.1["miningPaused"], true);
    assert_eq!(s.page(nerd, "POST /api/system/resume", "", "").await.0, 404);
    assert_eq!(s.page(nerd, "POST /api/system/restart", "", "").await.0, 200);
    s.pass(5);
    assert_eq!((s.state(nerd).mode, s.state(nerd).phase), (ModeV1::Normal, "mining"));
    // Power that is not measured is said as 0.
    s.farm.fault(&FaultOrder::on(FaultKind::ZeroPower, nerd)).unwrap();
    assert_eq!(s.page(nerd, "GET /api/system/info", "", "").await.1["power"], 0.0);
}
