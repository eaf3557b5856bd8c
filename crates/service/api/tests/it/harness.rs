//! A cloud in this process: the whole route table over a fresh SQLite database, and people who log in to it.

use arcus_api::{App, Endpoint};
use arcus_engine::{Engine, EngineConfig};
use arcus_identity::{BootstrapPasswords, Identity, IdentityConfig};
use arcus_store::Store;
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::OnceCell;
use tower::ServiceExt;

/// Where clients would reach the cloud.
pub const URL: &str = "https://cloud.test:8774";

/// A cloud. Its files go with it.
pub struct Cloud {
    /// What all handlers share: the store, the engine, identity.
    pub app: App,
    /// The database.
    pub store: Store,
    router: Router,
    passwords: BootstrapPasswords,
    admin: OnceCell<String>,
    demo: OnceCell<String>,
    reader: OnceCell<String>,
    stranger: OnceCell<String>,
    folder: tempfile::TempDir,
}

/// What the cloud said.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as JSON; `Null` if it is empty or not JSON.
    pub json: Value,
    /// The body as it came.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The body, provided that the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.json);
        self.json
    }

    /// A header's text.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name}")).to_str().unwrap()
    }
}

impl Cloud {
    /// A fresh, bootstrapped cloud.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A fresh, bootstrapped cloud with other settings of identity.
    pub async fn with(change: impl FnOnce(&mut IdentityConfig)) -> Self {
        let (store, folder) = arcus_store::testing::sqlite().await;
        let passwords = BootstrapPasswords::random();
        assert!(Identity::bootstrap(&store, &passwords).await.unwrap());
        let endpoint = Endpoint { url: URL.to_owned(), region: "RegionOne".to_owned() };
        let mut config = IdentityConfig::new(endpoint.clone());
        change(&mut config);
        let identity = Identity::open(store.clone(), &folder.path().join("keys"), config).await.unwrap();
        let engine = Engine::new(store.clone(), EngineConfig::under(folder.path()));
        let app = App { engine, identity, endpoint: Arc::new(endpoint) };
        Self {
            router: arcus_api::router(app.clone(), arcus_api::routes()),
            app,
            store,
            passwords,
            admin: OnceCell::new(),
            demo: OnceCell::new(),
            reader: OnceCell::new(),
            stranger: OnceCell::new(),
            folder,
        }
    }

    /// One request with a JSON body, or none for `Null`. `token` may be empty: then nobody has signed it.
    pub async fn call(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        self.send(method, path, token, &[("content-type", "application/json")], bytes).await
    }

    /// One request with its own headers and any body.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        if !token.is_empty() {
            request = request.header("x-auth-token", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.request(request.body(body.into()).unwrap()).await
    }

    /// One request as it is.
    pub async fn request(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, json, bytes }
    }

    /// `GET`.
    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.call("GET", path, token, Value::Null).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call("POST", path, token, body).await
    }

    /// `PUT`.
    pub async fn put(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call("PUT", path, token, body).await
    }

    /// `PATCH`.
    pub async fn patch(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call("PATCH", path, token, body).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str, token: &str) -> Answer {
        self.call("DELETE", path, token, Value::Null).await
    }

    /// A token of `admin` in project `admin`.
    pub async fn admin(&self) -> &str {
        self.admin.get_or_init(|| self.login("admin", &self.passwords.admin, "admin")).await
    }

    /// A token of `demo`, a member of project `demo`.
    pub async fn demo(&self) -> &str {
        self.demo.get_or_init(|| self.login("demo", &self.passwords.demo, "demo")).await
    }

    /// A token of `reader`, a reader of project `demo`.
    pub async fn reader(&self) -> &str {
        let make = async || {
            self.person("reader", "demo", "reader").await;
            self.login("reader", "reader's password", "demo").await
        };
        self.reader.get_or_init(make).await
    }

    /// A token of `stranger`, a member of another project: `elsewhere`.
    pub async fn stranger(&self) -> &str {
        let make = async || {
            let project = json!({ "project": { "name": "elsewhere" } });
            self.post("/identity/v3/projects", self.admin().await, project).await.expect(201);
            self.person("stranger", "elsewhere", "member").await;
            self.login("stranger", "stranger's password", "elsewhere").await
        };
        self.stranger.get_or_init(make).await
    }

    /// Where its files are.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The password of `admin`.
    pub fn admin_password(&self) -> &str {
        &self.passwords.admin
    }

    /// The password of `demo`.
    pub fn demo_password(&self) -> &str {
        &self.passwords.demo
    }

    /// Makes a user of the domain `default`, whose password is `<name>'s password`, with a role on a project; its id.
    pub async fn person(&self, name: &str, project: &str, role: &str) -> String {
        let admin = self.admin().await;
        let user = json!({ "user": { "name": name, "password": format!("{name}'s password") } });
        let user = self.post("/identity/v3/users", admin, user).await.expect(201);
        let user_id = user["user"]["id"].as_str().unwrap().to_owned();
        let (project_id, role_id) = (self.id_of("projects", project).await, self.id_of("roles", role).await);
        let path = format!("/identity/v3/projects/{project_id}/users/{user_id}/roles/{role_id}");
        self.put(&path, admin, Value::Null).await.expect(204);
        user_id
    }

    /// The id of the identity object with this name: `kind` is `projects`, `users`, `roles`, ….
    pub async fn id_of(&self, kind: &str, name: &str) -> String {
        let found = self.get(&format!("/identity/v3/{kind}?name={name}"), self.admin().await).await.expect(200);
        found[kind][0]["id"].as_str().unwrap_or_else(|| panic!("{kind}: no {name}")).to_owned()
    }

    /// A token of a user of the domain `default` in one of its projects.
    pub async fn login(&self, user: &str, password: &str, project: &str) -> String {
        let answer = self.try_login(user, password, project).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json);
        answer.header("x-subject-token").to_owned()
    }

    /// The same, whatever the answer.
    pub async fn try_login(&self, user: &str, password: &str, project: &str) -> Answer {
        let default = json!({ "id": "default" });
        let user = json!({ "name": user, "domain": default, "password": password });
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": user } },
            "scope": { "project": { "name": project, "domain": default } },
        } });
        self.post("/identity/v3/auth/tokens", "", body).await
    }
}
