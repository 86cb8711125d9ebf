//! What was done, by whom: append-only, each row chained to the one before.
//!
//! A row's chain is SHA-256 over the chain before it and its own fields, length-prefixed, so that a
//! row that was changed, dropped or put in later breaks every chain after it.

use crate::args;
use crate::error::Result;
use crate::store::{Db, Tx};
use hashinsight_protocol::enrolment::hex;
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::units::Millis;

/// The chain before the first row.
const BEGINNING: &str = "";

/// Writes one row within the transaction of what it tells of.
///
/// `what` is a dotted name of the act, `subject` the id of the thing it was done to.
///
/// # Errors
/// The database fails.
pub async fn record(
    tx: &mut Tx,
    at: Millis,
    who: &str,
    what: &str,
    subject: &str,
    detail: &str,
) -> Result<()> {
    let detail = bounded_text(detail);
    let before: Option<(String,)> =
        tx.fetch_optional("select chain from audit_log order by id desc limit 1", args![]).await?;
    let before = before.map_or_else(|| BEGINNING.to_owned(), |(chain,)| chain);
    let chain = chained(&before, at, [who, what, subject, &detail]);
    tx.execute(
        "insert into audit_log (at, who, what, subject, detail, chain) values ($1, $2, $3, $4, $5, $6)",
        args![at, who, what, subject, detail, chain],
    )
    .await?;
    Ok(())
}

/// The id of the first row whose chain does not hold; `None` when all do.
///
/// # Errors
/// The database fails.
pub async fn first_broken(db: &Db) -> Result<Option<i64>> {
    const PAGE: i64 = 1000;
    let mut before = BEGINNING.to_owned();
    let mut after = 0;
    loop {
        let rows: Vec<(i64, Millis, String, String, String, String, String)> = db
            .fetch_all(
                "select id, at, who, what, subject, detail, chain from audit_log where id > $1 order by id limit $2",
                args![after, PAGE],
            )
            .await?;
        let Some(last) = rows.last() else { return Ok(None) };
        after = last.0;
        for (id, at, who, what, subject, detail, chain) in rows {
            if chained(&before, at, [&who, &what, &subject, &detail]) != chain {
                return Ok(Some(id));
            }
            before = chain;
        }
    }
}

fn chained(before: &str, at: Millis, fields: [&str; 4]) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut part = |bytes: &[u8]| {
        digest.update(&(bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    part(before.as_bytes());
    part(&at.0.to_be_bytes());
    fields.into_iter().for_each(|field| part(field.as_bytes()));
    hex(digest.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[tokio::test]
    async fn a_changed_row_breaks_the_chain() {
        let folder = tempfile::tempdir().unwrap();
        let db = testing::stores(folder.path()).await.business;
        for n in 0..5 {
            let mut tx = db.begin().await.unwrap();
            record(&mut tx, Millis(n), "owner", "site.add", &n.to_string(), "").await.unwrap();
            tx.commit().await.unwrap();
        }
        assert_eq!(first_broken(&db).await.unwrap(), None);
        db.execute("update audit_log set who = 'other' where id = 3", args![]).await.unwrap();
        assert_eq!(first_broken(&db).await.unwrap(), Some(3));
    }
}
