//! Application credentials.

use super::{authenticate, by_token, names};
use crate::harness::Cloud;
use arcus_types::Timestamp;
use serde_json::{Value, json};

fn shown(id: &Value, secret: &Value) -> Value {
    json!({ "methods": ["application_credential"], "application_credential": { "id": id, "secret": secret } })
}

/// The path of demo's credentials.
async fn home(cloud: &Cloud) -> String {
    format!("/identity/v3/users/{}/application_credentials", cloud.id_of("users", "demo").await)
}

async fn make(cloud: &Cloud, path: &str, token: &str, body: Value) -> Value {
    let made = cloud.post(path, token, json!({ "application_credential": body })).await.expect(201);
    made["application_credential"].clone()
}

#[tokio::test]
async fn a_credential_opens_its_project_with_its_roles_until_it_is_deleted() {
    let cloud = Cloud::start().await;
    let (demo, path) = (cloud.demo().await, home(&cloud).await);
    let expires_at = Timestamp::now().plus_seconds(600).iso_naive();
    let made = make(
        &cloud,
        &path,
        demo,
        json!({
            "name": "backup", "description": "x", "roles": [{ "name": "reader" }], "expires_at": expires_at,
        }),
    )
    .await;
    assert_eq!(made["expires_at"], json!(expires_at));
    assert_eq!(names(&made["roles"]), ["reader"]);
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    let found = cloud.get(&one, demo).await.expect(200)["application_credential"].clone();
    assert!(found.get("secret").is_none());
    assert_eq!((&found["name"], &found["unrestricted"]), (&json!("backup"), &json!(false)));

    let answer = authenticate(&cloud, shown(&made["id"], &made["secret"]), Value::Null).await;
    let token = answer.header("x-subject-token").to_owned();
    let body = answer.expect(201);
    assert_eq!(body["token"]["project"]["name"], "demo");
    assert_eq!(names(&body["token"]["roles"]), ["reader"]);
    assert_eq!(body["token"]["expires_at"], format!("{expires_at}Z"), "no longer than the credential");
    assert_eq!(
        body["token"]["application_credential"],
        json!({ "id": made["id"], "name": "backup", "restricted": true })
    );
    let by_name = json!({ "methods": ["application_credential"], "application_credential": {
        "name": "backup", "secret": made["secret"], "user": { "name": "demo", "domain": { "id": "default" } } } });
    authenticate(&cloud, by_name, Value::Null).await.expect(201);
    authenticate(&cloud, shown(&made["id"], &json!("wrong")), Value::Null).await.expect(401);
    authenticate(&cloud, shown(&json!("nonsense"), &made["secret"]), Value::Null).await.expect(401);
    authenticate(&cloud, shown(&made["id"], &made["secret"]), json!("unscoped")).await.expect(401);
    authenticate(&cloud, by_token(&token), Value::Null).await.expect(403);
    cloud.post(&path, &token, json!({ "application_credential": { "name": "more" } })).await.expect(403);
    cloud.delete(&one, &token).await.expect(403);
    cloud.delete(&one, demo).await.expect(204);
    cloud.get("/identity/v3/auth/projects", &token).await.expect(401);
    authenticate(&cloud, shown(&made["id"], &made["secret"]), Value::Null).await.expect(401);
    cloud.get(&one, demo).await.expect(404);
}

#[tokio::test]
async fn a_credential_never_carries_more_than_its_maker_holds() {
    let cloud = Cloud::start().await;
    let (demo, path) = (cloud.demo().await, home(&cloud).await);
    let new = |body: Value| json!({ "application_credential": body });
    cloud.post(&path, demo, new(json!({ "name": "x", "roles": [{ "name": "admin" }] }))).await.expect(400);
    let past = Timestamp::now().plus_seconds(-1).iso_naive();
    cloud.post(&path, demo, new(json!({ "name": "x", "expires_at": past }))).await.expect(400);
    cloud.post(&path, demo, new(json!({ "name": "x", "expires_at": "soon" }))).await.expect(400);
    let rules = json!([{ "path": "/", "method": "LOOK", "service": "compute" }]);
    cloud.post(&path, demo, new(json!({ "name": "x", "access_rules": rules }))).await.expect(400);
    cloud.post(&path, cloud.admin().await, new(json!({ "name": "x" }))).await.expect(403);
    cloud.get(&path, cloud.stranger().await).await.expect(403);

    let narrow = json!({ "name": "narrow", "roles": [{ "name": "reader" }], "unrestricted": true, "secret": "s3cret" });
    let narrow = make(&cloud, &path, demo, narrow).await;
    let answer = authenticate(&cloud, shown(&narrow["id"], &json!("s3cret")), Value::Null).await;
    let token = answer.header("x-subject-token").to_owned();
    cloud.post(&path, &token, new(json!({ "name": "wide", "roles": [{ "name": "member" }] }))).await.expect(400);
    let child = make(&cloud, &path, &token, json!({ "name": "child" })).await;
    assert_eq!(names(&child["roles"]), ["reader"]);
    cloud.post(&path, &token, new(json!({ "name": "child" }))).await.expect(409);
    let list = cloud.get(&path, demo).await.expect(200);
    assert_eq!(names(&list["application_credentials"]), ["narrow", "child"]);
    let list = cloud.get(&format!("{path}?name=child"), cloud.admin().await).await.expect(200);
    assert_eq!(names(&list["application_credentials"]), ["child"]);

    let held = format!(
        "/identity/v3/projects/{}/users/{}/roles/{}",
        cloud.id_of("projects", "demo").await,
        cloud.id_of("users", "demo").await,
        cloud.id_of("roles", "member").await
    );
    cloud.delete(&held, cloud.admin().await).await.expect(204);
    cloud.get(&path, &token).await.expect(401);
    authenticate(&cloud, shown(&narrow["id"], &json!("s3cret")), Value::Null).await.expect(401);
}
