//! From a message on the wire to something that may be stored: opened, verified, decoded.
//!
//! Pure: no clock, no database. The agent is the one of the connection; an envelope that says otherwise
//! is refused. What is refused is counted and reported, and neither stored nor acknowledged, since an
//! unproven word must not cost disk, nor make a sender delete what was not stored.

use crate::agents::certificates::Known;
use crate::telemetry::batches::{self, Batch};
use crate::telemetry::ledger::StreamKey;
use crate::telemetry::once::Arrived;
use crate::telemetry::parked::Why;
use bytes::Bytes;
use hashinsight_broker::Up;
use hashinsight_protocol::envelope::{Body as _, Envelope, WireError, checksum, tag_of};
use hashinsight_protocol::events::{EventV1, EventsV1, RawEventV1};
use hashinsight_protocol::ids::Epoch;
use hashinsight_protocol::presence::{GoodbyeV1, HelloV1, WillV1};
use hashinsight_protocol::topics::{Stream, Topic};
use hashinsight_protocol::units::Millis;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A batch of events that came, each event with what this version makes of it.
pub type EventBatch = Arrived<Vec<Event>>;

/// One event of a batch.
#[derive(Debug)]
pub struct Event {
    pub raw: RawEventV1,
    pub read: Result<EventV1, WireError>,
}

/// A message that was verified.
#[derive(Debug)]
pub enum Message {
    Telemetry(Batch),
    Events(EventBatch),
    Presence(Presence),
    /// An envelope of a format this version doesn't know. Who signed it can't be told.
    Unknown(Unknown),
}

/// What an agent says of its being there.
#[derive(Clone, Debug)]
pub enum Presence {
    Hello(HelloV1),
    /// Gone in order, or by the broker's word.
    Left(u64),
}

/// A message to be parked as it is.
#[derive(Clone, Debug)]
pub struct Unknown {
    pub key: StreamKey,
    /// CRC-32 of the whole.
    pub checksum: u32,
    pub reason: String,
    pub received_at: Millis,
    pub envelope: Bytes,
}

/// Opens, verifies and decodes a message.
///
/// # Errors
/// It is not to be trusted, or not to be read.
pub fn open(up: &Up, known: &Known, received_at: Millis) -> Result<Message, WireError> {
    let Up { agent, stream, ref payload } = *up;
    let envelope = match Envelope::open(Topic::Up(agent, stream), payload) {
        Ok(envelope) => envelope,
        Err(error @ WireError::UnknownFormat(_)) if stream != Stream::Presence => {
            return Ok(Message::Unknown(Unknown {
                key: StreamKey { agent, epoch: Epoch::from_bytes([0; 16]), stream },
                checksum: checksum(payload),
                reason: error.to_string(),
                received_at,
                envelope: payload.clone(),
            }));
        }
        Err(error) => return Err(error),
    };
    envelope.verify_up(&known.key)?;
    let header = envelope.header;
    let key = StreamKey { agent, epoch: header.epoch, stream };
    let (seq, checksum, envelope_bytes) = (header.seq, header.checksum, payload.clone());
    match stream {
        Stream::Presence => presence(envelope.body).map(Message::Presence),
        Stream::Telemetry => {
            let body = batches::read(envelope.body);
            Ok(Message::Telemetry(Arrived {
                key,
                seq,
                checksum,
                received_at,
                envelope: envelope_bytes,
                body,
            }))
        }
        Stream::Events | Stream::Evidence | Stream::Audit => {
            let body = events(envelope.body);
            Ok(Message::Events(Arrived { key, seq, checksum, received_at, envelope: envelope_bytes, body }))
        }
    }
}

/// Opens a message by `open`. One that makes it panic is set aside as a batch with wrong content, once
/// its envelope is verified.
///
/// # Errors
/// As [`open`].
pub fn open_or_set_aside(
    up: &Up,
    known: &Known,
    received_at: Millis,
    open: impl Fn(&Up, &Known, Millis) -> Result<Message, WireError>,
) -> Result<Message, WireError> {
    let attempt = |work: &dyn Fn() -> Result<Message, WireError>| catch_unwind(AssertUnwindSafe(work));
    attempt(&|| open(up, known, received_at))
        .or_else(|_| attempt(&|| set_aside(up, known, received_at)))
        .unwrap_or(Err(WireError::Malformed("an envelope")))
}

fn set_aside(up: &Up, known: &Known, received_at: Millis) -> Result<Message, WireError> {
    let Up { agent, stream, ref payload } = *up;
    let envelope = Envelope::open(Topic::Up(agent, stream), payload)?;
    envelope.verify_up(&known.key)?;
    let header = envelope.header;
    let key = StreamKey { agent, epoch: header.epoch, stream };
    let (seq, checksum, envelope) = (header.seq, header.checksum, payload.clone());
    let why = Why::Wrong("reading it made the program fail".to_owned());
    match stream {
        Stream::Presence => Err(WireError::Malformed("a word of presence")),
        Stream::Telemetry => {
            Ok(Message::Telemetry(Arrived { key, seq, checksum, received_at, envelope, body: Err(why) }))
        }
        Stream::Events | Stream::Evidence | Stream::Audit => {
            Ok(Message::Events(Arrived { key, seq, checksum, received_at, envelope, body: Err(why) }))
        }
    }
}

/// Reads the body of a verified batch of events.
pub fn events(body: &[u8]) -> Result<Vec<Event>, Why> {
    let batch = EventsV1::decode(body).map_err(|error| match error {
        WireError::UnknownTag { .. } => Why::NotKnown(error.to_string()),
        error => Why::Wrong(error.to_string()),
    })?;
    let event = |raw: RawEventV1| Event { read: EventV1::from_raw(&raw), raw };
    Ok(batch.events.into_iter().map(event).collect())
}

fn presence(body: &[u8]) -> Result<Presence, WireError> {
    let (tag, _) = tag_of(body).ok_or(WireError::Malformed("a word of presence"))?;
    match tag {
        HelloV1::TAG => HelloV1::decode(body).map(Presence::Hello),
        WillV1::TAG => WillV1::decode(body).map(|will| Presence::Left(will.session)),
        GoodbyeV1::TAG => GoodbyeV1::decode(body).map(|goodbye| Presence::Left(goodbye.session)),
        tag => Err(WireError::UnknownTag { what: "a word of presence", tag }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::envelope::seal_up;
    use hashinsight_protocol::signing::SigningKey;

    use hashinsight_protocol::ids::{AgentId, SiteId};

    const NOW: Millis = Millis(1_790_000_000_000);

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed(&[n; 32]).unwrap()
    }

    fn known() -> Known {
        Known { site: SiteId::from_random([1; 16]), key: key(1).verifying_key(), revoked: false }
    }

    fn agent(n: u8) -> AgentId {
        AgentId::from_random([n; 16])
    }

    fn up(signer: u8, of: u8, stream: Stream, body: &[u8]) -> Up {
        let epoch = Epoch::from_random([5; 16]);
        let payload = seal_up(&key(signer), agent(of), epoch, stream, 7, body).unwrap();
        Up { agent: agent(1), stream, payload: payload.into() }
    }

    #[test]
    fn what_is_not_the_agents_own_is_refused() {
        let body = EventsV1 { events: Vec::new() }.encode().unwrap();
        let fine = up(1, 1, Stream::Events, &body);
        assert!(matches!(open(&fine, &known(), NOW), Ok(Message::Events(batch)) if batch.body.is_ok()));
        assert!(open(&up(2, 1, Stream::Events, &body), &known(), NOW).is_err(), "another's signature");
        assert!(open(&up(1, 2, Stream::Events, &body), &known(), NOW).is_err(), "another's name");
        let moved = Up { stream: Stream::Audit, ..fine.clone() };
        assert!(open(&moved, &known(), NOW).is_err(), "another stream");
        let mut bytes = fine.payload.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(open(&Up { payload: bytes.into(), ..fine }, &known(), NOW).is_err(), "other content");
    }

    #[test]
    fn what_makes_the_program_fail_is_set_aside_when_it_is_the_agents_own() {
        let failing = |_: &Up, _: &Known, _: Millis| -> Result<Message, WireError> { panic!("a bug") };
        let own = up(1, 1, Stream::Telemetry, &[1, 2]);
        let Ok(Message::Telemetry(batch)) = open_or_set_aside(&own, &known(), NOW, failing) else {
            panic!("signed")
        };
        assert!(matches!(batch.body, Err(Why::Wrong(_))) && batch.seq == 7);
        assert!(open_or_set_aside(&up(2, 1, Stream::Telemetry, &[1]), &known(), NOW, failing).is_err());
        assert!(open_or_set_aside(&up(1, 1, Stream::Presence, &[1]), &known(), NOW, failing).is_err());
        assert!(open_or_set_aside(&own, &known(), NOW, open).is_ok());
    }

    #[test]
    fn what_is_not_known_is_told_from_what_is_wrong() {
        let unknown = up(1, 1, Stream::Telemetry, &[0x7f, 1, 2]);
        let Ok(Message::Telemetry(batch)) = open(&unknown, &known(), NOW) else { panic!("signed") };
        assert!(matches!(batch.body, Err(Why::NotKnown(_))));
        let wrong = up(1, 1, Stream::Telemetry, &[1, 2]);
        let Ok(Message::Telemetry(batch)) = open(&wrong, &known(), NOW) else { panic!("signed") };
        assert!(matches!(batch.body, Err(Why::Wrong(_))));
        let mut newer = unknown.payload.to_vec();
        newer[0] = 2;
        let newer = Up { payload: newer.into(), ..unknown };
        assert!(matches!(open(&newer, &known(), NOW), Ok(Message::Unknown(_))));
    }
}
