//! The network API.

use super::things::Thing::{
    AddressGroup, AddressScope, AutoTopology, DefaultPool, DefaultRule, FloatingIp, FloatingIpAndPort, Network,
    Nothing, Port, PortForwarding, QosPolicy, RbacPolicy, Router, RouterAndSubnet, RouterWithLeg, SecurityGroup,
    SecurityGroupRule, Subnet, SubnetPool, Tagged,
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
        case("GET /network/v2.0/service-providers", Nothing, 200),
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
    cases.extend(sharing());
    cases.extend(qos());
    cases.extend(forwarding());
    cases.extend(tags());
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

fn sharing() -> Vec<Case> {
    vec![
        case("GET /network/v2.0/rbac-policies", RbacPolicy, 200),
        case("POST /network/v2.0/rbac-policies", Network, 201).body(
            r#"{"rbac_policy":{"object_type":"network","object_id":"{id}","action":"access_as_shared","target_tenant":"{elsewhere}"}}"#,
        ),
        case("POST /network/v2.0/rbac-policies", Network, 201)
            .body(
                r#"{"rbac_policy":{"object_type":"network","object_id":"{id}","action":"access_as_shared","target_tenant":"*"}}"#,
            )
            .rule(Rule::Admin),
        case("POST /network/v2.0/rbac-policies", Network, 201)
            .body(
                r#"{"rbac_policy":{"object_type":"network","object_id":"{id}","action":"access_as_external","target_tenant":"{elsewhere}"}}"#,
            )
            .rule(Rule::Admin),
        case("GET /network/v2.0/rbac-policies/{id}", RbacPolicy, 200),
        case("PUT /network/v2.0/rbac-policies/{id}", RbacPolicy, 200)
            .body(r#"{"rbac_policy":{"target_tenant":"{elsewhere}"}}"#),
        case("DELETE /network/v2.0/rbac-policies/{id}", RbacPolicy, 204),
        case("GET /network/v2.0/address-groups", AddressGroup, 200),
        case("POST /network/v2.0/address-groups", Nothing, 201).body(r#"{"address_group":{"name":"{fresh}"}}"#),
        case("GET /network/v2.0/address-groups/{id}", AddressGroup, 200),
        case("PUT /network/v2.0/address-groups/{id}", AddressGroup, 200)
            .body(r#"{"address_group":{"name":"{fresh}"}}"#),
        case("PUT /network/v2.0/address-groups/{id}/add_addresses", AddressGroup, 200)
            .body(r#"{"addresses":["10.0.1.0/24"]}"#),
        case("PUT /network/v2.0/address-groups/{id}/remove_addresses", AddressGroup, 200)
            .body(r#"{"addresses":["10.0.0.0/24"]}"#),
        case("DELETE /network/v2.0/address-groups/{id}", AddressGroup, 204),
        case("GET /network/v2.0/address-scopes", AddressScope, 200),
        case("POST /network/v2.0/address-scopes", Nothing, 201)
            .body(r#"{"address_scope":{"name":"{fresh}","ip_version":4}}"#),
        case("POST /network/v2.0/address-scopes", Nothing, 201)
            .body(r#"{"address_scope":{"name":"{fresh}","ip_version":6,"shared":true}}"#)
            .rule(Rule::Admin),
        case("GET /network/v2.0/address-scopes/{id}", AddressScope, 200),
        case("PUT /network/v2.0/address-scopes/{id}", AddressScope, 200)
            .body(r#"{"address_scope":{"name":"{fresh}"}}"#),
        case("DELETE /network/v2.0/address-scopes/{id}", AddressScope, 204),
        case("GET /network/v2.0/default-security-group-rules", DefaultRule, 200),
        case("POST /network/v2.0/default-security-group-rules", Nothing, 201)
            .body(r#"{"default_security_group_rule":{"direction":"ingress","protocol":"gre"}}"#),
        case("GET /network/v2.0/default-security-group-rules/{id}", DefaultRule, 200),
        case("DELETE /network/v2.0/default-security-group-rules/{id}", DefaultRule, 204),
        case("GET /network/v2.0/auto-allocated-topology/{id}", DefaultPool, 200)
            .with("id", "{project}")
            .query("fields=dry-run"),
        case("GET /network/v2.0/auto-allocated-topology/{id}", AutoTopology, 200).with("id", "{project}"),
        case("DELETE /network/v2.0/auto-allocated-topology/{id}", AutoTopology, 204).with("id", "{project}"),
    ]
}

fn qos() -> Vec<Case> {
    vec![
        case("GET /network/v2.0/qos/rule-types", Nothing, 200),
        case("GET /network/v2.0/qos/rule-types/{type}", Nothing, 200).with("type", "bandwidth_limit"),
        case("GET /network/v2.0/qos/policies", QosPolicy, 200),
        case("POST /network/v2.0/qos/policies", Nothing, 201).body(r#"{"policy":{"name":"{fresh}"}}"#),
        case("GET /network/v2.0/qos/policies/{id}", QosPolicy, 200),
        case("PUT /network/v2.0/qos/policies/{id}", QosPolicy, 200).body(r#"{"policy":{"name":"{fresh}"}}"#),
        case("DELETE /network/v2.0/qos/policies/{id}", QosPolicy, 204),
        case("GET /network/v2.0/qos/policies/{id}/bandwidth_limit_rules", QosPolicy, 200),
        case("POST /network/v2.0/qos/policies/{id}/bandwidth_limit_rules", QosPolicy, 201)
            .body(r#"{"bandwidth_limit_rule":{"max_kbps":2000}}"#),
        case("GET /network/v2.0/qos/policies/{id}/bandwidth_limit_rules/{rule}", QosPolicy, 200)
            .with("rule", "{limit}"),
        case("PUT /network/v2.0/qos/policies/{id}/bandwidth_limit_rules/{rule}", QosPolicy, 200)
            .with("rule", "{limit}")
            .body(r#"{"bandwidth_limit_rule":{"max_burst_kbps":100}}"#),
        case("DELETE /network/v2.0/qos/policies/{id}/bandwidth_limit_rules/{rule}", QosPolicy, 204)
            .with("rule", "{limit}"),
        case("GET /network/v2.0/qos/policies/{id}/dscp_marking_rules", QosPolicy, 200),
        case("POST /network/v2.0/qos/policies/{id}/dscp_marking_rules", QosPolicy, 409)
            .body(r#"{"dscp_marking_rule":{"dscp_mark":8}}"#)
            .because("the policy has a mark already"),
        case("GET /network/v2.0/qos/policies/{id}/dscp_marking_rules/{rule}", QosPolicy, 200).with("rule", "{mark}"),
        case("PUT /network/v2.0/qos/policies/{id}/dscp_marking_rules/{rule}", QosPolicy, 200)
            .with("rule", "{mark}")
            .body(r#"{"dscp_marking_rule":{"dscp_mark":8}}"#),
        case("DELETE /network/v2.0/qos/policies/{id}/dscp_marking_rules/{rule}", QosPolicy, 204).with("rule", "{mark}"),
    ]
}

fn forwarding() -> Vec<Case> {
    vec![
        case("GET /network/v2.0/floatingips/{id}/port_forwardings", PortForwarding, 200),
        case("POST /network/v2.0/floatingips/{id}/port_forwardings", FloatingIpAndPort, 201).body(
            r#"{"port_forwarding":{"internal_port_id":"{port}","internal_port":22,"external_port":2222,"protocol":"tcp"}}"#,
        ),
        case("GET /network/v2.0/floatingips/{id}/port_forwardings/{forwarding}", PortForwarding, 200),
        case("PUT /network/v2.0/floatingips/{id}/port_forwardings/{forwarding}", PortForwarding, 200)
            .body(r#"{"port_forwarding":{"external_port":2223}}"#),
        case("DELETE /network/v2.0/floatingips/{id}/port_forwardings/{forwarding}", PortForwarding, 204),
        case("PUT /network/v2.0/routers/{id}/add_extraroutes", Router, 200).body(r#"{"router":{"routes":[]}}"#),
        case("PUT /network/v2.0/routers/{id}/remove_extraroutes", Router, 200)
            .body(r#"{"router":{"routes":[{"destination":"10.99.0.0/24","nexthop":"10.7.0.9"}]}}"#),
    ]
}

/// The same six for every collection whose things carry tags.
fn tags() -> Vec<Case> {
    macro_rules! of {
        ($($collection:literal),*) => { vec![$(
            case(concat!("GET /network/v2.0/", $collection, "/{id}/tags"), Tagged($collection), 200),
            case(concat!("PUT /network/v2.0/", $collection, "/{id}/tags"), Tagged($collection), 200)
                .body(r#"{"tags":["a","b"]}"#),
            case(concat!("DELETE /network/v2.0/", $collection, "/{id}/tags"), Tagged($collection), 204),
            case(concat!("GET /network/v2.0/", $collection, "/{id}/tags/{tag}"), Tagged($collection), 204)
                .with("tag", "t"),
            case(concat!("PUT /network/v2.0/", $collection, "/{id}/tags/{tag}"), Tagged($collection), 201)
                .with("tag", "u"),
            case(concat!("DELETE /network/v2.0/", $collection, "/{id}/tags/{tag}"), Tagged($collection), 204)
                .with("tag", "t"),
        )*] };
    }
    of!(
        "networks",
        "subnets",
        "subnetpools",
        "ports",
        "routers",
        "floatingips",
        "security-groups",
        "qos/policies",
        "policies"
    )
}

#[tokio::test]
async fn networks_are_for_their_projects() {
    walk(cases()).await;
}
