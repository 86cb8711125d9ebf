//! What a site's orders say where they say nothing else: its dwell times and ramps.

use super::request::{RAMP_DOWN, RAMP_UP, Ramp, Rules};
use crate::error::{Error, Result};
use crate::store::Db;
use crate::{args, audit};
use hashinsight_protocol::ids::SiteId;
use hashinsight_protocol::units::Millis;
use serde::{Deserialize, Serialize};

/// Longest dwell time, seconds: a day.
const MAX_DWELL_S: u32 = 24 * 3600;

/// A site's usual rules and ramps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usual {
    pub rules: Rules,
    pub ramp_down: Ramp,
    pub ramp_up: Ramp,
}

impl Default for Usual {
    fn default() -> Self {
        Self { rules: Rules::default(), ramp_down: RAMP_DOWN, ramp_up: RAMP_UP }
    }
}

impl Usual {
    /// # Errors
    /// A value can't be meant.
    pub fn check(&self) -> Result<()> {
        if self.rules.min_off_s > MAX_DWELL_S || self.rules.min_on_s > MAX_DWELL_S {
            return Err(Error::invalid("a dwell time is at most a day"));
        }
        if self.rules.starts_a_day == Some(0) {
            return Err(Error::invalid("a machine must be allowed at least one start a day"));
        }
        self.ramp_down.check()?;
        self.ramp_up.check()
    }
}

/// What is usual at a site.
///
/// # Errors
/// The database fails.
pub async fn of(db: &Db, site: SiteId) -> Result<Usual> {
    let row: Option<(String,)> =
        db.fetch_optional("select body from site_usual where site_id = $1", args![site]).await?;
    Ok(row.map(|(body,)| serde_json::from_str(&body)).transpose()?.unwrap_or_default())
}

/// Sets what is usual at a site, for orders to come.
///
/// # Errors
/// A value can't be meant, or the database fails.
pub async fn set(db: &Db, site: SiteId, usual: Usual, by: &str, now: Millis) -> Result<()> {
    usual.check()?;
    let body = serde_json::to_string(&usual)?;
    let mut tx = db.begin().await?;
    tx.execute(
        "insert into site_usual (site_id, body) values ($1, $2)
         on conflict (site_id) do update set body = excluded.body",
        args![site, &body],
    )
    .await?;
    audit::record(&mut tx, now, by, "site.usual", &site.to_string(), &body).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(Usual::default().check().is_ok());
        let refused = |change: fn(&mut Usual)| {
            let mut usual = Usual::default();
            change(&mut usual);
            usual.check().is_err()
        };
        assert!(refused(|u| u.rules.min_off_s = 86_401));
        assert!(refused(|u| u.rules.starts_a_day = Some(0)));
        assert!(refused(|u| u.ramp_up.batch = 0));
        assert!(refused(|u| u.ramp_down.every_s = 3601));
    }
}
