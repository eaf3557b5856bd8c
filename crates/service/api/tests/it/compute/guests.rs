//! What guests leave, where owners want servers to be, what users may have, and what nodes fetch ahead.

use super::Nova;
use arcus_types::agent::{NodeFacts, NodeReport, NodeSpec, PasswordLeft};
use arcus_types::{Actor, OpCtx, RequestId};
use serde_json::{Value, json};
use std::collections::HashSet;

impl Nova {
    fn as_node(&self) -> OpCtx {
        OpCtx { actor: Actor::Node { node_id: self.node }, ..OpCtx::anonymous(RequestId::new()) }
    }

    async fn spec(&self) -> NodeSpec {
        self.cloud.app.engine.node_spec(&self.as_node(), 0, &HashSet::new()).await.unwrap().unwrap()
    }

    async fn report(&self, report: NodeReport) {
        self.cloud.app.engine.node_report(&self.as_node(), &report).await.unwrap();
    }

    /// What a guest leaves in a turn.
    async fn leaves(&self, id: &str, turn: u64, text: &str) {
        let password = PasswordLeft { server_id: id.parse().unwrap(), turn, text: text.to_owned() };
        self.report(NodeReport { passwords_left: vec![password], ..NodeReport::default() }).await;
    }
}

#[tokio::test]
async fn a_password_that_a_guest_left_is_its_owners_until_it_is_thrown_away() {
    let nova = Nova::start().await;
    let id = nova.running().await;
    let path = format!("/servers/{id}/os-server-password");
    let shown = async || nova.demo("2.1", "GET", &path, Value::Null).await.expect(200)["password"].clone();
    assert_eq!(shown().await, "");
    nova.leaves(&id, 0, "sealed").await;
    nova.leaves(&id, 0, "another").await;
    assert_eq!(shown().await, "sealed", "the first one stays");
    assert_eq!(nova.spec().await.servers[0].guest.password_left.as_deref(), Some("sealed"));
    let stored = std::fs::read(nova.cloud.folder().join("arcus.db-wal")).unwrap_or_default();
    assert!(!stored.windows(6).any(|window| window == b"sealed"), "the database does not tell it");
    nova.demo("2.1", "DELETE", &path, Value::Null).await.expect(204);
    assert_eq!(shown().await, "");
    nova.leaves(&id, 0, "sealed").await;
    assert_eq!(shown().await, "", "what was thrown away does not come back");
    for bad in ["", "two words", &"x".repeat(2000)] {
        nova.leaves(&id, 1, bad).await;
    }
    assert_eq!(shown().await, "");
    nova.leaves(&id, 1, "again").await;
    assert_eq!(shown().await, "again");
}

#[tokio::test]
async fn a_user_may_have_less_than_the_project() {
    let nova = Nova::start().await;
    let admin = nova.cloud.admin().await;
    let (project, user) = (nova.cloud.id_of("projects", "demo").await, nova.cloud.id_of("users", "demo").await);
    let path = format!("/os-quota-sets/{project}?user_id={user}");
    let set = |caps: Value| json!({ "quota_set": caps });
    nova.demo("2.1", "PUT", &path, set(json!({ "instances": 1 }))).await.expect(403);
    nova.at("2.1", "PUT", &path, admin, set(json!({ "instances": 11 }))).await.expect(400);
    nova.at("2.1", "PUT", &path, admin, set(json!({ "instances": -1 }))).await.expect(400);
    nova.at("2.1", "PUT", &path, admin, set(json!({ "security_groups": 1 }))).await.expect(400);
    let shown = nova.at("2.1", "PUT", &path, admin, set(json!({ "instances": 2, "cores": 3 }))).await.expect(200);
    assert_eq!((&shown["quota_set"]["instances"], &shown["quota_set"]["ram"]), (&json!(2), &json!(51_200)));
    nova.running().await;
    let detail = format!("/os-quota-sets/{project}/detail?user_id={user}");
    let told = nova.demo("2.1", "GET", &detail, Value::Null).await.expect(200);
    assert_eq!(told["quota_set"]["instances"], json!({ "limit": 2, "in_use": 1, "reserved": 0 }));
    assert_eq!(told["quota_set"]["cores"], json!({ "limit": 3, "in_use": 1, "reserved": 0 }));
    let mut body = nova.body();
    body["server"]["min_count"] = json!(1);
    body["server"]["max_count"] = json!(5);
    nova.demo("2.1", "POST", "/servers", body).await.expect(202);
    let all = nova.demo("2.1", "GET", "/servers", Value::Null).await.expect(200);
    assert_eq!(all["servers"].as_array().unwrap().len(), 2, "as many as the user may have");
    let refused = nova.demo("2.1", "POST", "/servers", nova.body()).await.expect(403);
    assert_eq!(
        refused["forbidden"]["message"],
        "Quota exceeded for instances: Requested 1, but this user already used 2 of 2 instances"
    );
    nova.at("2.1", "PUT", &path, admin, set(json!({ "instances": 1 }))).await.expect(400);
    let forced = set(json!({ "instances": 1, "force": true }));
    nova.at("2.1", "PUT", &path, admin, forced).await.expect(200);
    nova.at("2.1", "DELETE", &path, admin, Value::Null).await.expect(202);
    nova.demo("2.1", "POST", "/servers", nova.body()).await.expect(202);
    let limits = nova.demo("2.1", "GET", "/limits", Value::Null).await.expect(200);
    assert_eq!(limits["limits"]["absolute"]["totalInstancesUsed"], 3, "the project's own count is right");
}

#[tokio::test]
async fn hints_keep_servers_together_and_apart() {
    let nova = Nova::start().await;
    let first = nova.running().await;
    for (hints, wanted) in [
        (json!({ "same_host": first }), "BUILD"),
        (json!({ "same_host": [first] }), "BUILD"),
        (json!({ "different_host": [first] }), "ERROR"),
        (json!({ "same_host": [nova.image] }), "ERROR"),
        (json!({ "different_host": nova.image }), "BUILD"),
    ] {
        let mut body = nova.body();
        body["os:scheduler_hints"] = hints.clone();
        let made = nova.demo("2.1", "POST", "/servers", body).await.expect(202);
        let id = made["server"]["id"].as_str().unwrap();
        assert_eq!(nova.status(id).await, wanted, "{hints}");
        if wanted == "ERROR" {
            let shown = nova.demo("2.1", "GET", &format!("/servers/{id}"), Value::Null).await.expect(200);
            let message = shown["server"]["fault"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains("of the hint"), "{message}");
        }
    }
    for hints in [json!({ "same_host": "x" }), json!({ "different_host": [1] }), json!({ "query": "[]" })] {
        let mut body = nova.body();
        body["os:scheduler_hints"] = hints;
        nova.demo("2.1", "POST", "/servers", body).await.expect(400);
    }
}

#[tokio::test]
async fn nodes_of_an_aggregate_fetch_images_ahead() {
    let nova = Nova::start().await;
    let admin = nova.cloud.admin().await;
    let made = nova.at("2.1", "POST", "/os-aggregates", admin, json!({ "aggregate": { "name": "a" } })).await;
    let number = made.expect(200)["aggregate"]["id"].to_string();
    let host = json!({ "add_host": { "host": "node-1" } });
    nova.at("2.1", "POST", &format!("/os-aggregates/{number}/action"), admin, host).await.expect(200);
    let path = format!("/os-aggregates/{number}/images");
    let cache = json!({ "cache": [{ "id": nova.image }] });
    nova.at("2.80", "POST", &path, admin, cache.clone()).await.expect(404);
    for bad in
        [json!({}), json!({ "cache": [] }), json!({ "cache": [{ "id": nova.network }] }), json!({ "cache": [{}] })]
    {
        nova.at("2.81", "POST", &path, admin, bad).await.expect(400);
    }
    nova.at("2.81", "POST", &path, admin, cache).await.expect(202);
    let spec = nova.spec().await;
    assert_eq!(spec.prefetch[0].id.to_string(), nova.image);
    let facts = NodeFacts { vcpus: 8, cached_images: vec![spec.prefetch[0].sha256.clone()], ..NodeFacts::default() };
    nova.report(NodeReport { facts, ..NodeReport::default() }).await;
    assert!(nova.spec().await.prefetch.is_empty(), "it is there");
}
