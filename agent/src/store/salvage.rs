//! Reads what can still be read of a corrupt journal, row by row.
//!
//! Each table is read by itself from the front, then from the back; a row that can't be read ends that
//! direction, and no more. The engine takes any set of rows for a book: a hold whose dispatch is lost is
//! woken.

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use std::path::Path;

/// Tables by what matters most, and their columns.
const TABLES: [(&str, usize); 6] =
    [("book", 2), ("miners", 2), ("plans", 6), ("orders", 4), ("batches", 3), ("life", 7)];

/// Copies rows into a new journal; says how many of each table.
pub(crate) fn copy(from: &Path, into: &Connection) -> Vec<(&'static str, usize)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(old) = Connection::open_with_flags(from, flags) else { return Vec::new() };
    let _ = old.pragma_update(None, "cell_size_check", true);
    TABLES.into_iter().map(|(table, columns)| (table, copy_table(&old, into, table, columns))).collect()
}

fn copy_table(old: &Connection, into: &Connection, table: &str, columns: usize) -> usize {
    let marks = vec!["?"; columns].join(", ");
    // The new journal's own life has a row already; the old one's session and document go on.
    let insert = format!("INSERT OR REPLACE INTO {table} VALUES ({marks})");
    let mut copied = 0;
    for order in ["ASC", "DESC"] {
        let select = format!("SELECT * FROM {table} ORDER BY rowid {order}");
        let Ok(mut statement) = old.prepare(&select) else { continue };
        let Ok(mut rows) = statement.query([]) else { continue };
        let mut here = 0;
        while let Ok(Some(row)) = rows.next() {
            let values: Result<Vec<Value>, _> = (0..columns).map(|i| row.get(i)).collect();
            let Ok(values) = values else { continue };
            here += usize::from(into.execute(&insert, params_from_iter(values)).is_ok());
        }
        copied = copied.max(here);
    }
    copied
}
