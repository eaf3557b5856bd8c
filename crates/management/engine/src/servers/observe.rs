//! What a node says of its servers, and what follows.
//!
//! [`judge`] compares one report with one record and decides, purely; the engine then holds the row, judges again and
//! writes. A report that says nothing new costs one read.

use super::image::images_held;
use super::migrate::{elsewhere, moves};
use super::resize::flavors_swap;
use super::retried;
use crate::{Engine, EngineError};
use arcus_store::{Server, ServerFault, Tx};
use arcus_types::agent::{NodeReport, Observed, Power, ServerReport};
use arcus_types::policy::compute;
use arcus_types::servers::{PowerState, ServerEvent, ServerState, ServerTask};
use arcus_types::{Actor, NodeId, OpCtx, RequestId, Scope, ServerId, Timestamp};
use serde_json::json;
use std::collections::HashMap;

/// How long a node may go on trying before the owner sees ERROR, in seconds; it recovers if the node succeeds after all.
const TRANSIENT_PATIENCE_S: i64 = 60;

/// So many servers' news are written at once: their transactions share the wait for stable storage.
const OBSERVED_AT_ONCE: usize = 8;

/// What is told of a failure that the node says nothing of.
const UNSAID: &str = "The node could not do it and did not say why.";

/// What a report means for a server.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// Nothing new.
    Same,
    /// Only figures changed.
    Figures { power_state: PowerState, progress: u8, step: Option<String> },
    /// The wish is brought about.
    Reached { power_state: PowerState, failure: Option<String> },
    /// The guest ended by itself.
    Ended { power_state: PowerState, why: Option<String> },
    /// The wish cannot be brought about, or not yet.
    Failed { fault: ServerFault },
    /// What changed nothing but the hardware is brought about, or cannot be: the state stays.
    Settled { failure: Option<String> },
    /// The node holds nothing of it any more, as wished.
    Gone,
}

/// What `report` means; `None` for a report that does not name the server.
pub(super) fn judge(server: &Server, report: Option<&ServerReport>, spec_generation: u64, now: Timestamp) -> Verdict {
    let leaving = matches!(server.task, Some(ServerTask::Deleting | ServerTask::ShelvingOffloading));
    let Some(report) = report else {
        let acted = spec_generation >= server.node_generation;
        return if leaving && acted { Verdict::Gone } else { Verdict::Same };
    };
    // What a server on its way does is said of its move, and judged there.
    if leaving || report.epoch != server.epoch || server.task == Some(ServerTask::Migrating) {
        return Verdict::Same;
    }
    let acted = report.version >= server.version;
    match report.observed {
        Observed::Preparing => figures(server, report, server.power_state),
        Observed::Failed if acted => match failed(server, report, now) {
            Verdict::Same if pending(server) => {
                let message = report.fault.as_ref().map_or(UNSAID, |f| f.message.as_str());
                Verdict::Settled { failure: Some(message.to_owned()) }
            }
            other => other,
        },
        Observed::Failed => Verdict::Same,
        Observed::Ended if acted && server.power != Power::Stopped => {
            let power_state = if report.fault.is_some() { PowerState::Crashed } else { PowerState::Shutdown };
            let why = report.fault.as_ref().map(|f| f.message.clone());
            let known = server.state == ServerState::Stopped && server.task.is_none();
            match known {
                true if pending(server) => Verdict::Settled { failure: None },
                true => Verdict::Same,
                false => Verdict::Ended { power_state, why },
            }
        }
        Observed::Running | Observed::Paused | Observed::Stopped | Observed::Suspended | Observed::Ended => {
            let power_state = power_state(report.observed);
            if acted && reached(server, report) && awaited(server) {
                let asked = server.task == Some(ServerTask::UpdatingPassword);
                let failure = report.password_fault.clone().filter(|_| asked);
                Verdict::Reached { power_state, failure }
            } else if acted && reached(server, report) && pending(server) {
                Verdict::Settled { failure: None }
            } else {
                figures(server, report, power_state)
            }
        }
    }
}

const fn power_state(observed: Observed) -> PowerState {
    match observed {
        Observed::Running => PowerState::Running,
        Observed::Paused => PowerState::Paused,
        Observed::Stopped | Observed::Ended => PowerState::Shutdown,
        Observed::Suspended => PowerState::Suspended,
        Observed::Preparing | Observed::Failed => PowerState::NoState,
    }
}

/// Whether what the node sees is what is wished.
fn reached(server: &Server, report: &ServerReport) -> bool {
    match server.power {
        Power::Running => {
            report.observed == Observed::Running
                && report.restarts >= server.restarts
                && report.incarnation == server.incarnation
                // Another node than the one that set a password knows nothing of it.
                && (server.task != Some(ServerTask::UpdatingPassword) || report.passwords >= server.details.passwords)
        }
        Power::Paused => report.observed == Observed::Paused,
        Power::Stopped => {
            // What came from elsewhere is here when its disk is.
            let came = matches!(server.task, Some(ServerTask::ResizeFinishing | ServerTask::RevertFinishing))
                && elsewhere(server).is_some();
            matches!(report.observed, Observed::Stopped | Observed::Ended)
                && (!came || report.incarnation == server.incarnation)
        }
        Power::Suspended => report.observed == Observed::Suspended,
    }
}

/// Whether somebody waits for the wish: a task, or an error that the node goes on working at.
fn awaited(server: &Server) -> bool {
    match server.task {
        Some(
            ServerTask::ImageSnapshot
            | ServerTask::ImageBackup
            | ServerTask::ShelvingSnapshot
            | ServerTask::ResizeCopying,
        ) => false,
        Some(ServerTask::RebuildingVolume) => server.details.rebuild.as_ref().is_some_and(|r| !r.stopped),
        Some(_) => true,
        None => {
            server.state == ServerState::Building
                || (server.state == ServerState::Error && server.fault.as_ref().is_some_and(|f| f.transient))
        }
    }
}

/// Whether somebody waits for what is no task: other hardware of a server that is left as it is.
fn pending(server: &Server) -> bool {
    server.task.is_none() && server.request_id.is_some()
}

fn figures(server: &Server, report: &ServerReport, power_state: PowerState) -> Verdict {
    let preparing = report.observed == Observed::Preparing;
    let progress = if preparing { report.progress_percent.min(99) } else { server.progress };
    let step = if preparing { report.step.clone() } else { server.details.step.clone() };
    if power_state == server.power_state && progress == server.progress && step == server.details.step {
        return Verdict::Same;
    }
    Verdict::Figures { power_state, progress, step }
}

fn failed(server: &Server, report: &ServerReport, now: Timestamp) -> Verdict {
    let told = report.fault.as_ref();
    let transient = told.is_some_and(|f| f.transient);
    let message = told.map_or(UNSAID, |f| f.message.as_str()).to_owned();
    if let (true, Some(task), Some(deadline)) = (transient, server.task, server.task_deadline) {
        let began = deadline.plus_seconds(-task.deadline_s());
        if now < began.plus_seconds(TRANSIENT_PATIENCE_S) {
            let step = Some(message);
            let changed = step != server.details.step;
            let (power_state, progress) = (server.power_state, server.progress);
            return if changed { Verdict::Figures { power_state, progress, step } } else { Verdict::Same };
        }
    }
    let known = server.task.is_none()
        && server.state == ServerState::Error
        && server.fault.as_ref().is_some_and(|f| f.message == message || !f.transient);
    if known || (server.task.is_none() && server.state == ServerState::Stopped) {
        return Verdict::Same;
    }
    let details = told.map(|f| f.details.clone()).unwrap_or_default();
    Verdict::Failed { fault: ServerFault { code: 500, message, details, at: now, transient } }
}

/// What the history calls the tasks that go on from another one.
const STEPS: &[(ServerTask, &str)] = &[
    (ServerTask::ResizeFinishing, "compute_finish_resize"),
    (ServerTask::RevertFinishing, "compute_finish_revert_resize"),
    (ServerTask::ShelvingOffloading, "compute_shelve_offload_instance"),
];

impl Engine {
    /// Takes in what a node says of its servers: tasks end, faults show, servers that are gone give back what they held.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn servers_observed(&self, node: NodeId, report: &NodeReport) -> Result<(), EngineError> {
        let ctx =
            OpCtx { actor: Actor::Node { node_id: node }, scope: Scope::System, ..OpCtx::anonymous(RequestId::new()) };
        let servers = self.store().server_list_by_node(node).await?;
        let reports: HashMap<ServerId, &ServerReport> = report.servers.iter().map(|r| (r.id, r)).collect();
        let now = Timestamp::now();
        let news: Vec<(ServerId, Option<&ServerReport>)> = servers
            .iter()
            .map(|server| (server, reports.get(&server.id).copied()))
            .filter(|(server, said)| judge(server, *said, report.spec_generation, now) != Verdict::Same)
            .map(|(server, said)| (server.id, said))
            .collect();
        for some in news.chunks(OBSERVED_AT_ONCE) {
            let written =
                some.iter().map(|(id, said)| self.news_written(&ctx, node, *id, *said, report.spec_generation));
            futures_util::future::try_join_all(written).await?;
        }
        for server in servers.iter().filter(|s| s.task == Some(ServerTask::RebuildingVolume)) {
            self.rebuild_goes_on(&ctx, server.id).await?;
        }
        self.snapshots_observed(&ctx, node, &report.snapshots).await
    }

    async fn news_written(
        &self,
        ctx: &OpCtx,
        node: NodeId,
        id: ServerId,
        said: Option<&ServerReport>,
        spec_generation: u64,
    ) -> Result<(), EngineError> {
        retried!({ self.server_observed(ctx, node, id, said, spec_generation).await })
    }

    async fn server_observed(
        &self,
        ctx: &OpCtx,
        node: NodeId,
        id: ServerId,
        report: Option<&ServerReport>,
        spec_generation: u64,
    ) -> Result<(), EngineError> {
        let now = Timestamp::now();
        let tx = self.store().begin(ctx).await?;
        let Some(mut server) = tx.server_lock(id).await? else { return Ok(()) };
        if server.node_id != Some(node) || server.deleted_at.is_some() {
            return Ok(());
        }
        let verdict = judge(&server, report, spec_generation, now);
        let held = images_held(&server);
        let mut broken = None;
        match verdict {
            Verdict::Same => return Ok(()),
            Verdict::Figures { power_state, progress, step } => {
                drop(tx);
                return self.server_figures(id, server.generation, power_state, progress, step).await;
            }
            Verdict::Gone if server.task == Some(ServerTask::ShelvingOffloading) => {
                if server.details.disk_pool.take().is_some() {
                    // What is left in the shared folder, should its node have died over it, is not taken for the next disk.
                    server.incarnation += 1;
                }
                self.server_offloaded(&tx, &mut server, now).await?;
            }
            Verdict::Gone => {
                self.server_remove_in(&tx, &mut server, compute::SERVER_OBSERVE).await?;
                tx.commit().await?;
                self.images_let_go(held, &server).await;
                self.wake().all();
                return Ok(());
            }
            Verdict::Reached { power_state, failure } => {
                self.server_reached(&tx, &mut server, power_state, failure, now).await?;
            }
            Verdict::Ended { power_state, why } => {
                self.server_ended(&tx, &mut server, power_state, why, now).await?;
            }
            Verdict::Failed { fault } if moves(&server) => {
                self.move_failed(&tx, &mut server, &fault.message, now).await?;
            }
            Verdict::Failed { fault } => {
                broken = Some(fault.message.clone());
                self.server_failed(&tx, &mut server, fault).await?;
            }
            Verdict::Settled { failure } => {
                self.server_settled(&tx, &mut server, failure.as_deref(), now).await?;
                broken = failure;
            }
        }
        self.interfaces_settled(&tx, id, broken.as_deref(), now).await?;
        let detail = json!({ "state": server.state.text(), "task": server.task.map(ServerTask::text) });
        self.server_audit(&tx, &server, compute::SERVER_OBSERVE, &detail).await?;
        tx.commit().await?;
        self.images_let_go(held, &server).await;
        match server.node_id {
            Some(now) if now == node => self.server_wake(&server),
            Some(_) | None => self.wake().all(),
        }
        tracing::info!(server.id = %id, state = %server.state, "a server changed");
        Ok(())
    }

    /// Figures are nobody's resource: no audit record.
    async fn server_figures(
        &self,
        id: ServerId,
        generation: u64,
        power_state: PowerState,
        progress: u8,
        step: Option<String>,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin_unaudited().await?;
        let Some(mut server) = tx.server_lock(id).await?.filter(|s| s.generation == generation) else {
            return Ok(());
        };
        if let Some(request) = server.request_id.filter(|_| progress > 0 || step.is_some()) {
            tx.task_progress(id.0, Some(request), None, progress, step.as_deref()).await?;
        }
        server.power_state = power_state;
        server.progress = progress;
        server.details.step = step;
        tx.server_update(&mut server).await?;
        Ok(tx.commit().await?)
    }

    async fn server_reached(
        &self,
        tx: &Tx,
        server: &mut Server,
        power_state: PowerState,
        failure: Option<String>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        server.power_state = power_state;
        server.progress = 0;
        server.details.step = None;
        server.updated_at = now;
        if server.task == Some(ServerTask::Shelving) {
            return self.shelve_snapshot(tx, server, now).await;
        }
        if server.task == Some(ServerTask::UpdatingPassword) {
            self.password_done(tx, server, failure.is_none()).await?;
        }
        if let (Some(ServerTask::RebuildingVolume), Some(rebuild)) = (server.task, &mut server.details.rebuild) {
            rebuild.stopped = true;
            tx.server_update(server).await?;
            return Ok(());
        }
        match (server.task, elsewhere(server)) {
            (Some(ServerTask::ResizeStopping), Some(_)) => return self.move_stopped(tx, server, now).await,
            (Some(ServerTask::RevertStopping), Some(_)) => return self.move_back(tx, server, now).await,
            (Some(_) | None, _) => {}
        }
        let next = match server.task {
            Some(ServerTask::ResizeStopping) => Some(ServerTask::ResizeFinishing),
            Some(ServerTask::RevertStopping) => Some(ServerTask::RevertFinishing),
            Some(_) | None => None,
        };
        if let Some(task) = next {
            flavors_swap(server);
            return self.server_wish_on(tx, server, task, now).await;
        }
        let event = match (server.task, server.power) {
            (Some(ServerTask::ResizeFinishing), _) => ServerEvent::Resized,
            (_, Power::Running) if server.details.rescue.is_some() => ServerEvent::RescueSeen,
            (_, Power::Running) => ServerEvent::Started,
            (_, Power::Stopped) => ServerEvent::StopSeen,
            (_, Power::Paused) => ServerEvent::PauseSeen,
            (_, Power::Suspended) => ServerEvent::SuspendSeen,
        };
        let Ok(state) = server.state.after(event) else {
            return self.server_settled(tx, server, failure.as_deref(), now).await;
        };
        if server.details.resize.is_some() && state != ServerState::Resized {
            self.resize_settle(tx, server).await?;
        }
        if event == ServerEvent::Started {
            self.shelved_image_remove(tx, server).await?;
        }
        self.migration_moved(tx, server, event).await?;
        server.state = state;
        server.fault = None;
        if event == ServerEvent::Started && server.launched_at.is_none() {
            server.launched_at = Some(now);
        }
        self.server_settled(tx, server, failure.as_deref(), now).await
    }

    /// The next step of a task: it keeps the request that it began with.
    pub(super) async fn server_wish_on(
        &self,
        tx: &Tx,
        server: &mut Server,
        task: ServerTask,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let step = STEPS.iter().find(|(step, _)| *step == task);
        if let (Some(request), Some((_, event))) = (server.request_id, step) {
            tx.server_action_step(server.id, request, event, now).await?;
        }
        server.version += 1;
        server.task = Some(task);
        server.task_deadline = Some(now.plus_seconds(task.deadline_s()));
        self.server_touch(tx, server).await?;
        tx.server_update(server).await?;
        Ok(())
    }

    async fn server_ended(
        &self,
        tx: &Tx,
        server: &mut Server,
        power_state: PowerState,
        why: Option<String>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let never_ran = server.state == ServerState::Building;
        if let (true, Some(message)) = (never_ran, &why) {
            let fault =
                ServerFault { code: 500, message: message.clone(), details: String::new(), at: now, transient: false };
            return self.server_failed(tx, server, fault).await;
        }
        server.power_state = power_state;
        server.power = Power::Stopped;
        server.version += 1;
        server.updated_at = now;
        server.details.rescue = None;
        if never_ran {
            server.launched_at = Some(now);
        }
        if let Ok(state) = server.state.after(ServerEvent::StopSeen) {
            if server.details.resize.is_some() {
                self.resize_settle(tx, server).await?;
            }
            server.state = state;
        }
        self.server_touch(tx, server).await?;
        let failure = server.task.map(|_| why.unwrap_or_else(|| "The guest powered itself off.".into()));
        self.server_settled(tx, server, failure.as_deref(), now).await
    }

    pub(super) async fn server_failed(
        &self,
        tx: &Tx,
        server: &mut Server,
        fault: ServerFault,
    ) -> Result<(), EngineError> {
        let now = fault.at;
        let message = fault.message.clone();
        tracing::warn!(server.id = %server.id, fault = %message, details = %fault.details, "a server failed");
        if let Ok(state) = server.state.after(ServerEvent::Failed) {
            server.state = state;
        }
        if matches!(server.task, Some(ServerTask::Shelving | ServerTask::ShelvingSnapshot)) {
            self.shelve_give_up(tx, server).await?;
        }
        if server.task == Some(ServerTask::UpdatingPassword) {
            self.password_done(tx, server, false).await?;
        }
        self.rebuild_give_up(tx, server).await?;
        self.migration_moved(tx, server, ServerEvent::Failed).await?;
        server.fault = Some(fault);
        server.updated_at = now;
        server.details.step = None;
        self.server_settled(tx, server, Some(&message), now).await
    }

    /// Ends the task that is under way, writes the row and closes the entry in the history.
    pub(super) async fn server_settled(
        &self,
        tx: &Tx,
        server: &mut Server,
        failure: Option<&str>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let copying = matches!(
            server.task,
            Some(ServerTask::ImageSnapshot | ServerTask::ImageBackup | ServerTask::ShelvingSnapshot)
        );
        let snapshot = copying && failure.is_none();
        if !snapshot {
            if let Some(request) = server.request_id.take() {
                tx.server_action_finish(server.id, request, now, failure).await?;
            }
            server.task = None;
            server.task_deadline = None;
        }
        tx.server_update(server).await?;
        Ok(())
    }
}
