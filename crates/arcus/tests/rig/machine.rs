//! `arcus agent` as a child process: a simulated node with a home folder of its own.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// `arcus agent` as a child process; its home folder goes with it.
pub struct Machine {
    /// Its home folder.
    pub home: PathBuf,
    child: Option<Child>,
}

fn agent(home: &PathBuf, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcus"));
    command.args(["agent", "--simulate", "--home"]).arg(home).args(arguments);
    command.env_remove("ARCUS_JOIN_TOKEN").env_remove("ARCUS_NODE").env_remove("ARCUS_CLUSTER").stdin(Stdio::null());
    command
}

impl Machine {
    /// One that does not run yet.
    pub fn new(name: &str) -> Self {
        Self { home: format!("/tmp/arcus-{name}-{}", std::process::id()).into(), child: None }
    }

    /// Starts it; with these words it joins a cloud.
    pub fn start(&mut self, arguments: &[&str]) -> Result<()> {
        std::fs::create_dir_all(&self.home)?;
        let log = OpenOptions::new().create(true).append(true).open(self.home.join("arcus.log"))?;
        let child = agent(&self.home, arguments).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Whether it was started and not ended.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Asks it to end.
    pub fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the agent does not run")?;
        kill(Pid::from_raw(child.id().try_into()?), Signal::SIGTERM)?;
        ensure!(child.wait()?.success(), "the agent ended badly");
        Ok(())
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the agent does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// What it says when it ends by itself.
    pub fn refused(&self, arguments: &[&str]) -> Result<String> {
        let Output { status, stderr, .. } = agent(&self.home, arguments).output()?;
        ensure!(!status.success(), "the agent ended well");
        Ok(String::from_utf8(stderr)?)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        drop(std::fs::remove_dir_all(&self.home));
    }
}
