//! Enrolment: a one-time token against an identity.
//!
//! The token names the control plane's certificate authority by its fingerprint; the server must show that
//! certificate and a chain that ends in it, whatever host name the technician used to reach it. Both keys are
//! made here and never leave. The identity is written whole or not at all; the token is not spent before
//! it's certain that the data folder can be written to.

use crate::cli::{ConfigArg, Failure};
use crate::clock::Clock;
use crate::identity_files::{self, Identity, NewIdentity, Settings};
use crate::uplink::client_config;
use clap::Args;
use hashinsight_protocol::enrolment::{
    ENROL_PATH, EnrolRefusal, EnrolRequest, EnrolResponse, EnrolmentToken, hex,
};
use hashinsight_protocol::limits::{self, bounded_text};
use hashinsight_protocol::signing::SigningKey;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

const DEFAULT_PORT: u16 = 8884;
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Args)]
pub struct EnrolArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The control plane's enrolment address, such as https://control.example:8884.
    #[arg(long, value_name = "URL")]
    url: String,
    /// The one-time token from the console.
    #[arg(long, value_name = "TOKEN", env = "HASHINSIGHT_TOKEN", hide_env_values = true)]
    token: String,
    /// What the console calls this gateway [default: its host name].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Enrols this gateway.
///
/// # Errors
/// One line that says what to do; nothing is left behind.
pub async fn enrol(args: EnrolArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    let token: EnrolmentToken = args.token.parse()?;
    let (host, port) = address(&args.url)?;
    let folder = Folder::check(&config.data_dir)?;
    let keys = Keys::make()?;
    let request = EnrolRequest {
        secret: token.secret().to_owned(),
        csr_pem: keys.csr_pem.clone(),
        batch_key: hex(&keys.batch_public),
        hostname: args.name.as_deref().map_or_else(hostname, bounded_text),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let response = ask(&host, port, *token.ca_fingerprint(), &request).await?;
    let settings = accept(&token, &keys, &response)?;
    let new = NewIdentity {
        settings: &settings,
        tls_key_pem: &keys.tls_key_pem,
        certificate_pem: &response.certificate_pem,
        ca_pem: &response.ca_pem,
        batch_seed: &keys.batch_seed,
    };
    identity_files::write(&config.data_dir, &new)?;
    folder.keep();
    println!("Enrolled as agent {} of site \"{}\".", settings.agent, bounded_text(&settings.site_name));
    println!("Start it with: systemctl start hashinsight-agent (or: hashinsight-agent run)");
    Ok(())
}

/// Host and port of an https address without a path.
fn address(url: &str) -> Result<(String, u16), Failure> {
    let wrong = || {
        Failure::new(format!("\"{url}\" is not an enrolment address; expected https://HOST:{DEFAULT_PORT}"))
    };
    let uri: Uri = url.trim().parse().map_err(|_| wrong())?;
    let https = uri.scheme_str() == Some("https");
    let bare = matches!(uri.path(), "" | "/" | ENROL_PATH) && uri.query().is_none();
    let host = uri.host().filter(|host| !host.is_empty() && https && bare).ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), uri.port_u16().unwrap_or(DEFAULT_PORT)))
}

/// The data folder, known to be writable; removed again unless enrolment succeeds, where it was missing.
struct Folder<'a> {
    path: &'a Path,
    made: bool,
}

impl<'a> Folder<'a> {
    fn check(path: &'a Path) -> Result<Self, Failure> {
        let identity = identity_files::folder(path);
        if identity.exists() {
            let who =
                Identity::load(path).map_or_else(|_| String::new(), |i| format!(" as agent {}", i.agent()));
            let identity = identity.display();
            return Err(Failure::new(format!(
                "this gateway is enrolled already{who}; to enrol it anew, stop the agent and remove {identity}"
            )));
        }
        let made = !path.exists();
        let unwritable =
            |error| Failure::new(format!("cannot write to the data folder {}: {error}", path.display()));
        identity_files::private_folder(path).map_err(unwritable)?;
        let folder = Self { path, made };
        let trial = path.join(format!(".trial-{}", std::process::id()));
        std::fs::write(&trial, b"").and_then(|()| std::fs::remove_file(&trial)).map_err(unwritable)?;
        Ok(folder)
    }

    fn keep(mut self) {
        self.made = false;
    }
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        if self.made {
            // Only when it's empty.
            let _ = std::fs::remove_dir(self.path);
        }
    }
}

struct Keys {
    tls_key_pem: String,
    csr_pem: String,
    batch_seed: [u8; 32],
    batch_public: [u8; 32],
}

impl Keys {
    fn make() -> Result<Self, Failure> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let csr = rcgen::CertificateParams::default().serialize_request(&key)?;
        let mut batch_seed = [0; 32];
        SystemRandom::new()
            .fill(&mut batch_seed)
            .map_err(|_| Failure::new("the system gives no random numbers"))?;
        let batch_public = SigningKey::from_seed(&batch_seed)?.verifying_key().0;
        Ok(Self { tls_key_pem: key.serialize_pem(), csr_pem: csr.pem()?, batch_seed, batch_public })
    }
}

fn hostname() -> String {
    let name = rustix::system::uname();
    bounded_text(&name.nodename().to_string_lossy())
}

async fn ask(
    host: &str,
    port: u16,
    fingerprint: [u8; 32],
    request: &EnrolRequest,
) -> Result<EnrolResponse, Failure> {
    let silent = |_| Failure::new(format!("the control plane at {host}:{port} does not answer"));
    let tcp = timeout(CONNECT, TcpStream::connect((host, port)))
        .await
        .map_err(silent)?
        .map_err(|error| Failure::new(format!("cannot reach the control plane at {host}:{port}: {error}")))?;
    let pinned = Arc::new(Pinned::new(fingerprint));
    let mut config = client_config(&Clock::system()?)?
        .dangerous()
        .with_custom_certificate_verifier(pinned.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Failure::new(format!("\"{host}\" is not a host name or an IP address")))?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let tls = timeout(CONNECT, tls).await.map_err(silent)?.map_err(|error| {
        if pinned.other.load(Ordering::Relaxed) {
            Failure::new(format!(
                "the server at {host}:{port} is not the control plane that made this token; check the address \
                 and make a new token"
            ))
        } else {
            Failure::new(format!("no secure connection to {host}:{port}: {error}"))
        }
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let body = Bytes::from(serde_json::to_vec(request)?);
    let http = Request::builder()
        .method(Method::POST)
        .uri(ENROL_PATH)
        .header("host", format!("{host}:{port}"))
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let answer = async {
        let answer = sender.send_request(http).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), limits::ENROLMENT_BYTES).collect().await;
        let body = body.map_err(|_| Failure::new("the control plane's answer is cut short or too long"))?;
        Ok::<_, Failure>((status, body.to_bytes()))
    };
    let (status, body) = timeout(ANSWER, answer).await.map_err(silent)??;
    if status != StatusCode::OK {
        let said = serde_json::from_slice::<EnrolRefusal>(&body).map(|refusal| bounded_text(&refusal.error));
        let said = said.unwrap_or_else(|_| format!("HTTP {status}"));
        return Err(Failure::new(format!("the control plane refuses: {said}")));
    }
    serde_json::from_slice(&body)
        .map_err(|error| Failure::new(format!("the control plane's answer cannot be understood: {error}")))
}

/// Checks an answer before anything is written.
fn accept(token: &EnrolmentToken, keys: &Keys, response: &EnrolResponse) -> Result<Settings, Failure> {
    let bad = |what: &str| Failure::new(format!("the control plane's answer is faulty: {what}"));
    let pem = |text: &str| CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let authorities = pem(&response.ca_pem).map_err(|_| bad("its authorities are not PEM"))?;
    if !authorities.iter().any(|ca| is(ca, token.ca_fingerprint())) {
        return Err(bad("the token's authority is not among its authorities"));
    }
    let chain = pem(&response.certificate_pem).map_err(|_| bad("its certificate is not PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(keys.tls_key_pem.as_bytes())?;
    // Also checks that the certificate is for this key.
    client_config(&Clock::system()?)?
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(chain, key)
        .map_err(|error| bad(&format!("its certificate does not fit: {error}")))?;
    identity_files::certified(&response.root_key, &response.signing_keys).map_err(bad)?;
    if response.broker.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(bad("the broker's address has no port"));
    }
    ServerName::try_from(response.broker_name.as_str()).map_err(|_| bad("the broker's name is not one"))?;
    Ok(Settings {
        agent: response.agent,
        site: response.site,
        site_name: bounded_text(&response.site_name),
        broker: response.broker.clone(),
        broker_name: response.broker_name.clone(),
        root_key: response.root_key.clone(),
        signing_keys: response.signing_keys.clone(),
    })
}

fn is(certificate: &CertificateDer<'_>, fingerprint: &[u8; 32]) -> bool {
    digest(&SHA256, certificate).as_ref() == fingerprint
}

/// Takes a server whose chain ends in the authority with a certain fingerprint. The name is not looked at:
/// the authority is the operator's own and certifies no other servers.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    provider: CryptoProvider,
    /// Another authority was shown.
    other: AtomicBool,
}

impl Pinned {
    fn new(fingerprint: [u8; 32]) -> Self {
        let provider = rustls::crypto::ring::default_provider();
        Self { fingerprint, provider, other: AtomicBool::new(false) }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authority) = intermediates.iter().find(|ca| is(ca, &self.fingerprint)) else {
            self.other.store(true, Ordering::Relaxed);
            return Err(rustls::CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, &roots, intermediates, now, algorithms)?;
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

#[cfg(test)]
mod tests;
