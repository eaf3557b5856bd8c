//! Volumes, their snapshots and attachments, on both databases.

use arcus_store::testing::{Postgres, sqlite};
use arcus_store::{
    Store, StoreError, Tx, Volume, VolumeAttachment, VolumeAttachmentFilter, VolumeCounts, VolumeDetails, VolumeFilter,
    VolumeOrigin, VolumeSnapshot, VolumeSnapshotFilter, VolumeSnapshotSort, VolumeSort,
};
use arcus_types::volumes::{AttachmentStatus, VolumeSnapshotStatus, VolumeStatus};
use arcus_types::{AttachmentId, ProjectId, ServerId, Timestamp, UserId, VolumeId, VolumeSnapshotId, VolumeTypeId};
use std::collections::BTreeMap;

fn volume(project_id: ProjectId, volume_type_id: VolumeTypeId, name: &str, created: i64) -> Volume {
    Volume {
        id: VolumeId::random(),
        project_id,
        user_id: UserId::new(),
        name: Some(name.into()),
        description: None,
        status: VolumeStatus::Creating,
        status_before: None,
        deadline: Some(Timestamp(created + 10)),
        size_gib: 2,
        volume_type_id,
        availability_zone: "nova".into(),
        node_id: None,
        node_generation: 0,
        version: 1,
        bootable: false,
        read_only: false,
        multiattach: false,
        made: false,
        source: VolumeOrigin::Blank,
        source_volume_id: None,
        source_snapshot_id: None,
        metadata: BTreeMap::new(),
        image_metadata: None,
        fault: None,
        details: VolumeDetails::default(),
        generation: 1,
        created_at: Timestamp(created),
        updated_at: None,
        launched_at: None,
    }
}

fn snapshot(of: &Volume, name: &str, created: i64) -> VolumeSnapshot {
    VolumeSnapshot {
        id: VolumeSnapshotId::random(),
        volume_id: of.id,
        project_id: of.project_id,
        user_id: of.user_id,
        name: Some(name.into()),
        description: None,
        status: VolumeSnapshotStatus::Creating,
        deadline: Some(Timestamp(created + 10)),
        size_gib: of.size_gib,
        node_generation: 0,
        metadata: BTreeMap::new(),
        fault: None,
        generation: 1,
        created_at: Timestamp(created),
        updated_at: None,
    }
}

fn attachment(of: &Volume, server_id: ServerId) -> VolumeAttachment {
    VolumeAttachment {
        id: AttachmentId::random(),
        volume_id: of.id,
        project_id: of.project_id,
        user_id: of.user_id,
        server_id: Some(server_id),
        by_server: true,
        status: AttachmentStatus::Attaching,
        deadline: None,
        read_only: Some(false),
        device: Some("/dev/vdb".into()),
        host_name: None,
        connector: serde_json::json!({}),
        bdm_id: uuid::Uuid::new_v4(),
        boot_index: Some(0),
        tag: None,
        delete_on_termination: true,
        node_generation: 1,
        generation: 1,
        created_at: Timestamp(1),
        updated_at: None,
        attached_at: None,
    }
}

async fn tx(store: &Store) -> Tx {
    store.begin_unaudited().await.unwrap()
}

async fn both(test: impl AsyncFn(Store)) {
    let (store, _folder) = sqlite().await;
    test(store).await;
    let postgres = Postgres::start();
    test(postgres.store().await).await;
}

#[tokio::test]
async fn a_volume_comes_back_as_it_went_in_and_a_stale_write_is_caught() {
    both(async |store| {
        let t = tx(&store).await;
        let kind = t.volume_type_default().await.unwrap();
        assert_eq!(t.volume_type_default().await.unwrap().id, kind.id, "made once");
        let mut written = volume(ProjectId::new(), kind.id, "data", 100);
        t.volume_insert(&written).await.unwrap();
        t.commit().await.unwrap();
        assert_eq!(store.volume_get(written.id).await.unwrap(), Some(written.clone()));
        let mut stale = written.clone();
        let t = tx(&store).await;
        written.status = VolumeStatus::Available;
        written.deadline = None;
        written.image_metadata = Some(BTreeMap::from([("os".into(), "linux".into())]));
        t.volume_update(&mut written).await.unwrap();
        assert!(matches!(t.volume_update(&mut stale).await, Err(StoreError::Stale(_))));
        t.commit().await.unwrap();
        assert_eq!(store.volume_get(written.id).await.unwrap(), Some(written));
    })
    .await;
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    both(async |store| {
        let (mine, theirs) = (ProjectId::new(), ProjectId::new());
        let t = tx(&store).await;
        let kind = t.volume_type_default().await.unwrap().id;
        let mut one = volume(mine, kind, "one", 100);
        one.metadata = BTreeMap::from([("a\"b".into(), "c,d".into()), ("key".into(), "value".into())]);
        let mut two = volume(mine, kind, "two", 200);
        two.status = VolumeStatus::Available;
        two.bootable = true;
        two.metadata = BTreeMap::from([("note".into(), "\"key\":\"value\"".into())]);
        let mut three = volume(mine, kind, "three", 300);
        three.name = None;
        three.size_gib = 5;
        for v in [&one, &two, &three, &volume(theirs, kind, "other", 400)] {
            t.volume_insert(v).await.unwrap();
        }
        t.commit().await.unwrap();
        let base = VolumeFilter { project_id: Some(mine), limit: 10, ..VolumeFilter::default() };
        let ids = async |filter: VolumeFilter| {
            store.volume_list(&filter).await.unwrap().into_iter().map(|v| v.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(base.clone()).await, [three.id, two.id, one.id], "newest first");
        assert_eq!(ids(VolumeFilter { name: Some("two".into()), ..base.clone() }).await, [two.id]);
        assert_eq!(ids(VolumeFilter { name_like: Some("o".into()), ..base.clone() }).await, [two.id, one.id]);
        assert_eq!(ids(VolumeFilter { name_like: Some("O".into()), ..base.clone() }).await, []);
        assert_eq!(ids(VolumeFilter { statuses: Some(vec![]), ..base.clone() }).await, []);
        assert_eq!(ids(VolumeFilter { bootable: Some(true), ..base.clone() }).await, [two.id]);
        let pairs = vec![("key".into(), "value".into()), ("a\"b".into(), "c,d".into())];
        assert_eq!(ids(VolumeFilter { metadata: pairs, ..base.clone() }).await, [one.id], "values are no pairs");
        let sort = vec![(VolumeSort::Name, false)];
        let sorted = VolumeFilter { sort, ..base.clone() };
        assert_eq!(ids(sorted.clone()).await, [three.id, one.id, two.id]);
        assert_eq!(ids(VolumeFilter { marker: Some(three.id), ..sorted.clone() }).await, [one.id, two.id]);
        assert_eq!(ids(VolumeFilter { offset: 2, ..sorted.clone() }).await, [two.id]);
        assert_eq!(ids(VolumeFilter { limit: 1, ..sorted }).await.len(), 2, "one more tells that there is more");
        let counts = store.volume_count(&base).await.unwrap();
        assert_eq!(counts, VolumeCounts { count: 3, gibs: 9 });
        assert_eq!(store.volume_list_overdue(Timestamp(215), 10).await.unwrap(), [one.id, two.id]);
    })
    .await;
}

#[tokio::test]
async fn snapshots_keep_their_volume_and_attachments_go_with_it() {
    both(async |store| {
        let server = ServerId::random();
        let t = tx(&store).await;
        let kind = t.volume_type_default().await.unwrap().id;
        let of = volume(ProjectId::new(), kind, "data", 100);
        t.volume_insert(&of).await.unwrap();
        let (first, mut second) = (snapshot(&of, "b", 100), snapshot(&of, "a", 200));
        t.volume_snapshot_insert(&first).await.unwrap();
        t.volume_snapshot_insert(&second).await.unwrap();
        let mut on = attachment(&of, server);
        t.volume_attachment_insert(&on).await.unwrap();
        on.status = AttachmentStatus::Attached;
        t.volume_attachment_update(&mut on).await.unwrap();
        second.status = VolumeSnapshotStatus::Available;
        t.volume_snapshot_update(&mut second).await.unwrap();
        let mut made = volume(of.project_id, kind, "copy", 300);
        made.source_snapshot_id = Some(second.id);
        t.volume_insert(&made).await.unwrap();
        t.commit().await.unwrap();

        assert_eq!(store.volume_attachment_get(on.id).await.unwrap(), Some(on.clone()));
        assert_eq!(store.volume_attachments_by_servers(&[server]).await.unwrap(), vec![on.clone()]);
        let filter = VolumeAttachmentFilter { volume_id: Some(of.id), limit: 5, ..VolumeAttachmentFilter::default() };
        assert_eq!(store.volume_attachment_list(&filter).await.unwrap(), vec![on]);
        let sort = vec![(VolumeSnapshotSort::Name, false)];
        let filter = VolumeSnapshotFilter { volume_id: Some(of.id), sort, limit: 5, ..VolumeSnapshotFilter::default() };
        let listed = store.volume_snapshot_list(&filter).await.unwrap();
        assert_eq!(listed, vec![second.clone(), first.clone()]);
        assert_eq!(store.volume_snapshot_count(&filter).await.unwrap(), 2);
        assert_eq!(store.volume_count_made_of(of.id, Some(second.id)).await.unwrap(), 1);

        let t = tx(&store).await;
        assert!(matches!(t.volume_delete(of.id).await, Err(StoreError::Referenced(_))));
        drop(t);
        let t = tx(&store).await;
        t.volume_snapshot_delete(first.id).await.unwrap();
        t.volume_snapshot_delete(second.id).await.unwrap();
        t.volume_delete(of.id).await.unwrap();
        t.commit().await.unwrap();
        assert_eq!(store.volume_attachments_of(&[of.id]).await.unwrap(), vec![]);
        assert_eq!(store.volume_get(made.id).await.unwrap().unwrap().source_snapshot_id, None);
    })
    .await;
}
