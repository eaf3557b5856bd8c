//! The real `openstack` client and `ssh`, as a project member uses them.

use crate::cloud::{Cloud, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a guest may take to do something under emulation on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(300);

/// The `openstack` client, logged in as one entry of the cloud's `clouds.yaml`.
pub struct Client {
    bin: PathBuf,
    config: PathBuf,
    cloud: &'static str,
    folder: PathBuf,
}

impl Client {
    pub fn new(cloud: &Cloud, name: &'static str) -> Self {
        let bin = Cloud::target().join("clients/bin");
        assert!(bin.join("openstack").exists(), "the clients are missing: run `cargo xtask clients`");
        let folder = cloud.home().join("walk");
        std::fs::create_dir_all(&folder).unwrap();
        Self { bin, config: cloud.home().join("clouds.yaml"), cloud: name, folder }
    }

    /// A folder for the client's own files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a command and answers what it printed.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.command("openstack").args(["--os-cloud", self.cloud]).args(args).output().unwrap();
        assert!(output.status.success(), "openstack {}: {}", args.join(" "), text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that shows something, and answers that.
    pub fn show(&self, args: &[&str]) -> Value {
        let printed = self.run(&[args, &["-f", "json"]].concat());
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("openstack {}: {e}: {printed}", args.join(" ")))
    }

    pub fn wait_for_status(&self, server: &str, wanted: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let shown = self.show(&["server", "show", server]);
            if shown["status"] == wanted {
                return;
            }
            assert_ne!(shown["status"], "ERROR", "{server}: {}", shown["fault"]);
            assert!(Instant::now() < deadline, "{server} is {} and not {wanted}", shown["status"]);
            std::thread::sleep(PAUSE);
        }
    }

    /// Runs a script of this folder in the client's Python.
    pub fn python(&self, script: &str, args: &[&str]) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/walk").join(script);
        let output = self.command("python").arg(path).args(args).output().unwrap();
        assert!(output.status.success(), "{script}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command
            .env("OS_CLIENT_CONFIG_FILE", &self.config)
            .env("ARCUS_CA", self.config.with_file_name("ca").join("ca.pem"))
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(proxy);
        }
        command
    }
}

/// `ssh` into one guest.
pub struct Ssh {
    key: PathBuf,
    address: String,
}

impl Ssh {
    pub fn new(key: &Path, address: &str) -> Self {
        Self { key: key.to_owned(), address: address.to_owned() }
    }

    fn attempt(&self, command: &str) -> Result<String, String> {
        let output = Command::new("ssh")
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
            .args(["-o", "ConnectTimeout=5", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"])
            .arg(&self.key)
            .arg(format!("arcus@{}", self.address))
            .arg(command)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(text(&output))
        }
    }

    /// Runs a command in a guest that is up.
    pub fn run(&self, command: &str) -> String {
        self.wait(command, |_| true)
    }

    /// Waits until a command prints this.
    pub fn wait_for(&self, command: &str, wanted: &str) {
        self.wait_until(command, |printed| printed == wanted);
    }

    /// Waits until what a command prints is as wished.
    pub fn wait_until(&self, command: &str, wished: impl Fn(&str) -> bool) {
        self.wait(command, wished);
    }

    fn wait(&self, command: &str, wished: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let outcome = self.attempt(command);
            if let Ok(printed) = &outcome
                && wished(printed)
            {
                return printed.clone();
            }
            assert!(Instant::now() < deadline, "ssh {} {command}: {outcome:?}", self.address);
            std::thread::sleep(PAUSE);
        }
    }
}
