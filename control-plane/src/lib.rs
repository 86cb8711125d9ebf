//! The cloud program: fleet, plans, ingest and the web console.
//!
//! By capability, each a folder with its types, service, store and web part. Calls go one way:
//! web → service → store. No decision rests on memory: what memory holds is a cache or a nudge, so
//! the program may die at any time.

pub mod agents;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod curtailment;
pub mod error;
pub mod fleet;
pub mod identity;
pub mod metrics;
pub mod mqtt;
pub mod random;
mod sabotage;
pub mod serve;
pub mod store;
pub mod telemetry;
pub mod web;

pub use serve::serve;

use clock::Clock;
use config::{Addresses, Config};
use error::Result;
use std::sync::Arc;
use store::Stores;

/// What every part of the program shares.
#[derive(Debug)]
pub struct App {
    pub config: Config,
    /// Where the listeners really are: a configured port may be 0.
    pub addresses: Addresses,
    pub clock: Clock,
    pub stores: Stores,
    /// Which sites changed, for those who watch them.
    pub live: telemetry::Live,
    /// Which agents have something to be sent.
    pub nudge: mqtt::Nudge,
    /// Passwords, sessions, keys, and the limits on guessing them.
    pub identity: identity::Identity,
    /// Pages' view of each site's miners.
    pub fleet: fleet::Fleet,
    /// The certificate authority and the signing keys.
    pub agents: agents::Agents,
    pub metrics: metrics::Metrics,
}

impl App {
    /// # Errors
    /// Keys or certificates can't be read or made.
    pub async fn open(
        config: Config,
        addresses: Addresses,
        clock: Clock,
        stores: Stores,
    ) -> Result<Arc<Self>> {
        let agents = agents::Agents::open(&config, &stores, clock.now()).await?;
        Ok(Arc::new(Self {
            config,
            addresses,
            clock,
            stores,
            live: telemetry::Live::default(),
            nudge: mqtt::Nudge::default(),
            identity: identity::Identity::default(),
            fleet: fleet::Fleet::default(),
            agents,
            metrics: metrics::Metrics::default(),
        }))
    }
}
