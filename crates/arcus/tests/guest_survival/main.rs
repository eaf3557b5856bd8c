//! Real guests outlive the cloud's own process, and the cloud notices when a guest's process dies.

#[path = "../rig/arcus.rs"]
#[expect(dead_code, reason = "the number of the process is for benchmarks, clouds without nodes for other tests")]
mod arcus;
mod guest;
#[path = "../rig/session.rs"]
#[expect(dead_code, reason = "the project is for the crash test")]
mod session;

use anyhow::{Result, ensure};
use arcus::Arcus;
use guest::Guest;
use session::Session;
use std::time::Duration;

/// How long the death of a guest may stay unnoticed: 2 s are promised, and as much again is for the other tests that keep
/// the machine busy.
const NOTICE_MAX: Duration = Duration::from_secs(4);
/// How long a guest may take to boot under emulation on a busy machine.
const BOOT_MAX: Duration = Duration::from_secs(120);
/// How long a stop may take: the guest's own shutdown, then force.
const STOP_MAX: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_guest_boots_on_while_the_cloud_is_killed_and_obeys_it_afterwards() -> Result<()> {
    let (mut cloud, session) = cloud("live").await?;
    let guest = Guest::boot(&cloud, &session).await?;
    guest.wait_for_status("ACTIVE", BOOT_MAX).await?;
    let process = guest.process()?;
    ensure!(!guest.console()?.contains("arcus-tiny: ready"), "the guest was ready before the cloud could be killed");
    cloud.kill()?;
    guest.wait_for_console("arcus-tiny: ready", BOOT_MAX).await?;
    ensure!(guest.process()? == process, "the guest has another process");

    let answered = cloud.start().await?;
    eprintln!("the cloud answers {answered:?} after its start");
    let session = Session::login(&cloud.home, &cloud.url, "arcus").await?;
    let guest = guest.seen_by(session);
    ensure!(guest.status().await? == "ACTIVE", "the server is {}", guest.status().await?);
    guest.act("os-stop").await?;
    guest.wait_for_status("SHUTOFF", STOP_MAX).await?;
    ensure!(!process.lives(), "the server is stopped and its guest runs");
    ensure!(guest.console()?.contains("arcus-tiny: stops"), "the guest was not shut down but ended");
    guest.act("os-start").await?;
    guest.wait_for_status("ACTIVE", BOOT_MAX).await?;
    ensure!(guest.process()? != process, "a guest that was started has the process of before");
    cloud.down()
}

#[tokio::test]
async fn the_death_of_a_guest_is_reported_within_seconds() -> Result<()> {
    let (mut cloud, session) = cloud("dead").await?;
    let guest = Guest::boot(&cloud, &session).await?;
    guest.wait_for_status("ACTIVE", BOOT_MAX).await?;
    guest.process()?.kill()?;
    let (status, noticed) = guest.wait_for_change("ACTIVE", NOTICE_MAX).await?;
    eprintln!("a killed guest's server is {status} after {noticed:?}");
    ensure!(["SHUTOFF", "ERROR"].contains(&status.as_str()), "a server whose guest died is {status}");
    guest.act(if status == "ERROR" { "reboot" } else { "os-start" }).await?;
    guest.wait_for_status("ACTIVE", BOOT_MAX).await?;

    // Nobody watches while the cloud does not run: it is noticed as soon as the cloud is back.
    let process = guest.process()?;
    cloud.kill()?;
    process.kill()?;
    cloud.start().await?;
    let session = Session::login(&cloud.home, &cloud.url, "arcus").await?;
    let (status, noticed) = guest.seen_by(session).wait_for_change("ACTIVE", NOTICE_MAX).await?;
    eprintln!("a guest killed without the cloud is {status} {noticed:?} after the log-in");
    ensure!(["SHUTOFF", "ERROR"].contains(&status.as_str()), "a server whose guest died is {status}");
    cloud.down()
}

/// A cloud that runs real guests, and a project member in it.
async fn cloud(name: &str) -> Result<(Arcus, Session)> {
    let mut cloud = Arcus::new(name, false)?;
    cloud.start().await?;
    Session::login(&cloud.home, &cloud.url, "arcus-admin").await?.node_ready().await?;
    let session = Session::login(&cloud.home, &cloud.url, "arcus").await?;
    Ok((cloud, session))
}
