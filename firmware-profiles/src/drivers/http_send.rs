//! One request of a way: filled in, sent with the family's sign-in, its reply judged.
//!
//! Documents and bodies hold passwords: no value of one appears in an error or an outcome, and the
//! password is taken out of the device's own words.

use super::{Context, Status, reply_fact};
use crate::change::PoolSetting;
use crate::control::http::{Condition, Document, HttpControl, Place, ReplyRules, Way, values};
use crate::device::DeviceError;
use crate::http::{Answer, WebRequest};
use crate::request::Request;
use crate::tcp;
use crate::template::{self, Blanks};
use hashinsight_protocol::device::FactV1;
use serde_json::{Map, Value};

/// Longest that a device's own words are repeated, in characters.
const MAX_WORDS: usize = 120;

/// What came of one request.
pub(super) struct Sent {
    pub accepted: FactV1,
    /// The device's words, bounded and without the password.
    pub words: String,
    /// The document as it was sent.
    pub document: Option<Value>,
}

pub(super) async fn send(
    context: &Context<'_>,
    control: &HttpControl,
    way: &Way,
    blanks: &Blanks,
) -> Result<Sent, DeviceError> {
    if let Some(command) = &way.command {
        let call = context.write_call(context.device.api_port);
        let reply = context.command(&call, command, None).await.map(|reply| Status::of(&reply));
        let (accepted, words) = reply_fact(reply)?;
        return Ok(Sent { accepted, words: bounded(&words), document: None });
    }
    let login = context.login();
    let mut blanks = blanks.clone();
    if let Some(Value::Array(pools)) = blanks.remove("pools") {
        let template = way.pool.as_ref().unwrap_or(&control.pool);
        let pools = pools.iter().map(|pool| template::fill(template, &parts_of(pool))).collect();
        blanks.insert("pools".to_owned(), Value::Array(pools));
    }
    if let Some(login) = &login {
        blanks.insert("user".to_owned(), Value::from(login.credentials.user.as_str()));
        blanks.insert("password".to_owned(), Value::from(login.credentials.password.reveal()));
    }
    for (name, Place { get, path }) in &way.take {
        let found = match read_json(context, get).await {
            Ok(found) => found,
            Err(DeviceError::HttpStatus { status, .. }) => {
                return Ok(Sent {
                    accepted: FactV1::No,
                    words: format!("HTTP {status} to {get}"),
                    document: None,
                });
            }
            Err(error) => return Err(error),
        };
        let Some(value) = values(&found, path).first().map(|value| (*value).clone()) else {
            let words = format!("it does not report \"{path}\"");
            return Ok(Sent { accepted: FactV1::No, words, document: None });
        };
        blanks.insert(name.clone(), value);
    }
    let mut sent_document = None;
    if let Some(document) = &way.document {
        let mut found = match fetch_document(context, document).await {
            Ok(found) => found,
            Err(DeviceError::HttpStatus { status, .. }) => {
                return Ok(Sent { accepted: FactV1::No, words: format!("HTTP {status}"), document: None });
            }
            Err(error) => return Err(error),
        };
        if let Some(choose) = &document.choose {
            let list = values(&found, &choose.list).into_iter().find_map(Value::as_array);
            let Some(chosen) = list.and_then(|list| list.iter().position(|entry| choose.fits.holds(entry)))
            else {
                let words = format!("its \"{}\" has no entry for that", choose.list);
                return Ok(Sent { accepted: FactV1::No, words, document: None });
            };
            blanks.insert("chosen".to_owned(), chosen.into());
        }
        set_members(&mut found, &document.set, &blanks);
        blanks.insert("document".to_owned(), found.clone());
        sent_document = Some(found);
    }
    let path = template::fill_path(&way.path, &blanks);
    let body = way.body.as_ref().map(|body| template::fill(body, &blanks).to_string());
    let request = WebRequest {
        method: Some(&way.method),
        body: body.as_ref().map(|body| ("application/json", body.as_bytes())),
        ..WebRequest::get(&path, None)
    };
    let call = context.write_call(context.profile.web.port(context.device));
    let answer = context.profile.web.ask(&call, login.as_ref(), &request).await;
    let (accepted, words) = match answer {
        Ok(answer) => judge(&control.reply, &answer),
        Err(error) if error.is_lost_reply() => (FactV1::Unknown, "no reply".to_owned()),
        // The sign-in itself is not there, or too many were tried.
        Err(DeviceError::HttpStatus { status, request, .. }) => {
            (FactV1::No, format!("HTTP {status} to {request}"))
        }
        Err(error) => return Err(error),
    };
    let secret = login.as_ref().map_or("", |login| login.credentials.password.reveal());
    let words = if secret.is_empty() { words } else { words.replace(secret, "***") };
    let mut words = bounded(&words);
    if let Some(then) = way.then.as_ref().filter(|_| accepted == FactV1::Yes) {
        let next = Box::pin(send(context, control, then, &Blanks::new())).await?;
        words = format!("{words}; then \"{}\": {}", then.name, next.words);
    }
    Ok(Sent { accepted, words, document: sent_document })
}

pub(super) fn set_members(document: &mut Value, set: &Map<String, Value>, blanks: &Blanks) {
    if let Value::Object(map) = document {
        for (key, value) in set {
            map.insert(key.clone(), template::fill(value, blanks));
        }
    }
}

/// What a reply says of a request. Pure.
pub(super) fn judge(rules: &ReplyRules, answer: &Answer) -> (FactV1, String) {
    let reply = crate::json::parse(&answer.body).map(|(reply, _)| reply);
    let said = reply.as_ref().and_then(|reply| {
        rules.words.iter().flat_map(|path| values(reply, path)).find_map(|value| match value {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        })
    });
    let words =
        |known: &str| said.as_ref().map_or_else(|| known.to_owned(), |said| format!("{known}, {said}"));
    let status = format!("HTTP {}", answer.status);
    if !(200..300).contains(&answer.status) {
        return (FactV1::No, words(&status));
    }
    let holds = |conditions: &[Condition]| {
        reply.as_ref().is_some_and(|reply| conditions.iter().any(|condition| condition.holds(reply)))
    };
    if holds(&rules.refused) {
        return (FactV1::No, words("it said no"));
    }
    if rules.accepted.is_empty() || holds(&rules.accepted) {
        return (FactV1::Yes, words("it said yes"));
    }
    match reply {
        Some(Value::Object(_) | Value::Array(_)) => (FactV1::No, words("it did not say yes")),
        // An empty reply, or a page that is no JSON, says neither.
        _ => (FactV1::Unknown, "it said nothing that is known".to_owned()),
    }
}

pub(super) fn bounded(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect()
}

pub(super) fn web_call(context: &Context<'_>) -> tcp::Call {
    context.api().to_port(context.profile.web.port(context.device))
}

pub(super) async fn read_json(context: &Context<'_>, path: &str) -> Result<Value, DeviceError> {
    ask_json(context, path, None).await
}

/// A request that only reads; a body makes it a POST.
pub(super) async fn ask_json(
    context: &Context<'_>,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, DeviceError> {
    let call = web_call(context);
    let login = context.login();
    let body = body.map(Value::to_string);
    let request = WebRequest {
        body: body.as_ref().map(|body| ("application/json", body.as_bytes())),
        ..WebRequest::get(path, None)
    };
    let body = context.profile.web.fetch(&call, login.as_ref(), &request).await?;
    context.overheard(&Request::http(path), &body);
    match crate::json::parse(&body) {
        // A cut or broken document must never be written back.
        Some((value, repairs)) if repairs.is_empty() => Ok(value),
        _ => Err(DeviceError::Garbage { address: call.name(), found: format!("no JSON at {path}") }),
    }
}

pub(super) async fn fetch_document(context: &Context<'_>, document: &Document) -> Result<Value, DeviceError> {
    part_of(context, &document.get, &document.at).await
}

pub(super) async fn part_of(context: &Context<'_>, get: &str, at: &str) -> Result<Value, DeviceError> {
    let reply = read_json(context, get).await?;
    values(&reply, at).first().map(|value| (*value).clone()).ok_or_else(|| DeviceError::Garbage {
        address: web_call(context).name(),
        found: format!("no \"{at}\" at {get}"),
    })
}

pub(super) fn parts_of(pool: &Value) -> Blanks {
    pool.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The blanks of all pools: the list with the parts of each, and the parts of the first three. A pool
/// that is not wanted has empty texts, so that a place for it is emptied.
pub(super) fn pool_blanks(pools: &[PoolSetting]) -> Blanks {
    let mut blanks = Blanks::new();
    for n in 1..=3 {
        for part in ["url", "address", "host", "worker", "pass"] {
            blanks.insert(format!("pool{n}.{part}"), "".into());
        }
    }
    let mut list = Vec::new();
    for (index, pool) in pools.iter().enumerate() {
        let address =
            pool.url.split_once("://").map_or(pool.url.as_str(), |(_, rest)| rest).trim_end_matches('/');
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) => (host, port.parse::<u16>().ok()),
            None => (address, None),
        };
        let mut parts: Vec<(&str, Value)> = vec![
            ("url", pool.url.as_str().into()),
            ("address", address.into()),
            ("host", host.into()),
            ("worker", pool.worker.as_str().into()),
            ("pass", pool.password.reveal().into()),
            ("index", index.into()),
            ("number", (index + 1).into()),
        ];
        parts.extend(port.map(|port| ("port", port.into())));
        let own: Map<String, Value> =
            parts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        list.push(Value::Object(own));
        blanks.extend(parts.into_iter().map(|(name, value)| (format!("pool{}.{name}", index + 1), value)));
    }
    blanks.insert("pools".to_owned(), Value::Array(list));
    blanks
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::device::Secret;
    use proptest::prelude::*;
    use serde_json::json;

    fn rules() -> ReplyRules {
        serde_json::from_value(json!({
            "accepted": [{"path": "result", "equals": true}],
            "refused": [{"path": "error"}],
            "words": ["error"],
        }))
        .unwrap()
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.as_bytes().to_vec(), cookies: Vec::new() }
    }

    #[test]
    fn replies_are_judged_by_the_rules() {
        let check = |status, body: &str, fact, words: &str| {
            let (found, said) = judge(&rules(), &answer(status, body));
            assert_eq!(found, fact, "{body}: {said}");
            assert!(said.contains(words), "{said}");
        };
        check(200, r#"{"result":true,"error":null}"#, FactV1::Yes, "yes");
        check(
            200,
            r#"{"result":false,"error":"Last command is still pending"}"#,
            FactV1::No,
            "still pending",
        );
        check(200, r#"{"result":false}"#, FactV1::No, "did not");
        check(200, "", FactV1::Unknown, "nothing");
        check(200, "<html>", FactV1::Unknown, "nothing");
        check(404, "", FactV1::No, "404");
        check(500, r#"{"error":"no"}"#, FactV1::No, "HTTP 500, no");
        assert_eq!(judge(&ReplyRules::default(), &answer(204, "")).0, FactV1::Yes);
    }

    #[test]
    fn pools_fill_a_list_and_parts() {
        let template = json!({"url": "{address}", "user": "{worker}", "pass": "{pass}", "order": "{index}"});
        let pools = [PoolSetting {
            url: "stratum+tcp://pool.example:3333/".to_owned(),
            worker: "a.b".to_owned(),
            password: Secret::new("x"),
        }];
        let blanks = pool_blanks(&pools);
        assert_eq!(
            template::fill(&template, &parts_of(&blanks["pools"][0])),
            json!({"url": "pool.example:3333", "user": "a.b", "pass": "x", "order": 0})
        );
        assert_eq!((&blanks["pool1.host"], &blanks["pool1.port"]), (&json!("pool.example"), &json!(3333)));
        assert_eq!((&blanks["pool2.host"], blanks.get("pool2.port")), (&json!(""), None));
    }

    proptest! {
        #[test]
        fn any_reply_is_judged(status in 100u16..600, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (fact, _) = judge(&rules(), &Answer { status, body, cookies: Vec::new() });
            prop_assert!(fact != FactV1::NotApplicable);
        }

        #[test]
        fn any_pool_address_is_taken_apart(url in "\\PC{0,60}") {
            let pools = [PoolSetting { url, worker: String::new(), password: Secret::new("") }];
            let blanks = pool_blanks(&pools);
            prop_assert!(blanks.contains_key("pool1.host"));
        }
    }
}
