//! Nodes that fall silent and come back, and their servers.

use super::{Cloud, again, node, node_in};
use arcus_engine::EngineError;
use arcus_engine::node_services::ServiceChange;
use arcus_engine::servers::EvacuateWish;
use arcus_types::agent::{NodeFacts, NodeReport, Power};
use arcus_types::nodes::{LEASE_MS, NodeState};
use arcus_types::servers::{ServerState, ServerTask};
use arcus_types::{Actor, NodeId, OpCtx, RequestId, Scope};
use std::time::{Duration, Instant};

fn as_node(node_id: NodeId) -> OpCtx {
    OpCtx { actor: Actor::Node { node_id }, scope: Scope::System, ..OpCtx::anonymous(RequestId::new()) }
}

impl Cloud {
    async fn standing(&self, node: NodeId) -> (NodeState, bool) {
        let node = self.engine.store().node_get(node).await.unwrap().unwrap();
        (node.state, node.held)
    }

    async fn lease(&self, node: NodeId, now: Instant) -> u64 {
        self.engine.node_lease(&as_node(node), now).await.unwrap()
    }

    /// Lets time pass, in which only these nodes renew their leases; the moment at its end.
    async fn passes(&self, from: Instant, seconds: u64, speaking: &[NodeId]) -> Instant {
        for second in 1..=seconds {
            let now = from + Duration::from_secs(second);
            for node in speaking {
                self.lease(*node, now).await;
            }
            self.engine.nodes_watch(now).await.unwrap();
        }
        from + Duration::from_secs(seconds)
    }
}

#[tokio::test]
async fn a_node_that_falls_silent_is_lost_and_comes_back_when_it_has_caught_up() {
    let cloud = Cloud::start().await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    let now = Instant::now();
    assert_eq!(cloud.lease(cloud.node, now).await, LEASE_MS);
    let now = cloud.passes(now, 10, &[cloud.node, other]).await;
    let now = cloud.passes(now, 14, &[other]).await;
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Up, false));
    let now = cloud.passes(now, 1, &[other]).await;
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Suspect, false));
    let now = cloud.passes(now, 9, &[other]).await;
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Suspect, false));
    let now = cloud.passes(now, 1, &[other]).await;
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Lost, false));
    assert_eq!(cloud.standing(other).await, (NodeState::Up, false));

    assert_eq!(cloud.lease(cloud.node, now).await, 0, "it gets no lease before it counts as back");
    let now = cloud.passes(now, 1, &[cloud.node, other]).await;
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Back, false));
    assert_eq!(cloud.lease(cloud.node, now).await, LEASE_MS);
    let now = cloud.passes(now, 5, &[cloud.node, other]).await;
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Back, false), "it has not caught up");
    let generation = cloud.engine.store().node_spec_generation(cloud.node).await.unwrap().unwrap();
    let facts = NodeFacts { vcpus: 8, memory_mib: 8192, disk_gib: 100, ..NodeFacts::default() };
    let report = NodeReport { spec_generation: generation, facts, ..NodeReport::default() };
    cloud.engine.node_report(&as_node(cloud.node), &report).await.unwrap();
    cloud.passes(now, 1, &[cloud.node, other]).await;
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Up, false));
}

#[tokio::test]
async fn nodes_that_fall_silent_together_are_lost_but_held() {
    let cloud = Cloud::start().await;
    let second = node(cloud.engine.store(), "node-2", 8192).await;
    let third = node(cloud.engine.store(), "node-3", 8192).await;
    let elsewhere = node_in(cloud.engine.store(), "node-4", 8192, "other").await;
    let now = Instant::now();
    let now = cloud.passes(now, 1, &[cloud.node, second, third, elsewhere]).await;
    let now = cloud.passes(now, 3, &[second, third]).await;
    cloud.passes(now, 30, &[third]).await;
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Lost, true));
    assert_eq!(cloud.standing(second).await, (NodeState::Lost, true));
    assert_eq!(cloud.standing(third).await, (NodeState::Up, false));
    assert_eq!(cloud.standing(elsewhere).await, (NodeState::Lost, false), "another zone is another matter");
}

#[tokio::test]
async fn a_server_that_slept_counts_silence_from_when_it_woke() {
    let cloud = Cloud::start().await;
    let now = Instant::now();
    let now = cloud.passes(now, 2, &[cloud.node]).await;
    let woken = now + Duration::from_secs(3_600);
    cloud.engine.nodes_watch(woken).await.unwrap();
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Up, false));
    let now = cloud.passes(woken, 24, &[]).await;
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Suspect, false));
    cloud.passes(now, 1, &[]).await;
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Lost, false));
}

#[tokio::test]
async fn a_server_is_evacuated_from_a_node_that_is_down_and_from_no_other() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let before = cloud.server(id).await;
    let other = node(cloud.engine.store(), "node-2", 8192).await;
    let wish = EvacuateWish::default();
    let refused = cloud.engine.server_evacuate(&again(&cloud.member), id, &wish).await.unwrap_err();
    assert!(matches!(refused, EngineError::Denied(_)));
    let refused = cloud.engine.server_evacuate(&again(&cloud.admin), id, &wish).await.unwrap_err();
    assert_eq!(refused.to_string(), "Compute service of node-1 is still in use.");

    let declared = ServiceChange { enabled: None, forced_down: Some(true) };
    cloud.engine.service_change(&again(&cloud.admin), cloud.node, &declared).await.unwrap();
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Dead, false));
    assert_eq!(cloud.lease(cloud.node, Instant::now()).await, 0);
    let view = cloud.engine.server_show(&cloud.admin, id, false).await.unwrap();
    assert!(!view.node.unwrap().alive);
    let same = EvacuateWish { node: Some("node-1".into()), ..EvacuateWish::default() };
    assert!(cloud.engine.server_evacuate(&again(&cloud.admin), id, &same).await.is_err());
    let password = cloud.engine.server_evacuate(&again(&cloud.admin), id, &wish).await.unwrap();
    assert_eq!(password.len(), 12);

    let after = cloud.server(id).await;
    assert_eq!((after.node_id, after.epoch), (Some(other), before.epoch + 1));
    assert_eq!((after.state, after.task), (ServerState::Active, Some(ServerTask::Rebuilding)));
    assert_eq!((after.power, after.incarnation), (Power::Running, before.incarnation + 1));
    assert_eq!(cloud.node_used().await, (0, 0, 0));
    assert!(cloud.spec(id).await.is_none(), "the node that is down is told to remove it");
    let ports = cloud.engine.store().port_list_by_servers(&[id]).await.unwrap();
    assert!(ports.iter().all(|port| port.node_id == Some(other)));

    // What the old node says of it no longer counts.
    cloud.play().await;
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::Rebuilding));
    let taken_back = ServiceChange { enabled: None, forced_down: Some(false) };
    cloud.engine.service_change(&again(&cloud.admin), cloud.node, &taken_back).await.unwrap();
    assert_eq!(cloud.standing(cloud.node).await, (NodeState::Back, false), "it was heard of just now");
}
