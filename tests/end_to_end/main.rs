//! The real programs against each other, and what happens when one of them is killed or misused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod by_hand;
mod console;
mod crash;
mod gateway;
mod mistakes;
mod plan;
mod probe;
mod site;
mod year;
