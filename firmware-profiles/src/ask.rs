//! A request as a profile orders it: what is sent, over which transport.

use crate::request::{Request, Transport};
use serde_json::Value;

/// A request as a profile orders it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub request: Request,
    /// What is sent: a command with its parameter, or a path.
    pub send: Send,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Send {
    /// One CGMiner API command; `extra` are more members of the JSON request.
    Command {
        command: String,
        extra: Vec<(String, Value)>,
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
        Ok(Self {
            request: Request::cgminer(command),
            send: Send::Command { command: command.to_owned(), extra },
        })
    }

    /// A plain CGMiner API command.
    pub fn command(command: &str) -> Self {
        Self {
            request: Request::cgminer(command),
            send: Send::Command { command: command.to_owned(), extra: Vec::new() },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
