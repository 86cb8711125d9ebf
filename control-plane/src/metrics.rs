//! What is counted, as Prometheus reads it: `GET /metrics`, for who may see it.
//!
//! Counters are totals since the start; gauges are of this moment. Labels take their values from our
//! own short lists, never from a peer, so that nobody can make the page grow.

use crate::mqtt::Link;
use hashinsight_broker::Broker;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A number that rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Everything that is counted outside the front door, and the door itself once it is open.
#[derive(Debug, Default)]
pub struct Metrics {
    link: OnceLock<Link>,
    pub batches_stored: Counter,
    pub batches_duplicate: Counter,
    pub batches_parked: Counter,
    pub batches_quarantined: Counter,
    pub batches_withheld: Counter,
    /// Messages that did not verify.
    pub messages_refused: Counter,
    pub enrolled: Counter,
    pub renewed: Counter,
    pub enrolments_refused: Counter,
}

impl Metrics {
    /// The wire's own counters are part of the text from now on.
    pub fn watch(&self, link: Link) {
        // A second one in one process is a test's; the first one stays.
        let _ = self.link.set(link);
    }

    /// All of it as text.
    pub fn text(&self) -> String {
        let mut page = Page(String::with_capacity(8 * 1024));
        page.of(
            "batches_total",
            "counter",
            "Batches from agents, by what became of them.",
            "outcome",
            &[
                ("stored", self.batches_stored.get()),
                ("duplicate", self.batches_duplicate.get()),
                ("parked", self.batches_parked.get()),
                ("quarantined", self.batches_quarantined.get()),
                ("withheld", self.batches_withheld.get()),
            ],
        );
        let one = [("", self.messages_refused.get())];
        page.of("messages_refused_total", "counter", "Messages that did not verify.", "", &one);
        page.of(
            "enrolments_total",
            "counter",
            "Requests on the enrolment port, by outcome.",
            "outcome",
            &[
                ("enrolled", self.enrolled.get()),
                ("renewed", self.renewed.get()),
                ("refused", self.enrolments_refused.get()),
            ],
        );
        match self.link.get() {
            Some(Link::Embedded(door)) => page.door(door),
            Some(Link::Remote(remote)) => {
                let (connected, times) = remote.state();
                let help = "Whether the operator's broker has us.";
                page.of("broker_connected", "gauge", help, "", &[("", u64::from(connected))]);
                let help = "How often the operator's broker took us in.";
                page.of("broker_connections_total", "counter", help, "", &[("", times)]);
            }
            None => {}
        }
        page.0
    }
}

struct Page(String);

impl Page {
    fn of(&mut self, name: &str, kind: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP hashinsight_{name} {help}\n# TYPE hashinsight_{name} {kind}");
        for (value, count) in values {
            let _ = match label {
                "" => writeln!(self.0, "hashinsight_{name} {count}"),
                label => writeln!(self.0, "hashinsight_{name}{{{label}=\"{value}\"}} {count}"),
            };
        }
    }

    fn door(&mut self, door: &Broker) {
        let c = door.counters();
        for (name, help, value) in [
            ("door_handshakes", "Connections that have not yet sent a valid CONNECT.", c.handshakes),
            ("door_connected", "Agents connected.", c.connected),
        ] {
            self.of(name, "gauge", help, "", &[("", value)]);
        }
        for (name, help, value) in [
            ("door_accepted_total", "TCP connections accepted.", c.accepted),
            ("door_admitted_total", "Connections admitted.", c.admitted),
            ("door_taken_over_total", "Connections ended by a newer one of the same agent.", c.taken_over),
            ("door_cut_total", "Connections cut because access was taken away.", c.cut),
            ("door_up_messages_total", "Messages from agents, wills included.", c.up_messages),
            ("door_up_bytes_total", "Payload bytes from agents.", c.up_bytes),
            ("door_down_messages_total", "Messages written to agents.", c.down_messages),
            ("door_down_bytes_total", "Payload bytes written to agents.", c.down_bytes),
            ("door_down_full_total", "Messages not taken because an agent's queue was full.", c.down_full),
            ("door_throttled_total", "Publishes after which an agent was read slower.", c.throttled),
            ("door_wills_total", "Wills published.", c.wills),
            ("door_wills_lost_total", "Wills that found no router in time.", c.wills_lost),
            ("door_router_restarts_total", "Routers that died and were replaced.", c.router_restarts),
        ] {
            self.of(name, "counter", help, "", &[("", value)]);
        }
        let refused: Vec<_> = c.refusals().map(|(why, count)| (why.name(), count)).collect();
        self.of("door_refused_total", "counter", "What the door refused, by reason.", "reason", &refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.batches_stored.add(3);
        let text = metrics.text();
        assert!(text.contains("# TYPE hashinsight_batches_total counter\n"), "{text}");
        assert!(text.contains("hashinsight_batches_total{outcome=\"stored\"} 3\n"), "{text}");
        assert!(text.contains("\nhashinsight_messages_refused_total 0\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("hashinsight_") && value.parse::<u64>().is_ok(), "{line}");
        }
    }
}
