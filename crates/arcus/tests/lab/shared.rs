//! Nodes that fail under a server on shared disks: it runs again elsewhere, never twice, and nothing is lost that the guest was
//! told to be on its disk.
//!
//! `ARCUS_LAB_ROUNDS` says how often a node fails (50 for the full test), `ARCUS_LAB_SEED` how and when.

use crate::cloud::{Lab, setting};
use crate::wire::Wire;
use crate::writer::{self, LAST, WRITER};
use anyhow::Result;
use std::time::{Duration, Instant};

const LOST_MAX: Duration = Duration::from_secs(40);
const BACK_MAX: Duration = Duration::from_secs(60);
const SERVING_MAX: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_server_of_failing_nodes_serves_again_elsewhere_and_has_one_writer() -> Result<()> {
    let (rounds, seed) = (setting("ARCUS_LAB_ROUNDS", 3)?, setting("ARCUS_LAB_SEED", u64::from(std::process::id()))?);
    eprintln!("{rounds} rounds, ARCUS_LAB_SEED={seed}");
    let lab = Lab::up_shared("shrd", 3).await?;
    let (server, client) = lab.servers("n1", "n3").await?;
    lab.close("n3").await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    wire.guest(&lab, &server, WRITER)?;
    wire.end()?;
    let (mut random, mut took, mut certain) = (seed | 1, Vec::new(), Vec::new());
    for round in 0..rounds {
        random = writer::next_random(random);
        let from = server.node().await?;
        tokio::time::sleep(Duration::from_millis(random % 3_000)).await;
        let mut wire = Wire::connect(&lab, &client, &server)?;
        certain.push(wire.guest(&lab, &server, LAST)?.trim().to_owned());
        drop(wire);
        let how = ["power-off", "cut", "agent"][usize::try_from((random >> 32) + round)? % 3];
        match how {
            "agent" => lab.agent_kill(&from)?,
            word => drop(lab.command(&[word, &from])?),
        }
        let elsewhere = lab.watch_until_elsewhere(&server, &from, LOST_MAX + SERVING_MAX).await?;
        let began = Instant::now();
        server.wait_for_active(&server.node().await?, SERVING_MAX).await?;
        Wire::connect(&lab, &client, &server)?.end()?;
        eprintln!("round {round}: {how} of {from}: elsewhere after {elsewhere:?}, serving {:?} later", began.elapsed());
        took.push(began.elapsed());
        match how {
            "agent" => lab.agent_start(&from)?,
            "cut" => drop(lab.command(&["heal", &from])?),
            _ => drop(lab.command(&["power-on", &from])?),
        }
        lab.wait_for_node_state(&from, "up", BACK_MAX).await?;
    }
    took.sort_unstable();
    eprintln!("serving after its start elsewhere: median {:?}, all {took:?}", took.get(took.len() / 2));
    let mut wire = Wire::connect(&lab, &client, &server)?;
    writer::has_lost_nothing(&mut wire, &lab, &server, &certain)?;
    wire.end()?;
    lab.down()
}
