//! Nodes that fail in the middle of a move: afterwards there is one guest, and nothing is lost that it was told to be on its disk.
//!
//! `ARCUS_LAB_ROUNDS` says how often a node fails, `ARCUS_LAB_SEED` how and when.

use crate::cloud::{Lab, setting};
use crate::wire::Wire;
use crate::writer::{self, LAST, WRITER};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// A source that is down is lost after 31 s; then its destination is asked, and what remains boots.
const END_MAX: Duration = Duration::from_secs(150);
const BOOT_MAX: Duration = Duration::from_secs(180);
const WATCHED: Duration = Duration::from_secs(3);
/// When a move is interrupted, at the latest, in milliseconds.
const MOVE_MS: u64 = 1_500;

const HOW: [(&str, bool); 4] = [("power-off", true), ("agent", true), ("power-off", false), ("agent", false)];

#[tokio::test]
async fn nodes_that_fail_in_the_middle_of_a_move_leave_one_guest() -> Result<()> {
    let (rounds, seed) = (setting("ARCUS_LAB_ROUNDS", 3)?, setting("ARCUS_LAB_SEED", u64::from(std::process::id()))?);
    eprintln!("{rounds} rounds, ARCUS_LAB_SEED={seed}");
    let lab = Lab::up("fails", 3).await?;
    let (server, client) = lab.servers("n1", "n3").await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    wire.guest(&lab, &server, WRITER)?;
    wire.end()?;
    let (mut random, mut certain) = (seed | 1, Vec::new());
    for round in 0..rounds {
        random = writer::next_random(random);
        let from = server.node().await?;
        let to = if from == "n1" { "n2" } else { "n1" };
        let mut wire = Wire::connect(&lab, &client, &server)?;
        let asked = Instant::now();
        let last = loop {
            let last = wire.guest(&lab, &server, LAST)?.trim().to_owned();
            if !last.is_empty() {
                break last;
            }
            ensure!(asked.elapsed() < BOOT_MAX, "the guest writes nothing");
        };
        certain.push(last);
        drop(wire);
        lab.command(&["slow", to, "--rate", "400"])?;
        server.migrate(Some(to)).await?;
        let wait_ms = random % MOVE_MS;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let (how, of_source) = HOW[usize::try_from(round)? % HOW.len()];
        let fails = if of_source { from.as_str() } else { to };
        match how {
            "agent" => lab.agent_kill(fails)?,
            word => drop(lab.command(&[word, fails])?),
        }
        // Back at once, or only when it has been given up.
        let lost = (random >> 40) & 1 == 0 && how == "power-off";
        if lost {
            lab.wait_for_node_state(fails, "lost", END_MAX).await?;
        } else {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        match how {
            "agent" => lab.agent_start(fails)?,
            _ => drop(lab.command(&["power-on", fails])?),
        }
        lab.wait_for_node_state(fails, "up", END_MAX).await?;
        server.wait_for_end(END_MAX).await?;
        let (now, status) = (server.node().await?, server.last_status().await?);
        eprintln!(
            "round {round}: {how} of {fails} {wait_ms} ms after {from} was to send it to {to}, {}: on {now}, {status}",
            if lost { "back once lost" } else { "back at once" }
        );
        server.wait_for_active(&now, BOOT_MAX).await?;
        lab.wait_for_one_process(&server, &now, BOOT_MAX).await?;
        lab.processes_stay(&server, &[&now], WATCHED).await?;
        Wire::connect(&lab, &client, &server)?.end()?;
        lab.command(&["slow", to])?;
    }
    let mut wire = Wire::connect(&lab, &client, &server)?;
    writer::has_lost_nothing(&mut wire, &lab, &server, &certain)?;
    wire.end()?;
    lab.down()
}
