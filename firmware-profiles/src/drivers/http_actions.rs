//! Families with a web API: the actions of a profile's table, each with the ways to do it in order.
//!
//! A way is sent, its reply judged, and what it was to change read back; only then comes the next. A
//! way that the device does not have (404), refuses, or takes and ignores is followed by the next; one
//! whose effect cannot be read is not, because a second write into the dark helps nobody. What was
//! tried and ignored is named in the outcome.
//!
//! A profile may name settings that no stop or wake moves: they are read before and after, and put
//! back when they did. Documents hold passwords: no value of one appears in an error or outcome.

use super::http_send::{pool_blanks, read_json, send, web_call};
use super::http_ways::{run, run_change};
use super::watched::Watched;
use super::{Context, guard, state_of};
use crate::change::{Change, judge_change};
use crate::control::http::{Condition, HttpControl, Place, number, values};
use crate::device::DeviceError;
use crate::template::Blanks;
use crate::{Reading, WriteOutcome};
use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};
use serde_json::Value;

/// Limits that differ by less are the same: devices round them.
const LIMIT_TOLERANCE: f64 = 0.02;

pub(super) async fn stop(context: &Context<'_>, control: &HttpControl) -> Result<WriteOutcome, DeviceError> {
    let before = context.look().await?;
    if mode_of(context, &before).is_some_and(ModeV1::is_asleep) {
        return Ok(WriteOutcome::needless("it is stopped already"));
    }
    let watched = Watched::open(context, control).await;
    let asleep = |reading: &Reading| {
        let mode = mode_of(context, reading);
        // "Not mining" without a word for it is a device on its way down.
        mode.map(ModeV1::is_asleep).or_else(|| reading.is_mining.filter(|mining| *mining).map(|_| false))
    };
    let outcome = run(context, control, &control.stop, &Blanks::new(), &asleep).await?;
    watched.close(context, control, &outcome).await?;
    Ok(outcome)
}

pub(super) async fn wake(
    context: &Context<'_>,
    control: &HttpControl,
    pre: &PreStateV1,
) -> Result<WriteOutcome, DeviceError> {
    let before = context.look().await?;
    let runs = mode_of(context, &before).is_some_and(|mode| !matches!(mode, ModeV1::Sleep | ModeV1::Failed));
    if let Some(why) = if runs { None } else { guarded(context, control).await? } {
        let detail = format!("not woken yet: {why}");
        return Ok(WriteOutcome { accepted: FactV1::NotApplicable, mode: FactV1::No, shape: None, detail });
    }
    // Settings first: a device that stands still takes them without a second restart.
    let mut notes = Vec::new();
    let as_before = put_back(context, control, pre, &before, &mut notes).await?;
    let mut outcome = if runs {
        WriteOutcome::needless("it runs already")
    } else {
        let watched = Watched::open(context, control).await;
        let mut blanks = Blanks::new();
        if let Some(mode) = pre.vendor_mode {
            blanks.insert("vendor_mode".to_owned(), mode.into());
        }
        let awake = |reading: &Reading| match mode_of(context, reading)? {
            // Where the mode shows only as a rate, a device on its way up looks asleep.
            ModeV1::Sleep if reading.mode.is_none() => None,
            ModeV1::Sleep | ModeV1::Failed => Some(false),
            _ => Some(true),
        };
        let outcome = run(context, control, &control.wake, &blanks, &awake).await?;
        watched.close(context, control, &outcome).await?;
        outcome
    };
    if as_before == FactV1::No {
        outcome.mode = FactV1::No;
    }
    if !notes.is_empty() {
        outcome.detail = format!("{}; {}", outcome.detail, notes.join("; "));
        if outcome.accepted == FactV1::NotApplicable {
            outcome.accepted = FactV1::Unknown;
        }
    }
    Ok(outcome)
}

pub(super) async fn change(
    context: &Context<'_>,
    control: &HttpControl,
    change: &Change,
) -> Result<WriteOutcome, DeviceError> {
    let none = Blanks::new();
    match change {
        Change::Reboot => reboot(context, control).await,
        Change::Locate { on } => {
            let ways = if *on { &control.locate_on } else { &control.locate_off };
            run_change(context, control, ways, &none, &|reading| reading.locating.map(|lit| lit == *on)).await
        }
        Change::Pools(pools) => {
            let blanks = pool_blanks(pools);
            let set = |reading: &Reading| match judge_change(change, reading, reading).0 {
                FactV1::Yes => Some(true),
                FactV1::No => Some(false),
                _ => None,
            };
            run_change(context, control, &control.pools, &blanks, &set).await
        }
        Change::PowerLimit(limit) => {
            if control.presets.is_some() {
                let preset = choose_preset(context, control, limit.get()).await?;
                return set_preset(context, control, &preset).await;
            }
            set_limit(context, control, limit.get()).await
        }
    }
}

fn mode_of(context: &Context<'_>, reading: &Reading) -> Option<ModeV1> {
    state_of(context, reading).ok().map(|state| state.mode)
}

async fn set_limit(
    context: &Context<'_>,
    control: &HttpControl,
    watts: f64,
) -> Result<WriteOutcome, DeviceError> {
    // Whole watts: no family takes parts of one.
    let blanks: Blanks = [("watts".to_owned(), Value::from(watts.round() as i64))].into_iter().collect();
    let set = |reading: &Reading| reading.limit.map(|limit| is_near(limit.get(), watts));
    run_change(context, control, &control.power_limit, &blanks, &set).await
}

async fn set_preset(
    context: &Context<'_>,
    control: &HttpControl,
    preset: &str,
) -> Result<WriteOutcome, DeviceError> {
    let blanks: Blanks = [("preset".to_owned(), Value::from(preset))].into_iter().collect();
    let set = |reading: &Reading| reading.profile.as_ref().map(|now| now.eq_ignore_ascii_case(preset));
    let mut outcome = run_change(context, control, &control.preset, &blanks, &set).await?;
    outcome.detail = format!("preset {preset}: {}", outcome.detail);
    Ok(outcome)
}

fn is_near(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() <= wanted * LIMIT_TOLERANCE
}

/// Puts back preset and limit where they moved; whether they are as before now.
async fn put_back(
    context: &Context<'_>,
    control: &HttpControl,
    pre: &PreStateV1,
    now: &Reading,
    notes: &mut Vec<String>,
) -> Result<FactV1, DeviceError> {
    let mut all = FactV1::Yes;
    let mut tell = |what: String, outcome: Option<WriteOutcome>| {
        let back = outcome.as_ref().is_some_and(|outcome| outcome.mode == FactV1::Yes);
        if !back {
            all = FactV1::No;
        }
        notes.push(match outcome {
            _ if back => format!("{what}, put back"),
            Some(outcome) => format!("{what}, NOT put back ({})", outcome.detail),
            None => format!("{what}, and this firmware's cannot be set"),
        });
    };
    if let (Some(was), Some(is)) = (&pre.profile, &now.profile)
        && !was.eq_ignore_ascii_case(is)
    {
        let outcome = match control.preset.is_empty() {
            true => None,
            false => Some(set_preset(context, control, was).await?),
        };
        tell(format!("its preset had become {is} from {was}"), outcome);
    }
    if let (Some(was), Some(is)) = (pre.limit, now.limit)
        && !is_near(is.get(), was.get())
        // A preset brings its limit along.
        && control.presets.is_none()
    {
        let outcome = match control.power_limit.is_empty() {
            true => None,
            false => Some(set_limit(context, control, was.get()).await?),
        };
        tell(format!("its limit had become {:.0} W from {:.0} W", is.get(), was.get()), outcome);
    }
    Ok(all)
}

/// The name of the strongest preset within a limit.
async fn choose_preset(
    context: &Context<'_>,
    control: &HttpControl,
    limit: f64,
) -> Result<String, DeviceError> {
    let unsupported =
        || DeviceError::Unsupported { firmware: context.profile.title.clone(), wish: "limited in power" };
    let presets = control.presets.as_ref().ok_or_else(unsupported)?;
    let reply = read_json(context, &presets.get).await?;
    let fits = |preset: &&Value| presets.only.as_ref().is_none_or(|only: &Condition| only.holds(preset));
    let watts = |preset: &Value| values(preset, &presets.watts).first().and_then(|value| number(value));
    let listed = values(&reply, &presets.list);
    let entries = listed.into_iter().filter_map(Value::as_array).flatten();
    let best = entries
        .filter(fits)
        .filter_map(|preset| {
            let name = values(preset, &presets.name).first()?.as_str()?.to_owned();
            Some((watts(preset).filter(|watts| *watts > 0.0 && *watts <= limit)?, name))
        })
        .max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, name)| name).ok_or_else(|| DeviceError::Rejected {
        address: web_call(context).name(),
        request: format!("a limit of {limit:.0} W"),
        words: "it has no tuned preset at or under it; tune one first".to_owned(),
    })
}

async fn reboot(context: &Context<'_>, control: &HttpControl) -> Result<WriteOutcome, DeviceError> {
    let mut refused = Vec::new();
    for way in &control.reboot {
        let sent = send(context, control, way, &Blanks::new()).await?;
        if sent.accepted == FactV1::No {
            refused.push(format!("\"{}\" ({})", way.name, sent.words));
            continue;
        }
        // Its clock tells of the restart, later.
        return Ok(WriteOutcome {
            accepted: sent.accepted,
            mode: FactV1::NotApplicable,
            shape: Some(way.name.clone()),
            detail: format!("\"{}\": {}", way.name, sent.words),
        });
    }
    let detail = format!("refused: {}", refused.join(", "));
    Ok(WriteOutcome { accepted: FactV1::No, mode: FactV1::NotApplicable, shape: None, detail })
}

/// Why the device must not be woken now, if so.
async fn guarded(context: &Context<'_>, control: &HttpControl) -> Result<Option<String>, DeviceError> {
    let Some(places) = &control.guard else { return Ok(None) };
    let reply = read_json(context, &places.get).await?;
    let numbers = |paths: &[String]| -> Vec<f64> {
        paths.iter().flat_map(|path| values(&reply, path)).filter_map(number).collect()
    };
    let water = numbers(&places.water);
    let mut guards = context.profile.guards;
    // Only a device with water has a least temperature of it.
    if let Some(Place { get, path }) = places.water_min.as_ref().filter(|_| !water.is_empty())
        && let Ok(settings) = read_json(context, get).await
        && let Some(least) = values(&settings, path).first().and_then(|value| number(value))
    {
        guards.water_min_c = Some(guards.water_min_c.map_or(least, |own| own.max(least)));
    }
    let seen = guard::Seen {
        chips: numbers(&places.chips),
        water,
        stopped_for: places
            .stopped_for
            .as_ref()
            .and_then(|path| numbers(std::slice::from_ref(path)).first().copied()),
    };
    Ok(guard::refuses(&guards, &seen))
}
