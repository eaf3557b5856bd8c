//! Tasks, on both databases.

use arcus_store::testing::{Postgres, sqlite};
use arcus_store::{Relocation, Store, Task, TaskFilter};
use arcus_types::tasks::{RelocationState, TaskState};
use arcus_types::{NodeId, ProjectId, RequestId, ServerId, TaskId, Timestamp};
use serde_json::json;
use uuid::Uuid;

fn task(project: ProjectId, kind: &str) -> Task {
    Task {
        id: TaskId::new(),
        kind: kind.into(),
        parent_id: None,
        resource_kind: "server".into(),
        resource_id: Uuid::new_v4(),
        resource_name: "web".into(),
        project_id: Some(project),
        user_id: None,
        request_id: RequestId::new(),
        state: TaskState::Running,
        step: Some("first".into()),
        steps: vec![],
        progress: 0,
        error: None,
        priority: 0,
        deadline: None,
        cancel: false,
        detail: json!({}),
        created_at: Timestamp(1),
        started_at: Some(Timestamp(1)),
        finished_at: None,
        updated_at: Timestamp(1),
    }
}

#[tokio::test]
async fn tasks_on_sqlite() {
    let (store, _folder) = sqlite().await;
    tasks(&store).await;
}

#[tokio::test]
async fn tasks_on_postgres() {
    tasks(&Postgres::start().store().await).await;
}

async fn tasks(store: &Store) {
    let (mine, theirs) = (ProjectId::new(), ProjectId::new());
    let mut all: Vec<Task> = Vec::new();
    for (project, kind) in [(mine, "a"), (mine, "b"), (theirs, "a")] {
        all.push(task(project, kind));
    }
    let changes = store.task_changes();
    let tx = store.begin_unaudited().await.unwrap();
    for one in &all {
        tx.task_insert(one).await.unwrap();
        // The same request again keeps the first record.
        tx.task_insert(&Task { id: TaskId::new(), kind: "again".into(), ..one.clone() }).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert!(changes.has_changed().unwrap());
    pages(store, mine, &all).await;
    changed(store, &all).await;
    gone(store, &all).await;
}

async fn pages(store: &Store, mine: ProjectId, all: &[Task]) {
    let of = async |filter: TaskFilter| {
        let filter = TaskFilter { limit: 10, ..filter };
        store.task_list(&filter).await.unwrap().into_iter().map(|t| t.id).collect::<Vec<_>>()
    };
    assert_eq!(of(TaskFilter::default()).await, [all[2].id, all[1].id, all[0].id]);
    assert_eq!(of(TaskFilter { project_id: Some(mine), ..TaskFilter::default() }).await, [all[1].id, all[0].id]);
    assert_eq!(of(TaskFilter { marker: Some(all[1].id), ..TaskFilter::default() }).await, [all[0].id]);
    assert_eq!(of(TaskFilter { kind: Some("b".into()), ..TaskFilter::default() }).await, [all[1].id]);
    assert_eq!(of(TaskFilter { state: Some(TaskState::Done), ..TaskFilter::default() }).await, []);
}

async fn changed(store: &Store, all: &[Task]) {
    let (one, two) = (&all[0], &all[1]);
    let tx = store.begin_unaudited().await.unwrap();
    tx.task_progress(one.resource_id, Some(one.request_id), None, 40, None).await.unwrap();
    tx.task_progress(one.resource_id, None, Some("other"), 90, Some("no")).await.unwrap();
    tx.task_step(one.resource_id, one.request_id, "second", Timestamp(5)).await.unwrap();
    let end = Some("because");
    tx.task_finish(two.resource_id, two.request_id, TaskState::Cancelled, end, Timestamp(9)).await.unwrap();
    // What is over stays over.
    tx.task_finish(two.resource_id, two.request_id, TaskState::Done, None, Timestamp(10)).await.unwrap();
    tx.task_progress(two.resource_id, None, None, 77, None).await.unwrap();
    tx.commit().await.unwrap();
    let now = store.task_get(one.id).await.unwrap().unwrap();
    assert_eq!((now.progress, now.step.as_deref(), now.state), (40, Some("second"), TaskState::Running));
    assert_eq!((now.steps.len(), now.steps[0].name.as_str()), (1, "first"));
    let over = store.task_get(two.id).await.unwrap().unwrap();
    assert_eq!((over.state, over.error.as_deref(), over.progress), (TaskState::Cancelled, end, 0));
    let filter = TaskFilter { limit: 10, ..TaskFilter::default() };
    let after = |at: i64| (Timestamp(at), TaskId(Uuid::nil()));
    let news = store.task_list_changed(&filter, after(2)).await.unwrap();
    assert_eq!(news.iter().map(|t| t.id).collect::<Vec<_>>(), [one.id, two.id]);
    assert_eq!(store.task_list_active(&["a", "b"], 10).await.unwrap().len(), 2);
}

async fn gone(store: &Store, all: &[Task]) {
    let row = Relocation {
        task_id: all[1].id,
        server_id: ServerId::new(),
        position: 0,
        name: "web".into(),
        source_id: NodeId::new(),
        target_id: None,
        vcpus: 1,
        memory_mib: 64,
        disk_gib: 1,
        reserved: false,
        state: RelocationState::Waiting,
        reason: None,
        attempts: 0,
        not_before: Timestamp(0),
        migration_id: None,
        predicted_ms: Some(10),
        predicted_blackout_ms: None,
        measured_ms: None,
        measured_blackout_ms: None,
    };
    let tx = store.begin_unaudited().await.unwrap();
    tx.relocation_insert(&row).await.unwrap();
    let moved = Relocation { state: RelocationState::Moved, attempts: 2, measured_ms: Some(11), ..row };
    tx.relocation_update(&moved).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.relocation_list(all[1].id).await.unwrap(), [moved]);
    assert_eq!(store.moves_measured(5).await.unwrap(), []);
    let tx = store.begin_unaudited().await.unwrap();
    // Nobody works at the servers of the two that are not over.
    assert_eq!(tx.tasks_end_abandoned(Timestamp(2), Timestamp(20)).await.unwrap(), 2);
    assert_eq!(tx.task_purge(Timestamp(10), 100).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert_eq!(store.task_get(all[1].id).await.unwrap(), None);
    assert_eq!(store.relocation_list(all[1].id).await.unwrap(), []);
}
