//! What a site's miners add up to.

use super::status::Status;
use super::view::{Miner, View};
use hashinsight_protocol::ids::{AgentId, MinerId};
use hashinsight_protocol::units::{Celsius, Hashrate, JoulesPerTerahash, Millis, Watts};
use serde::{Serialize, Serializer};

/// The sums of a site. Only miners with a fresh answer count in hashrate, power and temperature.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub miners: usize,
    /// Miners with a fresh answer.
    pub answered: usize,
    pub hashrate_hs: Hashrate,
    pub power_w: Watts,
    /// `None` when nothing hashes.
    pub efficiency_j_th: Option<JoulesPerTerahash>,
    pub hottest_c: Option<Celsius>,
    pub hottest_miner: Option<MinerId>,
    pub by_status: ByStatus,
    /// Miners that could be stopped and woken now, as their agents say, and what that would save.
    pub ready: usize,
    pub ready_w: Watts,
    /// Miners of which the agents have not said it yet.
    pub readiness_unknown: usize,
    pub agents: Vec<AgentState>,
    /// The newest answer; `None` when there is none at all.
    pub as_of: Option<Millis>,
}

/// How many miners have each status.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByStatus([usize; Status::ALL.len()]);

/// An agent, as the API has it.
#[derive(Clone, Debug, Serialize)]
pub struct AgentState {
    pub id: AgentId,
    pub hostname: String,
    pub version: String,
    pub online: bool,
    pub seen_at: Option<Millis>,
    pub clock_skew_ms: Option<i64>,
    pub document_held: i64,
}

impl ByStatus {
    pub fn of(&self, status: Status) -> usize {
        self.0[status as usize]
    }
}

impl Serialize for ByStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Status::ALL.map(|s| (s.name(), self.of(s))))
    }
}

impl Summary {
    pub fn of(view: &View, now: Millis) -> Self {
        let mut by_status = ByStatus::default();
        let (mut hashrate, mut power, mut answered) = (Hashrate::ZERO, Watts::ZERO, 0);
        let mut hottest: Option<(&Miner, Celsius)> = None;
        let (mut ready, mut ready_power, mut unknown) = (0, Watts::ZERO, 0);
        for miner in &view.miners {
            let status = miner.status(now);
            by_status.0[status as usize] += 1;
            match miner.readiness.as_ref().map(|readiness| readiness.ready) {
                Some(true) => {
                    ready += 1;
                    if status.is_known() {
                        ready_power += miner.saves();
                    }
                }
                Some(false) => {}
                None => unknown += 1,
            }
            if !status.is_known() {
                continue;
            }
            answered += 1;
            hashrate += miner.hashrate.unwrap_or_default();
            power += miner.power.unwrap_or_default();
            if let Some(heat) = miner.hottest
                && hottest.is_none_or(|(_, before)| heat > before)
            {
                hottest = Some((miner, heat));
            }
        }
        Self {
            miners: view.miners.len(),
            answered,
            hashrate_hs: hashrate,
            power_w: power,
            efficiency_j_th: JoulesPerTerahash::of(power, hashrate),
            hottest_c: hottest.map(|(_, heat)| heat),
            hottest_miner: hottest.map(|(miner, _)| miner.id),
            by_status,
            ready,
            ready_w: ready_power,
            readiness_unknown: unknown,
            agents: view
                .agents
                .iter()
                .map(|agent| AgentState {
                    id: agent.id,
                    hostname: agent.hostname.clone(),
                    version: agent.version.clone(),
                    online: agent.is_online(),
                    seen_at: agent.seen_at,
                    clock_skew_ms: agent.clock_skew_ms,
                    document_held: agent.document_held.unwrap_or(0),
                })
                .collect(),
            as_of: view.miners.iter().filter_map(|m| m.answered_at).max(),
        }
    }
}
