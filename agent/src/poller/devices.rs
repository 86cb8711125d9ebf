//! The thread that talks to devices.
//!
//! Contacts are many and short: a connection, one write, one read, some microseconds of decoding. On one
//! thread they wake nobody else and share no lock with another core, which costs a third less than the
//! same on the agent's other threads; and a burst of thousands leaves those free for the executor and the
//! uplink. One core does several thousand contacts a second, which is more than a site needs.

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Sockets that the rest of the agent needs: its files, the broker, devices that are written to.
const OTHERS: usize = 256;

/// Ends the thread when it is dropped.
#[derive(Debug)]
pub struct Devices {
    handle: Handle,
    sockets: usize,
    _end: oneshot::Sender<()>,
}

impl Devices {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no threads left.
    pub fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let serve = move || {
            // Nothing is ever sent: the end comes when the other side is dropped.
            let _ = runtime.block_on(ended);
        };
        std::thread::Builder::new().name("devices".to_owned()).spawn(serve)?;
        Ok(Self { handle, sockets: sockets(), _end: end })
    }

    /// Where contacts are to run.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// How many connections there may be at a time.
    pub fn sockets(&self) -> usize {
        self.sockets
    }
}

/// Connections that the process may hold, once it has been given all that the system allows it: service
/// managers start programs with room for a thousand.
fn sockets() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "The number of connections stays limited to what the agent was started with.");
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(OTHERS).max(1)
}
