//! `agent.toml`: the agent's configuration. All keys are optional; every mistake is one clear line.
//!
//! ```toml
//! data_dir = "/var/lib/hashinsight-agent"
//! cycle_s = 60
//! [policy]
//! confirm_within_s = 180
//! ```

use crate::discover::range::{NotARange, Range, addresses};
use hashinsight_curtailment::Policy;
use hashinsight_protocol::units::{DurationMs, Watts};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// A configuration is a page of text.
const MAX_BYTES: u64 = 256 * 1024;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Identity, outbox, journal, credentials; readable by the agent alone.
    pub data_dir: PathBuf,
    /// From the start of one poll burst to the next, in seconds.
    pub cycle_s: u32,
    /// The same while somebody watches the site or a dispatch runs.
    pub watched_cycle_s: u32,
    /// Devices asked at the same time.
    pub concurrency: u32,
    /// For one device's whole answer, in milliseconds.
    pub deadline_ms: u32,
    /// Port of miners' CGMiner API, unless the inventory names another.
    pub api_port: u16,
    /// Port of miners' web servers.
    pub web_port: u16,
    /// Port of Whatsminers' API 3.
    pub v3_port: u16,
    /// Whether miners that have changed address are looked for.
    pub follow: bool,
    /// Where they are looked for beside the networks that they were in.
    pub networks: Vec<String>,
    /// A folder of firmware profiles that override the built-in ones.
    pub profiles: Option<PathBuf>,
    /// The most that undelivered readings may take on disk, in MiB.
    pub outbox_quota_mb: u32,
    /// Where the broker is reached from here, `HOST:PORT`, when enrolment named an address that is not
    /// (a gateway behind NAT or a tunnel); its certificate must be the one that enrolment named all the same.
    pub broker: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as "info,rumqttc=warn".
    pub log: String,
    pub policy: PolicyConfig,
}

/// What a site decides for all its plans; what is absent keeps its built-in value.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    pub reading_max_age_s: Option<u32>,
    pub confirm_within_s: Option<u32>,
    pub restored_within_s: Option<u32>,
    pub write_timeout_s: Option<u32>,
    pub late_write_s: Option<u32>,
    pub stop_retry_s: Option<u32>,
    pub stop_retry_max_s: Option<u32>,
    pub wake_retry_s: Option<u32>,
    pub wake_retry_max_s: Option<u32>,
    pub stop_tries: Option<u16>,
    pub wake_tries: Option<u16>,
    pub again_after_s: Option<u32>,
    pub over_shed: Option<f64>,
    pub candidate_floor_w: Option<f64>,
    pub cap_headroom: Option<f64>,
    pub take_weak_identity: Option<bool>,
}

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} is too large for a configuration")]
    TooLarge { path: PathBuf },
    #[error("{path}, line {line}: {reason}")]
    Syntax { path: PathBuf, line: usize, reason: String },
    #[error("{path}: {key} {reason}")]
    Value { path: PathBuf, key: &'static str, reason: String },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/hashinsight-agent"),
            cycle_s: 60,
            watched_cycle_s: 10,
            concurrency: 256,
            deadline_ms: 5000,
            api_port: 4028,
            web_port: 80,
            v3_port: hashinsight_firmware::V3_PORT,
            follow: true,
            networks: Vec::new(),
            profiles: None,
            outbox_quota_mb: 512,
            broker: None,
            log: "info".to_owned(),
            policy: PolicyConfig::default(),
        }
    }
}

impl Config {
    /// Reads and checks a file. A relative `data_dir` or `profiles` is taken from the file's folder.
    ///
    /// # Errors
    /// The file can't be read, is malformed, names an unknown key, or a value is out of bounds.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let io = |source| ConfigError::Io { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(io)?.len() > MAX_BYTES {
            return Err(ConfigError::TooLarge { path: path.to_owned() });
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
            let reason = error.message().lines().next().unwrap_or("malformed").to_owned();
            ConfigError::Syntax { path: path.to_owned(), line, reason }
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        config.data_dir = folder.join(&config.data_dir);
        config.profiles = config.profiles.map(|p| folder.join(p));
        config.check().map_err(|(key, reason)| ConfigError::Value { path: path.to_owned(), key, reason })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        fn within<T: PartialOrd + std::fmt::Display>(
            key: &'static str,
            value: T,
            low: T,
            high: T,
        ) -> Result<(), (&'static str, String)> {
            if value >= low && value <= high {
                Ok(())
            } else {
                Err((key, format!("is {value}; it must lie between {low} and {high}")))
            }
        }
        within("cycle_s", self.cycle_s, 1, 3600)?;
        within("watched_cycle_s", self.watched_cycle_s, 1, self.cycle_s)?;
        within("concurrency", self.concurrency, 1, 10_000)?;
        within("deadline_ms", self.deadline_ms, 100, 60_000)?;
        within("api_port", self.api_port, 1, u16::MAX)?;
        within("web_port", self.web_port, 1, u16::MAX)?;
        within("v3_port", self.v3_port, 1, u16::MAX)?;
        within("outbox_quota_mb", self.outbox_quota_mb, 1, 1024 * 1024)?;
        let port = |broker: &String| broker.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if self.broker.as_ref().is_some_and(|broker| port(broker).is_none()) {
            return Err(("broker", "is not HOST:PORT".to_owned()));
        }
        self.networks().map_err(|reason| ("networks", reason))?;
        if self.data_dir.as_os_str().is_empty() {
            return Err(("data_dir", "is empty".to_owned()));
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log) {
            return Err(("log", format!("is not a log filter: {error}")));
        }
        let p = &self.policy;
        let day = 24 * 3600;
        for (key, value) in [
            ("policy.reading_max_age_s", p.reading_max_age_s),
            ("policy.confirm_within_s", p.confirm_within_s),
            ("policy.restored_within_s", p.restored_within_s),
            ("policy.write_timeout_s", p.write_timeout_s),
            ("policy.late_write_s", p.late_write_s),
            ("policy.stop_retry_s", p.stop_retry_s),
            ("policy.stop_retry_max_s", p.stop_retry_max_s),
            ("policy.wake_retry_s", p.wake_retry_s),
            ("policy.wake_retry_max_s", p.wake_retry_max_s),
            ("policy.again_after_s", p.again_after_s),
        ] {
            value.map_or(Ok(()), |v| within(key, v, 1, day))?;
        }
        for (key, value) in [("policy.stop_tries", p.stop_tries), ("policy.wake_tries", p.wake_tries)] {
            value.map_or(Ok(()), |v| within(key, v, 1, 1000))?;
        }
        for (key, value) in [("policy.over_shed", p.over_shed), ("policy.cap_headroom", p.cap_headroom)] {
            value.map_or(Ok(()), |v| within(key, v, 0.0, 0.5))?;
        }
        p.candidate_floor_w.map_or(Ok(()), |v| within("policy.candidate_floor_w", v, 0.0, 1e6))
    }

    /// Where miners are looked for that have changed address.
    ///
    /// # Errors
    /// One is no range, or all together are too wide.
    pub fn networks(&self) -> Result<Vec<Range>, String> {
        let said = |error: NotARange| format!("cannot be searched: {error}");
        let ranges = self.networks.iter().map(|text| text.parse::<Range>()).collect::<Result<Vec<_>, _>>();
        let ranges = ranges.map_err(said)?;
        addresses(&ranges).map_err(said)?;
        Ok(ranges)
    }

    pub fn cycle(&self) -> Duration {
        Duration::from_secs(u64::from(self.cycle_s))
    }

    pub fn watched_cycle(&self) -> Duration {
        Duration::from_secs(u64::from(self.watched_cycle_s))
    }

    pub fn deadline(&self) -> Duration {
        Duration::from_millis(u64::from(self.deadline_ms))
    }

    /// The engine's policy: built-in values, what this file overrides, and the agent's own seed.
    pub fn policy(&self, seed: u64) -> Policy {
        let p = &self.policy;
        let mut policy = Policy { seed, ..Policy::default() };
        let seconds = |value: Option<u32>, into: &mut DurationMs| {
            if let Some(value) = value {
                *into = DurationMs::from_secs(u64::from(value));
            }
        };
        seconds(p.reading_max_age_s, &mut policy.reading_max_age);
        seconds(p.confirm_within_s, &mut policy.confirm_within);
        seconds(p.restored_within_s, &mut policy.restored_within);
        seconds(p.write_timeout_s, &mut policy.write_timeout);
        seconds(p.late_write_s, &mut policy.late_write);
        seconds(p.stop_retry_s, &mut policy.stop_retry);
        seconds(p.stop_retry_max_s, &mut policy.stop_retry_max);
        seconds(p.wake_retry_s, &mut policy.wake_retry);
        seconds(p.wake_retry_max_s, &mut policy.wake_retry_max);
        seconds(p.again_after_s, &mut policy.again_after);
        policy.stop_tries = p.stop_tries.unwrap_or(policy.stop_tries);
        policy.wake_tries = p.wake_tries.unwrap_or(policy.wake_tries);
        policy.over_shed = p.over_shed.unwrap_or(policy.over_shed);
        policy.cap_headroom = p.cap_headroom.unwrap_or(policy.cap_headroom);
        policy.candidate_floor = p.candidate_floor_w.and_then(Watts::new).unwrap_or(policy.candidate_floor);
        policy.take_weak_identity = p.take_weak_identity.unwrap_or(policy.take_weak_identity);
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/x/agent.toml"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(check(""), Ok(Config::default()));
    }

    #[test]
    fn the_sample_that_is_installed_is_the_defaults() {
        assert_eq!(check(crate::install::SAMPLE_CONFIG), Ok(Config::default()));
    }

    #[test]
    fn every_mistake_is_one_clear_line() {
        for (text, part) in [
            ("cycle_s = 0", "cycle_s is 0; it must lie between 1 and 3600"),
            ("watched_cycle_s = 61", "watched_cycle_s is 61"),
            ("\ncycles = 3", "line 2: unknown field `cycles`"),
            ("cycle_s = \"x\"", "line 1"),
            ("[policy]\nover_shed = nan", "policy.over_shed"),
            ("[policy]\nconfirm_within_s = 0", "policy.confirm_within_s"),
            ("api_port = 0", "api_port"),
            ("networks = [\"10.0.0.0/8\"]", "networks cannot be searched"),
            ("data_dir = ", "line 1"),
        ] {
            let error = check(text).expect_err(text);
            assert!(error.contains(part), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn folders_are_taken_from_the_file() {
        let config = check("data_dir = \"data\"\nprofiles = \"/p\"").expect("fine");
        assert_eq!(config.data_dir, Path::new("/etc/x/data"));
        assert_eq!(config.profiles.as_deref(), Some(Path::new("/p")));
    }

    #[test]
    fn the_policy_is_overridden_key_by_key() {
        let config = check("[policy]\nconfirm_within_s = 7\nover_shed = 0.1").expect("fine");
        let policy = config.policy(9);
        assert_eq!(policy.confirm_within, DurationMs::from_secs(7));
        assert_eq!(policy.late_write, Policy::default().late_write);
        assert_eq!((policy.over_shed, policy.seed), (0.1, 9));
    }
}
