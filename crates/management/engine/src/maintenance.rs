//! Draining a node and bringing its servers back: a plan of the whole first, then moves, a few at a time.
//!
//! ```text
//!  POST drain --one transaction--> the node takes no servers; the task; a row for each server, its room claimed elsewhere
//!  drains_step, again and again:   a row that waits --> a live migration with that room --> moved, or tried again
//! ```
//! All of it is rows, so whoever looks next goes on where it stopped, also after the server was killed. A server whose move
//! fails runs on where it is: nothing here stops a guest.

mod plan;

pub(crate) use plan::Rates;

use crate::servers::retried;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Node, Relocation, Task, TaskFilter, Tx};
use arcus_types::policy::{Target, arcus, authorize};
use arcus_types::tasks::{RelocationState, TaskState};
use arcus_types::{MigrationId, Name, NodeId, OpCtx, RequestId, TaskId, Timestamp};
use serde_json::json;

/// The kinds of tasks that are worked at here.
const KINDS: &[&str] = &["drain", "restore"];
/// Moves at the same time unless told otherwise.
const PARALLEL: u32 = 2;
/// The same between nodes that emulate processors: QEMU before 9.0 loses writes of emulated guests that move, the more the
/// longer it takes, and two at once take twice as long.
const PARALLEL_EMULATED: u32 = 1;
/// Moves at the same time at the most.
pub const PARALLEL_MAX: u32 = 16;
/// How often a server is tried before it is reported as one that cannot move.
const ATTEMPTS_MAX: u32 = 3;
/// A server is tried again after so long, in seconds.
const AGAIN_S: i64 = 5;
/// A server that is busy with something else is waited for so long in all, by attempts of their own.
const BUSY_S: i64 = 300;
/// Drains and restorations that are looked at in one step.
const TASKS_MAX: u64 = 64;

/// How a drain is done.
#[derive(Debug, Clone)]
pub struct DrainWish {
    /// Moves at the same time; `None` leaves it to us.
    pub parallel: Option<u32>,
    /// It is given up after so long, in seconds.
    pub deadline_s: Option<i64>,
    /// Only say what would be done.
    pub plan_only: bool,
}

/// A drain or a restoration: the task, its node and its servers.
#[derive(Debug, Clone)]
pub struct Maintenance {
    /// The task; of a plan alone, one that is not recorded.
    pub task: Task,
    /// The servers, in their order, with the names of the nodes that they go to.
    pub servers: Vec<(Relocation, Option<Name>)>,
}

/// Where a server shall go.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LivePlace {
    /// Rather here: the caller has just given back the room that it kept for the server on this node.
    pub first: Option<NodeId>,
    /// Only here.
    pub only: Option<NodeId>,
}

/// A move that has begun.
pub(crate) struct LiveBegun {
    /// Its id.
    pub migration: MigrationId,
    /// The node that the server goes to.
    pub target: NodeId,
}

fn no_node(name: &str) -> EngineError {
    EngineError::not_found("NodeNotFound", "Node", name)
}

/// How much is over, in percent, and how it all ended once nothing is left to do.
fn judged(rows: &[Relocation]) -> (u8, Option<Result<(), String>>) {
    use RelocationState as S;
    let open = rows.iter().filter(|row| matches!(row.state, S::Waiting | S::Moving)).count();
    let percent = (rows.len() - open) * 100 / rows.len().max(1);
    let percent = u8::try_from(percent).unwrap_or(100);
    if open > 0 {
        return (percent.min(99), None);
    }
    let left: Vec<String> = rows
        .iter()
        .filter(|row| matches!(row.state, S::Failed | S::Blocked))
        .map(|row| format!("{} ({})", row.name, row.reason.as_deref().unwrap_or("it did not say why")))
        .collect();
    let ended = if left.is_empty() {
        Ok(())
    } else {
        let shown = left.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        Err(format!("{} of {} servers could not be moved and run where they were: {shown}", left.len(), rows.len()))
    };
    (percent, Some(ended))
}

impl Engine {
    /// Takes all servers of a node elsewhere while they run, and lets no new ones come; or only says how that would be done.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`], [`EngineError::Conflict`] while the node is drained or restored
    /// already, or a refusal.
    pub async fn node_drain(&self, ctx: &OpCtx, name: &str, wish: &DrainWish) -> Result<Maintenance, EngineError> {
        authorize(ctx, arcus::NODE_DRAIN, &Target::default())?;
        if wish.parallel.is_some_and(|parallel| !(1..=PARALLEL_MAX).contains(&parallel)) {
            return Err(EngineError::invalid(format!("parallel must be from 1 to {PARALLEL_MAX}")));
        }
        if wish.deadline_s.is_some_and(|s| !(1..=7 * 24 * 3600).contains(&s)) {
            return Err(EngineError::invalid("deadline_s must be from 1 to 604800 seconds"));
        }
        self.fleet_refresh().await?;
        retried!({
            let tx = self.store().begin(ctx).await?;
            let node = tx.node_by_name(name).await?.ok_or_else(|| no_node(name))?;
            // From here on nothing new comes to it, and whoever drains it, too, waits.
            tx.node_enable(node.id, false, Some("it is drained for maintenance")).await?;
            self.maintenance_free(&tx, &node).await?;
            let task = maintenance_task(ctx, &node, "drain", parallel(wish, &node), wish.deadline_s);
            let rows = self.drain_plan(&tx, &task, &node).await?;
            self.maintenance_begun(tx, task, rows, wish.plan_only).await
        })
    }

    /// Lets servers come to a node again and brings back those that its last drain took away.
    ///
    /// # Errors
    /// As [`Engine::node_drain`].
    pub async fn node_restore(&self, ctx: &OpCtx, name: &str, wish: &DrainWish) -> Result<Maintenance, EngineError> {
        authorize(ctx, arcus::NODE_RESTORE, &Target::default())?;
        if wish.parallel.is_some_and(|parallel| !(1..=PARALLEL_MAX).contains(&parallel)) {
            return Err(EngineError::invalid(format!("parallel must be from 1 to {PARALLEL_MAX}")));
        }
        self.fleet_refresh().await?;
        retried!({
            let tx = self.store().begin(ctx).await?;
            let node = tx.node_by_name(name).await?.ok_or_else(|| no_node(name))?;
            tx.node_enable(node.id, true, None).await?;
            self.maintenance_free(&tx, &node).await?;
            let task = maintenance_task(ctx, &node, "restore", parallel(wish, &node), wish.deadline_s);
            let filter = TaskFilter { resource_id: Some(node.id.0), limit: 20, ..TaskFilter::default() };
            let last = tx.task_list(&filter).await?.into_iter().find(|task| KINDS.contains(&task.kind.as_str()));
            let away = match last {
                Some(last) if last.kind == "drain" => tx.relocation_list(last.id).await?,
                Some(_) | None => Vec::new(),
            };
            let rows = self.restore_plan(&tx, &task, &node, &away).await?;
            self.maintenance_begun(tx, task, rows, wish.plan_only).await
        })
    }

    async fn maintenance_free(&self, tx: &Tx, node: &Node) -> Result<(), EngineError> {
        let active = tx.task_list_active(KINDS, TASKS_MAX).await?;
        match active.iter().find(|task| task.resource_id == node.id.0) {
            None if active.len() < usize::try_from(TASKS_MAX).unwrap_or(usize::MAX) => Ok(()),
            None => Err(EngineError::conflict("Too many nodes are drained or restored: wait until one is done.")),
            Some(task) => Err(EngineError::Conflict {
                code: "NodeInMaintenance",
                message: format!(
                    "Node {} has a {} under way: wait for task {}, or cancel it.",
                    node.name, task.kind, task.id
                ),
            }),
        }
    }

    /// Records what was planned, unless only the plan is wanted: then the transaction ends without a trace.
    async fn maintenance_begun(
        &self,
        tx: Tx,
        mut task: Task,
        rows: Vec<Relocation>,
        plan_only: bool,
    ) -> Result<Maintenance, EngineError> {
        (task.progress, _) = judged(&rows);
        let mut servers = Vec::with_capacity(rows.len());
        for row in rows {
            let target = match row.target_id {
                Some(id) => tx.node_get(id).await?.map(|node| node.name),
                None => None,
            };
            servers.push((row, target));
        }
        if plan_only {
            return Ok(Maintenance { task, servers });
        }
        tx.task_insert(&task).await?;
        for (row, _) in &servers {
            tx.relocation_insert(row).await?;
        }
        let action = if task.kind == "drain" { arcus::NODE_DRAIN } else { arcus::NODE_RESTORE };
        self.maintenance_audit(&tx, &task, action, "begun").await?;
        tx.commit().await?;
        self.wake().maintenance();
        tracing::info!(node.name = %task.resource_name, task.id = %task.id, kind = %task.kind, "maintenance began");
        Ok(Maintenance { task, servers })
    }

    async fn maintenance_audit(
        &self,
        tx: &Tx,
        task: &Task,
        action: arcus_types::policy::Action,
        what: &str,
    ) -> Result<(), EngineError> {
        tx.audit(AuditEntry {
            action,
            kind: "node",
            id: task.resource_id.to_string(),
            project_id: None,
            detail: &json!({ "task": task.id, "what": what, "state": task.state.text() }),
        })
        .await?;
        Ok(())
    }

    /// A drain or a restoration as it is now.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn maintenance(&self, ctx: &OpCtx, id: TaskId) -> Result<Maintenance, EngineError> {
        authorize(ctx, arcus::NODE_DRAIN, &Target::default())?;
        let task = self.task(ctx, id).await?;
        let mut servers = Vec::new();
        let nodes = self.store().node_list().await?;
        for row in self.store().relocation_list(id).await? {
            let target = nodes.iter().find(|node| Some(node.id) == row.target_id).map(|node| node.name.clone());
            servers.push((row, target));
        }
        Ok(Maintenance { task, servers })
    }

    /// Asks to end a drain or a restoration: what has moved stays moved, what is on its way is given up where that is still
    /// possible, and the node stays as it is.
    pub(crate) async fn maintenance_cancel(&self, ctx: &OpCtx, id: TaskId) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        if let Some(mut task) = tx.task_lock(id).await?.filter(|task| task.state.is_active()) {
            task.cancel = true;
            task.step = Some("giving up".to_owned());
            tx.task_update(&task).await?;
            self.maintenance_audit(&tx, &task, arcus::TASK_CANCEL, "cancel").await?;
            tx.commit().await?;
            self.wake().maintenance();
        }
        Ok(())
    }

    /// Moves every drain and restoration on by what is possible now; how many are under way. To be called when a move has
    /// ended, and now and then.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn maintenance_step(&self, now: Timestamp) -> Result<usize, EngineError> {
        let active = self.store().task_list_active(KINDS, TASKS_MAX).await?;
        for task in &active {
            self.maintenance_task_step(task, now).await?;
        }
        Ok(active.len())
    }

    async fn maintenance_task_step(&self, task: &Task, now: Timestamp) -> Result<(), EngineError> {
        let rows = self.store().relocation_list(task.id).await?;
        let parallel = task.detail["parallel"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
        let over = task.cancel || task.deadline.is_some_and(|at| at <= now);
        let mut moving = 0;
        for row in rows.iter().filter(|row| row.state == RelocationState::Moving) {
            let ctx = background();
            moving += usize::from(retried!({ self.relocation_watched(&ctx, task, row, over, now).await })?);
        }
        let waits = |row: &&Relocation| row.state == RelocationState::Waiting && (over || row.not_before <= now);
        for row in self.store().relocation_list(task.id).await?.iter().filter(waits) {
            if over {
                retried!({ self.relocation_given_up(&background(), task, row).await })?;
            } else if moving < parallel {
                self.fleet_refresh().await?;
                let tried = self.relocation_tried(task, row, now).await;
                moving += usize::from(match tried {
                    Ok(begun) => begun,
                    Err(EngineError::Store(error)) => return Err(error.into()),
                    Err(why) => {
                        retried!({ self.relocation_failed(&background(), task, row, &why.to_string(), now).await })?;
                        false
                    }
                });
            }
        }
        retried!({ self.maintenance_judged(&background(), task, now).await })
    }

    /// Looks how a move went that is under way; whether it still is.
    async fn relocation_watched(
        &self,
        ctx: &OpCtx,
        task: &Task,
        row: &Relocation,
        over: bool,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        let live = self.store().live_migration_of(row.server_id).await?;
        if live.is_some_and(|live| Some(live.id) == row.migration_id) {
            if over {
                self.live_cancel_if_possible(ctx, row.server_id).await?;
            }
            return Ok(true);
        }
        let told = match row.migration_id {
            Some(id) => self.store().move_figures(id).await?,
            None => None,
        };
        let tx = self.store().begin(ctx).await?;
        if !self.relocation_held(&tx, task, row).await? {
            return Ok(false);
        }
        let mut next = row.clone();
        match told {
            Some(told) if told.status == "completed" => {
                next.state = RelocationState::Moved;
                next.reason = None;
                next.measured_ms = Some(told.figures.total_ms);
                next.measured_blackout_ms = Some(told.figures.downtime_ms);
            }
            other => {
                // Its room was given back when the move ended.
                let status = other.map_or_else(|| "forgotten".to_owned(), |told| told.status);
                next.reason = Some(format!("its move was {status}; the server's history says why"));
                next.state = match (over, next.attempts >= ATTEMPTS_MAX) {
                    (true, _) => RelocationState::Cancelled,
                    (false, true) => RelocationState::Failed,
                    (false, false) => RelocationState::Waiting,
                };
                next.not_before = now.plus_seconds(AGAIN_S);
            }
        }
        tx.relocation_update(&next).await?;
        self.maintenance_audit(&tx, task, arcus::NODE_DRAIN, next.state.text()).await?;
        tx.commit().await?;
        Ok(false)
    }

    /// Whether a row is as it was read, with its task held until the transaction ends.
    async fn relocation_held(&self, tx: &Tx, task: &Task, row: &Relocation) -> Result<bool, EngineError> {
        if tx.task_lock(task.id).await?.is_none_or(|task| !task.state.is_active()) {
            return Ok(false);
        }
        Ok(tx.relocation_list(task.id).await?.iter().any(|now| now == row))
    }

    /// Begins the move of a server that waits; `false` if it is not there to be moved any more.
    async fn relocation_tried(&self, task: &Task, row: &Relocation, now: Timestamp) -> Result<bool, EngineError> {
        // Each move is a request of its own: the server's history and its task are known by it.
        let ctx = background();
        retried!({
            let tx = self.store().begin(&ctx).await?;
            if !self.relocation_held(&tx, task, row).await? {
                return Ok(false);
            }
            let mut next = row.clone();
            let server = tx.server_lock(row.server_id).await?.filter(|server| server.deleted_at.is_none());
            let Some(mut server) = server.filter(|server| server.node_id == Some(row.source_id)) else {
                self.relocation_release(&tx, &mut next).await?;
                next.state = RelocationState::Gone;
                next.reason = Some("it left the node, or was deleted, by itself".to_owned());
                tx.relocation_update(&next).await?;
                self.maintenance_audit(&tx, task, arcus::NODE_DRAIN, "gone").await?;
                tx.commit().await?;
                return Ok(false);
            };
            if server.task.is_some() && now < task.created_at.plus_seconds(BUSY_S) {
                return Ok(false);
            }
            // Its own claim makes room for the move's, in the same transaction: nobody can come between.
            self.relocation_release(&tx, &mut next).await?;
            let only = (task.kind == "restore").then_some(NodeId(task.resource_id));
            let place = LivePlace { first: row.target_id, only };
            let begun = self.live_begin_for(&tx, &ctx, &mut server, &place, task.id).await?;
            next.state = RelocationState::Moving;
            next.reason = None;
            next.attempts += 1;
            next.migration_id = Some(begun.migration);
            next.target_id = Some(begun.target);
            tx.relocation_update(&next).await?;
            tx.commit().await?;
            self.wake().all();
            Ok(true)
        })
    }

    /// Notes that a move could not begin.
    async fn relocation_failed(
        &self,
        ctx: &OpCtx,
        task: &Task,
        row: &Relocation,
        why: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        if !self.relocation_held(&tx, task, row).await? {
            return Ok(());
        }
        let mut next = row.clone();
        next.attempts += 1;
        next.reason = Some(why.to_owned());
        next.not_before = now.plus_seconds(AGAIN_S);
        if next.attempts >= ATTEMPTS_MAX {
            next.state = RelocationState::Failed;
            self.relocation_release(&tx, &mut next).await?;
        }
        tx.relocation_update(&next).await?;
        self.maintenance_audit(&tx, task, arcus::NODE_DRAIN, "failed").await?;
        Ok(tx.commit().await?)
    }

    async fn relocation_given_up(&self, ctx: &OpCtx, task: &Task, row: &Relocation) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        if !self.relocation_held(&tx, task, row).await? {
            return Ok(());
        }
        let mut next = row.clone();
        self.relocation_release(&tx, &mut next).await?;
        next.state = RelocationState::Cancelled;
        tx.relocation_update(&next).await?;
        self.maintenance_audit(&tx, task, arcus::NODE_DRAIN, "cancelled").await?;
        Ok(tx.commit().await?)
    }

    /// Gives back the room that a row keeps. The caller writes the row.
    async fn relocation_release(&self, tx: &Tx, row: &mut Relocation) -> Result<(), EngineError> {
        if let (true, Some(target)) = (row.reserved, row.target_id) {
            tx.node_release(target, row.vcpus, row.memory_mib, row.disk_gib).await?;
        }
        row.reserved = false;
        Ok(())
    }

    /// Writes how far it is, and its end.
    async fn maintenance_judged(&self, ctx: &OpCtx, task: &Task, now: Timestamp) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let Some(mut now_is) = tx.task_lock(task.id).await?.filter(|task| task.state.is_active()) else {
            return Ok(());
        };
        let rows = tx.relocation_list(task.id).await?;
        let (progress, ended) = judged(&rows);
        let moved = rows.iter().filter(|row| row.state == RelocationState::Moved).count();
        let step = if now_is.cancel { "giving up".to_owned() } else { format!("{moved} of {} moved", rows.len()) };
        if ended.is_none() && now_is.progress == progress && now_is.step.as_deref() == Some(step.as_str()) {
            return Ok(());
        }
        (now_is.progress, now_is.step) = (progress, Some(step));
        if let Some(ended) = ended {
            now_is.finished_at = Some(now);
            let late = rows.iter().any(|row| row.state == RelocationState::Cancelled);
            (now_is.state, now_is.error) = match (ended, now_is.cancel, late) {
                (_, true, _) => (TaskState::Cancelled, Some("It was given up.".to_owned())),
                (_, false, true) => (TaskState::Failed, Some("Its deadline came before all had moved.".to_owned())),
                (Err(why), false, false) => (TaskState::Failed, Some(why)),
                (Ok(()), false, false) => (TaskState::Done, None),
            };
        }
        tx.task_update(&now_is).await?;
        self.maintenance_audit(&tx, &now_is, arcus::NODE_DRAIN, "looked at").await?;
        tx.commit().await?;
        if now_is.state != task.state {
            tracing::info!(task.id = %task.id, node.name = %task.resource_name, state = %now_is.state, "maintenance ended");
        }
        Ok(())
    }
}

/// What goes on by itself is a request of its own.
fn background() -> OpCtx {
    OpCtx { request_id: RequestId::new(), ..OpCtx::system() }
}

/// How many servers move at the same time.
fn parallel(wish: &DrainWish, node: &Node) -> u32 {
    let usual = if node.facts.accel == "tcg" { PARALLEL_EMULATED } else { PARALLEL };
    wish.parallel.unwrap_or(usual)
}

fn maintenance_task(ctx: &OpCtx, node: &Node, kind: &str, parallel: u32, deadline_s: Option<i64>) -> Task {
    let now = Timestamp::now();
    Task {
        id: TaskId::new(),
        kind: kind.to_owned(),
        parent_id: None,
        resource_kind: "node".to_owned(),
        resource_id: node.id.0,
        resource_name: node.name.to_string(),
        project_id: None,
        user_id: ctx.user_id(),
        request_id: ctx.request_id,
        state: TaskState::Running,
        step: Some("planned".to_owned()),
        steps: Vec::new(),
        progress: 0,
        error: None,
        priority: 0,
        deadline: deadline_s.map(|s| now.plus_seconds(s)),
        cancel: false,
        detail: json!({ "parallel": parallel }),
        created_at: now,
        started_at: Some(now),
        finished_at: None,
        updated_at: now,
    }
}
