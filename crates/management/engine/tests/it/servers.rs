//! Servers, with a node that this test plays: it reads its spec and says what it sees.

mod claims;
mod clusters;
mod drain;
mod evacuate;
mod interfaces;
mod local_disks;
mod migrate;
mod placement;
mod presence;
mod volumes;

use arcus_engine::images::ImageNew;
use arcus_engine::networks::NetworkNew;
use arcus_engine::servers::{
    NetworkOrPort, NetworkWish, Networks, RebuildWish, ServerNew, ServerQuery, ServersCreated, SnapshotWish, ZoneWish,
};
use arcus_engine::subnets::SubnetNew;
use arcus_engine::{Engine, EngineConfig, EngineError};
use arcus_store::{NodeNew, QuotaResource, Server, ServerActionFilter, ServerFilter, Store};
use arcus_types::agent::{
    DiskFormat, Fault, NodeFacts, NodeReport, Observed, Power, ServerReport, ServerSpec, SnapshotReport, SnapshotState,
};
use arcus_types::flavors::FlavorId;
use arcus_types::images::ContainerFormat;
use arcus_types::servers::{ServerState, ServerTask};
use arcus_types::{
    Actor, DomainId, ImageId, NetworkId, NodeId, OpCtx, ProjectId, RequestId, Role, RoleSet, Scope, ServerId,
    Timestamp, UserId,
};
use bytes::Bytes;
use futures_util::stream;
use std::collections::BTreeMap;

/// A cloud with one node, one image and one network.
pub struct Cloud {
    pub engine: Engine,
    pub member: OpCtx,
    pub admin: OpCtx,
    pub project_id: ProjectId,
    pub node: NodeId,
    pub image: ImageId,
    pub network: NetworkId,
    _folder: tempfile::TempDir,
}

pub fn user(project_id: ProjectId, role: Role) -> OpCtx {
    OpCtx {
        request_id: RequestId::new(),
        actor: Actor::User {
            user_id: UserId::new(),
            domain_id: DomainId::DEFAULT,
            application_credential_id: None,
            trust_id: None,
        },
        scope: Scope::Project { project_id, domain_id: DomainId::DEFAULT },
        roles: RoleSet::from_iter([role]),
    }
}

fn again(ctx: &OpCtx) -> OpCtx {
    OpCtx { request_id: RequestId::new(), ..*ctx }
}

pub async fn node(store: &Store, name: &str, memory_mib: u64) -> NodeId {
    node_in(store, name, memory_mib, "nova").await
}

pub async fn node_in(store: &Store, name: &str, memory_mib: u64, zone: &str) -> NodeId {
    let new = NodeNew { id: NodeId::new(), name: name.parse().unwrap(), availability_zone: zone.into() };
    let tx = store.begin_unaudited().await.unwrap();
    tx.node_insert(&new).await.unwrap();
    let facts = NodeFacts { vcpus: 8, memory_mib, disk_gib: 100, ..NodeFacts::default() };
    tx.node_facts_set(new.id, &facts).await.unwrap();
    tx.commit().await.unwrap();
    new.id
}

impl Cloud {
    pub async fn start() -> Self {
        let (store, folder) = arcus_store::testing::sqlite().await;
        Self::over(store, folder).await
    }

    pub async fn over(store: Store, folder: tempfile::TempDir) -> Self {
        let engine = Engine::new(store, EngineConfig::under(folder.path()));
        let project_id = ProjectId::new();
        let (member, admin) = (user(project_id, Role::Member), user(project_id, Role::Admin));
        let node = node(engine.store(), "node-1", 8192).await;
        let new = ImageNew {
            disk_format: Some(DiskFormat::Raw),
            container_format: Some(ContainerFormat::Bare),
            ..ImageNew::default()
        };
        let image = engine.image_create(&member, new).await.unwrap().id;
        let bytes = stream::iter(vec![Ok::<_, std::io::Error>(Bytes::from_static(&[7; 4096]))]);
        engine.image_upload(&member, image, None, bytes).await.unwrap();
        let wish = NetworkNew { name: "lan".into(), ..NetworkNew::default() };
        let network = engine.networks_create(&member, vec![wish]).await.unwrap()[0].id;
        let wish =
            SubnetNew { network_id: network, cidr: Some("10.1.0.0/22".parse().unwrap()), ..SubnetNew::default() };
        engine.subnets_create(&member, vec![wish]).await.unwrap();
        Self { engine, member, admin, project_id, node, image, network, _folder: folder }
    }

    pub fn wish(&self) -> ServerNew {
        let what = NetworkOrPort::Network(self.network);
        ServerNew {
            name: "web".parse().unwrap(),
            hostname: None,
            description: None,
            image_id: Some(self.image),
            disks: Vec::new(),
            local_disks: Vec::new(),
            flavor_id: "1".parse().unwrap(),
            networks: Networks::These(vec![NetworkWish { what, fixed_ip: None, tag: None }]),
            key_name: None,
            security_groups: None,
            user_data: None,
            files: Vec::new(),
            metadata: BTreeMap::new(),
            config_drive: false,
            zone: ZoneWish::default(),
            count_min: 1,
            count_max: 1,
            admin_password: None,
            access_ip_v4: None,
            access_ip_v6: None,
            disk_config_manual: false,
            tags: Vec::new(),
            server_group_id: None,
            scheduler_hints: serde_json::Value::Null,
        }
    }

    pub async fn create(&self, wish: ServerNew) -> Result<ServersCreated, EngineError> {
        self.engine.server_create(&again(&self.member), wish).await
    }

    /// A server that runs.
    async fn running(&self) -> ServerId {
        let id = self.create(self.wish()).await.unwrap().servers[0].id;
        self.play().await;
        assert_eq!(self.server(id).await.state, ServerState::Active);
        id
    }

    pub async fn server(&self, id: ServerId) -> Server {
        self.engine.store().server_get(id).await.unwrap().unwrap()
    }

    async fn used(&self) -> Vec<i64> {
        let all = [QuotaResource::Instances, QuotaResource::Cores, QuotaResource::RamMib, QuotaResource::Ports];
        self.engine.store().quota_list(self.project_id, &all).await.unwrap().iter().map(|q| q.used).collect()
    }

    async fn node_used(&self) -> (u64, u64, u64) {
        let node = self.engine.store().node_get(self.node).await.unwrap().unwrap();
        (node.vcpus_used, node.memory_mib_used, node.disk_gib_used)
    }

    /// The node's spec of a server.
    async fn spec(&self, id: ServerId) -> Option<ServerSpec> {
        let (specs, _) = self.engine.server_specs(self.node).await.unwrap();
        specs.into_iter().find(|s| s.id == id)
    }

    /// The node does all that it is told and says so.
    pub async fn play(&self) {
        self.play_with(|_| {}).await;
    }

    /// The node does all that it is told, and its report is changed on the way.
    async fn play_with(&self, change: impl FnOnce(&mut NodeReport)) {
        self.play_on(self.node, change).await;
    }

    /// The same for any node.
    async fn play_on(&self, node: NodeId, change: impl FnOnce(&mut NodeReport)) {
        let generation = self.engine.store().node_spec_generation(node).await.unwrap().unwrap();
        let (specs, snapshots) = self.engine.server_specs(node).await.unwrap();
        let snapshots = snapshots
            .into_iter()
            .map(|s| SnapshotReport { image_id: s.image_id, state: SnapshotState::Copying })
            .collect();
        let mut report = NodeReport {
            spec_generation: generation,
            servers: specs.iter().map(as_wished).collect(),
            snapshots,
            ..NodeReport::default()
        };
        change(&mut report);
        self.engine.servers_observed(node, &report).await.unwrap();
    }
}

fn as_wished(spec: &ServerSpec) -> ServerReport {
    ServerReport {
        id: spec.id,
        epoch: spec.epoch,
        version: spec.version,
        observed: match spec.power {
            Power::Running => Observed::Running,
            Power::Paused => Observed::Paused,
            Power::Stopped => Observed::Stopped,
            Power::Suspended => Observed::Suspended,
        },
        restarts: spec.restarts.count,
        incarnation: spec.root_disk.as_ref().map_or(0, |disk| disk.incarnation),
        volumes: spec.volumes.iter().map(|v| v.volume_id).collect(),
        volume_faults: Vec::new(),
        step: None,
        progress_percent: 0,
        fault: None,
        passwords: 0,
        password_fault: None,
        cpu_ms: 0,
        memory_kib: 0,
        migration: None,
    }
}

fn fault(message: &str, transient: bool) -> Option<Fault> {
    Some(Fault { message: message.into(), details: "the whole chain".into(), transient })
}

#[tokio::test]
async fn a_server_is_made_runs_and_leaves_nothing_behind() {
    let cloud = Cloud::start().await;
    let made = cloud.create(cloud.wish()).await.unwrap();
    let id = made.servers[0].id;
    assert_eq!(made.admin_password.len(), 12);
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.task), (ServerState::Building, Some(ServerTask::Spawning)));
    assert_eq!(cloud.used().await, [1, 1, 192, 1]);
    assert_eq!(cloud.node_used().await, (1, 192, 1));
    let spec = cloud.spec(id).await.unwrap();
    assert_eq!(spec.ports.len(), 1);
    assert_eq!(spec.root_disk.as_ref().unwrap().size_bytes, 1 << 30);
    assert_eq!(spec.guest.hostname, "web");
    assert_eq!(spec.guest.admin_password.as_deref(), Some(made.admin_password.as_str()));

    cloud.play().await;
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.task), (ServerState::Active, None));
    assert!(server.launched_at.is_some());
    let view = cloud.engine.server_show(&cloud.member, id, false).await.unwrap();
    assert_eq!(view.addresses["lan"].len(), 1);
    assert_eq!(view.security_groups, ["default"]);

    cloud.engine.server_delete(&again(&cloud.member), id).await.unwrap();
    assert!(cloud.spec(id).await.is_none(), "the node is told to take it down");
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::Deleting));
    cloud.play().await;
    let server = cloud.server(id).await;
    assert_eq!(server.state, ServerState::Deleted);
    assert_eq!(cloud.used().await, [0, 0, 0, 0]);
    assert_eq!(cloud.node_used().await, (0, 0, 0));
    assert!(matches!(cloud.engine.server_show(&cloud.member, id, false).await, Err(EngineError::NotFound { .. })));
    assert!(cloud.engine.server_show(&cloud.admin, id, false).await.is_ok(), "administrators see the record");
    let (actions, _) = cloud
        .engine
        .server_actions(&cloud.member, id, &ServerActionFilter { limit: 10, ..ServerActionFilter::default() })
        .await
        .unwrap();
    let told: Vec<_> =
        actions.iter().map(|a| (a.action.as_str(), a.event.as_ref().unwrap().result.as_deref())).collect();
    assert_eq!(told, [("delete", Some("Success")), ("create", Some("Success"))]);
}

#[tokio::test]
async fn a_report_from_before_the_deletion_does_not_end_it() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let before = cloud.engine.store().node_spec_generation(cloud.node).await.unwrap().unwrap();
    cloud.engine.server_delete(&again(&cloud.member), id).await.unwrap();
    cloud.play_with(|report| report.spec_generation = before).await;
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::Deleting), "that node may not know of it yet");
    cloud.play().await;
    assert_eq!(cloud.server(id).await.state, ServerState::Deleted);
}

#[tokio::test]
async fn power_goes_through_all_its_states() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let engine = &cloud.engine;
    let ctx = || again(&cloud.member);
    engine.server_stop(&ctx(), id).await.unwrap();
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::PoweringOff));
    let refused = engine.server_start(&ctx(), id).await.unwrap_err().to_string();
    assert_eq!(refused, format!("Cannot 'start' instance {id} while it is in vm_state active"));
    cloud.play().await;
    assert_eq!(cloud.server(id).await.state, ServerState::Stopped);
    let refused = engine.server_reboot(&ctx(), id, false).await.unwrap_err().to_string();
    assert_eq!(refused, format!("Cannot 'reboot' instance {id} while it is in vm_state stopped"));
    engine.server_start(&ctx(), id).await.unwrap();
    cloud.play().await;
    engine.server_pause(&ctx(), id).await.unwrap();
    cloud.play().await;
    assert_eq!(cloud.server(id).await.state, ServerState::Paused);
    engine.server_unpause(&ctx(), id).await.unwrap();
    cloud.play().await;
    engine.server_suspend(&ctx(), id).await.unwrap();
    cloud.play().await;
    assert_eq!(cloud.server(id).await.state, ServerState::Suspended);
    engine.server_resume(&ctx(), id).await.unwrap();
    cloud.play().await;
    assert_eq!(cloud.server(id).await.state, ServerState::Active);
}

#[tokio::test]
async fn a_reboot_is_over_when_the_node_has_restarted_it_once() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    cloud.engine.server_reboot(&again(&cloud.member), id, true).await.unwrap();
    let spec = cloud.spec(id).await.unwrap();
    assert_eq!((spec.restarts.count, spec.restarts.hard), (1, true));
    cloud.play_with(|report| report.servers[0].restarts = 0).await;
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::RebootingHard));
    cloud.play().await;
    assert_eq!(cloud.server(id).await.task, None);
}

#[tokio::test]
async fn a_guest_that_powers_itself_off_is_shut_off_and_stays_so() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    cloud.play_with(|report| report.servers[0].observed = Observed::Ended).await;
    let server = cloud.server(id).await;
    assert_eq!(server.state.status(server.task), "SHUTOFF");
    assert_eq!(cloud.spec(id).await.unwrap().power, Power::Stopped, "the node must not start it again");
    cloud.play().await;
    assert_eq!(cloud.server(id).await.state, ServerState::Stopped);
}

#[tokio::test]
async fn a_fault_shows_and_goes_when_the_node_succeeds_after_all() {
    let cloud = Cloud::start().await;
    let id = cloud.create(cloud.wish()).await.unwrap().servers[0].id;
    let fail = |transient| {
        move |report: &mut NodeReport| {
            report.servers[0].observed = Observed::Failed;
            report.servers[0].fault = fault("The image could not be fetched.", transient);
        }
    };
    cloud.play_with(fail(true)).await;
    assert_eq!(cloud.server(id).await.state, ServerState::Building, "the node tries again for a while");
    cloud.play_with(fail(false)).await;
    let server = cloud.server(id).await;
    assert_eq!(server.state, ServerState::Error);
    assert_eq!(server.fault.unwrap().message, "The image could not be fetched.");

    let other = cloud.running_beside(id).await;
    cloud.engine.server_stop(&again(&cloud.member), other).await.unwrap();
    let overdue = Timestamp::now().plus_seconds(3600);
    assert_eq!(cloud.engine.servers_sweep(overdue).await.unwrap(), 1);
    assert_eq!(cloud.server(other).await.state, ServerState::Error);
    cloud.play().await;
    assert_eq!(cloud.server(other).await.state, ServerState::Stopped, "the node came back and had done it");
    assert!(cloud.server(other).await.fault.is_none());
}

impl Cloud {
    /// A second server that runs, while the node says nothing of the first.
    async fn running_beside(&self, other: ServerId) -> ServerId {
        let id = self.create(self.wish()).await.unwrap().servers[0].id;
        self.play_with(|report| report.servers.retain(|s| s.id != other)).await;
        assert_eq!(self.server(id).await.state, ServerState::Active);
        id
    }
}

#[tokio::test]
async fn a_resize_claims_both_flavors_until_its_owner_decides() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let medium: FlavorId = "3".parse().unwrap();
    cloud.engine.server_resize(&again(&cloud.member), id, &medium, None).await.unwrap();
    assert_eq!(cloud.used().await, [1, 2, 1024, 1]);
    assert_eq!(cloud.spec(id).await.unwrap().power, Power::Stopped);
    assert_eq!(cloud.spec(id).await.unwrap().hardware.vcpus, 1, "it shuts down as it is");
    cloud.play().await;
    let spec = cloud.spec(id).await.unwrap();
    let disk = spec.root_disk.unwrap();
    assert_eq!((spec.power, spec.hardware.vcpus, disk.size_bytes), (Power::Running, 2, 10 << 30));
    cloud.play().await;
    let server = cloud.server(id).await;
    assert_eq!(server.state.status(server.task), "VERIFY_RESIZE");

    cloud.engine.server_resize_revert(&again(&cloud.member), id).await.unwrap();
    cloud.play().await;
    assert_eq!(cloud.spec(id).await.unwrap().hardware.vcpus, 1);
    cloud.play().await;
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.flavor.name.as_str()), (ServerState::Active, "arcus.tiny"));
    assert_eq!(cloud.used().await, [1, 1, 192, 1]);
    assert_eq!(cloud.node_used().await, (1, 192, 10), "a disk that grew stays and stays claimed");

    cloud.engine.server_resize(&again(&cloud.member), id, &medium, Some(true)).await.unwrap();
    cloud.play().await;
    cloud.play().await;
    cloud.engine.server_resize_confirm(&again(&cloud.member), id).await.unwrap();
    assert_eq!(cloud.server(id).await.state, ServerState::Active);
    assert_eq!(cloud.used().await, [1, 2, 1024, 1]);
    assert_eq!(cloud.node_used().await, (2, 1024, 10));
}

#[tokio::test]
async fn a_rebuild_keeps_ports_and_waits_for_the_new_disk() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let before = cloud.spec(id).await.unwrap();
    let wish = RebuildWish {
        image_id: cloud.image,
        reimage: true,
        name: Some("api".parse().unwrap()),
        hostname: None,
        metadata: None,
        description: None,
        admin_password: None,
        key_name: None,
        user_data: None,
        files: Vec::new(),
        access_ip_v4: None,
        access_ip_v6: None,
        disk_config_manual: None,
    };
    cloud.engine.server_rebuild(&again(&cloud.member), id, wish).await.unwrap();
    let after = cloud.spec(id).await.unwrap();
    assert_eq!(after.ports, before.ports);
    let incarnation = |spec: &ServerSpec| spec.root_disk.as_ref().unwrap().incarnation;
    assert_eq!(incarnation(&after), incarnation(&before) + 1);
    cloud.play_with(|report| report.servers[0].incarnation = incarnation(&before)).await;
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::Rebuilding));
    cloud.play().await;
    assert_eq!(cloud.server(id).await.task, None);
    assert_eq!(cloud.server(id).await.name.as_str(), "api");
}

#[tokio::test]
async fn a_snapshot_ends_with_the_nodes_word() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let wish =
        SnapshotWish { name: "copy".parse().unwrap(), metadata: BTreeMap::new(), metadata_counted: true, backup: None };
    let image = cloud.engine.server_image_create(&again(&cloud.member), id, &wish).await.unwrap();
    cloud.play().await;
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::ImageSnapshot), "running is not enough");
    cloud
        .play_with(|report| {
            let because = fault("The disk is full.", false).unwrap();
            report.snapshots = vec![SnapshotReport { image_id: image, state: SnapshotState::Failed(because) }];
        })
        .await;
    assert_eq!(cloud.server(id).await.task, None);
    assert!(cloud.engine.image_get(&cloud.member, image).await.is_err(), "no image is left behind");
    let (_, snapshots) = cloud.engine.server_specs(cloud.node).await.unwrap();
    assert!(snapshots.is_empty());
}

#[tokio::test]
async fn what_no_node_can_take_says_why() {
    let cloud = Cloud::start().await;
    let tx = cloud.engine.store().begin_unaudited().await.unwrap();
    let facts = NodeFacts { vcpus: 8, memory_mib: 100, disk_gib: 100, ..NodeFacts::default() };
    tx.node_facts_set(cloud.node, &facts).await.unwrap();
    tx.commit().await.unwrap();
    let id = cloud.create(cloud.wish()).await.unwrap().servers[0].id;
    let server = cloud.server(id).await;
    assert_eq!(server.state, ServerState::Error);
    let fault = server.fault.unwrap();
    assert!(fault.message.starts_with("No valid host was found."), "{}", fault.message);
    assert!(fault.message.contains("1 lacks memory (192 MiB asked, at most 100 free)"), "{}", fault.message);
    assert!(fault.details.contains("100 MiB of memory free, 192 wanted"), "{}", fault.details);
    cloud.engine.server_delete(&again(&cloud.member), id).await.unwrap();
    assert_eq!(cloud.server(id).await.state, ServerState::Deleted, "nothing needs to be waited for");
    assert_eq!(cloud.used().await, [0, 0, 0, 0]);
}

#[tokio::test]
async fn a_server_on_a_node_that_is_gone_can_be_deleted() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    cloud.engine.store().presence().heard(cloud.node, Timestamp(0));
    cloud.engine.server_delete(&again(&cloud.member), id).await.unwrap();
    assert_eq!(cloud.server(id).await.state, ServerState::Deleted);
    assert_eq!(cloud.used().await, [0, 0, 0, 0]);
}

#[tokio::test]
async fn a_locked_server_obeys_administrators_only() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    cloud.engine.server_lock(&again(&cloud.member), id, Some("do not touch".into())).await.unwrap();
    let refused = cloud.engine.server_stop(&again(&cloud.member), id).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("Instance {id} is locked"));
    assert!(cloud.engine.server_delete(&again(&cloud.member), id).await.is_err());
    cloud.engine.server_stop(&again(&cloud.admin), id).await.unwrap();
    cloud.engine.server_unlock(&again(&cloud.member), id).await.unwrap();
    cloud.engine.server_delete(&again(&cloud.member), id).await.unwrap();
}

#[tokio::test]
async fn other_projects_do_not_see_it() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let stranger = user(ProjectId::new(), Role::Member);
    let engine = &cloud.engine;
    assert!(matches!(engine.server_show(&stranger, id, false).await, Err(EngineError::NotFound { .. })));
    assert!(matches!(engine.server_delete(&stranger, id).await, Err(EngineError::NotFound { .. })));
    assert!(matches!(engine.server_stop(&stranger, id).await, Err(EngineError::NotFound { .. })));
    let reader = user(cloud.project_id, Role::Reader);
    assert!(engine.server_show(&reader, id, false).await.is_ok());
    assert!(matches!(engine.server_stop(&reader, id).await, Err(EngineError::Denied(_))));
}

#[tokio::test]
async fn lists_filter_by_patterns_and_page() {
    let cloud = Cloud::start().await;
    for name in ["web-1", "web-2", "db-1"] {
        cloud.create(ServerNew { name: name.parse().unwrap(), ..cloud.wish() }).await.unwrap();
    }
    let list = async |query: ServerQuery| {
        let (found, more) = cloud.engine.server_list(&cloud.member, query).await.unwrap();
        (found.iter().map(|v| v.server.name.to_string()).collect::<Vec<_>>(), more)
    };
    let filter = |limit| ServerFilter { limit, ..ServerFilter::default() };
    let by_name = ServerQuery { name: Some("^web".into()), filter: filter(1), ..ServerQuery::default() };
    assert_eq!(list(by_name).await, (vec!["web-2".to_owned()], true));
    let by_ip = ServerQuery { ip: Some("^10\\.1\\.".into()), filter: filter(9), ..ServerQuery::default() };
    assert_eq!(list(by_ip).await.0, ["db-1", "web-2", "web-1"]);
    let none = ServerQuery { ip: Some("192".into()), filter: filter(9), ..ServerQuery::default() };
    assert_eq!(list(none).await.0, [""; 0]);
}

#[tokio::test]
async fn a_users_own_port_survives_its_server() {
    let cloud = Cloud::start().await;
    let wish = arcus_engine::ports::PortNew { network_id: cloud.network, ..Default::default() };
    let port = cloud.engine.ports_create(&cloud.member, vec![wish]).await.unwrap()[0].id;
    let what = NetworkOrPort::Port(port);
    let networks = Networks::These(vec![NetworkWish { what, fixed_ip: None, tag: None }]);
    let id = cloud.create(ServerNew { networks: networks.clone(), ..cloud.wish() }).await.unwrap().servers[0].id;
    let taken = cloud.create(ServerNew { networks, ..cloud.wish() }).await;
    assert!(matches!(taken, Err(EngineError::Conflict { code: "PortInUse", .. })));
    assert_eq!(cloud.used().await[0], 1, "what was refused claims nothing");
    cloud.play().await;
    cloud.engine.server_delete(&again(&cloud.member), id).await.unwrap();
    cloud.play().await;
    let port = cloud.engine.port_get(&cloud.member, port).await.unwrap();
    assert_eq!((port.server_id, port.device_id.as_str()), (None, ""));
}
