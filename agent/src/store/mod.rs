//! What is kept on the gateway: two SQLite files, each with one thread of its own.
//!
//! `telemetry.db` ([`Outbox`]) holds readings on their way up, under a quota; losing it loses readings
//! and says how many. `journal.db` ([`Journal`]) holds what must not be lost: plans, the engine's book,
//! the inventory, and the events, evidence and audit that the control plane has not got yet.
//!
//! Both are written with `synchronous=FULL`: what a call has returned from survives a power cut.

mod db;
mod document;
mod events;
mod groups;
mod journal;
mod journal_file;
mod mark;
mod miners;
mod outbox;
mod reserve;
mod salvage;
mod sealer;
mod telemetry_file;

pub use db::StoreError;
pub use document::{Opened, Taken, Verdict};
pub use journal::{Health, Journal};
pub use miners::{InventoryMiner, Learned, MinerEdit};
pub use outbox::{Outbox, Usage};
pub use sealer::Sealer;

/// A sealed batch, as it was or will be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub seq: u64,
    pub envelope: Vec<u8>,
}

/// What tests of other modules need of this one's.
#[cfg(test)]
pub(crate) mod tests_support {
    pub(crate) use super::document::tests::plan;
    pub(crate) use super::telemetry_file::tests::{at, sealer};
}
