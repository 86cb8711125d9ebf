//! Firmwares with one plain command to stop and one to wake (Braiins `pause` and `resume`).

use super::{Context, Status, mode_fact, reply_fact, state_of};
use crate::WriteOutcome;
use crate::control::CgminerCommand;
use crate::device::DeviceError;
use hashinsight_protocol::device::{FactV1, ModeV1};

pub(super) async fn stop(
    context: &Context<'_>,
    control: &CgminerCommand,
) -> Result<WriteOutcome, DeviceError> {
    run(context, &control.stop, true).await
}

pub(super) async fn wake(
    context: &Context<'_>,
    control: &CgminerCommand,
) -> Result<WriteOutcome, DeviceError> {
    run(context, &control.wake, false).await
}

async fn run(context: &Context<'_>, command: &str, asleep: bool) -> Result<WriteOutcome, DeviceError> {
    let mode = |reading: &crate::Reading| state_of(context, reading).ok().map(|state| state.mode);
    let before = mode(&context.look().await?);
    if before.is_some_and(|mode| mode.is_asleep() == asleep && mode != ModeV1::Starting) {
        return Ok(WriteOutcome::needless(if asleep { "it is paused already" } else { "it runs already" }));
    }
    let call = context.write_call(context.device.api_port);
    let reply = context.command(&call, command, None).await.map(|reply| Status::of(&reply));
    let (accepted, words) = reply_fact(reply)?;
    if accepted == FactV1::No {
        return Ok(WriteOutcome {
            accepted,
            mode: FactV1::No,
            shape: None,
            detail: format!("{command} was refused: {words}"),
        });
    }
    let seen = context.look_until(|r| mode(r).is_some_and(|m| m.is_asleep() == asleep)).await;
    let seen = seen.as_ref().and_then(mode);
    // Where the mode shows only as a rate, a device that is still on its way up is not one that
    // refused.
    let mode = if !asleep && context.profile.evidence.mode_from_rate && seen.is_some_and(ModeV1::is_asleep) {
        FactV1::Unknown
    } else {
        mode_fact(seen, asleep)
    };
    Ok(WriteOutcome {
        accepted,
        mode,
        shape: Some(command.to_owned()),
        detail: format!("{command}: {words}, after {}", context.elapsed()),
    })
}
