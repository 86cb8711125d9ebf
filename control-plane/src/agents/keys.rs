//! The root's trust list, and the key that signs documents and orders.
//!
//! Agents pin the **root** when they enrol, and take from then on every [trust list](TrustListV1) that it
//! has signed: which keys sign documents and orders, and which authorities' certificates they believe. So
//! every key but the root can be replaced without a visit to any site.
//!
//! - **Made** at the first start, when the folder has none: `root.key` and `root.pub`, `signing.key`, and
//!   `trust`, the first list. A root that was made elsewhere is a folder with its `root.pub` alone.
//! - **Offline**: a running server needs `root.pub`, `trust` and `signing.key`; `root.key` is for the
//!   ceremony in [`super::ceremony`] alone and belongs on a medium that is kept elsewhere (twice).

use super::files;
use crate::error::{Error, Result};
use hashinsight_protocol::enrolment::{from_hex, hex};
use hashinsight_protocol::envelope::{self, WireError};
use hashinsight_protocol::ids::{AgentId, Epoch};
use hashinsight_protocol::signing::{SigningKey, VerifyingKey};
use hashinsight_protocol::topics::Down;
use hashinsight_protocol::trust::{SignedTrustV1, TrustListV1};
use hashinsight_protocol::units::Millis;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use std::path::Path;

pub(super) const ROOT: &str = "root.key";
pub(super) const ROOT_PUBLIC: &str = "root.pub";
pub(super) const SIGNING: &str = "signing.key";
pub(super) const TRUST: &str = "trust";

/// The signing key and the root's word for it.
#[derive(Debug)]
pub struct Keys {
    root: VerifyingKey,
    signing: SigningKey,
    trust: SignedTrustV1,
    list: TrustListV1,
    /// Downward messages belong to no file; agents do not look at their epoch.
    epoch: Epoch,
}

impl Keys {
    /// Opens the keys of a folder, and makes what is missing; `authority` is the certificate of the one
    /// beside them.
    ///
    /// # Errors
    /// The files can't be read or written, do not belong together, or the root is needed and away.
    pub fn open(folder: &Path, authority: &[u8], now: Millis) -> Result<Self> {
        let root = root(folder)?;
        if files::read(folder, TRUST)?.is_none() {
            if files::read(folder, ROOT)?.is_none() {
                let text = "is needed to sign the first trust list, and is kept elsewhere: run \"hashinsight admin keys \
                            propose\" here, \"… sign\" beside the root, and \"… install\" here";
                return Err(files::failed(&folder.join(ROOT), text, None));
            }
            make_key(folder, SIGNING)?;
            let signing_keys = vec![read_key(folder, SIGNING)?.verifying_key()];
            let authorities = vec![authority.to_vec()];
            let list = TrustListV1 { version: 1, issued: now, signing_keys, authorities };
            let signed = SignedTrustV1::sign(&read_key(folder, ROOT)?, &list).map_err(Error::internal)?;
            files::create(folder, TRUST, signed.to_text().map_err(Error::internal)?.as_bytes())?;
        }
        let (trust, list) = read_trust(folder, &root)?;
        let signing = read_key(folder, SIGNING)?;
        let wrong = |what| files::failed(&folder.join(TRUST), what, None);
        if !list.signing_keys.contains(&signing.verifying_key()) {
            return Err(wrong("does not name the signing key beside it; restore both from the backup"));
        }
        if !list.authorities.iter().any(|der| der == authority) {
            return Err(wrong("does not name the authority beside it; restore both from the backup"));
        }
        Ok(Self { root, signing, trust, list, epoch: Epoch::from_random(crate::random::bytes()) })
    }

    /// What agents pin.
    pub fn root(&self) -> VerifyingKey {
        self.root
    }

    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// What agents are to trust, as the root has signed it.
    pub fn trust(&self) -> &SignedTrustV1 {
        &self.trust
    }

    pub fn list(&self) -> &TrustListV1 {
        &self.list
    }

    /// Seals a body for one agent.
    ///
    /// # Errors
    /// The result would be too large.
    pub fn seal(&self, agent: AgentId, kind: Down, seq: u64, body: &[u8]) -> Result<Vec<u8>, WireError> {
        envelope::seal_down(&self.signing, agent, self.epoch, kind, seq, body)
    }
}

/// The root of a folder; one is made where there is neither key nor public part.
pub(super) fn root(folder: &Path) -> Result<VerifyingKey> {
    if files::read(folder, ROOT_PUBLIC)?.is_none() {
        make_key(folder, ROOT)?;
        let public = read_key(folder, ROOT)?.verifying_key();
        files::create(folder, ROOT_PUBLIC, hex(&public.0).as_bytes())?;
    }
    let text = files::read_text(folder, ROOT_PUBLIC)?.unwrap_or_default();
    from_hex(text.trim()).map(VerifyingKey).ok_or_else(|| {
        files::failed(&folder.join(ROOT_PUBLIC), "is no public key; restore it from the backup", None)
    })
}

/// The trust list of a folder, which must be its root's.
pub(super) fn read_trust(folder: &Path, root: &VerifyingKey) -> Result<(SignedTrustV1, TrustListV1)> {
    let text = files::read_text(folder, TRUST)?.unwrap_or_default();
    let wrong = |what| files::failed(&folder.join(TRUST), what, None);
    let trust =
        SignedTrustV1::from_text(&text).map_err(|_| wrong("is no trust list; restore it from the backup"))?;
    let list = trust
        .open(root)
        .map_err(|_| wrong("is not signed by the root beside it; restore both from the backup"))?;
    Ok((trust, list))
}

pub(super) fn make_key(folder: &Path, name: &str) -> Result<()> {
    if files::read(folder, name)?.is_some() {
        return Ok(());
    }
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| Error::internal("the operating system gives no random bytes"))?;
    files::create(folder, name, key.as_ref())
}

pub(super) fn read_key(folder: &Path, name: &str) -> Result<SigningKey> {
    let der = files::read(folder, name)?.unwrap_or_default();
    SigningKey::from_pkcs8(&der)
        .map_err(|_| files::failed(&folder.join(name), "is no signing key; restore it from the backup", None))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_790_000_000_000);
    const AUTHORITY: &[u8] = b"an authority";

    #[test]
    fn the_root_may_be_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let first = Keys::open(folder.path(), AUTHORITY, NOW).unwrap();
        std::fs::remove_file(folder.path().join(ROOT)).unwrap();
        let again = Keys::open(folder.path(), AUTHORITY, NOW).unwrap();
        assert_eq!(first.trust(), again.trust());
        assert!(Keys::open(folder.path(), b"another", NOW).is_err(), "an authority that is not listed");
        std::fs::remove_file(folder.path().join(TRUST)).unwrap();
        let error = Keys::open(folder.path(), AUTHORITY, NOW).unwrap_err().to_string();
        assert!(error.contains("kept elsewhere"), "{error}");
    }

    #[test]
    fn keys_that_do_not_belong_together_are_refused() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Keys::open(one.path(), AUTHORITY, NOW).unwrap();
        Keys::open(two.path(), AUTHORITY, NOW).unwrap();
        for file in [SIGNING, ROOT_PUBLIC, TRUST] {
            let ours = std::fs::read(one.path().join(file)).unwrap();
            std::fs::copy(two.path().join(file), one.path().join(file)).unwrap();
            assert!(Keys::open(one.path(), AUTHORITY, NOW).is_err(), "{file}");
            std::fs::write(one.path().join(file), ours).unwrap();
        }
        assert!(Keys::open(one.path(), AUTHORITY, NOW).is_ok());
    }
}
