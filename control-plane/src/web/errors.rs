//! Errors as answers: a page for people, JSON for programs.
//!
//! A handler's error travels as a bare answer that holds it; here, where path and language are known,
//! it gets its words. What happened inside is logged once, here, and goes nowhere else.

use super::i18n::Language;
use super::layout::{Page, html};
use super::{guard, session};
use crate::App;
use crate::error::{Error, Kind};
use crate::identity::Caller;
use askama::Template;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use std::sync::Arc;

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = status(self.kind()).into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    page: Page,
    status: u16,
    text: String,
}

/// Puts an error that a handler returned into words.
pub async fn render(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let language = session::language(request.headers());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let by_htmx = request.headers().contains_key("hx-request");
    let response = next.run(request).await;
    let Some(error) = response.extensions().get::<Arc<Error>>().map(Arc::clone) else { return response };
    let caller = response.extensions().get::<Caller>().cloned();
    let mut answer = answer(&app, &error, &method, &uri, language, by_htmx, caller);
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    }
    answer
}

fn answer(
    app: &App,
    error: &Error,
    method: &Method,
    uri: &Uri,
    language: Language,
    by_htmx: bool,
    caller: Option<Caller>,
) -> Response {
    if matches!(error.kind(), Kind::Internal | Kind::Unavailable) {
        tracing::error!(%method, path = uri.path(), error = error.chain(), "A request failed.");
    }
    let status = status(error.kind());
    if is_api(uri.path()) {
        let body = serde_json::json!({ "error": error.text(Language::English) });
        return with_retry(error, (status, Json(body)).into_response());
    }
    // Somebody who has to sign in or set a password first is sent there, and back afterwards.
    let elsewhere = match error.kind() {
        Kind::Unauthenticated if uri.path() != "/login" => Some(login_for(method, uri)),
        Kind::Forbidden if is_password_first(error) => Some("/password".to_owned()),
        _ => None,
    };
    if let Some(elsewhere) = elsewhere {
        let mut response = Redirect::to(&elsewhere).into_response();
        if by_htmx {
            // A redirect would be followed in the background; this moves the whole page.
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove(header::LOCATION);
            if let Ok(value) = HeaderValue::from_str(&elsewhere) {
                response.headers_mut().insert("hx-redirect", value);
            }
        } else if is_event_stream(uri.path()) {
            // An event source would follow it and wait for events of the sign-in page.
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            response.headers_mut().remove(header::LOCATION);
        }
        return response;
    }
    let page =
        Page { caller, path: uri.path().to_owned(), ..Page::for_nobody(app, language, error.text(language)) };
    let text = error.text(language);
    with_retry(error, (status, html(&ErrorPage { page, status: status.as_u16(), text })).into_response())
}

/// Says when to try again, where the error does.
pub fn with_retry(error: &Error, mut response: Response) -> Response {
    if let Kind::TooMany(wait) = error.kind()
        && let Ok(value) = HeaderValue::from_str(&wait.0.div_ceil(1000).to_string())
    {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

fn is_password_first(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|s| s.is::<guard::PasswordFirst>())
}

fn is_api(path: &str) -> bool {
    path.starts_with("/api/")
}

fn is_event_stream(path: &str) -> bool {
    path.ends_with("/events")
}

/// The sign-in page that leads back to where somebody was; only a page can be gone back to.
fn login_for(method: &Method, uri: &Uri) -> String {
    let back = uri.path_and_query().map_or("/", |p| p.as_str());
    if method != Method::GET || back == "/" {
        return "/login".to_owned();
    }
    format!("/login?next={}", super::format::encoded(back))
}

/// What a path outside the table gets.
pub async fn no_such_page() -> Error {
    Error::not_found()
}

/// What another method of a path in the table gets.
pub async fn no_such_method() -> Response {
    let mut response = Error::not_found().into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}
