//! Readings: what arrived, what is known now, and what it adds up to.

pub mod batches;
pub mod gaps;
pub mod keys;
pub mod latest;
pub mod ledger;
mod live;
pub mod once;
pub mod parked;
pub mod readings;
pub mod rollups;

pub use live::Live;

#[cfg(test)]
mod tests;
