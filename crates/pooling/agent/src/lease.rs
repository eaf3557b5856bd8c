//! The node's lease: for how long it may count on nobody else running its servers.
//!
//! It is counted from the moment at which it was asked for, by a clock that goes on while the machine sleeps. So it is over
//! here before the server, which counts from when it was asked and adds a margin, holds the node to be lost.

use crate::node::Shared;
use crate::{LinkError, chain};
use arcus_hypervisor::LeaseFile;
use arcus_types::nodes::LEASE_RENEW_MS;
use nix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The pause before a lease that did not come is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// The lease as this node sees it.
pub(crate) struct Lease {
    /// Whether it is held. Looked at once more by [`Lease::is_held`], for whoever changes it may sleep.
    held: watch::Sender<Option<Duration>>,
    /// Counts how often a lease was got after there was none.
    turn: watch::Sender<u64>,
    /// The turn in which a spec was asked for that is acted on: whatever was taken from this node before is known.
    current: watch::Sender<u64>,
    /// What the guards of guests with shared disks go by.
    file: Option<LeaseFile>,
}

/// Time since the machine was booted, sleep included; `None` if the kernel does not tell.
fn now() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).ok().map(Duration::from)
}

impl Lease {
    pub fn new(file: Option<LeaseFile>) -> Self {
        Self { held: watch::channel(None).0, turn: watch::channel(0).0, current: watch::channel(0).0, file }
    }

    /// Tells when a lease was got after there was none: the spec must be asked for again then.
    pub fn turns(&self) -> watch::Receiver<u64> {
        self.turn.subscribe()
    }

    /// All of a spec is being acted on that was asked for in that turn.
    pub fn spec_current(&self, turn: u64) {
        self.current.send_if_modified(|current| std::mem::replace(current, turn) != turn);
    }

    /// Waits until a guest that other nodes may be told to start can be started here: the lease is held, and what is wished
    /// was said since it is.
    pub async fn wait_current(&self) {
        let (mut turns, mut current) = (self.turn.subscribe(), self.current.subscribe());
        loop {
            let turn = *turns.borrow_and_update();
            if self.is_held() && turn > 0 && *current.borrow_and_update() == turn {
                return;
            }
            tokio::select! {
                _ = turns.changed() => {}
                _ = current.changed() => {}
            }
        }
    }

    /// Whether the lease is good at this moment.
    pub fn is_held(&self) -> bool {
        let until = *self.held.borrow();
        until.zip(now()).is_some_and(|(until, now)| now < until)
    }

    fn extend(&self, asked_at: Duration, length: Duration) {
        if let (Some(file), false) = (&self.file, length.is_zero())
            && let Err(error) = file.set(asked_at + length)
        {
            tracing::error!(error = chain(&error), "the lease cannot be told to guests' guards: they will end them");
            return;
        }
        let regained = !length.is_zero() && !self.is_held();
        self.held.send_if_modified(|until| {
            let before = until.is_some();
            *until = (!length.is_zero()).then(|| asked_at + length);
            before != until.is_some()
        });
        if regained {
            self.turn.send_modify(|turn| *turn += 1);
        }
    }

    /// Lets go of a lease that is over; whether it just ended.
    fn expire(&self) -> bool {
        !self.is_held() && self.held.send_if_modified(|until| until.take().is_some())
    }
}

/// Renews the lease for ever.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut lost_at = None;
    loop {
        let asked_at = now();
        let pause = match (shared.link.lease().await, asked_at) {
            (Ok(length), Some(asked_at)) => {
                let had = shared.lease.is_held();
                shared.lease.extend(asked_at, length);
                if length.is_zero() {
                    if had || lost_at.is_none() {
                        tracing::warn!("the server grants no lease: it holds this node to be lost or dead");
                        lost_at = Some(asked_at);
                    }
                    AGAIN
                } else {
                    if let Some(lost_at) = lost_at.take() {
                        let silent_s = asked_at.saturating_sub(lost_at).as_secs();
                        tracing::info!(silent_s, "this node has a lease again");
                        // The server waits to hear what was acted on since.
                        shared.board.tell_again();
                    }
                    Duration::from_millis(LEASE_RENEW_MS)
                }
            }
            (Ok(_), None) => AGAIN,
            (Err(error), _) => {
                told(&error);
                AGAIN
            }
        };
        if shared.lease.expire() {
            tracing::warn!("this node's lease is over: it cannot reach its server");
            lost_at = now();
        }
        tokio::time::sleep(pause).await;
    }
}

fn told(error: &LinkError) {
    tracing::debug!(error = chain(error), "the server gave no lease");
}
