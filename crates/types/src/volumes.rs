//! The life cycle of volumes, their snapshots and attachments: what state they are in, who may ask for what when.
//!
//! ```text
//! creating --Made--> available <--> reserved / attaching / in-use / detaching   (what the attachments say)
//!    |                  |   ^
//!    | MakeFailed       |   +-- extending, uploading, reverting, downloading, awaiting-transfer, maintenance
//!    v                  v
//!  error           deleting --> gone
//!    ^
//!    +-- RefillFailed, and Lost from any state in which it rests
//! ```
//! Pure: the engine applies these functions to rows, tests apply them to every pair.

use crate::images::words;
use crate::text::Rejected;

/// The largest volume, in GiB: 16 TiB, which every node's file system can hold as one sparse file.
pub const VOLUME_GIB_MAX: u64 = 16 * 1024;
/// The most key and value pairs of a volume or a snapshot.
pub const VOLUME_METADATA_MAX: usize = 128;
/// The longest name and description of a volume, in characters.
pub const VOLUME_TEXT_CHARS_MAX: usize = 255;
/// The most volumes that one server has.
pub const SERVER_VOLUMES_MAX: usize = 26;

words! {
    /// The state of a volume, in the words of the API.
    VolumeStatus, "volume status" {
        /// Its node makes it.
        Creating = "creating",
        /// It is there and nobody uses it.
        Available = "available",
        /// It is kept for a server that does not have it yet.
        Reserved = "reserved",
        /// A server is getting it.
        Attaching = "attaching",
        /// A server has it.
        InUse = "in-use",
        /// A server is giving it back.
        Detaching = "detaching",
        /// It is being made larger.
        Extending = "extending",
        /// An image is being made of it.
        Uploading = "uploading",
        /// It gets another type.
        Retyping = "retyping",
        /// It is being put back to what its last snapshot holds.
        Reverting = "reverting",
        /// It is being filled with another image.
        Downloading = "downloading",
        /// An operator has closed it.
        Maintenance = "maintenance",
        /// It is offered to another project.
        AwaitingTransfer = "awaiting-transfer",
        /// It is being copied to a backup.
        BackingUp = "backing-up",
        /// It is being filled from a backup.
        RestoringBackup = "restoring-backup",
        /// It is being removed.
        Deleting = "deleting",
        /// It could not be made, or an operator says that something is wrong.
        Error = "error",
        /// It could not be removed.
        ErrorDeleting = "error_deleting",
        /// It could not be made larger.
        ErrorExtending = "error_extending",
        /// It could not be filled from a backup.
        ErrorRestoring = "error_restoring",
    }
}

words! {
    /// The state of a snapshot, in the words of the API.
    VolumeSnapshotStatus, "snapshot status" {
        /// Its node makes it.
        Creating = "creating",
        /// It is there.
        Available = "available",
        /// It is being copied to a backup.
        BackingUp = "backing-up",
        /// It is being removed.
        Deleting = "deleting",
        /// It could not be made, or an operator says that something is wrong.
        Error = "error",
        /// It could not be removed.
        ErrorDeleting = "error_deleting",
    }
}

words! {
    /// The state of a group of volumes or of its snapshot, in the words of the API.
    VolumeGroupStatus, "group status" {
        /// Volumes or snapshots are being made for it.
        Creating = "creating",
        /// It is there.
        Available = "available",
        /// It is being changed.
        Updating = "updating",
        /// It goes when its volumes or snapshots are gone.
        Deleting = "deleting",
        /// Something for it could not be made, or an operator says that something is wrong.
        Error = "error",
        /// It could not be removed.
        ErrorDeleting = "error_deleting",
    }
}

words! {
    /// The state of an attachment, in the words of the API.
    AttachmentStatus, "attachment status" {
        /// The volume is kept for the server.
        Reserved = "reserved",
        /// The server is getting it.
        Attaching = "attaching",
        /// The server has it.
        Attached = "attached",
        /// The server is giving it back.
        Detaching = "detaching",
        /// The server could not get it.
        ErrorAttaching = "error_attaching",
        /// The server could not give it back.
        ErrorDetaching = "error_detaching",
    }
}

words! {
    /// What a user can ask of a volume that exists. The text is the one in refusals.
    VolumeRequest, "volume request" {
        /// Keep it for a server.
        Reserve = "reserve",
        /// Give it to a server.
        Attach = "attach",
        /// Take it from a server.
        Detach = "detach",
        /// Make it larger.
        Extend = "extend",
        /// Make an image of it.
        Upload = "upload",
        /// Give it another type.
        Retype = "retype",
        /// Put it back to what its last snapshot holds.
        Revert = "revert",
        /// Fill it with another image.
        Reimage = "re-image",
        /// Fill it with another image although it is kept for a server.
        ReimageReserved = "re-image while reserved",
        /// Put it into a group.
        Group = "group",
        /// Offer it to another project.
        Transfer = "transfer",
        /// Make a snapshot of it.
        Snapshot = "snapshot",
        /// Make a snapshot of it although a server uses it.
        SnapshotForced = "forced snapshot",
        /// Make another volume of it.
        Clone = "clone",
        /// Make it read-only, or not.
        ReadOnly = "update the read-only flag",
        /// Change its metadata.
        Metadata = "update metadata",
        /// Remove it.
        Delete = "delete",
        /// Remove it, whatever its state.
        DeleteForced = "force delete",
    }
}

/// What a node has done, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VolumeEvent {
    /// It is there with all its bytes.
    Made,
    /// It could not be made.
    MakeFailed,
    /// It has its new size.
    Extended,
    /// It could not be made larger.
    ExtendFailed,
    /// It holds what was asked for in place of what it held.
    Refilled,
    /// It could not be given other content.
    RefillFailed,
    /// Its node does not have it any more.
    Lost,
    /// Its node has it again.
    Found,
    /// The image that was made of it is complete, or was given up.
    UploadEnded,
    /// It was not removed in time.
    DeleteFailed,
}

impl VolumeEvent {
    /// Every event.
    pub const ALL: &[VolumeEvent] = &[
        Self::Made,
        Self::MakeFailed,
        Self::Extended,
        Self::ExtendFailed,
        Self::Refilled,
        Self::RefillFailed,
        Self::Lost,
        Self::Found,
        Self::UploadEnded,
        Self::DeleteFailed,
    ];

    /// The states that this is about; in all others it changes nothing.
    pub const fn states(self) -> &'static [VolumeStatus] {
        use VolumeStatus as S;
        match self {
            // An error of the making may have passed: the node goes on trying.
            Self::Made => &[S::Creating, S::Error],
            // A volume that servers wait for may be made, or fail, while it is kept for them.
            Self::MakeFailed => &[S::Creating, S::Reserved, S::Attaching],
            Self::Extended => &[S::Extending, S::ErrorExtending],
            Self::ExtendFailed => &[S::Extending],
            Self::Refilled | Self::RefillFailed => &[S::Reverting, S::Downloading],
            Self::Lost => {
                &[S::Available, S::Reserved, S::Attaching, S::InUse, S::Detaching, S::Uploading, S::Maintenance]
            }
            Self::Found => &[S::Error],
            Self::UploadEnded => &[S::Uploading],
            Self::DeleteFailed => &[S::Deleting],
        }
    }
}

impl VolumeStatus {
    /// The status after `event`; `None` if the event does not fit it. `resting` is what the attachments say:
    /// [`VolumeStatus::of_attachments`].
    pub fn after(self, event: VolumeEvent, resting: VolumeStatus) -> Option<VolumeStatus> {
        use VolumeEvent as E;
        event.states().contains(&self).then_some(match event {
            E::Made | E::Extended | E::Refilled | E::Found | E::UploadEnded => resting,
            E::MakeFailed | E::RefillFailed | E::Lost => Self::Error,
            E::ExtendFailed => Self::ErrorExtending,
            E::DeleteFailed => Self::ErrorDeleting,
        })
    }

    /// Whether this is nothing but what the attachments make of the volume.
    pub const fn follows_attachments(self) -> bool {
        match self {
            Self::Available | Self::Reserved | Self::Attaching | Self::InUse | Self::Detaching => true,
            Self::Creating
            | Self::Extending
            | Self::Uploading
            | Self::Retyping
            | Self::Reverting
            | Self::Downloading
            | Self::Maintenance
            | Self::AwaitingTransfer
            | Self::BackingUp
            | Self::RestoringBackup
            | Self::Deleting
            | Self::Error
            | Self::ErrorDeleting
            | Self::ErrorExtending
            | Self::ErrorRestoring => false,
        }
    }

    /// What the attachments of a volume make of it: the strongest of them counts.
    pub fn of_attachments(attachments: impl IntoIterator<Item = AttachmentStatus>) -> VolumeStatus {
        let rank = |status| match status {
            AttachmentStatus::Attached | AttachmentStatus::ErrorDetaching => (4, Self::InUse),
            AttachmentStatus::Detaching => (3, Self::Detaching),
            AttachmentStatus::Attaching => (2, Self::Attaching),
            AttachmentStatus::Reserved => (1, Self::Reserved),
            AttachmentStatus::ErrorAttaching => (0, Self::Available),
        };
        attachments.into_iter().map(rank).max_by_key(|(strength, _)| *strength).map_or(Self::Available, |(_, s)| s)
    }

    /// How long this may last, in seconds; `None` is for ever.
    pub const fn deadline_s(self) -> Option<i64> {
        match self {
            Self::Creating
            | Self::Retyping
            | Self::Reverting
            | Self::Downloading
            | Self::RestoringBackup
            | Self::BackingUp => Some(30 * 60),
            Self::Uploading => Some(6 * 60 * 60),
            Self::Extending | Self::Deleting => Some(10 * 60),
            Self::Available
            | Self::Reserved
            | Self::Attaching
            | Self::InUse
            | Self::Detaching
            | Self::Maintenance
            | Self::AwaitingTransfer
            | Self::Error
            | Self::ErrorDeleting
            | Self::ErrorExtending
            | Self::ErrorRestoring => None,
        }
    }
}

impl VolumeRequest {
    /// The states in which this may be asked. What a volume that several servers may share admits besides is the
    /// caller's to add.
    ///
    /// Source: the block storage API guide; the lists are those of its reference implementation.
    pub const fn states(self) -> &'static [VolumeStatus] {
        use VolumeStatus as S;
        match self {
            Self::Reserve => &[S::Available],
            Self::Attach => &[S::Available, S::Reserved, S::Attaching],
            Self::Detach => &[S::InUse, S::Detaching, S::Attaching, S::Reserved],
            Self::Extend => &[S::Available, S::InUse],
            Self::Upload => &[S::Available, S::InUse],
            Self::Retype => &[S::Available, S::InUse],
            Self::Revert => &[S::Available],
            Self::Reimage => &[S::Available, S::Error],
            Self::ReimageReserved => &[S::Available, S::Error, S::Reserved],
            Self::Group => &[S::Available, S::InUse],
            Self::Transfer => &[S::Available],
            Self::Snapshot => &[S::Available],
            Self::SnapshotForced | Self::Clone => &[S::Available, S::InUse],
            Self::ReadOnly => &[S::Available],
            Self::Metadata => &[
                S::Creating,
                S::Available,
                S::Reserved,
                S::Attaching,
                S::InUse,
                S::Detaching,
                S::Extending,
                S::Uploading,
                S::Retyping,
                S::Reverting,
                S::Downloading,
                S::AwaitingTransfer,
                S::BackingUp,
                S::RestoringBackup,
                S::Error,
                S::ErrorDeleting,
                S::ErrorExtending,
                S::ErrorRestoring,
            ],
            Self::Delete => {
                &[S::Available, S::Error, S::ErrorDeleting, S::ErrorExtending, S::ErrorRestoring, S::Deleting]
            }
            Self::DeleteForced => VolumeStatus::ALL,
        }
    }

    /// Whether this may be asked of a volume in this state.
    pub fn admits(self, status: VolumeStatus) -> bool {
        self.states().contains(&status)
    }
}

impl VolumeSnapshotStatus {
    /// How long this may last, in seconds; `None` is for ever.
    pub const fn deadline_s(self) -> Option<i64> {
        match self {
            Self::Creating | Self::BackingUp => Some(30 * 60),
            Self::Deleting => Some(10 * 60),
            Self::Available | Self::Error | Self::ErrorDeleting => None,
        }
    }

    /// Whether it may be removed.
    pub const fn deletable(self) -> bool {
        match self {
            Self::Available | Self::Error | Self::ErrorDeleting => true,
            Self::Creating | Self::BackingUp | Self::Deleting => false,
        }
    }
}

impl AttachmentStatus {
    /// How long a server may take to get or to give back a volume, in seconds; `None` is for ever.
    pub const fn deadline_s(self) -> Option<i64> {
        match self {
            // A server that is being built gets its volumes only when its image is there.
            Self::Attaching => Some(30 * 60),
            Self::Detaching => Some(10 * 60),
            Self::Reserved | Self::Attached | Self::ErrorAttaching | Self::ErrorDetaching => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_read_back() {
        for status in VolumeStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(*status));
        }
        assert_eq!("in-use".parse(), Ok(VolumeStatus::InUse));
        assert!("used".parse::<VolumeStatus>().is_err());
    }

    #[test]
    fn a_volume_that_is_used_is_not_removed() {
        for status in [VolumeStatus::InUse, VolumeStatus::Attaching, VolumeStatus::Detaching, VolumeStatus::Reserved] {
            assert!(!VolumeRequest::Delete.admits(status), "{status}");
        }
        assert!(VolumeRequest::Delete.admits(VolumeStatus::Error));
    }

    #[test]
    fn what_takes_time_ends_by_an_event_or_a_deadline() {
        for &status in VolumeStatus::ALL {
            let out = VolumeEvent::ALL.iter().any(|e| status.after(*e, VolumeStatus::Available).is_some());
            if status.deadline_s().is_some() && status != VolumeStatus::Retyping {
                let by_backup = matches!(status, VolumeStatus::BackingUp | VolumeStatus::RestoringBackup);
                assert!(out || by_backup, "{status} has no way out");
            }
        }
    }

    #[test]
    fn a_volume_that_is_lost_is_in_error_wherever_it_rested() {
        for &status in VolumeStatus::ALL.iter().filter(|s| s.follows_attachments()) {
            assert_eq!(status.after(VolumeEvent::Lost, status), Some(VolumeStatus::Error), "{status}");
        }
        assert_eq!(VolumeStatus::Deleting.after(VolumeEvent::Lost, VolumeStatus::Available), None);
    }

    #[test]
    fn the_strongest_attachment_counts() {
        use AttachmentStatus::*;
        assert_eq!(VolumeStatus::of_attachments([]), VolumeStatus::Available);
        assert_eq!(VolumeStatus::of_attachments([Reserved]), VolumeStatus::Reserved);
        assert_eq!(VolumeStatus::of_attachments([Attaching, Attached]), VolumeStatus::InUse);
        assert_eq!(VolumeStatus::of_attachments([Detaching, Reserved]), VolumeStatus::Detaching);
        assert_eq!(VolumeStatus::of_attachments([ErrorAttaching]), VolumeStatus::Available);
    }

    #[test]
    fn a_report_moves_only_what_it_is_about() {
        let rest = VolumeStatus::Available;
        assert_eq!(VolumeStatus::Creating.after(VolumeEvent::Made, rest), Some(rest));
        assert_eq!(
            VolumeStatus::Extending.after(VolumeEvent::Extended, VolumeStatus::InUse),
            Some(VolumeStatus::InUse)
        );
        assert_eq!(VolumeStatus::InUse.after(VolumeEvent::Made, rest), None);
        assert_eq!(VolumeStatus::Deleting.after(VolumeEvent::Made, rest), None);
    }
}
