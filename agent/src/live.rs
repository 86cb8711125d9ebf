//! What is known of every miner right now: one entry each, in memory.
//!
//! - An entry's `gate` is the right to talk to its device: who holds it has the one connection.
//! - An entry's state is behind a lock of its own that is never held across an await.
//! - The roster is replaced when the inventory changes; entries of miners that stay are kept, and
//!   with them a connection that is under way.
//! - Nothing here is durable: identities are kept in the journal, readings in the outbox.

pub mod identity;

use crate::store::{InventoryMiner, Learned};
use hashinsight_curtailment::{Book, Identity, Locks, Miner, MinerReading};
use hashinsight_firmware::{Access, Identified, Profiles, Reading, judge_running, judge_stopped, times};
use hashinsight_protocol::device::{FactV1, PreStateV1};
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::readiness::{AccessV1, BlockerV1, ProvenWriteV1, SHAPE_BYTES};
use hashinsight_protocol::telemetry::PollV1;
use hashinsight_protocol::units::{BootMillis, DurationMs, Hashrate, Millis, Watts};
use identity::Known;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::watch;

/// What a sleeping miner draws when its family's figure is unknown: the most of any seen.
const UNKNOWN_STANDBY_W: f64 = 150.0;

/// Not before it has been recognised.
const NEVER: BootMillis = BootMillis(u64::MAX);
/// The access to a miner is looked at within this after it was first recognised.
const FIRST_ACCESS: DurationMs = DurationMs::from_secs(60);

/// How sure it is that the device at a miner's address is the miner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Not seen since the start.
    #[default]
    Unknown,
    Strong,
    /// By its address alone.
    Weak,
    /// Another device answers; in words.
    Other(String),
}

/// The last reading of a miner.
#[derive(Clone, Debug)]
pub struct Taken {
    pub reading: Reading,
    /// When the read began, on both clocks.
    pub began: BootMillis,
    pub at: Millis,
    /// Its settings, where they were read in the same visit.
    pub read_back: Option<PreStateV1>,
}

/// All that changes about a miner.
#[derive(Debug)]
pub struct State {
    pub miner: InventoryMiner,
    /// What the journal last said of it: while that stays, what was learned since is kept.
    stored: Option<Learned>,
    pub identified: Option<Arc<Identified>>,
    pub identified_at: BootMillis,
    pub trust: Trust,
    pub taken: Option<Taken>,
    /// How the last poll ended.
    pub poll: Option<PollV1>,
    /// In the device's or our own words, when it did not end well.
    pub error: Option<String>,
    /// Polls in a row without an answer that could be understood.
    pub failures: u32,
    /// It is not asked before, unless something is expected of it.
    pub not_before: BootMillis,
    /// It has to be recognised again before it is read.
    pub suspect: bool,
    /// Who answers in its place, when it's another device.
    pub stranger: Option<Known>,
    /// A plan holds it: its settings are read with every reading.
    pub held: bool,
    /// Whether it would take a write, as far as that shows without one.
    pub access: Access,
    /// When the access is looked at again.
    pub access_due: BootMillis,
    /// Why its settings could not be read when they were last looked at.
    pub unsettled: Option<String>,
}

/// One miner.
#[derive(Debug)]
pub struct Entry {
    pub id: MinerId,
    /// The right to talk to the device.
    pub gate: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

impl Entry {
    fn new(miner: InventoryMiner) -> Self {
        let state = State {
            identified: None,
            identified_at: BootMillis(0),
            trust: Trust::Unknown,
            taken: None,
            poll: None,
            error: None,
            failures: 0,
            not_before: BootMillis(0),
            suspect: false,
            stranger: None,
            held: false,
            access: Access::default(),
            access_due: NEVER,
            unsettled: None,
            stored: miner.learned.clone(),
            miner,
        };
        Self { id: state.miner.id, gate: tokio::sync::Mutex::new(()), state: Mutex::new(state) }
    }

    /// The state; the lock is not to be held across an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        // A state is whole after each assignment, so one that a panic left behind is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The miner as the engine sees it, its reading judged by its family's rules.
    fn miner(&mut self, profiles: &Profiles, book: &Book) -> Miner {
        let id = self.miner.id;
        let hold = book.holds.get(&id);
        self.held = hold.is_some();
        let identified = self.identified.as_deref();
        let reading = match (&self.taken, identified, &self.trust) {
            (Some(taken), Some(identified), Trust::Strong | Trust::Weak) => {
                let read_back = taken.read_back.as_ref();
                let baseline = hold.and_then(|hold| hold.power_before);
                let stopped = judge_stopped(profiles, identified, &taken.reading, read_back, baseline);
                let running = hold.map_or((FactV1::Unknown, FactV1::Unknown), |hold| {
                    judge_running(profiles, identified, &taken.reading, read_back, &hold.pre)
                });
                Some(MinerReading {
                    at: taken.at,
                    boot: taken.began,
                    power: taken.reading.power,
                    power_source: taken.reading.power_source,
                    hashrate: taken.reading.hashrate,
                    is_mining: taken.reading.is_mining,
                    mode: read_back.map(|state| state.mode).or(taken.reading.mode),
                    stopped,
                    running,
                })
            }
            _ => None,
        };
        let standby = identified.and_then(|i| i.standby).or(Watts::new(UNKNOWN_STANDBY_W));
        let wake_s = identified.map_or(0, |i| times(profiles, &i.firmware).wake_effect_s);
        Miner {
            id,
            can_sleep: identified.is_some_and(|i| i.capabilities.sleep),
            blocker: self.refusal(),
            reading,
            standby: standby.unwrap_or(Watts::ZERO),
            locks: Locks { out_of_service: self.miner.out_of_service, protected: self.miner.protected },
            identity: if self.trust == Trust::Strong { Identity::Strong } else { Identity::Weak },
            restart_time: DurationMs::from_secs(wake_s),
        }
    }

    /// What the device itself has said against a write.
    pub fn refusal(&self) -> Option<BlockerV1> {
        match self.access.state {
            AccessV1::Refused => Some(BlockerV1::CredentialRefused),
            AccessV1::WritesOff => Some(BlockerV1::WritesOff),
            AccessV1::Unknown | AccessV1::NotNeeded | AccessV1::Proven | AccessV1::ByWriteOnly => None,
        }
    }

    /// Takes over that a write has shown its effect; what is to be kept.
    pub fn prove(&mut self, wake: bool, at: Millis) -> Option<InventoryMiner> {
        let learned = self.miner.learned.as_mut()?;
        let shape = learned.write_shape.clone().map(|mut shape| {
            let end = shape.floor_char_boundary(SHAPE_BYTES);
            shape.truncate(end);
            shape
        });
        learned.proven = Some(ProvenWriteV1 { at, wake, shape });
        Some(self.miner.clone())
    }

    /// Takes over what identification says now; what is to be kept, if anything is new.
    pub fn learn(
        &mut self,
        profiles: &Profiles,
        identified: Identified,
        at: BootMillis,
    ) -> Option<InventoryMiner> {
        let before = self.miner.learned.take();
        let mut known = before.as_ref().map(known).unwrap_or_default();
        known.learn(&Known::of(&identified));
        let plate = identified.nameplate;
        let wake_s = times(profiles, &identified.firmware).wake_effect_s;
        let learned = Learned {
            firmware: identified.firmware.clone(),
            model: identified.model.clone(),
            version: identified.version.clone(),
            serial: known.serial,
            mac: known.mac,
            capabilities: identified.capabilities,
            standby: identified.standby,
            nameplate_power: plate.map(|plate| plate.power),
            nameplate_hashrate: plate.map(|plate| plate.hashrate),
            restart: Some(DurationMs::from_secs(wake_s)),
            joins: identified.joins,
            write_shape: before.as_ref().and_then(|l| l.write_shape.clone()),
            proven: before.as_ref().and_then(|l| l.proven.clone()),
        };
        self.trust =
            if learned.serial.is_some() || learned.mac.is_some() { Trust::Strong } else { Trust::Weak };
        self.identified_at = at;
        if self.access_due == NEVER {
            // The first looks are spread, so that a start is no burst of sign-ins.
            let share = u64::from(self.miner.id.as_bytes()[15]);
            self.access_due = at.plus(DurationMs(FIRST_ACCESS.0 * share / 255));
        }
        self.suspect = false;
        self.stranger = None;
        self.identified = Some(Arc::new(identified));
        let is_new = before.as_ref() != Some(&learned);
        self.miner.learned = Some(learned);
        is_new.then(|| self.miner.clone())
    }

    /// Takes over what the journal says of the miner now.
    fn update(&mut self, mut miner: InventoryMiner) {
        let learned = miner.learned.clone();
        if learned == self.stored {
            miner.learned = self.miner.learned.take();
        }
        self.stored = learned;
        let place = |m: &InventoryMiner| (m.ip, m.api_port, m.credentials.clone());
        let identity = |m: &InventoryMiner| m.learned.as_ref().map(known);
        let forgotten = self.miner.learned.is_some() && identity(&self.miner) != identity(&miner);
        if place(&self.miner) != place(&miner) || forgotten {
            self.suspect = true;
            self.not_before = BootMillis(0);
            self.stranger = None;
            self.access = Access::default();
            self.access_due = NEVER;
        }
        self.miner = miner;
    }
}

/// What is known of a miner's identity.
pub fn known(learned: &Learned) -> Known {
    Known { serial: learned.serial.clone(), mac: learned.mac.clone() }
}

/// The miners of an agent, in the order of their ids.
#[derive(Debug, Default)]
pub struct Roster {
    entries: Vec<Arc<Entry>>,
    index: HashMap<MinerId, usize>,
}

impl Roster {
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// Where a miner stands among the entries.
    pub fn place(&self, miner: MinerId) -> Option<usize> {
        self.index.get(&miner).copied()
    }

    pub fn get(&self, miner: MinerId) -> Option<&Arc<Entry>> {
        self.entries.get(self.place(miner)?)
    }
}

/// Figures over all miners, of their last readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    pub miners: usize,
    pub answered: usize,
    pub mining: usize,
    pub hashrate: Hashrate,
    pub power: Watts,
}

/// The live view; cheap to clone.
#[derive(Clone, Debug)]
pub struct Live(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    roster: RwLock<Arc<Roster>>,
    readings: watch::Sender<u64>,
    dispatching: watch::Sender<bool>,
}

impl Default for Live {
    fn default() -> Self {
        Self(Arc::new(Shared {
            roster: RwLock::default(),
            readings: watch::Sender::new(0),
            dispatching: watch::Sender::new(false),
        }))
    }
}

impl Live {
    pub fn roster(&self) -> Arc<Roster> {
        self.0.roster.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over the inventory. A miner whose address or identity was changed by hand is recognised
    /// anew.
    pub fn set_inventory(&self, mut miners: Vec<InventoryMiner>) {
        miners.sort_unstable_by_key(|miner| miner.id);
        miners.dedup_by_key(|miner| miner.id);
        let old = self.roster();
        let mut roster = Roster::default();
        for miner in miners {
            let entry = match old.get(miner.id) {
                Some(entry) => {
                    entry.state().update(miner);
                    entry.clone()
                }
                None => Arc::new(Entry::new(miner)),
            };
            roster.index.insert(entry.id, roster.entries.len());
            roster.entries.push(entry);
        }
        *self.0.roster.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roster);
    }

    /// All miners as the engine sees them, on their last readings.
    pub fn snapshot(&self, profiles: &Profiles, book: &Book) -> Vec<Miner> {
        self.roster().entries.iter().map(|entry| entry.state().miner(profiles, book)).collect()
    }

    /// Has the access to all miners looked at again with their next readings.
    pub fn recheck_access(&self) {
        for entry in &self.roster().entries {
            let mut state = entry.state();
            if state.access_due != NEVER {
                state.access_due = BootMillis(0);
            }
            // Who is left alone for a while is asked all the same.
            state.not_before = BootMillis(0);
        }
    }

    /// Whether a miner has not been asked since the start or since it came.
    pub fn has_unasked(&self) -> bool {
        self.roster().entries.iter().any(|entry| {
            let state = entry.state();
            state.poll.is_none() && state.failures == 0
        })
    }

    /// Figures over all miners.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for entry in &self.roster().entries {
            let state = entry.state();
            totals.miners += 1;
            if state.poll != Some(PollV1::Answered) {
                continue;
            }
            totals.answered += 1;
            let Some(taken) = &state.taken else { continue };
            totals.mining += usize::from(taken.reading.is_mining == Some(true));
            totals.hashrate += taken.reading.hashrate.unwrap_or_default();
            totals.power += taken.reading.power.unwrap_or_default();
        }
        totals
    }

    /// Says that new readings are there.
    pub fn announce(&self) {
        self.0.readings.send_modify(|n| *n += 1);
    }

    /// Changes whenever new readings are there.
    pub fn readings(&self) -> watch::Receiver<u64> {
        self.0.readings.subscribe()
    }

    /// Says whether a dispatch runs: cycles are short then.
    pub fn set_dispatching(&self, runs: bool) {
        self.0.dispatching.send_if_modified(|before| std::mem::replace(before, runs) != runs);
    }

    pub fn dispatching(&self) -> watch::Receiver<bool> {
        self.0.dispatching.subscribe()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A miner of whom nothing is known but its address.
    pub(crate) fn miner(n: u8) -> InventoryMiner {
        InventoryMiner {
            id: MinerId::from_random([n; 16]),
            ip: [127, 0, 0, n].into(),
            api_port: None,
            rack: None,
            position: None,
            customer: None,
            credentials: None,
            out_of_service: false,
            protected: false,
            learned: None,
        }
    }

    pub(crate) fn learned(firmware: &str) -> Learned {
        Learned { firmware: firmware.to_owned(), ..Learned::default() }
    }
}
