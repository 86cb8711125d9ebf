//! Many rows by few statements, each database in its own way.
//!
//! SQLite takes a list of rows, in fixed sizes so that each text is prepared once. PostgreSQL takes an
//! array a column, however many rows there are.

use super::{Tx, Value, postgres};
use crate::error::Result;
use std::fmt::Write as _;

/// Rows of one statement on SQLite. The last is 1, so that one always fits.
const SIZES: [usize; 3] = [128, 16, 1];
/// Rows of one statement on PostgreSQL.
const ARRAY: usize = 8192;

/// An insert of many rows. One that is made for each table is kept in a static.
#[derive(Debug)]
pub struct Bulk {
    columns: usize,
    sqlite: [String; SIZES.len()],
    postgres: String,
}

impl Bulk {
    /// `insert into {into} (columns) … {then}`; `then` says what to do on a conflict.
    pub fn new(into: &str, columns: &[&str], then: &str) -> Self {
        let head = format!("insert into {into} ({})", columns.join(", "));
        // Placeholders without a number: SQLite seeks a numbered one in a list, which takes the square
        // of their count.
        let places = format!("({})", vec!["?"; columns.len()].join(", "));
        let sqlite = SIZES.map(|rows| format!("{head} values {} {then}", vec![&places[..]; rows].join(", ")));
        let mut arrays = String::new();
        for number in 1..=columns.len() {
            // Writing to a string never fails.
            let _ = write!(arrays, "{}${number}", if number > 1 { ", " } else { "" });
        }
        // "where true": without it SQLite's and PostgreSQL's "on conflict" after a select are ambiguous.
        let postgres = format!("{head} select * from unnest({arrays}) where true {then}");
        Self { columns: columns.len(), sqlite, postgres }
    }

    /// Inserts rows, each with a value a column, each column of one type.
    ///
    /// # Errors
    /// The database fails.
    pub async fn run(&'static self, tx: &mut Tx, rows: Vec<Vec<Value>>) -> Result<()> {
        match tx {
            Tx::Sqlite(_) => {
                let mut rows = rows.into_iter();
                while rows.len() > 0 {
                    let fits = |size: &usize| *size <= rows.len();
                    let which = SIZES.iter().position(fits).unwrap_or(SIZES.len() - 1);
                    let args = rows.by_ref().take(SIZES[which]).flatten().collect();
                    tx.execute(self.sqlite[which].as_str(), args).await?;
                }
            }
            Tx::Postgres(tx) => {
                let mut rows = rows.into_iter();
                while rows.len() > 0 {
                    let now = rows.by_ref().take(ARRAY).collect();
                    postgres::execute_arrays(&mut **tx, &self.postgres, self.columns, now).await?;
                }
            }
        }
        Ok(())
    }
}
