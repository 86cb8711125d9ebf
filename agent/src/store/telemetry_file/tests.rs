use super::*;
use hashinsight_protocol::clock::ClockStateV1;
use hashinsight_protocol::envelope::{Body, Envelope};
use hashinsight_protocol::events::GapV1;
use hashinsight_protocol::ids::{BootId, MinerId};
use hashinsight_protocol::limits;
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::telemetry::{KeyBatch, PollV1, RosterV1, TelemetryV1};
use hashinsight_protocol::topics::Topic;
use hashinsight_protocol::units::{BootMillis, DurationMs, Hashrate, Millis};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const PLENTY: u64 = 1 << 40;

pub(crate) fn sealer(n: u8) -> Sealer {
    let key = SigningKey::from_seed(&[n; 32]).expect("a seed");
    Sealer::new(AgentId::from_random([n; 16]), Arc::new(key))
}

pub(crate) fn at(n: u64) -> MomentV1 {
    let (wall, boot) = (Millis(n as i64), BootMillis(n));
    MomentV1 { wall, boot, boot_id: BootId::from_random([1; 16]), state: ClockStateV1::Synced }
}

fn samples(miners: u16, cycle: u64) -> Vec<SampleV1> {
    let sample = |n: u16| {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        SampleV1 {
            hashrate: Hashrate::new((cycle * 1000 + u64::from(n)) as f64),
            ..SampleV1::empty(MinerId::from_bytes(id), DurationMs(cycle), PollV1::Answered)
        }
    };
    (0..miners).map(sample).collect()
}

/// A control plane that stores what it gets, as far as the file is concerned.
#[derive(Default)]
struct Cloud {
    keys: BTreeMap<(Epoch, u64), KeyBatch>,
    /// Samples by epoch and number.
    held: BTreeMap<(Epoch, u64), Vec<SampleV1>>,
}

impl Cloud {
    /// Takes a batch; `false` when its key isn't here.
    fn take(&mut self, agent: AgentId, kept: &Kept) -> bool {
        let envelope = Envelope::open(Topic::Up(agent, Stream::Telemetry), &kept.envelope).expect("ours");
        assert_eq!(envelope.header.seq, kept.seq);
        let epoch = envelope.header.epoch;
        let batch = TelemetryV1::decode(envelope.body).expect("ours");
        if let Some(key) = batch.as_key(kept.seq, envelope.header.checksum).expect("well formed") {
            self.keys.insert((epoch, kept.seq), key);
        }
        let key = match batch.roster {
            RosterV1::Own(_) => None,
            RosterV1::Key { seq, .. } => match self.keys.get(&(epoch, seq)) {
                Some(key) => Some(key),
                None => return false,
            },
        };
        let samples = batch.samples(key).expect("well formed");
        if let Some(before) = self.held.insert((epoch, kept.seq), samples.clone()) {
            assert_eq!(before, samples, "a number was given twice");
        }
        true
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// A burst of so many miners.
    Burst(u16),
    /// A burst that a kill ends.
    Killed(u32),
    Reopen,
    /// The nth batch kept arrives, with or without its acknowledgement.
    Arrive {
        nth: usize,
        acked: bool,
    },
    ForwardGaps,
    NewGroups,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => prop_oneof![Just(3u16), Just(4), Just(1), Just(0)].prop_map(Act::Burst),
        1 => (1u32..9).prop_map(Act::Killed),
        1 => Just(Act::Reopen),
        6 => (0usize..12, any::<bool>()).prop_map(|(nth, acked)| Act::Arrive { nth, acked }),
        1 => Just(Act::ForwardGaps),
        1 => Just(Act::NewGroups),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Against a pure model of what was committed: every sample is in the file, at the control plane, or in a
    /// gap that names its batch, and never nowhere.
    #[test]
    fn nothing_is_lost_without_a_gap(acts in proptest::collection::vec(act(), 1..80), quota in prop_oneof![Just(PLENTY), 900u64..4000]) {
        let dir = tempfile::tempdir().expect("a folder");
        let sealer = sealer(1);
        let open = |now| TelemetryFile::open(dir.path(), sealer.clone(), quota, at(now)).expect("opens");
        let mut file = open(0);
        let epoch = file.epoch();
        let mut cloud = Cloud::default();
        let mut committed: BTreeMap<u64, Vec<SampleV1>> = BTreeMap::new();
        let mut lost_polls = 0u64;
        let mut gaps: Vec<GapV1> = Vec::new();
        let mut cycle = 0;
        for (now, act) in acts.into_iter().enumerate() {
            let now = now as u64 + 1;
            match act {
                Act::Burst(miners) => {
                    cycle += 1;
                    let seq = file.next_seq();
                    file.begin(cycle, u32::from(miners), at(now)).expect("stored");
                    file.commit(cycle, at(now), samples(miners, cycle)).expect("stored");
                    prop_assert_eq!(file.next_seq(), seq + u64::from(miners > 0));
                    if miners > 0 {
                        committed.insert(seq, samples(miners, cycle));
                    }
                }
                Act::Killed(planned) => {
                    cycle += 1;
                    file.begin(cycle, planned, at(now)).expect("stored");
                    lost_polls += u64::from(planned);
                    drop(file);
                    file = open(now);
                    prop_assert!(file.next_cycle() > cycle);
                }
                Act::Reopen => {
                    drop(file);
                    file = open(now);
                }
                Act::Arrive { nth, acked } => {
                    let pending = file.pending(0, u64::MAX, 100).expect("readable");
                    if let Some(kept) = pending.get(nth % pending.len().max(1)) {
                        let taken = cloud.take(sealer.agent, kept);
                        if taken && acked {
                            file.acked(epoch, &[(kept.seq, kept.seq)], at(now)).expect("stored");
                        }
                    }
                }
                Act::ForwardGaps => {
                    let found = file.gaps(100).expect("readable");
                    if let Some((last, ..)) = found.last() {
                        file.forget_gaps(*last).expect("stored");
                    }
                    gaps.extend(found.into_iter().map(|(_, gap, _)| gap));
                }
                Act::NewGroups => file.new_groups(),
            }
            let pending = file.pending(0, u64::MAX, 1000).expect("readable");
            let bytes: usize = pending.iter().map(|k| k.envelope.len()).sum();
            prop_assert_eq!(file.load_now().0, bytes as u64, "the sum is kept right");
        }
        gaps.extend(file.gaps(1000).expect("readable").into_iter().map(|(_, gap, _)| gap));
        prop_assert_eq!(file.epoch(), epoch);

        // What is still kept arrives in its order; what can't be read there waits for a key that was dropped.
        let pending = file.pending(0, u64::MAX, 1000).expect("readable");
        for kept in &pending {
            prop_assert!(cloud.take(sealer.agent, kept), "batch {} leans on nothing", kept.seq);
        }
        let dropped = |seq: u64| gaps.iter().any(|g| g.seqs.is_some_and(|(a, b)| (a..=b).contains(&seq)));
        for (seq, samples) in &committed {
            match cloud.held.get(&(epoch, *seq)) {
                Some(held) => prop_assert_eq!(held, samples),
                None => prop_assert!(dropped(*seq), "batch {} is nowhere", seq),
            }
            prop_assert!(!(dropped(*seq) && pending.iter().any(|k| k.seq == *seq)), "{} is kept and in a gap", seq);
        }
        let polls = |cause| gaps.iter().filter(|g| g.cause == cause).map(|g| g.polls).sum::<u64>();
        prop_assert_eq!(polls(GapCauseV1::BurstLost), lost_polls);
        let in_gaps: usize = committed.iter().filter(|(seq, _)| dropped(**seq)).map(|(_, s)| s.len()).sum();
        prop_assert_eq!(polls(GapCauseV1::Quota), in_gaps as u64);
        if quota == PLENTY {
            prop_assert_eq!(in_gaps, 0);
        }
    }

    #[test]
    fn a_file_of_garbage_is_set_aside(bytes in proptest::collection::vec(any::<u8>(), 1..9000)) {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(FILE), &bytes).expect("writable");
        let mut file = TelemetryFile::open(dir.path(), sealer(1), PLENTY, at(0)).expect("opens");
        file.commit(1, at(1), samples(3, 1)).expect("stored");
        let aside = std::fs::read_dir(dir.path()).expect("a folder")
            .filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().contains("corrupt"))).count();
        prop_assert_eq!(aside, 1);
    }
}

fn burst(file: &mut TelemetryFile, miners: u16, cycle: u64) {
    file.begin(cycle, u32::from(miners), at(cycle)).expect("stored");
    file.commit(cycle, at(cycle), samples(miners, cycle)).expect("stored");
}

fn gaps(file: &TelemetryFile) -> Vec<GapV1> {
    file.gaps(1000).expect("readable").into_iter().map(|(_, gap, _)| gap).collect()
}

#[test]
fn a_lost_file_is_a_new_epoch_and_a_counted_gap() {
    for corrupt in [false, true] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut file = TelemetryFile::open(dir.path(), sealer(1), PLENTY, at(0)).expect("opens");
        for cycle in 1..=5 {
            burst(&mut file, 10, cycle);
        }
        file.acked(file.epoch(), &[(1, 2)], at(6)).expect("stored");
        let epoch = file.epoch();
        drop(file);
        let path = dir.path().join(FILE);
        if corrupt {
            std::fs::write(&path, vec![7; 5000]).expect("writable");
            let _ = std::fs::remove_file(dir.path().join("telemetry.db-wal"));
        } else {
            std::fs::remove_file(&path).expect("there");
        }
        let file = TelemetryFile::open(dir.path(), sealer(1), PLENTY, at(7)).expect("opens");
        assert_ne!(file.epoch(), epoch);
        assert_eq!(file.next_seq(), 1);
        let gap = GapV1 {
            epoch,
            cause: GapCauseV1::Corrupt,
            first_cycle: 3,
            last_cycle: 5,
            seqs: Some((3, 5)),
            polls: 30,
        };
        assert_eq!(gaps(&file), [gap]);
    }
}

#[test]
fn a_file_that_goes_bad_while_it_is_used_is_replaced() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = TelemetryFile::open(dir.path(), sealer(1), PLENTY, at(0)).expect("opens");
    for cycle in 1..=40 {
        burst(&mut file, 300, cycle);
    }
    let epoch = file.epoch();
    file.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("written back");
    // All pages but the first, under the open file.
    let path = dir.path().join(FILE);
    let size = std::fs::metadata(&path).expect("there").len() as usize;
    let db = std::fs::OpenOptions::new().write(true).open(&path).expect("there");
    std::os::unix::fs::FileExt::write_all_at(&db, &vec![0xff; size - 4096], 4096).expect("writable");
    file.conn.execute_batch("PRAGMA shrink_memory").expect("forgets its pages");
    burst(&mut file, 300, 41);
    assert_ne!(file.epoch(), epoch);
    assert_eq!(file.next_cycle(), 42, "cycles go on");
    let gap = gaps(&file).pop().expect("a gap");
    assert_eq!((gap.epoch, gap.cause, gap.polls), (epoch, GapCauseV1::Corrupt, 12_000));
    assert_eq!(file.pending(0, u64::MAX, 9).expect("readable").len(), 1);
}

#[test]
fn a_restored_disk_goes_on_under_a_new_epoch_with_what_is_new() {
    let dir = tempfile::tempdir().expect("a folder");
    let (sealer, mut cloud) = (sealer(1), Cloud::default());
    let open = || TelemetryFile::open(dir.path(), sealer.clone(), PLENTY, at(0)).expect("opens");
    let path = dir.path().join(FILE);
    let mut file = open();
    let epoch = file.epoch();
    let deliver = |file: &mut TelemetryFile, cloud: &mut Cloud| {
        let epoch = file.epoch();
        for kept in file.pending(0, u64::MAX, 100).expect("readable") {
            assert!(cloud.take(sealer.agent, &kept));
            file.acked(epoch, &[(kept.seq, kept.seq)], at(1)).expect("stored");
        }
    };
    (1..=3).for_each(|cycle| burst(&mut file, 5, cycle));
    deliver(&mut file, &mut cloud);
    drop(file);
    let image = std::fs::read(&path).expect("there");
    let mut file = open();
    (4..=9).for_each(|cycle| burst(&mut file, 5, cycle));
    deliver(&mut file, &mut cloud);
    drop(file);
    std::fs::write(&path, image).expect("writable");
    let mut file = open();
    (4..=6).for_each(|cycle| burst(&mut file, 5, cycle + 100));
    file.acked(epoch, &[(1, 9)], at(2)).expect("stored");
    assert_ne!(file.epoch(), epoch);
    let kept = file.pending(0, u64::MAX, 100).expect("readable");
    assert_eq!(kept.iter().map(|k| k.seq).collect::<Vec<_>>(), [1, 2, 3]);
    deliver(&mut file, &mut cloud);
    assert_eq!(gaps(&file), []);
    let of_new: Vec<_> =
        cloud.held.iter().filter(|((e, _), _)| *e == file.epoch()).map(|(_, s)| s.clone()).collect();
    assert_eq!(of_new, [samples(5, 104), samples(5, 105), samples(5, 106)]);
}

#[test]
fn an_acknowledgement_of_another_epoch_deletes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = TelemetryFile::open(dir.path(), sealer(1), PLENTY, at(0)).expect("opens");
    burst(&mut file, 5, 1);
    file.acked(Epoch::from_random([9; 16]), &[(1, 1)], at(2)).expect("nothing to do");
    assert_eq!(file.state().expect("readable").lowest, 1);
    file.acked(file.epoch(), &[(1, 1)], at(2)).expect("stored");
    let state = file.state().expect("readable");
    assert_eq!((state.lowest, state.next), (2, 2));
}

#[test]
fn another_identity_seals_anew_what_is_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = TelemetryFile::open(dir.path(), sealer(1), PLENTY, at(0)).expect("opens");
    (1..=4).for_each(|cycle| burst(&mut file, 5, cycle));
    // The key is delivered, so the rest of its group can't be read by another agent's control plane.
    file.acked(file.epoch(), &[(1, 1)], at(5)).expect("stored");
    file.new_groups();
    (5..=6).for_each(|cycle| burst(&mut file, 5, cycle));
    drop(file);
    let file = TelemetryFile::open(dir.path(), sealer(2), PLENTY, at(7)).expect("opens");
    let mut cloud = Cloud::default();
    for kept in file.pending(0, u64::MAX, 100).expect("readable") {
        assert!(cloud.take(sealer(2).agent, &kept));
    }
    assert_eq!(cloud.held.len(), 2);
    assert_eq!(gaps(&file).iter().map(|g| g.polls).sum::<u64>(), 15);
}

#[test]
fn on_a_low_disk_the_file_does_not_grow() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = TelemetryFile::open(dir.path(), sealer(1), PLENTY, at(0)).expect("opens");
    for cycle in 1..=160 {
        burst(&mut file, 2500, cycle);
        if file.load_now().0 < LITTLE / 2 {
            file.make_room(3000, true, at(cycle)).expect("there is room for a little");
            assert!(gaps(&file).is_empty());
        }
    }
    let before = file.load_now().0;
    assert!(before > LITTLE, "{before}");
    file.make_room(3000, true, at(161)).expect("there is something to give up");
    assert!(file.load_now().0 + 3000 <= before);
    let gaps = gaps(&file);
    assert!(!gaps.is_empty() && gaps.iter().all(|g| g.cause == GapCauseV1::DiskFull));
    assert_eq!(gaps.iter().map(|g| g.polls).sum::<u64>() + file.load_now().1, 160 * 2500);
}

#[test]
fn large_sites_are_cut_into_groups_that_are_dropped_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = TelemetryFile::open(dir.path(), sealer(1), 700_000, at(0)).expect("opens");
    for cycle in 1..=70 {
        burst(&mut file, 2500, cycle);
    }
    assert!(file.load_now().0 < 900_000, "{}", file.load_now().0);
    let gaps = gaps(&file);
    assert!(!gaps.is_empty());
    let lost: u64 = gaps.iter().map(|g| g.polls).sum();
    assert_eq!(lost + file.load_now().1, 70 * 2500);
    // Whoever is left can be read.
    let mut cloud = Cloud::default();
    for kept in file.pending(0, u64::MAX, 1000).expect("readable") {
        assert!(kept.envelope.len() <= limits::UP_BYTES);
        assert!(cloud.take(sealer(1).agent, &kept));
    }
}
