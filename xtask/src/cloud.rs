//! `up` and `down`: a cloud from a clone.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::image;
use crate::process::{cargo, run, step, workspace_root};

/// Where a cloud keeps its state unless ARCUS_HOME says otherwise.
const HOME: &str = "/var/lib/arcus";

/// The port on loopback unless ARCUS_PORT says otherwise.
const PORT: &str = "8774";

fn home() -> String {
    env::var("ARCUS_HOME").unwrap_or_else(|_| HOME.to_owned())
}

fn binary() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from);
    target.join("release/arcus")
}

/// Builds the binary and the guest image, and starts a cloud in the background with a first server in it.
///
/// # Errors
/// When something cannot be built, or the cloud does not come up.
pub fn up() -> Result<()> {
    step("up: arcus, optimised (the first time takes some minutes)");
    run(cargo().args(["build", "--release", "--package", "arcus"]))?;
    let image = image::build()?;
    let port = env::var("ARCUS_PORT").unwrap_or_else(|_| PORT.to_owned());
    step(format!("up: cloud in {} on port {port}", home()));
    run(Command::new(binary())
        .args(["up", "--home", &home(), "--port", &port, "--detach", "--first-server", "--image"])
        .arg(image))
}

/// Stops the cloud that `up` started.
///
/// # Errors
/// When there is no binary to ask, or it could not stop the cloud.
pub fn down(keep_data: bool) -> Result<()> {
    if !binary().is_file() {
        bail!("{} is not there: nothing was started from this clone", binary().display());
    }
    run(Command::new(binary()).args(["down", "--home", &home()]).args(keep_data.then_some("--keep-data")))
}
