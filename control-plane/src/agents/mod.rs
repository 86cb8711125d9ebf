//! Agents: enrolment, certificates, signing keys, presence.

pub mod broker_files;
pub mod ca;
pub mod ceremony;
pub mod certificates;
pub mod enrolment;
mod files;
pub mod keys;
pub mod presence;
pub mod renewal;
pub mod tokens;

use crate::App;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::Stores;
use ca::{Authority, ServerIdentity};
use certificates::Directory;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::topics::Down;
use hashinsight_protocol::units::Millis;
use keys::Keys;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;
use tokens::Failures;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Keys and certificates that belong together.
#[derive(Debug)]
pub struct Held {
    pub authority: Authority,
    /// What both ports show.
    pub server: ServerIdentity,
    pub keys: Keys,
}

/// What is held for agents.
#[derive(Debug)]
pub struct Agents {
    data: PathBuf,
    host: String,
    /// With the marks of the files that it was read from.
    held: RwLock<(Arc<Held>, Marks)>,
    /// Who is admitted.
    pub directory: Arc<Directory>,
    failures: Mutex<Failures>,
}

/// Time and size of each file that the ceremony replaces.
type Marks = Vec<Option<(SystemTime, u64)>>;

fn marks(data: &Path) -> Marks {
    let mark = |name| std::fs::metadata(data.join(name)).and_then(|m| Ok((m.modified()?, m.len()))).ok();
    ["trust", "signing.key", "ca.key", "ca.pem"].map(mark).to_vec()
}

impl Held {
    fn open(data: &Path, host: &str, now: Millis) -> Result<Self> {
        let authority = Authority::open(data, now)?;
        let keys = Keys::open(data, authority.certificate(), now)?;
        Ok(Self { server: authority.server(data, host, now)?, authority, keys })
    }
}

impl Agents {
    /// # Errors
    /// Keys or certificates can't be read or made.
    pub async fn open(config: &Config, stores: &Stores, now: Millis) -> Result<Self> {
        let held = Held::open(&config.data, &config.public_host, now)?;
        Ok(Self {
            held: RwLock::new((Arc::new(held), marks(&config.data))),
            data: config.data.clone(),
            host: config.public_host.clone(),
            directory: Arc::new(Directory::open(&stores.business, now).await?),
            failures: Mutex::default(),
        })
    }

    /// Keys and certificates as they are now.
    pub fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Takes up what the key ceremony has put into the folder, and renews the server's certificate when
    /// it is time; true when anything changed.
    ///
    /// # Errors
    /// The files do not belong together; what was held stays.
    pub fn refresh(&self, now: Millis) -> Result<bool> {
        let marks = marks(&self.data);
        {
            let (held, seen) = &*self.held.read().unwrap_or_else(PoisonError::into_inner);
            if *seen == marks && now < held.server.renew_at {
                return Ok(false);
            }
        }
        let held = Held::open(&self.data, &self.host, now)?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = (Arc::new(held), marks);
        Ok(true)
    }

    /// Seals a body for one agent.
    ///
    /// # Errors
    /// The result would be too large.
    pub fn seal(&self, agent: AgentId, kind: Down, seq: u64, body: &[u8]) -> Result<Vec<u8>> {
        self.held().keys.seal(agent, kind, seq, body).map_err(Error::internal)
    }
}

/// Serves enrolment until `shutdown`.
///
/// # Errors
/// The listener fails.
pub async fn serve(app: Arc<App>, listener: TcpListener, shutdown: CancellationToken) -> Result<()> {
    enrolment::serve(app, listener, shutdown).await
}
