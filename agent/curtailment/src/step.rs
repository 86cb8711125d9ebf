//! The one decision function.
//!
//! Order within a step: outcomes of writes, then evidence from readings, then what starts and ends and who
//! is chosen, then reads that came back (a write is decided on the newest will), then who is woken, then
//! what to read next.

use crate::book::{Book, Change, DispatchKey, Phase};
use crate::draft::Draft;
use crate::input::{HeldPlan, Miner, Now, Observation, Policy};
use crate::steady::Steady;
use hashinsight_protocol::device::PreStateV1;
use hashinsight_protocol::evidence::{DispatchStepV1, TargetStepV1};
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::units::BootMillis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What has to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Durable, together with `events`, before any write.
    pub changes: Vec<Change>,
    /// Identity and present settings of these are wanted; [`Observation::Prepared`] answers.
    pub prepare: Vec<MinerId>,
    pub writes: Vec<Write>,
    /// Fresh readings of these are wanted: something is expected of them.
    pub watch: Vec<MinerId>,
    pub events: Vec<Event>,
    /// The next call is due then at the latest; sooner whenever something comes back, a reading changes
    /// or a plan does. `None`: nothing is held and no plan waits.
    pub next: Option<BootMillis>,
}

/// A write to one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Write {
    Stop {
        dispatch: DispatchKey,
        miner: MinerId,
        pre: PreStateV1,
    },
    /// Back to `pre`, exactly.
    Wake {
        dispatch: DispatchKey,
        miner: MinerId,
        pre: PreStateV1,
    },
}

impl Write {
    pub fn miner(&self) -> MinerId {
        match self {
            Self::Stop { miner, .. } | Self::Wake { miner, .. } => *miner,
        }
    }
}

/// What is reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    Dispatch(DispatchStepV1),
    Target(TargetStepV1),
}

/// Decides what to do now.
pub fn step(
    now: Now,
    policy: &Policy,
    plans: &[HeldPlan],
    miners: &[Miner],
    book: &Book,
    seen: &[Observation],
) -> Step {
    let mut draft = Draft::new(now, policy, plans, miners, book);
    draft.adopt_orphans();
    for observation in seen {
        draft.take_outcome(observation);
    }
    draft.take_readings();
    draft.take_orders();
    // After what starts: a hold whose plan goes on joins its dispatch.
    for observation in seen {
        draft.take_recovered(observation);
    }
    for key in draft.dispatches() {
        draft.ramp_down(key);
    }
    for observation in seen {
        draft.take_read(observation);
    }
    for key in draft.dispatches() {
        draft.ramp_up(key);
    }
    draft.settle();
    draft.ask();
    draft.keep_clock();
    draft.finish()
}

impl Draft<'_> {
    /// Says which reads are wanted, and when something is due.
    fn ask(&mut self) {
        let mut prepare = BTreeSet::new();
        let mut watch = Vec::new();
        let mut due = Steady::NEVER;
        let mut want = |miner: MinerId, at: Steady| {
            if at > self.at {
                due = due.min(at);
            } else {
                prepare.insert(miner);
            }
        };
        let mut until = Steady::NEVER;
        for hold in self.book.holds.values().filter(|hold| hold.phase != Phase::Curtailed) {
            watch.push(hold.miner);
            if let Some(intent) = hold.intent {
                until = until.min(intent.at.plus(self.policy.write_timeout));
            } else if let Some(awaits) = hold.awaits {
                until = until.min(awaits);
                if self.wants_check(hold) {
                    want(hold.miner, hold.retry_at);
                }
            } else if self.wants_write(hold) {
                want(hold.miner, hold.retry_at);
            }
        }
        for dispatch in self.book.dispatches.values().filter(|dispatch| dispatch.stops()) {
            for target in self.book.targets_of(dispatch.key).filter(|t| !t.done && !t.left) {
                let held = self.book.holds.contains_key(&target.miner);
                if !held && self.may_write(target.miner).is_ok() {
                    want(target.miner, target.due.max(target.retry_at));
                }
            }
        }
        self.call_at(due.min(until));
        watch.extend(prepare.iter().copied().filter(|miner| !self.book.holds.contains_key(miner)));
        self.out.prepare = prepare.into_iter().collect();
        self.out.watch = watch;
    }

    /// Whether a miner may be written to at all; says why not.
    pub fn may_write(&self, id: MinerId) -> Result<(), &'static str> {
        match self.miner(id) {
            None => Err("it isn't ours any more; it's never written to"),
            Some(miner) if miner.locks.out_of_service => {
                Err("out of service; goes on when a technician clears the lock")
            }
            Some(_) => Ok(()),
        }
    }

    /// Stores the clock from time to time while durations run.
    fn keep_clock(&mut self) {
        let runs = !self.book.holds.is_empty()
            || self.book.dispatches.values().any(|dispatch| !dispatch.is_done())
            || !self.plans.is_empty();
        let stale = self.book.clock.is_none_or(|clock| {
            self.at.since(clock.steady) >= self.policy.heartbeat || clock.clock != self.now.clock
        });
        if runs && stale {
            let record = self.clock.record(&self.now);
            self.put(Change::Clock(record));
        }
    }
}
