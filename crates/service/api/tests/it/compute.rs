//! The compute API as clients see it, microversion by microversion. The node is played by this test.

mod guests;
mod microversions;

use crate::harness::{Answer, Cloud};
use arcus_store::NodeNew;
use arcus_types::agent::{
    NodeFacts, NodeReport, Observed, Power, ServerReport, VolumeReport, VolumeSnapshotReport, VolumeSnapshotState,
    VolumeState,
};
use arcus_types::{NodeId, ServerId};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const NOVA: &str = "/compute/v2.1";

/// A cloud with a node, an image and a network of `demo`.
pub struct Nova {
    pub cloud: Cloud,
    pub node: NodeId,
    pub image: String,
    pub network: String,
}

impl Nova {
    pub async fn start() -> Self {
        let cloud = Cloud::start().await;
        let new = NodeNew { id: NodeId::new(), name: "node-1".parse().unwrap(), availability_zone: "nova".into() };
        let tx = cloud.store.begin_unaudited().await.unwrap();
        tx.node_insert(&new).await.unwrap();
        let facts = NodeFacts { vcpus: 8, memory_mib: 8192, disk_gib: 100, ..NodeFacts::default() };
        tx.node_facts_set(new.id, &facts).await.unwrap();
        tx.commit().await.unwrap();
        let demo = cloud.demo().await;
        let body = json!({ "name": "tiny", "disk_format": "raw", "container_format": "bare" });
        let image = cloud.post("/image/v2/images", demo, body).await.expect(201)["id"].as_str().unwrap().to_owned();
        let headers = [("content-type", "application/octet-stream")];
        let file = format!("/image/v2/images/{image}/file");
        let sent = cloud.send("PUT", &file, demo, &headers, vec![7_u8; 4096]).await;
        assert_eq!(sent.status.as_u16(), 204);
        let body = json!({ "network": { "name": "lan" } });
        let network = cloud.post("/network/v2.0/networks", demo, body).await.expect(201);
        let network = network["network"]["id"].as_str().unwrap().to_owned();
        let body = json!({ "subnet": { "network_id": network, "cidr": "10.1.0.0/24", "ip_version": 4 } });
        cloud.post("/network/v2.0/subnets", demo, body).await.expect(201);
        Self { cloud, node: new.id, image, network }
    }

    /// One call at a microversion.
    async fn at(&self, version: &str, method: &str, path: &str, token: &str, body: Value) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        let asked = format!("compute {version}");
        let headers = [("content-type", "application/json"), ("openstack-api-version", asked.as_str())];
        let answer = self.cloud.send(method, &format!("{NOVA}{path}"), token, &headers, bytes).await;
        if answer.status.as_u16() < 400 {
            assert_eq!(answer.header("x-openstack-nova-api-version"), version);
        }
        answer
    }

    async fn demo(&self, version: &str, method: &str, path: &str, body: Value) -> Answer {
        self.at(version, method, path, self.cloud.demo().await, body).await
    }

    fn body(&self) -> Value {
        json!({ "server": {
            "name": "web", "imageRef": self.image, "flavorRef": "1", "networks": [{ "uuid": self.network }],
        } })
    }

    /// A server that runs.
    pub async fn running(&self) -> String {
        let made = self.demo("2.1", "POST", "/servers", self.body()).await.expect(202);
        self.play().await;
        made["server"]["id"].as_str().unwrap().to_owned()
    }

    async fn status(&self, id: &str) -> String {
        let shown = self.demo("2.1", "GET", &format!("/servers/{id}"), Value::Null).await.expect(200);
        shown["server"]["status"].as_str().unwrap().to_owned()
    }

    /// The steps of the last action, the newest first, and how they ended.
    async fn events(&self, id: &str) -> Vec<String> {
        let path = format!("/servers/{id}/os-instance-actions");
        let all = self.demo("2.51", "GET", &path, Value::Null).await.expect(200);
        let path = format!("{path}/{}", all["instanceActions"][0]["request_id"].as_str().unwrap());
        let one = self.demo("2.51", "GET", &path, Value::Null).await.expect(200);
        let events = one["instanceAction"]["events"].as_array().unwrap();
        let told =
            |event: &Value| format!("{} {}", event["event"].as_str().unwrap(), event["result"].as_str().unwrap());
        events.iter().map(told).collect()
    }

    async fn act(&self, id: &str, body: Value) -> Answer {
        self.demo("2.1", "POST", &format!("/servers/{id}/action"), body).await
    }

    /// The node does all that it is told and says so.
    pub async fn play(&self) {
        let engine = &self.cloud.app.engine;
        let spec_generation = self.cloud.store.node_spec_generation(self.node).await.unwrap().unwrap();
        let (specs, _) = engine.server_specs(self.node).await.unwrap();
        let servers = specs
            .iter()
            .map(|spec| ServerReport {
                id: spec.id,
                epoch: spec.epoch,
                version: spec.version,
                observed: match spec.power {
                    Power::Running => Observed::Running,
                    Power::Paused => Observed::Paused,
                    Power::Stopped => Observed::Stopped,
                    Power::Suspended => Observed::Suspended,
                },
                restarts: spec.restarts.count,
                incarnation: spec.root_disk.as_ref().map_or(0, |disk| disk.incarnation),
                volumes: spec.volumes.iter().map(|v| v.volume_id).collect(),
                volume_faults: Vec::new(),
                step: None,
                progress_percent: 0,
                fault: None,
                passwords: 0,
                password_fault: None,
                cpu_ms: 0,
                memory_kib: 0,
                migration: None,
            })
            .collect();
        let (volumes, _) = engine.volume_specs(self.node).await.unwrap();
        let volumes = volumes.into_iter().map(|spec| VolumeReport {
            id: spec.id,
            version: spec.version,
            state: VolumeState::Ready,
            size_bytes: spec.size_bytes,
            snapshots: spec
                .snapshots
                .into_iter()
                .map(|id| VolumeSnapshotReport { id, state: VolumeSnapshotState::Ready })
                .collect(),
        });
        let report = NodeReport { spec_generation, servers, volumes: volumes.collect(), ..NodeReport::default() };
        engine.servers_observed(self.node, &report).await.unwrap();
        engine.volumes_observed(self.node, &report).await.unwrap();
    }
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The attributes of a running server that a member sees at 2.1; source: tempest's response schemas.
const AT_2_1: [&str; 28] = [
    "id",
    "name",
    "status",
    "image",
    "flavor",
    "user_id",
    "tenant_id",
    "created",
    "updated",
    "progress",
    "metadata",
    "links",
    "addresses",
    "hostId",
    "OS-DCF:diskConfig",
    "accessIPv4",
    "accessIPv6",
    "key_name",
    "security_groups",
    "OS-SRV-USG:launched_at",
    "OS-SRV-USG:terminated_at",
    "OS-EXT-AZ:availability_zone",
    "OS-EXT-STS:task_state",
    "OS-EXT-STS:vm_state",
    "OS-EXT-STS:power_state",
    "config_drive",
    "os-extended-volumes:volumes_attached",
    "id",
];

#[tokio::test]
async fn a_server_lives_and_dies() {
    let nova = Nova::start().await;
    let made = nova.demo("2.1", "POST", "/servers", nova.body()).await;
    assert!(made.header("location").contains("/servers/"));
    assert!(made.header("x-openstack-request-id").starts_with("req-"));
    let made = made.expect(202);
    assert_eq!(keys(&made["server"]), ["OS-DCF:diskConfig", "adminPass", "id", "links", "security_groups"].into());
    let id = made["server"]["id"].as_str().unwrap();
    assert_eq!(nova.status(id).await, "BUILD");
    nova.play().await;
    let shown = nova.demo("2.1", "GET", &format!("/servers/{id}"), Value::Null).await.expect(200);
    assert_eq!(keys(&shown["server"]), AT_2_1.into_iter().collect());
    assert_eq!(shown["server"]["status"], "ACTIVE");
    assert_eq!(shown["server"]["OS-EXT-STS:power_state"], 1);
    let address = &shown["server"]["addresses"]["lan"][0];
    assert_eq!(address["version"], 4);
    assert_eq!(address["OS-EXT-IPS:type"], "fixed");
    let ips = nova.demo("2.1", "GET", &format!("/servers/{id}/ips"), Value::Null).await.expect(200);
    assert_eq!(keys(&ips["addresses"]["lan"][0]), ["addr", "version"].into());

    nova.demo("2.1", "DELETE", &format!("/servers/{id}"), Value::Null).await.expect(204);
    nova.play().await;
    nova.demo("2.1", "GET", &format!("/servers/{id}"), Value::Null).await.expect(404);
    let list = nova.demo("2.1", "GET", "/servers", Value::Null).await.expect(200);
    assert_eq!(list, json!({ "servers": [] }));
}

#[tokio::test]
async fn each_microversion_adds_what_it_says() {
    let nova = Nova::start().await;
    let id = nova.running().await;
    let path = format!("/servers/{id}");
    let base: BTreeSet<&str> = AT_2_1.into_iter().collect();
    let steps: [(&str, &[&str]); 12] = [
        ("2.8", &[]),
        ("2.9", &["locked"]),
        ("2.19", &["locked", "description"]),
        ("2.26", &["locked", "description", "tags"]),
        ("2.63", &["locked", "description", "tags", "trusted_image_certificates"]),
        ("2.65", &["locked", "description", "tags", "trusted_image_certificates"]),
        ("2.69", &["locked", "description", "tags", "trusted_image_certificates"]),
        ("2.71", &["locked", "description", "tags", "trusted_image_certificates", "server_groups"]),
        ("2.72", &["locked", "description", "tags", "trusted_image_certificates", "server_groups"]),
        ("2.79", &["locked", "description", "tags", "trusted_image_certificates", "server_groups", "locked_reason"]),
        (
            "2.95",
            &[
                "locked",
                "description",
                "tags",
                "trusted_image_certificates",
                "server_groups",
                "locked_reason",
                "OS-EXT-SRV-ATTR:hostname",
            ],
        ),
        (
            "2.96",
            &[
                "locked",
                "description",
                "tags",
                "trusted_image_certificates",
                "server_groups",
                "locked_reason",
                "OS-EXT-SRV-ATTR:hostname",
                "pinned_availability_zone",
            ],
        ),
    ];
    for (version, more) in steps {
        let shown = nova.demo(version, "GET", &path, Value::Null).await.expect(200);
        let mut wanted = base.clone();
        wanted.extend(more);
        assert_eq!(keys(&shown["server"]), wanted, "{version}");
    }
    let old = nova.demo("2.46", "GET", &path, Value::Null).await.expect(200);
    assert_eq!(keys(&old["server"]["flavor"]), ["id", "links"].into());
    let new = nova.demo("2.47", "GET", &path, Value::Null).await.expect(200);
    assert_eq!(new["server"]["flavor"]["original_name"], "arcus.tiny");
    let list = nova.demo("2.79", "GET", "/servers/detail", Value::Null).await.expect(200);
    assert!(!keys(&list["servers"][0]).contains("server_groups"), "lists never show groups");
    let admin = nova.cloud.admin().await;
    let seen = nova.at("2.79", "GET", &path, admin, Value::Null).await.expect(200);
    assert_eq!(seen["server"]["OS-EXT-SRV-ATTR:host"], "node-1");
    assert_eq!(seen["server"]["host_status"], "UP");
    let changed = json!({ "server": { "name": "api" } });
    let changed_old = nova.demo("2.1", "PUT", &path, changed.clone()).await.expect(200);
    assert!(!keys(&changed_old["server"]).contains("key_name"));
    let changed_new = nova.demo("2.75", "PUT", &path, changed).await.expect(200);
    assert!(keys(&changed_new["server"]).contains("key_name"));
    let refused = nova.demo("2.999", "GET", &path, Value::Null).await;
    assert_eq!(refused.status.as_u16(), 406);
}

#[tokio::test]
async fn actions_answer_as_clients_expect() {
    let nova = Nova::start().await;
    let id = nova.running().await;
    let refused = nova.act(&id, json!({ "os-start": null })).await.expect(409);
    assert_eq!(
        refused["conflictingRequest"]["message"],
        format!("Cannot 'start' instance {id} while it is in vm_state active")
    );
    nova.act(&id, json!({ "reboot": { "type": "SOFT" } })).await.expect(202);
    assert_eq!(nova.status(&id).await, "REBOOT");
    nova.play().await;
    nova.act(&id, json!({ "os-stop": null })).await.expect(202);
    nova.play().await;
    assert_eq!(nova.status(&id).await, "SHUTOFF");
    nova.act(&id, json!({ "resize": { "flavorRef": "3" } })).await.expect(202);
    assert_eq!(nova.status(&id).await, "RESIZE");
    nova.play().await;
    assert_eq!(nova.status(&id).await, "VERIFY_RESIZE");
    assert_eq!(nova.events(&id).await, ["compute_resize_instance Success"]);
    nova.act(&id, json!({ "confirmResize": null })).await.expect(204);
    assert_eq!(nova.status(&id).await, "SHUTOFF");
    let rebuilt = nova.act(&id, json!({ "rebuild": { "imageRef": nova.image, "name": "again" } })).await.expect(202);
    assert_eq!(rebuilt["server"]["status"], "REBUILD");
    assert!(rebuilt["server"]["adminPass"].is_string());
    nova.play().await;
    nova.act(&id, json!({ "lock": null })).await.expect(202);
    nova.act(&id, json!({ "os-start": null })).await.expect(409);
    nova.act(&id, json!({ "unlock": null })).await.expect(202);
    let made = nova.act(&id, json!({ "createImage": { "name": "copy" } })).await;
    assert!(made.header("location").contains("/images/"));
    made.expect(202);
    let refused = nova.act(&id, json!({ "explode": {} })).await.expect(400);
    assert_eq!(refused["badRequest"]["message"], "There is no such action: explode");
    nova.act(&id, json!({ "os-resetState": { "state": "error" } })).await.expect(403);
    let path = format!("/servers/{id}/os-instance-actions");
    let told = nova.demo("2.1", "GET", &path, Value::Null).await.expect(200);
    let first = &told["instanceActions"][0];
    assert_eq!(first["action"], "createImage");
    let path = format!("{path}/{}", first["request_id"].as_str().unwrap());
    let one = nova.demo("2.51", "GET", &path, Value::Null).await.expect(200);
    assert_eq!(one["instanceAction"]["events"][0]["event"], "compute_snapshot_instance");
}

#[tokio::test]
async fn wrong_bodies_are_refused_with_words() {
    let nova = Nova::start().await;
    let wrong = [
        json!({ "name": "" }),
        json!({ "name": "x".repeat(256) }),
        json!({ "imageRef": "no-uuid" }),
        json!({ "imageRef": "0b8c6c5e-a1f2-4c1c-8b4a-3f2d1e0c9b8a" }),
        json!({ "flavorRef": "no-such" }),
        json!({ "networks": [{ "uuid": "no-uuid" }] }),
        json!({ "networks": [{ "uuid": "0b8c6c5e-a1f2-4c1c-8b4a-3f2d1e0c9b8a" }] }),
        json!({ "key_name": "no-such" }),
        json!({ "user_data": "!!" }),
        json!({ "metadata": { "k": "v".repeat(256) } }),
        json!({ "min_count": 3, "max_count": 2 }),
        json!({ "security_groups": [{ "name": "no-such" }] }),
        json!({ "availability_zone": "no-such" }),
        json!({ "accessIPv4": "1.1.1.1.1" }),
        json!({ "block_device_mapping_v2": [{ "source_type": "volume", "uuid": nova.image, "destination_type": "volume" }] }),
        json!({ "unheard_of": 1 }),
        json!({ "tags": ["needs 2.52"] }),
    ];
    for change in wrong {
        let mut body = nova.body();
        body["server"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = nova.demo("2.1", "POST", "/servers", body).await;
        assert_eq!(answer.status.as_u16(), 400, "{change}: {}", answer.json);
        assert!(answer.json["badRequest"]["message"].as_str().unwrap().len() > 10);
    }
    let mut body = nova.body();
    body["server"]["availability_zone"] = json!("nova:node-1");
    nova.demo("2.1", "POST", "/servers", body.clone()).await.expect(403);
    body["server"]["networks"] = json!("none");
    nova.at("2.37", "POST", "/servers", nova.cloud.admin().await, body).await.expect(202);
    let list = nova.demo("2.1", "GET", "/servers?limit=-1", Value::Null).await;
    assert_eq!(list.status.as_u16(), 400);
    let list = nova.demo("2.1", "GET", "/servers?limit=testing", Value::Null).await;
    assert_eq!(list.status.as_u16(), 400);
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    let nova = Nova::start().await;
    let mut body = nova.body();
    body["server"]["min_count"] = json!(3);
    nova.demo("2.1", "POST", "/servers", body).await.expect(202);
    nova.play().await;
    let names = async |query: &str| {
        let page = nova.demo("2.26", "GET", &format!("/servers{query}"), Value::Null).await.expect(200);
        page["servers"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("?sort_key=display_name&sort_dir=asc").await, ["web-1", "web-2", "web-3"]);
    assert_eq!(names("?name=b-2").await, ["web-2"]);
    assert_eq!(names("?status=ACTIVE").await.len(), 3);
    assert_eq!(names("?status=SHUTOFF").await.len(), 0);
    assert_eq!(names("?status=no-such").await.len(), 0);
    assert_eq!(names(&format!("?image={}", nova.image)).await.len(), 3);
    assert_eq!(names("?flavor=2").await.len(), 0);
    assert_eq!(names("?changes-since=2051-01-01T12:34:00Z").await.len(), 0);
    assert_eq!(names("?changes-since=2011-01-01T12:34:00Z").await.len(), 3);
    let page = nova.demo("2.1", "GET", "/servers?limit=2&sort_key=display_name&sort_dir=asc", Value::Null).await;
    let page = page.expect(200);
    let next = page["servers_links"][0]["href"].as_str().unwrap();
    let next = next.split_once("/compute/v2.1").unwrap().1;
    let rest = nova.demo("2.1", "GET", next, Value::Null).await.expect(200);
    assert_eq!(rest["servers"][0]["name"], "web-3");
    assert!(rest.get("servers_links").is_none());
    let stranger = nova.cloud.stranger().await;
    let theirs = nova.at("2.1", "GET", "/servers/detail", stranger, Value::Null).await.expect(200);
    assert_eq!(theirs["servers"], json!([]));
    nova.demo("2.1", "GET", "/servers?all_tenants=1", Value::Null).await.expect(403);
    let admin = nova.cloud.admin().await;
    let all = nova.at("2.1", "GET", "/servers?all_tenants=1", admin, Value::Null).await.expect(200);
    assert_eq!(all["servers"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn metadata_and_tags_are_kept() {
    let nova = Nova::start().await;
    let id = nova.running().await;
    let meta = format!("/servers/{id}/metadata");
    let all = nova.demo("2.1", "POST", &meta, json!({ "metadata": { "a": "1", "b": "2" } })).await.expect(200);
    assert_eq!(all["metadata"], json!({ "a": "1", "b": "2" }));
    nova.demo("2.1", "PUT", &format!("{meta}/a"), json!({ "meta": { "b": "3" } })).await.expect(400);
    nova.demo("2.1", "PUT", &format!("{meta}/a"), json!({ "meta": { "a": "3" } })).await.expect(200);
    nova.demo("2.1", "DELETE", &format!("{meta}/b"), Value::Null).await.expect(204);
    nova.demo("2.1", "DELETE", &format!("{meta}/b"), Value::Null).await.expect(404);
    let all = nova.demo("2.1", "GET", &meta, Value::Null).await.expect(200);
    assert_eq!(all["metadata"], json!({ "a": "3" }));
    let tags = format!("/servers/{id}/tags");
    nova.demo("2.25", "GET", &tags, Value::Null).await.expect(404);
    nova.demo("2.26", "PUT", &tags, json!({ "tags": ["x", "y"] })).await.expect(200);
    let added = nova.demo("2.26", "PUT", &format!("{tags}/z"), Value::Null).await;
    assert_eq!(added.status.as_u16(), 201);
    nova.demo("2.26", "GET", &format!("{tags}/z"), Value::Null).await.expect(204);
    nova.demo("2.26", "DELETE", &format!("{tags}/x"), Value::Null).await.expect(204);
    let left = nova.demo("2.26", "GET", &tags, Value::Null).await.expect(200);
    assert_eq!(left["tags"], json!(["y", "z"]));
    let found = nova.demo("2.26", "GET", "/servers?tags=y,z&not-tags=x", Value::Null).await.expect(200);
    assert_eq!(found["servers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn interfaces_and_security_groups_change() {
    let nova = Nova::start().await;
    let id = nova.running().await;
    let path = format!("/servers/{id}/os-interface");
    let body = json!({ "interfaceAttachment": { "net_id": nova.network } });
    let made = nova.demo("2.1", "POST", &path, body).await.expect(200);
    let port = made["interfaceAttachment"]["port_id"].as_str().unwrap().to_owned();
    let all = nova.demo("2.1", "GET", &path, Value::Null).await.expect(200);
    assert_eq!(all["interfaceAttachments"].as_array().unwrap().len(), 2);
    assert_eq!(
        keys(&all["interfaceAttachments"][0]),
        ["fixed_ips", "mac_addr", "net_id", "port_id", "port_state"].into()
    );
    nova.demo("2.1", "DELETE", &format!("{path}/{port}"), Value::Null).await.expect(202);
    nova.demo("2.1", "GET", &format!("{path}/{port}"), Value::Null).await.expect(404);
    let body = json!({ "security_group": { "name": "ssh", "description": "" } });
    let group = nova.demo("2.1", "POST", "/os-security-groups", body).await.expect(200);
    assert_eq!(keys(&group["security_group"]), ["description", "id", "name", "rules", "tenant_id"].into());
    nova.act(&id, json!({ "addSecurityGroup": { "name": "ssh" } })).await.expect(202);
    let path = format!("/servers/{id}/os-security-groups");
    let groups = nova.demo("2.1", "GET", &path, Value::Null).await.expect(200);
    assert_eq!(groups["security_groups"].as_array().unwrap().len(), 2);
    nova.act(&id, json!({ "removeSecurityGroup": { "name": "ssh" } })).await.expect(202);
    nova.act(&id, json!({ "removeSecurityGroup": { "name": "ssh" } })).await.expect(404);
    nova.demo("2.36", "GET", "/os-security-groups", Value::Null).await.expect(404);
}

#[tokio::test]
async fn flavors_are_seen_by_all_and_made_by_administrators() {
    let nova = Nova::start().await;
    let admin = nova.cloud.admin().await;
    let list = nova.demo("2.1", "GET", "/flavors/detail", Value::Null).await.expect(200);
    let first = &list["flavors"][0];
    let at_2_1 = [
        "OS-FLV-DISABLED:disabled",
        "OS-FLV-EXT-DATA:ephemeral",
        "disk",
        "id",
        "links",
        "name",
        "os-flavor-access:is_public",
        "ram",
        "rxtx_factor",
        "swap",
        "vcpus",
    ];
    assert_eq!(keys(first), at_2_1.into());
    assert_eq!((&first["name"], &first["swap"]), (&json!("arcus.tiny"), &json!("")));
    let new = nova.demo("2.75", "GET", "/flavors/1", Value::Null).await.expect(200);
    assert_eq!((&new["flavor"]["swap"], &new["flavor"]["extra_specs"]), (&json!(0), &json!({})));
    let body = json!({ "flavor": { "name": "big", "ram": 4096, "vcpus": 4, "disk": 40, "id": "big",
        "os-flavor-access:is_public": false } });
    nova.demo("2.1", "POST", "/flavors", body.clone()).await.expect(403);
    nova.at("2.1", "POST", "/flavors", admin, body.clone()).await.expect(200);
    nova.at("2.1", "POST", "/flavors", admin, body).await.expect(409);
    nova.demo("2.1", "GET", "/flavors/big", Value::Null).await.expect(404);
    let project = nova.cloud.id_of("projects", "demo").await;
    let body = json!({ "addTenantAccess": { "tenant": project } });
    nova.at("2.1", "POST", "/flavors/big/action", admin, body).await.expect(200);
    nova.demo("2.1", "GET", "/flavors/big", Value::Null).await.expect(200);
    let specs = "/flavors/big/os-extra_specs";
    nova.at("2.1", "POST", specs, admin, json!({ "extra_specs": { "quota:cpu_shares": 2048 } })).await.expect(200);
    let refused = json!({ "extra_specs": { "hw:cpu_policy": "dedicated" } });
    nova.at("2.86", "POST", specs, admin, refused).await.expect(400);
    let one = nova.demo("2.1", "GET", &format!("{specs}/quota:cpu_shares"), Value::Null).await.expect(200);
    assert_eq!(one, json!({ "quota:cpu_shares": "2048" }));
    nova.at("2.1", "DELETE", "/flavors/big", admin, Value::Null).await.expect(202);
    let small = nova.demo("2.1", "GET", "/flavors?minRam=1024&limit=1", Value::Null).await.expect(200);
    assert_eq!(small["flavors"][0]["name"], "arcus.medium");
    assert!(small["flavors_links"].is_array());
}

#[tokio::test]
async fn key_pairs_are_made_and_taken_in() {
    let nova = Nova::start().await;
    let made = nova.demo("2.1", "POST", "/os-keypairs", json!({ "keypair": { "name": "mine" } })).await.expect(200);
    assert_eq!(keys(&made["keypair"]), ["fingerprint", "name", "private_key", "public_key", "user_id"].into());
    assert!(made["keypair"]["private_key"].as_str().unwrap().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
    let again = json!({ "keypair": { "name": "mine", "public_key": made["keypair"]["public_key"] } });
    nova.demo("2.1", "POST", "/os-keypairs", again.clone()).await.expect(409);
    let mut second = again;
    second["keypair"]["name"] = json!("second");
    let taken = nova.demo("2.2", "POST", "/os-keypairs", second).await.expect(201);
    assert!(taken["keypair"].get("private_key").is_none());
    assert_eq!(taken["keypair"]["fingerprint"], made["keypair"]["fingerprint"]);
    let none = json!({ "keypair": { "name": "third" } });
    nova.demo("2.92", "POST", "/os-keypairs", none).await.expect(400);
    let bad = json!({ "keypair": { "name": "bad", "public_key": "ssh-rsa rubbish" } });
    nova.demo("2.1", "POST", "/os-keypairs", bad).await.expect(400);
    let shown = nova.demo("2.1", "GET", "/os-keypairs/mine", Value::Null).await.expect(200);
    assert!(shown["keypair"]["id"].is_i64());
    let list = nova.demo("2.1", "GET", "/os-keypairs", Value::Null).await.expect(200);
    assert_eq!(list["keypairs"].as_array().unwrap().len(), 2);
    nova.demo("2.1", "DELETE", "/os-keypairs/mine", Value::Null).await.expect(202);
    nova.demo("2.2", "DELETE", "/os-keypairs/second", Value::Null).await.expect(204);
    nova.demo("2.1", "GET", "/os-keypairs/mine", Value::Null).await.expect(404);
}

#[tokio::test]
async fn quotas_bind_and_are_told() {
    let nova = Nova::start().await;
    let admin = nova.cloud.admin().await;
    let project = nova.cloud.id_of("projects", "demo").await;
    let path = format!("/os-quota-sets/{project}");
    let body = json!({ "quota_set": { "instances": 1 } });
    nova.demo("2.1", "PUT", &path, body.clone()).await.expect(403);
    nova.at("2.1", "PUT", &path, admin, body).await.expect(200);
    nova.running().await;
    let refused = nova.demo("2.1", "POST", "/servers", nova.body()).await.expect(403);
    assert_eq!(
        refused["forbidden"]["message"],
        "Quota exceeded for instances: Requested 1, but already used 1 of 1 instances"
    );
    let limits = nova.demo("2.57", "GET", "/limits", Value::Null).await.expect(200);
    assert_eq!(limits["limits"]["absolute"]["totalInstancesUsed"], 1);
    assert!(limits["limits"]["absolute"].get("maxImageMeta").is_none());
    let detail = nova.demo("2.1", "GET", &format!("{path}/detail"), Value::Null).await.expect(200);
    assert_eq!(detail["quota_set"]["instances"], json!({ "limit": 1, "in_use": 1, "reserved": 0 }));
    nova.at("2.1", "DELETE", &path, admin, Value::Null).await.expect(202);
    let shown = nova.demo("2.36", "GET", &path, Value::Null).await.expect(200);
    assert_eq!((&shown["quota_set"]["instances"], shown["quota_set"].get("fixed_ips")), (&json!(10), None));
    let stranger = nova.cloud.stranger().await;
    nova.at("2.1", "GET", &path, stranger, Value::Null).await.expect(403);
    let usage = nova.demo("2.1", "GET", &format!("/os-simple-tenant-usage/{project}"), Value::Null).await.expect(200);
    assert_eq!(usage["tenant_usage"]["server_usages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn nodes_show_to_administrators() {
    let nova = Nova::start().await;
    let admin = nova.cloud.admin().await;
    nova.demo("2.1", "GET", "/os-hypervisors", Value::Null).await.expect(403);
    let old = nova.at("2.1", "GET", "/os-hypervisors/detail", admin, Value::Null).await.expect(200);
    assert!(old["hypervisors"][0]["id"].is_u64() && old["hypervisors"][0]["cpu_info"].is_string());
    let new = nova.at("2.88", "GET", "/os-hypervisors/detail", admin, Value::Null).await.expect(200);
    assert!(new["hypervisors"][0]["id"].is_string() && new["hypervisors"][0].get("vcpus").is_none());
    let services = nova.at("2.53", "GET", "/os-services", admin, Value::Null).await.expect(200);
    let id = services["services"][0]["id"].as_str().unwrap();
    let body = json!({ "status": "disabled", "disabled_reason": "new fans" });
    let changed = nova.at("2.53", "PUT", &format!("/os-services/{id}"), admin, body).await.expect(200);
    assert_eq!(changed["service"]["disabled_reason"], "new fans");
    let zones = nova.demo("2.1", "GET", "/os-availability-zone", Value::Null).await.expect(200);
    assert_eq!(
        zones,
        json!({ "availabilityZoneInfo": [{ "zoneName": "nova", "zoneState": { "available": false }, "hosts": null }] })
    );
    nova.demo("2.1", "GET", "/os-availability-zone/detail", Value::Null).await.expect(403);
    let made = nova.demo("2.1", "POST", "/servers", nova.body()).await.expect(202);
    let id: ServerId = made["server"]["id"].as_str().unwrap().parse().unwrap();
    let shown = nova.demo("2.1", "GET", &format!("/servers/{id}"), Value::Null).await.expect(200);
    assert_eq!(shown["server"]["status"], "ERROR");
    let message = shown["server"]["fault"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("No valid host was found.")
            && message.contains("The only node cannot take it: 1 is closed"),
        "{message}"
    );
    assert!(shown["server"]["fault"].get("details").is_none(), "owners are not told about nodes");
    let seen = nova.at("2.1", "GET", &format!("/servers/{id}"), admin, Value::Null).await.expect(200);
    assert!(seen["server"]["fault"]["details"].as_str().unwrap().contains("new fans"));
}

#[tokio::test]
async fn server_groups_keep_servers_apart() {
    let nova = Nova::start().await;
    let body = json!({ "server_group": { "name": "apart", "policy": "anti-affinity" } });
    let group = nova.demo("2.64", "POST", "/os-server-groups", body).await.expect(200);
    let group = group["server_group"]["id"].as_str().unwrap();
    let mut body = nova.body();
    body["os:scheduler_hints"] = json!({ "group": group });
    for wanted in ["BUILD", "ERROR"] {
        let made = nova.demo("2.1", "POST", "/servers", body.clone()).await.expect(202);
        assert_eq!(nova.status(made["server"]["id"].as_str().unwrap()).await, wanted);
    }
    let shown = nova.demo("2.1", "GET", &format!("/os-server-groups/{group}"), Value::Null).await.expect(200);
    assert_eq!(shown["server_group"]["members"].as_array().unwrap().len(), 2);
    assert_eq!(shown["server_group"]["policies"], json!(["anti-affinity"]));
    nova.demo("2.1", "DELETE", &format!("/os-server-groups/{group}"), Value::Null).await.expect(204);
}

#[tokio::test]
async fn versions_and_old_image_calls_are_served() {
    let nova = Nova::start().await;
    let list = nova.cloud.get("/compute/", "").await.expect(200);
    assert_eq!(list["versions"][1]["version"], "2.96");
    let one = nova.cloud.get("/compute/v2.1/", "").await.expect(200);
    assert_eq!(one["version"]["id"], "v2.1");
    let image = nova.demo("2.1", "GET", &format!("/images/{}", nova.image), Value::Null).await.expect(200);
    assert_eq!(image["image"]["status"], "ACTIVE");
    nova.demo("2.36", "GET", &format!("/images/{}", nova.image), Value::Null).await.expect(404);
    nova.demo("2.1", "GET", "/extensions", Value::Null).await.expect(200);
    let nobody = nova.at("2.1", "GET", "/servers", "", Value::Null).await;
    assert_eq!(nobody.status.as_u16(), 401);
    let id = nova.running().await;
    let body = json!({ "remote_console": { "protocol": "serial", "type": "serial" } });
    let console = nova.demo("2.6", "POST", &format!("/servers/{id}/remote-consoles"), body).await.expect(200);
    assert!(
        console["remote_console"]["url"].as_str().unwrap().starts_with("wss://cloud.test:8774/console/serial?token=")
    );
}
