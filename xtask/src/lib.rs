//! The chores of the workspace: checks, tests, benchmarks, the guest image, and starting a cloud from a clone.

pub mod bench;
pub mod chores;
pub mod clients;
pub mod cloud;
pub mod image;
pub mod layers;
pub mod process;
pub mod tidy;
