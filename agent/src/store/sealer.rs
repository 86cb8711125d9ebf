//! Who seals batches: the agent's id, its key, and a source of fresh epochs.

use hashinsight_protocol::envelope::{self, WireError};
use hashinsight_protocol::ids::{AgentId, Epoch};
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::topics::Stream;
use ring::rand::{SecureRandom, SystemRandom};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Sealer {
    pub agent: AgentId,
    key: Arc<SigningKey>,
}

impl Sealer {
    pub fn new(agent: AgentId, key: Arc<SigningKey>) -> Self {
        Self { agent, key }
    }

    /// # Errors
    /// The envelope would be over the limit.
    pub fn seal(&self, epoch: Epoch, stream: Stream, seq: u64, body: &[u8]) -> Result<Vec<u8>, WireError> {
        envelope::seal_up(&self.key, self.agent, epoch, stream, seq, body)
    }
}

/// 16 random bytes of the system.
pub(crate) fn random16() -> [u8; 16] {
    let mut bytes = [0; 16];
    // getrandom on Linux fails only before the kernel has any entropy, and blocks instead.
    SystemRandom::new().fill(&mut bytes).expect("the system's random source works");
    bytes
}

pub(crate) fn fresh_epoch() -> Epoch {
    Epoch::from_random(random16())
}
