//! The CGMiner API and Whatsminer's API 3 over TCP: one command a connection.
//!
//! The server is one thread that accepts, reads once and answers (cgminer `api.c`): a request in
//! two segments is "Invalid JSON", and a client that says nothing blocks every other. So the whole
//! request goes out in one write at once, the reply is read to its NUL or to the end, under one
//! deadline and a cap, and the socket is closed on every path, cancellation included, because
//! dropping the future drops it.

use crate::device::{Device, DeviceError, Limits};
use std::io::ErrorKind;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Bytes first asked for; most replies fit.
const FIRST_READ: usize = 8192;

/// A call in progress: where to, until when, how much.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub address: SocketAddr,
    pub started: Instant,
    pub until: Instant,
    pub max_reply: usize,
}

impl Call {
    /// A call to a device's CGMiner API.
    pub fn api(device: &Device, limits: &Limits) -> Self {
        Self::new(SocketAddr::new(device.ip, device.api_port), limits)
    }

    /// A call to a device's web server.
    pub fn web(device: &Device, limits: &Limits) -> Self {
        Self::new(SocketAddr::new(device.ip, device.web_port), limits)
    }

    fn new(address: SocketAddr, limits: &Limits) -> Self {
        let started = now();
        Self { address, started, until: started + limits.deadline, max_reply: limits.max_reply }
    }

    /// The same call to another port of the device.
    pub fn to_port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }

    pub fn name(&self) -> String {
        self.address.to_string()
    }

    fn deadline(&self, heard: bool) -> DeviceError {
        let after = self.until.duration_since(self.started);
        if heard {
            DeviceError::Deadline { address: self.name(), after }
        } else {
            DeviceError::Silent { address: self.name(), after }
        }
    }

    fn unconnected(&self) -> DeviceError {
        let cause = "no answer to the connection attempt".to_owned();
        DeviceError::Unreachable { address: self.name(), cause }
    }

    pub fn io(&self, error: &std::io::Error) -> DeviceError {
        let address = self.name();
        match error.kind() {
            ErrorKind::ConnectionRefused => DeviceError::Refused { address },
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                DeviceError::Empty { address }
            }
            _ => DeviceError::Unreachable { address, cause: error.to_string() },
        }
    }

    /// Connects, within the deadline.
    pub async fn connect(&self) -> Result<TcpStream, DeviceError> {
        match tokio::time::timeout_at(self.until, TcpStream::connect(self.address)).await {
            Err(_) => Err(self.unconnected()),
            Ok(Err(error)) => Err(self.io(&error)),
            Ok(Ok(stream)) => {
                // Without this a second small write would wait for the first one's acknowledgement.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
        }
    }
}

/// The monotonic time deadlines are measured on.
pub fn now() -> Instant {
    Instant::now()
}

/// Sends one CGMiner API request and reads its reply, without the closing NUL.
///
/// This is the way of nearly every reading, so it has one deadline for all, takes memory for a reply
/// only when one is there, and sets nothing on the socket: with one write there is none to be delayed.
pub async fn ask(call: &Call, request: &[u8]) -> Result<Vec<u8>, DeviceError> {
    let mut reply = Vec::new();
    let mut connected = false;
    let exchange = async {
        let mut stream = TcpStream::connect(call.address).await.map_err(|error| call.io(&error))?;
        connected = true;
        stream.write_all(request).await.map_err(|error| call.io(&error))?;
        stream.readable().await.map_err(|error| call.io(&error))?;
        reply.reserve(FIRST_READ);
        loop {
            let from = reply.len();
            match stream.read_buf(&mut reply).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // A device that resets after its reply has answered all the same.
                Err(_) if !reply.is_empty() => return Ok(()),
                Err(error) => return Err(call.io(&error)),
            }
            if let Some(nul) = memchr::memchr(0, reply.get(from..).unwrap_or_default()) {
                reply.truncate(from + nul);
                return Ok(());
            }
            if reply.len() > call.max_reply {
                return Err(DeviceError::TooLarge { address: call.name(), limit: call.max_reply });
            }
        }
    };
    let ended = tokio::time::timeout_at(call.until, exchange).await;
    if !reply.is_empty() {
        crate::listen::tell_tcp(call.address.port(), request, &reply);
    }
    match ended {
        Err(_) if !connected => Err(call.unconnected()),
        Err(_) => Err(call.deadline(!reply.is_empty())),
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => {
            // Replies wait for others of their device, and most of those are short.
            if reply.len() < reply.capacity() / 2 {
                reply.shrink_to_fit();
            }
            looks_like_an_api(call, reply)
        }
    }
}

/// Tells an API's reply from what else may listen on the port.
fn looks_like_an_api(call: &Call, reply: Vec<u8>) -> Result<Vec<u8>, DeviceError> {
    let head = reply.trim_ascii_start();
    match head.first() {
        None => Err(DeviceError::Empty { address: call.name() }),
        Some(b'{' | b'[') => Ok(reply),
        _ if crate::text::is_text_reply(head) || head.starts_with(b"RESTART") || head.starts_with(b"BYE") => {
            Ok(reply)
        }
        _ if head.starts_with(b"HTTP/") || head.starts_with(b"<") => {
            Err(DeviceError::HttpInstead { address: call.name() })
        }
        _ => {
            let shown: String = String::from_utf8_lossy(head.get(..head.len().min(24)).unwrap_or(head))
                .chars()
                .map(|c| if c.is_control() { '·' } else { c })
                .collect();
            Err(DeviceError::Garbage { address: call.name(), found: format!("\"{shown}\"") })
        }
    }
}

/// Sends one request of Whatsminer's API 3 and reads its reply: both are a little-endian length of
/// four bytes, then JSON.
pub async fn ask_v3(call: &Call, request: &[u8]) -> Result<Vec<u8>, DeviceError> {
    let mut stream = call.connect().await?;
    let mut heard = false;
    let exchange = async {
        let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
        let mut message = length.to_le_bytes().to_vec();
        message.extend_from_slice(request);
        stream.write_all(&message).await.map_err(|error| call.io(&error))?;
        let mut head = [0; 4];
        stream.read_exact(&mut head).await.map_err(|_| DeviceError::Empty { address: call.name() })?;
        heard = true;
        let length = u32::from_le_bytes(head) as usize;
        if length > call.max_reply {
            return Err(DeviceError::TooLarge { address: call.name(), limit: call.max_reply });
        }
        let mut reply = Vec::new();
        let mut rest = (&mut stream).take(length as u64);
        rest.read_to_end(&mut reply).await.map_err(|error| call.io(&error))?;
        crate::listen::tell_tcp(call.address.port(), request, &reply);
        Ok(reply)
    };
    let ended = tokio::time::timeout_at(call.until, exchange).await;
    drop(stream);
    match ended {
        Err(_) => Err(call.deadline(heard)),
        Ok(ended) => ended.and_then(|reply| looks_like_an_api(call, reply)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;
    use tokio::net::TcpListener;

    async fn serve(pieces: Vec<&'static [u8]>, linger: Duration) -> Call {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            for piece in pieces {
                let _ = stream.write_all(piece).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(linger).await;
        });
        let started = now();
        Call { address, started, until: started + Duration::from_millis(300), max_reply: 64 }
    }

    const NOW: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(5);

    async fn check(pieces: Vec<&'static [u8]>, linger: Duration) -> Result<String, DeviceError> {
        let call = serve(pieces, linger).await;
        ask(&call, b"{}").await.map(|reply| String::from_utf8_lossy(&reply).into_owned())
    }

    #[tokio::test]
    async fn a_reply_ends_at_its_nul_or_with_the_connection() {
        assert_eq!(check(vec![b"{\"a\":", b"1}\0"], LONG).await.unwrap(), "{\"a\":1}");
        assert_eq!(check(vec![b"{\"a\":1}"], NOW).await.unwrap(), "{\"a\":1}");
        assert_eq!(check(vec![b"{\"a\":1}\0rest"], LONG).await.unwrap(), "{\"a\":1}");
        assert_eq!(check(vec![b"STATUS=S,When=1|\0"], LONG).await.unwrap(), "STATUS=S,When=1|");
    }

    #[tokio::test]
    async fn what_is_no_reply_says_so() {
        assert!(matches!(check(vec![], NOW).await, Err(DeviceError::Empty { .. })));
        assert!(matches!(check(vec![], LONG).await, Err(DeviceError::Silent { .. })));
        assert!(matches!(check(vec![b"{\"a\":1"], LONG).await, Err(DeviceError::Deadline { .. })));
        assert!(matches!(
            check(vec![b"HTTP/1.1 200 OK\r\n"], NOW).await,
            Err(DeviceError::HttpInstead { .. })
        ));
        assert!(matches!(check(vec![b"SSH-2.0-x"], NOW).await, Err(DeviceError::Garbage { .. })));
        assert!(matches!(check(vec![&[b'{'; 200]], LONG).await, Err(DeviceError::TooLarge { .. })));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let call = Call { address, started: now(), until: now() + LONG, max_reply: 64 };
        assert!(matches!(ask(&call, b"{}").await, Err(DeviceError::Refused { .. })));
    }
}
