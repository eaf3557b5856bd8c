//! A guest that goes to another node, or comes from one: this node's part, as the server orders it.
//!
//! The machine does the work and tells how far it is; here orders become calls and stages become reports. Nothing is
//! decided: when a source has sent all of a guest it waits for the server's word, and when a destination's machine has
//! ended it is not started a second time.

use super::{Stop, Wish, Worker, chain, local_disks, root_disks};
use arcus_hypervisor::{Arrival, Departure, DiskAttachment, GuestState, HypervisorError, Launch};
use arcus_types::MigrationId;
use arcus_types::agent::{
    DiskFormat, MachineLayout, MigrationFigures, MigrationPart, MigrationPlace, MigrationReport, MigrationSpec,
    MigrationStage, Observed, OutgoingOrder, PortMove,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often a move is looked at even if nothing is heard of it.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How often figures are told while nothing else changes.
const FIGURES_EVERY: Duration = Duration::from_secs(1);
/// How often a source that still sends is asked whether it has given up.
const BUSY_AGAIN: Duration = Duration::from_millis(50);

impl Worker {
    /// Does this node's part in a move until the order changes.
    pub(super) async fn migrate(&mut self, wish: &Wish, spec: &MigrationSpec) -> Result<(), Stop> {
        match &spec.part {
            MigrationPart::Outgoing { order, downtime_ms_max, force, strict } => {
                let departure = |to: MigrationPlace, switch| Departure {
                    id: spec.id,
                    key: spec.key.clone(),
                    to,
                    switch,
                    downtime_ms_max: *downtime_ms_max,
                    force: *force,
                    strict: *strict,
                };
                let departure = match order {
                    OutgoingOrder::Go(to) => Some(departure(*to, false)),
                    OutgoingOrder::Switch(to) => Some(departure(*to, true)),
                    OutgoingOrder::Wait | OutgoingOrder::Cancel | OutgoingOrder::Return => None,
                };
                self.leave(wish, spec.id, order, departure).await
            }
            MigrationPart::Incoming { layout, open, give_up } => {
                if *give_up {
                    self.arrive_give_up(spec.id).await?;
                }
                self.arrive(wish, spec, layout.as_ref(), *open).await
            }
        }
    }

    /// The server has decided that a move is over: what was set up for it goes, and the guest runs here.
    pub(super) async fn move_over(&mut self) -> Result<(), Stop> {
        let hypervisor = Arc::clone(&self.shared.drivers.hypervisor);
        while hypervisor.moving(self.id).await.is_some() {
            match hypervisor.move_end(self.id).await {
                Ok(()) => break,
                Err(HypervisorError::Busy { .. }) => tokio::time::sleep(BUSY_AGAIN).await,
                Err(error) => return Err(error.into()),
            }
        }
        self.migration = None;
        self.shared.ledger.update(self.id, |e| e.incoming = None)?;
        Ok(())
    }

    async fn leave(
        &mut self,
        wish: &Wish,
        id: MigrationId,
        order: &OutgoingOrder,
        departure: Option<Departure>,
    ) -> Result<(), Stop> {
        let hypervisor = Arc::clone(&self.shared.drivers.hypervisor);
        let mut told_at = None;
        loop {
            let state = hypervisor.state(self.id).await;
            let known = hypervisor.moving(self.id).await.filter(|report| report.id == id);
            let report = match (&state, known) {
                (GuestState::Ended(_) | GuestState::Absent, _) => {
                    self.migration = Some(bare(id, MigrationStage::Ended));
                    return self.leave_ended(wish, &state).await;
                }
                (_, Some(report)) if is_over(&report.stage) => {
                    if matches!(order, OutgoingOrder::Return) {
                        hypervisor.move_end(self.id).await?;
                        bare(id, MigrationStage::Cancelled)
                    } else {
                        report
                    }
                }
                (_, Some(report)) => match &departure {
                    Some(departure) => {
                        hypervisor.send(self.id, departure.clone()).await?;
                        report
                    }
                    None => {
                        if matches!(order, OutgoingOrder::Cancel) {
                            hypervisor.send_cancel(self.id).await?;
                        }
                        report
                    }
                },
                (_, None) => self.leave_begin(id, order, departure.as_ref()).await?,
            };
            self.leave_tell(wish, &state, report, &mut told_at).await;
            tokio::select! {
                changed = self.wish.changed() => {
                    return if changed.is_ok() { Err(Stop::Interrupted) } else { Ok(()) };
                }
                () = self.look.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// The guest has ended before it left. One that ended because its node was restarted has not ended by itself: should it
    /// stay this node's, it is started again once the move is over.
    async fn leave_ended(&mut self, wish: &Wish, state: &GuestState) -> Result<(), Stop> {
        let started = self.shared.ledger.entry(self.id)?.started;
        if started.is_some_and(|(_, boot)| boot == self.shared.boot_id) {
            return self.tell_ended(wish, state).await;
        }
        self.tell(wish, Observed::Preparing, Some("waiting for the end of its move"), 0, None).await;
        Ok(())
    }

    async fn leave_begin(
        &self,
        id: MigrationId,
        order: &OutgoingOrder,
        departure: Option<&Departure>,
    ) -> Result<MigrationReport, Stop> {
        let hypervisor = &self.shared.drivers.hypervisor;
        Ok(match (order, departure) {
            (OutgoingOrder::Go(_) | OutgoingOrder::Switch(_), Some(departure)) => {
                match hypervisor.send(self.id, departure.clone()).await {
                    Ok(()) => bare(id, MigrationStage::Sending),
                    Err(error) => failed(id, &chain(&error)),
                }
            }
            (OutgoingOrder::Cancel | OutgoingOrder::Return, _) => bare(id, MigrationStage::Cancelled),
            (OutgoingOrder::Wait | OutgoingOrder::Go(_) | OutgoingOrder::Switch(_), _) => {
                bare(id, MigrationStage::Waiting(hypervisor.layout(self.id).await?))
            }
        })
    }

    async fn leave_tell(
        &mut self,
        wish: &Wish,
        state: &GuestState,
        mut report: MigrationReport,
        told_at: &mut Option<Instant>,
    ) {
        // What is for the guest must reach both nodes before it stands still.
        if report.stage == MigrationStage::Ready && !self.ports_move(wish, PortMove::Leaving) {
            report.stage = MigrationStage::Sending;
        }
        if report.stage == MigrationStage::Ready {
            report.flows = match &self.migration {
                Some(told) if told.stage == MigrationStage::Ready => told.flows.clone(),
                Some(_) | None => {
                    let ports: Vec<_> = wish.nics.iter().map(|(port, ..)| *port).collect();
                    self.shared.drivers.network.flows(&ports).await
                }
            };
        }
        let same_stage = self.migration.as_ref().is_some_and(|told| told.stage == report.stage);
        let fresh = told_at.is_some_and(|at| at.elapsed() < FIGURES_EVERY);
        if same_stage && (fresh || self.migration.as_ref() == Some(&report)) {
            return;
        }
        *told_at = Some(Instant::now());
        self.migration = Some(report);
        let observed = if *state == GuestState::Paused { Observed::Paused } else { Observed::Running };
        self.tell(wish, observed, None, 100, None).await;
    }

    /// Whether the network carries all of the guest's ports so.
    fn ports_move(&self, wish: &Wish, how: PortMove) -> bool {
        wish.nics.iter().all(|(port, ..)| self.shared.board.port_moves(*port) == Some(how))
    }

    async fn arrive(
        &mut self,
        wish: &Wish,
        spec: &MigrationSpec,
        layout: Option<&MachineLayout>,
        open: bool,
    ) -> Result<(), Stop> {
        let hypervisor = Arc::clone(&self.shared.drivers.hypervisor);
        let mut board = self.shared.board.listen();
        loop {
            board.mark_unchanged();
            let state = hypervisor.state(self.id).await;
            let incoming = self.shared.ledger.entry(self.id)?.incoming;
            let stage = match (&state, incoming) {
                (_, incoming) if incoming.is_none_or(|(id, _)| id != spec.id) => {
                    self.arrive_afresh(spec.id).await?;
                    continue;
                }
                (GuestState::Ended(_) | GuestState::Absent, Some((_, true))) => {
                    hypervisor.kill(self.id).await?;
                    hypervisor.forget(self.id).await?;
                    // The first reason that was found is the true one.
                    match self.migration.take().map(|told| told.stage) {
                        Some(stage @ MigrationStage::Failed { .. }) => stage,
                        Some(_) | None => MigrationStage::Failed {
                            message: format!("The machine that was to take the guest ended: {state:?}."),
                        },
                    }
                }
                (GuestState::Ended(_) | GuestState::Absent, _) => match self.arrive_begin(wish, spec, layout).await {
                    Ok(stage) => stage,
                    Err(Stop::Interrupted) => return Err(Stop::Interrupted),
                    Err(Stop::Fault(fault)) => {
                        tracing::warn!(server.id = %self.id, fault = fault.details, "a guest cannot come here");
                        hypervisor.kill(self.id).await?;
                        hypervisor.forget(self.id).await?;
                        self.shared.ledger.update(self.id, |e| e.incoming = Some((spec.id, true)))?;
                        MigrationStage::Failed { message: format!("{} {}", fault.message, fault.details) }
                    }
                },
                (GuestState::Running | GuestState::Paused | GuestState::Arriving | GuestState::Moved, _) => {
                    match hypervisor.moving(self.id).await.map(|report| report.stage) {
                        Some(MigrationStage::Listening(place)) if open && self.ports_move(wish, PortMove::Arriving) => {
                            MigrationStage::Open(place)
                        }
                        Some(stage) => stage,
                        // It is silent for a moment.
                        None => MigrationStage::Preparing,
                    }
                }
            };
            self.arrive_tell(wish, spec.id, stage).await?;
            tokio::select! {
                changed = self.wish.changed() => {
                    return if changed.is_ok() { Err(Stop::Interrupted) } else { Ok(()) };
                }
                () = self.look.notified() => {}
                _ = board.changed(), if open => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// The source is down and sends no more: a machine that has not got all of the guest ends.
    async fn arrive_give_up(&mut self, id: MigrationId) -> Result<(), Stop> {
        let hypervisor = &self.shared.drivers.hypervisor;
        let stage = hypervisor.moving(self.id).await.map(|report| report.stage);
        if stage == Some(MigrationStage::Arrived) {
            return Ok(());
        }
        hypervisor.kill(self.id).await?;
        hypervisor.forget(self.id).await?;
        self.shared.ledger.update(self.id, |e| e.incoming = Some((id, true)))?;
        let message = "The source went down before all of the guest had come.".to_owned();
        self.migration = Some(bare(id, MigrationStage::Failed { message }));
        Ok(())
    }

    /// Nothing of an earlier stay may be left: only what the source sends counts.
    async fn arrive_afresh(&mut self, id: MigrationId) -> Result<(), Stop> {
        let hypervisor = &self.shared.drivers.hypervisor;
        hypervisor.kill(self.id).await?;
        hypervisor.forget(self.id).await?;
        self.shared.drivers.storage.server_remove(self.id).await?;
        self.shared.ledger.forget(self.id)?;
        self.shared.ledger.update(self.id, |e| e.incoming = Some((id, false)))?;
        self.migration = None;
        Ok(())
    }

    /// Makes disk, config drive and ports ready and starts the machine, as far as what is known allows.
    async fn arrive_begin(
        &mut self,
        wish: &Wish,
        spec: &MigrationSpec,
        layout: Option<&MachineLayout>,
    ) -> Result<MigrationStage, Stop> {
        let storage = self.disks(&wish.spec)?;
        let server = &wish.spec;
        let uid = self.shared.ledger.entry(self.id)?.uid();
        self.migration = Some(bare(spec.id, MigrationStage::Preparing));
        self.fetch_image(wish).await?;
        let mut disks = match &server.root_disk {
            Some(root) => root_disks(&storage.root_disk_ensure(self.id, root, uid).await?),
            None => Vec::new(),
        };
        // Their content comes with the guest.
        disks.extend(local_disks(
            storage.local_disks_ensure(self.id, &server.local_disks, uid, false).await?,
            &server.local_disks,
        ));
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
        self.ports_ready(wish).await?;
        let Some(layout) = layout else { return Ok(MigrationStage::Preparing) };
        let address = self.shared.board.report().facts.underlay.ok_or_else(|| {
            let nowhere = std::io::Error::other("this node has no address on the network that joins the nodes");
            Stop::fault("The guest could not be received.", &nowhere, false)
        })?;
        let mut nics = Vec::with_capacity(wish.nics.len());
        for &(port, mac, mtu) in &wish.nics {
            nics.push(self.nic(port, mac, mtu).await?);
        }
        let launch = Launch {
            server: self.id,
            epoch: server.epoch,
            version: server.version,
            hardware: server.hardware.clone(),
            uid,
            disks,
            volumes: Vec::new(),
            nics,
            lease: self.lease_of(server),
            resume_from: None,
        };
        let arrival = Arrival { id: spec.id, key: spec.key.clone(), address, layout: layout.clone() };
        // On disk before the machine is there: what was asked of the guest before was done where it comes from.
        self.shared.ledger.update(self.id, |e| {
            e.incoming = Some((spec.id, true));
            e.hardware = Some(server.hardware.clone());
            e.ports = wish.nics.iter().map(|(port, ..)| *port).collect();
            e.restarts = server.restarts.count;
            e.passwords = server.password.as_ref().map_or(0, |asked| asked.count);
        })?;
        let place = self.shared.drivers.hypervisor.receive(launch, arrival).await?;
        Ok(MigrationStage::Listening(place))
    }

    async fn arrive_tell(&mut self, wish: &Wish, id: MigrationId, stage: MigrationStage) -> Result<(), Stop> {
        if self.migration.as_ref().is_some_and(|told| told.id == id && told.stage == stage) && self.told_once() {
            return Ok(());
        }
        let arrived = stage == MigrationStage::Arrived;
        self.migration = Some(bare(id, stage));
        if arrived {
            self.shared.ledger.update(self.id, |e| {
                e.started = Some((wish.spec.version, self.shared.boot_id.clone()));
                e.version = wish.spec.version;
            })?;
            self.tell(wish, Observed::Running, None, 100, None).await;
        } else {
            self.tell(wish, Observed::Preparing, Some("waiting for the guest"), 90, None).await;
        }
        Ok(())
    }

    /// Whether the board has what is known of the move.
    fn told_once(&self) -> bool {
        let report = self.shared.board.report();
        report.servers.iter().any(|server| server.id == self.id && server.migration == self.migration)
    }
}

fn bare(id: MigrationId, stage: MigrationStage) -> MigrationReport {
    MigrationReport { id, stage, figures: MigrationFigures::default(), flows: Vec::new() }
}

fn failed(id: MigrationId, message: &str) -> MigrationReport {
    bare(id, MigrationStage::Failed { message: message.to_owned() })
}

/// Whether a source's part is over, one way or the other.
fn is_over(stage: &MigrationStage) -> bool {
    matches!(stage, MigrationStage::Moved | MigrationStage::Cancelled | MigrationStage::Failed { .. })
}
