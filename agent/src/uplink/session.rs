//! One connection, from its first word to its end.

use super::downlink::{self, Word};
use super::relay::LinkError;
use super::sender::Window;
use super::wire::{Connect, Incoming, Wire};
use super::{Uplink, Watched};
use crate::store::{Journal, Kept, Outbox, StoreError, Taken, Verdict};
use crate::trust::NotTaken;
use hashinsight_protocol::clock::{ClockStateV1, MomentV1};
use hashinsight_protocol::envelope::{Body, FORMAT};
use hashinsight_protocol::events::{AlarmKindV1, AlarmV1, EventV1};
use hashinsight_protocol::ids::Epoch;
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::order::{CommandV1, OrderV1};
use hashinsight_protocol::plan::PlanV1;
use hashinsight_protocol::presence::{
    AckV1, GoodbyeV1, HeldV1, HelloV1, StreamStateV1, UnderstandsV1, WelcomeV1, WillV1,
};
use hashinsight_protocol::topics::{Stream, Topic, down_filter};
use hashinsight_protocol::units::{BootMillis, DurationMs};
use std::ops::RangeInclusive;
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;

/// From TLS to the broker's acknowledged subscription.
const SUBSCRIBE: Duration = Duration::from_secs(40);
/// A hello without an answer is repeated; the control plane may just be starting.
const HELLO: Duration = Duration::from_secs(5);
const WELCOME: Duration = Duration::from_secs(30);
/// The broker takes each message within this, or the client is stuck.
const STALLED: Duration = Duration::from_secs(45);
/// With batches on the wire and not one acknowledged for so long, a new hello asks what is held.
const UNANSWERED: Duration = Duration::from_secs(600);
const GOODBYE: Duration = Duration::from_secs(2);
/// How long a welcome's word that somebody watches holds.
const WATCHED: DurationMs = DurationMs::from_minutes(5);
const LONGEST_WATCH: DurationMs = DurationMs::from_minutes(60);
/// Refused messages are audited this often at most.
const TELL_EVERY: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The agent stops.
    Stopped,
    /// A stream has a new epoch, which the next hello tells.
    Again,
}

#[derive(Debug, Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Down(String),
    #[error("the broker does not answer")]
    Silent,
    #[error("the broker takes no more messages")]
    Stalled,
    #[error("the control plane does not answer")]
    NoWelcome,
    #[error("the control plane has stopped to acknowledge")]
    Unanswered,
}

impl SessionError {
    /// Whether certificates may be the reason: TLS says so on either side.
    pub fn is_about_trust(&self) -> bool {
        match self {
            Self::Link(LinkError::Tls(_)) => true,
            // In TLS 1.3 the client learns of its refusal after the handshake.
            Self::Down(why) => why.contains("alert") || why.contains("certificate"),
            _ => false,
        }
    }
}

/// Where a stream is kept.
enum Source {
    Outbox(Outbox),
    Journal(Journal, Stream),
}

impl Source {
    fn stream(&self) -> Stream {
        match self {
            Self::Outbox(_) => Stream::Telemetry,
            Self::Journal(_, stream) => *stream,
        }
    }

    async fn state(&self) -> Result<StreamStateV1, StoreError> {
        match self {
            Self::Outbox(outbox) => outbox.state().await,
            Self::Journal(journal, stream) => journal.state(*stream).await,
        }
    }

    async fn pending(&self, of: RangeInclusive<u64>, limit: usize) -> Result<Vec<Kept>, StoreError> {
        let (after, until) = (of.start().saturating_sub(1), *of.end());
        match self {
            Self::Outbox(outbox) => outbox.pending(after, until, limit).await,
            Self::Journal(journal, stream) => journal.pending(*stream, after, until, limit).await,
        }
    }

    async fn acked(&self, epoch: Epoch, ranges: Vec<(u64, u64)>, at: MomentV1) -> Result<Epoch, StoreError> {
        match self {
            Self::Outbox(outbox) => outbox.acked(epoch, ranges, at).await,
            Self::Journal(journal, stream) => journal.acked(*stream, epoch, ranges).await,
        }
    }
}

/// A stream during this connection.
struct Flow {
    source: Source,
    state: StreamStateV1,
    window: Window,
}

struct Session<'a, W> {
    uplink: &'a Uplink,
    wire: W,
    number: u64,
    /// The journal's, for words that are not kept.
    epoch: Epoch,
    flows: Vec<Flow>,
    hello_at: BootMillis,
    /// What the last hello said of the clock.
    told_clock: ClockStateV1,
    welcomed: bool,
    /// The wire took no more.
    busy: bool,
    /// Messages that the broker has not taken, and when it last took one.
    not_moved: u32,
    moved: Instant,
    acked: Instant,
}

/// Runs one connection to its end.
pub(crate) async fn run<C: Connect>(
    uplink: &Uplink,
    connector: &C,
    welcomed: &mut bool,
) -> Result<End, SessionError> {
    let number = uplink.journal.next_session().await?;
    let epoch = uplink.journal.state(Stream::Events).await?.epoch;
    let will = WillV1 { session: number }.encode().map_err(StoreError::from)?;
    let will = uplink.sealer.seal(epoch, Stream::Presence, 0, &will).map_err(StoreError::from)?;
    let connect = uplink.stop.run_until_cancelled(connector.connect(will));
    let Some(wire) = connect.await else { return Ok(End::Stopped) };
    let now = Instant::now();
    let mut session = Session {
        uplink,
        wire: wire?,
        number,
        epoch,
        flows: Vec::new(),
        hello_at: BootMillis(0),
        told_clock: ClockStateV1::Uncertain,
        welcomed: false,
        busy: false,
        not_moved: 0,
        moved: now,
        acked: now,
    };
    let subscribed = tokio::time::timeout(SUBSCRIBE, session.subscribe());
    match uplink.stop.run_until_cancelled(subscribed).await {
        Some(outcome) => outcome.map_err(|_| SessionError::Silent)??,
        None => return Ok(End::Stopped),
    }
    let outcome = session.talk().await;
    *welcomed = session.welcomed;
    outcome
}

impl<W: Wire> Session<'_, W> {
    /// Waits for the broker, and subscribes anew: nothing of an earlier connection is relied upon.
    async fn subscribe(&mut self) -> Result<(), SessionError> {
        loop {
            match self.wire.next().await {
                Incoming::Connected => _ = self.wire.subscribe(down_filter(self.uplink.agent)),
                Incoming::Subscribed => return Ok(()),
                Incoming::Down(why) => return Err(SessionError::Down(why)),
                Incoming::Message { .. } | Incoming::Moved => {}
            }
        }
    }

    async fn talk(&mut self) -> Result<End, SessionError> {
        let uplink = self.uplink;
        let mut outbox = uplink.outbox.changed();
        let mut journal = uplink.journal.streams_changed();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let begun = Instant::now();
        (self.moved, self.acked) = (begun, begun);
        let mut hello_due = begun;
        loop {
            // A message that the broker has taken is no reason to look for more, unless it was busy.
            let mut look = true;
            tokio::select! {
                biased;
                () = uplink.stop.cancelled() => {
                    self.leave().await;
                    return Ok(End::Stopped);
                }
                incoming = self.wire.next() => {
                    look = self.busy || incoming != Incoming::Moved;
                    if let Some(end) = self.hear(incoming).await? {
                        return Ok(end);
                    }
                }
                _ = tick.tick() => {
                    let now = Instant::now();
                    self.check(now)?;
                    if !self.welcomed {
                        if now.duration_since(begun) > WELCOME {
                            return Err(SessionError::NoWelcome);
                        }
                        if now >= hello_due {
                            hello_due = now + HELLO;
                            self.hello().await?;
                        }
                    }
                },
                Ok(()) = outbox.changed() => {}
                Ok(()) = journal.changed() => {}
            }
            if self.welcomed && look {
                self.busy = !self.send().await?;
            }
        }
    }

    fn check(&self, now: Instant) -> Result<(), SessionError> {
        if self.not_moved > 0 && now.duration_since(self.moved) > STALLED {
            return Err(SessionError::Stalled);
        }
        let waiting = self.flows.iter().any(|flow| flow.window.in_flight() > 0);
        if waiting && now.duration_since(self.acked) > UNANSWERED {
            return Err(SessionError::Unanswered);
        }
        Ok(())
    }

    fn publish(&mut self, stream: Stream, payload: Vec<u8>) -> bool {
        if self.not_moved == 0 {
            self.moved = Instant::now();
        }
        let taken = self.wire.publish(Topic::Up(self.uplink.agent, stream), payload);
        self.not_moved += u32::from(taken);
        taken
    }

    fn say(&mut self, body: &[u8]) -> Result<bool, SessionError> {
        let sealed = self.uplink.sealer.seal(self.epoch, Stream::Presence, 0, body);
        Ok(self.publish(Stream::Presence, sealed.map_err(StoreError::from)?))
    }

    /// Says who this is and what is kept.
    async fn hello(&mut self) -> Result<(), SessionError> {
        let uplink = self.uplink;
        // What people and plans wait for goes before readings.
        let journal = |stream| Source::Journal(uplink.journal.clone(), stream);
        let sources = [Stream::Evidence, Stream::Events, Stream::Audit].map(journal);
        let sources = sources.into_iter().chain([Source::Outbox(uplink.outbox.clone())]);
        self.flows.clear();
        for source in sources {
            let state = source.state().await?;
            // Only readings have a present that is worth more than the past.
            let present = if source.stream() == Stream::Telemetry { state.next } else { 1 };
            self.flows.push(Flow { source, state, window: Window::new(present) });
        }
        self.introduce().await
    }

    /// Says who this is, what is kept, and what the time is; streams go on where they are.
    async fn introduce(&mut self) -> Result<(), SessionError> {
        let uplink = self.uplink;
        let mut streams = Vec::with_capacity(self.flows.len());
        for flow in &self.flows {
            streams.push(flow.source.state().await?);
        }
        let clock = uplink.clock.now();
        self.hello_at = clock.boot;
        self.told_clock = clock.state;
        let hello = HelloV1 {
            session: self.number,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            understands: UnderstandsV1 { envelope: FORMAT, plan: PlanV1::TAG, order: OrderV1::TAG },
            clock,
            streams,
            document: uplink.journal.document().await?,
        };
        let body = hello.encode().map_err(StoreError::from)?;
        self.say(&body).map(|_| ())
    }

    async fn leave(&mut self) {
        if let Ok(body) = (GoodbyeV1 { session: self.number }).encode() {
            let _ = self.say(&body);
        }
        let moved = async {
            while self.not_moved > 0 {
                match self.wire.next().await {
                    Incoming::Moved => self.not_moved -= 1,
                    Incoming::Down(_) => return,
                    _ => {}
                }
            }
        };
        let _ = tokio::time::timeout(GOODBYE, moved).await;
        self.wire.leave();
        // The client ends by itself once the packet is out.
        let gone = async { while !matches!(self.wire.next().await, Incoming::Down(_)) {} };
        let _ = tokio::time::timeout(GOODBYE, gone).await;
    }

    async fn hear(&mut self, incoming: Incoming) -> Result<Option<End>, SessionError> {
        let (topic, payload) = match incoming {
            Incoming::Down(why) => return Err(SessionError::Down(why)),
            Incoming::Moved => {
                self.not_moved = self.not_moved.saturating_sub(1);
                self.moved = Instant::now();
                return Ok(None);
            }
            Incoming::Message { topic, payload } => (topic, payload),
            Incoming::Connected | Incoming::Subscribed => return Ok(None),
        };
        match downlink::open(self.uplink.agent, &self.uplink.trust.keys(), &topic, &payload) {
            Ok(Word::Ack(ack)) => return self.ack(ack).await,
            Ok(Word::Welcome(welcome)) => return self.welcome(welcome).await,
            Ok(Word::Desired(document)) => {
                let (version, now) = (document.version, self.uplink.clock.now());
                match self.uplink.journal.store_document(document, now).await {
                    Ok(Verdict::Stored) => tracing::info!(version, "a desired document is stored"),
                    Ok(Verdict::NotNewer) => tracing::debug!(version, "a document that is not newer"),
                    // It isn't reported as held, so it is sent again.
                    Err(error) => tracing::error!(%error, version, "a document could not be stored"),
                }
            }
            Ok(Word::Order(order)) => self.order(order).await,
            Ok(Word::Held(held)) => {
                let count = held.miners.len();
                // It is sent again until the miners are reported from this journal.
                if self.uplink.held_before.try_send(held).is_ok() {
                    tracing::warn!(count, "the control plane knows of miners that an earlier journal held");
                }
            }
            Ok(Word::Keys(signed)) => match self.uplink.trust.learn(&signed) {
                Ok(false) => {}
                Ok(true) => tracing::info!(version = self.uplink.trust.version(), "a trust list is taken"),
                Err(NotTaken::Files(error)) => tracing::error!(%error, "a trust list could not be stored"),
                Err(NotTaken::Trust(error)) => self.refuse(&topic, &error).await,
            },
            Err(refusal) => self.refuse(&topic, &refusal).await,
        }
        Ok(None)
    }

    /// Counts what can't be the control plane's word, and now and then writes it to the audit stream: somebody
    /// speaks in its name.
    async fn refuse(&self, topic: &str, why: &impl std::fmt::Display) {
        let count = {
            // Whole at every moment, so a poisoned lock is as good as any.
            let mut refused = self.uplink.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            refused.count += 1;
            let now = Instant::now();
            if refused.told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
                return;
            }
            refused.told = Some(now);
            refused.count
        };
        tracing::warn!(topic, %why, count, "messages from the broker are refused");
        let text = bounded_text(&format!(
            "{count} messages from the broker were refused; the last on {topic}: {why}"
        ));
        let alarm = EventV1::Alarm(AlarmV1 { kind: AlarmKindV1::Downlink, miner: None, text });
        let at = self.uplink.clock.now();
        if let Err(error) = self.uplink.journal.record(Stream::Audit, at, vec![alarm]).await {
            tracing::error!(%error, "a refusal could not be audited");
        }
    }

    async fn welcome(&mut self, welcome: WelcomeV1) -> Result<Option<End>, SessionError> {
        if welcome.session != self.number {
            return Ok(None);
        }
        let uplink = self.uplink;
        if let Some(ahead) = uplink.clock.measured(self.hello_at, welcome.received) {
            tracing::debug!(ahead, "milliseconds that this clock is ahead of the control plane's");
        }
        let now = uplink.clock.now();
        if now.state.is_sure() {
            uplink.journal.remember_good(now.wall).await?;
        }
        uplink.journal.contact(now).await?;
        let mut renewed = false;
        for HeldV1 { stream, epoch, up_to } in welcome.held {
            if up_to > 0 {
                renewed |= self.delete(stream, epoch, vec![(1, up_to)], now).await?;
            }
        }
        if renewed {
            return Ok(Some(End::Again));
        }
        if welcome.watched {
            self.watch((uplink.watched_cycle_s, now.wall.plus(WATCHED)));
        }
        if !self.welcomed {
            tracing::info!(session = self.number, "in contact with the control plane");
            let state = uplink.outbox.state().await?;
            if state.lowest < state.next {
                uplink.outbox.new_groups().await?;
            }
        }
        self.welcomed = true;
        self.acked = Instant::now();
        if now.state.is_sure() && !self.told_clock.is_sure() {
            // The answer has made the clock certain: what was said of it before is put right.
            self.introduce().await?;
        }
        Ok(None)
    }

    async fn ack(&mut self, ack: AckV1) -> Result<Option<End>, SessionError> {
        let now = self.uplink.clock.now();
        let renewed = self.delete(ack.stream, ack.epoch, ack.ranges, now).await?;
        Ok(renewed.then_some(End::Again))
    }

    /// Deletes what is stored for good. Says whether the stream has a new epoch since.
    async fn delete(
        &mut self,
        stream: u8,
        epoch: Epoch,
        ranges: Vec<(u64, u64)>,
        now: MomentV1,
    ) -> Result<bool, SessionError> {
        let flow = self.flows.iter_mut().find(|flow| flow.source.stream().number() == stream);
        // Another epoch's numbers say nothing of this file's.
        let Some(flow) = flow.filter(|flow| flow.state.epoch == epoch) else { return Ok(false) };
        if flow.window.acked(&ranges) {
            self.acked = Instant::now();
        }
        Ok(flow.source.acked(epoch, ranges, now).await? != epoch)
    }

    async fn order(&mut self, order: OrderV1) {
        let now = self.uplink.clock.now();
        if let CommandV1::Watch { cycle_s, until } = order.command {
            if now.wall <= order.expires {
                let until = until.min(now.wall.plus(LONGEST_WATCH));
                self.watch((cycle_s.max(1), until));
            }
            return;
        }
        let id = order.id;
        match self.uplink.journal.take_order(order, now).await {
            Ok(Taken { repeat: true, .. }) => tracing::debug!(%id, "an order again"),
            Ok(Taken { taken: true, .. }) => tracing::info!(%id, "an order is taken"),
            Ok(Taken { reason, .. }) => tracing::warn!(%id, reason, "an order is refused"),
            // It has no result, so it is sent again.
            Err(error) => tracing::error!(%id, %error, "an order could not be stored"),
        }
    }

    fn watch(&self, watched: Watched) {
        self.uplink.watched.send_if_modified(|held| held.replace(watched) != Some(watched));
    }

    /// Fills the windows. `false` when the wire is busy: the next tick or answer tries again.
    async fn send(&mut self) -> Result<bool, SessionError> {
        for index in 0..self.flows.len() {
            if !(self.send_again(index).await? && self.send_new(index).await?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends what is overdue again. `false` when the wire is busy.
    async fn send_again(&mut self, index: usize) -> Result<bool, SessionError> {
        let now = Instant::now();
        for seq in self.flows[index].window.due(now) {
            let flow = &mut self.flows[index];
            let stream = flow.source.stream();
            let Some(kept) = flow.source.pending(seq..=seq, 1).await?.pop() else {
                flow.window.gone(seq);
                continue;
            };
            if !self.publish(stream, kept.envelope) {
                return Ok(false);
            }
            tracing::debug!(stream = stream.name(), seq, "sent again");
            self.flows[index].window.sent_again(seq, now);
        }
        Ok(true)
    }

    /// Sends what has not been sent. `false` when the wire is busy.
    async fn send_new(&mut self, index: usize) -> Result<bool, SessionError> {
        for which in 0..2 {
            let flow = &self.flows[index];
            let (room, range) = (flow.window.room(), flow.window.next()[which].clone());
            let stream = flow.source.stream();
            if room == 0 || range.is_empty() {
                continue;
            }
            for kept in flow.source.pending(range, room).await? {
                if !self.publish(stream, kept.envelope) {
                    return Ok(false);
                }
                self.flows[index].window.sent(kept.seq, Instant::now());
            }
        }
        Ok(true)
    }
}
