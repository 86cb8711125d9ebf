//! What an agent says of its clocks.

use crate::ids::BootId;
use crate::units::{BootMillis, Millis};
use serde::{Deserialize, Serialize};

/// How far a wall clock can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockStateV1 {
    /// Kept by time synchronisation.
    Synced,
    Uncertain,
    /// Measured against the control plane within a bounded round trip, and carried on since.
    Measured,
}

impl ClockStateV1 {
    /// Whether plans may start and orders expire by it.
    pub fn is_sure(self) -> bool {
        self != Self::Uncertain
    }
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MomentV1 {
    pub wall: Millis,
    pub boot: BootMillis,
    pub boot_id: BootId,
    pub state: ClockStateV1,
}
