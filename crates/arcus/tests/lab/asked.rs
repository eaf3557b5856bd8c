//! Moves that are asked for with limits: what is in the way and what it takes is said before, what it took afterwards.

use crate::cloud::Lab;
use crate::wire::Wire;
use crate::{ANSWER_MAX, MOVE_MAX};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;

const BLACKOUT_MS: u64 = 250;

#[tokio::test]
async fn a_move_is_predicted_measured_and_given_up_at_its_deadline() -> Result<()> {
    let lab = Lab::up("asked", 3).await?;
    let (server, client) = lab.servers("n1", "n3").await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    let (status, told) = server.live_migration(json!({ "dry_run": true, "node": "n1" })).await?;
    let plan = &told["live_migration"];
    ensure!(status == 200 && plan["possible"] == false, "it could go where it is: {status} {told}");
    ensure!(plan["blockers"][0]["name"] == "same_node", "{told}");
    let wish = json!({ "node": "n2", "max_blackout_ms": BLACKOUT_MS, "deadline_s": 60 });
    let mut dry = wish.clone();
    dry["dry_run"] = json!(true);
    let (status, told) = server.live_migration(dry).await?;
    let plan = told["live_migration"].clone();
    ensure!(status == 200 && plan["possible"] == true && plan["target"] == "n2", "{status} {told}");
    ensure!(plan["measured"]["dirty_bytes_per_s"].is_u64(), "the dirty rate was not measured: {told}");
    ensure!(plan["measured"]["memory_bytes"].as_u64() > Some(8 << 20), "the guest has no memory: {told}");
    ensure!(server.node().await? == "n1", "a dry run moved it");
    let (status, told) = server.live_migration(wish).await?;
    ensure!(status == 202, "{status} {told}");
    let over = server.task_over(&told["task"], MOVE_MAX).await?;
    eprintln!("planned {plan}, took {}", over["detail"]);
    ensure!(over["state"] == "done" && !over["deadline"].is_null(), "{over}");
    let blackout = over["detail"]["blackout_ms"].as_u64().context("no blackout")?;
    ensure!(blackout <= 2 * BLACKOUT_MS, "it stood still for {blackout} ms");
    ensure!(server.node().await? == "n2", "it is on {}", server.node().await?);
    wire.answered(ANSWER_MAX)?;

    lab.command(&["slow", "n2", "--rate", "8"])?;
    let (status, told) = server.live_migration(json!({ "node": "n1", "deadline_s": 3 })).await?;
    ensure!(status == 202, "{status} {told}");
    let over = server.task_over(&told["task"], MOVE_MAX).await?;
    ensure!(over["state"] == "cancelled", "it was not given up: {over}");
    ensure!(over["error"].as_str().is_some_and(|why| why.contains("deadline")), "{over}");
    server.wait_for_end(MOVE_MAX).await?;
    lab.command(&["slow", "n2"])?;
    lab.wait_for_one_process(&server, "n2", MOVE_MAX).await?;
    wire.answered(ANSWER_MAX)?;
    wire.end()?;
    lab.down()
}
