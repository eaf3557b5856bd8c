//! The unmodified OpenStack clients from the registry, in a virtual environment of their own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{output, step, workspace_root};

/// Installs the clients of `clients/requirements.txt` into `target/clients`, if that list changed. Gives the folder of
/// their programs.
///
/// # Errors
/// When Python's venv is missing, or a package cannot be had.
pub fn install() -> Result<PathBuf> {
    let list = workspace_root().join("clients/requirements.txt");
    let environment = workspace_root().join("target/clients");
    let programs = environment.join("bin");
    let stamp = environment.join("requirements.txt");
    let wanted = fs::read_to_string(&list).with_context(|| format!("could not read {}", list.display()))?;
    if fs::read_to_string(&stamp).is_ok_and(|recorded| recorded == wanted) {
        return Ok(programs);
    }
    step("clients: virtual environment in target/clients");
    if environment.exists() {
        fs::remove_dir_all(&environment)?;
    }
    output(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&environment))?;
    step("clients: OpenStack clients");
    output(
        Command::new(programs.join("pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(&list),
    )?;
    fs::write(&stamp, wanted)?;
    step(format!("clients: {}", programs.join("openstack").display()));
    Ok(programs)
}
