//! The network API.

use super::things::Thing::{
    FloatingIp, Network, Nothing, Port, Router, RouterAndSubnet, RouterWithLeg, SecurityGroup, SecurityGroupRule,
    Subnet, SubnetPool,
};
use super::{Case, case, walk};
use arcus_types::policy::Rule;

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("GET /network", Nothing, 200),
        case("GET /network/", Nothing, 200),
        case("GET /network/v2.0", Nothing, 200),
        case("GET /network/v2.0/", Nothing, 200),
        case("GET /network/v2.0/extensions", Nothing, 200),
        case("GET /network/v2.0/extensions/{alias}", Nothing, 200).with("alias", "router"),
        case("GET /network/v2.0/availability_zones", Nothing, 200),
        case("GET /network/v2.0/agents", Nothing, 200),
        case("GET /network/v2.0/agents/{id}", Nothing, 200).with("id", "{node}"),
        case("GET /network/v2.0/network-ip-availabilities", Subnet, 200).with("id", "{network}"),
        case("GET /network/v2.0/network-ip-availabilities/{id}", Subnet, 200).with("id", "{network}"),
        case("GET /network/v2.0/quotas", Nothing, 200),
        case("GET /network/v2.0/quotas/{id}", Nothing, 200).with("id", "{project}"),
        case("PUT /network/v2.0/quotas/{id}", Nothing, 200).with("id", "{project}").body(r#"{"quota":{"network":-1}}"#),
        case("DELETE /network/v2.0/quotas/{id}", Nothing, 204).with("id", "{elsewhere}"),
        case("GET /network/v2.0/quotas/{id}/default", Nothing, 200).with("id", "{project}"),
        case("GET /network/v2.0/quotas/{id}/details", Nothing, 200).with("id", "{project}"),
        case("GET /network/v2.0/quotas/{id}/details.json", Nothing, 200).with("id", "{project}"),
    ];
    cases.extend(networks());
    cases.extend(ports());
    cases.extend(routers());
    cases.extend(security_groups());
    cases
}

fn networks() -> Vec<Case> {
    vec![
        case("GET /network/v2.0/networks", Network, 200),
        case("GET /network/v2.0/networks", Network, 200).query("project_id={project}&router:external=False"),
        case("POST /network/v2.0/networks", Nothing, 201).body(r#"{"network":{"name":"{fresh}"}}"#),
        case("POST /network/v2.0/networks", Nothing, 201).body(r#"{"network":{"project_id":"{project}"}}"#),
        case("POST /network/v2.0/networks", Nothing, 201).body(r#"{"network":{"shared":true}}"#).rule(Rule::Admin),
        case("POST /network/v2.0/networks", Nothing, 201)
            .body(r#"{"network":{"router:external":true}}"#)
            .rule(Rule::Admin),
        case("GET /network/v2.0/networks/{id}", Network, 200),
        case("PUT /network/v2.0/networks/{id}", Network, 200).body(r#"{"network":{"name":"{fresh}"}}"#),
        case("PUT /network/v2.0/networks/{id}", Network, 200).body(r#"{"network":{"shared":true}}"#).rule(Rule::Admin),
        case("DELETE /network/v2.0/networks/{id}", Network, 204),
        case("GET /network/v2.0/subnets", Subnet, 200),
        case("POST /network/v2.0/subnets", Network, 201)
            .body(r#"{"subnet":{"network_id":"{id}","ip_version":4,"cidr":"10.9.0.0/24"}}"#),
        case("GET /network/v2.0/subnets/{id}", Subnet, 200),
        case("PUT /network/v2.0/subnets/{id}", Subnet, 200).body(r#"{"subnet":{"name":"{fresh}"}}"#),
        case("DELETE /network/v2.0/subnets/{id}", Subnet, 204),
        case("GET /network/v2.0/subnetpools", SubnetPool, 200),
        case("POST /network/v2.0/subnetpools", Nothing, 201)
            .body(r#"{"subnetpool":{"name":"{fresh}","prefixes":["10.65.0.0/16"]}}"#),
        case("POST /network/v2.0/subnetpools", Nothing, 201)
            .body(r#"{"subnetpool":{"name":"{fresh}","prefixes":["10.65.0.0/16"],"shared":true}}"#)
            .rule(Rule::Admin),
        case("GET /network/v2.0/subnetpools/{id}", SubnetPool, 200),
        case("PUT /network/v2.0/subnetpools/{id}", SubnetPool, 200).body(r#"{"subnetpool":{"name":"{fresh}"}}"#),
        case("DELETE /network/v2.0/subnetpools/{id}", SubnetPool, 204),
    ]
}

fn ports() -> Vec<Case> {
    vec![
        case("GET /network/v2.0/ports", Port, 200),
        case("GET /network/v2.0/ports", Port, 200).query("network_id={network}"),
        case("POST /network/v2.0/ports", Network, 201).body(r#"{"port":{"network_id":"{id}"}}"#),
        case("POST /network/v2.0/ports", Network, 201)
            .body(r#"{"port":{"network_id":"{id}","binding:host_id":"node-1"}}"#)
            .rule(Rule::Admin),
        case("GET /network/v2.0/ports/{id}", Port, 200),
        case("PUT /network/v2.0/ports/{id}", Port, 200).body(r#"{"port":{"name":"{fresh}"}}"#),
        case("PUT /network/v2.0/ports/{id}", Port, 200)
            .body(r#"{"port":{"mac_address":"fa:16:3e:00:00:01"}}"#)
            .rule(Rule::Admin),
        case("DELETE /network/v2.0/ports/{id}", Port, 204),
    ]
}

fn routers() -> Vec<Case> {
    vec![
        case("GET /network/v2.0/routers", Router, 200),
        case("POST /network/v2.0/routers", Nothing, 201).body(r#"{"router":{"name":"{fresh}"}}"#),
        case("POST /network/v2.0/routers", Nothing, 201)
            .body(r#"{"router":{"external_gateway_info":{"network_id":"{public}","enable_snat":false}}}"#)
            .rule(Rule::Admin),
        case("GET /network/v2.0/routers/{id}", Router, 200),
        case("PUT /network/v2.0/routers/{id}", Router, 200).body(r#"{"router":{"name":"{fresh}"}}"#),
        case("DELETE /network/v2.0/routers/{id}", Router, 204),
        case("PUT /network/v2.0/routers/{id}/add_router_interface", RouterAndSubnet, 200)
            .body(r#"{"subnet_id":"{subnet}"}"#),
        case("PUT /network/v2.0/routers/{id}/remove_router_interface", RouterWithLeg, 200)
            .body(r#"{"subnet_id":"{subnet}"}"#),
        case("GET /network/v2.0/floatingips", FloatingIp, 200),
        case("POST /network/v2.0/floatingips", Nothing, 201)
            .body(r#"{"floatingip":{"floating_network_id":"{public}"}}"#),
        case("POST /network/v2.0/floatingips", Nothing, 201)
            .body(r#"{"floatingip":{"floating_network_id":"{public}","floating_ip_address":"172.24.9.9"}}"#)
            .rule(Rule::Admin),
        case("GET /network/v2.0/floatingips/{id}", FloatingIp, 200),
        case("PUT /network/v2.0/floatingips/{id}", FloatingIp, 200).body(r#"{"floatingip":{"port_id":null}}"#),
        case("DELETE /network/v2.0/floatingips/{id}", FloatingIp, 204),
    ]
}

fn security_groups() -> Vec<Case> {
    vec![
        case("GET /network/v2.0/security-groups", SecurityGroup, 200),
        case("POST /network/v2.0/security-groups", Nothing, 201).body(r#"{"security_group":{"name":"{fresh}"}}"#),
        case("GET /network/v2.0/security-groups/{id}", SecurityGroup, 200),
        case("PUT /network/v2.0/security-groups/{id}", SecurityGroup, 200)
            .body(r#"{"security_group":{"name":"{fresh}"}}"#),
        case("DELETE /network/v2.0/security-groups/{id}", SecurityGroup, 204),
        case("GET /network/v2.0/security-group-rules", SecurityGroupRule, 200),
        case("GET /network/v2.0/security-group-rules", SecurityGroupRule, 200)
            .query("security_group_id={security_group}"),
        case("POST /network/v2.0/security-group-rules", SecurityGroup, 201)
            .body(r#"{"security_group_rule":{"security_group_id":"{id}","direction":"ingress","protocol":"udp"}}"#),
        case("GET /network/v2.0/security-group-rules/{id}", SecurityGroupRule, 200),
        case("DELETE /network/v2.0/security-group-rules/{id}", SecurityGroupRule, 204),
    ]
}

#[tokio::test]
async fn networks_are_for_their_projects() {
    walk(cases()).await;
}
