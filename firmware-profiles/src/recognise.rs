//! Recognising a firmware: clauses over the replies of a device. Not the hot path, so the replies
//! are read into dynamic values here.

use crate::json;
use crate::request::Request;
use crate::text;
use serde::Deserialize;
use serde_json::Value;

/// A clause as a profile writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClauseFile {
    reply: String,
    pub path: String,
    starts: Option<String>,
    contains: Option<String>,
    equals: Option<String>,
    lacks: Option<String>,
    #[serde(default = "ten")]
    weight: i32,
}

fn ten() -> i32 {
    10
}

/// One sign of a firmware in a reply.
#[derive(Debug)]
pub(crate) struct Clause {
    reply: String,
    path: Vec<String>,
    test: Test,
    pub weight: i32,
}

#[derive(Debug)]
enum Test {
    Present,
    Starts(String),
    Contains(String),
    Equals(String),
    Lacks(String),
}

/// Replies of one device, made ready for recognition.
pub struct Parsed {
    replies: Vec<(String, Value)>,
}

impl Parsed {
    pub fn new(replies: &[(Request, &[u8])]) -> Self {
        let mut out = Vec::new();
        for (request, bytes) in replies {
            let Some(value) = reply_value(bytes) else { continue };
            if request.is_joined()
                && let Value::Object(map) = &value
            {
                for (command, inner) in map {
                    out.push((command.to_ascii_lowercase(), inner.clone()));
                }
            } else {
                out.push((request.name.clone(), value));
            }
        }
        Self { replies: out }
    }
}

/// A reply as a dynamic value; a text reply as the JSON that would have said the same.
pub fn reply_value(bytes: &[u8]) -> Option<Value> {
    if !text::is_text_reply(bytes) {
        return json::parse(bytes).map(|(value, _)| value);
    }
    let whole = String::from_utf8_lossy(bytes);
    let mut out = serde_json::Map::new();
    for section in text::sections(&whole) {
        let fields: serde_json::Map<String, Value> = section
            .fields
            .iter()
            .map(|(key, value)| (key.to_owned(), Value::from(text::unescape(value).into_owned())))
            .collect();
        if let Value::Array(list) = out.entry(section.list).or_insert_with(|| Value::Array(Vec::new())) {
            list.push(Value::Object(fields));
        }
    }
    Some(Value::Object(out))
}

impl Clause {
    pub fn new(file: ClauseFile) -> Result<Self, String> {
        let tests: Vec<Test> = [
            file.starts.map(Test::Starts),
            file.contains.map(|t| Test::Contains(t.to_ascii_lowercase())),
            file.equals.map(Test::Equals),
            file.lacks.map(|t| Test::Lacks(t.to_ascii_lowercase())),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut tests = tests.into_iter();
        let test = tests.next().unwrap_or(Test::Present);
        if tests.next().is_some() {
            return Err("a clause has one test".to_owned());
        }
        let path = file.path.split('/').map(|step| step.replace("::", "/")).collect();
        Ok(Self { reply: file.reply, path, test, weight: file.weight })
    }

    pub fn holds(&self, parsed: &Parsed) -> bool {
        parsed
            .replies
            .iter()
            .filter(|(name, _)| match self.reply.strip_suffix('*') {
                Some(head) => name.starts_with(head),
                None => *name == self.reply,
            })
            .any(|(_, value)| self.matches(value, &self.path))
    }

    fn matches(&self, value: &Value, path: &[String]) -> bool {
        if let Value::Array(list) = value {
            return list.iter().any(|item| self.matches(item, path));
        }
        let Some((step, rest)) = path.split_first() else { return self.test(value) };
        match value {
            Value::Object(map) => match step.as_str() {
                "*" => map.values().any(|inner| self.matches(inner, rest)),
                step => match step.strip_suffix('*') {
                    Some(prefix) => {
                        map.iter().any(|(key, inner)| key.starts_with(prefix) && self.matches(inner, rest))
                    }
                    None => map.get(step).is_some_and(|inner| self.matches(inner, rest)),
                },
            },
            _ => false,
        }
    }

    fn test(&self, value: &Value) -> bool {
        if let Test::Present = self.test {
            return true;
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Null => return false,
            other => other.to_string(),
        };
        match &self.test {
            Test::Present => true,
            Test::Starts(head) => text.starts_with(head),
            Test::Contains(part) => text.to_ascii_lowercase().contains(part),
            Test::Equals(whole) => text == *whole,
            Test::Lacks(part) => !text.to_ascii_lowercase().contains(part),
        }
    }
}
