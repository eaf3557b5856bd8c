//! Judges disk images that tenants supply, as their bytes stream by.
//!
//! Nothing here trusts a byte: every length is checked against what was seen, memory is bounded by [`HEAD_BYTES_MAX`],
//! no other file is ever opened and no program started. The answer is [`Inspection`], or [`Unsafe`] with a sentence for
//! the person who uploaded.
//!
//! What is bounded: the virtual size ([`Limits::virtual_size_bytes_max`]), because it is what a tenant may claim. There is
//! no limit on the *ratio* of virtual to stored size, since a blank 10 TiB disk is honestly 200 KiB long: Arcus never
//! inflates qcow2 or raw images (guests run on a copy-on-write layer), and where it does inflate (VMDK and VHD are
//! converted on the node) the converter's output file has a limit of its own.

#![forbid(unsafe_code)]

mod content;
mod fields;
mod qcow2;
mod vhd;
mod vmdk;

pub use qcow2::{Backing, OwnDisk, OwnSnapshot, own_disk, own_snapshots};

use arcus_types::agent::DiskFormat;
use content::Content;
use std::io::{Read, Seek, SeekFrom};

/// The most bytes of an image's beginning that an inspector keeps. Every header that Arcus accepts lies within.
pub const HEAD_BYTES_MAX: usize = 1 << 20;

/// What is kept of formats whose headers are short: enough for an ISO 9660 volume descriptor.
const SHORT_HEAD_BYTES: usize = 64 << 10;

/// What is kept of an image's end: the three sectors of a stream-optimized VMDK's footer.
const TAIL_BYTES: usize = 3 * 512;

/// What a tenant's image may claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest disk that an image may describe, in bytes.
    pub virtual_size_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { virtual_size_bytes_max: 16 << 40 }
    }
}

/// What an image turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// How its bytes are laid out: as was declared.
    pub format: DiskFormat,
    /// The size of the disk that a guest would see, in bytes.
    pub virtual_size_bytes: u64,
}

/// Why an image is refused, in words for the person who uploaded it.
#[derive(Debug, thiserror::Error)]
pub enum Unsafe {
    /// It is something else than it was declared to be.
    #[error("the image was declared as {declared} but its content is {found}; {advice}")]
    Mismatch {
        /// As declared.
        declared: &'static str,
        /// As found.
        found: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// It asks for something that a tenant's image must not.
    #[error("the {format} image {reason}; {advice}")]
    Refused {
        /// What it is.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// It ends before what its header promises.
    #[error("the {format} image is cut short: {what}; upload it again")]
    Truncated {
        /// What it is.
        format: &'static str,
        /// What is missing.
        what: String,
    },
    /// It describes a larger disk than is allowed.
    #[error("the image describes a disk of {virtual_size_bytes} bytes; at most {max_bytes} are allowed")]
    TooLarge {
        /// What it describes, in bytes.
        virtual_size_bytes: u64,
        /// The limit, in bytes.
        max_bytes: u64,
    },
    /// The file could not be read; nothing is known of the image.
    #[error("the image could not be read")]
    Read(#[source] std::io::Error),
}

/// Judges an image while its bytes pass by.
///
/// A caller stops at the first error; going on does no harm, as [`Inspector::finish`] judges everything again.
#[derive(Debug)]
pub struct Inspector {
    declared: DiskFormat,
    limits: Limits,
    head: Vec<u8>,
    head_bytes_max: usize,
    tail: Vec<u8>,
    total_bytes: u64,
}

impl Inspector {
    /// An inspector of an image that is said to be `declared`.
    pub fn new(declared: DiskFormat, limits: Limits) -> Self {
        let head_bytes_max = match declared {
            DiskFormat::Qcow2 | DiskFormat::Vmdk => HEAD_BYTES_MAX,
            DiskFormat::Raw | DiskFormat::Vhd | DiskFormat::Iso => SHORT_HEAD_BYTES,
        };
        Self { declared, limits, head: Vec::new(), head_bytes_max, tail: Vec::new(), total_bytes: 0 }
    }

    /// Takes the next bytes of the image.
    ///
    /// # Errors
    /// As soon as the headers are there and show that the image is refused: the rest need not be uploaded.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Unsafe> {
        let head_was = self.head.len();
        let wanted = self.head_bytes_max.saturating_sub(head_was).min(chunk.len());
        self.head.extend(chunk.iter().take(wanted));
        self.total_bytes = self.total_bytes.saturating_add(chunk.len() as u64);
        self.keep_tail(chunk);
        if head_was < self.head_bytes_max && self.head.len() == self.head_bytes_max {
            self.judge(None)?;
        }
        Ok(())
    }

    /// How many bytes have passed.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Judges the image after its last byte.
    ///
    /// # Errors
    /// Why the image is refused.
    pub fn finish(self) -> Result<Inspection, Unsafe> {
        let virtual_size_bytes = self.judge(Some(End { total_bytes: self.total_bytes, tail: &self.tail }))?;
        Ok(Inspection { format: self.declared, virtual_size_bytes })
    }

    fn keep_tail(&mut self, chunk: &[u8]) {
        if chunk.len() >= TAIL_BYTES {
            self.tail.clear();
        } else {
            let excess = (self.tail.len() + chunk.len()).saturating_sub(TAIL_BYTES);
            self.tail.drain(..excess);
        }
        let from = chunk.len().saturating_sub(TAIL_BYTES);
        self.tail.extend(chunk.iter().skip(from));
    }

    /// The virtual size, or why not. Without `end`, what only the end can show is taken for good.
    fn judge(&self, end: Option<End<'_>>) -> Result<u64, Unsafe> {
        if end.is_some_and(|end| end.total_bytes == 0) {
            return Err(Unsafe::Truncated {
                format: format_name(self.declared),
                what: "it has no bytes at all".into(),
            });
        }
        content::matches(self.declared, Content::of(&self.head, end), end.is_some())?;
        let size = match self.declared {
            DiskFormat::Raw | DiskFormat::Iso => {
                end.map_or(0, |end| end.total_bytes.checked_next_multiple_of(512).unwrap_or(u64::MAX))
            }
            DiskFormat::Qcow2 => qcow2::judge(&self.head, end)?,
            DiskFormat::Vmdk => vmdk::judge(&self.head, end)?,
            DiskFormat::Vhd => vhd::judge(&self.head, end)?,
        };
        if size > self.limits.virtual_size_bytes_max {
            return Err(Unsafe::TooLarge { virtual_size_bytes: size, max_bytes: self.limits.virtual_size_bytes_max });
        }
        Ok(size)
    }
}

/// What is known once the last byte has passed.
#[derive(Debug, Clone, Copy)]
struct End<'a> {
    total_bytes: u64,
    /// The last [`TAIL_BYTES`], or all if there are fewer.
    tail: &'a [u8],
}

impl End<'_> {
    /// The 512 bytes that begin `sectors` sectors before the end.
    fn sector_from_end(&self, sectors: usize) -> Option<&[u8]> {
        let from = self.tail.len().checked_sub(sectors.checked_mul(512)?)?;
        self.tail.get(from..)?.get(..512)
    }
}

/// Judges an image that is stored already. Beyond what [`Inspector`] can see, the tables of qcow2 and VMDK images are
/// followed (up to 64 MiB of them), so that one that was cut short is found.
///
/// # Errors
/// Why the image is refused, or [`Unsafe::Read`].
pub fn inspect_file<F: Read + Seek>(file: &mut F, declared: DiskFormat, limits: Limits) -> Result<Inspection, Unsafe> {
    let mut inspector = Inspector::new(declared, limits);
    let total_bytes = file.seek(SeekFrom::End(0)).map_err(Unsafe::Read)?;
    inspector.head = read_at(file, 0, inspector.head_bytes_max as u64)?;
    inspector.tail = read_at(file, total_bytes.saturating_sub(TAIL_BYTES as u64), TAIL_BYTES as u64)?;
    inspector.total_bytes = total_bytes;
    let end = End { total_bytes, tail: &inspector.tail };
    let virtual_size_bytes = inspector.judge(Some(end))?;
    match declared {
        DiskFormat::Qcow2 => qcow2::follow_tables(file, &inspector.head, total_bytes)?,
        DiskFormat::Vmdk => vmdk::follow_tables(file, &inspector.head, end)?,
        DiskFormat::Raw | DiskFormat::Vhd | DiskFormat::Iso => {}
    }
    Ok(Inspection { format: declared, virtual_size_bytes })
}

/// At most `bytes_max` bytes from `offset` on; fewer at the end of the file.
fn read_at<F: Read + Seek>(file: &mut F, offset: u64, bytes_max: u64) -> Result<Vec<u8>, Unsafe> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset)).map_err(Unsafe::Read)?;
    file.take(bytes_max).read_to_end(&mut bytes).map_err(Unsafe::Read)?;
    Ok(bytes)
}

/// How people write the format.
fn format_name(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Vmdk => "vmdk",
        DiskFormat::Vhd => "vhd",
        DiskFormat::Iso => "iso",
    }
}
