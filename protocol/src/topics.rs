//! MQTT topics: `/tenants/{agent}/up/{stream}` and `/tenants/{agent}/down/{kind}`.
//!
//! Fixed depth, ASCII, the agent's id as one whole level, so that every broker's access rules can
//! name it. Nobody formats a topic elsewhere.

use crate::ids::AgentId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What an agent sends. Each stream has its own sequence and is acknowledged on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Readings; may be thinned under a quota, with a counted gap.
    Telemetry,
    /// What happened on the gateway: start, inventory, gaps, refusals. Never dropped.
    Events,
    /// What happened to targets of a dispatch. Never dropped.
    Evidence,
    /// Who did what at the site. Never dropped.
    Audit,
    /// First message of every connection, and the broker's word of its end. Neither kept nor acknowledged.
    Presence,
}

/// What the control plane sends to one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Down {
    /// Which batches are stored for good.
    Ack,
    /// The answer to a hello.
    Welcome,
    /// The whole desired document.
    Desired,
    /// A small signed order.
    Order,
    /// The list of keys to trust, signed by the root.
    Keys,
    /// What an earlier journal of the agent held asleep.
    Held,
}

impl Stream {
    pub const ALL: [Self; 5] = [Self::Telemetry, Self::Events, Self::Evidence, Self::Audit, Self::Presence];
    /// The streams that are kept until acknowledged.
    pub const KEPT: [Self; 4] = [Self::Telemetry, Self::Events, Self::Evidence, Self::Audit];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Events => "events",
            Self::Evidence => "evidence",
            Self::Audit => "audit",
            Self::Presence => "presence",
        }
    }

    /// The number that stands for this stream in envelopes and databases; fixed for ever.
    pub const fn number(self) -> u8 {
        match self {
            Self::Telemetry => 1,
            Self::Events => 2,
            Self::Evidence => 3,
            Self::Audit => 4,
            Self::Presence => 5,
        }
    }

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.number() == number)
    }
}

impl Down {
    pub const ALL: [Self; 6] = [Self::Ack, Self::Welcome, Self::Desired, Self::Order, Self::Keys, Self::Held];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Welcome => "welcome",
            Self::Desired => "desired",
            Self::Order => "order",
            Self::Keys => "keys",
            Self::Held => "held",
        }
    }

    /// The number that stands for this kind in envelopes; fixed for ever.
    pub const fn number(self) -> u8 {
        match self {
            Self::Ack => 65,
            Self::Welcome => 66,
            Self::Desired => 67,
            Self::Order => 68,
            Self::Keys => 69,
            Self::Held => 70,
        }
    }

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.number() == number)
    }
}

/// A topic of ours, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Up(AgentId, Stream),
    Down(AgentId, Down),
}

impl Topic {
    /// `None` for every topic that is not exactly one of ours.
    pub fn parse(topic: &str) -> Option<Self> {
        let mut levels = topic.split('/');
        let (root, tenants) = (levels.next()?, levels.next()?);
        let (agent, way, leaf) = (levels.next()?, levels.next()?, levels.next()?);
        if !root.is_empty() || tenants != "tenants" || levels.next().is_some() {
            return None;
        }
        let agent = agent.parse().ok()?;
        match way {
            "up" => Stream::ALL.into_iter().find(|s| s.name() == leaf).map(|s| Self::Up(agent, s)),
            "down" => Down::ALL.into_iter().find(|d| d.name() == leaf).map(|d| Self::Down(agent, d)),
            _ => None,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(agent, stream) => write!(f, "/tenants/{agent}/up/{}", stream.name()),
            Self::Down(agent, down) => write!(f, "/tenants/{agent}/down/{}", down.name()),
        }
    }
}

/// The one filter an agent subscribes to.
pub fn down_filter(agent: AgentId) -> String {
    format!("/tenants/{agent}/down/#")
}

/// The filter the control plane subscribes to.
pub const UP_FILTER: &str = "/tenants/+/up/#";
/// The same, shared by the replicas of a control plane: each message goes to one of them.
pub const UP_SHARED: &str = "$share/ingest//tenants/+/up/#";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_topic_reads_back() {
        let agent = AgentId::from_random([0xa3; 16]);
        for stream in Stream::ALL {
            let topic = Topic::Up(agent, stream);
            assert_eq!(Topic::parse(&topic.to_string()), Some(topic));
            assert_eq!(Stream::from_number(stream.number()), Some(stream));
        }
        for down in Down::ALL {
            let topic = Topic::Down(agent, down);
            assert_eq!(Topic::parse(&topic.to_string()), Some(topic));
            assert_eq!(Down::from_number(down.number()), Some(down));
        }
    }

    #[test]
    fn nothing_else_is_a_topic() {
        let a = AgentId::from_random([0xa3; 16]);
        for text in [
            format!("/tenants/{a}/up/telemetry/"),
            format!("tenants/{a}/up/telemetry"),
            format!("/tenants/{a}/up/#"),
            "/tenants/+/up/telemetry".to_owned(),
            format!("/tenants/{a}/down/telemetry"),
            format!("/tenants/{}/up/telemetry", a.to_string().to_uppercase()),
            String::new(),
        ] {
            assert_eq!(Topic::parse(&text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            if let Some(topic) = Topic::parse(&text) {
                prop_assert_eq!(topic.to_string(), text);
            }
        }
    }
}
