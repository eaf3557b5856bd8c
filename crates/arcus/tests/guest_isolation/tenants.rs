//! The two tenants and their guests.

use crate::client::{Client, Ssh};
use crate::cloud::Cloud;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A running guest, as its owner reaches it.
pub struct Guest {
    pub name: String,
    /// The server's id.
    pub id: String,
    /// Its address in the tenant's own range.
    pub fixed: String,
    pub mac: String,
    pub floating: String,
    pub ssh: Ssh,
}

impl Guest {
    fn new(made: &Value, name: &str, key: &Path) -> Self {
        let field =
            |field: &str| made[name][field].as_str().unwrap_or_else(|| panic!("{name} has no {field}")).to_owned();
        let floating = field("floating");
        let ssh = Ssh::new(key, &floating);
        Self { name: name.to_owned(), id: field("id"), fixed: field("fixed"), mac: field("mac"), floating, ssh }
    }

    /// What a command inside prints, whatever its status is.
    pub fn answer(&self, command: &str) -> String {
        self.ssh.run(&format!("{{ {command}\n}} 2>/dev/null; true"))
    }

    /// How many pings have come in since the guest started. Nothing but pings counts here, so it can be compared.
    pub fn pings_received(&self) -> u64 {
        let counters = self.answer("grep ^Icmp: /proc/net/snmp");
        let (names, values) = counters.split_once('\n').unwrap_or_else(|| panic!("no counters: {counters}"));
        let column = names.split(' ').position(|name| name == "InEchos").unwrap();
        values.split(' ').nth(column).unwrap().parse().unwrap()
    }
}

/// Red has two guests, blue one with the same address as red's first.
pub struct Tenants {
    pub red: Client,
    pub blue: Client,
    pub red_a: Guest,
    pub red_b: Guest,
    /// Has a config drive.
    pub blue_a: Guest,
}

impl Tenants {
    pub fn new(cloud: &Cloud, admin: &Client) -> Self {
        admin.run(&["project", "create", "blue"]);
        admin.run(&["user", "create", "--project", "blue", "--password", "blue-password", "blue"]);
        admin.run(&["role", "add", "--user", "blue", "--project", "blue", "member"]);
        add_login(cloud);
        let (red, blue) = (Client::new(cloud, "arcus"), Client::new(cloud, "blue"));
        let key = key_pair(red.folder());
        let public = key.with_extension("key.pub").display().to_string();
        let make = |client: &Client, cloud: &str, guests: &[&str]| -> Value {
            let args = [&[cloud, &public, "arcus-tiny"], guests].concat();
            let printed = client.python("../guest_isolation/tenant.py", &args);
            serde_json::from_str(&printed).unwrap_or_else(|e| panic!("tenant.py: {e}: {printed}"))
        };
        let reds = make(&red, "arcus", &["red-a=10.66.0.10", "red-b=10.66.0.11"]);
        let blues = make(&blue, "blue", &["blue-a=10.66.0.10,drive"]);
        let (red_a, red_b) = (Guest::new(&reds, "red-a", &key), Guest::new(&reds, "red-b", &key));
        let blue_a = Guest::new(&blues, "blue-a", &key);
        Self { red, blue, red_a, red_b, blue_a }
    }

    pub fn guests(&self) -> [&Guest; 3] {
        [&self.red_a, &self.red_b, &self.blue_a]
    }
}

/// Adds the second tenant to the logins that the clients read.
fn add_login(cloud: &Cloud) {
    let path = cloud.home().join("clouds.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (_, rest) = text.split_once("  arcus:\n").unwrap();
    let (entry, _) = rest.split_once("  arcus-admin:\n").unwrap();
    let entry: Vec<String> = entry.lines().map(|line| login_line(line).unwrap_or_else(|| line.to_owned())).collect();
    std::fs::write(&path, format!("{text}  blue:\n{}\n", entry.join("\n"))).unwrap();
}

/// The second tenant's form of a line that tells who logs in.
fn login_line(line: &str) -> Option<String> {
    let (name, _) = line.split_once(": ")?;
    match name.trim() {
        "username" | "project_name" => Some(format!("{name}: blue")),
        "password" => Some(format!("{name}: blue-password")),
        _ => None,
    }
}

fn key_pair(folder: &Path) -> PathBuf {
    let key = folder.join("same.key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success(), "ssh-keygen failed");
    key
}
