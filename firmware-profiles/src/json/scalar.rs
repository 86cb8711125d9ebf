//! Values without members: numbers and texts as devices write them.

use std::borrow::Cow;

/// A value without members.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'a> {
    Null,
    Bool(bool),
    /// The digits as they stand, and what they are worth.
    Number(&'a str, f64),
    Text(Cow<'a, str>),
}

impl Scalar<'_> {
    /// The value as a finite number: a number, or a text that begins with one (`"3250 W"`).
    pub fn number(&self) -> Option<f64> {
        match self {
            Scalar::Number(_, value) => Some(*value).filter(|n| n.is_finite()),
            Scalar::Text(text) => leading_number(text),
            Scalar::Null | Scalar::Bool(_) => None,
        }
    }
}

/// Powers of ten that a double holds exactly; more are not needed.
const POWERS: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// The number that these bytes begin with, and its length, where it is as nearly all are: a sign, digits, a
/// point and digits, of which a double holds each exactly, so that one division rounds as it should.
#[inline]
pub(super) fn plain_number(bytes: &[u8]) -> Option<(f64, usize)> {
    let negative = bytes.first() == Some(&b'-');
    let mut at = usize::from(negative);
    let mut all = 0_u64;
    let first = at;
    while let Some(digit) = bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        all = all.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    let mut digits = at - first;
    let mut behind = 0;
    if digits > 0 && bytes.get(at) == Some(&b'.') {
        let point = at;
        at += 1;
        while let Some(digit) = bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
            all = all.wrapping_mul(10).wrapping_add(u64::from(digit));
            at += 1;
        }
        behind = at - point - 1;
        if behind == 0 {
            return None;
        }
        digits += behind;
    }
    if digits == 0 || digits > 15 || bytes.get(at).is_some_and(|b| matches!(b, b'.' | b'e' | b'E')) {
        return None;
    }
    let value = all as f64 / POWERS.get(behind)?;
    Some((if negative { -value } else { value }, at))
}

/// The number that a text is, where it is as nearly all are.
pub fn whole_number(text: &str) -> Option<f64> {
    plain_number(text.as_bytes()).filter(|(_, length)| *length == text.len()).map(|(value, _)| value)
}

/// The number a text begins with, after blanks and quotes; thousands separators are not taken.
pub fn leading_number(text: &str) -> Option<f64> {
    let text = text.trim_start_matches([' ', '\'', '"', '\t']);
    let bytes = text.as_bytes();
    if let Some((value, _)) = plain_number(bytes) {
        return Some(value);
    }
    let mut end = usize::from(bytes.first().is_some_and(|b| matches!(b, b'-' | b'+')));
    let mut digits = false;
    while let Some(b) = bytes.get(end) {
        match b {
            b'0'..=b'9' => digits = true,
            b'.' => {}
            b'e' | b'E' if digits && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) => {}
            b'e' | b'E'
                if digits
                    && bytes.get(end + 1).is_some_and(|b| matches!(b, b'-' | b'+'))
                    && bytes.get(end + 2).is_some_and(u8::is_ascii_digit) =>
            {
                end += 1;
            }
            _ => break,
        }
        end += 1;
    }
    if !digits {
        return None;
    }
    text.get(..end)?.parse().ok().filter(|n: &f64| n.is_finite())
}

/// A text without its escapes.
pub(super) fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let high = hex4(&mut chars);
                let code = if (0xd800..0xdc00).contains(&high) && chars.as_str().starts_with("\\u") {
                    let mut rest = chars.clone();
                    rest.nth(1);
                    let low = hex4(&mut rest);
                    if (0xdc00..0xe000).contains(&low) {
                        chars = rest;
                        0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                    } else {
                        high
                    }
                } else {
                    high
                };
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

fn hex4(chars: &mut std::str::Chars<'_>) -> u32 {
    let mut value = 0;
    for _ in 0..4 {
        match chars.clone().next().and_then(|c| c.to_digit(16)) {
            Some(digit) => {
                value = value * 16 + digit;
                chars.next();
            }
            None => break,
        }
    }
    value
}
