//! What comes from the control plane: verified, then understood. Pure.

use crate::store::Opened;
use hashinsight_protocol::document::DesiredDocumentV1;
use hashinsight_protocol::envelope::{Body, Envelope, WireError};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::order::OrderV1;
use hashinsight_protocol::presence::{AckV1, WelcomeV1};
use hashinsight_protocol::recovery::HeldMinersV1;
use hashinsight_protocol::signing::VerifyingKey;
use hashinsight_protocol::topics::{Down, Topic};
use hashinsight_protocol::trust::SignedTrustV1;
use thiserror::Error;

/// A verified word of the control plane.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    Ack(AckV1),
    Welcome(WelcomeV1),
    Desired(Opened),
    Order(OrderV1),
    /// To be judged by the root's signature in it.
    Keys(SignedTrustV1),
    Held(HeldMinersV1),
}

/// Why a message is not taken.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    #[error("a message on a topic that is not one of this agent's")]
    Topic,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("a document that is meant for another agent")]
    OtherAgent,
}

/// Opens a message. Nothing of it is looked at before its signature is verified, save its length,
/// checksum and address.
pub(crate) fn open(
    agent: AgentId,
    keys: &[VerifyingKey],
    topic: &str,
    payload: &[u8],
) -> Result<Word, Refusal> {
    let Some(Topic::Down(to, kind)) = Topic::parse(topic) else { return Err(Refusal::Topic) };
    if to != agent {
        return Err(Refusal::Topic);
    }
    let envelope = Envelope::open(Topic::Down(to, kind), payload)?;
    // The list of the keys themselves carries the root's own signature: the key that signed its envelope
    // may be one that only the list makes known.
    if kind != Down::Keys {
        envelope.verify_down(keys)?;
    }
    Ok(match kind {
        Down::Ack => Word::Ack(AckV1::decode(envelope.body)?),
        Down::Welcome => Word::Welcome(WelcomeV1::decode(envelope.body)?),
        Down::Order => Word::Order(OrderV1::decode(envelope.body)?),
        Down::Keys => Word::Keys(SignedTrustV1::decode(envelope.body)?),
        Down::Held => Word::Held(HeldMinersV1::decode(envelope.body)?),
        Down::Desired => {
            let document = DesiredDocumentV1::decode(envelope.body)?;
            if document.agent != agent {
                return Err(Refusal::OtherAgent);
            }
            Word::Desired(Opened::open(&document, keys))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::envelope::{seal_down, seal_up};
    use hashinsight_protocol::ids::{Epoch, OrderId};
    use hashinsight_protocol::order::CommandV1;
    use hashinsight_protocol::signing::{SigningError, SigningKey};
    use hashinsight_protocol::topics::Stream;
    use hashinsight_protocol::units::Millis;
    use proptest::prelude::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed(&[n; 32]).expect("a seed")
    }

    fn agent(n: u8) -> AgentId {
        AgentId::from_random([n; 16])
    }

    fn order() -> OrderV1 {
        let id = OrderId::from_random([1; 16]);
        let command = CommandV1::Watch { cycle_s: 10, until: Millis(9) };
        OrderV1 { id, issued: Millis(1), expires: Millis(2), by: "x".to_owned(), command }
    }

    fn sealed(key: &SigningKey, agent: AgentId, kind: Down, body: &[u8]) -> Vec<u8> {
        seal_down(key, agent, Epoch::from_random([1; 16]), kind, 0, body).expect("small")
    }

    fn open_here(topic: Topic, payload: &[u8]) -> Result<Word, Refusal> {
        open(agent(1), &[key(1).verifying_key(), key(2).verifying_key()], &topic.to_string(), payload)
    }

    #[test]
    fn any_certified_key_will_do_and_no_other() {
        let body = order().encode().expect("small");
        let topic = Topic::Down(agent(1), Down::Order);
        for (signer, expect) in [
            (1, Ok(Word::Order(order()))),
            (2, Ok(Word::Order(order()))),
            (3, Err(Refusal::Wire(SigningError::BadSignature.into()))),
        ] {
            assert_eq!(open_here(topic, &sealed(&key(signer), agent(1), Down::Order, &body)), expect);
        }
    }

    #[test]
    fn nothing_is_taken_that_was_meant_for_others() {
        let body = order().encode().expect("small");
        let ours = Topic::Down(agent(1), Down::Order);
        let another = sealed(&key(1), agent(2), Down::Order, &body);
        assert_eq!(open_here(ours, &another), Err(Refusal::Wire(WireError::WrongTopic)));
        assert_eq!(open_here(Topic::Down(agent(2), Down::Order), &another), Err(Refusal::Topic));
        let another_kind = sealed(&key(1), agent(1), Down::Ack, &body);
        assert_eq!(open_here(ours, &another_kind), Err(Refusal::Wire(WireError::WrongTopic)));
        let upward =
            seal_up(&key(1), agent(1), Epoch::from_random([1; 16]), Stream::Events, 1, &body).expect("small");
        assert!(open_here(Topic::Up(agent(1), Stream::Events), &upward).is_err());
        let document =
            DesiredDocumentV1 { agent: agent(2), version: 9, issued: Millis(0), parts: Vec::new() };
        let document = sealed(&key(1), agent(1), Down::Desired, &document.encode().expect("small"));
        assert_eq!(open_here(Topic::Down(agent(1), Down::Desired), &document), Err(Refusal::OtherAgent));
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_refused(at in 0usize..1000, change in 1u8..) {
            let mut bytes = sealed(&key(1), agent(1), Down::Order, &order().encode().expect("small"));
            let at = at % bytes.len();
            bytes[at] ^= change;
            prop_assert!(open_here(Topic::Down(agent(1), Down::Order), &bytes).is_err());
        }

        #[test]
        fn signed_garbage_is_refused_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            for kind in Down::ALL {
                let _ = open_here(Topic::Down(agent(1), kind), &sealed(&key(1), agent(1), kind, &body));
                let _ = open_here(Topic::Down(agent(1), kind), &body);
            }
        }
    }
}
