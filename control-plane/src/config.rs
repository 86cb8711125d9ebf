//! The configuration: command line before file before default.
//!
//! Every value has a default that works on one machine with nothing prepared.

use crate::error::{Error, Result};
use crate::mqtt::remote::Address;
use crate::store::StoreUrl;
use crate::telemetry::retention::Ages;
use hashinsight_protocol::units::DurationMs;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The configuration of one run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of databases and keys.
    pub data: PathBuf,
    /// The console and the API.
    pub http: SocketAddr,
    /// Agents' MQTT, TLS only.
    pub mqtt: SocketAddr,
    /// The operator's own broker, in place of the embedded one.
    pub broker: Option<Address>,
    /// Our name at that broker: in our certificate and in its access rules.
    pub broker_user: String,
    /// Agents' enrolment, HTTPS.
    pub enrol: SocketAddr,
    /// Name by which agents reach this machine: in its certificate and in enrolment answers.
    pub public_host: String,
    /// Browsers reach the console over HTTPS through a proxy: cookies are marked so.
    pub https: bool,
    /// Where the databases are; SQLite in the data folder when absent.
    pub store: Option<StoreUrls>,
    /// How long telemetry is kept.
    pub keep: Ages,
    /// Gets the listeners' addresses as JSON once all of them are up.
    pub ready_file: Option<PathBuf>,
}

/// PostgreSQL databases; both may be the same one.
#[derive(Clone, Debug)]
pub struct StoreUrls {
    pub business: StoreUrl,
    pub telemetry: StoreUrl,
}

/// The listeners' addresses.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Addresses {
    pub http: SocketAddr,
    pub mqtt: SocketAddr,
    pub enrol: SocketAddr,
}

/// What is said on the command line or in the file; what neither says has its default.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Folder of databases and keys [default: /var/lib/hashinsight as root, else ~/.local/share/hashinsight]
    #[arg(long, value_name = "DIR", env = "HASHINSIGHT_DATA", global = true)]
    pub data: Option<PathBuf>,
    /// Address of the console and the API [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<SocketAddr>,
    /// Address for agents' MQTT [default: 127.0.0.1:8883]
    #[arg(long, value_name = "ADDRESS")]
    pub mqtt: Option<SocketAddr>,
    /// A broker of your own in place of the embedded one: mqtts://HOST:PORT (see deploy/brokers)
    #[arg(long, value_name = "URL")]
    pub broker: Option<String>,
    /// Name of the control plane at that broker [default: cloud]
    #[arg(long, value_name = "NAME")]
    pub broker_user: Option<String>,
    /// Address for agents' enrolment [default: 127.0.0.1:8884]
    #[arg(long, value_name = "ADDRESS")]
    pub enrol: Option<SocketAddr>,
    /// Name by which agents reach this machine [default: localhost]
    #[arg(long, value_name = "NAME")]
    pub public_host: Option<String>,
    /// Browsers reach the console over HTTPS, through a proxy in front
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub https: Option<bool>,
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub keep: KeepSettings,
}

/// `[store]`: where the databases are.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct StoreSettings {
    /// PostgreSQL database, as postgres://user:password@host/name; better in the file or the environment
    /// than on the command line, which others can read [default: SQLite files in the data folder]
    #[arg(
        long = "store-url",
        value_name = "URL",
        env = "HASHINSIGHT_STORE_URL",
        hide_env_values = true,
        global = true
    )]
    pub url: Option<StoreUrl>,
    /// PostgreSQL database for telemetry [default: the same]
    #[arg(
        long = "telemetry-url",
        value_name = "URL",
        env = "HASHINSIGHT_TELEMETRY_URL",
        hide_env_values = true,
        global = true
    )]
    pub telemetry_url: Option<StoreUrl>,
}

/// `[keep]`: days of telemetry, each kind with its own age.
#[derive(Clone, Copy, Debug, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct KeepSettings {
    /// Days that raw readings are kept [default: 90]
    #[arg(long = "keep-raw-days", value_name = "DAYS", value_parser = days())]
    pub raw_days: Option<u32>,
    /// Days that 5-minute values are kept [default: 180]
    #[arg(long = "keep-five-minute-days", value_name = "DAYS", value_parser = days())]
    pub five_minute_days: Option<u32>,
    /// Days that hourly values are kept [default: 1100]
    #[arg(long = "keep-hourly-days", value_name = "DAYS", value_parser = days())]
    pub hourly_days: Option<u32>,
    /// Days that daily values are kept [default: 3660]
    #[arg(long = "keep-daily-days", value_name = "DAYS", value_parser = days())]
    pub daily_days: Option<u32>,
}

/// The longest time that telemetry is kept.
const MOST_DAYS: u32 = 36_600;

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MOST_DAYS))
}

impl KeepSettings {
    fn or(self, other: Self) -> Self {
        Self {
            raw_days: self.raw_days.or(other.raw_days),
            five_minute_days: self.five_minute_days.or(other.five_minute_days),
            hourly_days: self.hourly_days.or(other.hourly_days),
            daily_days: self.daily_days.or(other.daily_days),
        }
    }

    fn finish(self) -> Result<Ages> {
        let age = |name: &str, days: Option<u32>, usual: DurationMs| match days {
            None => Ok(usual),
            Some(days @ 1..=MOST_DAYS) => Ok(DurationMs(u64::from(days) * 86_400_000)),
            Some(_) => Err(Error::invalid(format!("keep: {name} is from 1 to {MOST_DAYS}"))),
        };
        let usual = Ages::default();
        let ages = Ages {
            raw: age("raw-days", self.raw_days, usual.raw)?,
            five_minutes: age("five-minute-days", self.five_minute_days, usual.five_minutes)?,
            hourly: age("hourly-days", self.hourly_days, usual.hourly)?,
            daily: age("daily-days", self.daily_days, usual.daily)?,
        };
        if ages.five_minutes > ages.hourly || ages.hourly > ages.daily {
            let text = "keep: hourly values are made of 5-minute ones and daily of hourly ones, so five-minute-days \
                        can't be more than hourly-days, nor hourly-days more than daily-days";
            return Err(Error::invalid(text));
        }
        Ok(ages)
    }
}

impl Settings {
    /// The settings of a TOML file.
    ///
    /// # Errors
    /// The file can't be read, or holds something that is no setting.
    pub fn from_file(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|e| {
            Error::invalid(format!("the configuration {} can't be read: {e}", file.display()))
        })?;
        toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
            Error::invalid(format!("{}, line {line}: {}", file.display(), e.message()))
        })
    }

    /// These settings, and `other` where they say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            data: self.data.or(other.data),
            http: self.http.or(other.http),
            mqtt: self.mqtt.or(other.mqtt),
            broker: self.broker.or(other.broker),
            broker_user: self.broker_user.or(other.broker_user),
            enrol: self.enrol.or(other.enrol),
            public_host: self.public_host.or(other.public_host),
            https: self.https.or(other.https),
            store: StoreSettings {
                url: self.store.url.or(other.store.url),
                telemetry_url: self.store.telemetry_url.or(other.store.telemetry_url),
            },
            keep: self.keep.or(other.keep),
        }
    }

    /// The configuration that these settings make.
    ///
    /// # Errors
    /// A value can't be meant.
    pub fn finish(self, ready_file: Option<PathBuf>) -> Result<Config> {
        let local = |port: u16| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let public_host = self.public_host.unwrap_or_else(|| "localhost".to_owned());
        if rustls::pki_types::ServerName::try_from(public_host.as_str()).is_err() {
            let text = format!(
                "public-host: \"{public_host}\" is neither a host name nor an IP address (no port here)"
            );
            return Err(Error::invalid(text));
        }
        let broker_user = self.broker_user.unwrap_or_else(|| "cloud".to_owned());
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        // An agent's id is 32 hex digits: nobody may have a name that looks like one.
        if broker_user.is_empty() || broker_user.len() > 30 || !broker_user.chars().all(plain) {
            let text = format!("broker-user: \"{broker_user}\" is not 1 to 30 letters, digits and dashes");
            return Err(Error::invalid(text));
        }
        Ok(Config {
            broker: self.broker.as_deref().map(Address::parse).transpose()?,
            broker_user,
            data: self.data.unwrap_or_else(default_data),
            http: self.http.unwrap_or(local(8080)),
            mqtt: self.mqtt.unwrap_or(local(8883)),
            enrol: self.enrol.unwrap_or(local(8884)),
            public_host,
            https: self.https.unwrap_or(false),
            store: match (self.store.url, self.store.telemetry_url) {
                (Some(business), telemetry) => {
                    Some(StoreUrls { telemetry: telemetry.unwrap_or_else(|| business.clone()), business })
                }
                (None, None) => None,
                (None, Some(_)) => return Err(Error::invalid("store: telemetry-url needs url")),
            },
            keep: self.keep.finish()?,
            ready_file,
        })
    }
}

/// `/var/lib/hashinsight` for root, else the user's own data folder.
fn default_data() -> PathBuf {
    use std::os::unix::fs::MetadataExt as _;
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
    let own = || {
        let data = std::env::var_os("XDG_DATA_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
        data.or_else(|| {
            Some(PathBuf::from(std::env::var_os("HOME").filter(|v| !v.is_empty())?).join(".local/share"))
        })
    };
    match own() {
        Some(own) if !root => own.join("hashinsight"),
        _ => PathBuf::from("/var/lib/hashinsight"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        Settings::from_file(&file)?.finish(None)
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let line = Settings { http: Some("127.0.0.1:1".parse().unwrap()), ..Settings::default() };
        let file = Settings {
            http: Some("127.0.0.1:2".parse().unwrap()),
            mqtt: Some("127.0.0.1:3".parse().unwrap()),
            ..Settings::default()
        };
        let config = line.or(file).finish(None).unwrap();
        assert_eq!((config.http.port(), config.mqtt.port(), config.enrol.port()), (1, 3, 8884));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let error = file("http = \"127.0.0.1:8080\"\nhtpp = 1\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("htpp"), "{error}");
        assert!(file("http = \"nowhere\"").is_err());
        assert!(file("public-host = \"a host:8883\"").is_err());
        assert!(file("public-host = \"192.0.2.7\"\nhttps = true").is_ok());
        let broker = file("broker = \"mqtts://mqtt.example\"").unwrap().broker.unwrap();
        assert_eq!((broker.host.as_str(), broker.port), ("mqtt.example", 8883));
        assert!(file("broker = \"mqtt.example\"").is_err());
        assert!(file("broker-user = \"a/b\"").is_err());
        let error = file("[store]\nurl = \"mysql://me:geheim@db/x\"").unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains("postgres://") && !error.contains("geheim"),
            "{error}"
        );
    }

    #[test]
    fn stores_and_ages_are_read_from_their_tables() {
        let usual = file("").unwrap();
        assert!(usual.store.is_none() && usual.keep == Ages::default());
        let config = file("[store]\nurl = \"postgres://me@db/x\"\n[keep]\nraw-days = 7\n").unwrap();
        let urls = config.store.unwrap();
        assert_eq!(urls.business, urls.telemetry);
        assert_eq!(config.keep, Ages { raw: DurationMs(7 * 86_400_000), ..Ages::default() });
        assert!(file("[keep]\nfive-minute-days = 2000").is_err(), "more than hourly");
        assert!(file("[keep]\nraw-days = 0").is_err());
        assert!(file("[store]\ntelemetry-url = \"postgres://me@db/x\"").is_err());
    }
}
