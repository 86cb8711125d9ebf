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
mod luxos;
mod whatsminer;

use crate::ask::{Ask, Send};
use crate::change::Change;
use crate::control::ControlFile;
use crate::decode::{Identity, read_as, recognise, refusal};
use crate::device::{Credentials, Device, DeviceError, Limits, Secret};
use crate::http::{self, WebRequest};
use crate::profile::{Join, Profile};
use crate::profiles::Profiles;
use crate::reading::Reading;
use crate::request::{Request, Transport};
use crate::tcp::{self, Call};
use crate::{Identified, WriteOutcome};
use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};
use hashinsight_protocol::units::Millis;
use serde_json::{Value, json};
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
        let asks = if self.profile.state.is_empty() { &self.profile.requests } else { &self.profile.state };
        let fetched =
            fetch(self.profile, self.device, self.limits, asks, self.identified.joins, tcp::now()).await?;
        let reading = fetched.decode(self.profiles, self.profile).1;
        self.device.tell(&reading);
        Ok(reading)
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

    /// Time since the call began, in words.
    pub fn elapsed(&self) -> String {
        format!("{:.1} s", tcp::now().duration_since(self.started).as_secs_f32())
    }
}

fn default_credentials(profile: &Profile) -> Option<Credentials> {
    let user = profile.user.clone()?;
    Some(Credentials { user, password: Secret::new(profile.password.clone().unwrap_or_default()) })
}

/// One CGMiner API request in JSON. An empty parameter is left out: some firmwares refuse it.
fn command_json(command: &str, parameter: Option<&str>, extra: &[(String, Value)]) -> String {
    let mut body = json!({"command": command});
    if let Some(parameter) = parameter.filter(|p| !p.is_empty()) {
        body["parameter"] = parameter.into();
    }
    for (key, value) in extra {
        body[key.as_str()] = value.clone();
    }
    body.to_string()
}

/// What a device answered to a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Status {
    /// S, I, W, E or F.
    pub letter: Option<char>,
    pub code: Option<i64>,
    message: String,
}

impl Status {
    pub fn of(reply: &[u8]) -> Self {
        let Some(value) = crate::recognise::reply_value(reply) else {
            return Self::unclear("an empty reply");
        };
        // `"STATUS":[{…}]` of cgminer, or `"STATUS":"S"` beside the other members.
        let row = match value.get("STATUS") {
            Some(Value::Array(list)) => list.first(),
            Some(Value::Object(_)) => value.get("STATUS"),
            _ => Some(&value),
        };
        let text = |key: &str| match row.and_then(|row| row.get(key)) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        };
        Self {
            letter: text("STATUS").and_then(|s| s.chars().next()),
            code: text("Code").and_then(|c| c.parse().ok()),
            message: text("Msg").or_else(|| text("Description")).unwrap_or_default(),
        }
    }

    pub fn unclear(message: &str) -> Self {
        Self { letter: None, code: None, message: message.to_owned() }
    }

    /// Success is S, or I for what is done later (cgminer 111, Avalon 118); W is not done.
    pub fn is_accepted(&self) -> bool {
        matches!(self.letter, Some('S' | 'I')) && !self.message.to_ascii_lowercase().contains("fail")
    }

    pub fn fact(&self) -> FactV1 {
        match self.letter {
            None => FactV1::Unknown,
            Some(_) if self.is_accepted() => FactV1::Yes,
            Some(_) => FactV1::No,
        }
    }

    pub fn words(&self) -> String {
        match self.code {
            Some(code) => format!("code {code}, {}", self.message),
            None => self.message.clone(),
        }
    }
}

/// Replies of one device, and what went wrong on the way.
pub(crate) struct Fetched {
    pub replies: Vec<(Request, Vec<u8>)>,
    warnings: Vec<String>,
}

impl Fetched {
    fn decode(&self, profiles: &Profiles, profile: &Profile) -> (Identity, Reading) {
        let replies = borrowed(&self.replies);
        let (identity, mut reading) = read_as(profiles.models(), profile, &replies);
        reading.warnings.extend(self.warnings.iter().cloned());
        (identity, reading)
    }
}

fn borrowed(replies: &[(Request, Vec<u8>)]) -> Vec<(Request, &[u8])> {
    replies.iter().map(|(request, bytes)| (request.clone(), bytes.as_slice())).collect()
}

/// Asks a device for what a profile orders, over as few connections as it takes, one after the
/// other. The first failure is an error when nothing was read before it, else a warning.
async fn fetch(
    profile: &Profile,
    device: &Device,
    limits: &Limits,
    asks: &[Ask],
    joins: bool,
    started: tokio::time::Instant,
) -> Result<Fetched, DeviceError> {
    let mut fetched = Fetched { replies: Vec::new(), warnings: Vec::new() };
    let plan = if joins { join(asks) } else { asks.to_vec() };
    let credentials = device.credentials.clone().or_else(|| default_credentials(profile));
    for ask in plan {
        let mut call = Call::api(device, limits);
        call.started = started;
        call.until = started + limits.deadline;
        match send(&ask, &call, device, credentials.as_ref()).await {
            Ok(reply) => fetched.replies.push((ask.request, reply)),
            Err(error) if fetched.replies.is_empty() => return Err(error),
            // A page that is missing or refused says nothing about the others.
            Err(error @ (DeviceError::HttpStatus { .. } | DeviceError::AuthRefused { .. })) => {
                fetched.warnings.push(error.to_string());
            }
            Err(error) => {
                fetched.warnings.push(error.to_string());
                break;
            }
        }
    }
    Ok(fetched)
}

async fn send(
    ask: &Ask,
    call: &Call,
    device: &Device,
    credentials: Option<&Credentials>,
) -> Result<Vec<u8>, DeviceError> {
    match &ask.send {
        Send::Command { command, extra } => {
            tcp::ask(call, command_json(command, None, extra).as_bytes()).await
        }
        Send::Get { path } => {
            http::fetch(&call.to_port(device.web_port), &WebRequest::get(path, credentials)).await
        }
        Send::ApiGet { path } => http::fetch(call, &WebRequest::get(path, credentials)).await,
        Send::GraphQl { query } => {
            let body = json!({"query": query}).to_string();
            let request = WebRequest::post("/graphql", "application/json", body.as_bytes(), None);
            http::fetch(&call.to_port(device.web_port), &request).await
        }
        Send::V3 { command, parameter } => {
            let mut body = json!({"cmd": command});
            if let Some(parameter) = parameter {
                body["param"] = parameter.as_str().into();
            }
            tcp::ask_v3(&call.to_port(V3_PORT), body.to_string().as_bytes()).await
        }
    }
}

/// The port of Whatsminer's API 3.
const V3_PORT: u16 = 4433;

/// Plain commands become one joined request; the others stay as they are.
fn join(asks: &[Ask]) -> Vec<Ask> {
    let joinable = |ask: &Ask| match &ask.send {
        // Whatsminer's own commands are not joinable.
        Send::Command { command, extra } => {
            extra.is_empty() && !command.starts_with("get_") && command != "status"
        }
        _ => false,
    };
    let names: Vec<&str> =
        asks.iter().filter(|ask| joinable(ask)).map(|ask| ask.request.name.as_str()).collect();
    if names.len() < 2 {
        return asks.to_vec();
    }
    let mut plan = vec![Ask::command(&names.join("+"))];
    plan.extend(asks.iter().filter(|ask| !joinable(ask)).cloned());
    plan
}

/// Commands that tell firmwares apart, asked until one profile is sure.
const FIRST_QUESTIONS: [&str; 5] = ["version", "get_version", "stats", "summary", "devdetails"];

pub(crate) async fn identify(
    profiles: &Profiles,
    device: &Device,
    limits: &Limits,
) -> Result<Identified, DeviceError> {
    let started = tcp::now();
    let mut replies: Vec<(Request, Vec<u8>)> = Vec::new();
    let mut profile: Option<&Profile> = None;
    for command in FIRST_QUESTIONS {
        let mut call = Call::api(device, limits);
        call.started = started;
        call.until = started + limits.deadline;
        match tcp::ask(&call, command_json(command, None, &[]).as_bytes()).await {
            Ok(reply) => replies.push((Request::cgminer(command), reply)),
            Err(error) if replies.is_empty() => {
                return identify_elsewhere(profiles, device, limits, started, error).await;
            }
            Err(_) => break,
        }
        profile = recognise(profiles, &borrowed(&replies));
        if profile.is_some_and(|p| !p.clauses_are_generic()) {
            break;
        }
    }
    let Some(profile) = profile else {
        let address = Call::api(device, limits).name();
        return Err(DeviceError::Garbage { address, found: "JSON of no miner API".to_owned() });
    };
    Ok(complete(profiles, profile, device, limits, started, replies).await)
}

/// Asks for what tells a device of a known firmware from its fellows.
async fn complete(
    profiles: &Profiles,
    profile: &Profile,
    device: &Device,
    limits: &Limits,
    started: tokio::time::Instant,
    mut replies: Vec<(Request, Vec<u8>)>,
) -> Identified {
    if let Ok(more) = fetch(profile, device, limits, &profile.identify, false, started).await {
        replies.extend(more.replies);
    }
    let (identity, reading) = read_as(profiles.models(), profile, &borrowed(&replies));
    device.tell(&reading);
    let mut identified = identity.into_identified(profile, profiles.models());
    identified.joins = match profile.join {
        Join::No => false,
        Join::Yes => true,
        Join::Probe => joins(profiles, profile, device, limits, started).await,
    };
    identified
}

/// Tries the other doors of a device whose CGMiner API does not answer: ePIC's HTTP on the same
/// port, web servers, Whatsminer's API 3. What the CGMiner API said stands when none opens.
async fn identify_elsewhere(
    profiles: &Profiles,
    device: &Device,
    limits: &Limits,
    started: tokio::time::Instant,
    first: DeviceError,
) -> Result<Identified, DeviceError> {
    if !matches!(first, DeviceError::Refused { .. } | DeviceError::HttpInstead { .. }) {
        return Err(first);
    }
    for profile in profiles.all() {
        for ask in &profile.probe {
            // A port that answers nothing has been tried once and is not tried by each profile.
            let on_api_port = matches!(ask.send, Send::ApiGet { .. });
            if on_api_port != matches!(first, DeviceError::HttpInstead { .. }) {
                continue;
            }
            let mut call = Call::api(device, limits);
            call.started = started;
            call.until = started + limits.deadline;
            let credentials = device.credentials.clone().or_else(|| default_credentials(profile));
            let Ok(reply) = send(ask, &call, device, credentials.as_ref()).await else { continue };
            let replies = vec![(ask.request.clone(), reply)];
            if let Some(found) = recognise(profiles, &borrowed(&replies)).filter(|p| !p.clauses_are_generic())
            {
                return Ok(complete(profiles, found, device, limits, started, replies).await);
            }
        }
    }
    Err(first)
}

/// Whether a device answers the joined form of its own reading requests.
async fn joins(
    profiles: &Profiles,
    profile: &Profile,
    device: &Device,
    limits: &Limits,
    started: tokio::time::Instant,
) -> bool {
    let plan = join(&profile.requests);
    let Some(ask) = plan.first().filter(|ask| ask.request.is_joined()) else { return false };
    let mut call = Call::api(device, limits);
    call.until = started + limits.deadline;
    let Ok(reply) = send(ask, &call, device, None).await else { return false };
    device.tell(&read_as(profiles.models(), profile, &[(ask.request.clone(), reply.as_slice())]).1);
    let answered = crate::recognise::reply_value(&reply);
    ask.request.name.split('+').all(|name| answered.as_ref().is_some_and(|value| value.get(name).is_some()))
}

pub(crate) async fn read(context: &Context<'_>) -> Result<Reading, DeviceError> {
    let Context { profiles, profile, device, limits, identified, .. } = *context;
    let started = tcp::now();
    let mut fetched = fetch(profile, device, limits, &profile.requests, identified.joins, started).await?;
    let (_, mut reading) = fetched.decode(profiles, profile);
    if reading.hashrate.is_none() && !profile.without_hashrate.is_empty() {
        let more = fetch(profile, device, limits, &profile.without_hashrate, false, started).await;
        if let Ok(more) = more {
            fetched.replies.extend(more.replies);
            fetched.warnings.extend(more.warnings);
            reading = fetched.decode(profiles, profile).1;
        }
    }
    // All was refused: that is no reading.
    if fetched.replies.iter().all(|(_, reply)| refusal(reply).is_some()) {
        return Err(DeviceError::Rejected {
            address: context.api().name(),
            request: fetched.replies.iter().map(|(r, _)| r.name.as_str()).collect::<Vec<_>>().join(", "),
            words: fetched.replies.iter().find_map(|(_, reply)| refusal(reply)).unwrap_or_default(),
        });
    }
    // What the device said when it was identified is the fuller name.
    if identified.model.is_some() {
        reading.model.clone_from(&identified.model);
    }
    Ok(reading)
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

/// Checks that the device is the one that was identified.
async fn same_device(context: &Context<'_>) -> Result<(), DeviceError> {
    let asks = &context.profile.identify;
    if asks.is_empty() {
        return Ok(());
    }
    let fetched = fetch(context.profile, context.device, context.limits, asks, false, tcp::now()).await?;
    let replies = borrowed(&fetched.replies);
    let changed = |expected: &str, found: &str| DeviceError::Changed {
        address: context.api().name(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    if let Some(profile) = recognise(context.profiles, &replies)
        && !profile.clauses_are_generic()
        && profile.firmware != context.profile.firmware
    {
        return Err(changed(&context.profile.firmware, &profile.firmware));
    }
    let (identity, _) = read_as(context.profiles.models(), context.profile, &replies);
    let pairs = [(&context.identified.mac, &identity.mac), (&context.identified.serial, &identity.serial)];
    for (expected, found) in pairs {
        if let (Some(expected), Some(found)) = (expected, found)
            && !expected.eq_ignore_ascii_case(found)
        {
            return Err(changed(expected, found));
        }
    }
    Ok(())
}

pub(crate) async fn stop(context: &Context<'_>, pre: &PreStateV1) -> Result<WriteOutcome, DeviceError> {
    let control = control_of(context, "stopped")?;
    same_device(context).await?;
    match control {
        ControlFile::AntminerConf(conf) => antminer::stop(context, conf, pre).await,
        ControlFile::WhatsminerV2(control) => whatsminer::stop(context, control).await,
        ControlFile::AvalonAscset(control) => avalon::stop(context, control).await,
        ControlFile::CgminerCommand(control) => commands::stop(context, control).await,
        ControlFile::LuxosCurtail(control) => luxos::stop(context, control).await,
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
        ControlFile::AvalonAscset(control) => avalon::wake(context, control, pre).await,
        ControlFile::CgminerCommand(control) => commands::wake(context, control).await,
        ControlFile::LuxosCurtail(control) => luxos::wake(context, control, pre).await,
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
    let unsupported =
        || DeviceError::Unsupported { firmware: context.profile.title.clone(), wish: change.wish() };
    let _control = context.profile.control.as_ref().filter(|_| able).ok_or_else(unsupported)?;
    same_device(context).await?;
    Err(unsupported())
}

fn control_of<'a>(context: &Context<'a>, wish: &'static str) -> Result<&'a ControlFile, DeviceError> {
    context
        .profile
        .control
        .as_ref()
        .filter(|_| context.identified.capabilities.sleep)
        .ok_or_else(|| DeviceError::Unsupported { firmware: context.profile.title.clone(), wish })
}

/// Puts the reply to a write into an outcome; a missing one is unknown, a refusal to sign in is an
/// error.
fn reply_fact(reply: Result<Status, DeviceError>) -> Result<(FactV1, String), DeviceError> {
    match reply {
        Ok(status) => Ok((status.fact(), status.words())),
        Err(error) if error.is_lost_reply() => Ok((FactV1::Unknown, error.to_string())),
        Err(error) => Err(error),
    }
}

/// Whether a device's own word on its mode is what was wished.
fn mode_fact(seen: Option<ModeV1>, asleep: bool) -> FactV1 {
    match seen {
        None => FactV1::Unknown,
        Some(mode) if mode.is_asleep() == asleep => FactV1::Yes,
        Some(_) => FactV1::No,
    }
}

/// The transports a profile's requests use, for those who check readiness.
pub(crate) fn needs_web(profile: &Profile) -> bool {
    let web = |ask: &Ask| matches!(ask.request.transport, Transport::Http | Transport::GraphQl);
    profile.requests.iter().chain(&profile.state).any(web)
        || matches!(profile.control, Some(ControlFile::AntminerConf(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_s_or_i() {
        let check = |reply: &str, fact| assert_eq!(Status::of(reply.as_bytes()).fact(), fact, "{reply}");
        check(r#"{"STATUS":[{"STATUS":"S","Code":119,"Msg":"ASC 0 set OK"}]}"#, FactV1::Yes);
        check(r#"{"STATUS":[{"STATUS":"I","Code":118,"Msg":"success softoff:1"}]}"#, FactV1::Yes);
        check(r#"{"STATUS":"S","Code":131,"Msg":"API command OK"}"#, FactV1::Yes);
        check(r#"{"STATUS":[{"STATUS":"W","Code":117,"Msg":"not supported"}]}"#, FactV1::No);
        check(r#"{"STATUS":[{"STATUS":"E","Code":14,"Msg":"Invalid command"}]}"#, FactV1::No);
        check("STATUS=S,When=1,Code=119,Msg=ASC 0 set OK,Description=x|", FactV1::Yes);
        check("{}", FactV1::Unknown);
    }

    #[test]
    fn an_empty_parameter_is_left_out() {
        assert_eq!(command_json("a", Some(""), &[]), r#"{"command":"a"}"#);
        assert_eq!(command_json("a", Some("b"), &[]), r#"{"command":"a","parameter":"b"}"#);
    }
}
