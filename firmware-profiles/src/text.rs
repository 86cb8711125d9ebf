//! The plain-text forms: cgminer's `KEY=value,…|` replies and Avalon's `Key[value]` strings.
//!
//! cgminer escapes `| , = \` in users' texts with a backslash. Avalon's strings hold commas inside
//! their brackets, so a comma there ends nothing. Both are read without allocation.

/// One section of a text reply: `SUMMARY,Elapsed=5,…` or `POOL=0,URL=…`.
pub struct Section<'a> {
    /// The list the section belongs to, named as in the JSON form.
    pub list: &'static str,
    /// The command of a joined reply that this section answers, from `CMD=…`.
    pub fields: Fields<'a>,
}

/// The names that begin a section, and the JSON lists they stand for.
const LISTS: [(&str, &str); 16] = [
    ("STATUS", "STATUS"),
    ("SUMMARY", "SUMMARY"),
    ("NAME", "SUMMARY"),
    ("POOL", "POOLS"),
    ("URL", "POOLS"),
    ("ASC", "DEVS"),
    ("PGA", "DEVS"),
    ("GPU", "DEVS"),
    ("CPU", "DEVS"),
    ("STATS", "STATS"),
    ("VERSION", "VERSION"),
    ("CONFIG", "CONFIG"),
    ("DEVDETAILS", "DEVDETAILS"),
    ("CGMiner", "VERSION"),
    ("BFGMiner", "VERSION"),
    ("COIN", "COIN"),
];

/// Whether this looks like a text reply at all; `NAME=`, `GPU=` and `URL=` begin those of cpuminer and
/// ccminer, which part their fields by semicolons.
pub fn is_text_reply(bytes: &[u8]) -> bool {
    let head = bytes.trim_ascii_start();
    [&b"STATUS="[..], b"CMD=", b"NAME=", b"GPU=", b"CPU=", b"POOL=", b"URL="]
        .iter()
        .any(|start| head.starts_with(start))
}

/// The sections of a text reply, without those that no list is known for.
pub fn sections(text: &str) -> impl Iterator<Item = Section<'_>> {
    split(text, '|').filter_map(|section| {
        let section = section.trim_matches(|c: char| c <= ' ');
        let head = section.split([',', ';']).next()?;
        let name = head.split('=').next().unwrap_or(head);
        let list = LISTS.iter().find(|(known, _)| *known == name)?.1;
        Some(Section { list, fields: Fields(section) })
    })
}

/// `key=value` pairs of a section.
pub struct Fields<'a>(&'a str);

impl<'a> Fields<'a> {
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let separator = if self.0.contains(',') || !self.0.contains(';') { ',' } else { ';' };
        split(self.0, separator).filter_map(|field| field.split_once('='))
    }
}

/// Splits at a separator that is neither escaped nor inside brackets.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    // Brackets that never close protect nothing, or one stray `[` would swallow the section.
    let balanced = text.matches('[').count() == text.matches(']').count();
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut depth = 0_u32;
        let mut escaped = false;
        for (at, c) in text.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '[' if balanced => depth += 1,
                ']' if balanced => depth = depth.saturating_sub(1),
                _ if c == separator && depth == 0 => {
                    rest = text.get(at + 1..);
                    return text.get(..at);
                }
                _ => {}
            }
        }
        rest = None;
        Some(text)
    })
}

/// Removes cgminer's escapes.
pub fn unescape(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            out.extend(chars.next());
        } else {
            out.push(c);
        }
    }
    out.into()
}

/// Whether a text is one of Avalon's `Key[value] …` strings.
pub fn is_bracketed(text: &str) -> bool {
    text.contains('[') && text.contains(']')
}

/// The `Key[value]` pairs of an Avalon string. What stands between pairs (`'STATS':{`) is cut off
/// the key; a value ends at the first closing bracket.
pub fn brackets(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let open = rest.find('[')?;
        let key = rest.get(..open)?;
        let after = rest.get(open + 1..)?;
        let close = after.find(']')?;
        let value = after.get(..close)?;
        rest = after.get(close + 1..)?;
        let key = key.rsplit(['{', '}', ':', ',']).next().unwrap_or(key).trim();
        Some((key, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_reply_has_sections() {
        let text = "STATUS=S,When=5,Code=70,Msg=a\\,b,Description=x|STATS=0,ID=AVA100,MM ID0=Ver[13] \
                    SYSTEMSTATU[Work: In Work, Hash Board: 3 ] PS[0 1 2],Elapsed=7|";
        let all: Vec<_> = sections(text).collect();
        assert_eq!(all.len(), 2);
        let status: Vec<_> = all[0].fields.iter().collect();
        assert_eq!(status[3], ("Msg", "a\\,b"));
        assert_eq!(unescape(status[3].1), "a,b");
        assert_eq!(all[1].list, "STATS");
        let stats: Vec<_> = all[1].fields.iter().collect();
        assert_eq!(stats[2].0, "MM ID0");
        assert_eq!(stats[3], ("Elapsed", "7"));
        let pairs: Vec<_> = brackets(stats[2].1).collect();
        assert_eq!(pairs, [("Ver", "13"), ("SYSTEMSTATU", "Work: In Work, Hash Board: 3 "), ("PS", "0 1 2")]);
    }

    #[test]
    fn cpuminer_has_semicolons() {
        let all: Vec<_> = sections("NAME=cpuminer-multi;VER=1.3;KHS=12.5;ACC=3|").collect();
        let fields: Vec<_> = all[0].fields.iter().collect();
        assert_eq!((all[0].list, fields[2]), ("SUMMARY", ("KHS", "12.5")));
    }

    #[test]
    fn keys_lose_what_stands_before_them() {
        let pairs: Vec<_> = brackets("'STATS':{Ver[Q] MTmax[]} x").collect();
        assert_eq!(pairs, [("Ver", "Q"), ("MTmax", "")]);
        assert_eq!(brackets("a[1").count(), 0);
    }
}
