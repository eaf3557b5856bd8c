//! What the agent must remember over a restart: a journal in a folder that no guest's process can write to.
//!
//! Each line says all that is remembered of one server, or that it is forgotten; the last line of a server holds. A line
//! that was being written when the machine went down is not there. The journal is written anew when the agent starts, and
//! when most of its lines hold no more.

use arcus_types::agent::{AttachmentSpec, HardwareSpec};
use arcus_types::{DiskPoolId, MigrationId, PortId, ServerId, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The first user id that guests run as; nobody on the machine has it.
const UID_BASE: u32 = 0x6000_0000;
/// The journal's name in its folder.
const JOURNAL: &str = "journal";
/// So many lines are kept for each server before the journal is written anew, and at least so many in all.
const LINES_PER_SERVER_MAX: usize = 16;
const LINES_MIN: usize = 1024;

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
    /// The highest right to the server that this node has acted by: an older wish is not obeyed.
    #[serde(default)]
    pub epoch: u64,
    /// The move by which its guest comes here, and whether a machine was started for it: it is never started twice.
    #[serde(default)]
    pub incoming: Option<(MigrationId, bool)>,
    /// The shared folder that its disks are in, and the user id that is its own in all of it.
    #[serde(default)]
    pub shared: Option<(DiskPoolId, u32)>,
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
        self.shared.map_or(UID_BASE + self.slot, |(_, uid)| uid)
    }
}

/// A line of the journal.
#[derive(Serialize, Deserialize)]
struct Line {
    server: ServerId,
    /// `None`: the server is forgotten.
    entry: Option<Entry>,
}

/// The ledger of a node.
pub struct Ledger {
    path: PathBuf,
    entries: Mutex<HashMap<ServerId, Entry>>,
    journal: Mutex<Journal>,
}

/// The file that is appended to, by who holds it, and then also changes the entries.
struct Journal {
    file: Arc<File>,
    lines: usize,
}

impl Ledger {
    /// Opens the ledger in this folder.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        let path = folder.join(JOURNAL);
        let failed = |source| LedgerError { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.map_err(failed)?,
        };
        let entries = lines_read(&text).map_err(failed)?;
        let journal = journal_write(&path, &entries).map_err(failed)?;
        Ok(Self { path, entries: Mutex::new(entries), journal: Mutex::new(journal) })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<ServerId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The servers that are remembered.
    pub fn servers(&self) -> Vec<ServerId> {
        self.entries().keys().copied().collect()
    }

    /// The volumes that servers had last.
    pub fn volumes(&self) -> Vec<(VolumeId, ServerId)> {
        let entries = self.entries();
        let of = |(server, entry): (&ServerId, &Entry)| {
            let server = *server;
            entry.volumes.iter().map(|plug| (plug.attachment.volume_id, server)).collect::<Vec<_>>()
        };
        entries.iter().flat_map(of).collect()
    }

    /// Whether a server had a volume last.
    pub fn has_volume(&self, id: ServerId, volume: VolumeId) -> bool {
        let entries = self.entries();
        entries.get(&id).is_some_and(|entry| entry.volumes.iter().any(|plug| plug.attachment.volume_id == volume))
    }

    /// What is remembered of a server; a new one gets the lowest free slot.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn entry(&self, id: ServerId) -> Result<Entry, LedgerError> {
        if let Some(entry) = self.entries().get(&id) {
            return Ok(entry.clone());
        }
        self.write(id, |entries| {
            if let Some(entry) = entries.get(&id) {
                return Some(entry.clone());
            }
            let taken: HashSet<u32> = entries.values().map(|e| e.slot).collect();
            let slot = (0..).find(|slot| !taken.contains(slot)).unwrap_or(u32::MAX - UID_BASE);
            Some(Entry { slot, ..Entry::default() })
        })
        .map(Option::unwrap_or_default)
    }

    /// Changes what is remembered of a server. It is on stable storage when this returns.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn update(&self, id: ServerId, change: impl FnOnce(&mut Entry)) -> Result<Entry, LedgerError> {
        self.entry(id)?;
        self.write(id, |entries| {
            let mut entry = entries.get(&id)?.clone();
            change(&mut entry);
            Some(entry)
        })
        .map(Option::unwrap_or_default)
    }

    /// Forgets a server.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn forget(&self, id: ServerId) -> Result<(), LedgerError> {
        self.write(id, |_| None).map(drop)
    }

    /// Makes what `make` answers the entry of a server, or forgets it; appends the line, unless nothing changes, and waits
    /// until it is on stable storage.
    fn write(
        &self,
        server: ServerId,
        make: impl FnOnce(&HashMap<ServerId, Entry>) -> Option<Entry>,
    ) -> Result<Option<Entry>, LedgerError> {
        let failed = |source| LedgerError { path: self.path.clone(), source };
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = self.entries();
        let entry = make(&entries);
        if entries.get(&server) == entry.as_ref() {
            return Ok(entry);
        }
        if journal.lines >= LINES_MIN.max(entries.len() * LINES_PER_SERVER_MAX) {
            *journal = journal_write(&self.path, &entries).map_err(failed)?;
        }
        let line = Line { server, entry };
        let mut text = serde_json::to_string(&line).map_err(|error| failed(error.into()))?;
        text.push('\n');
        if let Err(error) = (&*journal.file).write_all(text.as_bytes()) {
            // There may be half a line now, on which nothing may follow.
            journal.lines = usize::MAX;
            return Err(failed(error));
        }
        journal.lines = journal.lines.saturating_add(1);
        match &line.entry {
            Some(entry) => entries.insert(server, entry.clone()),
            None => entries.remove(&server),
        };
        let file = Arc::clone(&journal.file);
        drop(entries);
        drop(journal);
        // Those who have written meanwhile wait together. What could not be stored is in the next journal, written anew.
        if let Err(error) = file.sync_data() {
            self.journal.lock().unwrap_or_else(PoisonError::into_inner).lines = usize::MAX;
            return Err(failed(error));
        }
        Ok(line.entry)
    }
}

/// What the lines of a journal come to.
fn lines_read(text: &str) -> std::io::Result<HashMap<ServerId, Entry>> {
    let mut entries = HashMap::new();
    // What follows the last end of a line is a line whose writer did not get to its end.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let Line { server, entry } = serde_json::from_str(line)?;
        match entry {
            Some(entry) => entries.insert(server, entry),
            None => entries.remove(&server),
        };
    }
    Ok(entries)
}

/// A journal that says what is remembered and nothing more, in the place of the one before.
fn journal_write(path: &Path, entries: &HashMap<ServerId, Entry>) -> std::io::Result<Journal> {
    let mut text = Vec::new();
    for (server, entry) in entries {
        serde_json::to_writer(&mut text, &Line { server: *server, entry: Some(entry.clone()) })?;
        text.push(b'\n');
    }
    replace(path, &text)?;
    let file = std::fs::OpenOptions::new().append(true).open(path)?;
    Ok(Journal { file: Arc::new(file), lines: entries.len() })
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
    let mut file = File::create(&fresh)?;
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
            ledger.forget(a).unwrap();
        }
        // The machine went down while a line was being written.
        let path = folder.path().join(JOURNAL);
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"server":"01a2"#).unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.servers(), [b]);
        assert_eq!(ledger.entry(b).unwrap().restarts, 3);
        assert_eq!(ledger.entry(ServerId::new()).unwrap().slot, 0);
        let first = tag(folder.path()).unwrap();
        assert_eq!(tag(folder.path()).unwrap(), first);
    }

    #[test]
    fn the_journal_does_not_grow_without_end_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(JOURNAL);
        let (ledger, id) = (Ledger::open(folder.path()).unwrap(), ServerId::new());
        for restarts in 1..2 * LINES_MIN as u64 {
            ledger.update(id, |e| e.restarts = restarts).unwrap();
        }
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_MIN, "{lines} lines");
        let again = Ledger::open(folder.path()).unwrap();
        assert_eq!(again.entry(id).unwrap().restarts, 2 * LINES_MIN as u64 - 1);
        std::fs::write(&path, "no line of ours\n").unwrap();
        assert!(Ledger::open(folder.path()).is_err());
    }
}
