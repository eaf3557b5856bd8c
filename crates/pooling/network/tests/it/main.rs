//! The Linux driver against the real kernel: real namespaces, real packets, guests played by namespaces.
//!
//! Each test runs in a network namespace of its own, so the machine's own network stays as it is. Needs root, iproute2,
//! nftables, iputils-ping and busybox.
#![cfg(test)]

mod external;
mod forwarding;
mod hostile6;
mod ipv6;
mod lab;
mod limits;
mod nodes;
mod segments;
mod upkeep;
mod wire;
