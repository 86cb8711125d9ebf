//! One request to the control plane's enrolment port: JSON there and back, everything bounded.
//!
//! Two ways to know the server. At enrolment, by the fingerprint of its authority, which the token names;
//! nothing is said before that is certain. At renewal, afterwards: the request holds no secret, and the answer
//! brings the signed list of authorities by which [`Server::is_by`] judges who gave it.

use crate::clock::{Clock, ClockError};
use crate::uplink::client_config;
use hashinsight_protocol::enrolment::EnrolRefusal;
use hashinsight_protocol::limits::{self, bounded_text};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);

/// Why a request has no answer.
#[derive(Debug, Error)]
pub enum HttpsError {
    #[error("the control plane at {0} does not answer")]
    Silent(String),
    #[error("cannot reach the control plane at {at}: {source}")]
    Connect { at: String, source: std::io::Error },
    #[error("\"{0}\" is not a host name or an IP address")]
    Name(String),
    #[error(
        "the server at {0} is not the control plane that made this token; check the address and make a new token"
    )]
    OtherAuthority(String),
    #[error(
        "the server at {0} is not the control plane: no authority that the root has named vouches for it"
    )]
    Unvouched(String),
    #[error("no secure connection to {at}: {why}")]
    Tls { at: String, why: String },
    #[error("the control plane's answer is cut short or too long")]
    Cut,
    #[error("the control plane refuses: {0}")]
    Refused(String),
    #[error("the control plane's answer cannot be understood: {0}")]
    NotUnderstood(#[from] serde_json::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    #[error(transparent)]
    Clock(#[from] ClockError),
}

/// Who gave an answer.
#[derive(Debug)]
pub struct Server {
    at: String,
    chain: Vec<CertificateDer<'static>>,
}

impl Server {
    /// # Errors
    /// None of these authorities (DER) vouches for the server now.
    pub fn is_by(&self, authorities: &[Vec<u8>], clock: &Clock) -> Result<(), HttpsError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().map(|der| der.clone().into()));
        let now = Duration::from_millis(u64::try_from(clock.for_tls().0).unwrap_or(0));
        let vouched = self
            .chain
            .split_first()
            .is_some_and(|(leaf, rest)| by(leaf, rest, &roots, UnixTime::since_unix_epoch(now)).is_ok());
        if vouched { Ok(()) } else { Err(HttpsError::Unvouched(self.at.clone())) }
    }
}

/// Posts to a server whose authority has this fingerprint.
///
/// # Errors
/// It is not that server, or gives no answer.
pub async fn post_to_pinned<T: DeserializeOwned>(
    host: &str,
    port: u16,
    path: &str,
    request: &impl Serialize,
    fingerprint: [u8; 32],
    clock: &Clock,
) -> Result<T, HttpsError> {
    let verifier = Arc::new(Verifier::new(Some(fingerprint)));
    post(host, port, path, request, verifier, clock).await.map(|(answer, _)| answer)
}

/// Posts what is no secret, and says who has answered.
///
/// # Errors
/// There is no answer.
pub async fn post_to_anybody<T: DeserializeOwned>(
    host: &str,
    port: u16,
    path: &str,
    request: &impl Serialize,
    clock: &Clock,
) -> Result<(T, Server), HttpsError> {
    post(host, port, path, request, Arc::new(Verifier::new(None)), clock).await
}

async fn post<T: DeserializeOwned>(
    host: &str,
    port: u16,
    path: &str,
    request: &impl Serialize,
    verifier: Arc<Verifier>,
    clock: &Clock,
) -> Result<(T, Server), HttpsError> {
    let at = format!("{host}:{port}");
    let silent = |_| HttpsError::Silent(at.clone());
    let tcp = timeout(CONNECT, TcpStream::connect((host, port))).await.map_err(silent)?;
    let tcp = tcp.map_err(|source| HttpsError::Connect { at: at.clone(), source })?;
    let mut config = client_config(clock)
        .map_err(|e| HttpsError::Tls { at: at.clone(), why: e.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.to_owned()).map_err(|_| HttpsError::Name(host.to_owned()))?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let tls = timeout(CONNECT, tls).await.map_err(silent)?.map_err(|error| {
        match verifier.other.load(Ordering::Relaxed) {
            true => HttpsError::OtherAuthority(at.clone()),
            false => HttpsError::Tls { at: at.clone(), why: error.to_string() },
        }
    })?;
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let body = Bytes::from(serde_json::to_vec(request)?);
    let http = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("host", &at)
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let answer = async {
        let answer = sender.send_request(http).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), limits::ENROLMENT_BYTES).collect().await;
        Ok::<_, HttpsError>((status, body.map_err(|_| HttpsError::Cut)?.to_bytes()))
    };
    let (status, body) = timeout(ANSWER, answer).await.map_err(silent)??;
    if status != StatusCode::OK {
        let said = serde_json::from_slice::<EnrolRefusal>(&body).map(|refusal| bounded_text(&refusal.error));
        return Err(HttpsError::Refused(said.unwrap_or_else(|_| format!("HTTP {status}"))));
    }
    Ok((serde_json::from_slice(&body)?, Server { at, chain }))
}

/// Whether a certificate is by one of these authorities. The name is not looked at: the authorities are the
/// operator's own and certify no other servers.
fn by(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let certificate = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)
}

/// Takes a server whose chain ends in the authority with a certain fingerprint; or any, for the moment.
#[derive(Debug)]
struct Verifier {
    fingerprint: Option<[u8; 32]>,
    provider: CryptoProvider,
    /// Another authority was shown.
    other: AtomicBool,
}

impl Verifier {
    fn new(fingerprint: Option<[u8; 32]>) -> Self {
        let provider = rustls::crypto::ring::default_provider();
        Self { fingerprint, provider, other: AtomicBool::new(false) }
    }
}

/// Whether this is the certificate with that fingerprint.
pub(crate) fn is(certificate: &CertificateDer<'_>, fingerprint: &[u8; 32]) -> bool {
    digest(&SHA256, certificate).as_ref() == fingerprint
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(fingerprint) = &self.fingerprint else { return Ok(ServerCertVerified::assertion()) };
        let Some(authority) = intermediates.iter().find(|ca| is(ca, fingerprint)) else {
            self.other.store(true, Ordering::Relaxed);
            return Err(rustls::CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        by(end_entity, intermediates, &roots, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
