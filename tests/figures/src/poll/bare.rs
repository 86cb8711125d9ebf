//! The least that could poll: a loop that connects, asks, reads to the closing NUL and throws the bytes
//! away. One thread, no deadline, no decoding.

use crate::measure::{Cost, Stopwatch, allow_many_sockets};
use crate::poll::device;
use crate::{Result, child};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connections at a time; more cost it more.
const IN_FLIGHT: usize = 64;
/// Longer than any reply.
const BUFFER: usize = 16 * 1024;

#[derive(Debug, Args)]
pub struct BareArgs {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    miners: usize,
    /// What is sent.
    #[arg(long)]
    request: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    Cycle,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Done {
    pub cost: Cost,
    pub answered: usize,
    pub bytes: usize,
}

pub fn run(args: &BareArgs) -> Result<()> {
    allow_many_sockets();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    child::tell(&true)?;
    child::serve(|Order::Cycle| Ok(runtime.block_on(cycle(args))))
}

async fn cycle(args: &BareArgs) -> Done {
    let watch = Stopwatch::start();
    let request: Arc<[u8]> = args.request.as_bytes().into();
    let next = Arc::new(AtomicUsize::new(0));
    let (miners, port) = (args.miners, args.port);
    let workers: Vec<_> = (0..IN_FLIGHT.min(miners))
        .map(|_| {
            let (next, request) = (next.clone(), request.clone());
            tokio::spawn(async move {
                let mut buffer = vec![0; BUFFER];
                let (mut answered, mut bytes) = (0, 0);
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= miners {
                        return (answered, bytes);
                    }
                    let address = SocketAddr::new(device(nth), port);
                    if let Ok(n @ 1..) = exchange(address, &request, &mut buffer).await {
                        answered += 1;
                        bytes += n;
                    }
                }
            })
        })
        .collect();
    let (mut answered, mut bytes) = (0, 0);
    for worker in workers {
        let (a, b) = worker.await.unwrap_or_default();
        answered += a;
        bytes += b;
    }
    Done { cost: watch.stop(), answered, bytes }
}

async fn exchange(address: SocketAddr, request: &[u8], buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut length = 0;
    while length < buffer.len() {
        let n = stream.read(&mut buffer[length..]).await?;
        length += n;
        if n == 0 || buffer[length - 1] == 0 {
            break;
        }
    }
    Ok(length)
}
