//! What a miner is doing, in one word, from its latest poll.
//!
//! The firmware's own word of its mode decides; a rate decides only where a miner that claims to hash
//! does not. Nothing is guessed from what is missing: no answer is "no answer", an old answer "stale".

use hashinsight_protocol::device::ModeV1;
use hashinsight_protocol::telemetry::PollV1;
use hashinsight_protocol::units::{DurationMs, Hashrate};
use serde::Serialize;

/// A reading older than three of the usual cycles no longer says what a miner is doing.
pub const STALE: DurationMs = DurationMs::from_secs(180);
/// A miner that says it hashes, and does not yet, is starting for this long.
const STARTING: DurationMs = DurationMs::from_minutes(15);

/// A miner's status, as shown by colour and word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Hashing,
    Starting,
    /// Asleep by a plan.
    Curtailed,
    /// Asleep, not by us.
    Off,
    /// Stopped by a fault of its own, or not hashing when it should.
    Fault,
    /// The last poll had no answer that could be understood.
    NoAnswer,
    /// Nothing was heard of it for [`STALE`].
    Stale,
}

/// What the status is made of.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// Since the last poll, however it ended; `None` when it was never polled.
    pub age: Option<DurationMs>,
    pub poll: Option<PollV1>,
    pub mode: Option<ModeV1>,
    pub is_mining: Option<bool>,
    pub hashrate: Option<Hashrate>,
    pub uptime: Option<DurationMs>,
    /// A plan holds it.
    pub held: bool,
}

impl Status {
    pub const ALL: [Self; 7] =
        [Self::Hashing, Self::Starting, Self::Curtailed, Self::Off, Self::Fault, Self::NoAnswer, Self::Stale];

    /// As in the API, in addresses and in style sheets.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hashing => "hashing",
            Self::Starting => "starting",
            Self::Curtailed => "curtailed",
            Self::Off => "off",
            Self::Fault => "fault",
            Self::NoAnswer => "no_answer",
            Self::Stale => "stale",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Whether the last reading still says what the miner draws and hashes.
    pub fn is_known(self) -> bool {
        !matches!(self, Self::NoAnswer | Self::Stale)
    }

    pub fn of(signs: Signs) -> Self {
        let (Some(age), Some(poll)) = (signs.age, signs.poll) else { return Self::Stale };
        if age >= STALE {
            return Self::Stale;
        }
        if poll != PollV1::Answered {
            return Self::NoAnswer;
        }
        let asleep = if signs.held { Self::Curtailed } else { Self::Off };
        match signs.mode {
            Some(ModeV1::Failed) => return Self::Fault,
            Some(ModeV1::Starting) => return Self::Starting,
            Some(ModeV1::Sleep) => return asleep,
            Some(ModeV1::Normal | ModeV1::LowPower | ModeV1::HighEfficiency | ModeV1::HighPower) | None => {}
        }
        if signs.is_mining == Some(false) {
            return asleep;
        }
        match signs.hashrate {
            Some(rate) if rate > Hashrate::ZERO => Self::Hashing,
            None if signs.is_mining == Some(true) => Self::Hashing,
            _ if signs.uptime.is_some_and(|up| up < STARTING) => Self::Starting,
            _ => Self::Fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sign_has_its_word() {
        let hashing = Signs {
            age: Some(DurationMs::from_secs(5)),
            poll: Some(PollV1::Answered),
            mode: Some(ModeV1::Normal),
            is_mining: Some(true),
            hashrate: Hashrate::from_terahash(100.0),
            uptime: Some(DurationMs::from_minutes(600)),
            held: false,
        };
        let asleep = Signs { mode: Some(ModeV1::Sleep), is_mining: Some(false), hashrate: None, ..hashing };
        let zero = Signs { hashrate: Some(Hashrate::ZERO), ..hashing };
        for (signs, status) in [
            (hashing, Status::Hashing),
            (Signs { hashrate: None, ..hashing }, Status::Hashing),
            (Signs { mode: None, is_mining: None, ..hashing }, Status::Hashing),
            (Signs { held: true, ..hashing }, Status::Hashing),
            (asleep, Status::Off),
            (Signs { held: true, ..asleep }, Status::Curtailed),
            (Signs { mode: None, held: true, ..asleep }, Status::Curtailed),
            (Signs { mode: Some(ModeV1::Starting), ..hashing }, Status::Starting),
            (Signs { mode: Some(ModeV1::Failed), ..asleep }, Status::Fault),
            (zero, Status::Fault),
            (Signs { uptime: Some(DurationMs::from_minutes(2)), ..zero }, Status::Starting),
            (Signs { poll: Some(PollV1::TimedOut), ..hashing }, Status::NoAnswer),
            (Signs { poll: Some(PollV1::BackedOff), ..hashing }, Status::NoAnswer),
            (Signs { age: Some(STALE), ..hashing }, Status::Stale),
            (Signs { age: None, poll: None, ..hashing }, Status::Stale),
        ] {
            assert_eq!(Status::of(signs), status, "{signs:?}");
            assert_eq!(Status::parse(status.name()), Some(status));
        }
    }
}
