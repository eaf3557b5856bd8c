//! What a guest's move would have to send, measured while it runs.

use super::arguments::disk_node;
use super::{guest::Guest, process};
use crate::HypervisorError;
use arcus_types::agent::GuestAppraisal;
use serde_json::json;
use std::time::Duration;

/// For how long the memory's changes are counted, in seconds: the shortest time that QEMU takes.
const COUNT_S: u64 = 1;
/// How often it is asked whether they have been counted, and how many times.
const ASK_EVERY: Duration = Duration::from_millis(50);
const ASKS_MAX: u32 = 60;

/// Measures it.
///
/// # Errors
/// `NotRunning`, `Silent`, `Refused`.
pub async fn appraise(guest: &Guest) -> Result<GuestAppraisal, HypervisorError> {
    let record = guest.record();
    let whole = record.hardware.memory_mib.saturating_mul(1 << 20);
    let held = guest.pid().and_then(process::used).map_or(whole, |(_, kib)| kib.saturating_mul(1024));
    let nodes = guest.run("query-named-block-nodes", json!({ "flat": true })).await?;
    let disks = record.disks.iter().enumerate().filter(|(_, disk)| !disk.read_only);
    let names: Vec<String> = disks.map(|(index, _)| disk_node(index)).collect();
    let ours = nodes.as_array().into_iter().flatten();
    let ours = ours.filter(|node| names.iter().any(|name| node["node-name"] == name.as_str()));
    let disk_bytes = ours.filter_map(|node| node["image"]["actual-size"].as_u64()).sum();
    Ok(GuestAppraisal { memory_bytes: held.min(whole), disk_bytes, dirty_rate: dirty_rate(guest).await })
}

/// How much memory the guest changes, in bytes a second; `None` if QEMU cannot tell now.
async fn dirty_rate(guest: &Guest) -> Option<u64> {
    // Somebody else's count will do as well.
    drop(guest.run("calc-dirty-rate", json!({ "calc-time": COUNT_S })).await);
    for _ in 0..ASKS_MAX {
        tokio::time::sleep(ASK_EVERY).await;
        let told = guest.run("query-dirty-rate", json!({})).await.ok()?;
        match told["status"].as_str() {
            Some("measured") => return told["dirty-rate"].as_u64().map(|mib| mib.saturating_mul(1 << 20)),
            Some("measuring") => {}
            Some(_) | None => return None,
        }
    }
    None
}
