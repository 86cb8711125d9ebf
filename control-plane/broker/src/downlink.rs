//! Messages on their way to one agent: a bounded queue, and a window into the router.
//!
//! The router keeps an agent's messages in a ring that overwrites what was not read. What is in the
//! window is in the ring or on the agent's connection, and leaves by PUBACK (at QoS 0, when written).
//! The window is smaller than what the ring surely keeps, or holds one message of any size, so
//! nothing is overwritten, and the router's outgoing buffer never fills.

use crate::router::{DOWN_WINDOW_BYTES, DOWN_WINDOW_MESSAGES, message_size};
use bytes::Bytes;
use hashinsight_protocol::topics::Down;
use std::collections::VecDeque;

#[derive(Debug)]
pub(crate) struct Downlink {
    queue: VecDeque<(Down, Bytes)>,
    queued_bytes: usize,
    max_messages: usize,
    max_bytes: usize,
    topic_bytes: usize,
    /// QoS granted; nothing goes out before the agent has subscribed.
    granted: Option<u8>,
    window_messages: usize,
    window_bytes: usize,
    last_id: u16,
    unacked: VecDeque<(u16, usize)>,
}

impl Downlink {
    /// `topic_bytes`: the length of the longest topic of this agent.
    pub fn new(max_messages: usize, max_bytes: usize, topic_bytes: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            queued_bytes: 0,
            max_messages,
            max_bytes,
            topic_bytes,
            granted: None,
            window_messages: 0,
            window_bytes: 0,
            last_id: 0,
            unacked: VecDeque::new(),
        }
    }

    /// Queues a message; false when there is no room.
    pub fn push(&mut self, kind: Down, payload: Bytes) -> bool {
        let full = self.queue.len() >= self.max_messages
            || (!self.queue.is_empty() && self.queued_bytes + payload.len() > self.max_bytes);
        if !full {
            self.queued_bytes += payload.len();
            self.queue.push_back((kind, payload));
        }
        !full
    }

    pub fn grant(&mut self, qos: u8) {
        self.granted = Some(qos);
    }

    fn size(&self, payload: &[u8]) -> usize {
        message_size(self.topic_bytes, payload.len())
    }

    /// The next message that may go into the router.
    pub fn next(&mut self) -> Option<(Down, Bytes)> {
        self.granted?;
        let size = self.size(&self.queue.front()?.1);
        let room = self.window_messages == 0
            || (self.window_messages < DOWN_WINDOW_MESSAGES && self.window_bytes + size <= DOWN_WINDOW_BYTES);
        if !room {
            return None;
        }
        let message = self.queue.pop_front()?;
        self.queued_bytes -= message.1.len();
        self.window_messages += 1;
        self.window_bytes += size;
        Some(message)
    }

    /// A message came out of the router and is about to be written: its packet id at QoS 1.
    pub fn writing(&mut self, payload: &[u8]) -> Option<u16> {
        let size = self.size(payload);
        if self.granted == Some(0) {
            self.leave(size);
            return None;
        }
        // There are fewer unacknowledged ids than ids, so one is free.
        loop {
            self.last_id = self.last_id.wrapping_add(1).max(1);
            if self.unacked.iter().all(|&(id, _)| id != self.last_id) {
                break;
            }
        }
        self.unacked.push_back((self.last_id, size));
        Some(self.last_id)
    }

    /// A PUBACK came; false when nothing was sent under that id.
    pub fn acked(&mut self, id: u16) -> bool {
        let Some(at) = self.unacked.iter().position(|&(of, _)| of == id) else { return false };
        if let Some((_, size)) = self.unacked.remove(at) {
            self.leave(size);
        }
        true
    }

    fn leave(&mut self, size: usize) {
        self.window_messages = self.window_messages.saturating_sub(1);
        self.window_bytes = self.window_bytes.saturating_sub(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(bytes: usize) -> Bytes {
        Bytes::from(vec![0; bytes])
    }

    #[test]
    fn nothing_leaves_before_a_subscription() {
        let mut link = Downlink::new(4, 1000, 50);
        assert!(link.push(Down::Welcome, payload(1)));
        assert_eq!(link.next(), None);
        link.grant(1);
        assert!(link.next().is_some());
    }

    #[test]
    fn the_queue_is_bounded_but_takes_one_of_any_size() {
        let mut link = Downlink::new(3, 1000, 50);
        assert!(link.push(Down::Desired, payload(5000)));
        assert!(!link.push(Down::Ack, payload(1)), "bytes");
        link.grant(1);
        assert!(link.next().is_some());
        for _ in 0..3 {
            assert!(link.push(Down::Ack, payload(1)));
        }
        assert!(!link.push(Down::Ack, payload(1)), "messages");
        assert_eq!(link.next(), None, "the large one fills the window");
        let id = link.writing(&payload(5000)).expect("an id");
        assert!(!link.acked(id + 1));
        assert!(link.acked(id) && !link.acked(id));
        assert!(link.next().is_some());
    }

    proptest! {
        /// Every message comes out once, in order, and the window is never passed.
        #[test]
        fn all_come_out_in_order(sizes in prop::collection::vec(0usize..6000, 1..80), qos in 0u8..2, lag in 0usize..5) {
            let mut link = Downlink::new(1000, usize::MAX, 60);
            link.grant(qos);
            for (n, size) in sizes.iter().enumerate() {
                prop_assert!(link.push(Down::ALL[n % 4], payload(*size)));
            }
            let (mut router, mut wire, mut seen) = (VecDeque::new(), VecDeque::new(), Vec::new());
            while seen.len() < sizes.len() {
                while let Some(message) = link.next() {
                    router.push_back(message);
                }
                let bytes: usize = router.iter().map(|(_, p): &(Down, Bytes)| message_size(60, p.len())).sum();
                prop_assert!(router.len() <= DOWN_WINDOW_MESSAGES);
                prop_assert!(router.len() <= 1 || bytes <= DOWN_WINDOW_BYTES);
                prop_assert!(!router.is_empty() || !wire.is_empty(), "stuck");
                if let Some((kind, payload)) = router.pop_front() {
                    seen.push((kind, payload.len()));
                    wire.extend(link.writing(&payload));
                }
                if wire.len() > lag || router.is_empty() {
                    // Acknowledgements may come in any order.
                    if let Some(id) = wire.pop_back() {
                        prop_assert!(link.acked(id));
                    }
                }
            }
            let expected: Vec<_> = sizes.iter().enumerate().map(|(n, s)| (Down::ALL[n % 4], *s)).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
