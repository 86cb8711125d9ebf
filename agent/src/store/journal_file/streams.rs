//! The streams that wait here for their acknowledgement.

use super::{JournalFile, Signals};
use crate::store::sealer::fresh_epoch;
use crate::store::{Kept, StoreError};
use hashinsight_protocol::envelope::Envelope;
use hashinsight_protocol::ids::Epoch;
use hashinsight_protocol::presence::StreamStateV1;
use hashinsight_protocol::topics::{Stream, Topic};
use rusqlite::{OptionalExtension, params};

impl JournalFile {
    /// Batches with numbers above `after`, lowest first.
    pub fn pending(
        &self,
        stream: Stream,
        after: u64,
        until: u64,
        limit: usize,
    ) -> Result<Vec<Kept>, StoreError> {
        let sql = "SELECT seq, envelope FROM batches WHERE stream = ?1 AND seq > ?2 AND seq <= ?3
            ORDER BY seq LIMIT ?4";
        let until = i64::try_from(until).unwrap_or(i64::MAX);
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![stream.number(), after, until, limit], |row| {
            Ok(Kept { seq: row.get(0)?, envelope: row.get(1)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Deletes what the control plane has for good.
    pub fn acked(&mut self, stream: Stream, epoch: Epoch, ranges: &[(u64, u64)]) -> Result<(), StoreError> {
        if epoch != self.epoch {
            return Ok(());
        }
        let highest = ranges.iter().map(|(_, last)| *last).max().unwrap_or(0);
        let next = self.state(stream)?.next;
        if highest >= next {
            tracing::error!(
                "this journal is older than what the control plane holds; going on under a new epoch"
            );
            return self.renew();
        }
        self.conn.pragma_update(None, "synchronous", "NORMAL")?;
        let outcome = self.write(|s| {
            for (first, last) in ranges {
                let sql = "DELETE FROM batches WHERE stream = ?1 AND seq BETWEEN ?2 AND ?3";
                s.tx.prepare_cached(sql)?.execute(params![stream.number(), first, last])?;
            }
            Ok(())
        });
        self.conn.pragma_update(None, "synchronous", "FULL")?;
        outcome
    }

    pub fn state(&self, stream: Stream) -> Result<StreamStateV1, StoreError> {
        let sql = "SELECT next FROM streams WHERE stream = ?1";
        let next =
            self.conn.prepare_cached(sql)?.query_row([stream.number()], |row| row.get(0)).optional()?;
        let next = next.unwrap_or(1);
        let sql = "SELECT min(seq) FROM batches WHERE stream = ?1";
        let lowest: Option<u64> =
            self.conn.prepare_cached(sql)?.query_row([stream.number()], |row| row.get(0))?;
        let lowest = lowest.unwrap_or(next);
        Ok(StreamStateV1 { stream: stream.number(), epoch: self.epoch, next, lowest })
    }

    /// A new epoch: all that is kept is sealed anew. What the control plane has already, it gets
    /// again; an event says the same twice.
    pub(super) fn renew(&mut self) -> Result<(), StoreError> {
        let (epoch, old_agent) = (fresh_epoch(), self.agent()?);
        let agent = self.sealer.agent;
        self.epoch = epoch;
        let lost = self.write(|s| {
            let mut lost = 0u64;
            let kept: Vec<(u8, Vec<u8>)> =
                s.tx.prepare("SELECT stream, envelope FROM batches ORDER BY stream, seq")?
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<Result<_, _>>()?;
            s.tx.execute("DELETE FROM batches", [])?;
            s.tx.execute("DELETE FROM streams", [])?;
            for (stream, envelope) in &kept {
                let opened = Stream::from_number(*stream).and_then(|stream| {
                    Some((stream, Envelope::open(Topic::Up(old_agent, stream), envelope).ok()?))
                });
                match opened {
                    Some((stream, opened)) => s.append_body(stream, opened.body)?,
                    None => lost += 1,
                }
            }
            let life = params![epoch.as_bytes(), agent.as_bytes()];
            s.tx.execute("UPDATE life SET epoch = ?1, agent = ?2", life)?;
            // A document is meant for one agent.
            if old_agent != agent {
                s.tx.execute("UPDATE life SET document = 0", [])?;
            }
            Ok(lost)
        })?;
        if lost > 0 {
            tracing::error!(lost, "batches of the journal could not be read");
        }
        Signals::bump(&self.signals.streams);
        Ok(())
    }
}
