//! The miners of a plan, each with its proof: filtered by state, a page at a time, so that thousands of
//! them stay quick to look at while they change.

use crate::curtailment::progress;
use crate::curtailment::store::{StoredPlan, Target};
use crate::error::Result;
use crate::fleet::view::View;
use crate::store::Db;
use crate::web::format::{self, Quantity, UNKNOWN};
use crate::web::i18n::Language;
use crate::web::when;
use hashinsight_protocol::units::{Millis, Watts};
use jiff::tz::TimeZone;
use serde::Deserialize;

/// Rows of a page.
const PAGE: u32 = 50;

/// The states, those first that need a look.
pub const STATES: [&str; 10] = [
    "restore_failed",
    "drifted",
    "refused",
    "unreachable",
    "stopping",
    "waking",
    "planned",
    "curtailed",
    "released",
    "restored",
];

#[derive(Default, Deserialize)]
pub struct TargetParams {
    state: Option<String>,
    page: Option<u32>,
}

/// The table, in words.
pub struct TargetTable {
    /// This view's own address, for what is live.
    pub href: String,
    pub is_empty: bool,
    pub chips: Vec<Chip>,
    pub rows: Vec<Row>,
    pub first: String,
    pub last: String,
    pub total: String,
    pub number: u32,
    pub pages: u32,
    pub previous: Option<String>,
    pub next: Option<String>,
    pub has_agents: bool,
}

/// A state with how many are in it; the way to those alone, and back.
pub struct Chip {
    pub state: &'static str,
    pub count: String,
    pub href: String,
    pub is_chosen: bool,
}

/// One miner.
pub struct Row {
    pub id: String,
    pub place: String,
    pub model: String,
    pub agent: String,
    pub state: &'static str,
    pub proofs: [Proof; 3],
    pub before: Option<Quantity>,
    pub now: Option<Quantity>,
    pub why: String,
    pub at: String,
}

/// One of the three proofs.
pub struct Proof {
    pub name: String,
    pub look: &'static str,
    pub sign: &'static str,
    pub word: String,
}

impl TargetTable {
    /// # Errors
    /// The database fails.
    pub async fn load(
        db: &Db,
        plan: &StoredPlan,
        view: &View,
        params: &TargetParams,
        t: Language,
        now: Millis,
    ) -> Result<Self> {
        let counts = progress::target_counts(db, plan.id).await?;
        let count = |state: &str| counts.get(state).copied().unwrap_or(0);
        let all: i64 = counts.values().sum();
        let chosen = STATES.into_iter().find(|state| params.state.as_deref() == Some(*state));
        let total = chosen.map_or(all, count);
        let pages = u32::try_from(total.div_euclid(i64::from(PAGE)) + i64::from(total % i64::from(PAGE) > 0));
        let pages = pages.unwrap_or(u32::MAX).max(1);
        let number = params.page.unwrap_or(1).clamp(1, pages);
        let first = (number - 1) * PAGE;
        let targets = progress::targets_page(db, plan.id, chosen.unwrap_or_default(), PAGE, first).await?;
        let href = |state: Option<&str>, number: u32| {
            let mut href = format!("/plans/{}", plan.id);
            if let Some(state) = state {
                href.push_str("?state=");
                href.push_str(state);
            }
            if number > 1 {
                href.push_str(if state.is_some() { "&page=" } else { "?page=" });
                href.push_str(&number.to_string());
            }
            href
        };
        let zone = when::zone(&view.site.time_zone);
        let shown = i64::from(first) + targets.len() as i64;
        Ok(Self {
            href: href(chosen, number),
            is_empty: all == 0,
            chips: STATES
                .into_iter()
                .filter(|state| count(state) > 0 || chosen == Some(*state))
                .map(|state| Chip {
                    state,
                    count: format::grouped(count(state)),
                    is_chosen: chosen == Some(state),
                    href: href((chosen != Some(state)).then_some(state), 1),
                })
                .collect(),
            rows: targets.iter().map(|target| row(target, view, &zone, t, now)).collect(),
            first: format::grouped((i64::from(first) + 1).min(shown)),
            last: format::grouped(shown),
            total: format::grouped(total),
            number,
            pages,
            previous: (number > 1).then(|| href(chosen, number - 1)),
            next: (number < pages).then(|| href(chosen, number + 1)),
            has_agents: view.agents.len() > 1,
        })
    }
}

fn row(target: &Target, view: &View, zone: &TimeZone, t: Language, now: Millis) -> Row {
    let watts = |w: Option<i64>| w.and_then(|w| Watts::new(w as f64));
    let (before, present) = (watts(target.power_before_w), watts(target.power_now_w));
    let agent = view.agents.iter().find(|agent| agent.id == target.agent);
    Row {
        id: target.miner.to_string(),
        place: match (&target.rack, &target.position) {
            (Some(rack), Some(position)) => format!("{rack} · {position}"),
            (Some(one), None) | (None, Some(one)) => one.clone(),
            (None, None) => target.miner.to_string()[..8].to_owned(),
        },
        model: target.model.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        agent: agent.map_or_else(|| target.agent.to_string()[..8].to_owned(), |agent| agent.hostname.clone()),
        // A state of a newer agent is shown as what it may still be.
        state: STATES.into_iter().find(|state| *state == target.state).unwrap_or("planned"),
        proofs: [
            proof("proof-accepted", &target.accepted, t),
            proof("proof-mode", &target.mode, t),
            proof("proof-effect", &target.effect, t),
        ],
        before: before.map(format::watts),
        now: present.map(format::watts),
        why: target.why.clone(),
        at: when::moment(target.at, now, zone),
    }
}

fn proof(key: &'static str, fact: &str, t: Language) -> Proof {
    let (look, sign, word) = match fact {
        "yes" => ("yes", "✓", "fact-yes"),
        "no" => ("no", "✗", "fact-no"),
        "not_applicable" => ("none", "–", "fact-not-applicable"),
        _ => ("unknown", "?", "fact-unknown"),
    };
    Proof { name: t.t(key), look, sign, word: t.t(word) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curtailment::fleet_view::name_of;
    use hashinsight_protocol::device::FactV1;
    use hashinsight_protocol::evidence::TargetStateV1::*;

    #[test]
    fn every_state_and_fact_of_the_wire_has_its_words() {
        let states = [
            Planned,
            Stopping,
            Curtailed,
            Drifted,
            Refused,
            Unreachable,
            Waking,
            Restored,
            RestoreFailed,
            Released,
        ];
        for state in states {
            let name = name_of(state);
            assert!(STATES.contains(&name.as_str()), "{name}");
            for t in Language::ALL {
                let key = format!("target-{name}");
                assert_ne!(t.t(&key), key);
            }
        }
        let signs = [FactV1::Yes, FactV1::No, FactV1::Unknown, FactV1::NotApplicable]
            .map(|fact| proof("proof-mode", &name_of(fact), Language::English).sign);
        assert_eq!(signs, ["✓", "✗", "?", "–"]);
    }
}
