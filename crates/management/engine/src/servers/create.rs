//! Making servers: one transaction claims quota, room on a node and ports, and records the wish.

use super::change::{metadata_checked, tags_checked};
use super::retried;
use crate::port_addresses::FixedIpWish;
use crate::ports::PortNew;
use crate::{Engine, EngineError};
use arcus_placement::{Amounts, Candidate, Decision, GroupRule, Needs, decide};
use arcus_store::{
    Flavor, GroupPolicy, Image, Keypair, Listing, Node, QuotaResource, Server, ServerDetails, ServerFault,
    ServerFlavor, ServerGroup, ServerSecrets, Tx,
};
use arcus_types::agent::{DeviceModel, Power};
use arcus_types::flavors::FlavorId;
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::servers::{PowerState, ServerState, ServerTask};
use arcus_types::{
    ImageId, Name, NetworkId, OpCtx, PortId, ProjectId, SecurityGroupId, ServerGroupId, ServerId, Timestamp, UserId,
};
use base64::Engine as _;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// The most servers that one request makes.
pub(crate) const COUNT_MAX: u32 = 1_000;
const GIB: u64 = 1 << 30;

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
    /// What it boots.
    pub image_id: ImageId,
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
    image: Image,
    key: Option<Keypair>,
    group: Option<ServerGroup>,
    disk_gib: u64,
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
            return Err(EngineError::Forbidden("A server is made by a user in a project: use a project's token.".into()));
        };
        metadata_checked(&new.metadata)?;
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
        let image = self.image_for_boot(ctx, new.image_id).await?;
        image_fits(&image, &flavor, None)?;
        let key = match &new.key_name {
            Some(name) => Some(self.keypair_of_caller(ctx, name).await?),
            None => None,
        };
        let group = match new.server_group_id {
            Some(id) => Some(self.server_group_for_boot(ctx, id).await?),
            None => None,
        };
        let nodes = self.store().node_list().await?;
        zone_checked(&new.zone, &nodes)?;
        Ok(Plan {
            new,
            project_id,
            user_id,
            disk_gib: disk_gib(&image, &flavor),
            flavor,
            image,
            key,
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
        let tx = self.store().begin(ctx).await?;
        let count = self.server_quota_claim(&tx, plan).await?;
        let mut candidates = self.candidates(&tx, plan).await?;
        let (names, groups) = self.security_groups_named(&tx, plan).await?;
        let networks = self.networks_resolved(&tx, ctx, plan).await?;
        let mut servers = Vec::new();
        for index in 0..count {
            let (decision, node) = self.node_claimed(&tx, plan, &mut candidates).await?;
            let mut server = server_record(ctx, plan, index, count, node.as_ref(), &names);
            if let Some(node) = &node {
                self.ports_claimed(&tx, &mut server, node, &networks, groups.as_deref()).await?;
                tx.node_touch(node.node_id).await?;
                server.node_generation = tx.node_spec_generation(node.node_id).await?.unwrap_or(0);
            } else {
                unplaced(&mut server, &decision);
            }
            self.server_recorded(&tx, plan, &server, &decision).await?;
            servers.push(server);
        }
        tx.commit().await?;
        Ok((servers, names))
    }

    /// As many servers as the project's quota admits, between the least and the most asked for.
    async fn server_quota_claim(&self, tx: &Tx, plan: &Plan<'_>) -> Result<u32, EngineError> {
        let mut count = plan.new.count_max;
        while count >= plan.new.count_min && count > 0 {
            let wanted = amounts(plan, count);
            let mut claimed = Vec::new();
            for &(resource, amount) in &wanted {
                if !tx.quota_claim(plan.project_id, resource, amount).await? {
                    break;
                }
                claimed.push((resource, amount));
            }
            if claimed.len() == wanted.len() {
                return Ok(count);
            }
            for (resource, amount) in claimed {
                tx.quota_release(plan.project_id, resource, amount).await?;
            }
            count = self.quota_room(tx, plan, count).await?;
        }
        Err(self.over_quota(tx, plan).await?)
    }

    /// How many servers the quota has room for, fewer than `tried`.
    async fn quota_room(&self, tx: &Tx, plan: &Plan<'_>, tried: u32) -> Result<u32, EngineError> {
        let quotas = tx.quota_list(plan.project_id, &QUOTAS).await?;
        let mut room = u64::from(tried) - 1;
        for (quota, (_, each)) in quotas.iter().zip(amounts(plan, 1)) {
            if let Ok(cap) = u64::try_from(quota.cap) {
                let free = cap.saturating_sub(u64::try_from(quota.used).unwrap_or(0));
                room = room.min(free.checked_div(each).unwrap_or(room));
            }
        }
        Ok(u32::try_from(room).unwrap_or(0))
    }

    /// The refusal, naming what is over.
    async fn over_quota(&self, tx: &Tx, plan: &Plan<'_>) -> Result<EngineError, EngineError> {
        let quotas = tx.quota_list(plan.project_id, &QUOTAS).await?;
        let mut over = Vec::new();
        for (quota, (_, amount)) in quotas.iter().zip(amounts(plan, plan.new.count_min.max(1))) {
            let amount = i64::try_from(amount).unwrap_or(i64::MAX);
            if quota.cap >= 0 && quota.used.saturating_add(amount) > quota.cap {
                over.push((quota.resource.name(), amount, quota.used, quota.cap));
            }
        }
        if over.is_empty() {
            // Another request gave something back between the claim and this look: try again.
            return Ok(super::stale());
        }
        let joined = |f: &dyn Fn(&(&'static str, i64, i64, i64)) -> String| {
            over.iter().map(f).collect::<Vec<_>>().join(", ")
        };
        let message = format!(
            "Quota exceeded for {}: Requested {}, but already used {} of {} {}",
            joined(&|o| o.0.to_owned()),
            joined(&|o| o.1.to_string()),
            joined(&|o| o.2.to_string()),
            joined(&|o| o.3.to_string()),
            joined(&|o| o.0.to_owned()),
        );
        Ok(EngineError::OverQuota { code: "TooManyInstances", message })
    }

    /// The nodes as placement sees them.
    async fn candidates(&self, tx: &Tx, plan: &Plan<'_>) -> Result<Vec<Candidate>, EngineError> {
        let mut members: HashMap<_, u64> = HashMap::new();
        if let Some(group) = &plan.group {
            for (_, _, node) in tx.server_group_members(&[group.id]).await? {
                if let Some(node) = node {
                    *members.entry(node).or_default() += 1;
                }
            }
        }
        let now = Timestamp::now();
        let sha256 = plan.image.source().map(|s| s.sha256).unwrap_or_default();
        let nodes = tx.node_list().await?;
        Ok(nodes
            .into_iter()
            .map(|node| Candidate {
                node_id: node.id,
                alive: self.node_alive(&node, now),
                has_image: node.facts.cached_images.contains(&sha256),
                group_members: members.get(&node.id).copied().unwrap_or(0),
                name: node.name.to_string(),
                zone: node.availability_zone,
                disabled: (!node.enabled).then(|| node.disabled_reason.unwrap_or_default()),
                cap: Amounts {
                    vcpus: node.vcpus_cap,
                    memory_mib: node.memory_mib_cap,
                    disk_gib: node.disk_gib_cap,
                },
                used: Amounts {
                    vcpus: node.vcpus_used,
                    memory_mib: node.memory_mib_used,
                    disk_gib: node.disk_gib_used,
                },
            })
            .collect())
    }

    /// Whether a node was heard of lately.
    pub(crate) fn node_alive(&self, node: &Node, now: Timestamp) -> bool {
        let limit = i64::try_from(self.config().node_down_after_s).unwrap_or(i64::MAX);
        node.seen_at.plus_seconds(limit) >= now
    }

    /// The best node that still has room, with that room claimed.
    async fn node_claimed(
        &self,
        tx: &Tx,
        plan: &Plan<'_>,
        candidates: &mut [Candidate],
    ) -> Result<(Decision, Option<Candidate>), EngineError> {
        let placed = candidates.iter().map(|c| c.group_members).sum::<u64>();
        let needs = Needs {
            vcpus: u64::from(plan.flavor.vcpus),
            memory_mib: plan.flavor.memory_mib,
            disk_gib: plan.disk_gib,
            zone: plan.new.zone.zone.clone(),
            node: plan.new.zone.node.clone(),
            group: plan.group.as_ref().map_or(GroupRule::None, |g| group_rule(g, placed)),
        };
        let mut decision = decide(&needs, candidates);
        let ranked: Vec<_> = decision.ranked().collect();
        for node_id in ranked {
            if tx.node_claim(node_id, needs.vcpus, needs.memory_mib, needs.disk_gib).await? {
                let chosen = candidates.iter_mut().find(|c| c.node_id == node_id);
                let Some(chosen) = chosen else { continue };
                chosen.used.vcpus += needs.vcpus;
                chosen.used.memory_mib += needs.memory_mib;
                chosen.used.disk_gib += needs.disk_gib;
                if plan.group.is_some() {
                    chosen.group_members += 1;
                }
                let chosen = chosen.clone();
                return Ok((decision, Some(chosen)));
            }
            decision.taken(node_id);
        }
        Ok((decision, None))
    }

    /// The security groups: names for the answer, ids for the ports (`None`: the network's own choice).
    async fn security_groups_named(
        &self,
        tx: &Tx,
        plan: &Plan<'_>,
    ) -> Result<(Vec<String>, Option<Vec<SecurityGroupId>>), EngineError> {
        let Some(asked) = &plan.new.security_groups else {
            return Ok((vec!["default".to_owned()], None));
        };
        if asked.iter().all(|name| name == "default") {
            return Ok((vec!["default".to_owned()], None));
        }
        let mut names: Vec<String> = Vec::new();
        let mut ids = Vec::new();
        for name in asked {
            let id = if name == "default" {
                self.default_security_group_in(tx, plan.project_id).await?
            } else {
                self.security_group_resolve(tx, plan.project_id, name).await.map_err(as_invalid)?
            };
            if !ids.contains(&id) {
                ids.push(id);
                names.push(name.clone());
            }
        }
        Ok((names, Some(ids)))
    }

    /// The interfaces, with implicit ones found.
    async fn networks_resolved(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        plan: &Plan<'_>,
    ) -> Result<Vec<NetworkWish>, EngineError> {
        match &plan.new.networks {
            Networks::None => Ok(Vec::new()),
            Networks::These(wishes) => {
                for wish in wishes {
                    if let NetworkOrPort::Network(id) = wish.what {
                        let network = self.network_usable(tx, ctx, id).await.map_err(as_invalid)?;
                        if network.external && !network.shared && !ctx.is_admin() {
                            return Err(EngineError::Forbidden(format!(
                                "It is not allowed to create an interface on external network {id}"
                            )));
                        }
                        if tx.subnet_list_by_networks(&[id]).await?.is_empty() {
                            return Err(EngineError::invalid(format!(
                                "Network {id} requires a subnet in order to boot instances on."
                            )));
                        }
                    }
                }
                Ok(wishes.clone())
            }
            Networks::Implicit | Networks::Auto => {
                let listing = Listing { viewer: Some(plan.project_id), ..Listing::default() };
                let mut usable = tx.network_list(&listing).await?.rows;
                usable.retain(|n| !n.external && (n.shared || n.project_id == plan.project_id));
                let ids: Vec<_> = usable.iter().map(|n| n.id).collect();
                let subnets = tx.subnet_list_by_networks(&ids).await?;
                let own = usable.iter().any(|n| n.project_id == plan.project_id);
                usable.retain(|n| subnets.iter().any(|s| s.network_id == n.id));
                if own && usable.iter().any(|n| n.project_id == plan.project_id) && plan.new.networks == Networks::Auto {
                    usable.retain(|n| n.project_id == plan.project_id);
                }
                match usable.as_slice() {
                    [] if plan.new.networks == Networks::Auto => Err(EngineError::invalid(
                        "Unable to automatically allocate a network for this project: it can use none with a subnet.",
                    )),
                    [] => Ok(Vec::new()),
                    [one] => {
                        let what = NetworkOrPort::Network(one.id);
                        Ok(vec![NetworkWish { what, fixed_ip: None, tag: None }])
                    }
                    [..] => Err(EngineError::Conflict {
                        code: "NetworkAmbiguous",
                        message: "Multiple possible networks found, use a Network ID to be more specific.".into(),
                    }),
                }
            }
        }
    }

    /// Makes or binds the server's ports.
    async fn ports_claimed(
        &self,
        tx: &Tx,
        server: &mut Server,
        node: &Candidate,
        wishes: &[NetworkWish],
        groups: Option<&[SecurityGroupId]>,
    ) -> Result<(), EngineError> {
        for wish in wishes {
            let port = self.port_claimed(tx, server, &node.name, wish, groups).await?;
            server.details.ports.push(port);
            if let Some(tag) = &wish.tag {
                server.details.port_tags.insert(port, tag.clone());
            }
        }
        Ok(())
    }

    /// Makes or binds one port of a server that is on a node.
    pub(super) async fn port_claimed(
        &self,
        tx: &Tx,
        server: &Server,
        node_name: &str,
        wish: &NetworkWish,
        groups: Option<&[SecurityGroupId]>,
    ) -> Result<PortId, EngineError> {
        let Some(node_id) = server.node_id else { return Err(super::stale()) };
        let port = match wish.what {
            NetworkOrPort::Port(id) => {
                self.port_bind_in(tx, id, server.project_id, server.id, node_id).await.map_err(as_invalid)?
            }
            NetworkOrPort::Network(network_id) => {
                let fixed_ips = wish.fixed_ip.map(|a| vec![FixedIpWish { subnet_id: None, address: Some(a) }]);
                let new = PortNew {
                    network_id,
                    project_id: Some(server.project_id),
                    fixed_ips,
                    device_id: server.id.to_string(),
                    device_owner: format!("compute:{}", server.availability_zone),
                    server_id: Some(server.id),
                    node_id: Some(node_id),
                    binding_host: node_name.to_owned(),
                    security_groups: groups.map(<[SecurityGroupId]>::to_vec),
                    dns_name: server.details.hostname.clone(),
                    delete_with_server: true,
                    ..PortNew::default()
                };
                self.port_create_in(tx, new).await.map_err(as_invalid)?
            }
        };
        Ok(port.id)
    }

    /// Writes the record, its secrets and tags, its history, the audit record and the usage.
    async fn server_recorded(
        &self,
        tx: &Tx,
        plan: &Plan<'_>,
        server: &Server,
        decision: &Decision,
    ) -> Result<(), EngineError> {
        tx.server_insert(server).await?;
        let secrets = ServerSecrets {
            user_data_base64: plan.new.user_data.clone(),
            admin_password: Some(plan.password.clone()),
            public_keys: plan.key.iter().map(|k| (k.name.clone(), k.public_key.clone())).collect(),
            random_seed_base64: Some(
                base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 32]>()),
            ),
        };
        tx.server_secrets_set(server.id, &secrets).await?;
        for tag in &plan.new.tags {
            tx.server_tag_insert(server.id, tag).await?;
        }
        let detail = json!({
            "name": server.name, "flavor": server.flavor.id, "image_id": server.image.id, "node_id": server.node_id,
            "placement": decision.explanation(),
        });
        let event = Some("compute__do_build_and_run_instance");
        self.server_record(tx, server, compute::SERVER_CREATE, "create", event, &detail).await?;
        if let Some(fault) = &server.fault {
            tx.server_action_finish(server.id, tx.ctx().request_id, fault.at, Some(&fault.message)).await?;
        }
        self.server_usage(tx, server, server.node_id.is_some()).await
    }
}

const QUOTAS: [QuotaResource; 3] = [QuotaResource::Instances, QuotaResource::Cores, QuotaResource::RamMib];

fn amounts(plan: &Plan<'_>, count: u32) -> [(QuotaResource, u64); 3] {
    let count = u64::from(count);
    [
        (QuotaResource::Instances, count),
        (QuotaResource::Cores, u64::from(plan.flavor.vcpus) * count),
        (QuotaResource::RamMib, plan.flavor.memory_mib.saturating_mul(count)),
    ]
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
            return Err(EngineError::invalid(
                "max_count cannot be greater than 1 if an fixed_ip is specified.",
            ));
        }
    }
    Ok(())
}

fn zone_checked(wish: &ZoneWish, nodes: &[Node]) -> Result<(), EngineError> {
    if let Some(zone) = &wish.zone
        && !nodes.iter().any(|n| n.availability_zone == *zone)
    {
        return Err(EngineError::invalid("The requested availability zone is not available"));
    }
    if let Some(name) = &wish.node
        && !nodes.iter().any(|n| n.name.as_str() == name)
    {
        return Err(EngineError::invalid(format!("Compute host {name} could not be found.")));
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

/// The size of the root disk: the flavor's, or the image's own if the flavor says 0.
fn disk_gib(image: &Image, flavor: &ServerFlavor) -> u64 {
    let own = image.content.as_ref().map_or(0, |c| c.virtual_size_bytes.div_ceil(GIB));
    if flavor.disk_gib == 0 { own.max(1) } else { flavor.disk_gib }
}

/// Refuses an image that does not fit into a flavor, or into a disk that is there already.
pub(super) fn image_fits(image: &Image, flavor: &ServerFlavor, disk: Option<u64>) -> Result<(), EngineError> {
    if image.min_ram_mib > flavor.memory_mib {
        return Err(EngineError::invalid("Flavor's memory is too small for requested image."));
    }
    let disk = disk.unwrap_or(flavor.disk_gib);
    if disk == 0 {
        return Ok(());
    }
    let bytes = image.content.as_ref().map_or(0, |c| c.virtual_size_bytes);
    if bytes > disk.saturating_mul(GIB) {
        return Err(EngineError::invalid(format!(
            "Flavor's disk is too small for requested image. Flavor disk is {} bytes, image is {bytes} bytes.",
            disk.saturating_mul(GIB)
        )));
    }
    if image.min_disk_gib > disk {
        return Err(EngineError::invalid(format!(
            "Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is {disk} GiB, minimum size is {} GiB.",
            image.min_disk_gib
        )));
    }
    Ok(())
}

/// Emulated devices if the image's properties ask for a bus or card that guests know without drivers.
pub(super) fn devices(image: &Image) -> DeviceModel {
    let is = |name: &str, values: &[&str]| image.properties.get(name).is_some_and(|v| values.contains(&v.as_str()));
    if is("hw_disk_bus", &["ide", "sata"]) || is("hw_vif_model", &["e1000", "e1000e", "rtl8139"]) {
        DeviceModel::Emulated
    } else {
        DeviceModel::Virtio
    }
}

fn group_rule(group: &ServerGroup, placed: u64) -> GroupRule {
    match group.policy {
        GroupPolicy::Affinity | GroupPolicy::SoftAffinity if placed == 0 => GroupRule::None,
        GroupPolicy::Affinity => GroupRule::Together,
        GroupPolicy::SoftAffinity => GroupRule::RatherTogether,
        GroupPolicy::AntiAffinity => GroupRule::Apart { servers_per_node_max: group.servers_per_node_max.max(1) },
        GroupPolicy::SoftAntiAffinity => GroupRule::RatherApart,
    }
}

/// What is missing or taken in a request for a server is a mistake of that request.
pub(super) fn as_invalid(error: EngineError) -> EngineError {
    match error {
        EngineError::NotFound { code, .. } => {
            let message = error.to_string();
            EngineError::Invalid { code, message }
        }
        EngineError::Conflict { code: code @ ("IpAddressAlreadyAllocated" | "IpAddressGenerationFailure"), message } => {
            EngineError::Invalid { code, message }
        }
        other => other,
    }
}

/// A server that no node can take.
fn unplaced(server: &mut Server, decision: &Decision) {
    server.state = ServerState::Error;
    server.task = None;
    server.task_deadline = None;
    server.vcpus = 0;
    server.memory_mib = 0;
    server.disk_gib = 0;
    server.fault = Some(ServerFault {
        code: 500,
        message: format!("No valid host was found. {}", decision.summary()),
        details: decision.explanation(),
        at: server.created_at,
        transient: false,
    });
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
    let image = plan.image.source();
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
        incarnation: 1,
        node_id: node.map(|n| n.node_id),
        node_generation: 0,
        availability_zone: node.map(|n| n.zone.clone()).or_else(|| new.zone.zone.clone()).unwrap_or_default(),
        vcpus: u64::from(plan.flavor.vcpus),
        memory_mib: plan.flavor.memory_mib,
        disk_gib: plan.disk_gib,
        flavor: plan.flavor.clone(),
        image: image.unwrap_or_else(|| arcus_types::agent::ImageSource {
            id: plan.image.id,
            sha256: String::new(),
            size_bytes: 0,
            format: arcus_types::agent::DiskFormat::Raw,
        }),
        metadata: new.metadata.clone(),
        locked: false,
        server_group_id: new.server_group_id,
        request_id: Some(ctx.request_id),
        fault: None,
        details: ServerDetails {
            hostname,
            description: new.description.clone(),
            key_name: plan.key.as_ref().map(|k| k.name.clone()),
            config_drive: new.config_drive,
            access_ip_v4: new.access_ip_v4,
            access_ip_v6: new.access_ip_v6,
            disk_config_manual: new.disk_config_manual,
            reservation_id: plan.reservation_id.clone(),
            launch_index: index,
            zone_asked: new.zone.zone.clone(),
            security_groups: groups.to_vec(),
            devices: devices(&plan.image),
            image_properties: plan.image.properties.clone(),
            scheduler_hints: new.scheduler_hints.clone(),
            ..ServerDetails::default()
        },
        generation: 1,
        created_at: now,
        updated_at: now,
        launched_at: None,
        deleted_at: None,
        name,
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
