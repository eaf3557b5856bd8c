//! A driver that only pretends: it records what it was told, and every port is up at once, or after a seeded delay.
//!
//! It ships, for simulated nodes that speak the real protocol, and it is what tests of the agent run on.

use crate::{Network, NetworkError, NetworkOutcome};
use arcus_types::agent::{FlowSpec, NetworkSpec, RouterSpec, SecurityGroupSpec};
use arcus_types::ids::PortId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a pretended network behaves.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Two drivers with the same seed and the same calls take the same delays.
    pub seed: u64,
    /// How long a reconciliation that changes something takes, in milliseconds.
    pub delay_ms: RangeInclusive<u64>,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self { seed: 0, delay_ms: 0..=0 }
    }
}

/// What the driver was told last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// Segments and external networks.
    pub networks: Vec<NetworkSpec>,
    /// Routers.
    pub routers: Vec<RouterSpec>,
    /// Rule sets.
    pub groups: Vec<SecurityGroupSpec>,
    /// How many reconciliations changed something.
    pub changes: u64,
    /// How often each port's tap has been opened.
    pub taps_opened: BTreeMap<PortId, u64>,
}

/// The pretending driver.
#[derive(Debug)]
pub struct Sim {
    delay_ms: RangeInclusive<u64>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    random: StdRng,
    told: Told,
    faults: BTreeMap<PortId, String>,
}

impl Sim {
    /// A driver that has been told nothing.
    pub fn new(config: SimConfig) -> Self {
        let random = StdRng::seed_from_u64(config.seed);
        let inner = Inner { random, told: Told::default(), faults: BTreeMap::new() };
        Self { delay_ms: config.delay_ms, inner: Mutex::new(inner) }
    }

    /// What it was told last.
    pub fn told(&self) -> Told {
        self.lock().told.clone()
    }

    /// Keeps a port from coming up, with this fault; `None` ends that.
    pub fn port_fault(&self, port: PortId, fault: Option<String>) {
        let mut inner = self.lock();
        match fault {
            Some(fault) => inner.faults.insert(port, fault),
            None => inner.faults.remove(&port),
        };
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn ports(&self) -> BTreeSet<PortId> {
        let segments = self.told.networks.iter().filter(|network| network.external.is_none());
        segments.flat_map(|network| network.ports.iter().filter(|port| port.admin_up).map(|port| port.id)).collect()
    }
}

#[async_trait::async_trait]
impl Network for Sim {
    async fn reconcile(
        &self,
        networks: &[NetworkSpec],
        routers: &[RouterSpec],
        groups: &[SecurityGroupSpec],
    ) -> NetworkOutcome {
        let delay_ms = {
            let mut inner = self.lock();
            let told = &inner.told;
            let same = told.networks == networks && told.routers == routers && told.groups == groups;
            if same { 0 } else { inner.random.random_range(self.delay_ms.clone()) }
        };
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        let mut inner = self.lock();
        let told = &mut inner.told;
        if told.networks != networks || told.routers != routers || told.groups != groups {
            told.networks = networks.to_vec();
            told.routers = routers.to_vec();
            told.groups = groups.to_vec();
            told.changes += 1;
        }
        let ports = inner.ports();
        NetworkOutcome {
            ports_up: ports.iter().filter(|port| !inner.faults.contains_key(port)).copied().collect(),
            faults: ports.iter().filter_map(|port| inner.faults.get(port).cloned()).collect(),
        }
    }

    async fn tap(&self, port: PortId) -> Result<OwnedFd, NetworkError> {
        let mut inner = self.lock();
        let known = inner.told.networks.iter().any(|network| network.ports.iter().any(|known| known.id == port));
        if !known {
            return Err(NetworkError::PortUnknown(port));
        }
        let null = File::options().read(true).write(true).open("/dev/null");
        let fd = null.map(OwnedFd::from).map_err(|source| NetworkError::Tap { port, source })?;
        *inner.told.taps_opened.entry(port).or_insert(0) += 1;
        Ok(fd)
    }

    async fn flows(&self, _ports: &[PortId]) -> Vec<FlowSpec> {
        Vec::new()
    }

    async fn teardown(&self) -> Result<(), NetworkError> {
        let mut inner = self.lock();
        inner.told = Told { changes: inner.told.changes + 1, ..Told::default() };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcus_types::agent::{PortSpec, QosSpec};
    use arcus_types::ids::NetworkId;
    use arcus_types::text::MacAddr;

    fn network(ports: &[PortId]) -> NetworkSpec {
        let port = |id: &PortId| PortSpec {
            id: *id,
            server_id: None,
            mac: MacAddr::for_port([0, 0, 1]),
            addresses: vec![],
            security_groups: vec![],
            port_security: true,
            allowed_pairs: vec![],
            admin_up: true,
            hostname: "a".into(),
            dns_domain: String::new(),
            dhcp_options: vec![],
            qos: QosSpec::default(),
            moving: None,
            flows: Vec::new(),
        };
        NetworkSpec {
            id: NetworkId::new(),
            segment: 1,
            mtu: 1500,
            external: None,
            subnets: vec![],
            ports: ports.iter().map(port).collect(),
            peers: vec![],
        }
    }

    #[tokio::test]
    async fn ports_come_up_unless_a_fault_is_injected() {
        let sim = Sim::new(SimConfig::default());
        let ports = [PortId::new(), PortId::new()];
        let networks = [network(&ports)];
        sim.port_fault(ports[1], Some("no luck".into()));
        let outcome = sim.reconcile(&networks, &[], &[]).await;
        assert_eq!((outcome.ports_up, outcome.faults), (vec![ports[0]], vec!["no luck".to_owned()]));
        sim.port_fault(ports[1], None);
        assert_eq!(sim.reconcile(&networks, &[], &[]).await.ports_up, ports);
        assert!(sim.tap(ports[0]).await.is_ok());
        assert!(matches!(sim.tap(PortId::new()).await, Err(NetworkError::PortUnknown(_))));
        assert_eq!(sim.told().changes, 1);
        sim.teardown().await.unwrap();
        assert!(sim.told().networks.is_empty());
    }
}
