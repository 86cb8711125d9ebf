//! The reader itself: a place in a reply that moves forward only.

use super::repairs::{Repair, Repairs};
use super::scalar::{Scalar, plain_number, unescape};
use memchr::memchr2;
use std::borrow::Cow;

/// Bytes that end a bare word or number.
const ENDS_WORD: u8 = 1;
/// Blanks and control bytes. A NUL ends a reply on the wire; inside one it is a blank like the others.
const BLANK: u8 = 2;

/// What each byte is to the reader, so that a byte costs one look.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte <= b' ' as usize {
        classes[byte] = BLANK | ENDS_WORD;
        byte += 1;
    }
    let ends = *b",:{}[]\"";
    let mut n = 0;
    while n < ends.len() {
        classes[ends[n] as usize] = ENDS_WORD;
        n += 1;
    }
    classes
};

fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// Where a text ends, counted from behind its opening quote; `None` where it has escapes or no end.
#[inline]
fn plain_end(bytes: &[u8]) -> Option<usize> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    /// The highest bit of each byte that is zero; above the lowest of them it may be wrong.
    fn zeros(word: u64) -> u64 {
        word.wrapping_sub(EACH) & !word & (EACH << 7)
    }
    // Eight bytes at a time as long as a text is short; longer ones are worth a call.
    let mut rest = bytes;
    for _ in 0..3 {
        let Some((chunk, behind)) = rest.split_first_chunk::<8>() else { break };
        let word = u64::from_le_bytes(*chunk);
        let hits = zeros(word ^ (EACH * 0x22)) | zeros(word ^ (EACH * 0x5c));
        if hits != 0 {
            let end = (hits.trailing_zeros() / 8) as usize;
            return (rest.get(end) == Some(&b'"')).then_some(bytes.len() - rest.len() + end);
        }
        rest = behind;
    }
    let end = memchr2(b'"', b'\\', rest)?;
    (rest.get(end) == Some(&b'"')).then_some(bytes.len() - rest.len() + end)
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
        while self.peek().is_some_and(|b| is(b, BLANK)) {
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

    /// As [`member`](Cursor::member), in bytes, which are UTF-8: nearly every key is one of a well-formed
    /// reply, and is only compared.
    #[inline]
    pub fn member_bytes(&mut self) -> Option<Cow<'a, [u8]>> {
        if let Some(key) = self.plain_member() {
            return Some(Cow::Borrowed(key));
        }
        Some(match self.member()? {
            Cow::Borrowed(key) => Cow::Borrowed(key.as_bytes()),
            Cow::Owned(key) => Cow::Owned(key.into_bytes()),
        })
    }

    /// Whether the next key is this one, written `"key":` as a strict writer does.
    #[inline]
    pub fn has_key(&self, written: &[u8]) -> bool {
        self.key_place().is_some_and(|place| self.bytes.get(place..).is_some_and(|b| b.starts_with(written)))
    }

    /// Whether the next key stands where a strict writer puts it.
    pub fn is_plain(&self) -> bool {
        self.key_place().is_some()
    }

    /// Steps over the next key where it is this one.
    #[inline]
    pub fn take_key(&mut self, written: &[u8]) -> bool {
        let Some(place) = self.key_place() else { return false };
        let is_it = self.bytes.get(place..).is_some_and(|bytes| bytes.starts_with(written));
        if is_it {
            self.at = place + written.len();
        }
        is_it
    }

    /// Where the opening quote of the next key stands, if it does where a strict writer puts it.
    #[inline]
    fn key_place(&self) -> Option<usize> {
        match self.bytes.get(self.at..)? {
            [b',', b'"', ..] => Some(self.at + 1),
            [b'"', ..] if self.bytes.get(self.at.wrapping_sub(1)) == Some(&b'{') => Some(self.at),
            _ => None,
        }
    }

    /// The next key where it stands as a strict writer puts it: `,"key":`, or `"key":` behind the bracket.
    #[inline]
    fn plain_member(&mut self) -> Option<&'a [u8]> {
        let from = self.key_place()? + 1;
        self.valid?;
        let rest = self.bytes.get(from..)?;
        let length = plain_end(rest).filter(|length| *length > 0)?;
        if rest.get(length + 1) != Some(&b':') {
            return None;
        }
        self.at = from + length + 2;
        rest.get(..length)
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
        let end = if quote == b'"' { plain_end(rest) } else { memchr2(quote, b'\\', rest) };
        match end {
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
        let end = rest.iter().position(|b| is(*b, ENDS_WORD)).unwrap_or(rest.len());
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
            Some(b'-' | b'0'..=b'9') if let Some(number) = self.plain_scalar() => number,
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

    /// A number as nearly all are, with something behind it.
    #[inline]
    fn plain_scalar(&mut self) -> Option<Scalar<'a>> {
        let rest = self.bytes.get(self.at..)?;
        let (value, length) = plain_number(rest)?;
        let digits = self.valid?.get(self.at..self.at + length)?;
        if !rest.get(length).is_some_and(|b| is(*b, ENDS_WORD)) {
            return None;
        }
        self.at += length;
        Some(Scalar::Number(digits, value))
    }

    fn bare(&mut self, word: &'a [u8]) -> Scalar<'a> {
        let Ok(text) = std::str::from_utf8(word) else {
            self.repairs.add(Repair::NotUtf8);
            return Scalar::Null;
        };
        let sign = text.strip_prefix(['-', '+']).unwrap_or(text);
        if sign.as_bytes().first().is_some_and(u8::is_ascii_digit)
            && let Ok(value) = text.parse::<f64>()
        {
            return Scalar::Number(text, value);
        }
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
        let lower = sign.to_ascii_lowercase();
        if matches!(lower.as_str(), "nan" | "inf" | "infinity") {
            self.repairs.add(Repair::NotANumber);
            return Scalar::Null;
        }
        self.repairs.add(Repair::BareWord);
        Scalar::Text(Cow::Borrowed(text))
    }

    /// Steps over the next value, whatever it is.
    #[inline]
    pub fn skip(&mut self) {
        match self.bytes.get(self.at..) {
            Some([b'"', rest @ ..]) if let Some(end) = plain_end(rest) => self.at += end + 2,
            Some([b'-' | b'0'..=b'9', ..]) => _ = self.word(),
            _ => self.skip_any(),
        }
    }

    fn skip_any(&mut self) {
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
        while let Some(end) = memchr2(quote, b'\\', bytes.get(self.at..).unwrap_or_default()) {
            let is_quote = bytes.get(self.at + end) == Some(&quote);
            self.at += end + 1;
            if is_quote {
                return;
            }
            // What is escaped ends nothing.
            self.at += 1;
        }
        self.at = bytes.len();
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
