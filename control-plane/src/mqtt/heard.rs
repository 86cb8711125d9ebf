//! Who was heard of lately. Written down now and then: a row an agent and message would have ingest
//! wait for the other database.

use hashinsight_protocol::ids::AgentId;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(10);

/// Agents heard of since they were last written down.
#[derive(Debug, Default)]
pub struct Heard(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    agents: BTreeSet<AgentId>,
    since: Option<Instant>,
}

impl Heard {
    pub fn add(&self, agents: impl IntoIterator<Item = AgentId>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).agents.extend(agents);
    }

    /// One that has left is not written down as seen after it.
    pub fn remove(&self, agent: AgentId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).agents.remove(&agent);
    }

    /// The agents to write down, or none while it is too early.
    pub fn due(&self) -> BTreeSet<AgentId> {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.since.is_some_and(|since| since.elapsed() < EVERY) {
            return BTreeSet::new();
        }
        inside.since = Some(Instant::now());
        std::mem::take(&mut inside.agents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn agents_are_written_down_now_and_then() {
        let heard = Heard::default();
        let agent = AgentId::from_random([1; 16]);
        heard.add([agent, agent]);
        assert_eq!(heard.due().len(), 1);
        heard.add([agent]);
        assert!(heard.due().is_empty());
        tokio::time::advance(EVERY).await;
        assert_eq!(heard.due().len(), 1);
    }
}
