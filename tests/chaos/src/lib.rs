//! `cargo chaos`: mixes faults over the running system and checks its books at the end.
//!
//! Everything is real but the devices: agents, broker, control plane and their files. Links are cut,
//! delayed, throttled, half-opened and reset in mid-packet; programs are killed; disks fill up; clocks
//! jump; orders come in the middle of it. The seed decides all of it. The truth is the devices' own log.

pub mod disk;
pub mod report;
pub mod run;
pub mod schedule;
