//! Images of servers' disks: the image is recorded at once, the node fills it.

use super::{admit, retried};
use crate::{Engine, EngineError};
use arcus_store::{ImageFilter, ImageVisible, Server, ServerSnapshot, Tx};
use arcus_types::agent::{SnapshotReport, SnapshotState};
use arcus_types::images::ImageStatus;
use arcus_types::policy::compute;
use arcus_types::servers::{ServerRequest, ServerTask};
use arcus_types::{ImageId, Name, NodeId, OpCtx, ServerId, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;

/// Backups of one kind and server that one rotation looks at.
const BACKUPS_MAX: u64 = 1_000;

/// The image that is asked for.
#[derive(Debug, Clone)]
pub struct SnapshotWish {
    /// Its name.
    pub name: Name,
    /// What its owner says of it.
    pub metadata: BTreeMap<String, String>,
    /// Whether what its owner says of it counts against the quota of metadata items.
    pub metadata_counted: bool,
    /// Set for a backup.
    pub backup: Option<BackupWish>,
}

/// What makes an image a backup.
#[derive(Debug, Clone)]
pub struct BackupWish {
    /// Backups of one kind are counted together, such as `daily`.
    pub kind: String,
    /// How many of its kind are kept; older ones are deleted. With 0 none is kept.
    pub rotation: u32,
}

impl Engine {
    /// Makes an image of a server's root disk; or, of one that boots from a volume, snapshots of all its volumes and an
    /// image that names them.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state or under a lock that does not admit it, [`EngineError::OverQuota`],
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn server_image_create(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        wish: &SnapshotWish,
    ) -> Result<ImageId, EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let policy = if wish.backup.is_some() { compute::SERVER_BACKUP } else { compute::SERVER_SNAPSHOT };
            let mut server = self.server_held(&tx, ctx, policy, id).await?;
            let (request, action, task) = match &wish.backup {
                None => (ServerRequest::CreateImage, "createImage", ServerTask::ImageSnapshot),
                Some(_) => (ServerRequest::CreateBackup, "createBackup", ServerTask::ImageBackup),
            };
            admit(ctx, &server, request)?;
            super::actions::on_a_node(&server, request)?;
            if wish.metadata_counted {
                self.metadata_admitted(&tx, ctx, server.project_id, &wish.metadata).await?;
            }
            let Some(node_id) = server.node_id else { return Err(super::stale()) };
            if server.details.volume_root {
                return self.server_volumes_image(tx, ctx, &server, wish).await;
            }
            let properties = snapshot_properties(&server, wish);
            let name = wish.name.clone();
            let image_id = self.image_snapshot_begin_in(&tx, ctx, server.project_id, node_id, name, properties).await?;
            let request_id = ctx.request_id;
            let rotation = wish.backup.as_ref().map(|b| b.rotation);
            tx.server_snapshot_insert(&ServerSnapshot { image_id, server_id: id, node_id, request_id, rotation })
                .await?;
            let detail = json!({ "image_id": image_id });
            let event = Some(if rotation.is_some() { "compute_backup_instance" } else { "compute_snapshot_instance" });
            self.server_record(&tx, &server, policy, action, event, &detail).await?;
            self.server_wish(&tx, &mut server, Some(task)).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(image_id)
        })
    }

    /// The image of a server that boots from a volume is there at once: its node has only snapshots to make.
    async fn server_volumes_image(
        &self,
        tx: Tx,
        ctx: &OpCtx,
        server: &Server,
        wish: &SnapshotWish,
    ) -> Result<ImageId, EngineError> {
        if wish.backup.is_some() {
            return Err(EngineError::invalid("Backup is not supported for volume-backed instances."));
        }
        let image_id = self.volumes_image_in(&tx, ctx, server, wish).await?;
        let detail = json!({ "image_id": image_id });
        self.server_record(&tx, server, compute::SERVER_SNAPSHOT, "createImage", None, &detail).await?;
        self.commit(tx).await?;
        Ok(image_id)
    }

    /// What a node says of the images that it makes.
    pub(super) async fn snapshots_observed(
        &self,
        ctx: &OpCtx,
        node: NodeId,
        reports: &[SnapshotReport],
    ) -> Result<(), EngineError> {
        let over: Vec<&SnapshotReport> = reports
            .iter()
            .filter(|r| match r.state {
                SnapshotState::Done | SnapshotState::Failed(_) => true,
                SnapshotState::Copying | SnapshotState::Uploading => false,
            })
            .collect();
        if over.is_empty() {
            return Ok(());
        }
        let known = self.store().server_snapshots_by_node(node).await?;
        for report in over {
            if let Some(snapshot) = known.iter().find(|s| s.image_id == report.image_id) {
                retried!({ self.snapshot_over(ctx, snapshot, &report.state).await })?;
            }
        }
        Ok(())
    }

    async fn snapshot_over(
        &self,
        ctx: &OpCtx,
        snapshot: &ServerSnapshot,
        state: &SnapshotState,
    ) -> Result<(), EngineError> {
        let failure = match state {
            SnapshotState::Done => None,
            SnapshotState::Failed(fault) => Some(fault.message.as_str()),
            SnapshotState::Copying | SnapshotState::Uploading => return Ok(()),
        };
        let tx = self.store().begin(ctx).await?;
        let Some(mut server) = tx.server_lock(snapshot.server_id).await? else { return Ok(()) };
        if !tx.server_snapshot_delete(snapshot.image_id).await? {
            return Ok(());
        }
        if failure.is_some() {
            self.image_snapshot_failed_in(&tx, snapshot.image_id).await?;
        }
        let now = Timestamp::now();
        server.updated_at = now;
        if server.task == Some(ServerTask::ResizeCopying) {
            self.move_copied(&tx, &mut server, failure, now).await?;
            tx.commit().await?;
            self.wake().all();
            return Ok(());
        }
        if server.task == Some(ServerTask::ShelvingSnapshot) {
            self.shelve_image_over(&tx, &mut server, snapshot.image_id, failure, now).await?;
            tx.commit().await?;
            self.server_wake(&server);
            return Ok(());
        }
        tx.server_action_finish(server.id, snapshot.request_id, now, failure).await?;
        if matches!(server.task, Some(ServerTask::ImageSnapshot | ServerTask::ImageBackup)) {
            server.request_id = None;
            server.task = None;
            server.task_deadline = None;
        }
        let outdated = match (failure, snapshot.rotation) {
            (None, Some(rotation)) => self.backups_rotate(&tx, &server, snapshot.image_id, rotation).await?,
            (Some(_), _) | (None, None) => Vec::new(),
        };
        self.server_touch(&tx, &mut server).await?;
        let detail = json!({ "image_id": snapshot.image_id, "failure": failure });
        self.server_audit(&tx, &server, compute::SERVER_OBSERVE, &detail).await?;
        tx.server_update(&mut server).await?;
        tx.commit().await?;
        for image in outdated {
            self.image_file_remove(image).await;
        }
        self.server_wake(&server);
        Ok(())
    }

    /// Forgets the oldest backups of the new one's kind beyond `keep`; their bytes go after the commit.
    async fn backups_rotate(
        &self,
        tx: &Tx,
        server: &Server,
        newest: ImageId,
        keep: u32,
    ) -> Result<Vec<ImageId>, EngineError> {
        let Some(kind) = tx.image_get(newest).await?.and_then(|i| i.properties.get("backup_type").cloned()) else {
            return Ok(Vec::new());
        };
        let mut filter = ImageFilter::new(ImageVisible::ToAll, BACKUPS_MAX);
        filter.owner = Some(server.project_id);
        filter.statuses = Some(vec![ImageStatus::Active]);
        filter.properties = vec![
            ("image_type".into(), "backup".into()),
            ("backup_type".into(), kind),
            ("instance_uuid".into(), server.id.to_string()),
        ];
        let mut backups = tx.image_list(&filter).await?;
        backups.sort_by_key(|b| std::cmp::Reverse((b.created_at, b.id)));
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        let mut gone = Vec::new();
        for backup in backups.into_iter().skip(keep).filter(|b| !b.protected) {
            self.image_forget_in(tx, backup.id).await?;
            gone.push(backup.id);
        }
        Ok(gone)
    }

    /// Removes the bytes of images that a server does not hold any more, after the commit that forgot them.
    pub(super) async fn images_let_go(&self, held: Vec<ImageId>, server: &Server) {
        let still = images_held(server);
        for image in held.into_iter().filter(|image| !still.contains(image)) {
            self.image_file_remove(image).await;
        }
    }

    /// Gives up the images that are being made of a server.
    pub(super) async fn snapshots_give_up(&self, tx: &Tx, server: &Server) -> Result<(), EngineError> {
        for snapshot in tx.server_snapshots_by_server(server.id).await? {
            tx.server_snapshot_delete(snapshot.image_id).await?;
            self.image_snapshot_failed_in(tx, snapshot.image_id).await?;
            let why = Some("The server was removed, or the node did not finish in time.");
            tx.server_action_finish(server.id, snapshot.request_id, Timestamp::now(), why).await?;
        }
        Ok(())
    }
}

/// The images that go when the server does not need them any more: what it is shelved as, what its disk travels as.
pub(super) fn images_held(server: &Server) -> Vec<ImageId> {
    let shelved = server.details.shelve.as_ref().and_then(|shelve| shelve.image_id);
    shelved.into_iter().chain(super::migrate::image_carried(server)).collect()
}

/// What clients look for in an image that was made of a server, and what a server made of it must inherit.
pub(super) fn snapshot_properties(server: &Server, wish: &SnapshotWish) -> BTreeMap<String, String> {
    let mut properties: BTreeMap<String, String> = server
        .details
        .image_properties
        .iter()
        .filter(|(key, _)| key.starts_with("hw_") || key.starts_with("os_") || key.as_str() == "architecture")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    match &wish.backup {
        None => properties.insert("image_type".into(), "snapshot".into()),
        Some(backup) => {
            properties.insert("backup_type".into(), backup.kind.clone());
            properties.insert("image_type".into(), "backup".into())
        }
    };
    properties.insert("instance_uuid".into(), server.id.to_string());
    properties.insert("base_image_ref".into(), server.image.id.to_string());
    // What the owner says of the image comes last, as it always has.
    properties.extend(wish.metadata.clone());
    properties
}
