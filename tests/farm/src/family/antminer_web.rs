//! The web server of a stock Antminer: HTTP digest, the configuration document, the mode.
//!
//! The mode is read from `bitmain-work-mode` and, by model, taken from one of several write shapes
//! only; all others are answered `{"stats":"success","code":"M000","msg":"OK!"}` and dropped. Fields
//! beside the mode are taken from any document that has pools, as the real form does.

use super::antminer::{at_rest, corners, fan_rpm, rates};
use super::{Sample, Scene, WriteNote, elphapex, marathon};
use crate::device::{Change, Device, Pool, WriteResult};
use crate::digest;
use crate::faults::FaultKind;
use crate::models::{Family, WriteShape};
use crate::physics::Level;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// What the web server was asked.
#[derive(Clone, Copy, Debug)]
pub struct WebRequest<'a> {
    pub method: &'a str,
    /// Path with query.
    pub path: &'a str,
    pub authorization: Option<&'a str>,
    /// Auradine's own header for its token.
    pub token: Option<&'a str>,
    pub cookie: Option<&'a str>,
    pub content_type: &'a str,
    pub body: &'a [u8],
}

/// What it answers.
#[derive(Debug, Default)]
pub struct WebAnswer {
    pub status: u16,
    /// The value of `WWW-Authenticate`, for a 401.
    pub challenge: Option<String>,
    pub content_type: &'static str,
    pub body: String,
    pub write: Option<WriteNote>,
    /// What the answer said of the real-time rate.
    pub sample: Option<Sample>,
    /// The value of `Set-Cookie`.
    pub cookie: Option<String>,
    pub delay: f64,
}

const JSON: &str = "application/json";
const TAKEN: &str = r#"{"stats":"success","code":"M000","msg":"OK!"}"#;
const ILLEGAL: &str = r#"{"stats":"error","code":"M001","msg":"Illegal request!"}"#;

/// Answers one request to the web port.
pub fn answer(scene: &mut Scene<'_>, request: &WebRequest<'_>) -> WebAnswer {
    let draws = scene.dev.draws;
    let minute = scene.now.0.div_euclid(60_000);
    let allowed = request
        .authorization
        .is_some_and(|header| digest::verify(header, request.method, request.path, draws, minute));
    if !allowed {
        return WebAnswer {
            status: 401,
            challenge: Some(digest::challenge(draws, minute)),
            content_type: "text/html",
            body: "<html><head><title>401 Unauthorized</title></head><body><h1>401 Unauthorized</h1></body></html>".into(),
            ..WebAnswer::default()
        };
    }
    let path = request.path.split('?').next().unwrap_or_default();
    if let Some(answer) = own_pages(scene, request, path) {
        return answer;
    }
    if scene.dev.model.family == Family::Marathon {
        return WebAnswer { status: 404, content_type: "text/html", ..WebAnswer::default() };
    }
    let mut answer = WebAnswer { status: 200, content_type: JSON, ..WebAnswer::default() };
    match (request.method, path.strip_prefix("/cgi-bin/").unwrap_or("")) {
        ("GET", "get_system_info.cgi") => answer.body = system_info(scene.dev),
        ("GET", "get_network_info.cgi") => answer.body = network_info(scene.dev),
        ("GET", "get_miner_conf.cgi") => answer.body = Value::Object(document(scene.dev)).to_string(),
        ("GET", "stats.cgi") => answer.body = stats(scene),
        ("GET", "summary.cgi") => answer.body = summary(scene),
        ("POST", "set_miner_conf.cgi") => {
            answer.body = set_conf(scene, request).into();
            answer.delay = scene.dev.plant.reply_delay();
        }
        ("POST", "blink.cgi") => {
            let body: Value = serde_json::from_slice(request.body).unwrap_or_default();
            let on = matches!(body.get("blink"), Some(Value::Bool(true)))
                || body.get("blink").and_then(Value::as_str) == Some("true");
            scene.dev.locating = on;
            answer.body = if on { r#"{"code":"B000"}"# } else { r#"{"code":"B100"}"# }.into();
        }
        ("GET", "get_blink_status.cgi") => answer.body = json!({"blink": scene.dev.locating}).to_string(),
        ("GET" | "POST", "reboot.cgi") => {
            scene.write(Change::Reboot);
            answer.body = r#"{"stats":"success","code":"R000","msg":"OK!"}"#.into();
        }
        ("GET", "") if matches!(path, "/" | "/index.html") => {
            answer.content_type = "text/html";
            answer.body = "<html><head><title>Ant Miner</title></head><body></body></html>".into();
        }
        _ => {
            answer.status = 404;
            answer.content_type = "text/html";
            answer.body = "<html><body><h1>404 Not Found</h1></body></html>".into();
        }
    }
    answer.write = scene.write.take();
    answer
}

/// The pages of those whose own are not Bitmain's.
fn own_pages(scene: &mut Scene<'_>, request: &WebRequest<'_>, path: &str) -> Option<WebAnswer> {
    let body = match scene.dev.model.family {
        Family::Marathon => marathon::page(scene, request, path)?,
        Family::Elphapex => elphapex::page(scene, path)?,
        _ => return None,
    };
    let write = scene.write.take();
    Some(WebAnswer { status: 200, content_type: JSON, body, write, ..WebAnswer::default() })
}

/// The key that shows the mode.
fn mode_key(dev: &Device) -> &'static str {
    if dev.model.family == Family::Elphapex { "fc-work-mode" } else { "bitmain-work-mode" }
}

/// The configuration document as the device shows it.
pub fn document(dev: &Device) -> Map<String, Value> {
    let pools: Vec<Value> =
        (0..3).map(|n| dev.pool(n)).map(|p| json!({"url": p.url, "user": p.user, "pass": p.pass})).collect();
    let mode = dev.antminer_mode();
    // Some builds show the mode as text, some as a number.
    let mode = if dev.model.shape == WriteShape::WholeBoth { json!(mode) } else { json!(mode.to_string()) };
    let mut map = Map::new();
    map.insert("pools".into(), Value::Array(pools));
    if dev.model.family == Family::Elphapex {
        elphapex::settings(&mut map, dev.antminer_mode());
        map.extend(
            dev.document.iter().flat_map(|changed| changed.iter().map(|(k, v)| (k.clone(), v.clone()))),
        );
        return map;
    }
    for (key, value) in [
        ("api-listen", json!(true)),
        ("api-network", json!(true)),
        ("api-groups", json!("A:stats:pools:devs:summary:version")),
        ("api-allow", json!("A:0/0,W:*")),
        ("bitmain-fan-ctrl", json!(false)),
        ("bitmain-fan-pwm", json!("100")),
        ("bitmain-use-vil", json!(true)),
        ("bitmain-freq", json!(dev.model.mhz.to_string())),
        ("bitmain-voltage", json!("1320")),
        ("bitmain-ccdelay", json!("0")),
        ("bitmain-pwth", json!("0")),
        ("bitmain-work-mode", mode),
        ("bitmain-hashrate-percent", json!("100")),
        ("bitmain-freq-level", json!("100")),
    ] {
        map.insert(key.into(), value);
    }
    if dev.model.shape == WriteShape::WholeTextPlain {
        map.insert("bitmain-user-ip-cat".into(), Value::Null);
        map.remove("bitmain-hashrate-percent");
    }
    if let Some(changed) = &dev.document {
        for (key, value) in changed.iter() {
            map.insert(key.clone(), value.clone());
        }
    }
    map
}

fn set_conf(scene: &mut Scene<'_>, request: &WebRequest<'_>) -> &'static str {
    let Ok(Value::Object(posted)) = serde_json::from_slice::<Value>(request.body) else {
        scene.refused();
        return ILLEGAL;
    };
    let lies = scene.dev.faults.active(FaultKind::Lie, scene.t).is_some();
    let before = scene.dev.mode();
    let hash = scene.dev.config_hash();
    let is_document = posted.get("pools").is_some_and(Value::is_array);
    if is_document && !lies {
        take_fields(scene.dev, &posted);
    }
    let key = mode_key(scene.dev);
    let mode = wanted_mode(scene.dev.model.shape, key, &posted, is_document, request.content_type);
    if let Some(mode) = mode.filter(|m| *m != scene.dev.antminer_mode()) {
        match mode {
            1 => {
                scene.write(Change::Sleep);
            }
            _ => {
                let level = match mode {
                    2 => Level::HighEfficiency,
                    3 => Level::LowPower,
                    _ => Level::Normal,
                };
                if scene.dev.plant.settings.asleep {
                    // The level is set while the boards are off, so that it costs no second restart.
                    if !lies {
                        scene.dev.plant.settings.level = level;
                    }
                    scene.write(Change::Wake);
                } else {
                    scene.write(Change::Level(level));
                }
            }
        }
        if let Some(write) = &mut scene.write {
            write.before = before;
        }
        return TAKEN;
    }
    // Success is said in every case; what it did is for the log alone.
    let moved = scene.dev.config_hash() != hash;
    let in_place = mode == Some(scene.dev.antminer_mode()) && !lies;
    let result = if moved || in_place { WriteResult::Taken } else { WriteResult::Ignored };
    scene.write = Some(WriteNote { result, before, after: scene.dev.mode() });
    TAKEN
}

/// The mode that a posted document means to this model, if it is in the one shape it takes.
fn wanted_mode(
    shape: WriteShape,
    key: &str,
    posted: &Map<String, Value>,
    whole: bool,
    content_type: &str,
) -> Option<i64> {
    let int = |key: &str| posted.get(key).and_then(Value::as_i64);
    let either = |key: &str| int(key).or_else(|| posted.get(key)?.as_str()?.parse().ok());
    let mode = match shape {
        WriteShape::MinerMode => int("miner-mode"),
        WriteShape::WholeTextPlain => int("miner-mode").filter(|_| {
            let no_null = !posted.values().any(Value::is_null);
            whole
                && no_null
                && !posted.contains_key("bitmain-work-mode")
                && content_type.starts_with("text/plain")
        }),
        WriteShape::WholeBoth => {
            int("miner-mode").filter(|mode| whole && int("bitmain-work-mode") == Some(*mode))
        }
        WriteShape::WorkMode => either(key),
        WriteShape::None => None,
    };
    mode.filter(|m| (0..=3).contains(m))
}

/// Takes over what a whole document says beside the mode.
fn take_fields(dev: &mut Device, posted: &Map<String, Value>) {
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(list) = posted.get("pools").and_then(Value::as_array) {
        let pool = |n: usize| {
            let v = list.get(n).unwrap_or(&Value::Null);
            Pool { url: text(v, "url"), user: text(v, "user"), pass: text(v, "pass") }
        };
        let pools = [pool(0), pool(1), pool(2)];
        if pools.iter().enumerate().any(|(n, p)| *p != dev.pool(n)) {
            dev.pools = Some(Box::new(pools));
        }
    }
    let current = document(dev);
    for (key, value) in posted {
        if matches!(key.as_str(), "pools" | "bitmain-work-mode" | "fc-work-mode" | "miner-mode")
            || current.get(key) == Some(value)
        {
            continue;
        }
        // A field that shows nothing and is sent back as "0" is left as it is.
        let untouched = current.get(key).is_some_and(Value::is_null) && value.as_str() == Some("0");
        if current.contains_key(key) && !untouched {
            dev.document.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
}

fn system_info(dev: &Device) -> String {
    let build = dev.model.build;
    json!({
        "minertype": dev.model.name,
        "nettype": "DHCP",
        "netdevice": "eth0",
        "macaddr": dev.mac().to_string(),
        "hostname": "Antminer",
        "ipaddress": dev.ip.to_string(),
        "netmask": "255.255.0.0",
        "gateway": "",
        "dnsservers": "",
        "system_mode": "GNU/Linux",
        "system_kernel_version": format!("Linux 4.9.113 #1 SMP PREEMPT {build}"),
        "system_filesystem_version": build,
        "firmware_type": "Release",
        "serinum": dev.serial(0, 17),
    })
    .to_string()
}

fn network_info(dev: &Device) -> String {
    json!({
        "nettype": "DHCP",
        "netdevice": "eth0",
        "macaddr": dev.mac().to_string(),
        "ipaddress": dev.ip.to_string(),
        "netmask": "255.255.0.0",
        "conf_nettype": "DHCP",
        "conf_hostname": "Antminer",
        "conf_ipaddress": "",
        "conf_netmask": "",
        "conf_gateway": "",
        "conf_dnsservers": "",
    })
    .to_string()
}

fn head(scene: &Scene<'_>, what: &str, out: &mut String) {
    let model = scene.dev.model;
    let version = if model.old_style { "49.0.1.3" } else { "uart_trans.1.3" };
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        r#"{{"STATUS":{{"STATUS":"S","when":{},"Msg":"{what}","api_version":"1.0.0"}},"INFO":{{"miner_version":"{version}","CompileTime":"{}","type":"{}"}},"#,
        scene.when(),
        model.build,
        model.name,
    );
}

fn summary(scene: &Scene<'_>) -> String {
    let mut out = String::with_capacity(512);
    head(scene, "summary", &mut out);
    if at_rest(scene.dev) {
        out.push_str(r#""SUMMARY":[]}"#);
        return out;
    }
    let (elapsed, now, average, half_hour) = rates(scene);
    let _ = write!(
        out,
        r#""SUMMARY":[{{"elapsed":{elapsed},"rate_5s":{now:.2},"rate_30m":{half_hour:.2},"rate_avg":{average:.2},"rate_ideal":{:.1},"rate_unit":"GH/s","hw_all":{},"bestshare":727920402,"status":[{{"type":"rate","status":"s","code":0,"msg":""}},{{"type":"network","status":"s","code":0,"msg":""}},{{"type":"fans","status":"s","code":0,"msg":""}},{{"type":"temp","status":"s","code":0,"msg":""}}]}}]}}"#,
        scene.dev.plant.plate_hash() / 1e9,
        elapsed / 900,
    );
    out
}

fn stats(scene: &Scene<'_>) -> String {
    let mut out = String::with_capacity(1536);
    head(scene, "stats", &mut out);
    if at_rest(scene.dev) {
        out.push_str(r#""STATS":[]}"#);
        return out;
    }
    let model = scene.dev.model;
    let (elapsed, now, average, half_hour) = rates(scene);
    let ideal = scene.dev.plant.plate_hash() / 1e9;
    let fan = [1, 2, 3, 4].map(|n| fan_rpm(scene, n));
    let _ = write!(
        out,
        r#""STATS":[{{"elapsed":{elapsed},"rate_5s":{now:.2},"rate_30m":{half_hour:.2},"rate_avg":{average:.2},"rate_ideal":{ideal:.1},"rate_unit":"GH/s","chain_num":{},"fan_num":{},"fan":{fan:?},"psu":{{"index":0,"status":"ok"}},"hwp_total":0.0006,"#,
        model.boards, model.fans,
    );
    if !model.old_style {
        let _ = write!(out, r#""watt":{:.0},"#, scene.sensed.watts);
    }
    let _ = write!(out, r#""miner-mode":{},"freq-level":100,"chain":["#, scene.dev.antminer_mode());
    for board in 0..usize::from(model.boards) {
        let (pcb, chip) = corners(&scene.sensed, board);
        let pic = pcb.map(|t| t - 10);
        let _ = write!(
            out,
            r#"{}{{"index":{board},"freq_avg":{},"rate_ideal":{:.1},"rate_real":{:.2},"asic_num":{},"temp_pic":{pic:?},"temp_pcb":{pcb:?},"temp_chip":{chip:?},"hw":0,"sn":"{}","hwp":0.0}}"#,
            if board > 0 { "," } else { "" },
            model.mhz,
            ideal / f64::from(model.boards),
            scene.dev.plant.board_rate(now, board as u8, model.boards),
            model.chips_per_board,
            scene.dev.serial(1 + board as u64, 17),
        );
    }
    out.push_str("]}]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn each_model_takes_one_shape() {
        let whole = r#""pools":[{"url":"a","user":"b","pass":"c"}]"#;
        let cases = [
            (r#"{"miner-mode":1}"#.to_owned(), "application/json", [Some(1), None, None, None]),
            (r#"{"miner-mode":"1"}"#.to_owned(), "application/json", [None, None, None, None]),
            (r#"{"bitmain-work-mode":"1"}"#.to_owned(), "application/json", [None, None, None, Some(1)]),
            (r#"{"bitmain-work-mode":1}"#.to_owned(), "application/json", [None, None, None, Some(1)]),
            (
                format!(r#"{{{whole},"miner-mode":1}}"#),
                "text/plain;charset=UTF-8",
                [Some(1), Some(1), None, None],
            ),
            (format!(r#"{{{whole},"miner-mode":1}}"#), "application/json", [Some(1), None, None, None]),
            (format!(r#"{{{whole},"miner-mode":1,"x":null}}"#), "text/plain", [Some(1), None, None, None]),
            (
                format!(r#"{{{whole},"miner-mode":1,"bitmain-work-mode":1}}"#),
                "text/plain",
                [Some(1), None, Some(1), Some(1)],
            ),
            (r#"{"miner-mode":9,"bitmain-work-mode":9}"#.to_owned(), "text/plain", [None, None, None, None]),
        ];
        let shapes =
            [WriteShape::MinerMode, WriteShape::WholeTextPlain, WriteShape::WholeBoth, WriteShape::WorkMode];
        for (text, content_type, expect) in cases {
            let posted = map(&text);
            let is_whole = posted.contains_key("pools");
            let got = shapes.map(|s| wanted_mode(s, "bitmain-work-mode", &posted, is_whole, content_type));
            assert_eq!(got, expect, "{text} as {content_type}");
        }
    }
}
