//! The life of a task: everything that is asked and is not instant.
//!
//! ```text
//!  waiting --> running --> done | failed | cancelled
//! ```
//! What is over stays over: the store changes a task only while it is active.

use std::fmt;
use std::str::FromStr;

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// It waits for its turn.
    Waiting,
    /// Somebody works at it.
    Running,
    /// What was asked is so.
    Done,
    /// It could not be done.
    Failed,
    /// It was given up because somebody asked for that.
    Cancelled,
}

impl TaskState {
    /// Every state.
    pub const ALL: &[Self] = &[Self::Waiting, Self::Running, Self::Done, Self::Failed, Self::Cancelled];

    /// The state as clients and rows know it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it is not over.
    pub const fn is_active(self) -> bool {
        match self {
            Self::Waiting | Self::Running => true,
            Self::Done | Self::Failed | Self::Cancelled => false,
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The text is no state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task's state is one of waiting, running, done, failed, cancelled")]
pub struct NotATaskState;

impl FromStr for TaskState {
    type Err = NotATaskState;
    fn from_str(text: &str) -> Result<Self, NotATaskState> {
        Self::ALL.iter().copied().find(|state| state.text() == text).ok_or(NotATaskState)
    }
}

/// How far a server is that is taken from one node to another with others.
///
/// ```text
///  waiting --> moving --> moved        waiting --> gone       it left the node, or ended, by itself
///     ^           |                    waiting --> cancelled
///     +-- failed -+--> failed          stays, blocked: from the beginning
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelocationState {
    /// It waits for its turn.
    Waiting,
    /// It is on its way.
    Moving,
    /// It runs on the other node.
    Moved,
    /// It could not be moved, and is where it was.
    Failed,
    /// It is not on the node any more, though nobody here moved it.
    Gone,
    /// It is not running, and remains on the node.
    Stays,
    /// Something named keeps it on the node.
    Blocked,
    /// It was not moved because that was given up.
    Cancelled,
}

impl RelocationState {
    /// Every state.
    pub const ALL: &[Self] = &[
        Self::Waiting,
        Self::Moving,
        Self::Moved,
        Self::Failed,
        Self::Gone,
        Self::Stays,
        Self::Blocked,
        Self::Cancelled,
    ];

    /// The state as clients and rows know it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Moving => "moving",
            Self::Moved => "moved",
            Self::Failed => "failed",
            Self::Gone => "gone",
            Self::Stays => "stays",
            Self::Blocked => "blocked",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FromStr for RelocationState {
    type Err = NotATaskState;
    fn from_str(text: &str) -> Result<Self, NotATaskState> {
        Self::ALL.iter().copied().find(|state| state.text() == text).ok_or(NotATaskState)
    }
}
