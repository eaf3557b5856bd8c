//! How a server runs, and the password that its guest left.

use super::Answer;
use crate::auth::Ctx;
use crate::body::Id;
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::servers::ServerView;
use arcus_types::ServerId;
use arcus_types::servers::PowerState;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// The figures of each hypervisor's own before 2.48, and the common ones since then. What nobody measures is null.
fn diagnostics(view: &ServerView, version: Microversion) -> Value {
    let s = &view.server;
    let (cpus, nics, memory) = (s.flavor.vcpus, s.details.ports.len(), s.flavor.memory_mib);
    if !version.at_least(48) {
        return json!({ "memory": memory * 1024, "memory-actual": memory * 1024, "cpus": cpus, "nics": nics });
    }
    let state = match s.power_state {
        PowerState::NoState => "pending",
        PowerState::Running => "running",
        PowerState::Paused => "paused",
        PowerState::Shutdown => "shutdown",
        PowerState::Crashed => "crashed",
        PowerState::Suspended => "suspended",
    };
    let mut macs: Vec<String> =
        view.addresses.values().flatten().filter(|a| !a.floating).map(|a| a.mac.to_string()).collect();
    macs.sort_unstable();
    macs.dedup();
    let nic = |mac: &String| {
        json!({ "mac_address": mac, "rx_octets": null, "rx_errors": null, "rx_drop": null, "rx_packets": null,
            "rx_rate": null, "tx_octets": null, "tx_errors": null, "tx_drop": null, "tx_packets": null, "tx_rate": null })
    };
    let cpu = |id: u32| json!({ "id": id, "time": null, "utilisation": null });
    let disk = json!({ "read_bytes": null, "read_requests": null, "write_bytes": null, "write_requests": null,
        "errors_count": null });
    json!({
        "state": state,
        // The driver's word in that list that QEMU goes by.
        "driver": "libvirt",
        "hypervisor": "qemu",
        "hypervisor_os": "linux",
        "uptime": null,
        "config_drive": s.details.config_drive,
        "num_cpus": cpus,
        "num_nics": nics,
        "num_disks": 1,
        "memory_details": { "maximum": memory, "used": null },
        "cpu_details": (0..cpus).map(cpu).collect::<Vec<_>>(),
        "nic_details": macs.iter().map(nic).collect::<Vec<_>>(),
        "disk_details": [disk],
    })
}

/// `GET /servers/{id}/diagnostics`
pub async fn diagnostics_show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ServerId>,
) -> Answer {
    let view = app.engine.server_diagnostics(&ctx, id).await?;
    Ok(axum::Json(diagnostics(&view, version)))
}

/// `GET /servers/{id}/os-server-password`: what the guest left, encrypted with the public key of the server's key pair.
pub async fn password(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ServerId>) -> Answer {
    let password = app.engine.server_password_left(&ctx, id).await?;
    Ok(axum::Json(json!({ "password": password.unwrap_or_default() })))
}

/// `DELETE /servers/{id}/os-server-password`
pub async fn password_clear(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ServerId>,
) -> Result<StatusCode, ApiError> {
    app.engine.server_password_left_clear(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
