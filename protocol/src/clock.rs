//! What an agent says of its clocks.

use crate::ids::BootId;
use crate::units::{BootMillis, Millis};
use serde::{Deserialize, Serialize};

/// How far a wall clock can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockStateV1 {
    /// Kept by time synchronisation, or measured against the control plane.
    Synced,
    Uncertain,
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MomentV1 {
    pub wall: Millis,
    pub boot: BootMillis,
    pub boot_id: BootId,
    pub state: ClockStateV1,
}
