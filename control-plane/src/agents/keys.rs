//! The keys that sign documents and orders.
//!
//! Agents pin the **root** when they enrol and take every signing key that it has certified; so a
//! signing key can be replaced without a visit to any site.
//!
//! The root is made at the first start and needed again only to certify another signing key. To take
//! it off the machine: stop the server, move `root.key` to a medium that is kept elsewhere (twice), and
//! start again; `root.pub`, `signing.key` and `signing.json` are all that a running server needs. To
//! certify a new signing key, bring `root.key` back, remove `signing.key` and `signing.json`, start the
//! server once, and take `root.key` away again.

use super::files;
use crate::error::{Error, Result};
use hashinsight_protocol::enrolment::{CertifiedKey, from_hex, hex};
use hashinsight_protocol::envelope::{self, WireError};
use hashinsight_protocol::ids::{AgentId, Epoch};
use hashinsight_protocol::signing::{Purpose, SigningKey, VerifyingKey};
use hashinsight_protocol::topics::Down;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use std::path::Path;

const ROOT: &str = "root.key";
const ROOT_PUBLIC: &str = "root.pub";
const SIGNING: &str = "signing.key";
const CERTIFIED: &str = "signing.json";

/// The signing key and the root's word for it.
#[derive(Debug)]
pub struct Keys {
    root: VerifyingKey,
    signing: SigningKey,
    certified: CertifiedKey,
    /// Downward messages belong to no file; agents do not look at their epoch.
    epoch: Epoch,
}

impl Keys {
    /// Opens the keys of a folder, and makes what is missing.
    ///
    /// # Errors
    /// The files can't be read or written, do not belong together, or the root is needed and away.
    pub fn open(folder: &Path) -> Result<Self> {
        let root = root(folder)?;
        make_key(folder, SIGNING)?;
        let signing = read_key(folder, SIGNING)?;
        if files::read(folder, CERTIFIED)?.is_none() {
            let Some(_) = files::read(folder, ROOT)? else {
                let text = "is needed to certify a new signing key; bring it back for one start";
                return Err(files::failed(&folder.join(ROOT), text, None));
            };
            let key = signing.verifying_key();
            let signature = read_key(folder, ROOT)?.sign(Purpose::Certify, &[&key.0]);
            let json = serde_json::to_vec(&CertifiedKey { key, signature })?;
            files::create(folder, CERTIFIED, &json)?;
        }
        let wrong = |what| files::failed(&folder.join(CERTIFIED), what, None);
        let text = files::read_text(folder, CERTIFIED)?.unwrap_or_default();
        let certified: CertifiedKey = serde_json::from_str(&text)
            .map_err(|_| wrong("is no certified key; restore it from the backup"))?;
        if certified.key != signing.verifying_key() {
            return Err(wrong("does not belong to the signing key beside it; restore both from the backup"));
        }
        root.verify(Purpose::Certify, &[&certified.key.0], &certified.signature)
            .map_err(|_| wrong("is not certified by the root beside it; restore both from the backup"))?;
        Ok(Self { root, signing, certified, epoch: Epoch::from_random(crate::random::bytes()) })
    }

    /// What agents pin.
    pub fn root(&self) -> VerifyingKey {
        self.root
    }

    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// All keys that agents are to take, the present one first.
    pub fn certified(&self) -> Vec<CertifiedKey> {
        vec![self.certified]
    }

    /// Seals a body for one agent.
    ///
    /// # Errors
    /// The result would be too large.
    pub fn seal(&self, agent: AgentId, kind: Down, seq: u64, body: &[u8]) -> Result<Vec<u8>, WireError> {
        envelope::seal_down(&self.signing, agent, self.epoch, kind, seq, body)
    }
}

fn root(folder: &Path) -> Result<VerifyingKey> {
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

fn make_key(folder: &Path, name: &str) -> Result<()> {
    if files::read(folder, name)?.is_some() {
        return Ok(());
    }
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| Error::internal("the operating system gives no random bytes"))?;
    files::create(folder, name, key.as_ref())
}

fn read_key(folder: &Path, name: &str) -> Result<SigningKey> {
    let der = files::read(folder, name)?.unwrap_or_default();
    SigningKey::from_pkcs8(&der)
        .map_err(|_| files::failed(&folder.join(name), "is no signing key; restore it from the backup", None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_may_be_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let first = Keys::open(folder.path()).unwrap();
        let root_file = folder.path().join(ROOT);
        let away = std::fs::read(&root_file).unwrap();
        std::fs::remove_file(&root_file).unwrap();
        let again = Keys::open(folder.path()).unwrap();
        assert_eq!(first.certified(), again.certified());
        // A new signing key needs it for one start.
        std::fs::remove_file(folder.path().join(SIGNING)).unwrap();
        std::fs::remove_file(folder.path().join(CERTIFIED)).unwrap();
        let error = Keys::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("bring it back"), "{error}");
        std::fs::write(&root_file, away).unwrap();
        let renewed = Keys::open(folder.path()).unwrap();
        assert_eq!(renewed.root(), first.root());
        assert_ne!(renewed.certified(), first.certified());
    }

    #[test]
    fn keys_that_do_not_belong_together_are_refused() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Keys::open(one.path()).unwrap();
        Keys::open(two.path()).unwrap();
        for file in [SIGNING, ROOT_PUBLIC] {
            let ours = std::fs::read(one.path().join(file)).unwrap();
            std::fs::copy(two.path().join(file), one.path().join(file)).unwrap();
            assert!(Keys::open(one.path()).is_err(), "{file}");
            std::fs::write(one.path().join(file), ours).unwrap();
        }
        assert!(Keys::open(one.path()).is_ok());
    }
}
