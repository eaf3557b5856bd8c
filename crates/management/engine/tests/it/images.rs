//! Images: their bytes, what survives a crash, and what nodes may do.

use arcus_engine::images::{ImageNew, ImageQuery, ImagesRecovered};
use arcus_engine::{Engine, EngineConfig, EngineError};
use arcus_store::{AuditEntry, Image, ImageFilter, ImageVisible, QuotaResource};
use arcus_types::agent::DiskFormat;
use arcus_types::images::{ContainerFormat, ImageStatus, Visibility};
use arcus_types::policy::image::IMAGE_UPLOAD;
use arcus_types::{Actor, DomainId, ImageId, NodeId, OpCtx, ProjectId, RequestId, Role, RoleSet, Scope, UserId};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use uuid::Uuid;

struct Cloud {
    engine: Engine,
    member: OpCtx,
    project_id: ProjectId,
    _folder: tempfile::TempDir,
}

fn user(project_id: ProjectId, role: Role) -> OpCtx {
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

fn node(node_id: NodeId) -> OpCtx {
    OpCtx { actor: Actor::Node { node_id }, ..OpCtx::anonymous(RequestId::new()) }
}

impl Cloud {
    async fn start() -> Self {
        let (store, folder) = arcus_store::testing::sqlite().await;
        let engine = Engine::new(store, EngineConfig::under(folder.path()));
        let project_id = ProjectId::new();
        Self { engine, member: user(project_id, Role::Member), project_id, _folder: folder }
    }

    async fn image(&self) -> ImageId {
        let new = ImageNew {
            disk_format: Some(DiskFormat::Raw),
            container_format: Some(ContainerFormat::Bare),
            ..ImageNew::default()
        };
        self.engine.image_create(&self.member, new).await.unwrap().id
    }

    async fn shown(&self, id: ImageId) -> Image {
        self.engine.image_get(&self.member, id).await.unwrap()
    }

    async fn upload(&self, id: ImageId, bytes: &'static [u8]) -> Result<(), EngineError> {
        self.engine.image_upload(&self.member, id, None, whole(bytes)).await
    }

    fn files(&self) -> Vec<String> {
        let Ok(dir) = std::fs::read_dir(&self.engine.config().images_dir) else { return Vec::new() };
        dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.engine.config().images_dir.join(name)
    }

    async fn used(&self) -> i64 {
        let quotas = self.engine.store().quota_list(self.project_id, &[QuotaResource::Images]).await.unwrap();
        quotas[0].used
    }

    /// An upload whose process ended: its record is there, nobody holds its lock.
    async fn dead_upload(&self, id: ImageId) -> Uuid {
        let upload_id = Uuid::new_v4();
        let tx = self.engine.store().begin(&OpCtx::system()).await.unwrap();
        assert!(tx.image_upload_begin(id, upload_id, ImageStatus::Saving).await.unwrap());
        let detail = serde_json::json!({});
        let entry =
            AuditEntry { action: IMAGE_UPLOAD, kind: "image", id: id.to_string(), project_id: None, detail: &detail };
        tx.audit(entry).await.unwrap();
        tx.commit().await.unwrap();
        upload_id
    }
}

fn whole(bytes: &'static [u8]) -> stream::Iter<std::vec::IntoIter<io::Result<Bytes>>> {
    stream::iter(vec![Ok(Bytes::from_static(bytes))])
}

/// Waits until `done` says so, for at most 10 s.
async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !done().await {
        assert!(Instant::now() < until, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_upload_passes_through_little_memory() {
    const PIECES: usize = 200;
    let cloud = Cloud::start().await;
    let id = cloud.image().await;
    let before = resident_bytes();
    let most = AtomicU64::new(0);
    // Every piece has memory of its own, as those of a connection have.
    let pieces = stream::iter(0..PIECES).map(|at| {
        most.fetch_max(resident_bytes(), Ordering::Relaxed);
        Ok(Bytes::from(vec![u8::try_from(at % 251).unwrap(); 1 << 20]))
    });
    cloud.engine.image_upload(&cloud.member, id, Some(PIECES as u64 * (1 << 20)), pieces).await.unwrap();
    let grown = most.into_inner().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB more", grown >> 20);
    assert_eq!(cloud.shown(id).await.content.unwrap().size_bytes, 200 << 20);
}

#[tokio::test]
async fn an_abandoned_request_lets_its_image_await_bytes_again() {
    let cloud = Cloud::start().await;
    let id = cloud.image().await;
    let (engine, member) = (cloud.engine.clone(), cloud.member);
    let request = tokio::spawn(async move {
        let stalls = stream::iter([Ok(Bytes::from_static(b"some bytes"))]).chain(stream::pending());
        engine.image_upload(&member, id, None, stalls).await
    });
    eventually("saving", async || cloud.shown(id).await.status == ImageStatus::Saving).await;
    assert!(matches!(cloud.upload(id, b"others").await, Err(EngineError::Conflict { .. })));
    let idle = cloud.engine.images_recover(&OpCtx::system()).await.unwrap();
    assert_eq!(idle, ImagesRecovered::default(), "a living upload is not touched");
    assert_eq!(cloud.shown(id).await.status, ImageStatus::Saving);
    request.abort();
    eventually("queued", async || cloud.shown(id).await.status == ImageStatus::Queued).await;
    eventually("no file", async || cloud.files().is_empty()).await;
    cloud.upload(id, b"whole bytes").await.unwrap();
    assert_eq!(cloud.shown(id).await.status, ImageStatus::Active);
}

#[tokio::test]
async fn deleting_an_image_ends_its_upload_and_spares_its_download() {
    let cloud = Cloud::start().await;
    let id = cloud.image().await;
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let (engine, member) = (cloud.engine.clone(), cloud.member);
    let request = tokio::spawn(async move {
        let late = stream::once(async {
            wait.await.unwrap();
            Ok(Bytes::from_static(b"late"))
        });
        engine.image_upload(&member, id, None, Box::pin(late)).await
    });
    eventually("saving", async || cloud.shown(id).await.status == ImageStatus::Saving).await;
    cloud.engine.image_delete(&cloud.member, id).await.unwrap();
    go.send(()).unwrap();
    assert!(matches!(request.await.unwrap(), Err(EngineError::NotFound { .. })));
    assert!(cloud.files().is_empty(), "{:?}", cloud.files());
    assert_eq!(cloud.used().await, 0);

    let id = cloud.image().await;
    cloud.upload(id, b"bytes").await.unwrap();
    let mut open = cloud.engine.image_download(&cloud.member, id).await.unwrap().unwrap();
    cloud.engine.image_delete(&cloud.member, id).await.unwrap();
    assert!(cloud.files().is_empty());
    let mut read = Vec::new();
    open.file.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"bytes");
}

#[tokio::test]
async fn a_crash_in_the_middle_leaves_nothing_behind_after_the_next_start() {
    let cloud = Cloud::start().await;
    let (kept, cut, renamed, bare) =
        (cloud.image().await, cloud.image().await, cloud.image().await, cloud.image().await);
    cloud.upload(kept, b"kept").await.unwrap();
    // One died while it wrote, one after it gave its file the image's name, one before it had a file.
    let upload_id = cloud.dead_upload(cut).await;
    std::fs::write(cloud.path(&format!("{cut}.{upload_id}.part")), "cut").unwrap();
    cloud.dead_upload(renamed).await;
    std::fs::write(cloud.path(&renamed.to_string()), "renamed").unwrap();
    cloud.dead_upload(bare).await;
    // One was deleted and its file was not, and one never had a record.
    std::fs::write(cloud.path(&ImageId::new().to_string()), "deleted").unwrap();
    std::fs::write(cloud.path(&format!("{}.{}.part", ImageId::new(), Uuid::new_v4())), "stray").unwrap();
    std::fs::write(cloud.path("README"), "not one of ours").unwrap();

    let done = cloud.engine.images_recover(&OpCtx::system()).await.unwrap();
    assert_eq!(done, ImagesRecovered { uploads: 3, files: 4 });
    for id in [cut, renamed, bare] {
        let image = cloud.shown(id).await;
        assert_eq!((image.status, image.content), (ImageStatus::Queued, None));
    }
    let mut files = cloud.files();
    files.sort();
    let mut wanted = vec!["README".to_owned(), kept.to_string()];
    wanted.sort();
    assert_eq!(files, wanted);
    assert_eq!(cloud.engine.images_recover(&OpCtx::system()).await.unwrap(), ImagesRecovered::default());
    cloud.upload(cut, b"again").await.unwrap();
    assert!(cloud.engine.images_recover(&cloud.member).await.is_err(), "a member may not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_never_exceeded_by_parallel_creates() {
    let cloud = Cloud::start().await;
    let tx = cloud.engine.store().begin_unaudited().await.unwrap();
    tx.quota_set(cloud.project_id, QuotaResource::Images, Some(3)).await.unwrap();
    tx.commit().await.unwrap();
    let creates = (0..30).map(|_| cloud.engine.image_create(&cloud.member, ImageNew::default()));
    let results = futures_util::future::join_all(creates).await;
    let made: Vec<_> = results.iter().flatten().collect();
    assert_eq!(made.len(), 3);
    assert!(
        results
            .iter()
            .flat_map(|result| result.as_ref().err())
            .all(|error| matches!(error, EngineError::OverQuota { .. }))
    );
    cloud.engine.image_delete(&cloud.member, made[0].id).await.unwrap();
    cloud.image().await;
    assert_eq!(cloud.used().await, 3);
}

#[tokio::test]
async fn a_snapshot_is_filled_by_the_node_that_was_told_to_and_nobody_else() {
    let cloud = Cloud::start().await;
    let qcow2 = {
        let path = cloud._folder.path().join("disk.qcow2");
        let done = std::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&path)
            .arg("1500M")
            .status();
        assert!(done.unwrap().success());
        Bytes::from(std::fs::read(path).unwrap())
    };
    let bytes = || stream::iter([Ok(qcow2.clone())]);
    let (mine, other) = (NodeId::new(), NodeId::new());
    let begin = async || {
        let tx = cloud.engine.store().begin(&cloud.member).await.unwrap();
        let properties = [("image_type".to_owned(), "snapshot".to_owned())].into();
        let name = "backup".parse().unwrap();
        let id = cloud
            .engine
            .image_snapshot_begin_in(&tx, &cloud.member, cloud.project_id, mine, name, properties)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        id
    };
    let id = begin().await;
    let image = cloud.shown(id).await;
    assert_eq!((image.status, image.visibility), (ImageStatus::Queued, Visibility::Private));
    assert!(matches!(cloud.upload(id, b"mine").await, Err(EngineError::Conflict { .. })));
    assert!(matches!(cloud.engine.image_fill(&node(other), id, bytes()).await, Err(EngineError::NotFound { .. })));
    assert!(matches!(cloud.engine.image_fill(&cloud.member, id, bytes()).await, Err(EngineError::Denied(_))));
    assert!(matches!(cloud.engine.image_for_boot(&cloud.member, id).await, Err(EngineError::Invalid { .. })));
    cloud.engine.image_fill(&node(mine), id, bytes()).await.unwrap();
    cloud.engine.image_fill(&node(mine), id, bytes()).await.unwrap();
    let image = cloud.engine.image_for_boot(&cloud.member, id).await.unwrap();
    assert_eq!((image.min_disk_gib, image.properties["image_type"].as_str()), (2, "snapshot"));
    assert_eq!(image.source().unwrap().format, DiskFormat::Qcow2);
    let (mut file, length) = cloud.engine.image_file_for_node(&node(other), id).await.unwrap();
    let mut read = Vec::new();
    file.read_to_end(&mut read).await.unwrap();
    assert_eq!((read.len() as u64, &read[..]), (length, &qcow2[..]));

    let failed = begin().await;
    assert_eq!(cloud.used().await, 2);
    for image_id in [failed, failed, id] {
        let tx = cloud.engine.store().begin(&OpCtx::system()).await.unwrap();
        cloud.engine.image_snapshot_failed_in(&tx, image_id).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(cloud.used().await, 1);
    assert_eq!(cloud.shown(id).await.status, ImageStatus::Active);
}

#[tokio::test]
async fn another_project_learns_nothing_of_a_private_image() {
    let cloud = Cloud::start().await;
    let id = cloud.image().await;
    let stranger = user(ProjectId::new(), Role::Member);
    let not_found = |error: EngineError| matches!(error, EngineError::NotFound { .. });
    assert!(not_found(cloud.engine.image_get(&stranger, id).await.unwrap_err()));
    assert!(not_found(cloud.engine.image_delete(&stranger, id).await.unwrap_err()));
    assert!(not_found(cloud.engine.image_download(&stranger, id).await.unwrap_err()));
    assert!(not_found(cloud.engine.image_upload(&stranger, id, None, whole(b"x")).await.unwrap_err()));
    assert!(matches!(cloud.engine.image_for_boot(&stranger, id).await, Err(EngineError::Invalid { .. })));
    let query = ImageQuery {
        filter: ImageFilter::new(ImageVisible::ToAll, 10),
        community: true,
        member_status: None,
        marker: None,
    };
    assert!(cloud.engine.image_list(&stranger, query.clone()).await.unwrap().0.is_empty());
    assert_eq!(cloud.engine.image_list(&cloud.member, query).await.unwrap().0.len(), 1);
}
