//! Requests with blanks: what a profile writes as `{watts}` is filled in before it is sent.
//!
//! - A text that is one blank and nothing else becomes the value itself, with its JSON type:
//!   `"{watts}"` is sent as `3000`. In a longer text the value is written out.
//! - A member of an object whose text is one blank without a value is left out.
//! - In a path a value is percent-encoded, so it never ends a parameter or begins another.
//! - A blank is a name of `a-z`, `0-9`, `_` and `.` in braces; other braces, as GraphQL has, stand as
//!   they are.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the blanks of a request are filled with.
pub type Blanks = BTreeMap<String, Value>;

/// Fills a JSON body.
pub fn fill(template: &Value, blanks: &Blanks) -> Value {
    match template {
        Value::String(text) => match only_blank(text) {
            Some(name) => blanks.get(name).cloned().unwrap_or(Value::Null),
            None => Value::String(written(text, blanks, str::to_owned)),
        },
        Value::Array(list) => Value::Array(list.iter().map(|item| fill(item, blanks)).collect()),
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, item)| {
                    let name = item.as_str().and_then(only_blank);
                    name.is_none_or(|name| blanks.contains_key(name))
                })
                .map(|(key, item)| (key.clone(), fill(item, blanks)))
                .collect::<Map<_, _>>(),
        ),
        other => other.clone(),
    }
}

/// Fills a path with its query.
pub fn fill_path(template: &str, blanks: &Blanks) -> String {
    written(template, blanks, encoded)
}

/// Fills a header's value.
pub fn fill_text(template: &str, blanks: &Blanks) -> String {
    written(template, blanks, str::to_owned)
}

/// The names of all blanks in a body.
pub fn names(template: &Value) -> Vec<String> {
    match template {
        Value::String(text) => text_names(text),
        Value::Array(list) => list.iter().flat_map(names).collect(),
        Value::Object(map) => map.values().flat_map(names).collect(),
        _ => Vec::new(),
    }
}

/// The names of all blanks in a text.
pub fn text_names(text: &str) -> Vec<String> {
    pieces(text)
        .filter_map(|piece| if let Piece::Blank(name) = piece { Some(name.to_owned()) } else { None })
        .collect()
}

enum Piece<'a> {
    Text(&'a str),
    Blank(&'a str),
}

/// A text cut into what stands and what is filled in.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((name, after)) = leading_blank(rest) {
            rest = after;
            return Some(Piece::Blank(name));
        }
        // At least one character stands, or a brace that opens nothing would never be passed.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest
            .match_indices('{')
            .map(|(at, _)| at)
            .find(|at| *at >= first && rest.get(*at..).is_some_and(|tail| leading_blank(tail).is_some()))
            .unwrap_or(rest.len());
        let (stands, after) = rest.split_at(end);
        rest = after;
        Some(Piece::Text(stands))
    })
}

fn leading_blank(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('{')?.split_once('}')?;
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.');
    (!name.is_empty() && name.len() <= 32 && name.bytes().all(is_name)).then_some((name, after))
}

fn only_blank(text: &str) -> Option<&str> {
    leading_blank(text).filter(|(_, after)| after.is_empty()).map(|(name, _)| name)
}

fn written(template: &str, blanks: &Blanks, as_written: impl Fn(&str) -> String) -> String {
    pieces(template)
        .map(|piece| match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Blank(name) => match blanks.get(name) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => as_written(text),
                Some(other) => as_written(&other.to_string()),
            },
        })
        .collect()
}

/// Percent-encoded: all but RFC 3986's unreserved characters.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn blanks() -> Blanks {
        [("watts", json!(3000)), ("password", json!("a b&c\"")), ("on", json!(true))]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    #[test]
    fn a_blank_keeps_its_type() {
        let check = |template: Value, filled: Value| assert_eq!(fill(&template, &blanks()), filled);
        check(json!({"watt": "{watts}", "on": "{on}"}), json!({"watt": 3000, "on": true}));
        check(json!("limit {watts} W"), json!("limit 3000 W"));
        check(json!({"a": "{nothing}", "b": [1, null]}), json!({"b": [1, null]}));
        check(json!({"a": "x{nothing}"}), json!({"a": "x"}));
        check(
            json!("{ Miner { stop { error { message } } } }"),
            json!("{ Miner { stop { error { message } } } }"),
        );
        check(json!("{{watts}"), json!("{3000"));
        assert_eq!(fill_path("/login?p={password}&w={watts}", &blanks()), "/login?p=a%20b%26c%22&w=3000");
    }

    proptest! {
        #[test]
        fn a_text_without_blanks_stands(text in "[^{}]{0,60}") {
            prop_assert_eq!(fill(&json!(text), &blanks()), json!(text));
            prop_assert_eq!(fill_path(&text, &blanks()), text);
        }

        #[test]
        fn any_text_is_cut_and_put_together_again(text in "\\PC{0,60}") {
            let joined: String = pieces(&text)
                .map(|piece| match piece {
                    Piece::Text(text) => text.to_owned(),
                    Piece::Blank(name) => format!("{{{name}}}"),
                })
                .collect();
            prop_assert_eq!(joined, text);
        }

        #[test]
        fn a_value_in_a_path_ends_no_parameter(value in "\\PC{0,40}") {
            let blanks: Blanks = [("v".to_owned(), json!(value))].into_iter().collect();
            let path = fill_path("/a?x={v}&y=1", &blanks);
            let inner = path.strip_prefix("/a?x=").unwrap().strip_suffix("&y=1").unwrap();
            prop_assert!(inner.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
            prop_assert!(path.parse::<hyper::Uri>().is_ok());
        }
    }
}
