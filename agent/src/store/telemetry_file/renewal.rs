//! A new epoch with what is kept: after a restored disk, and for another identity.

use super::{Row, TelemetryFile, put_gaps, runs};
use crate::store::StoreError;
use crate::store::sealer::fresh_epoch;
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::envelope::{Body, Envelope, WireError};
use hashinsight_protocol::events::GapCauseV1;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::telemetry::{RosterV1, TelemetryV1};
use hashinsight_protocol::topics::{Stream, Topic};
use rusqlite::{OptionalExtension, params};
use std::collections::HashMap;

impl TelemetryFile {
    /// The control plane holds numbers that this file has not given yet: the disk was put back to an
    /// earlier state. Goes on under a new epoch, with what has been stored since.
    pub(super) fn rewound(&mut self, at: MomentV1) -> Result<(), StoreError> {
        tracing::error!("this outbox is older than what the control plane holds; going on under a new epoch");
        self.renew(self.confirmed, at)
    }

    /// A new epoch. Batches from `keep_from` on are sealed anew, older ones are held already.
    pub(super) fn renew(&mut self, keep_from: u64, at: MomentV1) -> Result<(), StoreError> {
        let (old_epoch, epoch, old_agent) = (self.epoch, fresh_epoch(), self.agent()?);
        let tx = self.conn.transaction()?;
        tx.execute("DELETE FROM batches WHERE seq < ?1", [keep_from])?;
        // Out of the way of the new numbers.
        tx.execute("UPDATE batches SET seq = -seq", [])?;
        let mut keys: HashMap<u64, u64> = HashMap::new();
        let mut orphans = Vec::new();
        let mut seq = 1;
        loop {
            let sql = "SELECT -seq, cycle, polls, size, envelope FROM batches WHERE seq < 0 ORDER BY seq DESC LIMIT 1";
            let read = |row: &rusqlite::Row<'_>| {
                let envelope: Vec<u8> = row.get(4)?;
                Ok((
                    Row { seq: row.get(0)?, cycle: row.get(1)?, polls: row.get(2)?, size: row.get(3)? },
                    envelope,
                ))
            };
            let Some((row, envelope)) = tx.query_row(sql, [], read).optional()? else { break };
            tx.execute("DELETE FROM batches WHERE seq = -?1", [row.seq])?;
            let Some((group, body)) = moved(old_agent, &envelope, row.seq, seq, &mut keys) else {
                orphans.push(row);
                continue;
            };
            let envelope = self.sealer.seal(epoch, Stream::Telemetry, seq, &body)?;
            tx.execute(
                "INSERT INTO batches VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![seq, group, row.cycle, row.polls, envelope.len(), envelope],
            )?;
            seq += 1;
        }
        put_gaps(&tx, &runs(old_epoch, GapCauseV1::Corrupt, &orphans), at)?;
        tx.execute(
            "UPDATE life SET epoch = ?1, agent = ?2, next_seq = ?3, confirmed = 1",
            params![epoch.as_bytes(), self.sealer.agent.as_bytes(), seq],
        )?;
        tx.commit()?;
        let sums = "SELECT coalesce(sum(size), 0), coalesce(sum(polls), 0) FROM batches";
        (self.bytes, self.polls) = self.conn.query_row(sums, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        self.epoch = epoch;
        self.next_seq = seq;
        self.confirmed = 1;
        self.groups.clear();
        self.write_mark()
    }
}

/// The body of a batch under its new number, and its group's new number. `None` where its key isn't
/// among those that move: it can't be read without it.
fn moved(
    agent: AgentId,
    envelope: &[u8],
    old: u64,
    new: u64,
    keys: &mut HashMap<u64, u64>,
) -> Option<(u64, Vec<u8>)> {
    let decode = || -> Result<TelemetryV1, WireError> {
        TelemetryV1::decode(Envelope::open(Topic::Up(agent, Stream::Telemetry), envelope)?.body)
    };
    let mut batch = decode().ok()?;
    let group = match &mut batch.roster {
        RosterV1::Own(_) => {
            keys.insert(old, new);
            new
        }
        // The key's checksum is that of its body, which doesn't change.
        RosterV1::Key { seq, .. } => {
            *seq = *keys.get(seq)?;
            *seq
        }
    };
    Some((group, batch.encode().ok()?))
}
