//! From replies to a [`Reading`], without a network: captures replay here.

use crate::Identified;
use crate::extract::Finds;
use crate::faults;
use crate::models::Models;
use crate::profile::Profile;
use crate::profiles::Profiles;
use crate::reading::{Board, Reading};
use crate::recognise::Parsed;
use crate::request::Request;
use crate::rules::{Target, Word};
use hashinsight_protocol::device::{ModeV1, PowerSourceV1};
use hashinsight_protocol::units::{DurationMs, Hashrate, Watts};

mod lists;

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
    let (identity, reading) = read_as(profiles.models(), profile, each(replies));
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
    Some(read_as(profiles.models(), profile, each(replies)).1)
}

fn each<'a>(replies: &'a [(Request, &'a [u8])]) -> impl Iterator<Item = (&'a Request, &'a [u8])> {
    replies.iter().map(|(request, bytes)| (request, *bytes))
}

/// Reads replies of a device whose firmware is known.
pub(crate) fn read_as<'a>(
    models: &Models,
    profile: &Profile,
    replies: impl IntoIterator<Item = (&'a Request, &'a [u8])>,
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
    let identity = Identity {
        model: finds.text(Target::Model).map(|model| without_build(first_line(model)).to_owned()),
        version: finds.take_text(Target::Version),
        serial: finds.take_text(Target::Serial),
        mac: finds.take_text(Target::Mac).filter(|mac| mac.contains([':', '-']) || mac.len() == 12),
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
    reading.profile = finds.take_text(Target::Profile);
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
    lists::fill(profile, &mut finds, &mut reading);
    if profile.shares_of_pool_in_use {
        lists::share_out(&mut reading);
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
