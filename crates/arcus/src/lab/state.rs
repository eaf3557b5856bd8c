//! What is remembered of a lab between commands: one file in its home folder.

use super::wire::Slow;
use crate::home::Home;
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

const FILE: &str = "lab.json";
/// Nodes have the first addresses of the range, the server the last.
const SERVER_HOST: u8 = 254;
/// So many real nodes fit into a lab's range of addresses.
pub const NODES_MAX: u8 = 200;

/// A lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lab {
    /// Four letters or digits that begin the names of everything that it has in the kernel.
    pub tag: String,
    /// The first address of its range, a /24; `None` without real nodes.
    pub range: Option<Ipv4Addr>,
    /// The endpoint.
    pub url: String,
    /// The real nodes.
    pub nodes: Vec<Machine>,
    /// How many simulated nodes there are.
    pub simulated: u32,
    /// How guests run.
    pub accel: String,
    /// Whether servers' disks are in a folder that all nodes see.
    #[serde(default)]
    pub shared: bool,
    /// Pairs that do not reach each other.
    pub cuts: Vec<(String, String)>,
}

/// A node with a namespace for a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Its name: `n1`, `n2`, …
    pub name: String,
    /// Its address on the bridge.
    pub underlay: Ipv4Addr,
    /// How often it was switched on: what the kernel's boot id tells on a real machine.
    pub boots: u32,
    /// Whether it is switched on.
    pub on: bool,
    /// Whether its cable is pulled.
    pub cut: bool,
    /// How its cable is slowed.
    pub slow: Slow,
}

impl Lab {
    /// The lab of a home folder.
    pub fn read(home: &Home) -> Result<Self> {
        let text = std::fs::read_to_string(home.join(FILE)).with_context(|| {
            format!("there is no lab in {}: make one with arcus lab --nodes 2", home.path().display())
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", home.join(FILE).display()))
    }

    /// Whether the folder has one.
    pub fn exists(home: &Home) -> bool {
        home.join(FILE).exists()
    }

    /// Keeps what is remembered.
    pub fn write(&self, home: &Home) -> Result<()> {
        home.write_private(FILE, &serde_json::to_string_pretty(self)?)
    }

    /// One of its namespaces.
    pub fn namespace(&self, name: &str) -> String {
        format!("arcus-lab-{}-{name}", self.tag)
    }

    /// The machine's own end of the cable to the bridge.
    pub fn device(&self) -> String {
        format!("al{}", self.tag)
    }

    /// The server's address on the bridge.
    pub fn server_address(&self) -> Result<Ipv4Addr> {
        let [a, b, c, _] = self.range.context("this lab has no bridge")?.octets();
        Ok(Ipv4Addr::new(a, b, c, SERVER_HOST))
    }

    /// The real node of that name.
    pub fn node(&self, name: &str) -> Result<&Machine> {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.with_context(|| format!("there is no node {name} in this lab; there are {}", self.names()))
    }

    /// The real node of that name, to change it.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Machine> {
        let names = self.names();
        let found = self.nodes.iter_mut().find(|node| node.name == name);
        found.with_context(|| format!("there is no node {name} in this lab; there are {names}"))
    }

    fn names(&self) -> String {
        self.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// A pair of names in the order in which pairs are kept.
pub fn pair(a: &str, b: &str) -> Result<(String, String)> {
    if a == b {
        bail!("{a} is at both ends");
    }
    let (a, b) = if a < b { (a, b) } else { (b, a) };
    Ok((a.to_owned(), b.to_owned()))
}
