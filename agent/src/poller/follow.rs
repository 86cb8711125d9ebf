//! Follows miners that have changed address, by serial number or MAC.
//!
//! - A miner that has not been seen for a while is looked for: first among the devices that answer at
//!   other miners' addresses, then in its own network of 256 addresses and in those that the
//!   configuration names, politely and less and less often.
//! - Only a miner of strong identity is followed, and only to a device that no other looks like. It keeps
//!   its id; where another miner stood at the new address, that one gets the old address, so that two
//!   never share one.
//! - Before it's read or written to at its new address the device is recognised again.

use crate::discover::range::{Range, addresses};
use crate::discover::scan::{Found, Manner, scan};
use crate::live::identity::{Known, Match};
use crate::live::{Live, Trust, known};
use crate::poller::Field;
use crate::store::MinerEdit;
use hashinsight_firmware::Device;
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::telemetry::PollV1;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// From one look at who is lost to the next, in cycles.
const LOOK_CYCLES: u32 = 2;
/// Polls that fail in a row before a miner is looked for.
const LOST: u32 = 3;
/// From one search to the next; doubled for each that finds nobody.
const SEARCHES_APART: Duration = Duration::from_secs(10 * 60);
const LONGEST_APART: Duration = Duration::from_secs(4 * 3600);
/// Networks of lost miners that one search looks into.
const NETWORKS: usize = 16;

/// Where a device is reached: address and port of its API.
type Place = (IpAddr, u16);

/// A miner that is looked for.
#[derive(Clone, Debug, PartialEq)]
struct Lost {
    miner: MinerId,
    known: Known,
    place: Place,
}

/// A device that answers somewhere.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    place: Place,
    known: Known,
}

/// Looks for lost miners until it's stopped.
pub async fn run(field: Arc<Field>, networks: Vec<Range>, stop: CancellationToken) {
    let mut apart = SEARCHES_APART;
    let mut last: Option<Instant> = None;
    loop {
        let look = field.settings.watched_cycle * LOOK_CYCLES;
        if stop.run_until_cancelled(sleep(look)).await.is_none() {
            return;
        }
        let api_port = field.contacts.api_port();
        let (lost, strangers) = survey(&field.live, api_port);
        if lost.is_empty() {
            apart = SEARCHES_APART;
            continue;
        }
        let mut moves = places(&lost, &strangers, &occupied(&field.live, api_port));
        if moves.is_empty() && last.is_none_or(|last| last.elapsed() >= apart) {
            last = Some(Instant::now());
            let found = search(&field, &networks, &lost, &stop).await;
            let seen: Vec<_> = found
                .iter()
                .map(|found| Seen {
                    place: (IpAddr::V4(found.ip), api_port),
                    known: Known::of(&found.identified),
                })
                .chain(strangers)
                .collect();
            moves = places(&lost, &seen, &occupied(&field.live, api_port));
            apart = if moves.is_empty() { (apart * 2).min(LONGEST_APART) } else { SEARCHES_APART };
        }
        if moves.is_empty() || stop.is_cancelled() {
            continue;
        }
        let followed = moves.len();
        let edits = moves.into_iter().map(|(miner, (ip, port))| {
            (miner, MinerEdit::Move { ip, api_port: (port != api_port).then_some(port) })
        });
        match field.journal.edit(edits.collect(), field.contacts.clock.now()).await {
            Ok(_) => tracing::info!(followed, "Miners were followed to new addresses."),
            Err(error) => tracing::error!(%error, "Miners that have moved cannot be followed."),
        }
    }
}

/// Who is lost, and who answers in their places.
fn survey(live: &Live, api_port: u16) -> (Vec<Lost>, Vec<Seen>) {
    let (mut lost, mut strangers) = (Vec::new(), Vec::new());
    for entry in live.roster().entries() {
        let state = entry.state();
        let place = (state.miner.ip, state.miner.api_port.unwrap_or(api_port));
        if let (Trust::Other(_), Some(known)) = (&state.trust, &state.stranger) {
            strangers.push(Seen { place, known: known.clone() });
        }
        let known = state.miner.learned.as_ref().map(known).unwrap_or_default();
        let away = state.failures >= LOST || state.poll == Some(PollV1::OtherDevice);
        let silent = matches!(
            state.poll,
            Some(
                PollV1::Refused | PollV1::TimedOut | PollV1::Reset | PollV1::OtherDevice | PollV1::BackedOff
            )
        );
        if away && silent && !known.is_empty() {
            lost.push(Lost { miner: entry.id, known, place });
        }
    }
    (lost, strangers)
}

/// The places of all miners.
fn occupied(live: &Live, api_port: u16) -> HashMap<Place, MinerId> {
    let roster = live.roster();
    let place = |entry: &Arc<crate::live::Entry>| {
        let state = entry.state();
        ((state.miner.ip, state.miner.api_port.unwrap_or(api_port)), entry.id)
    };
    roster.entries().iter().map(place).collect()
}

/// The new places of miners: of the lost ones that were seen once and only once, and of those that stood
/// where they go. Pure.
fn places(lost: &[Lost], seen: &[Seen], occupied: &HashMap<Place, MinerId>) -> Vec<(MinerId, Place)> {
    let mut at: HashMap<MinerId, Place> = occupied.iter().map(|(place, miner)| (*miner, *place)).collect();
    let mut who = occupied.clone();
    let lost_ids: HashSet<MinerId> = lost.iter().map(|lost| lost.miner).collect();
    let mut changed = Vec::new();
    for one in lost {
        let mut fits = seen.iter().filter(|seen| one.known.compare(&seen.known) == Match::Same);
        let (Some(found), None) = (fits.next(), fits.next()) else { continue };
        let alike = |other: &&Lost| other.known.compare(&found.known) == Match::Same;
        let Some(from) = at.get(&one.miner).copied() else { continue };
        if found.place == from || lost.iter().filter(alike).count() != 1 {
            continue;
        }
        let there = who.get(&found.place).copied();
        // One that answers in its place is not sent away.
        if there.is_some_and(|there| !lost_ids.contains(&there)) {
            continue;
        }
        who.remove(&from);
        if let Some(there) = there {
            who.insert(from, there);
            at.insert(there, from);
            changed.push(there);
        }
        who.insert(found.place, one.miner);
        at.insert(one.miner, found.place);
        changed.push(one.miner);
    }
    let mut moves: Vec<_> = changed.into_iter().filter_map(|miner| Some((miner, *at.get(&miner)?))).collect();
    moves.sort_unstable();
    moves.dedup();
    moves
}

/// Looks through the networks of lost miners and those of the configuration, but for the places of
/// miners: those are polled.
async fn search(field: &Field, networks: &[Range], lost: &[Lost], stop: &CancellationToken) -> Vec<Found> {
    let mut ranges: Vec<Range> = networks.to_vec();
    for one in lost {
        if let IpAddr::V4(ip) = one.place.0
            && !ranges.iter().any(|range| range.contains(ip))
            && ranges.len() < networks.len() + NETWORKS
        {
            ranges.push(Range::around(ip));
        }
    }
    let Ok(all) = addresses(&ranges) else { return Vec::new() };
    let polled: HashSet<IpAddr> =
        field.live.roster().entries().iter().map(|entry| entry.state().miner.ip).collect();
    let free: Vec<_> = all.into_iter().filter(|ip| !polled.contains(&IpAddr::V4(*ip))).collect();
    tracing::info!(lost = lost.len(), addresses = free.len(), "Miners are looked for at other addresses.");
    let mut found = Vec::new();
    // Miners of one network share a sign-in as a rule; each that lost miners have is tried.
    let mut names: Vec<Option<String>> = Vec::new();
    let roster = field.live.roster();
    for one in lost {
        let name = roster.get(one.miner).and_then(|entry| entry.state().miner.credentials.clone());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names.into_iter().take(2) {
        let store = field.contacts.credentials();
        let like = Device {
            ip: IpAddr::from([0, 0, 0, 0]),
            api_port: field.contacts.api_port(),
            web_port: field.contacts.web_port(),
            v3_port: field.contacts.v3_port(),
            credentials: name.and_then(|name| store.get(&name).cloned()),
            heard: None,
        };
        // Beside the polls, and nobody waits: half as fast as a person's search.
        let defaults = Manner::default();
        let manner = Manner {
            per_second: defaults.per_second / 2,
            concurrency: defaults.concurrency / 2,
            deadline: field.settings.deadline,
            ..defaults
        };
        let profiles = field.contacts.profiles.clone();
        let outcome = scan(profiles, like, free.clone(), manner, |_| {}, stop.clone()).await;
        for one in outcome.found {
            let strong = one.identified.serial.is_some() || one.identified.mac.is_some();
            if strong && !found.iter().any(|known: &Found| known.ip == one.ip) {
                found.push(one);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::tests::miner;

    fn known(serial: &str) -> Known {
        Known { serial: Some(serial.to_owned()), mac: None }
    }

    fn place(n: u8) -> Place {
        ([127, 0, 0, n].into(), 4028)
    }

    fn lost(n: u8) -> Lost {
        Lost { miner: miner(n).id, known: known(&n.to_string()), place: place(n) }
    }

    fn seen(at: u8, serial: &str) -> Seen {
        Seen { place: place(at), known: known(serial) }
    }

    fn check(lost: &[Lost], seen: &[Seen], expected: &[(u8, u8)]) {
        let occupied = (1..=5).map(|n| (place(n), miner(n).id)).collect();
        let mut expected: Vec<_> = expected.iter().map(|(n, at)| (miner(*n).id, place(*at))).collect();
        expected.sort();
        assert_eq!(places(lost, seen, &occupied), expected);
    }

    #[test]
    fn a_lost_miner_is_followed_to_where_it_is() {
        check(&[lost(1)], &[seen(9, "1")], &[(1, 9)]);
        check(&[lost(1)], &[seen(9, "7"), seen(10, "8")], &[]);
    }

    #[test]
    fn miners_that_have_changed_places_are_followed_both() {
        check(&[lost(1), lost(2)], &[seen(1, "2"), seen(2, "1")], &[(1, 2), (2, 1)]);
        let ring = [seen(1, "3"), seen(2, "1"), seen(3, "2")];
        check(&[lost(1), lost(2), lost(3)], &ring, &[(1, 2), (2, 3), (3, 1)]);
    }

    #[test]
    fn one_that_loses_its_place_gets_a_free_one() {
        check(&[lost(1), lost(2)], &[seen(2, "1")], &[(1, 2), (2, 1)]);
    }

    #[test]
    fn nobody_is_followed_to_a_clone_or_sent_away() {
        check(&[lost(1)], &[seen(9, "1"), seen(10, "1")], &[]);
        check(&[lost(1)], &[seen(3, "1")], &[]);
        let twin = Lost { known: known("1"), ..lost(2) };
        check(&[lost(1), twin], &[seen(9, "1")], &[]);
    }
}
