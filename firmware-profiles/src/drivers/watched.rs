//! Settings that no stop or wake moves: read before a write and after it, and put back if they did.

use super::Context;
use super::document::alike;
use super::http_send::{part_of, send, web_call};
use crate::WriteOutcome;
use crate::control::http::{HttpControl, Settings};
use crate::device::DeviceError;
use crate::template::Blanks;
use hashinsight_protocol::device::FactV1;
use serde_json::Value;

/// Settings as they were before a write.
pub(super) struct Watched<'a> {
    before: Option<(&'a Settings, Value)>,
}

impl<'a> Watched<'a> {
    pub async fn open(context: &Context<'_>, control: &'a HttpControl) -> Self {
        let Some(settings) = &control.settings else { return Self { before: None } };
        // What cannot be read cannot be watched; the write is more important.
        let before = part_of(context, &settings.get, &settings.at).await.ok();
        Self { before: before.map(|value| (settings, value)) }
    }

    /// Reads the settings again after a write that was taken, and puts them back if they moved.
    pub async fn close(
        self,
        context: &Context<'_>,
        control: &HttpControl,
        outcome: &WriteOutcome,
    ) -> Result<(), DeviceError> {
        let Some((settings, before)) = self.before.filter(|_| outcome.accepted != FactV1::No) else {
            return Ok(());
        };
        let Ok(after) = part_of(context, &settings.get, &settings.at).await else { return Ok(()) };
        let moved = moved(&before, &after, &settings.ignore);
        if moved.is_empty() {
            return Ok(());
        }
        let restored = match &settings.restore {
            None => false,
            Some(way) => {
                let blanks: Blanks = [("document".to_owned(), before.clone())].into_iter().collect();
                let sent = send(context, control, way, &blanks).await;
                let again = part_of(context, &settings.get, &settings.at).await;
                sent.is_ok_and(|sent| sent.accepted != FactV1::No)
                    && again.is_ok_and(|again| self::moved(&before, &again, &settings.ignore).is_empty())
            }
        };
        Err(DeviceError::FieldMoved {
            address: web_call(context).name(),
            shape: outcome.shape.clone().unwrap_or_default(),
            fields: moved.join(", "),
            restored,
        })
    }
}

/// The paths of all that differs, without values.
fn moved(before: &Value, after: &Value, ignore: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    walk(before, after, "", ignore, &mut found);
    found
}

fn walk(before: &Value, after: &Value, path: &str, ignore: &[String], found: &mut Vec<String>) {
    if ignore.iter().any(|ignored| ignored == path) || before == after {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}/{key}") };
                walk(value, new.get(key).unwrap_or(&Value::Null), &inner, ignore, found);
            }
        }
        _ if alike(before, after) => {}
        _ => found.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_moved_is_named_without_its_value() {
        let before = json!({"a": 1, "p": [{"pass": "hush"}], "o": {"b": "1", "c": 2}});
        let after = json!({"a": "1", "p": [{"pass": "loud"}], "o": {"b": "2", "c": 3}, "new": 1});
        assert_eq!(moved(&before, &after, &["o/c".to_owned()]), ["p", "o/b"]);
    }
}
