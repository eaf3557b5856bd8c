//! Servers that go to another node while they are shut down. Both nodes are played.

use super::{Cloud, again, fault, node};
use arcus_engine::EngineError;
use arcus_engine::node_services::ServiceChange;
use arcus_store::{ServerActionFilter, ServerMigration, ServerMigrationFilter, StoreError};
use arcus_types::agent::{NodeFacts, Observed, Power, SnapshotReport, SnapshotState};
use arcus_types::flavors::FlavorId;
use arcus_types::servers::{ServerState, ServerTask};
use arcus_types::{Actor, DiskPoolId, ImageId, NodeId, OpCtx, RequestId, Scope, ServerId, Timestamp};
use bytes::Bytes;
use futures_util::stream;

const MEMORY_MIB: u64 = 192;

impl Cloud {
    async fn plays(&self, node: NodeId) {
        self.play_on(node, |_| {}).await;
    }

    /// The image that a node is told to make.
    async fn image_asked(&self, node: NodeId) -> ImageId {
        let (_, snapshots) = self.engine.server_specs(node).await.unwrap();
        assert_eq!(snapshots.len(), 1);
        snapshots[0].image_id
    }

    /// A node makes the image that it is told to make.
    async fn copies(&self, node_id: NodeId) -> ImageId {
        let image_id = self.image_asked(node_id).await;
        let path = self._folder.path().join("disk.qcow2");
        let mut make = std::process::Command::new("qemu-img");
        make.args(["create", "-q", "-f", "qcow2"]).arg(&path).arg("1G");
        assert!(make.status().unwrap().success());
        let bytes = Bytes::from(std::fs::read(path).unwrap());
        let ctx = OpCtx { actor: Actor::Node { node_id }, scope: Scope::System, ..OpCtx::anonymous(RequestId::new()) };
        self.engine.image_fill(&ctx, image_id, stream::iter([Ok(bytes)])).await.unwrap();
        let done = SnapshotReport { image_id, state: SnapshotState::Done };
        self.play_on(node_id, |report| report.snapshots = vec![done]).await;
        image_id
    }

    async fn memory_used(&self, node: NodeId) -> u64 {
        self.engine.store().node_get(node).await.unwrap().unwrap().memory_mib_used
    }

    async fn moved(&self) -> ServerMigration {
        let filter = ServerMigrationFilter { limit: 1, ..ServerMigrationFilter::default() };
        self.engine.migration_list(&self.admin, filter, None).await.unwrap().0.remove(0)
    }

    /// The image is gone, and its bytes are.
    async fn is_gone(&self, image: ImageId) {
        assert!(self.engine.store().image_get(image).await.unwrap().is_none());
        let left = std::fs::read_dir(&self.engine.config().images_dir).unwrap().flatten();
        let left: Vec<_> = left.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        assert!(!left.iter().any(|name| name.contains(&image.to_string())), "{left:?}");
    }

    /// Asks for a move and has it copied; the image.
    async fn on_its_way(&self, id: ServerId) -> ImageId {
        self.engine.server_migrate(&again(&self.admin), id, None).await.unwrap();
        self.play().await;
        self.copies(self.node).await
    }

    async fn why(&self, id: ServerId) -> Option<String> {
        let filter = ServerActionFilter { limit: 1, ..ServerActionFilter::default() };
        let (mut actions, _) = self.engine.server_actions(&self.admin, id, &filter).await.unwrap();
        let last = actions.remove(0);
        assert_eq!(last.action, "migrate");
        last.message.or_else(|| last.event.and_then(|event| event.details))
    }

    async fn facts(&self, id: NodeId, memory_mib: u64, disk_pool: Option<DiskPoolId>) -> Result<(), StoreError> {
        let tx = self.engine.store().begin_unaudited().await?;
        let facts = NodeFacts { vcpus: 8, memory_mib, disk_gib: 100, disk_pool, ..NodeFacts::default() };
        tx.node_facts_set(id, &facts).await?;
        tx.commit().await
    }
}

#[tokio::test]
async fn a_server_goes_to_another_node_with_its_disk_and_its_ports_and_comes_back() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let before = cloud.server(id).await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    cloud.engine.server_migrate(&again(&cloud.admin), id, Some("node-2")).await.unwrap();
    let server = cloud.server(id).await;
    assert_eq!((server.node_id, server.power), (Some(cloud.node), Power::Stopped));
    assert_eq!((cloud.memory_used(cloud.node).await, cloud.memory_used(other).await), (MEMORY_MIB, MEMORY_MIB));
    assert_eq!(cloud.used().await, [1, 1, 192, 1], "what it goes through costs its project nothing");
    let record = cloud.moved().await;
    assert_eq!((record.kind.as_str(), record.status.as_str()), ("migration", "migrating"));
    assert_eq!((record.source_node.as_str(), record.dest_node.as_str()), ("node-1", "node-2"));

    cloud.play().await;
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::ResizeCopying));
    cloud.play().await;
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::ResizeCopying), "that it is stopped is not enough");
    let image = cloud.copies(cloud.node).await;
    assert!(cloud.engine.image_get(&cloud.member, image).await.is_err(), "it is nobody's image");
    let server = cloud.server(id).await;
    assert_eq!((server.node_id, server.epoch), (Some(other), before.epoch + 1));
    assert!(cloud.spec(id).await.is_none(), "its old node has to let go of it");
    let ports = cloud.engine.store().port_list_by_servers(&[id]).await.unwrap();
    assert!(ports.iter().all(|port| port.node_id == Some(other)));
    let (specs, _) = cloud.engine.server_specs(other).await.unwrap();
    let disk = specs[0].root_disk.clone().unwrap();
    assert_eq!((disk.image.id, disk.incarnation), (image, before.incarnation + 1));
    assert_eq!(specs[0].power, Power::Running);
    cloud.plays(other).await;
    let server = cloud.server(id).await;
    assert_eq!(server.state.status(server.task), "VERIFY_RESIZE");
    assert_eq!(cloud.moved().await.status, "finished");
    assert!(cloud.why(id).await.is_none());

    cloud.engine.server_resize_revert(&again(&cloud.member), id).await.unwrap();
    cloud.plays(other).await;
    let server = cloud.server(id).await;
    assert_eq!((server.node_id, server.epoch), (Some(cloud.node), before.epoch + 2));
    assert_eq!(cloud.spec(id).await.unwrap().root_disk.unwrap().image.id, image);
    cloud.play().await;
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.task), (ServerState::Active, None));
    assert_eq!((cloud.memory_used(cloud.node).await, cloud.memory_used(other).await), (MEMORY_MIB, 0));
    assert_eq!(cloud.moved().await.status, "reverted");
    cloud.is_gone(image).await;
}

#[tokio::test]
async fn a_confirmed_move_leaves_nothing_on_the_old_node() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    let image = cloud.on_its_way(id).await;
    cloud.plays(other).await;
    cloud.engine.server_resize_confirm(&again(&cloud.member), id).await.unwrap();
    assert_eq!(cloud.server(id).await.state, ServerState::Active);
    assert_eq!((cloud.memory_used(cloud.node).await, cloud.memory_used(other).await), (0, MEMORY_MIB));
    assert_eq!(cloud.node_used().await, (0, 0, 0));
    assert_eq!(cloud.moved().await.status, "confirmed");
    cloud.is_gone(image).await;
}

#[tokio::test]
async fn a_server_that_is_shut_off_stays_so_and_has_its_disk_before_its_owner_decides() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    cloud.engine.server_stop(&again(&cloud.member), id).await.unwrap();
    cloud.play().await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    cloud.on_its_way(id).await;
    cloud.play_on(other, |report| report.servers[0].incarnation -= 1).await;
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::ResizeFinishing), "its disk is not there yet");
    cloud.plays(other).await;
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.power), (ServerState::Resized, Power::Stopped));
    cloud.engine.server_resize_confirm(&again(&cloud.member), id).await.unwrap();
    assert_eq!(cloud.server(id).await.state, ServerState::Stopped);
}

#[tokio::test]
async fn a_disk_that_cannot_be_copied_leaves_the_server_where_it_was() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    cloud.engine.server_migrate(&again(&cloud.admin), id, None).await.unwrap();
    cloud.play().await;
    let image_id = cloud.image_asked(cloud.node).await;
    let state = SnapshotState::Failed(fault("The disk is full.", false).unwrap());
    cloud.play_with(|report| report.snapshots = vec![SnapshotReport { image_id, state }]).await;
    assert_eq!(cloud.spec(id).await.unwrap().power, Power::Running);
    cloud.play().await;
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.task, server.node_id), (ServerState::Active, None, Some(cloud.node)));
    assert_eq!((cloud.memory_used(cloud.node).await, cloud.memory_used(other).await), (MEMORY_MIB, 0));
    assert_eq!(cloud.moved().await.status, "error");
    assert_eq!(cloud.why(id).await.as_deref(), Some("The disk is full."));
    cloud.is_gone(image_id).await;
}

#[tokio::test]
async fn a_node_that_cannot_run_it_gives_it_back() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    let image = cloud.on_its_way(id).await;
    cloud
        .play_on(other, |report| {
            report.servers[0].observed = Observed::Failed;
            report.servers[0].fault = fault("The guest could not be started.", false);
        })
        .await;
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::RevertStopping));
    cloud.plays(other).await;
    assert_eq!(cloud.server(id).await.node_id, Some(cloud.node));
    cloud.play().await;
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.task), (ServerState::Active, None));
    assert_eq!((cloud.memory_used(cloud.node).await, cloud.memory_used(other).await), (MEMORY_MIB, 0));
    assert_eq!(cloud.moved().await.status, "error");
    assert_eq!(cloud.why(id).await.as_deref(), Some("The guest could not be started."));
    cloud.is_gone(image).await;
}

#[tokio::test]
async fn a_server_that_is_deleted_on_its_way_gives_all_back() {
    let cloud = Cloud::start().await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    for steps in 0..4 {
        let id = cloud.running_on(cloud.node).await;
        cloud.engine.server_migrate(&again(&cloud.admin), id, None).await.unwrap();
        let mut image = None;
        if steps > 0 {
            cloud.play().await;
            image = Some(cloud.image_asked(cloud.node).await);
        }
        if steps > 1 {
            cloud.copies(cloud.node).await;
        }
        if steps > 2 {
            cloud.plays(other).await;
        }
        cloud.engine.server_delete(&again(&cloud.member), id).await.unwrap();
        cloud.play().await;
        cloud.plays(other).await;
        assert_eq!(cloud.server(id).await.state, ServerState::Deleted, "after {steps} steps");
        assert_eq!(cloud.used().await, [0, 0, 0, 0], "after {steps} steps");
        assert_eq!((cloud.memory_used(cloud.node).await, cloud.memory_used(other).await), (0, 0), "after {steps}");
        if let Some(image) = image {
            cloud.is_gone(image).await;
        }
    }
}

impl Cloud {
    /// A server that runs on a node, whatever others there are.
    async fn running_on(&self, node: NodeId) -> ServerId {
        let store = self.engine.store();
        let name = store.node_get(node).await.unwrap().unwrap().name.to_string();
        let mut wish = self.wish();
        wish.zone.node = Some(name);
        let id = self.engine.server_create(&again(&self.admin), wish).await.unwrap().servers[0].id;
        self.plays(node).await;
        assert_eq!(self.server(id).await.state, ServerState::Active);
        id
    }
}

#[tokio::test]
async fn a_move_that_takes_too_long_ends_where_it_began() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    cloud.engine.server_migrate(&again(&cloud.admin), id, None).await.unwrap();
    cloud.play().await;
    let image = cloud.image_asked(cloud.node).await;
    assert_eq!(cloud.engine.servers_sweep(Timestamp::now().plus_seconds(7 * 3600)).await.unwrap(), 1);
    cloud.play().await;
    assert_eq!(cloud.server(id).await.state, ServerState::Active);
    assert_eq!((cloud.memory_used(cloud.node).await, cloud.memory_used(other).await), (MEMORY_MIB, 0));
    cloud.is_gone(image).await;
}

#[tokio::test]
async fn a_node_that_never_starts_it_is_not_waited_for() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    let image = cloud.on_its_way(id).await;
    assert_eq!(cloud.server(id).await.node_id, Some(other));
    assert_eq!(cloud.engine.servers_sweep(Timestamp::now().plus_seconds(1900)).await.unwrap(), 1);
    assert_eq!(cloud.server(id).await.node_id, Some(cloud.node));
    cloud.play().await;
    assert_eq!(cloud.server(id).await.state, ServerState::Active);
    assert_eq!((cloud.memory_used(cloud.node).await, cloud.memory_used(other).await), (MEMORY_MIB, 0));
    assert_eq!(cloud.moved().await.status, "error");
    cloud.is_gone(image).await;
}

#[tokio::test]
async fn what_cannot_move_says_why() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let migrate = async |node| cloud.engine.server_migrate(&again(&cloud.admin), id, node).await.unwrap_err();
    let alone = migrate(None).await.to_string();
    assert!(alone.starts_with("No valid host was found."), "{alone}");
    assert!(alone.contains("the server is there now"), "{alone}");
    node(cloud.engine.store(), "node-2", 8192).await;
    let refused = cloud.engine.server_migrate(&again(&cloud.member), id, None).await.unwrap_err();
    assert!(matches!(refused, EngineError::Denied(_)));
    assert_eq!(
        migrate(Some("node-1")).await.to_string(),
        format!("Instance {id} is on node-1 already: name another node.")
    );
    assert_eq!(migrate(Some("node-9")).await.to_string(), "Compute host node-9 could not be found.");
    let declared = ServiceChange { enabled: None, forced_down: Some(true) };
    cloud.engine.service_change(&again(&cloud.admin), cloud.node, &declared).await.unwrap();
    assert!(migrate(None).await.to_string().contains("evacuate it"));
}

#[tokio::test]
async fn a_flavor_that_finds_no_room_on_its_node_takes_the_server_to_another_one() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    cloud.facts(cloud.node, 1000, None).await.unwrap();
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    let medium: FlavorId = "3".parse().unwrap();
    cloud.engine.server_resize(&again(&cloud.member), id, &medium, None).await.unwrap();
    assert_eq!((cloud.memory_used(cloud.node).await, cloud.memory_used(other).await), (MEMORY_MIB, 1024));
    cloud.play().await;
    cloud.copies(cloud.node).await;
    cloud.plays(other).await;
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.flavor.id.clone(), server.disk_gib), (ServerState::Resized, medium.clone(), 10));
    assert_eq!(cloud.moved().await.kind, "resize");
    cloud.engine.server_resize_revert(&again(&cloud.member), id).await.unwrap();
    cloud.plays(other).await;
    cloud.play().await;
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.flavor.vcpus, server.disk_gib), (ServerState::Active, 1, 1));
    assert_eq!(cloud.used().await, [1, 1, 192, 1]);
    assert_eq!((cloud.memory_used(cloud.node).await, cloud.memory_used(other).await), (MEMORY_MIB, 0));
}

#[tokio::test]
async fn a_disk_that_both_nodes_see_is_not_copied() {
    let cloud = Cloud::start().await;
    let pool = Some(DiskPoolId::new());
    cloud.facts(cloud.node, 8192, pool).await.unwrap();
    let id = cloud.running().await;
    let before = cloud.server(id).await;
    assert_eq!(before.details.disk_pool, pool);
    let away = node(cloud.engine.store(), "node-2", 8192).await;
    let refused = cloud.engine.server_migrate(&again(&cloud.admin), id, None).await.unwrap_err().to_string();
    assert!(refused.contains("does not see the shared folder"), "{refused}");
    cloud.facts(away, 8192, pool).await.unwrap();
    cloud.engine.server_migrate(&again(&cloud.admin), id, None).await.unwrap();
    cloud.play().await;
    let server = cloud.server(id).await;
    assert_eq!((server.node_id, server.task), (Some(away), Some(ServerTask::ResizeFinishing)));
    assert_eq!((server.incarnation, server.details.disk_pool), (before.incarnation, pool), "the disk stays what it is");
    cloud.plays(away).await;
    cloud.engine.server_resize_confirm(&again(&cloud.member), id).await.unwrap();
    assert_eq!(cloud.server(id).await.state, ServerState::Active);
    assert_eq!(cloud.memory_used(cloud.node).await, 0);
}
