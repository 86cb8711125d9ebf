//! What the door counts, and the warnings about what it refused.
//!
//! Strangers can cause refusals at will, so each reason is logged at most once in ten seconds, with
//! the number of those passed over.

use hashinsight_protocol::ids::AgentId;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

const WARN_EVERY: Duration = Duration::from_secs(10);
/// Different refusals gathered from one [`crate::Broker::take_refusals`] to the next; of those beyond,
/// only the counters know.
pub const REFUSALS_KEPT: usize = 256;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a connection, or something asked on it, was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// A name for metrics and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

refusals! {
    /// Closed before it said a word, or said none within the deadline.
    Silent = "silent",
    /// Closed, still silent, to make room for others.
    Crowded = "crowded",
    /// No TLS, no client certificate, or one that does not verify.
    Handshake = "handshake",
    HandshakeDeadline = "handshake_deadline",
    /// A certificate of our CA that names no agent.
    Identity = "identity",
    /// Closed before a whole CONNECT came, or none came within the deadline.
    NoConnect = "no_connect",
    ProtocolVersion = "protocol_version",
    ClientId = "client_id",
    /// A will to another topic than the agent's presence, retained, or at QoS 2.
    Will = "will",
    /// The gate does not know the agent or its certificate.
    Unknown = "unknown",
    Revoked = "revoked",
    ConnectRate = "connect_rate",
    ConnectionLimit = "connection_limit",
    /// No link to the router within the deadline, or a newer connection of the same agent came first.
    Unavailable = "unavailable",
    Malformed = "malformed",
    /// A packet that has no place in a session.
    Unexpected = "unexpected",
    Oversized = "oversized",
    Qos2 = "qos2",
    Retained = "retained",
    /// A topic that is not one of the agent's own upward streams.
    Topic = "topic",
    /// A filter that is not the agent's own downward one.
    Filter = "filter",
    KeepAlive = "keep_alive",
    WriteDeadline = "write_deadline",
}

/// Totals since the start, except where a present number is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP connections accepted.
    pub accepted: u64,
    /// Connections that have not yet sent a valid CONNECT, now.
    pub handshakes: u64,
    /// Agents connected, now.
    pub connected: u64,
    /// Connections admitted.
    pub admitted: u64,
    /// Connections ended by a newer one of the same agent.
    pub taken_over: u64,
    /// Connections ended by [`crate::Broker::cut`].
    pub cut: u64,
    /// Messages handed to the control plane, wills included.
    pub up_messages: u64,
    /// Payload bytes of those.
    pub up_bytes: u64,
    /// Messages written to agents.
    pub down_messages: u64,
    /// Payload bytes of those.
    pub down_bytes: u64,
    /// Messages not taken because an agent's queue was full.
    pub down_full: u64,
    /// Publishes after which an agent was read slower.
    pub throttled: u64,
    /// Wills published.
    pub wills: u64,
    /// Wills that found no room or no router within the takeover deadline.
    pub wills_lost: u64,
    pub router_restarts: u64,
    refused: Vec<u64>,
}

impl Counters {
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused.get(why as usize).copied().unwrap_or(0)
    }

    /// All refusals, by reason.
    pub fn refusals(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.iter().map(|&why| (why, self.refused(why)))
    }
}

/// Refusals of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedLately {
    pub why: Refusal,
    /// Known once the certificate is verified.
    pub agent: Option<AgentId>,
    /// The peer's address; of IPv6 its network, since one peer has all of it.
    pub from: IpAddr,
    pub count: u64,
    /// What the first of them was about.
    pub detail: String,
}

/// An address as far as it tells peers apart.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

type Lately = HashMap<(Refusal, Option<AgentId>, IpAddr), (u64, String)>;

macro_rules! ledger {
    ($($name:ident),*) => {
        /// The live counters.
        #[derive(Debug)]
        pub(crate) struct Ledger {
            $(pub $name: AtomicU64,)*
            refused: Vec<Refused>,
            lately: Mutex<Lately>,
        }

        impl Ledger {
            pub fn new() -> Self {
                Self {
                    $($name: AtomicU64::new(0),)*
                    refused: Refusal::ALL.iter().map(|_| Refused::default()).collect(),
                    lately: Mutex::default(),
                }
            }

            pub fn snapshot(&self) -> Counters {
                Counters {
                    $($name: self.$name.load(Relaxed),)*
                    refused: self.refused.iter().map(|r| r.count.load(Relaxed)).collect(),
                }
            }
        }
    };
}

ledger!(
    accepted,
    handshakes,
    connected,
    admitted,
    taken_over,
    cut,
    up_messages,
    up_bytes,
    down_messages,
    down_bytes,
    down_full,
    throttled,
    wills,
    wills_lost,
    router_restarts
);

#[derive(Debug, Default)]
struct Refused {
    count: AtomicU64,
    warned: Mutex<Option<(Instant, u64)>>,
}

/// Adds one.
pub(crate) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Adds a number of bytes.
pub(crate) fn add(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Relaxed);
}

impl Ledger {
    /// Counts a refusal and warns of it now and then. `agent` is known once the certificate is verified.
    pub fn refuse(&self, why: Refusal, peer: SocketAddr, agent: Option<AgentId>, detail: &str) {
        let Some(refused) = self.refused.get(why as usize) else { return };
        let count = refused.count.fetch_add(1, Relaxed) + 1;
        self.gather(why, peer, agent, detail);
        let now = Instant::now();
        let passed_over = {
            // A poisoned lock holds nothing that could be half-made.
            let mut warned = refused.warned.lock().unwrap_or_else(|e| e.into_inner());
            match *warned {
                Some((at, _)) if now.duration_since(at) < WARN_EVERY => return,
                _ => {
                    let before = warned.map_or(0, |(_, count)| count);
                    *warned = Some((now, count));
                    count.saturating_sub(before + 1)
                }
            }
        };
        let agent = agent.map(|a| a.to_string()).unwrap_or_default();
        warn!(why = why.name(), %peer, agent, detail, passed_over, "refused at the door");
    }
}

impl Ledger {
    fn gather(&self, why: Refusal, peer: SocketAddr, agent: Option<AgentId>, detail: &str) {
        // A poisoned lock holds nothing that could be half-made; so below.
        let mut lately = self.lately.lock().unwrap_or_else(|e| e.into_inner());
        let key = (why, agent, network(peer.ip()));
        let full = lately.len() >= REFUSALS_KEPT;
        match lately.get_mut(&key) {
            Some((count, _)) => *count += 1,
            None if full => {}
            None => drop(lately.insert(key, (1, detail.to_owned()))),
        }
    }

    pub fn take_refusals(&self) -> Vec<RefusedLately> {
        let lately = std::mem::take(&mut *self.lately.lock().unwrap_or_else(|e| e.into_inner()));
        let entry = |((why, agent, from), (count, detail))| RefusedLately { why, agent, from, count, detail };
        let mut refusals: Vec<_> = lately.into_iter().map(entry).collect();
        refusals.sort_by_key(|r| (std::cmp::Reverse(r.count), r.why as usize, r.agent, r.from));
        refusals
    }
}

/// Counts something present for as long as it lives.
pub(crate) struct Present<'a>(&'a AtomicU64);

impl<'a> Present<'a> {
    pub fn new(counter: &'a AtomicU64) -> Self {
        one(counter);
        Self(counter)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_gathered_and_bounded() {
        let ledger = Ledger::new();
        let peer = |n: u16| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 1));
        for n in 0..1000 {
            ledger.refuse(Refusal::Handshake, peer(n), None, "first");
            ledger.refuse(Refusal::Topic, peer(7), Some(AgentId::from_random([1; 16])), "second");
        }
        let refusals = ledger.take_refusals();
        assert_eq!(refusals.len(), REFUSALS_KEPT);
        assert_eq!((refusals[0].why, refusals[0].count), (Refusal::Topic, 1000));
        assert_eq!((refusals[1].count, refusals[1].detail.as_str()), (1, "first"));
        assert!(ledger.take_refusals().is_empty());
        assert_eq!(ledger.snapshot().refused(Refusal::Handshake), 1000);
        let v6: [IpAddr; 2] = ["2001:db8::1".parse().unwrap(), "2001:db8::ffff:2".parse().unwrap()];
        assert_eq!(network(v6[0]), network(v6[1]));
    }

    #[test]
    fn every_refusal_is_counted_under_its_own_name() {
        let ledger = Ledger::new();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        for (n, &why) in Refusal::ALL.iter().enumerate() {
            assert_eq!(why as usize, n);
            ledger.refuse(why, peer, None, "");
        }
        let counters = ledger.snapshot();
        assert!(counters.refusals().all(|(_, count)| count == 1));
        let mut names: Vec<_> = Refusal::ALL.iter().map(|why| why.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Refusal::ALL.len());
    }
}
