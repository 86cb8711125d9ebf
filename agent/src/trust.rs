//! Whom this agent trusts: the list that its pinned root has signed, in use and on disk.
//!
//! Every part that verifies asks here each time, so that a new list counts at once. A list is on disk
//! before it counts; an older one, or one of another root, changes nothing.

use crate::identity_files::{self, IdentityError};
use hashinsight_protocol::signing::VerifyingKey;
use hashinsight_protocol::trust::{SignedTrustV1, TrustError, TrustListV1, newer};
use rustls::pki_types::CertificateDer;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use thiserror::Error;

/// The list in use; clones share it.
#[derive(Clone, Debug)]
pub struct Trust(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: VerifyingKey,
    /// Of the data folder; without one nothing is kept.
    data_dir: Option<PathBuf>,
    list: RwLock<TrustListV1>,
}

/// Why a list is not taken.
#[derive(Debug, Error)]
pub enum NotTaken {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Files(#[from] IdentityError),
}

impl Trust {
    /// A list that was verified when it was read.
    pub fn new(root: VerifyingKey, list: TrustListV1, data_dir: Option<&Path>) -> Self {
        Self(Arc::new(Inner { root, data_dir: data_dir.map(Path::to_owned), list: RwLock::new(list) }))
    }

    /// Keys that sign documents and orders.
    pub fn keys(&self) -> Vec<VerifyingKey> {
        self.read().signing_keys.clone()
    }

    /// Authorities whose certificates the broker and the control plane may show.
    pub fn authorities(&self) -> Vec<CertificateDer<'static>> {
        self.read().authorities.iter().map(|der| der.clone().into()).collect()
    }

    pub fn version(&self) -> u64 {
        self.read().version
    }

    /// The list as it would stand with `signed`, which is not taken yet.
    ///
    /// # Errors
    /// It is not the root's, or older.
    pub fn with(&self, signed: &SignedTrustV1) -> Result<TrustListV1, TrustError> {
        let held = self.read().clone();
        Ok(newer(&self.0.root, &held, signed)?.unwrap_or(held))
    }

    /// Takes a newer list; false when it is the one held.
    ///
    /// # Errors
    /// It is not the root's or older, or can't be stored.
    pub fn learn(&self, signed: &SignedTrustV1) -> Result<bool, NotTaken> {
        let mut list = self.0.list.write().unwrap_or_else(PoisonError::into_inner);
        let Some(next) = newer(&self.0.root, &list, signed)? else { return Ok(false) };
        if let Some(data_dir) = &self.0.data_dir {
            identity_files::write_trust(data_dir, signed)?;
        }
        *list = next;
        Ok(true)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, TrustListV1> {
        // A list is put in place whole.
        self.0.list.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::signing::SigningKey;
    use hashinsight_protocol::units::Millis;

    #[test]
    fn only_the_roots_newer_lists_are_taken() {
        let key = |n: u8| SigningKey::from_seed(&[n; 32]).expect("a seed");
        let list = |version, of: u8| TrustListV1 {
            version,
            issued: Millis(0),
            signing_keys: vec![key(of).verifying_key()],
            authorities: vec![vec![1]],
        };
        let signed = |by: u8, list| SignedTrustV1::sign(&key(by), &list).expect("small");
        let trust = Trust::new(key(1).verifying_key(), list(2, 5), None);
        assert!(trust.learn(&signed(9, list(3, 6))).is_err());
        assert!(trust.learn(&signed(1, list(1, 6))).is_err());
        assert!(!trust.learn(&signed(1, list(2, 5))).expect("the same"));
        assert_eq!(trust.keys(), [key(5).verifying_key()]);
        assert!(trust.learn(&signed(1, list(3, 6))).expect("newer"));
        assert_eq!((trust.keys(), trust.version()), (vec![key(6).verifying_key()], 3));
    }
}
