//! Plans over HTTP: the JSON API. The console's pages call the same service.

use super::request::{PlanRequest, Share};
use super::service::{self, SitePreview};
use super::store::{self, StoredPlan};
use crate::App;
use crate::error::Result;
use hashinsight_curtailment::{Skipped, Taken};
use hashinsight_protocol::ids::{AgentId, PlanId, SiteId};
use hashinsight_protocol::units::{Hashrate, Millis, Watts};
use serde::{Deserialize, Serialize};

/// A preview as the API gives it.
#[derive(Serialize)]
pub struct PreviewBody {
    pub at: Millis,
    pub target_w: Option<Watts>,
    pub reduces_w: Watts,
    pub reaches_target: bool,
    pub hashrate_lost_hs: Hashrate,
    pub standby_w: Watts,
    pub miners: usize,
    pub ramp_s: f64,
    pub agents: Vec<ShareBody>,
    pub taken: Vec<Taken>,
    pub skipped: Vec<Skipped>,
}

/// One agent's part.
#[derive(Serialize)]
pub struct ShareBody {
    pub agent: AgentId,
    pub target_w: Watts,
    pub reserve_w: Watts,
}

impl ShareBody {
    fn new(agent: AgentId, share: Share) -> Self {
        Self { agent, target_w: share.target, reserve_w: share.reserve }
    }
}

impl PreviewBody {
    pub fn new(request: &PlanRequest, seen: SitePreview) -> Self {
        let preview = seen.preview;
        Self {
            at: seen.at,
            target_w: request.target(),
            reduces_w: preview.reduces,
            reaches_target: preview.reaches_target,
            hashrate_lost_hs: preview.hashrate_lost,
            standby_w: preview.standby,
            miners: preview.taken.len(),
            ramp_s: preview.ramp.seconds(),
            agents: seen.shares.into_iter().map(|(agent, share)| ShareBody::new(agent, share)).collect(),
            taken: preview.taken,
            skipped: preview.skipped,
        }
    }
}

/// A new plan with the key that makes its creation idempotent.
#[derive(Deserialize)]
pub struct CreateBody {
    #[serde(default)]
    pub idempotency_key: Option<String>,
    pub plan: PlanRequest,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopBody {
    #[serde(default)]
    pub force: bool,
}

/// A plan with all that is known of its run.
#[derive(Serialize)]
pub struct PlanBody {
    pub id: PlanId,
    pub site: SiteId,
    pub state: String,
    pub request: PlanRequest,
    pub created_by: String,
    pub created_at: Millis,
    /// Who has approved it, in their order: a large plan takes two people.
    pub approvals: Vec<store::Approval>,
    pub approved_by: Option<String>,
    pub approved_at: Option<Millis>,
    pub starts_at: Millis,
    pub ends_at: Option<Millis>,
    pub stopped_by: Option<String>,
    pub stopped_at: Option<Millis>,
    pub stopped_force: bool,
    pub ended_at: Option<Millis>,
    /// What all agents have proven reduced, by their last reports.
    pub reached_w: i64,
    pub target_w: i64,
    pub agents: Vec<ShareBody>,
    pub dispatches: Vec<store::Dispatch>,
    pub targets: Vec<store::Target>,
    pub history: Vec<store::HistoryLine>,
}

impl PlanBody {
    /// # Errors
    /// A database fails.
    pub async fn load(app: &App, plan: StoredPlan) -> Result<Self> {
        let db = &app.stores.business;
        let allotments = store::allotments(db, plan.id).await?;
        let dispatches = store::dispatches(db, plan.id).await?;
        Ok(Self {
            id: plan.id,
            site: plan.site,
            state: plan.state.name().to_owned(),
            created_by: plan.created_by,
            created_at: plan.created_at,
            approvals: store::approvals(db, plan.id).await?,
            approved_by: plan.approved_by,
            approved_at: plan.approved_at,
            starts_at: plan.starts_at,
            ends_at: plan.ends_at,
            stopped_by: plan.stopped_by,
            stopped_at: plan.stopped_at,
            stopped_force: plan.stopped_force,
            ended_at: plan.ended_at,
            reached_w: dispatches.iter().map(|d| d.reached_w).sum(),
            target_w: allotments.iter().map(|a| a.target_w).sum(),
            agents: allotments.iter().map(|a| ShareBody::new(a.agent, a.share())).collect(),
            dispatches,
            targets: store::targets(db, plan.id).await?,
            history: store::history_of(db, plan.id).await?,
            request: plan.request,
        })
    }
}

pub async fn preview(app: &App, request: &PlanRequest) -> Result<PreviewBody> {
    Ok(PreviewBody::new(request, service::preview_request(app, request).await?))
}
