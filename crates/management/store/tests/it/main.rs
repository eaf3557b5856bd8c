//! The store, on both databases.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod clusters;
mod identity;
mod images;
mod networks;
mod providers;
mod servers;
mod tasks;
mod volumes;
