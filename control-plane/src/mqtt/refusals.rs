//! What the front door refused, into the audit log.
//!
//! Strangers cause refusals at will and the log is kept for ever, so it gets summaries: one row for each
//! reason, agent and address, [`ROWS`] at most, not more often than every [`EVERY`]. The counters have all.

use super::Link;
use crate::error::Result;
use crate::{App, audit};
use hashinsight_broker::RefusedLately;
use std::time::Duration;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(60);
/// Rows of one summary; the last one tells of the rest.
const ROWS: usize = 16;
const WHO: &str = "front door";

/// When the last summary was written.
#[derive(Debug, Default)]
pub(super) struct Audit(Option<Instant>);

impl Audit {
    /// Writes a summary when one is due and there is something to tell.
    ///
    /// # Errors
    /// The database fails; what was to be told is lost to the log, not to the counters.
    pub async fn write(&mut self, app: &App, link: &Link) -> Result<()> {
        let Some(door) = link.door() else { return Ok(()) };
        let now = Instant::now();
        if self.0.is_some_and(|last| now.duration_since(last) < EVERY) {
            return Ok(());
        }
        let rows = rows(door.take_refusals());
        if rows.is_empty() {
            return Ok(());
        }
        self.0 = Some(now);
        let at = app.clock.now();
        let mut tx = app.stores.business.begin().await?;
        for (subject, detail) in rows {
            audit::record(&mut tx, at, WHO, "agent.refused", &subject, &detail).await?;
        }
        tx.commit().await
    }
}

/// Subject and detail of each row.
fn rows(mut refusals: Vec<RefusedLately>) -> Vec<(String, String)> {
    let rest = refusals.split_off(refusals.len().min(ROWS));
    let row = |r: RefusedLately| {
        let subject = r.agent.map_or_else(|| r.from.to_string(), |agent| agent.to_string());
        let detail = format!("{} x {} from {}: {}", r.count, r.why.name(), r.from, r.detail);
        (subject, detail)
    };
    let mut rows: Vec<_> = refusals.into_iter().map(row).collect();
    if !rest.is_empty() {
        let count: u64 = rest.iter().map(|r| r.count).sum();
        rows.push((String::new(), format!("{count} more in {} kinds", rest.len())));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_broker::Refusal;
    use std::net::IpAddr;

    #[test]
    fn a_flood_is_a_few_rows() {
        let refused = |n: u8| RefusedLately {
            why: Refusal::Handshake,
            agent: None,
            from: IpAddr::from([192, 0, 2, n]),
            count: 1000 - u64::from(n),
            detail: "no certificate".to_owned(),
        };
        let rows = rows((0..100).map(refused).collect());
        assert_eq!(rows.len(), ROWS + 1);
        assert_eq!(rows[0].1, "1000 x handshake from 192.0.2.0: no certificate");
        assert!(rows[ROWS].1.ends_with("more in 84 kinds"), "{:?}", rows[ROWS]);
    }
}
