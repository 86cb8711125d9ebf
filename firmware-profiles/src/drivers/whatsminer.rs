//! Whatsminer with API 2: `power_off` and `power_on` under a token, proven by `status`.
//!
//! `power_off` often answers nothing and works (firmware 20230208), so a lost reply is unknown and
//! the status is read back in any case.

use super::{Context, mode_fact, reply_fact};
use crate::WriteOutcome;
use crate::control::WhatsminerV2;
use crate::device::DeviceError;
use crate::reading::Reading;
use crate::whatsminer;
use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};
use serde_json::json;

pub(super) async fn stop(context: &Context<'_>, control: &WhatsminerV2) -> Result<WriteOutcome, DeviceError> {
    if context.look().await?.mode.is_some_and(ModeV1::is_asleep) {
        return Ok(WriteOutcome::needless("it is switched off already"));
    }
    let reply = whatsminer::command(context, &control.stop, &[("respbefore", json!("true"))]).await;
    let (accepted, words) = reply_fact(reply)?;
    if accepted == FactV1::No {
        return Ok(refused(&control.stop, &words));
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
    let mut accepted = FactV1::NotApplicable;
    let mut detail = "it runs already".to_owned();
    if before.mode.is_some_and(ModeV1::is_asleep) {
        let (fact, words) = reply_fact(whatsminer::command(context, &control.wake, &[]).await)?;
        if fact == FactV1::No {
            return Ok(refused(&control.wake, &words));
        }
        accepted = fact;
        detail = format!("{}: {words}", control.wake);
    }
    let seen = context.look_until(|r| r.mode.is_some_and(|m| !m.is_asleep())).await;
    let mut mode = mode_fact(seen.as_ref().and_then(|r| r.mode), false);
    if mode == FactV1::Yes
        && let Some(wanted) = pre.profile.as_deref()
        && !has_profile(seen.as_ref(), wanted)
        && let Some(known) = control.modes.iter().find(|known| known.name.eq_ignore_ascii_case(wanted))
    {
        let (fact, words) = reply_fact(whatsminer::command(context, &known.command, &[]).await)?;
        let seen = context.look_until(|r| has_profile(Some(r), wanted)).await;
        mode = if has_profile(seen.as_ref(), wanted) { FactV1::Yes } else { FactV1::No };
        accepted = fact;
        detail = format!("{detail}; {}: {words}", known.command);
    }
    let shape = (accepted != FactV1::NotApplicable).then(|| control.wake.clone());
    Ok(WriteOutcome { accepted, mode, shape, detail: format!("{detail}, after {}", context.elapsed()) })
}

/// Whether the power mode is the wanted one; a device that says none is believed.
fn has_profile(reading: Option<&Reading>, wanted: &str) -> bool {
    reading.and_then(|r| r.profile.as_deref()).is_none_or(|profile| profile.eq_ignore_ascii_case(wanted))
}

fn refused(command: &str, words: &str) -> WriteOutcome {
    WriteOutcome {
        accepted: FactV1::No,
        mode: FactV1::No,
        shape: None,
        detail: format!("{command} was refused: {words}"),
    }
}
