//! Avalon: `ascset` with a time on the device's own clock.
//!
//! `softoff,1:<unix>` answers status I, not S, and older models know only the bare word. The time
//! is taken from the device's own `When`, because its clock may stand years off. Some models wake
//! by a restart alone. Pools (`setpool`) are under the web interface's sign-in and count from the
//! next boot on, so the device is rebooted for them.

use super::{Context, Status, mode_fact, reply_fact};
use crate::WriteOutcome;
use crate::change::{Change, PoolSetting, judge_change};
use crate::control::AvalonAscset;
use crate::device::DeviceError;
use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};

pub(super) async fn stop(context: &Context<'_>, control: &AvalonAscset) -> Result<WriteOutcome, DeviceError> {
    if context.look().await?.mode.is_some_and(ModeV1::is_asleep) {
        return Ok(WriteOutcome::needless("it is in standby already"));
    }
    ladder(context, control, &control.stop, true).await
}

pub(super) async fn wake(
    context: &Context<'_>,
    control: &AvalonAscset,
    pre: &PreStateV1,
) -> Result<WriteOutcome, DeviceError> {
    let before = context.look().await?;
    let mut outcome = if before.mode.is_some_and(|mode| !mode.is_asleep()) {
        WriteOutcome::needless("it runs already")
    } else {
        ladder(context, control, &control.wake, false).await?
    };
    let Some((wanted, option)) = pre.vendor_mode.zip(control.work_mode.as_deref()) else {
        return Ok(outcome);
    };
    let seen = context.look().await.ok().and_then(|r| r.vendor_mode);
    if outcome.mode == FactV1::Yes && seen.is_some_and(|seen| seen != wanted) {
        let parameter = option.replace("{mode}", &wanted.to_string());
        let (fact, words) = send(context, "ascset", &parameter).await?;
        let seen = context.look_until(|r| r.vendor_mode == Some(wanted)).await.and_then(|r| r.vendor_mode);
        outcome.add(fact, seen == Some(wanted), &format!("work mode {wanted}: {words}"));
    }
    Ok(outcome)
}

const MAX_POOLS: usize = 3;

pub(super) async fn change(
    context: &Context<'_>,
    control: &AvalonAscset,
    change: &Change,
) -> Result<WriteOutcome, DeviceError> {
    let (accepted, words) = match (change, &control.reboot, &control.locate, &control.set_pool) {
        (Change::Reboot, Some(option), _, _) => send(context, "ascset", option).await?,
        (Change::Locate { on }, _, Some(option), _) => {
            send(context, "ascset", &option.replace("{on}", if *on { "1" } else { "0" })).await?
        }
        (Change::Pools(pools), Some(reboot), _, Some(option)) => {
            return set_pools(context, change, pools, option, reboot).await;
        }
        _ => return Err(context.unsupported(change.wish())),
    };
    context.changed(change, accepted, &words).await
}

async fn set_pools(
    context: &Context<'_>,
    change: &Change,
    pools: &[PoolSetting],
    option: &str,
    reboot: &str,
) -> Result<WriteOutcome, DeviceError> {
    context.check_pools(pools, MAX_POOLS)?;
    let address = context.api().name();
    if pools.iter().any(|p| [&*p.url, &*p.worker, p.password.reveal()].iter().any(|text| text.contains(',')))
    {
        let words =
            "this firmware parts what it is told by commas, so none may be in an address, worker or password";
        return Err(DeviceError::BadPools { address, words: words.to_owned() });
    }
    let before = super::read(context).await?;
    if judge_change(change, &before, &before).0 == FactV1::Yes {
        return Ok(WriteOutcome::needless("it has these pools already"));
    }
    let credentials = context.credentials();
    let (user, password) =
        credentials.as_ref().map_or(("root", "root"), |known| (known.user.as_str(), known.password.reveal()));
    let mut said = Vec::new();
    for index in 0..MAX_POOLS {
        let pool = pools.get(index);
        let parameter = option
            .replace("{user}", user)
            .replace("{password}", password)
            .replace("{index}", &index.to_string())
            .replace("{url}", pool.map_or("", |pool| &pool.url))
            .replace("{worker}", pool.map_or("", |pool| &pool.worker))
            .replace("{pass}", pool.map_or("", |pool| pool.password.reveal()));
        let (fact, words) = send(context, "setpool", &parameter).await?;
        said.push(format!("pool {}: {words}", index + 1));
        // A place that stays empty may be refused.
        if fact == FactV1::No && pool.is_some() {
            return Ok(WriteOutcome::refused("setpool", &said.join("; ")));
        }
    }
    let (accepted, words) = send(context, "ascset", reboot).await?;
    // It boots for a minute; what it has then is seen by a later reading.
    let detail = format!("{}; reboot for them: {words}", said.join("; "));
    Ok(WriteOutcome { accepted, mode: FactV1::Unknown, shape: None, detail })
}

async fn send(
    context: &Context<'_>,
    command: &str,
    parameter: &str,
) -> Result<(FactV1, String), DeviceError> {
    let call = context.write_call(context.device.api_port);
    reply_fact(context.command(&call, command, Some(parameter)).await.map(|reply| Status::of(&reply)))
}

/// Tries the options in order until one shows in the device's own state.
async fn ladder(
    context: &Context<'_>,
    control: &AvalonAscset,
    options: &[String],
    asleep: bool,
) -> Result<WriteOutcome, DeviceError> {
    let mut tried = Vec::new();
    let mut accepted = FactV1::No;
    for option in options {
        let parameter = if option.contains("{at}") {
            option.replace("{at}", &(device_time(context).await? + control.lead_s).to_string())
        } else {
            option.clone()
        };
        let (fact, words) = send(context, "ascset", &parameter).await?;
        if fact != FactV1::No || accepted == FactV1::No {
            accepted = fact;
        }
        tried.push(format!("{parameter}: {words}"));
        if fact == FactV1::No {
            continue;
        }
        let seen = context.look_until(|r| r.mode.is_some_and(|mode| mode.is_asleep() == asleep)).await;
        let mode = mode_fact(seen.and_then(|r| r.mode), asleep);
        // Blind, or done; only a device that is seen to stay as it was gets the next option.
        if mode != FactV1::No {
            return Ok(WriteOutcome {
                accepted: fact,
                mode,
                shape: Some(option.clone()),
                detail: format!("{}, after {}", tried.join("; "), context.elapsed()),
            });
        }
    }
    Ok(WriteOutcome { accepted, mode: FactV1::No, shape: None, detail: tried.join("; ") })
}

/// Now, on the device's own clock.
async fn device_time(context: &Context<'_>) -> Result<i64, DeviceError> {
    let call = context.api();
    let reply = context.command(&call, "version", None).await?;
    let value = crate::recognise::reply_value(&reply).unwrap_or_default();
    let when = value.get("STATUS").and_then(|list| list.get(0)).and_then(|row| row.get("When"));
    let when = when.and_then(|when| when.as_i64().or_else(|| when.as_str()?.parse().ok()));
    when.ok_or_else(|| DeviceError::Garbage {
        address: call.name(),
        found: "a version reply without the device's time".to_owned(),
    })
}
