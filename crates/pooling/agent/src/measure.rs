//! What the machine can do, measured once, when it has joined: a second or two of its processors, its disk and its way to the
//! server. What was found is kept, so that an agent that starts again does not measure beside guests.

use crate::chain;
use crate::link::{Link, LinkError};
use crate::node::Shared;
use arcus_types::agent::{NodeMeasured, PROBE_BYTES_MAX};
use aws_lc_rs::digest;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the processors hash for one figure, and how long at most the disk is written to.
const CPU_TIME: Duration = Duration::from_millis(250);
const DISK_TIME: Duration = Duration::from_secs(1);
/// What is hashed and written at once.
const BLOCK_BYTES: usize = 1 << 20;
/// The most that is written.
const DISK_BLOCKS_MAX: u64 = 256;
const FLUSHES: usize = 21;
const FLUSH_BYTES: usize = 4 << 10;
const ROUND_TRIPS: usize = 11;
const MIB: f64 = 1_048_576.0;

/// The file that what was found is kept in.
const KEPT: &str = "measured.json";

/// What was found earlier.
pub(crate) fn kept(folder: &Path) -> Option<NodeMeasured> {
    serde_json::from_slice(&std::fs::read(folder.join(KEPT)).ok()?).ok()
}

/// Measures the machine unless that was done, and says so on its record.
pub(crate) async fn once(shared: Arc<Shared>, folder: PathBuf) {
    if kept(&folder).is_some() {
        return;
    }
    let scratch = folder.clone();
    let local = tokio::task::spawn_blocking(move || machine(&scratch)).await;
    let mut measured = match local {
        Ok(Ok(measured)) => measured,
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "this machine could not be measured");
            return;
        }
        Err(_stopped) => return,
    };
    match network(&shared.link).await {
        Ok((round_trip_us, mib_s)) => {
            measured.network_round_trip_us = Some(round_trip_us);
            measured.network_mib_s = Some(mib_s);
        }
        Err(error) => tracing::warn!(error = chain(&error), "the way to the server could not be measured"),
    }
    let text = serde_json::to_vec(&measured).unwrap_or_default();
    if let Err(error) = std::fs::write(folder.join(KEPT), text) {
        tracing::warn!(error = chain(&error), "what was measured could not be kept: it will be measured again");
    }
    tracing::info!(?measured, "this machine was measured");
    crate::node::read_facts(&shared).await;
}

fn machine(folder: &Path) -> io::Result<NodeMeasured> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (disk_write_mib_s, disk_flush_us) = disk(folder)?;
    Ok(NodeMeasured {
        at_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        cpu_thread_mib_s: hashed(1),
        cpu_all_mib_s: hashed(threads),
        disk_write_mib_s,
        disk_flush_us,
        network_round_trip_us: None,
        network_mib_s: None,
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is small and not negative")]
fn rate(bytes: f64, took: Duration) -> u64 {
    (bytes / MIB / took.as_secs_f64().max(1e-6)).round() as u64
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn middle(mut all: Vec<Duration>) -> u64 {
    all.sort_unstable();
    all.get(all.len() / 2).map_or(0, |took| micros(*took))
}

/// How much SHA-256 so many threads do in a second together, in MiB.
#[expect(clippy::cast_precision_loss, reason = "a few thousand blocks")]
fn hashed(threads: usize) -> u64 {
    let began = Instant::now();
    let blocks: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let (block, began, mut count) = (vec![7_u8; BLOCK_BYTES], Instant::now(), 0_u64);
                    while began.elapsed() < CPU_TIME {
                        std::hint::black_box(digest::digest(&digest::SHA256, &block));
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).sum()
    });
    rate(blocks as f64 * BLOCK_BYTES as f64, began.elapsed())
}

/// How fast the folder's disk takes a file to its end, in MiB/s, and how long a small write takes to be on stable storage, in
/// microseconds at the median.
#[expect(clippy::cast_precision_loss, reason = "a few hundred blocks")]
fn disk(folder: &Path) -> io::Result<(u64, u64)> {
    let path = folder.join("measure.part");
    let file = File::options().write(true).create(true).truncate(true).open(&path)?;
    // Open, but nowhere to be found: nothing is left whatever happens.
    std::fs::remove_file(&path)?;
    // Zeros might never be written.
    let mut block = vec![0; BLOCK_BYTES];
    for (index, byte) in block.iter_mut().enumerate() {
        *byte = (index.wrapping_mul(2_654_435_761) >> 13) as u8;
    }
    let (began, mut blocks) = (Instant::now(), 0);
    while began.elapsed() < DISK_TIME && blocks < DISK_BLOCKS_MAX {
        file.write_all_at(&block, blocks * BLOCK_BYTES as u64)?;
        blocks += 1;
        if blocks % 16 == 0 {
            file.sync_data()?;
        }
    }
    file.sync_data()?;
    let write = rate(blocks as f64 * BLOCK_BYTES as f64, began.elapsed());
    let mut flushes = Vec::with_capacity(FLUSHES);
    for (turn, small) in block.chunks_exact(FLUSH_BYTES).take(FLUSHES).enumerate() {
        let began = Instant::now();
        file.write_all_at(small, (turn * FLUSH_BYTES) as u64)?;
        file.sync_data()?;
        flushes.push(began.elapsed());
    }
    Ok((write, middle(flushes)))
}

/// How long a call to the server takes there and back, in microseconds at the median, and how fast bytes come from it, in
/// MiB/s.
#[expect(clippy::cast_precision_loss, reason = "a few MiB")]
async fn network(link: &Link) -> Result<(u64, u64), LinkError> {
    let mut trips = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        link.probe(1).await?;
        trips.push(began.elapsed());
    }
    let began = Instant::now();
    let bytes = link.probe(PROBE_BYTES_MAX).await?;
    Ok((middle(trips), rate(bytes as f64, began.elapsed())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_measured_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(kept(folder.path()), None);
        let measured = machine(folder.path()).unwrap();
        assert!(measured.cpu_thread_mib_s > 0 && measured.cpu_all_mib_s > 0, "{measured:?}");
        assert!(measured.disk_write_mib_s > 0 && measured.disk_flush_us > 0, "{measured:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(folder.path().join(KEPT), serde_json::to_vec(&measured).unwrap()).unwrap();
        assert_eq!(kept(folder.path()), Some(measured));
    }
}
