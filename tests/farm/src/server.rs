//! The sockets of a farm.
//!
//! Limits: connections at a time by the process's file limit; [`BACKLOG`] waiting for one device; one
//! request of [`REQUEST_LIMIT`] bytes a connection to the CGMiner port.
//!
//! One wildcard listener a port serves all devices; the device is the one whose address the accepted
//! socket has on our side. A device's CGMiner API is single-threaded, as the real one: one connection
//! is received, answered and closed before the next is looked at, so that a client that says nothing
//! blocks the others. With listeners of their own, devices can truly refuse connections.

use crate::FarmError;
use crate::clock::Clock;
use crate::device::Device;
use crate::family::antminer_web::WebAnswer;
use crate::family::{self, Answer, REQUEST_LIMIT};
use crate::faults::FaultKind;
use crate::log::TruthLog;
use crate::models::{Api, Family};
use crate::web;
use hashinsight_protocol::units::Millis;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections that wait for one device, as the real API's listen backlog.
const BACKLOG: u32 = 100;
/// cgminer itself would wait for ever; the farm gives a silent client up after this.
const IDLE: Duration = Duration::from_secs(120);
/// Whatsminers close a silent connection after this.
const V3_REQUEST: usize = 64 << 10;
const IDLE_WHATSMINER: Duration = Duration::from_secs(10);
/// A client that takes no bytes for this long loses its connection.
const WRITE: Duration = Duration::from_secs(5);
/// How long a farm looks whether a client read all of an answer.
const LINGER: Duration = Duration::from_secs(1);
/// How often a refused listener looks whether it may listen again.
const RELISTEN: Duration = Duration::from_millis(50);

/// One device and its turnstile.
pub struct Slot {
    pub ip: Ipv4Addr,
    pub family: Family,
    device: Mutex<Device>,
    turn: tokio::sync::Mutex<()>,
    waiting: AtomicU32,
}

/// What all connections share.
pub struct Shared {
    pub slots: Vec<Slot>,
    by_ip: HashMap<Ipv4Addr, u32>,
    pub log: TruthLog,
    pub clock: Clock,
    started: Millis,
    pub seed: u64,
    permits: Arc<Semaphore>,
}

/// How a device treats a new connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Reset at once.
    Refuse,
    /// Never answered.
    Silent,
}

impl Shared {
    pub fn new(devices: Vec<Device>, log: TruthLog, clock: Clock, seed: u64) -> Self {
        let slots: Vec<Slot> = devices
            .into_iter()
            .map(|device| Slot {
                ip: device.ip,
                family: device.model.family,
                device: Mutex::new(device),
                turn: tokio::sync::Mutex::new(()),
                waiting: AtomicU32::new(0),
            })
            .collect();
        let by_ip = slots.iter().enumerate().map(|(i, s)| (s.ip, i as u32)).collect();
        let started = clock.now();
        let permits = Arc::new(Semaphore::new(connection_limit(slots.len())));
        Self { slots, by_ip, log, clock, started, seed, permits }
    }

    /// Seconds since the start.
    pub fn t(&self, now: Millis) -> f64 {
        (now.0 - self.started.0) as f64 / 1e3
    }

    /// Works on a device that has been brought to the present.
    pub fn with<R>(&self, index: u32, work: impl FnOnce(&mut Device, Millis, f64) -> R) -> R {
        let now = self.clock.now();
        let t = self.t(now);
        let slot = &self.slots[index as usize];
        // A panic elsewhere leaves a device that is still whole: every change is a single assignment.
        let mut device = slot.device.lock().unwrap_or_else(PoisonError::into_inner);
        device.advance(t, |kind, at| {
            self.log.fault(Millis(self.started.0 + (at * 1e3) as i64), slot.ip, kind, "hit");
        });
        work(&mut device, now, t)
    }

    fn gate(&self, index: u32) -> Gate {
        self.with(index, |device, _, t| {
            if device.faults.active(FaultKind::Die, t).is_some() {
                Gate::Silent
            } else if device.faults.active(FaultKind::Refuse, t).is_some() || !device.plant.api_up(t) {
                Gate::Refuse
            } else {
                Gate::Open
            }
        })
    }

    /// As `gate`, for the web server, which outlives a restart of the mining program.
    pub fn web_gate(&self, index: u32) -> Gate {
        self.with(index, |device, _, t| {
            if device.faults.active(FaultKind::Die, t).is_some() {
                Gate::Silent
            } else if device.faults.active(FaultKind::Refuse, t).is_some()
                || device.plant.phase == crate::physics::Phase::Down
            {
                Gate::Refuse
            } else {
                Gate::Open
            }
        })
    }

    /// The value of a fault if it is active now; a hit is logged.
    pub fn fault(&self, index: u32, kind: FaultKind) -> Option<f64> {
        let (value, now) =
            self.with(index, |device, now, t| (device.faults.active(kind, t).map(|f| f.value), now));
        if value.is_some() {
            self.log.fault(now, self.slots[index as usize].ip, kind, "hit");
        }
        value
    }
}

/// Connections at a time that the file limit allows, with room for listeners and files.
fn connection_limit(devices: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|line| {
        line.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<usize>().ok()
    });
    let free = soft.unwrap_or(1024).saturating_sub(64);
    // A listener a device, if they have their own, comes off as far as there is room.
    free.saturating_sub(if devices * 2 < free / 2 { devices * 2 } else { 0 }).clamp(64, 8_192)
}

/// Listens on `address`, or says why not.
pub fn listen(address: SocketAddrV4, flag: &str) -> Result<TcpListener, FarmError> {
    let open = || -> io::Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::V4(address))?;
        socket.listen(4_096)
    };
    open().map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => format!("the port is taken; choose another with {flag}"),
            io::ErrorKind::PermissionDenied => {
                format!("a port below 1024 needs root; choose another with {flag}")
            }
            _ => error.to_string(),
        };
        FarmError::Listen(address, advice)
    })
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Api,
    Web,
    /// Whatsminer's API 3.
    V3,
}

/// Serves all devices from one wildcard listener, until it is aborted.
pub async fn serve_all(shared: Arc<Shared>, listener: TcpListener, port: Port) {
    let mut open = JoinSet::new();
    loop {
        // Waiting here leaves further clients in the kernel's queue.
        let Ok(permit) = Arc::clone(&shared.permits).acquire_owned().await else { return };
        while open.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let index = match stream.local_addr() {
                    Ok(SocketAddr::V4(local)) => shared.by_ip.get(local.ip()).copied(),
                    _ => None,
                };
                // No device lives at this address: the connection is closed at once.
                let Some(index) = index else { continue };
                let shared = Arc::clone(&shared);
                open.spawn(async move {
                    connection(&shared, index, stream, port).await;
                    drop(permit);
                });
            }
            // Out of descriptors or the like; try again a little later.
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Serves one device from a listener of its own; while it refuses, nothing listens.
pub async fn serve_one(shared: Arc<Shared>, index: u32, listener: TcpListener, port: Port) {
    let address = listener.local_addr();
    let mut listener = Some(listener);
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let refuses = shared.with(index, |d, _, t| d.faults.active(FaultKind::Refuse, t).is_some());
        if refuses {
            listener = None;
            sleep(RELISTEN).await;
            continue;
        }
        let Some(live) = &listener else {
            if let Ok(SocketAddr::V4(address)) = address {
                listener = listen(address, "").ok();
            }
            sleep(RELISTEN).await;
            continue;
        };
        let Ok(accepted) = timeout(RELISTEN, live.accept()).await else { continue };
        let Ok(permit) = Arc::clone(&shared.permits).acquire_owned().await else { return };
        if let Ok((stream, _)) = accepted {
            let shared = Arc::clone(&shared);
            open.spawn(async move {
                connection(&shared, index, stream, port).await;
                drop(permit);
            });
        }
    }
}

async fn connection(shared: &Shared, index: u32, stream: TcpStream, port: Port) {
    // An error only means that this connection is over.
    let _ = match (port, shared.slots[index as usize].family.api()) {
        (Port::Api, Api::Cgminer) => api(shared, index, stream).await,
        (Port::Api, Api::Nothing) => {
            reset(stream);
            Ok(())
        }
        (Port::Api, Api::Http) | (Port::Web, _) => web::serve(shared, index, stream).await,
        (Port::V3, _) => v3(shared, index, stream).await,
    };
}

/// Closes with a reset, as a machine does where nothing listens.
pub fn reset(stream: TcpStream) {
    // Without the option the connection ends in an ordinary way, which is as good as it gets.
    let _ = stream.set_zero_linger();
    drop(stream);
}

/// Says nothing until the client leaves, for at most [`IDLE`].
pub async fn hold(mut stream: TcpStream) {
    let mut scratch = [0; 512];
    let quiet = async { while !matches!(stream.read(&mut scratch).await, Ok(0) | Err(_)) {} };
    // A client that outlasts this is cut off.
    let _ = timeout(IDLE, quiet).await;
}

async fn api(shared: &Shared, index: u32, mut stream: TcpStream) -> io::Result<()> {
    let slot = &shared.slots[index as usize];
    match shared.gate(index) {
        Gate::Open => {}
        Gate::Refuse => {
            reset(stream);
            return Ok(());
        }
        Gate::Silent => {
            hold(stream).await;
            return Ok(());
        }
    }
    if slot.waiting.fetch_add(1, Ordering::Relaxed) >= BACKLOG {
        slot.waiting.fetch_sub(1, Ordering::Relaxed);
        reset(stream);
        return Ok(());
    }
    let turn = slot.turn.lock().await;
    slot.waiting.fetch_sub(1, Ordering::Relaxed);
    let idle = if slot.family == Family::Whatsminer { IDLE_WHATSMINER } else { IDLE };
    let mut request = [0; REQUEST_LIMIT];
    // One receive, as the real one: what comes later is not part of the request.
    let Ok(received) = timeout(idle, stream.read(&mut request)).await else { return Ok(()) };
    let received = received?;
    if shared.fault(index, FaultKind::Hang).is_some() {
        hold(stream).await;
        return Ok(());
    }
    let answer = shared.with(index, |device, now, t| {
        let answer = family::answer(device, now, t, &request[..received]);
        device.writes += u64::from(answer.write.is_some());
        answer
    });
    if answer.delay > 0.0 {
        sleep(Duration::from_secs_f64(answer.delay.min(60.0))).await;
    }
    if answer.silent {
        note(shared, index, &answer, false);
        return Ok(());
    }
    let mut bytes = answer.body.as_bytes().to_vec();
    if answer.nul {
        bytes.push(0);
    }
    let sent = deliver(shared, index, &mut stream, &bytes).await;
    let n = note(shared, index, &answer, matches!(sent, Ok(Sent::Whole)));
    if sent? == Sent::Reset {
        reset(stream);
        return Ok(());
    }
    let ended = stream.shutdown().await;
    drop(turn);
    // The client closes when it has read all; one that closed before resets the connection.
    let mut scratch = [0; 64];
    let closing = async {
        ended?;
        while stream.read(&mut scratch).await? > 0 {}
        // After an end that came before the reset, only the socket's own error tells of the reset.
        stream.take_error()?.map_or(io::Result::Ok(()), Err)
    };
    if let (Ok(Err(_)), Some(n)) = (timeout(LINGER, closing).await, n) {
        shared.log.unread(shared.clock.now(), slot.ip, n);
    }
    Ok(())
}

/// One request of Whatsminer's API 3: a length of four bytes, then JSON, and so the answer.
async fn v3(shared: &Shared, index: u32, mut stream: TcpStream) -> io::Result<()> {
    let slot = &shared.slots[index as usize];
    if slot.family != Family::WhatsminerV3 || shared.gate(index) == Gate::Refuse {
        reset(stream);
        return Ok(());
    }
    if shared.gate(index) == Gate::Silent || shared.fault(index, FaultKind::Hang).is_some() {
        hold(stream).await;
        return Ok(());
    }
    let turn = slot.turn.lock().await;
    let received = timeout(IDLE_WHATSMINER, async {
        let mut head = [0; 4];
        stream.read_exact(&mut head).await?;
        let length = u32::from_le_bytes(head) as usize;
        let mut request = vec![0; length.min(V3_REQUEST)];
        stream.read_exact(&mut request).await?;
        io::Result::Ok(request)
    });
    let Ok(request) = received.await else { return Ok(()) };
    let request = request?;
    let answer = shared.with(index, |device, now, t| {
        let answer = family::whatsminer_v3::answer(device, now, t, &request);
        device.writes += u64::from(answer.write.is_some());
        answer
    });
    let mut bytes = (answer.body.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(answer.body.as_bytes());
    let sent = deliver(shared, index, &mut stream, &bytes).await;
    note(shared, index, &answer, matches!(sent, Ok(Sent::Whole)));
    drop(turn);
    match sent? {
        Sent::Reset => reset(stream),
        Sent::Whole | Sent::Part => stream.shutdown().await?,
    }
    Ok(())
}

/// How much of an answer went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Whole,
    /// Cut short by a fault; an ordinary end follows.
    Part,
    /// Cut short by a fault; a reset follows.
    Reset,
}

/// Sends an answer, or what the device's faults leave of it.
pub async fn deliver(shared: &Shared, index: u32, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<Sent> {
    let write = async |stream: &mut TcpStream, part: &[u8]| {
        timeout(WRITE, stream.write_all(part)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    };
    if shared.fault(index, FaultKind::Reset).is_some() {
        write(stream, &bytes[..bytes.len() / 2]).await?;
        // The client is to see the first half before the reset takes it away.
        sleep(Duration::from_millis(20)).await;
        return Ok(Sent::Reset);
    }
    if shared.fault(index, FaultKind::Truncated).is_some() {
        write(stream, &bytes[..bytes.len() * 3 / 5]).await?;
        return Ok(Sent::Part);
    }
    if let Some(ms) = shared.fault(index, FaultKind::Slow) {
        let pause = Duration::from_secs_f64((ms / 5e3).clamp(0.0, 60.0));
        for part in bytes.chunks(bytes.len().div_ceil(5).max(1)) {
            sleep(pause).await;
            write(stream, part).await?;
        }
        return Ok(Sent::Whole);
    }
    if let Some(kib) = shared.fault(index, FaultKind::Oversized) {
        // Without the end that the client waits for.
        let body = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        write(stream, body).await?;
        for _ in 0..kib.clamp(0.0, 65_536.0) as u32 {
            write(stream, &[b' '; 1024]).await?;
        }
        return Ok(Sent::Part);
    }
    write(stream, bytes).await?;
    Ok(Sent::Whole)
}

/// The log's line for an answer; gives the number of a sample.
fn note(shared: &Shared, index: u32, answer: &Answer, whole: bool) -> Option<u64> {
    let slot = &shared.slots[index as usize];
    let now = shared.clock.now();
    if let Some(write) = &answer.write {
        shared.log.write(
            now,
            slot.ip,
            slot.family,
            &answer.request,
            write.result,
            whole,
            &write.before,
            &write.after,
        );
        return None;
    }
    if !whole {
        return None;
    }
    // The number is given under the device's lock, and the line made under it too: numbers and lines
    // have one order.
    let mut device = slot.device.lock().unwrap_or_else(PoisonError::into_inner);
    match answer.sample {
        Some(sample) => {
            device.samples += 1;
            let n = device.samples;
            shared.log.sample(
                now,
                slot.ip,
                slot.family,
                &answer.request,
                n,
                sample.hashrate_hs,
                sample.power_w,
            );
            Some(n)
        }
        None => {
            device.reads += 1;
            shared.log.read(now, slot.ip, slot.family, &answer.request);
            None
        }
    }
}

/// The log's line for an answer of the web server.
pub fn note_web(shared: &Shared, index: u32, request: &str, answer: &WebAnswer, whole: bool) {
    let answer = Answer {
        request: request.to_owned(),
        sample: answer.sample,
        write: answer.write.clone(),
        ..Answer::default()
    };
    note(shared, index, &answer, whole);
}
