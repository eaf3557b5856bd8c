//! Runs guests with QEMU, one process each, spoken to over QMP.
//!
//! A guest's process belongs to nobody but itself: it runs as a user of its own, in a session and control groups of its
//! own, under QEMU's system call filter, and stays when the agent ends. Everything it needs beyond its disks is handed to
//! it as an open descriptor, so that it needs no right to any folder of the node's.

mod appraisal;
mod arguments;
mod cgroup;
mod console;
mod disk_copy;
pub mod guard;
mod guest;
mod guest_agent;
mod host;
mod launch;
mod memory_image;
mod migration;
mod nics;
mod process;
mod qmp;
mod record;
mod volumes;

use crate::{
    Arrival, Departure, GuestEvent, GuestState, GuestSummary, GuestUsage, Hypervisor, HypervisorError, HypervisorFacts,
    Launch, Nic, VolumeAttachment,
};
use arcus_types::agent::{DiskQos, GuestAppraisal, MachineLayout, MigrationPlace, MigrationReport};
use arcus_types::ids::{PortId, ServerId, VolumeId};
use base64::Engine;
use guest::Guest;
use host::Host;
use record::Folder;
use serde_json::json;
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{OnceCell, OwnedMutexGuard, broadcast, watch};

/// How many events a slow listener may lag behind before it loses some.
const EVENTS_MAX: usize = 256;
/// How long QEMU may take to let a client of the serial console in, in milliseconds.
const SERIAL_MS_MAX: u64 = 2_000;

/// Which accelerator guests get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelChoice {
    /// KVM where the CPU offers it and `/dev/kvm` is usable, else TCG.
    #[default]
    Auto,
    /// KVM, or an error.
    Kvm,
    /// Emulation, whatever the machine offers.
    Tcg,
}

/// How the driver is set up.
#[derive(Debug, Clone)]
pub struct QemuConfig {
    /// The folder that everything about guests is kept in: one folder per server, for root only. Made if missing.
    pub folder: PathBuf,
    /// The agent's tag: part of the names of control groups.
    pub tag: String,
    /// Which accelerator guests get.
    pub accel: AccelChoice,
    /// The CPU model in QEMU's spelling; `None` picks one that suits the accelerator.
    pub cpu_model: Option<String>,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// The `qemu-img` program.
    pub qemu_img: PathBuf,
}

impl QemuConfig {
    /// The ordinary set-up.
    pub fn new(folder: impl Into<PathBuf>, tag: impl Into<String>) -> Self {
        Self {
            folder: folder.into(),
            tag: tag.into(),
            accel: AccelChoice::Auto,
            cpu_model: None,
            qemu: "qemu-system-x86_64".into(),
            qemu_img: "qemu-img".into(),
        }
    }
}

/// The driver. Dropping it leaves every guest running.
pub struct QemuHypervisor {
    inner: Arc<Inner>,
}

struct Inner {
    config: QemuConfig,
    hierarchy: cgroup::Hierarchy,
    host: OnceCell<Host>,
    guests: Mutex<BTreeMap<ServerId, Arc<Guest>>>,
    /// One lock a server: calls that change a guest wait for each other.
    turns: Mutex<BTreeMap<ServerId, Arc<tokio::sync::Mutex<()>>>>,
    events: broadcast::Sender<GuestEvent>,
    /// Closes when the driver is dropped: watchers end then.
    alive: watch::Sender<()>,
    groups_warned: AtomicBool,
}

impl QemuHypervisor {
    /// A driver over a folder. Starts nothing; call [`Hypervisor::adopt`] next.
    ///
    /// # Errors
    /// `File` if the folder cannot be made.
    pub fn open(config: QemuConfig) -> Result<Self, HypervisorError> {
        let folder = &config.folder;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| record::error("create", folder, e))?;
        let inner = Inner {
            config,
            hierarchy: cgroup::Hierarchy::detect(),
            host: OnceCell::new(),
            guests: Mutex::default(),
            turns: Mutex::default(),
            events: broadcast::channel(EVENTS_MAX).0,
            alive: watch::channel(()).0,
            groups_warned: AtomicBool::new(false),
        };
        if let cgroup::Hierarchy::Missing(reason) = &inner.hierarchy {
            inner.warn_of_groups(reason);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The process of a guest, while it lives.
    pub fn process_id(&self, server: ServerId) -> Option<u32> {
        self.inner.known(server)?.pid()
    }

    /// A control command of QEMU's own, for tests and for looking closely; changes by it are not kept track of.
    ///
    /// # Errors
    /// `NotRunning`, `Silent`, `Refused`.
    pub async fn command(
        &self,
        server: ServerId,
        command: &'static str,
        arguments: serde_json::Value,
    ) -> Result<serde_json::Value, HypervisorError> {
        self.inner.guest(server)?.run(command, arguments).await
    }
}

impl Inner {
    async fn host(&self) -> Result<Host, HypervisorError> {
        // A failure is not kept: the program may be installed meanwhile.
        self.host.get_or_try_init(|| host::probe(&self.config)).await.cloned()
    }

    fn known(&self, server: ServerId) -> Option<Arc<Guest>> {
        self.guests().get(&server).cloned()
    }

    /// A guest whose process lives, as far as is known.
    fn guest(&self, server: ServerId) -> Result<Arc<Guest>, HypervisorError> {
        let alive = self.known(server).filter(|guest| guest.ended().is_none());
        alive.ok_or(HypervisorError::NotRunning { server })
    }

    fn guests(&self) -> MutexGuard<'_, BTreeMap<ServerId, Arc<Guest>>> {
        // Nothing that runs under the lock leaves the map half changed.
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self, server: ServerId) -> OwnedMutexGuard<()> {
        let turn = self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(server).or_default().clone();
        turn.lock_owned().await
    }

    /// Forgets the lock of a server by the one who holds it, unless others wait for it.
    fn turn_drop(&self, server: ServerId) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // One count is the map's, one the caller's.
        if turns.get(&server).is_some_and(|turn| Arc::strong_count(turn) <= 2) {
            turns.remove(&server);
        }
    }

    fn warn_of_groups(&self, reason: &str) {
        if !self.groups_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason, "control groups are not usable: guests run without limits of CPU time and memory");
        }
    }
}

#[async_trait::async_trait]
impl Hypervisor for QemuHypervisor {
    async fn facts(&self) -> Result<HypervisorFacts, HypervisorError> {
        Ok(self.inner.host().await?.facts)
    }

    async fn adopt(&self) -> Result<Vec<GuestSummary>, HypervisorError> {
        let found = launch::adopt(&self.inner).await?;
        let mut summaries = Vec::with_capacity(found.len());
        for guest in found {
            summaries.push(guest.record().summary(guest.state().await));
            self.inner.guests().insert(guest.server, guest);
        }
        Ok(summaries)
    }

    async fn start(&self, launch: Launch) -> Result<(), HypervisorError> {
        let (server, inner) = (launch.server, self.inner.clone());
        to_the_end(server, async move {
            let _turn = inner.turn(server).await;
            if inner.guest(server).is_ok() {
                return Err(HypervisorError::AlreadyRuns { server });
            }
            let guest = launch::start(&inner, launch, None).await?;
            inner.guests().insert(server, guest);
            Ok(())
        })
        .await
    }

    async fn state(&self, server: ServerId) -> GuestState {
        match self.inner.known(server) {
            Some(guest) => guest.state().await,
            None => GuestState::Absent,
        }
    }

    async fn pause(&self, server: ServerId) -> Result<(), HypervisorError> {
        let _turn = self.inner.turn(server).await;
        self.inner.guest(server)?.run("stop", json!({})).await.map(drop)
    }

    async fn resume(&self, server: ServerId) -> Result<(), HypervisorError> {
        let _turn = self.inner.turn(server).await;
        self.inner.guest(server)?.run("cont", json!({})).await.map(drop)
    }

    async fn reset(&self, server: ServerId) -> Result<(), HypervisorError> {
        let _turn = self.inner.turn(server).await;
        self.inner.guest(server)?.run("system_reset", json!({})).await.map(drop)
    }

    async fn reboot(&self, server: ServerId) -> Result<(), HypervisorError> {
        let guest = self.inner.guest(server)?;
        guest_agent::call(&guest, "guest-shutdown", json!({ "mode": "reboot" }), 0, false).await.map(drop)
    }

    async fn freeze(&self, server: ServerId) -> Result<(), HypervisorError> {
        let guest = self.inner.guest(server)?;
        guest_agent::call(&guest, "guest-fsfreeze-freeze", json!({}), FREEZE_MS_MAX, true).await.map(drop)
    }

    async fn shutdown(&self, server: ServerId) -> Result<(), HypervisorError> {
        let Ok(guest) = self.inner.guest(server) else { return Ok(()) };
        // One of the two, for a guest that is told twice begins to stop twice.
        let told = guest_agent::call(&guest, "guest-shutdown", json!({ "mode": "powerdown" }), 0, false).await;
        if told.is_ok() {
            return Ok(());
        }
        match guest.run("system_powerdown", json!({})).await {
            // It ended while we asked.
            Err(HypervisorError::NotRunning { .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn kill(&self, server: ServerId) -> Result<(), HypervisorError> {
        // Waits for nobody: this is the way out of whatever else hangs.
        match self.inner.guest(server) {
            Ok(guest) => guest.end(crate::EndReason::Killed).await,
            Err(_) => Ok(()),
        }
    }

    async fn suspend(&self, server: ServerId, to: &Path) -> Result<(), HypervisorError> {
        let (inner, to) = (self.inner.clone(), to.to_owned());
        to_the_end(server, async move {
            let _turn = inner.turn(server).await;
            memory_image::save(&*inner.guest(server)?, &to).await
        })
        .await
    }

    async fn serial(&self, server: ServerId) -> Result<UnixStream, HypervisorError> {
        let guest = self.inner.guest(server)?;
        let _turn = guest.serial_turn.lock().await;
        if !serial_is_free(&guest).await? {
            return Err(HypervisorError::Busy { server, what: "serial console" });
        }
        let failed = |e| record::error("connect to", &guest.folder.file("serial.sock"), e);
        let socket = guest.folder.socket("serial.sock").map_err(failed)?;
        let stream = UnixStream::connect(socket.path()).await.map_err(failed)?;
        // Until QEMU has let the client in, the next one would be told that the console is free.
        let admitted = async {
            while serial_is_free(&guest).await? {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(stream)
        };
        let admitted = tokio::time::timeout(Duration::from_millis(SERIAL_MS_MAX), admitted).await;
        let late = HypervisorError::Silent { server, command: "query-chardev", limit_ms: SERIAL_MS_MAX };
        admitted.unwrap_or(Err(late))
    }

    async fn vnc(&self, server: ServerId) -> Result<UnixStream, HypervisorError> {
        let guest = self.inner.guest(server)?;
        let system = |source| HypervisorError::System { server, action: "make a socket", source };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(system)?;
        ours.set_nonblocking(true).map_err(system)?;
        let name = format!("vnc-{}", uuid::Uuid::new_v4().as_simple());
        let passed = guest.qmp()?.run_with_fd("getfd", json!({ "fdname": name }), theirs.into()).await;
        passed.map_err(|e| guest.qmp_error("getfd", e))?;
        let client = json!({ "protocol": "vnc", "fdname": name, "skipauth": true });
        guest.run("add_client", client).await?;
        UnixStream::from_std(ours).map_err(system)
    }

    async fn console_log(&self, server: ServerId, bytes_max: u64) -> Result<Vec<u8>, HypervisorError> {
        let folder = Folder::of(&self.inner.config.folder, server);
        let read = tokio::task::spawn_blocking(move || console::read(&folder, bytes_max)).await;
        let read = read.unwrap_or_else(|e| Err(e.into()));
        read.map_err(|source| HypervisorError::System { server, action: "read the console log", source })
    }

    async fn disk_copy(&self, server: ServerId, target: &Path) -> Result<(), HypervisorError> {
        let (inner, target) = (self.inner.clone(), target.to_owned());
        let copy = async move { disk_copy::copy(&*inner.guest(server)?, &inner.config.qemu_img, &target).await };
        to_the_end(server, copy).await
    }

    async fn nic_attach(&self, server: ServerId, nic: Nic) -> Result<(), HypervisorError> {
        let inner = self.inner.clone();
        to_the_end(server, async move {
            let _turn = inner.turn(server).await;
            nics::attach(&*inner.guest(server)?, nic).await
        })
        .await
    }

    async fn nic_detach(&self, server: ServerId, port: PortId) -> Result<(), HypervisorError> {
        let inner = self.inner.clone();
        to_the_end(server, async move {
            let _turn = inner.turn(server).await;
            nics::detach(&*inner.guest(server)?, port).await
        })
        .await
    }

    async fn volumes(&self, server: ServerId) -> Vec<VolumeId> {
        let guest = self.inner.guest(server);
        guest.map(|guest| guest.record().volumes.iter().map(|have| have.volume).collect()).unwrap_or_default()
    }

    async fn volume_attach(&self, server: ServerId, volume: VolumeAttachment) -> Result<(), HypervisorError> {
        let inner = self.inner.clone();
        to_the_end(server, async move {
            let _turn = inner.turn(server).await;
            volumes::attach(&*inner.guest(server)?, volume).await
        })
        .await
    }

    async fn volume_detach(&self, server: ServerId, volume: VolumeId) -> Result<(), HypervisorError> {
        let inner = self.inner.clone();
        to_the_end(server, async move {
            let _turn = inner.turn(server).await;
            volumes::detach(&*inner.guest(server)?, volume).await
        })
        .await
    }

    async fn volume_limit(&self, server: ServerId, volume: VolumeId, qos: DiskQos) -> Result<(), HypervisorError> {
        let _turn = self.inner.turn(server).await;
        volumes::limit(&*self.inner.guest(server)?, volume, qos).await
    }

    async fn volume_grow(&self, server: ServerId, volume: VolumeId, size_bytes: u64) -> Result<(), HypervisorError> {
        let _turn = self.inner.turn(server).await;
        volumes::grow(&*self.inner.guest(server)?, volume, size_bytes).await
    }

    async fn volume_snapshot_make(
        &self,
        server: ServerId,
        volume: VolumeId,
        name: &str,
    ) -> Result<(), HypervisorError> {
        let _turn = self.inner.turn(server).await;
        volumes::snapshot_make(&*self.inner.guest(server)?, volume, name).await
    }

    async fn volume_snapshot_remove(
        &self,
        server: ServerId,
        volume: VolumeId,
        name: &str,
    ) -> Result<(), HypervisorError> {
        let _turn = self.inner.turn(server).await;
        volumes::snapshot_remove(&*self.inner.guest(server)?, volume, name).await
    }

    async fn layout(&self, server: ServerId) -> Result<MachineLayout, HypervisorError> {
        Ok(migration::layout(&self.inner.guest(server)?.record()))
    }

    async fn receive(&self, launch: Launch, arrival: Arrival) -> Result<MigrationPlace, HypervisorError> {
        let (server, inner) = (launch.server, self.inner.clone());
        to_the_end(server, async move {
            let _turn = inner.turn(server).await;
            if inner.guest(server).is_ok() {
                return Err(HypervisorError::AlreadyRuns { server });
            }
            let guest = launch::start(&inner, launch, Some(arrival)).await?;
            inner.guests().insert(server, guest.clone());
            match guest.record().moving.map(|moving| moving.part) {
                Some(record::MovingPart::Destination { place: Some(place) }) => Ok(place),
                Some(_) | None => Err(HypervisorError::NotRunning { server }),
            }
        })
        .await
    }

    async fn send(&self, server: ServerId, departure: Departure) -> Result<(), HypervisorError> {
        let _turn = self.inner.turn(server).await;
        migration::send(&self.inner.guest(server)?, &departure)
    }

    async fn send_cancel(&self, server: ServerId) -> Result<(), HypervisorError> {
        migration::cancel(&*self.inner.guest(server)?);
        Ok(())
    }

    async fn moving(&self, server: ServerId) -> Option<MigrationReport> {
        migration::report(&*self.inner.guest(server).ok()?).await
    }

    async fn move_end(&self, server: ServerId) -> Result<(), HypervisorError> {
        let inner = self.inner.clone();
        to_the_end(server, async move {
            let _turn = inner.turn(server).await;
            migration::move_end(&*inner.guest(server)?).await
        })
        .await
    }

    async fn appraise(&self, server: ServerId) -> Result<GuestAppraisal, HypervisorError> {
        appraisal::appraise(&*self.inner.guest(server)?).await
    }

    async fn usage(&self, server: ServerId) -> Option<GuestUsage> {
        let (cpu_ms, memory_kib) = process::used(self.inner.known(server)?.pid()?)?;
        Some(GuestUsage { cpu_ms, memory_kib })
    }

    async fn set_password(&self, server: ServerId, user: &str, password: &str) -> Result<(), HypervisorError> {
        let guest = self.inner.guest(server)?;
        let password = base64::engine::general_purpose::STANDARD.encode(password);
        let arguments = json!({ "username": user, "password": password, "crypted": false });
        guest_agent::call(&guest, "guest-set-user-password", arguments, PASSWORD_MS_MAX, true).await.map(drop)
    }

    async fn forget(&self, server: ServerId) -> Result<(), HypervisorError> {
        let _turn = self.inner.turn(server).await;
        if self.inner.guest(server).is_ok() {
            return Err(HypervisorError::AlreadyRuns { server });
        }
        launch::forget(&Folder::of(&self.inner.config.folder, server), server).await?;
        self.inner.guests().remove(&server);
        self.inner.turn_drop(server);
        Ok(())
    }

    fn events(&self) -> broadcast::Receiver<GuestEvent> {
        self.inner.events.subscribe()
    }
}

/// Runs work of several steps to its end even if the caller stops waiting: half of it would leave a frozen file system
/// or a process that nobody knows of.
async fn to_the_end<T: Send + 'static>(
    server: ServerId,
    work: impl Future<Output = Result<T, HypervisorError>> + Send + 'static,
) -> Result<T, HypervisorError> {
    let broken = |e: tokio::task::JoinError| HypervisorError::System {
        server,
        action: "carry the call to its end",
        source: std::io::Error::other(e),
    };
    tokio::spawn(work).await.map_err(broken)?
}

/// How long a guest may take to set a password, in milliseconds: it starts programs for it.
const PASSWORD_MS_MAX: u64 = 10_000;

/// How long a guest's file systems may take to freeze, in milliseconds.
const FREEZE_MS_MAX: u64 = 3_000;

/// Whether nobody is connected to the serial console.
async fn serial_is_free(guest: &Guest) -> Result<bool, HypervisorError> {
    let devices = guest.run("query-chardev", json!({})).await?;
    let serial = devices.as_array().into_iter().flatten().find(|device| device["label"] == "serial0");
    let place = serial.and_then(|serial| serial["filename"].as_str());
    Ok(place.is_some_and(|place| place.starts_with("disconnected:")))
}
