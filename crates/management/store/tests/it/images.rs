//! Images.

use arcus_store::testing::{Postgres, sqlite};
use arcus_store::{
    AuditEntry, Image, ImageContent, ImageFilter, ImageImport, ImageMember, ImageSortKey, ImageTotals, ImageUpload,
    ImageVisible, Store, StoreError, TimeTest, Tx,
};
use arcus_types::agent::DiskFormat;
use arcus_types::images::{ContainerFormat, ImageStatus, MemberStatus, Visibility};
use arcus_types::policy::image::IMAGE_CREATE;
use arcus_types::{ImageId, NodeId, OpCtx, ProjectId, Timestamp};
use uuid::Uuid;

fn image(project_id: ProjectId, name: &str) -> Image {
    let now = Timestamp::now();
    Image {
        id: ImageId::new(),
        project_id,
        name: Some(name.parse().unwrap()),
        status: ImageStatus::Queued,
        visibility: Visibility::Shared,
        protected: false,
        hidden: false,
        disk_format: Some(DiskFormat::Qcow2),
        container_format: Some(ContainerFormat::Bare),
        min_disk_gib: 1,
        min_ram_mib: 64,
        content: None,
        snapshot_node_id: None,
        tags: ["x", "y"].map(str::to_owned).into(),
        properties: [("os".to_owned(), "debian".to_owned())].into(),
        generation: 1,
        created_at: now,
        updated_at: now,
    }
}

async fn commit(tx: Tx) {
    let detail = serde_json::json!({});
    let entry =
        AuditEntry { action: IMAGE_CREATE, kind: "image", id: String::new(), project_id: None, detail: &detail };
    tx.audit(entry).await.unwrap();
    tx.commit().await.unwrap();
}

async fn insert(store: &Store, image: &Image) {
    let tx = store.begin(&OpCtx::system()).await.unwrap();
    tx.image_insert(image).await.unwrap();
    commit(tx).await;
}

async fn a_record_is_read_as_it_was_written_and_changes_once(store: &Store) {
    let project_id = ProjectId::new();
    let mut image = image(project_id, "first");
    image.snapshot_node_id = Some(NodeId::new());
    insert(store, &image).await;
    let was = store.image_get(image.id).await.unwrap().unwrap();
    assert_eq!(was, image);
    let tx = store.begin(&OpCtx::system()).await.unwrap();
    assert!(matches!(tx.image_insert(&image).await, Err(StoreError::Duplicate(_))));
    drop(tx);

    let mut new = was.clone();
    new.name = None;
    new.tags = ["z".to_owned()].into();
    new.properties.clear();
    new.visibility = Visibility::Community;
    let tx = store.begin(&OpCtx::system()).await.unwrap();
    tx.image_update(&was, &new).await.unwrap();
    assert!(matches!(tx.image_update(&was, &new).await, Err(StoreError::Stale(_))));
    commit(tx).await;
    let read = store.image_get(image.id).await.unwrap().unwrap();
    assert_eq!((&read.name, &read.tags, &read.properties), (&new.name, &new.tags, &new.properties));
    assert_eq!((read.visibility, read.generation), (Visibility::Community, 2));

    let tx = store.begin(&OpCtx::system()).await.unwrap();
    tx.image_tag_add(image.id, "z").await.unwrap();
    tx.image_tag_add(image.id, "w").await.unwrap();
    assert!(tx.image_tag_delete(image.id, "z").await.unwrap());
    assert!(!tx.image_tag_delete(image.id, "z").await.unwrap());
    assert!(tx.image_snapshot_delete(image.id).await.unwrap());
    assert!(!tx.image_delete(image.id).await.unwrap());
    commit(tx).await;
    assert_eq!(store.image_get(image.id).await.unwrap(), None);
}

async fn only_the_upload_that_began_may_end(store: &Store) {
    let image = image(ProjectId::new(), "upload");
    insert(store, &image).await;
    let content = ImageContent { size_bytes: 7, virtual_size_bytes: 1 << 30, md5: "m".into(), sha256: "s".into() };
    let upload = ImageUpload { image_id: image.id, project_id: image.project_id, upload_id: Uuid::new_v4() };
    let other = ImageUpload { upload_id: Uuid::new_v4(), ..upload };
    let tx = store.begin(&OpCtx::system()).await.unwrap();
    assert!(tx.image_upload_begin(image.id, upload.upload_id, ImageStatus::Uploading).await.unwrap());
    assert!(!tx.image_upload_begin(image.id, other.upload_id, ImageStatus::Saving).await.unwrap());
    assert!(!tx.image_upload_end(&other, &content, 0, ImageStatus::Active).await.unwrap());
    assert!(!tx.image_upload_abort(&other).await.unwrap());
    assert_eq!(tx.image_uploads().await.unwrap(), [upload]);
    assert!(tx.image_upload_abort(&upload).await.unwrap());
    assert!(tx.image_upload_begin(image.id, other.upload_id, ImageStatus::Saving).await.unwrap());
    assert!(tx.images_with_content(&[image.id]).await.unwrap().is_empty());
    assert!(tx.image_upload_end(&other, &content, 3, ImageStatus::Active).await.unwrap());
    commit(tx).await;
    let read = store.image_get(image.id).await.unwrap().unwrap();
    assert_eq!((read.status, read.min_disk_gib, &read.content), (ImageStatus::Active, 3, &Some(content)));
    assert_eq!(read.source().unwrap().sha256, "s");
    assert!(store.images_with_content(&[image.id]).await.unwrap().contains(&image.id));
    assert!(store.image_uploads().await.unwrap().is_empty());
    let tx = store.begin(&OpCtx::system()).await.unwrap();
    assert!(tx.image_status_set(image.id, ImageStatus::Active, ImageStatus::Deactivated).await.unwrap());
    assert!(!tx.image_status_set(image.id, ImageStatus::Active, ImageStatus::Deactivated).await.unwrap());
    let import = ImageImport {
        id: Uuid::new_v4(),
        image_id: image.id,
        user_id: None,
        request_id: arcus_types::RequestId::new(),
        request: serde_json::json!({ "method": { "name": "glance-direct" } }),
        created_at: Timestamp::now(),
    };
    tx.image_import_insert(&import).await.unwrap();
    assert_eq!(tx.image_import_list(image.id).await.unwrap(), [import]);
    let totals = ImageTotals { complete_bytes: 7, ..ImageTotals::default() };
    assert_eq!(tx.image_totals(image.project_id).await.unwrap(), totals);
    let protected = Image { protected: true, ..tx.image_get(image.id).await.unwrap().unwrap() };
    tx.image_update(&tx.image_get(image.id).await.unwrap().unwrap(), &protected).await.unwrap();
    assert!(!tx.image_delete(image.id).await.unwrap(), "it is protected");
    commit(tx).await;
}

async fn lists_show_what_these_eyes_may_see(store: &Store) {
    let (mine, theirs) = (ProjectId::new(), ProjectId::new());
    let visibilities = [Visibility::Public, Visibility::Community, Visibility::Shared, Visibility::Private];
    for visibility in visibilities {
        for (project_id, whose) in [(mine, "mine"), (theirs, "theirs")] {
            let mut new = image(project_id, &format!("{whose}-{visibility}"));
            new.visibility = visibility;
            insert(store, &new).await;
        }
    }
    let all = store.image_list(&ImageFilter::new(ImageVisible::ToAll, 100)).await.unwrap();
    let shared = all.iter().find(|image| image.name.as_ref().unwrap().as_str() == "theirs-shared").unwrap();
    let now = Timestamp::now();
    let mut member = ImageMember {
        image_id: shared.id,
        project_id: mine,
        status: MemberStatus::Pending,
        created_at: now,
        updated_at: now,
    };
    let tx = store.begin(&OpCtx::system()).await.unwrap();
    tx.image_member_insert(&member).await.unwrap();
    commit(tx).await;
    assert_eq!(store.image_member_list(shared.id).await.unwrap(), [member.clone()]);
    let names = async |community, member_status| {
        let visible = ImageVisible::To { project_id: Some(mine), community, member_status };
        let mut filter = ImageFilter::new(visible, 100);
        filter.sort = vec![(ImageSortKey::Name, false)];
        filter.tags = vec!["x".into(), "y".into()];
        filter.properties = vec![("os".into(), "debian".into())];
        filter.created_at = vec![(TimeTest::Gt, Timestamp(0)), (TimeTest::Neq, Timestamp(0))];
        filter.hidden = Some(false);
        let images = store.image_list(&filter).await.unwrap();
        images.iter().map(|image| image.name.as_ref().unwrap().to_string()).collect::<Vec<_>>()
    };
    let own = ["mine-community", "mine-private", "mine-public", "mine-shared", "theirs-public"];
    assert_eq!(names(false, Some(MemberStatus::Accepted)).await, own);
    let with = |more: &str| {
        let mut names: Vec<String> = own.map(str::to_owned).into();
        names.push(more.to_owned());
        names.sort();
        names
    };
    assert_eq!(names(true, Some(MemberStatus::Accepted)).await, with("theirs-community"));
    assert_eq!(names(false, None).await, with("theirs-shared"));
    member.status = MemberStatus::Accepted;
    let tx = store.begin(&OpCtx::system()).await.unwrap();
    assert!(tx.image_member_update(&member).await.unwrap());
    commit(tx).await;
    assert_eq!(names(false, Some(MemberStatus::Accepted)).await, with("theirs-shared"));
    let tx = store.begin(&OpCtx::system()).await.unwrap();
    assert!(tx.image_member_delete(shared.id, mine).await.unwrap());
    assert!(!tx.image_member_delete(shared.id, mine).await.unwrap());
    commit(tx).await;
    assert_eq!(store.image_member_get(shared.id, mine).await.unwrap(), None);
}

async fn pages_join_to_the_whole_list(store: &Store) {
    let project_id = ProjectId::new();
    for at in 0..7 {
        let mut new = image(project_id, if at % 2 == 0 { "even" } else { "odd" });
        new.name = new.name.filter(|_| at != 3);
        new.disk_format = new.disk_format.filter(|_| at != 4);
        new.created_at = Timestamp(at / 3);
        insert(store, &new).await;
    }
    let keys = [
        ImageSortKey::Name,
        ImageSortKey::Status,
        ImageSortKey::ContainerFormat,
        ImageSortKey::DiskFormat,
        ImageSortKey::Size,
        ImageSortKey::Id,
        ImageSortKey::CreatedAt,
        ImageSortKey::UpdatedAt,
    ];
    for key in keys {
        for falls in [false, true] {
            let mut filter = ImageFilter::new(ImageVisible::ToAll, 100);
            filter.owner = Some(project_id);
            filter.sort = vec![(key, falls), (ImageSortKey::CreatedAt, !falls)];
            let whole: Vec<ImageId> = store.image_list(&filter).await.unwrap().iter().map(|image| image.id).collect();
            assert_eq!(whole.len(), 7);
            filter.limit = 2;
            let mut paged = Vec::new();
            loop {
                let page = store.image_list(&filter).await.unwrap();
                paged.extend(page.iter().map(|image| image.id));
                let Some(last) = page.last() else { break };
                filter.marker = Some(last.clone());
            }
            assert_eq!(paged, whole, "{key:?} {falls}");
        }
    }
}

async fn all(store: &Store) {
    lists_show_what_these_eyes_may_see(store).await;
    a_record_is_read_as_it_was_written_and_changes_once(store).await;
    only_the_upload_that_began_may_end(store).await;
    pages_join_to_the_whole_list(store).await;
}

#[tokio::test]
async fn images_on_sqlite() {
    let (store, _folder) = sqlite().await;
    all(&store).await;
}

#[tokio::test]
async fn images_on_postgres() {
    let postgres = Postgres::start();
    all(&postgres.store().await).await;
}
