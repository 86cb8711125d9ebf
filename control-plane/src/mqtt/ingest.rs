//! What agents send, into the databases.
//!
//! - **Group commit**: what has queued since the last commit becomes one transaction, at most [`MOST`]
//!   messages or [`MOST_BYTES`]. The queue before it is bounded: when the databases fall behind, the
//!   front door stops reading, and agents keep what they have.
//! - **Acknowledged after the commit**, never before: an agent deletes what is acknowledged. What is
//!   not stored is not acknowledged, with one exception that is kept in its own table: a batch that can
//!   never be stored (wrong content, or a kind this version doesn't know) is parked for good and
//!   acknowledged, so that its sender does not repeat it for ever.
//! - **A poisoned batch** never blocks others: when a group can't be stored, each of its batches is
//!   tried alone, and one that can never be stored is quarantined with its reason. That goes for one
//!   that makes the program panic too.
//! - **Recovery**: nothing is held between groups. Whatever was in flight at a crash comes again.

use super::wire::{self, EventBatch, Message, Presence, Unknown};
use super::{Heard, Link, downlink, streams};
use crate::App;
use crate::agents::presence;
use crate::error::{Error, Panicked, Result};
use crate::row;
use crate::sabotage;
use crate::store::Db;
use crate::telemetry::batches::{self, Batch, Memory};
use crate::telemetry::gaps;
use crate::telemetry::ledger::StreamKey;
use crate::telemetry::once::{Acks, Arrived, Counts, Ledgers};
use crate::telemetry::parked::{self, Why};
use crate::{args, audit};
use futures_util::FutureExt as _;
use hashinsight_broker::Up;
use hashinsight_protocol::events::EventV1;
use hashinsight_protocol::ids::{AgentId, Epoch};
use hashinsight_protocol::presence::AckV1;
use hashinsight_protocol::topics::{Down, Stream};
use hashinsight_protocol::units::{DurationMs, Millis};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Messages of one transaction.
pub const MOST: usize = 256;
/// Their bytes, but for the last one.
pub const MOST_BYTES: usize = 8 * 1024 * 1024;
/// After a database failed.
const PAUSE: Duration = Duration::from_millis(500);
/// An agent's refused messages are reported this often at most.
const COMPLAIN_EVERY: DurationMs = DurationMs::from_minutes(1);

/// The one writer of what agents send.
#[derive(Debug)]
pub struct Ingest {
    app: Arc<App>,
    link: Link,
    heard: Arc<Heard>,
    memory: Memory,
    /// When an agent was last complained of, and how much since.
    complaints: HashMap<AgentId, (Millis, u64)>,
}

impl Ingest {
    pub fn new(app: Arc<App>, link: Link, heard: Arc<Heard>) -> Self {
        Self { app, link, heard, memory: Memory::default(), complaints: HashMap::new() }
    }

    /// Goes on until the broker ends.
    ///
    /// # Errors
    /// None: what a message says or a database does is logged.
    pub async fn run(mut self, mut up: mpsc::Receiver<Up>) -> Result<()> {
        if let Err(error) = self.retry_parked().await {
            tracing::error!(error = error.chain(), "Parked batches could not be looked at.");
        }
        while let Some(first) = up.recv().await {
            let mut bytes = first.payload.len();
            let mut group = vec![first];
            while group.len() < MOST && bytes < MOST_BYTES {
                let Ok(next) = up.try_recv() else { break };
                bytes += next.payload.len();
                group.push(next);
            }
            self.take(group).await;
        }
        Ok(())
    }

    async fn take(&mut self, group: Vec<Up>) {
        let received_at = self.app.clock.now();
        let known: Vec<_> = group
            .into_iter()
            // The door admits nobody else; one that was revoked may have a message in the queue.
            .filter_map(|up| Some((self.app.agents.directory.known(up.agent).filter(|k| !k.revoked)?, up)))
            .collect();
        self.heard.add(known.iter().map(|(_, up)| up.agent));
        let open = move || {
            let open = |(known, up): (_, Up)| {
                (up.agent, up.stream, wire::open_or_set_aside(&up, &known, received_at, wire::open))
            };
            known.into_iter().map(open).collect::<Vec<_>>()
        };
        // Signatures take 50 µs each: not on a thread that serves connections.
        let opened = match tokio::task::spawn_blocking(open).await {
            Ok(opened) => opened,
            // Only at the end of the program; what was not acknowledged comes again.
            Err(_) => return,
        };

        let (mut telemetry, mut events, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for (agent, stream, message) in opened {
            match message {
                Ok(Message::Telemetry(batch)) => telemetry.push(batch),
                Ok(Message::Events(batch)) => events.push(batch),
                Ok(Message::Presence(word)) => words.push((agent, word)),
                Ok(Message::Unknown(unknown)) => self.park(unknown).await,
                Err(error) => self.complain(agent, stream, &error.to_string(), received_at).await,
            }
        }
        self.take_telemetry(&telemetry).await;
        self.take_events(&events).await;
        // Last, so that a hello finds what its agent sent before it.
        for (agent, word) in words {
            self.take_word(agent, word, received_at).await;
        }
    }

    async fn take_telemetry(&mut self, batches: &[Batch]) {
        if batches.is_empty() {
            return;
        }
        let Err(error) = self.store_telemetry(batches).await else { return };
        tracing::error!(error = error.chain(), batches = batches.len(), "Telemetry could not be stored.");
        for batch in batches {
            let Err(error) = self.store_telemetry(std::slice::from_ref(batch)).await else { continue };
            if error.is_of_content() {
                self.quarantine(&self.app.stores.telemetry, batch, &error.chain()).await;
            } else {
                tokio::time::sleep(PAUSE).await;
                return;
            }
        }
    }

    async fn store_telemetry(&mut self, batches: &[Batch]) -> Result<()> {
        if sabotage::planted("ack-early") {
            let early = batches.iter().map(|batch| (batch.key, vec![(batch.seq, batch.seq)]));
            self.acknowledge(early.collect());
            tokio::time::sleep(sabotage::LATE).await;
        }
        let stored = async {
            let agents = batches.iter().map(|batch| batch.key.agent);
            let mut tx = self.app.stores.telemetry.begin_for(agents).await?;
            let stored = batches::store(&mut tx, &mut self.memory, batches).await?;
            tx.commit().await?;
            Ok::<_, Error>(stored)
        };
        let stored = match guarded(stored).await {
            Ok(stored) => stored,
            Err(error) => {
                // It may hold what was not stored.
                self.memory.clear();
                return Err(error);
            }
        };
        self.count(stored.counts);
        tracing::debug!(?stored.counts, "Telemetry stored.");
        self.acknowledge(stored.acks);
        for agent in stored.agents {
            self.changed(agent);
        }
        Ok(())
    }

    async fn take_events(&mut self, batches: &[EventBatch]) {
        if batches.is_empty() {
            return;
        }
        let Err(error) = self.store_events(batches).await else { return };
        tracing::error!(error = error.chain(), batches = batches.len(), "Events could not be stored.");
        for batch in batches {
            let Err(error) = self.store_events(std::slice::from_ref(batch)).await else { continue };
            if error.is_of_content() {
                self.quarantine(&self.app.stores.business, batch, &error.chain()).await;
            } else {
                tokio::time::sleep(PAUSE).await;
                return;
            }
        }
    }

    async fn store_events(&mut self, batches: &[EventBatch]) -> Result<()> {
        self.count_gaps(batches).await?;
        let directory = &self.app.agents.directory;
        let stored = guarded(async {
            let mut tx = self.app.stores.business.begin().await?;
            let stored = streams::store(&mut tx, batches, |agent| Some(directory.known(agent)?.site)).await?;
            tx.commit().await?;
            Ok(stored)
        });
        let stored = stored.await?;
        self.count(stored.counts);
        tracing::debug!(?stored.counts, "Events stored.");
        self.acknowledge(stored.acks);
        for site in stored.effects.sites {
            self.app.live.changed(site);
        }
        Ok(())
    }

    /// Gaps lie beside the readings, in the other file: they are recorded before the event is taken, and
    /// recording one twice changes nothing.
    async fn count_gaps(&self, batches: &[EventBatch]) -> Result<()> {
        let gaps: Vec<_> = batches
            .iter()
            .flat_map(|batch| batch.body.iter().flatten().map(|event| (batch.key.agent, event)))
            .filter_map(|(agent, event)| match &event.read {
                Ok(EventV1::Gap(gap)) => Some((agent, gap.clone(), event.raw.at.wall)),
                _ => None,
            })
            .collect();
        if gaps.is_empty() {
            return Ok(());
        }
        let agents = gaps.iter().map(|(agent, ..)| *agent);
        let mut tx = self.app.stores.telemetry.begin_for(agents).await?;
        gaps::record(&mut tx, &gaps, self.app.clock.now()).await?;
        tx.commit().await
    }

    async fn take_word(&mut self, agent: AgentId, word: Presence, received_at: Millis) {
        let done = match word {
            Presence::Hello(hello) => {
                downlink::welcome(&self.app, &self.link, agent, &hello, received_at).await
            }
            Presence::Left(session) => {
                self.heard.remove(agent);
                self.link.left(agent);
                presence::left(&self.app.stores.business, agent, session).await.map(|_| ())
            }
        };
        match done {
            Ok(()) => self.changed(agent),
            Err(error) => tracing::error!(%agent, error = error.chain(), "A word of presence was lost."),
        }
    }

    fn count(&self, counts: Counts) {
        let metrics = &self.app.metrics;
        metrics.batches_stored.add(counts.stored);
        metrics.batches_duplicate.add(counts.duplicates);
        metrics.batches_parked.add(counts.parked);
        metrics.batches_quarantined.add(counts.quarantined);
        metrics.batches_withheld.add(counts.withheld);
    }

    fn changed(&self, agent: AgentId) {
        if let Some(known) = self.app.agents.directory.known(agent) {
            self.app.live.changed(known.site);
        }
    }

    /// An acknowledgement that doesn't reach its agent is made good by the next: the batch comes again.
    fn acknowledge(&self, acks: Acks) {
        for (key, ranges) in acks {
            let ack = AckV1 { stream: key.stream.number(), epoch: key.epoch, ranges };
            downlink::send(&self.app, &self.link, key.agent, Down::Ack, &ack);
        }
    }

    async fn park(&self, unknown: Unknown) {
        let Unknown { key, checksum, reason, received_at, envelope } = unknown;
        let (db, why) = (db_of(&self.app, key.stream), Why::NotKnown(reason));
        let parked = async {
            let mut tx = db.begin().await?;
            let parked = parked::park(&mut tx, key, 0, checksum, &why, received_at, &envelope).await?;
            tx.commit().await?;
            Ok::<_, Error>(parked)
        };
        match parked.await {
            Ok(true) => tracing::warn!(agent = %key.agent, ?why, "A message is parked."),
            Ok(false) => tracing::warn!(agent = %key.agent, ?why, "No room to park a message."),
            Err(error) => tracing::error!(error = error.chain(), "A message could not be parked."),
        }
    }

    /// The last resort for a batch that can't be stored, whatever is tried.
    async fn quarantine<B>(&self, db: &Db, batch: &Arrived<B>, reason: &str) {
        let done = async {
            let mut tx = db.begin_for([batch.key.agent]).await?;
            let mut ledgers = Ledgers::default();
            ledgers.quarantine(&mut tx, batch, reason).await?;
            let done = ledgers.save(&mut tx).await?;
            tx.commit().await?;
            Ok::<_, Error>(done)
        };
        match done.await {
            Ok((acks, counts)) => {
                self.count(counts);
                self.acknowledge(acks);
            }
            Err(error) => tracing::error!(error = error.chain(), "A batch could not be quarantined."),
        }
    }

    /// Reports a refused message, for people to see.
    async fn complain(&mut self, agent: AgentId, stream: Stream, why: &str, now: Millis) {
        self.app.metrics.messages_refused.add(1);
        let (last, count) = self.complaints.entry(agent).or_insert((Millis(i64::MIN), 0));
        *count += 1;
        if now.since(*last) < COMPLAIN_EVERY {
            return;
        }
        tracing::warn!(%agent, stream = stream.name(), why, count, "Messages were refused.");
        let body = serde_json::json!({ "stream": stream.name(), "why": why, "count": *count }).to_string();
        (*last, *count) = (now, 0);
        let listed = async {
            let mut tx = self.app.stores.business.begin().await?;
            tx.execute(
                "insert into agent_events (agent_id, kind, at, received_at, body) values ($1, 'refused', $2, $2, $3)",
                args![agent, now, &body],
            )
            .await?;
            audit::record(&mut tx, now, "ingest", "agent.refused", &agent.to_string(), &body).await?;
            tx.commit().await
        };
        if let Err(error) = listed.await {
            tracing::error!(error = error.chain(), "A refusal could not be listed.");
        }
    }

    /// Tries what an earlier version parked because it did not know it.
    async fn retry_parked(&mut self) -> Result<()> {
        for (db, stream_is) in [
            (self.app.stores.telemetry.clone(), (|s| s == Stream::Telemetry) as fn(Stream) -> bool),
            (self.app.stores.business.clone(), |s| s != Stream::Telemetry),
        ] {
            let mut after = (String::new(), String::new(), 0u8, 0u64, 0u32);
            loop {
                let (agent, epoch, stream, seq, checksum) = after;
                let rows: Vec<ParkedRow> =
                    db.fetch_all(PARKED, args![agent, epoch, stream, seq, checksum]).await?;
                let Some(last) = rows.last() else { break };
                after =
                    (last.agent.to_string(), last.epoch.to_string(), last.stream, last.seq, last.checksum);
                for row in rows {
                    let Some(stream) = Stream::from_number(row.stream).filter(|s| stream_is(*s)) else {
                        continue;
                    };
                    self.retry(&db, stream, row).await?;
                }
            }
        }
        Ok(())
    }

    async fn retry(&mut self, db: &Db, stream: Stream, row: ParkedRow) -> Result<()> {
        let Some(known) = self.app.agents.directory.known(row.agent) else { return Ok(()) };
        let up = Up { agent: row.agent, stream, payload: row.envelope.into() };
        let stored = match wire::open(&up, &known, row.received_at) {
            Ok(Message::Telemetry(batch)) if batch.body.is_ok() => {
                self.store_telemetry(&[batch]).await?;
                true
            }
            Ok(Message::Events(batch)) if batch.body.is_ok() => {
                self.store_events(&[batch]).await?;
                true
            }
            _ => false,
        };
        // One of an unknown envelope format was parked under no number; the others were released.
        if stored && row.seq == 0 {
            let key = StreamKey { agent: row.agent, epoch: row.epoch, stream };
            let mut tx = db.begin().await?;
            parked::release(&mut tx, key, 0, row.checksum).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

row! {
    struct ParkedRow {
        agent: AgentId,
        epoch: Epoch,
        stream: u8,
        seq: u64,
        checksum: u32,
        received_at: Millis,
        envelope: Vec<u8>,
    }
}

const PARKED: &str = "select agent_id, epoch, stream, seq, checksum, received_at, envelope from parked
     where quarantined = 0 and waits_for is null
       and (agent_id, epoch, stream, seq, checksum) > ($1, $2, $3, $4, $5)
     order by agent_id, epoch, stream, seq, checksum limit 64";

fn db_of(app: &App, stream: Stream) -> &Db {
    if stream == Stream::Telemetry { &app.stores.telemetry } else { &app.stores.business }
}

/// A panic on the way to the database becomes an error: it must not end the writer of all batches.
async fn guarded<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or_else(|_| Err(Error::internal(Panicked)))
}
