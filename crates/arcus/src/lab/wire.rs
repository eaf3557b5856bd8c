//! The physical network of a lab: a bridge in a namespace of its own, and a cable to each node's namespace.
//!
//! ```text
//!   machine            arcus-lab-<tag>-wire              arcus-lab-<tag>-n1
//!   al<tag> ---------- server -[ bridge wire ]- n1 ----- eth0   agent, guests
//! ```
//! No namespace of a lab has a route to anywhere but the lab's own range, so nothing leaves by the machine's links.

use super::state::{Lab, Machine};
use anyhow::{Context as _, Result, bail};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// The name of the server's port on the bridge.
pub const SERVER: &str = "server";
/// How many bytes a slowed cable may send at once, and how long it may queue.
const BURST_BYTES_MIN: u64 = 16 << 10;
const QUEUE_MS: u32 = 200;

/// How a cable is slowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Slow {
    /// Each way, in milliseconds.
    pub delay_ms: u32,
    /// Each way, in Mbit/s; 0 is without a limit.
    pub rate_mbit: u32,
    /// Each way, in thousandths of a percent.
    pub loss_millipercent: u32,
}

/// Makes the bridge and the machine's own cable to it.
pub fn make(lab: &Lab) -> Result<()> {
    let (wire, outer) = (lab.namespace("wire"), lab.device());
    ip(&["netns", "add", &wire])?;
    inside(&wire, &["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"])?;
    ip(&["-n", &wire, "link", "add", "wire", "type", "bridge", "stp_state", "0", "mcast_snooping", "0"])?;
    ip(&["-n", &wire, "link", "set", "wire", "up"])?;
    ip(&["link", "add", &outer, "type", "veth", "peer", "name", SERVER, "netns", &wire])?;
    ip(&["-n", &wire, "link", "set", SERVER, "master", "wire", "up"])?;
    ip(&["addr", "add", &format!("{}/24", lab.server_address()?), "dev", &outer])?;
    ip(&["link", "set", &outer, "up"])
}

/// Makes a node's namespace and its cable.
pub fn node_make(lab: &Lab, node: &Machine) -> Result<()> {
    let (wire, own) = (lab.namespace("wire"), lab.namespace(&node.name));
    ip(&["netns", "add", &own])?;
    ip(&["-n", &wire, "link", "add", &node.name, "type", "veth", "peer", "name", "eth0", "netns", &own])?;
    ip(&["-n", &own, "link", "set", "lo", "up"])?;
    ip(&["-n", &own, "addr", "add", &format!("{}/24", node.underlay), "dev", "eth0"])?;
    ip(&["-n", &own, "link", "set", "eth0", "up"])?;
    ip(&["-n", &wire, "link", "set", &node.name, "master", "wire"])?;
    plug(lab, node)?;
    slow(lab, node)
}

/// Plugs a node's cable in or out, as its record says.
pub fn plug(lab: &Lab, node: &Machine) -> Result<()> {
    let to = if node.cut { "down" } else { "up" };
    ip(&["-n", &lab.namespace("wire"), "link", "set", &node.name, to])
}

/// Slows a node's cable as its record says; packets that get lost are the filter's business.
pub fn slow(lab: &Lab, node: &Machine) -> Result<()> {
    for (place, device) in [(lab.namespace("wire"), node.name.as_str()), (lab.namespace(&node.name), "eth0")] {
        // There may be none.
        drop(run("tc", &["-n", &place, "qdisc", "del", "dev", device, "root"]));
        let Slow { delay_ms, rate_mbit, .. } = node.slow;
        let rate = format!("{rate_mbit}mbit");
        if delay_ms > 0 {
            let delay = format!("{delay_ms}ms");
            let mut words = vec!["-n", &place, "qdisc", "add", "dev", device, "root", "netem", "delay", &delay];
            if rate_mbit > 0 {
                words.extend(["rate", &rate]);
            }
            run("tc", &words).context(
                "this machine's kernel cannot delay packets (it lacks sch_netem); --rate and --loss work without it",
            )?;
        } else if rate_mbit > 0 {
            let burst = (u64::from(rate_mbit) * 1_000_000 / 8 / 250).max(BURST_BYTES_MIN).to_string();
            let queue = format!("{QUEUE_MS}ms");
            let words = ["-n", &place, "qdisc", "add", "dev", device, "root", "tbf", "rate", &rate];
            run("tc", &[&words[..], &["burst", &burst, "latency", &queue]].concat())?;
        }
    }
    Ok(())
}

/// Writes the bridge's filter: pairs that do not reach each other, and packets that get lost.
pub fn filter(lab: &Lab) -> Result<()> {
    let mut rules =
        String::from("add table bridge lab\ndelete table bridge lab\ntable bridge lab {\nchain forward {\n");
    rules.push_str("type filter hook forward priority 0; policy accept;\n");
    for (a, b) in &lab.cuts {
        let _ = write!(rules, "iifname \"{a}\" oifname \"{b}\" drop\niifname \"{b}\" oifname \"{a}\" drop\n");
    }
    for node in lab.nodes.iter().filter(|node| node.slow.loss_millipercent > 0) {
        let (name, loss) = (&node.name, node.slow.loss_millipercent);
        for side in ["iifname", "oifname"] {
            let _ = writeln!(rules, "{side} \"{name}\" numgen random mod 100000 < {loss} drop");
        }
    }
    rules.push_str("}\n}\n");
    let wire = format!("--net=/run/netns/{}", lab.namespace("wire"));
    let mut child = Command::new("nsenter")
        .args([&wire, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("could not run nsenter; it is in the package util-linux")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(rules.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("nft refused: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The processes of a node: everything that runs in its namespace.
pub fn processes(lab: &Lab, node: &Machine) -> Vec<i32> {
    let own = lab.namespace(&node.name);
    if !exists(&own) {
        return Vec::new();
    }
    let said = run("ip", &["netns", "pids", &own]).unwrap_or_default();
    said.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Takes a node's namespace and cable away; nothing happens if they are gone.
pub fn node_remove(lab: &Lab, node: &Machine) -> Result<()> {
    // The kernel removes a namespace's devices some time later; the cable shall be gone at once.
    drop(run("ip", &["-n", &lab.namespace("wire"), "link", "del", &node.name]));
    remove(&lab.namespace(&node.name))
}

/// Takes the bridge and the machine's cable away; nothing happens if they are gone.
pub fn unmake(lab: &Lab) -> Result<()> {
    drop(run("ip", &["link", "del", &lab.device()]));
    remove(&lab.namespace("wire"))
}

/// Takes away the namespaces that an agent made for its networks.
pub fn agent_namespaces_remove(tag: &str) -> Result<()> {
    let prefix = format!("arcus-{tag}-");
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Ok(()) };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if name.starts_with(&prefix) {
            remove(&name)?;
        }
    }
    Ok(())
}

fn remove(namespace: &str) -> Result<()> {
    if exists(namespace) { ip(&["netns", "del", namespace]) } else { Ok(()) }
}

fn exists(namespace: &str) -> bool {
    std::path::Path::new("/run/netns").join(namespace).exists()
}

fn inside(namespace: &str, words: &[&str]) -> Result<()> {
    let place = format!("--net=/run/netns/{namespace}");
    run("nsenter", &[&[place.as_str()], words].concat()).map(drop)
}

fn ip(words: &[&str]) -> Result<()> {
    run("ip", words).map(drop)
}

/// Runs a program; what it printed.
fn run(program: &str, words: &[&str]) -> Result<String> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("could not run {program}; is its package installed?"))?;
    if !output.status.success() {
        bail!("{program} {} failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
