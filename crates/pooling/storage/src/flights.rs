//! Lets concurrent calls for one image share one fetch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{OwnedMutexGuard, watch};

/// The fetches that are under way, by hash.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<String, Weak<Flight>>>);

/// One fetch: who holds `turn` does it, the others wait for it and see how far it is.
#[derive(Debug)]
struct Flight {
    turn: Arc<tokio::sync::Mutex<()>>,
    landed: watch::Sender<u64>,
}

/// The right to fetch an image: nobody else does meanwhile.
#[derive(Debug)]
pub(crate) struct Turn {
    flight: Arc<Flight>,
    _turn: OwnedMutexGuard<()>,
}

impl Turn {
    /// Tells those who wait how many bytes are here.
    pub(crate) fn landed(&self, bytes: u64) {
        self.flight.landed.send_replace(bytes);
    }
}

impl Flights {
    /// Waits until nobody fetches the image; meanwhile tells how far the other is. The caller then looks whether there is
    /// anything left to do.
    pub(crate) async fn turn(&self, sha256: &str, progress: &(dyn Fn(u64) + Sync)) -> Turn {
        let flight = self.join(sha256);
        let mut landed = flight.landed.subscribe();
        let turn = flight.turn.clone().lock_owned();
        tokio::pin!(turn);
        loop {
            tokio::select! {
                biased;
                turn = &mut turn => return Turn { flight, _turn: turn },
                Ok(()) = landed.changed() => progress(*landed.borrow_and_update()),
            }
        }
    }

    fn join(&self, sha256: &str) -> Arc<Flight> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(sha256).and_then(Weak::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(Flight { turn: Arc::default(), landed: watch::Sender::new(0) });
        flights.insert(sha256.to_owned(), Arc::downgrade(&flight));
        flight
    }
}
