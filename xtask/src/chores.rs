//! `check`, `test` and the tools that they like to have.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Result, bail};

use crate::image::inputs::files;
use crate::process::{cargo, installed, output, run, step, workspace_root};
use crate::{clients, conformance, image, layers, tidy};

/// The optional tools, by the name of their program, and what `cargo install` calls them.
const TOOLS: &[(&str, &str)] = &[("cargo-nextest", "cargo-nextest"), ("cargo-deny", "cargo-deny")];

/// Everything about the sources that a machine can check without running them.
///
/// # Errors
/// With the first thing that does not hold.
pub fn check() -> Result<()> {
    step("check: formatting");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    step("check: house rules");
    tidy()?;
    step("check: shell scripts");
    shell_scripts()?;
    step("check: lints");
    run(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    step("check: documentation");
    run(cargo()
        .args(["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    if installed("cargo-deny") {
        step("check: licences, bans and sources of dependencies");
        run(cargo().args(["deny", "--log-level", "error", "check", "licenses", "bans", "sources"]))?;
    } else {
        step("check: SKIPPED the check of dependencies, for cargo-deny is not installed (`make tools`)");
    }
    step("check: done");
    Ok(())
}

/// The house rules and the layers.
///
/// # Errors
/// With every rule that is broken, or when the sources cannot be read.
pub fn tidy() -> Result<()> {
    let mut broken = tidy::broken_rules(&workspace_root())?;
    broken.extend(layers::broken_rules(&layers::Workspace::load()?));
    if !broken.is_empty() {
        bail!("house rules are broken:\n  {}", broken.join("\n  "));
    }
    Ok(())
}

/// Whether every shell script can at least be read by a shell.
fn shell_scripts() -> Result<()> {
    let root = workspace_root();
    let mut scripts = vec![root.join("bootstrap"), root.join(".ci/run")];
    for path in files(&root.join("guest"))? {
        if fs::read(&path)?.starts_with(b"#!/bin/sh") {
            scripts.push(path);
        }
    }
    for script in scripts {
        output(Command::new("sh").arg("-n").arg(script))?;
    }
    Ok(())
}

/// All tests behind `check`, or the ones that match `filter`.
///
/// # Errors
/// When a check or a test fails.
pub fn test(filter: Option<&str>) -> Result<()> {
    if filter.is_none() {
        check()?;
    }
    image::build()?;
    clients::install()?;
    step("test: build and run");
    let mut tests = cargo();
    if installed("cargo-nextest") {
        tests.args(["nextest", "run", "--workspace"]).args(filter);
    } else {
        step("test: cargo-nextest is not installed (`make tools`), so cargo test runs them, one after the other");
        tests.args(["test", "--workspace", "--all-targets"]).args(filter);
        tests.args(["--", "--test-threads", "1"]);
    }
    run(&mut tests)?;
    if filter.is_none() {
        step("test: examples in the documentation");
        run(cargo().args(["test", "--quiet", "--workspace", "--doc"]))?;
        step("test: a part of tempest, with real guests");
        let list = Some(workspace_root().join("conformance/quick.txt"));
        conformance::conformance(&conformance::Choice { only: None, list })?;
    }
    step("test: done");
    Ok(())
}

/// Drives every route of the API with hostile input, `rounds` times each policy case, as `seed` decides.
///
/// # Errors
/// When an answer is a server error, tells of others' things, or says nothing; a seed repeats it.
pub fn fuzz_api(rounds: u64, seed: Option<u64>) -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let seed = seed.unwrap_or(now);
    step(format!("fuzz-api: {rounds} rounds for each case, seed {seed}"));
    let mut tests = cargo();
    tests.env("ARCUS_FUZZ_ROUNDS", rounds.to_string()).env("ARCUS_FUZZ_SEED", seed.to_string());
    run(tests.args(["test", "--package", "arcus-api", "--test", "it", "hostile", "--", "--nocapture"]))
}

/// Installs the optional tools that are missing.
///
/// # Errors
/// When one of them cannot be built.
pub fn tools() -> Result<()> {
    for (program, package) in TOOLS {
        if installed(program) {
            step(format!("tools: {program} is there"));
        } else {
            step(format!("tools: {program}, which takes some minutes"));
            run(Command::new("cargo").args(["install", "--locked", package]))?;
        }
    }
    Ok(())
}
