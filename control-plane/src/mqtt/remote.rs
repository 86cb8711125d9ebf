//! A broker of the operator's own (mosquitto, EMQX, HiveMQ, VerneMQ): the control plane is one of its clients.
//!
//! - **Known by** a certificate that our authority makes for each connection, in the name of the
//!   configured user; the broker's own must be by an authority of the trust list.
//! - **Relied upon** is nothing but that messages pass: a clean session, a subscription on every CONNACK, and
//!   after any failure another client after a pause, [`FIRST_PAUSE`] to [`LAST_PAUSE`]. What was queued is
//!   lost then; agents send again what was not acknowledged, and the reconciler what they lack.
//! - **Topics** are believed as far as the broker's access rules are; every message is signed by its agent
//!   besides, so that a broker that is taken over can delay and not forge.
//! - **Shared**: replicas subscribe as one group, each message goes to one of them.
//! - **Limits**: [`QUEUE`] messages wait to be sent. While ingest is behind, nothing is read: the broker queues,
//!   then drops, and agents send again.
//!
//! The client library is built without TLS of its own (it carries open advisories) and talks to a private
//! socket, as on the agent's side.

use crate::App;
use crate::error::{Error, Kind, Result};
use bytes::Bytes;
use hashinsight_broker::{SendError, Up};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::limits;
use hashinsight_protocol::topics::{Down, Topic, UP_SHARED};
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, QoS, SubscribeReasonCode, Transport,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Messages that wait to be sent, to all agents.
const QUEUE: usize = 4096;
const CONNECT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(15);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// An agent sends something every minute; one that is silent for longer is away.
const SILENCE: Duration = Duration::from_secs(5 * 60);
const SHUTDOWN: Duration = Duration::from_secs(5);
/// More than the broker lets through at once: its limit is to hold, not the client's.
const CLIENT_WINDOW: u16 = 1000;

/// Where the operator's broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host name or IP address; the broker's certificate must name it.
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Reads `mqtts://HOST:PORT`.
    ///
    /// # Errors
    /// It is not that.
    pub fn parse(url: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("broker: \"{url}\" is not mqtts://HOST:PORT"));
        let rest = url.strip_prefix("mqtts://").ok_or_else(wrong)?.trim_end_matches('/');
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => v6.split_once(']').map(|(host, port)| (host, port.strip_prefix(':').unwrap_or(port))),
            None => Some(rest.rsplit_once(':').unwrap_or((rest, ""))),
        }
        .ok_or_else(wrong)?;
        let port = if port.is_empty() { 8883 } else { port.parse().map_err(|_| wrong())? };
        ServerName::try_from(host).map_err(|_| wrong())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

/// The client; clones are the same.
#[derive(Clone, Debug)]
pub struct Remote(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    out: mpsc::Sender<(Topic, Bytes)>,
    /// When each agent was last heard of.
    heard: Mutex<HashMap<AgentId, Instant>>,
    listening_since: Mutex<Option<Instant>>,
    connected: AtomicBool,
    connections: AtomicU64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

// Every change under these locks is whole, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remote {
    /// Starts the client, which connects by itself and goes on until [`Self::shutdown`]. What agents send comes
    /// out of the receiver.
    pub fn start(app: Arc<App>, address: Address, queue: usize) -> (Self, mpsc::Receiver<Up>) {
        let (up, receiver) = mpsc::channel(queue);
        let (out, waiting) = mpsc::channel(QUEUE);
        let remote = Self(Arc::new(Shared {
            out,
            heard: Mutex::default(),
            listening_since: Mutex::default(),
            connected: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        let (inner, stop) = (remote.clone(), remote.0.stop.clone());
        remote.0.tasks.spawn(async move {
            let _ = stop.run_until_cancelled(inner.keep_up(app, address, up, waiting)).await;
        });
        remote.0.tasks.close();
        (remote, receiver)
    }

    /// Queues a message.
    ///
    /// # Errors
    /// It is too large, or too many wait.
    pub fn try_send(&self, agent: AgentId, kind: Down, payload: Bytes) -> Result<(), SendError> {
        if payload.len() > limits::DOWN_BYTES {
            return Err(SendError::TooLarge);
        }
        self.0.out.try_send((Topic::Down(agent, kind), payload)).map_err(|_| SendError::Full)
    }

    pub fn forget(&self, agent: AgentId) {
        lock(&self.0.heard).remove(&agent);
    }

    pub fn heard(&self) -> Vec<AgentId> {
        let now = Instant::now();
        let mut heard = lock(&self.0.heard);
        heard.retain(|_, at| now.duration_since(*at) < SILENCE);
        heard.keys().copied().collect()
    }

    /// Whether every agent that is there must have been heard by now.
    pub fn has_listened_long(&self) -> bool {
        lock(&self.0.listening_since).is_some_and(|since| since.elapsed() >= SILENCE)
    }

    /// Whether the broker has us now, and how often it took us in.
    pub fn state(&self) -> (bool, u64) {
        (self.0.connected.load(Ordering::Relaxed), self.0.connections.load(Ordering::Relaxed))
    }

    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        let _ = timeout(SHUTDOWN, self.0.tasks.wait()).await;
    }

    async fn keep_up(
        &self,
        app: Arc<App>,
        address: Address,
        up: mpsc::Sender<Up>,
        mut waiting: mpsc::Receiver<(Topic, Bytes)>,
    ) {
        let mut pause = FIRST_PAUSE;
        loop {
            let before = self.0.connections.load(Ordering::Relaxed);
            let ended = self.connection(&app, &address, &up, &mut waiting).await;
            self.0.connected.store(false, Ordering::Relaxed);
            *lock(&self.0.listening_since) = None;
            if up.is_closed() {
                return;
            }
            match ended {
                Err(error) => tracing::warn!(error = error.chain(), "There is no connection to the broker."),
                Ok(why) => tracing::warn!(why, "The connection to the broker is over."),
            }
            if self.0.connections.load(Ordering::Relaxed) > before {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// One connection, to its end; why it ended.
    async fn connection(
        &self,
        app: &App,
        address: &Address,
        up: &mpsc::Sender<Up>,
        waiting: &mut mpsc::Receiver<(Topic, Bytes)>,
    ) -> Result<String> {
        let (socket, _relay) = relay(app, address).await?;
        let mut options = MqttOptions::new(&app.config.broker_user, socket, 0);
        options.set_transport(Transport::unix());
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_inflight(CLIENT_WINDOW);
        options.set_max_packet_size(limits::PACKET_BYTES, limits::PACKET_BYTES);
        let (client, mut events) = AsyncClient::new(options, 64);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT.as_secs());
        events.set_network_options(network);
        // Sending and polling side by side: the client takes a message only while it is polled.
        let sending = async {
            loop {
                let Some((topic, payload)) = waiting.recv().await else {
                    return "nobody sends any more".to_owned();
                };
                if let Err(error) = client.publish(topic.to_string(), QoS::AtLeastOnce, false, payload).await
                {
                    return error.to_string();
                }
            }
        };
        tokio::select! {
            why = sending => Ok(why),
            why = self.poll(&client, &mut events, up) => Ok(why),
            () = up.closed() => Ok("nobody takes what agents send any more".to_owned()),
        }
    }

    async fn poll(&self, client: &AsyncClient, events: &mut EventLoop, up: &mpsc::Sender<Up>) -> String {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    if client.try_subscribe(UP_SHARED, QoS::AtLeastOnce).is_err() {
                        return "the subscription can't be asked for".to_owned();
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => {
                    if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                        return format!(
                            "the broker refuses {UP_SHARED} to this user; look at its access rules"
                        );
                    }
                    self.0.connections.fetch_add(1, Ordering::Relaxed);
                    self.0.connected.store(true, Ordering::Relaxed);
                    *lock(&self.0.listening_since) = Some(Instant::now());
                    tracing::info!("The broker hands over what agents send.");
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let Some(Topic::Up(agent, stream)) = Topic::parse(&publish.topic) else { continue };
                    if publish.payload.len() > limits::UP_BYTES {
                        continue;
                    }
                    lock(&self.0.heard).insert(agent, Instant::now());
                    if up.send(Up { agent, stream, payload: publish.payload }).await.is_err() {
                        return "nobody takes what agents send any more".to_owned();
                    }
                }
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    }
}

/// A private socket whose bytes go to the broker by TLS, for one connection.
async fn relay(app: &App, address: &Address) -> Result<(String, impl Sized)> {
    let failed = |what: String| Error::new(Kind::Unavailable, what);
    let tls = TlsConnector::from(Arc::new(tls(app)?));
    let name = ServerName::try_from(address.host.clone()).map_err(Error::internal)?;
    let at = format!("{}:{}", address.host, address.port);
    let tcp = timeout(CONNECT, TcpStream::connect((address.host.as_str(), address.port))).await;
    let tcp = tcp.map_err(|_| failed(format!("the broker at {at} does not answer")))?;
    let tcp = tcp.map_err(|e| failed(format!("the broker at {at} can't be reached: {e}")))?;
    tcp.set_nodelay(true).map_err(Error::internal)?;
    let far = timeout(CONNECT, tls.connect(name, tcp)).await;
    let far = far.map_err(|_| failed(format!("the broker at {at} does not answer")))?;
    let mut far = far.map_err(|e| failed(format!("TLS with the broker at {at} fails: {e}")))?;
    let (listener, socket, folder) = listen(&app.config.data).map_err(Error::internal)?;
    let path = socket.clone();
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let own = i32::try_from(std::process::id()).ok();
        let near = timeout(CONNECT, async {
            loop {
                let (near, _) = listener.accept().await?;
                // Others are turned away.
                if near.peer_cred()?.pid() == own {
                    return std::io::Result::Ok(near);
                }
            }
        });
        let near = near.await;
        let _ = std::fs::remove_file(&path);
        if let Ok(Ok(mut near)) = near
            && let Err(error) = copy_bidirectional(&mut near, &mut far).await
        {
            // What TLS has to say, a refused certificate for one, the MQTT client does not know.
            tracing::warn!(%error, "The connection to the broker failed.");
        }
    }));
    Ok((socket, (task, folder)))
}

/// Listens in a folder that nobody else can enter.
fn listen(data: &Path) -> std::io::Result<(UnixListener, String, File)> {
    let path = data.join("run");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    let folder = File::open(&path)?;
    // A socket's path may be 107 bytes long; through the descriptor it's short wherever the folder is.
    let socket = format!("/proc/self/fd/{}/mqtt", folder.as_raw_fd());
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok((UnixListener::bind(&socket)?, socket, folder))
}

/// With a certificate made for this connection.
fn tls(app: &App) -> Result<ClientConfig> {
    let held = app.agents.held();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(held.keys.list().authorities.iter().map(|der| der.clone().into()));
    let own = held.authority.client(&app.config.broker_user, app.clock.now())?;
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?
        .with_root_certificates(roots)
        .with_client_auth_cert(own.chain, own.key)
        .map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (url, expect) in [
            ("mqtts://mqtt.example", Some(("mqtt.example", 8883))),
            ("mqtts://mqtt.example:8884/", Some(("mqtt.example", 8884))),
            ("mqtts://[::1]:1", Some(("::1", 1))),
            ("mqtts://[::1]", Some(("::1", 8883))),
            ("mqtt://mqtt.example:1883", None),
            ("mqtts://", None),
            ("mqtts://a b", None),
            ("mqtts://a:port", None),
        ] {
            let found = Address::parse(url).ok();
            assert_eq!(found.as_ref().map(|a| (a.host.as_str(), a.port)), expect, "{url}");
        }
    }
}
