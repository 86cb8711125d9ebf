//! The databases: one SQL text a statement, whichever database runs it.
//!
//! SQL stays in the subset that SQLite and PostgreSQL share: `$1` placeholders, `on conflict`,
//! `returning`, times as i64 milliseconds, ids as text, booleans as 0 and 1. Statements are literals,
//! so no input is ever part of one.
//!
//! SQLite has one connection for writing and several for reading. A write transaction begins with
//! BEGIN IMMEDIATE: one that read first and then wrote would fail at once whenever another writer
//! came between. Business and telemetry are two files, so that ingest never delays an approval;
//! no statement spans both.

pub mod migrate;
mod values;

pub use values::{Column, Columns, Row, Value};

use crate::error::{Error, Result};
use hashinsight_protocol::units::DurationMs;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Executor, Sqlite};
use std::path::Path;

/// Connections that read.
const READERS: u32 = 4;
/// A statement waits this long for another process (the command line beside the server) to finish.
const BUSY: DurationMs = DurationMs::from_secs(10);

/// One database.
#[derive(Clone, Debug)]
pub enum Db {
    Sqlite {
        read: SqlitePool,
        /// One connection.
        write: SqlitePool,
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
}

/// Arguments of a statement, in the order of its placeholders.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { ::std::vec![$($crate::store::Value::from($value)),*] };
}

impl Db {
    /// Opens a SQLite file, and makes it when it is not there.
    ///
    /// # Errors
    /// The file can't be opened or is no database.
    pub async fn open_sqlite(file: &Path) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        // Made here, so that nobody else reads it whatever the folder allows; SQLite gives the same
        // rights to the files beside it.
        let made = std::fs::File::options().create(true).append(true).mode(0o600).open(file);
        drop(made.map_err(|e| cannot_open(file, sqlx::Error::Io(e)))?);
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit is on the disk before anybody is told: agents delete what was acknowledged.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY.into())
            .pragma("cache_size", "-16384")
            .pragma("mmap_size", "268435456")
            .optimize_on_close(true, None);
        let pool = |connections: u32| SqlitePoolOptions::new().max_connections(connections);
        let write = pool(1).connect_with(options.clone()).await.map_err(|e| cannot_open(file, e))?;
        let read =
            pool(READERS).connect_with(options.read_only(true)).await.map_err(|e| cannot_open(file, e))?;
        Ok(Self::Sqlite { read, write })
    }

    /// All rows of a query.
    ///
    /// # Errors
    /// The database fails, or a row is not what the query's caller expects; so for all below.
    pub async fn fetch_all<R: Row>(&self, sql: &'static str, args: Vec<Value>) -> Result<Vec<R>> {
        let Self::Sqlite { read, .. } = self;
        sqlite::fetch_all(read, sql, args).await
    }

    /// The first row of a query.
    pub async fn fetch_optional<R: Row>(&self, sql: &'static str, args: Vec<Value>) -> Result<Option<R>> {
        let Self::Sqlite { read, .. } = self;
        sqlite::fetch_optional(read, sql, args).await
    }

    /// The one row of a query that always has one.
    pub async fn fetch_one<R: Row>(&self, sql: &'static str, args: Vec<Value>) -> Result<R> {
        one(self.fetch_optional(sql, args).await?)
    }

    /// Runs one statement in a transaction of its own; how many rows it touched.
    pub async fn execute(&self, sql: &'static str, args: Vec<Value>) -> Result<u64> {
        let Self::Sqlite { write, .. } = self;
        sqlite::execute(write, sql, args).await
    }

    /// Begins a write transaction. On SQLite it is the only one until it ends: keep it short, and
    /// never wait for anything but the database in it.
    pub async fn begin(&self) -> Result<Tx> {
        let Self::Sqlite { write, .. } = self;
        Ok(Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?))
    }

    /// Closes all connections; what was committed is in the file.
    pub async fn close(&self) {
        let Self::Sqlite { read, write } = self;
        read.close().await;
        write.close().await;
    }
}

impl Tx {
    pub async fn fetch_all<R: Row>(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<R>> {
        let Self::Sqlite(tx) = self;
        sqlite::fetch_all(&mut **tx, sql, args).await
    }

    /// The first row of a query; of a `returning` as well.
    pub async fn fetch_optional<R: Row>(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Option<R>> {
        let Self::Sqlite(tx) = self;
        sqlite::fetch_optional(&mut **tx, sql, args).await
    }

    pub async fn fetch_one<R: Row>(&mut self, sql: &'static str, args: Vec<Value>) -> Result<R> {
        one(self.fetch_optional(sql, args).await?)
    }

    /// Runs one statement; how many rows it touched.
    pub async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64> {
        let Self::Sqlite(tx) = self;
        sqlite::execute(&mut **tx, sql, args).await
    }

    pub async fn commit(self) -> Result<()> {
        let Self::Sqlite(tx) = self;
        Ok(tx.commit().await?)
    }
}

fn one<R>(row: Option<R>) -> Result<R> {
    row.ok_or_else(|| Error::internal(sqlx::Error::RowNotFound))
}

fn cannot_open(file: &Path, error: sqlx::Error) -> Error {
    let text = format!(
        "the database {} can't be opened; is it a file of ours, and may we write there?",
        file.display()
    );
    Error::new(crate::error::Kind::Internal, text).because(error)
}

/// The SQLite arm.
mod sqlite {
    use super::*;

    fn bind(args: Vec<Value>) -> Result<SqliteArguments> {
        use sqlx::Arguments as _;
        let mut out = SqliteArguments::default();
        for arg in args {
            match arg {
                Value::Int(v) => out.add(v),
                Value::Real(v) => out.add(v),
                Value::Text(v) => out.add(v),
                Value::Blob(v) => out.add(v),
            }
            .map_err(Error::internal)?;
        }
        Ok(out)
    }

    pub async fn fetch_all<'c, R: Row>(
        on: impl Executor<'c, Database = Sqlite>,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<Vec<R>> {
        let rows = sqlx::query_with(sql, bind(args)?).fetch_all(on).await?;
        rows.iter().map(|row| R::read(&Columns::Sqlite(row)).map_err(Error::from)).collect()
    }

    pub async fn fetch_optional<'c, R: Row>(
        on: impl Executor<'c, Database = Sqlite>,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<Option<R>> {
        let row = sqlx::query_with(sql, bind(args)?).fetch_optional(on).await?;
        row.map(|row| R::read(&Columns::Sqlite(&row)).map_err(Error::from)).transpose()
    }

    pub async fn execute<'c>(
        on: impl Executor<'c, Database = Sqlite>,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<u64> {
        Ok(sqlx::query_with(sql, bind(args)?).execute(on).await?.rows_affected())
    }
}
