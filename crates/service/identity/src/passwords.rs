//! Passwords and secrets: argon2id, a few at a time, away from the threads that answer requests.

use crate::IdentityError;
use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use rand::RngCore;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
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

/// How long the memory of a check is kept for the next one: the system takes half as long to give fresh memory as the
/// check itself.
const SCRATCH_KEPT: Duration = Duration::from_secs(5);

/// What is checked when there is no such user, so that the answer takes as long: no password has this hash.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes and checks passwords.
pub struct Passwords {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    scratch: Arc<Scratch>,
}

impl Default for Passwords {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE_MAX));
        Self { turns, waiting: AtomicUsize::new(0), scratch: Arc::default() }
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
        let scratch = Arc::clone(&self.scratch);
        let matches = self.in_turn(move || Ok(scratch.matches(password.as_bytes(), &hash))).await?;
        Ok(matches && known)
    }

    /// Gives back memory that nobody has used for a while; to be called about every second.
    pub fn rest(&self) {
        self.scratch.rest();
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

/// The memory that checks work in, one of each that may run at once; none when there was no check for a while.
#[derive(Default)]
struct Scratch(Mutex<Vec<(Vec<Block>, Instant)>>);

impl Scratch {
    /// Whether a password belongs to a PHC string; one that cannot be read belongs to nothing.
    fn matches(&self, password: &[u8], hash: &str) -> bool {
        let Ok(hash) = PasswordHash::new(hash) else { return false };
        let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return false };
        let algorithm = Algorithm::try_from(hash.algorithm.as_str());
        let version = hash.version.map_or(Ok(Version::default()), Version::try_from);
        let (Ok(algorithm), Ok(version), Ok(params)) = (algorithm, version, Params::try_from(&hash)) else {
            return false;
        };
        let mut memory = self.take(params.block_count());
        let mut made = vec![0; expected.len()];
        let done = Argon2::new(algorithm, version, params).hash_password_into_with_memory(
            password,
            salt,
            &mut made,
            memory.as_mut_slice(),
        );
        self.give(memory);
        // Compared in a time that does not depend on the bytes.
        done.is_ok() && Output::new(&made).is_ok_and(|made| made == *expected)
    }

    fn take(&self, blocks: usize) -> Vec<Block> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut memory = kept.map(|(memory, _)| memory).unwrap_or_default();
        if memory.len() < blocks {
            memory = vec![Block::new(); blocks];
        }
        memory
    }

    fn give(&self, memory: Vec<Block>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < AT_ONCE_MAX {
            kept.push((memory, Instant::now()));
        }
    }

    fn rest(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, used_at)| used_at.elapsed() < SCRATCH_KEPT);
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
        assert!(!passwords.check("correct horse", Some("$argon2id$v=19$m=19456,t=2,p=1$short")).await.unwrap());
        assert!(passwords.hash("").await.is_err());
        assert!(passwords.hash(&"x".repeat(PASSWORD_BYTES_MAX + 1)).await.is_err());
    }

    #[tokio::test]
    async fn memory_is_used_again_and_holds_nothing_of_the_check_before() {
        let passwords = Passwords::default();
        let (one, other) = (passwords.hash("one").await.unwrap(), passwords.hash("other").await.unwrap());
        for _ in 0..2 {
            assert!(passwords.check("one", Some(&one)).await.unwrap());
            assert!(passwords.check("other", Some(&other)).await.unwrap());
            assert!(!passwords.check("one", Some(&other)).await.unwrap());
        }
        assert_eq!(passwords.scratch.0.lock().unwrap().len(), 1);
        passwords.rest();
        assert_eq!(passwords.scratch.0.lock().unwrap().len(), 1, "just used");
        passwords.scratch.0.lock().unwrap()[0].1 -= 2 * SCRATCH_KEPT;
        passwords.rest();
        assert!(passwords.scratch.0.lock().unwrap().is_empty());
    }

    #[test]
    fn the_hash_of_nobody_is_a_hash_that_is_worked_on() {
        let hash = PasswordHash::new(NOBODY).unwrap();
        let made = hasher().unwrap().hash_password(b"x").unwrap();
        assert_eq!((hash.algorithm, hash.version, hash.params), (made.algorithm, made.version, made.params));
        assert_eq!(hash.hash.map(|h| h.len()), made.hash.map(|h| h.len()));
    }
}
