//! What an agent's miners were put to sleep for, as the control plane last heard: for a gateway whose
//! journal is gone, so that everything is still woken.

use crate::device::PreStateV1;
use crate::envelope::{Body, WireError, at_most};
use crate::ids::{MinerId, PlanId};
use crate::limits;
use crate::units::Watts;
use serde::{Deserialize, Serialize};

/// Miners that an earlier journal of this agent held. Large sites get several of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldMinersV1 {
    /// The document that says which of their plans go on; 0 for none.
    pub document: u64,
    pub miners: Vec<HeldMinerV1>,
}

/// One miner, in one run of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldMinerV1 {
    pub miner: MinerId,
    pub plan: PlanId,
    pub interval: u32,
    /// What it has to be put back to.
    pub pre: PreStateV1,
    pub power_before: Option<Watts>,
}

impl Body for HeldMinersV1 {
    const TAG: u16 = 1;
    const WHAT: &'static str = "held miners";

    fn check(&self) -> Result<(), WireError> {
        at_most(Self::WHAT, self.miners.len(), limits::HELD_MINERS)?;
        let profiles = self.miners.iter().filter_map(|held| held.pre.profile.as_ref());
        profiles.map(String::len).try_for_each(|size| at_most("a profile's name", size, limits::TEXT_BYTES))
    }
}
