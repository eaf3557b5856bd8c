//! Nodes that fail: they are lost in time, what is said of their servers is true, and no server ever has two guests.

use crate::cloud::Lab;
use crate::wire::Wire;
use anyhow::{Result, ensure};
use std::time::Duration;

/// A node is lost 25 s after its last word, which may be 5 s old when it fails; then it is looked every second.
const LOST_MIN: Duration = Duration::from_secs(18);
const LOST_MAX: Duration = Duration::from_secs(32);
/// How long a node may take to count as up again, and a guest to boot.
const BACK_MAX: Duration = Duration::from_secs(60);
const BOOT_MAX: Duration = Duration::from_secs(120);
/// For how long nothing may begin that should not.
const WATCHED: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_node_that_is_cut_off_is_lost_and_its_guest_runs_on() -> Result<()> {
    let lab = Lab::up("cut", 3).await?;
    let (server, client) = lab.servers("n1", "n3").await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    let pid = lab.process(&server, "n1")?;
    lab.command(&["cut", "n1"])?;
    let lost_after = lab.wait_for_node_state("n1", "lost", LOST_MAX).await?;
    eprintln!("lost after {lost_after:?}");
    ensure!(lost_after > LOST_MIN, "it was lost after {lost_after:?} already");
    server.is_down("UNKNOWN").await?;
    lab.processes_stay(&server, &["n1"], Duration::from_secs(2)).await?;
    lab.command(&["heal", "n1"])?;
    lab.wait_for_node_state("n1", "up", BACK_MAX).await?;
    server.wait_for_active("n1", BACK_MAX).await?;
    lab.processes_stay(&server, &["n1"], WATCHED).await?;
    ensure!(lab.process(&server, "n1")? == pid, "the guest was started again");
    // TCP asks ever more rarely while nobody answers.
    wire.answered(BACK_MAX)?;
    wire.end()?;
    lab.down()
}

#[tokio::test]
async fn a_server_is_evacuated_from_a_node_without_power_and_stays_where_it_is_when_that_is_back() -> Result<()> {
    let lab = Lab::up("evac", 2).await?;
    let (server, stays) = (lab.server_on("n1", "web").await?, lab.server_on("n1", "stays").await?);
    ensure!(server.evacuate().await? == 400, "a server was evacuated from a node that is up");
    lab.command(&["power-off", "n1"])?;
    lab.wait_for_node_state("n1", "suspect", LOST_MAX).await?;
    ensure!(server.evacuate().await? == 400, "a server was evacuated from a node that may still run it");
    lab.wait_for_node_state("n1", "lost", LOST_MAX).await?;
    server.is_down("UNKNOWN").await?;
    let status = server.evacuate().await?;
    ensure!(status == 200, "it was answered with {status}");
    server.wait_for_active("n2", BOOT_MAX).await?;
    lab.wait_for_one_process(&server, "n2", BOOT_MAX).await?;
    lab.command(&["power-on", "n1"])?;
    lab.wait_for_node_state("n1", "up", BACK_MAX).await?;
    // What was left alone goes on with its node, what was taken away does not.
    stays.wait_for_active("n1", BOOT_MAX).await?;
    lab.wait_for_one_process(&stays, "n1", BOOT_MAX).await?;
    lab.processes_stay(&server, &["n2"], WATCHED).await?;
    lab.down()
}
