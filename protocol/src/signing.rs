//! Ed25519 keys and signatures. Batches are signed by the agent's key, everything downward by the
//! control plane's, so that a broker that is taken over can delay but not forge.
//!
//! Every signature covers a purpose text first, so that none can be used for another purpose.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// What a signature is for. The texts are fixed for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An envelope from an agent.
    Up,
    /// An envelope from the control plane.
    Down,
    /// One part of a desired document.
    Part,
    /// A list of keys to trust, by the offline root.
    Trust,
}

impl Purpose {
    const fn text(self) -> &'static [u8] {
        match self {
            Self::Up => b"hashinsight up 1\0",
            Self::Down => b"hashinsight down 1\0",
            Self::Part => b"hashinsight part 1\0",
            Self::Trust => b"hashinsight trust 1\0",
        }
    }

    fn message(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut message = self.text().to_vec();
        for part in parts {
            message.extend_from_slice(part);
        }
        message
    }
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum SigningError {
    #[error("this is not an Ed25519 key in PKCS#8 form")]
    NotAKey,
    #[error("the signature does not fit the message and the key")]
    BadSignature,
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

// serde derives arrays only up to 32, so the two halves travel one after the other: 64 plain bytes.
impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (a, b) = self.0.split_at(32);
        (<[u8; 32]>::try_from(a).unwrap_or_default(), <[u8; 32]>::try_from(b).unwrap_or_default())
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (a, b) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&a);
        bytes[32..].copy_from_slice(&b);
        Ok(Self(bytes))
    }
}

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VerifyingKey(pub [u8; 32]);

impl VerifyingKey {
    /// # Errors
    /// The signature is not this key's over this purpose and these parts.
    pub fn verify(
        &self,
        purpose: Purpose,
        parts: &[&[u8]],
        signature: &Signature,
    ) -> Result<(), SigningError> {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(&purpose.message(parts), &signature.0)
            .map_err(|_| SigningError::BadSignature)
    }
}

/// A private key. Never printed.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// # Errors
    /// The bytes are not an Ed25519 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SigningError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Self).map_err(|_| SigningError::NotAKey)
    }

    /// A key from 32 random bytes.
    ///
    /// # Errors
    /// Never for 32 bytes; the library's own word is passed on.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, SigningError> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| SigningError::NotAKey)
    }

    pub fn verifying_key(&self) -> VerifyingKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        VerifyingKey(key)
    }

    pub fn sign(&self, purpose: Purpose, parts: &[&[u8]]) -> Signature {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.0.sign(&purpose.message(parts)).as_ref());
        Signature(bytes)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {:?})", self.verifying_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_purpose_and_message_alone() {
        let key = SigningKey::from_seed(&[9; 32]).expect("a seed");
        let signature = key.sign(Purpose::Up, &[b"a", b"bc"]);
        let public = key.verifying_key();
        assert_eq!(public.verify(Purpose::Up, &[b"abc"], &signature), Ok(()));
        assert!(public.verify(Purpose::Down, &[b"abc"], &signature).is_err());
        assert!(public.verify(Purpose::Up, &[b"abd"], &signature).is_err());
        let other = SigningKey::from_seed(&[8; 32]).expect("a seed").verifying_key();
        assert!(other.verify(Purpose::Up, &[b"abc"], &signature).is_err());
        assert_eq!(postcard::to_stdvec(&signature).expect("fits"), signature.0);
    }
}
