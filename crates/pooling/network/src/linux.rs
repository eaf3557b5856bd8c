//! The real driver: Linux namespaces, bridges, taps and nftables.
//!
//! ```text
//! agent's own namespace      arTAGx… external bridge ── arTAGg… ┐        nft: inet arcus_TAG (the guard)
//! arcus-TAG-r-… (a router)                             g… ──────┘ i… ┐   nft: inet arcus (translation)
//! arcus-TAG-n-… (a segment)  br ─┬─ p… tap ══ QEMU's fd         r… ──┘   nft: bridge arcus, inet arcus (filters)
//!                                ├─ vx tunnel to other nodes
//!                                └─ 169.254.169.254, fe80::a9fe:a9fe: DHCP, router advertisements, DNS, metadata
//! ```
//! What is in the kernel survives the agent. A new agent finds it by its names, repairs what drifted and removes what
//! nobody names. While nothing changes, a pass compares specifications and starts no process; once
//! a minute it compares with the kernel.

mod advertise;
mod dhcp;
mod dhcp6;
mod dns;
mod external;
mod filter;
mod flows;
mod luggage;
mod metadata;
pub mod names;
mod namespace;
mod netlink;
mod node;
mod observe;
mod packet;
mod place;
mod plan;
mod programs;
mod queues;
mod rate;
mod router;
mod router6;
mod segment;
mod services;
mod tap;

use crate::{GuestDirectory, Network, NetworkError, NetworkOutcome};
use arcus_types::agent::{FlowSpec, NetworkSpec, RouterSpec, SecurityGroupSpec};
use arcus_types::ids::PortId;
use namespace::Namespace;
use node::{Node, Taps, Wish};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

pub use filter::{SERVICE_ADDRESS, SERVICE_ADDRESS6};
pub use names::{DeviceName, NotADeviceName, NotATag, Tag};

/// What the driver must be told once.
#[derive(Clone)]
pub struct LinuxConfig {
    /// What the names of all kernel objects of this agent carry.
    pub tag: Tag,
    /// The machine's device by which guests may go out; `None` keeps them in.
    pub uplink: Option<DeviceName>,
    /// This node's address for tunnels to other nodes.
    pub underlay: Option<IpAddr>,
    /// What the metadata service tells guests.
    pub directory: Arc<dyn GuestDirectory>,
}

/// The real driver.
pub struct Linux {
    inner: Arc<Inner>,
}

struct Inner {
    config: LinuxConfig,
    node: Mutex<Node>,
    taps: RwLock<Taps>,
    last: Mutex<Option<Last>>,
}

/// What the last pass was asked and came to.
struct Last {
    wish: Wish,
    outcome: NetworkOutcome,
    at: Instant,
}

impl Linux {
    /// A driver for the network namespace of the calling thread. Changes nothing yet.
    pub fn new(config: LinuxConfig) -> Result<Self, NetworkError> {
        let node = Node::new(Namespace::current()?, &config);
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                node: Mutex::new(node),
                taps: RwLock::new(Taps::new()),
                last: Mutex::new(None),
            }),
        })
    }
}

impl Inner {
    /// The last outcome, if it still holds for the same specification.
    fn unchanged(
        &self,
        networks: &[NetworkSpec],
        routers: &[RouterSpec],
        groups: &[SecurityGroupSpec],
    ) -> Option<NetworkOutcome> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.as_ref()?;
        let same = last.wish.networks == networks && last.wish.routers == routers && last.wish.groups == groups;
        (same && last.outcome.faults.is_empty() && last.at.elapsed() < place::TRUST).then(|| last.outcome.clone())
    }
}

#[async_trait::async_trait]
impl Network for Linux {
    async fn reconcile(
        &self,
        networks: &[NetworkSpec],
        routers: &[RouterSpec],
        groups: &[SecurityGroupSpec],
    ) -> NetworkOutcome {
        if let Some(outcome) = self.inner.unchanged(networks, routers, groups) {
            return outcome;
        }
        let wish = Wish { networks: networks.to_vec(), routers: routers.to_vec(), groups: groups.to_vec() };
        let inner = Arc::clone(&self.inner);
        let runtime = tokio::runtime::Handle::current();
        let pass = tokio::task::spawn_blocking(move || {
            let mut node = inner.node.lock().unwrap_or_else(PoisonError::into_inner);
            let (outcome, taps) = node.pass(&wish, &inner.config, &runtime);
            *inner.taps.write().unwrap_or_else(PoisonError::into_inner) = taps;
            let last = Last { wish, outcome: outcome.clone(), at: Instant::now() };
            *inner.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
            outcome
        });
        pass.await
            .unwrap_or_else(|_| NetworkOutcome { ports_up: Vec::new(), faults: vec![NetworkError::Worker.to_string()] })
    }

    async fn tap(&self, port: PortId) -> Result<OwnedFd, NetworkError> {
        let namespace = {
            let taps = self.inner.taps.read().unwrap_or_else(PoisonError::into_inner);
            taps.get(&port).map(Arc::clone).ok_or(NetworkError::PortUnknown(port))?
        };
        let opened = tokio::task::spawn_blocking(move || namespace.inside(|| tap::open(&names::tap(port))));
        opened.await.map_err(|_| NetworkError::Worker)??.map_err(|source| NetworkError::Tap { port, source })
    }

    async fn flows(&self, ports: &[PortId]) -> Vec<FlowSpec> {
        let (inner, ports) = (Arc::clone(&self.inner), ports.to_vec());
        let packed = tokio::task::spawn_blocking(move || {
            let node = inner.node.lock().unwrap_or_else(PoisonError::into_inner);
            node.flows(&ports)
        });
        packed.await.unwrap_or_default()
    }

    async fn teardown(&self) -> Result<(), NetworkError> {
        let inner = Arc::clone(&self.inner);
        let runtime = tokio::runtime::Handle::current();
        let done = tokio::task::spawn_blocking(move || {
            let mut node = inner.node.lock().unwrap_or_else(PoisonError::into_inner);
            inner.taps.write().unwrap_or_else(PoisonError::into_inner).clear();
            *inner.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
            node.teardown(&inner.config, &runtime)
        });
        done.await.map_err(|_| NetworkError::Worker)?
    }
}
