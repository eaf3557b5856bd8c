//! A node is emptied and filled again under a client that notices nothing, while the server that moves the guests is killed.

use crate::cloud::Lab;
use crate::wire::Wire;
use crate::{ANSWER_MAX, MOVE_MAX, STALL_MS_MAX};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

const DRAIN_MAX: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_node_is_drained_and_restored_though_the_server_is_killed_meanwhile() -> Result<()> {
    let lab = Lab::up("drn", 3).await?;
    let (server, client) = lab.servers("n1", "n3").await?;
    let second = lab.server_on("n1", "second").await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    let mut stalls = Vec::new();
    for (word, kills) in [("drain", 3_u64), ("restore", 2)] {
        wire.told()?;
        let task = lab.maintain("n1", word).await?;
        for kill in 0..kills {
            wait_until_one_moves(&lab, &task).await?;
            tokio::time::sleep(Duration::from_millis(300 * kill)).await;
            lab.server_kill().await?;
            lab.server_start().await?;
        }
        lab.wait_for_task(&task, DRAIN_MAX).await?;
        let moved = lab.moved_servers(&task).await?;
        eprintln!("{word}: {moved:?}");
        for one in [&server, &second] {
            let node = one.node().await?;
            ensure!((node == "n1") == (word == "restore"), "after {word} a server is on {node}");
            lab.wait_for_one_process(one, &node, MOVE_MAX).await?;
        }
        ensure!(moved.len() == 2 && moved.iter().all(|(_, state, _)| state == "moved"), "{moved:?}");
        stalls.push(wire.answered(ANSWER_MAX)?);
    }
    eprintln!("a client waited {stalls:?} ms at most");
    ensure!(stalls.iter().all(|stall| *stall < STALL_MS_MAX), "a client waited too long: {stalls:?} ms");
    wire.end()?;
    lab.down()
}

/// Waits until a server is on its way, or none is left to go.
async fn wait_until_one_moves(lab: &Lab, task: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let servers = lab.moved_servers(task).await?;
        if servers.iter().any(|(_, state, _)| state == "moving") || servers.iter().all(|(_, state, _)| state == "moved")
        {
            return Ok(());
        }
        ensure!(began.elapsed() < MOVE_MAX, "nothing moves: {servers:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
