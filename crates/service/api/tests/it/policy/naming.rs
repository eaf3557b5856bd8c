//! What belongs to one project cannot be tied to what belongs to another by naming it.

use super::things::{Vars, World};
use super::{Case, Thing, Told, Wanted, Who, call, case, problem};
use arcus_store::testing::audit_count;

const SERVERS: &str = "POST /compute/v2.1/servers";
const REBUILD: &str = r#"{"rebuild":{"imageRef":"{image}"}}"#;

/// Calls by the stranger: words such as `{network}` stand once for what is `demo`'s, once for what is nobody's, and last
/// for what is the stranger's own; `{own_…}` is always that.
fn cases() -> Vec<Case> {
    let ours = |route, success, body| case(route, Thing::Nothing, success).body(body);
    vec![
        ours(
            "POST /network/v2.0/subnets",
            201,
            r#"{"subnet":{"network_id":"{network}","ip_version":4,"cidr":"10.9.0.0/24"}}"#,
        ),
        ours(
            "POST /network/v2.0/subnets",
            201,
            r#"{"subnet":{"network_id":"{own_empty}","ip_version":4,"subnetpool_id":"{pool}"}}"#,
        ),
        ours("POST /network/v2.0/ports", 201, r#"{"port":{"network_id":"{network}"}}"#),
        ours(
            "POST /network/v2.0/ports",
            201,
            r#"{"port":{"network_id":"{own_network}","fixed_ips":[{"subnet_id":"{subnet}"}]}}"#,
        ),
        ours(
            "POST /network/v2.0/ports",
            201,
            r#"{"port":{"network_id":"{own_network}","security_groups":["{group}"]}}"#,
        ),
        ours("PUT /network/v2.0/ports/{id}", 200, r#"{"port":{"security_groups":["{group}"]}}"#)
            .with("id", "{own_port}"),
        ours("PUT /network/v2.0/routers/{id}/add_router_interface", 200, r#"{"subnet_id":"{subnet}"}"#)
            .with("id", "{own_router}"),
        ours("PUT /network/v2.0/routers/{id}/add_router_interface", 200, r#"{"port_id":"{port}"}"#)
            .with("id", "{own_router}"),
        ours(
            "POST /network/v2.0/security-group-rules",
            201,
            r#"{"security_group_rule":{"security_group_id":"{group}","direction":"ingress"}}"#,
        ),
        ours(
            "POST /network/v2.0/security-group-rules",
            201,
            r#"{"security_group_rule":{"security_group_id":"{own_group}","direction":"ingress","remote_group_id":"{group}"}}"#,
        ),
        ours(
            "POST /network/v2.0/floatingips",
            201,
            r#"{"floatingip":{"floating_network_id":"{public}","port_id":"{routed_port}"}}"#,
        ),
        ours(
            SERVERS,
            202,
            r#"{"server":{"name":"s","flavorRef":"1","imageRef":"{image}","networks":[{"uuid":"{own_network}"}]}}"#,
        ),
        ours(
            SERVERS,
            202,
            r#"{"server":{"name":"s","flavorRef":"1","imageRef":"{own_image}","networks":[{"uuid":"{network}"}]}}"#,
        ),
        ours(
            SERVERS,
            202,
            r#"{"server":{"name":"s","flavorRef":"1","imageRef":"{own_image}","networks":[{"port":"{free_port}"}]}}"#,
        ),
        ours(
            SERVERS,
            202,
            r#"{"server":{"name":"s","flavorRef":"1","imageRef":"{own_image}","networks":[{"uuid":"{own_network}"}],"security_groups":[{"name":"{group}"}]}}"#,
        ),
        ours(
            SERVERS,
            202,
            r#"{"server":{"name":"s","flavorRef":"1","imageRef":"{own_image}","networks":[{"uuid":"{own_network}"}],"key_name":"{keypair}"}}"#,
        ),
        ours(
            SERVERS,
            202,
            r#"{"server":{"name":"s","flavorRef":"1","imageRef":"{own_image}","networks":[{"uuid":"{own_network}"}]},"os:scheduler_hints":{"group":"{server_group}"}}"#,
        ),
        ours("POST /compute/v2.1/servers/{id}/action", 202, REBUILD).with("id", "{own_server}"),
        ours("POST /compute/v2.1/servers/{id}/os-interface", 200, r#"{"interfaceAttachment":{"net_id":"{network}"}}"#)
            .with("id", "{own_settled}"),
        ours(
            "POST /compute/v2.1/servers/{id}/os-interface",
            200,
            r#"{"interfaceAttachment":{"port_id":"{spare_port}"}}"#,
        )
        .with("id", "{own_settled}"),
    ]
}

#[tokio::test]
async fn naming_what_is_not_ones_own_is_like_naming_nothing() {
    let world = World::start().await;
    let ours = world.holdings(Who::Member).await;
    let theirs = world.holdings(Who::Stranger).await;
    let foreign: Vars = theirs.renamed("own_").merged(&ours);
    let own: Vars = theirs.renamed("own_").merged(&theirs);
    let mut wrong = Vec::new();
    for case in cases() {
        let before = audit_count(&world.nova.cloud.store).await;
        let absent = call(&world, &case, Who::Stranger, &foreign.absent()).await.0.status.as_u16();
        let (answer, body_read) = call(&world, &case, Who::Stranger, &foreign).await;
        let unchanged = audit_count(&world.nova.cloud.store).await == before;
        let told = Told { answer: &answer, unchanged, body_read, absent: Some(absent) };
        let refusal = problem(&case, false, Wanted::Refused, &foreign, &told);
        let (success, body_read) = call(&world, &case, Who::Stranger, &own).await;
        let told = Told { answer: &success, unchanged: false, body_read, absent: None };
        for (problem, answer) in [(refusal, &answer), (problem(&case, false, Wanted::Granted, &own, &told), &success)] {
            let text = String::from_utf8_lossy(&answer.bytes);
            wrong.extend(problem.map(|p| format!("{} {}: {p}; got {} {text}", case.route, case.body, answer.status)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
