//! The demonstration: a whole system of real processes on one machine.
//!
//! One control plane, one site with two agents and one with a third, each agent with a simulated site of
//! its own on loopback addresses. [`world`] starts them, [`script`] runs the unattended demonstration, and
//! [`books`] compares what the simulated devices answered with what the control plane stored. End-to-end
//! tests start the same world.

pub mod api;
pub mod books;
pub mod failure;
pub mod farm;
pub mod link;
pub mod process;
pub mod script;
pub mod world;

pub use failure::{Failure, Result};
