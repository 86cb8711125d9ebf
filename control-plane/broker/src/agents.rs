//! Who is connected, and whose turn it is.
//!
//! Each agent has a ticket number. An admitted connection takes the next one, which ends the one before
//! it; cutting takes one too and gives it to nobody. A connection goes on only while its number is the
//! newest. Entries stay for as long as the door lives: there are only as many as the gate has admitted.

use crate::bucket::Bucket;
use crate::counters::{Ledger, one};
use crate::downlink::Downlink;
use crate::limits::DoorLimits;
use bytes::Bytes;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::limits;
use hashinsight_protocol::topics::{Down, Topic};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Why a message to an agent was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    #[error("the agent is not connected")]
    NotConnected,
    #[error("the agent's queue is full: it takes messages slower than they are sent")]
    Full,
    #[error("the message is larger than {} bytes", limits::DOWN_BYTES)]
    TooLarge,
}

#[derive(Debug, Default)]
pub(crate) struct Agents(Mutex<HashMap<AgentId, Arc<Agent>>>);

/// One agent, connected or not.
#[derive(Debug)]
pub(crate) struct Agent {
    newest: watch::Sender<u64>,
    connects: Mutex<Bucket>,
    live: Mutex<Option<Live>>,
}

#[derive(Clone, Debug)]
struct Live {
    ticket: u64,
    outbox: Arc<Outbox>,
}

/// The messages that wait for a connected agent.
#[derive(Debug)]
pub(crate) struct Outbox {
    downlink: Mutex<Downlink>,
    /// Something may go into the router.
    pub wake: Notify,
}

/// A connection's turn.
#[derive(Debug)]
pub(crate) struct Ticket {
    agent: Arc<Agent>,
    number: u64,
    newest: watch::Receiver<u64>,
}

// Every change under these locks is whole, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Agents {
    /// The entry of an agent that the gate has admitted.
    pub fn entry(&self, agent: AgentId, limits: &DoorLimits, now: Instant) -> Arc<Agent> {
        let new = || {
            let per_second = 1.0 / limits.connect_every.as_secs_f64().max(1e-6);
            Arc::new(Agent {
                newest: watch::Sender::new(0),
                connects: Mutex::new(Bucket::new(limits.connect_burst.into(), per_second, now)),
                live: Mutex::default(),
            })
        };
        lock(&self.0).entry(agent).or_insert_with(new).clone()
    }

    fn find(&self, agent: AgentId) -> Option<Arc<Agent>> {
        lock(&self.0).get(&agent).cloned()
    }

    pub fn connected(&self) -> Vec<AgentId> {
        let agents = lock(&self.0);
        agents.iter().filter(|(_, a)| lock(&a.live).is_some()).map(|(&id, _)| id).collect()
    }

    /// Ends every connection of the agent; true when one was open.
    pub fn cut(&self, agent: AgentId) -> bool {
        let Some(agent) = self.find(agent) else { return false };
        let open = lock(&agent.live).take().is_some();
        agent.newest.send_modify(|newest| *newest += 1);
        open
    }

    pub fn try_send(
        &self,
        agent: AgentId,
        kind: Down,
        payload: Bytes,
        ledger: &Ledger,
    ) -> Result<(), SendError> {
        if payload.len() > limits::DOWN_BYTES {
            return Err(SendError::TooLarge);
        }
        let agent = self.find(agent).ok_or(SendError::NotConnected)?;
        let outbox = lock(&agent.live).as_ref().map(|live| live.outbox.clone());
        let outbox = outbox.ok_or(SendError::NotConnected)?;
        if !outbox.downlink().push(kind, payload) {
            one(&ledger.down_full);
            return Err(SendError::Full);
        }
        outbox.wake.notify_one();
        Ok(())
    }
}

impl Agent {
    /// True when the agent may connect once more by now.
    pub fn may_connect(&self, now: Instant) -> bool {
        lock(&self.connects).take(now)
    }

    /// Takes the next turn, which ends the one before.
    pub fn claim(self: &Arc<Self>, ledger: &Ledger) -> Ticket {
        if lock(&self.live).is_some() {
            one(&ledger.taken_over);
        }
        let mut number = 0;
        self.newest.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        Ticket { agent: self.clone(), number, newest: self.newest.subscribe() }
    }
}

impl Ticket {
    /// Returns when the turn is over.
    pub async fn over(&self) {
        let number = self.number;
        // The sender lives as long as this ticket's agent, so waiting ends only by the number.
        let _ = self.newest.clone().wait_for(|&newest| newest != number).await;
    }

    /// The agent is connected from here on; `None` when the turn is over already.
    pub fn open(&self, agent: AgentId, limits: &DoorLimits) -> Option<Open<'_>> {
        let topic = Down::ALL.map(|kind| Topic::Down(agent, kind).to_string().len());
        let topic = topic.into_iter().max().unwrap_or_default();
        let outbox = Arc::new(Outbox {
            downlink: Mutex::new(Downlink::new(limits.down_queue, limits.down_queue_bytes, topic)),
            wake: Notify::new(),
        });
        let mut live = lock(&self.agent.live);
        // Looked at under the lock under which a cut empties it.
        if *self.newest.borrow() != self.number {
            return None;
        }
        *live = Some(Live { ticket: self.number, outbox: outbox.clone() });
        Some(Open { ticket: self, outbox })
    }
}

/// A connection that messages can be sent to, until it is dropped.
#[derive(Debug)]
pub(crate) struct Open<'a> {
    ticket: &'a Ticket,
    pub outbox: Arc<Outbox>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut live = lock(&self.ticket.agent.live);
        if live.as_ref().is_some_and(|live| live.ticket == self.ticket.number) {
            *live = None;
        }
    }
}

impl Outbox {
    pub fn downlink(&self) -> MutexGuard<'_, Downlink> {
        lock(&self.downlink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(ticket: &Ticket) -> bool {
        *ticket.newest.borrow() != ticket.number
    }

    #[test]
    fn the_newest_ticket_counts() {
        let (agents, limits, ledger) = (Agents::default(), DoorLimits::default(), Ledger::new());
        let id = AgentId::from_random([1; 16]);
        let send = || agents.try_send(id, Down::Ack, Bytes::new(), &ledger);
        assert_eq!(send(), Err(SendError::NotConnected));
        let agent = agents.entry(id, &limits, Instant::now());
        let first = agent.claim(&ledger);
        let open = first.open(id, &limits).expect("open");
        assert_eq!((send(), agents.connected()), (Ok(()), vec![id]));

        let second = agent.claim(&ledger);
        assert!(over(&first) && !over(&second));
        let second_open = second.open(id, &limits).expect("open");
        drop(open);
        assert_eq!(agents.connected(), [id], "the first one's end is not the second one's");
        assert!(agents.cut(id) && over(&second));
        assert_eq!(send(), Err(SendError::NotConnected));
        assert!(second.open(id, &limits).is_none());
        drop(second_open);
        assert!(!agents.cut(id));
    }

    #[test]
    fn too_large_is_refused() {
        let payload = Bytes::from(vec![0; limits::DOWN_BYTES + 1]);
        let sent =
            Agents::default().try_send(AgentId::from_random([1; 16]), Down::Ack, payload, &Ledger::new());
        assert_eq!(sent, Err(SendError::TooLarge));
    }
}
