//! The contract between agent and control plane: topics, messages, codec, units, ids, plan types.
//!
//! No I/O, no clock, no randomness. Every type that is reachable from the wire ends in its version
//! and is frozen once released; golden bytes in `tests/` hold it to that. Only this crate knows
//! postcard and topic strings.

pub mod clock;
pub mod columns;
pub mod device;
pub mod document;
pub mod enrolment;
pub mod envelope;
pub mod events;
pub mod evidence;
pub mod ids;
pub mod limits;
pub mod order;
pub mod plan;
pub mod presence;
pub mod readiness;
pub mod recovery;
pub mod signing;
pub mod telemetry;
pub mod topics;
pub mod trust;
pub mod units;
