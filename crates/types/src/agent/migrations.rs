//! Guests that go to another node while they run.
//!
//! ```text
//!   source                        server                       destination
//!     | <- outgoing, Wait ---------- | -- incoming -------------> |   image, disk, ports are made ready
//!     | -- Waiting(layout) --------> | -- layout ---------------> |   a machine is started that waits
//!     | <- Go(place) --------------- | <-------- Listening(place) |
//!     |    disks are mirrored, then memory follows                |
//!     | -- Ready ------------------> | -- open -----------------> |   its ports keep packets for the guest from now on
//!     | <- Switch ------------------ | <--------------------- Open |
//!     |    guest stands still, rest is sent ====================> |   guest runs
//!     | -- Moved ------------------> | <------------------ Arrived |
//!     |                     the epoch moves in one write           |
//! ```
//! A source that has sent the last of a guest never lets it run again unless the server says so ([`OutgoingOrder::Return`]),
//! and the server says so only when the destination has said that it holds no process of it. A destination's machine runs
//! the guest as soon as it has all of it, which is not before the source has sent the last.

use super::FlowSpec;
use crate::ids::{MigrationId, PortId};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A node's part in a guest's move.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationSpec {
    /// The move.
    pub id: MigrationId,
    /// What both ends prove to each other that they have, in hexadecimal: 32 bytes, good for this move only.
    pub key: String,
    /// Which part.
    pub part: MigrationPart,
}

impl std::fmt::Debug for MigrationSpec {
    /// Leaves out the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MigrationSpec").field("id", &self.id).field("part", &self.part).finish_non_exhaustive()
    }
}

/// A node's part in a guest's move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationPart {
    /// The guest leaves.
    Outgoing {
        /// What to do now.
        order: OutgoingOrder,
        /// How long the guest may stand still, in milliseconds.
        downtime_ms_max: u32,
        /// Let it stand still for as long as it takes.
        force: bool,
        /// Never let it stand still for longer than that, however long the move takes.
        #[serde(default)]
        strict: bool,
    },
    /// The guest comes. It must not be started here: it runs when all of it has come.
    Incoming {
        /// What its machine looks like; until it is known, only what does not depend on it can be made ready.
        layout: Option<MachineLayout>,
        /// Keep packets for the guest.
        open: bool,
        /// The source is down: give the machine up, unless the guest is here already.
        #[serde(default)]
        give_up: bool,
    },
}

/// What a source shall do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutgoingOrder {
    /// Nothing yet.
    Wait,
    /// Send everything to this place, and keep sending what changes.
    Go(MigrationPlace),
    /// The same, and let the guest stand still for the last of it.
    Switch(MigrationPlace),
    /// Give up, if that is still possible.
    Cancel,
    /// Let the guest run here again: the destination has lost it.
    Return,
}

/// Where a destination's machine waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationPlace {
    /// The node's underlay address.
    pub address: IpAddr,
    /// The port for memory and devices.
    pub memory_port: u16,
    /// The port for disks.
    pub disk_port: u16,
}

/// What of a machine follows from its past and not from the wish: where it was started and what was plugged into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineLayout {
    /// The versioned machine type.
    pub machine: String,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// The CPU model.
    pub cpu_model: String,
    /// How many slots for interfaces it has.
    pub nic_slots: u32,
    /// Which of them its ports are in.
    pub nics: Vec<(PortId, u32)>,
    /// How many slots for volumes it has.
    pub volume_slots: u32,
}

/// How far a node's part in a guest's move is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationReport {
    /// The move.
    pub id: MigrationId,
    /// How far it is.
    pub stage: MigrationStage,
    /// What has been sent; of a source.
    #[serde(default)]
    pub figures: MigrationFigures,
    /// The guest's connections when its source was ready.
    #[serde(default)]
    pub flows: Vec<FlowSpec>,
}

/// How far a node's part in a guest's move is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationStage {
    /// Source: nothing has been sent.
    Waiting(MachineLayout),
    /// Source: disks and memory are being sent.
    Sending,
    /// Source: the rest fits into the time that the guest may stand still.
    Ready,
    /// Source: the guest stands still.
    Switching,
    /// Source: all of the guest has been sent. It stands still here, for good.
    Moved,
    /// Source: it was given up as asked; the guest goes on here.
    Cancelled,
    /// Source: the guest's process is gone; only the destination can tell whether all of it was sent before.
    Ended,
    /// Either: it failed. At a source the guest goes on; a destination holds no process of it.
    Failed {
        /// A sentence for the operator.
        message: String,
    },
    /// Destination: things are being made ready.
    Preparing,
    /// Destination: a machine waits at this place.
    Listening(MigrationPlace),
    /// Destination: the same, and packets for the guest are kept.
    Open(MigrationPlace),
    /// Destination: the guest is here.
    Arrived,
}

/// What has been sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MigrationFigures {
    /// Memory of the guest, in bytes.
    pub memory_total: u64,
    /// Memory sent, in bytes.
    pub memory_sent: u64,
    /// Memory still to be sent, in bytes.
    pub memory_remaining: u64,
    /// What was written to the disks so far, in bytes.
    pub disk_total: u64,
    /// Of it sent, in bytes.
    pub disk_sent: u64,
    /// How much memory the guest changes, in bytes a second.
    pub dirty_rate: u64,
    /// How often all that had changed was gone through.
    pub rounds: u64,
    /// How much time was taken from the guest's processors at the most, so that its memory came into step, in percent; 0 if
    /// that was not needed.
    pub throttle_percent: u64,
    /// How long the guest stood still, in milliseconds; 0 until it is known.
    pub downtime_ms: u64,
    /// How long all of it took, in milliseconds; 0 until it is known.
    pub total_ms: u64,
}

/// What a guest's move would have to send, as its node measures it while the guest runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestAppraisal {
    /// Memory that holds something, in bytes.
    pub memory_bytes: u64,
    /// What its disks have on the node's own storage beyond their image, in bytes.
    pub disk_bytes: u64,
    /// How much memory it changes, in bytes a second; `None` if that could not be measured.
    pub dirty_rate: Option<u64>,
}
