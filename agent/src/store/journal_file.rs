//! The journal's file and its rules, without threads; [`super::journal`] says what they are.

use super::db::{self, Schema, StoreError};
use super::events::pack;
use super::reserve::Reserve;
use super::salvage;
use super::sealer::{Sealer, fresh_epoch};
use super::{InventoryMiner, MinerEdit};
use hashinsight_curtailment::{Change, HeldPlan};
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::events::{AgentStartedV1, AlarmKindV1, AlarmV1, EventV1, MinerGoneV1};
use hashinsight_protocol::ids::{AgentId, Epoch, MinerId};
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::topics::Stream;
use hashinsight_protocol::units::Millis;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

mod plans;
mod streams;

pub(crate) const FILE: &str = "journal.db";
const SCHEMA: Schema = Schema {
    application: 0x4849_4a31,
    version: 1,
    create: "
CREATE TABLE IF NOT EXISTS life (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch BLOB NOT NULL, agent BLOB NOT NULL,
    session INTEGER NOT NULL, running INTEGER NOT NULL, last_good INTEGER NOT NULL, document INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS streams (stream INTEGER PRIMARY KEY, next INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS batches (
    stream INTEGER NOT NULL, seq INTEGER NOT NULL, envelope BLOB NOT NULL, PRIMARY KEY (stream, seq)
) STRICT;
CREATE TABLE IF NOT EXISTS book (row TEXT PRIMARY KEY, change TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS plans (
    plan BLOB PRIMARY KEY, place INTEGER NOT NULL, body BLOB NOT NULL,
    stop TEXT, cancelled INTEGER NOT NULL, released TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS orders (
    id BLOB PRIMARY KEY, expires INTEGER NOT NULL, taken INTEGER NOT NULL, reason TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS miners (id BLOB PRIMARY KEY, body TEXT NOT NULL) STRICT;
",
};
/// The streams that live here.
pub(crate) const STREAMS: [Stream; 3] = [Stream::Events, Stream::Evidence, Stream::Audit];

pub(crate) struct JournalFile {
    conn: Connection,
    sealer: Sealer,
    epoch: Epoch,
    reserve: Option<Reserve>,
    plans: Vec<HeldPlan>,
    /// Changes when another process writes.
    data_version: i64,
    /// What was saved of a corrupt file, until it's told.
    salvaged: Option<String>,
    pub writable: bool,
    pub signals: Signals,
}

/// Who is told of changes.
#[derive(Clone)]
pub(crate) struct Signals {
    pub plans: watch::Sender<Arc<Vec<HeldPlan>>>,
    pub miners: watch::Sender<u64>,
    pub streams: watch::Sender<u64>,
}

impl Signals {
    fn bump(of: &watch::Sender<u64>) {
        of.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// Writes events into their streams within a transaction.
struct Scribe<'a> {
    tx: &'a Transaction<'a>,
    sealer: &'a Sealer,
    epoch: Epoch,
}

impl Scribe<'_> {
    fn append(&self, stream: Stream, at: MomentV1, events: &[EventV1]) -> Result<(), StoreError> {
        for body in pack(at, events)? {
            self.append_body(stream, &body)?;
        }
        Ok(())
    }

    fn append_body(&self, stream: Stream, body: &[u8]) -> Result<(), StoreError> {
        // The number is read within the transaction: another process may have given some.
        let sql =
            "INSERT INTO streams VALUES (?1, 2) ON CONFLICT DO UPDATE SET next = next + 1 RETURNING next - 1";
        let seq: u64 = self.tx.prepare_cached(sql)?.query_row([stream.number()], |row| row.get(0))?;
        let envelope = self.sealer.seal(self.epoch, stream, seq, body)?;
        let sql = "INSERT INTO batches VALUES (?1, ?2, ?3)";
        self.tx.prepare_cached(sql)?.execute(params![stream.number(), seq, envelope])?;
        Ok(())
    }
}

impl JournalFile {
    /// Opens or creates the journal. The one process that runs the agent holds the reserve.
    pub fn open(dir: &Path, sealer: Sealer, owner: bool) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let mut file = match Self::load(&path, &sealer) {
            Err(StoreError::Corrupt) if owner => {
                let aside = db::set_aside(&path, &fresh_epoch().to_string())?;
                let mut file = Self::load(&path, &sealer)?;
                file.salvage(&aside)?;
                file
            }
            outcome => outcome?,
        };
        if owner {
            file.reserve = Some(Reserve::open(dir));
            if file.agent()? != file.sealer.agent {
                file.renew()?;
            }
        }
        Ok(file)
    }

    fn load(path: &Path, sealer: &Sealer) -> Result<Self, StoreError> {
        let conn = db::open(path, &SCHEMA)?;
        let sound: String = conn.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        if sound != "ok" {
            return Err(StoreError::Corrupt);
        }
        conn.execute(
            "INSERT OR IGNORE INTO life VALUES (1, ?1, ?2, 0, 0, 0, 0)",
            params![fresh_epoch().as_bytes(), sealer.agent.as_bytes()],
        )?;
        let epoch = conn.query_row("SELECT epoch FROM life", [], |r| Ok(Epoch::from_bytes(r.get(0)?)))?;
        let signals = Signals {
            plans: watch::Sender::default(),
            miners: watch::Sender::default(),
            streams: watch::Sender::default(),
        };
        let mut file = Self {
            conn,
            sealer: sealer.clone(),
            epoch,
            reserve: None,
            plans: Vec::new(),
            data_version: 0,
            salvaged: None,
            writable: true,
            signals,
        };
        file.data_version = file.read_data_version()?;
        file.plans = file.read_plans()?;
        file.show_plans();
        Ok(file)
    }

    fn agent(&self) -> Result<AgentId, StoreError> {
        Ok(self.conn.query_row("SELECT agent FROM life", [], |r| Ok(AgentId::from_bytes(r.get(0)?)))?)
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Takes what can be read of a corrupt file, and says so.
    fn salvage(&mut self, aside: &Path) -> Result<(), StoreError> {
        let found = salvage::copy(aside, &self.conn);
        tracing::error!(aside = %aside.display(), ?found, "the journal was corrupt and is set aside");
        self.salvaged = Some(format!(
            "the journal was corrupt; read again: {}; the old file is {}",
            found.iter().map(|(table, rows)| format!("{table} {rows}")).collect::<Vec<_>>().join(", "),
            aside.display()
        ));
        self.renew()?;
        self.plans = self.read_plans()?;
        self.show_plans();
        Ok(())
    }

    /// One transaction; when the disk is full, once more on the reserve.
    fn write<R>(
        &mut self,
        mut work: impl FnMut(&Scribe<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut attempt = |conn: &mut Connection| {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&Scribe { tx: &tx, sealer: &self.sealer, epoch: self.epoch })?;
            tx.commit()?;
            Ok(done)
        };
        let mut outcome = attempt(&mut self.conn);
        if matches!(outcome, Err(StoreError::Full)) && self.reserve.as_mut().is_some_and(Reserve::release) {
            outcome = attempt(&mut self.conn);
        }
        self.writable = match &outcome {
            Ok(_) => true,
            // What the caller gave is at fault, not the file.
            Err(StoreError::Wire(_) | StoreError::Unreadable { .. }) => self.writable,
            Err(_) => false,
        };
        outcome
    }

    /// Takes the reserve again where there is room, and proves that the file can be written.
    pub fn tend(&mut self) -> Result<(), StoreError> {
        if let Some(reserve) = &mut self.reserve {
            reserve.restore();
        }
        if !self.writable {
            self.write(|s| Ok(s.tx.execute("UPDATE life SET running = running", [])?))?;
        }
        Ok(())
    }

    pub fn reserve_held(&self) -> bool {
        self.reserve.as_ref().is_none_or(Reserve::is_held)
    }

    /// The process starts. Says whether the last one ended in order.
    pub fn start(&mut self, version: &str, at: MomentV1) -> Result<bool, StoreError> {
        let clean = self.write(|s| {
            let running: bool = s.tx.query_row("SELECT running FROM life", [], |row| row.get(0))?;
            s.tx.execute("UPDATE life SET running = 1", [])?;
            let event = AgentStartedV1 { version: version.to_owned(), clean: !running };
            s.append(Stream::Events, at, &[EventV1::Started(event)])?;
            Ok(!running)
        })?;
        if let Some(text) = self.salvaged.take() {
            self.alarm(&text, at)?;
        }
        Signals::bump(&self.signals.streams);
        Ok(clean)
    }

    /// The process ends in order.
    pub fn end(&mut self) -> Result<(), StoreError> {
        self.write(|s| {
            s.tx.execute("UPDATE life SET running = 0", [])?;
            Ok(())
        })?;
        // All in the one file, for whoever copies it.
        Ok(self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    /// The number of the next connection.
    pub fn next_session(&mut self) -> Result<u64, StoreError> {
        self.write(|s| {
            Ok(s.tx.query_row("UPDATE life SET session = session + 1 RETURNING session", [], |r| r.get(0))?)
        })
    }

    pub fn last_good(&self) -> Result<Millis, StoreError> {
        Ok(Millis(self.conn.query_row("SELECT last_good FROM life", [], |row| row.get(0))?))
    }

    pub fn remember_good(&mut self, wall: Millis) -> Result<(), StoreError> {
        self.write(|s| {
            s.tx.execute("UPDATE life SET last_good = max(last_good, ?1)", [wall.0])?;
            Ok(())
        })
    }

    pub fn record(&mut self, stream: Stream, at: MomentV1, events: &[EventV1]) -> Result<(), StoreError> {
        self.write(|s| s.append(stream, at, events))?;
        Signals::bump(&self.signals.streams);
        Ok(())
    }

    pub fn commit_step(
        &mut self,
        changes: &[Change],
        at: MomentV1,
        events: &[EventV1],
    ) -> Result<(), StoreError> {
        self.write(|s| {
            for change in changes {
                let (row, stays) = change.row();
                if stays {
                    let json = serde_json::to_string(change).map_err(unreadable("a change of the book"))?;
                    s.tx.prepare_cached("INSERT OR REPLACE INTO book VALUES (?1, ?2)")?
                        .execute([row, json])?;
                } else {
                    s.tx.prepare_cached("DELETE FROM book WHERE row = ?1")?.execute([row])?;
                }
            }
            s.append(Stream::Evidence, at, events)
        })?;
        if !events.is_empty() {
            Signals::bump(&self.signals.streams);
        }
        Ok(())
    }

    /// The changes that make the book.
    pub fn book(&self) -> Result<Vec<Change>, StoreError> {
        self.json_rows("SELECT change FROM book ORDER BY row", "the book")
    }

    pub fn miners(&self) -> Result<Vec<InventoryMiner>, StoreError> {
        self.json_rows("SELECT body FROM miners ORDER BY id", "a miner")
    }

    fn json_rows<T: DeserializeOwned>(&self, sql: &str, what: &'static str) -> Result<Vec<T>, StoreError> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let texts = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        texts.iter().map(|text| serde_json::from_str(text).map_err(unreadable(what))).collect()
    }

    /// The whole inventory. Says who is new or changed, and who is gone.
    pub fn replace_miners(&mut self, miners: &[InventoryMiner], at: MomentV1) -> Result<(), StoreError> {
        let before: HashMap<MinerId, InventoryMiner> =
            self.miners()?.into_iter().map(|miner| (miner.id, miner)).collect();
        self.write(|s| {
            let mut events = Vec::new();
            s.tx.execute("DELETE FROM miners", [])?;
            for miner in miners {
                put_miner(s.tx, miner)?;
                if before.get(&miner.id).map(InventoryMiner::seen) != Some(miner.seen()) {
                    events.push(EventV1::Miner(miner.seen()));
                }
            }
            for id in before.keys().filter(|id| miners.iter().all(|miner| miner.id != **id)) {
                events.push(EventV1::MinerGone(MinerGoneV1 { miner: *id }));
            }
            s.append(Stream::Events, at, &events)
        })?;
        Signals::bump(&self.signals.miners);
        Signals::bump(&self.signals.streams);
        Ok(())
    }

    /// Adds miners; one that is in the inventory stays as it is.
    pub fn add(&mut self, miners: &[InventoryMiner], at: MomentV1) -> Result<(), StoreError> {
        self.write(|s| {
            let mut events = Vec::new();
            for miner in miners {
                let json = serde_json::to_string(miner).map_err(unreadable("a miner"))?;
                let sql = "INSERT OR IGNORE INTO miners VALUES (?1, ?2)";
                if s.tx.prepare_cached(sql)?.execute(params![miner.id.as_bytes(), json])? > 0 {
                    events.push(EventV1::Miner(miner.seen()));
                }
            }
            s.append(Stream::Events, at, &events)
        })?;
        Signals::bump(&self.signals.miners);
        Signals::bump(&self.signals.streams);
        Ok(())
    }

    /// What was learned of some miners, but for those that have left the inventory. What people say of
    /// them stays as it is here: they may have said it while the device was being asked.
    pub fn learn(&mut self, miners: &[InventoryMiner], at: MomentV1) -> Result<(), StoreError> {
        let learned = miners.iter().map(|miner| (miner.id, &miner.learned)).collect::<Vec<_>>();
        self.change(&learned, at, |miner, learned| miner.learned.clone_from(learned)).map(|_| ())
    }

    /// What people say of some miners. Says how many of them are in the inventory.
    pub fn edit(&mut self, edits: &[(MinerId, MinerEdit)], at: MomentV1) -> Result<usize, StoreError> {
        self.change(edits, at, |miner, edit| edit.apply(miner))
    }

    fn change<T>(
        &mut self,
        changes: &[(MinerId, T)],
        at: MomentV1,
        apply: impl Fn(&mut InventoryMiner, &T),
    ) -> Result<usize, StoreError> {
        let (known, told) = self.write(|s| {
            let (mut known, mut events) = (0, Vec::new());
            for (id, change) in changes {
                let sql = "SELECT body FROM miners WHERE id = ?1";
                let before: Option<String> =
                    s.tx.prepare_cached(sql)?.query_row([id.as_bytes()], |r| r.get(0)).optional()?;
                let Some(before) = before else { continue };
                let before: InventoryMiner = serde_json::from_str(&before).map_err(unreadable("a miner"))?;
                let mut miner = before.clone();
                apply(&mut miner, change);
                known += 1;
                put_miner(s.tx, &miner)?;
                if before.seen() != miner.seen() {
                    events.push(EventV1::Miner(miner.seen()));
                }
            }
            s.append(Stream::Events, at, &events)?;
            Ok((known, !events.is_empty()))
        })?;
        if known > 0 {
            Signals::bump(&self.signals.miners);
        }
        if told {
            Signals::bump(&self.signals.streams);
        }
        Ok(known)
    }

    fn read_data_version(&self) -> Result<i64, StoreError> {
        Ok(self.conn.pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    /// Notices what another process has written.
    pub fn look(&mut self) -> Result<(), StoreError> {
        let version = self.read_data_version()?;
        if std::mem::replace(&mut self.data_version, version) != version {
            let leases: HashMap<_, _> = self.plans.iter().map(|h| (h.plan.id, h.lease_from)).collect();
            self.plans = self.read_plans()?;
            for held in &mut self.plans {
                held.lease_from = leases.get(&held.plan.id).copied().flatten();
            }
            self.show_plans();
            Signals::bump(&self.signals.miners);
            Signals::bump(&self.signals.streams);
        }
        Ok(())
    }

    /// Says that something is wrong with the journal or was.
    pub fn alarm(&mut self, text: &str, at: MomentV1) -> Result<(), StoreError> {
        let alarm = AlarmV1 { kind: AlarmKindV1::Journal, miner: None, text: bounded_text(text) };
        self.record(Stream::Events, at, &[EventV1::Alarm(alarm)])
    }
}

fn unreadable(what: &'static str) -> impl Fn(serde_json::Error) -> StoreError {
    move |error| StoreError::Unreadable { what, reason: error.to_string() }
}

fn put_miner(tx: &Transaction<'_>, miner: &InventoryMiner) -> Result<(), StoreError> {
    let json = serde_json::to_string(miner).map_err(unreadable("a miner"))?;
    let sql = "INSERT OR REPLACE INTO miners VALUES (?1, ?2)";
    tx.prepare_cached(sql)?.execute(params![miner.id.as_bytes(), json])?;
    Ok(())
}

#[cfg(test)]
mod tests;
