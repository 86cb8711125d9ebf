//! The edge program: polls a site's miners, keeps what it reads until the control plane has it, and
//! executes curtailment plans locally.
//!
//! - **Field** ([`live`], [`poller`], [`executor`], [`inventory`], [`credentials`], [`discover`],
//!   [`readiness`], [`probe`]): talks to devices.
//! - **Store** ([`store`]): two files; `telemetry.db` may be lost and says so, `journal.db` may not.
//! - **Uplink** ([`uplink`]): a wire to the control plane. What is durable on both sides is the truth,
//!   the wire proves nothing.
//! - **Identity** ([`enrol`], [`renewal`], [`identity_files`], [`trust`], [`https`]): who this agent is, and
//!   whom it believes.
//! - **Frame** ([`supervisor`], [`config`], [`clock`], [`install`], [`cli`]).
//!
//! What is absent: only [`clock`] reads the time of day; only [`store`] knows SQL; only
//! [`uplink::wire`] knows an MQTT client; nothing here formats a topic or encodes a message.

pub mod change;
pub mod cli;
pub mod clock;
pub mod config;
pub mod corpus;
pub mod credentials;
pub mod discover;
pub mod enrol;
pub mod executor;
pub mod https;
pub mod identity_files;
pub mod install;
pub mod inventory;
pub mod live;
pub mod local;
pub mod poller;
pub mod probe;
pub mod readiness;
pub mod ready;
pub mod renewal;
mod sabotage;
pub mod status;
pub mod store;
pub mod supervisor;
pub mod trust;
pub mod uplink;
