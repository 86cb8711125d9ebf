//! Firmwares with one plain command to stop and one to wake (Braiins `pause` and `resume`,
//! Sealminer `ascset 0,suspend` and `restart`).

use super::{Context, Status, mode_fact, reply_fact, state_of};
use crate::WriteOutcome;
use crate::change::{Change, PoolSetting, has_limit, judge_change};
use crate::control::CgminerCommand;
use crate::device::DeviceError;
use crate::reading::Reading;
use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};
use hashinsight_protocol::units::Watts;
use serde_json::json;

const MAX_POOLS: usize = 3;

pub(super) async fn stop(
    context: &Context<'_>,
    control: &CgminerCommand,
) -> Result<WriteOutcome, DeviceError> {
    run(context, &control.stop, true).await
}

pub(super) async fn wake(
    context: &Context<'_>,
    control: &CgminerCommand,
    pre: &PreStateV1,
) -> Result<WriteOutcome, DeviceError> {
    let mut outcome = run(context, &control.wake, false).await?;
    if outcome.mode == FactV1::Yes
        && let Some((wanted, template)) = pre.limit.zip(control.limit.as_deref())
        && let Some(limit) = context.look().await.ok().and_then(|reading| reading.limit)
        && !has_limit(limit, wanted)
    {
        let (fact, words) = send(context, &limit_command(template, wanted)).await?;
        let done = |r: &Reading| r.limit.is_some_and(|limit| has_limit(limit, wanted));
        let seen = context.look_until(done).await;
        outcome.add(fact, seen.as_ref().is_some_and(done), &format!("limit {wanted}: {words}"));
    }
    Ok(outcome)
}

pub(super) async fn change(
    context: &Context<'_>,
    control: &CgminerCommand,
    change: &Change,
) -> Result<WriteOutcome, DeviceError> {
    let command = match (change, &control.reboot, &control.limit, &control.pools) {
        (Change::Reboot, Some(command), _, _) => command.clone(),
        (Change::PowerLimit(watts), _, Some(template), _) => limit_command(template, *watts),
        (Change::Pools(pools), _, _, Some(template)) => {
            context.check_pools(pools, MAX_POOLS)?;
            template.replace("{pools}", &pool_list(pools))
        }
        _ => return Err(context.unsupported(change.wish())),
    };
    if !matches!(change, Change::Reboot) {
        let before = super::read(context).await?;
        if judge_change(change, &before, &before).0 == FactV1::Yes {
            return Ok(WriteOutcome::needless("it is set so already"));
        }
    }
    let (accepted, words) = send(context, &command).await?;
    context.changed(change, accepted, &words).await
}

fn limit_command(template: &str, watts: Watts) -> String {
    template.replace("{watts}", &format!("{:.0}", watts.get()))
}

fn pool_list(pools: &[PoolSetting]) -> String {
    let entry =
        |pool: &PoolSetting| json!({"url": pool.url, "user": pool.worker, "pass": pool.password.reveal()});
    json!(pools.iter().map(entry).collect::<Vec<_>>()).to_string()
}

/// Sends a command with what stands behind its first blank as its parameter.
async fn send(context: &Context<'_>, command: &str) -> Result<(FactV1, String), DeviceError> {
    let (name, parameter) =
        command.split_once(' ').map_or((command, None), |(name, parameter)| (name, Some(parameter)));
    let call = context.write_call(context.device.api_port);
    reply_fact(context.command(&call, name, parameter).await.map(|reply| Status::of(&reply)))
}

async fn run(context: &Context<'_>, command: &str, asleep: bool) -> Result<WriteOutcome, DeviceError> {
    let mode = |reading: &Reading| state_of(context, reading).ok().map(|state| state.mode);
    let before = mode(&context.look().await?);
    if before.is_some_and(|mode| mode.is_asleep() == asleep && mode != ModeV1::Starting) {
        return Ok(WriteOutcome::needless(if asleep { "it is paused already" } else { "it runs already" }));
    }
    let (accepted, words) = send(context, command).await?;
    if accepted == FactV1::No {
        return Ok(WriteOutcome::refused(command, &words));
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
