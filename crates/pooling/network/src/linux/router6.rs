//! Answers what IPv6 guests ask a segment, routers and DHCP servers alike, and tells them of routers unasked.

use super::advertise::{ALL_NODES, ALL_NODES_MAC, Advertisement, FIRST_COUNT, FIRST_INTERVAL, INTERVAL_S};
use super::dhcp6;
use super::packet::{self, Question6};
use super::rate::Rates;
use super::segment::Guests;
use rand::Rng;
use socket2::Socket;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// What is told: the routers of the segment.
pub type Told = Arc<Vec<Advertisement>>;

/// Answers on a socket of [`packet::open`] until the task is ended or nobody changes `told` any more.
pub async fn serve(
    socket: Socket,
    guests: Arc<RwLock<Arc<Guests>>>,
    mut told: watch::Receiver<Told>,
) -> io::Result<()> {
    // SAFETY: the socket owns its descriptor, and nobody replaces or closes it while the task holds it.
    let socket = unsafe { AsyncFd::register(socket) }?;
    let mut buffer = vec![0_u8; 2048];
    let mut rates = Rates::default();
    let mut current: Told = told.borrow_and_update().clone();
    let mut said = 0;
    let mut next = tokio::time::Instant::now();
    loop {
        tokio::select! {
            changed = told.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let new = told.borrow_and_update().clone();
                for gone in current.iter().filter(|old| !new.iter().any(|new| new.source == old.source)) {
                    tell(socket.get_ref(), &gone.called_back());
                }
                (current, said, next) = (new, 0, tokio::time::Instant::now());
            }
            () = tokio::time::sleep_until(next) => {
                current.iter().for_each(|advertisement| tell(socket.get_ref(), advertisement));
                next += if said < FIRST_COUNT { FIRST_INTERVAL } else { interval() };
                said = said.saturating_add(1);
            }
            ready = socket.readable() => {
                let length = match ready?.try_io(|socket| packet::receive(socket.get_ref(), &mut buffer)) {
                    Ok(Ok(length)) => length,
                    // The device is down for a moment, or the queue ran over: the client asks again.
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "a question of an IPv6 guest could not be read");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                    Err(_would_block) => continue,
                };
                let guests = Arc::clone(&guests.read().unwrap_or_else(PoisonError::into_inner));
                for frame in answers(&buffer[..length], &guests, &current, &mut rates) {
                    send(socket.get_ref(), &frame);
                }
            }
        }
    }
}

/// The frames that answer one frame.
fn answers(frame: &[u8], guests: &Guests, told: &[Advertisement], rates: &mut Rates) -> Vec<Vec<u8>> {
    let known = |mac| guests.values().any(|guest| guest.mac == mac);
    rates.keep(guests.len(), known);
    let Some((source, question)) = packet::question6(frame) else { return Vec::new() };
    if !known(source.0) || !rates.allow(source.0, Instant::now()) {
        return Vec::new();
    }
    match question {
        Question6::Dhcp(message) => dhcp6::answer(message, source, guests).into_iter().collect(),
        Question6::Routers => {
            // Who has no address yet is reached as one of all, and yet alone.
            let to = if source.1.is_unicast_link_local() { source.1 } else { ALL_NODES };
            told.iter().filter_map(|advertisement| advertisement.frame((source.0, to))).collect()
        }
    }
}

fn tell(socket: &Socket, advertisement: &Advertisement) {
    if let Some(frame) = advertisement.frame((ALL_NODES_MAC, ALL_NODES)) {
        send(socket, &frame);
    }
}

/// A full queue is like a lost packet: the client asks again.
fn send(socket: &Socket, frame: &[u8]) {
    if let Err(error) = socket.send(frame) {
        tracing::debug!(%error, "an answer to an IPv6 guest could not be sent");
    }
}

/// Random, or the routers of many segments would speak at once.
fn interval() -> Duration {
    Duration::from_secs(rand::rng().random_range(INTERVAL_S))
}
