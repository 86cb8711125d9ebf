//! A request as a profile orders it: what is sent, over which transport.

use crate::request::{Request, Transport};
use serde_json::{Value, json};

/// A request as a profile orders it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub request: Request,
    /// What is sent: a command with its parameter, or a path.
    pub send: Send,
}

/// One CGMiner API request in JSON. An empty parameter is left out: some firmwares refuse it.
pub(crate) fn command_json(command: &str, parameter: Option<&str>, extra: &[(String, Value)]) -> String {
    let mut body = json!({"command": command});
    if let Some(parameter) = parameter.filter(|p| !p.is_empty()) {
        body["parameter"] = parameter.into();
    }
    for (key, value) in extra {
        body[key.as_str()] = value.clone();
    }
    body.to_string()
}

#[derive(Clone, Debug, PartialEq)]
pub enum Send {
    /// One CGMiner API command; `extra` are more members of the JSON request.
    Command {
        command: String,
        extra: Vec<(String, Value)>,
        /// The whole request, made once.
        bytes: Vec<u8>,
    },
    Get {
        path: String,
    },
    /// The same on the CGMiner API's port, where ePIC listens.
    ApiGet {
        path: String,
    },
    /// A command of Whatsminer's API 3.
    V3 {
        command: String,
        parameter: Option<String>,
    },
    /// A request with a JSON body that only reads.
    Post {
        path: String,
        body: String,
    },
    GraphQl {
        path: String,
        query: String,
    },
}

impl Ask {
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let get = |prefix: &str| {
            let path = line.strip_prefix(prefix)?;
            Some(if path.starts_with('/') { Ok(path) } else { Err("a path begins with \"/\"".to_owned()) })
        };
        if let Some(path) = get("API GET ") {
            let path = path?;
            return Ok(Self { request: Request::http(path), send: Send::ApiGet { path: path.to_owned() } });
        }
        if let Some(path) = get("GET ") {
            let path = path?;
            return Ok(Self { request: Request::http(path), send: Send::Get { path: path.to_owned() } });
        }
        if let Some(rest) = get("POST ") {
            let rest = rest?;
            let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
            if !body.is_empty() && serde_json::from_str::<Value>(body).is_err() {
                return Err("what follows the path of a POST is JSON".to_owned());
            }
            let send = Send::Post { path: path.to_owned(), body: body.to_owned() };
            return Ok(Self { request: Request::http(path), send });
        }
        if let Some(query) = line.strip_prefix("QUERY ") {
            let request = Request { transport: Transport::GraphQl, name: "graphql".to_owned() };
            let (path, query) = match query.split_once(' ') {
                Some((path, query)) if path.starts_with('/') => (path, query),
                _ => ("/graphql", query),
            };
            return Ok(Self {
                request,
                send: Send::GraphQl { path: path.to_owned(), query: query.to_owned() },
            });
        }
        if let Some(command) = line.strip_prefix("V3 ") {
            let (command, parameter) =
                command.split_once(' ').map_or((command, None), |(c, p)| (c, Some(p.to_owned())));
            let request = Request::whatsminer_v3(command);
            return Ok(Self { request, send: Send::V3 { command: command.to_owned(), parameter } });
        }
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut extra = Vec::new();
        for pair in rest.split_whitespace() {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("\"{pair}\" is not key=value"))?;
            extra.push((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))));
        }
        if command.is_empty()
            || !command.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+'))
        {
            return Err(format!("\"{command}\" is no command"));
        }
        Ok(Self::with_extra(command, extra))
    }

    fn with_extra(command: &str, extra: Vec<(String, Value)>) -> Self {
        let bytes = command_json(command, None, &extra).into_bytes();
        let send = Send::Command { command: command.to_owned(), extra, bytes };
        Self { request: Request::cgminer(command), send }
    }

    /// A plain CGMiner API command.
    pub fn command(command: &str) -> Self {
        Self::with_extra(command, Vec::new())
    }

    /// Whether it can be one of several commands in one request. Whatsminer's own can't.
    pub fn joins(&self) -> bool {
        match &self.send {
            Send::Command { command, extra, .. } => {
                extra.is_empty() && !command.starts_with("get_") && command != "status"
            }
            _ => false,
        }
    }

    /// Plain commands become one joined request; the others stay as they are.
    pub fn join<'a>(asks: impl Iterator<Item = &'a Self> + Clone) -> Vec<Self> {
        let names: Vec<&str> =
            asks.clone().filter(|ask| ask.joins()).map(|ask| ask.request.name.as_str()).collect();
        if names.len() < 2 {
            return asks.cloned().collect();
        }
        let mut plan = vec![Self::command(&names.join("+"))];
        plan.extend(asks.filter(|ask| !ask.joins()).cloned());
        plan
    }

    /// All that a reading may need in as few requests as can be: a command that is only asked for where the
    /// others have no hashrate joins them, as it costs no exchange of its own then.
    pub fn join_all(requests: &[Self], otherwise: &[Self]) -> Vec<Self> {
        let joins = requests.iter().any(Self::joins);
        Self::join(requests.iter().chain(otherwise.iter().filter(|ask| joins && ask.joins())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn plain_commands_are_joined() {
        let asks =
            |lines: &[&str]| -> Vec<Ask> { lines.iter().map(|line| Ask::parse(line).unwrap()).collect() };
        let names = |asks: &[Ask]| asks.iter().map(|ask| ask.request.name.clone()).collect::<Vec<_>>();
        let all = asks(&["summary", "get_psu", "pools", "stats new_api=true", "GET /a"]);
        assert_eq!(names(&Ask::join(all.iter())), ["summary+pools", "get_psu", "stats", "a"]);
        assert_eq!(Ask::join(all.iter().take(2)), all[..2]);
        let otherwise = asks(&["summary", "GET /b"]);
        assert_eq!(names(&Ask::join_all(&asks(&["stats", "pools"]), &otherwise)), ["stats+pools+summary"]);
        assert_eq!(names(&Ask::join_all(&asks(&["GET /a"]), &otherwise)), ["a"]);
    }

    #[test]
    fn an_empty_parameter_is_left_out() {
        assert_eq!(command_json("a", Some(""), &[]), r#"{"command":"a"}"#);
        assert_eq!(command_json("a", Some("b"), &[]), r#"{"command":"a","parameter":"b"}"#);
    }

    #[test]
    fn posts_and_queries() {
        let post = Ask::parse("POST /user/userpanel?post=4").unwrap();
        assert_eq!(post.request.name, "user_userpanel");
        assert_eq!(
            Ask::parse("QUERY /api/graphql { Miner }").unwrap().send,
            Send::GraphQl { path: "/api/graphql".to_owned(), query: "{ Miner }".to_owned() }
        );
        assert_eq!(
            Ask::parse("QUERY { bos }").unwrap().send,
            Send::GraphQl { path: "/graphql".to_owned(), query: "{ bos }".to_owned() }
        );
        assert!(Ask::parse("POST /a {\"b\": }").unwrap_err().contains("JSON"));
        assert!(Ask::parse("POST a").unwrap_err().contains("begins with"));
    }
}
