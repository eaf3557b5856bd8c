//! Interfaces that are plugged into and out of a running guest.

use super::arguments::nic_device;
use super::guest::Guest;
use super::record::NicRecord;
use crate::{HypervisorError, Nic};
use arcus_types::agent::DeviceModel;
use arcus_types::ids::PortId;
use serde_json::json;
use std::time::Duration;

/// How long a guest may take to let go of a device, in milliseconds.
const UNPLUG_MS_MAX: u64 = 15_000;
/// How long it is waited before the guest is asked again, in milliseconds: one that is still starting has not heard it.
///
/// Source: QEMU takes a request for pending, and refuses another, for up to 5 s.
const UNPLUG_AGAIN_MS: u64 = 5_000;

/// Plugs an interface in. See [`crate::Hypervisor::nic_attach`].
///
/// # Errors
/// `LaunchRefused` if the machine has no free slot for it; `Refused`, `Silent`, `NotRunning`, `File`.
pub async fn attach(guest: &Guest, nic: Nic) -> Result<(), HypervisorError> {
    let record = guest.record();
    if record.nics.iter().any(|have| have.port == nic.port) {
        return Ok(());
    }
    let refused = |reason: &str| HypervisorError::LaunchRefused { server: guest.server, reason: reason.to_owned() };
    match record.hardware.devices {
        DeviceModel::Virtio => {}
        DeviceModel::Emulated => {
            return Err(refused("emulated interfaces can only be added while the server is stopped"));
        }
    }
    let free = (0..record.nic_slots).find(|slot| record.nics.iter().all(|have| have.slot != *slot));
    let slot =
        free.ok_or_else(|| refused("no slot for an interface is free until the server is stopped and started"))?;
    let (port, entry) = (nic.port, NicRecord { port: nic.port, mac: nic.mac, mtu: nic.mtu, slot });
    let fd_name = format!("tap-{port}");
    let passed = guest.qmp()?.run_with_fd("getfd", json!({ "fdname": fd_name }), nic.tap).await;
    passed.map_err(|e| guest.qmp_error("getfd", e))?;
    let network = json!({ "type": "tap", "id": format!("net-{port}"), "fd": fd_name, "vhost": false });
    guest.run("netdev_add", network).await?;
    let plugged = guest.run("device_add", nic_device(record.hardware.devices, &entry)).await;
    if let Err(error) = plugged {
        // What is left is an unused network, which the next try would stumble over.
        let _ = guest.run("netdev_del", json!({ "id": format!("net-{port}") })).await;
        return Err(error);
    }
    guest.record_change(|record| record.nics.push(entry))
}

/// Unplugs an interface. See [`crate::Hypervisor::nic_detach`].
///
/// # Errors
/// `Silent` if the guest does not let go of it; `Refused`, `NotRunning`, `File`.
pub async fn detach(guest: &Guest, port: PortId) -> Result<(), HypervisorError> {
    if guest.record().nics.iter().all(|have| have.port != port) {
        return Ok(());
    }
    unplug(guest, &format!("nic-{port}")).await?;
    match guest.run("netdev_del", json!({ "id": format!("net-{port}") })).await {
        // Removed by an earlier try.
        Err(HypervisorError::Refused { message, .. }) if message.contains("not found") => {}
        other => drop(other?),
    }
    guest.record_change(|record| record.nics.retain(|have| have.port != port))
}

/// Unplugs a device and returns when the guest has let go of it.
///
/// # Errors
/// `Silent` if the guest does not let go of it; `Refused`, `NotRunning`.
pub async fn unplug(guest: &Guest, device: &str) -> Result<(), HypervisorError> {
    if !is_plugged(guest, device).await? {
        return Ok(());
    }
    let mut events = guest.qmp()?.events();
    for _ in 0..UNPLUG_MS_MAX / UNPLUG_AGAIN_MS {
        match guest.run("device_del", json!({ "id": device })).await {
            // The guest was asked before and has not answered yet.
            Err(HypervisorError::Refused { message, .. }) if unplug_pends(&message) => {}
            other => drop(other?),
        }
        let gone = async {
            while let Ok(event) = events.recv().await {
                if event.name == "DEVICE_DELETED" && event.data["device"] == device {
                    return;
                }
            }
        };
        // Either way: the event may have been lost with the connection, so what counts is whether the device is there.
        drop(tokio::time::timeout(Duration::from_millis(UNPLUG_AGAIN_MS), gone).await);
        if !is_plugged(guest, device).await? {
            return Ok(());
        }
    }
    Err(HypervisorError::Silent { server: guest.server, command: "device_del", limit_ms: UNPLUG_MS_MAX })
}

/// Whether a refusal to unplug says that it is being done.
fn unplug_pends(message: &str) -> bool {
    message.contains("already in the process of unplug") || message.contains("guest is busy")
}

/// Whether the machine has a device of that name.
///
/// # Errors
/// `Refused`, `Silent`, `NotRunning`.
pub async fn is_plugged(guest: &Guest, device: &str) -> Result<bool, HypervisorError> {
    let devices = guest.run("qom-list", json!({ "path": "/machine/peripheral" })).await?;
    Ok(devices.as_array().into_iter().flatten().any(|have| have["name"] == device))
}
