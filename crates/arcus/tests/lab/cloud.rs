//! A lab as a test uses it: made by the command, taken down when it is dropped.

use crate::session::{Session, id};
use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ASK_EVERY: Duration = Duration::from_millis(30);
const BOOT_MAX: Duration = Duration::from_secs(120);
const SERVERS: &str = "/compute/v2.1/servers";

/// What the guest does at its first boot: it answers each byte on port 7000.
const USER_DATA: &str = "#!/bin/sh\nstart-stop-daemon -S -b -x /usr/bin/nc -- -ll -p 7000 -e /usr/bin/cat\n";

/// A lab.
pub struct Lab {
    home: PathBuf,
    admin: Session,
    member: Session,
    network: String,
    image: String,
    /// What logs in to guests.
    pub key: PathBuf,
    gone: bool,
}

/// A server with one port.
pub struct Server {
    pub id: String,
    pub port: String,
    pub mac: String,
    pub address: String,
    admin: Session,
}

/// A number that the environment may set.
pub fn setting(name: &str, usual: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(usual), |text| text.parse().with_context(|| format!("{name} is no number")))
}

fn arcus(home: &Path, words: &[&str]) -> Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_arcus"))
        .args(["lab", "--home"])
        .arg(home)
        .args(words)
        .env_remove("ARCUS_LAB_HOME")
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.status.success(), "arcus lab {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Text in base64, by the program of that name.
fn base64(text: &str) -> Result<String> {
    use std::io::Write as _;
    let mut child = Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(text.as_bytes())?;
    Ok(String::from_utf8(child.wait_with_output()?.stdout)?)
}

impl Lab {
    /// A lab with a network that has a subnet, an image and a key.
    pub async fn up(name: &str, nodes: usize) -> Result<Self> {
        Self::made(name, nodes, &[]).await
    }

    /// The same, with a folder that all nodes see for servers' disks.
    pub async fn up_shared(name: &str, nodes: usize) -> Result<Self> {
        Self::made(name, nodes, &["--shared"]).await
    }

    async fn made(name: &str, nodes: usize, more: &[&str]) -> Result<Self> {
        let home = PathBuf::from(format!("/tmp/al{name}{}", std::process::id()));
        ensure!(!home.exists(), "{} is left of an earlier run: arcus lab --home {0} down", home.display());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest/arcus-tiny.qcow2");
        ensure!(file.exists(), "{} is missing: run `cargo xtask image`", file.display());
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let count = nodes.to_string();
        let made = arcus(&home, &[&["--nodes", &count, "--port", &port, "--accel", "tcg"], more].concat());
        if made.is_err() {
            drop(arcus(&home, &["down"]));
        }
        made?;
        let state: Value = serde_json::from_str(&std::fs::read_to_string(home.join("lab.json"))?)?;
        let url = state["url"].as_str().context("the lab has no endpoint")?.to_owned();
        let server = home.join("s");
        let admin = Session::login(&server, &url, "arcus-admin").await?;
        let member = Session::login(&server, &url, "arcus").await?;
        let image = member.image_upload("tiny", "qcow2", &file).await?;
        let key = home.join("key");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status()?;
        ensure!(made.success(), "ssh-keygen failed");
        let public = std::fs::read_to_string(key.with_extension("pub"))?;
        let pair = json!({ "keypair": { "name": "lab", "public_key": public.trim() } });
        member.ok(Method::POST, "/compute/v2.1/os-keypairs", Some(&pair)).await?;
        let made = json!({ "network": { "name": "lab" } });
        let network = id(&member.ok(Method::POST, "/network/v2.0/networks", Some(&made)).await?["network"])?;
        let made = json!({ "subnet": { "network_id": network, "ip_version": 4, "cidr": "10.66.0.0/24" } });
        member.ok(Method::POST, "/network/v2.0/subnets", Some(&made)).await?;
        Ok(Self { home, admin, member, network, image, key, gone: false })
    }

    /// A command of `arcus lab`.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        arcus(&self.home, words)
    }

    /// A server that answers, on one node, and one that is shut off, on another: its interface is free to be used.
    pub async fn servers(&self, node: &str, client_node: &str) -> Result<(Server, Server)> {
        let group = self.group().await?;
        let server = self.server("web", node, &group).await?;
        let client = self.server("client", client_node, &group).await?;
        let stop = json!({ "os-stop": null });
        self.member.ok(Method::POST, &format!("{SERVERS}/{}/action", client.id), Some(&stop)).await?;
        client.wait_for("status", "SHUTOFF", BOOT_MAX).await?;
        Ok((server, client))
    }

    /// A server that runs on a node.
    pub async fn server_on(&self, node: &str, name: &str) -> Result<Server> {
        let group = self.group().await?;
        self.server(name, node, &group).await
    }

    async fn group(&self) -> Result<String> {
        let made = json!({ "security_group": { "name": "lab" } });
        let made = self.member.ok(Method::POST, "/network/v2.0/security-groups", Some(&made)).await?;
        let group = id(&made["security_group"])?;
        for port in [22, 7000, 8080] {
            let rule = json!({ "security_group_rule": { "security_group_id": group, "direction": "ingress",
                "ethertype": "IPv4", "protocol": "tcp", "port_range_min": port, "port_range_max": port } });
            self.member.ok(Method::POST, "/network/v2.0/security-group-rules", Some(&rule)).await?;
        }
        Ok(group)
    }

    async fn server(&self, name: &str, node: &str, group: &str) -> Result<Server> {
        let made = json!({ "port": { "name": name, "network_id": self.network, "security_groups": [group] } });
        let port = self.member.ok(Method::POST, "/network/v2.0/ports", Some(&made)).await?["port"].clone();
        self.only(Some(node)).await?;
        let body = json!({ "server": { "name": name, "imageRef": self.image, "flavorRef": "1", "key_name": "lab",
            "networks": [{ "port": id(&port)? }], "user_data": base64(USER_DATA)? } });
        let made = self.member.ok(Method::POST, SERVERS, Some(&body)).await?;
        self.only(None).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a port lacks something");
        let server = Server {
            id: id(&made["server"])?,
            port: id(&port)?,
            mac: text(&port["mac_address"])?,
            address: text(&port["fixed_ips"][0]["ip_address"])?,
            admin: self.admin.clone(),
        };
        server.wait_for("status", "ACTIVE", BOOT_MAX).await?;
        ensure!(server.node().await? == node, "the server is on {}", server.node().await?);
        Ok(server)
    }

    /// Closes a node for servers that come from elsewhere.
    pub async fn close(&self, node: &str) -> Result<()> {
        let body = json!({ "host": node, "binary": "nova-compute" });
        self.admin.ok(Method::PUT, "/compute/v2.1/os-services/disable", Some(&body)).await.map(drop)
    }

    /// Waits until a server is another node's, and sees that it never has two processes; how long that took.
    pub async fn watch_until_elsewhere(&self, server: &Server, from: &str, patience: Duration) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let found = self.processes_numbered(server)?;
            ensure!(found.len() < 2, "the server has two processes: {found:?}");
            if server.node().await? != from && found.len() == 1 {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < patience, "the server does not start elsewhere: {}", server.show().await?);
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Opens one node for new servers, or all.
    async fn only(&self, node: Option<&str>) -> Result<()> {
        let services = self.admin.ok(Method::GET, "/compute/v2.1/os-services?binary=nova-compute", None).await?;
        for service in services["services"].as_array().context("no list")? {
            let open = node.is_none_or(|node| service["host"] == node);
            let word = if open { "enable" } else { "disable" };
            let body = json!({ "host": service["host"], "binary": "nova-compute" });
            self.admin.ok(Method::PUT, &format!("/compute/v2.1/os-services/{word}"), Some(&body)).await?;
        }
        Ok(())
    }

    fn state(&self) -> Result<Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(self.home.join("lab.json"))?)?)
    }

    /// The address of a node on the network that joins the nodes.
    pub fn underlay(&self, node: &str) -> Result<String> {
        let state = self.state()?;
        let machine = state["nodes"].as_array().and_then(|all| all.iter().find(|one| one["name"] == node));
        let underlay = machine.and_then(|one| one["underlay"].as_str()).context("the node has no address")?;
        Ok(underlay.split('/').next().unwrap_or(underlay).to_owned())
    }

    /// Where the lab keeps everything.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A node's namespace.
    pub fn namespace(&self, node: &str) -> Result<String> {
        let state = self.state()?;
        Ok(format!("arcus-lab-{}-{node}", state["tag"].as_str().context("the lab has no tag")?))
    }

    /// The namespace of the lab's network on a node.
    pub fn segment(&self, node: &str) -> Result<String> {
        let tag = std::fs::read_to_string(self.home.join(node).join("agent/tag"))?;
        let plain = self.network.replace('-', "");
        Ok(format!("arcus-{}-n-{}", tag.trim(), &plain[plain.len() - 12..]))
    }

    /// Ends the server as `kill -9` does, and waits until it is gone.
    pub async fn server_kill(&self) -> Result<()> {
        let pid: i32 = std::fs::read_to_string(self.home.join("s/arcus.pid"))?.trim().parse()?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
        let began = Instant::now();
        while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            ensure!(began.elapsed() < BOOT_MAX, "the server does not end");
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// Starts the server again and waits until it answers.
    pub async fn server_start(&self) -> Result<()> {
        let (home, state) = (self.home.join("s"), self.state()?);
        let at = state["url"].as_str().and_then(|url| url.strip_prefix("https://")).context("no endpoint")?;
        let (listen, port) = at.rsplit_once(':').context("no port")?;
        let log = std::fs::OpenOptions::new().append(true).open(home.join("arcus.log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_arcus"));
        command.args(["server", "--port", port, "--listen", listen, "--home"]).arg(&home);
        let mut child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/").spawn()?;
        // A process that has ended counts as running until somebody has waited for it.
        std::thread::spawn(move || child.wait());
        let began = Instant::now();
        while let Err(error) = self.admin.call(Method::GET, "/", None).await {
            ensure!(began.elapsed() < BOOT_MAX, "the server does not answer: {error:#}");
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// Asks to empty a node, or to bring back what was there, one server after the other; the task's id.
    ///
    /// QEMU before 9.0 loses writes of emulated guests that move, the more the longer it takes: two at once do not survive it.
    pub async fn maintain(&self, node: &str, word: &str) -> Result<String> {
        let path = format!("/arcus/v1/nodes/{node}/{word}");
        let told = self.admin.ok(Method::POST, &path, Some(&json!({ (word): { "parallel": 1 } }))).await?;
        id(&told["task"])
    }

    /// What a task of several servers does with each of them: name, state, node.
    pub async fn moved_servers(&self, task: &str) -> Result<Vec<(String, String, String)>> {
        let told = self.admin.ok(Method::GET, &format!("/arcus/v1/tasks/{task}/servers"), None).await?;
        let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
        let all = told["servers"].as_array().context("no list")?;
        Ok(all.iter().map(|one| (text(one, "name"), text(one, "state"), text(one, "target"))).collect())
    }

    /// Waits until a task is done.
    pub async fn wait_for_task(&self, task: &str, patience: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let told = self.admin.ok(Method::GET, &format!("/arcus/v1/tasks/{task}"), None).await?["task"].clone();
            if told["state"] == "done" {
                return Ok(());
            }
            let under_way = told["state"] == "running" || told["state"] == "waiting";
            ensure!(under_way && began.elapsed() < patience, "the task is not done: {told}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Ends a node's agent as `kill -9` does; its guests go on.
    pub fn agent_kill(&self, node: &str) -> Result<()> {
        let pid: i32 = std::fs::read_to_string(self.home.join(node).join("arcus.pid"))?.trim().parse()?;
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?)
    }

    /// Starts a node's agent again, on the machine as it is.
    pub fn agent_start(&self, node: &str) -> Result<()> {
        let home = self.home.join(node);
        let state = self.state()?;
        let machine = state["nodes"].as_array().and_then(|all| all.iter().find(|one| one["name"] == node));
        let underlay = machine.and_then(|one| one["underlay"].as_str()).context("the node has no address")?;
        let log = std::fs::OpenOptions::new().append(true).open(home.join("arcus.log"))?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(node)?)).arg(env!("CARGO_BIN_EXE_arcus"));
        command.args(["agent", "--node", node, "--underlay", underlay, "--accel", "tcg", "--home"]).arg(&home);
        command.args(["--boot-id", &format!("{}-{node}-0", state["tag"].as_str().unwrap_or_default())]);
        if state["shared"] == true {
            command.arg("--shared-disks").arg(self.home.join("disks"));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/").spawn()?;
        Ok(())
    }

    /// The nodes on which a server has a process.
    fn processes(&self, server: &Server) -> Result<Vec<String>> {
        Ok(self.processes_numbered(server)?.into_iter().map(|(_, node)| node).collect())
    }

    fn processes_numbered(&self, server: &Server) -> Result<Vec<(u32, String)>> {
        let mut nodes = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.starts_with("qemu-system") && line.contains(&format!("guest={}", server.id)) {
                let place = format!("\"{}/", self.home.display());
                let node = line.split(&place).nth(1).and_then(|rest| rest.split('/').next()).unwrap_or("?");
                let pid = entry.file_name().to_string_lossy().parse()?;
                nodes.push((pid, node.to_owned()));
            }
        }
        Ok(nodes)
    }

    /// Waits until this is held of a node; how long that took.
    pub async fn wait_for_node_state(&self, node: &str, state: &str, patience: Duration) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let told = self.admin.ok(Method::GET, "/arcus/v1/nodes", None).await?;
            let all = told["nodes"].as_array().context("no list")?;
            let now = all.iter().find(|one| one["name"] == node).context("the node is not known")?;
            if now["state"] == state {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < patience, "the node is not {state}: {now}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// The nodes on which a server has a process must be these, each time that it is looked, for so long.
    pub async fn processes_stay(&self, server: &Server, nodes: &[&str], how_long: Duration) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < how_long {
            let found = self.processes(server)?;
            ensure!(found == nodes, "the server has processes on {found:?}, not on {nodes:?}");
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// The server's process on a node, by number.
    pub fn process(&self, server: &Server, node: &str) -> Result<u32> {
        let found = self.processes_numbered(server)?.into_iter().find(|(_, on)| on == node);
        found.map(|(pid, _)| pid).with_context(|| format!("the server has no process on {node}"))
    }

    /// Waits until a server has one process, on this node.
    pub async fn wait_for_one_process(&self, server: &Server, node: &str, patience: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let found = self.processes(server)?;
            if found == [node] {
                return Ok(());
            }
            ensure!(began.elapsed() < patience, "the server has processes on {found:?}, not one on {node}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Takes it down and sees that nothing is left.
    pub fn down(mut self) -> Result<()> {
        let tag = self.state()?["tag"].as_str().unwrap_or_default().to_owned();
        self.gone = true;
        arcus(&self.home, &["down"])?;
        ensure!(!self.home.exists(), "{} is left", self.home.display());
        let left: Vec<_> = std::fs::read_dir("/run/netns")?.flatten().map(|e| e.file_name()).collect();
        ensure!(!left.iter().any(|name| name.to_string_lossy().contains(&tag)), "namespaces are left: {left:?}");
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.gone {
            if std::env::var_os("ARCUS_KEEP_LAB").is_some() {
                eprintln!("the lab stays in {}", self.home.display());
            } else if let Err(error) = arcus(&self.home, &["down"]) {
                eprintln!("{error:#}");
            }
        }
    }
}

impl Server {
    async fn show(&self) -> Result<Value> {
        Ok(self.admin.ok(Method::GET, &format!("{SERVERS}/{}", self.id), None).await?["server"].clone())
    }

    /// Waits until one of its fields has this value; an ERROR ends the wait.
    pub async fn wait_for(&self, field: &str, value: &str, patience: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let now = self.show().await?;
            if now[field] == value {
                return Ok(());
            }
            ensure!(now["status"] != "ERROR" && began.elapsed() < patience, "{field} is not {value}: {now}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// The node that it is on.
    pub async fn node(&self) -> Result<String> {
        let now = self.show().await?;
        now["OS-EXT-SRV-ATTR:host"].as_str().map(str::to_owned).with_context(|| format!("it is on no node: {now}"))
    }

    /// Asks for a live migration.
    pub async fn migrate(&self, node: Option<&str>) -> Result<()> {
        let body = json!({ "os-migrateLive": { "host": node, "block_migration": "auto" } });
        self.admin.ok(Method::POST, &format!("{SERVERS}/{}/action", self.id), Some(&body)).await.map(drop)
    }

    /// Asks the native API for a live migration; what it answers.
    pub async fn live_migration(&self, wish: Value) -> Result<(u16, Value)> {
        let path = format!("/arcus/v1/servers/{}/live-migration", self.id);
        let (status, told) = self.admin.call(Method::POST, &path, Some(&json!({ "live_migration": wish }))).await?;
        Ok((status.as_u16(), told))
    }

    /// Waits until a task is over; how it ended.
    pub async fn task_over(&self, task: &Value, patience: Duration) -> Result<Value> {
        let path = format!("/arcus/v1/tasks/{}", id(task)?);
        let began = Instant::now();
        loop {
            let now = self.admin.ok(Method::GET, &path, None).await?["task"].clone();
            if !now["finished_at"].is_null() {
                return Ok(now);
            }
            ensure!(began.elapsed() < patience, "the task is not over: {now}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn live(&self) -> Result<Option<Value>> {
        let path = format!("{SERVERS}/{}/migrations", self.id);
        let told = self.admin.ok(Method::GET, &path, None).await?;
        Ok(told["migrations"].as_array().and_then(|all| all.first()).cloned())
    }

    /// Waits until its move is so far, or over.
    pub async fn wait_for_status(&self, status: &str, patience: Duration) -> Result<()> {
        let began = Instant::now();
        while let Some(live) = self.live().await? {
            if live["status"] == status {
                return Ok(());
            }
            ensure!(began.elapsed() < patience, "the move is not {status}: {live}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Asks for an action as an administrator; the HTTP status of the answer.
    pub async fn act(&self, body: Value) -> Result<u16> {
        let path = format!("{SERVERS}/{}/action", self.id);
        // The first version in which a move can name its node.
        let mut admin = self.admin.clone();
        admin.compute = "compute 2.56";
        Ok(admin.call(Method::POST, &path, Some(&body)).await?.0.as_u16())
    }

    /// Asks to start it elsewhere; the HTTP status of the answer.
    pub async fn evacuate(&self) -> Result<u16> {
        self.act(json!({ "evacuate": {} })).await
    }

    /// What clients are told of it while its node is down.
    pub async fn is_down(&self, host_status: &str) -> Result<()> {
        let now = self.show().await?;
        ensure!(now["status"] == "ACTIVE" && now["OS-EXT-STS:power_state"] == 0, "it is said to be well: {now}");
        ensure!(now["host_status"] == host_status && now["fault"]["code"] == 503, "its node is said to be well: {now}");
        Ok(())
    }

    /// Waits until it is well on a node, with no task.
    pub async fn wait_for_active(&self, node: &str, patience: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let now = self.show().await?;
            let well = now["status"] == "ACTIVE" && now["OS-EXT-STS:task_state"].is_null();
            if well && now["OS-EXT-STS:power_state"] == 1 && now["OS-EXT-SRV-ATTR:host"] == node {
                return Ok(());
            }
            ensure!(began.elapsed() < patience, "it is not well on {node}: {now}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Gives its move up.
    pub async fn cancel(&self) -> Result<()> {
        let live = self.live().await?.context("nothing moves")?;
        let path = format!("{SERVERS}/{}/migrations/{}", self.id, live["id"]);
        self.admin.ok(Method::DELETE, &path, None).await.map(drop)
    }

    /// Waits until its move is over, one way or the other.
    pub async fn wait_for_end(&self, patience: Duration) -> Result<()> {
        let began = Instant::now();
        while let Some(live) = self.live().await? {
            if began.elapsed() > patience {
                bail!("the move does not end: {live}");
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// How its last move went.
    pub async fn last_status(&self) -> Result<String> {
        let path = format!("/compute/v2.1/os-migrations?instance_uuid={}", self.id);
        let told = self.admin.ok(Method::GET, &path, None).await?;
        let status = told["migrations"][0]["status"].as_str();
        status.map(str::to_owned).with_context(|| format!("it never moved: {told}"))
    }

    /// Waits until it is on a node.
    pub async fn wait_for_node(&self, node: &str, patience: Duration) -> Result<()> {
        self.wait_for_end(patience).await?;
        let (now, status) = (self.node().await?, self.last_status().await?);
        ensure!(now == node && status == "completed", "the server is on {now}, its move {status}");
        Ok(())
    }
}
