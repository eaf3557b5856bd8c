//! Image cache, disks, exports and config drives of a node.
//!
//! [`Storage`] is the seam: [`dir`] keeps files under the node's state folder, [`sim`] pretends to, with seeded
//! delays and faults. Both pass one contract test suite. Every call may be repeated, cancelled (dropped) or cut
//! short by a crash at any instruction, and the next call finishes the work or starts it again.
//!
//! A caller must never run two calls that change the *same server's* disks at once, and must never call
//! [`Storage::root_disk_ensure`] with a new size or incarnation, nor [`Storage::export`], while a guest writes to that
//! disk: the drivers cannot see who holds a file.

#![forbid(unsafe_code)]

mod config_drive;
pub mod dir;
mod flights;
pub mod sim;
mod volumes;

pub use dir::{DirOptions, DirStorage};
pub use sim::{SimOptions, SimStorage};
pub use volumes::{UserError, Volume, VolumeContent, VolumeUser};

use arcus_types::agent::{DiskFormat, ImageSource, LocalDisksSpec, RootDiskSpec};
use arcus_types::{ServerId, VolumeId, VolumeSnapshotId};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use tokio::io::AsyncRead;

/// The most bytes that the files of a config drive may take together.
pub const CONFIG_DRIVE_BYTES_MAX: u64 = 64 << 20;

const EXPORT_NAME_CHARS_MAX: usize = 64;

fn is_export_name(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    plain && (1..=EXPORT_NAME_CHARS_MAX).contains(&name.len())
}

/// Whether the text is a SHA-256 as we write it; it is also a file's name then.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A size in whole sectors.
fn whole_sectors(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(512).unwrap_or(bytes)
}

/// An image's bytes as they come in.
pub type ImageBytes = Pin<Box<dyn AsyncRead + Send>>;

/// Where image bytes come from; the agent asks the server.
#[async_trait]
pub trait ImageFetch: Send + Sync {
    /// Starts to read `source` from its first byte.
    ///
    /// # Errors
    /// Whatever kept the bytes from coming; it ends up as the source of [`StorageError::Fetch`].
    async fn fetch(&self, source: &ImageSource) -> std::io::Result<ImageBytes>;
}

/// Storage that guests may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What is not in use, in bytes.
    pub free_bytes: u64,
}

/// A disk of a server, ready to be attached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Disk {
    /// The file, absolute.
    pub path: PathBuf,
    /// How its bytes are laid out: `Qcow2` for root disks, `Raw` for local disks and config drives.
    pub format: DiskFormat,
    /// What the guest sees, in bytes.
    pub size_bytes: u64,
    /// The incarnation of a root disk or a local one; 0 for a config drive.
    pub incarnation: u64,
    /// Set when the server was made from an ISO image: attach this file read-only as a CD and boot from it if the disk
    /// does not boot. The disk itself then began blank.
    pub cdrom: Option<PathBuf>,
}

/// A self-contained image of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The file, absolute: a compressed qcow2 without a backing file.
    pub path: PathBuf,
    /// Length of the file in bytes.
    pub size_bytes: u64,
    /// What a guest made of it would see, in bytes.
    pub virtual_size_bytes: u64,
    /// SHA-256 of the file in hexadecimal.
    pub sha256: String,
}

/// What a node keeps on disk.
#[async_trait]
pub trait Storage: Send + Sync {
    /// Storage that guests may use.
    async fn capacity(&self) -> Result<Capacity, StorageError>;

    /// The cached images by SHA-256, sorted.
    async fn images(&self) -> Result<Vec<String>, StorageError>;

    /// Puts the image into the cache unless it is there.
    ///
    /// Length and hash are checked as the bytes land, and the image is inspected before anything opens it; VMDK and VHD
    /// are converted to qcow2 then. Concurrent calls for one image share one fetch. `progress` gets the number of bytes
    /// that have landed, from 0 to `source.size_bytes`.
    ///
    /// # Errors
    /// [`StorageError::Fetch`] may be tried again; [`StorageError::Corrupt`] and [`StorageError::Refused`] mean that the
    /// bytes are not what the source says or not safe to run.
    async fn image_ensure(
        &self,
        source: &ImageSource,
        fetch: &dyn ImageFetch,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StorageError>;

    /// Removes the images that were not used for longest until the cache holds at most `bytes_max` bytes; answers what it
    /// removed. Never one of `keep`, and never one that a disk here is based on.
    async fn image_evict(&self, keep: &BTreeSet<String>, bytes_max: u64) -> Result<Vec<String>, StorageError>;

    /// The folder for everything else of a server (sockets, logs, saved memory): mode 0700, owned by `uid`. Made unless
    /// it is there; [`Storage::server_remove`] takes it away.
    async fn server_folder(&self, server: ServerId, uid: u32) -> Result<PathBuf, StorageError>;

    /// Makes the root disk unless it is there, or grows it; call only while no guest runs on it.
    ///
    /// A disk whose incarnation is `spec.incarnation` is never replaced, only grown; a lower one is thrown away and made
    /// again from the image, which must be in the cache. A size of 0 is the image's own. The file belongs to `uid`.
    ///
    /// # Errors
    /// [`StorageError::ImageAbsent`] asks for [`Storage::image_ensure`] first; [`StorageError::DiskTooSmall`] names both
    /// sizes; [`StorageError::Stale`] means that `spec` is older than the disk.
    async fn root_disk_ensure(&self, server: ServerId, spec: &RootDiskSpec, uid: u32) -> Result<Disk, StorageError>;

    /// Makes the disk that a server is rescued from, as [`Storage::root_disk_ensure`] makes its root disk; both may be
    /// there at once.
    ///
    /// # Errors
    /// As [`Storage::root_disk_ensure`].
    async fn rescue_disk_ensure(&self, server: ServerId, spec: &RootDiskSpec, uid: u32) -> Result<Disk, StorageError>;

    /// Removes the disk that a server was rescued from; nothing happens if there is none. Call only while no guest runs
    /// on it.
    async fn rescue_disk_remove(&self, server: ServerId) -> Result<(), StorageError>;

    /// Makes the server's local disks unless they are there, or grows them, and removes those that are not in `spec`: of an
    /// earlier incarnation, or not wished any more. Swap space of another size is made anew. Call only while no guest runs on
    /// them. The files belong to `uid`; the answer has them in the order of `spec`. New ones that are not `formatted` begin as
    /// zeros, for a guest that brings their content.
    ///
    /// # Errors
    /// [`StorageError::Tool`] if one could not be formatted; [`StorageError::Io`].
    async fn local_disks_ensure(
        &self,
        server: ServerId,
        spec: &LocalDisksSpec,
        uid: u32,
        formatted: bool,
    ) -> Result<Vec<Disk>, StorageError>;

    /// The root disk as it is, or `None`.
    async fn root_disk(&self, server: ServerId) -> Result<Option<Disk>, StorageError>;

    /// A read-only vfat drive labelled `config-2` with these files (path and content). The same files make the same
    /// bytes, and a drive that has them already is left alone.
    ///
    /// # Errors
    /// [`StorageError::ConfigDrive`] if the files do not fit or a path is not one.
    async fn config_drive_ensure(
        &self,
        server: ServerId,
        files: &BTreeMap<String, Vec<u8>>,
        uid: u32,
    ) -> Result<Disk, StorageError>;

    /// A full, self-contained, compressed qcow2 of `source`, a qcow2 disk of a server here that no guest writes to: its
    /// [`Disk::path`], or a copy in its [`Storage::server_folder`].
    /// `name` (`[A-Za-z0-9-]`, at most 64) tells exports apart; an earlier one of that name is replaced.
    async fn export(&self, source: &Path, name: &str) -> Result<Export, StorageError>;

    /// Removes an export; nothing happens if there is none.
    async fn export_remove(&self, name: &str) -> Result<(), StorageError>;

    /// The names of the exports that are here, sorted: what a restarted agent has to remove or go on with.
    async fn exports(&self) -> Result<Vec<String>, StorageError>;

    /// Makes a volume unless it is there; one that is there stays as it is. `size_bytes` is in whole sectors. `progress`
    /// gets 0 to 100.
    ///
    /// # Errors
    /// [`StorageError::ImageAbsent`] asks for [`Storage::image_ensure`] first; [`StorageError::DiskTooSmall`] and
    /// [`StorageError::VolumeTooSmall`] name both sizes; [`StorageError::SnapshotAbsent`] if there is nothing to copy.
    async fn volume_make(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        content: &VolumeContent,
        progress: &(dyn Fn(u8) + Sync),
    ) -> Result<Volume, StorageError>;

    /// Gives a volume other content: that of an image, with no snapshots left, or that of a snapshot of its own. Done once
    /// for each `number`, which is kept with the volume; an image also brings a volume back whose file is lost. No guest may
    /// have it open. After a failure it holds the one or the other.
    ///
    /// # Errors
    /// As [`Storage::volume_make`]; [`StorageError::VolumeAbsent`] if there is no volume to revert.
    async fn volume_refill(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        content: &VolumeContent,
        number: u64,
        progress: &(dyn Fn(u8) + Sync),
    ) -> Result<Volume, StorageError>;

    /// The volume as it is, or `None`.
    async fn volume(&self, volume: VolumeId) -> Result<Option<Volume>, StorageError>;

    /// Grows a volume to at least that size, by `user` if a guest has it open.
    async fn volume_grow(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        user: Option<&dyn VolumeUser>,
    ) -> Result<Volume, StorageError>;

    /// Keeps what the volume holds now under that name, unless the snapshot is there; by `user` if a guest has it open.
    async fn volume_snapshot_make(
        &self,
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
        user: Option<&dyn VolumeUser>,
    ) -> Result<(), StorageError>;

    /// Forgets a snapshot; nothing happens if it, or the volume, is not there. Nobody may be copying it.
    async fn volume_snapshot_remove(
        &self,
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
        user: Option<&dyn VolumeUser>,
    ) -> Result<(), StorageError>;

    /// Lets the guest with this user id open the volume, and only that one; `None` takes the right back from all.
    async fn volume_hand_over(&self, volume: VolumeId, uid: Option<u32>) -> Result<Volume, StorageError>;

    /// Removes a volume with its snapshots; nothing happens if it is not there. No guest may have it open.
    async fn volume_remove(&self, volume: VolumeId) -> Result<(), StorageError>;

    /// The volumes that have anything here, also unfinished ones, sorted.
    async fn volumes(&self) -> Result<Vec<VolumeId>, StorageError>;

    /// Like [`Storage::export`], of a volume's snapshot, in raw or in compressed qcow2.
    async fn volume_export(
        &self,
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
        name: &str,
        format: DiskFormat,
        progress: &(dyn Fn(u8) + Sync),
    ) -> Result<Export, StorageError>;

    /// Removes everything of a server; nothing happens if there is nothing. Call only when its guest has ended.
    async fn server_remove(&self, server: ServerId) -> Result<(), StorageError>;

    /// The servers that have anything here, sorted.
    async fn servers(&self) -> Result<Vec<ServerId>, StorageError>;
}

/// Why storage could not do it, split by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The bytes did not come; try again.
    #[error("image {image} could not be fetched")]
    Fetch {
        /// The image.
        image: arcus_types::ImageId,
        /// What failed.
        #[source]
        source: std::io::Error,
    },
    /// The bytes are others than the source says; trying again helps only if the transfer was broken.
    #[error("image {image} arrived damaged: {what}")]
    Corrupt {
        /// The image.
        image: arcus_types::ImageId,
        /// What differs.
        what: String,
    },
    /// The image is not safe to run, or not what it is said to be.
    #[error("image {image} is refused")]
    Refused {
        /// The image.
        image: arcus_types::ImageId,
        /// Why.
        #[source]
        source: arcus_formats::Unsafe,
    },
    /// The image must be put into the cache first.
    #[error("image {sha256} is not in this node's cache")]
    ImageAbsent {
        /// The image's SHA-256.
        sha256: String,
    },
    /// The flavor's disk is smaller than the image.
    #[error("the disk has {disk_bytes} bytes but image {image} needs at least {image_bytes}: choose a larger disk")]
    DiskTooSmall {
        /// The image.
        image: arcus_types::ImageId,
        /// What the disk would have, in bytes.
        disk_bytes: u64,
        /// What the image needs, in bytes.
        image_bytes: u64,
    },
    /// The volume must be made first.
    #[error("volume {volume} is not on this node")]
    VolumeAbsent {
        /// The volume.
        volume: VolumeId,
    },
    /// The volume was here once and is not any more.
    #[error("the files of volume {volume} are gone from this node")]
    VolumeLost {
        /// The volume.
        volume: VolumeId,
    },
    /// A guest has it open.
    #[error("a guest has volume {volume} open")]
    VolumeBusy {
        /// The volume.
        volume: VolumeId,
    },
    /// There is nothing to copy.
    #[error("volume {volume} has no snapshot {snapshot}")]
    SnapshotAbsent {
        /// The volume.
        volume: VolumeId,
        /// Its snapshot.
        snapshot: VolumeSnapshotId,
    },
    /// The new volume is smaller than what it shall hold.
    #[error("the volume has {volume_bytes} bytes but what it begins as has {source_bytes}: make it larger")]
    VolumeTooSmall {
        /// What the volume would have, in bytes.
        volume_bytes: u64,
        /// What it needs, in bytes.
        source_bytes: u64,
    },
    /// The guest's machine that has the volume open did not do it.
    #[error("the guest that has volume {volume} open did not {action}")]
    User {
        /// The volume.
        volume: VolumeId,
        /// What was tried, such as `grow it`.
        action: &'static str,
        /// What failed.
        #[source]
        source: UserError,
    },
    /// The wish is older than what is here.
    #[error("disk of server {server} has incarnation {have}, wanted is the older {wanted}")]
    Stale {
        /// The server.
        server: ServerId,
        /// What is here.
        have: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// The files do not make a config drive.
    #[error("config drive of server {server}: {what}")]
    ConfigDrive {
        /// The server.
        server: ServerId,
        /// What is wrong.
        what: String,
    },
    /// There is not enough room.
    #[error("{wanted_bytes} bytes are wanted and {free_bytes} are free")]
    Full {
        /// What was wanted, in bytes.
        wanted_bytes: u64,
        /// What is free, in bytes.
        free_bytes: u64,
    },
    /// A disk is not what this node made: its header was altered.
    #[error("disk {path} is damaged: {what}")]
    DiskDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The name is not one that an export may have.
    #[error("'{name}' is not a name for an export")]
    ExportName {
        /// What was given, cut.
        name: String,
    },
    /// A program failed or took more than its limits.
    #[error("{program} failed: {what}")]
    Tool {
        /// The program.
        program: &'static str,
        /// Its exit and the end of what it said.
        what: String,
        /// Whether it may go better next time.
        transient: bool,
    },
    /// The file system said no.
    #[error("could not {action} {path}")]
    Io {
        /// What was tried, such as `write`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What failed.
        #[source]
        source: std::io::Error,
    },
    /// The state folder cannot be used.
    #[error("folder {path} cannot hold this node's state: {what}")]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// Why.
        what: String,
    },
}

impl StorageError {
    /// Whether the same call may succeed later without anyone changing the wish.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Fetch { .. }
            | Self::Corrupt { .. }
            | Self::ImageAbsent { .. }
            | Self::VolumeAbsent { .. }
            | Self::VolumeBusy { .. }
            | Self::SnapshotAbsent { .. }
            | Self::Full { .. }
            | Self::Io { .. } => true,
            Self::User { source, .. } => source.transient,
            Self::Tool { transient, .. } => *transient,
            Self::Refused { .. }
            | Self::DiskTooSmall { .. }
            | Self::VolumeTooSmall { .. }
            | Self::VolumeLost { .. }
            | Self::Stale { .. }
            | Self::ConfigDrive { .. }
            | Self::DiskDamaged { .. }
            | Self::ExportName { .. }
            | Self::Unusable { .. } => false,
        }
    }

    /// A sentence for the server's owner, without paths or names of the node.
    pub fn public_message(&self) -> String {
        match self {
            Self::Fetch { .. } => "the image could not be fetched".into(),
            Self::Corrupt { .. } => "the image arrived damaged".into(),
            Self::Refused { source, .. } => format!("the image is refused: {source}"),
            Self::ImageAbsent { .. } => "the image is not ready on the node".into(),
            Self::DiskTooSmall { .. } | Self::VolumeTooSmall { .. } => self.to_string(),
            Self::VolumeAbsent { .. } => "the volume is not ready on the node".into(),
            Self::VolumeBusy { .. } => "a server still has the volume".into(),
            Self::VolumeLost { .. } => {
                "the volume's data is gone from its node: ask the operator to bring its file back, or delete the volume"
                    .into()
            }
            Self::SnapshotAbsent { .. } => "the snapshot is not ready on the node".into(),
            Self::User { action, .. } => format!("the guest's machine did not {action}"),
            Self::ConfigDrive { what, .. } => format!("the config drive could not be made: {what}"),
            Self::Full { .. } => "the node has not enough storage".into(),
            Self::Stale { .. }
            | Self::DiskDamaged { .. }
            | Self::ExportName { .. }
            | Self::Tool { .. }
            | Self::Io { .. }
            | Self::Unusable { .. } => "the node's storage failed".into(),
        }
    }
}
