//! The ways of an action, tried in order until one is seen to have worked.

use super::http_send::{Sent, ask_json, fetch_document, send};
use super::{Context, LOOK_AGAIN};
use crate::control::http::{HttpControl, Way, values};
use crate::device::DeviceError;
use crate::tcp;
use crate::template::Blanks;
use crate::{Reading, WriteOutcome};
use hashinsight_protocol::device::FactV1;
use serde_json::{Map, Value};

/// What a look at the device says of a wish: done, not done, or not known yet.
pub(super) type Seen = Option<bool>;

/// As [`run`], for a change that may be there already and shows in a whole reading.
pub(super) async fn run_change(
    context: &Context<'_>,
    control: &HttpControl,
    ways: &[Way],
    blanks: &Blanks,
    done: &(dyn Fn(&Reading) -> Seen + Sync),
) -> Result<WriteOutcome, DeviceError> {
    if context.look_widely().await.ok().as_ref().and_then(done) == Some(true) {
        return Ok(WriteOutcome::needless("it is so already"));
    }
    run_reading(context, control, ways, blanks, done, true).await
}

pub(super) async fn run(
    context: &Context<'_>,
    control: &HttpControl,
    ways: &[Way],
    blanks: &Blanks,
    done: &(dyn Fn(&Reading) -> Seen + Sync),
) -> Result<WriteOutcome, DeviceError> {
    run_reading(context, control, ways, blanks, done, false).await
}

/// Tries the ways of an action until one is read back.
pub(super) async fn run_reading(
    context: &Context<'_>,
    control: &HttpControl,
    ways: &[Way],
    blanks: &Blanks,
    done: &(dyn Fn(&Reading) -> Seen + Sync),
    widely: bool,
) -> Result<WriteOutcome, DeviceError> {
    let mut refused = Vec::new();
    let mut ignored = Vec::new();
    let mut accepted = FactV1::No;
    let mut unreached = None;
    for way in in_order(context, ways) {
        let sent = match send(context, control, way, blanks).await {
            Ok(sent) => sent,
            // A door that is shut, where another may be open.
            Err(error) if error.is_unreached() && ways.len() > 1 => {
                refused.push(format!("\"{}\" ({error})", way.name));
                unreached = Some(error);
                continue;
            }
            // A first way needed no sign-in; that it did not work is the greater news.
            Err(error @ DeviceError::AuthRefused { .. }) if !(ignored.is_empty() && refused.is_empty()) => {
                refused.push(format!("\"{}\" ({error})", way.name));
                continue;
            }
            Err(error) => return Err(error),
        };
        if sent.accepted == FactV1::No {
            refused.push(format!("\"{}\" ({})", way.name, sent.words));
            continue;
        }
        accepted = sent.accepted;
        let (seen, words) = read_back(context, way, &sent, done, widely).await;
        match seen {
            Some(true) => {
                learn(context, way);
                let mut detail = format!("\"{}\" after {}: {}", way.name, context.elapsed(), sent.words);
                for (what, list) in [("accepted and ignored", &ignored), ("refused", &refused)] {
                    if !list.is_empty() {
                        detail = format!("{detail}; {what}: {}", list.join(", "));
                    }
                }
                return Ok(WriteOutcome {
                    accepted: sent.accepted,
                    mode: FactV1::Yes,
                    shape: Some(way.name.clone()),
                    detail,
                });
            }
            Some(false) => ignored.push(format!("\"{}\" ({})", way.name, sent.words)),
            None => {
                let detail = format!("\"{}\" was sent ({}); {words}", way.name, sent.words);
                return Ok(WriteOutcome {
                    accepted: sent.accepted,
                    mode: FactV1::Unknown,
                    shape: None,
                    detail,
                });
            }
        }
    }
    if let Some(error) = unreached.filter(|_| accepted == FactV1::No && ignored.is_empty()) {
        return Err(error);
    }
    let mut parts = Vec::new();
    if !ignored.is_empty() {
        parts.push(format!("accepted and ignored: {}", ignored.join(", ")));
    }
    if !refused.is_empty() {
        parts.push(format!("refused: {}", refused.join(", ")));
    }
    Ok(WriteOutcome { accepted, mode: FactV1::No, shape: None, detail: parts.join("; ") })
}

/// The ways in order, the one that worked before on such a device first.
pub(super) fn in_order<'a>(context: &Context<'_>, ways: &'a [Way]) -> Vec<&'a Way> {
    let (model, version) = kind(context);
    let learned = context.profiles.learned_shape(model, version);
    let mut ways: Vec<&Way> = ways.iter().collect();
    ways.sort_by_key(|way| Some(&way.name) != learned.as_ref());
    ways
}

pub(super) fn learn(context: &Context<'_>, way: &Way) {
    let (model, version) = kind(context);
    context.profiles.learn_shape(model, version, &way.name);
}

pub(super) fn kind<'a>(context: &'a Context<'_>) -> (&'a str, &'a str) {
    let text = |field: &'a Option<String>| field.as_deref().unwrap_or_default();
    (text(&context.identified.model), text(&context.identified.version))
}

/// Looks until the wish is seen or the settling time is over; what was seen last, in words too.
pub(super) async fn read_back(
    context: &Context<'_>,
    way: &Way,
    sent: &Sent,
    done: &(dyn Fn(&Reading) -> Seen + Sync),
    widely: bool,
) -> (Seen, String) {
    let until = tcp::now() + context.profile.settle_time();
    loop {
        let (seen, words) = match (&way.document, &sent.document) {
            _ if way.shows.is_some() => shown(context, way).await,
            (Some(document), Some(wanted)) => match fetch_document(context, document).await {
                Ok(found) => (Some(holds(&found, wanted, &document.set)), String::new()),
                Err(error) => (None, format!("it cannot be read back: {error}")),
            },
            _ => {
                let looked = if widely { context.look_widely().await } else { context.look().await };
                match looked {
                    Ok(reading) => (done(&reading), "it does not say yet that it is done".to_owned()),
                    Err(error) => (None, format!("it cannot be read back: {error}")),
                }
            }
        };
        if seen == Some(true) || tcp::now() >= until {
            return (seen, words);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What the request that tells of a change says.
pub(super) async fn shown(context: &Context<'_>, way: &Way) -> (Seen, String) {
    let Some(shows) = &way.shows else { return (None, String::new()) };
    match ask_json(context, &shows.get, shows.body.as_ref()).await {
        Ok(reply) => {
            let found = values(&reply, &shows.path);
            (
                found.first().map(|value| **value == shows.equals),
                "it does not say whether it is done".to_owned(),
            )
        }
        Err(error) => (None, format!("it cannot be read back: {error}")),
    }
}

/// Whether the members that a document sets are as they were sent.
pub(super) fn holds(found: &Value, wanted: &Value, set: &Map<String, Value>) -> bool {
    set.keys().all(|key| {
        super::document::alike(
            found.get(key).unwrap_or(&Value::Null),
            wanted.get(key).unwrap_or(&Value::Null),
        )
    })
}
