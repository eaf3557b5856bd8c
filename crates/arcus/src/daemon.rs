//! `arcus up`: runs the cloud in this process, or starts a process that does and waits until it answers.

use crate::cli::Up;
use crate::first_server::{self, Progress};
use crate::home::Home;
use crate::{cloud, clouds, node};
use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long the endpoint may take to answer after its process began.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// How long a process that was killed may hold the home folder's lock.
const LOCK_DEADLINE: Duration = Duration::from_secs(5);

/// Runs the command.
pub fn up(options: Up) -> Result<()> {
    if !options.simulate && !nix::unistd::geteuid().is_root() {
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
    let url = running_url(home).unwrap_or_else(|| options.url());
    let first = match &options.image {
        Some(image) => first_server::prepare(home, &url, image, options.first_server, progress).await?,
        None => None,
    };
    progress.done();
    print!("{}", first_server::summary(home, &url, first.as_ref()));
    Ok(())
}

/// The endpoint that the running process wrote down.
fn running_url(home: &Home) -> Option<String> {
    std::fs::read_to_string(home.join("endpoint")).ok().map(|text| text.trim().to_owned())
}

fn spawn(options: &Up, home: &Home) -> Result<Child> {
    let log_path = home.join("arcus.log");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("up").arg("--home").arg(home.path()).args(["--port", &options.port.to_string()]);
    command.args(["--listen", &options.listen.to_string(), "--accel", &options.accel]);
    if options.simulate {
        command.arg("--simulate");
    }
    if let Some(database) = &options.database {
        command.env("ARCUS_DATABASE", database);
    }
    if let Some(uplink) = &options.uplink {
        command.args(["--uplink", uplink]);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/").process_group(0);
    command.spawn().context("could not start Arcus in the background")
}

async fn wait_for_answer(options: &Up, home: &Home, child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + ANSWER_DEADLINE;
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("Arcus ended with {status}:\n{}", log_end(home));
        }
        let ours = home.running().is_some_and(|pid| u32::try_from(pid) == Ok(child.id()));
        if ours && home.join("endpoint").exists() && answers(home, &options.url()).await {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("Arcus does not answer on {}:\n{}", options.url(), log_end(home));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn answers(home: &Home, url: &str) -> bool {
    match first_server::http(home) {
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
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("ARCUS_LOG").unwrap_or_else(|_| "info".into()))
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let _lock = lock(&home).await?;
    drop(std::fs::remove_file(home.join("endpoint")));
    home.write_private("arcus.pid", &std::process::id().to_string())?;
    let stop = CancellationToken::new();
    let cloud = cloud::start(&options, &home, stop.clone()).await?;
    home.write_private("endpoint", &cloud.url)?;
    let node = node::start(&options, &home, &cloud, stop.clone()).await?;
    tracing::info!(url = cloud.url, "Arcus answers");
    if options.image.is_some() {
        let progress = Progress::new();
        if let Err(error) = finish(&options, &home, &progress).await {
            eprintln!("arcus: {error:#}");
        }
    }
    wait_for_signal().await?;
    tracing::info!("stopping; guests go on running");
    stop.cancel();
    node.await.context("the agent ended badly")?;
    cloud.ended().await?;
    drop(std::fs::remove_file(home.join("endpoint")));
    drop(std::fs::remove_file(home.join("arcus.pid")));
    Ok(())
}

/// Makes this process the only one with the home folder.
async fn lock(home: &Home) -> Result<Flock<File>> {
    let deadline = Instant::now() + LOCK_DEADLINE;
    let mut file = File::options().create(true).truncate(false).write(true).open(home.join("arcus.lock"))?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            // The kernel has not yet put away all of a process that was killed.
            Err((unlocked, Errno::EWOULDBLOCK)) if home.running().is_none() && Instant::now() < deadline => {
                file = unlocked;
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                bail!("another Arcus runs with the home folder {}", home.path().display())
            }
            Err((_, error)) => return Err(error).context("could not lock the home folder"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn wait_for_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Whether an earlier run left the logins behind.
pub fn logins(home: &Home) -> Result<clouds::Logins> {
    clouds::read(home).with_context(|| format!("{} is missing", home.join("clouds.yaml").display()))
}
