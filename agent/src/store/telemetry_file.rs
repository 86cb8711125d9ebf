//! The outbox's file and its rules, without threads; [`super::outbox`] says what they are.

use super::Kept;
use super::db::{self, Schema, StoreError};
use super::groups::{Groups, chunks};
use super::mark::{Held, Mark};
use super::sealer::{Sealer, fresh_epoch};
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::events::GapCauseV1;
use hashinsight_protocol::ids::{AgentId, Epoch};
use hashinsight_protocol::presence::StreamStateV1;
use hashinsight_protocol::telemetry::SampleV1;
use hashinsight_protocol::topics::Stream;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};

mod gaps;
mod renewal;

use gaps::{lost_file, put_gaps, runs};

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
/// Half of the journal's reserve: on a disk with less room the outbox doesn't grow.
const LOW: u64 = 4 << 20;
/// What the outbox may hold on such a disk in any case: enough to go on while there is contact.
const LITTLE: u64 = 1 << 20;

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
            file.make_room(guess, disk_is_low(&file.path), started)?;
            // Deleting makes room within the file where the disk has none.
            for _ in 0..4 {
                match file.insert(cycle, started, &batches) {
                    Err(StoreError::Full)
                        if file.drop_oldest(GapCauseV1::DiskFull, started).is_ok_and(|some| some) => {}
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
        if crate::sabotage::planted_now("reuse-seq", cycle) && seq > 1 {
            seq -= 1;
            tx.execute("DELETE FROM batches WHERE seq = ?1", [seq])?;
        }
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

    /// Brings all into the one file, for whoever copies it.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        Ok(self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
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

    /// Drops oldest groups until `more` bytes fit; a little further, so that it isn't done each cycle. On a
    /// disk that is low it holds no more than it does: what is left there is for the journal.
    fn make_room(&mut self, more: u64, low: bool, at: MomentV1) -> Result<(), StoreError> {
        let little = self.bytes.max(LITTLE);
        let (quota, cause) = if low && little < self.quota {
            (little, GapCauseV1::DiskFull)
        } else {
            (self.quota, GapCauseV1::Quota)
        };
        if self.bytes + more <= quota {
            return Ok(());
        }
        let goal = quota / 10 * 9;
        while self.bytes + more > goal && self.drop_oldest(cause, at)? {}
        Ok(())
    }

    /// Drops the group of the oldest batch, with a gap. `false` when there is none.
    fn drop_oldest(&mut self, cause: GapCauseV1, at: MomentV1) -> Result<bool, StoreError> {
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
        let gaps = runs(self.epoch, cause, &rows);
        put_gaps(&tx, &gaps, at)?;
        tx.commit()?;
        self.bytes = self.bytes.saturating_sub(rows.iter().map(|r| r.size).sum());
        self.polls = self.polls.saturating_sub(rows.iter().map(|r| r.polls).sum());
        self.groups.forget(group);
        tracing::warn!(batches = rows.len(), "the outbox is full: its oldest group is dropped");
        Ok(true)
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

/// Whether the disk has less room than the journal may need.
fn disk_is_low(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < LOW)
}

#[cfg(test)]
pub(crate) mod tests;
