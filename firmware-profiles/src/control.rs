//! How a family is stopped and woken, as its profile says: the `[control]` table.
//!
//! The order of writes is data; how they travel is code in [`crate::drivers`].

pub mod http;

use http::HttpControl;
use serde::Deserialize;

/// The `[control]` table of a profile; `driver` chooses the code that runs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "driver", rename_all = "kebab-case")]
pub enum ControlFile {
    AntminerConf(AntminerConf),
    WhatsminerV2(WhatsminerV2),
    AvalonAscset(AvalonAscset),
    CgminerCommand(CgminerCommand),
    LuxosCurtail(LuxosCurtail),
    Http(Box<HttpControl>),
}

impl ControlFile {
    /// What TOML's types cannot say.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::AntminerConf(conf) => {
                if conf.mode_keys.is_empty() {
                    return Err("\"mode_keys\" is empty".to_owned());
                }
                if conf.shapes.is_empty() {
                    return Err("\"shapes\" is empty".to_owned());
                }
                match conf.shapes.iter().find(|shape| shape.set.is_empty()) {
                    Some(shape) => Err(format!("shape \"{}\" sets nothing", shape.name)),
                    None => Ok(()),
                }
            }
            Self::AvalonAscset(avalon) if avalon.stop.is_empty() || avalon.wake.is_empty() => {
                Err("\"stop\" and \"wake\" need a command each".to_owned())
            }
            Self::Http(control) => control.check(),
            _ => Ok(()),
        }
    }
}

/// Stock Antminers: a document that is read, changed and posted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AntminerConf {
    pub get: String,
    pub set: String,
    /// The keys that carry the mode, in the order they are believed.
    pub mode_keys: Vec<String>,
    pub sleep_mode: i64,
    /// What each of the vendor's values means.
    pub modes: Vec<VendorMode>,
    /// Keys that are never sent back, because their echo changes something.
    #[serde(default)]
    pub never_send: Vec<String>,
    /// The write shapes, the smallest change first.
    pub shapes: Vec<Shape>,
}

/// One value of a vendor's mode.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorMode {
    pub value: i64,
    pub mode: hashinsight_protocol::device::ModeV1,
}

/// One way to write the mode.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    pub name: String,
    pub document: Document,
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
}

/// Plain commands without a parameter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgminerCommand {
    pub stop: String,
    pub wake: String,
}

/// LuxOS: a session, then `curtail`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LuxosCurtail {
    pub stop: String,
    pub wake: String,
}
