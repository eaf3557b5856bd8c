//! What a node must bring about of volumes: a fixed number of queries for the whole node.

use crate::{Engine, EngineError};
use arcus_store::{QosSpecs, Volume, VolumeAttachment, VolumeOrigin};
use arcus_types::agent::{AttachmentSpec, DiskFormat, DiskQos, SnapshotSpec, VolumeRefill, VolumeSource, VolumeSpec};
use arcus_types::images::disk_format_from_name;
use arcus_types::volume_qos::disk_qos;
use arcus_types::volumes::{AttachmentStatus, VolumeSnapshotStatus, VolumeStatus};
use arcus_types::{NodeId, ServerId, VolumeId, VolumeSnapshotId};
use std::collections::HashMap;

const GIB: u64 = 1 << 30;

impl Engine {
    /// The volumes that must be in a node's pool, and the images to make of them. One that is being removed is left out:
    /// the node removes what its spec does not name.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn volume_specs(&self, node: NodeId) -> Result<(Vec<VolumeSpec>, Vec<SnapshotSpec>), EngineError> {
        let volumes = self.store().volume_list_by_node(node).await?;
        let mut snapshots: HashMap<VolumeId, Vec<VolumeSnapshotId>> = HashMap::new();
        for snapshot in self.store().volume_snapshots_by_node(node).await? {
            let wished = match snapshot.status {
                VolumeSnapshotStatus::Creating | VolumeSnapshotStatus::Available | VolumeSnapshotStatus::BackingUp => {
                    true
                }
                VolumeSnapshotStatus::Deleting | VolumeSnapshotStatus::Error | VolumeSnapshotStatus::ErrorDeleting => {
                    false
                }
            };
            if wished {
                snapshots.entry(snapshot.volume_id).or_default().push(snapshot.id);
            }
        }
        let specs = volumes
            .into_iter()
            .filter(|v| v.status != VolumeStatus::Deleting)
            .map(|volume| {
                let snapshots = snapshots.remove(&volume.id).unwrap_or_default();
                volume_spec(volume, snapshots)
            })
            .collect();
        let uploads = self.store().volume_uploads_by_node(node).await?;
        let uploads = uploads.into_iter().map(|upload| {
            let format = disk_format_from_name(&upload.disk_format).unwrap_or(DiskFormat::Qcow2);
            SnapshotSpec::of_volume(upload.image_id, upload.volume_id, format)
        });
        Ok((specs, uploads.collect()))
    }

    /// The volumes that the servers of a node shall have. One that is being given back is left out: the node takes it out
    /// of the guest.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub(crate) async fn attachment_specs(
        &self,
        node: NodeId,
    ) -> Result<HashMap<ServerId, Vec<AttachmentSpec>>, EngineError> {
        let mut out: HashMap<ServerId, Vec<AttachmentSpec>> = HashMap::new();
        let attachments = self.store().volume_attachments_by_node(node).await?;
        let limits = if attachments.is_empty() { HashMap::new() } else { self.volume_limits_on(node).await? };
        for attachment in attachments {
            let (Some(server), true) = (attachment.server_id, wished(attachment.status)) else { continue };
            let qos = limits.get(&attachment.volume_id).copied().unwrap_or_default();
            out.entry(server).or_default().push(attachment_spec(&attachment, qos));
        }
        Ok(out)
    }

    /// How fast the volumes of a node may be used, where their types limit that.
    async fn volume_limits_on(&self, node: NodeId) -> Result<HashMap<VolumeId, DiskQos>, EngineError> {
        let limited = self.store().qos_specs_by_node(node).await?;
        // What was once accepted and is no limit to this version limits nothing.
        let read = |(volume, specs): (VolumeId, QosSpecs)| {
            (volume, disk_qos(specs.consumer, &specs.specs).unwrap_or_default())
        };
        Ok(limited.into_iter().map(read).collect())
    }
}

const fn wished(status: AttachmentStatus) -> bool {
    match status {
        AttachmentStatus::Attaching | AttachmentStatus::Attached => true,
        AttachmentStatus::Reserved
        | AttachmentStatus::Detaching
        | AttachmentStatus::ErrorAttaching
        | AttachmentStatus::ErrorDetaching => false,
    }
}

fn volume_spec(volume: Volume, snapshots: Vec<VolumeSnapshotId>) -> VolumeSpec {
    VolumeSpec {
        id: volume.id,
        version: volume.version,
        size_bytes: volume.size_gib.saturating_mul(GIB),
        // What it was made of may be gone by now: only a volume that is not made yet still needs it.
        source: if volume.made { VolumeSource::Blank } else { source(volume.source) },
        made: volume.made,
        refill: volume.details.refill.map(|r| VolumeRefill { number: r.number, source: source(r.origin) }),
        snapshots,
    }
}

fn source(origin: VolumeOrigin) -> VolumeSource {
    match origin {
        VolumeOrigin::Blank => VolumeSource::Blank,
        VolumeOrigin::Image(image) => VolumeSource::Image(image),
        VolumeOrigin::Volume(volume_id) => VolumeSource::Volume { volume_id },
        VolumeOrigin::Snapshot { volume_id, snapshot_id } => VolumeSource::Snapshot { volume_id, snapshot_id },
    }
}

fn attachment_spec(attachment: &VolumeAttachment, qos: DiskQos) -> AttachmentSpec {
    let device = attachment.device.as_deref().unwrap_or_default();
    AttachmentSpec {
        attachment_id: attachment.id,
        volume_id: attachment.volume_id,
        read_only: attachment.read_only.unwrap_or(false),
        boot_index: attachment.boot_index,
        device: device.strip_prefix("/dev/").unwrap_or(device).to_owned(),
        qos,
    }
}
