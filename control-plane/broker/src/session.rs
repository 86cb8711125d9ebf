//! The life of an admitted connection: reading, writing and the way of messages into the router go on
//! side by side, and the first that ends ends them all.

use crate::agents::{Outbox, Ticket};
use crate::broker::Shared;
use crate::bucket::Bucket;
use crate::counters::{Present, Refusal, add, one};
use crate::door::Admitted;
use crate::frames::{Broken, Frames};
use crate::packets::{self, Packet};
use crate::router::{Delivery, Link, LinkSender};
use crate::rules;
use bytes::BytesMut;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::topics::Topic;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;
use tracing::{debug, info};

/// Answers that wait to be written; when they are full, reading waits.
const ANSWERS: usize = 32;
/// So many bytes are gathered before they are written.
const GATHER_BYTES: usize = 16 * 1024;
/// An idle connection keeps no larger buffer than this.
const IDLE_BYTES: usize = 32 * 1024;

/// Why a session ended.
#[derive(Debug)]
enum End {
    /// By DISCONNECT, which alone forgets the will.
    Said,
    Closed,
    Refused(Refusal, String),
    /// A newer connection of the same agent, or a cut.
    Over,
    /// The router died.
    Router,
    /// The door closes.
    Stop,
}

/// What the reading side has to say to the agent.
enum Answer {
    PubAck(u16),
    SubAck(u16, Vec<u8>),
    Pong,
}

pub(crate) async fn run(shared: &Shared, admitted: Admitted, tls: TlsStream<TcpStream>, frames: Frames) {
    let Admitted { agent, peer, silence, will, ticket, mut link, seat } = admitted;
    let end = tokio::select! {
        end = live(shared, agent, peer, tls, frames, silence, &ticket, &mut link) => end,
        () = ticket.over() => End::Over,
        () = shared.stop.cancelled() => End::Stop,
    };
    // The connection is closed by now; nothing below delays that.
    info!(%agent, %peer, ?end, "agent disconnected");
    if let End::Refused(why, detail) = &end {
        shared.ledger.refuse(*why, peer, Some(agent), detail);
    }
    if let (Some(will), false) = (will, matches!(end, End::Said | End::Stop)) {
        shared.publish_will(agent, will).await;
    }
    // After the will: a newer connection of this agent waits for the link.
    drop((link, seat));
}

#[expect(clippy::too_many_arguments, reason = "all that a session stands on, taken apart by its only caller")]
async fn live(
    shared: &Shared,
    agent: AgentId,
    peer: SocketAddr,
    tls: TlsStream<TcpStream>,
    frames: Frames,
    silence: Duration,
    ticket: &Ticket,
    link: &mut Link,
) -> End {
    let (reader, mut writer) = tokio::io::split(tls);
    let mut hello = BytesMut::new();
    packets::put_connack(&mut hello, 0);
    // Written before the agent counts as connected, so that no message comes before it.
    if let Err(end) = write(&mut writer, &hello, shared.limits.write_deadline).await {
        return end;
    }
    let Some(open) = ticket.open(agent, &shared.limits) else { return End::Over };
    one(&shared.ledger.admitted);
    let _connected = Present::new(&shared.ledger.connected);
    info!(%agent, %peer, "agent connected");
    let sender = link.sender();
    let (answers, to_say) = mpsc::channel(ANSWERS);
    let reading = Reading {
        shared,
        agent,
        peer,
        silence,
        sender: sender.clone(),
        outbox: open.outbox.clone(),
        answers,
    };
    tokio::select! {
        end = reading.run(reader, frames) => end,
        end = speak(shared, writer, link, &open.outbox, to_say) => end,
        end = feed(agent, &sender, &open.outbox) => end,
    }
}

/// The reading side.
struct Reading<'a> {
    shared: &'a Shared,
    agent: AgentId,
    peer: SocketAddr,
    silence: Duration,
    sender: LinkSender,
    outbox: Arc<Outbox>,
    answers: mpsc::Sender<Answer>,
}

impl Reading<'_> {
    async fn run(self, mut reader: ReadHalf<TlsStream<TcpStream>>, mut frames: Frames) -> End {
        let limits = &self.shared.limits;
        let now = Instant::now();
        let bucket = |per_second: u32| Bucket::new(2.0 * f64::from(per_second), per_second.into(), now);
        let mut messages = bucket(limits.up_messages_per_second.max(1));
        let mut bytes = bucket(limits.up_bytes_per_second.max(1));
        loop {
            // Only whole packets count as signs of life, so bytes that trickle in don't.
            let packet = match timeout(self.silence, frames.next(&mut reader)).await {
                Ok(Ok(packet)) => packet,
                Ok(Err(Broken::Closed)) => return End::Closed,
                Ok(Err(Broken::Refused(why))) => return End::Refused(why, String::new()),
                Err(_) => return End::Refused(Refusal::KeepAlive, String::new()),
            };
            let payload = match &packet {
                Packet::Publish(publish) => Some(publish.payload.len()),
                _ => None,
            };
            if let Err(end) = self.take(packet).await {
                return end;
            }
            if let Some(payload) = payload {
                let now = Instant::now();
                let wait = messages.owe(1.0, now).max(bytes.owe(payload as f64, now));
                if !wait.is_zero() {
                    one(&self.shared.ledger.throttled);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn take(&self, packet: Packet) -> Result<(), End> {
        let agent = self.agent;
        match packet {
            Packet::Publish(publish) => {
                let stream = rules::publish(agent, &publish)
                    .map_err(|why| End::Refused(why, shown(&publish.topic)))?;
                self.sender.up(Topic::Up(agent, stream), publish.payload).await.map_err(|_| End::Router)?;
                if publish.qos == 1 {
                    self.answer(Answer::PubAck(publish.id)).await?;
                }
                Ok(())
            }
            Packet::PubAck(id) => {
                if self.outbox.downlink().acked(id) {
                    self.outbox.wake.notify_one();
                } else {
                    debug!(%agent, id, "acknowledged what was not sent");
                }
                Ok(())
            }
            Packet::Subscribe(subscribe) => {
                let (codes, granted) = rules::subscribe(agent, &subscribe);
                for ((filter, _), _) in
                    subscribe.filters.iter().zip(&codes).filter(|(_, code)| **code == packets::FILTER_REFUSED)
                {
                    self.shared.ledger.refuse(Refusal::Filter, self.peer, Some(agent), &shown(filter));
                }
                if let Some(qos) = granted {
                    self.sender.subscribe().await.map_err(|_| End::Router)?;
                    self.outbox.downlink().grant(qos);
                    self.outbox.wake.notify_one();
                }
                self.answer(Answer::SubAck(subscribe.id, codes)).await
            }
            Packet::PingReq => self.answer(Answer::Pong).await,
            Packet::Disconnect => Err(End::Said),
            Packet::Connect(_) => Err(End::Refused(Refusal::Unexpected, "a second CONNECT".to_owned())),
        }
    }

    async fn answer(&self, answer: Answer) -> Result<(), End> {
        self.answers.send(answer).await.map_err(|_| End::Closed)
    }
}

/// A peer's text, short enough for a log line.
fn shown(text: &str) -> String {
    text.chars().take(120).collect()
}

/// The way of queued messages into the router.
async fn feed(agent: AgentId, sender: &LinkSender, outbox: &Outbox) -> End {
    loop {
        let woken = outbox.wake.notified();
        loop {
            let Some((kind, payload)) = outbox.downlink().next() else { break };
            if sender.down(Topic::Down(agent, kind), payload).await.is_err() {
                return End::Router;
            }
        }
        woken.await;
    }
}

/// The writing side.
async fn speak(
    shared: &Shared,
    mut writer: WriteHalf<TlsStream<TcpStream>>,
    link: &mut Link,
    outbox: &Outbox,
    mut answers: mpsc::Receiver<Answer>,
) -> End {
    let mut out = BytesMut::new();
    let deliver = |delivery: Delivery, out: &mut BytesMut| {
        let id = outbox.downlink().writing(&delivery.payload);
        packets::put_publish(out, &delivery.topic, id, &delivery.payload);
        one(&shared.ledger.down_messages);
        add(&shared.ledger.down_bytes, delivery.payload.len());
        if id.is_none() {
            outbox.wake.notify_one();
        }
    };
    loop {
        tokio::select! {
            answer = answers.recv() => match answer {
                Some(answer) => answer.put(&mut out),
                None => return End::Closed,
            },
            delivery = link.recv() => match delivery {
                Some(delivery) => deliver(delivery, &mut out),
                None => return End::Router,
            },
        }
        while out.len() < GATHER_BYTES {
            if let Ok(answer) = answers.try_recv() {
                answer.put(&mut out);
            } else if let Some(delivery) = link.try_recv() {
                deliver(delivery, &mut out);
            } else {
                break;
            }
        }
        if let Err(end) = write(&mut writer, &out, shared.limits.write_deadline).await {
            return end;
        }
        out.clear();
        if out.capacity() > IDLE_BYTES {
            out = BytesMut::new();
        }
    }
}

impl Answer {
    fn put(self, out: &mut BytesMut) {
        match self {
            Self::PubAck(id) => packets::put_puback(out, id),
            Self::SubAck(id, codes) => packets::put_suback(out, id, &codes),
            Self::Pong => packets::put_pingresp(out),
        }
    }
}

/// Writes all; the deadline is for each step forward, so a slow line is not a dead one.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    deadline: Duration,
) -> Result<(), End> {
    let late = |_| End::Refused(Refusal::WriteDeadline, String::new());
    while !bytes.is_empty() {
        match timeout(deadline, writer.write(bytes)).await.map_err(late)? {
            Ok(0) | Err(_) => return Err(End::Closed),
            Ok(written) => bytes = &bytes[written..],
        }
    }
    timeout(deadline, writer.flush()).await.map_err(late)?.map_err(|_| End::Closed)
}
