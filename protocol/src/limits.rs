//! The bounds of everything that crosses the wire. Whatever is larger is refused before it is decoded.

/// An upward envelope, headers included. A batch of [`SAMPLES`] samples is about a tenth of it.
pub const UP_BYTES: usize = 256 * 1024;
/// A downward envelope. A desired document that names 20,000 miners by id is a third of it.
pub const DOWN_BYTES: usize = 1024 * 1024;
/// An MQTT packet in either direction: the larger envelope and its topic.
pub const PACKET_BYTES: usize = DOWN_BYTES + 1024;
/// Samples in one telemetry batch.
pub const SAMPLES: usize = 1000;
/// Batches that may lean on one key batch, itself included.
pub const GROUP_BATCHES: usize = 60;
/// Events in one batch.
pub const EVENTS: usize = 512;
/// One event, encoded.
pub const EVENT_BYTES: usize = 64 * 1024;
/// Ranges in one acknowledgement.
pub const ACK_RANGES: usize = 256;
/// Unacknowledged batches an agent may have on the wire.
pub const WINDOW: usize = 16;
/// Plans in one desired document.
pub const PLANS: usize = 256;
/// Miners a scope may name.
pub const SCOPE_MINERS: usize = 20_000;
/// Intervals of one plan.
pub const INTERVALS: usize = 1024;
/// Bytes of a text that a person wrote or a device said.
pub const TEXT_BYTES: usize = 512;
/// Keys, and authorities, that one trust list may name.
pub const TRUSTED: usize = 8;
/// A certificate, DER; ours take 500.
pub const CERTIFICATE_BYTES: usize = 4096;
/// A request or reply of enrolment and certificate renewal.
pub const ENROLMENT_BYTES: usize = 64 * 1024;

/// Miners of one message of [`crate::recovery`].
pub const HELD_MINERS: usize = 1000;

/// Cuts a text to [`TEXT_BYTES`] at a character's end, control characters replaced.
pub fn bounded_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(TEXT_BYTES));
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if out.len() + c.len_utf8() > TEXT_BYTES {
            break;
        }
        out.push(c);
    }
    out
}
