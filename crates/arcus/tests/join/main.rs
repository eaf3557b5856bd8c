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
use std::process::Command;
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

/// What `arcus cluster` prints, or says as it refuses.
fn cluster(cloud: &Arcus, words: &str) -> Result<std::result::Result<String, String>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcus"));
    command.arg("cluster").args(words.split_whitespace()).arg("--home").arg(&cloud.home);
    let told = command.output()?;
    let (out, error) = (String::from_utf8(told.stdout)?, String::from_utf8(told.stderr)?);
    Ok(if told.status.success() { Ok(out) } else { Err(error) })
}

fn done(cloud: &Arcus, words: &str) -> Result<String> {
    cluster(cloud, words)?.map_err(|error| anyhow::anyhow!("arcus cluster {words}: {error}"))
}

/// The ratio of virtual CPUs that the placement API tells of a node.
async fn ratio(admin: &Session, node: &str) -> Result<f64> {
    let found = admin.ok(Method::GET, &format!("/placement/resource_providers?name={node}"), None).await?;
    let id = found["resource_providers"][0]["uuid"].as_str().context("no provider")?.to_owned();
    let told = admin.ok(Method::GET, &format!("/placement/resource_providers/{id}/inventories"), None).await?;
    told["inventories"]["VCPU"]["allocation_ratio"].as_f64().with_context(|| format!("no ratio: {told}"))
}

#[tokio::test]
async fn a_machine_joins_the_cluster_that_it_names_and_has_its_ratios() -> Result<()> {
    let mut cloud = Arcus::new("cluster", true)?;
    cloud.start().await?;
    let admin = Session::login(&cloud.home, &cloud.url, "arcus-admin").await?;
    let own = nodes_up(&admin, 1).await?.remove(0);
    let words = cloud.join_words(2)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut machine = Machine::new("clustered");
    let unknown = machine.refused(&[&words[..], &["--node", "joined", "--cluster", "second"]].concat())?;
    ensure!(unknown.contains("There is no cluster called second"), "{unknown}");

    done(&cloud, "create second --vcpus 50 --placement pack --zone cellar")?;
    machine.start(&[&words[..], &["--node", "joined", "--cluster", "second"]].concat())?;
    nodes_up(&admin, 2).await?;
    let list = done(&cloud, "list")?;
    let second: Vec<&str> =
        list.lines().find(|line| line.starts_with("second")).unwrap_or_default().split_whitespace().collect();
    ensure!(second == ["second", "cellar", "1", "0.50", "1.00", "10.00", "pack"], "{list}");
    ensure!((ratio(&admin, "joined").await?, ratio(&admin, &own).await?) == (0.5, 16.0), "the clusters' ratios");
    done(&cloud, "set second --vcpus 350")?;
    ensure!((ratio(&admin, "joined").await? - 3.5).abs() < 1e-9, "a change counts at once");

    let mut command = Command::new(env!("CARGO_BIN_EXE_arcus"));
    let told = command.args(["node", "list", "--cluster", "second", "--home"]).arg(&cloud.home).output()?.stdout;
    let told = String::from_utf8(told)?;
    ensure!(told.lines().count() == 2 && told.contains("\njoined "), "{told}");
    let cost = done(&cloud, &format!("check second {own}"))?;
    ensure!(cost.contains("guests can move between it and all others"), "{cost}");
    done(&cloud, &format!("add-node second {own}"))?;
    let pairs = done(&cloud, "pairs second --limit 1")?;
    ensure!(pairs.contains(": yes\nmore: --after "), "{pairs}");
    let shown = done(&cloud, "show second")?;
    ensure!(shown.contains("between 2 of 2 pairs of nodes") && shown.contains("features       simulated"), "{shown}");
    let refused = cluster(&cloud, "delete second")?.err().context("a cluster with nodes is deleted")?;
    ensure!(refused.contains("has nodes"), "{refused}");
    for node in [own.as_str(), "joined"] {
        done(&cloud, &format!("remove-node second {node}"))?;
    }
    done(&cloud, "delete second")?;
    ensure!(done(&cloud, "list")?.lines().count() == 2, "only the default cluster is left");
    machine.stop()?;
    cloud.down()
}
