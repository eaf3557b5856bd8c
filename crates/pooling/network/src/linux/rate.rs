//! How often a guest is answered: a guest that asks without end must cost others nothing.

use arcus_types::text::MacAddr;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How many answers a guest gets within [`WINDOW`] from one service.
const ANSWERS_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// Answers by guest.
#[derive(Debug, Default)]
pub struct Rates {
    counts: BTreeMap<MacAddr, (Instant, u32)>,
}

impl Rates {
    /// Whether the guest may be answered once more at `now`, and counts it. Only to be asked for guests of the node: what
    /// is remembered is bounded by their number.
    pub fn allow(&mut self, guest: MacAddr, now: Instant) -> bool {
        let (since, count) = self.counts.entry(guest).or_insert((now, 0));
        if now.duration_since(*since) > WINDOW {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= ANSWERS_MAX
    }

    /// Forgets the guests that are no more, once there are more remembered than `count` guests.
    pub fn keep(&mut self, count: usize, known: impl Fn(MacAddr) -> bool) {
        if self.counts.len() > count {
            self.counts.retain(|mac, _| known(*mac));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greedy_guest_is_held_and_others_are_not() {
        let (greedy, modest) = (MacAddr([2; 6]), MacAddr([4; 6]));
        let (mut rates, now) = (Rates::default(), Instant::now());
        assert_eq!((0..100).filter(|_| rates.allow(greedy, now)).count(), 20);
        assert!(rates.allow(modest, now));
        assert!(rates.allow(greedy, now + Duration::from_secs(2)));
        rates.keep(1, |mac| mac == modest);
        assert_eq!(rates.counts.len(), 1);
    }
}
