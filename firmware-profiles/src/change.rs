//! What can be changed in a device beside stopping and waking it.
//!
//! Each change has the same three proofs as a stop: what the reply said, what is read back, and what
//! later readings show of its effect ([`judge_change`]).

use crate::device::Secret;
use crate::reading::Reading;
use hashinsight_protocol::device::FactV1;
use hashinsight_protocol::units::Watts;

/// One change that an operator can order.
#[derive(Clone, Debug)]
pub enum Change {
    /// Restart of the whole control board.
    Reboot,
    /// The light by which a technician finds the device in its rack.
    Locate { on: bool },
    /// All pools, the first one first; those that are not named are removed.
    Pools(Vec<PoolSetting>),
    /// The most that the device may draw. Firmwares treat it as a target and may exceed it.
    PowerLimit(Watts),
}

impl Change {
    /// In words, for people and the record: without the pools' passwords.
    pub fn words(&self) -> String {
        match self {
            Self::Reboot => "reboot".to_owned(),
            Self::Locate { on: true } => "light on".to_owned(),
            Self::Locate { on: false } => "light off".to_owned(),
            Self::Pools(pools) => {
                let each = |pool: &PoolSetting| format!("{} as {}", bare(&pool.url), pool.worker);
                format!("pools {}", pools.iter().map(each).collect::<Vec<_>>().join(", "))
            }
            Self::PowerLimit(watts) => format!("power limit {watts}"),
        }
    }

    /// In words, for errors: what the device "cannot be".
    pub(crate) fn wish(&self) -> &'static str {
        match self {
            Self::Reboot => "rebooted",
            Self::Locate { .. } => "made to blink",
            Self::Pools(_) => "given other pools",
            Self::PowerLimit(_) => "limited in power",
        }
    }

    /// What a device said, without the pools' passwords that it may have repeated. One of three
    /// characters or less is none ("x", "123").
    pub(crate) fn without_secrets(&self, mut words: String) -> String {
        if let Self::Pools(pools) = self {
            for secret in pools.iter().map(|pool| pool.password.reveal()).filter(|text| text.len() > 3) {
                words = words.replace(secret, "***");
            }
        }
        words
    }
}

/// One pool to be set.
#[derive(Clone, Debug)]
pub struct PoolSetting {
    pub url: String,
    pub worker: String,
    pub password: Secret,
}

/// Power limits are rounded by devices; what differs by less is the same.
const LIMIT_TOLERANCE: f64 = 0.02;

/// The facts (setting, effect) of a change, from a reading before it and one after. Pure.
pub fn judge_change(change: &Change, before: &Reading, after: &Reading) -> (FactV1, FactV1) {
    match change {
        Change::Reboot => {
            // Only a clock that went back proves a restart.
            let restarted = match (before.uptime, after.uptime) {
                (Some(before), Some(after)) if after < before => FactV1::Yes,
                (Some(_), Some(_)) => FactV1::No,
                _ => FactV1::Unknown,
            };
            (FactV1::NotApplicable, restarted)
        }
        // No miner reports light; the setting is all there is.
        Change::Locate { on } => {
            (after.locating.map_or(FactV1::Unknown, |lit| fact(lit == *on)), FactV1::NotApplicable)
        }
        Change::Pools(wanted) => {
            let set = if after.pools.is_empty() { FactV1::Unknown } else { fact(same_pools(wanted, after)) };
            let alive = after.pools.iter().filter(|_| set == FactV1::Yes).filter_map(|pool| pool.alive);
            let effect = alive.fold(FactV1::Unknown, |known, alive| match (known, alive) {
                (FactV1::Yes, _) | (_, true) => FactV1::Yes,
                (_, false) => FactV1::No,
            });
            (set, effect)
        }
        Change::PowerLimit(wanted) => {
            let near = |watts: Watts| watts.get() <= wanted.get() * (1.0 + LIMIT_TOLERANCE);
            let set = after.limit.map_or(FactV1::Unknown, |limit| fact(has_limit(limit, *wanted)));
            (set, after.power.map_or(FactV1::Unknown, |power| fact(near(power))))
        }
    }
}

/// Whether a device's limit is the wanted one.
pub(crate) fn has_limit(limit: Watts, wanted: Watts) -> bool {
    (limit.get() - wanted.get()).abs() <= wanted.get() * LIMIT_TOLERANCE
}

fn fact(holds: bool) -> FactV1 {
    if holds { FactV1::Yes } else { FactV1::No }
}

/// A pool's address without the scheme that is everywhere the same: some firmwares keep it so.
fn bare(url: &str) -> String {
    let url = url.trim().trim_end_matches('/').to_ascii_lowercase();
    url.strip_prefix("stratum+tcp://").map(str::to_owned).unwrap_or(url)
}

/// Whether the pools that a device reports begin with those wanted; empty slots do not count.
fn same_pools(wanted: &[PoolSetting], reading: &Reading) -> bool {
    let found: Vec<(String, Option<&str>)> = reading
        .pools
        .iter()
        // What has no address is a firmware's own fee.
        .filter(|pool| pool.url.contains(['.', ':']))
        .map(|pool| (bare(&pool.url), pool.worker.as_deref()))
        .collect();
    found.len() == wanted.len()
        && wanted.iter().zip(&found).all(|(wanted, (url, worker))| {
            bare(&wanted.url) == *url && worker.is_none_or(|worker| worker == wanted.worker)
        })
}
