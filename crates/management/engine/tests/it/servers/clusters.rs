//! Clusters: what may be claimed of their nodes, which node is taken first, and which nodes belong together.

use super::{Cloud, again, node};
use arcus_engine::EngineError;
use arcus_engine::clusters::ClusterWish;
use arcus_engine::servers::{Networks, ServerNew};
use arcus_types::agent::NodeFacts;
use arcus_types::clusters::CpuFacts;
use arcus_types::placement::Filling;
use arcus_types::servers::ServerState;
use arcus_types::{ClusterId, NodeId};

fn facts(accel: &str, model: &str, features: &str) -> NodeFacts {
    NodeFacts {
        vcpus: 8,
        memory_mib: 8192,
        disk_gib: 100,
        accel: accel.into(),
        hypervisor_version: "7.2.22".into(),
        cpu_model: model.into(),
        underlay: Some([10, 0, 0, 1].into()),
        cpu: CpuFacts {
            architecture: "x86_64".into(),
            vendor: "GenuineIntel".into(),
            features: features.into(),
            machine: "pc-q35-7.2".into(),
        },
        ..NodeFacts::default()
    }
}

impl Cloud {
    async fn node_says(&self, node: NodeId, facts: &NodeFacts) {
        let tx = self.engine.store().begin_unaudited().await.unwrap();
        tx.node_facts_set(node, facts).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn cluster(&self, name: &str) -> ClusterId {
        let wish = ClusterWish { name: Some(name.into()), ..ClusterWish::default() };
        self.engine.cluster_create(&again(&self.admin), &wish).await.unwrap().cluster.id
    }

    async fn alive(&self, nodes: &[NodeId]) {
        let now = arcus_types::Timestamp::now();
        let seen: Vec<_> = nodes.iter().map(|id| (*id, now)).collect();
        let tx = self.engine.store().begin_unaudited().await.unwrap();
        tx.nodes_seen(&seen).await.unwrap();
        tx.commit().await.unwrap();
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, EngineError>) -> (&'static str, String) {
    match answer.unwrap_err() {
        EngineError::Conflict { code, message } => (code, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_that_breaks_live_migration_is_refused_by_name() {
    let cloud = Cloud::start().await;
    let (engine, admin) = (&cloud.engine, || again(&cloud.admin));
    let mut ids = Vec::new();
    for (name, facts) in [
        ("a", facts("kvm", "A", "avx avx2 sse")),
        ("b", facts("kvm", "A", "avx sse")),
        ("emulates", facts("tcg", "A", "avx sse")),
    ] {
        let id = node(engine.store(), name, 8192).await;
        cloud.node_says(id, &facts).await;
        ids.push(id);
    }
    let own = cloud.cluster("own").await;
    assert!(engine.cluster_node_add(&admin(), own, "a", false).await.unwrap().hindrances.is_empty());

    let cost = engine.cluster_candidate(&admin(), own, "b").await.unwrap();
    assert_eq!((cost.others, cost.features_lost.len(), cost.hindrances.len()), (1, 1, 1));
    assert_eq!(
        (cost.features_lost[0].feature.as_str(), &cost.features_lost[0].nodes[..]),
        ("avx2", &["a".to_owned()][..])
    );
    let (refused, message) = code(engine.cluster_node_add(&admin(), own, "b", false).await);
    assert_eq!(refused, "ClusterCandidateRefused");
    assert!(message.contains("cpu_features: guests could not move to it, for its CPU lacks avx2"), "{message}");
    engine.cluster_node_add(&admin(), own, "b", true).await.unwrap();
    let (_, message) = code(engine.cluster_node_add(&admin(), own, "emulates", true).await);
    assert!(message.contains("accelerator: ") && message.contains("(a, b)"), "{message}");

    let told = engine.cluster_get(&admin(), own).await.unwrap();
    assert_eq!((told.used.nodes, told.baseline.nodes), (2, 2));
    assert_eq!(told.baseline.features_of_some.iter().map(String::as_str).collect::<Vec<_>>(), ["avx2"]);
    assert_eq!((told.pairs.all, told.pairs.possible, told.pairs.hindered["cpu_features"]), (2, 1, 1));
    let (first, more) = engine.cluster_pairs(&admin(), own, None, 1).await.unwrap();
    assert!(more && first[0].source == "a" && first[0].dest == "b" && first[0].unlike.len() == 1);
    let (rest, more) = engine.cluster_pairs(&admin(), own, Some(("a", "b")), 1).await.unwrap();
    assert!(!more && rest.len() == 1 && rest[0].source == "b" && rest[0].unlike.is_empty());

    let (refused, _) = code(engine.cluster_delete(&admin(), own).await);
    assert_eq!(refused, "ClusterInUse");
    for name in ["a", "b"] {
        engine.cluster_node_remove(&admin(), own, name).await.unwrap();
    }
    assert!(engine.cluster_node_remove(&admin(), own, "a").await.is_err(), "it is not there any more");
    engine.cluster_delete(&admin(), own).await.unwrap();
    assert!(engine.cluster_delete(&admin(), ClusterId::DEFAULT).await.is_err());
    assert!(engine.cluster_get(&cloud.member, ClusterId::DEFAULT).await.is_err());
}

#[tokio::test]
async fn ratios_and_the_way_of_filling_hold_at_once() {
    let cloud = Cloud::start().await;
    let (engine, admin) = (&cloud.engine, || again(&cloud.admin));
    let other = node(engine.store(), "node-2", 8192).await;
    cloud.alive(&[cloud.node, other]).await;
    let create = async || {
        let wish = ServerNew { networks: Networks::None, ..cloud.wish() };
        let made = engine.server_create(&again(&cloud.member), wish).await.unwrap();
        (made.servers[0].node_id, made.servers[0].state)
    };
    let set = async |wish: ClusterWish| engine.cluster_update(&admin(), ClusterId::DEFAULT, &wish).await.unwrap();
    let first = create().await.0.unwrap();
    assert_ne!(create().await.0.unwrap(), first, "spread");
    set(ClusterWish { filling: Some(Filling::Pack), ..ClusterWish::default() }).await;
    let third = create().await.0.unwrap();
    for _ in 0..2 {
        assert_eq!(create().await.0.unwrap(), third, "packed");
    }
    let used = cloud.engine.store().node_get(third).await.unwrap().unwrap();
    assert_eq!(used.vcpus_used, 4);

    let told = set(ClusterWish { vcpus_percent: Some(25), ..ClusterWish::default() }).await;
    assert_eq!((told.used.vcpus, told.cluster.overcommit.vcpus_percent), ((4, 5), 25));
    assert_ne!(create().await.0.unwrap(), third, "more is claimed there than may be");
    assert_eq!(create().await.1, ServerState::Error);
    set(ClusterWish { vcpus_percent: Some(75), ..ClusterWish::default() }).await;
    assert_eq!(create().await.1, ServerState::Building);
    let refused = ClusterWish { vcpus_percent: Some(0), ..ClusterWish::default() };
    assert!(engine.cluster_update(&admin(), ClusterId::DEFAULT, &refused).await.is_err());
}

#[tokio::test]
async fn a_node_takes_its_clusters_zone_unless_it_holds_servers() {
    let cloud = Cloud::start().await;
    let (engine, admin) = (&cloud.engine, || again(&cloud.admin));
    let wish = ClusterWish { name: Some("far".into()), zone: Some("cellar".into()), ..ClusterWish::default() };
    let far = engine.cluster_create(&admin(), &wish).await.unwrap().cluster.id;
    let same_name = engine.cluster_create(&admin(), &wish).await;
    assert_eq!(code(same_name).0, "ClusterNameExists");
    node(engine.store(), "node-2", 8192).await;
    engine.cluster_node_add(&admin(), far, "node-2", false).await.unwrap();
    let zone = async |name: &str| engine.store().node_by_name(name).await.unwrap().unwrap().availability_zone;
    assert_eq!(zone("node-2").await, "cellar");
    let moved = ClusterWish { zone: Some("attic".into()), ..ClusterWish::default() };
    engine.cluster_update(&admin(), far, &moved).await.unwrap();
    assert_eq!(zone("node-2").await, "attic");

    let wish = ServerNew { networks: Networks::None, ..cloud.wish() };
    cloud.alive(&[cloud.node]).await;
    engine.server_create(&again(&cloud.member), wish).await.unwrap();
    assert!(engine.cluster_node_add(&admin(), far, "node-1", false).await.is_err());
    assert_eq!(engine.store().node_by_name("node-1").await.unwrap().unwrap().cluster_id, ClusterId::DEFAULT);
    assert_eq!(zone("node-1").await, "nova");
}
