//! The engine over a fresh database, called by people, nodes and Arcus itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod images;
mod networks;
mod servers;
