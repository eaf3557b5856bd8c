//! The chores of the workspace: checks, tests, benchmarks, conformance, the guest image, and starting a cloud from a clone.

pub mod bench;
pub mod chores;
pub mod clients;
pub mod cloud;
pub mod conformance;
pub mod image;
pub mod layers;
pub mod process;
pub mod tidy;
