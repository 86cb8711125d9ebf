//! What a length of time adds up to for each miner of an agent, and the columns that keep it.
//!
//! - **Associative**: counts, sums, least and most; five minutes make an hour and hours a day, whatever
//!   the order in which batches came. Means are made by whoever reads.
//! - **Format**: a version (1), the number of miners (4 bytes, little-endian), then [`FIELDS`] columns
//!   as on the wire ([`hashinsight_protocol::columns`]), miners by rising number. Hashrate is kept in
//!   MH/s, power in 0.1 W, temperature in 0.1 °C. A format that was written is read for ever.

use crate::error::{Error, Result};
use hashinsight_protocol::columns;
use hashinsight_protocol::telemetry::{PollV1, SampleV1};
use hashinsight_protocol::units::{Celsius, Hashrate, Watts};
use std::collections::BTreeMap;

const VERSION: u8 = 1;
const FIELDS: usize = 12;
/// H/s in one step of a hashrate.
const MEGA: f64 = 1e6;
/// Miners of one body; far more than an agent has.
const MOST: u32 = 1_000_000;

/// The sums of one miner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub polls: i64,
    pub answered: i64,
    /// Polls in which it said that it mines.
    pub mining: i64,
    /// Polls with a hashrate, and their sum in MH/s.
    pub hashrates: i64,
    hashrate: i64,
    /// Polls with a power, their sum, least and most in 0.1 W.
    pub powers: i64,
    power: i64,
    power_least: Option<i64>,
    power_most: Option<i64>,
    hottest: Option<i64>,
    pub warnings: Option<i64>,
}

/// The sums of an agent's miners by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSums(pub BTreeMap<u32, Sums>);

impl Sums {
    pub fn add(&mut self, sample: &SampleV1) {
        let tenths = |value: f64| (value * 10.0).round() as i64;
        let mut one = Self { polls: 1, ..Self::default() };
        one.answered = i64::from(sample.poll == PollV1::Answered);
        one.mining = i64::from(sample.is_mining == Some(true));
        if let Some(hashrate) = sample.hashrate {
            (one.hashrates, one.hashrate) = (1, (hashrate.get() / MEGA).round() as i64);
        }
        if let Some(power) = sample.power.map(|p| tenths(p.get())) {
            (one.powers, one.power) = (1, power);
            (one.power_least, one.power_most) = (Some(power), Some(power));
        }
        one.hottest = sample.hottest.map(|t| tenths(t.get()));
        one.warnings = sample.warnings.map(i64::from);
        self.merge(&one);
    }

    pub fn merge(&mut self, other: &Self) {
        for (mine, others) in [
            (&mut self.polls, other.polls),
            (&mut self.answered, other.answered),
            (&mut self.mining, other.mining),
            (&mut self.hashrates, other.hashrates),
            (&mut self.hashrate, other.hashrate),
            (&mut self.powers, other.powers),
            (&mut self.power, other.power),
        ] {
            *mine = mine.saturating_add(others);
        }
        let least = [self.power_least, other.power_least].into_iter().flatten().min();
        self.power_least = least;
        // An absent value is less than any.
        self.power_most = self.power_most.max(other.power_most);
        self.hottest = self.hottest.max(other.hottest);
        self.warnings = self.warnings.max(other.warnings);
    }

    /// Mean of the polls that had one.
    pub fn hashrate(&self) -> Option<Hashrate> {
        (self.hashrates > 0)
            .then(|| self.hashrate as f64 / self.hashrates as f64 * MEGA)
            .and_then(Hashrate::new)
    }

    /// Mean of the polls that had one.
    pub fn power(&self) -> Option<Watts> {
        (self.powers > 0).then(|| self.power as f64 / self.powers as f64 / 10.0).and_then(Watts::new)
    }

    /// Least and most power.
    pub fn power_range(&self) -> Option<(Watts, Watts)> {
        let watts = |tenths: Option<i64>| Watts::new(tenths? as f64 / 10.0);
        Some((watts(self.power_least)?, watts(self.power_most)?))
    }

    pub fn hottest(&self) -> Option<Celsius> {
        Celsius::new(self.hottest? as f64 / 10.0)
    }

    fn fields(&self) -> [Option<i64>; FIELDS - 1] {
        [
            Some(self.polls),
            Some(self.answered),
            Some(self.mining),
            Some(self.hashrates),
            Some(self.hashrate),
            Some(self.powers),
            Some(self.power),
            self.power_least,
            self.power_most,
            self.hottest,
            self.warnings,
        ]
    }
}

impl AgentSums {
    pub fn merge(&mut self, other: &Self) {
        for (number, sums) in &other.0 {
            self.0.entry(*number).or_default().merge(sums);
        }
    }

    /// Polls of all miners.
    pub fn polls(&self) -> i64 {
        self.0.values().map(|sums| sums.polls).sum()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&(self.0.len() as u32).to_le_bytes());
        let numbers: Vec<_> = self.0.keys().map(|number| Some(i64::from(*number))).collect();
        columns::write(&mut out, &numbers, None);
        let fields: Vec<_> = self.0.values().map(Sums::fields).collect();
        for at in 0..FIELDS - 1 {
            let column: Vec<_> = fields.iter().map(|fields| fields[at]).collect();
            columns::write(&mut out, &column, None);
        }
        out
    }

    /// # Errors
    /// The bytes are not what [`Self::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let broken = || Error::internal("a stored rollup can't be read");
        let (head, mut rest) = bytes.split_at_checked(5).ok_or_else(broken)?;
        let count = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        if head[0] != VERSION || count > MOST {
            return Err(broken());
        }
        let mut column = || columns::read(&mut rest, count as usize, None).map_err(|_| broken());
        let numbers = column()?;
        let fields = (1..FIELDS).map(|_| column()).collect::<Result<Vec<_>>>()?;
        let mut out = BTreeMap::new();
        for (i, number) in numbers.into_iter().enumerate() {
            let number = number.and_then(|n| u32::try_from(n).ok()).ok_or_else(broken)?;
            let some = |field: usize| fields[field][i];
            let whole = |field: usize| some(field).unwrap_or(0);
            let sums = Sums {
                polls: whole(0),
                answered: whole(1),
                mining: whole(2),
                hashrates: whole(3),
                hashrate: whole(4),
                powers: whole(5),
                power: whole(6),
                power_least: some(7),
                power_most: some(8),
                hottest: some(9),
                warnings: some(10),
            };
            out.insert(number, sums);
        }
        Ok(Self(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::ids::MinerId;
    use hashinsight_protocol::units::DurationMs;
    use proptest::prelude::*;

    fn sample(power: Option<u32>, heat: Option<i16>, answered: bool) -> SampleV1 {
        let poll = if answered { PollV1::Answered } else { PollV1::TimedOut };
        SampleV1 {
            power: power.and_then(|p| Watts::new(f64::from(p) / 10.0)),
            hottest: heat.and_then(|t| Celsius::new(f64::from(t) / 10.0)),
            hashrate: power.and_then(|p| Hashrate::new(f64::from(p) * 1e9)),
            is_mining: answered.then_some(power.is_some()),
            warnings: heat.map(|t| u32::from(t.unsigned_abs())),
            ..SampleV1::empty(MinerId::from_random([1; 16]), DurationMs::ZERO, poll)
        }
    }

    prop_compose! {
        fn any_sample()(
            power in proptest::option::of(0u32..100_000), heat in proptest::option::of(-400i16..1500), answered: bool
        ) -> SampleV1 {
            sample(power, heat, answered)
        }
    }

    proptest! {
        #[test]
        fn sums_read_back_and_any_split_adds_up(
            samples in proptest::collection::vec((0u32..40, any_sample(), 0usize..4), 0..120)
        ) {
            let mut whole = AgentSums::default();
            let mut parts = vec![AgentSums::default(); 4];
            for (miner, sample, part) in &samples {
                whole.0.entry(*miner).or_default().add(sample);
                parts[*part].0.entry(*miner).or_default().add(sample);
            }
            prop_assert_eq!(whole.polls(), samples.len() as i64);
            let mut merged = AgentSums::default();
            for part in parts {
                merged.merge(&AgentSums::decode(&part.encode()).unwrap());
            }
            prop_assert_eq!(merged, whole);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut headed = vec![VERSION, 40, 0, 0, 0];
            headed.extend_from_slice(&bytes);
            let _ = AgentSums::decode(&bytes);
            let _ = AgentSums::decode(&headed);
        }
    }

    #[test]
    fn means_are_of_the_polls_that_said_something() {
        let mut sums = Sums::default();
        for (power, answered) in [(Some(30_000), true), (Some(32_000), true), (None, false)] {
            sums.add(&sample(power, None, answered));
        }
        assert_eq!((sums.polls, sums.answered, sums.powers), (3, 2, 2));
        assert_eq!(sums.power().unwrap().get(), 3100.0);
        assert_eq!(sums.hashrate().unwrap().get(), 31_000e9);
        let (least, most) = sums.power_range().unwrap();
        assert_eq!((least.get(), most.get(), sums.hottest()), (3000.0, 3200.0, None));
    }
}
