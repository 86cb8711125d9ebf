//! Sites and miners, as pages and the API show them.
//!
//! A site's view (all its miners with their latest readings) is loaded as a whole, kept for everybody
//! who looks, and loaded again when the site has changed and the view is at least [`SHORTEST`] old, or
//! when it is [`LONGEST`] old: ten viewers of ten thousand miners cost one load a second. Views of at
//! most [`SITES`] sites are kept.

pub mod chart;
pub mod natural;
pub mod overview;
pub mod sites;
pub mod status;
pub mod summary;
pub mod table;
pub mod view;

use crate::App;
use crate::error::Result;
use hashinsight_protocol::ids::SiteId;
use hashinsight_protocol::units::{DurationMs, Millis};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use view::View;

/// A view this young is good enough even when its site has changed.
const SHORTEST: DurationMs = DurationMs(700);
/// A view this old is loaded again even when nobody said that its site changed: another process may
/// have changed it.
const LONGEST: DurationMs = DurationMs::from_secs(5);
const SITES: usize = 64;

/// The views that are kept.
#[derive(Debug, Default)]
pub struct Fleet {
    sites: Mutex<HashMap<SiteId, Slot>>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// Held while loading, so that all who wait share one load.
    kept: Arc<tokio::sync::Mutex<Option<Kept>>>,
    used: Millis,
}

#[derive(Clone, Debug)]
struct Kept {
    view: Arc<View>,
    loaded: Millis,
    /// The site's number of changes when it was loaded.
    number: u64,
}

impl Fleet {
    /// A site's view, fresh enough to show.
    ///
    /// # Errors
    /// There is no such site, or a database fails.
    pub async fn view(&self, app: &App, site: SiteId) -> Result<Arc<View>> {
        // Asked each time, so that what does not exist takes no place here.
        let site = sites::get(&app.stores.business, site).await?;
        let now = app.clock.now();
        let kept = self.slot(site.id, now);
        let mut kept = kept.lock().await;
        let number = app.live.number(site.id);
        if let Some(kept) = kept.as_ref() {
            let age = now.since(kept.loaded);
            // A clock that was set back must not keep a view for ever.
            let is_past = kept.loaded <= now;
            if is_past && (age < SHORTEST || (age < LONGEST && kept.number == number)) {
                return Ok(Arc::clone(&kept.view));
            }
        }
        let before = kept.as_ref().map(|kept| Arc::clone(&kept.view));
        let view = Arc::new(View::load(app, site, before.as_deref()).await?);
        *kept = Some(Kept { view: Arc::clone(&view), loaded: now, number });
        Ok(view)
    }

    fn slot(&self, site: SiteId, now: Millis) -> Arc<tokio::sync::Mutex<Option<Kept>>> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if sites.len() >= SITES
            && !sites.contains_key(&site)
            && let Some(oldest) = sites.iter().min_by_key(|(_, slot)| slot.used).map(|(site, _)| *site)
        {
            sites.remove(&oldest);
        }
        let slot = sites.entry(site).or_default();
        slot.used = now;
        Arc::clone(&slot.kept)
    }
}
