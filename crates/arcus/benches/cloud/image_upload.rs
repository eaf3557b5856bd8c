//! Uploading an image of 1 GiB, against `cp` and `sha256sum` of the same file, one after the other.
//!
//! Ours: from the request that makes the image's record until the upload is answered: encryption and its undoing on both
//! sides of the connection, both hashes, the inspection of the format, and the bytes on stable storage. Other: what the two
//! programs do; `cp` leaves the bytes in the page cache. The file is in the page cache for both.

use crate::arcus::Arcus;
use crate::measurement;
use crate::session::Session;
use anyhow::{Result, ensure};
use rand::{RngCore as _, SeedableRng as _};
use reqwest::Method;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const FILE_MIB: usize = 1024;
const GOAL: f64 = 1.3;

pub async fn run() -> Result<()> {
    let mut cloud = Arcus::new("bench", false)?;
    cloud.start().await?;
    let session = Session::login(&cloud.home, &cloud.url, "arcus").await?;
    let file = cloud.home.join("bench.raw");
    write_noise(&file)?;
    let (mut ours, mut other) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(upload(&session, &file).await?);
        other.push(copy_and_hash(&file, &cloud.home.join("bench.copy"))?);
    }
    let ours = measurement::median_s("upload", &ours)?;
    let other = measurement::median_s("cp and sha256sum", &other)?;
    measurement::compared("image_upload", ours, other, "cp + sha256sum", GOAL);
    cloud.down()
}

async fn upload(session: &Session, file: &Path) -> Result<Duration> {
    nix::unistd::sync();
    let began = Instant::now();
    let image = session.image_upload("bench", "raw", file).await?;
    let took = began.elapsed();
    session.ok(Method::DELETE, &format!("/image/v2/images/{image}"), None).await?;
    Ok(took)
}

fn copy_and_hash(file: &Path, copy: &Path) -> Result<Duration> {
    nix::unistd::sync();
    let began = Instant::now();
    let copied = Command::new("cp").arg(file).arg(copy).status()?;
    let hashed = Command::new("sha256sum").arg(file).stdout(Stdio::null()).status()?;
    let took = began.elapsed();
    ensure!(copied.success() && hashed.success(), "cp or sha256sum failed");
    std::fs::remove_file(copy)?;
    Ok(took)
}

/// A file that can neither be compressed nor have holes.
fn write_noise(path: &Path) -> Result<()> {
    let mut random = rand::rngs::SmallRng::seed_from_u64(1);
    let mut piece = vec![0_u8; 1 << 20];
    let mut file = std::fs::File::create(path)?;
    for _ in 0..FILE_MIB {
        random.fill_bytes(&mut piece);
        file.write_all(&piece)?;
    }
    Ok(())
}
