//! Key batches at hand, so that a follower is decoded without reading its key each time.

use crate::args;
use crate::error::Result;
use crate::store::{Db, Tx};
use hashinsight_protocol::envelope::{Body as _, Envelope};
use hashinsight_protocol::ids::{AgentId, Epoch};
use hashinsight_protocol::telemetry::{KeyBatch, TelemetryV1};
use hashinsight_protocol::topics::{Stream, Topic};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Miners of all keys together; one takes about 240 bytes.
const MINERS: usize = 300_000;

/// Names a key batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyName {
    pub agent: AgentId,
    pub epoch: Epoch,
    pub seq: u64,
    pub checksum: u32,
}

/// Keys by name, the longest unused forgotten first.
#[derive(Debug, Default)]
pub struct Keys {
    held: HashMap<KeyName, (Arc<KeyBatch>, u64)>,
    /// In the order of use; an entry whose number is not the held one is stale.
    order: VecDeque<(KeyName, u64)>,
    uses: u64,
    miners: usize,
}

const FIND: &str = "select envelope from batches
     where agent_id = $1 and epoch = $2 and stream = $3 and seq = $4 and checksum = $5";

impl Keys {
    pub fn get(&mut self, name: KeyName) -> Option<Arc<KeyBatch>> {
        let (key, last) = self.held.get_mut(&name)?;
        self.uses += 1;
        *last = self.uses;
        self.order.push_back((name, self.uses));
        let key = Arc::clone(key);
        self.tidy();
        Some(key)
    }

    pub fn put(&mut self, name: KeyName, key: Arc<KeyBatch>) {
        self.uses += 1;
        self.miners += key.miners().len();
        if let Some((before, _)) = self.held.insert(name, (key, self.uses)) {
            self.miners -= before.miners().len();
        }
        self.order.push_back((name, self.uses));
        self.tidy();
    }

    /// Forgets all; after a transaction that may have held a key came to nothing.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The key, from memory or from the batches stored.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find_in(&mut self, tx: &mut Tx, name: KeyName) -> Result<Option<Arc<KeyBatch>>> {
        if let Some(key) = self.get(name) {
            return Ok(Some(key));
        }
        let row: Option<(Vec<u8>,)> = tx.fetch_optional(FIND, find(name)).await?;
        Ok(row.and_then(|(envelope,)| self.decode(name, &envelope)))
    }

    /// As [`Self::find_in`], outside of a transaction.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find(&mut self, db: &Db, name: KeyName) -> Result<Option<Arc<KeyBatch>>> {
        if let Some(key) = self.get(name) {
            return Ok(Some(key));
        }
        let row: Option<(Vec<u8>,)> = db.fetch_optional(FIND, find(name)).await?;
        Ok(row.and_then(|(envelope,)| self.decode(name, &envelope)))
    }

    fn decode(&mut self, name: KeyName, envelope: &[u8]) -> Option<Arc<KeyBatch>> {
        let envelope = Envelope::open(Topic::Up(name.agent, Stream::Telemetry), envelope).ok()?;
        let batch = TelemetryV1::decode(envelope.body).ok()?;
        let key = Arc::new(batch.as_key(name.seq, name.checksum).ok()??);
        self.put(name, Arc::clone(&key));
        Some(key)
    }

    fn tidy(&mut self) {
        let is_stale = |held: &HashMap<KeyName, (Arc<KeyBatch>, u64)>, (name, use_): &(KeyName, u64)| {
            held.get(name).is_none_or(|(_, last)| last != use_)
        };
        while let Some(first) = self.order.front() {
            if is_stale(&self.held, first) {
                self.order.pop_front();
            } else if self.miners > MINERS && self.held.len() > 1 {
                let name = first.0;
                if let Some((key, _)) = self.held.remove(&name) {
                    self.miners -= key.miners().len();
                }
                self.order.pop_front();
            } else {
                break;
            }
        }
        // Stale entries behind a key that nobody uses any more.
        if self.order.len() > 2 * self.held.len() + 1024 {
            let held = &self.held;
            self.order.retain(|entry| !is_stale(held, entry));
        }
    }
}

fn find(name: KeyName) -> Vec<crate::store::Value> {
    args![name.agent, name.epoch, Stream::Telemetry.number(), name.seq, name.checksum]
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::clock::{ClockStateV1, MomentV1};
    use hashinsight_protocol::ids::{BootId, MinerId};
    use hashinsight_protocol::telemetry::{PollV1, SampleV1};
    use hashinsight_protocol::units::{BootMillis, DurationMs, Millis};

    fn key(seq: u64) -> (KeyName, Arc<KeyBatch>) {
        let started = MomentV1 {
            wall: Millis(0),
            boot: BootMillis(0),
            boot_id: BootId::from_random([0; 16]),
            state: ClockStateV1::Synced,
        };
        let samples: Vec<_> = (0..1000u16)
            .map(|n| {
                let mut id = [0; 16];
                id[..2].copy_from_slice(&n.to_le_bytes());
                SampleV1::empty(MinerId::from_bytes(id), DurationMs::ZERO, PollV1::Refused)
            })
            .collect();
        let batch = TelemetryV1::new(1, started, &samples, None).unwrap();
        let name = KeyName {
            agent: AgentId::from_random([1; 16]),
            epoch: Epoch::from_random([1; 16]),
            seq,
            checksum: 7,
        };
        (name, Arc::new(batch.as_key(seq, 7).unwrap().unwrap()))
    }

    #[test]
    fn the_longest_unused_is_forgotten() {
        let mut keys = Keys::default();
        let first = key(0);
        keys.put(first.0, first.1);
        for seq in 1..=(MINERS / 1000 + 50) as u64 {
            let (name, key) = key(seq);
            keys.put(name, key);
            assert!(keys.get(first.0).is_some(), "used all the time");
        }
        assert!(keys.get(key(1).0).is_none());
        assert!(keys.miners <= MINERS && keys.held.len() <= MINERS / 1000);
        for _ in 0..10_000 {
            keys.get(first.0);
        }
        assert!(keys.order.len() < 4096, "{}", keys.order.len());
    }
}
