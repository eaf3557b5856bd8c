//! Machines that join a cloud: `arcus join-token` where the cloud is, `arcus agent` where the machine is.

#[path = "../rig/arcus.rs"]
#[expect(dead_code, reason = "killing the process is for other tests")]
mod arcus;
#[path = "../rig/machine.rs"]
#[expect(dead_code, reason = "killing a machine is for other tests")]
mod machine;
#[path = "../rig/session.rs"]
#[expect(dead_code, reason = "images and projects are for other tests")]
mod session;

use anyhow::{Context as _, Result, ensure};
use arcus::Arcus;
use machine::Machine;
use reqwest::Method;
use session::Session;
use std::time::{Duration, Instant};

/// How long what a test waits for may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until so many nodes are up; their names.
async fn nodes_up(admin: &Session, count: usize) -> Result<Vec<String>> {
    let began = Instant::now();
    loop {
        let told = admin.ok(Method::GET, "/compute/v2.1/os-hypervisors", None).await?;
        let all = told["hypervisors"].as_array().context("no list")?;
        let up = all.iter().filter(|node| node["state"] == "up");
        let mut names: Vec<String> =
            up.filter_map(|node| node["hypervisor_hostname"].as_str().map(str::to_owned)).collect();
        names.sort();
        if names.len() == count {
            return Ok(names);
        }
        ensure!(began.elapsed() < PATIENCE, "{count} nodes are not up: {told}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_machine_joins_with_a_token_and_finds_its_cloud_again() -> Result<()> {
    let mut cloud = Arcus::new("join", true)?;
    cloud.start().await?;
    let admin = Session::login(&cloud.home, &cloud.url, "arcus-admin").await?;
    let own = nodes_up(&admin, 1).await?;
    let words = cloud.join_words(2)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut machine = Machine::new("joiner");

    let lost = machine.refused(&[])?;
    ensure!(lost.contains("arcus join-token"), "{lost}");
    let cut: String = words[3].chars().take(words[3].len() - 1).collect();
    let stranger = machine.refused(&[words[0], words[1], "--token", &cut])?;
    ensure!(stranger.contains("not the one that the join token is for"), "{stranger}");
    let taken = machine.refused(&[&words[..], &["--node", &own[0]]].concat())?;
    ensure!(taken.contains("is connected"), "{taken}");

    machine.start(&[&words[..], &["--node", "joined"]].concat())?;
    ensure!(nodes_up(&admin, 2).await?.contains(&"joined".to_owned()), "the node has another name");
    machine.stop()?;
    std::fs::remove_file(machine.home.join("arcus.log"))?;
    // It needs neither token nor address any more.
    machine.start(&[])?;
    let began = Instant::now();
    while !std::fs::read_to_string(machine.home.join("arcus.log"))?.contains("this machine is a node") {
        ensure!(began.elapsed() < PATIENCE, "the node did not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    machine.stop()?;
    cloud.down()
}
