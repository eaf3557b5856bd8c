//! `arcus up`: runs the cloud in this process, or starts a process that does and waits until it answers.

use crate::cli::{Server, Up};
use crate::first_server::{self, Progress};
use crate::home::Home;
use crate::process::Process;
use crate::session;
use crate::{cloud, clouds, node};
use anyhow::{Context as _, Result, bail};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long the endpoint may take to answer after its process began.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Runs the command.
pub fn up(options: Up) -> Result<()> {
    if !options.node.simulate && !nix::unistd::geteuid().is_root() {
        bail!("arcus up makes network namespaces and starts guests as other users: run it as root");
    }
    let home = Home::open(&options.home.home, true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if options.detach { runtime.block_on(detached(options, home)) } else { runtime.block_on(foreground(options, home)) }
}

async fn detached(options: Up, home: Home) -> Result<()> {
    let progress = Progress::new();
    if runs(&home).await {
        progress.step("Arcus runs already");
    } else {
        progress.step("starting Arcus");
        let mut child = spawn(&options, &home)?;
        wait_for_answer(&options, &home, &mut child).await?;
    }
    finish(&options, &home, &progress).await
}

/// Whether the process of an earlier call runs. One that is about to start is waited for, and one that is about to end.
async fn runs(home: &Home) -> bool {
    let deadline = Instant::now() + ANSWER_DEADLINE;
    while home.running().is_some() && Instant::now() < deadline {
        if let Some(url) = running_url(home)
            && answers(home, &url).await
        {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    home.running().is_some()
}

/// What remains to be done once the endpoint answers.
async fn finish(options: &Up, home: &Home, progress: &Progress) -> Result<()> {
    let url = running_url(home).unwrap_or_else(|| options.endpoint.url());
    let first = match &options.image {
        Some(image) => first_server::prepare(home, &url, image, options.first_server, progress).await?,
        None => None,
    };
    progress.done();
    print!("{}", first_server::summary(home, &url, first.as_ref()));
    Ok(())
}

/// The endpoint that the running process wrote down.
pub fn running_url(home: &Home) -> Option<String> {
    std::fs::read_to_string(home.join("endpoint")).ok().map(|text| text.trim().to_owned())
}

fn spawn(options: &Up, home: &Home) -> Result<Child> {
    let log_path = home.join("arcus.log");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("up").arg("--home").arg(home.path()).args(["--port", &options.endpoint.port.to_string()]);
    command.args(["--listen", &options.endpoint.listen.to_string(), "--accel", &options.node.accel]);
    if options.node.simulate {
        command.arg("--simulate");
    }
    if let Some(database) = &options.endpoint.database {
        command.env("ARCUS_DATABASE", database);
    }
    if let Some(uplink) = &options.node.uplink {
        command.args(["--uplink", uplink]);
    }
    if let Some(underlay) = options.node.underlay {
        command.args(["--underlay", &underlay.to_string()]);
    }
    if let Some(name) = &options.node.node {
        command.args(["--node", name]);
    }
    command.args(options.endpoint.passwords.arguments());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/").process_group(0);
    command.spawn().context("could not start Arcus in the background")
}

async fn wait_for_answer(options: &Up, home: &Home, child: &mut Child) -> Result<()> {
    server_answers(home, &options.endpoint.url(), child).await
}

/// Waits until the process answers.
pub async fn server_answers(home: &Home, url: &str, child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + ANSWER_DEADLINE;
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("Arcus ended with {status}:\n{}", log_end(home));
        }
        let ours = home.running().is_some_and(|pid| u32::try_from(pid) == Ok(child.id()));
        if ours && home.join("endpoint").exists() && answers(home, url).await {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("Arcus does not answer on {url}:\n{}", log_end(home));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn answers(home: &Home, url: &str) -> bool {
    match session::http(home) {
        Ok(http) => http.get(format!("{url}/")).send().await.is_ok(),
        Err(_) => false,
    }
}

fn log_end(home: &Home) -> String {
    let text = std::fs::read_to_string(home.join("arcus.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

async fn foreground(options: Up, home: Home) -> Result<()> {
    let mut process = Process::begin(&home).await?;
    let stop = CancellationToken::new();
    let cloud = cloud::start(&options.endpoint, &home, stop.clone()).await?;
    home.write_private("endpoint", &cloud.url)?;
    let node = node::start(&options.node, &home, &cloud, stop.clone()).await?;
    tracing::info!(url = cloud.url, "Arcus answers");
    if options.image.is_some() {
        let progress = Progress::new();
        if let Err(error) = finish(&options, &home, &progress).await {
            eprintln!("arcus: {error:#}");
        }
    }
    process.asked_to_end().await;
    tracing::info!("stopping; guests go on running");
    stop.cancel();
    node.await.context("the agent ended badly")?;
    cloud.ended().await?;
    process.end();
    Ok(())
}

/// Runs `arcus server`: a cloud whose nodes are other machines.
pub fn server(options: Server) -> Result<()> {
    let home = Home::open(&options.home.home, true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut process = Process::begin(&home).await?;
        let stop = CancellationToken::new();
        let cloud = cloud::start(&options.endpoint, &home, stop.clone()).await?;
        home.write_private("endpoint", &cloud.url)?;
        tracing::info!(url = cloud.url, "Arcus answers; let machines join with: arcus join-token");
        process.asked_to_end().await;
        stop.cancel();
        cloud.ended().await?;
        process.end();
        Ok(())
    })
}

/// Whether an earlier run left the logins behind.
pub fn logins(home: &Home) -> Result<clouds::Logins> {
    clouds::read(home).with_context(|| format!("{} is missing", home.join("clouds.yaml").display()))
}
