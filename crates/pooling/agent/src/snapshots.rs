//! Images made of guests' root disks: copied as of one moment, flattened, compressed and sent to the server.

use crate::chain;
use crate::node::Shared;
use arcus_hypervisor::GuestState;
use arcus_types::agent::{Fault, SnapshotReport, SnapshotState};
use arcus_types::{ImageId, ServerId};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often a snapshot is tried before it is given up.
const TRIES_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);

/// Makes one image; `busy` keeps the server's worker from starting or stopping the guest while its disk is copied.
pub(crate) async fn make(shared: Arc<Shared>, image: ImageId, server: ServerId, busy: Arc<tokio::sync::Mutex<()>>) {
    let tell = |state| shared.board.snapshot(SnapshotReport { image_id: image, state });
    for attempt in 1..=TRIES_MAX {
        tell(SnapshotState::Copying);
        match attempt_once(&shared, image, server, &busy).await {
            Ok(()) => {
                tell(SnapshotState::Done);
                return;
            }
            Err((error, transient)) => {
                tracing::warn!(server.id = %server, image.id = %image, error, "a snapshot failed");
                if attempt == TRIES_MAX || !transient {
                    let message = "The image could not be made of this server's disk.".to_owned();
                    tell(SnapshotState::Failed(Fault { message, details: error, transient: false }));
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

type Failure = (String, bool);

async fn attempt_once(
    shared: &Arc<Shared>,
    image: ImageId,
    server: ServerId,
    busy: &tokio::sync::Mutex<()>,
) -> Result<(), Failure> {
    let storage = &shared.drivers.storage;
    let hypervisor = &shared.drivers.hypervisor;
    let failed = |error: &dyn std::error::Error, transient: bool| (chain(error), transient);
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
    let export = export?;
    shared.board.snapshot(SnapshotReport { image_id: image, state: SnapshotState::Uploading });
    let sent = match tokio::fs::File::open(&export.path).await {
        Ok(file) => {
            let put = shared.link.image_put(image, file, export.size_bytes).await;
            put.map_err(|e| failed(&e, e.is_transient()))
        }
        Err(error) => Err(failed(&error, true)),
    };
    drop(storage.export_remove(&name).await);
    sent
}
