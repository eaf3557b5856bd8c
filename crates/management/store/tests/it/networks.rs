//! Networks, ports and claims of addresses, on both databases.

use arcus_store::testing::{Postgres, sqlite};
use arcus_store::{
    AllocationPool, AuditEntry, Field, Listing, NETWORK_FIELDS, Network, Port, PortFilter, PortStatus, RbacAction,
    RbacPolicy, RbacType, Store, Stretch, Subnet, TagFilter, Tagged, Tx,
};
use arcus_types::policy::network::PORT_CREATE;
use arcus_types::{MacAddr, NetworkId, OpCtx, PortId, ProjectId, RbacPolicyId, SubnetId, Timestamp};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::IpAddr;

async fn begin(store: &Store) -> Tx {
    let tx = store.begin(&OpCtx::system()).await.unwrap();
    let detail = json!({});
    let entry = AuditEntry { action: PORT_CREATE, kind: "test", id: String::new(), project_id: None, detail: &detail };
    tx.audit(entry).await.unwrap();
    tx
}

fn network(project_id: ProjectId, name: &str) -> Network {
    let now = Timestamp::now();
    Network {
        id: NetworkId::new(),
        project_id,
        name: name.into(),
        description: String::new(),
        admin_up: true,
        shared: false,
        external: false,
        is_default: false,
        mtu: 1450,
        port_security: true,
        segment: 0,
        qos_policy_id: None,
        dns_domain: String::new(),
        zone_hints: Vec::new(),
        tags: Vec::new(),
        subnets: Vec::new(),
        ipv4_address_scope: None,
        ipv6_address_scope: None,
        revision: 1,
        created_at: now,
        updated_at: now,
    }
}

fn subnet(network: &Network, cidr: &str, first: &str, last: &str) -> Subnet {
    let now = Timestamp::now();
    Subnet {
        id: SubnetId::new(),
        network_id: network.id,
        project_id: network.project_id,
        name: String::new(),
        description: String::new(),
        cidr: cidr.parse().unwrap(),
        gateway: None,
        dhcp: true,
        pools: vec![AllocationPool { start: first.parse().unwrap(), end: last.parse().unwrap() }],
        dns_servers: Vec::new(),
        host_routes: Vec::new(),
        ipv6_ra_mode: None,
        ipv6_address_mode: None,
        subnet_pool_id: None,
        external: false,
        tags: Vec::new(),
        revision: 1,
        created_at: now,
        updated_at: now,
    }
}

fn port(network: &Network, mac: u32) -> Port {
    let now = Timestamp::now();
    let [_, a, b, c] = mac.to_be_bytes();
    Port {
        id: PortId::new(),
        network_id: network.id,
        project_id: Some(network.project_id),
        name: String::new(),
        description: String::new(),
        mac: MacAddr::for_port([a, b, c]),
        fixed_ips: Vec::new(),
        admin_up: true,
        status: PortStatus::Down,
        device_id: String::new(),
        device_owner: String::new(),
        server_id: None,
        router_id: None,
        node_id: None,
        binding_host: String::new(),
        binding_profile: json!({}),
        vnic_type: "normal".into(),
        security_groups: Vec::new(),
        port_security: true,
        allowed_pairs: Vec::new(),
        dns_name: String::new(),
        dns_domain: String::new(),
        dhcp_options: Vec::new(),
        qos_policy_id: None,
        qos_network_policy_id: None,
        tags: Vec::new(),
        delete_with_server: false,
        revision: 1,
        created_at: now,
        updated_at: now,
    }
}

async fn claim_one(
    store: &Store,
    network: &Network,
    subnet: SubnetId,
    stretches: &[Stretch],
    mac: u32,
) -> Option<IpAddr> {
    let tx = begin(store).await;
    let port = port(network, mac);
    assert!(tx.port_insert(&port).await.unwrap());
    let drawn = tx.address_claim_next(subnet, stretches, port.id, 0).await.unwrap();
    if drawn.is_some() {
        tx.commit().await.unwrap();
    }
    drawn
}

/// Many callers at once: nobody gets what another one has, and a pool is used to its last address, no further.
async fn parallel_claims_never_collide(store: &Store) {
    const CALLERS: u32 = 1_000;
    const POOL: usize = 900;
    let net = network(ProjectId::new(), "crowd");
    let sub = subnet(&net, "10.9.0.0/22", "10.9.0.10", "10.9.3.141");
    let tx = begin(store).await;
    tx.network_insert(&net).await.unwrap();
    tx.subnet_insert(&sub).await.unwrap();
    tx.commit().await.unwrap();
    let stretches = [Stretch { first: sub.pools[0].start, last: sub.pools[0].end }];
    let mut callers = tokio::task::JoinSet::new();
    for mac in 0..CALLERS {
        let (store, net, id) = (store.clone(), net.clone(), sub.id);
        callers.spawn(async move { claim_one(&store, &net, id, &stretches, mac).await });
    }
    let drawn: Vec<IpAddr> = callers.join_all().await.into_iter().flatten().collect();
    let distinct: BTreeSet<IpAddr> = drawn.iter().copied().collect();
    assert_eq!((drawn.len(), distinct.len()), (POOL, POOL));
    assert_eq!(distinct.first(), Some(&sub.pools[0].start));
    assert_eq!(distinct.last(), Some(&sub.pools[0].end));

    // One address comes back: the next caller finds it, wherever the cursor stands.
    let free: IpAddr = "10.9.1.7".parse().unwrap();
    let filter = PortFilter { addresses: vec![free], ..PortFilter::default() };
    let holder = store.port_list(&Listing::default(), &filter).await.unwrap().rows.remove(0);
    let tx = begin(store).await;
    tx.port_delete(holder.id).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(claim_one(store, &net, sub.id, &stretches, CALLERS).await, Some(free));
    assert_eq!(claim_one(store, &net, sub.id, &stretches, CALLERS + 1).await, None);
}

/// A long-lived subnet draws on behind its last draw in a fixed number of statements, however many are taken.
async fn a_draw_costs_the_same_on_a_full_range(store: &Store) {
    let net = network(ProjectId::new(), "steady");
    let sub = subnet(&net, "10.8.0.0/16", "10.8.0.1", "10.8.255.254");
    let stretches = [Stretch { first: sub.pools[0].start, last: sub.pools[0].end }];
    let tx = begin(store).await;
    tx.network_insert(&net).await.unwrap();
    tx.subnet_insert(&sub).await.unwrap();
    let port = port(&net, 1);
    tx.port_insert(&port).await.unwrap();
    let mut costs = BTreeSet::new();
    for _ in 0..100 {
        let before = tx.queries();
        tx.address_claim_next(sub.id, &stretches, port.id, 0).await.unwrap().unwrap();
        costs.insert(tx.queries() - before);
    }
    assert_eq!(costs, BTreeSet::from([2]));
    tx.commit().await.unwrap();
}

async fn segments_and_macs_are_claimed_once(store: &Store) {
    let (one, two) = (network(ProjectId::new(), "one"), network(ProjectId::new(), "two"));
    let tx = begin(store).await;
    for net in [&one, &two] {
        tx.network_insert(net).await.unwrap();
    }
    let first = tx.segment_claim_next(one.id).await.unwrap().unwrap();
    assert!(!tx.segment_claim(two.id, first).await.unwrap());
    // The next number is taken by somebody's choice: the draw steps over it.
    let mut third = network(ProjectId::new(), "three");
    third.id = NetworkId::new();
    tx.network_insert(&third).await.unwrap();
    assert!(tx.segment_claim(third.id, first + 1).await.unwrap());
    assert_eq!(tx.segment_claim_next(two.id).await.unwrap(), Some(first + 2));
    assert!(tx.port_insert(&port(&one, 7)).await.unwrap());
    assert!(!tx.port_insert(&port(&one, 7)).await.unwrap());
    assert!(tx.port_insert(&port(&two, 7)).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(store.network_get(two.id).await.unwrap().unwrap().segment, first + 2);
}

fn field(name: &str) -> Field {
    *NETWORK_FIELDS.iter().find(|f| f.name == name).unwrap()
}

async fn lists_are_filtered_sorted_and_paged_both_ways(store: &Store) {
    let (mine, theirs) = (ProjectId::new(), ProjectId::new());
    let tx = begin(store).await;
    for name in ["c", "a", "b", "b", "d"] {
        tx.network_insert(&network(mine, name)).await.unwrap();
    }
    tx.network_insert(&network(theirs, "hidden")).await.unwrap();
    let shared = Network { shared: true, ..network(theirs, "shared") };
    tx.network_insert(&shared).await.unwrap();
    let now = Timestamp::now();
    let policy = RbacPolicy {
        id: RbacPolicyId::new(),
        project_id: theirs,
        object_type: RbacType::Network,
        object_id: shared.id.0,
        action: RbacAction::Shared,
        target: None,
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    assert!(tx.rbac_insert(&policy).await.unwrap());
    assert!(!tx.rbac_insert(&RbacPolicy { id: RbacPolicyId::new(), ..policy.clone() }).await.unwrap());
    let named = network(theirs, "named");
    tx.network_insert(&named).await.unwrap();
    let policy =
        RbacPolicy { id: RbacPolicyId::new(), object_id: named.id.0, target: Some(ProjectId::new()), ..policy };
    assert!(tx.rbac_insert(&policy).await.unwrap());
    tx.commit().await.unwrap();
    let viewed = Listing { viewer: Some(mine), sort: vec![(field("name"), true)], ..Listing::default() };
    let all = store.network_list(&viewed).await.unwrap();
    let names = |networks: &[Network]| networks.iter().map(|n| n.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&all.rows), ["shared", "d", "c", "b", "b", "a"]);
    // Forward by two, then back from the last page: every row once, in the same order.
    let (mut read, mut marker) = (Vec::new(), None);
    loop {
        let page = store.network_list(&Listing { limit: Some(2), marker, ..viewed.clone() }).await.unwrap();
        marker = page.rows.last().map(|n| n.id.0);
        read.extend(page.rows);
        if !page.more {
            break;
        }
    }
    assert_eq!(read, all.rows);
    let back = Listing { limit: Some(2), marker: Some(all.rows[4].id.0), reverse: true, ..viewed.clone() };
    let page = store.network_list(&back).await.unwrap();
    assert_eq!((page.rows.as_slice(), page.more), (&all.rows[2..4], true));
    let filters = vec![
        (field("name"), vec!["a".to_owned(), "b".to_owned()]),
        (field("shared"), vec!["False".to_owned()]),
        (field("status"), vec!["ACTIVE".to_owned()]),
    ];
    let found = store.network_list(&Listing { filters, ..viewed.clone() }).await.unwrap();
    assert_eq!(names(&found.rows), ["b", "b", "a"]);
    // Tags: each network has the first letters of its name.
    let tx = begin(store).await;
    for network in &all.rows {
        let letters: Vec<String> = network.name.chars().map(|c| format!("{c}\"%")).collect();
        assert_eq!(tx.tags_lock(Tagged::Network, network.id.0).await.unwrap(), Some(Vec::new()));
        tx.tags_set(Tagged::Network, network.id.0, &letters).await.unwrap();
    }
    tx.commit().await.unwrap();
    let words = |text: &str| text.chars().map(|c| format!("{c}\"%")).collect::<Vec<_>>();
    for (tags, wanted) in [
        (TagFilter { all: words("sh"), ..TagFilter::default() }, vec!["shared"]),
        (TagFilter { any: words("ac"), ..TagFilter::default() }, vec!["shared", "c", "a"]),
        (TagFilter { not_all: words("b"), ..TagFilter::default() }, vec!["shared", "d", "c", "a"]),
        (TagFilter { not_any: words("ab"), ..TagFilter::default() }, vec!["d", "c"]),
        (TagFilter { all: words("A"), ..TagFilter::default() }, vec![]),
    ] {
        let found = store.network_list(&Listing { tags, ..viewed.clone() }).await.unwrap();
        assert_eq!(names(&found.rows), wanted);
    }
    let since = Listing { changed_since: Some(Timestamp::now().plus_seconds(60)), ..viewed.clone() };
    assert!(store.network_list(&since).await.unwrap().rows.is_empty());
    let nonsense = vec![(field("id"), vec!["no id".to_owned()])];
    assert!(store.network_list(&Listing { filters: nonsense, ..viewed }).await.unwrap().rows.is_empty());
}

async fn all(store: &Store) {
    segments_and_macs_are_claimed_once(store).await;
    lists_are_filtered_sorted_and_paged_both_ways(store).await;
    a_draw_costs_the_same_on_a_full_range(store).await;
    parallel_claims_never_collide(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn networks_on_sqlite() {
    let (store, _folder) = sqlite().await;
    all(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn networks_on_postgres() {
    let postgres = Postgres::start();
    all(&postgres.store().await).await;
}
