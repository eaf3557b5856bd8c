//! A server of the project, and the process that its guest really is.

use crate::arcus::Arcus;
use crate::session::{Session, id};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long a guest's process may take to appear, the upload of its image to its node included.
const START_MAX: Duration = Duration::from_secs(60);

/// A server without network: nothing that it does needs the cloud once it runs.
pub struct Guest {
    session: Session,
    id: String,
    folder: PathBuf,
}

/// A process, told apart from a later one with the same number by when it began.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    start_ticks: String,
}

impl Process {
    fn of(pid: i32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the guest has no process")?;
        let (_, fields) = stat.rsplit_once(") ").context("not a process's status")?;
        let mut fields = fields.split(' ');
        ensure!(fields.next() != Some("Z"), "the guest's process has ended");
        let start_ticks = fields.nth(18).context("not a process's status")?.to_owned();
        Ok(Self { pid, start_ticks })
    }

    /// Whether it has not ended.
    pub fn lives(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid), Signal::SIGKILL)?)
    }
}

impl Guest {
    /// Makes a server and waits until its guest's process runs.
    pub async fn boot(cloud: &Arcus, session: &Session) -> Result<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest/arcus-tiny.qcow2");
        ensure!(file.exists(), "{} is missing: run `cargo xtask image`", file.display());
        let image = session.image_upload("survival", "qcow2", &file).await?;
        let body = json!({ "server": { "name": "survivor", "imageRef": image, "flavorRef": "1", "networks": "none",
            "config_drive": true } });
        let server = session.ok(Method::POST, "/compute/v2.1/servers", Some(&body)).await?;
        let id = id(&server["server"])?;
        let folder = cloud.home.join("agent/guests").join(&id);
        let guest = Self { session: session.clone(), id, folder };
        let began = Instant::now();
        while guest.process().is_err() || guest.console().is_err() {
            ensure!(began.elapsed() < START_MAX, "the guest has no process; the server is {}", guest.status().await?);
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(guest)
    }

    /// The same server, seen by another session.
    pub fn seen_by(self, session: Session) -> Self {
        Self { session, ..self }
    }

    /// The process that the guest is.
    pub fn process(&self) -> Result<Process> {
        let record = std::fs::read_to_string(self.folder.join("process"))?;
        let pid = record.split(' ').next().and_then(|pid| pid.parse().ok()).context("no number of a process")?;
        Process::of(pid)
    }

    /// What the guest has written to its console.
    pub fn console(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.folder.join("console.log"))?).into_owned())
    }

    pub async fn wait_for_console(&self, text: &str, at_most: Duration) -> Result<()> {
        let began = Instant::now();
        while !self.console()?.contains(text) {
            ensure!(began.elapsed() < at_most, "the console does not say {text:?}: {}", self.console()?);
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    fn path(&self) -> String {
        format!("/compute/v2.1/servers/{}", self.id)
    }

    pub async fn status(&self) -> Result<String> {
        let answer = self.session.ok(Method::GET, &self.path(), None).await?;
        Ok(answer["server"]["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Asks for an action that takes no arguments, or for a hard reboot.
    pub async fn act(&self, action: &str) -> Result<()> {
        let arguments = if action == "reboot" { json!({ "type": "HARD" }) } else { json!(null) };
        let path = format!("{}/action", self.path());
        self.session.ok(Method::POST, &path, Some(&json!({ action: arguments }))).await.map(drop)
    }

    /// Waits until the server is in this state and nothing is being done to it.
    pub async fn wait_for_status(&self, wanted: &str, at_most: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let answer = self.session.ok(Method::GET, &self.path(), None).await?;
            let server = &answer["server"];
            if server["status"] == wanted && server["OS-EXT-STS:task_state"].is_null() {
                return Ok(());
            }
            ensure!(began.elapsed() < at_most, "the server is not {wanted} after {at_most:?}: {server}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Waits until the server's status is another one; answers it and how long that took.
    pub async fn wait_for_change(&self, from: &str, at_most: Duration) -> Result<(String, Duration)> {
        let began = Instant::now();
        loop {
            let status = self.status().await?;
            if status != from {
                return Ok((status, began.elapsed()));
            }
            ensure!(began.elapsed() < at_most, "the server is still {from} after {at_most:?}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}
