//! VMware's format in one file: `monolithicSparse` and `streamOptimized`.
//!
//! A VMDK is a text descriptor that lists files or devices. In the two kinds taken here the descriptor is embedded and its
//! one extent is the file itself; anything that would make a program open another file is refused.
//!
//! Source of the layout: VMware's "Virtual Disk Format 1.1"; where readers differ, QEMU's reading counts.

use crate::fields::{has, le16, le32, le64};
use crate::{End, HEAD_BYTES_MAX, Unsafe, read_at};
use std::io::{Read, Seek};

const SECTOR: u64 = 512;
/// The grain directory's offset is in a copy of the header at the end of the file.
const DIRECTORY_AT_END: u64 = u64::MAX;
const DESCRIPTOR_BYTES_MAX: u64 = 64 << 10;
const TABLES_MAX: u64 = 512 << 10;
/// How much of the tables is followed.
const TABLE_BYTES_FOLLOWED_MAX: u64 = 64 << 20;
const NEWLINE_MARKS: &[u8] = b"\n \r\n";
const CONVERT: &str = "convert it with 'qemu-img convert -O qcow2' and upload the result as qcow2";

fn refused(reason: impl Into<String>) -> Unsafe {
    Unsafe::Refused { format: "vmdk", reason: reason.into(), advice: CONVERT }
}

fn cut(what: &str) -> Unsafe {
    Unsafe::Truncated { format: "vmdk", what: what.into() }
}

/// The virtual size of a tenant's image, or why it is refused.
pub(crate) fn judge(head: &[u8], end: Option<End<'_>>) -> Result<u64, Unsafe> {
    let header = Header::parse(head)?;
    let descriptor = header.descriptor(head)?;
    descriptor_check(descriptor)?;
    if let Some(end) = end {
        header.end_check(end)?;
    }
    Ok(header.capacity_sectors * SECTOR)
}

#[derive(Debug, PartialEq, Eq)]
struct Header {
    version: u32,
    flags: u32,
    capacity_sectors: u64,
    grain_sectors: u64,
    descriptor_sector: u64,
    descriptor_sectors: u64,
    table_entries: u32,
    directory_sector: u64,
    compression: u16,
}

impl Header {
    fn parse(sector: &[u8]) -> Result<Self, Unsafe> {
        let short = || cut("its header is incomplete");
        let header = Self {
            version: le32(sector, 4).ok_or_else(short)?,
            flags: le32(sector, 8).ok_or_else(short)?,
            capacity_sectors: le64(sector, 12).ok_or_else(short)?,
            grain_sectors: le64(sector, 20).ok_or_else(short)?,
            descriptor_sector: le64(sector, 28).ok_or_else(short)?,
            descriptor_sectors: le64(sector, 36).ok_or_else(short)?,
            table_entries: le32(sector, 44).ok_or_else(short)?,
            directory_sector: le64(sector, 56).ok_or_else(short)?,
            compression: le16(sector, 77).ok_or_else(short)?,
        };
        if !(1..=3).contains(&header.version) || header.compression > 1 {
            return Err(refused(format!("has version {} or a compression that is not known", header.version)));
        }
        if !has(sector, 73, NEWLINE_MARKS) {
            return Err(refused("was damaged by a transfer that changed its line ends"));
        }
        header.geometry_check()?;
        Ok(header)
    }

    fn geometry_check(&self) -> Result<(), Unsafe> {
        // Without a capacity QEMU takes the descriptor for a list of files.
        if self.capacity_sectors == 0 || self.capacity_sectors > i64::MAX as u64 / SECTOR {
            return Err(refused(format!("describes a disk of {} sectors", self.capacity_sectors)));
        }
        if !self.grain_sectors.is_power_of_two() || !(8..=1 << 17).contains(&self.grain_sectors) {
            return Err(refused(format!("has grains of {} sectors", self.grain_sectors)));
        }
        if !(1..=512).contains(&self.table_entries) {
            return Err(refused(format!("has tables of {} entries", self.table_entries)));
        }
        let tables = self.capacity_sectors / (self.grain_sectors * u64::from(self.table_entries));
        if tables > TABLES_MAX {
            return Err(refused(format!("needs {tables} tables, more than are allowed")));
        }
        Ok(())
    }

    fn descriptor<'a>(&self, head: &'a [u8]) -> Result<&'a [u8], Unsafe> {
        let from = self.descriptor_sector.checked_mul(SECTOR);
        let bytes = self.descriptor_sectors.checked_mul(SECTOR);
        match (from, bytes) {
            (Some(from), Some(bytes))
                if from > 0 && bytes > 0 && bytes <= DESCRIPTOR_BYTES_MAX && from <= HEAD_BYTES_MAX as u64 - bytes =>
            {
                // QEMU reads twenty sectors, whatever the header says: what it sees must be seen here.
                let to = (from + bytes.max(20 * SECTOR)) as usize;
                let descriptor = head.get(from as usize..to.min(head.len()));
                descriptor.filter(|text| text.len() as u64 >= bytes).ok_or_else(|| cut("its descriptor is incomplete"))
            }
            _ => Err(refused("has no descriptor of its own near its beginning")),
        }
    }

    /// Checks what only the whole file shows: its length, and the copy of the header at the end that counts instead.
    /// Answers the byte at which the grain directory begins.
    fn end_check(&self, end: End<'_>) -> Result<u64, Unsafe> {
        if self.directory_sector != DIRECTORY_AT_END {
            return directory_offset(self.directory_sector, end);
        }
        let marker = end.sector_from_end(3).ok_or_else(|| cut("its footer is missing"))?;
        let copy = end.sector_from_end(2).ok_or_else(|| cut("its footer is missing"))?;
        if le32(marker, 12) != Some(3) || !has(copy, 0, b"KDMV") {
            return Err(cut("its footer is missing"));
        }
        let copy = Self::parse(copy)?;
        let directory_sector = copy.directory_sector;
        if (Self { directory_sector: DIRECTORY_AT_END, ..copy }) != *self {
            return Err(refused("has a footer that contradicts its header"));
        }
        directory_offset(directory_sector, end)
    }
}

fn directory_offset(sector: u64, end: End<'_>) -> Result<u64, Unsafe> {
    let offset = sector.checked_mul(SECTOR).filter(|offset| *offset > 0 && *offset < end.total_bytes);
    offset.ok_or_else(|| cut("its grain directory is missing"))
}

/// Follows the tables to the grains and refuses an image in which one lies beyond the end of the file.
pub(crate) fn follow_tables<F: Read + Seek>(file: &mut F, head: &[u8], end: End<'_>) -> Result<(), Unsafe> {
    let header = Header::parse(head)?;
    let table_bytes = u64::from(header.table_entries) * 4;
    let tables = header.capacity_sectors.div_ceil(header.grain_sectors * u64::from(header.table_entries));
    let directory = read_at(file, header.end_check(end)?, tables * 4)?;
    if directory.len() as u64 != tables * 4 {
        return Err(cut("its grain directory is incomplete"));
    }
    let tables_max = (TABLE_BYTES_FOLLOWED_MAX / table_bytes) as usize;
    for table in sectors(&directory).filter(|sector| *sector != 0).take(tables_max) {
        let table = read_at(file, table * SECTOR, table_bytes)?;
        if table.len() as u64 != table_bytes {
            return Err(cut("a grain table lies beyond its end"));
        }
        // A grain at sector 1 stands for zeros.
        if let Some(grain) = sectors(&table).find(|sector| *sector > 1 && sector * SECTOR >= end.total_bytes) {
            return Err(cut(&format!(
                "it has {} bytes and refers to data at byte {}",
                end.total_bytes,
                grain * SECTOR
            )));
        }
    }
    Ok(())
}

fn sectors(table: &[u8]) -> impl Iterator<Item = u64> {
    table.chunks_exact(4).filter_map(|entry| le32(entry, 0).map(u64::from))
}

/// The descriptor must describe this one file and nothing else.
fn descriptor_check(bytes: &[u8]) -> Result<(), Unsafe> {
    if !has(bytes, 0, b"# Disk DescriptorFile") {
        return Err(refused("has no descriptor where its header says"));
    }
    // Searched in all bytes, not only up to the first zero: readers differ in where they stop.
    if contains(bytes, b"parentFileNameHint") {
        return Err(refused("depends on another file (a parent)"));
    }
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    // QEMU rewrites a descriptor in place and may leave a few old characters behind the zero; a second one is no accident.
    if bytes.get(text.len()..).is_some_and(|rest| contains(rest, b"createType")) {
        return Err(refused("has a second descriptor behind the first"));
    }
    let text = str::from_utf8(text).map_err(|_| refused("has a descriptor that is not text"))?;
    let (mut kinds, mut extents) = (0, 0);
    for line in text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with("RW") || line.starts_with("RDONLY") || line.starts_with("NOACCESS") {
            extent_check(line)?;
            extents += 1;
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| refused("has a descriptor with an unknown line"))?;
        let value = value.trim().trim_matches('"');
        match key.trim() {
            "createType" if matches!(value, "monolithicSparse" | "streamOptimized") => kinds += 1,
            "createType" => return Err(refused(format!("is of the kind '{}'", cut_text(value)))),
            "parentCID" if !value.eq_ignore_ascii_case("ffffffff") => {
                return Err(refused("depends on another file (a parent)"));
            }
            _ => {}
        }
    }
    if kinds != 1 || extents != 1 {
        return Err(refused(format!("names {kinds} kinds and {extents} extents in its descriptor")));
    }
    Ok(())
}

/// An extent is `RW 4192256 SPARSE "name.vmdk"`; the name must be a plain one.
fn extent_check(line: &str) -> Result<(), Unsafe> {
    let mut words = line.splitn(4, ' ');
    let (access, sectors, kind) = (words.next(), words.next(), words.next());
    let name = words.next().map(str::trim).unwrap_or_default();
    let plain = name.len() > 2
        && name.starts_with('"')
        && name.ends_with('"')
        && name.matches('"').count() == 2
        && !name.contains(['/', '\\', ':']);
    let known = matches!(access, Some("RW" | "RDONLY")) && sectors.is_some_and(|text| text.parse::<u64>().is_ok());
    if !known || kind != Some("SPARSE") || !plain {
        return Err(refused(format!("refers to storage outside itself ('{}')", cut_text(line))));
    }
    Ok(())
}

/// Enough of a tenant's text to recognise it, without control characters.
fn cut_text(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(60).collect()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
