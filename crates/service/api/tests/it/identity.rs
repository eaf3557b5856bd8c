//! The identity API.

mod credentials;
mod delegation;
mod management;
mod revocation;

use crate::harness::{Answer, Cloud, URL};
use arcus_types::policy::Rule;
use serde_json::{Value, json};

const TOKENS: &str = "/identity/v3/auth/tokens";

/// What a token says, to the token's own user.
async fn show(cloud: &Cloud, token: &str) -> Answer {
    cloud.send("GET", TOKENS, token, &[("x-subject-token", token)], "").await
}

/// The answer to an `auth` object.
async fn authenticate(cloud: &Cloud, identity: Value, scope: Value) -> Answer {
    let mut auth = json!({ "identity": identity });
    if !scope.is_null() {
        auth["scope"] = scope;
    }
    cloud.post(TOKENS, "", json!({ "auth": auth })).await
}

/// What shows a user of the domain `default` by password.
fn password(user: &str, password: &str) -> Value {
    let user = json!({ "name": user, "domain": { "id": "default" }, "password": password });
    json!({ "methods": ["password"], "password": { "user": user } })
}

/// What shows a token.
fn by_token(token: &str) -> Value {
    json!({ "methods": ["token"], "token": { "id": token } })
}

fn project(name: &str) -> Value {
    json!({ "project": { "name": name, "domain": { "name": "Default" } } })
}

/// The names of the objects in a list.
fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_password_opens_a_project_and_the_token_tells_of_itself() {
    let cloud = Cloud::start().await;
    let answer = cloud.try_login("demo", cloud.demo_password(), "demo").await;
    let token = answer.header("x-subject-token").to_owned();
    let body = answer.expect(201);
    assert_eq!(body["token"]["methods"], json!(["password"]));
    assert_eq!(body["token"]["project"]["name"], "demo");
    assert_eq!(body["token"]["user"]["domain"], json!({ "id": "default", "name": "Default" }));
    assert_eq!(names(&body["token"]["roles"]), ["member", "reader"]);
    let compute = body["token"]["catalog"].as_array().unwrap().iter().find(|s| s["type"] == "compute").unwrap();
    assert_eq!(compute["endpoints"][0]["url"], format!("{URL}/compute/v2.1"));
    let shown = show(&cloud, &token).await;
    assert_eq!(shown.header("x-subject-token"), token);
    assert_eq!(shown.expect(200), body);
    let head = cloud.send("HEAD", TOKENS, &token, &[("x-subject-token", &token)], "").await;
    assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));
    let subject = [("x-subject-token", token.as_str())];
    let brief = cloud.send("GET", "/identity/v3/auth/tokens?nocatalog", &token, &subject, "").await;
    assert!(brief.expect(200)["token"].get("catalog").is_none());
}

#[tokio::test]
async fn a_refused_log_in_tells_nothing_of_who_exists() {
    let cloud = Cloud::start().await;
    let wrong = cloud.try_login("demo", "wrong", "demo").await.expect(401);
    assert_eq!(cloud.try_login("nobody", "wrong", "demo").await.expect(401), wrong);
    assert_eq!(cloud.try_login("demo", cloud.demo_password(), "admin").await.expect(401), wrong);
    assert_eq!(cloud.try_login("demo", cloud.demo_password(), "nowhere").await.expect(401), wrong);
    assert_eq!(cloud.try_login("demo", &"x".repeat(5000), "demo").await.expect(401), wrong);
    let by_id = json!({ "methods": ["password"], "password": { "user": { "id": "../etc", "password": "x" } } });
    assert_eq!(authenticate(&cloud, by_id, Value::Null).await.expect(401), wrong);
}

#[tokio::test]
async fn malformed_requests_are_told_what_is_wrong() {
    let cloud = Cloud::start().await;
    let right = password("demo", cloud.demo_password());
    for scope in [json!("everything"), json!({}), json!({ "project": {} }), json!({ "system": { "all": false } })] {
        authenticate(&cloud, right.clone(), scope).await.expect(400);
    }
    authenticate(&cloud, json!({ "methods": ["password"] }), Value::Null).await.expect(400);
    authenticate(&cloud, json!({ "methods": ["magic"] }), Value::Null).await.expect(401);
    cloud.post(TOKENS, "", json!({})).await.expect(400);
    cloud.get(TOKENS, cloud.demo().await).await.expect(400);
}

#[tokio::test]
async fn every_scope_is_reached_by_who_holds_a_role_there() {
    let cloud = Cloud::start().await;
    let admin = || password("admin", cloud.admin_password());
    let demo = || password("demo", cloud.demo_password());
    let default = authenticate(&cloud, demo(), Value::Null).await.expect(201);
    assert_eq!(default["token"]["project"]["name"], "demo", "the default project");
    for word in [json!("unscoped"), json!({ "unscoped": {} })] {
        let token = authenticate(&cloud, demo(), word).await.expect(201)["token"].clone();
        assert!(token.get("project").is_none() && token.get("roles").is_none() && token.get("catalog").is_none());
    }
    let system = authenticate(&cloud, admin(), json!({ "system": { "all": true } })).await.expect(201);
    assert_eq!(system["token"]["system"], json!({ "all": true }));
    assert_eq!(names(&system["token"]["roles"]), ["admin", "manager", "member", "reader"]);
    authenticate(&cloud, demo(), json!({ "system": { "all": true } })).await.expect(401);
    authenticate(&cloud, admin(), json!({ "domain": { "id": "default" } })).await.expect(401);
    let (user, role) = (cloud.id_of("users", "demo").await, cloud.id_of("roles", "reader").await);
    let path = format!("/identity/v3/domains/default/users/{user}/roles/{role}");
    cloud.put(&path, cloud.admin().await, Value::Null).await.expect(204);
    let domain = authenticate(&cloud, demo(), json!({ "domain": { "name": "Default" } })).await.expect(201);
    assert_eq!(domain["token"]["domain"], json!({ "id": "default", "name": "Default" }));
}

#[tokio::test]
async fn a_token_is_exchanged_for_another_scope_but_lives_no_longer() {
    let cloud = Cloud::start().await;
    let first = authenticate(&cloud, password("demo", cloud.demo_password()), json!("unscoped")).await;
    let token = first.header("x-subject-token").to_owned();
    let first = first.expect(201);
    let second = authenticate(&cloud, by_token(&token), project("demo")).await.expect(201);
    assert_eq!(second["token"]["project"]["name"], "demo");
    assert_eq!(second["token"]["methods"], json!(["password", "token"]));
    assert_eq!(second["token"]["expires_at"], first["token"]["expires_at"]);
    assert_eq!(second["token"]["audit_ids"][1], first["token"]["audit_ids"][0]);
    authenticate(&cloud, by_token(&token), project("admin")).await.expect(401);
    authenticate(&cloud, by_token("gAAAAABnonsense"), project("demo")).await.expect(404);
}

#[tokio::test]
async fn a_token_expires_and_is_verified_without_the_database() {
    let cloud = Cloud::with(|config| config.token_ttl_s = 2).await;
    let token = cloud.login("demo", cloud.demo_password(), "demo").await;
    let queries = cloud.store.queries();
    let verified = cloud.app.identity.verify(&token).unwrap();
    for _ in 0..100 {
        assert!(cloud.app.identity.verify(&token).is_ok());
    }
    assert_eq!(cloud.store.queries(), queries);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while cloud.app.identity.verify(&token).is_ok() {
        assert!(std::time::Instant::now() < deadline, "it does not expire");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(arcus_types::Timestamp::now() >= verified.expires_at());
    cloud.get("/identity/v3/auth/projects", &token).await.expect(401);
}

#[tokio::test]
async fn tokens_are_shown_and_ended_by_their_user_and_administrators_only() {
    let cloud = Cloud::start().await;
    let demo = cloud.demo().await;
    let subject = [("x-subject-token", demo)];
    cloud.send("GET", TOKENS, cloud.stranger().await, &subject, "").await.expect(403);
    cloud.send("DELETE", TOKENS, cloud.stranger().await, &subject, "").await.expect(403);
    cloud.send("GET", TOKENS, cloud.admin().await, &subject, "").await.expect(200);
    cloud.person("watch", "demo", "service").await;
    let service = cloud.login("watch", "watch's password", "demo").await;
    cloud.send("GET", TOKENS, &service, &subject, "").await.expect(200);
    cloud.send("DELETE", TOKENS, demo, &subject, "").await.expect(204);
    cloud.get("/identity/v3/auth/projects", demo).await.expect(401);
    cloud.send("GET", TOKENS, cloud.admin().await, &subject, "").await.expect(404);
    authenticate(&cloud, by_token(demo), Value::Null).await.expect(404);
}

#[tokio::test]
async fn a_token_that_was_shown_before_shows_a_new_name_at_once_and_is_nobody_elses() {
    let cloud = Cloud::start().await;
    let demo = cloud.demo().await;
    assert_eq!(show(&cloud, demo).await.expect(200)["token"]["project"]["name"], "demo");
    let path = format!("/identity/v3/projects/{}", cloud.id_of("projects", "demo").await);
    cloud.patch(&path, cloud.admin().await, json!({ "project": { "name": "renamed" } })).await.expect(200);
    assert_eq!(show(&cloud, demo).await.expect(200)["token"]["project"]["name"], "renamed");
    cloud.send("GET", TOKENS, cloud.stranger().await, &[("x-subject-token", demo)], "").await.expect(403);
}

#[tokio::test]
async fn the_version_documents_and_the_catalogue_lead_to_each_service() {
    let cloud = Cloud::start().await;
    for path in ["/identity", "/identity/"] {
        let list = cloud.get(path, "").await.expect(300);
        assert_eq!(list["versions"]["values"][0]["links"][0]["href"], format!("{URL}/identity/v3/"));
    }
    let version = cloud.get("/identity/v3", "").await.expect(200);
    assert_eq!(version["version"]["media-types"][0]["type"], "application/vnd.openstack.identity-v3+json");
    let demo = cloud.demo().await;
    let catalog = cloud.get("/identity/v3/auth/catalog", demo).await.expect(200);
    let services = cloud.get("/identity/v3/services", demo).await.expect(200);
    assert_eq!(names(&services["services"]), names(&catalog["catalog"]));
    let id = services["services"][1]["id"].as_str().unwrap();
    assert_eq!(cloud.get(&format!("/identity/v3/services/{id}"), demo).await.expect(200)["service"]["type"], "compute");
    let path = format!("/identity/v3/endpoints?service_id={id}&interface=public");
    let endpoints = cloud.get(&path, demo).await.expect(200);
    assert_eq!(endpoints["endpoints"].as_array().unwrap().len(), 1);
    let id = endpoints["endpoints"][0]["id"].as_str().unwrap();
    cloud.get(&format!("/identity/v3/endpoints/{id}"), demo).await.expect(200);
    cloud.get("/identity/v3/regions/RegionOne", demo).await.expect(200);
    cloud.get("/identity/v3/regions/Nowhere", demo).await.expect(404);
}

#[tokio::test]
async fn a_user_learns_where_it_may_go() {
    let cloud = Cloud::start().await;
    let (admin, demo) = (cloud.admin().await, cloud.demo().await);
    let projects = cloud.get("/identity/v3/auth/projects", demo).await.expect(200);
    assert_eq!(names(&projects["projects"]), ["demo"]);
    assert_eq!(projects["links"]["next"], Value::Null);
    assert_eq!(cloud.get("/identity/v3/auth/domains", demo).await.expect(200)["domains"], json!([]));
    assert_eq!(cloud.get("/identity/v3/auth/system", demo).await.expect(200)["system"], json!([]));
    assert_eq!(cloud.get("/identity/v3/auth/system", admin).await.expect(200)["system"], json!([{ "all": true }]));
    let user = cloud.id_of("users", "demo").await;
    let own = cloud.get(&format!("/identity/v3/users/{user}/projects"), demo).await.expect(200);
    assert_eq!(names(&own["projects"]), ["demo"]);
    cloud.get(&format!("/identity/v3/users/{user}/projects"), cloud.stranger().await).await.expect(403);
    cloud.get(&format!("/identity/v3/users/{user}"), demo).await.expect(200);
    let project = cloud.id_of("projects", "demo").await;
    cloud.get(&format!("/identity/v3/projects/{project}"), cloud.reader().await).await.expect(200);
    cloud.get(&format!("/identity/v3/projects/{project}"), cloud.stranger().await).await.expect(404);
    cloud.get("/identity/v3/domains/default", demo).await.expect(200);
}

#[tokio::test]
async fn whoever_has_no_token_is_turned_away_from_all_that_is_not_public() {
    let cloud = Cloud::start().await;
    let mut closed = 0;
    for route in arcus_api::routes() {
        let path = filled(route.path);
        if matches!(route.action.rule, Rule::Public) {
            continue;
        }
        for token in ["", "gAAAAABnonsense"] {
            let answer = cloud.call(route.method.as_str(), &path, token, Value::Null).await;
            assert_eq!(answer.status, 401, "{} {path} with token {token:?}", route.method);
            if route.method != "HEAD" {
                assert!(!answer.json.is_null(), "{} {path} has an error body", route.method);
            }
        }
        closed += 1;
    }
    assert!(closed >= 76, "{closed} routes");
}

#[tokio::test]
async fn members_readers_and_strangers_change_nothing_of_identity() {
    let cloud = Cloud::start().await;
    let changes = ["identity:projects", "identity:domains", "identity:users", "identity:groups", "identity:role"];
    let mut refused = 0;
    for token in [cloud.demo().await, cloud.reader().await, cloud.stranger().await] {
        for route in arcus_api::routes().iter().filter(|r| r.method != "GET" && r.method != "HEAD") {
            let public = route.action.rule == Rule::Public;
            if public || !changes.iter().any(|c| route.action.name.starts_with(c)) {
                continue;
            }
            let body = body_for(route.path);
            let answer = cloud.call(route.method.as_str(), &filled(route.path), token, body).await;
            assert!(matches!(answer.status.as_u16(), 403 | 404), "{} {}: {}", route.method, route.path, answer.json);
            refused += 1;
        }
    }
    assert!(refused >= 3 * 25, "{refused} calls");
}

/// A body that is well-formed for whatever the path creates or changes.
fn body_for(path: &str) -> Value {
    let thing = json!({ "name": "x", "password": "x", "original_password": "x" });
    let kinds = ["project", "domain", "user", "group", "role"];
    let mut body = json!({ "tags": [] });
    for kind in kinds.iter().filter(|kind| path.contains(**kind)) {
        body[*kind] = thing.clone();
    }
    body
}

/// A path with an id in place of each placeholder.
fn filled(path: &str) -> String {
    let part = |p: &str| if p.starts_with('{') { "0b8c6c5ea1f24c1c8b4a3f2d1e0c9b8a".to_owned() } else { p.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}
