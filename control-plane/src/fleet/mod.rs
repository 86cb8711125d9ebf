//! Sites and miners, as pages and the API show them.
//!
//! A site's view (all its miners with their latest readings) is loaded as a whole, kept for everybody
//! who looks, and loaded again when the site has changed and the view is at least [`SHORTEST`] old, or
//! when it is [`LONGEST`] old: ten viewers of ten thousand miners cost one load a second. Views of at
//! most [`SITES`] sites are kept.

pub mod chart;
pub mod events;
pub mod natural;
pub mod overview;
pub mod readiness;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;
    use crate::clock::Clock;
    use crate::config::{Addresses, Settings};
    use crate::store::testing;
    use hashinsight_protocol::ids::{AgentId, MinerId};
    use status::Status;

    const NOW: Millis = Millis(1_790_000_000_000);

    async fn app(folder: &std::path::Path) -> Arc<App> {
        let config = Settings { data: Some(folder.to_owned()), ..Settings::default() }.finish(None).unwrap();
        let addresses = Addresses { http: config.http, mqtt: config.mqtt, enrol: config.enrol };
        let stores = testing::stores(folder).await;
        App::open(config, addresses, Clock::standing_at(NOW), stores).await.unwrap()
    }

    async fn miner(app: &App, site: SiteId, agent: AgentId, n: u8) -> MinerId {
        let id = MinerId::from_random([n; 16]);
        let sql = "insert into miners (id, agent_id, site_id, rack, seen_at) values ($1, $2, $3, $4, $5)";
        let args = args![id, agent, site, format!("R{n}"), app.clock.now()];
        app.stores.business.execute(sql, args).await.unwrap();
        id
    }

    async fn reading(app: &App, agent: AgentId, miner: MinerId, power: f64) {
        let sql = "insert into latest (agent_id, miner_id, at, received_at, poll, answered_at, power_w, is_mining) \
                   values ($1, $2, $3, $3, 'answered', $3, $4, 1) on conflict (agent_id, miner_id) do update set \
                   at = excluded.at, received_at = excluded.received_at, answered_at = excluded.at, \
                   power_w = excluded.power_w";
        let args = args![agent, miner, app.clock.now(), power];
        app.stores.telemetry.execute(sql, args).await.unwrap();
    }

    /// Rack, power and status of each miner, as a page would show them.
    async fn seen(app: &App, site: SiteId) -> Vec<(String, Option<f64>, Status)> {
        let view = app.fleet.view(app, site).await.unwrap();
        let now = app.clock.now();
        view.miners.iter().map(|m| (m.place(), m.power.map(|p| p.get()), m.status(now))).collect()
    }

    #[tokio::test]
    async fn a_view_follows_its_site() {
        let folder = tempfile::tempdir().unwrap();
        let app = app(folder.path()).await;
        let db = &app.stores.business;
        let site = sites::add(db, "A", "UTC", None, "test", NOW).await.unwrap().id;
        let agent = AgentId::from_random([7; 16]);
        let insert = "insert into agents (id, site_id, hostname, version, batch_key, enrolled_at) \
                      values ($1, $2, 'gw', '1', '', 0)";
        db.execute(insert, args![agent, site]).await.unwrap();
        let (ten, two) = (miner(&app, site, agent, 10).await, miner(&app, site, agent, 2).await);
        reading(&app, agent, ten, 3000.0).await;
        let known = |rack: &str, power| (rack.to_owned(), Some(power), Status::Hashing);
        let silent = |rack: &str| (rack.to_owned(), None, Status::Stale);
        assert_eq!(seen(&app, site).await, [silent("R2"), known("R10", 3000.0)]);

        // A change is seen when it is announced and the view is no longer young.
        reading(&app, agent, two, 2000.0).await;
        assert_eq!(seen(&app, site).await, [silent("R2"), known("R10", 3000.0)]);
        app.clock.advance(SHORTEST);
        assert_eq!(seen(&app, site).await, [silent("R2"), known("R10", 3000.0)]);
        app.live.changed(site);
        assert_eq!(seen(&app, site).await, [known("R2", 2000.0), known("R10", 3000.0)]);

        // What another process did is seen a little later: a miner more, then one less.
        let three = miner(&app, site, agent, 3).await;
        reading(&app, agent, three, 1000.0).await;
        app.clock.advance(LONGEST);
        assert_eq!(seen(&app, site).await, [known("R2", 2000.0), known("R3", 1000.0), known("R10", 3000.0)]);
        db.execute("update miners set gone_at = 1 where id = $1", args![three]).await.unwrap();
        app.clock.advance(LONGEST);
        assert_eq!(seen(&app, site).await, [known("R2", 2000.0), known("R10", 3000.0)]);

        // Silence ages without anybody's word.
        app.clock.advance(status::STALE);
        assert!(seen(&app, site).await.iter().all(|(_, _, status)| *status == Status::Stale));
    }

    #[tokio::test]
    async fn few_sites_are_kept_however_many_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let app = app(folder.path()).await;
        for n in 0..SITES + 5 {
            let site =
                sites::add(&app.stores.business, &n.to_string(), "UTC", None, "test", NOW).await.unwrap();
            app.clock.advance(DurationMs(1));
            app.fleet.view(&app, site.id).await.unwrap();
        }
        assert!(app.fleet.view(&app, SiteId::from_random([1; 16])).await.is_err());
        assert_eq!(app.fleet.sites.lock().unwrap().len(), SITES);
    }
}
