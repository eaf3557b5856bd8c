//! What is revoked, in memory: loaded at the start, added to at once by this process, and brought up to date from the
//! database for what other replicas revoke.

use crate::token::Subject;
use arcus_store::{Db, Revocation, RevocationKind, StoreError};
use arcus_types::Timestamp;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use uuid::Uuid;

/// How far behind the last look each look begins, in seconds: replicas' clocks differ, and what is recorded first may be
/// committed last.
const OVERLAP_S: i64 = 120;

/// What is revoked.
#[derive(Default)]
pub struct Revoked(RwLock<Inner>);

#[derive(Default)]
struct Inner {
    /// The lowest epoch that is honoured, and from when on the entry is not needed.
    epochs: HashMap<(RevocationKind, Uuid), (u64, Timestamp)>,
    looked_at: Option<Timestamp>,
}

impl Revoked {
    /// Whether a token that holds these subjects at these epochs is void.
    pub(crate) fn any(&self, mut subjects: impl Iterator<Item = (RevocationKind, Subject)>) -> bool {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        subjects
            .any(|(kind, Subject(id, epoch))| inner.epochs.get(&(kind, id)).is_some_and(|(least, _)| epoch < *least))
    }

    /// Adds what was revoked.
    pub fn add(&self, revocations: &[Revocation]) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for revocation in revocations {
            let entry = inner
                .epochs
                .entry((revocation.kind, revocation.subject_id))
                .or_insert((revocation.epoch, revocation.expires_at));
            *entry = (entry.0.max(revocation.epoch), entry.1.max(revocation.expires_at));
        }
    }

    /// Adds what the database has more than the last time, everything at first; one query. Drops what is not needed.
    ///
    /// # Errors
    /// [`StoreError::Database`]: then what was known stays known.
    pub async fn refresh(&self, db: &Db, now: Timestamp) -> Result<(), StoreError> {
        let looked_at = self.0.read().unwrap_or_else(PoisonError::into_inner).looked_at;
        let since = looked_at.map_or(Timestamp(0), |at| at.plus_seconds(-OVERLAP_S));
        let news = db.revocation_list(since).await?;
        self.add(&news);
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        inner.epochs.retain(|_, (_, expires_at)| *expires_at > now);
        inner.looked_at = Some(now);
        Ok(())
    }
}
