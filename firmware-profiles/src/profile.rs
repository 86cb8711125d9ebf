//! A firmware profile: what is known of one firmware family, as a TOML file.
//!
//! The files in `profiles/` are compiled in; a site's folder may override one (by its `firmware`
//! name) or add another. A file is checked when it is loaded, and an error names the file, the line
//! and the reason. `profiles/README.md` documents every key.
//!
//! A profile is compiled once into an [`Extractor`]; nothing of the TOML is looked at again when a
//! device is read.

use crate::ask::Ask;
use crate::control::ControlFile;
use crate::extract::Extractor;
use crate::recognise::{Clause, ClauseFile, Parsed};
use crate::rules::{Rule, rate_factor};
use crate::web::{Web, WebFile};
use hashinsight_protocol::device::CapabilitiesV1;
use serde::Deserialize;
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
    shares_of_pool_in_use: bool,
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
    #[serde(default)]
    needs: Vec<NeedFile>,
    #[serde(default)]
    web: WebFile,
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

/// What a model counts its rates in, where its replies do not say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateUnitFile {
    model: String,
    hashrate: Spanned<String>,
    boards: Spanned<String>,
    large: Option<LargeFile>,
}

/// What larger numbers of the model's total are counted in: some of its versions name it in a
/// thousandth of the unit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LargeFile {
    from: f64,
    hashrate: Spanned<String>,
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
    light: Vec<Spanned<String>>,
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
    /// Joules per terahash that no device of the family goes below: a power under it is another
    /// quantity.
    pub least_j_per_th: f64,
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
            least_j_per_th: 0.0,
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

/// Signs without one of which a device of the family lacks a capability.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NeedFile {
    capability: Spanned<String>,
    any: Vec<ClauseFile>,
}

/// Takes one capability away.
type Without = fn(CapabilitiesV1) -> CapabilitiesV1;

/// A capability and the signs of it.
#[derive(Debug)]
struct Need {
    without: Without,
    any: Vec<Clause>,
}

/// The capabilities that a sign may be asked for, each with how it is taken away.
const NEEDS: [(&str, Without); 5] = [
    ("sleep", |can| CapabilitiesV1 { sleep: false, ..can }),
    ("power_limit", |can| CapabilitiesV1 { power_limit: false, ..can }),
    ("reboot", |can| CapabilitiesV1 { reboot: false, ..can }),
    ("locate", |can| CapabilitiesV1 { locate: false, ..can }),
    ("set_pools", |can| CapabilitiesV1 { set_pools: false, ..can }),
];

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
    /// The same for a device that answers joined commands, with what would be asked for next where these
    /// have no hashrate: one exchange instead of two.
    pub joined: Vec<Ask>,
    pub without_hashrate: Vec<Ask>,
    pub state: Vec<Ask>,
    /// What says whether the locating light is on.
    pub light: Vec<Ask>,
    pub join: Join,
    pub extractor: Extractor,
    /// Blocks whose list entries add to those of others.
    pub adding: Vec<u16>,
    /// Blocks whose list entries count only where no other block has any of the kind.
    pub otherwise: Vec<u16>,
    rate_units: Vec<(String, RateUnit)>,
    /// The device counts its shares together, whichever pool they went to.
    pub shares_of_pool_in_use: bool,
    needs: Vec<Need>,
    pub(crate) web: Web,
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
    /// A total of this number or more is worth the second figure instead.
    pub large: Option<(f64, f64)>,
}

impl RateUnit {
    /// What a total is worth.
    pub fn total(self, number: f64) -> f64 {
        match self.large {
            Some((from, factor)) if number >= from => factor,
            _ => self.hashrate,
        }
    }
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
        // A rate in an unknown unit is no number, and so no rate.
        let unit = |name: &Spanned<String>| {
            if name.get_ref() == "unknown" {
                return Ok(f64::NAN);
            }
            rate_factor(name.get_ref()).ok_or_else(|| {
                error(at(name.span().start), format!("\"{}\" is no unit of a hashrate", name.get_ref()))
            })
        };
        let rate_units = parsed
            .rate_units
            .iter()
            .map(|file| {
                let large = match &file.large {
                    Some(large) => Some((large.from, unit(&large.hashrate)?)),
                    None => None,
                };
                let unit = RateUnit { hashrate: unit(&file.hashrate)?, boards: unit(&file.boards)?, large };
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
        if let Some(ControlFile::Http(control)) = &parsed.control
            && control.can() != capabilities
        {
            let can = control.can();
            let reason = format!("these are not what [control] has requests for: {can:?}");
            return Err(error(place("[capabilities]"), reason));
        }
        let needs = parsed
            .needs
            .into_iter()
            .map(|file| {
                let name = file.capability.get_ref();
                let (_, without) = NEEDS.iter().find(|(known, _)| known == name).ok_or_else(|| {
                    error(at(file.capability.span().start), format!("\"{name}\" is no capability"))
                })?;
                Ok(Need { without: *without, any: clauses(file.any, "[[needs]]")? })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let web = Web::new(parsed.web).map_err(|reason| error(place("[web"), reason))?;
        if let Some(claim) = unfounded(capabilities, parsed.control.as_ref()) {
            let reason = format!("\"{claim}\" is claimed, but [control] has no way to do it");
            return Err(error(place("[capabilities]"), reason));
        }
        let requests = asks(&parsed.read.requests)?;
        let without_hashrate = asks(&parsed.read.without_hashrate)?;
        Ok(Self {
            probe: asks(&parsed.read.probe)?,
            identify: asks(&parsed.read.identify)?,
            joined: Ask::join_all(&requests, &without_hashrate),
            requests,
            without_hashrate,
            state: asks(&parsed.read.state)?,
            light: asks(&parsed.read.light)?,
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
            shares_of_pool_in_use: parsed.shares_of_pool_in_use,
            needs,
            web,
            control: parsed.control,
            evidence: parsed.evidence,
            times: parsed.times,
            guards: parsed.guards,
            capabilities,
            user: parsed.credentials.user,
            password: parsed.credentials.password,
        })
    }

    /// What can be done to a device that gave these replies.
    pub fn capabilities_of(&self, parsed: &Parsed) -> CapabilitiesV1 {
        let lacks = |need: &&Need| !need.any.iter().any(|clause| clause.holds(parsed));
        self.needs.iter().filter(lacks).fold(self.capabilities, |can, need| (need.without)(can))
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

/// A capability that is claimed and that the profile has no way to do.
fn unfounded(claimed: CapabilitiesV1, control: Option<&ControlFile>) -> Option<&'static str> {
    let able = control.map(ControlFile::abilities).unwrap_or_default();
    let pairs = [
        ("sleep", claimed.sleep, able.sleep),
        ("power_limit", claimed.power_limit, able.power_limit),
        ("reboot", claimed.reboot, able.reboot),
        ("locate", claimed.locate, able.locate),
        ("set_pools", claimed.set_pools, able.set_pools),
    ];
    pairs.into_iter().find(|(_, claimed, able)| *claimed && !able).map(|(name, ..)| name)
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
        let fields = |line: &str| format!("[[from]]\nreplies = [\"*\"]\nfields = \"\"\"\n{line}\n\"\"\"\n");
        check(&fields("A/B -> power V"), 6, "neither a unit");
        check(&fields("A/B -> power"), 6, "needs a unit");
        check(&fields("A//B -> temp"), 6, "is empty");
        check(&fields("A/B temp"), 6, "path -> target");
        check("[guards]\nchip_spread = 5\n", 4, "chip_spread");
        check("[guards]\nmin_off_s = -1\n", 4, "-1");
        check("[times]\nsettle_s = \"ten\"\n", 4, "ten");
        check("[times]\nsettle = 1\n", 4, "settle");
        check("[credentials]\nuser = \"a\"\nsecret = \"b\"\n", 5, "secret");
        check("[evidence]\nstandby_w = \"low\"\n", 4, "low");
        let control = "[control]\ndriver = \"cgminer-command\"\nstop = \"a\"\nwake = \"b\"\n";
        check(&format!("{control}halt = \"c\"\n"), 3, "halt");
        check(&format!("{control}[capabilities]\nsleep = true\nreboot = true\n"), 7, "\"reboot\" is claimed");
        check("fields_of = \"nothing\"\n", 3, "no profile");
        check("[control]\ndriver = \"magic\"\n", 4, "magic");
        assert!(error("firmware = \"A B\"\ntitle = \"X\"\n").contains("line 1"));
        assert!(error("firmware = \"x\"\n").contains("title"));
    }
}
