//! Python programs from the registry, as they are: the OpenStack clients and tempest, each in a virtual environment.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{output, step, workspace_root};

/// Installs the OpenStack clients of `clients/requirements.txt` into `target/clients`. Gives the folder of their programs.
///
/// # Errors
/// As [`install_from`].
pub fn install() -> Result<PathBuf> {
    install_from("clients/requirements.txt", "target/clients")
}

/// Installs what `list` names into the virtual environment `environment`, if the list changed; both are paths from the
/// workspace root. Gives the folder of the programs.
///
/// # Errors
/// When Python's venv is missing, or a package cannot be had.
pub fn install_from(list: &str, environment: &str) -> Result<PathBuf> {
    let (shown, list) = (environment, workspace_root().join(list));
    let environment = workspace_root().join(environment);
    let programs = environment.join("bin");
    let stamp = environment.join("requirements.txt");
    let wanted = fs::read_to_string(&list).with_context(|| format!("could not read {}", list.display()))?;
    if fs::read_to_string(&stamp).is_ok_and(|recorded| recorded == wanted) {
        return Ok(programs);
    }
    if environment.exists() {
        fs::remove_dir_all(&environment)?;
    }
    step(format!("python: installs {} into {shown}", list.display()));
    output(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&environment))?;
    output(
        Command::new(programs.join("pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(&list),
    )?;
    fs::write(&stamp, wanted)?;
    Ok(programs)
}
