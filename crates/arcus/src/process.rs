//! What every long-lived process of Arcus does: it writes a log, is the only one with its home folder, ends when asked.

use crate::home::Home;
use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::File;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long a process that was killed may hold the home folder's lock.
const LOCK_DEADLINE: Duration = Duration::from_secs(5);

/// How many files this process may have open. More would cost programs that close them all one by one when they start.
const FILES: u64 = 1 << 17;
/// Fewer are told of: they last for some thousand nodes.
const FILES_FEW: u64 = 1 << 13;

/// This process, as others with the same home folder see it.
pub struct Process {
    home: Home,
    terminate: Signal,
    interrupt: Signal,
    _lock: Flock<File>,
}

impl Process {
    /// Takes the home folder for this process, and says so in it.
    pub async fn begin(home: &Home) -> Result<Self> {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("ARCUS_LOG").unwrap_or_else(|_| "info".into()))
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .init();
        files_raise();
        // From here on a signal is a wish, also while this process is still starting.
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let lock = lock(home).await?;
        drop(std::fs::remove_file(home.join("endpoint")));
        home.write_private("arcus.pid", &std::process::id().to_string())?;
        Ok(Self { home: home.clone(), terminate, interrupt, _lock: lock })
    }

    /// Waits until this process is asked to end.
    pub async fn asked_to_end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Leaves the home folder to the next process.
    pub fn end(self) {
        drop(std::fs::remove_file(self.home.join("endpoint")));
        drop(std::fs::remove_file(self.home.join("arcus.pid")));
    }
}

/// Lets this process have [`FILES`] files open if it may: each node has a connection or two to the server.
fn files_raise() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    // Only root gets more than the hard limit.
    let raised = [FILES.max(hard), hard].into_iter().find(|most| {
        let wanted = FILES.min(*most);
        soft >= wanted || setrlimit(Resource::RLIMIT_NOFILE, wanted, *most).is_ok()
    });
    if raised.is_none_or(|most| most < FILES_FEW) {
        tracing::warn!(
            files = hard,
            wanted = FILES,
            "few files may be open: raise the limit (ulimit -n) for many nodes"
        );
    }
}

/// Makes this process the only one with the home folder.
async fn lock(home: &Home) -> Result<Flock<File>> {
    let deadline = Instant::now() + LOCK_DEADLINE;
    let mut file = File::options().create(true).truncate(false).write(true).open(home.join("arcus.lock"))?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            // The kernel has not yet put away all of a process that was killed.
            Err((unlocked, Errno::EWOULDBLOCK)) if home.running().is_none() && Instant::now() < deadline => {
                file = unlocked;
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                bail!("another Arcus runs with the home folder {}", home.path().display())
            }
            Err((_, error)) => return Err(error).context("could not lock the home folder"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
