//! The databases: one SQL text a statement, whichever database runs it.
//!
//! SQL stays in the subset that SQLite and PostgreSQL share: `$1` placeholders, `on conflict`,
//! `returning`, times as i64 milliseconds, ids as text, booleans as 0 and 1, sums of whole numbers cast
//! to bigint. Statements are literals, so no input is ever part of one.
//!
//! A write transaction sees the database as if it were alone, on both:
//!
//! - **SQLite** has one connection for writing and several for reading. A write transaction begins with
//!   BEGIN IMMEDIATE: one that read first and then wrote would fail at once whenever another writer
//!   came between. Business and telemetry are two files, so that ingest never delays an approval.
//! - **PostgreSQL** has a schema for each, and takes an advisory lock where SQLite has its one writer.
//!   [`Db::begin_for`] shares it among transactions of different agents, so that replicas write
//!   telemetry side by side.
//!
//! No statement spans both databases.

mod bulk;
pub mod migrate;
mod postgres;
mod sqlite;
#[cfg(test)]
pub mod testing;
mod values;

pub use bulk::Bulk;
pub use postgres::StoreUrl;
pub use values::{Column, Columns, Row, Value};

use crate::error::{Error, Result};
use hashinsight_protocol::ids::AgentId;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{Postgres, Sqlite};

/// One database.
#[derive(Clone, Debug)]
pub enum Db {
    Sqlite {
        read: SqlitePool,
        /// One connection.
        write: SqlitePool,
    },
    Postgres {
        pool: PgPool,
        /// Names this database's lock among those of the server.
        lock: i32,
    },
}

/// All databases of the control plane.
#[derive(Clone, Debug)]
pub struct Stores {
    pub business: Db,
    pub telemetry: Db,
}

/// A write transaction; dropped without [`Tx::commit`] it leaves nothing behind.
#[derive(Debug)]
pub enum Tx {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// Arguments of a statement, in the order of its placeholders.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { ::std::vec![$($crate::store::Value::from($value)),*] };
}

impl Db {
    /// All rows of a query.
    ///
    /// # Errors
    /// The database fails, or a row is not what the query's caller expects; so for all below.
    pub async fn fetch_all<R: Row>(&self, sql: &'static str, args: Vec<Value>) -> Result<Vec<R>> {
        match self {
            Self::Sqlite { read, .. } => sqlite::fetch_all(read, sql, args).await,
            Self::Postgres { pool, .. } => postgres::fetch_all(pool, sql, args).await,
        }
    }

    /// The first row of a query.
    pub async fn fetch_optional<R: Row>(&self, sql: &'static str, args: Vec<Value>) -> Result<Option<R>> {
        match self {
            Self::Sqlite { read, .. } => sqlite::fetch_optional(read, sql, args).await,
            Self::Postgres { pool, .. } => postgres::fetch_optional(pool, sql, args).await,
        }
    }

    /// The one row of a query that always has one.
    pub async fn fetch_one<R: Row>(&self, sql: &'static str, args: Vec<Value>) -> Result<R> {
        one(self.fetch_optional(sql, args).await?)
    }

    /// Runs one statement in a transaction of its own; how many rows it touched.
    pub async fn execute(&self, sql: &'static str, args: Vec<Value>) -> Result<u64> {
        match self {
            Self::Sqlite { write, .. } => sqlite::execute(write, sql, args).await,
            Self::Postgres { .. } => {
                let mut tx = self.begin().await?;
                let touched = tx.execute(sql, args).await?;
                tx.commit().await?;
                Ok(touched)
            }
        }
    }

    /// Begins a write transaction. It is the only one until it ends: keep it short, and never wait for
    /// anything but the database in it.
    pub async fn begin(&self) -> Result<Tx> {
        match self {
            Self::Sqlite { write, .. } => Ok(Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?)),
            Self::Postgres { pool, lock } => Ok(Tx::Postgres(postgres::begin(pool, *lock).await?)),
        }
    }

    /// Begins a write transaction that touches rows of these agents alone. Others of the same agents
    /// wait for it, and so does [`Self::begin`]; on SQLite all others do.
    pub async fn begin_for(&self, agents: impl IntoIterator<Item = AgentId>) -> Result<Tx> {
        match self {
            Self::Sqlite { .. } => self.begin().await,
            Self::Postgres { pool, lock } => {
                Ok(Tx::Postgres(postgres::begin_for(pool, *lock, agents).await?))
            }
        }
    }

    /// Closes all connections; what was committed is stored.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres { pool, .. } => pool.close().await,
        }
    }
}

impl Tx {
    pub async fn fetch_all<R: Row>(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<R>> {
        match self {
            Self::Sqlite(tx) => sqlite::fetch_all(&mut **tx, sql, args).await,
            Self::Postgres(tx) => postgres::fetch_all(&mut **tx, sql, args).await,
        }
    }

    /// The first row of a query; of a `returning` as well.
    pub async fn fetch_optional<R: Row>(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Option<R>> {
        match self {
            Self::Sqlite(tx) => sqlite::fetch_optional(&mut **tx, sql, args).await,
            Self::Postgres(tx) => postgres::fetch_optional(&mut **tx, sql, args).await,
        }
    }

    pub async fn fetch_one<R: Row>(&mut self, sql: &'static str, args: Vec<Value>) -> Result<R> {
        one(self.fetch_optional(sql, args).await?)
    }

    /// Runs one statement; how many rows it touched.
    pub async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64> {
        match self {
            Self::Sqlite(tx) => sqlite::execute(&mut **tx, sql, args).await,
            Self::Postgres(tx) => postgres::execute(&mut **tx, sql, args).await,
        }
    }

    pub async fn commit(self) -> Result<()> {
        match self {
            Self::Sqlite(tx) => Ok(tx.commit().await?),
            Self::Postgres(tx) => Ok(tx.commit().await?),
        }
    }
}

fn one<R>(row: Option<R>) -> Result<R> {
    row.ok_or_else(|| Error::internal(sqlx::Error::RowNotFound))
}
