//! What is kept of each guest on disk, so that an agent that starts anew finds it again.
//!
//! ```text
//! <folder>/<server>/launch.json   what was asked for; `begun` is set before the guest's first instruction
//!                   process       /proc/<pid>/stat of the process, written by itself before it became QEMU
//!                   ended.json    why the guest ends or has ended; written before it is made to
//!                   qmp.sock  serial.sock  agent.sock       bound by us, served by QEMU
//!                   console.log  console.log.1  qemu.log
//! ```
//! All of it belongs to root: QEMU gets open descriptors and never a path here, so a guest that breaks out of QEMU
//! cannot forge what the agent will believe.

use crate::{DiskAttachment, EndReason, GuestState, GuestSummary, HypervisorError, VolumeAttachment};
use arcus_types::agent::{HardwareSpec, MigrationPlace};
use arcus_types::ids::{MigrationId, PortId, ServerId};
use arcus_types::text::MacAddr;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A launch as it was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The server.
    pub server: ServerId,
    /// The epoch that it was started under.
    pub epoch: u64,
    /// The wish that the launch obeyed.
    pub version: u64,
    /// The machine's shape.
    pub hardware: HardwareSpec,
    /// The user id that it runs as.
    pub uid: u32,
    /// Its disks, the root disk first.
    pub disks: Vec<DiskAttachment>,
    /// Its volumes: those that were told to go and have not gone are still here.
    #[serde(default)]
    pub volumes: Vec<VolumeAttachment>,
    /// How many slots for volumes the machine has.
    #[serde(default)]
    pub volume_slots: u32,
    /// Its interfaces.
    pub nics: Vec<NicRecord>,
    /// How many slots for interfaces the machine has.
    pub nic_slots: u32,
    /// The versioned machine type.
    pub machine: String,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// The CPU model.
    pub cpu_model: String,
    /// The boot of this machine under which it was started.
    pub boot_id: String,
    /// The control groups made for it.
    pub groups: Vec<PathBuf>,
    /// Whether the guest may have run: set before its first instruction.
    pub begun: bool,
    /// Whether its machine can be sent to another node: its stream ends with the last byte that is needed there.
    #[serde(default)]
    pub movable: bool,
    /// The file with the lease that it runs under: set if its disks are shared with other nodes.
    #[serde(default)]
    pub lease: Option<PathBuf>,
    /// The move that it takes part in.
    #[serde(default)]
    pub moving: Option<Moving>,
}

/// A machine's part in a guest's move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// The move.
    pub id: MigrationId,
    /// Which part.
    pub part: MovingPart,
}

/// A machine's part in a guest's move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MovingPart {
    /// Its guest leaves.
    Source,
    /// It waits for the guest, or has got it.
    Destination {
        /// Where it waits.
        place: Option<MigrationPlace>,
    },
}

/// An interface as it was plugged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicRecord {
    /// The port.
    pub port: PortId,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Which of the machine's slots it is in.
    pub slot: u32,
}

impl Record {
    /// What the agent is told of this guest.
    pub fn summary(&self, state: GuestState) -> GuestSummary {
        GuestSummary {
            server: self.server,
            epoch: self.epoch,
            version: self.version,
            uid: self.uid,
            hardware: self.hardware.clone(),
            ports: self.nics.iter().map(|nic| nic.port).collect(),
            state,
        }
    }
}

/// A socket's path, good as long as this is kept.
pub struct SocketPath {
    _folder: File,
    path: PathBuf,
}

impl SocketPath {
    /// The path, lent only, for it means nothing once this is dropped.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// One guest's folder.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    server: ServerId,
}

impl Folder {
    /// The folder of a server below the driver's.
    pub fn of(parent: &Path, server: ServerId) -> Self {
        Self { path: parent.join(server.to_string()), server }
    }

    /// The server.
    pub fn server(&self) -> ServerId {
        self.server
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A socket in it, by a path that is short enough for the kernel however long the folder's is.
    ///
    /// # Errors
    /// The file system's.
    pub fn socket(&self, name: &str) -> io::Result<SocketPath> {
        let folder = File::open(&self.path)?;
        let path = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).into();
        Ok(SocketPath { _folder: folder, path })
    }

    /// Makes the folder, and clears what an earlier run left but for the console's log.
    ///
    /// # Errors
    /// `File`.
    pub fn prepare(&self) -> Result<(), HypervisorError> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.path).map_err(|e| error("create", &self.path, e))?;
        for name in ["launch.json", "process", "ended.json", "qmp.sock", "serial.sock", "agent.sock", "qemu.log"] {
            remove_file(&self.file(name))?;
        }
        match std::fs::remove_dir_all(self.file("migration")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error("remove", &self.file("migration"), e)),
            _ => Ok(()),
        }
    }

    /// Removes the folder with all that is in it.
    ///
    /// # Errors
    /// `File`.
    pub fn remove(&self) -> Result<(), HypervisorError> {
        match std::fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error("remove", &self.path, e)),
            _ => Ok(()),
        }
    }

    /// The launch, if one is kept and readable.
    ///
    /// # Errors
    /// `File`.
    pub fn launch(&self) -> Result<Option<Record>, HypervisorError> {
        self.read("launch.json")
    }

    /// Keeps the launch.
    ///
    /// # Errors
    /// `File`.
    pub fn launch_write(&self, record: &Record) -> Result<(), HypervisorError> {
        self.write("launch.json", record)
    }

    /// Why the guest ends or has ended, if it was told.
    ///
    /// # Errors
    /// `File`.
    pub fn ended(&self) -> Result<Option<EndReason>, HypervisorError> {
        self.read("ended.json")
    }

    /// Keeps why the guest ends.
    ///
    /// # Errors
    /// `File`.
    pub fn ended_write(&self, reason: &EndReason) -> Result<(), HypervisorError> {
        self.write("ended.json", reason)
    }

    /// The identity line of the process that was started last; empty if none was.
    pub fn process(&self) -> String {
        std::fs::read_to_string(self.file("process")).unwrap_or_default()
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, HypervisorError> {
        let path = self.file(name);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| error("read", &path, e.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(error("read", &path, e)),
        }
    }

    /// Replaces the file as a whole. It need not outlive a power cut, for then the process is gone as well.
    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), HypervisorError> {
        let path = self.file(name);
        let partial = self.file(&format!("{name}.partial"));
        let bytes = serde_json::to_vec_pretty(value).map_err(|e| error("write", &path, e.into()))?;
        std::fs::write(&partial, bytes).map_err(|e| error("write", &partial, e))?;
        std::fs::rename(&partial, &path).map_err(|e| error("rename", &partial, e))
    }
}

/// Removes a file if it is there.
///
/// # Errors
/// `File`.
pub fn remove_file(path: &Path) -> Result<(), HypervisorError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error("remove", path, e)),
        _ => Ok(()),
    }
}

/// A file error of this crate.
pub fn error(action: &'static str, path: &Path, source: io::Error) -> HypervisorError {
    HypervisorError::File { action, path: path.to_owned(), source }
}

/// The kernel's name for the present boot of this machine.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
