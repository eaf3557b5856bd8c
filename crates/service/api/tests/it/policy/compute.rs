//! The compute API.

use super::Who::Admin;
use super::things::Thing::{
    Aggregate, Flavor, FlavorPrivate, FloatingIp, Image, Keypair, Network, Nothing, SecurityGroup, SecurityGroupRule,
    Server, ServerAfter, ServerGroup, ServerWithVolume,
};
use super::{Case, case, walk};
use arcus_types::policy::{Rule, compute as policy};

const SERVER: &str =
    r#"{"server":{"name":"{fresh}","imageRef":"{image}","flavorRef":"1","networks":[{"uuid":"{lan}"}]}}"#;
const FORCED: &str = r#"{"server":{"name":"{fresh}","imageRef":"{image}","flavorRef":"1","networks":[{"uuid":"{lan}"}],
    "availability_zone":"nova:node-1"}}"#;
const STOPPED: super::Thing = ServerAfter(&["os-stop"]);
const RESIZED: super::Thing = ServerAfter(&["os-stop", "resize"]);

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("GET /compute", Nothing, 200),
        case("GET /compute/", Nothing, 200),
        case("GET /compute/v2", Nothing, 200),
        case("GET /compute/v2/", Nothing, 200),
        case("GET /compute/v2.1", Nothing, 200),
        case("GET /compute/v2.1/", Nothing, 200),
        case("GET /compute/v2.1/extensions", Nothing, 200),
        case("GET /compute/v2.1/extensions/{alias}", Nothing, 200).with("alias", "os-keypairs"),
        case("GET /compute/v2.1/limits", Nothing, 200),
        case("GET /compute/v2.1/limits", Nothing, 200).query("tenant_id={project}"),
    ];
    cases.extend(servers());
    cases.extend(server_volumes());
    cases.extend(actions());
    cases.extend(server_parts());
    cases.extend(flavors());
    cases.extend(projects());
    cases.extend(old());
    cases.extend(nodes());
    cases.extend(administration());
    cases.extend(proxies());
    cases
}

fn servers() -> Vec<Case> {
    vec![
        case("GET /compute/v2.1/servers", Server, 200),
        case("GET /compute/v2.1/servers", Server, 200).query("all_tenants=1").rule(Rule::Admin),
        case("GET /compute/v2.1/servers", Server, 200).query("project_id={project}&all_tenants=1").rule(Rule::Admin),
        case("POST /compute/v2.1/servers", Nothing, 202).body(SERVER),
        case("POST /compute/v2.1/servers", Nothing, 202).body(FORCED).rule(policy::SERVER_CREATE_ON_NODE.rule),
        case("GET /compute/v2.1/servers/detail", Server, 200),
        case("GET /compute/v2.1/servers/detail", Server, 200).query("all_tenants=1").rule(Rule::Admin),
        case("GET /compute/v2.1/servers/{id}", Server, 200),
        case("PUT /compute/v2.1/servers/{id}", Server, 200).body(r#"{"server":{"name":"{fresh}"}}"#),
        case("DELETE /compute/v2.1/servers/{id}", Server, 204),
        case("POST /compute/v2.1/servers/{id}/remote-consoles", Server, 200)
            .at("2.6")
            .body(r#"{"remote_console":{"protocol":"serial","type":"serial"}}"#),
        case("GET /compute/v2.1/servers/{id}/topology", Server, 200).at("2.78"),
        case("GET /compute/v2.1/servers/{id}/ips", Server, 200),
        case("GET /compute/v2.1/servers/{id}/ips/{network}", Server, 200).with("network", "lan"),
    ]
}

fn server_volumes() -> Vec<Case> {
    const ONE: &str = "{volume}";
    vec![
        case("GET /compute/v2.1/servers/{id}/os-volume_attachments", ServerWithVolume, 200),
        case("POST /compute/v2.1/servers/{id}/os-volume_attachments", ServerWithVolume, 200)
            .body(r#"{"volumeAttachment":{"volumeId":"{free_volume}"}}"#),
        case("GET /compute/v2.1/servers/{id}/os-volume_attachments/{volume_id}", ServerWithVolume, 200)
            .with("volume_id", ONE),
        case("PUT /compute/v2.1/servers/{id}/os-volume_attachments/{volume_id}", ServerWithVolume, 202)
            .with("volume_id", ONE)
            .at("2.85")
            .body(r#"{"volumeAttachment":{"volumeId":"{volume}","delete_on_termination":true}}"#),
        case("DELETE /compute/v2.1/servers/{id}/os-volume_attachments/{volume_id}", ServerWithVolume, 202)
            .with("volume_id", ONE),
    ]
}

fn actions() -> Vec<Case> {
    let act = |thing, success, body| case("POST /compute/v2.1/servers/{id}/action", thing, success).body(body);
    vec![
        act(Server, 202, r#"{"reboot":{"type":"HARD"}}"#).rule(policy::SERVER_REBOOT.rule),
        act(STOPPED, 202, r#"{"os-start":null}"#).rule(policy::SERVER_START.rule),
        act(Server, 202, r#"{"os-stop":null}"#).rule(policy::SERVER_STOP.rule),
        act(Server, 202, r#"{"pause":null}"#).rule(policy::SERVER_PAUSE.rule),
        act(ServerAfter(&["pause"]), 202, r#"{"unpause":null}"#).rule(policy::SERVER_PAUSE.rule),
        act(Server, 202, r#"{"suspend":null}"#).rule(policy::SERVER_SUSPEND.rule),
        act(ServerAfter(&["suspend"]), 202, r#"{"resume":null}"#).rule(policy::SERVER_SUSPEND.rule),
        act(Server, 202, r#"{"forceDelete":null}"#).rule(policy::SERVER_DELETE.rule),
        act(Server, 202, r#"{"lock":null}"#).rule(policy::SERVER_LOCK.rule),
        act(ServerAfter(&["lock"]), 202, r#"{"unlock":null}"#).rule(policy::SERVER_LOCK.rule),
        act(Server, 202, r#"{"resize":{"flavorRef":"2"}}"#).rule(policy::SERVER_RESIZE.rule),
        act(RESIZED, 204, r#"{"confirmResize":null}"#).rule(policy::SERVER_RESIZE.rule),
        act(RESIZED, 202, r#"{"revertResize":null}"#).rule(policy::SERVER_RESIZE.rule),
        act(Server, 202, r#"{"rebuild":{"imageRef":"{image}"}}"#).rule(policy::SERVER_REBUILD.rule),
        act(Server, 202, r#"{"createImage":{"name":"{fresh}"}}"#).rule(policy::SERVER_SNAPSHOT.rule),
        act(Server, 202, r#"{"createBackup":{"name":"{fresh}","backup_type":"daily","rotation":1}}"#)
            .rule(policy::SERVER_BACKUP.rule),
        act(Server, 202, r#"{"changePassword":{"adminPass":"x"}}"#).rule(policy::SERVER_PASSWORD.rule),
        act(Server, 200, r#"{"rescue":null}"#).rule(policy::SERVER_RESCUE.rule),
        act(ServerAfter(&["rescue"]), 202, r#"{"unrescue":null}"#).rule(policy::SERVER_RESCUE.rule),
        act(Server, 202, r#"{"shelve":null}"#).rule(policy::SERVER_SHELVE.rule),
        act(Server, 409, r#"{"unshelve":null}"#).rule(policy::SERVER_SHELVE.rule).because("it is not shelved"),
        act(Server, 409, r#"{"shelveOffload":null}"#)
            .rule(policy::SERVER_SHELVE_OFFLOAD.rule)
            .because("it is not shelved"),
        act(Server, 409, r#"{"restore":null}"#)
            .rule(policy::SERVER_RESTORE.rule)
            .because("what is deleted is gone at once"),
        act(Server, 400, r#"{"migrate":null}"#).rule(policy::SERVER_MIGRATE.rule).because("there is one node"),
        act(Server, 400, r#"{"os-migrateLive":{"host":null,"block_migration":false,"disk_over_commit":false}}"#)
            .rule(policy::SERVER_MIGRATE.rule)
            .because("there is one node"),
        act(Server, 400, r#"{"evacuate":{"onSharedStorage":false}}"#)
            .rule(policy::SERVER_EVACUATE.rule)
            .because("the node is not down"),
        act(Server, 202, r#"{"injectNetworkInfo":null}"#).rule(policy::SERVER_NETWORK_INJECT.rule),
        act(Server, 202, r#"{"addFixedIp":{"networkId":"{lan}"}}"#).rule(policy::SERVER_INTERFACES_WRITE.rule),
        act(ServerAfter(&["group"]), 202, r#"{"removeSecurityGroup":{"name":"wide"}}"#)
            .rule(policy::SERVER_SECURITY_GROUPS_WRITE.rule),
        act(ServerAfter(&["group"]), 202, r#"{"addSecurityGroup":{"name":"default"}}"#)
            .rule(policy::SERVER_SECURITY_GROUPS_WRITE.rule),
        act(Server, 202, r#"{"os-resetState":{"state":"error"}}"#).rule(policy::SERVER_RESET_STATE.rule),
        act(Server, 200, r#"{"os-getSerialConsole":{"type":"serial"}}"#).rule(policy::SERVER_CONSOLE.rule),
        act(Server, 200, r#"{"os-getVNCConsole":{"type":"novnc"}}"#).rule(policy::SERVER_CONSOLE.rule),
        act(Server, 503, r#"{"os-getConsoleOutput":{"length":5}}"#)
            .rule(policy::SERVER_CONSOLE.rule)
            .because("the log is fetched from the node, and no agent answers here"),
    ]
}

fn server_parts() -> Vec<Case> {
    vec![
        case("GET /compute/v2.1/servers/{id}/metadata", Server, 200),
        case("POST /compute/v2.1/servers/{id}/metadata", Server, 200).body(r#"{"metadata":{"a":"1"}}"#),
        case("PUT /compute/v2.1/servers/{id}/metadata", Server, 200).body(r#"{"metadata":{"a":"1"}}"#),
        case("GET /compute/v2.1/servers/{id}/metadata/{key}", Server, 200).with("key", "k"),
        case("PUT /compute/v2.1/servers/{id}/metadata/{key}", Server, 200)
            .with("key", "k")
            .body(r#"{"meta":{"k":"w"}}"#),
        case("DELETE /compute/v2.1/servers/{id}/metadata/{key}", Server, 204).with("key", "k"),
        case("GET /compute/v2.1/servers/{id}/tags", Server, 200).at("2.26"),
        case("PUT /compute/v2.1/servers/{id}/tags", Server, 200).at("2.26").body(r#"{"tags":["x"]}"#),
        case("DELETE /compute/v2.1/servers/{id}/tags", Server, 204).at("2.26"),
        case("GET /compute/v2.1/servers/{id}/tags/{tag}", Server, 204).at("2.26").with("tag", "t"),
        case("PUT /compute/v2.1/servers/{id}/tags/{tag}", Server, 201).at("2.26").with("tag", "new"),
        case("DELETE /compute/v2.1/servers/{id}/tags/{tag}", Server, 204).at("2.26").with("tag", "t"),
        case("GET /compute/v2.1/servers/{id}/os-interface", Server, 200),
        case("POST /compute/v2.1/servers/{id}/os-interface", Server, 200)
            .body(r#"{"interfaceAttachment":{"net_id":"{lan}"}}"#),
        case("GET /compute/v2.1/servers/{id}/os-interface/{port_id}", Server, 200).with("port_id", "{port}"),
        case("DELETE /compute/v2.1/servers/{id}/os-interface/{port_id}", Server, 202).with("port_id", "{port}"),
        case("GET /compute/v2.1/servers/{id}/os-security-groups", Server, 200),
        case("GET /compute/v2.1/servers/{id}/diagnostics", Server, 200),
        case("GET /compute/v2.1/servers/{id}/os-server-password", Server, 200),
        case("DELETE /compute/v2.1/servers/{id}/os-server-password", Server, 204),
        case("GET /compute/v2.1/servers/{id}/migrations", Server, 200).at("2.23"),
        case("GET /compute/v2.1/servers/{id}/migrations/{migration_id}", Server, 404)
            .at("2.23")
            .with("migration_id", "1")
            .because("nothing migrates while it runs"),
        case("DELETE /compute/v2.1/servers/{id}/migrations/{migration_id}", Server, 404)
            .at("2.24")
            .with("migration_id", "1")
            .because("nothing migrates while it runs"),
        case("POST /compute/v2.1/servers/{id}/migrations/{migration_id}/action", Server, 404)
            .at("2.22")
            .with("migration_id", "1")
            .body(r#"{"force_complete":null}"#)
            .because("nothing migrates while it runs"),
        case("GET /compute/v2.1/servers/{id}/os-instance-actions", Server, 200),
        case("GET /compute/v2.1/servers/{id}/os-instance-actions/{request_id}", Server, 200),
    ]
}

fn flavors() -> Vec<Case> {
    const SPEC: &str = "colour";
    vec![
        case("GET /compute/v2.1/flavors", Flavor, 200),
        case("GET /compute/v2.1/flavors", FlavorPrivate, 200).rule(Rule::ProjectReader),
        case("POST /compute/v2.1/flavors", Nothing, 200)
            .body(r#"{"flavor":{"name":"{fresh}","ram":64,"vcpus":1,"disk":1}}"#),
        case("GET /compute/v2.1/flavors/detail", Flavor, 200),
        case("GET /compute/v2.1/flavors/detail", FlavorPrivate, 200).rule(Rule::ProjectReader),
        case("GET /compute/v2.1/flavors/{id}", Flavor, 200),
        case("GET /compute/v2.1/flavors/{id}", FlavorPrivate, 200).rule(Rule::ProjectReader),
        case("PUT /compute/v2.1/flavors/{id}", Flavor, 200).at("2.55").body(r#"{"flavor":{"description":"x"}}"#),
        case("DELETE /compute/v2.1/flavors/{id}", Flavor, 202),
        case("POST /compute/v2.1/flavors/{id}/action", FlavorPrivate, 200)
            .body(r#"{"addTenantAccess":{"tenant":"{elsewhere}"}}"#),
        case("GET /compute/v2.1/flavors/{id}/os-flavor-access", FlavorPrivate, 200),
        case("GET /compute/v2.1/flavors/{id}/os-extra_specs", Flavor, 200),
        case("GET /compute/v2.1/flavors/{id}/os-extra_specs", FlavorPrivate, 200).rule(Rule::ProjectReader),
        case("POST /compute/v2.1/flavors/{id}/os-extra_specs", Flavor, 200).body(r#"{"extra_specs":{"a":"1"}}"#),
        case("GET /compute/v2.1/flavors/{id}/os-extra_specs/{key}", Flavor, 200).with("key", SPEC),
        case("GET /compute/v2.1/flavors/{id}/os-extra_specs/{key}", FlavorPrivate, 200)
            .with("key", SPEC)
            .rule(Rule::ProjectReader),
        case("PUT /compute/v2.1/flavors/{id}/os-extra_specs/{key}", Flavor, 200)
            .with("key", SPEC)
            .body(r#"{"colour":"red"}"#),
        case("DELETE /compute/v2.1/flavors/{id}/os-extra_specs/{key}", Flavor, 200).with("key", SPEC),
    ]
}

fn projects() -> Vec<Case> {
    vec![
        case("GET /compute/v2.1/os-keypairs", Keypair, 200),
        case("GET /compute/v2.1/os-keypairs", Keypair, 200).at("2.10").query("user_id={user}"),
        case("POST /compute/v2.1/os-keypairs", Nothing, 200).body(r#"{"keypair":{"name":"{fresh}"}}"#),
        case("POST /compute/v2.1/os-keypairs", Nothing, 201)
            .at("2.10")
            .body(r#"{"keypair":{"name":"{fresh}","user_id":"{user}"}}"#),
        case("GET /compute/v2.1/os-keypairs/{name}", Keypair, 200).with("name", "{id}"),
        case("GET /compute/v2.1/os-keypairs/{name}", Keypair, 200)
            .at("2.10")
            .with("name", "{id}")
            .query("user_id={user}"),
        case("DELETE /compute/v2.1/os-keypairs/{name}", Keypair, 202).with("name", "{id}"),
        case("DELETE /compute/v2.1/os-keypairs/{name}", Keypair, 204)
            .at("2.10")
            .with("name", "{id}")
            .query("user_id={user}"),
        case("GET /compute/v2.1/os-quota-sets/{project_id}", Nothing, 200).with("project_id", "{project}"),
        case("PUT /compute/v2.1/os-quota-sets/{project_id}", Nothing, 200)
            .with("project_id", "{project}")
            .body(r#"{"quota_set":{"instances":-1}}"#),
        case("DELETE /compute/v2.1/os-quota-sets/{project_id}", Nothing, 202).with("project_id", "{elsewhere}"),
        case("GET /compute/v2.1/os-quota-sets/{project_id}/detail", Nothing, 200).with("project_id", "{project}"),
        case("GET /compute/v2.1/os-quota-sets/{project_id}/defaults", Nothing, 200).with("project_id", "{project}"),
        case("GET /compute/v2.1/os-simple-tenant-usage", Server, 200).query("detailed=1"),
        case("GET /compute/v2.1/os-simple-tenant-usage/{project_id}", Server, 200).with("project_id", "{project}"),
        case("GET /compute/v2.1/os-server-groups", ServerGroup, 200),
        case("GET /compute/v2.1/os-server-groups", ServerGroup, 200).query("all_projects=true").by(Admin),
        case("POST /compute/v2.1/os-server-groups", Nothing, 200)
            .body(r#"{"server_group":{"name":"{fresh}","policies":["affinity"]}}"#),
        case("GET /compute/v2.1/os-server-groups/{id}", ServerGroup, 200),
        case("DELETE /compute/v2.1/os-server-groups/{id}", ServerGroup, 204),
    ]
}

/// What the compute API once did in the place of others.
fn old() -> Vec<Case> {
    vec![
        case("GET /compute/v2.1/os-security-groups", SecurityGroup, 200),
        case("POST /compute/v2.1/os-security-groups", Nothing, 200)
            .body(r#"{"security_group":{"name":"{fresh}","description":""}}"#),
        case("GET /compute/v2.1/os-security-groups/{id}", SecurityGroup, 200),
        case("PUT /compute/v2.1/os-security-groups/{id}", SecurityGroup, 200)
            .body(r#"{"security_group":{"name":"{fresh}","description":""}}"#),
        case("DELETE /compute/v2.1/os-security-groups/{id}", SecurityGroup, 202),
        case("GET /compute/v2.1/images", Image, 200),
        case("GET /compute/v2.1/images/detail", Image, 200),
        case("GET /compute/v2.1/images/{id}", Image, 200),
        case("DELETE /compute/v2.1/images/{id}", Image, 204),
    ]
}

fn nodes() -> Vec<Case> {
    vec![
        case("GET /compute/v2.1/os-hypervisors", Nothing, 200),
        case("GET /compute/v2.1/os-hypervisors/detail", Nothing, 200),
        case("GET /compute/v2.1/os-hypervisors/statistics", Nothing, 200),
        case("GET /compute/v2.1/os-hypervisors/{id}", Nothing, 200).at("2.53").with("id", "{node}"),
        case("GET /compute/v2.1/os-hypervisors/{id}/uptime", Nothing, 400)
            .at("2.53")
            .with("id", "{node}")
            .because("this node does not tell"),
        case("GET /compute/v2.1/os-hypervisors/{id}/search", Nothing, 200).with("id", "node"),
        case("GET /compute/v2.1/os-hypervisors/{id}/servers", Nothing, 200).with("id", "node"),
        case("DELETE /compute/v2.1/os-services/{id}", Server, 409)
            .at("2.53")
            .with("id", "{node}")
            .because("servers are on it"),
        case("GET /compute/v2.1/os-services", Nothing, 200),
        case("PUT /compute/v2.1/os-services/{id}", Nothing, 200)
            .at("2.53")
            .with("id", "{node}")
            .body(r#"{"status":"enabled"}"#),
        case("GET /compute/v2.1/os-availability-zone", Nothing, 200),
        case("GET /compute/v2.1/os-availability-zone/detail", Nothing, 200),
    ]
}

fn administration() -> Vec<Case> {
    vec![
        case("GET /compute/v2.1/os-aggregates", Nothing, 200),
        case("POST /compute/v2.1/os-aggregates", Nothing, 200).body(r#"{"aggregate":{"name":"{fresh}"}}"#),
        case("GET /compute/v2.1/os-aggregates/{id}", Aggregate, 200),
        case("PUT /compute/v2.1/os-aggregates/{id}", Aggregate, 200).body(r#"{"aggregate":{"name":"{fresh}"}}"#),
        case("DELETE /compute/v2.1/os-aggregates/{id}", Aggregate, 200),
        case("POST /compute/v2.1/os-aggregates/{id}/images", Aggregate, 202)
            .at("2.81")
            .body(r#"{"cache":[{"id":"{image}"}]}"#),
        case("POST /compute/v2.1/os-aggregates/{id}/action", Aggregate, 200)
            .body(r#"{"set_metadata":{"metadata":{"a":"b"}}}"#),
        case("GET /compute/v2.1/os-migrations", Nothing, 200),
        case("GET /compute/v2.1/os-hosts", Nothing, 200),
        case("GET /compute/v2.1/os-hosts/{name}", Nothing, 200).with("name", "node-1"),
        case("PUT /compute/v2.1/os-hosts/{name}", Nothing, 200).with("name", "node-1").body(r#"{"status":"enable"}"#),
        case("GET /compute/v2.1/os-hosts/{name}/startup", Nothing, 400)
            .with("name", "node-1")
            .because("nodes are not switched from here"),
        case("GET /compute/v2.1/os-hosts/{name}/shutdown", Nothing, 400)
            .with("name", "node-1")
            .because("nodes are not switched from here"),
        case("GET /compute/v2.1/os-hosts/{name}/reboot", Nothing, 400)
            .with("name", "node-1")
            .because("nodes are not switched from here"),
        case("GET /compute/v2.1/os-quota-class-sets/{id}", Nothing, 200).with("id", "default"),
        case("PUT /compute/v2.1/os-quota-class-sets/{id}", Nothing, 200)
            .with("id", "default")
            .body(r#"{"quota_class_set":{"instances":10}}"#),
        case("GET /compute/v2.1/os-instance_usage_audit_log", Nothing, 200),
        case("GET /compute/v2.1/os-instance_usage_audit_log/{before}", Nothing, 200)
            .with("before", "2026-01-01T00:00:00"),
        case("POST /compute/v2.1/os-server-external-events", Server, 200)
            .body(r#"{"events":[{"name":"network-changed","server_uuid":"{id}"}]}"#),
        case("GET /compute/v2.1/os-console-auth-tokens/{token}", Nothing, 404)
            .at("2.31")
            .with("token", "none")
            .because("no console was opened"),
    ]
}

fn proxies() -> Vec<Case> {
    vec![
        case("GET /compute/v2.1/os-networks", Network, 200),
        case("GET /compute/v2.1/os-networks/{id}", Network, 200),
        case("GET /compute/v2.1/os-tenant-networks", Network, 200),
        case("GET /compute/v2.1/os-tenant-networks/{id}", Network, 200),
        case("GET /compute/v2.1/os-floating-ip-pools", Nothing, 200),
        case("GET /compute/v2.1/os-floating-ips", FloatingIp, 200),
        case("POST /compute/v2.1/os-floating-ips", Nothing, 200).body("{}"),
        case("GET /compute/v2.1/os-floating-ips/{id}", FloatingIp, 200),
        case("DELETE /compute/v2.1/os-floating-ips/{id}", FloatingIp, 202),
        case("POST /compute/v2.1/os-security-group-rules", SecurityGroup, 200).body(
            r#"{"security_group_rule":{"parent_group_id":"{id}","ip_protocol":"tcp","from_port":22,"to_port":22}}"#,
        ),
        case("DELETE /compute/v2.1/os-security-group-rules/{id}", SecurityGroupRule, 202),
        case("GET /compute/v2.1/images/{id}/metadata", Image, 200),
        case("POST /compute/v2.1/images/{id}/metadata", Image, 200).body(r#"{"metadata":{"a":"1"}}"#),
        case("PUT /compute/v2.1/images/{id}/metadata", Image, 200).body(r#"{"metadata":{"a":"1"}}"#),
        case("GET /compute/v2.1/images/{id}/metadata/{key}", Image, 404)
            .with("key", "none")
            .because("there is no such item"),
        case("PUT /compute/v2.1/images/{id}/metadata/{key}", Image, 200).with("key", "k").body(r#"{"meta":{"k":"w"}}"#),
        case("DELETE /compute/v2.1/images/{id}/metadata/{key}", Image, 404)
            .with("key", "none")
            .because("there is no such item"),
    ]
}

#[tokio::test]
async fn servers_are_for_their_projects() {
    walk(cases()).await;
}
