//! The poller: every miner once a cycle, in a paced burst.
//!
//! - A burst is spread over a sixth of its cycle at most and closes when its last miner has answered
//!   or run out of time; its samples are stored in one piece, with one for each miner, whether it
//!   answered or not.
//! - Cycles are short while somebody watches the site or a dispatch runs.
//! - A miner that keeps failing is asked less and less often, and never delays the others.
//! - The executor asks for readings of its own; they are bursts of their own and are stored as such.
//! - What a technician changes by command, the inventory and the sign-ins, takes effect without a
//!   restart.
//! - Readings that can't be stored are still shown to the executor: it acts on what devices say, not
//!   on what could be written down.

pub mod burst;
pub mod change;
pub mod contact;
pub mod devices;
pub mod follow;
pub mod pace;

use crate::config::Config;
use crate::credentials::CredentialStore;
use crate::live::{Entry, Live};
use crate::readiness::{self, Report, Terms, Told};
use crate::store::{Journal, Outbox, StoreError};
use burst::{Burst, Visited, Yield};
use change::Sent;
use contact::{Aside, Contacts, News, Want};
use devices::Devices;
use hashinsight_curtailment::Observation;
use hashinsight_firmware::Change;
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::device::PreStateV1;
use hashinsight_protocol::events::{AlarmKindV1, AlarmV1, EventV1};
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::telemetry::{PollV1, SampleV1};
use hashinsight_protocol::topics::Stream;
use hashinsight_protocol::units::{DurationMs, Millis};
use pace::Tempo;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// A store that takes longer counts as failing.
const STORE_DEADLINE: Duration = Duration::from_secs(5);
/// Readiness that changes is told once in this time at most.
const READINESS_APART: Duration = Duration::from_secs(60);
/// How often it is looked whether a command asks something.
const ASKED_EVERY: Duration = Duration::from_millis(500);
/// Changes of the inventory within this are taken over together.
const FLOCK: Duration = Duration::from_secs(1);

/// What the poller and the executor share: the devices, the live view, and where readings go.
pub struct Field {
    pub contacts: Arc<Contacts>,
    pub live: Live,
    pub outbox: Outbox,
    pub journal: Journal,
    pub settings: Settings,
    devices: Devices,
    /// An outbox that fails is told once.
    outbox_failed: AtomicBool,
    /// What was found out is kept in its order.
    keeping: Arc<Mutex<()>>,
}

/// What of the configuration concerns devices.
#[derive(Clone, Debug)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub cycle: Duration,
    pub watched_cycle: Duration,
    pub concurrency: usize,
    pub deadline: Duration,
    pub take_weak_identity: bool,
}

impl Settings {
    pub fn of(config: &Config) -> Self {
        Self {
            data_dir: config.data_dir.clone(),
            cycle: config.cycle(),
            watched_cycle: config.watched_cycle(),
            concurrency: usize::try_from(config.concurrency).unwrap_or(usize::MAX).max(1),
            deadline: config.deadline(),
            take_weak_identity: config.policy.take_weak_identity.unwrap_or(false),
        }
    }
}

/// Readings that a write may take at most, for the count of what a crash in the middle of it loses: a
/// look a second while the mode settles.
const READS_OF_A_WRITE: usize = 40;

impl Field {
    pub fn new(
        contacts: Contacts,
        outbox: Outbox,
        journal: Journal,
        settings: Settings,
        devices: Devices,
    ) -> Self {
        Self {
            contacts: Arc::new(contacts),
            live: Live::default(),
            outbox,
            journal,
            settings,
            devices,
            outbox_failed: AtomicBool::new(false),
            keeping: Arc::default(),
        }
    }

    /// Readings for the executor: a burst of its own. Tells of each miner as its visit ends; those that
    /// are not ours any more are told of at once.
    pub async fn visit(
        &self,
        wanted: Vec<(MinerId, Want)>,
        told: mpsc::Sender<Visited>,
        stop: CancellationToken,
    ) {
        let roster = self.live.roster();
        let mut places = Vec::with_capacity(wanted.len());
        for (miner, want) in wanted {
            match roster.place(miner) {
                Some(at) => places.push((at, want)),
                None => _ = told.send(Visited { miner, prepared: None }).await,
            }
        }
        let started = self.contacts.clock.now();
        let cycle = self.begin(places.len(), started).await;
        let deadline = self.settings.deadline;
        let burst = Burst::new(self.contacts.clone(), roster, deadline, started, stop, &self.devices);
        let found = burst.some(places, self.settings.concurrency, told).await;
        self.live.announce();
        self.end(cycle, started, found).await;
    }

    /// One burst over all miners; `None` while there are none.
    pub async fn burst(&self, tempo: Tempo, stop: &CancellationToken) -> Option<Summary> {
        self.refresh_credentials();
        let roster = self.live.roster();
        if roster.entries().is_empty() {
            return None;
        }
        let started = self.contacts.clock.now();
        let number = self.begin(roster.entries().len(), started).await;
        let (contacts, stop) = (self.contacts.clone(), stop.clone());
        let burst = Burst::new(contacts, roster, tempo.deadline, started, stop, &self.devices);
        let found = burst.all(tempo.window, self.settings.concurrency).await;
        self.live.announce();
        let took = self.contacts.clock.now().boot.since(started.boot);
        let summary = Summary::of(number, started, took, tempo.cycle, &found.samples, &self.live);
        self.end(number, started, found).await;
        if let Err(error) = summary.write(&self.settings.data_dir) {
            tracing::warn!(%error, "The summary for `status` cannot be written.");
        }
        Some(summary)
    }

    /// Stops or wakes a device. What is read on the way is a small burst of its own.
    pub async fn write(&self, entry: &Entry, wake: bool, pre: &PreStateV1) -> Observation {
        let started = self.contacts.clock.now();
        let cycle = self.begin(READS_OF_A_WRITE, started).await;
        let aside = Aside::default();
        let (observation, news) = self.contacts.write(entry, wake, pre, self.settings.deadline, &aside).await;
        self.end(cycle, started, Yield { samples: aside.samples(entry.id, started), news }).await;
        observation
    }

    /// Changes a device as a person wishes. What is read on the way is a small burst of its own.
    ///
    /// # Errors
    /// Why nothing was sent, or what the device said against it.
    pub async fn change(&self, entry: &Entry, change: &Change) -> Result<Sent, String> {
        let started = self.contacts.clock.now();
        let cycle = self.begin(READS_OF_A_WRITE, started).await;
        let (aside, mut news) = (Aside::default(), Vec::new());
        let sent = self.contacts.change(entry, change, self.settings.deadline, &aside, &mut news).await;
        self.end(cycle, started, Yield { samples: aside.samples(entry.id, started), news }).await;
        sent
    }

    /// Announces a burst, so that a crash in the middle of it becomes a counted gap.
    async fn begin(&self, polls: usize, at: MomentV1) -> u64 {
        let cycle = self.outbox.next_cycle();
        let polls = u32::try_from(polls).unwrap_or(u32::MAX);
        if let Err(error) = within(self.outbox.begin_burst(cycle, polls, at)).await {
            self.outbox_result(Some(&error));
        }
        cycle
    }

    async fn end(&self, cycle: u64, started: MomentV1, found: Yield) {
        let result = within(self.outbox.commit_burst(cycle, started, found.samples)).await;
        self.outbox_result(result.err().as_deref());
        self.keep(found.news);
    }

    fn outbox_result(&self, error: Option<&str>) {
        let failed_before = self.outbox_failed.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !failed_before => {
                tracing::error!(error, "Readings cannot be stored; they are lost until this is mended.");
                let text = bounded_text(&format!("readings cannot be stored: {error}"));
                self.keep(vec![News::Alarm(AlarmV1 { kind: AlarmKindV1::Outbox, miner: None, text })]);
            }
            None if failed_before => tracing::info!("Readings are stored again."),
            _ => {}
        }
    }

    /// Keeps what has become known of miners, in the background: a slow disk delays no reading. What
    /// can't be kept now is found out again after a restart.
    pub fn keep(&self, news: Vec<News>) {
        if news.is_empty() {
            return;
        }
        let (journal, at, turn) = (self.journal.clone(), self.contacts.clock.now(), self.keeping.clone());
        // It ends by itself, and loses nothing that matters when the program ends before.
        drop(tokio::spawn(async move {
            let _turn = turn.lock().await;
            let (mut learned, mut events) = (Vec::new(), Vec::new());
            for one in news {
                match one {
                    News::Learned(miner) => learned.push(*miner),
                    News::Alarm(alarm) => {
                        tracing::warn!(miner = ?alarm.miner, "{}", alarm.text);
                        events.push(EventV1::Alarm(alarm));
                    }
                }
            }
            let kept = [
                if learned.is_empty() { Ok(()) } else { within(journal.learn(learned, at)).await },
                if events.is_empty() {
                    Ok(())
                } else {
                    within(journal.record(Stream::Events, at, events)).await
                },
            ];
            for error in kept.into_iter().filter_map(Result::err) {
                tracing::error!(error, "What was found out of a miner cannot be kept.");
            }
        }));
    }

    /// Takes over the sign-ins, where a technician has changed them.
    fn refresh_credentials(&self) {
        match self.contacts.credentials().reload(&self.settings.data_dir) {
            Ok(Some(store)) => {
                self.contacts.set_credentials(store);
                self.live.recheck_access();
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "The sign-ins known before stay in use."),
        }
    }

    /// Waits until a command asks how ready the miners are.
    async fn question(&self) -> u64 {
        loop {
            if let Some(number) = readiness::take_question(&self.settings.data_dir) {
                return number;
            }
            sleep(ASKED_EVERY).await;
        }
    }

    /// Takes over the inventory of the journal.
    pub async fn refresh_inventory(&self) {
        match within(self.journal.miners()).await {
            Ok(miners) => {
                for learned in miners.iter().filter_map(|miner| miner.learned.as_ref()) {
                    if let (Some(model), Some(version), Some(shape)) =
                        (&learned.model, &learned.version, &learned.write_shape)
                    {
                        self.contacts.profiles.learn_shape(model, version, shape);
                    }
                }
                self.live.set_inventory(miners);
            }
            Err(error) => {
                tracing::error!(error, "The inventory cannot be read; the one known before stays in use.");
            }
        }
    }
}

/// A call of a store, its failure in words. One that takes too long is given up: devices are read and
/// woken whatever the disk does.
async fn within<R>(call: impl Future<Output = Result<R, StoreError>>) -> Result<R, String> {
    match timeout(STORE_DEADLINE, call).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the disk has not answered for {} s", STORE_DEADLINE.as_secs())),
    }
}

/// Somebody watches the site: cycles of so many seconds, until then.
pub type Watched = Option<(u16, Millis)>;

/// Polls until it's stopped.
pub struct Poller {
    field: Arc<Field>,
    watched: watch::Receiver<Watched>,
    progress: Arc<AtomicU64>,
    told: Told,
}

impl Poller {
    pub fn new(field: Arc<Field>, watched: watch::Receiver<Watched>) -> Self {
        Self { field, watched, progress: Arc::default(), told: Told::default() }
    }

    /// When the last burst ended, in milliseconds of the boot clock; a watchdog looks at it.
    pub fn progress(&self) -> Arc<AtomicU64> {
        self.progress.clone()
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let mut dispatching = self.field.live.dispatching();
        let mut inventory = self.field.journal.miners_changed();
        let mut last: Option<Instant> = None;
        self.field.refresh_inventory().await;
        loop {
            let runs = *dispatching.borrow_and_update();
            let watched = *self.watched.borrow_and_update();
            let now = self.field.contacts.clock.now();
            let cycle = cycle(&self.field.settings, watched, runs, now.wall);
            let mut question = None;
            if let Some(began) = last {
                tokio::select! {
                    () = stop.cancelled() => return,
                    number = self.field.question() => {
                        self.field.live.recheck_access();
                        question = Some(number);
                    }
                    () = sleep_until(began + cycle) => {}
                    // The cycle's length may be another now.
                    Ok(()) = self.watched.changed() => continue,
                    Ok(()) = dispatching.changed() => continue,
                    Ok(()) = inventory.changed() => {
                        // Changes come in flocks.
                        sleep(FLOCK).await;
                        inventory.mark_unchanged();
                        self.field.refresh_inventory().await;
                        if self.field.live.has_unasked() {
                            // New miners are asked at once.
                            last = None;
                        }
                        continue;
                    }
                }
            }
            if stop.is_cancelled() {
                return;
            }
            last = Some(Instant::now());
            let tempo = Tempo::of(cycle, self.field.settings.deadline);
            self.field.burst(tempo, &stop).await;
            self.tell_readiness(cycle, question).await;
            let now = self.field.contacts.clock.now();
            self.progress.store(now.boot.0, Ordering::Relaxed);
        }
    }

    /// Tells of readiness that has changed, and answers who asked.
    async fn tell_readiness(&mut self, cycle: Duration, question: Option<u64>) {
        let field = &self.field;
        let terms = Terms {
            take_weak_identity: field.settings.take_weak_identity,
            journal_is_writable: field.journal.is_writable(),
        };
        let now = field.contacts.clock.now();
        let apart = (cycle * 2).min(READINESS_APART);
        let events = self.told.news(
            &field.live,
            terms,
            now.boot,
            DurationMs(u64::try_from(apart.as_millis()).unwrap_or(u64::MAX)),
        );
        if !events.is_empty()
            && let Err(error) = within(field.journal.record(Stream::Events, now, events)).await
        {
            tracing::error!(error, "The readiness of miners cannot be kept.");
            self.told.forget();
        }
        let Some(asked) = question else { return };
        let report = Report::of(&field.live, &field.contacts.profiles, terms, asked, now.wall);
        if let Err(error) = readiness::answer(&field.settings.data_dir, &report) {
            tracing::warn!(%error, "The answer for `ready` cannot be written.");
        }
    }
}

/// How long a cycle is now.
fn cycle(settings: &Settings, watched: Watched, dispatching: bool, now: Millis) -> Duration {
    let watched =
        watched.filter(|(_, until)| now < *until).map(|(s, _)| Duration::from_secs(u64::from(s.max(1))));
    let dispatching = dispatching.then_some(settings.watched_cycle);
    [watched, dispatching].into_iter().flatten().fold(settings.cycle, Duration::min)
}

/// What `status` shows of the last burst: a file in the data folder, replaced after each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    pub version: String,
    pub pid: u32,
    pub cycle: u64,
    pub started: MomentV1,
    pub took: DurationMs,
    pub cycle_s: f64,
    pub miners: usize,
    pub answered: usize,
    pub mining: usize,
    pub hashrate_hs: f64,
    pub power_w: f64,
    /// Samples of each kind.
    pub polls: Vec<(PollV1, usize)>,
    /// Miners that do not answer well, at most [`Summary::SICK`].
    pub sick: Vec<Sick>,
}

/// A miner that does not answer well.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sick {
    pub miner: MinerId,
    pub address: String,
    pub poll: PollV1,
    pub failures: u32,
    pub error: Option<String>,
}

impl Summary {
    pub const FILE: &str = "summary.json";
    /// Sick miners that are named.
    pub const SICK: usize = 100;

    fn of(
        cycle: u64,
        started: MomentV1,
        took: DurationMs,
        every: Duration,
        samples: &[SampleV1],
        live: &Live,
    ) -> Self {
        let mut polls: Vec<(PollV1, usize)> = Vec::new();
        for sample in samples {
            match polls.iter_mut().find(|(poll, _)| *poll == sample.poll) {
                Some((_, count)) => *count += 1,
                None => polls.push((sample.poll, 1)),
            }
        }
        let totals = live.totals();
        let roster = live.roster();
        let sick = roster.entries().iter().filter_map(|entry| {
            let state = entry.state();
            let poll = state.poll.filter(|poll| *poll != PollV1::Answered)?;
            Some(Sick {
                miner: entry.id,
                address: crate::inventory::address_of(&state.miner).to_string(),
                poll,
                failures: state.failures,
                error: state.error.clone(),
            })
        });
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            cycle,
            started,
            took,
            cycle_s: every.as_secs_f64(),
            miners: totals.miners,
            answered: totals.answered,
            mining: totals.mining,
            hashrate_hs: totals.hashrate.get(),
            power_w: totals.power.get(),
            polls,
            sick: sick.take(Self::SICK).collect(),
        }
    }

    /// Replaces the file. It is not synced: after a power cut the next burst writes it anew.
    fn write(&self, data_dir: &Path) -> std::io::Result<()> {
        let (path, fresh) = (data_dir.join(Self::FILE), data_dir.join("summary.json.new"));
        std::fs::write(&fresh, serde_json::to_vec(self)?)?;
        std::fs::rename(&fresh, &path)
    }

    /// Reads the file of a data folder; `None` where there is none.
    ///
    /// # Errors
    /// It can't be read, or is not ours.
    pub fn read(data_dir: &Path) -> std::io::Result<Option<Self>> {
        match std::fs::read(data_dir.join(Self::FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The sign-ins for a data folder that has a faulty file: the program starts with those built in, and
/// says what is wrong.
pub fn credentials_or_builtin(data_dir: &Path) -> CredentialStore {
    CredentialStore::load(data_dir).unwrap_or_else(|error| {
        tracing::error!(%error, "Only the factory defaults are used to sign in to miners.");
        CredentialStore::builtin()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_cycle_that_somebody_wants_holds() {
        let settings = Settings {
            data_dir: PathBuf::new(),
            cycle: Duration::from_secs(60),
            watched_cycle: Duration::from_secs(10),
            concurrency: 1,
            deadline: Duration::from_secs(5),
            take_weak_identity: false,
        };
        let at = |watched, runs| cycle(&settings, watched, runs, Millis(1000)).as_secs();
        assert_eq!(at(None, false), 60);
        assert_eq!(at(None, true), 10);
        assert_eq!(at(Some((5, Millis(2000))), true), 5);
        assert_eq!(at(Some((5, Millis(1000))), false), 60);
        assert_eq!(at(Some((0, Millis(2000))), false), 1);
        assert_eq!(at(Some((600, Millis(2000))), false), 60);
    }
}
