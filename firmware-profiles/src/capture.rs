//! Writes a capture: what a device answered, in the form that [`crate::replay`] reads.
//!
//! A folder holds `case.json` and a file a reply, with secrets masked. A request that was asked more
//! than once is there once, and so is a command that a joined one asked too: a replay sees what the
//! reading saw, and beside it only what the reading did not ask.

use crate::decode::refusal;
use crate::listen::Exchange;
use crate::mask::mask;
use crate::request::Request;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a capture could not be written.
#[derive(Debug, Error)]
pub enum CaptureError {
    #[error("{} holds a capture already; name another folder", path.display())]
    Taken { path: PathBuf },
    #[error("cannot write {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

/// What a device answered, ready to be written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    exchanges: Vec<Exchange>,
}

impl Capture {
    /// `read` are the exchanges of a reading, all of which count; of those `beside` it, who the device
    /// is and how it is set, only what the reading did not ask, and no refusals.
    pub fn new(read: Vec<Exchange>, beside: Vec<Exchange>) -> Self {
        let mut asked = HashSet::new();
        let mut exchanges = Vec::new();
        for exchange in latest(read) {
            asked.extend(names(&exchange));
            exchanges.push(exchange);
        }
        for exchange in latest(beside) {
            let is_new = names(&exchange).iter().all(|name| !asked.contains(name));
            if is_new && refusal(&exchange.reply).is_none() {
                asked.extend(names(&exchange));
                exchanges.push(exchange);
            }
        }
        Self { exchanges }
    }

    pub fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
    }

    pub fn len(&self) -> usize {
        self.exchanges.len()
    }

    /// Writes the capture into a folder, which is made where it is absent; `about` are more members of
    /// `case.json`. Says how many secrets were masked.
    ///
    /// # Errors
    /// The folder holds a capture already, or can't be written.
    pub fn save(&self, folder: &Path, about: &Value) -> Result<usize, CaptureError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| CaptureError::Io { path, source }
        };
        fs::create_dir_all(folder).map_err(io(folder))?;
        let case_path = folder.join("case.json");
        if case_path.exists() {
            return Err(CaptureError::Taken { path: folder.to_owned() });
        }
        let (mut responses, mut used, mut secrets) = (Vec::new(), HashSet::new(), 0);
        for exchange in &self.exchanges {
            let (reply, masked) = mask(&exchange.reply);
            let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&reply).is_ok();
            let file = file_name(exchange, is_json, &mut used);
            let path = folder.join(&file);
            fs::write(&path, &reply).map_err(io(&path))?;
            let (request, more) = mask(exchange.request.as_bytes());
            responses.push(json!({
                "file": file,
                "transport": exchange.transport,
                "port": exchange.port,
                "request": String::from_utf8_lossy(&request),
                "bytes": reply.len(),
                "valid_json": is_json,
            }));
            secrets += masked + more;
        }
        let mut case = json!({"kind": "recorded", "category": "telemetry"});
        if let (Value::Object(case), Value::Object(about)) = (&mut case, about) {
            case.extend(about.iter().map(|(key, value)| (key.clone(), value.clone())));
            case.insert("responses".to_owned(), Value::Array(responses));
        }
        // Last, and not over another's: a folder with it is a whole capture.
        let mut text = serde_json::to_vec_pretty(&case).unwrap_or_default();
        text.push(b'\n');
        let created =
            fs::File::create_new(&case_path).and_then(|mut file| std::io::Write::write_all(&mut file, &text));
        match created {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(CaptureError::Taken { path: folder.to_owned() })
            }
            written => written.map(|()| secrets).map_err(io(&case_path)),
        }
    }
}

/// The last exchange of each request, in the order of their first.
fn latest(all: Vec<Exchange>) -> Vec<Exchange> {
    let mut out: Vec<Exchange> = Vec::new();
    for exchange in all {
        let same =
            |kept: &&mut Exchange| request(kept) == request(&exchange) && is_same_query(kept, &exchange);
        match out.iter_mut().find(same) {
            Some(kept) => *kept = exchange,
            None => out.push(exchange),
        }
    }
    out
}

/// All GraphQL queries are one request by name.
fn is_same_query(one: &Exchange, other: &Exchange) -> bool {
    one.transport != "http-graphql" || one.request == other.request
}

fn request(exchange: &Exchange) -> Request {
    Request::from_capture(exchange.transport, exchange.port, &exchange.request)
}

/// What an exchange answers: the commands of a joined one each.
fn names(exchange: &Exchange) -> Vec<(u16, String)> {
    let request = request(exchange);
    if exchange.transport == "http-graphql" {
        return vec![(exchange.port, exchange.request.clone())];
    }
    request.name.split('+').map(|name| (exchange.port, name.to_owned())).collect()
}

fn file_name(exchange: &Exchange, is_json: bool, used: &mut HashSet<String>) -> String {
    let name: String = request(exchange)
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '_') { c } else { '_' })
        .take(80)
        .collect();
    let name = if name.trim_matches('.').is_empty() { "reply".to_owned() } else { name };
    let end = if is_json { "json" } else { "raw.txt" };
    let taken = |file: &String| file == "case.json" || used.contains(file);
    let mut file = format!("{name}.{end}");
    let mut n = 2;
    while taken(&file) {
        file = format!("{name}-{n}.{end}");
        n += 1;
    }
    used.insert(file.clone());
    file
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Profiles, replay};

    fn tcp(request: &str, reply: &str) -> Exchange {
        let (request, reply) = (request.to_owned(), reply.as_bytes().to_vec());
        Exchange { transport: "tcp", port: 4028, request, reply }
    }

    #[test]
    fn a_replay_sees_what_the_reading_saw() {
        let read = vec![tcp("{\"command\":\"stats+pools\"}", "{\"stats\":[]}"), tcp("summary", "{\"n\":1}")];
        let beside = vec![
            tcp("stats", "{\"old\":1}"),
            tcp("version", "{\"v\":1}"),
            tcp("version", "{\"v\":2}"),
            tcp("get_version", r#"{"STATUS":[{"STATUS":"E","Code":14,"Msg":"Invalid command"}]}"#),
        ];
        let capture = Capture::new(read, beside);
        let kept: Vec<_> = capture.exchanges.iter().map(|e| e.request.as_str()).collect();
        assert_eq!(kept, ["{\"command\":\"stats+pools\"}", "summary", "version"]);
        assert_eq!(capture.exchanges[2].reply, b"{\"v\":2}");
    }

    #[test]
    fn what_is_saved_replays_and_holds_no_secret() {
        let version = r#"{"STATUS":[{"STATUS":"S","Code":22}],"VERSION":[{"CGMiner":"4.13.6","API":"3.7"}]}"#;
        let summary =
            r#"{"STATUS":[{"STATUS":"S","Code":11}],"SUMMARY":[{"Elapsed":60,"MHS 5s":5000000.0}]}"#;
        let config = r#"{"pools":[{"url":"stratum+tcp://a:1","user":"w","pass":"hunter2"}]}"#;
        let capture = Capture::new(
            vec![tcp("summary", summary)],
            vec![tcp("version", version), tcp("../../config", config)],
        );
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        assert_eq!(capture.save(&folder, &json!({"firmware": "cgminer"})).unwrap(), 1);
        for entry in fs::read_dir(&folder).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!text.contains("hunter2"), "{text}");
        }
        let decoded = replay::replay(&Profiles::builtin(), &folder).unwrap();
        assert_eq!(decoded.identified.firmware, "cgminer");
        assert_eq!(decoded.reading.hashrate.map(|rate| rate.get()), Some(5e12));
        assert!(matches!(capture.save(&folder, &json!({})), Err(CaptureError::Taken { .. })));
    }
}
