//! Stock Antminers and their kin: settings lie in a document that is read and posted whole or in
//! part.
//!
//! Devices answer "success" to shapes they throw away, so each shape is written, read back, and
//! only then followed by the next. When a key moved that was not to, the former document is put
//! back and nothing more is tried. The document holds pool passwords: it is never logged and no
//! value of it appears in an error.

use super::document::{self, body, has_pools, hash, moved, reported_mode, with_pools};
use super::{Context, LOOK_AGAIN};
use crate::WriteOutcome;
use crate::change::{Change, PoolSetting};
use crate::control::{AntminerConf, Document, ModeValue, Shape, WebLight, WebStep};
use crate::device::DeviceError;
use crate::http::{self, WebRequest};
use crate::tcp::{self, Call};
use hashinsight_protocol::device::{FactV1, ModeV1, PreStateV1};
use serde_json::Value;

pub(super) async fn pre_state(context: &Context<'_>, conf: &AntminerConf) -> Result<PreStateV1, DeviceError> {
    let document = read_document(context, conf).await?;
    let (_, value) = reported_mode(conf, &document).ok_or_else(|| no_mode(context))?;
    let mode =
        conf.modes.iter().find(|known| known.value == value).map_or(ModeV1::Normal, |known| known.mode);
    let (vendor_mode, profile) = match value {
        ModeValue::Number(number) => (Some(number), None),
        ModeValue::Text(text) => (None, Some(text)),
    };
    Ok(PreStateV1 { mode, vendor_mode, limit: None, profile, config_hash: Some(hash(conf, &document)) })
}

pub(super) async fn stop(
    context: &Context<'_>,
    conf: &AntminerConf,
    pre: &PreStateV1,
) -> Result<WriteOutcome, DeviceError> {
    write_mode(context, conf, &conf.sleep_mode, pre).await
}

pub(super) async fn wake(
    context: &Context<'_>,
    conf: &AntminerConf,
    pre: &PreStateV1,
) -> Result<WriteOutcome, DeviceError> {
    // Without the vendor's own value the ordinary mode is meant; a device in a better mode would
    // have said so when the pre-state was taken.
    let own = match conf.sleep_mode {
        ModeValue::Number(_) => pre.vendor_mode.map(ModeValue::Number),
        ModeValue::Text(_) => pre.profile.clone().map(ModeValue::Text),
    };
    let by_mode = || conf.modes.iter().find(|known| known.mode == pre.mode).map(|known| known.value.clone());
    let ordinary =
        || conf.modes.iter().find(|known| known.mode == ModeV1::Normal).map(|known| known.value.clone());
    let value = own.or_else(by_mode).or_else(ordinary).unwrap_or(ModeValue::Number(0));
    write_mode(context, conf, &value, pre).await
}

pub(super) async fn change(
    context: &Context<'_>,
    conf: &AntminerConf,
    change: &Change,
) -> Result<WriteOutcome, DeviceError> {
    match (change, &conf.reboot, &conf.locate) {
        (Change::Reboot, Some(step), _) => reboot(context, step).await,
        (Change::Locate { on }, _, Some(light)) => locate(context, light, *on).await,
        (Change::Pools(pools), _, _) => write_pools(context, conf, pools).await,
        _ => Err(context.unsupported(change.wish())),
    }
}

fn no_mode(context: &Context<'_>) -> DeviceError {
    let detail = "its configuration has no mode; this model can be rebooted, not put to sleep".to_owned();
    DeviceError::ModeUnknown { address: web(context).name(), detail }
}

fn web(context: &Context<'_>) -> Call {
    Call::web(context.device, context.limits)
}

async fn read_document(context: &Context<'_>, conf: &AntminerConf) -> Result<Value, DeviceError> {
    let credentials = context.credentials();
    let call = web(context);
    let reply = http::fetch(&call, &WebRequest::get(&conf.get, credentials.as_ref())).await?;
    match crate::json::parse(&reply) {
        // A cut or broken document must never be written back.
        Some((Value::Object(map), repairs)) if repairs.is_empty() && !map.is_empty() => {
            Ok(Value::Object(map))
        }
        _ => Err(DeviceError::Garbage {
            address: call.name(),
            found: format!("no configuration at {}", conf.get),
        }),
    }
}

async fn write_mode(
    context: &Context<'_>,
    conf: &AntminerConf,
    target: &ModeValue,
    pre: &PreStateV1,
) -> Result<WriteOutcome, DeviceError> {
    let original = read_document(context, conf).await?;
    let (key, current) = reported_mode(conf, &original).ok_or_else(|| no_mode(context))?;
    let mut notes = Vec::new();
    if pre.config_hash.is_some_and(|known| known != hash(conf, &original)) {
        notes.push("its other settings differ from those saved before".to_owned());
    }
    if current == *target {
        notes.insert(0, format!("its mode is {target} already"));
        return Ok(WriteOutcome::needless(&notes.join("; ")));
    }
    let may_move: Vec<&str> = conf.mode_keys.iter().map(String::as_str).collect();
    let job = Job { context, conf, original: &original, may_move: &may_move };
    let is_set = |found: &Value| reported_mode(conf, found).is_some_and(|(_, mode)| mode == *target);
    let mut outcome = job
        .ladder(conf.shapes.iter(), &|shape| body(conf, shape, &original, Some((key, target))), &is_set)
        .await?;
    let what = match (outcome.mode, &outcome.shape) {
        (FactV1::Yes, _) => format!("mode {current} became {target} with {}", outcome.detail),
        (FactV1::Unknown, _) => format!("{}; the mode cannot be read back", outcome.detail),
        _ => format!("the mode stayed {current} after {}", outcome.detail),
    };
    notes.insert(0, what);
    outcome.detail = notes.join("; ");
    Ok(outcome)
}

async fn write_pools(
    context: &Context<'_>,
    conf: &AntminerConf,
    pools: &[PoolSetting],
) -> Result<WriteOutcome, DeviceError> {
    context.check_pools(pools, conf.max_pools)?;
    let original = read_document(context, conf).await?;
    if has_pools(&original, pools) {
        return Ok(WriteOutcome::needless("it has these pools already"));
    }
    // A mode that is not in the document is set to its default by some devices; so it is sent as it
    // stands, in the shape that the device takes.
    let mode = reported_mode(conf, &original);
    let job = Job { context, conf, original: &original, may_move: &["pools"] };
    let whole = conf.shapes.iter().filter(|shape| shape.document == Document::Whole);
    let make = |shape: &Shape| {
        let mut body = body(conf, shape, &original, mode.as_ref().map(|(key, value)| (*key, value)));
        document::put(&mut body, "pools", with_pools(&original, pools));
        body
    };
    let mut outcome = job.ladder(whole, &make, &|found| has_pools(found, pools)).await?;
    outcome.detail = match outcome.mode {
        FactV1::Yes => format!("{} pools set with {}", pools.len(), outcome.detail),
        FactV1::Unknown => format!("{}; the pools cannot be read back", outcome.detail),
        _ => format!("the pools stayed as they were after {}", outcome.detail),
    };
    Ok(outcome)
}

/// One write under way: what was read before, and what of it may move.
struct Job<'a> {
    context: &'a Context<'a>,
    conf: &'a AntminerConf,
    original: &'a Value,
    may_move: &'a [&'a str],
}

impl Job<'_> {
    /// Writes shape after shape, the one that worked before first, until one is read back. The
    /// detail names what was tried.
    async fn ladder(
        &self,
        shapes: impl Iterator<Item = &Shape>,
        make: &(dyn Fn(&Shape) -> Value + Sync),
        is_set: &(dyn Fn(&Value) -> bool + Sync),
    ) -> Result<WriteOutcome, DeviceError> {
        let (model, version) = self.context.kind();
        let learned = self.context.profiles.learned_shape(model, version);
        let mut shapes: Vec<&Shape> = shapes.collect();
        shapes.sort_by_key(|shape| Some(&shape.name) != learned.as_ref());
        let mut accepted = FactV1::No;
        let mut ignored = Vec::new();
        for shape in shapes {
            let (fact, words) = self.post(shape, &make(shape)).await?;
            if fact != FactV1::No || accepted == FactV1::No {
                accepted = fact;
            }
            match self.read_back(shape, is_set).await? {
                Some(true) => {
                    self.context.profiles.learn_shape(model, version, &shape.name);
                    let mut detail = format!("\"{}\" after {}", shape.name, self.context.elapsed());
                    if !ignored.is_empty() {
                        detail = format!("{detail}; accepted and ignored: {}", ignored.join(", "));
                    }
                    let shape = Some(shape.name.clone());
                    return Ok(WriteOutcome { accepted: fact, mode: FactV1::Yes, shape, detail });
                }
                Some(false) => ignored.push(format!("\"{}\" ({words})", shape.name)),
                // It restarts, or is gone. Another write into the dark helps nobody.
                None => {
                    let detail = format!("\"{}\" was written ({words})", shape.name);
                    return Ok(WriteOutcome { accepted: fact, mode: FactV1::Unknown, shape: None, detail });
                }
            }
        }
        Ok(WriteOutcome { accepted, mode: FactV1::No, shape: None, detail: ignored.join(", ") })
    }

    async fn post(&self, shape: &Shape, body: &Value) -> Result<(FactV1, String), DeviceError> {
        post(self.context, &self.conf.set, &shape.content_type, body.to_string().as_bytes()).await
    }

    /// Reads the document back until it is as wished or the settling time is over; `None` when it
    /// could not be read at all.
    async fn read_back(
        &self,
        shape: &Shape,
        is_set: &(dyn Fn(&Value) -> bool + Sync),
    ) -> Result<Option<bool>, DeviceError> {
        let settled = tcp::now() + self.context.profile.settle_time();
        // A device that restarts its miner is away for a while.
        let given_up = settled + self.context.profile.write_time();
        let mut seen = None;
        loop {
            match read_document(self.context, self.conf).await {
                Ok(document) => {
                    let moved = moved(self.original, &document, self.may_move);
                    if !moved.is_empty() {
                        return Err(DeviceError::FieldMoved {
                            address: web(self.context).name(),
                            shape: shape.name.clone(),
                            fields: moved.join(", "),
                            restored: self.restore(shape).await,
                        });
                    }
                    if is_set(&document) {
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

    /// Puts the document back as it was reported; whether it reads so afterwards.
    async fn restore(&self, shape: &Shape) -> bool {
        if self.post(shape, self.original).await.is_err() {
            return false;
        }
        let until = tcp::now() + self.context.profile.settle_time();
        loop {
            if let Ok(document) = read_document(self.context, self.conf).await
                && moved(self.original, &document, self.may_move).is_empty()
            {
                return true;
            }
            if tcp::now() >= until {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Posts a body; the fact is what the device's reply says.
async fn post(
    context: &Context<'_>,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> Result<(FactV1, String), DeviceError> {
    let credentials = context.credentials();
    said(context, &WebRequest::post(path, content_type, body, credentials.as_ref())).await
}

async fn said(context: &Context<'_>, request: &WebRequest<'_>) -> Result<(FactV1, String), DeviceError> {
    let call = context.write_call(context.device.web_port);
    match http::fetch(&call, request).await {
        Ok(reply) => {
            let value = crate::json::parse(&reply).map_or(Value::Null, |(value, _)| value);
            let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
            // `stats` of Bitmain's pages, `error` of kaonsu's, and the codes of those that have no more.
            let fact = match (text("stats"), value.get("error").and_then(Value::as_bool), text("code")) {
                ("success", _, _) | (_, Some(false), _) | (_, _, "M000" | "B000" | "B100" | "R000") => {
                    FactV1::Yes
                }
                (_, Some(true), _) => FactV1::No,
                ("", None, _) => FactV1::Unknown,
                _ => FactV1::No,
            };
            let words = format!("{} {}", text("stats"), text("code"));
            let words = if words.trim().is_empty() { "no word of success" } else { words.trim() };
            Ok((fact, words.to_owned()))
        }
        Err(DeviceError::HttpStatus { status, .. }) => Ok((FactV1::No, format!("HTTP {status}"))),
        Err(error) if error.is_lost_reply() => Ok((FactV1::Unknown, "no reply".to_owned())),
        Err(error) => Err(error),
    }
}

async fn reboot(context: &Context<'_>, step: &WebStep) -> Result<WriteOutcome, DeviceError> {
    let credentials = context.credentials();
    let request = match &step.body {
        Some(body) => WebRequest::post(&step.path, "application/json", body.as_bytes(), credentials.as_ref()),
        None => WebRequest::get(&step.path, credentials.as_ref()),
    };
    let (accepted, words) = said(context, &request).await?;
    Ok(WriteOutcome {
        accepted,
        mode: FactV1::NotApplicable,
        shape: None,
        detail: format!("reboot: {words}"),
    })
}

async fn locate(context: &Context<'_>, light: &WebLight, on: bool) -> Result<WriteOutcome, DeviceError> {
    let body = if on { &light.on } else { &light.off };
    let (accepted, words) = post(context, &light.path, "application/json", body.as_bytes()).await?;
    let mut mode = FactV1::Unknown;
    if let Some(path) = &light.read {
        let credentials = context.credentials();
        let reply = http::fetch(&web(context), &WebRequest::get(path, credentials.as_ref())).await;
        let value = reply.ok().and_then(|reply| crate::json::parse(&reply)).map(|(value, _)| value);
        let lit =
            value.as_ref().and_then(|value| document::at(value, &light.key)).and_then(|lit| match lit {
                Value::Bool(lit) => Some(*lit),
                Value::String(text) => text.parse().ok(),
                _ => None,
            });
        mode = lit.map_or(FactV1::Unknown, |lit| if lit == on { FactV1::Yes } else { FactV1::No });
    }
    Ok(WriteOutcome { accepted, mode, shape: None, detail: format!("light: {words}") })
}
