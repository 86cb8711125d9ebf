//! Ranges of addresses to look for miners in. Pure.
//!
//! `10.0.0.0/20`, `10.0.3.17`, `10.0.3.10-10.0.3.99` or `10.0.3.10-99`. The network's own address and its
//! broadcast address are no device's; together at most [`MOST`] addresses, a /16.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use thiserror::Error;

/// The most addresses of one search.
pub const MOST: usize = 1 << 16;
/// The widest network that is taken at all: wider is a slip of the finger.
const WIDEST: u8 = 16;

/// Addresses from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u32,
    last: u32,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotARange {
    #[error("\"{0}\" is no range of addresses; expected 10.0.0.0/20, 10.0.3.17 or 10.0.3.10-99")]
    Malformed(String),
    #[error(
        "{0} has more than {MOST} addresses; name networks of /{WIDEST} or smaller, where the miners are"
    )]
    TooWide(String),
    #[error("{0} holds addresses that are no device's")]
    NotDevices(String),
}

impl FromStr for Range {
    type Err = NotARange;
    fn from_str(text: &str) -> Result<Self, NotARange> {
        let shown = || text.chars().filter(|c| !c.is_control()).take(64).collect::<String>();
        let malformed = || NotARange::Malformed(shown());
        let address = |text: &str| text.parse::<Ipv4Addr>().map(u32::from).map_err(|_| malformed());
        let range = if let Some((base, bits)) = text.split_once('/') {
            let base = address(base)?;
            let digits = bits.len() <= 2 && bits.bytes().all(|b| b.is_ascii_digit());
            let bits: u8 = bits.parse().ok().filter(|bits| digits && *bits <= 32).ok_or_else(malformed)?;
            if bits < WIDEST {
                return Err(NotARange::TooWide(shown()));
            }
            let hosts = u32::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
            let (first, last) = (base & !hosts, base | hosts);
            // Networks of one or two addresses have no broadcast address (RFC 3021).
            let inner = u32::from(bits <= 30);
            Self { first: first + inner, last: last - inner }
        } else if let Some((first, last)) = text.split_once('-') {
            let first = address(first)?;
            let last = match last.parse::<u8>() {
                Ok(last) => first & !0xff | u32::from(last),
                Err(_) => address(last)?,
            };
            Self { first, last }
        } else {
            let one = address(text)?;
            Self { first: one, last: one }
        };
        if range.last < range.first {
            return Err(malformed());
        }
        if range.len() > MOST {
            return Err(NotARange::TooWide(shown()));
        }
        let ends = [range.first, range.last].map(Ipv4Addr::from);
        if ends.iter().any(|ip| ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0) {
            return Err(NotARange::NotDevices(shown()));
        }
        Ok(range)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, last] = [self.first, self.last].map(Ipv4Addr::from);
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl Range {
    /// The network of 256 addresses around one.
    pub fn around(ip: Ipv4Addr) -> Self {
        let base = u32::from(ip) & !0xff;
        Self { first: base + 1, last: base + 254 }
    }

    /// How many addresses.
    #[expect(clippy::len_without_is_empty, reason = "no range is empty")]
    pub fn len(&self) -> usize {
        (self.last - self.first) as usize + 1
    }

    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&u32::from(ip))
    }

    fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        (self.first..=self.last).map(Ipv4Addr::from)
    }
}

/// All addresses of some ranges, each once, in their order.
///
/// # Errors
/// There are more than [`MOST`].
pub fn addresses(ranges: &[Range]) -> Result<Vec<Ipv4Addr>, NotARange> {
    let names = || ranges.iter().map(Range::to_string).collect::<Vec<_>>().join(", ");
    if ranges.iter().map(Range::len).sum::<usize>() > MOST {
        return Err(NotARange::TooWide(names()));
    }
    let mut all: Vec<_> = ranges.iter().flat_map(Range::addresses).collect();
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> Result<String, String> {
        text.parse::<Range>().map(|range| format!("{range} ({})", range.len())).map_err(|e| e.to_string())
    }

    #[test]
    fn ranges_are_read_as_people_write_them() {
        for (text, expected) in [
            ("10.0.0.0/20", "10.0.0.1-10.0.15.254 (4094)"),
            ("10.0.3.7/24", "10.0.3.1-10.0.3.254 (254)"),
            ("10.0.3.6/31", "10.0.3.6-10.0.3.7 (2)"),
            ("10.0.3.7/32", "10.0.3.7 (1)"),
            ("10.0.3.7", "10.0.3.7 (1)"),
            ("10.0.3.10-99", "10.0.3.10-10.0.3.99 (90)"),
            ("10.0.3.10-10.0.4.9", "10.0.3.10-10.0.4.9 (256)"),
            ("10.1.0.0/16", "10.1.0.1-10.1.255.254 (65534)"),
        ] {
            assert_eq!(range(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_too_wide_or_no_range_is_one_clear_line() {
        for (text, part) in [
            ("10.0.0.0/8", "more than 65536 addresses"),
            ("0.0.0.0/0", "more than 65536"),
            ("10.0.0.0-10.200.0.0", "more than 65536"),
            ("10.0.0.0/33", "no range"),
            ("10.0.0.0/+8", "no range"),
            ("10.0.0/24", "no range"),
            ("10.0.3.99-10", "no range"),
            ("miners.local", "no range"),
            ("", "no range"),
            ("fe80::/64", "no range"),
            ("224.0.0.0/24", "no device's"),
            ("0.0.0.0/24", "no device's"),
        ] {
            let error = range(text).expect_err(text);
            assert!(error.contains(part) && error.lines().count() == 1, "{text}: {error}");
        }
    }

    #[test]
    fn all_ranges_together_are_bounded() {
        let parse = |texts: &[&str]| texts.iter().map(|t| t.parse().expect("a range")).collect::<Vec<_>>();
        assert_eq!(addresses(&parse(&["10.0.0.0/30", "10.0.0.2-4"])).expect("few").len(), 4);
        assert!(addresses(&parse(&["10.0.0.0/16", "10.1.0.0/24"])).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[0-9a-f./:-]{0,24}") {
            if let Ok(range) = text.parse::<Range>() {
                prop_assert!((1..=MOST).contains(&range.len()));
            }
        }

        #[test]
        fn a_network_holds_its_addresses_and_no_other(base: u32, bits in 16u8..=30) {
            let base = base & 0x7fff_ffff | 0x0100_0000;
            let text = format!("{}/{bits}", Ipv4Addr::from(base));
            let range: Range = text.parse().expect("a network");
            prop_assert_eq!(range.len() + 2, 1usize << (32 - bits));
            let all = addresses(&[range]).expect("bounded");
            prop_assert_eq!(all.len(), range.len());
            let mask = u32::MAX << (32 - bits);
            prop_assert!(all.iter().all(|ip| u32::from(*ip) & mask == base & mask && range.contains(*ip)));
            prop_assert!(!range.contains(Ipv4Addr::from(base & mask)));
        }

        #[test]
        fn a_range_reads_back(first in 0x0100_0000u32..0x7fff_0000, more in 0u32..60_000) {
            let text = format!("{}-{}", Ipv4Addr::from(first), Ipv4Addr::from(first + more));
            let range: Range = text.parse().expect("a range");
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }
    }
}
