//! One burst: a number of contacts at an even pace, and the samples that came of them.
//!
//! Workers take miners from lanes; there are as many as connections are allowed, whatever the number
//! of miners.
//!
//! Nobody waits behind a device that hangs. A worker whose device takes longer than [`SLOW`] is relieved:
//! another one takes its place in the lane, and it ends with its contact, so that a burst lasts as long
//! as the others need and one deadline at most. The sockets that the system allows bound how many hang at
//! a time. Miners that failed last time have a lane of their own, with a part of the connections, where
//! nobody is relieved: they are expected to hang. A device that somebody else talks to is asked again when
//! the others are through.

use crate::live::Roster;
use crate::poller::contact::{Contacts, News, Want};
use crate::poller::devices::Devices;
use crate::poller::pace::{self, Pace};
use hashinsight_curtailment::Observation;
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::telemetry::{PollV1, SampleV1};
use hashinsight_protocol::units::BootMillis;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A visit that has ended, and the answer where one was wanted.
#[derive(Debug)]
pub struct Visited {
    pub miner: MinerId,
    pub prepared: Option<Observation>,
}

/// What came of a burst: a sample of each miner asked or left alone, in the roster's order, then what
/// else was read of some.
#[derive(Debug, Default)]
pub struct Yield {
    pub samples: Vec<SampleV1>,
    pub news: Vec<News>,
}

/// A burst under way.
pub struct Burst {
    contacts: Arc<Contacts>,
    roster: Arc<Roster>,
    deadline: Duration,
    started: MomentV1,
    origin: Instant,
    stop: CancellationToken,
    /// Where contacts run.
    handle: Handle,
    workers: TaskTracker,
    /// How many workers may still be relieved.
    relief: AtomicUsize,
    /// Who is told of each visit's end.
    told: Option<mpsc::Sender<Visited>>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    /// With each miner's place in the roster.
    samples: Vec<(usize, SampleV1)>,
    /// Further samples of the same miners.
    more: Vec<SampleV1>,
    deferred: Vec<(usize, Want)>,
    news: Vec<News>,
}

struct Lane {
    /// Places in the roster.
    order: Vec<(usize, Want)>,
    next: AtomicUsize,
    pace: Pace,
    /// Nobody is asked after this.
    closes: Option<Instant>,
    /// Whether a device in use is put off to the end.
    defers: bool,
    /// Whether a worker whose device hangs is relieved.
    relieves: bool,
    /// How long one in use is waited for.
    patience: Duration,
}

/// Every healthy device has answered by then; the slowest known take half of it over a bad network.
const SLOW: Duration = Duration::from_millis(400);

/// How long a burst waits for a device that is being written to; writes may take half a minute.
const PATIENCE: Duration = Duration::from_secs(1);

impl From<Found> for Yield {
    fn from(found: Found) -> Self {
        let samples = found.samples.into_iter().map(|(_, sample)| sample).chain(found.more).collect();
        Self { samples, news: found.news }
    }
}

/// Fills the gaps of a list of (place, value), sorted by place, up to `n` places.
fn fill<T>(found: Vec<(usize, T)>, n: usize, missing: impl Fn(usize) -> T) -> Vec<(usize, T)> {
    let mut filled = Vec::with_capacity(n);
    let mut found = found.into_iter().peekable();
    for at in 0..n {
        filled.push(found.next_if(|(place, _)| *place == at).unwrap_or_else(|| (at, missing(at))));
    }
    filled
}

impl Burst {
    pub fn new(
        contacts: Arc<Contacts>,
        roster: Arc<Roster>,
        deadline: Duration,
        started: MomentV1,
        stop: CancellationToken,
        devices: &Devices,
    ) -> Self {
        Self {
            contacts,
            roster,
            deadline,
            started,
            origin: Instant::now(),
            stop,
            handle: devices.handle().clone(),
            workers: TaskTracker::new(),
            // Bursts of the executor and of the poller may meet; each leaves the other its half.
            relief: AtomicUsize::new(devices.sockets() / 2),
            told: None,
            found: Mutex::default(),
        }
    }

    /// Asks every miner of the roster once, spread over the window, but for those that are left alone for a
    /// while.
    pub async fn all(self, window: Duration, concurrency: usize) -> Yield {
        let mut well = Vec::with_capacity(self.roster.entries().len());
        let mut sick: Vec<(BootMillis, usize)> = Vec::new();
        for (at, entry) in self.roster.entries().iter().enumerate() {
            let state = entry.state();
            if state.failures == 0 {
                well.push((at, Want::Reading));
            } else if state.not_before <= self.started.boot {
                sick.push((state.not_before, at));
            }
        }
        // Who has waited longest goes first, so that each gets its turn.
        sick.sort_unstable();
        let sick: Vec<_> = sick.into_iter().map(|(_, at)| (at, Want::Reading)).collect();
        let sick = Lane { relieves: false, ..self.lane(sick, window, Some(self.origin + window)) };
        let lanes = [(sick, pace::sick_lane(concurrency)), (self.lane(well, window, None), concurrency)];
        let burst = Arc::new(self);
        burst.run(lanes).await;
        let deferred = std::mem::take(&mut burst.found().deferred);
        let last = Lane { defers: false, ..burst.lane(deferred, Duration::ZERO, None) };
        burst.run([(last, concurrency)]).await;
        let mut found = std::mem::take(&mut *burst.found());
        found.samples.sort_unstable_by_key(|(at, _)| *at);
        // A burst that is broken off says only what it knows.
        if !burst.stop.is_cancelled() {
            let after = burst.contacts.clock.now().boot.since(burst.started.boot);
            found.samples = fill(found.samples, burst.roster.entries().len(), |at| {
                let entry = &burst.roster.entries()[at];
                // Who has not failed was not left alone: somebody else talks to it.
                let failing = entry.state().failures > 0;
                let poll = if failing { PollV1::BackedOff } else { PollV1::Busy };
                SampleV1::empty(entry.id, after, poll)
            });
        }
        found.into()
    }

    /// Visits a few miners at once, and tells of each as it ends.
    pub async fn some(
        mut self,
        wanted: Vec<(usize, Want)>,
        concurrency: usize,
        told: mpsc::Sender<Visited>,
    ) -> Yield {
        self.told = Some(told);
        let lane = Lane { defers: false, patience: self.deadline, ..self.lane(wanted, Duration::ZERO, None) };
        let burst = Arc::new(self);
        burst.run([(lane, concurrency)]).await;
        let found = std::mem::take(&mut *burst.found());
        found.into()
    }

    fn lane(&self, order: Vec<(usize, Want)>, window: Duration, closes: Option<Instant>) -> Lane {
        let pace = Pace::of(order.len(), window);
        let next = AtomicUsize::new(0);
        Lane { order, next, pace, closes, defers: true, relieves: true, patience: PATIENCE }
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        // Each sample is put whole; a panic elsewhere leaves them good.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run<const N: usize>(self: &Arc<Self>, lanes: [(Lane, usize); N]) {
        for (lane, connections) in lanes {
            let connections = connections.min(lane.order.len());
            let (burst, lane) = (self.clone(), Arc::new(lane));
            // They are put to work from their own thread: from here each would wake it.
            let hire_all = async move { (0..connections).for_each(|_| burst.hire(&lane)) };
            drop(self.workers.spawn_on(hire_all, &self.handle));
        }
        self.workers.close();
        self.workers.wait().await;
        self.workers.reopen();
    }

    /// Puts another worker to a lane.
    fn hire(self: &Arc<Self>, lane: &Arc<Lane>) {
        // A worker that fails ends as the others do; its miner counts as not asked.
        drop(self.workers.spawn_on(self.clone().work(lane.clone()), &self.handle));
    }

    async fn work(self: Arc<Self>, lane: Arc<Lane>) {
        loop {
            let nth = lane.next.fetch_add(1, Ordering::Relaxed);
            let Some(&(at, want)) = lane.order.get(nth) else { return };
            let start = self.origin + lane.pace.start(nth);
            if start > Instant::now() {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = sleep_until(start) => {}
                }
            }
            if self.stop.is_cancelled() || lane.closes.is_some_and(|closes| Instant::now() > closes) {
                return;
            }
            let mut visit = std::pin::pin!(self.visit(at, want, &lane));
            tokio::select! {
                biased;
                () = &mut visit => continue,
                () = sleep(SLOW), if lane.relieves => {}
            }
            let relieved =
                self.relief.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            if relieved.is_ok() {
                self.hire(&lane);
            }
            visit.await;
            if relieved.is_ok() {
                self.relief.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    async fn visit(&self, at: usize, want: Want, lane: &Lane) {
        let Some(entry) = self.roster.entries().get(at) else { return };
        if lane.defers && entry.gate.try_lock().is_err() {
            self.found().deferred.push((at, want));
            return;
        }
        let contact = self.contacts.visit(entry, want, lane.patience, self.deadline, self.started).await;
        {
            let mut found = self.found();
            found.samples.extend(contact.sample.map(|sample| (at, sample)));
            found.more.extend(contact.more);
            found.news.extend(contact.news);
        }
        if let Some(told) = &self.told {
            // Nobody listens any more when the program ends.
            let _ = told.send(Visited { miner: entry.id, prepared: contact.prepared }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::credentials::CredentialStore;
    use crate::live::Live;
    use crate::store::InventoryMiner;
    use hashinsight_firmware::Profiles;
    use std::net::TcpListener;

    #[test]
    fn every_place_gets_one() {
        let filled = fill(vec![(1, 'b'), (3, 'd')], 5, |_| '-');
        assert_eq!(filled, [(0, '-'), (1, 'b'), (2, '-'), (3, 'd'), (4, '-')]);
    }

    fn miner(nth: u8, port: u16) -> InventoryMiner {
        InventoryMiner {
            id: MinerId::from_random([nth; 16]),
            ip: [127, 0, 0, 1].into(),
            api_port: Some(port),
            rack: None,
            position: None,
            customer: None,
            credentials: None,
            out_of_service: false,
            protected: false,
            learned: None,
        }
    }

    /// Four devices that hang and two connections: without relief the burst would last two deadlines,
    /// and all others would wait for them.
    #[tokio::test]
    async fn nobody_waits_behind_a_device_that_hangs() {
        let deadline = Duration::from_secs(4);
        let hangs = TcpListener::bind("127.0.0.1:0").expect("a port");
        let silent = hangs.local_addr().expect("bound").port();
        let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let port = |nth| if nth < 4 { silent } else { closed };
        let live = Live::default();
        live.set_inventory((0..40).map(|nth| miner(nth, port(nth))).collect());
        let clock = Clock::system().expect("a clock");
        let contacts = Contacts::new(clock.clone(), Profiles::builtin(), CredentialStore::builtin(), 1, 1);
        let devices = Devices::start().expect("a thread");
        let (contacts, stop) = (Arc::new(contacts), CancellationToken::new());
        let began = Instant::now();
        let burst = Burst::new(contacts, live.roster(), deadline, clock.now(), stop, &devices);
        let found = burst.all(Duration::ZERO, 2).await;
        let took = began.elapsed();
        assert_eq!(found.samples.len(), 40);
        for (nth, sample) in found.samples.iter().enumerate() {
            let after = Duration::from_millis(sample.after.0);
            if nth < 4 {
                assert_eq!(sample.poll, PollV1::TimedOut);
            } else {
                assert_eq!(sample.poll, PollV1::Refused);
                assert!(after < deadline, "{nth} waited for {after:?}");
            }
        }
        assert!(took < deadline * 2, "{took:?}");
    }
}
