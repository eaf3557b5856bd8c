//! What the network API has beyond its core: sharing, tags, quality of service, forwarding, address groups and scopes.

use super::{NET, Net, id, refused};
use serde_json::{Value, json};

impl Net {
    /// A call by an administrator.
    async fn admin_make(&self, kind: &str, collection: &str, attributes: Value) -> Value {
        let path = format!("{NET}/{collection}");
        self.cloud.post(&path, self.cloud.admin().await, json!({ kind: attributes })).await.expect(201)[kind].take()
    }

    async fn if_match(&self, method: &str, path: &str, revision: &str, body: Value) -> crate::harness::Answer {
        let headers = [("if-match", revision), ("content-type", "application/json")];
        let (path, token) = (format!("{NET}/{path}"), self.cloud.demo().await);
        self.cloud.send(method, &path, token, &headers, body.to_string()).await
    }
}

#[tokio::test]
async fn a_policy_lets_one_project_in_and_ends_when_it_has_left() {
    let net = Net::start().await;
    let (network, _) = net.network("ours", "10.20.0.0/24").await;
    let stranger = net.cloud.stranger().await;
    let elsewhere = net.cloud.id_of("projects", "elsewhere").await;
    let seen = format!("{NET}/networks/{network}");
    net.cloud.get(&seen, stranger).await.expect(404);

    let wish = json!({ "object_type": "network", "object_id": network, "action": "access_as_shared" });
    let mut to_them = wish.clone();
    to_them["target_tenant"] = json!(elsewhere);
    let policy = net.make("rbac_policy", "rbac-policies", to_them.clone()).await;
    assert_eq!(refused(net.post("rbac-policies", json!({ "rbac_policy": to_them })).await, 409), "RbacPolicyExists");
    let mut to_all = wish.clone();
    to_all["target_tenant"] = json!("*");
    net.post("rbac-policies", json!({ "rbac_policy": to_all })).await.expect(403);

    // They see it as shared, use it, and change nothing; its owner and others see it as before.
    assert_eq!(net.cloud.get(&seen, stranger).await.expect(200)["network"]["shared"], true);
    let listed = net.cloud.get(&format!("{NET}/networks?shared=true"), stranger).await.expect(200);
    assert_eq!(listed["networks"][0]["id"], json!(network));
    assert_eq!(net.get(&format!("networks/{network}")).await["network"]["shared"], false);
    net.cloud.put(&seen, stranger, json!({ "network": { "name": "theirs" } })).await.expect(403);
    let body = json!({ "port": { "network_id": network } });
    let port = net.cloud.post(&format!("{NET}/ports"), stranger, body).await.expect(201);
    let port = id(&port["port"]);

    let path = format!("rbac-policies/{}", id(&policy));
    assert_eq!(refused(net.delete(&path).await, 409), "RbacPolicyInUse");
    net.cloud.delete(&format!("{NET}/ports/{port}"), stranger).await.expect(204);
    net.delete(&path).await.expect(204);
    net.cloud.get(&seen, stranger).await.expect(404);

    // The attribute and the policy are one thing.
    let admin = net.cloud.admin().await;
    net.cloud.put(&seen, admin, json!({ "network": { "shared": true } })).await.expect(200);
    let found = net.get(&format!("rbac-policies?object_id={network}")).await;
    assert_eq!(found["rbac_policies"][0]["target_tenant"], "*");
    let path = format!("{NET}/rbac-policies/{}", id(&found["rbac_policies"][0]));
    net.cloud.delete(&path, admin).await.expect(204);
    assert_eq!(net.get(&format!("networks/{network}")).await["network"]["shared"], false);
}

#[tokio::test]
async fn a_shared_group_filters_ports_of_others() {
    let net = Net::start().await;
    let group = net.make("security_group", "security-groups", json!({ "name": "offered" })).await;
    let stranger = net.cloud.stranger().await;
    let body = json!({ "network": { "name": "theirs" } });
    let network = net.cloud.post(&format!("{NET}/networks"), stranger, body).await.expect(201)["network"]["id"].take();
    let body = json!({ "port": { "network_id": network, "security_groups": [group["id"]] } });
    let ports = format!("{NET}/ports");
    assert_eq!(refused(net.cloud.post(&ports, stranger, body.clone()).await, 404), "SecurityGroupNotFound");
    let policy = json!({ "object_type": "security_group", "object_id": group["id"], "action": "access_as_shared",
        "target_tenant": net.cloud.id_of("projects", "elsewhere").await });
    net.make("rbac_policy", "rbac-policies", policy).await;
    net.cloud.post(&ports, stranger, body).await.expect(201);
    let shown = net.cloud.get(&format!("{NET}/security-groups/{}", id(&group)), stranger).await.expect(200);
    assert_eq!(shown["security_group"]["shared"], true);
    net.cloud.delete(&format!("{NET}/security-groups/{}", id(&group)), stranger).await.expect(403);
}

#[tokio::test]
async fn tags_are_kept_filtered_by_and_guarded_by_the_revision() {
    let net = Net::start().await;
    for (name, tags) in [("one", json!(["red"])), ("two", json!(["blue", "red"])), ("three", json!([]))] {
        let network = net.make("network", "networks", json!({ "name": name })).await;
        let path = format!("networks/{}/tags", id(&network));
        assert_eq!(net.put(&path, json!({ "tags": tags })).await.expect(200)["tags"], tags);
    }
    for (query, wanted) in [
        ("tags=red", vec!["one", "two"]),
        ("tags=red,blue", vec!["two"]),
        ("tags-any=blue,green", vec!["two"]),
        ("not-tags=red,blue", vec!["one", "three"]),
        ("not-tags-any=blue,red", vec!["three"]),
    ] {
        let found = net.get(&format!("networks?{query}&sort_key=id")).await;
        let names: Vec<&str> =
            found["networks"].as_array().unwrap().iter().filter_map(|n| n["name"].as_str()).collect();
        assert_eq!(names, wanted, "{query}");
    }
    let one = net.get("networks?name=one").await["networks"][0].take();
    let path = format!("networks/{}", id(&one));
    assert_eq!(one["revision_number"], 2);
    let rename = json!({ "network": { "name": "uno" } });
    let stale = net.if_match("PUT", &path, "revision_number=1", rename.clone()).await;
    assert_eq!(refused(stale, 412), "RevisionNumberConstraintFailed");
    net.if_match("PUT", &path, "two", rename.clone()).await.expect(400);
    net.if_match("PUT", &path, "revision_number=2", rename).await.expect(200);
    net.if_match("DELETE", &path, "revision_number=2", Value::Null).await.expect(412);
    net.put(&format!("{path}/tags/with,comma"), Value::Null).await.expect(400);
    net.delete(&format!("{path}/tags/none")).await.expect(404);
    net.delete(&format!("{path}/tags")).await.expect(204);
    net.delete(&path).await.expect(204);
}

#[tokio::test]
async fn pools_of_a_scope_do_not_overlap_and_networks_show_their_scope() {
    let net = Net::start().await;
    let scope = net.make("address_scope", "address-scopes", json!({ "name": "s", "ip_version": 4 })).await;
    let pool = json!({ "name": "p", "prefixes": ["10.30.0.0/16"], "default_prefixlen": 24,
        "address_scope_id": scope["id"] });
    let pool = net.make("subnetpool", "subnetpools", pool).await;
    let inside = json!({ "name": "q", "prefixes": ["10.30.4.0/24"], "address_scope_id": scope["id"] });
    let answer = net.post("subnetpools", json!({ "subnetpool": inside })).await;
    assert_eq!(refused(answer, 409), "AddressScopePrefixConflict");
    let six = json!({ "name": "q", "prefixes": ["fd00::/48"], "address_scope_id": scope["id"] });
    net.post("subnetpools", json!({ "subnetpool": six })).await.expect(400);
    let network = net.make("network", "networks", json!({ "name": "n" })).await;
    let subnet = json!({ "network_id": network["id"], "ip_version": 4, "subnetpool_id": pool["id"] });
    net.make("subnet", "subnets", subnet).await;
    let shown = net.get(&format!("networks/{}", id(&network))).await["network"].take();
    assert_eq!((&shown["ipv4_address_scope"], &shown["ipv6_address_scope"]), (&scope["id"], &Value::Null));
    let other = json!({ "network_id": network["id"], "ip_version": 4, "cidr": "10.31.0.0/24" });
    let answer = net.post("subnets", json!({ "subnet": other })).await;
    assert_eq!(refused(answer, 400), "NetworkSubnetPoolAffinityError");
    assert_eq!(refused(net.delete(&format!("address-scopes/{}", id(&scope))).await, 409), "AddressScopeInUse");
}

#[tokio::test]
async fn nodes_are_told_of_limits_forwardings_address_groups_and_options() {
    let net = Net::start().await;
    let engine = &net.cloud.app.engine;
    let public = net.public().await;
    let (network, subnet) = net.network("n", "10.21.0.0/24").await;
    net.router(&subnet, &public).await;
    let node = net.node("n1").await;
    let demo = net.cloud.id_of("projects", "demo").await;
    let policy = json!({ "name": "slow", "project_id": demo });
    let policy = net.admin_make("policy", "qos/policies", policy).await;
    let rules = format!("qos/policies/{}/bandwidth_limit_rules", id(&policy));
    let limit = json!({ "max_kbps": 2000, "max_burst_kbps": 300, "direction": "egress" });
    let rule = net.admin_make("bandwidth_limit_rule", &rules, limit.clone()).await;
    let (path, body) = (format!("{NET}/{rules}"), json!({ "bandwidth_limit_rule": limit }));
    let again = net.cloud.post(&path, net.cloud.admin().await, body).await;
    assert_eq!(refused(again, 409), "QoSRulesConflict");
    let marks = format!("qos/policies/{}/dscp_marking_rules", id(&policy));
    net.admin_make("dscp_marking_rule", &marks, json!({ "dscp_mark": 26 })).await;
    let body = json!({ "network": { "qos_policy_id": policy["id"], "dns_domain": "example.org." } });
    net.put(&format!("networks/{network}"), body).await.expect(200);
    let group =
        net.make("address_group", "address-groups", json!({ "name": "a", "addresses": ["192.0.2.0/24"] })).await;
    let filter = net.make("security_group", "security-groups", json!({ "name": "f" })).await;
    let rule_wish = json!({ "security_group_id": filter["id"], "direction": "ingress", "protocol": "tcp",
        "remote_address_group_id": group["id"] });
    net.make("security_group_rule", "security-group-rules", rule_wish).await;
    let port = json!({ "network_id": network, "security_groups": [filter["id"]], "dns_name": "web",
        "extra_dhcp_opts": [{ "opt_name": "mtu", "opt_value": "1400" }] });
    let port = net.make("port", "ports", port).await;
    assert_eq!(port["qos_network_policy_id"], policy["id"]);
    net.bind(&id(&port), node).await;
    let ip = net.make("floatingip", "floatingips", json!({ "floating_network_id": public })).await;
    let forwardings = format!("floatingips/{}/port_forwardings", id(&ip));
    let wish = json!({ "internal_port_id": port["id"], "internal_port_range": "80:81",
        "external_port_range": "8080:8081", "protocol": "tcp" });
    let forwarding = net.make("port_forwarding", &forwardings, wish.clone()).await;
    net.post(&forwardings, json!({ "port_forwarding": wish })).await.expect(400);
    let answer = net.put(&format!("floatingips/{}", id(&ip)), json!({ "floatingip": { "port_id": port["id"] } })).await;
    assert_eq!(refused(answer, 409), "FipInUseByPortForwarding");
    let shown = net.get(&format!("floatingips/{}", id(&ip))).await["floatingip"].take();
    assert_eq!(
        (&shown["status"], &shown["port_forwardings"][0]["external_port_range"]),
        (&json!("ACTIVE"), &json!("8080:8081"))
    );

    let (networks, routers, groups) = engine.network_specs(node).await.unwrap();
    let spec = &networks.iter().find(|n| n.id.to_string() == network).unwrap().ports[0];
    let egress = spec.qos.egress.unwrap();
    assert_eq!((egress.rate_kbit, egress.burst_kbit, spec.qos.ingress), (2000, 300, None));
    assert_eq!(
        (spec.qos.dscp_mark, spec.dns_domain.as_str(), spec.hostname.as_str()),
        (Some(26), "example.org.", "web")
    );
    assert_eq!((spec.dhcp_options[0].code, spec.dhcp_options[0].value.as_slice()), (26, &[5, 120][..]));
    let told = &routers[0].port_forwardings[0];
    assert_eq!((told.protocol, told.external_ports, told.internal_ports), (6, (8080, 8081), (80, 81)));
    let told = groups.iter().find(|g| g.id.to_string() == id(&filter)).unwrap();
    assert_eq!(told.address_groups[0].addresses, ["192.0.2.0/24".parse().unwrap()]);
    assert!(told.rules.iter().any(|r| r.remote_address_group == Some(told.address_groups[0].id)));

    // A change of any of them wakes the node.
    let generation = async || net.cloud.store.node_spec_generation(node).await.unwrap().unwrap();
    let before = generation().await;
    net.put(&format!("address-groups/{}/add_addresses", id(&group)), json!({ "addresses": ["198.51.100.7"] }))
        .await
        .expect(200);
    let with_address = generation().await;
    assert!(with_address > before);
    let faster = json!({ "bandwidth_limit_rule": { "max_kbps": 4000 } });
    net.cloud.put(&format!("{NET}/{rules}/{}", id(&rule)), net.cloud.admin().await, faster).await.expect(200);
    let with_limit = generation().await;
    assert!(with_limit > with_address);
    net.delete(&format!("{forwardings}/{}", id(&forwarding))).await.expect(204);
    assert!(generation().await > with_limit);
    assert_eq!(net.get(&format!("floatingips/{}", id(&ip))).await["floatingip"]["status"], "DOWN");
    assert_eq!(refused(net.delete(&format!("address-groups/{}", id(&group))).await, 409), "AddressGroupInUse");
    let gone = net.cloud.delete(&format!("{NET}/qos/policies/{}", id(&policy)), net.cloud.admin().await).await;
    assert_eq!(refused(gone, 409), "QosPolicyInUse");
}

#[tokio::test]
async fn routes_are_added_and_removed_beside_each_other() {
    let net = Net::start().await;
    let public = net.public().await;
    let (_, subnet) = net.network("n", "10.22.0.0/24").await;
    let router = net.router(&subnet, &public).await;
    let route = |n: u8| json!({ "destination": format!("10.99.{n}.0/24"), "nexthop": "10.22.0.9" });
    for n in [1, 2] {
        let body = json!({ "router": { "routes": [route(n)] } });
        net.put(&format!("routers/{router}/add_extraroutes"), body).await.expect(200);
    }
    let body = json!({ "router": { "routes": [route(1), route(7)] } });
    let left = net.put(&format!("routers/{router}/remove_extraroutes"), body).await.expect(200);
    assert_eq!(left["router"]["routes"], json!([route(2)]));
    let astray = json!({ "router": { "routes": [{ "destination": "10.98.0.0/24", "nexthop": "192.0.2.1" }] } });
    let answer = net.put(&format!("routers/{router}/add_extraroutes"), astray).await;
    assert_eq!(refused(answer, 400), "InvalidRoutes");
}

#[tokio::test]
async fn a_project_gets_a_network_for_the_asking_and_gives_it_back() {
    let net = Net::start().await;
    let demo = net.cloud.id_of("projects", "demo").await;
    let path = format!("auto-allocated-topology/{demo}");
    let token = net.cloud.demo().await;
    let missing = net.cloud.get(&format!("{NET}/{path}"), token).await;
    assert_eq!(refused(missing, 409), "AutoAllocationFailure");
    net.public().await;
    let pool = json!({ "name": "d", "prefixes": ["10.40.0.0/16"], "default_prefixlen": 24, "is_default": true,
        "shared": true });
    net.admin_make("subnetpool", "subnetpools", pool.clone()).await;
    let second = json!({ "subnetpool": pool });
    net.cloud.post(&format!("{NET}/subnetpools"), net.cloud.admin().await, second).await.expect(400);
    assert_eq!(net.get(&format!("{path}?fields=dry-run")).await["auto_allocated_topology"]["id"], "dry-run=pass");
    let made = net.get(&path).await["auto_allocated_topology"]["id"].take();
    assert_eq!(net.get(&path).await["auto_allocated_topology"]["id"], made);
    assert_eq!(net.get("routers").await["routers"].as_array().unwrap().len(), 1);
    net.delete(&path).await.expect(204);
    for collection in ["networks?router:external=false", "routers", "ports", "subnets?router:external=false"] {
        let left = net.get(collection).await;
        assert!(left.as_object().unwrap().values().all(|rows| *rows == json!([])), "{collection}: {left}");
    }
    assert_eq!(refused(net.delete(&path).await, 404), "AutoAllocatedTopologyNotFound");
}

#[tokio::test]
async fn new_groups_begin_with_the_rules_that_administrators_chose() {
    let net = Net::start().await;
    let rules = net.get("default-security-group-rules").await;
    assert_eq!(rules["default_security_group_rules"].as_array().unwrap().len(), 4);
    let ssh = json!({ "direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22 });
    let rule = net.admin_make("default_security_group_rule", "default-security-group-rules", ssh.clone()).await;
    let again = json!({ "default_security_group_rule": ssh });
    let path = format!("{NET}/default-security-group-rules");
    let again = net.cloud.post(&path, net.cloud.admin().await, again).await;
    assert_eq!(refused(again, 409), "DefaultSecurityGroupRuleExists");
    let group = net.make("security_group", "security-groups", json!({ "name": "g" })).await;
    let of_group = group["security_group_rules"].as_array().unwrap();
    assert_eq!(of_group.len(), 3);
    assert!(of_group.iter().any(|r| r["port_range_min"] == 22 && r["direction"] == "ingress"));
    net.cloud.delete(&format!("{path}/{}", id(&rule)), net.cloud.admin().await).await.expect(204);
    let group = net.make("security_group", "security-groups", json!({ "name": "h" })).await;
    assert_eq!(group["security_group_rules"].as_array().unwrap().len(), 2);
}
