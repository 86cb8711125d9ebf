//! Sites and miners.

use crate::App;
use crate::error::{Error, Result};
use crate::fleet::events::{self, Event};
use crate::fleet::overview::{self, Overview};
use crate::fleet::readiness::Readiness;
use crate::fleet::status::Status;
use crate::fleet::summary::Summary;
use crate::fleet::table::{self, Query, Sort};
use crate::fleet::view::Miner;
use crate::web::input::Params;
use axum::Json;
use axum::extract::{Path, State};
use hashinsight_protocol::device::{CapabilitiesV1, ModeV1};
use hashinsight_protocol::ids::{AgentId, MinerId};
use hashinsight_protocol::telemetry::PollV1;
use hashinsight_protocol::units::{Celsius, DurationMs, Hashrate, JoulesPerTerahash, Millis, Watts};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Miners of one answer.
const MOST: usize = 1000;
const USUAL: usize = 100;

pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Vec<Overview>>> {
    Ok(Json(overview::all(&app).await?))
}

pub async fn summary(State(app): State<Arc<App>>, Path(site): Path<String>) -> Result<Json<Summary>> {
    let view = app.fleet.view(&app, site.parse()?).await?;
    Ok(Json(Summary::of(&view, app.clock.now())))
}

#[derive(Default, Deserialize)]
pub struct MinersParams {
    limit: Option<usize>,
    offset: Option<usize>,
    /// A column's name, with `-` before it for the greatest first.
    sort: Option<String>,
    status: Option<String>,
    q: Option<String>,
}

#[derive(Serialize)]
pub struct Miners {
    /// All that match, before paging.
    total: usize,
    miners: Vec<MinerBody>,
}

/// A miner with its latest reading.
#[derive(Serialize)]
struct MinerBody {
    id: MinerId,
    agent: AgentId,
    status: Status,
    rack: Option<String>,
    position: Option<String>,
    customer: Option<String>,
    firmware: Option<String>,
    model: Option<String>,
    version: Option<String>,
    serial: Option<String>,
    mac: Option<String>,
    weak_identity: bool,
    out_of_service: bool,
    protected: bool,
    capabilities: CapabilitiesV1,
    /// Whether it could be stopped and woken now; null while its agent has not said.
    readiness: Option<Readiness>,
    /// A plan holds it.
    held: bool,
    poll: Option<PollV1>,
    polled_at: Option<Millis>,
    answered_at: Option<Millis>,
    mode: Option<ModeV1>,
    is_mining: Option<bool>,
    hashrate_hs: Option<Hashrate>,
    power_w: Option<Watts>,
    power_is_modelled: bool,
    efficiency_j_th: Option<JoulesPerTerahash>,
    hottest_c: Option<Celsius>,
    fan_min_rpm: Option<u32>,
    fan_max_rpm: Option<u32>,
    uptime_ms: Option<DurationMs>,
}

impl MinerBody {
    fn new(miner: &Miner, status: Status) -> Self {
        let m = miner;
        Self {
            efficiency_j_th: m.efficiency(),
            id: m.id,
            agent: m.agent,
            status,
            rack: m.rack.clone(),
            position: m.position.clone(),
            customer: m.customer.clone(),
            firmware: m.firmware.clone(),
            model: m.model.clone(),
            version: m.version.clone(),
            serial: m.serial.clone(),
            mac: m.mac.clone(),
            weak_identity: m.weak_identity,
            out_of_service: m.out_of_service,
            protected: m.protected,
            capabilities: CapabilitiesV1 {
                sleep: m.can_sleep,
                power_limit: m.can_limit,
                reboot: m.can_reboot,
                locate: m.can_locate,
                set_pools: m.can_set_pools,
            },
            readiness: m.readiness.as_deref().cloned(),
            held: m.held,
            poll: m.poll,
            polled_at: m.at,
            answered_at: m.answered_at,
            mode: m.mode,
            is_mining: m.is_mining,
            hashrate_hs: m.hashrate,
            power_w: m.power,
            power_is_modelled: m.power_is_modelled,
            hottest_c: m.hottest,
            fan_min_rpm: m.fan_min,
            fan_max_rpm: m.fan_max,
            uptime_ms: m.uptime,
        }
    }
}

pub async fn miners(
    State(app): State<Arc<App>>,
    Path(site): Path<String>,
    Params(params): Params<MinersParams>,
) -> Result<Json<Miners>> {
    let query = query(&params)?;
    let view = app.fleet.view(&app, site.parse()?).await?;
    let limit = params.limit.unwrap_or(USUAL).min(MOST);
    let found = table::find(&view, &query, app.clock.now());
    let shown = found.iter().skip(params.offset.unwrap_or(0)).take(limit);
    let miners = shown.map(|(miner, status)| MinerBody::new(miner, *status)).collect();
    Ok(Json(Miners { total: found.len(), miners }))
}

#[derive(Default, Deserialize)]
pub struct EventsParams {
    limit: Option<u32>,
    /// Only those that arrived before the event of this id.
    before: Option<i64>,
    kind: Option<String>,
}

pub async fn events(
    State(app): State<Arc<App>>,
    Path(site): Path<String>,
    Params(params): Params<EventsParams>,
) -> Result<Json<Vec<Event>>> {
    let most = params.limit.unwrap_or(USUAL as u32).min(MOST as u32);
    let (site, db) = (site.parse()?, &app.stores.business);
    Ok(Json(events::latest(db, site, params.kind.as_deref(), params.before, most).await?))
}

/// A program that misspells is told so.
fn query(params: &MinersParams) -> Result<Query> {
    let sort = params.sort.as_deref().unwrap_or(Sort::default().name());
    let (name, descending) = sort.strip_prefix('-').map_or((sort, false), |name| (name, true));
    let names = || Sort::ALL.map(Sort::name).join(", ");
    let sort = Sort::parse(name).ok_or_else(|| Error::invalid(format!("sort is one of {}", names())))?;
    let statuses = || Status::ALL.map(Status::name).join(", ");
    let status = match params.status.as_deref() {
        None | Some("") => None,
        Some(name) => {
            let status = Status::parse(name);
            Some(status.ok_or_else(|| Error::invalid(format!("status is one of {}", statuses())))?)
        }
    };
    Ok(Query { search: params.q.clone().unwrap_or_default(), status, sort, descending })
}
