//! Benchmarks of a whole cloud: the real binary, real guests, the public API.
//!
//! Each prints its measurements as lines for `cargo xtask bench`. What is compared is measured in the same run, in turns.
//! `ARCUS_BENCH` names the one to run.

#[path = "../../tests/rig/arcus.rs"]
#[expect(dead_code, reason = "nodes apart and crashes are for tests")]
mod arcus;
mod by_hand;
#[path = "../../tests/lab/cloud.rs"]
#[expect(dead_code, reason = "the lab's tests ask it for more")]
mod cloud;
mod control_plane;
mod first_answer;
mod fleet;
mod guests;
mod idle;
mod image_upload;
mod live_migration;
mod load;
mod measurement;
mod server_boot;
#[path = "../../tests/rig/session.rs"]
mod session;
mod speed;
#[path = "../../tests/lab/wire.rs"]
#[expect(dead_code, reason = "the lab's tests ask it for more")]
mod wire;

use anyhow::{Context as _, Result};

/// In the order in which they run: what a quiet machine matters most to comes first.
const BENCHMARKS: [&str; 10] = [
    "idle",
    "first_answer",
    "control_plane",
    "server_boot",
    "image_upload",
    "live_migration",
    "tokens",
    "ports",
    "servers",
    "candidates",
];

/// Those that only run when they are named: they need more than a usual machine allows, such as 30,000 open files.
const LARGE: [&str; 1] = ["fleet"];

#[tokio::main]
async fn main() -> Result<()> {
    let only = std::env::var("ARCUS_BENCH").ok();
    let named = |name: &&str| only.as_deref() == Some(*name);
    let usual = BENCHMARKS.into_iter().filter(|name| only.is_none() || named(name));
    for name in usual.chain(LARGE.into_iter().filter(named)) {
        run(name).await.with_context(|| format!("benchmark {name}"))?;
    }
    Ok(())
}

async fn run(name: &str) -> Result<()> {
    eprintln!("benchmark {name}");
    match name {
        "idle" => idle::run().await,
        "first_answer" => first_answer::run().await,
        "control_plane" => control_plane::run().await,
        "server_boot" => server_boot::run().await,
        "live_migration" => live_migration::run().await,
        "tokens" => speed::tokens().await,
        "ports" => speed::ports().await,
        "servers" => speed::servers().await,
        "candidates" => speed::candidates().await,
        "fleet" => fleet::run().await,
        _ => image_upload::run().await,
    }
}
