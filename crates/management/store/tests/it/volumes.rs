//! Volumes, their snapshots and attachments, on both databases.

use arcus_store::testing::{Postgres, sqlite};
use arcus_store::{
    Store, StoreError, Tx, TypeQuotaKind, Volume, VolumeAttachment, VolumeAttachmentFilter, VolumeCounts,
    VolumeDetails, VolumeFilter, VolumeGroup, VolumeGroupFilter, VolumeGroupSnapshot, VolumeGroupType, VolumeOrigin,
    VolumeSnapshot, VolumeSnapshotFilter, VolumeSnapshotSort, VolumeSort,
};
use arcus_types::volumes::{AttachmentStatus, VolumeGroupStatus, VolumeSnapshotStatus, VolumeStatus};
use arcus_types::{
    AttachmentId, ProjectId, ServerId, Timestamp, UserId, VolumeGroupId, VolumeGroupSnapshotId, VolumeGroupTypeId,
    VolumeId, VolumeSnapshotId, VolumeTypeId,
};
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
        group_id: None,
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
        group_snapshot_id: None,
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

fn group(project_id: ProjectId, kind: &VolumeGroupType, of: VolumeTypeId) -> VolumeGroup {
    VolumeGroup {
        id: VolumeGroupId::random(),
        project_id,
        user_id: UserId::new(),
        name: Some("all".into()),
        description: None,
        status: VolumeGroupStatus::Creating,
        group_type_id: kind.id,
        volume_types: vec![of],
        availability_zone: "nova".into(),
        group_snapshot_id: None,
        source_group_id: None,
        created_at: Timestamp(50),
        updated_at: None,
    }
}

#[tokio::test]
async fn a_group_waits_for_its_volumes_and_goes_with_the_last() {
    both(async |store| {
        let t = tx(&store).await;
        let of = t.volume_type_default().await.unwrap().id;
        let kind = VolumeGroupType {
            id: VolumeGroupTypeId::random(),
            name: "plain".into(),
            description: None,
            is_public: true,
            specs: BTreeMap::new(),
            created_at: Timestamp(1),
            updated_at: None,
        };
        t.volume_group_type_insert(&kind).await.unwrap();
        let mut group = group(ProjectId::new(), &kind, of);
        t.volume_group_insert(&group).await.unwrap();
        let mut data = volume(group.project_id, of, "data", 100);
        data.group_id = Some(group.id);
        t.volume_insert(&data).await.unwrap();
        assert_eq!(t.volume_group_settle(group.id).await.unwrap(), None);
        assert_eq!(t.volume_group_get(group.id).await.unwrap(), Some(group.clone()), "its volume is being made");
        data.status = VolumeStatus::Available;
        t.volume_update(&mut data).await.unwrap();
        t.volume_group_settle(group.id).await.unwrap();
        let now = t.volume_group_get(group.id).await.unwrap().unwrap();
        assert_eq!(now.status, VolumeGroupStatus::Available);

        let whole = VolumeGroupSnapshot {
            id: VolumeGroupSnapshotId::random(),
            group_id: group.id,
            group_type_id: kind.id,
            project_id: group.project_id,
            user_id: group.user_id,
            name: None,
            description: None,
            status: VolumeGroupStatus::Creating,
            created_at: Timestamp(60),
            updated_at: None,
        };
        t.volume_group_snapshot_insert(&whole).await.unwrap();
        let mut part = snapshot(&data, "part", 70);
        part.group_snapshot_id = Some(whole.id);
        t.volume_snapshot_insert(&part).await.unwrap();
        assert_eq!(t.volume_snapshots_of_group(whole.id).await.unwrap(), vec![part.clone()]);
        part.status = VolumeSnapshotStatus::Available;
        t.volume_snapshot_update(&mut part).await.unwrap();
        t.volume_group_snapshot_settle(whole.id).await.unwrap();
        let of_group = VolumeGroupFilter { group_id: Some(group.id), limit: 5, ..VolumeGroupFilter::default() };
        let listed = t.volume_group_snapshot_list(&of_group).await.unwrap();
        assert_eq!(listed.iter().map(|s| s.status).collect::<Vec<_>>(), [VolumeGroupStatus::Available]);
        t.volume_group_snapshot_set(whole.id, VolumeGroupStatus::Deleting).await.unwrap();
        t.volume_snapshot_delete(part.id).await.unwrap();
        t.volume_group_snapshot_settle(whole.id).await.unwrap();
        assert_eq!(t.volume_group_snapshot_get(whole.id).await.unwrap(), None);

        group.status = VolumeGroupStatus::Deleting;
        t.volume_group_update(&group).await.unwrap();
        assert_eq!(t.volume_group_settle(group.id).await.unwrap(), None, "a volume is left");
        t.volume_delete(data.id).await.unwrap();
        assert!(t.volume_group_settle(group.id).await.unwrap().is_some());
        assert_eq!(t.volume_group_get(group.id).await.unwrap(), None);
        assert!(t.volume_group_type_delete(kind.id).await.unwrap());
        t.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_type_has_quotas_of_its_own() {
    both(async |store| {
        let project = ProjectId::new();
        let t = tx(&store).await;
        let kind = t.volume_type_default().await.unwrap().id;
        let volumes = TypeQuotaKind::Volumes;
        assert!(t.type_quota_claim(project, volumes, kind, 3).await.unwrap(), "there is no limit at first");
        t.type_quota_set(None, volumes, kind, Some(4)).await.unwrap();
        assert!(t.type_quota_claim(project, volumes, kind, 1).await.unwrap());
        assert!(!t.type_quota_claim(project, volumes, kind, 1).await.unwrap());
        t.type_quota_set(Some(project), volumes, kind, Some(9)).await.unwrap();
        assert!(t.type_quota_claim(project, volumes, kind, 1).await.unwrap());
        t.type_quota_release(project, volumes, kind, 2).await.unwrap();
        let shown = t.type_quota_list(project).await.unwrap();
        let mine = shown.iter().find(|q| q.kind == volumes).unwrap();
        assert_eq!((mine.cap, mine.used, mine.type_name.as_str()), (9, 3, "dir"));
        let everybody = t.type_quota_defaults().await.unwrap();
        assert_eq!(everybody.iter().find(|q| q.kind == volumes).unwrap().cap, 4);
        t.type_quota_reset(project).await.unwrap();
        assert_eq!(t.type_quota_list(project).await.unwrap().iter().find(|q| q.kind == volumes).unwrap().cap, 4);
        t.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_summary_tells_each_pair_of_metadata_once() {
    both(async |store| {
        let project = ProjectId::new();
        let t = tx(&store).await;
        let kind = t.volume_type_default().await.unwrap().id;
        for (name, value) in [("one", "a"), ("two", "b"), ("three", "a")] {
            let mut one = volume(project, kind, name, 100);
            one.metadata = [("k".to_owned(), value.to_owned())].into();
            t.volume_insert(&one).await.unwrap();
        }
        t.volume_insert(&volume(ProjectId::new(), kind, "foreign", 100)).await.unwrap();
        t.commit().await.unwrap();
        let mine = VolumeFilter { project_id: Some(project), ..VolumeFilter::default() };
        let pairs = store.volume_metadata_pairs(&mine, 10).await.unwrap();
        assert_eq!(pairs, [("k".to_owned(), "a".to_owned()), ("k".to_owned(), "b".to_owned())]);
    })
    .await;
}
