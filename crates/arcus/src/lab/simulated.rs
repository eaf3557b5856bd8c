//! Many simulated nodes in one process: each has an identity and a link of its own and obeys the same protocol.

use crate::cli::{NodeOptions, SimulatedNodes};
use crate::home::Home;
use crate::node;
use crate::process::Process;
use anyhow::{Context as _, Result};
use arcus_agent::Link;
use tokio_util::sync::CancellationToken;

/// Runs them until the process is asked to end.
pub fn run(options: SimulatedNodes) -> Result<()> {
    let home = Home::open(&options.folder, true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut process = Process::begin(&home).await?;
        let stop = CancellationToken::new();
        let (ca_pem, secret) = Link::discover(&options.join, &options.token).await?;
        let mut agents = Vec::new();
        for number in 1..=options.count {
            let own = Home::open(&home.join(&number.to_string()), true)?;
            let identity = own.agent().join("identity");
            let name = format!("sim-{number:05}");
            let link = if Link::has_joined(&identity) {
                Link::open(&options.join, &identity)?
            } else {
                let joined = Link::join(&options.join, &ca_pem, &secret, &name, None, &identity).await;
                joined.with_context(|| format!("simulated node {name} could not join"))?
            };
            agents.push(node::run(&NodeOptions::simulated(&name), &own, link, stop.clone())?);
        }
        tracing::info!(nodes = agents.len(), "simulated nodes run");
        process.asked_to_end().await;
        stop.cancel();
        for agent in agents {
            agent.await.context("a simulated node ended badly")?;
        }
        process.end();
        Ok(())
    })
}
