//! One contract for every driver, and what only files can get wrong.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends at the first surprise")]

mod contract;
mod crash;
mod dir;
mod rig;
mod volumes;
