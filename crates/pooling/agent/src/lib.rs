//! The node agent: brings a machine to the state that the server wishes and tells what it sees.
//!
//! ```text
//!   server --NodeSpec--> link --> node: network first, then one worker per server --> drivers
//!   server <-NodeReport- link <-- board: what every worker, the network and the drivers have observed
//! ```
//! The agent decides nothing about servers; it converges. Every pass starts from what is really there, so a crash at any
//! instruction loses nothing: guests live in processes of their own and are found again. It must never write to a disk
//! under an epoch that is not its own, and never start a second process for a server while the first one lives.

mod board;
mod guest_data;
mod lease;
mod ledger;
mod link;
mod measure;
mod node;
mod relays;
mod snapshots;
mod volumes;
mod worker;

pub use guest_data::Directory;
pub use ledger::{Ledger, LedgerError, tag};
pub use link::{Link, LinkError};
pub use node::{Agent, AgentConfig, Drivers, SharedDisks};

/// An error and all that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
