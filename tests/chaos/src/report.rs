//! What a run found, and whether it is as it must be.
//!
//! A poll that a device answered is stored exactly once, or it was in the burst in flight when its agent
//! was killed, or a disk that took no more is to blame: then a gap counts it. Anything else is
//! unexplained.

use hashinsight_demo::books::Books;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A burst is on its way this long before it is committed, milliseconds: the longest that a cycle with
/// silent devices takes.
const BURST_MS: i64 = 6_000;
/// A killed process's sockets answer this much longer, milliseconds.
const AFTER_MS: i64 = 1_000;
/// The cause of a gap that a killed agent leaves.
pub const KILLED: &str = "burst_lost";

/// A time in which an agent may have lost readings, on the boot clock in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub agent: usize,
    /// Of the gap that must count them.
    pub cause: &'static str,
    pub from: i64,
    pub to: i64,
}

impl Span {
    /// Whether an answer of this agent at this time may have been lost by it.
    fn explains(&self, agent: usize, at: i64) -> bool {
        // What a killed agent's successor polls is its own to keep; a burst that began on a full disk is not.
        let after = if self.cause == KILLED { AFTER_MS } else { AFTER_MS + BURST_MS };
        self.agent == agent && self.from - BURST_MS <= at && at <= self.to.saturating_add(after)
    }
}

/// A run and its books.
#[derive(Debug, Default)]
pub struct Report {
    pub seed: u64,
    pub length: Duration,
    pub sabotage: Option<String>,
    pub faults: usize,
    pub plans: usize,
    pub refused_orders: Vec<String>,
    pub left_out: Vec<&'static str>,
    pub spans: Vec<Span>,
    pub books: Books,
    /// Agent and time of each answer that is stored nowhere.
    pub missing: Vec<(usize, i64)>,
    /// Polls that gaps count, by cause.
    pub gaps: BTreeMap<String, u64>,
    /// Miners that are not as they were.
    pub moved: Vec<String>,
    /// What did not come to rest.
    pub unsettled: Option<String>,
}

impl Report {
    pub fn new(seed: u64, length: Duration, sabotage: Option<String>) -> Self {
        Self { seed, length, sabotage, ..Self::default() }
    }

    /// Missing answers by the cause that explains them.
    fn explained(&self) -> BTreeMap<&'static str, u64> {
        let mut by = BTreeMap::new();
        for (agent, at) in &self.missing {
            if let Some(span) = self.spans.iter().find(|span| span.explains(*agent, *at)) {
                *by.entry(span.cause).or_default() += 1;
            }
        }
        by
    }

    /// Missing answers that nothing explains, or that no gap counts.
    pub fn unexplained(&self) -> u64 {
        let explained = self.explained();
        let known: u64 = explained.values().sum();
        let counted: u64 = self.gaps.values().sum();
        (self.missing.len() as u64).saturating_sub(known) + known.saturating_sub(counted)
    }

    /// Gaps of causes that this run had no reason for.
    fn causeless(&self) -> Vec<&str> {
        let caused = |cause: &str| self.spans.iter().any(|span| span.cause == cause);
        self.gaps.keys().map(String::as_str).filter(|cause| !caused(cause)).collect()
    }

    pub fn balances(&self) -> bool {
        self.books.answered > 0 && self.books.surplus == 0 && self.books.wrong == 0 && self.unexplained() == 0
    }

    /// All that is not as it must be.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if !self.balances() {
            failures.push(format!(
                "the books do not balance: {:?}, {} unexplained",
                self.books,
                self.unexplained()
            ));
        }
        for cause in self.causeless() {
            failures.push(format!("a gap by \"{cause}\", which nothing brought about"));
        }
        for miner in &self.moved {
            failures.push(format!("{miner} is not as it was before"));
        }
        failures.extend(self.unsettled.clone());
        failures
    }

    pub fn to_json(&self) -> Value {
        json!({
            "seed": self.seed,
            "seconds": self.length.as_secs(),
            "sabotage": self.sabotage,
            "faults": self.faults,
            "plans": self.plans,
            "refused_orders": self.refused_orders,
            "left_out": self.left_out,
            "answered": self.books.answered,
            "stored": self.books.stored,
            "duplicated": self.books.surplus,
            "wrong": self.books.wrong,
            "in_flight_or_dropped": self.explained(),
            "gaps": self.gaps,
            "unexplained": self.unexplained(),
            "failures": self.failures(),
            "pass": self.failures().is_empty(),
        })
    }

    pub fn lines(&self) -> Vec<String> {
        let books = &self.books;
        let mut lines = vec![
            format!(
                "seed         {}, {} s, {} faults, {} plans",
                self.seed,
                self.length.as_secs(),
                self.faults,
                self.plans
            ),
            format!("answers      {} answered, {} stored", books.answered, books.stored),
            format!(
                "missing      {} explained {:?}; counted in gaps {:?}",
                self.missing.len(),
                self.explained(),
                self.gaps
            ),
            format!(
                "books        {} lost without a cause, {} duplicated, {} wrong",
                self.unexplained(),
                books.surplus,
                books.wrong,
            ),
            format!("miners       {} in another state than before", self.moved.len()),
        ];
        lines.extend(self.left_out.iter().map(|what| format!("left out     {what}")));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(missing: Vec<(usize, i64)>, counted: u64) -> Report {
        let books = Books { answered: 100, stored: 100 - missing.len(), ..Books::default() };
        let spans = vec![Span { agent: 1, cause: KILLED, from: 100_000, to: 100_100 }];
        let gaps = BTreeMap::from([(KILLED.to_owned(), counted)]);
        Report { missing, books, spans, gaps, ..Report::new(1, Duration::from_secs(1), None) }
    }

    #[test]
    fn only_what_a_kill_explains_and_a_gap_counts_is_forgiven() {
        assert_eq!(report(vec![(1, 98_000)], 30).unexplained(), 0);
        assert_eq!(report(vec![(1, 98_000)], 0).unexplained(), 1, "no gap counts it");
        assert_eq!(report(vec![(0, 98_000)], 30).unexplained(), 1, "another agent was killed");
        assert_eq!(report(vec![(1, 80_000)], 30).unexplained(), 1, "long before");
        assert_eq!(report(vec![(1, 103_000)], 30).unexplained(), 1, "by the agent that came after");
        assert!(report(vec![], 0).failures().is_empty());
    }

    #[test]
    fn a_gap_without_a_reason_is_a_failure() {
        let mut report = report(vec![], 0);
        report.gaps.insert("quota".to_owned(), 5);
        assert_eq!(report.failures().len(), 1);
        report.gaps.clear();
        report.books.surplus = 1;
        assert_eq!(report.failures().len(), 1);
    }
}
