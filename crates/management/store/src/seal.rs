//! Seals what the database must not tell by itself: a copy of its files, or of a backup, without the key tells nothing.
//!
//! The key is a file beside the database, never in it. A sealed text is `s1:` and base64 of nonce, cipher text and tag;
//! the place that it belongs to is sealed with it, so that it cannot be moved to another row.

use crate::StoreError;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a sealed text begins with: the way that it was sealed.
const PREFIX: &str = "s1:";

/// The key that seals.
pub struct SealKey(RandomizedNonceKey);

impl SealKey {
    /// Bytes of a key.
    pub const BYTES: usize = 32;

    /// A key of these bytes, which must be random.
    ///
    /// # Errors
    /// [`StoreError::Seal`] unless there are [`SealKey::BYTES`] of them.
    pub fn new(bytes: &[u8]) -> Result<Self, StoreError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, bytes);
        key.map(Self).map_err(|_| StoreError::Seal("a key has 32 bytes".to_owned()))
    }

    /// Seals a text for a place.
    pub(crate) fn seal(&self, place: &str, text: &str) -> Result<String, StoreError> {
        let mut bytes = text.as_bytes().to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut bytes);
        let nonce = nonce.map_err(|_| StoreError::Seal(format!("{place} could not be sealed")))?;
        let sealed = [&nonce.as_ref()[..], &bytes[..]].concat();
        Ok(format!("{PREFIX}{}", STANDARD.encode(sealed)))
    }

    /// Opens what was sealed for a place.
    pub(crate) fn unseal(&self, place: &str, text: &str) -> Result<String, StoreError> {
        let opened = text.strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok()).and_then(|mut sealed| {
            let (nonce, cipher) = sealed.split_at_mut_checked(NONCE_LEN)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let plain = self.0.open_in_place(nonce, Aad::from(place.as_bytes()), cipher).ok()?;
            String::from_utf8(plain.to_vec()).ok()
        });
        opened.ok_or_else(|| StoreError::Seal(format!("{place} was sealed with another key, or was changed")))
    }
}

/// Whether a text is sealed. Texts of before there were keys are not.
pub(crate) fn is_sealed(text: &str) -> bool {
    text.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_opens_with_its_key_at_its_place_alone() {
        let (key, other) = (SealKey::new(&[7; 32]).unwrap(), SealKey::new(&[8; 32]).unwrap());
        let sealed = key.seal("here", "hunter2").unwrap();
        assert!(is_sealed(&sealed) && !sealed.contains("hunter2"));
        assert_ne!(sealed, key.seal("here", "hunter2").unwrap(), "each has a nonce of its own");
        assert_eq!(key.unseal("here", &sealed).unwrap(), "hunter2");
        assert!(key.unseal("there", &sealed).is_err());
        assert!(other.unseal("here", &sealed).is_err());
        for bad in ["", "s1:", "s1:AAAA", "s1:!", "hunter2", &sealed[..sealed.len() - 4]] {
            assert!(key.unseal("here", bad).is_err(), "{bad}");
        }
        assert!(SealKey::new(&[7; 31]).is_err());
    }
}
