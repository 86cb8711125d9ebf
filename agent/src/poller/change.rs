//! What a person changes of a device beside stopping and waking it: one contact with the same care.

use super::contact::{Aside, Contacts, MAX_REPLY, News};
use crate::live::Entry;
use hashinsight_firmware::{
    self as firmware, Change, DeviceError, Limits, Reading, WriteOutcome, write_time,
};
use hashinsight_protocol::device::FactV1;
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::units::BootMillis;
use std::time::Duration;
use tokio::time::timeout;

/// A change that was sent, or may have been.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The device just before.
    pub before: Reading,
    pub accepted: FactV1,
    /// What was read back.
    pub setting: FactV1,
    pub detail: String,
    /// When the contact was over.
    pub at: BootMillis,
}

impl Contacts {
    /// Changes a device, once it has proven to be the miner. What is read on the way goes `aside`.
    ///
    /// # Errors
    /// Why nothing was sent, or what the device said against it.
    pub async fn change(
        &self,
        entry: &Entry,
        change: &Change,
        deadline: Duration,
        aside: &Aside,
        news: &mut Vec<News>,
    ) -> Result<Sent, String> {
        let Ok(_gate) = timeout(deadline * 2, entry.gate.lock()).await else {
            return Err("not sent: its connection is in use".to_owned());
        };
        if entry.state().miner.out_of_service {
            return Err("not sent: out of service".to_owned());
        }
        let unsent = |error: DeviceError| bounded_text(&format!("not sent: {error}"));
        let device = self.device(&entry.state(), aside);
        let limits = Limits { deadline, max_reply: MAX_REPLY };
        let identified = self.who(entry, &device, &limits).await.map_err(unsent)?;
        if let Err(stranger) = self.recognise(entry, identified.clone(), news) {
            return Err(format!("not sent: {}", stranger.words));
        }
        let before = firmware::read(&self.profiles, &device, &identified, &limits).await.map_err(unsent)?;
        aside.keep(self.clock.now(), before.clone());
        // What was read before says nothing of the time after.
        if let Some(taken) = &mut entry.state().taken {
            taken.read_back = None;
        }
        let now = self.clock.now().wall;
        let longest = write_time(&self.profiles, &identified.firmware, &limits);
        let outcome =
            timeout(longest, firmware::change(&self.profiles, &device, &identified, change, &limits, now));
        let lost = |words: String| WriteOutcome {
            accepted: FactV1::Unknown,
            mode: FactV1::Unknown,
            shape: None,
            detail: words,
        };
        let outcome = match outcome.await {
            Ok(Ok(outcome)) => outcome,
            // A device that goes down for its restart may not get round to an answer.
            Ok(Err(error)) if error.is_lost_reply() => lost(error.to_string()),
            Ok(Err(error)) => return Err(bounded_text(&error.to_string())),
            Err(_) => lost(format!("no end of the write within {:.0} s", longest.as_secs_f32())),
        };
        Ok(Sent {
            before,
            accepted: outcome.accepted,
            setting: outcome.mode,
            detail: bounded_text(&outcome.detail),
            at: self.clock.now().boot,
        })
    }
}
