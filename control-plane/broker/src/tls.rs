//! TLS of the door, and who a certificate says its holder is.
//!
//! Every connection makes a full handshake: a resumed one would skip the certificate's dates.

use crate::broker::BrokerError;
use hashinsight_protocol::ids::AgentId;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::fmt;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::AttributeTypeAndValue;

/// A certificate's names of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateId {
    /// The serial number, big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// SHA-256 of the certificate in DER.
    pub fingerprint: [u8; 32],
}

impl CertificateId {
    /// The id of a certificate in DER; `None` when it is not one.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self::of_parsed(der, &certificate))
    }

    fn of_parsed(der: &[u8], certificate: &X509Certificate<'_>) -> Self {
        let serial = certificate.tbs_certificate.raw_serial();
        let zeros = serial.iter().take_while(|&&b| b == 0).count();
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest.as_ref());
        Self { serial: serial[zeros..].to_vec(), fingerprint }
    }
}

impl fmt::Display for CertificateId {
    /// The serial number in hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serial.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What the gate says of an agent and its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Admit,
    /// No such agent, or not this certificate of it.
    Unknown,
    Revoked,
}

/// Decides at every connect, from memory, without waiting; the control plane keeps it in step with
/// its database. To revoke, first change what the gate says, then call [`crate::Broker::cut`].
pub trait Gate: Send + Sync + 'static {
    /// Is called after the certificate was verified; may be called more than once a connect.
    fn admit(&self, agent: AgentId, certificate: &CertificateId) -> Admission;
}

/// TLS 1.3 or 1.2 that requires a client certificate of one of `cas`. `chain` and `key` are the
/// server's own.
pub fn server_tls(
    cas: &[CertificateDer<'_>],
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, BrokerError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.clone().into_owned()).map_err(|e| BrokerError::Tls(format!("CA certificate: {e}")))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| BrokerError::Tls(format!("CA certificates: {e}")))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| BrokerError::Tls(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| BrokerError::Tls(format!("server certificate and key: {e}")))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The agent that a verified certificate names: CN and O, once each, both its id.
pub(crate) fn identity(der: &[u8]) -> Result<(AgentId, CertificateId), &'static str> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| "not a certificate")?;
    if !rest.is_empty() {
        return Err("bytes after the certificate");
    }
    let name = certificate.subject();
    let cn = only(name.iter_common_name()).ok_or("not exactly one common name")?;
    let o = only(name.iter_organization()).ok_or("not exactly one organization")?;
    if cn != o {
        return Err("common name and organization differ");
    }
    let agent = cn.parse().map_err(|_| "its common name is not an agent id")?;
    Ok((agent, CertificateId::of_parsed(der, &certificate)))
}

fn only<'a>(mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Option<&'a str> {
    let value = values.next()?.as_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from(vec![0x00, 0x81, 7]));
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().expect("key")).expect("certificate").der().to_vec()
    }

    #[test]
    fn common_name_and_organization_are_the_agent() {
        let agent = AgentId::from_random([0xab; 16]);
        let id = agent.to_string();
        let (cn, o) = (DnType::CommonName, DnType::OrganizationName);
        let der = certificate(&[(cn.clone(), &id), (o.clone(), &id)]);
        let (found, certificate_id) = identity(&der).expect("an agent");
        assert_eq!(found, agent);
        assert_eq!(certificate_id.serial, [0x81, 7]);
        assert_eq!(CertificateId::of(&der), Some(certificate_id));

        let other = AgentId::from_random([6; 16]).to_string();
        let upper = id.to_uppercase();
        for names in [
            vec![(cn.clone(), id.as_str())],
            vec![(o.clone(), id.as_str())],
            vec![(cn.clone(), id.as_str()), (o.clone(), other.as_str())],
            vec![(cn.clone(), upper.as_str()), (o.clone(), upper.as_str())],
            vec![(cn, "gateway"), (o, "gateway")],
        ] {
            assert!(identity(&certificate(&names)).is_err(), "{names:?}");
        }
        assert!(identity(&[der, vec![0]].concat()).is_err());
        assert!(identity(b"").is_err());
    }
}
