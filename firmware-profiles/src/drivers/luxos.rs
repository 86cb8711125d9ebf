//! LuxOS: `curtail` and other writes inside a session.
//!
//! A device has one session at a time (code 402 refuses a second), so it is given back whatever
//! happens: after success, failure, and when the call is dropped half-way.
//!
//! A power limit is the profile that draws most within it, because a profile can be read back and
//! put back; LuxOS has no other limit that a reading shows.

use super::{Context, Status, mode_fact, reply_fact};
use crate::WriteOutcome;
use crate::change::{Change, PoolSetting, judge_change};
use crate::control::LuxosCurtail;
use crate::device::DeviceError;
use crate::reading::Reading;
use crate::tcp::{self, Call};
use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};
use hashinsight_protocol::units::Watts;
use serde_json::Value;
use std::time::Duration;

/// The longest that giving a session back may take.
const LOGOFF_TIME: Duration = Duration::from_secs(5);
const SESSION_TAKEN: i64 = 402;
const MAX_POOLS: usize = 3;

pub(super) async fn stop(context: &Context<'_>, control: &LuxosCurtail) -> Result<WriteOutcome, DeviceError> {
    if context.look().await?.mode.is_some_and(ModeV1::is_asleep) {
        return Ok(WriteOutcome::needless("it sleeps already"));
    }
    curtail(context, &control.stop, true).await
}

pub(super) async fn wake(
    context: &Context<'_>,
    control: &LuxosCurtail,
    pre: &PreStateV1,
) -> Result<WriteOutcome, DeviceError> {
    let before = context.look().await?;
    let (mut outcome, seen) = if before.mode.is_some_and(|mode| !mode.is_asleep()) {
        (WriteOutcome::needless("it runs already"), Some(before))
    } else {
        let outcome = curtail(context, &control.wake, false).await?;
        (outcome, context.look().await.ok())
    };
    // The profile outlives a sleep, and a limit is nothing but another profile.
    if outcome.mode == FactV1::Yes
        && let Some(wanted) = pre.profile.as_deref()
        && seen.and_then(|reading| reading.profile).is_some_and(|found| found != wanted)
    {
        let (fact, words, is_set) = set_profile(context, wanted).await?;
        outcome.add(fact, is_set, &format!("profile {wanted}: {words}"));
    }
    Ok(outcome)
}

pub(super) async fn change(context: &Context<'_>, change: &Change) -> Result<WriteOutcome, DeviceError> {
    let (accepted, words) = match change {
        Change::Reboot => one(context, "rebootdevice", "").await?,
        Change::Locate { on } => one(context, "ledset", if *on { "red,blink" } else { "red,auto" }).await?,
        Change::Pools(pools) => return set_pools(context, change, pools).await,
        Change::PowerLimit(watts) => return limit(context, *watts).await,
    };
    context.changed(change, accepted, &words).await
}

async fn curtail(context: &Context<'_>, word: &str, asleep: bool) -> Result<WriteOutcome, DeviceError> {
    let (accepted, words) = one(context, "curtail", word).await?;
    if accepted == FactV1::No {
        return Ok(WriteOutcome::refused(&format!("curtail {word}"), &words));
    }
    let seen = context.look_until(|r| r.mode.is_some_and(|mode| mode.is_asleep() == asleep)).await;
    Ok(WriteOutcome {
        accepted,
        mode: mode_fact(seen.and_then(|r| r.mode), asleep),
        shape: Some(format!("curtail {word}")),
        detail: format!("curtail {word}: {words}, after {}", context.elapsed()),
    })
}

/// One command in a session of its own.
async fn one(context: &Context<'_>, command: &str, word: &str) -> Result<(FactV1, String), DeviceError> {
    let session = Session::open(context).await?;
    let reply = session.command(context, command, word).await;
    session.close().await;
    reply_fact(reply)
}

async fn set_profile(context: &Context<'_>, wanted: &str) -> Result<(FactV1, String, bool), DeviceError> {
    let (fact, words) = one(context, "profileset", wanted).await?;
    let is_set = |reading: &Reading| reading.profile.as_deref() == Some(wanted);
    let seen = context.look_until(is_set).await;
    Ok((fact, words, seen.as_ref().is_some_and(is_set)))
}

async fn limit(context: &Context<'_>, limit: Watts) -> Result<WriteOutcome, DeviceError> {
    let call = context.api();
    let reply = context.command(&call, "profiles", None).await?;
    let list = crate::recognise::reply_value(&reply).unwrap_or_default();
    let Some((name, watts)) = best_profile(&list, limit) else {
        let words = format!("none of its profiles draws {limit} or less");
        return Err(DeviceError::Rejected { address: call.name(), request: "profileset".to_owned(), words });
    };
    if context.look().await?.profile.as_deref() == Some(name.as_str()) {
        return Ok(WriteOutcome::needless(&format!("its profile is {name} ({watts}) already")));
    }
    let (accepted, words, is_set) = set_profile(context, &name).await?;
    if accepted == FactV1::No {
        return Ok(WriteOutcome::refused(&format!("profile {name}"), &words));
    }
    Ok(WriteOutcome {
        accepted,
        mode: if is_set { FactV1::Yes } else { FactV1::No },
        shape: None,
        detail: format!("profile {name} ({watts}): {words}, after {}", context.elapsed()),
    })
}

/// The profile that draws most of those within a limit.
fn best_profile(list: &Value, limit: Watts) -> Option<(String, Watts)> {
    let rows = list.get("PROFILES")?.as_array()?;
    rows.iter()
        .filter_map(|row| {
            let watts = Watts::new(row.get("Watts")?.as_f64()?).filter(|watts| watts.get() > 0.0)?;
            Some((row.get("Profile Name")?.as_str()?.to_owned(), watts))
        })
        .filter(|(_, watts)| watts.get() <= limit.get())
        .max_by(|a, b| a.1.get().total_cmp(&b.1.get()))
}

/// Adds the new pools, makes the first of them the one in use, and takes the former ones away, in
/// this order, so that the device is never without a pool.
async fn set_pools(
    context: &Context<'_>,
    change: &Change,
    pools: &[PoolSetting],
) -> Result<WriteOutcome, DeviceError> {
    context.check_pools(pools, MAX_POOLS)?;
    let address = context.api().name();
    if pools.iter().any(|p| [&*p.url, &*p.worker, p.password.reveal()].iter().any(|text| text.contains(',')))
    {
        let words =
            "LuxOS parts what it is told by commas, so none may be in a pool's name, worker or password";
        return Err(DeviceError::BadPools { address, words: words.to_owned() });
    }
    let before = super::read(context).await?;
    if judge_change(change, &before, &before).0 == FactV1::Yes {
        return Ok(WriteOutcome::needless("it has these pools already"));
    }
    let former = pool_ids(context).await?;
    let mut accepted = FactV1::Yes;
    let mut said = Vec::new();
    for (n, pool) in pools.iter().enumerate() {
        let parameter = format!("{},{},{}", pool.url, pool.worker, pool.password.reveal());
        let (fact, words) = plain(context, "addpool", &parameter).await?;
        said.push(format!("pool {}: {words}", n + 1));
        if fact == FactV1::No {
            return Ok(WriteOutcome::refused("addpool", &said.join("; ")));
        }
        accepted = worse(accepted, fact);
    }
    let new = pool_ids(context).await?.into_iter().find(|id| !former.contains(id));
    if let Some(new) = new {
        accepted = worse(accepted, plain(context, "switchpool", &new.to_string()).await?.0);
    }
    // From the last on, so that the numbers of those still to go stay what they are.
    for id in former.iter().rev() {
        let (fact, words) = plain(context, "removepool", &id.to_string()).await?;
        if fact != FactV1::Yes {
            said.push(format!("former pool {id} not removed: {words}"));
        }
        accepted = worse(accepted, fact);
    }
    context.changed(change, accepted, &said.join("; ")).await
}

fn worse(a: FactV1, b: FactV1) -> FactV1 {
    match (a, b) {
        (FactV1::No, _) | (_, FactV1::No) => FactV1::No,
        (FactV1::Unknown, _) | (_, FactV1::Unknown) => FactV1::Unknown,
        (a, _) => a,
    }
}

/// A command that needs no session.
async fn plain(
    context: &Context<'_>,
    command: &str,
    parameter: &str,
) -> Result<(FactV1, String), DeviceError> {
    let call = context.write_call(context.device.api_port);
    reply_fact(context.command(&call, command, Some(parameter)).await.map(|reply| Status::of(&reply)))
}

async fn pool_ids(context: &Context<'_>) -> Result<Vec<i64>, DeviceError> {
    let reply = context.command(&context.api(), "pools", None).await?;
    let list = crate::recognise::reply_value(&reply).unwrap_or_default();
    let rows = list.get("POOLS").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut ids: Vec<i64> = rows.iter().filter_map(|row| row.get("POOL")?.as_i64()).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// An open session, given back when it is dropped.
struct Session {
    id: Option<String>,
    call: Call,
}

impl Session {
    async fn open(context: &Context<'_>) -> Result<Self, DeviceError> {
        let call = context.api();
        let reply = context.command(&call, "logon", None).await?;
        let value = crate::recognise::reply_value(&reply).unwrap_or_default();
        let id = value.get("SESSION").and_then(|list| list.get(0)).and_then(|row| row.get("SessionID"));
        if let Some(id) = id.and_then(Value::as_str).filter(|id| !id.is_empty()) {
            return Ok(Self { id: Some(id.to_owned()), call });
        }
        let status = Status::of(&reply);
        let address = call.name();
        if status.code == Some(SESSION_TAKEN) {
            let words = format!(
                "another program holds its only session ({}); it ends a minute after its last use",
                status.words()
            );
            return Err(DeviceError::Busy { address, words });
        }
        Err(DeviceError::Rejected { address, request: "logon".to_owned(), words: status.words() })
    }

    async fn command(&self, context: &Context<'_>, command: &str, word: &str) -> Result<Status, DeviceError> {
        let id = self.id.as_deref().unwrap_or_default();
        let parameter = if word.is_empty() { id.to_owned() } else { format!("{id},{word}") };
        let call = context.write_call(context.device.api_port);
        context.command(&call, command, Some(&parameter)).await.map(|reply| Status::of(&reply))
    }

    async fn close(mut self) {
        if let Some(id) = self.id.as_deref() {
            logoff(self.call, id).await;
        }
        // Only now: dropped before, the session is given back all the same.
        self.id = None;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(id) = self.id.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let call = self.call;
            // The call was given up, but the device must not stay locked. This ends by itself.
            runtime.spawn(async move { logoff(call, &id).await });
        }
    }
}

async fn logoff(mut call: Call, id: &str) {
    call.started = tcp::now();
    call.until = call.started + LOGOFF_TIME;
    let request = super::command_json("logoff", Some(id), &[]);
    if let Err(error) = tcp::ask(&call, request.as_bytes()).await {
        tracing::warn!(%error, "A LuxOS session was not given back; the device ends it by itself.");
    }
}
