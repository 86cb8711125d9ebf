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

mod cursor;
mod repairs;
mod scalar;
#[cfg(test)]
mod tests;

pub use cursor::{Cursor, Kind};
pub use repairs::{Repair, Repairs};
pub use scalar::{Scalar, leading_number, whole_number};

/// Deeper nesting than any device has.
pub const MAX_DEPTH: u8 = 48;

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
            Scalar::Number(digits, value) => serde_json::from_str(digits)
                .ok()
                .or_else(|| serde_json::Number::from_f64(value).map(Value::Number))
                .unwrap_or(Value::Null),
            Scalar::Text(text) => Value::String(text.into_owned()),
        },
        Kind::None => {
            cursor.repairs.add(Repair::Mismatched);
            Value::Null
        }
    }
}
