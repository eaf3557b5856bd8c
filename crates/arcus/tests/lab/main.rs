//! A lab of several nodes with real guests: servers move between nodes while they run, and nobody notices.

mod asked;
#[expect(dead_code, reason = "the benchmarks ask it for more")]
mod cloud;
mod fails;
mod lost;
mod maintenance;
mod migrate;
#[path = "../rig/session.rs"]
#[expect(dead_code, reason = "the project is for the crash test, one node is too few here")]
mod session;
mod shared;
mod video;
mod wire;
mod writer;

use anyhow::{Result, ensure};
use cloud::Lab;
use std::time::Duration;
use wire::Wire;

/// How long a move of a small guest may take on a busy machine.
const MOVE_MAX: Duration = Duration::from_secs(60);
/// How long an answer may take to be looked for.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a client may wait for an answer while its server moves, in milliseconds. What is promised is measured by the
/// benchmark on a quiet machine; here other tests keep it busy, so only the kernel's retransmission timer may not fire.
const STALL_MS_MAX: u64 = 1_000;

#[tokio::test]
async fn a_guest_moves_there_and_back_and_its_clients_and_its_disk_notice_nothing() -> Result<()> {
    let lab = Lab::up("move", 3).await?;
    let (server, client) = lab.servers("n1", "n3").await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    let sum = wire.guest(
        &lab,
        &server,
        "dd if=/dev/urandom of=/root/blob bs=1M count=6 2>/dev/null; sync; sha256sum /root/blob",
    )?;
    let mut stalls = Vec::new();
    for round in 0..6 {
        let (from, to) = if round % 2 == 0 { ("n1", "n2") } else { ("n2", "n1") };
        wire.told()?;
        server.migrate(Some(to)).await?;
        server.wait_for_node(to, MOVE_MAX).await?;
        lab.wait_for_one_process(&server, to, MOVE_MAX).await?;
        let told = wire.told()?;
        eprintln!("{from} to {to}: a client waited {} ms, {} timeouts so far", told.stall_ms, told.timeouts);
        stalls.push(told.stall_ms);
        let line = format!("echo {round} >> /root/rounds; sync");
        wire.guest(&lab, &server, &line)?;
    }
    ensure!(stalls.iter().all(|stall| *stall < STALL_MS_MAX), "a client waited too long: {stalls:?} ms");
    // From the disk, not from the memory that came along.
    let now = wire.guest(&lab, &server, "echo 3 > /proc/sys/vm/drop_caches; sha256sum /root/blob; cat /root/rounds")?;
    ensure!(now.trim() == format!("{}\n0\n1\n2\n3\n4\n5", sum.trim()), "the disk is another one: {now}");
    wire.end()?;
    lab.down()
}

#[tokio::test]
async fn a_guest_that_only_listens_keeps_a_connection_that_no_rule_would_let_the_other_side_begin() -> Result<()> {
    let lab = Lab::up("flow", 3).await?;
    let (server, client) = lab.servers("n1", "n3").await?;
    let mut wire = Wire::listen(&lab, &client, &server)?;
    let mut stalls = Vec::new();
    for to in ["n2", "n1", "n2"] {
        wire.told()?;
        server.migrate(Some(to)).await?;
        server.wait_for_node(to, MOVE_MAX).await?;
        lab.wait_for_one_process(&server, to, MOVE_MAX).await?;
        let told = wire.told()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let later = wire.told()?;
        ensure!(later.bytes > told.bytes, "nothing is acknowledged any more on {to}: {told:?}, {later:?}");
        eprintln!("to {to}: no acknowledgement for {} ms, {} timeouts so far", told.stall_ms, told.timeouts);
        stalls.push(told.stall_ms);
    }
    ensure!(stalls.iter().all(|stall| *stall < STALL_MS_MAX), "nothing was acknowledged for too long: {stalls:?} ms");
    wire.end()?;
    lab.down()
}

#[tokio::test]
async fn a_move_that_is_given_up_leaves_the_guest_where_it_is() -> Result<()> {
    let lab = Lab::up("stay", 3).await?;
    let (server, client) = lab.servers("n1", "n3").await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    lab.command(&["slow", "n2", "--rate", "20"])?;
    server.migrate(Some("n2")).await?;
    server.wait_for_status("running", MOVE_MAX).await?;
    server.cancel().await?;
    server.wait_for_end(MOVE_MAX).await?;
    ensure!(server.last_status().await? == "cancelled", "the move is {}", server.last_status().await?);
    ensure!(server.node().await? == "n1", "the server is on {}", server.node().await?);
    lab.wait_for_one_process(&server, "n1", MOVE_MAX).await?;
    wire.told()?;
    lab.command(&["slow", "n2"])?;
    server.migrate(None).await?;
    server.wait_for_end(MOVE_MAX).await?;
    ensure!(server.node().await? != "n1", "the server did not move");
    wire.end()?;
    lab.down()
}

#[tokio::test]
async fn a_destination_whose_agent_dies_leaves_one_guest() -> Result<()> {
    agent_dies("dies", true).await
}

#[tokio::test]
async fn a_source_whose_agent_dies_leaves_one_guest() -> Result<()> {
    agent_dies("died", false).await
}

/// Ends the agent of one end in the middle of moves: the guest goes on, wherever it is, and is one.
async fn agent_dies(name: &str, of_destination: bool) -> Result<()> {
    let lab = Lab::up(name, 3).await?;
    let (server, client) = lab.servers("n1", "n3").await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    for wait_ms in [0, 150, 400] {
        let from = server.node().await?;
        let to = if from == "n1" { "n2" } else { "n1" };
        let dies = if of_destination { to } else { from.as_str() };
        lab.command(&["slow", to, "--rate", "200"])?;
        wire.told()?;
        server.migrate(Some(to)).await?;
        server.wait_for_status("running", MOVE_MAX).await?;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        lab.agent_kill(dies)?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        // One connection, every byte once and in order.
        let stall_ms = wire.answered(ANSWER_MAX)?;
        lab.agent_start(dies)?;
        server.wait_for_end(MOVE_MAX).await?;
        let now = server.node().await?;
        let status = server.last_status().await?;
        eprintln!(
            "killed {wait_ms} ms after it began: the server is on {now}, the move {status}, a client waited {stall_ms} ms"
        );
        lab.wait_for_one_process(&server, &now, MOVE_MAX).await?;
        let later_ms = wire.answered(ANSWER_MAX)?;
        ensure!(stall_ms.max(later_ms) < STALL_MS_MAX, "a client waited {stall_ms} and {later_ms} ms");
        lab.command(&["slow", to])?;
    }
    wire.end()?;
    lab.down()
}
