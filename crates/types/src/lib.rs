//! The words that every layer of Arcus shares: ids, checked text, life cycles, the operation context, the policy table
//! and the protocol between the server and its nodes.
//!
//! Nothing here does I/O, reads a clock or draws a random number, except [`ids`], whose `random()` constructors do.

pub mod agent;
pub mod clusters;
pub mod ctx;
pub mod flavors;
pub mod ids;
pub mod images;
pub mod nodes;
pub mod placement;
pub mod policy;
pub mod servers;
pub mod tasks;
pub mod text;
pub mod time;
pub mod volume_qos;
pub mod volumes;

pub use ctx::{Actor, OpCtx, Role, RoleSet, Scope};
pub use ids::*;
pub use text::{MacAddr, Name, Rejected};
pub use time::Timestamp;
