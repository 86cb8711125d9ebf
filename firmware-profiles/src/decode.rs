//! From replies to a [`Reading`], without a network: captures replay here.

use crate::Identified;
use crate::extract::{Entry, Finds, Found};
use crate::faults;
use crate::models::Models;
use crate::profile::Profile;
use crate::profiles::Profiles;
use crate::reading::{Board, DeviceFault, Pool, Reading};
use crate::recognise::Parsed;
use crate::request::Request;
use crate::rules::{List, Target, Word};
use hashinsight_protocol::device::{ModeV1, PowerSourceV1};
use hashinsight_protocol::units::{Celsius, DurationMs, Hashrate, Watts};
use std::collections::BTreeMap;

/// What the replies of one device say.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub identified: Identified,
    pub reading: Reading,
}

/// Recognises the firmware and reads the replies; `None` when no reply can be read as any
/// firmware's.
pub fn decode(profiles: &Profiles, replies: &[(Request, &[u8])]) -> Option<Decoded> {
    let profile = recognise(profiles, replies)?;
    let (identity, reading) = read_as(profiles.models(), profile, replies);
    let mut identified = identity.into_identified(profile, profiles.models());
    identified.capabilities = profile.capabilities_of(&Parsed::new(replies));
    Some(Decoded { identified, reading })
}

/// The profile that the replies fit best.
pub fn recognise<'a>(profiles: &'a Profiles, replies: &[(Request, &[u8])]) -> Option<&'a Profile> {
    let parsed = Parsed::new(replies);
    profiles
        .all()
        .filter_map(|profile| profile.recognises(&parsed).map(|score| (score, profile)))
        .max_by_key(|(score, _)| *score)
        .map(|(_, profile)| profile)
}

/// Who a device says it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    pub model: Option<String>,
    pub version: Option<String>,
    pub serial: Option<String>,
    pub mac: Option<String>,
}

impl Identity {
    pub fn into_identified(self, profile: &Profile, models: &Models) -> Identified {
        Identified {
            firmware: profile.firmware.clone(),
            nameplate: self.model.as_deref().and_then(|model| models.find(model)),
            model: self.model,
            version: self.version,
            serial: self.serial,
            mac: self.mac,
            capabilities: profile.capabilities,
            standby: Watts::new(profile.evidence.standby_w).filter(|_| !profile.evidence.generic),
            joins: false,
        }
    }
}

/// Reads replies of a device whose firmware is known already: the hot path of polling, without a
/// network. `None` for a firmware without a profile.
pub fn read_known(profiles: &Profiles, firmware: &str, replies: &[(Request, &[u8])]) -> Option<Reading> {
    let profile = profiles.get(firmware)?;
    Some(read_as(profiles.models(), profile, replies).1)
}

/// Reads replies of a device whose firmware is known.
pub(crate) fn read_as(
    models: &Models,
    profile: &Profile,
    replies: &[(Request, &[u8])],
) -> (Identity, Reading) {
    let mut finds = Finds::default();
    let mut warnings = Vec::new();
    let mut stats = false;
    for (request, bytes) in replies {
        if let Some(words) = refusal(bytes) {
            warnings.push(format!("\"{}\" was refused: {words}", request.name));
            continue;
        }
        stats |= request.name.split('+').any(|name| name == "stats");
        profile.extractor.run(&request.name, bytes, &mut finds);
    }
    let (identity, mut reading) = assemble(models, profile, finds, warnings);
    if stats && profile.evidence.silent_stats_are_idle && reading.hashrate.is_none() {
        reading.is_mining = reading.is_mining.or(Some(false));
    }
    (identity, reading)
}

/// The words of a reply that refuses its command; looks at the reply's head only.
pub(crate) fn refusal(bytes: &[u8]) -> Option<String> {
    // A refusal is short; a joined reply may refuse one of its commands and answer the others.
    if bytes.len() > MAX_REFUSAL || !says_error(bytes) {
        return None;
    }
    let head = String::from_utf8_lossy(bytes);
    let code = after(&head, &["\"Code\":", "Code="]).unwrap_or_default();
    let message = after(&head, &["\"Msg\":", "Msg="]).unwrap_or_default();
    Some(format!("code {code}, {message}"))
}

/// Longest refusal known, in bytes, with room.
const MAX_REFUSAL: usize = 600;

/// Whether the first status of a reply is E or F.
fn says_error(bytes: &[u8]) -> bool {
    const KEY: &[u8] = b"STATUS";
    let mut rest = bytes;
    while let Some(at) = rest.windows(KEY.len()).position(|window| window == KEY) {
        rest = rest.get(at + KEY.len()..).unwrap_or_default();
        let mut value = rest.iter().filter(|b| !matches!(b, b'"' | b':' | b'=' | b' '));
        match value.next() {
            // The list of statuses; its first entry has the letter.
            Some(b'[' | b'{') => {}
            Some(b'E' | b'F') => return matches!(value.next(), Some(b',' | b'}')),
            _ => return false,
        }
    }
    false
}

fn after(text: &str, keys: &[&str]) -> Option<String> {
    let rest = keys.iter().find_map(|key| text.split_once(key).map(|(_, rest)| rest))?;
    let rest = rest.trim_start();
    let value = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split([',', '}', '|']).next(),
    };
    value.map(|v| v.trim().to_owned())
}

fn assemble(
    models: &Models,
    profile: &Profile,
    mut finds: Finds,
    warnings: Vec<String>,
) -> (Identity, Reading) {
    let mut reading = Reading { firmware: profile.firmware.clone(), warnings, ..Reading::default() };
    let text = |target| finds.text(target).map(str::to_owned);
    let identity = Identity {
        model: text(Target::Model).map(|model| without_build(first_line(&model)).to_owned()),
        version: text(Target::Version),
        serial: text(Target::Serial),
        mac: text(Target::Mac).filter(|mac| mac.contains([':', '-']) || mac.len() == 12),
    };
    // Some models name themselves in their software's version alone.
    let names = [&identity.model, &identity.version];
    finds.model_unit = names.into_iter().flatten().find_map(|name| profile.rate_unit(name));
    let nameplate = identity.model.as_deref().and_then(|model| models.find(model));
    reading.model.clone_from(&identity.model);
    reading.hashrate = finds.amount(Target::Hashrate).and_then(Hashrate::new);
    reading.power = finds.amount(Target::Power).and_then(Watts::new);
    reading.limit = finds.amount(Target::Limit).and_then(Watts::new).filter(|w| w.get() > 0.0);
    reading.uptime =
        finds.amount(Target::Uptime).filter(|s| *s >= 0.0).map(|s| DurationMs((s * 1000.0) as u64));
    reading.accepted = finds.amount(Target::Accepted).and_then(count);
    reading.rejected = finds.amount(Target::Rejected).and_then(count);
    reading.vendor_mode = finds.amount(Target::VendorMode).map(|n| n as i64);
    reading.profile = finds.text(Target::Profile).map(str::to_owned);
    reading.mode = match finds.word(Target::Mode) {
        Some(Word::Mode(mode)) => Some(mode),
        _ => None,
    };
    reading.locating = match finds.word(Target::Locating) {
        Some(Word::Yes) => Some(true),
        Some(Word::No) => Some(false),
        _ => None,
    };
    if finds.model_unit.is_some_and(|unit| unit.hashrate.is_nan()) && reading.hashrate.is_none() {
        reading.warnings.push("it is not known in which unit this model counts its hashrate".to_owned());
    }
    fill_lists(profile, &finds, &mut reading);
    if profile.shares_of_pool_in_use {
        share_out(&mut reading);
    }
    faults::explain(&profile.firmware, &mut reading.errors);
    if reading.hashrate.is_none() {
        reading.hashrate = board_sum(&reading.boards);
    }
    reading.is_mining = is_mining(profile, finds.word(Target::Mining), &reading);
    let asleep = reading.mode.is_some_and(ModeV1::is_asleep) || reading.is_mining == Some(false);
    if profile.evidence.zero_power_is_unknown && reading.power == Some(Watts::ZERO) && !asleep {
        reading.power = None;
        reading.warnings.push("the device reports 0 W while it hashes; its power is unknown".to_owned());
    }
    if let (Some(power), Some(rate)) = (reading.power, reading.hashrate)
        && power.get() < profile.evidence.least_j_per_th * rate.terahash()
        && power > Watts::ZERO
    {
        reading.power = None;
        reading.warnings.push(format!(
            "the device reports {:.0} W at {:.1} TH/s, which cannot be; its power is unknown",
            power.get(),
            rate.terahash()
        ));
    }
    if reading.power.is_some() {
        reading.power_source = Some(PowerSourceV1::Device);
    } else if let (Some(plate), Some(hashrate)) = (nameplate, reading.hashrate)
        && hashrate.get() > 0.0
        && let Some(efficiency) = plate.efficiency()
    {
        reading.power = Watts::new(efficiency.get() * hashrate.terahash());
        reading.power_source = Some(PowerSourceV1::Model);
    }
    reading.repairs = finds.repairs.sentences().map(str::to_owned).collect();
    (identity, reading)
}

/// Some devices write their version on a second line of their model's name.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text).trim_end()
}

/// A model's name without the build that some firmwares append: `1346-110-24041001_08b0955`.
fn without_build(model: &str) -> &str {
    let is_build = |part: &str| {
        part.len() > 8
            && part.as_bytes().get(8) == Some(&b'_')
            && part.bytes().take(8).all(|b| b.is_ascii_digit())
    };
    match model.rsplit_once('-') {
        Some((name, build)) if is_build(build) => name,
        _ => model,
    }
}

fn count(number: f64) -> Option<u64> {
    (0.0..1e15).contains(&number).then_some(number as u64)
}

/// The sum of the boards' rates, where every board has one.
fn board_sum(boards: &[Board]) -> Option<Hashrate> {
    if boards.is_empty() {
        return None;
    }
    boards.iter().map(|board| board.hashrate).sum::<Option<Hashrate>>()
}

fn is_mining(profile: &Profile, word: Option<Word>, reading: &Reading) -> Option<bool> {
    let said = match word {
        Some(Word::Yes) => Some(true),
        Some(Word::No) => Some(false),
        _ => match reading.mode {
            Some(ModeV1::Sleep | ModeV1::Failed) => Some(false),
            _ => None,
        },
    };
    let rate = reading.hashrate.map(Hashrate::get);
    if profile.evidence.state_beats_rate && said.is_some() {
        return said;
    }
    if rate.is_some_and(|rate| rate > 0.0) {
        return Some(true);
    }
    said.or(rate.map(|rate| rate > 0.0))
}

/// A number that no sensor means: unplugged ones report these.
fn is_sensor_value(degrees: f64) -> bool {
    degrees != 0.0 && degrees != 255.0 && degrees != 127.0 && (-40.0..=200.0).contains(&degrees)
}

/// Whether an entry says anything at all.
fn is_useful(finds: &Finds, target: Target, entry: &Entry) -> bool {
    match (target, entry) {
        (Target::Temp | Target::BoardTemp, Entry::Amount(amount)) => {
            is_sensor_value(finds.scaled(*amount, target))
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

fn fill_lists(profile: &Profile, finds: &Finds, reading: &mut Reading) {
    let otherwise = |block: u16| profile.otherwise.contains(&block);
    let adds = |block: u16| profile.adding.contains(&block);
    let useful: Vec<&Found> =
        finds.entries.iter().filter(|found| is_useful(finds, found.target, &found.entry)).collect();
    let covered: Vec<List> = useful
        .iter()
        .filter(|found| !otherwise(found.block))
        .filter_map(|found| kind(found.target))
        .collect();
    for list in List::ALL {
        let first = useful
            .iter()
            .filter(|found| {
                found.target.list() == Some(list) && !adds(found.block) && !otherwise(found.block)
            })
            .map(|found| found.block)
            .min();
        // Two replies may say the same (`stats` and `estats`); a block speaks once.
        let reply_of = |block: u16| {
            let of = |f: &&Found| f.target.list() == Some(list) && f.block == block;
            let first = useful.iter().copied().find(of).or_else(|| finds.entries.iter().find(of));
            first.map(|found| found.reply)
        };
        let mut spoken: Vec<(u16, Option<u16>)> = Vec::new();
        let chosen: Chosen<'_> = finds
            .entries
            .iter()
            .filter(|found| {
                found.target.list() == Some(list)
                    && (Some(found.block) == first || adds(found.block) || otherwise(found.block))
                    && !(otherwise(found.block) && kind(found.target).is_some_and(|k| covered.contains(&k)))
            })
            .filter(|found| {
                let reply = match spoken.iter().find(|(block, _)| *block == found.block) {
                    Some((_, reply)) => *reply,
                    None => {
                        let reply = reply_of(found.block);
                        spoken.push((found.block, reply));
                        reply
                    }
                };
                reply == Some(found.reply)
            })
            .collect();
        match list {
            List::Temps => fill_temps(finds, &chosen, reading),
            List::Fans => fill_fans(finds, &chosen, reading),
            List::Boards => fill_boards(finds, &chosen, reading),
            List::Pools => fill_pools(finds, &chosen, reading),
            List::Errors => fill_errors(&chosen, reading),
        }
    }
    let board_temps: Vec<Celsius> =
        reading.boards.iter().flat_map(|board| board.temps.iter().copied()).collect();
    reading.temps.splice(0..0, board_temps);
}

type Chosen<'a> = Vec<&'a Found>;

fn fill_temps(finds: &Finds, chosen: &[&Found], reading: &mut Reading) {
    for found in chosen {
        if let Entry::Amount(amount) = &found.entry
            && is_sensor_value(finds.scaled(*amount, found.target))
        {
            reading.temps.extend(Celsius::new(finds.scaled(*amount, found.target)));
        }
    }
}

fn fill_fans(finds: &Finds, chosen: &[&Found], reading: &mut Reading) {
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

fn fill_boards(finds: &Finds, chosen: &[&Found], reading: &mut Reading) {
    let mut boards: BTreeMap<u32, Board> = BTreeMap::new();
    // Of several rates of one board the line that stands first in the profile counts.
    let mut ranks: BTreeMap<u32, u16> = BTreeMap::new();
    for Found { target, place, entry, rank, .. } in chosen {
        let Entry::Amount(amount) = entry else { continue };
        let index = place.unwrap_or(0);
        let board = boards.entry(index).or_insert_with(|| Board { index, ..Board::default() });
        if *target == Target::BoardRate {
            if ranks.get(&index).is_none_or(|best| rank < best)
                && let Some(rate) = Hashrate::new(finds.scaled(*amount, *target))
            {
                board.hashrate = Some(rate);
                ranks.insert(index, *rank);
            }
        } else if is_sensor_value(finds.scaled(*amount, *target)) {
            board.temps.extend(Celsius::new(finds.scaled(*amount, *target)));
        }
    }
    // A slot without a board reports no sensor and no rate, or a rate of zero.
    reading.boards = boards
        .into_values()
        .filter(|board| !board.temps.is_empty() || board.hashrate.is_some_and(|rate| rate.get() > 0.0))
        .collect();
}

fn fill_pools(finds: &Finds, chosen: &[&Found], reading: &mut Reading) {
    let mut pools: BTreeMap<u32, (Pool, Option<u64>)> = BTreeMap::new();
    let in_use = finds.amount(Target::PoolInUse).map_or(0, |n| n as u32);
    for Found { target, place, entry, .. } in chosen {
        let (pool, port) = pools.entry(place.unwrap_or(in_use)).or_default();
        match (target, entry) {
            (Target::PoolUrl | Target::PoolHost, Entry::Text(text)) if pool.url.is_empty() => {
                pool.url.clone_from(text)
            }
            (Target::PoolWorker, Entry::Text(text)) if pool.worker.is_none() => {
                pool.worker = Some(text.clone())
            }
            (Target::PoolAlive, Entry::Word(word)) if pool.alive.is_none() => {
                pool.alive = Some(*word == Word::Yes)
            }
            (_, Entry::Amount(amount)) => {
                let number = count(finds.scaled(*amount, *target));
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
        .into_values()
        .map(|(mut pool, port)| {
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
        let known: Vec<u64> = reading.pools.iter().filter_map(pick).collect();
        (!known.is_empty()).then(|| known.iter().fold(0, |a: u64, b| a.saturating_add(*b)))
    };
    reading.accepted = reading.accepted.or_else(|| sum(|pool| pool.accepted));
    reading.rejected = reading.rejected.or_else(|| sum(|pool| pool.rejected));
}

/// Puts the shares that a device counts together down to the pool in use.
fn share_out(reading: &mut Reading) {
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

fn fill_errors(chosen: &[&Found], reading: &mut Reading) {
    let mut faults: BTreeMap<u32, DeviceFault> = BTreeMap::new();
    let mut lone = Vec::new();
    for Found { target, place, entry, .. } in chosen {
        let Entry::Text(text) = entry else { continue };
        match (target, place) {
            (Target::Error, None) => lone.push(DeviceFault { code: text.clone(), text: None }),
            (Target::Error, Some(place)) => {
                let fault = faults.entry(*place).or_default();
                if fault.code.is_empty() {
                    fault.code.clone_from(text);
                }
            }
            (_, place) => faults.entry(place.unwrap_or(0)).or_default().text = Some(text.clone()),
        }
    }
    reading.errors =
        faults.into_values().chain(lone).filter(|f| !matches!(f.code.as_str(), "" | "0")).collect();
}
