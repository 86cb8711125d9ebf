//! Whether each miner could be stopped and woken now: what stands against it, as far as that shows
//! without a write. Pure, but for the two small files by which a command asks a running agent.
//!
//! - A miner is ready when nothing stands against it: it answers, it is the miner, its firmware can be put
//!   to sleep, its settings can be read, the device takes the sign-in, no lock, and the journal is
//!   writable.
//! - What goes up is only what has changed, gathered over some cycles, and all of it after a start.
//! - A miner that misses one poll is not unready: it has to fail twice.

use crate::live::{Live, State, Trust};
use hashinsight_firmware::Profiles;
use hashinsight_protocol::events::EventV1;
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::readiness::{AccessV1, BlockerV1, MINERS, MinerReadyV1, ReadinessV1};
use hashinsight_protocol::telemetry::PollV1;
use hashinsight_protocol::units::{BootMillis, DurationMs, Millis, Watts};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

/// Failures in a row that make a miner unreachable.
const FAILURES: u32 = 2;

/// What the agent itself brings to every miner's readiness.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Whether a miner that is known by its address alone may be curtailed.
    pub take_weak_identity: bool,
    pub journal_is_writable: bool,
}

/// One miner's readiness; `None` while it has not been asked.
pub fn of(state: &State, terms: Terms) -> Option<MinerReadyV1> {
    let poll = state.poll?;
    let mut blockers = Vec::new();
    let mut add = |stands: bool, blocker| {
        if stands {
            blockers.push(blocker);
        }
    };
    let other = matches!(state.trust, Trust::Other(_));
    let unreachable = !matches!(poll, PollV1::Answered | PollV1::Busy | PollV1::OtherDevice)
        && (state.failures >= FAILURES || state.taken.is_none());
    let learned = state.miner.learned.as_ref();
    add(other || poll == PollV1::OtherDevice, BlockerV1::OtherDevice);
    add(unreachable, BlockerV1::Unreachable);
    add(learned.is_none() && !unreachable && !other, BlockerV1::NotRecognised);
    if learned.is_some() {
        let weak = state.miner.is_weak() || (state.trust == Trust::Weak && !unreachable);
        add(weak && !other && !terms.take_weak_identity, BlockerV1::WeakIdentity);
        let can_sleep = learned.is_some_and(|learned| learned.capabilities.sleep);
        add(!can_sleep, BlockerV1::NoCapability);
        if can_sleep {
            let refusal = state.refusal();
            blockers.extend(refusal);
            if state.unsettled.is_some() && refusal.is_none() && !unreachable {
                blockers.push(BlockerV1::SettingsUnreadable);
            }
        }
    }
    if state.miner.out_of_service {
        blockers.push(BlockerV1::OutOfService);
    }
    if state.miner.protected {
        blockers.push(BlockerV1::Protected);
    }
    if !terms.journal_is_writable {
        blockers.push(BlockerV1::Journal);
    }
    let proven = learned.and_then(|learned| learned.proven.clone());
    Some(MinerReadyV1 { miner: state.miner.id, blockers, access: state.access.state, proven })
}

/// What was told of each miner, and when.
#[derive(Debug, Default)]
pub struct Told {
    miners: HashMap<MinerId, MinerReadyV1>,
    at: Option<BootMillis>,
}

impl Told {
    /// The events that tell what has changed since; none sooner than `apart` after the last.
    pub fn news(&mut self, live: &Live, terms: Terms, now: BootMillis, apart: DurationMs) -> Vec<EventV1> {
        if self.at.is_some_and(|at| now.since(at) < apart) {
            return Vec::new();
        }
        let roster = live.roster();
        let mut changed = Vec::new();
        for entry in roster.entries() {
            let Some(ready) = of(&entry.state(), terms) else { continue };
            if self.miners.get(&entry.id) != Some(&ready) {
                self.miners.insert(entry.id, ready.clone());
                changed.push(ready);
            }
        }
        if self.miners.len() > roster.entries().len() {
            self.miners.retain(|miner, _| roster.get(*miner).is_some());
        }
        if !changed.is_empty() {
            self.at = Some(now);
        }
        let event = |miners: &[MinerReadyV1]| EventV1::Readiness(ReadinessV1 { miners: miners.to_vec() });
        changed.chunks(MINERS).map(event).collect()
    }

    /// What was told could not be kept: it is told again.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// All miners' readiness at one time, as the command shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Of the question that it answers.
    pub asked: u64,
    pub at: Millis,
    pub miners: Vec<Line>,
}

/// One miner of a report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    #[serde(flatten)]
    pub ready: MinerReadyV1,
    pub address: String,
    pub rack: Option<String>,
    pub position: Option<String>,
    pub firmware: Option<String>,
    pub model: Option<String>,
    /// By serial number or MAC; by its address alone otherwise.
    pub strong_identity: bool,
    pub sleep: bool,
    pub power_limit: bool,
    /// The name of the sign-in; the family's factory default otherwise.
    pub credentials: Option<String>,
    /// Why access or settings are no better.
    pub detail: Option<String>,
    /// What a stop would save now.
    pub saves_w: Option<f64>,
}

impl Report {
    /// Of all miners that were asked; who was not is not recognised.
    pub fn of(live: &Live, profiles: &Profiles, terms: Terms, asked: u64, at: Millis) -> Self {
        let line = |entry: &std::sync::Arc<crate::live::Entry>| {
            let state = entry.state();
            let ready = of(&state, terms).unwrap_or(MinerReadyV1 {
                miner: entry.id,
                blockers: vec![BlockerV1::NotRecognised],
                access: AccessV1::Unknown,
                proven: None,
            });
            let learned = state.miner.learned.as_ref();
            let can = learned.map(|learned| learned.capabilities).unwrap_or_default();
            let detail = [&state.access.detail, &state.unsettled, &state.error];
            Line {
                address: crate::inventory::address_of(&state.miner).to_string(),
                rack: state.miner.rack.clone(),
                position: state.miner.position.clone(),
                firmware: learned.map(|learned| {
                    profiles.get(&learned.firmware).map_or(&learned.firmware, |p| &p.title).clone()
                }),
                model: learned.and_then(|learned| learned.model.clone()),
                strong_identity: !state.miner.is_weak(),
                sleep: can.sleep,
                power_limit: can.power_limit,
                credentials: state.miner.credentials.clone(),
                detail: if ready.is_ready() { None } else { detail.into_iter().flatten().next().cloned() },
                saves_w: saves(&state).map(Watts::get),
                ready,
            }
        };
        Self { asked, at, miners: live.roster().entries().iter().map(line).collect() }
    }

    /// Watts that the ready miners would save.
    pub fn ready_watts(&self) -> f64 {
        self.miners.iter().filter(|line| line.ready.is_ready()).filter_map(|line| line.saves_w).sum()
    }
}

/// What a stop would save by the last reading; nothing of a miner that does not hash.
fn saves(state: &State) -> Option<Watts> {
    let reading = &state.taken.as_ref()?.reading;
    if reading.is_mining == Some(false) {
        return Some(Watts::ZERO);
    }
    let standby = state.identified.as_ref().and_then(|identified| identified.standby).unwrap_or_default();
    Some(reading.power?.saturating_sub(standby))
}

/// Where a command asks a running agent to look at every miner's access again.
const ASK: &str = "readiness.ask";
/// The answer.
const ANSWER: &str = "readiness.json";

/// Asks the agent that runs on a data folder; the number is in its answer.
///
/// # Errors
/// The folder can't be written to.
pub fn ask(data_dir: &Path, number: u64) -> std::io::Result<()> {
    replace(data_dir, ASK, number.to_string().as_bytes())
}

/// The question that waits in a data folder, taken out of it.
pub fn take_question(data_dir: &Path) -> Option<u64> {
    let path = data_dir.join(ASK);
    let text = std::fs::read_to_string(&path).ok()?;
    // One that can't be removed would be asked for ever.
    std::fs::remove_file(&path).ok()?;
    text.trim().parse().ok()
}

/// Puts the answer into the data folder.
///
/// # Errors
/// The folder can't be written to.
pub fn answer(data_dir: &Path, report: &Report) -> std::io::Result<()> {
    replace(data_dir, ANSWER, &serde_json::to_vec(report)?)
}

/// The last answer in a data folder, if there is one.
///
/// # Errors
/// It can't be read.
pub fn read_answer(data_dir: &Path) -> std::io::Result<Option<Report>> {
    match std::fs::read(data_dir.join(ANSWER)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn replace(data_dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = data_dir.join(format!("{name}.new"));
    std::fs::write(&fresh, bytes)?;
    std::fs::rename(&fresh, data_dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::tests::{learned, miner};
    use crate::store::{InventoryMiner, Learned};
    use hashinsight_firmware::Access;
    use hashinsight_protocol::device::CapabilitiesV1;

    const TERMS: Terms = Terms { take_weak_identity: false, journal_is_writable: true };

    fn live_of(miner: InventoryMiner) -> Live {
        let live = Live::default();
        live.set_inventory(vec![miner]);
        live
    }

    /// What stands against a miner whose state was changed like this.
    fn blockers(change: impl FnOnce(&mut State)) -> Vec<BlockerV1> {
        let sleep = CapabilitiesV1 { sleep: true, ..CapabilitiesV1::default() };
        let known = Learned { capabilities: sleep, serial: Some("S1".to_owned()), ..learned("luxos") };
        let live = live_of(InventoryMiner { learned: Some(known), ..miner(1) });
        let roster = live.roster();
        let mut state = roster.entries()[0].state();
        (state.poll, state.trust) = (Some(PollV1::Answered), Trust::Strong);
        change(&mut state);
        of(&state, TERMS).expect("asked").blockers
    }

    fn access(state: AccessV1) -> Access {
        Access { state, detail: None }
    }

    #[test]
    fn each_obstacle_is_named_and_no_other() {
        use BlockerV1::*;
        assert_eq!(blockers(|_| {}), []);
        assert_eq!(blockers(|s| s.poll = Some(PollV1::Busy)), []);
        assert_eq!(blockers(|s| (s.poll, s.failures) = (Some(PollV1::TimedOut), 2)), [Unreachable]);
        assert_eq!(blockers(|s| s.poll = Some(PollV1::OtherDevice)), [OtherDevice]);
        assert_eq!(blockers(|s| s.access = access(AccessV1::Refused)), [CredentialRefused]);
        assert_eq!(blockers(|s| s.access = access(AccessV1::WritesOff)), [WritesOff]);
        assert_eq!(blockers(|s| s.access = access(AccessV1::ByWriteOnly)), []);
        assert_eq!(blockers(|s| s.unsettled = Some("x".to_owned())), [SettingsUnreadable]);
        assert_eq!(blockers(|s| s.miner.protected = true), [Protected]);
        assert_eq!(blockers(|s| s.miner.out_of_service = true), [OutOfService]);
        assert_eq!(blockers(|s| s.miner.learned = None), [NotRecognised]);
        let no_serial = |s: &mut State| {
            s.trust = Trust::Weak;
            if let Some(learned) = &mut s.miner.learned {
                (learned.serial, learned.capabilities.sleep) = (None, false);
            }
        };
        assert_eq!(blockers(no_serial), [WeakIdentity, NoCapability]);
    }

    #[test]
    fn only_what_has_changed_is_told_and_not_too_often() {
        let live = live_of(InventoryMiner { learned: Some(learned("luxos")), ..miner(1) });
        let mut told = Told::default();
        let apart = DurationMs::from_secs(60);
        let mut news = |at: u64| told.news(&live, TERMS, BootMillis(at), apart).len();
        assert_eq!(news(0), 0, "it has not been asked");
        live.roster().entries()[0].state().poll = Some(PollV1::Answered);
        assert_eq!((news(1000), news(2000), news(100_000)), (1, 0, 0));
        live.roster().entries()[0].state().miner.protected = true;
        assert_eq!((news(110_000), news(111_000)), (1, 0));
        live.roster().entries()[0].state().miner.protected = false;
        assert_eq!((news(120_000), news(171_000)), (0, 1), "changes are gathered");
    }

    #[test]
    fn a_question_is_taken_once_and_its_answer_read() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(take_question(folder.path()), None);
        ask(folder.path(), 7).expect("writable");
        assert_eq!((take_question(folder.path()), take_question(folder.path())), (Some(7), None));
        let live = live_of(miner(1));
        let report = Report::of(&live, &Profiles::builtin(), TERMS, 7, Millis(5));
        answer(folder.path(), &report).expect("writable");
        let read = read_answer(folder.path()).expect("readable").expect("there");
        assert_eq!((read.asked, read.miners.len()), (7, 1));
        assert_eq!(read.miners[0].ready.blockers, [BlockerV1::NotRecognised]);
    }
}
