//! Volumes that a guest's machine has: plugged in and out while it runs, grown, limited and kept as of one moment.
//!
//! The record says first what is about to be plugged in, and until it is gone what shall be plugged out: so whatever an
//! agent that died had begun is found and can be undone.

use super::arguments::{volume_device, volume_device_name, volume_node, volume_node_name};
use super::guest::Guest;
use super::nics::{is_plugged, unplug};
use crate::{HypervisorError, VolumeAttachment};
use arcus_types::agent::{DeviceModel, DiskQos};
use arcus_types::ids::VolumeId;
use serde_json::{Value, json};

/// How long a snapshot may take, in milliseconds: the tables of all that is written are gone through.
const SNAPSHOT_MS_MAX: u64 = 120_000;

/// Plugs a volume in. See [`crate::Hypervisor::volume_attach`].
///
/// # Errors
/// `LaunchRefused` if the machine has no such slot free; `Refused`, `Silent`, `NotRunning`, `File`.
pub async fn attach(guest: &Guest, volume: VolumeAttachment) -> Result<(), HypervisorError> {
    let record = guest.record();
    let device = volume_device_name(&volume);
    if record.volumes.iter().any(|have| have.volume == volume.volume) {
        if is_plugged(guest, &device).await? {
            return Ok(());
        }
        // An earlier try was cut short before the device was there.
        unplugged(guest, &volume).await?;
    }
    let record = guest.record();
    let refused = |reason: &str| HypervisorError::LaunchRefused { server: guest.server, reason: reason.to_owned() };
    match record.hardware.devices {
        DeviceModel::Virtio => {}
        DeviceModel::Emulated => {
            return Err(refused("volumes of a machine with emulated disks can only be added while it is stopped"));
        }
    }
    let there = volume.slot.is_some_and(|slot| slot < record.volume_slots);
    if !there || record.volumes.iter().any(|have| have.slot == volume.slot) {
        return Err(refused("no slot for a volume is free until the server is stopped and started"));
    }
    let entry = volume.clone();
    guest.record_change(|record| record.volumes.push(entry))?;
    let plugged = async {
        guest.run("blockdev-add", volume_node(&volume)).await?;
        guest.run("device_add", volume_device(&record, &volume)).await?;
        if volume.qos.is_unlimited() {
            return Ok(());
        }
        guest.run("block_set_io_throttle", limits(record.hardware.devices, &volume, &volume.qos)).await.map(drop)
    };
    let plugged = plugged.await;
    if plugged.is_err() && !is_plugged(guest, &device).await.unwrap_or(true) {
        unplugged(guest, &volume).await?;
    }
    plugged
}

/// Unplugs a volume. See [`crate::Hypervisor::volume_detach`].
///
/// # Errors
/// `Silent` if the guest does not let go of it; `Refused`, `NotRunning`, `File`.
pub async fn detach(guest: &Guest, volume: VolumeId) -> Result<(), HypervisorError> {
    let Some(entry) = guest.record().volumes.into_iter().find(|have| have.volume == volume) else { return Ok(()) };
    unplug(guest, &volume_device_name(&entry)).await?;
    unplugged(guest, &entry).await
}

/// Closes the file of a volume whose device is gone, and forgets it.
async fn unplugged(guest: &Guest, volume: &VolumeAttachment) -> Result<(), HypervisorError> {
    match guest.run("blockdev-del", json!({ "node-name": volume_node_name(volume) })).await {
        // Removed by an earlier try, or never there.
        Err(HypervisorError::Refused { message, .. }) if message.contains("Failed to find") => {}
        other => drop(other?),
    }
    guest.record_change(|record| record.volumes.retain(|have| have.volume != volume.volume))
}

fn entry(guest: &Guest, volume: VolumeId) -> Result<VolumeAttachment, HypervisorError> {
    let found = guest.record().volumes.into_iter().find(|have| have.volume == volume);
    found.ok_or_else(|| HypervisorError::LaunchRefused {
        server: guest.server,
        reason: format!("it does not have volume {volume}"),
    })
}

/// Sets how fast a volume may be used. See [`crate::Hypervisor::volume_limit`].
///
/// # Errors
/// `LaunchRefused` if the machine does not have the volume; `Refused`, `Silent`, `NotRunning`, `File`.
pub async fn limit(guest: &Guest, volume: VolumeId, qos: DiskQos) -> Result<(), HypervisorError> {
    let entry = entry(guest, volume)?;
    if entry.qos == qos {
        return Ok(());
    }
    guest.run("block_set_io_throttle", limits(guest.record().hardware.devices, &entry, &qos)).await?;
    guest.record_change(|record| {
        for have in record.volumes.iter_mut().filter(|have| have.volume == volume) {
            have.qos = qos;
        }
    })
}

/// The limits as QEMU takes them. A burst counts only above the limit that it is a burst of.
pub fn limits(devices: DeviceModel, volume: &VolumeAttachment, qos: &DiskQos) -> Value {
    let device = volume_device_name(volume);
    // What has the disk is not the device itself but a part of it.
    let holder = match devices {
        DeviceModel::Virtio => format!("/machine/peripheral/{device}/virtio-backend"),
        DeviceModel::Emulated if volume.read_only => format!("/machine/peripheral/{device}/{device}.0/legacy[0]"),
        DeviceModel::Emulated => device,
    };
    let mut limits = json!({
        "id": holder,
        "bps": qos.total_bytes_sec,
        "bps_rd": qos.read_bytes_sec,
        "bps_wr": qos.write_bytes_sec,
        "iops": qos.total_iops_sec,
        "iops_rd": qos.read_iops_sec,
        "iops_wr": qos.write_iops_sec,
    });
    let bursts = [
        ("bps_max", qos.total_bytes_sec, qos.total_bytes_sec_max),
        ("bps_rd_max", qos.read_bytes_sec, qos.read_bytes_sec_max),
        ("bps_wr_max", qos.write_bytes_sec, qos.write_bytes_sec_max),
        ("iops_max", qos.total_iops_sec, qos.total_iops_sec_max),
        ("iops_rd_max", qos.read_iops_sec, qos.read_iops_sec_max),
        ("iops_wr_max", qos.write_iops_sec, qos.write_iops_sec_max),
    ];
    if let Some(limits) = limits.as_object_mut() {
        for (name, _, burst) in bursts.into_iter().filter(|(_, limit, burst)| *limit > 0 && burst > limit) {
            limits.insert(name.to_owned(), json!(burst));
        }
        let counted = qos.total_iops_sec.max(qos.read_iops_sec).max(qos.write_iops_sec) > 0;
        if counted && qos.size_iops_sec > 0 {
            limits.insert("iops_size".to_owned(), json!(qos.size_iops_sec));
        }
    }
    limits
}

/// Grows a volume. See [`crate::Hypervisor::volume_grow`].
///
/// # Errors
/// `LaunchRefused` if the machine does not have the volume; `Refused`, `Silent`, `NotRunning`.
pub async fn grow(guest: &Guest, volume: VolumeId, size_bytes: u64) -> Result<(), HypervisorError> {
    let node = volume_node_name(&entry(guest, volume)?);
    guest.run("block_resize", json!({ "node-name": node, "size": size_bytes })).await.map(drop)
}

/// Keeps what a volume holds now. See [`crate::Hypervisor::volume_snapshot_make`].
///
/// # Errors
/// `LaunchRefused` if the machine does not have the volume; `Refused`, `Silent`, `NotRunning`.
pub async fn snapshot_make(guest: &Guest, volume: VolumeId, name: &str) -> Result<(), HypervisorError> {
    let words = json!({ "device": volume_node_name(&entry(guest, volume)?), "name": name });
    let made = guest.qmp()?.run_within("blockdev-snapshot-internal-sync", words, None, SNAPSHOT_MS_MAX).await;
    made.map(drop).map_err(|error| guest.qmp_error("blockdev-snapshot-internal-sync", error))
}

/// Forgets what a volume held. See [`crate::Hypervisor::volume_snapshot_remove`].
///
/// # Errors
/// `LaunchRefused` if the machine does not have the volume; `Refused`, `Silent`, `NotRunning`.
pub async fn snapshot_remove(guest: &Guest, volume: VolumeId, name: &str) -> Result<(), HypervisorError> {
    let words = json!({ "device": volume_node_name(&entry(guest, volume)?), "name": name });
    let gone = guest.qmp()?.run_within("blockdev-snapshot-delete-internal-sync", words, None, SNAPSHOT_MS_MAX).await;
    gone.map(drop).map_err(|error| guest.qmp_error("blockdev-snapshot-delete-internal-sync", error))
}
