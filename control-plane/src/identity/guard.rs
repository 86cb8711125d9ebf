//! Limits on guessing passwords: failures are counted for each user name and each address.
//!
//! Memory is bounded: at most [`ENTRIES`] of each; the ones whose time has passed go first, then the
//! oldest. A name that is guessed at can be signed in to again when its window has passed.

use crate::error::{Error, Kind, Result};
use crate::web::i18n::Message;
use hashinsight_protocol::units::{DurationMs, Millis};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

/// Failures of one name within [`WINDOW`].
pub const OF_NAME: u32 = 10;
/// Failures from one address within [`WINDOW`]; several people may share one.
pub const OF_ADDRESS: u32 = 30;
pub const WINDOW: DurationMs = DurationMs::from_minutes(10);
const ENTRIES: usize = 4096;

/// Failed sign-ins of late.
#[derive(Debug, Default)]
pub struct Guard {
    names: Counts<String>,
    addresses: Counts<IpAddr>,
}

#[derive(Debug)]
struct Counts<K>(HashMap<K, (u32, Millis)>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl Guard {
    /// Counts a try before its password is looked at, so that many at once are counted too.
    ///
    /// # Errors
    /// Too many failed already; when to try again.
    pub fn attempt(&mut self, name: &str, address: IpAddr, now: Millis) -> Result<()> {
        let (name, address) = (key(name), network(address));
        let wait = self.names.wait(&name, OF_NAME, now).max(self.addresses.wait(&address, OF_ADDRESS, now));
        if wait > DurationMs::ZERO {
            let minutes = i64::try_from(wait.0.div_ceil(60_000)).unwrap_or(i64::MAX);
            let text = Message::key("error-too-many-tries").with("minutes", minutes);
            return Err(Error::new(Kind::TooMany(wait), text));
        }
        self.names.count(name, now);
        self.addresses.count(address, now);
        Ok(())
    }

    /// A try that succeeded: the name is no longer guessed at. The address stays counted, less this try.
    pub fn succeeded(&mut self, name: &str, address: IpAddr) {
        self.names.0.remove(&key(name));
        if let Some((count, _)) = self.addresses.0.get_mut(&network(address)) {
            *count = count.saturating_sub(1);
        }
    }
}

impl<K: Clone + Eq + Hash> Counts<K> {
    fn wait(&self, key: &K, most: u32, now: Millis) -> DurationMs {
        match self.0.get(key) {
            Some((count, since)) if *count >= most => WINDOW - now.since(*since),
            _ => DurationMs::ZERO,
        }
    }

    fn count(&mut self, key: K, now: Millis) {
        if self.0.len() >= ENTRIES && !self.0.contains_key(&key) {
            self.0.retain(|_, (_, since)| now.since(*since) < WINDOW);
            if self.0.len() >= ENTRIES
                && let Some(oldest) =
                    self.0.iter().min_by_key(|(_, (_, since))| *since).map(|(key, _)| key.clone())
            {
                self.0.remove(&oldest);
            }
        }
        let entry = self.0.entry(key).or_insert((0, now));
        if now.since(entry.1) >= WINDOW {
            *entry = (0, now);
        }
        entry.0 = entry.0.saturating_add(1);
    }
}

/// Names are told apart as the database does, cut so that a long one takes no memory.
fn key(name: &str) -> String {
    name.chars().take(64).collect::<String>().to_lowercase()
}

/// One customer's whole IPv6 network is one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_790_000_000_000);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_name_is_guessed_at_ten_times_from_anywhere() {
        let mut guard = Guard::default();
        for n in 0..OF_NAME {
            guard.attempt("Owner", address(n as u8), NOW).unwrap();
        }
        let refused = guard.attempt("owner", address(99), NOW).unwrap_err();
        assert!(matches!(refused.kind(), Kind::TooMany(wait) if wait == WINDOW));
        assert!(guard.attempt("other", address(99), NOW).is_ok());
        assert!(guard.attempt("owner", address(99), NOW.plus(WINDOW)).is_ok());
    }

    #[test]
    fn an_address_guesses_thirty_times_at_any_names() {
        let mut guard = Guard::default();
        for n in 0..OF_ADDRESS {
            guard.attempt(&n.to_string(), address(1), NOW).unwrap();
        }
        assert!(guard.attempt("fresh", address(1), NOW).is_err());
        assert!(guard.attempt("fresh", address(2), NOW).is_ok());
    }

    #[test]
    fn who_knows_the_password_is_not_slowed() {
        let mut guard = Guard::default();
        for _ in 0..1000 {
            guard.attempt("owner", address(1), NOW).unwrap();
            guard.succeeded("owner", address(1));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut guard = Guard::default();
        for n in 0..2 * ENTRIES as u32 {
            let _ = guard.attempt(&n.to_string(), IpAddr::V4(n.into()), NOW.plus(DurationMs(n.into())));
        }
        assert!(guard.names.0.len() <= ENTRIES && guard.addresses.0.len() <= ENTRIES);
    }
}
