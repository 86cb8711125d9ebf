//! A simulated site around the pure engine: model miners, an agent that may be killed at any point, clocks
//! that jump, contact that comes and goes. Everything that must always hold is checked at every step, by
//! what the devices do, not by what the engine believes.
#![allow(clippy::unwrap_used, dead_code)]

pub mod device;
pub mod scenario;

use device::{ASLEEP, Device, Kind, STANDBY};
use hashinsight_curtailment::*;
use hashinsight_protocol::clock::ClockStateV1;
use hashinsight_protocol::device::{FactV1, ModeV1, PowerSourceV1, PreStateV1};
use hashinsight_protocol::evidence::TargetStateV1;
use hashinsight_protocol::ids::{BootId, MinerId};
use hashinsight_protocol::plan::{LostContactV1, RecoveryV1};
use hashinsight_protocol::units::{BootMillis, DurationMs, Hashrate, Millis, Watts};
use scenario::{Fault, Scenario, miner_id};
use std::collections::{BTreeMap, BTreeSet};

pub const BASE: i64 = 1_800_000_000_000;
/// Seconds of trouble; then every plan is stopped and every device answers.
pub const QUIET: u64 = 1800;
const LAST: u64 = QUIET + 4 * 3600;
const TICK: u64 = 2000;

pub fn policy() -> Policy {
    Policy {
        reading_max_age: DurationMs::from_secs(20),
        confirm_within: DurationMs::from_secs(40),
        restored_within: DurationMs::from_secs(60),
        write_timeout: DurationMs::from_secs(15),
        late_write: DurationMs::from_secs(60),
        stop_retry: DurationMs::from_secs(5),
        stop_retry_max: DurationMs::from_secs(60),
        wake_retry: DurationMs::from_secs(5),
        wake_retry_max: DurationMs::from_secs(60),
        again_after: DurationMs::from_secs(60),
        heartbeat: DurationMs::from_secs(10),
        seed: 7,
        ..Policy::default()
    }
}

/// A broken invariant: its number in the design, and what happened.
#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: u8,
    pub what: String,
}

/// How often things happened, so that a test that proves nothing is seen.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub stops: usize,
    pub wakes: usize,
    pub crashes: usize,
    pub reboots: usize,
    pub curtailed: usize,
    pub drifted: usize,
    pub refused: usize,
    pub unreachable: usize,
    pub restore_failed: usize,
    pub forced: usize,
    pub dispatches: usize,
}

pub struct World {
    scenario: Scenario,
    pub devices: Vec<Device>,
    pub book: Book,
    policy: Policy,
    /// True time in ms, and the one that this boot began at.
    t: u64,
    boot_began: u64,
    boots: u8,
    down_until: u64,
    downtime: u64,
    wall_error: i64,
    clock: ClockStateV1,
    sync_at: Option<u64>,
    contact: bool,
    last_contact: Option<BootMillis>,
    out_of_service: BTreeSet<usize>,
    seen: Vec<Observation>,
    /// Reads under way: what they will tell, and when.
    reads: BTreeMap<usize, (u64, Observation)>,
    pub outcomes: Vec<(u64, Observation)>,
    readings: Vec<Option<MinerReading>>,
    last_read: BTreeMap<usize, (u64, PreStateV1)>,
    last_write: BTreeMap<usize, u64>,
    fired: BTreeMap<DispatchKey, u64>,
    /// After a reboot: when a dispatch has to have ended.
    remainders: BTreeMap<DispatchKey, u64>,
    steps_down: BTreeMap<DispatchKey, u64>,
    steps_up: BTreeMap<DispatchKey, u64>,
    jumped: bool,
    pub violations: Vec<Violation>,
    pub counts: Counts,
    pub log: Vec<String>,
    /// All that was reported, with its second.
    pub events: Vec<(u64, Event)>,
    /// Orders beside those of the scenario.
    pub edit: Option<Edit>,
}

/// Changes a held plan at a second.
pub type Edit = Box<dyn Fn(&mut HeldPlan, u64)>;

impl World {
    pub fn new(scenario: Scenario) -> Self {
        let devices: Vec<Device> = scenario.devices.iter().cloned().map(Device::new).collect();
        Self {
            readings: vec![None; devices.len()],
            devices,
            scenario,
            book: Book::default(),
            policy: policy(),
            t: 100_000,
            boot_began: 0,
            boots: 1,
            down_until: 0,
            downtime: 0,
            wall_error: 0,
            clock: ClockStateV1::Synced,
            sync_at: None,
            contact: true,
            last_contact: None,
            out_of_service: BTreeSet::new(),
            seen: vec![Observation::Restarted],
            reads: BTreeMap::new(),
            outcomes: Vec::new(),
            last_read: BTreeMap::new(),
            last_write: BTreeMap::new(),
            fired: BTreeMap::new(),
            remainders: BTreeMap::new(),
            steps_down: BTreeMap::new(),
            steps_up: BTreeMap::new(),
            jumped: false,
            violations: Vec::new(),
            counts: Counts::default(),
            log: Vec::new(),
            events: Vec::new(),
            edit: None,
        }
    }

    /// Seconds since the plans' zero.
    fn seconds(&self) -> u64 {
        (self.t - 100_000) / 1000
    }

    fn now(&self) -> Now {
        Now {
            wall: Millis(BASE + self.t as i64 - 100_000 + self.wall_error),
            boot: BootMillis(self.t - self.boot_began),
            boot_id: BootId::from_bytes([self.boots; 16]),
            clock: self.clock,
        }
    }

    fn broken(&mut self, invariant: u8, what: impl Into<String>) {
        let what = format!("at {} s: {}", self.seconds(), what.into());
        self.log.push(format!("BROKEN {invariant}: {what}"));
        self.violations.push(Violation { invariant, what });
    }

    /// Runs to a second of a scenario that is still to go on.
    pub fn run_to(&mut self, second: u64) -> &mut Self {
        while self.seconds() < second {
            self.turn();
        }
        self
    }

    fn turn(&mut self) {
        self.t += TICK;
        self.faults();
        for device in &mut self.devices {
            device.advance(self.t - 100_000);
        }
        if self.t >= self.down_until {
            self.tick();
        }
    }

    /// Runs to the end, and a while without trouble.
    pub fn run(mut self) -> Self {
        while self.seconds() < LAST {
            let quiet = self.seconds() >= QUIET;
            if quiet && self.book.holds.is_empty() && self.seconds() > QUIET + 600 {
                break;
            }
            self.turn();
        }
        self.check_end();
        self
    }

    fn faults(&mut self) {
        let second = self.seconds();
        if second >= QUIET {
            self.contact = true;
            self.out_of_service.clear();
            for device in &mut self.devices {
                device.spec.silent = None;
            }
            if self.sync_at.is_none() {
                self.sync_at = Some(self.t);
            }
        }
        if self.sync_at.is_some_and(|at| at <= self.t) {
            self.clock = ClockStateV1::Synced;
            self.wall_error = 0;
        }
        let due: Vec<Fault> = self
            .scenario
            .faults
            .iter()
            .filter(|(at, _)| (*at / 2) * 2 == (second / 2) * 2 && *at < QUIET)
            .map(|(_, fault)| fault.clone())
            .collect();
        for fault in due {
            match fault {
                Fault::Crash { .. } => {}
                Fault::Reboot { down, sync_after, wall_error } => self.reboot(down, sync_after, wall_error),
                Fault::Jump { by, back_after } => {
                    self.jumped = true;
                    self.clock = ClockStateV1::Uncertain;
                    self.wall_error = by * 1000;
                    self.sync_at = Some(self.t + back_after * 1000);
                }
                Fault::SureJump { by, back_after } => {
                    if !self.scenario.faults.iter().any(|(_, f)| matches!(f, Fault::Reboot { .. })) {
                        self.jumped = true;
                        self.wall_error = by * 1000;
                        self.sync_at = Some(self.t + back_after * 1000);
                    }
                }
                Fault::Contact(on) => self.contact = on,
                Fault::OutOfService(at, on) => {
                    let at = at % self.devices.len();
                    if on {
                        self.out_of_service.insert(at)
                    } else {
                        self.out_of_service.remove(&at)
                    };
                }
                Fault::OperatorSleeps(at) => {
                    let at = at % self.devices.len();
                    let id = miner_id(at);
                    let free = !self.book.holds.contains_key(&id)
                        && self.book.dispatches_of(id).next().is_none()
                        && !self.reads.contains_key(&at);
                    // A stop whose reply was lost may not be known yet.
                    if free && self.devices[at].stops.is_empty() {
                        self.devices[at].put_to_sleep();
                    }
                }
            }
        }
    }

    fn reboot(&mut self, down: u64, sync_after: Option<u64>, wall_error: i64) {
        if self.t < self.down_until {
            return;
        }
        self.counts.reboots += 1;
        self.log.push(format!("{} s: reboot for {down} s", self.seconds()));
        self.down_until = self.t + down * 1000;
        // Nor does what has passed since the clock was last stored.
        self.downtime += down * 1000 + TICK + self.policy.heartbeat.0;
        self.boot_began = self.down_until - 1000;
        self.boots += 1;
        self.forget();
        self.last_contact = None;
        match sync_after {
            None => self.clock = ClockStateV1::Synced,
            Some(after) => {
                self.clock = ClockStateV1::Uncertain;
                self.wall_error = wall_error * 1000;
                self.sync_at = Some(self.down_until + after * 1000);
            }
        }
        let steady = self.book.clock.map(|clock| clock.steady);
        for dispatch in self.book.dispatches.values().filter(|d| d.holds()) {
            if let (Some(ends), Some(steady), RecoveryV1::Automatic) =
                (dispatch.ends, steady, dispatch.terms.recovery)
            {
                let until = self.down_until + ends.since(steady).0;
                self.remainders.insert(dispatch.key, until);
            }
        }
    }

    /// The process dies: what is under way is lost.
    fn forget(&mut self) {
        self.reads.clear();
        self.outcomes.clear();
        self.readings = vec![None; self.devices.len()];
        self.seen = vec![Observation::Restarted];
    }

    fn held(&self) -> Vec<HeldPlan> {
        let second = self.seconds();
        let quiet = second >= QUIET;
        let plans = self.scenario.plans.iter().filter(|p| p.removed.is_none_or(|at| at > second));
        plans
            .map(|p| {
                let mut held = HeldPlan::new(p.plan.clone());
                held.lease_from = self.last_contact;
                held.stop = p
                    .stop
                    .filter(|(at, _)| *at <= second)
                    .or(quiet.then_some((QUIET, false)))
                    .map(|(_, force)| StopOrder { force, by: "a test".to_owned(), at: self.now().wall });
                if let Some(edit) = &self.edit {
                    edit(&mut held, second);
                }
                held
            })
            .collect()
    }

    fn miners(&self) -> Vec<Miner> {
        let miner = |(at, device): (usize, &Device)| Miner {
            id: miner_id(at),
            can_sleep: true,
            blocker: None,
            reading: self.readings[at].clone(),
            standby: Watts::new(STANDBY).unwrap(),
            locks: Locks {
                out_of_service: self.out_of_service.contains(&at),
                protected: device.spec.protected,
            },
            identity: if device.spec.weak { Identity::Weak } else { Identity::Strong },
            restart_time: DurationMs::from_secs(30),
        };
        self.devices.iter().enumerate().map(miner).collect()
    }

    fn read_all(&mut self) {
        for at in 0..self.devices.len() {
            let device = &self.devices[at];
            if !device.answers(self.t - 100_000) {
                continue;
            }
            let pre = self.book.holds.get(&miner_id(at)).map(|hold| hold.pre.vendor_mode);
            let fact = |yes: bool| if yes { FactV1::Yes } else { FactV1::No };
            let told = |f: FactV1| if device.spec.tells_mode { f } else { FactV1::Unknown };
            let low = device.power() <= STANDBY + 10.0;
            let mode = match device.setting {
                _ if device.spec.failed => ModeV1::Failed,
                ASLEEP => ModeV1::Sleep,
                _ => ModeV1::Normal,
            };
            self.readings[at] = Some(MinerReading {
                at: self.now().wall,
                boot: self.now().boot,
                power: Watts::new(device.power()),
                power_source: Some(PowerSourceV1::Device),
                hashrate: Hashrate::from_terahash(device.terahash()),
                is_mining: Some(!low),
                mode: device.spec.tells_mode.then_some(mode),
                stopped: (told(fact(device.setting == ASLEEP)), fact(low)),
                running: (told(fact(pre == Some(Some(device.setting)))), fact(!low)),
            });
        }
    }

    fn crash_now(&self) -> Option<(u8, u8)> {
        let second = self.seconds();
        self.scenario.faults.iter().find_map(|(at, fault)| match fault {
            Fault::Crash { changes, writes } if *at / 2 == second / 2 && *at < QUIET => {
                Some((*changes, *writes))
            }
            _ => None,
        })
    }

    fn tick(&mut self) {
        if self.contact {
            self.last_contact = Some(self.now().boot);
        }
        // Reads and outcomes that are due; a read tells what was so when it began.
        let t = self.t;
        let (due, later) = std::mem::take(&mut self.outcomes).into_iter().partition(|(at, _)| *at <= t);
        self.outcomes = later;
        self.seen.extend(due.into_iter().map(|(_, seen): (u64, Observation)| seen));
        let ready: Vec<usize> =
            self.reads.iter().filter(|(_, (at, _))| *at <= t).map(|(at, _)| *at).collect();
        for at in ready {
            let (_, seen) = self.reads.remove(&at).unwrap();
            if let Observation::Prepared { pre, at: began, .. } = &seen {
                self.last_read.insert(at, (began.0 + self.boot_began, pre.clone()));
            }
            self.seen.push(seen);
        }
        self.read_all();
        let (now, plans, miners) = (self.now(), self.held(), self.miners());
        let seen = std::mem::take(&mut self.seen);
        let step = step(now, &self.policy, &plans, &miners, &self.book, &seen);
        let before = self.book.clone();
        let crash = self.crash_now();
        let durable = match crash {
            Some((share, _)) => step.changes.len() * usize::from(share) / 255,
            None => step.changes.len(),
        };
        for change in &step.changes[..durable] {
            self.check_change(change);
            self.book.apply(change);
            self.book.apply(change);
        }
        if let Some((_, writes)) = crash {
            self.counts.crashes += 1;
            self.log.push(format!(
                "{} s: crash after {durable} of {} changes",
                self.seconds(),
                step.changes.len()
            ));
            if durable == step.changes.len() {
                let sent = step.writes.len() * usize::from(writes) / 255;
                for write in &step.writes[..sent] {
                    self.write(write);
                }
            }
            // The journal is read again.
            let stored: Vec<Change> = self.book.clone().into();
            let text = serde_json::to_string(&stored).unwrap();
            self.book = Book::from(serde_json::from_str::<Vec<Change>>(&text).unwrap());
            return self.forget();
        }
        self.check_step(&step, &before, &plans);
        let second = self.seconds();
        self.events.extend(step.events.iter().cloned().map(|event| (second, event)));
        for write in &step.writes {
            self.write(write);
        }
        for id in &step.prepare {
            let at = index(*id);
            if self.reads.contains_key(&at) {
                continue;
            }
            let device = &self.devices[at];
            let seen = if device.answers(t - 100_000) {
                Observation::Prepared { miner: *id, pre: device.settings(), at: now.boot }
            } else {
                Observation::PrepareFailed {
                    miner: *id,
                    why: "no answer".to_owned(),
                    identity_mismatch: false,
                }
            };
            self.reads.insert(at, (t + TICK, seen));
        }
        if let Some(next) = step.next
            && next < now.boot
        {
            self.broken(10, "the next step is due in the past");
        }
    }

    /// Checks a write, and carries it out.
    fn write(&mut self, write: &Write) {
        let at = index(write.miner());
        let t = self.t;
        let id = write.miner();
        let (key, pre, wake) = match write {
            Write::Stop { dispatch, pre, .. } => (*dispatch, pre, false),
            Write::Wake { dispatch, pre, .. } => (*dispatch, pre, true),
        };
        self.log.push(format!("{} s: {} {at}", self.seconds(), if wake { "wake" } else { "stop" }));
        let covered = self.scenario.plans.iter().any(|p| p.plan.id == key.plan && p.plan.scope.covers(id));
        if !covered {
            self.broken(1, format!("miner {at} is not in the scope"));
        }
        if self.out_of_service.contains(&at) {
            self.broken(1, format!("miner {at} is out of service"));
        }
        let spec = self.devices[at].spec.clone();
        if !wake && (spec.protected || spec.weak) {
            self.broken(1, format!("miner {at} is protected or of weak identity"));
        }
        // Intent and pre-state are durable, and a read of the device came after its last write.
        let hold = self.book.holds.get(&id).cloned();
        match &hold {
            Some(hold) if hold.intent.is_some_and(|i| i.wake == wake) && hold.pre == *pre => {}
            _ => self.broken(6, format!("a write to {at} without its intent and pre-state in the book")),
        }
        let last_write = self.last_write.insert(at, t);
        let read = self.last_read.get(&at).cloned();
        match (&read, last_write) {
            (None, _) => self.broken(6, format!("{at} was never read before a write")),
            (Some((read, _)), Some(wrote)) if *read <= wrote => {
                self.broken(6, format!("{at} is written to again without a read"));
            }
            _ => {}
        }
        let settings = read.map(|(_, settings)| settings);
        let forced = self.book.target(key, id).is_some_and(|target| target.forced)
            && self.book.dispatches.get(&key).is_some_and(|d| d.forced);
        let terms = self.book.dispatches.get(&key).map(|d| d.terms);
        if wake {
            self.counts.wakes += 1;
            if self.devices[at].stops.is_empty() {
                self.broken(3, format!("{at} is woken though we never stopped it"));
            }
            if pre.vendor_mode != Some(self.devices[at].wanted) {
                self.broken(
                    2,
                    format!("{at} is woken to {:?}, was {}", pre.vendor_mode, self.devices[at].wanted),
                );
            }
            if settings.as_ref().is_some_and(|s| s == pre) {
                self.broken(6, format!("{at} is woken though it was found awake"));
            }
            if self.book.claims(id).next().is_some() {
                self.broken(4, format!("{at} is woken while a dispatch holds it"));
            }
            let asleep = settings.is_some_and(|s| s.mode == ModeV1::Sleep);
            let since =
                self.devices[at].stops.last().map_or(u64::MAX, |stop| (t - 100_000).saturating_sub(*stop));
            if let Some(terms) = terms
                && asleep
                && spec.kind != Kind::Lies
                && since < terms.rules.min_off.0
                && !forced
            {
                self.broken(5, format!("{at} is woken after {since} ms"));
            }
            let setting = pre.vendor_mode.unwrap();
            let accepted = self.devices[at].wake(t - 100_000, setting);
            self.outcome(at, true, accepted);
        } else {
            self.counts.stops += 1;
            let first = hold.is_none_or(|hold| hold.last_write == hold.since && hold.tries == 0);
            if first && settings.is_some_and(|s| matches!(s.mode, ModeV1::Sleep | ModeV1::Failed)) {
                // Only where our own stop is in doubt may it be asleep.
                if self.devices[at].stops.is_empty() {
                    self.broken(3, format!("{at} was off before and is stopped"));
                }
            }
            if let Some(terms) = terms
                && !forced
            {
                let since = self.devices[at].wakes.last().map_or(u64::MAX, |wake| t - 100_000 - wake);
                if since < terms.rules.min_on.0 {
                    self.broken(5, format!("{at} is stopped {since} ms after it was woken"));
                }
                let stops = self.devices[at].stops.len();
                if terms.rules.starts_a_day.is_some_and(|most| stops >= usize::from(most))
                    && spec.kind != Kind::Refuses
                {
                    self.broken(5, format!("{at} is stopped {} times", stops + 1));
                }
            }
            let accepted = self.devices[at].stop(t - 100_000);
            self.outcome(at, false, accepted);
        }
    }

    fn outcome(&mut self, at: usize, wake: bool, accepted: FactV1) {
        let miner = miner_id(at);
        let lost = matches!(self.devices[at].spec.kind, Kind::Loses) && at.is_multiple_of(2);
        if lost && !wake {
            // Not even a failure is told: the engine has to give the write up by itself.
            return;
        }
        let silent = !self.devices[at].answers(self.t - 100_000);
        let seen = if silent {
            let why = "no answer".to_owned();
            Observation::WriteFailed { miner, wake, why, identity_mismatch: false }
        } else {
            let put_off = accepted == FactV1::NotApplicable;
            let mode = if put_off { FactV1::No } else { FactV1::Unknown };
            Observation::Written { miner, wake, accepted, mode, detail: String::new() }
        };
        self.outcomes.push((self.t + TICK, seen));
    }

    fn check_change(&mut self, change: &Change) {
        let t = self.t;
        match change {
            Change::Dispatch(new) => {
                let old = self.book.dispatches.get(&new.key).cloned();
                if old.is_none() {
                    self.counts.dispatches += 1;
                    self.log.push(format!("{} s: dispatch {:?} starts", self.seconds(), new.key));
                    if self.fired.insert(new.key, t).is_some() {
                        self.broken(9, format!("interval {:?} fires again", new.key));
                    }
                }
                let took = |r: Option<&DispatchRecord>| r.and_then(|d| d.last_down);
                if took(old.as_ref()) != new.last_down {
                    let every = new.terms.ramp_down.every.0;
                    if let Some(last) = self.steps_down.insert(new.key, t)
                        && t - last < every
                    {
                        self.broken(5, format!("{:?} steps down after {} ms", new.key, t - last));
                    }
                }
                let woke = |r: Option<&DispatchRecord>| r.and_then(|d| d.last_up);
                if woke(old.as_ref()) != new.last_up {
                    let every = new.terms.ramp_up.every.0;
                    if let Some(last) = self.steps_up.insert(new.key, t)
                        && t - last < every
                    {
                        self.broken(5, format!("{:?} steps up after {} ms", new.key, t - last));
                    }
                }
                self.counts.forced += usize::from(new.forced && !old.is_some_and(|old| old.forced));
            }
            Change::Hold(new) => {
                let old = self.book.holds.get(&new.miner).cloned();
                if let Some(old) = &old
                    && old.pre != new.pre
                {
                    let what = format!("the pre-state of {} changes", index(new.miner));
                    self.broken(6, what);
                }
                let turned = old.map(|old| old.phase) != Some(new.phase);
                if turned {
                    self.log.push(format!(
                        "{} s: {} {:?}: {}",
                        self.seconds(),
                        index(new.miner),
                        new.phase,
                        new.why
                    ));
                    match new.phase {
                        Phase::Curtailed => self.counts.curtailed += 1,
                        Phase::Drifted => self.counts.drifted += 1,
                        Phase::Refused => self.counts.refused += 1,
                        Phase::Unreachable => self.counts.unreachable += 1,
                        Phase::RestoreFailed => self.counts.restore_failed += 1,
                        Phase::Stopping | Phase::Waking => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn check_step(&mut self, step: &Step, before: &Book, plans: &[HeldPlan]) {
        self.check_ramps(step, before);
        self.check_events(step, before);
        self.check_times(plans);
        if !step.writes.is_empty() {
            let mut miners: Vec<_> = step.writes.iter().map(Write::miner).collect();
            miners.sort();
            miners.dedup();
            if miners.len() != step.writes.len() {
                self.broken(6, "two writes to one miner in a step");
            }
        }
    }

    fn check_ramps(&mut self, step: &Step, before: &Book) {
        let mut down: BTreeMap<DispatchKey, BTreeSet<MinerId>> = BTreeMap::new();
        let mut up: BTreeMap<DispatchKey, BTreeSet<MinerId>> = BTreeMap::new();
        for change in &step.changes {
            match change {
                Change::Target(t)
                    if before.target(t.dispatch, t.miner).is_none_or(|old| old.rank != t.rank) =>
                {
                    down.entry(t.dispatch).or_default().insert(t.miner);
                }
                Change::Hold(h) if h.phase == Phase::Waking => {
                    let waking = before
                        .holds
                        .get(&h.miner)
                        .is_some_and(|old| matches!(old.phase, Phase::Waking | Phase::RestoreFailed));
                    if !waking {
                        for key in self.book.dispatches_of(h.miner).collect::<Vec<_>>() {
                            up.entry(key).or_default().insert(h.miner);
                        }
                    }
                }
                _ => {}
            }
        }
        for (which, taken) in [("down", down), ("up", up)] {
            for (key, miners) in taken {
                let Some(terms) = self.book.dispatches.get(&key).map(|d| d.terms) else { continue };
                let ramp = if which == "down" { terms.ramp_down } else { terms.ramp_up };
                if ramp.every.0 > 0 && miners.len() > usize::from(ramp.batch) {
                    self.broken(5, format!("{key:?} takes {} miners {which} at once", miners.len()));
                }
            }
        }
    }

    fn check_events(&mut self, step: &Step, before: &Book) {
        for event in &step.events {
            match event {
                Event::Dispatch(event) => {
                    if event.why.is_empty() {
                        self.broken(10, "a dispatch step without a why");
                    }
                    let key = DispatchKey { plan: event.dispatch.plan, interval: event.dispatch.interval };
                    let mut targets: BTreeMap<MinerId, f64> = BTreeMap::new();
                    for target in before.targets_of(key).chain(self.book.targets_of(key)) {
                        let power = target.power_before.map_or(0.0, Watts::get);
                        targets.insert(target.miner, power);
                    }
                    // What the devices themselves have shown, lately.
                    let shown: f64 = targets.iter().map(|(miner, power)| self.shown(*miner, *power)).sum();
                    if event.reached.get() > shown + 1e-6 {
                        let what = format!("{} is reported, {shown} W shown", event.reached);
                        self.broken(8, what);
                    }
                }
                Event::Target(event) => {
                    if event.why.is_empty() {
                        self.broken(10, format!("a target turns {:?} without a why", event.state));
                    }
                    let told = event.why.bytes().any(|b| b.is_ascii_digit());
                    if event.state == TargetStateV1::Planned && !told {
                        self.broken(10, format!("no figures in {:?}", event.why));
                    }
                    if event.state == TargetStateV1::Curtailed && event.evidence.effect != FactV1::Yes {
                        self.broken(8, "curtailed without effect");
                    }
                    if event.state == TargetStateV1::Stopping && event.pre_state.is_none() {
                        let known = before.holds.contains_key(&event.miner);
                        if !known {
                            self.broken(10, "a stop without its pre-state in the report");
                        }
                    }
                }
            }
        }
    }

    /// What a miner's own young reading proves saved.
    fn shown(&self, miner: MinerId, before: f64) -> f64 {
        let Some(reading) = &self.readings[index(miner)] else { return 0.0 };
        let young = self.now().boot.since(reading.boot) <= self.policy.reading_max_age;
        if young && reading.stopped.1 == FactV1::Yes {
            (before - reading.power.map_or(0.0, Watts::get)).max(0.0)
        } else {
            0.0
        }
    }

    fn check_times(&mut self, plans: &[HeldPlan]) {
        let now = self.now();
        let t = self.t;
        let mut broken = Vec::new();
        for held in plans {
            let closed = held.stop.is_some() || self.book.plans[&held.plan.id].closed.is_some();
            let leased = held.plan.on_lost_contact != LostContactV1::HoldToEnd;
            for interval in &held.plan.intervals {
                let key = DispatchKey { plan: held.plan.id, interval: interval.number };
                let within = interval.start <= now.wall && interval.end.is_none_or(|end| now.wall < end);
                let fired = self.book.plans[&held.plan.id].fired.contains(interval.number);
                if within && now.clock == ClockStateV1::Synced && !closed && !leased && !fired {
                    broken.push((7, format!("{key:?} has not started")));
                }
                let Some(dispatch) = self.book.dispatches.get(&key) else { continue };
                if !dispatch.holds() || dispatch.terms.recovery == RecoveryV1::ByHand {
                    continue;
                }
                if held.stop.is_some() {
                    broken.push((2, format!("{key:?} goes on after its stop")));
                }
                let Some(end) = interval.end else { continue };
                if !self.jumped && self.boots == 1 && now.wall >= end {
                    broken.push((7, format!("{key:?} has not ended")));
                }
                let length = end.since(interval.start).0;
                let ran = t - self.fired[&key];
                if ran.saturating_sub(self.downtime) > length + TICK {
                    broken.push((9, format!("{key:?} holds for {ran} ms of {length}")));
                }
                if self.remainders.get(&key).is_some_and(|until| t > *until + TICK) {
                    broken.push((9, format!("{key:?} holds longer than was left before the reboot")));
                }
            }
        }
        for dispatch in self.book.dispatches.values().filter(|d| d.holds()) {
            if plans.iter().all(|held| held.plan.id != dispatch.key.plan) {
                broken.push((2, format!("{:?} goes on without its plan", dispatch.key)));
            }
            if let LostContactV1::ReleaseAfter(lease) = dispatch.terms.on_lost_contact
                && let Some(contact) = self.last_contact
                && now.boot.since(contact).0 > lease.0 + TICK
            {
                broken.push((2, format!("{:?} goes on after its lease", dispatch.key)));
            }
        }
        for (invariant, what) in broken {
            self.broken(invariant, what);
        }
    }

    /// After hours without trouble all is as it was.
    fn check_end(&mut self) {
        for at in 0..self.devices.len() {
            let device = self.devices[at].clone();
            let hashing = device.power() > STANDBY;
            let wants = device.wanted != ASLEEP && !device.spec.failed;
            if device.setting != device.wanted || hashing != wants {
                let hold = self.book.holds.get(&miner_id(at)).map(|hold| (hold.phase, hold.why.clone()));
                let what = format!(
                    "miner {at} ({:?}) is left at setting {}, was {}, hashing {hashing}; hold {hold:?}",
                    device.spec.kind, device.setting, device.wanted
                );
                self.broken(if device.stops.is_empty() { 3 } else { 2 }, what);
            }
        }
        let left: Vec<_> =
            self.book.holds.values().map(|h| (index(h.miner), h.phase, h.why.clone())).collect();
        if !left.is_empty() {
            self.broken(2, format!("holds are left: {left:?}"));
        }
        let open: Vec<_> =
            self.book.dispatches.values().filter(|d| !d.is_done()).map(|d| (d.key, d.state)).collect();
        if !open.is_empty() {
            self.broken(2, format!("dispatches are left: {open:?}"));
        }
    }
}

pub fn index(id: MinerId) -> usize {
    usize::from(id.as_bytes()[15]) + 256 * usize::from(id.as_bytes()[14])
}
