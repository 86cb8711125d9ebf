//! The journal: what must not be lost, in `journal.db`.
//!
//! **Holds** the inventory with what was learned of each miner, the plans with what was ordered of them,
//! the engine's book as a row a record, results of orders, and the streams Events, Evidence and Audit
//! until the control plane has them.
//!
//! **Limits.** A plan is at most one document, a document at most
//! [`DOWN_BYTES`](hashinsight_protocol::limits::DOWN_BYTES); 20,000 results of orders; calls wait in a
//! queue of 64. Events have no quota: they are few, and never dropped.
//!
//! **Rule.** A fact and the events that tell of it are one transaction, and a call returns when it is on
//! the disk (`synchronous=FULL`). Deleting what is acknowledged doesn't wait for the disk: taken back, it
//! costs a repeated batch. One sequence for each stream; numbers are given within the transaction, so
//! that a tool beside the running agent can write too. What a tool has written is noticed within a
//! second.
//!
//! **Overflow.** Disk space is reserved beside the file and given up when there is no other. When that is
//! gone too, [`Journal::is_writable`] says no: no new stops; wake-ups go on, an alarm is raised as soon as
//! it can be stored.
//!
//! **Corruption.** A corrupt file is set aside; what can be read of it goes into a new one under a new
//! epoch, and an alarm says so.
//!
//! **Recovery.** A restored disk shows when the control plane has numbers that this file hasn't given, and
//! a new identity when the file names another agent: a new epoch begins and all that is kept is sealed
//! anew.

use super::db::{StoreError, Worker};
use super::document::{Opened, Taken, Verdict};
use super::journal_file::{JournalFile, STREAMS, Signals};
use super::sealer::Sealer;
use super::{InventoryMiner, Kept, MinerEdit};
use crate::clock::Clock;
use crate::identity_files::Identity;
use hashinsight_curtailment::{Book, Change, HeldPlan};
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::events::EventV1;
use hashinsight_protocol::ids::{Epoch, MinerId};
use hashinsight_protocol::order::OrderV1;
use hashinsight_protocol::presence::StreamStateV1;
use hashinsight_protocol::topics::Stream;
use hashinsight_protocol::units::Millis;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often another process's writes are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How often a journal in trouble is tried again.
const TEND: u32 = 10;

#[derive(Clone)]
pub struct Journal {
    file: Worker<JournalFile>,
    signals: Signals,
    writable: Arc<AtomicBool>,
}

/// How the journal fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub writable: bool,
    /// Whether the space for bad times is still there.
    pub reserve_held: bool,
}

impl Journal {
    /// Opens or creates the journal, for the process that runs the agent.
    ///
    /// # Errors
    /// The folder can't be written to, or the file belongs to a newer version.
    pub fn open(data_dir: &Path, sealer: Sealer) -> Result<Self, StoreError> {
        Self::start(JournalFile::open(data_dir, sealer, true)?)
    }

    /// Opens the journal for a tool, beside a running agent or without one.
    ///
    /// # Errors
    /// The gateway is not enrolled, or as for [`Self::open`].
    pub fn open_tool(data_dir: &Path) -> Result<Self, StoreError> {
        let sealer = Identity::load(data_dir)?.sealer();
        Self::start(JournalFile::open(data_dir, sealer, false)?)
    }

    fn start(file: JournalFile) -> Result<Self, StoreError> {
        let signals = file.signals.clone();
        Ok(Self { file: Worker::start("journal", file)?, signals, writable: Arc::new(AtomicBool::new(true)) })
    }

    async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut JournalFile) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let writable = self.writable.clone();
        self.file
            .call(move |file| {
                let outcome = job(file);
                writable.store(file.writable, Ordering::Relaxed);
                outcome
            })
            .await
    }

    /// Stores events in a stream.
    ///
    /// # Errors
    /// They could not be stored.
    pub async fn record(&self, stream: Stream, at: MomentV1, events: Vec<EventV1>) -> Result<(), StoreError> {
        self.call(move |file| file.record(stream, at, &events)).await
    }

    /// Stores changes of the engine's book and the events of the same step, in one transaction.
    ///
    /// # Errors
    /// Nothing of it was stored.
    pub async fn commit_step(
        &self,
        changes: Vec<Change>,
        at: MomentV1,
        events: Vec<EventV1>,
    ) -> Result<(), StoreError> {
        self.call(move |file| file.commit_step(&changes, at, &events)).await
    }

    /// The engine's book.
    ///
    /// # Errors
    /// It can't be read.
    pub async fn book(&self) -> Result<Book, StoreError> {
        Ok(Book::from(self.call(|file| file.book()).await?))
    }

    /// The inventory, in the order of ids.
    ///
    /// # Errors
    /// It can't be read.
    pub async fn miners(&self) -> Result<Vec<InventoryMiner>, StoreError> {
        self.call(|file| file.miners()).await
    }

    /// Takes `miners` for the whole inventory; tells who is new, changed or gone.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn replace_miners(&self, miners: Vec<InventoryMiner>, at: MomentV1) -> Result<(), StoreError> {
        self.call(move |file| file.replace_miners(&miners, at)).await
    }

    /// Stores what was learned of some miners, in one transaction; who has left the inventory stays away.
    ///
    /// # Errors
    /// Nothing of it was stored.
    pub async fn learn(&self, miners: Vec<InventoryMiner>, at: MomentV1) -> Result<(), StoreError> {
        self.call(move |file| file.learn(&miners, at)).await
    }

    /// Adds miners to the inventory; one that is in it stays as it is.
    ///
    /// # Errors
    /// None was added.
    pub async fn add(&self, miners: Vec<InventoryMiner>, at: MomentV1) -> Result<(), StoreError> {
        self.call(move |file| file.add(&miners, at)).await
    }

    /// Stores what people say of some miners, in one transaction. Says how many of them there are.
    ///
    /// # Errors
    /// Nothing of it was stored.
    pub async fn edit(&self, edits: Vec<(MinerId, MinerEdit)>, at: MomentV1) -> Result<usize, StoreError> {
        self.call(move |file| file.edit(&edits, at)).await
    }

    /// Changes with the inventory, also when another process changes it.
    pub fn miners_changed(&self) -> watch::Receiver<u64> {
        self.signals.miners.subscribe()
    }

    /// The plans held; changes when a document or an order was stored, or a lease renewed.
    pub fn plans(&self) -> watch::Receiver<Arc<Vec<HeldPlan>>> {
        self.signals.plans.subscribe()
    }

    /// Whether the last write reached the disk. If not: no new stops; wake-ups go on.
    pub fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// The agent starts; says whether its last run ended in order.
    ///
    /// # Errors
    /// The journal can't be written.
    pub async fn started(&self, at: MomentV1) -> Result<bool, StoreError> {
        self.call(move |file| file.start(env!("CARGO_PKG_VERSION"), at)).await
    }

    /// The agent ends in order.
    ///
    /// # Errors
    /// The journal can't be written.
    pub async fn ended(&self) -> Result<(), StoreError> {
        self.call(JournalFile::end).await
    }

    /// A number for a connection, higher than all before.
    ///
    /// # Errors
    /// The journal can't be written.
    pub async fn next_session(&self) -> Result<u64, StoreError> {
        self.call(JournalFile::next_session).await
    }

    /// The latest wall time that was known to be good.
    ///
    /// # Errors
    /// The journal can't be read.
    pub async fn last_good(&self) -> Result<Millis, StoreError> {
        self.call(|file| file.last_good()).await
    }

    /// Remembers a wall time that is known to be good.
    ///
    /// # Errors
    /// The journal can't be written.
    pub async fn remember_good(&self, wall: Millis) -> Result<(), StoreError> {
        self.call(move |file| file.remember_good(wall)).await
    }

    /// The version of the document held; 0 for none.
    ///
    /// # Errors
    /// The journal can't be read.
    pub async fn document(&self) -> Result<u64, StoreError> {
        self.call(|file| file.document()).await
    }

    /// Stores a verified document whole, where it is newer than the one held, and tells what is held now.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn store_document(&self, opened: Opened, at: MomentV1) -> Result<Verdict, StoreError> {
        self.call(move |file| file.store_document(&opened, at)).await
    }

    /// Takes a verified order, once; tells what became of it, also of a repeat.
    ///
    /// # Errors
    /// Nothing was changed; the order may be sent again.
    pub async fn take_order(&self, order: OrderV1, at: MomentV1) -> Result<Taken, StoreError> {
        self.call(move |file| file.take_order(&order, at)).await
    }

    /// The control plane has spoken: every lease runs anew.
    ///
    /// # Errors
    /// The store is closed.
    pub async fn contact(&self, at: MomentV1) -> Result<(), StoreError> {
        self.call(move |file| {
            file.contact(at);
            Ok(())
        })
        .await
    }

    /// Batches of a stream with numbers above `after` and up to `until`, lowest first.
    ///
    /// # Errors
    /// The journal can't be read.
    pub async fn pending(
        &self,
        stream: Stream,
        after: u64,
        until: u64,
        limit: usize,
    ) -> Result<Vec<Kept>, StoreError> {
        self.call(move |file| file.pending(stream, after, until, limit)).await
    }

    /// Deletes what the control plane has for good. Returns the epoch after it: another one where the file
    /// turned out to be a restored one.
    ///
    /// # Errors
    /// The journal can't be written; the batches will be sent again.
    pub async fn acked(
        &self,
        stream: Stream,
        epoch: Epoch,
        ranges: Vec<(u64, u64)>,
    ) -> Result<Epoch, StoreError> {
        self.call(move |file| file.acked(stream, epoch, &ranges).map(|()| file.epoch())).await
    }

    /// What a hello says of a stream.
    ///
    /// # Errors
    /// The journal can't be read.
    pub async fn state(&self, stream: Stream) -> Result<StreamStateV1, StoreError> {
        self.call(move |file| file.state(stream)).await
    }

    /// The streams that are kept here.
    pub fn streams() -> [Stream; 3] {
        STREAMS
    }

    /// Changes when a stream has grown.
    pub fn streams_changed(&self) -> watch::Receiver<u64> {
        self.signals.streams.subscribe()
    }

    /// How the journal fares.
    ///
    /// # Errors
    /// The store is closed.
    pub async fn health(&self) -> Result<Health, StoreError> {
        self.call(|file| Ok(Health { writable: file.writable, reserve_held: file.reserve_held() })).await
    }

    /// Notices what other processes write, and keeps trying where the disk was full; until stopped.
    pub async fn tend(&self, clock: Clock, stop: CancellationToken) {
        let mut every = tokio::time::interval(LOOK);
        let mut turn = 0u32;
        let mut told = Health { writable: true, reserve_held: true };
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            if let Err(error) = self.call(JournalFile::look).await {
                tracing::debug!(%error, "cannot look at the journal");
            }
            turn = turn.wrapping_add(1);
            if turn.is_multiple_of(TEND) {
                let _ = self.call(JournalFile::tend).await;
                told = self.raise_alarms(told, clock.now()).await;
            }
        }
    }

    async fn raise_alarms(&self, told: Health, at: MomentV1) -> Health {
        let Ok(health) = self.health().await else { return told };
        let text = match (health.writable, health.reserve_held) {
            _ if health == told => return told,
            (false, _) => "the journal cannot be written: no new stops; make room on the disk",
            (true, false) => "the disk is full: the journal lives on its reserve; make room on the disk",
            (true, true) => "the journal has room again",
        };
        tracing::warn!("{text}");
        let told_now = self.call(move |file| file.alarm(text, at)).await.is_ok();
        if told_now { health } else { told }
    }
}
