//! The wire to the control plane: sends what the store keeps, takes documents and orders.
//!
//! **What is relied upon**: nothing but the control plane's own signed words. The broker's sessions,
//! retained messages and PUBACKs prove nothing; every connection starts from nothing: subscribe, hello,
//! welcome, then send.
//!
//! **Sending**: at most [`WINDOW`](hashinsight_protocol::limits::WINDOW) batches of a stream are on the
//! wire; what was read since the connection began goes before what is older; what isn't acknowledged is
//! sent again after a pause that doubles; an acknowledgement deletes, and nothing else does. A control
//! plane that is too busy withholds acknowledgements, and the window stands still.
//!
//! **Taking**: an envelope counts when it is addressed to this agent and signed by a key of the trust list that
//! the pinned root has signed; the list itself by the root's signature alone. What counts not is refused,
//! counted and audited. A document is taken whole when it is newer, each part verified alone. An order is
//! stored before it acts, once. Both reach the engine as soon as they are stored.
//!
//! **Recovery**: after any failure all of the connection is thrown away, the MQTT client included, and the
//! next one begins after a pause with a random part, 0.5 to 30 s. A connection on which the broker stays
//! silent, or the control plane doesn't answer, is a failed one. When TLS fails, [`crate::renewal`] is told.

mod downlink;
mod relay;
mod sender;
mod session;
pub mod wire;

pub use relay::LinkError;
pub(crate) use relay::client_config;

use crate::clock::Clock;
use crate::renewal::Holder;
use crate::store::{Journal, Outbox, Sealer};
use crate::trust::Trust;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::recovery::HeldMinersV1;
use hashinsight_protocol::units::Millis;
use ring::rand::{SecureRandom, SystemRandom};
use session::End;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::{Connect, MqttConnector};

/// Somebody watches the site: cycles of so many seconds, until then.
pub type Watched = (u16, Millis);

/// What the uplink works with.
pub struct Uplink {
    pub agent: AgentId,
    pub sealer: Sealer,
    /// Whose documents and orders are taken.
    pub trust: Trust,
    /// Told when certificates may be the reason that there is no connection.
    pub doubted: Arc<Notify>,
    pub refused: Mutex<Refused>,
    pub clock: Clock,
    pub outbox: Outbox,
    pub journal: Journal,
    /// What an earlier journal of this agent held goes to the executor.
    pub held_before: mpsc::Sender<HeldMinersV1>,
    pub watched: watch::Sender<Option<Watched>>,
    /// The cycle while a welcome says that somebody watches.
    pub watched_cycle_s: u16,
    pub stop: CancellationToken,
}

/// Messages that were not the control plane's.
#[derive(Debug, Default)]
pub struct Refused {
    count: u64,
    /// When they were last told of.
    told: Option<Instant>,
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Keeps up a connection by the identity's broker until stopped.
pub async fn run(uplink: Uplink, holder: Holder, data_dir: &Path) {
    let connector = MqttConnector::new(holder, uplink.clock.clone(), data_dir);
    keep_up(&uplink, &connector).await;
}

async fn keep_up<C: Connect>(uplink: &Uplink, connector: &C) {
    let mut pause = FIRST_PAUSE;
    let mut told = String::new();
    while !uplink.stop.is_cancelled() {
        let mut welcomed = false;
        let outcome = session::run(uplink, connector, &mut welcomed).await;
        if welcomed {
            pause = FIRST_PAUSE;
            told.clear();
        }
        match outcome {
            Ok(End::Stopped) => return,
            Ok(End::Again) => {}
            Err(error) => {
                if error.is_about_trust() {
                    uplink.doubted.notify_one();
                }
                let text = error.to_string();
                // The same failure a thousand times is one line.
                if text == told {
                    tracing::debug!("{text}");
                } else {
                    tracing::warn!("no contact with the control plane: {text}");
                }
                told = text;
            }
        }
        let wait = jittered(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
        if uplink.stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// Between half and all of a pause, so that a site's agents don't come back in step.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness there's no jitter, and no harm beyond that.
    let _ = SystemRandom::new().fill(&mut random);
    let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    pause.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests;
