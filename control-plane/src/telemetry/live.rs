//! Word that a site changed, for the pages that show it.
//!
//! A nudge, not data: a watcher reads the present state when it wakes, so a missed nudge between two
//! others costs nothing.

use hashinsight_protocol::ids::SiteId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Who watches which site.
#[derive(Debug, Default)]
pub struct Live {
    sites: Mutex<HashMap<SiteId, watch::Sender<u64>>>,
}

impl Live {
    /// Something about this site changed.
    pub fn changed(&self, site: SiteId) {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.entry(site).or_default().send_modify(|n| *n += 1);
    }

    /// Wakes whenever the site changes; its number rises each time.
    pub fn subscribe(&self, site: SiteId) -> watch::Receiver<u64> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.entry(site).or_default().subscribe()
    }

    /// How often the site changed since the program started.
    pub fn number(&self, site: SiteId) -> u64 {
        let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.get(&site).map_or(0, |s| *s.borrow())
    }

    /// Whether somebody watches the site now: its agents' cycles are short then.
    pub fn is_watched(&self, site: SiteId) -> bool {
        let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.get(&site).is_some_and(|s| s.receiver_count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watcher_wakes_and_counts_while_it_is_there() {
        let live = Live::default();
        let site = SiteId::from_random([1; 16]);
        assert!(!live.is_watched(site));
        let mut watcher = live.subscribe(site);
        assert!(live.is_watched(site));
        live.changed(site);
        watcher.changed().await.unwrap();
        assert_eq!((*watcher.borrow_and_update(), live.number(site)), (1, 1));
        drop(watcher);
        assert!(!live.is_watched(site));
    }
}
