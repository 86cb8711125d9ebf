//! Telemetry batches: the readings of one poll burst, in columns.
//!
//! A batch belongs to a group. The group's first batch, its key, names the miners and stands alone;
//! the others name the key by sequence number and checksum, hold the same miners in the same order,
//! and say only what differs from it. A group has at most [`limits::GROUP_BATCHES`] batches and
//! [`limits::SAMPLES`] miners, so any of its batches is decoded from at most two.

use crate::clock::MomentV1;
use crate::columns;
use crate::device::{ModeV1, PowerSourceV1};
use crate::envelope::{Body, WireError, at_most};
use crate::ids::MinerId;
use crate::limits;
use crate::units::{Celsius, DurationMs, Hashrate, Watts};
use serde::{Deserialize, Serialize};

mod one;

/// How a poll of one miner ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PollV1 {
    /// The device answered and the answer was understood.
    Answered,
    /// Nothing listens at its address.
    Refused,
    /// No whole answer before the deadline.
    TimedOut,
    /// An answer that could not be understood.
    NotUnderstood,
    /// The device answered, and is not the one expected at this address.
    OtherDevice,
    /// Not asked: it has not answered for long, and its next try is due later.
    BackedOff,
    /// It closed or reset the connection without a whole answer, as devices do that restart.
    Reset,
    /// It refuses the user name or password.
    SignInRefused,
    /// Not asked: its one connection is in use, as a rule by a write.
    Busy,
}

/// One miner at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleV1 {
    pub miner: MinerId,
    /// From the batch's start to the end of this poll.
    pub after: DurationMs,
    pub poll: PollV1,
    /// Shortest real-time window that the device reports. Whole hashes a second.
    pub hashrate: Option<Hashrate>,
    /// In steps of 0.1 W.
    pub power: Option<Watts>,
    pub power_source: Option<PowerSourceV1>,
    /// Hottest chip or board; steps of 0.1 °C.
    pub hottest: Option<Celsius>,
    /// Fastest and slowest fan, turns a minute.
    pub fan_max: Option<u32>,
    pub fan_min: Option<u32>,
    pub accepted: Option<u64>,
    pub rejected: Option<u64>,
    pub uptime: Option<DurationMs>,
    pub is_mining: Option<bool>,
    pub mode: Option<ModeV1>,
    /// How many warnings the reading carries.
    pub warnings: Option<u32>,
}

impl SampleV1 {
    /// A sample that says nothing but how the poll ended.
    pub fn empty(miner: MinerId, after: DurationMs, poll: PollV1) -> Self {
        Self {
            miner,
            after,
            poll,
            hashrate: None,
            power: None,
            power_source: None,
            hottest: None,
            fan_max: None,
            fan_min: None,
            accepted: None,
            rejected: None,
            uptime: None,
            is_mining: None,
            mode: None,
            warnings: None,
        }
    }
}

/// What the key batch gives its followers: its miners and its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBatch {
    pub seq: u64,
    pub checksum: u32,
    miners: Vec<MinerId>,
    columns: Columns,
}

impl KeyBatch {
    pub fn miners(&self) -> &[MinerId] {
        &self.miners
    }
}

/// Which miners a batch holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RosterV1 {
    /// A key batch: these, in this order.
    Own(Vec<MinerId>),
    /// Those of the key batch with this number and checksum.
    Key { seq: u64, checksum: u32 },
}

/// A batch on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelemetryV1 {
    /// Poll cycle, from 1 in each epoch.
    pub cycle: u64,
    /// When the burst began.
    pub started: MomentV1,
    pub roster: RosterV1,
    columns: Vec<u8>,
}

impl Body for TelemetryV1 {
    const TAG: u16 = 1;
    const WHAT: &'static str = "a telemetry batch";

    fn check(&self) -> Result<(), WireError> {
        match &self.roster {
            RosterV1::Own(miners) => at_most(Self::WHAT, miners.len(), limits::SAMPLES),
            RosterV1::Key { .. } => Ok(()),
        }
    }
}

const FIELDS: usize = 14;
/// Where the hashrate stands among the columns: the one that carries a decimal scale.
const HASHRATE: usize = 2;
type Columns = Vec<Vec<Option<i64>>>;

impl TelemetryV1 {
    /// Puts samples into columns. With a key, the samples must be of its miners, in its order.
    ///
    /// # Errors
    /// Too many samples, or other miners than the key's.
    pub fn new(
        cycle: u64,
        started: MomentV1,
        samples: &[SampleV1],
        key: Option<&KeyBatch>,
    ) -> Result<Self, WireError> {
        at_most(Self::WHAT, samples.len(), limits::SAMPLES)?;
        let roster = match key {
            None => RosterV1::Own(samples.iter().map(|s| s.miner).collect()),
            Some(key) if key.miners.iter().eq(samples.iter().map(|s| &s.miner)) => {
                RosterV1::Key { seq: key.seq, checksum: key.checksum }
            }
            Some(_) => return Err(WireError::Malformed("a batch of other miners than its key's")),
        };
        let mut bytes = Vec::new();
        for (i, mut column) in to_columns(samples).into_iter().enumerate() {
            let mut base = key.map(|k| k.columns[i].clone());
            if i == HASHRATE {
                let scale = decimal_scale(&column, base.as_deref());
                bytes.push(scale);
                let divisor = 10i64.pow(u32::from(scale));
                for value in column.iter_mut().chain(base.iter_mut().flatten()).flatten() {
                    *value /= divisor;
                }
            }
            columns::write(&mut bytes, &column, base.as_deref());
        }
        Ok(Self { cycle, started, roster, columns: bytes })
    }

    /// The samples. `key` must be the batch that the roster names; a key batch needs none.
    ///
    /// # Errors
    /// The key is missing or another one, or the columns are malformed.
    pub fn samples(&self, key: Option<&KeyBatch>) -> Result<Vec<SampleV1>, WireError> {
        let (miners, columns) = self.unpack(key)?;
        from_columns(&miners, &columns)
    }

    /// What followers of this batch need; `None` for a batch that is not a key.
    ///
    /// # Errors
    /// The columns are malformed.
    pub fn as_key(&self, seq: u64, checksum: u32) -> Result<Option<KeyBatch>, WireError> {
        if matches!(self.roster, RosterV1::Key { .. }) {
            return Ok(None);
        }
        let (miners, columns) = self.unpack(None)?;
        Ok(Some(KeyBatch { seq, checksum, miners, columns }))
    }

    fn unpack(&self, key: Option<&KeyBatch>) -> Result<(Vec<MinerId>, Columns), WireError> {
        let (miners, key) = match &self.roster {
            RosterV1::Own(miners) => (miners.clone(), None),
            RosterV1::Key { seq, checksum } => {
                let key = key.filter(|k| (k.seq, k.checksum) == (*seq, *checksum));
                let key = key.ok_or(WireError::KeyMissing)?;
                (key.miners.clone(), Some(key))
            }
        };
        let mut rest = &self.columns[..];
        let mut columns = Columns::with_capacity(FIELDS);
        for i in 0..FIELDS {
            let mut divisor = 1;
            let mut base = key.map(|k| k.columns[i].clone());
            if i == HASHRATE {
                let (scale, after) = rest.split_first().ok_or(WireError::Malformed(Self::WHAT))?;
                rest = after;
                divisor = 10i64.checked_pow(u32::from(*scale)).ok_or(WireError::Malformed(Self::WHAT))?;
                base.iter_mut().flatten().flatten().for_each(|v| *v /= divisor);
            }
            let mut column = columns::read(&mut rest, miners.len(), base.as_deref())?;
            column.iter_mut().flatten().for_each(|v| *v = v.wrapping_mul(divisor));
            columns.push(column);
        }
        if !rest.is_empty() {
            return Err(WireError::Trailing(Self::WHAT));
        }
        Ok((miners, columns))
    }
}

/// Largest power of ten that divides every hashrate: devices report round ones.
fn decimal_scale(column: &[Option<i64>], base: Option<&[Option<i64>]>) -> u8 {
    let values = || column.iter().chain(base.unwrap_or_default()).flatten();
    let divides = |scale: u8| values().all(|v| v % 10i64.pow(u32::from(scale)) == 0);
    (1..=12).take_while(|scale| divides(*scale)).last().unwrap_or(0)
}

fn to_columns(samples: &[SampleV1]) -> Columns {
    let column = |f: &dyn Fn(&SampleV1) -> Option<i64>| samples.iter().map(f).collect::<Vec<_>>();
    let whole = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
    vec![
        column(&|s| Some(s.poll as i64)),
        column(&|s| Some(whole(s.after.0))),
        column(&|s| s.hashrate.map(|h| h.get().round() as i64)),
        column(&|s| s.power.map(|p| (p.get() * 10.0).round() as i64)),
        column(&|s| s.power_source.map(|p| p as i64)),
        column(&|s| s.hottest.map(|t| (t.get() * 10.0).round() as i64)),
        column(&|s| s.fan_max.map(i64::from)),
        column(&|s| s.fan_min.map(i64::from)),
        column(&|s| s.accepted.map(whole)),
        column(&|s| s.rejected.map(whole)),
        column(&|s| s.uptime.map(|u| whole(u.0))),
        column(&|s| s.is_mining.map(i64::from)),
        column(&|s| s.mode.map(|m| m as i64)),
        column(&|s| s.warnings.map(i64::from)),
    ]
}

fn from_columns(miners: &[MinerId], columns: &Columns) -> Result<Vec<SampleV1>, WireError> {
    const BAD: WireError = WireError::Malformed("a telemetry value");
    fn each<T>(value: Option<i64>, f: impl Fn(i64) -> Option<T>) -> Result<Option<T>, WireError> {
        value.map(|v| f(v).ok_or(BAD)).transpose()
    }
    let whole = |v: i64| u64::try_from(v).ok();
    let small = |v: i64| u32::try_from(v).ok();
    let sample = |(i, miner): (usize, &MinerId)| {
        let at = |field: usize| columns[field][i];
        Ok(SampleV1 {
            miner: *miner,
            poll: each(at(0), poll)?.ok_or(BAD)?,
            after: DurationMs(each(at(1), whole)?.ok_or(BAD)?),
            hashrate: each(at(2), |v| Hashrate::new(v as f64))?,
            power: each(at(3), |v| Watts::new(v as f64 / 10.0))?,
            power_source: each(at(4), power_source)?,
            hottest: each(at(5), |v| Celsius::new(v as f64 / 10.0))?,
            fan_max: each(at(6), small)?,
            fan_min: each(at(7), small)?,
            accepted: each(at(8), whole)?,
            rejected: each(at(9), whole)?,
            uptime: each(at(10), |v| whole(v).map(DurationMs))?,
            is_mining: each(at(11), |v| [false, true].get(usize::try_from(v).ok()?).copied())?,
            mode: each(at(12), mode)?,
            warnings: each(at(13), small)?,
        })
    };
    miners.iter().enumerate().map(sample).collect()
}

fn poll(number: i64) -> Option<PollV1> {
    use PollV1::*;
    [Answered, Refused, TimedOut, NotUnderstood, OtherDevice, BackedOff, Reset, SignInRefused, Busy]
        .into_iter()
        .find(|p| *p as i64 == number)
}

fn power_source(number: i64) -> Option<PowerSourceV1> {
    [PowerSourceV1::Device, PowerSourceV1::Model].into_iter().find(|p| *p as i64 == number)
}

fn mode(number: i64) -> Option<ModeV1> {
    use ModeV1::*;
    [Normal, Sleep, LowPower, HighEfficiency, HighPower, Starting, Failed]
        .into_iter()
        .find(|m| *m as i64 == number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockStateV1;
    use crate::ids::BootId;
    use crate::units::{BootMillis, Millis};
    use proptest::prelude::*;

    fn moment() -> MomentV1 {
        MomentV1 {
            wall: Millis(1_790_000_000_000),
            boot: BootMillis(5),
            boot_id: BootId::from_random([1; 16]),
            state: ClockStateV1::Synced,
        }
    }

    prop_compose! {
        fn sample(miner: MinerId)(
            after in 0u64..10_000,
            hashrate in proptest::option::of(0u64..1 << 50),
            power in proptest::option::of(0u32..100_000),
            hottest in proptest::option::of(-400i32..1500),
            fans in proptest::option::of(0u32..8000),
            accepted in proptest::option::of(0u64..1 << 40),
            is_mining: Option<bool>,
        ) -> SampleV1 {
            SampleV1 {
                hashrate: hashrate.and_then(|h| Hashrate::new(h as f64)),
                power: power.and_then(|p| Watts::new(f64::from(p) / 10.0)),
                power_source: power.map(|_| PowerSourceV1::Device),
                hottest: hottest.and_then(|t| Celsius::new(f64::from(t) / 10.0)),
                fan_max: fans,
                fan_min: fans.map(|f| f / 2),
                accepted,
                is_mining,
                mode: is_mining.map(|m| if m { ModeV1::Normal } else { ModeV1::Sleep }),
                ..SampleV1::empty(miner, DurationMs(after), PollV1::Answered)
            }
        }
    }

    fn samples(n: usize) -> impl Strategy<Value = Vec<SampleV1>> {
        (0..n).map(|i| sample(MinerId::from_random([i as u8; 16]))).collect::<Vec<_>>()
    }

    proptest! {
        #[test]
        fn a_group_reads_back(first in samples(40), second in samples(40)) {
            let key = TelemetryV1::new(1, moment(), &first, None).expect("few");
            prop_assert_eq!(key.samples(None), Ok(first.clone()));
            let key = key.as_key(9, 77).expect("well formed").expect("a key");
            let next = TelemetryV1::new(2, moment(), &second, Some(&key)).expect("the same miners");
            let next = TelemetryV1::decode(&next.encode().expect("small")).expect("ours");
            for (at, sample) in second.iter().enumerate() {
                prop_assert_eq!(key.position(sample.miner), Some(at));
                prop_assert_eq!(next.sample_at(&key, at), Ok(Some(*sample)));
                prop_assert_eq!(key.sample_at(at), Ok(Some(first[at])));
            }
            prop_assert_eq!(next.sample_at(&key, second.len()), Ok(None));
            prop_assert_eq!(next.samples(None), Err(WireError::KeyMissing));
            prop_assert_eq!(next.samples(Some(&key)), Ok(second));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut tagged = vec![1];
            tagged.extend_from_slice(&bytes);
            if let Ok(batch) = TelemetryV1::decode(&tagged) {
                let _ = batch.samples(None);
                let _ = batch.as_key(1, 1);
            }
        }

        #[test]
        fn arbitrary_columns_never_panic(columns in proptest::collection::vec(any::<u8>(), 0..400), n in 0u8..50) {
            let roster = RosterV1::Own((0..n).map(|i| MinerId::from_random([i; 16])).collect());
            let batch = TelemetryV1 { cycle: 1, started: moment(), roster, columns };
            let _ = batch.samples(None);
        }
    }

    #[test]
    fn a_key_of_other_miners_is_refused() {
        let one = [SampleV1::empty(MinerId::from_random([1; 16]), DurationMs(1), PollV1::TimedOut)];
        let two = [SampleV1::empty(MinerId::from_random([2; 16]), DurationMs(1), PollV1::TimedOut)];
        let key = TelemetryV1::new(1, moment(), &one, None).expect("few");
        let key = key.as_key(1, 1).expect("well formed").expect("a key");
        assert!(TelemetryV1::new(2, moment(), &two, Some(&key)).is_err());
    }
}
