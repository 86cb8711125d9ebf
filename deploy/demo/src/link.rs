//! A TCP link that can be cut: it stands between an agent and the broker.

use crate::{Failure, Result};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Passes bytes both ways until it is cut, and again when it is mended.
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    cut: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Link {
    /// Listens on a free port and passes on to `to`.
    ///
    /// # Errors
    /// No port is free.
    pub fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(Failure::of("a port for a link"))?;
        let address = listener.local_addr().map_err(Failure::of("a port for a link"))?;
        let shared = Arc::new(Shared { to, cut: AtomicBool::new(false), open: Mutex::default() });
        let accepts = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection that can't be passed on is closed by being dropped.
                let _ = accepts.pass(stream);
            }
        });
        Ok(Self { address, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks what is open and refuses what comes.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        for stream in self.shared.open().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, inside: TcpStream) -> io::Result<()> {
        if self.cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        let outside = TcpStream::connect(self.to)?;
        inside.set_nodelay(true)?;
        outside.set_nodelay(true)?;
        self.open().extend([inside.try_clone()?, outside.try_clone()?]);
        for (mut from, mut to) in [(inside.try_clone()?, outside.try_clone()?), (outside, inside)] {
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }
}
