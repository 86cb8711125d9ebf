//! Fault codes in words, with what to do: `faults.toml`.
//!
//! A code is matched from the most exact pattern on: `n` in a pattern is one digit, the slot or pool
//! that the words name, `*` any rest. What the device says itself comes first.

use crate::reading::DeviceFault;
use serde::Deserialize;
use std::sync::LazyLock;

const FILE: &str = include_str!("../faults.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    family: Vec<Family>,
}

/// The codes of the firmwares whose names begin so.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    firmware: Vec<String>,
    codes: Vec<Code>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Code {
    code: String,
    /// What it means; `{n}` is the slot.
    means: String,
    /// What to do.
    #[serde(rename = "do")]
    advice: String,
}

static TABLE: LazyLock<Table> =
    LazyLock::new(|| toml::from_str(FILE).unwrap_or(Table { family: Vec::new() }));

/// Gives faults their words.
pub(crate) fn explain(firmware: &str, faults: &mut [DeviceFault]) {
    if faults.is_empty() {
        return;
    }
    let codes = TABLE
        .family
        .iter()
        .filter(|family| family.firmware.iter().any(|name| firmware.starts_with(name.as_str())));
    let codes: Vec<&Code> = codes.flat_map(|family| &family.codes).collect();
    for fault in faults {
        let found = codes
            .iter()
            .filter_map(|code| matches(&code.code, &fault.code).map(|slot| (code, slot)))
            .max_by_key(|(code, _)| exactness(&code.code));
        let Some((code, slot)) = found else { continue };
        let means = code.means.replace("{n}", &slot.map_or(String::new(), |digit| digit.to_string()));
        let words = format!("{means}; {}", code.advice);
        fault.text = Some(match fault.text.take().filter(|own| !own.is_empty()) {
            Some(own) => format!("{own} ({words})"),
            None => words,
        });
    }
}

/// How much of a pattern is not left open.
fn exactness(pattern: &str) -> usize {
    2 * pattern.bytes().filter(|byte| !matches!(byte, b'n' | b'*')).count()
        + usize::from(!pattern.ends_with('*'))
}

/// Whether a code is of a pattern, with the digit that stands at `n`.
fn matches(pattern: &str, code: &str) -> Option<Option<char>> {
    let mut slot = None;
    let mut code = code.trim().chars();
    for expected in pattern.chars() {
        if expected == '*' {
            return Some(slot);
        }
        let found = code.next()?;
        match expected {
            'n' if found.is_ascii_digit() => slot = Some(found),
            'n' => return None,
            _ if found.eq_ignore_ascii_case(&expected) => {}
            _ => return None,
        }
    }
    code.next().is_none().then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(firmware: &str, code: &str, own: Option<&str>) -> String {
        let mut faults = [DeviceFault { code: code.to_owned(), text: own.map(str::to_owned) }];
        explain(firmware, &mut faults);
        faults[0].text.clone().unwrap_or_default()
    }

    #[test]
    fn the_file_is_sound() {
        let table: Table = toml::from_str(FILE).expect("faults.toml");
        for code in table.family.iter().flat_map(|family| &family.codes) {
            assert!(!code.means.is_empty() && !code.advice.is_empty(), "{}", code.code);
            assert_eq!(code.means.contains("{n}"), code.code.contains('n'), "{}", code.code);
        }
    }

    #[test]
    fn codes_have_words_and_advice() {
        assert!(words("whatsminer-v2", "110", None).starts_with("intake fan"));
        assert!(words("whatsminer-v3", "541", None).contains("slot 1"));
        assert!(words("whatsminer-v2", "329", None).contains("control board"));
        assert!(
            words("whatsminer-v3", "264", Some("Power xfer error"))
                .starts_with("Power xfer error (power supply")
        );
        assert!(words("antminer-stock", "J2:8", None).contains("hashboard 2"));
        assert!(words("antminer-stock", "P:1", None).contains("too hot"));
        for (firmware, code) in
            [("whatsminer-v2", "999999"), ("whatsminer-v2", ""), ("avalon", "110"), ("antminer-stock", "J:8")]
        {
            assert_eq!(words(firmware, code, None), "", "{firmware} {code}");
        }
    }
}
