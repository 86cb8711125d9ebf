//! Wall time. The only place that reads the system's clock; everything else is given the time.

use hashinsight_protocol::units::{DurationMs, Millis};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

/// The time now. A clone tells the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Set(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is told to move; for tests.
    pub fn standing_at(now: Millis) -> Self {
        Self(Source::Set(Arc::new(AtomicI64::new(now.0))))
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn now(&self) -> Millis {
        match &self.0 {
            Source::System => system_now(),
            Source::Set(now) => Millis(now.load(Ordering::SeqCst)),
        }
    }

    /// Moves a standing clock on; the machine's clock moves by itself.
    pub fn advance(&self, by: DurationMs) {
        if let Source::Set(now) = &self.0 {
            now.fetch_add(i64::try_from(by.0).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
fn system_now() -> Millis {
    // A clock before 1970 reads as 1970: nothing of ours is that old.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
