//! A client of the public API, logged in as one entry of a cloud's `clouds.yaml`.

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a call may take; uploads may take longer.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
const UPLOAD_DEADLINE: Duration = Duration::from_secs(600);
/// How long the cloud's node may take to be ready for servers.
const NODE_DEADLINE: Duration = Duration::from_secs(60);
/// How much of a file is read and sent at once, in bytes.
const UPLOAD_PIECE_BYTES: usize = 256 << 10;

/// Who is logged in, and where.
#[derive(Clone)]
pub struct Session {
    http: reqwest::Client,
    url: String,
    /// What it shows.
    pub token: String,
    /// The project that the session acts in.
    pub project: String,
    /// The version of the compute API that it speaks.
    pub compute: &'static str,
}

impl Session {
    /// Logs in as `arcus` (a project member) or `arcus-admin`.
    pub async fn login(home: &Path, url: &str, entry: &str) -> Result<Self> {
        let clouds = std::fs::read_to_string(home.join("clouds.yaml"))?;
        let (_, settings) = clouds.split_once(&format!("\n  {entry}:\n")).context("no such entry in clouds.yaml")?;
        let setting = |name: &str| {
            let mut values = settings.lines().filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
            values.next().with_context(|| format!("{name} is missing in clouds.yaml"))
        };
        let ca = reqwest::Certificate::from_pem(&std::fs::read(setting("cacert")?)?)?;
        // The OpenStack clients speak HTTP/1.1.
        let http = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().http1_only().build()?;
        let default = json!({ "name": "Default" });
        let user = json!({ "name": setting("username")?, "domain": default, "password": setting("password")? });
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": user } },
            "scope": { "project": { "name": setting("project_name")?, "domain": default } },
        } });
        let answer = http.post(format!("{url}/identity/v3/auth/tokens")).json(&body).send().await?;
        let status = answer.status();
        let token = answer.headers().get("x-subject-token").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let token = token.with_context(|| format!("{entry} could not log in: {status}"))?;
        let told: Value = answer.json().await?;
        let project = told["token"]["project"]["id"].as_str().context("the token names no project")?.to_owned();
        // The first version in which a server may ask for no network.
        Ok(Self { http, url: url.to_owned(), token, project, compute: "compute 2.37" })
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url)).header("x-auth-token", &self.token);
        request.header("openstack-api-version", self.compute)
    }

    /// The answer to a call, whatever it is; an error is that none came.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let mut request = self.request(method, path).timeout(CALL_DEADLINE);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// The answer to a call that must succeed.
    pub async fn ok(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.call(method.clone(), path, body).await?;
        ensure!(status.is_success(), "{method} {path} was answered with {status}: {answer}");
        Ok(answer)
    }

    /// Makes an image of a file; answers its id.
    pub async fn image_upload(&self, name: &str, disk_format: &str, file: &Path) -> Result<String> {
        let body = json!({ "name": name, "disk_format": disk_format, "container_format": "bare" });
        let image = id(&self.ok(Method::POST, "/image/v2/images", Some(&body)).await?)?;
        let file = tokio::fs::File::open(file).await.with_context(|| format!("could not open {}", file.display()))?;
        let length = file.metadata().await?.len();
        let stream = tokio_util::io::ReaderStream::with_capacity(file, UPLOAD_PIECE_BYTES);
        let request = self.request(Method::PUT, &format!("/image/v2/images/{image}/file")).timeout(UPLOAD_DEADLINE);
        let request = request.header("content-type", "application/octet-stream").header("content-length", length);
        let answer = request.body(reqwest::Body::wrap_stream(stream)).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "the image was not taken: {status}: {}", answer.text().await?);
        Ok(image)
    }

    /// Waits until the cloud has a node for servers. Only an administrator sees it.
    pub async fn node_ready(&self) -> Result<()> {
        let deadline = Instant::now() + NODE_DEADLINE;
        loop {
            let answer = self.ok(Method::GET, "/compute/v2.1/os-hypervisors/detail", None).await?;
            if answer["hypervisors"].as_array().is_some_and(|all| all.iter().any(|one| one["state"] == "up")) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("no node is ready: {answer}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The id that an answer gives.
pub fn id(answer: &Value) -> Result<String> {
    answer["id"].as_str().map(str::to_owned).with_context(|| format!("an answer has no id: {answer}"))
}
