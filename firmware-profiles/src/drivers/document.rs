//! A device's configuration document: where its mode lies, what is sent, and what has moved.
//!
//! Pure. The document holds pool passwords: no value of it gets into an error or a log, only the
//! names of keys.

use crate::change::PoolSetting;
use crate::control::{AntminerConf, Document, Form, ModeValue, Shape};
use serde_json::{Map, Value};

/// The value at a path of keys parted by `/`.
pub fn at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').try_fold(document, |value, key| value.get(key))
}

/// Sets the value at a path; objects on the way are made where they are missing.
pub fn put(document: &mut Value, path: &str, value: Value) {
    let (outer, inner) = path.split_once('/').map_or((path, None), |(outer, inner)| (outer, Some(inner)));
    let Value::Object(map) = document else { return };
    match inner {
        None => drop(map.insert(outer.to_owned(), value)),
        Some(inner) => {
            let next = map.entry(outer).or_insert_with(|| Value::Object(Map::new()));
            put(next, inner, value);
        }
    }
}

fn remove(document: &mut Value, path: &str) {
    let Value::Object(map) = document else { return };
    match path.split_once('/') {
        None => drop(map.remove(path)),
        Some((outer, inner)) => {
            if let Some(next) = map.get_mut(outer) {
                remove(next, inner);
            }
        }
    }
}

/// The mode and the key that carries it. Numbers come as numbers, texts of them, or booleans.
pub fn reported_mode<'a>(conf: &'a AntminerConf, document: &Value) -> Option<(&'a str, ModeValue)> {
    let numbers = matches!(conf.sleep_mode, ModeValue::Number(_));
    conf.mode_keys.iter().find_map(|key| {
        let value = match (at(document, key)?, numbers) {
            (Value::Number(number), true) => ModeValue::Number(number.as_i64()?),
            (Value::String(text), true) => ModeValue::Number(text.trim().parse().ok()?),
            (Value::Bool(flag), true) => ModeValue::Number(i64::from(*flag)),
            (Value::String(text), false) if !text.is_empty() => ModeValue::Text(text.clone()),
            _ => return None,
        };
        Some((key.as_str(), value))
    })
}

/// SHA-256 of all but the mode, in the order of the keys' names.
pub fn hash(conf: &AntminerConf, document: &Value) -> [u8; 32] {
    let mut rest = document.clone();
    conf.mode_keys.iter().for_each(|key| remove(&mut rest, key));
    let mut keys: Vec<(&String, &Value)> = rest.as_object().into_iter().flatten().collect();
    keys.sort_by_key(|(key, _)| *key);
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for (key, value) in keys {
        context.update(key.as_bytes());
        context.update(&[0]);
        context.update(value.to_string().as_bytes());
        context.update(&[0]);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// What a shape sends to set a mode.
pub fn body(
    conf: &AntminerConf,
    shape: &Shape,
    original: &Value,
    reported: Option<(&str, &ModeValue)>,
) -> Value {
    let mut body = Value::Object(Map::new());
    if shape.document == Document::Whole {
        body = original.clone();
        for path in shape.drop.iter().chain(&conf.never_send) {
            remove(&mut body, path);
        }
        if shape.nulls_as_zero
            && let Value::Object(map) = &mut body
        {
            map.values_mut().filter(|value| value.is_null()).for_each(|value| *value = Value::from("0"));
        }
    }
    let Some((reported, mode)) = reported else { return body };
    for set in &shape.set {
        let key = if set.key == "reported" { reported } else { &set.key };
        let value = match (mode, set.form) {
            (ModeValue::Text(text), _) => Value::from(text.clone()),
            (ModeValue::Number(number), Form::Integer) => Value::from(*number),
            (ModeValue::Number(number), Form::Text) => Value::from(number.to_string()),
            (ModeValue::Number(number), Form::Same) => match at(original, reported) {
                Some(Value::String(_)) => Value::from(number.to_string()),
                _ => Value::from(*number),
            },
        };
        put(&mut body, key, value);
    }
    body
}

/// The names of keys that are no longer what they were; `allowed` and what is in them may move.
pub fn moved(before: &Value, after: &Value, allowed: &[&str]) -> Vec<String> {
    let mut out = Vec::new();
    compare("", before, after, allowed, &mut out);
    out
}

fn compare(path: &str, before: &Value, after: &Value, allowed: &[&str], out: &mut Vec<String>) {
    if allowed.contains(&path) {
        return;
    }
    match (before, after) {
        (Value::Object(before), Value::Object(_)) => {
            for (key, value) in before {
                let path = if path.is_empty() { key.clone() } else { format!("{path}/{key}") };
                compare(&path, value, after.get(key).unwrap_or(&Value::Null), allowed, out);
            }
        }
        _ if !alike(before, after) => out.push(path.to_owned()),
        _ => {}
    }
}

/// Whether two values mean the same to a device: it may turn 100 into "100", and nothing into "0".
pub fn alike(a: &Value, b: &Value) -> bool {
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

/// The document's list of pools with these in place of the former ones. What else an entry holds is
/// kept, and so is the number of entries.
pub fn with_pools(document: &Value, pools: &[PoolSetting]) -> Value {
    let former = document.get("pools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let entry = |n: usize| {
        let known = former.get(n).or(former.first()).filter(|entry| entry.is_object());
        let mut entry = known.cloned().unwrap_or_else(|| Value::Object(Map::new()));
        let (url, user, pass) = pools
            .get(n)
            .map_or(("", "", ""), |pool| (pool.url.as_str(), pool.worker.as_str(), pool.password.reveal()));
        put(&mut entry, "url", Value::from(url));
        put(&mut entry, "user", Value::from(user));
        put(&mut entry, "pass", Value::from(pass));
        entry
    };
    Value::Array((0..former.len().max(pools.len())).map(entry).collect())
}

/// Whether a document has these pools and no other; passwords are not compared, as some devices
/// mask them.
pub fn has_pools(document: &Value, pools: &[PoolSetting]) -> bool {
    let Some(list) = document.get("pools").and_then(Value::as_array) else { return false };
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let found: Vec<(String, String)> = list
        .iter()
        .map(|entry| (text(entry, "url"), text(entry, "user")))
        .filter(|(url, _)| !url.is_empty())
        .collect();
    found.len() == pools.len()
        && found.iter().zip(pools).all(|((url, user), pool)| *url == pool.url && *user == pool.worker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Secret;
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

    #[test]
    fn what_moved_is_named_by_its_path() {
        let before = json!({"mode": {"selector": "Auto", "target": 3000}, "fan": "1", "x": null});
        let mut after = json!({"mode": {"selector": "Sleep", "target": 3000}, "fan": 1, "x": "0", "new": 1});
        assert!(moved(&before, &after, &["mode/selector"]).is_empty());
        put(&mut after, "mode/target", json!(2000));
        assert_eq!(moved(&before, &after, &["mode/selector"]), ["mode/target"]);
        assert_eq!(moved(&before, &json!({}), &["mode"]), ["fan"]);
    }

    #[test]
    fn pools_take_the_place_of_all_former_ones() {
        let document =
            json!({"pools": [{"url": "a", "user": "b", "pass": "c", "gid": 0}, {"url": "d"}, {"url": ""}]});
        let pool = PoolSetting { url: "n".to_owned(), worker: "w".to_owned(), password: Secret::new("p") };
        let list = with_pools(&document, std::slice::from_ref(&pool));
        assert_eq!(list[0], json!({"url": "n", "user": "w", "pass": "p", "gid": 0}));
        assert_eq!((&list[1]["url"], list.as_array().map(Vec::len)), (&json!(""), Some(3)));
        assert!(has_pools(&json!({"pools": list}), std::slice::from_ref(&pool)));
        assert!(!has_pools(&document, &[pool]));
    }
}
