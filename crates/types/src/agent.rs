//! The agent protocol: desired state goes down whole, observed state comes up whole.
//!
//! ```text
//! agent -> GET  /agent/v1/ca                            the CA, which the join token names by its hash
//! agent -> POST /agent/v1/join      {token, csr}        once; answers the node's id, certificate and the CA
//! agent -> POST /agent/v1/renew     {csr}               before the certificate ends
//! agent -> GET  /agent/v1/spec?after=G                  long poll: a NodeSpec with generation > G, or 204 at the deadline
//! agent -> POST /agent/v1/lease     LeaseGrant          several times within the length of a lease
//! agent -> POST /agent/v1/report    NodeReport          whenever what is observed changed, and once per lease period
//! agent -> GET  /agent/v1/probe?bytes=N                 N bytes: the way to the server is measured by them
//! agent -> GET  /agent/v1/images/{id}                   an image's bytes; the node checks the hash as they land
//! agent -> PUT  /agent/v1/images/{id}                   a snapshot's bytes
//! agent -> GET  /agent/v1/relays/{id} (WebSocket)       one relayed byte stream
//! ```
//! All of it runs over mutual TLS, except `ca` and `join`. The server never calls a node and a node asks for nothing but bytes it
//! was told to fetch. A spec is complete: what it does not name must not exist on the node. Fields are only ever added,
//! with a default, so that a node and a server one release apart understand each other.

mod dhcp_options;
mod migrations;
mod networks;
mod volumes;

pub use dhcp_options::{DhcpOptionRefused, DhcpOptionSpec};
pub use migrations::*;
pub use networks::*;
pub use volumes::{
    AttachmentFault, AttachmentSpec, DiskQos, VolumeRefill, VolumeReport, VolumeSnapshotReport, VolumeSnapshotState,
    VolumeSource, VolumeSpec, VolumeState, volume_serial,
};

use crate::ids::*;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The version of this protocol; both ends send it in the header `arcus-agent-protocol`.
pub const PROTOCOL_VERSION: u32 = 1;

/// How long the server parks a request for a spec that has not changed, in seconds.
pub const SPEC_POLL_S: u64 = 30;

/// What a new node sends to become one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The join token, good for a limited time.
    pub token: String,
    /// The name that the node goes by; unique in the cloud.
    pub name: String,
    /// A certificate request in PEM; only its public key is used.
    pub csr_pem: String,
    /// The cluster that a new node goes to, by name; without it, the default one.
    #[serde(default)]
    pub cluster: Option<String>,
}

/// What a node sends to get a fresh certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewRequest {
    /// A certificate request in PEM; only its public key is used.
    pub csr_pem: String,
}

/// For how long a node may count on being the only one that runs its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// How long, in milliseconds, from the moment at which the node sent its request. 0: it is held to be lost or dead.
    pub lease_ms: u64,
}

/// The identity that a node got.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// The node's id, also in its certificate as `spiffe://arcus/node/<id>`.
    pub node_id: NodeId,
    /// The node's certificate in PEM.
    pub certificate_pem: String,
    /// The certificate authority of this cloud in PEM.
    pub ca_pem: String,
    /// When to ask for the next certificate: seconds from now.
    pub renew_after_s: u64,
}

/// All that a node must bring about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Rises with every change. The node echoes it in its report once it has acted on the whole of it.
    pub generation: u64,
    /// Segments with at least one port or router on this node.
    #[serde(default)]
    pub networks: Vec<NetworkSpec>,
    /// Routers with an interface on one of those segments.
    #[serde(default)]
    pub routers: Vec<RouterSpec>,
    /// The filter rule sets that the ports name.
    #[serde(default)]
    pub security_groups: Vec<SecurityGroupSpec>,
    /// Guests that live here.
    #[serde(default)]
    pub servers: Vec<ServerSpec>,
    /// Volumes that live here; one that is not named is removed with its snapshots.
    #[serde(default)]
    pub volumes: Vec<VolumeSpec>,
    /// Images to make of guests' disks and of volumes.
    #[serde(default)]
    pub snapshots: Vec<SnapshotSpec>,
    /// Images worth having in the cache before they are asked for.
    #[serde(default)]
    pub prefetch: Vec<ImageSource>,
    /// Servers whose disks in the node's shared folder are to be removed. What is there of a server that is named nowhere
    /// stays: it may be another node's by now.
    #[serde(default)]
    pub disk_removals: Vec<ServerId>,
    /// Byte streams that clients are waiting for. Not covered by `generation`: act on each id once.
    #[serde(default)]
    pub relays: Vec<RelaySpec>,
}

/// Whether a guest is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// The guest runs.
    Running,
    /// The guest is frozen in memory.
    Paused,
    /// No QEMU process; the disk is kept. The guest is asked to shut down first, and ended after a grace period.
    Stopped,
    /// The guest's memory is saved to the node's storage and the process ended; `Running` brings it back.
    Suspended,
}

/// A guest that the node must keep in a state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// The server.
    pub id: ServerId,
    /// Rises with every wish concerning this server; the report says up to which one the node has acted.
    pub version: u64,
    /// The right to write to the server's disks: only the node whose epoch is the highest may.
    pub epoch: u64,
    /// The state to keep it in.
    pub power: Power,
    /// How often the guest has been asked to restart; when it differs from what the node has done, it restarts once.
    pub restarts: RestartSpec,
    /// How long a guest may take to shut down before it is ended, in seconds.
    pub shutdown_grace_s: u32,
    /// The virtual machine.
    pub hardware: HardwareSpec,
    /// The disk of its own that it boots from; `None` if it boots from the attached volume with boot index 0.
    #[serde(default)]
    pub root_disk: Option<RootDiskSpec>,
    /// Further disks of its own.
    #[serde(default)]
    pub local_disks: LocalDisksSpec,
    /// The volumes that it has, all of this node: plugged into and out of a running guest, there at the next start of
    /// another.
    #[serde(default)]
    pub volumes: Vec<AttachmentSpec>,
    /// The guest's interfaces in order: ports of the networks in this spec.
    pub ports: Vec<PortId>,
    /// What the guest is told about itself.
    pub guest: GuestData,
    /// While set, the guest runs from a disk made of this image, with its root disk as the second one.
    #[serde(default)]
    pub rescue: Option<RescueSpec>,
    /// A password to set once by the guest's agent.
    #[serde(default)]
    pub password: Option<PasswordSpec>,
    /// Set while the guest goes to another node or comes from one.
    #[serde(default)]
    pub migration: Option<MigrationSpec>,
    /// The shared folder that its disks are in; `None`: they are on the node's own storage.
    #[serde(default)]
    pub disk_pool: Option<DiskPoolId>,
}

/// What a guest is rescued with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescueSpec {
    /// What the rescue disk begins as.
    pub image: ImageSource,
    /// Tells one rescue from the next: a disk of an earlier one is thrown away.
    pub incarnation: u64,
}

/// A password to set in a running guest, once: the node remembers the last `count` that it has acted on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordSpec {
    /// Rises with every password that is asked for.
    pub count: u64,
    /// Whose.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for PasswordSpec {
    /// Leaves out the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordSpec").field("count", &self.count).field("user", &self.user).finish_non_exhaustive()
    }
}

/// How often a guest was asked to restart, and how the last time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartSpec {
    /// How often.
    pub count: u64,
    /// Whether the last one is hard: the machine is reset without asking the guest.
    pub hard: bool,
}

/// A virtual machine's shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareSpec {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Devices as the image asks for them.
    #[serde(default)]
    pub devices: DeviceModel,
    /// Weight of the guest's CPU time against others on the node; 100 is normal.
    #[serde(default = "cpu_weight_default")]
    pub cpu_weight: u32,
    /// The most CPU time that the guest gets, in thousandths of one core; `None` is one core a virtual CPU.
    #[serde(default)]
    pub cpu_limit_millicores: Option<u32>,
}

fn cpu_weight_default() -> u32 {
    100
}

/// Which devices a guest sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceModel {
    /// Paravirtual devices: virtio disk, network, entropy, balloon.
    #[default]
    Virtio,
    /// Emulated devices for guests without drivers: AHCI disk, e1000 network, VGA.
    Emulated,
}

/// The disk that a server boots from and that goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDiskSpec {
    /// The image that it began as.
    pub image: ImageSource,
    /// Its size in bytes; a larger one than the disk's grows the disk.
    pub size_bytes: u64,
    /// Rises with every rebuild: the node throws the disk away and starts again from `image`.
    pub incarnation: u64,
}

/// Disks of a server's own besides the one that it boots from: they begin empty and go with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalDisksSpec {
    /// Rises with every rebuild and every move without them: the node throws them away and makes new ones.
    pub incarnation: u64,
    /// In the order in which the guest sees them.
    pub disks: Vec<LocalDisk>,
}

impl LocalDisksSpec {
    /// The disks, each with its name: `ephemeral0` and further numbers, and `swap`. A guest reads it as the serial number.
    pub fn named(&self) -> impl Iterator<Item = (String, LocalDisk)> + '_ {
        let mut number = 0;
        self.disks.iter().map(move |disk| match disk.content {
            LocalDiskContent::Swap => ("swap".to_owned(), *disk),
            LocalDiskContent::Blank | LocalDiskContent::Ext4 => {
                number += 1;
                (format!("ephemeral{}", number - 1), *disk)
            }
        })
    }
}

/// A disk of a server's own besides the one that it boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalDisk {
    /// What it begins as.
    pub content: LocalDiskContent,
    /// Its size in MiB. A larger one than the disk's grows it, but not what is on it; a smaller one changes nothing, unless
    /// it is swap space, which is made anew.
    pub size_mib: u64,
}

/// What a local disk begins as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalDiskContent {
    /// Zeros.
    Blank,
    /// An empty ext4 file system, with the disk's name as its label.
    Ext4,
    /// Swap space.
    Swap,
}

/// An image as a node fetches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSource {
    /// The image; its bytes are at `/agent/v1/images/{id}`.
    pub id: ImageId,
    /// SHA-256 of the bytes, in hexadecimal: the key of the node's cache.
    pub sha256: String,
    /// Length of the bytes.
    pub size_bytes: u64,
    /// How the bytes are laid out.
    pub format: DiskFormat,
}

/// How a disk image's bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// VMware's format.
    Vmdk,
    /// Microsoft's older format (Virtual PC).
    Vhd,
    /// An ISO 9660 image: attached as a CD.
    Iso,
}

/// What a guest is told about itself, by the metadata service and the config drive.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuestData {
    /// The server's name as its owner wrote it.
    pub name: String,
    /// The host name made from it.
    pub hostname: String,
    /// The project that owns the server.
    pub project_id: Option<ProjectId>,
    /// The availability zone's name.
    pub availability_zone: String,
    /// Free key and value pairs of the owner.
    pub metadata: std::collections::BTreeMap<String, String>,
    /// SSH public keys: name and OpenSSH line.
    pub public_keys: Vec<(String, String)>,
    /// User data, in base64.
    pub user_data_base64: Option<String>,
    /// Files that the guest is to make of its own accord: where, and what is in them in base64.
    #[serde(default)]
    pub files: Vec<(String, String)>,
    /// The password to set for the login user.
    pub admin_password: Option<String>,
    /// Whether the guest also gets all this on a config drive.
    pub config_drive: bool,
    /// What the guest shall call its instance; a rebuild keeps it.
    pub launch_index: u32,
    /// A number that stays the same for a server's life: seeds the guest's entropy in the metadata.
    pub random_seed_base64: Option<String>,
    /// What the guest left in its metadata service: its password, encrypted for the owner's key.
    #[serde(default)]
    pub password_left: Option<String>,
    /// How often the owner threw that away: the guest may leave one for each turn.
    #[serde(default)]
    pub password_turn: u64,
}

impl std::fmt::Debug for GuestData {
    /// Leaves out the secrets: user data, password and seed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestData").field("name", &self.name).field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

/// An image to make of a guest's root disk or of a volume: exactly one of the two is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSpec {
    /// The image to fill, at `/agent/v1/images/{id}`.
    pub image_id: ImageId,
    /// The server whose root disk it is made of.
    #[serde(default)]
    pub server_id: Option<ServerId>,
    /// The volume that it is made of.
    #[serde(default)]
    pub volume_id: Option<VolumeId>,
    /// How the image's bytes are laid out: raw or qcow2.
    #[serde(default = "volumes::upload_format_default")]
    pub format: DiskFormat,
}

impl SnapshotSpec {
    /// An image of a server's root disk.
    pub fn of_server(image_id: ImageId, server_id: ServerId) -> Self {
        Self { image_id, server_id: Some(server_id), volume_id: None, format: DiskFormat::Qcow2 }
    }

    /// An image of a volume.
    pub fn of_volume(image_id: ImageId, volume_id: VolumeId, format: DiskFormat) -> Self {
        Self { image_id, server_id: None, volume_id: Some(volume_id), format }
    }
}

/// A byte stream that a client is waiting for: the node dials `/agent/v1/relays/{id}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelaySpec {
    /// The stream.
    pub id: RelayId,
    /// Of which guest.
    pub server_id: ServerId,
    /// Of which of its devices.
    pub kind: RelayKind,
}

/// What a relayed byte stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayKind {
    /// The serial console, both ways.
    Serial,
    /// The screen (RFB protocol), both ways.
    Vnc,
    /// The end of the console log, from the node: at most this many bytes, then the stream ends.
    ConsoleLog {
        /// How many bytes at most.
        bytes_max: u64,
    },
    /// What moving the guest would take, from the node: a [`GuestAppraisal`] as JSON, then the stream ends.
    Appraisal,
}

/// All that a node has observed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The generation of the last spec that the node has read.
    pub spec_generation: u64,
    /// What the node is and has.
    pub facts: NodeFacts,
    /// Every guest that the spec names or that is still here.
    pub servers: Vec<ServerReport>,
    /// Every volume that the spec names or that is still here.
    #[serde(default)]
    pub volumes: Vec<VolumeReport>,
    /// Every snapshot that the spec names.
    pub snapshots: Vec<SnapshotReport>,
    /// Ports that are ready to carry traffic.
    pub ports_up: Vec<PortId>,
    /// What could not be brought about on the network, in words for the operator.
    pub network_faults: Vec<String>,
    /// Passwords that guests left and that the spec does not show yet.
    #[serde(default)]
    pub passwords_left: Vec<PasswordLeft>,
    /// Those of the spec's `disk_removals` that are done.
    #[serde(default)]
    pub disks_removed: Vec<ServerId>,
}

/// The longest password that a guest may leave, in bytes; source: the compute API's metadata service.
pub const PASSWORD_LEFT_BYTES_MAX: usize = 1_020;

/// A password that a guest left in its metadata service, encrypted for its owner.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordLeft {
    /// Whose.
    pub server_id: ServerId,
    /// In which turn: one of an earlier turn no longer counts.
    pub turn: u64,
    /// The password as the guest wrote it: printable ASCII.
    pub text: String,
}

impl std::fmt::Debug for PasswordLeft {
    /// Leaves out the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordLeft")
            .field("server_id", &self.server_id)
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

/// What a node is and has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The agent's version.
    pub agent_version: String,
    /// QEMU's version, such as `7.2.22`; for simulated nodes `sim`.
    pub hypervisor_version: String,
    /// `kvm`, `tcg` or `sim`.
    pub accel: String,
    /// The kernel's boot id: tells a restarted machine from a restarted agent.
    pub boot_id: String,
    /// When the machine was booted, in seconds since 1970; 0 if it did not tell.
    #[serde(default)]
    pub booted_at_s: u64,
    /// The CPU's model name.
    pub cpu_model: String,
    /// The processor and the machine in detail.
    #[serde(default)]
    pub cpu: crate::clusters::CpuFacts,
    /// Threads that guests may use.
    pub vcpus: u32,
    /// Memory that guests may use, in MiB.
    pub memory_mib: u64,
    /// Storage that guests may use, in GiB.
    pub disk_gib: u64,
    /// Storage not in use, in GiB.
    pub disk_free_gib: u64,
    /// The address that tunnels to other nodes end at.
    pub underlay: Option<IpAddr>,
    /// Images in the cache, by SHA-256.
    pub cached_images: Vec<String>,
    /// The shared folder that it makes servers' disks in, by what the folder says of itself.
    #[serde(default)]
    pub disk_pool: Option<DiskPoolId>,
    /// What it was measured to do when it joined.
    #[serde(default)]
    pub measured: Option<NodeMeasured>,
}

/// The most bytes that a node may ask for to measure its way to the server.
pub const PROBE_BYTES_MAX: u64 = 16 << 20;

/// What a node was measured to do, once, when it joined. For comparing nodes with each other; nothing is placed by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMeasured {
    /// When, in seconds since 1970.
    pub at_s: u64,
    /// How much SHA-256 one thread does, in MiB/s.
    pub cpu_thread_mib_s: u64,
    /// The same of all threads together, in MiB/s.
    pub cpu_all_mib_s: u64,
    /// How fast its disk takes a file to its end, in MiB/s.
    pub disk_write_mib_s: u64,
    /// How long 4 KiB take to be on stable storage, in microseconds at the median.
    pub disk_flush_us: u64,
    /// How long a call to the server takes there and back, in microseconds at the median.
    pub network_round_trip_us: Option<u64>,
    /// How fast bytes come from the server, encrypted, in MiB/s.
    pub network_mib_s: Option<u64>,
}

/// What a guest is seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// Its image, disk or interfaces are being made ready.
    Preparing,
    /// It runs.
    Running,
    /// It is frozen in memory.
    Paused,
    /// It has no process; the disk is there.
    Stopped,
    /// Its memory is on disk.
    Suspended,
    /// It ended although it should run: the process died or the guest powered itself off.
    Ended,
    /// It cannot be brought to the wished state; `fault` says why.
    Failed,
}

/// What a node has observed of one guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    /// The server.
    pub id: ServerId,
    /// The epoch under which it runs here.
    pub epoch: u64,
    /// The wish that the node has acted on, in full or as far as `fault` lets it.
    pub version: u64,
    /// What the guest does.
    pub observed: Observed,
    /// How often the node has restarted it on request.
    pub restarts: u64,
    /// The incarnation of its disk; 0 if there is none.
    pub incarnation: u64,
    /// The volumes that are in the machine now: plugged in if the guest runs, there at its next start if not. One that
    /// the spec no longer names stays here until the guest has let it go.
    #[serde(default)]
    pub volumes: Vec<VolumeId>,
    /// What is in the way of volumes that are to be plugged in or out.
    #[serde(default)]
    pub volume_faults: Vec<AttachmentFault>,
    /// While preparing: what is being done, such as `fetching image`.
    pub step: Option<String>,
    /// While preparing: how far that is, 0 to 100.
    pub progress_percent: u8,
    /// Why it failed or ended, in words that help.
    pub fault: Option<Fault>,
    /// The last password wish that the node has acted on.
    #[serde(default)]
    pub passwords: u64,
    /// Why that password could not be set, in words for the server's owner.
    #[serde(default)]
    pub password_fault: Option<String>,
    /// CPU time used by the guest's process, in milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
    /// Memory held by the guest's process, in KiB.
    #[serde(default)]
    pub memory_kib: u64,
    /// How far its move is, while there is one.
    #[serde(default)]
    pub migration: Option<MigrationReport>,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// A sentence for the server's owner: no paths or names of the node.
    pub message: String,
    /// The whole chain of causes, for the operator.
    pub details: String,
    /// Whether the node goes on trying by itself.
    pub transient: bool,
}

/// How far a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// The image that is being filled.
    pub image_id: ImageId,
    /// How far it is.
    pub state: SnapshotState,
}

/// How far a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// The disk is being copied.
    Copying,
    /// The bytes are on their way to the server.
    Uploading,
    /// The server has all bytes.
    Done,
    /// It could not be made.
    Failed(Fault),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_of_an_older_server_is_read_with_defaults() {
        let spec: NodeSpec = serde_json::from_str(r#"{"generation": 7}"#).unwrap();
        assert_eq!(spec, NodeSpec { generation: 7, ..NodeSpec::default() });
    }

    #[test]
    fn secrets_of_a_guest_do_not_show_in_logs() {
        let guest = GuestData { admin_password: Some("s3cret".into()), ..GuestData::default() };
        assert!(!format!("{guest:?}").contains("s3cret"));
    }
}
