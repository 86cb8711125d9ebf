//! Plans.

use crate::App;
use crate::curtailment::request::PlanRequest;
use crate::curtailment::web::{self, CreateBody, PlanBody, PreviewBody, StopBody};
use crate::curtailment::{service, store};
use crate::error::Result;
use crate::identity::Caller;
use crate::web::input::{self, Json};
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::http::StatusCode;
use std::sync::Arc;

pub async fn preview(
    State(app): State<Arc<App>>,
    Json(request): Json<PlanRequest>,
) -> Result<axum::Json<PreviewBody>> {
    Ok(axum::Json(web::preview(&app, &request).await?))
}

pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(body): Json<CreateBody>,
) -> Result<(StatusCode, axum::Json<PlanBody>)> {
    let plan = service::create(&app, body.plan, body.idempotency_key.as_deref(), &caller.name).await?;
    Ok((StatusCode::CREATED, axum::Json(PlanBody::load(&app, plan).await?)))
}

pub async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<axum::Json<PlanBody>> {
    let plan = store::plan(&app.stores.business, id.parse()?).await?;
    Ok(axum::Json(PlanBody::load(&app, plan).await?))
}

pub async fn approve(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<PlanBody>> {
    let plan = service::approve(&app, id.parse()?, &caller).await?;
    Ok(axum::Json(PlanBody::load(&app, plan).await?))
}

/// Without a body the plan is stopped in the ordinary way.
pub async fn stop(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<axum::Json<PlanBody>> {
    let body = if input::is_empty(&request) {
        StopBody::default()
    } else {
        let Json(body) = Json::from_request(request, &()).await?;
        body
    };
    let plan = service::stop(&app, id.parse()?, body.force, &caller.name).await?;
    Ok(axum::Json(PlanBody::load(&app, plan).await?))
}
