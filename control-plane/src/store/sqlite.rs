//! SQLite: a file, one connection that writes, several that read.

use super::{Columns, Db, Row, Value};
use crate::error::{Error, Kind, Result};
use hashinsight_protocol::units::DurationMs;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Executor, Sqlite};
use std::path::Path;

/// Connections that read.
const READERS: u32 = 4;
/// A statement waits this long for another process (the command line beside the server) to finish.
const BUSY: DurationMs = DurationMs::from_secs(10);

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
}

fn cannot_open(file: &Path, error: sqlx::Error) -> Error {
    let text = format!(
        "the database {} can't be opened; is it a file of ours, and may we write there?",
        file.display()
    );
    Error::new(Kind::Internal, text).because(error)
}

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
