//! The search itself: a bounded number of addresses at a time, at an even pace.
//!
//! An address is knocked at first: nothing listens at most of them, and a connection attempt is all that
//! those see. Only where a door opens is the device asked who it is, one connection after the other.

use crate::poller::pace::whole_ms;
use hashinsight_firmware::{Device, Heard, Identified, Limits, Profiles, identify};
use hashinsight_protocol::units::Hashrate;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// Where miners without the CGMiner API listen: Whatsminer's API 3.
const OTHER_DOOR: u16 = 4433;
/// Largest reply taken; the longest known is 67 kB.
const MAX_REPLY: usize = 1 << 20;

/// How fast and how patient a search is.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Addresses knocked at in a second.
    pub per_second: u32,
    /// Addresses talked to at the same time.
    pub concurrency: usize,
    /// For one door to open.
    pub connect: Duration,
    /// For a device to say who it is.
    pub deadline: Duration,
}

impl Default for Manner {
    /// A /20 takes 41 s, and the last addresses their time.
    fn default() -> Self {
        Self {
            per_second: 100,
            concurrency: 128,
            connect: Duration::from_secs(1),
            deadline: Duration::from_secs(5),
        }
    }
}

impl Manner {
    /// From the first address to the last.
    pub fn takes(&self, addresses: usize) -> Duration {
        Duration::from_secs_f64(addresses as f64 / f64::from(self.per_second.max(1)))
    }
}

/// A device that was found.
#[derive(Clone, Debug)]
pub struct Found {
    pub ip: Ipv4Addr,
    pub identified: Identified,
    /// What it does, where it said so on the way.
    pub hashrate: Option<Hashrate>,
}

/// What a search has come to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// In the order of their addresses.
    pub found: Vec<Found>,
    /// Addresses where something answers that is no miner, and why not.
    pub others: Vec<(Ipv4Addr, String)>,
    /// Addresses asked.
    pub asked: usize,
}

/// Looks for miners at all addresses. `like` is how they are reached and signed in to; its address does
/// not count. `passed` is told of every address that is done with.
pub async fn scan(
    profiles: Arc<Profiles>,
    like: Device,
    addresses: Vec<Ipv4Addr>,
    manner: Manner,
    passed: impl Fn(usize) + Send + Sync + 'static,
    stop: CancellationToken,
) -> Outcome {
    let search = Arc::new(Search {
        profiles,
        like,
        addresses,
        manner,
        origin: Instant::now(),
        next: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
        outcome: Mutex::default(),
        passed: Box::new(passed),
    });
    let mut workers = JoinSet::new();
    for _ in 0..manner.concurrency.max(1).min(search.addresses.len()) {
        workers.spawn(search.clone().work(stop.clone()));
    }
    while let Some(ended) = workers.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "A part of the search failed; its address counts as empty.");
        }
    }
    let mut outcome = std::mem::take(&mut *search.outcome());
    outcome.asked = search.done.load(Ordering::Relaxed);
    outcome.found.sort_by_key(|found| found.ip);
    outcome.others.sort();
    outcome
}

struct Search {
    profiles: Arc<Profiles>,
    like: Device,
    addresses: Vec<Ipv4Addr>,
    manner: Manner,
    origin: Instant,
    next: AtomicUsize,
    done: AtomicUsize,
    outcome: Mutex<Outcome>,
    passed: Box<dyn Fn(usize) + Send + Sync>,
}

impl Search {
    fn outcome(&self) -> std::sync::MutexGuard<'_, Outcome> {
        // Each finding is put whole; a panic elsewhere leaves them good.
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let nth = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(ip) = self.addresses.get(nth).copied() else { return };
            let look = async {
                sleep_until(self.origin + self.manner.takes(nth)).await;
                self.look(ip).await;
            };
            if stop.run_until_cancelled(look).await.is_none() {
                return;
            }
            (self.passed)(self.done.fetch_add(1, Ordering::Relaxed) + 1);
        }
    }

    async fn look(&self, ip: Ipv4Addr) {
        let doors = [self.like.api_port, self.like.web_port, OTHER_DOOR];
        let mut api_is_open = false;
        let mut open = false;
        for port in doors {
            match knock(ip, port, self.manner.connect).await {
                Door::Open => {
                    (open, api_is_open) = (true, port == self.like.api_port);
                    break;
                }
                Door::Closed => {}
                // Who does not answer at one door is not there, or does not want to be.
                Door::Silent => break,
            }
        }
        if !open {
            return;
        }
        let rate = Arc::new(Mutex::new(None));
        let kept = rate.clone();
        let heard = Heard::new(move |reading| {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = reading.hashrate;
        });
        let device = Device { ip: IpAddr::V4(ip), heard: Some(heard), ..self.like.clone() };
        let ends = Instant::now() + self.manner.deadline;
        let limits = Limits { deadline: whole_ms(self.manner.deadline), max_reply: MAX_REPLY };
        let asked = timeout_at(ends, Box::pin(identify(&self.profiles, &device, &limits))).await;
        match asked {
            Ok(Ok(identified)) => {
                let hashrate = *rate.lock().unwrap_or_else(PoisonError::into_inner);
                self.outcome().found.push(Found { ip, identified, hashrate });
            }
            // Any web server has an open door.
            _ if !api_is_open => {}
            Ok(Err(error)) => self.outcome().others.push((ip, error.to_string())),
            Err(_) => self.outcome().others.push((ip, "it has not said in time who it is".to_owned())),
        }
    }
}

enum Door {
    Open,
    Closed,
    Silent,
}

async fn knock(ip: Ipv4Addr, port: u16, patience: Duration) -> Door {
    match timeout(patience, TcpStream::connect(SocketAddr::from((ip, port)))).await {
        Ok(Ok(_)) => Door::Open,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Door::Closed,
        _ => Door::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_20_is_within_a_minute_at_the_defaults() {
        let manner = Manner::default();
        let last = manner.takes(4096) + manner.connect * 3 + manner.deadline;
        assert!(last < Duration::from_secs(60), "{last:?}");
        // Silent addresses hold their place for as long as a connection may take.
        let silent = manner.connect.as_secs_f64() * f64::from(manner.per_second);
        assert!(silent <= manner.concurrency as f64);
    }

    #[tokio::test]
    async fn what_is_no_miner_is_not_taken_for_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        let like = Device { api_port: port, web_port: 1, ..Device::at(IpAddr::from([0, 0, 0, 0])) };
        let addresses = (1..=3).map(|n| Ipv4Addr::new(127, 0, 0, n)).collect();
        let manner = Manner { deadline: Duration::from_millis(500), ..Manner::default() };
        let profiles = Arc::new(Profiles::builtin());
        let outcome = scan(profiles, like, addresses, manner, |_| {}, CancellationToken::new()).await;
        assert_eq!((outcome.found.len(), outcome.asked), (0, 3));
        assert_eq!(outcome.others.len(), 1, "{:?}", outcome.others);
        assert_eq!(outcome.others[0].0, Ipv4Addr::new(127, 0, 0, 2));
    }
}
