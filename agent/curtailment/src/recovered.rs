//! Holds of a journal that is lost, as the control plane heard of them last.
//!
//! What its plan still wants asleep goes on as a part of the plan's dispatch, and what that is too much is
//! let go; the rest is woken. Nothing counts until a reading shows it, and a device is read before it is
//! written to, as ever.

use crate::book::{DispatchKey, DispatchRecord, HoldRecord, Phase, TargetRecord};
use crate::draft::{Draft, power_text};
use crate::input::Observation;
use crate::target::state_of;
use hashinsight_protocol::device::EvidenceV1;
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::recovery::HeldMinerV1;
use hashinsight_protocol::units::Watts;

impl Draft<'_> {
    pub fn take_recovered(&mut self, seen: &Observation) {
        let Observation::HeldBefore(held) = seen else { return };
        let key = DispatchKey { plan: held.plan, interval: held.interval };
        if let Some(target) = self.book.target(key, held.miner).cloned() {
            // This journal knows it better, and says so.
            let why = "known to this journal".to_owned();
            return self.report_target(&target, Some(held.pre.clone()), &why);
        }
        let running = self.book.dispatches.get(&key).filter(|d| d.stops()).cloned();
        let standby = self.standby_of(held.miner);
        let target = TargetRecord {
            dispatch: key,
            miner: held.miner,
            state: state_of(Phase::Stopping),
            evidence: EvidenceV1::default(),
            rank: running.as_ref().map_or(0, |dispatch| dispatch.ranks),
            step: 0,
            due: self.at,
            saves: held.power_before.map_or(Watts::ZERO, |power| power.saturating_sub(standby)),
            power_before: held.power_before,
            hashrate_before: None,
            was_mining: true,
            tries: 0,
            retry_at: self.at,
            left: running.is_none(),
            done: false,
            forced: false,
        };
        match running {
            Some(dispatch) => {
                let ranks = dispatch.ranks.saturating_add(1);
                self.put_dispatch(&DispatchRecord { trim: true, ranks, ..dispatch });
            }
            None => self.revive(key),
        }
        let why = format!("held at {} by a journal that is lost", power_text(held.power_before));
        self.report_target(&target, Some(held.pre.clone()), &why);
        self.put_target(target);
        if !self.book.holds.contains_key(&held.miner) {
            self.put_hold(self.hold_before(held, key, standby, why));
        }
    }

    fn hold_before(&self, held: &HeldMinerV1, owner: DispatchKey, standby: Watts, why: String) -> HoldRecord {
        HoldRecord {
            miner: held.miner,
            owner,
            pre: held.pre.clone(),
            power_before: held.power_before,
            hashrate_before: None,
            was_mining: true,
            standby,
            phase: Phase::Stopping,
            since: self.at,
            intent: None,
            awaits: None,
            tries: 0,
            drifts: 0,
            retry_at: self.at,
            stopped: self.at,
            last_write: self.at,
            unsure_until: self.at,
            write_after: self.at,
            woken: false,
            evidence: EvidenceV1::default(),
            why,
        }
    }

    fn standby_of(&self, miner: MinerId) -> Watts {
        self.miner(miner).map(|miner| miner.standby).unwrap_or_default()
    }
}
