//! QEMU's copy-on-write format, versions 2 and 3.
//!
//! Source of the layout: QEMU's `docs/interop/qcow2.txt`; the limits are those that QEMU applies when it opens an image,
//! or tighter.

mod snapshots;

pub use snapshots::{OwnSnapshot, own_snapshots};

use crate::fields::{be32, be64, has};
use crate::{End, HEAD_BYTES_MAX, Unsafe, read_at};
use std::io::{Read, Seek, SeekFrom};

const FEATURE_DIRTY: u64 = 1 << 0;
const FEATURE_CORRUPT: u64 = 1 << 1;
const FEATURE_DATA_FILE: u64 = 1 << 2;
const FEATURE_COMPRESSION: u64 = 1 << 3;
const FEATURE_EXTENDED_L2: u64 = 1 << 4;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_CRYPTO: u32 = 0x0537_be77;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

const L1_BYTES_MAX: u64 = 32 << 20;
const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
const BACKING_NAME_BYTES_MAX: u32 = 1023;
const BACKING_FORMAT_BYTES_MAX: usize = 15;
/// Bits of a table's entry that hold the place in the file.
const ENTRY_OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const ENTRY_COMPRESSED: u64 = 1 << 62;
/// How much of the second-level tables is followed: all of a disk with 512 GiB written.
const L2_BYTES_FOLLOWED_MAX: u64 = 64 << 20;

const FLATTEN: &str = "flatten it with 'qemu-img convert -O qcow2' and upload the result";
const REPAIR: &str = "repair it with 'qemu-img check -r all', or convert it anew with 'qemu-img convert -O qcow2'";

fn refused(reason: impl Into<String>, advice: &'static str) -> Unsafe {
    Unsafe::Refused { format: "qcow2", reason: reason.into(), advice }
}

fn broken(reason: impl Into<String>) -> Unsafe {
    refused(reason, REPAIR)
}

fn cut() -> Unsafe {
    Unsafe::Truncated { format: "qcow2", what: "its header is incomplete".into() }
}

/// The file that a layer lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// Its name as the header has it.
    pub name: String,
    /// Its format as the header has it.
    pub format: Option<String>,
}

/// A qcow2 disk that this cloud made for a guest. The guest's emulator may have rewritten the header, so a caller compares
/// `backing` to what it made before anything opens the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnDisk {
    /// What the guest sees, in bytes.
    pub virtual_size_bytes: u64,
    /// The file that it lies on.
    pub backing: Option<Backing>,
}

/// Reads the header of a disk that this cloud made: like a tenant's image it must not name a data file, be encrypted or
/// use unknown features, but it may lie on another file and may not have been closed cleanly.
///
/// # Errors
/// What is wrong with the header, or [`Unsafe::Read`].
pub fn own_disk<F: Read + Seek>(file: &mut F) -> Result<OwnDisk, Unsafe> {
    let total_bytes = file.seek(SeekFrom::End(0)).map_err(Unsafe::Read)?;
    let head = read_at(file, 0, HEAD_BYTES_MAX as u64)?;
    if !has(&head, 0, b"QFI\xfb") {
        return Err(broken("has no qcow2 header"));
    }
    let header = Header::parse(&head, Some(total_bytes))?;
    Ok(OwnDisk { virtual_size_bytes: header.virtual_size, backing: header.backing })
}

/// The virtual size of a tenant's image, or why it is refused.
pub(crate) fn judge(head: &[u8], end: Option<End<'_>>) -> Result<u64, Unsafe> {
    let header = Header::parse(head, end.map(|end| end.total_bytes))?;
    if header.backing.is_some() {
        return Err(refused("depends on another file (a backing file)", FLATTEN));
    }
    if header.snapshots != 0 {
        return Err(refused(format!("carries {} internal snapshots", header.snapshots), FLATTEN));
    }
    if header.incompatible & FEATURE_DIRTY != 0 {
        return Err(broken("was not closed cleanly"));
    }
    if header.incompatible & FEATURE_CORRUPT != 0 {
        return Err(broken("is marked as corrupt"));
    }
    if header.virtual_size == 0 {
        return Err(broken("describes a disk of no size"));
    }
    Ok(header.virtual_size)
}

/// A header whose numbers agree with each other and with the file.
struct Header {
    cluster_bits: u32,
    virtual_size: u64,
    incompatible: u64,
    l1_entries: u64,
    l1_offset: u64,
    snapshots: u32,
    backing: Option<Backing>,
}

impl Header {
    fn parse(head: &[u8], total: Option<u64>) -> Result<Self, Unsafe> {
        let version = be32(head, 4).ok_or_else(cut)?;
        let (incompatible, header_bytes) = match version {
            2 => (0, 72),
            3 => (be64(head, 72).ok_or_else(cut)?, be32(head, 100).ok_or_else(cut)?),
            _ => return Err(refused(format!("has the unknown version {version}"), FLATTEN)),
        };
        let cluster_bits = be32(head, 20).ok_or_else(cut)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(broken(format!("has clusters of 2^{cluster_bits} bytes; 2^9 to 2^21 are allowed")));
        }
        Self::features_check(head, version, incompatible, header_bytes)?;
        if version == 3 && !(104..=1u32 << cluster_bits).contains(&header_bytes) {
            return Err(broken(format!("has a header of {header_bytes} bytes")));
        }
        let header = Self {
            cluster_bits,
            virtual_size: be64(head, 24).ok_or_else(cut)?,
            incompatible,
            l1_entries: be32(head, 36).ok_or_else(cut)?.into(),
            l1_offset: be64(head, 40).ok_or_else(cut)?,
            snapshots: be32(head, 60).ok_or_else(cut)?,
            backing: Self::backing(head, cluster_bits, header_bytes)?,
        };
        header.geometry_check(head, version, total)?;
        Ok(header)
    }

    fn features_check(head: &[u8], version: u32, incompatible: u64, header_bytes: u32) -> Result<(), Unsafe> {
        let known = FEATURE_DIRTY | FEATURE_CORRUPT | FEATURE_DATA_FILE | FEATURE_COMPRESSION | FEATURE_EXTENDED_L2;
        if incompatible & FEATURE_DATA_FILE != 0 {
            return Err(refused("keeps its data in another file (an external data file)", FLATTEN));
        }
        if incompatible & !known != 0 {
            let bits = incompatible & !known;
            return Err(refused(format!("needs features that are not known here (bits {bits:#x})"), FLATTEN));
        }
        match be32(head, 32).ok_or_else(cut)? {
            0 => {}
            1 | 2 => return Err(refused("is encrypted", "decrypt it with 'qemu-img convert' and upload the result")),
            other => return Err(broken(format!("names the unknown encryption method {other}"))),
        }
        let compression = if version == 3 && header_bytes > 104 { head.get(104).copied().ok_or_else(cut)? } else { 0 };
        let flagged = incompatible & FEATURE_COMPRESSION != 0;
        if compression > 1 || flagged != (compression == 1) {
            return Err(broken(format!("names compression method {compression} in a way that is not valid")));
        }
        Ok(())
    }

    fn geometry_check(&self, head: &[u8], version: u32, total: Option<u64>) -> Result<(), Unsafe> {
        let cluster = 1u64 << self.cluster_bits;
        if !self.virtual_size.is_multiple_of(512) {
            return Err(broken(format!("describes {} bytes, which is not whole sectors", self.virtual_size)));
        }
        if version == 3 && be32(head, 96).ok_or_else(cut)? > 6 {
            return Err(broken("has reference counts of more than 64 bits"));
        }
        if self.l1_entries * 8 > L1_BYTES_MAX {
            return Err(broken(format!("has a table of {} entries, more than any disk needs", self.l1_entries)));
        }
        let entry_bytes = if self.incompatible & FEATURE_EXTENDED_L2 != 0 { 16 } else { 8 };
        let covered = u128::from(self.l1_entries) * u128::from(cluster / entry_bytes) * u128::from(cluster);
        if covered < u128::from(self.virtual_size) {
            return Err(broken(format!(
                "describes a disk of {} bytes but its tables cover only {covered}",
                self.virtual_size
            )));
        }
        let refcount_bytes = u64::from(be32(head, 56).ok_or_else(cut)?) * cluster;
        if refcount_bytes == 0 || refcount_bytes > REFCOUNT_TABLE_BYTES_MAX {
            return Err(broken(format!("has a reference count table of {refcount_bytes} bytes")));
        }
        let refcount_offset = be64(head, 48).ok_or_else(cut)?;
        self.table_check("first-level table", self.l1_offset, self.l1_entries * 8, total)?;
        self.table_check("reference count table", refcount_offset, refcount_bytes, total)
    }

    /// A table must begin at a cluster after the header and end within the file.
    fn table_check(&self, what: &str, offset: u64, bytes: u64, total: Option<u64>) -> Result<(), Unsafe> {
        let cluster = 1u64 << self.cluster_bits;
        if bytes == 0 {
            return Ok(());
        }
        if !offset.is_multiple_of(cluster) || offset == 0 || offset > i64::MAX as u64 - bytes {
            return Err(broken(format!("has its {what} at the impossible offset {offset}")));
        }
        if total.is_some_and(|total| offset + bytes > total) {
            let what = format!("its {what} ends at byte {}", offset + bytes);
            return Err(Unsafe::Truncated { format: "qcow2", what });
        }
        Ok(())
    }

    /// Reads the header extensions and the backing file's name.
    fn backing(head: &[u8], cluster_bits: u32, header_bytes: u32) -> Result<Option<Backing>, Unsafe> {
        let cluster = 1u64 << cluster_bits;
        let name_offset = be64(head, 8).ok_or_else(cut)?;
        let name_bytes = be32(head, 16).ok_or_else(cut)?;
        if name_offset > cluster || name_bytes > BACKING_NAME_BYTES_MAX {
            return Err(broken("has the name of a backing file outside its header"));
        }
        let area_end = if name_offset == 0 { cluster } else { name_offset };
        let format = extensions(head, u64::from(header_bytes), area_end)?;
        if name_offset == 0 && name_bytes == 0 {
            return Ok(None);
        }
        let from = usize::try_from(name_offset).unwrap_or(usize::MAX);
        let name = head.get(from..from.saturating_add(name_bytes as usize)).ok_or_else(cut)?;
        Ok(Some(Backing { name: String::from_utf8_lossy(name).into_owned(), format }))
    }
}

/// Walks the header extensions from `offset` to `area_end`; answers the backing file's format if there is one.
fn extensions(head: &[u8], mut offset: u64, area_end: u64) -> Result<Option<String>, Unsafe> {
    let mut format = None;
    while offset + 8 <= area_end {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let (kind, bytes) = (be32(head, at).ok_or_else(cut)?, be32(head, at.saturating_add(4)).ok_or_else(cut)?);
        let data = offset + 8;
        if u64::from(bytes) > area_end - data {
            return Err(broken("has a header extension that is longer than the header"));
        }
        match kind {
            EXTENSION_END => return Ok(format),
            EXTENSION_DATA_FILE => {
                return Err(refused("names another file for its data (an external data file)", FLATTEN));
            }
            EXTENSION_CRYPTO => return Err(refused("is encrypted", "decrypt it with 'qemu-img convert'")),
            EXTENSION_BACKING_FORMAT => {
                let from = at.saturating_add(8);
                let text = head.get(from..from.saturating_add(bytes as usize)).ok_or_else(cut)?;
                if text.len() > BACKING_FORMAT_BYTES_MAX {
                    return Err(broken("names a backing format that is too long"));
                }
                format = Some(String::from_utf8_lossy(text).into_owned());
            }
            // QEMU skips what it does not know (names of features, bitmaps); so do we.
            _ => {}
        }
        offset = data + u64::from(bytes).next_multiple_of(8);
    }
    Ok(format)
}

/// Follows the tables to the clusters and refuses an image in which one lies beyond the end of the file.
pub(crate) fn follow_tables<F: Read + Seek>(file: &mut F, head: &[u8], total: u64) -> Result<(), Unsafe> {
    let header = Header::parse(head, Some(total))?;
    let cluster = 1u64 << header.cluster_bits;
    let step = if header.incompatible & FEATURE_EXTENDED_L2 != 0 { 2 } else { 1 };
    let mut followed = 0;
    let l1 = read_at(file, header.l1_offset, header.l1_entries * 8)?;
    for l2_offset in entries(&l1).map(|entry| entry & ENTRY_OFFSET).filter(|offset| *offset != 0) {
        if !l2_offset.is_multiple_of(cluster) {
            return Err(broken(format!("has a second-level table at the impossible offset {l2_offset}")));
        }
        within(l2_offset.saturating_add(cluster), total)?;
        followed += cluster;
        if followed > L2_BYTES_FOLLOWED_MAX {
            return Ok(());
        }
        let l2 = read_at(file, l2_offset, cluster)?;
        for entry in entries(&l2).step_by(step) {
            data_check(entry, header.cluster_bits, total)?;
        }
    }
    Ok(())
}

fn entries(table: &[u8]) -> impl Iterator<Item = u64> {
    table.chunks_exact(8).filter_map(|entry| be64(entry, 0))
}

/// The first byte of a cluster's data must be in the file; the last cluster may be short.
fn data_check(entry: u64, cluster_bits: u32, total: u64) -> Result<(), Unsafe> {
    let offset = if entry & ENTRY_COMPRESSED != 0 {
        entry & ((1 << (62 - (cluster_bits - 8))) - 1)
    } else {
        entry & ENTRY_OFFSET
    };
    if offset == 0 { Ok(()) } else { within(offset.saturating_add(1), total) }
}

fn within(end: u64, total: u64) -> Result<(), Unsafe> {
    if end <= total {
        return Ok(());
    }
    Err(Unsafe::Truncated { format: "qcow2", what: format!("it has {total} bytes and refers to data at byte {end}") })
}
