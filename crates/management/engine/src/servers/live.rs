//! Servers that go to another node while they run: asked for, followed, given up, and ended exactly once.
//!
//! ```text
//!  asked --> preparing --> running --> switching --> completed     the server's row moves, its epoch rises
//!                |            |            |
//!                |  cancel    |  cancel    |  the destination has lost it: the source gets it back
//!                +------------+------------+--> cancelled, failed  the server's row stays as it is
//! ```
//! The row in `live_migrations` is the durable record; both nodes learn from their specs what to do and say in their
//! reports how far they are. [`decide`] is pure. Whose guest it is stands in the server's row alone, and changes in the
//! one transaction that ends the move: as long as the row names the source, only the source may run it again.

mod asked;
mod checks;
mod room;

pub use asked::{LiveMigrationAsked, LiveMigrationPlan, Prediction};
pub use checks::Blocker;

use super::create::needs_of;
use super::{admit, retried};
use crate::{Engine, EngineError};
use arcus_placement::Around;
use arcus_store::{LiveMigration, LiveProgress, Node, Server, ServerMigration, Tx};
use arcus_types::agent::{
    FLOWS_MAX, MigrationPart, MigrationReport, MigrationSpec, MigrationStage, NodeReport, OutgoingOrder,
};
use arcus_types::clusters;
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::servers::{ServerRequest, ServerTask};
use arcus_types::tasks::TaskState;
use arcus_types::{Actor, MigrationId, NodeId, OpCtx, RequestId, Scope, ServerId, Timestamp};
use serde_json::json;
use std::collections::HashMap;

/// How long a guest may stand still unless told otherwise, in milliseconds.
const DOWNTIME_MS_MAX: u32 = 300;
/// A source that says nothing for so long after the destination has the guest is not waited for, in seconds.
const SOURCE_SILENT_S: i64 = 10;

/// A destination whose source's guest has ended says within so long whether it has it, in seconds.
const GONE_S: i64 = 60;
/// How long a move that took too long may take to be given up, in seconds.
const OVERDUE_S: i64 = 600;
const GUEST_ENDED: &str = "The guest ended before it could move.";

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct LiveMigrationWish {
    /// The node to go to, by name.
    pub node: Option<String>,
    /// Whether disks are to be copied; `None` leaves it to us.
    pub block: Option<bool>,
    /// How long the guest may stand still at the most, in milliseconds; `None` lets us choose, and exceed it rather than never end.
    pub blackout_ms_max: Option<u32>,
    /// The move is given up after so long, in seconds.
    pub deadline_s: Option<i64>,
}

/// A move as clients see it: its history's record and how far it is.
#[derive(Debug, Clone)]
pub struct LiveMigrationView {
    /// The record.
    pub record: ServerMigration,
    /// How far it is.
    pub progress: LiveProgress,
}

/// Which node says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// What follows from a report.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Nothing new.
    Same,
    /// Only figures changed.
    Figures,
    /// It has come further; both nodes may have something to do.
    Further,
    /// The guest is at the destination.
    Completed,
    /// The guest stays at the source, as was asked.
    Cancelled,
    /// The guest stays at the source.
    Failed(String),
}

/// What a report means; notes it in `progress`.
fn decide(progress: &mut LiveProgress, end: End, report: &MigrationReport) -> Verdict {
    let before = progress.clone();
    if end == End::Source && report.figures != Default::default() {
        progress.figures = report.figures;
    }
    match (end, &report.stage) {
        (End::Source, MigrationStage::Waiting(layout)) => progress.layout = Some(layout.clone()),
        (End::Source, MigrationStage::Sending) => {}
        (End::Source, MigrationStage::Ready) => {
            if !progress.ready {
                progress.flows = report.flows.iter().take(FLOWS_MAX).cloned().collect();
            }
            progress.ready = true;
        }
        (End::Source, MigrationStage::Switching) => (progress.ready, progress.switching) = (true, true),
        (End::Source, MigrationStage::Moved) => (progress.switching, progress.moved) = (true, true),
        (End::Source, MigrationStage::Ended) => progress.gone = true,
        (End::Source, MigrationStage::Cancelled) => {
            return match progress.lost.clone() {
                Some(why) => Verdict::Failed(why),
                None => Verdict::Cancelled,
            };
        }
        (End::Source, MigrationStage::Failed { message }) => {
            return Verdict::Failed(progress.lost.clone().unwrap_or_else(|| message.clone()));
        }
        (End::Destination, MigrationStage::Preparing) => {}
        (End::Destination, MigrationStage::Listening(place)) => progress.place = Some(*place),
        (End::Destination, MigrationStage::Open(place)) => {
            (progress.place, progress.open) = (Some(*place), true);
        }
        (End::Destination, MigrationStage::Arrived) => progress.arrived = true,
        (End::Destination, MigrationStage::Failed { message }) => {
            if progress.lost.is_none() && !progress.arrived {
                progress.lost = Some(message.clone());
            }
        }
        // Words of the other end mean nothing from this one.
        (
            End::Source,
            MigrationStage::Preparing
            | MigrationStage::Listening(_)
            | MigrationStage::Open(_)
            | MigrationStage::Arrived,
        )
        | (
            End::Destination,
            MigrationStage::Waiting(_)
            | MigrationStage::Sending
            | MigrationStage::Ready
            | MigrationStage::Switching
            | MigrationStage::Moved
            | MigrationStage::Ended
            | MigrationStage::Cancelled,
        ) => {}
    }
    if progress.arrived && (progress.moved || progress.gone) {
        return Verdict::Completed;
    }
    if progress.gone && (progress.place.is_none() || progress.lost.is_some()) {
        return Verdict::Failed(progress.lost.clone().unwrap_or_else(|| GUEST_ENDED.to_owned()));
    }
    if *progress == before {
        Verdict::Same
    } else if (LiveProgress { figures: before.figures, ..progress.clone() }) == before {
        Verdict::Figures
    } else {
        Verdict::Further
    }
}

/// What the source shall do.
fn order(progress: &LiveProgress) -> OutgoingOrder {
    match (progress.place, progress.moved) {
        (_, true) if progress.lost.is_some() => OutgoingOrder::Return,
        _ if progress.lost.is_some() || progress.cancel => OutgoingOrder::Cancel,
        (Some(place), _) if progress.ready && progress.open => OutgoingOrder::Switch(place),
        (Some(place), _) => OutgoingOrder::Go(place),
        (None, _) => OutgoingOrder::Wait,
    }
}

/// Whether its deadline has passed and it can still be given up.
fn is_late(progress: &LiveProgress, now: Timestamp) -> bool {
    progress.deadline.is_some_and(|at| at <= now) && !progress.cancel && !progress.switching && !progress.arrived
}

/// How far it is, in the compute API's words.
pub(crate) fn status(progress: &LiveProgress) -> &'static str {
    if progress.moved || progress.arrived {
        "post-migrating"
    } else if progress.cancel {
        "cancelling"
    } else if progress.place.is_some() {
        "running"
    } else if progress.layout.is_some() {
        "preparing"
    } else {
        "accepted"
    }
}

/// Why a guest of one node cannot run on another, if so.
pub(super) fn unlike(source: &Node, dest: &Node) -> Option<String> {
    clusters::unlike(&source.facts, &dest.facts).into_iter().next().map(|first| first.message)
}

/// Notes in the task how far a move is.
async fn live_progress(tx: &Tx, live: &LiveMigration) -> Result<(), EngineError> {
    let figures = &live.progress.figures;
    let all = figures.memory_total.saturating_add(figures.disk_total);
    let done = figures.memory_total.saturating_sub(figures.memory_remaining).saturating_add(figures.disk_sent);
    // Before anything was sent nothing is known to remain.
    let begun = figures.memory_sent > 0 || figures.disk_sent > 0;
    let percent = if begun && all > 0 { (u128::from(done) * 100 / u128::from(all)).min(99) } else { 0 };
    let percent = u8::try_from(percent).unwrap_or(99);
    let step = status(&live.progress);
    Ok(tx.task_progress(live.server_id.0, None, Some("live-migration"), percent, Some(step)).await?)
}

fn refused(message: impl Into<String>) -> EngineError {
    EngineError::Invalid { code: "MigrationPreCheckError", message: message.into() }
}

impl Engine {
    /// Sends a server to another node while it runs.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, [`EngineError::Invalid`] with what is in the way,
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn server_migrate_live(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        wish: &LiveMigrationWish,
    ) -> Result<(), EngineError> {
        authorize(ctx, compute::SERVER_MIGRATE, &Target::default())?;
        self.fleet_refresh().await?;
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_MIGRATE, id).await?;
            admit(ctx, &server, ServerRequest::LiveMigrate)?;
            let source = self.live_source(&tx, &server, wish).await?;
            let dest = self.live_destination(&tx, &server, &source, wish.node.clone(), Around::default()).await?;
            self.live_begin(&tx, &mut server, &source, &dest, wish).await?;
            tx.commit().await?;
            self.wake().all();
            Ok(())
        })
    }

    /// The node that the server goes to, with its room claimed. `known` is what the caller knows of nodes beyond the fleet.
    pub(super) async fn live_destination(
        &self,
        tx: &Tx,
        server: &Server,
        source: &Node,
        node: Option<String>,
        known: Around,
    ) -> Result<Node, EngineError> {
        let group = self.group_of(tx, server).await?;
        let found = self.around_without(tx, server, group.as_ref()).await?;
        let mut around = Around { group_members: found.group_members, unsuited: self.unlike_nodes(source), ..known };
        let needs = needs_of(server, node);
        let placed = self.node_claimed(tx, &needs, group.as_ref(), &mut around).await?;
        let chosen = match &placed.node {
            Some(chosen) => tx.node_get(chosen.node_id).await?,
            None => None,
        };
        self.placement_recorded(tx, server.id, "live-migration", &placed).await?;
        chosen.ok_or_else(|| EngineError::Invalid {
            code: "NoValidHost",
            message: format!("No valid host was found. {}", placed.decision.explanation()),
        })
    }

    /// Where a guest of this node cannot go while it runs, and why.
    pub(super) fn unlike_nodes(&self, source: &Node) -> HashMap<NodeId, String> {
        let unlike = |node: &Node| match node.id == source.id {
            true => Some("the server is there now".to_owned()),
            false => unlike(source, node),
        };
        self.fleet_known(usize::MAX, |member| {
            let node = member.node.as_ref()?;
            Some((node.id, unlike(node)?))
        })
        .into_iter()
        .collect()
    }

    pub(super) async fn live_begin(
        &self,
        tx: &Tx,
        server: &mut Server,
        source: &Node,
        dest: &Node,
        wish: &LiveMigrationWish,
    ) -> Result<MigrationId, EngineError> {
        let now = Timestamp::now();
        let id = MigrationId::new();
        let flavor = server.flavor.id.to_string();
        tx.server_migration_insert(&ServerMigration {
            id,
            number: 0,
            server_id: server.id,
            project_id: server.project_id,
            user_id: tx.ctx().user_id(),
            kind: "live-migration".to_owned(),
            status: "accepted".to_owned(),
            source_node: source.name.to_string(),
            dest_node: dest.name.to_string(),
            old_flavor: flavor.clone(),
            new_flavor: flavor,
            created_at: now,
            updated_at: now,
        })
        .await?;
        tx.live_migration_insert(&LiveMigration {
            id,
            server_id: server.id,
            source_id: source.id,
            dest_id: dest.id,
            key: hex::encode(rand::random::<[u8; 32]>()),
            vcpus: server.vcpus,
            memory_mib: server.memory_mib,
            disk_gib: server.disk_gib,
            progress: LiveProgress {
                downtime_ms_max: wish.blackout_ms_max.unwrap_or(DOWNTIME_MS_MAX),
                downtime_strict: wish.blackout_ms_max.is_some(),
                deadline: wish.deadline_s.map(|seconds| now.plus_seconds(seconds)),
                ..LiveProgress::default()
            },
            created_at: now,
            updated_at: now,
        })
        .await?;
        let detail = json!({ "migration": id, "source": source.name, "destination": dest.name });
        let event = Some("compute_live_migration");
        self.server_record(tx, server, compute::SERVER_MIGRATE, "live-migration", event, &detail).await?;
        self.live_touch(tx, server.id, &[dest.id]).await?;
        self.server_wish(tx, server, Some(ServerTask::Migrating)).await?;
        Ok(id)
    }

    /// Tells these nodes, and all that carry a network of the server's.
    async fn live_touch(&self, tx: &Tx, server: ServerId, nodes: &[NodeId]) -> Result<(), EngineError> {
        let ports = tx.port_list_by_servers(&[server]).await?;
        let networks: std::collections::BTreeSet<_> = ports.iter().map(|port| port.network_id).collect();
        tx.nodes_touch_by_networks(&networks.into_iter().collect::<Vec<_>>()).await?;
        for node in nodes {
            tx.node_touch(*node).await?;
        }
        Ok(())
    }

    /// A server's live migration that is under way, as clients see it; none or one.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_migrations_live(
        &self,
        ctx: &OpCtx,
        id: ServerId,
    ) -> Result<Option<LiveMigrationView>, EngineError> {
        authorize(ctx, compute::SERVER_MIGRATIONS, &Target::default())?;
        self.server_seen(self.store(), ctx, compute::SERVER_MIGRATIONS, id, false).await?;
        let Some(live) = self.store().live_migration_of(id).await? else { return Ok(None) };
        let record = self.store().server_migration_get(live.id).await?;
        Ok(record.map(|record| LiveMigrationView {
            record: ServerMigration { status: status(&live.progress).to_owned(), ..record },
            progress: live.progress,
        }))
    }

    /// Gives a live migration up, or lets its guest stand still for as long as it takes. `number` is how the compute API
    /// calls it; one that has not begun to move its guest is given up only if `early`.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] if it is too late, [`EngineError::NotFound`], or a refusal.
    pub async fn server_migration_change(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        number: u64,
        force: bool,
        early: bool,
    ) -> Result<(), EngineError> {
        authorize(ctx, compute::SERVER_MIGRATIONS, &Target::default())?;
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_MIGRATIONS, id).await?;
            let missing = || EngineError::not_found("MigrationNotFoundForInstance", "Migration", number);
            let Some(mut live) = tx.live_migration_of(id).await? else { return Err(missing()) };
            let record = tx.server_migration_get(live.id).await?.filter(|record| record.number == number);
            let record = record.ok_or_else(missing)?;
            let now = status(&live.progress);
            let late = match force {
                true => now != "running",
                false => now != "running" && !(early && matches!(now, "accepted" | "preparing")),
            };
            if late {
                let what = if force { "force complete" } else { "abort" };
                return Err(EngineError::Invalid {
                    code: "InvalidMigrationState",
                    message: format!(
                        "Migration {number} state of instance {id} is {now}. Cannot {what} while the migration is in this state."
                    ),
                });
            }
            if force {
                live.progress.force = true;
            } else {
                live.progress.cancel = true;
            }
            tx.live_migration_update(&live, status(&live.progress)).await?;
            let name = if force { "live_migration_force_complete" } else { "live_migration_cancel" };
            let detail = json!({ "migration": record.id });
            self.server_audit(&tx, &server, compute::SERVER_MIGRATIONS, &json!({ "what": name, "of": detail })).await?;
            self.server_touch(&tx, &mut server).await?;
            tx.server_update(&mut server).await?;
            tx.commit().await?;
            self.wake().node(live.source_id);
            Ok(())
        })
    }

    /// What a node has to do for servers on their way: by server, and whether they come.
    pub(crate) async fn live_parts(&self, node: NodeId) -> Result<Vec<(LiveMigration, MigrationSpec)>, EngineError> {
        let all = self.store().live_migration_list_by_node(node).await?;
        let part = |live: LiveMigration| {
            let part = if live.source_id == node {
                MigrationPart::Outgoing {
                    order: order(&live.progress),
                    downtime_ms_max: live.progress.downtime_ms_max,
                    force: live.progress.force,
                    strict: live.progress.downtime_strict,
                }
            } else {
                MigrationPart::Incoming {
                    layout: live.progress.layout.clone(),
                    open: live.progress.ready,
                    give_up: live.progress.give_up,
                }
            };
            let spec = MigrationSpec { id: live.id, key: live.key.clone(), part };
            (live, spec)
        };
        Ok(all.into_iter().map(part).collect())
    }

    /// Takes in what a node says of servers on their way.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn live_migrations_observed(&self, node: NodeId, report: &NodeReport) -> Result<(), EngineError> {
        let said: HashMap<MigrationId, &MigrationReport> =
            report.servers.iter().filter_map(|s| s.migration.as_ref()).map(|m| (m.id, m)).collect();
        if said.is_empty() {
            return Ok(());
        }
        let ctx =
            OpCtx { actor: Actor::Node { node_id: node }, scope: Scope::System, ..OpCtx::anonymous(RequestId::new()) };
        for mut live in self.store().live_migration_list_by_node(node).await? {
            let Some(said) = said.get(&live.id) else { continue };
            let end = if live.source_id == node { End::Source } else { End::Destination };
            let late = is_late(&live.progress, Timestamp::now());
            if decide(&mut live.progress, end, said) != Verdict::Same || late {
                retried!({ self.live_observed(&ctx, live.server_id, live.id, end, said).await })?;
            }
        }
        Ok(())
    }

    async fn live_observed(
        &self,
        ctx: &OpCtx,
        server: ServerId,
        id: MigrationId,
        end: End,
        said: &MigrationReport,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let Some(mut server) = tx.server_lock(server).await? else { return Ok(()) };
        let Some(mut live) = tx.live_migration_of(server.id).await?.filter(|live| live.id == id) else {
            return Ok(());
        };
        let mut verdict = decide(&mut live.progress, end, said);
        if matches!(verdict, Verdict::Same | Verdict::Figures | Verdict::Further)
            && is_late(&live.progress, Timestamp::now())
        {
            (live.progress.cancel, live.progress.overdue) = (true, true);
            verdict = Verdict::Further;
        }
        match verdict {
            Verdict::Same => return Ok(()),
            Verdict::Figures => {
                drop(tx);
                let tx = self.store().begin_unaudited().await?;
                tx.live_migration_update(&live, status(&live.progress)).await?;
                live_progress(&tx, &live).await?;
                return Ok(tx.commit().await?);
            }
            Verdict::Further => {
                tx.live_migration_update(&live, status(&live.progress)).await?;
                live_progress(&tx, &live).await?;
                for node in [live.source_id, live.dest_id] {
                    tx.node_touch(node).await?;
                }
                let detail = json!({ "migration": id, "status": status(&live.progress) });
                self.server_audit(&tx, &server, compute::SERVER_OBSERVE, &detail).await?;
            }
            Verdict::Completed => self.live_completed(&tx, &mut server, &live).await?,
            Verdict::Cancelled => {
                let why = match live.progress.overdue {
                    true => "It was not over by its deadline and was given up.",
                    false => "The live migration was cancelled.",
                };
                self.live_stays(&tx, &mut server, &live, "cancelled", why).await?;
            }
            Verdict::Failed(why) => self.live_stays(&tx, &mut server, &live, "failed", &why).await?,
        }
        tx.commit().await?;
        self.wake().all();
        self.wake().maintenance();
        Ok(())
    }

    /// The guest is at the destination: it is its own from here on, in this one write.
    async fn live_completed(&self, tx: &Tx, server: &mut Server, live: &LiveMigration) -> Result<(), EngineError> {
        let now = Timestamp::now();
        if !tx.live_migration_end(live, "completed", now).await? {
            return Ok(());
        }
        tx.node_release(live.source_id, live.vcpus, live.memory_mib, live.disk_gib).await?;
        // Before the ports move, so that nodes which only the source's ports concerned are told, too.
        self.live_touch(tx, server.id, &[live.source_id]).await?;
        tx.ports_rebind(server.id, live.dest_id).await?;
        server.node_id = Some(live.dest_id);
        server.epoch += 1;
        if let Some(dest) = tx.node_get(live.dest_id).await? {
            server.availability_zone = dest.availability_zone;
        }
        server.updated_at = now;
        self.server_touch(tx, server).await?;
        let figures = &live.progress.figures;
        if let Some(request) = server.request_id {
            let (source, dest) = (tx.node_get(live.source_id).await?, tx.node_get(live.dest_id).await?);
            let told = json!({
                "migration": live.id,
                "source": source.map(|node| node.name),
                "target": dest.map(|node| node.name),
                "blackout_ms": figures.downtime_ms,
                "total_ms": figures.total_ms,
                "memory_bytes": figures.memory_sent,
                "disk_bytes": figures.disk_sent,
                "rounds": figures.rounds,
                "throttle_percent": figures.throttle_percent,
                "strategy": if figures.throttle_percent > 0 { "auto-converge" } else { "plain" },
            });
            tx.task_describe(server.id.0, request, None, &told).await?;
        }
        let detail = json!({ "migration": live.id, "status": "completed", "downtime_ms": figures.downtime_ms });
        self.server_audit(tx, server, compute::SERVER_OBSERVE, &detail).await?;
        tracing::info!(
            server.id = %server.id, migration.id = %live.id, downtime_ms = figures.downtime_ms,
            duration_ms = figures.total_ms, "a server moved to another node"
        );
        self.interfaces_settled(tx, server.id, None, now).await?;
        self.server_settled(tx, server, None, now).await
    }

    /// The guest stays where it is.
    async fn live_stays(
        &self,
        tx: &Tx,
        server: &mut Server,
        live: &LiveMigration,
        status: &str,
        why: &str,
    ) -> Result<(), EngineError> {
        let now = Timestamp::now();
        self.live_give_up(tx, live, status, now).await?;
        server.updated_at = now;
        self.server_touch(tx, server).await?;
        let detail = json!({ "migration": live.id, "status": status, "why": why });
        self.server_audit(tx, server, compute::SERVER_OBSERVE, &detail).await?;
        tracing::warn!(server.id = %server.id, migration.id = %live.id, status, why, "a server did not move");
        if let (Some(request), "cancelled") = (server.request_id, status) {
            tx.task_finish(server.id.0, request, TaskState::Cancelled, Some(why), now).await?;
        }
        self.interfaces_settled(tx, server.id, None, now).await?;
        if server.task == Some(ServerTask::Migrating) {
            self.server_settled(tx, server, Some(why), now).await
        } else {
            Ok(tx.server_update(server).await?)
        }
    }

    /// Ends a move whose guest stays, and gives back what the destination had claimed.
    async fn live_give_up(
        &self,
        tx: &Tx,
        live: &LiveMigration,
        status: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        if tx.live_migration_end(live, status, now).await? {
            tx.node_release(live.dest_id, live.vcpus, live.memory_mib, live.disk_gib).await?;
            self.live_touch(tx, live.server_id, &[live.source_id, live.dest_id]).await?;
        }
        Ok(())
    }

    /// A server that is removed or has ended moves no further.
    pub(super) async fn live_end(&self, tx: &Tx, server: &Server, status: &str) -> Result<(), EngineError> {
        match tx.live_migration_of(server.id).await? {
            Some(live) => self.live_give_up(tx, &live, status, Timestamp::now()).await,
            None => Ok(()),
        }
    }

    /// A move that takes too long is given up; what has moved all the same stays moved.
    pub(super) async fn live_overdue(&self, tx: &Tx, server: &mut Server, now: Timestamp) -> Result<(), EngineError> {
        match tx.live_migration_of(server.id).await? {
            Some(mut live) => {
                live.progress.cancel = true;
                tx.live_migration_update(&live, status(&live.progress)).await?;
                server.task_deadline = Some(now.plus_seconds(OVERDUE_S));
            }
            None => (server.task, server.task_deadline) = (None, None),
        }
        self.server_touch(tx, server).await?;
        self.server_audit(tx, server, compute::SERVER_OBSERVE, &json!({ "overdue": "migrating" })).await?;
        Ok(tx.server_update(server).await?)
    }

    /// Ends moves whose nodes do not say how they ended. To be called now and then.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn live_migrations_sweep(&self, now: Timestamp) -> Result<(), EngineError> {
        for live in self.store().live_migration_list().await? {
            let ctx = OpCtx::system();
            retried!({ self.live_swept(&ctx, &live, now).await })?;
        }
        Ok(())
    }

    async fn live_swept(&self, ctx: &OpCtx, seen: &LiveMigration, now: Timestamp) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let Some(mut server) = tx.server_lock(seen.server_id).await? else { return Ok(()) };
        let Some(mut live) = tx.live_migration_of(server.id).await?.filter(|live| live.id == seen.id) else {
            return Ok(());
        };
        let dest_alive = tx.node_get(live.dest_id).await?.is_some_and(|node| self.node_alive(&node, now));
        let source_down = tx.node_get(live.source_id).await?.is_none_or(|node| node.state.is_down());
        let progress = &mut live.progress;
        if progress.arrived && live.updated_at.plus_seconds(SOURCE_SILENT_S) < now {
            // A destination that runs the guest has all of it, so the source has sent the last.
            self.live_completed(&tx, &mut server, &live).await?;
        } else if progress.gone && !progress.arrived && dest_alive && live.updated_at.plus_seconds(GONE_S) < now {
            self.live_stays(&tx, &mut server, &live, "failed", GUEST_ENDED).await?;
        } else if source_down && !progress.arrived && progress.lost.is_some() {
            // It is the source's, which goes on with it when it is back, unless somebody evacuates it before.
            let why = progress.lost.clone().unwrap_or_default();
            self.live_stays(&tx, &mut server, &live, "failed", &why).await?;
        } else if source_down && dest_alive && !progress.arrived && !progress.give_up {
            // Only the destination can say that it has not got all of the guest, and never will.
            progress.give_up = true;
            tx.live_migration_update(&live, status(&live.progress)).await?;
            tx.node_touch(live.dest_id).await?;
            let detail = json!({ "migration": live.id, "given_up": "the source is down" });
            self.server_audit(&tx, &server, compute::SERVER_OBSERVE, &detail).await?;
        } else if is_late(progress, now) {
            (progress.cancel, progress.overdue) = (true, true);
            tx.live_migration_update(&live, status(&live.progress)).await?;
            tx.node_touch(live.source_id).await?;
            let detail = json!({ "migration": live.id, "cancelled": "its deadline has passed" });
            self.server_audit(&tx, &server, compute::SERVER_OBSERVE, &detail).await?;
        } else if !dest_alive && !progress.moved && !progress.arrived && !progress.cancel {
            progress.cancel = true;
            tx.live_migration_update(&live, status(&live.progress)).await?;
            tx.node_touch(live.source_id).await?;
            let detail = json!({ "migration": live.id, "cancelled": "the destination is down" });
            self.server_audit(&tx, &server, compute::SERVER_OBSERVE, &detail).await?;
        } else {
            return Ok(());
        }
        tx.commit().await?;
        self.wake().all();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcus_types::agent::{MachineLayout, MigrationFigures, MigrationPlace};

    fn report(stage: MigrationStage) -> MigrationReport {
        MigrationReport { id: MigrationId::new(), stage, figures: MigrationFigures::default(), flows: Vec::new() }
    }

    fn place() -> MigrationPlace {
        MigrationPlace { address: "192.0.2.2".parse().unwrap(), memory_port: 1, disk_port: 2 }
    }

    /// A move whose guest has been sent.
    fn sent() -> LiveProgress {
        let mut progress = LiveProgress::default();
        let layout = MachineLayout {
            machine: "q35".into(),
            accel: "tcg".into(),
            cpu_model: "qemu64".into(),
            nic_slots: 4,
            nics: vec![],
            volume_slots: 4,
        };
        assert_eq!(order(&progress), OutgoingOrder::Wait);
        for (end, stage) in [
            (End::Source, MigrationStage::Waiting(layout)),
            (End::Destination, MigrationStage::Listening(place())),
            (End::Source, MigrationStage::Ready),
            (End::Destination, MigrationStage::Open(place())),
        ] {
            assert_eq!(decide(&mut progress, end, &report(stage)), Verdict::Further);
        }
        assert_eq!(order(&progress), OutgoingOrder::Switch(place()));
        assert_eq!(decide(&mut progress, End::Source, &report(MigrationStage::Moved)), Verdict::Further);
        progress
    }

    #[test]
    fn a_guest_has_moved_when_both_nodes_say_so_in_any_order() {
        let mut progress = sent();
        assert_eq!(decide(&mut progress, End::Destination, &report(MigrationStage::Arrived)), Verdict::Completed);
        let mut other = LiveProgress { moved: false, ..sent() };
        assert_eq!(decide(&mut other, End::Destination, &report(MigrationStage::Arrived)), Verdict::Further);
        assert_eq!(decide(&mut other, End::Source, &report(MigrationStage::Moved)), Verdict::Completed);
    }

    #[test]
    fn a_source_runs_a_guest_again_only_when_the_destination_has_lost_it() {
        let mut progress = sent();
        assert!(!matches!(order(&progress), OutgoingOrder::Return | OutgoingOrder::Cancel));
        progress.cancel = true;
        assert!(!matches!(order(&progress), OutgoingOrder::Return));
        let lost = report(MigrationStage::Failed { message: "it died".into() });
        assert_eq!(decide(&mut progress, End::Destination, &lost), Verdict::Further);
        assert_eq!(order(&progress), OutgoingOrder::Return);
        let back = decide(&mut progress, End::Source, &report(MigrationStage::Cancelled));
        assert_eq!(back, Verdict::Failed("it died".into()));
    }

    #[test]
    fn a_source_that_ended_leaves_the_word_to_the_destination() {
        let mut progress = LiveProgress { moved: false, ..sent() };
        assert_eq!(decide(&mut progress, End::Source, &report(MigrationStage::Ended)), Verdict::Further);
        assert_eq!(decide(&mut progress, End::Destination, &report(MigrationStage::Arrived)), Verdict::Completed);
        let mut early = LiveProgress::default();
        let ended = decide(&mut early, End::Source, &report(MigrationStage::Ended));
        assert_eq!(ended, Verdict::Failed(GUEST_ENDED.into()));
    }

    #[test]
    fn a_deadline_counts_until_the_guest_stands_still() {
        let at = Timestamp::now();
        let mut progress = LiveProgress { deadline: Some(at), ..LiveProgress::default() };
        assert!(!is_late(&progress, at.plus_seconds(-1)));
        assert!(is_late(&progress, at));
        progress.switching = true;
        assert!(!is_late(&progress, at));
    }

    #[test]
    fn a_report_that_says_the_same_again_changes_nothing() {
        let mut progress = sent();
        assert_eq!(decide(&mut progress, End::Source, &report(MigrationStage::Moved)), Verdict::Same);
    }
}
