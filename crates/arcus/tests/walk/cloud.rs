//! A whole cloud, started by the binary in the background, with a home and a port of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A cloud that is taken down when it is dropped.
pub struct Cloud {
    home: PathBuf,
    down: bool,
}

impl Cloud {
    /// Starts one and waits until its endpoint answers.
    pub fn up() -> Self {
        let home = PathBuf::from(format!("/tmp/arcus-walk-{}", std::process::id()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        drop(listener);
        let cloud = Self { home, down: false };
        let image = cloud.image();
        assert!(image.exists(), "{} is missing: run `cargo xtask image`", image.display());
        let output = arcus()
            .args(["up", "--detach", "--port", &port, "--home"])
            .arg(&cloud.home)
            .arg("--image")
            .arg(image)
            .env("ARCUS_LOG", "info,arcus_agent=debug")
            .output()
            .unwrap();
        assert!(output.status.success(), "arcus up failed: {}{}", text(&output), cloud.log());
        cloud
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The folder that the build put its results into.
    pub fn target() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target").canonicalize().unwrap()
    }

    pub fn image(&self) -> PathBuf {
        Self::target().join("guest/arcus-tiny.qcow2")
    }

    /// The end of the log, for the text of a failure.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.home.join("arcus.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Takes it down as its owner would.
    pub fn down(mut self) {
        self.down = true;
        let output = arcus().arg("down").arg("--home").arg(&self.home).output().unwrap();
        assert!(output.status.success(), "arcus down failed: {}", text(&output));
        assert!(!self.home.exists(), "{} is left", self.home.display());
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if !self.down {
            eprintln!("--- the end of the cloud's log ---\n{}", self.log());
            drop(arcus().arg("down").arg("--home").arg(&self.home).output());
        }
    }
}

fn arcus() -> Command {
    Command::new(env!("CARGO_BIN_EXE_arcus"))
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
