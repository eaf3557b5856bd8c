//! A cloud that ends itself, as suddenly as `kill -9` would, right before and right after it writes each step of a task, for
//! each kind of task: once it runs again the task is over, the server is as it was asked to be, it runs once, and all that is
//! claimed is used.
//!
//! `ARCUS_KIND` limits the kinds that the cloud is ended at to those whose name contains it.

#[path = "../rig/arcus.rs"]
#[expect(dead_code, reason = "clouds of one machine are for other tests")]
mod arcus;
#[path = "../rig/claims.rs"]
mod claims;
mod kinds;
#[path = "../rig/machine.rs"]
#[expect(dead_code, reason = "refusals are for another test")]
mod machine;
#[path = "../rig/session.rs"]
#[expect(dead_code, reason = "the project and a node of one's own are for other tests")]
mod session;
mod world;

use anyhow::{Context as _, Result, ensure};
use kinds::KINDS;
use std::collections::BTreeMap;
use world::World;

/// No task has so many steps.
const STEPS_MAX: u32 = 40;

#[tokio::test]
async fn a_cloud_that_ends_at_any_step_of_any_task_takes_it_up_again() -> Result<()> {
    let only = std::env::var("ARCUS_KIND").unwrap_or_default();
    let mut world = World::start().await?;
    // How many writes of each kind have been ended at.
    let mut ended = BTreeMap::new();
    let mut left: Vec<bool> = KINDS.iter().map(|kind| kind.name.contains(&only)).collect();
    for step in 1..=STEPS_MAX {
        for side in ["-", "+"] {
            for (at, kind) in KINDS.iter().enumerate() {
                let point = left[at].then(|| format!("{step}{side}"));
                let crashed = world
                    .act(kind, point.as_deref())
                    .await
                    .with_context(|| format!("{} ({at}), ended at {point:?}", kind.name))?;
                // What has no such step has no later one either.
                left[at] &= crashed;
                if crashed {
                    *ended.entry(kind.name).or_insert(0) += 1;
                }
            }
            if left.iter().all(|left| !left) {
                eprintln!("ended at: {ended:?}");
                let missed: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
                let missed: Vec<&str> =
                    missed.into_iter().filter(|name| name.contains(&only) && !ended.contains_key(name)).collect();
                ensure!(missed.is_empty(), "no step of these was written: {missed:?}");
                return world.down().await;
            }
        }
    }
    anyhow::bail!("a task has more than {STEPS_MAX} steps")
}
