//! Words and figures that the pages of curtailment share.

use crate::curtailment::request::Goal;
use crate::fleet::readiness;
use crate::web::format::{Quantity, grouped};
use crate::web::i18n::Language;
use hashinsight_curtailment::SkipReason;
use hashinsight_protocol::units::DurationMs;

/// Power in kilowatts, whatever its size: the figures of a plan are compared with each other.
pub fn kilowatts(watts: f64) -> Quantity {
    let tenths = (watts / 100.0).round() as i64;
    let sign = if tenths < 0 { "-" } else { "" };
    let number = format!("{sign}{}.{}", grouped(tenths.abs() / 10), tenths.abs() % 10);
    Quantity { number, unit: "kW" }
}

/// What a plan is to do.
pub fn goal(t: Language, goal: Goal) -> String {
    match goal {
        Goal::ReduceKw(kw) => t.with1("plan-goal-reduce", "power", kilowatts(kw * 1000.0).to_string()),
        Goal::All => t.t("plan-goal-all"),
    }
}

/// How much of a target is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    pub reached: Quantity,
    pub target: Quantity,
    /// Thousandths, at most all.
    pub share: f64,
    pub percent: i64,
    /// What is missing, unless it is next to nothing.
    pub missing: Option<Quantity>,
}

impl Bar {
    pub fn new(reached_w: i64, target_w: i64) -> Self {
        let share = if target_w > 0 { (reached_w as f64 / target_w as f64).max(0.0) } else { 1.0 };
        let missing = target_w.saturating_sub(reached_w);
        Self {
            reached: kilowatts(reached_w as f64),
            target: kilowatts(target_w as f64),
            share: share.min(1.0) * 1000.0,
            // What is not all must not read as all.
            percent: (share * 100.0).floor() as i64,
            missing: (missing >= 50).then(|| kilowatts(missing as f64)),
        }
    }
}

/// The key of the words for why a miner isn't taken.
pub fn skipped(reason: &SkipReason) -> &'static str {
    match reason {
        SkipReason::OutOfScope => "skip-out-of-scope",
        SkipReason::OutOfService => "skip-out-of-service",
        SkipReason::Protected => "skip-protected",
        SkipReason::NoCapability => "skip-no-capability",
        SkipReason::NotReady { blocker } => readiness::key(*blocker),
        SkipReason::WeakIdentity => "skip-weak-identity",
        SkipReason::NoReading => "skip-no-reading",
        SkipReason::StaleReading { .. } => "skip-stale-reading",
        SkipReason::AsleepBefore => "skip-asleep-before",
        SkipReason::Failed => "skip-failed",
        SkipReason::PowerUnknown => "skip-power-unknown",
        SkipReason::BelowFloor { .. } => "skip-below-floor",
        SkipReason::HeldByAnother { .. } => "skip-held-by-another",
        SkipReason::Waking => "skip-waking",
        SkipReason::MinOn { .. } => "skip-min-on",
        SkipReason::StartsADay { .. } => "skip-starts-a-day",
        SkipReason::LetGo { .. } => "skip-let-go",
        SkipReason::NotNeeded => "skip-not-needed",
    }
}

/// The figure behind a reason, where there is one.
pub fn skip_figure(t: Language, reason: &SkipReason) -> Option<String> {
    let time = |length: DurationMs| crate::web::format::duration(t, length);
    match reason {
        SkipReason::StaleReading { age } => Some(time(*age)),
        SkipReason::BelowFloor { saves, .. } => Some(crate::web::format::watts(*saves).to_string()),
        SkipReason::MinOn { left } => Some(time(*left)),
        SkipReason::StartsADay { stops } => Some(format!("{stops}×")),
        SkipReason::LetGo { again_in } => Some(time(*again_in)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_never_says_all_too_early() {
        let bar = Bar::new(499_960, 500_000);
        assert_eq!((bar.percent, bar.missing, bar.target.to_string()), (99, None, "500.0\u{a0}kW".into()));
        let bar = Bar::new(0, 500_000);
        assert_eq!((bar.share, bar.missing.map(|q| q.number)), (0.0, Some("500.0".into())));
        let bar = Bar::new(510_000, 500_000);
        assert_eq!((bar.share, bar.percent), (1000.0, 102));
        assert_eq!(kilowatts(1_234_567.0).to_string(), "1,234.6\u{a0}kW");
        assert_eq!(Bar::new(0, 0).percent, 100);
    }
}
