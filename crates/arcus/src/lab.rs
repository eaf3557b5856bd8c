//! `arcus lab`: a cloud of several nodes on one machine, to try things that need more than one and to break them.
//!
//! Each node is a network namespace with an agent, an underlay address and a storage folder of its own; a bridge in yet
//! another namespace plays the physical network. The server runs in the machine's own namespace. Commands leave nothing
//! running but these: what a lab is stands in its home folder, what runs is asked of the kernel.

mod simulated;
mod state;
mod wire;

use crate::cli::{Lab as Options, LabCommand, LabSlow, LabStart};
use crate::daemon::{logins, running_url, server_answers};
use crate::first_server::{self, Progress};
use crate::home::Home;
use crate::session::Session;
use crate::{down, uplink};
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use state::{Lab, Machine, pair};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wire::Slow;

/// How long nodes may take to join and tell what they have; a simulated one adds a little.
const JOIN_DEADLINE: Duration = Duration::from_secs(60);
const JOIN_EACH: Duration = Duration::from_millis(500);
/// The folder of a lab that all its nodes see.
const SHARED: &str = "disks";
/// How long a killed process may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Runs the command.
pub fn lab(options: Options) -> Result<()> {
    let home = |create: bool| {
        if !create && !options.home.exists() {
            bail!("there is no lab in {}: make one with arcus lab --nodes 2", options.home.display());
        }
        Home::open(&options.home, create)
    };
    match options.command {
        None => start(&home(true)?, &options.start),
        Some(LabCommand::Status) => status(&home(false)?),
        Some(LabCommand::Down) if !options.home.exists() => {
            println!("There is no lab in {}.", options.home.display());
            Ok(())
        }
        Some(LabCommand::Down) => take_down(&home(false)?),
        Some(LabCommand::PowerOff { node }) => change(&home(false)?, |home, lab| power_off(home, lab, &node)),
        Some(LabCommand::PowerOn { node }) => change(&home(false)?, |home, lab| power_on(home, lab, &node)),
        Some(LabCommand::Cut(ends)) => {
            change(&home(false)?, |_, lab| cable(lab, &ends.node, ends.other.as_deref(), true))
        }
        Some(LabCommand::Heal(ends)) => {
            change(&home(false)?, |_, lab| cable(lab, &ends.node, ends.other.as_deref(), false))
        }
        Some(LabCommand::Slow(how)) => change(&home(false)?, |_, lab| slow(lab, &how)),
        Some(LabCommand::SimulatedNodes(how)) => simulated::run(how),
    }
}

/// Changes a lab and keeps what it is then, also after half of the change.
fn change(home: &Home, change: impl FnOnce(&Home, &mut Lab) -> Result<()>) -> Result<()> {
    let mut lab = Lab::read(home)?;
    let done = change(home, &mut lab);
    lab.write(home)?;
    done
}

fn start(home: &Home, options: &LabStart) -> Result<()> {
    if Lab::exists(home) {
        bail!("there is a lab in {} already: arcus lab status, arcus lab down", home.path().display());
    }
    let nodes = options.nodes.unwrap_or(if options.sim > 0 { 0 } else { 3 });
    if nodes > state::NODES_MAX {
        bail!("at most {} nodes fit into a lab; --sim simulates more", state::NODES_MAX);
    }
    if nodes > 0 && !nix::unistd::geteuid().is_root() {
        bail!("a lab's nodes are network namespaces: run it as root, or simulate them with --sim");
    }
    let mut lab = plan(home, options, nodes)?;
    lab.write(home)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let made = runtime.block_on(make(home, &mut lab, options));
    lab.write(home)?;
    made.with_context(|| {
        format!("the lab did not come up; remove it with arcus lab --home {} down", home.path().display())
    })
}

fn plan(home: &Home, options: &LabStart, nodes: u8) -> Result<Lab> {
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let tag: String =
        rand::random::<[u8; 4]>().iter().map(|b| char::from(letters[usize::from(*b) % letters.len()])).collect();
    let range = if nodes > 0 { Some(uplink::lab_range(home.path())?.network()) } else { None };
    let mut lab = Lab {
        tag,
        range,
        url: String::new(),
        nodes: Vec::new(),
        simulated: options.sim,
        accel: options.accel.clone(),
        cuts: Vec::new(),
        shared: options.shared,
    };
    let listen = if range.is_some() { lab.server_address()? } else { std::net::Ipv4Addr::LOCALHOST };
    lab.url = format!("https://{listen}:{}", options.port);
    if let Some(range) = range {
        let [a, b, c, _] = range.octets();
        let machine = |number| Machine {
            name: format!("n{number}"),
            underlay: std::net::Ipv4Addr::new(a, b, c, number),
            boots: 0,
            on: false,
            cut: false,
            slow: Slow::default(),
        };
        lab.nodes = (1..=nodes).map(machine).collect();
    }
    Ok(lab)
}

async fn make(home: &Home, lab: &mut Lab, options: &LabStart) -> Result<()> {
    let progress = Progress::new();
    if lab.range.is_some() {
        progress.step("laying the cables");
        wire::make(lab)?;
    }
    progress.step("starting the server");
    let server = Home::open(&home.join("s"), true)?;
    let mut child = server_spawn(&server, lab, options.port)?;
    server_answers(&server, &lab.url, &mut child).await?;
    let admin = admin(home).await?;
    let count = u64::from(lab.simulated) + lab.nodes.len() as u64;
    let wish = json!({ "join_token": { "uses": count, "lifetime_s": 3600 } });
    let made = admin.post("/arcus/v1/join-tokens", wish).await?;
    let token = made["join_token"]["token"].as_str().context("the answer has no token")?.to_owned();
    if lab.shared {
        let folder = home.join(SHARED);
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711))?;
    }
    progress.step("starting the nodes");
    for index in 0..lab.nodes.len() {
        let Some(node) = lab.nodes.get_mut(index) else { continue };
        node.on = true;
        let node = node.clone();
        wire::node_make(lab, &node)?;
        agent_spawn(home, lab, &node, Some(&token))?;
    }
    if lab.simulated > 0 {
        simulated_spawn(home, lab, &token)?;
    }
    progress.step("waiting until the nodes have joined");
    nodes_up(&admin, count).await?;
    if let Some(image) = &options.image {
        first_server::prepare(&server, &lab.url, image, false, &progress).await?;
    }
    progress.done();
    println!("The lab answers on {}: {} nodes, {} simulated ones.", lab.url, lab.nodes.len(), lab.simulated);
    println!("  export OS_CLIENT_CONFIG_FILE={}", server.join("clouds.yaml").display());
    println!("  openstack --os-cloud arcus-admin hypervisor list");
    println!(
        "  arcus lab --home {} status | power-off n1 | cut n1 n2 | slow n1 --rate 100 | down",
        home.path().display()
    );
    Ok(())
}

/// A process of this program that outlives us, with its log in its home folder.
fn detached(mut command: Command, home: &Home) -> Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(home.join("arcus.log"))?;
    command.env_remove("ARCUS_NODE").env_remove("ARCUS_UNDERLAY").env_remove("ARCUS_UPLINK");
    command.env_remove("ARCUS_DATABASE").env_remove("ARCUS_JOIN_TOKEN");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().context("could not start Arcus in the background")
}

fn server_spawn(server: &Home, lab: &Lab, port: u16) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    let listen = if lab.range.is_some() { lab.server_address()? } else { std::net::Ipv4Addr::LOCALHOST };
    command.args(["server", "--port", &port.to_string(), "--listen", &listen.to_string(), "--home"]);
    command.arg(server.path());
    detached(command, server)
}

fn agent_spawn(home: &Home, lab: &Lab, node: &Machine, token: Option<&str>) -> Result<()> {
    let own = Home::open(&home.join(&node.name), true)?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", lab.namespace(&node.name))).arg(std::env::current_exe()?);
    command.args(["agent", "--node", &node.name, "--underlay", &node.underlay.to_string(), "--accel", &lab.accel]);
    command.args(["--boot-id", &format!("{}-{}-{}", lab.tag, node.name, node.boots), "--home"]).arg(own.path());
    if lab.shared {
        command.arg("--shared-disks").arg(home.join(SHARED));
    }
    if let Some(token) = token {
        command.args(["--join", &lab.url, "--token", token]);
    }
    detached(command, &own).map(drop)
}

fn simulated_spawn(home: &Home, lab: &Lab, token: &str) -> Result<()> {
    let own = Home::open(&home.join("sim"), true)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["lab", "simulated-nodes", "--count", &lab.simulated.to_string()]);
    command.args(["--join", &lab.url, "--token", token, "--folder"]).arg(own.path());
    detached(command, &own).map(drop)
}

async fn admin(home: &Home) -> Result<Session> {
    let server = Home::open(&home.join("s"), false)?;
    let url = running_url(&server).context("the lab's server does not run")?;
    Session::login(&server, &url, "admin", &logins(&server)?.admin_password, "admin").await
}

async fn hypervisors(admin: &Session) -> Result<Vec<Value>> {
    let (mut all, mut marker) = (Vec::new(), String::new());
    loop {
        let told = admin.get(&format!("/compute/v2.1/os-hypervisors/detail?limit=1000{marker}")).await?;
        let page = told["hypervisors"].as_array().cloned().unwrap_or_default();
        let last = page.last().and_then(|node| node["id"].as_i64());
        let more = told["hypervisors_links"].is_array();
        all.extend(page);
        match last {
            Some(last) if more => marker = format!("&marker={last}"),
            _ => return Ok(all),
        }
    }
}

async fn nodes_up(admin: &Session, count: u64) -> Result<()> {
    let patience = JOIN_DEADLINE + JOIN_EACH * u32::try_from(count).unwrap_or(u32::MAX);
    let deadline = Instant::now() + patience;
    loop {
        let known = hypervisors(admin).await?;
        let up = known.iter().filter(|node| node["state"] == "up").count() as u64;
        if up >= count {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{up} of {count} nodes have joined; each node's folder has its log");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn status(home: &Home) -> Result<()> {
    let lab = Lab::read(home)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let known = runtime.block_on(async {
        match admin(home).await {
            Ok(admin) => hypervisors(&admin).await,
            Err(error) => Err(error),
        }
    });
    match &known {
        Ok(_) => println!("endpoint  {}", lab.url),
        Err(error) => println!("endpoint  {} does not answer: {error:#}", lab.url),
    }
    let known = known.unwrap_or_default();
    println!("{:<10} {:<16} {:<6} {:<8} {:<8} {:>7}  cable", "node", "underlay", "power", "agent", "server", "guests");
    for node in &lab.nodes {
        let own = Home::open(&home.join(&node.name), false);
        let agent = own.ok().and_then(|own| own.running()).map_or("-".to_owned(), |pid| pid.to_string());
        let seen = known.iter().find(|seen| seen["hypervisor_hostname"] == node.name.as_str());
        let said = seen.and_then(|seen| seen["state"].as_str()).unwrap_or("-").to_owned();
        let guests = seen.and_then(|seen| seen["running_vms"].as_u64()).unwrap_or(0);
        let power = if node.on { "on" } else { "off" };
        println!(
            "{:<10} {:<16} {power:<6} {agent:<8} {said:<8} {guests:>7}  {}",
            node.name,
            node.underlay.to_string(),
            cable_words(&lab, node)
        );
    }
    if lab.simulated > 0 {
        let up = known.iter().filter(|seen| {
            let name = seen["hypervisor_hostname"].as_str().unwrap_or_default();
            name.starts_with("sim-") && seen["state"] == "up"
        });
        println!("simulated  {} of {} up", up.count(), lab.simulated);
    }
    Ok(())
}

fn cable_words(lab: &Lab, node: &Machine) -> String {
    let mut words = Vec::new();
    if node.cut {
        words.push("cut".to_owned());
    }
    for (a, b) in lab.cuts.iter().filter(|(a, b)| *a == node.name || *b == node.name) {
        words.push(format!("cut from {}", if *a == node.name { b } else { a }));
    }
    let Slow { delay_ms, rate_mbit, loss_millipercent } = node.slow;
    if delay_ms > 0 {
        words.push(format!("{delay_ms} ms"));
    }
    if rate_mbit > 0 {
        words.push(format!("{rate_mbit} Mbit/s"));
    }
    if loss_millipercent > 0 {
        words.push(format!("{} % lost", f64::from(loss_millipercent) / 1000.0));
    }
    if words.is_empty() { "good".to_owned() } else { words.join(", ") }
}

/// Ends everything on a node at once, as a power cut does, and takes away what its kernel held.
fn power_off(home: &Home, lab: &mut Lab, name: &str) -> Result<()> {
    let node = lab.node(name)?.clone();
    let deadline = Instant::now() + KILL_DEADLINE;
    loop {
        let alive = wire::processes(lab, &node);
        if alive.is_empty() {
            break;
        }
        for pid in alive {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if Instant::now() > deadline {
            bail!("processes of {name} do not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if let Ok(tag) = std::fs::read_to_string(home.join(name).join("agent/tag")) {
        wire::agent_namespaces_remove(tag.trim())?;
    }
    wire::node_remove(lab, &node)?;
    lab.node_mut(name)?.on = false;
    Ok(())
}

fn power_on(home: &Home, lab: &mut Lab, name: &str) -> Result<()> {
    let node = lab.node_mut(name)?;
    if node.on {
        bail!("{name} is on");
    }
    node.boots += 1;
    node.on = true;
    let node = node.clone();
    wire::node_remove(lab, &node)?;
    wire::node_make(lab, &node)?;
    agent_spawn(home, lab, &node, None)
}

fn cable(lab: &mut Lab, name: &str, other: Option<&str>, cut: bool) -> Result<()> {
    let Some(other) = other else {
        let node = lab.node_mut(name)?;
        node.cut = cut;
        let node = node.clone();
        return if node.on { wire::plug(lab, &node) } else { Ok(()) };
    };
    for end in [name, other] {
        if end != wire::SERVER {
            lab.node(end)?;
        }
    }
    let pair = pair(name, other)?;
    lab.cuts.retain(|have| *have != pair);
    if cut {
        lab.cuts.push(pair);
    }
    wire::filter(lab)
}

fn slow(lab: &mut Lab, how: &LabSlow) -> Result<()> {
    if !(0.0..=100.0).contains(&how.loss) {
        bail!("--loss is a percentage");
    }
    // A percentage of at most 100 with three digits behind the point.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was checked to be from 0 to 100")]
    let loss_millipercent = (how.loss * 1000.0).round() as u32;
    let node = lab.node_mut(&how.node)?;
    node.slow = Slow { delay_ms: how.delay, rate_mbit: how.rate, loss_millipercent };
    let node = node.clone();
    wire::filter(lab)?;
    if node.on { wire::slow(lab, &node) } else { Ok(()) }
}

fn take_down(home: &Home) -> Result<()> {
    let mut lab = Lab::read(home)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for name in lab.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>() {
        power_off(home, &mut lab, &name)?;
        let own = home.join(&name);
        if own.join("agent").exists() {
            let own = Home::open(&own, false)?;
            runtime.block_on(down::end_guests(&own, false))?;
        }
    }
    for folder in ["sim", "s"] {
        let folder = home.join(folder);
        if folder.exists() {
            runtime.block_on(down::stop_process(&Home::open(&folder, false)?))?;
        }
    }
    if lab.range.is_some() {
        wire::unmake(&lab)?;
    }
    remove(home.path())?;
    println!("The lab is down, and {} is removed.", home.path().display());
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    std::fs::remove_dir_all(path).with_context(|| format!("could not remove {}", path.display()))
}
