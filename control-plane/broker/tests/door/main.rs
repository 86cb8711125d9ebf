//! The front door as its clients meet it. One program, since linking each file's own would cost more than
//! running it.
#![allow(clippy::unwrap_used)]

mod common;
mod defects;
mod flow;
mod life;
mod router;
mod strangers;
mod topics;
