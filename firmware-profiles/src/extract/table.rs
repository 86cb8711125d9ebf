//! Small hash tables of a node's keys: most keys of a reply are in none, and are told so by one look at
//! their ends.

use super::NodeId;

/// The keys of a node, and where they lead.
#[derive(Debug, Default)]
pub(super) struct Table {
    exact: Names,
    /// Keys with a run of digits, which is left out of the name.
    numbered: Names,
    /// Whether something follows the digits in one of those.
    inner_digits: bool,
    /// A bit for each name, by length and ends of what stands before its last digits: most keys are in no
    /// table, and are told so by it.
    seen: [u64; 4],
}

impl Table {
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.numbered.is_empty()
    }

    /// Where a reply's key leads, and its digits where they are an index.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<(NodeId, Option<u32>)> {
        let stem = stem(key);
        let (word, bit) = bit(stem);
        if self.seen[word] & bit == 0 {
            return None;
        }
        self.look_up(key, stem)
    }

    fn look_up(&self, key: &[u8], stem: &[u8]) -> Option<(NodeId, Option<u32>)> {
        if let Some(id) = self.exact.find(key, b"") {
            return Some((id, None));
        }
        if !self.inner_digits {
            let digits = key.get(stem.len()..).filter(|digits| !digits.is_empty())?;
            return Some((self.numbered.find(stem, b"")?, index(digits)));
        }
        let (before, digits, after) = last_digits(key)?;
        Some((self.numbered.find(before, after)?, index(digits)))
    }

    /// The child of a key as it is written.
    pub fn exact(&self, key: &str) -> Option<NodeId> {
        self.exact.find(key.as_bytes(), b"")
    }

    /// The child of a key with any digits between two parts.
    pub fn numbered(&self, before: &str, after: &str) -> Option<NodeId> {
        self.numbered.find(before.as_bytes(), after.as_bytes())
    }

    pub fn put_exact(&mut self, key: &str, id: NodeId) {
        let (word, bit) = bit(stem(key.as_bytes()));
        self.seen[word] |= bit;
        self.exact.put(key.as_bytes(), b"", id);
    }

    pub fn put_numbered(&mut self, before: &str, after: &str, id: NodeId) {
        self.inner_digits |= !after.is_empty();
        // What stands before the last digits is the stem only where they end the key.
        if after.is_empty() {
            let (word, bit) = bit(before.as_bytes());
            self.seen[word] |= bit;
        } else {
            self.seen = [u64::MAX; 4];
        }
        self.numbered.put(before.as_bytes(), after.as_bytes(), id);
    }
}

/// A name in two parts, and where it leads.
#[derive(Debug)]
struct Name {
    before: Box<[u8]>,
    after: Box<[u8]>,
    id: NodeId,
}

#[derive(Debug, Default)]
struct Names {
    names: Vec<Name>,
    /// Four times as many slots as names or more; a slot is the place of a name plus one, or zero.
    slots: Vec<u16>,
}

impl Names {
    fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn find(&self, before: &[u8], after: &[u8]) -> Option<NodeId> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = hash(before, after) & mask;
        loop {
            let place = usize::from(*self.slots.get(slot)?).checked_sub(1)?;
            let name = self.names.get(place)?;
            if *name.before == *before && *name.after == *after {
                return Some(name.id);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn put(&mut self, before: &[u8], after: &[u8], id: NodeId) {
        self.names.push(Name { before: before.into(), after: after.into(), id });
        let size = (self.names.len() * 4).next_power_of_two();
        self.slots = vec![0; size];
        for (n, name) in self.names.iter().enumerate() {
            let mut slot = hash(&name.before, &name.after) & (size - 1);
            while self.slots.get(slot).is_some_and(|place| *place != 0) {
                slot = (slot + 1) & (size - 1);
            }
            if let Some(free) = self.slots.get_mut(slot) {
                // A profile has some hundred names.
                *free = u16::try_from(n + 1).unwrap_or(u16::MAX);
            }
        }
    }
}

/// A key without the digits that it ends with.
#[inline]
fn stem(mut key: &[u8]) -> &[u8] {
    while let [rest @ .., b'0'..=b'9'] = key {
        key = rest;
    }
    key
}

/// A key around its last run of digits.
fn last_digits(key: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let end = key.iter().rposition(u8::is_ascii_digit)? + 1;
    let head = key.get(..end)?;
    let start = stem(head).len();
    Some((head.get(..start)?, head.get(start..)?, key.get(end..)?))
}

/// Digits as a number, where one can hold them.
fn index(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |all, digit| all.checked_mul(10)?.checked_add(u32::from(digit - b'0')))
}

/// The bit of a name among 256: the word that it is in, and the bit there.
#[inline]
fn bit(name: &[u8]) -> (usize, u64) {
    let ends = match name {
        [first, .., last] => usize::from(*first) * 29 + usize::from(*last) * 7,
        _ => 0,
    };
    let mixed = name.len() * 11 + ends;
    (mixed / 64 % 4, 1 << (mixed % 64))
}

/// Length and both ends of a name tell nearly all of them apart; the rest is compared anyway.
#[inline]
fn hash(before: &[u8], after: &[u8]) -> usize {
    let lengths = (before.len() as u64) << 8 | after.len() as u64;
    let mixed = ends(before) ^ ends(after).rotate_left(17) ^ lengths.rotate_left(40);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

#[inline]
fn ends(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        return u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
    }
    bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_as_written_comes_before_one_with_any_digits() {
        let mut table = Table::default();
        table.put_numbered("fan", "", 1);
        table.put_exact("fan3", 2);
        table.put_exact("GHS 5s", 3);
        table.put_exact("temp", 4);
        let numbered = [
            ("fan7", Some((1, Some(7)))),
            ("fan3", Some((2, None))),
            ("fan", None),
            ("GHS 5s", Some((3, None))),
            ("GHS 1s", None),
            ("GHS s", None),
            ("temp", Some((4, None))),
            ("temp1", None),
            ("", None),
            ("7", None),
            ("fan4294967295", Some((1, Some(u32::MAX)))),
            ("fan4294967296", Some((1, None))),
            ("fan99999999999", Some((1, None))),
        ];
        for (key, found) in numbered {
            assert_eq!(table.find(key.as_bytes()), found, "{key}");
        }
        table.put_numbered("MM ID", ":Summary", 5);
        for (key, found) in numbered {
            assert_eq!(table.find(key.as_bytes()), found, "{key}");
        }
        assert_eq!(table.find(b"MM ID12:Summary"), Some((5, Some(12))));
        assert_eq!(table.find(b"MM 1ID12:Summary"), None);
        assert_eq!((table.exact("fan3"), table.numbered("fan", "")), (Some(2), Some(1)));
        assert_eq!((table.exact("fan4"), table.numbered("temp", "")), (None, None));
    }

    #[test]
    fn many_names_keep_apart() {
        let mut table = Table::default();
        let names: Vec<String> =
            (0..300).map(|n| format!("{}x{}", "ab".repeat(n % 7), "c".repeat(n))).collect();
        for (n, name) in names.iter().enumerate() {
            table.put_exact(name, n as u32);
        }
        for (n, name) in names.iter().enumerate() {
            assert_eq!(table.find(name.as_bytes()), Some((n as u32, None)));
        }
    }
}
