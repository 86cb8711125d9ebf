//! How a site's target is divided among its agents.
//!
//! The miners are chosen site-wide, as if one agent had them all; each agent gets the part of the
//! target that its chosen miners have of all chosen. An agent without any gets no plan. What every agent
//! tops up with lies inside its own reserve, so shares never need to talk to each other.

use super::request::Share;
use hashinsight_curtailment::Preview;
use hashinsight_protocol::ids::{AgentId, MinerId};
use hashinsight_protocol::units::Watts;
use std::collections::{BTreeMap, HashMap};

/// Divides `target` by what the preview takes of each agent. Without a target, as for "all", each agent's
/// share is all that is taken of it.
pub fn divide(
    target: Option<Watts>,
    preview: &Preview,
    agent_of: &HashMap<MinerId, AgentId>,
) -> BTreeMap<AgentId, Share> {
    let mut taken = BTreeMap::<AgentId, Watts>::new();
    for miner in &preview.taken {
        if let Some(agent) = agent_of.get(&miner.miner) {
            *taken.entry(*agent).or_default() += miner.saves;
        }
    }
    let all: Watts = taken.values().copied().sum();
    let scale = match target {
        // What can't be reached is asked for all the same: it shows as a shortfall where it arises.
        Some(target) if all.get() > 0.0 => target.get() / all.get(),
        _ => 1.0,
    };
    taken
        .into_iter()
        .map(|(agent, watts)| (agent, Share::of(Watts::new(watts.get() * scale).unwrap_or_default())))
        .collect()
}
