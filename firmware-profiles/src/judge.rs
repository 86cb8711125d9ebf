//! What a reading proves of a stop or a wake. Pure.
//!
//! Mode and effect are two facts and neither waits for the other. A mode is what the device's
//! configuration or state says. An effect is power at or under max(half of the device's own power
//! before, the family's bound), or a real-time rate of zero together with the device's word that it
//! is stopped: a rate of zero alone is also a device that boots or has failed. Averages, echoes and
//! missing values prove nothing, and neither does power that we worked out from the rate ourselves.

use crate::Identified;
use crate::profile::Profile;
use crate::profiles::Profiles;
use crate::reading::Reading;
use hashinsight_protocol::device::{FactV1, ModeV1, PowerSourceV1, PreStateV1};
use hashinsight_protocol::units::{Hashrate, Watts};

/// Power limits that differ by less are the same: devices round them.
const LIMIT_TOLERANCE: f64 = 0.02;

/// The facts (mode, effect) about a device that was told to stop. `baseline` is its power before.
pub fn judge_stopped(
    profiles: &Profiles,
    identified: &Identified,
    reading: &Reading,
    read_back: Option<&PreStateV1>,
    baseline: Option<Watts>,
) -> (FactV1, FactV1) {
    let Some(profile) = profiles.get(&identified.firmware) else { return Default::default() };
    let mode = mode_seen(reading, read_back);
    let asleep = mode.map(ModeV1::is_asleep);
    let mode_fact = match asleep {
        None => FactV1::Unknown,
        Some(true) => FactV1::Yes,
        Some(false) => FactV1::No,
    };
    let rate = reading.hashrate.map(Hashrate::get);
    let effect = match measured(reading) {
        Some(power) if power <= bound(profile, baseline) => FactV1::Yes,
        Some(_) => FactV1::No,
        None => match (rate, asleep) {
            (Some(rate), _) if rate > 0.0 => FactV1::No,
            (Some(_), Some(true)) => FactV1::Yes,
            _ => FactV1::Unknown,
        },
    };
    (mode_fact, effect)
}

/// The facts (mode, effect) about a device that was told to go back to its pre-state.
pub fn judge_running(
    profiles: &Profiles,
    identified: &Identified,
    reading: &Reading,
    read_back: Option<&PreStateV1>,
    pre: &PreStateV1,
) -> (FactV1, FactV1) {
    let Some(profile) = profiles.get(&identified.firmware) else { return Default::default() };
    let mode_fact = match (read_back, mode_seen(reading, read_back)) {
        (Some(found), _) => {
            if as_before(found, pre) {
                FactV1::Yes
            } else {
                FactV1::No
            }
        }
        (None, Some(mode)) => {
            if mode == pre.mode {
                FactV1::Yes
            } else {
                FactV1::No
            }
        }
        (None, None) => FactV1::Unknown,
    };
    if matches!(pre.mode, ModeV1::Sleep | ModeV1::Failed) {
        return (mode_fact, FactV1::NotApplicable);
    }
    let hashes = reading.hashrate.map(|rate| rate.get() > 0.0);
    let draws = measured(reading).map(|power| power > profile.evidence.stopped_below_w);
    let effect = match (hashes, draws) {
        (Some(false), _) | (_, Some(false)) => FactV1::No,
        (Some(true), _) => FactV1::Yes,
        (None, _) => FactV1::Unknown,
    };
    (mode_fact, effect)
}

/// What the device says of its mode: its configuration first, its state otherwise.
fn mode_seen(reading: &Reading, read_back: Option<&PreStateV1>) -> Option<ModeV1> {
    read_back.map(|state| state.mode).or(reading.mode)
}

/// Power as the device gives it, in watts.
fn measured(reading: &Reading) -> Option<f64> {
    let own = reading.power_source == Some(PowerSourceV1::Device);
    reading.power.filter(|_| own).map(Watts::get)
}

fn bound(profile: &Profile, baseline: Option<Watts>) -> f64 {
    baseline.map_or(0.0, |w| w.get() * 0.5).max(profile.evidence.stopped_below_w)
}

/// Whether a device is set as it was before; what a pre-state does not hold does not count.
fn as_before(found: &PreStateV1, pre: &PreStateV1) -> bool {
    let vendor = pre.vendor_mode.is_none_or(|mode| found.vendor_mode.is_none_or(|now| now == mode));
    let limit = match (pre.limit, found.limit) {
        (Some(before), Some(now)) => (before.get() - now.get()).abs() <= before.get() * LIMIT_TOLERANCE,
        _ => true,
    };
    let profile = match (&pre.profile, &found.profile) {
        (Some(before), Some(now)) => before.eq_ignore_ascii_case(now),
        _ => true,
    };
    found.mode == pre.mode && vendor && limit && profile
}
