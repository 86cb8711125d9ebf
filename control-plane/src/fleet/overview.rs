//! All sites at a glance: sums by the database, for the list of sites.

use super::sites::{self, Site};
use super::status::STALE;
use crate::App;
use crate::args;
use crate::error::Result;
use crate::row;
use hashinsight_protocol::ids::{AgentId, SiteId};
use hashinsight_protocol::units::{Celsius, Hashrate, JoulesPerTerahash, Millis, Watts};
use serde::Serialize;
use std::collections::HashMap;

/// One line of the list of sites.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    #[serde(flatten)]
    pub site: Site,
    pub miners: i64,
    /// Miners with a fresh answer; they alone count in the sums.
    pub answered: i64,
    pub hashrate_hs: Hashrate,
    pub power_w: Watts,
    pub hottest_c: Option<Celsius>,
    pub agents: usize,
    pub agents_online: usize,
    pub as_of: Option<Millis>,
}

impl Overview {
    pub fn efficiency(&self) -> Option<JoulesPerTerahash> {
        JoulesPerTerahash::of(self.power_w, self.hashrate_hs)
    }
}

row! {
    struct Sums {
        agent: AgentId,
        answered: i64,
        hashrate: Hashrate,
        power: Watts,
        hottest: Option<Celsius>,
        as_of: Option<Millis>,
    }
}

const SUMS: &str = "select agent_id, \
     coalesce(sum(case when poll in ('answered', 'busy') and answered_at > $1 then 1 else 0 end), 0), \
     coalesce(sum(case when poll in ('answered', 'busy') and answered_at > $1 then hashrate_hs else 0.0 end), 0.0), \
     coalesce(sum(case when poll in ('answered', 'busy') and answered_at > $1 then power_w else 0.0 end), 0.0), \
     max(case when poll in ('answered', 'busy') and answered_at > $1 then hottest_c end), \
     max(answered_at) from latest group by agent_id";

/// All sites by name.
///
/// # Errors
/// A database fails.
pub async fn all(app: &App) -> Result<Vec<Overview>> {
    let business = &app.stores.business;
    let sites = sites::all(business).await?;
    let agents: Vec<(AgentId, SiteId, Option<bool>)> = business
        .fetch_all(
            "select a.id, a.site_id, p.online from agents a left join agent_presence p on p.agent_id = a.id \
             where a.revoked_at is null",
            args![],
        )
        .await?;
    let miners: Vec<(SiteId, i64)> = business
        .fetch_all("select site_id, count(*) from miners where gone_at is null group by site_id", args![])
        .await?;
    let miners: HashMap<_, _> = miners.into_iter().collect();
    let fresh = Millis(app.clock.now().0 - STALE.0 as i64);
    let sums: Vec<Sums> = app.stores.telemetry.fetch_all(SUMS, args![fresh]).await?;
    let sums: HashMap<_, _> = sums.into_iter().map(|s| (s.agent, s)).collect();
    Ok(sites.into_iter().map(|site| overview(site, &agents, &miners, &sums)).collect())
}

fn overview(
    site: Site,
    agents: &[(AgentId, SiteId, Option<bool>)],
    miners: &HashMap<SiteId, i64>,
    sums: &HashMap<AgentId, Sums>,
) -> Overview {
    let mut out = Overview {
        miners: miners.get(&site.id).copied().unwrap_or(0),
        answered: 0,
        hashrate_hs: Hashrate::ZERO,
        power_w: Watts::ZERO,
        hottest_c: None,
        agents: 0,
        agents_online: 0,
        as_of: None,
        site,
    };
    for (agent, _, online) in agents.iter().filter(|(_, site, _)| *site == out.site.id) {
        out.agents += 1;
        out.agents_online += usize::from(*online == Some(true));
        let Some(sums) = sums.get(agent) else { continue };
        out.answered += sums.answered;
        out.hashrate_hs += sums.hashrate;
        out.power_w += sums.power;
        out.as_of = out.as_of.max(sums.as_of);
        if let Some(heat) = sums.hottest
            && out.hottest_c.is_none_or(|before| heat > before)
        {
            out.hottest_c = Some(heat);
        }
    }
    out
}
