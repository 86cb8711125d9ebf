//! Avalon: `ascset` with a time on the device's own clock.
//!
//! `softoff,1:<unix>` answers status I, not S, and older models know only the bare word. The time
//! is taken from the device's own `When`, because its clock may stand years off. Some models wake
//! by a restart alone.

use super::{Context, Status, mode_fact, reply_fact};
use crate::WriteOutcome;
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
        let call = context.write_call(context.device.api_port);
        let reply = context.command(&call, "ascset", Some(&parameter)).await.map(|reply| Status::of(&reply));
        let (fact, words) = reply_fact(reply)?;
        let seen = context.look_until(|r| r.vendor_mode == Some(wanted)).await.and_then(|r| r.vendor_mode);
        outcome.accepted = fact;
        outcome.mode = if seen == Some(wanted) { FactV1::Yes } else { FactV1::No };
        outcome.detail = format!("{}; work mode {wanted}: {words}", outcome.detail);
    }
    Ok(outcome)
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
        let call = context.write_call(context.device.api_port);
        let reply = context.command(&call, "ascset", Some(&parameter)).await.map(|reply| Status::of(&reply));
        let (fact, words) = reply_fact(reply)?;
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
