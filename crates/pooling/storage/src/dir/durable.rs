//! Files that are either whole or not there, whatever moment the machine stops at.
//!
//! Everything is written to a *part* beside its place, synced, and renamed over. Parts that a crash left behind are swept
//! when the storage is opened. The folders worked in here belong to root, so no guest can put a link in the way.

use crate::{ServerId, StorageError};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Tells our unfinished files from those of other processes: a folder may be shared with other machines'.
static OURS: LazyLock<String> = LazyLock::new(|| ServerId::random().0.simple().to_string());
/// What was not touched for so long in a shared folder is nobody's work any more: a day, whatever their clocks say.
pub(super) const ABANDONED: Duration = Duration::from_secs(24 * 3_600);

/// How the name of an unfinished file ends.
const PART: &str = "part";

/// Whose a file is and who may do what with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    /// The owner, user and group alike; only changed when this process may.
    pub owner: u32,
    /// The permission bits.
    pub mode: u32,
}

/// A file in the making. It goes away when dropped before [`Part::commit`].
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    target: PathBuf,
    committed: bool,
    /// Open for reading and writing.
    pub file: File,
}

impl Part {
    /// Begins an empty file that will become `target`.
    pub fn create(target: &Path, access: Access) -> Result<Self, StorageError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = target.with_extension(format!("{}-{number}.{PART}", *OURS));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(failed("create", &path))?;
        let part = Self { path, target: target.to_owned(), committed: false, file };
        part.access(access)?;
        Ok(part)
    }

    /// Where the bytes are until [`Part::commit`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where they will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Sets owner and permissions.
    pub fn access(&self, access: Access) -> Result<(), StorageError> {
        give(&self.file, &self.path, access)
    }

    /// As [`Part::commit`], but a file that is there already stays.
    pub fn commit_new(self) -> Result<(), StorageError> {
        self.file.sync_all().map_err(failed("sync", &self.path))?;
        match std::fs::hard_link(&self.path, &self.target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("link", &self.path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Syncs the bytes and puts the file in its place. The folder is synced by [`folder_sync`], so that several files cost
    /// one sync.
    pub fn commit(mut self) -> Result<(), StorageError> {
        self.file.sync_all().map_err(failed("sync", &self.path))?;
        std::fs::rename(&self.path, &self.target).map_err(failed("rename", &self.path))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            // It is swept at the next start.
            tracing::warn!(path = %self.path.display(), %error, "an unfinished file could not be removed");
        }
    }
}

/// Turns an I/O error into ours, naming what was tried and on what.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io { action, path, source }
}

/// Whether this process may give files away.
pub(super) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Sets owner and permissions of an open file or folder where they differ.
pub(super) fn give(file: &File, path: &Path, access: Access) -> Result<(), StorageError> {
    let meta = file.metadata().map_err(failed("look at", path))?;
    if is_root() && (meta.uid() != access.owner || meta.gid() != access.owner) {
        fchown(file, Some(access.owner), Some(access.owner)).map_err(failed("give away", path))?;
    }
    if meta.permissions().mode() & 0o7777 != access.mode {
        let permissions = Permissions::from_mode(access.mode);
        file.set_permissions(permissions).map_err(failed("set the permissions of", path))?;
    }
    Ok(())
}

/// Writes a whole file in one step; the folder still has to be synced.
pub(super) fn write(target: &Path, content: &[u8], access: Access) -> Result<(), StorageError> {
    let mut part = Part::create(target, access)?;
    part.file.write_all(content).map_err(failed("write", part.path()))?;
    part.commit()
}

/// Makes what was renamed or removed in a folder last.
pub(super) fn folder_sync(folder: &Path) -> Result<(), StorageError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

/// Makes a folder unless it is there and sets its owner (`owner`, `group`) and mode. Answers whether it was made.
pub(super) fn folder_ensure(path: &Path, owner: u32, group: u32, mode: u32) -> Result<bool, StorageError> {
    let made = match std::fs::create_dir(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(failed("create", path)(error)),
    };
    let no_link = nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_NOFOLLOW;
    let folder = OpenOptions::new().read(true).custom_flags(no_link.bits()).open(path);
    let folder = folder.map_err(failed("open", path))?;
    let meta = folder.metadata().map_err(failed("look at", path))?;
    if is_root() && (meta.uid() != owner || meta.gid() != group) {
        fchown(&folder, Some(owner), Some(group)).map_err(failed("give away", path))?;
    }
    if meta.permissions().mode() & 0o7777 != mode {
        let permissions = Permissions::from_mode(mode);
        folder.set_permissions(permissions).map_err(failed("set the permissions of", path))?;
    }
    Ok(made)
}

/// Removes a file; nothing happens if it is not there. Answers whether it was.
pub(super) fn remove(path: &Path) -> Result<bool, StorageError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

/// Removes a folder with all that is in it, never following a link; nothing happens if it is not there.
pub(super) fn folder_remove(path: &Path) -> Result<(), StorageError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The names in a folder; none if it is not there. Names that are not text are none of ours.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, StorageError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed("list", folder))?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// A small file's content; `None` if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Whether a file was not touched for so long that nobody works at it; one whose age is not known was.
pub(super) fn is_abandoned(path: &Path) -> bool {
    let touched = std::fs::symlink_metadata(path).and_then(|meta| meta.modified());
    touched.is_ok_and(|touched| touched.elapsed().is_ok_and(|ago| ago > ABANDONED))
}

/// Removes the unfinished files of a crash; in a shared folder only those that are nobody's.
pub(super) fn parts_sweep(folder: &Path, shared: bool) -> Result<(), StorageError> {
    for name in names(folder)? {
        let is_part = Path::new(&name).extension() == Some(OsStr::new(PART));
        if is_part && (!shared || is_abandoned(&folder.join(&name))) {
            remove(&folder.join(&name))?;
        }
    }
    Ok(())
}
