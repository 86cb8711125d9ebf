//! Word that an agent has something to be sent. A nudge, not data: whoever wakes looks up what.

use hashinsight_protocol::ids::AgentId;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Agents that are due.
#[derive(Debug, Default)]
pub struct Nudge {
    due: Mutex<BTreeSet<AgentId>>,
    some: Notify,
}

impl Nudge {
    /// This agent has something to be sent.
    pub fn agent(&self, agent: AgentId) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).insert(agent);
        self.some.notify_one();
    }

    /// Waits until agents are due and takes them all; for one waiter.
    pub async fn next(&self) -> BTreeSet<AgentId> {
        loop {
            let due = std::mem::take(&mut *self.due.lock().unwrap_or_else(PoisonError::into_inner));
            if !due.is_empty() {
                return due;
            }
            self.some.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nudges_come_together_and_none_is_lost() {
        let nudge = Nudge::default();
        let (a, b) = (AgentId::from_random([1; 16]), AgentId::from_random([2; 16]));
        nudge.agent(a);
        nudge.agent(b);
        nudge.agent(a);
        assert_eq!(nudge.next().await, BTreeSet::from([a, b]));
        nudge.agent(b);
        assert_eq!(nudge.next().await, BTreeSet::from([b]));
    }
}
