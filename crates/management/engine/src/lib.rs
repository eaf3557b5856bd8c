//! What the cloud does: every entry point authorises its context, commits intent and claims in one transaction, and
//! wakes the nodes concerned. It never calls a node and never waits for one.

pub mod address_groups;
pub mod address_scopes;
pub mod aggregates;
pub mod authority;
pub mod auto_topologies;
pub mod clusters;
pub mod error;
pub mod flavors;
pub mod fleet;
pub mod floating_ips;
pub mod hypervisors;
pub mod images;
pub mod keypairs;
pub mod limits;
pub mod maintenance;
pub mod network_agents;
pub mod network_quotas;
pub mod network_specs;
pub mod network_tags;
pub mod networks;
pub mod node_services;
pub mod node_states;
pub mod nodes;
pub mod port_addresses;
pub mod port_forwardings;
pub mod ports;
pub mod providers;
pub mod qos;
pub mod rbac;
pub mod relays;
pub mod routers;
pub mod security_groups;
pub mod server_extras;
pub mod server_groups;
pub mod server_specs;
pub mod servers;
pub mod subnet_pools;
pub mod subnets;
pub mod tasks;
pub mod user_quotas;
pub mod volume_attachments;
pub mod volume_group_types;
pub mod volume_groups;
pub mod volume_messages;
pub mod volume_pools;
pub mod volume_qos;
pub mod volume_quotas;
pub mod volume_snapshots;
pub mod volume_specs;
pub mod volume_transfers;
pub mod volume_types;
pub mod volumes;
pub mod wake;

pub use error::EngineError;

use arcus_store::Store;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where the certificate authority's key is kept: `<home>/ca`.
    pub ca_dir: PathBuf,
    /// Where image bytes are kept: `<home>/images`.
    pub images_dir: PathBuf,
    /// The largest image that may be uploaded, in bytes.
    pub image_bytes_max: u64,
    /// The zone that nodes and servers are in unless they say otherwise.
    pub default_zone: String,
    /// A node that has not reported for so long is taken for down, in seconds.
    pub node_down_after_s: u64,
    /// Whether servers of lost nodes start elsewhere by themselves, where their disks can be reached.
    pub recovery: bool,
}

impl EngineConfig {
    /// The settings of a cloud whose files are under `home`.
    pub fn under(home: &std::path::Path) -> Self {
        Self {
            ca_dir: home.join("ca"),
            images_dir: home.join("images"),
            image_bytes_max: 1 << 40,
            default_zone: "nova".to_owned(),
            node_down_after_s: 60,
            recovery: true,
        }
    }
}

/// Everything that entry points need. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    store: Store,
    config: EngineConfig,
    wake: wake::Wakeups,
    relays: relays::Relays,
    node_memory: nodes::NodeMemory,
    fleet: fleet::Fleet,
    authority: OnceLock<authority::Authority>,
}

impl Engine {
    /// An engine over a store.
    pub fn new(store: Store, config: EngineConfig) -> Self {
        Self(Arc::new(Inner {
            store,
            config,
            wake: wake::Wakeups::default(),
            relays: relays::Relays::default(),
            node_memory: nodes::NodeMemory::default(),
            fleet: fleet::Fleet::default(),
            authority: OnceLock::new(),
        }))
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Commits a transaction and wakes every node that it gave something new to do.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn commit(&self, tx: arcus_store::Tx) -> Result<(), EngineError> {
        let touched = tx.touched();
        tx.commit().await?;
        for node in touched {
            self.wake().node(node);
        }
        Ok(())
    }

    /// What the operator has set.
    pub fn config(&self) -> &EngineConfig {
        &self.0.config
    }

    /// Who waits for what.
    pub fn wake(&self) -> &wake::Wakeups {
        &self.0.wake
    }

    /// Byte streams that wait for their node, and tickets for them.
    pub(crate) fn relays(&self) -> &relays::Relays {
        &self.0.relays
    }

    /// What nodes last said.
    pub(crate) fn node_memory(&self) -> &nodes::NodeMemory {
        &self.0.node_memory
    }

    /// The inventory in memory.
    pub(crate) fn fleet(&self) -> &fleet::Fleet {
        &self.0.fleet
    }

    /// The certificate authority; opened, or made, on first use.
    ///
    /// # Errors
    /// [`authority::AuthorityError`].
    pub fn authority(&self) -> Result<&authority::Authority, authority::AuthorityError> {
        if let Some(authority) = self.0.authority.get() {
            return Ok(authority);
        }
        let opened = authority::Authority::open(&self.0.config.ca_dir)?;
        Ok(self.0.authority.get_or_init(|| opened))
    }
}
