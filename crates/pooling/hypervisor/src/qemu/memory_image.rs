//! A guest's memory in a file: written when it is suspended, read when it goes on.

use super::guest::Guest;
use super::qmp::{Qmp, QmpError};
use super::record;
use crate::{EndReason, GuestState, HypervisorError};
use arcus_types::ids::ServerId;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// How long saving or loading may make no progress before it is given up, in milliseconds.
const STALL_MS_MAX: u64 = 60_000;
/// How often the progress is looked at, in milliseconds.
const LOOK_MS: u64 = 50;
/// No limit worth the name, in bytes a second; QEMU's own would stretch 1 GiB to eight seconds.
const BANDWIDTH: u64 = 16 << 30;
/// The name of the descriptor inside QEMU.
const FD_NAME: &str = "memory-image";

/// Saves the memory and ends the process; after an error the guest goes on. See [`crate::Hypervisor::suspend`].
///
/// # Errors
/// `File`, `Refused`, `Silent`, `NotRunning`.
pub async fn save(guest: &Guest, to: &Path) -> Result<(), HypervisorError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let file = file.map_err(|e| record::error("create", to, e))?;
    let ran = guest.state().await == GuestState::Running;
    let saved = async {
        let copy = file.try_clone().map_err(|e| record::error("open", to, e))?;
        guest.run("stop", json!({})).await?;
        let qmp = guest.qmp()?;
        write(&qmp, copy).await.map_err(|e| guest.qmp_error("migrate", e))?;
        sync(file).await.map_err(|e| record::error("flush", to, e))
    };
    if let Err(error) = saved.await {
        record::remove_file(to)?;
        if let Err(cancel) = guest.run("migrate_cancel", json!({})).await {
            tracing::warn!(server.id = %guest.server, error = %cancel, "saving a guest's memory could not be cancelled");
        }
        if ran {
            guest.run("cont", json!({})).await?;
        }
        return Err(error);
    }
    guest.end(EndReason::Suspended).await
}

async fn sync(file: File) -> std::io::Result<()> {
    tokio::task::spawn_blocking(move || file.sync_all()).await.unwrap_or_else(|e| Err(e.into()))
}

async fn write(qmp: &Qmp, file: File) -> Result<(), QmpError> {
    qmp.run("migrate-set-parameters", json!({ "max-bandwidth": BANDWIDTH })).await?;
    qmp.run_with_fd("getfd", json!({ "fdname": FD_NAME }), file.into()).await?;
    qmp.run("migrate", json!({ "uri": format!("fd:{FD_NAME}") })).await?;
    finish(qmp).await
}

/// Loads the memory into a process that waits for it.
///
/// # Errors
/// `File`, and `StartFailed` if QEMU cannot make sense of the image.
pub async fn load(qmp: &Qmp, server: ServerId, from: &Path) -> Result<(), HypervisorError> {
    let file = File::open(from).map_err(|e| record::error("open", from, e))?;
    let loaded = async {
        qmp.run_with_fd("getfd", json!({ "fdname": FD_NAME }), file.into()).await?;
        qmp.run("migrate-incoming", json!({ "uri": format!("fd:{FD_NAME}") })).await?;
        finish(qmp).await
    };
    let result: Result<(), QmpError> = loaded.await;
    result.map_err(|error| HypervisorError::StartFailed {
        server,
        reason: format!("its saved memory could not be loaded: {error}"),
        transient: false,
    })
}

/// Waits until QEMU says how the transfer went.
async fn finish(qmp: &Qmp) -> Result<(), QmpError> {
    let mut stalled_ms = 0;
    let mut progress = Value::Null;
    loop {
        let transfer = qmp.run("query-migrate", json!({})).await?;
        let message = match transfer["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                transfer["error-desc"].as_str().unwrap_or("QEMU gives no reason").to_owned()
            }
            _ if stalled_ms >= STALL_MS_MAX => "it makes no progress".to_owned(),
            _ => String::new(),
        };
        if !message.is_empty() {
            return Err(QmpError::Refused { class: String::new(), message });
        }
        if transfer["ram"]["transferred"] == progress {
            stalled_ms += LOOK_MS;
        } else {
            progress = transfer["ram"]["transferred"].clone();
            stalled_ms = 0;
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}
