//! The JSON API: the same services as the pages, under `/api/v1`.
//!
//! Quantities carry their unit in their name; unknown values are null; times are milliseconds since
//! 1970. An error is `{"error": "…"}`.

pub mod metrics;
pub mod plans;
pub mod readings;
pub mod sites;
