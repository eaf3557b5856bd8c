//! A server with ten thousand nodes that pretend, over the real protocol: what it takes, what it writes while nothing
//! happens, and how fast it makes servers among them.

use crate::arcus::Arcus;
use crate::idle::{peak_mib, resident_mib};
use crate::load::request;
use crate::measurement;
use crate::session::id;
use crate::speed::{Site, image};
use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

const NODES: u32 = 10_000;
const SERVERS: usize = 3_000;
const JOIN_MAX: Duration = Duration::from_secs(900);
const ACTIVE_MAX: Duration = Duration::from_secs(300);
/// How long the fleet is left alone before it is watched, and how long it is watched then.
const SETTLE: Duration = Duration::from_secs(45);
const WATCH: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);
const MEMORY_GOAL_MIB: f64 = 1024.0;
/// When nodes were heard of is written every 20 s, for all of them at once; the rest is the server's own housekeeping.
const WRITES_GOAL: f64 = 6.0;
const CREATE_GOAL: f64 = 300.0;

/// The process of the nodes; it ends when this is dropped.
struct Nodes(Child);

impl Drop for Nodes {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub async fn run() -> Result<()> {
    let mut cloud = Arcus::server("fleet")?;
    cloud.start().await?;
    let words = cloud.join_words(NODES)?;
    let pid = cloud.pid()?;
    let database = cloud.home.join("arcus.db-wal");
    let site = Site::of(cloud).await?;
    let began = Instant::now();
    let nodes = simulated(&site.cloud.home, &words)?;
    all_up(&site, began).await?;
    eprintln!("  fleet: {NODES} nodes joined in {:.0} s", began.elapsed().as_secs_f64());
    tokio::time::sleep(SETTLE).await;
    let writes = writes(&database).await?;
    eprintln!("  fleet: {writes} writes in {} s, {:.0} MiB resident", WATCH.as_secs(), resident_mib(pid)?);
    measurement::absolute("fleet_quiet_writes", writes * 60.0 / WATCH.as_secs_f64(), WRITES_GOAL, "a minute");
    create(&site).await?;
    measurement::absolute("fleet_memory", peak_mib(pid)?, MEMORY_GOAL_MIB, "MiB at most");
    drop(nodes);
    site.cloud.down()
}

fn simulated(home: &Path, words: &[String]) -> Result<Nodes> {
    let folder = home.join("simulated");
    std::fs::create_dir_all(&folder)?;
    let log = std::fs::File::create(home.join("simulated.log"))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcus"));
    command.args(["lab", "simulated-nodes", "--count", &NODES.to_string(), "--folder"]).arg(&folder).args(words);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    Ok(Nodes(command.spawn()?))
}

/// Waits until all nodes are up.
async fn all_up(site: &Site, began: Instant) -> Result<()> {
    loop {
        let known = site.admin.ok(Method::GET, "/compute/v2.1/os-hypervisors/statistics", None).await?;
        if known["hypervisor_statistics"]["count"].as_u64() >= Some(u64::from(NODES)) && down(site).await? == 0 {
            return Ok(());
        }
        ensure!(began.elapsed() < JOIN_MAX, "not all nodes have joined: {known}");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// How many nodes are not up.
async fn down(site: &Site) -> Result<usize> {
    let services = site.admin.ok(Method::GET, "/compute/v2.1/os-services?binary=nova-compute", None).await?;
    let services = services["services"].as_array().context("no list of services")?;
    Ok(services.iter().filter(|service| service["state"] != "up").count())
}

/// How often the database's log is written to while it is watched.
async fn writes(log: &Path) -> Result<f64> {
    let changed = || -> Result<(SystemTime, u64)> {
        let meta = std::fs::metadata(log).with_context(|| format!("could not look at {}", log.display()))?;
        Ok((meta.modified()?, meta.len()))
    };
    let (began, mut last, mut count) = (Instant::now(), changed()?, 0.0);
    while began.elapsed() < WATCH {
        tokio::time::sleep(LOOK).await;
        let now = changed()?;
        if now != last {
            (last, count) = (now, count + 1.0);
        }
    }
    Ok(count)
}

/// Servers with a port each, until they run.
async fn create(site: &Site) -> Result<()> {
    let mut client = site.target.connect().await?;
    let network = site.network(&mut client, "10.64.0.0/12").await?;
    let image = image(site).await?;
    let body = json!({ "server": { "name": "fleet", "imageRef": image, "flavorRef": "1",
        "networks": [{ "uuid": network }] } });
    let headers = [("x-auth-token", site.member_token.as_str()), ("openstack-api-version", "compute 2.96")];
    let bytes = request("POST", "/compute/v2.1/servers", &headers, &body.to_string());
    let made = site.target.load(SERVERS, 202, move |_| bytes.clone()).await?;
    let (p50, p99) = (made.quantile_ms(0.5), made.quantile_ms(0.99));
    eprintln!("  fleet_create: {:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms", made.per_second());
    measurement::at_least("fleet_create", made.per_second(), CREATE_GOAL, "/s");
    let began = Instant::now();
    loop {
        let building = site.ask(&mut client, "GET", "/compute/v2.1/servers?status=BUILD&limit=1", &Value::Null).await?;
        if building["servers"].as_array().is_some_and(Vec::is_empty) {
            break;
        }
        ensure!(began.elapsed() < ACTIVE_MAX, "servers do not become active: {building}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let failed = site.ask(&mut client, "GET", "/compute/v2.1/servers?status=ERROR&limit=1", &Value::Null).await?;
    let first = failed["servers"].as_array().and_then(|all| all.first()).map(id).transpose()?;
    ensure!(first.is_none(), "server {first:?} could not be made");
    eprintln!("  fleet_create: all ran {:.1} s later", began.elapsed().as_secs_f64());
    Ok(())
}
