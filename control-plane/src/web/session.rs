//! Cookies: the session's id, and the language.

use super::i18n::Language;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::identity::sessions;
use axum::http::{HeaderMap, HeaderValue, header};

const LANGUAGE: &str = "hashinsight_language";
/// A year.
const LANGUAGE_SECONDS: u32 = 365 * 24 * 3600;

/// The cookie's name. Over HTTPS its prefix makes browsers refuse one that a neighbour has set.
fn name(config: &Config) -> &'static str {
    if config.https { "__Host-hashinsight_session" } else { "hashinsight_session" }
}

/// The session's id, if the request carries one.
pub fn id<'h>(config: &Config, headers: &'h HeaderMap) -> Option<&'h str> {
    cookie(headers, name(config))
}

/// What sets the session's cookie.
///
/// # Errors
/// None for an id of ours.
pub fn set(config: &Config, id: &str) -> Result<HeaderValue> {
    let seconds = sessions::LONGEST.0 / 1000;
    value(format!(
        "{}={id}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{}",
        name(config),
        secure(config)
    ))
}

/// What takes the session's cookie away.
///
/// # Errors
/// None.
pub fn clear(config: &Config) -> Result<HeaderValue> {
    value(format!("{}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax{}", name(config), secure(config)))
}

/// What remembers a language.
///
/// # Errors
/// None.
pub fn set_language(config: &Config, language: Language) -> Result<HeaderValue> {
    let tag = language.tag();
    value(format!(
        "{LANGUAGE}={tag}; Path=/; Max-Age={LANGUAGE_SECONDS}; HttpOnly; SameSite=Lax{}",
        secure(config)
    ))
}

/// The reader's language: chosen, or else the browser's.
pub fn language(headers: &HeaderMap) -> Language {
    let accepted =
        || headers.get(header::ACCEPT_LANGUAGE).and_then(|h| h.to_str().ok()).map(Language::accepted);
    cookie(headers, LANGUAGE).and_then(Language::from_tag).or_else(accepted).unwrap_or_default()
}

fn secure(config: &Config) -> &'static str {
    if config.https { "; Secure" } else { "" }
}

fn value(text: String) -> Result<HeaderValue> {
    HeaderValue::from_str(&text).map_err(Error::internal)
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|h| h.to_str().ok());
    cookies.flat_map(|h| h.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}
