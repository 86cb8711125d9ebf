//! The schemas, embedded, and how they come to a folder.

use super::{Db, Stores};
use crate::error::{Error, Kind, Result};
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use std::path::Path;

/// Everything but telemetry.
pub const BUSINESS_FILE: &str = "hashinsight.db";
/// Readings: large, and sent again by agents when lost.
pub const TELEMETRY_FILE: &str = "telemetry.db";

const BUSINESS: &[(i64, &str, &str)] = &[
    (1, "initial", include_str!("../../migrations/business/sqlite/0001_initial.sql")),
    (2, "readiness", include_str!("../../migrations/business/sqlite/0002_readiness.sql")),
];
const TELEMETRY: &[(i64, &str, &str)] =
    &[(1, "initial", include_str!("../../migrations/telemetry/sqlite/0001_initial.sql"))];

impl Stores {
    /// Opens both databases of a folder and brings them to this version's schema.
    ///
    /// # Errors
    /// A file can't be opened, or was made by a newer version.
    pub async fn open(folder: &Path) -> Result<Self> {
        let business = open(&folder.join(BUSINESS_FILE), BUSINESS).await?;
        let telemetry = open(&folder.join(TELEMETRY_FILE), TELEMETRY).await?;
        Ok(Self { business, telemetry })
    }

    pub async fn close(&self) {
        self.business.close().await;
        self.telemetry.close().await;
    }
}

async fn open(file: &Path, migrations: &[(i64, &'static str, &'static str)]) -> Result<Db> {
    let db = Db::open_sqlite(file).await?;
    let migrations = migrations
        .iter()
        .map(|(version, name, sql)| {
            Migration::new(*version, (*name).into(), MigrationType::Simple, (*sql).into_sql_str(), false)
        })
        .collect();
    let Db::Sqlite { write, .. } = &db;
    Migrator::with_migrations(migrations).run(write).await.map_err(|error| {
        let text = format!(
            "the database {} can't be brought to this version's schema; was it made by a newer version?",
            file.display()
        );
        Error::new(Kind::Internal, text).because(error)
    })?;
    Ok(db)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    #[tokio::test]
    async fn migrations_apply_once_and_the_files_open_again() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let stores = Stores::open(folder.path()).await.unwrap();
            let (tables,): (i64,) = stores
                .business
                .fetch_one(
                    "select count(*) from sqlite_master where type = 'table' and name = 'sites'",
                    args![],
                )
                .await
                .unwrap();
            assert_eq!(tables, 1);
            stores.close().await;
        }
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let db = Stores::open(folder.path()).await.unwrap().business;
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
