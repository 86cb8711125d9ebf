//! The outbox's file and its rules, without threads; [`super::outbox`] says what they are.

use super::Kept;
use super::db::{self, Schema, StoreError};
use super::groups::{Groups, chunks};
use super::mark::{Held, Mark};
use super::sealer::{Sealer, fresh_epoch};
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::envelope::{Body, Envelope, WireError};
use hashinsight_protocol::events::{GapCauseV1, GapV1};
use hashinsight_protocol::ids::{AgentId, Epoch};
use hashinsight_protocol::presence::StreamStateV1;
use hashinsight_protocol::telemetry::{RosterV1, SampleV1, TelemetryV1};
use hashinsight_protocol::topics::{Stream, Topic};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub(crate) const FILE: &str = "telemetry.db";
const SCHEMA: Schema = Schema {
    application: 0x4849_5431,
    version: 1,
    create: "
CREATE TABLE IF NOT EXISTS life (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch BLOB NOT NULL, agent BLOB NOT NULL,
    next_seq INTEGER NOT NULL, next_cycle INTEGER NOT NULL,
    confirmed INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY,
    grp INTEGER NOT NULL, cycle INTEGER NOT NULL, polls INTEGER NOT NULL, size INTEGER NOT NULL,
    envelope BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS batches_groups ON batches (grp, seq, cycle, polls, size);
CREATE TABLE IF NOT EXISTS bursts (cycle INTEGER PRIMARY KEY, planned INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS gaps (id INTEGER PRIMARY KEY AUTOINCREMENT, gap TEXT NOT NULL, at TEXT NOT NULL) STRICT;
",
};
/// What a sample may take at first guess, sealed; a key batch with its ids is near it.
const GUESS: u64 = 64;

pub(crate) struct TelemetryFile {
    path: PathBuf,
    conn: Connection,
    sealer: Sealer,
    quota: u64,
    epoch: Epoch,
    next_seq: u64,
    next_cycle: u64,
    /// The lowest number that no contact has confirmed to be ours alone.
    confirmed: u64,
    bytes: u64,
    polls: u64,
    groups: Groups,
    mark: Mark,
    /// Bursts that could not be stored; their marks go with the next one that can.
    given_up: Vec<u64>,
}

/// Where a row lies, without its envelope.
struct Row {
    seq: u64,
    cycle: u64,
    polls: u64,
    size: u64,
}

impl TelemetryFile {
    /// Opens or creates the outbox in a folder. What the last run left half done, and a file that
    /// was lost, become gaps.
    pub fn open(dir: &Path, sealer: Sealer, quota: u64, at: MomentV1) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let existed = path.exists();
        let (mark, held) = Mark::open(dir);
        let (mut file, lost) = match Self::load(&path, &sealer, quota) {
            Ok(file) => (file, !existed),
            Err(StoreError::Corrupt) => {
                let aside = db::set_aside(&path, &fresh_epoch().to_string())?;
                tracing::error!(aside = %aside.display(), "the outbox was corrupt and is set aside");
                (Self::load(&path, &sealer, quota)?, true)
            }
            Err(error) => return Err(error),
        };
        file.mark = mark;
        if lost && let Some(held) = held {
            file.add_gaps(&[lost_file(&held)], at)?;
        }
        file.end_bursts(at)?;
        if file.agent()? != sealer.agent {
            file.renew(0, at)?;
        }
        file.write_mark()?;
        Ok(file)
    }

    fn load(path: &Path, sealer: &Sealer, quota: u64) -> Result<Self, StoreError> {
        let conn = db::open(path, &SCHEMA)?;
        conn.execute(
            "INSERT OR IGNORE INTO life VALUES (1, ?1, ?2, 1, 1, 1)",
            params![fresh_epoch().as_bytes(), sealer.agent.as_bytes()],
        )?;
        let life = "SELECT epoch, next_seq, next_cycle, confirmed FROM life";
        let (epoch, next_seq, next_cycle, confirmed) = conn.query_row(life, [], |row| {
            Ok((Epoch::from_bytes(row.get(0)?), row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
        let sums = "SELECT coalesce(sum(size), 0), coalesce(sum(polls), 0) FROM batches";
        let (bytes, polls) = conn.query_row(sums, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Self {
            path: path.to_owned(),
            conn,
            sealer: sealer.clone(),
            quota,
            epoch,
            next_seq,
            next_cycle,
            confirmed,
            bytes,
            polls,
            groups: Groups::default(),
            mark: Mark::none(),
            given_up: Vec::new(),
        })
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// A burst whose loss is told already.
    pub fn give_up(&mut self, cycle: u64) {
        self.given_up.push(cycle);
    }

    pub fn next_cycle(&self) -> u64 {
        self.next_cycle
    }

    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Undelivered bytes and polls.
    pub fn load_now(&self) -> (u64, u64) {
        (self.bytes, self.polls)
    }

    fn agent(&self) -> Result<AgentId, StoreError> {
        Ok(self.conn.query_row("SELECT agent FROM life", [], |r| Ok(AgentId::from_bytes(r.get(0)?)))?)
    }

    /// Marks a burst as begun.
    pub fn begin(&mut self, cycle: u64, planned: u32, at: MomentV1) -> Result<(), StoreError> {
        self.with_recovery(at, |file| {
            let tx = file.conn.transaction()?;
            tx.execute("INSERT OR REPLACE INTO bursts VALUES (?1, ?2)", params![cycle, planned])?;
            tx.execute("UPDATE life SET next_cycle = max(next_cycle, ?1)", [cycle + 1])?;
            tx.commit()?;
            file.next_cycle = file.next_cycle.max(cycle + 1);
            Ok(())
        })
    }

    /// Seals and stores a burst's samples and takes its mark away.
    pub fn commit(
        &mut self,
        cycle: u64,
        started: MomentV1,
        samples: Vec<SampleV1>,
    ) -> Result<(), StoreError> {
        let guess = samples.len() as u64 * GUESS;
        let batches = chunks(samples);
        self.with_recovery(started, |file| {
            file.make_room(guess, started)?;
            // Deleting makes room within the file where the disk has none.
            for _ in 0..4 {
                match file.insert(cycle, started, &batches) {
                    Err(StoreError::Full) if file.drop_oldest(started).is_ok_and(|some| some) => {}
                    outcome => return outcome,
                }
            }
            Err(StoreError::Full)
        })?;
        self.write_mark()
    }

    fn insert(&mut self, cycle: u64, started: MomentV1, batches: &[Vec<SampleV1>]) -> Result<(), StoreError> {
        let outcome = self.try_insert(cycle, started, batches);
        if outcome.is_err() {
            // Keys of a transaction that was rolled back are no keys.
            self.groups.clear();
        }
        outcome
    }

    fn try_insert(
        &mut self,
        cycle: u64,
        started: MomentV1,
        batches: &[Vec<SampleV1>],
    ) -> Result<(), StoreError> {
        let tx = self.conn.transaction()?;
        let (mut seq, mut bytes, mut polls) = (self.next_seq, 0, 0);
        for samples in batches {
            let draft = self.groups.draft(seq, cycle, started, samples)?;
            let envelope = self.sealer.seal(self.epoch, Stream::Telemetry, seq, &draft.body)?;
            tx.prepare_cached("INSERT INTO batches VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
                seq,
                draft.group,
                cycle,
                samples.len(),
                envelope.len(),
                envelope
            ])?;
            seq += 1;
            bytes += envelope.len() as u64;
            polls += samples.len() as u64;
        }
        for cycle in self.given_up.iter().chain([&cycle]) {
            tx.prepare_cached("DELETE FROM bursts WHERE cycle = ?1")?.execute([cycle])?;
        }
        tx.execute(
            "UPDATE life SET next_seq = ?1, next_cycle = max(next_cycle, ?2)",
            params![seq, cycle + 1],
        )?;
        tx.commit()?;
        self.groups.settle(batches.len());
        self.given_up.clear();
        self.next_seq = seq;
        self.next_cycle = self.next_cycle.max(cycle + 1);
        self.bytes += bytes;
        self.polls += polls;
        Ok(())
    }

    /// Batches with numbers above `after` and up to `until`, in their order.
    pub fn pending(&self, after: u64, until: u64, limit: usize) -> Result<Vec<Kept>, StoreError> {
        let sql = "SELECT seq, envelope FROM batches WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3";
        let until = i64::try_from(until).unwrap_or(i64::MAX);
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![after, until, limit], |row| {
            Ok(Kept { seq: row.get(0)?, envelope: row.get(1)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Deletes what the control plane has for good. An acknowledgement of another epoch says nothing
    /// of this file.
    pub fn acked(&mut self, epoch: Epoch, ranges: &[(u64, u64)], at: MomentV1) -> Result<(), StoreError> {
        if epoch != self.epoch {
            return Ok(());
        }
        let highest = ranges.iter().map(|(_, last)| *last).max().unwrap_or(0);
        if highest >= self.next_seq {
            return self.rewound(at);
        }
        // A deletion that a power cut undoes costs a repeated batch, so it doesn't wait for the disk.
        self.conn.pragma_update(None, "synchronous", "NORMAL")?;
        let outcome = self.delete(ranges, highest + 1);
        self.conn.pragma_update(None, "synchronous", "FULL")?;
        outcome?;
        self.write_mark()
    }

    fn delete(&mut self, ranges: &[(u64, u64)], confirmed: u64) -> Result<(), StoreError> {
        let tx = self.conn.transaction()?;
        let (mut bytes, mut polls) = (0, 0);
        for (first, last) in ranges {
            let sums = "SELECT coalesce(sum(size), 0), coalesce(sum(polls), 0) FROM batches WHERE seq BETWEEN ?1 AND ?2";
            let (b, p): (u64, u64) =
                tx.prepare_cached(sums)?.query_row([first, last], |row| Ok((row.get(0)?, row.get(1)?)))?;
            tx.prepare_cached("DELETE FROM batches WHERE seq BETWEEN ?1 AND ?2")?.execute([first, last])?;
            bytes += b;
            polls += p;
        }
        let confirmed = self.confirmed.max(confirmed);
        tx.execute("UPDATE life SET confirmed = ?1", [confirmed])?;
        tx.commit()?;
        self.confirmed = confirmed;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.polls = self.polls.saturating_sub(polls);
        if self.bytes == 0 {
            // A backlog that is gone gives its pages back.
            self.conn.query_row("PRAGMA incremental_vacuum(4096)", [], |_| Ok(())).optional()?;
        }
        Ok(())
    }

    /// The control plane holds numbers that this file has not given yet: the disk was put back to an
    /// earlier state. Goes on under a new epoch, with what has been stored since.
    fn rewound(&mut self, at: MomentV1) -> Result<(), StoreError> {
        tracing::error!("this outbox is older than what the control plane holds; going on under a new epoch");
        self.renew(self.confirmed, at)
    }

    /// A new epoch. Batches from `keep_from` on are sealed anew, older ones are held already.
    fn renew(&mut self, keep_from: u64, at: MomentV1) -> Result<(), StoreError> {
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

    /// Lets the next burst start new groups, so that it can be sent before what is older.
    pub fn new_groups(&mut self) {
        self.groups.clear();
    }

    pub fn state(&self) -> Result<StreamStateV1, StoreError> {
        let lowest = "SELECT coalesce((SELECT seq FROM batches ORDER BY seq LIMIT 1), ?1)";
        Ok(StreamStateV1 {
            stream: Stream::Telemetry.number(),
            epoch: self.epoch,
            next: self.next_seq,
            lowest: self.conn.query_row(lowest, [self.next_seq], |row| row.get(0))?,
        })
    }

    /// Drops oldest groups until `more` bytes fit; a little further, so that it isn't done each cycle.
    fn make_room(&mut self, more: u64, at: MomentV1) -> Result<(), StoreError> {
        if self.bytes + more <= self.quota {
            return Ok(());
        }
        let goal = self.quota / 10 * 9;
        while self.bytes + more > goal && self.drop_oldest(at)? {}
        Ok(())
    }

    /// Drops the group of the oldest batch, with a gap. `false` when there is none.
    fn drop_oldest(&mut self, at: MomentV1) -> Result<bool, StoreError> {
        let tx = self.conn.transaction()?;
        let group = "SELECT grp FROM batches ORDER BY seq LIMIT 1";
        let Some(group) = tx.query_row(group, [], |row| row.get::<_, u64>(0)).optional()? else {
            return Ok(false);
        };
        let rows: Vec<Row> = tx
            .prepare_cached("SELECT seq, cycle, polls, size FROM batches WHERE grp = ?1 ORDER BY seq")?
            .query_map([group], |r| {
                Ok(Row { seq: r.get(0)?, cycle: r.get(1)?, polls: r.get(2)?, size: r.get(3)? })
            })?
            .collect::<Result<_, _>>()?;
        tx.execute("DELETE FROM batches WHERE grp = ?1", [group])?;
        let gaps = runs(self.epoch, GapCauseV1::Quota, &rows);
        put_gaps(&tx, &gaps, at)?;
        tx.commit()?;
        self.bytes = self.bytes.saturating_sub(rows.iter().map(|r| r.size).sum());
        self.polls = self.polls.saturating_sub(rows.iter().map(|r| r.polls).sum());
        self.groups.forget(group);
        tracing::warn!(batches = rows.len(), "the outbox is full: its oldest group is dropped");
        Ok(true)
    }

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

    fn add_gaps(&mut self, gaps: &[GapV1], at: MomentV1) -> Result<(), StoreError> {
        let tx = self.conn.transaction()?;
        put_gaps(&tx, gaps, at)?;
        Ok(tx.commit()?)
    }

    /// Bursts that were begun and never committed are gone with the process that took them.
    fn end_bursts(&mut self, at: MomentV1) -> Result<(), StoreError> {
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

    fn held(&self) -> Result<Held, StoreError> {
        let end = |order: &str| {
            let sql = format!("SELECT seq, cycle FROM batches ORDER BY seq {order} LIMIT 1");
            self.conn
                .prepare_cached(&sql)?
                .query_row([], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?)))
                .optional()
        };
        let (first, last) = (end("ASC")?, end("DESC")?);
        Ok(Held {
            epoch: self.epoch,
            seqs: first.zip(last).map(|(first, last)| (first.0, last.0)),
            cycles: (first.map_or(0, |f| f.1), last.map_or(0, |l| l.1)),
            polls: self.polls,
        })
    }

    fn write_mark(&self) -> Result<(), StoreError> {
        self.mark.write(&self.held()?);
        Ok(())
    }

    /// Does `work`; where the file turns out to be corrupt, once more on a new one.
    fn with_recovery<R>(
        &mut self,
        at: MomentV1,
        mut work: impl FnMut(&mut Self) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        match work(self) {
            Err(StoreError::Corrupt) => {
                self.start_anew(at)?;
                work(self)
            }
            outcome => outcome,
        }
    }

    fn start_anew(&mut self, at: MomentV1) -> Result<(), StoreError> {
        let (seqs, polls, epoch) = ((self.confirmed, self.next_seq - 1), self.polls, self.epoch);
        let cycles = (0, self.next_cycle.saturating_sub(1));
        let seqs = (polls > 0 && seqs.0 <= seqs.1).then_some(seqs);
        let aside = db::set_aside(&self.path, &fresh_epoch().to_string())?;
        tracing::error!(aside = %aside.display(), "the outbox is corrupt and is set aside");
        let (sealer, mark, next_cycle) =
            (self.sealer.clone(), std::mem::replace(&mut self.mark, Mark::none()), self.next_cycle);
        *self = Self::load(&self.path, &sealer, self.quota)?;
        self.mark = mark;
        self.next_cycle = next_cycle;
        self.add_gaps(&[lost_file(&Held { epoch, seqs, cycles, polls })], at)
    }
}

fn put_gaps(tx: &Transaction<'_>, gaps: &[GapV1], at: MomentV1) -> Result<(), StoreError> {
    let json = |e: serde_json::Error| StoreError::Unreadable { what: "a gap", reason: e.to_string() };
    let at = serde_json::to_string(&at).map_err(json)?;
    for gap in gaps {
        let gap = serde_json::to_string(gap).map_err(json)?;
        tx.prepare_cached("INSERT INTO gaps (gap, at) VALUES (?1, ?2)")?.execute(params![gap, at])?;
    }
    Ok(())
}

fn lost_file(held: &Held) -> GapV1 {
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
fn runs(epoch: Epoch, cause: GapCauseV1, rows: &[Row]) -> Vec<GapV1> {
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

#[cfg(test)]
pub(crate) mod tests;
