//! Volumes in the agent protocol: block devices that outlive the servers they are attached to.
//!
//! ```text
//! VolumeSpec named the first time --> Preparing --> Ready --(larger size_bytes)--> Preparing --> Ready
//!                                        '--> Failed: tried again while it is named, if the fault is transient
//! VolumeSpec no longer named -------> Removing --> no longer reported
//! VolumeSpec with `made`, not there -> Failed: it was lost, and is never made anew
//! ```
//! A volume lives on the one node whose spec names it. It has one writer: the guest that it is attached to, or the node
//! itself while it is attached nowhere. A guest is never given a volume that is not ready, and a volume is neither removed
//! nor copied behind the back of a guest that has it open.

use super::{DiskFormat, Fault, ImageSource};
use crate::ids::*;
use serde::{Deserialize, Serialize};

/// A volume that the node must keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// The volume.
    pub id: VolumeId,
    /// Rises with every wish concerning this volume; the report says up to which one the node has acted.
    pub version: u64,
    /// Its size in bytes, whole sectors of 512. Larger than it is: it grows, also while attached to a running guest.
    /// Never smaller than it is.
    pub size_bytes: u64,
    /// What it begins as: used once, when it is made. What it names must be on this node until then.
    pub source: VolumeSource,
    /// Whether the node has reported it ready before. Then it must be there: if it is not, it was lost, and an empty one in
    /// its place would hide that.
    #[serde(default)]
    pub made: bool,
    /// What it shall hold in place of what it holds.
    #[serde(default)]
    pub refill: Option<VolumeRefill>,
    /// Its snapshots. One that is not there is made of what the volume holds now; one that is not named is deleted.
    #[serde(default)]
    pub snapshots: Vec<VolumeSnapshotId>,
}

/// What a volume begins as: always a full copy of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeSource {
    /// Zeros.
    #[default]
    Blank,
    /// An image's content.
    Image(ImageSource),
    /// What another volume of this node holds at one moment. If a guest is writing to it, the copy is as after a power
    /// loss at that moment.
    Volume {
        /// The other volume.
        volume_id: VolumeId,
    },
    /// What another volume of this node held when the snapshot was made.
    Snapshot {
        /// The other volume.
        volume_id: VolumeId,
        /// Its snapshot.
        snapshot_id: VolumeSnapshotId,
    },
}

/// Other content for a volume that is there. The node waits until no machine has the volume open; the server that has it,
/// if one has, is wished to be stopped until this is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRefill {
    /// Rises with every refill. The node keeps the number of the last one with the volume and does none twice.
    pub number: u64,
    /// An image, or a snapshot of this very volume.
    pub source: VolumeSource,
}

/// A volume that a server has, or shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentSpec {
    /// The attachment.
    pub attachment_id: AttachmentId,
    /// The volume; the node waits until it is ready.
    pub volume_id: VolumeId,
    /// Whether the guest may only read it.
    #[serde(default)]
    pub read_only: bool,
    /// The place in the order in which the firmware looks for something to boot; `None` is never.
    #[serde(default)]
    pub boot_index: Option<u32>,
    /// The name that users are told, such as `vdb`. Guests name devices themselves: they find a volume by its serial.
    #[serde(default)]
    pub device: String,
    /// How fast the guest may read and write; a change takes effect on a running guest.
    #[serde(default)]
    pub qos: DiskQos,
}

/// How fast a guest may use a disk. 0 is no limit. A total and its parts exclude each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskQos {
    /// Reads and writes in a second.
    pub total_iops_sec: u64,
    /// Reads in a second.
    pub read_iops_sec: u64,
    /// Writes in a second.
    pub write_iops_sec: u64,
    /// Bytes read and written in a second.
    pub total_bytes_sec: u64,
    /// Bytes read in a second.
    pub read_bytes_sec: u64,
    /// Bytes written in a second.
    pub write_bytes_sec: u64,
    /// What `total_iops_sec` may rise to for about a second.
    pub total_iops_sec_max: u64,
    /// What `read_iops_sec` may rise to for about a second.
    pub read_iops_sec_max: u64,
    /// What `write_iops_sec` may rise to for about a second.
    pub write_iops_sec_max: u64,
    /// What `total_bytes_sec` may rise to for about a second.
    pub total_bytes_sec_max: u64,
    /// What `read_bytes_sec` may rise to for about a second.
    pub read_bytes_sec_max: u64,
    /// What `write_bytes_sec` may rise to for about a second.
    pub write_bytes_sec_max: u64,
    /// An operation longer than this many bytes counts as several.
    pub size_iops_sec: u64,
}

impl DiskQos {
    /// Whether there is no limit at all.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// The serial number that a guest sees on a volume: the first 20 characters of its id, as much as a virtio disk shows.
pub fn volume_serial(volume: VolumeId) -> String {
    volume.to_string().chars().take(20).collect()
}

/// What a node has observed of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeReport {
    /// The volume.
    pub id: VolumeId,
    /// The wish that the node has acted on, in full or as far as a fault lets it.
    pub version: u64,
    /// How far it is.
    pub state: VolumeState,
    /// How large it is, in bytes; 0 until it is made.
    pub size_bytes: u64,
    /// Its snapshots: those that the spec names and those that are still here.
    #[serde(default)]
    pub snapshots: Vec<VolumeSnapshotReport>,
}

/// Why a volume could not be put into a guest's machine or taken out of it. The server itself goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentFault {
    /// The volume.
    pub volume_id: VolumeId,
    /// What is wrong; if it is transient, the node goes on trying.
    pub fault: Fault,
}

/// How far a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// It is being made, filled or grown.
    Preparing {
        /// What is being done, such as `fetching the image`.
        step: String,
        /// How far that is, 0 to 100.
        progress_percent: u8,
    },
    /// It can be attached.
    Ready,
    /// It cannot be brought to the wished state.
    Failed(Fault),
    /// It is no longer wished for and on its way out; when nothing of it is left, it is no longer reported.
    Removing,
}

/// What a node has observed of one snapshot of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSnapshotReport {
    /// The snapshot.
    pub id: VolumeSnapshotId,
    /// How far it is.
    pub state: VolumeSnapshotState,
}

/// How far a snapshot of a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeSnapshotState {
    /// It is being made.
    Making,
    /// It is there.
    Ready,
    /// It could not be made.
    Failed(Fault),
    /// It is no longer wished for and on its way out.
    Removing,
}

/// The layout of an image that is made on a node, unless the spec says another.
pub(super) fn upload_format_default() -> DiskFormat {
    DiskFormat::Qcow2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_as_long_as_a_virtio_disk_shows() {
        let volume: VolumeId = "0b8c6c5e-a1f2-4c1c-8b4a-3f2d1e0c9b8a".parse().unwrap();
        assert_eq!(volume_serial(volume), "0b8c6c5e-a1f2-4c1c-8");
    }

    #[test]
    fn an_attachment_without_limits_is_read_with_defaults() {
        let (attachment, volume) = (AttachmentId::new(), VolumeId::new());
        let text =
            format!(r#"{{"attachment_id": "{attachment}", "volume_id": "{volume}", "qos": {{"read_iops_sec": 9}}}}"#);
        let spec: AttachmentSpec = serde_json::from_str(&text).unwrap();
        assert_eq!(spec.qos, DiskQos { read_iops_sec: 9, ..DiskQos::default() });
        assert!(!spec.qos.is_unlimited() && spec.boot_index.is_none() && !spec.read_only);
    }
}
