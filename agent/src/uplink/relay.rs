//! TLS to the broker, behind a private socket.
//!
//! The MQTT client is built without TLS of its own (its TLS stack has open advisories) and talks plain MQTT
//! to a Unix socket in a folder of the agent's; this relay carries the bytes over rustls. It takes one
//! connection, from this very process, and then removes the socket.

use crate::clock::Clock;
use crate::identity_files::{self, Identity};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

const CONNECT: Duration = Duration::from_secs(10);
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum LinkError {
    #[error("\"{0}\" is not HOST:PORT of a broker")]
    Address(String),
    #[error("cannot reach the broker at {broker}: {source}")]
    Connect { broker: String, source: io::Error },
    #[error("the broker at {broker} does not answer within {} s", CONNECT.as_secs())]
    Silent { broker: String },
    #[error("the broker's TLS is not accepted: {0}")]
    Tls(io::Error),
    #[error("the broker at {broker} ends the connection in the TLS handshake: {source}")]
    Handshake { broker: String, source: io::Error },
    #[error("the agent's certificate or key cannot be used: {0}")]
    Certificate(rustls::Error),
    #[error("the broker's name is not a host name: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error("cannot make a socket in {path}: {source}")]
    Socket { path: PathBuf, source: io::Error },
}

/// Checks certificates by the agent's clock, which never falls behind what was known to be good.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(self.0.for_tls().0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}

/// A client configuration builder that checks by the agent's clock.
pub(crate) fn client_config(
    clock: &Clock,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_details(provider, Arc::new(Time(clock.clone())))
        .with_safe_default_protocol_versions()
}

/// One connection to the broker, open as long as this lives.
pub(crate) struct Relay {
    /// Where the MQTT client connects to.
    pub socket: String,
    trouble: Arc<Mutex<Option<String>>>,
    _task: AbortOnDropHandle<()>,
    // The socket's path goes through this folder's descriptor.
    _folder: File,
}

impl Relay {
    /// What ended the connection, as TLS tells it: a refused certificate, for one.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Connects to the broker and opens the private socket.
pub(crate) async fn open(
    identity: &Identity,
    authorities: &[CertificateDer<'static>],
    clock: &Clock,
    data_dir: &Path,
) -> Result<Relay, LinkError> {
    let broker = &identity.settings.broker;
    let tls = connector(identity, authorities, clock)?;
    let name = ServerName::try_from(identity.settings.broker_name.clone())?;
    let (host, port) = broker.rsplit_once(':').ok_or_else(|| LinkError::Address(broker.clone()))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port: u16 = port.parse().map_err(|_| LinkError::Address(broker.clone()))?;
    let silent = |_| LinkError::Silent { broker: broker.clone() };
    let tcp = timeout(CONNECT, TcpStream::connect((host, port))).await.map_err(silent)?;
    let tcp = tcp.map_err(|source| LinkError::Connect { broker: broker.clone(), source })?;
    // Small packets both ways: without this each waits for the other side's delayed ACK.
    tcp.set_nodelay(true).map_err(|source| LinkError::Connect { broker: broker.clone(), source })?;
    let refused = |source: io::Error| match source.kind() {
        // What rustls itself has to say.
        io::ErrorKind::InvalidData => LinkError::Tls(source),
        _ => LinkError::Handshake { broker: broker.clone(), source },
    };
    let handshake = timeout(HANDSHAKE, tls.connect(name, tcp)).await.map_err(silent)?;
    let mut broker_side = handshake.map_err(refused)?;
    let (listener, socket, folder) = listen(data_dir)?;
    let trouble = Arc::new(Mutex::new(None));
    let task = tokio::spawn({
        let (trouble, socket) = (trouble.clone(), socket.clone());
        async move {
            let client = accept(&listener).await;
            let _ = std::fs::remove_file(&socket);
            drop(listener);
            let outcome = match client {
                Ok(mut client) => copy_bidirectional(&mut client, &mut broker_side).await.map(|_| ()),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
        }
    });
    Ok(Relay { socket, trouble, _task: AbortOnDropHandle::new(task), _folder: folder })
}

fn connector(
    identity: &Identity,
    authorities: &[CertificateDer<'static>],
    clock: &Clock,
) -> Result<TlsConnector, LinkError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(LinkError::Certificate)?;
    }
    let config = client_config(clock)
        .map_err(LinkError::Certificate)?
        .with_root_certificates(roots)
        .with_client_auth_cert(identity.certificate.clone(), identity.key())
        .map_err(LinkError::Certificate)?;
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Listens in a folder that only the agent can enter.
fn listen(data_dir: &Path) -> Result<(UnixListener, String, File), LinkError> {
    let path = data_dir.join("run");
    let fail = |source| LinkError::Socket { path: path.clone(), source };
    identity_files::private_folder(&path).map_err(fail)?;
    let folder = File::open(&path).map_err(fail)?;
    // A socket's path may be 107 bytes long; through the descriptor it's short wherever the folder is.
    let socket = format!("/proc/self/fd/{}/mqtt", folder.as_raw_fd());
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&socket).map_err(fail)?;
    Ok((listener, socket, folder))
}

/// The connection of this process; others are turned away.
async fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    let own = i32::try_from(std::process::id()).ok();
    timeout(CONNECT, async {
        loop {
            let (client, _) = listener.accept().await?;
            if client.peer_cred()?.pid() == own {
                return Ok(client);
            }
        }
    })
    .await
    .map_err(|_| io::Error::other("the MQTT client did not connect"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_works_however_deep_its_folder_lies() {
        let dir = tempfile::tempdir().expect("a folder");
        let deep = dir.path().join("x".repeat(120));
        let (listener, socket, _folder) = listen(&deep).expect("a socket");
        let (client, accepted) = tokio::join!(UnixStream::connect(&socket), accept(&listener));
        client.expect("connected");
        accepted.expect("accepted");
        drop(listener);
        listen(&deep).expect("a socket that was left behind is replaced");
    }
}
