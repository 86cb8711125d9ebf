//! A site's miners with their latest readings, as lists show them.
//!
//! Inventory lies in one database and readings in another, so they are joined here, in memory. A view
//! is a cache of what both say: see [`super::Fleet`] for how old it may be.

use super::natural;
use super::readiness::{self, Readiness};
use super::sites::Site;
use super::status::{Signs, Status};
use crate::App;
use crate::error::Result;
use crate::{args, row};
use hashinsight_protocol::device::ModeV1;
use hashinsight_protocol::ids::{AgentId, MinerId};
use hashinsight_protocol::telemetry::PollV1;
use hashinsight_protocol::units::{Celsius, DurationMs, Hashrate, JoulesPerTerahash, Millis, Watts};
use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;

/// A clock that is wrong by less is not corrected: the difference may be the way's.
const SKEW_MS: i64 = 2000;

row! {
    /// An agent with its presence.
    #[derive(Clone, Debug)]
    pub struct Agent {
        pub id: AgentId,
        pub hostname: String,
        pub version: String,
        pub online: Option<bool>,
        pub seen_at: Option<Millis>,
        pub clock_skew_ms: Option<i64>,
        pub clock_state: Option<String>,
        pub document_held: Option<i64>,
    }
}

impl Agent {
    pub fn is_online(&self) -> bool {
        self.online == Some(true)
    }

    pub fn clock_is_uncertain(&self) -> bool {
        self.clock_state.as_deref() == Some("uncertain")
            || self.clock_skew_ms.is_some_and(|ms| ms.abs() > 60_000)
    }
}

row! {
    struct LatestRow {
        miner: MinerId,
        received_at: Millis,
        at: Millis,
        poll: String,
        answered_at: Option<Millis>,
        hashrate: Option<Hashrate>,
        power: Option<Watts>,
        power_source: Option<String>,
        hottest: Option<Celsius>,
        fan_max: Option<u32>,
        fan_min: Option<u32>,
        uptime: Option<DurationMs>,
        is_mining: Option<bool>,
        mode: Option<String>,
    }
}

row! {
    /// What is known of a miner whether it answers or not.
    #[derive(Clone, Debug)]
    pub struct Inventory {
        pub id: MinerId,
        pub agent: AgentId,
        pub firmware: Option<String>,
        pub model: Option<String>,
        pub version: Option<String>,
        pub serial: Option<String>,
        pub mac: Option<String>,
        pub weak_identity: bool,
        pub rack: Option<String>,
        pub position: Option<String>,
        pub customer: Option<String>,
        pub out_of_service: bool,
        pub protected: bool,
        pub can_sleep: bool,
        pub can_limit: bool,
        pub can_reboot: bool,
        pub can_locate: bool,
        pub can_set_pools: bool,
        standby_w: Option<i64>,
    }
}

/// One miner and what it last said; reads as its inventory too.
#[derive(Clone, Debug)]
pub struct Miner {
    /// Shared between one view of a site and the next.
    inventory: Arc<Inventory>,
    /// A plan holds it.
    pub held: bool,
    /// Whether it could be stopped and woken; `None` while its agent has not said.
    pub readiness: Option<Arc<Readiness>>,
    /// Last poll, and last answer; on our clock.
    pub at: Option<Millis>,
    pub answered_at: Option<Millis>,
    pub poll: Option<PollV1>,
    pub mode: Option<ModeV1>,
    pub is_mining: Option<bool>,
    pub hashrate: Option<Hashrate>,
    pub power: Option<Watts>,
    /// The power is the model's, not measured.
    pub power_is_modelled: bool,
    pub hottest: Option<Celsius>,
    pub fan_min: Option<u32>,
    pub fan_max: Option<u32>,
    pub uptime: Option<DurationMs>,
}

impl Deref for Miner {
    type Target = Inventory;
    fn deref(&self) -> &Inventory {
        &self.inventory
    }
}

impl Miner {
    /// Since the last answer.
    pub fn age(&self, now: Millis) -> Option<DurationMs> {
        self.answered_at.map(|at| now.since(at))
    }

    pub fn status(&self, now: Millis) -> Status {
        // One that is busy with a write was not asked: what it last said stands, while it is fresh.
        let is_busy = self.poll == Some(PollV1::Busy);
        let (at, poll) =
            if is_busy { (self.answered_at, Some(PollV1::Answered)) } else { (self.at, self.poll) };
        Status::of(Signs {
            age: at.map(|at| now.since(at)),
            poll,
            mode: self.mode,
            is_mining: self.is_mining,
            hashrate: self.hashrate,
            uptime: self.uptime,
            held: self.held,
        })
    }

    /// What stopping it would save by its last reading.
    pub fn saves(&self) -> Watts {
        if self.is_mining == Some(false) {
            return Watts::ZERO;
        }
        let standby = self.standby_w.and_then(|w| Watts::new(w as f64)).unwrap_or_default();
        self.power.unwrap_or_default().saturating_sub(standby)
    }

    pub fn efficiency(&self) -> Option<JoulesPerTerahash> {
        JoulesPerTerahash::of(self.power?, self.hashrate?)
    }

    /// Where it stands; its id's beginning where nobody has said.
    pub fn place(&self) -> String {
        match (&self.rack, &self.position) {
            (Some(rack), Some(position)) => format!("{rack} · {position}"),
            (Some(one), None) | (None, Some(one)) => one.clone(),
            (None, None) => self.id.to_string()[..8].to_owned(),
        }
    }
}

/// A site as it was at one moment.
#[derive(Debug)]
pub struct View {
    pub site: Site,
    pub agents: Vec<Agent>,
    /// By rack and position.
    pub miners: Vec<Miner>,
    /// What the inventory looked like: as long as it does, it is not read again.
    inventory: Signature,
    /// When the newest word in the view was received.
    received: Millis,
    /// The same of the agents' words on readiness.
    told: Millis,
    /// When all of it was last read, changed or not.
    whole: Millis,
}

/// How many miners, how many gone, and the newest word of any of them.
type Signature = (i64, i64, Option<Millis>);

/// Everything is read anew this often, whatever it looks like.
const WHOLE: DurationMs = DurationMs::from_secs(60);
/// Ingest commits in the order of arrival, but for this much; what is later than that waits for [`WHOLE`].
const DISORDER: DurationMs = DurationMs::from_secs(2);

const AGENTS: &str = "select a.id, a.hostname, a.version, p.online, p.seen_at, p.clock_skew_ms, p.clock_state, \
     p.document_held from agents a left join agent_presence p on p.agent_id = a.id \
     where a.site_id = $1 and a.revoked_at is null order by a.hostname, a.id";

const SIGNATURE: &str = "select count(*), count(gone_at), max(seen_at) from miners where site_id = $1";

const MINERS: &str = "select id, agent_id, firmware, model, version, serial, mac, weak_identity, rack, position, \
     customer, out_of_service, protected, can_sleep, can_limit, can_reboot, can_locate, can_set_pools, standby_w \
     from miners where site_id = $1 and gone_at is null";

const LATEST: &str = "select miner_id, received_at, at, poll, answered_at, hashrate_hs, power_w, power_source, hottest_c, \
     fan_max, fan_min, uptime_ms, is_mining, mode from latest where agent_id = $1 and received_at >= $2";

const HELD: &str = "select distinct t.miner_id from targets t join plans p on p.id = t.plan_id \
     where p.site_id = $1 and p.state in ('approved', 'executing', 'executed', 'recovering', \
     'completed_with_failures') and t.state in ('stopping', 'curtailed', 'drifted', 'waking', 'restore_failed')";

impl View {
    /// Reads a site; of what a view from `before` holds, only what has changed since.
    ///
    /// # Errors
    /// A database fails.
    pub async fn load(app: &App, site: Site, before: Option<&Self>) -> Result<Self> {
        let business = &app.stores.business;
        let now = app.clock.now();
        let agents: Vec<Agent> = business.fetch_all(AGENTS, args![site.id]).await?;
        let inventory: Signature = business.fetch_one(SIGNATURE, args![site.id]).await?;
        let before =
            before.filter(|b| b.inventory == inventory && b.whole <= now && now.since(b.whole) < WHOLE);
        let (mut miners, mut received, mut told, whole) = match before {
            Some(before) => (before.miners.clone(), before.received, before.told, before.whole),
            None => {
                let rows = business.fetch_all(MINERS, args![site.id]).await?;
                (in_order(rows), Millis(0), Millis(0), now)
            }
        };
        let since = Millis(received.0 - DISORDER.0 as i64);
        let held: Vec<(MinerId,)> = business.fetch_all(HELD, args![site.id]).await?;
        let held: HashSet<_> = held.into_iter().map(|(miner,)| miner).collect();
        let owners: HashSet<_> = miners.iter().map(|miner| miner.agent).collect();
        let told_since = Millis(told.0 - DISORDER.0 as i64);
        let (mut latest, mut ready_now) = (HashMap::new(), HashMap::new());
        for agent in owners {
            for (miner, ready, at) in readiness::of_agent(business, agent, told_since).await? {
                told = told.max(at);
                ready_now.insert((agent, miner), Arc::new(ready));
            }
            let skew = agents.iter().find(|a| a.id == agent).and_then(|a| a.clock_skew_ms).unwrap_or(0);
            let skew = if skew.abs() < SKEW_MS { 0 } else { skew };
            let rows: Vec<LatestRow> = app.stores.telemetry.fetch_all(LATEST, args![agent, since]).await?;
            received = received.max(rows.iter().map(|row| row.received_at).max().unwrap_or_default());
            latest.extend(rows.into_iter().map(|row| ((agent, row.miner), (row, skew))));
        }
        for miner in &mut miners {
            miner.held = held.contains(&miner.id);
            if let Some(ready) = ready_now.remove(&(miner.agent, miner.id)) {
                miner.readiness = Some(ready);
            }
            if let Some((latest, skew)) = latest.get(&(miner.agent, miner.id)) {
                miner.read(latest, *skew);
            }
        }
        Ok(Self { site, agents, miners, inventory, received, told, whole })
    }
}

fn in_order(mut rows: Vec<Inventory>) -> Vec<Miner> {
    rows.sort_by_cached_key(|m| {
        let place = |text: &Option<String>| text.as_deref().map(natural::key);
        // Who stands nowhere comes last.
        (m.rack.is_none(), place(&m.rack), place(&m.position), m.id)
    });
    rows.into_iter().map(Miner::silent).collect()
}

impl Miner {
    /// A miner that has said nothing yet.
    fn silent(inventory: Inventory) -> Self {
        Self {
            inventory: Arc::new(inventory),
            held: false,
            readiness: None,
            at: None,
            answered_at: None,
            poll: None,
            mode: None,
            is_mining: None,
            hashrate: None,
            power: None,
            power_is_modelled: false,
            hottest: None,
            fan_min: None,
            fan_max: None,
            uptime: None,
        }
    }

    fn read(&mut self, latest: &LatestRow, skew: i64) {
        let ours = |at: Millis| Millis(at.0.saturating_sub(skew));
        self.at = Some(ours(latest.at));
        self.answered_at = latest.answered_at.map(ours);
        self.poll = poll(&latest.poll);
        self.mode = latest.mode.as_deref().and_then(mode);
        self.is_mining = latest.is_mining;
        self.hashrate = latest.hashrate;
        self.power = latest.power;
        self.power_is_modelled = latest.power_source.as_deref() == Some("model");
        self.hottest = latest.hottest;
        self.fan_min = latest.fan_min;
        self.fan_max = latest.fan_max;
        self.uptime = latest.uptime;
    }
}

/// A poll's end by its stored name. A match, since a site has thousands of them a second.
fn poll(name: &str) -> Option<PollV1> {
    Some(match name {
        "answered" => PollV1::Answered,
        "refused" => PollV1::Refused,
        "timed_out" => PollV1::TimedOut,
        "not_understood" => PollV1::NotUnderstood,
        "other_device" => PollV1::OtherDevice,
        "backed_off" => PollV1::BackedOff,
        "reset" => PollV1::Reset,
        "sign_in_refused" => PollV1::SignInRefused,
        "busy" => PollV1::Busy,
        _ => return None,
    })
}

fn mode(name: &str) -> Option<ModeV1> {
    Some(match name {
        "normal" => ModeV1::Normal,
        "sleep" => ModeV1::Sleep,
        "low_power" => ModeV1::LowPower,
        "high_efficiency" => ModeV1::HighEfficiency,
        "high_power" => ModeV1::HighPower,
        "starting" => ModeV1::Starting,
        "failed" => ModeV1::Failed,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::latest::name;

    #[test]
    fn names_are_those_that_ingest_stores() {
        use ModeV1::*;
        use PollV1::*;
        for p in
            [Answered, Refused, TimedOut, NotUnderstood, OtherDevice, BackedOff, Reset, SignInRefused, Busy]
        {
            assert_eq!(poll(&name(p)), Some(p));
        }
        for m in [Normal, Sleep, LowPower, HighEfficiency, HighPower, Starting, Failed] {
            assert_eq!(mode(&name(m)), Some(m));
        }
    }
}
