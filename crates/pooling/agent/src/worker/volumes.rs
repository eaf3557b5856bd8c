//! The volumes of one server: given to its machine at the start, plugged in and out while it runs.
//!
//! A volume that cannot be plugged is a fault of its attachment, not of the server: the guest goes on and it is tried
//! again.

use super::{Stop, Wish, Worker, alive};
use crate::chain;
use crate::ledger::{Entry, Plug};
use crate::volumes::machine;
use arcus_hypervisor::{EndReason, GuestState, HypervisorError, VOLUME_SLOTS_MAX, VolumeAttachment};
use arcus_storage::Volume;
use arcus_types::agent::{AttachmentFault, AttachmentSpec, Fault, ServerSpec, VolumeState};
use arcus_types::{ServerId, VolumeId};
use tokio::sync::OwnedMutexGuard;

/// A volume's lock: says which server got the volume last.
type Lock = OwnedMutexGuard<Option<ServerId>>;

fn cannot(message: &str, details: String, transient: bool) -> Fault {
    Fault { message: message.to_owned(), details, transient }
}

impl Worker {
    /// The volumes that are in the machine now, or will be at its next start.
    pub(super) async fn volumes_now(&self, wish: &Wish, entry: &Entry) -> Vec<VolumeId> {
        let hypervisor = &self.shared.drivers.hypervisor;
        let plugged = || entry.volumes.iter().map(|plug| plug.attachment.volume_id).collect();
        match hypervisor.state(self.id).await {
            GuestState::Running | GuestState::Paused | GuestState::Arriving | GuestState::Moved => {
                hypervisor.volumes(self.id).await
            }
            GuestState::Ended(EndReason::Suspended) => plugged(),
            GuestState::Absent
            | GuestState::Ended(
                EndReason::PoweredOff | EndReason::Crashed { .. } | EndReason::Killed | EndReason::LeaseOver,
            ) => wish.spec.volumes.iter().map(|attachment| attachment.volume_id).collect(),
        }
    }

    /// Which volumes a machine that is about to start gets, and where. One that goes on from saved memory has what it had.
    pub(super) fn plugs(&self, wish: &Wish, entry: &Entry, resuming: bool) -> Result<Vec<Plug>, Stop> {
        if resuming {
            return Ok(entry.volumes.clone());
        }
        let mut attachments: Vec<&AttachmentSpec> = wish.spec.volumes.iter().collect();
        // What is booted from comes first; a guest names its disks in this order.
        attachments.sort_by_key(|attachment| attachment.boot_index.unwrap_or(u32::MAX));
        let rootless = wish.spec.root_disk.is_none();
        if rootless && attachments.first().is_none_or(|first| first.boot_index.is_none()) {
            let details = "it has neither a root disk nor a volume with a boot index".to_owned();
            return Err(Stop::Fault(cannot("The server has nothing to boot from.", details, false)));
        }
        let slots = rootless.then_some(None).into_iter().chain((0..).map(Some));
        let plugs = attachments.into_iter().zip(slots);
        Ok(plugs.map(|(attachment, slot)| Plug { slot, attachment: attachment.clone() }).collect())
    }

    /// Waits until the volumes of a machine that is about to start are ready.
    pub(super) async fn volumes_ready(&mut self, wish: &Wish, plugs: &[Plug]) -> Result<(), Stop> {
        let mut board = self.shared.board.listen();
        for plug in plugs {
            let id = plug.attachment.volume_id;
            loop {
                board.mark_unchanged();
                match self.shared.board.volume_state(id) {
                    Some(VolumeState::Ready) => break,
                    Some(VolumeState::Preparing { step, progress_percent }) => {
                        let step = format!("waiting for a volume: {step}");
                        self.tell(wish, super::Observed::Preparing, Some(&step), progress_percent / 2, None).await;
                    }
                    // What failed may be its growth: it can be used as it is then.
                    Some(VolumeState::Failed(fault)) => match self.shared.drivers.storage.volume(id).await {
                        Ok(Some(_)) => break,
                        Ok(None) | Err(_) => return Err(Stop::Fault(fault)),
                    },
                    Some(VolumeState::Removing) | None => {
                        let details = format!("volume {id} is not on this node");
                        return Err(Stop::Fault(cannot("A volume of the server is not on its node.", details, true)));
                    }
                }
                tokio::select! {
                    _ = board.changed() => {}
                    _ = self.wish.changed() => return Err(Stop::Interrupted),
                }
            }
        }
        Ok(())
    }

    /// Hands the volumes over to a machine that is about to start. As long as the locks are held, nobody changes them.
    pub(super) async fn volumes_hand_over(
        &self,
        plugs: &[Plug],
        uid: u32,
        boots: Boots,
    ) -> Result<(Vec<VolumeAttachment>, Vec<Lock>), Stop> {
        let mut sorted: Vec<&Plug> = plugs.iter().collect();
        // Always in the same order, so that two servers never wait for each other.
        sorted.sort_by_key(|plug| plug.attachment.volume_id);
        let (mut attachments, mut locks) = (Vec::new(), Vec::new());
        for plug in sorted {
            let mut lock = self.shared.volumes.lock(plug.attachment.volume_id).await;
            let volume = self.hand_over(&mut lock, &plug.attachment, uid).await.map_err(Stop::Fault)?;
            attachments.push(attachment_of(plug, volume, boots));
            locks.push(lock);
        }
        attachments.sort_by_key(|attachment| attachment.slot);
        Ok((attachments, locks))
    }

    /// Makes a volume this server's, unless another's machine has it open.
    async fn hand_over(&self, lock: &mut Lock, wanted: &AttachmentSpec, uid: u32) -> Result<Volume, Fault> {
        let id = wanted.volume_id;
        let other = machine(&self.shared, **lock, id).await;
        if other.is_some() && **lock != Some(self.id) {
            let details = format!("server {:?} has volume {id} open", **lock);
            return Err(cannot("The volume is still attached to another server.", details, true));
        }
        let given = self.shared.drivers.storage.volume_hand_over(id, Some(uid)).await;
        let volume = given.map_err(|error| {
            cannot("The volume is not ready on the server's node.", chain(&error), error.is_transient())
        })?;
        **lock = Some(self.id);
        Ok(volume)
    }

    /// Brings a living machine's volumes to the wish; what is in the way is kept for the report.
    pub(super) async fn volumes_settle(&mut self, wish: &Wish) -> Result<(), Stop> {
        self.volume_faults.clear();
        let wished = |id: VolumeId| wish.spec.volumes.iter().find(|attachment| attachment.volume_id == id);
        let hypervisor = self.shared.drivers.hypervisor.clone();
        for id in hypervisor.volumes(self.id).await {
            if wished(id).is_none()
                && let Err(fault) = self.volume_unplug(id).await
            {
                self.volume_fault(id, fault);
            }
        }
        let plugged = hypervisor.volumes(self.id).await;
        for attachment in &wish.spec.volumes {
            let id = attachment.volume_id;
            let done = if plugged.contains(&id) {
                self.volume_limit(attachment).await
            } else {
                self.volume_plug(attachment, Boots::of(&wish.spec)).await
            };
            if let Err(fault) = done {
                self.volume_fault(id, fault);
            }
        }
        let plugged = hypervisor.volumes(self.id).await;
        if !plugged.is_empty() || !self.shared.ledger.entry(self.id)?.volumes.is_empty() {
            let gone = |plug: &Plug| plugged.contains(&plug.attachment.volume_id);
            self.shared.ledger.update(self.id, |entry| entry.volumes.retain(gone))?;
        }
        Ok(())
    }

    fn volume_fault(&mut self, volume_id: VolumeId, fault: Fault) {
        tracing::warn!(server.id = %self.id, volume.id = %volume_id, fault = fault.details, "a volume is not as wished");
        self.volume_faults.push(AttachmentFault { volume_id, fault });
    }

    async fn volume_plug(&self, wanted: &AttachmentSpec, boots: Boots) -> Result<(), Fault> {
        let (id, shared) = (wanted.volume_id, &self.shared);
        let failed = |error: &HypervisorError| {
            let message = match error {
                HypervisorError::LaunchRefused { reason, .. } => format!("The volume could not be attached: {reason}."),
                _ => "The volume could not be attached to the running server.".to_owned(),
            };
            cannot(&message, chain(error), error.is_transient())
        };
        let ledger = |error: crate::LedgerError| cannot("The node cannot write its ledger.", chain(&error), true);
        let mut lock = shared.volumes.lock(id).await;
        let entry = shared.ledger.entry(self.id).map_err(ledger)?;
        let free = |slot: &u32| entry.volumes.iter().all(|plug| plug.slot != Some(*slot));
        let slot = (0..VOLUME_SLOTS_MAX).find(free);
        let Some(slot) = slot else {
            let details = format!("it has {} volumes", entry.volumes.len());
            return Err(cannot("The server has as many volumes as a server can have.", details, false));
        };
        let volume = self.hand_over(&mut lock, wanted, entry.uid()).await?;
        let plug = Plug { slot: Some(slot), attachment: wanted.clone() };
        // On disk first: the memory of a machine may be saved at any time after.
        shared.ledger.update(self.id, |entry| entry.volumes.push(plug.clone())).map_err(ledger)?;
        let plugged = shared.drivers.hypervisor.volume_attach(self.id, attachment_of(&plug, volume, boots)).await;
        if let Err(error) = plugged {
            if !shared.drivers.hypervisor.volumes(self.id).await.contains(&id) {
                self.volume_take_back(&mut lock, id).await?;
            }
            return Err(failed(&error));
        }
        Ok(())
    }

    async fn volume_unplug(&self, id: VolumeId) -> Result<(), Fault> {
        let mut lock = self.shared.volumes.lock(id).await;
        let gone = self.shared.drivers.hypervisor.volume_detach(self.id, id).await;
        gone.map_err(|error| cannot("The guest does not let go of the volume.", chain(&error), error.is_transient()))?;
        self.volume_take_back(&mut lock, id).await
    }

    /// The machine no longer has the volume: nor has its user.
    async fn volume_take_back(&self, lock: &mut Lock, id: VolumeId) -> Result<(), Fault> {
        let forgotten = self.shared.ledger.update(self.id, |entry| {
            entry.volumes.retain(|plug| plug.attachment.volume_id != id);
        });
        forgotten.map_err(|error| cannot("The node cannot write its ledger.", chain(&error), true))?;
        if **lock == Some(self.id) {
            **lock = None;
            if let Err(error) = self.shared.drivers.storage.volume_hand_over(id, None).await {
                tracing::warn!(volume.id = %id, error = chain(&error), "a volume could not be taken back");
            }
        }
        self.shared.volumes.poke();
        Ok(())
    }

    async fn volume_limit(&self, wanted: &AttachmentSpec) -> Result<(), Fault> {
        let failed = |error: &dyn std::error::Error, transient| {
            cannot("The volume's limits could not be set.", chain(error), transient)
        };
        let id = wanted.volume_id;
        let entry = self.shared.ledger.entry(self.id).map_err(|error| failed(&error, true))?;
        let known = entry.volumes.iter().find(|plug| plug.attachment.volume_id == id);
        if known.is_some_and(|plug| plug.attachment.qos == wanted.qos) {
            return Ok(());
        }
        let limited = self.shared.drivers.hypervisor.volume_limit(self.id, id, wanted.qos).await;
        limited.map_err(|error| failed(&error, error.is_transient()))?;
        let noted = self.shared.ledger.update(self.id, |entry| {
            for plug in entry.volumes.iter_mut().filter(|plug| plug.attachment.volume_id == id) {
                plug.attachment.qos = wanted.qos;
            }
        });
        noted.map(drop).map_err(|error| failed(&error, true))
    }

    /// Takes back the volumes that a server without a process had and shall not have again: all of them if `wish` is
    /// `None`.
    pub(super) async fn volumes_release(&mut self, wish: Option<&Wish>) -> Result<(), Stop> {
        let entry = self.shared.ledger.entry(self.id)?;
        let hypervisor = &self.shared.drivers.hypervisor;
        let state = hypervisor.state(self.id).await;
        if entry.volumes.is_empty() || alive(&state) {
            return Ok(());
        }
        if wish.is_some() && state == GuestState::Ended(EndReason::Suspended) {
            return Ok(());
        }
        for id in entry.volumes.iter().map(|plug| plug.attachment.volume_id) {
            let wished = wish.is_some_and(|wish| wish.spec.volumes.iter().any(|have| have.volume_id == id));
            if !wished {
                let mut lock = self.shared.volumes.lock(id).await;
                self.volume_take_back(&mut lock, id).await.map_err(Stop::Fault)?;
            }
        }
        Ok(())
    }
}

/// What a machine looks at first for something to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boots {
    /// Its root disk, then the CD that it may come with, then volumes.
    Disk,
    /// Volumes.
    Volume,
    /// The rescue disk, and no volume whatever.
    Rescue,
}

impl Boots {
    pub(super) fn of(spec: &ServerSpec) -> Self {
        match (&spec.rescue, &spec.root_disk) {
            (Some(_), _) => Self::Rescue,
            (None, Some(_)) => Self::Disk,
            (None, None) => Self::Volume,
        }
    }
}

fn attachment_of(plug: &Plug, volume: Volume, boots: Boots) -> VolumeAttachment {
    let wanted = &plug.attachment;
    // Firmware counts from 1.
    let boot_index = match boots {
        Boots::Disk => wanted.boot_index.map(|index| index.saturating_add(2)),
        Boots::Volume => wanted.boot_index.map(|index| index.saturating_add(1)),
        Boots::Rescue => None,
    };
    VolumeAttachment {
        volume: wanted.volume_id,
        slot: plug.slot,
        path: volume.path,
        format: volume.format,
        read_only: wanted.read_only,
        boot_index,
        qos: wanted.qos,
    }
}
