//! Servers with volumes: given, taken, booted from, and what is left when they go.

mod roots;

use super::{Cloud, again, as_wished};
use arcus_engine::servers::{AttachWish, DiskSource, DiskWish, ServerNew};
use arcus_engine::volume_snapshots::VolumeSnapshotNew;
use arcus_engine::volumes::VolumeNew;
use arcus_store::QuotaResource;
use arcus_types::agent::{Fault, NodeReport, VolumeReport, VolumeSource, VolumeState};
use arcus_types::servers::ServerState;
use arcus_types::volumes::{VolumeSnapshotStatus, VolumeStatus};
use arcus_types::{ServerId, VolumeId};

impl Cloud {
    /// The node does all that it is told, but guests keep these volumes.
    async fn play_volumes(&self, kept: &[(ServerId, VolumeId)]) {
        let generation = self.engine.store().node_spec_generation(self.node).await.unwrap().unwrap();
        let (specs, _) = self.engine.server_specs(self.node).await.unwrap();
        let (volumes, _) = self.engine.volume_specs(self.node).await.unwrap();
        let volume = |spec: &arcus_types::agent::VolumeSpec| VolumeReport {
            id: spec.id,
            version: spec.version,
            state: VolumeState::Ready,
            size_bytes: spec.size_bytes,
            snapshots: Vec::new(),
        };
        let mut report = NodeReport {
            spec_generation: generation,
            servers: specs.iter().map(as_wished).collect(),
            volumes: volumes.iter().map(volume).collect(),
            ..NodeReport::default()
        };
        for (server, volume) in kept {
            for said in report.servers.iter_mut().filter(|s| s.id == *server) {
                said.volumes.push(*volume);
            }
        }
        self.engine.servers_observed(self.node, &report).await.unwrap();
        self.engine.volumes_observed(self.node, &report).await.unwrap();
    }

    async fn volume_used(&self) -> Vec<i64> {
        let all = [QuotaResource::Volumes, QuotaResource::VolumeGigabytes];
        self.engine.store().quota_list(self.project_id, &all).await.unwrap().iter().map(|q| q.used).collect()
    }

    async fn status(&self, id: VolumeId) -> VolumeStatus {
        self.engine.store().volume_get(id).await.unwrap().unwrap().status
    }
}

fn disk(source: DiskSource, boot_index: Option<u32>, size_gib: Option<u64>) -> DiskWish {
    DiskWish { source, boot_index, size_gib, volume_type: None, delete_on_termination: true, device: None, tag: None }
}

#[tokio::test]
async fn a_volume_is_free_again_only_when_the_guest_has_let_it_go() {
    let cloud = Cloud::start().await;
    let server = cloud.running().await;
    let new = VolumeNew { size_gib: Some(3), ..VolumeNew::default() };
    let volume = cloud.engine.volume_create(&again(&cloud.member), &new).await.unwrap().id;
    assert_eq!(cloud.status(volume).await, VolumeStatus::Creating);
    let early = cloud.engine.server_volume_attach(&again(&cloud.member), server, volume, &AttachWish::default()).await;
    assert!(early.unwrap_err().to_string().contains("status must be 'available'"));
    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.status(volume).await, VolumeStatus::Available);
    assert_eq!(cloud.node_used().await, (1, 192, 4));

    let wish = AttachWish::default();
    let made = cloud.engine.server_volume_attach(&again(&cloud.member), server, volume, &wish).await.unwrap();
    assert_eq!(made.device.as_deref(), Some("/dev/vdb"));
    assert_eq!(cloud.status(volume).await, VolumeStatus::Attaching);
    assert_eq!(cloud.spec(server).await.unwrap().volumes[0].device, "vdb");
    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.status(volume).await, VolumeStatus::InUse);
    let used = cloud.engine.volume_delete(&again(&cloud.member), volume, false, false).await;
    assert!(used.unwrap_err().to_string().starts_with("Invalid volume"));

    cloud.engine.server_volume_detach(&again(&cloud.member), server, volume, false).await.unwrap();
    assert!(cloud.spec(server).await.unwrap().volumes.is_empty());
    cloud.play_volumes(&[(server, volume)]).await;
    assert_eq!(cloud.status(volume).await, VolumeStatus::Detaching, "the guest still has it");
    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.status(volume).await, VolumeStatus::Available);
    cloud.engine.volume_delete(&again(&cloud.member), volume, false, false).await.unwrap();
    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.engine.store().volume_get(volume).await.unwrap(), None);
    assert_eq!(cloud.volume_used().await, [0, 0]);
    assert_eq!(cloud.node_used().await, (1, 192, 1));
}

#[tokio::test]
async fn a_server_boots_from_a_volume_that_goes_with_it() {
    let cloud = Cloud::start().await;
    let disks = vec![
        disk(DiskSource::Image(cloud.image), Some(0), Some(2)),
        DiskWish { delete_on_termination: false, ..disk(DiskSource::Blank, None, Some(5)) },
    ];
    let id = cloud.create(ServerNew { image_id: None, disks, ..cloud.wish() }).await.unwrap().servers[0].id;
    assert_eq!(cloud.node_used().await, (1, 192, 7), "the volumes, and no disk of its own");
    assert_eq!(cloud.volume_used().await, [2, 7]);
    let spec = cloud.spec(id).await.unwrap();
    assert!(spec.root_disk.is_none());
    let boots: Vec<_> = spec.volumes.iter().map(|v| (v.boot_index, v.device.as_str())).collect();
    assert_eq!(boots, [(Some(0), "vda"), (None, "vdb")]);
    let (volumes, _) = cloud.engine.volume_specs(cloud.node).await.unwrap();
    assert!(volumes.iter().any(|v| matches!(&v.source, VolumeSource::Image(image) if image.id == cloud.image)));

    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.server(id).await.state, ServerState::Active);
    let view = cloud.engine.server_show(&cloud.member, id, false).await.unwrap();
    assert!(view.server.details.volume_root);
    let kept = view.volumes.iter().find(|a| !a.delete_on_termination).unwrap().volume_id;
    for attachment in &view.volumes {
        assert_eq!(cloud.status(attachment.volume_id).await, VolumeStatus::InUse);
    }
    let root = view.volumes.iter().find(|a| a.boot_index == Some(0)).unwrap().volume_id;
    assert!(cloud.engine.server_volume_detach(&again(&cloud.member), id, root, false).await.is_err());

    cloud.engine.server_delete(&again(&cloud.member), id).await.unwrap();
    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.status(root).await, VolumeStatus::Deleting);
    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.engine.store().volume_get(root).await.unwrap(), None);
    assert_eq!(cloud.status(kept).await, VolumeStatus::Available);
    assert_eq!(cloud.node_used().await, (0, 0, 5));
}

#[tokio::test]
async fn what_no_server_can_boot_from_is_refused() {
    let cloud = Cloud::start().await;
    let blank = || disk(DiskSource::Blank, None, Some(1));
    let nothing = VolumeId::random();
    for (image_id, disks, says) in [
        (None, vec![], "Boot sequence"),
        (None, vec![blank()], "Boot sequence"),
        (Some(cloud.image), vec![disk(DiskSource::Blank, Some(0), Some(1))], "Boot sequence"),
        (Some(cloud.image), vec![disk(DiskSource::Blank, None, None)], "non-zero size"),
        (None, vec![disk(DiskSource::Image(cloud.image), Some(0), None)], "non-zero size"),
        (None, vec![disk(DiskSource::Volume(nothing), Some(0), None)], "failed to get volume"),
    ] {
        let refused = cloud.create(ServerNew { image_id, disks, ..cloud.wish() }).await;
        let Err(error) = refused else { panic!("not refused: {says}") };
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(cloud.volume_used().await, [0, 0]);
}

#[tokio::test]
async fn a_volume_that_its_node_lost_is_in_error_and_says_so() {
    let cloud = Cloud::start().await;
    let new = VolumeNew { size_gib: Some(3), ..VolumeNew::default() };
    let volume = cloud.engine.volume_create(&again(&cloud.member), &new).await.unwrap().id;
    let wish = async || cloud.engine.volume_specs(cloud.node).await.unwrap().0.remove(0);
    assert!(!wish().await.made);
    cloud.play_volumes(&[]).await;
    assert!(wish().await.made, "what was reported once is never made anew");
    let said = |transient: bool| {
        let fault = Fault { message: "The volume's data is gone.".into(), details: String::new(), transient };
        let state = VolumeState::Failed(fault);
        let report = VolumeReport { id: volume, version: 9, state, size_bytes: 0, snapshots: Vec::new() };
        NodeReport { spec_generation: 9, volumes: vec![report], ..NodeReport::default() }
    };
    cloud.engine.volumes_observed(cloud.node, &said(true)).await.unwrap();
    assert_eq!(cloud.status(volume).await, VolumeStatus::Available, "that may pass");
    cloud.engine.volumes_observed(cloud.node, &said(false)).await.unwrap();
    assert_eq!(cloud.status(volume).await, VolumeStatus::Error);
    let (messages, _) = cloud.engine.volume_message_list(&cloud.member, None, None, 5).await.unwrap();
    assert_eq!(messages[0].fault.message, "The volume's data is gone.");
    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.status(volume).await, VolumeStatus::Available, "its file was brought back");
    cloud.engine.volume_delete(&again(&cloud.member), volume, false, false).await.unwrap();
}

#[tokio::test]
async fn a_volume_is_reverted_once_and_the_wish_is_withdrawn() {
    let cloud = Cloud::start().await;
    let new = VolumeNew { size_gib: Some(3), ..VolumeNew::default() };
    let volume = cloud.engine.volume_create(&again(&cloud.member), &new).await.unwrap().id;
    cloud.play_volumes(&[]).await;
    let new = VolumeSnapshotNew {
        volume_id: volume,
        name: None,
        description: None,
        metadata: Default::default(),
        force: false,
        group_snapshot_id: None,
    };
    let snapshot = cloud.engine.volume_snapshot_create(&again(&cloud.member), &new).await.unwrap().id;
    let early = cloud.engine.volume_revert(&again(&cloud.member), volume, snapshot).await;
    assert!(early.unwrap_err().to_string().contains("must be 'available'"), "the snapshot is not made yet");
    let admin = again(&arcus_types::OpCtx::system());
    let available = VolumeSnapshotStatus::Available;
    cloud.engine.volume_snapshot_status_reset(&admin, snapshot, available).await.unwrap();
    cloud.engine.volume_revert(&again(&cloud.member), volume, snapshot).await.unwrap();
    assert_eq!(cloud.status(volume).await, VolumeStatus::Reverting);
    let spec = cloud.engine.volume_specs(cloud.node).await.unwrap().0.remove(0);
    assert_eq!(spec.refill.as_ref().map(|refill| refill.number), Some(spec.version));
    assert!(cloud.engine.volume_snapshot_delete(&again(&cloud.member), snapshot, false).await.is_err());
    cloud.play_volumes(&[]).await;
    assert_eq!(cloud.status(volume).await, VolumeStatus::Available);
    assert_eq!(cloud.engine.volume_specs(cloud.node).await.unwrap().0.remove(0).refill, None);
}
