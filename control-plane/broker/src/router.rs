//! One life of rumqttd's router, and the threads that touch it.
//!
//! The router is one thread behind a bounded channel; sending into it blocks, and so does building a
//! link. So:
//! - `door-feed` alone sends: it takes commands from a bounded queue, in order;
//! - `door-receive` takes what agents published off the control plane's own link and waits where
//!   the control plane is slow;
//! - `door-links` runs a small task for each agent's link: it waits until the agent's earlier link is
//!   detached, attaches, passes on what the router delivers, detaches;
//! - `door-watch` sends a ping through the router and gives it up when the ping does not come back.
//!
//! The crate is known to panic when a link that it has dropped is heard of again, when two links share
//! a name, and on topics that are not ASCII; commands in one order, one link an agent at a time and
//! the door's own checks keep these away. It has no way to be stopped: after [`Router`] is dropped its
//! thread idles, without links, until the process ends.

use crate::broker::{BrokerError, Up};
use crate::counters::Ledger;
use crate::limits::DoorLimits;
use crate::threads::{feed, receive, taken, watch_over};
use bytes::Bytes;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::topics::{Stream, Topic, UP_FILTER};
use rumqttd::local::{LinkBuilder, LinkError, LinkRx};
use rumqttd::{Forward, Notification, RouterConfig, SegmentConfig};
use std::collections::HashMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Upward messages share one ring of so many segments of so many bytes. A segment takes messages until
/// it has reached its size, so all but the oldest segment are surely kept.
const UP_SEGMENT: usize = 512 * 1024;
const UP_SEGMENTS: usize = 8;
const UP_CREDIT: usize = (UP_SEGMENTS - 1) * UP_SEGMENT;
/// Each agent's downward messages have a ring of their own, which stays in memory for as long as the
/// router lives; so it is small, and [`crate::downlink`] keeps the rest.
const DOWN_SEGMENT: usize = 4 * 1024;
const DOWN_SEGMENTS: usize = 2;
pub(crate) const DOWN_WINDOW_BYTES: usize = (DOWN_SEGMENTS - 1) * DOWN_SEGMENT;
/// Well below the 199 messages at which the router pauses a link.
pub(crate) const DOWN_WINDOW_MESSAGES: usize = 32;
/// Commands that wait for the router.
const COMMANDS: usize = 1024;
/// A topic inside the router that no agent can name.
pub(crate) const PING: &str = "/door/ping";

/// A message's size as the router's rings count it.
pub(crate) fn message_size(topic: usize, payload: usize) -> usize {
    4 + topic + payload
}

/// Is gone, or was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

pub(crate) enum Command {
    Attach {
        agent: AgentId,
        ready: oneshot::Sender<(u64, LinkRx)>,
    },
    Subscribe {
        link: u64,
        agent: AgentId,
    },
    Detach {
        link: u64,
    },
    /// From an agent's link, or from the door itself.
    Up {
        link: Option<u64>,
        topic: Topic,
        payload: Bytes,
        credit: OwnedSemaphorePermit,
    },
    Down {
        topic: Topic,
        payload: Bytes,
    },
}

/// The newest will of each agent that the control plane has not got; `None` once they were taken away.
pub(crate) type Wills = Arc<Mutex<Option<HashMap<AgentId, Bytes>>>>;

#[derive(Debug)]
pub(crate) struct Router {
    commands: mpsc::Sender<Command>,
    credit: Arc<Semaphore>,
    links: runtime::Handle,
    /// Held by the link that an agent has; the next one waits for it.
    turns: Mutex<HashMap<AgentId, Arc<tokio::sync::Mutex<()>>>>,
    dead: CancellationToken,
    /// Published but not yet with the control plane; the next router gets them if this one dies.
    wills: Wills,
    /// Ends the watch when it is dropped.
    _watch: SyncSender<()>,
}

impl Router {
    /// Starts a router and its threads. Blocks for as long as it takes to build two links.
    pub fn start(
        number: usize,
        limits: &DoorLimits,
        up: mpsc::Sender<Up>,
        ledger: Arc<Ledger>,
    ) -> Result<Self, BrokerError> {
        let up_segment = SegmentConfig { max_segment_size: UP_SEGMENT, max_segment_count: UP_SEGMENTS };
        let config = RouterConfig {
            // Beside the agents', a link for the control plane, one for the watch, and a few to spare.
            max_connections: limits.connections + 16,
            max_outgoing_packet_count: 200,
            max_segment_size: DOWN_SEGMENT,
            max_segment_count: DOWN_SEGMENTS,
            custom_segment: Some(HashMap::from([(UP_FILTER.to_owned(), up_segment)])),
            ..RouterConfig::default()
        };
        let router = rumqttd::Router::new(number, config).spawn();
        let build = move |client: &str, tenant: Option<String>| {
            let link = LinkBuilder::new(client, router.clone()).tenant_id(tenant).clean_session(true).build();
            match link {
                Ok((sender, receiver, _)) => Ok(Some((sender, receiver))),
                // The router has dropped the request, as it does when it is full, or is gone itself.
                Err(LinkError::Recv(_)) => Ok(None),
                Err(_) => Err(Gone),
            }
        };
        let own = |client, filter| {
            let failed = || BrokerError::Router(format!("it takes no link for {client}"));
            let (mut sender, receiver) = build(client, None).ok().flatten().ok_or_else(failed)?;
            taken(sender.subscribe(filter)).map_err(|_| failed())?;
            Ok((sender, receiver))
        };
        let (control, receiver) = own("control-plane", UP_FILTER)?;
        let (mut pinger, pings) = own("watch", PING)?;

        let dead = CancellationToken::new();
        let credit = Arc::new(Semaphore::new(UP_CREDIT));
        let (commands, queue) = mpsc::channel(COMMANDS);
        let (watch, stop) = sync_channel(0);
        let links = runtime::Builder::new_current_thread().build().map_err(BrokerError::Threads)?;
        let handle = links.handle().clone();

        let over = dead.clone();
        thread("door-links", move || links.block_on(over.cancelled()))?;
        thread("door-feed", move || feed(build, control, queue))?;
        let wills: Wills = Arc::new(Mutex::new(Some(HashMap::new())));
        let (over, returned, waiting) = (dead.clone(), credit.clone(), wills.clone());
        thread("door-receive", move || {
            receive(receiver, &up, &returned, &waiting, &ledger);
            over.cancel();
        })?;
        let (every, deadline, over) = (limits.ping_every, limits.ping_deadline, dead.clone());
        thread("door-watch", move || {
            watch_over(&mut pinger, pings, &stop, every, deadline);
            over.cancel();
        })?;
        Ok(Self { commands, credit, links: handle, turns: Mutex::default(), dead, wills, _watch: watch })
    }

    /// Returns when the router is dead or was given up.
    pub async fn died(&self) {
        self.dead.cancelled().await;
    }

    pub fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// A link for an agent, once its earlier link is detached.
    pub async fn attach(self: &Arc<Self>, agent: AgentId) -> Result<Link, Gone> {
        let turn = lock(&self.turns).entry(agent).or_default().clone();
        let (ready, link) = oneshot::channel();
        self.links.spawn(run_link(agent, turn, self.commands.clone(), ready));
        let (number, deliveries) = tokio::select! {
            link = link => link.map_err(|_| Gone)?,
            () = self.died() => return Err(Gone),
        };
        Ok(Link { agent, number, deliveries, router: self.clone() })
    }

    /// Publishes for an agent that can't any more. Waits for credit. If the router dies before the control
    /// plane has the will, [`Self::take_wills`] has it.
    pub async fn publish_will(&self, agent: AgentId, payload: Bytes) -> Result<(), Gone> {
        lock(&self.wills).as_mut().ok_or(Gone)?.insert(agent, payload.clone());
        // Gone by now is as good as gone later.
        let _ = self.up(None, Topic::Up(agent, Stream::Presence), payload).await;
        Ok(())
    }

    /// The wills that a dead router has not delivered. It takes no more of them.
    pub fn take_wills(&self) -> HashMap<AgentId, Bytes> {
        lock(&self.wills).take().unwrap_or_default()
    }

    async fn up(&self, link: Option<u64>, topic: Topic, payload: Bytes) -> Result<(), Gone> {
        let size = message_size(topic.to_string().len(), payload.len());
        let credit = self.credit.clone().acquire_many_owned(size as u32).await.map_err(|_| Gone)?;
        self.send(Command::Up { link, topic, payload, credit }).await
    }

    async fn send(&self, command: Command) -> Result<(), Gone> {
        tokio::select! {
            sent = self.commands.send(command) => sent.map_err(|_| Gone),
            () = self.died() => Err(Gone),
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.dead.cancel();
    }
}

/// An agent's way into the router; detached when dropped.
#[derive(Debug)]
pub(crate) struct Link {
    agent: AgentId,
    number: u64,
    deliveries: mpsc::Receiver<Delivery>,
    router: Arc<Router>,
}

/// A message from the control plane.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub topic: Bytes,
    pub payload: Bytes,
}

/// The sending half of a [`Link`].
#[derive(Clone, Debug)]
pub(crate) struct LinkSender {
    agent: AgentId,
    number: u64,
    router: Arc<Router>,
}

impl Link {
    pub fn sender(&self) -> LinkSender {
        LinkSender { agent: self.agent, number: self.number, router: self.router.clone() }
    }

    /// The next message for the agent; `None` when the router is gone.
    pub async fn recv(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }

    pub fn try_recv(&mut self) -> Option<Delivery> {
        self.deliveries.try_recv().ok()
    }
}

impl LinkSender {
    /// Publishes upward. Waits while the control plane is behind.
    pub async fn up(&self, topic: Topic, payload: Bytes) -> Result<(), Gone> {
        self.router.up(Some(self.number), topic, payload).await
    }

    /// Publishes downward, as the control plane.
    pub async fn down(&self, topic: Topic, payload: Bytes) -> Result<(), Gone> {
        self.router.send(Command::Down { topic, payload }).await
    }

    /// Subscribes to the agent's own filter.
    pub async fn subscribe(&self) -> Result<(), Gone> {
        self.router.send(Command::Subscribe { link: self.number, agent: self.agent }).await
    }
}

// Every change under these locks is whole, so a poisoned one is as good as any.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

pub(crate) fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), BrokerError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop).map_err(BrokerError::Threads)
}

/// The life of one agent's link. Never cancelled but by the router's end, so whatever is attached is
/// detached, and before the turn is passed on.
async fn run_link(
    agent: AgentId,
    turn: Arc<tokio::sync::Mutex<()>>,
    commands: mpsc::Sender<Command>,
    ready: oneshot::Sender<(u64, mpsc::Receiver<Delivery>)>,
) {
    let _turn = turn.lock().await;
    if ready.is_closed() {
        return;
    }
    let (attached, answer) = oneshot::channel();
    if commands.send(Command::Attach { agent, ready: attached }).await.is_err() {
        return;
    }
    let Ok((link, receiver)) = answer.await else { return };
    let (out, deliveries) = mpsc::channel(DOWN_WINDOW_MESSAGES);
    if ready.send((link, deliveries)).is_ok() {
        deliver(receiver, &out).await;
    }
    // The receiver is gone by now: a link that speaks after it is detached would kill the router.
    let _ = commands.send(Command::Detach { link }).await;
}

async fn deliver(mut receiver: LinkRx, out: &mpsc::Sender<Delivery>) {
    loop {
        let notification = tokio::select! {
            () = out.closed() => return,
            notification = receiver.next() => notification,
        };
        let gone = match notification {
            Ok(Some(Notification::Forward(Forward { publish, .. }))) => {
                let delivery = Delivery { topic: publish.topic, payload: publish.payload };
                out.send(delivery).await.is_err()
            }
            // Without an answer the router would never deliver to this link again.
            Ok(Some(Notification::Unschedule)) => receiver.wake().await.is_err(),
            Ok(_) => false,
            Err(_) => true,
        };
        if gone {
            return;
        }
    }
}
