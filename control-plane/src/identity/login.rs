//! Signing in with a name and a password, and choosing a new password.

use super::users::{self, User};
use super::{Caller, passwords, sessions};
use crate::App;
use crate::audit;
use crate::error::{Error, Kind, Result};
use crate::web::i18n::Message;
use std::net::IpAddr;
use std::sync::PoisonError;

/// Begins a session; the cookie's value.
///
/// # Errors
/// Name and password don't belong together (one text for every reason), too many tries, or the
/// database fails.
pub async fn sign_in(app: &App, name: &str, password: String, from: IpAddr) -> Result<String> {
    let name = name.trim().to_lowercase();
    let user = attempt(app, &name, password, from).await?;
    let now = app.clock.now();
    let mut tx = app.stores.business.begin().await?;
    let id = sessions::begin(&mut tx, user.id, now).await?;
    audit::record(&mut tx, now, &user.name, "session.begin", &user.id.to_string(), &from.to_string()).await?;
    tx.commit().await?;
    Ok(id)
}

/// Sets a password that its user chose, ends all sessions of the user, and begins a new one.
///
/// # Errors
/// The old password is wrong, the new one can't be taken, or the database fails.
pub async fn choose_password(
    app: &App,
    caller: &Caller,
    old: String,
    new: String,
    from: IpAddr,
) -> Result<String> {
    passwords::check_choice(&new, &caller.name)?;
    if old == new {
        return Err(Error::invalid(Message::key("error-password-same")));
    }
    let user = attempt(app, &caller.name, old, from).await.map_err(|error| match error.kind() {
        Kind::Unauthenticated => Error::new(Kind::Invalid, Message::key("error-password-old-wrong")),
        _ => error,
    })?;
    let hash = app.identity.passwords.hash(new).await?;
    let now = app.clock.now();
    let mut tx = app.stores.business.begin().await?;
    users::store_password(&mut tx, user.id, &hash, false).await?;
    let id = sessions::begin(&mut tx, user.id, now).await?;
    audit::record(&mut tx, now, &user.name, "user.password.choose", &user.id.to_string(), "").await?;
    tx.commit().await?;
    Ok(id)
}

async fn attempt(app: &App, name: &str, password: String, from: IpAddr) -> Result<User> {
    let now = app.clock.now();
    let guard = || app.identity.guard.lock().unwrap_or_else(PoisonError::into_inner);
    guard().attempt(name, from, now)?;
    let user = users::by_name(&app.stores.business, name).await?.filter(|user| user.disabled_at.is_none());
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let right = app.identity.passwords.verify(password, hash).await?;
    match user {
        Some(user) if right => {
            guard().succeeded(name, from);
            Ok(user)
        }
        _ => {
            tracing::warn!(name = name.chars().take(64).collect::<String>(), %from, "A sign-in failed.");
            Err(Error::new(Kind::Unauthenticated, Message::key("error-sign-in")))
        }
    }
}
