//! An MQTT connection as the uplink needs it, and the one implementation of it.
//!
//! The client library lives for one connection: it keeps unsent and unacknowledged messages of its own,
//! loses them in some reconnections and can live-lock in others, so nothing of it is used again.

use super::relay::{self, LinkError, Relay};
use crate::clock::Clock;
use crate::renewal::Holder;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::limits;
use hashinsight_protocol::topics::{Stream, Topic};
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, NetworkOptions, Packet, QoS,
    SubscribeReasonCode, Transport,
};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// For the broker's CONNACK, and for each write.
const PATIENCE_S: u64 = 30;
/// Messages handed to the client and not yet on the wire: the windows of all streams and some words.
const QUEUE: usize = 128;
/// More than all windows: the client's own limit must never be the one that holds.
const CLIENT_WINDOW: u16 = 1000;

/// What a connection says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    Connected,
    Subscribed,
    Message {
        topic: String,
        payload: Vec<u8>,
    },
    /// The broker has taken a message. Says that the wire lives, and nothing of the message.
    Moved,
    /// The connection is over.
    Down(String),
}

pub trait Wire: Send {
    /// The next word; may be dropped and called again.
    fn next(&mut self) -> impl Future<Output = Incoming> + Send;
    /// Sends at QoS 1, not retained; `false` when the wire is busy.
    fn publish(&mut self, topic: Topic, payload: Vec<u8>) -> bool;
    /// `false` when the wire is busy.
    fn subscribe(&mut self, filter: String) -> bool;
    /// Leaves in order, after what was published.
    fn leave(&mut self);
}

pub trait Connect: Send + Sync {
    type Wire: Wire;
    /// A new connection, whose end without a word makes the broker publish `will` on the presence topic.
    fn connect(&self, will: Vec<u8>) -> impl Future<Output = Result<Self::Wire, LinkError>> + Send;
}

/// Connects by mutual TLS to the identity's broker, as the identity is then.
pub struct MqttConnector {
    holder: Holder,
    clock: Clock,
    data_dir: PathBuf,
}

impl MqttConnector {
    pub fn new(holder: Holder, clock: Clock, data_dir: &Path) -> Self {
        Self { holder, clock, data_dir: data_dir.to_owned() }
    }
}

impl Connect for MqttConnector {
    type Wire = MqttWire;

    async fn connect(&self, will: Vec<u8>) -> Result<MqttWire, LinkError> {
        let (identity, authorities) = (self.holder.identity(), self.holder.trust().authorities());
        let relay = relay::open(&identity, &authorities, &self.clock, &self.data_dir).await?;
        Ok(MqttWire::new(identity.agent(), relay, will))
    }
}

pub struct MqttWire {
    client: AsyncClient,
    incoming: mpsc::Receiver<Incoming>,
    relay: Relay,
    _driver: AbortOnDropHandle<()>,
}

impl MqttWire {
    fn new(agent: AgentId, relay: Relay, will: Vec<u8>) -> Self {
        let mut options = MqttOptions::new(agent.to_string(), relay.socket.clone(), 0);
        options.set_transport(Transport::unix());
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_inflight(CLIENT_WINDOW);
        options.set_max_packet_size(limits::PACKET_BYTES, limits::PACKET_BYTES);
        let presence = Topic::Up(agent, Stream::Presence).to_string();
        options.set_last_will(LastWill::new(presence, will, QoS::AtLeastOnce, false));
        let (client, mut events) = AsyncClient::new(options, QUEUE);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(PATIENCE_S);
        events.set_network_options(network);
        let (tell, incoming) = mpsc::channel(QUEUE);
        let driver = AbortOnDropHandle::new(tokio::spawn(drive(events, tell)));
        Self { client, incoming, relay, _driver: driver }
    }
}

/// Runs the client to the connection's end.
async fn drive(mut events: EventLoop, tell: mpsc::Sender<Incoming>) {
    loop {
        let incoming = match events.poll().await {
            Ok(Event::Incoming(packet)) => match understood(packet) {
                Some(incoming) => incoming,
                None => continue,
            },
            Ok(Event::Outgoing(_)) => continue,
            Err(error) => Incoming::Down(words(error)),
        };
        let over = matches!(incoming, Incoming::Down(_));
        if tell.send(incoming).await.is_err() || over {
            return;
        }
    }
}

fn understood(packet: Packet) -> Option<Incoming> {
    match packet {
        Packet::ConnAck(_) => Some(Incoming::Connected),
        Packet::SubAck(ack) => {
            let refused = ack.return_codes.contains(&SubscribeReasonCode::Failure);
            let down = "the broker refuses the subscription to the agent's own topics";
            Some(if refused { Incoming::Down(down.to_owned()) } else { Incoming::Subscribed })
        }
        Packet::Publish(message) => {
            Some(Incoming::Message { topic: message.topic, payload: message.payload.into() })
        }
        Packet::PubAck(_) => Some(Incoming::Moved),
        Packet::Disconnect => Some(Incoming::Down("the broker has ended the connection".to_owned())),
        _ => None,
    }
}

fn words(error: ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refuses this agent ({code:?})"),
        ConnectionError::NetworkTimeout => "the broker does not answer".to_owned(),
        ConnectionError::FlushTimeout => "the broker takes no more".to_owned(),
        error => error.to_string(),
    }
}

impl Wire for MqttWire {
    async fn next(&mut self) -> Incoming {
        match self.incoming.recv().await {
            // TLS knows better why.
            Some(Incoming::Down(why)) => Incoming::Down(self.relay.trouble().unwrap_or(why)),
            Some(incoming) => incoming,
            None => Incoming::Down("the connection is over".to_owned()),
        }
    }

    fn publish(&mut self, topic: Topic, payload: Vec<u8>) -> bool {
        self.client.try_publish(topic.to_string(), QoS::AtLeastOnce, false, payload).is_ok()
    }

    fn subscribe(&mut self, filter: String) -> bool {
        self.client.try_subscribe(filter, QoS::AtLeastOnce).is_ok()
    }

    fn leave(&mut self) {
        let _ = self.client.try_disconnect();
    }
}
