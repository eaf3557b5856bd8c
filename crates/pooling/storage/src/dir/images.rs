//! The image cache: what tenants uploaded, by the hash of the bytes they uploaded.

use super::durable::{Access, Part, failed, folder_sync, is_abandoned, names, parts_sweep, read, remove, write};
use super::tool::{Allowance, TOOL_UID, arguments, qemu_img};
use super::{DirStorage, Place, disks};
use crate::{DiskFormat, ImageFetch, ImageSource, StorageError, is_hash};
use arcus_formats::{Inspector, inspect_file};
use arcus_types::ImageId;
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

/// How much is read before it is handed to the thread that hashes and writes.
const CHUNK_BYTES: usize = 1 << 20;
/// How many chunks may wait for that thread.
const CHUNKS_QUEUED_MAX: usize = 4;
/// How long a fetch may bring nothing.
const STALL: Duration = Duration::from_secs(60);
/// An image's last use is noted only if the note is older than this: a pass over all servers need not write.
const USE_NOTED_EVERY: Duration = Duration::from_secs(60);
const CACHED: Access = Access { owner: 0, mode: 0o444 };

/// What the JSON beside an image says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cached {
    /// As it is stored: raw, iso or qcow2.
    pub format: DiskFormat,
    /// What a guest sees, in bytes.
    pub virtual_size_bytes: u64,
    /// Length of the stored file, in bytes.
    pub stored_bytes: u64,
}

fn note_path(image: &Path) -> PathBuf {
    image.with_extension("json")
}

/// The cached image and what is known of it; `None` unless all of it is there.
pub(super) fn cached(folder: &Path, sha256: &str) -> Result<Option<(PathBuf, Cached)>, StorageError> {
    let path = folder.join(sha256);
    if !is_hash(sha256) {
        return Ok(None);
    }
    let Ok(meta) = std::fs::symlink_metadata(&path) else { return Ok(None) };
    let Some(note) = read(&note_path(&path))? else { return Ok(None) };
    // A file whose length is not as noted was damaged from outside: it is fetched again.
    let note: Option<Cached> = serde_json::from_slice(&note).ok();
    Ok(note.filter(|note| meta.is_file() && meta.len() == note.stored_bytes).map(|note| (path, note)))
}

/// All cached images.
pub(super) fn list(folder: &Path) -> Result<BTreeMap<String, Cached>, StorageError> {
    let mut found = BTreeMap::new();
    for name in names(folder)?.into_iter().filter(|name| is_hash(name)) {
        if let Some((_, note)) = cached(folder, &name)? {
            found.insert(name, note);
        }
    }
    Ok(found)
}

/// Removes notes without an image: a crash came between the two.
pub(super) fn strays_sweep(folder: &Path) -> Result<(), StorageError> {
    for name in names(folder)? {
        if name.strip_suffix(".json").is_some_and(|hash| !folder.join(hash).exists()) {
            remove(&folder.join(&name))?;
        }
    }
    parts_sweep(folder, false)
}

pub(super) async fn ensure(
    storage: &DirStorage,
    source: &ImageSource,
    fetch: &dyn ImageFetch,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), StorageError> {
    if !is_hash(&source.sha256) {
        return Err(StorageError::Corrupt { image: source.id, what: "its SHA-256 is not one".into() });
    }
    let turn = storage.place.flights.turn(&source.sha256, progress).await;
    let hash = source.sha256.clone();
    let there = storage.blocking(move |place| use_note(&place.images(), &hash)).await?;
    if !there {
        let arrived = |bytes| {
            turn.landed(bytes);
            progress(bytes);
        };
        let (part, format) = land(storage, source, fetch, &arrived).await?;
        let (part, format) = if matches!(format, DiskFormat::Vmdk | DiskFormat::Vhd) {
            (convert(storage, part, format).await?, DiskFormat::Qcow2)
        } else {
            (part, format)
        };
        let (image, hash) = (source.id, source.sha256.clone());
        storage.blocking(move |place| keep(place, image, &hash, part, format)).await?;
    }
    progress(source.size_bytes);
    Ok(())
}

/// Whether the image is there; if so, notes that it is used.
fn use_note(folder: &Path, sha256: &str) -> Result<bool, StorageError> {
    let Some((path, _)) = cached(folder, sha256)? else { return Ok(false) };
    let note = note_path(&path);
    let used = std::fs::metadata(&note).and_then(|meta| meta.modified()).map_err(failed("look at", &note))?;
    if used.elapsed().map_or(true, |ago| ago > USE_NOTED_EVERY) {
        let file = File::options().write(true).open(&note);
        file.and_then(|file| file.set_modified(SystemTime::now())).map_err(failed("note the use of", &note))?;
    }
    Ok(true)
}

/// Fetches into a part, hashing and inspecting on the way.
async fn land(
    storage: &DirStorage,
    source: &ImageSource,
    fetch: &dyn ImageFetch,
    arrived: &(dyn Fn(u64) + Sync),
) -> Result<(Part, DiskFormat), StorageError> {
    let fetch_failed = |error| StorageError::Fetch { image: source.id, source: error };
    let free_bytes = storage.blocking(Place::capacity).await?.free_bytes;
    let wanted_bytes = source.size_bytes.saturating_add(storage.place.options.reserve_bytes);
    if wanted_bytes > free_bytes {
        return Err(StorageError::Full { wanted_bytes, free_bytes });
    }
    let (queue, chunks) = mpsc::channel::<Vec<u8>>(CHUNKS_QUEUED_MAX);
    let wanted = source.clone();
    let writer = storage.blocking(move |place| receive(place, &wanted, chunks));
    let feeder = async move {
        let opened = tokio::time::timeout(STALL, fetch.fetch(source)).await;
        let mut bytes = opened.map_err(|late| fetch_failed(late.into()))?.map_err(fetch_failed)?;
        let mut total = 0;
        arrived(total);
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let mut filled = 0;
            while let Some(room) = chunk.get_mut(filled..).filter(|room| !room.is_empty()) {
                let read = tokio::time::timeout(STALL, bytes.read(room)).await;
                match read.map_err(|late| fetch_failed(late.into()))?.map_err(fetch_failed)? {
                    0 => break,
                    count => filled += count,
                }
            }
            let ended = filled < chunk.len();
            chunk.truncate(filled);
            total += filled as u64;
            // The writer is gone only when it has refused the image: its answer says why.
            if queue.send(chunk).await.is_err() || ended {
                return Ok(());
            }
            arrived(total);
        }
    };
    let (fed, received) = tokio::join!(feeder, writer);
    fed?;
    Ok((received?, source.format))
}

/// Takes the chunks off the queue, on a thread of its own. A fetch that broke off closes the queue, and what came then is
/// not as long as it should be.
fn receive(place: &Place, source: &ImageSource, mut chunks: mpsc::Receiver<Vec<u8>>) -> Result<Part, StorageError> {
    let damaged = |what| StorageError::Corrupt { image: source.id, what };
    let refused = |error| StorageError::Refused { image: source.id, source: error };
    let mut part = Part::create(&place.images().join(&source.sha256), Access { mode: 0o600, ..CACHED })?;
    let mut inspector = Inspector::new(source.format, place.options.limits);
    let mut hash = digest::Context::new(&digest::SHA256);
    while let Some(chunk) = chunks.blocking_recv() {
        inspector.feed(&chunk).map_err(refused)?;
        if inspector.total_bytes() > source.size_bytes {
            return Err(damaged(format!("it is longer than {} bytes", source.size_bytes)));
        }
        hash.update(&chunk);
        part.file.write_all(&chunk).map_err(failed("write", part.path()))?;
    }
    if inspector.total_bytes() != source.size_bytes {
        return Err(damaged(format!("it has {} bytes of {}", inspector.total_bytes(), source.size_bytes)));
    }
    let found = hex::encode(hash.finish());
    if found != source.sha256 {
        return Err(damaged(format!("its SHA-256 is {found}, not {}", source.sha256)));
    }
    inspect_file(&mut part.file, source.format, place.options.limits).map_err(refused)?;
    Ok(part)
}

/// Makes a qcow2 of a VMDK or VHD. The source must have been inspected: it names no other file.
async fn convert(storage: &DirStorage, source: Part, format: DiskFormat) -> Result<Part, StorageError> {
    let Ok(_turn) = storage.place.conversions.acquire().await else {
        return Err(StorageError::Unusable { path: storage.place.state.clone(), what: "it was closed".into() });
    };
    let (source, target, free_bytes) = storage
        .blocking(move |place| {
            source.access(CACHED)?;
            let target = Part::create(source.target(), Access { owner: TOOL_UID, mode: 0o600 })?;
            Ok((source, target, place.capacity()?.free_bytes))
        })
        .await?;
    let room_bytes = free_bytes.saturating_sub(storage.place.options.reserve_bytes);
    let allowance = Allowance {
        uid: TOOL_UID,
        file_bytes_max: storage.place.options.conversion_bytes_max.min(room_bytes),
        data_bytes: room_bytes.min(16 * source.file.metadata().map_or(0, |meta| meta.len())),
        hostile: true,
    };
    // A VHD's size is its footer's, as it was inspected, never its cylinders, heads and sectors.
    let driver = if format == DiskFormat::Vhd { "driver=vpc,force_size_calc=current_size" } else { "driver=vmdk" };
    let mut options = OsString::from(format!("{driver},file.driver=file,file.filename="));
    options.push(source.path().to_string_lossy().replace(',', ",,"));
    let mut words = arguments(&["convert", "-q", "-O", "qcow2", "--image-opts"], &[]);
    words.extend([options, target.path().as_os_str().to_owned()]);
    qemu_img(words, allowance).await?;
    Ok(target)
}

/// Puts a finished part into the cache.
fn keep(place: &Place, image: ImageId, sha256: &str, mut part: Part, format: DiskFormat) -> Result<(), StorageError> {
    part.access(CACHED)?;
    if place.shared {
        // Another node may have put the same image there meanwhile, and have disks on it. What is noted is of that file.
        let path = part.target().to_owned();
        part.commit_new()?;
        folder_sync(&place.images())?;
        let mut file = File::open(&path).map_err(failed("open", &path))?;
        note_write(place, image, sha256, &mut file, format)?;
        return folder_sync(&place.images());
    }
    note_write(place, image, sha256, &mut part.file, format)?;
    part.commit()?;
    folder_sync(&place.images())
}

/// Notes what a cached image is.
fn note_write(
    place: &Place,
    image: ImageId,
    sha256: &str,
    file: &mut File,
    format: DiskFormat,
) -> Result<(), StorageError> {
    let inspection =
        inspect_file(file, format, place.options.limits).map_err(|source| StorageError::Refused { image, source })?;
    let path = place.images().join(sha256);
    let meta = file.metadata().map_err(failed("look at", &path))?;
    let note = Cached { format, virtual_size_bytes: inspection.virtual_size_bytes, stored_bytes: meta.len() };
    let text = serde_json::to_vec(&note).map_err(|error| failed("describe", &path)(error.into()))?;
    write(&note_path(&path), &text, CACHED)
}

/// Removes what was not used for longest, as far as the cache is too large.
pub(super) fn evict(place: &Place, mut keep: BTreeSet<String>, bytes_max: u64) -> Result<Vec<String>, StorageError> {
    keep.extend(disks::images_in_use(place)?);
    let folder = place.images();
    let mut held_bytes = 0u64;
    let mut idle = Vec::new();
    for sha256 in list(&folder)?.into_keys() {
        let path = folder.join(&sha256);
        let meta = std::fs::metadata(&path).map_err(failed("look at", &path))?;
        let used = std::fs::metadata(note_path(&path)).and_then(|meta| meta.modified());
        let on_disk_bytes = meta.blocks() * 512;
        held_bytes += on_disk_bytes;
        // Another node may be about to lay a disk on one that was used lately.
        let idles = !place.shared || is_abandoned(&note_path(&path));
        if idles && !keep.contains(&sha256) {
            idle.push((used.unwrap_or(SystemTime::UNIX_EPOCH), on_disk_bytes, sha256));
        }
    }
    idle.sort_unstable();
    let mut removed = Vec::new();
    for (_, on_disk_bytes, sha256) in idle {
        if held_bytes <= bytes_max {
            break;
        }
        // The image first: a note alone counts for nothing.
        remove(&folder.join(&sha256))?;
        remove(&note_path(&folder.join(&sha256)))?;
        held_bytes = held_bytes.saturating_sub(on_disk_bytes);
        removed.push(sha256);
    }
    if !removed.is_empty() {
        folder_sync(&folder)?;
    }
    Ok(removed)
}
