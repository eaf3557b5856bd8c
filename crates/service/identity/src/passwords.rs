//! Passwords and secrets: argon2id, a few at a time, away from the threads that answer requests.

use crate::IdentityError;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::RngCore;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

/// The longest password or secret that is read, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 4096;
/// Memory of one hash, in KiB. Source for the three parameters: OWASP Password Storage Cheat Sheet, argon2id.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over that memory.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;
/// How many hashes are worked on at once: each keeps a core busy for some 20 ms.
const AT_ONCE_MAX: usize = 2;
/// How many may wait for their turn; more are told to come back.
const WAITING_MAX: usize = 256;

/// What is checked when there is no such user, so that the answer takes as long: no password has this hash.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes and checks passwords.
pub struct Passwords {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE_MAX)), waiting: AtomicUsize::new(0) }
    }
}

impl Passwords {
    /// The PHC string of a password.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] for one that is empty or too long, [`IdentityError::Unavailable`] under load.
    pub async fn hash(&self, password: &str) -> Result<String, IdentityError> {
        check_length(password)?;
        let password = password.to_owned();
        self.in_turn(move || {
            let hash = hasher()?.hash_password(password.as_bytes());
            hash.map(|h| h.to_string()).map_err(|e| IdentityError::Corrupt(format!("could not hash: {e}")))
        })
        .await
    }

    /// Whether a password belongs to a PHC string; takes as long if there is none.
    ///
    /// # Errors
    /// [`IdentityError::Unavailable`] under load.
    pub async fn check(&self, password: &str, hash: Option<&str>) -> Result<bool, IdentityError> {
        let too_long = password.len() > PASSWORD_BYTES_MAX;
        let password = if too_long { String::new() } else { password.to_owned() };
        let known = hash.is_some() && !too_long;
        let hash = hash.unwrap_or(NOBODY).to_owned();
        let matches =
            self.in_turn(move || Ok(hasher()?.verify_password(password.as_bytes(), hash.as_str()).is_ok())).await?;
        Ok(matches && known)
    }

    /// Runs work on the blocking pool when its turn comes. The turn ends with the work even if nobody waits for it.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, IdentityError> + Send + 'static,
    ) -> Result<T, IdentityError> {
        let place = Place::take(&self.waiting)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        drop(place);
        let turn = turn.map_err(|_| IdentityError::Unavailable("The cloud is stopping."))?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        done.await.map_err(|e| IdentityError::Corrupt(format!("a password check ended early: {e}")))?
    }
}

/// A place among those who wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, IdentityError> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(IdentityError::Unavailable("Too many log-ins at once; try again."));
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Refuses what no password or secret may be.
///
/// # Errors
/// [`IdentityError::Invalid`].
pub fn check_length(password: &str) -> Result<(), IdentityError> {
    if password.is_empty() {
        return Err(IdentityError::Invalid("A password must not be empty.".to_owned()));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(IdentityError::Invalid(format!("A password holds at most {PASSWORD_BYTES_MAX} bytes.")));
    }
    Ok(())
}

/// A random secret of 256 bits, as text that needs no quoting.
pub fn random_secret() -> String {
    use base64::Engine;
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn hasher() -> Result<Argon2<'static>, IdentityError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|e| IdentityError::Corrupt(format!("argon2 parameters: {e}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.check("correct horse", Some(&hash)).await.unwrap());
        assert!(!passwords.check("wrong", Some(&hash)).await.unwrap());
        assert!(!passwords.check("correct horse", None).await.unwrap());
        assert!(!passwords.check(&"x".repeat(PASSWORD_BYTES_MAX + 1), Some(&hash)).await.unwrap());
        assert!(passwords.hash("").await.is_err());
        assert!(passwords.hash(&"x".repeat(PASSWORD_BYTES_MAX + 1)).await.is_err());
    }

    #[test]
    fn the_hash_of_nobody_is_a_hash_that_is_worked_on() {
        let hash = argon2::password_hash::phc::PasswordHash::new(NOBODY).unwrap();
        let made = hasher().unwrap().hash_password(b"x").unwrap();
        assert_eq!((hash.algorithm, hash.version, hash.params), (made.algorithm, made.version, made.params));
        assert_eq!(hash.hash.map(|h| h.len()), made.hash.map(|h| h.len()));
    }
}
