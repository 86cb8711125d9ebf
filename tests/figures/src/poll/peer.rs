//! The devices: one process for all, which answers with replies that were made once.
//!
//! Three doors. Behind the first a device answers at once: one thread accepts, reads, answers and
//! closes, as the firmware does, with four calls of the kernel a connection, so that it is never what
//! is waited for. Behind the second it answers 50 to 200 ms later. Behind the third it takes the
//! connection and says nothing.

use crate::measure::allow_many_sockets;
use crate::poll::replies::{VARIANTS, reply};
use crate::{Result, child};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

/// The longest request that is looked at; the real API reads as much.
const REQUEST: usize = 4095;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
const FASTEST_MS: u64 = 50;
const SLOWEST_MS: u64 = 200;

/// Where the devices listen.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Doors {
    pub prompt: u16,
    pub late: u16,
    pub silent: u16,
}

/// What was asked since the last time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Requests as they came, and how often.
    pub requests: BTreeMap<String, u64>,
    pub bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Say what was asked, and count anew.
    Tally,
}

/// Replies by request, each made once.
#[derive(Default)]
struct Desk {
    replies: BTreeMap<Vec<u8>, Vec<Arc<[u8]>>>,
    counts: BTreeMap<Vec<u8>, u64>,
    bytes: u64,
    turn: usize,
}

impl Desk {
    fn answer(&mut self, request: &[u8]) -> Arc<[u8]> {
        self.turn += 1;
        if !self.replies.contains_key(request) {
            let all = (0..VARIANTS).map(|variant| reply(request, variant).into()).collect();
            self.replies.insert(request.to_vec(), all);
            self.counts.insert(request.to_vec(), 0);
        }
        if let Some(count) = self.counts.get_mut(request) {
            *count += 1;
        }
        let answer = self.replies[request][self.turn % VARIANTS].clone();
        self.bytes += answer.len() as u64;
        answer
    }

    fn tally(&mut self) -> Tally {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let tally = Tally {
            requests: self.counts.iter().filter(|(_, n)| **n > 0).map(|(r, n)| (text(r), *n)).collect(),
            bytes: self.bytes,
        };
        self.counts.values_mut().for_each(|count| *count = 0);
        self.bytes = 0;
        tally
    }
}

type Shared = Arc<Mutex<Desk>>;

fn answer(desk: &Shared, request: &[u8]) -> Arc<[u8]> {
    desk.lock().unwrap_or_else(PoisonError::into_inner).answer(request)
}

/// Serves until there are no more orders.
pub fn run() -> Result<()> {
    allow_many_sockets();
    let desk = Shared::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let doors = {
        let _inside = runtime.enter();
        let [prompt, late, silent] = [listen()?, listen()?, listen()?];
        let port = |door: &TcpListener| door.local_addr().map(|address| address.port());
        let doors = Doors { prompt: port(&prompt)?, late: port(&late)?, silent: port(&silent)? };
        let prompt = prompt.into_std()?;
        prompt.set_nonblocking(false)?;
        let prompt_desk = desk.clone();
        std::thread::spawn(move || serve_prompt(&prompt, &prompt_desk));
        runtime.spawn(serve_late(late, desk.clone()));
        runtime.spawn(serve_silent(silent));
        doors
    };
    // The slow devices have a thread of their own, which ends with the process.
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    child::tell(&doors)?;
    child::serve(|order| match order {
        Order::Tally => Ok(desk.lock().unwrap_or_else(PoisonError::into_inner).tally()),
    })
}

fn listen() -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    Ok(socket.listen(BACKLOG)?)
}

fn serve_prompt(door: &std::net::TcpListener, desk: &Shared) {
    let mut request = [0; REQUEST];
    loop {
        // A client that has gone is no reason to stop.
        let Ok((mut stream, _)) = door.accept() else { continue };
        let Ok(n @ 1..) = stream.read(&mut request) else { continue };
        let _ = stream.write_all(&answer(desk, &request[..n]));
    }
}

async fn serve_late(door: TcpListener, desk: Shared) {
    let mut turn = 0;
    loop {
        let Ok((mut stream, _)) = door.accept().await else { continue };
        // Spread evenly, without a pattern that neighbours share.
        turn = (turn + 89) % (SLOWEST_MS - FASTEST_MS + 1);
        let latency = Duration::from_millis(FASTEST_MS + turn);
        let desk = desk.clone();
        tokio::spawn(async move {
            let mut request = [0; REQUEST];
            let Ok(n @ 1..) = stream.read(&mut request).await else { return };
            tokio::time::sleep(latency).await;
            let _ = stream.write_all(&answer(&desk, &request[..n])).await;
        });
    }
}

async fn serve_silent(door: TcpListener) {
    loop {
        let Ok((mut stream, _)) = door.accept().await else { continue };
        tokio::spawn(async move {
            let mut request = [0; REQUEST];
            while let Ok(1..) = stream.read(&mut request).await {}
        });
    }
}
