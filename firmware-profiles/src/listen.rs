//! Listening in on what a device answers, byte by byte: for captures.
//!
//! Connections are opened many calls deep, and hardly a call is listened to, so the listener is not
//! passed along: it belongs to the task that runs the call. What carries a secret of ours by its
//! nature is never told: sign-ins, tokens, encrypted commands.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most exchanges, and bytes of them, that one listener keeps.
const MAX_EXCHANGES: usize = 200;
const MAX_BYTES: usize = 16 << 20;

tokio::task_local! {
    static EAR: Ear;
}

/// One request and its reply, as they travelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// As a capture names it: `tcp`, `http`, `http-graphql`.
    pub transport: &'static str,
    pub port: u16,
    /// A command, a path or a query.
    pub request: String,
    pub reply: Vec<u8>,
}

/// Hears the exchanges of a call.
#[derive(Clone, Debug, Default)]
pub struct Ear(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    exchanges: Vec<Exchange>,
    bytes: usize,
}

impl Ear {
    /// Runs a call, and keeps the exchanges that it makes, also when it is dropped half-way.
    pub async fn during<F: Future>(&self, call: F) -> F::Output {
        EAR.scope(self.clone(), call).await
    }

    /// What was heard since the last time.
    pub fn take(&self) -> Vec<Exchange> {
        let mut kept = self.kept();
        kept.bytes = 0;
        std::mem::take(&mut kept.exchanges)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Each exchange is put whole; a panic elsewhere leaves them good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of a reply over the CGMiner API or Whatsminer's API 3.
pub(crate) fn tell_tcp(port: u16, request: &[u8], reply: &[u8]) {
    tell(reply, || {
        let request = String::from_utf8_lossy(request);
        let secret = ["\"enc\"", "get_token", "logon", "\"token\""];
        (!secret.iter().any(|word| request.contains(word)))
            .then(|| ("tcp", port, request.trim_end_matches('\0').to_owned()))
    });
}

/// Tells of a web page that was read, or of the answer to a query.
pub(crate) fn tell_web(port: u16, path: &str, body: Option<&[u8]>, reply: &[u8]) {
    tell(reply, || match body {
        None => Some(("http", port, path.to_owned())),
        Some(query) if path.ends_with("/graphql") => {
            Some(("http-graphql", port, String::from_utf8_lossy(query).into_owned()))
        }
        // What is posted elsewhere is a sign-in or a write.
        Some(_) => None,
    });
}

fn tell(reply: &[u8], of: impl FnOnce() -> Option<(&'static str, u16, String)>) {
    // Nobody listens in most calls.
    let _ = EAR.try_with(|ear| {
        let Some((transport, port, request)) = of() else { return };
        let mut kept = ear.kept();
        if kept.exchanges.len() < MAX_EXCHANGES && kept.bytes + reply.len() <= MAX_BYTES {
            kept.bytes += reply.len();
            kept.exchanges.push(Exchange { transport, port, request, reply: reply.to_vec() });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_call_that_is_listened_to_is_heard_and_no_secret() {
        tell_tcp(4028, b"summary", b"before");
        let ear = Ear::default();
        ear.during(async {
            tell_tcp(4028, b"{\"command\":\"summary\"}", b"{}");
            tell_tcp(4028, b"{\"cmd\":\"get_token\"}", b"{\"salt\":1}");
            tell_tcp(4028, b"{\"enc\":1,\"data\":\"x\"}", b"{}");
            tell_web(80, "/cgi-bin/stats.cgi", None, b"[]");
            tell_web(80, "/api/v1/unlock", Some(b"{\"pw\":\"x\"}"), b"{\"token\":\"y\"}");
            tell_web(80, "/graphql", Some(b"{\"query\":\"{ bos { hostname } }\"}"), b"{}");
        })
        .await;
        tell_tcp(4028, b"summary", b"after");
        let heard: Vec<_> = ear.take().into_iter().map(|e| (e.transport, e.port, e.request)).collect();
        assert_eq!(
            heard,
            [
                ("tcp", 4028, "{\"command\":\"summary\"}".to_owned()),
                ("http", 80, "/cgi-bin/stats.cgi".to_owned()),
                ("http-graphql", 80, "{\"query\":\"{ bos { hostname } }\"}".to_owned()),
            ]
        );
        assert!(ear.take().is_empty());
    }
}
