//! Server-sent events: word that what a page shows has changed.
//!
//! An event carries no content, so that one that is lost costs nothing and what a viewer sees is always
//! one consistent page. At most one event a second goes to each viewer, whatever happens meanwhile.

use crate::App;
use crate::error::Result;
use crate::fleet::sites;
use crate::identity::{Caller, sessions};
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use hashinsight_protocol::ids::SiteId;
use hashinsight_protocol::units::{DurationMs, Millis};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;

/// From one event to the next.
const PAUSE: DurationMs = DurationMs::from_secs(1);
/// What nobody announces (ages, another process's changes) is looked at this often.
const AT_LEAST: DurationMs = DurationMs::from_secs(15);
/// A stream ends after this, and the browser begins another: its rights are looked at anew.
const CHECKED: DurationMs = DurationMs::from_secs(60);

/// What one viewer waits for.
struct Watching {
    app: Arc<App>,
    caller: Caller,
    changes: watch::Receiver<u64>,
    checked: Millis,
    first: bool,
}

/// Changes of a site.
pub async fn site(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(site): Path<String>,
) -> Result<impl IntoResponse> {
    let site: SiteId = site.parse()?;
    sites::get(&app.stores.business, site).await?;
    let changes = app.live.subscribe(site);
    let checked = app.clock.now();
    let stream = events(Watching { app, caller, changes, checked, first: true });
    let headers = [("x-accel-buffering", "no")];
    Ok((headers, Sse::new(stream).keep_alive(KeepAlive::new().interval(AT_LEAST.into()))))
}

fn events(watching: Watching) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(watching, |mut watching| async move {
        if watching.first {
            watching.first = false;
        } else {
            tokio::time::sleep(PAUSE.into()).await;
            match tokio::time::timeout(AT_LEAST.into(), watching.changes.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => return None,
            }
            if !watching.may_go_on().await {
                return None;
            }
        }
        watching.changes.mark_unchanged();
        let now = watching.app.clock.now();
        Some((Ok(Event::default().event("changed").data(now.0.to_string())), watching))
    })
}

impl Watching {
    /// Whether the viewer is still signed in.
    async fn may_go_on(&mut self) -> bool {
        let now = self.app.clock.now();
        if now.since(self.checked) < CHECKED {
            return true;
        }
        self.checked = now;
        match sessions::still_valid(&self.app.stores.business, &self.caller, now).await {
            Ok(valid) => valid,
            Err(error) => {
                tracing::warn!(error = error.chain(), "A viewer's session could not be looked up.");
                false
            }
        }
    }
}
