//! The node of this machine: its drivers, and the agent that joins the cloud in the same process.

use crate::cli::NodeOptions;
use crate::cloud::Cloud;
use crate::home::Home;
use anyhow::{Context as _, Result, bail};
use arcus_agent::{Agent, AgentConfig, Directory, Drivers, Ledger, Link, SharedDisks, tag};
use arcus_hypervisor::{AccelChoice, GuestState, Hypervisor, QemuConfig, QemuHypervisor, SimHypervisor};
use arcus_network::{Linux, LinuxConfig, Network};
use arcus_storage::Storage;
use arcus_storage::dir::{DirOptions, DirStorage};
use arcus_storage::sim::{SimOptions, SimStorage};
use arcus_types::agent::NodeFacts;
use arcus_types::clusters::CpuFacts;
use arcus_types::{DiskPoolId, ServerId};
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Starts the agent of the cloud's own machine; it joins the cloud if it has not yet.
pub async fn start(
    options: &NodeOptions,
    home: &Home,
    cloud: &Cloud,
    stop: CancellationToken,
) -> Result<JoinHandle<()>> {
    let identity = home.agent().join("identity");
    let link = if Link::has_joined(&identity) {
        Link::open(&cloud.url, &identity)?
    } else {
        let token = cloud.join_token().await?;
        Link::join(&cloud.url, &cloud.ca_pem()?, &token, &name(options), None, &identity).await?
    };
    run(options, home, link, stop)
}

/// Starts the agent over its link to the server.
pub fn run(options: &NodeOptions, home: &Home, link: Link, stop: CancellationToken) -> Result<JoinHandle<()>> {
    let state = home.agent();
    let ledger = Ledger::open(&state.join("ledger")).context("could not open the node's ledger")?;
    let directory = Arc::new(Directory::default());
    let (config, drivers) = if options.simulate {
        simulated(home)?
    } else {
        let drivers = Drivers {
            hypervisor: hypervisor(home, &options.accel)?,
            storage: storage(home)?,
            network: network(home, options, Arc::clone(&directory))?,
            shared: options.shared_disks.as_deref().map(|folder| shared_disks(home, folder)).transpose()?,
        };
        (
            AgentConfig {
                underlay: options.underlay,
                boot_id: options.boot_id.clone(),
                measured_in: Some(state.clone()),
                ..AgentConfig::default()
            },
            drivers,
        )
    };
    let agent = Agent::new(config, drivers, ledger, Arc::new(link), directory);
    let agent = agent.context("could not open the file of the node's lease")?;
    Ok(tokio::spawn(agent.run(stop)))
}

/// Drivers that pretend, on a node that pretends to be large.
fn simulated(home: &Home) -> Result<(AgentConfig, Drivers)> {
    let folder = Some(home.agent().join("simulated-guests"));
    let drivers = Drivers {
        hypervisor: Arc::new(SimHypervisor::open(arcus_hypervisor::SimConfig { folder, ..Default::default() })?),
        storage: Arc::new(SimStorage::open(
            SimOptions { fetches: false, ..SimOptions::default() },
            home.agent().join("simulated"),
        )?),
        network: Arc::new(arcus_network::Sim::new(arcus_network::SimConfig::default())),
        shared: None,
    };
    let pretend = NodeFacts {
        cpu_model: "simulated".to_owned(),
        cpu: CpuFacts {
            architecture: std::env::consts::ARCH.to_owned(),
            vendor: "Simulated".to_owned(),
            features: "simulated".to_owned(),
            machine: "sim".to_owned(),
        },
        vcpus: 10_000,
        memory_mib: 100 << 20,
        disk_gib: 1 << 20,
        disk_free_gib: 1 << 20,
        // Simulated machines that wait for guests listen here.
        underlay: Some(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
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

/// The shared folder for servers' disks. A node that had one before must find the same again: a mount that is missing would
/// otherwise look like an empty folder.
fn shared_disks(home: &Home, folder: &Path) -> Result<SharedDisks> {
    const FILE: &str = "disk-pool";
    let known = std::fs::read_to_string(home.join(FILE)).ok().and_then(|text| text.trim().parse::<DiskPoolId>().ok());
    if known.is_some() && !folder.join(FILE).exists() {
        bail!("{} is not the shared folder that this node had: is it mounted?", folder.display());
    }
    let opened = DirStorage::open_shared(folder, DirOptions::default());
    let (id, storage) = opened.with_context(|| format!("could not open the shared folder {}", folder.display()))?;
    if known.is_some_and(|known| known != id) {
        bail!(
            "{} is another shared folder than this node had: to leave the old one for good, remove {}",
            folder.display(),
            home.join(FILE).display()
        );
    }
    home.write_private(FILE, &format!("{id}\n"))?;
    Ok(SharedDisks { id, storage: Arc::new(storage), lease: home.agent().join("lease") })
}

fn network(home: &Home, options: &NodeOptions, directory: Arc<Directory>) -> Result<Arc<dyn Network>> {
    let uplink =
        options.uplink.as_deref().map(str::parse).transpose().context("the uplink is not the name of a link")?;
    linux(home, LinuxConfig { tag: network_tag(home)?, uplink, underlay: options.underlay, directory })
}

fn network_tag(home: &Home) -> Result<arcus_network::Tag> {
    tag(&home.agent())?.parse().context("the node's tag is not valid")
}

fn linux(_: &Home, config: LinuxConfig) -> Result<Arc<dyn Network>> {
    Ok(Arc::new(Linux::new(config).context("could not open the network")?))
}

/// Takes down every network of this node.
pub async fn teardown(home: &Home) -> Result<()> {
    let directory = Arc::new(Directory::default());
    let network = linux(home, LinuxConfig { tag: network_tag(home)?, uplink: None, underlay: None, directory })?;
    network.teardown().await.context("could not take the networks down")
}

/// Whether a guest has a process.
pub async fn lives(hypervisor: &dyn Hypervisor, server: ServerId) -> bool {
    matches!(hypervisor.state(server).await, GuestState::Running | GuestState::Paused)
}

/// What the node is called.
pub fn name(options: &NodeOptions) -> String {
    let of_machine = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    options.node.clone().or_else(of_machine).filter(|name| !name.is_empty()).unwrap_or_else(|| "node".to_owned())
}
