//! The console and the API: extract, authorise, call, answer.

pub mod api;
pub mod assets;
pub mod errors;
pub mod format;
pub mod guard;
pub mod headers;
pub mod i18n;
pub mod input;
pub mod layout;
pub mod pages;
pub mod routes;
pub mod server;
pub mod session;
pub mod sse;
#[cfg(test)]
mod tests;
pub mod when;

use crate::App;
use crate::error::Result;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves the console until `shutdown`.
///
/// # Errors
/// The listener fails.
pub async fn serve(app: Arc<App>, listener: TcpListener, shutdown: CancellationToken) -> Result<()> {
    server::run(listener, routes::router(app), shutdown).await
}
