//! Orders: the small core of commands that every version understands.
//!
//! An order is idempotent by its id: a repeat returns the stored result. It starts no later than it
//! expires.

use crate::envelope::{Body, WireError, at_most};
use crate::ids::{OrderId, PlanId};
use crate::limits;
use crate::units::{Millis, Watts};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderV1 {
    pub id: OrderId,
    pub issued: Millis,
    /// Not taken after this.
    pub expires: Millis,
    /// Who gave it.
    pub by: String,
    pub command: CommandV1,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CommandV1 {
    /// End a plan's dispatch now: waking begins, ramps are kept; `force` breaks dwell times.
    Stop { plan: PlanId, force: bool },
    /// Never start a plan that has not started.
    Cancel { plan: PlanId },
    /// Contact holds: leases run anew from the receipt of this.
    Lease { plan: PlanId, seq: u64 },
    /// A new target for a running plan, while it is fresh.
    SetPoint { plan: PlanId, seq: u64, target: Watts, valid_until: Millis },
    /// Send cycles of this many seconds for this long: somebody watches the site.
    Watch { cycle_s: u16, until: Millis },
}

impl Body for OrderV1 {
    const TAG: u16 = 1;
    const WHAT: &'static str = "an order";

    fn check(&self) -> Result<(), WireError> {
        at_most("an order's author", self.by.len(), limits::TEXT_BYTES)
    }
}
