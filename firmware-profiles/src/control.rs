//! How a family is stopped and woken, as its profile says: the `[control]` table.
//!
//! The order of writes is data; how they travel is code in [`crate::drivers`].

pub mod http;

use hashinsight_protocol::device::CapabilitiesV1;
use http::HttpControl;
use serde::Deserialize;

/// The `[control]` table of a profile; `driver` chooses the code that runs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "driver", rename_all = "kebab-case")]
pub enum ControlFile {
    AntminerConf(AntminerConf),
    WhatsminerV2(WhatsminerV2),
    WhatsminerV3(WhatsminerV3),
    AvalonAscset(AvalonAscset),
    CgminerCommand(CgminerCommand),
    LuxosCurtail(LuxosCurtail),
    Http(Box<HttpControl>),
}

impl ControlFile {
    /// What TOML's types cannot say.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::AntminerConf(conf) => conf.check(),
            Self::AvalonAscset(avalon) if avalon.stop.is_empty() || avalon.wake.is_empty() => {
                Err("\"stop\" and \"wake\" need a command each".to_owned())
            }
            Self::Http(control) => control.check(),
            _ => Ok(()),
        }
    }

    /// What can be done with this table; a profile may claim no more.
    pub fn abilities(&self) -> CapabilitiesV1 {
        let all =
            CapabilitiesV1 { sleep: true, power_limit: true, reboot: true, locate: true, set_pools: true };
        match self {
            Self::AntminerConf(conf) => CapabilitiesV1 {
                sleep: !conf.mode_keys.is_empty(),
                power_limit: false,
                reboot: conf.reboot.is_some(),
                locate: conf.locate.is_some(),
                set_pools: conf.max_pools > 0,
            },
            Self::WhatsminerV2(_) | Self::WhatsminerV3(_) | Self::LuxosCurtail(_) => all,
            Self::Http(control) => control.can(),
            Self::AvalonAscset(avalon) => CapabilitiesV1 {
                power_limit: false,
                reboot: avalon.reboot.is_some(),
                locate: avalon.locate.is_some(),
                set_pools: avalon.set_pool.is_some(),
                ..all
            },
            Self::CgminerCommand(commands) => CapabilitiesV1 {
                power_limit: commands.limit.is_some(),
                reboot: commands.reboot.is_some(),
                locate: false,
                set_pools: commands.pools.is_some(),
                ..all
            },
        }
    }
}

/// Stock Antminers and their kin: a document that is read, changed and posted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AntminerConf {
    pub get: String,
    pub set: String,
    /// The keys that carry the mode, in the order they are believed; a key inside another is
    /// written `outer/inner`. Empty where the family has no mode.
    #[serde(default)]
    pub mode_keys: Vec<String>,
    #[serde(default)]
    pub sleep_mode: ModeValue,
    /// What each of the vendor's values means.
    #[serde(default)]
    pub modes: Vec<VendorMode>,
    /// Keys that are never sent back, because their echo changes something.
    #[serde(default)]
    pub never_send: Vec<String>,
    /// The write shapes, the smallest change first.
    pub shapes: Vec<Shape>,
    /// How many pools the document holds; 0 where they cannot be written.
    #[serde(default = "three")]
    pub max_pools: usize,
    pub reboot: Option<WebStep>,
    pub locate: Option<WebLight>,
}

fn three() -> usize {
    3
}

impl AntminerConf {
    fn check(&self) -> Result<(), String> {
        if self.shapes.is_empty() {
            return Err("\"shapes\" is empty".to_owned());
        }
        if let Some(shape) =
            self.shapes.iter().find(|shape| shape.set.is_empty() != self.mode_keys.is_empty())
        {
            return Err(format!("shape \"{}\" must set the mode where \"mode_keys\" has one", shape.name));
        }
        let same = |value: &ModeValue| {
            matches!(value, ModeValue::Number(_)) == matches!(self.sleep_mode, ModeValue::Number(_))
        };
        match self.modes.iter().find(|mode| !same(&mode.value)) {
            Some(_) => Err("\"modes\" and \"sleep_mode\" are numbers, or texts, all of them".to_owned()),
            None => Ok(()),
        }
    }
}

/// A mode as the vendor writes it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum ModeValue {
    Number(i64),
    Text(String),
}

impl Default for ModeValue {
    fn default() -> Self {
        Self::Number(1)
    }
}

impl std::fmt::Display for ModeValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// One request to the web server; a body makes it a POST.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebStep {
    pub path: String,
    pub body: Option<String>,
}

/// How the locating light is switched and read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebLight {
    pub path: String,
    /// The bodies that are posted.
    pub on: String,
    pub off: String,
    /// Where the light's state is read, and the key it has there.
    pub read: Option<String>,
    #[serde(default)]
    pub key: String,
}

/// One value of a vendor's mode.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorMode {
    pub value: ModeValue,
    pub mode: hashinsight_protocol::device::ModeV1,
}

/// One way to write the mode.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    pub name: String,
    pub document: Document,
    #[serde(default)]
    pub set: Vec<SetKey>,
    #[serde(default)]
    pub drop: Vec<String>,
    #[serde(default)]
    pub nulls_as_zero: bool,
    #[serde(default = "json_type")]
    pub content_type: String,
}

fn json_type() -> String {
    "application/json".to_owned()
}

/// How much of the document is sent.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Document {
    /// The keys that are set and no other.
    Keys,
    Whole,
}

/// One key that a shape sets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetKey {
    /// The key; "reported" is the mode key that the device reported.
    pub key: String,
    #[serde(rename = "as")]
    pub form: Form,
}

/// The JSON type of a mode.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    Integer,
    Text,
    /// The type that the device reported.
    Same,
}

/// Whatsminer's API 2: commands under a token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhatsminerV2 {
    pub stop: String,
    pub wake: String,
    /// Commands that set the power mode, by the word that `status` or `summary` reports.
    #[serde(default)]
    pub modes: Vec<NamedMode>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedMode {
    pub name: String,
    pub value: i64,
    pub command: String,
}

/// Whatsminer's API 3: `set.` commands under a token of their own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhatsminerV3 {
    /// What `set.miner.service` is told.
    pub stop: String,
    pub wake: String,
    /// What `set.miner.power_mode` is told, by the value that the device reports.
    #[serde(default)]
    pub modes: Vec<NamedMode>,
}

/// Avalon: options of `ascset`, tried in order; `{at}` is a time on the device's own clock.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvalonAscset {
    pub stop: Vec<String>,
    pub wake: Vec<String>,
    /// How far ahead of the device's clock the time is set, in seconds.
    pub lead_s: i64,
    /// The option that sets the work mode; `{mode}` is its value.
    pub work_mode: Option<String>,
    pub reboot: Option<String>,
    /// `{on}` is 1 or 0.
    pub locate: Option<String>,
    /// The parameter of `setpool`: `{user}` and `{password}` sign in, `{index}`, `{url}`, `{worker}`
    /// and `{pass}` are the pool's. It takes effect by a reboot.
    pub set_pool: Option<String>,
}

/// Plain commands of the CGMiner API: a name, and behind a blank its parameter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgminerCommand {
    pub stop: String,
    pub wake: String,
    pub reboot: Option<String>,
    /// `{watts}`.
    pub limit: Option<String>,
    /// `{pools}` is a JSON list of `url`, `user` and `pass`.
    pub pools: Option<String>,
}

/// LuxOS: a session, then `curtail`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LuxosCurtail {
    pub stop: String,
    pub wake: String,
}
