//! What makes tokens void, and what does not.

use super::{authenticate, password, show};
use crate::harness::Cloud;
use arcus_identity::{Identity, IdentityConfig};
use arcus_store::UserKey;
use arcus_types::Timestamp;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Whether a token still opens something.
async fn works(cloud: &Cloud, token: &str) -> bool {
    cloud.get("/identity/v3/auth/projects", token).await.status == 200
}

#[tokio::test]
async fn taking_something_away_voids_the_tokens_that_hold_it_and_no_others() {
    let cloud = Cloud::start().await;
    let (admin, demo) = (cloud.admin().await, cloud.demo().await);
    let user = cloud.person("ann", "demo", "member").await;
    let project = cloud.id_of("projects", "demo").await;
    let role = cloud.id_of("roles", "member").await;
    let held = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
    let account = format!("/identity/v3/users/{user}");

    let token = cloud.login("ann", "ann's password", "demo").await;
    cloud.delete(&held, admin).await.expect(204);
    assert!(!works(&cloud, &token).await, "the assignment was removed");
    cloud.try_login("ann", "ann's password", "demo").await.expect(401);
    cloud.put(&held, admin, Value::Null).await.expect(204);
    assert!(!works(&cloud, &token).await, "it does not come back with the role");

    let token = cloud.login("ann", "ann's password", "demo").await;
    assert!(works(&cloud, &token).await);
    cloud.patch(&account, admin, json!({ "user": { "description": "x" } })).await.expect(200);
    assert!(works(&cloud, &token).await, "a description does not matter");
    cloud.patch(&account, admin, json!({ "user": { "enabled": false } })).await.expect(200);
    assert!(!works(&cloud, &token).await, "the user was disabled");
    cloud.try_login("ann", "ann's password", "demo").await.expect(401);
    cloud.patch(&account, admin, json!({ "user": { "enabled": true } })).await.expect(200);

    let token = cloud.login("ann", "ann's password", "demo").await;
    cloud.patch(&account, admin, json!({ "user": { "password": "another" } })).await.expect(200);
    assert!(!works(&cloud, &token).await, "the password was reset");
    let token = cloud.login("ann", "another", "demo").await;
    cloud.delete(&account, admin).await.expect(204);
    assert!(!works(&cloud, &token).await, "the user is gone");
    assert!(works(&cloud, demo).await, "nothing of this concerned demo");
}

#[tokio::test]
async fn disabling_and_deleting_a_project_voids_the_tokens_for_it() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let token = cloud.demo().await;
    let unscoped = authenticate(&cloud, password("demo", cloud.demo_password()), json!("unscoped")).await;
    let unscoped = unscoped.header("x-subject-token").to_owned();
    let path = format!("/identity/v3/projects/{}", cloud.id_of("projects", "demo").await);
    cloud.patch(&path, admin, json!({ "project": { "enabled": false } })).await.expect(200);
    assert!(!works(&cloud, token).await);
    assert!(works(&cloud, &unscoped).await);
    cloud.try_login("demo", cloud.demo_password(), "demo").await.expect(401);
    cloud.patch(&path, admin, json!({ "project": { "enabled": true } })).await.expect(200);
    let token = cloud.login("demo", cloud.demo_password(), "demo").await;
    cloud.delete(&path, admin).await.expect(204);
    assert!(!works(&cloud, &token).await);
    assert!(works(&cloud, &unscoped).await);
}

#[tokio::test]
async fn a_user_changes_its_password_and_reuses_none() {
    let cloud = Cloud::start().await;
    let user = cloud.person("ann", "demo", "member").await;
    let path = format!("/identity/v3/users/{user}/password");
    let first = "ann's password".to_owned();
    let old = cloud.login("ann", &first, "demo").await;
    let change = |from: &str, to: &str| json!({ "user": { "original_password": from, "password": to } });
    cloud.post(&path, &old, change("wrong", "second")).await.expect(401);
    cloud.post(&path, &old, change(&first, "")).await.expect(400);
    cloud.post(&path, &old, change(&first, &"x".repeat(4097))).await.expect(400);
    cloud.post(&path, &old, change(&first, "second")).await.expect(204);
    assert!(!works(&cloud, &old).await);
    cloud.try_login("ann", &first, "demo").await.expect(401);
    let token = cloud.login("ann", "second", "demo").await;
    cloud.post(&path, &token, change("second", "second")).await.expect(400);
    cloud.post(&path, &token, change("second", &first)).await.expect(400);
    cloud.post(&path, &token, change("second", "third")).await.expect(204);
    let token = cloud.login("ann", "third", "demo").await;
    cloud.post(&path, &token, change("third", &first)).await.expect(204);
}

#[tokio::test]
async fn too_many_wrong_passwords_lock_a_user_for_a_while() {
    let cloud = Cloud::with(|config| {
        config.lockout_failures = 2;
        config.lockout_s = 2;
    })
    .await;
    cloud.try_login("demo", "wrong", "demo").await.expect(401);
    cloud.login("demo", cloud.demo_password(), "demo").await;
    cloud.try_login("demo", "wrong", "demo").await.expect(401);
    cloud.try_login("demo", "wrong", "demo").await.expect(401);
    cloud.try_login("demo", cloud.demo_password(), "demo").await.expect(401);
    let deadline = Instant::now() + Duration::from_secs(10);
    while cloud.try_login("demo", cloud.demo_password(), "demo").await.status != 201 {
        assert!(Instant::now() < deadline, "the lock does not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cloud.try_login("demo", "wrong", "demo").await.expect(401);
    cloud.login("demo", cloud.demo_password(), "demo").await;
}

#[tokio::test]
async fn another_replica_learns_of_it_and_so_does_a_restart() {
    let cloud = Cloud::start().await;
    let keys = cloud.folder().join("keys");
    let open = || Identity::open(cloud.store.clone(), &keys, IdentityConfig::new((*cloud.app.endpoint).clone()));
    let replica = open().await.unwrap();
    let token = cloud.login("demo", cloud.demo_password(), "demo").await;
    assert!(replica.verify(&token).is_ok());
    cloud.app.identity.keys_rotate().unwrap();
    let newer = cloud.login("demo", cloud.demo_password(), "demo").await;
    assert!(replica.verify(&newer).is_ok(), "the key was staged");
    let ended = cloud.send("DELETE", super::TOKENS, &token, &[("x-subject-token", &token)], "").await;
    ended.expect(204);
    let restarted = open().await.unwrap();
    assert!(restarted.verify(&token).is_err() && restarted.verify(&newer).is_ok());
    let deadline = Instant::now() + Duration::from_secs(10);
    while replica.verify(&token).is_ok() {
        assert!(Instant::now() < deadline, "the other replica does not learn of it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(replica.verify(&newer).is_ok());
    show(&cloud, &newer).await.expect(200);
}

#[tokio::test]
async fn an_expired_password_opens_nothing_but_its_own_change() {
    let cloud = Cloud::with(|config| config.password_expires_days = 30).await;
    let user = cloud.person("ann", "demo", "member").await;
    cloud.login("ann", "ann's password", "demo").await;
    let id = user.parse().unwrap();
    let login = cloud.store.user_login(UserKey::Id(id)).await.unwrap().unwrap();
    let hash = login.password_hash.as_deref();
    let long_ago = Timestamp::now().plus_seconds(-31 * 24 * 3600);
    let tx = cloud.store.begin_unaudited().await.unwrap();
    assert!(tx.user_password_set(id, hash, hash, &[], long_ago).await.unwrap());
    tx.commit().await.unwrap();
    cloud.try_login("ann", "ann's password", "demo").await.expect(401);
    let body = json!({ "user": { "original_password": "ann's password", "password": "another" } });
    cloud.post(&format!("/identity/v3/users/{user}/password"), "", body).await.expect(204);
    cloud.login("ann", "another", "demo").await;
}
