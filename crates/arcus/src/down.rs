//! `arcus down`: ends the process, the guests and the networks, and removes the files unless they shall stay.

use crate::cli::Down;
use crate::home::Home;
use crate::node;
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// How long the process may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How long guests may take to shut down when their disks are kept.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// Runs the command.
pub fn down(options: Down) -> Result<()> {
    if !options.home.home.exists() {
        println!("There is no cloud at {}.", options.home.home.display());
        return Ok(());
    }
    let home = Home::open(&options.home.home, false)?;
    if !home.join("arcus.lock").exists() && !home.agent().exists() {
        bail!("{} is not the home folder of an Arcus cloud", home.path().display());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        stop_process(&home).await?;
        end_guests(&home, options.keep_data).await?;
        node::teardown(&home).await
    })?;
    if options.keep_data {
        println!("Arcus is down. Its data stays in {}.", home.path().display());
    } else {
        std::fs::remove_dir_all(home.path()).with_context(|| format!("could not remove {}", home.path().display()))?;
        println!("Arcus is down, and {} is removed.", home.path().display());
    }
    Ok(())
}

/// Asks the process to stop, and ends it if it does not.
pub async fn stop_process(home: &Home) -> Result<()> {
    let deadline = Instant::now() + STOP_DEADLINE;
    let mut asked = false;
    while let Some(pid) = home.running() {
        if !asked {
            kill(Pid::from_raw(pid), Signal::SIGTERM).context("could not stop Arcus")?;
            asked = true;
        }
        if Instant::now() > deadline {
            kill(Pid::from_raw(pid), Signal::SIGKILL).context("could not end Arcus")?;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Ends every guest: gently where the disk is kept.
pub async fn end_guests(home: &Home, gently: bool) -> Result<()> {
    let hypervisor = node::hypervisor(home, "auto")?;
    let guests = hypervisor.adopt().await.context("could not look for guests")?;
    if gently {
        for guest in &guests {
            drop(hypervisor.shutdown(guest.server).await);
        }
        let deadline = Instant::now() + SHUTDOWN_GRACE;
        for guest in &guests {
            while Instant::now() < deadline && node::lives(hypervisor.as_ref(), guest.server).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    for guest in guests {
        hypervisor.kill(guest.server).await.with_context(|| format!("could not end guest {}", guest.server))?;
        hypervisor.forget(guest.server).await?;
    }
    Ok(())
}
