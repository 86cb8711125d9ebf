//! What one of a device's numbers is worth.

/// How a unit is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    Fixed(f64),
    /// This factor unless the block found a `rate_unit`.
    Default(f64),
    /// The text names it: `13.5 TH/s`.
    InText,
}

impl Unit {
    /// The plain factor.
    pub fn factor(self) -> f64 {
        match self {
            Self::Fixed(f) | Self::Default(f) => f,
            Self::InText => 1.0,
        }
    }
}

const UNITS: [(&str, f64); 25] = [
    ("H/s", 1.0),
    ("kH/s", 1e3),
    ("MH/s", 1e6),
    ("GH/s", 1e9),
    ("TH/s", 1e12),
    ("PH/s", 1e15),
    ("EH/s", 1e18),
    ("Sol/s", 1.0),
    ("kSol/s", 1e3),
    ("MSol/s", 1e6),
    ("MW", 1e6),
    ("W", 1.0),
    ("kW", 1e3),
    ("mW", 1e-3),
    ("s", 1.0),
    ("ms", 1e-3),
    ("min", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    ("C", 1.0),
    ("mC", 1e-3),
    ("rpm", 1.0),
    ("cW", 1e-2),
    ("dW", 1e-1),
    ("us", 1e-6),
];

/// The factor of a unit as profiles write it.
pub(super) fn factor(name: &str) -> Option<f64> {
    UNITS.iter().find(|(known, _)| *known == name).map(|(_, factor)| *factor)
}

/// The factor of a hashrate unit as devices write it: `GH`, `GH/s`, `Ghps`, `TH`, `KSol/s`, `G`.
pub fn rate_factor(text: &str) -> Option<f64> {
    let lower = text.trim().to_ascii_lowercase();
    let word = lower.split(['/', ' ']).next()?;
    let word = word.strip_suffix("ps").unwrap_or(word);
    let prefix = ["hashes", "hash", "sols", "sol", "h"].into_iter().find_map(|end| word.strip_suffix(end));
    let (prefix, named) = prefix.map_or((word, false), |prefix| (prefix, true));
    match prefix {
        "" if named => Some(1.0),
        "k" => Some(1e3),
        "m" => Some(1e6),
        "g" => Some(1e9),
        "t" => Some(1e12),
        "p" => Some(1e15),
        "e" => Some(1e18),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_as_devices_write_them() {
        for (text, factor) in [
            ("GH", 1e9),
            ("GH/s", 1e9),
            ("Gh/s", 1e9),
            ("TH/s", 1e12),
            ("MH", 1e6),
            ("KSol/s", 1e3),
            ("Sol/s", 1.0),
            ("kH/s", 1e3),
            ("Ghps", 1e9),
            ("H/s", 1.0),
        ] {
            assert_eq!(rate_factor(text), Some(factor), "{text}");
        }
        assert_eq!(rate_factor("C"), None);
        assert_eq!(rate_factor(""), None);
    }
}
