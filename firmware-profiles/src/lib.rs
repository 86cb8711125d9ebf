//! What HashInsight knows of each miner firmware, and the drivers that talk to one device at a time.
//!
//! **Way of a reading**: [`read`] asks what the firmware's profile orders over as few connections as
//! it takes → [`decode`](decode::decode) runs the profile's compiled extractor over the replies in
//! one tolerant pass each → [`Reading`]. The decoder is pure, so captures replay without a network.
//!
//! **Profiles are data** (`profiles/*.toml`): how to recognise a firmware, which requests read what,
//! where each value lies and in which unit, how to stop and wake, what proves it. Code is only what
//! data cannot say: transports, the tolerant JSON reader, and the order of a family's write and
//! read-back ([`drivers`]).
//!
//! **Writes**: [`pre_state`] first, then [`stop`]; [`wake`] puts the pre-state back exactly. Each
//! returns what the reply said and what was read back; what the power did is judged from later
//! readings by [`judge_stopped`] and [`judge_running`].
//!
//! **Invariants**: a device has one connection at a time and none after a call, however it ends;
//! every call ends within its deadline and keeps at most `max_reply` bytes of a reply; no bytes from
//! a device make anything panic; what is unknown is absent, never zero, and "could not parse" is
//! never "stopped"; no pool password or credential is printed.

mod access;
mod ask;
mod capture;
mod change;
pub mod control;
pub mod decode;
mod device;
mod drivers;
pub mod extract;
mod faults;
mod http;
pub mod json;
mod judge;
mod listen;
mod mask;
mod md5crypt;
mod models;
pub mod profile;
mod profiles;
mod reading;
mod recognise;
pub mod replay;
pub mod request;
pub mod rules;
mod tcp;
mod template;
mod text;
mod web;
mod whatsminer;

pub use access::Access;
pub use capture::{Capture, CaptureError};
pub use change::{Change, PoolSetting, judge_change};
pub use decode::{Decoded, decode};
pub use device::{API_PORT, Credentials, Device, DeviceError, Heard, Limits, Secret, V3_PORT};
pub use judge::{judge_running, judge_stopped};
pub use listen::{Ear, Exchange};
pub use mask::mask;
pub use models::{Models, Nameplate};
pub use profile::{Evidence, Guards, ProfileError, Times};
pub use profiles::Profiles;
pub use reading::{Board, DeviceFault, Pool, Reading};
pub use request::{Request, Transport};

use drivers::Context;
use hashinsight_protocol::device::{CapabilitiesV1, FactV1, PreStateV1};
use hashinsight_protocol::units::{Millis, Watts};
use std::time::Duration;

/// Who a device is and what can be done with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Identified {
    /// The profile's name: "antminer-stock", "whatsminer-v2", "avalon", … or "cgminer" for any
    /// other device that speaks the API.
    pub firmware: String,
    pub model: Option<String>,
    pub version: Option<String>,
    pub serial: Option<String>,
    pub mac: Option<String>,
    pub capabilities: CapabilitiesV1,
    /// What the device draws when it is stopped.
    pub standby: Option<Watts>,
    /// What the model does at its ordinary setting.
    pub nameplate: Option<Nameplate>,
    /// Whether the device answers joined commands.
    pub joins: bool,
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteOutcome {
    /// The device's reply; unknown when there was none, not applicable when nothing was written.
    pub accepted: FactV1,
    /// The mode as it was read back.
    pub mode: FactV1,
    /// Which form of the write worked.
    pub shape: Option<String>,
    /// In words, without secrets.
    pub detail: String,
}

impl WriteOutcome {
    fn needless(detail: &str) -> Self {
        Self { accepted: FactV1::NotApplicable, mode: FactV1::Yes, shape: None, detail: detail.to_owned() }
    }

    fn refused(what: &str, words: &str) -> Self {
        let detail = format!("{what} was refused: {words}");
        Self { accepted: FactV1::No, mode: FactV1::No, shape: None, detail }
    }

    /// Adds a further write that belongs to the same wish.
    fn add(&mut self, accepted: FactV1, is_set: bool, detail: &str) {
        self.accepted = accepted;
        self.mode = if is_set { FactV1::Yes } else { FactV1::No };
        self.detail = format!("{}; {detail}", self.detail);
    }
}

/// Finds out what a device is.
pub async fn identify(
    profiles: &Profiles,
    device: &Device,
    limits: &Limits,
) -> Result<Identified, DeviceError> {
    Box::pin(drivers::identify(profiles, device, limits)).await
}

/// As [`identify`], of a device that was identified before: as long as it is the same firmware in the
/// same version, it is only asked who it is, and what is known of its API is taken over.
pub async fn identify_again(
    profiles: &Profiles,
    device: &Device,
    known: &Identified,
    limits: &Limits,
) -> Result<Identified, DeviceError> {
    Box::pin(drivers::identify_again(profiles, device, known, limits)).await
}

/// Takes one reading over as few connections as the family allows.
pub async fn read(
    profiles: &Profiles,
    device: &Device,
    identified: &Identified,
    limits: &Limits,
) -> Result<Reading, DeviceError> {
    drivers::read(&Context::new(profiles, device, identified, limits, Millis(0))?).await
}

/// The mode as the device's configuration says, with all that is needed to put it back.
pub async fn pre_state(
    profiles: &Profiles,
    device: &Device,
    identified: &Identified,
    limits: &Limits,
) -> Result<PreStateV1, DeviceError> {
    Box::pin(drivers::pre_state(&Context::new(profiles, device, identified, limits, Millis(0))?)).await
}

/// Whether a device would take a write from here with its credentials, found out without writing.
/// A firmware that cannot be controlled is not asked.
pub async fn check_access(
    profiles: &Profiles,
    device: &Device,
    identified: &Identified,
    limits: &Limits,
) -> Access {
    match Context::new(profiles, device, identified, limits, Millis(0)) {
        Ok(context) => Box::pin(access::check(&context)).await,
        Err(_) => Access::default(),
    }
}

/// Stops a device; one that is stopped is not written to. May take up to [`write_time`].
pub async fn stop(
    profiles: &Profiles,
    device: &Device,
    identified: &Identified,
    pre: &PreStateV1,
    limits: &Limits,
    now: Millis,
) -> Result<WriteOutcome, DeviceError> {
    Box::pin(drivers::stop(&Context::new(profiles, device, identified, limits, now)?, pre)).await
}

/// Puts a device back to its pre-state; one that did not run before is left alone. May take up to
/// [`write_time`].
pub async fn wake(
    profiles: &Profiles,
    device: &Device,
    identified: &Identified,
    pre: &PreStateV1,
    limits: &Limits,
    now: Millis,
) -> Result<WriteOutcome, DeviceError> {
    Box::pin(drivers::wake(&Context::new(profiles, device, identified, limits, now)?, pre)).await
}

/// Changes something else in a device. Nothing is put back by itself: a limit is undone by [`wake`]
/// with the pre-state that holds the former one, pools by another change. May take up to
/// [`write_time`].
///
/// # Errors
/// As [`stop`]; what the firmware cannot change is [`DeviceError::Unsupported`] and nothing is sent.
pub async fn change(
    profiles: &Profiles,
    device: &Device,
    identified: &Identified,
    change: &Change,
    limits: &Limits,
    now: Millis,
) -> Result<WriteOutcome, DeviceError> {
    Box::pin(drivers::change(&Context::new(profiles, device, identified, limits, now)?, change)).await
}

/// The longest that [`stop`] or [`wake`] of a firmware takes: every shape written and read back.
pub fn write_time(profiles: &Profiles, firmware: &str, limits: &Limits) -> Duration {
    let Some(profile) = profiles.get(firmware) else { return limits.deadline };
    let shapes = match &profile.control {
        Some(control::ControlFile::AntminerConf(conf)) => conf.shapes.len(),
        Some(control::ControlFile::AvalonAscset(avalon)) => avalon.stop.len().max(avalon.wake.len()) + 1,
        Some(control::ControlFile::Http(control)) => control.ways() + 2,
        Some(_) => 2,
        None => 0,
    };
    let exchange = profile.write_time().max(limits.deadline);
    let shapes = u32::try_from(shapes).unwrap_or(1);
    limits.deadline * 3 + (exchange * 2 + profile.settle_time() + limits.deadline * 2) * shapes
}

/// The times to expect of a firmware.
pub fn times(profiles: &Profiles, firmware: &str) -> Times {
    profiles.get(firmware).map(|profile| profile.times).unwrap_or_default()
}

/// Whether a firmware's web interface, with its credentials, is needed to read or write it.
pub fn needs_web(profiles: &Profiles, firmware: &str) -> bool {
    profiles.get(firmware).is_some_and(drivers::needs_web)
}
