//! Stored readings, and what is missing of them.

use crate::App;
use crate::error::{Error, Result};
use crate::fleet::sites;
use crate::telemetry::gaps::{self, Gap};
use crate::telemetry::readings::{Range, ndjson};
use crate::web::input::Params;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use hashinsight_protocol::ids::SiteId;
use hashinsight_protocol::units::Millis;
use serde::Deserialize;
use std::sync::Arc;

/// Gaps of one answer; the newest.
const GAPS: u32 = 10_000;
/// What is given when nobody says since when.
const AN_HOUR: i64 = 3_600_000;

#[derive(Default, Deserialize)]
pub struct ReadingsParams {
    from: Option<String>,
    to: Option<String>,
    miner: Option<String>,
}

/// The samples of a time, one JSON object a line.
pub async fn readings(
    State(app): State<Arc<App>>,
    Path(site): Path<String>,
    Params(params): Params<ReadingsParams>,
) -> Result<impl IntoResponse> {
    let site = sites::get(&app.stores.business, site.parse::<SiteId>()?).await?;
    let to = params.to.as_deref().map(time).transpose()?.unwrap_or(Millis(app.clock.now().0 + 1));
    let from = params.from.as_deref().map(time).transpose()?.unwrap_or(Millis(to.0.saturating_sub(AN_HOUR)));
    let miner = params.miner.as_deref().map(str::parse).transpose()?;
    let body = ndjson(app, site.id, Range { from, to, miner });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body))
}

pub async fn gaps(State(app): State<Arc<App>>, Path(site): Path<String>) -> Result<Json<Vec<Gap>>> {
    let site = sites::get(&app.stores.business, site.parse::<SiteId>()?).await?;
    Ok(Json(gaps::of_site(&app.stores.business, &app.stores.telemetry, site.id, GAPS).await?))
}

/// Milliseconds since 1970, or a time like 2026-01-31T12:00:00Z.
fn time(text: &str) -> Result<Millis> {
    let written = || text.parse::<jiff::Timestamp>().ok().map(|t| Millis(t.as_millisecond()));
    text.parse().ok().map(Millis).or_else(written).ok_or_else(|| {
        Error::invalid("from and to are milliseconds since 1970, or times like 2026-01-31T12:00:00Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_spellings() {
        assert_eq!(time("1790000000000").unwrap(), Millis(1_790_000_000_000));
        assert_eq!(time("1970-01-01T00:00:01.5Z").unwrap(), Millis(1500));
        assert!(time("yesterday").is_err());
    }
}
