//! PostgreSQL: one database with a schema for each of ours, or a database each.
//!
//! - **Limits**: [`CONNECTIONS`] connections each, [`PATIENCE`] for a lock or a connection.
//! - **Alone**: a write transaction takes an advisory lock of its database, shared where it names the
//!   agents whose rows it touches, and then one of each agent's, in one order everywhere. What it reads
//!   after that stays as it is until it ends, which READ COMMITTED by itself does not promise.
//! - **Durable**: `synchronous_commit` is on for our connections whatever the server's default:
//!   agents delete what was acknowledged.
//! - **Text** can't hold the character 0 here; it becomes the replacement character.
//! - A pooler in front must keep sessions (the schema is a setting of the session).

use super::{Columns, Db, Row, Value};
use crate::error::{Error, Kind, Result};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::units::DurationMs;
use serde::Deserialize;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Executor, Postgres, Transaction};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Connections to each of our two databases.
const CONNECTIONS: u32 = 8;
/// How long a statement waits for a lock or a connection.
const PATIENCE: DurationMs = DurationMs::from_secs(10);
/// Locks of agents; two agents may share one. A transaction takes at most all of them, which the
/// server's table of locks holds for many transactions at once.
const AGENT_LOCKS: i64 = 64;
/// Held while schemas are made: two servers may start at once.
const MIGRATION_LOCK: i64 = 0x4861_7368_496e_7369;

/// Where a PostgreSQL database is, as `postgres://user:password@host/name`. Never shown: it may hold a
/// password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct StoreUrl(String);

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err("the store's URL begins with postgres:// (leave it out for SQLite)".to_owned());
        }
        // The reason is not repeated: it may quote the password.
        let parsed = text.parse::<PgConnectOptions>();
        parsed.map_err(|_| "the store's URL is not of the form postgres://user:password@host/name")?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreUrl")
    }
}

impl Db {
    /// Connects to a PostgreSQL database and makes the schema where it is missing. `lock` names our
    /// database among those of the server's database.
    ///
    /// # Errors
    /// The server can't be reached, or refuses us.
    pub async fn open_postgres(url: &StoreUrl, schema: &'static str, lock: i32) -> Result<Self> {
        let options: PgConnectOptions = url.0.parse().map_err(|e| refused(None, e))?;
        let place = place(&options);
        let failed = |e| refused(Some(&place), e);
        let mut first = sqlx::PgConnection::connect_with(&options).await.map_err(failed)?;
        make_schema(&mut first, schema).await.map_err(failed)?;
        first.close().await.map_err(failed)?;
        let options = options.application_name("hashinsight").options([
            ("search_path", schema),
            ("synchronous_commit", "on"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "60s"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE.into())
            .connect_with(options)
            .await
            .map_err(failed)?;
        Ok(Self::Postgres { pool, lock })
    }
}

/// Host and database, without the password.
fn place(options: &PgConnectOptions) -> String {
    let socket = options.get_socket().map(|socket| socket.display().to_string());
    let host = socket.unwrap_or_else(|| format!("{}:{}", options.get_host(), options.get_port()));
    format!("{host}/{}", options.get_database().unwrap_or_default())
}

fn refused(place: Option<&str>, error: sqlx::Error) -> Error {
    let text = match place {
        Some(place) => format!(
            "the PostgreSQL database {place} can't be used; is it running, does it exist, and may we create in it?"
        ),
        None => "the store's URL is not of the form postgres://user:password@host/name".to_owned(),
    };
    Error::new(Kind::Unavailable, text).because(error)
}

async fn make_schema(on: &mut sqlx::PgConnection, schema: &'static str) -> Result<(), sqlx::Error> {
    let mut tx = on.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *tx).await?;
    let sql = match schema {
        "telemetry" => "create schema if not exists telemetry",
        _ => "create schema if not exists business",
    };
    sqlx::query(sql).execute(&mut *tx).await?;
    tx.commit().await
}

/// The only write transaction of the database until it ends.
pub async fn begin(pool: &PgPool, lock: i32) -> Result<Transaction<'static, Postgres>> {
    let mut tx = pool.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1, 0)").bind(lock).execute(&mut *tx).await?;
    Ok(tx)
}

/// The only write transaction of these agents until it ends.
pub async fn begin_for(
    pool: &PgPool,
    lock: i32,
    agents: impl IntoIterator<Item = AgentId>,
) -> Result<Transaction<'static, Postgres>> {
    let number = |agent: AgentId| {
        let bytes = agent.as_bytes();
        // From 1: 0 is the database's own lock.
        1 + i64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])) % AGENT_LOCKS
    };
    // In one order everywhere, so that two never wait for each other.
    let numbers: BTreeSet<i64> = agents.into_iter().map(number).collect();
    let numbers: Vec<i64> = numbers.into_iter().collect();
    let mut tx = pool.begin().await?;
    sqlx::query("select pg_advisory_xact_lock_shared($1, 0)").bind(lock).execute(&mut *tx).await?;
    sqlx::query("select pg_advisory_xact_lock($1, number::integer) from unnest($2) as number")
        .bind(lock)
        .bind(numbers)
        .execute(&mut *tx)
        .await?;
    Ok(tx)
}

fn bind(args: Vec<Value>) -> Result<PgArguments> {
    use sqlx::Arguments as _;
    let mut out = PgArguments::default();
    for arg in args {
        match arg {
            Value::Int(v) => out.add(v),
            Value::Real(v) => out.add(v),
            Value::Text(v) => out.add(v.map(text)),
            Value::Blob(v) => out.add(v),
        }
        .map_err(Error::internal)?;
    }
    Ok(out)
}

/// As PostgreSQL takes it.
pub fn text(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

pub async fn fetch_all<'c, R: Row>(
    on: impl Executor<'c, Database = Postgres>,
    sql: &'static str,
    args: Vec<Value>,
) -> Result<Vec<R>> {
    let rows = sqlx::query_with(sql, bind(args)?).fetch_all(on).await?;
    rows.iter().map(|row| R::read(&Columns::Postgres(row)).map_err(Error::from)).collect()
}

pub async fn fetch_optional<'c, R: Row>(
    on: impl Executor<'c, Database = Postgres>,
    sql: &'static str,
    args: Vec<Value>,
) -> Result<Option<R>> {
    let row = sqlx::query_with(sql, bind(args)?).fetch_optional(on).await?;
    row.map(|row| R::read(&Columns::Postgres(&row)).map_err(Error::from)).transpose()
}

pub async fn execute<'c>(
    on: impl Executor<'c, Database = Postgres>,
    sql: &'static str,
    args: Vec<Value>,
) -> Result<u64> {
    Ok(sqlx::query_with(sql, bind(args)?).execute(on).await?.rows_affected())
}

/// Runs a statement whose arguments are arrays, one a column of `rows`.
pub async fn execute_arrays<'c>(
    on: impl Executor<'c, Database = Postgres>,
    sql: &'static str,
    columns: usize,
    rows: Vec<Vec<Value>>,
) -> Result<u64> {
    use sqlx::Arguments as _;
    let mut arrays: Vec<Array> = Vec::with_capacity(columns);
    for row in rows {
        for (at, value) in row.into_iter().enumerate() {
            match (arrays.get_mut(at), value) {
                (Some(Array::Int(all)), Value::Int(v)) => all.push(v),
                (Some(Array::Real(all)), Value::Real(v)) => all.push(v),
                (Some(Array::Text(all)), Value::Text(v)) => all.push(v.map(text)),
                (Some(Array::Blob(all)), Value::Blob(v)) => all.push(v),
                (None, Value::Int(v)) => arrays.push(Array::Int(vec![v])),
                (None, Value::Real(v)) => arrays.push(Array::Real(vec![v])),
                (None, Value::Text(v)) => arrays.push(Array::Text(vec![v.map(text)])),
                (None, Value::Blob(v)) => arrays.push(Array::Blob(vec![v])),
                _ => return Err(Error::internal("a column of two types")),
            }
        }
    }
    let mut out = PgArguments::default();
    for array in arrays {
        match array {
            Array::Int(all) => out.add(all),
            Array::Real(all) => out.add(all),
            Array::Text(all) => out.add(all),
            Array::Blob(all) => out.add(all),
        }
        .map_err(Error::internal)?;
    }
    Ok(sqlx::query_with(sql, out).execute(on).await?.rows_affected())
}

enum Array {
    Int(Vec<Option<i64>>),
    Real(Vec<Option<f64>>),
    Text(Vec<Option<String>>),
    Blob(Vec<Option<Vec<u8>>>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_checked_and_never_shown() {
        let url: StoreUrl = "postgres://me:geheim@db.example/hashinsight".parse().unwrap();
        assert!(!format!("{url:?}").contains("geheim"));
        let options: PgConnectOptions = url.0.parse().unwrap();
        assert_eq!(place(&options), "db.example:5432/hashinsight");
        for wrong in ["mysql://me:geheim@db/x", "postgres://me:geheim@db:x/y", "hashinsight.db"] {
            let error = wrong.parse::<StoreUrl>().unwrap_err();
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
