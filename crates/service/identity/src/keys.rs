//! The keys that seal tokens: files in one folder, named by number, as Keystone names them.
//!
//! `0` is staged, the highest number is primary, the others are secondary. Only the primary seals; all of them open. A
//! rotation makes the staged key primary, so that replicas which share the folder's content by copying know the key
//! before anybody seals with it.

use crate::IdentityError;
use fernet::Fernet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// How many keys are kept: staged, primary and one secondary.
const KEYS_KEPT: usize = 3;
/// The longest text that is tried as a token, in bytes.
const TOKEN_BYTES_MAX: usize = 16_384;

/// The keys of one cloud. A token lives at most as long as its key: rotate no more often than tokens live.
pub struct Keys {
    folder: PathBuf,
    loaded: RwLock<Loaded>,
}

struct Loaded {
    /// Primary first.
    keys: Arc<Vec<Fernet>>,
    changed_at: Option<SystemTime>,
}

impl Keys {
    /// Opens the folder; makes it, with a staged and a primary key, if it holds none.
    ///
    /// # Errors
    /// [`IdentityError::KeyFile`] or [`IdentityError::Corrupt`].
    pub fn open(folder: &Path) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::KeyFile { path: folder.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let numbers = numbers(folder)?;
        for (number, needed) in [(1, numbers.iter().all(|n| *n == 0)), (0, !numbers.contains(&0))] {
            if needed {
                write(folder, number, &Fernet::generate_key())?;
            }
        }
        Ok(Self { folder: folder.to_owned(), loaded: RwLock::new(load(folder)?) })
    }

    /// Makes the staged key primary, stages a new one and drops the oldest.
    ///
    /// # Errors
    /// [`IdentityError::KeyFile`] or [`IdentityError::Corrupt`]; the keys that were in use stay in use.
    pub fn rotate(&self) -> Result<(), IdentityError> {
        let newest = numbers(&self.folder)?.last().copied().unwrap_or(0);
        write(&self.folder, newest + 1, &read(&self.folder, 0)?)?;
        write(&self.folder, 0, &Fernet::generate_key())?;
        let numbers = numbers(&self.folder)?;
        let surplus = numbers.len().saturating_sub(KEYS_KEPT);
        for number in numbers.into_iter().filter(|n| *n != 0).take(surplus) {
            let path = self.folder.join(number.to_string());
            fs::remove_file(&path).map_err(|source| IdentityError::KeyFile { path, source })?;
        }
        self.replace(load(&self.folder)?);
        Ok(())
    }

    /// Reads the folder again if it has changed: another process may have rotated.
    ///
    /// # Errors
    /// [`IdentityError::KeyFile`] or [`IdentityError::Corrupt`]; the keys that were in use stay in use.
    pub fn reload(&self) -> Result<(), IdentityError> {
        let known = self.loaded.read().unwrap_or_else(PoisonError::into_inner).changed_at;
        if changed_at(&self.folder)? != known {
            self.replace(load(&self.folder)?);
        }
        Ok(())
    }

    /// Seals bytes into the text of a token, without `=` at its end.
    pub fn seal(&self, bytes: &[u8]) -> Result<String, IdentityError> {
        let keys = self.keys();
        let primary = keys.first().ok_or_else(|| IdentityError::Corrupt("no token key is loaded".to_owned()))?;
        Ok(primary.encrypt(bytes).trim_end_matches('=').to_owned())
    }

    /// Opens the text of a token; `None` if none of the keys sealed it or it was changed since.
    pub fn unseal(&self, text: &str) -> Option<Vec<u8>> {
        if text.len() > TOKEN_BYTES_MAX {
            return None;
        }
        self.keys().iter().find_map(|key| key.decrypt(text).ok())
    }

    fn keys(&self) -> Arc<Vec<Fernet>> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner).keys)
    }

    fn replace(&self, loaded: Loaded) {
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    }
}

fn changed_at(folder: &Path) -> Result<Option<SystemTime>, IdentityError> {
    let failed = |source| IdentityError::KeyFile { path: folder.to_owned(), source };
    fs::metadata(folder).and_then(|m| m.modified()).map(Some).map_err(failed)
}

fn load(folder: &Path) -> Result<Loaded, IdentityError> {
    let changed_at = changed_at(folder)?;
    let mut keys = Vec::new();
    for number in numbers(folder)?.into_iter().rev() {
        let key = Fernet::new(&read(folder, number)?);
        let path = folder.join(number.to_string());
        keys.push(key.ok_or_else(|| IdentityError::Corrupt(format!("{} does not hold a key", path.display())))?);
    }
    Ok(Loaded { keys: Arc::new(keys), changed_at })
}

/// The numbers of the key files, rising.
fn numbers(folder: &Path) -> Result<Vec<u64>, IdentityError> {
    let failed = |source| IdentityError::KeyFile { path: folder.to_owned(), source };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        numbers.extend(name.to_str().and_then(|n| n.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn read(folder: &Path, number: u64) -> Result<String, IdentityError> {
    let path = folder.join(number.to_string());
    let text = fs::read_to_string(&path).map_err(|source| IdentityError::KeyFile { path, source })?;
    Ok(text.trim().to_owned())
}

/// Puts a key file in place whole or not at all, readable by its owner only.
fn write(folder: &Path, number: u64, key: &str) -> Result<(), IdentityError> {
    let path = folder.join(number.to_string());
    let draft = folder.join(format!(".{number}.{}", uuid::Uuid::new_v4().as_simple()));
    let done = (|| -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(key.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        fs::File::open(folder)?.sync_all()
    })();
    done.map_err(|source| IdentityError::KeyFile { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_survives_one_rotation_of_its_key_and_not_two() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(&folder.path().join("keys")).unwrap();
        let other = Keys::open(&folder.path().join("keys")).unwrap();
        let token = keys.seal(b"payload").unwrap();
        assert!(!token.contains('='));
        keys.rotate().unwrap();
        assert_eq!(keys.unseal(&token).as_deref(), Some(&b"payload"[..]));
        let newer = keys.seal(b"newer").unwrap();
        assert_eq!(other.unseal(&newer).as_deref(), Some(&b"newer"[..]), "the new primary was staged before");
        keys.rotate().unwrap();
        assert_eq!(keys.unseal(&token), None);
        assert_eq!(keys.unseal(&newer).as_deref(), Some(&b"newer"[..]));
        other.reload().unwrap();
        assert_eq!(other.unseal(&keys.seal(b"third").unwrap()).as_deref(), Some(&b"third"[..]));
        assert_eq!(numbers(&folder.path().join("keys")).unwrap(), [0, 2, 3]);
    }

    #[test]
    fn key_files_are_closed_to_others_and_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let token = Keys::open(&path).unwrap().seal(b"x").unwrap();
        assert_eq!(Keys::open(&path).unwrap().unseal(&token).as_deref(), Some(&b"x"[..]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        for number in [0, 1] {
            let mode = fs::metadata(path.join(number.to_string())).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_changed_token_is_refused_wherever_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let token = keys.seal(b"payload").unwrap();
        for at in 0..token.len() - 1 {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(keys.unseal(std::str::from_utf8(&bytes).unwrap()), None, "changed at {at}");
        }
        for bad in ["", "gAAAA", "\u{1f600}", &"A".repeat(TOKEN_BYTES_MAX + 1)] {
            assert_eq!(keys.unseal(bad), None);
        }
    }
}
