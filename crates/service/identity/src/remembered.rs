//! What was made of tokens to show them, kept until something changes: services ask about the same token again and
//! again. What is revoked is never read from here.

use arcus_types::ProjectId;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// The most texts of each kind that are kept: with the catalogue in each, some 6 MiB.
const TEXTS_MAX: usize = 1024;

/// A token and how it is shown, as bits of its reader.
type TokenKey = (Uuid, u8);

/// Texts made of what the database holds.
#[derive(Default)]
pub(crate) struct Remembered {
    /// Rises with whatever may change such a text.
    version: AtomicU64,
    tokens: Texts<TokenKey>,
    catalogs: Texts<Option<ProjectId>>,
}

/// Texts that were all made at one version.
struct Texts<K>(Mutex<(u64, HashMap<K, Arc<str>>)>);

impl<K> Default for Texts<K> {
    fn default() -> Self {
        Self(Mutex::new((0, HashMap::new())))
    }
}

impl<K: Eq + Hash> Texts<K> {
    fn get(&self, version: u64, key: &K) -> Option<Arc<str>> {
        let texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.0 == version { texts.1.get(key).cloned() } else { None }
    }

    fn put(&self, version: u64, key: K, text: &Arc<str>) {
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.0 < version || texts.1.len() >= TEXTS_MAX {
            texts.1.clear();
            texts.0 = texts.0.max(version);
        }
        if texts.0 == version {
            texts.1.insert(key, Arc::clone(text));
        }
    }
}

impl Remembered {
    /// Forgets everything: something that texts are made of may have changed.
    pub fn changed(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// What a text is made at: read it before what the text is made of.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    pub fn token(&self, key: &TokenKey) -> Option<Arc<str>> {
        self.tokens.get(self.version(), key)
    }

    pub fn token_put(&self, version: u64, key: TokenKey, text: &Arc<str>) {
        self.tokens.put(version, key, text);
    }

    pub fn catalog(&self, project_id: Option<ProjectId>) -> Option<Arc<str>> {
        self.catalogs.get(self.version(), &project_id)
    }

    pub fn catalog_put(&self, version: u64, project_id: Option<ProjectId>, text: &Arc<str>) {
        self.catalogs.put(version, project_id, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_until_something_changes_and_an_older_one_never_comes_back() {
        let remembered = Remembered::default();
        let key = (Uuid::new_v4(), 0);
        let before = remembered.version();
        remembered.token_put(before, key, &"first".into());
        assert_eq!(remembered.token(&key).as_deref(), Some("first"));
        assert!(remembered.token(&(key.0, 1)).is_none(), "shown in another way");
        remembered.changed();
        assert!(remembered.token(&key).is_none());
        remembered.token_put(before, key, &"first".into());
        assert!(remembered.token(&key).is_none(), "made of what was read before the change");
        remembered.token_put(remembered.version(), key, &"second".into());
        remembered.token_put(before, key, &"first".into());
        assert_eq!(remembered.token(&key).as_deref(), Some("second"));
    }

    #[test]
    fn no_more_texts_are_kept_than_the_limit() {
        let remembered = Remembered::default();
        for _ in 0..3 * TEXTS_MAX {
            remembered.token_put(0, (Uuid::new_v4(), 0), &"text".into());
        }
        assert!(remembered.tokens.0.lock().unwrap().1.len() <= TEXTS_MAX);
    }
}
