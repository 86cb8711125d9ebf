//! Which group a batch of a burst joins.
//!
//! A group is open while it has room and its miners are asked for again; it is known by them. All
//! open groups are forgotten at a start, after a failed commit, and when a dropped group is theirs,
//! so a batch never leans on a key that may not reach the control plane.

use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::envelope::{Body, WireError, checksum};
use hashinsight_protocol::limits;
use hashinsight_protocol::telemetry::{KeyBatch, SampleV1, TelemetryV1};
use std::collections::HashSet;

/// Open groups beside those of the widest burst: bursts of a few miners come in between.
const SPARE: usize = 8;

struct Group {
    key: KeyBatch,
    batches: usize,
    used: u64,
}

#[derive(Default)]
pub(crate) struct Groups {
    open: Vec<Group>,
    widest: usize,
    turn: u64,
}

/// A batch before it is sealed.
pub(crate) struct Draft {
    /// Number of its group's key.
    pub group: u64,
    pub body: Vec<u8>,
}

impl Groups {
    /// Puts the samples of one chunk into the batch that gets number `seq`.
    pub fn draft(
        &mut self,
        seq: u64,
        cycle: u64,
        started: MomentV1,
        samples: &[SampleV1],
    ) -> Result<Draft, WireError> {
        self.turn += 1;
        let ours = |group: &&mut Group| group.key.miners().iter().eq(samples.iter().map(|s| &s.miner));
        if let Some(group) = self.open.iter_mut().find(ours) {
            let body = TelemetryV1::new(cycle, started, samples, Some(&group.key))?.encode()?;
            let draft = Draft { group: group.key.seq, body };
            group.batches += 1;
            group.used = self.turn;
            if group.batches >= limits::GROUP_BATCHES {
                self.forget(draft.group);
            }
            return Ok(draft);
        }
        let batch = TelemetryV1::new(cycle, started, samples, None)?;
        let body = batch.encode()?;
        if let Some(key) = batch.as_key(seq, checksum(&body))? {
            self.open.push(Group { key, batches: 1, used: self.turn });
        }
        Ok(Draft { group: seq, body })
    }

    /// Says how many batches the burst has, and lets go of what has long not been used.
    pub fn settle(&mut self, batches: usize) {
        self.widest = self.widest.max(batches);
        let most = self.widest + SPARE;
        if self.open.len() > most {
            self.open.sort_by_key(|group| std::cmp::Reverse(group.used));
            self.open.truncate(most);
        }
    }

    pub fn forget(&mut self, group: u64) {
        self.open.retain(|open| open.key.seq != group);
    }

    pub fn clear(&mut self) {
        self.open.clear();
    }
}

/// Cuts a burst into batches: miners in the order of their ids, none twice in a batch.
pub(crate) fn chunks(mut samples: Vec<SampleV1>) -> Vec<Vec<SampleV1>> {
    samples.sort_by_key(|sample| sample.miner);
    let mut batches = Vec::new();
    while !samples.is_empty() {
        let mut seen = HashSet::with_capacity(samples.len());
        let (once, again): (Vec<_>, Vec<_>) = samples.into_iter().partition(|s| seen.insert(s.miner));
        batches.extend(once.chunks(limits::SAMPLES).map(<[_]>::to_vec));
        samples = again;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::clock::ClockStateV1;
    use hashinsight_protocol::ids::{BootId, MinerId};
    use hashinsight_protocol::telemetry::PollV1;
    use hashinsight_protocol::units::{BootMillis, DurationMs, Millis};

    fn sample(miner: u16, after: u64) -> SampleV1 {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&miner.to_be_bytes());
        SampleV1::empty(MinerId::from_bytes(id), DurationMs(after), PollV1::Answered)
    }

    fn moment() -> MomentV1 {
        let boot_id = BootId::from_random([1; 16]);
        MomentV1 { wall: Millis(1), boot: BootMillis(1), boot_id, state: ClockStateV1::Synced }
    }

    fn group_of(groups: &mut Groups, seq: u64, miners: &[u16]) -> u64 {
        let samples: Vec<_> = miners.iter().map(|m| sample(*m, seq)).collect();
        groups.draft(seq, seq, moment(), &samples).expect("few").group
    }

    #[test]
    fn a_burst_is_cut_by_miners_and_size() {
        let samples = (0..2500).rev().map(|m| sample(m, 1)).chain([sample(7, 2), sample(7, 3)]).collect();
        let batches = chunks(samples);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500, 1, 1]);
        assert!(batches[0].is_sorted_by_key(|s| s.miner));
        assert_eq!(chunks(Vec::new()), Vec::<Vec<_>>::new());
    }

    #[test]
    fn the_same_miners_share_a_group_until_it_is_full() {
        let mut groups = Groups::default();
        let full = limits::GROUP_BATCHES as u64;
        for seq in 1..=full {
            assert_eq!(group_of(&mut groups, seq, &[1, 2]), 1);
        }
        assert_eq!(group_of(&mut groups, full + 1, &[1, 2]), full + 1);
        assert_eq!(group_of(&mut groups, full + 2, &[1, 2, 3]), full + 2);
        assert_eq!(group_of(&mut groups, full + 3, &[1, 2]), full + 1);
        groups.forget(full + 1);
        assert_eq!(group_of(&mut groups, full + 4, &[1, 2]), full + 4);
    }

    #[test]
    fn open_groups_are_bounded() {
        let mut groups = Groups::default();
        for seq in 1..=100 {
            group_of(&mut groups, seq, &[seq as u16]);
            groups.settle(1);
        }
        assert_eq!(groups.open.len(), 1 + SPARE);
        assert_eq!(group_of(&mut groups, 101, &[100]), 100);
    }
}
