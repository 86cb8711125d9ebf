//! Where a plan stands, derived from where its agents' dispatches stand.

use hashinsight_protocol::evidence::DispatchStateV1 as D;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A plan's state as the console shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// Waits for somebody's approval.
    Pending,
    /// On its way to the agents, or waiting for its start.
    Approved,
    Executing,
    /// The target is reached, or nothing more can be stopped: holding.
    Executed,
    Recovering,
    Completed,
    CompletedWithFailures,
    Cancelled,
    Expired,
}

impl PlanState {
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Approved,
        Self::Executing,
        Self::Executed,
        Self::Recovering,
        Self::Completed,
        Self::CompletedWithFailures,
        Self::Cancelled,
        Self::Expired,
    ];

    /// As stored and shown in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Executing => "executing",
            Self::Executed => "executed",
            Self::Recovering => "recovering",
            Self::Completed => "completed",
            Self::CompletedWithFailures => "completed_with_failures",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::CompletedWithFailures | Self::Cancelled | Self::Expired)
    }

    /// Whether agents hold the plan in their documents.
    pub fn is_with_agents(self) -> bool {
        matches!(self, Self::Approved | Self::Executing | Self::Executed | Self::Recovering)
    }
}

impl fmt::Display for PlanState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The plan's state after a report. `dispatches` has one entry an allotted agent: its dispatch's state,
/// or `None` while it has not reported one.
pub fn after_report(now: PlanState, dispatches: &[Option<D>]) -> PlanState {
    if now.is_final() && now != PlanState::CompletedWithFailures {
        return now;
    }
    let any = |state: D| dispatches.contains(&Some(state));
    let is_over = |d: &Option<D>| {
        matches!(d, Some(D::Completed | D::CompletedWithFailures | D::Cancelled | D::Expired))
    };
    if dispatches.iter().all(|d| d.is_none()) {
        return now;
    }
    if any(D::Recovering) {
        return PlanState::Recovering;
    }
    if any(D::Executing) {
        return PlanState::Executing;
    }
    if any(D::Holding) {
        // Agents that have not begun keep the plan executing; ones that are through do not.
        return if dispatches.iter().any(Option::is_none) {
            PlanState::Executing
        } else {
            PlanState::Executed
        };
    }
    if !dispatches.iter().all(is_over) {
        return now;
    }
    if any(D::CompletedWithFailures) {
        PlanState::CompletedWithFailures
    } else if any(D::Completed) {
        PlanState::Completed
    } else if any(D::Cancelled) {
        PlanState::Cancelled
    } else {
        PlanState::Expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_its_agents() {
        let cases: &[(PlanState, &[Option<D>], PlanState)] = &[
            (PlanState::Approved, &[None, None], PlanState::Approved),
            (PlanState::Approved, &[Some(D::Executing), None], PlanState::Executing),
            (PlanState::Executing, &[Some(D::Holding), None], PlanState::Executing),
            (PlanState::Executing, &[Some(D::Holding), Some(D::Holding)], PlanState::Executed),
            (PlanState::Executed, &[Some(D::Recovering), Some(D::Holding)], PlanState::Recovering),
            (PlanState::Executed, &[Some(D::Completed), Some(D::Holding)], PlanState::Executed),
            (PlanState::Recovering, &[Some(D::Completed), None], PlanState::Recovering),
            (PlanState::Recovering, &[Some(D::Completed), Some(D::Expired)], PlanState::Completed),
            (
                PlanState::Recovering,
                &[Some(D::Completed), Some(D::CompletedWithFailures)],
                PlanState::CompletedWithFailures,
            ),
            // A miner that could not be woken is retried until it is back.
            (
                PlanState::CompletedWithFailures,
                &[Some(D::Completed), Some(D::Completed)],
                PlanState::Completed,
            ),
            (PlanState::Approved, &[Some(D::Cancelled)], PlanState::Cancelled),
            (PlanState::Approved, &[Some(D::Expired)], PlanState::Expired),
            (PlanState::Completed, &[Some(D::Recovering)], PlanState::Completed),
        ];
        for (before, dispatches, after) in cases {
            assert_eq!(after_report(*before, dispatches), *after, "{before} {dispatches:?}");
        }
    }

    #[test]
    fn every_state_reads_back() {
        for state in PlanState::ALL {
            assert_eq!(PlanState::parse(state.name()), Some(state));
        }
    }
}
