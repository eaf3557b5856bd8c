//! Each step of the compute API's history that can be seen in an answer: asked at the version before it and at itself.
//!
//! Source of the steps: the compute API's "REST API version history". Steps that need nodes of their own to be seen have
//! tests of their own: a move that is given up early (2.65) and an evacuated server that stays stopped (2.95). Two steps are
//! about what is not here, and the test says so: answers of cells that are down (2.69) and ports that ask for a share of
//! bandwidth (2.72).

use super::Nova;
use arcus_store::NodeNew;
use arcus_types::NodeId;
use arcus_types::agent::{NodeFacts, NodeReport, Power};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a step changes.
enum Seen {
    /// The status before it, and from it on.
    Status(u16, u16),
    /// The JSON pointers that are in the answer from it on.
    Gains(&'static [&'static str]),
    /// Those that are not any more.
    Loses(&'static [&'static str]),
    /// What stands at a pointer before it, and from it on.
    Turns(&'static str, Value, Value),
    /// Words of the answer before it, and from it on: the status is the same.
    Says(&'static str, &'static str),
}
use Seen::{Gains, Loses, Says, Status, Turns};

/// A step and a call that shows it; `*` before the path is by an administrator. Words in braces are filled in.
struct Step(u16, &'static str, &'static str, Value, Seen);

const NO: Value = Value::Null;

fn get(step: u16, path: &'static str, seen: Seen) -> Step {
    Step(step, "GET", path, NO, seen)
}

fn post(step: u16, path: &'static str, body: Value, seen: Seen) -> Step {
    Step(step, "POST", path, body, seen)
}

/// A server that is asked for with more than the usual.
fn create(step: u16, more: Value, seen: Seen) -> Step {
    let mut server = json!({ "name": "s", "imageRef": "{image}", "flavorRef": "1", "networks": [{ "uuid": "{lan}" }] });
    server.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    post(step, "/servers", json!({ "server": server }), seen)
}

fn act(step: u16, body: Value, seen: Seen) -> Step {
    post(step, "/servers/{id}/action", body, seen)
}

fn event(step: u16, name: &str) -> Step {
    let body = json!({ "events": [{ "name": name, "server_uuid": "{id}", "status": "completed" }] });
    post(step, "*/os-server-external-events", body, Status(400, 200))
}

fn servers() -> Vec<Step> {
    let vnc = json!({ "remote_console": { "protocol": "vnc", "type": "novnc" } });
    vec![
        get(
            3,
            "*/servers/{id}",
            Gains(&["/server/OS-EXT-SRV-ATTR:reservation_id", "/server/OS-EXT-SRV-ATTR:hostname"]),
        ),
        get(3, "/servers/{id}", Gains(&["/server/os-extended-volumes:volumes_attached/0/delete_on_termination"])),
        get(5, "/servers?ip6=fd00::1", Loses(&["/servers/0"])),
        post(6, "/servers/{id}/remote-consoles", vnc, Status(404, 200)),
        act(6, json!({ "os-getVNCConsole": { "type": "novnc" } }), Status(200, 400)),
        get(9, "/servers/{id}", Gains(&["/server/locked"])),
        get(16, "*/servers/{id}", Gains(&["/server/host_status"])),
        act(17, json!({ "trigger_crash_dump": null }), Status(400, 409)),
        get(19, "/servers/{id}", Gains(&["/server/description"])),
        create(19, json!({ "description": "d" }), Status(400, 202)),
        Step(19, "PUT", "/servers/{id}", json!({ "server": { "description": "d" } }), Status(400, 200)),
        get(26, "/servers/{id}", Gains(&["/server/tags"])),
        get(26, "/servers?tags=none", Loses(&["/servers/0"])),
        get(26, "/servers/{id}/tags", Status(404, 200)),
        create(32, json!({ "networks": [{ "uuid": "{lan}", "tag": "t" }] }), Status(400, 202)),
        create(37, json!({ "networks": [{ "uuid": "{lan}", "tag": "t" }] }), Status(202, 400)),
        create(42, json!({ "networks": [{ "uuid": "{lan}", "tag": "t" }] }), Status(400, 202)),
        create(37, json!({ "networks": null }), Status(202, 400)),
        create(37, json!({ "networks": "none" }), Status(400, 202)),
        get(38, "/servers?status=nonsense", Status(200, 400)),
        act(44, json!({ "addFixedIp": { "networkId": "{lan}" } }), Status(202, 400)),
        act(45, json!({ "createImage": { "name": "i" } }), Gains(&["/image_id"])),
        get(47, "/servers/{id}", Gains(&["/server/flavor/original_name"])),
        get(47, "/servers/{id}", Loses(&["/server/flavor/id"])),
        create(52, json!({ "tags": ["t"] }), Status(400, 202)),
        act(54, json!({ "rebuild": { "imageRef": "{image}", "key_name": null } }), Status(400, 202)),
        act(57, json!({ "rebuild": { "imageRef": "{image}", "user_data": null } }), Status(400, 202)),
        act(57, json!({ "rebuild": { "imageRef": "{image}", "personality": [] } }), Status(202, 400)),
        get(63, "/servers/{id}", Gains(&["/server/trusted_image_certificates"])),
        get(66, "/servers?changes-before=2011-01-01T00:00:00Z", Loses(&["/servers/0"])),
        get(71, "/servers/{id}", Gains(&["/server/server_groups"])),
        get(73, "/servers/{id}", Gains(&["/server/locked_reason"])),
        get(73, "/servers?locked=true", Loses(&["/servers/0"])),
        Step(
            74,
            "POST",
            "*/servers",
            json!({ "server": { "name": "s", "imageRef": "{public}", "flavorRef": "1",
            "networks": "none", "host": "node-1" } }),
            Status(400, 202),
        ),
        get(75, "/servers?nonsense=1", Status(200, 400)),
        Step(75, "PUT", "/servers/{id}", json!({ "server": { "name": "n" } }), Gains(&["/server/OS-EXT-STS:vm_state"])),
        get(78, "/servers/{id}/topology", Status(404, 200)),
        get(83, "/servers?key_name=none", Loses(&["/servers/0"])),
        get(90, "/servers/{id}", Gains(&["/server/OS-EXT-SRV-ATTR:hostname"])),
        Step(90, "PUT", "/servers/{id}", json!({ "server": { "hostname": "web" } }), Status(400, 200)),
        Step(94, "PUT", "/servers/{id}", json!({ "server": { "hostname": "web.example.org" } }), Status(400, 200)),
        get(96, "/servers/{id}", Gains(&["/server/pinned_availability_zone"])),
    ]
}

/// Servers that move, are shelved, or boot from volumes.
fn elsewhere() -> Vec<Step> {
    const MOVE: &str = "*/servers/{id}/migrations/1";
    const ONE: &str = "/servers/{rooted}/action";
    let mks = json!({ "remote_console": { "protocol": "mks", "type": "webmks" } });
    let give = |volume: &str| json!({ "volumeAttachment": { "volumeId": volume } });
    let live = |more: Value| {
        let mut wish = json!({ "host": null, "block_migration": "auto" });
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "os-migrateLive": wish })
    };
    let evacuate = |more: Value| json!({ "evacuate": more });
    let unshelve = |zone: Value| json!({ "unshelve": { "availability_zone": zone } });
    let many: Value = (0..4).map(|i| (i.to_string(), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    let typed = json!([{ "source_type": "image", "uuid": "{image}", "destination_type": "volume", "boot_index": 0,
        "volume_size": 1, "volume_type": "dir", "delete_on_termination": true }]);
    let reimage = json!({ "rebuild": { "imageRef": "{rescue}" } });
    vec![
        post(8, "/servers/{id}/remote-consoles", mks, Says("known from 2.8 on", "Unavailable console type")),
        get(12, "/servers/{id}/os-virtual-interfaces", Status(410, 410)),
        post(
            14,
            "*/servers/{id}/action",
            evacuate(json!({ "onSharedStorage": false })),
            Says("node-1", "'onSharedStorage' was unexpected"),
        ),
        post(
            29,
            "*/servers/{id}/action",
            evacuate(json!({ "force": false })),
            Says("'force' was unexpected", "node-1"),
        ),
        post(
            68,
            "*/servers/{id}/action",
            evacuate(json!({ "force": false })),
            Says("node-1", "'force' was unexpected"),
        ),
        post(20, "/servers/{shelved}/os-volume_attachments", give("{spare}"), Status(409, 200)),
        Step(20, "DELETE", "/servers/{shelved}/os-volume_attachments/{spare}", NO, Status(409, 202)),
        post(
            22,
            "*/servers/{id}/migrations/1/action",
            json!({ "force_complete": null }),
            Says("The resource could not be found", "Migration 1 "),
        ),
        Step(24, "DELETE", MOVE, NO, Says("The resource could not be found", "Migration 1 ")),
        post(25, "*/servers/{id}/action", live(json!({})), Says("block_migration", "they lie on node-1")),
        post(
            30,
            "*/servers/{id}/action",
            live(json!({ "force": false })),
            Says("'force' was unexpected", "they lie on node-1"),
        ),
        post(34, "*/servers/{id}/action", live(json!({})), Status(400, 202)),
        act(39, json!({ "createImage": { "name": "i", "metadata": many } }), Status(403, 202)),
        post(
            56,
            "*/servers/{id}/action",
            json!({ "migrate": { "nonsense": 1 } }),
            Says("No valid host", "'nonsense' was unexpected"),
        ),
        post(60, "/servers/{second}/os-volume_attachments", give("{volume}"), Status(400, 400)),
        create(67, json!({ "imageRef": null, "block_device_mapping_v2": typed }), Status(400, 202)),
        post(68, "*/servers/{id}/action", live(json!({ "force": false })), Status(202, 400)),
        act(77, unshelve(json!("nova")), Status(409, 409)),
        act(77, json!({ "unshelve": { "nonsense": 1 } }), Status(409, 400)),
        act(91, unshelve(NO), Status(400, 409)),
        post(91, "*/servers/{id}/action", json!({ "unshelve": { "host": "node-1" } }), Status(400, 409)),
        post(93, ONE, reimage, Status(400, 202)),
        post(87, ONE, json!({ "rescue": { "rescue_image_ref": "{rescue}" } }), Status(400, 200)),
    ]
}

fn server_parts() -> Vec<Step> {
    const ACTION: &str = "/servers/{id}/os-instance-actions/{action}";
    const VOLUMES: &str = "/servers/{id}/os-volume_attachments";
    let tagged = json!({ "interfaceAttachment": { "net_id": "{lan}", "tag": "t" } });
    let keep = json!({ "volumeAttachment": { "volumeId": "{volume}", "delete_on_termination": false } });
    vec![
        get(21, "/servers/{gone}/os-instance-actions", Status(404, 200)),
        get(23, "*/servers/{id}/migrations", Status(404, 200)),
        get(48, "*/servers/{id}/diagnostics", Gains(&["/state", "/cpu_details"])),
        get(48, "*/servers/{id}/diagnostics", Loses(&["/memory-actual"])),
        post(49, "/servers/{id}/os-interface", tagged, Status(400, 200)),
        get(51, ACTION, Gains(&["/instanceAction/events"])),
        get(58, "/servers/{id}/os-instance-actions", Gains(&["/instanceActions/0/updated_at"])),
        get(58, "/servers/{id}/os-instance-actions?limit=1", Gains(&["/links"])),
        get(62, ACTION, Gains(&["/instanceAction/events/0/hostId"])),
        get(66, "/servers/{id}/os-instance-actions?changes-before=2011-01-01T00:00:00Z", Status(400, 200)),
        get(70, VOLUMES, Gains(&["/volumeAttachments/0/tag"])),
        get(70, "/servers/{id}/os-interface", Gains(&["/interfaceAttachments/0/tag"])),
        get(75, "/servers/{id}/os-volume_attachments?nonsense=1", Status(200, 400)),
        get(79, VOLUMES, Gains(&["/volumeAttachments/0/delete_on_termination"])),
        get(84, ACTION, Gains(&["/instanceAction/events/0/details"])),
        Step(85, "PUT", "/servers/{id}/os-volume_attachments/{volume}", keep, Status(400, 202)),
        get(89, VOLUMES, Gains(&["/volumeAttachments/0/bdm_uuid", "/volumeAttachments/0/attachment_id"])),
        get(89, VOLUMES, Loses(&["/volumeAttachments/0/id"])),
    ]
}

fn projects() -> Vec<Step> {
    let key = |more: Value| {
        let mut key = json!({ "name": "{fresh}" });
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "keypair": key })
    };
    let public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE3hUtAXCGSDbIHRFIi3KnJcBsO7Zl3pHKC6V6mgVcHb x";
    let soft = json!({ "server_group": { "name": "g", "policies": ["soft-affinity"] } });
    let policy = json!({ "server_group": { "name": "g", "policy": "affinity" } });
    vec![
        post(2, "/os-keypairs", key(json!({})), Status(200, 201)),
        post(2, "/os-keypairs", key(json!({ "type": "ssh" })), Status(400, 201)),
        get(2, "/os-keypairs", Gains(&["/keypairs/0/keypair/type"])),
        get(10, "/os-keypairs?user_id={admin}", Status(200, 403)),
        post(10, "/os-keypairs", key(json!({ "user_id": "{user}" })), Status(400, 201)),
        get(13, "/os-server-groups", Gains(&["/server_groups/0/project_id", "/server_groups/0/user_id"])),
        post(15, "/os-server-groups", soft, Status(400, 200)),
        get(35, "/os-keypairs?limit=1", Gains(&["/keypairs_links"])),
        get(36, "/images", Status(200, 404)),
        get(36, "/os-security-groups", Status(200, 404)),
        get(36, "/os-networks", Status(200, 404)),
        get(36, "/os-floating-ips", Status(200, 404)),
        get(36, "/limits", Loses(&["/limits/absolute/maxTotalFloatingIps", "/limits/absolute/maxSecurityGroups"])),
        get(36, "/os-quota-sets/{project}", Loses(&["/quota_set/floating_ips", "/quota_set/fixed_ips"])),
        get(39, "/limits", Loses(&["/limits/absolute/maxImageMeta"])),
        get(39, "/images/{image}/metadata", Status(200, 404)),
        get(40, "*/os-simple-tenant-usage?limit=1", Gains(&["/tenant_usages_links"])),
        get(50, "*/os-quota-class-sets/default", Gains(&["/quota_class_set/server_groups"])),
        get(57, "/limits", Loses(&["/limits/absolute/maxPersonality", "/limits/absolute/maxPersonalitySize"])),
        get(57, "/os-quota-sets/{project}", Loses(&["/quota_set/injected_files"])),
        get(64, "/os-server-groups", Gains(&["/server_groups/0/policy", "/server_groups/0/rules"])),
        get(64, "/os-server-groups", Loses(&["/server_groups/0/policies", "/server_groups/0/metadata"])),
        post(64, "/os-server-groups", policy, Status(400, 200)),
        get(75, "/limits?nonsense=1", Status(200, 400)),
        get(75, "/os-server-groups?nonsense=1", Status(200, 400)),
        get(75, "/os-keypairs?nonsense=1", Status(200, 400)),
        get(75, "/os-keypairs/first?nonsense=1", Status(200, 400)),
        get(75, "/os-quota-sets/{project}?nonsense=1", Status(200, 400)),
        get(75, "*/os-simple-tenant-usage?nonsense=1", Status(200, 400)),
        post(92, "/os-keypairs", key(json!({})), Status(201, 400)),
        post(92, "/os-keypairs", key(json!({ "name": "{fresh}@x.org", "public_key": public })), Status(400, 201)),
    ]
}

fn administration() -> Vec<Step> {
    let specs = json!({ "extra_specs": { "hw:numa_nodes": "1" } });
    let enabled = json!({ "status": "enabled" });
    let aggregate = json!({ "cache": [{ "id": "{public}" }] });
    vec![
        get(4, "*/os-fixed-ips/10.0.0.1", Status(410, 410)),
        post(7, "*/flavors/1/action", json!({ "addTenantAccess": { "tenant": "{project}" } }), Status(200, 409)),
        get(11, "*/os-services", Gains(&["/services/0/forced_down"])),
        get(28, "*/os-hypervisors/{number}", Gains(&["/hypervisor/cpu_info/topology"])),
        get(33, "*/os-hypervisors?limit=-1", Status(200, 400)),
        get(41, "*/os-aggregates", Gains(&["/aggregates/0/uuid"])),
        get(43, "*/os-hosts", Status(200, 404)),
        event(51, "volume-extended"),
        Step(53, "PUT", "*/os-services/{node}", enabled, Status(400, 200)),
        get(53, "*/os-hypervisors/{node}", Status(404, 200)),
        get(53, "*/os-hypervisors/node-1/search", Status(200, 404)),
        get(55, "/flavors", Gains(&["/flavors/0/description"])),
        Step(55, "PUT", "*/flavors/2", json!({ "flavor": { "description": "d" } }), Status(404, 200)),
        get(59, "*/os-migrations", Gains(&["/migrations/0/uuid"])),
        get(59, "*/os-migrations?nonsense=1", Status(200, 400)),
        get(61, "/flavors/1", Gains(&["/flavor/extra_specs"])),
        get(66, "*/os-migrations?changes-before=2011-01-01T00:00:00Z", Status(400, 200)),
        get(75, "/flavors?nonsense=1", Status(200, 400)),
        get(75, "*/os-services?nonsense=1", Status(200, 400)),
        get(75, "/flavors/1", Turns("/flavor/swap", json!(""), json!(0))),
        event(76, "power-update"),
        get(80, "*/os-migrations", Gains(&["/migrations/0/project_id", "/migrations/0/user_id"])),
        get(80, "*/os-migrations?project_id={project}", Status(400, 200)),
        post(81, "*/os-aggregates/{aggregate}/images", aggregate, Status(404, 202)),
        event(82, "accelerator-request-bound"),
        post(86, "*/flavors/2/os-extra_specs", specs, Status(200, 400)),
        get(88, "*/os-hypervisors/{node}", Loses(&["/hypervisor/vcpus", "/hypervisor/cpu_info"])),
        get(88, "*/os-hypervisors/{node}", Gains(&["/hypervisor/uptime"])),
        get(88, "*/os-hypervisors/statistics", Status(200, 404)),
        event(93, "volume-reimaged"),
    ]
}

type Words = BTreeMap<&'static str, String>;

fn filled(text: &str, words: &Words) -> String {
    words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(&format!("{{{word}}}"), value))
}

impl Nova {
    /// An answer's part.
    async fn made(&self, path: &str, body: Value, part: &str) -> String {
        let admin = path.starts_with("/os-aggregates");
        let token = if admin { self.cloud.admin().await } else { self.cloud.demo().await };
        let made = self.at("2.1", "POST", path, token, body).await;
        assert!(made.status.is_success(), "{path}: {}", made.json);
        let found = made.json.pointer(part).unwrap_or_else(|| panic!("{part}: {}", made.json));
        found.as_str().map_or_else(|| found.to_string(), str::to_owned)
    }

    async fn volume(&self) -> String {
        let new = json!({ "volume": { "size": 1 } });
        let made = self.cloud.post("/volume/v3/volumes", self.cloud.demo().await, new).await.expect(202);
        made["volume"]["id"].as_str().unwrap().to_owned()
    }

    /// A server that boots from a volume.
    async fn rooted(&self) -> String {
        let mapping = json!([{ "source_type": "image", "uuid": self.image, "destination_type": "volume",
            "boot_index": 0, "volume_size": 1, "delete_on_termination": true }]);
        let server = json!({ "server": { "name": "r", "flavorRef": "1", "networks": "none",
            "block_device_mapping_v2": mapping } });
        let made = self.demo("2.37", "POST", "/servers", server).await.expect(202);
        self.play().await;
        made["server"]["id"].as_str().unwrap().to_owned()
    }

    /// An image that a server which boots from a volume can be rescued with.
    async fn rescue_image(&self) -> String {
        let new = json!({ "name": "rescue", "disk_format": "raw", "container_format": "bare",
            "hw_rescue_device": "disk", "hw_rescue_bus": "virtio" });
        let (cloud, demo) = (&self.cloud, self.cloud.demo().await);
        let made = cloud.post("/image/v2/images", demo, new).await.expect(201);
        let id = made["id"].as_str().unwrap().to_owned();
        let bytes = [("content-type", "application/octet-stream")];
        cloud.send("PUT", &format!("/image/v2/images/{id}/file"), demo, &bytes, vec![7; 4096]).await.expect(204);
        id
    }

    /// A server that is on no node because it is shelved; how it came to that is the engine's own test.
    async fn shelved(&self) -> String {
        let id = self.running().await;
        let tx = self.cloud.store.begin_unaudited().await.unwrap();
        let mut server = tx.server_lock(id.parse().unwrap()).await.unwrap().unwrap();
        (server.state, server.node_id) = (arcus_types::servers::ServerState::ShelvedOffloaded, None);
        tx.server_update(&mut server).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// Everything that a step may name.
    async fn words(&self) -> Words {
        let (cloud, admin) = (&self.cloud, self.cloud.admin().await);
        let project = cloud.id_of("projects", "demo").await;
        let quota = json!({ "quota_set": { "instances": -1, "cores": -1, "ram": -1, "server_groups": -1,
            "metadata_items": 3 } });
        self.at("2.1", "PUT", &format!("/os-quota-sets/{project}"), admin, quota).await.expect(200);
        let facts =
            NodeFacts { vcpus: 64, memory_mib: 1 << 18, disk_gib: 10_000, booted_at_s: 1, ..NodeFacts::default() };
        let tx = cloud.store.begin_unaudited().await.unwrap();
        tx.node_facts_set(self.node, &facts).await.unwrap();
        tx.commit().await.unwrap();
        let gone = self.running().await;
        self.demo("2.1", "DELETE", &format!("/servers/{gone}"), NO).await.expect(204);
        self.play().await;
        let (id, second) = (self.running().await, self.running().await);
        let action = format!("/servers/{id}/action");
        self.demo("2.1", "POST", &action, json!({ "resize": { "flavorRef": "2" } })).await.expect(202);
        self.play().await;
        self.play().await;
        assert_eq!(self.events(&id).await, ["compute_finish_resize Success", "compute_resize_instance Success"]);
        self.demo("2.1", "POST", &action, json!({ "confirmResize": null })).await.expect(204);
        let (volume, spare) = (self.volume().await, self.volume().await);
        let (rooted, rescue) = (self.rooted().await, self.rescue_image().await);
        let shelved = self.shelved().await;
        self.play().await;
        let attach = json!({ "volumeAttachment": { "volumeId": volume } });
        self.demo("2.1", "POST", &format!("/servers/{id}/os-volume_attachments"), attach).await.expect(200);
        self.play().await;
        for name in ["first", "second"] {
            self.made("/os-keypairs", json!({ "keypair": { "name": name } }), "/keypair/name").await;
        }
        let group = json!({ "server_group": { "name": "g", "policies": ["affinity"] } });
        self.made("/os-server-groups", group, "/server_group/id").await;
        let actions = self.demo("2.1", "GET", &format!("/servers/{id}/os-instance-actions"), NO).await.expect(200);
        let created = actions["instanceActions"].as_array().unwrap().last().unwrap();
        let hypervisors = self.at("2.1", "GET", "/os-hypervisors", admin, NO).await.expect(200);
        let shown = json!([{ "op": "replace", "path": "/visibility", "value": "public" }]);
        let patch = [("content-type", "application/openstack-images-v2.1-json-patch")];
        let image = format!("/image/v2/images/{}", self.image);
        cloud.send("PATCH", &image, admin, &patch, serde_json::to_vec(&shown).unwrap()).await.expect(200);
        let aggregate = json!({ "aggregate": { "name": "a" } });
        BTreeMap::from([
            ("aggregate", self.made("/os-aggregates", aggregate, "/aggregate/id").await),
            ("action", created["request_id"].as_str().unwrap().to_owned()),
            ("admin", cloud.id_of("users", "admin").await),
            ("gone", gone),
            ("id", id),
            ("image", self.image.clone()),
            ("lan", self.network.clone()),
            ("node", self.node.to_string()),
            ("number", hypervisors["hypervisors"][0]["id"].to_string()),
            ("project", project),
            ("public", self.image.clone()),
            ("rescue", rescue),
            ("rooted", rooted),
            ("second", second),
            ("shelved", shelved),
            ("spare", spare),
            ("user", cloud.id_of("users", "demo").await),
            ("volume", volume),
        ])
    }

    /// What is wrong with a step.
    async fn step(&self, Step(step, method, path, body, seen): &Step, words: &Words) -> Vec<String> {
        let mut wrong = Vec::new();
        for (minor, from) in [(step - 1, false), (*step, true)] {
            let mut words = words.clone();
            words.insert("fresh", format!("key-{}", uuid::Uuid::new_v4()));
            let path = filled(path, &words);
            let token = if path.starts_with('*') { self.cloud.admin().await } else { self.cloud.demo().await };
            let body = serde_json::from_str(&filled(&body.to_string(), &words)).unwrap();
            let (path, version) = (path.trim_start_matches('*'), format!("2.{minor}"));
            let answer = self.at(&version, method, path, token, body).await;
            let status = answer.status.as_u16();
            let there = |pointer: &&str| answer.json.pointer(pointer).is_some();
            let good = answer.status.is_success();
            let fits = match seen {
                Status(before, since) => status == if from { *since } else { *before },
                Gains(pointers) if from => good && pointers.iter().all(there),
                Gains(pointers) => good && !pointers.iter().any(&there),
                Loses(pointers) if from => good && !pointers.iter().any(&there),
                Loses(pointers) => good && pointers.iter().all(there),
                Says(before, since) => !good && answer.json.to_string().contains(if from { since } else { before }),
                Turns(pointer, before, since) => {
                    answer.json.pointer(pointer) == Some(if from { since } else { before })
                }
            };
            if !fits {
                let shown: String = answer.json.to_string().chars().take(300).collect();
                wrong.push(format!("step 2.{step} at {version}: {method} {path}: {status} {shown}"));
            }
            if *method != "GET" && good {
                self.settle().await;
            }
        }
        wrong
    }

    /// The node does what is wished, and images that it was to make are made.
    async fn settle(&self) {
        // A rebuild on a volume has two steps.
        self.play().await;
        self.play().await;
        let engine = &self.cloud.app.engine;
        let (_, snapshots) = engine.server_specs(self.node).await.unwrap();
        if snapshots.is_empty() {
            return;
        }
        let failed = |image_id| arcus_types::agent::SnapshotReport {
            image_id,
            state: arcus_types::agent::SnapshotState::Failed(arcus_types::agent::Fault {
                message: "no".into(),
                details: String::new(),
                transient: false,
            }),
        };
        let snapshots = snapshots.iter().map(|snapshot| failed(snapshot.image_id)).collect();
        let report = NodeReport { snapshots, ..NodeReport::default() };
        engine.servers_observed(self.node, &report).await.unwrap();
    }
}

#[tokio::test]
async fn each_step_begins_at_its_version() {
    let nova = Nova::start().await;
    let words = nova.words().await;
    let mut wrong = Vec::new();
    for step in [servers(), elsewhere(), server_parts(), projects(), administration()].iter().flatten() {
        wrong.extend(nova.step(step, &words).await);
    }
    assert!(wrong.is_empty(), "{} answers are not of their version:\n{}", wrong.len(), wrong.join("\n"));
}

impl Nova {
    /// Another node; guests can move between both.
    async fn second_node(&self) -> NodeId {
        let new = NodeNew { id: NodeId::new(), name: "node-2".parse().unwrap(), availability_zone: "nova".into() };
        let tx = self.cloud.store.begin_unaudited().await.unwrap();
        tx.node_insert(&new).await.unwrap();
        for (at, id) in (1..).zip([self.node, new.id]) {
            let underlay = Some(std::net::IpAddr::from([192, 0, 2, at]));
            let facts = NodeFacts { vcpus: 8, memory_mib: 8192, disk_gib: 100, underlay, ..NodeFacts::default() };
            tx.node_facts_set(id, &facts).await.unwrap();
        }
        tx.commit().await.unwrap();
        new.id
    }
}

#[tokio::test]
async fn a_move_that_has_not_begun_is_given_up_from_2_65_on() {
    let nova = Nova::start().await;
    let id = nova.running().await;
    nova.second_node().await;
    let admin = nova.cloud.admin().await;
    let wish = json!({ "os-migrateLive": { "host": null, "block_migration": "auto" } });
    nova.at("2.30", "POST", &format!("/servers/{id}/action"), admin, wish).await.expect(202);
    let moves = format!("/servers/{id}/migrations");
    let listed = nova.at("2.64", "GET", &moves, admin, NO).await.expect(200);
    let one = format!("{moves}/{}", listed["migrations"][0]["id"]);
    let refused = nova.at("2.64", "DELETE", &one, admin, NO).await.expect(400);
    let why = refused["badRequest"]["message"].as_str().unwrap();
    assert!(why.contains("Cannot abort while the migration is in this state"), "{why}");
    nova.at("2.65", "DELETE", &one, admin, NO).await.expect(202);
}

#[tokio::test]
async fn an_evacuated_server_stays_stopped_from_2_95_on() {
    let nova = Nova::start().await;
    let (old, new) = (nova.running().await, nova.running().await);
    let other = nova.second_node().await;
    let admin = nova.cloud.admin().await;
    let down = json!({ "forced_down": true });
    nova.at("2.53", "PUT", &format!("/os-services/{}", nova.node), admin, down).await.expect(200);
    for (version, id, power) in [("2.94", old, Power::Running), ("2.95", new, Power::Stopped)] {
        let action = format!("/servers/{id}/action");
        nova.at(version, "POST", &action, admin, json!({ "evacuate": {} })).await.expect(200);
        let (specs, _) = nova.cloud.app.engine.server_specs(other).await.unwrap();
        let spec = specs.iter().find(|spec| spec.id.to_string() == id).unwrap();
        assert_eq!(spec.power, power, "{version}");
    }
}

#[tokio::test]
async fn steps_about_cells_and_bandwidth_change_nothing_here() {
    let nova = Nova::start().await;
    let id = nova.running().await;
    let admin = nova.cloud.admin().await;
    // No cell can be down by itself: with the database gone nothing answers.
    for path in [format!("/servers/{id}"), "/servers/detail".into(), "/servers".into(), "/os-services".into()] {
        let before = nova.at("2.68", "GET", &path, admin, NO).await.expect(200);
        assert_eq!(nova.at("2.69", "GET", &path, admin, NO).await.expect(200), before, "{path}");
    }
    // No port asks for a share of bandwidth, so a server takes a port that was made before at either version.
    for version in ["2.71", "2.72"] {
        let wish = json!({ "port": { "network_id": nova.network } });
        let made = nova.cloud.post("/network/v2.0/ports", nova.cloud.demo().await, wish).await.expect(201);
        assert!(made["port"].get("resource_request").is_none());
        let server = json!({ "server": { "name": "p", "imageRef": nova.image, "flavorRef": "1",
            "networks": [{ "port": made["port"]["id"] }] } });
        nova.demo(version, "POST", "/servers", server).await.expect(202);
    }
}
