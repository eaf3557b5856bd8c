//! Copies a running guest's root disk as of one moment.
//!
//! A backup job copies each old block before the guest overwrites it, so the moment is the job's start. File systems are
//! frozen around that moment only, if the guest's agent answers.

use super::arguments::disk_node;
use super::guest::Guest;
use super::guest_agent;
use super::{host, record};
use crate::HypervisorError;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// The job's and its nodes' names.
const JOB: &str = "arcus-copy";
const TARGET: &str = "arcus-copy-target";

/// How long the job may make no progress before it is given up, in milliseconds.
const STALL_MS_MAX: u64 = 120_000;
/// How often the job is looked at, in milliseconds, besides when it tells of itself.
const LOOK_MS: u64 = 1_000;
/// How long file systems may take to freeze once the agent has answered, in milliseconds.
const FREEZE_MS_MAX: u64 = 10_000;

/// Copies the root disk into a new qcow2 file. See [`crate::Hypervisor::disk_copy`].
///
/// # Errors
/// `Busy`, `File`, `ProgramMissing`, `Refused`, `Silent`, `NotRunning`.
pub async fn copy(guest: &Guest, qemu_img: &Path, target: &Path) -> Result<(), HypervisorError> {
    let busy = HypervisorError::Busy { server: guest.server, what: "root disk" };
    let _turn = guest.copy_turn.try_lock().map_err(|_| busy)?;
    clear(guest).await;
    let size = root_disk_size(guest).await?;
    if target.exists() {
        return Err(record::error("create", target, std::io::ErrorKind::AlreadyExists.into()));
    }
    let copied = async {
        create(qemu_img, target, size).await?;
        attach(guest, target).await?;
        let copied = copy_into(guest).await;
        detach(guest).await;
        copied?;
        let file = std::fs::File::open(target).map_err(|e| record::error("open", target, e))?;
        let synced = tokio::task::spawn_blocking(move || file.sync_all()).await;
        synced.unwrap_or_else(|e| Err(e.into())).map_err(|e| record::error("flush", target, e))
    };
    let result = copied.await;
    if result.is_err() {
        record::remove_file(target)?;
    }
    result
}

/// Clears what an earlier copy left behind whose agent died; nothing if there was none.
pub async fn clear(guest: &Guest) {
    let Ok(nodes) = nodes(guest).await else { return };
    if nodes.iter().all(|node| node["node-name"] != TARGET) {
        return;
    }
    tracing::info!(server.id = %guest.server, "a copy of a disk that nobody waits for is given up");
    give_up(guest).await;
    // The agent may have died with the guest's file systems frozen. One that has no agent has frozen nothing.
    let thawed = guest_agent::call(guest, "guest-fsfreeze-thaw", json!({}), FREEZE_MS_MAX, true).await;
    tracing::debug!(server.id = %guest.server, thawed = thawed.is_ok(), "a guest's file systems were thawed");
    detach(guest).await;
}

async fn nodes(guest: &Guest) -> Result<Vec<Value>, HypervisorError> {
    let nodes = guest.run("query-named-block-nodes", json!({ "flat": true })).await?;
    Ok(nodes.as_array().cloned().unwrap_or_default())
}

async fn root_disk_size(guest: &Guest) -> Result<u64, HypervisorError> {
    let nodes = nodes(guest).await?;
    let root = nodes.iter().find(|node| node["node-name"] == disk_node(0));
    root.and_then(|node| node["image"]["virtual-size"].as_u64()).ok_or_else(|| HypervisorError::Refused {
        server: guest.server,
        command: "query-named-block-nodes",
        message: "the guest has no root disk".to_owned(),
    })
}

async fn create(qemu_img: &Path, target: &Path, size: u64) -> Result<(), HypervisorError> {
    let mut command = tokio::process::Command::new(qemu_img);
    command.args(["create", "-q", "-f", "qcow2"]).arg(target).arg(size.to_string());
    let output = command.output().await.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => host::missing(qemu_img),
        _ => record::error("create", target, e),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(record::error("create", target, std::io::Error::other(said)))
}

/// Hands the file over by descriptor: QEMU's user may not enter the folder that it is in.
async fn attach(guest: &Guest, target: &Path) -> Result<(), HypervisorError> {
    let open = || std::fs::OpenOptions::new().read(true).write(true).open(target);
    let file = open().map_err(|e| record::error("open", target, e))?;
    let added = guest.qmp()?.run_with_fd("add-fd", json!({ "opaque": TARGET }), file.into()).await;
    let added = added.map_err(|e| guest.qmp_error("add-fd", e))?;
    let node = json!({
        "driver": "qcow2",
        "node-name": TARGET,
        "discard": "unmap",
        "file": { "driver": "file", "filename": format!("/dev/fdset/{}", added["fdset-id"]), "discard": "unmap" },
    });
    let attached = guest.run("blockdev-add", node).await;
    if attached.is_err() {
        detach(guest).await;
    }
    attached.map(|_| ())
}

/// Lets go of the target; what is not there is passed over.
async fn detach(guest: &Guest) {
    let _ = guest.run("blockdev-del", json!({ "node-name": TARGET })).await;
    let Ok(sets) = guest.run("query-fdsets", json!({})).await else { return };
    for set in sets.as_array().into_iter().flatten() {
        let ours = set["fds"].as_array().into_iter().flatten().any(|fd| fd["opaque"] == TARGET);
        if ours {
            let _ = guest.run("remove-fd", json!({ "fdset-id": set["fdset-id"] })).await;
        }
    }
}

async fn copy_into(guest: &Guest) -> Result<(), HypervisorError> {
    let mut events = guest.qmp()?.events();
    let frozen = guest_agent::call(guest, "guest-fsfreeze-freeze", json!({}), FREEZE_MS_MAX, true).await;
    let begin = json!({
        "job-id": JOB,
        "device": disk_node(0),
        "target": TARGET,
        "sync": "full",
        "auto-dismiss": false,
    });
    let begun = guest.run("blockdev-backup", begin).await;
    // An agent that was slow to answer may have frozen them all the same.
    let absent = matches!(&frozen, Err(HypervisorError::NoGuestAgent { reason, .. }) if reason.starts_with("none"));
    if !absent {
        thaw(guest).await;
    }
    begun?;
    let mut stalled_ms = 0;
    let mut progress = Value::Null;
    loop {
        let Some(job) = job(guest).await? else { return Err(failed(guest, "the job is gone")) };
        if job["status"] == "concluded" {
            let _ = guest.run("job-dismiss", json!({ "id": JOB })).await;
            return job["error"].as_str().map_or(Ok(()), |error| Err(failed(guest, error)));
        }
        if job["current-progress"] != progress {
            progress = job["current-progress"].clone();
            stalled_ms = 0;
        }
        if stalled_ms >= STALL_MS_MAX {
            give_up(guest).await;
            return Err(failed(guest, "the copy makes no progress"));
        }
        let wait = async { while events.recv().await.is_ok_and(|event| event.name != "JOB_STATUS_CHANGE") {} };
        if tokio::time::timeout(Duration::from_millis(LOOK_MS), wait).await.is_err() {
            stalled_ms += LOOK_MS;
        }
        // A closed connection ends `wait` at once, and then the next look fails.
    }
}

async fn thaw(guest: &Guest) {
    if let Err(error) = guest_agent::call(guest, "guest-fsfreeze-thaw", json!({}), FREEZE_MS_MAX, true).await {
        tracing::warn!(server.id = %guest.server, %error, "a guest's file systems may still be frozen");
    }
}

async fn job(guest: &Guest) -> Result<Option<Value>, HypervisorError> {
    let jobs = guest.run("query-jobs", json!({})).await?;
    Ok(jobs.as_array().into_iter().flatten().find(|job| job["id"] == JOB).cloned())
}

async fn give_up(guest: &Guest) {
    let _ = guest.run("job-cancel", json!({ "id": JOB })).await;
    for _ in 0..STALL_MS_MAX / LOOK_MS {
        match job(guest).await {
            Ok(Some(job)) if job["status"] == "concluded" => {
                let _ = guest.run("job-dismiss", json!({ "id": JOB })).await;
                return;
            }
            Ok(Some(_)) => tokio::time::sleep(Duration::from_millis(LOOK_MS)).await,
            Ok(None) | Err(_) => return,
        }
    }
}

fn failed(guest: &Guest, message: &str) -> HypervisorError {
    HypervisorError::Refused { server: guest.server, command: "blockdev-backup", message: message.to_owned() }
}
