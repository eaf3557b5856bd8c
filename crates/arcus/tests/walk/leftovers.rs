//! What a cloud leaves on the machine and in the database: looked for from outside.

use crate::cloud::{Cloud, text};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

/// Tables that hold what projects make.
const TABLES: &[&str] =
    &["servers", "ports", "networks", "subnets", "routers", "floating_ips", "security_groups", "keypairs", "images"];

/// Rows by table.
pub fn project_rows(cloud: &Cloud) -> BTreeMap<String, i64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use sqlx::Connection;
        let url = format!("sqlite://{}?mode=ro", cloud.home().join("arcus.db").display());
        let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let mut rows = BTreeMap::new();
        for table in TABLES {
            // Deleted servers are kept for a while, for `changes-since`, as records without a life of their own.
            let filter = if *table == "servers" { "WHERE deleted_at IS NULL" } else { "" };
            let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table} {filter}"));
            let count: i64 = sqlx::query_scalar(query).fetch_one(&mut db).await.unwrap();
            rows.insert((*table).to_owned(), count);
        }
        rows
    })
}

/// No guest's process and no guest's file is left.
pub fn assert_guests_gone(cloud: &Cloud) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let guests = processes(&cloud.home().display().to_string(), "qemu-system");
        let files = ["guests", "servers", "disks"].iter().map(|f| entries(cloud, &format!("agent/{f}"))).sum::<usize>();
        let remembered = remembered(cloud);
        if guests.is_empty() && files == 0 && remembered.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "left are processes {guests:?}, {files} folders of guests, and in the node's ledger {remembered:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The servers that the node's ledger remembers: those whose last line in its journal says something of them.
fn remembered(cloud: &Cloud) -> BTreeSet<String> {
    let journal = std::fs::read_to_string(cloud.home().join("agent/ledger/journal")).unwrap();
    let mut servers = BTreeSet::new();
    for line in journal.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let server = line["server"].as_str().unwrap().to_owned();
        if line["entry"].is_null() {
            servers.remove(&server)
        } else {
            servers.insert(server)
        };
    }
    servers
}

fn entries(cloud: &Cloud, folder: &str) -> usize {
    std::fs::read_dir(cloud.home().join(folder)).map_or(0, Iterator::count)
}

/// Processes whose command line names both.
fn processes(first: &str, second: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(first) && line.contains(second) {
            found.push(line);
        }
    }
    found
}

/// What would tell that a cloud has been on this machine.
pub struct Traces {
    home: String,
    tag: String,
}

impl Traces {
    pub fn of(cloud: &Cloud) -> Self {
        let tag = std::fs::read_to_string(cloud.home().join("agent/tag")).unwrap();
        Self { home: cloud.home().display().to_string(), tag }
    }

    /// No process, namespace, link, nftables table or control group is left.
    pub fn assert_gone(&self) {
        assert_eq!(processes(&self.home, ""), Vec::<String>::new(), "processes are left");
        for command in [&["ip", "netns", "list"][..], &["ip", "-o", "link"], &["nft", "list", "tables"]] {
            let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
            let printed = text(&output);
            let left: Vec<&str> = printed.lines().filter(|line| line.contains(&self.tag)).collect();
            assert!(left.is_empty(), "{command:?} still shows {left:?}");
        }
        let name = format!("*{}*", self.tag);
        let output = Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "3", "-name", &name]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "control groups are left");
    }
}
