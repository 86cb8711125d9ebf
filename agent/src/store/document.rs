//! What a verified document or order does to the plans held. Pure.

use hashinsight_curtailment::{HeldPlan, StopOrder};
use hashinsight_protocol::clock::{ClockStateV1, MomentV1};
use hashinsight_protocol::document::DesiredDocumentV1;
use hashinsight_protocol::events::PartRefusedV1;
use hashinsight_protocol::ids::PlanId;
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::order::{CommandV1, OrderV1};
use hashinsight_protocol::plan::PlanV1;
use hashinsight_protocol::signing::VerifyingKey;

/// A document with its parts verified one by one.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    pub version: u64,
    pub plans: Vec<PlanV1>,
    pub refused: Vec<PartRefusedV1>,
}

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Stored,
    /// The agent holds this version or a higher one.
    NotNewer,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// It was taken or refused before; this is what became of it then.
    pub repeat: bool,
    pub taken: bool,
    pub reason: String,
}

impl Opened {
    /// Opens each part by itself; one that can't be opened doesn't keep the others.
    pub fn open(document: &DesiredDocumentV1, keys: &[VerifyingKey]) -> Self {
        let mut opened = Self { version: document.version, plans: Vec::new(), refused: Vec::new() };
        for (part, signed) in document.parts.iter().enumerate() {
            let part = u32::try_from(part).unwrap_or(u32::MAX);
            match signed.open(keys, document.agent) {
                Ok(plan) if opened.plans.iter().any(|p| p.id == plan.id) => {
                    opened.refuse(part, Some(plan.id), "the document holds this plan twice");
                }
                Ok(plan) => opened.plans.push(plan),
                Err(error) => opened.refuse(part, None, &error.to_string()),
            }
        }
        opened
    }

    fn refuse(&mut self, part: u32, plan: Option<PlanId>, reason: &str) {
        let reason = bounded_text(reason);
        self.refused.push(PartRefusedV1 { version: self.version, plan, part, reason });
    }
}

/// The plans held once a document is stored: its own, and no others. A plan of the same revision keeps
/// what was ordered of it; a lower revision than the one held is refused, and the held one stays.
pub(crate) fn merge(held: &[HeldPlan], opened: &mut Opened, at: MomentV1) -> Vec<HeldPlan> {
    let mut plans = Vec::with_capacity(opened.plans.len());
    let mut refused = Vec::new();
    for plan in std::mem::take(&mut opened.plans) {
        let before = held.iter().find(|h| h.plan.id == plan.id);
        let mut next = match before {
            Some(before) if before.plan.revision > plan.revision => {
                refused.push((plan.id, plan.revision, before.plan.revision));
                before.clone()
            }
            Some(before) if before.plan.revision == plan.revision => HeldPlan { plan, ..before.clone() },
            Some(before) => HeldPlan { released: before.released.clone(), ..HeldPlan::new(plan) },
            None => HeldPlan::new(plan),
        };
        next.lease_from = Some(at.boot);
        plans.push(next);
    }
    for (plan, revision, held) in refused {
        opened.refuse(
            u32::MAX,
            Some(plan),
            &format!("revision {revision} is lower than {held}, which is held"),
        );
    }
    plans
}

/// Whether an order may be taken at all: its time.
fn in_time(order: &OrderV1, now: MomentV1) -> Result<(), String> {
    // A clock that may be wrong must not keep miners asleep: a stop is taken, what else is not.
    let stops = matches!(order.command, CommandV1::Stop { .. } | CommandV1::Cancel { .. });
    match now.state {
        ClockStateV1::Uncertain if stops => Ok(()),
        ClockStateV1::Uncertain => Err("the agent's clock is uncertain".to_owned()),
        _ if now.wall > order.expires => Err("it came after it expired".to_owned()),
        ClockStateV1::Synced | ClockStateV1::Measured => Ok(()),
    }
}

/// Does what an order says to the plans held.
///
/// # Errors
/// Why it is not taken.
pub(crate) fn apply(plans: &mut [HeldPlan], order: &OrderV1, now: MomentV1) -> Result<(), String> {
    in_time(order, now)?;
    fn find(plans: &mut [HeldPlan], id: PlanId) -> Result<&mut HeldPlan, String> {
        let held = plans.iter_mut().find(|h| h.plan.id == id);
        held.ok_or_else(|| "the agent holds no such plan".to_owned())
    }
    match &order.command {
        CommandV1::Stop { plan, force } => {
            let held = find(plans, *plan)?;
            // A stop isn't taken back; a later one can only add force.
            if held.stop.as_ref().is_none_or(|stop| *force && !stop.force) {
                held.stop = Some(StopOrder { force: *force, by: bounded_text(&order.by), at: now.wall });
            }
            Ok(())
        }
        CommandV1::Cancel { plan } => {
            find(plans, *plan)?.cancelled = true;
            Ok(())
        }
        CommandV1::Lease { plan, .. } => {
            find(plans, *plan)?.lease_from = Some(now.boot);
            Ok(())
        }
        CommandV1::SetPoint { .. } => Err("this version takes no set-points".to_owned()),
        CommandV1::Watch { .. } => Ok(()),
    }
}

/// The plan that an order is about.
pub(crate) fn concerns(order: &OrderV1) -> Option<PlanId> {
    match order.command {
        CommandV1::Stop { plan, .. }
        | CommandV1::Cancel { plan }
        | CommandV1::Lease { plan, .. }
        | CommandV1::SetPoint { plan, .. } => Some(plan),
        CommandV1::Watch { .. } => None,
    }
}

/// Whether an order is stored with its result. Leases and watches come all the time, may be repeated
/// without harm, and end with their expiry.
pub(crate) fn is_kept(order: &OrderV1) -> bool {
    !matches!(order.command, CommandV1::Lease { .. } | CommandV1::Watch { .. })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use hashinsight_protocol::document::SignedPartV1;
    use hashinsight_protocol::ids::{AgentId, BootId, OrderId};
    use hashinsight_protocol::plan::{
        GoalV1, IntervalV1, LevelV1, LostContactV1, PrecedenceV1, RampV1, RecoveryV1, RulesV1, ScopeV1,
        SelectionOrderV1, UncertainClockV1,
    };
    use hashinsight_protocol::signing::SigningKey;
    use hashinsight_protocol::units::{BootMillis, DurationMs, Millis};

    pub fn plan(n: u8, revision: u32) -> PlanV1 {
        let ramp = RampV1 { batch: 5, every: DurationMs::from_secs(1), jitter: DurationMs::ZERO };
        PlanV1 {
            id: PlanId::from_random([n; 16]),
            revision,
            scope: ScopeV1::AllExcept(Vec::new()),
            goal: GoalV1::All,
            order: SelectionOrderV1::LeastEfficientFirst,
            level: LevelV1::Sleep,
            intervals: vec![IntervalV1 { number: 1, start: Millis(1000), end: Some(Millis(9000)) }],
            ramp_down: ramp,
            ramp_up: ramp,
            rules: RulesV1 {
                min_off: DurationMs::ZERO,
                min_on: DurationMs::ZERO,
                max_off: None,
                starts_a_day: None,
            },
            precedence: PrecedenceV1::Market,
            on_lost_contact: LostContactV1::HoldToEnd,
            recovery: RecoveryV1::Automatic,
            uncertain_clock: UncertainClockV1::Start,
            force: false,
            reason: "test".to_owned(),
        }
    }

    pub fn at(boot: u64) -> MomentV1 {
        let boot_id = BootId::from_random([1; 16]);
        MomentV1 { wall: Millis(5000), boot: BootMillis(boot), boot_id, state: ClockStateV1::Synced }
    }

    pub fn order(n: u8, command: CommandV1) -> OrderV1 {
        let id = OrderId::from_random([n; 16]);
        OrderV1 { id, issued: Millis(4000), expires: Millis(6000), by: "ops".to_owned(), command }
    }

    fn opened(version: u64, plans: &[PlanV1]) -> Opened {
        Opened { version, plans: plans.to_vec(), refused: Vec::new() }
    }

    #[test]
    fn each_part_is_opened_alone() {
        let key = SigningKey::from_seed(&[1; 32]).expect("a seed");
        let other = SigningKey::from_seed(&[2; 32]).expect("a seed");
        let (agent, stranger) = (AgentId::from_random([1; 16]), AgentId::from_random([2; 16]));
        let part = |key: &SigningKey, agent, n| SignedPartV1::plan(key, agent, &plan(n, 1)).expect("small");
        let mut unknown = part(&key, agent, 9);
        unknown.body[0] = 99;
        let parts = vec![
            part(&key, agent, 1),
            part(&other, agent, 2),
            part(&key, stranger, 3),
            unknown,
            part(&key, agent, 1),
            part(&key, agent, 4),
        ];
        let document = DesiredDocumentV1 { agent, version: 7, issued: Millis(0), parts };
        let opened = Opened::open(&document, &[key.verifying_key()]);
        assert_eq!(opened.plans, [plan(1, 1), plan(4, 1)]);
        assert_eq!(opened.refused.iter().map(|r| r.part).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn a_document_is_the_whole_truth() {
        let stop = order(1, CommandV1::Stop { plan: plan(1, 1).id, force: false });
        let mut held = merge(&[], &mut opened(1, &[plan(1, 1), plan(2, 1), plan(3, 5)]), at(10));
        apply(&mut held, &stop, at(11)).expect("taken");
        let mut next = opened(2, &[plan(1, 1), plan(3, 4), plan(4, 1)]);
        let held = merge(&held, &mut next, at(20));
        let ids: Vec<_> = held.iter().map(|h| (h.plan.id, h.plan.revision)).collect();
        assert_eq!(ids, [(plan(1, 1).id, 1), (plan(3, 5).id, 5), (plan(4, 1).id, 1)]);
        assert!(held[0].stop.is_some(), "a stop holds for its revision");
        assert_eq!(next.refused.len(), 1);
        let held = merge(&held, &mut opened(3, &[plan(1, 2)]), at(30));
        assert!(held[0].stop.is_none(), "a new revision is a new order");
        assert_eq!(held[0].lease_from, Some(BootMillis(30)));
    }

    #[test]
    fn orders_are_taken_in_time_and_for_plans_held() {
        let id = plan(1, 1).id;
        let mut held = vec![HeldPlan::new(plan(1, 1))];
        let mut late = order(1, CommandV1::Stop { plan: id, force: true });
        late.expires = Millis(4999);
        assert!(apply(&mut held, &late, at(1)).is_err());
        let uncertain = MomentV1 { state: ClockStateV1::Uncertain, ..at(1) };
        assert_eq!(apply(&mut held, &late, uncertain), Ok(()));
        let lease = order(2, CommandV1::Lease { plan: id, seq: 1 });
        assert!(apply(&mut held, &lease, uncertain).is_err());
        assert_eq!(apply(&mut held, &lease, at(77)), Ok(()));
        assert_eq!(held[0].lease_from, Some(BootMillis(77)));
        let unknown = order(3, CommandV1::Cancel { plan: plan(2, 1).id });
        assert!(apply(&mut held, &unknown, at(1)).is_err());
    }

    #[test]
    fn a_stop_gains_force_and_never_loses_it() {
        let id = plan(1, 1).id;
        let mut held = vec![HeldPlan::new(plan(1, 1))];
        for (force, expect) in [(false, false), (true, true), (false, true)] {
            apply(&mut held, &order(1, CommandV1::Stop { plan: id, force }), at(1)).expect("taken");
            assert_eq!(held[0].stop.as_ref().map(|s| s.force), Some(expect));
        }
    }
}
