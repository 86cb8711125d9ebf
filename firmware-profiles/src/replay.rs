//! Captures: recorded replies of a device, decoded without a network.
//!
//! A capture is a folder with `case.json` (its `responses[]` name {file, transport, port, request})
//! and one file a reply. The firmware is recognised from the replies alone.

use crate::decode::{Decoded, decode};
use crate::profiles::Profiles;
use crate::request::Request;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The largest reply file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// The most replies of one capture.
const MAX_RESPONSES: usize = 200;

/// Why a capture could not be replayed.
#[derive(Debug, Error)]
pub enum ReplayError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} is no capture: {source}", path.display())]
    Case { path: PathBuf, source: serde_json::Error },
    #[error("{} has more than {MAX_FILE} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("the replies are of no firmware that is known")]
    Unknown,
}

/// `case.json`, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Case {
    #[serde(default)]
    responses: Vec<Response>,
}

#[derive(Debug, Deserialize)]
struct Response {
    file: String,
    #[serde(default)]
    transport: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    request: String,
}

/// Decodes one capture.
pub fn replay(profiles: &Profiles, case_dir: &Path) -> Result<Decoded, ReplayError> {
    let case_path = case_dir.join("case.json");
    let case: Case = serde_json::from_slice(&load(&case_path)?)
        .map_err(|source| ReplayError::Case { path: case_path, source })?;
    let mut replies = Vec::new();
    for response in case.responses.iter().take(MAX_RESPONSES) {
        // A capture names files of its own folder and nothing else.
        let name = Path::new(&response.file).file_name().map(PathBuf::from).unwrap_or_default();
        let bytes = load(&case_dir.join(name))?;
        let request = Request::from_capture(&response.transport, response.port, &response.request);
        replies.push((request, bytes));
    }
    let borrowed: Vec<(Request, &[u8])> =
        replies.iter().map(|(request, bytes)| (request.clone(), &bytes[..])).collect();
    decode(profiles, &borrowed).ok_or(ReplayError::Unknown)
}

fn load(path: &Path) -> Result<Vec<u8>, ReplayError> {
    let io = |source| ReplayError::Io { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(io)?.len() > MAX_FILE {
        return Err(ReplayError::TooLarge { path: path.to_owned() });
    }
    std::fs::read(path).map_err(io)
}

/// The folders below `root` that are captures, in the order of their names.
pub fn captures(root: &Path) -> Result<Vec<PathBuf>, ReplayError> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let io = |source| ReplayError::Io { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if !path.is_dir() {
                continue;
            }
            if path.join("case.json").is_file() {
                found.push(path);
            } else if depth < 4 {
                folders.push((path, depth + 1));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// One line of `corpus --json`: {case, firmware, model, reading or null, error}.
pub fn line(profiles: &Profiles, root: &Path, case_dir: &Path) -> serde_json::Value {
    let case = case_dir.strip_prefix(root).unwrap_or(case_dir).to_string_lossy().replace('\\', "/");
    match replay(profiles, case_dir) {
        Ok(decoded) => serde_json::json!({
            "case": case,
            "firmware": decoded.identified.firmware,
            "model": decoded.identified.model,
            "reading": decoded.reading.to_json(),
            "error": null,
        }),
        Err(error) => serde_json::json!({
            "case": case,
            "firmware": null,
            "model": null,
            "reading": null,
            "error": error.to_string(),
        }),
    }
}
