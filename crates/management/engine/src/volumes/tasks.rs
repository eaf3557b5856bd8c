//! The tasks of volumes: one begins with each state in which something is being done, and is over with it.

use crate::{Engine, EngineError};
use arcus_store::{Task, Tx, Volume};
use arcus_types::tasks::TaskState;
use arcus_types::volumes::VolumeStatus;
use arcus_types::{TaskId, Timestamp};
use serde_json::json;

/// What is being done in a state, as a kind of task.
const fn kind(status: VolumeStatus) -> Option<&'static str> {
    match status {
        VolumeStatus::Creating => Some("volume-create"),
        VolumeStatus::Extending => Some("volume-extend"),
        VolumeStatus::Uploading => Some("volume-upload"),
        VolumeStatus::Reverting => Some("volume-revert"),
        VolumeStatus::Downloading => Some("volume-reimage"),
        VolumeStatus::Deleting => Some("volume-delete"),
        VolumeStatus::Available
        | VolumeStatus::Reserved
        | VolumeStatus::Attaching
        | VolumeStatus::InUse
        | VolumeStatus::Detaching
        | VolumeStatus::Retyping
        | VolumeStatus::Maintenance
        | VolumeStatus::AwaitingTransfer
        | VolumeStatus::BackingUp
        | VolumeStatus::RestoringBackup
        | VolumeStatus::Error
        | VolumeStatus::ErrorDeleting
        | VolumeStatus::ErrorExtending
        | VolumeStatus::ErrorRestoring => None,
    }
}

impl Engine {
    /// Notes that a volume has come from one state to another: what was being done is over, and something else begins. The
    /// caller holds the volume and writes it in the same transaction; `None` is the state of one that is new.
    pub(super) async fn volume_task_follow(
        &self,
        tx: &Tx,
        volume: &Volume,
        before: Option<VolumeStatus>,
    ) -> Result<(), EngineError> {
        let (was, is) = (before.and_then(kind), kind(volume.status));
        if was == is {
            return Ok(());
        }
        let now = Timestamp::now();
        if was.is_some() {
            let why = volume.fault.as_ref().map(|fault| fault.message.as_str());
            let (state, error) = match (is, why) {
                (Some(_), _) => (TaskState::Cancelled, Some("Something else was asked of the volume.")),
                (None, Some(why)) => (TaskState::Failed, Some(why)),
                (None, None) if volume.status == VolumeStatus::Error => (TaskState::Failed, None),
                (None, None) => (TaskState::Done, None),
            };
            tx.tasks_finish(volume.id.0, state, error, now).await?;
        }
        let Some(kind) = is else { return Ok(()) };
        let ctx = tx.ctx();
        let task = Task {
            id: TaskId::new(),
            kind: kind.to_owned(),
            parent_id: None,
            resource_kind: "volume".to_owned(),
            resource_id: volume.id.0,
            resource_name: volume.name.clone().unwrap_or_default(),
            project_id: Some(volume.project_id),
            user_id: ctx.user_id(),
            request_id: ctx.request_id,
            state: TaskState::Running,
            step: None,
            steps: Vec::new(),
            progress: 0,
            error: None,
            priority: 0,
            deadline: volume.deadline,
            cancel: false,
            detail: json!({ "size_gib": volume.size_gib }),
            created_at: now,
            started_at: Some(now),
            finished_at: None,
            updated_at: now,
        };
        Ok(tx.task_insert(&task).await?)
    }

    /// The volume is gone, and with it what was being done.
    pub(super) async fn volume_tasks_end(&self, tx: &Tx, volume: &Volume) -> Result<(), EngineError> {
        Ok(tx.tasks_finish(volume.id.0, TaskState::Done, None, Timestamp::now()).await?)
    }
}
