//! From the request for a server to its guest running, against the same QEMU command started by hand.
//!
//! Ours begins when the request is sent: API, database, node, disk, tap, control groups and QEMU are in it. The other begins
//! when QEMU is started, and its disk is made beforehand. Both end alike, seen from outside: when `init` in the guest says
//! on the console that it runs, with firmware, loader and kernel through. The stretch up to the virtual processor's first
//! instructions, where all that differs lies, is told on the way.

use crate::by_hand::ByHand;
use crate::guests::Site;
use crate::measurement;
use anyhow::Result;

const ROUNDS: usize = 7;
const GOAL: f64 = 1.15;

pub async fn run() -> Result<()> {
    let site = Site::up().await?;
    let by_hand = warm_up(&site).await?;
    let (mut ours, mut ours_first, mut other, mut other_first) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let guest = site.next_guest()?;
        let server = site.create().await?;
        let life = guest.await??.life().await?;
        ours.push(life.init - server.began);
        ours_first.push(life.runs - server.began);
        site.delete(&server).await?;

        let (began, life) = by_hand.boot().await?;
        other.push(life.init - began);
        other_first.push(life.runs - began);
    }
    measurement::median_s("request to first instruction", &ours_first)?;
    measurement::median_s("QEMU's start to first instruction, by hand", &other_first)?;
    let ours = measurement::median_s("request to init", &ours)?;
    let other = measurement::median_s("QEMU's start to init, by hand", &other)?;
    measurement::compared("server_boot", ours, other, "QEMU by hand", GOAL);
    site.cloud.down()
}

/// A first server brings the image into the node's cache and shows the command line. It does not count.
async fn warm_up(site: &Site) -> Result<ByHand> {
    let guest = site.next_guest()?;
    let server = site.create().await?;
    let seen = guest.await??;
    seen.life().await?;
    let by_hand = ByHand::like(&seen.command_line()?, &site.cloud.home.join("by-hand"))?;
    site.delete(&server).await?;
    Ok(by_hand)
}
