//! What goes into a statement and what comes out of a row.

use hashinsight_protocol::ids::{AgentId, Epoch, MinerId, OrderId, PlanId, SiteId, UserId};
use hashinsight_protocol::units::{Celsius, DurationMs, Hashrate, Millis, Watts};
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Column as _, Row as _, TypeInfo as _};

/// An argument of a statement. An absent one has a type too: PostgreSQL asks for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Int(Option<i64>),
    Real(Option<f64>),
    Text(Option<String>),
    Blob(Option<Vec<u8>>),
}

/// A row, whichever database it comes from.
pub enum Columns<'r> {
    Sqlite(&'r SqliteRow),
    Postgres(&'r PgRow),
}

/// Something that a row is read into. The [`row!`](crate::row) macro makes structs of them; tuples
/// take columns by position.
pub trait Row: Sized {
    /// # Errors
    /// A column is missing, or holds something else.
    fn read(row: &Columns<'_>) -> Result<Self, sqlx::Error>;
}

/// Something that one column is read into.
pub trait Column: Sized {
    /// # Errors
    /// The column is missing, or holds something else.
    fn read(row: &Columns<'_>, at: usize) -> Result<Self, sqlx::Error>;
}

/// A struct that is read from the columns of a query, in the order of its fields:
/// `row! { pub struct Site { pub id: SiteId, pub name: String } }`.
#[macro_export]
macro_rules! row {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty),* $(,)?
    }) => {
        $(#[$meta])*
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type),* }

        impl $crate::store::Row for $name {
            fn read(row: &$crate::store::Columns<'_>) -> ::std::result::Result<Self, ::sqlx::Error> {
                let mut at = 0..;
                // The range has no end.
                let mut next = || at.next().unwrap_or_default();
                Ok(Self { $($field: $crate::store::Column::read(row, next())?),* })
            }
        }
    };
}

/// A whole number of PostgreSQL: counts are of 8 bytes, literals of 4, comparisons are booleans.
fn whole_of(row: &PgRow, at: usize) -> Result<Option<i64>, sqlx::Error> {
    match row.try_column(at)?.type_info().name() {
        "INT4" => Ok(row.try_get::<Option<i32>, _>(at)?.map(i64::from)),
        "BOOL" => Ok(row.try_get::<Option<bool>, _>(at)?.map(i64::from)),
        _ => row.try_get(at),
    }
}

fn plain<T>(row: &PgRow, at: usize) -> Result<Option<T>, sqlx::Error>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(at)
}

macro_rules! base {
    ($($type:ty => $variant:ident, $postgres:expr);*) => {$(
        impl Column for $type {
            fn read(row: &Columns<'_>, at: usize) -> Result<Self, sqlx::Error> {
                match row {
                    Columns::Sqlite(row) => row.try_get(at),
                    Columns::Postgres(row) => $postgres(row, at)?.ok_or_else(|| not_stored_by_us(at)),
                }
            }
        }
        impl Column for Option<$type> {
            fn read(row: &Columns<'_>, at: usize) -> Result<Self, sqlx::Error> {
                match row {
                    Columns::Sqlite(row) => row.try_get(at),
                    Columns::Postgres(row) => $postgres(row, at),
                }
            }
        }
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(Some(value))
            }
        }
        impl From<Option<$type>> for Value {
            fn from(value: Option<$type>) -> Self {
                Self::$variant(value)
            }
        }
    )*};
}
base!(i64 => Int, whole_of; f64 => Real, plain; String => Text, plain; Vec<u8> => Blob, plain);

/// A type of ours that is stored as one of the base types.
macro_rules! stored_as {
    ($($type:ty as $base:ty: $into:expr, $from:expr;)*) => {$(
        impl Column for $type {
            fn read(row: &Columns<'_>, at: usize) -> Result<Self, sqlx::Error> {
                read_as(row, at, $from)
            }
        }
        impl Column for Option<$type> {
            fn read(row: &Columns<'_>, at: usize) -> Result<Self, sqlx::Error> {
                read_option_as(row, at, $from)
            }
        }
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                let into: fn($type) -> $base = $into;
                into(value).into()
            }
        }
        impl From<Option<$type>> for Value {
            fn from(value: Option<$type>) -> Self {
                let into: fn($type) -> $base = $into;
                value.map(into).into()
            }
        }
    )*};
}

fn read_as<B: Column, T>(
    row: &Columns<'_>,
    at: usize,
    from: impl Fn(B) -> Option<T>,
) -> Result<T, sqlx::Error> {
    from(B::read(row, at)?).ok_or_else(|| not_stored_by_us(at))
}

fn read_option_as<B, T>(
    row: &Columns<'_>,
    at: usize,
    from: impl Fn(B) -> Option<T>,
) -> Result<Option<T>, sqlx::Error>
where
    Option<B>: Column,
{
    let value: Option<B> = Column::read(row, at)?;
    value.map(|v| from(v).ok_or_else(|| not_stored_by_us(at))).transpose()
}

fn not_stored_by_us(at: usize) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: at.to_string(), source: "a value that is never stored there".into() }
}

/// What goes beyond an i64 is no count or time of ours; it is stored as the largest one.
fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

stored_as! {
    bool as i64: i64::from, |v: i64| Some(v != 0);
    u64 as i64: whole, |v: i64| u64::try_from(v).ok();
    u32 as i64: i64::from, |v: i64| u32::try_from(v).ok();
    u16 as i64: i64::from, |v: i64| u16::try_from(v).ok();
    u8 as i64: i64::from, |v: i64| u8::try_from(v).ok();
    Millis as i64: |v| v.0, |v: i64| Some(Millis(v));
    DurationMs as i64: |v| whole(v.0), |v: i64| u64::try_from(v).ok().map(DurationMs);
    Watts as f64: Watts::get, Watts::new;
    Hashrate as f64: Hashrate::get, Hashrate::new;
    Celsius as f64: Celsius::get, Celsius::new;
    AgentId as String: |v| v.to_string(), |v: String| v.parse().ok();
    SiteId as String: |v| v.to_string(), |v: String| v.parse().ok();
    MinerId as String: |v| v.to_string(), |v: String| v.parse().ok();
    PlanId as String: |v| v.to_string(), |v: String| v.parse().ok();
    OrderId as String: |v| v.to_string(), |v: String| v.parse().ok();
    UserId as String: |v| v.to_string(), |v: String| v.parse().ok();
    Epoch as String: |v| v.to_string(), |v: String| v.parse().ok();
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(Some(value.clone()))
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Blob(Some(value.to_vec()))
    }
}

macro_rules! tuples {
    ($($($name:ident $at:literal),*;)*) => {$(
        impl<$($name: Column),*> Row for ($($name,)*) {
            fn read(row: &Columns<'_>) -> Result<Self, sqlx::Error> {
                Ok(($($name::read(row, $at)?,)*))
            }
        }
    )*};
}
tuples! {
    A 0;
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
    A 0, B 1, C 2, D 3, E 4;
    A 0, B 1, C 2, D 3, E 4, F 5;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
}
