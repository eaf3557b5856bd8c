//! From the request for a server to the start of its QEMU process: the API, the transaction, the node's long poll, the disk,
//! the port. The image is in the node's cache.

use crate::guests::Site;
use crate::measurement;
use anyhow::Result;

const ROUNDS: usize = 21;
const GOAL_MS: f64 = 50.0;

pub async fn run() -> Result<()> {
    let site = Site::up().await?;
    let mut took = Vec::new();
    // The first one brings the image into the cache and does not count.
    for round in 0..=ROUNDS {
        let guest = site.next_guest()?;
        let server = site.create().await?;
        let seen = guest.await??;
        if round > 0 {
            took.push(seen.at - server.began);
        }
        site.delete(&server).await?;
    }
    let median_s = measurement::median_s("request to QEMU's start", &took)?;
    measurement::absolute("control_plane", median_s * 1e3, GOAL_MS, "ms");
    site.cloud.down()
}
