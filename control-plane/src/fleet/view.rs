//! A site's miners with their latest readings, as lists show them.
//!
//! Inventory lies in one database and readings in another, so they are joined here, in memory. A view
//! is a cache of what both say: see [`super::Fleet`] for how old it may be.

use super::natural;
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
        self.clock_state.as_deref() == Some("uncertain") || self.clock_skew_ms.is_some_and(|ms| ms.abs() > 60_000)
    }
}

row! {
    struct MinerRow {
        id: MinerId,
        agent: AgentId,
        firmware: Option<String>,
        model: Option<String>,
        version: Option<String>,
        serial: Option<String>,
        mac: Option<String>,
        weak_identity: bool,
        rack: Option<String>,
        position: Option<String>,
        customer: Option<String>,
        out_of_service: bool,
        protected: bool,
    }
}

row! {
    struct LatestRow {
        miner: MinerId,
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

/// One miner and what it last said.
#[derive(Clone, Debug)]
pub struct Miner {
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
    /// A plan holds it.
    pub held: bool,
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

impl Miner {
    /// Since the last answer.
    pub fn age(&self, now: Millis) -> Option<DurationMs> {
        self.answered_at.map(|at| now.since(at))
    }

    pub fn status(&self, now: Millis) -> Status {
        Status::of(Signs {
            age: self.at.map(|at| now.since(at)),
            poll: self.poll,
            mode: self.mode,
            is_mining: self.is_mining,
            hashrate: self.hashrate,
            uptime: self.uptime,
            held: self.held,
        })
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
}

const AGENTS: &str = "select a.id, a.hostname, a.version, p.online, p.seen_at, p.clock_skew_ms, p.clock_state, \
     p.document_held from agents a left join agent_presence p on p.agent_id = a.id \
     where a.site_id = $1 and a.revoked_at is null order by a.hostname, a.id";

const MINERS: &str = "select id, agent_id, firmware, model, version, serial, mac, weak_identity, rack, position, \
     customer, out_of_service, protected from miners where site_id = $1 and gone_at is null";

const LATEST: &str = "select miner_id, at, poll, answered_at, hashrate_hs, power_w, power_source, hottest_c, \
     fan_max, fan_min, uptime_ms, is_mining, mode from latest where agent_id = $1";

const HELD: &str = "select distinct t.miner_id from targets t join plans p on p.id = t.plan_id \
     where p.site_id = $1 and p.state in ('approved', 'executing', 'executed', 'recovering', \
     'completed_with_failures') and t.state in ('stopping', 'curtailed', 'drifted', 'waking', 'restore_failed')";

impl View {
    /// # Errors
    /// A database fails.
    pub async fn load(app: &App, site: Site) -> Result<Self> {
        let business = &app.stores.business;
        let agents: Vec<Agent> = business.fetch_all(AGENTS, args![site.id]).await?;
        let rows: Vec<MinerRow> = business.fetch_all(MINERS, args![site.id]).await?;
        let held: Vec<(MinerId,)> = business.fetch_all(HELD, args![site.id]).await?;
        let held: HashSet<_> = held.into_iter().map(|(miner,)| miner).collect();
        let owners: HashSet<_> = rows.iter().map(|row| row.agent).collect();
        let mut latest = HashMap::with_capacity(rows.len());
        for agent in owners {
            let skew = agents.iter().find(|a| a.id == agent).and_then(|a| a.clock_skew_ms).unwrap_or(0);
            let skew = if skew.abs() < SKEW_MS { 0 } else { skew };
            let rows: Vec<LatestRow> = app.stores.telemetry.fetch_all(LATEST, args![agent]).await?;
            latest.extend(rows.into_iter().map(|row| ((agent, row.miner), (row, skew))));
        }
        let mut miners: Vec<_> = rows
            .into_iter()
            .map(|row| miner(latest.remove(&(row.agent, row.id)), held.contains(&row.id), row))
            .collect();
        miners.sort_by_cached_key(|m| {
            let place = |text: &Option<String>| text.as_deref().map(natural::key);
            // Who stands nowhere comes last.
            (m.rack.is_none(), place(&m.rack), place(&m.position), m.id)
        });
        Ok(Self { site, agents, miners })
    }
}

fn miner(latest: Option<(LatestRow, i64)>, held: bool, row: MinerRow) -> Miner {
    let mut miner = Miner {
        id: row.id,
        agent: row.agent,
        firmware: row.firmware,
        model: row.model,
        version: row.version,
        serial: row.serial,
        mac: row.mac,
        weak_identity: row.weak_identity,
        rack: row.rack,
        position: row.position,
        customer: row.customer,
        out_of_service: row.out_of_service,
        protected: row.protected,
        held,
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
    };
    if let Some((latest, skew)) = latest {
        let ours = |at: Millis| Millis(at.0.saturating_sub(skew));
        miner.at = Some(ours(latest.at));
        miner.answered_at = latest.answered_at.map(ours);
        miner.poll = poll(&latest.poll);
        miner.mode = latest.mode.as_deref().and_then(mode);
        miner.is_mining = latest.is_mining;
        miner.hashrate = latest.hashrate;
        miner.power = latest.power;
        miner.power_is_modelled = latest.power_source.as_deref() == Some("model");
        miner.hottest = latest.hottest;
        miner.fan_min = latest.fan_min;
        miner.fan_max = latest.fan_max;
        miner.uptime = latest.uptime;
    }
    miner
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
        for p in [Answered, Refused, TimedOut, NotUnderstood, OtherDevice, BackedOff] {
            assert_eq!(poll(&name(p)), Some(p));
        }
        for m in [Normal, Sleep, LowPower, HighEfficiency, HighPower, Starting, Failed] {
            assert_eq!(mode(&name(m)), Some(m));
        }
    }
}
