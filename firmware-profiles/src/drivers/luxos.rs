//! LuxOS: `curtail` inside a session.
//!
//! A device has one session at a time (code 402 refuses a second), so it is given back whatever
//! happens: after success, failure, and when the call is dropped half-way.

use super::{Context, Status, mode_fact, reply_fact};
use crate::WriteOutcome;
use crate::control::LuxosCurtail;
use crate::device::DeviceError;
use crate::tcp::{self, Call};
use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};
use serde_json::Value;
use std::time::Duration;

/// The longest that giving a session back may take.
const LOGOFF_TIME: Duration = Duration::from_secs(5);

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
    if before.mode.is_some_and(|mode| !mode.is_asleep()) {
        return Ok(WriteOutcome::needless("it runs already"));
    }
    let mut outcome = curtail(context, &control.wake, false).await?;
    // The profile outlives a sleep; that it did is worth a look.
    if outcome.mode == FactV1::Yes
        && let Some(wanted) = pre.profile.as_deref()
        && let Ok(reading) = context.look().await
        && let Some(found) = reading.profile.as_deref()
        && found != wanted
    {
        let session = Session::open(context).await?;
        let set = session.command(context, "profileset", wanted).await;
        session.close().await;
        let (fact, words) = reply_fact(set)?;
        let seen = context.look_until(|r| r.profile.as_deref() == Some(wanted)).await.and_then(|r| r.profile);
        outcome.accepted = fact;
        outcome.mode = if seen.as_deref() == Some(wanted) { FactV1::Yes } else { FactV1::No };
        outcome.detail = format!("{}; profile {wanted}: {words}", outcome.detail);
    }
    Ok(outcome)
}

async fn curtail(context: &Context<'_>, word: &str, asleep: bool) -> Result<WriteOutcome, DeviceError> {
    let session = Session::open(context).await?;
    let reply = session.command(context, "curtail", word).await;
    session.close().await;
    let (accepted, words) = reply_fact(reply)?;
    if accepted == FactV1::No {
        return Ok(WriteOutcome {
            accepted,
            mode: FactV1::No,
            shape: None,
            detail: format!("curtail {word} was refused: {words}"),
        });
    }
    let seen = context.look_until(|r| r.mode.is_some_and(|mode| mode.is_asleep() == asleep)).await;
    Ok(WriteOutcome {
        accepted,
        mode: mode_fact(seen.and_then(|r| r.mode), asleep),
        shape: Some(format!("curtail {word}")),
        detail: format!("curtail {word}: {words}, after {}", context.elapsed()),
    })
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
        match id.and_then(Value::as_str).filter(|id| !id.is_empty()) {
            Some(id) => Ok(Self { id: Some(id.to_owned()), call }),
            None => Err(DeviceError::Rejected {
                address: call.name(),
                request: "logon".to_owned(),
                words: Status::of(&reply).words(),
            }),
        }
    }

    async fn command(&self, context: &Context<'_>, command: &str, word: &str) -> Result<Status, DeviceError> {
        let parameter = format!("{},{word}", self.id.as_deref().unwrap_or_default());
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
