//! The outbox: readings on their way to the control plane, in `telemetry.db`.
//!
//! **Limits.** The quota of the configuration, overrun by one burst at most; [`limits::SAMPLES`] samples
//! a batch, [`limits::GROUP_BATCHES`] batches a group; calls wait in a queue of 64.
//!
//! **Format.** One row a batch: number, group, and the sealed envelope as it is sent. One sequence of
//! numbers for an epoch, which is the life of one file; a number is given when its burst is
//! committed and never given again: commits wait for the disk, because a number that a power cut took
//! back after its batch was sent would be given to another batch.
//!
//! **Groups.** A burst is cut into batches, each either the key of a new group or a follower of the
//! group of the same miners. New groups begin at a start, when a group is full, when its miners
//! change, and at a connection with a backlog, so that what is new can be sent first. An acknowledged
//! key may be deleted before its followers: the control plane has it.
//!
//! **Acknowledgement.** A batch is deleted when the control plane says that it is stored for good, and
//! for no other reason but those below. Deletions don't wait for the disk: one that is taken back
//! costs a repeated batch, which the control plane knows by its number.
//!
//! **Overflow.** At the quota, on a disk with less than 4 MiB of room (which is the journal's), and when
//! the disk is full, the oldest whole groups are dropped; what was dropped is counted in gaps, one for
//! each run of numbers. A burst that can't be stored even so is a gap too.
//!
//! **Kill and power cut.** A burst is marked before its first poll; a mark without its batches at the
//! next start is a gap with the planned polls.
//!
//! **Corruption.** A file that is corrupt or gone is set aside, a new one with a new epoch takes its
//! place, and what it held, as `telemetry.mark` says, is a gap.
//!
//! **Restored disk.** When the control plane holds numbers that this file has not given, the file is
//! older than what was sent: a new epoch begins, and what was stored since the last confirmed number
//! is sealed anew.
//!
//! **Gaps** are stored here with what they count, in one transaction, and go to the journal's event
//! stream after; a crash in between repeats one, none is lost.

use super::db::{StoreError, Worker};
use super::sealer::Sealer;
use super::telemetry_file::TelemetryFile;
use super::{Journal, Kept};
use crate::sabotage;
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::events::{EventV1, GapCauseV1, GapV1};
use hashinsight_protocol::ids::Epoch;
use hashinsight_protocol::presence::StreamStateV1;
use hashinsight_protocol::telemetry::SampleV1;
use hashinsight_protocol::topics::Stream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

#[cfg(doc)]
use hashinsight_protocol::limits;

/// Gaps that can't be stored anywhere are kept in memory up to this many; beyond, they are merged.
const OWED: usize = 1024;
/// Gaps forwarded at a time.
const FORWARD: usize = 256;

#[derive(Clone)]
pub struct Outbox {
    file: Worker<TelemetryFile>,
    journal: Journal,
    cycle: Arc<AtomicU64>,
    changed: watch::Sender<u64>,
    owed: Arc<Mutex<Vec<(GapV1, MomentV1)>>>,
}

/// What the outbox holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub polls: u64,
}

impl Outbox {
    /// Opens or creates the outbox of a data folder. `quota` is in bytes.
    ///
    /// # Errors
    /// The folder can't be written to, or the file belongs to a newer version.
    pub async fn open(
        data_dir: &Path,
        quota: u64,
        sealer: Sealer,
        journal: Journal,
        at: MomentV1,
    ) -> Result<Self, StoreError> {
        let file = TelemetryFile::open(data_dir, sealer, quota, at)?;
        let outbox = Self {
            cycle: Arc::new(AtomicU64::new(file.next_cycle())),
            changed: watch::Sender::new(file.next_seq()),
            file: Worker::start("outbox", file)?,
            journal,
            owed: Arc::default(),
        };
        outbox.forward_gaps().await;
        Ok(outbox)
    }

    /// The number of the next cycle; each is given once.
    pub fn next_cycle(&self) -> u64 {
        self.cycle.fetch_add(1, Ordering::Relaxed)
    }

    /// Marks a burst as begun: should the process end in its midst, it becomes a gap of `planned_polls`.
    ///
    /// # Errors
    /// The mark could not be stored. The burst may go on; its loss would not be counted.
    pub async fn begin_burst(&self, cycle: u64, planned_polls: u32, at: MomentV1) -> Result<(), StoreError> {
        self.file.call(move |file| file.begin(cycle, planned_polls, at)).await
    }

    /// Stores what a burst has read, in one transaction, and takes its mark away. Samples may come in any
    /// order.
    ///
    /// # Errors
    /// The samples could not be stored; they are counted in a gap.
    pub async fn commit_burst(
        &self,
        cycle: u64,
        started: MomentV1,
        samples: Vec<SampleV1>,
    ) -> Result<(), StoreError> {
        let polls = samples.len() as u64;
        let samples = sabotage::one_lost(cycle, samples);
        let twice = sabotage::planted_now("double", cycle).then(|| samples.clone());
        let committed = self
            .file
            .call(move |file| {
                let outcome = file.commit(cycle, started, samples);
                if let Some(samples) = twice {
                    file.commit(cycle, started, samples)?;
                }
                if outcome.is_err() {
                    file.give_up(cycle);
                }
                Ok((outcome, file.epoch(), file.next_seq()))
            })
            .await;
        let (outcome, epoch, next) = committed?;
        match &outcome {
            Ok(()) => _ = self.changed.send_replace(next),
            Err(error) => {
                tracing::error!(%error, cycle, polls, "a burst could not be stored");
                let (first_cycle, last_cycle, cause) = (cycle, cycle, GapCauseV1::DiskFull);
                self.owe(GapV1 { epoch, cause, first_cycle, last_cycle, seqs: None, polls }, started);
            }
        }
        self.forward_gaps().await;
        outcome
    }

    fn owe(&self, gap: GapV1, at: MomentV1) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let full = owed.len() >= OWED;
        match owed.last_mut() {
            Some((last, _)) if full => {
                last.last_cycle = gap.last_cycle;
                last.polls = last.polls.saturating_add(gap.polls);
            }
            _ => owed.push((gap, at)),
        }
    }

    /// Hands gaps to the journal. What can't be handed over now is tried again with the next burst.
    async fn forward_gaps(&self) {
        let owed = std::mem::take(&mut *self.owed.lock().unwrap_or_else(PoisonError::into_inner));
        for (gap, at) in owed {
            if let Err(error) = self.journal.record(Stream::Events, at, vec![EventV1::Gap(gap.clone())]).await
            {
                tracing::error!(%error, "a gap could not be recorded yet");
                self.owe(gap, at);
            }
        }
        if let Err(error) = self.forward_stored_gaps().await {
            tracing::error!(%error, "gaps could not be recorded yet");
        }
    }

    async fn forward_stored_gaps(&self) -> Result<(), StoreError> {
        loop {
            let gaps = self.file.call(|file| file.gaps(FORWARD)).await?;
            let Some((last, _, at)) = gaps.last() else { return Ok(()) };
            let (last, at) = (*last, *at);
            let events = gaps.into_iter().map(|(_, gap, _)| EventV1::Gap(gap)).collect();
            self.journal.record(Stream::Events, at, events).await?;
            self.file.call(move |file| file.forget_gaps(last)).await?;
        }
    }

    /// Batches with numbers above `after` and up to `until`, lowest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn pending(&self, after: u64, until: u64, limit: usize) -> Result<Vec<Kept>, StoreError> {
        self.file.call(move |file| file.pending(after, until, limit)).await
    }

    /// Deletes what the control plane has for good. Returns the epoch after it: another one where the file
    /// turned out to be a restored one.
    ///
    /// # Errors
    /// The file can't be written; the batches will be sent again.
    pub async fn acked(
        &self,
        epoch: Epoch,
        ranges: Vec<(u64, u64)>,
        at: MomentV1,
    ) -> Result<Epoch, StoreError> {
        let done = self
            .file
            .call(move |file| file.acked(epoch, &ranges, at).map(|()| (file.epoch(), file.next_seq())));
        let (now, next) = done.await?;
        if now != epoch {
            self.changed.send_replace(next);
            self.forward_gaps().await;
        }
        Ok(now)
    }

    /// Lets the next burst start new groups.
    ///
    /// # Errors
    /// The store is closed.
    pub async fn new_groups(&self) -> Result<(), StoreError> {
        self.file
            .call(|file| {
                file.new_groups();
                Ok(())
            })
            .await
    }

    /// Brings all into the one file: the agent ends in order.
    ///
    /// # Errors
    /// The file can't be written; nothing is lost by that.
    pub async fn settle(&self) -> Result<(), StoreError> {
        self.file.call(TelemetryFile::settle).await
    }

    /// What a hello says of this stream.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn state(&self) -> Result<StreamStateV1, StoreError> {
        self.file.call(|file| file.state()).await
    }

    /// Says the next number whenever it changes.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What is held, which is also a sign of life of the outbox's thread.
    ///
    /// # Errors
    /// The store is closed.
    pub async fn usage(&self) -> Result<Usage, StoreError> {
        self.file
            .call(|file| {
                let (bytes, polls) = file.load_now();
                Ok(Usage { bytes, polls })
            })
            .await
    }
}
