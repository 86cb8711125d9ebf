//! The control plane's HTTP API, as a program uses it.

use crate::{Failure, Result};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// A client with an API key.
pub struct Api {
    agent: ureq::Agent,
    base: String,
    key: String,
}

impl Api {
    pub fn new(base: &str, key: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false);
        Self { agent: config.build().new_agent(), base: base.to_owned(), key: key.to_owned() }
    }

    /// # Errors
    /// No answer, or one that is no success: the API's own words.
    pub fn get(&self, path: &str) -> Result<Value> {
        let request = self.agent.get(format!("{}{path}", self.base));
        answer(path, request.header("authorization", format!("Bearer {}", self.key)).call()?)
    }

    /// # Errors
    /// As [`Self::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.agent.post(format!("{}{path}", self.base));
        answer(path, request.header("authorization", format!("Bearer {}", self.key)).send_json(body)?)
    }

    /// Each line of an answer of JSON lines.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn lines(&self, path: &str, mut each: impl FnMut(Value) -> Result<()>) -> Result<()> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let response = request.header("authorization", format!("Bearer {}", self.key)).call()?;
        if !response.status().is_success() {
            answer(path, response)?;
            return Ok(());
        }
        let body = response.into_body().into_with_config().limit(4 << 30).reader();
        for line in BufReader::new(body).lines() {
            let line = line.map_err(Failure::of(path))?;
            if !line.is_empty() {
                each(serde_json::from_str(&line)?)?;
            }
        }
        Ok(())
    }
}

fn answer(path: &str, mut response: ureq::http::Response<ureq::Body>) -> Result<Value> {
    let status = response.status();
    let text = response.body_mut().with_config().limit(64 << 20).read_to_string()?;
    if status.is_success() {
        return Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? });
    }
    let words = serde_json::from_str::<Value>(&text).ok();
    let words = words.and_then(|v| v["error"].as_str().map(str::to_owned)).unwrap_or(text);
    Err(Failure::new(format!("{path}: {status}: {words}")))
}
