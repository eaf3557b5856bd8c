//! The life cycle of an image, and the words that describe one.
//!
//! ```text
//! queued --upload begins---> saving --all bytes are good--> active <--> deactivated
//!  ^  \--staging begins--> uploading --imported, once all bytes are good--^
//!  ^------------------------/ refused, broken off or crashed
//! ```
//! Bytes that are staged for an import are judged as they arrive, as in an upload: the import makes them the image's, and
//! is done at once.
//! Deletion ends every state; a deleted image has no record.

use crate::agent::DiskFormat;
use crate::text::Rejected;

/// Declares an enum that is kept and shown as text.
macro_rules! words { ($(#[$doc:meta])* $name:ident, $kind:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
    $(#[$doc])*
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum $name { $($(#[$vdoc])* $variant),* }

    impl $name {
        /// Every value.
        pub const ALL: &[$name] = &[$($name::$variant),*];

        /// The word in the database and in the API.
        pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text),* } }
    }

    impl std::fmt::Display for $name {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
    }

    impl std::str::FromStr for $name {
        type Err = Rejected;
        fn from_str(text: &str) -> Result<Self, Rejected> {
            Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| {
                let all: Vec<_> = Self::ALL.iter().map(|value| value.as_str()).collect();
                let shown: String = text.chars().take(64).collect();
                Rejected(format!(concat!("'{}' is not a valid ", $kind, "; it must be one of: {}."), shown, all.join(", ")))
            })
        }
    }
}; }
pub(crate) use words;

words! {
    /// How far an image is.
    ImageStatus, "image status" {
        /// Described; its bytes are awaited.
        Queued = "queued",
        /// Its bytes are arriving.
        Saving = "saving",
        /// Its bytes are arriving for an import, or are here and good and the import is awaited.
        Uploading = "uploading",
        /// Complete; may be booted and downloaded.
        Active = "active",
        /// Complete, but closed to downloads and new servers.
        Deactivated = "deactivated",
    }
}

words! {
    /// Who sees an image.
    Visibility, "visibility" {
        /// Everybody, in their lists.
        Public = "public",
        /// Everybody, but only in the lists of those who ask for such images.
        Community = "community",
        /// Its project and those that it was shared with.
        Shared = "shared",
        /// Its project.
        Private = "private",
    }
}

words! {
    /// What a project said to an image that was shared with it.
    MemberStatus, "member status" {
        /// Nothing yet: the image is not in its lists.
        Pending = "pending",
        /// The image is in its lists.
        Accepted = "accepted",
        /// The image shall not be in its lists.
        Rejected = "rejected",
    }
}

words! {
    /// What surrounds a disk image's bytes.
    ContainerFormat, "container format" {
        /// Nothing.
        Bare = "bare",
    }
}

/// The formats that an image may be declared as, as the API writes them.
pub const DISK_FORMATS: &[(&str, DiskFormat)] = &[
    ("raw", DiskFormat::Raw),
    ("qcow2", DiskFormat::Qcow2),
    ("vmdk", DiskFormat::Vmdk),
    ("vhd", DiskFormat::Vhd),
    ("iso", DiskFormat::Iso),
];

/// The format's word in the database and in the API.
pub fn disk_format_name(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Vmdk => "vmdk",
        DiskFormat::Vhd => "vhd",
        DiskFormat::Iso => "iso",
    }
}

/// The format that a word names.
///
/// # Errors
/// [`Rejected`], with the words that there are.
pub fn disk_format_from_name(text: &str) -> Result<DiskFormat, Rejected> {
    DISK_FORMATS.iter().find(|(name, _)| *name == text).map(|(_, format)| *format).ok_or_else(|| {
        let all: Vec<_> = DISK_FORMATS.iter().map(|(name, _)| *name).collect();
        let shown: String = text.chars().take(64).collect();
        Rejected(format!("'{shown}' is not a valid disk format; it must be one of: {}.", all.join(", ")))
    })
}

/// What happens to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageEvent {
    /// An upload begins.
    UploadBegan,
    /// An upload of bytes for a later import begins.
    StagingBegan,
    /// All bytes have arrived and are good.
    UploadEnded,
    /// The bytes that were staged become the image's.
    ImportRequested,
    /// The upload was refused or broke off.
    UploadFailed,
    /// The image is closed.
    DeactivationRequested,
    /// The image is opened again.
    ReactivationRequested,
}

impl ImageStatus {
    /// The status after `event`; `None` if the event does not fit it.
    pub fn after(self, event: ImageEvent) -> Option<ImageStatus> {
        use ImageEvent::{
            DeactivationRequested, ImportRequested, ReactivationRequested, StagingBegan, UploadBegan, UploadEnded,
            UploadFailed,
        };
        match (self, event) {
            (Self::Queued, UploadBegan) => Some(Self::Saving),
            (Self::Queued, StagingBegan) | (Self::Uploading, UploadEnded) => Some(Self::Uploading),
            (Self::Saving, UploadEnded) | (Self::Uploading, ImportRequested) => Some(Self::Active),
            (Self::Saving | Self::Uploading, UploadFailed) => Some(Self::Queued),
            (Self::Active | Self::Deactivated, DeactivationRequested) => Some(Self::Deactivated),
            (Self::Active | Self::Deactivated, ReactivationRequested) => Some(Self::Active),
            (
                Self::Queued,
                UploadEnded | UploadFailed | ImportRequested | DeactivationRequested | ReactivationRequested,
            )
            | (
                Self::Saving,
                UploadBegan | StagingBegan | ImportRequested | DeactivationRequested | ReactivationRequested,
            )
            | (Self::Uploading, UploadBegan | StagingBegan | DeactivationRequested | ReactivationRequested)
            | (
                Self::Active | Self::Deactivated,
                UploadBegan | StagingBegan | UploadEnded | UploadFailed | ImportRequested,
            ) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_once_and_never_change_afterwards() {
        use ImageEvent::*;
        assert_eq!(ImageStatus::Queued.after(UploadBegan), Some(ImageStatus::Saving));
        assert_eq!(ImageStatus::Saving.after(UploadFailed), Some(ImageStatus::Queued));
        for status in [ImageStatus::Saving, ImageStatus::Uploading, ImageStatus::Active, ImageStatus::Deactivated] {
            assert_eq!((status.after(UploadBegan), status.after(StagingBegan)), (None, None));
        }
        assert_eq!(ImageStatus::Uploading.after(UploadEnded), Some(ImageStatus::Uploading));
        assert_eq!(ImageStatus::Uploading.after(ImportRequested), Some(ImageStatus::Active));
        assert_eq!(ImageStatus::Queued.after(ImportRequested), None);
        assert_eq!(ImageStatus::Deactivated.after(ReactivationRequested), Some(ImageStatus::Active));
    }

    #[test]
    fn each_word_is_read_back() {
        for status in ImageStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(*status));
        }
        for (name, format) in DISK_FORMATS {
            assert_eq!(disk_format_from_name(name), Ok(*format));
            assert_eq!(disk_format_name(*format), *name);
        }
        let refusal = "wrong".parse::<ContainerFormat>().unwrap_err();
        assert!(refusal.0.contains("bare"), "{refusal}");
    }
}
