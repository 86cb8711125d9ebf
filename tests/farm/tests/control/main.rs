//! The drivers of families with a web API against the farm: stop by effect, wake to the exact
//! pre-state, and every lie named.

#![allow(clippy::unwrap_used)]

mod bench;
mod books;
mod families;
mod lies;
