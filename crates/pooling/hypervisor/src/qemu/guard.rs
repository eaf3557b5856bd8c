//! A guest's guard: a process of one thread that kills the guest when the node's lease is over.
//!
//! ```text
//!  agent --starts--> guard --starts--> QEMU      QEMU is killed by the kernel when its guard ends (PR_SET_PDEATHSIG)
//!    |                 | reads, at the deadline that it read last
//!    +--writes--> lease file
//! ```
//! Other nodes can reach this guest's disks, and start it when the lease is over. So the guard needs nobody: not the agent,
//! which may be dead or hang, nor the network, nor the disk. It must never let go of a guest that lives, and never read a
//! clock that stands still while the machine sleeps.

use super::process::{self, Process, Spawn};
use crate::EndReason;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a guard may take to start its guest, in milliseconds.
const START_MS_MAX: u16 = 20_000;
/// How often a lease is read that is just being written.
const READS_MAX: usize = 100;

/// Time since the machine was booted, sleep included.
///
/// # Errors
/// The kernel's.
pub fn boot_time() -> io::Result<Duration> {
    Ok(nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from)?)
}

/// The file by which a node's agent tells its guests' guards until when they may run.
///
/// It holds the time since the machine's boot in nanoseconds twice, so that half a write is known as one.
#[derive(Debug)]
pub struct LeaseFile(File);

impl LeaseFile {
    /// Opens the file, which is made if it is not there. What it says stays as it is: guests may live by it.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map(Self)
    }

    /// Lets guests run until then, by [`boot_time`].
    ///
    /// # Errors
    /// The file system's.
    pub fn set(&self, until: Duration) -> io::Result<()> {
        let nanoseconds = u64::try_from(until.as_nanos()).map_err(io::Error::other)?.to_le_bytes();
        self.0.write_all_at(&[nanoseconds, nanoseconds].concat(), 0)
    }

    /// Until when guests may run; `None` if it says nothing that can be read.
    pub fn until(&self) -> Option<Duration> {
        read(&self.0)
    }
}

fn read(file: &File) -> Option<Duration> {
    for _ in 0..READS_MAX {
        let (mut one, mut other) = ([0; 8], [0; 8]);
        file.read_exact_at(&mut one, 0).ok()?;
        file.read_exact_at(&mut other, 8).ok()?;
        if one == other {
            return Some(Duration::from_nanos(u64::from_le_bytes(one)));
        }
    }
    None
}

/// What a guard is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// The program to start.
    pub program: PathBuf,
    /// The user and group that it runs as.
    pub uid: u32,
    /// A further group.
    pub extra_group: Option<u32>,
    /// Descriptors that it inherits.
    pub inherited: Vec<RawFd>,
    /// Gets its `/proc` status line.
    pub identity: RawFd,
    /// Gets its number, or minus the number of the error.
    pub told: RawFd,
    /// The lease.
    pub lease: PathBuf,
    /// Gets the reason why it was killed.
    pub ended: PathBuf,
}

/// Starts a guest by a guard of its own.
pub(super) fn spawn(spawn: Spawn<'_>, lease: PathBuf, ended: PathBuf) -> io::Result<Process> {
    let (answer, told) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let orders = Orders {
        program: spawn.program.to_owned(),
        uid: spawn.uid,
        extra_group: spawn.extra_group,
        inherited: spawn.inherited.iter().map(AsRawFd::as_raw_fd).collect(),
        identity: spawn.identity.as_raw_fd(),
        told: told.as_raw_fd(),
        lease,
        ended,
    };
    let mut guard = process::guard_start(&orders, &spawn.arguments, &spawn.group_joins, spawn.log)?;
    drop(told);
    let number = match answered(answer) {
        Ok(number) => number,
        Err(error) => {
            guard.kill()?;
            guard.wait()?;
            return Err(error);
        }
    };
    let guard = Process::open(guard.id())?;
    tokio::spawn(async move {
        guard.ended().await;
        guard.reap();
    });
    Process::open(number)
}

/// The guest's number, once its guard has started it.
fn answered(answer: OwnedFd) -> io::Result<u32> {
    let mut waits = [PollFd::new(answer.as_fd(), PollFlags::POLLIN)];
    if poll(&mut waits, PollTimeout::from(START_MS_MAX))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut text = String::new();
    File::from(answer).read_to_string(&mut text)?;
    match text.trim().parse::<i64>() {
        Ok(number) if number > 0 => u32::try_from(number).map_err(io::Error::other),
        Ok(error) => Err(io::Error::from_raw_os_error(i32::try_from(-error).unwrap_or(0))),
        Err(_) => Err(io::Error::other("its guard ended before it was started")),
    }
}

/// The guard's whole life; to be called by a process of one thread, which ends afterwards.
///
/// # Errors
/// The kernel's. The guest is dead then, or dies with this process.
pub fn run(orders: &str, arguments: &[OsString]) -> io::Result<()> {
    let orders: Orders = serde_json::from_str(orders)?;
    let lease = File::open(&orders.lease)?;
    let started = process::guest_start(&orders, arguments);
    let number = match &started {
        Ok(guest) => i64::from(guest.id()),
        Err(error) => -i64::from(error.raw_os_error().unwrap_or(nix::libc::EIO)),
    };
    writeln!(process::owned(orders.told), "{number}")?;
    let mut guest = started?;
    for inherited in orders.inherited.iter().chain([&orders.identity]) {
        drop(process::owned(*inherited));
    }
    let (ends, timer) = (process::pidfd(guest.id())?, TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)?);
    loop {
        let now = boot_time()?;
        let Some(until) = read(&lease).filter(|until| *until > now) else {
            guest.kill()?;
            // Afterwards: the disk may hang.
            std::fs::write(&orders.ended, serde_json::to_vec(&EndReason::LeaseOver)?)?;
            guest.wait()?;
            return Ok(());
        };
        timer.set(Expiration::OneShot(TimeSpec::from(until)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        let mut waits = [PollFd::new(ends.as_fd(), PollFlags::POLLIN), PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waits, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if guest.try_wait()?.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_write_of_a_lease_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let lease = LeaseFile::open(&path).unwrap();
        assert_eq!(lease.until(), None);
        lease.set(Duration::from_secs(7)).unwrap();
        assert_eq!(LeaseFile::open(&path).unwrap().until(), Some(Duration::from_secs(7)));
        lease.0.write_all_at(&9_u64.to_le_bytes(), 0).unwrap();
        assert_eq!(lease.until(), None);
    }
}
