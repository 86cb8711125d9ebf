//! Asking a device for what a profile orders, over as few connections as it takes.

use super::{Context, login};
use crate::ask::{Ask, Send};
use crate::decode::{Identity, read_as, refusal};
use crate::device::{Device, DeviceError, Limits};
use crate::http::WebRequest;
use crate::profile::Profile;
use crate::profiles::Profiles;
use crate::reading::Reading;
use crate::request::Request;
use crate::tcp::{self, Call};
use serde_json::json;

/// Replies of one device, and what went wrong on the way.
pub(crate) struct Fetched {
    pub replies: Vec<(Request, Vec<u8>)>,
    pub warnings: Vec<String>,
}

impl Fetched {
    pub fn decode(&self, profiles: &Profiles, profile: &Profile) -> (Identity, Reading) {
        let (identity, mut reading) = read_as(profiles.models(), profile, each(&self.replies));
        reading.warnings.extend(self.warnings.iter().cloned());
        (identity, reading)
    }

    /// Whether something was answered, alone or joined with others.
    fn has(&self, ask: &Ask) -> bool {
        self.replies.iter().any(|(request, _)| request.name.split('+').any(|name| name == ask.request.name))
    }
}

pub(super) fn each(replies: &[(Request, Vec<u8>)]) -> impl Iterator<Item = (&Request, &[u8])> {
    replies.iter().map(|(request, bytes)| (request, bytes.as_slice()))
}

pub(super) fn borrowed(replies: &[(Request, Vec<u8>)]) -> Vec<(Request, &[u8])> {
    replies.iter().map(|(request, bytes)| (request.clone(), bytes.as_slice())).collect()
}

/// Asks a device for what a profile orders, over as few connections as it takes, one after the
/// other. The first failure is an error when nothing was read before it, else a warning.
pub(super) async fn fetch(
    profile: &Profile,
    device: &Device,
    limits: &Limits,
    asks: &[Ask],
    joins: bool,
    started: tokio::time::Instant,
) -> Result<Fetched, DeviceError> {
    let joined = if joins { Ask::join(asks.iter()) } else { Vec::new() };
    let asks = if joins { &joined } else { asks };
    let mut fetched = Fetched { replies: Vec::with_capacity(asks.len()), warnings: Vec::new() };
    for ask in asks {
        let mut call = Call::api(device, limits);
        call.started = started;
        call.until = started + limits.deadline;
        match send(ask, &call, device, profile).await {
            Ok(reply) => fetched.replies.push((ask.request.clone(), reply)),
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

pub(super) async fn send(
    ask: &Ask,
    call: &Call,
    device: &Device,
    profile: &Profile,
) -> Result<Vec<u8>, DeviceError> {
    let web = &profile.web;
    let login = || login(profile, device);
    let on_web = call.to_port(web.port(device));
    match &ask.send {
        Send::Command { bytes, .. } => tcp::ask(call, bytes).await,
        Send::Get { path } => web.fetch(&on_web, login().as_ref(), &WebRequest::get(path, None)).await,
        Send::ApiGet { path } => web.fetch(call, login().as_ref(), &WebRequest::get(path, None)).await,
        Send::Post { path, body } => {
            let request = WebRequest::post(path, "application/json", body.as_bytes(), None);
            web.fetch(&on_web, login().as_ref(), &request).await
        }
        Send::GraphQl { path, query } => {
            let body = json!({"query": query}).to_string();
            let request = WebRequest::post(path, "application/json", body.as_bytes(), None);
            web.fetch(&on_web, login().as_ref(), &request).await
        }
        Send::V3 { command, parameter } => {
            let mut body = json!({"cmd": command});
            if let Some(parameter) = parameter {
                body["param"] = parameter.as_str().into();
            }
            tcp::ask_v3(&call.to_port(device.v3_port), body.to_string().as_bytes()).await
        }
    }
}

pub(crate) async fn read(context: &Context<'_>) -> Result<Reading, DeviceError> {
    let Context { profiles, profile, device, limits, identified, .. } = *context;
    let started = tcp::now();
    let asks = if identified.joins { &profile.joined } else { &profile.requests };
    let mut fetched = fetch(profile, device, limits, asks, false, started).await?;
    // Replies that came together are decoded one after the other, before the next devices are asked: a
    // processor that alternates between the network and the decoder has neither at hand.
    tokio::task::yield_now().await;
    let (_, mut reading) = fetched.decode(profiles, profile);
    if reading.hashrate.is_none() && !profile.without_hashrate.iter().all(|ask| fetched.has(ask)) {
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
