//! Talking to one device: who it is, what it reads, how it is stopped and woken.
//!
//! Every function runs to its own deadline, keeps no connection, and can be dropped at any await:
//! sockets close with the future. A reading call shares one deadline among its connections; a write
//! has its own for each exchange, because some devices answer one after 21 s.
//!
//! Rules for writes: the device is the one that was identified, or nothing is written; a device
//! that is already as wished is not written to; a lost reply is neither success nor failure; what
//! the reply says, what is read back and what the power does are three facts.

mod antminer;
mod avalon;
mod commands;
mod document;
mod fetch;
mod guard;
mod http_actions;
mod http_send;
mod http_ways;
mod identify;
mod luxos;
mod status;
mod watched;
mod whatsminer;
mod whatsminer_v3;

use crate::ask::Ask;
use crate::change::{Change, PoolSetting, judge_change};
use crate::control::ControlFile;
use crate::decode::read_as;
use crate::device::{Credentials, Device, DeviceError, Limits, Secret};
use crate::profile::Profile;
use crate::profiles::Profiles;
use crate::reading::Reading;
use crate::request::{Request, Transport};
use crate::tcp::{self, Call};
use crate::web::Login;
use crate::{Identified, WriteOutcome};
use fetch::fetch;
pub(crate) use fetch::read;
use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};
use hashinsight_protocol::units::Millis;
use identify::same_device;
pub(crate) use identify::{identify, identify_again};
pub(crate) use status::Status;
use status::{command_json, mode_fact, reply_fact};
use std::time::Duration;

/// Time between two looks at a mode that is being read back.
const LOOK_AGAIN: Duration = Duration::from_millis(1000);

/// All that a driver needs of one call.
pub(crate) struct Context<'a> {
    pub profiles: &'a Profiles,
    pub profile: &'a Profile,
    pub device: &'a Device,
    pub identified: &'a Identified,
    pub limits: &'a Limits,
    pub now: Millis,
    started: tokio::time::Instant,
}

impl<'a> Context<'a> {
    pub fn new(
        profiles: &'a Profiles,
        device: &'a Device,
        identified: &'a Identified,
        limits: &'a Limits,
        now: Millis,
    ) -> Result<Self, DeviceError> {
        let profile = profiles.get(&identified.firmware).ok_or_else(|| DeviceError::Unsupported {
            firmware: identified.firmware.clone(),
            wish: "read",
        })?;
        Ok(Self { profiles, profile, device, identified, limits, now, started: tcp::now() })
    }

    /// A call to the CGMiner API with a deadline of its own.
    pub fn api(&self) -> Call {
        Call::api(self.device, self.limits)
    }

    /// A call that may take as long as a write does.
    pub fn write_call(&self, port: u16) -> Call {
        let deadline = self.limits.deadline.max(self.profile.write_time());
        Call::api(self.device, &Limits { deadline, ..*self.limits }).to_port(port)
    }

    pub fn credentials(&self) -> Option<Credentials> {
        self.device.credentials.clone().or_else(|| default_credentials(self.profile))
    }

    pub fn login(&self) -> Option<Login> {
        login(self.profile, self.device)
    }

    pub fn password<'b>(&'b self, default: &'b str) -> &'b str {
        self.device.credentials.as_ref().map_or(default, |c| c.password.reveal())
    }

    /// Sends a command with an optional parameter and reads the reply.
    pub async fn command(
        &self,
        call: &Call,
        command: &str,
        parameter: Option<&str>,
    ) -> Result<Vec<u8>, DeviceError> {
        tcp::ask(call, command_json(command, parameter, &[]).as_bytes()).await
    }

    /// Reads and decodes the profile's state requests: the mode and what else a pre-state holds.
    pub async fn look(&self) -> Result<Reading, DeviceError> {
        self.look_at(&self.profile.state).await
    }

    /// Reads and decodes some requests; those of a reading where there are none.
    async fn look_at(&self, asks: &[Ask]) -> Result<Reading, DeviceError> {
        let asks = if asks.is_empty() { &self.profile.requests } else { asks };
        let fetched =
            fetch(self.profile, self.device, self.limits, asks, self.identified.joins, tcp::now()).await?;
        let reading = fetched.decode(self.profiles, self.profile).1;
        self.device.tell(&reading);
        Ok(reading)
    }

    /// As [`Context::look`], with all that an ordinary reading asks for.
    pub async fn look_widely(&self) -> Result<Reading, DeviceError> {
        let mut asks = self.profile.requests.clone();
        asks.extend(self.profile.state.iter().filter(|ask| !self.profile.requests.contains(ask)).cloned());
        let fetched =
            fetch(self.profile, self.device, self.limits, &asks, self.identified.joins, tcp::now()).await?;
        let reading = fetched.decode(self.profiles, self.profile).1;
        self.device.tell(&reading);
        Ok(reading)
    }

    /// Passes on what a reply says of the rate that was asked for something else: the device has answered a
    /// poll, and none is to be lost.
    pub fn overheard(&self, request: &Request, reply: &[u8]) {
        if self.device.heard.is_some() {
            self.device.tell(&read_as(self.profiles.models(), self.profile, [(request, reply)]).1);
        }
    }

    /// Looks at the device until `done` holds or the family's settling time is over. The last
    /// reading that could be had is returned, `None` when there was none.
    pub async fn look_until(&self, done: impl Fn(&Reading) -> bool) -> Option<Reading> {
        let until = tcp::now() + self.profile.settle_time();
        let mut last = None;
        loop {
            if let Ok(reading) = self.look().await {
                let ready = done(&reading);
                last = Some(reading);
                if ready {
                    return last;
                }
            }
            if tcp::now() >= until {
                return last;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The error of a device that does not take our sign-in; names the user, not the password.
    pub fn refused_login(&self, address: String) -> DeviceError {
        let login = self.login().map_or_else(|| "a request without a sign-in".to_owned(), |l| l.to_string());
        DeviceError::AuthRefused { address, login }
    }

    /// What is said of a wish that the firmware has no way to fulfil.
    pub fn unsupported(&self, wish: &'static str) -> DeviceError {
        DeviceError::Unsupported { firmware: self.profile.title.clone(), wish }
    }

    /// Model and version, under which a working write shape is remembered.
    pub fn kind(&self) -> (&str, &str) {
        let text = |field: &'a Option<String>| field.as_deref().unwrap_or_default();
        (text(&self.identified.model), text(&self.identified.version))
    }

    /// Checks pools before anything is sent of them.
    pub fn check_pools(&self, pools: &[PoolSetting], most: usize) -> Result<(), DeviceError> {
        let words = if pools.is_empty() {
            "at least one is needed, or the miner would stand still".to_owned()
        } else if pools.len() > most {
            format!("it takes at most {most}")
        } else if pools.iter().any(|pool| pool.url.trim().is_empty()) {
            "one has no address".to_owned()
        } else if pools.iter().any(|p| format!("{}{}", p.url, p.worker).contains(char::is_control)) {
            "an address or worker has a control character".to_owned()
        } else {
            return Ok(());
        };
        Err(DeviceError::BadPools { address: self.api().name(), words })
    }

    /// What came of a change that was sent: reads back until the setting is as wished or the
    /// settling time is over. A reboot is not waited for.
    pub async fn changed(
        &self,
        change: &Change,
        accepted: FactV1,
        words: &str,
    ) -> Result<WriteOutcome, DeviceError> {
        let detail = format!("{words}, after {}", self.elapsed());
        if accepted == FactV1::No {
            return Ok(WriteOutcome { accepted, mode: FactV1::No, shape: None, detail: words.to_owned() });
        }
        if matches!(change, Change::Reboot) {
            return Ok(WriteOutcome { accepted, mode: FactV1::NotApplicable, shape: None, detail });
        }
        let until = tcp::now() + self.profile.settle_time();
        let mut mode = FactV1::Unknown;
        loop {
            let seen = match change {
                Change::Locate { .. } => self.look_at(&self.profile.light).await,
                _ => fetch::read(self).await.inspect(|reading| self.device.tell(reading)),
            };
            if let Ok(reading) = seen {
                mode = judge_change(change, &reading, &reading).0;
                if mode == FactV1::Yes {
                    break;
                }
            }
            if tcp::now() >= until {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(WriteOutcome { accepted, mode, shape: None, detail })
    }

    /// Time since the call began, in words.
    pub fn elapsed(&self) -> String {
        format!("{:.1} s", tcp::now().duration_since(self.started).as_secs_f32())
    }
}

fn login(profile: &Profile, device: &Device) -> Option<Login> {
    let from_factory = device.credentials.is_none();
    let credentials = device.credentials.clone().or_else(|| default_credentials(profile))?;
    Some(Login { credentials, from_factory })
}

fn default_credentials(profile: &Profile) -> Option<Credentials> {
    let user = profile.user.clone()?;
    Some(Credentials { user, password: Secret::new(profile.password.clone().unwrap_or_default()) })
}

pub(crate) async fn pre_state(context: &Context<'_>) -> Result<PreStateV1, DeviceError> {
    if let Some(ControlFile::AntminerConf(conf)) = &context.profile.control {
        return antminer::pre_state(context, conf).await;
    }
    let reading = context.look().await?;
    state_of(context, &reading)
}

/// The pre-state that a reading holds.
pub(crate) fn state_of(context: &Context<'_>, reading: &Reading) -> Result<PreStateV1, DeviceError> {
    let mode = reading.mode.or_else(|| {
        // The profile vouches for it that the API has no word for the mode.
        let from_rate = context.profile.evidence.mode_from_rate;
        let rate = reading.hashrate.filter(|_| from_rate)?;
        Some(if rate.get() > 0.0 { ModeV1::Normal } else { ModeV1::Sleep })
    });
    let Some(mode) = mode else {
        let detail = reading.warnings.first().cloned().unwrap_or_else(|| "no reply carries it".to_owned());
        return Err(DeviceError::ModeUnknown { address: context.api().name(), detail });
    };
    Ok(PreStateV1 {
        mode,
        vendor_mode: reading.vendor_mode,
        limit: reading.limit,
        profile: reading.profile.clone(),
        config_hash: None,
    })
}

pub(crate) async fn stop(context: &Context<'_>, pre: &PreStateV1) -> Result<WriteOutcome, DeviceError> {
    let control = control_of(context, "stopped")?;
    same_device(context).await?;
    match control {
        ControlFile::AntminerConf(conf) => antminer::stop(context, conf, pre).await,
        ControlFile::WhatsminerV2(control) => whatsminer::stop(context, control).await,
        ControlFile::WhatsminerV3(control) => whatsminer_v3::stop(context, control).await,
        ControlFile::AvalonAscset(control) => avalon::stop(context, control).await,
        ControlFile::CgminerCommand(control) => commands::stop(context, control).await,
        ControlFile::LuxosCurtail(control) => luxos::stop(context, control).await,
        ControlFile::Http(control) => http_actions::stop(context, control).await,
    }
}

pub(crate) async fn wake(context: &Context<'_>, pre: &PreStateV1) -> Result<WriteOutcome, DeviceError> {
    let control = control_of(context, "woken")?;
    if matches!(pre.mode, ModeV1::Sleep | ModeV1::Failed) {
        return Ok(WriteOutcome::needless("it was not running before, so it is left as it is"));
    }
    same_device(context).await?;
    match control {
        ControlFile::AntminerConf(conf) => antminer::wake(context, conf, pre).await,
        ControlFile::WhatsminerV2(control) => whatsminer::wake(context, control, pre).await,
        ControlFile::WhatsminerV3(control) => whatsminer_v3::wake(context, control, pre).await,
        ControlFile::AvalonAscset(control) => avalon::wake(context, control, pre).await,
        ControlFile::CgminerCommand(control) => commands::wake(context, control, pre).await,
        ControlFile::LuxosCurtail(control) => luxos::wake(context, control, pre).await,
        ControlFile::Http(control) => http_actions::wake(context, control, pre).await,
    }
}

pub(crate) async fn change(context: &Context<'_>, change: &Change) -> Result<WriteOutcome, DeviceError> {
    let can = context.identified.capabilities;
    let able = match change {
        Change::Reboot => can.reboot,
        Change::Locate { .. } => can.locate,
        Change::Pools(_) => can.set_pools,
        Change::PowerLimit(_) => can.power_limit,
    };
    let control = context.profile.control.as_ref().filter(|_| able);
    let control = control.ok_or_else(|| context.unsupported(change.wish()))?;
    same_device(context).await?;
    let mut outcome = match control {
        ControlFile::AntminerConf(conf) => antminer::change(context, conf, change).await,
        ControlFile::WhatsminerV2(_) => whatsminer::change(context, change).await,
        ControlFile::WhatsminerV3(_) => whatsminer_v3::change(context, change).await,
        ControlFile::AvalonAscset(control) => avalon::change(context, control, change).await,
        ControlFile::CgminerCommand(control) => commands::change(context, control, change).await,
        ControlFile::LuxosCurtail(_) => luxos::change(context, change).await,
        ControlFile::Http(control) => http_actions::change(context, control, change).await,
    }?;
    outcome.detail = change.without_secrets(outcome.detail);
    Ok(outcome)
}

fn control_of<'a>(context: &Context<'a>, wish: &'static str) -> Result<&'a ControlFile, DeviceError> {
    context
        .profile
        .control
        .as_ref()
        .filter(|_| context.identified.capabilities.sleep)
        .ok_or_else(|| context.unsupported(wish))
}

/// The transports a profile's requests use, for those who check readiness.
pub(crate) fn needs_web(profile: &Profile) -> bool {
    let web = |ask: &Ask| matches!(ask.request.transport, Transport::Http | Transport::GraphQl);
    profile.requests.iter().chain(&profile.state).any(web)
        || matches!(profile.control, Some(ControlFile::AntminerConf(_)))
        || matches!(&profile.control, Some(ControlFile::Http(control)) if control.needs_web())
}
