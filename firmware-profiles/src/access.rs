//! Whether a device would take a write from here, found out without writing.
//!
//! A page that is signed in to proves a user and password; cgminer's `privileged` proves that this
//! computer may write. Whatsminer's API 2 hands out a token to anybody when writes are switched on, and
//! tells a wrong password only with a write: there is no proof without one, and none is claimed.

use crate::ask::Send;
use crate::control::ControlFile;
use crate::device::DeviceError;
use crate::drivers::{Context, Status};
use crate::http::{self, WebRequest};
use crate::tcp::{self, Call};
use hashinsight_protocol::readiness::AccessV1;

/// What is known of the access to a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub state: AccessV1,
    /// Why it is no better; what to look at.
    pub detail: Option<String>,
}

impl Access {
    fn is(state: AccessV1) -> Self {
        Self { state, detail: None }
    }

    fn refused_by(error: &DeviceError) -> Self {
        let state = match error {
            DeviceError::AuthRefused { .. } => AccessV1::Refused,
            DeviceError::WriteNotAllowed { .. } => AccessV1::WritesOff,
            _ => AccessV1::Unknown,
        };
        Self { state, detail: Some(error.to_string()) }
    }
}

/// cgminer's codes for "privileged": allowed, and not.
const ALLOWED: i64 = 46;
const DENIED: i64 = 45;

pub(crate) async fn check(context: &Context<'_>) -> Access {
    let Some(control) = &context.profile.control else { return Access::default() };
    let checked = if let ControlFile::AntminerConf(conf) = control {
        signs_in(context, &conf.get).await
    } else if let ControlFile::WhatsminerV2(_) = control {
        hands_out_tokens(context).await
    } else if let ControlFile::AvalonAscset(_) | ControlFile::CgminerCommand(_) = control {
        may_write(context).await
    } else if let ControlFile::LuxosCurtail(_) = control {
        // A session is given to whoever asks first.
        Ok(Access::is(AccessV1::NotNeeded))
    } else {
        protected_page(context).await
    };
    checked.unwrap_or_else(|error| Access::refused_by(&error))
}

async fn signs_in(context: &Context<'_>, path: &str) -> Result<Access, DeviceError> {
    let credentials = context.credentials();
    let call = Call::web(context.device, context.limits);
    http::fetch(&call, &WebRequest::get(path, credentials.as_ref())).await?;
    Ok(Access::is(AccessV1::Proven))
}

/// A page of the family's own that is closed without the sign-in and open with it.
async fn protected_page(context: &Context<'_>) -> Result<Access, DeviceError> {
    let profile = context.profile;
    let web = &profile.web;
    for ask in profile.state.iter().chain(&profile.requests).chain(&profile.identify) {
        let (Send::Get { path } | Send::ApiGet { path }) = &ask.send else { continue };
        let call = match &ask.send {
            Send::ApiGet { .. } => context.api(),
            _ => context.api().to_port(web.port(context.device)),
        };
        let request = WebRequest::get(path, None);
        match web.ask(&call, None, &request).await {
            Err(DeviceError::AuthRefused { .. }) => {
                let page = web.fetch(&call, context.login().as_ref(), &request).await?;
                context.overheard(&ask.request, &page);
                return Ok(Access::is(AccessV1::Proven));
            }
            Ok(answer) if (200..300).contains(&answer.status) => {
                context.overheard(&ask.request, &answer.body);
            }
            _ => {}
        }
    }
    let detail = "it reads nothing that needs a sign-in".to_owned();
    Ok(Access { state: AccessV1::ByWriteOnly, detail: Some(detail) })
}

async fn hands_out_tokens(context: &Context<'_>) -> Result<Access, DeviceError> {
    let call = context.api();
    let reply = tcp::ask(&call, br#"{"cmd":"get_token"}"#).await?;
    let value = crate::recognise::reply_value(&reply).unwrap_or_default();
    if value.get("Msg").and_then(|message| message.get("salt")).is_some() {
        let detail = "it takes writes; whether the password is right shows with the first".to_owned();
        return Ok(Access { state: AccessV1::ByWriteOnly, detail: Some(detail) });
    }
    let hint = "writes must be switched on with WhatsMinerTool, after the default password was changed";
    let words = format!("{} ({hint})", Status::of(&reply).words());
    Err(DeviceError::WriteNotAllowed { address: call.name(), words })
}

async fn may_write(context: &Context<'_>) -> Result<Access, DeviceError> {
    let call = context.api();
    let status = Status::of(&context.command(&call, "privileged", None).await?);
    Ok(match status.code {
        Some(ALLOWED) => Access::is(AccessV1::Proven),
        Some(DENIED) => {
            let words = "add this computer to its api-allow list with W:".to_owned();
            Access::refused_by(&DeviceError::WriteNotAllowed { address: call.name(), words })
        }
        // Firmwares of their own leave the command out, and let everybody write.
        _ => Access::is(AccessV1::NotNeeded),
    })
}
