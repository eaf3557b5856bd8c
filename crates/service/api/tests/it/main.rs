//! The API as a client sees it: the real router over a fresh database, with real log-ins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod compatibility;
mod compute;
mod harness;
mod identity;
mod image;
mod network;
mod placement;
mod policy;
