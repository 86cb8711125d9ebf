//! Child processes that end with their parent.

use crate::{Failure, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set by Ctrl-C and by SIGTERM: every wait ends.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Lets Ctrl-C and SIGTERM end this program in order, with everything it started.
///
/// # Errors
/// Another handler is installed.
pub fn end_on_signals() -> Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst))
        .map_err(|e| Failure::new(format!("signals can't be handled: {e}")))
}

/// Whether somebody asked this program to end.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// A program gets this long to end in order before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// A running program with its log. Dropped, it is asked to end, then killed.
pub struct Process {
    name: String,
    child: Option<Child>,
    pub log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    ///
    /// # Errors
    /// The program or the log can't be opened.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log).map_err(Failure::of(log.display()))?;
        let both = file.try_clone().map_err(Failure::of(log.display()))?;
        // A group of its own, so that Ctrl-C at the terminal reaches it through this program alone.
        command.process_group(0);
        let child =
            command.stdin(Stdio::null()).stdout(file).stderr(both).spawn().map_err(Failure::of(format!(
                "{name} can't be started ({})",
                command.get_program().display()
            )))?;
        Ok(Self { name: name.to_owned(), child: Some(child), log: log.to_owned() })
    }

    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// # Errors
    /// The program has ended; the last lines of its log say why.
    pub fn check(&mut self) -> Result<()> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => Ok(()),
            Some(Ok(Some(status))) => {
                self.child = None;
                Err(Failure::new(format!("{} ended ({status}):\n{}", self.name, tail(&self.log))))
            }
            _ => Err(Failure::new(format!("{} does not run", self.name))),
        }
    }

    /// Ends the program at once, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself in the meantime.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the program to end and waits for it; kills it when it takes too long.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let status = wait(&mut child, GRACE);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

#[expect(clippy::disallowed_methods, reason = "a bound on a wait of this program, no time that is kept")]
fn wait(child: &mut Child, most: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + most;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            _ => return None,
        }
    }
}

/// Waits until `ready` gives something, asking every 50 ms.
///
/// # Errors
/// It gave nothing within `most`, or failed.
#[expect(clippy::disallowed_methods, reason = "a bound on a wait of this program, no time that is kept")]
pub fn until<T>(what: &str, most: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + most;
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if interrupted() {
            return Err(Failure::new("interrupted"));
        }
        if Instant::now() > end {
            return Err(Failure::new(format!("{what}: not within {} s", most.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a program to its end; what it printed on standard output.
///
/// # Errors
/// It can't be started, or ends with an error: its own words.
pub fn run(mut command: Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(Failure::of(&name))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let words = String::from_utf8_lossy(&output.stderr);
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).take(3).collect();
        Err(Failure::new(format!("{name} {}: {}", args.join(" "), words.trim())))
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
