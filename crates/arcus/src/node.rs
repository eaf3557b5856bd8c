//! The node of this machine: its drivers, and the agent that joins the cloud in the same process.

use crate::cli::Up;
use crate::cloud::Cloud;
use crate::home::Home;
use anyhow::{Context as _, Result};
use arcus_agent::{Agent, AgentConfig, Directory, Drivers, Ledger, Link, tag};
use arcus_hypervisor::{AccelChoice, GuestState, Hypervisor, QemuConfig, QemuHypervisor, SimHypervisor};
use arcus_network::{Linux, LinuxConfig, Network};
use arcus_storage::Storage;
use arcus_storage::dir::{DirOptions, DirStorage};
use arcus_storage::sim::{SimOptions, SimStorage};
use arcus_types::ServerId;
use arcus_types::agent::NodeFacts;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Starts the agent; it joins the cloud if this machine has not yet.
pub async fn start(options: &Up, home: &Home, cloud: &Cloud, stop: CancellationToken) -> Result<JoinHandle<()>> {
    let state = home.agent();
    let ledger = Ledger::open(&state.join("ledger")).context("could not open the node's ledger")?;
    let directory = Arc::new(Directory::default());
    let (config, drivers) = if options.simulate {
        simulated(home)?
    } else {
        let drivers = Drivers {
            hypervisor: hypervisor(home, &options.accel)?,
            storage: storage(home)?,
            network: network(home, options.uplink.clone(), Arc::clone(&directory))?,
        };
        (AgentConfig::default(), drivers)
    };
    let identity = state.join("identity");
    let link = if Link::has_joined(&identity) {
        Link::open(&cloud.url, &identity)?
    } else {
        let token = cloud.join_token().await?;
        Link::join(&cloud.url, &cloud.ca_pem()?, &token, &node_name(), &identity).await?
    };
    let agent = Agent::new(config, drivers, ledger, Arc::new(link), directory);
    Ok(tokio::spawn(agent.run(stop)))
}

/// Drivers that pretend, on a node that pretends to be large.
fn simulated(home: &Home) -> Result<(AgentConfig, Drivers)> {
    let file = Some(home.agent().join("simulated-guests.json"));
    let drivers = Drivers {
        hypervisor: Arc::new(SimHypervisor::open(arcus_hypervisor::SimConfig { file, ..Default::default() })?),
        storage: Arc::new(SimStorage::open(
            SimOptions { fetches: false, ..SimOptions::default() },
            home.agent().join("simulated"),
        )?),
        network: Arc::new(arcus_network::Sim::new(arcus_network::SimConfig::default())),
    };
    let pretend = NodeFacts {
        cpu_model: "simulated".to_owned(),
        vcpus: 10_000,
        memory_mib: 100 << 20,
        disk_gib: 1 << 20,
        disk_free_gib: 1 << 20,
        ..NodeFacts::default()
    };
    Ok((AgentConfig { pretend: Some(pretend), ..AgentConfig::default() }, drivers))
}

/// The driver that runs guests.
pub fn hypervisor(home: &Home, accel: &str) -> Result<Arc<dyn Hypervisor>> {
    let state = home.agent();
    let mut config = QemuConfig::new(state.join("guests"), tag(&state)?);
    config.accel = match accel {
        "kvm" => AccelChoice::Kvm,
        "tcg" => AccelChoice::Tcg,
        _ => AccelChoice::Auto,
    };
    Ok(Arc::new(QemuHypervisor::open(config).context("could not open the hypervisor")?))
}

fn storage(home: &Home) -> Result<Arc<dyn Storage>> {
    let storage = DirStorage::open(&home.agent(), DirOptions::default()).context("could not open the storage")?;
    Ok(Arc::new(storage))
}

fn network(home: &Home, uplink: Option<String>, directory: Arc<Directory>) -> Result<Arc<dyn Network>> {
    let tag = tag(&home.agent())?.parse().context("the node's tag is not valid")?;
    let uplink = uplink.map(|name| name.parse()).transpose().context("the uplink is not the name of a link")?;
    let config = LinuxConfig { tag, uplink, underlay: None, directory };
    Ok(Arc::new(Linux::new(config).context("could not open the network")?))
}

/// Takes down every network of this node.
pub async fn teardown(home: &Home) -> Result<()> {
    let network = network(home, None, Arc::new(Directory::default()))?;
    network.teardown().await.context("could not take the networks down")
}

/// Whether a guest has a process.
pub async fn lives(hypervisor: &dyn Hypervisor, server: ServerId) -> bool {
    matches!(hypervisor.state(server).await, GuestState::Running | GuestState::Paused)
}

/// The machine's name.
fn node_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    if name.is_empty() { "node".to_owned() } else { name }
}
