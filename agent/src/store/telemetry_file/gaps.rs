//! Gaps: what was read and will never arrive, stored with what they count until the journal has them.

use super::{Row, TelemetryFile};
use crate::store::StoreError;
use crate::store::mark::Held;
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::events::{GapCauseV1, GapV1};
use hashinsight_protocol::ids::Epoch;
use rusqlite::{Transaction, params};

impl TelemetryFile {
    /// Gaps that the journal has not got yet, oldest first.
    pub fn gaps(&self, limit: usize) -> Result<Vec<(u64, GapV1, MomentV1)>, StoreError> {
        let unreadable =
            |e: serde_json::Error| StoreError::Unreadable { what: "a gap", reason: e.to_string() };
        let mut statement = self.conn.prepare_cached("SELECT id, gap, at FROM gaps ORDER BY id LIMIT ?1")?;
        let rows = statement
            .query_map([limit], |r| Ok((r.get(0)?, r.get::<_, String>(1)?, r.get::<_, String>(2)?)))?
            .collect::<Result<Vec<_>, _>>()?;
        rows.into_iter()
            .map(|(id, gap, at)| {
                let gap = serde_json::from_str(&gap).map_err(unreadable)?;
                Ok((id, gap, serde_json::from_str(&at).map_err(unreadable)?))
            })
            .collect()
    }

    pub fn forget_gaps(&mut self, up_to: u64) -> Result<(), StoreError> {
        self.conn.execute("DELETE FROM gaps WHERE id <= ?1", [up_to])?;
        Ok(())
    }

    pub(super) fn add_gaps(&mut self, gaps: &[GapV1], at: MomentV1) -> Result<(), StoreError> {
        let tx = self.conn.transaction()?;
        put_gaps(&tx, gaps, at)?;
        Ok(tx.commit()?)
    }

    /// Bursts that were begun and never committed are gone with the process that took them.
    pub(super) fn end_bursts(&mut self, at: MomentV1) -> Result<(), StoreError> {
        let tx = self.conn.transaction()?;
        let gap = |row: &rusqlite::Row<'_>| {
            let cycle = row.get(0)?;
            Ok(GapV1 {
                epoch: self.epoch,
                cause: GapCauseV1::BurstLost,
                first_cycle: cycle,
                last_cycle: cycle,
                seqs: None,
                polls: row.get(1)?,
            })
        };
        let gaps: Vec<GapV1> = tx
            .prepare("SELECT cycle, planned FROM bursts ORDER BY cycle")?
            .query_map([], gap)?
            .collect::<Result<_, _>>()?;
        put_gaps(&tx, &gaps, at)?;
        tx.execute("DELETE FROM bursts", [])?;
        Ok(tx.commit()?)
    }
}

pub(super) fn put_gaps(tx: &Transaction<'_>, gaps: &[GapV1], at: MomentV1) -> Result<(), StoreError> {
    let json = |e: serde_json::Error| StoreError::Unreadable { what: "a gap", reason: e.to_string() };
    let at = serde_json::to_string(&at).map_err(json)?;
    for gap in gaps {
        let gap = serde_json::to_string(gap).map_err(json)?;
        tx.prepare_cached("INSERT INTO gaps (gap, at) VALUES (?1, ?2)")?.execute(params![gap, at])?;
    }
    Ok(())
}

pub(super) fn lost_file(held: &Held) -> GapV1 {
    GapV1 {
        epoch: held.epoch,
        cause: GapCauseV1::Corrupt,
        first_cycle: held.cycles.0,
        last_cycle: held.cycles.1,
        seqs: held.seqs,
        polls: held.polls,
    }
}

/// One gap for each run of numbers without a hole. `rows` are in the order of their numbers.
pub(super) fn runs(epoch: Epoch, cause: GapCauseV1, rows: &[Row]) -> Vec<GapV1> {
    rows.chunk_by(|a, b| a.seq + 1 == b.seq)
        .filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            Some(GapV1 {
                epoch,
                cause,
                first_cycle: run.iter().map(|r| r.cycle).min()?,
                last_cycle: run.iter().map(|r| r.cycle).max()?,
                seqs: Some((first.seq, last.seq)),
                polls: run.iter().map(|r| r.polls).sum(),
            })
        })
        .collect()
}
