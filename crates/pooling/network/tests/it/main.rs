//! The Linux driver against the real kernel: real namespaces, real packets, guests played by namespaces.
//!
//! Each test runs in a network namespace of its own, so the machine's own network stays as it is. Needs root, iproute2,
//! nftables, iputils-ping and busybox.
#![cfg(test)]

mod external;
mod lab;
mod segments;
mod upkeep;
