//! Whom an agent trusts: one list of keys, signed by the offline root that it pinned at enrolment.
//!
//! The list is whole and has a rising version: a key that a later list leaves out is trusted no more,
//! and an older list is not taken. It names the keys that sign documents and orders, and the
//! authorities whose certificates the broker and the control plane show. For overlap a list holds the
//! old key and the new one. Since the root's signature alone counts, the list may come over any wire.

use crate::enrolment::{from_hex_bytes, hex};
use crate::envelope::{Body, WireError, at_most};
use crate::limits;
use crate::signing::{Purpose, Signature, SigningError, SigningKey, VerifyingKey};
use crate::units::Millis;
use serde::{Deserialize, Serialize};

/// The list itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustListV1 {
    /// Rises with every list of a root.
    pub version: u64,
    pub issued: Millis,
    /// Keys that sign documents and orders.
    pub signing_keys: Vec<VerifyingKey>,
    /// Certificates of authorities, DER.
    pub authorities: Vec<Vec<u8>>,
}

/// A list with the root's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTrustV1 {
    pub signature: Signature,
    /// Tag and postcard form of the list.
    pub body: Vec<u8>,
}

impl Body for TrustListV1 {
    const TAG: u16 = 1;
    const WHAT: &'static str = "a trust list";

    fn check(&self) -> Result<(), WireError> {
        at_most("a trust list's keys", self.signing_keys.len(), limits::TRUSTED)?;
        at_most("a trust list's authorities", self.authorities.len(), limits::TRUSTED)?;
        let longest = self.authorities.iter().map(Vec::len).max().unwrap_or(0);
        at_most("an authority's bytes", longest, limits::CERTIFICATE_BYTES)
    }
}

impl Body for SignedTrustV1 {
    const TAG: u16 = 1;
    const WHAT: &'static str = "a signed trust list";
}

impl SignedTrustV1 {
    /// Signs a list with the root.
    ///
    /// # Errors
    /// The list breaks a bound.
    pub fn sign(root: &SigningKey, list: &TrustListV1) -> Result<Self, WireError> {
        let body = list.encode()?;
        Ok(Self { signature: root.sign(Purpose::Trust, &[&body]), body })
    }

    /// # Errors
    /// The signature is not the root's, or the list can't be understood.
    pub fn open(&self, root: &VerifyingKey) -> Result<TrustListV1, WireError> {
        root.verify(Purpose::Trust, &[&self.body], &self.signature)?;
        TrustListV1::decode(&self.body)
    }

    /// As text, for files and JSON.
    ///
    /// # Errors
    /// Never for a list that was signed or read.
    pub fn to_text(&self) -> Result<String, WireError> {
        Ok(hex(&self.encode()?))
    }

    /// # Errors
    /// The text is none of [`Self::to_text`].
    pub fn from_text(text: &str) -> Result<Self, WireError> {
        let text = text.trim();
        let limit = limits::ENROLMENT_BYTES;
        if text.len() > limit {
            return Err(WireError::TooLarge { what: Self::WHAT, size: text.len(), limit });
        }
        Self::decode(&from_hex_bytes(text).ok_or(WireError::Malformed(Self::WHAT))?)
    }
}

/// The list that stands: a newer one, signed by the root, in place of the one held.
///
/// # Errors
/// The new one is not the root's, names nobody, or is older. The same version again changes nothing.
pub fn newer(
    root: &VerifyingKey,
    held: &TrustListV1,
    offered: &SignedTrustV1,
) -> Result<Option<TrustListV1>, TrustError> {
    let list = offered.open(root)?;
    if list.signing_keys.is_empty() || list.authorities.is_empty() {
        return Err(TrustError::Empty);
    }
    match list.version.cmp(&held.version) {
        std::cmp::Ordering::Less => Err(TrustError::Older { held: held.version, offered: list.version }),
        std::cmp::Ordering::Equal => Ok(None),
        std::cmp::Ordering::Greater => Ok(Some(list)),
    }
}

/// Why a trust list is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TrustError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("trust list {offered} is older than {held}, which is held")]
    Older { held: u64, offered: u64 },
    #[error("the trust list names no key or no authority")]
    Empty,
}

impl From<SigningError> for TrustError {
    fn from(error: SigningError) -> Self {
        Self::Wire(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed(&[n; 32]).expect("a seed")
    }

    fn list(version: u64) -> TrustListV1 {
        TrustListV1 {
            version,
            issued: Millis(1),
            signing_keys: vec![key(2).verifying_key()],
            authorities: vec![vec![0x30; 400]],
        }
    }

    #[test]
    fn a_list_is_taken_when_it_is_newer_and_the_roots() {
        let root = key(1).verifying_key();
        let sign = |signer: u8, list: &TrustListV1| SignedTrustV1::sign(&key(signer), list).expect("small");
        assert_eq!(newer(&root, &list(3), &sign(1, &list(4))), Ok(Some(list(4))));
        assert_eq!(newer(&root, &list(3), &sign(1, &list(3))), Ok(None));
        let older = newer(&root, &list(3), &sign(1, &list(2)));
        assert_eq!(older, Err(TrustError::Older { held: 3, offered: 2 }));
        assert!(newer(&root, &list(3), &sign(2, &list(4))).is_err(), "another's signature");
        let nobody = TrustListV1 { signing_keys: Vec::new(), ..list(4) };
        assert_eq!(newer(&root, &list(3), &sign(1, &nobody)), Err(TrustError::Empty));
        let huge = TrustListV1 { authorities: vec![vec![0; 100_000]], ..list(4) };
        assert!(SignedTrustV1::sign(&key(1), &huge).is_err());
    }

    #[test]
    fn a_text_reads_back() {
        let signed = SignedTrustV1::sign(&key(1), &list(4)).expect("small");
        let text = signed.to_text().expect("small");
        assert_eq!(SignedTrustV1::from_text(&format!("{text}\n")), Ok(signed));
        for text in ["", "zz", &text[1..], &text[2..], &"0".repeat(1 << 20)] {
            assert!(SignedTrustV1::from_text(text).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_refused(at in 0usize..1000, change in 1u8..) {
            let mut signed = SignedTrustV1::sign(&key(1), &list(4)).expect("small");
            let at = at % signed.body.len();
            signed.body[at] ^= change;
            prop_assert!(signed.open(&key(1).verifying_key()).is_err());
        }
    }
}
