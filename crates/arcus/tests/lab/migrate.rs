//! Servers that go to another node while they are shut down: the disk comes along, and is there for as long as it may be needed.

use crate::cloud::{Lab, Server};
use crate::wire::Wire;
use crate::writer::{self, LAST, WRITER};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a guest may take to shut down, to be copied and to boot again.
const MOVE_MAX: Duration = Duration::from_secs(240);

async fn ask(server: &Server, body: Value) -> Result<()> {
    let status = server.act(body.clone()).await?;
    ensure!(status == 202 || status == 204, "{body} was answered with {status}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_moves_shut_down_keeps_its_disk_there_and_back() -> Result<()> {
    let lab = Lab::up("cold", 3).await?;
    let (server, client) = lab.servers("n1", "n3").await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    wire.guest(&lab, &server, WRITER)?;
    wire.guest(&lab, &server, "until [ -s /root/lines ]; do usleep 100000; done")?;
    let mut certain = vec![wire.guest(&lab, &server, LAST)?.trim().to_owned()];
    wire.end()?;
    ensure!(server.act(json!({ "migrate": { "host": "n1" } })).await? == 400, "it could go where it is");

    ask(&server, json!({ "migrate": { "host": "n2" } })).await?;
    server.wait_for("status", "VERIFY_RESIZE", MOVE_MAX).await?;
    ensure!(server.node().await? == "n2", "it is on {}", server.node().await?);
    lab.wait_for_one_process(&server, "n2", MOVE_MAX).await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    writer::has_lost_nothing(&mut wire, &lab, &server, &certain)?;
    ask(&server, json!({ "confirmResize": null })).await?;
    server.wait_for_active("n2", MOVE_MAX).await?;
    ensure!(server.last_status().await? == "confirmed", "the move is {}", server.last_status().await?);
    certain.push(wire.guest(&lab, &server, LAST)?.trim().to_owned());
    wire.end()?;

    ask(&server, json!({ "migrate": { "host": "n1" } })).await?;
    server.wait_for("status", "VERIFY_RESIZE", MOVE_MAX).await?;
    lab.wait_for_one_process(&server, "n1", MOVE_MAX).await?;
    ask(&server, json!({ "revertResize": null })).await?;
    server.wait_for_active("n2", MOVE_MAX).await?;
    lab.wait_for_one_process(&server, "n2", MOVE_MAX).await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    writer::has_lost_nothing(&mut wire, &lab, &server, &certain)?;
    certain.push(wire.guest(&lab, &server, LAST)?.trim().to_owned());
    wire.end()?;

    // The image that a disk travels as is gone when it is confirmed: a server that is shut off has to have its disk by then.
    ask(&server, json!({ "os-stop": null })).await?;
    server.wait_for("status", "SHUTOFF", MOVE_MAX).await?;
    ask(&server, json!({ "migrate": null })).await?;
    server.wait_for("status", "VERIFY_RESIZE", MOVE_MAX).await?;
    let now = server.node().await?;
    ensure!(now != "n2", "it did not move");
    ask(&server, json!({ "confirmResize": null })).await?;
    server.wait_for("status", "SHUTOFF", MOVE_MAX).await?;
    ask(&server, json!({ "os-start": null })).await?;
    server.wait_for_active(&now, MOVE_MAX).await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    writer::has_lost_nothing(&mut wire, &lab, &server, &certain)?;
    wire.end()?;
    lab.down()
}
