use super::*;
use crate::store::document::tests::{at, order, plan};
use crate::store::document::{Opened, Taken, Verdict};
use crate::store::telemetry_file::tests::sealer;
use hashinsight_protocol::envelope::{Body, Envelope};
use hashinsight_protocol::events::{DocumentHeldV1, EventsV1};
use hashinsight_protocol::ids::PlanId;
use hashinsight_protocol::order::CommandV1;
use hashinsight_protocol::plan::PlanV1;
use hashinsight_protocol::topics::Topic;
use std::net::{IpAddr, Ipv4Addr};

fn open(dir: &Path) -> JournalFile {
    JournalFile::open(dir, sealer(1), true).expect("opens")
}

fn events(file: &JournalFile, stream: Stream) -> Vec<EventV1> {
    let agent = file.sealer.agent;
    let mut events = Vec::new();
    for kept in file.pending(stream, 0, u64::MAX, 1000).expect("readable") {
        let envelope = Envelope::open(Topic::Up(agent, stream), &kept.envelope).expect("ours");
        assert_eq!((envelope.header.seq, envelope.header.epoch), (kept.seq, file.epoch));
        let batch = EventsV1::decode(envelope.body).expect("ours");
        events.extend(batch.events.iter().map(|raw| EventV1::from_raw(raw).expect("ours")));
    }
    events
}

fn miner(n: u8) -> InventoryMiner {
    InventoryMiner {
        id: MinerId::from_random([n; 16]),
        ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)),
        api_port: None,
        rack: None,
        position: None,
        customer: None,
        credentials: None,
        out_of_service: false,
        protected: false,
        learned: None,
    }
}

fn document(version: u64, plans: &[PlanV1]) -> Opened {
    Opened { version, plans: plans.to_vec(), refused: Vec::new() }
}

fn held(file: &JournalFile) -> Vec<(PlanId, u32, bool)> {
    let shown = file.signals.plans.borrow();
    shown.iter().map(|h| (h.plan.id, h.plan.revision, h.stop.is_some())).collect()
}

#[test]
fn what_was_stored_is_there_after_a_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = open(dir.path());
    assert!(file.start("1", at(1)).expect("stored"));
    assert_eq!(file.next_session().expect("stored"), 1);
    file.replace_miners(&[miner(1), miner(2)], at(2)).expect("stored");
    let stored = file.store_document(&document(3, &[plan(1, 1), plan(2, 1)]), at(3)).expect("stored");
    assert_eq!(stored, Verdict::Stored);
    let stop = order(1, CommandV1::Stop { plan: plan(2, 1).id, force: true });
    assert!(file.take_order(&stop, at(4)).expect("stored").taken);
    file.remember_good(Millis(77)).expect("stored");
    let (before, told) = (held(&file), events(&file, Stream::Events));
    drop(file);
    let mut file = open(dir.path());
    assert_eq!(held(&file), before);
    assert_eq!(before, [(plan(1, 1).id, 1, false), (plan(2, 1).id, 1, true)]);
    assert_eq!(events(&file, Stream::Events), told);
    assert_eq!(file.miners().expect("readable").len(), 2);
    assert_eq!((file.document().expect("readable"), file.next_session().expect("stored")), (3, 2));
    assert_eq!(file.last_good().expect("readable"), Millis(77));
    assert!(!file.start("1", at(5)).expect("stored"), "the last run did not end in order");
    file.end().expect("stored");
    assert!(file.start("1", at(6)).expect("stored"));
}

#[test]
fn a_document_is_taken_once_and_never_an_older_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = open(dir.path());
    for (version, expect) in [(5, Verdict::Stored), (5, Verdict::NotNewer), (4, Verdict::NotNewer)] {
        let plans = [plan(version as u8, 1)];
        assert_eq!(file.store_document(&document(version, &plans), at(1)).expect("stored"), expect);
    }
    assert_eq!(held(&file), [(plan(5, 1).id, 1, false)]);
    let told = events(&file, Stream::Events);
    let held = DocumentHeldV1 { version: 5, plans: vec![(plan(5, 1).id, 1)] };
    assert_eq!(told, [EventV1::Document(held)]);
}

#[test]
fn an_order_acts_once_and_its_repeat_tells_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = open(dir.path());
    file.store_document(&document(1, &[plan(1, 1)]), at(1)).expect("stored");
    let stop = order(1, CommandV1::Stop { plan: plan(1, 1).id, force: false });
    let taken = |repeat| Taken { repeat, taken: true, reason: String::new() };
    assert_eq!(file.take_order(&stop, at(2)).expect("stored"), taken(false));
    // A new revision may run again; the old order, replayed, must not end it.
    file.store_document(&document(2, &[plan(1, 2)]), at(3)).expect("stored");
    drop(file);
    let mut file = open(dir.path());
    assert_eq!(file.take_order(&stop, at(4)).expect("stored"), taken(true));
    assert_eq!(held(&file), [(plan(1, 2).id, 2, false)]);
    let refused = order(2, CommandV1::Cancel { plan: plan(9, 1).id });
    for repeat in [false, true] {
        let outcome = file.take_order(&refused, at(5)).expect("stored");
        assert_eq!((outcome.repeat, outcome.taken), (repeat, false));
        assert!(outcome.reason.contains("no such plan"));
    }
    let results = events(&file, Stream::Events).iter().filter(|e| matches!(e, EventV1::Order(_))).count();
    assert_eq!(results, 4);
}

#[test]
fn leases_are_not_written_and_start_anew_with_every_contact() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = open(dir.path());
    file.store_document(&document(1, &[plan(1, 1), plan(2, 1)]), at(10)).expect("stored");
    let told = events(&file, Stream::Events).len();
    let leases = |file: &JournalFile| {
        file.signals.plans.borrow().iter().map(|h| h.lease_from.map(|b| b.0)).collect::<Vec<_>>()
    };
    let lease = order(1, CommandV1::Lease { plan: plan(2, 1).id, seq: 1 });
    file.take_order(&lease, at(20)).expect("taken");
    assert_eq!(leases(&file), [Some(10), Some(20)]);
    file.contact(at(30));
    assert_eq!(leases(&file), [Some(30), Some(30)]);
    assert_eq!(events(&file, Stream::Events).len(), told);
    drop(file);
    assert_eq!(leases(&open(dir.path())), [None, None], "a contact of another run says nothing");
}

#[test]
fn the_inventory_tells_what_is_new_changed_and_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = open(dir.path());
    file.replace_miners(&[miner(1), miner(2)], at(1)).expect("stored");
    let moved = InventoryMiner { ip: IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9)), ..miner(2) };
    file.replace_miners(&[moved.clone(), miner(3)], at(2)).expect("stored");
    let locked = InventoryMiner { out_of_service: true, ..moved.clone() };
    let lock = [(moved.id, MinerEdit::OutOfService(true))];
    assert_eq!(file.edit(&lock, at(3)).expect("stored"), 1);
    assert_eq!(file.edit(&lock, at(4)).expect("stored"), 1);
    assert_eq!(file.edit(&[(miner(1).id, MinerEdit::Protected(true))], at(5)).expect("it has left"), 0);
    // What is learned meanwhile does not undo it.
    file.learn(std::slice::from_ref(&moved), at(6)).expect("stored");
    assert!(file.miners().expect("readable").contains(&locked));
    let told = events(&file, Stream::Events);
    let gone = |n| EventV1::MinerGone(MinerGoneV1 { miner: miner(n).id });
    let seen = |m: &InventoryMiner| EventV1::Miner(m.seen());
    assert_eq!(told, [seen(&miner(1)), seen(&miner(2)), seen(&miner(3)), gone(1), seen(&locked)]);
    assert_eq!(file.miners().expect("readable"), [locked, miner(3)]);
}

#[test]
fn a_tool_writes_beside_the_agent_and_is_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut agent = open(dir.path());
    agent.replace_miners(&[miner(1)], at(1)).expect("stored");
    let changes = agent.signals.miners.subscribe();
    agent.look().expect("readable");
    assert!(!changes.has_changed().expect("open"));
    let mut tool = JournalFile::open(dir.path(), sealer(1), false).expect("opens");
    tool.replace_miners(&[miner(1), miner(2)], at(2)).expect("stored");
    agent.look().expect("readable");
    assert!(changes.has_changed().expect("open"));
    agent.replace_miners(&[miner(2)], at(3)).expect("stored");
    let seqs: Vec<_> =
        agent.pending(Stream::Events, 0, u64::MAX, 99).expect("readable").iter().map(|k| k.seq).collect();
    assert_eq!(seqs, [1, 2, 3]);
}

#[test]
fn acknowledged_batches_go_and_a_restored_file_gets_a_new_epoch() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = open(dir.path());
    for n in 1..=4 {
        file.replace_miners(&[miner(n)], at(1)).expect("stored");
    }
    let epoch = file.epoch();
    file.acked(Stream::Events, epoch, &[(1, 1), (3, 3)]).expect("stored");
    let state = file.state(Stream::Events).expect("readable");
    assert_eq!((state.lowest, state.next), (2, 5));
    assert_eq!(file.pending(Stream::Events, 0, u64::MAX, 9).expect("readable").len(), 2);
    file.acked(Stream::Audit, epoch, &[(1, 1)]).expect("stored");
    assert_ne!(file.epoch(), epoch, "number 1 of this stream was never given");
    let told = events(&file, Stream::Events);
    assert_eq!(told.len(), 4, "what is kept is kept under the new epoch: {told:?}");
    let state = file.state(Stream::Events).expect("readable");
    assert_eq!((state.lowest, state.next), (1, 3));
}

#[test]
fn a_corrupt_journal_is_set_aside_and_read_as_far_as_it_can_be() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = open(dir.path());
    let miners: Vec<_> = (1..=200).map(miner).collect();
    file.replace_miners(&miners, at(1)).expect("stored");
    file.store_document(&document(3, &[plan(1, 1)]), at(2)).expect("stored");
    file.next_session().expect("stored");
    let root: u32 = file
        .conn
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'batches'", [], |row| row.get(0))
        .expect("there");
    file.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("written back");
    let epoch = file.epoch();
    drop(file);
    let db = std::fs::OpenOptions::new().write(true).open(dir.path().join(FILE)).expect("there");
    let page = u64::from(root - 1) * 4096;
    std::os::unix::fs::FileExt::write_all_at(&db, &[0xee; 4096], page).expect("writable");
    let mut file = open(dir.path());
    assert_ne!(file.epoch(), epoch);
    assert_eq!(file.miners().expect("readable"), miners);
    assert_eq!(held(&file), [(plan(1, 1).id, 1, false)]);
    assert_eq!((file.document().expect("readable"), file.next_session().expect("stored")), (3, 2));
    file.start("1", at(5)).expect("stored");
    let alarm = events(&file, Stream::Events).into_iter().find(|e| matches!(e, EventV1::Alarm(_)));
    assert!(alarm.is_some());
    // Beyond all reading.
    drop(file);
    std::fs::write(dir.path().join(FILE), [3; 9000]).expect("writable");
    let mut file = open(dir.path());
    assert_eq!(file.miners().expect("readable"), []);
    file.start("1", at(6)).expect("stored");
}

#[test]
fn another_identity_keeps_plans_and_seals_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = open(dir.path());
    file.store_document(&document(3, &[plan(1, 1)]), at(2)).expect("stored");
    drop(file);
    let file = JournalFile::open(dir.path(), sealer(2), true).expect("opens");
    assert_eq!(events(&file, Stream::Events).len(), 1);
    assert_eq!(held(&file).len(), 1);
    assert_eq!(file.document().expect("readable"), 0, "a document is meant for one agent");
}

#[test]
fn a_step_is_stored_with_its_events_and_read_back() {
    use hashinsight_curtailment::{Book, Steady, WearRecord};
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = open(dir.path());
    let wear = |n, stops| Change::Wear(WearRecord { miner: miner(n).id, stops, woken: None });
    let alarm = |text: &str| {
        EventV1::Alarm(AlarmV1 { kind: AlarmKindV1::Identity, miner: None, text: text.to_owned() })
    };
    let first = [wear(1, vec![]), wear(2, vec![])];
    file.commit_step(&first, at(1), &[alarm("a"), alarm("b")]).expect("stored");
    let second = [Change::WearGone(miner(1).id), wear(2, vec![Steady::default()])];
    file.commit_step(&second, at(2), &[]).expect("stored");
    drop(file);
    let file = open(dir.path());
    let expect = Book::from([&first[..], &second[..]].concat());
    assert_eq!(Book::from(file.book().expect("readable")), expect);
    assert_eq!(events(&file, Stream::Evidence), [alarm("a"), alarm("b")]);
    assert_eq!(file.pending(Stream::Evidence, 0, u64::MAX, 9).expect("readable").len(), 1);
}
