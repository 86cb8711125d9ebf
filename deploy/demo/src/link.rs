//! A TCP link with weather of its own: it stands between an agent and the broker.

use crate::{Failure, Result};
use rustix::net::sockopt::set_socket_linger;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// How soon a waiting direction notices other weather.
const LOOK: Duration = Duration::from_millis(50);
/// A throttled link passes this many pieces a second.
const PIECES: u64 = 20;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Clear,
    /// Connections are broken, new ones refused.
    Cut,
    /// Connections stand, nothing passes: a half-open link, or a peer that is gone without a word.
    Silent,
    /// Every piece is this late.
    Late(Duration),
    /// Bytes a second, each way.
    Narrow(u64),
    /// The next piece is passed by half, then both ends are reset; clear after that.
    Snap,
}

/// Passes bytes both ways as its weather allows.
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    weather: Mutex<Weather>,
    open: Mutex<Vec<Weak<Pair>>>,
}

/// The two ends of a connection. Both close when the last direction has let go of them.
struct Pair {
    inside: TcpStream,
    outside: TcpStream,
    over: AtomicBool,
}

impl Link {
    /// Listens on a free port and passes on to `to`.
    ///
    /// # Errors
    /// No port is free.
    pub fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(Failure::of("a port for a link"))?;
        let address = listener.local_addr().map_err(Failure::of("a port for a link"))?;
        let shared = Arc::new(Shared { to, weather: Mutex::new(Weather::Clear), open: Mutex::default() });
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

    /// Changes the weather; a cut breaks what is open at once.
    pub fn set(&self, weather: Weather) {
        *self.shared.weather() = weather;
        if weather == Weather::Cut {
            let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
            for pair in open.drain(..).filter_map(|pair| pair.upgrade()) {
                pair.end();
            }
        }
    }

    /// Breaks what is open and refuses what comes.
    pub fn cut(&self) {
        self.set(Weather::Cut);
    }

    pub fn mend(&self) {
        self.set(Weather::Clear);
    }
}

impl Pair {
    fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        // Either may be closed already.
        let _ = self.inside.shutdown(Shutdown::Both);
        let _ = self.outside.shutdown(Shutdown::Both);
    }

    /// Lets both ends be reset rather than closed once they are let go of.
    fn snap(&self) {
        for stream in [&self.inside, &self.outside] {
            // Without it the ends are closed in order, which is a fault as well.
            let _ = set_socket_linger(stream, Some(Duration::ZERO));
        }
        self.over.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Weather {
        *self.weather()
    }

    fn pass(self: &Arc<Self>, inside: TcpStream) -> io::Result<()> {
        if self.now() == Weather::Cut {
            return Ok(());
        }
        let outside = TcpStream::connect(self.to)?;
        for stream in [&inside, &outside] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LOOK))?;
        }
        let pair = Arc::new(Pair { inside, outside, over: AtomicBool::new(false) });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|pair| pair.strong_count() > 0);
        open.push(Arc::downgrade(&pair));
        for up in [true, false] {
            let (shared, pair) = (Arc::clone(self), Arc::clone(&pair));
            thread::spawn(move || {
                let (from, to) =
                    if up { (&pair.inside, &pair.outside) } else { (&pair.outside, &pair.inside) };
                if shared.carry(&pair, from, to).is_err() {
                    pair.end();
                }
            });
        }
        Ok(())
    }

    /// One direction, to its end. An error ends both.
    fn carry(&self, pair: &Pair, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        while !pair.over.load(Ordering::SeqCst) {
            let read = match from.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(e) => return Err(e),
            };
            let mut rest = &buffer[..read];
            while !rest.is_empty() && !pair.over.load(Ordering::SeqCst) {
                match self.now() {
                    Weather::Clear => {
                        to.write_all(rest)?;
                        rest = &[];
                    }
                    Weather::Cut => return Err(ErrorKind::ConnectionAborted.into()),
                    Weather::Silent => thread::sleep(LOOK),
                    Weather::Late(by) => {
                        thread::sleep(by);
                        to.write_all(rest)?;
                        rest = &[];
                    }
                    Weather::Narrow(bytes) => {
                        let piece = usize::try_from(bytes / PIECES).unwrap_or(1).clamp(1, rest.len());
                        thread::sleep(Duration::from_millis(1000 / PIECES));
                        to.write_all(&rest[..piece])?;
                        rest = &rest[piece..];
                    }
                    Weather::Snap => {
                        to.write_all(&rest[..rest.len() / 2])?;
                        *self.weather() = Weather::Clear;
                        pair.snap();
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link, its far end's listener, and a connection through it.
    fn connected() -> (Link, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let link = Link::start(listener.local_addr().expect("an address")).expect("a link");
        let near = TcpStream::connect(link.address()).expect("a connection");
        let (far, _) = listener.accept().expect("the other end");
        far.set_read_timeout(Some(Duration::from_millis(400))).expect("a timeout");
        (link, near, far)
    }

    #[test]
    fn bytes_pass_as_the_weather_allows() {
        let (link, mut near, mut far) = connected();
        let mut two = [0; 2];
        near.write_all(b"ab").expect("sent");
        far.read_exact(&mut two).expect("passed");
        link.set(Weather::Silent);
        near.write_all(b"cd").expect("sent");
        assert!(far.read_exact(&mut two).is_err(), "silence");
        link.mend();
        far.read_exact(&mut two).expect("passed after all");
        assert_eq!(&two, b"cd");
        link.cut();
        assert!(!matches!(far.read(&mut two), Ok(n) if n > 0));
    }

    #[test]
    fn a_snapped_link_passes_half_and_resets() {
        let (link, mut near, mut far) = connected();
        link.set(Weather::Snap);
        near.write_all(b"abcdefgh").expect("sent");
        let mut all = Vec::new();
        let end = far.read_to_end(&mut all);
        assert_eq!(all, b"abcd");
        assert_eq!(end.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    }
}
