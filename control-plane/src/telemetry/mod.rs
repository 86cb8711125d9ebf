//! Readings: what arrived, what is known now, and what it adds up to.

pub mod batches;
pub mod condense;
pub mod gaps;
pub mod keys;
pub mod latest;
pub mod ledger;
mod live;
pub mod numbers;
pub mod once;
pub mod parked;
pub mod readings;
pub mod retention;
pub mod rollups;
pub mod sums;
pub mod upkeep;

pub use live::Live;

#[cfg(test)]
mod aging_tests;
#[cfg(test)]
mod tests;
