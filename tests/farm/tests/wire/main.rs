//! Raw sockets against every family of a farm in this process.

#![allow(clippy::unwrap_used)]

mod families;
mod farm;
mod site;
mod web;
