//! A cloud with three simulated nodes, which go on while it is down, and a server.

use crate::arcus::Arcus;
use crate::claims::{self, Claims};
use crate::kinds::Kind;
use crate::machine::Machine;
use crate::session::{Session, id};
use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const NODES: [&str; 3] = ["one", "two", "three"];
/// How long it may take until all is at rest.
const REST_MAX: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(20);

pub struct World {
    cloud: Arcus,
    machines: BTreeMap<String, Machine>,
    admin: Session,
    member: Session,
    /// The server that everything is done to.
    pub server: String,
    /// Another one, which is made and deleted.
    pub extra: String,
    /// A volume, which is made and deleted.
    pub volume: String,
    /// The image that they are made of.
    pub image: String,
    /// The node that is drained.
    pub node: String,
    network: String,
    /// The status that the server has at rest.
    status: &'static str,
}

fn text(one: &Value, field: &str) -> String {
    one[field].as_str().unwrap_or_default().to_owned()
}

impl World {
    pub async fn start() -> Result<Self> {
        let mut cloud = Arcus::server("tasks")?;
        cloud.start().await?;
        let began = Instant::now();
        // It answers a moment before it has noted where.
        let words = loop {
            match cloud.join_words(3) {
                Ok(words) => break words,
                Err(error) => ensure!(began.elapsed() < REST_MAX, "{error:#}"),
            }
            tokio::time::sleep(ASK_EVERY).await;
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut machines = BTreeMap::new();
        for name in NODES {
            let mut machine = Machine::new(&format!("t-{name}"));
            machine.start(&[&words[..], &["--node", name]].concat())?;
            machines.insert(name.to_owned(), machine);
        }
        let admin = Session::login(&cloud.home, &cloud.url, "arcus-admin").await?;
        let mut member = Session::login(&cloud.home, &cloud.url, "arcus").await?;
        // The first version in which a volume is filled anew.
        member.compute = "compute 2.37,volume 3.68";
        let file = cloud.home.join("image.raw");
        std::fs::write(&file, vec![0_u8; 1 << 20])?;
        let image = member.image_upload("tasks", "raw", &file).await?;
        let body = json!({ "network": { "name": "tasks" } });
        let network = id(&member.ok(Method::POST, "/network/v2.0/networks", Some(&body)).await?["network"])?;
        let body = json!({ "subnet": { "network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24" } });
        member.ok(Method::POST, "/network/v2.0/subnets", Some(&body)).await?;
        let none = String::new;
        let (server, extra, volume, node) = (none(), none(), none(), none());
        let mut world =
            Self { cloud, machines, admin, member, server, extra, volume, image, node, network, status: "ACTIVE" };
        world.rest().await?;
        let made = world.member.ok(Method::POST, "/compute/v2.1/servers", Some(&world.wish("server"))).await?;
        world.server = id(&made["server"])?;
        world.rest().await?;
        Ok(world)
    }

    /// What a server is made of.
    pub fn wish(&self, name: &str) -> Value {
        json!({ "server": { "name": name, "imageRef": self.image, "flavorRef": "1",
            "networks": [{ "uuid": self.network }] } })
    }

    /// Where volumes are.
    pub fn volumes(&self) -> String {
        format!("/volume/v3/{}/volumes", self.member.project)
    }

    /// Does this to the server and sees it done; whether the cloud ended meanwhile, as it was to do at `point`.
    pub async fn act(&mut self, kind: &Kind, point: Option<&str>) -> Result<bool> {
        if kind.name == "drain" {
            self.node = self.place().await?;
        }
        let lost = if kind.name == "evacuation" { Some(self.lose().await?) } else { None };
        let known = self.tasks(kind.name).await?.len();
        let (method, path, body) = (kind.ask)(self);
        if let Some(point) = point {
            std::fs::write(self.cloud.crash_file(), point)?;
        }
        let answer = self.call(&method, &path, &body, point.is_some()).await?;
        let crashed = match point {
            Some(_) => self.ended_or_done(kind.name, known).await?,
            None => false,
        };
        if crashed {
            self.cloud.start().await?;
        } else {
            ensure!(answer, "nothing answered");
        }
        // What was written before the end is done; what was not was never asked.
        let seen = self.rest().await?;
        let done = self.tasks(kind.name).await?.len() - known;
        ensure!(done <= 1, "there are {done} new tasks");
        if done == 0 {
            ensure!(crashed && point == Some("1-"), "the task is lost");
            ensure!(seen == self.status, "nothing was asked, and the server is {seen}, not {}", self.status);
            self.call(&method, &path, &body, false).await?;
        }
        self.status = kind.status;
        let seen = self.rest().await?;
        let after = self.tasks(kind.name).await?;
        ensure!(after.len() == known + 1, "no task was made");
        ensure!(after[0]["state"] == "done", "the task is not done: {}", after[0]);
        ensure!(seen == kind.status, "the server is {seen}, not {}", kind.status);
        self.only_what_was_asked(kind.name).await?;
        if let Some(lost) = lost {
            self.find(&lost).await?;
        }
        Ok(crashed)
    }

    async fn call(&self, method: &Method, path: &str, body: &Value, may_end: bool) -> Result<bool> {
        let moves = ["evacuate", "migrate", "os-migrateLive"].iter().any(|word| body.get(word).is_some());
        let who = if path.starts_with("/arcus/") || moves { &self.admin } else { &self.member };
        match who.call(method.clone(), path, Some(body).filter(|body| !body.is_null())).await {
            Ok((status, answer)) => {
                ensure!(status.is_success(), "{method} {path} was answered with {status}: {answer}");
                Ok(true)
            }
            Err(_) if may_end => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until the cloud has ended, or the task is over; whether it has ended.
    async fn ended_or_done(&mut self, kind: &str, known: usize) -> Result<bool> {
        let began = Instant::now();
        loop {
            if self.cloud.ended()? {
                return Ok(true);
            }
            // No answer is as good as one: the cloud may be ending.
            if let Ok(tasks) = self.tasks(kind).await
                && tasks.len() > known
                && !["waiting", "running"].contains(&tasks[0]["state"].as_str().unwrap_or_default())
            {
                // The last write may be the one after which it ends.
                tokio::time::sleep(ASK_EVERY).await;
                if self.cloud.ended()? {
                    return Ok(true);
                }
                drop(std::fs::remove_file(self.cloud.crash_file()));
                return Ok(false);
            }
            ensure!(began.elapsed() < REST_MAX, "the task does not end");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// The tasks of a kind, the newest first.
    async fn tasks(&self, kind: &str) -> Result<Vec<Value>> {
        let told = self.admin.ok(Method::GET, &format!("/arcus/v1/tasks?limit=1000&kind={kind}"), None).await?;
        told["tasks"].as_array().cloned().context("no list")
    }

    /// Waits until no task is left, no server is busy, and every guest is where its server is; the server's status.
    async fn rest(&self) -> Result<String> {
        let began = Instant::now();
        loop {
            let (status, restless) = self.restless().await?;
            if restless.is_empty() {
                Claims::read(&self.cloud.home).await?.add_up()?;
                return Ok(status);
            }
            ensure!(began.elapsed() < REST_MAX, "after {REST_MAX:?} there still are {restless:#?}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn restless(&self) -> Result<(String, Vec<String>)> {
        let mut restless = self.nodes_missing().await?;
        for state in ["waiting", "running"] {
            let told = self.admin.ok(Method::GET, &format!("/arcus/v1/tasks?state={state}"), None).await?;
            restless.extend(told["tasks"].as_array().context("no list")?.iter().map(ToString::to_string));
        }
        let told = self.admin.ok(Method::GET, "/compute/v2.1/servers/detail?all_tenants=1", None).await?;
        let servers = told["servers"].as_array().context("no list")?;
        let mut status = String::new();
        let mut guests = self.guests()?;
        for server in servers {
            let (id, now) = (text(server, "id"), text(server, "status"));
            let node = text(server, "OS-EXT-SRV-ATTR:host");
            if !server["OS-EXT-STS:task_state"].is_null() || now == "BUILD" {
                restless.push(format!("{server}"));
            }
            ensure!(now != "ERROR", "the server has failed: {server}");
            let of = guests.remove(&id).unwrap_or_default();
            // A server that is shut off has a guest or none; where it has one, it is the node's.
            let right = match now.as_str() {
                "SHUTOFF" | "SUSPENDED" => of.iter().all(|on| *on == node),
                "SHELVED_OFFLOADED" => of.is_empty(),
                // Nothing is seen of a machine that was killed.
                _ if !self.machines.get(&node).is_some_and(Machine::runs) => of.is_empty(),
                _ => of == [node.clone()],
            };
            if !right {
                restless.push(format!("{id} is {now} on {node}, its guests are on {of:?}"));
            }
            if id == self.server {
                status = now;
            }
        }
        restless.extend(guests.into_iter().map(|(id, on)| format!("a guest of no server: {id} on {on:?}")));
        Ok((status, restless))
    }

    /// The nodes that have a guest, for each server, of those that run.
    fn guests(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut guests: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, machine) in self.machines.iter().filter(|(_, machine)| machine.runs()) {
            let files = match std::fs::read_dir(machine.home.join("agent/simulated-guests")) {
                // The machine has not come so far yet.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                files => files?,
            };
            for file in files.flatten() {
                let file = file.file_name().to_string_lossy().into_owned();
                if let Some(id) = file.strip_suffix(".json") {
                    guests.entry(id.to_owned()).or_default().push(name.clone());
                }
            }
        }
        Ok(guests)
    }

    /// Nothing is there that nobody asked for, and what was asked for is there once.
    async fn only_what_was_asked(&mut self, kind: &str) -> Result<()> {
        let told = self.admin.ok(Method::GET, "/compute/v2.1/servers?all_tenants=1", None).await?;
        let servers = told["servers"].as_array().context("no list")?;
        let mut extra: Vec<String> =
            servers.iter().filter(|one| one["name"] == "extra").map(|one| text(one, "id")).collect();
        ensure!(extra.len() == usize::from(kind == "server-create"), "after {kind} there are {servers:?}");
        self.extra = extra.pop().unwrap_or_default();
        let told = self.member.ok(Method::GET, &format!("{}/detail", self.volumes()), None).await?;
        let volumes = told["volumes"].as_array().context("no list")?;
        let made = matches!(kind, "volume-create" | "volume-extend" | "volume-reimage" | "volume-upload");
        ensure!(volumes.len() == usize::from(made), "after {kind} there are {volumes:?}");
        ensure!(volumes.iter().all(|one| one["status"] == "available"), "after {kind} there are {volumes:?}");
        ensure!(kind != "volume-extend" || volumes[0]["size"] == 2, "it was not extended: {volumes:?}");
        self.volume = volumes.iter().map(|one| text(one, "id")).collect();
        let told = self.member.ok(Method::GET, "/network/v2.0/ports", None).await?;
        let ports = told["ports"].as_array().context("no list")?;
        let left = ports.iter().filter(|port| !servers.iter().any(|one| one["id"] == port["device_id"]));
        let left: Vec<&Value> = left.filter(|port| !text(port, "device_owner").starts_with("network:")).collect();
        ensure!(left.is_empty(), "ports are left: {left:?}");
        let told = self.member.ok(Method::GET, "/image/v2/images?name=snapshot", None).await?;
        let images = told["images"].as_array().context("no list")?;
        let made = usize::from(matches!(kind, "server-snapshot" | "server-backup" | "volume-upload"));
        ensure!(images.len() == made, "after {kind} there are {images:?}");
        let told = self.admin.ok(Method::GET, "/image/v2/images?os_hidden=true", None).await?;
        let carried = told["images"].as_array().context("no list")?;
        ensure!(carried.len() == usize::from(kind == "migration"), "after {kind} there are {carried:?}");
        for image in images {
            ensure!(image["status"] == "active", "the image is not whole: {image}");
            self.member.ok(Method::DELETE, &format!("/image/v2/images/{}", id(image)?), None).await?;
        }
        Ok(())
    }

    async fn place(&self) -> Result<String> {
        let path = format!("/compute/v2.1/servers/{}", self.server);
        let told = self.admin.ok(Method::GET, &path, None).await?;
        Ok(text(&told["server"], "OS-EXT-SRV-ATTR:host"))
    }

    /// Those of the machines that run which the cloud does not use yet.
    async fn nodes_missing(&self) -> Result<Vec<String>> {
        let told = self.admin.ok(Method::GET, "/arcus/v1/nodes", None).await?;
        let nodes = told["nodes"].as_array().context("no list")?;
        let up = |name: &str| nodes.iter().any(|node| node["name"] == name && node["state"] == "up");
        let running = self.machines.iter().filter(|(_, machine)| machine.runs());
        Ok(running.map(|(name, _)| name.clone()).filter(|name| !up(name)).collect())
    }

    async fn force_down(&self, node: &str, down: bool) -> Result<()> {
        let body = json!({ "host": node, "binary": "nova-compute", "forced_down": down });
        self.admin.ok(Method::PUT, "/compute/v2.1/os-services/force-down", Some(&body)).await.map(drop)
    }

    /// Ends the server's node, and says so to the cloud; its name.
    async fn lose(&mut self) -> Result<String> {
        let node = self.place().await?;
        let Some(machine) = self.machines.get_mut(&node) else { bail!("{node} is no machine") };
        machine.kill()?;
        self.force_down(&node, true).await?;
        Ok(node)
    }

    /// Starts the node again that was lost: it ends the guests that are elsewhere by now.
    async fn find(&mut self, node: &str) -> Result<()> {
        self.force_down(node, false).await?;
        let Some(machine) = self.machines.get_mut(node) else { bail!("{node} is no machine") };
        machine.start(&[])?;
        self.rest().await.map(drop)
    }

    /// Takes everything down; nothing is left of the server.
    pub async fn down(mut self) -> Result<()> {
        self.member.ok(Method::DELETE, &format!("/compute/v2.1/servers/{}", self.server), None).await?;
        self.rest().await?;
        for machine in self.machines.values_mut() {
            machine.stop()?;
        }
        claims::database_is_sound(&self.cloud.home).await?;
        self.cloud.down()
    }
}
