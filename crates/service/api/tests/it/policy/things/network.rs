//! What must be there before a route of the network API can be called.

use super::super::Who;
use super::{Kind, Thing, Vars, World, id};
use serde_json::{Value, json};

impl World {
    /// Makes one thing of the network API; its id.
    pub(super) async fn net(&self, kind: &str, collection: &str, attributes: Value) -> String {
        self.net_of(Who::Member, kind, collection, attributes).await
    }

    pub(super) async fn net_of(&self, who: Who, kind: &str, collection: &str, attributes: Value) -> String {
        let made = self.by(who, "POST", &format!("/network/v2.0/{collection}"), json!({ kind: attributes })).await;
        id(&made[kind])
    }

    pub(super) async fn network_thing(&self, thing: Thing, vars: &mut Vars) {
        let made = match thing {
            Thing::SubnetPool => {
                let pool = json!({ "name": self.word(), "prefixes": ["10.64.0.0/16"], "default_prefixlen": 24 });
                self.net("subnetpool", "subnetpools", pool).await
            }
            Thing::Router => self.net("router", "routers", json!({ "name": self.word() })).await,
            Thing::FloatingIp => {
                let public = vars.get("public").unwrap();
                self.net("floatingip", "floatingips", json!({ "floating_network_id": public })).await
            }
            Thing::SecurityGroup => self.net("security_group", "security-groups", json!({ "name": self.word() })).await,
            Thing::SecurityGroupRule => {
                let group = self.net("security_group", "security-groups", json!({ "name": self.word() })).await;
                let rule = json!({ "security_group_id": group, "direction": "ingress", "protocol": "tcp" });
                vars.secret("security_group", group);
                self.net("security_group_rule", "security-group-rules", rule).await
            }
            _ => {
                let network = self.net("network", "networks", json!({ "name": self.word() })).await;
                let on_network = self.on_network(thing, &network, vars).await;
                vars.secret("network", network.clone());
                on_network.unwrap_or(network)
            }
        };
        vars.secret("id", made);
    }

    /// The default subnet pool: made once, for a cloud has one of an IP version.
    pub(super) async fn default_pool(&self) {
        let there = self.admin("GET", "/network/v2.0/subnetpools?is_default=true", Value::Null).await;
        if there["subnetpools"] == json!([]) {
            let pool = json!({ "name": "default", "prefixes": ["10.80.0.0/16"], "default_prefixlen": 26,
                "is_default": true, "shared": true });
            self.net_of(Who::Admin, "subnetpool", "subnetpools", pool).await;
        }
    }

    pub(super) async fn network_extra(&self, thing: Thing, vars: &mut Vars) {
        let word = self.word();
        let made = match thing {
            Thing::AddressGroup => {
                let group = json!({ "name": word, "addresses": ["10.0.0.0/24"] });
                self.net("address_group", "address-groups", group).await
            }
            Thing::AddressScope => {
                self.net("address_scope", "address-scopes", json!({ "name": word, "ip_version": 4 })).await
            }
            Thing::RbacPolicy => {
                let network = self.net("network", "networks", json!({ "name": word })).await;
                let policy = json!({ "object_type": "network", "object_id": network, "action": "access_as_shared",
                    "target_tenant": vars.get("admins").unwrap() });
                vars.secret("network", network);
                self.net("rbac_policy", "rbac-policies", policy).await
            }
            Thing::QosPolicy => {
                let policy = json!({ "name": word, "project_id": vars.get("project").unwrap() });
                let policy = self.net_of(Who::Admin, "policy", "qos/policies", policy).await;
                for (kind, name, body) in [
                    ("bandwidth_limit_rule", "limit", json!({ "max_kbps": 1000, "direction": "ingress" })),
                    ("dscp_marking_rule", "mark", json!({ "dscp_mark": 10 })),
                ] {
                    let rule = self.net_of(Who::Admin, kind, &format!("qos/policies/{policy}/{kind}s"), body).await;
                    vars.secret(name, rule);
                }
                policy
            }
            Thing::DefaultRule => {
                // Which one it is differs, so that a cloud may have several of them.
                let port = 1000 + self.words.get();
                let rule = json!({ "direction": "ingress", "protocol": "tcp", "port_range_min": port,
                    "port_range_max": port });
                let kind = "default_security_group_rule";
                let rule = self.net_of(Who::Admin, kind, "default-security-group-rules", rule).await;
                return vars.set("id", Kind::Common, rule);
            }
            _ => {
                let public = vars.get("public").unwrap().to_owned();
                self.network_thing(Thing::RouterWithLeg, vars).await;
                let router = vars.get("id").unwrap().to_owned();
                let gateway = json!({ "router": { "external_gateway_info": { "network_id": public } } });
                self.demo("PUT", &format!("/network/v2.0/routers/{router}"), gateway).await;
                let network = vars.get("network").unwrap();
                let port = self.net("port", "ports", json!({ "network_id": network })).await;
                let ip = self.net("floatingip", "floatingips", json!({ "floating_network_id": public })).await;
                if thing == Thing::PortForwarding {
                    let body = json!({ "internal_port_id": port, "internal_port": 22, "external_port": 2222,
                        "protocol": "tcp" });
                    let collection = format!("floatingips/{ip}/port_forwardings");
                    let forwarding = self.net("port_forwarding", &collection, body).await;
                    vars.secret("forwarding", forwarding);
                }
                vars.secret("port", port);
                ip
            }
        };
        vars.secret("id", made);
    }

    async fn on_network(&self, thing: Thing, network: &str, vars: &mut Vars) -> Option<String> {
        if thing == Thing::Network {
            return None;
        }
        let subnet = json!({ "network_id": network, "ip_version": 4, "cidr": "10.7.0.0/24" });
        let subnet = self.net("subnet", "subnets", subnet).await;
        vars.secret("subnet", subnet.clone());
        match thing {
            Thing::Port => Some(self.net("port", "ports", json!({ "network_id": network })).await),
            Thing::RouterAndSubnet => Some(self.net("router", "routers", json!({ "name": self.word() })).await),
            Thing::RouterWithLeg => {
                let router = self.net("router", "routers", json!({ "name": self.word() })).await;
                let path = format!("/network/v2.0/routers/{router}/add_router_interface");
                self.demo("PUT", &path, json!({ "subnet_id": subnet })).await;
                Some(router)
            }
            _ => Some(subnet),
        }
    }
}
