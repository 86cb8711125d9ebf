//! The curtailment engine: who is stopped and woken, when, and why.
//!
//! # Form
//! One pure function, [`step()`]: (time, policy, plans, miners, book, what came back from devices) →
//! (changes of the book, reads, writes, events, when to call again). No I/O, no clock, no randomness:
//! random parts of a ramp are drawn from a seed of the policy and kept in the book. [`preview()`] asks the
//! same selection what a plan would do. The agent acts on it, the control plane previews with it, and a
//! journal replays through it to the same decisions.
//!
//! # Rules of the caller
//! - The changes of a step are durable before any of its writes is sent, in one transaction.
//! - `prepare` lists every read that is wanted now; those already under way are not started again.
//! - After each start of the process the first step is given [`Observation::Restarted`].
//! - A device is written to only as [`Write`] says, one write at a time, its identity checked before.
//! - Readings carry the boot clock of this boot; so does the last contact of a plan.
//!
//! # What never happens
//! - A write before its intent and the device's pre-state are in the book.
//! - A write without a fresh read of the same device before it: a write whose outcome is unknown is
//!   therefore never repeated blindly, and a device that is found in the wanted state is left alone.
//! - A miner counted as curtailed without evidence of effect.
//! - An interval that fires twice: its dispatch and its number stay in the book.
//! - A hold that is forgotten: it leaves the book when its miner runs again with evidence, or when an
//!   admin released it, and for no other reason.
//!
//! # Times
//! Plans speak UTC. Once an interval has fired, all runs on the [`Steady`] clock: the boot clock,
//! continued across reboots.
//!
//! # Bounds
//! Work of a step grows with miners + targets; the book with what is held, plus a small record for each
//! plan and for each dispatch of the last day.

mod book;
mod choose;
mod dispatch;
mod draft;
mod goal;
mod hold;
mod input;
mod preview;
mod ramp;
mod recovered;
mod restore;
mod selection;
mod steady;
mod step;
mod target;
mod timeline;
mod upkeep;

pub use book::{
    Book, Change, ClockRecord, DispatchKey, DispatchRecord, Ending, Fired, HoldRecord, Intent, Phase,
    PlanRecord, TargetRecord, Terms, WearRecord,
};
pub use input::{HeldPlan, Identity, Locks, Miner, MinerReading, Now, Observation, Policy, StopOrder};
pub use preview::{Preview, Taken, preview};
pub use selection::{SkipReason, Skipped};
pub use steady::Steady;
pub use step::{Event, Step, Write, step};
