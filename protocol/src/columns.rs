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
pub(crate) fn write(out: &mut Vec<u8>, values: &[Option<i64>], base: Option<&[Option<i64>]>) {
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
pub(crate) fn read(
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
            prop_assert_eq!(read(&mut rest, values.len(), base), Ok(values));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), n in 0usize..2000) {
            let _ = read(&mut &bytes[..], n, None);
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
