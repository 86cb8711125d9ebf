//! The agent's side: the agent's own poller on its own runtime, with all that it does to a reading. The
//! contact with its deadline and its gate, the decoding by the family's profile, the live view, the
//! columns, the signature, and the outbox in SQLite with every commit on the disk.
//!
//! What is left out: the uplink, and the executor, which has nothing to do while no plan runs.

use crate::measure::{Cost, Memory, Stopwatch, allow_many_sockets, forget_peak, memory};
use crate::poll::device;
use crate::{Result, child};
use clap::Args;
use hashinsight_agent::cli::runtime;
use hashinsight_agent::clock::Clock;
use hashinsight_agent::config::Config;
use hashinsight_agent::credentials::CredentialStore;
use hashinsight_agent::poller::contact::Contacts;
use hashinsight_agent::poller::devices::Devices;
use hashinsight_agent::poller::pace::Tempo;
use hashinsight_agent::poller::{Field, Settings};
use hashinsight_agent::store::{InventoryMiner, Journal, Outbox, Sealer};
use hashinsight_firmware::Profiles;
use hashinsight_protocol::ids::{AgentId, MinerId};
use hashinsight_protocol::signing::SigningKey;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
pub struct FieldArgs {
    /// The agent's data folder.
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    port: u16,
    #[arg(long)]
    miners: usize,
    /// Connections at a time; the agent's own number where none is given.
    #[arg(long)]
    concurrency: Option<u32>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Poll every miner once, spread over a time, each within a deadline.
    Burst { window_ms: u64, deadline_ms: u64 },
    /// From now on every nth miner is at this port.
    Move { every: usize, port: u16 },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Done {
    pub cost: Cost,
    pub answered: usize,
    pub memory: Memory,
}

struct Agent {
    field: Field,
    journal: Journal,
    clock: Clock,
    miners: Vec<InventoryMiner>,
}

pub fn run(args: &FieldArgs) -> Result<()> {
    allow_many_sockets();
    // As the agent does, so that what it would say costs what it costs there.
    tracing_subscriber::fmt().with_env_filter("warn").with_writer(std::io::stderr).init();
    let runtime = runtime()?;
    let mut agent = runtime.block_on(Agent::start(args))?;
    child::tell(&true)?;
    child::serve(|order| runtime.block_on(agent.obey(order)))
}

impl Agent {
    async fn start(args: &FieldArgs) -> Result<Self> {
        let mut config =
            Config { data_dir: args.data.clone(), api_port: args.port, web_port: 1, ..Config::default() };
        config.concurrency = args.concurrency.unwrap_or(config.concurrency);
        let clock = Clock::system()?;
        let key = SigningKey::from_seed(&[7; 32])?;
        let sealer = Sealer::new(AgentId::from_random([7; 16]), Arc::new(key));
        let journal = Journal::open(&args.data, sealer.clone())?;
        let quota = u64::from(config.outbox_quota_mb) << 20;
        let outbox = Outbox::open(&args.data, quota, sealer, journal.clone(), clock.now()).await?;
        let (profiles, signs) = (Profiles::builtin(), CredentialStore::builtin());
        let contacts = Contacts::new(clock.clone(), profiles, signs, config.api_port, config.web_port);
        let devices = Devices::start()?;
        let field = Field::new(contacts, outbox, journal.clone(), Settings::of(&config), devices);
        let agent = Self { field, journal, clock, miners: (0..args.miners).map(miner).collect() };
        agent.take_inventory().await?;
        Ok(agent)
    }

    async fn take_inventory(&self) -> Result<()> {
        self.journal.replace_miners(self.miners.clone(), self.clock.now()).await?;
        self.field.refresh_inventory().await;
        Ok(())
    }

    async fn obey(&mut self, order: Order) -> Result<Done> {
        match order {
            Order::Burst { window_ms, deadline_ms } => {
                let window = Duration::from_millis(window_ms);
                let deadline = Duration::from_millis(deadline_ms);
                let tempo = Tempo { cycle: Duration::from_secs(60), window, deadline };
                forget_peak();
                let watch = Stopwatch::start();
                let summary = self.field.burst(tempo, &CancellationToken::new()).await;
                let cost = watch.stop();
                let answered = summary.map_or(0, |summary| summary.answered);
                Ok(Done { cost, answered, memory: memory() })
            }
            Order::Move { every, port } => {
                for miner in self.miners.iter_mut().step_by(every) {
                    miner.api_port = Some(port);
                }
                self.take_inventory().await?;
                Ok(Done { cost: Cost::default(), answered: 0, memory: memory() })
            }
        }
    }
}

/// Ids in the order of the addresses.
fn miner(nth: usize) -> InventoryMiner {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&(nth as u32 + 1).to_be_bytes());
    InventoryMiner {
        id: MinerId::from_random(id),
        ip: device(nth),
        api_port: None,
        rack: None,
        position: None,
        customer: None,
        credentials: None,
        out_of_service: false,
        protected: false,
        learned: None,
    }
}
