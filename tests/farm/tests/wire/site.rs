//! A farm in this process, and how the tests talk to it.

use hashinsight_farm::{Clock, Config, DeviceState, Family, Farm, Running};
use hashinsight_protocol::units::Millis;
use serde_json::{Value, json};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

pub const START: Millis = Millis(1_800_000_000_000);

/// A farm on free ports, its clock moved by hand.
pub struct Site {
    pub farm: Running,
    pub clock: Clock,
    pub api: u16,
    pub web: u16,
    pub dir: tempfile::TempDir,
}

pub async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap().local_addr().unwrap().port()
}

pub async fn site(config: Config) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    // Another test may take a port between its choice and its use.
    for _ in 0..20 {
        let (api, web) = (free_port().await, free_port().await);
        let config = Config {
            api_port: api,
            web_port: web,
            log: Some(dir.path().join("farm.jsonl")),
            clock: clock.clone(),
            ..config.clone()
        };
        if let Ok(farm) = Farm::start(config).await {
            return Site { farm, clock, api, web, dir };
        }
    }
    panic!("no free ports");
}

pub async fn of(family: &str, miners: u32) -> Site {
    site(Config { miners, mix: family.parse().unwrap(), time_scale: 100.0, ..Config::default() }).await
}

impl Site {
    pub fn states(&self, family: Family) -> Vec<DeviceState> {
        self.farm.state().into_iter().filter(|d| d.family == family).collect()
    }

    pub fn state(&self, device: Ipv4Addr) -> DeviceState {
        self.farm.state().into_iter().find(|d| d.device == device).unwrap()
    }

    pub fn first(&self) -> Ipv4Addr {
        self.farm.state()[0].device
    }

    pub fn model(&self, name: &str) -> Ipv4Addr {
        self.farm.state().into_iter().find(|d| d.model == name).unwrap().device
    }

    pub async fn raw(&self, device: Ipv4Addr, request: &[u8]) -> io::Result<Vec<u8>> {
        exchange(SocketAddrV4::new(device, self.api), request).await
    }

    /// A JSON command; the reply without its NUL.
    pub async fn ask(&self, device: Ipv4Addr, command: &str, parameter: Option<&str>) -> Value {
        let request = match parameter {
            Some(p) => json!({"command": command, "parameter": p}),
            None => json!({"command": command}),
        };
        let reply = self.raw(device, request.to_string().as_bytes()).await.unwrap();
        let text = std::str::from_utf8(&reply).unwrap().strip_suffix('\0').unwrap();
        serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    pub async fn text(&self, device: Ipv4Addr, command: &str) -> String {
        let reply = self.raw(device, command.as_bytes()).await.unwrap();
        String::from_utf8(reply).unwrap().strip_suffix('\0').unwrap().to_owned()
    }

    pub fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Stops the farm and reads its log.
    pub async fn log(self) -> Vec<Value> {
        self.farm.stop().await;
        let text = std::fs::read_to_string(self.dir.path().join("farm.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }
}

pub async fn exchange(address: SocketAddrV4, request: &[u8]) -> io::Result<Vec<u8>> {
    let work = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await?;
        Ok(reply)
    };
    timeout(Duration::from_secs(10), work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The letter and code of a reply's status.
pub fn status(reply: &Value) -> (&str, i64) {
    let s = reply.get("STATUS").unwrap();
    let s = s.get(0).unwrap_or(s);
    let flat = reply.get("Code").and_then(Value::as_i64);
    match s.as_str() {
        Some(letter) => (letter, flat.unwrap()),
        None => (s["STATUS"].as_str().unwrap(), s["Code"].as_i64().unwrap()),
    }
}
