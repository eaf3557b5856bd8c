//! How fast the API answers, over TLS, asked by 16 clients on the same machine: a cloud that pretends to have nodes.

use crate::arcus::Arcus;
use crate::load::{CLIENTS, Client, Load, Target, request};
use crate::measurement;
use crate::session::{Session, id};
use anyhow::{Context as _, Result, ensure};
use arcus_store::{NodeNew, Store};
use arcus_types::NodeId;
use arcus_types::agent::NodeFacts;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Servers in the lists.
const SERVERS: usize = 1_000;
/// So many servers are asked for at once.
const BATCH: usize = 100;
const NODES: usize = 10_000;
const ACTIVE_DEADLINE: Duration = Duration::from_secs(120);
/// The slowest one of a hundred requests may take so many times what the middle one takes.
const SPREAD_GOAL: f64 = 10.0;

/// A cloud under load.
pub struct Site {
    pub cloud: Arcus,
    pub admin: Session,
    pub target: Target,
    pub member_token: String,
    admin_token: String,
    login: String,
}

impl Site {
    async fn up() -> Result<Self> {
        let mut cloud = Arcus::new("speed", true)?;
        cloud.start().await?;
        Self::of(cloud).await
    }

    pub async fn of(cloud: Arcus) -> Result<Self> {
        let admin = Session::login(&cloud.home, &cloud.url, "arcus-admin").await?;
        let member = Session::login(&cloud.home, &cloud.url, "arcus").await?;
        let target = Target::new(&cloud.home, &cloud.url)?;
        let (member_token, admin_token) = (member.token.clone(), admin.token.clone());
        let login = login(&cloud.home)?;
        let site = Self { cloud, admin, target, member_token, admin_token, login };
        let quota = json!({ "quota_set": { "instances": -1, "cores": -1, "ram": -1 } });
        let path = format!("/compute/v2.1/os-quota-sets/{}", member.project);
        site.admin.ok(Method::PUT, &path, Some(&quota)).await?;
        let quota = json!({ "quota": { "port": -1, "network": -1 } });
        site.admin.ok(Method::PUT, &format!("/network/v2.0/quotas/{}", member.project), Some(&quota)).await?;
        Ok(site)
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let headers = [("x-auth-token", self.member_token.as_str()), ("openstack-api-version", "compute 2.96")];
        request("GET", path, &headers, "")
    }

    /// A call by the project's member that must succeed.
    pub async fn ask(&self, client: &mut Client, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("x-auth-token", self.member_token.as_str()), ("openstack-api-version", "compute 2.96")];
        let answer = client.ask(&request(method, path, &headers, &body)).await?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status < 300, "{method} {path} was answered with {}: {text}", answer.status);
        Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    pub async fn network(&self, client: &mut Client, cidr: &str) -> Result<String> {
        let body = json!({ "network": { "name": "speed" } });
        let network = id(&self.ask(client, "POST", "/network/v2.0/networks", &body).await?["network"])?;
        let body = json!({ "subnet": { "network_id": network, "ip_version": 4, "cidr": cidr } });
        self.ask(client, "POST", "/network/v2.0/subnets", &body).await?;
        Ok(network)
    }
}

/// Tells a rate and how far the slowest requests lie from the middle one.
fn told(name: &str, load: &Load, goal: f64) {
    let (p50, p99) = (load.quantile_ms(0.5), load.quantile_ms(0.99));
    eprintln!("  {name}: {:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms, {CLIENTS} clients", load.per_second());
    measurement::at_least(name, load.per_second(), goal, "/s");
    measurement::compared(&format!("{name}_spread"), p99 / 1e3, p50 / 1e3, "p50", SPREAD_GOAL);
}

/// Tokens: validated, made of one another, and made of a password.
pub async fn tokens() -> Result<()> {
    let site = Site::up().await?;
    let headers = [("x-auth-token", site.admin_token.as_str()), ("x-subject-token", site.member_token.as_str())];
    let bytes = request("GET", "/identity/v3/auth/tokens", &headers, "");
    let again = bytes.clone();
    site.target.load(2_000, 200, move |_| again.clone()).await?;
    told("token_validate", &site.target.load(50_000, 200, move |_| bytes.clone()).await?, 10_000.0);

    let body = json!({ "auth": { "identity": { "methods": ["token"], "token": { "id": site.member_token } } } });
    let mut body = body;
    let project: Value = serde_json::from_str(&site.login)?;
    body["auth"]["scope"] = project["auth"]["scope"].clone();
    let bytes = request("POST", "/identity/v3/auth/tokens", &[], &body.to_string());
    let again = bytes.clone();
    site.target.load(1_000, 201, move |_| again.clone()).await?;
    told("token_by_token", &site.target.load(25_000, 201, move |_| bytes.clone()).await?, 5_000.0);

    let bytes = request("POST", "/identity/v3/auth/tokens", &[], &site.login);
    let mut client = site.target.connect().await?;
    let (mut ours, mut hash) = (Vec::new(), Vec::new());
    for _ in 0..41 {
        let began = Instant::now();
        let answer = client.ask(&bytes).await?;
        ours.push(began.elapsed());
        ensure!(answer.status == 201, "a log-in was answered with {}", answer.status);
        hash.push(tokio::task::spawn_blocking(one_hash).await??);
    }
    let ours = measurement::median_s("log-in", &ours)?;
    measurement::compared("token_password", ours, measurement::median_s("argon2", &hash)?, "argon2", 1.1);
    site.cloud.down()
}

/// The body of a log-in as the project's member.
fn login(home: &std::path::Path) -> Result<String> {
    let clouds = std::fs::read_to_string(home.join("clouds.yaml"))?;
    let (_, settings) = clouds.split_once("\n  arcus:\n").context("no such entry in clouds.yaml")?;
    let setting = |name: &str| {
        let mut values = settings.lines().filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
        values.next().with_context(|| format!("{name} is missing in clouds.yaml"))
    };
    let default = json!({ "name": "Default" });
    let user = json!({ "name": setting("username")?, "domain": default, "password": setting("password")? });
    let body = json!({ "auth": {
        "identity": { "methods": ["password"], "password": { "user": user } },
        "scope": { "project": { "name": setting("project_name")?, "domain": default } },
    } });
    Ok(body.to_string())
}

/// How long one hash with the parameters of ours takes.
fn one_hash() -> Result<Duration> {
    use argon2::password_hash::PasswordHasher as _;
    let params = argon2::Params::new(19 * 1024, 2, 1, None).map_err(|e| anyhow::anyhow!("{e}"))?;
    let hasher = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let began = Instant::now();
    hasher.hash_password(b"a password of some length").map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(began.elapsed())
}

/// Ports, made.
pub async fn ports() -> Result<()> {
    let site = Site::up().await?;
    let mut client = site.target.connect().await?;
    let network = site.network(&mut client, "10.64.0.0/12").await?;
    let body = json!({ "port": { "network_id": network, "name": "speed" } }).to_string();
    let bytes = request("POST", "/network/v2.0/ports", &[("x-auth-token", &site.member_token)], &body);
    let again = bytes.clone();
    site.target.load(200, 201, move |_| again.clone()).await?;
    told("port_create", &site.target.load(5_000, 201, move |_| bytes.clone()).await?, 1_000.0);
    site.cloud.down()
}

/// Servers: made, shown and listed.
pub async fn servers() -> Result<()> {
    let site = Site::up().await?;
    site.admin.node_ready().await?;
    let mut client = site.target.connect().await?;
    let network = site.network(&mut client, "10.64.0.0/12").await?;
    let image = image(&site).await?;
    let body = json!({ "server": { "name": "speed", "imageRef": image, "flavorRef": "1",
        "networks": [{ "uuid": network }] } });
    let path = "/compute/v2.1/servers";
    let headers = [("x-auth-token", site.member_token.as_str()), ("openstack-api-version", "compute 2.96")];
    let bytes = request("POST", path, &headers, &body.to_string());
    // The first ones bring the image into the node's cache and do not count.
    let again = bytes.clone();
    site.target.load(BATCH, 202, move |_| again.clone()).await?;
    all_active(&site, &mut client, BATCH).await?;
    let began = Instant::now();
    let made = site.target.load(SERVERS - BATCH, 202, move |_| bytes.clone()).await?;
    all_active(&site, &mut client, SERVERS).await?;
    let rate = (SERVERS - BATCH) as f64 / began.elapsed().as_secs_f64();
    let (p50, p99) = (made.quantile_ms(0.5), made.quantile_ms(0.99));
    eprintln!("  server_create: asked for at {:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms", made.per_second());
    measurement::at_least("server_create", rate, 300.0, "/s");
    measurement::compared("server_create_spread", p99 / 1e3, p50 / 1e3, "p50", SPREAD_GOAL);

    let list = site.ask(&mut client, "GET", "/compute/v2.1/servers?limit=1000", &Value::Null).await?;
    let ids = list["servers"].as_array().context("no list")?.iter().map(id).collect::<Result<Vec<_>>>()?;
    let gets: Vec<Vec<u8>> = ids.iter().map(|id| site.get(&format!("/compute/v2.1/servers/{id}"))).collect();
    let load = site.target.load(25_000, 200, move |n| gets[n.wrapping_mul(7) % gets.len()].clone()).await?;
    told("server_get", &load, 5_000.0);
    let bytes = site.get("/compute/v2.1/servers/detail?limit=1000");
    told("servers_detail", &site.target.load(500, 200, move |_| bytes.clone()).await?, 50.0);
    site.cloud.down()
}

async fn all_active(site: &Site, client: &mut Client, count: usize) -> Result<()> {
    let began = Instant::now();
    let path = "/compute/v2.1/servers?status=BUILD&limit=1";
    loop {
        let building = site.ask(client, "GET", path, &Value::Null).await?;
        if building["servers"].as_array().is_some_and(Vec::is_empty) {
            break;
        }
        ensure!(began.elapsed() < ACTIVE_DEADLINE, "servers do not become active: {building}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let path = "/compute/v2.1/servers?status=ACTIVE&limit=1000";
    let active = site.ask(client, "GET", path, &Value::Null).await?;
    let active = active["servers"].as_array().map_or(0, Vec::len);
    ensure!(active == count, "{active} servers are active, {count} were asked for");
    Ok(())
}

/// An image of a few bytes: simulated nodes do not look into it.
pub async fn image(site: &Site) -> Result<String> {
    let file = site.cloud.home.join("speed.raw");
    std::fs::write(&file, vec![7_u8; 4096])?;
    let member = Session::login(&site.cloud.home, &site.cloud.url, "arcus").await?;
    member.image_upload("speed", "raw", &file).await
}

/// Allocation candidates of a fleet of nodes that are only in the books.
pub async fn candidates() -> Result<()> {
    let mut cloud = Arcus::new("speed", true)?;
    cloud.start().await?;
    cloud.kill()?;
    let store = Store::open(&format!("sqlite://{}/arcus.db", cloud.home.display())).await?;
    let tx = store.begin_unaudited().await?;
    let facts = NodeFacts { vcpus: 64, memory_mib: 1 << 18, disk_gib: 4_000, ..NodeFacts::default() };
    for number in 0..NODES {
        let (id, name) = (NodeId::new(), format!("pretended-{number}").parse()?);
        tx.node_insert(&NodeNew { id, name, availability_zone: "nova".to_owned() }).await?;
        tx.node_facts_set(id, &facts).await?;
    }
    tx.commit().await?;
    store.close().await;
    cloud.start().await?;
    let site = Site::of(cloud).await?;
    let headers = [("x-auth-token", site.admin_token.as_str()), ("openstack-api-version", "placement 1.39")];
    let query = "resources=VCPU:2,MEMORY_MB:2048,DISK_GB:20&required=COMPUTE_NODE&limit=1000";
    let bytes = request("GET", &format!("/placement/allocation_candidates?{query}"), &headers, "");
    let mut client = site.target.connect().await?;
    let mut took = Vec::new();
    for round in 0..201 {
        let began = Instant::now();
        let answer = client.ask(&bytes).await?;
        ensure!(answer.status == 200, "candidates were answered with {}", answer.status);
        if round > 0 {
            took.push(began.elapsed());
        } else {
            eprintln!(
                "  candidates: {} bytes, the first answer in {:.1} ms",
                answer.body.len(),
                began.elapsed().as_secs_f64() * 1e3
            );
        }
    }
    took.sort_unstable();
    let load = Load { took: took.iter().sum(), latencies: took };
    eprintln!("  candidates: p50 {:.2} ms, p99 {:.2} ms", load.quantile_ms(0.5), load.quantile_ms(0.99));
    measurement::absolute("allocation_candidates", load.quantile_ms(0.5), 5.0, "ms");
    site.cloud.down()
}
