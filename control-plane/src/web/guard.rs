//! Who makes a request, and whether it may be made: before any handler runs.
//!
//! A request that changes something under a session must carry the session's CSRF token, and if the
//! browser names an origin it must be ours. An API key is no cookie: no other site can make a browser
//! send it.

use super::i18n::Message;
use super::routes::Needs;
use super::session;
use crate::App;
use crate::error::{Error, Kind, Result};
use crate::identity::{By, Caller, api_keys, sessions};
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hashinsight_protocol::units::DurationMs;
use std::sync::Arc;

/// Bytes of a form.
const FORM: usize = 64 * 1024;
/// For the head of an answer; what streams goes on after it.
const TIME: DurationMs = DurationMs::from_secs(60);

/// The form field and the header of the token.
pub const FIELD: &str = "csrf";
const HEADER: &str = "x-csrf-token";

/// Lets a request through to its handler, or answers it.
pub async fn check(State((app, needs)): State<(Arc<App>, Needs)>, request: Request, next: Next) -> Response {
    let caller = match caller(&app, request.headers()).await {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let mut response = match admit(needs, caller.clone(), request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    // An error's page shows its reader the way on.
    if let Some(caller) = caller {
        response.extensions_mut().insert(caller);
    }
    response
}

async fn admit(needs: Needs, caller: Option<Caller>, mut request: Request) -> Result<Request> {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && !from_our_origin(request.headers()) {
        return Err(Error::new(Kind::Forbidden, Message::key("error-origin")));
    }
    let Some(caller) = caller else {
        return match needs {
            Needs::Nothing => Ok(request),
            Needs::SignedIn | Needs::May(_) => Err(Error::unauthenticated()),
        };
    };
    if let By::Session { csrf, must_change_password, .. } = &caller.by {
        if *must_change_password && matches!(needs, Needs::May(_)) {
            return Err(
                Error::new(Kind::Forbidden, Message::key("error-password-first")).because(PasswordFirst)
            );
        }
        // What is open to strangers changes nothing of a session: its token is not asked for, so that
        // a page from before the sign-in still works.
        if changes && needs != Needs::Nothing {
            let (carried, rest) = token(request).await?;
            request = rest;
            let same = carried.is_some_and(|carried| same(carried.as_bytes(), csrf.as_bytes()));
            if !same {
                return Err(Error::new(Kind::Forbidden, Message::key("error-csrf")));
            }
        }
    }
    if let Needs::May(permission) = needs
        && !caller.may(permission)
    {
        return Err(Error::forbidden());
    }
    request.extensions_mut().insert(caller);
    Ok(request)
}

/// Inside an error: the caller has to set a new password before anything else.
#[derive(Debug, thiserror::Error)]
#[error("a one-time password opens nothing else")]
pub struct PasswordFirst;

/// Who sent these headers, if anybody known.
async fn caller(app: &App, headers: &HeaderMap) -> Result<Option<Caller>> {
    let db = &app.stores.business;
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let secret = value.to_str().ok().and_then(|v| v.strip_prefix("Bearer "));
        // A key that is wrong is no reason to look at a cookie.
        return match secret {
            Some(secret) => api_keys::caller(db, secret.trim()).await,
            None => Ok(None),
        };
    }
    match session::id(&app.config, headers) {
        Some(id) => sessions::caller(db, id, app.clock.now()).await,
        None => Ok(None),
    }
}

/// Whether the browser says that the request comes from a page of ours, or does not say.
fn from_our_origin(headers: &HeaderMap) -> bool {
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let origin = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, host)| host);
    host.is_some() && host == origin
}

/// The token that a request carries, and the request to go on with: a form has to be read for it.
async fn token(request: Request) -> Result<(Option<String>, Request)> {
    if let Some(token) = request.headers().get(HEADER) {
        let token = token.to_str().ok().map(str::to_owned);
        return Ok((token, request));
    }
    let form = request.headers().get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok());
    if !form.is_some_and(|t| t.starts_with("application/x-www-form-urlencoded")) {
        return Ok((None, request));
    }
    let (parts, body) = request.into_parts();
    let bytes =
        to_bytes(body, FORM).await.map_err(|e| Error::invalid(Message::key("error-form")).because(e))?;
    let token = field(&bytes, FIELD);
    Ok((token, Request::from_parts(parts, Body::from(bytes))))
}

/// The value of a form's field when it is made of plain digits, as tokens are.
fn field(form: &[u8], name: &str) -> Option<String> {
    let form = std::str::from_utf8(form).ok()?;
    let value = form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    value.bytes().all(|b| b.is_ascii_alphanumeric()).then(|| value.to_owned())
}

/// Compares without telling by the time where two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Error::unauthenticated)
    }
}

/// Answers a request that takes too long, so that nobody waits for ever.
pub async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIME.into(), next.run(request)).await {
        Ok(response) => response,
        Err(_) => Error::new(Kind::Unavailable, Message::key("error-busy")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_our_own_pages_change_things() {
        for (pairs, ours) in [
            (&[("host", "console:8080")][..], true),
            (&[("host", "console:8080"), ("origin", "http://console:8080")], true),
            (&[("host", "console:8080"), ("origin", "https://console:8080")], true),
            (&[("host", "console:8080"), ("origin", "http://console:8081")], false),
            (&[("host", "console:8080"), ("origin", "http://evil.example")], false),
            (&[("host", "console:8080"), ("origin", "null")], false),
            (&[("origin", "http://console")], false),
            (&[("host", "console"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "console"), ("sec-fetch-site", "same-site")], false),
            (&[("host", "console"), ("sec-fetch-site", "same-origin")], true),
        ] {
            assert_eq!(from_our_origin(&headers(pairs)), ours, "{pairs:?}");
        }
    }

    #[test]
    fn a_form_gives_its_token() {
        assert_eq!(field(b"a=1&csrf=abc123&b=2", FIELD).as_deref(), Some("abc123"));
        assert_eq!(field(b"xcsrf=abc&csrfx=def", FIELD), None);
        assert_eq!(field(b"csrf=a%20b", FIELD), None);
        assert_eq!(field(b"\xff\xfe", FIELD), None);
    }
}
