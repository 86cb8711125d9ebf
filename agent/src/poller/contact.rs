//! One contact with one device: who are you, what do you do, how are you set; or one write.
//!
//! - Whoever talks to a device holds its gate, so it has one connection at a time.
//! - A contact ends within its deadline, whatever the device does.
//! - A device is recognised on first contact, after it was away, restarted or was not understood, from
//!   time to time, and before every write. Another device than expected is neither read nor written.
//! - A reading that was taken becomes a sample, whatever happens after it.

use crate::clock::Clock;
use crate::credentials::CredentialStore;
use crate::live::identity::{Known, Match};
use crate::live::{Entry, State, Taken, Trust, known};
use crate::poller::pace;
use crate::store::InventoryMiner;
use hashinsight_curtailment::Observation;
use hashinsight_firmware::{
    self as firmware, Access, Device, DeviceError, Heard, Identified, Limits, Profiles, Reading, write_time,
};
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::device::{FactV1, PreStateV1};
use hashinsight_protocol::events::{AlarmKindV1, AlarmV1};
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::readiness::AccessV1;
use hashinsight_protocol::telemetry::{PollV1, SampleV1};
use hashinsight_protocol::units::{Celsius, DurationMs};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A device that answers well is recognised again after this long, and up to half as long again, so
/// that a site's miners don't come due together.
const RECOGNISE_AGAIN: DurationMs = DurationMs::from_minutes(30);
/// Largest reply taken; the longest known is 67 kB.
pub(super) const MAX_REPLY: usize = 1 << 20;
/// The access to a device is looked at again after this long where something stands against a write.
const ACCESS_AGAIN_SOON: DurationMs = DurationMs::from_minutes(5);
/// Failed polls after which a device is recognised again when it's back.
const FAILURES_SUSPECT: u32 = 2;

/// What is wanted of a contact beyond a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Reading,
    /// Its settings too, and its identity proven: something is about to be written.
    Prepared,
}

/// What came of a contact.
#[derive(Debug)]
pub struct Contact {
    /// `None` when the device was not asked, because somebody else talks to it.
    pub sample: Option<SampleV1>,
    /// Readings on the way: of its identification and its settings.
    pub more: Vec<SampleV1>,
    /// The answer to [`Want::Prepared`].
    pub prepared: Option<Observation>,
    pub news: Vec<News>,
}

/// What has become known of a miner: for the journal.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// All of a miner whose learned part is new.
    Learned(Box<InventoryMiner>),
    Alarm(AlarmV1),
}

/// All that is needed to talk to devices.
#[derive(Debug)]
pub struct Contacts {
    pub clock: Clock,
    pub profiles: Arc<Profiles>,
    credentials: RwLock<Arc<CredentialStore>>,
    api_port: u16,
    web_port: u16,
    v3_port: u16,
}

impl Contacts {
    pub fn new(
        clock: Clock,
        profiles: Profiles,
        credentials: CredentialStore,
        api_port: u16,
        web_port: u16,
    ) -> Self {
        let profiles = Arc::new(profiles);
        let credentials = RwLock::new(Arc::new(credentials));
        Self { clock, profiles, credentials, api_port, web_port, v3_port: firmware::V3_PORT }
    }

    /// Whatsminers' API 3 on another port than the usual one.
    pub fn on_v3_port(mut self, port: u16) -> Self {
        self.v3_port = port;
        self
    }

    /// Port of devices' CGMiner API, unless the inventory names another.
    pub fn api_port(&self) -> u16 {
        self.api_port
    }

    /// Port of Whatsminers' API 3.
    pub fn v3_port(&self) -> u16 {
        self.v3_port
    }

    /// Port of devices' web servers.
    pub fn web_port(&self) -> u16 {
        self.web_port
    }

    pub fn credentials(&self) -> Arc<CredentialStore> {
        self.credentials.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_credentials(&self, store: CredentialStore) {
        *self.credentials.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(store);
    }

    pub(super) fn device(&self, state: &State, aside: &Aside) -> Device {
        let name = state.miner.credentials.as_deref();
        Device {
            ip: state.miner.ip,
            api_port: state.miner.api_port.unwrap_or(self.api_port),
            web_port: self.web_port,
            v3_port: self.v3_port,
            credentials: name.and_then(|name| self.credentials().get(name).cloned()),
            heard: Some(aside.ear(&self.clock)),
        }
    }

    /// Reads a device, and its settings where they are wanted or a plan holds it. `started` is when the
    /// burst began that the sample goes into; `patience` is for others to end their contact.
    pub async fn visit(
        &self,
        entry: &Entry,
        want: Want,
        patience: Duration,
        deadline: Duration,
        started: MomentV1,
    ) -> Contact {
        // Nobody else talks to nearly every device.
        let gate = match entry.gate.try_lock() {
            Ok(gate) => Ok(gate),
            Err(_) => timeout(patience, entry.gate.lock()).await,
        };
        let ends = Instant::now() + deadline;
        let mut visit =
            Visit { contacts: self, entry, want, ends, deadline, news: Vec::new(), aside: Aside::default() };
        let Ok(gate) = gate else {
            let prepared =
                visit.failed_to_prepare("its connection is in use for another read or write", false);
            return Contact { sample: None, more: Vec::new(), prepared, news: visit.news };
        };
        let (outcome, ended) = Box::pin(visit.run()).await;
        drop(gate);
        let after = ended.boot.since(started.boot);
        let mut state = entry.state();
        let sample = match &outcome {
            Outcome::Read { reading, read_back, .. } => sample(entry.id, after, reading, read_back.as_ref()),
            Outcome::Failed { poll, .. } => SampleV1::empty(entry.id, after, *poll),
        };
        let prepared = visit.settle(&mut state, outcome, ended);
        drop(state);
        let more = visit.aside.samples(entry.id, started);
        Contact { sample: Some(sample), more, prepared, news: visit.news }
    }

    /// Stops or wakes a device, once it has proven to be the miner. What is read on the way goes `aside`.
    pub async fn write(
        &self,
        entry: &Entry,
        wake: bool,
        pre: &PreStateV1,
        deadline: Duration,
        aside: &Aside,
    ) -> (Observation, Vec<News>) {
        let mut news = Vec::new();
        let miner = entry.id;
        let failed = |why: String, identity_mismatch: bool| Observation::WriteFailed {
            miner,
            wake,
            why: bounded_text(&why),
            identity_mismatch,
        };
        let Ok(_gate) = timeout(deadline * 2, entry.gate.lock()).await else {
            return (failed("not sent: its connection is in use".to_owned(), false), news);
        };
        if entry.state().miner.out_of_service {
            return (failed("not sent: out of service".to_owned(), false), news);
        }
        let device = self.device(&entry.state(), aside);
        let limits = Limits { deadline, max_reply: MAX_REPLY };
        let identified = match self.who(entry, &device, &limits).await {
            Ok(identified) => identified,
            Err(error) => return (failed(format!("not sent: {error}"), false), news),
        };
        let found = self.recognise(entry, identified.clone(), &mut news);
        if let Err(stranger) = found {
            let mismatch = stranger.is_other;
            return (failed(format!("not sent: {}", stranger.words), mismatch), news);
        }
        // What was read before says nothing of the time after.
        if let Some(taken) = &mut entry.state().taken {
            taken.read_back = None;
        }
        let now = self.clock.now().wall;
        let longest = write_time(&self.profiles, &identified.firmware, &limits);
        let outcome = timeout(longest, async {
            if wake {
                firmware::wake(&self.profiles, &device, &identified, pre, &limits, now).await
            } else {
                firmware::stop(&self.profiles, &device, &identified, pre, &limits, now).await
            }
        });
        let outcome = match outcome.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error @ DeviceError::AuthRefused { .. })) => {
                let detail = Some(error.to_string());
                entry.state().access = Access { state: AccessV1::Refused, detail };
                return (failed(error.to_string(), false), news);
            }
            Ok(Err(error)) if error.is_lost_reply() => {
                return (unknown(miner, wake, &error.to_string()), news);
            }
            Ok(Err(error)) => return (failed(error.to_string(), false), news),
            Err(_) => {
                let why = format!("no end of the write within {:.0} s", longest.as_secs_f32());
                return (unknown(miner, wake, &why), news);
            }
        };
        if outcome.accepted == FactV1::Yes {
            entry.state().access = Access { state: AccessV1::Proven, detail: None };
        }
        if let Some(shape) = outcome.shape {
            if let (Some(model), Some(version)) = (&identified.model, &identified.version) {
                self.profiles.learn_shape(model, version, &shape);
            }
            let mut state = entry.state();
            if let Some(learned) = &mut state.miner.learned
                && learned.write_shape.as_ref() != Some(&shape)
            {
                learned.write_shape = Some(shape);
                news.push(News::Learned(Box::new(state.miner.clone())));
            }
        }
        let detail = bounded_text(&outcome.detail);
        (Observation::Written { miner, wake, accepted: outcome.accepted, mode: outcome.mode, detail }, news)
    }

    /// Who answers: a device that was recognised before is only asked who it is.
    pub(super) async fn who(
        &self,
        entry: &Entry,
        device: &Device,
        limits: &Limits,
    ) -> Result<Identified, DeviceError> {
        let known = {
            let state = entry.state();
            state.identified.clone().filter(|_| !state.suspect)
        };
        match known {
            Some(known) => firmware::identify_again(&self.profiles, device, &known, limits).await,
            None => firmware::identify(&self.profiles, device, limits).await,
        }
    }

    /// Compares what a device says of itself with what is known of the miner.
    pub(super) fn recognise(
        &self,
        entry: &Entry,
        identified: Identified,
        news: &mut Vec<News>,
    ) -> Result<(), Stranger> {
        let at = self.clock.now().boot;
        let seen = Known::of(&identified);
        let mut state = entry.state();
        let before = state.miner.learned.as_ref().map(known).unwrap_or_default();
        match before.compare(&seen) {
            Match::Same | Match::Weak => {
                let learned = state.learn(&self.profiles, identified, at);
                news.extend(learned.map(|miner| News::Learned(Box::new(miner))));
                Ok(())
            }
            // It can be read as what it is, but is not proven.
            Match::Unproven => {
                let words = "the device doesn't say its serial number or MAC now, so it can't be told whether it's \
                             this miner; check its credentials and its web interface";
                state.suspect = true;
                if state.identified.is_none() {
                    state.identified = Some(Arc::new(identified));
                    state.trust = Trust::Weak;
                }
                Err(Stranger { words: words.to_owned(), is_other: false })
            }
            Match::Other => {
                let name = |known: &Known| known.serial.clone().or(known.mac.clone()).unwrap_or_default();
                let words = format!("another device answers: {} instead of {}", name(&seen), name(&before));
                let words = bounded_text(&words);
                if !matches!(state.trust, Trust::Other(_)) {
                    news.push(News::Alarm(AlarmV1 {
                        kind: AlarmKindV1::Identity,
                        miner: Some(entry.id),
                        text: words.clone(),
                    }));
                }
                state.trust = Trust::Other(words.clone());
                state.stranger = Some(seen);
                state.taken = None;
                state.identified = None;
                Err(Stranger { words, is_other: true })
            }
        }
    }
}

/// Readings that came on the way to something else, each with its moment. They are kept as samples too.
#[derive(Clone, Debug, Default)]
pub struct Aside(Arc<Mutex<Vec<(MomentV1, Reading)>>>);

impl Aside {
    fn ear(&self, clock: &Clock) -> Heard {
        let (kept, clock) = (self.clone(), clock.clone());
        Heard::new(move |reading| kept.keep(clock.now(), reading))
    }

    pub(super) fn keep(&self, at: MomentV1, reading: Reading) {
        self.kept().push((at, reading));
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<(MomentV1, Reading)>> {
        // Each reading is put whole; a panic elsewhere leaves them good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was kept, as samples of a burst that began at `started`.
    pub fn samples(&self, miner: MinerId, started: MomentV1) -> Vec<SampleV1> {
        let kept = std::mem::take(&mut *self.kept());
        let each =
            |(at, reading): (MomentV1, Reading)| sample(miner, at.boot.since(started.boot), &reading, None);
        kept.into_iter().map(each).collect()
    }
}

/// A device that is not, or not provably, the miner.
pub(super) struct Stranger {
    pub(super) words: String,
    is_other: bool,
}

fn unknown(miner: MinerId, wake: bool, why: &str) -> Observation {
    let detail = bounded_text(why);
    Observation::Written { miner, wake, accepted: FactV1::Unknown, mode: FactV1::Unknown, detail }
}

/// A visit under way.
struct Visit<'a> {
    contacts: &'a Contacts,
    entry: &'a Entry,
    want: Want,
    ends: Instant,
    deadline: Duration,
    news: Vec<News>,
    aside: Aside,
}

enum Outcome {
    Read { reading: Box<Reading>, began: MomentV1, read_back: Option<PreStateV1>, unprepared: Option<String> },
    Failed { poll: PollV1, why: String, refuses: bool },
}

impl Outcome {
    fn failed(error: &DeviceError) -> Self {
        let refuses = matches!(error, DeviceError::Refused { .. });
        Self::Failed { poll: poll_of(error), why: error.to_string(), refuses }
    }
}

impl Visit<'_> {
    /// What is left of the deadline, for one call.
    fn limits(&self) -> Limits {
        let left = self.ends.saturating_duration_since(Instant::now());
        Limits { deadline: pace::whole_ms(left), max_reply: MAX_REPLY }
    }

    /// Talks to the device. The moment is when its reading was complete, or when it failed.
    async fn run(&mut self) -> (Outcome, MomentV1) {
        let Contacts { clock, profiles, .. } = self.contacts;
        let (device, is_due, held) = {
            let state = self.entry.state();
            let due = self.want == Want::Prepared || is_recognition_due(&state, clock.now());
            (self.contacts.device(&state, &self.aside), due, state.held)
        };
        let mut unprepared = None;
        if is_due {
            match self.contacts.who(self.entry, &device, &self.limits()).await {
                Ok(identified) => match self.contacts.recognise(self.entry, identified, &mut self.news) {
                    Ok(()) => {}
                    Err(stranger) if stranger.is_other => {
                        let failed = Outcome::Failed {
                            poll: PollV1::OtherDevice,
                            why: stranger.words,
                            refuses: false,
                        };
                        return (failed, clock.now());
                    }
                    Err(stranger) => unprepared = Some(stranger.words),
                },
                Err(error) => return (Outcome::failed(&error), clock.now()),
            }
        }
        let Some(identified) = self.entry.state().identified.clone() else {
            let why = "not recognised".to_owned();
            return (Outcome::Failed { poll: PollV1::NotUnderstood, why, refuses: false }, clock.now());
        };
        let began = clock.now();
        let reading = match firmware::read(profiles, &device, &identified, &self.limits()).await {
            Ok(reading) => Box::new(reading),
            Err(error) => return (Outcome::failed(&error), clock.now()),
        };
        let ended = clock.now();
        let mut read_back = None;
        if self.want == Want::Prepared || held {
            // The deadline is for the reading; settings that are needed get their own.
            let limits = Limits { deadline: self.deadline, max_reply: MAX_REPLY };
            match firmware::pre_state(profiles, &device, &identified, &limits).await {
                Ok(state) => read_back = Some(state),
                Err(error) => unprepared = unprepared.or(Some(error.to_string())),
            }
        }
        self.look_at_access(&device, &identified, read_back.is_some()).await;
        (Outcome::Read { reading, began, read_back, unprepared }, ended)
    }

    /// Finds out from time to time whether the device would take a write and could be put back.
    async fn look_at_access(&self, device: &Device, identified: &Identified, settled: bool) {
        let now = self.contacts.clock.now().boot;
        if !identified.capabilities.sleep || self.entry.state().access_due > now {
            return;
        }
        let profiles = &self.contacts.profiles;
        let limits = Limits { deadline: self.deadline, max_reply: MAX_REPLY };
        let access = firmware::check_access(profiles, device, identified, &limits).await;
        let refused = matches!(access.state, AccessV1::Refused | AccessV1::WritesOff);
        let unsettled = if settled || refused {
            None
        } else {
            firmware::pre_state(profiles, device, identified, &limits).await.err()
        };
        let mut state = self.entry.state();
        let pause = if refused || unsettled.is_some() || access.state == AccessV1::Unknown {
            ACCESS_AGAIN_SOON
        } else {
            RECOGNISE_AGAIN
        };
        state.access = access;
        state.unsettled = unsettled.map(|error| bounded_text(&error.to_string()));
        state.access_due = self.contacts.clock.now().boot.plus(pause);
    }

    /// Takes the outcome into the live view, and answers who wanted to write.
    fn settle(&self, state: &mut State, outcome: Outcome, ended: MomentV1) -> Option<Observation> {
        match outcome {
            Outcome::Read { reading, began, read_back, unprepared } => {
                let before = state.taken.as_ref().and_then(|taken| taken.reading.uptime);
                if reading.uptime.zip(before).is_some_and(|(now, before)| now < before) {
                    // It was restarted: a reason to look whether it's still the same.
                    state.suspect = true;
                }
                state.poll = Some(PollV1::Answered);
                state.error = None;
                state.failures = 0;
                state.not_before = ended.boot;
                let prepared = match (&read_back, unprepared) {
                    (Some(pre), None) => (self.want == Want::Prepared).then(|| Observation::Prepared {
                        miner: self.entry.id,
                        pre: pre.clone(),
                        at: began.boot,
                    }),
                    (_, why) => {
                        self.failed_to_prepare(why.as_deref().unwrap_or("its settings can't be read"), false)
                    }
                };
                state.taken = Some(Taken { reading: *reading, began: began.boot, at: began.wall, read_back });
                prepared
            }
            Outcome::Failed { poll, why, refuses } => {
                state.failures = state.failures.saturating_add(1);
                if state.failures >= FAILURES_SUSPECT || poll == PollV1::NotUnderstood {
                    state.suspect = true;
                }
                state.not_before = ended.boot.plus(pace::pause(state.failures, refuses));
                state.poll = Some(poll);
                let prepared = self.failed_to_prepare(&why, poll == PollV1::OtherDevice);
                state.error = Some(bounded_text(&why));
                prepared
            }
        }
    }

    fn failed_to_prepare(&self, why: &str, identity_mismatch: bool) -> Option<Observation> {
        (self.want == Want::Prepared).then(|| Observation::PrepareFailed {
            miner: self.entry.id,
            why: bounded_text(why),
            identity_mismatch,
        })
    }
}

/// Whether a device has to say again who it is.
fn is_recognition_due(state: &State, now: MomentV1) -> bool {
    let spread = u64::from(state.miner.id.as_bytes()[15]) * RECOGNISE_AGAIN.0 / 2 / 255;
    let age = now.boot.since(state.identified_at);
    state.identified.is_none() || state.suspect || age.0 >= RECOGNISE_AGAIN.0 + spread
}

/// How a failed poll is counted.
fn poll_of(error: &DeviceError) -> PollV1 {
    match error {
        DeviceError::Refused { .. } | DeviceError::Unreachable { .. } => PollV1::Refused,
        DeviceError::Empty { .. } => PollV1::Reset,
        DeviceError::Silent { .. } | DeviceError::Deadline { .. } => PollV1::TimedOut,
        DeviceError::AuthRefused { .. } => PollV1::SignInRefused,
        _ => PollV1::NotUnderstood,
    }
}

/// A reading as it is sent up.
pub fn sample(
    miner: MinerId,
    after: DurationMs,
    reading: &Reading,
    read_back: Option<&PreStateV1>,
) -> SampleV1 {
    let hottest = reading.temps.iter().copied().max_by(Celsius::total_cmp);
    SampleV1 {
        hashrate: reading.hashrate,
        power: reading.power,
        power_source: reading.power.and(reading.power_source),
        hottest,
        fan_max: reading.fans_rpm.iter().copied().max(),
        fan_min: reading.fans_rpm.iter().copied().min(),
        accepted: reading.accepted,
        rejected: reading.rejected,
        uptime: reading.uptime,
        is_mining: reading.is_mining,
        mode: read_back.map(|state| state.mode).or(reading.mode),
        warnings: Some(u32::try_from(reading.warnings.len() + reading.errors.len()).unwrap_or(u32::MAX)),
        ..SampleV1::empty(miner, after, PollV1::Answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Live;

    fn identified(serial: Option<&str>) -> Identified {
        Identified {
            firmware: "luxos".to_owned(),
            model: None,
            version: None,
            serial: serial.map(str::to_owned),
            mac: None,
            capabilities: Default::default(),
            standby: None,
            nameplate: None,
            joins: true,
        }
    }

    fn one_miner() -> (Contacts, Live, Arc<Entry>) {
        let clock = Clock::system().expect("a clock");
        let contacts = Contacts::new(clock, Profiles::builtin(), CredentialStore::builtin(), 4028, 80);
        let live = Live::default();
        live.set_inventory(vec![miner()]);
        let entry = live.roster().entries()[0].clone();
        (contacts, live, entry)
    }

    fn miner() -> InventoryMiner {
        InventoryMiner {
            id: MinerId::from_random([1; 16]),
            ip: [127, 0, 0, 1].into(),
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

    #[test]
    fn another_device_is_told_once_and_never_taken_for_the_miner() {
        let (contacts, _, entry) = one_miner();
        let mut news = Vec::new();
        let mut see = |serial| {
            news.clear();
            let taken = contacts.recognise(&entry, identified(serial), &mut news);
            (taken.map_err(|stranger| stranger.is_other), news.len())
        };
        assert_eq!(see(Some("A")), (Ok(()), 1));
        assert_eq!(see(Some("A")), (Ok(()), 0));
        assert_eq!(see(Some("B")), (Err(true), 1));
        assert!(matches!(entry.state().trust, Trust::Other(_)));
        assert_eq!(see(Some("B")), (Err(true), 0));
        assert_eq!(see(None), (Err(false), 0));
        assert_eq!(see(Some("A")), (Ok(()), 0));
        assert_eq!(entry.state().trust, Trust::Strong);
        assert!(!entry.state().suspect);
    }

    #[test]
    fn what_was_learned_outlives_an_older_inventory() {
        let (contacts, live, entry) = one_miner();
        contacts.recognise(&entry, identified(Some("A")), &mut Vec::new()).ok().expect("first contact");
        // The journal has not kept it yet, and a technician names the rack.
        live.set_inventory(vec![InventoryMiner { rack: Some("R1".to_owned()), ..miner() }]);
        let state = entry.state();
        assert_eq!(state.miner.learned.as_ref().and_then(|l| l.serial.as_deref()), Some("A"));
        assert_eq!((state.miner.rack.as_deref(), state.suspect), (Some("R1"), false));
        drop(state);
        live.set_inventory(vec![InventoryMiner { ip: [127, 0, 0, 2].into(), ..miner() }]);
        assert!(entry.state().suspect);
    }

    #[test]
    fn a_sample_says_the_hottest_and_the_slowest() {
        let reading = Reading {
            temps: [41.0, 77.5, 60.0].into_iter().filter_map(Celsius::new).collect(),
            fans_rpm: vec![3000, 0, 5880],
            ..Reading::default()
        };
        let sample = sample(MinerId::from_random([1; 16]), DurationMs(5), &reading, None);
        assert_eq!(sample.hottest.map(Celsius::get), Some(77.5));
        assert_eq!((sample.fan_max, sample.fan_min), (Some(5880), Some(0)));
        assert_eq!((sample.poll, sample.hashrate, sample.power_source), (PollV1::Answered, None, None));
    }

    #[test]
    fn a_hung_device_and_a_closed_port_are_told_apart() {
        let address = "10.0.0.1:4028".to_owned();
        let silent = DeviceError::Silent { address: address.clone(), after: Duration::from_secs(5) };
        assert_eq!(poll_of(&silent), PollV1::TimedOut);
        assert_eq!(poll_of(&DeviceError::Refused { address: address.clone() }), PollV1::Refused);
        assert_eq!(poll_of(&DeviceError::Empty { address: address.clone() }), PollV1::Reset);
        let login = "the user \"root\"".to_owned();
        let refused = DeviceError::AuthRefused { address: address.clone(), login };
        assert_eq!(poll_of(&refused), PollV1::SignInRefused);
        assert_eq!(poll_of(&DeviceError::HttpInstead { address }), PollV1::NotUnderstood);
    }
}
