//! Microsoft's older format (Virtual PC), fixed and dynamic.
//!
//! Source of the layout: "Virtual Hard Disk Image Format Specification", version 1.0.

use crate::fields::{be32, be64, has};
use crate::{End, Unsafe};

const KIND_FIXED: u32 = 2;
const KIND_DYNAMIC: u32 = 3;
const KIND_DIFFERENCING: u32 = 4;
const FOOTER_BYTES: u64 = 512;
const TABLE_ENTRIES_MAX: u64 = 16 << 20;

fn refused(reason: impl Into<String>, advice: &'static str) -> Unsafe {
    Unsafe::Refused { format: "vhd", reason: reason.into(), advice }
}

fn broken(reason: impl Into<String>) -> Unsafe {
    refused(reason, "make it anew, or convert it with 'qemu-img convert -f vpc -O qcow2'")
}

fn cut(what: &str) -> Unsafe {
    Unsafe::Truncated { format: "vhd", what: what.into() }
}

/// The virtual size of a tenant's image, or why it is refused. The size is the footer's current size, never its cylinders,
/// heads and sectors: a converter must be told to do the same.
pub(crate) fn judge(head: &[u8], end: Option<End<'_>>) -> Result<u64, Unsafe> {
    let leading = has(head, 0, b"conectix").then(|| head.get(..512)).flatten();
    let first = leading.map(Footer::parse).transpose()?;
    if first.as_ref().is_some_and(|footer| footer.kind == KIND_DYNAMIC) {
        dynamic_check(head, end)?;
    }
    let Some(end) = end else {
        return Ok(first.map_or(0, |footer| footer.size_bytes));
    };
    let last = end.sector_from_end(1).filter(|sector| has(sector, 0, b"conectix"));
    let last = Footer::parse(last.ok_or_else(|| cut("its footer is missing"))?)?;
    match (first, last.kind) {
        (None, KIND_FIXED) if last.size_bytes.checked_add(FOOTER_BYTES) == Some(end.total_bytes) => {}
        (None, KIND_FIXED) => {
            return Err(cut(&format!(
                "it has {} bytes, and {} of disk are promised",
                end.total_bytes, last.size_bytes
            )));
        }
        (Some(first), KIND_DYNAMIC) if first == last => {}
        _ => return Err(broken("has a footer that contradicts its first sector")),
    }
    Ok(last.size_bytes)
}

#[derive(Debug, PartialEq, Eq)]
struct Footer {
    kind: u32,
    size_bytes: u64,
    data_offset: u64,
}

impl Footer {
    fn parse(sector: &[u8]) -> Result<Self, Unsafe> {
        let short = || cut("its footer is incomplete");
        if be32(sector, 12).ok_or_else(short)? >> 16 != 1 {
            return Err(broken("has an unknown version"));
        }
        let footer = Self {
            kind: be32(sector, 60).ok_or_else(short)?,
            size_bytes: be64(sector, 48).ok_or_else(short)?,
            data_offset: be64(sector, 16).ok_or_else(short)?,
        };
        if checksum(sector, 64) != be32(sector, 64) {
            return Err(broken("has a footer with a wrong checksum"));
        }
        match footer.kind {
            KIND_FIXED | KIND_DYNAMIC => {}
            KIND_DIFFERENCING => {
                let advice = "merge it with its parent and upload the result";
                return Err(refused("depends on another file (a differencing disk)", advice));
            }
            other => return Err(broken(format!("is of the unknown kind {other}"))),
        }
        if footer.size_bytes == 0 || !footer.size_bytes.is_multiple_of(512) {
            return Err(broken(format!("describes a disk of {} bytes", footer.size_bytes)));
        }
        Ok(footer)
    }
}

/// Checks the header and block table of a dynamic disk.
fn dynamic_check(head: &[u8], end: Option<End<'_>>) -> Result<(), Unsafe> {
    let short = || cut("its header is incomplete");
    let offset = be64(head, 16).and_then(|offset| usize::try_from(offset).ok()).unwrap_or(usize::MAX);
    let header = offset.checked_add(1024).and_then(|header_end| head.get(offset..header_end)).ok_or_else(short)?;
    if offset < 512 || !has(header, 0, b"cxsparse") {
        return Err(broken("has no header where its footer says"));
    }
    if checksum(header, 36) != be32(header, 36) {
        return Err(broken("has a header with a wrong checksum"));
    }
    let block = u64::from(be32(header, 32).ok_or_else(short)?);
    if !block.is_power_of_two() || !(512..=1 << 28).contains(&block) {
        return Err(broken(format!("has blocks of {block} bytes")));
    }
    // Parent's name and the eight places where parents may be: all empty unless the disk has one.
    if header.get(64..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
        return Err(refused("names another file (a parent)", "merge it with its parent and upload the result"));
    }
    let entries = u64::from(be32(header, 28).ok_or_else(short)?);
    let size_bytes = be64(head, 48).ok_or_else(short)?;
    if entries > TABLE_ENTRIES_MAX || entries.saturating_mul(block) < size_bytes {
        return Err(broken(format!("has a table of {entries} blocks for a disk of {size_bytes} bytes")));
    }
    let table = be64(header, 16).ok_or_else(short)?;
    let table_end = table.checked_add(entries * 4).ok_or_else(|| broken("has its table at an impossible offset"))?;
    if end.is_some_and(|end| table_end > end.total_bytes) {
        return Err(cut(&format!("its table ends at byte {table_end}")));
    }
    Ok(())
}

/// The ones' complement of the sum of all bytes but the checksum's own four at `at`.
fn checksum(bytes: &[u8], at: usize) -> Option<u32> {
    let sum = bytes.iter().enumerate().filter(|(index, _)| !(at..at + 4).contains(index));
    Some(!sum.fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte))))
}
