//! Self-contained images of disks, on their way out of the node.

use super::durable::{Access, Part, failed, folder_sync};
use super::tool::{Allowance, TOOL_UID, arguments, qemu_img};
use super::{DirStorage, Place};
use crate::{DiskFormat, EXPORT_NAME_CHARS_MAX, Export, StorageError, is_export_name, is_hash};
use arcus_formats::own_disk;
use aws_lc_rs::digest;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const CHUNK_BYTES: usize = 1 << 20;
/// What qcow2 needs beside the data.
pub(super) const TABLES_BYTES_MAX: u64 = 64 << 20;

/// Where the export of that name is or would be.
pub(super) fn target(place: &Place, name: &str) -> Result<PathBuf, StorageError> {
    if is_export_name(name) {
        return Ok(place.exports().join(name));
    }
    Err(StorageError::ExportName { name: name.chars().take(EXPORT_NAME_CHARS_MAX).collect() })
}

pub(super) async fn export(storage: &DirStorage, source: &Path, name: &str) -> Result<Export, StorageError> {
    let target = target(&storage.place, name)?;
    let Ok(_turn) = storage.place.conversions.acquire().await else {
        return Err(StorageError::Unusable { path: storage.place.state.clone(), what: "it was closed".into() });
    };
    let wanted = source.to_owned();
    let (part, source_of) = storage
        .blocking(move |place| {
            let found = source_check(place, &wanted)?;
            // The converter has the rights of the disk's guest and no more.
            Ok((Part::create(&target, Access { owner: found.uid, mode: 0o600 })?, found))
        })
        .await?;
    let allowance = Allowance {
        uid: source_of.uid,
        file_bytes_max: source_of
            .virtual_size_bytes
            .saturating_add(source_of.virtual_size_bytes / 8 + TABLES_BYTES_MAX),
        data_bytes: source_of.virtual_size_bytes,
        hostile: false,
    };
    let words = arguments(&["convert", "-q", "-c", "-f", "qcow2", "-O", "qcow2"], &[source, part.path()]);
    qemu_img(words, allowance).await?;
    storage.blocking(move |place| finish(place, part, DiskFormat::Qcow2)).await
}

/// A disk that may be exported.
struct Source {
    uid: u32,
    virtual_size_bytes: u64,
}

/// The disk's header may have been rewritten by its guest's emulator: it must lie on nothing but a cached image.
fn source_check(place: &Place, path: &Path) -> Result<Source, StorageError> {
    let damaged = |what: String| StorageError::DiskDamaged { path: path.to_owned(), what };
    if !path.starts_with(&place.state) || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(damaged("it is not a disk of this node".into()));
    }
    let no_link = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = std::fs::File::options().read(true).custom_flags(no_link.bits()).open(path);
    let mut file = file.map_err(failed("open", path))?;
    let meta = file.metadata().map_err(failed("look at", path))?;
    let header = own_disk(&mut file).map_err(|error| damaged(error.to_string()))?;
    if let Some(backing) = &header.backing {
        let image = Path::new(&backing.name).strip_prefix(place.images()).ok().and_then(Path::to_str);
        let known = image.is_some_and(is_hash) && matches!(backing.format.as_deref(), Some("raw" | "qcow2"));
        if !known {
            return Err(damaged("it does not lie on an image of this node".into()));
        }
    }
    let uid = if meta.uid() == 0 { TOOL_UID } else { meta.uid() };
    Ok(Source { uid, virtual_size_bytes: header.virtual_size_bytes })
}

/// Checks what the converter made, hashes it and puts it in its place.
pub(super) fn finish(place: &Place, mut part: Part, format: DiskFormat) -> Result<Export, StorageError> {
    let path = part.target().to_owned();
    part.access(Access { owner: nix::unistd::geteuid().as_raw(), mode: 0o600 })?;
    let limits = arcus_formats::Limits { virtual_size_bytes_max: u64::MAX };
    let inspection = arcus_formats::inspect_file(&mut part.file, format, limits)
        .map_err(|error| StorageError::DiskDamaged { path: path.clone(), what: error.to_string() })?;
    let (size_bytes, sha256) = hash(&mut part.file).map_err(failed("read", &path))?;
    part.commit()?;
    folder_sync(&place.exports())?;
    Ok(Export { path, size_bytes, virtual_size_bytes: inspection.virtual_size_bytes, sha256 })
}

fn hash(file: &mut std::fs::File) -> std::io::Result<(u64, String)> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut total = 0;
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            return Ok((total, hex::encode(hash.finish())));
        }
        hash.update(chunk.get(..count).unwrap_or_default());
        total += count as u64;
    }
}
