//! What a process can find out of itself: time, CPU time, memory.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What a piece of work took.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    pub wall_s: f64,
    /// User and system time of all threads of this process.
    pub cpu_s: f64,
}

/// Begins now, and ends with [`Stopwatch::stop`].
pub struct Stopwatch {
    wall: f64,
    cpu: f64,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { wall: seconds(ClockId::Monotonic), cpu: seconds(ClockId::ProcessCPUTime) }
    }

    pub fn stop(self) -> Cost {
        let now = Self::start();
        Cost { wall_s: now.wall - self.wall, cpu_s: now.cpu - self.cpu }
    }
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resident memory of this process, in MiB.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    pub now_mib: f64,
    /// The most since [`forget_peak`].
    pub peak_mib: f64,
}

pub fn memory() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib / 1024.0)
    };
    Memory { now_mib: mib("VmRSS:").unwrap_or(f64::NAN), peak_mib: mib("VmHWM:").unwrap_or(f64::NAN) }
}

/// Lets the peak of memory begin anew. A kernel that doesn't allow it leaves the older peak.
pub fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Lets this process have as many sockets as the machine allows it.
pub fn allow_many_sockets() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What it has is enough for all but the largest bursts, and those say what is missing.
    let _ = setrlimit(Resource::Nofile, limit);
}
