//! This program as a client of its own cloud.

use crate::daemon::{logins, running_url};
use crate::home::Home;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// The server ends a stream before.
const STREAM_MAX: Duration = Duration::from_secs(900);

/// A client that trusts this cloud's authority.
pub fn http(home: &Home) -> Result<reqwest::Client> {
    let ca = reqwest::Certificate::from_pem(&std::fs::read(home.join("ca/ca.pem"))?)?;
    Ok(reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(CALL_DEADLINE).build()?)
}

/// A session of one user in one project.
pub struct Session {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// What a refusal says, in its own words where it has some.
fn refusal(method: &reqwest::Method, path: &str, status: reqwest::StatusCode, text: &str) -> String {
    let told: Value = serde_json::from_str(text).unwrap_or_default();
    let inner = told.as_object().and_then(|fields| fields.values().find_map(|field| field["message"].as_str()));
    match inner.or(told["message"].as_str()) {
        Some(message) => format!("{message} ({status})"),
        None => format!("{method} {path} was answered with {status}: {text}"),
    }
}

impl Session {
    /// An administrator of the cloud with this home folder, or of the lab with it.
    pub async fn admin(folder: &Path) -> Result<Self> {
        let home = Home::open(folder, false)?;
        let lab = Home::open(&home.join("s"), false).ok().filter(|lab| running_url(lab).is_some());
        let home = lab.unwrap_or(home);
        let url = running_url(&home)
            .with_context(|| format!("no cloud runs with the home folder {}", home.path().display()))?;
        Self::login(&home, &url, "admin", &logins(&home)?.admin_password, "admin").await
    }

    pub async fn login(home: &Home, url: &str, user: &str, password: &str, project: &str) -> Result<Self> {
        let http = http(home)?;
        let default = json!({ "name": "Default" });
        let body = json!({ "auth": {
            "identity": { "methods": ["password"],
                "password": { "user": { "name": user, "domain": default, "password": password } } },
            "scope": { "project": { "name": project, "domain": default } },
        } });
        let answer = http.post(format!("{url}/identity/v3/auth/tokens")).json(&body).send().await?;
        let status = answer.status();
        let token = answer.headers().get("x-subject-token").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let token = token.with_context(|| format!("{user} could not log in: {status}"))?;
        Ok(Self { http, url: url.to_owned(), token })
    }

    pub async fn call(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request =
            self.http.request(method.clone(), format!("{}{path}", self.url)).header("x-auth-token", &self.token);
        if path.starts_with("/compute/") {
            request = request.header("openstack-api-version", "compute 2.37");
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{}", refusal(&method, path, status, &text));
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(reqwest::Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.call(reqwest::Method::POST, path, Some(&body)).await
    }

    /// An answer that comes piece by piece, for as long as the server keeps it open.
    pub async fn stream(&self, path: &str) -> Result<reqwest::Response> {
        let request = self.http.get(format!("{}{path}", self.url)).header("x-auth-token", &self.token);
        let answer = request.timeout(STREAM_MAX).send().await?;
        if !answer.status().is_success() {
            let status = answer.status();
            bail!("{}", refusal(&reqwest::Method::GET, path, status, &answer.text().await.unwrap_or_default()));
        }
        Ok(answer)
    }

    /// The first thing in a list with this name.
    pub async fn find(&self, path: &str, list: &str, name: &str) -> Result<Option<Value>> {
        let answer = self.get(&format!("{path}?name={name}")).await?;
        let found = answer[list].as_array().and_then(|all| all.iter().find(|one| one["name"] == name).cloned());
        Ok(found)
    }

    /// Sends a file's bytes.
    pub async fn upload(&self, path: &str, file: &Path) -> Result<()> {
        let bytes = tokio::fs::File::open(file).await.with_context(|| format!("could not read {}", file.display()))?;
        let stream = tokio_util::io::ReaderStream::with_capacity(bytes, 256 << 10);
        let request = self.http.put(format!("{}{path}", self.url)).header("x-auth-token", &self.token);
        let request = request.header("content-type", "application/octet-stream");
        let answer = request.body(reqwest::Body::wrap_stream(stream)).send().await?;
        if !answer.status().is_success() {
            bail!("{} was not taken: {} {}", file.display(), answer.status(), answer.text().await.unwrap_or_default());
        }
        Ok(())
    }

    /// The thing of the network API with this name; made if there is none.
    pub async fn ensure(&self, kind: &str, name: &str, body: Value) -> Result<Value> {
        let path = format!("/network/v2.0/{}s", kind.replace('_', "-"));
        if let Some(found) = self.find(&path, &format!("{kind}s"), name).await? {
            return Ok(found);
        }
        Ok(self.post(&path, json!({ kind: body })).await?[kind].clone())
    }
}
