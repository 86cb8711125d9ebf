//! What a device answers to a command of the CGMiner API, and what of it is a fact.

pub(super) use crate::ask::command_json;
use crate::device::DeviceError;
use hashinsight_protocol::device::{FactV1, ModeV1};
use serde_json::Value;

/// What a device answered to a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Status {
    /// S, I, W, E or F.
    pub letter: Option<char>,
    pub code: Option<i64>,
    message: String,
}

impl Status {
    pub fn of(reply: &[u8]) -> Self {
        let Some(value) = crate::recognise::reply_value(reply) else {
            return Self::unclear("an empty reply");
        };
        // `"STATUS":[{…}]` of cgminer, or `"STATUS":"S"` beside the other members.
        let row = match value.get("STATUS") {
            Some(Value::Array(list)) => list.first(),
            Some(Value::Object(_)) => value.get("STATUS"),
            _ => Some(&value),
        };
        let text = |key: &str| match row.and_then(|row| row.get(key)) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        };
        // `restart` and `quit` answer with a word of their own.
        if matches!(value.get("STATUS").and_then(Value::as_str), Some("RESTART" | "BYE")) {
            return Self { letter: Some('S'), code: None, message: "it restarts".to_owned() };
        }
        Self {
            letter: text("STATUS").and_then(|s| s.chars().next()),
            code: text("Code").and_then(|c| c.parse().ok()),
            message: text("Msg").or_else(|| text("Description")).unwrap_or_default(),
        }
    }

    /// A reply of Whatsminer's API 3: code 0 is success.
    pub fn of_v3(reply: &[u8]) -> Self {
        let value = crate::recognise::reply_value(reply).unwrap_or_default();
        let code = value.get("code").and_then(Value::as_i64);
        let message = match value.get("msg") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => "no word".to_owned(),
            Some(other) => other.to_string(),
        };
        Self { letter: code.map(|code| if code == 0 { 'S' } else { 'E' }), code, message }
    }

    pub fn unclear(message: &str) -> Self {
        Self { letter: None, code: None, message: message.to_owned() }
    }

    /// Success is S, or I for what is done later (cgminer 111, Avalon 118); W is not done.
    pub fn is_accepted(&self) -> bool {
        matches!(self.letter, Some('S' | 'I')) && !self.message.to_ascii_lowercase().contains("fail")
    }

    pub fn fact(&self) -> FactV1 {
        match self.letter {
            None => FactV1::Unknown,
            Some(_) if self.is_accepted() => FactV1::Yes,
            Some(_) => FactV1::No,
        }
    }

    pub fn words(&self) -> String {
        match self.code {
            Some(code) => format!("code {code}, {}", self.message),
            None => self.message.clone(),
        }
    }
}

/// Puts the reply to a write into an outcome; a missing one is unknown, a refusal to sign in is an
/// error.
pub(crate) fn reply_fact(reply: Result<Status, DeviceError>) -> Result<(FactV1, String), DeviceError> {
    match reply {
        Ok(status) => Ok((status.fact(), status.words())),
        Err(error) if error.is_lost_reply() => Ok((FactV1::Unknown, error.to_string())),
        Err(error) => Err(error),
    }
}

/// Whether a device's own word on its mode is what was wished.
pub(crate) fn mode_fact(seen: Option<ModeV1>, asleep: bool) -> FactV1 {
    match seen {
        None => FactV1::Unknown,
        Some(mode) if mode.is_asleep() == asleep => FactV1::Yes,
        Some(_) => FactV1::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_s_or_i() {
        let check = |reply: &str, fact| assert_eq!(Status::of(reply.as_bytes()).fact(), fact, "{reply}");
        check(r#"{"STATUS":[{"STATUS":"S","Code":119,"Msg":"ASC 0 set OK"}]}"#, FactV1::Yes);
        check(r#"{"STATUS":[{"STATUS":"I","Code":118,"Msg":"success softoff:1"}]}"#, FactV1::Yes);
        check(r#"{"STATUS":"S","Code":131,"Msg":"API command OK"}"#, FactV1::Yes);
        check(r#"{"STATUS":[{"STATUS":"W","Code":117,"Msg":"not supported"}]}"#, FactV1::No);
        check(r#"{"STATUS":[{"STATUS":"E","Code":14,"Msg":"Invalid command"}]}"#, FactV1::No);
        check("STATUS=S,When=1,Code=119,Msg=ASC 0 set OK,Description=x|", FactV1::Yes);
        check(r#"{"STATUS":"RESTART","id":1}"#, FactV1::Yes);
        check("{}", FactV1::Unknown);
    }
}
