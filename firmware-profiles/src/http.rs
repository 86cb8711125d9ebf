//! A small HTTP client for miners' web servers: one request a connection, one deadline, a capped
//! body, digest or basic sign-in, and no connection kept.
//!
//! Sign-in follows the server's challenge (RFC 7616, RFC 7617): a first request without it, then
//! one with the answer. A second refusal means the credentials are wrong; they are not tried again.
//! Sign-ins of a family's own making are in [`crate::web`].

use crate::device::{Credentials, DeviceError};
use crate::tcp::Call;
use bytes::Bytes;
use http_auth::{PasswordClient, PasswordParams};
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, SET_COOKIE, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;

/// What a web server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// Cookies that it set, each as `name=value`.
    pub cookies: Vec<String>,
}

/// A request to a web server.
#[derive(Clone, Copy, Debug)]
pub struct WebRequest<'a> {
    /// Without one, a body makes it a POST.
    pub method: Option<&'a str>,
    pub path: &'a str,
    pub body: Option<(&'a str, &'a [u8])>,
    pub credentials: Option<&'a Credentials>,
    /// A token for the `Authorization` header, as it is.
    pub authorization: Option<&'a str>,
    /// One more header, for sign-ins that have their own.
    pub header: Option<(&'a str, &'a str)>,
}

impl<'a> WebRequest<'a> {
    pub fn get(path: &'a str, credentials: Option<&'a Credentials>) -> Self {
        Self { method: None, path, body: None, credentials, authorization: None, header: None }
    }

    pub fn post(
        path: &'a str,
        content_type: &'a str,
        body: &'a [u8],
        credentials: Option<&'a Credentials>,
    ) -> Self {
        Self { body: Some((content_type, body)), ..Self::get(path, credentials) }
    }

    fn method(&self) -> &'a str {
        self.method.unwrap_or(if self.body.is_some() { "POST" } else { "GET" })
    }
}

/// Sends a request, signing in where the server asks for it; a status other than 2xx is an error.
pub async fn fetch(call: &Call, request: &WebRequest<'_>) -> Result<Vec<u8>, DeviceError> {
    let answer = answer(call, request).await?;
    match answer.status {
        200..=299 => {
            tell(call, request, &answer);
            Ok(answer.body)
        }
        401 | 403 => Err(DeviceError::AuthRefused {
            address: call.name(),
            login: match request.credentials {
                Some(credentials) => format!("the user \"{}\" or its password", credentials.user),
                None => "a request without a sign-in".to_owned(),
            },
        }),
        status => {
            Err(DeviceError::HttpStatus { address: call.name(), status, request: request.path.to_owned() })
        }
    }
}

/// Tells who listens of an answer; of what was written, nothing.
pub(crate) fn tell(call: &Call, request: &WebRequest<'_>, answer: &Answer) {
    let body = match (request.method(), request.body) {
        ("GET", _) => None,
        (_, body) => Some(body.map_or(&[][..], |(_, body)| body)),
    };
    crate::listen::tell_web(call.address.port(), request.path, body, &answer.body);
}

/// Sends a request, answering the server's challenge where it has one; any status is an answer.
pub async fn answer(call: &Call, request: &WebRequest<'_>) -> Result<Answer, DeviceError> {
    // A body that must not be sent twice is not sent before the server's challenge is known.
    let probe = WebRequest { body: None, method: None, ..*request };
    let early = request.credentials.is_some() && (request.body.is_some() || request.method.is_some());
    let first = if early { &probe } else { request };
    let (answer, challenge) = exchange(call, first, request.authorization).await?;
    Ok(match (answer.status, request.credentials, challenge) {
        (401, Some(credentials), Some(challenge)) => {
            let authorization = respond(request, credentials, &challenge)
                .map_err(|found| DeviceError::Garbage { address: call.name(), found })?;
            exchange(call, request, Some(&authorization)).await?.0
        }
        _ if early && answer.status != 401 => exchange(call, request, request.authorization).await?.0,
        _ => answer,
    })
}

fn respond(request: &WebRequest<'_>, credentials: &Credentials, challenge: &str) -> Result<String, String> {
    let mut client =
        PasswordClient::try_from(challenge).map_err(|error| format!("its sign-in challenge: {error}"))?;
    client.respond(&PasswordParams {
        username: &credentials.user,
        password: credentials.password.reveal(),
        uri: request.path,
        method: request.method(),
        body: Some(request.body.map_or(&[], |(_, body)| body)),
    })
}

/// One request and its answer over a connection of its own.
pub async fn exchange(
    call: &Call,
    request: &WebRequest<'_>,
    authorization: Option<&str>,
) -> Result<(Answer, Option<String>), DeviceError> {
    let stream = call.connect().await?;
    let mut builder = Request::builder()
        .method(Method::from_bytes(request.method().as_bytes()).unwrap_or(Method::GET))
        .uri(request.path)
        .header(HOST, call.name())
        .header(CONNECTION, "close");
    if let Some((content_type, _)) = request.body {
        builder = builder.header(CONTENT_TYPE, content_type);
    }
    if let Some((name, value)) = request.header {
        builder = builder.header(name, value);
    }
    if let Some(value) = authorization {
        builder = builder.header(AUTHORIZATION, value);
    }
    let body = Full::new(request.body.map_or_else(Bytes::new, |(_, body)| Bytes::copy_from_slice(body)));
    let message = builder.body(body).map_err(|error| DeviceError::Garbage {
        address: call.name(),
        found: format!("a request that cannot be: {error}"),
    })?;
    let work = async {
        let broken = |error: hyper::Error| broken(call, &error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let answer = async {
            let response = sender.send_request(message).await.map_err(broken)?;
            let status = response.status();
            let challenge = (status == StatusCode::UNAUTHORIZED)
                .then(|| response.headers().get(WWW_AUTHENTICATE)?.to_str().ok().map(str::to_owned))
                .flatten();
            let cookies = response
                .headers()
                .get_all(SET_COOKIE)
                .iter()
                .filter_map(|value| value.to_str().ok()?.split(';').next().map(|pair| pair.trim().to_owned()))
                .collect();
            let mut body = response.into_body();
            let mut bytes = Vec::new();
            while let Some(frame) = body.frame().await {
                // Old web servers cut the last chunk; what came before it is the answer.
                let Ok(frame) = frame else { break };
                if let Some(data) = frame.data_ref() {
                    if bytes.len() + data.len() > call.max_reply {
                        return Err(DeviceError::TooLarge { address: call.name(), limit: call.max_reply });
                    }
                    bytes.extend_from_slice(data);
                }
            }
            Ok((Answer { status: status.as_u16(), body: bytes, cookies }, challenge))
        };
        // The connection is driven here, not in a task of its own, so that it ends with this call.
        tokio::pin!(answer, connection);
        let mut driven = true;
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ = &mut connection, if driven => driven = false,
            }
        }
    };
    match tokio::time::timeout_at(call.until, work).await {
        Ok(done) => done,
        Err(_) => {
            Err(DeviceError::Silent { address: call.name(), after: call.until.duration_since(call.started) })
        }
    }
}

fn broken(call: &Call, error: &hyper::Error) -> DeviceError {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    if let Some(cause) = cause {
        call.io(cause)
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        DeviceError::Empty { address: call.name() }
    } else {
        DeviceError::Garbage { address: call.name(), found: format!("no HTTP: {error}") }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::device::Secret;
    use crate::tcp::now;
    use std::net::Ipv4Addr;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn serve(replies: Vec<&'static str>) -> (Call, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut requests = Vec::new();
            for reply in replies {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 4096];
                let n = stream.read(&mut buffer).await.unwrap();
                requests.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
            requests
        });
        let started = now();
        (Call { address, started, until: started + Duration::from_secs(2), max_reply: 100 }, task)
    }

    const ASKS: &str = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"antMiner Configuration\", \
                        nonce=\"abc\", qop=\"auth\"\r\nContent-Length: 0\r\n\r\n";

    fn root() -> Credentials {
        Credentials { user: "root".to_owned(), password: Secret::new("root") }
    }

    #[tokio::test]
    async fn a_challenge_is_answered_on_a_new_connection() {
        let (call, task) = serve(vec![ASKS, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"]).await;
        let user = root();
        let body = fetch(&call, &WebRequest::post("/x", "application/json", b"{\"a\":1}", Some(&user)))
            .await
            .unwrap();
        assert_eq!(body, b"{}");
        let requests = task.await.unwrap();
        assert!(!requests[0].contains("{\"a\":1}"), "nothing is written before sign-in");
        assert!(requests[1].contains("uthorization: Digest username=\"root\""), "{}", requests[1]);
        assert!(requests[1].ends_with("{\"a\":1}"));
    }

    #[tokio::test]
    async fn a_method_and_a_header_of_a_family_s_own() {
        let reply =
            "HTTP/1.1 200 OK\r\nSet-Cookie: session_id=abc; Path=/; HttpOnly\r\nContent-Length: 0\r\n\r\n";
        let (call, task) = serve(vec![reply]).await;
        let request = WebRequest {
            method: Some("PATCH"),
            header: Some(("Token", "t1")),
            ..WebRequest::post("/x", "application/json", b"{}", None)
        };
        let answer = answer(&call, &request).await.unwrap();
        assert_eq!((answer.status, answer.cookies), (200, vec!["session_id=abc".to_owned()]));
        let sent = task.await.unwrap().remove(0);
        assert!(
            sent.starts_with("PATCH /x HTTP/1.1\r\n") && sent.to_lowercase().contains("token: t1"),
            "{sent}"
        );
    }

    #[tokio::test]
    async fn wrong_credentials_are_tried_once() {
        let (call, task) = serve(vec![ASKS, ASKS]).await;
        let user = root();
        let error = fetch(&call, &WebRequest::get("/x", Some(&user))).await.unwrap_err();
        assert!(matches!(error, DeviceError::AuthRefused { .. }));
        assert_eq!(task.await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn an_old_server_that_just_closes_is_understood() {
        let (call, task) = serve(vec!["HTTP/1.0 200 OK\r\n\r\n{\"a\":1}"]).await;
        // The server's end of the connection closes with its task.
        let body = fetch(&call, &WebRequest::get("/x", None)).await.unwrap();
        assert_eq!(body, b"{\"a\":1}");
        drop(task);
    }

    #[tokio::test]
    async fn a_body_without_end_is_given_up() {
        let (call, _task) = serve(vec!["HTTP/1.0 200 OK\r\n\r\n\
            xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"]).await;
        assert!(matches!(
            fetch(&call, &WebRequest::get("/x", None)).await,
            Err(DeviceError::TooLarge { .. })
        ));
    }
}
