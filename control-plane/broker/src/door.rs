//! Accepts TCP connections, and takes each through TLS and CONNECT to a session or a refusal.

use crate::agents::Ticket;
use crate::broker::Shared;
use crate::counters::{Present, Refusal, one};
use crate::crowd::Place;
use crate::frames::{Broken, Frames};
use crate::packets::{self, Connect, Packet};
use crate::router::Link;
use crate::rules;
use crate::session;
use crate::tls::{self, Admission, CertificateId};
use bytes::{Bytes, BytesMut};
use hashinsight_protocol::ids::AgentId;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::warn;

/// After an error of accept itself, most often too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a refused peer may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ends at the door.
struct Refused {
    why: Refusal,
    /// The CONNACK code, where the peer can read one.
    code: Option<u8>,
    detail: String,
}

impl Refused {
    fn new(why: Refusal, detail: impl ToString) -> Self {
        Self { why, code: None, detail: detail.to_string() }
    }

    fn answered(why: Refusal, code: u8, detail: impl ToString) -> Self {
        Self { why, code: Some(code), detail: detail.to_string() }
    }
}

/// All that a session stands on.
pub(crate) struct Admitted {
    pub agent: AgentId,
    pub peer: SocketAddr,
    pub silence: Duration,
    pub will: Option<Bytes>,
    pub ticket: Ticket,
    pub link: Link,
    pub seat: OwnedSemaphorePermit,
}

pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                warn!("cannot accept connections: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        one(&shared.ledger.accepted);
        let place = loop {
            match shared.crowd.enter(peer.ip(), Instant::now()) {
                Some(place) => break place,
                None => tokio::select! {
                    () = shared.stop.cancelled() => return,
                    () = shared.crowd.room() => {}
                },
            }
        };
        shared.tasks.spawn(connection(shared.clone(), stream, peer, place));
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, place: Place) {
    // Without it small packets wait for the peer's delayed acknowledgements: 43 ms a direction.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    // Boxed, so that the handshake's state is not kept for the session's life.
    let entered = tokio::select! {
        () = shared.stop.cancelled() => return,
        entered = Box::pin(enter(&shared, stream, peer, place)) => entered,
    };
    if let Some((admitted, tls, frames)) = entered {
        Box::pin(session::run(&shared, admitted, tls, frames)).await;
    }
}

/// From the first byte to an admitted CONNECT; `None` when it was refused, which has been answered.
async fn enter(
    shared: &Shared,
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
) -> Option<(Admitted, TlsStream<TcpStream>, Frames)> {
    let unfinished = Present::new(&shared.ledger.handshakes);
    let shaken = tokio::select! {
        () = place.shown_out() => Err(Refused::new(Refusal::Crowded, "")),
        shaken = shake(shared, stream, &place) => shaken,
    };
    let (mut tls, agent, certificate) = match shaken {
        Ok(shaken) => shaken,
        Err(refused) => {
            shared.ledger.refuse(refused.why, peer, None, &refused.detail);
            return None;
        }
    };
    let mut frames = Frames::new(&shared.limits);
    let refused = match greet(shared, &mut tls, &mut frames).await {
        Err(refused) => refused,
        Ok(connect) => {
            drop((unfinished, place));
            match admit(shared, agent, &certificate, peer, &connect).await {
                Ok(admitted) => return Some((admitted, tls, frames)),
                Err(refused) => refused,
            }
        }
    };
    let detail = format!("certificate {certificate} {}", refused.detail);
    shared.ledger.refuse(refused.why, peer, Some(agent), &detail);
    if let Some(code) = refused.code {
        say_why(tls, code).await;
    }
    None
}

/// TLS, and who the certificate says it is.
async fn shake(
    shared: &Shared,
    stream: TcpStream,
    place: &Place,
) -> Result<(TlsStream<TcpStream>, AgentId, CertificateId), Refused> {
    let deadline = Instant::now() + shared.limits.handshake_deadline;
    match tokio::time::timeout_at(deadline, stream.peek(&mut [0])).await {
        Ok(Ok(1..)) => place.spoke(),
        Ok(Ok(0)) => return Err(Refused::new(Refusal::Silent, "closed")),
        Ok(Err(e)) => return Err(Refused::new(Refusal::Silent, e)),
        Err(_) => return Err(Refused::new(Refusal::Silent, "deadline")),
    }
    let acceptor = TlsAcceptor::from(shared.tls());
    let tls = match tokio::time::timeout_at(deadline, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(e)) => return Err(Refused::new(Refusal::Handshake, e)),
        Err(_) => return Err(Refused::new(Refusal::HandshakeDeadline, "")),
    };
    let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| Refused::new(Refusal::Identity, "no certificate"))?;
    let (agent, certificate) = tls::identity(certificate).map_err(|e| Refused::new(Refusal::Identity, e))?;
    place.proven();
    Ok((tls, agent, certificate))
}

/// A whole CONNECT.
async fn greet(
    shared: &Shared,
    tls: &mut TlsStream<TcpStream>,
    frames: &mut Frames,
) -> Result<Connect, Refused> {
    match timeout(shared.limits.connect_deadline, frames.next(tls)).await {
        Ok(Ok(Packet::Connect(connect))) => Ok(connect),
        Ok(Ok(_)) => Err(Refused::new(Refusal::Unexpected, "not a CONNECT")),
        Ok(Err(Broken::Refused(why @ Refusal::ProtocolVersion))) => {
            Err(Refused::answered(why, packets::BAD_VERSION, ""))
        }
        Ok(Err(Broken::Refused(why))) => Err(Refused::new(why, "")),
        Ok(Err(Broken::Closed)) => Err(Refused::new(Refusal::NoConnect, "closed")),
        Err(_) => Err(Refused::new(Refusal::NoConnect, "deadline")),
    }
}

/// May it come in, and then its turn, its seat and its link.
async fn admit(
    shared: &Shared,
    agent: AgentId,
    certificate: &CertificateId,
    peer: SocketAddr,
    connect: &Connect,
) -> Result<Admitted, Refused> {
    let ask = || match shared.gate.admit(agent, certificate) {
        Admission::Admit => Ok(()),
        Admission::Unknown => Err(Refused::answered(Refusal::Unknown, packets::NOT_AUTHORIZED, "")),
        Admission::Revoked => Err(Refused::answered(Refusal::Revoked, packets::NOT_AUTHORIZED, "")),
    };
    ask()?;
    let will = rules::connect(agent, connect)
        .map_err(|why| Refused::answered(why, packets::NOT_AUTHORIZED, &connect.client))?;
    let limits = &shared.limits;
    let entry = shared.agents.entry(agent, limits, Instant::now());
    if !entry.may_connect(Instant::now()) {
        return Err(Refused::answered(Refusal::ConnectRate, packets::UNAVAILABLE, ""));
    }
    let ticket = entry.claim(&shared.ledger);
    // Asked again: whoever was revoked since the first answer has not been cut by its ticket.
    ask()?;
    let deadline = Instant::now() + limits.takeover_deadline;
    let prepare = async {
        // The seat of the connection that this one ends is among those waited for.
        let seat = match tokio::time::timeout_at(deadline, shared.seats.clone().acquire_owned()).await {
            Ok(Ok(seat)) => seat,
            _ => return Err(Refusal::ConnectionLimit),
        };
        let attach = async {
            let router = shared.router().await?;
            router.attach(agent).await
        };
        match tokio::time::timeout_at(deadline, attach).await {
            Ok(Ok(link)) => Ok((seat, link)),
            _ => Err(Refusal::Unavailable),
        }
    };
    let prepared = tokio::select! {
        () = ticket.over() => Err(Refusal::Unavailable),
        prepared = prepare => prepared,
    };
    let (seat, link) = prepared.map_err(|why| Refused::answered(why, packets::UNAVAILABLE, ""))?;
    let silence = rules::silence(connect.keep_alive, limits.keep_alive);
    Ok(Admitted { agent, peer, silence, will, ticket, link, seat })
}

/// A CONNACK that refuses, and time to read it: closing over unread bytes would reset the connection.
async fn say_why(mut tls: TlsStream<TcpStream>, code: u8) {
    let say = async {
        let mut out = BytesMut::new();
        packets::put_connack(&mut out, code);
        tls.write_all(&out).await?;
        tls.shutdown().await?;
        let mut rest = [0; 1024];
        for _ in 0..64 {
            if tls.read(&mut rest).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    // However it ends, the connection does.
    let _ = timeout(LINGER, say).await;
}
