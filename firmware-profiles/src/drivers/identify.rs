//! Who a device is: recognised by its replies, told from its fellows by serial and MAC, and looked
//! at again before every write.

use super::Context;
use super::fetch::{borrowed, each, fetch, send};
use super::status::command_json;
use crate::Identified;
use crate::ask::{Ask, Send};
use crate::decode::{read_as, recognise};
use crate::device::{Device, DeviceError, Limits};
use crate::profile::{Join, Profile};
use crate::profiles::{Profiles, Seen};
use crate::recognise::Parsed;
use crate::request::Request;
use crate::tcp::{self, Call};
use std::net::SocketAddr;
use std::time::Duration;

/// Commands that tell firmwares apart, asked until one profile is sure.
const FIRST_QUESTIONS: [&str; 6] = ["version", "get_version", "stats", "summary", "devdetails", "devs"];

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

/// How long a device that said who it is counts as the one at its address.
const SEEN_LATELY: Duration = Duration::from_secs(3);

fn address(device: &Device) -> SocketAddr {
    SocketAddr::new(device.ip, device.api_port)
}

fn saw(profiles: &Profiles, device: &Device, firmware: &str, mac: &Option<String>, serial: &Option<String>) {
    let who = Seen { firmware: firmware.to_owned(), mac: mac.clone(), serial: serial.clone() };
    profiles.saw(address(device), tcp::now(), who);
}

pub(crate) async fn identify_again(
    profiles: &Profiles,
    device: &Device,
    known: &Identified,
    limits: &Limits,
) -> Result<Identified, DeviceError> {
    let profile = profiles.get(&known.firmware).filter(|profile| !profile.identify.is_empty());
    let Some(profile) = profile.filter(|profile| !profile.clauses_are_generic()) else {
        return identify(profiles, device, limits).await;
    };
    let fetched = fetch(profile, device, limits, &profile.identify, false, tcp::now()).await;
    // A device that is gone is gone; one that answers otherwise is asked from the beginning.
    let fetched = match fetched {
        Ok(fetched) => fetched.replies,
        Err(error) if error.is_unreached() || matches!(error, DeviceError::Silent { .. }) => {
            return Err(error);
        }
        Err(_) => return identify(profiles, device, limits).await,
    };
    let (identity, reading) = read_as(profiles.models(), profile, each(&fetched));
    let same = recognise(profiles, &borrowed(&fetched)).is_some_and(|found| found.firmware == known.firmware);
    let differs = |now: &Option<String>, before: &Option<String>| now.is_some() && now != before;
    if !same || differs(&identity.version, &known.version) || differs(&identity.model, &known.model) {
        return identify(profiles, device, limits).await;
    }
    device.tell(&reading);
    saw(profiles, device, &profile.firmware, &identity.mac, &identity.serial);
    let mut identified = identity.into_identified(profile, profiles.models());
    identified.joins = known.joins;
    // The model and version may have come with other replies.
    if identified.model.is_none() {
        identified.model.clone_from(&known.model);
        identified.nameplate.clone_from(&known.nameplate);
    }
    identified.version = identified.version.or_else(|| known.version.clone());
    Ok(identified)
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
    // What has been answered already is not asked again.
    let is_new = |ask: &&Ask| replies.iter().all(|(request, _)| *request != ask.request);
    let asks: Vec<Ask> = profile.identify.iter().filter(is_new).cloned().collect();
    if let Ok(more) = fetch(profile, device, limits, &asks, false, started).await {
        replies.extend(more.replies);
    }
    let (identity, reading) = read_as(profiles.models(), profile, each(&replies));
    device.tell(&reading);
    saw(profiles, device, &profile.firmware, &identity.mac, &identity.serial);
    let mut identified = identity.into_identified(profile, profiles.models());
    identified.capabilities = profile.capabilities_of(&Parsed::new(&borrowed(&replies)));
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
    // A port that is closed without a byte may be a firewall's, or a hung API beside a web server.
    let elsewhere = matches!(
        first,
        DeviceError::Refused { .. } | DeviceError::HttpInstead { .. } | DeviceError::Empty { .. }
    );
    if !elsewhere {
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
            let Ok(reply) = send(ask, &call, device, profile).await else { continue };
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
    let Some(ask) = profile.joined.first().filter(|ask| ask.request.is_joined()) else { return false };
    let mut call = Call::api(device, limits);
    call.until = started + limits.deadline;
    let Ok(reply) = send(ask, &call, device, profile).await else { return false };
    device.tell(&read_as(profiles.models(), profile, [(&ask.request, reply.as_slice())]).1);
    let answered = crate::recognise::reply_value(&reply);
    ask.request.name.split('+').all(|name| answered.as_ref().is_some_and(|value| value.get(name).is_some()))
}

/// Checks that the device is the one that was identified. One that has said so within the last
/// seconds is not asked again.
pub(super) async fn same_device(context: &Context<'_>) -> Result<(), DeviceError> {
    let asks = &context.profile.identify;
    let Identified { firmware, mac, serial, .. } = context.identified;
    let expected = Seen { firmware: firmware.clone(), mac: mac.clone(), serial: serial.clone() };
    let lately = context
        .profiles
        .last_seen(address(context.device))
        .is_some_and(|(at, who)| who == expected && tcp::now().duration_since(at) < SEEN_LATELY);
    if asks.is_empty() || lately {
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
    let (identity, reading) = read_as(context.profiles.models(), context.profile, each(&fetched.replies));
    let pairs = [(&context.identified.mac, &identity.mac), (&context.identified.serial, &identity.serial)];
    for (expected, found) in pairs {
        if let (Some(expected), Some(found)) = (expected, found)
            && !expected.eq_ignore_ascii_case(found)
        {
            return Err(changed(expected, found));
        }
    }
    context.device.tell(&reading);
    saw(context.profiles, context.device, firmware, mac, serial);
    Ok(())
}
