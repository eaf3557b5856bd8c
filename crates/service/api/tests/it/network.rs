//! The network API.

mod extensions;

use crate::harness::{Cloud, URL};
use arcus_store::{AuditEntry, NodeNew};
use arcus_types::agent::{Direction, EtherType, FilterRule, NodeFacts};
use arcus_types::policy::network as policy;
use arcus_types::{NodeId, OpCtx, PortId, ProjectId, ServerId};
use serde_json::{Value, json};

const NET: &str = "/network/v2.0";

/// The cloud of a test, with the words that its tests need.
struct Net {
    cloud: Cloud,
}

impl Net {
    async fn start() -> Self {
        Self { cloud: Cloud::start().await }
    }

    async fn post(&self, path: &str, body: Value) -> crate::harness::Answer {
        self.cloud.post(&format!("{NET}/{path}"), self.cloud.demo().await, body).await
    }

    async fn put(&self, path: &str, body: Value) -> crate::harness::Answer {
        self.cloud.put(&format!("{NET}/{path}"), self.cloud.demo().await, body).await
    }

    async fn get(&self, path: &str) -> Value {
        self.cloud.get(&format!("{NET}/{path}"), self.cloud.demo().await).await.expect(200)
    }

    async fn delete(&self, path: &str) -> crate::harness::Answer {
        self.cloud.delete(&format!("{NET}/{path}"), self.cloud.demo().await).await
    }

    /// Makes one thing; its body.
    async fn make(&self, kind: &str, collection: &str, attributes: Value) -> Value {
        self.post(collection, json!({ kind: attributes })).await.expect(201)[kind].take()
    }

    /// A network with one subnet; their ids.
    async fn network(&self, name: &str, cidr: &str) -> (String, String) {
        let network = self.make("network", "networks", json!({ "name": name })).await;
        let subnet = json!({ "network_id": network["id"], "ip_version": 4, "cidr": cidr });
        let subnet = self.make("subnet", "subnets", subnet).await;
        (id(&network), id(&subnet))
    }

    /// The external network that bootstrap makes, 172.24.4.0/28.
    async fn public(&self) -> String {
        let owner: ProjectId = self.cloud.id_of("projects", "admin").await.parse().unwrap();
        let (cidr, gateway) = ("172.24.4.0/28".parse().unwrap(), "172.24.4.1".parse().unwrap());
        let engine = &self.cloud.app.engine;
        let made = engine.external_network_ensure(owner, "public", cidr, gateway).await.unwrap();
        assert_eq!(engine.external_network_ensure(owner, "public", cidr, gateway).await.unwrap(), made);
        made.to_string()
    }

    /// A router between a subnet and the external network; its id.
    async fn router(&self, subnet: &str, public: &str) -> String {
        let gateway = json!({ "network_id": public });
        let router =
            id(&self.make("router", "routers", json!({ "name": "r", "external_gateway_info": gateway })).await);
        let path = format!("routers/{router}/add_router_interface");
        self.put(&path, json!({ "subnet_id": subnet })).await.expect(200);
        router
    }

    async fn node(&self, name: &str) -> NodeId {
        let node = NodeNew { id: NodeId::new(), name: name.parse().unwrap(), availability_zone: "nova".into() };
        let tx = self.cloud.store.begin_unaudited().await.unwrap();
        tx.node_insert(&node).await.unwrap();
        let number = if name == "n1" { 1 } else { 2 };
        let facts = NodeFacts { underlay: Some([10, 255, 0, number].into()), ..NodeFacts::default() };
        tx.node_facts_set(node.id, &facts).await.unwrap();
        tx.commit().await.unwrap();
        node.id
    }

    /// Gives a port to a server on a node, as the server create does.
    async fn bind(&self, port: &str, node: NodeId) -> ServerId {
        let engine = &self.cloud.app.engine;
        let project: ProjectId = self.cloud.id_of("projects", "demo").await.parse().unwrap();
        let server = ServerId::new();
        let tx = self.cloud.store.begin(&OpCtx::system()).await.unwrap();
        engine.port_bind_in(&tx, port.parse().unwrap(), project, server, node).await.unwrap();
        let detail = json!({});
        let entry = AuditEntry {
            action: policy::PORT_UPDATE,
            kind: "port",
            id: port.into(),
            project_id: None,
            detail: &detail,
        };
        tx.audit(entry).await.unwrap();
        engine.commit(tx).await.unwrap();
        server
    }
}

fn id(thing: &Value) -> String {
    thing["id"].as_str().unwrap_or_else(|| panic!("no id in {thing}")).to_owned()
}

/// The kind of error, provided that the status is this one.
#[track_caller]
fn refused(answer: crate::harness::Answer, status: u16) -> String {
    let body = answer.expect(status);
    assert!(body["NeutronError"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
    body["NeutronError"]["type"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_network_has_the_shape_that_clients_know() {
    let net = Net::start().await;
    let made = net.make("network", "networks", json!({ "name": "blue", "description": "ours" })).await;
    let demo = net.cloud.id_of("projects", "demo").await;
    assert_eq!((&made["project_id"], &made["tenant_id"]), (&json!(demo), &json!(demo)));
    for (key, value) in [
        ("name", json!("blue")),
        ("description", json!("ours")),
        ("status", json!("ACTIVE")),
        ("admin_state_up", json!(true)),
        ("shared", json!(false)),
        ("router:external", json!(false)),
        ("mtu", json!(1450)),
        ("port_security_enabled", json!(true)),
        ("subnets", json!([])),
        ("revision_number", json!(1)),
    ] {
        assert_eq!(made[key], value, "{key}");
    }
    assert!(made.get("provider:segmentation_id").is_none());
    let path = format!("{NET}/networks/{}", id(&made));
    let seen = net.cloud.get(&path, net.cloud.admin().await).await.expect(200);
    assert_eq!(seen["network"]["provider:network_type"], "vxlan");
    assert!(seen["network"]["provider:segmentation_id"].as_u64().is_some_and(|n| n > 0));
    let changed =
        net.put(&format!("networks/{}", id(&made)), json!({ "network": { "name": "red" } })).await.expect(200);
    assert_eq!(changed["network"]["name"], "red");
    assert!(changed["network"]["revision_number"].as_u64().is_some_and(|n| n > 1));
    net.delete(&format!("networks/{}", id(&made))).await.expect(204);
    assert_eq!(refused(net.delete(&format!("networks/{}", id(&made))).await, 404), "NetworkNotFound");
    let unknown = json!({ "network": { "name": "x", "colour": "blue" } });
    assert!(
        net.post("networks", unknown).await.expect(400)["NeutronError"]["message"].as_str().unwrap().contains("colour")
    );
}

#[tokio::test]
async fn other_projects_see_nothing_and_readers_change_nothing() {
    let net = Net::start().await;
    let (network, subnet) = net.network("n", "10.1.0.0/24").await;
    let port = id(&net.make("port", "ports", json!({ "network_id": network })).await);
    let group = id(&net.make("security_group", "security-groups", json!({ "name": "g" })).await);
    let router = id(&net.make("router", "routers", json!({ "name": "r" })).await);
    let (stranger, reader) = (net.cloud.stranger().await, net.cloud.reader().await);
    for (path, kind) in [
        (format!("networks/{network}"), "NetworkNotFound"),
        (format!("subnets/{subnet}"), "SubnetNotFound"),
        (format!("ports/{port}"), "PortNotFound"),
        (format!("routers/{router}"), "RouterNotFound"),
        (format!("security-groups/{group}"), "SecurityGroupNotFound"),
    ] {
        let path = format!("{NET}/{path}");
        assert_eq!(refused(net.cloud.get(&path, stranger).await, 404), kind);
        assert_eq!(refused(net.cloud.delete(&path, stranger).await, 404), kind);
        net.cloud.get(&path, reader).await.expect(200);
        net.cloud.delete(&path, reader).await.expect(403);
        net.cloud.get(&path, "").await.expect(401);
        net.cloud.delete(&path, "").await.expect(401);
        net.cloud.get(&path, net.cloud.admin().await).await.expect(200);
    }
    for collection in ["networks", "subnets", "ports", "routers"] {
        let seen = net.cloud.get(&format!("{NET}/{collection}"), stranger).await.expect(200);
        assert_eq!(seen[collection], json!([]));
    }
    let body = json!({ "port": { "network_id": network } });
    assert_eq!(refused(net.cloud.post(&format!("{NET}/ports"), stranger, body).await, 404), "NetworkNotFound");
    let body = json!({ "network": { "name": "n", "shared": true } });
    net.post("networks", body).await.expect(403);
    let demo = net.cloud.id_of("projects", "demo").await;
    let body = json!({ "network": { "name": "n", "project_id": demo } });
    net.cloud.post(&format!("{NET}/networks"), stranger, body).await.expect(403);
}

#[tokio::test]
async fn a_shared_network_is_used_by_all_and_changed_by_its_owner() {
    let net = Net::start().await;
    let admin = net.cloud.admin().await;
    let body = json!({ "network": { "name": "common", "shared": true } });
    let network = id(&net.cloud.post(&format!("{NET}/networks"), admin, body).await.expect(201)["network"]);
    let body = json!({ "subnet": { "network_id": network, "ip_version": 4, "cidr": "10.2.0.0/24" } });
    net.cloud.post(&format!("{NET}/subnets"), admin, body).await.expect(201);
    assert_eq!(net.get("networks?shared=True").await["networks"][0]["id"], json!(network));
    assert_eq!(net.get("subnets").await["subnets"][0]["cidr"], "10.2.0.0/24");
    let port = net.make("port", "ports", json!({ "network_id": network })).await;
    assert_eq!(port["fixed_ips"][0]["ip_address"], "10.2.0.2");
    net.put(&format!("networks/{network}"), json!({ "network": { "name": "mine" } })).await.expect(403);
    let body = json!({ "network": { "shared": false } });
    let answer = net.cloud.put(&format!("{NET}/networks/{network}"), admin, body).await;
    assert_eq!(refused(answer, 409), "InvalidSharedSetting");
    assert_eq!(refused(net.cloud.delete(&format!("{NET}/networks/{network}"), admin).await, 409), "NetworkInUse");
}

#[tokio::test]
async fn a_subnet_is_filled_in_and_what_cannot_be_is_refused() {
    let net = Net::start().await;
    let network = id(&net.make("network", "networks", json!({ "name": "n" })).await);
    let subnet = |more: Value| {
        let mut body = json!({ "network_id": network, "ip_version": 4, "cidr": "10.3.0.0/24" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "subnet": body })
    };
    for (more, status, kind) in [
        (json!({ "cidr": "10.3.0.1/24" }), 400, "InvalidInput"),
        (json!({ "cidr": "fd00::/64" }), 400, "BadRequest"),
        (json!({ "gateway_ip": "10.4.0.1" }), 400, "InvalidInput"),
        (json!({ "gateway_ip": "10.3.0.255" }), 400, "InvalidInput"),
        (json!({ "allocation_pools": [{ "start": "10.3.0.9", "end": "10.3.0.8" }] }), 400, "InvalidAllocationPool"),
        (json!({ "allocation_pools": [{ "start": "10.3.0.9", "end": "10.3.1.8" }] }), 400, "OutOfBoundsAllocationPool"),
        (
            json!({ "allocation_pools": [{ "start": "10.3.0.1", "end": "10.3.0.8" }] }),
            409,
            "GatewayConflictWithAllocationPools",
        ),
        (json!({ "ipv6_ra_mode": "slaac" }), 400, "InvalidInput"),
        (json!({ "ip_version": 6, "cidr": "fd00::/60", "ipv6_address_mode": "slaac" }), 400, "InvalidInput"),
        (
            json!({ "ip_version": 6, "cidr": "fd00::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "dhcpv6-stateful" }),
            400,
            "InvalidInput",
        ),
        (
            json!({ "dns_nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", "1.1.1.5", "1.1.1.6"] }),
            400,
            "DNSNameServersExhausted",
        ),
    ] {
        let answer = net.post("subnets", subnet(more.clone())).await;
        assert_eq!(refused(answer, status), kind, "{more}");
    }
    let made = net.post("subnets", subnet(json!({ "dns_nameservers": ["9.9.9.9"] }))).await.expect(201);
    let made = &made["subnet"];
    assert_eq!(made["gateway_ip"], "10.3.0.1");
    assert_eq!(made["allocation_pools"], json!([{ "start": "10.3.0.2", "end": "10.3.0.254" }]));
    assert_eq!((&made["enable_dhcp"], &made["dns_nameservers"]), (&json!(true), &json!(["9.9.9.9"])));
    let overlap = net.post("subnets", subnet(json!({ "cidr": "10.3.0.128/25" }))).await;
    assert_eq!(refused(overlap, 400), "InvalidInput");
    let path = format!("subnets/{}", id(made));
    let none = net.put(&path, json!({ "subnet": { "gateway_ip": null, "name": "s" } })).await.expect(200);
    assert_eq!((&none["subnet"]["gateway_ip"], &none["subnet"]["name"]), (&Value::Null, &json!("s")));
    net.make("port", "ports", json!({ "network_id": network })).await;
    assert_eq!(refused(net.delete(&path).await, 409), "SubnetInUse");
}

#[tokio::test]
async fn a_port_gets_the_address_that_it_asks_for_and_nobody_gets_it_twice() {
    let net = Net::start().await;
    let (network, subnet) = net.network("n", "10.4.0.0/29").await;
    let asked = json!({ "network_id": network, "fixed_ips": [{ "subnet_id": subnet, "ip_address": "10.4.0.5" }] });
    let port = net.make("port", "ports", asked.clone()).await;
    assert_eq!(port["fixed_ips"], json!([{ "subnet_id": subnet, "ip_address": "10.4.0.5" }]));
    assert_eq!((&port["status"], &port["device_id"]), (&json!("DOWN"), &json!("")));
    assert!(port.get("binding:host_id").is_none());
    assert_eq!(refused(net.post("ports", json!({ "port": asked })).await, 409), "IpAddressAlreadyAllocated");
    for (ips, kind) in [
        (json!([{ "ip_address": "10.5.0.5" }]), "InvalidIpForNetwork"),
        (json!([{ "subnet_id": subnet, "ip_address": "10.5.0.5" }]), "InvalidIpForSubnet"),
        (json!([{ "subnet_id": subnet, "ip_address": "10.4.0.7" }]), "InvalidIpForSubnet"),
        (json!([{ "subnet_id": uuid(), "ip_address": "10.4.0.6" }]), "InvalidInput"),
    ] {
        let answer = net.post("ports", json!({ "port": { "network_id": network, "fixed_ips": ips } })).await;
        assert_eq!(refused(answer, 400), kind, "{ips}");
    }
    // The rest of the range at once: .2, .3, .4 and .6 are left.
    let four: Vec<Value> = (0..4).map(|n| json!({ "network_id": network, "name": format!("p{n}") })).collect();
    let bulk = net.post("ports", json!({ "ports": four })).await.expect(201);
    let drawn: Vec<&str> =
        bulk["ports"].as_array().unwrap().iter().map(|p| p["fixed_ips"][0]["ip_address"].as_str().unwrap()).collect();
    assert_eq!(drawn, ["10.4.0.2", "10.4.0.3", "10.4.0.4", "10.4.0.6"]);
    let full = net.post("ports", json!({ "port": { "network_id": network } })).await;
    assert_eq!(refused(full, 409), "IpAddressGenerationFailure");
    let path = format!("ports/{}", id(&port));
    let moved = net.put(&path, json!({ "port": { "fixed_ips": [] } })).await.expect(200);
    assert_eq!(moved["port"]["fixed_ips"], json!([]));
    let back = net.put(&path, json!({ "port": { "fixed_ips": [{ "subnet_id": subnet }] } })).await.expect(200);
    assert_eq!(back["port"]["fixed_ips"][0]["ip_address"], "10.4.0.5");
    let unknown = json!({ "port": { "network_id": network, "fixed_ips": [], "colour": "blue" } });
    assert!(net.post("ports", unknown).await.expect(400).to_string().contains("colour"));
    let unknown = json!({ "port": { "colour": "blue" } });
    assert!(net.put(&path, unknown).await.expect(400).to_string().contains("colour"));
    let mac = port["mac_address"].as_str().unwrap();
    let same = json!({ "port": { "network_id": network, "mac_address": mac, "fixed_ips": [] } });
    assert_eq!(refused(net.post("ports", same).await, 409), "MacAddressInUse");
}

fn uuid() -> String {
    PortId::new().to_string()
}

#[tokio::test]
async fn lists_of_ports_are_filtered_pruned_and_paged() {
    let net = Net::start().await;
    let (network, subnet) = net.network("n", "10.6.0.0/24").await;
    let (other, _) = net.network("o", "10.7.0.0/24").await;
    for (on, name, device) in [(&network, "a", "x"), (&network, "b", ""), (&network, "c", ""), (&other, "d", "")] {
        net.make("port", "ports", json!({ "network_id": on, "name": name, "device_id": device })).await;
    }
    let names = |body: Value| -> Vec<String> {
        body["ports"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(net.get(&format!("ports?network_id={network}")).await), ["a", "b", "c"]);
    assert_eq!(names(net.get("ports?name=a&name=d").await), ["a", "d"]);
    assert_eq!(names(net.get("ports?device_id=x").await), ["a"]);
    assert_eq!(names(net.get("ports?fixed_ips=ip_address%3D10.6.0.3").await), ["b"]);
    assert_eq!(names(net.get("ports?fixed_ips=ip_address_substr%3D10.6.").await), ["a", "b", "c"]);
    assert_eq!(
        names(net.get(&format!("ports?fixed_ips=subnet_id%3D{subnet}&sort_key=name&sort_dir=desc")).await),
        ["c", "b", "a"]
    );
    let groups = net.get("security-groups").await;
    let path = format!("ports?security_groups={}&network_id={other}", id(&groups["security_groups"][0]));
    assert_eq!(names(net.get(&path).await), ["d"]);
    assert_eq!(net.get("ports?security_groups=default").await["ports"], json!([]));
    let pruned = net.get("ports?fields=id&fields=name").await;
    let keys: Vec<&String> = pruned["ports"][0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "name"]);
    let page = net.get("ports?limit=3&sort_key=name").await;
    let next = page["ports_links"][0].clone();
    assert_eq!((names(page), &next["rel"]), (vec!["a".into(), "b".into(), "c".into()], &json!("next")));
    let href = next["href"].as_str().unwrap().strip_prefix(URL).unwrap();
    let last = net.cloud.get(href, net.cloud.demo().await).await.expect(200);
    assert_eq!(last["ports_links"][0]["rel"], "previous");
    assert_eq!(names(last), ["d"]);
    assert_eq!(
        refused(net.cloud.get(&format!("{NET}/ports?sort_key=colour"), net.cloud.demo().await).await, 400),
        "BadRequest"
    );
}

#[tokio::test]
async fn every_project_has_a_default_group_from_first_sight_on() {
    let net = Net::start().await;
    let groups = net.get("security-groups").await;
    let group = &groups["security_groups"][0];
    assert_eq!((groups["security_groups"].as_array().unwrap().len(), &group["name"]), (1, &json!("default")));
    let rules = group["security_group_rules"].as_array().unwrap();
    let count = |direction: &str| rules.iter().filter(|r| r["direction"] == direction).count();
    assert_eq!((rules.len(), count("egress"), count("ingress")), (4, 2, 2));
    assert!(rules.iter().filter(|r| r["direction"] == "ingress").all(|r| r["remote_group_id"] == group["id"]));
    let path = format!("security-groups/{}", id(group));
    assert_eq!(refused(net.delete(&path).await, 409), "SecurityGroupCannotRemoveDefault");
    let body = json!({ "security_group": { "name": "other" } });
    assert_eq!(refused(net.put(&path, body).await, 409), "SecurityGroupCannotUpdateDefault");
    let (network, _) = net.network("n", "10.8.0.0/24").await;
    let port = net.make("port", "ports", json!({ "network_id": network })).await;
    assert_eq!(port["security_groups"], json!([group["id"]]));
    let bare = json!({ "network_id": network, "port_security_enabled": false });
    assert_eq!(net.make("port", "ports", bare).await["security_groups"], json!([]));
}

#[tokio::test]
async fn rules_are_checked_kept_once_and_removed() {
    let net = Net::start().await;
    let group = net.make("security_group", "security-groups", json!({ "name": "web" })).await;
    assert_eq!(group["security_group_rules"].as_array().unwrap().len(), 2);
    let rule = |more: Value| {
        let mut body = json!({ "security_group_id": group["id"], "direction": "ingress" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "security_group_rule": body })
    };
    let ssh =
        json!({ "protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "10.0.0.9/8" });
    let made = net.post("security-group-rules", rule(ssh.clone())).await.expect(201);
    let made = &made["security_group_rule"];
    assert_eq!((&made["remote_ip_prefix"], &made["ethertype"]), (&json!("10.0.0.9/8"), &json!("IPv4")));
    assert_eq!(made["normalized_cidr"], "10.0.0.0/8");
    assert_eq!(refused(net.post("security-group-rules", rule(ssh.clone())).await, 409), "SecurityGroupRuleExists");
    let mut same = ssh;
    same["remote_ip_prefix"] = json!("10.0.0.0/8");
    assert_eq!(refused(net.post("security-group-rules", rule(same)).await, 409), "SecurityGroupRuleExists");
    for (more, status, kind) in [
        (json!({ "protocol": "bogus" }), 400, "SecurityGroupRuleInvalidProtocol"),
        (json!({ "protocol": "tcp", "port_range_min": 9, "port_range_max": 8 }), 400, "SecurityGroupInvalidPortRange"),
        (json!({ "direction": "sideways" }), 400, "BadRequest"),
        (json!({ "ethertype": "IPv5" }), 400, "BadRequest"),
        (json!({ "remote_ip_prefix": "bad" }), 400, "BadRequest"),
        (json!({ "remote_group_id": uuid() }), 404, "SecurityGroupNotFound"),
        (json!({ "security_group_id": uuid() }), 404, "SecurityGroupNotFound"),
    ] {
        assert_eq!(refused(net.post("security-group-rules", rule(more.clone())).await, status), kind, "{more}");
    }
    let by_remote = json!({ "remote_group_id": group["id"], "protocol": 17 });
    let made_too = net.post("security-group-rules", rule(by_remote)).await.expect(201);
    assert_eq!(made_too["security_group_rule"]["protocol"], "17");
    let path = format!("security-group-rules/{}", id(made));
    net.delete(&path).await.expect(204);
    assert_eq!(refused(net.delete(&path).await, 404), "SecurityGroupRuleNotFound");
    let (network, _) = net.network("n", "10.9.0.0/24").await;
    let port = net.make("port", "ports", json!({ "network_id": network, "security_groups": [group["id"]] })).await;
    let path = format!("security-groups/{}", id(&group));
    assert_eq!(refused(net.delete(&path).await, 409), "SecurityGroupInUse");
    net.delete(&format!("ports/{}", id(&port))).await.expect(204);
    net.delete(&path).await.expect(204);
}

#[tokio::test]
async fn a_router_joins_subnets_and_is_kept_while_it_is_needed() {
    let net = Net::start().await;
    let public = net.public().await;
    let (network, subnet) = net.network("n", "10.10.0.0/24").await;
    let router = net.router(&subnet, &public).await;
    let shown = net.get(&format!("routers/{router}")).await;
    let gateway = &shown["router"]["external_gateway_info"];
    assert_eq!((&gateway["network_id"], &gateway["enable_snat"]), (&json!(public), &json!(true)));
    assert_eq!(gateway["external_fixed_ips"][0]["ip_address"], "172.24.4.2");
    let legs = net.get(&format!("ports?device_id={router}&device_owner=network:router_interface")).await;
    assert_eq!(legs["ports"][0]["fixed_ips"][0]["ip_address"], "10.10.0.1");
    let leg = id(&legs["ports"][0]);
    assert_eq!(refused(net.delete(&format!("ports/{leg}")).await, 409), "ServicePortInUse");
    assert_eq!(refused(net.delete(&format!("routers/{router}")).await, 409), "RouterInUse");
    assert_eq!(refused(net.delete(&format!("networks/{network}")).await, 409), "NetworkInUse");
    assert_eq!(refused(net.delete(&format!("subnets/{subnet}")).await, 409), "SubnetInUse");
    let add = format!("routers/{router}/add_router_interface");
    assert_eq!(refused(net.put(&add, json!({ "subnet_id": subnet })).await, 400), "BadRequest");
    let (_, overlapping) = net.network("o", "10.10.0.0/25").await;
    assert_eq!(refused(net.put(&add, json!({ "subnet_id": overlapping })).await, 400), "BadRequest");
    assert_eq!(refused(net.put(&add, json!({ "subnet_id": uuid() })).await, 404), "SubnetNotFound");
    net.put(&add, json!({})).await.expect(400);
    let (second, _) = net.network("p", "10.11.0.0/24").await;
    let port = id(&net.make("port", "ports", json!({ "network_id": second })).await);
    let added = net.put(&add, json!({ "port_id": port })).await.expect(200);
    assert_eq!((&added["port_id"], &added["id"]), (&json!(port), &json!(router)));
    assert_eq!(refused(net.put(&add, json!({ "port_id": port })).await, 409), "PortInUse");

    let path = format!("routers/{router}");
    let route = |hop: &str| json!({ "router": { "routes": [{ "destination": "10.99.0.0/16", "nexthop": hop }] } });
    assert_eq!(refused(net.put(&path, route("10.77.0.1")).await, 400), "InvalidRoutes");
    let routed = net.put(&path, route("10.11.0.9")).await.expect(200);
    assert_eq!(routed["router"]["routes"], json!([{ "destination": "10.99.0.0/16", "nexthop": "10.11.0.9" }]));
    let remove = format!("routers/{router}/remove_router_interface");
    assert_eq!(refused(net.put(&remove, json!({ "port_id": port })).await, 409), "RouterInterfaceInUseByRoute");
    net.put(&path, json!({ "router": { "routes": [] } })).await.expect(200);
    net.put(&remove, json!({ "port_id": port })).await.expect(200);
    let gone = net.put(&remove, json!({ "port_id": port })).await;
    assert_eq!(refused(gone, 404), "RouterInterfaceNotFound");
    net.put(&remove, json!({ "subnet_id": subnet })).await.expect(200);
    assert_eq!(
        refused(net.put(&remove, json!({ "subnet_id": subnet })).await, 404),
        "RouterInterfaceNotFoundForSubnet"
    );
    let cleared = net.put(&path, json!({ "router": { "external_gateway_info": {} } })).await.expect(200);
    assert_eq!(cleared["router"]["external_gateway_info"], Value::Null);
    net.delete(&path).await.expect(204);
    let left = net.cloud.get(&format!("{NET}/ports?network_id={public}"), net.cloud.admin().await).await.expect(200);
    assert_eq!(left["ports"], json!([]));
}

#[tokio::test]
async fn a_gateway_is_only_on_an_external_network_and_without_nat_only_by_administrators() {
    let net = Net::start().await;
    let public = net.public().await;
    let (network, _) = net.network("n", "10.12.0.0/24").await;
    let with = |gateway: Value| json!({ "router": { "name": "r", "external_gateway_info": gateway } });
    assert_eq!(refused(net.post("routers", with(json!({ "network_id": network }))).await, 400), "BadRequest");
    assert_eq!(refused(net.post("routers", with(json!({ "network_id": uuid() }))).await, 404), "NetworkNotFound");
    let bare = with(json!({ "network_id": public, "enable_snat": false }));
    net.post("routers", bare.clone()).await.expect(403);
    let made = net.cloud.post(&format!("{NET}/routers"), net.cloud.admin().await, bare).await.expect(201);
    assert_eq!(made["router"]["external_gateway_info"]["enable_snat"], json!(false));
    net.post("ports", json!({ "port": { "network_id": public } })).await.expect(403);
    let external = net.get("networks?router:external=True").await;
    assert_eq!(external["networks"].as_array().unwrap().len(), 1);
    assert_eq!(external["networks"][0]["name"], "public");
}

#[tokio::test]
async fn a_floating_ip_follows_a_port_that_a_router_reaches() {
    let net = Net::start().await;
    let public = net.public().await;
    let (network, subnet) = net.network("n", "10.13.0.0/24").await;
    let port = net.make("port", "ports", json!({ "network_id": network })).await;
    let ask = |more: Value| {
        let mut body = json!({ "floating_network_id": public });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "floatingip": body })
    };
    let unreachable = net.post("floatingips", ask(json!({ "port_id": port["id"] }))).await;
    assert_eq!(refused(unreachable, 404), "ExternalGatewayForFloatingIPNotFound");
    let router = net.router(&subnet, &public).await;
    let made = net.post("floatingips", ask(json!({ "port_id": port["id"] }))).await.expect(201);
    let ip = &made["floatingip"];
    assert_eq!((&ip["status"], &ip["router_id"]), (&json!("ACTIVE"), &json!(router)));
    assert_eq!((&ip["fixed_ip_address"], &ip["port_id"]), (&json!("10.13.0.2"), &port["id"]));
    let twice = net.post("floatingips", ask(json!({ "port_id": port["id"] }))).await;
    assert_eq!(refused(twice, 409), "FloatingIPPortAlreadyAssociated");
    for (more, status, kind) in [
        (json!({ "port_id": uuid() }), 404, "PortNotFound"),
        (json!({ "floating_network_id": network }), 400, "BadRequest"),
        (json!({ "port_id": port["id"], "fixed_ip_address": "10.13.0.77" }), 400, "BadRequest"),
        (json!({ "fixed_ip_address": "10.13.0.2" }), 400, "BadRequest"),
        (json!({ "floating_ip_address": "172.24.4.9" }), 403, "PolicyNotAuthorized"),
    ] {
        assert_eq!(refused(net.post("floatingips", ask(more.clone())).await, status), kind, "{more}");
    }
    let remove = format!("routers/{router}/remove_router_interface");
    let used = net.put(&remove, json!({ "subnet_id": subnet })).await;
    assert_eq!(refused(used, 409), "RouterInterfaceInUseByFloatingIP");
    let cleared = net.put(&format!("routers/{router}"), json!({ "router": { "external_gateway_info": null } })).await;
    assert_eq!(refused(cleared, 409), "RouterExternalGatewayInUseByFloatingIp");
    let path = format!("floatingips/{}", id(ip));
    let free = net.put(&path, json!({ "floatingip": { "port_id": null } })).await.expect(200);
    assert_eq!((&free["floatingip"]["status"], &free["floatingip"]["port_id"]), (&json!("DOWN"), &Value::Null));
    net.put(&path, json!({ "floatingip": { "port_id": port["id"] } })).await.expect(200);
    assert_eq!(net.get("floatingips?status=ACTIVE").await["floatingips"].as_array().unwrap().len(), 1);
    // The port goes: the address stays and leads nowhere.
    net.delete(&format!("ports/{}", id(&port))).await.expect(204);
    assert_eq!(net.get(&path).await["floatingip"]["status"], "DOWN");
    net.delete(&path).await.expect(204);
    assert_eq!(refused(net.delete(&path).await, 404), "FloatingIPNotFound");
}

#[tokio::test]
async fn an_external_pool_ends_with_a_clear_answer() {
    let net = Net::start().await;
    let public = net.public().await;
    let ask = json!({ "floatingip": { "floating_network_id": public } });
    for _ in 2..=14 {
        net.post("floatingips", ask.clone()).await.expect(201);
    }
    assert_eq!(refused(net.post("floatingips", ask).await, 409), "IpAddressGenerationFailure");
}

#[tokio::test]
async fn quotas_hold_and_are_shown_with_what_is_used() {
    let net = Net::start().await;
    let (demo, admin) = (net.cloud.id_of("projects", "demo").await, net.cloud.admin().await);
    let path = format!("{NET}/quotas/{demo}");
    let body = json!({ "quota": { "network": 2, "port": 0 } });
    net.put(&format!("quotas/{demo}"), body.clone()).await.expect(403);
    assert_eq!(net.cloud.put(&path, admin, body).await.expect(200)["quota"]["network"], 2);
    let (network, _) = net.network("one", "10.14.0.0/24").await;
    let below = json!({ "quota": { "network": 0, "check_limit": true } });
    assert_eq!(refused(net.cloud.put(&path, admin, below).await, 400), "QuotaLimitBelowUsage");
    net.network("two", "10.14.0.0/24").await;
    assert_eq!(refused(net.post("networks", json!({ "network": { "name": "three" } })).await, 409), "OverQuota");
    assert_eq!(refused(net.post("ports", json!({ "port": { "network_id": network } })).await, 409), "OverQuota");
    let details = net.get(&format!("quotas/{demo}/details.json")).await;
    assert_eq!(details["quota"]["network"], json!({ "limit": 2, "used": 2, "reserved": 0 }));
    assert_eq!(details["quota"]["security_group"]["used"], 1);
    assert_eq!(net.get(&format!("quotas/{demo}/default")).await["quota"]["network"], 100);
    let all = net.cloud.get(&format!("{NET}/quotas"), admin).await.expect(200);
    assert_eq!((&all["quotas"][0]["project_id"], all["quotas"].as_array().unwrap().len()), (&json!(demo), 1));
    net.cloud.delete(&path, admin).await.expect(204);
    assert_eq!(net.get(&format!("quotas/{demo}")).await["quota"]["port"], 500);
    net.cloud.get(&path, net.cloud.stranger().await).await.expect(404);
    let wrong = json!({ "quota": { "elephants": 1 } });
    net.cloud.put(&path, admin, wrong).await.expect(400);
}

#[tokio::test]
async fn automatic_addresses_follow_from_the_mac() {
    let net = Net::start().await;
    let network = id(&net.make("network", "networks", json!({ "name": "six" })).await);
    let early = id(&net.make("port", "ports", json!({ "network_id": network })).await);
    let subnet = json!({ "network_id": network, "ip_version": 6, "cidr": "fd00:1:2:3::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac" });
    let subnet = net.make("subnet", "subnets", subnet).await;
    assert_eq!(subnet["gateway_ip"], "fd00:1:2:3::1");
    let asked = json!({ "network_id": network, "mac_address": "fa:16:3e:01:02:03" });
    let port = net.make("port", "ports", asked).await;
    assert_eq!(port["fixed_ips"][0]["ip_address"], "fd00:1:2:3:f816:3eff:fe01:203");
    let early = net.get(&format!("ports/{early}")).await;
    assert_eq!(early["port"]["fixed_ips"][0]["subnet_id"], subnet["id"]);
    let chosen =
        json!({ "network_id": network, "fixed_ips": [{ "subnet_id": subnet["id"], "ip_address": "fd00:1:2:3::9" }] });
    assert_eq!(refused(net.post("ports", json!({ "port": chosen })).await, 400), "InvalidInput");
    net.delete(&format!("subnets/{}", id(&subnet))).await.expect(204);
}

#[tokio::test]
async fn subnets_are_cut_from_a_pool_until_it_or_the_share_is_used_up() {
    let net = Net::start().await;
    let network = id(&net.make("network", "networks", json!({ "name": "n" })).await);
    let wish = json!({ "name": "p", "prefixes": ["10.30.1.0/24", "10.30.0.0/24"], "default_prefixlen": 25, "default_quota": 384 });
    let pool = net.make("subnetpool", "subnetpools", wish).await;
    assert_eq!((&pool["prefixes"], &pool["ip_version"]), (&json!(["10.30.0.0/23"]), &json!(4)));
    assert_eq!((&pool["min_prefixlen"], &pool["max_prefixlen"]), (&json!(8), &json!(32)));
    let cut = |more: Value| {
        let mut body = json!({ "network_id": network, "ip_version": 4, "subnetpool_id": pool["id"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "subnet": body })
    };
    let first = net.post("subnets", cut(json!({}))).await.expect(201);
    assert_eq!((&first["subnet"]["cidr"], &first["subnet"]["subnetpool_id"]), (&json!("10.30.0.0/25"), &pool["id"]));
    let chosen = net.post("subnets", cut(json!({ "cidr": "10.30.1.0/25" }))).await.expect(201);
    assert_eq!(chosen["subnet"]["gateway_ip"], "10.30.1.1");
    assert_eq!(
        refused(net.post("subnets", cut(json!({ "cidr": "10.30.1.0/26" }))).await, 409),
        "SubnetAllocationError"
    );
    assert_eq!(
        refused(net.post("subnets", cut(json!({ "prefixlen": 4 }))).await, 400),
        "MinPrefixSubnetAllocationError"
    );
    let next = net.post("subnets", cut(json!({ "prefixlen": 26 }))).await.expect(201);
    assert_eq!(next["subnet"]["cidr"], "10.30.0.128/26");
    assert_eq!(refused(net.post("subnets", cut(json!({}))).await, 409), "SubnetPoolQuotaExceeded");
    let path = format!("subnetpools/{}", id(&pool));
    assert_eq!(refused(net.delete(&path).await, 409), "SubnetPoolInUse");
    let less = json!({ "subnetpool": { "prefixes": ["10.30.0.0/24"] } });
    assert_eq!(refused(net.put(&path, less).await, 400), "IllegalSubnetPoolUpdate");
    let more = json!({ "subnetpool": { "prefixes": ["10.30.0.0/22"], "default_quota": null, "name": "q" } });
    let more = net.put(&path, more).await.expect(200);
    assert_eq!((&more["subnetpool"]["default_quota"], &more["subnetpool"]["name"]), (&Value::Null, &json!("q")));
    let foreign = net.cloud.get(&format!("{NET}/{path}"), net.cloud.stranger().await).await;
    assert_eq!(refused(foreign, 404), "SubnetPoolNotFound");
    let shared = json!({ "subnetpool": { "name": "s", "prefixes": ["10.31.0.0/16"], "shared": true } });
    net.post("subnetpools", shared).await.expect(403);
    net.delete(&format!("networks/{network}")).await.expect(204);
    net.delete(&path).await.expect(204);
    assert_eq!(net.get("subnetpools").await["subnetpools"], json!([]));
}

#[tokio::test]
async fn the_api_says_what_it_is() {
    let net = Net::start().await;
    let root = net.cloud.get("/network/", "").await.expect(200);
    assert_eq!(root["versions"][0]["links"][0]["href"], json!(format!("{URL}/network/v2.0/")));
    assert_eq!(root["versions"][0]["status"], "CURRENT");
    net.cloud.get("/network/v2.0", "").await.expect(200);
    let extensions = net.get("extensions").await;
    let aliases: Vec<&str> =
        extensions["extensions"].as_array().unwrap().iter().map(|e| e["alias"].as_str().unwrap()).collect();
    for alias in
        ["external-net", "router", "extraroute", "security-group", "net-mtu", "port-security", "subnet_allocation"]
    {
        assert!(aliases.contains(&alias), "{alias}");
    }
    assert_eq!(net.get("extensions/router").await["extension"]["alias"], "router");
    net.cloud.get(&format!("{NET}/extensions/tags"), net.cloud.demo().await).await.expect(404);
    assert_eq!(net.get("availability_zones").await["availability_zones"][0]["name"], "nova");
    net.node("n1").await;
    let admin = net.cloud.admin().await;
    assert_eq!(net.cloud.get(&format!("{NET}/agents"), admin).await.expect(200)["agents"][0]["host"], "n1");
    let none = net.cloud.get(&format!("{NET}/agents"), net.cloud.demo().await).await.expect(200);
    assert_eq!(none["agents"], json!([]));
    let (network, _) = net.network("n", "10.15.0.0/24").await;
    net.make("port", "ports", json!({ "network_id": network })).await;
    let full = net.cloud.get(&format!("{NET}/network-ip-availabilities/{network}"), admin).await.expect(200);
    let full = &full["network_ip_availability"];
    assert_eq!((&full["total_ips"], &full["used_ips"]), (&json!(253), &json!(1)));
}

#[tokio::test]
async fn a_node_is_told_all_that_it_must_carry_and_woken_when_that_changes() {
    let net = Net::start().await;
    let engine = &net.cloud.app.engine;
    let public = net.public().await;
    let (network, subnet) = net.network("n", "10.16.0.0/24").await;
    let router = net.router(&subnet, &public).await;
    let (node, other) = (net.node("n1").await, net.node("n2").await);
    assert_eq!(engine.network_specs(node).await.unwrap(), (vec![], vec![], vec![]));
    let generation = async |node| net.cloud.store.node_spec_generation(node).await.unwrap().unwrap();
    let (here, there) = (
        net.make("port", "ports", json!({ "network_id": network, "dns_name": "web" })).await,
        net.make("port", "ports", json!({ "network_id": network })).await,
    );
    let server = net.bind(&id(&here), node).await;
    net.bind(&id(&there), other).await;
    let ip = net
        .post("floatingips", json!({ "floatingip": { "floating_network_id": public, "port_id": here["id"] } }))
        .await;
    let ip = ip.expect(201)["floatingip"].take();

    let before = net.cloud.store.queries();
    let (networks, routers, groups) = engine.network_specs(node).await.unwrap();
    assert!(net.cloud.store.queries() - before <= 18, "{}", net.cloud.store.queries() - before);
    let own = networks.iter().find(|n| n.id.to_string() == network).unwrap();
    assert_eq!((own.ports.len(), own.ports[0].server_id, own.ports[0].hostname.as_str()), (1, Some(server), "web"));
    assert_eq!((own.mtu, own.external.is_none(), own.subnets[0].gateway), (1450, true, Some([10, 16, 0, 1].into())));
    assert_eq!(own.peers.len(), 1);
    assert_eq!(own.peers[0].underlay, std::net::IpAddr::from([10, 255, 0, 2]));
    assert_eq!(own.peers[0].macs[0].to_string(), there["mac_address"].as_str().unwrap());
    let outside = networks.iter().find(|n| n.id.to_string() == public).unwrap();
    assert_eq!(outside.external.as_ref().unwrap().gateway, "172.24.4.1/28".parse().unwrap());
    assert_eq!((routers.len(), routers[0].id.to_string()), (1, router));
    assert_eq!(routers[0].interfaces[0].addresses, ["10.16.0.1/24".parse().unwrap()]);
    let gateway = routers[0].gateway.as_ref().unwrap();
    assert_eq!((gateway.snat, gateway.next_hops.as_slice()), (true, &[[172, 24, 4, 1].into()][..]));
    assert_eq!(routers[0].floating_ips[0].floating.to_string(), ip["floating_ip_address"].as_str().unwrap());
    assert_eq!((groups.len(), groups[0].members.len()), (1, 2));
    let from_own = FilterRule {
        direction: Direction::Ingress,
        ethertype: EtherType::V4,
        protocol: None,
        port_min: None,
        port_max: None,
        remote_cidr: None,
        remote_group: Some(groups[0].id),
        remote_address_group: None,
    };
    assert!(groups[0].rules.contains(&from_own));

    // A change of the group reaches both nodes, and whoever waits for this one is told.
    let woken = engine.wake().listen(node);
    let (one, two) = (generation(node).await, generation(other).await);
    let rule = json!({ "security_group_id": groups[0].id, "direction": "ingress", "protocol": "icmp" });
    net.make("security_group_rule", "security-group-rules", rule).await;
    assert!(generation(node).await > one && generation(other).await > two);
    assert!(woken.has_changed().unwrap());

    // What the node sees of its ports becomes their status.
    let port: PortId = id(&here).parse().unwrap();
    engine.ports_observed(node, &[port]).await.unwrap();
    assert_eq!(net.get(&format!("ports/{port}")).await["port"]["status"], "ACTIVE");
    engine.ports_observed(node, &[]).await.unwrap();
    assert_eq!(net.get(&format!("ports/{port}")).await["port"]["status"], "DOWN");
    let body = json!({ "port": { "device_id": "elsewhere" } });
    assert_eq!(refused(net.put(&format!("ports/{port}"), body).await, 409), "PortInUse");
}
