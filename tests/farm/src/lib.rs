//! A simulated mining site on loopback addresses.
//!
//! - **Devices** (`models`, `device`, `physics`) have nameplate values, noise, temperatures that follow
//!   power, boards, pools and shares, and take their time to stop and to come back. All of it follows
//!   from the seed and the clock, not from how they are polled.
//! - **Protocols** (`family`) are those of the firmwares, faults of wording included; replies are
//!   written straight into bytes.
//! - **Sockets** (`server`, `web`): one wildcard listener a port for all devices, so that 10,000 of them
//!   need no more than their open connections.
//! - **Faults** (`faults`) are switched on at the start or over the control socket (`control`).
//! - **The log** (`log`) has a line for every answered poll and every write: the truth that all books
//!   are checked against.
//!
//! What is absent: no device code reads a clock or a socket, and no randomness depends on the order
//! of polls.

pub mod cli;
pub mod clock;
pub mod config;
mod control;
mod device;
#[doc(hidden)]
pub mod digest;
#[doc(hidden)]
pub mod family;
pub mod faults;
mod log;
pub mod models;
mod physics;
mod reply;
mod rng;
mod server;
mod site;
mod web;

pub use clock::Clock;
pub use config::{Config, Mix, Net, Pre};
pub use faults::{FaultKind, FaultOrder};
use models::Api;
pub use models::Family;

use hashinsight_protocol::device::ModeV1;
use log::TruthLog;
use serde::Serialize;
use server::{Port, Shared, listen, serve_all, serve_one};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Why a farm does not start.
#[derive(Debug, Error)]
pub enum FarmError {
    #[error("{0}")]
    Config(String),
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddrV4, String),
    #[error("cannot write {0}: {1}")]
    File(PathBuf, io::Error),
}

/// What one device is set to and does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceState {
    pub device: Ipv4Addr,
    pub id: String,
    pub family: Family,
    pub model: &'static str,
    /// As configured; `phase` says what the machine does.
    pub mode: ModeV1,
    pub vendor_mode: Option<i64>,
    pub limit_w: Option<u32>,
    pub profile: Option<String>,
    pub phase: &'static str,
    pub hashrate_hs: f64,
    pub power_w: f64,
    /// The locating light.
    pub locating: bool,
    pub pools: Vec<String>,
    /// SHA-256 in hex of all that is configured beside the mode.
    pub config_hash: String,
    pub uptime_s: u64,
    /// Answered polls of the real-time rate, other answered reads, writes of any outcome.
    pub samples: u64,
    pub reads: u64,
    pub writes: u64,
    pub faults: Vec<&'static str>,
}

impl DeviceState {
    /// What must be the same before and after a curtailment.
    pub fn settings(&self) -> (ModeV1, Option<i64>, Option<u32>, Option<&str>, &str) {
        (self.mode, self.vendor_mode, self.limit_w, self.profile.as_deref(), &self.config_hash)
    }
}

/// A farm is started by [`Farm::start`].
#[derive(Debug)]
pub struct Farm;

impl Farm {
    /// Builds the devices, opens the sockets and serves them on the current runtime.
    pub async fn start(config: Config) -> Result<Running, FarmError> {
        let scale = config.time_scale;
        if !(scale.is_finite() && (0.01..=100_000.0).contains(&scale)) {
            return Err(FarmError::Config(format!("a time scale is 0.01 to 100000, not {scale}")));
        }
        if let Some(control) = config.control.filter(|c| !c.ip().is_loopback()) {
            return Err(FarmError::Config(format!("the control socket is for loopback only, not {control}")));
        }
        let devices = site::build(&config)?;
        let inventory = site::inventory(&devices);
        let api = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, config.api_port);
        let web = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, config.web_port);
        let mut wildcard = Vec::new();
        let mut own = Vec::new();
        let has_v3 = devices.iter().any(|device| device.model.family == Family::WhatsminerV3);
        if config.own_listeners {
            for device in &devices {
                let at = |port| SocketAddrV4::new(device.ip, port);
                if device.model.family.api() != Api::Nothing {
                    own.push((device.index, Port::Api, listen(at(config.api_port), "--api-port")?));
                }
                if device.model.family == Family::WhatsminerV3 {
                    own.push((device.index, Port::V3, listen(at(config.v3_port), "--v3-port")?));
                }
                if device.model.family.has_web() {
                    own.push((device.index, Port::Web, listen(at(config.web_port), "--web-port")?));
                }
            }
        } else {
            wildcard.push((Port::Api, listen(api, "--api-port")?));
            wildcard.push((Port::Web, listen(web, "--web-port")?));
            if has_v3 {
                let v3 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, config.v3_port);
                wildcard.push((Port::V3, listen(v3, "--v3-port")?));
            }
        }
        let control = match config.control {
            Some(SocketAddr::V4(address)) => Some(listen(address, "--control")?),
            Some(address) => return Err(FarmError::Config(format!("{address} is not an IPv4 address"))),
            None => None,
        };
        let log = TruthLog::create(config.log.as_deref())
            .map_err(|e| FarmError::File(config.log.clone().unwrap_or_default(), e))?;
        let shared = Arc::new(Shared::new(devices, log, config.clock, config.seed));
        for order in &config.faults {
            apply_order(&shared, order).map_err(FarmError::Config)?;
        }
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (port, listener) in wildcard {
            tasks.spawn(serve_all(Arc::clone(&shared), listener, port));
        }
        for (index, port, listener) in own {
            tasks.spawn(serve_one(Arc::clone(&shared), index, listener, port));
        }
        let control_address = control.as_ref().and_then(|c| c.local_addr().ok());
        if let Some(listener) = control {
            tasks.spawn(control::serve(Arc::clone(&shared), listener, stop));
        }
        Ok(Running { shared, tasks, stopped, inventory, control: control_address })
    }
}

/// A farm that serves. Dropped, it stops.
pub struct Running {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    stopped: watch::Receiver<bool>,
    inventory: String,
    control: Option<SocketAddr>,
}

impl Running {
    /// The CSV that an agent imports.
    pub fn inventory(&self) -> &str {
        &self.inventory
    }

    pub fn control(&self) -> Option<SocketAddr> {
        self.control
    }

    /// All devices, in the order of their addresses.
    pub fn state(&self) -> Vec<DeviceState> {
        (0..self.shared.slots.len() as u32).map(|i| state_of(&self.shared, i)).collect()
    }

    /// Switches a fault; gives the number of devices it concerns.
    pub fn fault(&self, order: &FaultOrder) -> Result<usize, String> {
        apply_order(&self.shared, order)
    }

    pub fn clear_faults(&self) {
        clear_faults(&self.shared);
    }

    /// Returns when somebody asked for a stop over the control socket.
    pub async fn asked_to_stop(&mut self) {
        if self.stopped.wait_for(|stop| *stop).await.is_err() {
            // There is no control socket, so nobody can ask.
            std::future::pending::<()>().await;
        }
    }

    /// Ends all connections and writes the rest of the log.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.shared.log.close();
    }
}

fn state_of(shared: &Shared, index: u32) -> DeviceState {
    shared.with(index, |device, _, t| {
        let sensed = device.sense(t);
        let view = device.mode();
        let hash = device.config_hash();
        DeviceState {
            device: device.ip,
            id: device.id.to_string(),
            family: device.model.family,
            model: device.model.name,
            mode: view.mode,
            vendor_mode: view.vendor_mode,
            limit_w: view.limit_w,
            profile: view.profile,
            phase: device.plant.phase.name(),
            hashrate_hs: sensed.rate,
            power_w: sensed.watts,
            locating: match &device.own {
                device::Own::Web(state) => state.light,
                _ => device.locating,
            },
            pools: (0..3).map(|n| device.pool(n).url).filter(|url| !url.is_empty()).collect(),
            config_hash: hash.iter().map(|b| format!("{b:02x}")).collect(),
            uptime_s: sensed.uptime,
            samples: device.samples,
            reads: device.reads,
            writes: device.writes,
            faults: device.faults.iter().filter(|f| t < f.until).map(|f| f.kind.name()).collect(),
        }
    })
}

fn apply_order(shared: &Shared, order: &FaultOrder) -> Result<usize, String> {
    let devices: Vec<_> = shared.slots.iter().map(|s| (s.ip, s.family)).collect();
    let chosen = site::chosen(order, &devices, shared.seed)?;
    for index in &chosen {
        let now = shared.with(*index, |device, now, t| {
            device.faults.set(order, t);
            now
        });
        let event = if order.on { "set" } else { "cleared" };
        shared.log.fault(now, shared.slots[*index as usize].ip, order.kind, event);
    }
    Ok(chosen.len())
}

fn clear_faults(shared: &Shared) {
    for index in 0..shared.slots.len() as u32 {
        let (kinds, now) = shared.with(index, |device, now, _| {
            let kinds: Vec<_> = device.faults.iter().map(|f| f.kind).collect();
            device.faults.clear();
            (kinds, now)
        });
        for kind in kinds {
            shared.log.fault(now, shared.slots[index as usize].ip, kind, "cleared");
        }
    }
}
