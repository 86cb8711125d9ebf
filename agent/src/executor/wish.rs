//! Changes that a person at the site asks for: granted where no plan works on the miner, done with the same
//! three proofs as a stop, and kept for the record before and after.

use super::{Answer, Executor};
use crate::live::Entry;
use crate::poller::Field;
use crate::poller::change::Sent;
use crate::poller::contact::Want;
use hashinsight_curtailment::Book;
use hashinsight_firmware::{Change, judge_change, times};
use hashinsight_protocol::device::{EvidenceV1, FactV1};
use hashinsight_protocol::events::{EventV1, MinerChangedV1};
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::topics::Stream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// From one look at the effect to the next.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// The effect of a change that is no restart shows within this, where the family is no slower.
const EFFECT: Duration = Duration::from_secs(120);

/// What a person wants changed of one miner.
pub struct Wish {
    pub miner: MinerId,
    pub change: Arc<Change>,
    pub by: String,
    /// Whether to wait for the effect.
    pub follow: bool,
    pub reply: oneshot::Sender<Result<Granted, String>>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Granted {
    pub evidence: EvidenceV1,
    pub detail: String,
}

/// Where wishes are handed in.
#[derive(Clone)]
pub struct Desk(pub(super) mpsc::Sender<Answer>);

impl Desk {
    /// Has a miner changed, and waits for what came of it.
    ///
    /// # Errors
    /// Why nothing was sent, or what the device said against it.
    pub async fn wish(
        &self,
        miner: MinerId,
        change: Arc<Change>,
        by: String,
        follow: bool,
    ) -> Result<Granted, String> {
        let (reply, answer) = oneshot::channel();
        let ended = || "the agent is stopping".to_owned();
        let wish = Wish { miner, change, by, follow, reply };
        self.0.send(Answer::Wished(wish)).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// Why a miner is not to be changed now.
fn refusal(book: &Book, miner: MinerId) -> Option<String> {
    let hold = book.holds.get(&miner).map(|hold| hold.owner.plan);
    let mut targets = book.targets.values().filter_map(|targets| targets.get(&miner));
    let plan = hold.or_else(|| targets.find(|target| !target.done).map(|target| target.dispatch.plan))?;
    Some(format!("plan {plan} works on it: stop the plan first, or wait for its end"))
}

impl Executor {
    /// The desk at which changes are asked for.
    pub fn desk(&self) -> Desk {
        Desk(self.answers.clone())
    }

    pub(super) fn grant(&mut self, wish: Wish, stop: &CancellationToken) {
        let miner = wish.miner;
        let entry = match (refusal(&self.book, miner), self.field.live.roster().get(miner)) {
            (Some(why), _) => Err(why),
            (_, None) => Err("it is not in the inventory".to_owned()),
            _ if stop.is_cancelled() => Err("the agent is stopping".to_owned()),
            (_, Some(_)) if self.list.is_busy(miner) => {
                Err("its connection is in use for another read or write".to_owned())
            }
            (None, Some(entry)) => Ok(entry.clone()),
        };
        let entry = match entry {
            Ok(entry) => entry,
            Err(why) => {
                // Nobody waits any more when the command was ended.
                let _ = wish.reply.send(Err(why));
                return;
            }
        };
        self.list.write_begins(miner);
        let (field, answers, stop) = (self.field.clone(), self.answers.clone(), stop.clone());
        self.tasks.spawn(async move {
            let Wish { change, by, follow, reply, .. } = wish;
            let work = tokio::spawn({
                let (field, entry, change, by) = (field.clone(), entry.clone(), change.clone(), by.clone());
                async move { send(&field, &entry, &change, &by).await }
            });
            let sent =
                work.await.unwrap_or_else(|error| Err(format!("it failed within this program: {error}")));
            // A plan may have the miner again while its effect is awaited.
            let _ = answers.send(Answer::Changed { miner }).await;
            let granted = match sent {
                Err(why) => Err(why),
                Ok(sent) => Ok(prove(&field, &entry, &change, sent, follow, &stop).await),
            };
            record(&field, miner, &change, &by, &granted).await;
            let _ = reply.send(granted);
        });
    }
}

async fn send(field: &Field, entry: &Entry, change: &Change, by: &str) -> Result<Sent, String> {
    let begun = MinerChangedV1 {
        miner: entry.id,
        what: bounded_text(&change.words()),
        by: by.to_owned(),
        evidence: None,
        detail: String::new(),
    };
    let at = field.contacts.clock.now();
    let kept = field.journal.record(Stream::Audit, at, vec![EventV1::Changed(begun)]);
    match timeout(super::JOURNAL_DEADLINE, kept).await {
        Ok(Ok(())) => field.change(entry, change).await,
        _ => Err("not sent: the journal can't be written, so it could not be put on record".to_owned()),
    }
}

async fn record(field: &Field, miner: MinerId, change: &Change, by: &str, granted: &Result<Granted, String>) {
    let refused = EvidenceV1 { accepted: FactV1::No, mode: FactV1::Unknown, effect: FactV1::Unknown };
    let (evidence, detail) = match granted {
        Ok(granted) => (granted.evidence, &granted.detail),
        Err(why) => (refused, why),
    };
    let (what, detail) = (bounded_text(&change.words()), bounded_text(detail));
    tracing::info!(%miner, what, by, ?evidence, detail, "A person's change.");
    let ended = MinerChangedV1 { miner, what, by: by.to_owned(), evidence: Some(evidence), detail };
    let at = field.contacts.clock.now();
    let kept = field.journal.record(Stream::Audit, at, vec![EventV1::Changed(ended)]);
    if !matches!(timeout(super::JOURNAL_DEADLINE, kept).await, Ok(Ok(()))) {
        tracing::error!(%miner, "What came of a change could not be put on record.");
    }
}

/// Looks at the device until the change shows, or the time in which it would is over.
async fn prove(
    field: &Field,
    entry: &Entry,
    change: &Change,
    sent: Sent,
    follow: bool,
    stop: &CancellationToken,
) -> Granted {
    let mut facts = (sent.setting, FactV1::Unknown);
    if matches!(change, Change::Locate { .. }) {
        facts.1 = FactV1::NotApplicable;
    }
    let is_shown = |(setting, effect): (FactV1, FactV1)| {
        let holds = |fact| matches!(fact, FactV1::Yes | FactV1::NotApplicable);
        holds(setting) && holds(effect)
    };
    let until = Instant::now() + patience(field, entry, change);
    let wanted = follow && sent.accepted != FactV1::No;
    while wanted && !is_shown(facts) && Instant::now() < until && !stop.is_cancelled() {
        sleep(LOOK_AGAIN).await;
        let (told, mut visited) = mpsc::channel(1);
        let visit = field.visit(vec![(entry.id, Want::Reading)], told, stop.clone());
        tokio::join!(visit, async { while visited.recv().await.is_some() {} });
        let state = entry.state();
        let Some(taken) = state.taken.as_ref().filter(|taken| taken.began >= sent.at) else { continue };
        let seen = judge_change(change, &sent.before, &taken.reading);
        // What was read back stands until a reading says otherwise.
        let setting = if seen.0 == FactV1::Unknown { facts.0 } else { seen.0 };
        facts = (setting, seen.1);
    }
    let evidence = EvidenceV1 { accepted: sent.accepted, mode: facts.0, effect: facts.1 };
    Granted { evidence, detail: sent.detail }
}

/// How long the effect of a change may take in its family.
fn patience(field: &Field, entry: &Entry, change: &Change) -> Duration {
    let firmware = entry.state().identified.as_ref().map(|identified| identified.firmware.clone());
    let times = times(&field.contacts.profiles, firmware.as_deref().unwrap_or_default());
    match change {
        Change::Reboot => Duration::from_secs(times.wake_effect_s),
        Change::PowerLimit(_) => Duration::from_secs(times.stop_effect_s).max(EFFECT),
        Change::Locate { .. } | Change::Pools(_) => EFFECT,
    }
}
