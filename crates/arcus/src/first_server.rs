//! What `arcus up` does as a client once the endpoint answers: offers an image, boots a first server, tells how to go on.

use crate::daemon::logins;
use crate::home::Home;
use crate::session::Session;
use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the first server may take to answer over the network.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);
/// How long the node may take to say what it can hold.
const NODE_DEADLINE: Duration = Duration::from_secs(60);
const NAME: &str = "first";
const IMAGE: &str = "arcus-tiny";

/// Tells what is being done: a line that changes on a terminal, a line each elsewhere.
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, started: Instant::now() }
    }

    pub fn step(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => eprintln!("arcus: [{:5.1} s] {text}", self.started.elapsed().as_secs_f32()),
        }
    }

    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The server that was booted.
pub struct First {
    name: String,
    fixed: String,
    floating: String,
    key: String,
}

fn id(value: &Value) -> Result<&str> {
    value["id"].as_str().with_context(|| format!("an answer has no id: {value}"))
}

/// Offers the image to all projects and, if wished, boots a first server from it.
pub async fn prepare(home: &Home, url: &str, image: &Path, boot: bool, progress: &Progress) -> Result<Option<First>> {
    let logins = logins(home)?;
    let admin = Session::login(home, url, "admin", &logins.admin_password, "admin").await?;
    let image_id = offer_image(&admin, image, progress).await?;
    node_ready(&admin, progress).await?;
    if !boot {
        return Ok(None);
    }
    let demo = Session::login(home, url, "demo", &logins.demo_password, "demo").await?;
    Ok(Some(boot_first(home, &demo, &image_id, progress).await?))
}

async fn offer_image(admin: &Session, image: &Path, progress: &Progress) -> Result<String> {
    if let Some(found) = admin.find("/image/v2/images", "images", IMAGE).await? {
        if found["status"] == "active" {
            return Ok(id(&found)?.to_owned());
        }
        admin.call(reqwest::Method::DELETE, &format!("/image/v2/images/{}", id(&found)?), None).await?;
    }
    progress.step("uploading the image arcus-tiny");
    let body = json!({ "name": IMAGE, "disk_format": "qcow2", "container_format": "bare", "visibility": "public",
        // Whose password a server of it has.
        "os_admin_user": "arcus",
        "min_ram": 64 });
    let created = admin.post("/image/v2/images", body).await?;
    let id = id(&created)?.to_owned();
    admin.upload(&format!("/image/v2/images/{id}/file"), image).await?;
    Ok(id)
}

/// Waits until this machine's node has said what it can hold: before that no server finds room.
async fn node_ready(admin: &Session, progress: &Progress) -> Result<()> {
    progress.step("waiting for the node");
    let deadline = Instant::now() + NODE_DEADLINE;
    loop {
        let answer = admin.get("/compute/v2.1/os-hypervisors").await?;
        if answer["hypervisors"].as_array().is_some_and(|all| all.iter().any(|one| one["state"] == "up")) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("this machine's node has not reported after {} s; see arcus.log", NODE_DEADLINE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn boot_first(home: &Home, demo: &Session, image_id: &str, progress: &Progress) -> Result<First> {
    progress.step("making a network, a router and a security group");
    let network = demo.ensure("network", NAME, json!({ "name": NAME })).await?;
    let network_id = id(&network)?.to_owned();
    let subnet = json!({ "name": NAME, "network_id": network_id, "cidr": "10.20.0.0/24", "ip_version": 4 });
    let subnet = demo.ensure("subnet", NAME, subnet).await?;
    let external = demo.get("/network/v2.0/networks?router:external=true").await?;
    let external_id = id(&external["networks"][0])?.to_owned();
    let gateway = json!({ "network_id": external_id });
    let router = demo.ensure("router", NAME, json!({ "name": NAME, "external_gateway_info": gateway })).await?;
    connect(demo, id(&router)?, id(&subnet)?).await?;
    let group = demo.ensure("security_group", NAME, json!({ "name": NAME, "description": "SSH and ping" })).await?;
    allow(demo, &group).await?;
    let key = key_pair(home, demo).await?;
    let server_id = server(demo, image_id, &network_id, id(&group)?, progress).await?;
    let (port_id, fixed) = port_of(demo, &server_id).await?;
    let floating = floating_ip(demo, &external_id, &port_id).await?;
    progress.step(&format!("waiting until {floating} answers over the network"));
    wait_for_ssh(&floating).await?;
    Ok(First { name: NAME.to_owned(), fixed, floating, key })
}

async fn connect(demo: &Session, router: &str, subnet: &str) -> Result<()> {
    let ports = demo.get(&format!("/network/v2.0/ports?device_id={router}&fixed_ips=subnet_id={subnet}")).await?;
    if ports["ports"].as_array().is_some_and(|p| !p.is_empty()) {
        return Ok(());
    }
    let path = format!("/network/v2.0/routers/{router}/add_router_interface");
    demo.call(reqwest::Method::PUT, &path, Some(&json!({ "subnet_id": subnet }))).await.map(drop)
}

async fn allow(demo: &Session, group: &Value) -> Result<()> {
    let rules = demo.get(&format!("/network/v2.0/security-group-rules?security_group_id={}", id(group)?)).await?;
    let has = |protocol: &str| {
        rules["security_group_rules"].as_array().is_some_and(|r| r.iter().any(|r| r["protocol"] == protocol))
    };
    let mut wanted = Vec::new();
    if !has("icmp") {
        wanted.push(json!({ "protocol": "icmp" }));
    }
    if !has("tcp") {
        wanted.push(json!({ "protocol": "tcp", "port_range_min": 22, "port_range_max": 22 }));
    }
    for mut rule in wanted {
        rule["security_group_id"] = group["id"].clone();
        rule["direction"] = "ingress".into();
        rule["ethertype"] = "IPv4".into();
        demo.post("/network/v2.0/security-group-rules", json!({ "security_group_rule": rule })).await?;
    }
    Ok(())
}

/// A key pair whose private half lies in the home folder.
async fn key_pair(home: &Home, demo: &Session) -> Result<String> {
    let path = home.join("first.key");
    if !path.exists() {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "arcus-first", "-f"])
            .arg(&path)
            .status()
            .context("could not run ssh-keygen; install the package openssh-client")?;
        if !made.success() {
            bail!("ssh-keygen failed");
        }
    }
    let public = std::fs::read_to_string(path.with_extension("key.pub"))?;
    let listed = demo.get("/compute/v2.1/os-keypairs").await?;
    let known = listed["keypairs"].as_array().is_some_and(|k| k.iter().any(|k| k["keypair"]["name"] == NAME));
    if !known {
        let body = json!({ "keypair": { "name": NAME, "public_key": public.trim() } });
        demo.post("/compute/v2.1/os-keypairs", body).await?;
    }
    Ok(path.display().to_string())
}

async fn server(demo: &Session, image: &str, network: &str, group: &str, progress: &Progress) -> Result<String> {
    let server_id = match first_of_before(demo).await? {
        Some(found) => found,
        None => {
            progress.step("booting the first server");
            let flavors = demo.get("/compute/v2.1/flavors").await?;
            let flavor = flavors["flavors"]
                .as_array()
                .and_then(|all| all.iter().find(|f| f["name"] == "arcus.tiny").or(all.first()))
                .context("there is no flavor")?;
            let body = json!({ "server": {
                "name": NAME, "imageRef": image, "flavorRef": flavor["id"], "key_name": NAME,
                "networks": [{ "uuid": network }], "security_groups": [{ "name": group }],
            } });
            id(&demo.post("/compute/v2.1/servers", body).await?["server"])?.to_owned()
        }
    };
    let deadline = Instant::now() + BOOT_DEADLINE;
    loop {
        let answer = demo.get(&format!("/compute/v2.1/servers/{server_id}")).await?;
        let server = &answer["server"];
        match server["status"].as_str() {
            Some("ACTIVE") => return Ok(server_id),
            Some("ERROR") => bail!("the first server failed: {}", server["fault"]["message"]),
            Some("SHUTOFF") if server["OS-EXT-STS:task_state"].is_null() => {
                let path = format!("/compute/v2.1/servers/{server_id}/action");
                demo.post(&path, json!({ "os-start": null })).await?;
            }
            Some(_) | None => {}
        }
        if Instant::now() > deadline {
            bail!("the first server is still {} after {} s", server["status"], BOOT_DEADLINE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The first server of an earlier run, unless that never came to life: then it is removed.
async fn first_of_before(demo: &Session) -> Result<Option<String>> {
    let Some(found) = demo.find("/compute/v2.1/servers/detail", "servers", NAME).await? else { return Ok(None) };
    let server_id = id(&found)?.to_owned();
    if found["status"] != "ERROR" || !found["OS-SRV-USG:launched_at"].is_null() {
        return Ok(Some(server_id));
    }
    demo.call(reqwest::Method::DELETE, &format!("/compute/v2.1/servers/{server_id}"), None).await?;
    Ok(None)
}

async fn port_of(demo: &Session, server: &str) -> Result<(String, String)> {
    let answer = demo.get(&format!("/network/v2.0/ports?device_id={server}")).await?;
    let port = &answer["ports"][0];
    let fixed = port["fixed_ips"][0]["ip_address"].as_str().context("the first server has no address")?;
    Ok((id(port)?.to_owned(), fixed.to_owned()))
}

async fn floating_ip(demo: &Session, external: &str, port: &str) -> Result<String> {
    let existing = demo.get(&format!("/network/v2.0/floatingips?port_id={port}")).await?;
    let address = |value: &Value| value["floating_ip_address"].as_str().map(str::to_owned);
    if let Some(found) = address(&existing["floatingips"][0]) {
        return Ok(found);
    }
    let body = json!({ "floatingip": { "floating_network_id": external, "port_id": port } });
    let made = demo.post("/network/v2.0/floatingips", body).await?;
    address(&made["floatingip"]).context("the floating IP has no address")
}

/// Waits until the guest's SSH server says its name.
async fn wait_for_ssh(address: &str) -> Result<()> {
    use tokio::io::AsyncReadExt;
    let deadline = Instant::now() + BOOT_DEADLINE;
    loop {
        let greeting = async {
            let mut stream = tokio::net::TcpStream::connect((address, 22)).await?;
            let mut banner = [0_u8; 4];
            stream.read_exact(&mut banner).await?;
            std::io::Result::Ok(banner)
        };
        if let Ok(Ok(banner)) = tokio::time::timeout(Duration::from_secs(2), greeting).await
            && &banner == b"SSH-"
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the first server does not answer on {address} port 22; see `openstack console log show {NAME}`");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the person who typed `arcus up` wants to know.
pub fn summary(home: &Home, url: &str, first: Option<&First>) -> String {
    let path = |name: &str| home.join(name).display().to_string();
    let mut text = format!(
        "\nArcus runs.\n  endpoint     {url}\n  clouds.yaml  {}\n  log          {}\n\nUse it with the openstack client:\n  \
         export OS_CLIENT_CONFIG_FILE={}\n  openstack --os-cloud arcus server list          # a project member\n  \
         openstack --os-cloud arcus-admin hypervisor list  # the administrator\n",
        path("clouds.yaml"),
        path("arcus.log"),
        path("clouds.yaml"),
    );
    if let Some(first) = first {
        text.push_str(&format!(
            "\nThe first server is up: {} ({}, floating IP {}).\n  ssh -i {} arcus@{}\n  openstack --os-cloud arcus \
             console log show {}\n  openstack --os-cloud arcus console url show --serial {}   # a WebSocket URL\n",
            first.name, first.fixed, first.floating, first.key, first.floating, first.name, first.name,
        ));
    }
    text.push_str(&format!(
        "\nStop it, and remove all that it made:\n  arcus down --home {0}              # or: make down\n  arcus down --home \
         {0} --keep-data  # keep images, disks and the database\n",
        home.path().display()
    ));
    text
}
