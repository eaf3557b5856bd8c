//! Why identity refused or failed, split by what the caller will do about it.

use arcus_store::StoreError;
use arcus_types::Rejected;
use arcus_types::policy::Denied;
use std::path::PathBuf;

/// Why identity refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The request is wrong: say what to change.
    #[error("{0}")]
    Invalid(String),
    /// The caller has not shown who it is, or may not go where it wants; the text tells nothing of what exists.
    #[error("The request you have made requires authentication.")]
    Unauthorized,
    /// The password is right and has expired: change it.
    #[error("The password is expired and needs to be changed for user: {0}.")]
    PasswordExpired(arcus_types::UserId),
    /// The caller may not do this, whatever its role.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing, or the caller may not know of it.
    #[error("Could not find {kind}: {id}.")]
    NotFound {
        /// What kind of thing.
        kind: &'static str,
        /// Which one was asked for.
        id: String,
    },
    /// It cannot be done in the present state.
    #[error("{0}")]
    Conflict(String),
    /// Policy refused.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Too much is asked at once: try again later.
    #[error("{0}")]
    Unavailable(&'static str),
    /// The database failed.
    #[error("the database failed")]
    Store(#[source] StoreError),
    /// A key file cannot be read or written.
    #[error("could not use the key file {path}")]
    KeyFile {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A key file does not hold a key, or a stored hash is no hash.
    #[error("{0}")]
    Corrupt(String),
}

impl IdentityError {
    /// A thing that is not there.
    pub fn not_found(kind: &'static str, id: impl ToString) -> Self {
        Self::NotFound { kind, id: id.to_string() }
    }
}

impl From<StoreError> for IdentityError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Duplicate(_) => Self::Conflict("Another one with this name exists already.".to_owned()),
            StoreError::Referenced(_) => {
                Self::Conflict("Something that this needs is gone, or something still needs this.".to_owned())
            }
            other => Self::Store(other),
        }
    }
}

impl From<Rejected> for IdentityError {
    fn from(rejected: Rejected) -> Self {
        Self::Invalid(rejected.0)
    }
}
