//! The crowd before the door: connections that have not yet sent a valid CONNECT.
//!
//! Its size is bounded. When it is full, the longest-waiting peer that has not said a word for the
//! allowed time is shown out; when all have spoken, the longest-waiting one of the address that has the
//! most places, if it has shown no certificate in twice that time. Else new ones wait in the
//! kernel's queue until one is through or its deadline has passed. So silent peers and slow ones
//! cannot keep others out, and an honest rush is let in as fast as handshakes can be computed.

use crate::counters::network;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(crate) struct Crowd {
    inside: Mutex<Inside>,
    size: usize,
    silence: Duration,
    left: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    entrants: BTreeMap<u64, Arc<Entrant>>,
}

#[derive(Debug)]
struct Entrant {
    since: Instant,
    from: IpAddr,
    /// [`SILENT`], [`SPOKE`] or [`PROVEN`].
    standing: AtomicU8,
    out: CancellationToken,
}

const SILENT: u8 = 0;
const SPOKE: u8 = 1;
/// It has shown a certificate of ours.
const PROVEN: u8 = 2;

/// A place in the crowd, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    entrant: Arc<Entrant>,
}

impl Crowd {
    pub fn new(size: usize, silence: Duration) -> Arc<Self> {
        Arc::new(Self { inside: Mutex::default(), size: size.max(1), silence, left: Notify::new() })
    }

    /// A place for a peer from `from`, or `None` while nobody has to make room.
    pub fn enter(self: &Arc<Self>, from: IpAddr, now: Instant) -> Option<Place> {
        let mut inside = self.lock();
        if inside.entrants.len() >= self.size {
            let leaves = inside.silent(now, self.silence).or_else(|| inside.slow(now, self.silence * 2))?;
            if let Some(entrant) = inside.entrants.remove(&leaves) {
                entrant.out.cancel();
            }
        }
        let number = inside.next;
        inside.next += 1;
        let entrant = Arc::new(Entrant {
            since: now,
            from: network(from),
            standing: AtomicU8::new(SILENT),
            out: CancellationToken::new(),
        });
        inside.entrants.insert(number, entrant.clone());
        Some(Place { crowd: self.clone(), number, entrant })
    }

    /// Waits until trying again makes sense.
    pub async fn room(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(20), self.left.notified()).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inside> {
        // Every change under this lock is whole, so a poisoned one is as good as any.
        self.inside.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Inside {
    /// Those who have been here for so long, the longest first.
    fn since(&self, now: Instant, time: Duration) -> impl Iterator<Item = (u64, &Entrant)> {
        self.entrants
            .iter()
            .take_while(move |(_, e)| now.saturating_duration_since(e.since) >= time)
            .map(|(&number, e)| (number, &**e))
    }

    fn silent(&self, now: Instant, time: Duration) -> Option<u64> {
        self.since(now, time).find(|(_, e)| e.standing.load(Relaxed) == SILENT).map(|(number, _)| number)
    }

    /// Of the address with the most unproven peers, when it has more than one.
    fn slow(&self, now: Instant, time: Duration) -> Option<u64> {
        let unproven = |e: &Entrant| e.standing.load(Relaxed) != PROVEN;
        let mut places: HashMap<IpAddr, usize> = HashMap::new();
        for entrant in self.entrants.values().filter(|e| unproven(e)) {
            *places.entry(entrant.from).or_default() += 1;
        }
        let most = places.values().copied().max().filter(|most| *most > 1)?;
        let crowds = |e: &Entrant| unproven(e) && places.get(&e.from) == Some(&most);
        self.since(now, time).find(|(_, e)| crowds(e)).map(|(number, _)| number)
    }
}

impl Place {
    /// The peer has said something.
    pub fn spoke(&self) {
        self.entrant.standing.store(SPOKE, Relaxed);
    }

    /// The peer has shown who it is: it stays until its deadlines.
    pub fn proven(&self) {
        self.entrant.standing.store(PROVEN, Relaxed);
    }

    /// Returns when the peer must leave.
    pub async fn shown_out(&self) {
        self.entrant.out.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.lock().entrants.remove(&self.number);
        self.crowd.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silent_one_makes_room() {
        let crowd = Crowd::new(2, Duration::from_secs(1));
        let start = Instant::now();
        let [here, there] = [1, 2].map(|n| IpAddr::from([192, 0, 2, n]));
        let talker = crowd.enter(here, start).expect("room");
        talker.spoke();
        let silent = crowd.enter(here, start).expect("room");
        assert!(crowd.enter(there, start).is_none(), "the silent one has its time");
        let later = start + Duration::from_secs(1);
        let third = crowd.enter(there, later).expect("room is made");
        assert!(silent.entrant.out.is_cancelled() && !talker.entrant.out.is_cancelled());
        third.spoke();
        drop(silent);
        assert!(crowd.enter(there, later + Duration::from_secs(9)).is_none(), "one each, all have spoken");
        drop(talker);
        assert!(crowd.enter(there, later).is_some());
    }

    #[test]
    fn who_has_the_most_places_gives_one_up_but_not_a_proven_one() {
        let crowd = Crowd::new(4, Duration::from_secs(1));
        let start = Instant::now();
        let [honest, hostile] = [1, 2].map(|n| IpAddr::from([192, 0, 2, n]));
        let enter = |from| {
            let place = crowd.enter(from, start).expect("room");
            place.spoke();
            place
        };
        let slow = enter(honest);
        let crowding = [hostile; 3].map(enter);
        crowding[0].proven();
        assert!(crowd.enter(honest, start + Duration::from_secs(1)).is_none(), "they have their time");
        let later = start + Duration::from_secs(2);
        let _next = crowd.enter(honest, later).expect("room is made");
        let out = crowding.each_ref().map(|p| p.entrant.out.is_cancelled());
        assert_eq!((out, slow.entrant.out.is_cancelled()), ([false, true, false], false));
    }
}
