//! What is handed on: inherited and implied roles, trusts, access rules; and what the operator sets.

use super::{authenticate, password};
use crate::harness::Cloud;
use serde_json::{Value, json};

#[tokio::test]
async fn a_role_on_a_domain_is_inherited_by_its_projects() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let ann = cloud.person("ann", "admin", "reader").await;
    let (role, demo) = (cloud.id_of("roles", "member").await, cloud.id_of("projects", "demo").await);
    let path = format!("/identity/v3/OS-INHERIT/domains/default/users/{ann}/roles/{role}/inherited_to_projects");
    cloud.try_login("ann", "ann's password", "demo").await.expect(401);
    cloud.put(&path, admin, Value::Null).await.expect(204);
    let token = cloud.login("ann", "ann's password", "demo").await;
    let query =
        format!("/identity/v3/role_assignments?user.id={ann}&scope.project.id={demo}&effective&include_names=1");
    let found = cloud.get(&query, admin).await.expect(200)["role_assignments"].clone();
    let names: Vec<&str> = found.as_array().unwrap().iter().filter_map(|a| a["role"]["name"].as_str()).collect();
    assert_eq!(names, ["member", "reader"], "{found}");
    assert!(found[0]["links"]["assignment"].as_str().unwrap().ends_with("inherited_to_projects"), "{found}");
    let query = format!("/identity/v3/role_assignments?user.id={ann}&scope.OS-INHERIT:inherited_to=projects");
    let given = cloud.get(&query, admin).await.expect(200);
    assert_eq!(given["role_assignments"][0]["scope"]["OS-INHERIT:inherited_to"], "projects", "{given}");
    cloud.delete(&path, admin).await.expect(204);
    cloud.get("/identity/v3/auth/projects", &token).await.expect(401);
}

#[tokio::test]
async fn a_role_gives_what_it_implies_until_it_does_no_more() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let role = cloud.post("/identity/v3/roles", admin, json!({ "role": { "name": "operator" } })).await.expect(201);
    let role = role["role"]["id"].as_str().unwrap().to_owned();
    cloud.person("ann", "demo", "operator").await;
    let (reader, top) = (cloud.id_of("roles", "reader").await, cloud.id_of("roles", "admin").await);
    let weak = cloud.login("ann", "ann's password", "demo").await;
    cloud.get("/image/v2/images", &weak).await.expect(403);
    let path = format!("/identity/v3/roles/{role}/implies/{reader}");
    cloud.put(&path, admin, Value::Null).await.expect(201);
    cloud.put(&format!("/identity/v3/roles/{reader}/implies/{role}"), admin, Value::Null).await.expect(400);
    cloud.put(&format!("/identity/v3/roles/{role}/implies/{top}"), admin, Value::Null).await.expect(403);
    let strong = cloud.login("ann", "ann's password", "demo").await;
    cloud.get("/image/v2/images", &strong).await.expect(200);
    cloud.delete(&path, admin).await.expect(204);
    cloud.get("/image/v2/images", &strong).await.expect(401);
    let built_in = format!("/identity/v3/roles/{}/implies/{reader}", cloud.id_of("roles", "member").await);
    cloud.delete(&built_in, admin).await.expect(403);
}

/// A trust from `demo` to `ann` for the role member.
async fn trust(cloud: &Cloud, more: Value) -> Value {
    let (demo, ann) = (cloud.id_of("users", "demo").await, cloud.id_of("users", "ann").await);
    let project = cloud.id_of("projects", "demo").await;
    let mut body = json!({ "trustor_user_id": demo, "trustee_user_id": ann, "project_id": project,
        "impersonation": true, "roles": [{ "name": "member" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = cloud.post("/identity/v3/OS-TRUST/trusts", cloud.demo().await, json!({ "trust": body })).await;
    made.expect(201)["trust"].clone()
}

#[tokio::test]
async fn a_trust_opens_its_project_to_its_trustee_alone() {
    let cloud = Cloud::start().await;
    cloud.person("ann", "admin", "reader").await;
    let made = trust(&cloud, json!({ "remaining_uses": 1 })).await;
    let scope = json!({ "OS-TRUST:trust": { "id": made["id"] } });
    authenticate(&cloud, password("demo", cloud.demo_password()), scope.clone()).await.expect(403);
    let answer = authenticate(&cloud, password("ann", "ann's password"), scope.clone()).await;
    let token = answer.header("x-subject-token").to_owned();
    let body = answer.expect(201);
    assert_eq!(body["token"]["user"]["name"], "demo", "by impersonation");
    assert_eq!(body["token"]["OS-TRUST:trust"]["id"], made["id"]);
    cloud.get("/image/v2/images", &token).await.expect(200);
    authenticate(&cloud, password("ann", "ann's password"), scope).await.expect(403);
    // What is the trustor's own stays theirs.
    let user = cloud.id_of("users", "demo").await;
    cloud.get("/identity/v3/credentials", &token).await.expect(403);
    let path = format!("/identity/v3/users/{user}/application_credentials");
    cloud.post(&path, &token, json!({ "application_credential": { "name": "x" } })).await.expect(403);
    let path = format!("/identity/v3/OS-TRUST/trusts/{}", made["id"].as_str().unwrap());
    cloud.delete(&path, cloud.demo().await).await.expect(204);
    cloud.get("/image/v2/images", &token).await.expect(401);
    cloud.get(&path, cloud.demo().await).await.expect(404);
}

#[tokio::test]
async fn a_trust_is_handed_on_only_as_often_as_it_says() {
    let cloud = Cloud::start().await;
    cloud.person("ann", "admin", "reader").await;
    let made = trust(&cloud, json!({ "allow_redelegation": true, "redelegation_count": 1 })).await;
    let scope = |id: &Value| json!({ "OS-TRUST:trust": { "id": id } });
    let answer = authenticate(&cloud, password("ann", "ann's password"), scope(&made["id"])).await;
    let token = answer.header("x-subject-token").to_owned();
    let next = json!({ "trust": { "trustor_user_id": made["trustor_user_id"], "project_id": made["project_id"],
        "trustee_user_id": cloud.id_of("users", "admin").await, "impersonation": true,
        "roles": [{ "name": "reader" }], "allow_redelegation": true } });
    let mut much = next.clone();
    much["trust"]["redelegation_count"] = json!(5);
    cloud.post("/identity/v3/OS-TRUST/trusts", &token, much).await.expect(403);
    let next = cloud.post("/identity/v3/OS-TRUST/trusts", &token, next).await.expect(201);
    assert_eq!(
        (&next["trust"]["redelegation_count"], &next["trust"]["redelegated_trust_id"]),
        (&json!(0), &made["id"])
    );
    cloud.person("stray", "admin", "reader").await;
    let path = format!("/identity/v3/OS-TRUST/trusts/{}", made["id"].as_str().unwrap());
    cloud.delete(&path, cloud.demo().await).await.expect(204);
    let path = format!("/identity/v3/OS-TRUST/trusts/{}", next["trust"]["id"].as_str().unwrap());
    cloud.get(&path, cloud.admin().await).await.expect(404);
}

#[tokio::test]
async fn a_credential_with_access_rules_is_good_for_what_they_name() {
    let cloud = Cloud::start().await;
    let user = cloud.id_of("users", "demo").await;
    let rule = json!({ "service": "image", "method": "GET", "path": "/v2/images" });
    let body = json!({ "application_credential": { "name": "x", "access_rules": [rule] } });
    let path = format!("/identity/v3/users/{user}/application_credentials");
    let made = cloud.post(&path, cloud.demo().await, body).await.expect(201)["application_credential"].clone();
    let shown = json!({ "methods": ["application_credential"],
        "application_credential": { "id": made["id"], "secret": made["secret"] } });
    let answer = authenticate(&cloud, shown, Value::Null).await;
    let token = answer.header("x-subject-token").to_owned();
    cloud.get("/image/v2/images", &token).await.expect(200);
    cloud.get("/image/v2/schemas/image", &token).await.expect(401);
    cloud.post("/image/v2/images", &token, json!({})).await.expect(401);
    cloud.get("/compute/v2.1/servers", &token).await.expect(401);
    let rules = format!("/identity/v3/users/{user}/access_rules");
    let found = cloud.get(&rules, cloud.demo().await).await.expect(200)["access_rules"].clone();
    let one = format!("{rules}/{}", found[0]["id"].as_str().unwrap());
    cloud.delete(&one, cloud.demo().await).await.expect(403);
    cloud.delete(&format!("{path}/{}", made["id"].as_str().unwrap()), cloud.demo().await).await.expect(204);
    cloud.delete(&one, cloud.demo().await).await.expect(204);
}

#[tokio::test]
async fn a_token_of_one_place_survives_what_is_taken_in_another() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let ann = cloud.person("ann", "demo", "member").await;
    let (role, other) = (cloud.id_of("roles", "member").await, cloud.id_of("projects", "admin").await);
    let path = format!("/identity/v3/projects/{other}/users/{ann}/roles/{role}");
    cloud.put(&path, admin, Value::Null).await.expect(204);
    let here = cloud.login("ann", "ann's password", "demo").await;
    let there = cloud.login("ann", "ann's password", "admin").await;
    cloud.delete(&path, admin).await.expect(204);
    cloud.get("/identity/v3/auth/projects", &there).await.expect(401);
    cloud.get("/identity/v3/auth/projects", &here).await.expect(200);
    cloud.put(&path, admin, Value::Null).await.expect(204);
    cloud.login("ann", "ann's password", "admin").await;
}

#[tokio::test]
async fn passwords_follow_the_operators_rules() {
    let change = |config: &mut arcus_identity::IdentityConfig| {
        config.password_pattern = Some(r"^.{6,}$".to_owned());
        config.password_pattern_text = "six characters".to_owned();
        config.password_minimum_age_days = 1;
        config.password_expires_days = 30;
    };
    let cloud = Cloud::with(change).await;
    let admin = cloud.admin().await;
    let new = |name: &str, password: &str| json!({ "user": { "name": name, "password": password } });
    let short = cloud.post("/identity/v3/users", admin, new("ann", "short")).await.expect(400);
    assert!(short["error"]["message"].as_str().unwrap().contains("six characters"), "{short}");
    let made = cloud.post("/identity/v3/users", admin, new("ann", "long enough")).await.expect(201);
    assert!(made["user"]["password_expires_at"].is_string(), "{made}");
    let path = format!("/identity/v3/users/{}", made["user"]["id"].as_str().unwrap());
    let body = json!({ "user": { "original_password": "long enough", "password": "another one" } });
    let young = cloud.post(&format!("{path}/password"), "", body.clone()).await.expect(400);
    assert!(young["error"]["message"].as_str().unwrap().contains("cannot be changed before"), "{young}");
    let lock = json!({ "user": { "options": { "lock_password": true, "ignore_password_expiry": true } } });
    let locked = cloud.patch(&path, admin, lock).await.expect(200);
    assert_eq!(locked["user"]["password_expires_at"], Value::Null);
    let locked = cloud.post(&format!("{path}/password"), "", body).await.expect(400);
    assert!(locked["error"]["message"].as_str().unwrap().contains("locked"), "{locked}");
    let bad = json!({ "user": { "options": { "colour": true } } });
    cloud.patch(&path, admin, bad).await.expect(400);
}

#[tokio::test]
async fn a_user_whose_rules_ask_for_more_shows_more() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let ann = cloud.person("ann", "demo", "member").await;
    let path = format!("/identity/v3/users/{ann}");
    let first = authenticate(&cloud, password("ann", "ann's password"), json!("unscoped")).await;
    let token = first.header("x-subject-token").to_owned();
    let rules = json!({ "multi_factor_auth_enabled": true,
        "multi_factor_auth_rules": [["password", "token"]] });
    cloud.patch(&path, admin, json!({ "user": { "options": rules } })).await.expect(200);
    authenticate(&cloud, password("ann", "ann's password"), Value::Null).await.expect(401);
    let mut both = password("ann", "ann's password");
    both["methods"] = json!(["password", "token"]);
    both["token"] = json!({ "id": token });
    let token = authenticate(&cloud, both, Value::Null).await.expect(201)["token"].clone();
    assert_eq!(token["methods"], json!(["password", "token"]));
}

#[tokio::test]
async fn the_administrator_adds_to_the_catalogue_and_our_own_stays() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let catalog = cloud.get("/identity/v3/auth/catalog", admin).await.expect(200)["catalog"].clone();
    let own = catalog[0]["id"].as_str().unwrap();
    cloud.delete(&format!("/identity/v3/services/{own}"), admin).await.expect(403);
    cloud.delete("/identity/v3/regions/RegionOne", admin).await.expect(403);
    let service = json!({ "service": { "type": "dns", "name": "designate", "colour": "blue" } });
    let service = cloud.post("/identity/v3/services", admin, service).await.expect(201)["service"].clone();
    assert_eq!(service["colour"], "blue");
    let endpoint = |url: &str| json!({ "endpoint": { "service_id": service["id"], "interface": "public", "url": url, "region": "far" } });
    cloud.post("/identity/v3/endpoints", admin, endpoint("ftp://elsewhere.test")).await.expect(400);
    let made = cloud.post("/identity/v3/endpoints", admin, endpoint("https://dns.test/$(project_id)s")).await;
    let made = made.expect(201)["endpoint"].clone();
    let catalog = cloud.get("/identity/v3/auth/catalog", cloud.demo().await).await.expect(200)["catalog"].clone();
    let dns = catalog.as_array().unwrap().iter().find(|s| s["type"] == "dns").unwrap().clone();
    let url = format!("https://dns.test/{}", cloud.id_of("projects", "demo").await);
    assert_eq!(dns["endpoints"][0]["url"], url);
    cloud.delete("/identity/v3/regions/far", admin).await.expect(403);
    let path = format!("/identity/v3/endpoints/{}", made["id"].as_str().unwrap());
    cloud.delete(&path, admin).await.expect(204);
    cloud.delete("/identity/v3/regions/far", admin).await.expect(204);
    cloud.delete(&format!("/identity/v3/services/{}", service["id"].as_str().unwrap()), admin).await.expect(204);
}

#[tokio::test]
async fn projects_show_their_kin_and_domains_act_as_projects() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let make = async |body: Value| {
        let made = cloud.post("/identity/v3/projects", admin, json!({ "project": body })).await.expect(201);
        made["project"]["id"].as_str().unwrap().to_owned()
    };
    let top = make(json!({ "name": "top", "tags": ["a"], "colour": "blue" })).await;
    let below = make(json!({ "name": "below", "parent_id": top })).await;
    let path = format!("/identity/v3/projects/{top}");
    let shown = cloud.get(&format!("{path}?subtree_as_ids"), admin).await.expect(200)["project"].clone();
    assert_eq!((&shown["subtree"], &shown["colour"]), (&json!({ below.as_str(): null }), &json!("blue")));
    let up = cloud.get(&format!("/identity/v3/projects/{below}?parents_as_list"), admin).await.expect(200);
    assert_eq!(up["project"]["parents"][0]["project"]["id"], top.as_str());
    let found = cloud.get("/identity/v3/projects?tags=a&name__startswith=to", admin).await.expect(200);
    assert_eq!(found["projects"].as_array().unwrap().len(), 1);
    let immutable = json!({ "project": { "options": { "immutable": true } } });
    cloud.patch(&path, admin, immutable).await.expect(200);
    cloud.patch(&path, admin, json!({ "project": { "name": "other" } })).await.expect(403);
    let domain = make(json!({ "name": "d", "is_domain": true })).await;
    let path = format!("/identity/v3/projects/{domain}");
    assert_eq!(cloud.get(&path, admin).await.expect(200)["project"]["is_domain"], true);
    cloud.get(&format!("/identity/v3/domains/{domain}"), admin).await.expect(200);
    cloud.patch(&path, admin, json!({ "project": { "enabled": false } })).await.expect(200);
    cloud.delete(&path, admin).await.expect(204);
}
