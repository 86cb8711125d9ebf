//! Users: made, given passwords, and switched off; never deleted, since the audit log names them.

use super::passwords::{self, Passwords};
use super::roles::Role;
use crate::error::{Error, Result};
use crate::store::{Db, Tx};
use crate::web::i18n::Message;
use crate::{args, audit, row};
use hashinsight_protocol::ids::UserId;
use hashinsight_protocol::units::Millis;

/// The user that a first start makes.
pub const OWNER: &str = "owner";

row! {
    struct UserRow {
        id: UserId,
        name: String,
        role: String,
        password_hash: String,
        must_change_password: bool,
        disabled_at: Option<Millis>,
    }
}

/// A user as kept.
#[derive(Clone, Debug)]
pub struct User {
    pub id: UserId,
    pub name: String,
    pub role: Role,
    pub password_hash: String,
    pub must_change_password: bool,
    pub disabled_at: Option<Millis>,
}

impl TryFrom<UserRow> for User {
    type Error = Error;
    fn try_from(row: UserRow) -> Result<Self> {
        Ok(Self {
            id: row.id,
            role: Role::parse(&row.role).map_err(Error::internal)?,
            name: row.name,
            password_hash: row.password_hash,
            must_change_password: row.must_change_password,
            disabled_at: row.disabled_at,
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!("select id, name, role, password_hash, must_change_password, disabled_at from users ", $rest)
    };
}

/// The user of this name, disabled or not.
///
/// # Errors
/// The database fails.
pub async fn by_name(db: &Db, name: &str) -> Result<Option<User>> {
    let row: Option<UserRow> = db.fetch_optional(select!("where name = $1"), args![name]).await?;
    row.map(User::try_from).transpose()
}

/// # Errors
/// The database fails.
pub async fn by_id(db: &Db, id: UserId) -> Result<Option<User>> {
    let row: Option<UserRow> = db.fetch_optional(select!("where id = $1"), args![id]).await?;
    row.map(User::try_from).transpose()
}

/// All users by name.
///
/// # Errors
/// The database fails.
pub async fn all(db: &Db) -> Result<Vec<User>> {
    let rows: Vec<UserRow> = db.fetch_all(select!("order by name"), args![]).await?;
    rows.into_iter().map(User::try_from).collect()
}

/// Makes a user with a one-time password, which is returned and stored nowhere.
///
/// # Errors
/// The name can't be one or is taken, or the database fails.
pub async fn add(db: &Db, name: &str, role: Role, by: &str, now: Millis) -> Result<String> {
    let fits = (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.@+".contains(c));
    if !fits {
        let text = "a user name has 1 to 64 lower-case letters, digits and any of -_.@+";
        return Err(Error::invalid(text));
    }
    let password = passwords::one_time();
    let hash = Passwords::default().hash(password.clone()).await?;
    let id = UserId::from_random(crate::random::bytes());
    let mut tx = db.begin().await?;
    let insert = "insert into users (id, name, role, password_hash, must_change_password, created_at) \
                  values ($1, $2, $3, $4, 1, $5)";
    tx.execute(insert, args![id, name, role.name(), hash, now]).await.map_err(|e| {
        if e.is_constraint() {
            Error::conflict(format!("there is a user {name} already")).because(e)
        } else {
            e
        }
    })?;
    audit::record(&mut tx, now, by, "user.add", &id.to_string(), &format!("{name}, {}", role.name())).await?;
    tx.commit().await?;
    Ok(password)
}

/// Makes the owner when there is no user at all; the one-time password, if it did.
///
/// # Errors
/// The database fails.
pub async fn add_first_owner(db: &Db, now: Millis) -> Result<Option<String>> {
    let (users,): (i64,) = db.fetch_one("select count(*) from users", args![]).await?;
    if users > 0 {
        return Ok(None);
    }
    add(db, OWNER, Role::Owner, "first start", now).await.map(Some)
}

/// Gives a user a new one-time password and ends all sessions of the user.
///
/// # Errors
/// There is no such user, or the database fails.
pub async fn reset_password(db: &Db, name: &str, by: &str, now: Millis) -> Result<String> {
    let user = by_name(db, name).await?.ok_or_else(|| no_such_user(name))?;
    let password = passwords::one_time();
    let hash = Passwords::default().hash(password.clone()).await?;
    let mut tx = db.begin().await?;
    store_password(&mut tx, user.id, &hash, true).await?;
    audit::record(&mut tx, now, by, "user.password.reset", &user.id.to_string(), name).await?;
    tx.commit().await?;
    Ok(password)
}

/// Switches a user off: sessions and API keys of the user stop working at once.
///
/// # Errors
/// There is no such user, it is the last owner, or the database fails.
pub async fn disable(db: &Db, name: &str, by: &str, now: Millis) -> Result<()> {
    let user = by_name(db, name).await?.ok_or_else(|| no_such_user(name))?;
    let mut tx = db.begin().await?;
    let (others,): (i64,) = tx
        .fetch_one(
            "select count(*) from users where role = 'owner' and disabled_at is null and id <> $1",
            args![user.id],
        )
        .await?;
    if user.role == Role::Owner && others == 0 {
        return Err(Error::conflict("this is the last owner; add another one first"));
    }
    let disabled = tx.execute(
        "update users set disabled_at = $2 where id = $1 and disabled_at is null",
        args![user.id, now],
    );
    if disabled.await? > 0 {
        tx.execute("delete from sessions where user_id = $1", args![user.id]).await?;
        audit::record(&mut tx, now, by, "user.disable", &user.id.to_string(), name).await?;
    }
    tx.commit().await
}

/// Stores the hash of a new password and ends all sessions of the user.
pub(super) async fn store_password(tx: &mut Tx, id: UserId, hash: &str, must_change: bool) -> Result<()> {
    tx.execute(
        "update users set password_hash = $2, must_change_password = $3 where id = $1",
        args![id, hash, must_change],
    )
    .await?;
    tx.execute("delete from sessions where user_id = $1", args![id]).await?;
    Ok(())
}

/// The user of this name, for the command line.
pub fn no_such_user(name: &str) -> Error {
    Error::new(crate::error::Kind::NotFound, Message::Plain(format!("there is no user {name}")))
}
