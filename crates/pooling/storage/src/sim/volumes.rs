//! Simulated volumes: their sizes and snapshots, and nothing in them.

use super::{SimStorage, blank, io_error};
use crate::{
    DiskFormat, Export, PathBuf, StorageError, Volume, VolumeContent, VolumeId, VolumeSnapshotId, VolumeUser,
    whole_sectors,
};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;

/// A volume that is held.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Held {
    size_bytes: u64,
    /// The size that it had at each snapshot.
    snapshots: BTreeMap<VolumeSnapshotId, u64>,
    #[serde(default)]
    refill: u64,
}

impl SimStorage {
    pub(super) fn volume_of(&self, volume: VolumeId, held: &Held) -> Volume {
        Volume {
            path: self.folder.join("volumes").join(volume.to_string()),
            format: DiskFormat::Qcow2,
            size_bytes: held.size_bytes,
            snapshots: held.snapshots.keys().copied().collect(),
            refill: held.refill,
        }
    }

    pub(super) fn volume_make_now(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        content: &VolumeContent,
    ) -> Result<Volume, StorageError> {
        let mut held = self.held();
        if let Some(there) = held.volumes.get(&volume) {
            return Ok(self.volume_of(volume, there));
        }
        let size_bytes = whole_sectors(size_bytes);
        fits(&held, size_bytes, content)?;
        let made = Held { size_bytes, snapshots: BTreeMap::new(), refill: 0 };
        let volume = {
            let answer = self.volume_of(volume, &made);
            held.volumes.insert(volume, made);
            answer
        };
        self.save(&held)?;
        Ok(volume)
    }

    pub(super) fn volume_refill_now(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        content: &VolumeContent,
        number: u64,
    ) -> Result<Volume, StorageError> {
        let own = |of: VolumeId| of == volume;
        match content {
            VolumeContent::Snapshot { volume: of, snapshot } if own(*of) => {
                let size_bytes = self.snapshot_bytes(volume, *snapshot)?;
                self.volume_change(volume, |held| {
                    if held.refill < number {
                        (held.size_bytes, held.refill) = (size_bytes, number);
                    }
                })
            }
            VolumeContent::Blank | VolumeContent::Image(_) | VolumeContent::Snapshot { .. } => {
                let mut held = self.held();
                if let Some(there) = held.volumes.get(&volume).filter(|there| there.refill >= number) {
                    return Ok(self.volume_of(volume, there));
                }
                let size_bytes = whole_sectors(size_bytes);
                fits(&held, size_bytes, content)?;
                let made = Held { size_bytes, snapshots: BTreeMap::new(), refill: number };
                let answer = self.volume_of(volume, &made);
                held.volumes.insert(volume, made);
                self.save(&held)?;
                Ok(answer)
            }
        }
    }

    /// Changes a volume and keeps the result.
    fn volume_change(&self, volume: VolumeId, change: impl FnOnce(&mut Held)) -> Result<Volume, StorageError> {
        let mut held = self.held();
        let found = held.volumes.get_mut(&volume).ok_or(StorageError::VolumeAbsent { volume })?;
        change(found);
        let answer = self.volume_of(volume, found);
        self.save(&held)?;
        Ok(answer)
    }

    fn volume_now(&self, volume: VolumeId) -> Result<Held, StorageError> {
        self.held().volumes.get(&volume).cloned().ok_or(StorageError::VolumeAbsent { volume })
    }

    pub(super) async fn volume_grow_now(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        user: Option<&dyn VolumeUser>,
    ) -> Result<Volume, StorageError> {
        let size_bytes = whole_sectors(size_bytes);
        if let Some(user) = user.filter(|_| self.volume_now(volume).is_ok_and(|held| held.size_bytes < size_bytes)) {
            let done = user.grow(size_bytes).await;
            done.map_err(|source| StorageError::User { volume, action: "grow it", source })?;
        }
        self.volume_change(volume, |held| held.size_bytes = held.size_bytes.max(size_bytes))
    }

    pub(super) async fn volume_snapshot_make_now(
        &self,
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
        user: Option<&dyn VolumeUser>,
    ) -> Result<(), StorageError> {
        if self.volume_now(volume)?.snapshots.contains_key(&snapshot) {
            return Ok(());
        }
        if let Some(user) = user {
            let done = user.snapshot_make(&snapshot.to_string()).await;
            done.map_err(|source| StorageError::User { volume, action: "make its snapshot", source })?;
        }
        self.volume_change(volume, |held| {
            let size_bytes = held.size_bytes;
            held.snapshots.entry(snapshot).or_insert(size_bytes);
        })?;
        Ok(())
    }

    pub(super) async fn volume_snapshot_remove_now(
        &self,
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
        user: Option<&dyn VolumeUser>,
    ) -> Result<(), StorageError> {
        if !self.volume_now(volume).is_ok_and(|held| held.snapshots.contains_key(&snapshot)) {
            return Ok(());
        }
        if let Some(user) = user {
            let done = user.snapshot_remove(&snapshot.to_string()).await;
            done.map_err(|source| StorageError::User { volume, action: "delete its snapshot", source })?;
        }
        self.volume_change(volume, |held| held.snapshots.retain(|have, _| *have != snapshot))?;
        Ok(())
    }

    pub(super) fn snapshot_bytes(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> Result<u64, StorageError> {
        let held = self.volume_now(volume)?;
        held.snapshots.get(&snapshot).copied().ok_or(StorageError::SnapshotAbsent { volume, snapshot })
    }

    /// Zeros of that size: a small qcow2, or a raw file of nothing but a hole.
    pub(super) fn volume_export_now(
        &self,
        path: PathBuf,
        name: &str,
        format: DiskFormat,
        virtual_size_bytes: u64,
    ) -> Result<Export, StorageError> {
        let failed = |error| io_error("write", &path, error);
        let mut file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path);
        if format == DiskFormat::Raw {
            file.as_mut().map_or(Ok(()), |file| file.set_len(virtual_size_bytes)).map_err(failed)?;
        } else {
            std::fs::write(&path, blank::qcow2(virtual_size_bytes)).map_err(failed)?;
        }
        let mut file = file.map_err(failed)?;
        let (mut hash, mut chunk, mut size_bytes) = (digest::Context::new(&digest::SHA256), vec![0; 1 << 20], 0);
        loop {
            let count = file.read(&mut chunk).map_err(failed)?;
            if count == 0 {
                break;
            }
            hash.update(chunk.get(..count).unwrap_or_default());
            size_bytes += count as u64;
        }
        let mut held = self.held();
        held.exports.insert(name.to_owned(), size_bytes);
        self.save(&held)?;
        Ok(Export { path, size_bytes, virtual_size_bytes, sha256: hex::encode(hash.finish()) })
    }
}

/// Refuses a size that is too small for what a volume shall hold, and what is not there.
fn fits(held: &super::Held, size_bytes: u64, content: &VolumeContent) -> Result<(), StorageError> {
    match content {
        VolumeContent::Blank => {}
        VolumeContent::Image(source) => {
            let Some(image) = held.images.get(&source.sha256) else {
                return Err(StorageError::ImageAbsent { sha256: source.sha256.clone() });
            };
            if size_bytes < image.virtual_size_bytes {
                let (image, image_bytes) = (source.id, image.virtual_size_bytes);
                return Err(StorageError::DiskTooSmall { image, disk_bytes: size_bytes, image_bytes });
            }
        }
        VolumeContent::Snapshot { volume: other, snapshot } => {
            let source = held.volumes.get(other).ok_or(StorageError::VolumeAbsent { volume: *other })?;
            let absent = StorageError::SnapshotAbsent { volume: *other, snapshot: *snapshot };
            let source_bytes = *source.snapshots.get(snapshot).ok_or(absent)?;
            if size_bytes < source_bytes {
                return Err(StorageError::VolumeTooSmall { volume_bytes: size_bytes, source_bytes });
            }
        }
    }
    Ok(())
}
