//! SQLite as both files use it: how they are opened, one worker thread each, one error type.

use crate::identity_files::{IdentityError, own_like_folder};
use hashinsight_protocol::envelope::WireError;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// Calls that may wait for a file's thread; the next caller waits to enter.
const QUEUE: usize = 64;

#[derive(Debug, Error)]
pub enum StoreError {
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the disk is full")]
    Full,
    #[error("the file is corrupt")]
    Corrupt,
    #[error("{path} was written by a newer version of this program")]
    Newer { path: PathBuf },
    #[error("database: {0}")]
    Sqlite(rusqlite::Error),
    #[error("{what} in the journal cannot be read: {reason}")]
    Unreadable { what: &'static str, reason: String },
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the store is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt,
            _ => Self::Sqlite(error),
        }
    }
}

/// What a file is and how it is made.
pub(crate) struct Schema {
    /// Marks the file as ours, in its header.
    pub application: i32,
    pub version: i32,
    pub create: &'static str,
}

/// Opens or creates a file, readable by its owner alone.
pub(crate) fn open(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    // SQLite would create it with the umask's mode; its -wal and -shm files take mode and owner of this one.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(io)?;
    own_like_folder(path).map_err(io)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(Duration::from_secs(10))?;
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "cache_size", -1024)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update_and_check(None, "journal_size_limit", 8 << 20, |_| Ok(()))?;
    conn.pragma_update(None, "trusted_schema", false)?;
    let number = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    match (application, version) {
        (0, 0) => {
            // An empty file; IMMEDIATE, so that two processes don't both create.
            conn.execute_batch(&format!(
                "BEGIN IMMEDIATE; {} PRAGMA application_id = {}; PRAGMA user_version = {}; COMMIT;",
                schema.create, schema.application, schema.version
            ))?;
        }
        (application, version) if application == schema.application && version == schema.version => {}
        (application, version) if application == schema.application && version > schema.version => {
            return Err(StoreError::Newer { path: path.to_owned() });
        }
        _ => return Err(StoreError::Corrupt),
    }
    Ok(conn)
}

/// Moves a file that can't be used out of the way, with its companions. Returns its new path.
pub(crate) fn set_aside(path: &Path, mark: &str) -> Result<PathBuf, StoreError> {
    let with = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with(path, &format!(".corrupt-{mark}"));
    for suffix in ["", "-wal", "-shm"] {
        let from = with(path, suffix);
        match std::fs::rename(&from, with(&aside, suffix)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Io { path: from, source });
            }
            _ => {}
        }
    }
    Ok(aside)
}

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A thread that owns a file. Calls are served in their order; the thread ends with its last handle.
pub(crate) struct Worker<S> {
    jobs: mpsc::Sender<Job<S>>,
}

impl<S> Clone for Worker<S> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone() }
    }
}

impl<S: Send + 'static> Worker<S> {
    pub fn start(name: &str, mut state: S) -> Result<Self, StoreError> {
        let (jobs, mut queue) = mpsc::channel::<Job<S>>(QUEUE);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut state);
                }
            })
            .map_err(|source| StoreError::Io { path: PathBuf::from(name), source })?;
        Ok(Self { jobs })
    }

    /// Runs `job` on the thread. It runs to its end even when the caller gives up.
    pub async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |state: &mut S| {
            let _ = reply.send(job(state));
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}
