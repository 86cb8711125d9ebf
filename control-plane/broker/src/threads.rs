//! The threads around a router: one that sends into it, one that takes what agents published, one that
//! watches it. What they are for is said in [`crate::router`].

use crate::broker::Up;
use crate::counters::{Ledger, add, one};
use crate::router::{Command, Gone, PING, Wills, lock, message_size};
use hashinsight_protocol::topics::{Stream, Topic, down_filter};
use rumqttd::local::{LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};
use rumqttd::{Forward, Notification};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::mpsc::{Receiver as StopRx, RecvTimeoutError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tracing::{error, warn};

/// The only one who sends into the router, in the order of the commands. Ends when the router does, or
/// when nobody is left to give commands.
pub(crate) fn feed(
    build: impl Fn(&str, Option<String>) -> Result<Option<(LinkTx, LinkRx)>, Gone>,
    mut control: LinkTx,
    mut commands: mpsc::Receiver<Command>,
) {
    let mut links: HashMap<u64, LinkTx> = HashMap::new();
    let mut next = 0;
    while let Some(command) = commands.blocking_recv() {
        let sent = match command {
            Command::Attach { agent, ready } => match build("door", Some(agent.to_string())) {
                Ok(Some((mut sender, receiver))) => {
                    next += 1;
                    match ready.send((next, receiver)) {
                        Ok(()) => {
                            links.insert(next, sender);
                            Ok(())
                        }
                        Err(_) => detach(&mut sender),
                    }
                }
                // Dropping `ready` says so.
                Ok(None) => Ok(()),
                Err(gone) => Err(gone),
            },
            Command::Subscribe { link, agent } => match links.get_mut(&link) {
                Some(link) => taken(link.subscribe(down_filter(agent))),
                None => Ok(()),
            },
            Command::Detach { link } => match links.remove(&link) {
                Some(mut link) => detach(&mut link),
                None => Ok(()),
            },
            Command::Up { link, topic, payload, credit } => {
                let sender = match link {
                    Some(link) => links.get_mut(&link),
                    None => Some(&mut control),
                };
                match sender {
                    Some(sender) => {
                        // Comes back when the control plane has taken the message.
                        credit.forget();
                        taken(sender.publish(topic.to_string(), payload))
                    }
                    None => Ok(()),
                }
            }
            Command::Down { topic, payload } => taken(control.publish(topic.to_string(), payload)),
        };
        if sent.is_err() {
            return;
        }
    }
    for link in links.values_mut().chain([&mut control]) {
        if detach(link).is_err() {
            return;
        }
    }
}

/// What a link says of a packet: it knows no failure but the router's end.
pub(crate) fn taken(sent: Result<usize, LinkError>) -> Result<(), Gone> {
    sent.map(drop).map_err(|_| Gone)
}

/// Takes a link out of the router: dropping it would not.
fn detach(link: &mut LinkTx) -> Result<(), Gone> {
    let reason_code = DisconnectReasonCode::NormalDisconnection;
    let mut sending = pin!(link.send(Packet::Disconnect(Disconnect { reason_code }, None)));
    // The future is one in name only: it blocks where the router's channel is full and never yields.
    match sending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(sent) => taken(sent),
        Poll::Pending => Err(Gone),
    }
}

/// Hands what agents published to the control plane, and waits where that is slow.
pub(crate) fn receive(
    mut receiver: LinkRx,
    up: &mpsc::Sender<Up>,
    credit: &Semaphore,
    wills: &Wills,
    ledger: &Ledger,
) {
    loop {
        match receiver.recv() {
            Ok(Some(Notification::Forward(Forward { publish, .. }))) => {
                let size = message_size(publish.topic.len(), publish.payload.len());
                let topic = std::str::from_utf8(&publish.topic).ok().and_then(Topic::parse);
                match topic {
                    Some(Topic::Up(agent, stream)) => {
                        let payload = publish.payload;
                        if up.blocking_send(Up { agent, stream, payload: payload.clone() }).is_err() {
                            return;
                        }
                        one(&ledger.up_messages);
                        add(&ledger.up_bytes, payload.len());
                        if stream == Stream::Presence
                            && let Some(wills) = lock(wills).as_mut()
                            && wills.get(&agent) == Some(&payload)
                        {
                            wills.remove(&agent);
                        }
                    }
                    _ => error!(topic = ?publish.topic, "the router delivered what nobody may publish"),
                }
                credit.add_permits(size);
            }
            Ok(Some(Notification::Unschedule)) => {
                if receiver.ready().is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Returns when a ping was not back in time, or when `stop` is dropped.
pub(crate) fn watch_over(
    pinger: &mut LinkTx,
    mut pings: LinkRx,
    stop: &StopRx<()>,
    every: Duration,
    deadline: Duration,
) {
    let mut number = 0u64;
    loop {
        match stop.recv_timeout(every) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => {
                let _ = detach(pinger);
                return;
            }
        }
        number += 1;
        let ping = number.to_be_bytes();
        let until = Instant::now() + deadline;
        // A ping that found the router's channel full never arrives, so it is sent again and again.
        while !ping_once(pinger, &mut pings, &ping, deadline / 10) {
            if Instant::now() >= until {
                warn!("a ping did not come back through the router");
                return;
            }
            // A dead router answers at once that it is gone.
            std::thread::sleep(Duration::from_millis(1).max(deadline / 100));
        }
    }
}

/// Sends a ping, without blocking, and waits for it; false when it did not come back.
fn ping_once(pinger: &mut LinkTx, pings: &mut LinkRx, ping: &[u8], deadline: Duration) -> bool {
    // What is wrong here shows when nothing is received.
    let _ = pinger.try_publish(PING, ping.to_vec());
    let until = (Instant::now() + deadline).into_std();
    loop {
        match pings.recv_deadline(until) {
            Ok(Some(Notification::Forward(Forward { publish, .. }))) if publish.payload[..] == *ping => {
                return true;
            }
            Ok(Some(Notification::Unschedule)) => {
                if pings.ready().is_err() {
                    return false;
                }
            }
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
