//! Cuts events into batches that fit the wire.

use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::envelope::{Body, WireError};
use hashinsight_protocol::events::{EventV1, EventsV1, RawEventV1};
use hashinsight_protocol::limits;

/// What an event's moment and lengths, and the envelope's header, may add.
const HEAD: usize = 1024;
const EACH: usize = 64;

/// Bodies of as few batches as hold the events, in their order.
pub(crate) fn pack(at: MomentV1, events: &[EventV1]) -> Result<Vec<Vec<u8>>, WireError> {
    let mut batches = Vec::new();
    let mut open: Vec<RawEventV1> = Vec::new();
    let mut size = HEAD;
    for event in events {
        let raw = event.raw(at)?;
        let more = raw.body.len() + EACH;
        if open.len() >= limits::EVENTS || size + more > limits::UP_BYTES {
            batches.push(EventsV1 { events: std::mem::take(&mut open) }.encode()?);
            size = HEAD;
        }
        size += more;
        open.push(raw);
    }
    if !open.is_empty() {
        batches.push(EventsV1 { events: open }.encode()?);
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::clock::ClockStateV1;
    use hashinsight_protocol::events::{AlarmKindV1, AlarmV1};
    use hashinsight_protocol::ids::BootId;
    use hashinsight_protocol::units::{BootMillis, Millis};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_events_arrive_in_batches_that_fit(sizes in proptest::collection::vec(0usize..60_000, 0..30), small in 0usize..1200) {
            let at = MomentV1 {
                wall: Millis(i64::MIN), boot: BootMillis(u64::MAX),
                boot_id: BootId::from_random([1; 16]), state: ClockStateV1::Uncertain,
            };
            let alarm = |n| EventV1::Alarm(AlarmV1 { kind: AlarmKindV1::Clock, miner: None, text: "x".repeat(n) });
            let events: Vec<_> = sizes.into_iter().chain(std::iter::repeat_n(3, small)).map(alarm).collect();
            let batches = pack(at, &events).expect("each fits");
            let mut read = Vec::new();
            for batch in batches {
                prop_assert!(batch.len() + 200 < limits::UP_BYTES);
                let batch = EventsV1::decode(&batch).expect("ours");
                prop_assert!(!batch.events.is_empty());
                read.extend(batch.events.iter().map(|e| EventV1::from_raw(e).expect("ours")));
            }
            prop_assert_eq!(read, events);
        }
    }
}
