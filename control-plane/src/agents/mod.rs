//! Agents: enrolment, certificates, signing keys, presence.

pub mod ca;
pub mod certificates;
pub mod enrolment;
mod files;
pub mod keys;
pub mod presence;
pub mod tokens;

use crate::App;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::Stores;
use ca::{Authority, ServerIdentity};
use certificates::Directory;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::topics::Down;
use hashinsight_protocol::units::Millis;
use keys::Keys;
use std::sync::{Arc, Mutex};
use tokens::Failures;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What is held for agents.
#[derive(Debug)]
pub struct Agents {
    pub authority: Authority,
    /// What both ports show.
    pub server: ServerIdentity,
    pub keys: Keys,
    /// Who is admitted.
    pub directory: Arc<Directory>,
    failures: Mutex<Failures>,
}

impl Agents {
    /// # Errors
    /// Keys or certificates can't be read or made.
    pub async fn open(config: &Config, stores: &Stores, now: Millis) -> Result<Self> {
        let authority = Authority::open(&config.data, now)?;
        Ok(Self {
            server: authority.server(&config.data, &config.public_host, now)?,
            authority,
            keys: Keys::open(&config.data)?,
            directory: Arc::new(Directory::open(&stores.business, now).await?),
            failures: Mutex::default(),
        })
    }

    /// Signs documents' parts.
    pub fn signing_key(&self) -> &SigningKey {
        self.keys.signing()
    }

    /// Seals a body for one agent.
    ///
    /// # Errors
    /// The result would be too large.
    pub fn seal(&self, agent: AgentId, kind: Down, seq: u64, body: &[u8]) -> Result<Vec<u8>> {
        self.keys.seal(agent, kind, seq, body).map_err(Error::internal)
    }
}

/// Serves enrolment until `shutdown`.
///
/// # Errors
/// The listener fails.
pub async fn serve(app: Arc<App>, listener: TcpListener, shutdown: CancellationToken) -> Result<()> {
    enrolment::serve(app, listener, shutdown).await
}
