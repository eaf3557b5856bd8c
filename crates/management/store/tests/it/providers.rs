//! Resource providers and who claims of them, on both databases.

use arcus_store::testing::{Postgres, sqlite};
use arcus_store::{AllocationRow, AuditEntry, Consumer, Inventory, NodeNew, Provider, ProviderWord, Store, Tx};
use arcus_types::agent::NodeFacts;
use arcus_types::policy::placement::PROVIDER_CREATE;
use arcus_types::{ConsumerId, NodeId, OpCtx, ProviderAggregateId, ProviderId, Timestamp};
use serde_json::json;

async fn begin(store: &Store) -> Tx {
    let tx = store.begin(&OpCtx::system()).await.unwrap();
    let detail = json!({});
    let entry =
        AuditEntry { action: PROVIDER_CREATE, kind: "test", id: String::new(), project_id: None, detail: &detail };
    tx.audit(entry).await.unwrap();
    tx
}

fn provider(name: &str) -> Provider {
    let (id, now) = (ProviderId::new(), Timestamp::now());
    Provider {
        id,
        name: name.into(),
        parent_id: None,
        root_id: id,
        generation: 0,
        inventories: Vec::new(),
        traits: Vec::new(),
        aggregates: Vec::new(),
        node: None,
        created_at: now,
        updated_at: now,
    }
}

fn vgpus(total: u64) -> Inventory {
    let class = "VGPU".to_owned();
    let ratio_millionths = 1_500_000;
    let cap = Inventory::cap_of(total, 0, ratio_millionths);
    Inventory { class, total, reserved: 0, min_unit: 1, max_unit: total, step_size: 1, ratio_millionths, cap, used: 0 }
}

async fn a_claim_never_exceeds_what_there_is(store: &Store) {
    let (pool, consumer) = (provider("pool"), ConsumerId::random());
    let node = NodeNew { id: NodeId::new(), name: "n1".parse().unwrap(), availability_zone: "nova".into() };
    let aggregate = ProviderAggregateId::random();
    let t = begin(store).await;
    t.provider_insert(&pool).await.unwrap();
    t.node_insert(&node).await.unwrap();
    t.node_facts_set(node.id, &NodeFacts { vcpus: 2, ..NodeFacts::default() }).await.unwrap();
    assert!(t.inventory_set(pool.id, &vgpus(4)).await.unwrap());
    assert!(t.provider_generation_raise(pool.id, Some(0)).await.unwrap());
    assert!(!t.provider_generation_raise(pool.id, Some(0)).await.unwrap());
    assert!(t.inventory_claim(pool.id, "VGPU", 5).await.unwrap());
    assert!(!t.inventory_claim(pool.id, "VGPU", 2).await.unwrap());
    assert!(!t.inventory_delete(pool.id, "VGPU").await.unwrap());
    t.provider_traits_set(pool.id, &["CUSTOM_B".into(), "CUSTOM_A".into()]).await.unwrap();
    t.provider_aggregates_set(pool.id, &[aggregate]).await.unwrap();
    let told = |generation| Consumer {
        id: consumer,
        project: "p".into(),
        owner: "u".into(),
        kind: "TEST".into(),
        generation,
        is_server: false,
        updated_at: Timestamp::now(),
    };
    assert!(t.consumer_set(&told(0)).await.unwrap());
    assert!(!t.consumer_set(&told(0)).await.unwrap());
    assert!(t.consumer_set(&told(1)).await.unwrap());
    let claim = AllocationRow { consumer_id: consumer, provider_id: pool.id, class: "VGPU".into(), used: 5 };
    t.allocations_set(consumer, std::slice::from_ref(&claim)).await.unwrap();
    assert!(t.provider_word_insert(ProviderWord::Trait, "CUSTOM_A").await.unwrap());
    assert!(!t.provider_word_insert(ProviderWord::Trait, "CUSTOM_A").await.unwrap());
    t.commit().await.unwrap();
    let changed = store.provider_changes().take();
    assert!(changed.contains(&pool.id) && changed.contains(&node.id.into()));

    let all = store.provider_list(None).await.unwrap();
    let names: Vec<&str> = all.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["pool", "n1"]);
    assert_eq!(all[0].inventories[0].used, 5);
    assert_eq!(all[0].traits, ["CUSTOM_A", "CUSTOM_B"]);
    assert_eq!(all[0].aggregates, [aggregate]);
    assert_eq!(all[1].node.as_ref().unwrap().vcpus_cap, 32);
    assert_eq!(store.provider_list(Some(&[pool.id])).await.unwrap(), all[..1]);
    let (who, claims) = store.consumer_get(consumer).await.unwrap().unwrap();
    assert_eq!((who.generation, claims), (2, vec![claim.clone()]));
    assert_eq!(store.allocation_list(pool.id).await.unwrap()[0].1, vec![claim]);
    let usages = store.consumer_usages("p", Some("u"), None).await.unwrap();
    assert_eq!(usages[0].classes, [("VGPU".to_owned(), 5)]);
    assert!(store.provider_claimed(pool.id).await.unwrap());
    assert!(store.provider_word_used(ProviderWord::Trait, "CUSTOM_B").await.unwrap());
    let t = begin(store).await;
    assert!(t.consumer_delete(consumer).await.unwrap());
    assert!(t.provider_delete(pool.id).await.unwrap());
    t.commit().await.unwrap();
    assert!(store.allocation_list(pool.id).await.unwrap().is_empty());
}

async fn when_nodes_were_heard_of_is_written_at_once_and_never_goes_back(store: &Store) {
    let new = |name: &str| NodeNew { id: NodeId::new(), name: name.parse().unwrap(), availability_zone: "nova".into() };
    let (one, two, other) = (new("seen-1"), new("seen-2"), new("seen-3"));
    let t = begin(store).await;
    for node in [&one, &two, &other] {
        t.node_insert(node).await.unwrap();
    }
    t.nodes_seen(&[(one.id, Timestamp(5_000)), (two.id, Timestamp(7_000))]).await.unwrap();
    t.nodes_seen(&[(one.id, Timestamp(4_000)), (two.id, Timestamp(8_000))]).await.unwrap();
    t.nodes_seen(&[]).await.unwrap();
    t.commit().await.unwrap();
    let mut seen = Vec::new();
    for node in [&one, &two, &other] {
        seen.push(store.node_get(node.id).await.unwrap().unwrap().seen_at.0);
    }
    assert_eq!(seen, [5_000, 8_000, 0]);
}

#[tokio::test]
async fn on_sqlite() {
    let (store, _folder) = sqlite().await;
    a_claim_never_exceeds_what_there_is(&store).await;
    when_nodes_were_heard_of_is_written_at_once_and_never_goes_back(&store).await;
}

#[tokio::test]
async fn on_postgres() {
    let postgres = Postgres::start();
    let store = postgres.store().await;
    a_claim_never_exceeds_what_there_is(&store).await;
    when_nodes_were_heard_of_is_written_at_once_and_never_goes_back(&store).await;
}
