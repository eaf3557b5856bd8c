//! Ephemeral disks and swap: what servers get of them, and what becomes of them.

use super::{Cloud, again, node};
use arcus_engine::EngineError;
use arcus_engine::flavors::FlavorNew;
use arcus_engine::servers::{LocalDiskWish, ServerNew};
use arcus_types::ServerId;
use arcus_types::agent::{LocalDisk, LocalDiskContent};
use arcus_types::flavors::FlavorId;
use arcus_types::servers::ServerState;

impl Cloud {
    async fn flavor(&self, ephemeral_gib: u64, swap_mib: u64) -> FlavorId {
        let new = FlavorNew {
            id: None,
            name: format!("e{ephemeral_gib}s{swap_mib}"),
            vcpus: 1,
            memory_mib: 192,
            disk_gib: 2,
            ephemeral_gib,
            swap_mib,
            rxtx_percent: 100,
            is_public: true,
            description: None,
        };
        self.engine.flavor_create(&again(&self.admin), new).await.unwrap().id
    }

    async fn running_with(&self, flavor_id: FlavorId, local_disks: Vec<LocalDiskWish>) -> ServerId {
        let new = ServerNew { flavor_id, local_disks, ..self.wish() };
        let id = self.create(new).await.unwrap().servers[0].id;
        self.play().await;
        assert_eq!(self.server(id).await.state, ServerState::Active);
        id
    }

    async fn local(&self, id: ServerId) -> Vec<LocalDisk> {
        self.spec(id).await.unwrap().local_disks.disks
    }

    async fn root_gib(&self, id: ServerId) -> u64 {
        self.spec(id).await.unwrap().root_disk.unwrap().size_bytes >> 30
    }
}

fn ephemeral(gib: u64) -> LocalDisk {
    LocalDisk { content: LocalDiskContent::Ext4, size_mib: gib << 10 }
}

fn swap(size_mib: u64) -> LocalDisk {
    LocalDisk { content: LocalDiskContent::Swap, size_mib }
}

#[tokio::test]
async fn a_server_gets_what_its_flavor_has_and_its_node_s_room_is_claimed() {
    let cloud = Cloud::start().await;
    let flavor = cloud.flavor(3, 1500).await;
    let id = cloud.running_with(flavor.clone(), Vec::new()).await;
    assert_eq!(cloud.local(id).await, [ephemeral(3), swap(1500)]);
    assert_eq!((cloud.root_gib(id).await, cloud.node_used().await.2), (2, 2 + 5));
    let less = vec![LocalDiskWish::Ephemeral { size_gib: Some(1) }, LocalDiskWish::Swap { size_mib: Some(100) }];
    let other = cloud.running_with(flavor.clone(), less).await;
    assert_eq!(cloud.local(other).await, [ephemeral(1), swap(100)]);
    assert_eq!((cloud.root_gib(other).await, cloud.node_used().await.2), (2, 7 + 2 + 2));
    let more = vec![LocalDiskWish::Ephemeral { size_gib: Some(4) }];
    let refused = cloud.create(ServerNew { flavor_id: flavor, local_disks: more, ..cloud.wish() }).await;
    assert!(matches!(refused, Err(EngineError::Invalid { code: "InvalidBDM", .. })));
    for id in [id, other] {
        cloud.engine.server_delete(&again(&cloud.member), id).await.unwrap();
    }
    cloud.play().await;
    assert_eq!(cloud.node_used().await, (0, 0, 0));
}

#[tokio::test]
async fn a_resize_takes_them_along() {
    let cloud = Cloud::start().await;
    let (small, large, none) = (cloud.flavor(1, 512).await, cloud.flavor(4, 256).await, cloud.flavor(0, 0).await);
    let id = cloud.running_with(small.clone(), Vec::new()).await;
    let resize = async |flavor: &FlavorId| cloud.engine.server_resize(&again(&cloud.member), id, flavor, None).await;
    assert!(matches!(resize(&none).await, Err(EngineError::Invalid { .. })), "an ephemeral disk does not shrink");
    assert_eq!(cloud.node_used().await.2, 2 + 2);
    resize(&large).await.unwrap();
    assert_eq!(cloud.local(id).await, [ephemeral(1), swap(512)], "it shuts down as it is");
    cloud.play().await;
    assert_eq!(cloud.local(id).await, [ephemeral(4), swap(256)]);
    assert_eq!((cloud.root_gib(id).await, cloud.node_used().await.2), (2, 2 + 5));
    cloud.play().await;
    cloud.engine.server_resize_revert(&again(&cloud.member), id).await.unwrap();
    cloud.play().await;
    cloud.play().await;
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.flavor.id), (ServerState::Active, small));
    assert_eq!(cloud.local(id).await, [ephemeral(4), swap(512)], "a disk that grew stays");
    assert_eq!((cloud.root_gib(id).await, cloud.node_used().await.2), (2, 2 + 5));
}

#[tokio::test]
async fn an_ephemeral_disk_stays_on_its_node_while_its_server_is_shut_down() {
    let cloud = Cloud::start().await;
    let (both, swapped) = (cloud.flavor(1, 512).await, cloud.flavor(0, 512).await);
    let stays = cloud.running_with(both, Vec::new()).await;
    let goes = cloud.running_with(swapped, Vec::new()).await;
    node(cloud.engine.store(), "node-b", 4096).await;
    let refused = cloud.engine.server_migrate(&again(&cloud.admin), stays, None).await;
    assert!(refused.unwrap_err().to_string().contains("ephemeral disk"));
    cloud.engine.server_migrate(&again(&cloud.admin), goes, None).await.unwrap();
    let place = cloud.server(goes).await.details.resize.unwrap().elsewhere.unwrap();
    assert_eq!((place.disk_gib, place.local_gib), (3, 1));
}
