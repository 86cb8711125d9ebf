//! Sessions: an opaque id in a cookie, known here by its SHA-256 alone.
//!
//! A session ends [`IDLE`] after its last use and [`LONGEST`] after its beginning, when its user signs
//! out, gets a new password or is switched off.

use super::roles::Role;
use super::{By, Caller};
use crate::error::{Error, Result};
use crate::random::{self, sha256_hex};
use crate::store::{Db, Tx};
use crate::{args, row};
use hashinsight_protocol::enrolment::hex;
use hashinsight_protocol::ids::UserId;
use hashinsight_protocol::units::{DurationMs, Millis};

pub const IDLE: DurationMs = DurationMs::from_minutes(12 * 60);
pub const LONGEST: DurationMs = DurationMs::from_minutes(7 * 24 * 60);
/// A use is written down no more often than this: pages that follow a site are used every second.
const NOTED: DurationMs = DurationMs::from_minutes(1);
/// Sessions of one user; the oldest give way.
const OF_USER: i64 = 20;
/// Hex digits of an id.
const DIGITS: usize = 64;

row! {
    struct SessionRow {
        csrf: String,
        seen_at: Millis,
        user: UserId,
        name: String,
        role: String,
        must_change_password: bool,
    }
}

/// Begins a session; the cookie's value.
///
/// # Errors
/// The database fails.
pub async fn begin(tx: &mut Tx, user: UserId, now: Millis) -> Result<String> {
    let id = hex(&random::bytes::<32>());
    tx.execute(
        "delete from sessions where expires_at <= $1 or seen_at <= $2",
        args![now, Millis(now.0 - IDLE.0 as i64)],
    )
    .await?;
    tx.execute(
        "delete from sessions where user_id = $1 and id_hash not in \
         (select id_hash from sessions where user_id = $1 order by seen_at desc limit $2)",
        args![user, OF_USER - 1],
    )
    .await?;
    tx.execute(
        "insert into sessions (id_hash, user_id, csrf, created_at, seen_at, expires_at) values ($1, $2, $3, $4, $4, $5)",
        args![sha256_hex(id.as_bytes()), user, hex(&random::bytes::<32>()), now, now.plus(LONGEST)],
    )
    .await?;
    Ok(id)
}

/// Who a cookie's value stands for.
///
/// # Errors
/// The database fails.
pub async fn caller(db: &Db, id: &str, now: Millis) -> Result<Option<Caller>> {
    if id.len() != DIGITS {
        return Ok(None);
    }
    let id_hash = sha256_hex(id.as_bytes());
    let Some(row) = find(db, &id_hash, now).await? else { return Ok(None) };
    if now.since(row.seen_at) >= NOTED {
        db.execute(
            "update sessions set seen_at = $2 where id_hash = $1 and seen_at < $2",
            args![&id_hash, now],
        )
        .await?;
    }
    let role = Role::parse(&row.role).map_err(Error::internal)?;
    let by = By::Session { id_hash, csrf: row.csrf, must_change_password: row.must_change_password };
    Ok(Some(Caller { user: row.user, name: row.name, role, by }))
}

/// Whether a caller that was known when a long answer began still is.
///
/// # Errors
/// The database fails.
pub async fn still_valid(db: &Db, caller: &Caller, now: Millis) -> Result<bool> {
    match &caller.by {
        By::Session { id_hash, .. } => Ok(find(db, id_hash, now).await?.is_some()),
        By::ApiKey => super::api_keys::still_valid(db, caller.user).await,
    }
}

async fn find(db: &Db, id_hash: &str, now: Millis) -> Result<Option<SessionRow>> {
    db.fetch_optional(
        "select s.csrf, s.seen_at, u.id, u.name, u.role, u.must_change_password \
         from sessions s join users u on u.id = s.user_id \
         where s.id_hash = $1 and s.expires_at > $2 and s.seen_at > $3 and u.disabled_at is null",
        args![id_hash, now, Millis(now.0 - IDLE.0 as i64)],
    )
    .await
}

/// Ends a session.
///
/// # Errors
/// The database fails.
pub async fn end(db: &Db, caller: &Caller) -> Result<()> {
    if let By::Session { id_hash, .. } = &caller.by {
        db.execute("delete from sessions where id_hash = $1", args![id_hash]).await?;
    }
    Ok(())
}
