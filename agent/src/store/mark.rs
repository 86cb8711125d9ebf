//! `telemetry.mark`: what the outbox held, beside it, so that its loss can be counted.
//!
//! One record, overwritten in place after each commit, without waiting for the disk: right after a
//! killed process, possibly old after a power cut. It starts with a checksum of the rest; a record
//! that doesn't fit its checksum is as good as none.

use hashinsight_protocol::envelope::checksum;
use hashinsight_protocol::ids::Epoch;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const FILE: &str = "telemetry.mark";
/// Within one sector, which disks write whole.
const BYTES: usize = 512;

/// What an outbox holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub epoch: Epoch,
    /// Numbers of the oldest and newest batch kept; `None` when there is none.
    pub seqs: Option<(u64, u64)>,
    pub cycles: (u64, u64),
    pub polls: u64,
}

pub(crate) struct Mark(Option<File>);

impl Mark {
    /// Opens the record and reads what stands in it. Without it the outbox works as well.
    pub fn open(dir: &Path) -> (Self, Option<Held>) {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        match options.open(dir.join(FILE)) {
            Ok(file) => {
                let held = read(&file);
                (Self(Some(file)), held)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot keep the outbox's mark");
                (Self(None), None)
            }
        }
    }

    /// Keeps nothing.
    pub fn none() -> Self {
        Self(None)
    }

    pub fn write(&self, held: &Held) {
        let (Some(file), Ok(json)) = (&self.0, serde_json::to_string(held)) else { return };
        let mut record = format!("{:08x} {json}", checksum(json.as_bytes())).into_bytes();
        record.resize(BYTES, b'\n');
        if let Err(error) = file.write_all_at(&record, 0) {
            tracing::debug!(%error, "cannot write the outbox's mark");
        }
    }
}

fn read(file: &File) -> Option<Held> {
    let mut record = [0; BYTES];
    file.read_exact_at(&mut record, 0).ok()?;
    let (sum, json) = str::from_utf8(&record).ok()?.trim_end().split_once(' ')?;
    let fits = u32::from_str_radix(sum, 16).is_ok_and(|sum| sum == checksum(json.as_bytes()));
    fits.then(|| serde_json::from_str(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_record_reads_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mark, none) = Mark::open(dir.path());
        assert_eq!(none, None);
        let epoch = Epoch::from_random([7; 16]);
        let max = u64::MAX;
        let held = Held { epoch, seqs: Some((max, max)), cycles: (max, max), polls: max };
        mark.write(&held);
        let short = Held { epoch, seqs: None, cycles: (0, 0), polls: 0 };
        assert_eq!(Mark::open(dir.path()).1, Some(held));
        mark.write(&short);
        assert_eq!(Mark::open(dir.path()).1, Some(short));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let dir = tempfile::tempdir().expect("a folder");
            std::fs::write(dir.path().join(FILE), &bytes).expect("writable");
            prop_assert_eq!(Mark::open(dir.path()).1, None);
        }
    }
}
