//! A tolerant JSON reader: one pass over what miners send, valid or not.
//!
//! Half of a fleet answers with JSON that is not JSON: objects follow each other without a comma
//! (`}{`), numbers are `nan`, keys open with two quotes, a slow reader gets a cut reply. Strict
//! parsing first and repair afterwards would read those replies twice, so this reader takes valid
//! JSON exactly as a strict one does and notes each [`Repair`] it had to make on the way.
//!
//! Limits: nesting of [`MAX_DEPTH`]; time and memory are linear in the input, which the transports
//! bound. Nothing here panics on any bytes.
//!
//! Rules: a value that touches the end of a cut reply is dropped, because `1234` may be the first
//! half of `12345`; a bare `nan` or `inf` is a null; control bytes inside strings are kept.

use std::borrow::Cow;

/// Deeper nesting than any device has.
pub const MAX_DEPTH: u8 = 48;

/// What had to be put right in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Repair {
    MissingComma = 1,
    StrayComma = 1 << 1,
    BareWord = 1 << 2,
    QuotedTwice = 1 << 3,
    Truncated = 1 << 4,
    Mismatched = 1 << 5,
    TooDeep = 1 << 6,
    NotUtf8 = 1 << 7,
    TrailingBytes = 1 << 8,
    NotANumber = 1 << 9,
    PlainText = 1 << 10,
    Comment = 1 << 11,
}

impl Repair {
    const ALL: [(Self, &'static str); 12] = [
        (Self::MissingComma, "a comma was missing"),
        (Self::StrayComma, "a comma stood where none belongs"),
        (Self::BareWord, "a word or key had no quotes"),
        (Self::QuotedTwice, "a key was quoted twice"),
        (Self::Truncated, "the reply was cut short"),
        (Self::Mismatched, "brackets did not match"),
        (Self::TooDeep, "values were nested too deep and left out"),
        (Self::NotUtf8, "text was not UTF-8"),
        (Self::TrailingBytes, "bytes followed the end of the reply"),
        (Self::NotANumber, "a number was nan or inf"),
        (Self::PlainText, "the reply was plain text, not JSON"),
        (Self::Comment, "lines of comment stood before the reply"),
    ];
}

/// The repairs made in one reply or one reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs(u16);

impl Repairs {
    pub fn add(&mut self, repair: Repair) {
        self.0 |= repair as u16;
    }

    pub fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub fn has(self, repair: Repair) -> bool {
        self.0 & repair as u16 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each repair as a sentence.
    pub fn sentences(self) -> impl Iterator<Item = &'static str> {
        Repair::ALL.into_iter().filter(move |(repair, _)| self.has(*repair)).map(|(_, text)| text)
    }
}

/// The kind of the value that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    Scalar,
    /// Nothing follows: the input, or the enclosing value, ends here.
    None,
}

/// A value without members.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'a> {
    Null,
    Bool(bool),
    /// The digits as they stand.
    Number(&'a str),
    Text(Cow<'a, str>),
}

impl Scalar<'_> {
    /// The value as a finite number: a number, or a text that begins with one (`"3250 W"`).
    pub fn number(&self) -> Option<f64> {
        match self {
            Scalar::Number(digits) => digits.parse().ok().filter(|n: &f64| n.is_finite()),
            Scalar::Text(text) => leading_number(text),
            Scalar::Null | Scalar::Bool(_) => None,
        }
    }
}

/// The number a text begins with, after blanks and quotes; thousands separators are not taken.
pub fn leading_number(text: &str) -> Option<f64> {
    let text = text.trim_start_matches([' ', '\'', '"', '\t']);
    let bytes = text.as_bytes();
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

/// A place in a reply. Callers ask for the [`kind`](Cursor::kind) of the next value and then take
/// it: [`open`](Cursor::open) and members or elements, [`scalar`](Cursor::scalar), or
/// [`skip`](Cursor::skip).
pub struct Cursor<'a> {
    bytes: &'a [u8],
    /// The whole input when all of it is UTF-8, so that no text in it is checked again.
    valid: Option<&'a str>,
    at: usize,
    pub repairs: Repairs,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut cursor =
            Self { bytes, valid: std::str::from_utf8(bytes).ok(), at: 0, repairs: Repairs::default() };
        cursor.comments();
        cursor
    }

    /// Steps over lines of comment, which a page saved from a browser begins with.
    fn comments(&mut self) {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let rest = rest.trim_ascii_start();
            if !rest.starts_with(b"//") {
                return;
            }
            self.repairs.add(Repair::Comment);
            let line = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            self.at = self.bytes.len() - rest.len() + line;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        // A NUL ends a reply on the wire; inside one it is a blank like any other control byte.
        while self.peek().is_some_and(|b| b <= b' ') {
            self.at += 1;
        }
    }

    /// The kind of the next value.
    pub fn kind(&mut self) -> Kind {
        self.blanks();
        match self.peek() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'}' | b']' | b',' | b':') | None => Kind::None,
            Some(_) => Kind::Scalar,
        }
    }

    /// Steps into the object or array that [`kind`](Cursor::kind) announced.
    pub fn open(&mut self) {
        self.at += 1;
    }

    /// The next key of the object this cursor is in; `None` once it has been left.
    pub fn member(&mut self) -> Option<Cow<'a, str>> {
        let mut commas = 0_u32;
        loop {
            self.blanks();
            match self.peek() {
                None => {
                    self.repairs.add(Repair::Truncated);
                    return None;
                }
                Some(b',') => {
                    commas += 1;
                    self.at += 1;
                }
                Some(b'}') => {
                    self.at += 1;
                    if commas > 0 {
                        self.repairs.add(Repair::StrayComma);
                    }
                    return None;
                }
                // The object was not closed, but what holds it was.
                Some(b']') => {
                    self.repairs.add(Repair::Mismatched);
                    return None;
                }
                Some(b':') => {
                    self.repairs.add(Repair::Mismatched);
                    self.at += 1;
                }
                // A value without a key: left out.
                Some(b'{' | b'[') => {
                    self.repairs.add(Repair::Mismatched);
                    self.skip();
                }
                Some(_) => {
                    if commas > 1 {
                        self.repairs.add(Repair::StrayComma);
                    }
                    let before = self.previous();
                    if commas == 0 && before != Some(b'{') {
                        self.repairs.add(Repair::MissingComma);
                    }
                    if let Some(key) = self.key() {
                        return Some(key);
                    }
                }
            }
        }
    }

    /// Whether another element follows in the array this cursor is in.
    pub fn element(&mut self) -> bool {
        let mut commas = 0_u32;
        loop {
            self.blanks();
            match self.peek() {
                None => {
                    self.repairs.add(Repair::Truncated);
                    return false;
                }
                Some(b',') => {
                    commas += 1;
                    self.at += 1;
                }
                Some(b']') => {
                    self.at += 1;
                    if commas > 0 {
                        self.repairs.add(Repair::StrayComma);
                    }
                    return false;
                }
                Some(b'}') => {
                    self.repairs.add(Repair::Mismatched);
                    return false;
                }
                Some(b':') => {
                    self.repairs.add(Repair::Mismatched);
                    self.at += 1;
                }
                Some(_) => {
                    if commas > 1 || (commas == 1 && self.first_in_array(commas)) {
                        self.repairs.add(Repair::StrayComma);
                    }
                    if commas == 0 && self.previous() != Some(b'[') {
                        self.repairs.add(Repair::MissingComma);
                    }
                    return true;
                }
            }
        }
    }

    /// The last byte before this place that is not blank.
    fn previous(&self) -> Option<u8> {
        self.bytes.get(..self.at)?.iter().rev().find(|b| **b > b' ').copied()
    }

    fn first_in_array(&self, commas: u32) -> bool {
        let mut left = commas;
        let before = self.bytes.get(..self.at).unwrap_or_default().iter().rev().filter(|b| **b > b' ');
        for b in before {
            if *b == b',' && left > 0 {
                left -= 1;
            } else {
                return *b == b'[';
            }
        }
        false
    }

    fn key(&mut self) -> Option<Cow<'a, str>> {
        let key = match self.peek() {
            Some(quote @ (b'"' | b'\'')) => {
                self.at += 1;
                let mut key = self.text(quote);
                // `""temp0":`: the key begins after the second quote.
                if key.is_empty() && self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_') {
                    self.repairs.add(Repair::QuotedTwice);
                    key = self.text(quote);
                }
                key
            }
            Some(_) => {
                self.repairs.add(Repair::BareWord);
                let word = self.word();
                if word.is_empty() {
                    // A byte that nothing begins with.
                    self.at += 1;
                    return None;
                }
                self.decode(word)
            }
            None => return None,
        };
        self.blanks();
        match self.peek() {
            Some(b':') => {
                self.at += 1;
                // `"a":,` and `"a":}` have no value; the kind that follows says so.
                Some(key)
            }
            // A text without a value, as in an object that should have been a list.
            Some(b',' | b'}' | b']') => None,
            None => {
                self.repairs.add(Repair::Truncated);
                None
            }
            Some(_) => Some(key),
        }
    }

    /// A text up to its closing quote; the cursor is behind the opening one.
    fn text(&mut self, quote: u8) -> Cow<'a, str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        // Nearly every text has neither escape nor end of input in it.
        match rest.iter().position(|b| *b == quote || *b == b'\\') {
            Some(end) if rest.get(end) == Some(&quote) => {
                let from = self.at;
                self.at += end + 1;
                // Quotes are one byte each, so both places are between characters.
                match self.valid.and_then(|text| text.get(from..from + end)) {
                    Some(text) => Cow::Borrowed(text),
                    None => self.decode(rest.get(..end).unwrap_or_default()),
                }
            }
            _ => self.text_with_escapes(quote),
        }
    }

    #[cold]
    fn text_with_escapes(&mut self, quote: u8) -> Cow<'a, str> {
        let from = self.at;
        let mut escaped = false;
        while let Some(b) = self.peek() {
            if b == quote {
                let raw = self.bytes.get(from..self.at).unwrap_or_default();
                self.at += 1;
                return if escaped {
                    Cow::Owned(unescape(&String::from_utf8_lossy(raw)))
                } else {
                    self.decode(raw)
                };
            }
            if b == b'\\' {
                escaped = true;
                self.at += 1;
            }
            self.at += 1;
        }
        self.at = self.bytes.len();
        self.repairs.add(Repair::Truncated);
        let raw = self.bytes.get(from..).unwrap_or_default();
        if escaped { Cow::Owned(unescape(&String::from_utf8_lossy(raw))) } else { self.decode(raw) }
    }

    fn decode(&mut self, raw: &'a [u8]) -> Cow<'a, str> {
        match std::str::from_utf8(raw) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => {
                self.repairs.add(Repair::NotUtf8);
                String::from_utf8_lossy(raw)
            }
        }
    }

    /// Bytes up to the next delimiter.
    fn word(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let ends = |b: &u8| matches!(b, b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"') || *b <= b' ';
        let end = rest.iter().position(ends).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// The next value, which has no members.
    pub fn scalar(&mut self) -> Scalar<'a> {
        self.blanks();
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => {
                self.at += 1;
                let text = self.text(quote);
                if self.repairs.has(Repair::Truncated) { Scalar::Null } else { Scalar::Text(text) }
            }
            Some(_) => {
                let word = self.word();
                if self.at >= self.bytes.len() {
                    // Only a lone top-level word may end with the input.
                    if word.len() != self.bytes.len() {
                        self.repairs.add(Repair::Truncated);
                        return Scalar::Null;
                    }
                }
                self.bare(word)
            }
            None => Scalar::Null,
        }
    }

    fn bare(&mut self, word: &'a [u8]) -> Scalar<'a> {
        let Ok(text) = std::str::from_utf8(word) else {
            self.repairs.add(Repair::NotUtf8);
            return Scalar::Null;
        };
        match text {
            "null" => return Scalar::Null,
            "true" => return Scalar::Bool(true),
            "false" => return Scalar::Bool(false),
            "" => {
                // A byte that nothing begins with; step over it so that reading always advances.
                self.at += usize::from(self.at < self.bytes.len());
                self.repairs.add(Repair::BareWord);
                return Scalar::Null;
            }
            _ => {}
        }
        let sign = text.strip_prefix(['-', '+']).unwrap_or(text);
        if sign.as_bytes().first().is_some_and(u8::is_ascii_digit) && text.parse::<f64>().is_ok() {
            return Scalar::Number(text);
        }
        let lower = sign.to_ascii_lowercase();
        if matches!(lower.as_str(), "nan" | "inf" | "infinity") {
            self.repairs.add(Repair::NotANumber);
            return Scalar::Null;
        }
        self.repairs.add(Repair::BareWord);
        Scalar::Text(Cow::Borrowed(text))
    }

    /// Steps over the next value, whatever it is.
    pub fn skip(&mut self) {
        let mut depth = 0_u32;
        let bytes = self.bytes;
        while let Some(b) = bytes.get(self.at) {
            match b {
                b'"' | b'\'' => self.skip_text(*b),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    if depth == 0 {
                        return;
                    }
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' => {
                    if depth == 0 {
                        return;
                    }
                    self.at += 1;
                    continue;
                }
                0..=b' ' => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    self.word();
                }
            }
            if depth == 0 {
                return;
            }
        }
        if depth > 0 {
            self.repairs.add(Repair::Truncated);
        }
    }

    fn skip_text(&mut self, quote: u8) {
        self.at += 1;
        let bytes = self.bytes;
        while let Some(b) = bytes.get(self.at) {
            self.at += 1;
            if *b == quote {
                return;
            }
            if *b == b'\\' {
                self.at += 1;
            }
        }
        self.repairs.add(Repair::Truncated);
    }

    /// Notes what follows the value that was read.
    pub fn finish(&mut self) {
        self.blanks();
        if self.at < self.bytes.len() && !self.repairs.has(Repair::Truncated) {
            self.repairs.add(Repair::TrailingBytes);
        }
    }
}

fn unescape(raw: &str) -> String {
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

/// Reads a whole reply into a dynamic value, for documents and for recognition; readings use the
/// compiled extractor instead.
pub fn parse(bytes: &[u8]) -> Option<(serde_json::Value, Repairs)> {
    let mut cursor = Cursor::new(bytes);
    if cursor.kind() == Kind::None {
        return None;
    }
    let value = build(&mut cursor, 0);
    cursor.finish();
    Some((value, cursor.repairs))
}

fn build(cursor: &mut Cursor<'_>, depth: u8) -> serde_json::Value {
    use serde_json::Value;
    if depth >= MAX_DEPTH {
        cursor.repairs.add(Repair::TooDeep);
        cursor.skip();
        return Value::Null;
    }
    match cursor.kind() {
        Kind::Object => {
            cursor.open();
            let mut map = serde_json::Map::new();
            while let Some(key) = cursor.member() {
                let value = build(cursor, depth + 1);
                map.insert(key.into_owned(), value);
            }
            Value::Object(map)
        }
        Kind::Array => {
            cursor.open();
            let mut list = Vec::new();
            while cursor.element() {
                list.push(build(cursor, depth + 1));
            }
            Value::Array(list)
        }
        Kind::Scalar => match cursor.scalar() {
            Scalar::Null => Value::Null,
            Scalar::Bool(b) => Value::Bool(b),
            Scalar::Number(digits) => serde_json::from_str(digits)
                .ok()
                .or_else(|| {
                    let number = digits.parse::<f64>().ok()?;
                    serde_json::Number::from_f64(number).map(Value::Number)
                })
                .unwrap_or(Value::Null),
            Scalar::Text(text) => Value::String(text.into_owned()),
        },
        Kind::None => {
            cursor.repairs.add(Repair::Mismatched);
            Value::Null
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (String, Vec<&'static str>) {
        let (value, repairs) = parse(text.as_bytes()).unwrap();
        (value.to_string(), repairs.sentences().collect())
    }

    #[test]
    fn repairs() {
        let table = [
            (r#"{"a":[{"b":1}{"c":2}]}"#, r#"{"a":[{"b":1},{"c":2}]}"#, "a comma was missing"),
            (r#"{"a":1,}"#, r#"{"a":1}"#, "a comma stood where none belongs"),
            (r#"[,{"a":1}]"#, r#"[{"a":1}]"#, "a comma stood where none belongs"),
            (r#"{"a":nan,"b":-inf}"#, r#"{"a":null,"b":null}"#, "a number was nan or inf"),
            (r#"{"a":1,""temp0":45}"#, r#"{"a":1,"temp0":45}"#, "a key was quoted twice"),
            (r#"{"a":1 "b":2}"#, r#"{"a":1,"b":2}"#, "a comma was missing"),
            (r#"{"a":12,"b":345"#, r#"{"a":12,"b":null}"#, "the reply was cut short"),
            (r#"{"a":{"b":"cut he"#, r#"{"a":{"b":null}}"#, "the reply was cut short"),
            (r#"{"a":[1,2}"#, r#"{"a":[1,2]}"#, "brackets did not match"),
            (r#"{"a":1}}"#, r#"{"a":1}"#, "bytes followed the end of the reply"),
            (r#"{a:1}"#, r#"{"a":1}"#, "a word or key had no quotes"),
            (r#"{'a':'b'}"#, r#"{"a":"b"}"#, ""),
        ];
        for (given, expected, repair) in table {
            let (value, repairs) = read(given);
            assert_eq!(value, expected, "{given}");
            assert!(repair.is_empty() || repairs.contains(&repair), "{given}: {repairs:?}");
        }
    }

    #[test]
    fn numbers_at_the_head_of_a_text() {
        assert_eq!(leading_number("3250 W"), Some(3250.0));
        assert_eq!(leading_number("'-12.5'"), Some(-12.5));
        assert_eq!(leading_number("1e3x"), Some(1000.0));
        assert_eq!(leading_number("12e"), Some(12.0));
        assert_eq!(leading_number("W 3"), None);
        assert_eq!(leading_number(""), None);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            (-1e12..1e12_f64).prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..8)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn valid_json_is_read_as_a_strict_reader_does(value in json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let strict: serde_json::Value = serde_json::from_str(&text).unwrap();
            let (read, repairs) = parse(text.as_bytes()).unwrap();
            prop_assert_eq!(read, strict);
            prop_assert!(repairs.is_empty(), "{:?}", repairs);
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_json_like_bytes_end(text in "[\\[\\]{}\",:'a1 \\\\.-]{0,400}") {
            let _ = parse(text.as_bytes());
        }
    }
}
