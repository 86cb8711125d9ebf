//! Numbers, times and addresses as people and browsers read them. A number never goes without its unit.

use super::i18n::Language;
use hashinsight_protocol::units::{Celsius, DurationMs, Hashrate, JoulesPerTerahash, Watts};
use std::fmt::Write as _;

/// What stands where nothing is known.
pub const UNKNOWN: &str = "–";

/// A number and its unit, to be set apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity {
    pub number: String,
    pub unit: &'static str,
}

impl Quantity {
    fn new(number: String, unit: &'static str) -> Self {
        Self { number, unit }
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\u{a0}{}", self.number, self.unit)
    }
}

/// A site's power.
pub fn power(power: Watts) -> Quantity {
    match power.get() {
        w if w >= 1e6 => Quantity::new(format!("{:.2}", w / 1e6), "MW"),
        w if w >= 1e4 => Quantity::new(format!("{:.1}", w / 1e3), "kW"),
        w => Quantity::new(grouped(w.round() as i64), "W"),
    }
}

/// A site's hashrate.
pub fn hashrate(hashrate: Hashrate) -> Quantity {
    match hashrate.get() {
        h if h >= 1e18 => Quantity::new(format!("{:.2}", h / 1e18), "EH/s"),
        h if h >= 1e15 => Quantity::new(format!("{:.2}", h / 1e15), "PH/s"),
        h if h >= 1e12 => Quantity::new(format!("{:.1}", h / 1e12), "TH/s"),
        0.0 => Quantity::new("0".to_owned(), "TH/s"),
        h => Quantity::new(format!("{:.1}", h / 1e9), "GH/s"),
    }
}

pub fn efficiency(efficiency: JoulesPerTerahash) -> Quantity {
    Quantity::new(format!("{:.1}", efficiency.get()), "J/TH")
}

pub fn celsius(celsius: Celsius) -> Quantity {
    Quantity::new(format!("{:.0}", celsius.get()), "°C")
}

/// One miner's power, the same unit in every row so that a column can be compared.
pub fn watts(power: Watts) -> Quantity {
    Quantity::new(grouped(power.get().round() as i64), "W")
}

/// One miner's hashrate.
pub fn terahash(hashrate: Hashrate) -> Quantity {
    Quantity::new(format!("{:.1}", hashrate.terahash()), "TH/s")
}

/// A whole number, its thousands set apart.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() + 8);
    if number < 0 {
        out.push('-');
    }
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A length of time in its two largest units.
pub fn duration(language: Language, length: DurationMs) -> String {
    let seconds = length.0 / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let unit = |key: &str, n: u64| language.with1(key, "n", n.to_string());
    match (days, hours, minutes) {
        (0, 0, 0) => unit("unit-seconds", seconds),
        (0, 0, m) => unit("unit-minutes", m),
        (0, h, 0) => unit("unit-hours", h),
        (0, h, m) => format!("{} {}", unit("unit-hours", h), unit("unit-minutes", m)),
        (d, 0, _) => unit("unit-days", d),
        (d, h, _) => format!("{} {}", unit("unit-days", d), unit("unit-hours", h)),
    }
}

/// How long ago, in one unit; the page's script says the same words as time goes on.
pub fn age(language: Language, age: DurationMs) -> String {
    let seconds = age.0 / 1000;
    let (key, n) = match seconds {
        0..60 => ("unit-seconds", seconds),
        60..3600 => ("unit-minutes", seconds / 60),
        3600..86_400 => ("unit-hours", seconds / 3600),
        _ => ("unit-days", seconds / 86_400),
    };
    language.with1(key, "n", n.to_string())
}

/// A text as a part of an address.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string never fails.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_their_units() {
        let w = |w| power(Watts::new(w).unwrap()).to_string();
        assert_eq!(
            (w(0.0), w(3250.4), w(51_234.0)),
            ("0\u{a0}W".into(), "3,250\u{a0}W".into(), "51.2\u{a0}kW".into())
        );
        assert_eq!(w(32_500_000.0), "32.50\u{a0}MW");
        let h = |h| hashrate(Hashrate::new(h).unwrap()).to_string();
        assert_eq!((h(0.0), h(1.1e18)), ("0\u{a0}TH/s".into(), "1.10\u{a0}EH/s".into()));
        assert_eq!((h(95.04e12), h(4.2e9)), ("95.0\u{a0}TH/s".into(), "4.2\u{a0}GH/s".into()));
        assert_eq!(grouped(-1_234_567), "-1,234,567");
    }

    #[test]
    fn times_have_words_in_both_languages() {
        let minutes = DurationMs::from_minutes;
        let en = |m| duration(Language::English, minutes(m));
        assert_eq!(
            (en(0), en(59), en(60), en(61)),
            ("0 s".into(), "59 min".into(), "1 h".into(), "1 h 1 min".into())
        );
        assert_eq!((en(60 * 24), en(60 * 25 + 1)), ("1 d".into(), "1 d 1 h".into()));
        assert_eq!(age(Language::Chinese, minutes(3)), "3 分钟");
    }

    #[test]
    fn an_address_keeps_its_parts_apart() {
        assert_eq!(encoded("/sites/a?q=1&b=ä"), "%2Fsites%2Fa%3Fq%3D1%26b%3D%C3%A4");
    }
}
