//! Disks of a server's own besides its root disk: raw files, formatted when they are made.
//!
//! A file's name says what it is, `<name>-<incarnation>.raw`, and it has that name only when it is complete.

use super::disks::{folder_open, open};
use super::durable::{Access, Part, failed, folder_sync, give, names, remove};
use super::tool::{Allowance, arguments, run};
use super::{DirStorage, Place};
use crate::{Disk, DiskFormat, LocalDisksSpec, ServerId, StorageError};
use arcus_types::agent::{LocalDisk, LocalDiskContent};
use std::fs::File;
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".raw";

fn file_name(name: &str, incarnation: u64) -> String {
    format!("{name}-{incarnation}{SUFFIX}")
}

fn bytes(disk: LocalDisk) -> u64 {
    disk.size_mib.saturating_mul(1 << 20)
}

/// See [`crate::Storage::local_disks_ensure`].
pub(super) async fn ensure(
    storage: &DirStorage,
    server: ServerId,
    spec: &LocalDisksSpec,
    uid: u32,
    formatted: bool,
) -> Result<Vec<Disk>, StorageError> {
    let incarnation = spec.incarnation;
    let wanted: Vec<(String, LocalDisk)> = spec.named().collect();
    let mut disks = Vec::with_capacity(wanted.len());
    for (name, disk) in &wanted {
        let (file, disk) = (file_name(name, incarnation), *disk);
        let there = storage.blocking(move |place| look(place, server, &file, disk, uid)).await?;
        let (path, size_bytes) = match there {
            Look::There(path, size_bytes) => (path, size_bytes),
            Look::Absent(part) => {
                let content = if formatted { disk.content } else { LocalDiskContent::Blank };
                (make(storage, part, name, LocalDisk { content, ..disk }, uid).await?, bytes(disk))
            }
        };
        disks.push(Disk { path, format: DiskFormat::Raw, size_bytes, incarnation, cdrom: None });
    }
    let kept: Vec<String> = wanted.iter().map(|(name, _)| file_name(name, incarnation)).collect();
    storage.blocking(move |place| strays_remove(place, server, &kept)).await?;
    Ok(disks)
}

enum Look {
    There(PathBuf, u64),
    Absent(Part),
}

/// The disk as it is, grown if it has to be; or the file to make it in.
fn look(place: &Place, server: ServerId, file: &str, wanted: LocalDisk, uid: u32) -> Result<Look, StorageError> {
    let access = Access { owner: uid, mode: 0o600 };
    let path = folder_open(place, server, uid)?.join(file);
    let found = match open(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Part::create(&path, access).map(Look::Absent);
        }
        Err(error) => return Err(failed("open", &path)(error)),
    };
    let (have, size_bytes) = (found.metadata().map_err(failed("look at", &path))?.len(), bytes(wanted));
    if wanted.content == LocalDiskContent::Swap && have != size_bytes {
        return Part::create(&path, access).map(Look::Absent);
    }
    give(&found, &path, access)?;
    if have < size_bytes {
        grow(&path, size_bytes)?;
    }
    Ok(Look::There(path, have.max(size_bytes)))
}

fn grow(path: &Path, size_bytes: u64) -> Result<(), StorageError> {
    let file = File::options().write(true).open(path).map_err(failed("open", path))?;
    file.set_len(size_bytes).and_then(|()| file.sync_all()).map_err(failed("grow", path))
}

async fn make(
    storage: &DirStorage,
    part: Part,
    name: &str,
    disk: LocalDisk,
    uid: u32,
) -> Result<PathBuf, StorageError> {
    let size_bytes = bytes(disk);
    part.file.set_len(size_bytes).map_err(failed("grow", part.path()))?;
    let allowance = Allowance { uid, file_bytes_max: size_bytes, data_bytes: 0, hostile: false };
    match disk.content {
        LocalDiskContent::Blank => {}
        LocalDiskContent::Ext4 => {
            // The tables of inodes are zeros already, and so is the journal.
            let lazily = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
            let words = arguments(&["-q", "-F", "-t", "ext4", "-L", name, "-E", lazily], &[part.path()]);
            run("mke2fs", words, allowance).await?;
        }
        LocalDiskContent::Swap => run("mkswap", arguments(&[], &[part.path()]), allowance).await?,
    }
    storage
        .blocking(move |_| {
            let target = part.target().to_owned();
            part.commit()?;
            if let Some(folder) = target.parent() {
                folder_sync(folder)?;
            }
            Ok(target)
        })
        .await
}

/// Removes the disks that are not wished any more.
fn strays_remove(place: &Place, server: ServerId, kept: &[String]) -> Result<(), StorageError> {
    let folder = place.disks().join(server.to_string());
    if !folder.exists() {
        return Ok(());
    }
    let mut removed = false;
    for name in names(&folder)? {
        if name.ends_with(SUFFIX) && !kept.contains(&name) {
            removed |= remove(&folder.join(name))?;
        }
    }
    if removed {
        folder_sync(&folder)?;
    }
    Ok(())
}
