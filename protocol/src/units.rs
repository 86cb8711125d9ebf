//! Quantities with their units in the type.
//!
//! Every quantity is finite; what is unknown is an `Option`, never a zero or a NaN. Values come from
//! devices, so constructors refuse what no device can mean instead of clamping it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $unit:literal, $range:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name(f64);

        impl $name {
            pub const ZERO: Self = Self(0.0);

            #[doc = concat!("A value in ", $unit, "; `None` when it is not finite or out of range.")]
            pub fn new(value: f64) -> Option<Self> {
                // The sum with zero turns a negative zero into a plain one.
                (value.is_finite() && $range.contains(&value)).then_some(Self(value + 0.0))
            }

            #[doc = concat!("The value in ", $unit, ".")]
            pub fn get(self) -> f64 {
                self.0
            }

            /// Orders two values; all values are finite, so the order is total.
            pub fn total_cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.0.total_cmp(&other.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = f64::deserialize(deserializer)?;
                Self::new(value).ok_or_else(|| {
                    serde::de::Error::custom(concat!("a value in ", $unit, " that is out of range"))
                })
            }
        }
    };
}

macro_rules! additive {
    ($name:ident) => {
        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                self.0 += other.0;
            }
        }
        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self::ZERO, Add::add)
            }
        }
    };
}

quantity!(
    /// Hashes (or solutions) per second. One device stays far below 1e18; sums of fleets stay exact
    /// enough in a double.
    Hashrate, "hashes per second", (0.0..=1e24)
);
quantity!(
    /// Electrical power, drawn at the wall unless said otherwise.
    Watts, "watts", (0.0..=1e12)
);
quantity!(
    /// Temperature in degrees Celsius; what no sensor on a miner can mean is refused.
    Celsius, "degrees Celsius", (-100.0..=250.0)
);
quantity!(
    /// Energy a unit of work costs: joules per terahash, which is watts per terahash a second.
    JoulesPerTerahash, "joules per terahash", (0.0..=1e12)
);
additive!(Hashrate);
additive!(Watts);

impl Hashrate {
    pub const TERA: f64 = 1e12;

    /// From terahashes per second.
    pub fn from_terahash(value: f64) -> Option<Self> {
        Self::new(value * Self::TERA)
    }

    pub fn terahash(self) -> f64 {
        self.0 / Self::TERA
    }

    pub fn petahash(self) -> f64 {
        self.0 / 1e15
    }
}

impl Watts {
    pub fn from_kilowatts(value: f64) -> Option<Self> {
        Self::new(value * 1e3)
    }

    pub fn kilowatts(self) -> f64 {
        self.0 / 1e3
    }

    /// The difference, never below zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self((self.0 - other.0).max(0.0))
    }
}

impl JoulesPerTerahash {
    /// Power over hashrate; `None` for a miner that does not hash.
    pub fn of(power: Watts, hashrate: Hashrate) -> Option<Self> {
        (hashrate.get() > 0.0).then(|| Self::new(power.get() / hashrate.terahash())).flatten()
    }
}

impl fmt::Display for Hashrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const STEPS: [(f64, &str); 6] =
            [(1e18, "EH/s"), (1e15, "PH/s"), (1e12, "TH/s"), (1e9, "GH/s"), (1e6, "MH/s"), (1e3, "kH/s")];
        for (step, unit) in STEPS {
            if self.0 >= step {
                return write!(f, "{:.2} {unit}", self.0 / step);
            }
        }
        write!(f, "{:.0} H/s", self.0)
    }
}

impl fmt::Display for Watts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            w if w >= 1e6 => write!(f, "{:.2} MW", w / 1e6),
            w if w >= 1e4 => write!(f, "{:.1} kW", w / 1e3),
            w => write!(f, "{w:.0} W"),
        }
    }
}

impl fmt::Display for Celsius {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} °C", self.0)
    }
}

impl fmt::Display for JoulesPerTerahash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} J/TH", self.0)
    }
}

/// A point in wall time: milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

/// A point on the machine's monotonic clock: milliseconds since boot, suspend included
/// (CLOCK_BOOTTIME). Two of them compare only within one boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootMillis(pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationMs(pub u64);

impl Millis {
    /// The time `by` later.
    pub fn plus(self, by: DurationMs) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.0).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to this one; zero when `earlier` is the later one.
    pub fn since(self, earlier: Self) -> DurationMs {
        DurationMs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl BootMillis {
    pub fn plus(self, by: DurationMs) -> Self {
        Self(self.0.saturating_add(by.0))
    }

    pub fn since(self, earlier: Self) -> DurationMs {
        DurationMs(self.0.saturating_sub(earlier.0))
    }
}

impl DurationMs {
    pub const ZERO: Self = Self(0);

    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    pub const fn from_minutes(minutes: u64) -> Self {
        Self::from_secs(minutes.saturating_mul(60))
    }

    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e3
    }
}

impl From<DurationMs> for Duration {
    fn from(value: DurationMs) -> Self {
        Self::from_millis(value.0)
    }
}

impl Sub for DurationMs {
    type Output = Self;
    /// The difference, never below zero.
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_device_can_mean_is_refused() {
        assert_eq!(Watts::new(f64::NAN), None);
        assert_eq!(Watts::new(-1.0), None);
        assert_eq!(Celsius::new(-273.0), None);
        assert_eq!(Celsius::new(-12.5).map(Celsius::get), Some(-12.5));
        assert_eq!(Hashrate::new(f64::INFINITY), None);
    }

    #[test]
    fn efficiency_needs_work_done() {
        let w = Watts::new(3250.0).expect("in range");
        let h = Hashrate::from_terahash(110.0).expect("in range");
        let j = JoulesPerTerahash::of(w, h).expect("hashing");
        assert!((j.get() - 29.545).abs() < 0.001);
        assert_eq!(JoulesPerTerahash::of(w, Hashrate::ZERO), None);
    }

    #[test]
    fn a_negative_zero_is_a_zero() {
        assert!(Watts::new(-0.0).expect("zero").get().is_sign_positive());
    }

    #[test]
    fn times_do_not_wrap() {
        assert_eq!(Millis(i64::MAX).plus(DurationMs(u64::MAX)), Millis(i64::MAX));
        assert_eq!(Millis(5).since(Millis(9)), DurationMs::ZERO);
    }
}
