//! The executor: the loop around the engine.
//!
//! It takes a step when a plan or an order comes, when readings or answers of devices are there, and
//! when the engine has asked to be called. A step is: time, plans and live readings in; changes and
//! events durable in one transaction; then reads and writes of devices, side by side, each of which
//! comes back as an observation for the next step.
//!
//! - No write is sent before its step is durable, and none without the device having proven its
//!   identity in the same contact.
//! - A miner is visited or written to by one task at a time.
//! - When the journal can't be written, nothing new is stopped: the stops of a step are answered as
//!   not sent. Wake-ups go on from memory, and what they change is owed to the journal
//!   ([`backlog::Backlog`]) until it takes it. The journal raises the alarm itself.
//! - A start finds in the book what was under way; the engine is told of the restart and reads every
//!   device again before it writes.

pub mod backlog;
pub mod recovered;
pub mod watchlist;
pub mod wish;

use crate::poller::Field;
use crate::poller::burst::Visited;
use crate::poller::contact::News;
use crate::store::StoreError;
use backlog::Backlog;
use hashinsight_curtailment::{Book, Event, HeldPlan, Now, Observation, Policy, Step, Write, step};
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::device::{FactV1, PreStateV1};
use hashinsight_protocol::events::EventV1;
use hashinsight_protocol::evidence::TargetStateV1;
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::recovery::HeldMinersV1;
use hashinsight_protocol::topics::Stream;
use hashinsight_protocol::units::BootMillis;
use recovered::Recovered;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use watchlist::Watchlist;
use wish::Wish;

/// Writes under way at the same time.
const WRITES: usize = 64;
/// Visits that are begun together share a burst; from one such burst to the next at least this.
const VISITS_APART: Duration = Duration::from_millis(200);
/// Answers that arrive within this are taken in one step.
const GATHER: Duration = Duration::from_millis(20);
/// The longest between two steps, so that a watchdog sees it alive.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A journal that takes longer than this counts as failing. Wake-ups wait for it once.
const JOURNAL_DEADLINE: Duration = Duration::from_secs(3);
/// A journal that fails is tried again after this.
const JOURNAL_AGAIN: Duration = Duration::from_secs(5);
/// How long a stop of the program waits for writes to devices that are under way.
const LAST_WRITES: Duration = Duration::from_secs(3);
/// Answers that may wait for the loop; who has one more waits.
const ANSWERS: usize = 1024;

/// Runs the plans that are held.
pub struct Executor {
    field: Arc<Field>,
    policy: Policy,
    plans: watch::Receiver<Arc<Vec<HeldPlan>>>,
    book: Book,
    backlog: Backlog,
    /// The journal refused the last step; when it is tried again.
    failing: Option<Instant>,
    seen: Vec<Observation>,
    recovered: Recovered,
    list: Watchlist,
    last_visits: Option<Instant>,
    tasks: JoinSet<()>,
    writes: Arc<Semaphore>,
    answers: mpsc::Sender<Answer>,
    progress: Arc<AtomicU64>,
}

/// What a task has to say.
enum Answer {
    Visited(Visited),
    Written {
        observation: Observation,
        miner: MinerId,
    },
    /// A person wants something changed.
    Wished(Wish),
    /// Such a change was sent, or not.
    Changed {
        miner: MinerId,
    },
}

impl Executor {
    /// Reads the book; nothing is done yet.
    ///
    /// # Errors
    /// The journal can't be read.
    pub async fn new(field: Arc<Field>, policy: Policy) -> Result<(Self, Answers), StoreError> {
        let book = field.journal.book().await?;
        let plans = field.journal.plans();
        let (answers, inbox) = mpsc::channel(ANSWERS);
        let executor = Self {
            field,
            policy,
            plans,
            book,
            backlog: Backlog::default(),
            failing: None,
            seen: vec![Observation::Restarted],
            recovered: Recovered::default(),
            list: Watchlist::default(),
            last_visits: None,
            tasks: JoinSet::new(),
            writes: Arc::new(Semaphore::new(WRITES)),
            answers,
            progress: Arc::default(),
        };
        Ok((executor, Answers(inbox)))
    }

    /// When the last step was taken, in milliseconds of the boot clock; a watchdog looks at it.
    pub fn progress(&self) -> Arc<AtomicU64> {
        self.progress.clone()
    }

    pub async fn run(
        mut self,
        Answers(mut inbox): Answers,
        mut held_before: mpsc::Receiver<HeldMinersV1>,
        stop: CancellationToken,
    ) {
        let mut readings = self.field.live.readings();
        loop {
            readings.mark_unchanged();
            self.recover(&mut held_before).await;
            let next = self.step(&stop).await;
            let urgent = tokio::select! {
                () = stop.cancelled() => break,
                changed = self.plans.changed() => {
                    if changed.is_err() {
                        // The journal is closed: the program ends.
                        break;
                    }
                    true
                }
                Some(answer) = inbox.recv() => {
                    self.take(answer, &stop);
                    false
                }
                Some(held) = held_before.recv() => {
                    self.recovered.add(held);
                    false
                }
                Ok(()) = readings.changed() => false,
                () = sleep_until(next) => false,
            };
            if !urgent {
                sleep(GATHER).await;
            }
            while let Ok(answer) = inbox.try_recv() {
                self.take(answer, &stop);
            }
            while let Some(ended) = self.tasks.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "A task of the executor failed.");
                }
            }
        }
        // A write is not cut off in the middle of its request; its outcome is read again at the start.
        let _ = timeout(LAST_WRITES, async {
            while self.list.is_writing() {
                match inbox.recv().await {
                    Some(answer) => self.take(answer, &stop),
                    None => break,
                }
            }
        })
        .await;
    }

    fn take(&mut self, answer: Answer, stop: &CancellationToken) {
        match answer {
            Answer::Visited(Visited { miner, prepared }) => {
                self.list.visit_ends(miner);
                self.seen.extend(prepared);
            }
            Answer::Written { observation, miner } => {
                self.list.write_ends(miner, self.field.contacts.clock.now().boot);
                self.seen.push(observation);
            }
            Answer::Wished(wish) => self.grant(wish, stop),
            Answer::Changed { miner } => self.list.write_ends(miner, self.field.contacts.clock.now().boot),
        }
    }

    /// One step; says when the next is due.
    async fn step(&mut self, stop: &CancellationToken) -> Instant {
        let moment = self.field.contacts.clock.now();
        let plans = self.plans.borrow_and_update().clone();
        let mut miners = self.field.live.snapshot(&self.field.contacts.profiles, &self.book);
        if self.failing.is_some() || !self.field.journal.is_writable() {
            miners.iter_mut().for_each(|miner| miner.can_sleep = false);
        }
        let seen = std::mem::take(&mut self.seen);
        let mut step = step(now_of(moment), &self.policy, &plans, &miners, &self.book, &seen);
        self.remember_proven(&step.events, moment);
        let events = step.events.drain(..).map(event).collect();
        let durable = self.keep(&mut step, moment, events).await;
        let writes = std::mem::take(&mut step.writes);
        for write in writes {
            match write {
                Write::Stop { miner, .. } if !durable => self.seen.push(Observation::WriteFailed {
                    miner,
                    wake: false,
                    why: "not sent: the journal can't be written, so nothing new is stopped".to_owned(),
                    identity_mismatch: false,
                }),
                Write::Stop { miner, pre, .. } => self.write(miner, false, pre),
                Write::Wake { miner, pre, .. } => self.write(miner, true, pre),
            }
        }
        let now = Instant::now();
        let mut next = now + LONGEST_WAIT;
        if let Some(at) = step.next {
            next = next.min(now + wait(moment, at));
        }
        next = [self.failing, self.recovered.until()].into_iter().flatten().fold(next, Instant::min);
        if let Some(at) = self.visit(&step, moment, now, stop) {
            next = next.min(at);
        }
        let runs = self.book.dispatches.values().any(|dispatch| !dispatch.is_done());
        self.field.live.set_dispatching(runs || !self.book.holds.is_empty());
        self.progress.store(moment.boot.0, Ordering::Relaxed);
        next
    }

    /// Keeps which writes have shown their effect, for the miners' readiness.
    fn remember_proven(&self, events: &[Event], at: MomentV1) {
        let roster = self.field.live.roster();
        let proven = events.iter().filter_map(|event| {
            let Event::Target(step) = event else { return None };
            let wake = match step.state {
                TargetStateV1::Curtailed => false,
                TargetStateV1::Restored => true,
                _ => return None,
            };
            let entry = roster.get(step.miner).filter(|_| step.evidence.effect == FactV1::Yes)?;
            entry.state().prove(wake, at.wall).map(|miner| News::Learned(Box::new(miner)))
        });
        self.field.keep(proven.collect());
    }

    /// Makes a step durable, or remembers that it isn't; true when it is. The book takes it either way.
    async fn keep(&mut self, step: &mut Step, at: MomentV1, events: Vec<EventV1>) -> bool {
        let changes = std::mem::take(&mut step.changes);
        changes.iter().for_each(|change| self.book.apply(change));
        if changes.is_empty() && events.is_empty() && self.backlog.is_empty() {
            return true;
        }
        if self.failing.is_some_and(|again| Instant::now() < again) {
            self.backlog.add(changes, at, events);
            return false;
        }
        let result = if self.backlog.is_empty() {
            within(self.field.journal.commit_step(changes.clone(), at, events.clone())).await
        } else {
            self.pay(&changes, at, &events).await
        };
        match result {
            Ok(()) => {
                self.mended();
                true
            }
            Err(error) => {
                self.backlog.add(changes, at, events);
                self.failed(&error);
                false
            }
        }
    }

    /// Writes what is owed, and this step with it.
    async fn pay(
        &mut self,
        changes: &[hashinsight_curtailment::Change],
        at: MomentV1,
        events: &[EventV1],
    ) -> Result<(), String> {
        // What happened earlier is told earlier.
        while let Some((moment, owed)) = self.backlog.next_events() {
            let count = owed.len();
            within(self.field.journal.record(Stream::Evidence, moment, owed)).await?;
            self.backlog.told(count);
        }
        let mut owed = self.backlog.changes();
        owed.extend_from_slice(changes);
        within(self.field.journal.commit_step(owed, at, events.to_vec())).await?;
        let dropped = self.backlog.paid();
        if dropped > 0 {
            tracing::error!(dropped, "Events were dropped while the journal could not be written.");
        }
        Ok(())
    }

    fn failed(&mut self, error: &str) {
        if self.failing.replace(Instant::now() + JOURNAL_AGAIN).is_none() {
            tracing::error!(error, "The journal cannot be written: nothing new is stopped; wake-ups go on.");
        }
    }

    fn mended(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!("The journal is written again; stops go on.");
        }
    }

    /// Starts a write in a task of its own.
    fn write(&mut self, miner: MinerId, wake: bool, pre: PreStateV1) {
        let Some(entry) = self.field.live.roster().get(miner).cloned() else {
            let why = "not sent: the miner isn't in the inventory any more".to_owned();
            self.seen.push(Observation::WriteFailed { miner, wake, why, identity_mismatch: false });
            return;
        };
        if !self.list.write_begins(miner) {
            // The engine gave up on it; the one under way is the same or is read again after it.
            return;
        }
        let (field, answers, writes) = (self.field.clone(), self.answers.clone(), self.writes.clone());
        self.tasks.spawn(async move {
            // Never closed.
            let turn = writes.acquire_owned().await;
            let write = tokio::spawn(async move { field.write(&entry, wake, &pre).await });
            let observation = write.await.unwrap_or_else(|error| {
                let why = bounded_text(&format!("the write failed within this program: {error}"));
                Observation::WriteFailed { miner, wake, why, identity_mismatch: false }
            });
            drop(turn);
            match &observation {
                Observation::WriteFailed { why, .. } => tracing::warn!(%miner, wake, why, "A write failed."),
                _ => tracing::info!(%miner, wake, "A write was sent."),
            }
            // Nobody listens any more when the program ends.
            let _ = answers.send(Answer::Written { observation, miner }).await;
        });
    }

    /// Starts the visits that are due, and says when others will be.
    fn visit(
        &mut self,
        step: &Step,
        moment: MomentV1,
        now: Instant,
        stop: &CancellationToken,
    ) -> Option<Instant> {
        let wanted: HashSet<MinerId> = step.prepare.iter().chain(&step.watch).copied().collect();
        let book = &self.book;
        self.list.keep(|miner| wanted.contains(&miner) || book.holds.contains_key(&miner));
        if wanted.is_empty() {
            return None;
        }
        let roster = self.field.live.roster();
        let read = |miner| Some(roster.get(miner)?.state().taken.as_ref()?.began);
        let round = self.list.choose(moment.boot, &step.prepare, &step.watch, read);
        let later = round.next.map(|at| now + wait(moment, at));
        if round.visits.is_empty() {
            return later;
        }
        let next_visits = self.last_visits.map_or(now, |last| last + VISITS_APART);
        if next_visits > now {
            return Some(later.map_or(next_visits, |later| later.min(next_visits)));
        }
        self.last_visits = Some(now);
        for (miner, want) in &round.visits {
            self.list.visit_begins(*miner, *want, moment.boot);
        }
        let (told, mut ended) = mpsc::channel::<Visited>(ANSWERS);
        let (field, answers, stop) = (self.field.clone(), self.answers.clone(), stop.clone());
        self.tasks.spawn(async move {
            let mut open: HashSet<MinerId> = round.visits.iter().map(|(miner, _)| *miner).collect();
            let pass_on = async {
                while let Some(visited) = ended.recv().await {
                    open.remove(&visited.miner);
                    // Nobody listens any more when the program ends.
                    let _ = answers.send(Answer::Visited(visited)).await;
                }
                // Those whose visit failed within this program.
                for miner in open {
                    let _ = answers.send(Answer::Visited(Visited { miner, prepared: None })).await;
                }
            };
            tokio::join!(field.visit(round.visits, told, stop), pass_on);
        });
        later
    }
}

/// The answers that the loop takes in.
pub struct Answers(mpsc::Receiver<Answer>);

/// A call of the journal, its failure in words.
async fn within(call: impl Future<Output = Result<(), StoreError>>) -> Result<(), String> {
    match timeout(JOURNAL_DEADLINE, call).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer for {} s", JOURNAL_DEADLINE.as_secs())),
    }
}

fn now_of(moment: MomentV1) -> Now {
    Now { wall: moment.wall, boot: moment.boot, boot_id: moment.boot_id, clock: moment.state }
}

fn wait(now: MomentV1, until: BootMillis) -> Duration {
    until.since(now.boot).into()
}

fn event(event: Event) -> EventV1 {
    match event {
        Event::Dispatch(step) => EventV1::Dispatch(step),
        Event::Target(step) => EventV1::Target(step),
    }
}
