//! `arcus agent`: this machine as a node of a cloud whose server is elsewhere.

use crate::cli::Agent;
use crate::home::Home;
use crate::node;
use crate::process::Process;
use anyhow::{Context as _, Result, bail};
use arcus_agent::Link;
use tokio_util::sync::CancellationToken;

/// Where the endpoint of the cloud is remembered.
const SERVER: &str = "server";

/// Runs the command.
pub fn agent(options: Agent) -> Result<()> {
    if !options.node.simulate && !nix::unistd::geteuid().is_root() {
        bail!("arcus agent makes network namespaces and starts guests as other users: run it as root");
    }
    let home = Home::open(&options.home.home, true)?;
    if home.join("arcus.db").exists() || home.join("database").exists() {
        bail!(
            "{} holds a cloud of its own: start it with arcus up, or give this node another home folder",
            home.path().display()
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(options, home))
}

async fn run(options: Agent, home: Home) -> Result<()> {
    let mut process = Process::begin(&home).await?;
    let link = link(&options, &home).await?;
    tracing::info!(node.id = %link.node_id(), "this machine is a node");
    let stop = CancellationToken::new();
    let agent = node::run(&options.node, &home, link, stop.clone())?;
    process.asked_to_end().await;
    tracing::info!("stopping; guests go on running");
    stop.cancel();
    agent.await.context("the agent ended badly")?;
    process.end();
    Ok(())
}

/// The link to the server; joins the cloud if this machine has not yet.
async fn link(options: &Agent, home: &Home) -> Result<Link> {
    let identity = home.agent().join("identity");
    if Link::has_joined(&identity) {
        let url = std::fs::read_to_string(home.join(SERVER)).context("this node does not know its server any more")?;
        // A cloud that moved is found under its new address; it is still the one whose authority this node trusts.
        let url = options.join.as_deref().unwrap_or(url.trim()).trim_end_matches('/').to_owned();
        home.write_private(SERVER, &url)?;
        return Ok(Link::open(&url, &identity)?);
    }
    let (Some(url), Some(token)) = (&options.join, &options.token) else {
        bail!(
            "this machine belongs to no cloud yet: run `arcus join-token` where the cloud is, and here what it prints \
             (arcus agent --join URL --token TOKEN)"
        );
    };
    let url = url.trim_end_matches('/');
    let (ca_pem, secret) = Link::discover(url, token).await?;
    home.write_private(SERVER, url)?;
    let (name, cluster) = (node::name(&options.node), options.cluster.as_deref());
    Ok(Link::join(url, &ca_pem, &secret, &name, cluster, &identity).await?)
}
