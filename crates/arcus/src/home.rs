//! The folder that holds everything of a cloud.

use anyhow::{Context as _, Result, bail};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The longest path of a socket that the kernel takes, less what a guest's sockets need below the home folder.
const HOME_BYTES_MAX: usize = 40;

/// The folder that holds everything of a cloud.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// The folder as an absolute path; made if `create`.
    pub fn open(path: &Path, create: bool) -> Result<Self> {
        if create {
            std::fs::create_dir_all(path).with_context(|| format!("could not make {}", path.display()))?;
        }
        let path = std::fs::canonicalize(path).with_context(|| format!("there is no cloud at {}", path.display()))?;
        if path.as_os_str().len() > HOME_BYTES_MAX {
            bail!(
                "the home folder's path {} is too long: guests' sockets below it must fit into 107 bytes; use one of at \
                 most {HOME_BYTES_MAX}",
                path.display()
            );
        }
        if create {
            // Guests' processes run as other users and must be able to pass through.
            let agent = path.join("agent");
            std::fs::create_dir_all(&agent)?;
            for folder in [&path, &agent] {
                std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
            }
        }
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The node's state folder.
    pub fn agent(&self) -> PathBuf {
        self.join("agent")
    }

    /// The id of the running process, if there is one. It must hold the lock open: ids of processes are used again, also
    /// by another cloud on the same machine.
    pub fn running(&self) -> Option<i32> {
        let pid: i32 = std::fs::read_to_string(self.join("arcus.pid")).ok()?.trim().parse().ok()?;
        let lock = self.join("arcus.lock");
        let is_lock = |file: std::fs::DirEntry| std::fs::read_link(file.path()).is_ok_and(|target| target == lock);
        // Each thread is asked: those of a process that is being ended close their files one after the other.
        let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        let runs = threads
            .any(|thread| std::fs::read_dir(thread.path().join("fd")).is_ok_and(|files| files.flatten().any(is_lock)));
        runs.then_some(pid)
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> Result<()> {
        std::fs::remove_file(self.join(name)).with_context(|| format!("could not remove {}", self.join(name).display()))
    }

    /// Writes a file that only root reads, whole or not at all.
    pub fn write_private(&self, name: &str, text: &str) -> Result<()> {
        let (path, fresh) = (self.join(name), self.join(&format!(".{name}.new")));
        let write = || -> std::io::Result<()> {
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)
        };
        write().with_context(|| format!("could not write {}", path.display()))
    }
}
