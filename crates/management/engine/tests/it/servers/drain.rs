//! Nodes that are emptied and filled again. Each step is made by an engine that knows nothing but the database, as after a
//! kill of the server.

use super::{Cloud, again, as_wished, node};
use arcus_engine::maintenance::{DrainWish, Maintenance};
use arcus_engine::{Engine, EngineError};
use arcus_store::TaskFilter;
use arcus_types::agent::{MigrationFigures, MigrationReport, MigrationStage, NodeFacts, NodeReport};
use arcus_types::tasks::{RelocationState, TaskState};
use arcus_types::{NodeId, ServerId, TaskId, Timestamp};

const WISH: DrainWish = DrainWish { parallel: Some(1), deadline_s: None, plan_only: false };

impl Cloud {
    /// Both nodes can send guests to each other.
    async fn joined(&self, nodes: &[NodeId]) {
        let tx = self.engine.store().begin_unaudited().await.unwrap();
        for (at, id) in (1..).zip(nodes) {
            let underlay = Some(std::net::IpAddr::from([192, 0, 2, at]));
            let facts = NodeFacts { vcpus: 8, memory_mib: 8192, disk_gib: 100, underlay, ..NodeFacts::default() };
            tx.node_facts_set(*id, &facts).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// Moves drains on, by an engine that has just been started.
    async fn step(&self, seconds: i64) -> usize {
        let engine = Engine::new(self.engine.store().clone(), self.engine.config().clone());
        engine.maintenance_step(Timestamp::now().plus_seconds(seconds)).await.unwrap()
    }

    async fn says(&self, node: NodeId, id: ServerId, stage: MigrationStage) {
        let live = self.engine.store().live_migration_of(id).await.unwrap().unwrap();
        let figures = MigrationFigures { memory_sent: 1000, downtime_ms: 7, total_ms: 500, ..Default::default() };
        let said = MigrationReport { id: live.id, stage, figures, flows: vec![] };
        let (specs, _) = self.engine.server_specs(live.source_id).await.unwrap();
        let spec = specs.iter().find(|spec| spec.id == id).unwrap();
        let mut server = as_wished(spec);
        server.migration = Some(said);
        let report = NodeReport { servers: vec![server], ..NodeReport::default() };
        self.engine.live_migrations_observed(node, &report).await.unwrap();
    }

    async fn arrives(&self, from: NodeId, to: NodeId, id: ServerId) {
        self.says(from, id, MigrationStage::Moved).await;
        self.says(to, id, MigrationStage::Arrived).await;
    }

    async fn maintained(&self, id: TaskId) -> Maintenance {
        self.engine.maintenance(&self.admin, id).await.unwrap()
    }

    async fn claimed(&self, node: NodeId) -> u64 {
        self.engine.store().node_get(node).await.unwrap().unwrap().memory_mib_used
    }

    async fn moving(&self) -> Vec<ServerId> {
        self.engine.store().live_migration_list().await.unwrap().into_iter().map(|live| live.server_id).collect()
    }
}

#[tokio::test]
async fn a_drained_node_is_empty_and_gets_its_servers_back() {
    let cloud = Cloud::start().await;
    let ids = [cloud.running().await, cloud.running().await];
    let stopped = cloud.running().await;
    cloud.engine.server_stop(&again(&cloud.member), stopped).await.unwrap();
    cloud.play().await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    cloud.joined(&[cloud.node, other]).await;
    let plan = DrainWish { plan_only: true, ..WISH };
    let planned = cloud.engine.node_drain(&again(&cloud.admin), "node-1", &plan).await.unwrap();
    assert_eq!(planned.servers.len(), 3);
    assert_eq!((cloud.claimed(cloud.node).await, cloud.claimed(other).await), (3 * 192, 0), "a plan leaves no trace");
    let refused = cloud.engine.node_drain(&again(&cloud.member), "node-1", &WISH).await.unwrap_err();
    assert!(matches!(refused, EngineError::Denied(_)));

    let begun = cloud.engine.node_drain(&again(&cloud.admin), "node-1", &WISH).await.unwrap();
    let task = begun.task.id;
    assert_eq!(cloud.claimed(other).await, 2 * 192, "the room is kept from the beginning");
    let refused = cloud.engine.node_drain(&again(&cloud.admin), "node-1", &WISH).await.unwrap_err();
    assert!(matches!(refused, EngineError::Conflict { code: "NodeInMaintenance", .. }));
    for _ in 0..2 {
        assert_eq!(cloud.step(0).await, 1);
        cloud.step(0).await;
        let moving = cloud.moving().await;
        assert_eq!(moving.len(), 1, "one at a time");
        assert_eq!(cloud.claimed(other).await, 2 * 192, "nothing is claimed twice");
        cloud.arrives(cloud.node, other, moving[0]).await;
    }
    cloud.step(0).await;
    let now = cloud.maintained(task).await;
    assert_eq!((now.task.state, now.task.progress), (TaskState::Done, 100));
    let states: Vec<_> = now.servers.iter().map(|(row, _)| row.state).collect();
    assert_eq!(states.iter().filter(|state| **state == RelocationState::Moved).count(), 2);
    assert_eq!(states.iter().filter(|state| **state == RelocationState::Stays).count(), 1);
    assert_eq!((cloud.claimed(cloud.node).await, cloud.claimed(other).await), (192, 2 * 192));
    let parts = TaskFilter { parent_id: Some(task), limit: 10, ..TaskFilter::default() };
    let (parts, _) = cloud.engine.tasks(&cloud.admin, parts).await.unwrap();
    assert!(parts.len() == 2 && parts.iter().all(|part| part.state == TaskState::Done));
    assert_eq!(parts[0].detail["blackout_ms"], 7);
    assert_eq!(cloud.step(0).await, 0);

    let back = cloud.engine.node_restore(&again(&cloud.admin), "node-1", &WISH).await.unwrap();
    for _ in 0..2 {
        cloud.step(0).await;
        let moving = cloud.moving().await;
        cloud.arrives(other, cloud.node, moving[0]).await;
    }
    cloud.step(0).await;
    assert_eq!(cloud.maintained(back.task.id).await.task.state, TaskState::Done);
    for id in ids {
        assert_eq!(cloud.server(id).await.node_id, Some(cloud.node));
    }
    assert_eq!((cloud.claimed(cloud.node).await, cloud.claimed(other).await), (3 * 192, 0));
}

#[tokio::test]
async fn a_server_that_cannot_move_runs_on_and_is_reported() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    cloud.joined(&[cloud.node, other]).await;
    let task = cloud.engine.node_drain(&again(&cloud.admin), "node-1", &WISH).await.unwrap().task.id;
    for attempt in 0..3 {
        cloud.step(attempt * 60).await;
        cloud.says(cloud.node, id, MigrationStage::Failed { message: "no".into() }).await;
        cloud.step(attempt * 60).await;
    }
    let now = cloud.maintained(task).await;
    assert_eq!((now.task.state, now.servers[0].0.attempts), (TaskState::Failed, 3));
    assert!(now.task.error.unwrap().contains("run where they were"));
    let server = cloud.server(id).await;
    assert_eq!((server.node_id, server.task), (Some(cloud.node), None));
    assert_eq!((cloud.claimed(cloud.node).await, cloud.claimed(other).await), (192, 0));
}

#[tokio::test]
async fn a_drain_that_is_given_up_keeps_no_room() {
    let cloud = Cloud::start().await;
    let ids = [cloud.running().await, cloud.running().await];
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    cloud.joined(&[cloud.node, other]).await;
    let task = cloud.engine.node_drain(&again(&cloud.admin), "node-1", &WISH).await.unwrap().task.id;
    cloud.step(0).await;
    let moving = cloud.moving().await[0];
    cloud.engine.task_cancel(&again(&cloud.admin), task).await.unwrap();
    cloud.step(0).await;
    cloud.says(cloud.node, moving, MigrationStage::Cancelled).await;
    cloud.step(0).await;
    assert_eq!(cloud.maintained(task).await.task.state, TaskState::Cancelled);
    for id in ids {
        assert_eq!(cloud.server(id).await.node_id, Some(cloud.node));
    }
    assert_eq!((cloud.claimed(cloud.node).await, cloud.claimed(other).await), (2 * 192, 0));
}

#[tokio::test]
async fn emulated_guests_move_one_by_one_unless_somebody_says_otherwise() {
    let cloud = Cloud::start().await;
    cloud.running().await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    cloud.joined(&[cloud.node, other]).await;
    let parallel = async |parallel| {
        let wish = DrainWish { parallel, deadline_s: None, plan_only: true };
        let planned = cloud.engine.node_drain(&again(&cloud.admin), "node-1", &wish).await.unwrap();
        planned.task.detail["parallel"].as_u64().unwrap()
    };
    assert_eq!((parallel(None).await, parallel(Some(3)).await), (2, 3));
    let store = cloud.engine.store();
    let facts = store.node_get(cloud.node).await.unwrap().unwrap().facts;
    let tx = store.begin_unaudited().await.unwrap();
    tx.node_facts_set(cloud.node, &NodeFacts { accel: "tcg".into(), ..facts }).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((parallel(None).await, parallel(Some(3)).await), (1, 3));
}
