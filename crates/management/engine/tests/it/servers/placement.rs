//! Why servers are where they are, and that nothing is given away twice.

use super::{Cloud, again, node, node_in};
use arcus_engine::node_services::ServiceChange;
use arcus_engine::servers::{EvacuateWish, ExplainWish, Networks, ServerNew, ZoneWish};
use arcus_engine::{Engine, EngineConfig, EngineError};
use arcus_types::agent::NodeFacts;
use arcus_types::placement::Filter;
use arcus_types::servers::ServerState;
use std::sync::Arc;

#[tokio::test]
async fn a_server_can_be_asked_why_it_is_where_it_is() {
    let cloud = Cloud::start().await;
    node_in(cloud.engine.store(), "far", 8192, "other").await;
    node(cloud.engine.store(), "small", 100).await;
    let wish = ServerNew { zone: ZoneWish { zone: Some("nova".into()), node: None }, ..cloud.wish() };
    // Nodes count as alive once they were heard of: the two that joined last said their facts just now.
    let id = cloud.create(wish).await.unwrap().servers[0].id;
    let view = cloud.engine.placement_get(&cloud.member, id).await.unwrap();
    let [decision] = view.decisions.as_slice() else { panic!("{:?}", view.decisions) };
    assert_eq!((decision.occasion.as_str(), decision.record.nodes, decision.record.fit), ("create", 3, 1));
    assert_eq!(decision.node.as_ref().map(|(id, _)| *id), Some(cloud.node));
    assert!(decision.record.score.is_some_and(|score| score.memory > 900));
    let refused: Vec<_> = decision.record.refused.iter().map(|count| (count.filter, count.nodes)).collect();
    assert_eq!(refused, [(Filter::Zone, 1), (Filter::Memory, 1)]);

    let (_, answer) = cloud.engine.placement_on(&cloud.admin, id, "small").await.unwrap();
    assert_eq!(answer.now.refusals[0].words, "100 MiB of memory free, 192 wanted");
    assert!(answer.recorded.is_some() && !answer.here);
    let (_, answer) = cloud.engine.placement_on(&cloud.admin, id, "node-1").await.unwrap();
    assert!(answer.here && answer.now.refusals.is_empty());
    let error = cloud.engine.placement_on(&cloud.member, id, "small").await.unwrap_err();
    assert!(matches!(error, EngineError::Denied(_)), "{error:?}");
}

#[tokio::test]
async fn what_moves_is_decided_again_and_the_history_is_bounded() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let mut here = "node-1".to_owned();
    for turn in 2..=12 {
        let next = node(cloud.engine.store(), &format!("node-{turn}"), 8192).await;
        let old = cloud.engine.store().node_by_name(&here).await.unwrap().unwrap().id;
        let declared = ServiceChange { enabled: None, forced_down: Some(true) };
        cloud.engine.service_change(&again(&cloud.admin), old, &declared).await.unwrap();
        let wish = EvacuateWish { node: Some(format!("node-{turn}")), ..EvacuateWish::default() };
        cloud.engine.server_evacuate(&again(&cloud.admin), id, &wish).await.unwrap();
        assert_eq!(cloud.server(id).await.node_id, Some(next));
        here = format!("node-{turn}");
        cloud.settle(id).await;
    }
    let view = cloud.engine.placement_get(&cloud.member, id).await.unwrap();
    assert_eq!(view.decisions.len(), 8);
    assert!(view.decisions.iter().all(|d| d.occasion == "evacuate"));
    assert_eq!(view.decisions[0].node.as_ref().map(|(_, name)| name.as_str()), Some("node-12"));
}

impl Cloud {
    /// Ends what is under way with a server, as its node would.
    async fn settle(&self, id: arcus_types::ServerId) {
        let tx = self.engine.store().begin_unaudited().await.unwrap();
        let mut server = tx.server_lock(id).await.unwrap().unwrap();
        (server.task, server.task_deadline, server.state) = (None, None, ServerState::Active);
        tx.server_update(&mut server).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_dry_run_counts_and_claims_nothing() {
    let cloud = Cloud::start().await;
    let wish = ExplainWish { flavor: Some("arcus.small".into()), ..ExplainWish::default() };
    let explained = cloud.engine.placement_explain(&cloud.member, &wish).await.unwrap();
    assert_eq!((explained.record.memory_mib, explained.record.fit), (512, 1));
    assert_eq!(cloud.node_used().await, (0, 0, 0));
    let wish = ExplainWish { memory_mib: Some(1 << 20), ..ExplainWish::default() };
    let explained = cloud.engine.placement_explain(&cloud.member, &wish).await.unwrap();
    assert_eq!(
        explained.record.words(),
        "The only node cannot take it: 1 lacks memory (1048576 MiB asked, at most 8192 free)."
    );
    assert!(cloud.engine.placement_explain(&cloud.member, &ExplainWish::default()).await.is_err());
}

/// Two engines that know nothing of each other, each with its own idea of what is free, fill two nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_claims_never_give_a_node_away_twice() {
    let cloud = Arc::new(Cloud::start().await);
    let sizes = [("node-1", cloud.node, 192 * 3), ("b", node(cloud.engine.store(), "b", 400).await, 400)];
    let tx = cloud.engine.store().begin_unaudited().await.unwrap();
    for (_, id, memory) in sizes {
        let facts = NodeFacts { vcpus: 8, memory_mib: memory, disk_gib: 100, ..NodeFacts::default() };
        tx.node_facts_set(id, &facts).await.unwrap();
    }
    tx.commit().await.unwrap();
    let config = EngineConfig::under(cloud._folder.path());
    let engines = [cloud.engine.clone(), Engine::new(cloud.engine.store().clone(), config)];
    let tasks: Vec<_> = (0..10)
        .map(|number| {
            let (cloud, engine) = (Arc::clone(&cloud), engines[number % 2].clone());
            tokio::spawn(async move {
                let wish = ServerNew { networks: Networks::None, ..cloud.wish() };
                engine.server_create(&again(&cloud.member), wish).await.unwrap().servers[0].state
            })
        })
        .collect();
    let mut placed = 0;
    for task in tasks {
        placed += u64::from(task.await.unwrap() != ServerState::Error);
    }
    assert_eq!(placed, 3 + 2);
    for (name, id, memory) in sizes {
        let node = cloud.engine.store().node_get(id).await.unwrap().unwrap();
        assert!(node.memory_mib_used <= memory && memory - node.memory_mib_used < 192, "{name}: {node:?}");
    }
}
