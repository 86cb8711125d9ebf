//! The bounds of the door, with values for a control plane of some thousand agents.

use hashinsight_protocol::limits;
use std::time::Duration;

/// The largest upward message that the router takes.
const UP_MOST: usize = 1024 * 1024;

/// What one door allows. Every field may be changed before [`crate::Broker::start`].
#[derive(Clone, Debug)]
pub struct DoorLimits {
    /// Agents connected at once.
    pub connections: usize,
    /// Connections that have not yet sent a valid CONNECT.
    pub handshakes: usize,
    /// How long a peer may say nothing at all once `handshakes` is reached; before that it has
    /// the whole handshake deadline.
    pub silence: Duration,
    /// From accept to the end of the TLS handshake.
    pub handshake_deadline: Duration,
    /// From the end of the handshake to a whole CONNECT.
    pub connect_deadline: Duration,
    /// For the end of an agent's earlier connection and a link to the router.
    pub takeover_deadline: Duration,
    /// Connects of one agent: a burst, and how often one more is allowed.
    pub connect_burst: u32,
    pub connect_every: Duration,
    /// A CONNECT, its will included.
    pub connect_bytes: usize,
    /// A published payload.
    pub up_bytes: usize,
    /// Publishes of one agent in a second, twice that in a burst; above it the door reads slower.
    pub up_messages_per_second: u32,
    /// Published bytes of one agent in a second, twice that in a burst; above it the door reads slower.
    pub up_bytes_per_second: u32,
    /// Messages waiting for the control plane, beside those in the router.
    pub up_queue: usize,
    /// Messages waiting for one agent.
    pub down_queue: usize,
    /// Bytes waiting for one agent; at least one message of any size is taken.
    pub down_queue_bytes: usize,
    /// How long a peer may take nothing of what is written to it.
    pub write_deadline: Duration,
    /// The longest keep-alive; an agent that asks for more, or for none, gets this.
    pub keep_alive: Duration,
    /// How often a ping goes through the router.
    pub ping_every: Duration,
    /// When a ping is not back by then, the router is given up.
    pub ping_deadline: Duration,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            connections: 5000,
            handshakes: 512,
            silence: Duration::from_secs(1),
            handshake_deadline: Duration::from_secs(5),
            connect_deadline: Duration::from_secs(5),
            takeover_deadline: Duration::from_secs(10),
            connect_burst: 20,
            connect_every: Duration::from_secs(2),
            connect_bytes: 4096,
            up_bytes: limits::UP_BYTES,
            up_messages_per_second: 1000,
            up_bytes_per_second: 16 * 1024 * 1024,
            up_queue: 64,
            down_queue: 256,
            down_queue_bytes: 2 * limits::DOWN_BYTES,
            write_deadline: Duration::from_secs(20),
            keep_alive: Duration::from_secs(20 * 60),
            ping_every: Duration::from_secs(5),
            ping_deadline: Duration::from_secs(10),
        }
    }
}

impl DoorLimits {
    /// With what would never work put right: a message must fit into the credit for upward messages,
    /// and a queue holds something.
    pub(crate) fn bounded(mut self) -> Self {
        self.up_bytes = self.up_bytes.min(UP_MOST);
        self.connect_bytes = self.connect_bytes.min(UP_MOST);
        self.connections = self.connections.clamp(1, 1 << 20);
        self.up_queue = self.up_queue.max(1);
        self.down_queue = self.down_queue.max(1);
        self
    }
}
