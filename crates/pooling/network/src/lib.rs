//! Segments, ports, filters, routers, DHCP and metadata on a node.
//!
//! The agent tells a [`Network`] what the whole node shall look like and asks it for a guest's tap. There are two drivers:
//! [`linux`] makes namespaces, bridges and nftables rules; [`sim`] pretends to, for runs with many nodes.
//!
//! What a driver must never do: let one tenant's packet reach another tenant's segment, let a guest speak under an
//! address that is not its own, or hand text that a tenant wrote to another program.

pub mod linux;
pub mod sim;

use arcus_types::agent::{FlowSpec, NetworkSpec, RouterSpec, SecurityGroupSpec};
use arcus_types::ids::PortId;
use std::os::fd::OwnedFd;

pub use linux::{DeviceName, Linux, LinuxConfig, Tag};
pub use sim::{Sim, SimConfig};

/// What one reconciliation brought about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkOutcome {
    /// Ports that are ready to carry traffic, in order of their ids.
    pub ports_up: Vec<PortId>,
    /// What could not be brought about, in words for the operator; the next pass tries again.
    pub faults: Vec<String>,
}

/// The network of a node.
#[async_trait::async_trait]
pub trait Network: Send + Sync {
    /// Brings the whole node to the given state and removes everything of ours that it does not name.
    ///
    /// Idempotent, and cheap when nothing changed. Calls are serialised. A part that fails is reported as a fault and
    /// leaves the other parts in place.
    async fn reconcile(
        &self,
        networks: &[NetworkSpec],
        routers: &[RouterSpec],
        groups: &[SecurityGroupSpec],
    ) -> NetworkOutcome;

    /// The tap of a port that a reconciliation has brought up, opened for a guest's QEMU (`-netdev tap,fd=`).
    ///
    /// Each frame that is read or written begins with a `virtio_net_hdr`. One opener at a time.
    async fn tap(&self, port: PortId) -> Result<OwnedFd, NetworkError>;

    /// The tracked connections of these ports' guests, at most [`arcus_types::agent::FLOWS_MAX`] of them.
    async fn flows(&self, ports: &[PortId]) -> Vec<FlowSpec>;

    /// Removes everything that this driver has made on the node; done twice it does nothing.
    async fn teardown(&self) -> Result<(), NetworkError>;
}

/// How the metadata service finds what to say to a guest; the agent implements it.
pub trait GuestDirectory: Send + Sync {
    /// The document at `path` (such as `/openstack/latest/meta_data.json`) for the guest that owns the port; `None` is
    /// answered as 404. The path begins with a slash, has no query and is at most 1024 bytes of printable ASCII.
    ///
    /// Called on the driver's own threads: it must not block for long.
    fn document(&self, port: PortId, path: &str) -> Option<Vec<u8>>;

    /// Takes what the guest that owns the port leaves at `path`. It is safe only once [`GuestDirectory::document`] shows
    /// it there. Must not block either.
    fn leave(&self, _port: PortId, _path: &str, _bytes: &[u8]) -> Left {
        Left::NotHere
    }
}

/// What becomes of something that a guest leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It is being kept.
    Taken,
    /// There is something already.
    Stands,
    /// It is not what may be left there.
    Refused,
    /// Nothing can be left there.
    NotHere,
}

/// Why the network could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The node has no such port: a reconciliation must bring it up first.
    #[error("port {0} is not on this node")]
    PortUnknown(PortId),
    /// The tap exists and cannot be opened: it is mostly held by another process.
    #[error("could not open the tap of port {port}")]
    Tap {
        /// Whose tap.
        port: PortId,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A network namespace could not be made, entered or removed.
    #[error("network namespace {name}: could not {action}")]
    Namespace {
        /// The namespace.
        name: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A program that we build on could not be started.
    #[error("could not run {program}; is its package installed?")]
    Program {
        /// `ip`, `bridge`, `tc` or `nft`.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A program that we build on refused.
    #[error("{program} in {place} failed: {message}")]
    Refused {
        /// `ip`, `bridge`, `tc` or `nft`.
        program: &'static str,
        /// The namespace, or `the node`.
        place: String,
        /// What the program said, cut to 1000 characters.
        message: String,
    },
    /// A program that we build on did not end in time, and was ended.
    #[error("{program} in {place} did not end within {} s", after.as_secs())]
    Deadline {
        /// `ip`, `bridge`, `tc` or `nft`.
        program: &'static str,
        /// The namespace, or `the node`.
        place: String,
        /// How long it was given.
        after: std::time::Duration,
    },
    /// Bandwidth is not limited as it should be; everything else is in place.
    #[error("bandwidth limits in {place} are not in force")]
    Limits {
        /// The namespace.
        place: String,
        /// Why.
        #[source]
        source: Box<NetworkError>,
    },
    /// A kernel setting that we need is absent or cannot be written.
    #[error("{place}: could not set {setting}")]
    Setting {
        /// The namespace.
        place: String,
        /// The path below `/proc/sys`.
        setting: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A socket of a service for guests could not be made.
    #[error("{place}: could not serve {service}")]
    Service {
        /// The namespace.
        place: String,
        /// Such as `DHCP` or `metadata`.
        service: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The specification contradicts itself.
    #[error("{0}")]
    Specification(String),
    /// A worker of the driver ended before it answered.
    #[error("a worker of the network driver ended early")]
    Worker,
}

impl NetworkError {
    /// Whether the same call may succeed later without anybody acting.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::PortUnknown(_)
            | Self::Tap { .. }
            | Self::Namespace { .. }
            | Self::Refused { .. }
            | Self::Service { .. }
            | Self::Deadline { .. }
            | Self::Worker => true,
            Self::Limits { source, .. } => source.is_transient(),
            Self::Program { .. } | Self::Setting { .. } | Self::Specification(_) => false,
        }
    }

    /// The error and all its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
