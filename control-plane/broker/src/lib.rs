//! The embedded MQTT broker: rumqttd's router behind a front door of our own.
//!
//! Limits: [`DoorLimits`] bounds connections, unfinished handshakes, packet sizes, rates, queues and
//! every wait. Nothing is allocated by a length that a peer merely claims.
//!
//! The way of a connection:
//! 1. TCP accept, TCP_NODELAY, one task each. Unfinished handshakes form a crowd of bounded size;
//!    when it is full, peers that have not said a word make room first, then the slowest of the
//!    address that has sent the most. (Slow peers from more addresses than the crowd has places can
//!    keep newcomers waiting; who is connected is not disturbed even then.)
//! 2. TLS with a deadline, client certificate required; its CN and O are both the agent's id.
//! 3. CONNECT with a deadline; MQTT 3.1.1, the client id is the agent's id, a will only to the
//!    agent's own presence topic. [`Gate`] decides from memory. Refusals are CONNACK codes.
//! 4. An earlier connection of the same agent ends first, its link to the router included.
//! 5. A tenant link into the router, which checks the topic prefix a second time.
//!
//! Rules of a session: an agent publishes to its own `up/` streams at QoS 0 or 1, never retained,
//! and subscribes to its own `down/#` and nothing else. A foreign publish closes the connection, a
//! foreign filter gets a SUBACK failure. QoS 1 is kept by the door, on each side of the router; a
//! PUBACK says that the message is on its way inside this process and no more. Sessions are not
//! kept: whatever must survive is resent by its owner's database.
//!
//! The router's logs are rings that overwrite what was not read. So the door hands it only as much
//! as fits: upward by credit that returns when the control plane has taken the message, downward by
//! a window for each agent. When the control plane falls behind, the door stops reading.
//!
//! Recovery: calls into the router may block, so they happen on threads of their own; the runtime
//! goes on if the router stalls. A ping goes through the router every few seconds; when it does not
//! come back, a new router takes over and all agents connect again. Wills go to the new one.
//!
//! The log target `rumqttd` is chatty; filter it to warnings.

mod agents;
mod broker;
mod bucket;
mod counters;
mod crowd;
mod door;
mod downlink;
mod frames;
mod limits;
mod packets;
mod router;
mod rules;
mod session;
mod threads;
mod tls;

pub use agents::SendError;
pub use broker::{Broker, BrokerError, Settings, Up};
pub use counters::{Counters, REFUSALS_KEPT, Refusal, RefusedLately};
pub use limits::DoorLimits;
pub use tls::{Admission, CertificateId, Gate, server_tls};
