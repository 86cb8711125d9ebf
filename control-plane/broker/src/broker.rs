//! The handle that the control plane holds, and the supervision of the router.

use crate::agents::{Agents, SendError};
use crate::counters::{Counters, Ledger, RefusedLately, one};
use crate::crowd::Crowd;
use crate::door;
use crate::limits::DoorLimits;
use crate::router::{Gone, Router, thread};
use crate::tls::Gate;
use bytes::Bytes;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::topics::{Down, Stream};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

/// Between two routers, so that one that dies at once does not keep a core busy.
const REBUILD_PAUSE: Duration = Duration::from_millis(200);
/// For the ends of all connections at shutdown.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);
/// Routers of this process, so that their threads have names of their own.
static ROUTERS: AtomicUsize = AtomicUsize::new(0);

/// Where to listen, and what to allow.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub limits: DoorLimits,
}

/// A message from an agent. The agent is the one of the certificate. A will is a message on
/// [`Stream::Presence`] like the agent's own; it comes when a connection ends without DISCONNECT, by
/// takeover and by [`Broker::cut`] too, and before anything that a newer connection sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    pub agent: AgentId,
    pub stream: Stream,
    pub payload: Bytes,
}

/// Why the broker did not start.
#[derive(Debug, Error)]
pub enum BrokerError {
    #[error("cannot listen for agents on {address}: {source}; choose another address or free this one")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("TLS for agents cannot be set up: {0}")]
    Tls(String),
    #[error("the MQTT router did not start: {0}")]
    Router(String),
    #[error("the broker's threads cannot be started: {0}")]
    Threads(std::io::Error),
}

/// The running broker. It goes on until [`Broker::shutdown`], or until the receiver of what agents send
/// is dropped; dropping the handle does not end it.
#[derive(Clone)]
pub struct Broker(Arc<Shared>);

/// What the door's tasks share.
pub(crate) struct Shared {
    pub limits: DoorLimits,
    pub address: SocketAddr,
    pub gate: Arc<dyn Gate>,
    pub agents: Agents,
    pub ledger: Arc<Ledger>,
    pub crowd: Arc<Crowd>,
    /// One for each agent that may be connected.
    pub seats: Arc<Semaphore>,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    tls: RwLock<Arc<rustls::ServerConfig>>,
    router: watch::Sender<Option<Arc<Router>>>,
}

impl Broker {
    /// Listens. `tls` must require client certificates, as [`crate::server_tls`] makes it; without one
    /// nobody is admitted. What agents send comes out of the receiver; while it is full, agents wait.
    pub async fn start(
        settings: Settings,
        tls: Arc<rustls::ServerConfig>,
        gate: Arc<dyn Gate>,
    ) -> Result<(Self, mpsc::Receiver<Up>), BrokerError> {
        let Settings { listen, limits } = settings;
        let listener = TcpListener::bind(listen).await;
        let listener = listener.map_err(|source| BrokerError::Listen { address: listen, source })?;
        Self::start_on(listener, limits, tls, gate).await
    }

    /// [`Broker::start`] on a listener that is bound already.
    pub async fn start_on(
        listener: TcpListener,
        limits: DoorLimits,
        tls: Arc<rustls::ServerConfig>,
        gate: Arc<dyn Gate>,
    ) -> Result<(Self, mpsc::Receiver<Up>), BrokerError> {
        let unbound = SocketAddr::from(([0, 0, 0, 0], 0));
        let address =
            listener.local_addr().map_err(|source| BrokerError::Listen { address: unbound, source })?;
        let limits = limits.bounded();
        let (up, receiver) = mpsc::channel(limits.up_queue);
        let ledger = Arc::new(Ledger::new());
        let router = start_router(&limits, &up, &ledger).await?;
        let shared = Arc::new(Shared {
            address,
            gate,
            agents: Agents::default(),
            crowd: Crowd::new(limits.handshakes, limits.silence),
            seats: Arc::new(Semaphore::new(limits.connections)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            tls: RwLock::new(tls),
            router: watch::Sender::new(Some(router)),
            ledger,
            limits,
        });
        info!(%address, "listening for agents");
        shared.tasks.spawn(supervise(shared.clone(), up));
        shared.tasks.spawn(door::accept(shared.clone(), listener));
        Ok((Self(shared), receiver))
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.0.address
    }

    /// Another server certificate or CA set, for connections from now on.
    pub fn set_tls(&self, tls: Arc<rustls::ServerConfig>) {
        *self.0.tls.write().unwrap_or_else(|e| e.into_inner()) = tls;
    }

    /// Queues a message for a connected agent; never waits. Taken is not delivered: only what the agent
    /// says later proves that.
    pub fn try_send(&self, agent: AgentId, kind: Down, payload: Bytes) -> Result<(), SendError> {
        self.0.agents.try_send(agent, kind, payload, &self.0.ledger)
    }

    /// Closes the agent's open connections at once. Whether it may come back is the gate's to say.
    pub fn cut(&self, agent: AgentId) {
        if self.0.agents.cut(agent) {
            one(&self.0.ledger.cut);
            info!(%agent, "cut off");
        }
    }

    /// The agents that are connected now, in no order.
    pub fn connected(&self) -> Vec<AgentId> {
        self.0.agents.connected()
    }

    pub fn counters(&self) -> Counters {
        self.0.ledger.snapshot()
    }

    /// What was refused since the last call, gathered by reason, agent and address; the most frequent
    /// first, and [`REFUSALS_KEPT`](crate::REFUSALS_KEPT) at most. For an audit log that strangers can't flood.
    pub fn take_refusals(&self) -> Vec<RefusedLately> {
        self.0.ledger.take_refusals()
    }

    /// Closes all connections, without wills, and stops listening.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(SHUTDOWN_DEADLINE, self.0.tasks.wait()).await.is_err() {
            error!(left = self.0.tasks.len(), "connections did not end in time");
        }
        self.0.router.send_replace(None);
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl Shared {
    pub fn tls(&self) -> Arc<rustls::ServerConfig> {
        self.tls.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// The living router; waits while there is none.
    pub async fn router(&self) -> Result<Arc<Router>, Gone> {
        let mut routers = self.router.subscribe();
        let living = |r: &Option<Arc<Router>>| r.as_ref().is_some_and(|r| !r.is_dead());
        let router = routers.wait_for(living).await.map_err(|_| Gone)?;
        router.clone().ok_or(Gone)
    }

    /// Publishes the will of an agent whose connection is gone, to the next router if this one dies.
    pub async fn publish_will(&self, agent: AgentId, payload: Bytes) {
        let publish = async {
            while let Ok(router) = self.router().await {
                if router.publish_will(agent, payload.clone()).await.is_ok() {
                    return true;
                }
            }
            false
        };
        match tokio::time::timeout(self.limits.takeover_deadline, publish).await {
            Ok(true) => one(&self.ledger.wills),
            _ => one(&self.ledger.wills_lost),
        }
    }
}

/// Keeps a living router in place.
async fn supervise(shared: Arc<Shared>, up: mpsc::Sender<Up>) {
    loop {
        let Some(router) = shared.router.borrow().clone() else { return };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = up.closed() => {
                error!("nobody takes what agents send any more; the door closes");
                shared.stop.cancel();
                return;
            }
            () = router.died() => {}
        }
        one(&shared.ledger.router_restarts);
        error!("the MQTT router is dead; all agents are disconnected and a new one is built");
        loop {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = tokio::time::sleep(REBUILD_PAUSE) => {}
            }
            let next = tokio::select! {
                () = shared.stop.cancelled() => return,
                next = start_router(&shared.limits, &up, &shared.ledger) => next,
            };
            match next {
                Ok(next) => {
                    hand_over(&shared, &router, &next).await;
                    shared.router.send_replace(Some(next));
                    break;
                }
                Err(e) => error!("{e}"),
            }
        }
    }
}

/// Gives the next router the wills that the dead one did not deliver, before agents come to it.
async fn hand_over(shared: &Shared, dead: &Router, next: &Router) {
    let mut wills = dead.take_wills();
    let publish = async {
        while let Some(&agent) = wills.keys().next() {
            if let Some(payload) = wills.get(&agent)
                && next.publish_will(agent, payload.clone()).await.is_err()
            {
                return;
            }
            wills.remove(&agent);
        }
    };
    let _ = tokio::time::timeout(shared.limits.takeover_deadline, publish).await;
    for _ in &wills {
        one(&shared.ledger.wills_lost);
    }
}

async fn start_router(
    limits: &DoorLimits,
    up: &mpsc::Sender<Up>,
    ledger: &Arc<Ledger>,
) -> Result<Arc<Router>, BrokerError> {
    let number = ROUTERS.fetch_add(1, Relaxed);
    let (limits, up, ledger) = (limits.clone(), up.clone(), ledger.clone());
    let deadline = limits.ping_deadline;
    let (started, ready) = oneshot::channel();
    // Not on the runtime's own threads: its end would wait for a router that never answers.
    thread("door-start", move || drop(started.send(Router::start(number, &limits, up, ledger))))?;
    match tokio::time::timeout(deadline, ready).await {
        Ok(Ok(router)) => router.map(Arc::new),
        Ok(Err(_)) => Err(BrokerError::Router("it panicked".to_owned())),
        Err(_) => Err(BrokerError::Router("it does not answer".to_owned())),
    }
}
