//! The drivers against the contract: the simulator, and real QEMU.
#![cfg(test)]

mod fixture;
mod guests;
mod processes;
mod schema;
mod sim;
mod volumes;
