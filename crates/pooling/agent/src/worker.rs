//! One worker a server: brings that guest to its wish, from whatever is really there.
//!
//! ```text
//!  wish None ------> kill, remove everything, end
//!  wish Stopped ---> ask to shut down, wait the grace, end the process
//!  wish with a move -> see `moving`
//!  wish Running ---> image -> disk -> config drive -> ports up -> process -> interfaces as wished
//!                    a guest that ended by itself is reported, not started again, until the next wish
//! ```
//! A new wish interrupts what may be interrupted: a fetch, a wait for the guest, a pause between tries.

mod moving;
mod volumes;

use crate::chain;
use crate::ledger::{Entry, Plug};
use crate::node::Shared;
use arcus_hypervisor::{DiskAttachment, EndReason, GuestState, HypervisorError, Launch, Nic};
use arcus_storage::{Disk, Storage, StorageError};
use arcus_types::agent::{
    AttachmentFault, DiskFormat, Fault, LocalDisksSpec, MigrationReport, Observed, Power, RescueSpec, RootDiskSpec,
    ServerReport, ServerSpec,
};
use arcus_types::{DiskPoolId, MacAddr, PortId, ServerId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use volumes::Boots;

/// A guest is looked at this often even if nothing is heard of it.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// The first and the longest pause after a failure that may pass.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// How long a guest's ports may take to come up.
const PORTS_DEADLINE: Duration = Duration::from_secs(30);

/// How often a guest that shall shut down is asked.
const SHUTDOWN_AGAIN: Duration = Duration::from_secs(8);

/// How long a guest's agent may take to appear before a password counts as not set.
const PASSWORD_PATIENCE: Duration = Duration::from_secs(20);

/// The right that every server begins with: nothing is older, so it need not be noted.
const EPOCH_FIRST: u64 = 1;

/// The first user id of guests on shared disks.
const SHARED_UID_BASE: u32 = 1 << 30;

/// The file in a server's folder that a suspended guest's memory is saved in.
const MEMORY_FILE: &str = "memory";

/// An interface: its port, its Ethernet address, and the largest packet in bytes.
pub(crate) type NicWish = (PortId, MacAddr, u32);

/// What one server shall be, with what it needs of the rest of the spec.
#[derive(Debug, PartialEq)]
pub(crate) struct Wish {
    pub spec: ServerSpec,
    pub nics: Vec<NicWish>,
    pub config_drive: Option<BTreeMap<String, Vec<u8>>>,
}

/// Why a pass did not reach its end.
enum Stop {
    /// A newer wish has come.
    Interrupted,
    /// Something failed.
    Fault(Fault),
}

impl Stop {
    fn fault(message: impl Into<String>, error: &dyn std::error::Error, transient: bool) -> Self {
        Self::Fault(Fault { message: message.into(), details: chain(error), transient })
    }
}

impl From<HypervisorError> for Stop {
    fn from(error: HypervisorError) -> Self {
        Self::fault("The guest could not be brought to the wished state.", &error, error.is_transient())
    }
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Self {
        let message = match &error {
            StorageError::DiskTooSmall { .. } | StorageError::Refused { .. } => chain(&error),
            StorageError::Fetch { .. } => "The image could not be fetched.".to_owned(),
            _ => "The disk could not be made.".to_owned(),
        };
        Self::fault(message, &error, error.is_transient())
    }
}

impl From<crate::LedgerError> for Stop {
    fn from(error: crate::LedgerError) -> Self {
        Self::fault("The node cannot write its ledger.", &error, true)
    }
}

/// One server's worker.
pub(crate) struct Worker {
    pub id: ServerId,
    pub shared: Arc<Shared>,
    pub wish: watch::Receiver<Option<Arc<Wish>>>,
    /// Something happened to the guest or its ports: look again.
    pub look: Arc<Notify>,
    /// Held while the guest is started, stopped or copied.
    pub busy: Arc<tokio::sync::Mutex<()>>,
    /// What is in the way of its volumes, as of the last pass.
    pub volume_faults: Vec<AttachmentFault>,
    /// How far its move is, as it was last told.
    pub migration: Option<MigrationReport>,
}

impl Worker {
    /// Works until the server is wished away and nothing of it is left.
    pub async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        let mut freed = self.shared.volumes.listen();
        loop {
            freed.mark_unchanged();
            let wish = self.wish.borrow_and_update().clone();
            let busy = Arc::clone(&self.busy);
            let guard = busy.lock().await;
            let outcome = match &wish {
                Some(wish) => self.converge(wish).await,
                None => self.remove().await,
            };
            drop(guard);
            let wait = match outcome {
                Ok(()) if wish.is_none() => {
                    if self.wish.borrow().is_none() {
                        return;
                    }
                    continue;
                }
                Ok(()) if self.volume_faults.is_empty() => LOOK_AGAIN,
                Ok(()) => {
                    pause = (pause * 2).min(RETRY_LONGEST);
                    pause
                }
                Err(Stop::Interrupted) => continue,
                Err(Stop::Fault(fault)) => {
                    tracing::warn!(server.id = %self.id, fault = fault.details, "a server is not as wished");
                    let transient = fault.transient;
                    if let Some(wish) = &wish {
                        self.tell(wish, Observed::Failed, None, 0, Some(fault)).await;
                    }
                    pause = if transient { (pause * 2).min(RETRY_LONGEST) } else { RETRY_LONGEST };
                    pause
                }
            };
            if wait == LOOK_AGAIN {
                pause = RETRY_FIRST;
            }
            tokio::select! {
                changed = self.wish.changed() => if changed.is_err() { return },
                () = self.look.notified() => {}
                _ = freed.changed(), if wait != LOOK_AGAIN => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Ends the guest and removes everything of the server.
    async fn remove(&mut self) -> Result<(), Stop> {
        let hypervisor = &self.shared.drivers.hypervisor;
        hypervisor.kill(self.id).await?;
        hypervisor.forget(self.id).await?;
        self.volumes_release(None).await?;
        self.shared.drivers.storage.server_remove(self.id).await?;
        let removals = || self.shared.disk_removals.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.id);
        if let Some(shared) = self.shared.drivers.shared.as_ref().filter(|_| removals()) {
            // The server said that nobody else has them.
            shared.storage.server_remove(self.id).await?;
            self.shared.board.disks_removed(self.id);
        }
        self.shared.ledger.forget(self.id)?;
        self.shared.board.server_gone(self.id);
        Ok(())
    }

    async fn converge(&mut self, wish: &Wish) -> Result<(), Stop> {
        let spec = &wish.spec;
        self.epoch_raised(spec.epoch)?;
        self.shared_noted(spec.disk_pool)?;
        if let Some(migration) = &spec.migration {
            return self.migrate(wish, migration).await;
        }
        self.move_over().await?;
        let entry = self.shared.ledger.entry(self.id)?;
        let mut state = self.shared.drivers.hypervisor.state(self.id).await;
        let restart_due = spec.restarts.count > entry.restarts;
        match spec.power {
            Power::Stopped => {
                self.stop(wish, true).await?;
                self.volumes_release(Some(wish)).await?;
                self.volume_faults.clear();
                self.disk_made(wish, &entry).await?;
            }
            Power::Suspended => self.suspend(wish, &entry).await?,
            Power::Running | Power::Paused => {
                if alive(&state) {
                    if let Some(gently) = self.outdated(wish, &entry).await? {
                        self.stop(wish, gently).await?;
                        state = GuestState::Absent;
                    } else if restart_due {
                        state = self.restart(wish).await?;
                    }
                } else if !restart_due && self.ended_by_itself(spec, &entry, &state) {
                    return self.tell_ended(wish, &state).await;
                }
                if !alive(&state) {
                    self.start(wish, &entry).await?;
                }
                self.settle(wish).await?;
                if spec.power == Power::Running {
                    self.set_password(wish).await?;
                }
            }
        }
        let running = matches!(spec.power, Power::Running | Power::Paused);
        self.shared.ledger.update(self.id, |e| {
            e.version = spec.version;
            e.restarts = spec.restarts.count;
            if running {
                e.started = Some((spec.version, self.shared.boot_id.clone()));
            }
        })?;
        let observed = match spec.power {
            Power::Running => Observed::Running,
            Power::Paused => Observed::Paused,
            Power::Stopped => Observed::Stopped,
            Power::Suspended => Observed::Suspended,
        };
        self.tell(wish, observed, None, 100, None).await;
        Ok(())
    }

    /// Notes in which shared folder its disks are, for those who do not see the wish.
    fn shared_noted(&self, pool: Option<DiskPoolId>) -> Result<(), Stop> {
        let shared = pool.map(|pool| (pool, shared_uid(self.id)));
        if self.shared.ledger.entry(self.id)?.shared != shared {
            self.shared.ledger.update(self.id, |e| e.shared = shared)?;
        }
        Ok(())
    }

    /// Where its disks are.
    fn disks(&self, spec: &ServerSpec) -> Result<Arc<dyn Storage>, Stop> {
        disks(&self.shared, spec.disk_pool).ok_or_else(|| {
            Stop::Fault(Fault {
                message: "The server's disks are in a shared folder that its node does not see.".to_owned(),
                details: "the agent was started with another --shared-disks, or none".to_owned(),
                transient: true,
            })
        })
    }

    /// Waits until this node may start it: another one may do so as soon as this one's lease is over.
    async fn lease_ready(&mut self, wish: &Wish) -> Result<(), Stop> {
        if wish.spec.disk_pool.is_none() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            biased;
            _ = self.wish.changed() => Err(Stop::Interrupted),
            () = shared.lease.wait_current() => Ok(()),
        }
    }

    /// Notes by which right a wish is acted on. One of an older right than this node has had is not: the server has been
    /// elsewhere since it was made.
    fn epoch_raised(&self, epoch: u64) -> Result<(), Stop> {
        let entry = self.shared.ledger.entry(self.id)?;
        if epoch < entry.epoch {
            return Err(Stop::Fault(Fault {
                message: "The node was told to run the server by a right that is over.".to_owned(),
                details: format!("the wish is of epoch {epoch}, this node has had {}", entry.epoch),
                transient: true,
            }));
        }
        if epoch > entry.epoch.max(EPOCH_FIRST) {
            self.shared.ledger.update(self.id, |e| e.epoch = epoch)?;
        }
        Ok(())
    }

    /// Whether a guest that is not there was started for this very wish since the machine booted, and so has ended by
    /// itself.
    fn ended_by_itself(&self, spec: &ServerSpec, entry: &Entry, state: &GuestState) -> bool {
        let started = entry.started.as_ref();
        matches!(state, GuestState::Ended(EndReason::PoweredOff | EndReason::Crashed { .. } | EndReason::Killed))
            && started.is_some_and(|(version, boot)| *version >= spec.version && *boot == self.shared.boot_id)
    }

    async fn tell_ended(&self, wish: &Wish, state: &GuestState) -> Result<(), Stop> {
        let fault = match state {
            GuestState::Ended(EndReason::Crashed { details }) => Some(Fault {
                message: "The guest's process ended unexpectedly; start the server again.".into(),
                details: details.clone(),
                transient: false,
            }),
            GuestState::Ended(_)
            | GuestState::Absent
            | GuestState::Running
            | GuestState::Paused
            | GuestState::Arriving
            | GuestState::Moved => None,
        };
        self.tell(wish, Observed::Ended, None, 100, fault).await;
        Ok(())
    }

    /// Whether a running guest must be started anew to be as wished: `Some(true)` gently, `Some(false)` at once.
    async fn outdated(&self, wish: &Wish, entry: &Entry) -> Result<Option<bool>, Stop> {
        let disk = self.disks(&wish.spec)?.root_disk(self.id).await?;
        let pair = disk.as_ref().zip(wish.spec.root_disk.as_ref());
        if pair.is_some_and(|(have, wanted)| have.incarnation < wanted.incarnation) {
            return Ok(Some(false));
        }
        let grown = pair.is_some_and(|(have, wanted)| have.size_bytes < wanted.size_bytes);
        let reshaped = entry.hardware.as_ref().is_some_and(|h| *h != wish.spec.hardware);
        if entry.rescue.is_some() && entry.rescue != rescue_of(&wish.spec) {
            // A rescue system is ended at once, and what it wrote to the server's disk is kept if its agent helps.
            if let Err(error) = self.shared.drivers.hypervisor.freeze(self.id).await {
                tracing::debug!(server.id = %self.id, error = chain(&error), "a rescue system was not flushed");
            }
            return Ok(Some(false));
        }
        let rescued = entry.rescue != rescue_of(&wish.spec);
        Ok((grown || reshaped || rescued).then_some(true))
    }

    /// Stops the guest: asks it first if `gently`, waits its grace, then ends the process.
    async fn stop(&mut self, wish: &Wish, gently: bool) -> Result<(), Stop> {
        let hypervisor = Arc::clone(&self.shared.drivers.hypervisor);
        let state = hypervisor.state(self.id).await;
        if gently && state == GuestState::Running {
            self.tell(wish, Observed::Running, Some("shutting down"), 0, None).await;
            let mut left = Duration::from_secs(u64::from(wish.spec.shutdown_grace_s));
            while !left.is_zero() && alive(&hypervisor.state(self.id).await) {
                // A guest that has not come far enough in its start does not hear the first request.
                hypervisor.shutdown(self.id).await?;
                let pause = left.min(SHUTDOWN_AGAIN);
                self.wait_for_end(pause).await?;
                left -= pause;
            }
        }
        hypervisor.kill(self.id).await?;
        let uid = self.shared.ledger.entry(self.id)?.uid();
        forget_memory(&self.shared.drivers.storage.server_folder(self.id, uid).await?).await;
        Ok(())
    }

    /// Waits until the guest has ended, at most `grace`.
    async fn wait_for_end(&mut self, grace: Duration) -> Result<(), Stop> {
        let deadline = Instant::now() + grace;
        while alive(&self.shared.drivers.hypervisor.state(self.id).await) {
            let next = deadline.min(Instant::now() + Duration::from_secs(1));
            tokio::select! {
                _ = self.wish.changed() => return Err(Stop::Interrupted),
                () = self.look.notified() => {}
                () = tokio::time::sleep_until(next) => if Instant::now() >= deadline { break },
            }
        }
        Ok(())
    }

    /// Restarts a running guest as asked: by its agent, else by shutting it down, else hard. Answers what state it is in.
    async fn restart(&mut self, wish: &Wish) -> Result<GuestState, Stop> {
        self.tell(wish, Observed::Running, Some("restarting"), 0, None).await;
        if !wish.spec.restarts.hard {
            let hypervisor = Arc::clone(&self.shared.drivers.hypervisor);
            match hypervisor.reboot(self.id).await {
                Ok(()) => return Ok(hypervisor.state(self.id).await),
                Err(HypervisorError::NoGuestAgent { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.stop(wish, !wish.spec.restarts.hard).await?;
        Ok(GuestState::Absent)
    }

    async fn suspend(&mut self, wish: &Wish, entry: &Entry) -> Result<(), Stop> {
        let hypervisor = &self.shared.drivers.hypervisor;
        if alive(&hypervisor.state(self.id).await) {
            self.tell(wish, Observed::Running, Some("saving memory"), 0, None).await;
            let folder = self.shared.drivers.storage.server_folder(self.id, entry.uid()).await?;
            hypervisor.suspend(self.id, &folder.join(MEMORY_FILE)).await?;
        }
        Ok(())
    }

    /// Makes everything ready and starts the guest.
    async fn start(&mut self, wish: &Wish, entry: &Entry) -> Result<(), Stop> {
        let spec = &wish.spec;
        self.lease_ready(wish).await?;
        let storage = self.disks(spec)?;
        let uid = entry.uid();
        let folder = self.shared.drivers.storage.server_folder(self.id, uid).await?;
        let disk = storage.root_disk(self.id).await?;
        let same = disk.map(|d| d.incarnation) == spec.root_disk.as_ref().map(|d| d.incarnation)
            && entry.hardware.as_ref() == Some(&spec.hardware)
            && entry.rescue == rescue_of(spec);
        if !same {
            forget_memory(&folder).await;
        }
        let memory = folder.join(MEMORY_FILE);
        let memory = tokio::fs::try_exists(&memory).await.unwrap_or(false).then_some(memory);
        let plugs = self.plugs(wish, entry, memory.is_some())?;
        self.volumes_ready(wish, &plugs).await?;
        self.fetch_image(wish).await?;
        self.tell(wish, Observed::Preparing, Some("making the disk"), 60, None).await;
        let mut disks = match &spec.root_disk {
            Some(root) => root_disks(&storage.root_disk_ensure(self.id, root, uid).await?),
            None => Vec::new(),
        };
        disks.extend(local_disks(
            storage.local_disks_ensure(self.id, &spec.local_disks, uid, true).await?,
            &spec.local_disks,
        ));
        match &spec.rescue {
            Some(rescue) => disks = self.rescue_disks(wish, rescue, disks, uid).await?,
            None => storage.rescue_disk_remove(self.id).await?,
        }
        if let Some(files) = &wish.config_drive {
            let drive = storage.config_drive_ensure(self.id, files, uid).await?;
            disks.push(DiskAttachment {
                path: drive.path,
                format: DiskFormat::Raw,
                read_only: true,
                boot_index: None,
                serial: "config-2".into(),
            });
        }
        self.tell(wish, Observed::Preparing, Some("connecting its ports"), 80, None).await;
        self.ports_ready(wish).await?;
        let mut nics = Vec::with_capacity(wish.nics.len());
        for &(port, mac, mtu) in &wish.nics {
            nics.push(self.nic(port, mac, mtu).await?);
        }
        self.tell(wish, Observed::Preparing, Some("starting the guest"), 90, None).await;
        // It may have taken long to come here.
        self.lease_ready(wish).await?;
        self.launch(wish, uid, (disks, plugs, nics), memory.clone()).await?;
        if memory.is_some() {
            forget_memory(&folder).await;
        }
        self.shared.ledger.update(self.id, |e| {
            e.hardware = Some(spec.hardware.clone());
            e.rescue = rescue_of(spec);
            e.ports = wish.nics.iter().map(|(port, ..)| *port).collect();
            e.started = Some((spec.version, self.shared.boot_id.clone()));
        })?;
        Ok(())
    }

    /// Makes the disk of a server that came here shut down: what it is made of may not be kept until it starts. One in a
    /// shared folder is there already.
    async fn disk_made(&mut self, wish: &Wish, entry: &Entry) -> Result<(), Stop> {
        let Some(root) = wish.spec.root_disk.as_ref().filter(|_| wish.spec.disk_pool.is_none()) else { return Ok(()) };
        let storage = self.disks(&wish.spec)?;
        if storage.root_disk(self.id).await?.is_some_and(|disk| disk.incarnation == root.incarnation) {
            return Ok(());
        }
        self.fetch_image(wish).await?;
        storage.root_disk_ensure(self.id, root, entry.uid()).await?;
        Ok(())
    }

    /// Starts the process with its disks, volumes and interfaces.
    async fn launch(
        &mut self,
        wish: &Wish,
        uid: u32,
        (disks, plugs, nics): (Vec<DiskAttachment>, Vec<Plug>, Vec<Nic>),
        resume_from: Option<PathBuf>,
    ) -> Result<(), Stop> {
        let spec = &wish.spec;
        let (volumes, locks) = self.volumes_hand_over(&plugs, uid, Boots::of(spec)).await?;
        // On disk before the machine has them, so that they are known to be its own whatever happens next.
        self.shared.ledger.update(self.id, |e| e.volumes = plugs)?;
        let launch = Launch {
            server: self.id,
            epoch: spec.epoch,
            version: spec.version,
            hardware: spec.hardware.clone(),
            uid,
            disks,
            volumes,
            nics,
            lease: self.lease_of(spec),
            resume_from,
        };
        self.shared.drivers.hypervisor.start(launch).await?;
        drop(locks);
        Ok(())
    }

    /// What a guest on shared disks lives by.
    fn lease_of(&self, spec: &ServerSpec) -> Option<PathBuf> {
        let shared = self.shared.drivers.shared.as_ref().filter(|_| spec.disk_pool.is_some());
        shared.map(|shared| shared.lease.clone())
    }

    /// The disks of a rescued guest: one made of the rescue image, then its own, from which it does not boot.
    async fn rescue_disks(
        &mut self,
        wish: &Wish,
        rescue: &RescueSpec,
        own: Vec<DiskAttachment>,
        uid: u32,
    ) -> Result<Vec<DiskAttachment>, Stop> {
        let shared = Arc::clone(&self.shared);
        let storage = self.disks(&wish.spec)?;
        self.tell(wish, Observed::Preparing, Some("fetching the rescue image"), 65, None).await;
        let mut newer = self.wish.clone();
        tokio::select! {
            done = storage.image_ensure(&rescue.image, shared.fetch.as_ref(), &|_| ()) => done?,
            _ = newer.changed() => return Err(Stop::Interrupted),
        }
        let spec = RootDiskSpec { image: rescue.image.clone(), size_bytes: 0, incarnation: rescue.incarnation };
        let disk = storage.rescue_disk_ensure(self.id, &spec, uid).await?;
        let mut disks = root_disks(&disk);
        for disk in &mut disks {
            disk.serial = if disk.serial == "root" { "rescue".into() } else { "rescue-cd".into() };
        }
        disks.extend(own.into_iter().map(|disk| DiskAttachment { boot_index: None, ..disk }));
        Ok(disks)
    }

    /// Sets the password that is asked for, once: neither success nor failure is tried again.
    async fn set_password(&mut self, wish: &Wish) -> Result<(), Stop> {
        let done = self.shared.ledger.entry(self.id)?.passwords;
        let Some(asked) = wish.spec.password.as_ref().filter(|asked| asked.count > done) else { return Ok(()) };
        let hypervisor = Arc::clone(&self.shared.drivers.hypervisor);
        let deadline = Instant::now() + PASSWORD_PATIENCE;
        let fault = loop {
            match hypervisor.set_password(self.id, &asked.user, &asked.password).await {
                Ok(()) => break None,
                // The agent starts late in a guest's boot.
                Err(HypervisorError::NoGuestAgent { .. }) if Instant::now() < deadline => {}
                Err(error) => {
                    tracing::warn!(server.id = %self.id, error = chain(&error), "a password could not be set");
                    break Some(match error {
                        HypervisorError::NoGuestAgent { reason, .. } => format!(
                            "The guest agent did not set the password: {}.",
                            reason.chars().take(200).collect::<String>()
                        ),
                        _ => "The password could not be set.".to_owned(),
                    });
                }
            }
            tokio::select! {
                _ = self.wish.changed() => return Err(Stop::Interrupted),
                () = tokio::time::sleep(RETRY_FIRST) => {}
            }
        };
        self.shared.ledger.update(self.id, |e| {
            e.passwords = asked.count;
            e.password_fault = fault;
        })?;
        Ok(())
    }

    async fn fetch_image(&mut self, wish: &Wish) -> Result<(), Stop> {
        let shared = Arc::clone(&self.shared);
        let Some(root) = &wish.spec.root_disk else { return Ok(()) };
        let (source, storage) = (&root.image, self.disks(&wish.spec)?);
        let disk = storage.root_disk(self.id).await?;
        if disk.is_some_and(|d| d.incarnation == root.incarnation) {
            return Ok(());
        }
        self.tell(wish, Observed::Preparing, Some("fetching the image"), 0, None).await;
        let total = source.size_bytes.max(1);
        let told = std::sync::atomic::AtomicU64::new(0);
        let progress = |bytes: u64| {
            let percent = bytes.saturating_mul(50) / total;
            if told.swap(percent, std::sync::atomic::Ordering::Relaxed) / 10 != percent / 10 {
                let percent = u8::try_from(percent).unwrap_or(50);
                let report = self.report(wish, Observed::Preparing, Some("fetching the image"), percent, None, 0);
                shared.board.server(report);
            }
        };
        let mut newer = self.wish.clone();
        tokio::select! {
            done = storage.image_ensure(source, shared.fetch.as_ref(), &progress) => Ok(done?),
            _ = newer.changed() => Err(Stop::Interrupted),
        }
    }

    async fn ports_ready(&mut self, wish: &Wish) -> Result<(), Stop> {
        let deadline = Instant::now() + PORTS_DEADLINE;
        let mut board = self.shared.board.listen();
        loop {
            board.mark_unchanged();
            let missing = wish.nics.iter().find(|(port, ..)| !self.shared.board.port_is_up(*port));
            let Some((port, ..)) = missing else { return Ok(()) };
            tokio::select! {
                _ = board.changed() => {}
                _ = self.wish.changed() => return Err(Stop::Interrupted),
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Stop::Fault(Fault {
                        message: "The server's network interfaces could not be connected.".into(),
                        details: format!("port {port} is not up: {}", self.shared.board.network_faults().join("; ")),
                        transient: true,
                    }));
                }
            }
        }
    }

    async fn nic(&self, port: PortId, mac: MacAddr, mtu: u32) -> Result<Nic, Stop> {
        let tap = self.shared.drivers.network.tap(port).await.map_err(|error| {
            Stop::fault("A network interface could not be connected.", &error, error.is_transient())
        })?;
        Ok(Nic { port, mac, mtu, tap })
    }

    /// Brings a living guest's pause and interfaces to the wish.
    async fn settle(&mut self, wish: &Wish) -> Result<(), Stop> {
        let hypervisor = Arc::clone(&self.shared.drivers.hypervisor);
        let entry = self.shared.ledger.entry(self.id)?;
        for port in entry.ports.iter().filter(|p| !wish.nics.iter().any(|(port, ..)| port == *p)) {
            hypervisor.nic_detach(self.id, *port).await?;
        }
        for &(port, mac, mtu) in wish.nics.iter().filter(|(port, ..)| !entry.ports.contains(port)) {
            self.ports_ready(wish).await?;
            let nic = self.nic(port, mac, mtu).await?;
            hypervisor.nic_attach(self.id, nic).await?;
        }
        self.shared.ledger.update(self.id, |e| e.ports = wish.nics.iter().map(|(port, ..)| *port).collect())?;
        self.volumes_settle(wish).await?;
        match (hypervisor.state(self.id).await, wish.spec.power) {
            (GuestState::Running, Power::Paused) => hypervisor.pause(self.id).await?,
            (GuestState::Paused, Power::Running) => hypervisor.resume(self.id).await?,
            (_, Power::Running | Power::Paused | Power::Stopped | Power::Suspended) => {}
        }
        Ok(())
    }

    /// Puts on the board what is seen; the wish counts as acted on when a pass has ended, well or not.
    async fn tell(&self, wish: &Wish, observed: Observed, step: Option<&str>, percent: u8, fault: Option<Fault>) {
        let incarnation = match disks(&self.shared, wish.spec.disk_pool) {
            Some(storage) => storage.root_disk(self.id).await.ok().flatten(),
            None => None,
        };
        let incarnation = incarnation.map_or(0, |disk| disk.incarnation);
        let entry = self.shared.ledger.entry(self.id).unwrap_or_default();
        let volumes = self.volumes_now(wish, &entry).await;
        let report = self.report(wish, observed, step, percent, fault, incarnation);
        self.shared.board.server(ServerReport { volumes, ..report });
    }

    fn report(
        &self,
        wish: &Wish,
        observed: Observed,
        step: Option<&str>,
        progress_percent: u8,
        fault: Option<Fault>,
        incarnation: u64,
    ) -> ServerReport {
        let entry = self.shared.ledger.entry(self.id).unwrap_or_default();
        let acted = step.is_none();
        ServerReport {
            id: self.id,
            epoch: wish.spec.epoch,
            version: if acted { wish.spec.version } else { entry.version },
            observed,
            restarts: entry.restarts,
            incarnation,
            volumes: Vec::new(),
            volume_faults: self.volume_faults.clone(),
            step: step.map(str::to_owned),
            progress_percent,
            fault,
            passwords: entry.passwords,
            password_fault: entry.password_fault,
            cpu_ms: 0,
            memory_kib: 0,
            migration: self.migration.clone(),
        }
    }
}

/// Saved memory fits only the very guest that was suspended: it goes when that guest's shape or disk does.
async fn forget_memory(folder: &std::path::Path) {
    drop(tokio::fs::remove_file(folder.join(MEMORY_FILE)).await);
}

/// The storage that holds disks of that folder, `None` being the node's own; `None` if this node does not see it.
pub(crate) fn disks(shared: &Shared, pool: Option<DiskPoolId>) -> Option<Arc<dyn Storage>> {
    match pool {
        None => Some(Arc::clone(&shared.drivers.storage)),
        Some(pool) => {
            shared.drivers.shared.as_ref().filter(|have| have.id == pool).map(|have| Arc::clone(&have.storage))
        }
    }
}

/// The user that a guest on shared disks runs as. Every node must come to the same one, and nodes do not know each other's
/// servers: 29 bits of the server's random id.
fn shared_uid(server: ServerId) -> u32 {
    let bits = u32::try_from(server.0.as_u128() & 0x1fff_ffff).unwrap_or(0);
    SHARED_UID_BASE + bits
}

/// The rescue disk that a guest shall run from.
fn rescue_of(spec: &ServerSpec) -> Option<u64> {
    spec.rescue.as_ref().map(|rescue| rescue.incarnation)
}

fn alive(state: &GuestState) -> bool {
    match state {
        GuestState::Running | GuestState::Paused | GuestState::Arriving | GuestState::Moved => true,
        GuestState::Absent | GuestState::Ended(_) => false,
    }
}

/// Local disks as the guest gets them.
fn local_disks(disks: Vec<Disk>, spec: &LocalDisksSpec) -> impl Iterator<Item = DiskAttachment> + '_ {
    spec.named().zip(disks).map(|((name, _), disk)| DiskAttachment {
        path: disk.path,
        format: disk.format,
        read_only: false,
        boot_index: None,
        serial: name,
    })
}

fn root_disks(disk: &Disk) -> Vec<DiskAttachment> {
    let mut disks = vec![DiskAttachment {
        path: disk.path.clone(),
        format: disk.format,
        read_only: false,
        boot_index: Some(1),
        serial: "root".into(),
    }];
    disks.extend(disk.cdrom.clone().map(|path| DiskAttachment {
        path,
        format: DiskFormat::Iso,
        read_only: true,
        boot_index: Some(2),
        serial: "cdrom".into(),
    }));
    disks
}
