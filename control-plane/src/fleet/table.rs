//! Lists of miners: filtered, searched, sorted, a page at a time.

use super::status::Status;
use super::view::{Miner, View};
use hashinsight_protocol::units::Millis;
use std::cmp::Ordering;

/// Rows of a page of the console.
pub const PAGE: usize = 50;
/// Characters of a search that count.
const SEARCH: usize = 100;

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Rack and position.
    #[default]
    Place,
    Model,
    Firmware,
    Status,
    Hashrate,
    Power,
    Efficiency,
    Hottest,
    Fans,
    Uptime,
    Age,
}

impl Sort {
    pub const ALL: [Self; 11] = [
        Self::Status,
        Self::Place,
        Self::Model,
        Self::Firmware,
        Self::Hashrate,
        Self::Power,
        Self::Efficiency,
        Self::Hottest,
        Self::Fans,
        Self::Uptime,
        Self::Age,
    ];

    /// As in addresses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Model => "model",
            Self::Firmware => "firmware",
            Self::Status => "status",
            Self::Hashrate => "hashrate",
            Self::Power => "power",
            Self::Efficiency => "efficiency",
            Self::Hottest => "hottest",
            Self::Fans => "fans",
            Self::Uptime => "uptime",
            Self::Age => "age",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Whether the first look is at the greatest: the hottest, not the coolest.
    pub fn starts_descending(self) -> bool {
        matches!(
            self,
            Self::Hashrate | Self::Power | Self::Efficiency | Self::Hottest | Self::Fans | Self::Age
        )
    }
}

/// What of a site's miners is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    pub search: String,
    pub status: Option<Status>,
    pub sort: Sort,
    pub descending: bool,
}

/// The miners that a query asks for, in its order.
pub fn find<'v>(view: &'v View, query: &Query, now: Millis) -> Vec<(&'v Miner, Status)> {
    let words: Vec<String> = query
        .search
        .chars()
        .take(SEARCH)
        .collect::<String>()
        .split_whitespace()
        .map(str::to_lowercase)
        .collect();
    let mut found: Vec<(&Miner, Status)> = view
        .miners
        .iter()
        .map(|miner| (miner, miner.status(now)))
        .filter(|(_, status)| query.status.is_none_or(|wanted| wanted == *status))
        .filter(|(miner, _)| words.iter().all(|word| mentions(miner, word)))
        .collect();
    // The view is in the order of places already, and sorting keeps it among equals.
    match (query.sort, query.descending) {
        (Sort::Place, false) => {}
        (Sort::Place, true) => found.reverse(),
        (sort, descending) => found.sort_by(|a, b| compare(a, b, sort, descending)),
    }
    found
}

fn compare(a: &(&Miner, Status), b: &(&Miner, Status), sort: Sort, descending: bool) -> Ordering {
    let (x, y) = (a.0, b.0);
    match sort {
        Sort::Place => Ordering::Equal,
        Sort::Status => directed(Some(a.1), Some(b.1), descending),
        Sort::Model => directed(x.model.as_deref(), y.model.as_deref(), descending),
        Sort::Firmware => {
            let firmware = |m: &Miner| m.firmware.clone().map(|f| (f, m.version.clone()));
            directed(firmware(x), firmware(y), descending)
        }
        Sort::Hashrate => directed(x.hashrate, y.hashrate, descending),
        Sort::Power => directed(x.power, y.power, descending),
        Sort::Efficiency => directed(x.efficiency(), y.efficiency(), descending),
        Sort::Hottest => directed(x.hottest, y.hottest, descending),
        Sort::Fans => directed(x.fan_max, y.fan_max, descending),
        Sort::Uptime => directed(x.uptime, y.uptime, descending),
        // The oldest answer is the greatest age; who never answered is older than all.
        Sort::Age => {
            let order = y.answered_at.cmp(&x.answered_at);
            if descending { order.reverse() } else { order }
        }
    }
}

/// What is unknown comes last, whichever way the list runs.
fn directed<T: PartialOrd>(a: Option<T>, b: Option<T>, descending: bool) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => {
            // All that is compared here is totally ordered: quantities are finite.
            let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
            if descending { order.reverse() } else { order }
        }
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

fn mentions(miner: &Miner, word: &str) -> bool {
    let texts = [
        &miner.rack,
        &miner.position,
        &miner.model,
        &miner.firmware,
        &miner.version,
        &miner.serial,
        &miner.mac,
        &miner.customer,
    ];
    texts.into_iter().flatten().any(|text| contains(text, word)) || contains(&miner.id.to_string(), word)
}

/// Whether `text` contains `word`, which is in lower case.
fn contains(text: &str, word: &str) -> bool {
    if text.is_ascii() && word.is_ascii() {
        let (text, word) = (text.as_bytes(), word.as_bytes());
        return text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    }
    text.to_lowercase().contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unknown_comes_last_both_ways() {
        let mut values = [Some(2), None, Some(3), Some(1)];
        values.sort_by(|a, b| directed(*a, *b, false));
        assert_eq!(values, [Some(1), Some(2), Some(3), None]);
        values.sort_by(|a, b| directed(*a, *b, true));
        assert_eq!(values, [Some(3), Some(2), Some(1), None]);
    }

    #[test]
    fn words_are_found_in_any_case() {
        assert!(contains("Antminer S19 Pro", "s19"));
        assert!(contains("矿机Ä1", "ä1"));
        assert!(!contains("S1", "s19"));
    }
}
