//! Live migrations as the native API asks for them: what is in the way and what a move would take first, the move then.

use super::{Blocker, DOWNTIME_MS_MAX, LiveMigrationWish, admit};
use crate::maintenance::Rates;
use crate::servers::retried;
use crate::{Engine, EngineError};
use arcus_placement::Around;
use arcus_store::{Task, TaskFilter};
use arcus_types::agent::{GuestAppraisal, RelayKind};
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::servers::ServerRequest;
use arcus_types::{NodeId, OpCtx, ServerId};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// So many of the last moves are looked at.
const MEASURED_MAX: u64 = 16;
/// The longest standstill that may be asked for, in milliseconds.
const BLACKOUT_MS_LIMIT: u32 = 60_000;
/// The longest deadline, in seconds; a move is given up after that anyway.
const DEADLINE_S_LIMIT: i64 = 6 * 3600;
/// How long a node may take to measure a guest.
const APPRAISAL_MAX: Duration = Duration::from_secs(8);
const APPRAISAL_BYTES_MAX: u64 = 4 << 10;
/// Rounds after which memory that changes as fast as it is sent is held to never come into step.
const ROUNDS_MAX: u32 = 30;

/// What a move should take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction {
    /// All of it, in milliseconds.
    pub total_ms: u64,
    /// What is sent, in bytes.
    pub bytes: u64,
    /// How long the guest stands still, in milliseconds.
    pub blackout_ms: u64,
    /// Whether the guest changes memory more slowly than it can be sent; otherwise time is taken from its processors
    /// until it does.
    pub converges: bool,
    /// What can be sent in a second, in bytes: as the last moves did, or an assumption.
    pub bytes_per_s: u64,
    /// Of how many moves that was measured; 0: it is an assumption.
    pub moves_measured: usize,
}

/// What a move would be, or why it cannot be.
#[derive(Debug, Clone)]
pub struct LiveMigrationPlan {
    /// The node that the server is on, by name.
    pub source: Option<String>,
    /// Where it would go, by name.
    pub target: Option<String>,
    /// What is in the way; empty if it can go.
    pub blockers: Vec<Blocker>,
    /// What its node has measured of the guest; `None` if it did not answer.
    pub appraisal: Option<GuestAppraisal>,
    /// What the move should take; `None` if something is in the way.
    pub prediction: Option<Prediction>,
}

/// A move that was asked for.
#[derive(Debug, Clone)]
pub struct LiveMigrationAsked {
    /// Its task.
    pub task: Task,
}

/// What a move should take: memory is sent once, then what has changed meanwhile, until the rest fits into the standstill.
fn predict(rates: &Rates, guest: &GuestAppraisal, whole_memory: u64, blackout_ms_max: u64) -> Prediction {
    let rate = rates.bytes_per_ms().max(1);
    let dirty = guest.dirty_rate.unwrap_or(0) / 1000;
    let (mut left, mut sent, mut rounds) = (guest.memory_bytes, guest.disk_bytes, 0);
    while left / rate > blackout_ms_max && rounds < ROUNDS_MAX {
        sent = sent.saturating_add(left);
        left = (left / rate).saturating_mul(dirty).min(whole_memory);
        rounds += 1;
    }
    let converges = left / rate <= blackout_ms_max;
    let bytes = sent.saturating_add(left);
    Prediction {
        total_ms: rates.overhead_ms().saturating_add(bytes / rate),
        bytes,
        blackout_ms: match rounds {
            // All of it goes in the one round in which the guest still runs.
            0 => rates.blackout_ms(),
            _ => rates.blackout_ms().max(left / rate),
        },
        converges,
        bytes_per_s: rate.saturating_mul(1000),
        moves_measured: rates.measured(),
    }
}

impl Engine {
    /// What would come of a move: nothing is claimed or changed.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, [`EngineError::Invalid`] for limits that make no sense,
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn server_migrate_live_plan(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        wish: &LiveMigrationWish,
    ) -> Result<LiveMigrationPlan, EngineError> {
        authorize(ctx, compute::SERVER_MIGRATE, &Target::default())?;
        limits(wish)?;
        self.fleet_refresh().await?;
        let tx = self.store().begin(ctx).await?;
        let server = self.server_held(&tx, ctx, compute::SERVER_MIGRATE, id).await?;
        admit(ctx, &server, ServerRequest::LiveMigrate)?;
        let (source, mut blockers) = self.live_blockers(&tx, &server, wish).await?;
        let mut target = None;
        if let (Some(source), true) = (&source, blockers.is_empty()) {
            match self.live_destination(&tx, &server, source, wish.node.clone(), Around::default()).await {
                Ok(dest) => target = Some(dest.name.to_string()),
                Err(EngineError::Invalid { code, message }) => {
                    blockers.push(Blocker { name: "no_target", message, code });
                }
                Err(error) => return Err(error),
            }
        }
        let rates = Rates::of(&tx.moves_measured(MEASURED_MAX).await?);
        // What was claimed to find a target is given back: nothing of this is kept.
        drop(tx);
        let (mut appraisal, mut prediction) = (None, None);
        if let (Some(source), true) = (&source, blockers.is_empty()) {
            appraisal = self.appraised(source.id, id).await;
            let whole = server.memory_mib.saturating_mul(1 << 20);
            let assumed =
                GuestAppraisal { memory_bytes: whole, disk_bytes: rates.disk_bytes(server.disk_gib), dirty_rate: None };
            let blackout = u64::from(wish.blackout_ms_max.unwrap_or(DOWNTIME_MS_MAX));
            prediction = Some(predict(&rates, &appraisal.unwrap_or(assumed), whole, blackout));
        }
        let source = source.map(|node| node.name.to_string());
        Ok(LiveMigrationPlan { source, target, blockers, appraisal, prediction })
    }

    /// Moves a server while it runs; answers the task to follow.
    ///
    /// # Errors
    /// As [`Engine::server_migrate_live`], and [`EngineError::Invalid`] for limits that make no sense.
    pub async fn server_migrate_live_asked(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        wish: &LiveMigrationWish,
    ) -> Result<LiveMigrationAsked, EngineError> {
        limits(wish)?;
        self.server_migrate_live(ctx, id, wish).await?;
        let filter = TaskFilter { resource_id: Some(id.0), limit: 10, ..TaskFilter::default() };
        let found = self.store().task_list(&filter).await?;
        let found = found.into_iter().find(|task| task.request_id == ctx.request_id);
        let task = found.ok_or_else(|| EngineError::not_found("TaskNotFound", "Task", id))?;
        let task = match wish.deadline_s {
            Some(seconds) => self.live_task_deadline(task, seconds).await?,
            None => task,
        };
        Ok(LiveMigrationAsked { task })
    }

    /// Notes in a move's task when it is given up.
    async fn live_task_deadline(&self, task: Task, seconds: i64) -> Result<Task, EngineError> {
        retried!({
            let tx = self.store().begin_unaudited().await?;
            let Some(mut held) = tx.task_lock(task.id).await? else { return Ok(task.clone()) };
            held.deadline = Some(held.created_at.plus_seconds(seconds));
            tx.task_update(&held).await?;
            tx.commit().await?;
            Ok(held)
        })
    }

    /// What a guest's node measures of it; `None` if it does not answer in time.
    async fn appraised(&self, node: NodeId, id: ServerId) -> Option<GuestAppraisal> {
        let ask = async {
            let stream = self.relay_open(node, id, RelayKind::Appraisal).await.ok()?;
            let mut text = Vec::new();
            stream.take(APPRAISAL_BYTES_MAX).read_to_end(&mut text).await.ok()?;
            serde_json::from_slice(&text).ok()
        };
        tokio::time::timeout(APPRAISAL_MAX, ask).await.ok().flatten()
    }
}

fn limits(wish: &LiveMigrationWish) -> Result<(), EngineError> {
    if wish.blackout_ms_max.is_some_and(|ms| !(1..=BLACKOUT_MS_LIMIT).contains(&ms)) {
        return Err(EngineError::invalid(format!("max_blackout_ms must be from 1 to {BLACKOUT_MS_LIMIT}")));
    }
    if wish.deadline_s.is_some_and(|seconds| !(1..=DEADLINE_S_LIMIT).contains(&seconds)) {
        return Err(EngineError::invalid(format!("deadline_s must be from 1 to {DEADLINE_S_LIMIT} seconds")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_changes_faster_than_it_can_be_sent_does_not_converge() {
        let rates = Rates::of(&[]);
        let rate = rates.bytes_per_ms() * 1000;
        let guest = |dirty| GuestAppraisal { memory_bytes: rate * 10, disk_bytes: rate, dirty_rate: Some(dirty) };
        let idle = predict(&rates, &guest(0), rate * 20, 300);
        assert!(idle.converges && idle.bytes == rate * 11 && idle.total_ms == rates.overhead_ms() + 11_000, "{idle:?}");
        let busy = predict(&rates, &guest(rate / 2), rate * 20, 300);
        assert!(busy.converges && busy.bytes > rate * 20 && busy.blackout_ms <= 320, "{busy:?}");
        let never = predict(&rates, &guest(rate * 2), rate * 20, 300);
        assert!(!never.converges, "{never:?}");
    }
}
