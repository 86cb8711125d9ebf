//! The web port: HTTP/1.1, small and strict.
//!
//! Limits: a head of 8 KiB, a body of 64 KiB, 10 s of silence between requests of a connection, 64
//! requests a connection. Devices without a web interface of interest answer 404.

use crate::family::Scene;
use crate::family::antminer_web::{WebAnswer, WebRequest};
use crate::family::web as families;
use crate::faults::FaultKind;
use crate::server::{Gate, Sent, Shared, deliver, hold, note_web, reset};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const HEAD: usize = 8 << 10;
const BODY: usize = 64 << 10;
const IDLE: Duration = Duration::from_secs(10);
const REQUESTS: usize = 64;

/// Serves one connection.
pub async fn serve(shared: &Shared, index: u32, mut stream: TcpStream) -> io::Result<()> {
    match shared.web_gate(index) {
        Gate::Open => {}
        Gate::Refuse => {
            reset(stream);
            return Ok(());
        }
        Gate::Silent => {
            hold(stream).await;
            return Ok(());
        }
    }
    let mut buffer = Vec::new();
    for _ in 0..REQUESTS {
        let read = match timeout(IDLE, request(&mut stream, &mut buffer)).await {
            Err(_) | Ok(Ok(None)) => return Ok(()),
            Ok(read) => read?,
        };
        let Some(head) = read else { return Ok(()) };
        if shared.fault(index, FaultKind::Hang).is_some() {
            hold(stream).await;
            return Ok(());
        }
        let head = match head {
            Ok(head) => head,
            Err(status) => {
                let answer = WebAnswer { status, content_type: "text/plain", ..WebAnswer::default() };
                stream.write_all(render(&answer, false).as_bytes()).await?;
                return stream.shutdown().await;
            }
        };
        let answer = shared.with(index, |device, now, t| {
            if !device.model.family.has_web() {
                return WebAnswer { status: 404, content_type: "text/html", ..WebAnswer::default() };
            }
            let request = WebRequest {
                method: &head.method,
                path: &head.path,
                authorization: head.authorization.as_deref(),
                token: head.token.as_deref(),
                cookie: head.cookie.as_deref(),
                content_type: &head.content_type,
                body: &head.body,
            };
            let answer = families::answer(&mut Scene::new(device, now, t), &request);
            device.writes += u64::from(answer.write.is_some());
            answer
        });
        if answer.delay > 0.0 {
            sleep(Duration::from_secs_f64(answer.delay.min(60.0))).await;
        }
        let sent = deliver(shared, index, &mut stream, render(&answer, head.keep_alive).as_bytes()).await;
        let name = head.path.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default();
        let name: String =
            name.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(64).collect();
        // A challenge is part of a login, not an answer.
        if answer.status != 401 {
            note_web(shared, index, &name, &answer, matches!(sent, Ok(Sent::Whole)));
        }
        match sent? {
            Sent::Whole if head.keep_alive => {}
            Sent::Whole | Sent::Part => return stream.shutdown().await,
            Sent::Reset => {
                reset(stream);
                return Ok(());
            }
        }
    }
    stream.shutdown().await
}

#[derive(Debug)]
struct Head {
    method: String,
    path: String,
    authorization: Option<String>,
    token: Option<String>,
    cookie: Option<String>,
    content_type: String,
    keep_alive: bool,
    body: Vec<u8>,
}

/// The next request: `None` at the end of the connection, a status where it cannot be served. What
/// follows it stays in `buffer`.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Result<Head, u16>>> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        // No method begins so: what the other end speaks is no HTTP.
        if buffer.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            return Ok(Some(Err(400)));
        }
        if buffer.len() > HEAD {
            return Ok(Some(Err(431)));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let (mut head, length) = match parse(&buffer[..head_end]) {
        Ok(parsed) => parsed,
        Err(status) => return Ok(Some(Err(status))),
    };
    let end = head_end + 4 + length;
    while buffer.len() < end {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    head.body = buffer[head_end + 4..end].to_vec();
    buffer.drain(..end);
    Ok(Some(Ok(head)))
}

fn parse(bytes: &[u8]) -> Result<(Head, usize), u16> {
    let text = std::str::from_utf8(bytes).map_err(|_| 400u16)?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(path), Some(version)) = (first.next(), first.next(), first.next()) else {
        return Err(400);
    };
    if !version.starts_with("HTTP/1.") || !path.starts_with('/') {
        return Err(400);
    }
    let mut head = Head {
        method: method.to_owned(),
        path: path.to_owned(),
        authorization: None,
        token: None,
        cookie: None,
        content_type: String::new(),
        keep_alive: version == "HTTP/1.1",
        body: Vec::new(),
    };
    let mut length = 0;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Err(400) };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "authorization" => head.authorization = Some(value.to_owned()),
            "token" => head.token = Some(value.to_owned()),
            "cookie" => head.cookie = Some(value.to_owned()),
            "content-type" => head.content_type = value.to_ascii_lowercase(),
            "content-length" => length = value.parse().map_err(|_| 400u16)?,
            "connection" => head.keep_alive = !value.eq_ignore_ascii_case("close") && head.keep_alive,
            "transfer-encoding" => return Err(501),
            _ => {}
        }
    }
    if length > BODY { Err(413) } else { Ok((head, length)) }
}

fn render(answer: &WebAnswer, keep_alive: bool) -> String {
    let reason = match answer.status {
        200 => "OK",
        204 => "No Content",
        401 => "Unauthorized",
        403 => "Forbidden",
        500 => "Internal Server Error",
        404 => "Not Found",
        413 => "Payload Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        _ => "Bad Request",
    };
    let cookie = answer.cookie.as_ref().map_or(String::new(), |c| format!("Set-Cookie: {c}\r\n"));
    let challenge = answer.challenge.as_ref().map_or(String::new(), |c| format!("WWW-Authenticate: {c}\r\n"));
    format!(
        "HTTP/1.1 {} {reason}\r\nServer: lighttpd/1.4.54\r\nContent-Type: {}\r\n{challenge}{cookie}Content-Length: {}\r\nConnection: {}\r\n\r\n{}",
        answer.status,
        answer.content_type,
        answer.body.len(),
        if keep_alive { "keep-alive" } else { "close" },
        answer.body
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_strictly() {
        let (head, length) = parse(
            b"POST /cgi-bin/x.cgi?a=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nContent-Type: Text/Plain\r\nConnection: close",
        )
        .expect("valid");
        assert_eq!((head.method.as_str(), head.path.as_str(), length), ("POST", "/cgi-bin/x.cgi?a=1", 12));
        assert_eq!((head.content_type.as_str(), head.keep_alive), ("text/plain", false));
        for (bad, status) in [
            (&b"GET"[..], 400),
            (b"GET / SMTP", 400),
            (b"GET x HTTP/1.1", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: x", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: 99999999", 413),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked", 501),
            (b"\xff\xfe", 400),
        ] {
            assert_eq!(parse(bad).map(|_| ()), Err(status));
        }
    }
}
