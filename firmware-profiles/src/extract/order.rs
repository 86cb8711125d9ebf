//! The order of an object's keys, learned from the first device that sends it.
//!
//! Devices of one firmware say the same keys in the same order, in every reply. So a key is compared with
//! the one that is expected, which costs less than to find its end and to look it up. Nothing is believed
//! for it: a key that is another one is read and looked up as ever.
//!
//! Limits: [`ORDERS`] orders a place, told apart by their first keys, and [`MAX_KEYS`] keys a profile. They
//! are not forgotten; a device that sends nonsense first makes others slower, not wrong.

use super::NodeId;
use crate::json::Cursor;
use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Different objects in one place: the head and the body of the statistics, say.
const ORDERS: usize = 3;
/// Keys that are learned of all objects of one profile.
const MAX_KEYS: usize = 4096;
/// Longer keys are not learned.
const LONGEST_KEY: usize = 64;
/// How far ahead a key is looked for when it's not the expected one: this device may leave some out.
const AHEAD: usize = 8;

/// Where a key leads, and its digits where they are an index.
pub(super) type Child = Option<(NodeId, Option<u32>)>;

/// Keys in their order, close together: a walk goes through all of them.
#[derive(Debug, Default)]
struct Order {
    /// Each key as it is written: `"key":`.
    written: Vec<u8>,
    /// Where each ends there, and where it leads.
    keys: Vec<(u32, Child)>,
}

impl Order {
    /// A key as it is written.
    #[inline]
    fn written(&self, nth: usize) -> Option<(&[u8], Child)> {
        let (end, child) = *self.keys.get(nth)?;
        let start = nth.checked_sub(1).and_then(|before| self.keys.get(before)).map_or(0, |(end, _)| *end);
        Some((self.written.get(start as usize..end as usize)?, child))
    }

    fn learn(&mut self, key: &[u8], child: Child) {
        for part in [b"\"", key, b"\":"] {
            self.written.extend_from_slice(part);
        }
        // Some thousand keys of some bytes each.
        self.keys.push((u32::try_from(self.written.len()).unwrap_or(u32::MAX), child));
    }
}

/// The key of what is written.
fn key_of(written: &[u8]) -> &[u8] {
    match written {
        [b'"', key @ .., b'"', b':'] => key,
        _ => &[],
    }
}

/// What is known of the objects in one place.
#[derive(Debug, Default)]
pub(super) struct Orders([OnceLock<Order>; ORDERS]);

/// The keys of all orders of a profile.
#[derive(Debug, Default)]
pub(super) struct Budget(AtomicUsize);

impl Budget {
    fn take(&self, keys: usize) -> bool {
        let free = |used: usize| Some(used + keys).filter(|used| *used <= MAX_KEYS);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).is_ok()
    }
}

/// A walk through one object.
pub(super) struct Walk<'n> {
    orders: &'n Orders,
    known: Option<&'n Order>,
    /// The next key that is expected.
    at: usize,
    is_first: bool,
    learning: Option<Order>,
}

impl<'n> Walk<'n> {
    pub fn new(orders: &'n Orders) -> Self {
        Self { orders, known: None, at: 0, is_first: true, learning: None }
    }

    /// The next key, and where it leads; `look_up` finds it where it isn't the expected one.
    #[inline]
    pub fn next<'k, 'a: 'k>(
        &mut self,
        cursor: &mut Cursor<'a>,
        look_up: impl Fn(&[u8]) -> Child,
    ) -> Option<(Cow<'k, [u8]>, Child)>
    where
        'n: 'k,
    {
        if self.is_first {
            self.begin(cursor);
        }
        if let Some((written, child)) = self.known.and_then(|known| known.written(self.at))
            && cursor.take_key(written)
        {
            self.at += 1;
            return Some((Cow::Borrowed(key_of(written)), child));
        }
        let key = cursor.member_bytes()?;
        let child = look_up(&key);
        if let Some(learning) = &mut self.learning {
            let plain = matches!(key, Cow::Borrowed(_)) && key.len() <= LONGEST_KEY;
            if plain && !key.iter().any(|b| matches!(b, b'"' | b'\\')) && learning.keys.len() < MAX_KEYS {
                learning.learn(&key, child);
            }
        } else if let Some(known) = self.known {
            let is_it =
                |nth: &usize| known.written(*nth).is_some_and(|(written, _)| key_of(written) == &*key);
            let found = (self.at..self.at + AHEAD).find(is_it);
            self.at = found.map_or(self.at, |found| found + 1);
        }
        Some((key, child))
    }

    /// Chooses the order that begins as this object does, or begins to learn it.
    fn begin(&mut self, cursor: &Cursor<'_>) {
        self.is_first = false;
        // What is written with blanks in between is never met again as it was learned.
        if !cursor.is_plain() {
            return;
        }
        for order in &self.orders.0 {
            match order.get() {
                Some(known) if known.written(0).is_some_and(|(first, _)| cursor.has_key(first)) => {
                    self.known = Some(known);
                    return;
                }
                Some(_) => {}
                None => {
                    self.learning = Some(Order::default());
                    return;
                }
            }
        }
    }

    /// Keeps what was learned of an object that is through.
    pub fn end(self, budget: &Budget) {
        if let Some(learned) = self.learning
            && !learned.keys.is_empty()
            && let Some(free) = self.orders.0.iter().find(|order| order.get().is_none())
            && budget.take(learned.keys.len())
        {
            // Another reply may have been sooner, and is as good.
            let _ = free.set(learned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The children of a reply's keys, by their lengths.
    fn walk(orders: &Orders, budget: &Budget, text: &str) -> Vec<(String, Child)> {
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.open();
        let mut walk = Walk::new(orders);
        let mut found = Vec::new();
        while let Some((key, child)) = walk.next(&mut cursor, |key| Some((key.len() as u32, None))) {
            cursor.skip();
            found.push((String::from_utf8_lossy(&key).into_owned(), child));
        }
        walk.end(budget);
        found
    }

    #[test]
    fn keys_are_the_same_whatever_was_learned() {
        let replies = [
            r#"{"a":1,"bb":2,"ccc":3,"dddd":4}"#,
            r#"{"a":1,"ccc":3,"dddd":4}"#,
            r#"{"a":1,"x":[5,{"a":1}],"bb":2,"dddd":4,"ccc":3}"#,
            r#"{ "a" : 1 , "bb":2 "ccc":3,,"dddd":"4"}"#,
            r#"{"bb":2,"a":1}"#,
            r#"{""a":1,"b\"b":2,"ccc":}"#,
            r#"{"z":1}"#,
            r#"{"y":1}"#,
            r#"{}"#,
            r#"{"a":1,"bb"#,
        ];
        let (orders, budget) = (Orders::default(), Budget::default());
        for _ in 0..3 {
            for text in replies {
                let alone = walk(&Orders::default(), &Budget::default(), text);
                assert_eq!(walk(&orders, &budget, text), alone, "{text}");
            }
        }
        let known: Vec<usize> =
            orders.0.iter().filter_map(|order| order.get().map(|order| order.keys.len())).collect();
        assert_eq!(known, [4, 2, 2]);
    }

    #[test]
    fn what_is_learned_is_bounded() {
        let (orders, budget) = (Orders::default(), Budget(AtomicUsize::new(MAX_KEYS - 1)));
        walk(&orders, &budget, r#"{"a":1,"b":2}"#);
        assert!(orders.0.iter().all(|order| order.get().is_none()));
        walk(&orders, &budget, r#"{"a":1}"#);
        assert_eq!(orders.0[0].get().map(|order| order.keys.len()), Some(1));
    }
}
