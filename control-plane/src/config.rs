//! The configuration: command line before file before default.
//!
//! Every value has a default that works on one machine with nothing prepared.

use crate::error::{Error, Result};
use crate::mqtt::remote::Address;
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
    /// Gets the listeners' addresses as JSON once all of them are up.
    pub ready_file: Option<PathBuf>,
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
    }
}
