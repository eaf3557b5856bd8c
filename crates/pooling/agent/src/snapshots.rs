//! Images made of guests' root disks and of volumes: copied as of one moment, flattened, compressed and sent to the server.

use crate::chain;
use crate::node::Shared;
use crate::volumes;
use arcus_hypervisor::GuestState;
use arcus_storage::{Export, Storage, StorageError};
use arcus_types::agent::{DiskFormat, Fault, SnapshotReport, SnapshotState};
use arcus_types::{ImageId, ServerId, VolumeId, VolumeSnapshotId};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often a snapshot is tried before it is given up.
const TRIES_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);

/// What an image is made of.
pub(crate) enum Source {
    /// A server's root disk; the lock keeps the server's worker from starting or stopping the guest meanwhile.
    Server(ServerId, Arc<tokio::sync::Mutex<()>>),
    /// A volume, and how the image is laid out.
    Volume(VolumeId, DiskFormat),
}

/// Makes one image.
pub(crate) async fn make(shared: Arc<Shared>, image: ImageId, source: Source) {
    let tell = |state| shared.board.snapshot(SnapshotReport { image_id: image, state });
    for attempt in 1..=TRIES_MAX {
        tell(SnapshotState::Copying);
        let attempted = match &source {
            Source::Server(server, busy) => of_server(&shared, image, *server, busy).await,
            Source::Volume(volume, format) => of_volume(&shared, image, *volume, *format).await,
        };
        match attempted {
            Ok(()) => {
                tell(SnapshotState::Done);
                return;
            }
            Err((error, transient)) => {
                tracing::warn!(image.id = %image, error, "an image could not be made");
                if attempt == TRIES_MAX || !transient {
                    let message = match &source {
                        Source::Server(..) => "The image could not be made of this server's disk.",
                        Source::Volume(..) => "The image could not be made of this volume.",
                    };
                    let message = message.to_owned();
                    tell(SnapshotState::Failed(Fault { message, details: error, transient: false }));
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

type Failure = (String, bool);

async fn of_server(
    shared: &Arc<Shared>,
    image: ImageId,
    server: ServerId,
    busy: &tokio::sync::Mutex<()>,
) -> Result<(), Failure> {
    let hypervisor = &shared.drivers.hypervisor;
    let failed = |error: &dyn std::error::Error, transient: bool| (chain(error), transient);
    let pool = shared.ledger.entry(server).map_err(|e| failed(&e, true))?.shared.map(|(pool, _)| pool);
    let storage = crate::worker::disks(shared, pool)
        .ok_or_else(|| ("this node does not see the folder of the server's disks".to_owned(), true))?;
    let name = image.to_string();
    let mut copy: Option<PathBuf> = None;
    let exported = {
        let _held = busy.lock().await;
        let state = hypervisor.state(server).await;
        if matches!(state, GuestState::Running | GuestState::Paused) {
            let uid = shared.ledger.entry(server).map_err(|e| failed(&e, true))?.uid();
            let folder = storage.server_folder(server, uid).await.map_err(|e| failed(&e, e.is_transient()))?;
            let target = folder.join(format!("snapshot-{name}.qcow2"));
            drop(tokio::fs::remove_file(&target).await);
            hypervisor.disk_copy(server, &target).await.map_err(|e| failed(&e, e.is_transient()))?;
            // The export runs as the one whose folder it is: the guest's user, not root.
            let owner = std::fs::metadata(&folder).map_err(|e| failed(&e, true))?;
            std::os::unix::fs::chown(&target, Some(owner.uid()), Some(owner.gid())).map_err(|e| failed(&e, true))?;
            copy = Some(target);
            None
        } else {
            let disk = storage.root_disk(server).await.map_err(|e| failed(&e, e.is_transient()))?;
            let disk = disk.ok_or_else(|| ("the server has no disk yet".to_owned(), false))?;
            Some(storage.export(&disk.path, &name).await.map_err(|e| failed(&e, e.is_transient()))?)
        }
    };
    let export = match (exported, &copy) {
        (Some(export), _) => Ok(export),
        (None, Some(copy)) => storage.export(copy, &name).await.map_err(|e| failed(&e, e.is_transient())),
        (None, None) => Err(("nothing was copied".to_owned(), true)),
    };
    if let Some(copy) = copy {
        drop(tokio::fs::remove_file(copy).await);
    }
    send(shared, storage.as_ref(), image, export?).await
}

/// A volume is copied as of one moment, while whoever has it goes on.
async fn of_volume(shared: &Arc<Shared>, image: ImageId, volume: VolumeId, format: DiskFormat) -> Result<(), Failure> {
    let failed = |error: StorageError| (chain(&error), error.is_transient());
    // Known to this node alone: nobody wishes for a snapshot of an image's id, so a leftover is removed.
    let snapshot = VolumeSnapshotId(image.0);
    let kept = volumes::keep(shared, snapshot);
    volumes::snapshot_make(shared, volume, snapshot).await.map_err(failed)?;
    let storage = &shared.drivers.storage;
    let exported = storage.volume_export(volume, snapshot, &image.to_string(), format, &|_| {}).await;
    drop(kept);
    if let Err(error) = volumes::snapshot_remove(shared, volume, snapshot).await {
        tracing::warn!(volume.id = %volume, error = chain(&error), "a snapshot that was copied stays for now");
    }
    send(shared, storage.as_ref(), image, exported.map_err(failed)?).await
}

/// Sends a finished image to the server and removes it here.
async fn send(shared: &Arc<Shared>, storage: &dyn Storage, image: ImageId, export: Export) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error, transient: bool| (chain(error), transient);
    shared.board.snapshot(SnapshotReport { image_id: image, state: SnapshotState::Uploading });
    let sent = match tokio::fs::File::open(&export.path).await {
        Ok(file) => {
            let put = shared.link.image_put(image, file, export.size_bytes).await;
            put.map_err(|e| failed(&e, e.is_transient()))
        }
        Err(error) => Err(failed(&error, true)),
    };
    drop(storage.export_remove(&image.to_string()).await);
    sent
}
