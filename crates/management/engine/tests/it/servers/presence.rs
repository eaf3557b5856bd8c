//! Nodes that say nothing new: what that costs, and who knows that they spoke.

use super::{Cloud, node};
use arcus_store::Store;
use arcus_types::agent::{NodeFacts, NodeReport};
use arcus_types::servers::ServerState;
use arcus_types::{Actor, NodeId, OpCtx, RequestId, Scope, Timestamp};
use std::time::{Duration, Instant};

const NODES: usize = 30;
const SYNCS: usize = 10;

fn as_node(node_id: NodeId) -> OpCtx {
    OpCtx { actor: Actor::Node { node_id }, scope: Scope::System, ..OpCtx::anonymous(RequestId::new()) }
}

fn idle() -> NodeReport {
    let facts = NodeFacts { vcpus: 8, memory_mib: 8192, disk_gib: 100, ..NodeFacts::default() };
    NodeReport { facts, ..NodeReport::default() }
}

#[tokio::test]
async fn syncs_that_change_nothing_write_nothing_and_a_restarted_server_knows_who_spoke() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("presence.db").display());
    let cloud = Cloud::over(Store::open(&url).await.unwrap(), folder).await;
    let store = cloud.engine.store();
    let mut nodes = vec![cloud.node];
    for at in 1..NODES {
        nodes.push(node(store, &format!("idle-{at}"), 8192).await);
    }
    for id in &nodes {
        cloud.engine.node_report(&as_node(*id), &idle()).await.unwrap();
    }
    store.provider_changes().take();
    let (began, writes) = (Timestamp::now(), store.writes());
    for id in nodes.iter().cycle().take(NODES * SYNCS) {
        cloud.engine.node_report(&as_node(*id), &idle()).await.unwrap();
    }
    assert_eq!(store.writes() - writes, 0, "{SYNCS} idle syncs of {NODES} nodes");
    assert!(store.provider_changes().take().is_empty(), "placement has nothing to read again");
    for id in &nodes {
        assert!(store.node_get(*id).await.unwrap().unwrap().seen_at >= began, "the time shown is true all the same");
    }

    let now = Instant::now();
    assert_eq!(cloud.engine.nodes_seen_write(now).await.unwrap(), NODES);
    assert_eq!(store.writes() - writes, 1, "one write for all of them");
    cloud.engine.node_report(&as_node(cloud.node), &idle()).await.unwrap();
    assert_eq!(cloud.engine.nodes_seen_write(now + Duration::from_secs(1)).await.unwrap(), 0, "it is not due");
    let later = now + Duration::from_secs(cloud.engine.config().node_down_after_s);
    assert_eq!(cloud.engine.nodes_seen_write(later).await.unwrap(), 1, "only who was heard of since");

    let restarted = Store::open(&url).await.unwrap();
    for id in &nodes {
        assert!(restarted.node_get(*id).await.unwrap().unwrap().seen_at >= began);
    }
}

#[tokio::test]
async fn a_node_gets_servers_again_when_it_speaks_though_nothing_was_written() {
    let cloud = Cloud::start().await;
    let report = idle();
    cloud.engine.node_report(&as_node(cloud.node), &report).await.unwrap();
    cloud.engine.store().presence().heard(cloud.node, Timestamp(0));
    let id = cloud.create(cloud.wish()).await.unwrap().servers[0].id;
    assert_eq!(cloud.server(id).await.state, ServerState::Error, "the only node is silent");
    cloud.engine.node_report(&as_node(cloud.node), &report).await.unwrap();
    let id = cloud.create(cloud.wish()).await.unwrap().servers[0].id;
    assert_ne!(cloud.server(id).await.state, ServerState::Error);
}
