//! The lists of a reading: temperatures, fans, boards, pools and faults, each whole from the first block
//! of lines that found any.

use crate::extract::{Entry, Finds, Found, is_sensor_value};
use crate::profile::Profile;
use crate::reading::{Board, DeviceFault, Pool, Reading};
use crate::rules::{List, Target, Word};
use hashinsight_protocol::units::{Celsius, Hashrate};

use super::count;

/// Whether an entry says anything at all.
fn is_useful(finds: &Finds, found: &Found) -> bool {
    match (found.target, &found.entry) {
        (Target::Temp | Target::BoardTemp, Entry::Amount(amount)) => {
            is_sensor_value(finds.scaled(*amount, found.target))
        }
        (Target::Fan, Entry::Amount(amount)) => amount.value > 0.0,
        (Target::BoardRate, Entry::Amount(_)) => true,
        (Target::PoolUrl | Target::PoolHost, Entry::Text(text)) => !text.is_empty(),
        (Target::Error, Entry::Text(text)) => !matches!(text.as_str(), "" | "0"),
        _ => false,
    }
}

/// What an `else` block stands in for: temperatures are one kind, wherever they are measured.
fn kind(target: Target) -> Option<List> {
    if target == Target::BoardTemp { Some(List::Temps) } else { target.list() }
}

/// Which entries of a list count.
struct Choice {
    /// The first block that says anything, beside those that add to others or stand in for them.
    first: Option<u16>,
    /// Two replies may say the same (`stats` and `estats`); a block speaks in one alone, the first in which
    /// it says anything. Whether it does is the last part.
    spoken: Vec<(u16, u16, bool)>,
    /// Whether blocks that stand in for others are not needed.
    covered: [bool; List::COUNT],
}

impl Choice {
    fn of(profile: &Profile, finds: &Finds, list: List, covered: [bool; List::COUNT]) -> Self {
        let mut choice = Self { first: None, spoken: Vec::new(), covered };
        for found in finds.list(list) {
            let (block, reply) = (found.block, found.reply);
            let useful = is_useful(finds, found);
            if useful && !profile.adding.contains(&block) && !profile.otherwise.contains(&block) {
                choice.first = Some(choice.first.map_or(block, |first| first.min(block)));
            }
            match choice.spoken.iter_mut().find(|(spoken, ..)| *spoken == block) {
                None => choice.spoken.push((block, reply, useful)),
                Some(spoken) if useful && !spoken.2 => *spoken = (block, reply, true),
                Some(_) => {}
            }
        }
        choice
    }

    fn takes(&self, profile: &Profile, found: &Found) -> bool {
        let block = found.block;
        let otherwise = profile.otherwise.contains(&block);
        let is_covered = || kind(found.target).is_some_and(|kind| self.covered[kind as usize]);
        (Some(block) == self.first || otherwise || profile.adding.contains(&block))
            && !(otherwise && is_covered())
            && self.spoken.iter().any(|(spoken, reply, _)| (*spoken, *reply) == (block, found.reply))
    }
}

/// Fills a reading's lists.
pub(super) fn fill(profile: &Profile, finds: &mut Finds, reading: &mut Reading) {
    let mut covered = [false; List::COUNT];
    if !profile.otherwise.is_empty() {
        for found in List::ALL.into_iter().flat_map(|list| finds.list(list)) {
            if !profile.otherwise.contains(&found.block)
                && let Some(kind) = kind(found.target)
                && !covered[kind as usize]
            {
                covered[kind as usize] = is_useful(finds, found);
            }
        }
    }
    for list in List::ALL {
        let choice = Choice::of(profile, finds, list, covered);
        let entries = finds.take_list(list);
        let chosen = entries.into_iter().filter(|found| choice.takes(profile, found));
        match list {
            List::Temps => fill_temps(finds, chosen, reading),
            List::Fans => fill_fans(finds, chosen, reading),
            List::Boards => fill_boards(finds, chosen, reading),
            List::Pools => fill_pools(finds, chosen, reading),
            List::Errors => fill_errors(chosen, reading),
        }
    }
    let board_temps = reading.boards.iter().flat_map(|board| board.temps.iter().copied());
    reading.temps.splice(0..0, board_temps);
}

/// The value at an index, in order; a new one where it is missing.
fn at<T: Default>(list: &mut Vec<(u32, T)>, index: u32) -> &mut T {
    // Entries of one board or pool follow each other nearly always.
    let place = match list.iter().rposition(|(known, _)| *known <= index) {
        Some(place) if list[place].0 == index => place,
        below => {
            let place = below.map_or(0, |below| below + 1);
            list.insert(place, (index, T::default()));
            place
        }
    };
    &mut list[place].1
}

fn fill_temps(finds: &Finds, chosen: impl Iterator<Item = Found>, reading: &mut Reading) {
    for found in chosen {
        if let Entry::Amount(amount) = &found.entry
            && is_sensor_value(finds.scaled(*amount, found.target))
        {
            reading.temps.extend(Celsius::new(finds.scaled(*amount, found.target)));
        }
    }
}

fn fill_fans(finds: &Finds, chosen: impl Iterator<Item = Found>, reading: &mut Reading) {
    for found in chosen {
        if let Entry::Amount(amount) = &found.entry {
            let rpm = finds.scaled(*amount, found.target);
            if rpm > 0.0 && rpm < 100_000.0 {
                reading.fans_rpm.push(rpm.round() as u32);
            }
        }
    }
    // A fan that the device counts but that does not turn is a fan at 0 rpm. Where none turns, the
    // device is asleep or has water instead, and nothing is known.
    let fans = finds.amount(Target::FanCount).unwrap_or(0.0);
    if !reading.fans_rpm.is_empty() && fans <= 16.0 {
        while (reading.fans_rpm.len() as f64) < fans {
            reading.fans_rpm.push(0);
        }
    }
}

fn fill_boards(finds: &Finds, chosen: impl Iterator<Item = Found>, reading: &mut Reading) {
    // Of several rates of one board the line that stands first in the profile counts.
    let mut boards: Vec<(u32, (Board, Option<u16>))> = Vec::new();
    for Found { target, place, entry, rank, .. } in chosen {
        let Entry::Amount(amount) = entry else { continue };
        let (board, best) = at(&mut boards, place.unwrap_or(0));
        let value = finds.scaled(amount, target);
        if target == Target::BoardRate {
            if best.is_none_or(|best| rank < best)
                && let Some(rate) = Hashrate::new(value)
            {
                board.hashrate = Some(rate);
                *best = Some(rank);
            }
        } else if is_sensor_value(value) {
            board.temps.extend(Celsius::new(value));
        }
    }
    // A slot without a board reports no sensor and no rate, or a rate of zero.
    reading.boards = boards
        .into_iter()
        .map(|(index, (board, _))| Board { index, ..board })
        .filter(|board| !board.temps.is_empty() || board.hashrate.is_some_and(|rate| rate.get() > 0.0))
        .collect();
}

fn fill_pools(finds: &Finds, chosen: impl Iterator<Item = Found>, reading: &mut Reading) {
    let mut pools: Vec<(u32, (Pool, Option<u64>))> = Vec::new();
    let in_use = finds.amount(Target::PoolInUse).map_or(0, |n| n as u32);
    for Found { target, place, entry, .. } in chosen {
        let (pool, port) = at(&mut pools, place.unwrap_or(in_use));
        match (target, entry) {
            (Target::PoolUrl | Target::PoolHost, Entry::Text(text)) if pool.url.is_empty() => pool.url = text,
            (Target::PoolWorker, Entry::Text(text)) if pool.worker.is_none() => pool.worker = Some(text),
            (Target::PoolAlive, Entry::Word(word)) if pool.alive.is_none() => {
                pool.alive = Some(word == Word::Yes)
            }
            (_, Entry::Amount(amount)) => {
                let number = count(finds.scaled(amount, target));
                let slot = match target {
                    Target::PoolPort => &mut *port,
                    Target::PoolAccepted => &mut pool.accepted,
                    Target::PoolRejected => &mut pool.rejected,
                    _ => &mut pool.stale,
                };
                if slot.is_none() {
                    *slot = number;
                }
            }
            _ => {}
        }
    }
    reading.pools = pools
        .into_iter()
        .map(|(_, (mut pool, port))| {
            if let Some(port) = port
                && !pool.url.is_empty()
                && !pool.url.rsplit("://").next().unwrap_or("").contains(':')
            {
                pool.url = format!("{}:{port}", pool.url);
            }
            pool
        })
        .filter(|pool| !pool.url.is_empty())
        .collect();
    let sum = |pick: fn(&Pool) -> Option<u64>| {
        let known = reading.pools.iter().filter_map(pick);
        known.fold(None, |all: Option<u64>, one| Some(all.unwrap_or(0).saturating_add(one)))
    };
    reading.accepted = reading.accepted.or_else(|| sum(|pool| pool.accepted));
    reading.rejected = reading.rejected.or_else(|| sum(|pool| pool.rejected));
}

/// Puts the shares that a device counts together down to the pool in use.
pub(super) fn share_out(reading: &mut Reading) {
    let (accepted, rejected) = (reading.accepted, reading.rejected);
    let in_use = reading.pools.iter().filter(|pool| pool.alive == Some(true)).count();
    if in_use != 1 || accepted.is_none() || reading.pools.iter().any(|pool| pool.accepted.is_some()) {
        return;
    }
    for pool in &mut reading.pools {
        let mine = |shares: Option<u64>| if pool.alive == Some(true) { shares } else { Some(0) };
        (pool.accepted, pool.rejected) = (mine(accepted), mine(rejected));
    }
    if reading.pools.len() > 1 {
        let warning = "the device counts the shares of all pools together; they stand at the pool in use";
        reading.warnings.push(warning.to_owned());
    }
}

fn fill_errors(chosen: impl Iterator<Item = Found>, reading: &mut Reading) {
    let mut faults: Vec<(u32, DeviceFault)> = Vec::new();
    let mut lone = Vec::new();
    for Found { target, place, entry, .. } in chosen {
        let Entry::Text(text) = entry else { continue };
        match (target, place) {
            (Target::Error, None) => lone.push(DeviceFault { code: text, text: None }),
            (Target::Error, Some(place)) => {
                let fault = at(&mut faults, place);
                if fault.code.is_empty() {
                    fault.code = text;
                }
            }
            (_, place) => at(&mut faults, place.unwrap_or(0)).text = Some(text),
        }
    }
    let faults = faults.into_iter().map(|(_, fault)| fault);
    reading.errors = faults.chain(lone).filter(|f| !matches!(f.code.as_str(), "" | "0")).collect();
}
