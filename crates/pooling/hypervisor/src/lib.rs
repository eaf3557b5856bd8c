//! Runs guests on one node: QEMU over QMP, and a simulator that obeys the same contract.
//!
//! A driver starts, observes and ends guests; it decides nothing about them. What must run is the agent's business, what
//! a guest's disks and taps are is the storage and network drivers'. A driver must never touch a guest that it did not
//! start, and must never start a second process for a server while the first may still write to its disks.
//!
//! ```text
//!            start                       pause
//!  Absent ----------> Running <------------------------> Paused
//!    ^                   |            resume                |
//!    | forget            | guest powers off, kill, crash    |
//!    +----- Ended <------+----------------------------------+
//!             |  start
//!             +-------> Running
//! ```
//! Guests outlive the process that started them: [`Hypervisor::adopt`] finds them again.

mod error;
pub mod qemu;
pub mod sim;

pub use error::HypervisorError;
pub use qemu::guard::{self, LeaseFile};
pub use qemu::{AccelChoice, QemuConfig, QemuHypervisor};
pub use sim::{SimConfig, SimHypervisor, SimOperation};

use arcus_types::agent::{
    DiskFormat, DiskQos, GuestAppraisal, HardwareSpec, MachineLayout, MigrationPlace, MigrationReport,
};
use arcus_types::ids::{MigrationId, PortId, ServerId, VolumeId};
use arcus_types::text::MacAddr;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// What a node's hypervisor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HypervisorFacts {
    /// QEMU's version, such as `7.2.22`; `sim` for the simulator.
    pub version: String,
    /// `kvm`, `tcg` or `sim`.
    pub accel: String,
    /// The CPU model that guests see, as QEMU names it.
    pub cpu_model: String,
    /// The versioned machine type that new guests get, such as `pc-q35-7.2`.
    pub machine: String,
}

/// All that is needed to run a guest.
#[derive(Debug)]
pub struct Launch {
    /// The server. Also the machine's UUID and serial number as the guest reads them.
    pub server: ServerId,
    /// The right to write to its disks; kept with the guest and told again by [`Hypervisor::adopt`].
    pub epoch: u64,
    /// The wish that this launch obeys; kept with the guest and told again by [`Hypervisor::adopt`].
    pub version: u64,
    /// The machine's shape.
    pub hardware: HardwareSpec,
    /// The user and group id that the guest's process runs as. It must be able to read and write the disks' files.
    pub uid: u32,
    /// The disks, the root disk first.
    pub disks: Vec<DiskAttachment>,
    /// The volumes, each in a slot of its own.
    pub volumes: Vec<VolumeAttachment>,
    /// The network interfaces in the order in which the guest sees them.
    pub nics: Vec<Nic>,
    /// Set for a guest whose disks other nodes can reach: a [`LeaseFile`] that says until when it may run here. At its end
    /// the guest is killed, whoever else lives or hangs.
    pub lease: Option<PathBuf>,
    /// Start from this memory image, written by [`Hypervisor::suspend`] from a guest with the same hardware, disks and
    /// interfaces. The image must not be used again once `start` has returned `Ok`.
    pub resume_from: Option<PathBuf>,
}

/// A disk as the guest gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskAttachment {
    /// The file.
    pub path: PathBuf,
    /// How its bytes are laid out: `Raw`, `Qcow2` or `Iso` (a CD). Others must be converted first.
    pub format: DiskFormat,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// Its place in the order of devices to boot from, beginning with 1; `None` is never booted from.
    pub boot_index: Option<u32>,
    /// The serial number that the guest reads, at most 20 characters; such as `config-2`, or a volume's id.
    pub serial: String,
}

/// A volume as the guest gets it. The guest reads the first 20 characters of the volume's id as its serial number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAttachment {
    /// The volume.
    pub volume: VolumeId,
    /// Which of the machine's slots for volumes it is in, below [`VOLUME_SLOTS_MAX`]; `None` is the place of the root
    /// disk, for a machine without one, and cannot be plugged or unplugged.
    pub slot: Option<u32>,
    /// The file.
    pub path: PathBuf,
    /// How its bytes are laid out: `Raw` or `Qcow2`.
    pub format: DiskFormat,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// Its place in the order of devices to boot from, beginning with 1; `None` is never booted from.
    pub boot_index: Option<u32>,
    /// How fast the guest may use it.
    pub qos: DiskQos,
}

/// How many volumes a machine can have besides the one that it boots from.
pub const VOLUME_SLOTS_MAX: u32 = 24;

/// A network interface as the guest gets it.
#[derive(Debug)]
pub struct Nic {
    /// The port that it is.
    pub port: PortId,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// The largest packet that the guest may send, in bytes.
    pub mtu: u32,
    /// The tap, opened and attached; the guest's process inherits it.
    pub tap: OwnedFd,
}

/// How a machine waits for the guest of another node.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The move.
    pub id: MigrationId,
    /// What both ends have, in hexadecimal.
    pub key: String,
    /// Where to listen.
    pub address: IpAddr,
    /// What the guest's present machine looks like.
    pub layout: MachineLayout,
}

/// How a guest is sent to another node.
#[derive(Debug, Clone)]
pub struct Departure {
    /// The move.
    pub id: MigrationId,
    /// What both ends have, in hexadecimal.
    pub key: String,
    /// Where the other machine waits.
    pub to: MigrationPlace,
    /// Whether the guest may be stopped for the last of it.
    pub switch: bool,
    /// How long it may stand still, in milliseconds.
    pub downtime_ms_max: u32,
    /// Let it stand still for as long as it takes.
    pub force: bool,
    /// Never let it stand still for longer than that, however long the move takes.
    pub strict: bool,
}

/// What a guest does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestState {
    /// Nothing is known of it here.
    Absent,
    /// Its virtual CPUs run.
    Running,
    /// Its virtual CPUs stand still: it was paused, or the node's storage is full. `resume` lets it go on.
    Paused,
    /// Its machine waits for it to come from another node. It runs by itself once it is here.
    Arriving,
    /// All of it was sent to another node. It stands still and must not be resumed but by [`Hypervisor::move_end`].
    Moved,
    /// Its process is gone. Lasts until the next `start` or `forget`, also over restarts of the agent.
    Ended(EndReason),
}

/// Why a guest's process is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The guest switched its machine off.
    PoweredOff,
    /// The process died by itself or was ended by someone else; `details` has what is known, for the operator.
    Crashed {
        /// Exit status, the end of QEMU's own log, or that the node was restarted.
        details: String,
    },
    /// [`Hypervisor::kill`] ended it.
    Killed,
    /// The lease under which it ran was over, so its guard killed it: it may run elsewhere.
    LeaseOver,
    /// [`Hypervisor::suspend`] saved its memory and ended it.
    Suspended,
}

/// A guest that was found on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSummary {
    /// The server.
    pub server: ServerId,
    /// The epoch that it was started under.
    pub epoch: u64,
    /// The wish that its launch obeyed.
    pub version: u64,
    /// The user id that it runs as.
    pub uid: u32,
    /// The shape that it was started with.
    pub hardware: HardwareSpec,
    /// Its interfaces, in order.
    pub ports: Vec<PortId>,
    /// What it does; never `Absent`.
    pub state: GuestState,
}

/// Something happened to a guest. Events hurry the next full pass and may be lost; the truth is [`Hypervisor::state`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestEvent {
    /// The server.
    pub server: ServerId,
    /// What happened.
    pub change: GuestChange,
}

/// What happened to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestChange {
    /// Its virtual CPUs run now.
    Resumed,
    /// Its virtual CPUs stand still now.
    Paused,
    /// The machine was reset, by the guest or by us.
    Reset,
    /// It stands still because the node's storage is full or failed; for the operator.
    StorageFault,
    /// Its move to another node has come further.
    Moving,
    /// Its process is gone.
    Ended(EndReason),
}

/// What a guest's process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestUsage {
    /// CPU time since its start, in milliseconds.
    pub cpu_ms: u64,
    /// Memory that it holds, in KiB.
    pub memory_kib: u64,
}

/// Runs guests on one node.
///
/// Every method but `start` is idempotent: asking for what is already so is `Ok`. Methods on a guest that is `Absent` or
/// `Ended` answer [`HypervisorError::NotRunning`], except where the method says otherwise. Calls for different guests run
/// side by side; calls that change one guest wait for each other.
#[async_trait::async_trait]
pub trait Hypervisor: Send + Sync {
    /// What this node's hypervisor is. Fails while it cannot run guests, saying what is missing.
    async fn facts(&self) -> Result<HypervisorFacts, HypervisorError>;

    /// Every guest of this node's folder: those that outlived the agent, reconnected, and those that ended meanwhile.
    /// To be called once, before anything else.
    async fn adopt(&self) -> Result<Vec<GuestSummary>, HypervisorError>;

    /// Starts a guest and returns when its virtual CPUs run. Refused with [`HypervisorError::AlreadyRuns`] while a process
    /// of the same server lives. After any other error no process is left.
    async fn start(&self, launch: Launch) -> Result<(), HypervisorError>;

    /// What a guest does.
    async fn state(&self, server: ServerId) -> GuestState;

    /// Stops the virtual CPUs.
    async fn pause(&self, server: ServerId) -> Result<(), HypervisorError>;

    /// Lets the virtual CPUs go on.
    async fn resume(&self, server: ServerId) -> Result<(), HypervisorError>;

    /// Resets the machine as its reset button would. A paused guest stays paused.
    async fn reset(&self, server: ServerId) -> Result<(), HypervisorError>;

    /// Asks the guest to restart by itself: by its guest agent, else [`HypervisorError::NoGuestAgent`].
    async fn reboot(&self, server: ServerId) -> Result<(), HypervisorError>;

    /// Has the guest bring to its disks what its file systems hold, and write no more: by its guest agent, else
    /// [`HypervisorError::NoGuestAgent`]. For a guest that is about to be ended.
    async fn freeze(&self, server: ServerId) -> Result<(), HypervisorError>;

    /// Asks the guest to power off: by its guest agent, else by its power button. Returns once asked; the guest may not
    /// obey.
    /// `Ok` on a guest that is not there.
    async fn shutdown(&self, server: ServerId) -> Result<(), HypervisorError>;

    /// Ends the guest's process, its disks flushed if they let themselves be within seconds. Returns when the process is
    /// gone. `Ok` on a guest that is not there.
    async fn kill(&self, server: ServerId) -> Result<(), HypervisorError>;

    /// Saves the guest's memory to the file and ends its process. After an error the guest goes on as before.
    async fn suspend(&self, server: ServerId, to: &Path) -> Result<(), HypervisorError>;

    /// The guest's serial console, both ways. One client at a time, else [`HypervisorError::Busy`]; it is free again once
    /// the stream is dropped. The client must keep reading.
    async fn serial(&self, server: ServerId) -> Result<UnixStream, HypervisorError>;

    /// The guest's screen (RFB protocol), both ways. Many clients share it.
    async fn vnc(&self, server: ServerId) -> Result<UnixStream, HypervisorError>;

    /// The end of what the guest wrote to its serial console, also of a guest that has ended; empty if nothing is known
    /// of it. Answers at most `bytes_max` bytes.
    async fn console_log(&self, server: ServerId, bytes_max: u64) -> Result<Vec<u8>, HypervisorError>;

    /// Copies the root disk of a running or paused guest into a new qcow2 file, self-contained, as of one moment. File
    /// systems are frozen for that moment if the guest agent answers within 2 s; else the copy is as after a power cut.
    /// The target must not exist; it is removed after an error.
    async fn disk_copy(&self, server: ServerId, target: &Path) -> Result<(), HypervisorError>;

    /// Plugs a network interface into a running guest; `Ok` if the port is there already.
    async fn nic_attach(&self, server: ServerId, nic: Nic) -> Result<(), HypervisorError>;

    /// Unplugs a network interface and returns when the guest has let go of it; `Ok` if the port is not there.
    async fn nic_detach(&self, server: ServerId, port: PortId) -> Result<(), HypervisorError>;

    /// The volumes in the guest's machine, also those that it was told to let go of and has not yet; none if it has no
    /// process.
    async fn volumes(&self, server: ServerId) -> Vec<VolumeId>;

    /// Plugs a volume into a running guest, into a slot that no other has; `Ok` if it is there already.
    async fn volume_attach(&self, server: ServerId, volume: VolumeAttachment) -> Result<(), HypervisorError>;

    /// Unplugs a volume and returns when the guest has let go of it and its file is closed; `Ok` if it is not there.
    async fn volume_detach(&self, server: ServerId, volume: VolumeId) -> Result<(), HypervisorError>;

    /// Sets how fast the guest may use a volume that it has.
    async fn volume_limit(&self, server: ServerId, volume: VolumeId, qos: DiskQos) -> Result<(), HypervisorError>;

    /// Grows a volume that a guest has; the guest is told.
    async fn volume_grow(&self, server: ServerId, volume: VolumeId, size_bytes: u64) -> Result<(), HypervisorError>;

    /// Keeps what a volume that a guest has holds now, inside it, under this name; what the guest has not flushed may be
    /// missing, as after a power cut.
    async fn volume_snapshot_make(&self, server: ServerId, volume: VolumeId, name: &str)
    -> Result<(), HypervisorError>;

    /// Forgets what a volume that a guest has holds under this name.
    async fn volume_snapshot_remove(
        &self,
        server: ServerId,
        volume: VolumeId,
        name: &str,
    ) -> Result<(), HypervisorError>;

    /// What of the guest's machine another one that takes the guest must have alike.
    async fn layout(&self, server: ServerId) -> Result<MachineLayout, HypervisorError>;

    /// Starts a machine that waits for the guest of another node; it offers its disks to be written by that node. Answers
    /// where it waits. The guest runs as soon as all of it has come; if it does not come whole, the machine ends.
    async fn receive(&self, launch: Launch, arrival: Arrival) -> Result<MigrationPlace, HypervisorError>;

    /// Begins to send a guest with its disks to a machine that waits for it, or, called again for the same move, changes
    /// how. Returns at once; [`Hypervisor::moving`] tells how far it is.
    async fn send(&self, server: ServerId, departure: Departure) -> Result<(), HypervisorError>;

    /// Asks to give up sending a guest. Returns at once; it may be too late.
    async fn send_cancel(&self, server: ServerId) -> Result<(), HypervisorError>;

    /// How far a guest's move is at this end; `None` if it does not move.
    async fn moving(&self, server: ServerId) -> Option<MigrationReport>;

    /// Ends a guest's move at this end: what was set up for it goes, and a guest that was sent away runs here again. Only
    /// for a guest that is nowhere else. [`HypervisorError::Busy`] while it is still being sent: it is asked to give up.
    async fn move_end(&self, server: ServerId) -> Result<(), HypervisorError>;

    /// What moving the guest would take: measured for about a second while it runs.
    async fn appraise(&self, server: ServerId) -> Result<GuestAppraisal, HypervisorError>;

    /// What the guest's process has used; `None` if there is no process.
    async fn usage(&self, server: ServerId) -> Option<GuestUsage>;

    /// Sets a user's password inside the guest, by the guest agent, else [`HypervisorError::NoGuestAgent`].
    async fn set_password(&self, server: ServerId, user: &str, password: &str) -> Result<(), HypervisorError>;

    /// Removes all that is kept of a guest that has ended: record, sockets, console log, control groups. `Ok` if nothing
    /// is kept; [`HypervisorError::AlreadyRuns`] while its process lives.
    async fn forget(&self, server: ServerId) -> Result<(), HypervisorError>;

    /// What happens to guests from now on.
    fn events(&self) -> tokio::sync::broadcast::Receiver<GuestEvent>;
}
