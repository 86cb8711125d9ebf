//! API keys: `hik_` and 52 base32 digits, with the rights of their user.

use super::roles::Role;
use super::{By, Caller, users};
use crate::error::{Error, Result};
use crate::random::{self, sha256_hex};
use crate::store::Db;
use crate::{args, audit};
use hashinsight_protocol::enrolment::hex;
use hashinsight_protocol::ids::UserId;
use hashinsight_protocol::units::Millis;

const PREFIX: &str = "hik_";
const DIGITS: usize = 52;

/// Makes a key for a user; it is shown once and stored nowhere.
///
/// # Errors
/// There is no such user or it is disabled, the name can't be one, or the database fails.
pub async fn add(db: &Db, user: &str, name: &str, by: &str, now: Millis) -> Result<String> {
    if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
        return Err(Error::invalid("a key's name has 1 to 64 characters"));
    }
    let found = users::by_name(db, user).await?.filter(|u| u.disabled_at.is_none());
    let found = found.ok_or_else(|| users::no_such_user(user))?;
    let secret = format!("{PREFIX}{}", random::secret(DIGITS));
    let id = hex(&random::bytes::<8>());
    let mut tx = db.begin().await?;
    tx.execute(
        "insert into api_keys (id, user_id, name, secret_hash, created_at) values ($1, $2, $3, $4, $5)",
        args![&id, found.id, name, sha256_hex(secret.as_bytes()), now],
    )
    .await?;
    audit::record(&mut tx, now, by, "api-key.add", &id, &format!("{name} of {user}")).await?;
    tx.commit().await?;
    Ok(secret)
}

/// A key as listed: its id, its user, its name, since when, and until when if it is revoked.
pub type Listed = (String, String, String, Millis, Option<Millis>);

/// # Errors
/// The database fails.
pub async fn all(db: &Db) -> Result<Vec<Listed>> {
    db.fetch_all(
        "select k.id, u.name, k.name, k.created_at, k.revoked_at from api_keys k join users u on u.id = k.user_id \
         order by k.created_at, k.id",
        args![],
    )
    .await
}

/// # Errors
/// There is no such key that is not revoked already, or the database fails.
pub async fn revoke(db: &Db, id: &str, by: &str, now: Millis) -> Result<()> {
    let mut tx = db.begin().await?;
    let revoke = "update api_keys set revoked_at = $2 where id = $1 and revoked_at is null";
    if tx.execute(revoke, args![id, now]).await? == 0 {
        return Err(Error::new(crate::error::Kind::NotFound, format!("there is no key {id} to revoke")));
    }
    audit::record(&mut tx, now, by, "api-key.revoke", id, "").await?;
    tx.commit().await
}

/// Who a key stands for.
///
/// # Errors
/// The database fails.
pub async fn caller(db: &Db, secret: &str) -> Result<Option<Caller>> {
    if secret.len() != PREFIX.len() + DIGITS {
        return Ok(None);
    }
    let row: Option<(UserId, String, String)> = db
        .fetch_optional(
            "select u.id, u.name, u.role from api_keys k join users u on u.id = k.user_id \
             where k.secret_hash = $1 and k.revoked_at is null and u.disabled_at is null",
            args![sha256_hex(secret.as_bytes())],
        )
        .await?;
    row.map(|(user, name, role)| {
        Ok(Caller { user, name, role: Role::parse(&role).map_err(Error::internal)?, by: By::ApiKey })
    })
    .transpose()
}

/// Whether the user of a long answer still has a key at all.
pub(super) async fn still_valid(db: &Db, user: UserId) -> Result<bool> {
    let (keys,): (i64,) = db
        .fetch_one(
            "select count(*) from api_keys k join users u on u.id = k.user_id \
             where u.id = $1 and k.revoked_at is null and u.disabled_at is null",
            args![user],
        )
        .await?;
    Ok(keys > 0)
}
