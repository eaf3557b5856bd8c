//! Networks under load and from beginning to end, on both databases.

use arcus_engine::floating_ips::{FloatingIpChange, FloatingIpNew};
use arcus_engine::networks::NetworkNew;
use arcus_engine::ports::{PortChange, PortNew};
use arcus_engine::routers::{GatewayWish, InterfaceOf, RouterChange, RouterNew};
use arcus_engine::security_groups::SecurityGroupNew;
use arcus_engine::security_groups::rules::RuleNew;
use arcus_engine::subnets::SubnetNew;
use arcus_engine::{Engine, EngineConfig, EngineError};
use arcus_store::testing::{Postgres, sqlite};
use arcus_store::{AuditEntry, Listing, NodeNew, Port, PortFilter, Quota, QuotaResource, Store};
use arcus_types::agent::{Direction, EtherType};
use arcus_types::policy::network as policy;
use arcus_types::{
    Actor, DomainId, NetworkId, NodeId, OpCtx, PortId, ProjectId, RequestId, Role, RoleSet, Scope, ServerId, SubnetId,
    UserId,
};
use serde_json::json;
use std::collections::BTreeSet;

fn member(project_id: ProjectId) -> OpCtx {
    OpCtx {
        request_id: RequestId::new(),
        actor: Actor::User {
            user_id: UserId::new(),
            domain_id: DomainId::DEFAULT,
            application_credential_id: None,
            trust_id: None,
        },
        scope: Scope::Project { project_id, domain_id: DomainId::DEFAULT },
        roles: RoleSet::from_iter([Role::Member]),
    }
}

async fn node(store: &Store, name: &str) -> NodeId {
    let node = NodeNew { id: NodeId::new(), name: name.parse().unwrap(), availability_zone: "nova".into() };
    let tx = store.begin_unaudited().await.unwrap();
    tx.node_insert(&node).await.unwrap();
    tx.commit().await.unwrap();
    node.id
}

async fn network(engine: &Engine, ctx: &OpCtx, cidr: &str) -> (NetworkId, SubnetId) {
    let new = NetworkNew { name: cidr.into(), ..NetworkNew::default() };
    let network = engine.networks_create(ctx, vec![new]).await.unwrap().remove(0);
    let new = SubnetNew { network_id: network.id, cidr: Some(cidr.parse().unwrap()), ..SubnetNew::default() };
    (network.id, engine.subnets_create(ctx, vec![new]).await.unwrap().remove(0).id)
}

async fn port(engine: &Engine, ctx: &OpCtx, network_id: NetworkId) -> Result<Port, EngineError> {
    let new = PortNew { network_id, ..PortNew::default() };
    Ok(engine.ports_create(ctx, vec![new]).await?.remove(0))
}

/// Gives a port to a server on a node, as the server create does.
async fn bind(engine: &Engine, ctx: &OpCtx, port: PortId, node: NodeId) {
    let tx = engine.store().begin(ctx).await.unwrap();
    let server = ServerId::new();
    engine.port_bind_in(&tx, port, ctx.project_id().unwrap(), server, node).await.unwrap();
    let (action, detail) = (policy::PORT_UPDATE, json!({}));
    let entry = AuditEntry { action, kind: "port", id: port.to_string(), project_id: None, detail: &detail };
    tx.audit(entry).await.unwrap();
    engine.commit(tx).await.unwrap();
}

async fn used(engine: &Engine, project: ProjectId, resource: QuotaResource) -> i64 {
    let quotas: Vec<Quota> = engine.store().quota_list(project, &[resource]).await.unwrap();
    quotas[0].used
}

/// 1,000 callers want a port each, the quota is 10: exactly 10 get one, the others hear of the quota.
async fn a_quota_is_never_exceeded(engine: &Engine) {
    let project = ProjectId::new();
    let ctx = member(project);
    let (network, _) = network(engine, &ctx, "10.40.0.0/22").await;
    let tx = engine.store().begin_unaudited().await.unwrap();
    tx.quota_set(project, QuotaResource::Ports, Some(10)).await.unwrap();
    tx.commit().await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let engine = engine.clone();
        callers.spawn(async move { port(&engine, &ctx, network).await });
    }
    let (mut made, mut refused) = (BTreeSet::new(), 0);
    for answer in callers.join_all().await {
        match answer {
            Ok(port) => assert!(made.insert(port.fixed_ips[0].address)),
            Err(EngineError::Conflict { code: "OverQuota", .. }) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((made.len(), refused), (10, 990));
    assert_eq!(used(engine, project, QuotaResource::Ports).await, 10);
}

/// Makes, binds, changes and removes ports of one group on two nodes at once: nobody waits for anybody for ever.
async fn callers_do_not_block_each_other(engine: &Engine, nodes: [NodeId; 2]) {
    let project = ProjectId::new();
    let ctx = member(project);
    let (network, _) = network(engine, &ctx, "10.41.0.0/24").await;
    for node in nodes {
        let anchor = port(engine, &ctx, network).await.unwrap();
        bind(engine, &ctx, anchor.id, node).await;
    }
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..40 {
        let engine = engine.clone();
        callers.spawn(async move {
            let mine = port(&engine, &ctx, network).await?;
            let change = PortChange { name: Some(format!("port {n}")), ..PortChange::default() };
            engine.port_update(&ctx, mine.id, change).await?;
            engine.port_delete(&ctx, mine.id, None).await
        });
    }
    for answer in callers.join_all().await {
        answer.unwrap();
    }
    assert_eq!(used(engine, project, QuotaResource::Ports).await, 2);
}

/// The walk of a tenant: all is made, used and removed, and nothing is left.
async fn a_tenant_leaves_nothing_behind(engine: &Engine, node: NodeId) {
    let project = ProjectId::new();
    let ctx = member(project);
    let (cidr, gateway) = ("172.25.0.0/28".parse().unwrap(), "172.25.0.1".parse().unwrap());
    let public = engine.external_network_ensure(ProjectId::new(), "out", cidr, gateway).await.unwrap();
    let (network, subnet) = network(engine, &ctx, "10.42.0.0/24").await;
    let wish = GatewayWish { network_id: public, ..GatewayWish::default() };
    let new = RouterNew { name: "r".into(), gateway: Some(wish), ..RouterNew::default() };
    let router = engine.router_create(&ctx, new).await.unwrap();
    assert_eq!(router.gateway_addresses.len(), 1);
    engine.router_interface_add(&ctx, router.id, InterfaceOf::Subnet(subnet)).await.unwrap();
    let mine = port(engine, &ctx, network).await.unwrap();
    bind(engine, &ctx, mine.id, node).await;
    let new = FloatingIpNew { network_id: public, port_id: Some(mine.id), ..FloatingIpNew::default() };
    let ip = engine.floating_ip_create(&ctx, new).await.unwrap();
    assert_eq!(ip.router_id, Some(router.id));
    let group = mine.security_groups[0];
    let rule = RuleNew {
        security_group_id: group,
        description: String::new(),
        direction: Direction::Ingress,
        ethertype: EtherType::V4,
        protocol: Some("icmp".into()),
        port_min: None,
        port_max: None,
        remote_cidr: None,
        remote_group_id: Some(group),
        remote_address_group_id: None,
    };
    let about = RuleNew { security_group_id: group, ..rule.clone() };
    let rule = engine.security_group_rules_create(&ctx, vec![rule]).await.unwrap().remove(0);
    let named = SecurityGroupNew { name: "named".into(), ..SecurityGroupNew::default() };
    let named = engine.security_groups_create(&ctx, vec![named]).await.unwrap()[0].id;
    let about = RuleNew { remote_group_id: Some(named), ..about };
    let rules = used(engine, project, QuotaResource::SecurityGroupRules).await;
    engine.security_group_rules_create(&ctx, vec![about]).await.unwrap();
    engine.security_group_delete(&ctx, named, None).await.unwrap();
    // The rule of the other group went with it, and its own rules.
    assert_eq!(used(engine, project, QuotaResource::SecurityGroupRules).await, rules - 2);
    let (networks, routers, groups) = engine.network_specs(node).await.unwrap();
    assert!(networks.iter().any(|n| n.id == network) && networks.iter().any(|n| n.id == public));
    let spec = routers.iter().find(|r| r.id == router.id).unwrap();
    assert_eq!((spec.floating_ips.len(), spec.interfaces.len()), (1, 1));
    assert_eq!(groups.iter().find(|g| g.id == group).unwrap().members, [mine.fixed_ips[0].address]);
    engine.ports_observed(node, &[mine.id]).await.unwrap();

    let free = FloatingIpChange { port_id: Some(None), ..FloatingIpChange::default() };
    assert_eq!(engine.floating_ip_update(&ctx, ip.id, free).await.unwrap().router_id, None);
    engine.floating_ip_delete(&ctx, ip.id, None).await.unwrap();
    engine.security_group_rule_delete(&ctx, rule.id).await.unwrap();
    engine.port_delete(&ctx, mine.id, None).await.unwrap();
    engine.router_interface_remove(&ctx, router.id, InterfaceOf::Subnet(subnet)).await.unwrap();
    let cleared = RouterChange { gateway: Some(None), ..RouterChange::default() };
    engine.router_update(&ctx, router.id, cleared).await.unwrap();
    engine.router_delete(&ctx, router.id, None).await.unwrap();
    engine.network_delete(&ctx, network, None).await.unwrap();
    for resource in [
        QuotaResource::Networks,
        QuotaResource::Subnets,
        QuotaResource::Ports,
        QuotaResource::Routers,
        QuotaResource::FloatingIps,
    ] {
        assert_eq!(used(engine, project, resource).await, 0, "{resource:?}");
    }
    let seen = Listing { viewer: Some(project), ..Listing::default() };
    assert!(engine.store().port_list(&seen, &PortFilter::default()).await.unwrap().rows.is_empty());
    assert!(engine.store().port_list_by_network(public).await.unwrap().is_empty());
    assert!(engine.store().router_list(&seen).await.unwrap().rows.is_empty());
}

async fn all(store: Store) {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(store.clone(), EngineConfig::under(folder.path()));
    let nodes = [node(&store, "n1").await, node(&store, "n2").await];
    a_tenant_leaves_nothing_behind(&engine, nodes[0]).await;
    callers_do_not_block_each_other(&engine, nodes).await;
    a_quota_is_never_exceeded(&engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn networks_on_sqlite() {
    let (store, _folder) = sqlite().await;
    all(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn networks_on_postgres() {
    let postgres = Postgres::start();
    all(postgres.store().await).await;
}
