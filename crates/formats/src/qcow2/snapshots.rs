//! The snapshots that a disk of ours carries inside itself.

use super::{Header, broken, cut, has};
use crate::fields::{be16, be32, be64};
use crate::{HEAD_BYTES_MAX, Unsafe, read_at};
use std::io::{Read, Seek, SeekFrom};

/// How much of the table is read: some ten thousand snapshots.
const TABLE_BYTES_MAX: u64 = 1 << 20;
/// An entry without its texts and without what later versions added.
const ENTRY_BYTES: usize = 40;
/// What the added part must have to tell the disk's size.
const EXTRA_BYTES_MIN: usize = 16;

/// A snapshot inside a disk that this cloud made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSnapshot {
    /// Its name.
    pub name: String,
    /// What the guest saw when it was made, in bytes.
    pub virtual_size_bytes: u64,
}

/// Reads the snapshots of a disk that [`super::own_disk`] accepts, oldest first. Nobody may make or delete snapshots
/// meanwhile.
///
/// # Errors
/// What is wrong with the header or the table, or [`Unsafe::Read`].
pub fn own_snapshots<F: Read + Seek>(file: &mut F) -> Result<Vec<OwnSnapshot>, Unsafe> {
    let total_bytes = file.seek(SeekFrom::End(0)).map_err(Unsafe::Read)?;
    let head = read_at(file, 0, HEAD_BYTES_MAX as u64)?;
    if !has(&head, 0, b"QFI\xfb") {
        return Err(broken("has no qcow2 header"));
    }
    let header = Header::parse(&head, Some(total_bytes))?;
    if header.snapshots == 0 {
        return Ok(Vec::new());
    }
    let offset = be64(&head, 64).ok_or_else(cut)?;
    if offset >= total_bytes {
        return Err(broken("has its table of snapshots beyond its end"));
    }
    let table = read_at(file, offset, TABLE_BYTES_MAX.min(total_bytes - offset))?;
    let (mut found, mut at) = (Vec::new(), 0);
    for _ in 0..header.snapshots {
        let (snapshot, bytes) = entry(table.get(at..).unwrap_or_default(), header.virtual_size)?;
        found.push(snapshot);
        at += bytes;
    }
    Ok(found)
}

/// One entry, and how many bytes it takes.
fn entry(bytes: &[u8], disk_bytes: u64) -> Result<(OwnSnapshot, usize), Unsafe> {
    let short = || broken("has an incomplete table of snapshots");
    let id_bytes = usize::from(be16(bytes, 12).ok_or_else(short)?);
    let name_bytes = usize::from(be16(bytes, 14).ok_or_else(short)?);
    let extra_bytes = usize::try_from(be32(bytes, 36).ok_or_else(short)?).map_err(|_| short())?;
    let virtual_size_bytes = match extra_bytes {
        EXTRA_BYTES_MIN.. => be64(bytes, ENTRY_BYTES + 8).ok_or_else(short)?,
        _ => disk_bytes,
    };
    let from = ENTRY_BYTES.checked_add(extra_bytes).and_then(|at| at.checked_add(id_bytes)).ok_or_else(short)?;
    let end = from.checked_add(name_bytes).ok_or_else(short)?;
    let name = bytes.get(from..end).ok_or_else(short)?;
    let name = String::from_utf8_lossy(name).into_owned();
    Ok((OwnSnapshot { name, virtual_size_bytes }, end.next_multiple_of(8)))
}
