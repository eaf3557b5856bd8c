//! What a node must bring about of servers and snapshots: a fixed number of queries for the whole node.

use crate::servers::SHUTDOWN_GRACE_S;
use crate::{Engine, EngineError};
use arcus_store::{Port, Server, ServerSecrets};
use arcus_types::agent::{
    AttachmentSpec, GuestData, HardwareSpec, LocalDisksSpec, PasswordSpec, RescueSpec, RestartSpec, RootDiskSpec,
    ServerSpec, SnapshotSpec,
};
use arcus_types::servers::ServerTask;
use arcus_types::{NodeId, PortId, ServerId};
use std::collections::HashMap;

/// The longest time that an image may ask for to shut down, in seconds.
const SHUTDOWN_GRACE_S_MAX: u32 = 600;

impl Engine {
    /// The servers that must be on a node, and the images to make of their disks. A server that is being removed is left
    /// out: the node takes down what its spec does not name.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn server_specs(&self, node: NodeId) -> Result<(Vec<ServerSpec>, Vec<SnapshotSpec>), EngineError> {
        let mut servers = self.store().server_list_by_node(node).await?;
        let mut moving = HashMap::new();
        for (live, part) in self.live_parts(node).await? {
            if live.dest_id == node {
                // Not of this node yet, but on its way here.
                servers.extend(self.store().server_get(live.server_id).await?);
            }
            moving.insert(live.server_id, part);
        }
        servers.retain(|s| !matches!(s.task, Some(ServerTask::Deleting | ServerTask::ShelvingOffloading)));
        let mut secrets = self.store().server_secrets_by_node(node).await?;
        let mut ports: HashMap<ServerId, Vec<PortId>> = HashMap::new();
        for (server, port) in self.store().server_ports_by_node(node).await? {
            ports.entry(server).or_default().push(port);
        }
        // Servers that move have their ports and secrets on both nodes.
        let ids: Vec<ServerId> = moving.keys().copied().collect();
        secrets.extend(self.store().server_secrets(&ids).await?);
        for server in &ids {
            ports.remove(server);
        }
        for Port { id, server_id, .. } in self.store().port_list_by_servers(&ids).await? {
            if let Some(server) = server_id {
                ports.entry(server).or_default().push(id);
            }
        }
        let mut volumes = self.attachment_specs(node).await?;
        let specs = servers
            .into_iter()
            .map(|server| {
                let secrets = secrets.remove(&server.id).unwrap_or_default();
                let ports = ports.remove(&server.id).unwrap_or_default();
                let volumes = volumes.remove(&server.id).unwrap_or_default();
                let migration = moving.remove(&server.id);
                let coming = server.node_id != Some(node);
                let mut spec = server_spec(server, secrets, ports, volumes);
                spec.migration = migration;
                if coming {
                    // What it has when it is here.
                    spec.epoch += 1;
                }
                spec
            })
            .collect();
        let snapshots = self.store().server_snapshots_by_node(node).await?;
        let snapshots = snapshots.into_iter().map(|s| SnapshotSpec::of_server(s.image_id, s.server_id)).collect();
        Ok((specs, snapshots))
    }
}

fn server_spec(
    server: Server,
    secrets: ServerSecrets,
    mut ports: Vec<PortId>,
    volumes: Vec<AttachmentSpec>,
) -> ServerSpec {
    let order = &server.details.ports;
    ports.sort_by_key(|p| order.iter().position(|o| o == p).unwrap_or(usize::MAX));
    let grace = server.details.image_properties.get("os_shutdown_timeout").and_then(|v| v.parse().ok());
    let rescue = server.details.rescue.clone();
    let rescue = rescue.map(|r| RescueSpec { image: r.image, incarnation: r.incarnation });
    let password = secrets.password_wish.map(|password| PasswordSpec {
        count: server.details.passwords,
        user: login_user(&server.details.image_properties),
        password,
    });
    let local_disks = LocalDisksSpec { incarnation: server.incarnation, disks: server.details.local_disks.clone() };
    let root_bytes = server.root_gib().saturating_mul(1 << 30);
    ServerSpec {
        id: server.id,
        version: server.version,
        epoch: server.epoch,
        power: server.power,
        restarts: RestartSpec { count: server.restarts, hard: server.restart_hard },
        shutdown_grace_s: grace.unwrap_or(SHUTDOWN_GRACE_S).min(SHUTDOWN_GRACE_S_MAX),
        hardware: HardwareSpec {
            vcpus: server.flavor.vcpus,
            memory_mib: server.flavor.memory_mib,
            devices: server.details.devices,
            cpu_weight: cpu_weight(&server),
            cpu_limit_millicores: cpu_limit(&server),
        },
        root_disk: (!server.details.volume_root).then(|| RootDiskSpec {
            image: server.details.disk_source.unwrap_or(server.image),
            size_bytes: root_bytes,
            incarnation: server.incarnation,
        }),
        local_disks,
        volumes,
        ports,
        guest: GuestData {
            name: server.name.to_string(),
            hostname: server.details.hostname,
            project_id: Some(server.project_id),
            availability_zone: server.availability_zone,
            metadata: server.metadata,
            public_keys: secrets.public_keys,
            user_data_base64: secrets.user_data_base64,
            files: secrets.files,
            admin_password: if rescue.is_some() { secrets.rescue_password } else { secrets.admin_password },
            config_drive: server.details.config_drive,
            launch_index: server.details.launch_index,
            random_seed_base64: secrets.random_seed_base64,
            password_left: secrets.password_left,
            password_turn: secrets.password_turn,
        },
        rescue,
        password,
        migration: None,
        disk_pool: server.details.disk_pool,
    }
}

/// Whose password is meant by that of a server.
///
/// Source: the compute API guide, "image properties": `os_admin_user`; else the administrator of the image's system.
fn login_user(properties: &std::collections::BTreeMap<String, String>) -> String {
    let windows = properties.get("os_type").is_some_and(|kind| kind.eq_ignore_ascii_case("windows"));
    let usual = if windows { "Administrator" } else { "root" };
    properties.get("os_admin_user").map_or_else(|| usual.to_owned(), Clone::clone)
}

/// The flavor's `quota:cpu_shares`, of which 1,024 are normal.
fn cpu_weight(server: &Server) -> u32 {
    extra(server, "quota:cpu_shares").map_or(100, |shares| shares.saturating_mul(100) / 1024).clamp(1, 10_000)
}

fn extra(server: &Server, key: &str) -> Option<u32> {
    server.flavor.extra_specs.get(key)?.parse().ok()
}

/// The flavor's `quota:cpu_quota` over `quota:cpu_period`, both in microseconds, for each virtual CPU.
fn cpu_limit(server: &Server) -> Option<u32> {
    let quota = extra(server, "quota:cpu_quota").filter(|q| *q > 0)?;
    let period = extra(server, "quota:cpu_period").filter(|p| *p > 0).unwrap_or(100_000);
    let millicores = u64::from(quota) * 1_000 / u64::from(period) * u64::from(server.flavor.vcpus);
    u32::try_from(millicores).ok()
}
