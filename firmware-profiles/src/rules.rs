//! The lines of a profile that say where a value lies: `path -> target [unit] [options]`.
//!
//! **Path**: keys from the top of the reply, parted by `/`. Lists need no step of their own; `key[]`
//! makes the place in that list the index of the board or pool. `#` in a key stands for digits and
//! is an index too (`fan#`, `MM ID#:Summary`); `*` is any key. A step into a text reads Avalon's
//! `Key[value]` strings, or JSON inside the text.
//!
//! **Target**: see [`Target`]. **Unit**: what one of the device's numbers is worth; `~GH/s` is
//! GH/s unless the same block found a `rate_unit`; `text` takes it from the text itself.
//!
//! **Options**: `nth=6` the seventh number of a list in a text; `sum` adds what several places say;
//! `nonzero` takes no zero; `only=0` takes nothing else; `skip=255,-273` takes none of these;
//! `once` leaves out what other entries of a list repeat (the fans, in the row of every board);
//! `commas` reads `18,500.5`; `at=1` gives a board or pool that stands in no list its index; `map a=x 'b c'=y ~part=z *=w` turns
//! words into ours (`~` is contained, without case; `*` is anything else).
//!
//! Order is rank: the first line that finds a value wins. Lists (temperatures, fans, boards, pools)
//! come whole from the first block that finds any.

use hashinsight_protocol::device::ModeV1;

/// What a value is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Hashrate,
    RateUnit,
    Power,
    Limit,
    Uptime,
    Accepted,
    Rejected,
    Stale,
    VendorMode,
    FanCount,
    Mining,
    Mode,
    /// Whether the locating light is on.
    Locating,
    Model,
    Version,
    Serial,
    Mac,
    Profile,
    Temp,
    Fan,
    BoardRate,
    BoardTemp,
    PoolUrl,
    PoolHost,
    PoolPort,
    PoolWorker,
    PoolAccepted,
    PoolRejected,
    PoolStale,
    PoolAlive,
    /// The index of the pool that values without an index are about.
    PoolInUse,
    Error,
    ErrorText,
}

impl Target {
    const NAMES: [(&'static str, Self); 33] = [
        ("hashrate", Self::Hashrate),
        ("rate_unit", Self::RateUnit),
        ("power", Self::Power),
        ("limit", Self::Limit),
        ("uptime", Self::Uptime),
        ("accepted", Self::Accepted),
        ("rejected", Self::Rejected),
        ("stale", Self::Stale),
        ("vendor_mode", Self::VendorMode),
        ("fan_count", Self::FanCount),
        ("mining", Self::Mining),
        ("mode", Self::Mode),
        ("locating", Self::Locating),
        ("model", Self::Model),
        ("version", Self::Version),
        ("serial", Self::Serial),
        ("mac", Self::Mac),
        ("profile", Self::Profile),
        ("temp", Self::Temp),
        ("fan", Self::Fan),
        ("board.hashrate", Self::BoardRate),
        ("board.temp", Self::BoardTemp),
        ("pool.url", Self::PoolUrl),
        ("pool.host", Self::PoolHost),
        ("pool.port", Self::PoolPort),
        ("pool.worker", Self::PoolWorker),
        ("pool.accepted", Self::PoolAccepted),
        ("pool.rejected", Self::PoolRejected),
        ("pool.stale", Self::PoolStale),
        ("pool.alive", Self::PoolAlive),
        ("pool_in_use", Self::PoolInUse),
        ("error", Self::Error),
        ("error.text", Self::ErrorText),
    ];

    /// Values that come in lists, which one block gives whole.
    pub fn list(self) -> Option<List> {
        match self {
            Self::Temp => Some(List::Temps),
            Self::Fan => Some(List::Fans),
            Self::BoardRate | Self::BoardTemp => Some(List::Boards),
            Self::PoolUrl
            | Self::PoolHost
            | Self::PoolPort
            | Self::PoolWorker
            | Self::PoolAccepted
            | Self::PoolRejected
            | Self::PoolStale
            | Self::PoolAlive => Some(List::Pools),
            Self::Error | Self::ErrorText => Some(List::Errors),
            _ => None,
        }
    }

    fn is_quantity(self) -> bool {
        matches!(self, Self::Hashrate | Self::BoardRate | Self::Power | Self::Limit | Self::Uptime)
    }

    fn takes_words(self) -> bool {
        matches!(self, Self::Mining | Self::Mode | Self::Locating | Self::PoolAlive)
    }
}

/// The lists of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    Temps,
    Fans,
    Boards,
    Pools,
    Errors,
}

impl List {
    pub const ALL: [Self; 5] = [Self::Temps, Self::Fans, Self::Boards, Self::Pools, Self::Errors];
}

/// How a unit is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    Fixed(f64),
    /// This factor unless the block found a `rate_unit`.
    Default(f64),
    /// The text names it: `13.5 TH/s`.
    InText,
}

impl Unit {
    /// The plain factor.
    pub fn factor(self) -> f64 {
        match self {
            Self::Fixed(f) | Self::Default(f) => f,
            Self::InText => 1.0,
        }
    }
}

const UNITS: [(&str, f64); 25] = [
    ("H/s", 1.0),
    ("kH/s", 1e3),
    ("MH/s", 1e6),
    ("GH/s", 1e9),
    ("TH/s", 1e12),
    ("PH/s", 1e15),
    ("EH/s", 1e18),
    ("Sol/s", 1.0),
    ("kSol/s", 1e3),
    ("MSol/s", 1e6),
    ("MW", 1e6),
    ("W", 1.0),
    ("kW", 1e3),
    ("mW", 1e-3),
    ("s", 1.0),
    ("ms", 1e-3),
    ("min", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    ("C", 1.0),
    ("mC", 1e-3),
    ("rpm", 1.0),
    ("cW", 1e-2),
    ("dW", 1e-1),
    ("us", 1e-6),
];

/// The factor of a hashrate unit as devices write it: `GH`, `GH/s`, `Ghps`, `TH`, `KSol/s`, `G`.
pub fn rate_factor(text: &str) -> Option<f64> {
    let lower = text.trim().to_ascii_lowercase();
    let word = lower.split(['/', ' ']).next()?;
    let word = word.strip_suffix("ps").unwrap_or(word);
    let prefix = ["hashes", "hash", "sols", "sol", "h"].into_iter().find_map(|end| word.strip_suffix(end));
    let (prefix, named) = prefix.map_or((word, false), |prefix| (prefix, true));
    match prefix {
        "" if named => Some(1.0),
        "k" => Some(1e3),
        "m" => Some(1e6),
        "g" => Some(1e9),
        "t" => Some(1e12),
        "p" => Some(1e15),
        "e" => Some(1e18),
        _ => None,
    }
}

/// A value in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Yes,
    No,
    Mode(ModeV1),
    /// Known to say nothing.
    Nothing,
}

/// One pair of a `map`.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    Exact(String),
    Contains(String),
    Any,
}

/// One key of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Key(String),
    /// Digits stand between the two parts.
    Numbered(String, String),
    Any,
}

/// A line, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub path: Vec<(Step, bool)>,
    pub target: Target,
    pub unit: Unit,
    pub nth: Option<usize>,
    pub sum: bool,
    pub nonzero: bool,
    pub skip: Vec<f64>,
    pub only: Option<f64>,
    pub commas: bool,
    pub once: bool,
    pub at: Option<u32>,
    pub map: Vec<(Pattern, Word)>,
}

impl Rule {
    /// Parses one line; the error says what is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        let (path, rest) = line.split_once("->").ok_or("a line is \"path -> target\"")?;
        let path = parse_path(path.trim())?;
        let words = words(rest)?;
        let mut words = words.iter();
        let name = words.next().ok_or("no target stands behind \"->\"")?;
        let target = Target::NAMES
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, target)| *target)
            .ok_or_else(|| format!("\"{name}\" is no target"))?;
        let mut rule = Self {
            path,
            target,
            unit: Unit::Fixed(1.0),
            nth: None,
            sum: false,
            nonzero: false,
            skip: Vec::new(),
            only: None,
            commas: false,
            once: false,
            at: None,
            map: Vec::new(),
        };
        let mut unit_given = false;
        let mut in_map = false;
        for word in words {
            if in_map {
                rule.map.push(parse_pair(word, target)?);
            } else if word == "map" {
                in_map = true;
            } else if word == "sum" {
                rule.sum = true;
            } else if word == "nonzero" {
                rule.nonzero = true;
            } else if let Some(nth) = word.strip_prefix("nth=") {
                rule.nth = Some(nth.parse().map_err(|_| format!("\"{word}\" needs a whole number"))?);
            } else if let Some(list) = word.strip_prefix("skip=") {
                for number in list.split(',') {
                    rule.skip.push(
                        number.parse().map_err(|_| format!("\"{number}\" in \"{word}\" is no number"))?,
                    );
                }
            } else if let Some(only) = word.strip_prefix("only=") {
                rule.only = Some(only.parse().map_err(|_| format!("\"{word}\" needs a number"))?);
            } else if word == "once" {
                rule.once = true;
            } else if word == "commas" {
                rule.commas = true;
            } else if let Some(at) = word.strip_prefix("at=") {
                rule.at = Some(at.parse().map_err(|_| format!("\"{word}\" needs a whole number"))?);
            } else if word == "text" {
                rule.unit = Unit::InText;
                unit_given = true;
            } else {
                let (name, default) =
                    word.strip_prefix('~').map_or((word.as_str(), false), |name| (name, true));
                let factor = UNITS
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, factor)| *factor)
                    .ok_or_else(|| format!("\"{word}\" is neither a unit nor an option"))?;
                rule.unit = if default { Unit::Default(factor) } else { Unit::Fixed(factor) };
                unit_given = true;
            }
        }
        if target.is_quantity() && !unit_given {
            return Err(format!("\"{name}\" needs a unit"));
        }
        if in_map && rule.map.is_empty() {
            return Err("\"map\" is empty".to_owned());
        }
        if target.takes_words() && rule.map.is_empty() {
            return Err(format!("\"{name}\" needs a map"));
        }
        Ok(rule)
    }

    /// Whether a number is one that the rule takes.
    pub fn takes(&self, number: f64) -> bool {
        let refused = (self.nonzero && number == 0.0) || self.skip.contains(&number);
        !refused && self.only.is_none_or(|only| only == number)
    }
}

fn parse_path(path: &str) -> Result<Vec<(Step, bool)>, String> {
    if path.is_empty() {
        return Err("the path is empty".to_owned());
    }
    path.split('/')
        .map(|step| {
            let (key, indexed) = step.strip_suffix("[]").map_or((step, false), |key| (key, true));
            let step = match key {
                "" if indexed => Step::Key(String::new()),
                "" => return Err(format!("a step of \"{path}\" is empty")),
                "*" => Step::Any,
                _ => match key.split_once('#') {
                    Some((before, after)) => Step::Numbered(before.to_owned(), after.to_owned()),
                    // A slash inside a key is written as two colons.
                    None => Step::Key(key.replace("::", "/")),
                },
            };
            Ok((step, indexed))
        })
        .collect()
}

fn parse_pair(word: &str, target: Target) -> Result<(Pattern, Word), String> {
    let (given, meant) = word.rsplit_once('=').ok_or_else(|| format!("\"{word}\" in the map is not a=b"))?;
    let pattern = match given {
        "*" => Pattern::Any,
        _ => match given.strip_prefix('~') {
            Some(part) => Pattern::Contains(part.to_ascii_lowercase()),
            None => Pattern::Exact(given.to_ascii_lowercase()),
        },
    };
    let word = match meant {
        "yes" => Word::Yes,
        "no" => Word::No,
        "nothing" => Word::Nothing,
        "normal" => Word::Mode(ModeV1::Normal),
        "sleep" => Word::Mode(ModeV1::Sleep),
        "low" => Word::Mode(ModeV1::LowPower),
        "efficient" => Word::Mode(ModeV1::HighEfficiency),
        "high" => Word::Mode(ModeV1::HighPower),
        "starting" => Word::Mode(ModeV1::Starting),
        "failed" => Word::Mode(ModeV1::Failed),
        _ => return Err(format!("\"{meant}\" in the map is not one of our words")),
    };
    let fits = match word {
        Word::Mode(_) => target == Target::Mode,
        Word::Yes | Word::No => target != Target::Mode,
        Word::Nothing => true,
    };
    if !fits {
        return Err(format!("\"{meant}\" does not fit the target"));
    }
    Ok((pattern, word))
}

/// Words parted by blanks; single quotes keep blanks in one.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '\'' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    out.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if quoted {
        return Err("a quote does not close".to_owned());
    }
    if !word.is_empty() {
        out.push(word);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let rule = Rule::parse("STATS/MM ID#/PS -> power W nth=6 nonzero").expect("a good line");
        assert_eq!(rule.nth, Some(6));
        assert!(rule.nonzero);
        assert_eq!(rule.path[1].0, Step::Numbered("MM ID".to_owned(), String::new()));
        let rule = Rule::parse("Msg/x -> mining map '~in idle'=no *=yes").expect("a good line");
        assert_eq!(rule.map[0], (Pattern::Contains("in idle".to_owned()), Word::No));
        for (line, reason) in [
            ("a", "path -> target"),
            ("a -> speed", "no target"),
            ("a -> power", "needs a unit"),
            ("a -> power volts", "neither a unit"),
            ("a -> mining", "needs a map"),
            ("a -> mining map x=normal", "does not fit"),
            ("a//b -> temp", "is empty"),
            ("a -> mining map 'x=no", "does not close"),
        ] {
            let error = Rule::parse(line).expect_err(line);
            assert!(error.contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn units_as_devices_write_them() {
        for (text, factor) in [
            ("GH", 1e9),
            ("GH/s", 1e9),
            ("Gh/s", 1e9),
            ("TH/s", 1e12),
            ("MH", 1e6),
            ("KSol/s", 1e3),
            ("Sol/s", 1.0),
            ("kH/s", 1e3),
            ("Ghps", 1e9),
            ("H/s", 1.0),
        ] {
            assert_eq!(rate_factor(text), Some(factor), "{text}");
        }
        assert_eq!(rate_factor("C"), None);
        assert_eq!(rate_factor(""), None);
    }
}
