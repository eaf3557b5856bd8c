//! Storage of simulated nodes: the same answers as disks would give, with delays and faults that a seed decides.
//!
//! Image bytes are hashed and inspected like real ones and then forgotten, and disks are nothing but entries in files: a
//! server's in its folder, all else in one of the storage's, so that they outlive the agent as real ones do. Servers'
//! folders and exports are real and small: the simulated hypervisor saves memory in the one, and the server gets the other
//! as an image. An export is a valid qcow2 of zeros.

mod blank;
mod volumes;

use crate::flights::Flights;
use crate::{
    BTreeMap, BTreeSet, Capacity, Disk, DiskFormat, EXPORT_NAME_CHARS_MAX, Export, ImageFetch, ImageSource,
    LocalDisksSpec, Path, PathBuf, RootDiskSpec, ServerId, Storage, StorageError, Volume, VolumeContent, VolumeId,
    VolumeSnapshotId, VolumeUser, config_drive, is_export_name, is_hash, whole_sectors,
};
use arcus_formats::{Inspector, Limits};
use arcus_types::agent::LocalDiskContent;
use async_trait::async_trait;
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;

const CHUNK_BYTES: usize = 64 << 10;
/// What a disk takes besides the image that it lies on.
const LAYER_BYTES: u64 = 256 << 10;

/// How a simulated storage behaves.
#[derive(Debug, Clone, Copy)]
pub struct SimOptions {
    /// Decides delays and faults.
    pub seed: u64,
    /// How much it holds, in bytes.
    pub total_bytes: u64,
    /// The longest that a call takes, in milliseconds; each takes a part of it.
    pub delay_ms_max: u64,
    /// How many calls in a thousand fail.
    pub faults_per_mille: u32,
    /// Whether images are fetched. If not, they are there at once and taken to be what the source says.
    pub fetches: bool,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self { seed: 0, total_bytes: 1 << 40, delay_ms_max: 0, faults_per_mille: 0, fetches: true }
    }
}

/// Storage that pretends.
#[derive(Debug)]
pub struct SimStorage {
    options: SimOptions,
    flights: Flights,
    held: Mutex<Held>,
    folder: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Held {
    #[serde(skip)]
    random: u64,
    /// Counts calls: what was used last has the highest number.
    clock: u64,
    images: BTreeMap<String, Image>,
    /// Each is kept in its own folder.
    #[serde(skip)]
    servers: BTreeMap<ServerId, Server>,
    exports: BTreeMap<String, u64>,
    #[serde(default)]
    volumes: BTreeMap<VolumeId, volumes::Held>,
    #[serde(skip)]
    faults_next: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Image {
    format: DiskFormat,
    virtual_size_bytes: u64,
    stored_bytes: u64,
    used: u64,
}

/// Which of a server's disks is meant.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Root,
    Rescue,
}

impl Slot {
    const fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Rescue => "rescue",
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Server {
    root: Option<(Disk, String)>,
    #[serde(default)]
    rescue: Option<(Disk, String)>,
    #[serde(default)]
    local: BTreeMap<String, Disk>,
}

impl Server {
    fn slot(&mut self, slot: Slot) -> &mut Option<(Disk, String)> {
        match slot {
            Slot::Root => &mut self.root,
            Slot::Rescue => &mut self.rescue,
        }
    }
}

impl Held {
    /// The next random number (SplitMix64: small, and the same everywhere).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn used_bytes(&self) -> u64 {
        let disks = self.servers.values().flat_map(|server| server.root.iter().chain(&server.rescue)).count() as u64;
        let images: u64 = self.images.values().map(|image| image.stored_bytes).sum();
        images + self.exports.values().sum::<u64>() + (disks + self.volumes.len() as u64) * LAYER_BYTES
    }
}

fn io_error(action: &'static str, path: &Path, source: std::io::Error) -> StorageError {
    StorageError::Io { action, path: path.into(), source }
}

/// What has been removed is gone, whether it was there or not.
fn remove(path: &Path, outcome: std::io::Result<()>) -> Result<(), StorageError> {
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The file in the storage's folder that says what is held, and the one in a server's folder that says which disks it has.
const HELD: &str = "disks.json";

fn write(file: &Path, value: &impl Serialize) -> Result<(), StorageError> {
    let bytes = serde_json::to_vec(value).map_err(|error| io_error("write", file, error.into()))?;
    over(file, &bytes).map_err(|error| io_error("write", file, error))
}

/// Writes over what a file holds, in one call: making files anew, as many simulated nodes would, takes file systems long.
/// An agent that ends in between leaves the end of something longer behind the new value, where [`read`] does not look.
fn over(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(file)?;
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)
}

/// What a file says; the default if there is none.
fn read<T: Default + serde::de::DeserializeOwned>(file: &Path) -> Result<T, StorageError> {
    match std::fs::read(file) {
        Ok(bytes) => match serde_json::Deserializer::from_slice(&bytes).into_iter().next() {
            Some(first) => first.map_err(|error| io_error("read", file, error.into())),
            None => Ok(T::default()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(io_error("read", file, error)),
    }
}

/// The servers that have a folder in this one.
fn servers_read(folder: &Path) -> Result<BTreeMap<ServerId, Server>, StorageError> {
    let mut servers = BTreeMap::new();
    for item in std::fs::read_dir(folder).map_err(|error| io_error("read", folder, error))? {
        let path = item.map_err(|error| io_error("read", folder, error))?.path();
        let Some(id) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()) else {
            continue;
        };
        servers.insert(id, read(&path.join(HELD))?);
    }
    Ok(servers)
}

impl SimStorage {
    /// The storage of that folder, which is made unless it is there.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the folder cannot be made or what it holds cannot be read as ours.
    pub fn open(options: SimOptions, folder: PathBuf) -> Result<Self, StorageError> {
        for part in ["servers", "exports"] {
            let path = folder.join(part);
            std::fs::create_dir_all(&path).map_err(|error| io_error("create", &path, error))?;
        }
        let servers = servers_read(&folder.join("servers"))?;
        let held = Mutex::new(Held { random: options.seed, servers, ..read(&folder.join(HELD))? });
        Ok(Self { options, flights: Flights::default(), held, folder })
    }

    /// Keeps what is held besides the servers' disks.
    fn save(&self, held: &Held) -> Result<(), StorageError> {
        write(&self.folder.join(HELD), held)
    }

    /// Keeps a server's disks.
    fn server_save(&self, id: ServerId, server: &Server) -> Result<(), StorageError> {
        let folder = self.server_path(id);
        std::fs::create_dir_all(&folder).map_err(|error| io_error("create", &folder, error))?;
        write(&folder.join(HELD), server)
    }

    fn server_path(&self, server: ServerId) -> PathBuf {
        self.folder.join("servers").join(server.to_string())
    }

    fn export_path(&self, name: &str) -> Result<PathBuf, StorageError> {
        if is_export_name(name) {
            return Ok(self.folder.join("exports").join(name));
        }
        Err(StorageError::ExportName { name: name.chars().take(EXPORT_NAME_CHARS_MAX).collect() })
    }

    /// The size of the disk that a path means: a server's root disk, or a copy of it in the server's folder.
    fn disk_bytes(&self, held: &Held, path: &Path) -> Option<u64> {
        let disk = |server: &Server| server.root.as_ref().map(|(disk, _)| disk.size_bytes);
        let root = held.servers.values().find(|s| s.root.as_ref().is_some_and(|(disk, _)| disk.path == path));
        let of_folder = || {
            let server = path.parent()?.strip_prefix(self.folder.join("servers")).ok()?.to_str()?.parse().ok()?;
            held.servers.get(&server).filter(|_| path.is_file())
        };
        root.or_else(of_folder).and_then(disk)
    }

    /// Makes the next `calls` calls fail with a transient error.
    pub fn fail_next(&self, calls: u32) {
        self.held().faults_next = calls;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call: takes its time, and fails if that is its lot.
    async fn begin(&self, action: &'static str) -> Result<(), StorageError> {
        let (delay_ms, fails) = {
            let mut held = self.held();
            held.clock += 1;
            let delay_ms = held.random().checked_rem(self.options.delay_ms_max.saturating_add(1)).unwrap_or(0);
            let unlucky = held.random() % 1000 < u64::from(self.options.faults_per_mille);
            let told = held.faults_next > 0;
            held.faults_next = held.faults_next.saturating_sub(1);
            (delay_ms, unlucky || told)
        };
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        if !fails {
            return Ok(());
        }
        let source = std::io::Error::other("a simulated fault");
        Err(StorageError::Io { action, path: self.folder.clone(), source })
    }

    /// Reads the image to its end and answers what a guest would see of it, in bytes.
    async fn land(
        &self,
        source: &ImageSource,
        fetch: &dyn ImageFetch,
        arrived: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, StorageError> {
        let fetch_failed = |error| StorageError::Fetch { image: source.id, source: error };
        let refused = |error| StorageError::Refused { image: source.id, source: error };
        let damaged = |what| StorageError::Corrupt { image: source.id, what };
        let mut bytes = fetch.fetch(source).await.map_err(fetch_failed)?;
        let mut inspector = Inspector::new(source.format, Limits::default());
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut chunk = vec![0; CHUNK_BYTES];
        arrived(0);
        loop {
            let count = bytes.read(&mut chunk).await.map_err(fetch_failed)?;
            if count == 0 {
                break;
            }
            let landed = chunk.get(..count).unwrap_or_default();
            inspector.feed(landed).map_err(refused)?;
            hash.update(landed);
            arrived(inspector.total_bytes());
        }
        if inspector.total_bytes() != source.size_bytes {
            return Err(damaged(format!("it has {} bytes of {}", inspector.total_bytes(), source.size_bytes)));
        }
        let found = hex::encode(hash.finish());
        if found != source.sha256 {
            return Err(damaged(format!("its SHA-256 is {found}, not {}", source.sha256)));
        }
        Ok(inspector.finish().map_err(refused)?.virtual_size_bytes)
    }

    fn disk_ensure(&self, slot: Slot, server: ServerId, spec: &RootDiskSpec) -> Result<Disk, StorageError> {
        let mut held = self.held();
        let wanted = spec.incarnation;
        if let Some((disk, _)) = held.servers.get_mut(&server).and_then(|server| server.slot(slot).as_mut()) {
            if disk.incarnation > wanted {
                return Err(StorageError::Stale { server, have: disk.incarnation, wanted });
            }
            if disk.incarnation == wanted {
                let grown = whole_sectors(spec.size_bytes) > disk.size_bytes;
                disk.size_bytes = disk.size_bytes.max(whole_sectors(spec.size_bytes));
                let disk = disk.clone();
                if grown && let Some(known) = held.servers.get(&server) {
                    self.server_save(server, known)?;
                }
                return Ok(disk);
            }
        }
        let sha256 = spec.image.sha256.clone();
        let Some(image) = held.images.get(&sha256).cloned() else {
            return Err(StorageError::ImageAbsent { sha256 });
        };
        let size_bytes = if spec.size_bytes == 0 { image.virtual_size_bytes } else { spec.size_bytes };
        if image.format != DiskFormat::Iso && size_bytes < image.virtual_size_bytes {
            let (image, image_bytes) = (spec.image.id, image.virtual_size_bytes);
            return Err(StorageError::DiskTooSmall { image, disk_bytes: size_bytes, image_bytes });
        }
        let disk = Disk {
            path: self.server_path(server).join(format!("{}-{wanted}.qcow2", slot.word())),
            format: DiskFormat::Qcow2,
            size_bytes: whole_sectors(size_bytes),
            incarnation: wanted,
            cdrom: (image.format == DiskFormat::Iso).then(|| self.folder.join("images").join(&sha256)),
        };
        let known = held.servers.entry(server).or_default();
        *known.slot(slot) = Some((disk.clone(), sha256));
        self.server_save(server, known)?;
        Ok(disk)
    }
}

#[async_trait]
impl Storage for SimStorage {
    async fn capacity(&self) -> Result<Capacity, StorageError> {
        self.begin("look at").await?;
        let used_bytes = self.held().used_bytes();
        let total_bytes = self.options.total_bytes;
        Ok(Capacity { total_bytes, free_bytes: total_bytes.saturating_sub(used_bytes) })
    }

    async fn images(&self) -> Result<Vec<String>, StorageError> {
        self.begin("list").await?;
        Ok(self.held().images.keys().cloned().collect())
    }

    async fn image_ensure(
        &self,
        source: &ImageSource,
        fetch: &dyn ImageFetch,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StorageError> {
        self.begin("fetch").await?;
        if !is_hash(&source.sha256) {
            return Err(StorageError::Corrupt { image: source.id, what: "its SHA-256 is not one".into() });
        }
        let turn = self.flights.turn(&source.sha256, progress).await;
        let there = {
            let mut held = self.held();
            let used = held.clock;
            held.images.get_mut(&source.sha256).map(|image| image.used = used).is_some()
        };
        if !there {
            let free_bytes = self.options.total_bytes.saturating_sub(self.held().used_bytes());
            if source.size_bytes > free_bytes {
                return Err(StorageError::Full { wanted_bytes: source.size_bytes, free_bytes });
            }
            let arrived = |bytes| {
                turn.landed(bytes);
                progress(bytes);
            };
            let raw = matches!(source.format, DiskFormat::Raw | DiskFormat::Iso);
            let virtual_size_bytes = match (self.options.fetches, raw) {
                (true, _) => self.land(source, fetch, &arrived).await?,
                (false, true) => source.size_bytes,
                (false, false) => 0,
            };
            let format = if raw { source.format } else { DiskFormat::Qcow2 };
            let mut held = self.held();
            let image = Image { format, virtual_size_bytes, stored_bytes: source.size_bytes, used: held.clock };
            held.images.insert(source.sha256.clone(), image);
            self.save(&held)?;
        }
        progress(source.size_bytes);
        Ok(())
    }

    async fn image_evict(&self, keep: &BTreeSet<String>, bytes_max: u64) -> Result<Vec<String>, StorageError> {
        self.begin("remove").await?;
        let mut held = self.held();
        let based: BTreeSet<String> = held
            .servers
            .values()
            .flat_map(|s| s.root.iter().chain(&s.rescue))
            .map(|(_, sha256)| sha256.clone())
            .collect();
        let mut idle: Vec<(u64, String)> = held
            .images
            .iter()
            .filter(|(sha256, _)| !keep.contains(*sha256) && !based.contains(*sha256))
            .map(|(sha256, image)| (image.used, sha256.clone()))
            .collect();
        idle.sort_unstable();
        let mut removed = Vec::new();
        for (_, sha256) in idle {
            if held.images.values().map(|image| image.stored_bytes).sum::<u64>() <= bytes_max {
                break;
            }
            held.images.remove(&sha256);
            removed.push(sha256);
        }
        self.save(&held)?;
        Ok(removed)
    }

    async fn server_folder(&self, server: ServerId, _uid: u32) -> Result<PathBuf, StorageError> {
        self.begin("create").await?;
        let mut held = self.held();
        let folder = self.server_path(server);
        std::fs::create_dir_all(&folder).map_err(|error| io_error("create", &folder, error))?;
        held.servers.entry(server).or_default();
        Ok(folder)
    }

    async fn root_disk_ensure(&self, server: ServerId, spec: &RootDiskSpec, _uid: u32) -> Result<Disk, StorageError> {
        self.begin("create").await?;
        self.disk_ensure(Slot::Root, server, spec)
    }

    async fn rescue_disk_ensure(&self, server: ServerId, spec: &RootDiskSpec, _uid: u32) -> Result<Disk, StorageError> {
        self.begin("create").await?;
        self.disk_ensure(Slot::Rescue, server, spec)
    }

    async fn rescue_disk_remove(&self, server: ServerId) -> Result<(), StorageError> {
        self.begin("remove").await?;
        let mut held = self.held();
        let Some(known) = held.servers.get_mut(&server) else { return Ok(()) };
        if known.rescue.take().is_none() {
            return Ok(());
        }
        self.server_save(server, known)
    }

    async fn local_disks_ensure(
        &self,
        server: ServerId,
        spec: &LocalDisksSpec,
        _uid: u32,
        _formatted: bool,
    ) -> Result<Vec<Disk>, StorageError> {
        self.begin("make").await?;
        let mut held = self.held();
        let known = held.servers.entry(server).or_default();
        let mut before = std::mem::take(&mut known.local);
        let mut disks = Vec::with_capacity(spec.disks.len());
        for (name, wanted) in spec.named() {
            let have = before.remove(&name).filter(|disk| disk.incarnation == spec.incarnation);
            let have = have.filter(|_| wanted.content != LocalDiskContent::Swap).map_or(0, |disk| disk.size_bytes);
            let disk = Disk {
                path: self.server_path(server).join(format!("{name}-{}.raw", spec.incarnation)),
                format: DiskFormat::Raw,
                size_bytes: have.max(wanted.size_mib << 20),
                incarnation: spec.incarnation,
                cdrom: None,
            };
            known.local.insert(name, disk.clone());
            disks.push(disk);
        }
        self.server_save(server, known)?;
        Ok(disks)
    }

    async fn root_disk(&self, server: ServerId) -> Result<Option<Disk>, StorageError> {
        self.begin("look at").await?;
        let held = self.held();
        Ok(held.servers.get(&server).and_then(|server| Some(server.root.as_ref()?.0.clone())))
    }

    async fn config_drive_ensure(
        &self,
        server: ServerId,
        files: &BTreeMap<String, Vec<u8>>,
        _uid: u32,
    ) -> Result<Disk, StorageError> {
        self.begin("write").await?;
        let bytes = config_drive::build(files).map_err(|what| StorageError::ConfigDrive { server, what })?;
        self.held().servers.entry(server).or_default();
        let folder = self.server_path(server);
        std::fs::create_dir_all(&folder).map_err(|error| io_error("create", &folder, error))?;
        let path = folder.join("config.img");
        Ok(Disk { path, format: DiskFormat::Raw, size_bytes: bytes.len() as u64, incarnation: 0, cdrom: None })
    }

    async fn export(&self, source: &Path, name: &str) -> Result<Export, StorageError> {
        self.begin("export").await?;
        let path = self.export_path(name)?;
        let mut held = self.held();
        let Some(virtual_size_bytes) = self.disk_bytes(&held, source) else {
            let what = "it is not a disk of this node".into();
            return Err(StorageError::DiskDamaged { path: source.into(), what });
        };
        let bytes = blank::qcow2(virtual_size_bytes);
        std::fs::write(&path, &bytes).map_err(|error| io_error("write", &path, error))?;
        let size_bytes = bytes.len() as u64;
        held.exports.insert(name.to_owned(), size_bytes);
        self.save(&held)?;
        let sha256 = hex::encode(digest::digest(&digest::SHA256, &bytes));
        Ok(Export { path, size_bytes, virtual_size_bytes, sha256 })
    }

    async fn export_remove(&self, name: &str) -> Result<(), StorageError> {
        self.begin("remove").await?;
        let path = self.export_path(name)?;
        let mut held = self.held();
        if held.exports.remove(name).is_some() {
            remove(&path, std::fs::remove_file(&path))?;
        }
        self.save(&held)
    }

    async fn exports(&self) -> Result<Vec<String>, StorageError> {
        self.begin("list").await?;
        Ok(self.held().exports.keys().cloned().collect())
    }

    async fn volume_make(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        content: &VolumeContent,
        progress: &(dyn Fn(u8) + Sync),
    ) -> Result<Volume, StorageError> {
        self.begin("create").await?;
        let made = self.volume_make_now(volume, size_bytes, content)?;
        progress(100);
        Ok(made)
    }

    async fn volume(&self, volume: VolumeId) -> Result<Option<Volume>, StorageError> {
        self.begin("look at").await?;
        Ok(self.held().volumes.get(&volume).map(|held| self.volume_of(volume, held)))
    }

    async fn volume_refill(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        content: &VolumeContent,
        number: u64,
        progress: &(dyn Fn(u8) + Sync),
    ) -> Result<Volume, StorageError> {
        self.begin("refill").await?;
        let volume = self.volume_refill_now(volume, size_bytes, content, number)?;
        progress(100);
        Ok(volume)
    }

    async fn volume_grow(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        user: Option<&dyn VolumeUser>,
    ) -> Result<Volume, StorageError> {
        self.begin("grow").await?;
        self.volume_grow_now(volume, size_bytes, user).await
    }

    async fn volume_snapshot_make(
        &self,
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
        user: Option<&dyn VolumeUser>,
    ) -> Result<(), StorageError> {
        self.begin("snapshot").await?;
        self.volume_snapshot_make_now(volume, snapshot, user).await
    }

    async fn volume_snapshot_remove(
        &self,
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
        user: Option<&dyn VolumeUser>,
    ) -> Result<(), StorageError> {
        self.begin("remove").await?;
        self.volume_snapshot_remove_now(volume, snapshot, user).await
    }

    async fn volume_hand_over(&self, volume: VolumeId, _uid: Option<u32>) -> Result<Volume, StorageError> {
        self.begin("give away").await?;
        let held = self.held();
        let found = held.volumes.get(&volume).map(|held| self.volume_of(volume, held));
        found.ok_or(StorageError::VolumeAbsent { volume })
    }

    async fn volume_remove(&self, volume: VolumeId) -> Result<(), StorageError> {
        self.begin("remove").await?;
        let mut held = self.held();
        held.volumes.remove(&volume);
        self.save(&held)
    }

    async fn volumes(&self) -> Result<Vec<VolumeId>, StorageError> {
        self.begin("list").await?;
        Ok(self.held().volumes.keys().copied().collect())
    }

    async fn volume_export(
        &self,
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
        name: &str,
        format: DiskFormat,
        progress: &(dyn Fn(u8) + Sync),
    ) -> Result<Export, StorageError> {
        self.begin("export").await?;
        let path = self.export_path(name)?;
        let size_bytes = self.snapshot_bytes(volume, snapshot)?;
        let export = self.volume_export_now(path, name, format, size_bytes);
        progress(100);
        export
    }

    async fn server_remove(&self, server: ServerId) -> Result<(), StorageError> {
        self.begin("remove").await?;
        let mut held = self.held();
        let folder = self.server_path(server);
        remove(&folder, std::fs::remove_dir_all(&folder))?;
        held.servers.remove(&server);
        Ok(())
    }

    async fn servers(&self) -> Result<Vec<ServerId>, StorageError> {
        self.begin("list").await?;
        Ok(self.held().servers.keys().copied().collect())
    }
}
