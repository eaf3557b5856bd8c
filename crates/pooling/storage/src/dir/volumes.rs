//! Volumes: a qcow2 file each, with its snapshots inside.
//!
//! A snapshot inside the file is made and deleted in a moment and leaves no chain of files behind, and what it holds stays
//! where it is in the file whatever the guest writes afterwards: so it can be copied while the guest goes on, by a process
//! that opens the file to read only. A volume is there once its file has its name; while no guest has it, the file belongs
//! to a user of its own, so that a program which was led astray by one tenant's bytes reaches no other's.

use super::durable::{Access, Part, failed, folder_ensure, folder_sync, give, read, write};
use super::exports::{TABLES_BYTES_MAX, finish, target};
use super::tool::{Allowance, arguments, qemu_img, qemu_img_told};
use super::{DirStorage, Place, images};
use crate::{
    DiskFormat, Export, ImageSource, StorageError, Volume, VolumeContent, VolumeId, VolumeSnapshotId, VolumeUser,
    whole_sectors,
};
use arcus_formats::{own_disk, own_snapshots};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FILE: &str = "disk.qcow2";
/// The number of the last refill, in digits; not there before the first.
const REFILL: &str = "refill";
/// The users of volumes that no guest has open: below those of converters and guests.
const UID_BASE: u32 = 0x5000_0000;
const UIDS: u128 = 0x0f00_0000;

fn own_uid(volume: VolumeId) -> u32 {
    UID_BASE + u32::try_from(volume.0.as_u128() % UIDS).unwrap_or_default()
}

fn folder(place: &Place, volume: VolumeId) -> PathBuf {
    place.volumes().join(volume.to_string())
}

fn open(path: &Path) -> std::io::Result<File> {
    let no_link = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    File::options().read(true).custom_flags(no_link.bits()).open(path)
}

/// The volume as it is, and the user that its file belongs to. A guest's emulator may have rewritten the header: nothing
/// opens the file unless it stands by itself.
pub(super) fn look(place: &Place, volume: VolumeId) -> Result<Option<(Volume, u32)>, StorageError> {
    let path = folder(place, volume).join(FILE);
    let damaged = |what: String| StorageError::DiskDamaged { path: path.clone(), what };
    let mut file = match open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", &path)(error)),
    };
    let header = own_disk(&mut file).map_err(|error| damaged(error.to_string()))?;
    if header.backing.is_some() {
        return Err(damaged("it lies on another file".into()));
    }
    let snapshots = own_snapshots(&mut file).map_err(|error| damaged(error.to_string()))?;
    let snapshots = snapshots.iter().filter_map(|snapshot| snapshot.name.parse().ok()).collect();
    let owner = file.metadata().map_err(failed("look at", &path))?.uid();
    let refill = refilled(place, volume)?;
    let (format, size_bytes) = (DiskFormat::Qcow2, header.virtual_size_bytes);
    Ok(Some((Volume { path, format, size_bytes, snapshots, refill }, owner)))
}

/// The number of the last refill.
fn refilled(place: &Place, volume: VolumeId) -> Result<u64, StorageError> {
    let path = folder(place, volume).join(REFILL);
    let Some(text) = read(&path)? else { return Ok(0) };
    let number = String::from_utf8_lossy(&text).trim().parse().ok();
    number.ok_or_else(|| StorageError::DiskDamaged { path, what: "it is no number".into() })
}

fn present(place: &Place, volume: VolumeId) -> Result<(Volume, u32), StorageError> {
    look(place, volume)?.ok_or(StorageError::VolumeAbsent { volume })
}

/// What a program may use that works on a volume of this size.
fn allowance(uid: u32, size_bytes: u64, data_bytes: u64) -> Allowance {
    let file_bytes_max = size_bytes.saturating_add(size_bytes / 8).saturating_add(TABLES_BYTES_MAX);
    Allowance { uid, file_bytes_max, data_bytes, hostile: false }
}

/// What a new volume is made of.
enum Origin {
    Blank,
    File { path: PathBuf, format: &'static str, snapshot: Option<VolumeSnapshotId>, size_bytes: u64, uid: u32 },
}

pub(super) async fn make(
    storage: &DirStorage,
    volume: VolumeId,
    size_bytes: u64,
    content: &VolumeContent,
    progress: &(dyn Fn(u8) + Sync),
) -> Result<Volume, StorageError> {
    let size_bytes = whole_sectors(size_bytes);
    let wanted = content.clone();
    let begun = storage.blocking(move |place| {
        if let Some((volume, _)) = look(place, volume)? {
            return Ok(Begun::There(volume));
        }
        let (origin, part) = begin(place, volume, size_bytes, &wanted)?;
        Ok(Begun::Made(origin, part))
    });
    let (origin, part) = match begun.await? {
        Begun::There(volume) => return Ok(volume),
        Begun::Made(origin, part) => (origin, part),
    };
    fill(storage, volume, size_bytes, (&origin, &part), content, progress).await?;
    storage.blocking(move |place| put(place, volume, part)).await
}

/// Writes a new volume's file.
async fn fill(
    storage: &DirStorage,
    volume: VolumeId,
    size_bytes: u64,
    (origin, part): (&Origin, &Part),
    content: &VolumeContent,
    progress: &(dyn Fn(u8) + Sync),
) -> Result<(), StorageError> {
    match origin {
        Origin::Blank => {
            let mut words = arguments(&["create", "-q", "-f", "qcow2"], &[part.path()]);
            words.push(size_bytes.to_string().into());
            qemu_img(words, allowance(own_uid(volume), size_bytes, 0)).await?;
        }
        Origin::File { path, format, snapshot, size_bytes: source_bytes, uid } => {
            let allowance = allowance(*uid, size_bytes.max(*source_bytes), *source_bytes);
            let words = convert(path, format, *snapshot, &["-O", "qcow2"], part.path());
            let copied = {
                let Ok(_turn) = storage.place.conversions.acquire().await else {
                    return Err(StorageError::Unusable {
                        path: storage.place.state.clone(),
                        what: "it was closed".into(),
                    });
                };
                qemu_img_told(words, allowance, progress).await
            };
            copied.map_err(|error| evicted(error, path, content))?;
            // A snapshot is copied with what its volume grew to since, which is zeros.
            let mut words = arguments(&["resize", "-q", "--shrink", "-f", "qcow2"], &[part.path()]);
            words.push(size_bytes.to_string().into());
            qemu_img(words, allowance).await?;
        }
    }
    Ok(())
}

pub(super) async fn refill(
    storage: &DirStorage,
    (volume, size_bytes): (VolumeId, u64),
    content: &VolumeContent,
    number: u64,
    progress: &(dyn Fn(u8) + Sync),
) -> Result<Volume, StorageError> {
    let now = storage.blocking(move |place| look(place, volume)).await?;
    match (now, content) {
        (Some((now, _)), _) if now.refill >= number => return Ok(now),
        (Some((now, uid)), VolumeContent::Snapshot { volume: of, snapshot }) if *of == volume => {
            if !now.snapshots.contains(snapshot) {
                return Err(StorageError::SnapshotAbsent { volume, snapshot: *snapshot });
            }
            let name = snapshot.to_string();
            let words = arguments(&["snapshot", "-q", "-a", &name], &[&now.path]);
            qemu_img(words, own_allowance(&now, uid, now.size_bytes)?).await?;
            storage.blocking(move |place| synced(place, volume)).await?;
        }
        (None, VolumeContent::Snapshot { .. }) => return Err(StorageError::VolumeAbsent { volume }),
        (Some(_) | None, VolumeContent::Blank | VolumeContent::Image(_) | VolumeContent::Snapshot { .. }) => {
            let size_bytes = whole_sectors(size_bytes);
            let wanted = content.clone();
            let begun = storage.blocking(move |place| begin(place, volume, size_bytes, &wanted));
            let (origin, part) = begun.await?;
            fill(storage, volume, size_bytes, (&origin, &part), content, progress).await?;
            storage.blocking(move |place| put(place, volume, part)).await?;
        }
    }
    // Last: a node that stops before this does it all again.
    storage
        .blocking(move |place| {
            let own = nix::unistd::geteuid().as_raw();
            let path = folder(place, volume).join(REFILL);
            write(&path, number.to_string().as_bytes(), Access { owner: own, mode: 0o600 })?;
            folder_sync(&folder(place, volume))?;
            Ok(present(place, volume)?.0)
        })
        .await
}

/// An image that went from the cache before it was opened can be fetched again.
fn evicted(error: StorageError, path: &Path, content: &VolumeContent) -> StorageError {
    match content {
        VolumeContent::Image(ImageSource { sha256, .. }) if !path.exists() => {
            StorageError::ImageAbsent { sha256: sha256.clone() }
        }
        VolumeContent::Image(_) | VolumeContent::Blank | VolumeContent::Snapshot { .. } => error,
    }
}

/// A copy with progress. `-U`: the guest that has the source open goes on; what a snapshot holds does not change.
fn convert(
    source: &Path,
    format: &str,
    snapshot: Option<VolumeSnapshotId>,
    output: &[&str],
    target: &Path,
) -> Vec<OsString> {
    let mut words = arguments(&["convert", "-p", "-f", format], &[]);
    words.extend(arguments(output, &[]));
    if let Some(snapshot) = snapshot {
        words.extend(arguments(&["-U", "-l"], &[]));
        words.push(format!("snapshot.name={snapshot}").into());
    }
    words.extend(arguments(&[], &[source, target]));
    words
}

enum Begun {
    There(Volume),
    Made(Origin, Part),
}

fn begin(
    place: &Place,
    volume: VolumeId,
    size_bytes: u64,
    content: &VolumeContent,
) -> Result<(Origin, Part), StorageError> {
    let (origin, needs_bytes) = origin(place, volume, size_bytes, content)?;
    let free_bytes = place.capacity()?.free_bytes;
    let wanted_bytes = needs_bytes.saturating_add(place.options.reserve_bytes);
    if wanted_bytes > free_bytes {
        return Err(StorageError::Full { wanted_bytes, free_bytes });
    }
    let folder = folder(place, volume);
    let own = nix::unistd::geteuid().as_raw();
    if folder_ensure(&folder, own, own, 0o711)? {
        folder_sync(&place.volumes())?;
    }
    let owner = match &origin {
        Origin::Blank => own_uid(volume),
        Origin::File { uid, .. } => *uid,
    };
    let part = Part::create(&folder.join(FILE), Access { owner, mode: 0o600 })?;
    Ok((origin, part))
}

/// What the volume is made of, and how much room that takes at least.
fn origin(
    place: &Place,
    volume: VolumeId,
    size_bytes: u64,
    content: &VolumeContent,
) -> Result<(Origin, u64), StorageError> {
    match content {
        VolumeContent::Blank => Ok((Origin::Blank, 0)),
        VolumeContent::Image(source) => {
            let Some((path, image)) = images::cached(&place.images(), &source.sha256)? else {
                return Err(StorageError::ImageAbsent { sha256: source.sha256.clone() });
            };
            if size_bytes < image.virtual_size_bytes {
                let (image, image_bytes) = (source.id, image.virtual_size_bytes);
                return Err(StorageError::DiskTooSmall { image, disk_bytes: size_bytes, image_bytes });
            }
            let format = if image.format == DiskFormat::Qcow2 { "qcow2" } else { "raw" };
            let (uid, stored) = (own_uid(volume), image.stored_bytes);
            let size_bytes = image.virtual_size_bytes;
            Ok((Origin::File { path, format, snapshot: None, size_bytes, uid }, stored))
        }
        VolumeContent::Snapshot { volume, snapshot } => {
            let (source, uid) = present(place, *volume)?;
            let mut file = open(&source.path).map_err(failed("open", &source.path))?;
            let held_bytes = file.metadata().map_err(failed("look at", &source.path))?.blocks() * 512;
            let what = |error: arcus_formats::Unsafe| error.to_string();
            let all = own_snapshots(&mut file)
                .map_err(|error| StorageError::DiskDamaged { path: source.path.clone(), what: what(error) })?;
            let name = snapshot.to_string();
            let Some(found) = all.iter().find(|have| have.name == name) else {
                return Err(StorageError::SnapshotAbsent { volume: *volume, snapshot: *snapshot });
            };
            let source_bytes = found.virtual_size_bytes;
            if size_bytes < source_bytes {
                return Err(StorageError::VolumeTooSmall { volume_bytes: size_bytes, source_bytes });
            }
            let (path, size_bytes) = (source.path, source.size_bytes);
            Ok((Origin::File { path, format: "qcow2", snapshot: Some(*snapshot), size_bytes, uid }, held_bytes))
        }
    }
}

fn put(place: &Place, volume: VolumeId, part: Part) -> Result<Volume, StorageError> {
    part.access(Access { owner: own_uid(volume), mode: 0o600 })?;
    part.commit()?;
    folder_sync(&folder(place, volume))?;
    Ok(present(place, volume)?.0)
}

pub(super) async fn grow(
    storage: &DirStorage,
    volume: VolumeId,
    size_bytes: u64,
    user: Option<&dyn VolumeUser>,
) -> Result<Volume, StorageError> {
    let size_bytes = whole_sectors(size_bytes);
    let (now, uid) = storage.blocking(move |place| present(place, volume)).await?;
    if now.size_bytes >= size_bytes {
        return Ok(now);
    }
    let done = match user {
        Some(user) => user.grow(size_bytes).await,
        None => {
            let mut words = arguments(&["resize", "-q", "-f", "qcow2"], &[&now.path]);
            words.push(size_bytes.to_string().into());
            qemu_img(words, own_allowance(&now, uid, size_bytes)?).await?;
            Ok(())
        }
    };
    done.map_err(|source| StorageError::User { volume, action: "grow it", source })?;
    storage.blocking(move |place| synced(place, volume)).await
}

/// What a program may use that works on the volume's own file, which may have grown beyond its size by snapshots.
fn own_allowance(volume: &Volume, uid: u32, size_bytes: u64) -> Result<Allowance, StorageError> {
    let length = std::fs::metadata(&volume.path).map_err(failed("look at", &volume.path))?.len();
    Ok(allowance(uid, size_bytes.saturating_add(length), 0))
}

fn synced(place: &Place, volume: VolumeId) -> Result<Volume, StorageError> {
    let (now, _) = present(place, volume)?;
    File::open(&now.path).and_then(|file| file.sync_all()).map_err(failed("sync", &now.path))?;
    Ok(now)
}

pub(super) async fn snapshot_make(
    storage: &DirStorage,
    volume: VolumeId,
    snapshot: VolumeSnapshotId,
    user: Option<&dyn VolumeUser>,
) -> Result<(), StorageError> {
    let (now, uid) = storage.blocking(move |place| present(place, volume)).await?;
    if now.snapshots.contains(&snapshot) {
        return Ok(());
    }
    snapshot_change(storage, (volume, now, uid), "-c", snapshot, user).await
}

pub(super) async fn snapshot_remove(
    storage: &DirStorage,
    volume: VolumeId,
    snapshot: VolumeSnapshotId,
    user: Option<&dyn VolumeUser>,
) -> Result<(), StorageError> {
    match storage.blocking(move |place| look(place, volume)).await? {
        Some((now, uid)) if now.snapshots.contains(&snapshot) => {
            snapshot_change(storage, (volume, now, uid), "-d", snapshot, user).await
        }
        Some(_) | None => Ok(()),
    }
}

async fn snapshot_change(
    storage: &DirStorage,
    (volume, now, uid): (VolumeId, Volume, u32),
    flag: &'static str,
    snapshot: VolumeSnapshotId,
    user: Option<&dyn VolumeUser>,
) -> Result<(), StorageError> {
    let name = snapshot.to_string();
    let (action, done) = match (user, flag) {
        (Some(user), "-c") => ("make its snapshot", user.snapshot_make(&name).await),
        (Some(user), _) => ("delete its snapshot", user.snapshot_remove(&name).await),
        (None, _) => {
            let words = arguments(&["snapshot", "-q", flag, &name], &[&now.path]);
            qemu_img(words, own_allowance(&now, uid, now.size_bytes)?).await?;
            ("change its snapshots", Ok(()))
        }
    };
    done.map_err(|source| StorageError::User { volume, action, source })?;
    storage.blocking(move |place| synced(place, volume)).await.map(drop)
}

pub(super) fn hand_over(place: &Place, volume: VolumeId, uid: Option<u32>) -> Result<Volume, StorageError> {
    let (now, _) = present(place, volume)?;
    let file = open(&now.path).map_err(failed("open", &now.path))?;
    give(&file, &now.path, Access { owner: uid.unwrap_or_else(|| own_uid(volume)), mode: 0o600 })?;
    Ok(now)
}

pub(super) async fn export(
    storage: &DirStorage,
    (volume, snapshot): (VolumeId, VolumeSnapshotId),
    name: &str,
    format: DiskFormat,
    progress: &(dyn Fn(u8) + Sync),
) -> Result<Export, StorageError> {
    let target = target(&storage.place, name)?;
    let Ok(_turn) = storage.place.conversions.acquire().await else {
        return Err(StorageError::Unusable { path: storage.place.state.clone(), what: "it was closed".into() });
    };
    let (source, uid, part) = storage
        .blocking(move |place| {
            let (source, uid) = present(place, volume)?;
            if !source.snapshots.contains(&snapshot) {
                return Err(StorageError::SnapshotAbsent { volume, snapshot });
            }
            Ok((source, uid, Part::create(&target, Access { owner: uid, mode: 0o600 })?))
        })
        .await?;
    let (output, format): (&[&str], _) = match format {
        DiskFormat::Raw | DiskFormat::Iso => (&["-O", "raw"], DiskFormat::Raw),
        DiskFormat::Qcow2 | DiskFormat::Vmdk | DiskFormat::Vhd => (&["-c", "-O", "qcow2"], DiskFormat::Qcow2),
    };
    let words = convert(&source.path, "qcow2", Some(snapshot), output, part.path());
    qemu_img_told(words, allowance(uid, source.size_bytes, source.size_bytes), progress).await?;
    storage.blocking(move |place| finish(place, part, format)).await
}
