//! What the agent must remember over a restart, one small file a server, in a folder that no guest's process can write to.

use arcus_types::agent::{AttachmentSpec, HardwareSpec};
use arcus_types::{MigrationId, PortId, ServerId, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The first user id that guests run as; nobody on the machine has it.
const UID_BASE: u32 = 0x6000_0000;

/// A file of the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("could not use {path}")]
pub struct LedgerError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// What is remembered of one server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Which of the node's user ids its guest runs as.
    pub slot: u32,
    /// The wish that has been acted on in full.
    pub version: u64,
    /// How often the guest has been restarted on request.
    pub restarts: u64,
    /// The shape with which it was started last.
    pub hardware: Option<HardwareSpec>,
    /// The version that the guest was last started for, and the machine's boot id then: a guest that ends afterwards
    /// has ended by itself, unless the whole machine went down.
    pub started: Option<(u64, String)>,
    /// The interfaces that the guest has, in order.
    #[serde(default)]
    pub ports: Vec<PortId>,
    /// The incarnation of the rescue disk that the guest was started from last, if it was.
    #[serde(default)]
    pub rescue: Option<u64>,
    /// The last password wish that has been acted on.
    #[serde(default)]
    pub passwords: u64,
    /// Why that password could not be set.
    #[serde(default)]
    pub password_fault: Option<String>,
    /// The volumes that its machine has or, if it was saved, had.
    #[serde(default)]
    pub volumes: Vec<Plug>,
    /// The move by which its guest comes here, and whether a machine was started for it: it is never started twice.
    #[serde(default)]
    pub incoming: Option<(MigrationId, bool)>,
}

/// A volume in a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plug {
    /// The slot that it is in; `None` is the place of the root disk. A machine that goes on from saved memory must have it
    /// there again.
    pub slot: Option<u32>,
    /// The volume, and how the machine has it.
    pub attachment: AttachmentSpec,
}

impl Entry {
    /// The user id that its guest runs as.
    pub fn uid(&self) -> u32 {
        UID_BASE + self.slot
    }
}

/// The ledger of a node.
pub struct Ledger {
    folder: PathBuf,
    entries: Mutex<HashMap<ServerId, Entry>>,
}

impl Ledger {
    /// Opens the ledger in this folder.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| LedgerError { path, source }
        };
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let mut entries = HashMap::new();
        for item in std::fs::read_dir(folder).map_err(failed(folder))?.flatten() {
            let path = item.path();
            let id = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
            let (Some(id), Some("json")) = (id, path.extension().and_then(|e| e.to_str())) else { continue };
            let text = std::fs::read_to_string(&path).map_err(failed(&path))?;
            let entry = serde_json::from_str(&text)
                .map_err(|e| LedgerError { path: path.clone(), source: std::io::Error::other(e) })?;
            entries.insert(id, entry);
        }
        Ok(Self { folder: folder.to_owned(), entries: Mutex::new(entries) })
    }

    fn path(&self, id: ServerId) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// The servers that are remembered.
    pub fn servers(&self) -> Vec<ServerId> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// The volumes that servers had last.
    pub fn volumes(&self) -> Vec<(VolumeId, ServerId)> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(server, entry): (&ServerId, &Entry)| {
            let server = *server;
            entry.volumes.iter().map(|plug| (plug.attachment.volume_id, server)).collect::<Vec<_>>()
        };
        entries.iter().flat_map(of).collect()
    }

    /// Whether a server had a volume last.
    pub fn has_volume(&self, id: ServerId, volume: VolumeId) -> bool {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&id).is_some_and(|entry| entry.volumes.iter().any(|plug| plug.attachment.volume_id == volume))
    }

    /// What is remembered of a server; a new one gets the lowest free slot.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn entry(&self, id: ServerId) -> Result<Entry, LedgerError> {
        let entry = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = entries.get(&id) {
                return Ok(entry.clone());
            }
            let taken: std::collections::HashSet<u32> = entries.values().map(|e| e.slot).collect();
            let slot = (0..).find(|slot| !taken.contains(slot)).unwrap_or(u32::MAX - UID_BASE);
            let entry = Entry { slot, ..Entry::default() };
            entries.insert(id, entry.clone());
            entry
        };
        self.write(id, &entry)?;
        Ok(entry)
    }

    /// Changes what is remembered of a server, on disk before in memory.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn update(&self, id: ServerId, change: impl FnOnce(&mut Entry)) -> Result<Entry, LedgerError> {
        let before = self.entry(id)?;
        let mut after = before.clone();
        change(&mut after);
        if after != before {
            self.write(id, &after)?;
            self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(id, after.clone());
        }
        Ok(after)
    }

    /// Forgets a server.
    pub fn forget(&self, id: ServerId) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        drop(std::fs::remove_file(self.path(id)));
    }

    fn write(&self, id: ServerId, entry: &Entry) -> Result<(), LedgerError> {
        let path = self.path(id);
        let text = serde_json::to_string(entry).unwrap_or_default();
        replace(&path, text.as_bytes()).map_err(|source| LedgerError { path, source })
    }
}

/// The four letters that begin the name of every kernel object of this node; made once.
///
/// # Errors
/// [`LedgerError`].
pub fn tag(state: &Path) -> Result<String, LedgerError> {
    let path = state.join("tag");
    let failed = |source| LedgerError { path: path.clone(), source };
    std::fs::create_dir_all(state).map_err(failed)?;
    if let Ok(text) = std::fs::read_to_string(&path)
        && text.len() == 4
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    {
        return Ok(text);
    }
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let tag: String =
        rand::random::<[u8; 4]>().iter().map(|b| char::from(letters[usize::from(*b) % letters.len()])).collect();
    replace(&path, tag.as_bytes()).map_err(failed)?;
    Ok(tag)
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_after_a_restart_and_slots_are_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (ServerId::new(), ServerId::new());
        {
            let ledger = Ledger::open(folder.path()).unwrap();
            assert_eq!(ledger.entry(a).unwrap().slot, 0);
            assert_eq!(ledger.entry(b).unwrap().slot, 1);
            ledger.update(b, |e| e.restarts = 3).unwrap();
            ledger.forget(a);
        }
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.entry(b).unwrap().restarts, 3);
        assert_eq!(ledger.entry(ServerId::new()).unwrap().slot, 0);
        let first = tag(folder.path()).unwrap();
        assert_eq!(tag(folder.path()).unwrap(), first);
    }
}
