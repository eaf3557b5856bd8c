//! Nodes that fail under a server on shared disks: it runs again elsewhere, never twice, and nothing is lost that the guest was
//! told to be on its disk.
//!
//! `ARCUS_LAB_ROUNDS` says how often a node fails (50 for the full test), `ARCUS_LAB_SEED` how and when.

use crate::cloud::{Lab, setting};
use crate::wire::Wire;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

const LOST_MAX: Duration = Duration::from_secs(40);
const BACK_MAX: Duration = Duration::from_secs(60);
const SERVING_MAX: Duration = Duration::from_secs(120);

/// From each boot on the guest answers on port 7000 and writes numbered lines to its disk, each with what tells the boot.
pub const WRITER: &str = "cat > /root/writer <<\"E\"\n#!/bin/sh\nn=$(tail -n 1 /root/lines 2>/dev/null | cut -d\" \" -f1)\n\
    n=${n:-0}\nb=$(cat /proc/sys/kernel/random/boot_id)\nwhile :; do n=$((n+1)); echo \"$n $b\" >> /root/lines; sync; \
    usleep 100000; done\nE\nchmod 755 /root/writer; echo \"::respawn:/root/writer\" >> /etc/inittab; \
    echo \"::respawn:/usr/bin/nc -ll -p 7000 -e /usr/bin/cat\" >> /etc/inittab; sync; kill -HUP 1";
/// The last line that is on the disk for certain.
pub const LAST: &str = "l=$(tail -n 1 /root/lines); sync; echo $l";

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
        // xorshift: all that is asked of it is that a seed gives the same rounds again.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
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
    let lines = wire.guest(&lab, &server, "cat /root/lines")?;
    let lines: Vec<&str> = lines.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        ensure!(line.starts_with(&format!("{} ", at + 1)), "line {} is {line:?}: there were two writers", at + 1);
    }
    for said in certain {
        ensure!(!said.is_empty() && lines.contains(&said.as_str()), "{said:?} was on the disk and is lost");
    }
    wire.end()?;
    lab.down()
}
