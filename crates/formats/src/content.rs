//! What an image's bytes look like, whatever it was declared to be.
//!
//! A raw image is any bytes, so a program that guesses can be made to see another format in it. Arcus never guesses when
//! it opens an image, and also refuses a raw image that would be guessed otherwise: it is a mistake at best.

use crate::fields::has;
use crate::{End, Unsafe, format_name};
use arcus_types::agent::DiskFormat;

/// What the bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing that is known: the bytes of a disk, with or without a partition table.
    Plain,
    /// An ISO 9660 file system: a CD, and as good a raw disk.
    Iso,
    Qcow2,
    Vmdk,
    Vhd,
    /// Something that Arcus does not take, in words.
    Other(&'static str),
}

/// Signatures at fixed places of what is never taken.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (0, b"QFI\xfb\0\0\0\x01", "qcow (version 1)"),
    (0, b"QED\0", "qed"),
    (0, b"COWD", "a vmdk extent of version 3"),
    (0, b"# Disk DescriptorFile", "a vmdk descriptor that names other files"),
    (0, b"vhdxfile", "vhdx"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"LUKS\xba\xbe", "an encrypted LUKS volume"),
    (0, b"WithoutFreeSpace", "a Parallels disk"),
    (0, b"WithouFreSpacExt", "a Parallels disk"),
    (0, b"\x1f\x8b\x08", "compressed with gzip"),
    (0, b"\xfd7zXZ\0", "compressed with xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (0, b"BZh", "compressed with bzip2"),
    (0, b"PK\x03\x04", "a zip archive"),
    (257, b"ustar", "a tar or OVA archive"),
];

impl Content {
    /// What `head`, and the last bytes if they have passed, look like.
    pub(crate) fn of(head: &[u8], end: Option<End<'_>>) -> Self {
        if let Some((_, _, name)) = OTHERS.iter().find(|(offset, text, _)| has(head, *offset, text)) {
            return Self::Other(name);
        }
        if has(head, 0, b"QFI\xfb") {
            return Self::Qcow2;
        }
        if has(head, 0, b"KDMV") {
            return Self::Vmdk;
        }
        let footer = end.as_ref().and_then(|end| end.sector_from_end(1));
        if has(head, 0, b"conectix") || footer.is_some_and(|footer| has(footer, 0, b"conectix")) {
            return Self::Vhd;
        }
        // The first volume descriptors of an ISO 9660 image are sectors 16 to 18 of 2048 bytes.
        if [0x8001, 0x8801, 0x9001].iter().any(|offset| has(head, *offset, b"CD001")) {
            return Self::Iso;
        }
        Self::Plain
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "not of any known format",
            Self::Iso => "iso",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Other(name) => name,
        }
    }
}

/// Refuses an image whose content is not what it was declared to be.
pub(crate) fn matches(declared: DiskFormat, content: Content, complete: bool) -> Result<(), Unsafe> {
    let fits = match declared {
        DiskFormat::Raw => matches!(content, Content::Plain | Content::Iso),
        DiskFormat::Iso => content == Content::Iso,
        DiskFormat::Qcow2 => content == Content::Qcow2,
        DiskFormat::Vmdk => content == Content::Vmdk,
        // A fixed VHD shows itself only at its end.
        DiskFormat::Vhd => content == Content::Vhd || (!complete && matches!(content, Content::Plain | Content::Iso)),
    };
    if fits {
        return Ok(());
    }
    let advice = match content {
        Content::Plain => "check the file, or declare it as raw if it is the bytes of a disk",
        Content::Iso | Content::Qcow2 | Content::Vmdk | Content::Vhd => "declare it as what it is",
        Content::Other(_) => {
            "unpack it if it is packed, convert it with 'qemu-img convert -O qcow2', and declare it as qcow2"
        }
    };
    Err(Unsafe::Mismatch { declared: format_name(declared), found: content.name(), advice })
}
