//! One device: where it is, how to sign in, how long it may take, and what can go wrong.

use crate::reading::Reading;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// The CGMiner API's port.
pub const API_PORT: u16 = 4028;

/// The port of Whatsminer's API 3.
pub const V3_PORT: u16 = 4433;

/// Where a device is reached.
#[derive(Clone, Debug)]
pub struct Device {
    pub ip: IpAddr,
    /// The CGMiner API.
    pub api_port: u16,
    /// The web interface.
    pub web_port: u16,
    /// Whatsminer's API 3.
    pub v3_port: u16,
    /// Sign-in; each family's factory default is tried where none is given.
    pub credentials: Option<Credentials>,
    /// Who is told of readings that were taken on the way to something else.
    pub heard: Option<Heard>,
}

/// Told of every reading that a device gave while it was identified, looked at or read back, so that
/// none of its answers is lost. [`crate::read`] returns its reading instead.
#[derive(Clone)]
pub struct Heard(Arc<dyn Fn(Reading) + Send + Sync>);

impl Heard {
    pub fn new(tell: impl Fn(Reading) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heard")
    }
}

impl Device {
    /// A device on its usual ports.
    pub fn at(ip: IpAddr) -> Self {
        Self { ip, api_port: API_PORT, web_port: 80, v3_port: V3_PORT, credentials: None, heard: None }
    }

    /// Passes on a reading; one without a rate is only a look at settings.
    pub(crate) fn tell(&self, reading: &Reading) {
        if let Some(Heard(tell)) = self.heard.as_ref().filter(|_| reading.hashrate.is_some()) {
            tell(reading.clone());
        }
    }
}

/// A user name and password.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub user: String,
    pub password: Secret,
}

/// A text that is never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How long a call may take and how much it may read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the whole of a reading call. A write takes the longer of this and its profile's own
    /// time for each exchange, see [`crate::write_time`].
    pub deadline: Duration,
    /// For one reply, in bytes.
    pub max_reply: usize,
}

impl Default for Limits {
    /// Six seconds and one MiB; the longest reply known is 67 kB.
    fn default() -> Self {
        Self { deadline: Duration::from_secs(6), max_reply: 1 << 20 }
    }
}

/// Why a device could not be read or written. One line each, saying what to look at.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum DeviceError {
    #[error("{address} refuses connections; is the miner on, and is its API switched on?")]
    Refused { address: String },
    #[error("{address} cannot be reached: {cause}")]
    Unreachable { address: String, cause: String },
    #[error("{address} took the connection but said nothing within {} s; its API is hung or held by another client", .after.as_secs_f32())]
    Silent { address: String, after: Duration },
    #[error(
        "{address} closed the connection without a byte; this computer is not in its api-allow list, or its API crashed"
    )]
    Empty { address: String },
    #[error("{address} speaks HTTP where the CGMiner API was expected; check the port")]
    HttpInstead { address: String },
    #[error("{address} sent something that no miner API sends: {found}")]
    Garbage { address: String, found: String },
    #[error("{address} sent more than {limit} bytes; the reply was given up")]
    TooLarge { address: String, limit: usize },
    #[error("{address} did not finish within {} s", .after.as_secs_f32())]
    Deadline { address: String, after: Duration },
    #[error("{address} refuses {login}; set the miner's credentials")]
    AuthRefused { address: String, login: String },
    #[error("{address} does not allow writes: {words}")]
    WriteNotAllowed { address: String, words: String },
    #[error("{address} is busy: {words}")]
    Busy { address: String, words: String },
    #[error("{address} cannot take these pools: {words}; nothing was sent")]
    BadPools { address: String, words: String },
    #[error("{address} answered {status} to {request}")]
    HttpStatus { address: String, status: u16, request: String },
    #[error("{address} refused \"{request}\": {words}")]
    Rejected { address: String, request: String, words: String },
    #[error("the firmware {firmware} cannot be {wish} by this program")]
    Unsupported { firmware: String, wish: &'static str },
    #[error("{address} does not say which mode it is in ({detail}); nothing was written")]
    ModeUnknown { address: String, detail: String },
    #[error("{address} changed {fields} when only its mode was written (shape {shape}); the former settings were {}", if *.restored { "put back" } else { "NOT put back: check the miner" })]
    FieldMoved { address: String, shape: String, fields: String, restored: bool },
    #[error("{address} runs {found}, not {expected}; it was not written to")]
    Changed { address: String, expected: String, found: String },
}

impl DeviceError {
    /// Whether the device was not reached at all, so that nothing can have happened to it.
    pub fn is_unreached(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Unreachable { .. })
    }

    /// Whether it is a reply that is missing: what was asked may or may not have been done.
    pub fn is_lost_reply(&self) -> bool {
        matches!(
            self,
            Self::Silent { .. } | Self::Empty { .. } | Self::Deadline { .. } | Self::Garbage { .. }
        )
    }
}
