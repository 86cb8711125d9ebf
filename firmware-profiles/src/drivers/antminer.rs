//! Stock Antminers: the mode is a key in a document that is read and posted whole or in part.
//!
//! Devices answer "success" to shapes they throw away, so each shape is written, read back, and
//! only then followed by the next. When a key other than the mode moved, the former document is put
//! back and nothing more is tried. The document holds pool passwords: it is never logged and no
//! value of it appears in an error.

use super::{Context, LOOK_AGAIN};
use crate::WriteOutcome;
use crate::control::{AntminerConf, Document, Form, Shape};
use crate::device::DeviceError;
use crate::http::{self, WebRequest};
use crate::tcp::{self, Call};
use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};
use serde_json::{Map, Value};

type Conf = Map<String, Value>;

pub(super) async fn pre_state(context: &Context<'_>, conf: &AntminerConf) -> Result<PreStateV1, DeviceError> {
    let document = document(context, conf).await?;
    let (_, value) = reported_mode(conf, &document).ok_or_else(|| no_mode(context))?;
    let mode =
        conf.modes.iter().find(|known| known.value == value).map_or(ModeV1::Normal, |known| known.mode);
    Ok(PreStateV1 {
        mode,
        vendor_mode: Some(value),
        limit: None,
        profile: None,
        config_hash: Some(hash(conf, &document)),
    })
}

pub(super) async fn stop(
    context: &Context<'_>,
    conf: &AntminerConf,
    pre: &PreStateV1,
) -> Result<WriteOutcome, DeviceError> {
    write_mode(context, conf, conf.sleep_mode, pre).await
}

pub(super) async fn wake(
    context: &Context<'_>,
    conf: &AntminerConf,
    pre: &PreStateV1,
) -> Result<WriteOutcome, DeviceError> {
    // Without the vendor's own value the ordinary mode is meant; a device in a better mode would
    // have said so when the pre-state was taken.
    let by_mode = conf.modes.iter().find(|known| known.mode == pre.mode).map(|known| known.value);
    let value = pre.vendor_mode.or(by_mode).unwrap_or(0);
    write_mode(context, conf, value, pre).await
}

fn no_mode(context: &Context<'_>) -> DeviceError {
    let detail = "its configuration has no mode; this model can be rebooted, not put to sleep".to_owned();
    DeviceError::ModeUnknown { address: web(context).name(), detail }
}

fn web(context: &Context<'_>) -> Call {
    Call::web(context.device, context.limits)
}

async fn document(context: &Context<'_>, conf: &AntminerConf) -> Result<Conf, DeviceError> {
    let credentials = context.credentials();
    let call = web(context);
    let body = http::fetch(&call, &WebRequest::get(&conf.get, credentials.as_ref())).await?;
    match crate::json::parse(&body) {
        // A cut or broken document must never be written back.
        Some((Value::Object(map), repairs)) if repairs.is_empty() && !map.is_empty() => Ok(map),
        _ => Err(DeviceError::Garbage {
            address: call.name(),
            found: format!("no configuration at {}", conf.get),
        }),
    }
}

/// The mode and the key that carries it. Values are whole numbers, texts of them, or booleans.
fn reported_mode<'a>(conf: &'a AntminerConf, document: &Conf) -> Option<(&'a str, i64)> {
    conf.mode_keys.iter().find_map(|key| {
        let value = match document.get(key)? {
            Value::Number(number) => number.as_i64()?,
            Value::String(text) => text.trim().parse().ok()?,
            Value::Bool(flag) => i64::from(*flag),
            _ => return None,
        };
        Some((key.as_str(), value))
    })
}

/// SHA-256 of all keys but the mode's, in the order of their names.
fn hash(conf: &AntminerConf, document: &Conf) -> [u8; 32] {
    let mut keys: Vec<&String> = document.keys().filter(|key| !conf.mode_keys.contains(key)).collect();
    keys.sort();
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for key in keys {
        context.update(key.as_bytes());
        context.update(&[0]);
        context.update(document.get(key).map(Value::to_string).unwrap_or_default().as_bytes());
        context.update(&[0]);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

async fn write_mode(
    context: &Context<'_>,
    conf: &AntminerConf,
    target: i64,
    pre: &PreStateV1,
) -> Result<WriteOutcome, DeviceError> {
    let original = document(context, conf).await?;
    let (key, current) = reported_mode(conf, &original).ok_or_else(|| no_mode(context))?;
    let mut notes = Vec::new();
    if pre.config_hash.is_some_and(|known| known != hash(conf, &original)) {
        notes.push("its other settings differ from those saved before".to_owned());
    }
    if current == target {
        notes.insert(0, format!("its mode is {target} already"));
        return Ok(WriteOutcome::needless(&notes.join("; ")));
    }
    let mut accepted = FactV1::No;
    let mut ignored = Vec::new();
    for shape in shapes(context, conf) {
        let body = Value::Object(body(conf, shape, &original, key, target)).to_string();
        let (fact, words) = post(context, conf, shape, body.as_bytes()).await?;
        if fact != FactV1::No || accepted == FactV1::No {
            accepted = fact;
        }
        match read_back(context, conf, &original, shape, target).await? {
            Some(true) => {
                learn(context, &shape.name);
                notes.insert(
                    0,
                    format!(
                        "mode {current} became {target} with \"{}\" after {}",
                        shape.name,
                        context.elapsed()
                    ),
                );
                if !ignored.is_empty() {
                    notes.push(format!("accepted and ignored: {}", ignored.join(", ")));
                }
                return Ok(WriteOutcome {
                    accepted: fact,
                    mode: FactV1::Yes,
                    shape: Some(shape.name.clone()),
                    detail: notes.join("; "),
                });
            }
            Some(false) => ignored.push(format!("\"{}\" ({words})", shape.name)),
            // It restarts, or is gone. Another write into the dark helps nobody.
            None => {
                notes.insert(
                    0,
                    format!("\"{}\" was written ({words}); the mode cannot be read back", shape.name),
                );
                return Ok(WriteOutcome {
                    accepted: fact,
                    mode: FactV1::Unknown,
                    shape: None,
                    detail: notes.join("; "),
                });
            }
        }
    }
    notes.insert(0, format!("the mode stayed {current} after {}", ignored.join(", ")));
    Ok(WriteOutcome { accepted, mode: FactV1::No, shape: None, detail: notes.join("; ") })
}

/// The shapes in order, the one that worked before first.
fn shapes<'a>(context: &Context<'_>, conf: &'a AntminerConf) -> Vec<&'a Shape> {
    let (model, version) = kind(context);
    let learned = context.profiles.learned_shape(model, version);
    let mut shapes: Vec<&Shape> = conf.shapes.iter().collect();
    shapes.sort_by_key(|shape| Some(&shape.name) != learned.as_ref());
    shapes
}

fn learn(context: &Context<'_>, shape: &str) {
    let (model, version) = kind(context);
    context.profiles.learn_shape(model, version, shape);
}

fn kind<'a>(context: &'a Context<'_>) -> (&'a str, &'a str) {
    let text = |field: &'a Option<String>| field.as_deref().unwrap_or_default();
    (text(&context.identified.model), text(&context.identified.version))
}

fn body(conf: &AntminerConf, shape: &Shape, original: &Conf, reported: &str, target: i64) -> Conf {
    let mut body = Map::new();
    if shape.document == Document::Whole {
        for (key, value) in original {
            if shape.drop.contains(key) || conf.never_send.contains(key) {
                continue;
            }
            let value = if shape.nulls_as_zero && value.is_null() { Value::from("0") } else { value.clone() };
            body.insert(key.clone(), value);
        }
    }
    for set in &shape.set {
        let key = if set.key == "reported" { reported } else { &set.key };
        let text = match set.form {
            Form::Integer => false,
            Form::Text => true,
            Form::Same => original.get(reported).is_some_and(Value::is_string),
        };
        body.insert(key.to_owned(), if text { Value::from(target.to_string()) } else { Value::from(target) });
    }
    body
}

/// Posts a document; the fact is what the device's reply says.
async fn post(
    context: &Context<'_>,
    conf: &AntminerConf,
    shape: &Shape,
    body: &[u8],
) -> Result<(FactV1, String), DeviceError> {
    let credentials = context.credentials();
    let call = context.write_call(context.device.web_port);
    let request = WebRequest::post(&conf.set, &shape.content_type, body, credentials.as_ref());
    match http::fetch(&call, &request).await {
        Ok(reply) => {
            let value = crate::json::parse(&reply).map_or(Value::Null, |(value, _)| value);
            let word = value.get("stats").and_then(Value::as_str).unwrap_or_default();
            let code = value.get("code").and_then(Value::as_str).unwrap_or_default();
            let fact = match word {
                "success" => FactV1::Yes,
                "" => FactV1::Unknown,
                _ => FactV1::No,
            };
            Ok((fact, format!("{word} {code}").trim().to_owned()))
        }
        Err(DeviceError::HttpStatus { status, .. }) => Ok((FactV1::No, format!("HTTP {status}"))),
        Err(error) if error.is_lost_reply() => Ok((FactV1::Unknown, "no reply".to_owned())),
        Err(error) => Err(error),
    }
}

/// Reads the document back until the mode is the wished one or the settling time is over; `None`
/// when it could not be read at all.
async fn read_back(
    context: &Context<'_>,
    conf: &AntminerConf,
    original: &Conf,
    shape: &Shape,
    target: i64,
) -> Result<Option<bool>, DeviceError> {
    let settled = tcp::now() + context.profile.settle_time();
    // A device that restarts its miner is away for a while.
    let given_up = settled + context.profile.write_time();
    let mut seen = None;
    loop {
        match document(context, conf).await {
            Ok(document) => {
                let moved = moved(conf, original, &document);
                if !moved.is_empty() {
                    let restored = restore(context, conf, original, shape).await;
                    return Err(DeviceError::FieldMoved {
                        address: web(context).name(),
                        shape: shape.name.clone(),
                        fields: moved.join(", "),
                        restored,
                    });
                }
                if reported_mode(conf, &document).is_some_and(|(_, mode)| mode == target) {
                    return Ok(Some(true));
                }
                seen = Some(false);
            }
            Err(error @ DeviceError::AuthRefused { .. }) => return Err(error),
            Err(_) => {}
        }
        let now = tcp::now();
        if (now >= settled && seen.is_some()) || now >= given_up {
            return Ok(seen);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The names of keys that are no longer what they were, the mode's apart.
fn moved(conf: &AntminerConf, before: &Conf, after: &Conf) -> Vec<String> {
    before
        .iter()
        .filter(|(key, value)| {
            !conf.mode_keys.contains(key) && !alike(value, after.get(*key).unwrap_or(&Value::Null))
        })
        .map(|(key, _)| key.clone())
        .collect()
}

/// Whether two values mean the same to a device: it may turn 100 into "100", and nothing into "0".
pub(super) fn alike(a: &Value, b: &Value) -> bool {
    let text = |value: &Value| match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(u8::from(*flag).to_string()),
        _ => None,
    };
    match (text(a), text(b)) {
        (Some(x), Some(y)) => {
            x == y
                || (matches!(x.as_str(), "" | "0")
                    && matches!(y.as_str(), "" | "0")
                    && (a.is_null() || b.is_null()))
        }
        _ => a == b,
    }
}

/// Puts the document back as it was reported; whether it reads so afterwards.
async fn restore(context: &Context<'_>, conf: &AntminerConf, original: &Conf, shape: &Shape) -> bool {
    let body = Value::Object(original.clone()).to_string();
    if post(context, conf, shape, body.as_bytes()).await.is_err() {
        return false;
    }
    let until = tcp::now() + context.profile.settle_time();
    loop {
        if let Ok(document) = document(context, conf).await
            && moved(conf, original, &document).is_empty()
        {
            return true;
        }
        if tcp::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_device_may_spell_anew_has_not_moved() {
        assert!(alike(&json!("100"), &json!(100)));
        assert!(alike(&json!(null), &json!("0")));
        assert!(alike(&json!(false), &json!("0")));
        assert!(!alike(&json!("100"), &json!("0")));
        assert!(!alike(&json!([{"url": "a"}]), &json!([{"url": "b"}])));
        assert!(!alike(&json!([1]), &json!(null)));
    }
}
