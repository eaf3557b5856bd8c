//! Volumes as the seam between the agent and the drivers sees them.
//!
//! Every copy is made from a snapshot, and a snapshot is made by whoever has the volume open: by the driver itself while
//! no guest does, else by the guest's machine ([`VolumeUser`]). So a copy is as of one moment, never waits for a guest and
//! never keeps one from attaching. A pool whose servers make snapshots by themselves (Ceph) takes no notice of the user;
//! encryption and backups would be further arguments of [`crate::Storage::volume_make`] and
//! [`crate::Storage::volume_export`].

use crate::{DiskFormat, ImageSource, PathBuf};
use arcus_types::{VolumeId, VolumeSnapshotId};
use async_trait::async_trait;
use std::collections::BTreeSet;

/// A volume, ready to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where the guest's machine finds it: a file, absolute.
    pub path: PathBuf,
    /// How its bytes are laid out.
    pub format: DiskFormat,
    /// What the guest sees, in bytes.
    pub size_bytes: u64,
    /// The snapshots that it has.
    pub snapshots: BTreeSet<VolumeSnapshotId>,
    /// The number of the last refill, 0 if it holds what it began as.
    pub refill: u64,
}

/// What a new volume begins as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeContent {
    /// Zeros.
    Blank,
    /// An image of the cache.
    Image(ImageSource),
    /// What another volume held when its snapshot was made.
    Snapshot {
        /// The other volume.
        volume: VolumeId,
        /// Its snapshot; nobody may remove it meanwhile.
        snapshot: VolumeSnapshotId,
    },
}

/// The guest's machine that has a volume open: it alone may change what the volume is made of.
#[async_trait]
pub trait VolumeUser: Send + Sync {
    /// Grows the volume; the guest sees it at once.
    async fn grow(&self, size_bytes: u64) -> Result<(), UserError>;

    /// Keeps what the volume holds now under this name.
    async fn snapshot_make(&self, name: &str) -> Result<(), UserError>;

    /// Forgets the snapshot of this name.
    async fn snapshot_remove(&self, name: &str) -> Result<(), UserError>;
}

/// What kept a guest's machine from doing something to a volume.
#[derive(Debug, thiserror::Error)]
#[error("the guest's machine failed")]
pub struct UserError {
    /// What failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
    /// Whether it may go better next time.
    pub transient: bool,
}
