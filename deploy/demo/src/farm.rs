//! A simulated site's control socket and its log.

use crate::books::Answer;
use crate::{Failure, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Asks a farm one thing.
///
/// # Errors
/// It doesn't answer, or refuses.
pub fn ask(control: SocketAddr, question: &Value) -> Result<Value> {
    let failed = || Failure::of(format!("the farm's control socket {control}"));
    let mut stream = TcpStream::connect(control).map_err(failed())?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(failed())?;
    writeln!(stream, "{question}").map_err(failed())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(failed())?;
    let answer: Value = serde_json::from_str(&line)?;
    if answer["ok"] == json!(true) {
        Ok(answer)
    } else {
        Err(Failure::new(format!("the farm refused {question}: {}", answer["error"])))
    }
}

/// What a device is set to; it must be the same before and after a plan.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Settings {
    pub device: String,
    pub id: String,
    pub family: String,
    pub model: String,
    pub mode: String,
    pub vendor_mode: Option<i64>,
    pub limit_w: Option<u32>,
    pub profile: Option<String>,
    pub config_hash: String,
}

/// What every device of a farm is set to, by miner id.
///
/// # Errors
/// The farm doesn't answer.
pub fn settings(control: SocketAddr) -> Result<BTreeMap<String, Settings>> {
    let answer = ask(control, &json!({"cmd": "state"}))?;
    let devices: Vec<Settings> = serde_json::from_value(answer["devices"].clone())?;
    Ok(devices.into_iter().map(|d| (d.id.clone(), d)).collect())
}

/// Power of a whole farm, in watts.
///
/// # Errors
/// The farm doesn't answer.
pub fn power_w(control: SocketAddr) -> Result<f64> {
    let answer = ask(control, &json!({"cmd": "totals"}))?;
    answer["power_w"].as_f64().ok_or_else(|| Failure::new("the farm's totals have no power"))
}

#[derive(Deserialize)]
struct Line {
    t: i64,
    device: String,
    kind: String,
    #[serde(default)]
    n: u64,
    hashrate_hs: Option<f64>,
    result: Option<String>,
    before: Option<Mode>,
    after: Option<Mode>,
}

#[derive(Deserialize)]
struct Mode {
    mode: String,
}

/// A write that put a device to sleep or woke it.
#[derive(Clone, Debug)]
pub struct Written {
    pub at: i64,
    pub device: String,
    pub woke: bool,
}

/// What a farm's log says.
#[derive(Default)]
pub struct Log {
    /// Answered polls of the real-time rate, by device address.
    pub answers: Vec<Answer>,
    /// Writes that changed whether a device sleeps.
    pub writes: Vec<Written>,
}

/// Reads a farm's log; a last line that is not whole yet is left out.
///
/// # Errors
/// The file can't be read, or a line is not one of the farm's.
pub fn read_log(path: &Path) -> Result<Log> {
    let text = std::fs::read_to_string(path).map_err(Failure::of(path.display()))?;
    let mut log = Log::default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    for line in text[..whole].lines() {
        let line: Line = serde_json::from_str(line)?;
        match line.kind.as_str() {
            "sample" => log.answers.push(Answer {
                at: line.t,
                device: line.device,
                n: line.n,
                hashrate_hs: line.hashrate_hs,
            }),
            // The client went away before it had the whole answer: nothing that it could have kept.
            "unread" => log.answers.retain(|a| (a.n, &a.device) != (line.n, &line.device)),
            "write" if line.result.as_deref() == Some("taken") => {
                let sleeps = |m: &Option<Mode>| m.as_ref().is_some_and(|m| m.mode == "sleep");
                let (before, after) = (sleeps(&line.before), sleeps(&line.after));
                if before != after {
                    log.writes.push(Written { at: line.t, device: line.device, woke: before });
                }
            }
            _ => {}
        }
    }
    Ok(log)
}
