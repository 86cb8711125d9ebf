//! The first words of a connection, each way, and the broker's word of its end.

use crate::clock::MomentV1;
use crate::envelope::{Body, WireError, at_most};
use crate::ids::Epoch;
use crate::limits;
use crate::units::Millis;
use serde::{Deserialize, Serialize};

/// The agent's first message on every connection, after its subscription is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloV1 {
    /// Rises with every connection; a will with an older number is ignored.
    pub session: u64,
    pub version: String,
    /// Highest tags understood: telemetry, events, plans. The control plane speaks down to them.
    pub understands: UnderstandsV1,
    pub clock: MomentV1,
    /// Each kept stream's file and what is left in it.
    pub streams: Vec<StreamStateV1>,
    /// Version of the desired document held; 0 for none.
    pub document: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderstandsV1 {
    pub envelope: u16,
    pub plan: u16,
    pub order: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStateV1 {
    /// A [`crate::topics::Stream`] number.
    pub stream: u8,
    pub epoch: Epoch,
    /// The number that the next batch will get.
    pub next: u64,
    /// The lowest number still kept; equal to `next` when nothing is.
    pub lowest: u64,
}

/// What the broker says for an agent that left without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WillV1 {
    pub session: u64,
}

/// An agent's leaving in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoodbyeV1 {
    pub session: u64,
}

/// The control plane's answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeV1 {
    pub session: u64,
    /// When the hello arrived, on the control plane's clock.
    pub received: Millis,
    /// What the control plane holds for good of each kept stream.
    pub held: Vec<HeldV1>,
    /// Version of the document the agent should hold; 0 for none.
    pub document: u64,
    /// Whether somebody watches the site: cycles are short then.
    pub watched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldV1 {
    pub stream: u8,
    pub epoch: Epoch,
    /// All numbers up to this one are stored; 0 for none.
    pub up_to: u64,
}

/// Batches that are stored for good: the agent may delete them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckV1 {
    pub stream: u8,
    pub epoch: Epoch,
    /// First and last number, both included; rising, without overlap.
    pub ranges: Vec<(u64, u64)>,
}

impl Body for HelloV1 {
    const TAG: u16 = 1;
    const WHAT: &'static str = "a hello";

    fn check(&self) -> Result<(), WireError> {
        at_most("a hello's streams", self.streams.len(), 16)?;
        at_most("an agent's version", self.version.len(), limits::TEXT_BYTES)
    }
}

impl Body for WillV1 {
    const TAG: u16 = 2;
    const WHAT: &'static str = "a will";
}

impl Body for GoodbyeV1 {
    const TAG: u16 = 3;
    const WHAT: &'static str = "a goodbye";
}

impl Body for WelcomeV1 {
    const TAG: u16 = 1;
    const WHAT: &'static str = "a welcome";

    fn check(&self) -> Result<(), WireError> {
        at_most("a welcome's streams", self.held.len(), 16)
    }
}

impl Body for AckV1 {
    const TAG: u16 = 1;
    const WHAT: &'static str = "an acknowledgement";

    fn check(&self) -> Result<(), WireError> {
        at_most(Self::WHAT, self.ranges.len(), limits::ACK_RANGES)?;
        let mut after = 0;
        for (first, last) in &self.ranges {
            if *first < after || last < first {
                return Err(WireError::Malformed("ranges that overlap or fall"));
            }
            after = last.saturating_add(1);
        }
        Ok(())
    }
}
