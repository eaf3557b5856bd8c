//! Making servers: one transaction claims quota, room on a node and ports, and records the wish.

mod disks;
mod image;
mod node;
mod ports;
mod quota;

pub(super) use disks::invalid_mapping;
pub use disks::{DiskSource, DiskWish};
pub(super) use image::{devices, disk_gib, image_fits};
pub(super) use node::{NodeChosen, group_rule, needs_of, zone_checked};
pub(super) use ports::as_invalid;

use self::node::Placed;
use super::change::tags_checked;
use super::files::GuestFile;
use super::local_disks::{self, LocalDiskWish};
use super::retried;
use crate::{Engine, EngineError};
use arcus_placement::{Candidate, Needs, image_mark};
use arcus_store::{Flavor, Image, Keypair, Server, ServerDetails, ServerFlavor, ServerGroup, ServerSecrets, Tx};
use arcus_types::agent::{ImageSource, LocalDisk, Power};
use arcus_types::flavors::FlavorId;
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::servers::{PowerState, ServerState, ServerTask};
use arcus_types::{ImageId, Name, NetworkId, OpCtx, PortId, ProjectId, ServerGroupId, ServerId, Timestamp, UserId};
use base64::Engine as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The most servers that one request makes.
pub(crate) const COUNT_MAX: u32 = 1_000;

/// Where a server shall be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZoneWish {
    /// In this zone.
    pub zone: Option<String>,
    /// On this node; only administrators may ask for one.
    pub node: Option<String>,
}

/// Which networks a server shall be on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Networks {
    /// The one that its project can use, or none if there is none.
    Implicit,
    /// The one that its project can use; refused if there is none.
    Auto,
    /// None.
    None,
    /// These, in order.
    These(Vec<NetworkWish>),
}

/// One interface of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkWish {
    /// A new port on this network, or this port.
    pub what: NetworkOrPort,
    /// The address of the new port.
    pub fixed_ip: Option<IpAddr>,
    /// What the guest may know the interface by.
    pub tag: Option<String>,
}

/// What an interface is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkOrPort {
    /// A new port on this network.
    Network(NetworkId),
    /// A port that is there.
    Port(PortId),
}

/// A server that a user asks for.
#[derive(Clone)]
pub struct ServerNew {
    /// Its name.
    pub name: Name,
    /// The host name, if not made from the name.
    pub hostname: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// The image of its own root disk; `None` if it boots from the volume with boot index 0.
    pub image_id: Option<ImageId>,
    /// The volumes that it begins with.
    pub disks: Vec<DiskWish>,
    /// Its local disks besides the root disk, where not all of what its flavor gives is one of a kind.
    pub local_disks: Vec<LocalDiskWish>,
    /// Its shape.
    pub flavor_id: FlavorId,
    /// Its interfaces.
    pub networks: Networks,
    /// The name of a key pair of the caller.
    pub key_name: Option<String>,
    /// Names or ids of security groups; `None` is the project's default group.
    pub security_groups: Option<Vec<String>>,
    /// User data in base64.
    pub user_data: Option<String>,
    /// Files for its guest.
    pub files: Vec<GuestFile>,
    /// Free key and value pairs.
    pub metadata: BTreeMap<String, String>,
    /// Whether it gets a config drive.
    pub config_drive: bool,
    /// Where it shall be.
    pub zone: ZoneWish,
    /// At least so many.
    pub count_min: u32,
    /// At most so many.
    pub count_max: u32,
    /// The password of the login user; `None` draws one.
    pub admin_password: Option<String>,
    /// An address that the owner notes down.
    pub access_ip_v4: Option<IpAddr>,
    /// An address that the owner notes down.
    pub access_ip_v6: Option<IpAddr>,
    /// Whether the owner partitions the disk.
    pub disk_config_manual: bool,
    /// Words that it can be found by.
    pub tags: Vec<String>,
    /// The group that it is in.
    pub server_group_id: Option<ServerGroupId>,
    /// Placement hints as they were given.
    pub scheduler_hints: serde_json::Value,
}

/// What a creation made.
#[derive(Clone)]
pub struct ServersCreated {
    /// The servers.
    pub servers: Vec<Server>,
    /// The password of their login user.
    pub admin_password: String,
    /// The security groups, as the caller named them.
    pub security_groups: Vec<String>,
    /// The same for all of them.
    pub reservation_id: String,
}

/// Everything that was looked up before the transaction.
struct Plan<'a> {
    new: &'a ServerNew,
    project_id: ProjectId,
    user_id: UserId,
    flavor: ServerFlavor,
    /// What its root disk, or the volume in its place, begins as.
    image: Option<Image>,
    /// What the node makes its own root disk of; the nil image if it has none.
    source: ImageSource,
    /// What its volumes need.
    disks: disks::DiskNeeds,
    /// The node that its volumes are on already.
    pinned: Option<String>,
    key: Option<Keypair>,
    files: Vec<(String, String)>,
    group: Option<ServerGroup>,
    disk_gib: u64,
    local_disks: Vec<LocalDisk>,
    password: String,
    reservation_id: String,
}

impl Engine {
    /// Makes servers. They are recorded and placed when this returns; their nodes make them run.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for what does not fit or is not there, [`EngineError::OverQuota`],
    /// [`EngineError::Conflict`] for a port in use or an ambiguous network, or a refusal. A server that no node can take
    /// is no error here: it is made in state ERROR, and its fault says why.
    pub async fn server_create(&self, ctx: &OpCtx, new: ServerNew) -> Result<ServersCreated, EngineError> {
        authorize(ctx, compute::SERVER_CREATE, &Target::own(ctx))?;
        if new.zone.node.is_some() {
            authorize(ctx, compute::SERVER_CREATE_ON_NODE, &Target::own(ctx))?;
        }
        let new = self.mappings_of_image(ctx, new).await?;
        let plan = self.server_plan(ctx, &new).await?;
        let (servers, security_groups) = retried!({ self.servers_claim(ctx, &plan).await })?;
        for server in &servers {
            tracing::info!(server.id = %server.id, state = %server.state, "a server was asked for");
        }
        self.wake().all();
        Ok(ServersCreated {
            servers,
            admin_password: plan.password,
            security_groups,
            reservation_id: plan.reservation_id,
        })
    }

    async fn server_plan<'a>(&self, ctx: &OpCtx, new: &'a ServerNew) -> Result<Plan<'a>, EngineError> {
        let (Some(project_id), Some(user_id)) = (ctx.project_id(), ctx.user_id()) else {
            return Err(EngineError::Forbidden(
                "A server is made by a user in a project: use a project's token.".into(),
            ));
        };
        self.metadata_admitted(self.store(), ctx, project_id, &new.metadata).await?;
        let files = self.files_admitted(self.store(), ctx, project_id, &new.files).await?;
        tags_checked(&new.tags)?;
        if let Some(user_data) = &new.user_data {
            super::actions::user_data_checked(user_data)?;
        }
        counts_checked(new)?;
        let flavor = match self.flavor_get(ctx, &new.flavor_id).await {
            Err(EngineError::NotFound { .. }) => {
                return Err(EngineError::invalid(format!("Flavor {} could not be found.", new.flavor_id)));
            }
            other => server_flavor(other?),
        };
        let disks = self.disk_needs(ctx, new).await?;
        let image = match new.image_id {
            Some(id) => Some(self.image_for_boot(ctx, id).await?),
            None => disks.root_image(new).cloned(),
        };
        let properties = image.as_ref().map_or(&disks.root_properties, |image| &image.properties);
        let local_disks = local_disks::local_disks(&flavor, &new.local_disks, properties)?;
        let source = match (&image, new.image_id) {
            (Some(image), Some(id)) => {
                image_fits(image, &flavor, None)?;
                image.source().ok_or_else(|| EngineError::invalid(format!("Image {id} has no bytes.")))?
            }
            (Some(image), None) => {
                // The volume's size has been checked against the image; the memory has not.
                image_fits(image, &flavor, Some(0))?;
                no_image()
            }
            (None, _) => no_image(),
        };
        let key = match &new.key_name {
            Some(name) => Some(self.keypair_of_caller(ctx, name).await?),
            None => None,
        };
        let group = match new.server_group_id {
            Some(id) => Some(self.server_group_for_boot(ctx, id).await?),
            None => None,
        };
        self.fleet_refresh().await?;
        zone_checked(self, &new.zone)?;
        let pinned = match disks.node_id {
            Some(node) => self.store().node_get(node).await?.map(|n| n.name.to_string()),
            None => None,
        };
        Ok(Plan {
            new,
            project_id,
            user_id,
            disk_gib: match (&image, new.image_id) {
                (Some(image), Some(_)) => disk_gib(image, &flavor),
                (Some(_) | None, _) => 0,
            },
            local_disks,
            disks,
            pinned,
            flavor,
            image,
            source,
            key,
            files,
            group,
            password: new.admin_password.clone().unwrap_or_else(password),
            reservation_id: format!("r-{}", drawn(8, b"abcdefghijklmnopqrstuvwxyz0123456789")),
        })
    }

    /// A key pair of the caller, for a server.
    pub(super) async fn keypair_of_caller(&self, ctx: &OpCtx, name: &str) -> Result<Keypair, EngineError> {
        let found = match ctx.user_id() {
            Some(user) => self.store().keypair_get(user, name).await?,
            None => None,
        };
        found.ok_or_else(|| EngineError::invalid("Invalid key_name provided."))
    }

    /// The transaction: quota, then for each server a node, its ports and its record.
    async fn servers_claim(&self, ctx: &OpCtx, plan: &Plan<'_>) -> Result<(Vec<Server>, Vec<String>), EngineError> {
        self.fleet_refresh().await?;
        let tx = self.store().begin(ctx).await?;
        let count = self.server_quota_claim(&tx, plan).await?;
        if let Some(group) = &plan.group {
            self.server_group_admits(&tx, ctx, group, count).await?;
        }
        let mut around = self.around(&tx, plan.group.as_ref()).await?;
        let (names, groups) = self.security_groups_named(&tx, plan).await?;
        let networks = self.networks_resolved(&tx, ctx, plan).await?;
        let needs = self.hinted(&tx, needs(plan), plan.project_id, &plan.new.scheduler_hints).await?;
        let mut servers = Vec::new();
        for index in 0..count {
            let placed = self.node_claimed(&tx, &needs, plan.group.as_ref(), &mut around).await?;
            let mut server = server_record(ctx, plan, index, count, placed.node.as_ref(), &names);
            if let Some(node) = &placed.node {
                self.ports_claimed(&tx, &mut server, node, &networks, groups.as_deref()).await?;
                self.disks_given(&tx, ctx, plan, &mut server, node).await?;
                tx.node_touch(node.node_id).await?;
                server.node_generation = tx.node_spec_generation(node.node_id).await?.unwrap_or(0);
            } else {
                node::unplaced(&mut server, &placed.decision);
            }
            self.server_recorded(&tx, plan, &server, &placed).await?;
            servers.push(server);
        }
        tx.commit().await?;
        Ok((servers, names))
    }

    /// Writes the record, its secrets and tags, its history, the audit record and the usage.
    async fn server_recorded(
        &self,
        tx: &Tx,
        plan: &Plan<'_>,
        server: &Server,
        placed: &Placed,
    ) -> Result<(), EngineError> {
        tx.server_insert(server).await?;
        self.placement_recorded(tx, server.id, "create", placed).await?;
        let secrets = ServerSecrets {
            user_data_base64: plan.new.user_data.clone(),
            files: plan.files.clone(),
            admin_password: Some(plan.password.clone()),
            public_keys: plan.key.iter().map(|k| (k.name.clone(), k.public_key.clone())).collect(),
            random_seed_base64: Some(base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 32]>())),
            ..ServerSecrets::default()
        };
        tx.server_secrets_set(server.id, &secrets).await?;
        for tag in &plan.new.tags {
            tx.server_tag_insert(server.id, tag).await?;
        }
        let detail = json!({
            "name": server.name, "flavor": server.flavor.id, "image_id": server.image.id, "node_id": server.node_id,
            "placement": placed.decision.summary(),
        });
        let event = Some("compute__do_build_and_run_instance");
        self.server_record(tx, server, compute::SERVER_CREATE, "create", event, &detail).await?;
        if let Some(fault) = &server.fault {
            tx.server_action_finish(server.id, tx.ctx().request_id, fault.at, Some(&fault.message)).await?;
        }
        self.server_usage(tx, server, server.node_id.is_some()).await
    }
}

/// What a server needs of its node.
fn needs(plan: &Plan<'_>) -> Needs {
    Needs {
        vcpus: u64::from(plan.flavor.vcpus),
        memory_mib: plan.flavor.memory_mib,
        disk_gib: plan.disk_gib + local_disks::gib(&plan.local_disks) + plan.disks.gib,
        zone: plan.new.zone.zone.clone(),
        node: plan.pinned.clone().or_else(|| plan.new.zone.node.clone()),
        image: image_mark(&plan.source.sha256),
        ..Needs::default()
    }
}

fn counts_checked(new: &ServerNew) -> Result<(), EngineError> {
    if new.count_min == 0 || new.count_max < new.count_min {
        return Err(EngineError::invalid("min_count must be <= max_count"));
    }
    if new.count_max > COUNT_MAX {
        return Err(EngineError::invalid(format!("One request makes at most {COUNT_MAX} servers.")));
    }
    if let (Networks::These(wishes), true) = (&new.networks, new.count_max > 1) {
        if wishes.iter().any(|w| matches!(w.what, NetworkOrPort::Port(_))) {
            return Err(EngineError::invalid(
                "Unable to launch multiple instances with a single configured port ID. Please launch your instance one by one with different ports.",
            ));
        }
        if wishes.iter().any(|w| w.fixed_ip.is_some()) {
            return Err(EngineError::invalid("max_count cannot be greater than 1 if an fixed_ip is specified."));
        }
    }
    Ok(())
}

/// A flavor as a server gets it.
pub(super) fn server_flavor(flavor: Flavor) -> ServerFlavor {
    ServerFlavor {
        id: flavor.id,
        name: flavor.name,
        vcpus: flavor.vcpus,
        memory_mib: flavor.memory_mib,
        disk_gib: flavor.disk_gib,
        ephemeral_gib: flavor.ephemeral_gib,
        swap_mib: flavor.swap_mib,
        extra_specs: flavor.extra_specs,
    }
}

fn server_record(
    ctx: &OpCtx,
    plan: &Plan<'_>,
    index: u32,
    count: u32,
    node: Option<&Candidate>,
    groups: &[String],
) -> Server {
    let new = plan.new;
    let now = Timestamp::now();
    let numbered = format!("{}-{}", new.name, index + 1);
    let name = if count > 1 { numbered.parse().unwrap_or_else(|_| new.name.clone()) } else { new.name.clone() };
    let hostname = new.hostname.clone().unwrap_or_else(|| name.host_name());
    Server {
        id: ServerId::random(),
        project_id: plan.project_id,
        user_id: plan.user_id,
        state: ServerState::Building,
        task: Some(ServerTask::Spawning),
        task_deadline: Some(now.plus_seconds(ServerTask::Spawning.deadline_s())),
        power_state: PowerState::NoState,
        progress: 0,
        power: Power::Running,
        version: 1,
        epoch: 1,
        restarts: 0,
        restart_hard: false,
        incarnation: u64::from(new.image_id.is_some()),
        node_id: node.map(|n| n.node_id),
        node_generation: 0,
        availability_zone: node.map(|n| n.zone.to_string()).or_else(|| new.zone.zone.clone()).unwrap_or_default(),
        vcpus: u64::from(plan.flavor.vcpus),
        memory_mib: plan.flavor.memory_mib,
        disk_gib: plan.disk_gib + local_disks::gib(&plan.local_disks),
        flavor: plan.flavor.clone(),
        image: plan.source.clone(),
        metadata: new.metadata.clone(),
        locked: false,
        server_group_id: new.server_group_id,
        request_id: Some(ctx.request_id),
        fault: None,
        details: ServerDetails {
            hostname,
            launch_index: index,
            security_groups: groups.to_vec(),
            ..server_details(plan)
        },
        generation: 1,
        created_at: now,
        updated_at: now,
        launched_at: None,
        deleted_at: None,
        name,
    }
}

/// What is the same for all servers of one request.
fn server_details(plan: &Plan<'_>) -> ServerDetails {
    let new = plan.new;
    let properties = plan.image.as_ref().map_or(&plan.disks.root_properties, |image| &image.properties);
    ServerDetails {
        description: new.description.clone(),
        key_name: plan.key.as_ref().map(|k| k.name.clone()),
        config_drive: new.config_drive,
        access_ip_v4: new.access_ip_v4,
        access_ip_v6: new.access_ip_v6,
        disk_config_manual: new.disk_config_manual,
        reservation_id: plan.reservation_id.clone(),
        zone_asked: new.zone.zone.clone(),
        devices: devices(properties),
        image_properties: properties.clone(),
        volume_root: new.image_id.is_none(),
        local_disks: plan.local_disks.clone(),
        local_gib: local_disks::gib(&plan.local_disks),
        scheduler_hints: new.scheduler_hints.clone(),
        ..ServerDetails::default()
    }
}

/// What stands for the image of a server that has no root disk of its own.
fn no_image() -> ImageSource {
    ImageSource {
        id: ImageId(uuid::Uuid::nil()),
        sha256: String::new(),
        size_bytes: 0,
        format: arcus_types::agent::DiskFormat::Raw,
    }
}

/// A password of 12 letters and digits that are hard to confuse.
pub(super) fn password() -> String {
    drawn(12, b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789")
}

fn drawn(length: usize, from: &[u8]) -> String {
    use rand::Rng;
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(from[rng.random_range(0..from.len())])).collect()
}
