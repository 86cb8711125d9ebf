//! How many agents connect in a second, what an idle one costs in memory, and how many messages pass.
//!
//! `cargo run --example throughput [agents] [messages]`. The broker runs in a process of its own, which
//! answers every message with an acknowledgement of 64 bytes, as the control plane does.
#![allow(clippy::unwrap_used, reason = "a tool that stops at the first surprise")]

#[path = "../tests/door/common.rs"]
mod common;

use bytes::Bytes;
use common::{Ca, Client, agent, connect_packet, publish_packet};
use hashinsight_broker::{Admission, Broker, CertificateId, DoorLimits, Gate, Settings, server_tls};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::topics::{Down, Stream, Topic, down_filter};
use rcgen::DnType;
use rustls::ClientConfig;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

struct Everyone;

impl Gate for Everyone {
    fn admit(&self, _: AgentId, _: &CertificateId) -> Admission {
        Admission::Admit
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match arguments.first().map(String::as_str) {
        Some("--serve") => runtime.block_on(serve(Path::new(&arguments[1]))),
        _ => {
            let number = |at: usize, default| {
                arguments.get(at).map_or(default, |text| text.parse().expect("a number"))
            };
            runtime.block_on(measure(number(0, 1000), number(1, 100_000)));
        }
    }
}

/// The broker's process: an address first, then a line of figures for each line that comes in.
async fn serve(folder: &Path) {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let key = read("key").try_into().unwrap();
    let tls = server_tls(&[read("ca").into()], vec![read("certificate").into()], key).unwrap();
    let limits = DoorLimits {
        up_messages_per_second: 10_000_000,
        up_bytes_per_second: u32::MAX,
        ..DoorLimits::default()
    };
    let settings = Settings { listen: SocketAddr::from(([127, 0, 0, 1], 0)), limits };
    let (broker, mut up) = Broker::start(settings, tls, Arc::new(Everyone)).await.unwrap();
    println!("{}", broker.local_addr());
    let answering = broker.clone();
    tokio::spawn(async move {
        while let Some(message) = up.recv().await {
            // An agent whose queue is full would get the next acknowledgement.
            let _ = answering.try_send(message.agent, Down::Ack, Bytes::from_static(&[0; 64]));
        }
    });
    let lines = tokio::task::spawn_blocking(move || {
        for _ in std::io::stdin().lock().lines() {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
            let counters = broker.counters();
            let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            println!("{kilobytes} {} {}", counters.up_messages, counters.down_messages);
        }
    });
    lines.await.unwrap();
}

struct Served {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Served {
    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// Resident kB, messages up, messages down.
    fn figures(&mut self) -> [u64; 3] {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
        let line = self.line();
        let mut numbers = line.split_whitespace().map(|n| n.parse().unwrap());
        [(); 3].map(|()| numbers.next().unwrap())
    }

    async fn until_up(&mut self, messages: u64) {
        while self.figures()[1] < messages {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

async fn come_in(address: SocketAddr, me: AgentId, tls: Arc<ClientConfig>) -> (AgentId, Client) {
    let mut client = Client::open(address, tls).await.unwrap();
    client.connect(&connect_packet(&me.to_string(), 600, None)).await;
    client.subscribe(&[&down_filter(me)]).await;
    (me, client)
}

async fn measure(agents: usize, messages: usize) {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let server = ca.issue(&[(DnType::CommonName, "localhost")], |_| {});
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("ca", &ca.der());
    write("certificate", &server.chain[0]);
    write("key", server.key.secret_der());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.arg("--serve").arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut served = Served { child, lines };
    let address: SocketAddr = served.line().parse().unwrap();

    let ids = (0..agents).map(|n| {
        let mut id = *agent(0).as_bytes();
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        AgentId::from_bytes(id)
    });
    let identities: Vec<_> = ids.map(|id| (id, ca.client(Some(&ca.agent(id))))).collect();
    let [empty, ..] = served.figures();

    let begun = Instant::now();
    let mut coming = tokio::task::JoinSet::new();
    for (id, tls) in identities {
        coming.spawn(come_in(address, id, tls));
    }
    let mut clients = coming.join_all().await;
    let took = begun.elapsed();
    let [full, ..] = served.figures();
    println!(
        "{agents} agents at once: {took:.2?}, {:.0} connections/s (clients on the same cores)",
        agents as f64 / took.as_secs_f64()
    );
    println!(
        "memory: {empty} kB without agents, {:.1} kB for each idle one",
        (full - empty) as f64 / agents as f64
    );

    let mut before = 0;
    for (senders, bytes) in [(1, 256), (1, 16_384), (10, 256), (10, 16_384), (agents.min(100), 256)] {
        let senders = senders.min(agents);
        let each = messages / senders / if bytes > 1000 { 10 } else { 1 };
        let begun = Instant::now();
        let mut sending = tokio::task::JoinSet::new();
        for (me, client) in clients.drain(..senders) {
            sending.spawn(send(me, client, each, bytes));
        }
        let back = sending.join_all().await;
        before += (each * senders) as u64;
        served.until_up(before).await;
        let rate = (each * senders) as f64 / begun.elapsed().as_secs_f64();
        println!("{senders} agents, {bytes} B: {rate:.0} messages/s up, each acknowledged");
        clients.splice(0..0, back);
    }
    println!("downward acknowledgements written: {}", served.figures()[2]);
    served.child.kill().unwrap();
}

/// Publishes at QoS 1 and acknowledges what comes, until all is acknowledged.
async fn send(me: AgentId, client: Client, count: usize, bytes: usize) -> (AgentId, Client) {
    let Client { tls, buffer } = client;
    let (reader, mut writer) = tokio::io::split(tls);
    let topic = Topic::Up(me, Stream::Telemetry).to_string();
    let (acks, mut to_ack) = tokio::sync::mpsc::channel::<u16>(1000);
    let window = Arc::new(tokio::sync::Semaphore::new(64));
    let room = window.clone();
    let writing = tokio::spawn(async move {
        let payload = vec![7; bytes];
        for n in 0..count {
            room.acquire().await.unwrap().forget();
            let packet = publish_packet(0x32, &topic, Some((n % 60_000) as u16 + 1), &payload);
            writer.write_all(&packet).await.unwrap();
            while let Ok(id) = to_ack.try_recv() {
                writer.write_all(&[0x40, 2, (id >> 8) as u8, id as u8]).await.unwrap();
            }
            if n % 16 == 15 || n + 1 == count {
                writer.flush().await.unwrap();
            }
        }
        writer.flush().await.unwrap();
        (writer, to_ack)
    });
    let mut halves = Halves { reader, buffer };
    let mut acked = 0;
    while acked < count {
        match halves.next().await {
            rumqttd::protocol::Packet::PubAck(..) => {
                acked += 1;
                window.add_permits(1);
            }
            rumqttd::protocol::Packet::Publish(publish, _) => {
                let raw = publish.serialize();
                let _ = acks.try_send(u16::from_be_bytes([raw[1], raw[2]]));
            }
            other => panic!("{other:?}"),
        }
    }
    let (mut writer, mut to_ack) = writing.await.unwrap();
    while let Ok(id) = to_ack.try_recv() {
        writer.write_all(&[0x40, 2, (id >> 8) as u8, id as u8]).await.unwrap();
    }
    writer.flush().await.unwrap();
    (me, Client { tls: halves.reader.unsplit(writer), buffer: halves.buffer })
}

struct Halves {
    reader: tokio::io::ReadHalf<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
    buffer: bytes::BytesMut,
}

impl Halves {
    async fn next(&mut self) -> rumqttd::protocol::Packet {
        use rumqttd::protocol::Protocol;
        loop {
            if let Ok(packet) = rumqttd::protocol::v4::V4.read_mut(&mut self.buffer, 2 << 20) {
                return packet;
            }
            let read = tokio::io::AsyncReadExt::read_buf(&mut self.reader, &mut self.buffer).await.unwrap();
            assert!(read > 0, "closed");
        }
    }
}
