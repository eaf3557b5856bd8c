//! Clusters and what may be claimed of their nodes, on both databases.

use arcus_store::testing::{Postgres, sqlite};
use arcus_store::{AuditEntry, Cluster, NodeNew, Store, StoreError, Tx};
use arcus_types::agent::NodeFacts;
use arcus_types::clusters::Overcommit;
use arcus_types::placement::Filling;
use arcus_types::policy::arcus::CLUSTER_UPDATE;
use arcus_types::{ClusterId, NodeId, OpCtx, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::task::JoinSet;

async fn begin(store: &Store) -> Tx {
    let tx = store.begin(&OpCtx::system()).await.unwrap();
    let detail = json!({});
    let entry =
        AuditEntry { action: CLUSTER_UPDATE, kind: "test", id: String::new(), project_id: None, detail: &detail };
    tx.audit(entry).await.unwrap();
    tx
}

fn cluster(name: &str, vcpus_percent: u64) -> Cluster {
    let now = Timestamp::now();
    Cluster {
        id: ClusterId::new(),
        name: name.into(),
        zone: "nova".into(),
        description: String::new(),
        overcommit: Overcommit { vcpus_percent, memory_percent: 100, disk_percent: 100 },
        filling: Filling::Pack,
        created_at: now,
        updated_at: now,
    }
}

async fn node(store: &Store, name: &str, vcpus: u32) -> NodeId {
    let new = NodeNew { id: NodeId::new(), name: name.parse().unwrap(), availability_zone: "nova".into() };
    let facts = NodeFacts { vcpus, memory_mib: 1_000, disk_gib: 100, ..NodeFacts::default() };
    let t = begin(store).await;
    t.node_insert(&new).await.unwrap();
    t.node_facts_set(new.id, &facts).await.unwrap();
    t.commit().await.unwrap();
    new.id
}

async fn caps(store: &Store, id: NodeId) -> (u64, u64, u64) {
    let found = store.node_get(id).await.unwrap().unwrap();
    (found.vcpus_cap, found.memory_mib_cap, found.disk_gib_cap)
}

async fn a_node_has_what_its_cluster_lets_be_claimed(store: &Store) {
    let (n1, mut own) = (node(store, "c1", 3).await, cluster("own", 150));
    assert_eq!(caps(store, n1).await, (48, 1_000, 1_000), "the default cluster's figures");
    let t = begin(store).await;
    t.cluster_insert(&own).await.unwrap();
    assert!(matches!(t.cluster_insert(&cluster("own", 1)).await, Err(StoreError::Duplicate(_))));
    drop(t);
    let t = begin(store).await;
    t.cluster_insert(&own).await.unwrap();
    assert!(t.node_cluster_set(n1, own.id).await.unwrap());
    assert!(!t.node_cluster_set(n1, ClusterId::new()).await.unwrap());
    assert!(!t.node_cluster_set(NodeId::new(), own.id).await.unwrap());
    assert!(!t.cluster_delete(own.id).await.unwrap(), "it has a node");
    t.commit().await.unwrap();
    assert_eq!(caps(store, n1).await, (4, 1_000, 100));
    let found = store.node_get(n1).await.unwrap().unwrap();
    assert_eq!((found.cluster_id, found.overcommit, found.filling), (own.id, own.overcommit, Filling::Pack));

    let t = begin(store).await;
    assert!(t.node_claim(n1, 4, 10, 10).await.unwrap());
    own.overcommit.vcpus_percent = 100;
    t.cluster_hold(own.id).await.unwrap().unwrap();
    t.cluster_update(&own).await.unwrap();
    assert!(!t.node_claim(n1, 0, 10, 10).await.unwrap(), "more is claimed than may be");
    t.node_release(n1, 2, 0, 0).await.unwrap();
    assert!(t.node_claim(n1, 1, 10, 10).await.unwrap());
    assert!(!t.node_claim(n1, 1, 10, 10).await.unwrap());
    t.commit().await.unwrap();
    assert!(store.provider_changes().take().contains(&n1.into()));
    let uses = store.cluster_uses(&[own.id, ClusterId::DEFAULT]).await.unwrap();
    let figures = uses.iter().find(|(id, _)| *id == own.id).unwrap().1;
    assert_eq!((figures.nodes, figures.vcpus, figures.disk_gib), (1, (3, 3), (100, 20)));

    let facts = NodeFacts { vcpus: 10, memory_mib: 500, disk_gib: 50, ..NodeFacts::default() };
    let t = begin(store).await;
    t.node_facts_set(n1, &facts).await.unwrap();
    assert!(t.node_cluster_set(n1, ClusterId::DEFAULT).await.unwrap());
    assert!(t.cluster_delete(own.id).await.unwrap());
    t.commit().await.unwrap();
    assert_eq!(caps(store, n1).await, (160, 500, 500));
    let page = store.cluster_page(None, None, 10).await.unwrap();
    assert_eq!(page.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["default"]);
    assert!(store.cluster_page(Some("own"), None, 10).await.unwrap().is_empty());
    assert!(store.cluster_page(None, Some("default"), 10).await.unwrap().is_empty());
}

/// Flavors, nodes and ratios at random, claimed by several at once while the ratios change.
async fn nothing_is_over_claimed(store: &Store, seed: u64, rounds: usize) {
    let mut draw = StdRng::seed_from_u64(seed);
    let own = cluster(&format!("random-{seed}"), draw.random_range(50..400));
    let t = begin(store).await;
    t.cluster_insert(&own).await.unwrap();
    t.commit().await.unwrap();
    let mut nodes = Vec::new();
    for at in 0..3 {
        let id = node(store, &format!("random-{seed}-{at}"), draw.random_range(1..12)).await;
        let t = begin(store).await;
        assert!(t.node_cluster_set(id, own.id).await.unwrap());
        t.commit().await.unwrap();
        nodes.push(id);
    }
    let mut workers = JoinSet::new();
    for worker in 0..4 {
        let (store, nodes, own) = (store.clone(), nodes.clone(), own.clone());
        workers.spawn(async move {
            let mut draw = StdRng::seed_from_u64(seed * 100 + worker);
            let mut held = Vec::new();
            for _ in 0..rounds {
                let at = nodes[draw.random_range(0..nodes.len())];
                let flavor = (draw.random_range(0..5), draw.random_range(1..200), draw.random_range(0..20));
                let t = begin(&store).await;
                let choice = draw.random_range(0..10);
                if choice == 0 {
                    let mut changed = t.cluster_hold(own.id).await.unwrap().unwrap();
                    changed.overcommit.vcpus_percent = draw.random_range(10..400);
                    changed.overcommit.memory_percent = draw.random_range(10..200);
                    t.cluster_update(&changed).await.unwrap();
                } else if choice < 3
                    && let Some((at, (vcpus, memory, disk))) = held.pop()
                {
                    t.node_release(at, vcpus, memory, disk).await.unwrap();
                } else if t.node_claim(at, flavor.0, flavor.1, flavor.2).await.unwrap() {
                    // Nobody else changes the row until the end of this transaction.
                    let now = t.node_get(at).await.unwrap().unwrap();
                    assert!(now.vcpus_used <= now.vcpus_cap && now.memory_mib_used <= now.memory_mib_cap, "{now:?}");
                    assert!(now.disk_gib_used <= now.disk_gib_cap, "{now:?}");
                    held.push((at, flavor));
                }
                t.commit().await.unwrap();
            }
            held
        });
    }
    let held: Vec<_> = workers.join_all().await.into_iter().flatten().collect();
    for id in nodes {
        let sum = held
            .iter()
            .filter(|(at, _)| *at == id)
            .fold((0, 0, 0), |sum: (u64, u64, u64), (_, f)| (sum.0 + f.0, sum.1 + f.1, sum.2 + f.2));
        let found = store.node_get(id).await.unwrap().unwrap();
        assert_eq!((found.vcpus_used, found.memory_mib_used, found.disk_gib_used), sum);
        let figures = store.cluster_get(own.id).await.unwrap().unwrap().overcommit;
        assert_eq!(found.overcommit, figures, "a change reaches every node");
        assert_eq!(found.vcpus_cap, u64::from(found.facts.vcpus) * figures.vcpus_percent / 100);
    }
}

async fn all(store: &Store) {
    a_node_has_what_its_cluster_lets_be_claimed(store).await;
    for seed in 1..=4 {
        nothing_is_over_claimed(store, seed, 60).await;
    }
}

#[tokio::test]
async fn on_sqlite() {
    let (store, _folder) = sqlite().await;
    all(&store).await;
}

#[tokio::test]
async fn on_postgres() {
    let postgres = Postgres::start();
    all(&postgres.store().await).await;
}
