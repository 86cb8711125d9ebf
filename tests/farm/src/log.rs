//! The truth: one JSON line for every answered poll, every write and every fault.
//!
//! - A line is made when the last byte of an answer has been handed to the socket without an error;
//!   its `t` is that moment. `n` numbers a device's samples without gaps.
//! - `sample` is an answer that carries the family's real-time rate, also inside a joined request;
//!   every other answered read is `read`. `unread` says afterwards that the client closed the
//!   connection of sample `n` before it had read all of it.
//! - Lines wait in memory for at most [`FLUSH`], and are on disk when the farm has stopped.

use crate::device::{ModeView, WriteResult};
use crate::faults::FaultKind;
use crate::models::Family;
use hashinsight_protocol::units::Millis;
use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The longest that a line waits in memory.
pub const FLUSH: Duration = Duration::from_millis(50);
/// A burst beyond this is written by whoever makes it.
const BUFFER: usize = 4 << 20;

struct Inner {
    pending: Mutex<Pending>,
    wake: Condvar,
    file: Mutex<Option<File>>,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    stop: bool,
    failed: bool,
}

/// The log; lines are dropped when it has no file.
pub struct TruthLog {
    inner: Arc<Inner>,
    writer: Mutex<Option<JoinHandle<()>>>,
    open: AtomicBool,
}

/// A poisoned lock means that another thread panicked in the middle of appending; the bytes are whole
/// lines at all other times, so going on loses at most that line.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TruthLog {
    /// Creates the file, or truncates it.
    pub fn create(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(File::create).transpose()?;
        let has_file = file.is_some();
        let inner = Arc::new(Inner {
            pending: Mutex::new(Pending::default()),
            wake: Condvar::new(),
            file: Mutex::new(file),
        });
        let writer = if has_file {
            let inner = Arc::clone(&inner);
            Some(std::thread::Builder::new().name("truth-log".into()).spawn(move || inner.run())?)
        } else {
            None
        };
        Ok(Self { inner, writer: Mutex::new(writer), open: AtomicBool::new(has_file) })
    }

    fn line(&self, make: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
        if !self.open.load(Ordering::Acquire) {
            return;
        }
        let mut pending = lock(&self.inner.pending);
        let before = pending.bytes.len();
        // Writing into a Vec cannot fail.
        let _ = make(&mut pending.bytes);
        pending.bytes.push(b'\n');
        if before == 0 {
            self.inner.wake.notify_one();
        }
        if pending.bytes.len() > BUFFER {
            let bytes = std::mem::take(&mut pending.bytes);
            // The lock is held, so that lines stay in order.
            self.inner.write(&bytes, &mut pending);
        }
    }

    /// An answered poll of the real-time rate.
    #[allow(clippy::too_many_arguments)]
    pub fn sample(
        &self,
        t: Millis,
        device: Ipv4Addr,
        family: Family,
        request: &str,
        n: u64,
        hashrate_hs: f64,
        power_w: Option<f64>,
    ) {
        self.line(|out| {
            write!(
                out,
                r#"{{"t":{},"device":"{device}","family":"{family}","request":"{request}","kind":"sample","n":{n},"hashrate_hs":{hashrate_hs},"power_w":"#,
                t.0
            )?;
            match power_w {
                Some(w) => write!(out, "{w}}}"),
                None => write!(out, "null}}"),
            }
        });
    }

    /// Any other answered read.
    pub fn read(&self, t: Millis, device: Ipv4Addr, family: Family, request: &str) {
        self.line(|out| {
            write!(
                out,
                r#"{{"t":{},"device":"{device}","family":"{family}","request":"{request}","kind":"read"}}"#,
                t.0
            )
        });
    }

    /// The client of sample `n` went away before it had read the answer.
    pub fn unread(&self, t: Millis, device: Ipv4Addr, n: u64) {
        self.line(|out| write!(out, r#"{{"t":{},"device":"{device}","kind":"unread","n":{n}}}"#, t.0));
    }

    /// A write, whatever became of it; `answered` when its reply was sent in full.
    #[allow(clippy::too_many_arguments)]
    pub fn write(
        &self,
        t: Millis,
        device: Ipv4Addr,
        family: Family,
        request: &str,
        result: WriteResult,
        answered: bool,
        before: &ModeView,
        after: &ModeView,
    ) {
        self.line(|out| {
            write!(
                out,
                r#"{{"t":{},"device":"{device}","family":"{family}","request":"{request}","kind":"write","result":"{}","answered":{answered},"before":"#,
                t.0,
                result.name()
            )?;
            mode(out, before)?;
            write!(out, r#","after":"#)?;
            mode(out, after)?;
            write!(out, "}}")
        });
    }

    /// A fault was `set` or `cleared`, or has `hit` a request or the device.
    pub fn fault(&self, t: Millis, device: Ipv4Addr, fault: FaultKind, event: &str) {
        self.line(|out| {
            write!(
                out,
                r#"{{"t":{},"device":"{device}","kind":"fault","fault":"{}","event":"{event}"}}"#,
                t.0,
                fault.name()
            )
        });
    }

    /// Writes what waits and closes the file. Later lines are dropped.
    pub fn close(&self) {
        self.open.store(false, Ordering::Release);
        let writer = lock(&self.writer).take();
        lock(&self.inner.pending).stop = true;
        self.inner.wake.notify_one();
        if let Some(writer) = writer {
            // A writer that panicked has nothing more to write.
            let _ = writer.join();
        }
    }
}

impl Drop for TruthLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn run(&self) {
        loop {
            let mut pending = lock(&self.pending);
            while pending.bytes.is_empty() && !pending.stop {
                pending = self.wake.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            let stop = pending.stop;
            drop(pending);
            if !stop {
                // Lines of a burst are gathered into one write.
                std::thread::sleep(FLUSH);
            }
            let mut pending = lock(&self.pending);
            let bytes = std::mem::take(&mut pending.bytes);
            if stop {
                self.write(&bytes, &mut pending);
                return;
            }
            // The file's lock is taken before the lines' lock is let go, so that lines stay in order.
            let mut file = lock(&self.file);
            drop(pending);
            let result = file.as_mut().map_or(Ok(()), |f| f.write_all(&bytes));
            drop(file);
            self.check(result, &mut lock(&self.pending));
        }
    }

    fn write(&self, bytes: &[u8], pending: &mut Pending) {
        let result = lock(&self.file).as_mut().map_or(Ok(()), |f| f.write_all(bytes));
        self.check(result, pending);
    }

    fn check(&self, result: io::Result<()>, pending: &mut Pending) {
        if let Err(error) = result
            && !pending.failed
        {
            pending.failed = true;
            eprintln!("hashinsight-farm: the log cannot be written: {error}; it is incomplete from here on");
        }
    }
}

fn mode(out: &mut Vec<u8>, view: &ModeView) -> io::Result<()> {
    let mode = serde_json::to_string(&view.mode)?;
    write!(out, r#"{{"mode":{mode},"vendor_mode":"#)?;
    match view.vendor_mode {
        Some(value) => write!(out, "{value}")?,
        None => write!(out, "null")?,
    }
    match view.limit_w {
        Some(value) => write!(out, r#","limit_w":{value}"#)?,
        None => write!(out, r#","limit_w":null"#)?,
    }
    match &view.profile {
        Some(name) => write!(out, r#","profile":"{name}"}}"#),
        None => write!(out, r#","profile":null}}"#),
    }
}
