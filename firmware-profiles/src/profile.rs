//! A firmware profile: what is known of one firmware family, as a TOML file.
//!
//! The files in `profiles/` are compiled in; a site's folder may override one (by its `firmware`
//! name) or add another. A file is checked when it is loaded, and an error names the file, the line
//! and the reason. `profiles/README.md` documents every key.
//!
//! A profile is compiled once into an [`Extractor`]; nothing of the TOML is looked at again when a
//! device is read.

use crate::control::ControlFile;
use crate::extract::Extractor;
use crate::json;
use crate::request::{Request, Transport};
use crate::rules::{Rule, rate_factor};
use crate::text;
use hashinsight_protocol::device::CapabilitiesV1;
use hashinsight_protocol::units::{Hashrate, JoulesPerTerahash, Watts};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use toml::Spanned;

/// Why a profile was not taken.
#[derive(Debug, Error)]
pub enum ProfileError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{file}, line {line}: {reason}")]
    Line { file: String, line: usize, reason: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    firmware: String,
    title: String,
    #[serde(default)]
    order: i32,
    fields_of: Option<Spanned<String>>,
    #[serde(default)]
    recognise: Vec<ClauseFile>,
    #[serde(default)]
    not: Vec<ClauseFile>,
    #[serde(default)]
    rate_units: Vec<RateUnitFile>,
    #[serde(default)]
    read: ReadFile,
    #[serde(default)]
    from: Vec<FromFile>,
    control: Option<ControlFile>,
    #[serde(default)]
    evidence: Evidence,
    #[serde(default)]
    times: Times,
    #[serde(default)]
    guards: Guards,
    #[serde(default)]
    capabilities: CapabilitiesFile,
    #[serde(default)]
    credentials: CredentialsFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClauseFile {
    reply: String,
    path: String,
    starts: Option<String>,
    contains: Option<String>,
    equals: Option<String>,
    lacks: Option<String>,
    #[serde(default = "ten")]
    weight: i32,
}

/// What a model counts its rates in, where its replies do not say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateUnitFile {
    model: String,
    hashrate: Spanned<String>,
    boards: Spanned<String>,
}

fn ten() -> i32 {
    10
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadFile {
    #[serde(default)]
    probe: Vec<Spanned<String>>,
    #[serde(default)]
    identify: Vec<Spanned<String>>,
    #[serde(default)]
    requests: Vec<Spanned<String>>,
    #[serde(default)]
    without_hashrate: Vec<Spanned<String>>,
    #[serde(default)]
    state: Vec<Spanned<String>>,
    #[serde(default)]
    join: Join,
}

/// Whether a family takes joined commands.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    #[default]
    No,
    Yes,
    /// Asked once when the device is identified.
    Probe,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromFile {
    replies: Vec<String>,
    fields: Spanned<String>,
    #[serde(default)]
    adds: bool,
    #[serde(default, rename = "else")]
    otherwise: bool,
}

/// What proves that a device of the family stands still.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evidence {
    /// What a stopped device still draws, in watts.
    pub standby_w: f64,
    /// At or below this power a device is stopped, whatever it says, in watts.
    pub stopped_below_w: f64,
    /// The device's own word on its state beats its hashrate.
    pub state_beats_rate: bool,
    /// The device reports 0 W when its power is not measured.
    pub zero_power_is_unknown: bool,
    /// Statistics without a rate are those of a device that does not hash.
    pub silent_stats_are_idle: bool,
    /// The API has no word for the mode: a real-time rate of zero is read as stopped.
    pub mode_from_rate: bool,
    /// The profile fits any device that speaks the API, so it proves nothing about the firmware.
    pub generic: bool,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            standby_w: 20.0,
            stopped_below_w: 50.0,
            state_beats_rate: false,
            zero_power_is_unknown: true,
            silent_stats_are_idle: false,
            mode_from_rate: false,
            generic: false,
        }
    }
}

/// Times to expect, in seconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Times {
    /// The longest a device of the family takes to answer a write.
    pub write_s: u64,
    /// How long the mode is read back before a write counts as ignored.
    pub settle_s: u64,
    /// From the write until power and hashrate are down.
    pub stop_effect_s: u64,
    /// From the write until the device hashes as before.
    pub wake_effect_s: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { write_s: 15, settle_s: 10, stop_effect_s: 120, wake_effect_s: 900 }
    }
}

/// What must hold before a device of the family is woken.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guards {
    /// Spread between the coldest and the hottest chip, in degrees Celsius.
    pub chip_spread_c: Option<f64>,
    /// Seconds since the stop after which the spread no longer matters.
    pub chip_spread_until_s: Option<u64>,
    /// Least temperature of the water, in degrees Celsius.
    pub water_min_c: Option<f64>,
    /// Least time between a stop and a wake, in seconds.
    pub min_off_s: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CapabilitiesFile {
    sleep: bool,
    power_limit: bool,
    reboot: bool,
    locate: bool,
    set_pools: bool,
}

/// The sign-in that a family's requests need.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CredentialsFile {
    user: Option<String>,
    password: Option<String>,
}

/// A profile, checked and compiled.
#[derive(Debug)]
pub struct Profile {
    pub firmware: String,
    pub title: String,
    pub order: i32,
    clauses: Vec<Clause>,
    excludes: Vec<Clause>,
    /// Asked of a device that does not speak the CGMiner API.
    pub probe: Vec<Ask>,
    pub identify: Vec<Ask>,
    pub requests: Vec<Ask>,
    pub without_hashrate: Vec<Ask>,
    pub state: Vec<Ask>,
    pub join: Join,
    pub extractor: Extractor,
    /// Blocks whose list entries add to those of others.
    pub adding: Vec<u16>,
    /// Blocks whose list entries count only where no other block has any of the kind.
    pub otherwise: Vec<u16>,
    rate_units: Vec<(String, RateUnit)>,
    pub control: Option<ControlFile>,
    pub evidence: Evidence,
    pub times: Times,
    pub guards: Guards,
    pub capabilities: CapabilitiesV1,
    pub user: Option<String>,
    pub password: Option<String>,
}

/// The `[[from]]` blocks of a profile on their way into the extractor.
#[derive(Default)]
struct Blocks {
    lines: Vec<(Vec<String>, u16, Rule)>,
    adding: Vec<u16>,
    otherwise: Vec<u16>,
    count: u16,
}

impl Blocks {
    fn add(&mut self, file: &str, text: &str, blocks: &[FromFile]) -> Result<(), ProfileError> {
        for from in blocks {
            let block = self.count;
            self.count = self.count.saturating_add(1);
            if from.adds {
                self.adding.push(block);
            }
            if from.otherwise {
                self.otherwise.push(block);
            }
            let span = from.fields.span();
            let line = text.get(..span.start).unwrap_or(text).matches('\n').count() + 1;
            // The lines begin after the opening quotes, or on the same line as they.
            let raw = text.get(span).unwrap_or_default();
            let first = line + usize::from(raw.starts_with("\"\"\"\n") || raw.starts_with("'''\n"));
            for (n, line) in from.fields.get_ref().lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let rule = Rule::parse(line).map_err(|reason| ProfileError::Line {
                    file: file.to_owned(),
                    line: first + n,
                    reason: format!("{reason} (\"{line}\")"),
                })?;
                self.lines.push((from.replies.clone(), block, rule));
            }
        }
        Ok(())
    }
}

/// What one of a model's numbers is worth, in hashes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateUnit {
    pub hashrate: f64,
    pub boards: f64,
}

impl Profile {
    /// The unit of a model's rates; the longest name that the model begins with counts.
    pub fn rate_unit(&self, model: &str) -> Option<RateUnit> {
        let fits = |name: &&(String, RateUnit)| model.starts_with(&name.0);
        self.rate_units.iter().filter(fits).max_by_key(|(name, _)| name.len()).map(|(_, unit)| *unit)
    }

    /// Whether this is the fallback that fits any device.
    pub fn clauses_are_generic(&self) -> bool {
        self.evidence.generic
    }

    pub fn write_time(&self) -> Duration {
        Duration::from_secs(self.times.write_s)
    }

    pub fn settle_time(&self) -> Duration {
        Duration::from_secs(self.times.settle_s)
    }
}

/// A request as a profile orders it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub request: Request,
    /// What is sent: a command with its parameter, or a path.
    pub send: Send,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Send {
    /// One CGMiner API command; `extra` are more members of the JSON request.
    Command {
        command: String,
        extra: Vec<(String, Value)>,
    },
    Get {
        path: String,
    },
    /// The same on the CGMiner API's port, where ePIC listens.
    ApiGet {
        path: String,
    },
    /// A command of Whatsminer's API 3.
    V3 {
        command: String,
        parameter: Option<String>,
    },
    GraphQl {
        query: String,
    },
}

impl Ask {
    fn parse(line: &str) -> Result<Self, String> {
        let get = |prefix: &str| {
            let path = line.strip_prefix(prefix)?;
            Some(if path.starts_with('/') { Ok(path) } else { Err("a path begins with \"/\"".to_owned()) })
        };
        if let Some(path) = get("API GET ") {
            let path = path?;
            return Ok(Self { request: Request::http(path), send: Send::ApiGet { path: path.to_owned() } });
        }
        if let Some(path) = get("GET ") {
            let path = path?;
            return Ok(Self { request: Request::http(path), send: Send::Get { path: path.to_owned() } });
        }
        if let Some(query) = line.strip_prefix("QUERY ") {
            let request = Request { transport: Transport::GraphQl, name: "graphql".to_owned() };
            return Ok(Self { request, send: Send::GraphQl { query: query.to_owned() } });
        }
        if let Some(command) = line.strip_prefix("V3 ") {
            let (command, parameter) =
                command.split_once(' ').map_or((command, None), |(c, p)| (c, Some(p.to_owned())));
            let request = Request::whatsminer_v3(command);
            return Ok(Self { request, send: Send::V3 { command: command.to_owned(), parameter } });
        }
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut extra = Vec::new();
        for pair in rest.split_whitespace() {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("\"{pair}\" is not key=value"))?;
            extra.push((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))));
        }
        if command.is_empty()
            || !command.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+'))
        {
            return Err(format!("\"{command}\" is no command"));
        }
        Ok(Self {
            request: Request::cgminer(command),
            send: Send::Command { command: command.to_owned(), extra },
        })
    }

    /// A plain CGMiner API command.
    pub fn command(command: &str) -> Self {
        Self {
            request: Request::cgminer(command),
            send: Send::Command { command: command.to_owned(), extra: Vec::new() },
        }
    }
}

#[derive(Debug)]
struct Clause {
    reply: String,
    path: Vec<String>,
    test: Test,
    weight: i32,
}

#[derive(Debug)]
enum Test {
    Present,
    Starts(String),
    Contains(String),
    Equals(String),
    Lacks(String),
}

/// Replies of one device, made ready for recognition.
pub struct Parsed {
    replies: Vec<(String, Value)>,
}

impl Parsed {
    pub fn new(replies: &[(Request, &[u8])]) -> Self {
        let mut out = Vec::new();
        for (request, bytes) in replies {
            let Some(value) = reply_value(bytes) else { continue };
            if request.is_joined()
                && let Value::Object(map) = &value
            {
                for (command, inner) in map {
                    out.push((command.to_ascii_lowercase(), inner.clone()));
                }
            } else {
                out.push((request.name.clone(), value));
            }
        }
        Self { replies: out }
    }
}

/// A reply as a dynamic value; a text reply as the JSON that would have said the same.
pub fn reply_value(bytes: &[u8]) -> Option<Value> {
    if !text::is_text_reply(bytes) {
        return json::parse(bytes).map(|(value, _)| value);
    }
    let whole = String::from_utf8_lossy(bytes);
    let mut out = serde_json::Map::new();
    for section in text::sections(&whole) {
        let fields: serde_json::Map<String, Value> = section
            .fields
            .iter()
            .map(|(key, value)| (key.to_owned(), Value::from(text::unescape(value).into_owned())))
            .collect();
        if let Value::Array(list) = out.entry(section.list).or_insert_with(|| Value::Array(Vec::new())) {
            list.push(Value::Object(fields));
        }
    }
    Some(Value::Object(out))
}

impl Clause {
    fn new(file: ClauseFile) -> Result<Self, String> {
        let tests: Vec<Test> = [
            file.starts.map(Test::Starts),
            file.contains.map(|t| Test::Contains(t.to_ascii_lowercase())),
            file.equals.map(Test::Equals),
            file.lacks.map(|t| Test::Lacks(t.to_ascii_lowercase())),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut tests = tests.into_iter();
        let test = tests.next().unwrap_or(Test::Present);
        if tests.next().is_some() {
            return Err("a clause has one test".to_owned());
        }
        let path = file.path.split('/').map(|step| step.replace("::", "/")).collect();
        Ok(Self { reply: file.reply, path, test, weight: file.weight })
    }

    fn holds(&self, parsed: &Parsed) -> bool {
        parsed
            .replies
            .iter()
            .filter(|(name, _)| match self.reply.strip_suffix('*') {
                Some(head) => name.starts_with(head),
                None => *name == self.reply,
            })
            .any(|(_, value)| self.matches(value, &self.path))
    }

    fn matches(&self, value: &Value, path: &[String]) -> bool {
        if let Value::Array(list) = value {
            return list.iter().any(|item| self.matches(item, path));
        }
        let Some((step, rest)) = path.split_first() else { return self.test(value) };
        match value {
            Value::Object(map) => match step.as_str() {
                "*" => map.values().any(|inner| self.matches(inner, rest)),
                step => match step.strip_suffix('*') {
                    Some(prefix) => {
                        map.iter().any(|(key, inner)| key.starts_with(prefix) && self.matches(inner, rest))
                    }
                    None => map.get(step).is_some_and(|inner| self.matches(inner, rest)),
                },
            },
            _ => false,
        }
    }

    fn test(&self, value: &Value) -> bool {
        if let Test::Present = self.test {
            return true;
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Null => return false,
            other => other.to_string(),
        };
        match &self.test {
            Test::Present => true,
            Test::Starts(head) => text.starts_with(head),
            Test::Contains(part) => text.to_ascii_lowercase().contains(part),
            Test::Equals(whole) => text == *whole,
            Test::Lacks(part) => !text.to_ascii_lowercase().contains(part),
        }
    }
}

impl Profile {
    /// Loads one file; `file` is its name in errors, `others` finds the text of a profile that this
    /// one takes its fields of.
    pub fn load(
        file: &str,
        text: &str,
        others: &dyn Fn(&str) -> Option<&'static str>,
    ) -> Result<Self, ProfileError> {
        let at = |offset: usize| text.get(..offset).unwrap_or(text).matches('\n').count() + 1;
        let error = |line: usize, reason: String| ProfileError::Line { file: file.to_owned(), line, reason };
        let parsed: ProfileFile = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(1, |span| at(span.start));
            error(line, e.message().to_owned())
        })?;
        let place = |needle: &str| text.find(needle).map_or(1, at);
        if parsed.firmware.is_empty()
            || !parsed.firmware.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            let reason = "\"firmware\" is lower-case letters, digits and dashes".to_owned();
            return Err(error(place("firmware"), reason));
        }
        let clauses = |files: Vec<ClauseFile>, table: &str| {
            files
                .into_iter()
                .map(|clause| {
                    let path = clause.path.clone();
                    Clause::new(clause).map_err(|reason| error(place(&path).max(place(table)), reason))
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let asks = |lines: &[Spanned<String>]| {
            lines
                .iter()
                .map(|line| Ask::parse(line.get_ref()).map_err(|reason| error(at(line.span().start), reason)))
                .collect::<Result<Vec<_>, _>>()
        };
        let mut blocks = Blocks::default();
        blocks.add(file, text, &parsed.from)?;
        if let Some(other) = &parsed.fields_of {
            let found = others(other.get_ref()).ok_or_else(|| {
                error(at(other.span().start), format!("there is no profile \"{}\"", other.get_ref()))
            })?;
            let base: ProfileFile = toml::from_str(found).map_err(|e| {
                error(at(other.span().start), format!("\"{}\": {}", other.get_ref(), e.message()))
            })?;
            blocks.add(other.get_ref(), found, &base.from)?;
        }
        let Blocks { lines, adding, otherwise, .. } = blocks;
        let compiled: Vec<(&[String], u16, Rule)> =
            lines.iter().map(|(replies, block, rule)| (replies.as_slice(), *block, rule.clone())).collect();
        let extractor = Extractor::compile(&compiled);
        let unit = |name: &Spanned<String>| {
            rate_factor(name.get_ref()).ok_or_else(|| {
                error(at(name.span().start), format!("\"{}\" is no unit of a hashrate", name.get_ref()))
            })
        };
        let rate_units = parsed
            .rate_units
            .iter()
            .map(|file| {
                let unit = RateUnit { hashrate: unit(&file.hashrate)?, boards: unit(&file.boards)? };
                Ok((file.model.clone(), unit))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(control) = &parsed.control {
            control.check().map_err(|reason| error(place("[control]"), reason))?;
        }
        let capabilities = CapabilitiesV1 {
            sleep: parsed.capabilities.sleep,
            power_limit: parsed.capabilities.power_limit,
            reboot: parsed.capabilities.reboot,
            locate: parsed.capabilities.locate,
            set_pools: parsed.capabilities.set_pools,
        };
        if capabilities.sleep && parsed.control.is_none() {
            return Err(error(place("[capabilities]"), "sleep needs a [control]".to_owned()));
        }
        Ok(Self {
            probe: asks(&parsed.read.probe)?,
            identify: asks(&parsed.read.identify)?,
            requests: asks(&parsed.read.requests)?,
            without_hashrate: asks(&parsed.read.without_hashrate)?,
            state: asks(&parsed.read.state)?,
            join: parsed.read.join,
            clauses: clauses(parsed.recognise, "[[recognise]]")?,
            excludes: clauses(parsed.not, "[[not]]")?,
            firmware: parsed.firmware,
            title: parsed.title,
            order: parsed.order,
            extractor,
            adding,
            otherwise,
            rate_units,
            control: parsed.control,
            evidence: parsed.evidence,
            times: parsed.times,
            guards: parsed.guards,
            capabilities,
            user: parsed.credentials.user,
            password: parsed.credentials.password,
        })
    }

    /// How sure the replies are of this firmware; `None` when they are of another.
    pub fn recognises(&self, parsed: &Parsed) -> Option<i32> {
        let best = self.clauses.iter().filter(|c| c.holds(parsed)).map(|c| c.weight).max()?;
        if self.excludes.iter().any(|c| c.holds(parsed)) {
            return None;
        }
        Some(best.saturating_mul(1000).saturating_add(self.order))
    }
}

/// What a model does at its ordinary setting, as its maker says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nameplate {
    pub hashrate: Hashrate,
    pub power: Watts,
}

impl Nameplate {
    pub fn efficiency(self) -> Option<JoulesPerTerahash> {
        JoulesPerTerahash::of(self.power, self.hashrate)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelsFile {
    model: Vec<ModelFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelFile {
    name: String,
    terahash: f64,
    watts: f64,
}

/// Nameplates by model, the longest name first so that "S21 Pro" is not taken for "S21".
#[derive(Debug, Default)]
pub struct Models(Vec<(String, Nameplate)>);

impl Models {
    pub fn load(file: &str, text: &str) -> Result<Self, ProfileError> {
        let error = |line: usize, reason: String| ProfileError::Line { file: file.to_owned(), line, reason };
        let parsed: ModelsFile = toml::from_str(text).map_err(|e| {
            let line = e
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |head| head.matches('\n').count() + 1);
            error(line, e.message().to_owned())
        })?;
        let mut models = Vec::new();
        for model in parsed.model {
            let plate = Hashrate::from_terahash(model.terahash).zip(Watts::new(model.watts));
            let Some((hashrate, power)) = plate else {
                let line = text
                    .find(&model.name)
                    .map_or(1, |at| text.get(..at).unwrap_or(text).matches('\n').count() + 1);
                return Err(error(line, format!("the figures of {} cannot be", model.name)));
            };
            models.push((plain(&model.name), Nameplate { hashrate, power }));
        }
        models.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Ok(Self(models))
    }

    /// The nameplate of a model; `None` rather than that of a similar one.
    pub fn find(&self, model: &str) -> Option<Nameplate> {
        let model = plain(model);
        self.0
            .iter()
            .find(|(name, _)| model == *name || model.strip_prefix("antminer").is_some_and(|m| m == name))
            .map(|(_, plate)| *plate)
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '+').map(|c| c.to_ascii_lowercase()).collect()
}

/// The name of a file without its folder.
pub fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        match Profile::load("x.toml", text, &|_| None) {
            Err(error) => error.to_string(),
            Ok(_) => "no error".to_owned(),
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let head = "firmware = \"x\"\ntitle = \"X\"\n";
        let check = |rest: &str, line: usize, reason: &str| {
            let found = error(&format!("{head}{rest}"));
            assert!(
                found.starts_with(&format!("x.toml, line {line}: ")) && found.contains(reason),
                "{found}"
            );
        };
        check("colour = 1\n", 3, "colour");
        check("[read]\nrequests = [\"stats\",\n  \"a b\"]\n", 5, "key=value");
        check("[read]\nrequests = [\"GET stats\"]\n", 4, "begins with");
        check(
            "[[from]]\nreplies = [\"*\"]\nfields = \"\"\"\nA/B -> temp\nA/C -> speed\n\"\"\"\n",
            7,
            "no target",
        );
        check("[capabilities]\nsleep = true\n", 3, "[control]");
        check("fields_of = \"nothing\"\n", 3, "no profile");
        check("[control]\ndriver = \"magic\"\n", 4, "magic");
        assert!(error("firmware = \"A B\"\ntitle = \"X\"\n").contains("line 1"));
        assert!(error("firmware = \"x\"\n").contains("title"));
    }
}
