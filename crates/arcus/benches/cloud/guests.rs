//! A cloud with a network and the guest image, and a watch on how guests come to life in it.

use crate::arcus::Arcus;
use crate::session::{Session, id};
use anyhow::{Context as _, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a guest's `init` says first.
const INIT_SAYS: &str = "arcus-tiny: init";
/// How long a guest may take to get there.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);
const GONE_DEADLINE: Duration = Duration::from_secs(30);
/// How often is looked: nothing is measured finer than that.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// A virtual processor that is seen at work so often in a row has begun: before that it only wakes up to be told to wait.
const AT_WORK_IN_A_ROW: u32 = 3;

/// A cloud that is ready for servers.
pub struct Site {
    pub cloud: Arcus,
    session: Session,
    image: String,
    network: String,
}

/// A server of the site.
pub struct Server {
    pub id: String,
    pub began: Instant,
}

impl Site {
    pub async fn up() -> Result<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest/arcus-tiny.qcow2");
        let mut cloud = Arcus::new("bench", false)?;
        cloud.start().await?;
        Session::login(&cloud.home, &cloud.url, "arcus-admin").await?.node_ready().await?;
        let session = Session::login(&cloud.home, &cloud.url, "arcus").await?;
        let image = session.image_upload("bench", "qcow2", &file).await?;
        let body = json!({ "network": { "name": "bench" } });
        let network = id(&session.ok(Method::POST, "/network/v2.0/networks", Some(&body)).await?["network"])?;
        let body = json!({ "subnet": { "network_id": network, "ip_version": 4, "cidr": "10.66.0.0/24" } });
        session.ok(Method::POST, "/network/v2.0/subnets", Some(&body)).await?;
        Ok(Self { cloud, session, image, network })
    }

    /// Asks for a server with one interface; answers when the request was sent.
    pub async fn create(&self) -> Result<Server> {
        let body = json!({ "server": { "name": "bench", "imageRef": self.image, "flavorRef": "1",
            "networks": [{ "uuid": self.network }] } });
        let began = Instant::now();
        let answer = self.session.ok(Method::POST, "/compute/v2.1/servers", Some(&body)).await?;
        Ok(Server { id: id(&answer["server"])?, began })
    }

    /// Deletes a server and waits until nothing of it is left.
    pub async fn delete(&self, server: &Server) -> Result<()> {
        let path = format!("/compute/v2.1/servers/{}", server.id);
        self.session.ok(Method::DELETE, &path, None).await?;
        let began = Instant::now();
        while self.session.call(Method::GET, &path, None).await?.0 != StatusCode::NOT_FOUND {
            ensure!(began.elapsed() < GONE_DEADLINE, "a deleted server is still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Watches, on a thread of its own, for the process of the next guest.
    pub fn next_guest(&self) -> Result<tokio::task::JoinHandle<Result<Seen>>> {
        let folder = self.cloud.home.join("agent/guests");
        let known = guests(&folder)?;
        Ok(tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            loop {
                for guest in guests(&folder)?.difference(&known) {
                    let record = std::fs::read_to_string(guest.join("process")).unwrap_or_default();
                    if let Some(pid) = record.split(' ').next().and_then(|pid| pid.parse().ok()) {
                        return Ok(Seen { pid, at: Instant::now(), console: guest.join("console.log") });
                    }
                }
                ensure!(began.elapsed() < BOOT_DEADLINE, "no guest was started");
                std::thread::sleep(LOOK_EVERY);
            }
        }))
    }
}

fn guests(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).context("could not look for guests"),
    }
}

/// A guest's process, from when it was there. Our agent's child says so itself, before it becomes QEMU.
#[derive(Clone)]
pub struct Seen {
    pub pid: u32,
    pub at: Instant,
    pub console: PathBuf,
}

/// When a guest came to life.
pub struct Life {
    /// Its virtual processor executed its first instructions.
    pub runs: Instant,
    /// Its `init` said so on its console: firmware, loader and kernel are through.
    pub init: Instant,
}

impl Seen {
    /// The command line that the process was started with.
    pub fn command_line(&self) -> Result<Vec<OsString>> {
        use std::os::unix::ffi::OsStrExt;
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid))?;
        let words = line.split(|byte| *byte == 0).map(|word| std::ffi::OsStr::from_bytes(word).to_owned());
        let mut words: Vec<OsString> = words.collect();
        words.pop();
        Ok(words)
    }

    /// Waits, on a thread of its own, until the guest has come to life.
    pub async fn life(&self) -> Result<Life> {
        let seen = self.clone();
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let patience = || -> Result<()> {
                ensure!(began.elapsed() < BOOT_DEADLINE, "the guest does not boot");
                std::thread::sleep(LOOK_EVERY);
                Ok(())
            };
            let mut in_a_row = 0;
            while in_a_row < AT_WORK_IN_A_ROW {
                in_a_row = if seen.at_work() { in_a_row + 1 } else { 0 };
                patience()?;
            }
            let runs = Instant::now();
            while !std::fs::read_to_string(&seen.console).is_ok_and(|said| said.contains(INIT_SAYS)) {
                patience()?;
            }
            Ok(Life { runs, init: Instant::now() })
        })
        .await?
    }

    /// Whether the first virtual processor's thread has work to do at this moment.
    fn at_work(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.pid)) else { return false };
        threads.flatten().any(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.split_once(" (CPU 0/")
                .and_then(|(_, rest)| rest.rsplit_once(") "))
                .is_some_and(|(_, s)| s.starts_with('R'))
        })
    }
}
