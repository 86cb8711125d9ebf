//! Who this agent is: the folder `identity` in the data folder, written once by enrolment.
//!
//! `agent.json` (ids, broker, pinned keys), `tls.key` and `tls.crt` (mutual TLS), `ca.pem` (authorities of
//! the broker), `batch.key` (signs what is sent). The folder is made whole under another name and renamed,
//! so it's there completely or not at all; folder 0700, files 0600.

use crate::store::Sealer;
use hashinsight_protocol::enrolment::{CertifiedKey, from_hex, hex};
use hashinsight_protocol::ids::{AgentId, SiteId};
use hashinsight_protocol::signing::{Purpose, SigningKey, VerifyingKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

const FOLDER: &str = "identity";

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("this gateway is not enrolled (no {0}); run: hashinsight-agent enroll --url … --token …")]
    NotEnrolled(PathBuf),
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} is damaged ({reason}); enrol this gateway again")]
    Damaged { path: PathBuf, reason: String },
}

/// `agent.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub agent: AgentId,
    pub site: SiteId,
    pub site_name: String,
    /// Host and port.
    pub broker: String,
    /// Name to expect in the broker's certificate.
    pub broker_name: String,
    /// The pinned root, 64 hex digits.
    pub root_key: String,
    pub signing_keys: Vec<CertifiedKey>,
}

/// An enrolled agent.
pub struct Identity {
    pub settings: Settings,
    /// Keys that sign documents and orders, each certified by the pinned root.
    pub keys: Vec<VerifyingKey>,
    pub certificate: Vec<CertificateDer<'static>>,
    pub authorities: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    batch_key: Arc<SigningKey>,
}

/// What enrolment writes.
pub struct NewIdentity<'a> {
    pub settings: &'a Settings,
    pub tls_key_pem: &'a str,
    pub certificate_pem: &'a str,
    pub ca_pem: &'a str,
    pub batch_seed: &'a [u8; 32],
}

/// Where the identity of a data folder lies.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join(FOLDER)
}

impl Identity {
    /// Reads the identity of a data folder.
    ///
    /// # Errors
    /// Not enrolled, or a file is unreadable or damaged.
    pub fn load(data_dir: &Path) -> Result<Self, IdentityError> {
        let folder = folder(data_dir);
        match folder.try_exists() {
            Ok(true) => Self::load_from(&folder),
            Ok(false) => Err(IdentityError::NotEnrolled(folder)),
            Err(source) => Err(IdentityError::Io { path: folder, source }),
        }
    }

    fn load_from(folder: &Path) -> Result<Self, IdentityError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| IdentityError::Io { path, source })
        };
        let damaged = |name: &str, reason: &dyn std::fmt::Display| IdentityError::Damaged {
            path: folder.join(name),
            reason: reason.to_string(),
        };
        let settings: Settings =
            serde_json::from_slice(&read("agent.json")?).map_err(|e| damaged("agent.json", &e))?;
        let keys = certified(&settings.root_key, &settings.signing_keys)
            .map_err(|reason| damaged("agent.json", &reason))?;
        let certificates = |name: &str| {
            let bytes = read(name)?;
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
            all.ok().filter(|all| !all.is_empty()).ok_or_else(|| damaged(name, &"no certificate in it"))
        };
        let key = PrivateKeyDer::from_pem_slice(&read("tls.key")?).map_err(|e| damaged("tls.key", &e))?;
        let seed = String::from_utf8(read("batch.key")?).ok().and_then(|text| from_hex(text.trim()));
        let batch_key = seed
            .and_then(|seed| SigningKey::from_seed(&seed).ok())
            .ok_or_else(|| damaged("batch.key", &"no key in it"))?;
        Ok(Self {
            keys,
            certificate: certificates("tls.crt")?,
            authorities: certificates("ca.pem")?,
            settings,
            key,
            batch_key: Arc::new(batch_key),
        })
    }

    pub fn agent(&self) -> AgentId {
        self.settings.agent
    }

    /// Seals what this agent sends.
    pub fn sealer(&self) -> Sealer {
        Sealer::new(self.settings.agent, self.batch_key.clone())
    }

    /// The private key of [`Self::certificate`].
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

/// The keys that the root has certified; all others are ignored.
///
/// # Errors
/// The root is not a key, or has certified none of them.
pub fn certified(root: &str, keys: &[CertifiedKey]) -> Result<Vec<VerifyingKey>, &'static str> {
    let root = VerifyingKey(from_hex(root).ok_or("the root key is not 64 hex digits")?);
    let is_certified =
        |key: &&CertifiedKey| root.verify(Purpose::Certify, &[&key.key.0], &key.signature).is_ok();
    let keys: Vec<_> = keys.iter().filter(is_certified).map(|key| key.key).collect();
    if keys.is_empty() { Err("the root has certified none of the signing keys") } else { Ok(keys) }
}

/// Writes an identity whole, or nothing.
///
/// # Errors
/// The data folder can't be written to, or what was to be written can't be read back.
pub fn write(data_dir: &Path, new: &NewIdentity<'_>) -> Result<(), IdentityError> {
    let made = !data_dir.exists();
    let partial = data_dir.join(format!("{FOLDER}.new-{}", std::process::id()));
    let outcome = write_folder(data_dir, &partial, new);
    if outcome.is_err() {
        let _ = std::fs::remove_dir_all(&partial);
        if made {
            let _ = std::fs::remove_dir(data_dir);
        }
    }
    outcome
}

fn write_folder(data_dir: &Path, partial: &Path, new: &NewIdentity<'_>) -> Result<(), IdentityError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| IdentityError::Io { path, source }
    };
    private_folder(data_dir).map_err(io(data_dir))?;
    DirBuilder::new().mode(0o700).create(partial).map_err(io(partial))?;
    own_like_folder(partial).map_err(io(partial))?;
    let settings = serde_json::to_string_pretty(new.settings)
        .map_err(|e| IdentityError::Damaged { path: partial.join("agent.json"), reason: e.to_string() })?;
    let batch_key = hex(new.batch_seed);
    for (name, text) in [
        ("agent.json", settings.as_str()),
        ("tls.key", new.tls_key_pem),
        ("tls.crt", new.certificate_pem),
        ("ca.pem", new.ca_pem),
        ("batch.key", &batch_key),
    ] {
        let path = partial.join(name);
        let mut options = OpenOptions::new();
        let written = options.write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
            own_like_folder(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(io(&path))?;
    }
    Identity::load_from(partial)?;
    let target = folder(data_dir);
    let sync = |path: &Path| File::open(path).and_then(|folder| folder.sync_all()).map_err(io(path));
    sync(partial)?;
    // Refused by the system where the target exists and isn't empty.
    std::fs::rename(partial, &target).map_err(io(&target))?;
    sync(data_dir)
}

/// Gives a file that root has made to the owner of the folder it lies in: the agent runs under a user of its
/// own, and a technician's command as root.
pub(crate) fn own_like_folder(path: &Path) -> std::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(folder) = path.parent() else { return Ok(()) };
    let owner = std::fs::metadata(folder)?;
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))
}

/// Makes a folder for its owner alone, where it's missing.
///
/// # Errors
/// It can't be made.
pub fn private_folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::signing::Signature;
    use std::os::unix::fs::PermissionsExt;

    fn settings(root: &SigningKey, keys: &[VerifyingKey]) -> Settings {
        let certify = |key: &VerifyingKey| CertifiedKey {
            key: *key,
            signature: root.sign(Purpose::Certify, &[&key.0]),
        };
        Settings {
            agent: AgentId::from_random([1; 16]),
            site: SiteId::from_random([2; 16]),
            site_name: "North".to_owned(),
            broker: "127.0.0.1:8883".to_owned(),
            broker_name: "hashinsight".to_owned(),
            root_key: hex(&root.verifying_key().0),
            signing_keys: keys.iter().map(certify).collect(),
        }
    }

    #[test]
    fn an_identity_is_written_whole_and_private() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let missing = Identity::load(&data).err().expect("not enrolled").to_string();
        assert!(missing.contains("not enrolled"), "{missing}");
        let root = SigningKey::from_seed(&[1; 32]).expect("a seed");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::new(vec!["x".to_owned()])
            .and_then(|p| p.self_signed(&key))
            .expect("a certificate");
        let settings = settings(&root, &[root.verifying_key()]);
        let new = NewIdentity {
            settings: &settings,
            tls_key_pem: &key.serialize_pem(),
            certificate_pem: &certificate.pem(),
            ca_pem: &certificate.pem(),
            batch_seed: &[9; 32],
        };
        write(&data, &new).expect("written");
        let read = Identity::load(&data).expect("readable");
        assert_eq!((read.agent(), read.keys), (settings.agent, vec![root.verifying_key()]));
        for entry in std::fs::read_dir(folder(&data)).expect("a folder") {
            let mode = entry.and_then(|e| e.metadata()).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(std::fs::metadata(&data).expect("a folder").permissions().mode() & 0o777, 0o700);
        assert!(write(&data, &new).is_err(), "an identity is not overwritten");
        assert_eq!(std::fs::read_dir(&data).expect("a folder").count(), 1);
    }

    #[test]
    fn what_cannot_be_read_back_is_not_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let root = SigningKey::from_seed(&[1; 32]).expect("a seed");
        let settings = settings(&root, &[root.verifying_key()]);
        let new = NewIdentity {
            settings: &settings,
            tls_key_pem: "no key",
            certificate_pem: "no certificate",
            ca_pem: "",
            batch_seed: &[9; 32],
        };
        assert!(write(&data, &new).is_err());
        assert!(!data.exists());
    }

    #[test]
    fn only_certified_keys_count() {
        let root = SigningKey::from_seed(&[1; 32]).expect("a seed");
        let [a, b] = [2, 3].map(|n| SigningKey::from_seed(&[n; 32]).expect("a seed").verifying_key());
        let mut settings = settings(&root, &[a, b]);
        settings.signing_keys[1].signature = Signature([0; 64]);
        assert_eq!(certified(&settings.root_key, &settings.signing_keys), Ok(vec![a]));
        assert!(certified(&settings.root_key, &settings.signing_keys[1..]).is_err());
        assert!(certified("", &settings.signing_keys).is_err());
    }
}
