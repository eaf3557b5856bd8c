//! Images of servers that boot from a volume: snapshots of all their volumes, and an image without bytes whose property
//! `block_device_mapping` names these. A server that is made of such an image gets volumes made of the snapshots.
//!
//! The property is a tenant's text as any other: what is read back is checked as if it came in the request.

use super::create::{DiskSource, DiskWish, ServerNew, invalid_mapping};
use super::image::{SnapshotWish, snapshot_properties};
use crate::volume_snapshots::VolumeSnapshotNew;
use crate::volumes::invalid_volume;
use crate::{Engine, EngineError};
use arcus_store::{Image, Server, Tx, VolumeAttachment, VolumeSnapshot};
use arcus_types::policy::volume as policy;
use arcus_types::volumes::{SERVER_VOLUMES_MAX, VolumeRequest};
use arcus_types::{ImageId, OpCtx, VolumeId, VolumeSnapshotId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The property that holds the mappings, as a list in JSON.
const MAPPINGS: &str = "block_device_mapping";
/// The property that says that the mappings are of the present form.
const MAPPINGS_V2: &str = "bdm_v2";

/// One mapping of an image, as far as it says something here.
#[derive(Debug, Deserialize)]
struct Mapping {
    source_type: String,
    destination_type: Option<String>,
    snapshot_id: Option<VolumeSnapshotId>,
    volume_id: Option<VolumeId>,
    image_id: Option<ImageId>,
    boot_index: Option<i64>,
    volume_size: Option<u64>,
    volume_type: Option<String>,
    delete_on_termination: Option<bool>,
    device_name: Option<String>,
    tag: Option<String>,
}

impl Engine {
    /// Snapshots all volumes of a server and records the image that names them. The caller holds the server, has checked
    /// its state, and commits.
    pub(super) async fn volumes_image_in(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        server: &Server,
        wish: &SnapshotWish,
    ) -> Result<ImageId, EngineError> {
        let mut attachments = tx.volume_attachments_by_servers(&[server.id]).await?;
        attachments.sort_by_key(|a| (a.boot_index.unwrap_or(u32::MAX), a.device.clone()));
        let (mut mappings, mut root) = (Vec::new(), None);
        for attachment in &attachments {
            let mut volume = self.volume_held(tx, ctx, policy::SNAPSHOT_CREATE, attachment.volume_id).await?;
            if !VolumeRequest::SnapshotForced.admits(volume.status) || !volume.made {
                return Err(invalid_volume(format!(
                    "Volume {} status must be available or in-use, but current status is: {}.",
                    volume.id, volume.status
                )));
            }
            let new = VolumeSnapshotNew {
                volume_id: volume.id,
                name: Some(format!("snapshot for {}", wish.name).chars().take(255).collect()),
                description: volume.description.clone(),
                metadata: BTreeMap::new(),
                force: true,
                group_snapshot_id: None,
            };
            let snapshot = self.volume_snapshot_insert_in(tx, &mut volume, &new).await?;
            mappings.push(mapping(attachment, &snapshot));
            if attachment.boot_index == Some(0) {
                root = Some(volume);
            }
        }
        let began = root.and_then(|volume| volume.image_metadata).unwrap_or_default();
        let mut properties: BTreeMap<String, String> = root_properties(&began);
        properties.extend(snapshot_properties(server, wish));
        properties.insert("root_device_name".into(), "/dev/vda".into());
        properties.insert(MAPPINGS.into(), Value::Array(mappings).to_string());
        properties.insert(MAPPINGS_V2.into(), "True".into());
        let base = began.get("image_id").and_then(|id| id.parse().ok());
        match &base {
            Some(id) => properties.insert("base_image_ref".into(), ImageId::to_string(id)),
            None => properties.remove("base_image_ref"),
        };
        self.image_byteless_in(tx, ctx, server.project_id, wish.name.clone(), base, properties).await
    }

    /// What is asked for, with the volumes that its image names in place of a root disk made of that image.
    pub(super) async fn mappings_of_image(&self, ctx: &OpCtx, mut new: ServerNew) -> Result<ServerNew, EngineError> {
        let of_root = new.disks.iter().position(|d| d.boot_index == Some(0));
        let named = match (new.image_id, of_root.and_then(|i| new.disks.get(i)).map(|d| d.source)) {
            (Some(image), _) => image,
            (None, Some(DiskSource::Image(image))) => image,
            (None, Some(DiskSource::Blank | DiskSource::Snapshot(_) | DiskSource::Volume(_)) | None) => return Ok(new),
        };
        let image = self.image_for_boot(ctx, named).await?;
        let mut mapped = mappings(&image)?;
        if mapped.is_empty() {
            return Ok(new);
        }
        if mapped.iter().any(|d| d.boot_index == Some(0))
            && let (None, Some(root)) = (new.image_id.take(), of_root)
        {
            new.disks.remove(root);
        }
        // What the request says of a device counts.
        mapped.retain(|m| m.device.is_none() || new.disks.iter().all(|d| d.device != m.device));
        mapped.append(&mut new.disks);
        new.disks = mapped;
        Ok(new)
    }
}

/// What a volume that begins as an image says of the server that boots from it.
pub(super) fn root_properties(of_volume: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let kept = |key: &str| key.starts_with("hw_") || key.starts_with("os_") || key == "architecture";
    of_volume.iter().filter(|(key, _)| kept(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Source: the compute API guide, "Block device mapping in images", and the fields that its reference implementation
/// writes.
fn mapping(attachment: &VolumeAttachment, snapshot: &VolumeSnapshot) -> Value {
    json!({
        "source_type": "snapshot",
        "destination_type": "volume",
        "snapshot_id": snapshot.id,
        "boot_index": attachment.boot_index,
        "volume_size": snapshot.size_gib,
        "delete_on_termination": attachment.delete_on_termination,
        "device_name": attachment.device,
        "device_type": "disk",
        "disk_bus": "virtio",
        "guest_format": null,
        "image_id": null,
        "no_device": null,
        "tag": null,
        "volume_id": null,
        "volume_type": null,
    })
}

/// The volumes that an image names; none if it names none.
fn mappings(image: &Image) -> Result<Vec<DiskWish>, EngineError> {
    let is = |name: &str| image.properties.get(name).is_some_and(|v| matches!(v.to_lowercase().as_str(), "true" | "1"));
    let Some(text) = image.properties.get(MAPPINGS).filter(|_| is(MAPPINGS_V2)) else { return Ok(Vec::new()) };
    let unread = |why: &str| invalid_mapping(format!("the property {MAPPINGS} of image {} {why}.", image.id));
    let read: Vec<Mapping> = serde_json::from_str(text).map_err(|_| unread("is no list of mappings"))?;
    if read.len() > SERVER_VOLUMES_MAX {
        return Err(unread("has too many mappings"));
    }
    let mut disks = Vec::new();
    for mapping in read {
        let source = match (mapping.source_type.as_str(), mapping.destination_type.as_deref()) {
            ("snapshot", None | Some("volume")) => mapping.snapshot_id.map(DiskSource::Snapshot),
            ("volume", None | Some("volume")) => mapping.volume_id.map(DiskSource::Volume),
            ("image", Some("volume")) => mapping.image_id.map(DiskSource::Image),
            ("blank", Some("volume")) => Some(DiskSource::Blank),
            _ => return Err(unread("asks for local disks, which this cloud does not make of mappings")),
        };
        let boot_index = mapping.boot_index.and_then(|n| u32::try_from(n).ok());
        disks.push(DiskWish {
            source: source.ok_or_else(|| unread("does not say of what"))?,
            boot_index,
            size_gib: mapping.volume_size,
            volume_type: mapping.volume_type.filter(|t| !t.is_empty()),
            delete_on_termination: mapping.delete_on_termination.unwrap_or(false),
            device: mapping.device_name.filter(|_| boot_index != Some(0)),
            tag: mapping.tag,
        });
    }
    Ok(disks)
}
