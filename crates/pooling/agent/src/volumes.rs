//! Volumes of this node: one worker each makes, grows, keeps and removes it as wished.
//!
//! Whoever changes a volume holds its lock, and the lock says which server got it last. While that server's machine has
//! the volume open, changes go through the machine; copies are made of snapshots, so they need no lock.

use crate::chain;
use crate::node::Shared;
use arcus_hypervisor::{EndReason, GuestState, Hypervisor, HypervisorError};
use arcus_storage::{StorageError, UserError, Volume, VolumeContent, VolumeUser};
use arcus_types::agent::{
    Fault, ImageSource, VolumeRefill, VolumeReport, VolumeSnapshotReport, VolumeSnapshotState, VolumeSource,
    VolumeSpec, VolumeState,
};
use arcus_types::{ServerId, VolumeId, VolumeSnapshotId};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, watch};

/// A volume is looked at this often even if nothing is wished of it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// The first and the longest pause after a failure that may pass.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// How often a volume that shall be refilled is looked at while its server stops.
const CLOSED_LOOK: Duration = Duration::from_millis(250);
/// How often a snapshot is tried: later it would no longer be of the moment that was asked for.
const SNAPSHOT_TRIES_MAX: u32 = 3;

/// The locks of volumes, and what is being copied.
pub(crate) struct Volumes {
    locks: Mutex<HashMap<VolumeId, Arc<tokio::sync::Mutex<Option<ServerId>>>>>,
    copied: Mutex<HashMap<VolumeSnapshotId, u32>>,
    changed: watch::Sender<u64>,
}

/// A snapshot that is being copied; it is not removed as long as this is kept.
pub(crate) struct Copied {
    shared: Arc<Shared>,
    snapshot: VolumeSnapshotId,
}

impl Drop for Copied {
    fn drop(&mut self) {
        let volumes = &self.shared.volumes;
        {
            let mut copied = volumes.copied.lock().unwrap_or_else(PoisonError::into_inner);
            match copied.get_mut(&self.snapshot) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) | None => drop(copied.remove(&self.snapshot)),
            }
        }
        volumes.poke();
    }
}

impl Volumes {
    /// The registry, with the server that each volume was last given to.
    pub fn new(given: impl Iterator<Item = (VolumeId, ServerId)>) -> Self {
        let locks = given.map(|(volume, server)| (volume, Arc::new(tokio::sync::Mutex::new(Some(server))))).collect();
        Self { locks: Mutex::new(locks), copied: Mutex::default(), changed: watch::channel(0).0 }
    }

    /// The right to change a volume, and whose it is.
    pub async fn lock(&self, volume: VolumeId) -> OwnedMutexGuard<Option<ServerId>> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(locks.entry(volume).or_default())
        };
        lock.lock_owned().await
    }

    fn forget(&self, volume: VolumeId) {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).remove(&volume);
    }

    /// Tells those who wait that something became free.
    pub fn poke(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Hears when something may have become free.
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn is_copied(&self, snapshot: VolumeSnapshotId) -> bool {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&snapshot)
    }
}

/// Keeps a snapshot from being removed.
pub(crate) fn keep(shared: &Arc<Shared>, snapshot: VolumeSnapshotId) -> Copied {
    *shared.volumes.copied.lock().unwrap_or_else(PoisonError::into_inner).entry(snapshot).or_default() += 1;
    Copied { shared: Arc::clone(shared), snapshot }
}

/// The machine that has a volume open.
pub(crate) struct Machine {
    hypervisor: Arc<dyn Hypervisor>,
    server: ServerId,
    volume: VolumeId,
}

/// The machine of the server that holds the volume, if it has it open.
pub(crate) async fn machine(shared: &Shared, holder: Option<ServerId>, volume: VolumeId) -> Option<Machine> {
    let (server, hypervisor) = (holder?, Arc::clone(&shared.drivers.hypervisor));
    hypervisor.volumes(server).await.contains(&volume).then_some(Machine { hypervisor, server, volume })
}

fn as_user(machine: Option<&Machine>) -> Option<&dyn VolumeUser> {
    machine.map(|machine| machine as &dyn VolumeUser)
}

fn user_error(error: HypervisorError) -> UserError {
    let transient = error.is_transient();
    UserError { source: Box::new(error), transient }
}

#[async_trait::async_trait]
impl VolumeUser for Machine {
    async fn grow(&self, size_bytes: u64) -> Result<(), UserError> {
        self.hypervisor.volume_grow(self.server, self.volume, size_bytes).await.map_err(user_error)
    }

    async fn snapshot_make(&self, name: &str) -> Result<(), UserError> {
        self.hypervisor.volume_snapshot_make(self.server, self.volume, name).await.map_err(user_error)
    }

    async fn snapshot_remove(&self, name: &str) -> Result<(), UserError> {
        self.hypervisor.volume_snapshot_remove(self.server, self.volume, name).await.map_err(user_error)
    }
}

/// Makes a snapshot that only this node knows of, to copy it.
pub(crate) async fn snapshot_make(
    shared: &Shared,
    volume: VolumeId,
    snapshot: VolumeSnapshotId,
) -> Result<(), StorageError> {
    let holder = shared.volumes.lock(volume).await;
    let machine = machine(shared, *holder, volume).await;
    shared.drivers.storage.volume_snapshot_make(volume, snapshot, as_user(machine.as_ref())).await
}

/// Removes a snapshot.
pub(crate) async fn snapshot_remove(
    shared: &Shared,
    volume: VolumeId,
    snapshot: VolumeSnapshotId,
) -> Result<(), StorageError> {
    let holder = shared.volumes.lock(volume).await;
    let machine = machine(shared, *holder, volume).await;
    shared.drivers.storage.volume_snapshot_remove(volume, snapshot, as_user(machine.as_ref())).await
}

/// One volume's worker.
pub(crate) struct Worker {
    pub id: VolumeId,
    pub shared: Arc<Shared>,
    pub wish: watch::Receiver<Option<Arc<VolumeSpec>>>,
    /// Snapshots that could not be made: how often they were tried, and why not.
    pub failed: BTreeMap<VolumeSnapshotId, (u32, Fault)>,
    /// Whether it was told to be ready: whoever read that must not find an empty one in its place.
    pub told_ready: bool,
}

fn fault(error: &StorageError) -> Fault {
    let mut message = error.public_message();
    if let Some(first) = message.get(..1).map(str::to_uppercase) {
        message.replace_range(..1, &first);
    }
    Fault { message: format!("{message}."), details: chain(error), transient: error.is_transient() }
}

impl Worker {
    /// Works until the volume is wished away and nothing of it is left.
    pub async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        let mut freed = self.shared.volumes.listen();
        loop {
            let wish = self.wish.borrow_and_update().clone();
            freed.mark_unchanged();
            let outcome = match &wish {
                Some(wish) => self.converge(wish).await,
                None => self.remove().await,
            };
            let failed = match outcome {
                Ok(()) if wish.is_none() => {
                    if self.wish.borrow().is_none() {
                        return;
                    }
                    continue;
                }
                Ok(()) => false,
                Err(fault) => {
                    tracing::warn!(volume.id = %self.id, fault = fault.details, "a volume is not as wished");
                    pause = if fault.transient { (pause * 2).min(RETRY_LONGEST) } else { RETRY_LONGEST };
                    self.tell(wish.as_deref(), VolumeState::Failed(fault)).await;
                    true
                }
            };
            let wait = if failed { pause } else { LOOK_AGAIN };
            if !failed {
                pause = RETRY_FIRST;
            }
            tokio::select! {
                changed = self.wish.changed() => if changed.is_err() { return },
                _ = freed.changed(), if failed => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn converge(&mut self, wish: &VolumeSpec) -> Result<(), Fault> {
        let storage = Arc::clone(&self.shared.drivers.storage);
        let found = storage.volume(self.id).await.map_err(|error| fault(&error))?;
        let due = wish.refill.as_ref().filter(|refill| found.as_ref().is_none_or(|now| now.refill < refill.number));
        let lost = found.is_none() && (wish.made || self.told_ready);
        let outcome = match (due, found) {
            (Some(refill), _) => self.refill(wish, refill, lost).await,
            (None, Some(now)) => Ok(Some(now)),
            (None, None) if lost => Err(StorageError::VolumeLost { volume: self.id }),
            (None, None) => self.make(wish).await,
        };
        // Nothing, if it is no longer wished for.
        let Some(mut now) = outcome.map_err(|error| fault(&error))? else { return Ok(()) };
        if now.size_bytes < wish.size_bytes {
            self.prepare(wish, "growing", 0);
            let holder = self.shared.volumes.lock(self.id).await;
            let machine = machine(&self.shared, *holder, self.id).await;
            let grown = storage.volume_grow(self.id, wish.size_bytes, as_user(machine.as_ref())).await;
            now = grown.map_err(|error| fault(&error))?;
        }
        let waits = self.snapshots(wish, &now).await;
        self.told_ready = true;
        self.tell(Some(wish), VolumeState::Ready).await;
        if waits {
            // Not worth a fault: what is in the way goes by itself, and pokes.
            let mut freed = self.shared.volumes.listen();
            let mut wish = self.wish.clone();
            tokio::select! {
                _ = freed.changed() => {}
                _ = wish.changed() => {}
                () = tokio::time::sleep(RETRY_LONGEST) => {}
            }
            self.wish.mark_changed();
        }
        Ok(())
    }

    /// Makes and deletes snapshots; answers whether one has to wait.
    async fn snapshots(&mut self, wish: &VolumeSpec, now: &Volume) -> bool {
        self.failed.retain(|id, _| wish.snapshots.contains(id));
        let mut waits = false;
        for &id in wish.snapshots.iter().filter(|id| !now.snapshots.contains(id)) {
            while self.failed.get(&id).is_none_or(|(tries, fault)| fault.transient && *tries < SNAPSHOT_TRIES_MAX) {
                match snapshot_make(&self.shared, self.id, id).await {
                    Ok(()) => {
                        self.failed.remove(&id);
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(volume.id = %self.id, snapshot.id = %id, error = chain(&error), "a snapshot failed");
                        let tries = self.failed.get(&id).map_or(1, |(tries, _)| tries + 1);
                        self.failed.insert(id, (tries, fault(&error)));
                    }
                }
            }
        }
        for &id in now.snapshots.iter().filter(|id| !wish.snapshots.contains(id)) {
            if self.shared.volumes.is_copied(id) {
                waits = true;
            } else if let Err(error) = snapshot_remove(&self.shared, self.id, id).await {
                tracing::warn!(volume.id = %self.id, snapshot.id = %id, error = chain(&error), "a snapshot stays");
                waits = true;
            }
        }
        waits
    }

    /// Gives the volume other content; `None` if it is wished away meanwhile.
    async fn refill(
        &self,
        wish: &VolumeSpec,
        refill: &VolumeRefill,
        lost: bool,
    ) -> Result<Option<Volume>, StorageError> {
        let (storage, id) = (&self.shared.drivers.storage, self.id);
        let content = match &refill.source {
            VolumeSource::Blank => VolumeContent::Blank,
            VolumeSource::Image(source) => {
                if !self.fetch(wish, source).await? {
                    return Ok(None);
                }
                VolumeContent::Image(source.clone())
            }
            VolumeSource::Snapshot { .. } | VolumeSource::Volume { .. } if lost => {
                return Err(StorageError::VolumeLost { volume: id });
            }
            VolumeSource::Snapshot { volume_id, snapshot_id } => {
                VolumeContent::Snapshot { volume: *volume_id, snapshot: *snapshot_id }
            }
            VolumeSource::Volume { volume_id } => return Err(StorageError::VolumeAbsent { volume: *volume_id }),
        };
        let Some(_holder) = self.closed(wish).await else { return Ok(None) };
        let told = |percent: u8| self.prepare(wish, "refilling", 50 + percent.min(100) / 2);
        storage.volume_refill(id, wish.size_bytes, &content, refill.number, &told).await.map(Some)
    }

    /// Waits until no machine has the volume open, and keeps it so: whoever has it must not find other bytes in it than it
    /// left there. `None` if something else is wished meanwhile.
    async fn closed(&self, wish: &VolumeSpec) -> Option<OwnedMutexGuard<Option<ServerId>>> {
        let mut newer = self.wish.clone();
        loop {
            let holder = self.shared.volumes.lock(self.id).await;
            if machine(&self.shared, *holder, self.id).await.is_none() {
                return Some(holder);
            }
            drop(holder);
            self.prepare(wish, "waiting for its server to stop", 50);
            tokio::select! {
                _ = newer.changed() => return None,
                () = tokio::time::sleep(CLOSED_LOOK) => {}
            }
        }
    }

    /// Gets an image into the cache; `false` if the volume is wished away meanwhile.
    async fn fetch(&self, wish: &VolumeSpec, source: &ImageSource) -> Result<bool, StorageError> {
        let total = source.size_bytes.max(1);
        let told = |bytes: u64| {
            let percent = u8::try_from(bytes.saturating_mul(50) / total).unwrap_or(50);
            self.prepare(wish, "fetching the image", percent);
        };
        tokio::select! {
            done = self.shared.drivers.storage.image_ensure(source, self.shared.fetch.as_ref(), &told) => done.map(|_| true),
            () = self.wished_away() => Ok(false),
        }
    }

    /// Makes the volume; `None` if it is wished away meanwhile.
    async fn make(&self, wish: &VolumeSpec) -> Result<Option<Volume>, StorageError> {
        let storage = &self.shared.drivers.storage;
        let (content, of, kept) = match &wish.source {
            VolumeSource::Blank => (VolumeContent::Blank, None, None),
            VolumeSource::Image(source) => {
                if !self.fetch(wish, source).await? {
                    return Ok(None);
                }
                (VolumeContent::Image(source.clone()), None, None)
            }
            VolumeSource::Snapshot { volume_id, snapshot_id } => {
                let (volume, snapshot) = (*volume_id, *snapshot_id);
                (VolumeContent::Snapshot { volume, snapshot }, None, Some(keep(&self.shared, snapshot)))
            }
            VolumeSource::Volume { volume_id } => {
                let (volume, snapshot) = (*volume_id, VolumeSnapshotId(self.id.0));
                let kept = keep(&self.shared, snapshot);
                snapshot_make(&self.shared, volume, snapshot).await?;
                (VolumeContent::Snapshot { volume, snapshot }, Some((volume, snapshot)), Some(kept))
            }
        };
        let base = if matches!(wish.source, VolumeSource::Image(_)) { 50 } else { 0 };
        let told = |percent: u8| self.prepare(wish, "copying", base + percent.min(100) / if base > 0 { 2 } else { 1 });
        self.prepare(wish, if content == VolumeContent::Blank { "making it" } else { "copying" }, base);
        let made = tokio::select! {
            made = storage.volume_make(self.id, wish.size_bytes, &content, &told) => made.map(Some),
            () = self.wished_away() => Ok(None),
        };
        drop(kept);
        if let (Some((volume, snapshot)), true) = (of, made.is_ok()) {
            // If not now, the other volume's worker removes it: nobody wishes for it.
            if let Err(error) = snapshot_remove(&self.shared, volume, snapshot).await {
                tracing::warn!(volume.id = %volume, error = chain(&error), "a snapshot that was copied stays");
            }
        }
        made
    }

    async fn wished_away(&self) {
        let mut wish = self.wish.clone();
        // A closed channel means that the agent ends.
        drop(wish.wait_for(Option::is_none).await);
    }

    async fn remove(&mut self) -> Result<(), Fault> {
        self.tell(None, VolumeState::Removing).await;
        let shared = Arc::clone(&self.shared);
        let holder = shared.volumes.lock(self.id).await;
        let open = machine(&shared, *holder, self.id).await.map(|machine| machine.server);
        let saved = match *holder {
            Some(server) if shared.ledger.has_volume(server, self.id) => {
                let state = shared.drivers.hypervisor.state(server).await;
                (state == GuestState::Ended(EndReason::Suspended)).then_some(server)
            }
            Some(_) | None => None,
        };
        if let Some(server) = open.or(saved) {
            let message = "The volume is still attached to a server.".to_owned();
            return Err(Fault { message, details: format!("server {server} has it"), transient: true });
        }
        shared.drivers.storage.volume_remove(self.id).await.map_err(|error| fault(&error))?;
        drop(holder);
        shared.volumes.forget(self.id);
        shared.board.volume_gone(self.id);
        Ok(())
    }

    /// Puts on the board that the volume is being worked on.
    fn prepare(&self, wish: &VolumeSpec, step: &str, progress_percent: u8) {
        self.shared.board.volume_change(self.id, |report| {
            report.version = report.version.min(wish.version.saturating_sub(1));
            // Told in steps of five: each is a report to the server.
            let progress_percent = progress_percent / 5 * 5;
            report.state = VolumeState::Preparing { step: step.to_owned(), progress_percent };
        });
    }

    /// Puts on the board how far the volume is; the wish counts as acted on.
    async fn tell(&self, wish: Option<&VolumeSpec>, state: VolumeState) {
        let now = self.shared.drivers.storage.volume(self.id).await.ok().flatten();
        let has = |id: &VolumeSnapshotId| now.as_ref().is_some_and(|now| now.snapshots.contains(id));
        let wished = wish.map(|wish| wish.snapshots.as_slice()).unwrap_or_default();
        let mut snapshots: Vec<VolumeSnapshotReport> = wished
            .iter()
            .map(|id| {
                let failed = self.failed.get(id).map(|(_, fault)| fault.clone());
                let state = match failed {
                    _ if has(id) => VolumeSnapshotState::Ready,
                    Some(fault) => VolumeSnapshotState::Failed(fault),
                    // Of a volume that is not there for good none can be made.
                    None => match &state {
                        VolumeState::Failed(fault) if !fault.transient => VolumeSnapshotState::Failed(fault.clone()),
                        VolumeState::Failed(_)
                        | VolumeState::Preparing { .. }
                        | VolumeState::Ready
                        | VolumeState::Removing => VolumeSnapshotState::Making,
                    },
                };
                VolumeSnapshotReport { id: *id, state }
            })
            .collect();
        let others = now.iter().flat_map(|now| &now.snapshots).filter(|id| !wished.contains(id));
        // Snapshots of our own, for copies, are nobody's business.
        let others = others.filter(|id| !self.shared.volumes.is_copied(**id));
        snapshots.extend(others.map(|id| VolumeSnapshotReport { id: *id, state: VolumeSnapshotState::Removing }));
        let size_bytes = now.as_ref().map_or(0, |now| now.size_bytes);
        let version = wish.map(|wish| wish.version);
        self.shared.board.volume_change(self.id, |report| {
            *report =
                VolumeReport { id: self.id, version: version.unwrap_or(report.version), state, size_bytes, snapshots };
        });
    }
}
