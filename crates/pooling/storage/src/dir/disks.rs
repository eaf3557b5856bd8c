//! Root disks and config drives.

use super::durable::{Access, Part, failed, folder_ensure, folder_sync, give, names, read, remove, write};
use super::tool::{Allowance, arguments, qemu_img};
use super::{DirStorage, Place, images};
use crate::{Disk, DiskFormat, RootDiskSpec, ServerId, StorageError, config_drive, whole_sectors};
use arcus_formats::own_disk;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A new layer's own tables: at most 16 TiB in 64 KiB clusters need 256 KiB; growing moves them.
const LAYER_BYTES_MAX: u64 = 64 << 20;
const CONFIG_DRIVE: &str = "config.img";

/// Which of a server's disks is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// The one that it boots from.
    Root,
    /// The one that it boots from while it is rescued.
    Rescue,
}

impl Slot {
    const ALL: [Self; 2] = [Self::Root, Self::Rescue];

    const fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Rescue => "rescue",
        }
    }

    fn record_name(self) -> String {
        format!("{}.json", self.word())
    }
}

/// What `root.json` or `rescue.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The incarnation that counts: the disk is `<slot>-<incarnation>.qcow2`.
    incarnation: u64,
    /// The image that it lies on, or that is its CD.
    image_sha256: String,
    /// How that is stored: raw, qcow2, or iso for a CD.
    image_format: DiskFormat,
}

impl Record {
    fn disk_name(&self, slot: Slot) -> String {
        format!("{}-{}.qcow2", slot.word(), self.incarnation)
    }

    fn cdrom(&self, place: &Place) -> Option<PathBuf> {
        (self.image_format == DiskFormat::Iso).then(|| place.images().join(&self.image_sha256))
    }

    /// The file and format that the disk must lie on.
    fn backing(&self, place: &Place) -> Option<(PathBuf, &'static str)> {
        let format = match self.image_format {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Iso | DiskFormat::Vmdk | DiskFormat::Vhd => return None,
        };
        Some((place.images().join(&self.image_sha256), format))
    }
}

fn folder(place: &Place, server: ServerId) -> PathBuf {
    place.disks().join(server.to_string())
}

fn record(folder: &Path, slot: Slot) -> Result<Option<Record>, StorageError> {
    let path = folder.join(slot.record_name());
    let Some(text) = read(&path)? else { return Ok(None) };
    let found = serde_json::from_slice(&text);
    found.map(Some).map_err(|error| StorageError::DiskDamaged { path, what: format!("its record: {error}") })
}

/// The images that disks here lie on.
pub(super) fn images_in_use(place: &Place) -> Result<BTreeSet<String>, StorageError> {
    let mut used = BTreeSet::new();
    for server in names(&place.disks())? {
        let folder = place.disks().join(server);
        for slot in Slot::ALL {
            used.extend(record(&folder, slot)?.map(|record| record.image_sha256));
        }
    }
    Ok(used)
}

/// The root disk as it is.
pub(super) fn root(place: &Place, server: ServerId) -> Result<Option<Disk>, StorageError> {
    disk_at(place, Slot::Root, server)
}

fn disk_at(place: &Place, slot: Slot, server: ServerId) -> Result<Option<Disk>, StorageError> {
    let folder = folder(place, server);
    record(&folder, slot)?.map(|record| look(place, slot, &folder, &record)).transpose()
}

/// Reads the disk's header, which its guest's emulator may have rewritten, and compares it to what was made.
fn look(place: &Place, slot: Slot, folder: &Path, record: &Record) -> Result<Disk, StorageError> {
    let path = folder.join(record.disk_name(slot));
    let damaged = |what: String| StorageError::DiskDamaged { path: path.clone(), what };
    let mut file = match open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(damaged("it is gone".into())),
        Err(error) => return Err(failed("open", &path)(error)),
    };
    let header = own_disk(&mut file).map_err(|error| damaged(error.to_string()))?;
    let wanted = record.backing(place).map(|(path, format)| (path.to_string_lossy().into_owned(), format.to_owned()));
    let found = header.backing.map(|backing| (backing.name, backing.format.unwrap_or_default()));
    if found != wanted {
        return Err(damaged("it does not lie on the image that it was made from".into()));
    }
    Ok(Disk {
        path,
        format: DiskFormat::Qcow2,
        size_bytes: header.virtual_size_bytes,
        incarnation: record.incarnation,
        cdrom: record.cdrom(place),
    })
}

pub(super) fn open(path: &Path) -> std::io::Result<File> {
    let no_link = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    File::options().read(true).custom_flags(no_link.bits()).open(path)
}

/// What has to be done to the root disk.
enum Step {
    Nothing(Disk),
    Grow(Disk, u64),
    Create { record: Record, part: Part, size_bytes: u64 },
}

pub(super) async fn ensure(
    storage: &DirStorage,
    slot: Slot,
    server: ServerId,
    spec: &RootDiskSpec,
    uid: u32,
) -> Result<Disk, StorageError> {
    let wanted = spec.clone();
    let step = storage.blocking(move |place| step(place, slot, server, &wanted, uid)).await?;
    let allowance = Allowance { uid, file_bytes_max: LAYER_BYTES_MAX, data_bytes: 0, hostile: false };
    match step {
        Step::Nothing(disk) => Ok(disk),
        Step::Grow(disk, size_bytes) => {
            let length = std::fs::metadata(&disk.path).map_err(failed("look at", &disk.path))?.len();
            let allowance = Allowance { file_bytes_max: length.saturating_add(LAYER_BYTES_MAX), ..allowance };
            let mut words = arguments(&["resize", "-q", "-f", "qcow2"], &[&disk.path]);
            words.push(size_bytes.to_string().into());
            qemu_img(words, allowance).await?;
            let done = storage.blocking(move |place| {
                File::open(&disk.path).and_then(|file| file.sync_all()).map_err(failed("sync", &disk.path))?;
                disk_at(place, slot, server)
            });
            done.await?.ok_or(StorageError::ImageAbsent { sha256: spec.image.sha256.clone() })
        }
        Step::Create { record, part, size_bytes } => {
            let mut words = arguments(&["create", "-q", "-f", "qcow2"], &[]);
            if let Some((path, format)) = record.backing(&storage.place) {
                // `-u`: the image is not opened; its size is known and ours is given.
                words.extend(arguments(&["-u", "-F", format, "-b"], &[&path]));
            }
            words.extend([part.path().as_os_str().to_owned(), size_bytes.to_string().into()]);
            qemu_img(words, allowance).await?;
            storage.blocking(move |place| put(place, slot, server, &record, part)).await
        }
    }
}

/// Looks at what is there and prepares what has to be done.
fn step(place: &Place, slot: Slot, server: ServerId, spec: &RootDiskSpec, uid: u32) -> Result<Step, StorageError> {
    let folder = folder(place, server);
    let have = record(&folder, slot)?;
    let wanted = spec.incarnation;
    if let Some(have) = have {
        if have.incarnation > wanted {
            return Err(StorageError::Stale { server, have: have.incarnation, wanted });
        }
        if have.incarnation == wanted {
            folder_open(place, server, uid)?;
            let disk = look(place, slot, &folder, &have)?;
            let file = open(&disk.path).map_err(failed("open", &disk.path))?;
            give(&file, &disk.path, Access { owner: uid, mode: 0o600 })?;
            strays_remove(&folder, slot, &have)?;
            let size_bytes = whole_sectors(spec.size_bytes);
            return Ok(if size_bytes > disk.size_bytes { Step::Grow(disk, size_bytes) } else { Step::Nothing(disk) });
        }
    }
    let sha256 = spec.image.sha256.clone();
    let Some((_, image)) = images::cached(&place.images(), &sha256)? else {
        return Err(StorageError::ImageAbsent { sha256 });
    };
    let size_bytes = if spec.size_bytes == 0 { image.virtual_size_bytes } else { spec.size_bytes };
    let size_bytes = whole_sectors(size_bytes);
    if image.format != DiskFormat::Iso && size_bytes < image.virtual_size_bytes {
        let (image, image_bytes) = (spec.image.id, image.virtual_size_bytes);
        return Err(StorageError::DiskTooSmall { image, disk_bytes: spec.size_bytes, image_bytes });
    }
    let record = Record { incarnation: wanted, image_sha256: sha256, image_format: image.format };
    folder_open(place, server, uid)?;
    let part = Part::create(&folder.join(record.disk_name(slot)), Access { owner: uid, mode: 0o600 })?;
    Ok(Step::Create { record, part, size_bytes })
}

/// Makes the server's folder unless it is there: the guest may pass through it, and only root may change it.
pub(super) fn folder_open(place: &Place, server: ServerId, uid: u32) -> Result<PathBuf, StorageError> {
    let folder = folder(place, server);
    if folder_ensure(&folder, nix::unistd::geteuid().as_raw(), uid, 0o710)? {
        folder_sync(&place.disks())?;
    }
    Ok(folder)
}

/// Puts a new disk in its place: first the disk, then the record that makes it count, then the old one goes. A disk that
/// came into its place meanwhile and is as new stays.
fn put(place: &Place, slot: Slot, server: ServerId, record: &Record, part: Part) -> Result<Disk, StorageError> {
    let folder = folder(place, server);
    let _alone = place.record_lock(server);
    if let Some(have) = self::record(&folder, slot)?.filter(|have| have.incarnation >= record.incarnation) {
        return look(place, slot, &folder, &have);
    }
    part.commit()?;
    let path = folder.join(slot.record_name());
    let text = serde_json::to_vec(record).map_err(|error| failed("describe", &path)(error.into()))?;
    write(&path, &text, Access { owner: nix::unistd::geteuid().as_raw(), mode: 0o600 })?;
    folder_sync(&folder)?;
    strays_remove(&folder, slot, record)?;
    look(place, slot, &folder, record)
}

/// Removes disks that do not count: an earlier incarnation's, or one whose record was never written.
fn strays_remove(folder: &Path, slot: Slot, record: &Record) -> Result<(), StorageError> {
    let prefix = format!("{}-", slot.word());
    for name in names(folder)? {
        if name.starts_with(&prefix) && name.ends_with(".qcow2") && name != record.disk_name(slot) {
            remove(&folder.join(name))?;
        }
    }
    Ok(())
}

/// Removes the rescue disk: first its record, so that a disk without one is a stray.
pub(super) fn rescue_remove(place: &Place, server: ServerId) -> Result<(), StorageError> {
    let folder = folder(place, server);
    if !folder.exists() {
        return Ok(());
    }
    let mut removed = remove(&folder.join(Slot::Rescue.record_name()))?;
    for name in names(&folder)? {
        if name.starts_with("rescue-") && name.ends_with(".qcow2") {
            removed |= remove(&folder.join(name))?;
        }
    }
    if removed {
        folder_sync(&folder)?;
    }
    Ok(())
}

pub(super) fn config_drive_ensure(
    place: &Place,
    server: ServerId,
    files: &BTreeMap<String, Vec<u8>>,
    uid: u32,
) -> Result<Disk, StorageError> {
    let bytes = config_drive::build(files).map_err(|what| StorageError::ConfigDrive { server, what })?;
    let folder = folder_open(place, server, uid)?;
    let path = folder.join(CONFIG_DRIVE);
    let access = Access { owner: uid, mode: 0o400 };
    if read(&path)?.is_some_and(|there| there == bytes) {
        let file = open(&path).map_err(failed("open", &path))?;
        give(&file, &path, access)?;
    } else {
        write(&path, &bytes, access)?;
        folder_sync(&folder)?;
    }
    Ok(Disk { path, format: DiskFormat::Raw, size_bytes: bytes.len() as u64, incarnation: 0, cdrom: None })
}
