//! Files under the node's state folder.
//!
//! ```text
//! images/<sha256>            0444 root       an image as guests' disks lie on it: raw, iso or qcow2
//! images/<sha256>.json                       its format and size; written first, so an image is never without it
//! disks/<server>/            0710 root:uid   a server's disks; no guest can change what is in the folder
//!   root-<incarnation>.qcow2 0600 uid        the root disk, a layer on an image
//!   root.json                                which incarnation counts, and on which image it lies; written last
//!   <name>-<incarnation>.raw 0600 uid        a local disk: ephemeral0 and further numbers, swap
//!   config.img               0400 uid        the config drive
//! volumes/<volume>/          0711 root       a volume
//!   disk.qcow2               0600 uid        its content and, inside, its snapshots; its guest's or its own user's
//! servers/<server>/          0700 uid        everything else of a server; not looked into here
//! exports/<name>             0600 root       finished exports
//! *.part                                     unfinished; swept when opened
//! disk-pool                  0644 root       only in a folder that several nodes share: by its content they know that it is one
//! ```
//! The JSON files are the points of decision: before they are renamed into place nothing has happened, afterwards all has.
//! Guests own their disk files but no folder here, so a guest that broke out of its emulator can damage its own disk and
//! nothing else; a disk's header is compared to what was made before any program opens it on our behalf.

mod disks;
mod durable;
mod exports;
mod images;
mod local_disks;
mod marker;
mod tool;
mod volumes;

use crate::{
    BTreeMap, BTreeSet, Capacity, Disk, DiskFormat, Export, ImageFetch, ImageSource, LocalDisksSpec, Path, PathBuf,
    RootDiskSpec, ServerId, Storage, StorageError, Volume, VolumeContent, VolumeId, VolumeSnapshotId, VolumeUser,
    flights::Flights, is_export_name,
};
use arcus_types::DiskPoolId;
use async_trait::async_trait;
use durable::{failed, folder_ensure, folder_remove, folder_sync, is_root, names, parts_sweep};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{RwLock, Semaphore};

/// How many programs convert or compress at once: each takes a core.
const CONVERSIONS_MAX: usize = 2;

/// How many servers' records may be written at once.
const RECORD_LOCKS: usize = 16;

/// What an owner of a node may set.
#[derive(Debug, Clone, Copy)]
pub struct DirOptions {
    /// What tenants' images may claim.
    pub limits: arcus_formats::Limits,
    /// The longest file that a conversion of a tenant's image may write, in bytes.
    pub conversion_bytes_max: u64,
    /// What must stay free when an image is fetched, in bytes: guests' disks grow into it.
    pub reserve_bytes: u64,
}

impl Default for DirOptions {
    fn default() -> Self {
        Self { limits: arcus_formats::Limits::default(), conversion_bytes_max: 1 << 40, reserve_bytes: 1 << 30 }
    }
}

/// Storage in a folder of the node.
#[derive(Debug, Clone)]
pub struct DirStorage {
    place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    state: PathBuf,
    /// Other nodes work in this folder, too: nothing is removed that may be theirs, and the first to make an image wins.
    shared: bool,
    options: DirOptions,
    flights: Flights,
    /// Taken for writing while images are removed, for reading while a disk is laid on one.
    cache: RwLock<()>,
    conversions: Semaphore,
    /// Held while a server's record is compared and written: a call that was dropped may still be at it.
    records: [Mutex<()>; RECORD_LOCKS],
}

impl Place {
    fn record_lock(&self, server: ServerId) -> Option<MutexGuard<'_, ()>> {
        let at = usize::try_from(server.0.as_u128() % RECORD_LOCKS as u128).ok()?;
        self.records.get(at).map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    fn disks(&self) -> PathBuf {
        self.state.join("disks")
    }

    fn servers(&self) -> PathBuf {
        self.state.join("servers")
    }

    fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    fn exports(&self) -> PathBuf {
        self.state.join("exports")
    }

    fn capacity(&self) -> Result<Capacity, StorageError> {
        let found = nix::sys::statvfs::statvfs(&self.state);
        let found = found.map_err(|errno| failed("look at", &self.state)(errno.into()))?;
        let unit = found.fragment_size();
        // Blocks that only root may use are not for guests.
        let held_back = found.blocks_free().saturating_sub(found.blocks_available());
        Ok(Capacity {
            total_bytes: found.blocks().saturating_sub(held_back).saturating_mul(unit),
            free_bytes: found.blocks_available().saturating_mul(unit),
        })
    }

    /// Every folder on the way must let guests' users through, or no guest could open its disk.
    fn way_check(&self) -> Result<(), StorageError> {
        for folder in self.state.ancestors() {
            let meta = std::fs::metadata(folder).map_err(failed("look at", folder))?;
            if meta.permissions().mode() & 0o001 == 0 {
                let what = format!("guests' users cannot pass {}: 'chmod o+x' it", folder.display());
                return Err(StorageError::Unusable { path: self.state.clone(), what });
            }
        }
        Ok(())
    }

    fn servers_list(&self) -> Result<Vec<ServerId>, StorageError> {
        let mut found = BTreeSet::new();
        for folder in [self.disks(), self.servers()] {
            found.extend(names(&folder)?.iter().filter_map(|name| name.parse::<ServerId>().ok()));
        }
        Ok(found.into_iter().collect())
    }

    fn server_remove(&self, server: ServerId) -> Result<(), StorageError> {
        for parent in [self.disks(), self.servers()] {
            folder_remove(&parent.join(server.to_string()))?;
            folder_sync(&parent)?;
        }
        Ok(())
    }

    fn server_folder(&self, server: ServerId, uid: u32) -> Result<PathBuf, StorageError> {
        let folder = self.servers().join(server.to_string());
        if folder_ensure(&folder, uid, uid, 0o700)? {
            folder_sync(&self.servers())?;
        }
        Ok(folder)
    }
}

impl DirStorage {
    /// Opens the storage under `state`, an absolute path of a folder that is there, and removes what a crash left
    /// unfinished. One process at a time may have it open.
    ///
    /// # Errors
    /// [`StorageError::Unusable`] if guests' users could not reach it; [`StorageError::Io`].
    pub fn open(state: &Path, options: DirOptions) -> Result<Self, StorageError> {
        Self::open_as(state, options, false)
    }

    /// Opens a folder for servers' disks that other nodes see, too, and have open; answers what it says of itself. Of the
    /// calls of [`Storage`] those for volumes are not for it, and neither is [`Storage::servers`] any node's own list.
    ///
    /// # Errors
    /// As [`DirStorage::open`].
    pub fn open_shared(folder: &Path, options: DirOptions) -> Result<(DiskPoolId, Self), StorageError> {
        let id = marker::ensure(folder)?;
        Ok((id, Self::open_as(folder, options, true)?))
    }

    fn open_as(state: &Path, options: DirOptions, shared: bool) -> Result<Self, StorageError> {
        let state = state.canonicalize().map_err(failed("find", state))?;
        let place = Place {
            state,
            shared,
            options,
            flights: Flights::default(),
            cache: RwLock::default(),
            conversions: Semaphore::new(CONVERSIONS_MAX),
            records: Default::default(),
        };
        if is_root() {
            place.way_check()?;
        }
        let own = nix::unistd::geteuid().as_raw();
        for folder in [place.images(), place.disks(), place.servers(), place.volumes(), place.exports()] {
            folder_ensure(&folder, own, own, 0o711)?;
            parts_sweep(&folder, shared)?;
        }
        for server in names(&place.disks())? {
            parts_sweep(&place.disks().join(server), shared)?;
        }
        for volume in names(&place.volumes())? {
            parts_sweep(&place.volumes().join(volume), shared)?;
        }
        if !shared {
            images::strays_sweep(&place.images())?;
        }
        folder_sync(&place.state)?;
        Ok(Self { place: Arc::new(place) })
    }

    /// Runs file work on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Place) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let place = self.place.clone();
        let task = tokio::task::spawn_blocking(move || work(&place));
        task.await.map_err(|error| failed("work on", &self.place.state)(std::io::Error::other(error)))?
    }
}

#[async_trait]
impl Storage for DirStorage {
    async fn capacity(&self) -> Result<Capacity, StorageError> {
        self.blocking(Place::capacity).await
    }

    async fn images(&self) -> Result<Vec<String>, StorageError> {
        self.blocking(|place| Ok(images::list(&place.images())?.into_keys().collect())).await
    }

    async fn image_ensure(
        &self,
        source: &ImageSource,
        fetch: &dyn ImageFetch,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StorageError> {
        images::ensure(self, source, fetch, progress).await
    }

    async fn image_evict(&self, keep: &BTreeSet<String>, bytes_max: u64) -> Result<Vec<String>, StorageError> {
        let _alone = self.place.cache.write().await;
        let keep = keep.clone();
        self.blocking(move |place| images::evict(place, keep, bytes_max)).await
    }

    async fn server_folder(&self, server: ServerId, uid: u32) -> Result<PathBuf, StorageError> {
        self.blocking(move |place| place.server_folder(server, uid)).await
    }

    async fn root_disk_ensure(&self, server: ServerId, spec: &RootDiskSpec, uid: u32) -> Result<Disk, StorageError> {
        let _not_evicting = self.place.cache.read().await;
        disks::ensure(self, disks::Slot::Root, server, spec, uid).await
    }

    async fn rescue_disk_ensure(&self, server: ServerId, spec: &RootDiskSpec, uid: u32) -> Result<Disk, StorageError> {
        let _not_evicting = self.place.cache.read().await;
        disks::ensure(self, disks::Slot::Rescue, server, spec, uid).await
    }

    async fn rescue_disk_remove(&self, server: ServerId) -> Result<(), StorageError> {
        self.blocking(move |place| disks::rescue_remove(place, server)).await
    }

    async fn local_disks_ensure(
        &self,
        server: ServerId,
        spec: &LocalDisksSpec,
        uid: u32,
        formatted: bool,
    ) -> Result<Vec<Disk>, StorageError> {
        local_disks::ensure(self, server, spec, uid, formatted).await
    }

    async fn root_disk(&self, server: ServerId) -> Result<Option<Disk>, StorageError> {
        self.blocking(move |place| disks::root(place, server)).await
    }

    async fn config_drive_ensure(
        &self,
        server: ServerId,
        files: &BTreeMap<String, Vec<u8>>,
        uid: u32,
    ) -> Result<Disk, StorageError> {
        let files = files.clone();
        self.blocking(move |place| disks::config_drive_ensure(place, server, &files, uid)).await
    }

    async fn export(&self, source: &Path, name: &str) -> Result<Export, StorageError> {
        exports::export(self, source, name).await
    }

    async fn export_remove(&self, name: &str) -> Result<(), StorageError> {
        let target = exports::target(&self.place, name)?;
        self.blocking(move |place| {
            if durable::remove(&target)? {
                folder_sync(&place.exports())?;
            }
            Ok(())
        })
        .await
    }

    async fn exports(&self) -> Result<Vec<String>, StorageError> {
        self.blocking(|place| {
            let names = names(&place.exports())?;
            Ok(names.into_iter().filter(|name| is_export_name(name)).collect())
        })
        .await
    }

    async fn volume_make(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        content: &VolumeContent,
        progress: &(dyn Fn(u8) + Sync),
    ) -> Result<Volume, StorageError> {
        volumes::make(self, volume, size_bytes, content, progress).await
    }

    async fn volume_refill(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        content: &VolumeContent,
        number: u64,
        progress: &(dyn Fn(u8) + Sync),
    ) -> Result<Volume, StorageError> {
        volumes::refill(self, (volume, size_bytes), content, number, progress).await
    }

    async fn volume(&self, volume: VolumeId) -> Result<Option<Volume>, StorageError> {
        self.blocking(move |place| Ok(volumes::look(place, volume)?.map(|(volume, _)| volume))).await
    }

    async fn volume_grow(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        user: Option<&dyn VolumeUser>,
    ) -> Result<Volume, StorageError> {
        volumes::grow(self, volume, size_bytes, user).await
    }

    async fn volume_snapshot_make(
        &self,
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
        user: Option<&dyn VolumeUser>,
    ) -> Result<(), StorageError> {
        volumes::snapshot_make(self, volume, snapshot, user).await
    }

    async fn volume_snapshot_remove(
        &self,
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
        user: Option<&dyn VolumeUser>,
    ) -> Result<(), StorageError> {
        volumes::snapshot_remove(self, volume, snapshot, user).await
    }

    async fn volume_hand_over(&self, volume: VolumeId, uid: Option<u32>) -> Result<Volume, StorageError> {
        self.blocking(move |place| volumes::hand_over(place, volume, uid)).await
    }

    async fn volume_remove(&self, volume: VolumeId) -> Result<(), StorageError> {
        self.blocking(move |place| {
            folder_remove(&place.volumes().join(volume.to_string()))?;
            folder_sync(&place.volumes())
        })
        .await
    }

    async fn volumes(&self) -> Result<Vec<VolumeId>, StorageError> {
        self.blocking(|place| Ok(names(&place.volumes())?.iter().filter_map(|name| name.parse().ok()).collect())).await
    }

    async fn volume_export(
        &self,
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
        name: &str,
        format: DiskFormat,
        progress: &(dyn Fn(u8) + Sync),
    ) -> Result<Export, StorageError> {
        volumes::export(self, (volume, snapshot), name, format, progress).await
    }

    async fn server_remove(&self, server: ServerId) -> Result<(), StorageError> {
        self.blocking(move |place| place.server_remove(server)).await
    }

    async fn servers(&self) -> Result<Vec<ServerId>, StorageError> {
        self.blocking(Place::servers_list).await
    }
}
