//! From the start of the process to the first answer to `GET /`, TLS included, on an empty home folder: the database, the
//! certificate authority and the first users are made on the way.

use crate::arcus::Arcus;
use crate::measurement;
use anyhow::Result;

const ROUNDS: usize = 7;
const GOAL_S: f64 = 1.0;

pub async fn run() -> Result<()> {
    let mut answered = Vec::new();
    for _ in 0..ROUNDS {
        let mut cloud = Arcus::new("bench", false)?;
        answered.push(cloud.start().await?);
        cloud.down()?;
    }
    measurement::absolute("first_answer", measurement::median_s("first answer", &answered)?, GOAL_S, "s");
    Ok(())
}
