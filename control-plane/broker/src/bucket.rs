//! A token bucket: so many at once, and then so many a second. Time is passed in.

use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Bucket {
    level: f64,
    capacity: f64,
    per_second: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(capacity: f64, per_second: f64, now: Instant) -> Self {
        Self { level: capacity, capacity, per_second, at: now }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.capacity);
        self.at = now;
    }

    /// Takes one whole token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let there = self.level >= 1.0;
        if there {
            self.level -= 1.0;
        }
        there
    }

    /// Takes `amount` in any case, and says how long to wait before the next.
    pub fn owe(&mut self, amount: f64, now: Instant) -> Duration {
        self.fill(now);
        self.level -= amount;
        if self.level >= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-self.level / self.per_second).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2.0, 10.0, start);
        assert_eq!([bucket.take(start), bucket.take(start), bucket.take(start)], [true, true, false]);
        let later = start + Duration::from_millis(100);
        assert_eq!([bucket.take(later), bucket.take(later)], [true, false]);
    }

    #[test]
    fn what_is_owed_is_waited_for() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100.0, 100.0, start);
        assert_eq!(bucket.owe(100.0, start), Duration::ZERO);
        assert_eq!(bucket.owe(50.0, start), Duration::from_millis(500));
        assert_eq!(bucket.owe(0.0, start + Duration::from_millis(500)), Duration::ZERO);
    }
}
