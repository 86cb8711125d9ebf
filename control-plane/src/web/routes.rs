//! Every route with what it asks of its caller. What is not in this table does not exist.

use super::server::Peer;
use super::{api, assets, errors, guard, headers, pages, sse};
use crate::App;
use crate::identity::Permission::{self, ExportReadings, OrderPlans, RunPlans, SeeMetrics, ViewFleet};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::MethodRouter;
use std::sync::Arc;

/// Bytes of a request's body.
pub const BODY: usize = 256 * 1024;

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Open to everybody.
    Nothing,
    /// Somebody signed in, a one-time password included.
    SignedIn,
    /// Somebody whose role may do this.
    May(Permission),
}

/// One method of one path.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub needs: Needs,
    handler: MethodRouter<Arc<App>>,
}

fn get<T: 'static>(path: &'static str, needs: Needs, handler: impl Handler<T, Arc<App>>) -> Route {
    Route { method: Method::GET, path, needs, handler: axum::routing::get(handler) }
}

fn post<T: 'static>(path: &'static str, needs: Needs, handler: impl Handler<T, Arc<App>>) -> Route {
    Route { method: Method::POST, path, needs, handler: axum::routing::post(handler) }
}

/// The table.
pub fn table() -> Vec<Route> {
    use Needs::{May, Nothing, SignedIn};
    vec![
        get("/assets/{hash}/{name}", Nothing, assets::serve),
        get("/login", Nothing, pages::login::show),
        post("/login", Nothing, pages::login::submit),
        post("/language", Nothing, pages::language::submit),
        post("/logout", SignedIn, pages::login::sign_out),
        get("/password", SignedIn, pages::password::show),
        post("/password", SignedIn, pages::password::submit),
        get("/", May(ViewFleet), pages::sites::home),
        get("/sites", May(ViewFleet), pages::sites::show),
        get("/sites/{site}", May(ViewFleet), pages::site::show),
        get("/sites/{site}/chart", May(ViewFleet), pages::site::chart),
        get("/sites/{site}/curtailment", May(ViewFleet), pages::curtailment::show),
        post("/sites/{site}/curtailment", May(OrderPlans), pages::curtailment::submit),
        get("/sites/{site}/events", May(ViewFleet), sse::site),
        get("/plans/{id}", May(ViewFleet), pages::plan::show),
        post("/plans/{id}/approve", May(RunPlans), pages::plan::approve),
        get("/plans/{id}/stop", May(RunPlans), pages::plan::confirm_stop),
        post("/plans/{id}/stop", May(RunPlans), pages::plan::stop),
        get("/metrics", May(SeeMetrics), api::metrics::show),
        get("/api/v1/sites", May(ViewFleet), api::sites::list),
        get("/api/v1/sites/{site}/summary", May(ViewFleet), api::sites::summary),
        get("/api/v1/sites/{site}/miners", May(ViewFleet), api::sites::miners),
        get("/api/v1/sites/{site}/events", May(ViewFleet), api::sites::events),
        get("/api/v1/sites/{site}/readings", May(ExportReadings), api::readings::readings),
        get("/api/v1/sites/{site}/gaps", May(ExportReadings), api::readings::gaps),
        post("/api/v1/plans/preview", May(OrderPlans), api::plans::preview),
        post("/api/v1/plans", May(OrderPlans), api::plans::create),
        get("/api/v1/plans/{id}", May(ViewFleet), api::plans::show),
        post("/api/v1/plans/{id}/approve", May(RunPlans), api::plans::approve),
        post("/api/v1/plans/{id}/stop", May(RunPlans), api::plans::stop),
    ]
}

/// The whole of the console and the API.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in table() {
        let guard = from_fn_with_state((Arc::clone(&app), route.needs), guard::check);
        router = router.route(route.path, route.handler.route_layer(guard));
    }
    router
        .fallback(errors::no_such_page)
        .method_not_allowed_fallback(errors::no_such_method)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn(guard::in_time))
        .layer(from_fn_with_state(Arc::clone(&app), errors::render))
        .layer(from_fn_with_state(Arc::clone(&app), headers::add))
        .with_state(app)
}

/// Where a request comes from; a proxy's word counts only when one is configured.
pub fn address(app: &App, request: &axum::http::request::Parts) -> std::net::IpAddr {
    let peer = request.extensions.get::<Peer>().map(|Peer(peer)| peer.ip());
    let forwarded = || {
        let header = request.headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
        // The last one was written by the proxy in front of us; those before it are hearsay.
        header.rsplit(',').next()?.trim().parse().ok()
    };
    let forwarded = if app.config.https { forwarded() } else { None };
    forwarded.or(peer).unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
}
