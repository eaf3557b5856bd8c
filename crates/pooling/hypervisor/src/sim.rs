//! A hypervisor without virtual machines: guests are entries in memory that obey the same contract as real ones.
//!
//! It ships, because thousand-node runs and the tests of everything above use it. Delays and random faults come from a
//! seed, so that a failing run can be repeated; named faults and guest behaviour are injected by method calls.

mod moves;

use crate::{
    Arrival, Departure, EndReason, GuestChange, GuestEvent, GuestState, GuestSummary, GuestUsage, Hypervisor,
    HypervisorError, HypervisorFacts, Launch, Nic, VolumeAttachment,
};
use arcus_types::agent::{DiskQos, GuestAppraisal, HardwareSpec, MachineLayout, MigrationPlace, MigrationReport};
use arcus_types::ids::{PortId, ServerId, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::broadcast;

/// How many events a slow listener may lag behind before it loses some.
const EVENTS_MAX: usize = 256;

/// The most of a simulated console that is kept, in bytes.
const CONSOLE_BYTES_MAX: usize = 64 * 1024;

/// How the simulator behaves.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Where delays and random faults come from; the same seed and the same calls give the same run.
    pub seed: u64,
    /// How long each changing call takes, in milliseconds.
    pub delay_ms: RangeInclusive<u64>,
    /// How many of a thousand changing calls fail with a transient fault.
    pub faults_per_mille: u16,
    /// A folder that guests are kept in, a file each, so that they outlive the agent; `None` keeps them in memory only.
    pub folder: Option<PathBuf>,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self { seed: 1, delay_ms: 0..=0, faults_per_mille: 0, folder: None }
    }
}

/// A call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SimOperation {
    /// [`Hypervisor::start`]
    Start,
    /// [`Hypervisor::pause`]
    Pause,
    /// [`Hypervisor::resume`]
    Resume,
    /// [`Hypervisor::reset`] and [`Hypervisor::reboot`]
    Reset,
    /// [`Hypervisor::shutdown`]
    Shutdown,
    /// [`Hypervisor::kill`]
    Kill,
    /// [`Hypervisor::suspend`]
    Suspend,
    /// [`Hypervisor::disk_copy`]
    DiskCopy,
    /// [`Hypervisor::nic_attach`] and [`Hypervisor::nic_detach`]
    Nic,
    /// [`Hypervisor::volume_attach`] and [`Hypervisor::volume_detach`]
    Volume,
    /// [`Hypervisor::volume_limit`], [`Hypervisor::volume_grow`] and the snapshots of a volume
    VolumeChange,
    /// [`Hypervisor::set_password`]
    SetPassword,
}

impl SimOperation {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reset => "reset",
            Self::Shutdown => "shutdown",
            Self::Kill => "kill",
            Self::Suspend => "suspend",
            Self::DiskCopy => "disk_copy",
            Self::Nic => "nic",
            Self::Volume => "volume",
            Self::VolumeChange => "volume_change",
            Self::SetPassword => "set_password",
        }
    }
}

/// The simulator.
pub struct SimHypervisor {
    config: SimConfig,
    world: Mutex<World>,
    events: broadcast::Sender<GuestEvent>,
}

struct World {
    guests: BTreeMap<ServerId, SimGuest>,
    faults: Vec<PlannedFault>,
    random: u64,
}

struct PlannedFault {
    operation: SimOperation,
    server: Option<ServerId>,
    times: u32,
    transient: bool,
}

#[derive(Clone, Serialize, Deserialize)]
struct SimGuest {
    epoch: u64,
    version: u64,
    uid: u32,
    hardware: HardwareSpec,
    ports: Vec<PortId>,
    root_disk: Option<PathBuf>,
    #[serde(default)]
    volumes: Vec<VolumeAttachment>,
    state: GuestState,
    console: String,
    /// Whether the guest powers off when it is asked to.
    obedient: bool,
    #[serde(skip)]
    moving: Option<moves::SimMove>,
    #[serde(skip)]
    serial_client: Option<Arc<()>>,
    #[serde(skip)]
    since: Option<Instant>,
}

impl SimGuest {
    fn alive(&self) -> bool {
        match self.state {
            GuestState::Running | GuestState::Paused | GuestState::Arriving | GuestState::Moved => true,
            GuestState::Absent | GuestState::Ended(_) => false,
        }
    }

    fn print(&mut self, line: &str) {
        self.console.push_str(line);
        self.console.push_str("\r\n");
        let mut excess = self.console.len().saturating_sub(CONSOLE_BYTES_MAX);
        while !self.console.is_char_boundary(excess) {
            excess += 1;
        }
        self.console.drain(..excess);
    }

    fn summary(&self, server: ServerId) -> GuestSummary {
        GuestSummary {
            server,
            epoch: self.epoch,
            version: self.version,
            uid: self.uid,
            hardware: self.hardware.clone(),
            ports: self.ports.clone(),
            state: self.state.clone(),
        }
    }
}

impl SimHypervisor {
    /// A simulator with the guests that its folder holds, if it has one; the folder is made unless it is there.
    ///
    /// # Errors
    /// `File` if the folder cannot be made or a file in it cannot be read as one of ours.
    pub fn open(config: SimConfig) -> Result<Self, HypervisorError> {
        let guests = config.folder.as_deref().map_or_else(|| Ok(BTreeMap::new()), guests_read)?;
        let random = config.seed;
        Ok(Self {
            config,
            world: Mutex::new(World { guests, faults: Vec::new(), random }),
            events: broadcast::channel(EVENTS_MAX).0,
        })
    }

    /// Makes the next `times` calls of an operation fail, of one server or of any.
    pub fn fail(&self, operation: SimOperation, server: Option<ServerId>, times: u32, transient: bool) {
        self.lock().faults.push(PlannedFault { operation, server, times, transient });
    }

    /// The guest powers itself off.
    pub fn guest_powers_off(&self, server: ServerId) {
        self.guest_ends(server, EndReason::PoweredOff);
    }

    /// The guest's process dies.
    pub fn guest_crashes(&self, server: ServerId, details: &str) {
        self.guest_ends(server, EndReason::Crashed { details: details.to_owned() });
    }

    /// Sets whether the guest powers off when it is asked to; it does unless told otherwise.
    pub fn guest_obeys(&self, server: ServerId, obedient: bool) {
        if let Some(guest) = self.lock().guests.get_mut(&server) {
            guest.obedient = obedient;
        }
    }

    /// The guest writes a line to its serial console.
    pub fn guest_prints(&self, server: ServerId, line: &str) {
        if let Some(guest) = self.lock().guests.get_mut(&server) {
            guest.print(line);
        }
    }

    fn guest_ends(&self, server: ServerId, reason: EndReason) {
        let mut world = self.lock();
        if let Some(guest) = world.guests.get_mut(&server).filter(|guest| guest.alive()) {
            self.end(server, guest, reason);
            if let Err(error) = self.save(server, world.guests.get(&server)) {
                tracing::warn!(server.id = %server, %error, "the simulator could not keep its guest");
            }
        }
    }

    fn end(&self, server: ServerId, guest: &mut SimGuest, reason: EndReason) {
        guest.state = GuestState::Ended(reason.clone());
        self.tell(server, GuestChange::Ended(reason));
    }

    fn tell(&self, server: ServerId, change: GuestChange) {
        // Nobody may be listening, which is no fault.
        let _ = self.events.send(GuestEvent { server, change });
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        // A poisoned lock means that another thread panicked between two whole writes; the map is still whole.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one guest as it is, or that it is gone.
    fn save(&self, server: ServerId, guest: Option<&SimGuest>) -> Result<(), HypervisorError> {
        let Some(folder) = &self.config.folder else { return Ok(()) };
        let path = folder.join(format!("{server}.json"));
        let Some(guest) = guest else {
            return match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file_error("remove", &path, e)),
                Ok(()) | Err(_) => Ok(()),
            };
        };
        let bytes = serde_json::to_vec(guest).map_err(|e| file_error("write", &path, e.into()))?;
        over(&path, &bytes).map_err(|e| file_error("write", &path, e))
    }

    /// Waits as long as the seed says and fails if a fault is due.
    async fn pass(&self, operation: SimOperation, server: ServerId) -> Result<(), HypervisorError> {
        let (delay_ms, fault) = {
            let mut world = self.lock();
            let (low, high) = (*self.config.delay_ms.start(), *self.config.delay_ms.end());
            let delay_ms = low + world.draw() % (high.saturating_sub(low) + 1);
            let unlucky = world.draw() % 1000 < u64::from(self.config.faults_per_mille);
            let planned = world.planned_fault(operation, server);
            (delay_ms, planned.or(unlucky.then_some(true)))
        };
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        match fault {
            Some(transient) => Err(HypervisorError::Simulated { server, operation: operation.name(), transient }),
            None => Ok(()),
        }
    }

    /// Changes a living guest and keeps the result.
    fn change<T>(
        &self,
        server: ServerId,
        change: impl FnOnce(&mut SimGuest) -> Result<T, HypervisorError>,
    ) -> Result<T, HypervisorError> {
        let mut world = self.lock();
        let guest = world
            .guests
            .get_mut(&server)
            .filter(|guest| guest.alive())
            .ok_or(HypervisorError::NotRunning { server })?;
        let out = change(guest)?;
        self.save(server, Some(guest))?;
        Ok(out)
    }
}

impl SimHypervisor {
    /// Makes a guest; `and` is what else is done to it before anybody sees it.
    async fn begin<T>(
        &self,
        launch: Launch,
        and: impl FnOnce(&mut SimGuest) -> Result<T, HypervisorError>,
    ) -> Result<T, HypervisorError> {
        let server = launch.server;
        self.pass(SimOperation::Start, server).await?;
        if let Some(image) = &launch.resume_from {
            std::fs::metadata(image).map_err(|e| file_error("read", image, e))?;
        }
        let mut world = self.lock();
        let before = world.guests.get(&server);
        if before.is_some_and(SimGuest::alive) {
            return Err(HypervisorError::AlreadyRuns { server });
        }
        let mut guest = SimGuest {
            epoch: launch.epoch,
            version: launch.version,
            uid: launch.uid,
            hardware: launch.hardware,
            ports: launch.nics.iter().map(|nic| nic.port).collect(),
            root_disk: launch.disks.first().map(|disk| disk.path.clone()),
            volumes: launch.volumes,
            state: GuestState::Running,
            console: before.map(|guest| guest.console.clone()).unwrap_or_default(),
            obedient: true,
            moving: None,
            serial_client: None,
            since: Some(Instant::now()),
        };
        guest.print(&format!("simulated server {server} starts"));
        let done = and(&mut guest)?;
        self.save(server, Some(&guest))?;
        world.guests.insert(server, guest);
        Ok(done)
    }

    /// Changes a volume that a living guest has.
    async fn volume_change(
        &self,
        server: ServerId,
        volume: VolumeId,
        change: impl FnOnce(&mut VolumeAttachment),
    ) -> Result<(), HypervisorError> {
        self.pass(SimOperation::VolumeChange, server).await?;
        self.change(server, |guest| match guest.volumes.iter_mut().find(|have| have.volume == volume) {
            Some(have) => {
                change(have);
                Ok(())
            }
            None => Err(HypervisorError::LaunchRefused { server, reason: format!("it does not have volume {volume}") }),
        })
    }
}

impl World {
    /// The next number of the seed's sequence (SplitMix64, Steele et al. 2014).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn planned_fault(&mut self, operation: SimOperation, server: ServerId) -> Option<bool> {
        let due = |f: &PlannedFault| f.operation == operation && f.server.is_none_or(|of| of == server) && f.times > 0;
        let fault = self.faults.iter_mut().find(|fault| due(fault))?;
        fault.times -= 1;
        let transient = fault.transient;
        self.faults.retain(|fault| fault.times > 0);
        Some(transient)
    }
}

/// The guests that a folder holds. What was being written when the agent ended is not there.
fn guests_read(folder: &Path) -> Result<BTreeMap<ServerId, SimGuest>, HypervisorError> {
    std::fs::create_dir_all(folder).map_err(|e| file_error("create", folder, e))?;
    let mut guests = BTreeMap::new();
    for item in std::fs::read_dir(folder).map_err(|e| file_error("read", folder, e))? {
        let path = item.map_err(|e| file_error("read", folder, e))?.path();
        let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        let (Some(id), Some("json")) = (id, path.extension().and_then(|e| e.to_str())) else { continue };
        let bytes = std::fs::read(&path).map_err(|e| file_error("read", &path, e))?;
        let first = serde_json::Deserializer::from_slice(&bytes).into_iter().next();
        let Some(guest) = first else { continue };
        guests.insert(id, guest.map_err(|e| file_error("read", &path, e.into()))?);
    }
    Ok(guests)
}

/// Writes over what a file holds, in one call: making files anew, as many simulated nodes would, takes file systems long.
/// An agent that ends in between leaves the end of something longer behind the new value, where nobody looks.
fn over(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> HypervisorError {
    HypervisorError::File { action, path: path.to_owned(), source }
}

#[async_trait::async_trait]
impl Hypervisor for SimHypervisor {
    async fn facts(&self) -> Result<HypervisorFacts, HypervisorError> {
        Ok(HypervisorFacts {
            version: "sim".into(),
            accel: "sim".into(),
            cpu_model: "sim".into(),
            machine: "sim".into(),
        })
    }

    async fn adopt(&self) -> Result<Vec<GuestSummary>, HypervisorError> {
        Ok(self.lock().guests.iter().map(|(server, guest)| guest.summary(*server)).collect())
    }

    async fn start(&self, launch: Launch) -> Result<(), HypervisorError> {
        let server = launch.server;
        self.begin(launch, |_| Ok(())).await?;
        self.tell(server, GuestChange::Resumed);
        Ok(())
    }

    async fn layout(&self, server: ServerId) -> Result<MachineLayout, HypervisorError> {
        self.change(server, |guest| Ok(guest.layout()))
    }

    async fn receive(&self, launch: Launch, arrival: Arrival) -> Result<MigrationPlace, HypervisorError> {
        let server = launch.server;
        self.begin(launch, |guest| guest.listen(server, &arrival)).await
    }

    async fn send(&self, server: ServerId, departure: Departure) -> Result<(), HypervisorError> {
        self.moves_send(server, &departure)
    }

    async fn send_cancel(&self, server: ServerId) -> Result<(), HypervisorError> {
        self.moves_cancel(server)
    }

    async fn moving(&self, server: ServerId) -> Option<MigrationReport> {
        self.moves_look(server)
    }

    async fn move_end(&self, server: ServerId) -> Result<(), HypervisorError> {
        self.moves_end(server)
    }

    async fn state(&self, server: ServerId) -> GuestState {
        self.lock().guests.get(&server).map_or(GuestState::Absent, |guest| guest.state.clone())
    }

    async fn pause(&self, server: ServerId) -> Result<(), HypervisorError> {
        self.pass(SimOperation::Pause, server).await?;
        self.change(server, |guest| {
            guest.state = GuestState::Paused;
            Ok(())
        })?;
        self.tell(server, GuestChange::Paused);
        Ok(())
    }

    async fn resume(&self, server: ServerId) -> Result<(), HypervisorError> {
        self.pass(SimOperation::Resume, server).await?;
        self.change(server, |guest| {
            guest.state = GuestState::Running;
            Ok(())
        })?;
        self.tell(server, GuestChange::Resumed);
        Ok(())
    }

    async fn reset(&self, server: ServerId) -> Result<(), HypervisorError> {
        self.pass(SimOperation::Reset, server).await?;
        self.change(server, |guest| {
            guest.print(&format!("simulated server {server} starts"));
            Ok(())
        })?;
        self.tell(server, GuestChange::Reset);
        Ok(())
    }

    async fn reboot(&self, server: ServerId) -> Result<(), HypervisorError> {
        self.reset(server).await
    }

    async fn freeze(&self, server: ServerId) -> Result<(), HypervisorError> {
        self.change(server, |_| Ok(()))
    }

    async fn shutdown(&self, server: ServerId) -> Result<(), HypervisorError> {
        self.pass(SimOperation::Shutdown, server).await?;
        let obeys = self.lock().guests.get(&server).is_some_and(|g| g.obedient && g.state == GuestState::Running);
        if obeys {
            self.guest_ends(server, EndReason::PoweredOff);
        }
        Ok(())
    }

    async fn kill(&self, server: ServerId) -> Result<(), HypervisorError> {
        self.pass(SimOperation::Kill, server).await?;
        self.guest_ends(server, EndReason::Killed);
        Ok(())
    }

    async fn suspend(&self, server: ServerId, to: &Path) -> Result<(), HypervisorError> {
        self.pass(SimOperation::Suspend, server).await?;
        self.change(server, |guest| {
            std::fs::write(to, b"simulated memory\n").map_err(|e| file_error("write", to, e))?;
            self.end(server, guest, EndReason::Suspended);
            Ok(())
        })
    }

    async fn serial(&self, server: ServerId) -> Result<UnixStream, HypervisorError> {
        let (ours, theirs) =
            UnixStream::pair().map_err(|source| HypervisorError::System { server, action: "make a socket", source })?;
        let client = Arc::new(());
        let greeting = self.change(server, |guest| {
            if guest.serial_client.as_ref().is_some_and(|client| Arc::strong_count(client) > 1) {
                return Err(HypervisorError::Busy { server, what: "serial console" });
            }
            guest.serial_client = Some(client.clone());
            Ok(format!("\r\nsimulated server {server} login: "))
        })?;
        tokio::spawn(async move {
            echo(theirs, greeting.as_bytes()).await;
            drop(client);
        });
        Ok(ours)
    }

    async fn vnc(&self, server: ServerId) -> Result<UnixStream, HypervisorError> {
        let (ours, theirs) =
            UnixStream::pair().map_err(|source| HypervisorError::System { server, action: "make a socket", source })?;
        self.change(server, |_| Ok(()))?;
        tokio::spawn(echo(theirs, b"RFB 003.008\n"));
        Ok(ours)
    }

    async fn console_log(&self, server: ServerId, bytes_max: u64) -> Result<Vec<u8>, HypervisorError> {
        let world = self.lock();
        let console = world.guests.get(&server).map(|guest| guest.console.as_bytes()).unwrap_or_default();
        let length = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(console.len());
        Ok(console[console.len() - length..].to_vec())
    }

    async fn disk_copy(&self, server: ServerId, target: &Path) -> Result<(), HypervisorError> {
        self.pass(SimOperation::DiskCopy, server).await?;
        let source = self.change(server, |guest| Ok(guest.root_disk.clone()))?;
        let copied = match source.filter(|disk| disk.is_file()) {
            Some(disk) => std::fs::copy(disk, target).map(|_| ()),
            None => std::fs::write(target, b"simulated disk\n"),
        };
        copied.map_err(|e| file_error("write", target, e))
    }

    async fn nic_attach(&self, server: ServerId, nic: Nic) -> Result<(), HypervisorError> {
        self.pass(SimOperation::Nic, server).await?;
        self.change(server, |guest| {
            if !guest.ports.contains(&nic.port) {
                guest.ports.push(nic.port);
            }
            Ok(())
        })
    }

    async fn nic_detach(&self, server: ServerId, port: PortId) -> Result<(), HypervisorError> {
        self.pass(SimOperation::Nic, server).await?;
        self.change(server, |guest| {
            guest.ports.retain(|have| *have != port);
            Ok(())
        })
    }

    async fn volumes(&self, server: ServerId) -> Vec<VolumeId> {
        let world = self.lock();
        let guest = world.guests.get(&server).filter(|guest| guest.alive());
        guest.map(|guest| guest.volumes.iter().map(|have| have.volume).collect()).unwrap_or_default()
    }

    async fn volume_attach(&self, server: ServerId, volume: VolumeAttachment) -> Result<(), HypervisorError> {
        self.pass(SimOperation::Volume, server).await?;
        self.change(server, |guest| {
            if guest.volumes.iter().any(|have| have.volume == volume.volume) {
                return Ok(());
            }
            if volume.slot.is_none() || guest.volumes.iter().any(|have| have.slot == volume.slot) {
                let reason = "no slot for a volume is free until the server is stopped and started".to_owned();
                return Err(HypervisorError::LaunchRefused { server, reason });
            }
            guest.volumes.push(volume);
            Ok(())
        })
    }

    async fn volume_detach(&self, server: ServerId, volume: VolumeId) -> Result<(), HypervisorError> {
        self.pass(SimOperation::Volume, server).await?;
        self.change(server, |guest| {
            guest.volumes.retain(|have| have.volume != volume);
            Ok(())
        })
    }

    async fn volume_limit(&self, server: ServerId, volume: VolumeId, qos: DiskQos) -> Result<(), HypervisorError> {
        self.volume_change(server, volume, |have| have.qos = qos).await
    }

    async fn volume_grow(&self, server: ServerId, volume: VolumeId, _bytes: u64) -> Result<(), HypervisorError> {
        self.volume_change(server, volume, |_| {}).await
    }

    async fn volume_snapshot_make(
        &self,
        server: ServerId,
        volume: VolumeId,
        _name: &str,
    ) -> Result<(), HypervisorError> {
        self.volume_change(server, volume, |_| {}).await
    }

    async fn volume_snapshot_remove(
        &self,
        server: ServerId,
        volume: VolumeId,
        _name: &str,
    ) -> Result<(), HypervisorError> {
        self.volume_change(server, volume, |_| {}).await
    }

    async fn appraise(&self, server: ServerId) -> Result<GuestAppraisal, HypervisorError> {
        let usage = self.usage(server).await.ok_or(HypervisorError::NotRunning { server })?;
        Ok(GuestAppraisal { memory_bytes: usage.memory_kib.saturating_mul(1024), disk_bytes: 0, dirty_rate: Some(0) })
    }

    async fn usage(&self, server: ServerId) -> Option<GuestUsage> {
        let world = self.lock();
        let guest = world.guests.get(&server).filter(|guest| guest.alive())?;
        // An idle guest: one hundredth of a core, a quarter of its memory touched.
        let up_ms = guest.since.map_or(0, |since| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
        Some(GuestUsage { cpu_ms: up_ms / 100, memory_kib: guest.hardware.memory_mib * 256 })
    }

    async fn set_password(&self, server: ServerId, _user: &str, _password: &str) -> Result<(), HypervisorError> {
        self.pass(SimOperation::SetPassword, server).await?;
        self.change(server, |_| Ok(()))
    }

    async fn forget(&self, server: ServerId) -> Result<(), HypervisorError> {
        let mut world = self.lock();
        if world.guests.get(&server).is_some_and(SimGuest::alive) {
            return Err(HypervisorError::AlreadyRuns { server });
        }
        world.guests.remove(&server);
        self.save(server, None)
    }

    fn events(&self) -> broadcast::Receiver<GuestEvent> {
        self.events.subscribe()
    }
}

/// Greets, then sends back what it gets until the client leaves.
async fn echo(mut stream: UnixStream, greeting: &[u8]) {
    let mut buffer = [0_u8; 1024];
    if stream.write_all(greeting).await.is_err() {
        return;
    }
    while let Ok(length) = stream.read(&mut buffer).await {
        if length == 0 || stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
