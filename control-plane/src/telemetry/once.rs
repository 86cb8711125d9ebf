//! What to do with a batch that came: store it, or not again.
//!
//! Works the same for telemetry and for the streams of events, each in its own database and within
//! the transaction that stores the batch.

use super::ledger::{Open, Place, StreamKey};
use super::parked::{self, Why};
use crate::args;
use crate::error::Result;
use crate::store::Tx;
use bytes::Bytes;
use hashinsight_protocol::units::Millis;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// A verified batch on its way into a database.
#[derive(Clone, Debug)]
pub struct Arrived<B> {
    pub key: StreamKey,
    pub seq: u64,
    pub checksum: u32,
    pub received_at: Millis,
    /// As it came, signature included.
    pub envelope: Bytes,
    /// What it says, as far as this version understands.
    pub body: Result<B, Why>,
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Store,
    /// Stored or parked already: acknowledged once more.
    Duplicate,
    /// No room now: neither stored nor acknowledged.
    Withhold,
}

/// How batches of a database are found.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// Checksum of a stored batch, by agent, epoch, stream and seq.
    pub checksum: &'static str,
    /// A row when the number was given up as lost, by the same. Without this statement every held number
    /// that has no batch was.
    pub given_up: Option<&'static str>,
}

/// The ledgers that a transaction touches, and what it did to them.
#[derive(Debug, Default)]
pub struct Ledgers {
    open: BTreeMap<StreamKey, Option<Open>>,
    done: BTreeMap<StreamKey, Vec<u64>>,
    pub counts: Counts,
}

/// What became of the batches of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub stored: u64,
    pub duplicates: u64,
    /// Waiting, or not known yet.
    pub parked: u64,
    pub quarantined: u64,
    pub withheld: u64,
}

/// Ranges to acknowledge, one message each.
pub type Acks = Vec<(StreamKey, Vec<(u64, u64)>)>;

impl Ledgers {
    async fn ledger(&mut self, tx: &mut Tx, key: StreamKey) -> Result<Option<&mut Open>> {
        let open = match self.open.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Open::load(tx, key).await?),
        };
        Ok(open.as_mut())
    }

    /// Whether a number is stored, parked for good or given up.
    ///
    /// # Errors
    /// The database fails; so for all below.
    pub async fn holds(&mut self, tx: &mut Tx, key: StreamKey, seq: u64) -> Result<bool> {
        let ledger = self.ledger(tx, key).await?;
        Ok(ledger.is_some_and(|ledger| ledger.now.place(seq) == Place::Held))
    }

    /// Judges a batch. What is not to be stored is counted, parked and acknowledged here.
    pub async fn judge<B>(&mut self, tx: &mut Tx, tables: Tables, batch: &Arrived<B>) -> Result<Verdict> {
        let (key, seq) = (batch.key, batch.seq);
        let place = self.ledger(tx, key).await?.map_or(Place::NoRoom, |ledger| ledger.now.place(seq));
        match place {
            Place::New => return Ok(Verdict::Store),
            Place::NoRoom => {
                self.counts.withheld += 1;
                return Ok(Verdict::Withhold);
            }
            Place::Held => {}
        }
        let place = || args![key.agent, key.epoch, key.stream.number(), seq];
        let stored: Option<(u32,)> = tx.fetch_optional(tables.checksum, place()).await?;
        if let Some((checksum,)) = stored {
            return if checksum == batch.checksum {
                self.duplicate(key, seq)
            } else {
                self.quarantine(tx, batch, "the same number was stored with other content").await
            };
        }
        let under = parked::under(tx, key, seq).await?;
        if let Some((_, quarantined)) = under.iter().find(|(checksum, _)| *checksum == batch.checksum) {
            // Parked by a version that did not know it, and this one does.
            let understood = !quarantined && batch.body.is_ok();
            return if understood { Ok(Verdict::Store) } else { self.duplicate(key, seq) };
        }
        if !under.is_empty() {
            return self.quarantine(tx, batch, "the same number was parked with other content").await;
        }
        let given_up = match tables.given_up {
            Some(sql) => tx.fetch_optional::<(i64,)>(sql, place()).await?.is_some(),
            None => true,
        };
        // A batch that was given up and comes after all is welcome; one that retention dropped is not.
        if given_up { Ok(Verdict::Store) } else { self.duplicate(key, seq) }
    }

    fn duplicate(&mut self, key: StreamKey, seq: u64) -> Result<Verdict> {
        self.counts.duplicates += 1;
        self.done.entry(key).or_default().push(seq);
        Ok(Verdict::Duplicate)
    }

    /// Keeps a batch whose content is wrong, and acknowledges it: repeating it mends nothing.
    pub async fn quarantine<B>(&mut self, tx: &mut Tx, batch: &Arrived<B>, reason: &str) -> Result<Verdict> {
        self.park_for_good(tx, batch, &Why::Wrong(reason.to_owned())).await
    }

    /// Parks a batch and takes its number.
    pub async fn park_for_good<B>(&mut self, tx: &mut Tx, batch: &Arrived<B>, why: &Why) -> Result<Verdict> {
        if !self.park(tx, batch, why).await? {
            return Ok(Verdict::Withhold);
        }
        self.take(tx, batch.key, batch.seq).await?;
        Ok(Verdict::Duplicate)
    }

    /// Parks a batch without taking its number; false when there is no room.
    pub async fn park<B>(&mut self, tx: &mut Tx, batch: &Arrived<B>, why: &Why) -> Result<bool> {
        let Arrived { key, seq, checksum, received_at, .. } = *batch;
        let parked = parked::park(tx, key, seq, checksum, why, received_at, &batch.envelope).await?;
        match why {
            _ if !parked => self.counts.withheld += 1,
            Why::Wrong(_) => self.counts.quarantined += 1,
            Why::Waits(_) | Why::NotKnown(_) => self.counts.parked += 1,
        }
        if parked && !matches!(why, Why::Waits(_)) {
            tracing::warn!(agent = %key.agent, stream = key.stream.name(), seq, ?why, "A batch is parked.");
        }
        Ok(parked)
    }

    /// Takes the number of a batch that is stored now.
    pub async fn stored(&mut self, tx: &mut Tx, key: StreamKey, seq: u64) -> Result<()> {
        self.counts.stored += 1;
        self.take(tx, key, seq).await
    }

    async fn take(&mut self, tx: &mut Tx, key: StreamKey, seq: u64) -> Result<()> {
        if let Some(ledger) = self.ledger(tx, key).await? {
            ledger.now.take(seq);
            self.done.entry(key).or_default().push(seq);
        }
        Ok(())
    }

    /// Takes numbers that will never come.
    pub async fn give_up(&mut self, tx: &mut Tx, key: StreamKey, first: u64, last: u64) -> Result<()> {
        if let Some(ledger) = self.ledger(tx, key).await? {
            ledger.now.take_run(first, last);
        }
        Ok(())
    }

    /// Runs of numbers below `below` that are not held.
    pub async fn holes(&mut self, tx: &mut Tx, key: StreamKey, below: u64) -> Result<Vec<(u64, u64)>> {
        Ok(self.ledger(tx, key).await?.map(|ledger| ledger.now.holes(below)).unwrap_or_default())
    }

    /// Writes the ledgers; what to acknowledge once the transaction is committed.
    pub async fn save(self, tx: &mut Tx) -> Result<(Acks, Counts)> {
        let mut acks = Acks::new();
        for (key, open) in &self.open {
            let Some(open) = open else { continue };
            open.save(tx, *key).await?;
            let done = self.done.get(key).into_iter().flatten().copied();
            if self.done.contains_key(key) {
                acks.extend(open.now.acknowledge(done).into_iter().map(|ranges| (*key, ranges)));
            }
        }
        Ok((acks, self.counts))
    }
}
