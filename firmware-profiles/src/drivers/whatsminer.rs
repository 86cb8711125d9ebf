//! Whatsminer with API 2: `power_off`, `power_on` and other commands under a token, proven by
//! `status` and `summary`.
//!
//! `power_off` often answers nothing and works (firmware 20230208), so a lost reply is unknown and
//! the status is read back in any case.

use super::{Context, mode_fact, reply_fact};
use crate::WriteOutcome;
use crate::change::{Change, PoolSetting, has_limit, judge_change};
use crate::control::WhatsminerV2;
use crate::device::DeviceError;
use crate::reading::Reading;
use crate::whatsminer;
use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};
use hashinsight_protocol::units::Watts;
use serde_json::{Value, json};

/// The device has this many places for pools, and all must be named.
const POOLS: usize = 3;

pub(super) async fn stop(context: &Context<'_>, control: &WhatsminerV2) -> Result<WriteOutcome, DeviceError> {
    if context.look().await?.mode.is_some_and(ModeV1::is_asleep) {
        return Ok(WriteOutcome::needless("it is switched off already"));
    }
    let (accepted, words) = send(context, &control.stop, &[("respbefore", json!("true"))]).await?;
    if accepted == FactV1::No {
        return Ok(WriteOutcome::refused(&control.stop, &words));
    }
    let seen = context.look_until(|r| r.mode.is_some_and(ModeV1::is_asleep)).await;
    Ok(WriteOutcome {
        accepted,
        mode: mode_fact(seen.and_then(|r| r.mode), true),
        shape: Some(control.stop.clone()),
        detail: format!("{}: {words}, after {}", control.stop, context.elapsed()),
    })
}

pub(super) async fn wake(
    context: &Context<'_>,
    control: &WhatsminerV2,
    pre: &PreStateV1,
) -> Result<WriteOutcome, DeviceError> {
    let before = context.look().await?;
    let mut outcome = WriteOutcome::needless("it runs already");
    let mut seen = Some(before);
    if seen.as_ref().and_then(|r| r.mode).is_some_and(ModeV1::is_asleep) {
        let (accepted, words) = send(context, &control.wake, &[]).await?;
        if accepted == FactV1::No {
            return Ok(WriteOutcome::refused(&control.wake, &words));
        }
        seen = context.look_until(|r| r.mode.is_some_and(|m| !m.is_asleep())).await;
        let mode = mode_fact(seen.as_ref().and_then(|r| r.mode), false);
        let shape = Some(control.wake.clone());
        outcome = WriteOutcome { accepted, mode, shape, detail: format!("{}: {words}", control.wake) };
    }
    if outcome.mode == FactV1::Yes
        && let Some(wanted) = pre.profile.as_deref()
        && !has_profile(seen.as_ref(), wanted)
        && let Some(known) = control.modes.iter().find(|known| known.name.eq_ignore_ascii_case(wanted))
    {
        let (fact, words) = send(context, &known.command, &[]).await?;
        seen = context.look_until(|r| has_profile(Some(r), wanted)).await;
        outcome.add(fact, has_profile(seen.as_ref(), wanted), &format!("{}: {words}", known.command));
    }
    if outcome.mode == FactV1::Yes
        && let Some(wanted) = pre.limit
        && seen.as_ref().and_then(|r| r.limit).is_some_and(|limit| !has_limit(limit, wanted))
    {
        let (fact, words) = send_limit(context, wanted).await?;
        let done = |r: &Reading| r.limit.is_some_and(|limit| has_limit(limit, wanted));
        let seen = context.look_until(done).await;
        outcome.add(fact, seen.as_ref().is_some_and(done), &format!("limit {wanted}: {words}"));
    }
    outcome.detail = format!("{}, after {}", outcome.detail, context.elapsed());
    Ok(outcome)
}

pub(super) async fn change(context: &Context<'_>, change: &Change) -> Result<WriteOutcome, DeviceError> {
    let before = match change {
        Change::PowerLimit(_) => Some(context.look().await?),
        Change::Pools(pools) => {
            context.check_pools(pools, POOLS)?;
            Some(super::read(context).await?)
        }
        _ => None,
    };
    if before.is_some_and(|before| judge_change(change, &before, &before).0 == FactV1::Yes) {
        return Ok(WriteOutcome::needless("it is set so already"));
    }
    let (accepted, words) = match change {
        Change::Reboot => send(context, "reboot", &[("respbefore", json!("true"))]).await?,
        Change::Locate { on: true } => {
            let blink = [
                ("color", json!("red")),
                ("period", json!(200)),
                ("duration", json!(100)),
                ("start", json!(0)),
            ];
            send(context, "set_led", &blink).await?
        }
        Change::Locate { on: false } => send(context, "set_led", &[("param", json!("auto"))]).await?,
        Change::Pools(pools) => send_pools(context, pools).await?,
        Change::PowerLimit(watts) => send_limit(context, *watts).await?,
    };
    context.changed(change, accepted, &words).await
}

async fn send(
    context: &Context<'_>,
    command: &str,
    more: &[(&str, Value)],
) -> Result<(FactV1, String), DeviceError> {
    reply_fact(whatsminer::command(context, command, more).await)
}

async fn send_limit(context: &Context<'_>, watts: Watts) -> Result<(FactV1, String), DeviceError> {
    let watts = format!("{:.0}", watts.get());
    send(context, "adjust_power_limit", &[("power_limit", json!(watts))]).await
}

async fn send_pools(context: &Context<'_>, pools: &[PoolSetting]) -> Result<(FactV1, String), DeviceError> {
    const KEYS: [[&str; 3]; POOLS] =
        [["pool1", "worker1", "passwd1"], ["pool2", "worker2", "passwd2"], ["pool3", "worker3", "passwd3"]];
    let mut more = Vec::new();
    for (n, keys) in KEYS.into_iter().enumerate() {
        let pool = pools.get(n);
        let texts = [
            pool.map_or("", |pool| pool.url.as_str()),
            pool.map_or("", |pool| pool.worker.as_str()),
            pool.map_or("", |pool| pool.password.reveal()),
        ];
        more.extend(keys.into_iter().zip(texts.map(|text| json!(text))));
    }
    send(context, "update_pools", &more).await
}

/// Whether the power mode is the wanted one; a device that says none is believed.
fn has_profile(reading: Option<&Reading>, wanted: &str) -> bool {
    reading.and_then(|r| r.profile.as_deref()).is_none_or(|profile| profile.eq_ignore_ascii_case(wanted))
}
