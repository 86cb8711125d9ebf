//! Enrolment: a one-time token against an identity.
//!
//! The token names the control plane's certificate authority by its fingerprint; the server must show that
//! certificate and a chain that ends in it, whatever host name the technician used to reach it. Both keys are
//! made here and never leave. The identity is written whole or not at all; the token is not spent before
//! it's certain that the data folder can be written to.

use crate::cli::{ConfigArg, Failure};
use crate::clock::Clock;
use crate::https;
use crate::identity_files::{self, Identity, NewIdentity, Settings};
use crate::uplink::client_config;
use clap::Args;
use hashinsight_protocol::enrolment::{ENROL_PATH, EnrolRequest, EnrolResponse, EnrolmentToken, hex};
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::signing::SigningKey;
use hyper::Uri;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;

const DEFAULT_PORT: u16 = 8884;

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
    let clock = Clock::system()?;
    let pinned = *token.ca_fingerprint();
    let response = https::post_to_pinned(&host, port, ENROL_PATH, &request, pinned, &clock).await?;
    let settings = accept(&token, &keys, &response, format!("{host}:{port}"))?;
    let new = NewIdentity {
        settings: &settings,
        tls_key_pem: &keys.tls_key_pem,
        certificate_pem: &response.certificate_pem,
        trust: &response.trust,
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

/// Checks an answer before anything is written.
fn accept(
    token: &EnrolmentToken,
    keys: &Keys,
    response: &EnrolResponse,
    control: String,
) -> Result<Settings, Failure> {
    let bad = |what: &str| Failure::new(format!("the control plane's answer is faulty: {what}"));
    let (_, trust) = identity_files::trusted(&response.root_key, &response.trust).map_err(|e| bad(&e))?;
    let named = |der: &Vec<u8>| https::is(&der.as_slice().into(), token.ca_fingerprint());
    if !trust.authorities.iter().any(named) {
        return Err(bad("the token's authority is not among its authorities"));
    }
    let chain = CertificateDer::pem_slice_iter(response.certificate_pem.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|_| bad("its certificate is not PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(keys.tls_key_pem.as_bytes())?;
    // Also checks that the certificate is for this key.
    client_config(&Clock::system()?)?
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(chain, key)
        .map_err(|error| bad(&format!("its certificate does not fit: {error}")))?;
    identity_files::check_address(&response.broker, &response.broker_name).map_err(bad)?;
    Ok(Settings {
        agent: response.agent,
        site: response.site,
        site_name: bounded_text(&response.site_name),
        broker: response.broker.clone(),
        broker_name: response.broker_name.clone(),
        control,
        root_key: response.root_key.clone(),
    })
}

#[cfg(test)]
mod tests;
