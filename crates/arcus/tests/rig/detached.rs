//! `arcus up --detach --first-server`, as a newcomer types it, and `arcus down`.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a guest may take to answer under emulation on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(180);
const ASK_EVERY: Duration = Duration::from_millis(300);

/// A cloud in the background, taken down when it is dropped.
pub struct Detached {
    /// Its home folder.
    pub home: PathBuf,
    /// Its endpoint.
    pub url: String,
    port: u16,
    /// What `arcus up` is told; a cloud remembers it.
    pub database: Option<String>,
}

/// The first server, as `arcus up` tells of it.
#[derive(Debug, PartialEq, Eq)]
pub struct First {
    /// Its address in its own network.
    pub fixed: String,
    /// The address by which the machine reaches it.
    pub floating: String,
    key: PathBuf,
}

impl Detached {
    /// One that has not been started yet. The name must be short: the home folder's path has a limit.
    pub fn new(name: &str, database: Option<String>) -> Result<Self> {
        let home = PathBuf::from(format!("/tmp/arcus-{name}-{}", std::process::id()));
        ensure!(!home.exists(), "{} is left of an earlier run: arcus down --home {0}", home.display());
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { home, url: format!("https://127.0.0.1:{port}"), port, database })
    }

    /// Starts it, or again, and waits until its first server answers over the network.
    pub fn up(&self) -> Result<First> {
        let image = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/guest/arcus-tiny.qcow2"));
        ensure!(image.exists(), "{} is missing: run `cargo xtask image`", image.display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_arcus"));
        command.args(["up", "--detach", "--first-server", "--port", &self.port.to_string(), "--home"]).arg(&self.home);
        command.arg("--image").arg(image);
        command.env_remove("ARCUS_UPLINK").env_remove("ARCUS_DATABASE").stdin(Stdio::null());
        if let Some(database) = &self.database {
            command.args(["--database", database]);
        }
        let done = command.output()?;
        ensure!(done.status.success(), "arcus up: {}", String::from_utf8_lossy(&done.stderr));
        First::told(&String::from_utf8(done.stdout)?)
    }

    /// Ends its process as `kill -9` does.
    pub fn kill(&self) -> Result<()> {
        let pid: i32 = std::fs::read_to_string(self.home.join("arcus.pid"))?.parse()?;
        Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
    }

    /// Takes it down, but leaves its data.
    pub fn rest(&self) -> Result<()> {
        self.take_down(&["--keep-data"])
    }

    /// Takes it down as its owner would: nothing is left.
    pub fn down(self) -> Result<()> {
        self.take_down(&[])?;
        ensure!(!self.home.exists(), "{} is left", self.home.display());
        Ok(())
    }

    fn take_down(&self, options: &[&str]) -> Result<()> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arcus"));
        let done =
            command.arg("down").arg("--home").arg(&self.home).args(options).env_remove("ARCUS_KEEP_DATA").output()?;
        ensure!(done.status.success(), "arcus down: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if !self.home.exists() {
            return;
        }
        let log = std::fs::read_to_string(self.home.join("arcus.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n");
        eprintln!("--- the end of the log of {} ---\n{end}", self.home.display());
        if let Err(error) = self.take_down(&[]) {
            eprintln!("{} was not taken down: {error:#}", self.home.display());
        }
    }
}

impl First {
    /// Reads what `arcus up` printed.
    fn told(text: &str) -> Result<Self> {
        let between = |before: &str, after: &str| {
            let (_, rest) = text.split_once(before)?;
            Some(rest.split_once(after)?.0.to_owned())
        };
        let read = || {
            Some(Self {
                fixed: between("The first server is up: first (", ", ")?,
                floating: between("floating IP ", ")")?,
                key: between("ssh -i ", " arcus@")?.into(),
            })
        };
        read().with_context(|| format!("arcus up does not tell how to reach the first server: {text}"))
    }

    /// What a command in the guest prints; it is tried until the guest runs it.
    pub fn run(&self, command: &str) -> Result<String> {
        let began = Instant::now();
        loop {
            let done = Command::new("ssh")
                .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
                .args(["-o", "ConnectTimeout=5", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"])
                .arg(&self.key)
                .args([&format!("arcus@{}", self.floating), command])
                .stdin(Stdio::null())
                .output()?;
            if done.status.success() {
                return Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned());
            }
            let told = String::from_utf8_lossy(&done.stderr);
            ensure!(began.elapsed() < ANSWER_MAX, "ssh {} {command}: {told}", self.floating);
            std::thread::sleep(ASK_EVERY);
        }
    }
}
