//! What an image is made from, as a digest: an image is built again only when its inputs changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The builder itself is an input, too.
const BUILDER: &[&str] = &[
    include_str!("../image.rs"),
    include_str!("disk.rs"),
    include_str!("modules.rs"),
    include_str!("packages.rs"),
    include_str!("rootfs.rs"),
];

/// SHA-256 over the files in `guest` (path, mode and bytes; not those that go into no image, or into Debian's) and over the builder, in
/// hexadecimal.
pub fn sources_digest(guest: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for source in BUILDER {
        hash.update(source);
    }
    let apart = [guest.join("debian"), guest.join("README.md")];
    for path in files(guest)?.into_iter().filter(|path| !apart.iter().any(|apart| path.starts_with(apart))) {
        let executable = fs::metadata(&path)?.permissions().mode() & 0o100;
        hash.update(path.strip_prefix(guest)?.to_string_lossy().as_bytes());
        hash.update(executable.to_le_bytes());
        hash.update(fs::read(&path)?);
    }
    Ok(hex::encode(hash.finalize()))
}

/// SHA-256 of the file at `path`, in hexadecimal.
pub fn file_digest(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
    Ok(hex::encode(Sha256::digest(bytes)))
}

/// A name for a set of inputs that is short enough to show.
pub fn short_digest(inputs: &str) -> String {
    hex::encode(Sha256::digest(inputs)).chars().take(12).collect()
}

/// All regular files below `folder`, sorted.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("could not list {}", folder.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
