//! Why the engine refused or failed, split by what the caller will do about it.

use arcus_store::StoreError;
use arcus_types::Rejected;
use arcus_types::policy::Denied;

/// Why the engine refused or failed. `code` is the short name that the network API shows as `type`.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The request is wrong: say what to change.
    #[error("{message}")]
    Invalid {
        /// Short name of the kind of mistake.
        code: &'static str,
        /// What to change.
        message: String,
    },
    /// There is no such thing, or the caller may not know of it.
    #[error("{kind} {id} could not be found.")]
    NotFound {
        /// Short name, such as `NetworkNotFound`.
        code: &'static str,
        /// What kind of thing, as a word that may begin a sentence.
        kind: &'static str,
        /// Which one was asked for.
        id: String,
    },
    /// It cannot be done in the present state.
    #[error("{message}")]
    Conflict {
        /// Short name, such as `NetworkInUse`.
        code: &'static str,
        /// What stands in the way.
        message: String,
    },
    /// The thing has changed since the caller read it.
    #[error("{message}")]
    Precondition {
        /// Short name, such as `RevisionNumberConstraintFailed`.
        code: &'static str,
        /// What it is now.
        message: String,
    },
    /// A quota would be exceeded.
    #[error("{message}")]
    OverQuota {
        /// Short name, such as `OverQuota`.
        code: &'static str,
        /// Which quota, its limit and what is used.
        message: String,
    },
    /// Policy refused.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It is not allowed in this state or to this part of it, whatever the caller's roles.
    #[error("{0}")]
    Forbidden(String),
    /// It cannot be done now: try again later.
    #[error("{0}")]
    Unavailable(String),
    /// The upload is larger than what is allowed or was announced.
    #[error("{0}")]
    TooLarge(String),
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// The certificate authority failed.
    #[error("the certificate authority failed")]
    Authority(#[from] crate::authority::AuthorityError),
    /// A file or stream failed.
    #[error("could not {what}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl EngineError {
    /// A request that is wrong, without a short name of its own.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { code: "BadRequest", message: message.into() }
    }

    /// A state that stands in the way, without a short name of its own.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict { code: "Conflict", message: message.into() }
    }

    /// A thing that is not there, for callers that pass its id.
    pub fn not_found(code: &'static str, kind: &'static str, id: impl ToString) -> Self {
        Self::NotFound { code, kind, id: id.to_string() }
    }
}

impl From<Rejected> for EngineError {
    fn from(rejected: Rejected) -> Self {
        Self::invalid(rejected.0)
    }
}
