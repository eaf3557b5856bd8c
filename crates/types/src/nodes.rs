//! The standing of a node: what follows from hearing of it, or not, and from what an operator says.
//!
//! ```text
//!            Silent           LeaseOver          Heard            Settled
//!  Up -----------> Suspect -----------> Lost -----------> Back -----------> Up
//!   ^                 | Heard                               | Silent, LeaseOver: as from Up
//!   +-----------------+         any -- Declared --> Dead -- TakenBack --> Lost
//! ```
//! Pure: the engine applies this to rows.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// For how long a node that was heard of may count on being the only one that runs its servers, in milliseconds. The node
/// counts from the moment at which it asked, so its lease is over before the server's idea of it is.
pub const LEASE_MS: u64 = 15_000;
/// A node asks for the next lease this often, in milliseconds.
pub const LEASE_RENEW_MS: u64 = LEASE_MS / 3;
/// So long after the end of its lease a node is lost, in milliseconds: within that it has ended what it must not run.
pub const LEASE_MARGIN_MS: u64 = 10_000;
/// So long after a node got its last lease it runs nothing that may run elsewhere, in seconds.
pub const FENCE_S: i64 = ((LEASE_MS + LEASE_MARGIN_MS) / 1_000).cast_signed();
/// Nodes that are lost within so long of each other are lost together, in seconds.
pub const MASS_LOSS_S: i64 = 60;

/// What is held of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It is heard of.
    #[default]
    Up,
    /// Its lease has run out, as far as is known here.
    Suspect,
    /// It has not been heard of for so long that it runs nothing that may run elsewhere.
    Lost,
    /// It is heard of again, and has not yet acted on what it missed.
    Back,
    /// An operator says that it is dead, whatever it says itself.
    Dead,
}

/// What is seen of a node, or said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeEvent {
    /// It was heard of lately.
    Heard,
    /// It has acted on all that is wished of it.
    Settled,
    /// Its lease has run out.
    Silent,
    /// Its lease has run out, and the time is over within which it obeys that.
    LeaseOver,
    /// An operator declares it dead.
    Declared,
    /// An operator takes that back.
    TakenBack,
}

impl NodeState {
    /// Every state.
    pub const ALL: &[Self] = &[Self::Up, Self::Suspect, Self::Lost, Self::Back, Self::Dead];

    /// The state after `event`.
    pub const fn after(self, event: NodeEvent) -> Self {
        use NodeEvent as E;
        match (self, event) {
            (Self::Dead, E::TakenBack) => Self::Lost,
            (Self::Up | Self::Suspect | Self::Lost | Self::Back | Self::Dead, E::Declared)
            | (Self::Dead, E::Heard | E::Settled | E::Silent | E::LeaseOver) => Self::Dead,
            (Self::Up | Self::Suspect | Self::Back, E::LeaseOver) => Self::Lost,
            (Self::Up | Self::Back, E::Silent) => Self::Suspect,
            (Self::Suspect, E::Heard | E::Settled) | (Self::Back, E::Settled) => Self::Up,
            (Self::Lost, E::Heard | E::Settled) => Self::Back,
            (Self::Up, E::Heard | E::Settled | E::TakenBack)
            | (Self::Suspect, E::Silent | E::TakenBack)
            | (Self::Lost, E::Silent | E::LeaseOver | E::TakenBack)
            | (Self::Back, E::Heard | E::TakenBack) => self,
        }
    }

    /// The text in the database and in the native API.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Lost => "lost",
            Self::Back => "back",
            Self::Dead => "dead",
        }
    }

    /// Whether it runs nothing that counts.
    pub const fn is_down(self) -> bool {
        match self {
            Self::Lost | Self::Dead => true,
            Self::Up | Self::Suspect | Self::Back => false,
        }
    }

    /// Whether it may be given new servers.
    pub const fn takes_servers(self) -> bool {
        match self {
            Self::Up => true,
            Self::Suspect | Self::Lost | Self::Back | Self::Dead => false,
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for NodeState {
    type Err = crate::Rejected;
    fn from_str(text: &str) -> Result<Self, crate::Rejected> {
        let found = Self::ALL.iter().find(|state| state.text() == text);
        found.copied().ok_or_else(|| crate::Rejected(format!("'{text}' is no state of a node")))
    }
}

/// What `silent`, the time since a node was last heard of, means; `shared` says how much older than true it may be.
pub fn node_event(silent: Duration, shared: Duration, settled: bool) -> NodeEvent {
    let lease = Duration::from_millis(LEASE_MS) + shared;
    if silent >= lease + Duration::from_millis(LEASE_MARGIN_MS) {
        NodeEvent::LeaseOver
    } else if silent >= lease {
        NodeEvent::Silent
    } else if settled {
        NodeEvent::Settled
    } else {
        NodeEvent::Heard
    }
}

/// Whether so many silent nodes of so many that were there are no failures of their own: a switch, or ourselves.
pub const fn is_mass_loss(silent: usize, of: usize) -> bool {
    silent >= 2 && silent * 2 > of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_lost_only_after_its_own_idea_of_its_lease_has_ended() {
        let (none, ms) = (Duration::ZERO, Duration::from_millis);
        let mut state = NodeState::Up;
        for (silent, wanted) in [
            (0, NodeState::Up),
            (LEASE_MS - 1, NodeState::Up),
            (LEASE_MS, NodeState::Suspect),
            (24_999, NodeState::Suspect),
        ] {
            state = state.after(node_event(ms(silent), none, true));
            assert_eq!(state, wanted, "{silent}");
        }
        state = state.after(node_event(ms(LEASE_MS + LEASE_MARGIN_MS), none, true));
        assert_eq!(state, NodeState::Lost);
        state = state.after(node_event(none, none, false));
        assert_eq!(state, NodeState::Back);
        assert_eq!(state.after(node_event(none, none, false)), NodeState::Back);
        assert_eq!(state.after(node_event(none, none, true)), NodeState::Up);
    }

    #[test]
    fn only_an_operator_raises_the_dead() {
        let dead = NodeState::Up.after(NodeEvent::Declared);
        for event in [NodeEvent::Heard, NodeEvent::Settled, NodeEvent::Silent, NodeEvent::LeaseOver] {
            assert_eq!(dead.after(event), NodeState::Dead);
        }
        assert_eq!(dead.after(NodeEvent::TakenBack), NodeState::Lost);
    }

    #[test]
    fn one_node_of_two_is_no_mass_and_two_of_three_are() {
        assert!(!is_mass_loss(1, 1) && !is_mass_loss(1, 2) && !is_mass_loss(2, 4));
        assert!(is_mass_loss(2, 3) && is_mass_loss(2, 2));
    }
}
