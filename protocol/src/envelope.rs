//! The envelope around everything that crosses the broker.
//!
//! Format 1, postcard: format, agent, epoch, channel, seq, checksum, signature, body. The signature
//! covers all before it and the body; the checksum is CRC-32 (IEEE) of the body, so that the same
//! sequence number with other content is noticed without keeping the content. The channel is a
//! [`Stream`] or a [`Down`] number. The body starts with a tag that names its frozen type; a tag that
//! a reader doesn't know is [`WireError::UnknownTag`]: the batch is parked, never dropped.
//! Trailing bytes are an error everywhere.

use crate::ids::{AgentId, Epoch};
use crate::limits;
use crate::signing::{Purpose, Signature, SigningError, SigningKey, VerifyingKey};
use crate::topics::{Down, Stream, Topic};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

/// The envelope format this crate writes.
pub const FORMAT: u16 = 1;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    #[error("{what} of {size} bytes is over the limit of {limit}")]
    TooLarge { what: &'static str, size: usize, limit: usize },
    #[error("envelope format {0} is not known to this version")]
    UnknownFormat(u16),
    #[error("{what} with tag {tag} is not known to this version")]
    UnknownTag { what: &'static str, tag: u16 },
    #[error("{0} cannot be decoded")]
    Malformed(&'static str),
    #[error("{0} is followed by bytes that do not belong to it")]
    Trailing(&'static str),
    #[error("the checksum does not fit the body")]
    Checksum,
    #[error("the envelope belongs to another topic than it came on")]
    WrongTopic,
    #[error("{what} holds {count} entries, over the limit of {limit}")]
    TooMany { what: &'static str, count: usize, limit: usize },
    #[error("the telemetry batch leans on a key batch that is not at hand")]
    KeyMissing,
    #[error(transparent)]
    Signing(#[from] SigningError),
}

/// What stands before the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub agent: AgentId,
    /// Life of the file that the sequence belongs to.
    pub epoch: Epoch,
    /// A [`Stream`] or [`Down`] number.
    pub channel: u8,
    /// Position in the channel's sequence, from 1; 0 where nothing is kept.
    pub seq: u64,
    /// CRC-32 of the body.
    pub checksum: u32,
}

/// An envelope that was decoded, not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub header: Header,
    pub signature: Signature,
    pub body: &'a [u8],
    signed: &'a [u8],
}

/// CRC-32 (IEEE) of a body.
pub fn checksum(body: &[u8]) -> u32 {
    crc32fast::hash(body)
}

/// Seals an upward body.
///
/// # Errors
/// The result would be larger than [`limits::UP_BYTES`].
pub fn seal_up(
    key: &SigningKey,
    agent: AgentId,
    epoch: Epoch,
    stream: Stream,
    seq: u64,
    body: &[u8],
) -> Result<Vec<u8>, WireError> {
    seal(key, Purpose::Up, agent, epoch, stream.number(), seq, body, limits::UP_BYTES)
}

/// Seals a downward body.
///
/// # Errors
/// The result would be larger than [`limits::DOWN_BYTES`].
pub fn seal_down(
    key: &SigningKey,
    agent: AgentId,
    epoch: Epoch,
    kind: Down,
    seq: u64,
    body: &[u8],
) -> Result<Vec<u8>, WireError> {
    seal(key, Purpose::Down, agent, epoch, kind.number(), seq, body, limits::DOWN_BYTES)
}

#[expect(clippy::too_many_arguments, reason = "the fields of the header, in their order")]
fn seal(
    key: &SigningKey,
    purpose: Purpose,
    agent: AgentId,
    epoch: Epoch,
    channel: u8,
    seq: u64,
    body: &[u8],
    limit: usize,
) -> Result<Vec<u8>, WireError> {
    let header = Header { agent, epoch, channel, seq, checksum: checksum(body) };
    let mut bytes =
        postcard::to_stdvec(&(FORMAT, header)).map_err(|_| WireError::Malformed("an envelope's header"))?;
    let signature = key.sign(purpose, &[&bytes, body]);
    bytes.reserve(signature.0.len() + body.len());
    bytes.extend_from_slice(&signature.0);
    bytes.extend_from_slice(body);
    if bytes.len() > limit {
        return Err(WireError::TooLarge { what: "an envelope", size: bytes.len(), limit });
    }
    Ok(bytes)
}

impl<'a> Envelope<'a> {
    /// Opens an envelope that came on `topic`. The signature is not checked yet: whose key it must
    /// fit is known only from the header.
    ///
    /// # Errors
    /// Too large, of another format, malformed, with a wrong checksum, or not of this topic.
    pub fn open(topic: Topic, bytes: &'a [u8]) -> Result<Self, WireError> {
        let limit = match topic {
            Topic::Up(..) => limits::UP_BYTES,
            Topic::Down(..) => limits::DOWN_BYTES,
        };
        if bytes.len() > limit {
            return Err(WireError::TooLarge { what: "an envelope", size: bytes.len(), limit });
        }
        let (format, _) =
            postcard::take_from_bytes::<u16>(bytes).map_err(|_| WireError::Malformed("an envelope"))?;
        if format != FORMAT {
            return Err(WireError::UnknownFormat(format));
        }
        let malformed = |_| WireError::Malformed("an envelope");
        let ((_, header), rest) = postcard::take_from_bytes::<(u16, Header)>(bytes).map_err(malformed)?;
        let signed = &bytes[..bytes.len() - rest.len()];
        let (signature, body) = postcard::take_from_bytes::<Signature>(rest).map_err(malformed)?;
        if checksum(body) != header.checksum {
            return Err(WireError::Checksum);
        }
        let (agent, channel) = match topic {
            Topic::Up(agent, stream) => (agent, stream.number()),
            Topic::Down(agent, kind) => (agent, kind.number()),
        };
        if (agent, channel) != (header.agent, header.channel) {
            return Err(WireError::WrongTopic);
        }
        Ok(Self { header, signature, body, signed })
    }

    /// # Errors
    /// The signature is not that of `key`.
    pub fn verify_up(&self, key: &VerifyingKey) -> Result<(), WireError> {
        Ok(key.verify(Purpose::Up, &[self.signed, self.body], &self.signature)?)
    }

    /// # Errors
    /// The signature is that of none of `keys`.
    pub fn verify_down(&self, keys: &[VerifyingKey]) -> Result<(), WireError> {
        let fits = |key: &VerifyingKey| {
            key.verify(Purpose::Down, &[self.signed, self.body], &self.signature).is_ok()
        };
        if keys.iter().any(fits) { Ok(()) } else { Err(SigningError::BadSignature.into()) }
    }
}

/// A frozen type of the wire: encoded as its tag and its postcard form.
pub trait Body: Serialize + DeserializeOwned {
    /// Names the type among those of its place; fixed for ever.
    const TAG: u16;
    /// What it is called in errors.
    const WHAT: &'static str;

    /// Bounds that the encoding alone does not keep.
    ///
    /// # Errors
    /// The first bound that is broken.
    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }

    /// # Errors
    /// A bound is broken.
    fn encode(&self) -> Result<Vec<u8>, WireError> {
        self.check()?;
        postcard::to_stdvec(&(Self::TAG, self)).map_err(|_| WireError::Malformed(Self::WHAT))
    }

    /// # Errors
    /// Another tag, malformed, trailing bytes, or a bound is broken.
    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (tag, rest) = tag_of(bytes).ok_or(WireError::Malformed(Self::WHAT))?;
        if tag != Self::TAG {
            return Err(WireError::UnknownTag { what: Self::WHAT, tag });
        }
        let (body, rest) =
            postcard::take_from_bytes::<Self>(rest).map_err(|_| WireError::Malformed(Self::WHAT))?;
        if !rest.is_empty() {
            return Err(WireError::Trailing(Self::WHAT));
        }
        body.check()?;
        Ok(body)
    }
}

/// The tag at the head of a body, and what follows it.
pub fn tag_of(bytes: &[u8]) -> Option<(u16, &[u8])> {
    postcard::take_from_bytes::<u16>(bytes).ok()
}

/// An error when `count` is over `limit`.
pub(crate) fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), WireError> {
    if count > limit { Err(WireError::TooMany { what, count, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[1; 32]).expect("a seed")
    }

    fn agent() -> AgentId {
        AgentId::from_random([2; 16])
    }

    #[test]
    fn an_envelope_opens_on_its_own_topic_only() {
        let bytes =
            seal_up(&key(), agent(), Epoch::from_random([3; 16]), Stream::Events, 7, b"body").expect("small");
        let topic = Topic::Up(agent(), Stream::Events);
        let envelope = Envelope::open(topic, &bytes).expect("ours");
        assert_eq!((envelope.header.seq, envelope.body), (7, &b"body"[..]));
        assert_eq!(envelope.verify_up(&key().verifying_key()), Ok(()));
        assert!(envelope.verify_down(&[key().verifying_key()]).is_err());
        let other = Topic::Up(agent(), Stream::Audit);
        assert_eq!(Envelope::open(other, &bytes), Err(WireError::WrongTopic));
    }

    #[test]
    fn a_newer_format_is_told_from_garbage() {
        let mut bytes =
            seal_up(&key(), agent(), Epoch::from_random([3; 16]), Stream::Events, 7, b"x").expect("small");
        bytes[0] = 2;
        let topic = Topic::Up(agent(), Stream::Events);
        assert_eq!(Envelope::open(topic, &bytes), Err(WireError::UnknownFormat(2)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            for stream in Stream::ALL {
                let _ = Envelope::open(Topic::Up(agent(), stream), &bytes);
            }
        }

        #[test]
        fn any_flipped_bit_is_noticed(at in 0usize..120, bit in 0u8..8) {
            let mut bytes = seal_up(&key(), agent(), Epoch::from_random([3; 16]), Stream::Events, 7, b"hello")
                .expect("small");
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let verified = Envelope::open(Topic::Up(agent(), Stream::Events), &bytes)
                .and_then(|e| e.verify_up(&key().verifying_key()));
            prop_assert!(verified.is_err());
        }
    }
}
