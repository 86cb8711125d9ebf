//! Sites in the database.

use crate::error::{Error, Result};
use crate::store::Db;
use crate::{args, audit, row};
use hashinsight_protocol::ids::SiteId;
use hashinsight_protocol::units::{Millis, Watts};
use serde::Serialize;

row! {
    /// A hosting location.
    #[derive(Clone, Debug, Serialize)]
    pub struct Site {
        pub id: SiteId,
        pub name: String,
        /// IANA name.
        pub time_zone: String,
        pub capacity_w: Option<i64>,
    }
}

impl Site {
    /// Power of its grid connection.
    pub fn capacity(&self) -> Option<Watts> {
        self.capacity_w.and_then(|w| Watts::new(w as f64)).filter(|w| *w > Watts::ZERO)
    }
}

/// All sites by name.
///
/// # Errors
/// The database fails; so for all below.
pub async fn all(db: &Db) -> Result<Vec<Site>> {
    db.fetch_all("select id, name, time_zone, capacity_w from sites order by name", args![]).await
}

/// One site; [`Error::not_found`] when there is none.
pub async fn get(db: &Db, id: SiteId) -> Result<Site> {
    let site = db
        .fetch_optional("select id, name, time_zone, capacity_w from sites where id = $1", args![id])
        .await?;
    site.ok_or_else(Error::not_found)
}

/// The site of this name or id, as people give it on the command line.
pub async fn find(db: &Db, named: &str) -> Result<Site> {
    let site = db
        .fetch_optional(
            "select id, name, time_zone, capacity_w from sites where name = $1 or id = $1",
            args![named],
        )
        .await?;
    site.ok_or_else(|| Error::new(crate::error::Kind::NotFound, format!("there is no site \"{named}\"")))
}

/// Makes a site.
///
/// # Errors
/// A value can't be meant, or the name is taken.
pub async fn add(
    db: &Db,
    name: &str,
    time_zone: &str,
    capacity_kw: Option<u32>,
    by: &str,
    now: Millis,
) -> Result<Site> {
    let name = name.trim();
    if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
        return Err(Error::invalid("a site's name has 1 to 100 characters"));
    }
    if jiff::tz::TimeZone::get(time_zone).is_err() {
        let text =
            format!("\"{time_zone}\" is no time zone; use a name like America/Chicago or Asia/Shanghai");
        return Err(Error::invalid(text));
    }
    let site = Site {
        id: SiteId::from_random(crate::random::bytes()),
        name: name.to_owned(),
        time_zone: time_zone.to_owned(),
        capacity_w: capacity_kw.map(|kw| i64::from(kw) * 1000),
    };
    let mut tx = db.begin().await?;
    tx.execute(
        "insert into sites (id, name, time_zone, capacity_w, created_at) values ($1, $2, $3, $4, $5)",
        args![site.id, &site.name, &site.time_zone, site.capacity_w, now],
    )
    .await
    .map_err(|e| {
        if e.is_constraint() {
            Error::conflict(format!("there is a site {name} already")).because(e)
        } else {
            e
        }
    })?;
    audit::record(&mut tx, now, by, "site.add", &site.id.to_string(), name).await?;
    tx.commit().await?;
    Ok(site)
}
