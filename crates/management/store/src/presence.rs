//! When nodes were last heard of. They are heard of all the time, so this lives in memory; now and then it is written for all
//! of them at once, for a process that starts later and for replicas.

use crate::sql::params;
use crate::{StoreError, Tx};
use arcus_types::{NodeId, Timestamp};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many nodes are written in one statement.
pub const SEEN_BATCH: usize = 500;

/// When this process last heard of each node.
#[derive(Debug, Default)]
pub struct Presence(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    at: HashMap<NodeId, Timestamp>,
    news: HashMap<NodeId, Timestamp>,
    unwritten: HashMap<NodeId, Timestamp>,
}

impl Presence {
    fn inner(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node was heard of.
    pub fn heard(&self, id: NodeId, at: Timestamp) {
        let mut inner = self.inner();
        inner.at.insert(id, at);
        inner.news.insert(id, at);
        inner.unwritten.insert(id, at);
    }

    /// When this process last heard of a node, if it did.
    pub fn of(&self, id: NodeId) -> Option<Timestamp> {
        self.inner().at.get(&id).copied()
    }

    /// The nodes heard of since this was last asked.
    pub fn take_news(&self) -> HashMap<NodeId, Timestamp> {
        std::mem::take(&mut self.inner().news)
    }

    /// The nodes heard of since that was last written.
    pub fn take_unwritten(&self) -> HashMap<NodeId, Timestamp> {
        std::mem::take(&mut self.inner().unwritten)
    }

    /// These could not be written: they are next time, unless they were heard of again.
    pub fn put_back(&self, unwritten: &[(NodeId, Timestamp)]) {
        let mut inner = self.inner();
        for (id, at) in unwritten {
            inner.unwritten.entry(*id).or_insert(*at);
        }
    }
}

impl Tx {
    /// Records when nodes were heard of, at most [`SEEN_BATCH`]. Where another replica has written a later time, that stays.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn nodes_seen(&self, seen: &[(NodeId, Timestamp)]) -> Result<(), StoreError> {
        if seen.is_empty() {
            return Ok(());
        }
        let whens: String =
            seen.iter().enumerate().map(|(i, (_, at))| format!(" WHEN ${} THEN {}", i + 1, at.0)).collect();
        let marks: Vec<String> = (1..=seen.len()).map(|i| format!("${i}")).collect();
        let later = if self.is_postgres() { "GREATEST" } else { "MAX" };
        let sql = format!(
            "UPDATE nodes SET seen_at = {later}(seen_at, CASE id{whens} ELSE seen_at END) WHERE id IN ({})",
            marks.join(", ")
        );
        self.exec(sql, seen.iter().flat_map(|(id, _)| params![*id]).collect()).await?;
        Ok(())
    }
}
