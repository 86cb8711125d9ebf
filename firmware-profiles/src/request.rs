//! What is asked of a device, in one spelling: a profile, a driver and a capture name the same
//! request the same way, so that a reply finds its rules.

use std::borrow::Cow;

/// How a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// The CGMiner API: one JSON or text command a connection.
    Cgminer,
    /// Whatsminer's API 3 on port 4433: a length, then JSON.
    WhatsminerV3,
    Http,
    GraphQl,
}

/// One request, named in lower case without what differs between spellings: `stats`,
/// `summary+pools`, `get.miner.status`, `cgi-bin/stats.cgi` as `stats`, `miner/hw/hashboards` as
/// `miner_hw_hashboards`, any GraphQL query as `graphql`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    pub transport: Transport,
    pub name: String,
}

impl Request {
    pub fn cgminer(command: &str) -> Self {
        Self { transport: Transport::Cgminer, name: command_name(command) }
    }

    pub fn http(path: &str) -> Self {
        Self { transport: Transport::Http, name: path_name(path) }
    }

    pub fn whatsminer_v3(command: &str) -> Self {
        Self { transport: Transport::WhatsminerV3, name: command_name(command) }
    }

    /// A request as a capture's `case.json` writes it.
    pub fn from_capture(transport: &str, port: u16, request: &str) -> Self {
        let request = request.trim();
        let graphql = transport.contains("graphql")
            || request.starts_with("GraphQL")
            || request.starts_with("gql_")
            || (transport.starts_with("http") && request.starts_with('{'));
        if graphql {
            return Self { transport: Transport::GraphQl, name: "graphql".to_owned() };
        }
        if transport.starts_with("http") {
            return Self::http(request);
        }
        let name = command_name(request);
        let v3 = port == 4433 || name.contains('.');
        Self { transport: if v3 { Transport::WhatsminerV3 } else { Transport::Cgminer }, name }
    }

    /// Whether several report commands were joined.
    pub fn is_joined(&self) -> bool {
        self.transport == Transport::Cgminer && self.name.contains('+')
    }
}

/// The command of a request in any of its forms: bare, `command|parameter`, JSON with `command` or
/// `cmd`, or a capture's `name String("parameter")`.
fn command_name(request: &str) -> String {
    let command = if request.starts_with('{') {
        let value = crate::json::parse(request.as_bytes()).map(|(value, _)| value);
        let command = value.as_ref().and_then(|v| v.get("command").or_else(|| v.get("cmd"))?.as_str());
        Cow::Owned(command.unwrap_or_default().to_owned())
    } else {
        Cow::Borrowed(request.split(['|', ' ']).next().unwrap_or(request))
    };
    command.to_ascii_lowercase()
}

fn path_name(path: &str) -> String {
    let path = path.split([' ', '?']).next().unwrap_or(path).trim_matches('/');
    let path = path.strip_prefix("cgi-bin/").unwrap_or(path);
    let path = path.strip_prefix("api/v1/").or_else(|| path.strip_prefix("api/")).unwrap_or(path);
    let path = path.strip_suffix(".cgi").unwrap_or(path);
    path.to_ascii_lowercase().replace(['/', '-'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        let check = |transport: &str, port, request: &str, name: &str| {
            assert_eq!(Request::from_capture(transport, port, request).name, name);
        };
        check("tcp", 4028, "summary", "summary");
        check("tcp", 4028, "{\"command\":\"stats\",\"new_api\":true}", "stats");
        check("tcp", 4028, "{\"cmd\":\"status\"}", "status");
        check("tcp", 4028, "ascset|0,softoff", "ascset");
        check("tcp", 4028, "get.miner.status String(\"edevs\")", "get.miner.status");
        check("http", 80, "/cgi-bin/get_miner_conf.cgi", "get_miner_conf");
        check("http", 80, "/api/v1/telemetry Object {\"level\": 1}", "telemetry");
        check("http", 80, "miner/hw/hashboards", "miner_hw_hashboards");
        check("http", 80, "miner_hw_hashboards", "miner_hw_hashboards");
        check("http", 80, "gql_boards", "graphql");
        check("http-graphql", 80, "{ bos { hostname } }", "graphql");
        let v3 = Request::from_capture("tcp", 4028, "get.device.info");
        assert_eq!(v3.transport, Transport::WhatsminerV3);
    }
}
