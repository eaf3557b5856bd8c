//! The root, the link to the nodes and consoles.

use super::Who::Nobody;
use super::things::Thing::{Cluster, ClusterWithNode, Image, JoinToken, Nothing, Server, Snapshot, Task};
use super::{Case, case, walk};
use arcus_types::policy::Rule;

const NO_SOCKET: &str = "a WebSocket needs a connection, and these requests come without one";
const NO_DISK: &str = "these bytes are no qcow2 image, which only the node that may send them is told";
const NO_CANCEL: &str = "what is asked of a server by its owner is not given up half-way";
const NO_RETRY: &str = "it has not failed";
const RENEW: &str = r#"{"csr_pem":"{csr}"}"#;
const JOIN: &str = r#"{"token":"{join_token}","name":"node-2","csr_pem":"{csr}"}"#;
const CLUSTER: &str =
    r#"{"cluster":{"name":"second-floor","zone":"nova","overcommit":{"memory_percent":120},"placement":"pack"}}"#;
const EXPLAIN: &str = r#"{"placement":{"flavor":"arcus.tiny","availability_zone":"nova"}}"#;
const REPORT: &str = r#"{"spec_generation":0,"servers":[],"snapshots":[],"ports_up":[],"network_faults":[],
    "facts":{"agent_version":"1","hypervisor_version":"sim","accel":"sim","boot_id":"1","cpu_model":"sim","vcpus":1,
    "memory_mib":1024,"disk_gib":10,"disk_free_gib":10,"underlay":null,"cached_images":[]}}"#;

pub fn cases() -> Vec<Case> {
    vec![
        case("GET /", Nothing, 200),
        case("GET /healthcheck", Nothing, 200),
        case("GET /agent/v1/ca", Nothing, 200).by(Nobody),
        case("POST /arcus/v1/join-tokens", Nothing, 201).body(r#"{"join_token":{"uses":2,"lifetime_s":60}}"#),
        case("GET /arcus/v1/nodes", Nothing, 200).query("limit=10"),
        case("POST /arcus/v1/nodes/{name}/drain", Nothing, 200)
            .with("name", "node-1")
            .body(r#"{"drain":{"plan_only":true}}"#),
        case("POST /arcus/v1/nodes/{name}/restore", Nothing, 202)
            .with("name", "node-1")
            .body(r#"{"restore":{"parallel":1}}"#),
        case("GET /arcus/v1/clusters", Nothing, 200).query("limit=10"),
        case("POST /arcus/v1/clusters", Nothing, 201).body(CLUSTER),
        case("GET /arcus/v1/clusters/{id}", Cluster, 200),
        case("PATCH /arcus/v1/clusters/{id}", Cluster, 200)
            .body(r#"{"cluster":{"overcommit":{"vcpus_percent":400},"placement":"pack"}}"#),
        case("DELETE /arcus/v1/clusters/{id}", Cluster, 204),
        case("GET /arcus/v1/clusters/{id}/pairs", Cluster, 200).query("limit=10"),
        case("GET /arcus/v1/clusters/{id}/candidates/{node}", Cluster, 200).with("node", "node-1"),
        case("PUT /arcus/v1/clusters/{id}/nodes/{node}", Cluster, 200).with("node", "node-1"),
        case("DELETE /arcus/v1/clusters/{id}/nodes/{node}", ClusterWithNode, 204).with("node", "node-1"),
        case("GET /arcus/v1/tasks/{id}/servers", Task, 200),
        case("GET /arcus/v1/tasks", Task, 200).query("limit=1000"),
        case("GET /arcus/v1/tasks/watch", Nothing, 200).query("max_s=0&kind=drain"),
        case("GET /arcus/v1/tasks/{id}", Task, 200),
        case("GET /arcus/v1/tasks/{id}/events", Task, 200).query("max_s=0"),
        case("POST /arcus/v1/tasks/{id}/cancel", Task, 409).because(NO_CANCEL),
        case("POST /arcus/v1/tasks/{id}/retry", Task, 409).because(NO_RETRY),
        case("POST /arcus/v1/servers/{id}/live-migration", Server, 200)
            .body(r#"{"live_migration":{"dry_run":true,"max_blackout_ms":100}}"#),
        case("GET /arcus/v1/servers/{id}/placement", Server, 200),
        case("GET /arcus/v1/servers/{id}/placement", Server, 200).query("node=node-1").rule(Rule::Admin),
        case("POST /arcus/v1/placement/explain", Nothing, 200).body(EXPLAIN),
        case("POST /agent/v1/lease", Nothing, 200),
        case("GET /agent/v1/probe", Nothing, 200).query("bytes=16"),
        case("POST /agent/v1/join", JoinToken, 200).body(JOIN).by(Nobody),
        case("POST /agent/v1/renew", Nothing, 200).body(RENEW),
        case("GET /agent/v1/spec", Server, 200).query("after=0"),
        case("GET /agent/v1/images/{id}", Image, 200),
        case("PUT /agent/v1/images/{id}", Snapshot, 400).body("the bytes of a disk").because(NO_DISK),
        case("POST /agent/v1/report", Nothing, 204).body(REPORT),
        case("GET /agent/v1/relays/{id}", Server, 426).because(NO_SOCKET),
        case("GET /console/serial", Nothing, 426).query("token=none").by(Nobody).because(NO_SOCKET),
        case("GET /console/vnc.html", Nothing, 200).query("path=console%2Fvnc%3Ftoken%3Dnone").by(Nobody),
        case("GET /console/novnc.js", Nothing, 200).by(Nobody),
        case("GET /console/vnc", Nothing, 426).query("token=none").by(Nobody).because(NO_SOCKET),
    ]
}

#[tokio::test]
async fn nodes_do_what_nodes_may_and_nobody_else_does() {
    walk(cases()).await;
}
