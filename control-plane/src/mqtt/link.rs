//! The way to the agents: the embedded broker behind its front door, or a broker of the operator's own.

use super::remote::Remote;
use bytes::Bytes;
use hashinsight_broker::{Broker, SendError};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::topics::Down;

/// One of the two; clones are the same.
#[derive(Clone, Debug)]
pub enum Link {
    Embedded(Broker),
    Remote(Remote),
}

impl Link {
    /// Queues a message; never waits, and proves nothing.
    ///
    /// # Errors
    /// It was not taken.
    pub fn try_send(&self, agent: AgentId, kind: Down, payload: Bytes) -> Result<(), SendError> {
        match self {
            Self::Embedded(broker) => broker.try_send(agent, kind, payload),
            Self::Remote(remote) => remote.try_send(agent, kind, payload),
        }
    }

    /// Ends what an agent has open, where we can: another broker has its revocation list for that, and what the
    /// agent still says is not taken.
    pub fn cut(&self, agent: AgentId) {
        match self {
            Self::Embedded(broker) => broker.cut(agent),
            Self::Remote(remote) => remote.forget(agent),
        }
    }

    /// An agent has said goodbye, or its will has.
    pub fn left(&self, agent: AgentId) {
        if let Self::Remote(remote) = self {
            remote.forget(agent);
        }
    }

    /// The agents that are connected, or of another broker those that were heard of lately.
    pub fn connected(&self) -> Vec<AgentId> {
        match self {
            Self::Embedded(broker) => broker.connected(),
            Self::Remote(remote) => remote.heard(),
        }
    }

    /// Whether whoever is not in [`Self::connected`] is away.
    pub fn knows_who_is_away(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::Remote(remote) => remote.has_listened_long(),
        }
    }

    /// The embedded broker's door, if it is that one.
    pub fn door(&self) -> Option<&Broker> {
        match self {
            Self::Embedded(broker) => Some(broker),
            Self::Remote(_) => None,
        }
    }

    pub async fn shutdown(&self) {
        match self {
            Self::Embedded(broker) => broker.shutdown().await,
            Self::Remote(remote) => remote.shutdown().await,
        }
    }
}
