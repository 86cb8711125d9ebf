//! Enrolment: a one-time token against a certificate, over HTTPS.
//!
//! A listener of its own, since whoever talks to it has no certificate yet, or none that is good. It shows the same
//! certificate as the broker, with the authority's behind it, which agents know by the fingerprint in
//! their token.
//!
//! - **Limits**: [`CONNECTIONS`] at once, [`HANDSHAKE`] for TLS, [`WHOLE`] for everything, one request a
//!   connection, bodies of [`limits::ENROLMENT_BYTES`], [`super::tokens::FAILURES`] failures an address.
//! - **Rules**: the certificate request is read and proven before the token is spent, so a broken one
//!   costs no token. Token, agent, certificate and audit line are one transaction.
//! - **Recovery**: an answer that is lost on the way leaves an enrolled agent that never comes; it is
//!   listed, and can be revoked. The technician asks for another token.

use super::ca::Request as CertificateRequest;
use super::certificates::{self, Known};
use super::{Held, renewal, tokens};
use crate::error::{Error, Kind, Result};
use crate::web::i18n::Language;
use crate::{App, args, audit};
use bytes::Bytes;
use hashinsight_protocol::enrolment::{
    ENROL_PATH, EnrolRefusal, EnrolRequest, EnrolResponse, RENEW_PATH, RenewRequest, from_hex, hex,
};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::limits::{self, bounded_text};
use hashinsight_protocol::signing::VerifyingKey;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const CONNECTIONS: usize = 64;
pub const HANDSHAKE: Duration = Duration::from_secs(5);
pub const WHOLE: Duration = Duration::from_secs(20);
/// After accept failed (no file handles left): time for others to end.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves until `shutdown`.
///
/// # Errors
/// TLS can't be set up.
pub async fn serve(app: Arc<App>, listener: TcpListener, shutdown: CancellationToken) -> Result<()> {
    let mut shown = app.agents.held();
    let mut tls = TlsAcceptor::from(tls_of(&shown)?);
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    loop {
        let seat = tokio::select! {
            () = shutdown.cancelled() => break,
            // The semaphore is never closed.
            seat = Arc::clone(&seats).acquire_owned() => seat.map_err(Error::internal)?,
        };
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "An enrolment connection could not be accepted.");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let held = app.agents.held();
        if !Arc::ptr_eq(&held, &shown) {
            tls = TlsAcceptor::from(tls_of(&held)?);
            shown = held;
        }
        let (app, tls, shutdown) = (Arc::clone(&app), tls.clone(), shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                ended = timeout(WHOLE, connection(app, tls, stream, peer, seat)) => {
                    if ended.is_err() {
                        tracing::debug!(%peer, "An enrolment connection took too long.");
                    }
                }
            }
        });
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

fn tls_of(held: &Held) -> Result<Arc<rustls::ServerConfig>> {
    let identity = &held.server;
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(Error::internal)?
            .with_no_client_auth()
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(Error::internal)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn connection(
    app: Arc<App>,
    tls: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    _seat: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await else { return };
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(answer(&app, request, peer.ip()).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "An enrolment connection ended badly.");
    }
}

async fn answer(app: &App, request: Request<Incoming>, from: IpAddr) -> Response<Full<Bytes>> {
    match handle(app, request, from).await {
        Ok(body) => answered(StatusCode::OK, body),
        Err(error) => {
            app.metrics.enrolments_refused.add(1);
            let status = match error.kind() {
                Kind::Invalid => StatusCode::BAD_REQUEST,
                Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
                Kind::Forbidden => StatusCode::FORBIDDEN,
                Kind::NotFound => StatusCode::NOT_FOUND,
                Kind::Conflict => StatusCode::CONFLICT,
                Kind::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
                Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            };
            if status.is_server_error() {
                tracing::error!(error = error.chain(), "An enrolment failed.");
            } else {
                tracing::info!(%from, error = error.chain(), "An enrolment was refused.");
            }
            let mut response = json(status, &EnrolRefusal { error: error.text(Language::English) });
            if let Kind::TooMany(wait) = error.kind() {
                response.headers_mut().insert(RETRY_AFTER, wait.0.div_ceil(1000).into());
            }
            response
        }
    }
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Response<Full<Bytes>> {
    // Strings and arrays alone: they always have a JSON form.
    answered(status, serde_json::to_vec(body).unwrap_or_default())
}

fn answered(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

async fn handle(app: &App, request: Request<Incoming>, from: IpAddr) -> Result<Vec<u8>> {
    let renews = request.uri().path() == RENEW_PATH;
    if request.method() != Method::POST || !(renews || request.uri().path() == ENROL_PATH) {
        let text = format!("agents enrol by POST {ENROL_PATH} and renew by POST {RENEW_PATH}");
        return Err(Error::new(Kind::NotFound, text));
    }
    let failures = || app.agents.failures.lock().unwrap_or_else(PoisonError::into_inner);
    failures().check(from, app.clock.now())?;
    let body = Limited::new(request.into_body(), limits::ENROLMENT_BYTES).collect().await.map_err(|e| {
        let text = match e.downcast_ref::<LengthLimitError>() {
            Some(_) => format!("an enrolment request has at most {} bytes", limits::ENROLMENT_BYTES),
            None => "the request ended too early".to_owned(),
        };
        Error::invalid(text)
    })?;
    let done = match renews {
        true => as_json(renewal::renew(app, &read::<RenewRequest>(&body.to_bytes())?, from).await),
        false => as_json(enrol(app, &read::<EnrolRequest>(&body.to_bytes())?, from).await),
    };
    if let Err(error) = &done
        && error.kind() == Kind::Forbidden
    {
        failures().count(from, app.clock.now());
        // At most as many as an address has tries.
        let what = if renews { "agent.renew_refused" } else { "agent.enrol_refused" };
        refused(app, what, from, error).await;
    }
    done
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| Error::invalid(format!("this is not an enrolment request: {e}")))
}

fn as_json(answer: Result<impl serde::Serialize>) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&answer?)?)
}

/// Enrols an agent.
///
/// # Errors
/// The request can't be meant, its token opens nothing, or the database fails.
pub async fn enrol(app: &App, request: &EnrolRequest, from: IpAddr) -> Result<EnrolResponse> {
    let certificate_request = CertificateRequest::from_pem(&request.csr_pem)?;
    let key: [u8; 32] = from_hex(&request.batch_key)
        .ok_or_else(|| Error::invalid("the batch key is 64 hex digits: an Ed25519 public key"))?;
    let (hostname, version) = (bounded_text(&request.hostname), bounded_text(&request.version));
    let now = app.clock.now();
    let held = app.agents.held();
    let mut tx = app.stores.business.begin().await?;
    let tokens::Spent { site, agent, replaces } =
        tokens::spend(&mut tx, &request.secret, AgentId::from_random(crate::random::bytes()), now).await?;
    let issued = held.authority.issue(&certificate_request, agent, now)?;
    if replaces {
        certificates::revoke_in(&mut tx, agent, now).await?;
    }
    let (site_name,): (String,) = tx.fetch_one("select name from sites where id = $1", args![site]).await?;
    tx.execute(
        "insert into agents (id, site_id, hostname, version, batch_key, enrolled_at)
         values ($1, $2, $3, $4, $5, $6) on conflict (id) do update set hostname = excluded.hostname,
             version = excluded.version, batch_key = excluded.batch_key, enrolled_at = excluded.enrolled_at,
             revoked_at = null",
        args![agent, site, &hostname, &version, hex(&key), now],
    )
    .await?;
    tx.execute(
        "insert into agent_certificates (fingerprint, agent_id, serial, not_after, issued_at)
         values ($1, $2, $3, $4, $5)",
        args![hex(&issued.fingerprint), agent, &issued.serial, issued.not_after, now],
    )
    .await?;
    let detail = format!("{hostname} from {from}");
    let what = if replaces { "agent.replace" } else { "agent.enrol" };
    audit::record(&mut tx, now, "enrolment", what, &agent.to_string(), &detail).await?;
    tx.commit().await?;

    let known = Known { site, key: VerifyingKey(key), revoked: false };
    app.agents.directory.learn(agent, known, issued.fingerprint);
    app.metrics.enrolled.add(1);
    app.live.changed(site);
    tracing::info!(%agent, %site, hostname, "An agent enrolled.");
    let (broker, broker_name) = broker_address(app);
    Ok(EnrolResponse {
        agent,
        site,
        site_name,
        certificate_pem: format!("{}{}", issued.pem, held.authority.pem()),
        broker,
        broker_name,
        root_key: hex(&held.keys.root().0),
        trust: held.keys.trust().to_text().map_err(Error::internal)?,
    })
}

/// Where agents find the broker, and the name in its certificate.
pub(super) fn broker_address(app: &App) -> (String, String) {
    if let Some(broker) = &app.config.broker {
        return (host_and_port(&broker.host, broker.port), broker.host.clone());
    }
    let host = &app.config.public_host;
    (host_and_port(host, app.addresses.mqtt.port()), host.clone())
}

/// A refusal, into the audit log.
async fn refused(app: &App, what: &str, from: IpAddr, why: &Error) {
    let audited = async {
        let mut tx = app.stores.business.begin().await?;
        let text = why.text(Language::English);
        audit::record(&mut tx, app.clock.now(), "enrolment", what, &from.to_string(), &text).await?;
        tx.commit().await
    };
    if let Err(error) = audited.await {
        tracing::error!(error = error.chain(), "A refusal could not be audited.");
    }
}

fn host_and_port(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V6(v6)) => format!("[{v6}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}
