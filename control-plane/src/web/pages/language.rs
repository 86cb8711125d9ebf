//! The switch of languages.

use super::safe_path;
use crate::App;
use crate::error::{Error, Result};
use crate::web::i18n::{Language, Message};
use crate::web::input::Fields;
use crate::web::session;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Redirect};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
pub struct Form {
    language: String,
    next: Option<String>,
}

pub async fn submit(State(app): State<Arc<App>>, Fields(form): Fields<Form>) -> Result<impl IntoResponse> {
    let language =
        Language::from_tag(&form.language).ok_or_else(|| Error::invalid(Message::key("error-form")))?;
    let cookie = session::set_language(&app.config, language)?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(safe_path(form.next.as_deref()))))
}
