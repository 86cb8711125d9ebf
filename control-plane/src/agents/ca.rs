//! The certificate authority of agents and of the ports they talk to.
//!
//! - **Made** at the first start in the data folder: `ca.key` (for its owner's eyes) and `ca.pem`.
//!   ECDSA P-256, which every TLS library and every gateway's processor can do.
//! - **Signs** one certificate for the two ports (`server.key`, `server.pem`: the public host name,
//!   localhost and 127.0.0.1; renewed at a start that finds it near its end or without the host name),
//!   and one for each agent, whose common name and organisation are the agent's id.
//! - **Of a request** for an agent's certificate the key alone is used, after the proof that whoever asks
//!   holds it; subject, names and extensions are ours.
//! - Agents believe it because the root's trust list names it ([`super::keys`]); the enrolment token names
//!   it by its SHA-256. It is replaced by [`super::ceremony`].
//! - **Revocation**: the front door asks the database. For brokers that can't, [`Authority::crl`] lists the
//!   serial numbers of what was revoked.

use super::files;
use crate::error::{Error, Result};
use hashinsight_protocol::enrolment::{from_hex_bytes, hex};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::limits;
use hashinsight_protocol::units::{DurationMs, Millis};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKey,
    PublicKeyData as _, RevokedCertParams, SerialNumber,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::Path;
use std::time::Duration;

/// A second as certificates have it; a macro, since the type is of a crate that is not ours to name.
macro_rules! moment {
    ($second:expr) => {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs($second)
    };
}

const KEY: &str = "ca.key";
const CERTIFICATE: &str = "ca.pem";
const NEXT_KEY: &str = "ca.next.key";
const NEXT_CERTIFICATE: &str = "ca.next.pem";
const SERVER_KEY: &str = "server.key";
const SERVER_CERTIFICATE: &str = "server.pem";

const DAY: u64 = 24 * 60;
const AUTHORITY_LIVES: DurationMs = DurationMs::from_minutes(20 * 365 * DAY);
const SERVER_LIVES: DurationMs = DurationMs::from_minutes(397 * DAY);
const AGENT_LIVES: DurationMs = DurationMs::from_minutes(365 * DAY);
/// Brokers look at it when the connection begins.
const CLIENT_LIVES: DurationMs = DurationMs::from_minutes(DAY);
/// A server certificate with less than this left is renewed at the next start.
const RENEW_BELOW: DurationMs = DurationMs::from_minutes(90 * DAY);
/// Certificates hold from a little before they are made: clocks at sites run behind.
const BACKDATED: DurationMs = DurationMs::from_minutes(DAY);
/// A revocation list is made daily; a broker that gets none for so long takes nobody in.
const CRL_LIVES: DurationMs = DurationMs::from_minutes(30 * DAY);

/// The authority, with its key.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    fingerprint: [u8; 32],
}

/// What a TLS server shows.
#[derive(Debug)]
pub struct ServerIdentity {
    /// The server's certificate, then the authority's: an agent that enrols knows the latter by its
    /// fingerprint alone.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// When it should be made anew.
    pub renew_at: Millis,
}

/// A certificate for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub pem: String,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// Hex.
    pub serial: String,
    pub not_after: Millis,
}

/// The key of a certificate request whose sender proved to hold it.
#[derive(Debug)]
pub struct Request(PublicKey);

impl Request {
    /// # Errors
    /// It is no request, its signature is not its key's, or the key is not ECDSA P-256.
    pub fn from_pem(pem: &str) -> Result<Self> {
        let refused = || {
            Error::invalid(
                "the certificate request is not one of an ECDSA P-256 key, signed by that key; make a new one",
            )
        };
        if pem.len() > limits::ENROLMENT_BYTES {
            return Err(refused());
        }
        let request = CertificateSigningRequestParams::from_pem(pem).map_err(|e| refused().because(e))?;
        // The algorithm is the signature's; an uncompressed P-256 point is 65 bytes that begin with 4.
        let point = request.public_key.der_bytes();
        let is_p256 = *request.public_key.algorithm() == rcgen::PKCS_ECDSA_P256_SHA256;
        if !is_p256 || point.len() != 65 || point[0] != 4 {
            return Err(refused());
        }
        Ok(Self(request.public_key))
    }
}

impl Authority {
    /// Opens the authority of a folder, and makes it when there is none. The server and the command
    /// line may do so at the same time.
    ///
    /// # Errors
    /// The files can't be read or written, or do not belong together.
    pub fn open(folder: &Path, now: Millis) -> Result<Self> {
        // A takeover that was interrupted between its two files.
        if files::read(folder, NEXT_KEY)?.is_some()
            && files::read(folder, NEXT_CERTIFICATE)?.is_none()
            && Self::read_files(folder, NEXT_KEY, CERTIFICATE).is_ok()
        {
            activate(folder)?;
        }
        Self::make(folder, KEY, CERTIFICATE, now)?;
        Self::read(folder)
    }

    /// Makes the next authority of a folder, unless there is one.
    ///
    /// # Errors
    /// The files can't be written.
    pub fn make_next(folder: &Path, now: Millis) -> Result<()> {
        Self::make(folder, NEXT_KEY, NEXT_CERTIFICATE, now)
    }

    /// The next authority of a folder, where one was made.
    ///
    /// # Errors
    /// The files can't be read, or do not belong together.
    pub fn next(folder: &Path) -> Result<Option<Self>> {
        if files::read(folder, NEXT_KEY)?.is_none() || files::read(folder, NEXT_CERTIFICATE)?.is_none() {
            return Ok(None);
        }
        Self::read_files(folder, NEXT_KEY, NEXT_CERTIFICATE).map(Some)
    }

    /// The authority of a folder, which is there.
    ///
    /// # Errors
    /// The files can't be read, or do not belong together.
    pub fn read(folder: &Path) -> Result<Self> {
        Self::read_files(folder, KEY, CERTIFICATE)
    }

    fn make(folder: &Path, key_file: &str, certificate_file: &str, now: Millis) -> Result<()> {
        if files::read(folder, key_file)?.is_none() {
            if files::read(folder, certificate_file)?.is_some() {
                let text = "is gone, but the authority's certificate is there; restore it from the backup";
                return Err(files::failed(&folder.join(key_file), text, None));
            }
            let key = KeyPair::generate().map_err(Error::internal)?;
            files::create(folder, key_file, key.serialize_pem().as_bytes())?;
        }
        if files::read(folder, certificate_file)?.is_none() {
            let key = read_key(folder, key_file)?;
            let certificate = authority_params(now).self_signed(&key).map_err(Error::internal)?;
            files::create(folder, certificate_file, certificate.pem().as_bytes())?;
        }
        Ok(())
    }

    fn read_files(folder: &Path, key_file: &str, certificate_file: &str) -> Result<Self> {
        let key = read_key(folder, key_file)?;
        let wrong = |what| files::failed(&folder.join(certificate_file), what, None);
        let pem = files::read_text(folder, certificate_file)?.unwrap_or_default();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| wrong("is no certificate; restore it from the backup"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|_| wrong("is no certificate; restore it from the backup"))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(wrong("does not belong to the key beside it; restore both from the backup"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(Error::internal)?;
        let fingerprint = sha256(&certificate);
        Ok(Self { issuer, certificate, pem, fingerprint })
    }

    /// For agents to pin.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the certificate, as in enrolment tokens.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// The certificate of the two ports, made anew when it is near its end or lacks the host name.
    ///
    /// # Errors
    /// The files can't be read or written.
    pub fn server(&self, folder: &Path, host: &str, now: Millis) -> Result<ServerIdentity> {
        if let Some(identity) = self.stored_server(folder, host, now)? {
            return Ok(identity);
        }
        let mut names = vec![host.to_owned()];
        names.extend(["localhost", "127.0.0.1"].into_iter().filter(|n| *n != host).map(str::to_owned));
        let key = KeyPair::generate().map_err(Error::internal)?;
        let mut params = CertificateParams::new(names).map_err(Error::internal)?;
        params.distinguished_name = name(&[(DnType::CommonName, host)]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (params, _) = leaf(params, now, SERVER_LIVES);
        let certificate = params.signed_by(&key, &self.issuer).map_err(Error::internal)?;
        // The key first: a certificate without its key is made anew, a key alone as well.
        files::replace(folder, SERVER_KEY, key.serialize_pem().as_bytes())?;
        files::replace(folder, SERVER_CERTIFICATE, certificate.pem().as_bytes())?;
        Ok(self.identity(certificate.der().clone(), &key, now.plus(SERVER_LIVES - RENEW_BELOW)))
    }

    /// A certificate for the control plane itself at a broker of the operator's, made for one connection.
    ///
    /// # Errors
    /// The library refuses; no name of a configuration makes it do so.
    pub fn client(&self, user: &str, now: Millis) -> Result<ServerIdentity> {
        let key = KeyPair::generate().map_err(Error::internal)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&[(DnType::CommonName, user)]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (params, not_after) = leaf(params, now, CLIENT_LIVES);
        let certificate = params.signed_by(&key, &self.issuer).map_err(Error::internal)?;
        Ok(self.identity(certificate.der().clone(), &key, not_after))
    }

    /// The list of revoked serial numbers (hex), PEM.
    ///
    /// # Errors
    /// The library refuses; no serial number of ours makes it do so.
    pub fn crl(&self, revoked: &[(String, Millis)], now: Millis) -> Result<String> {
        let entry = |(serial, at): &(String, Millis)| {
            let bytes = from_hex_bytes(serial).unwrap_or_default();
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(&bytes),
                revocation_time: moment!(second(*at)),
                reason_code: None,
                invalidity_date: None,
            }
        };
        let list = CertificateRevocationListParams {
            this_update: moment!(second(now).saturating_sub(BACKDATED.0 / 1000)),
            next_update: moment!(second(now.plus(CRL_LIVES))),
            crl_number: SerialNumber::from(second(now)),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).and_then(|crl| crl.pem()).map_err(Error::internal)
    }

    fn stored_server(&self, folder: &Path, host: &str, now: Millis) -> Result<Option<ServerIdentity>> {
        let pem = files::read_text(folder, SERVER_CERTIFICATE)?;
        let Some(certificate) = pem.and_then(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok())
        else {
            return Ok(None);
        };
        let Ok(key) = read_key(folder, SERVER_KEY) else { return Ok(None) };
        let until = x509_parser::parse_x509_certificate(&certificate)
            .map_or(Millis(0), |(_, c)| Millis(c.validity().not_after.timestamp().saturating_mul(1000)));
        let fits = x509_parser::parse_x509_certificate(&certificate).is_ok_and(|(_, parsed)| {
            let ours = x509_parser::parse_x509_certificate(&self.certificate)
                .is_ok_and(|(_, ca)| parsed.verify_signature(Some(ca.public_key())).is_ok());
            ours && parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
                && until.since(now) > RENEW_BELOW
        });
        let named = names(&certificate).iter().any(|name| name.eq_ignore_ascii_case(host));
        let renew_at = Millis(until.0.saturating_sub(RENEW_BELOW.0 as i64));
        Ok((fits && named).then(|| self.identity(certificate, &key, renew_at)))
    }

    fn identity(
        &self,
        certificate: CertificateDer<'static>,
        key: &KeyPair,
        renew_at: Millis,
    ) -> ServerIdentity {
        ServerIdentity {
            renew_at,
            chain: vec![certificate, self.certificate.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    /// Signs a certificate for an agent.
    ///
    /// # Errors
    /// The library refuses; no request that was read does so.
    pub fn issue(&self, request: &Request, agent: AgentId, now: Millis) -> Result<Issued> {
        let id = agent.to_string();
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&[(DnType::OrganizationName, &id), (DnType::CommonName, &id)]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (params, not_after) = leaf(params, now, AGENT_LIVES);
        let serial = params.serial_number.as_ref().map(SerialNumber::to_bytes).unwrap_or_default();
        let certificate = params.signed_by(&request.0, &self.issuer).map_err(Error::internal)?;
        Ok(Issued {
            pem: certificate.pem(),
            fingerprint: sha256(certificate.der()),
            serial: hex(&serial),
            not_after,
        })
    }
}

/// Lets the next authority of a folder take over; [`Authority::open`] ends what was interrupted.
///
/// # Errors
/// The files can't be written.
pub fn activate(folder: &Path) -> Result<()> {
    if files::read(folder, NEXT_CERTIFICATE)?.is_some() {
        files::rename(folder, NEXT_CERTIFICATE, CERTIFICATE)?;
    }
    files::rename(folder, NEXT_KEY, KEY)
}

/// SHA-256 of a certificate.
pub fn sha256(der: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, der).as_ref());
    out
}

fn read_key(folder: &Path, file: &str) -> Result<KeyPair> {
    let pem = files::read_text(folder, file)?.unwrap_or_default();
    KeyPair::from_pem(&pem)
        .map_err(|_| files::failed(&folder.join(file), "is no private key; restore it from the backup", None))
}

fn authority_params(now: Millis) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Two control planes' authorities are told apart by name.
    let number = hex(&crate::random::bytes::<4>());
    params.distinguished_name = name(&[(DnType::CommonName, &format!("HashInsight authority {number}"))]);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    hold(&mut params, now, AUTHORITY_LIVES);
    params
}

/// What all end certificates have in common, and when they end.
fn leaf(mut params: CertificateParams, now: Millis, lives: DurationMs) -> (CertificateParams, Millis) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let end = hold(&mut params, now, lives);
    (params, end)
}

fn name(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in parts {
        name.push(kind.clone(), *value);
    }
    name
}

/// 127 random bits: positive in DER, and never the same twice.
fn serial() -> SerialNumber {
    let mut bytes = crate::random::bytes::<16>();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// Gives a certificate its number and its time; when it ends.
fn hold(params: &mut CertificateParams, now: Millis, lives: DurationMs) -> Millis {
    let from = second(now).saturating_sub(BACKDATED.0 / 1000);
    let to = second(now.plus(lives));
    params.serial_number = Some(serial());
    (params.not_before, params.not_after) = (moment!(from), moment!(to));
    Millis(i64::try_from(to).unwrap_or(0) * 1000)
}

/// Seconds since 1970, until 2200: what lies beyond is no clock's time, and would not fit a certificate.
fn second(at: Millis) -> u64 {
    u64::try_from(at.0 / 1000).unwrap_or(0).min(7_258_118_400)
}

/// The names that a certificate is for.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => Some(std::net::Ipv4Addr::from(v4).to_string()),
            Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string()),
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_790_000_000_000);

    fn request() -> (KeyPair, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["elsewhere.example".to_owned()]).unwrap();
        params.distinguished_name = name(&[(DnType::CommonName, "somebody else")]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        (key, pem)
    }

    #[test]
    fn what_was_revoked_is_listed() {
        use x509_parser::prelude::FromDer as _;
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path(), NOW).unwrap();
        let pem = authority.crl(&[("4a01".to_owned(), NOW), ("7f02".to_owned(), NOW)], NOW).unwrap();
        let der = rustls::pki_types::CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, list) =
            x509_parser::revocation_list::CertificateRevocationList::from_der(der.as_ref()).unwrap();
        let serials: Vec<_> = list.iter_revoked_certificates().map(|c| c.raw_serial().to_vec()).collect();
        assert_eq!(serials, [vec![0x4a, 1], vec![0x7f, 2]]);
        let (_, ca) = x509_parser::parse_x509_certificate(authority.certificate()).unwrap();
        assert!(list.verify_signature(ca.public_key()).is_ok());
    }

    #[test]
    fn an_authority_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::open(folder.path(), NOW).unwrap();
        let again = Authority::open(folder.path(), NOW).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        std::fs::remove_file(folder.path().join(KEY)).unwrap();
        let error = Authority::open(folder.path(), NOW).unwrap_err().to_string();
        assert!(error.contains("restore it from the backup"), "{error}");
    }

    #[test]
    fn only_the_key_of_a_request_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path(), NOW).unwrap();
        let (key, pem) = request();
        let agent = AgentId::from_random([7; 16]);
        let issued = authority.issue(&Request::from_pem(&pem).unwrap(), agent, NOW).unwrap();
        let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        let subject = parsed.subject().to_string();
        assert_eq!(subject, format!("O={agent}, CN={agent}"));
        assert!(!parsed.is_ca() && names(&der).is_empty());
        assert_eq!(parsed.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        assert_eq!(issued.fingerprint, sha256(&der));
        assert_eq!(parsed.validity().not_after.timestamp() * 1000, issued.not_after.0);
    }

    #[test]
    fn what_is_no_proof_of_a_key_is_refused() {
        let (_, pem) = request();
        let mut bytes = pem::der(&pem);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let p384 = CertificateParams::default().serialize_request(&other).unwrap().pem().unwrap();
        for text in ["", "garbage", &pem[..pem.len() / 2], &pem::text(&bytes), &p384, &"x".repeat(1 << 20)] {
            assert!(Request::from_pem(text).is_err());
        }
    }

    /// Just enough of PEM to break a signature.
    mod pem {
        use rustls::pki_types::CertificateSigningRequestDer;
        use rustls::pki_types::pem::PemObject as _;
        pub fn der(text: &str) -> Vec<u8> {
            CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).unwrap().to_vec()
        }
        pub fn text(der: &[u8]) -> String {
            let body = ring_base64(der);
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
        }
        fn ring_base64(bytes: &[u8]) -> String {
            const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let mut out = String::new();
            for chunk in bytes.chunks(3) {
                let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
                for i in 0..4 {
                    let digit = char::from(DIGITS[(n >> (18 - 6 * i) & 63) as usize]);
                    out.push(if i <= chunk.len() { digit } else { '=' });
                }
            }
            out
        }
    }

    #[test]
    fn the_server_certificate_lasts_and_follows_the_host_name() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path(), NOW).unwrap();
        let one = authority.server(folder.path(), "control.example", NOW).unwrap();
        let leaf = |identity: &ServerIdentity| identity.chain[0].clone();
        assert_eq!(names(&leaf(&one)), ["control.example", "localhost", "127.0.0.1"]);
        let same = authority.server(folder.path(), "control.example", NOW).unwrap();
        assert_eq!(leaf(&one), leaf(&same));
        let renamed = authority.server(folder.path(), "192.0.2.7", NOW).unwrap();
        assert!(names(&leaf(&renamed)).contains(&"192.0.2.7".to_owned()));
        let later = NOW.plus(SERVER_LIVES - RENEW_BELOW);
        let renewed = authority.server(folder.path(), "192.0.2.7", later).unwrap();
        assert_ne!(leaf(&renamed), leaf(&renewed));
        // Another authority's certificate is not shown.
        let other = tempfile::tempdir().unwrap();
        let stranger = Authority::open(other.path(), NOW).unwrap();
        assert_ne!(leaf(&stranger.server(folder.path(), "192.0.2.7", later).unwrap()), leaf(&renewed));
    }
}
