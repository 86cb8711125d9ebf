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

mod target;
mod unit;

pub use target::{List, Target};
pub use unit::{Unit, rate_factor};

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

impl Pattern {
    /// Whether a device's text is meant, whatever its case; patterns are in lower case.
    pub fn fits(&self, text: &str) -> bool {
        match self {
            Self::Exact(word) => text.eq_ignore_ascii_case(word),
            Self::Contains(part) => {
                part.is_empty()
                    || text.as_bytes().windows(part.len()).any(|w| w.eq_ignore_ascii_case(part.as_bytes()))
            }
            Self::Any => true,
        }
    }
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
        let target = Target::named(name).ok_or_else(|| format!("\"{name}\" is no target"))?;
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
                let factor = unit::factor(name)
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
}
