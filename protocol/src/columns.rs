//! Columns of optional integers, bit-packed.
//!
//! A column of `n` values is: one byte that says which are there (0 none, 1 all, 2 a bitmap of
//! `n` bits follows), then the residuals of those that are there, in blocks of up to 64, each a byte
//! with the width of its widest residual and the residuals of that many bits. A residual is the
//! zig-zag form of the difference (wrapping) from the same miner's value in the key batch, or, where
//! that is missing, from the value before in the column. The reader is told `n`; it never allocates
//! by a number that it read.

use crate::envelope::WireError;

const BLOCK: usize = 64;
const MALFORMED: WireError = WireError::Malformed("a telemetry column");

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Appends a column. `base` holds the key batch's values, or nothing.
pub fn write(out: &mut Vec<u8>, values: &[Option<i64>], base: Option<&[Option<i64>]>) {
    let present = values.iter().flatten().count();
    if present == 0 {
        out.push(0);
        return;
    }
    if present == values.len() {
        out.push(1);
    } else {
        out.push(2);
        for eight in values.chunks(8) {
            let bits = eight.iter().enumerate().map(|(i, v)| u8::from(v.is_some()) << i);
            out.push(bits.fold(0, |byte, bit| byte | bit));
        }
    }
    let mut before = 0i64;
    let mut residuals = Vec::with_capacity(present);
    for (i, value) in values.iter().enumerate() {
        let Some(value) = *value else { continue };
        let from = base.and_then(|b| b.get(i).copied().flatten()).unwrap_or(before);
        residuals.push(zigzag(value.wrapping_sub(from)));
        before = value;
    }
    for block in residuals.chunks(BLOCK) {
        let width = block.iter().map(|r| 64 - r.leading_zeros()).max().unwrap_or(0);
        out.push(width as u8);
        let (mut bits, mut held) = (0u128, 0u32);
        for residual in block {
            bits |= u128::from(*residual) << held;
            held += width;
            while held >= 8 {
                out.push(bits as u8);
                bits >>= 8;
                held -= 8;
            }
        }
        if held > 0 {
            out.push(bits as u8);
        }
    }
}

/// Reads a column of `n` values from the front of `bytes`.
///
/// # Errors
/// The bytes are no such column.
pub fn read(
    bytes: &mut &[u8],
    n: usize,
    base: Option<&[Option<i64>]>,
) -> Result<Vec<Option<i64>>, WireError> {
    let present = match take(bytes, 1)?[0] {
        0 => return Ok(vec![None; n]),
        1 => None,
        2 => Some(take(bytes, n.div_ceil(8))?),
        _ => return Err(MALFORMED),
    };
    let is_present = |i: usize| present.is_none_or(|map| map[i / 8] >> (i % 8) & 1 == 1);
    let at: Vec<usize> = (0..n).filter(|i| is_present(*i)).collect();
    let mut values = vec![None; n];
    let mut before = 0i64;
    for block in at.chunks(BLOCK) {
        let width = u32::from(take(bytes, 1)?[0]);
        if width > 64 {
            return Err(MALFORMED);
        }
        let packed = take(bytes, (block.len() * width as usize).div_ceil(8))?;
        let mut packed = packed.iter();
        let (mut bits, mut held) = (0u128, 0u32);
        for &i in block {
            while held < width {
                bits |= u128::from(*packed.next().ok_or(MALFORMED)?) << held;
                held += 8;
            }
            let mask = if width == 64 { u64::MAX } else { (1u64 << width) - 1 };
            let residual = bits as u64 & mask;
            bits >>= width;
            held -= width;
            let from = base.and_then(|b| b.get(i).copied().flatten()).unwrap_or(before);
            let value = from.wrapping_add(unzigzag(residual));
            values[i] = Some(value);
            before = value;
        }
    }
    Ok(values)
}

/// Reads the value at one place of a column of `n` values from the front of `bytes`, and passes over the
/// others where it can: where the base has a value there, nothing else bears on it.
///
/// # Errors
/// The bytes are no such column, as far as they were looked at.
pub fn read_at(
    bytes: &mut &[u8],
    n: usize,
    at: usize,
    base: impl Fn(usize) -> Option<i64>,
) -> Result<Option<i64>, WireError> {
    let whole = *bytes;
    let map = match take(bytes, 1)?[0] {
        0 => return Ok(None),
        1 => None,
        2 => Some(take(bytes, n.div_ceil(8))?),
        _ => return Err(MALFORMED),
    };
    let (present, place) = match map {
        None => (n, Some(at)),
        Some(map) => {
            let ones = |bytes: &[u8]| bytes.iter().map(|b| b.count_ones() as usize).sum::<usize>();
            // Bits beyond the last value are not values.
            let last =
                if n.is_multiple_of(8) { 0 } else { map.last().map_or(0, |b| (b >> (n % 8)).count_ones()) };
            let before =
                ones(&map[..at / 8]) + (map[at / 8] & ((1u16 << (at % 8)) - 1) as u8).count_ones() as usize;
            let is_there = map[at / 8] >> (at % 8) & 1 == 1;
            (ones(map) - last as usize, is_there.then_some(before))
        }
    };
    let from = base(at);
    if let (Some(_), None) = (place, from) {
        // It leans on the value before it in the column.
        let base: Vec<_> = (0..n).map(base).collect();
        *bytes = whole;
        return Ok(read(bytes, n, Some(&base))?[at]);
    }
    let mut value = None;
    for first in (0..present).step_by(BLOCK) {
        let width = usize::from(take(bytes, 1)?[0]);
        if width > 64 {
            return Err(MALFORMED);
        }
        let length = BLOCK.min(present - first);
        let packed = take(bytes, (length * width).div_ceil(8))?;
        let Some(place) = place.filter(|place| (first..first + length).contains(place)) else { continue };
        let bit = (place - first) * width;
        // At most 9 bytes hold the residual.
        let mut bits = 0u128;
        for (i, byte) in packed[bit / 8..].iter().take(9).enumerate() {
            bits |= u128::from(*byte) << (8 * i);
        }
        let mask = if width == 64 { u64::MAX } else { (1u64 << width) - 1 };
        let residual = (bits >> (bit % 8)) as u64 & mask;
        value = from.map(|from| from.wrapping_add(unzigzag(residual)));
    }
    Ok(value)
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], WireError> {
    let (head, rest) = bytes.split_at_checked(n).ok_or(MALFORMED)?;
    *bytes = rest;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_column_reads_back(
            values in proptest::collection::vec(proptest::option::of(any::<i64>()), 0..300),
            base in proptest::collection::vec(proptest::option::of(any::<i64>()), 0..300),
            lean: bool,
        ) {
            let base = lean.then_some(&base[..]);
            let mut bytes = Vec::new();
            write(&mut bytes, &values, base);
            let mut rest = &bytes[..];
            for at in 0..values.len() {
                let mut rest = &bytes[..];
                let base = |i: usize| base.and_then(|b| b.get(i).copied().flatten());
                prop_assert_eq!(read_at(&mut rest, values.len(), at, base), Ok(values[at]));
                prop_assert!(rest.is_empty());
            }
            prop_assert_eq!(read(&mut rest, values.len(), base), Ok(values));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), n in 0usize..2000) {
            let _ = read(&mut &bytes[..], n, None);
            let _ = (n > 0).then(|| read_at(&mut &bytes[..], n, n / 2, |i| (i % 3 > 0).then_some(7)));
        }
    }

    #[test]
    fn what_does_not_move_costs_next_to_nothing() {
        let values: Vec<_> = (0..1000).map(|i| Some(i * 7919)).collect();
        let mut bytes = Vec::new();
        write(&mut bytes, &values, Some(&values));
        assert!(bytes.len() < 20, "{}", bytes.len());
    }
}
