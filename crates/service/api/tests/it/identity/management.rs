//! Domains, projects, users, groups, roles and assignments.

use super::{authenticate, names, password};
use crate::harness::{Cloud, URL};
use serde_json::{Value, json};

/// Makes one object and gives its id.
async fn make(cloud: &Cloud, token: &str, kind: &str, body: Value) -> String {
    let made = cloud.post(&format!("/identity/v3/{kind}s"), token, json!({ kind: body })).await.expect(201);
    made[kind]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn projects_are_made_found_changed_and_deleted() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let made = json!({ "project": { "name": "lab", "description": "a place", "domain_id": "default" } });
    let made = cloud.post("/identity/v3/projects", admin, made).await.expect(201);
    let id = made["project"]["id"].as_str().unwrap();
    assert_eq!(
        made["project"],
        json!({ "id": id, "name": "lab", "domain_id": "default", "parent_id": "default", "description": "a place",
            "enabled": true, "is_domain": false, "tags": [], "options": {},
            "links": { "self": format!("{URL}/identity/v3/projects/{id}") } })
    );
    cloud.post("/identity/v3/projects", admin, json!({ "project": { "name": "lab" } })).await.expect(409);
    cloud.post("/identity/v3/projects", admin, json!({ "project": { "name": "" } })).await.expect(400);
    cloud.post("/identity/v3/projects", admin, json!({ "project": { "name": "x".repeat(256) } })).await.expect(400);
    let path = format!("/identity/v3/projects/{id}");
    let changed = cloud.patch(&path, admin, json!({ "project": { "name": "lab2", "description": null } })).await;
    let changed = changed.expect(200);
    assert_eq!((&changed["project"]["name"], &changed["project"]["description"]), (&json!("lab2"), &json!("")));
    cloud.patch(&path, admin, json!({ "project": { "domain_id": "0".repeat(31) + "1" } })).await.expect(400);
    let child = make(&cloud, admin, "project", json!({ "name": "child", "parent_id": id })).await;
    let below = cloud.get(&format!("/identity/v3/projects?parent_id={id}"), admin).await.expect(200);
    assert_eq!(names(&below["projects"]), ["child"]);
    cloud.delete(&path, admin).await.expect(403);
    cloud.patch(&path, admin, json!({ "project": { "enabled": false } })).await.expect(403);
    cloud.delete(&format!("/identity/v3/projects/{child}"), admin).await.expect(204);
    cloud.delete(&path, admin).await.expect(204);
    cloud.get(&path, admin).await.expect(404);
    cloud.get("/identity/v3/projects/lab2", admin).await.expect(404);
}

#[tokio::test]
async fn projects_lie_only_so_deep() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let mut parent = String::from("default");
    for depth in 1..=5 {
        let name = format!("p{depth}");
        parent = make(&cloud, admin, "project", json!({ "name": name, "parent_id": parent })).await;
    }
    let deeper = json!({ "project": { "name": "p6", "parent_id": parent } });
    cloud.post("/identity/v3/projects", admin, deeper).await.expect(403);
}

#[tokio::test]
async fn users_are_made_found_changed_and_deleted() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let project = cloud.id_of("projects", "demo").await;
    let new = json!({ "name": "ada", "email": "ada@example.org", "default_project_id": project, "password": "secret" });
    let id = make(&cloud, admin, "user", new).await;
    let path = format!("/identity/v3/users/{id}");
    let user = cloud.get(&path, admin).await.expect(200);
    assert_eq!(
        user["user"],
        json!({ "id": id, "name": "ada", "domain_id": "default", "email": "ada@example.org", "enabled": true,
            "default_project_id": project, "password_expires_at": null, "options": {},
            "links": { "self": format!("{URL}/identity/v3/users/{id}") } })
    );
    let unscoped = authenticate(&cloud, password("ada", "secret"), Value::Null).await.expect(201);
    assert!(unscoped["token"].get("project").is_none(), "a default project without a role there has no effect");
    let change = json!({ "user": { "name": "ada l", "email": null, "password": "other" } });
    let changed = cloud.patch(&path, admin, change).await.expect(200);
    assert!(changed["user"].get("email").is_none());
    authenticate(&cloud, password("ada l", "secret"), Value::Null).await.expect(401);
    authenticate(&cloud, password("ada l", "other"), Value::Null).await.expect(201);
    let found = cloud.get("/identity/v3/users?name=ada%20l&domain_id=default&enabled=True", admin).await.expect(200);
    assert_eq!(names(&found["users"]), ["ada l"]);
    cloud.delete(&path, admin).await.expect(204);
    authenticate(&cloud, password("ada l", "other"), Value::Null).await.expect(401);
}

#[tokio::test]
async fn long_lists_come_in_pages_that_link_to_the_next() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    for n in 0..5 {
        make(&cloud, admin, "user", json!({ "name": format!("user{n}") })).await;
    }
    let (mut path, mut seen) = ("/identity/v3/users?limit=3&domain_id=default".to_owned(), Vec::new());
    loop {
        let page = cloud.get(&path, admin).await.expect(200);
        seen.extend(names(&page["users"]).into_iter().map(str::to_owned));
        let Some(next) = page["links"]["next"].as_str() else { break };
        path = next.strip_prefix(URL).unwrap().to_owned();
    }
    // The second that may be more is the look at what other replicas have revoked.
    let before = cloud.store.queries();
    cloud.get("/identity/v3/users", admin).await.expect(200);
    assert!(cloud.store.queries() - before <= 2, "one query for a list of any length");
    seen.sort_unstable();
    assert_eq!(seen, ["admin", "demo", "user0", "user1", "user2", "user3", "user4"]);
    cloud.get("/identity/v3/users?limit=0", admin).await.expect(400);
}

#[tokio::test]
async fn a_domain_is_a_name_space_and_goes_with_all_that_it_holds() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let domain = make(&cloud, admin, "domain", json!({ "name": "acme", "description": "a company" })).await;
    let project = make(&cloud, admin, "project", json!({ "name": "demo", "domain_id": domain })).await;
    let user = make(&cloud, admin, "user", json!({ "name": "demo", "domain_id": domain, "password": "acme" })).await;
    let group = make(&cloud, admin, "group", json!({ "name": "all", "domain_id": domain })).await;
    cloud.put(&format!("/identity/v3/groups/{group}/users/{user}"), admin, Value::Null).await.expect(204);
    let role = cloud.id_of("roles", "member").await;
    let path = format!("/identity/v3/projects/{project}/groups/{group}/roles/{role}");
    cloud.put(&path, admin, Value::Null).await.expect(204);
    let who = json!({ "methods": ["password"],
        "password": { "user": { "name": "demo", "domain": { "name": "acme" }, "password": "acme" } } });
    let into = json!({ "project": { "name": "demo", "domain": { "id": domain } } });
    let answer = authenticate(&cloud, who, into).await;
    let token = answer.header("x-subject-token").to_owned();
    assert_eq!(answer.expect(201)["token"]["project"]["domain"]["name"], "acme");
    let path = format!("/identity/v3/domains/{domain}");
    cloud.delete(&path, admin).await.expect(403);
    let off = cloud.patch(&path, admin, json!({ "domain": { "enabled": false } })).await.expect(200);
    assert_eq!(off["domain"]["enabled"], false);
    cloud.get("/identity/v3/auth/projects", &token).await.expect(401);
    cloud.delete(&path, admin).await.expect(204);
    cloud.get(&format!("/identity/v3/users/{user}"), admin).await.expect(404);
    cloud.get(&format!("/identity/v3/projects/{project}"), admin).await.expect(404);
    cloud.get(&format!("/identity/v3/groups/{group}"), admin).await.expect(404);
    cloud.patch("/identity/v3/domains/default", admin, json!({ "domain": { "enabled": false } })).await.expect(403);
    let found = cloud.get("/identity/v3/domains?name=Default", admin).await.expect(200);
    assert_eq!(found["domains"][0]["id"], "default");
}

#[tokio::test]
async fn groups_hold_users_and_give_them_roles() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let group = make(&cloud, admin, "group", json!({ "name": "staff", "description": "x" })).await;
    let (user, other) = (cloud.id_of("users", "demo").await, cloud.id_of("users", "admin").await);
    let member = format!("/identity/v3/groups/{group}/users/{user}");
    cloud.call("HEAD", &member, admin, Value::Null).await.expect(404);
    cloud.put(&member, admin, Value::Null).await.expect(204);
    cloud.put(&member, admin, Value::Null).await.expect(204);
    cloud.call("HEAD", &member, admin, Value::Null).await.expect(204);
    let demo = cloud.login("demo", cloud.demo_password(), "demo").await;
    cloud.call("HEAD", &member, &demo, Value::Null).await.expect(204);
    cloud.call("HEAD", &format!("/identity/v3/groups/{group}/users/{other}"), &demo, Value::Null).await.expect(403);
    let users = cloud.get(&format!("/identity/v3/groups/{group}/users"), admin).await.expect(200);
    assert_eq!(names(&users["users"]), ["demo"]);
    let groups = cloud.get(&format!("/identity/v3/users/{user}/groups"), &demo).await.expect(200);
    assert_eq!(names(&groups["groups"]), ["staff"]);
    let (project, role) = (cloud.id_of("projects", "admin").await, cloud.id_of("roles", "reader").await);
    let held = format!("/identity/v3/projects/{project}/groups/{group}/roles/{role}");
    cloud.put(&held, admin, Value::Null).await.expect(204);
    cloud.login("demo", cloud.demo_password(), "admin").await;
    let path = format!("/identity/v3/groups/{group}");
    let changed = cloud.patch(&path, admin, json!({ "group": { "name": "crew" } })).await.expect(200);
    assert_eq!((&changed["group"]["name"], &changed["group"]["description"]), (&json!("crew"), &json!("x")));
    cloud.delete(&path, admin).await.expect(204);
    cloud.try_login("demo", cloud.demo_password(), "admin").await.expect(401);
    cloud.get("/identity/v3/auth/projects", &demo).await.expect(401);
}

#[tokio::test]
async fn built_in_roles_stay_and_others_come_and_go() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let roles = cloud.get("/identity/v3/roles", cloud.demo().await).await.expect(200);
    let mut all = names(&roles["roles"]);
    all.sort_unstable();
    assert_eq!(all, ["admin", "manager", "member", "reader", "service"]);
    let reader = cloud.id_of("roles", "reader").await;
    let path = format!("/identity/v3/roles/{reader}");
    cloud.delete(&path, admin).await.expect(403);
    cloud.patch(&path, admin, json!({ "role": { "name": "x" } })).await.expect(403);
    let custom = make(&cloud, admin, "role", json!({ "name": "auditor" })).await;
    cloud.post("/identity/v3/roles", admin, json!({ "role": { "name": "auditor" } })).await.expect(409);
    let path = format!("/identity/v3/roles/{custom}");
    let changed = cloud.patch(&path, admin, json!({ "role": { "description": "looks" } })).await.expect(200);
    assert_eq!((&changed["role"]["name"], &changed["role"]["description"]), (&json!("auditor"), &json!("looks")));
    let user = cloud.person("ann", "demo", "auditor").await;
    let token = cloud.login("ann", "ann's password", "demo").await;
    cloud.get(&format!("/identity/v3/users/{user}"), &token).await.expect(200);
    let project = cloud.id_of("projects", "demo").await;
    cloud.get(&format!("/identity/v3/projects/{project}"), &token).await.expect(403);
    cloud.delete(&path, admin).await.expect(204);
    cloud.get(&format!("/identity/v3/users/{user}"), &token).await.expect(401);
    let member = cloud.id_of("roles", "member").await;
    let implied = cloud.get(&format!("/identity/v3/roles/{member}/implies"), admin).await.expect(200);
    assert_eq!(names(&implied["role_inference"]["implies"]), ["reader"]);
    cloud.get(&format!("/identity/v3/roles/{member}/implies/{reader}"), admin).await.expect(200);
    cloud.get(&format!("/identity/v3/roles/{reader}/implies/{member}"), admin).await.expect(404);
    let inferences = cloud.get("/identity/v3/role_inferences", admin).await.expect(200);
    assert_eq!(inferences["role_inferences"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn assignments_are_listed_as_given_and_as_effective() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let (user, project) = (cloud.id_of("users", "demo").await, cloud.id_of("projects", "demo").await);
    let (member, reader) = (cloud.id_of("roles", "member").await, cloud.id_of("roles", "reader").await);
    let path = format!("/identity/v3/role_assignments?user.id={user}&include_names=True");
    let given = cloud.get(&path, admin).await.expect(200);
    let domain = json!({ "id": "default", "name": "Default" });
    assert_eq!(
        given["role_assignments"],
        json!([{
            "role": { "id": member, "name": "member" },
            "user": { "id": user, "name": "demo", "domain": domain },
            "scope": { "project": { "id": project, "name": "demo", "domain": domain } },
            "links": { "assignment": format!("{URL}/identity/v3/projects/{project}/users/{user}/roles/{member}") },
        }])
    );
    let group = make(&cloud, admin, "group", json!({ "name": "staff" })).await;
    cloud.put(&format!("/identity/v3/groups/{group}/users/{user}"), admin, Value::Null).await.expect(204);
    let held = format!("/identity/v3/system/groups/{group}/roles/{reader}");
    cloud.put(&held, admin, Value::Null).await.expect(204);
    cloud.call("HEAD", &held, admin, Value::Null).await.expect(204);
    let roles = cloud.get(&format!("/identity/v3/system/groups/{group}/roles"), admin).await.expect(200);
    assert_eq!(names(&roles["roles"]), ["reader"]);
    let path = format!("/identity/v3/role_assignments?user.id={user}&effective");
    let effective = cloud.get(&path, admin).await.expect(200);
    let effective = effective["role_assignments"].as_array().unwrap().clone();
    assert_eq!(effective.len(), 3, "member, its reader, and the group's reader: {effective:?}");
    let through = effective.iter().find(|a| a["scope"]["system"]["all"] == true).unwrap();
    assert_eq!(through["user"]["id"], json!(user));
    assert_eq!(through["links"]["membership"], format!("{URL}/identity/v3/groups/{group}/users/{user}"));
    let own = cloud.get(&path, cloud.demo().await).await.expect(200);
    assert_eq!(own["role_assignments"].as_array().unwrap().len(), 3);
    cloud.get("/identity/v3/role_assignments", cloud.demo().await).await.expect(403);
    let system = cloud.get("/identity/v3/role_assignments?scope.system=all", admin).await.expect(200);
    assert_eq!(system["role_assignments"].as_array().unwrap().len(), 2);
    cloud.delete(&held, admin).await.expect(204);
    cloud.delete(&held, admin).await.expect(404);
    let nobody = "0b8c6c5ea1f24c1c8b4a3f2d1e0c9b8a";
    let path = format!("/identity/v3/projects/{project}/users/{nobody}/roles/{member}");
    cloud.put(&path, admin, Value::Null).await.expect(404);
    let path = format!("/identity/v3/projects/{project}/users/{user}/roles/{nobody}");
    cloud.put(&path, admin, Value::Null).await.expect(404);
}

/// A cloud with a domain `acme`, a manager of it, and the manager's token for it.
async fn managed(cloud: &Cloud) -> (String, String, String) {
    let admin = cloud.admin().await;
    let domain = make(cloud, admin, "domain", json!({ "name": "acme" })).await;
    let boss = make(cloud, admin, "user", json!({ "name": "boss", "domain_id": domain, "password": "boss" })).await;
    let role = cloud.id_of("roles", "manager").await;
    let path = format!("/identity/v3/domains/{domain}/users/{boss}/roles/{role}");
    cloud.put(&path, admin, Value::Null).await.expect(204);
    let who = json!({ "methods": ["password"], "password": { "user": { "id": boss, "password": "boss" } } });
    let answer = authenticate(cloud, who, json!({ "domain": { "id": domain } })).await;
    (domain, boss, answer.header("x-subject-token").to_owned())
}

#[tokio::test]
async fn a_manager_manages_its_domain_and_sees_no_other() {
    let cloud = Cloud::start().await;
    let (domain, boss, manager) = managed(&cloud).await;
    let project = make(&cloud, &manager, "project", json!({ "name": "p" })).await;
    let user = make(&cloud, &manager, "user", json!({ "name": "u", "password": "first" })).await;
    let group = make(&cloud, &manager, "group", json!({ "name": "g" })).await;
    cloud.put(&format!("/identity/v3/groups/{group}/users/{user}"), &manager, Value::Null).await.expect(204);
    for (name, status) in [("reader", 204), ("member", 204), ("manager", 204), ("admin", 403), ("service", 403)] {
        let role = cloud.id_of("roles", name).await;
        for actor in [format!("users/{user}"), format!("groups/{group}")] {
            let path = format!("/identity/v3/projects/{project}/{actor}/roles/{role}");
            cloud.put(&path, &manager, Value::Null).await.expect(status);
        }
        let path = format!("/identity/v3/system/users/{boss}/roles/{role}");
        cloud.put(&path, &manager, Value::Null).await.expect(403);
    }
    let users = cloud.get("/identity/v3/users", &manager).await.expect(200);
    assert_eq!(names(&users["users"]).len(), 2);
    assert_eq!(names(&cloud.get("/identity/v3/domains", &manager).await.expect(200)["domains"]), ["acme"]);
    cloud.get("/identity/v3/users?domain_id=default", &manager).await.expect(403);
    let assignments = cloud.get("/identity/v3/role_assignments", &manager).await.expect(200);
    assert_eq!(assignments["role_assignments"].as_array().unwrap().len(), 7, "six in its project, its own");
    let change = json!({ "user": { "password": "second" } });
    cloud.patch(&format!("/identity/v3/users/{user}"), &manager, change.clone()).await.expect(200);
    let demo = cloud.id_of("users", "demo").await;
    cloud.patch(&format!("/identity/v3/users/{demo}"), &manager, change).await.expect(404);
    cloud.put(&format!("/identity/v3/groups/{group}/users/{demo}"), &manager, Value::Null).await.expect(404);
    let other = json!({ "user": { "name": "x", "domain_id": "default" } });
    cloud.post("/identity/v3/users", &manager, other).await.expect(404);
    cloud
        .patch(&format!("/identity/v3/domains/{domain}"), &manager, json!({ "domain": { "name": "x" } }))
        .await
        .expect(403);
}

#[tokio::test]
async fn a_manager_takes_over_nobody_who_reaches_beyond_its_domain() {
    let cloud = Cloud::start().await;
    let admin = cloud.admin().await;
    let (domain, boss, manager) = managed(&cloud).await;
    let chief = make(&cloud, admin, "user", json!({ "name": "chief", "domain_id": domain, "password": "x" })).await;
    let role = cloud.id_of("roles", "admin").await;
    let project = cloud.id_of("projects", "demo").await;
    let guest = make(&cloud, admin, "user", json!({ "name": "guest", "domain_id": domain, "password": "x" })).await;
    let member = cloud.id_of("roles", "member").await;
    let strong = make(&cloud, admin, "group", json!({ "name": "strong", "domain_id": domain })).await;
    for path in [
        format!("system/users/{chief}/roles/{role}"),
        format!("projects/{project}/users/{guest}/roles/{member}"),
        format!("domains/{domain}/groups/{strong}/roles/{role}"),
    ] {
        cloud.put(&format!("/identity/v3/{path}"), admin, Value::Null).await.expect(204);
    }
    for user in [&chief, &guest] {
        let path = format!("/identity/v3/users/{user}");
        cloud.patch(&path, &manager, json!({ "user": { "password": "mine now" } })).await.expect(403);
        cloud.delete(&path, &manager).await.expect(403);
    }
    cloud.put(&format!("/identity/v3/groups/{strong}/users/{boss}"), &manager, Value::Null).await.expect(403);
}
