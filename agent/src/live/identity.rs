//! Whether the device that answers is the miner it's taken for. Pure.
//!
//! Serial number and MAC are observations: both move with a control board, and not every firmware
//! says them. One that agrees is enough, because firmwares name serial numbers differently; when
//! none agrees and one differs it is another device. What says neither is known by its address alone.

use hashinsight_firmware::Identified;

/// What is known of a miner's identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub serial: Option<String>,
    pub mac: Option<String>,
}

/// What a look at the device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The same, by serial number or MAC; or seen for the first time, and it names one of them.
    Same,
    /// Neither has ever been seen: known by address alone.
    Weak,
    /// It has named one before and says nothing that could be compared now.
    Unproven,
    Other,
}

impl Known {
    pub fn of(identified: &Identified) -> Self {
        Self { serial: identified.serial.clone(), mac: identified.mac.clone() }
    }

    pub fn is_empty(&self) -> bool {
        self.serial.is_none() && self.mac.is_none()
    }

    /// Compares with what a device says now.
    pub fn compare(&self, seen: &Self) -> Match {
        if self.is_empty() {
            return if seen.is_empty() { Match::Weak } else { Match::Same };
        }
        let facts = [
            agrees(self.serial.as_deref(), seen.serial.as_deref()),
            agrees(self.mac.as_deref(), seen.mac.as_deref()),
        ];
        if facts.contains(&Some(true)) {
            Match::Same
        } else if facts.contains(&Some(false)) {
            Match::Other
        } else {
            Match::Unproven
        }
    }

    /// Takes over what is new or has changed; keeps what the device didn't say this time.
    pub fn learn(&mut self, seen: &Self) {
        if seen.serial.is_some() {
            self.serial.clone_from(&seen.serial);
        }
        if seen.mac.is_some() {
            self.mac.clone_from(&seen.mac);
        }
    }
}

/// Compares letters and digits alone: MACs come with colons, with dashes and without.
fn agrees(known: Option<&str>, seen: Option<&str>) -> Option<bool> {
    let plain = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    Some(plain(known?) == plain(seen?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(serial: &str, mac: &str) -> Known {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Known { serial: some(serial), mac: some(mac) }
    }

    #[test]
    fn one_fact_that_agrees_is_enough() {
        for (before, now, expected) in [
            (("", ""), ("", ""), Match::Weak),
            (("", ""), ("S1", ""), Match::Same),
            (("S1", "02:00:00:00:00:0A"), ("S1", "02-00-00-00-00-0a"), Match::Same),
            (("S1", "02:00:00:00:00:0A"), ("S2", "02000000000a"), Match::Same),
            (("S1", "02:00:00:00:00:0A"), ("s1", ""), Match::Same),
            (("S1", "02:00:00:00:00:0A"), ("", "02:00:00:00:00:0B"), Match::Other),
            (("S1", "02:00:00:00:00:0A"), ("S2", "02:00:00:00:00:0B"), Match::Other),
            (("S1", ""), ("", "02:00:00:00:00:0A"), Match::Unproven),
            (("S1", ""), ("", ""), Match::Unproven),
        ] {
            let found = known(before.0, before.1).compare(&known(now.0, now.1));
            assert_eq!(found, expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn what_is_not_said_is_not_forgotten() {
        let mut one = known("S1", "02:00:00:00:00:0A");
        one.learn(&known("", "02:00:00:00:00:0B"));
        assert_eq!(one, known("S1", "02:00:00:00:00:0B"));
    }
}
