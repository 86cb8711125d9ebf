//! The `[control]` table of families that are controlled over a web API: a table of actions.
//!
//! Each action is a list of ways to do it, tried in order until one is read back: firmwares of one
//! family differ in which they take. A way is an HTTP request, or a CGMiner command where the family
//! has one that needs no sign-in.

use crate::template;
use hashinsight_protocol::device::CapabilitiesV1;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// `driver = "http"`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpControl {
    pub stop: Vec<Way>,
    pub wake: Vec<Way>,
    pub reboot: Vec<Way>,
    pub locate_on: Vec<Way>,
    pub locate_off: Vec<Way>,
    /// `{pools}` is a list made by `pool`; `{pool1.host}` and its like are parts of one.
    pub pools: Vec<Way>,
    /// One entry of `{pools}`: `{url}`, `{address}` (without scheme), `{host}`, `{port}`, `{worker}`,
    /// `{pass}`, `{index}` from 0, `{number}` from 1.
    pub pool: Value,
    /// `{watts}`.
    pub power_limit: Vec<Way>,
    /// `{preset}`: by name, to put one back, or to choose one for a limit.
    pub preset: Vec<Way>,
    /// Where a limit can only be had by choosing a preset.
    pub presets: Option<Presets>,
    /// What replies mean; where no condition is given a status of 2xx is success.
    pub reply: ReplyRules,
    /// What is looked at before a wake.
    pub guard: Option<Guard>,
    /// Settings that no stop or wake may move.
    pub settings: Option<Settings>,
}

/// One way to do something.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// Its name, in outcomes and in what is learned of a model.
    pub name: String,
    /// A command of the CGMiner API; then nothing else is given.
    pub command: Option<String>,
    #[serde(default = "post")]
    pub method: String,
    #[serde(default)]
    pub path: String,
    pub body: Option<Value>,
    /// A document that is read, changed and sent as `{document}`.
    pub document: Option<Document>,
    /// Blanks that are filled with what the device reports: a default it did not report is never sent.
    #[serde(default)]
    pub take: BTreeMap<String, Place>,
    /// In place of the table's own.
    pub pool: Option<Value>,
    /// Where the change shows, if a reading does not carry it.
    pub shows: Option<Shows>,
    /// What has to follow once this was taken.
    pub then: Option<Box<Way>>,
}

/// A request whose reply tells whether something was changed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shows {
    pub get: String,
    /// A body makes it a POST, for GraphQL.
    pub body: Option<Value>,
    #[serde(default)]
    pub path: String,
    pub equals: Value,
}

fn post() -> String {
    "POST".to_owned()
}

/// A document to be changed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The path it is read from.
    pub get: String,
    /// Where in the reply it stands.
    #[serde(default)]
    pub at: String,
    /// The members that are set; the others are sent as they were read.
    pub set: serde_json::Map<String, Value>,
    /// The place of the first entry of a list that fits becomes `{chosen}`.
    pub choose: Option<Choose>,
}

/// An entry of a list in a document.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choose {
    pub list: String,
    #[serde(rename = "where")]
    pub fits: Condition,
}

/// A list of presets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presets {
    pub get: String,
    /// Where in the reply the list stands.
    #[serde(default)]
    pub list: String,
    pub name: String,
    /// Where an entry has its power; a text begins with the number.
    pub watts: String,
    /// What an entry must be to be chosen.
    pub only: Option<Condition>,
}

/// What a reply says of an action.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplyRules {
    /// Any of these is success; where some are given and none holds, it is a refusal.
    pub accepted: Vec<Condition>,
    /// Any of these is a refusal.
    pub refused: Vec<Condition>,
    /// Where a refusal says why.
    pub words: Vec<String>,
}

/// One sign in a JSON reply.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    pub path: String,
    pub equals: Option<Value>,
    /// Part of a text, in lower case.
    pub contains: Option<String>,
}

/// Where the values stand that decide whether a device may be woken; the limits are in `[guards]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    pub get: String,
    /// Chip temperatures; the least and the greatest found count.
    #[serde(default)]
    pub chips: Vec<String>,
    /// Seconds since it stopped.
    pub stopped_for: Option<String>,
    /// Water temperatures, the least counts.
    #[serde(default)]
    pub water: Vec<String>,
    /// The device's own least temperature of the water, at a path of its own.
    pub water_min: Option<Place>,
}

/// A value in a reply.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub get: String,
    pub path: String,
}

/// Settings that are read before and after a write.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub get: String,
    #[serde(default)]
    pub at: String,
    /// Members that may differ, as paths.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// How they are put back, with `{document}`.
    pub restore: Option<Way>,
}

impl HttpControl {
    /// What TOML's types cannot say.
    pub fn check(&self) -> Result<(), String> {
        if self.stop.is_empty() != self.wake.is_empty() {
            return Err("\"stop\" and \"wake\" go together".to_owned());
        }
        let pool: Vec<String> =
            (1..=3).flat_map(|n| POOL_PARTS.iter().map(move |part| format!("pool{n}.{part}"))).collect();
        let pool: Vec<&str> = pool.iter().map(String::as_str).chain(["pools"]).collect();
        check_ways("stop", &self.stop, &["chosen"])?;
        check_ways("wake", &self.wake, &["chosen", "vendor_mode"])?;
        check_ways("reboot", &self.reboot, &[])?;
        check_ways("locate_on", &self.locate_on, &[])?;
        check_ways("locate_off", &self.locate_off, &[])?;
        check_ways("pools", &self.pools, &pool)?;
        check_ways("power_limit", &self.power_limit, &["watts"])?;
        check_ways("preset", &self.preset, &["preset"])?;
        for template in self.pools.iter().filter_map(|way| way.pool.as_ref()).chain([&self.pool]) {
            let names = template::names(template);
            if let Some(name) = names.iter().find(|name| !POOL_PARTS.contains(&name.as_str())) {
                return Err(format!("\"pool\": {{{name}}} is no part of a pool"));
            }
        }
        if self.presets.is_some() && self.preset.is_empty() {
            return Err("\"presets\" needs a \"preset\"".to_owned());
        }
        match self.settings.as_ref().and_then(|settings| settings.restore.as_ref()) {
            Some(way) => check_way("settings.restore", way, &["document"]),
            None => Ok(()),
        }
    }

    /// What the table can do, whatever the profile says.
    pub fn can(&self) -> CapabilitiesV1 {
        CapabilitiesV1 {
            sleep: !self.stop.is_empty(),
            power_limit: !self.power_limit.is_empty() || self.presets.is_some(),
            reboot: !self.reboot.is_empty(),
            locate: !self.locate_on.is_empty() && !self.locate_off.is_empty(),
            set_pools: !self.pools.is_empty(),
        }
    }

    /// The most ways of any action.
    pub fn ways(&self) -> usize {
        let all = [
            &self.stop,
            &self.wake,
            &self.reboot,
            &self.locate_on,
            &self.pools,
            &self.power_limit,
            &self.preset,
        ];
        all.into_iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Whether a stop or wake needs the web interface.
    pub fn needs_web(&self) -> bool {
        // Where the first way is a command, it is what is used as long as it works.
        [&self.stop, &self.wake].into_iter().any(|ways| ways.first().is_some_and(|way| way.command.is_none()))
    }
}

/// The parts of a pool that a template may name.
pub const POOL_PARTS: [&str; 8] = ["url", "address", "host", "port", "worker", "pass", "index", "number"];

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

fn check_ways(action: &str, ways: &[Way], blanks: &[&str]) -> Result<(), String> {
    for way in ways {
        check_way(action, way, blanks)?;
    }
    Ok(())
}

fn check_way(action: &str, way: &Way, blanks: &[&str]) -> Result<(), String> {
    let here = |reason: String| Err(format!("\"{action}\", way \"{}\": {reason}", way.name));
    if way.command.is_some() {
        return if way.path.is_empty() && way.body.is_none() && way.document.is_none() {
            Ok(())
        } else {
            here("a command has no path, body or document".to_owned())
        };
    }
    if !way.path.starts_with('/') {
        return here("a path begins with \"/\"".to_owned());
    }
    if !METHODS.contains(&way.method.as_str()) {
        return here(format!("\"{}\" is none of {}", way.method, METHODS.join(", ")));
    }
    let set = way.document.as_ref().map(|document| Value::Object(document.set.clone())).unwrap_or_default();
    let mut names = template::text_names(&way.path);
    names.extend(way.body.as_ref().map(template::names).unwrap_or_default());
    names.extend(template::names(&set));
    let known = |name: &String| {
        blanks.contains(&name.as_str())
            || matches!(name.as_str(), "user" | "password")
            || (name == "document" && way.document.is_some())
            || way.take.contains_key(name)
    };
    if let Some(name) = names.iter().find(|name| !known(name)) {
        return here(format!("{{{name}}} is nothing that this action knows"));
    }
    match &way.then {
        Some(then) if then.then.is_some() => here("\"then\" has no \"then\" of its own".to_owned()),
        Some(then) => check_way(action, then, &[]),
        None => Ok(()),
    }
}

/// All values at a path; a list stands for each of its entries, a number for one of them.
pub fn values<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in path.split('/').filter(|step| !step.is_empty()) {
        found = found
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(list) => match step.parse::<usize>() {
                    Ok(n) => list.get(n).into_iter().collect::<Vec<_>>(),
                    Err(_) => list.iter().filter_map(|item| item.get(step)).collect(),
                },
                other => other.get(step).into_iter().collect(),
            })
            .collect();
    }
    found
}

/// A value as a number; a text begins with it.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            let text = text.trim();
            let end =
                text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-'))).unwrap_or(text.len());
            text.get(..end)?.parse().ok()
        }
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

impl Condition {
    /// Whether a reply shows the sign. Without a test the value must say something.
    pub fn holds(&self, reply: &Value) -> bool {
        values(reply, &self.path).into_iter().any(|value| match (&self.equals, &self.contains) {
            (Some(wanted), _) => value == wanted,
            (None, Some(part)) => {
                value.as_str().is_some_and(|text| text.to_ascii_lowercase().contains(part.as_str()))
            }
            (None, None) => !matches!(value, Value::Null | Value::Bool(false)) && value.as_str() != Some(""),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrong_table_is_refused_with_a_reason() {
        let check = |text: &str, reason: &str| {
            let control: HttpControl = toml::from_str(text).unwrap();
            let error = control.check().unwrap_err();
            assert!(error.contains(reason), "{error}");
        };
        let stop = "stop = [{ name = \"a\", path = \"/stop\" }]\n";
        check(stop, "go together");
        let both = |way: &str| format!("{stop}wake = [{way}]\n");
        check(&both("{ name = \"a\", path = \"start\" }"), "begins with");
        check(&both("{ name = \"a\", path = \"/\", method = \"STEAL\" }"), "STEAL");
        check(&both("{ name = \"a\", path = \"/\", body = { a = \"{watts}\" } }"), "{watts}");
        check(&both("{ name = \"a\", command = \"resume\", path = \"/\" }"), "a command has no");
        check("presets = { get = \"/\", name = \"n\", watts = \"n\" }", "needs a \"preset\"");
        check("pool = { url = \"{uri}\" }", "{uri}");
        assert!(toml::from_str::<HttpControl>("stopp = []").is_err());
    }

    #[test]
    fn conditions_and_paths() {
        let reply = json!({"result": false, "error": "Authentication failed", "list": [{"a": 1}, {"a": 2}], "n": null});
        let check = |condition: Value, holds: bool| {
            let condition: Condition = serde_json::from_value(condition).unwrap();
            assert_eq!(condition.holds(&reply), holds, "{condition:?}");
        };
        check(json!({"path": "result", "equals": true}), false);
        check(json!({"path": "result", "equals": false}), true);
        check(json!({"path": "error", "contains": "authentication"}), true);
        check(json!({"path": "error"}), true);
        check(json!({"path": "n"}), false);
        check(json!({"path": "list/a", "equals": 2}), true);
        check(json!({"path": "list/0/a", "equals": 2}), false);
        check(json!({"path": "list/7/a"}), false);
        assert_eq!(number(&json!("2550 watt ~ 170 TH")), Some(2550.0));
        assert_eq!(number(&json!("disabled")), None);
    }
}
