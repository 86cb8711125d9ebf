//! Who this agent is: the folder `identity` in the data folder, made by enrolment.
//!
//! `agent.json` (ids, addresses, the pinned root), `tls.pem` (key and certificate of mutual TLS, in one file
//! so that they always fit), `trust` (whom to believe, signed by the root), `batch.key` (signs what is
//! sent). The folder is made whole under another name and renamed, so it's there completely or not at
//! all; folder 0700, files 0600. Renewal replaces single files, each at once and whole.

use crate::store::Sealer;
use crate::trust::Trust;
use hashinsight_protocol::enrolment::{RenewResponse, from_hex, hex};
use hashinsight_protocol::ids::{AgentId, SiteId};
use hashinsight_protocol::signing::{SigningKey, VerifyingKey};
use hashinsight_protocol::trust::{SignedTrustV1, TrustListV1};
use hashinsight_protocol::units::Millis;
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
    /// Host and port of enrolment and renewal.
    pub control: String,
    /// The pinned root, 64 hex digits.
    pub root_key: String,
}

/// An enrolled agent.
pub struct Identity {
    pub settings: Settings,
    pub certificate: Vec<CertificateDer<'static>>,
    /// The same as text.
    pub certificate_pem: String,
    /// From when to when the certificate is good.
    pub valid: (Millis, Millis),
    root: VerifyingKey,
    trust: TrustListV1,
    key: PrivateKeyDer<'static>,
    batch_key: Arc<SigningKey>,
}

/// What enrolment writes.
pub struct NewIdentity<'a> {
    pub settings: &'a Settings,
    pub tls_key_pem: &'a str,
    pub certificate_pem: &'a str,
    /// The trust list as text.
    pub trust: &'a str,
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
        let text = |name: &str| String::from_utf8(read(name)?).map_err(|e| damaged(name, &e));
        let (root, trust) = trusted(&settings.root_key, &text("trust")?).map_err(|e| damaged("trust", &e))?;
        let tls = text("tls.pem")?;
        let key = PrivateKeyDer::from_pem_slice(tls.as_bytes()).map_err(|e| damaged("tls.pem", &e))?;
        let begin = tls.find("-----BEGIN CERTIFICATE").unwrap_or(tls.len());
        let certificate_pem = tls[begin..].to_owned();
        let certificate: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect();
        let certificate = certificate.unwrap_or_default();
        let valid = certificate.first().and_then(validity);
        let valid = valid.ok_or_else(|| damaged("tls.pem", &"no certificate in it"))?;
        let seed = from_hex(text("batch.key")?.trim());
        let batch_key = seed
            .and_then(|seed| SigningKey::from_seed(&seed).ok())
            .ok_or_else(|| damaged("batch.key", &"no key in it"))?;
        let batch_key = Arc::new(batch_key);
        Ok(Self { settings, certificate, certificate_pem, valid, root, trust, key, batch_key })
    }

    /// Whom this agent trusts; what it learns is kept in the data folder.
    pub fn trust(&self, data_dir: &Path) -> Trust {
        Trust::new(self.root, self.trust.clone(), Some(data_dir))
    }

    /// Host and port of the control plane's enrolment.
    pub fn control(&self) -> Option<(String, u16)> {
        let (host, port) = self.settings.control.rsplit_once(':')?;
        Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
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

/// The root, and the list that it has signed.
///
/// # Errors
/// The root is no key, or the list is not its own or names nobody.
pub fn trusted(root: &str, trust: &str) -> Result<(VerifyingKey, TrustListV1), String> {
    let root = VerifyingKey(from_hex(root).ok_or("the root key is not 64 hex digits")?);
    let list = SignedTrustV1::from_text(trust).and_then(|signed| signed.open(&root));
    let list = list.map_err(|e| format!("the trust list: {e}"))?;
    if list.signing_keys.is_empty() || list.authorities.is_empty() {
        return Err("the trust list names no key or no authority".to_owned());
    }
    Ok((root, list))
}

/// Checks where the control plane says that the broker is.
///
/// # Errors
/// It can't be an address, or not a name.
pub fn check_address(broker: &str, name: &str) -> Result<(), &'static str> {
    if broker.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err("the broker's address has no port");
    }
    rustls::pki_types::ServerName::try_from(name).map_err(|_| "the broker's name is not one")?;
    Ok(())
}

fn validity(certificate: &CertificateDer<'_>) -> Option<(Millis, Millis)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let at = |time: x509_parser::time::ASN1Time| Millis(time.timestamp().saturating_mul(1000));
    Some((at(parsed.validity().not_before), at(parsed.validity().not_after)))
}

/// Puts a trust list in place of the one held.
///
/// # Errors
/// The folder can't be written to.
pub fn write_trust(data_dir: &Path, signed: &SignedTrustV1) -> Result<(), IdentityError> {
    let path = folder(data_dir).join("trust");
    let text = signed.to_text().map_err(|e| IdentityError::Damaged { path, reason: e.to_string() })?;
    replace(data_dir, "trust", &text)
}

/// Stores what a renewal brought: key and certificate first, at once; then where the broker is.
///
/// # Errors
/// The folder can't be written to, or what was to be written can't be used.
pub fn write_renewed(data_dir: &Path, key_pem: &str, answer: &RenewResponse) -> Result<(), IdentityError> {
    let damaged = |reason: String| IdentityError::Damaged { path: folder(data_dir).join("tls.pem"), reason };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(answer.certificate_pem.as_bytes()).collect();
    let chain = chain.map_err(|e| damaged(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| damaged(e.to_string()))?;
    let provider = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(chain, key, &provider)
        .map_err(|e| damaged(format!("the new certificate does not fit the new key ({e})")))?;
    replace(data_dir, "tls.pem", &format!("{key_pem}{}", answer.certificate_pem))?;
    let mut settings = Identity::load(data_dir)?.settings;
    if (&settings.broker, &settings.broker_name) == (&answer.broker, &answer.broker_name) {
        return Ok(());
    }
    (settings.broker, settings.broker_name) = (answer.broker.clone(), answer.broker_name.clone());
    let text = serde_json::to_string_pretty(&settings).map_err(|e| damaged(e.to_string()))?;
    replace(data_dir, "agent.json", &text)
}

/// Replaces a file of the identity: whole, on the disk.
fn replace(data_dir: &Path, name: &str, text: &str) -> Result<(), IdentityError> {
    let folder = folder(data_dir);
    let (path, partial) = (folder.join(name), folder.join(format!(".{name}.new")));
    let write = || {
        // One of an interrupted try.
        match std::fs::remove_file(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write_private(&partial, text)?;
        std::fs::rename(&partial, &path)?;
        File::open(&folder)?.sync_all()
    };
    write().map_err(|source| IdentityError::Io { path: path.clone(), source })
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    own_like_folder(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
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
    let tls = format!("{}{}", new.tls_key_pem, new.certificate_pem);
    for (name, text) in [
        ("agent.json", &settings),
        ("tls.pem", &tls),
        ("trust", &new.trust.to_owned()),
        ("batch.key", &batch_key),
    ] {
        let path = partial.join(name);
        write_private(&path, text).map_err(io(&path))?;
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
    use std::os::unix::fs::PermissionsExt;

    fn root() -> SigningKey {
        SigningKey::from_seed(&[1; 32]).expect("a seed")
    }

    fn settings() -> Settings {
        Settings {
            agent: AgentId::from_random([1; 16]),
            site: SiteId::from_random([2; 16]),
            site_name: "North".to_owned(),
            broker: "127.0.0.1:8883".to_owned(),
            broker_name: "hashinsight".to_owned(),
            control: "[::1]:8884".to_owned(),
            root_key: hex(&root().verifying_key().0),
        }
    }

    fn trust(version: u64, keys: u8) -> SignedTrustV1 {
        let key = |n: u8| SigningKey::from_seed(&[n + 1; 32]).expect("a seed").verifying_key();
        let signing_keys = (0..keys).map(key).collect();
        let list = TrustListV1 { version, issued: Millis(1), signing_keys, authorities: vec![vec![1, 2]] };
        SignedTrustV1::sign(&root(), &list).expect("small")
    }

    /// Key and certificate.
    fn tls() -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate =
            rcgen::CertificateParams::new(vec!["x".to_owned()]).and_then(|p| p.self_signed(&key));
        (key.serialize_pem(), certificate.expect("a certificate").pem())
    }

    #[test]
    fn an_identity_is_written_whole_and_private() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let missing = Identity::load(&data).err().expect("not enrolled").to_string();
        assert!(missing.contains("not enrolled"), "{missing}");
        let (settings, (tls_key_pem, certificate_pem)) = (settings(), tls());
        let trusted = trust(1, 1).to_text().expect("small");
        let new = NewIdentity {
            settings: &settings,
            tls_key_pem: &tls_key_pem,
            certificate_pem: &certificate_pem,
            trust: &trusted,
            batch_seed: &[9; 32],
        };
        write(&data, &new).expect("written");
        let read = Identity::load(&data).expect("readable");
        assert_eq!((read.agent(), read.trust(&data).keys()), (settings.agent, vec![root().verifying_key()]));
        assert_eq!(read.control(), Some(("::1".to_owned(), 8884)));
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
        let new = NewIdentity {
            settings: &settings(),
            tls_key_pem: "no key",
            certificate_pem: "no certificate",
            trust: &trust(1, 1).to_text().expect("small"),
            batch_seed: &[9; 32],
        };
        assert!(write(&data, &new).is_err());
        assert!(!data.exists());
    }

    #[test]
    fn renewal_replaces_what_is_new_and_keeps_the_rest() {
        let dir = tempfile::tempdir().expect("a folder");
        let (settings, (tls_key_pem, certificate_pem)) = (settings(), tls());
        let trusted = trust(1, 1).to_text().expect("small");
        let new = NewIdentity {
            settings: &settings,
            tls_key_pem: &tls_key_pem,
            certificate_pem: &certificate_pem,
            trust: &trusted,
            batch_seed: &[9; 32],
        };
        write(dir.path(), &new).expect("written");
        let before = Identity::load(dir.path()).expect("readable");
        assert!(before.trust(dir.path()).learn(&trust(2, 3)).expect("newer"));
        let (next_key, next) = tls();
        let answer = |certificate_pem: &str| RenewResponse {
            certificate_pem: certificate_pem.to_owned(),
            trust: String::new(),
            broker: "other:1".to_owned(),
            broker_name: "other".to_owned(),
        };
        assert!(write_renewed(dir.path(), &next_key, &answer(&certificate_pem)).is_err(), "of another key");
        assert!(write_renewed(dir.path(), &next_key, &answer("")).is_err(), "nothing");
        assert_eq!(Identity::load(dir.path()).expect("readable").certificate, before.certificate);
        write_renewed(dir.path(), &next_key, &answer(&next)).expect("written");
        let after = Identity::load(dir.path()).expect("readable");
        assert_eq!(
            (after.certificate_pem.as_str(), after.settings.broker.as_str()),
            (next.as_str(), "other:1")
        );
        assert_eq!((after.trust.version, after.trust.signing_keys.len()), (2, 3));
        assert_eq!(
            std::fs::read_dir(folder(dir.path())).expect("a folder").count(),
            4,
            "nothing is left over"
        );
    }

    #[test]
    fn only_the_roots_list_counts() {
        let text = trust(1, 1).to_text().expect("small");
        let other = SigningKey::from_seed(&[9; 32]).expect("a seed").verifying_key();
        assert!(trusted(&hex(&root().verifying_key().0), &text).is_ok());
        assert!(trusted(&hex(&other.0), &text).is_err());
        assert!(trusted("", &text).is_err());
        assert!(trusted(&hex(&root().verifying_key().0), &trust(1, 0).to_text().expect("small")).is_err());
    }
}
