//! The id of a flavor: the one id that an administrator may choose as text.

use crate::Rejected;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A flavor's id: 1 to 255 letters, digits, dots, dashes, underscores or spaces inside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FlavorId(String);

impl FlavorId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A new id that reveals nothing.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }
}

impl fmt::Display for FlavorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FlavorId {
    type Err = Rejected;
    fn from_str(text: &str) -> Result<Self, Rejected> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ');
        if text.is_empty() || text.len() > 255 || text.trim() != text || !text.chars().all(allowed) {
            let shown: String = text.chars().take(64).collect();
            return Err(Rejected(format!(
                "'{shown}' is not a valid flavor id: 1 to 255 letters, digits, dots, dashes, underscores or spaces inside"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for FlavorId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
