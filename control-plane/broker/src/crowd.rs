//! The crowd before the door: connections that have not yet sent a valid CONNECT.
//!
//! Its size is bounded. When it is full, the longest-waiting peer that has not said a word for the
//! allowed time is shown out; when all have spoken, new ones wait in the kernel's queue until one
//! is through or its deadline has passed. So silent peers cannot keep others out, and an honest rush
//! is let in as fast as handshakes can be computed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
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
    spoke: AtomicBool,
    out: CancellationToken,
}

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

    /// A place, or `None` while all that stand there have spoken or are new.
    pub fn enter(self: &Arc<Self>, now: Instant) -> Option<Place> {
        let mut inside = self.lock();
        if inside.entrants.len() >= self.size {
            let silent = inside
                .entrants
                .iter()
                .take_while(|(_, e)| now.saturating_duration_since(e.since) >= self.silence)
                .find(|(_, e)| !e.spoke.load(Relaxed))
                .map(|(&number, _)| number)?;
            if let Some(entrant) = inside.entrants.remove(&silent) {
                entrant.out.cancel();
            }
        }
        let number = inside.next;
        inside.next += 1;
        let entrant =
            Arc::new(Entrant { since: now, spoke: AtomicBool::new(false), out: CancellationToken::new() });
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

impl Place {
    /// The peer has said something: it stays until its deadlines.
    pub fn spoke(&self) {
        self.entrant.spoke.store(true, Relaxed);
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
        let talker = crowd.enter(start).expect("room");
        talker.spoke();
        let silent = crowd.enter(start).expect("room");
        assert!(crowd.enter(start).is_none(), "the silent one has its time");
        let later = start + Duration::from_secs(1);
        let third = crowd.enter(later).expect("room is made");
        assert!(silent.entrant.out.is_cancelled() && !talker.entrant.out.is_cancelled());
        third.spoke();
        drop(silent);
        assert!(crowd.enter(later + Duration::from_secs(9)).is_none(), "all have spoken");
        drop(talker);
        assert!(crowd.enter(later).is_some());
    }
}
