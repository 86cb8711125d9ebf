//! Signing in and out.

use super::safe_path;
use crate::App;
use crate::error::{Kind, Result};
use crate::identity::{Caller, login, sessions};
use crate::web::input::{Fields, Params};
use crate::web::layout::{Page, Section, html};
use crate::web::{errors, routes, session};
use askama::Template;
use axum::extract::{FromRequest as _, FromRequestParts as _, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    page: Page,
    name: String,
    next: String,
    error: Option<String>,
}

#[derive(Default, Deserialize)]
pub struct LoginParams {
    next: Option<String>,
}

#[derive(Deserialize)]
pub struct Form {
    name: String,
    password: String,
    next: Option<String>,
}

pub async fn show(page: Page, Params(params): Params<LoginParams>) -> Response {
    let next = safe_path(params.next.as_deref()).to_owned();
    if page.caller.is_some() {
        return Redirect::to(&next).into_response();
    }
    let title = page.t.t("login-title");
    html(&LoginPage { page: page.titled(Section::None, title), name: String::new(), next, error: None })
}

pub async fn submit(State(app): State<Arc<App>>, request: Request) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let page = Page::from_request_parts(&mut parts, &app).await?;
    let from = routes::address(&app, &parts);
    let Fields(form) = Fields::<Form>::from_request(Request::from_parts(parts, body), &()).await?;
    let next = safe_path(form.next.as_deref()).to_owned();
    match login::sign_in(&app, &form.name, form.password, from).await {
        Ok(id) => {
            let cookie = session::set(&app.config, &id)?;
            Ok(([(header::SET_COOKIE, cookie)], Redirect::to(&next)).into_response())
        }
        Err(error) if matches!(error.kind(), Kind::Unauthenticated | Kind::TooMany(_)) => {
            let status = match error.kind() {
                Kind::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::UNAUTHORIZED,
            };
            let t = page.t;
            let mut page = page.titled(Section::None, t.t("login-title"));
            page.path = "/login".to_owned();
            let name = form.name.chars().take(64).collect();
            let page = LoginPage { page, name, next, error: Some(error.text(t)) };
            Ok(errors::with_retry(&error, (status, html(&page)).into_response()))
        }
        Err(error) => Err(error),
    }
}

pub async fn sign_out(State(app): State<Arc<App>>, caller: Caller) -> Result<impl IntoResponse> {
    sessions::end(&app.stores.business, &caller).await?;
    Ok(([(header::SET_COOKIE, session::clear(&app.config)?)], Redirect::to("/login")))
}
