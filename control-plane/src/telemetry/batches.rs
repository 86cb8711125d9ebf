//! Telemetry batches into their database: the batch is the record, all else is derived from it.
//!
//! One transaction holds ledger, batch, latest and rollups of a group of batches, so that a crash
//! leaves all of it or nothing, and each sample counts once. The group is what had queued while the one
//! before was committed.
//!
//! - **Order** does not matter: a follower that comes before its key batch is parked, unacknowledged,
//!   and stored with the key, in the key's transaction.
//! - **A follower whose key is lost** (given up, or of other content) can't be decoded by anybody: it is
//!   kept parked and acknowledged.
//! - **Absurd times** (more than [`FUTURE`] after arrival, or before 2020) are kept as they came and
//!   flagged; `latest` and rollups don't see them.

use super::keys::{KeyName, Keys};
use super::latest::Latest;
use super::ledger::StreamKey;
use super::numbers::Numbers;
use super::once::{Acks, Arrived, Counts, Ledgers, Tables, Verdict};
use super::parked::{self, Why};
use super::rollups::Rollups;
use crate::args;
use crate::error::Result;
use crate::store::Tx;
use hashinsight_protocol::envelope::{Body as _, Envelope, WireError};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::telemetry::{KeyBatch, RosterV1, SampleV1, TelemetryV1};
use hashinsight_protocol::topics::{Stream, Topic};
use hashinsight_protocol::units::{DurationMs, Millis};
use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// A time further ahead of its arrival than this is a wrong clock's.
pub const FUTURE: DurationMs = DurationMs::from_minutes(5);
/// 2020-01-01: no agent is older.
const PAST: Millis = Millis(1_577_836_800_000);

const TABLES: Tables = Tables {
    checksum: "select checksum from batches where agent_id = $1 and epoch = $2 and stream = $3 and seq = $4",
    given_up: Some(
        "select 1 from gaps where agent_id = $1 and epoch = $2 and $3 = 1
         and first_seq between 1 and $4 and last_seq >= $4 limit 1",
    ),
};

/// A telemetry batch that came.
pub type Batch = Arrived<TelemetryV1>;

/// What a transaction did, for after its commit.
#[derive(Debug)]
pub struct Stored {
    pub acks: Acks,
    pub counts: Counts,
    /// Agents whose readings changed.
    pub agents: BTreeSet<AgentId>,
}

/// Whether a time can't be when something was measured that arrived at `received_at`.
pub fn is_absurd(at: Millis, received_at: Millis) -> bool {
    at > received_at.plus(FUTURE) || at < PAST
}

/// Reads the body of a verified envelope.
pub fn read(body: &[u8]) -> Result<TelemetryV1, Why> {
    TelemetryV1::decode(body).map_err(|error| match error {
        WireError::UnknownTag { .. } => Why::NotKnown(error.to_string()),
        error => Why::Wrong(error.to_string()),
    })
}

/// What the writer of batches has at hand; all of it stands in the database too.
#[derive(Debug, Default)]
pub struct Memory {
    pub keys: Keys,
    numbers: Numbers,
}

impl Memory {
    /// Forgets all; after a transaction that may have put something here came to nothing.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.numbers.clear();
    }
}

/// Stores a group of batches. After an error the caller drops the transaction and clears `memory`.
///
/// # Errors
/// The database fails.
pub async fn store(tx: &mut Tx, memory: &mut Memory, batches: &[Batch]) -> Result<Stored> {
    let Memory { keys, numbers } = memory;
    let mut work =
        Work { keys, ledgers: Ledgers::default(), latest: Latest::default(), rollups: Rollups::default() };
    let mut agents = BTreeSet::new();
    let mut queue: VecDeque<_> = batches.iter().map(|batch| (Cow::Borrowed(batch), false)).collect();
    while let Some((batch, was_parked)) = queue.pop_front() {
        if work.ledgers.judge(tx, TABLES, &batch).await? != Verdict::Store {
            continue;
        }
        let Some(readable) = work.decode(tx, &batch).await? else { continue };
        if !work.insert(tx, &batch, &readable).await? {
            continue;
        }
        agents.insert(batch.key.agent);
        let held = work.ledgers.holds(tx, batch.key, batch.seq).await?;
        if was_parked || held {
            parked::release(tx, batch.key, batch.seq, batch.checksum).await?;
        }
        work.ledgers.stored(tx, batch.key, batch.seq).await?;
        if readable.is_key {
            let waiting = parked::waiting_for(tx, batch.key, batch.seq).await?;
            // Before the rest of the group, in which they may come again.
            for parked in waiting.into_iter().rev().filter_map(|p| reopen(batch.key, p)) {
                queue.push_front((Cow::Owned(parked), true));
            }
        }
    }
    work.latest.save(tx).await?;
    work.rollups.save(tx, numbers).await?;
    let (acks, counts) = work.ledgers.save(tx).await?;
    Ok(Stored { acks, counts, agents })
}

struct Work<'a> {
    keys: &'a mut Keys,
    ledgers: Ledgers,
    latest: Latest,
    rollups: Rollups,
}

struct Readable {
    started: Millis,
    key_seq: u64,
    is_key: bool,
    samples: Vec<SampleV1>,
}

impl Work<'_> {
    /// The samples of a batch; `None` when it was parked instead.
    async fn decode(&mut self, tx: &mut Tx, batch: &Batch) -> Result<Option<Readable>> {
        let body = match &batch.body {
            Ok(body) => body,
            Err(why) => {
                self.ledgers.park_for_good(tx, batch, why).await?;
                return Ok(None);
            }
        };
        let (key_seq, key) = match body.roster {
            RosterV1::Own(_) => match body.as_key(batch.seq, batch.checksum) {
                Ok(key) => (batch.seq, key.map(Arc::new)),
                Err(error) => {
                    self.ledgers.quarantine(tx, batch, &error.to_string()).await?;
                    return Ok(None);
                }
            },
            RosterV1::Key { seq, checksum } => {
                let Some(key) = self.key(tx, batch, seq, checksum).await? else { return Ok(None) };
                (seq, Some(key))
            }
        };
        match body.samples(key.as_deref()) {
            Ok(samples) => {
                let is_key = matches!(body.roster, RosterV1::Own(_));
                if let (true, Some(key)) = (is_key, key) {
                    self.keys.put(name(batch.key, batch.seq, batch.checksum), key);
                }
                Ok(Some(Readable { started: body.started.wall, key_seq, is_key, samples }))
            }
            Err(error) => {
                self.ledgers.quarantine(tx, batch, &error.to_string()).await?;
                Ok(None)
            }
        }
    }

    async fn key(
        &mut self,
        tx: &mut Tx,
        batch: &Batch,
        seq: u64,
        checksum: u32,
    ) -> Result<Option<Arc<KeyBatch>>> {
        let key = self.keys.find_in(tx, name(batch.key, seq, checksum)).await?;
        if key.is_none() {
            if self.ledgers.holds(tx, batch.key, seq).await? {
                let place = args![batch.key.agent, batch.key.epoch, batch.key.stream.number(), seq];
                let stored: Option<(u32,)> = tx.fetch_optional(TABLES.checksum, place).await?;
                let why = match stored {
                    Some(_) => Why::Wrong("the batch it names as its key is another one".to_owned()),
                    // It may come after all.
                    None => Why::NotKnown("its key batch was given up as lost".to_owned()),
                };
                self.ledgers.park_for_good(tx, batch, &why).await?;
            } else {
                self.ledgers.park(tx, batch, &Why::Waits(seq)).await?;
            }
        }
        Ok(key)
    }

    /// False when it was stored already.
    async fn insert(&mut self, tx: &mut Tx, batch: &Batch, readable: &Readable) -> Result<bool> {
        let at = |sample: &SampleV1| readable.started.plus(sample.after);
        let last = readable.samples.iter().map(at).max().unwrap_or(readable.started);
        let absurd = is_absurd(readable.started, batch.received_at) || is_absurd(last, batch.received_at);
        let StreamKey { agent, epoch, stream } = batch.key;
        let inserted = tx
            .execute(
                "insert into batches (agent_id, epoch, stream, seq, checksum, at, received_at, samples, absurd_time,
                                      key_seq, envelope)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                 on conflict (agent_id, epoch, stream, seq) do nothing",
                args![
                    agent, epoch, stream.number(), batch.seq, batch.checksum, readable.started, batch.received_at,
                    readable.samples.len() as u64, absurd, readable.key_seq, &batch.envelope[..]
                ],
            )
            .await?;
        if inserted == 0 {
            return Ok(false);
        }
        if !absurd {
            for sample in &readable.samples {
                self.latest.fold(agent, at(sample), batch.received_at, sample);
                self.rollups.fold(agent, at(sample), sample);
            }
        }
        Ok(true)
    }
}

fn name(key: StreamKey, seq: u64, checksum: u32) -> KeyName {
    KeyName { agent: key.agent, epoch: key.epoch, seq, checksum }
}

/// A parked batch once more. It was verified when it was parked.
fn reopen(key: StreamKey, parked: parked::Parked) -> Option<Batch> {
    let envelope = Envelope::open(Topic::Up(key.agent, Stream::Telemetry), &parked.envelope).ok()?;
    let body = read(envelope.body);
    Some(Arrived {
        key,
        seq: parked.seq,
        checksum: parked.checksum,
        received_at: parked.received_at,
        body,
        envelope: parked.envelope.into(),
    })
}
