//! The schemas, embedded, and how they come to a folder or a server.
//!
//! Each database of ours has a folder of migrations for SQLite and one for PostgreSQL, file by file the
//! same tables and columns; a test holds them together.

use super::{Db, StoreUrl, Stores};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use std::path::Path;

/// Everything but telemetry.
pub const BUSINESS_FILE: &str = "hashinsight.db";
/// Readings: large, and sent again by agents when lost.
pub const TELEMETRY_FILE: &str = "telemetry.db";

/// A step of a schema in both its forms.
struct Step {
    version: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! steps {
    ($folder:literal: $($version:literal $name:literal),* $(,)?) => {
        &[$(Step {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../../migrations/", $folder, "/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../migrations/", $folder, "/postgres/", $name, ".sql")),
        }),*]
    };
}

const BUSINESS: &[Step] =
    steps!("business": 1 "0001_initial", 2 "0002_readiness", 3 "0003_approval", 4 "0004_journals");
const TELEMETRY: &[Step] = steps!("telemetry": 1 "0001_initial", 2 "0002_retention");

impl Stores {
    /// The databases that the configuration names, at this version's schema.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::open_postgres`].
    pub async fn of(config: &Config) -> Result<Self> {
        match &config.store {
            Some(urls) => Self::open_postgres(&urls.business, &urls.telemetry).await,
            None => Self::open(&config.data).await,
        }
    }

    /// Opens both SQLite files of a folder and brings them to this version's schema.
    ///
    /// # Errors
    /// A file can't be opened, or was made by a newer version.
    pub async fn open(folder: &Path) -> Result<Self> {
        let open = async |name: &str, steps| {
            let file = folder.join(name);
            let db = Db::open_sqlite(&file).await?;
            migrate(&db, steps, &file.display().to_string()).await?;
            Ok::<_, Error>(db)
        };
        Ok(Self {
            business: open(BUSINESS_FILE, BUSINESS).await?,
            telemetry: open(TELEMETRY_FILE, TELEMETRY).await?,
        })
    }

    /// Connects to PostgreSQL and brings both schemas to this version's. The URLs may be the same.
    ///
    /// # Errors
    /// The server refuses, or a schema was made by a newer version.
    pub async fn open_postgres(business: &StoreUrl, telemetry: &StoreUrl) -> Result<Self> {
        let open = async |url, schema, lock, steps| {
            let db = Db::open_postgres(url, schema, lock).await?;
            migrate(&db, steps, schema).await?;
            Ok::<_, Error>(db)
        };
        Ok(Self {
            business: open(business, "business", 1, BUSINESS).await?,
            telemetry: open(telemetry, "telemetry", 2, TELEMETRY).await?,
        })
    }

    pub async fn close(&self) {
        self.business.close().await;
        self.telemetry.close().await;
    }
}

/// On PostgreSQL under an advisory lock of the migrator's own, so that two servers may start at once.
async fn migrate(db: &Db, steps: &'static [Step], place: &str) -> Result<()> {
    let migrator = |sql: fn(&Step) -> &'static str| {
        let of = |step: &Step| {
            let (name, sql) = (step.name.into(), sql(step).into_sql_str());
            Migration::new(step.version, name, MigrationType::Simple, sql, false)
        };
        Migrator::with_migrations(steps.iter().map(of).collect())
    };
    let done = match db {
        Db::Sqlite { write, .. } => migrator(|step| step.sqlite).run(write).await,
        Db::Postgres { pool, .. } => migrator(|step| step.postgres).run(pool).await,
    };
    done.map_err(|error| {
        let text = format!(
            "the database {place} can't be brought to this version's schema; was it made by a newer version?"
        );
        Error::new(Kind::Internal, text).because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;
    use crate::store::testing;

    #[tokio::test]
    async fn migrations_apply_once_and_the_stores_open_again() {
        let folder = tempfile::tempdir().unwrap();
        let stores = testing::stores(folder.path()).await;
        let insert = "insert into sites (id, name, created_at) values ('a', 'a', 1)";
        stores.business.execute(insert, args![]).await.unwrap();
        stores.close().await;
        let stores = testing::stores(folder.path()).await;
        let (sites,): (i64,) =
            stores.business.fetch_one("select count(*) from sites", args![]).await.unwrap();
        assert_eq!(sites, 1);
        stores.close().await;
    }

    /// A line of a SQLite migration as PostgreSQL has it.
    fn in_postgres(line: &str) -> String {
        let line = line.split("--").next().unwrap_or_default().trim();
        let line = line.replace(") strict, without rowid;", ");").replace(") strict;", ");");
        let line =
            line.replace("id integer primary key", "id bigint generated by default as identity primary key");
        let words = [(" integer", " bigint"), (" real", " double precision"), (" blob", " bytea")];
        words.iter().fold(line, |line, (sqlite, postgres)| line.replace(sqlite, postgres))
    }

    /// What PostgreSQL alone is told (how it stores things) follows this line.
    const ALONE: &str = "-- PostgreSQL alone:";

    #[test]
    fn both_databases_have_the_same_tables() {
        for step in BUSINESS.iter().chain(TELEMETRY) {
            let plain = |text: &str, of: fn(&str) -> String| -> Vec<String> {
                text.lines().map(of).filter(|line| !line.is_empty()).collect()
            };
            let sqlite = plain(step.sqlite, in_postgres);
            let shared = step.postgres.split(ALONE).next().unwrap_or_default();
            let postgres =
                plain(shared, |line| line.split("--").next().unwrap_or_default().trim().to_owned());
            for (sqlite, postgres) in sqlite.iter().zip(&postgres) {
                assert_eq!(
                    postgres, sqlite,
                    "{}: the PostgreSQL migration, and what SQLite's says",
                    step.name
                );
            }
            assert_eq!(postgres.len(), sqlite.len(), "{}: lines of both migrations", step.name);
        }
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let db = testing::stores(folder.path()).await.business;
        let insert = "insert into settings (name, value) values ($1, $2)";
        let mut tx = db.begin().await.unwrap();
        tx.execute(insert, args!["a", "1"]).await.unwrap();
        drop(tx);
        let mut tx = db.begin().await.unwrap();
        tx.execute(insert, args!["b", "2"]).await.unwrap();
        tx.commit().await.unwrap();
        let rows: Vec<(String, Option<String>)> =
            db.fetch_all("select name, value from settings", args![]).await.unwrap();
        assert_eq!(rows, [("b".to_owned(), Some("2".to_owned()))]);
        assert!(db.execute(insert, args!["b", "3"]).await.unwrap_err().is_constraint());
    }

    #[tokio::test]
    async fn what_is_no_database_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join(BUSINESS_FILE),
            "not a database, long enough to be looked at".repeat(100),
        )
        .unwrap();
        let error = Stores::open(folder.path()).await.unwrap_err();
        assert!(error.to_string().contains(BUSINESS_FILE), "{error}");
    }
}
