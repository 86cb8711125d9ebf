//! Whatsminer with API 3: `set.` commands on a port of their own, each under a token made for it.
//!
//! Token = the first eight characters of base64(sha256(command + password + salt + time)), with the
//! salt and the time taken from the device just before, because it may restart and its clock may be
//! off. Pools travel as AES-256-ECB under the same hash. Code 0 is success.

use super::{Context, Status, mode_fact, reply_fact};
use crate::WriteOutcome;
use crate::change::{Change, PoolSetting, has_limit, judge_change};
use crate::control::WhatsminerV3;
use crate::device::DeviceError;
use crate::reading::Reading;
use crate::tcp;
use crate::whatsminer::encrypt;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};
use hashinsight_protocol::units::Watts;
use serde_json::{Value, json};

const MAX_POOLS: usize = 3;
const TOKEN_LENGTH: usize = 8;

pub(super) async fn stop(context: &Context<'_>, control: &WhatsminerV3) -> Result<WriteOutcome, DeviceError> {
    if context.look().await?.mode.is_some_and(ModeV1::is_asleep) {
        return Ok(WriteOutcome::needless("its miner is stopped already"));
    }
    service(context, &control.stop, true).await
}

pub(super) async fn wake(
    context: &Context<'_>,
    control: &WhatsminerV3,
    pre: &PreStateV1,
) -> Result<WriteOutcome, DeviceError> {
    let mut outcome = if context.look().await?.mode.is_some_and(|mode| !mode.is_asleep()) {
        WriteOutcome::needless("it runs already")
    } else {
        service(context, &control.wake, false).await?
    };
    let wanted = control.modes.iter().find(|known| Some(known.value) == pre.vendor_mode);
    if let Some(wanted) = wanted.filter(|_| outcome.mode == FactV1::Yes) {
        let is_set = |r: &Reading| r.vendor_mode == Some(wanted.value);
        let seen = context.look().await?;
        if seen.vendor_mode.is_some() && !is_set(&seen) {
            let (fact, words) = send(context, "set.miner.power_mode", Some(json!(wanted.command))).await?;
            let seen = context.look_until(is_set).await;
            outcome.add(
                fact,
                seen.as_ref().is_some_and(is_set),
                &format!("power mode {}: {words}", wanted.name),
            );
        }
    }
    if let Some(wanted) = pre.limit.filter(|_| outcome.mode == FactV1::Yes) {
        let is_set = |r: &Reading| r.limit.is_some_and(|limit| has_limit(limit, wanted));
        let seen = context.look().await?;
        if seen.limit.is_some() && !is_set(&seen) {
            let (fact, words) = send_limit(context, wanted).await?;
            let seen = context.look_until(is_set).await;
            outcome.add(fact, seen.as_ref().is_some_and(is_set), &format!("limit {wanted}: {words}"));
        }
    }
    outcome.detail = format!("{}, after {}", outcome.detail, context.elapsed());
    Ok(outcome)
}

pub(super) async fn change(context: &Context<'_>, change: &Change) -> Result<WriteOutcome, DeviceError> {
    let before = match change {
        Change::PowerLimit(_) => Some(context.look().await?),
        Change::Pools(pools) => {
            context.check_pools(pools, MAX_POOLS)?;
            Some(super::read(context).await?)
        }
        _ => None,
    };
    if before.is_some_and(|before| judge_change(change, &before, &before).0 == FactV1::Yes) {
        return Ok(WriteOutcome::needless("it is set so already"));
    }
    let (accepted, words) = match change {
        Change::Reboot => send(context, "set.system.reboot", None).await?,
        Change::Locate { on } => {
            let blink = json!([{"color": "red", "period": 200, "duration": 100, "start": 0}]);
            send(context, "set.system.led", Some(if *on { blink } else { json!("auto") })).await?
        }
        Change::Pools(pools) => send(context, "set.miner.pools", Some(pool_list(pools))).await?,
        Change::PowerLimit(watts) => send_limit(context, *watts).await?,
    };
    context.changed(change, accepted, &words).await
}

async fn service(context: &Context<'_>, word: &str, asleep: bool) -> Result<WriteOutcome, DeviceError> {
    let (accepted, words) = send(context, "set.miner.service", Some(json!(word))).await?;
    if accepted == FactV1::No {
        return Ok(WriteOutcome::refused(&format!("set.miner.service {word}"), &words));
    }
    let seen = context.look_until(|r| r.mode.is_some_and(|mode| mode.is_asleep() == asleep)).await;
    Ok(WriteOutcome {
        accepted,
        mode: mode_fact(seen.and_then(|r| r.mode), asleep),
        shape: Some(format!("set.miner.service {word}")),
        detail: format!("set.miner.service {word}: {words}, after {}", context.elapsed()),
    })
}

async fn send_limit(context: &Context<'_>, watts: Watts) -> Result<(FactV1, String), DeviceError> {
    // A limit is a whole number of watts.
    send(context, "set.miner.power_limit", Some(json!(watts.get().round() as i64))).await
}

fn pool_list(pools: &[PoolSetting]) -> Value {
    let entry = |pool: &PoolSetting| json!({"pool": pool.url, "worker": pool.worker, "passwd": pool.password.reveal()});
    pools.iter().map(entry).collect()
}

async fn send(
    context: &Context<'_>,
    command: &str,
    parameter: Option<Value>,
) -> Result<(FactV1, String), DeviceError> {
    let status = command_reply(context, command, parameter).await;
    if let Ok(status) = &status
        && status.fact() == FactV1::No
    {
        let address = context.api().to_port(context.device.v3_port).name();
        let words = status.words();
        let lower = words.to_ascii_lowercase();
        if ["token", "account", "password", "auth"].iter().any(|sign| lower.contains(sign)) {
            return Err(context.refused_login(address));
        }
        if lower.contains("permission") || lower.contains("denied") {
            let words = format!("{words} (the account must be allowed to write, and the API switched on)");
            return Err(DeviceError::WriteNotAllowed { address, words });
        }
    }
    reply_fact(status)
}

async fn command_reply(
    context: &Context<'_>,
    command: &str,
    parameter: Option<Value>,
) -> Result<Status, DeviceError> {
    let port = context.device.v3_port;
    let question = json!({"cmd": "get.device.info", "param": "salt"}).to_string();
    let reply = tcp::ask_v3(&context.api().to_port(port), question.as_bytes()).await?;
    let value = crate::recognise::reply_value(&reply).unwrap_or_default();
    let salt = value.get("msg").and_then(|msg| msg.get("salt")).and_then(Value::as_str);
    let Some(salt) = salt else {
        let address = context.api().to_port(port).name();
        return Err(DeviceError::Garbage { address, found: "no salt for a write".to_owned() });
    };
    let own = context.now.0.div_euclid(1000);
    let time = value.get("when").and_then(Value::as_i64).filter(|when| *when > 0).unwrap_or(own);
    let credentials = context.credentials();
    let (account, password) = credentials
        .as_ref()
        .map_or(("super", "super"), |known| (known.user.as_str(), known.password.reveal()));
    let (token, key) = token(command, password, salt, time);
    let mut body = json!({"cmd": command, "ts": time, "token": token, "account": account});
    if let Some(parameter) = parameter {
        body["param"] = match command {
            "set.miner.pools" => Value::from(encrypt(key, &parameter.to_string())),
            _ => parameter,
        };
    }
    let reply = tcp::ask_v3(&context.write_call(port), body.to_string().as_bytes()).await?;
    Ok(Status::of_v3(&reply))
}

/// The token of a command, and the key that its parameter is encrypted under.
fn token(command: &str, password: &str, salt: &str, time: i64) -> (String, [u8; 32]) {
    let digest =
        ring::digest::digest(&ring::digest::SHA256, format!("{command}{password}{salt}{time}").as_bytes());
    let mut key = [0; 32];
    key.copy_from_slice(digest.as_ref());
    let mut token = STANDARD.encode(key);
    token.truncate(TOKEN_LENGTH);
    (token, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_that_of_the_vendors_scheme() {
        // printf 'set.miner.servicesuperuhCiDyVj1773869570' | openssl dgst -sha256 -binary | base64
        let (token, key) = token("set.miner.service", "super", "uhCiDyVj", 1_773_869_570);
        assert_eq!(token, "wusyZCiM");
        assert_eq!(STANDARD.encode(key).get(..8), Some(token.as_str()));
    }
}
