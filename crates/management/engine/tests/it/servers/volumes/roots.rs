//! Servers that boot from a volume: rebuilt, rescued.

use super::{Cloud, again, as_wished, disk};
use arcus_engine::images::ImageNew;
use arcus_engine::servers::{DiskSource, RebuildWish, ServerNew, UnshelveWish};
use arcus_engine::volume_snapshots::VolumeSnapshotNew;
use arcus_types::agent::{
    DiskFormat, Fault, NodeReport, Observed, Power, ServerReport, VolumeReport, VolumeSource, VolumeState,
};
use arcus_types::images::ContainerFormat;
use arcus_types::servers::{ServerState, ServerTask};
use arcus_types::volumes::VolumeStatus;
use arcus_types::{ImageId, ServerId, VolumeId};
use bytes::Bytes;
use futures_util::stream;

fn rebuild(image_id: ImageId, reimage: bool) -> RebuildWish {
    RebuildWish {
        image_id,
        reimage,
        name: None,
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
    }
}

impl Cloud {
    /// A server that runs from a volume of its own, and the volume.
    async fn rooted(&self) -> (ServerId, VolumeId) {
        let disks = vec![disk(DiskSource::Image(self.image), Some(0), Some(2))];
        let id = self.create(ServerNew { image_id: None, disks, ..self.wish() }).await.unwrap().servers[0].id;
        self.play_volumes(&[]).await;
        assert_eq!(self.server(id).await.state, ServerState::Active);
        let view = self.engine.server_show(&self.member, id, false).await.unwrap();
        (id, view.volumes[0].volume_id)
    }

    /// The node says how far its one volume is, and nothing of servers.
    async fn volume_said(&self, id: VolumeId, state: VolumeState) {
        let version = self.engine.store().volume_get(id).await.unwrap().unwrap().version;
        let report = VolumeReport { id, version, state, size_bytes: 2 << 30, snapshots: Vec::new() };
        let report = NodeReport { spec_generation: 1_000, volumes: vec![report], ..NodeReport::default() };
        self.engine.volumes_observed(self.node, &report).await.unwrap();
    }

    /// The node says that its servers are as wished, and nothing of volumes.
    async fn servers_said(&self) {
        self.play().await;
    }

    async fn another_image(&self, properties: &[(&str, &str)]) -> ImageId {
        let new = ImageNew {
            disk_format: Some(DiskFormat::Raw),
            container_format: Some(ContainerFormat::Bare),
            properties: properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..ImageNew::default()
        };
        let image = self.engine.image_create(&self.member, new).await.unwrap().id;
        let bytes = stream::iter(vec![Ok::<_, std::io::Error>(Bytes::from_static(&[7; 4096]))]);
        self.engine.image_upload(&self.member, image, None, bytes).await.unwrap();
        image
    }
}

#[tokio::test]
async fn a_rebuild_refills_the_volume_while_its_server_is_stopped() {
    let cloud = Cloud::start().await;
    let (id, volume) = cloud.rooted().await;
    for volume_first in [false, true] {
        let (_, password) =
            cloud.engine.server_rebuild(&again(&cloud.member), id, rebuild(cloud.image, true)).await.unwrap();
        assert_eq!(password.len(), 12);
        assert_eq!(cloud.server(id).await.task, Some(ServerTask::RebuildingVolume));
        assert_eq!(cloud.status(volume).await, VolumeStatus::Downloading);
        assert_eq!(cloud.spec(id).await.unwrap().power, Power::Stopped);
        let wish = cloud.engine.volume_specs(cloud.node).await.unwrap().0.remove(0);
        assert!(matches!(wish.refill.unwrap().source, VolumeSource::Image(image) if image.id == cloud.image));
        if volume_first {
            cloud.volume_said(volume, VolumeState::Ready).await;
        } else {
            cloud.servers_said().await;
        }
        assert_eq!(cloud.server(id).await.task, Some(ServerTask::RebuildingVolume), "one of two is not enough");
        assert_eq!(cloud.spec(id).await.unwrap().power, Power::Stopped);
        if volume_first {
            cloud.servers_said().await;
        } else {
            cloud.volume_said(volume, VolumeState::Ready).await;
        }
        assert_eq!(cloud.server(id).await.task, Some(ServerTask::RebuildFinishing));
        assert_eq!(cloud.status(volume).await, VolumeStatus::InUse);
        assert_eq!(cloud.spec(id).await.unwrap().power, Power::Running);
        cloud.servers_said().await;
        let server = cloud.server(id).await;
        assert_eq!((server.state, server.task, server.details.rebuild), (ServerState::Active, None, None));
    }
}

#[tokio::test]
async fn a_rebuild_that_fails_or_is_given_up_leaves_no_wish() {
    let cloud = Cloud::start().await;
    let (id, volume) = cloud.rooted().await;
    let wished = async || cloud.engine.volume_specs(cloud.node).await.unwrap().0.remove(0).refill;
    cloud.engine.server_rebuild(&again(&cloud.member), id, rebuild(cloud.image, true)).await.unwrap();
    let admin = again(&arcus_types::OpCtx::system());
    cloud.engine.server_reset_state(&admin, id, true).await.unwrap();
    assert_eq!((wished().await, cloud.status(volume).await), (None, VolumeStatus::InUse));
    assert_eq!(cloud.spec(id).await.unwrap().power, Power::Running);
    cloud.play_volumes(&[]).await;

    cloud.engine.server_rebuild(&again(&cloud.member), id, rebuild(cloud.image, true)).await.unwrap();
    cloud.servers_said().await;
    let fault = Fault { message: "The disk is full.".into(), details: String::new(), transient: false };
    cloud.volume_said(volume, VolumeState::Failed(fault)).await;
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.task), (ServerState::Error, None));
    assert!(server.fault.unwrap().message.ends_with("The disk is full."));
    assert_eq!((wished().await, cloud.status(volume).await), (None, VolumeStatus::Error));

    // Another try is the way out, and a removal in its middle takes the volume along.
    cloud.engine.server_rebuild(&again(&cloud.member), id, rebuild(cloud.image, true)).await.unwrap();
    cloud.engine.server_delete(&again(&cloud.member), id).await.unwrap();
    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.status(volume).await, VolumeStatus::Deleting);
}

#[tokio::test]
async fn a_rebuild_without_a_new_volume_keeps_what_it_holds() {
    let cloud = Cloud::start().await;
    let (id, volume) = cloud.rooted().await;
    let other = cloud.another_image(&[]).await;
    let refused = cloud.engine.server_rebuild(&again(&cloud.member), id, rebuild(other, false)).await;
    assert!(refused.unwrap_err().to_string().contains("different image for a volume-backed server"));
    let before = cloud.spec(id).await.unwrap().restarts.count;
    cloud.engine.server_rebuild(&again(&cloud.member), id, rebuild(cloud.image, false)).await.unwrap();
    assert_eq!(cloud.status(volume).await, VolumeStatus::InUse);
    assert_eq!(cloud.spec(id).await.unwrap().restarts.count, before + 1);
    cloud.servers_said().await;
    assert_eq!(cloud.server(id).await.state, ServerState::Active);

    let new = VolumeSnapshotNew {
        volume_id: volume,
        name: None,
        description: None,
        metadata: Default::default(),
        force: true,
        group_snapshot_id: None,
    };
    cloud.engine.volume_snapshot_create(&again(&cloud.member), &new).await.unwrap();
    let refused = cloud.engine.server_rebuild(&again(&cloud.member), id, rebuild(cloud.image, true)).await;
    assert!(refused.unwrap_err().to_string().contains("has snapshots"));
}

#[tokio::test]
async fn a_shelved_server_comes_back_to_its_volume_without_an_image() {
    let cloud = Cloud::start().await;
    let (id, volume) = cloud.rooted().await;
    cloud.engine.server_shelve(&again(&cloud.member), id).await.unwrap();
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::Shelving));
    cloud.play_volumes(&[]).await;
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.task), (ServerState::Shelved, Some(ServerTask::ShelvingOffloading)));
    cloud.play_volumes(&[]).await;
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.node_id), (ServerState::ShelvedOffloaded, None));
    assert_eq!(cloud.status(volume).await, VolumeStatus::InUse, "it stays the server's");
    assert_eq!(cloud.node_used().await, (0, 0, 2), "only the volume has room there");
    cloud.engine.server_unshelve(&again(&cloud.member), id, &UnshelveWish::default()).await.unwrap();
    let spec = cloud.spec(id).await.unwrap();
    assert!(spec.root_disk.is_none());
    assert_eq!(spec.volumes.iter().map(|v| v.volume_id).collect::<Vec<_>>(), [volume]);
    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.server(id).await.state, ServerState::Active);
    assert_eq!(cloud.status(volume).await, VolumeStatus::InUse);
}

#[tokio::test]
async fn a_rescue_needs_an_image_for_it_and_keeps_the_volume() {
    let cloud = Cloud::start().await;
    let (id, volume) = cloud.rooted().await;
    let rescue = async |image, with| cloud.engine.server_rescue(&again(&cloud.member), id, image, None, with).await;
    let refused = rescue(None, true).await.unwrap_err().to_string();
    assert!(refused.contains("Cannot rescue a volume-backed instance"), "{refused}");
    let fit = cloud.another_image(&[("hw_rescue_device", "disk"), ("hw_rescue_bus", "virtio")]).await;
    let tape = cloud.another_image(&[("hw_rescue_device", "tape"), ("hw_rescue_bus", "virtio")]).await;
    assert!(rescue(Some(fit), false).await.is_err(), "not before 2.87");
    rescue(Some(fit), true).await.unwrap();
    let spec = cloud.spec(id).await.unwrap();
    assert_eq!(spec.rescue.as_ref().map(|r| r.image.id), Some(fit));
    assert_eq!(spec.volumes.iter().map(|v| v.volume_id).collect::<Vec<_>>(), [volume]);
    assert!(spec.root_disk.is_none());
    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.server(id).await.state, ServerState::Rescued);
    cloud.engine.server_unrescue(&again(&cloud.member), id).await.unwrap();
    assert_eq!(cloud.spec(id).await.unwrap().rescue, None);
    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.server(id).await.state, ServerState::Active);
    assert!(rescue(Some(tape), true).await.unwrap_err().to_string().contains("'tape'"));
}

#[tokio::test]
async fn a_volume_is_in_use_only_when_its_server_is_no_longer_prepared() {
    let cloud = Cloud::start().await;
    let disks = vec![disk(DiskSource::Image(cloud.image), Some(0), Some(2))];
    let id = cloud.create(ServerNew { image_id: None, disks, ..cloud.wish() }).await.unwrap().servers[0].id;
    let volume = cloud.engine.server_show(&cloud.member, id, false).await.unwrap().volumes[0].volume_id;
    let spec = cloud.spec(id).await.unwrap();
    let said = async |observed, state| {
        let server = ServerReport { observed, volumes: vec![volume], ..as_wished(&spec) };
        let volume = VolumeReport { id: volume, version: 1, state, size_bytes: 2 << 30, snapshots: Vec::new() };
        let report =
            NodeReport { spec_generation: 99, servers: vec![server], volumes: vec![volume], ..NodeReport::default() };
        cloud.engine.servers_observed(cloud.node, &report).await.unwrap();
        cloud.engine.volumes_observed(cloud.node, &report).await.unwrap();
    };
    let making = VolumeState::Preparing { step: "copying".into(), progress_percent: 5 };
    said(Observed::Preparing, making.clone()).await;
    let record = cloud.engine.store().volume_get(volume).await.unwrap().unwrap();
    assert_eq!((record.status, record.made), (VolumeStatus::Creating, false));
    said(Observed::Running, VolumeState::Ready).await;
    assert_eq!(cloud.status(volume).await, VolumeStatus::InUse);
}
