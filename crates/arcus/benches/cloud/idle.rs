//! What a cloud without guests takes while nobody asks it for anything: server and agent, one process.

use crate::arcus::Arcus;
use crate::measurement;
use crate::session::Session;
use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

/// How long it is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(5);
/// How long its processor time is counted: several rounds of everything that it does now and then.
const WATCH: Duration = Duration::from_secs(40);
const MEMORY_GOAL_MIB: f64 = 64.0;
const CPU_GOAL_PERCENT: f64 = 1.0;

pub async fn run() -> Result<()> {
    let mut cloud = Arcus::new("bench", false)?;
    cloud.start().await?;
    Session::login(&cloud.home, &cloud.url, "arcus-admin").await?.node_ready().await?;
    tokio::time::sleep(SETTLE).await;
    let (before_ms, began) = (cpu_ms(cloud.pid()?)?, Instant::now());
    tokio::time::sleep(WATCH).await;
    let used_ms = cpu_ms(cloud.pid()?)? - before_ms;
    let share_percent = used_ms / began.elapsed().as_secs_f64() / 10.0;
    measurement::absolute("idle_memory", resident_mib(cloud.pid()?)?, MEMORY_GOAL_MIB, "MiB");
    measurement::absolute("idle_cpu", share_percent, CPU_GOAL_PERCENT, "% of a core");
    cloud.down()
}

/// Processor time that a process has used, in milliseconds, counted by the kernel's clock ticks.
fn cpu_ms(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("not a process's status")?;
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("the kernel has no clock tick")?;
    Ok(ticks as f64 * 1e3 / per_second as f64)
}

/// Memory of a process that is in RAM.
pub fn resident_mib(pid: u32) -> Result<f64> {
    memory_mib(pid, "VmRSS:")
}

/// The most memory of a process that ever was in RAM.
pub fn peak_mib(pid: u32) -> Result<f64> {
    memory_mib(pid, "VmHWM:")
}

fn memory_mib(pid: u32, name: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no resident size")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
