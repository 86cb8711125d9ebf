//! A site's miners as the engine sees them, from the inventory and the latest readings.
//!
//! The agents judge by fresh readings of their own; this view serves previews and the division among
//! agents. What only an agent knows (whether a device obeys) is unknown here.

use crate::App;
use crate::args;
use crate::error::Result;
use crate::fleet::readiness;
use crate::row;
use hashinsight_curtailment::{Identity, Locks, Miner, MinerReading, Now};
use hashinsight_protocol::clock::ClockStateV1;
use hashinsight_protocol::device::{FactV1, ModeV1, PowerSourceV1};
use hashinsight_protocol::ids::{AgentId, BootId, MinerId, SiteId};
use hashinsight_protocol::readiness::BlockerV1;
use hashinsight_protocol::units::{BootMillis, DurationMs, Hashrate, Millis, Watts};
use std::collections::HashMap;

/// A restart takes this long where no profile says otherwise.
const RESTART: DurationMs = DurationMs::from_minutes(10);

/// The miners of one site.
pub struct FleetView {
    pub miners: Vec<Miner>,
    pub agent_of: HashMap<MinerId, AgentId>,
}

row! {
    struct MinerRow {
        id: MinerId,
        agent: AgentId,
        can_sleep: bool,
        standby: Option<i64>,
        restart: Option<DurationMs>,
        out_of_service: bool,
        protected: bool,
        weak_identity: bool,
    }
}

row! {
    struct LatestRow {
        miner: MinerId,
        answered_at: Option<Millis>,
        hashrate: Option<Hashrate>,
        power: Option<Watts>,
        power_source: Option<String>,
        is_mining: Option<bool>,
        mode: Option<String>,
    }
}

const MINERS: &str = "select m.id, m.agent_id, m.can_sleep, m.standby_w, m.restart_ms, m.out_of_service, m.protected, \
     m.weak_identity from miners m join agents a on a.id = m.agent_id \
     where m.site_id = $1 and m.gone_at is null and a.revoked_at is null order by m.id";

const LATEST: &str = "select miner_id, answered_at, hashrate_hs, power_w, power_source, is_mining, mode \
     from latest where agent_id = $1";

impl FleetView {
    /// # Errors
    /// A database fails.
    pub async fn of(app: &App, site: SiteId) -> Result<Self> {
        let rows: Vec<MinerRow> = app.stores.business.fetch_all(MINERS, args![site]).await?;
        let agent_of: HashMap<_, _> = rows.iter().map(|row| (row.id, row.agent)).collect();
        let mut agents: Vec<_> = agent_of.values().copied().collect();
        agents.sort_unstable();
        agents.dedup();
        let (mut latest, mut blockers) = (HashMap::new(), HashMap::new());
        for agent in agents {
            let told = readiness::of_agent(&app.stores.business, agent, Millis(0)).await?;
            blockers.extend(told.into_iter().map(|(miner, ready, _)| ((agent, miner), ready.blocker())));
            let rows: Vec<LatestRow> = app.stores.telemetry.fetch_all(LATEST, args![agent]).await?;
            // What another agent once said of a miner, its owner before, is not the owner's reading.
            latest.extend(rows.into_iter().map(|row| ((agent, row.miner), row)));
        }
        let miners = rows
            .into_iter()
            .map(|row| {
                let key = (row.agent, row.id);
                miner(&row, latest.get(&key), blockers.get(&key).copied().flatten())
            })
            .collect();
        Ok(Self { miners, agent_of })
    }
}

/// The moment of a preview. The engine measures ages on the boot clock; here wall time stands for both.
pub fn now(wall: Millis) -> Now {
    Now { wall, boot: boot(wall), boot_id: BootId::from_bytes([0; 16]), clock: ClockStateV1::Synced }
}

fn boot(wall: Millis) -> BootMillis {
    BootMillis(u64::try_from(wall.0).unwrap_or(0))
}

fn miner(row: &MinerRow, latest: Option<&LatestRow>, blocker: Option<BlockerV1>) -> Miner {
    let reading = latest.and_then(|l| l.answered_at.map(|at| reading(l, at)));
    Miner {
        id: row.id,
        can_sleep: row.can_sleep,
        blocker,
        reading,
        standby: row.standby.and_then(|w| Watts::new(w as f64)).unwrap_or_default(),
        locks: Locks { out_of_service: row.out_of_service, protected: row.protected },
        identity: if row.weak_identity { Identity::Weak } else { Identity::Strong },
        restart_time: row.restart.unwrap_or(RESTART),
    }
}

fn reading(row: &LatestRow, at: Millis) -> MinerReading {
    MinerReading {
        at,
        boot: boot(at),
        power: row.power,
        power_source: row.power_source.as_deref().and_then(named::<PowerSourceV1>),
        hashrate: row.hashrate,
        is_mining: row.is_mining,
        mode: row.mode.as_deref().and_then(named::<ModeV1>),
        stopped: (FactV1::Unknown, FactV1::Unknown),
        running: (FactV1::Unknown, FactV1::Unknown),
    }
}

/// A value stored by its serde name.
pub fn named<T: serde::de::DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
}

/// The serde name of a value.
pub fn name_of<T: serde::Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
