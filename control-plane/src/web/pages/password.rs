//! Choosing a password: asked for after a one-time password, and whenever its user likes.

use crate::App;
use crate::error::{Error, Kind, Result};
use crate::identity::{By, Caller, login};
use crate::web::i18n::Message;
use crate::web::input::Fields;
use crate::web::layout::{Page, Section, html};
use crate::web::{routes, session};
use askama::Template;
use axum::extract::{FromRequest as _, FromRequestParts as _, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Template)]
#[template(path = "password.html")]
struct PasswordPage {
    page: Page,
    /// The present one was made for the user.
    first: bool,
    error: Option<String>,
}

#[derive(Deserialize)]
pub struct Form {
    old: String,
    new: String,
    again: String,
}

pub async fn show(page: Page, caller: Caller) -> Response {
    html(&of(page, &caller, None))
}

fn of(page: Page, caller: &Caller, error: Option<String>) -> PasswordPage {
    let first = matches!(caller.by, By::Session { must_change_password: true, .. });
    let title = page.t.t("password-title");
    PasswordPage { page: page.titled(Section::Account, title), first, error }
}

pub async fn submit(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let page = Page::from_request_parts(&mut parts, &app).await?;
    let from = routes::address(&app, &parts);
    let Fields(form) = Fields::<Form>::from_request(Request::from_parts(parts, body), &()).await?;
    let chosen = if form.new == form.again {
        login::choose_password(&app, &caller, form.old, form.new, from).await
    } else {
        Err(Error::invalid(Message::key("error-password-again")))
    };
    match chosen {
        Ok(id) => {
            let cookie = session::set(&app.config, &id)?;
            Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/sites")).into_response())
        }
        Err(error) if matches!(error.kind(), Kind::Invalid | Kind::TooMany(_)) => {
            let status = match error.kind() {
                Kind::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::BAD_REQUEST,
            };
            let error = error.text(page.t);
            Ok((status, html(&of(page, &caller, Some(error)))).into_response())
        }
        Err(error) => Err(error),
    }
}
