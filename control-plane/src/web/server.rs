//! The HTTP listener.
//!
//! Limits: [`CONNECTIONS`] at once, [`HEAD`] for a request's head (an idle connection has as long),
//! bodies bounded where they are read. At the end, requests under way have [`ENDING`].

use crate::error::{Error, Result};
use axum::Router;
use axum::body::Body;
use hashinsight_protocol::units::DurationMs;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

const CONNECTIONS: usize = 1024;
const HEAD: DurationMs = DurationMs::from_secs(30);
const ENDING: DurationMs = DurationMs::from_secs(1);

/// The other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Serves until `shutdown`.
///
/// # Errors
/// The listener fails for good.
pub async fn run(listener: TcpListener, router: Router, shutdown: CancellationToken) -> Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(Error::internal)?;
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
            // Ended connections are collected, or the set would grow.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                connections.spawn(async move {
                    serve(stream, peer, router, shutdown).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, or the other end was gone already: others may do better.
                tracing::warn!(%error, "A connection could not be accepted.");
                tokio::time::sleep(DurationMs(100).into()).await;
            }
        }
    }
    let _ =
        tokio::time::timeout(ENDING.into(), async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, shutdown: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut router = router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        async move { router.call(request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(std::time::Duration::from(HEAD))
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // What goes wrong on a connection is the other end's business.
    tokio::select! {
        _ = &mut connection => {}
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
