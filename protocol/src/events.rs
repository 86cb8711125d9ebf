//! Batches of events: what happened on the gateway and to the targets of dispatches.
//!
//! Each event is length-prefixed with its own tag, so that one that a reader doesn't know is parked
//! alone and the rest of its batch is applied.

use crate::clock::MomentV1;
use crate::device::{CapabilitiesV1, EvidenceV1};
use crate::envelope::{Body, WireError, at_most};
use crate::evidence::{DispatchStepV1, TargetStepV1};
use crate::ids::{Epoch, MinerId, PlanId};
use crate::limits;
use crate::readiness::ReadinessV1;
use crate::units::{DurationMs, Hashrate, Watts};
use serde::{Deserialize, Serialize};

/// A batch of the streams Events, Evidence and Audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsV1 {
    pub events: Vec<RawEventV1>,
}

/// An event, not decoded yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawEventV1 {
    pub at: MomentV1,
    /// Tag and postcard form of one of the types of [`EventV1`].
    pub body: Vec<u8>,
}

impl Body for EventsV1 {
    const TAG: u16 = 1;
    const WHAT: &'static str = "a batch of events";

    fn check(&self) -> Result<(), WireError> {
        at_most(Self::WHAT, self.events.len(), limits::EVENTS)?;
        self.events.iter().try_for_each(|e| {
            let (what, size, limit) = ("an event", e.body.len(), limits::EVENT_BYTES);
            if size > limit { Err(WireError::TooLarge { what, size, limit }) } else { Ok(()) }
        })
    }
}

/// All events that this version knows.
#[derive(Clone, Debug, PartialEq)]
pub enum EventV1 {
    Started(AgentStartedV1),
    Gap(GapV1),
    Miner(MinerSeenV1),
    MinerGone(MinerGoneV1),
    Document(DocumentHeldV1),
    Refused(PartRefusedV1),
    Dispatch(DispatchStepV1),
    Target(TargetStepV1),
    Order(OrderResultV1),
    Alarm(AlarmV1),
    Readiness(ReadinessV1),
    Changed(MinerChangedV1),
}

/// The agent's program started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStartedV1 {
    pub version: String,
    /// Whether the last run ended in order.
    pub clean: bool,
}

/// Readings that were taken and will never arrive, or were due and could not be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapV1 {
    pub epoch: Epoch,
    pub cause: GapCauseV1,
    /// Poll cycles concerned, both included.
    pub first_cycle: u64,
    pub last_cycle: u64,
    /// Batches dropped that had a sequence number; both included.
    pub seqs: Option<(u64, u64)>,
    /// Polls that are missing, at most.
    pub polls: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCauseV1 {
    /// The agent ended in mid-burst.
    BurstLost,
    /// The outbox reached its quota.
    Quota,
    /// The outbox file was corrupt or gone.
    Corrupt,
    /// The disk took no more.
    DiskFull,
}

/// A miner the agent owns, as it is now known. Addresses and credentials stay at the site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MinerSeenV1 {
    pub miner: MinerId,
    /// Firmware profile; `None` while the device has not been recognised.
    pub firmware: Option<String>,
    pub model: Option<String>,
    pub version: Option<String>,
    /// Observations of identity; both move with a control board.
    pub serial: Option<String>,
    pub mac: Option<String>,
    /// Known by address alone.
    pub weak_identity: bool,
    pub rack: Option<String>,
    pub position: Option<String>,
    pub customer: Option<String>,
    pub capabilities: CapabilitiesV1,
    /// What it draws asleep.
    pub standby: Option<Watts>,
    pub nameplate_power: Option<Watts>,
    pub nameplate_hashrate: Option<Hashrate>,
    /// From wake-up to full hashrate.
    pub restart: Option<DurationMs>,
    /// Nobody writes to it, nobody wakes it; cleared on site.
    pub out_of_service: bool,
    /// Never curtailed.
    pub protected: bool,
}

/// A miner the agent no longer owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinerGoneV1 {
    pub miner: MinerId,
}

/// The agent stored a desired document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentHeldV1 {
    pub version: u64,
    /// Plans taken from it, with their revisions.
    pub plans: Vec<(PlanId, u32)>,
}

/// The agent did not take a part of a document; the others stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRefusedV1 {
    pub version: u64,
    /// The plan, where it could be read.
    pub plan: Option<PlanId>,
    pub part: u32,
    pub reason: String,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderResultV1 {
    pub order: crate::ids::OrderId,
    pub taken: bool,
    pub reason: String,
}

/// Something a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmV1 {
    pub kind: AlarmKindV1,
    pub miner: Option<MinerId>,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKindV1 {
    /// The journal can't be written: no new stops.
    Journal,
    /// The outbox can't be written.
    Outbox,
    /// The wall clock is uncertain.
    Clock,
    /// Another device answers at a miner's address.
    Identity,
    /// Messages came from the broker that the control plane has not signed.
    Downlink,
}

/// A person at the site has the agent change something of a miner: rebooted, made to blink, other pools,
/// another power limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinerChangedV1 {
    pub miner: MinerId,
    /// The change in words, without secrets.
    pub what: String,
    /// The name that was given, and the user of the gateway's system.
    pub by: String,
    /// `None` while it is about to be sent.
    pub evidence: Option<EvidenceV1>,
    pub detail: String,
}

macro_rules! events {
    ($($variant:ident($type:ident) = $tag:literal, $what:literal $(, $check:path)?;)*) => {
        $(impl Body for $type {
            const TAG: u16 = $tag;
            const WHAT: &'static str = $what;
            $(fn check(&self) -> Result<(), WireError> {
                $check(self)
            })?
        })*

        impl EventV1 {
            /// # Errors
            /// The event is larger than [`limits::EVENT_BYTES`].
            pub fn raw(&self, at: MomentV1) -> Result<RawEventV1, WireError> {
                let body = match self { $(Self::$variant(event) => event.encode()?,)* };
                let (what, size, limit) = ("an event", body.len(), limits::EVENT_BYTES);
                if size > limit {
                    return Err(WireError::TooLarge { what, size, limit });
                }
                Ok(RawEventV1 { at, body })
            }

            /// # Errors
            /// Malformed, or of a kind that this version doesn't know ([`WireError::UnknownTag`]).
            pub fn from_raw(raw: &RawEventV1) -> Result<Self, WireError> {
                let (tag, _) = crate::envelope::tag_of(&raw.body).ok_or(WireError::Malformed("an event"))?;
                match tag {
                    $($tag => $type::decode(&raw.body).map(Self::$variant),)*
                    tag => Err(WireError::UnknownTag { what: "an event", tag }),
                }
            }
        }
    };
}

events! {
    Started(AgentStartedV1) = 1, "an agent's start";
    Gap(GapV1) = 2, "a gap";
    Miner(MinerSeenV1) = 3, "a miner";
    MinerGone(MinerGoneV1) = 4, "a miner's leaving";
    Document(DocumentHeldV1) = 5, "a document held";
    Refused(PartRefusedV1) = 6, "a refused part";
    Dispatch(DispatchStepV1) = 7, "a dispatch's step";
    Target(TargetStepV1) = 8, "a target's step";
    Order(OrderResultV1) = 9, "an order's result";
    Alarm(AlarmV1) = 10, "an alarm";
    Readiness(ReadinessV1) = 11, "a readiness", ReadinessV1::check;
    Changed(MinerChangedV1) = 12, "a change of a miner";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockStateV1;
    use crate::ids::BootId;
    use crate::units::{BootMillis, Millis};
    use proptest::prelude::*;

    fn moment() -> MomentV1 {
        MomentV1 {
            wall: Millis(1),
            boot: BootMillis(2),
            boot_id: BootId::from_random([1; 16]),
            state: ClockStateV1::Uncertain,
        }
    }

    #[test]
    fn an_unknown_event_is_parked_alone() {
        let known = EventV1::Started(AgentStartedV1 { version: "1".into(), clean: true });
        let raw = known.raw(moment()).expect("small");
        let unknown = RawEventV1 { at: moment(), body: vec![0x7f, 1, 2, 3] };
        let batch = EventsV1 { events: vec![unknown, raw] };
        let batch = EventsV1::decode(&batch.encode().expect("small")).expect("ours");
        let read: Vec<_> = batch.events.iter().map(EventV1::from_raw).collect();
        assert_eq!(read[0], Err(WireError::UnknownTag { what: "an event", tag: 0x7f }));
        assert_eq!(read[1], Ok(known));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), tag in 0u8..14) {
            let mut tagged = vec![tag];
            tagged.extend_from_slice(&bytes);
            let _ = EventsV1::decode(&tagged);
            let _ = EventV1::from_raw(&RawEventV1 { at: moment(), body: tagged });
        }
    }
}
