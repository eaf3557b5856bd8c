//! A guest's move to another node while it runs: its machine's part, at either end.
//!
//! ```text
//!  source       mirror each disk --> all in step --> memory follows --> [stands still] --> mirrors end --> rest --> Moved
//!                   |  any failure or a wish to give up                      |                |  QEMU lets the guest
//!                   +--------------> Failed, Cancelled: the guest goes on <--+ <--------------+  go on by itself
//!  destination  machine that waits, disks offered --> all of it has come: the guest runs --> Arrived
//!                   |  any failure: QEMU ends
//! ```
//! That never both of them run the guest rests on three things. QEMU's stream ends with the last byte that the destination
//! needs (`suppress-vmdesc`), so a source that could not send all of it has a destination that cannot begin. Nobody cancels
//! after the last part was let go. And a source that has sent everything stays as it is (`postmigrate`) until
//! [`move_end`] says otherwise.
//!
//! Both connections are TLS with a key that was made for this move alone: a guest's process never sees the node's own.

use super::arguments::disk_node;
use super::guest::Guest;
use super::qmp::Qmp;
use super::record::{self, Folder, Moving, MovingPart, Record};
use crate::{Arrival, Departure, HypervisorError};
use arcus_types::agent::{
    DiskFormat, MachineLayout, MigrationFigures, MigrationPlace, MigrationReport, MigrationStage,
};
use arcus_types::ids::MigrationId;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The name of the key's object, of the user that it is for, and of what is kept for it.
const CREDENTIALS: &str = "migration-tls";
const USER: &str = "arcus";
const FOLDER: &str = "migration";
/// Keys that are shared beforehand go with SHA-256, so AES-256 is not among what GnuTLS takes by itself: that is ChaCha20, which
/// takes twice the time where the processor knows AES.
const CIPHERS: &str = "NORMAL:-CIPHER-ALL:+AES-128-GCM";
/// No limit worth the name, in bytes a second.
const BANDWIDTH: u64 = 16 << 30;
/// Memory that is sent within a moment, in MiB: such a guest may be told to stand still before its memory is looked at.
const SMALL_MIB: u64 = 512;
/// A guest is ready to stand still once the rest is sent within so long, in milliseconds.
const READY_MS: u64 = 400;
/// How long a guest that stands still waits for the word that others are ready, in milliseconds.
const WORD_MS_MAX: u64 = 150;
/// How often progress is looked at: while a guest runs, and while it stands still.
const LOOK: Duration = Duration::from_millis(15);
const LOOK_CLOSELY: Duration = Duration::from_millis(1);
/// How long a disk or the memory may make no progress before the move is given up.
const STALL: Duration = Duration::from_secs(60);
/// How long the last part may take; QEMU itself gives up on a broken connection.
const LAST_PART: Duration = Duration::from_secs(120);
/// After so many rounds in which memory changed as fast as it was sent, the guest may stand still for longer, up to so
/// many times as long as asked for.
const ROUNDS_PATIENT: u64 = 6;
const DOWNTIME_TIMES_MAX: u64 = 8;
/// The longest that QEMU lets a guest stand still for, in milliseconds.
const DOWNTIME_FORCED_MS: u64 = 2_000_000;

/// What a source shall do, as it was last told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Orders {
    switch: bool,
    force: bool,
    cancel: bool,
    downtime_ms_max: u32,
    strict: bool,
}

/// A move that a source works at.
pub struct Departing {
    id: MigrationId,
    orders: watch::Sender<Orders>,
    told: watch::Receiver<MigrationReport>,
}

/// Why a source did not come to the end.
enum Stop {
    Cancelled,
    Failed(HypervisorError),
}

impl From<HypervisorError> for Stop {
    fn from(error: HypervisorError) -> Self {
        Self::Failed(error)
    }
}

/// What of a machine another one must have alike.
pub fn layout(record: &Record) -> MachineLayout {
    MachineLayout {
        machine: record.machine.clone(),
        accel: record.accel.clone(),
        cpu_model: record.cpu_model.clone(),
        nic_slots: record.nic_slots,
        nics: record.nics.iter().map(|nic| (nic.port, nic.slot)).collect(),
        volume_slots: record.volume_slots,
    }
}

/// Makes a new machine's record like that of the one whose guest it shall take; says why it cannot.
pub fn take_after(record: &mut Record, arrival: &Arrival) -> Option<String> {
    let layout = &arrival.layout;
    if layout.accel != record.accel {
        return Some(format!("the guest runs with {}, this node offers {}", layout.accel, record.accel));
    }
    record.machine.clone_from(&layout.machine);
    record.cpu_model.clone_from(&layout.cpu_model);
    record.nic_slots = layout.nic_slots;
    record.volume_slots = layout.volume_slots;
    for nic in &mut record.nics {
        let Some((_, slot)) = layout.nics.iter().find(|(port, _)| *port == nic.port) else {
            return Some(format!("the guest has no interface of port {}", nic.port));
        };
        nic.slot = *slot;
    }
    if record.nics.len() != layout.nics.len() {
        return Some("the guest has interfaces that are not wished any more".to_owned());
    }
    record.moving = Some(Moving { id: arrival.id, part: MovingPart::Destination { place: None } });
    None
}

/// The disks that a guest can write to: their places in the record.
fn writable(record: &Record) -> Vec<usize> {
    let disks = record.disks.iter().enumerate();
    disks.filter(|(_, disk)| !disk.read_only && disk.format != DiskFormat::Iso).map(|(index, _)| index).collect()
}

/// Lets a machine that was started for it wait for its guest.
///
/// # Errors
/// `StartFailed`, `File`.
pub async fn listen(
    qmp: &Qmp,
    folder: &Folder,
    record: &mut Record,
    arrival: &Arrival,
) -> Result<MigrationPlace, HypervisorError> {
    let failed = |reason: String| HypervisorError::StartFailed { server: record.server, reason, transient: true };
    let refused = |what: &'static str| move |e: super::qmp::QmpError| failed(format!("{what}: {e}"));
    credentials(qmp, folder, record.uid, &arrival.key, "server").await?;
    let bound = TcpListener::bind((arrival.address, 0));
    let disks = bound.map_err(|e| failed(format!("{} cannot be listened on: {e}", arrival.address)))?;
    let disk_port = disks.local_addr().map_err(|e| failed(e.to_string()))?.port();
    let name = "migration-disks";
    let passed = qmp.run_with_fd("getfd", json!({ "fdname": name }), OwnedFd::from(disks)).await;
    passed.map_err(refused("getfd"))?;
    let serve = json!({ "addr": { "type": "fd", "data": { "str": name } }, "tls-creds": CREDENTIALS });
    qmp.run("nbd-server-start", serve).await.map_err(refused("nbd-server-start"))?;
    for index in writable(record) {
        let node = disk_node(index);
        let offer = json!({ "type": "nbd", "id": format!("migration-{node}"), "node-name": node, "name": node, "writable": true });
        qmp.run("block-export-add", offer).await.map_err(refused("block-export-add"))?;
    }
    capabilities(qmp, &["events"], true).await.map_err(refused("migrate-set-capabilities"))?;
    let tls = json!({ "tls-creds": CREDENTIALS });
    qmp.run("migrate-set-parameters", tls).await.map_err(refused("migrate-set-parameters"))?;
    let uri = format!("tcp:{}:0", bracketed(arrival.address));
    qmp.run("migrate-incoming", json!({ "uri": uri })).await.map_err(refused("migrate-incoming"))?;
    let told = qmp.run("query-migrate", json!({})).await.map_err(refused("query-migrate"))?;
    let port = told["socket-address"][0]["port"].as_str().and_then(|port| port.parse().ok());
    let memory_port = port.ok_or_else(|| failed(format!("QEMU does not say where it listens: {told}")))?;
    let place = MigrationPlace { address: arrival.address, memory_port, disk_port };
    record.moving = Some(Moving { id: arrival.id, part: MovingPart::Destination { place: Some(place) } });
    Ok(place)
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Gives QEMU the key of a move. It reads the file when the other end calls, so it stays until the move is over; the
/// folder is reached by a descriptor, since the guest's user may not enter ours.
async fn credentials(qmp: &Qmp, folder: &Folder, uid: u32, key: &str, endpoint: &str) -> Result<(), HypervisorError> {
    let path = folder.file(FOLDER);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&path);
    made.map_err(|e| record::error("create", &path, e))?;
    let file = path.join("keys.psk");
    record::remove_file(&file)?;
    let write = || -> std::io::Result<File> {
        let mut out = File::options().write(true).create_new(true).mode(0o400).open(&file)?;
        out.write_all(format!("{USER}:{key}\n").as_bytes())?;
        std::os::unix::fs::fchown(&out, Some(uid), Some(uid))?;
        // The umask may have taken away what others need to pass through.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        File::options().read(true).custom_flags(nix::libc::O_DIRECTORY).open(&path)
    };
    let opened = write().map_err(|e| record::error("write", &file, e))?;
    let failed = |reason: String| HypervisorError::StartFailed { server: folder.server(), reason, transient: true };
    let added = qmp.run_with_fd("add-fd", json!({ "opaque": CREDENTIALS }), opened.into()).await;
    let added = added.map_err(|e| failed(format!("add-fd: {e}")))?;
    let mut object = json!({
        "qom-type": "tls-creds-psk",
        "id": CREDENTIALS,
        "endpoint": endpoint,
        "priority": CIPHERS,
        "dir": format!("/proc/self/fd/{}", added["fd"]),
    });
    if endpoint == "client" {
        object["username"] = json!(USER);
    }
    qmp.run("object-add", object).await.map(drop).map_err(|e| failed(format!("object-add: {e}")))
}

async fn capabilities(qmp: &Qmp, names: &[&str], on: bool) -> Result<(), super::qmp::QmpError> {
    let list: Vec<Value> = names.iter().map(|name| json!({ "capability": name, "state": on })).collect();
    qmp.run("migrate-set-capabilities", json!({ "capabilities": list })).await.map(drop)
}

/// Takes back all that was set up for a move; what is not there is passed over.
async fn tidy(guest: &Guest) {
    let pass_over = |_: Result<Value, HypervisorError>| ();
    for index in writable(&guest.record()) {
        pass_over(guest.run("blockdev-del", json!({ "node-name": target_node(index) })).await);
    }
    pass_over(guest.run("nbd-server-stop", json!({})).await);
    pass_over(guest.run("migrate-set-parameters", json!({ "tls-creds": "" })).await);
    if let Ok(qmp) = guest.qmp() {
        drop(capabilities(&qmp, &["pause-before-switchover", "auto-converge"], false).await);
    }
    pass_over(guest.run("object-del", json!({ "id": CREDENTIALS })).await);
    if let Ok(sets) = guest.run("query-fdsets", json!({})).await {
        for set in sets.as_array().into_iter().flatten() {
            let ours = set["fds"].as_array().into_iter().flatten().any(|fd| fd["opaque"] == CREDENTIALS);
            if ours {
                pass_over(guest.run("remove-fd", json!({ "fdset-id": set["fdset-id"] })).await);
            }
        }
    }
    drop(std::fs::remove_dir_all(guest.folder.file(FOLDER)));
}

fn mirror_job(index: usize) -> String {
    format!("migration-mirror{index}")
}

fn target_node(index: usize) -> String {
    format!("migration-target{index}")
}

/// Begins to send a guest, or changes how. See [`crate::Hypervisor::send`].
///
/// # Errors
/// `LaunchRefused`, `NotRunning`, `Busy`, `File`.
pub fn send(guest: &Arc<Guest>, wish: &Departure) -> Result<(), HypervisorError> {
    let Departure { switch, force, downtime_ms_max, strict, .. } = *wish;
    let orders = Orders { switch, force, cancel: false, downtime_ms_max, strict };
    let mut departing = guest.departing();
    if let Some(under_way) = departing.as_ref().filter(|under_way| under_way.id == wish.id) {
        // What was once cancelled stays so.
        under_way.orders.send_if_modified(|now| {
            let wanted = Orders { cancel: now.cancel, ..orders };
            std::mem::replace(now, wanted) != wanted
        });
        return Ok(());
    }
    let record = guest.record();
    let refused = |reason: &str| HypervisorError::LaunchRefused { server: guest.server, reason: reason.to_owned() };
    if !record.movable {
        return Err(refused("it was started by an earlier release; stop and start it, then it can move"));
    }
    if !record.volumes.is_empty() {
        return Err(refused("it has volumes that lie on this node"));
    }
    if record.moving.is_some() {
        return Err(HypervisorError::Busy { server: guest.server, what: "machine" });
    }
    guest.record_change(|record| record.moving = Some(Moving { id: wish.id, part: MovingPart::Source }))?;
    let begin = MigrationReport {
        id: wish.id,
        stage: MigrationStage::Sending,
        figures: MigrationFigures::default(),
        flows: Vec::new(),
    };
    let (tell, told) = watch::channel(begin);
    let (orders, listen) = watch::channel(orders);
    *departing = Some(Departing { id: wish.id, orders, told });
    let source = Source { guest: Arc::clone(guest), wish: wish.clone(), orders: listen, tell, began: Instant::now() };
    tokio::spawn(source.run());
    Ok(())
}

/// Asks a source to give up; returns at once. Nothing happens if it is too late.
pub fn cancel(guest: &Guest) {
    if let Some(under_way) = guest.departing().as_ref() {
        under_way.orders.send_modify(|orders| orders.cancel = true);
    }
}

/// How far a machine's part in a move is; `None` if it has none.
pub async fn report(guest: &Guest) -> Option<MigrationReport> {
    let Moving { id, part } = guest.record().moving?;
    let report = |stage| Some(MigrationReport { id, stage, figures: MigrationFigures::default(), flows: Vec::new() });
    if let Some(under_way) = guest.departing().as_ref() {
        return Some(under_way.told.borrow().clone());
    }
    let MovingPart::Destination { place } = part else {
        return report(match sent(guest).await? {
            Sent::All => MigrationStage::Moved,
            // The last part is on its way: a look later tells.
            Sent::LastPart => MigrationStage::Switching,
            Sent::NotAll => MigrationStage::Failed { message: "The source's agent was restarted.".to_owned() },
        });
    };
    let status = guest.run("query-migrate", json!({})).await.ok()?;
    match (status["status"].as_str(), place) {
        (Some("completed"), _) => report(MigrationStage::Arrived),
        (_, Some(place)) => report(MigrationStage::Listening(place)),
        (_, None) => None,
    }
}

/// What a source has sent, as its machine knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    NotAll,
    /// The last part was let go; whether it arrives is not known yet.
    LastPart,
    All,
}

/// What follows from QEMU's two states. A machine that came here by an earlier move, or that woke up from saved memory, also
/// says of its migration that it is `completed`: only one that has *sent* all of its guest stands still for it.
fn sent_of(migration: Option<&str>, run: Option<&str>) -> Sent {
    match (migration, run) {
        (Some("completed"), Some("postmigrate")) => Sent::All,
        (Some("completed"), Some("finish-migrate")) | (Some("device"), _) => Sent::LastPart,
        _ => Sent::NotAll,
    }
}

/// What a source has sent; `None` while its machine is silent.
async fn sent(guest: &Guest) -> Option<Sent> {
    let migration = guest.run("query-migrate", json!({})).await.ok()?;
    let run = guest.run("query-status", json!({})).await.ok()?;
    Some(sent_of(migration["status"].as_str(), run["status"].as_str()))
}

/// A new agent has found the machine: gives up what an earlier one had begun to send, if that is still possible.
pub async fn adopted(guest: &Guest) {
    let Some(Moving { part: MovingPart::Source, .. }) = guest.record().moving else { return };
    if sent(guest).await == Some(Sent::NotAll) {
        undo(guest).await;
    }
}

/// Ends a machine's part in a move. See [`crate::Hypervisor::move_end`].
///
/// # Errors
/// `Busy` while a source still sends, `Refused`, `Silent`, `NotRunning`, `File`.
pub async fn move_end(guest: &Guest) -> Result<(), HypervisorError> {
    let Some(Moving { part, .. }) = guest.record().moving else { return Ok(()) };
    match (report(guest).await.map(|report| report.stage), part) {
        (Some(MigrationStage::Moved), MovingPart::Source) => {
            tracing::warn!(server.id = %guest.server, "a guest that had left goes on here");
            guest.run("cont", json!({})).await?;
        }
        (Some(MigrationStage::Sending | MigrationStage::Ready | MigrationStage::Switching), MovingPart::Source) => {
            cancel(guest);
            return Err(HypervisorError::Busy { server: guest.server, what: "machine" });
        }
        (_, MovingPart::Source | MovingPart::Destination { .. }) => {}
    }
    tidy(guest).await;
    *guest.departing() = None;
    guest.record_change(|record| record.moving = None)
}

/// Ends mirrors and transfer, and sees to it that the guest runs if it ran before.
async fn undo(guest: &Guest) {
    let status = guest.run("query-migrate", json!({})).await.unwrap_or_default();
    if !matches!(status["status"].as_str(), None | Some("completed" | "failed" | "cancelled" | "device")) {
        drop(guest.run("migrate_cancel", json!({})).await);
        for _ in 0..STALL.as_millis() / LOOK.as_millis() {
            let status = guest.run("query-migrate", json!({})).await.unwrap_or_default();
            if !matches!(status["status"].as_str(), Some("cancelling" | "active" | "setup" | "pre-switchover")) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    let jobs = writable(&guest.record());
    for index in &jobs {
        drop(guest.run("block-job-cancel", json!({ "device": mirror_job(*index), "force": true })).await);
    }
    for _ in 0..STALL.as_millis() / LOOK.as_millis() {
        match mirrors(guest).await {
            Ok(left) if !left.is_empty() => tokio::time::sleep(LOOK).await,
            Ok(_) | Err(_) => break,
        }
    }
    tidy(guest).await;
}

/// The mirrors that are there.
async fn mirrors(guest: &Guest) -> Result<Vec<Value>, HypervisorError> {
    let jobs = guest.run("query-block-jobs", json!({})).await?;
    let ours = |job: &&Value| job["device"].as_str().is_some_and(|name| name.starts_with("migration-mirror"));
    Ok(jobs.as_array().into_iter().flatten().filter(ours).cloned().collect())
}

/// A move as its source works at it.
struct Source {
    guest: Arc<Guest>,
    wish: Departure,
    orders: watch::Receiver<Orders>,
    tell: watch::Sender<MigrationReport>,
    began: Instant,
}

impl Source {
    async fn run(mut self) {
        let id = self.wish.id;
        let stage = match self.send().await {
            Ok(()) => MigrationStage::Moved,
            Err(stop) => {
                undo(&self.guest).await;
                match stop {
                    Stop::Cancelled => MigrationStage::Cancelled,
                    Stop::Failed(error) => MigrationStage::Failed { message: crate::error::chain(&error) },
                }
            }
        };
        tracing::info!(server.id = %self.guest.server, migration.id = %id, ?stage, "a move ended here");
        let total_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tell.send_modify(|report| {
            report.stage = stage;
            report.figures.total_ms = total_ms;
        });
        self.guest.moved();
    }

    fn stage(&self, stage: MigrationStage) {
        self.tell.send_if_modified(|report| std::mem::replace(&mut report.stage, stage.clone()) != stage);
        self.guest.moved();
    }

    fn failed(&self, command: &'static str, message: impl Into<String>) -> Stop {
        Stop::Failed(HypervisorError::Refused { server: self.guest.server, command, message: message.into() })
    }

    fn ordered(&self) -> Result<Orders, Stop> {
        let orders = *self.orders.borrow();
        if orders.cancel { Err(Stop::Cancelled) } else { Ok(orders) }
    }

    async fn send(&mut self) -> Result<(), Stop> {
        let record = self.guest.record();
        credentials(&self.guest.qmp()?, &self.guest.folder, record.uid, &self.wish.key, "client").await?;
        for index in writable(&record) {
            self.mirror(index, record.disks.get(index).is_some_and(|disk| disk.format == DiskFormat::Qcow2)).await?;
        }
        self.disks_in_step().await?;
        let small = record.hardware.memory_mib <= SMALL_MIB;
        if small {
            self.stage(MigrationStage::Ready);
            while !self.ordered()?.switch {
                if self.orders.changed().await.is_err() {
                    return Err(Stop::Cancelled);
                }
            }
        }
        self.memory_begin(small).await?;
        self.memory_sent().await?;
        self.stage(MigrationStage::Switching);
        self.mirrors_end().await?;
        self.ordered()?;
        // From here on there is no way back but by failure.
        self.guest.run("migrate-continue", json!({ "state": "pre-switchover" })).await?;
        self.last_part().await
    }

    /// Begins to keep a disk of the destination like ours. Writes of the guest go to both, so the two come into step however
    /// much it writes.
    async fn mirror(&self, index: usize, layered: bool) -> Result<(), Stop> {
        let MigrationPlace { address, disk_port, .. } = self.wish.to;
        let (node, target) = (disk_node(index), target_node(index));
        let place = json!({ "type": "inet", "host": address.to_string(), "port": disk_port.to_string() });
        let client = json!({
            "driver": "nbd", "node-name": target, "server": place, "export": node, "tls-creds": CREDENTIALS,
        });
        self.guest.run("blockdev-add", client).await?;
        let begin = json!({
            "job-id": mirror_job(index),
            "device": node,
            "target": target,
            // What lies below is the same image at both ends.
            "sync": if layered { "top" } else { "full" },
            "copy-mode": "write-blocking",
            "on-target-error": "report",
        });
        self.guest.run("blockdev-mirror", begin).await?;
        Ok(())
    }

    async fn disks_in_step(&self) -> Result<(), Stop> {
        let disks = writable(&self.guest.record()).len();
        let (mut sent_last, mut moved_at) = (0, Instant::now());
        loop {
            self.ordered()?;
            let jobs = mirrors(&self.guest).await?;
            if jobs.len() < disks {
                return Err(self.failed("blockdev-mirror", "a disk could not be copied"));
            }
            let sum = |key: &str| jobs.iter().filter_map(|job| job[key].as_u64()).sum::<u64>();
            let (total, sent) = (sum("len"), sum("offset"));
            self.tell.send_modify(|report| {
                report.figures.disk_total = total;
                report.figures.disk_sent = sent;
            });
            if jobs.iter().all(|job| job["ready"] == true) {
                return Ok(());
            }
            if sent != sent_last {
                (sent_last, moved_at) = (sent, Instant::now());
            }
            if moved_at.elapsed() > STALL {
                return Err(self.failed("blockdev-mirror", "the copy of a disk makes no progress"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn memory_begin(&self, may_switch: bool) -> Result<(), Stop> {
        let (qmp, guest) = (self.guest.qmp()?, &self.guest);
        let set = capabilities(&qmp, &["events", "pause-before-switchover", "auto-converge"], true).await;
        set.map_err(|e| guest.qmp_error("migrate-set-capabilities", e))?;
        let orders = self.ordered()?;
        let limit = if may_switch { u64::from(orders.downtime_ms_max) } else { 0 };
        let parameters = json!({ "max-bandwidth": BANDWIDTH, "downtime-limit": limit, "tls-creds": CREDENTIALS });
        guest.run("migrate-set-parameters", parameters).await?;
        let MigrationPlace { address, memory_port, .. } = self.wish.to;
        let uri = format!("tcp:{}:{memory_port}", bracketed(address));
        guest.run("migrate", json!({ "uri": uri })).await?;
        Ok(())
    }

    /// Follows the memory until the guest stands still.
    async fn memory_sent(&mut self) -> Result<(), Stop> {
        let mut limit = if self.ordered()?.switch { u64::from(self.ordered()?.downtime_ms_max) } else { 0 };
        let (mut sent_last, mut moved_at) = (0, Instant::now());
        loop {
            let orders = self.ordered()?;
            let told = self.guest.run("query-migrate", json!({})).await?;
            let rest_ms = self.memory_told(&told);
            match told["status"].as_str() {
                Some("pre-switchover") => break,
                Some("failed" | "cancelled" | "cancelling") => {
                    return Err(self.failed("migrate", error_words(&told)));
                }
                Some("completed" | "device") => {
                    return Err(self.failed("migrate", "QEMU did not wait for its disks"));
                }
                Some(_) | None => {}
            }
            let rounds = told["ram"]["dirty-sync-count"].as_u64().unwrap_or(0);
            if rounds >= 2 && rest_ms <= READY_MS {
                self.stage(MigrationStage::Ready);
            }
            let wanted = match orders {
                Orders { force: true, .. } => DOWNTIME_FORCED_MS,
                Orders { switch: true, strict: true, downtime_ms_max, .. } => u64::from(downtime_ms_max),
                Orders { switch: true, downtime_ms_max, .. } => patience(u64::from(downtime_ms_max), rounds),
                Orders { switch: false, .. } => {
                    if rounds > ROUNDS_PATIENT {
                        self.stage(MigrationStage::Ready);
                    }
                    0
                }
            };
            if wanted != limit {
                limit = wanted;
                self.guest.run("migrate-set-parameters", json!({ "downtime-limit": limit })).await?;
            }
            let sent = told["ram"]["transferred"].as_u64().unwrap_or(0);
            if sent != sent_last {
                (sent_last, moved_at) = (sent, Instant::now());
            }
            if moved_at.elapsed() > STALL {
                return Err(self.failed("migrate", "the memory's copy makes no progress"));
            }
            tokio::time::sleep(if limit > 0 { LOOK_CLOSELY } else { LOOK }).await;
        }
        if !self.ordered()?.switch {
            // It had nothing more to send. Rather lose a packet than stand still for longer.
            self.stage(MigrationStage::Ready);
            drop(tokio::time::timeout(Duration::from_millis(WORD_MS_MAX), self.orders.changed()).await);
        }
        Ok(())
    }

    /// Notes how far the memory is; in how many milliseconds the rest could be sent.
    fn memory_told(&self, told: &Value) -> u64 {
        let ram = &told["ram"];
        let number = |key: &str| ram[key].as_u64().unwrap_or(0);
        let page = number("page-size").max(1);
        self.tell.send_modify(|report| {
            let figures = &mut report.figures;
            figures.memory_total = number("total");
            figures.memory_sent = number("transferred");
            figures.memory_remaining = number("remaining");
            figures.dirty_rate = number("dirty-pages-rate").saturating_mul(page);
            figures.rounds = number("dirty-sync-count");
            let throttle = told["cpu-throttle-percentage"].as_u64().unwrap_or(0);
            figures.throttle_percent = figures.throttle_percent.max(throttle);
        });
        let bytes_per_ms = ram["mbps"].as_f64().map_or(0.0, |mbps| mbps * 125.0);
        if bytes_per_ms < 1.0 {
            return u64::MAX;
        }
        // A rate is at most some GiB a second.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was checked to be at least 1")]
        let bytes_per_ms = bytes_per_ms as u64;
        number("remaining") / bytes_per_ms.max(1)
    }

    /// Ends the mirrors while the guest stands still: the disks are alike then.
    async fn mirrors_end(&self) -> Result<(), Stop> {
        for index in writable(&self.guest.record()) {
            self.guest.run("block-job-cancel", json!({ "device": mirror_job(index) })).await?;
        }
        let began = Instant::now();
        loop {
            let left = mirrors(&self.guest).await?;
            if left.is_empty() {
                break;
            }
            if left.iter().any(|job| job["io-status"].as_str().is_some_and(|status| status != "ok")) {
                return Err(self.failed("block-job-cancel", "a disk's copy failed at its end"));
            }
            if began.elapsed() > STALL {
                return Err(self.failed("block-job-cancel", "a disk's copy does not end"));
            }
            tokio::time::sleep(LOOK_CLOSELY).await;
        }
        Ok(())
    }

    /// Waits until all is sent, or not: QEMU decides, nobody cancels.
    async fn last_part(&self) -> Result<(), Stop> {
        let began = Instant::now();
        loop {
            // A silent QEMU tells later; until then neither end is known.
            match self.guest.run("query-migrate", json!({})).await {
                Ok(told) => match told["status"].as_str() {
                    Some("completed") => {
                        self.memory_told(&told);
                        let downtime_ms = told["downtime"].as_u64().unwrap_or(0);
                        self.tell.send_modify(|report| report.figures.downtime_ms = downtime_ms);
                        return Ok(());
                    }
                    Some("failed" | "cancelled") => return Err(self.failed("migrate-continue", error_words(&told))),
                    Some(_) | None => {}
                },
                Err(HypervisorError::NotRunning { server }) => {
                    return Err(Stop::Failed(HypervisorError::NotRunning { server }));
                }
                Err(_) => {}
            }
            let pause = if began.elapsed() > LAST_PART { LOOK } else { LOOK_CLOSELY };
            tokio::time::sleep(pause).await;
        }
    }
}

/// How long a guest may stand still after so many rounds.
fn patience(downtime_ms_max: u64, rounds: u64) -> u64 {
    let longer = rounds.saturating_sub(ROUNDS_PATIENT) / ROUNDS_PATIENT;
    downtime_ms_max.saturating_mul((longer + 1).min(DOWNTIME_TIMES_MAX))
}

fn error_words(told: &Value) -> String {
    told["error-desc"].as_str().unwrap_or("QEMU gives no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_sent_all_only_if_it_stands_still_for_it() {
        assert_eq!(sent_of(Some("completed"), Some("postmigrate")), Sent::All);
        // It came here by a move that was completed.
        assert_eq!(sent_of(Some("completed"), Some("running")), Sent::NotAll);
        assert_eq!(sent_of(Some("completed"), Some("paused")), Sent::NotAll);
        assert_eq!(sent_of(Some("completed"), Some("finish-migrate")), Sent::LastPart);
        assert_eq!(sent_of(Some("device"), Some("finish-migrate")), Sent::LastPart);
        assert_eq!(sent_of(Some("pre-switchover"), Some("finish-migrate")), Sent::NotAll);
        assert_eq!(sent_of(None, Some("running")), Sent::NotAll);
    }

    #[test]
    fn a_guest_that_does_not_converge_may_stand_still_longer_but_not_for_ever() {
        assert_eq!(patience(300, 2), 300);
        assert_eq!(patience(300, 12), 600);
        assert_eq!(patience(300, 1_000), 2_400);
    }
}
