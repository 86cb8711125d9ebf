//! One burst: a number of contacts at an even pace, and the samples that came of them.
//!
//! Workers take miners from lanes; there are as many as connections are allowed, whatever the number
//! of miners. Miners that failed last time have a lane of their own beside the others', with a part
//! of the connections, so that nobody waits behind a device that hangs. A device that somebody else
//! talks to is asked again when the others are through.

use crate::live::Roster;
use crate::poller::contact::{Contacts, News, Want};
use crate::poller::pace::{self, Pace};
use hashinsight_curtailment::Observation;
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::telemetry::{PollV1, SampleV1};
use hashinsight_protocol::units::BootMillis;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

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
    /// How long one in use is waited for.
    patience: Duration,
}

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
    ) -> Self {
        let found = Mutex::default();
        Self { contacts, roster, deadline, started, origin: Instant::now(), stop, told: None, found }
    }

    /// Asks every miner of the roster once, but for those that are left alone for a while.
    pub async fn all(self, cycle: Duration, concurrency: usize) -> Yield {
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
        let lanes = [
            (self.lane(sick, cycle, Some(self.origin + pace::window(cycle))), pace::sick_lane(concurrency)),
            (self.lane(well, cycle, None), concurrency),
        ];
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

    fn lane(&self, order: Vec<(usize, Want)>, cycle: Duration, closes: Option<Instant>) -> Lane {
        let pace = Pace::of(order.len(), cycle);
        Lane { order, next: AtomicUsize::new(0), pace, closes, defers: true, patience: PATIENCE }
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        // Each sample is put whole; a panic elsewhere leaves them good.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run<const N: usize>(self: &Arc<Self>, lanes: [(Lane, usize); N]) {
        let mut workers = JoinSet::new();
        for (lane, connections) in lanes {
            let connections = connections.min(lane.order.len());
            let lane = Arc::new(lane);
            for _ in 0..connections {
                workers.spawn(self.clone().work(lane.clone()));
            }
        }
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "A poll worker failed; its miners count as not asked.");
            }
        }
    }

    async fn work(self: Arc<Self>, lane: Arc<Lane>) {
        loop {
            let nth = lane.next.fetch_add(1, Ordering::Relaxed);
            let Some(&(at, want)) = lane.order.get(nth) else { return };
            let start = self.origin + lane.pace.start(nth);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep_until(start) => {}
            }
            if self.stop.is_cancelled() || lane.closes.is_some_and(|closes| Instant::now() > closes) {
                return;
            }
            self.visit(at, want, &lane).await;
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

    #[test]
    fn every_place_gets_one() {
        let filled = fill(vec![(1, 'b'), (3, 'd')], 5, |_| '-');
        assert_eq!(filled, [(0, '-'), (1, 'b'), (2, '-'), (3, 'd'), (4, '-')]);
    }
}
